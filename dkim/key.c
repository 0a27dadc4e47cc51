/*
 * GnuTLS reads and makes keys, so that one parser decides what is a key whatever library signs. The PKCS#8 form is kept
 * in guarded memory for dkim_key_export(); GnuTLS's own copy is gone once loading is done.
 */
#include "dkim/key.h"

#include "base/base.h"
#include "dkim/key_rsa.h"
#include "dkim/record.h"

#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <sodium.h>
#include <stdlib.h>

enum { SEED_BYTES = 32 };

struct dkim_key {
	enum dkim_algorithm algorithm;
	unsigned bits, warnings;
	unsigned char public_key[DKIM_PUBLIC_MAX_BYTES];
	size_t public_len;
	struct key_rsa *rsa;	/* RSA */
	unsigned char *ed25519; /* Ed25519: libsodium's secret key, in guarded memory */
	unsigned char *pkcs8;	/* guarded memory */
	size_t pkcs8_len;
};

enum dkim_algorithm dkim_key_algorithm(const struct dkim_key *key)
{
	return key->algorithm;
}

unsigned dkim_key_bits(const struct dkim_key *key)
{
	return key->bits;
}

unsigned dkim_key_warnings(const struct dkim_key *key)
{
	return key->warnings;
}

const char *dkim_key_warning_text(enum dkim_key_warning warning)
{
	switch (warning) {
	case DKIM_KEY_SMALL: return "the RSA key has fewer than 2048 bits: some receivers ignore its signatures";
	case DKIM_KEY_WORLD_READABLE:
		return "the file can be read or changed by every user of this machine: chmod 0640";
	}
	return "";
}

struct slice dkim_key_public(const struct dkim_key *key)
{
	return slice_of(key->public_key, key->public_len);
}

void dkim_key_free(struct dkim_key **key)
{
	if (!*key)
		return;
	key_rsa_free(&(*key)->rsa);
	sodium_free((*key)->ed25519);
	sodium_free((*key)->pkcs8);
	free(*key);
	*key = NULL;
}

static unsigned char *guarded_alloc(size_t len)
{
	unsigned char *at = sodium_malloc(len);

	BUG_ON(!at); /* out of memory */
	return at;
}

/* GnuTLS allocated it; it is or was secret. */
static void wipe_datum(gnutls_datum_t *datum)
{
	if (datum->data)
		sodium_memzero(datum->data, datum->size);
	gnutls_free(datum->data);
	datum->data = NULL;
	datum->size = 0;
}

static int keep_pkcs8(struct dkim_key *key, gnutls_x509_privkey_t source)
{
	gnutls_datum_t der = {NULL, 0};

	if (gnutls_x509_privkey_export2_pkcs8(source, GNUTLS_X509_FMT_DER, NULL, GNUTLS_PKCS_PLAIN, &der) < 0)
		return ERR_CRYPTO;
	key->pkcs8 = guarded_alloc(der.size);
	key->pkcs8_len = der.size;
	memcpy(key->pkcs8, der.data, der.size);
	wipe_datum(&der);
	return 0;
}

static int set_rsa(struct dkim_key *key, gnutls_x509_privkey_t source)
{
	gnutls_privkey_t privkey = NULL;
	gnutls_pubkey_t pubkey = NULL;
	size_t len = sizeof(key->public_key);
	int rc = ERR_CRYPTO;

	if (gnutls_privkey_init(&privkey) < 0 || gnutls_pubkey_init(&pubkey) < 0)
		goto out;
	if (gnutls_privkey_import_x509(privkey, source, 0) < 0 ||
	    gnutls_pubkey_import_privkey(pubkey, privkey, 0, 0) < 0 ||
	    gnutls_pubkey_export(pubkey, GNUTLS_X509_FMT_DER, key->public_key, &len) < 0)
		goto out;
	key->algorithm = DKIM_RSA_SHA256;
	key->public_len = len;
	if (key->bits < DKIM_RSA_WARN_BITS)
		key->warnings |= DKIM_KEY_SMALL;
	key->rsa = key_rsa_new(slice_of(key->pkcs8, key->pkcs8_len), source);
	rc = key->rsa ? 0 : ERR_CRYPTO;
out:
	gnutls_pubkey_deinit(pubkey);
	gnutls_privkey_deinit(privkey);
	return rc;
}

static int set_ed25519(struct dkim_key *key, gnutls_x509_privkey_t source)
{
	gnutls_ecc_curve_t curve;
	gnutls_datum_t x = {NULL, 0}, seed = {NULL, 0};
	int rc = ERR_CRYPTO;

	if (gnutls_x509_privkey_export_ecc_raw(source, &curve, &x, NULL, &seed) < 0 || seed.size != SEED_BYTES)
		goto out;
	key->ed25519 = guarded_alloc(crypto_sign_SECRETKEYBYTES);
	crypto_sign_seed_keypair(key->public_key, key->ed25519, seed.data);
	key->algorithm = DKIM_ED25519_SHA256;
	key->public_len = crypto_sign_PUBLICKEYBYTES;
	key->bits = 256;
	rc = 0;
out:
	gnutls_free(x.data);
	wipe_datum(&seed);
	return rc;
}

static int check_rsa(gnutls_x509_privkey_t source, unsigned bits, struct err *err)
{
	if (bits < DKIM_RSA_MIN_BITS || bits > DKIM_RSA_MAX_BITS)
		return err_set(err, ERR_LIMIT, "the RSA key has %u bits; DKIM takes %d to %d, 2048 is best", bits,
			       DKIM_RSA_MIN_BITS, DKIM_RSA_MAX_BITS);
	/* A wrong prime would give the others away with the first signature. */
	if (gnutls_x509_privkey_verify_params(source) < 0)
		return err_set(err, ERR_CRYPTO, "the RSA key is damaged: its numbers do not belong together");
	return 0;
}

/* Parts that the parameters' check does not look at (the exponents) must fit as well, before anybody relies on the key.
 */
static bool verifies_its_own(struct dkim_key *key)
{
	static const unsigned char digest[DKIM_DIGEST_BYTES] = "no message has this as its hash";
	unsigned char signature[DKIM_SIGNATURE_MAX_BYTES];
	struct dkim_record record = {.algorithm = key->algorithm, .public_key_len = key->public_len};
	size_t len;

	memcpy(record.public_key, key->public_key, key->public_len);
	return dkim_key_sign(key, digest, signature, &len) == 0 &&
	       dkim_record_verify(&record, digest, slice_of(signature, len));
}

static int from_gnutls(gnutls_x509_privkey_t source, struct dkim_key **out, struct err *err)
{
	struct dkim_key *key;
	unsigned bits = 0;
	int type = gnutls_x509_privkey_get_pk_algorithm2(source, &bits);
	int rc;

	if (type != GNUTLS_PK_RSA && type != GNUTLS_PK_EDDSA_ED25519)
		return err_set(err, ERR_UNSUPPORTED, "a key of type %s; DKIM takes RSA and Ed25519",
			       type < 0 ? "unknown" : gnutls_pk_get_name(type));
	rc = type == GNUTLS_PK_RSA ? check_rsa(source, bits, err) : 0;
	if (rc < 0)
		return rc;
	key = xcalloc(1, sizeof(*key));
	key->bits = bits;
	rc = keep_pkcs8(key, source);
	if (rc == 0)
		rc = type == GNUTLS_PK_RSA ? set_rsa(key, source) : set_ed25519(key, source);
	if (rc == 0 && !verifies_its_own(key))
		rc = ERR_CRYPTO;
	if (rc < 0) {
		dkim_key_free(&key);
		return err_set(err, rc, "the key is damaged: it does not sign what its public part verifies");
	}
	*out = key;
	return 0;
}

static bool contains(struct slice text, struct slice word)
{
	return text.len > 0 && memmem(text.ptr, text.len, word.ptr, word.len);
}

static int import(gnutls_x509_privkey_t source, struct slice text, struct err *err)
{
	gnutls_datum_t datum = {(unsigned char *)(uintptr_t)text.ptr, (unsigned)text.len};
	bool is_pem = contains(text, SLICE("-----BEGIN "));
	int rc;

	if (is_pem && contains(text, SLICE("ENCRYPTED")))
		return err_set(err, ERR_SYNTAX,
			       "the private key is encrypted; it must be without a passphrase "
			       "(openssl pkey -in KEY -out NEWKEY)");
	if (is_pem && !contains(text, SLICE("PRIVATE KEY-----")))
		return err_set(err, ERR_SYNTAX, "PEM without a private key; the private key's file is wanted");
	rc = gnutls_x509_privkey_import2(source, &datum, is_pem ? GNUTLS_X509_FMT_PEM : GNUTLS_X509_FMT_DER, NULL,
					 GNUTLS_PKCS_PLAIN);
	if (rc == GNUTLS_E_UNKNOWN_PK_ALGORITHM || rc == GNUTLS_E_ECC_UNSUPPORTED_CURVE)
		return err_set(err, ERR_UNSUPPORTED, "a key of unknown type; DKIM takes RSA and Ed25519");
	if (rc < 0)
		return err_set(err, ERR_SYNTAX, "no private key in PEM or DER: %s", gnutls_strerror(rc));
	return 0;
}

int dkim_key_load(struct slice text, struct dkim_key **key, struct err *err)
{
	gnutls_x509_privkey_t source;
	int rc;

	BUG_ON(sodium_init() < 0);
	if (text.len == 0)
		return err_set(err, ERR_SYNTAX, "the private key is empty");
	if (text.len > DKIM_KEY_FILE_MAX_BYTES)
		return err_set(err, ERR_LIMIT, "too large for a private key");
	BUG_ON(gnutls_x509_privkey_init(&source) < 0);
	rc = import(source, text, err);
	if (rc == 0)
		rc = from_gnutls(source, key, err);
	gnutls_x509_privkey_deinit(source);
	return rc;
}

int dkim_key_generate(enum dkim_algorithm algorithm, unsigned bits, struct dkim_key **key, struct err *err)
{
	gnutls_x509_privkey_t source;
	gnutls_pk_algorithm_t type = algorithm == DKIM_RSA_SHA256 ? GNUTLS_PK_RSA : GNUTLS_PK_EDDSA_ED25519;
	int rc;

	BUG_ON(sodium_init() < 0);
	if (algorithm == DKIM_ED25519_SHA256)
		bits = 256;
	else if (bits == 0)
		bits = DKIM_RSA_WARN_BITS;
	if (type == GNUTLS_PK_RSA && (bits < DKIM_RSA_MIN_BITS || bits > DKIM_RSA_MAX_BITS))
		return err_set(err, ERR_LIMIT, "RSA keys for DKIM have %d to %d bits, 2048 is best", DKIM_RSA_MIN_BITS,
			       DKIM_RSA_MAX_BITS);
	BUG_ON(gnutls_x509_privkey_init(&source) < 0);
	rc = gnutls_x509_privkey_generate2(source, type, bits, 0, NULL, 0);
	if (rc < 0)
		rc = err_set(err, ERR_CRYPTO, "cannot generate a key: %s", gnutls_strerror(rc));
	else
		rc = from_gnutls(source, key, err);
	gnutls_x509_privkey_deinit(source);
	return rc;
}

int dkim_key_sign(struct dkim_key *key, const unsigned char digest[DKIM_DIGEST_BYTES],
		  unsigned char out[DKIM_SIGNATURE_MAX_BYTES], size_t *len)
{
	unsigned long long written = 0;

	if (key->algorithm == DKIM_RSA_SHA256)
		return key_rsa_sign(key->rsa, digest, out, len);
	if (crypto_sign_detached(out, &written, digest, DKIM_DIGEST_BYTES, key->ed25519) != 0)
		return ERR_CRYPTO;
	*len = (size_t)written;
	return 0;
}

int dkim_key_export(struct dkim_key *key, struct buf *out, struct err *err)
{
	gnutls_datum_t der = {key->pkcs8, (unsigned)key->pkcs8_len};
	gnutls_datum_t pem = {NULL, 0};
	int rc = gnutls_pem_base64_encode2("PRIVATE KEY", &der, &pem);

	if (rc < 0)
		return err_set(err, ERR_CRYPTO, "cannot write the key as PEM: %s", gnutls_strerror(rc));
	rc = buf_append(out, slice_of(pem.data, pem.size));
	wipe_datum(&pem);
	return rc == 0 ? 0 : err_set(err, rc, "no room for the key");
}

void dkim_key_add_warning(struct dkim_key *key, enum dkim_key_warning warning)
{
	key->warnings |= warning;
}
