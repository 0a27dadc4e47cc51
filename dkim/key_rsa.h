/*
 * dkim/key_rsa.h - the RSA private-key operation, the only thing that libcrypto is used for
 *
 * Used by dkim/key.c only. Built with LIBCRYPTO=0, GnuTLS does the same at five times the cost. Both blind.
 */
#ifndef DKIM_KEY_RSA_H
#define DKIM_KEY_RSA_H

#include "dkim/dkim.h"

#include <gnutls/abstract.h>

struct key_rsa;

/* `pkcs8`: the key as DER; `gnutls`: the same key, kept only where GnuTLS signs. Both are borrowed during the call
 * only. NULL: the library does not take the key. */
struct key_rsa *key_rsa_new(struct slice pkcs8, gnutls_x509_privkey_t gnutls);
/* Wipes and frees; accepts NULL in *rsa; sets it to NULL. */
void key_rsa_free(struct key_rsa **rsa);
/* RSASSA-PKCS1-v1_5 over a SHA-256 digest (RFC 8301 section 3). ERR_CRYPTO. */
int key_rsa_sign(struct key_rsa *rsa, const unsigned char digest[DKIM_DIGEST_BYTES],
		 unsigned char out[DKIM_SIGNATURE_MAX_BYTES], size_t *len);

#endif
