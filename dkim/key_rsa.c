#include "dkim/key_rsa.h"

#include "base/base.h"
#include "base/err.h"

#include <stdlib.h>

#if LIBCRYPTO

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

/* The context is set up once: blinding values and Montgomery forms stay with the key. */
struct key_rsa {
	EVP_PKEY *pkey;
	EVP_PKEY_CTX *ctx;
};

struct key_rsa *key_rsa_new(struct slice pkcs8, gnutls_x509_privkey_t gnutls)
{
	struct key_rsa *rsa = xcalloc(1, sizeof(*rsa));
	const unsigned char *at = (const unsigned char *)pkcs8.ptr;

	(void)gnutls;
	/* No openssl.cnf: a system-wide file must not change what a signature is. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	rsa->pkey = d2i_AutoPrivateKey(NULL, &at, (long)pkcs8.len);
	if (rsa->pkey)
		rsa->ctx = EVP_PKEY_CTX_new(rsa->pkey, NULL);
	if (!rsa->ctx || EVP_PKEY_sign_init(rsa->ctx) <= 0 ||
	    EVP_PKEY_CTX_set_rsa_padding(rsa->ctx, RSA_PKCS1_PADDING) <= 0 ||
	    EVP_PKEY_CTX_set_signature_md(rsa->ctx, EVP_sha256()) <= 0)
		key_rsa_free(&rsa);
	return rsa;
}

void key_rsa_free(struct key_rsa **rsa)
{
	if (!*rsa)
		return;
	EVP_PKEY_CTX_free((*rsa)->ctx);
	EVP_PKEY_free((*rsa)->pkey);
	free(*rsa);
	*rsa = NULL;
}

int key_rsa_sign(struct key_rsa *rsa, const unsigned char digest[DKIM_DIGEST_BYTES],
		 unsigned char out[DKIM_SIGNATURE_MAX_BYTES], size_t *len)
{
	*len = DKIM_SIGNATURE_MAX_BYTES;
	return EVP_PKEY_sign(rsa->ctx, out, len, digest, DKIM_DIGEST_BYTES) > 0 ? 0 : ERR_CRYPTO;
}

#else

struct key_rsa {
	gnutls_privkey_t privkey;
};

struct key_rsa *key_rsa_new(struct slice pkcs8, gnutls_x509_privkey_t gnutls)
{
	struct key_rsa *rsa = xcalloc(1, sizeof(*rsa));

	(void)pkcs8;
	if (gnutls_privkey_init(&rsa->privkey) < 0 ||
	    gnutls_privkey_import_x509(rsa->privkey, gnutls, GNUTLS_PRIVKEY_IMPORT_COPY) < 0)
		key_rsa_free(&rsa);
	return rsa;
}

void key_rsa_free(struct key_rsa **rsa)
{
	if (!*rsa)
		return;
	gnutls_privkey_deinit((*rsa)->privkey);
	free(*rsa);
	*rsa = NULL;
}

int key_rsa_sign(struct key_rsa *rsa, const unsigned char digest[DKIM_DIGEST_BYTES],
		 unsigned char out[DKIM_SIGNATURE_MAX_BYTES], size_t *len)
{
	gnutls_datum_t hash = {(unsigned char *)(uintptr_t)digest, DKIM_DIGEST_BYTES};
	gnutls_datum_t signature = {NULL, 0};
	int rc = 0;

	if (gnutls_privkey_sign_hash(rsa->privkey, GNUTLS_DIG_SHA256, 0, &hash, &signature) < 0)
		return ERR_CRYPTO;
	if (signature.size <= DKIM_SIGNATURE_MAX_BYTES) {
		memcpy(out, signature.data, signature.size);
		*len = signature.size;
	} else {
		rc = ERR_CRYPTO;
	}
	gnutls_free(signature.data);
	return rc;
}

#endif
