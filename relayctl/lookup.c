#include "relayctl/lookup.h"

#include "base/base.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

enum { SOCKETS_MAX = 32 };

struct lookup {
	const struct clock *clock;
	struct timers *timers;
	struct dns_host host;
	const struct config *config;
	struct dns *dns;
	struct resolver *resolver;
	struct mx *mx;
	struct pollfd sockets[SOCKETS_MAX];
	nfds_t socket_count;
	const struct dns_answer *answer;
	struct mx_result *hosts;
	struct resolver_result *addresses; /* NULL: they have come */
	char reason[256];
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

static void make_finders(struct lookup *lookup)
{
	const struct config *config = lookup->config;
	const struct mx_options options = {.ip = (enum dns_ip)config->delivery.ip,
					   .allow_loopback = config->delivery.allow_loopback};

	lookup->resolver = resolver_new(lookup->dns, lookup->timers, lookup->clock, rng_system(), NULL);
	lookup->mx = mx_new(lookup->dns, lookup->resolver, lookup->timers, lookup->clock, rng_system(), &options);
}

struct lookup *lookup_new(const struct config *config, int tries, struct err *err)
{
	const char **servers = config_endpoint_texts(&config->dns.servers);
	struct dns_options options = {.servers = servers,
				      .server_count = config->dns.servers.count,
				      .tries = tries,
				      .trust = config->dns.trust_ad ? DNS_TRUST_ALWAYS : DNS_TRUST_LOOPBACK};
	struct lookup *lookup = xcalloc(1, sizeof(*lookup));

	lookup->config = config;
	lookup->clock = clock_system();
	lookup->timers = timers_new();
	lookup->host = (struct dns_host){watch, lookup};
	lookup->dns = dns_new(&options, &lookup->host, lookup->timers, lookup->clock, rng_system(), err);
	free(servers);
	if (!lookup->dns)
		lookup_free(&lookup);
	else
		make_finders(lookup);
	return lookup;
}

void lookup_free(struct lookup **lookup)
{
	if (!*lookup)
		return;
	mx_free(&(*lookup)->mx);
	resolver_free(&(*lookup)->resolver);
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

static void on_hosts(void *ctx, struct mx_result *result)
{
	((struct lookup *)ctx)->hosts = result;
}

struct mx_result *lookup_mx(struct lookup *lookup, const char *domain)
{
	lookup->hosts = NULL;
	mx_lookup(lookup->mx, domain, on_hosts, lookup);
	while (!lookup->hosts)
		turn(lookup);
	return lookup->hosts;
}

static void on_addresses(void *ctx, const struct resolver_result *result)
{
	struct lookup *lookup = ctx;

	*lookup->addresses = *result;
	lookup->addresses->canonical = NULL;
	snprintf(lookup->reason, sizeof(lookup->reason), "%s", result->reason ? result->reason : "");
	lookup->addresses->reason = lookup->reason;
	lookup->addresses = NULL;
}

void lookup_host(struct lookup *lookup, const char *host, struct resolver_result *out)
{
	const struct resolver_options options = {.ip = (enum dns_ip)lookup->config->delivery.ip,
						 .is_configured_name = true};

	lookup->addresses = out;
	resolver_lookup(lookup->resolver, host, &options, on_addresses, lookup);
	while (lookup->addresses)
		turn(lookup);
}

void lookup_format_servers(const struct lookup *lookup, char *out, size_t size)
{
	dns_format_servers(lookup->dns, out, size);
}

bool lookup_is_trusted(const struct lookup *lookup)
{
	return dns_is_trusted(lookup->dns);
}
