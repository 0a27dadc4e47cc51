/* Everything in a DSN that comes from strangers: texts and hosts of outcomes, addresses, ORCPT, ENVID, the message. The
 * fields are separated by 0xff in the input. What comes out is lines of CRLF, without controls, and 7-bit unless it
 * says otherwise; the boundary stands exactly where the parts begin. */
#include "base/base.h"
#include "base/err.h"
#include "smtp/dsn.h"
#include "smtp/syntax.h"

#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct slice take(struct slice *rest)
{
	ptrdiff_t end = slice_find(*rest, (char)0xff);
	struct slice field = slice_to(*rest, end < 0 ? rest->len : (size_t)end);

	*rest = slice_from(*rest, field.len + 1);
	return field;
}

static size_t count(struct slice text, const char *needle)
{
	size_t found = 0;
	const char *at;

	while (text.len && (at = memmem(text.ptr, text.len, needle, strlen(needle)))) {
		text = slice_from(text, (size_t)(at - text.ptr) + 1);
		found++;
	}
	return found;
}

static void check(struct slice text, const struct dsn_result *result)
{
	const char *at = memmem(text.ptr, text.len, "\r\n\tboundary=\"", 13);
	char boundary[64];
	size_t len;

	BUG_ON(!at);
	len = (size_t)((const char *)memchr(at + 13, '"', 60) - at) - 13;
	snprintf(boundary, sizeof(boundary), "\r\n--%.*s", (int)len, at + 13);
	BUG_ON(count(text, boundary) != 4);
	BUG_ON(!result->has_8bit && !slice_is_ascii(text));
	for (size_t i = 0; i < text.len; i++) {
		BUG_ON(text.ptr[i] == '\n' && (i == 0 || text.ptr[i - 1] != '\r'));
		BUG_ON(text.ptr[i] == '\r' && (i + 1 == text.len || text.ptr[i + 1] != '\n'));
		BUG_ON(text.ptr[i] == '\0');
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice rest = slice_of(data, size);
	struct outcome outcome = {0};
	struct dsn_recipient recipient = {.outcome = &outcome};
	struct dsn dsn = {.hostname = "relay.example", .recipients = &recipient, .recipient_count = 1};
	struct dsn_result result;
	struct rng_seeded rng;
	struct buf out;

	if (size < 2)
		return 0;
	rng_seeded_init(&rng, 1);
	dsn.rng = &rng.rng;
	dsn.kind = (enum dsn_kind)(data[0] % 3);
	dsn.return_full = data[0] & 4;
	recipient.is_final_delivery = data[0] & 8;
	outcome.kind = data[0] & 16 ? OUTCOME_EXPIRED : OUTCOME_FAILED;
	outcome.code = data[0] & 32 ? 550 : 0;
	outcome.class = (enum failure_class)(data[1] % CLASS_COUNT);
	rest = slice_from(rest, 2);
	slice_to_cstr(take(&rest), outcome.text, sizeof(outcome.text));
	slice_to_cstr(take(&rest), outcome.host, sizeof(outcome.host));
	slice_to_cstr(take(&rest), outcome.enhanced, sizeof(outcome.enhanced));
	recipient.address = take(&rest);
	recipient.orcpt = take(&rest);
	dsn.envid = take(&rest);
	dsn.to = take(&rest);
	dsn.original = rest;
	dsn.original_bytes = rest.len;
	buf_init(&out, DSN_BYTES_MAX);
	if (dsn_compose(&out, &dsn, &result) == 0)
		check(buf_slice(&out), &result);
	else
		BUG_ON(buf_len(&out) != 0);
	buf_fini(&out);
	return 0;
}
