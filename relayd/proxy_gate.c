#include "relayd/proxy_gate.h"

#include "base/base.h"
#include "base/list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct proxy_gates {
	struct loop *loop;
	struct proxy_gate_events events;
	struct list waiting;
	unsigned count;
};

struct gate {
	struct list node;
	struct proxy_gates *owner;
	struct net_peer balancer;
	void *tag;
	int fd;
	struct watch *watch;
	timer_id timer;
	struct proxy_reader reader;
};

struct proxy_gates *proxy_gates_new(struct loop *loop, const struct proxy_gate_events *events)
{
	struct proxy_gates *gates = xcalloc(1, sizeof(*gates));

	gates->loop = loop;
	gates->events = *events;
	list_init(&gates->waiting);
	return gates;
}

/* Gives the descriptor back; the watch is gone, so no callback can come for the gate. */
static int gate_free(struct gate *gate)
{
	int fd = gate->fd;

	loop_unwatch(gate->owner->loop, &gate->watch);
	timers_cancel(loop_timers(gate->owner->loop), &gate->timer);
	list_remove(&gate->node);
	gate->owner->count--;
	free(gate);
	return fd;
}

void proxy_gates_free(struct proxy_gates **gates)
{
	if (!*gates)
		return;
	while (!list_is_empty(&(*gates)->waiting))
		close(gate_free(CONTAINER_OF((*gates)->waiting.next, struct gate, node)));
	free(*gates);
	*gates = NULL;
}

static void refuse(struct gate *gate, const char *why)
{
	struct proxy_gates *owner = gate->owner;
	struct net_peer balancer = gate->balancer;
	void *tag = gate->tag;

	close(gate_free(gate));
	owner->events.on_refused(owner->events.ctx, tag, &balancer, why);
}

static void pass(struct gate *gate, const struct proxy_header *header)
{
	struct proxy_gates *owner = gate->owner;
	struct net_peer balancer = gate->balancer;
	void *tag = gate->tag;

	owner->events.on_header(owner->events.ctx, tag, gate_free(gate), &balancer, header);
}

static void on_too_late(void *ctx)
{
	refuse(ctx, "no PROXY header came in time");
}

/* Looks first and takes then, so that what is behind the header stays in the socket. All that is looked at is taken
 * unless the header is complete, so nothing spins. */
static void on_ready(void *ctx, uint32_t events)
{
	struct gate *gate = ctx;
	char bytes[PROXY_HEADER_MAX_BYTES];
	ssize_t n = recv(gate->fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
	struct proxy_header header;
	struct err err;
	size_t taken;
	int rc;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		refuse(gate, n == 0 ? "closed before the PROXY header" : strerror(errno));
		return;
	}
	rc = proxy_reader_input(&gate->reader, slice_of(bytes, (size_t)n), &taken, &header, &err);
	if (rc >= 0 && recv(gate->fd, bytes, taken, MSG_DONTWAIT) != (ssize_t)taken)
		rc = err_set(&err, ERR_SYSTEM, "the PROXY header cannot be read");
	if (rc < 0)
		refuse(gate, err.text);
	else if (rc == 1)
		pass(gate, &header);
}

void proxy_gates_add(struct proxy_gates *gates, int fd, const struct net_peer *balancer, void *tag)
{
	struct gate *gate = xcalloc(1, sizeof(*gate));

	gate->owner = gates;
	gate->balancer = *balancer;
	gate->tag = tag;
	gate->fd = fd;
	proxy_reader_init(&gate->reader);
	list_node_init(&gate->node);
	list_append(&gates->waiting, &gate->node);
	gates->count++;
	gate->watch = loop_watch(gates->loop, fd, EPOLLIN, on_ready, gate);
	timers_set(loop_timers(gates->loop), &gate->timer, loop_now_ms(gates->loop) + PROXY_GATE_MS, on_too_late, gate);
}

unsigned proxy_gates_count(const struct proxy_gates *gates)
{
	return gates->count;
}
