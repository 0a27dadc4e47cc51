/*
 * relayd/stream.h - a non-blocking byte stream over a socket, with TLS where it is wanted
 *
 * What is written gathers and goes out at the end of the loop's turn, a whole batch of replies or commands in one write
 * (TCP_NODELAY is on). What is read is pushed to the owner, who says how much it took; the rest waits in here, and
 * nothing more is read from the socket, until stream_resume(). Idle streams hold no buffers.
 *
 * A stream calls nobody from inside a call of its owner, except on_input from stream_resume(). From a callback
 * everything may be called, stream_close() included: the object goes at the end of the turn, and no callback comes any
 * more.
 */
#ifndef RELAYD_STREAM_H
#define RELAYD_STREAM_H

#include "base/err.h"
#include "base/slice.h"
#include "dns/address.h"
#include "relayd/loop.h"
#include "tls/session.h"

#include <sys/socket.h>

struct net;
struct stream;

/* What all streams of a loop share. */
struct net *net_new(struct loop *loop);
void net_free(struct net **net);

struct stream_events {
	void *ctx;
	/* A connection that was begun stands. */
	void (*on_connected)(void *ctx);
	/* Plain text; returns how much was taken. */
	size_t (*on_input)(void *ctx, struct slice bytes);
	/* All that was written is with the kernel. */
	void (*on_drained)(void *ctx);
	/* The handshake ended; `why`: words, when it failed (then the stream is dead). */
	void (*on_tls)(void *ctx, bool ok, const char *why);
	/* The peer sends no more, or the connection broke. Comes once, after all input. `why`: "" when it was closed in
	 * order. The owner still has to close. */
	void (*on_end)(void *ctx, const char *why);
};

/* Takes over a connected descriptor. Events are copied. */
struct stream *stream_new(struct net *net, int fd, const struct stream_events *events);
/* Begins to connect. `source`: the address to send from, NULL: any. NULL with words: it failed at once. */
struct stream *stream_connect(struct net *net, const struct dns_address *address, uint16_t port,
			      const struct dns_address *source, const struct stream_events *events, struct err *err);

/* Queues bytes; never fails: the owner looks at stream_unsent() and stops in time. */
void stream_write(struct stream *stream, struct slice bytes);
/* Bytes that have not reached the kernel. */
size_t stream_unsent(const struct stream *stream);
/* Offers what the owner did not take again, then reads on. */
void stream_resume(struct stream *stream);
/* Nothing is read until stream_resume(). */
void stream_pause(struct stream *stream);

/* Begins the handshake. Input that waits in plain text is dropped (RFC 3207 section 4.2): it came before TLS. */
void stream_start_tls_server(struct stream *stream, struct tls_credentials *credentials);
void stream_start_tls_client(struct stream *stream, struct tls_credentials *credentials,
			     const struct tls_client_options *options);
/* NULL: clear text. Lives as the stream. */
struct tls_session *stream_tls(const struct stream *stream);

/* At once; unsent bytes are dropped. Sets *stream to NULL, accepts NULL. */
void stream_close(struct stream **stream);
/* Sends what is unsent first, says goodbye, and waits a moment for the peer to read it; at most `patience_ms`. */
void stream_close_gently(struct stream **stream, int64_t patience_ms);

int stream_fd(const struct stream *stream);
/* The peer's address; family 0: a unix socket. */
struct dns_address stream_peer_address(const struct stream *stream, uint16_t *port);

#endif
