#include "relayctl/lookup.h"

#include "base/base.h"

#include <poll.h>
#include <stdlib.h>

enum { SOCKETS_MAX = 32 };

struct lookup {
	const struct clock *clock;
	struct timers *timers;
	struct dns_host host;
	struct dns *dns;
	struct pollfd sockets[SOCKETS_MAX];
	nfds_t socket_count;
	const struct dns_answer *answer;
};

static void watch(void *ctx, int fd, bool want_read, bool want_write)
{
	struct lookup *lookup = ctx;
	short events = (short)((want_read ? POLLIN : 0) | (want_write ? POLLOUT : 0));
	nfds_t at = 0;

	while (at < lookup->socket_count && lookup->sockets[at].fd != fd)
		at++;
	if (at < lookup->socket_count && events == 0)
		lookup->sockets[at] = lookup->sockets[--lookup->socket_count];
	else if (at < lookup->socket_count)
		lookup->sockets[at].events = events;
	else if (events != 0 && lookup->socket_count < SOCKETS_MAX)
		lookup->sockets[lookup->socket_count++] = (struct pollfd){.fd = fd, .events = events};
}

struct lookup *lookup_new(const struct config *config, int tries, struct err *err)
{
	const char **servers = config_endpoint_texts(&config->dns.servers);
	struct dns_options options = {.servers = servers,
				      .server_count = config->dns.servers.count,
				      .tries = tries,
				      .trust = config->dns.trust_ad ? DNS_TRUST_ALWAYS : DNS_TRUST_LOOPBACK};
	struct lookup *lookup = xcalloc(1, sizeof(*lookup));

	lookup->clock = clock_system();
	lookup->timers = timers_new();
	lookup->host = (struct dns_host){watch, lookup};
	lookup->dns = dns_new(&options, &lookup->host, lookup->timers, lookup->clock, rng_system(), err);
	free(servers);
	if (!lookup->dns)
		lookup_free(&lookup);
	return lookup;
}

void lookup_free(struct lookup **lookup)
{
	if (!*lookup)
		return;
	dns_free(&(*lookup)->dns);
	timers_free(&(*lookup)->timers);
	free(*lookup);
	*lookup = NULL;
}

static void on_answer(void *ctx, const struct dns_answer *answer)
{
	((struct lookup *)ctx)->answer = dns_answer_ref(answer);
}

static void turn(struct lookup *lookup)
{
	int64_t due = timers_next_at_ms(lookup->timers), now = clock_mono_ms(lookup->clock);
	struct pollfd ready[SOCKETS_MAX];
	nfds_t count = lookup->socket_count;
	int n = poll(lookup->sockets, count, due == INT64_MAX ? -1 : (int)MIN(MAX(due - now, 0), (int64_t)60000));

	memcpy(ready, lookup->sockets, count * sizeof(ready[0])); /* they change while they are told */
	for (nfds_t i = 0; n > 0 && i < count; i++) {
		bool broken = ready[i].revents & (POLLERR | POLLHUP);
		if (ready[i].revents)
			dns_on_fd(lookup->dns, ready[i].fd, broken || (ready[i].revents & POLLIN),
				  broken || (ready[i].revents & POLLOUT));
	}
	timers_run(lookup->timers, clock_mono_ms(lookup->clock));
}

const struct dns_answer *lookup_ask(struct lookup *lookup, const char *name, uint16_t type)
{
	lookup->answer = NULL;
	dns_query(lookup->dns, name, type, on_answer, lookup);
	while (!lookup->answer)
		turn(lookup);
	return lookup->answer;
}
