/*
 * relayd/net.h - sockets: connecting, listening, accepting; and what all streams of a loop share
 *
 * Knows addresses, never names. Everything is non-blocking and close-on-exec. relayd/stream.h is what runs over a
 * connected socket.
 *
 * THE FAKE  A simulation replaces the one thing that reaches out: net_set_connector(). Its function hands back one end
 * of a socket pair (or an error) and plays the peer on the other end, in the same loop and with a virtual clock.
 *           Incoming connections it makes by calling the accept callback itself. Streams are the real ones, TLS too.
 * LISTENING is split in two: net_listen_*() binds, as root if need be; net_acceptor_new() serves, later, as anybody.
 */
#ifndef RELAYD_NET_H
#define RELAYD_NET_H

#include "base/err.h"
#include "base/slice.h"
#include "dns/address.h"
#include "relayd/loop.h"

#include <sys/types.h>

struct net;

/* One for all streams and acceptors of a loop; freed after them. */
struct net *net_new(struct loop *loop);
void net_free(struct net **net);

/* ---- connecting ---- */

/* A connected or connecting non-blocking stream socket, or -1 with words. `source` NULL: any address. */
struct net_connector {
	void *ctx;
	int (*connect)(void *ctx, const struct dns_address *to, uint16_t port, const struct dns_address *source,
		       struct err *err);
};
/* Copied. NULL: the real network again. */
void net_set_connector(struct net *net, const struct net_connector *connector);
/* Used by stream_connect(). */
int net_connect(struct net *net, const struct dns_address *to, uint16_t port, const struct dns_address *source,
		struct err *err);

/* ---- listening ---- */

/* A listening socket, or -1 with words (ERR_EXISTS: the port is taken). Port 0: the kernel chooses, see net_local_port(). IPv6 sockets take IPv6 alone,
 * so "*" is two of them: 0.0.0.0 and ::. */
int net_listen(const struct dns_address *address, uint16_t port, struct err *err);

struct net_unix_options {
	mode_t mode; /* 0660 */
	uid_t uid;   /* (uid_t)-1: leave */
	gid_t gid;   /* (gid_t)-1: leave */
};
/*
 * A unix socket `name` in the directory `dir_fd`. A socket that is there already is replaced: who calls this holds the
 * spool's lock, so nobody listens on it. Anything else of that name is an error: ERR_EXISTS. Mode and owner are set
 * before anybody can connect.
 */
int net_listen_unix(int dir_fd, const char *name, const struct net_unix_options *options, struct err *err);
/* The port a socket is bound to; 0: none. */
uint16_t net_local_port(int fd);

/* Who is at the other end. Unix sockets have family 0 and the peer's credentials at the time of its connect(). */
struct net_peer {
	struct dns_address address;
	uint16_t port;
	bool is_unix;
	uid_t uid; /* is_unix */
	gid_t gid;
	pid_t pid;
};
/* False: it is gone already. */
bool net_peer_of(int fd, struct net_peer *peer);
/* Of a unix socket: was the peer in the group at its connect(), by its own or a supplementary one? A kernel that does
 * not tell the supplementary ones (SO_PEERGROUPS came with Linux 4.13) counts as no. */
bool net_peer_is_in_group(int fd, gid_t group);
/* Our own address of a connection. Family 0: a unix socket, or gone. */
struct dns_address net_local_address(int fd, uint16_t *port);
/* "[192.0.2.1]:4711", "[IPv6:2001:db8::1]:4711", "local user 1000"; cut to fit. */
void net_peer_format(const struct net_peer *peer, char *out, size_t size);

/* ---- accepting ---- */

struct net_acceptor_events {
	void *ctx;
	/* `fd` is the callback's. May free the acceptor. */
	void (*on_accept)(void *ctx, int fd, const struct net_peer *peer);
	/* We are short of descriptors (or the kernel of memory): true when it begins, false when it is over; `why`:
	 * words. May be NULL. */
	void (*on_shortage)(void *ctx, bool begins, const char *why);
};

struct net_acceptor;

/*
 * Takes over a listening descriptor. At most 64 connections a turn. Without descriptors, or when only the last quarter
 * is left, which deliveries, journal and helpers need, accepting pauses and is tried again every 250 ms: meanwhile
 * clients wait in the backlog, none is turned away, and nothing spins.
 */
struct net_acceptor *net_acceptor_new(struct net *net, int listen_fd, const struct net_acceptor_events *events);
/* Closes the listening socket; those who wait in the backlog are reset. */
void net_acceptor_free(struct net_acceptor **acceptor);

/* So many connections to others find descriptors even while accepting has paused: a fifth of the limit. */
unsigned net_connections_max(void);

/* Raises the soft limit of descriptors to the hard one; returns what it is now. */
uint64_t net_raise_fd_limit(void);

#endif
