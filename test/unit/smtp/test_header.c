#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "smtp/header.h"

#include <stdio.h>
#include <stdlib.h>

struct found {
	enum header_status status;
	struct slice block, body; /* in `memory` */
	enum header_end end;
	uint32_t fields;
	struct buf memory;
};

/* Feeds the content in pieces: the first of `cut` octets, the others of `step`. */
static struct found scan(struct slice content, size_t cut, size_t step, size_t max)
{
	struct header_scanner scan;
	struct found found = {0};
	size_t at = 0, taken = 0, block;

	header_scanner_init(&scan, max);
	while (at < content.len) {
		struct slice piece = slice_to(slice_from(content, at), at == 0 && cut ? cut : step);
		if (header_scanner_input(&scan, piece, &taken) != HEADER_MORE) {
			at += taken;
			break;
		}
		assert_int_equal(taken, piece.len);
		at += taken;
	}
	found.status = header_scanner_end(&scan);
	found.end = scan.end;
	found.fields = header_scanner_field_count(&scan);
	buf_init(&found.memory, content.len + 1);
	buf_append(&found.memory, header_scanner_block(&scan));
	block = buf_len(&found.memory);
	buf_append(&found.memory, header_scanner_leftover(&scan));
	buf_append(&found.memory, slice_from(content, at));
	found.block = slice_to(buf_slice(&found.memory), block);
	found.body = slice_from(buf_slice(&found.memory), block);
	header_scanner_fini(&scan);
	return found;
}

static void expect(struct slice content, const char *block, const char *body, enum header_end end, uint32_t fields)
{
	for (size_t cut = 0; cut <= content.len; cut++) {
		for (size_t step = 1; step <= content.len + 1; step += content.len + (content.len == 0)) {
			struct found found = scan(content, cut, step, 100000);
			if (found.status != HEADER_COMPLETE || found.end != end || found.fields != fields ||
			    !slice_eq(found.block, slice_of_str(block)) || !slice_eq(found.body, slice_of_str(body)))
				fail_msg("cut %zu, end %d, %u fields\nblock: %.*s\nbody: %.*s", cut, found.end,
					 found.fields, SLICE_ARG(found.block), SLICE_ARG(found.body));
			buf_fini(&found.memory);
		}
	}
}

static void the_empty_line_ends_it(void **state)
{
	(void)state;
	expect(SLICE("A: b\r\nC: d\r\n\te\r\n\r\nbody\r\n\r\nmore"), "A: b\r\nC: d\r\n\te\r\n", "body\r\n\r\nmore",
	       HEADER_END_EMPTY_LINE, 2);
	expect(SLICE("A:\r\n\r\n"), "A:\r\n", "", HEADER_END_EMPTY_LINE, 1);
	expect(SLICE("A : b\r\nC\t: d\r\n\r\nx"), "A : b\r\nC\t: d\r\n", "x", HEADER_END_EMPTY_LINE, 2);
	/* A line of blanks continues a field (RFC 5322 §4.2). */
	expect(SLICE("A: b\r\n \t\r\nC: d\r\n\r\nx"), "A: b\r\n \t\r\nC: d\r\n", "x", HEADER_END_EMPTY_LINE, 2);
}

/* C16 */
static void without_a_header_nothing_is_lost(void **state)
{
	(void)state;
	expect(SLICE("\r\nA: b\r\n"), "", "A: b\r\n", HEADER_END_EMPTY_LINE, 0);
	expect(SLICE("just text\r\nA: b\r\n"), "", "just text\r\nA: b\r\n", HEADER_END_NO_FIELD, 0);
	expect(SLICE(" A: b\r\n"), "", " A: b\r\n", HEADER_END_NO_FIELD, 0);
	expect(SLICE(": b\r\n"), "", ": b\r\n", HEADER_END_NO_FIELD, 0);
	expect(SLICE("S\xc3\xbc: b\r\n"), "", "S\xc3\xbc: b\r\n", HEADER_END_NO_FIELD, 0);
	expect(SLICE("A: b\r\nhttp example\r\nC: d\r\n"), "A: b\r\n", "http example\r\nC: d\r\n", HEADER_END_NO_FIELD,
	       1);
	expect(SLICE("A: b\r\n\rx\r\n"), "A: b\r\n", "\rx\r\n", HEADER_END_NO_FIELD, 1);
	expect(SLICE("A: b\r\nnot a field"), "A: b\r\n", "not a field", HEADER_END_NO_FIELD, 1);
	expect(SLICE("A: b\r\nnot"), "A: b\r\n", "not", HEADER_END_NO_FIELD, 1);
	expect(SLICE("A: b\r\n\r"), "A: b\r\n", "\r", HEADER_END_NO_FIELD, 1);
}

static void header_only(void **state)
{
	(void)state;
	expect(SLICE(""), "", "", HEADER_END_CONTENT, 0);
	expect(SLICE("A: b\r\n"), "A: b\r\n", "", HEADER_END_CONTENT, 1);
	expect(SLICE("A: b"), "A: b", "", HEADER_END_CONTENT, 1);
	expect(SLICE("A: b\r\nC:"), "A: b\r\nC:", "", HEADER_END_CONTENT, 2);
	expect(SLICE("A: b\r\n c"), "A: b\r\n c", "", HEADER_END_CONTENT, 1);
}

static void an_mbox_line_is_set_aside(void **state)
{
	(void)state;
	expect(SLICE("From joe@example.com Tue Nov 25 06:34:00 2025\r\nA: b\r\n\r\nx"), "A: b\r\n", "x",
	       HEADER_END_EMPTY_LINE, 1);
	expect(SLICE(">From joe  Tue Nov 25 06:34:00 2025\r\nA: b\r\n\r\nx"), "A: b\r\n", "x", HEADER_END_EMPTY_LINE,
	       1);
	/* But not a text that begins with that word, nor one further down. */
	expect(SLICE("From the desk of Tim\r\nA: b\r\n"), "", "From the desk of Tim\r\nA: b\r\n", HEADER_END_NO_FIELD,
	       0);
	expect(SLICE("From \r\n"), "", "From \r\n", HEADER_END_NO_FIELD, 0);
	expect(SLICE("From : a\r\n\r\n"), "From : a\r\n", "", HEADER_END_EMPTY_LINE, 1);
	expect(SLICE("A: b\r\nFrom joe Tue Nov 25 06:34:00 2025\r\n"), "A: b\r\n",
	       "From joe Tue Nov 25 06:34:00 2025\r\n", HEADER_END_NO_FIELD, 1);
	expect(SLICE("From joe Tue Nov 25 06:34:00 2025\r\nFrom joe Tue Nov 25 06:34:00 2025\r\n"), "",
	       "From joe Tue Nov 25 06:34:00 2025\r\n", HEADER_END_NO_FIELD, 0);
}

static void no_verdict_hangs_on_how_reads_were_cut(void **state)
{
	static const struct {
		const char *begin;
		enum header_status status;
	} rows[] = {{"A: ", HEADER_TOO_LONG},
		    {"A: b\r\nx ", HEADER_COMPLETE},
		    {"From joe ", HEADER_TOO_LONG},
		    {"xxxx", HEADER_TOO_LONG}};
	char text[300];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		memset(text, 'x', sizeof(text));
		memcpy(text, rows[i].begin, strlen(rows[i].begin));
		memcpy(text + sizeof(text) - 2, "\r\n", 2);
		for (size_t step = 1; step <= sizeof(text); step++) {
			struct found found = scan(slice_of(text, sizeof(text)), 0, step, 100);
			if (found.status != rows[i].status)
				fail_msg("%s: %d in steps of %zu", rows[i].begin, found.status, step);
			buf_fini(&found.memory);
		}
	}
}

static void the_ceiling_holds(void **state)
{
	struct found found;
	char *text = xmalloc(100000);

	(void)state;
	memset(text, 'x', 100000);
	text[0] = 'A';
	text[1] = ':';
	/* F8: a header line that never ends. */
	found = scan(slice_of(text, 100000), 0, 1000, 50000);
	assert_int_equal(found.status, HEADER_TOO_LONG);
	buf_fini(&found.memory);
	/* A body without a line end is no header line. */
	text[1] = ' ';
	found = scan(slice_of(text, 100000), 0, 1000, 50000);
	assert_int_equal(found.status, HEADER_COMPLETE);
	assert_int_equal(found.body.len, 100000);
	buf_fini(&found.memory);
	text[1] = 'x';
	found = scan(slice_of(text, 100000), 0, 1, 50000);
	assert_int_equal(found.status, HEADER_COMPLETE);
	assert_int_equal(found.body.len, 100000);
	buf_fini(&found.memory);
	free(text);
}

/* However it is cut, a name or an mbox line is too long at the same octet. */
static void long_beginnings(void **state)
{
	char text[1200];
	struct buf content;

	(void)state;
	buf_init(&content, 4000);
	for (int kind = 0; kind < 3; kind++) {
		for (size_t len = 990; len < 1010; len++) {
			struct found whole, cut;

			memset(text, kind == 1 ? ' ' : 'x', sizeof(text));
			text[0] = 'A';
			buf_clear(&content);
			if (kind == 2)
				buf_append_str(&content, "From joe Tue ");
			buf_append(&content, slice_of(text, len - buf_len(&content)));
			buf_append_str(&content, kind == 2 ? "\r\nA: b\r\n\r\n" : ": b\r\n\r\n");
			whole = scan(buf_slice(&content), 0, 4000, 10000);
			cut = scan(buf_slice(&content), 0, 1, 10000);
			assert_true(slice_eq(whole.block, cut.block) && slice_eq(whole.body, cut.body));
			assert_int_equal(whole.fields, len <= (kind == 2 ? 996 : 998));
			buf_fini(&whole.memory);
			buf_fini(&cut.memory);
		}
	}
	buf_fini(&content);
}

/* C22: 50,000 fields, each found, in one pass. */
static void fifty_thousand_fields(void **state)
{
	enum { COUNT = 50000 };
	struct buf text;
	struct found found;
	struct header_field field;
	struct slice rest;
	uint32_t count = 0;

	(void)state;
	buf_init(&text, 2 << 20);
	for (int i = 0; i < COUNT; i++)
		buf_printf(&text, "X-%d: %d\r\n", i, i);
	buf_append_str(&text, "\r\nbody");
	found = scan(buf_slice(&text), 0, 7, 2 << 20);
	assert_int_equal(found.status, HEADER_COMPLETE);
	assert_int_equal(found.fields, COUNT);
	assert_true(slice_eq(found.body, SLICE("body")));
	rest = found.block;
	while (header_next_field(&rest, &field)) {
		char name[20];
		snprintf(name, sizeof(name), "X-%u", count++);
		assert_true(slice_eq(field.name, slice_of_str(name)));
	}
	assert_int_equal(count, COUNT);
	assert_true(header_find_field(found.block, SLICE("x-49999"), &field));
	assert_false(header_find_field(found.block, SLICE("x-50000"), &field));
	buf_fini(&found.memory);
	buf_fini(&text);
}

static void fields_are_cut_out_whole(void **state)
{
	struct slice block = SLICE("Subject:  a\r\n\t b \r\nX-Empty:\r\nOdd \t: c\r\nnone at all\r\nLast: d");
	struct header_field field;

	(void)state;
	assert_true(header_next_field(&block, &field));
	assert_true(slice_eq(field.name, SLICE("Subject")));
	assert_true(slice_eq(field.body, SLICE("  a\r\n\t b ")));
	assert_true(slice_eq(field.raw, SLICE("Subject:  a\r\n\t b \r\n")));
	assert_true(header_next_field(&block, &field));
	assert_int_equal(field.body.len, 0);
	assert_true(header_next_field(&block, &field));
	assert_true(slice_eq(field.name, SLICE("Odd")) && slice_eq(field.body, SLICE(" c")));
	assert_true(header_next_field(&block, &field));
	assert_int_equal(field.name.len, 0);
	assert_true(header_next_field(&block, &field));
	assert_true(slice_eq(field.name, SLICE("Last")) && slice_eq(field.body, SLICE(" d")));
	assert_false(header_next_field(&block, &field));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_empty_line_ends_it),
	    cmocka_unit_test(without_a_header_nothing_is_lost),
	    cmocka_unit_test(header_only),
	    cmocka_unit_test(an_mbox_line_is_set_aside),
	    cmocka_unit_test(no_verdict_hangs_on_how_reads_were_cut),
	    cmocka_unit_test(the_ceiling_holds),
	    cmocka_unit_test(long_beginnings),
	    cmocka_unit_test(fifty_thousand_fields),
	    cmocka_unit_test(fields_are_cut_out_whole),
	};
	return cmocka_run_group_tests_name("smtp header", tests, NULL, NULL);
}
