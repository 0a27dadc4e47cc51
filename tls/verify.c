#include "tls/verify.h"

#include "base/base.h"
#include "tls/internal.h"
#include "tls/names.h"

#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <time.h>

/* 112 bits: RSA and DH from 2048, no SHA-1; what Debian's OpenSSL asks too. */
#define VERIFY_FLAGS GNUTLS_PROFILE_TO_VFLAGS(GNUTLS_PROFILE_MEDIUM)

enum { KEY_MAX_BITS = 16384, RSA_SMALL_BITS = 3072, RSA_EXPONENT_MAX_BYTES = 8 };

/* The peer chooses modulus and exponent, and GnuTLS computes with them whatever they are: minutes with what fits into a
 * certificate. */
static int check_key(gnutls_x509_crt_t certificate, struct err *err)
{
	gnutls_datum_t modulus, exponent;
	unsigned bits = 0, leading = 0, len;
	int algorithm = gnutls_x509_crt_get_pk_algorithm(certificate, &bits);

	if (algorithm >= 0 && bits > KEY_MAX_BITS)
		return err_set(err, ERR_LIMIT, "certificate's key of %u bits is too large", bits);
	if (algorithm != GNUTLS_PK_RSA || bits <= RSA_SMALL_BITS)
		return 0;
	if (gnutls_x509_crt_get_pk_rsa_raw(certificate, &modulus, &exponent) < 0)
		return err_set(err, ERR_CRYPTO, "certificate's key cannot be read");
	while (leading < exponent.size && exponent.data[leading] == 0)
		leading++;
	len = exponent.size - leading;
	gnutls_free(modulus.data);
	gnutls_free(exponent.data);
	if (len > RSA_EXPONENT_MAX_BYTES)
		return err_set(err, ERR_LIMIT, "certificate's key has an exponent of %u octets, which is too large",
			       len);
	return 0;
}

int verify_chain_parse(struct verify_chain *chain, const gnutls_datum_t *der, unsigned count, struct err *err)
{
	chain->count = 0;
	if (count > TLS_CHAIN_MAX)
		return err_set(err, ERR_LIMIT, "certificate chain of %u is too long", count);
	for (unsigned i = 0; i < count; i++) {
		int rc;

		BUG_ON(gnutls_x509_crt_init(&chain->list[i]) < 0);
		chain->count++;
		rc = gnutls_x509_crt_import(chain->list[i], &der[i], GNUTLS_X509_FMT_DER);
		if (rc < 0) {
			verify_chain_free(chain);
			return err_set(err, ERR_CRYPTO, "certificate %u of the chain cannot be read: %s", i + 1,
				       gnutls_strerror(rc));
		}
		rc = check_key(chain->list[i], err);
		if (rc < 0) {
			verify_chain_free(chain);
			return rc;
		}
	}
	return 0;
}

void verify_chain_free(struct verify_chain *chain)
{
	for (unsigned i = 0; i < chain->count; i++)
		gnutls_x509_crt_deinit(chain->list[i]);
	chain->count = 0;
}

/* The first of the chain that is out of its time, in words. */
static int tell_dates(const struct verify_chain *chain, struct err *err)
{
	time_t now = time(NULL);
	char date[16];

	for (unsigned i = 0; i < chain->count; i++) {
		time_t from = gnutls_x509_crt_get_activation_time(chain->list[i]);
		time_t until = gnutls_x509_crt_get_expiration_time(chain->list[i]);
		const char *which = i ? "an issuer's certificate" : "certificate";

		if (until < now) {
			names_format_date(until, date);
			return err_set(err, ERR_CRYPTO, "%s has expired (%s)", which, date);
		}
		if (from > now) {
			names_format_date(from, date);
			return err_set(err, ERR_CRYPTO, "%s is not valid before %s", which, date);
		}
	}
	return err_set(err, ERR_CRYPTO, "an authority's certificate has expired or is not yet valid");
}

static int tell_unknown_issuer(const struct verify_chain *chain, struct err *err)
{
	char issuer[256];
	size_t len = sizeof(issuer);

	if (names_is_selfsigned(chain->list[0]))
		return err_set(err, ERR_CRYPTO, "certificate is self-signed, no trusted authority stands behind it");
	if (gnutls_x509_crt_get_issuer_dn_by_oid(chain->list[chain->count - 1], GNUTLS_OID_X520_COMMON_NAME, 0, 0,
						 issuer, &len) < 0)
		return err_set(err, ERR_CRYPTO, "certificate was issued by nobody who is trusted here");
	for (size_t i = 0; i < len; i++)
		if (issuer[i] < 0x20 || issuer[i] == 0x7f)
			issuer[i] = '?';
	return err_set(err, ERR_CRYPTO, "certificate leads to the issuer \"%s\", who is not trusted here", issuer);
}

static int tell_status(const struct verify_chain *chain, unsigned status, struct err *err)
{
	if (status & GNUTLS_CERT_REVOKED)
		return err_set(err, ERR_CRYPTO, "certificate has been revoked");
	if (status & (GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED))
		return tell_dates(chain, err);
	if (status & GNUTLS_CERT_SIGNER_NOT_FOUND)
		return tell_unknown_issuer(chain, err);
	if (status & GNUTLS_CERT_SIGNER_NOT_CA)
		return err_set(err, ERR_CRYPTO, "certificate was issued by a certificate that is not an authority's");
	if (status & GNUTLS_CERT_INSECURE_ALGORITHM)
		return err_set(err, ERR_CRYPTO, "certificate uses a signature algorithm or key that is too weak");
	if (status & GNUTLS_CERT_SIGNATURE_FAILURE)
		return err_set(err, ERR_CRYPTO, "certificate's signature is wrong");
	if (status & GNUTLS_CERT_PURPOSE_MISMATCH)
		return err_set(err, ERR_CRYPTO, "certificate is not meant for this use");
	return err_set(err, ERR_CRYPTO, "certificate is not valid (status 0x%x)", status);
}

static int tell_name(const struct verify_chain *chain, const char *wanted, struct err *err)
{
	struct buf names;

	buf_init(&names, 400);
	names_format(chain->list[0], 3, &names);
	if (buf_len(&names))
		err_set(err, ERR_CRYPTO, "certificate is for %.*s, not %s", SLICE_ARG(buf_slice(&names)), wanted);
	else
		err_set(err, ERR_CRYPTO, "certificate names no host, not %s either", wanted);
	buf_fini(&names);
	return ERR_CRYPTO;
}

int verify_chain_by_list(struct verify_chain *chain, gnutls_x509_trust_list_t list, const char *purpose,
			 const char *const *names, size_t name_count, struct err *err)
{
	gnutls_typed_vdata_st data = {.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (void *)purpose};
	unsigned status = 0;
	int rc =
	    gnutls_x509_trust_list_verify_crt2(list, chain->list, chain->count, &data, 1, VERIFY_FLAGS, &status, NULL);

	if (rc < 0)
		return err_set(err, ERR_CRYPTO, "certificate cannot be verified: %s", gnutls_strerror(rc));
	if (status)
		return tell_status(chain, status, err);
	for (size_t i = 0; i < name_count; i++)
		if (names_certificate_is_for(chain->list[0], names[i]))
			return 0;
	return name_count ? tell_name(chain, names[0], err) : 0;
}

int verify_chain_by_trust(const gnutls_datum_t *der, unsigned count, struct tls_trust *trust, const char *purpose,
			  const char *name, struct err *err)
{
	gnutls_x509_trust_list_t list;
	struct verify_chain chain;
	int rc;

	if (!count)
		return err_set(err, ERR_CRYPTO, "the peer showed no certificate");
	if (!trust)
		return err_set(err, ERR_CRYPTO, "no certification authority is trusted here");
	rc = tls_trust_list(trust, &list, err);
	if (rc == 0)
		rc = verify_chain_parse(&chain, der, count, err);
	if (rc < 0)
		return rc;
	rc = verify_chain_by_list(&chain, list, purpose, &name, name ? 1 : 0, err);
	verify_chain_free(&chain);
	return rc;
}

int verify_leaf(const gnutls_datum_t *leaf, struct err *err)
{
	struct verify_chain chain;
	int rc = verify_chain_parse(&chain, leaf, 1, err);

	if (rc == 0)
		verify_chain_free(&chain);
	return rc;
}

int verify_export_spki(gnutls_x509_crt_t certificate, gnutls_datum_t *spki)
{
	gnutls_pubkey_t key;
	int rc;

	BUG_ON(gnutls_pubkey_init(&key) < 0);
	rc = gnutls_pubkey_import_x509(key, certificate, 0);
	if (rc == 0)
		rc = gnutls_pubkey_export2(key, GNUTLS_X509_FMT_DER, spki);
	gnutls_pubkey_deinit(key);
	return rc < 0 ? ERR_CRYPTO : 0;
}

static bool is_wanted(const struct tls_fingerprint *got, const struct tls_fingerprint *wanted, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (memcmp(got->bytes, wanted[i].bytes, TLS_FINGERPRINT_BYTES) == 0)
			return true;
	return false;
}

static bool is_key_wanted(const gnutls_datum_t *leaf, const struct tls_fingerprint *wanted, size_t count)
{
	struct tls_fingerprint of_key;
	struct verify_chain chain;
	gnutls_datum_t spki = {0};
	bool found = false;

	if (verify_chain_parse(&chain, leaf, 1, NULL) < 0)
		return false;
	if (verify_export_spki(chain.list[0], &spki) == 0)
		found = gnutls_hash_fast(GNUTLS_DIG_SHA256, spki.data, spki.size, of_key.bytes) == 0 &&
			is_wanted(&of_key, wanted, count);
	gnutls_free(spki.data);
	verify_chain_free(&chain);
	return found;
}

int verify_fingerprint(const gnutls_datum_t *leaf, const struct tls_fingerprint *wanted, size_t count, struct err *err)
{
	struct tls_fingerprint got;
	char text[TLS_FINGERPRINT_CHARS + 1];

	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, leaf->data, leaf->size, got.bytes) < 0)
		return err_set(err, ERR_CRYPTO, "SHA-256 is not available");
	if (is_wanted(&got, wanted, count) || is_key_wanted(leaf, wanted, count))
		return 0;
	tls_fingerprint_format(&got, text);
	return err_set(err, ERR_CRYPTO, "certificate's fingerprint is %s, not the one that is configured", text);
}
