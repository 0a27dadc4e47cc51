/*
 * Certificates made on the spot, and two ends of a TLS session wired in memory.
 */
#ifndef SUPPORT_TLS_H
#define SUPPORT_TLS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/buf.h"
#include "tls/session.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <time.h>

#define DAY ((time_t)24 * 3600)

/* A new directory under /tmp; group setup and teardown for cmocka. */
int support_setup(void **state);
int support_teardown(void **state);
/* DIRECTORY/name; static, of the last eight calls. */
const char *in_dir(const char *name);
void write_file(const char *name, const char *text, size_t len);

struct cert {
	gnutls_x509_crt_t crt;
	gnutls_x509_privkey_t key;
	gnutls_datum_t der, spki;
	const struct cert *issuer; /* NULL: self-signed */
};

struct cert_spec {
	const char *common_name;
	const char *dns[3];
	const char *ip;
	const struct cert *issuer;
	bool is_authority;
	time_t from, until; /* 0: yesterday, in a year */
	bool rsa;
	const char *purpose; /* NULL: server authentication */
};

struct cert *cert_new(const struct cert_spec *spec);
void cert_free(struct cert **cert);
/* Writes this certificate and its issuers up to `depth` of them as PEM; depth 1: alone. */
void cert_write_chain(const struct cert *cert, unsigned depth, const char *name);
void cert_write_key(const struct cert *cert, const char *name);
static inline struct slice cert_der(const struct cert *cert)
{
	return slice_of(cert->der.data, cert->der.size);
}

/* Server credentials of a certificate with its chain. */
struct tls_credentials *server_credentials(const struct cert *cert, unsigned depth);
/* Client credentials that trust `authority` (NULL: nobody). */
struct tls_credentials *client_credentials(const struct cert *authority);

/* One pass: moves what each has to say to the other, at most `chunk` octets at a time. True: something moved. */
bool wire_move(struct tls_session *from, struct tls_session *to, size_t chunk);
/* Until both are TLS_OK or one has ended. */
void wire_handshake(struct tls_session *client, struct tls_session *server, size_t chunk,
		    enum tls_status *client_status, struct err *client_err, enum tls_status *server_status,
		    struct err *server_err);
/* Asserts that it works. */
void wire_handshake_ok(struct tls_session *client, struct tls_session *server);
/* Sends a text through one and asserts that the other gets it. */
void wire_say(struct tls_session *from, struct tls_session *to, const char *text);

/* A GnuTLS session with a will of its own, for what ours would never do. */
struct raw {
	gnutls_session_t session;
	gnutls_certificate_credentials_t credentials;
	struct buf in, out;
};
void raw_init(struct raw *raw, unsigned flags, const char *priority, const struct cert *cert);
void raw_fini(struct raw *raw);
/* Moves both ways until nothing moves; runs the handshake of both. Returns our side's status. */
enum tls_status raw_handshake(struct raw *raw, int *raw_code, struct tls_session *ours, struct err *err);
void raw_move(struct raw *raw, struct tls_session *ours);

#endif
