/* Doctor: do receivers take connections from here, and what do they say of us? */
#include "base/base.h"
#include "base/clock.h"
#include "relayctl/doctor_egress.h"
#include "relayctl/link.h"
#include "smtp/reply.h"

#include <poll.h>
#include <stdio.h>

enum { CONNECT_MS = 5000, REPLY_MS = 5000, PROBES_MAX = 6 };

/* Who takes mail from everybody, and says in the EHLO reply what address it comes from. */
static const char *const receivers[] = {"gmail.com", "outlook.com", "yahoo.com"};

struct probe {
	const char *domain;
	struct dns_address address;
	int fd; /* -1: not connecting */
	bool is_open, is_unreachable;
	char why[300]; /* unless it is open */
};

struct probes {
	size_t count;
	struct probe items[PROBES_MAX];
	char trouble[300]; /* of the lookups */
};

static void add_probe(struct probes *probes, const char *domain, const struct mx_result *hosts, unsigned family)
{
	struct probe *probe = &probes->items[probes->count];

	for (size_t h = 0; h < hosts->host_count; h++)
		for (size_t a = 0; a < hosts->hosts[h].address_count; a++)
			if (hosts->hosts[h].addresses[a].family == family) {
				*probe = (struct probe){domain, hosts->hosts[h].addresses[a], -1, false, false, ""};
				probes->count++;
				return;
			}
}

static void find_receivers(struct doctor *doctor, struct probes *probes)
{
	for (size_t i = 0; i < ARRAY_LEN(receivers); i++) {
		struct mx_result *hosts = lookup_mx(doctor->lookup, receivers[i]);
		add_probe(probes, receivers[i], hosts, DNS_IPV4);
		add_probe(probes, receivers[i], hosts, DNS_IPV6);
		if (hosts->status != MX_OK)
			snprintf(probes->trouble, sizeof(probes->trouble), "%s", hosts->text);
		mx_result_free(&hosts);
	}
}

/* False: none came that makes sense. */
static bool read_reply(struct link *link, struct smtp_reply_parser *parser, struct smtp_reply *reply)
{
	int64_t until = clock_mono_ms(clock_system()) + REPLY_MS;
	char bytes[4096];

	while (true) {
		ssize_t n =
		    link_read(link, bytes, sizeof(bytes), MAX(until - clock_mono_ms(clock_system()), (int64_t)0));
		struct slice input = slice_of(bytes, (size_t)MAX(n, (ssize_t)0));
		int rc = n > 0 ? smtp_reply_parse(parser, &input, reply, NULL) : -1;
		if (rc != 0)
			return rc == 1;
	}
}

/* The address in brackets in an EHLO reply: "mx.google.com at your service, [192.0.2.1]". */
static void find_egress(struct doctor *doctor, const struct probe *probe, const char *text)
{
	struct slice reply = slice_of_str(text);
	ptrdiff_t open = slice_find(reply, '['), end;
	struct dns_address address;

	if (open < 0)
		return;
	reply = slice_from(reply, (size_t)open + 1);
	end = slice_find(reply, ']');
	if (end > 0 && dns_address_parse(slice_to(reply, (size_t)end), &address) &&
	    address.family == probe->address.family && dns_address_kind(&address) == DNS_ADDRESS_GLOBAL)
		doctor_found_egress(doctor, &address);
}

static void greet(struct doctor *doctor, struct probe *probe, struct link *link)
{
	struct smtp_reply_parser parser;
	struct smtp_reply reply = {0};
	char command[300];
	bool is_there;

	smtp_reply_parser_init(&parser);
	is_there = read_reply(link, &parser, &reply);
	if (is_there && reply.code == 220) {
		snprintf(command, sizeof(command), "EHLO %s\r\n", doctor->config->hostname);
		is_there = link_write(link, slice_of_str(command)) == 0 && read_reply(link, &parser, &reply);
		probe->is_open = is_there && reply.code == 250;
		link_write(link, SLICE("QUIT\r\n"));
	}
	smtp_reply_parser_fini(&parser);
	if (probe->is_open)
		find_egress(doctor, probe, reply.text);
	else if (is_there)
		snprintf(probe->why, sizeof(probe->why), "it refuses us: %d %s %.230s", reply.code, reply.enhanced,
			 reply.text);
	else
		snprintf(probe->why, sizeof(probe->why), "connected, but nobody speaks SMTP");
}

static void connect_all(struct doctor *doctor, struct probes *probes)
{
	int64_t until = clock_mono_ms(clock_system()) + CONNECT_MS;
	struct dns_address memory;
	struct err err;

	for (size_t i = 0; i < probes->count; i++) {
		struct probe *probe = &probes->items[i];
		probe->fd = link_begin(&probe->address, (uint16_t)doctor->config->delivery.port,
				       doctor_source(doctor, probe->address.family, &memory), &err);
		probe->is_unreachable = probe->fd < 0;
		if (probe->fd < 0)
			snprintf(probe->why, sizeof(probe->why), "%.200s", err.text);
	}
	for (size_t i = 0; i < probes->count; i++) {
		struct probe *probe = &probes->items[i];
		struct pollfd ready = {.fd = probe->fd, .events = POLLOUT};
		struct link *link = NULL;
		if (probe->fd < 0)
			continue;
		err_set(&err, ERR_CLOSED, "timed out");
		if (poll(&ready, 1, (int)MAX(until - clock_mono_ms(clock_system()), (int64_t)0)) == 1)
			link = link_finish(probe->fd, &err);
		if (link)
			greet(doctor, probe, link);
		else
			snprintf(probe->why, sizeof(probe->why), "%.200s", err.text);
		link_close(&link);
	}
}

struct family {
	unsigned number;
	const char *name;
	size_t probed, open, unreachable;
	const struct probe *first_closed;
};

static void count_family(const struct probes *probes, struct family *family)
{
	for (size_t i = 0; i < probes->count; i++) {
		const struct probe *probe = &probes->items[i];
		if (probe->address.family != family->number)
			continue;
		family->probed++;
		family->open += probe->is_open;
		family->unreachable += probe->is_unreachable;
		if (!probe->is_open && !family->first_closed)
			family->first_closed = probe;
	}
}

static void tell_family(struct doctor *doctor, const struct family *family, bool is_needed)
{
	const struct probe *closed = family->first_closed;

	if (family->open == family->probed) {
		doctor_tell(doctor, DOCTOR_OK, family->name, "all of %zu large receivers answer", family->probed);
	} else if (family->open > 0) {
		doctor_tell(doctor, DOCTOR_WARN, family->name, "%zu of %zu large receivers answer; %s does not: %s",
			    family->open, family->probed, closed->domain, closed->why);
	} else if (!is_needed && family->unreachable == family->probed) {
		doctor_tell(doctor, DOCTOR_INFO, family->name, "not here: %s", closed->why);
	} else {
		doctor_tell(doctor, is_needed ? DOCTOR_FAIL : DOCTOR_WARN, family->name,
			    "none of %zu large receivers answers; %s: %s", family->probed, closed->domain, closed->why);
		doctor_advise(doctor, is_needed
					  ? "ask whoever runs the network to open outgoing port 25, or send through a "
					    "relayhost on port 587"
					  : "set delivery.ip: \"4\", or have outgoing port 25 opened");
	}
}

void doctor_port25(struct doctor *doctor, const char *subject)
{
	struct family v4 = {.number = DNS_IPV4, .name = "IPv4"}, v6 = {.number = DNS_IPV6, .name = "IPv6"};
	struct probes probes = {0};

	find_receivers(doctor, &probes);
	if (probes.count == 0) {
		doctor_tell(doctor, DOCTOR_FAIL, subject, "no large receiver can be found in DNS: %s", probes.trouble);
		return;
	}
	connect_all(doctor, &probes);
	count_family(&probes, &v4);
	count_family(&probes, &v6);
	if (v4.probed > 0)
		tell_family(doctor, &v4, true);
	if (v6.probed > 0)
		tell_family(doctor, &v6, v4.probed == 0);
}
