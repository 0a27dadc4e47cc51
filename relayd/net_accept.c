/*
 * Running out of descriptors is foreseen, not suffered: the kernel gives out the lowest free number, so a number near
 * the limit says how few are left. Then, and at EMFILE and its kin, the listening socket is not watched for a while;
 * level triggering would spin otherwise. A client that waits in the backlog is better off than one that is turned away.
 */
#include "relayd/net.h"

#include "base/base.h"
#include "relayd/net_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { ACCEPTS_PER_TURN = 64, SHORTAGE_RETRY_MS = 250 };

struct net_acceptor {
	struct net *net;
	struct net_acceptor_events events;
	struct watch *watch;
	timer_id timer; /* of a shortage */
	int fd;
	bool short_of;
	bool in_callback; /* freed at its end */
	bool freed;
};

static uint64_t fd_limit(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 1024;
}

/* The first descriptor number that is left for others. */
static uint64_t reserved_from(void)
{
	return fd_limit() / 4 * 3;
}

unsigned net_connections_max(void)
{
	return (unsigned)MAX(MIN(fd_limit() / 5, (uint64_t)UINT_MAX), (uint64_t)1);
}

uint64_t net_raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	return fd_limit();
}

static void update_watch(struct net_acceptor *a)
{
	if (!a->freed)
		loop_watch_events(a->net->loop, a->watch, a->short_of ? 0 : EPOLLIN);
}

static void on_retry(void *ctx);

static void begin_shortage(struct net_acceptor *a, const char *why)
{
	bool is_new = !a->short_of;

	a->short_of = true;
	timers_set(loop_timers(a->net->loop), &a->timer, loop_now_ms(a->net->loop) + SHORTAGE_RETRY_MS, on_retry, a);
	update_watch(a);
	if (is_new && a->events.on_shortage)
		a->events.on_shortage(a->events.ctx, true, why);
}

/* Asks with a descriptor that is no client's. */
static bool has_room(struct net_acceptor *a)
{
	int probe = fcntl(a->fd, F_DUPFD_CLOEXEC, 0);

	if (probe < 0)
		return false;
	close(probe);
	return (uint64_t)probe < reserved_from();
}

static void leave_callback(struct net_acceptor *a)
{
	a->in_callback = false;
	if (a->freed)
		free(a);
}

static void on_retry(void *ctx)
{
	struct net_acceptor *a = ctx;

	if (!has_room(a)) {
		begin_shortage(a, "");
		return;
	}
	a->short_of = false;
	update_watch(a);
	a->in_callback = true;
	if (a->events.on_shortage)
		a->events.on_shortage(a->events.ctx, false, "");
	leave_callback(a);
}

static bool is_shortage(int errnum)
{
	return errnum == EMFILE || errnum == ENFILE || errnum == ENOBUFS || errnum == ENOMEM;
}

/* False: nobody else waits, or it must not go on. */
static bool accept_one(struct net_acceptor *a)
{
	struct sockaddr_storage address = {0};
	socklen_t size = sizeof(address);
	int fd = accept4(a->fd, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct net_peer peer = {0};

	if (fd < 0) {
		int errnum = errno;
		if (is_shortage(errnum))
			begin_shortage(a, strerror(errnum));
		/* The rest are faults of one connection (ECONNABORTED, EPERM, network errors: accept(2)). */
		return !is_shortage(errnum) && errnum != EAGAIN;
	}
	if (address.ss_family == AF_UNIX || size == 0)
		net_peer_of(fd, &peer);
	else
		peer.address = net_of_sockaddr(&address, &peer.port);
	if ((uint64_t)fd >= reserved_from())
		begin_shortage(a, "nearly all descriptors are in use");
	if (!a->freed)
		a->events.on_accept(a->events.ctx, fd, &peer);
	else
		close(fd);
	return true;
}

static void on_ready(void *ctx, uint32_t events)
{
	struct net_acceptor *a = ctx;

	(void)events;
	a->in_callback = true;
	for (int i = 0; i < ACCEPTS_PER_TURN && !a->freed && !a->short_of; i++)
		if (!accept_one(a))
			break;
	leave_callback(a);
}

struct net_acceptor *net_acceptor_new(struct net *net, int listen_fd, const struct net_acceptor_events *events)
{
	struct net_acceptor *a = xcalloc(1, sizeof(*a));

	a->net = net;
	a->fd = listen_fd;
	a->events = *events;
	a->watch = loop_watch(net->loop, listen_fd, EPOLLIN, on_ready, a);
	return a;
}

void net_acceptor_free(struct net_acceptor **acceptor)
{
	struct net_acceptor *a = *acceptor;

	if (!a)
		return;
	*acceptor = NULL;
	a->freed = true;
	timers_cancel(loop_timers(a->net->loop), &a->timer);
	loop_unwatch(a->net->loop, &a->watch);
	close(a->fd);
	if (!a->in_callback)
		free(a);
}
