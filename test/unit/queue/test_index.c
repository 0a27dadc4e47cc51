/* The index: ids are found, states are counted, due times come in order, and a message costs what it may. */
#include "support_box.h"

#include "base/base.h"
#include "queue/index.h"

#include <malloc.h>
#include <unistd.h>

#define WALL 1790000000000

static struct slot *add(struct index *index, uint64_t id, int64_t next)
{
	struct slot *slot = index_add(index, id, 1, 0, WALL, next);

	index_set_bytes(index, slot, 1000);
	index_change_begin(index, slot);
	slot->flags |= SLOT_SYNCED;
	index_change_end(index, slot);
	return slot;
}

static void ids_are_found_through_growth_and_removal(void **state)
{
	struct index *index = index_new();
	struct rng_seeded rng;
	static uint64_t ids[20000];

	(void)state;
	rng_seeded_init(&rng, 4);
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		ids[i] = rng_u64(&rng.rng) | 1;
		add(index, ids[i], WALL);
	}
	for (size_t i = 0; i < ARRAY_LEN(ids); i += 2)
		assert_null(index_remove(index, index_find(index, ids[i])));
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		struct slot *slot = index_find(index, ids[i]);
		assert_int_equal(slot != NULL, i % 2);
		if (slot)
			assert_int_equal(slot->id, ids[i]);
	}
	assert_int_equal(index_counts(index)->all_messages, ARRAY_LEN(ids) / 2);
	assert_int_equal(index_counts(index)->messages[STATE_READY], ARRAY_LEN(ids) / 2);
	assert_int_equal(index_counts(index)->bytes[STATE_READY], ARRAY_LEN(ids) / 2 * 1000);
	index_free(&index);
}

static void due_ones_come_by_class_then_by_time(void **state)
{
	struct index *index = index_new();
	struct slot *slot;
	uint64_t order[] = {4, 2, 1, 3};

	(void)state;
	add(index, 1, WALL + 20);
	add(index, 2, WALL + 10);
	for (uint64_t id = 3; id <= 4; id++) {
		slot = index_add(index, id, 1, 0, WALL, WALL);
		slot->class = id == 3 ? MESSAGE_BULK : MESSAGE_TRANSACTIONAL;
		slot->flags |= SLOT_SYNCED;
		index_change_end(index, slot);
	}
	assert_int_equal(index_next_due_wall(index), WALL);
	for (size_t i = 0; i < ARRAY_LEN(order); i++) {
		slot = index_first_due(index, WALL + 30);
		assert_non_null(slot);
		assert_int_equal(slot->id, order[i]);
		index_change_begin(index, slot);
		slot->flags |= SLOT_POPPED;
		index_change_end(index, slot);
	}
	assert_null(index_first_due(index, WALL + 30));
	assert_int_equal(index_next_due_wall(index), INT64_MAX);
	index_free(&index);
}

static void states_are_counted_as_they_change(void **state)
{
	struct index *index = index_new();
	struct slot *slot = index_add(index, 1, 3, 2, WALL, WALL);
	const struct index_counts *counts = index_counts(index);
	int64_t oldest[STATE_COUNT];

	(void)state;
	index_set_bytes(index, slot, 500);
	assert_int_equal(counts->messages[STATE_READY], 0);
	index_change_begin(index, slot);
	slot->flags |= SLOT_SYNCED;
	index_change_end(index, slot);
	assert_int_equal(counts->messages[STATE_READY], 1);
	assert_int_equal(counts->recipients[STATE_READY], 3);
	index_change_begin(index, slot);
	slot_rcpt_set(slot, 0, RCPT_TAKEN, 0);
	slot_rcpt_set(slot, 1, RCPT_TAKEN, 0);
	slot->inflight = 2;
	index_change_end(index, slot);
	assert_int_equal(counts->messages[STATE_INFLIGHT], 1);
	assert_int_equal(slot_taken(slot), 2);
	index_change_begin(index, slot);
	slot_rcpt_set(slot, 0, RCPT_FINAL, 0);
	slot_rcpt_set(slot, 1, RCPT_WAITING, WALL + 5000);
	slot_rcpt_set(slot, 2, RCPT_WAITING, WALL + 3000);
	slot->inflight = 0;
	slot->flags |= SLOT_TRIED;
	index_change_end(index, slot);
	assert_int_equal(counts->messages[STATE_DEFERRED], 1);
	assert_int_equal(counts->recipients[STATE_DEFERRED], 2);
	assert_int_equal(counts->bytes[STATE_DEFERRED], 500);
	assert_int_equal(slot_next_wall(slot), WALL + 3000);
	assert_int_equal(index_next_due_wall(index), WALL + 3000);
	index_change_begin(index, slot);
	slot->flags |= SLOT_HELD;
	index_change_end(index, slot);
	assert_int_equal(counts->messages[STATE_HELD], 1);
	assert_int_equal(index_next_due_wall(index), INT64_MAX);
	index_oldest(index, oldest);
	assert_int_equal(oldest[STATE_HELD], WALL);
	assert_int_equal(oldest[STATE_READY], 0);
	free(index_remove(index, slot));
	for (int i = 0; i < STATE_COUNT; i++)
		assert_int_equal(counts->messages[i] + counts->recipients[i] + counts->bytes[i], 0);
	index_free(&index);
}

static size_t resident_bytes(void)
{
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*u %lu", &pages), 1);
	fclose(file);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* All that a queued message with one recipient costs: what the index says of itself, and what the system says. */
static void a_million_messages_cost_at_most_120_bytes_each(void **state)
{
	const uint32_t count = 1000000;
	struct index *index = index_new();
	size_t before = resident_bytes(), after;

	(void)state;
	for (uint32_t i = 0; i < count; i++)
		add(index, ((uint64_t)i << 12) + 1, WALL + i);
	after = resident_bytes();
	print_message("# %.1f bytes by its own account, %.1f resident\n", (double)index_memory_bytes(index) / count,
		      (double)(after - before) / count);
	assert_true(index_memory_bytes(index) <= (size_t)count * 120);
#if !defined(__SANITIZE_ADDRESS__)
	assert_true(after - before <= (size_t)count * 120);
#endif
	index_free(&index);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ids_are_found_through_growth_and_removal),
	    cmocka_unit_test(due_ones_come_by_class_then_by_time),
	    cmocka_unit_test(states_are_counted_as_they_change),
	    cmocka_unit_test(a_million_messages_cost_at_most_120_bytes_each),
	};
	return cmocka_run_group_tests_name("index", tests, NULL, NULL);
}
