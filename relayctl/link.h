/*
 * relayctl/link.h - a connection to an SMTP server, blocking, in clear or under TLS
 *
 * To a unix socket, or over TCP (libcurl finds the addresses and tries them in turn). Times are in milliseconds.
 */
#ifndef RELAYCTL_LINK_H
#define RELAYCTL_LINK_H

#include "base/err.h"
#include "base/slice.h"
#include "dns/address.h"
#include "tls/session.h"

#include <stdint.h>
#include <sys/types.h>

struct link;

/* NULL with words: nobody answers there. A socket's path may be of any length. */
struct link *link_open_unix(const char *path, struct err *err);
struct link *link_open_tcp(const char *host, uint16_t port, int64_t timeout_ms, struct err *err);
/* A TCP connection under way to an address, from one of ours (NULL: any): a descriptor that does not block, writable when
 * it is over; or -1. */
int link_begin(const struct dns_address *to, uint16_t port, const struct dns_address *from, struct err *err);
/* Is it made now that it is writable? It owns `fd` either way. */
struct link *link_finish(int fd, struct err *err);
/* Both, and the wait between them. */
struct link *link_open_address(const struct dns_address *to, uint16_t port, const struct dns_address *from,
			       int64_t timeout_ms, struct err *err);
/* Accepts NULL, sets NULL. */
void link_close(struct link **link);
int link_fd(const struct link *link);

/* All of it, or ERR_CLOSED. */
int link_write(struct link *link, struct slice bytes);
/* How much was read; 0: the other side ended; ERR_TEMPORARY: nothing came for `timeout_ms`; ERR_CLOSED: it broke. */
ssize_t link_read(struct link *link, void *out, size_t size, int64_t timeout_ms);

/* Borrowed for the call. */
struct link_tls {
	const char *host;     /* for SNI and verification */
	enum tls_level level; /* but for TLS_LEVEL_DANE */
	const char *ca_file;  /* whom to trust with TLS_LEVEL_VERIFY; NULL: the system's authorities */
	const struct tls_fingerprint *fingerprint; /* TLS_LEVEL_FINGERPRINT */
	const char *certificate, *key;		   /* ours; NULL: none */
	bool wants_verdict; /* with TLS_LEVEL_OPPORTUNISTIC: tls_session_verify() will be asked */
	int64_t step_ms;    /* how long the other side may be silent; 0: a minute */
};

/* The handshake: 0, or ERR_CRYPTO, ERR_CLOSED and others with words. */
int link_start_tls(struct link *link, const struct link_tls *tls, struct err *err);
/* NULL: in clear. */
struct tls_session *link_tls_session(const struct link *link);

#endif
