/* Token buckets: bursts, the wait that is told, and that nothing is remembered for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/quota.h"

#include <stdio.h>

static const struct config_rate hundred_a_minute = {100, CONFIG_MINUTE_MS};

static void a_burst_passes_and_then_one_comes_back_at_a_time(void **state)
{
	struct quota *quota = quota_new();
	int64_t now = 1000000;

	(void)state;
	for (int i = 0; i < 100; i++)
		assert_int_equal(quota_take(quota, SLICE("app"), &hundred_a_minute, now), 0);
	assert_int_equal(quota_take(quota, SLICE("app"), &hundred_a_minute, now), 600);
	assert_int_equal(quota_take(quota, SLICE("app"), &hundred_a_minute, now + 599), 1);
	assert_int_equal(quota_take(quota, SLICE("app"), &hundred_a_minute, now + 600), 0);
	assert_int_equal(quota_take(quota, SLICE("app"), &hundred_a_minute, now + 600), 600);
	quota_free(&quota);
	assert_null(quota);
}

static void who_waits_as_long_as_was_told_passes(void **state)
{
	struct quota *quota = quota_new();
	struct config_rate odd = {7, 10 * CONFIG_SECOND_MS};
	int64_t now = 5;
	int passed = 0;

	(void)state;
	while (now < 1000 * CONFIG_SECOND_MS) {
		int64_t wait = quota_take(quota, SLICE("app"), &odd, now);
		assert_true(wait >= 0 && wait <= odd.per_ms);
		if (wait > 0)
			assert_int_equal(quota_take(quota, SLICE("app"), &odd, now + wait), 0);
		now += wait;
		passed++;
	}
	assert_in_range(passed, 700, 708);
	quota_free(&quota);
}

static void users_do_not_share_a_bucket(void **state)
{
	struct quota *quota = quota_new();
	struct config_rate one = {1, CONFIG_HOUR_MS};

	(void)state;
	assert_int_equal(quota_take(quota, SLICE("a"), &one, 0), 0);
	assert_true(quota_take(quota, SLICE("a"), &one, 0) > 0);
	assert_int_equal(quota_take(quota, SLICE("ab"), &one, 0), 0);
	quota_free(&quota);
}

static void a_token_that_is_given_back_can_be_taken_again(void **state)
{
	struct quota *quota = quota_new();
	struct config_rate two = {2, CONFIG_HOUR_MS};

	(void)state;
	quota_give_back(quota, SLICE("nobody"), &two);
	assert_int_equal(quota_take(quota, SLICE("app"), &two, 0), 0);
	assert_int_equal(quota_take(quota, SLICE("app"), &two, 0), 0);
	assert_true(quota_take(quota, SLICE("app"), &two, 0) > 0);
	quota_give_back(quota, SLICE("app"), &two);
	assert_int_equal(quota_take(quota, SLICE("app"), &two, 0), 0);
	assert_true(quota_take(quota, SLICE("app"), &two, 0) > 0);
	quota_free(&quota);
}

static void no_rate_is_no_limit(void **state)
{
	struct quota *quota = quota_new();
	struct config_rate none = {0, 0};

	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(quota_take(quota, SLICE("app"), &none, 0), 0);
	assert_int_equal(quota_count(quota), 0);
	quota_free(&quota);
}

static void the_largest_numbers_do_not_wrap(void **state)
{
	struct quota *quota = quota_new();
	struct config_rate slow = {1, INT64_MAX}, fast = {INT64_MAX, 1};
	int64_t now = 100 * 365 * CONFIG_DAY_MS / 4;

	(void)state;
	assert_int_equal(quota_take(quota, SLICE("slow"), &slow, now), 0);
	assert_true(quota_take(quota, SLICE("slow"), &slow, now) > CONFIG_DAY_MS);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(quota_take(quota, SLICE("fast"), &fast, now), 0);
	quota_free(&quota);
}

static void full_buckets_are_forgotten(void **state)
{
	struct quota *quota = quota_new();
	char name[32];

	(void)state;
	for (int i = 0; i < 100000; i++) {
		snprintf(name, sizeof(name), "user%d", i);
		assert_int_equal(quota_take(quota, slice_of_str(name), &hundred_a_minute, i), 0);
	}
	/* One token comes back in 600 ms, so no more than 600 are not full. */
	assert_true(quota_count(quota) <= 2 * 600);
	quota_free(&quota);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_burst_passes_and_then_one_comes_back_at_a_time),
	    cmocka_unit_test(who_waits_as_long_as_was_told_passes),
	    cmocka_unit_test(users_do_not_share_a_bucket),
	    cmocka_unit_test(a_token_that_is_given_back_can_be_taken_again),
	    cmocka_unit_test(no_rate_is_no_limit),
	    cmocka_unit_test(the_largest_numbers_do_not_wrap),
	    cmocka_unit_test(full_buckets_are_forgotten),
	};

	return cmocka_run_group_tests_name("quota", tests, NULL, NULL);
}
