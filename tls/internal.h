/*
 * tls/internal.h - what the files of tls/ know of each other and nobody else does
 */
#ifndef TLS_INTERNAL_H
#define TLS_INTERNAL_H

#include "tls/credentials.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

struct tls_credentials {
	unsigned refs;
	bool is_server;
	bool asks_client;     /* a server that requests client certificates */
	bool has_certificate; /* a client that has one to show */
	gnutls_certificate_credentials_t x509;
	gnutls_priority_t priority;
	gnutls_datum_t ticket_key;
	struct tls_trust *trust; /* whom the peer's certificate is verified against; NULL: nobody */
	enum tls_version min_version;
	int64_t expires_at_wall;
	char *names;
	bool is_selfsigned;
};

/* The list behind it, loaded by now; borrowed. */
int tls_trust_list(struct tls_trust *trust, gnutls_x509_trust_list_t *out, struct err *err);

#endif
