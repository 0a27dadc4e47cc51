#include "smtp/header.h"

void header_scanner_init(struct header_scanner *scan, size_t max_bytes)
{
	*scan = (struct header_scanner){.status = HEADER_MORE};
	buf_init(&scan->block, max_bytes);
}

void header_scanner_fini(struct header_scanner *scan)
{
	buf_fini(&scan->block);
}

static bool is_name_octet(char c)
{
	return c > ' ' && c < 0x7f && c != ':';
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* ---- Judging one line ------------------------------------------------------------------------------------------- */

enum verdict { UNDECIDED, FIELD, CONTINUATION, EMPTY, MBOX, NO_FIELD };

/* "From joe@example.com Tue Nov 25 06:34:00 2025" */
static enum verdict judge_mbox(struct slice line)
{
	static const char days[] = "MonTueWedThuFriSatSun";
	ptrdiff_t blank;

	if (line.len > HEADER_NAME_MAX_BYTES)
		return NO_FIELD;
	if (line.ptr[line.len - 1] != '\n')
		return UNDECIDED;
	line = slice_from(line, SLICE("From ").len + (line.ptr[0] == '>'));
	blank = slice_find(line, ' ');
	if (blank <= 0)
		return NO_FIELD;
	line = slice_from(line, (size_t)blank);
	while (line.len && line.ptr[0] == ' ')
		line = slice_from(line, 1);
	for (size_t i = 0; line.len > 3 && line.ptr[3] == ' ' && days[i]; i += 3)
		if (memcmp(line.ptr, days + i, 3) == 0)
			return MBOX;
	return NO_FIELD;
}

static bool may_be_mbox(const struct header_scanner *scan, struct slice line)
{
	return scan->line == 0 && !scan->had_mbox &&
	       (slice_has_prefix(line, SLICE("From ")) || slice_has_prefix(line, SLICE(">From ")));
}

/* The name has been looked at up to scan->examined, which is moved on. */
static enum verdict judge_name(struct header_scanner *scan, struct slice line)
{
	size_t at = scan->examined - scan->line;

	while (at < line.len && is_name_octet(line.ptr[at]))
		at++;
	scan->examined = scan->line + at;
	if (at > HEADER_NAME_MAX_BYTES)
		return NO_FIELD;
	if (at == line.len)
		return UNDECIDED;
	if (at == 0)
		return NO_FIELD;
	while (at < line.len && is_blank(line.ptr[at]))
		at++;
	if (at > HEADER_NAME_MAX_BYTES)
		return NO_FIELD;
	if (at == line.len)
		return UNDECIDED;
	if (line.ptr[at] == ':')
		return FIELD;
	return may_be_mbox(scan, line) ? judge_mbox(line) : NO_FIELD;
}

static enum verdict judge(struct header_scanner *scan)
{
	struct slice line = slice_from(buf_slice(&scan->block), scan->line);

	if (is_blank(line.ptr[0]))
		return scan->field_count ? CONTINUATION : NO_FIELD;
	if (line.ptr[0] == '\r') {
		if (line.len == 1)
			return UNDECIDED;
		return line.ptr[1] == '\n' ? EMPTY : NO_FIELD;
	}
	return judge_name(scan, line);
}

static enum header_status complete(struct header_scanner *scan, enum header_end end)
{
	scan->end = end;
	scan->status = HEADER_COMPLETE;
	return scan->status;
}

/* Octets of the current line have come; `is_whole`: up to its LF. */
static enum header_status on_line(struct header_scanner *scan, bool is_whole)
{
	enum verdict verdict = scan->is_judged ? CONTINUATION : judge(scan);

	switch (verdict) {
	case UNDECIDED: return HEADER_MORE;
	case NO_FIELD: return complete(scan, HEADER_END_NO_FIELD);
	case EMPTY: buf_truncate(&scan->block, scan->line); return complete(scan, HEADER_END_EMPTY_LINE);
	case MBOX:
		buf_clear(&scan->block);
		scan->had_mbox = true;
		break;
	case FIELD: scan->field_count++; break;
	case CONTINUATION: break;
	}
	scan->is_judged = !is_whole;
	if (is_whole)
		scan->line = scan->examined = buf_len(&scan->block);
	return HEADER_MORE;
}

/* ---- The scanner ------------------------------------------------------------------------------------------------ */

enum header_status header_scanner_input(struct header_scanner *scan, struct slice content, size_t *taken)
{
	*taken = 0;
	while (scan->status == HEADER_MORE && *taken < content.len) {
		/* What fits is judged before the rest is found too long: the verdict must not hang on how reads were cut. */
		struct slice rest = slice_to(slice_from(content, *taken), buf_room(&scan->block));
		ptrdiff_t lf = slice_find(rest, '\n');
		struct slice part = slice_to(rest, lf < 0 ? rest.len : (size_t)lf + 1);

		if (part.len == 0 || buf_append(&scan->block, part) < 0) {
			scan->status = HEADER_TOO_LONG;
			break;
		}
		*taken += part.len;
		on_line(scan, lf >= 0);
	}
	return scan->status;
}

enum header_status header_scanner_end(struct header_scanner *scan)
{
	if (scan->status != HEADER_MORE)
		return scan->status;
	if (scan->line == buf_len(&scan->block) || scan->is_judged) {
		scan->line = buf_len(&scan->block);
		return complete(scan, HEADER_END_CONTENT);
	}
	return complete(scan, HEADER_END_NO_FIELD);
}

struct slice header_scanner_block(const struct header_scanner *scan)
{
	return slice_to(buf_slice(&scan->block), scan->line);
}

struct slice header_scanner_leftover(const struct header_scanner *scan)
{
	return slice_from(buf_slice(&scan->block), scan->line);
}

uint32_t header_scanner_field_count(const struct header_scanner *scan)
{
	return scan->field_count;
}

/* ---- The fields ------------------------------------------------------------------------------------------------- */

static size_t field_length(struct slice block)
{
	size_t at = 0;

	for (;;) {
		ptrdiff_t lf = slice_find(slice_from(block, at), '\n');
		if (lf < 0)
			return block.len;
		at += (size_t)lf + 1;
		if (at == block.len || !is_blank(block.ptr[at]))
			return at;
	}
}

bool header_next_field(struct slice *block, struct header_field *out)
{
	size_t name = 0, colon;

	if (block->len == 0)
		return false;
	*out = (struct header_field){.raw = slice_to(*block, field_length(*block))};
	*block = slice_from(*block, out->raw.len);
	while (name < out->raw.len && is_name_octet(out->raw.ptr[name]))
		name++;
	colon = name;
	while (colon < out->raw.len && is_blank(out->raw.ptr[colon]))
		colon++;
	if (name == 0 || colon == out->raw.len || out->raw.ptr[colon] != ':') {
		out->body = out->raw;
		return true;
	}
	out->name = slice_to(out->raw, name);
	out->body = slice_from(out->raw, colon + 1);
	if (out->body.len && out->body.ptr[out->body.len - 1] == '\n')
		out->body.len--;
	if (out->body.len && out->body.ptr[out->body.len - 1] == '\r')
		out->body.len--;
	return true;
}

bool header_find_field(struct slice block, struct slice name, struct header_field *out)
{
	while (header_next_field(&block, out))
		if (slice_case_eq(out->name, name))
			return true;
	return false;
}
