/*
 * relayd/tls_memory.h - hosts that have shown a verified certificate, so that a stripped STARTTLS is noticed
 *
 * Without DANE and MTA-STS somebody on the way can take STARTTLS out of a server's offer, and mail goes in clear text.
 * So a host that has had TLS with a verified certificate within TLS_MEMORY_SEC is expected to have it: without it mail
 * waits there, with an alert. When that has lasted for TLS_MEMORY_PATIENCE_SEC it is the host's will, and the host is
 * forgotten, which the log says.
 *
 * Kept in SPOOL/tls-seen.json (relayd/memo.h), at most TLS_MEMORY_HOSTS_MAX of them, those with the newest
 * certificates.
 */
#ifndef RELAYD_TLS_MEMORY_H
#define RELAYD_TLS_MEMORY_H

#include "base/log.h"
#include "relayd/memo.h"

#include <stdbool.h>
#include <stddef.h>

enum {
	TLS_MEMORY_HOSTS_MAX = 3000,
	TLS_MEMORY_SEC = 30 * 86400,
	TLS_MEMORY_PATIENCE_SEC = 86400,
};

struct tls_memory;

struct tls_memory_options {
	struct memos *memos; /* NULL: nothing outlives the daemon */
	const struct clock *clock;
	struct log *log;
	/* Some host is without the TLS that it should have (`text` says which; may come again), or none is any more
	 * (NULL). */
	void (*on_stripped)(void *ctx, const char *text);
	void *ctx;
};

struct tls_memory *tls_memory_new(const struct tls_memory_options *options);
/* The memos must be gone before it. Sets NULL, accepts NULL. */
void tls_memory_free(struct tls_memory **memory);

/* Would clear text be a step back? `host`: A-labels, lower case, or an address. */
bool tls_memory_expects(struct tls_memory *memory, const char *host, uint16_t port);
/* A session stands, and its certificate was verified. */
void tls_memory_note_verified(struct tls_memory *memory, const char *host, uint16_t port);
/* A host that is expected to have TLS offers none, or the handshake fails. */
void tls_memory_note_missing(struct tls_memory *memory, const char *host, uint16_t port);
/* Forgets hosts that have been without for too long, though no mail goes there; call it every few seconds. */
void tls_memory_look(struct tls_memory *memory);
/* Hosts that are remembered. */
size_t tls_memory_count(const struct tls_memory *memory);

#endif
