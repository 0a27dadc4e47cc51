#include "smtp/content.h"

#include "base/base.h"

enum { LINE_MAX_BYTES = 998 }; /* RFC 5322 §2.1.1, without CRLF */

void content_init(struct content *content, enum content_bare_newlines bare_newlines)
{
	*content = (struct content){.bare_newlines = bare_newlines};
}

/* Eight octets at a time: this and memchr() are all that touches ordinary mail. */
static unsigned octets_in(struct slice text)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
	uint64_t high = 0, zero = 0, word;
	size_t i = 0;

	for (; i + 8 <= text.len; i += 8) {
		memcpy(&word, text.ptr + i, 8);
		high |= word;
		zero |= (word - ones) & ~word;
	}
	for (; i < text.len; i++) {
		unsigned char c = (unsigned char)text.ptr[i];
		high |= c;
		zero |= c == 0 ? tops : 0;
	}
	return (high & tops ? CONTENT_8BIT : 0) | (zero & tops ? CONTENT_NUL : 0);
}

static enum content_status give(struct content *c, struct slice text, size_t *taken, size_t until, struct slice *piece)
{
	*taken = until;
	*piece = text;
	c->bytes += text.len;
	return CONTENT_PIECE;
}

static void count_line(struct content *c, size_t len)
{
	c->line_bytes += len;
	if (c->line_bytes > LINE_MAX_BYTES)
		c->flags |= CONTENT_LONG_LINE;
}

static void end_line(struct content *c)
{
	c->line_bytes = 0;
	c->mid_line = c->after_bare = false;
}

/* How many octets at the front of a line are the client's and not the message's; -1: it is the end of the data; -2:
 * more is needed to know. */
static int stuffing_of(const struct content *c, struct slice in)
{
	if (c->mid_line || in.ptr[0] != '.')
		return 0;
	if (in.len < 2)
		return -2;
	if (c->after_bare)
		return in.ptr[1] == '.';
	if (in.ptr[1] != '\r')
		return 1;
	if (in.len < 3)
		return -2;
	return in.ptr[2] == '\n' ? -1 : 1;
}

/* Where the run that begins at `start` has to end: behind a line whose follower begins with a dot, before what
 * NORMALIZE must change, before a CR at the very end. A bare newline that is to be refused is only noted. */
static size_t run_end(struct content *c, struct slice in, size_t start)
{
	bool normalize = c->bare_newlines == CONTENT_BARE_NORMALIZE;
	size_t at = start;

	while (at < in.len) {
		struct slice rest = slice_from(in, at);
		ptrdiff_t lf = slice_find(rest, '\n');
		size_t end = lf < 0 ? in.len : at + (size_t)lf;
		bool has_cr = end > at && in.ptr[end - 1] == '\r';
		size_t text = end - at - has_cr;
		ptrdiff_t cr = slice_find(slice_to(rest, text), '\r');

		if (cr >= 0) {
			c->flags |= CONTENT_BARE_NEWLINE;
			if (normalize) {
				count_line(c, (size_t)cr);
				c->mid_line |= cr > 0;
				return at + (size_t)cr;
			}
		}
		count_line(c, text);
		c->mid_line |= text > 0;
		if (lf < 0)
			return at + text;
		if (has_cr) {
			end_line(c);
		} else {
			c->flags |= CONTENT_BARE_NEWLINE;
			c->mid_line = true;
			if (normalize)
				return end;
		}
		at = end + 1;
		if (!c->mid_line && at < in.len && in.ptr[at] == '.')
			break;
	}
	return at;
}

/* NORMALIZE, and a bare newline stands at the front. */
static enum content_status mend(struct content *c, struct slice in, size_t *taken, struct slice *piece)
{
	if (in.ptr[0] == '\n') {
		end_line(c);
		c->after_bare = true;
		return give(c, SLICE("\r\n"), taken, 1, piece);
	}
	if (in.ptr[1] == '\r') {
		*taken = 1;
		return CONTENT_MORE;
	}
	c->mid_line = true;
	count_line(c, 1);
	return give(c, SLICE(" "), taken, 1, piece);
}

static enum content_status next(struct content *c, struct slice in, size_t *taken, struct slice *piece)
{
	enum content_status status;
	int stuffed;
	size_t end;

	*taken = 0;
	if (in.len == 0)
		return CONTENT_MORE;
	stuffed = stuffing_of(c, in);
	if (stuffed == -1) {
		*taken = 3;
		return CONTENT_END;
	}
	if (stuffed < 0)
		return CONTENT_MORE;
	if (stuffed > 0)
		c->mid_line = true;
	end = run_end(c, in, (size_t)stuffed);
	if (end > (size_t)stuffed)
		return give(c, slice_to(slice_from(in, (size_t)stuffed), end - (size_t)stuffed), taken, end, piece);
	*taken = (size_t)stuffed;
	in = slice_from(in, (size_t)stuffed);
	if (in.len == 0 || c->bare_newlines == CONTENT_BARE_REJECT || (in.ptr[0] == '\r' && in.len == 1))
		return CONTENT_MORE;
	c->flags |= CONTENT_BARE_NEWLINE;
	status = mend(c, in, taken, piece);
	*taken += (size_t)stuffed;
	return status;
}

enum content_status content_next(struct content *content, struct slice in, size_t *taken, struct slice *piece)
{
	size_t total = 0, one;
	enum content_status status;

	do {
		status = next(content, slice_from(in, total), &one, piece);
		total += one;
	} while (status == CONTENT_MORE && one > 0);
	*taken = total;
	if (status == CONTENT_PIECE)
		content->flags |= octets_in(*piece);
	return status;
}
