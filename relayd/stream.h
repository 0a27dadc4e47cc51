/*
 * relayd/stream.h - a non-blocking byte stream over a socket, with TLS where it is wanted
 *
 * OUTPUT   What is written gathers and goes out at the end of the loop's turn, a whole batch of replies or commands in
 *          one write (TCP_NODELAY is on). The owner looks at stream_unsent() and stops in time; past
 *          STREAM_UNSENT_MAX the stream breaks.
 * INPUT    What is read is pushed to the owner, who says how much it took; the rest waits in here, and nothing more is
 *          read from the socket, until stream_resume(). One read of at most 64 KiB a turn.
 * CALLS    A stream calls nobody from inside a call of its owner. From a callback everything may be called,
 *          stream_close() included: the object goes at the end of the turn, and no callback comes any more.
 *
 * Deadlines are the owner's, for connecting, handshakes and idling too; only stream_close_gently() has its own. An idle
 * stream has no buffers: some 400 octets, plus the TLS session.
 */
#ifndef RELAYD_STREAM_H
#define RELAYD_STREAM_H

#include "base/err.h"
#include "base/slice.h"
#include "dns/address.h"
#include "relayd/loop.h"
#include "relayd/net.h"
#include "tls/session.h"

struct stream;

/* No owner lets so much gather; one that does has a peer who does not read, and is not looking. */
#define STREAM_UNSENT_MAX (4 * 1024 * 1024)

/* Who lingers counts nowhere, so that a crowd which comes and goes must not be able to hold descriptors by it. */
#define STREAM_LINGERING_MAX 100

struct stream_events {
	void *ctx;
	/* A connection that was begun stands. Only after stream_connect(). */
	void (*on_connected)(void *ctx);
	/* Plain text, never empty; returns how much was taken. */
	size_t (*on_input)(void *ctx, struct slice bytes);
	/* All that was written is with the kernel. May be NULL. */
	void (*on_drained)(void *ctx);
	/* The handshake ended; `why`: words, when it failed (then the stream is dead: no on_end follows). Only after
	 * stream_start_tls_*(). */
	void (*on_tls)(void *ctx, bool ok, const char *why);
	/* The peer sends no more, or the connection broke. Comes once, after all input; a paused stream tells it when
	 * it is resumed. `why`: "" when it was closed in order: then what is written is still sent, since the peer may
	 * have closed its half alone. The owner still has to close. */
	void (*on_end)(void *ctx, const char *why);
};

/* Takes over a connected descriptor, and makes it non-blocking. Events are copied. */
struct stream *stream_new(struct net *net, int fd, const struct stream_events *events);
/* Somebody else is told from now on. Copied. */
void stream_set_events(struct stream *stream, const struct stream_events *events);
/* Begins to connect. `source`: the address to send from, NULL: any. NULL with words: it failed at once. */
struct stream *stream_connect(struct net *net, const struct dns_address *address, uint16_t port,
			      const struct dns_address *source, const struct stream_events *events, struct err *err);

/* Queues bytes, in any state; those of a stream that is broken are dropped. While connecting or in the handshake they
 * wait. */
void stream_write(struct stream *stream, struct slice bytes);
/* Bytes that have not reached the kernel. */
size_t stream_unsent(const struct stream *stream);
/* Offers what the owner did not take again, at the end of this turn, then reads on. Undoes stream_pause(). */
void stream_resume(struct stream *stream);
/* Nothing is read or offered until stream_resume(). */
void stream_pause(struct stream *stream);
/* For servers: while more than so much is unsent, the stream reads nothing, so that a client which sends commands but
 * never reads replies is not read from. 0, as at first: no such mark. */
void stream_set_high_water(struct stream *stream, size_t bytes);

/* Begins the handshake. What was written before goes out in clear, first. Input that waits in plain text, and what is
 * left of the slice that on_input has in hand, is dropped (RFC 3207 section 4.2): it came before TLS. */
void stream_start_tls_server(struct stream *stream, struct tls_credentials *credentials);
void stream_start_tls_client(struct stream *stream, struct tls_credentials *credentials,
			     const struct tls_client_options *options);
/* NULL: clear text. Lives as the stream. */
struct tls_session *stream_tls(const struct stream *stream);

/* At once; unsent bytes are dropped. Sets *stream to NULL, accepts NULL. */
void stream_close(struct stream **stream);
/* Sends what is unsent first, says goodbye, and waits a moment for the peer's own end, so that no reset overtakes the
 * last reply; at most `patience_ms`, and no longer than until STREAM_LINGERING_MAX others do so too. No callback comes
 * any more. Sets *stream to NULL, accepts NULL. */
void stream_close_gently(struct stream **stream, int64_t patience_ms);

int stream_fd(const struct stream *stream);
/* The peer's address; family 0: a unix socket. */
struct dns_address stream_peer_address(const struct stream *stream, uint16_t *port);

/* Streams that are not freed, those that only linger included. */
unsigned net_stream_count(const struct net *net);

#endif
