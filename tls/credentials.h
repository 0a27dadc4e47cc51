/*
 * tls/credentials.h - what a side of a TLS session needs to know: own certificate and key, whom to trust, TLS versions
 *
 * Immutable and reference counted. A reload builds a new object and uses it for new sessions; each session holds a
 * reference to the one that it began with. Files are read at once, at most 1 MiB each.
 *
 * Errors name the file and what is wrong: missing, unreadable, no certificate in it, an encrypted key, a key that does
 * not belong to the certificate. Codes: ERR_NOT_FOUND, ERR_PERMISSION, ERR_IO, ERR_CONFIG, ERR_CRYPTO.
 */
#ifndef TLS_CREDENTIALS_H
#define TLS_CREDENTIALS_H

#include "base/slice.h"
#include "tls/tls.h"
#include "tls/trust.h"

struct tls_credentials;

struct tls_server_credentials_options {
	const char *certificate_file; /* PEM, the leaf and its chain, in any order */
	const char *key_file;	      /* PEM, not encrypted; NULL: in certificate_file too */
	const char
	    *client_ca_file; /* NULL: clients are not asked for a certificate. With it they are asked; one without
				is let in (unverified), one that does not verify is refused in the handshake */
	enum tls_version min_version; /* never TLS_VERSION_LEGACY */
};

/* NULL on failure. Session tickets are on, with a key of this object alone. Early data is never accepted. */
struct tls_credentials *tls_credentials_new_server(const struct tls_server_credentials_options *options,
						   struct err *err);

struct tls_client_credentials_options {
	struct tls_trust *trust; /* a reference is taken; NULL: nobody is trusted (DANE, fingerprint, opportunistic) */
	const char *certificate_file; /* NULL: no client certificate */
	const char *key_file;	      /* NULL: in certificate_file too */
	enum tls_version min_version;
};

/* NULL on failure: a bad file, or a system whose GnuTLS configuration forbids what we need. `options` may be NULL. */
struct tls_credentials *tls_credentials_new_client(const struct tls_client_credentials_options *options,
						   struct err *err);

struct tls_credentials *tls_credentials_ref(struct tls_credentials *credentials);
/* Drops one reference and sets *credentials to NULL; accepts NULL. */
void tls_credentials_unref(struct tls_credentials **credentials);

/* When the first certificate of our own chain expires, in milliseconds since 1970; INT64_MAX: there is none. */
int64_t tls_credentials_expires_at_wall(const struct tls_credentials *credentials);
/* Its subject names, for people: "mail.example.org, smtp.example.org". "" when there is none. Lives as the object. */
const char *tls_credentials_names(const struct tls_credentials *credentials);
/* Issuer and subject are the same: clients will not verify it without being told. */
bool tls_credentials_is_selfsigned(const struct tls_credentials *credentials);

#endif
