/* The inside is included, so that a slot can be brought to its four-thousand-millionth use. */
#include "base/timer.c"

#include "support_base.h"

#include "base/random.h"

struct shot {
	struct timers *timers;
	int fired;
	timer_id id;
	timer_id *cancels; /* cancelled by the callback */
	int64_t adds_at;   /* added anew by the callback; 0: not */
};

static void on_fire(void *ctx)
{
	struct shot *shot = ctx;

	shot->fired++;
	if (shot->cancels)
		timers_cancel(shot->timers, shot->cancels);
	if (shot->adds_at)
		shot->id = timers_add(shot->timers, shot->adds_at, on_fire, shot);
}

static void add(struct timers *timers, struct shot *shot, int64_t at_ms)
{
	shot->timers = timers;
	shot->id = timers_add(timers, at_ms, on_fire, shot);
}

static void due_ones_fire_once(void **state)
{
	struct timers *timers = timers_new();
	struct shot early = {0}, late = {0};
	(void)state;

	assert_int_equal(timers_next_at_ms(timers), INT64_MAX);
	add(timers, &late, 20);
	add(timers, &early, 10);
	assert_int_equal(timers_next_at_ms(timers), 10);
	timers_run(timers, 9);
	assert_int_equal(early.fired, 0);
	timers_run(timers, 10);
	timers_run(timers, 19);
	assert_int_equal(early.fired, 1);
	assert_int_equal(late.fired, 0);
	assert_int_equal(timers_next_at_ms(timers), 20);
	timers_run(timers, 1000);
	timers_run(timers, 2000);
	assert_int_equal(early.fired, 1);
	assert_int_equal(late.fired, 1);
	timers_free(&timers);
	assert_null(timers);
	timers_free(&timers);
}

static int order[10], ordered;

static void on_order(void *ctx)
{
	order[ordered++] = (int)(intptr_t)ctx;
}

static void they_fire_in_the_order_of_time(void **state)
{
	struct timers *timers = timers_new();
	static const int at[] = {5, 3, 9, 1, 7, 2, 8, 4, 6, 0};
	(void)state;

	ordered = 0;
	for (int i = 0; i < 10; i++)
		timers_add(timers, at[i], on_order, (void *)(intptr_t)at[i]);
	timers_run(timers, 9);
	assert_int_equal(ordered, 10);
	for (int i = 0; i < 10; i++)
		assert_int_equal(order[i], i);
	timers_free(&timers);
}

static void a_cancelled_one_never_fires(void **state)
{
	struct timers *timers = timers_new();
	struct shot shot = {0};
	timer_id copy;
	(void)state;

	add(timers, &shot, 10);
	copy = shot.id;
	timers_cancel(timers, &shot.id);
	assert_int_equal(shot.id, 0);
	timers_cancel(timers, &shot.id);
	timers_cancel(timers, &copy);
	timers_run(timers, 100);
	assert_int_equal(shot.fired, 0);
	assert_int_equal(timers_next_at_ms(timers), INT64_MAX);
	timers_free(&timers);
}

static void cancelling_after_it_fired_hits_nobody_else(void **state)
{
	struct timers *timers = timers_new();
	struct shot old = {0}, new = {0};
	timer_id stale;
	(void)state;

	add(timers, &old, 10);
	stale = old.id;
	timers_run(timers, 10);
	add(timers, &new, 20); /* takes the same slot */
	assert_int_equal((uint32_t)stale, (uint32_t) new.id);
	assert_int_not_equal(stale, new.id);
	timers_cancel(timers, &stale);
	timers_run(timers, 20);
	assert_int_equal(old.fired, 1);
	assert_int_equal(new.fired, 1);
	timers_free(&timers);
}

static void set_replaces(void **state)
{
	struct timers *timers = timers_new();
	struct shot shot = {0};
	(void)state;

	timers_set(timers, &shot.id, 10, on_fire, &shot);
	timers_set(timers, &shot.id, 20, on_fire, &shot);
	timers_run(timers, 15);
	assert_int_equal(shot.fired, 0);
	timers_run(timers, 20);
	timers_run(timers, 30);
	assert_int_equal(shot.fired, 1);
	timers_free(&timers);
}

static void a_callback_may_cancel_another_that_is_due(void **state)
{
	struct timers *timers = timers_new();
	struct shot first = {0}, second = {0}, third = {0};
	(void)state;

	add(timers, &first, 10);
	add(timers, &second, 11);
	add(timers, &third, 12);
	first.cancels = &second.id;
	timers_run(timers, 50);
	assert_int_equal(first.fired, 1);
	assert_int_equal(second.fired, 0);
	assert_int_equal(second.id, 0);
	assert_int_equal(third.fired, 1);
	timers_free(&timers);
}

static void a_callback_may_cancel_itself(void **state)
{
	struct timers *timers = timers_new();
	struct shot shot = {0}, other = {0};
	(void)state;

	add(timers, &shot, 10);
	shot.cancels = &shot.id;
	add(timers, &other, 20);
	timers_run(timers, 10);
	timers_run(timers, 20);
	assert_int_equal(shot.fired, 1);
	assert_int_equal(other.fired, 1);
	timers_free(&timers);
}

static void what_a_callback_adds_waits_for_the_next_run(void **state)
{
	struct timers *timers = timers_new();
	struct shot again = {.adds_at = 1};
	(void)state;

	add(timers, &again, 10);
	timers_run(timers, 50);
	assert_int_equal(again.fired, 1);
	assert_int_equal(timers_next_at_ms(timers), 1);
	timers_run(timers, 50);
	assert_int_equal(again.fired, 2);
	timers_free(&timers);
}

/* Those that ask to be called at once, over and over, come before all others in the heap. */
static void what_callbacks_add_does_not_hold_up_others(void **state)
{
	struct timers *timers = timers_new();
	struct shot busy[3] = {{.adds_at = 1}, {.adds_at = 1}, {.adds_at = 1}}, patient[3] = {{0}};
	(void)state;

	for (int i = 0; i < 3; i++) {
		add(timers, &busy[i], 1);
		add(timers, &patient[i], 10 + i);
	}
	timers_run(timers, 50);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(busy[i].fired, 1);
		assert_int_equal(patient[i].fired, 1);
	}
	timers_run(timers, 50);
	for (int i = 0; i < 3; i++)
		assert_int_equal(busy[i].fired, 2);
	timers_free(&timers);
}

static void a_slot_used_2_to_the_32_times_still_cancels(void **state)
{
	struct timers *timers = timers_new();
	struct shot shot = {0};
	(void)state;

	add(timers, &shot, 10);
	timers_cancel(timers, &shot.id);
	for (int i = 0; i < 3; i++) {
		timers->slots[timers->free_head].generation = UINT32_MAX - 2 + (uint32_t)i;
		add(timers, &shot, 10);
		assert_int_not_equal(shot.id, 0);
		timers_cancel(timers, &shot.id);
		add(timers, &shot, 10);
		assert_int_not_equal(shot.id, 0);
		assert_int_not_equal(shot.id >> 32, 0);
		timers_cancel(timers, &shot.id);
		timers_run(timers, 10);
		assert_int_equal(shot.fired, 0);
	}
	timers_free(&timers);
}

enum { COUNT = 300 };

struct entry {
	timer_id id;
	int64_t at_ms;
	bool is_set;
	int *errors;
	int64_t *now;
};

static void on_entry(void *ctx)
{
	struct entry *entry = ctx;

	if (!entry->is_set || entry->at_ms > *entry->now)
		++*entry->errors;
	entry->is_set = false;
}

/* Nothing fires early, twice or after a cancel, and nothing that is due is left. */
static void random_operations(void **state)
{
	struct timers *timers = timers_new();
	static struct entry entries[COUNT];
	struct rng_seeded random;
	int64_t now = 0;
	int errors = 0;
	(void)state;

	rng_seeded_init(&random, 11);
	for (int i = 0; i < COUNT; i++)
		entries[i] = (struct entry){.errors = &errors, .now = &now};
	for (int step = 0; step < 100000; step++) {
		struct entry *entry = &entries[rng_below(&random.rng, COUNT)];
		switch (rng_below(&random.rng, 4)) {
		case 0:
		case 1:
			entry->at_ms = now + (int64_t)rng_below(&random.rng, 100);
			entry->is_set = true;
			timers_set(timers, &entry->id, entry->at_ms, on_entry, entry);
			break;
		case 2:
			timers_cancel(timers, &entry->id);
			entry->is_set = false;
			break;
		case 3:
			now += (int64_t)rng_below(&random.rng, 3);
			timers_run(timers, now);
			for (int i = 0; i < COUNT; i++)
				assert_false(entries[i].is_set && entries[i].at_ms <= now);
			break;
		}
	}
	assert_int_equal(errors, 0);
	timers_free(&timers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(due_ones_fire_once),
	    cmocka_unit_test(they_fire_in_the_order_of_time),
	    cmocka_unit_test(a_cancelled_one_never_fires),
	    cmocka_unit_test(cancelling_after_it_fired_hits_nobody_else),
	    cmocka_unit_test(set_replaces),
	    cmocka_unit_test(a_callback_may_cancel_another_that_is_due),
	    cmocka_unit_test(a_callback_may_cancel_itself),
	    cmocka_unit_test(what_a_callback_adds_waits_for_the_next_run),
	    cmocka_unit_test(what_callbacks_add_does_not_hold_up_others),
	    cmocka_unit_test(a_slot_used_2_to_the_32_times_still_cancels),
	    cmocka_unit_test(random_operations),
	};
	return cmocka_run_group_tests_name("timer", tests, NULL, NULL);
}
