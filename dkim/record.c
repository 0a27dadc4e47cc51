#include "dkim/record.h"

#include "base/base.h"
#include "base/base64.h"

#include <gnutls/abstract.h>
#include <sodium.h>

enum { STRING_MAX_BYTES = 255, NAME_MAX_BYTES = 253 };

#define BASE64_CHARS(bytes) sodium_base64_ENCODED_LEN(bytes, sodium_base64_VARIANT_ORIGINAL)

int dkim_record_format(struct buf *out, enum dkim_algorithm algorithm, struct slice public_key)
{
	char text[BASE64_CHARS(DKIM_PUBLIC_MAX_BYTES)];

	if (public_key.len > DKIM_PUBLIC_MAX_BYTES)
		return ERR_LIMIT;
	sodium_bin2base64(text, sizeof(text), (const unsigned char *)public_key.ptr, public_key.len,
			  sodium_base64_VARIANT_ORIGINAL);
	return buf_printf(out, "v=DKIM1; k=%s; p=%s", dkim_algorithm_key_type(algorithm), text);
}

int dkim_record_format_name(struct buf *out, struct slice selector, struct slice domain)
{
	if (!dkim_is_selector(selector) || !dkim_is_domain(domain) ||
	    selector.len + strlen("._domainkey.") + domain.len > NAME_MAX_BYTES)
		return ERR_SYNTAX;
	return buf_printf(out, "%.*s._domainkey.%.*s", SLICE_ARG(selector), SLICE_ARG(domain));
}

int dkim_record_format_zone(struct buf *out, struct slice selector, struct slice domain, enum dkim_algorithm algorithm,
			    struct slice public_key)
{
	struct buf text;
	struct slice left;
	int rc = dkim_record_format_name(out, selector, domain);

	if (rc < 0)
		return rc;
	buf_init(&text, 2 * DKIM_PUBLIC_MAX_BYTES);
	rc = dkim_record_format(&text, algorithm, public_key);
	if (rc == 0)
		rc = buf_append_str(out, ". IN TXT (");
	for (left = buf_slice(&text); rc == 0 && left.len > 0; left = slice_from(left, STRING_MAX_BYTES))
		rc = buf_printf(out, " \"%.*s\"", SLICE_ARG(slice_to(left, STRING_MAX_BYTES)));
	if (rc == 0)
		rc = buf_append_str(out, " )\n");
	buf_fini(&text);
	return rc;
}

/* One "name = value" of a tag list (RFC 6376 section 3.2), without blanks around either. 1: a tag, 0: the end, -1:
 * broken.
 */
static int next_tag(struct slice *list, struct slice *name, struct slice *value)
{
	while (list->len > 0) {
		ptrdiff_t end = slice_find(*list, ';');
		struct slice tag = slice_trim(slice_to(*list, end < 0 ? list->len : (size_t)end));
		ptrdiff_t equals = slice_find(tag, '=');
		*list = slice_from(*list, end < 0 ? list->len : (size_t)end + 1);
		if (tag.len == 0 && list->len == 0)
			return 0;
		if (equals <= 0)
			return -1;
		*name = slice_trim(slice_to(tag, (size_t)equals));
		*value = slice_trim(slice_from(tag, (size_t)equals + 1));
		return 1;
	}
	return 0;
}

/* Whether a colon-separated list has `word`. */
static bool list_has(struct slice list, struct slice word)
{
	while (list.len > 0) {
		ptrdiff_t colon = slice_find(list, ':');
		size_t end = colon < 0 ? list.len : (size_t)colon;
		if (slice_case_eq(slice_trim(slice_to(list, end)), word))
			return true;
		list = slice_from(list, end + 1);
	}
	return false;
}

static int read_rsa_bits(struct dkim_record *record, struct err *err)
{
	gnutls_datum_t der = {record->public_key, (unsigned)record->public_key_len};
	gnutls_pubkey_t pubkey;
	unsigned bits = 0;
	int type = -1;

	BUG_ON(gnutls_pubkey_init(&pubkey) < 0);
	if (gnutls_pubkey_import(pubkey, &der, GNUTLS_X509_FMT_DER) == 0)
		type = gnutls_pubkey_get_pk_algorithm(pubkey, &bits);
	gnutls_pubkey_deinit(pubkey);
	if (type != GNUTLS_PK_RSA)
		return err_set(err, ERR_SYNTAX, "p= is not an RSA public key (cut off, or strings joined wrongly?)");
	record->bits = bits;
	return 0;
}

static int read_public_key(struct dkim_record *record, struct slice text, struct err *err)
{
	if (text.len == 0)
		return 0;
	if (!base64_decode(text, BASE64_PADDED, " \t\r\n", record->public_key, sizeof(record->public_key),
			   &record->public_key_len))
		return err_set(err, ERR_SYNTAX, "p= is not base64 (a quote or backslash in the record?)");
	if (record->algorithm == DKIM_RSA_SHA256)
		return read_rsa_bits(record, err);
	if (record->public_key_len != crypto_sign_PUBLICKEYBYTES)
		return err_set(err, ERR_SYNTAX, "p= has %zu octets; an Ed25519 key has %d", record->public_key_len,
			       (int)crypto_sign_PUBLICKEYBYTES);
	record->bits = 256;
	return 0;
}

static int read_key_type(struct dkim_record *record, struct slice value, struct err *err)
{
	for (unsigned i = 0; i < DKIM_ALGORITHM_COUNT; i++)
		if (slice_eq(value, slice_of_str(dkim_algorithm_key_type(i)))) {
			record->algorithm = i;
			return 0;
		}
	return err_set(err, ERR_UNSUPPORTED, "key type k=%.*s", SLICE_ARG(slice_to(value, 64)));
}

enum tag { TAG_V, TAG_K, TAG_P, TAG_T, TAG_H, TAG_S, TAG_COUNT };

/* The values of the tags we know; ptr NULL: absent. Unknown ones are passed over (section 3.2). */
static int collect_tags(struct slice txt, struct slice values[TAG_COUNT], struct err *err)
{
	static const char letters[] = "vkpths";
	struct slice name, value;
	bool is_first = true;
	int rc;

	while ((rc = next_tag(&txt, &name, &value)) > 0) {
		const char *letter = name.len == 1 && name.ptr[0] ? strchr(letters, name.ptr[0]) : NULL;
		if (letter) {
			struct slice *slot = &values[letter - letters];
			if (slot->ptr)
				return err_set(err, ERR_SYNTAX, "%c= stands twice", *letter);
			if (slot == &values[TAG_V] && !is_first)
				return err_set(err, ERR_SYNTAX, "v= must be the first tag");
			*slot = value;
		}
		is_first = false;
	}
	if (rc < 0)
		return err_set(err, ERR_SYNTAX, "not a list of name=value tags");
	return 0;
}

int dkim_record_parse(struct slice txt, struct dkim_record *record, struct err *err)
{
	struct slice values[TAG_COUNT] = {{0}};
	int rc;

	BUG_ON(sodium_init() < 0);
	*record = (struct dkim_record){0};
	rc = collect_tags(txt, values, err);
	if (rc < 0)
		return rc;
	if (values[TAG_V].ptr && !slice_eq(values[TAG_V], SLICE("DKIM1")))
		return err_set(err, ERR_UNSUPPORTED, "v=%.*s is not DKIM1", SLICE_ARG(slice_to(values[TAG_V], 64)));
	if (!values[TAG_P].ptr)
		return err_set(err, ERR_SYNTAX, "no DKIM record: p= is missing");
	if (values[TAG_K].ptr)
		rc = read_key_type(record, values[TAG_K], err);
	if (rc < 0)
		return rc;
	record->is_testing = list_has(values[TAG_T], SLICE("y"));
	record->is_strict = list_has(values[TAG_T], SLICE("s"));
	record->allows_sha256 = !values[TAG_H].ptr || list_has(values[TAG_H], SLICE("sha256"));
	record->allows_email =
	    !values[TAG_S].ptr || list_has(values[TAG_S], SLICE("email")) || list_has(values[TAG_S], SLICE("*"));
	return read_public_key(record, values[TAG_P], err);
}

enum dkim_record_verdict dkim_record_compare(const struct dkim_record *record, enum dkim_algorithm algorithm,
					     struct slice public_key)
{
	if (record->public_key_len == 0)
		return DKIM_RECORD_REVOKED;
	if (record->algorithm != algorithm)
		return DKIM_RECORD_OTHER_TYPE;
	if (!slice_eq(slice_of(record->public_key, record->public_key_len), public_key))
		return DKIM_RECORD_OTHER_KEY;
	if (!record->allows_sha256)
		return DKIM_RECORD_FORBIDS_SHA256;
	if (!record->allows_email)
		return DKIM_RECORD_FORBIDS_EMAIL;
	return record->is_testing ? DKIM_RECORD_TESTING : DKIM_RECORD_MATCHES;
}

const char *dkim_record_verdict_name(enum dkim_record_verdict verdict)
{
	switch (verdict) {
	case DKIM_RECORD_MATCHES: return "matches";
	case DKIM_RECORD_REVOKED: return "revoked";
	case DKIM_RECORD_OTHER_TYPE: return "other-type";
	case DKIM_RECORD_OTHER_KEY: return "other-key";
	case DKIM_RECORD_FORBIDS_SHA256: return "forbids-sha256";
	case DKIM_RECORD_FORBIDS_EMAIL: return "forbids-email";
	case DKIM_RECORD_TESTING: return "testing";
	}
	return "unknown";
}

static bool verify_rsa(const struct dkim_record *record, const unsigned char *digest, struct slice signature)
{
	gnutls_datum_t der = {(unsigned char *)(uintptr_t)record->public_key, (unsigned)record->public_key_len};
	gnutls_datum_t hash = {(unsigned char *)(uintptr_t)digest, DKIM_DIGEST_BYTES};
	gnutls_datum_t sig = {(unsigned char *)(uintptr_t)signature.ptr, (unsigned)signature.len};
	gnutls_pubkey_t pubkey;
	bool good;

	BUG_ON(gnutls_pubkey_init(&pubkey) < 0);
	good = gnutls_pubkey_import(pubkey, &der, GNUTLS_X509_FMT_DER) == 0 &&
	       gnutls_pubkey_verify_hash2(pubkey, GNUTLS_SIGN_RSA_SHA256, 0, &hash, &sig) >= 0;
	gnutls_pubkey_deinit(pubkey);
	return good;
}

bool dkim_record_verify(const struct dkim_record *record, const unsigned char digest[DKIM_DIGEST_BYTES],
			struct slice signature)
{
	if (record->public_key_len == 0 || signature.len > DKIM_SIGNATURE_MAX_BYTES)
		return false;
	if (record->algorithm == DKIM_RSA_SHA256)
		return verify_rsa(record, digest, signature);
	return signature.len == crypto_sign_BYTES &&
	       crypto_sign_verify_detached((const unsigned char *)signature.ptr, digest, DKIM_DIGEST_BYTES,
					   record->public_key) == 0;
}
