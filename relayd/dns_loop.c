#include "relayd/dns_loop.h"

#include "base/base.h"

#include <stdlib.h>

/* One of c-ares' sockets. */
struct watched {
	int fd;
	struct watch *watch;
	struct dns_loop *owner;
	struct watched *next;
};

struct dns_loop {
	struct loop *loop;
	struct dns_host host;
	struct dns *dns;
	struct watched *first;
};

static void on_ready(void *ctx, uint32_t events)
{
	struct watched *watched = ctx;
	bool broken = events & (EPOLLERR | EPOLLHUP);

	dns_on_fd(watched->owner->dns, watched->fd, broken || (events & EPOLLIN), broken || (events & EPOLLOUT));
}

static void forget(struct watched **at, struct loop *loop)
{
	struct watched *gone = *at;

	*at = gone->next;
	loop_unwatch(loop, &gone->watch);
	free(gone);
}

static void watch(void *ctx, int fd, bool want_read, bool want_write)
{
	struct dns_loop *d = ctx;
	uint32_t events = (want_read ? EPOLLIN : 0u) | (want_write ? EPOLLOUT : 0u);
	struct watched **at = &d->first;

	while (*at && (*at)->fd != fd)
		at = &(*at)->next;
	if (*at && events) {
		loop_watch_events(d->loop, (*at)->watch, events);
	} else if (*at) {
		forget(at, d->loop);
	} else if (events) {
		*at = xcalloc(1, sizeof(**at));
		(*at)->fd = fd;
		(*at)->owner = d;
		(*at)->watch = loop_watch(d->loop, fd, events, on_ready, *at);
	}
}

struct dns_loop *dns_loop_new(struct loop *loop, const struct config *config, const struct clock *clock,
			      struct rng *rng, struct err *err)
{
	const char **servers = config_endpoint_texts(&config->dns.servers);
	struct dns_options options = {.servers = servers,
				      .server_count = config->dns.servers.count,
				      .trust = config->dns.trust_ad ? DNS_TRUST_ALWAYS : DNS_TRUST_LOOPBACK};
	struct dns_loop *d = xcalloc(1, sizeof(*d));

	d->loop = loop;
	d->host = (struct dns_host){watch, d};
	d->dns = dns_new(&options, &d->host, loop_timers(loop), clock, rng, err);
	free(servers);
	if (!d->dns)
		dns_loop_free(&d);
	return d;
}

void dns_loop_free(struct dns_loop **dns_loop)
{
	struct dns_loop *d = *dns_loop;

	if (!d)
		return;
	dns_free(&d->dns);
	while (d->first)
		forget(&d->first, d->loop);
	free(d);
	*dns_loop = NULL;
}

struct dns *dns_loop_dns(struct dns_loop *dns_loop)
{
	return dns_loop->dns;
}
