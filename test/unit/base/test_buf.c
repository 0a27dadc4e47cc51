#include "support_base.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>

static void assert_holds(const struct buf *buf, const char *wanted)
{
	assert_int_equal(buf_len(buf), strlen(wanted));
	assert_true(slice_eq(buf_slice(buf), slice_of_str(wanted)));
}

static void a_failed_append_changes_nothing(void **state)
{
	struct buf buf;
	(void)state;

	buf_init(&buf, 10);
	assert_int_equal(buf_append_str(&buf, "12345"), 0);
	assert_int_equal(buf_append_str(&buf, "123456"), ERR_LIMIT);
	assert_holds(&buf, "12345");
	assert_int_equal(buf_printf(&buf, "%d", 123456), ERR_LIMIT);
	assert_holds(&buf, "12345");
	assert_int_equal(buf_append_str(&buf, "67890"), 0);
	assert_int_equal(buf_room(&buf), 0);
	assert_int_equal(buf_append_byte(&buf, 'x'), ERR_LIMIT);
	assert_null(buf_reserve(&buf, 1));
	assert_holds(&buf, "1234567890");
	buf_fini(&buf);
}

static void what_is_consumed_makes_room(void **state)
{
	struct buf buf;
	(void)state;

	buf_init(&buf, 4);
	assert_int_equal(buf_append_str(&buf, "abcd"), 0);
	buf_consume(&buf, 1);
	assert_int_equal(buf_room(&buf), 1);
	assert_int_equal(buf_append_str(&buf, "e"), 0);
	assert_holds(&buf, "bcde");
	assert_int_equal(buf_append_str(&buf, "f"), ERR_LIMIT);
	buf_consume(&buf, 100);
	assert_holds(&buf, "");
	assert_int_equal(buf_append_str(&buf, "ghij"), 0);
	assert_holds(&buf, "ghij");
	buf_fini(&buf);
}

static void a_ceiling_of_nothing(void **state)
{
	struct buf buf;
	(void)state;

	buf_init(&buf, 0);
	assert_int_equal(buf_append(&buf, SLICE("")), 0);
	assert_int_equal(buf_append_byte(&buf, 'x'), ERR_LIMIT);
	assert_int_equal(buf_len(&buf), 0);
	assert_int_equal(buf_slice(&buf).len, 0);
	buf_fini(&buf);
}

/* Each length around the size that is first tried on the stack, into a buffer that has room for exactly that. */
static void printf_fills_to_the_last_octet(void **state)
{
	char text[1100];
	(void)state;

	memset(text, 'p', sizeof(text));
	for (size_t len = 500; len < 520; len++) {
		struct buf buf;
		buf_init(&buf, len);
		assert_int_equal(buf_printf(&buf, "%.*s", (int)len, text), 0);
		assert_true(slice_eq(buf_slice(&buf), slice_of(text, len)));
		buf_fini(&buf);
		buf_init(&buf, len - 1);
		assert_int_equal(buf_printf(&buf, "%.*s", (int)len, text), ERR_LIMIT);
		assert_int_equal(buf_len(&buf), 0);
		buf_fini(&buf);
	}
}

static void reserve_gives_an_address_for_nothing_too(void **state)
{
	struct buf buf;
	(void)state;

	buf_init(&buf, 10);
	assert_non_null(buf_reserve(&buf, 0));
	buf_commit(&buf, 0);
	assert_int_equal(buf_append_str(&buf, "0123456789"), 0);
	assert_non_null(buf_reserve(&buf, 0));
	buf_fini(&buf);
}

static void reserve_and_commit(void **state)
{
	struct buf buf;
	char *at;
	(void)state;

	buf_init(&buf, 1000);
	at = buf_reserve(&buf, 1000);
	assert_non_null(at);
	memset(at, 'r', 1000);
	buf_commit(&buf, 3);
	assert_holds(&buf, "rrr");
	assert_null(buf_reserve(&buf, 998));
	assert_non_null(buf_reserve(&buf, 997));
	buf_fini(&buf);
}

static void truncate_cuts_the_end_alone(void **state)
{
	struct buf buf;
	(void)state;

	buf_init(&buf, 100);
	buf_append_str(&buf, "0123456789");
	buf_consume(&buf, 2);
	buf_truncate(&buf, 100);
	assert_holds(&buf, "23456789");
	buf_truncate(&buf, 3);
	assert_holds(&buf, "234");
	buf_truncate(&buf, 0);
	assert_holds(&buf, "");
	buf_append_str(&buf, "x");
	assert_holds(&buf, "x");
	buf_fini(&buf);
}

static void clear_keeps_memory_and_reset_gives_it_back(void **state)
{
	struct buf buf;
	(void)state;

	buf_init(&buf, 100);
	buf_append_str(&buf, "x");
	buf_clear(&buf);
	assert_non_null(buf.data);
	assert_holds(&buf, "");
	buf_reset(&buf);
	assert_null(buf.data);
	assert_holds(&buf, "");
	assert_int_equal(buf_append_str(&buf, "y"), 0);
	assert_holds(&buf, "y");
	buf_fini(&buf);
	buf_fini(&buf);
}

/* A queue that stays nearly full while single octets come and go: what is moved in all must stay in proportion to what
 * has passed through. A move shows in `start`, which falls back to 0. */
static void a_nearly_full_queue_is_not_moved_for_each_octet(void **state)
{
	enum { MAX = 64 * 1024, ROUNDS = 4 * MAX };
	struct buf buf;
	size_t moved = 0;
	char *block = calloc(1, MAX);
	(void)state;

	buf_init(&buf, MAX);
	assert_int_equal(buf_append(&buf, slice_of(block, MAX)), 0);
	for (size_t i = 0; i < ROUNDS; i++) {
		size_t before;
		buf_consume(&buf, 1);
		before = buf.start;
		assert_int_equal(buf_append_byte(&buf, 'q'), 0);
		if (buf.start < before)
			moved += buf_len(&buf);
		assert_true(buf.cap <= 2 * MAX);
	}
	assert_true(moved <= 2 * ROUNDS);
	buf_fini(&buf);
	free(block);
}

/* Against a plain array. */
static void random_operations(void **state)
{
	enum { MAX = 3000 };
	static char model[MAX];
	struct rng_seeded random;
	struct buf buf;
	size_t len = 0;
	(void)state;

	rng_seeded_init(&random, 3);
	buf_init(&buf, MAX);
	for (int i = 0; i < 200000; i++) {
		size_t n = rng_below(&random.rng, i % 50 == 0 ? 2000 : 40);
		char text[2000];
		switch (rng_below(&random.rng, 5)) {
		case 0:
		case 1:
			memset(text, 'a' + i % 26, n);
			assert_int_equal(buf_append(&buf, slice_of(text, n)), len + n > MAX ? ERR_LIMIT : 0);
			if (len + n <= MAX) {
				memcpy(model + len, text, n);
				len += n;
			}
			break;
		case 2:
			assert_int_equal(buf_printf(&buf, "%*d", (int)n + 1, i % 10),
					 len + n + 1 > MAX ? ERR_LIMIT : 0);
			if (len + n + 1 <= MAX) {
				memset(model + len, ' ', n);
				model[len + n] = (char)('0' + i % 10);
				len += n + 1;
			}
			break;
		case 3:
			n = n < len ? n : len;
			buf_consume(&buf, n);
			memmove(model, model + n, len - n);
			len -= n;
			break;
		case 4:
			if (n < len && i % 7 == 0) {
				buf_truncate(&buf, len - n);
				len -= n;
			}
			break;
		}
		assert_true(slice_eq(buf_slice(&buf), slice_of(model, len)));
		assert_int_equal(buf_room(&buf), MAX - len);
	}
	buf_fini(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_failed_append_changes_nothing),
	    cmocka_unit_test(what_is_consumed_makes_room),
	    cmocka_unit_test(a_ceiling_of_nothing),
	    cmocka_unit_test(printf_fills_to_the_last_octet),
	    cmocka_unit_test(reserve_gives_an_address_for_nothing_too),
	    cmocka_unit_test(reserve_and_commit),
	    cmocka_unit_test(truncate_cuts_the_end_alone),
	    cmocka_unit_test(clear_keeps_memory_and_reset_gives_it_back),
	    cmocka_unit_test(a_nearly_full_queue_is_not_moved_for_each_octet),
	    cmocka_unit_test(random_operations),
	};
	return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
