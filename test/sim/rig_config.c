#include "test/sim/rig_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* "rate: 100/h" */
static void put_rate(struct buf *text, const struct rig_rate *rate)
{
	if (rate->count > 0)
		buf_printf(text, ", rate: %u/%s", rate->count,
			   rate->per_ms == MIN_MS    ? "m"
			   : rate->per_ms == HOUR_MS ? "h"
						     : "d");
}

static void put_ways(struct buf *text, const struct rig_options *options)
{
	for (unsigned r = 0; r < options->relayhosts; r++) {
		buf_printf(text, "%s  r%u: {address: \"mx0.d%u.test:587\", tls: none, priority: %u",
			   r == 0 ? "relayhosts:\n" : "", r, r, 10 + r);
		put_rate(text, &options->rates[r]);
		buf_append_str(text, "}\n");
	}
	for (unsigned i = 0; i < options->route_count; i++) {
		buf_printf(text, "%s  - {name: q%u, to: [\"d%u.test\"], via: [%s", i == 0 ? "routes:\n" : "", i,
			   options->routes[i].domain, options->relayhosts == 0 ? "mx" : "");
		for (unsigned r = 0; r < options->relayhosts; r++)
			buf_printf(text, "%sr%u", r == 0 ? "" : ", ", r);
		buf_append_str(text, "]");
		put_rate(text, &options->routes[i].rate);
		buf_append_str(text, "}\n");
	}
}

struct config *rig_make_config(const struct rig_options *options)
{
	struct config_source source = {0};
	struct config_errors errors;
	struct config *config;
	struct buf text;

	buf_init(&text, 64 << 10);
	buf_printf(&text,
		   "hostname: relay.test\nhelpers: 0\ndelivery: {ip: \"4\", connections: %u, per_destination: %u}\n"
		   "retry: {expire: %llds, warn_after: %llds}\nlog: {level: %s}\n",
		   options->connections, options->per_destination, (long long)(options->expire_ms / 1000),
		   (long long)(options->warn_after_ms / 1000), getenv("SIM_LOG") ? "info" : "error");
	put_ways(&text, options);
	if (config_load_text(&source, buf_slice(&text), &config, &errors) != 0) {
		fprintf(stderr, "%s\n", errors.items[0].text);
		abort();
	}
	buf_fini(&text);
	return config;
}

void rig_make_spool(struct rig *rig)
{
	snprintf(rig->spool, sizeof(rig->spool), "%s/relayd-sim.XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	BUG_ON(!mkdtemp(rig->spool));
}

void rig_remove_spool(struct rig *rig)
{
	static const char *const names[] = {"paused.json",     "rates.json",	 "greylist.json",
					    "paused.json.new", "rates.json.new", "greylist.json.new"};
	int fd = open(rig->spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		unlinkat(fd, names[i], 0);
	close(fd);
	rmdir(rig->spool);
}
