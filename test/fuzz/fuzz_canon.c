/* A message as DKIM sees it: the first two octets say where the body is cut, the rest is header and body. The body's
 * canonical form must not depend on the cut and must be its own canonical form; all fields are signed; the header is
 * also tried as a DNS record and as a From domain. */
#include "base/base.h"
#include "dkim/body_hash.h"
#include "dkim/canon.h"
#include "dkim/record.h"
#include "dkim/select.h"
#include "dkim/signature.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIELDS_MAX = 1000 };

static void collect(void *ctx, struct slice bytes)
{
	BUG_ON(bytes.len == 0);
	BUG_ON(buf_append(ctx, bytes) < 0);
}

static void canonical(struct buf *out, enum dkim_canon canon, struct slice body, size_t piece)
{
	struct dkim_body_canon state;

	buf_init(out, body.len + 2);
	dkim_body_canon_init(&state, canon);
	for (size_t at = 0; at < body.len; at += piece)
		dkim_body_canon_update(&state, slice_to(slice_from(body, at), piece), collect, out);
	dkim_body_canon_final(&state, collect, out);
}

static void try_body(struct slice body, size_t piece, enum dkim_canon canon)
{
	struct buf whole, pieces, again;

	canonical(&whole, canon, body, body.len + 1);
	canonical(&pieces, canon, body, piece);
	canonical(&again, canon, buf_slice(&whole), piece);
	BUG_ON(!slice_eq(buf_slice(&whole), buf_slice(&pieces)));
	BUG_ON(!slice_eq(buf_slice(&whole), buf_slice(&again)));
	BUG_ON(buf_len(&whole) > 0 && memcmp(buf_slice(&whole).ptr + buf_len(&whole) - 2, "\r\n", 2) != 0);
	buf_fini(&whole);
	buf_fini(&pieces);
	buf_fini(&again);
}

static void try_field(struct slice raw)
{
	struct buf once, twice;

	buf_init(&once, raw.len + 2);
	buf_init(&twice, raw.len + 4);
	if (dkim_canon_field(&once, DKIM_CANON_RELAXED, raw) == 0) {
		BUG_ON(dkim_canon_field(&twice, DKIM_CANON_RELAXED, buf_slice(&once)) < 0);
		BUG_ON(!slice_eq(buf_slice(&once), buf_slice(&twice)));
	}
	buf_clear(&once);
	dkim_canon_field(&once, DKIM_CANON_SIMPLE, raw);
	buf_fini(&once);
	buf_fini(&twice);
}

static size_t split(struct slice header, struct dkim_field fields[FIELDS_MAX])
{
	size_t count = 0;

	while (header.len > 0 && count < FIELDS_MAX) {
		ptrdiff_t end = slice_find(header, '\n');
		size_t len = end < 0 ? header.len : (size_t)end + 1;
		if (count > 0 && (header.ptr[0] == ' ' || header.ptr[0] == '\t'))
			fields[count - 1].raw.len += len;
		else
			fields[count++].raw = slice_to(header, len);
		header = slice_from(header, len);
	}
	return count;
}

static void try_signature(const struct dkim_field *fields, size_t count, struct slice body, struct slice domain)
{
	static const struct dkim_signer signers[] = {{{"s1", 2}, DKIM_RSA_SHA256}, {{"s2", 2}, DKIM_ED25519_SHA256}};
	struct dkim_body_hash *hash = dkim_body_hash_new(DKIM_CANON_RELAXED);
	unsigned char digest[DKIM_DIGEST_BYTES];
	struct dkim_signature signatures[2];
	struct dkim_message message = {.fields = fields, .field_count = count, .body_hash = digest, .domain = domain};
	struct buf out;

	dkim_body_hash_update(hash, body);
	dkim_body_hash_final(hash, digest);
	dkim_body_hash_free(&hash);
	if (dkim_signature_prepare(signatures, signers, 2, &message, NULL) < 0)
		return;
	for (int i = 0; i < 2; i++) {
		buf_init(&out, DKIM_FIELD_MAX_BYTES);
		BUG_ON(dkim_signature_finish(&signatures[i], slice_of(digest, sizeof(digest)), &out) < 0);
		buf_fini(&out);
		dkim_signature_fini(&signatures[i]);
	}
}

static void try_record(struct slice txt)
{
	static const unsigned char digest[DKIM_DIGEST_BYTES];
	struct dkim_record record;
	struct buf out;

	if (dkim_record_parse(txt, &record, NULL) < 0)
		return;
	dkim_record_verify(&record, digest, slice_of(digest, sizeof(digest)));
	if (record.public_key_len == 0)
		return;
	buf_init(&out, 4096);
	BUG_ON(dkim_record_format(&out, record.algorithm, slice_of(record.public_key, record.public_key_len)) < 0);
	BUG_ON(dkim_record_parse(buf_slice(&out), &record, NULL) < 0);
	buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct dkim_field fields[FIELDS_MAX];
	struct slice message = slice_from(slice_of(data, size), 2), header, body;
	const char *end;
	char domain[DKIM_DOMAIN_MAX_BYTES + 1] = "example.com";
	size_t piece, count;

	if (size < 2)
		return 0;
	piece = 1 + data[0] + 256u * (data[1] & 15);
	end = message.len ? memmem(message.ptr, message.len, "\r\n\r\n", 4) : NULL;
	header = slice_to(message, end ? (size_t)(end - message.ptr) + 2 : message.len);
	body = slice_from(message, header.len + 2);
	if (dkim_domain_to_ascii(slice_trim(header), domain) == 0)
		BUG_ON(!dkim_is_domain(slice_of_str(domain)));
	else
		memcpy(domain, "example.com", sizeof("example.com"));
	try_record(header);
	try_body(body, piece, DKIM_CANON_RELAXED);
	try_body(body, piece, DKIM_CANON_SIMPLE);
	try_body(header, piece, DKIM_CANON_RELAXED);
	count = split(header, fields);
	for (size_t i = 0; i < count; i++)
		try_field(fields[i].raw);
	try_signature(fields, count, body, slice_of_str(domain));
	return 0;
}
