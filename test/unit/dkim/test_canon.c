#include "support_dkim.h"

#include "base/err.h"
#include "base/random.h"
#include "dkim/canon.h"

#include <stdio.h>
#include <stdlib.h>

static void run_pieces(struct buf *out, enum dkim_canon canon, struct slice body, size_t piece)
{
	struct dkim_body_canon state;

	dkim_body_canon_init(&state, canon);
	for (size_t at = 0; at < body.len; at += piece)
		dkim_body_canon_update(&state, slice_to(slice_from(body, at), piece), collect, out);
	dkim_body_canon_final(&state, collect, out);
}

static void run_cut(struct buf *out, enum dkim_canon canon, struct slice body, size_t cut)
{
	struct dkim_body_canon state;

	dkim_body_canon_init(&state, canon);
	dkim_body_canon_update(&state, slice_to(body, cut), collect, out);
	dkim_body_canon_update(&state, slice_from(body, cut), collect, out);
	dkim_body_canon_final(&state, collect, out);
}

static void assert_same(const struct buf *got, const struct buf *wanted, struct slice body, const char *how, size_t at)
{
	if (slice_eq(buf_slice(got), buf_slice(wanted)))
		return;
	fprintf(stderr, "%s %zu of", how, at);
	for (size_t i = 0; i < body.len && i < 200; i++)
		fprintf(stderr, " %02x", (unsigned char)body.ptr[i]);
	fprintf(stderr, "\n");
	fail();
}

/* Whole, byte by byte, and cut everywhere: all as the plain implementation has it. */
static void check_body(struct slice body, enum dkim_canon canon, bool cut_everywhere)
{
	struct buf wanted, got;

	buf_init(&wanted, body.len + 2);
	buf_init(&got, body.len + 2); /* nor ever more than this */
	plain_body(&wanted, body, canon == DKIM_CANON_RELAXED);
	run_pieces(&got, canon, body, body.len + 1);
	assert_same(&got, &wanted, body, "whole", 0);
	buf_clear(&got);
	run_pieces(&got, canon, body, 1);
	assert_same(&got, &wanted, body, "byte by byte", 0);
	for (size_t cut = 0; cut_everywhere && cut <= body.len; cut++) {
		buf_clear(&got);
		run_cut(&got, canon, body, cut);
		assert_same(&got, &wanted, body, "cut at", cut);
	}
	buf_fini(&got);
	buf_fini(&wanted);
}

static void assert_body(enum dkim_canon canon, const char *body, const char *wanted)
{
	struct buf got;

	buf_init(&got, 1000);
	run_pieces(&got, canon, slice_of_str(body), 1000);
	assert_int_equal(buf_len(&got), strlen(wanted));
	assert_memory_equal(got.data ? got.data : "", wanted, strlen(wanted));
	buf_fini(&got);
	check_body(slice_of_str(body), canon, true);
}

static void relaxed_body_as_in_the_rfc(void **state)
{
	(void)state;
	assert_body(DKIM_CANON_RELAXED, " C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n"); /* RFC 6376 section 3.4.6 */
	assert_body(DKIM_CANON_RELAXED, "", "");
	assert_body(DKIM_CANON_RELAXED, "\r\n", "");
	assert_body(DKIM_CANON_RELAXED, "\r\n\r\n\r\n", "");
	assert_body(DKIM_CANON_RELAXED, " \t \r\n\t\r\n", "");
	assert_body(DKIM_CANON_RELAXED, "a", "a\r\n");
	assert_body(DKIM_CANON_RELAXED, "a\r\n", "a\r\n");
	assert_body(DKIM_CANON_RELAXED, "a\r\n \r\n\t\r\n", "a\r\n");
	assert_body(DKIM_CANON_RELAXED, "\r\n\r\na", "\r\n\r\na\r\n");
	assert_body(DKIM_CANON_RELAXED, "a\r\n \t\r\nb", "a\r\n\r\nb\r\n");
	assert_body(DKIM_CANON_RELAXED, "a \t", "a\r\n");
	assert_body(DKIM_CANON_RELAXED, "  a", " a\r\n");
}

static void lone_cr_and_lf_are_ordinary_octets(void **state)
{
	(void)state;
	assert_body(DKIM_CANON_RELAXED, "a\rb", "a\rb\r\n");
	assert_body(DKIM_CANON_RELAXED, "a \rb", "a \rb\r\n");
	assert_body(DKIM_CANON_RELAXED, "a \r\r\nb", "a \r\r\nb\r\n");
	assert_body(DKIM_CANON_RELAXED, "a\r", "a\r\r\n");
	assert_body(DKIM_CANON_RELAXED, "a \nb \n", "a \nb \n\r\n");
	assert_body(DKIM_CANON_RELAXED, "\r\n\n", "\r\n\n\r\n");
}

static void simple_body_as_in_the_rfc(void **state)
{
	(void)state;
	assert_body(DKIM_CANON_SIMPLE, " C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n");
	assert_body(DKIM_CANON_SIMPLE, "", "\r\n");
	assert_body(DKIM_CANON_SIMPLE, "\r\n\r\n", "\r\n");
	assert_body(DKIM_CANON_SIMPLE, "a", "a\r\n");
	assert_body(DKIM_CANON_SIMPLE, " \r\n", " \r\n");
}

/* K1: Every text of up to seven octets over the five that matter. */
static void every_short_body(void **state)
{
	static const char alphabet[] = {'a', ' ', '\t', '\r', '\n'};
	(void)state;

	for (size_t len = 0, count = 1; len <= 7; len++, count *= 5)
		for (size_t number = 0; number < count; number++) {
			char body[8];
			for (size_t i = 0, rest = number; i < len; i++, rest /= 5)
				body[i] = alphabet[rest % 5];
			check_body(slice_of(body, len), DKIM_CANON_RELAXED, len <= 6);
			check_body(slice_of(body, len), DKIM_CANON_SIMPLE, len <= 5);
		}
}

/* Every text of four octets at each place of a block of ordinary ones, and across two: the fast gear's borders. */
static void every_short_run_in_ordinary_text(void **state)
{
	static const char alphabet[] = {'b', ' ', '\t', '\r', '\n'};
	char body[56];
	(void)state;

	for (size_t number = 0; number < 625; number++)
		for (size_t place = 0; place < 36; place++) {
			memset(body, 'a', sizeof(body));
			for (size_t i = 0, rest = number; i < 4; i++, rest /= 5)
				body[place + i] = alphabet[rest % 5];
			check_body(slice_of(body, sizeof(body)), DKIM_CANON_RELAXED, number % 5 == 1);
			check_body(slice_of(body, place + 4), DKIM_CANON_RELAXED, false);
			check_body(slice_of(body, sizeof(body)), DKIM_CANON_SIMPLE, false);
		}
}

static void random_bodies(void **state)
{
	static const char *const words[] = {"word ",
					    "\r\n",
					    "\r\n\r\n",
					    "  ",
					    "\t",
					    "a b c d e f g h i j ",
					    "\r",
					    "\xc3\xa4",
					    "\n",
					    " \r\n",
					    "0123456789abcdef0123456789abcdef",
					    ". "};
	struct rng_seeded random;
	struct buf body;
	(void)state;

	rng_seeded_init(&random, 7);
	buf_init(&body, 1 << 20);
	for (int round = 0; round < 400; round++) {
		size_t count = rng_below(&random.rng, 60);
		buf_clear(&body);
		for (size_t i = 0; i < count; i++)
			buf_append_str(&body, words[rng_below(&random.rng, sizeof(words) / sizeof(*words))]);
		check_body(buf_slice(&body), DKIM_CANON_RELAXED, round % 4 == 0);
		check_body(buf_slice(&body), DKIM_CANON_SIMPLE, false);
	}
	buf_fini(&body);
}

static void long_runs_of_blanks_and_empty_lines(void **state)
{
	struct buf body;
	(void)state;

	buf_init(&body, 8 << 20);
	for (int i = 0; i < 100000; i++)
		buf_append_str(&body, "\r\n");
	buf_append_str(&body, "x");
	for (int i = 0; i < 100000; i++)
		buf_append_str(&body, i % 2 ? " " : "\t");
	buf_append_str(&body, "y");
	for (int i = 0; i < 100000; i++)
		buf_append_str(&body, " \r\n");
	check_body(buf_slice(&body), DKIM_CANON_RELAXED, false);
	check_body(buf_slice(&body), DKIM_CANON_SIMPLE, false);
	buf_fini(&body);
}

static void a_state_can_be_used_again(void **state)
{
	struct dkim_body_canon canon;
	struct buf out;
	(void)state;

	buf_init(&out, 100);
	dkim_body_canon_init(&canon, DKIM_CANON_SIMPLE);
	dkim_body_canon_update(&canon, SLICE("a\r\n\r\n"), collect, &out);
	dkim_body_canon_final(&canon, collect, &out);
	dkim_body_canon_final(&canon, collect, &out);
	assert_true(slice_eq(buf_slice(&out), SLICE("a\r\n\r\n")));
	buf_fini(&out);
}

static void assert_field(enum dkim_canon canon, struct slice raw, struct slice wanted)
{
	struct buf out;

	buf_init(&out, raw.len + 2);
	assert_int_equal(dkim_canon_field(&out, canon, raw), 0);
	assert_true(slice_eq(buf_slice(&out), wanted));
	buf_fini(&out);
	if (canon == DKIM_CANON_RELAXED) {
		buf_init(&out, raw.len + 2);
		plain_field(&out, raw);
		assert_true(slice_eq(buf_slice(&out), wanted));
		buf_fini(&out);
	}
}

static void relaxed_field_as_in_the_rfc(void **state)
{
	(void)state;
	assert_field(DKIM_CANON_RELAXED, SLICE("A: X\r\n"), SLICE("a:X\r\n")); /* RFC 6376 section 3.4.6 */
	assert_field(DKIM_CANON_RELAXED, SLICE("B : Y\t\r\n\tZ  \r\n"), SLICE("b:Y Z\r\n"));
	assert_field(DKIM_CANON_RELAXED, SLICE("SUBJect:AbC"), SLICE("subject:AbC\r\n"));
	assert_field(DKIM_CANON_RELAXED, SLICE("Subject:\r\n"), SLICE("subject:\r\n"));
	assert_field(DKIM_CANON_RELAXED, SLICE("Subject: \t \r\n"), SLICE("subject:\r\n"));
	assert_field(DKIM_CANON_RELAXED, SLICE("Subject:\r\n  a:b\r\n"), SLICE("subject:a:b\r\n"));
	assert_field(DKIM_CANON_RELAXED, SLICE("X-\xc3\x84: \xc3\x84\r\n"), SLICE("x-\xc3\x84:\xc3\x84\r\n"));
	assert_field(DKIM_CANON_RELAXED, SLICE("To: a,\r\n b,\r\n\t c\r\n \r\n"), SLICE("to:a, b, c\r\n"));
}

static void simple_field_is_left_alone(void **state)
{
	(void)state;
	assert_field(DKIM_CANON_SIMPLE, SLICE("B : Y\t\r\n\tZ  \r\n"), SLICE("B : Y\t\r\n\tZ  \r\n"));
	assert_field(DKIM_CANON_SIMPLE, SLICE("A: X"), SLICE("A: X\r\n"));
}

static void a_field_needs_a_colon_and_room(void **state)
{
	struct buf out;
	(void)state;

	buf_init(&out, 6);
	assert_int_equal(dkim_canon_field(&out, DKIM_CANON_RELAXED, SLICE("no field")), ERR_SYNTAX);
	assert_int_equal(dkim_canon_field(&out, DKIM_CANON_RELAXED, SLICE("")), ERR_SYNTAX);
	assert_int_equal(dkim_canon_field(&out, DKIM_CANON_RELAXED, SLICE("a:bcd")), ERR_LIMIT);
	assert_int_equal(dkim_canon_field(&out, DKIM_CANON_RELAXED, SLICE("a:bc")), 0);
	assert_int_equal(dkim_canon_field(&out, DKIM_CANON_SIMPLE, SLICE("a:bc")), ERR_LIMIT);
	buf_fini(&out);
}

static void names_are_those_of_the_c_tag(void **state)
{
	(void)state;
	assert_string_equal(dkim_canon_name(DKIM_CANON_RELAXED), "relaxed");
	assert_string_equal(dkim_canon_name(DKIM_CANON_SIMPLE), "simple");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(relaxed_body_as_in_the_rfc),	   cmocka_unit_test(lone_cr_and_lf_are_ordinary_octets),
	    cmocka_unit_test(simple_body_as_in_the_rfc),	   cmocka_unit_test(every_short_body),
	    cmocka_unit_test(every_short_run_in_ordinary_text),	   cmocka_unit_test(random_bodies),
	    cmocka_unit_test(long_runs_of_blanks_and_empty_lines), cmocka_unit_test(a_state_can_be_used_again),
	    cmocka_unit_test(relaxed_field_as_in_the_rfc),	   cmocka_unit_test(simple_field_is_left_alone),
	    cmocka_unit_test(a_field_needs_a_colon_and_room),	   cmocka_unit_test(names_are_those_of_the_c_tag),
	};
	return cmocka_run_group_tests_name("canon", tests, NULL, NULL);
}
