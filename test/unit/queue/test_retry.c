/* When the next attempt is, and which ids come. */
#include "support_box.h"

#include "base/base.h"
#include "queue/id.h"
#include "queue/retry.h"

#define SEC(n) ((int64_t)(n)*1000)

static struct rng_seeded rng;

static int64_t delay(const struct retry_policy *policy, enum failure_class class, uint32_t attempts)
{
	struct retry_input input = {.class = class, .attempts = attempts};

	return retry_delay_ms(policy, &input, &rng.rng, NULL);
}

/* G24, I1: The visits after the first refusal, each just past a delay that greylisters use. */
static void greylist_visits_come_when_they_should(void **state)
{
	static const int64_t visits[] = {310, 620, 1080, 1820, 2640, 3620, 7220, 14420, 21620, 36020};
	struct retry_policy policy;

	(void)state;
	retry_policy_default(&policy);
	for (int round = 0; round < 200; round++) {
		int64_t low = 0, high = 0;
		for (uint32_t i = 0; i < ARRAY_LEN(visits); i++) {
			int64_t step = delay(&policy, CLASS_GREYLIST, i + 1);
			int64_t base = SEC(visits[i]) - (i ? SEC(visits[i - 1]) : 0);
			assert_true(step >= base && step <= base + SEC(15));
			low += base;
			high += step;
		}
		assert_true(high >= low);
	}
	assert_true(delay(&policy, CLASS_GREYLIST, 500) >= SEC(4 * 3600));
	assert_true(delay(&policy, CLASS_GREYLIST, 500) <= SEC(4 * 3600 + 15));
}

/* I1 */
static void each_class_has_its_steps_and_the_last_repeats(void **state)
{
	static const struct {
		enum failure_class class;
		uint32_t attempts;
		int64_t sec;
	} rows[] = {
	    {CLASS_CONNECT, 1, 60},	  {CLASS_CONNECT, 2, 180}, {CLASS_CONNECT, 6, 3600}, {CLASS_CONNECT, 99, 3600},
	    {CLASS_DNS, 1, 60},		  {CLASS_TLS, 3, 480},	   {CLASS_THROTTLE, 1, 300}, {CLASS_THROTTLE, 4, 3600},
	    {CLASS_AUTH, 1, 60},	  {CLASS_AUTH, 9, 600},	   {CLASS_MAILBOX, 1, 1800}, {CLASS_MAILBOX, 4, 14400},
	    {CLASS_OTHER, 1, 300},	  {CLASS_OTHER, 5, 4020},  {CLASS_POLICY, 1, 300},   {CLASS_NONE, 2, 600},
	    {CLASS_OTHER, 4000000, 4020},
	};
	struct retry_policy policy;

	(void)state;
	retry_policy_default(&policy);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t got = delay(&policy, rows[i].class, rows[i].attempts);
		assert_true(got >= SEC(rows[i].sec));
		assert_true(got <= SEC(rows[i].sec) + MIN(SEC(rows[i].sec) / 8, SEC(300)));
	}
}

static void what_failed_together_does_not_come_back_together(void **state)
{
	struct retry_policy policy;
	int64_t first, different = 0;

	(void)state;
	retry_policy_default(&policy);
	first = delay(&policy, CLASS_OTHER, 1);
	for (int i = 0; i < 100; i++)
		different += delay(&policy, CLASS_OTHER, 1) != first;
	assert_true(different > 90);
}

static void a_hint_is_believed_once_and_within_bounds(void **state)
{
	struct retry_policy policy;
	struct retry_input input = {.class = CLASS_GREYLIST, .attempts = 1, .hint_ms = SEC(300)};
	bool taken;
	int64_t got;

	(void)state;
	retry_policy_default(&policy);
	got = retry_delay_ms(&policy, &input, &rng.rng, &taken);
	assert_true(taken && got >= SEC(305) && got <= SEC(315));
	input.hint_ms = SEC(2);
	got = retry_delay_ms(&policy, &input, &rng.rng, &taken);
	assert_true(taken && got >= SEC(35) && got <= SEC(45));
	input.hint_ms = SEC(864000);
	got = retry_delay_ms(&policy, &input, &rng.rng, &taken);
	assert_true(taken && got >= SEC(4 * 3600 + 5) && got <= SEC(4 * 3600 + 15));
	input.hint_used = true;
	got = retry_delay_ms(&policy, &input, &rng.rng, &taken);
	assert_true(!taken && got <= SEC(325));
	input = (struct retry_input){.class = CLASS_MAILBOX, .attempts = 1, .hint_ms = SEC(60)};
	got = retry_delay_ms(&policy, &input, &rng.rng, &taken);
	assert_true(!taken && got >= SEC(1800));
}

/* I1 */
static void configured_steps_replace_the_defaults(void **state)
{
	static const int64_t steps[] = {SEC(10), SEC(20)};
	static const int64_t too_short[] = {10};
	static const int64_t too_many[RETRY_STEPS_MAX + 1];
	struct retry_policy policy;

	(void)state;
	retry_policy_default(&policy);
	assert_int_equal(retry_policy_set(&policy, CLASS_POLICY, too_short, 1), ERR_LIMIT);
	assert_int_equal(retry_policy_set(&policy, CLASS_POLICY, too_many, ARRAY_LEN(too_many)), ERR_LIMIT);
	assert_int_equal(retry_policy_set(&policy, CLASS_POLICY, steps, 0), ERR_LIMIT);
	assert_true(delay(&policy, CLASS_POLICY, 1) >= SEC(300));
	assert_int_equal(retry_policy_set(&policy, CLASS_OTHER, steps, 2), 0);
	assert_true(delay(&policy, CLASS_POLICY, 7) <= SEC(23)); /* it has none of its own */
	assert_true(delay(&policy, CLASS_CONNECT, 1) >= SEC(60));
}

static void ids_grow_whatever_the_clock_does(void **state)
{
	struct id_source ids;
	uint64_t last = 0;
	int64_t now = ID_EPOCH_WALL_MS + 1000000;

	(void)state;
	id_source_init(&ids, 0x3ff, 0);
	for (int i = 0; i < 200000; i++) {
		uint64_t id;
		now += (int64_t)rng_below(&rng.rng, 3) - 1; /* it stands, goes on and goes back */
		id = id_next(&ids, i == 100000 ? now - 500000 : now);
		assert_true(id > last);
		assert_int_equal(id >> ID_SEQUENCE_BITS & 0x3ff, 0x3ff);
		last = id;
	}
	assert_int_equal(id_floor(&ids), last + 1);
}

static void a_restart_leaves_a_gap(void **state)
{
	struct id_source ids;
	int64_t now = ID_EPOCH_WALL_MS + 1000000;
	uint64_t before, after;

	(void)state;
	id_source_init(&ids, 5, 0);
	before = id_next(&ids, now);
	assert_int_equal(id_wall_ms(before), now);
	id_source_init(&ids, 5, before + 1);
	after = id_next(&ids, now - 3600000);
	assert_true(after > before + (1u << 20));
	assert_true(id_wall_ms(id_next(&ids, now + 3600000)) == now + 3600000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(greylist_visits_come_when_they_should),
	    cmocka_unit_test(each_class_has_its_steps_and_the_last_repeats),
	    cmocka_unit_test(what_failed_together_does_not_come_back_together),
	    cmocka_unit_test(a_hint_is_believed_once_and_within_bounds),
	    cmocka_unit_test(configured_steps_replace_the_defaults),
	    cmocka_unit_test(ids_grow_whatever_the_clock_does),
	    cmocka_unit_test(a_restart_leaves_a_gap),
	};
	rng_seeded_init(&rng, 1);
	return cmocka_run_group_tests_name("retry", tests, NULL, NULL);
}
