/* A message's front. The first octet says how it is cut and what is known of the session. The scanner must find the
 * same header however the octets come, nothing may be lost, and what a submission server makes of a header must need no
 * second making. */
#include "base/base.h"
#include "smtp/header.h"
#include "smtp/submit_header.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BLOCK_MAX = 16 * 1024 };

struct found {
	struct header_scanner scan;
	struct buf all; /* block, separator, body: what came in */
	size_t block;
};

static void find(struct found *found, struct slice content, size_t step)
{
	size_t at = 0, taken = 0;

	header_scanner_init(&found->scan, BLOCK_MAX);
	buf_init(&found->all, content.len + 2);
	while (at < content.len) {
		enum header_status status =
		    header_scanner_input(&found->scan, slice_to(slice_from(content, at), step), &taken);
		at += taken;
		if (status != HEADER_MORE)
			break;
	}
	if (header_scanner_end(&found->scan) == HEADER_TOO_LONG)
		return;
	buf_append(&found->all, header_scanner_block(&found->scan));
	found->block = buf_len(&found->all);
	if (found->scan.end == HEADER_END_EMPTY_LINE)
		buf_append(&found->all, SLICE("\r\n"));
	buf_append(&found->all, header_scanner_leftover(&found->scan));
	BUG_ON(buf_append(&found->all, slice_from(content, at)) < 0);
}

static void lose(struct found *found)
{
	header_scanner_fini(&found->scan);
	buf_fini(&found->all);
}

static void try_fields(struct slice block, uint32_t expected)
{
	struct header_field field;
	const char *at = block.ptr;
	uint32_t count = 0;

	while (header_next_field(&block, &field)) {
		BUG_ON(field.raw.ptr != at || field.name.len == 0);
		at += field.raw.len;
		count++;
	}
	BUG_ON(count != expected);
}

static void try_again(const struct submit_header *first, const struct submit_header_options *options)
{
	struct submit_header second;
	struct header_field field;
	struct buf block;

	buf_init(&block, BLOCK_MAX * 8);
	buf_append(&block, buf_slice(&first->prefix));
	buf_append(&block, first->kept);
	if (submit_header_make(&second, buf_slice(&block), options) < 0)
		BUG_ON(second.received_count < SUBMIT_HEADER_RECEIVED_MAX);
	else
		BUG_ON(second.kept.ptr != buf_slice(&block).ptr || second.added_date || second.added_from ||
		       second.added_message_id || second.completed_from || second.from_count == 0 || second.has_class ||
		       second.tag.len || second.lifetime_ms);
	BUG_ON(header_find_field(buf_slice(&block), SLICE("bcc"), &field));
	BUG_ON(header_find_field(buf_slice(&block), SLICE("return-path"), &field));
	BUG_ON(!slice_has_prefix(buf_slice(&block), SLICE("Received: ")));
	submit_header_fini(&second);
	buf_fini(&block);
}

static void try_submission(struct slice block, uint8_t choice)
{
	struct rng_seeded rng;
	struct submit_header header;
	struct submit_header_options options = {.hostname = SLICE("relay.test"),
						.origin = choice & 1 ? SLICE("example.com") : SLICE(""),
						.id = SLICE("0123456789ABC"),
						.sender = choice & 2 ? SLICE("\"a b\"@example.com") : SLICE(""),
						.only_recipient = choice & 4 ? SLICE("b@example.org") : SLICE(""),
						.hide_client = choice & 8,
						.helo = slice_to(block, 20),
						.client_address = SLICE("2001:db8::1"),
						.esmtp = choice & 16,
						.wall_ms = INT64_C(1764052440000),
						.rng = &rng.rng};

	rng_seeded_init(&rng, choice);
	if (submit_header_make(&header, block, &options) == 0) {
		BUG_ON(header.from_count == 0 || header.from_domain.len == 0);
		for (size_t i = 0; i < header.from_count; i++)
			BUG_ON(slice_find(header.from[i], '@') < 0);
		BUG_ON(header.kept.len && header.kept.ptr[header.kept.len - 1] != '\n');
		try_again(&header, &options);
	} else {
		BUG_ON(header.refusal.code < 500 || !header.refusal.text || !header.refusal.enhanced);
	}
	submit_header_fini(&header);
}

static bool is_clean(struct slice block)
{
	for (size_t i = 0; i < block.len; i++)
		if (block.ptr[i] == '\0' || (block.ptr[i] == '\n' && (i == 0 || block.ptr[i - 1] != '\r')) ||
		    (block.ptr[i] == '\r' && (i + 1 == block.len || block.ptr[i + 1] != '\n')))
			return false;
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice content = slice_from(slice_of(data, size), 1);
	struct found whole = {0}, cut = {0};

	if (size < 1)
		return 0;
	find(&whole, content, content.len);
	find(&cut, content, 1 + data[0] % 16);
	BUG_ON(whole.scan.status != cut.scan.status || whole.scan.status == HEADER_MORE);
	if (whole.scan.status == HEADER_COMPLETE) {
		struct slice block = slice_to(buf_slice(&whole.all), whole.block);

		BUG_ON(whole.block != cut.block || whole.scan.end != cut.scan.end);
		BUG_ON(!slice_eq(buf_slice(&whole.all), buf_slice(&cut.all)));
		if (!whole.scan.had_mbox)
			BUG_ON(!slice_eq(buf_slice(&whole.all), content));
		try_fields(block, header_scanner_field_count(&whole.scan));
		/* Bare newlines and NUL have been refused before. */
		if (is_clean(block))
			try_submission(block, data[0]);
	}
	lose(&whole);
	lose(&cut);
	return 0;
}
