#include "support_dkim.h"

#include "base/base.h"

#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

const char rfc6376_rsa_pem[] = "-----BEGIN RSA PRIVATE KEY-----\n"
			       "MIICXwIBAAKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFC\n"
			       "jxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gb\n"
			       "to/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB\n"
			       "AoGBALmn+XwWk7akvkUlqb+dOxyLB9i5VBVfje89Teolwc9YJT36BGN/l4e0l6QX\n"
			       "/1//6DWUTB3KI6wFcm7TWJcxbS0tcKZX7FsJvUz1SbQnkS54DJck1EZO/BLa5ckJ\n"
			       "gAYIaqlA9C0ZwM6i58lLlPadX/rtHb7pWzeNcZHjKrjM461ZAkEA+itss2nRlmyO\n"
			       "n1/5yDyCluST4dQfO8kAB3toSEVc7DeFeDhnC1mZdjASZNvdHS4gbLIA1hUGEF9m\n"
			       "3hKsGUMMPwJBAPW5v/U+AWTADFCS22t72NUurgzeAbzb1HWMqO4y4+9Hpjk5wvL/\n"
			       "eVYizyuce3/fGke7aRYw/ADKygMJdW8H/OcCQQDz5OQb4j2QDpPZc0Nc4QlbvMsj\n"
			       "7p7otWRO5xRa6SzXqqV3+F0VpqvDmshEBkoCydaYwc2o6WQ5EBmExeV8124XAkEA\n"
			       "qZzGsIxVP+sEVRWZmW6KNFSdVUpk3qzK0Tz/WjQMe5z0UunY9Ax9/4PVhp/j61bf\n"
			       "eAYXunajbBSOLlx4D+TunwJBANkPI5S9iylsbLs6NkaMHV6k5ioHBBmgCak95JGX\n"
			       "GMot/L2x0IYyMLAz6oLWh2hm7zwtb0CgOrPo1ke44hFYnfc=\n"
			       "-----END RSA PRIVATE KEY-----\n";
const char rfc6376_rsa_public[] = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkM"
				  "oGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/R"
				  "tdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToI"
				  "MmPSPDdQPNUYckcQ2QIDAQAB";

const char rfc8463_rsa_pem[] = "-----BEGIN RSA PRIVATE KEY-----\n"
			       "MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi\n"
			       "Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM\n"
			       "KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB\n"
			       "AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm\n"
			       "6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe\n"
			       "zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy\n"
			       "6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc\n"
			       "uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy\n"
			       "WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd\n"
			       "WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a\n"
			       "licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst\n"
			       "o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe\n"
			       "uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL\n"
			       "-----END RSA PRIVATE KEY-----\n";
const char rfc8463_rsa_public[] = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6"
				  "Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/"
				  "e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G"
				  "+2kryOTIKT+l/K4w3QIDAQAB";
/* The RFC gives the seed nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A= (RFC 8032 section 7.1, test 1); this is its
 * PKCS#8. */
const char rfc8463_ed25519_pem[] = "-----BEGIN PRIVATE KEY-----\n"
				   "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
				   "-----END PRIVATE KEY-----\n";
const char rfc8463_ed25519_public[] = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

const char rfc_header[] = "From: Joe SixPack <joe@football.example.com>\r\n"
			  "To: Suzie Q <suzie@shopping.example.net>\r\n"
			  "Subject: Is dinner ready?\r\n"
			  "Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
			  "Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n";
const char rfc_body[] = "Hi.\r\n"
			"\r\n"
			"We lost the game.  Are you hungry yet?\r\n"
			"\r\n"
			"Joe.\r\n";

void collect(void *ctx, struct slice bytes)
{
	assert_true(bytes.len > 0);
	assert_int_equal(buf_append(ctx, bytes), 0);
}

/* One line without its end: blanks squeezed, trailing ones dropped. */
static void plain_line(struct buf *out, struct slice line, bool is_relaxed)
{
	if (!is_relaxed) {
		buf_append(out, line);
		return;
	}
	while (line.len > 0 && strchr(" \t", line.ptr[line.len - 1]) && line.ptr[line.len - 1])
		line.len--;
	for (size_t i = 0; i < line.len; i++) {
		bool blank = line.ptr[i] == ' ' || line.ptr[i] == '\t';
		bool before = i > 0 && (line.ptr[i - 1] == ' ' || line.ptr[i - 1] == '\t');
		if (!(blank && before))
			buf_append_byte(out, blank ? ' ' : line.ptr[i]);
	}
}

void plain_body(struct buf *out, struct slice body, bool is_relaxed)
{
	size_t keep = 0; /* up to the end of the last line that is not empty */

	while (body.len > 0) {
		const char *end = memmem(body.ptr, body.len, "\r\n", 2);
		size_t len = end ? (size_t)(end - body.ptr) : body.len, before = buf_len(out);
		plain_line(out, slice_to(body, len), is_relaxed);
		bool is_empty = buf_len(out) == before;
		buf_append(out, SLICE("\r\n"));
		if (!is_empty)
			keep = buf_len(out);
		body = slice_from(body, len + (end ? 2 : 0));
	}
	buf_truncate(out, keep);
	if (keep == 0 && !is_relaxed)
		buf_append(out, SLICE("\r\n"));
}

void plain_field(struct buf *out, struct slice raw)
{
	char *copy = xmalloc(raw.len + 1);
	size_t used = 0, colon = (size_t)slice_find(raw, ':');

	for (size_t i = 0; i < raw.len; i++)
		if (raw.ptr[i] != '\r' && raw.ptr[i] != '\n')
			copy[used++] = raw.ptr[i];
	struct slice unfolded = slice_of(copy, used);
	struct slice name = slice_trim(slice_to(unfolded, colon));
	for (size_t i = 0; i < name.len; i++)
		buf_append_byte(out, (char)(name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? name.ptr[i] + 32 : name.ptr[i]));
	buf_append_byte(out, ':');
	plain_line(out, slice_trim(slice_from(unfolded, colon + 1)), true);
	buf_append(out, SLICE("\r\n"));
	free(copy);
}

char *to_base64(const void *octets, size_t len)
{
	size_t size = sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_ORIGINAL);
	char *text = xmalloc(size);

	return sodium_bin2base64(text, size, octets, len, sodium_base64_VARIANT_ORIGINAL);
}

static size_t from_base64(const char *text, unsigned char *out, size_t size)
{
	size_t len = 0;

	assert_int_equal(
	    sodium_base642bin(out, size, text, strlen(text), NULL, &len, NULL, sodium_base64_VARIANT_ORIGINAL), 0);
	return len;
}

bool gnutls_accepts(enum dkim_algorithm algorithm, const char *public_key, const unsigned char *digest,
		    struct slice signature)
{
	unsigned char octets[1024], hash_bytes[DKIM_DIGEST_BYTES];
	gnutls_datum_t key = {octets, (unsigned)from_base64(public_key, octets, sizeof(octets))};
	gnutls_datum_t hash = {hash_bytes, sizeof(hash_bytes)};
	gnutls_datum_t sig = {(unsigned char *)(uintptr_t)signature.ptr, (unsigned)signature.len};
	gnutls_pubkey_t pubkey;
	int rc;

	memcpy(hash_bytes, digest, sizeof(hash_bytes));
	assert_int_equal(gnutls_pubkey_init(&pubkey), 0);
	if (algorithm == DKIM_RSA_SHA256) {
		assert_int_equal(gnutls_pubkey_import(pubkey, &key, GNUTLS_X509_FMT_DER), 0);
		rc = gnutls_pubkey_verify_hash2(pubkey, GNUTLS_SIGN_RSA_SHA256, 0, &hash, &sig);
	} else {
		assert_int_equal(gnutls_pubkey_import_ecc_raw(pubkey, GNUTLS_ECC_CURVE_ED25519, &key, NULL), 0);
		rc = gnutls_pubkey_verify_data2(pubkey, GNUTLS_SIGN_EDDSA_ED25519, 0, &hash, &sig);
	}
	gnutls_pubkey_deinit(pubkey);
	return rc >= 0;
}

char *tag_of(struct slice field, const char *tag)
{
	struct buf packed;
	char pattern[16], *found, *value = NULL;

	buf_init(&packed, field.len + 2);
	buf_append_byte(&packed, ';');
	for (size_t i = (size_t)slice_find(field, ':') + 1; i < field.len; i++)
		if (!strchr(" \t\r\n", field.ptr[i]))
			buf_append_byte(&packed, field.ptr[i]);
	buf_append_byte(&packed, '\0');
	snprintf(pattern, sizeof(pattern), ";%s=", tag);
	found = strstr(packed.data, pattern);
	if (found) {
		found += strlen(pattern);
		value = xmemdup(found, strcspn(found, ";"));
	}
	buf_fini(&packed);
	return value;
}

enum { FIELDS_MAX = 20000 };

struct split {
	struct slice fields[FIELDS_MAX];
	size_t count;
	struct slice body;
};

static void split_message(struct split *split, struct slice message)
{
	split->count = 0;
	while (message.len > 0 && !slice_has_prefix(message, SLICE("\r\n"))) {
		const char *end = memmem(message.ptr, message.len, "\r\n", 2);
		size_t len = end ? (size_t)(end - message.ptr) + 2 : message.len;
		struct slice *last = split->count ? &split->fields[split->count - 1] : NULL;
		if (last && (message.ptr[0] == ' ' || message.ptr[0] == '\t')) {
			last->len += len;
		} else {
			assert_true(split->count < FIELDS_MAX);
			split->fields[split->count++] = slice_to(message, len);
		}
		message = slice_from(message, len);
	}
	split->body = slice_from(message, 2);
}

static bool field_is(struct slice raw, struct slice name)
{
	ptrdiff_t colon = slice_find(raw, ':');
	return colon > 0 && slice_case_eq(slice_trim(slice_to(raw, (size_t)colon)), name);
}

/* The field without what stands behind b=. Our b= is the last tag, as is that of the published examples. */
static void without_signature(struct buf *out, struct slice field)
{
	const char *at = NULL, *next = field.ptr;

	while ((next = memmem(next, (size_t)(field.ptr + field.len - next), "b=", 2))) {
		if (strchr("; \t\n", next[-1]))
			at = next;
		next += 2;
	}
	assert_non_null(at);
	buf_append(out, slice_of(field.ptr, (size_t)(at + 2 - field.ptr)));
}

static void header_digest(const struct split *split, struct slice signature, const char *h, unsigned char *digest)
{
	struct buf data, unsigned_field;
	size_t *next = xcalloc(FIELDS_MAX, sizeof(*next)); /* whether a field has been used */

	buf_init(&data, 64u << 20);
	buf_init(&unsigned_field, 1u << 20);
	for (const char *at = h; *at; at += at[strcspn(at, ":")] ? strcspn(at, ":") + 1 : strcspn(at, ":")) {
		struct slice name = slice_of(at, strcspn(at, ":"));
		for (size_t i = split->count; i-- > 0;)
			if (!next[i] && field_is(split->fields[i], name)) {
				next[i] = 1;
				plain_field(&data, split->fields[i]);
				break;
			}
	}
	without_signature(&unsigned_field, signature);
	plain_field(&data, buf_slice(&unsigned_field));
	assert_int_equal(gnutls_hash_fast(GNUTLS_DIG_SHA256, buf_slice(&data).ptr, buf_len(&data) - 2, digest), 0);
	buf_fini(&unsigned_field);
	buf_fini(&data);
	free(next);
}

static bool body_fits(struct slice body, const char *bh)
{
	unsigned char digest[DKIM_DIGEST_BYTES];
	struct buf canonical;
	char *text;
	bool same;

	buf_init(&canonical, 64u << 20);
	plain_body(&canonical, body, true);
	gnutls_hash_fast(GNUTLS_DIG_SHA256, buf_slice(&canonical).ptr ? buf_slice(&canonical).ptr : "",
			 buf_len(&canonical), digest);
	text = to_base64(digest, sizeof(digest));
	same = strcmp(text, bh) == 0;
	free(text);
	buf_fini(&canonical);
	return same;
}

static enum verdict judge(const struct split *split, struct slice signature, const char *public_key)
{
	char *a = tag_of(signature, "a"), *h = tag_of(signature, "h"), *bh = tag_of(signature, "bh");
	char *b = tag_of(signature, "b");
	unsigned char digest[DKIM_DIGEST_BYTES], octets[DKIM_SIGNATURE_MAX_BYTES];
	enum verdict verdict = PASS;

	assert_true(a && h && bh && b);
	header_digest(split, signature, h, digest);
	if (!body_fits(split->body, bh))
		verdict = BAD_BODY;
	else if (!gnutls_accepts(strcmp(a, "rsa-sha256") == 0 ? DKIM_RSA_SHA256 : DKIM_ED25519_SHA256, public_key,
				 digest, slice_of(octets, from_base64(b, octets, sizeof(octets)))))
		verdict = BAD_SIGNATURE;
	free(a);
	free(h);
	free(bh);
	free(b);
	return verdict;
}

enum verdict verify_message(struct slice message, unsigned index, const char *public_key)
{
	struct split *split = xmalloc(sizeof(*split));
	enum verdict verdict = NO_SIGNATURE;

	split_message(split, message);
	for (size_t i = 0; i < split->count; i++)
		if (field_is(split->fields[i], SLICE("DKIM-Signature")) && index-- == 0) {
			verdict = judge(split, split->fields[i], public_key);
			break;
		}
	free(split);
	return verdict;
}
