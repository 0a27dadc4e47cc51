/*
 * An owner of a stream that writes down what it is told, and a peer made of a bare socket, in one process and one loop.
 */
#ifndef SUPPORT_PEER_H
#define SUPPORT_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/buf.h"
#include "relayd/stream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct owner {
	struct stream *stream;
	struct buf input;
	size_t appetite; /* how much on_input takes in all */
	bool close_at_input, close_at_drained, answer;
	struct slice starttls; /* on_input begins TLS when it sees this */
	struct tls_credentials *credentials;
	bool is_tls_client;
	unsigned inputs, drained, connected, tls_calls, ends;
	bool tls_ok;
	char why[256]; /* of the end, or of TLS */
	size_t feed;   /* so much more is written, 64 KiB at each on_drained */
	int fast_peer; /* emptied in on_drained: a peer that reads as fast as we write; 0: none */
	struct loop *loop;
	uint64_t drained_turn; /* the last turn with an on_drained, and how many it had */
	unsigned drained_in_turn;
};

void owner_init(struct owner *owner, struct loop *loop);
void owner_fini(struct owner *owner);
struct stream_events owner_events(struct owner *owner);

/* Turns until `*counter` is at least `wanted`; fails after ten seconds. */
void turn_until(struct loop *loop, const unsigned *counter, unsigned wanted);
/* Until so much has been taken by the owner. */
void turn_until_input(struct loop *loop, const struct owner *owner, size_t len);
/* Until there is nothing left to do at once. */
void turn_until_quiet(struct loop *loop);

/* Reads what is there; non-blocking. -1: the end, or an error. */
ssize_t peer_read(int fd, void *out, size_t size);
/* Turns until the peer has got `len` octets, or the end of the stream; returns how many. */
size_t peer_read_all(struct loop *loop, int fd, char *out, size_t len);
void peer_write(int fd, const char *text);
/* Two connected TCP sockets over loopback, non-blocking. */
void tcp_pair(int fds[2]);
/* Closes so that the other side sees a reset. */
void peer_reset(int fd);

#endif
