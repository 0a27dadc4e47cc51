/* A stream of replies; the first octet says how it is cut. The cut must not matter, and what people see must be one
 * printable line. */
#include "base/base.h"
#include "smtp/client_capabilities.h"
#include "smtp/reply.h"
#include "smtp/syntax.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { REPLIES_MAX = 64 };

struct outcome_of_stream {
	size_t count;
	int rc;
	bool is_partial;
	const char *why;
	struct smtp_reply replies[REPLIES_MAX];
};

static void check_text(const struct smtp_reply *reply)
{
	BUG_ON(reply->code < 200 || reply->code > 599);
	BUG_ON(strlen(reply->text) > SMTP_REPLY_TEXT_MAX);
	BUG_ON(reply->enhanced[0] && reply->enhanced[0] != '0' + reply->code / 100);
	BUG_ON(!smtp_is_utf8(slice_of_str(reply->text)));
	for (const char *at = reply->text; *at; at++)
		BUG_ON((unsigned char)*at < ' ' || *at == 0x7f);
}

static void touch_lines(const struct smtp_reply_parser *parser)
{
	struct smtp_client_capabilities capabilities;
	volatile char last = 0;

	BUG_ON(smtp_reply_line_count(parser) == 0 || smtp_reply_line_count(parser) > SMTP_REPLY_LINES_MAX);
	for (size_t i = 0; i < smtp_reply_line_count(parser); i++) {
		struct slice line = smtp_reply_line(parser, i);
		for (size_t k = 0; k < line.len; k++)
			last = line.ptr[k];
	}
	(void)last;
	smtp_client_capabilities_parse(&capabilities, parser);
}

static void parse(struct outcome_of_stream *out, struct slice stream, size_t step)
{
	struct smtp_reply_parser parser;
	struct smtp_reply reply;

	memset(out, 0, sizeof(*out));
	smtp_reply_parser_init(&parser);
	while (stream.len && out->rc >= 0) {
		struct slice part = slice_to(stream, step);

		stream = slice_from(stream, part.len);
		while ((out->rc = smtp_reply_parse(&parser, &part, &reply, &out->why)) > 0) {
			check_text(&reply);
			touch_lines(&parser);
			if (out->count < REPLIES_MAX)
				out->replies[out->count] = reply;
			out->count++;
		}
		BUG_ON(out->rc == 0 && part.len != 0);
	}
	out->is_partial = smtp_reply_is_partial(&parser);
	BUG_ON(parser.raw.cap > 2 * SMTP_REPLY_BYTES_MAX);
	smtp_reply_parser_fini(&parser);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct outcome_of_stream whole, pieces;
	struct slice stream = slice_from(slice_of(data, size), 1);

	if (size < 1)
		return 0;
	parse(&whole, stream, stream.len + 1);
	parse(&pieces, stream, 1 + data[0] % 32);
	BUG_ON(whole.count != pieces.count || whole.rc != pieces.rc || whole.why != pieces.why);
	BUG_ON(whole.is_partial != pieces.is_partial);
	for (size_t i = 0; i < MIN(whole.count, (size_t)REPLIES_MAX); i++)
		BUG_ON(whole.replies[i].code != pieces.replies[i].code ||
		       strcmp(whole.replies[i].text, pieces.replies[i].text) != 0 ||
		       strcmp(whole.replies[i].enhanced, pieces.replies[i].enhanced) != 0);
	return 0;
}
