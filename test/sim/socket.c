#include "test/sim/socket.h"

#include "base/base.h"
#include "base/buf.h"
#include "base/list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 64 << 10 };

struct poller {
	struct list candidates; /* sockets that something has happened to; each is looked at when it is asked for */
};

struct end {
	bool is_used;
	struct poller *poller; /* it is an epoll, or: who watches this socket */
	bool is_poller;
	int peer; /* -1: gone */
	struct buf in;
	bool is_silent, is_shut, has_eof, is_reset;
	uint32_t events;
	epoll_data_t data;
	struct list node; /* among the candidates */
};

static struct end **ends;
static int end_count, used_count;

int __real_close(int fd);
ssize_t __real_recv(int fd, void *out, size_t len, int flags);
ssize_t __real_send(int fd, const void *bytes, size_t len, int flags);
int __real_shutdown(int fd, int how);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t len);

int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms);
int __wrap_close(int fd);
ssize_t __wrap_recv(int fd, void *out, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t len, int flags);
int __wrap_shutdown(int fd, int how);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);

/* ---- descriptors ---- */

static bool is_ours(int fd)
{
	return fd >= SIM_FD_FIRST;
}

static struct end *at(int fd)
{
	BUG_ON(fd < SIM_FD_FIRST || fd >= SIM_FD_FIRST + end_count || !ends[fd - SIM_FD_FIRST]->is_used);
	return ends[fd - SIM_FD_FIRST];
}

/* The lowest one that is free, as the kernel gives them. */
static int allocate(void)
{
	int i = 0;

	while (i < end_count && ends[i]->is_used)
		i++;
	if (i == end_count) {
		ends = xreallocarray(ends, (size_t)++end_count, sizeof(struct end *));
		ends[i] = xmalloc(sizeof(*ends[i]));
	}
	*ends[i] = (struct end){.is_used = true, .peer = -1};
	list_node_init(&ends[i]->node);
	used_count++;
	return SIM_FD_FIRST + i;
}

unsigned sim_socket_count(void)
{
	return (unsigned)used_count;
}

/* ---- epoll ---- */

static uint32_t readiness(const struct end *end)
{
	const struct end *peer = end->peer >= 0 ? at(end->peer) : NULL;
	uint32_t events = 0;

	if (buf_len(&end->in) > 0 || end->has_eof || end->is_reset)
		events |= EPOLLIN;
	if (end->has_eof)
		events |= EPOLLRDHUP;
	if (!end->is_silent && (!peer || buf_len(&peer->in) < BUFFER_BYTES))
		events |= EPOLLOUT;
	if (end->is_reset || (end->has_eof && end->is_shut))
		events |= EPOLLHUP;
	if (end->is_reset)
		events |= EPOLLERR;
	return events & (end->events | EPOLLHUP | EPOLLERR);
}

static void touch(struct end *end)
{
	if (end->poller && !list_is_linked(&end->node))
		list_append(&end->poller->candidates, &end->node);
}

int __wrap_epoll_create1(int flags)
{
	int fd = allocate();

	(void)flags;
	at(fd)->is_poller = true;
	at(fd)->poller = xcalloc(1, sizeof(struct poller));
	list_init(&at(fd)->poller->candidates);
	return fd;
}

int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
	struct end *end = at(fd);

	list_remove(&end->node);
	end->poller = op == EPOLL_CTL_DEL ? NULL : at(epoll_fd)->poller;
	if (op != EPOLL_CTL_DEL) {
		end->events = event->events;
		end->data = event->data;
		touch(end);
	}
	return 0;
}

int __wrap_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms)
{
	struct poller *poller = at(epoll_fd)->poller;
	struct list still;
	int count = 0;

	(void)timeout_ms; /* time is the simulation's */
	list_init(&still);
	while (count < max && !list_is_empty(&poller->candidates)) {
		struct end *end = CONTAINER_OF(list_pop(&poller->candidates), struct end, node);
		uint32_t ready = readiness(end);
		if (ready == 0)
			continue;
		events[count++] = (struct epoll_event){ready, end->data};
		list_append(&still, &end->node);
	}
	for (struct list *node; (node = list_pop(&still));)
		list_append(&poller->candidates, node);
	return count;
}

/* ---- sockets ---- */

void sim_socket_pair(int fds[2], bool is_silent)
{
	for (int i = 0; i < 2; i++) {
		fds[i] = allocate();
		buf_init(&at(fds[i])->in, BUFFER_BYTES);
	}
	at(fds[0])->peer = fds[1];
	at(fds[1])->peer = fds[0];
	at(fds[0])->is_silent = is_silent;
}

bool sim_socket_is_left(int fd)
{
	return at(fd)->has_eof;
}

/* Whoever leaves what has come unread resets the connection. */
static void leave_peer(const struct end *end)
{
	struct end *peer = end->peer >= 0 ? at(end->peer) : NULL;

	if (!peer)
		return;
	peer->peer = -1;
	peer->has_eof = true;
	peer->is_reset = buf_len(&end->in) > 0;
	touch(peer);
}

int __wrap_close(int fd)
{
	struct end *end;

	if (!is_ours(fd))
		return __real_close(fd);
	end = at(fd);
	list_remove(&end->node);
	if (end->is_poller) {
		while (list_pop(&end->poller->candidates))
			;
		free(end->poller);
	} else {
		leave_peer(end);
		buf_fini(&end->in);
	}
	end->is_used = false;
	used_count--;
	return 0;
}

static ssize_t fail(int errnum)
{
	errno = errnum;
	return -1;
}

ssize_t __wrap_recv(int fd, void *out, size_t len, int flags)
{
	struct end *end;
	struct slice has;

	if (!is_ours(fd))
		return __real_recv(fd, out, len, flags);
	end = at(fd);
	has = slice_to(buf_slice(&end->in), len);
	if (has.len == 0 && end->is_reset)
		return fail(ECONNRESET);
	if (has.len == 0)
		return end->has_eof ? 0 : fail(EAGAIN);
	memcpy(out, has.ptr, has.len);
	if (flags & MSG_PEEK)
		return (ssize_t)has.len;
	buf_consume(&end->in, has.len);
	if (end->peer >= 0)
		touch(at(end->peer)); /* there is room */
	return (ssize_t)has.len;
}

ssize_t __wrap_send(int fd, const void *bytes, size_t len, int flags)
{
	struct end *end, *peer;
	size_t room;

	if (!is_ours(fd))
		return __real_send(fd, bytes, len, flags);
	end = at(fd);
	if (end->is_shut || end->is_reset)
		return fail(end->is_shut ? EPIPE : ECONNRESET);
	if (end->is_silent)
		return fail(EAGAIN);
	if (end->peer < 0) {
		end->is_reset = true;
		touch(end);
		return (ssize_t)len;
	}
	peer = at(end->peer);
	room = MIN(BUFFER_BYTES - buf_len(&peer->in), len);
	if (room == 0 && len > 0)
		return fail(EAGAIN);
	buf_append(&peer->in, slice_of(bytes, room));
	touch(peer);
	return (ssize_t)room;
}

int __wrap_shutdown(int fd, int how)
{
	struct end *end;

	if (!is_ours(fd))
		return __real_shutdown(fd, how);
	end = at(fd);
	end->is_shut = true;
	touch(end);
	if (end->peer >= 0) {
		at(end->peer)->has_eof = true;
		touch(at(end->peer));
	}
	return 0;
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	if (!is_ours(fd))
		return __real_getsockopt(fd, level, name, value, len);
	*(int *)value = 0; /* SO_ERROR: whoever is not refused at once is connected, or waits for ever */
	return 0;
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	return is_ours(fd) ? 0 : __real_setsockopt(fd, level, name, value, len);
}
