#include "smtp/reply.h"

#include "base/base.h"
#include "base/utf8.h"

#include <stdio.h>

enum { RAW_KEEP_BYTES = 8 * 1024 }; /* a parser keeps no more memory than this for the next reply */

void smtp_reply_parser_init(struct smtp_reply_parser *parser)
{
	*parser = (struct smtp_reply_parser){.is_done = true};
	buf_init(&parser->raw, SMTP_REPLY_BYTES_MAX);
}

void smtp_reply_parser_fini(struct smtp_reply_parser *parser)
{
	buf_fini(&parser->raw);
}

void smtp_reply_parser_reset(struct smtp_reply_parser *parser)
{
	buf_clear(&parser->raw);
	parser->is_done = true;
	parser->broken = NULL;
}

bool smtp_reply_is_partial(const struct smtp_reply_parser *parser)
{
	return !parser->is_done;
}

static void begin(struct smtp_reply_parser *parser)
{
	if (parser->raw.cap > RAW_KEEP_BYTES)
		buf_reset(&parser->raw);
	else
		buf_clear(&parser->raw);
	parser->line_count = parser->bytes = 0;
	parser->is_done = false;
}

static uint32_t line_start(const struct smtp_reply_parser *parser, size_t index)
{
	return index ? parser->line_ends[index - 1] : 0;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* 0: no code that can stand in a reply. */
static int parse_code(struct slice line)
{
	if (line.len < 3 || line.ptr[0] < '2' || line.ptr[0] > '5' || !is_digit(line.ptr[1]) || !is_digit(line.ptr[2]))
		return 0;
	return (line.ptr[0] - '0') * 100 + (line.ptr[1] - '0') * 10 + (line.ptr[2] - '0');
}

/* A whole line stands at the end of raw. 1: it was the last one; 0: more follow; -1: broken. */
static int take_line(struct smtp_reply_parser *parser)
{
	uint32_t start = line_start(parser, parser->line_count);
	struct slice line = slice_from(buf_slice(&parser->raw), start);
	int code;

	if (line.len && line.ptr[line.len - 1] == '\r') {
		line.len--;
		buf_truncate(&parser->raw, start + line.len);
	}
	code = parse_code(line);
	if (code == 0 || (line.len > 3 && line.ptr[3] != ' ' && line.ptr[3] != '-')) {
		parser->broken = "a line does not begin with a reply code";
		return -1;
	}
	if (parser->line_count && code != parser->code) {
		parser->broken = "the lines of a reply carry different codes";
		return -1;
	}
	parser->code = code;
	parser->line_ends[parser->line_count++] = start + (uint32_t)line.len;
	if (line.len == 3 || line.ptr[3] == ' ')
		return 1;
	if (parser->line_count == SMTP_REPLY_LINES_MAX) {
		parser->broken = "a reply has too many lines";
		return -1;
	}
	return 0;
}

/* The length of an enhanced code of this class at the start of `text` (RFC 2034 §4), 0: there is none. */
static size_t enhanced_length(struct slice text, int class)
{
	size_t at = 1;

	if (class == 3 || text.len < 5 || text.ptr[0] != '0' + class)
		return 0;
	for (int part = 0; part < 2; part++) {
		size_t digits = 0;

		if (at >= text.len || text.ptr[at] != '.')
			return 0;
		for (at++; at < text.len && is_digit(text.ptr[at]); at++)
			digits++;
		if (digits < 1 || digits > 3)
			return 0;
	}
	return at == text.len || text.ptr[at] == ' ' ? at : 0;
}

static void fill(const struct smtp_reply_parser *parser, struct smtp_reply *reply)
{
	struct slice enhanced = {0};

	reply->code = parser->code;
	reply->enhanced[0] = reply->text[0] = '\0';
	for (size_t i = 0; i < parser->line_count; i++) {
		struct slice text = slice_trim(smtp_reply_line(parser, i));

		if (i == 0) {
			enhanced = slice_to(text, enhanced_length(text, parser->code / 100));
			slice_to_cstr(enhanced, reply->enhanced, sizeof(reply->enhanced));
		}
		/* RFC 2034 §4: it stands on each line. */
		if (enhanced.len && enhanced_length(text, parser->code / 100) == enhanced.len &&
		    slice_has_prefix(text, enhanced))
			text = slice_trim(slice_from(text, enhanced.len));
		if (text.len == 0)
			continue;
		if (reply->text[0] && !smtp_reply_append_text(reply->text, sizeof(reply->text), SLICE(" ")))
			break;
		if (!smtp_reply_append_text(reply->text, sizeof(reply->text), text))
			break;
	}
}

/* Up to and without the LF. False: over the ceiling. */
static bool take_bytes(struct smtp_reply_parser *parser, struct slice bytes, size_t eaten)
{
	parser->bytes += (uint32_t)eaten;
	return buf_append(&parser->raw, bytes) == 0 && parser->bytes <= SMTP_REPLY_BYTES_MAX;
}

int smtp_reply_parse(struct smtp_reply_parser *parser, struct slice *input, struct smtp_reply *reply, const char **why)
{
	int rc = parser->broken ? -1 : 0;

	while (rc == 0 && input->len) {
		ptrdiff_t lf;
		struct slice part;

		if (parser->is_done)
			begin(parser);
		/* Bounded, so that the count of bytes cannot overflow and no search goes on in vain. */
		part = slice_to(*input, SMTP_REPLY_BYTES_MAX + 1);
		lf = slice_find(part, '\n');
		if (lf >= 0)
			part.len = (size_t)lf;
		*input = slice_from(*input, part.len + (lf >= 0));
		if (!take_bytes(parser, part, part.len + (lf >= 0))) {
			parser->broken = "a reply is too long";
			rc = -1;
		} else if (lf >= 0) {
			rc = take_line(parser);
		}
	}
	if (rc == 1) {
		parser->is_done = true;
		fill(parser, reply);
	} else if (rc < 0 && why) {
		*why = parser->broken;
	}
	return rc;
}

size_t smtp_reply_line_count(const struct smtp_reply_parser *parser)
{
	return parser->is_done && buf_len(&parser->raw) ? parser->line_count : 0;
}

struct slice smtp_reply_line(const struct smtp_reply_parser *parser, size_t index)
{
	uint32_t start = line_start(parser, index);

	/* Behind the code and its separator, which a lone code lacks. */
	return slice_from(slice_to(buf_slice(&parser->raw), parser->line_ends[index]), start + 4);
}

static void cut(char *out, size_t size, size_t used)
{
	size_t at = MIN(used, size - 4);

	while (at < used && at > 0 && ((unsigned char)out[at] & 0xc0) == 0x80)
		at--;
	memcpy(out + at, "...", 4);
}

bool smtp_reply_append_text(char *out, size_t size, struct slice bytes)
{
	size_t used = strlen(out);

	BUG_ON(size < 8);
	while (bytes.len) {
		size_t len = utf8_visible(bytes), room = size - 1 - used;

		if (bytes.ptr[0] == '\t') {
			len = 1;
			if (room)
				out[used] = ' ';
		} else if (len && len <= room) {
			memcpy(out + used, bytes.ptr, len);
		} else if (len == 0 && room >= 4) {
			snprintf(out + used, size - used, "\\x%02X", (unsigned char)bytes.ptr[0]);
		}
		if ((len ? len : 4) > room) {
			cut(out, size, used);
			return false;
		}
		used += len ? len : 4;
		bytes = slice_from(bytes, len ? len : 1);
	}
	out[used] = '\0';
	return true;
}

void smtp_reply_set(struct smtp_reply *reply, int code, const char *enhanced, const char *text)
{
	reply->code = code;
	snprintf(reply->enhanced, sizeof(reply->enhanced), "%s", enhanced);
	reply->text[0] = '\0';
	smtp_reply_append_text(reply->text, sizeof(reply->text), slice_of_str(text));
}
