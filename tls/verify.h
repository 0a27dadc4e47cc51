/*
 * tls/verify.h - is a chain trusted, valid now, and for the right name; for tls/ alone
 */
#ifndef TLS_VERIFY_H
#define TLS_VERIFY_H

#include "tls/fingerprint.h"
#include "tls/tls.h"
#include "tls/trust.h"

#include <gnutls/x509.h>

/* A chain of DER certificates, parsed. */
struct verify_chain {
	gnutls_x509_crt_t list[TLS_CHAIN_MAX];
	unsigned count;
};

/*
 * ERR_LIMIT: longer than TLS_CHAIN_MAX, or a public key is so large that its use would take seconds (RSA as OpenSSL
 * takes it: at most 16,384 bits, with an exponent of at most 64 bits from 3,072 on). ERR_CRYPTO: one of them cannot be
 * read. On failure there is nothing to free.
 */
int verify_chain_parse(struct verify_chain *chain, const gnutls_datum_t *der, unsigned count, struct err *err);
void verify_chain_free(struct verify_chain *chain);

/*
 * Trusted by `list`, valid now, allowed for `purpose` (an OID of GnuTLS's GNUTLS_KP_...), and for one of `names` (none:
 * for anybody). ERR_CRYPTO with words otherwise.
 */
int verify_chain_by_list(struct verify_chain *chain, gnutls_x509_trust_list_t list, const char *purpose,
			 const char *const *names, size_t name_count, struct err *err);
/* The same from DER and a trust set, which may be NULL (nobody is trusted). */
int verify_chain_by_trust(const gnutls_datum_t *der, unsigned count, struct tls_trust *trust, const char *purpose,
			  const char *name, struct err *err);
/* May the handshake go on with this leaf's key? Errors as of verify_chain_parse(). */
int verify_leaf(const gnutls_datum_t *leaf, struct err *err);
/* SHA-256 of a leaf in DER, and whether it or its public key is one of `wanted`. */
int verify_fingerprint(const gnutls_datum_t *leaf, const struct tls_fingerprint *wanted, size_t count, struct err *err);
/* SubjectPublicKeyInfo in DER, to be freed with gnutls_free(spki->data). */
int verify_export_spki(gnutls_x509_crt_t certificate, gnutls_datum_t *spki);

#endif
