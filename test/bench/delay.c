/*
 * test/bench/delay.c - TCP proxy that makes a long way of a short one
 *
 * All that is read from one side goes to the other side MS later, whatever is under way already: the way is long, not
 * narrow. The upstream connection is made after three times that, since a handshake takes a way there, one back, and
 * one for the ACK upon which the server speaks; so the banner comes four ways after connect(), as over a real network.
 * Ends of either direction travel like octets. Prints "listening=ADDR:PORT" at the start, runs until SIGTERM.
 */
#include "test/bench/bench.h"

#include "base/list.h"

#include <getopt.h>
#include <signal.h>

#define CHUNK_SIZE (64 * 1024)
#define HANDSHAKE_WAYS 3

struct link;

/* One of the two sockets of a link. */
struct end {
	struct link *link;
	struct end *other;
	int fd;		 /* -1: not connected yet */
	struct list out; /* chunks that have arrived and wait for the socket */
	uint32_t events; /* that epoll watches */
	bool read_ended, write_ended;
};

struct link {
	struct end client, server;
	struct list node; /* on delay.dead */
	bool dead;
};

/* What travels: octets towards an end, its EOF (no octets), or a handshake. */
struct chunk {
	struct list node; /* on delay.travelling, in the order of due_ns; then on end.out */
	struct end *to;
	int64_t due_ns;
	unsigned ways_left;
	bool is_handshake;
	size_t len, sent;
	char octets[];
};

struct delay {
	int epoll, listener;
	struct sockaddr_in from, upstream;
	int64_t way_ns;
	struct list travelling, dead;
};

static void watch(struct delay *delay, struct end *end)
{
	struct epoll_event event = {.data.ptr = end};
	int how = end->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	event.events = (end->read_ended ? 0 : EPOLLIN) | (list_is_empty(&end->out) ? 0 : EPOLLOUT);
	if (event.events == end->events)
		return;
	if (!event.events)
		how = EPOLL_CTL_DEL; /* or a hangup would be reported again and again */
	epoll_ctl(delay->epoll, how, end->fd, &event);
	end->events = event.events;
}

/* ---- links ---- */

static void end_init(struct end *end, struct link *link, struct end *other, int fd)
{
	*end = (struct end){.link = link, .other = other, .fd = fd};
	list_init(&end->out);
}

static void drop_chunks(struct list *chunks, const struct link *link)
{
	LIST_FOREACH (node, chunks) {
		struct chunk *chunk = CONTAINER_OF(node, struct chunk, node);

		if (chunk->to->link == link) {
			list_remove(node);
			free(chunk);
		}
	}
}

static void link_kill(struct delay *delay, struct link *link)
{
	if (link->dead)
		return;
	link->dead = true;
	drop_chunks(&delay->travelling, link);
	drop_chunks(&link->client.out, link);
	drop_chunks(&link->server.out, link);
	close(link->client.fd);
	if (link->server.fd >= 0)
		close(link->server.fd);
	list_append(&delay->dead, &link->node);
}

static void free_dead(struct delay *delay)
{
	struct list *node;

	while ((node = list_pop(&delay->dead)))
		free(CONTAINER_OF(node, struct link, node));
}

static void set_off(struct delay *delay, struct chunk *chunk)
{
	chunk->due_ns = now_ns() + delay->way_ns;
	list_append(&delay->travelling, &chunk->node);
}

static void on_listener(struct delay *delay)
{
	int fd, one = 1;

	while ((fd = accept4(delay->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct link *link = xcalloc(1, sizeof(*link));
		struct chunk *handshake = xcalloc(1, sizeof(*handshake));

		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		end_init(&link->client, link, &link->server, fd);
		end_init(&link->server, link, &link->client, -1);
		handshake->to = &link->server;
		handshake->is_handshake = true;
		handshake->ways_left = HANDSHAKE_WAYS;
		set_off(delay, handshake);
	}
}

/* Loopback answers at once, so this does not wait. */
static void connect_upstream(struct delay *delay, struct link *link)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	link->server.fd = fd;
	if (fd < 0 || connect(fd, (struct sockaddr *)&delay->upstream, sizeof(delay->upstream)) < 0) {
		link_kill(delay, link);
		return;
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	watch(delay, &link->server);
	watch(delay, &link->client);
}

/* ---- octets ---- */

/* Sends what has arrived, as far as the socket takes it. */
static void flush(struct delay *delay, struct end *end)
{
	while (!list_is_empty(&end->out)) {
		struct chunk *chunk = CONTAINER_OF(end->out.next, struct chunk, node);
		ssize_t n = 0;

		if (chunk->len) {
			n = send(end->fd, chunk->octets + chunk->sent, chunk->len - chunk->sent, MSG_NOSIGNAL);
			if (n < 0 && errno == EAGAIN)
				break;
		} else {
			n = shutdown(end->fd, SHUT_WR);
			end->write_ended = true;
		}
		if (n < 0 || (end->write_ended && end->other->write_ended)) {
			link_kill(delay, end->link);
			return;
		}
		chunk->sent += (size_t)n;
		if (chunk->sent == chunk->len) {
			list_remove(&chunk->node);
			free(chunk);
		}
	}
	watch(delay, end);
}

static void on_readable(struct delay *delay, struct end *end)
{
	static char octets[CHUNK_SIZE];
	ssize_t n = recv(end->fd, octets, sizeof(octets), 0);
	struct chunk *chunk;

	if (n < 0 && errno == EAGAIN)
		return;
	end->read_ended = n <= 0; /* a reset travels as an end */
	chunk = xcalloc(1, sizeof(*chunk) + (size_t)MAX(n, (ssize_t)0));
	chunk->to = end->other;
	chunk->ways_left = 1;
	chunk->len = (size_t)MAX(n, (ssize_t)0);
	memcpy(chunk->octets, octets, chunk->len);
	set_off(delay, chunk);
	watch(delay, end);
}

static void on_event(struct delay *delay, const struct epoll_event *event)
{
	struct end *end = event->data.ptr;

	if (!end) {
		on_listener(delay);
		return;
	}
	if (!end->link->dead && (event->events & EPOLLOUT))
		flush(delay, end);
	if (!end->link->dead && !end->read_ended && (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		on_readable(delay, end);
}

/* ---- the loop ---- */

static void arrive(struct delay *delay, struct chunk *chunk)
{
	struct end *to = chunk->to;

	if (--chunk->ways_left) {
		chunk->due_ns += delay->way_ns;
		list_append(&delay->travelling, &chunk->node);
	} else if (chunk->is_handshake) {
		free(chunk);
		connect_upstream(delay, to->link);
	} else {
		list_append(&to->out, &chunk->node);
		flush(delay, to);
	}
}

/* How long until the next arrival; all that is due arrives. False: nothing travels. */
static bool travel(struct delay *delay, struct timespec *left)
{
	int64_t now = now_ns();

	while (!list_is_empty(&delay->travelling)) {
		struct chunk *chunk = CONTAINER_OF(delay->travelling.next, struct chunk, node);
		int64_t ns = chunk->due_ns - now;

		if (ns > 0) {
			*left = (struct timespec){ns / 1000000000, ns % 1000000000};
			return true;
		}
		list_remove(&chunk->node);
		arrive(delay, chunk);
	}
	return false;
}

static _Noreturn void run(struct delay *delay)
{
	struct epoll_event events[64];
	struct timespec left;

	for (;;) {
		bool travels = travel(delay, &left);
		int n;

		free_dead(delay);
		n = epoll_pwait2(delay->epoll, events, ARRAY_LEN(events), travels ? &left : NULL, NULL);
		for (int i = 0; i < n; i++)
			on_event(delay, &events[i]);
	}
}

/* ---- start ---- */

static void start_listener(struct delay *delay)
{
	struct epoll_event event = {.events = EPOLLIN};
	socklen_t len = sizeof(delay->from);
	char host[INET_ADDRSTRLEN];
	int one = 1;

	delay->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(delay->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(delay->listener, (struct sockaddr *)&delay->from, len) < 0 || listen(delay->listener, 4096) < 0)
		die("cannot listen: %s", strerror(errno));
	getsockname(delay->listener, (struct sockaddr *)&delay->from, &len);
	inet_ntop(AF_INET, &delay->from.sin_addr, host, sizeof(host));
	epoll_ctl(delay->epoll, EPOLL_CTL_ADD, delay->listener, &event);
	printf("listening=%s:%u\n", host, ntohs(delay->from.sin_port));
	fflush(stdout);
}

static const char usage[] =
    "delay --listen ADDR:PORT --to ADDR:PORT --ms MS (of each way; the round trip is twice that)\n";

int main(int argc, char **argv)
{
	static const struct option longs[] = {
	    {"listen", 1, NULL, 'l'}, {"to", 1, NULL, 't'}, {"ms", 1, NULL, 'm'}, {NULL, 0, NULL, 0}};
	struct delay delay = {0};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'l': delay.from = parse_address(optarg); break;
		case 't': delay.upstream = parse_address(optarg); break;
		case 'm': delay.way_ns = (int64_t)number_option("--ms", optarg) * 1000000; break;
		default: die("%s", usage);
		}
	}
	if (!delay.from.sin_family || !delay.upstream.sin_port || !delay.way_ns || optind < argc)
		die("%s", usage);
	signal(SIGPIPE, SIG_IGN);
	list_init(&delay.travelling);
	list_init(&delay.dead);
	delay.epoll = epoll_create1(EPOLL_CLOEXEC);
	start_listener(&delay);
	run(&delay);
}
