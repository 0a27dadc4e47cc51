/*
 * The body goes through two gears. Slow: one octet at a time, holding back line ends and blanks until it is known what
 * follows. Fast, whenever nothing is held back: blocks of 16 octets in which the canonical form equals the input are
 * passed on in place. Ordinary text is nearly all of that kind, and the check costs a few vector instructions a block.
 */
#include "dkim/canon.h"

#include "base/err.h"

enum { BLOCK = 16, STAGE_BYTES = 1024 };

/* GCC and clang turn this into the machine's vectors, or into plain code where there are none. */
typedef unsigned char octets __attribute__((vector_size(BLOCK)));

/* Gathers short runs, so that the sink is not called for each word. */
struct stage {
	dkim_canon_sink *sink;
	void *ctx;
	size_t used;
	char bytes[STAGE_BYTES];
};

const char *dkim_canon_name(enum dkim_canon canon)
{
	return canon == DKIM_CANON_SIMPLE ? "simple" : "relaxed";
}

static void stage_flush(struct stage *stage)
{
	if (stage->used)
		stage->sink(stage->ctx, slice_of(stage->bytes, stage->used));
	stage->used = 0;
}

static void stage_append(struct stage *stage, const char *ptr, size_t len)
{
	if (len > STAGE_BYTES - stage->used)
		stage_flush(stage);
	if (len > STAGE_BYTES / 2) {
		stage_flush(stage);
		stage->sink(stage->ctx, slice_of(ptr, len));
		return;
	}
	memcpy(stage->bytes + stage->used, ptr, len);
	stage->used += len;
}

static inline void stage_octet(struct stage *stage, char octet)
{
	if (stage->used == STAGE_BYTES)
		stage_flush(stage);
	stage->bytes[stage->used++] = octet;
}

void dkim_body_canon_init(struct dkim_body_canon *body, enum dkim_canon canon)
{
	*body = (struct dkim_body_canon){.canon = canon};
}

static bool holds_nothing(const struct dkim_body_canon *body)
{
	return body->pending_crlf_count == 0 && !body->pending_wsp && !body->pending_cr;
}

/* A content octet has come: what was held back before it counts. */
static void emit(struct dkim_body_canon *body, struct stage *stage, char octet)
{
	for (; body->pending_crlf_count > 0; body->pending_crlf_count--) {
		stage_octet(stage, '\r');
		stage_octet(stage, '\n');
	}
	if (body->pending_wsp)
		stage_octet(stage, ' ');
	body->pending_wsp = false;
	body->has_content = true;
	stage_octet(stage, octet);
}

static void step(struct dkim_body_canon *body, struct stage *stage, char octet)
{
	if (body->pending_cr) {
		body->pending_cr = false;
		if (octet == '\n') {
			body->pending_wsp = false;
			body->pending_crlf_count++;
			return;
		}
		emit(body, stage, '\r');
	}
	if (octet == '\r')
		body->pending_cr = true;
	else if ((octet == ' ' || octet == '\t') && body->canon == DKIM_CANON_RELAXED)
		body->pending_wsp = true;
	else
		emit(body, stage, octet);
}

/* Index of the first octet that is not zero; BLOCK: none. */
static size_t first_set(octets set)
{
	uint64_t words[2];

	memcpy(words, &set, sizeof(words));
	if ((words[0] | words[1]) == 0)
		return BLOCK;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (size_t)(words[0] ? __builtin_ctzll(words[0]) : 64 + __builtin_ctzll(words[1])) / 8;
#else
	return (size_t)(words[0] ? __builtin_clzll(words[0]) : 64 + __builtin_clzll(words[1])) / 8;
#endif
}

/* How many of 16 octets go out as they are, given the one after them: up to a TAB, a blank before a blank or a CR, an
 * empty line. (Simple would let more pass; it is not what the speed is for.) */
static size_t clean_octets(const char *at)
{
	octets a, b;

	memcpy(&a, at, sizeof(a));
	memcpy(&b, at + 1, sizeof(b));
	return first_set((octets)(a == '\t') | ((octets)(a == ' ') & (octets)((b == ' ') | (b == '\t') | (b == '\r'))) |
			 ((octets)(a == '\n') & (octets)(b == '\r')));
}

/* How many octets from `at` can go out in place. A line end in the end is held back: it may turn out to be a trailing
 * one. Always fewer than `left`. */
static size_t clean_length(const char *at, size_t left)
{
	size_t len = 0, clean = BLOCK;

	while (clean == BLOCK && left - len > BLOCK) {
		clean = clean_octets(at + len);
		len += clean;
	}
	if (len > 0 && at[len - 1] == '\r')
		return len - 1;
	if (len > 1 && at[len - 1] == '\n' && at[len - 2] == '\r')
		return len - 2;
	return len;
}

void dkim_body_canon_update(struct dkim_body_canon *body, struct slice piece, dkim_canon_sink *sink, void *ctx)
{
	struct stage stage;
	size_t at = 0;

	stage.sink = sink;
	stage.ctx = ctx;
	stage.used = 0;
	while (at < piece.len) {
		size_t len = holds_nothing(body) ? clean_length(piece.ptr + at, piece.len - at) : 0;
		if (len > 0) {
			stage_append(&stage, piece.ptr + at, len);
			body->has_content = true;
			at += len;
		}
		do
			step(body, &stage, piece.ptr[at++]);
		while (at < piece.len && !holds_nothing(body));
	}
	stage_flush(&stage);
}

void dkim_body_canon_final(struct dkim_body_canon *body, dkim_canon_sink *sink, void *ctx)
{
	struct stage stage;

	stage.sink = sink;
	stage.ctx = ctx;
	stage.used = 0;
	if (body->pending_cr)
		emit(body, &stage, '\r');
	if (body->has_content || body->canon == DKIM_CANON_SIMPLE)
		stage_append(&stage, "\r\n", 2);
	stage_flush(&stage);
	dkim_body_canon_init(body, body->canon);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static size_t relax_name(char *out, struct slice name)
{
	while (name.len > 0 && is_blank(name.ptr[name.len - 1]))
		name.len--;
	for (size_t i = 0; i < name.len; i++)
		out[i] = name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] | 0x20) : name.ptr[i];
	return name.len;
}

static size_t relax_value(char *out, struct slice value)
{
	size_t used = 0;
	bool blank = false;

	for (size_t i = 0; i < value.len; i++) {
		char c = value.ptr[i];
		if (c == '\r' && i + 1 < value.len && value.ptr[i + 1] == '\n') {
			i++;
			continue;
		}
		if (is_blank(c)) {
			blank = used > 0;
			continue;
		}
		if (blank)
			out[used++] = ' ';
		blank = false;
		out[used++] = c;
	}
	return used;
}

static int canon_field_simple(struct buf *out, struct slice raw)
{
	int rc = buf_append(out, raw);

	if (rc == 0 && (raw.len < 2 || memcmp(raw.ptr + raw.len - 2, "\r\n", 2) != 0))
		rc = buf_append(out, SLICE("\r\n"));
	return rc;
}

int dkim_canon_field(struct buf *out, enum dkim_canon canon, struct slice raw)
{
	ptrdiff_t colon = slice_find(raw, ':');
	char *at;
	size_t used;

	if (colon < 0)
		return ERR_SYNTAX;
	if (canon == DKIM_CANON_SIMPLE)
		return canon_field_simple(out, raw);
	at = buf_reserve(out, raw.len + 2);
	if (!at)
		return ERR_LIMIT;
	used = relax_name(at, slice_to(raw, (size_t)colon));
	at[used++] = ':';
	used += relax_value(at + used, slice_from(raw, (size_t)colon + 1));
	at[used++] = '\r';
	at[used++] = '\n';
	buf_commit(out, used);
	return 0;
}
