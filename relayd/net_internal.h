/*
 * relayd/net_internal.h - what net.c, net_accept.c and stream.c know of each other and nobody else does
 */
#ifndef RELAYD_NET_INTERNAL_H
#define RELAYD_NET_INTERNAL_H

#include "base/list.h"
#include "relayd/net.h"

#include <sys/socket.h>

#define NET_SCRATCH_BYTES (64 * 1024)

struct net {
	struct loop *loop;
	struct net_connector connector; /* connect NULL: the real network */
	struct list streams;
	unsigned stream_count;
	struct list lingering; /* streams, the longest first */
	unsigned lingering_count;
	char scratch[NET_SCRATCH_BYTES]; /* of whoever reads just now */
};

/* relayd/stream.c: those that still linger, when the net goes. */
void stream_free_all(struct net *net);

socklen_t net_to_sockaddr(const struct dns_address *address, uint16_t port, struct sockaddr_storage *out);
/* Family 0: neither IPv4 nor IPv6. */
struct dns_address net_of_sockaddr(const struct sockaddr_storage *in, uint16_t *port);

#endif
