/* Replies: what counts as one, where it is cut, what of it people see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "smtp/reply.h"

#include <stdio.h>
#include <stdlib.h>

/* The outcome of the whole stream: the replies as "code|enhanced|text" lines, then "broken: why" or "partial". `step`:
 * octets a call. */
static void describe(struct slice stream, size_t step, char *out, size_t size)
{
	struct smtp_reply_parser parser;
	struct smtp_reply reply;
	const char *why = NULL;
	size_t used = 0;
	int rc = 0;

	out[0] = '\0';
	smtp_reply_parser_init(&parser);
	while (stream.len && rc >= 0) {
		struct slice part = slice_to(stream, step);
		stream = slice_from(stream, part.len);
		while (part.len && (rc = smtp_reply_parse(&parser, &part, &reply, &why)) > 0)
			used += (size_t)snprintf(out + used, size - used, "%d|%s|%s\n", reply.code, reply.enhanced,
						 reply.text);
	}
	if (rc < 0)
		snprintf(out + used, size - used, "broken: %s\n", why);
	else if (smtp_reply_is_partial(&parser))
		snprintf(out + used, size - used, "partial\n");
	smtp_reply_parser_fini(&parser);
}

static void expect_bytes(struct slice stream, const char *expected)
{
	static char got[16384];

	for (size_t step = 1; step <= stream.len; step++) {
		describe(stream, step, got, sizeof(got));
		assert_string_equal(got, expected);
	}
}

static void expect(const char *stream, const char *expected)
{
	expect_bytes(slice_of_str(stream), expected);
}

/* G5 */
static void test_single_lines(void **state)
{
	(void)state;
	expect("250 ok\r\n", "250||ok\n");
	expect("250\r\n", "250||\n");
	expect("250 \r\n", "250||\n");
	expect("571 5.7.1 no\r\n", "571|5.7.1|no\n");
	expect("354 go ahead\r\n250 2.0.0 done\r\n", "354||go ahead\n250|2.0.0|done\n");
}

static void test_multiple_lines_are_joined_and_the_enhanced_code_stands_once(void **state)
{
	(void)state;
	expect("550-5.1.1 The account does not exist. Please try\r\n550-5.1.1 double-checking\r\n550 5.1.1  it.\r\n",
	       "550|5.1.1|The account does not exist. Please try double-checking it.\n");
	expect("250-mx\r\n250-\r\n250-PIPELINING\r\n250\r\n", "250||mx PIPELINING\n");
}

/* G7 */
static void test_a_bare_lf_ends_a_line_and_a_bare_cr_does_not(void **state)
{
	(void)state;
	expect("250-a\n250 b\n", "250||a b\n");
	expect("250 a\rb\r\n", "250||a\\x0Db\n");
	/* One CR belongs to the line end; one more is text, which is trimmed like blanks. */
	expect("250 a\r\r\n", "250||a\n");
	expect("250\r\r\n", "broken: a line does not begin with a reply code\n");
}

static void test_enhanced_codes_count_only_when_their_class_fits(void **state)
{
	(void)state;
	expect("250 5.1.1 ok\r\n", "250||5.1.1 ok\n");
	expect("550 2.0.0 no\r\n", "550||2.0.0 no\n");
	expect("550 5.1 no\r\n", "550||5.1 no\n");
	expect("550 5.1.1000 no\r\n", "550||5.1.1000 no\n");
	expect("550 5.1.1no\r\n", "550||5.1.1no\n");
	expect("451 4.7.500 busy\r\n", "451|4.7.500|busy\n");
	expect("354 3.0.0 go\r\n", "354||3.0.0 go\n");
	expect("550 5.7.1\r\n", "550|5.7.1|\n");
	expect("550 5.234.567 x\r\n", "550|5.234.567|x\n");
}

/* G5, G6 */
static void test_what_is_no_reply_breaks_the_stream(void **state)
{
	static const char *const streams[] = {
	    "\r\n",	 "2\r\n",      "25\r\n",    "250x\r\n", "999 x\r\n", "000 x\r\n", "150 x\r\n",
	    "600 x\r\n", " 250 x\r\n", "hello\r\n", "2 50\r\n", "-1\r\n",    "\n",	  "25 0\r\n",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(streams); i++)
		expect(streams[i], "broken: a line does not begin with a reply code\n");
	expect("250-a\r\n251 b\r\n", "broken: the lines of a reply carry different codes\n");
	expect("250 ok\r\n\r\n", "250||ok\nbroken: a line does not begin with a reply code\n");
}

static void test_a_broken_stream_stays_broken_until_reset(void **state)
{
	struct smtp_reply_parser parser;
	struct smtp_reply reply;
	struct slice bad = SLICE("junk\r\n"), good = SLICE("250 ok\r\n");
	const char *why = NULL;

	(void)state;
	smtp_reply_parser_init(&parser);
	assert_int_equal(smtp_reply_parse(&parser, &bad, &reply, NULL), -1);
	assert_int_equal(smtp_reply_parse(&parser, &good, &reply, &why), -1);
	assert_non_null(why);
	smtp_reply_parser_reset(&parser);
	assert_false(smtp_reply_is_partial(&parser));
	good = SLICE("250 ok\r\n");
	assert_int_equal(smtp_reply_parse(&parser, &good, &reply, NULL), 1);
	smtp_reply_parser_fini(&parser);
}

static void test_a_reply_without_its_last_line_is_partial(void **state)
{
	(void)state;
	expect("250-a\r\n", "partial\n");
	expect("250-a\r\n25", "partial\n");
	expect("2", "partial\n");
}

/* `count` lines of a reply, then `last`. */
static void expect_lines(size_t count, size_t width, const char *last, int rc_expected)
{
	struct smtp_reply_parser parser;
	struct smtp_reply reply;
	char *line = xmalloc(width + 8);
	int rc = 0;

	memset(line, 'x', width + 8);
	memcpy(line, "250-", 4);
	memcpy(line + 4 + width, "\r\n", 3);
	smtp_reply_parser_init(&parser);
	for (size_t i = 0; i < count && rc == 0; i++) {
		struct slice part = slice_of_str(line);
		rc = smtp_reply_parse(&parser, &part, &reply, NULL);
	}
	if (rc == 0) {
		struct slice part = slice_of_str(last);
		rc = smtp_reply_parse(&parser, &part, &reply, NULL);
	}
	assert_int_equal(rc, rc_expected);
	smtp_reply_parser_fini(&parser);
	free(line);
}

/* G3 */
static void test_lines_and_octets_have_ceilings(void **state)
{
	(void)state;
	expect_lines(99, 10, "250 end\r\n", 1);
	expect_lines(100, 10, "250 end\r\n", -1);
	expect_lines(63, 1018, "250 end\r\n", 1);
	expect_lines(64, 1018, "250 end\r\n", -1);
	expect_lines(0, 10, "250 end\r\n", 1);
}

/* G4 */
static void test_an_endless_line_is_cut_off(void **state)
{
	struct smtp_reply_parser parser;
	struct smtp_reply reply;
	char block[1000];
	size_t given = 0;
	int rc = 0;

	(void)state;
	memset(block, 'x', sizeof(block));
	smtp_reply_parser_init(&parser);
	while (rc == 0) {
		struct slice part = slice_of(block, sizeof(block));
		rc = smtp_reply_parse(&parser, &part, &reply, NULL);
		given += sizeof(block);
		assert_true(given < 2 * SMTP_REPLY_BYTES_MAX);
	}
	assert_int_equal(rc, -1);
	assert_true(parser.raw.cap <= 2 * SMTP_REPLY_BYTES_MAX);
	smtp_reply_parser_fini(&parser);
}

static void test_lines_of_an_ehlo_reply_can_be_read(void **state)
{
	struct smtp_reply_parser parser;
	struct smtp_reply reply;
	struct slice stream = SLICE("250-mx.example hello\r\n250-SIZE 10\r\n250\r\nrest");

	(void)state;
	smtp_reply_parser_init(&parser);
	assert_int_equal(smtp_reply_line_count(&parser), 0);
	assert_int_equal(smtp_reply_parse(&parser, &stream, &reply, NULL), 1);
	assert_true(slice_eq(stream, SLICE("rest")));
	assert_int_equal(smtp_reply_line_count(&parser), 3);
	assert_true(slice_eq(smtp_reply_line(&parser, 0), SLICE("mx.example hello")));
	assert_true(slice_eq(smtp_reply_line(&parser, 1), SLICE("SIZE 10")));
	assert_int_equal(smtp_reply_line(&parser, 2).len, 0);
	smtp_reply_parser_fini(&parser);
}

/* G8 */
static void test_text_for_people_is_one_printable_line(void **state)
{
	(void)state;
	expect("550 a\x1b[31mb\x07\x7f c\td\r\n", "550||a\\x1B[31mb\\x07\\x7F c d\n");
	expect("550 gr\xc3\xbc\xc3\x9f\x65 \xe2\x82\xac \xf0\x9f\x98\x80\r\n",
	       "550||gr\xc3\xbc\xc3\x9f\x65 \xe2\x82\xac \xf0\x9f\x98\x80\n");
	/* Broken, overlong, surrogate, beyond the end, C1 control, right-to-left override, line separator, zero width.
	 */
	expect("550 \xff\xc3\r\n", "550||\\xFF\\xC3\n");
	expect("550 \xc0\xaf\xe0\x80\xaf\r\n", "550||\\xC0\\xAF\\xE0\\x80\\xAF\n");
	expect("550 \xed\xa0\x80 \xf4\x90\x80\x80\r\n", "550||\\xED\\xA0\\x80 \\xF4\\x90\\x80\\x80\n");
	expect("550 a\xc2\x9b b\xe2\x80\xae c\xe2\x80\xa8 d\xe2\x80\x8b\r\n",
	       "550||a\\xC2\\x9B b\\xE2\\x80\\xAE c\\xE2\\x80\\xA8 d\\xE2\\x80\\x8B\n");
	expect_bytes(SLICE("550 a\0b\r\n"), "550||a\\x00b\n");
}

static void test_long_text_is_cut_between_characters(void **state)
{
	char stream[2000] = "550 ", got[2000];
	size_t len = 4;

	(void)state;
	for (int i = 0; i < 300; i++, len += 2)
		memcpy(stream + len, "\xc3\xbc", 3);
	memcpy(stream + len, "\r\n", 3);
	describe(slice_of_str(stream), 1, got, sizeof(got));
	assert_int_equal(strlen(got), 5 + 496 + 3 + 1);
	assert_memory_equal(got + 5 + 494, "\xc3\xbc...\n", 6);

	/* 500 fit; one more does not. */
	memset(stream + 4, 'x', 501);
	memcpy(stream + 504, "\r\n", 3);
	describe(slice_of_str(stream), 600, got, sizeof(got));
	assert_int_equal(strlen(got), 5 + 500 + 1);
	assert_null(strstr(got, "..."));
	memcpy(stream + 504, "x\r\n", 4);
	describe(slice_of_str(stream), 600, got, sizeof(got));
	assert_int_equal(strlen(got), 5 + 500 + 1);
	assert_non_null(strstr(got, "xxx...\n"));
}

static void test_many_replies_in_pieces_are_all_counted(void **state)
{
	struct smtp_reply_parser parser;
	struct smtp_reply reply;
	uint64_t replies = 0;

	(void)state;
	smtp_reply_parser_init(&parser);
	for (int i = 0; i < 300000; i++) {
		struct slice part = i % 3 == 0 ? SLICE("25") : i % 3 == 1 ? SLICE("0 o") : SLICE("k\r\n");
		if (smtp_reply_parse(&parser, &part, &reply, NULL) > 0)
			replies++;
	}
	assert_int_equal(replies, 100000);
	smtp_reply_parser_fini(&parser);
}

static void test_local_replies_are_sanitised_too(void **state)
{
	struct smtp_reply reply;

	(void)state;
	smtp_reply_set(&reply, 0, "5.3.4", "a\nb");
	assert_string_equal(reply.text, "a\\x0Ab");
	assert_string_equal(reply.enhanced, "5.3.4");
	assert_int_equal(smtp_reply_class(&reply), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_single_lines),
	    cmocka_unit_test(test_multiple_lines_are_joined_and_the_enhanced_code_stands_once),
	    cmocka_unit_test(test_a_bare_lf_ends_a_line_and_a_bare_cr_does_not),
	    cmocka_unit_test(test_enhanced_codes_count_only_when_their_class_fits),
	    cmocka_unit_test(test_what_is_no_reply_breaks_the_stream),
	    cmocka_unit_test(test_a_broken_stream_stays_broken_until_reset),
	    cmocka_unit_test(test_a_reply_without_its_last_line_is_partial),
	    cmocka_unit_test(test_lines_and_octets_have_ceilings),
	    cmocka_unit_test(test_an_endless_line_is_cut_off),
	    cmocka_unit_test(test_lines_of_an_ehlo_reply_can_be_read),
	    cmocka_unit_test(test_text_for_people_is_one_printable_line),
	    cmocka_unit_test(test_long_text_is_cut_between_characters),
	    cmocka_unit_test(test_many_replies_in_pieces_are_all_counted),
	    cmocka_unit_test(test_local_replies_are_sanitised_too),
	};
	return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
