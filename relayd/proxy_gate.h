/*
 * relayd/proxy_gate.h - accepted connections that wait for their balancer's PROXY header
 *
 * Reads exactly the header from the socket, so that whoever takes the descriptor over finds what the client itself
 * sent. A header that is broken, or does not come within ten seconds, closes the connection without a word: nobody who
 * speaks SMTP is there to read one.
 */
#ifndef RELAYD_PROXY_GATE_H
#define RELAYD_PROXY_GATE_H

#include "relayd/loop.h"
#include "relayd/net.h"
#include "relayd/proxy_protocol.h"

#define PROXY_GATE_MS (10 * 1000)

struct proxy_gates;

struct proxy_gate_events {
	void *ctx;
	/* `fd` is the callback's now. `balancer` lives during the call. */
	void (*on_header)(void *ctx, void *tag, int fd, const struct net_peer *balancer,
			  const struct proxy_header *header);
	/* It was closed; `why`: words. */
	void (*on_refused)(void *ctx, void *tag, const struct net_peer *balancer, const char *why);
};

/* Events are copied. A callback may not free the gates. */
struct proxy_gates *proxy_gates_new(struct loop *loop, const struct proxy_gate_events *events);
/* Closes those that wait. Accepts NULL, sets NULL. */
void proxy_gates_free(struct proxy_gates **gates);
/* Takes the descriptor over. `tag` is the caller's, and borrowed. Calls back later, never from inside. */
void proxy_gates_add(struct proxy_gates *gates, int fd, const struct net_peer *balancer, void *tag);
unsigned proxy_gates_count(const struct proxy_gates *gates);

#endif
