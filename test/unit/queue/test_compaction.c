/* Compaction against the disk: how far it goes while its copies wait for their sync. */
#include "support_box.h"

#include "base/base.h"
#include "queue/internal.h"

#define SEGMENT (64 * 1024)

enum { MESSAGES = 300, KEPT_OF = 10 };

static char noise[2000];

static int setup(void **state)
{
	struct box *box = xcalloc(1, sizeof(*box));

	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (char)(i * 31 + i / 7);
	box_init(box, SEGMENT);
	assert_true(box_open(box));
	box_settle(box);
	*state = box;
	return 0;
}

/* Some dozen segments; then nine of ten messages are delivered, which is not on the disk yet. */
static void fill_and_drain(struct box *box, uint64_t *ids)
{
	uint32_t index;

	for (int i = 0; i < MESSAGES; i++)
		ids[i] = box_submit(box, 1, slice_of(noise, sizeof(noise)));
	for (int i = 0; i < MESSAGES; i++) {
		if (i % KEPT_OF == 0)
			continue;
		assert_int_equal(queue_take_due(box->queue, ids[i], INT64_MAX - 1, &index, 1), 1);
		box_result(box, ids[i], index, OUTCOME_DELIVERED);
	}
}

/* Walked to the end, but not free, since copies are not synced. */
static unsigned walked_and_waiting(const struct queue *queue)
{
	unsigned count = 0;

	for (uint32_t i = 0; i < queue->segments.count; i++)
		count += queue->segments.items[i]->live > 0 &&
			 queue->segments.items[i]->header.number <= queue->compaction.walked;
	return queue->compaction.pending > 0 ? count : 0;
}

/* The most of them at any time until all is at rest. Each sync takes `turns` turns. */
static unsigned farthest_walk(struct box *box, int turns)
{
	unsigned farthest = 0;

	for (int i = 0; i < 10000; i++) {
		int64_t deadline;
		queue_turn(box->queue);
		farthest = MAX(farthest, walked_and_waiting(box->queue));
		if (i % turns == 0 && fault_disk_finish(&box->disk))
			continue;
		deadline = queue_next_deadline_ms(box->queue);
		if (deadline == INT64_MAX && box->disk.async_count == 0)
			return farthest;
		if (deadline != INT64_MAX && deadline > clock_mono_ms(&box->clock.clock))
			clock_virtual_advance(&box->clock, deadline - clock_mono_ms(&box->clock.clock));
	}
	fail_msg("the queue does not come to rest");
	return 0;
}

static void assert_all_kept(struct box *box, const uint64_t *ids)
{
	for (int i = 0; i < MESSAGES; i += KEPT_OF)
		assert_int_equal(box_check(box, ids[i], slice_of(noise, sizeof(noise))), 1);
	assert_int_equal(box_count(box), MESSAGES / KEPT_OF);
	assert_int_equal(box->told, 0);
}

static void a_walk_goes_on_while_its_copies_are_being_synced(void **state)
{
	struct box *box = *state;
	uint64_t ids[MESSAGES];
	struct queue_stats stats;

	fill_and_drain(box, ids);
	assert_in_range(farthest_walk(box, 50), 2, 8);
	queue_stats(box->queue, &stats);
	assert_true(stats.journal_bytes <= 2 * stats.live_bytes + 4 * SEGMENT);
	assert_all_kept(box, ids);
}

static void on_a_full_disk_each_segment_is_freed_before_the_next_is_walked(void **state)
{
	struct box *box = *state;
	uint64_t ids[MESSAGES];

	fill_and_drain(box, ids);
	box->disk.capacity = fault_disk_used(&box->disk) + 2 * SEGMENT;
	clock_virtual_advance(&box->clock, 2000); /* the figure of free space is old */
	queue_turn(box->queue);
	assert_int_equal(journal_state(box->queue->journal), QUEUE_NO_SPACE);
	/* Until there is room again. */
	while (journal_state(box->queue->journal) == QUEUE_NO_SPACE) {
		for (int i = 0; i < 50; i++)
			queue_turn(box->queue);
		if (journal_state(box->queue->journal) == QUEUE_NO_SPACE)
			assert_in_range(walked_and_waiting(box->queue), 0, 1);
		fault_disk_finish(&box->disk);
		clock_virtual_advance(&box->clock, 200);
	}
	farthest_walk(box, 50);
	assert_all_kept(box, ids);
}

/* Of the batch on its way all is lost but its MARK, which stands in another block. */
static void tear_batch(struct box *box, const char *name, uint64_t nonce, uint64_t offset)
{
	struct record_header header = {.type = 0};
	uint64_t size;
	char *bytes = fault_disk_bytes(&box->disk, DISK_JOURNAL, name, &size);

	while (header.type != RECORD_MARK) {
		char *at = bytes + offset;
		assert_true(record_open(at, nonce, offset, &header));
		offset += record_bytes(header.length);
		if (header.type != RECORD_MARK)
			memset(at, 0, record_bytes(header.length));
	}
}

/* A MARK says that the oldest segment has gone; the deletion that stood there must be somewhere by then. */
static void a_deletion_is_copied_no_later_than_its_message(void **state)
{
	struct box *box = *state;
	uint64_t ids[MESSAGES], id = 0, offset, nonce;
	const struct segment *current;
	char name[SEGMENT_NAME_MAX];
	struct slot *slot;
	uint32_t old, taken;

	for (int i = 0; i < MESSAGES; i++) {
		if (i == MESSAGES / 2)
			id = box_submit(box, 1, slice_of(noise, 100));
		ids[i] = box_submit(box, 1, slice_of(noise, sizeof(noise)));
	}
	slot = index_find(box->queue->index, id);
	assert_int_equal(queue_take_due(box->queue, id, INT64_MAX - 1, &taken, 1), 1);
	assert_int_equal(queue_set_inflight(box->queue, id, 1), 0);
	assert_int_equal(queue_delete(box->queue, id), 0);
	box_settle(box);
	for (int i = 0; i < MESSAGES; i++)
		queue_delete(box->queue, ids[i]);
	old = slot->message.segment;
	for (int i = 0; slot->message.segment == old; i++) {
		assert_true(i < 10000);
		if (!fault_disk_finish(&box->disk))
			clock_virtual_advance(&box->clock, 10);
		queue_turn(box->queue);
	}
	/* The copy is synced; the next batch is written, with a MARK that frees the old segments, and not synced. */
	while (box->disk.async_count == 0) {
		clock_virtual_advance(&box->clock, 10);
		queue_turn(box->queue);
	}
	current = box->queue->segments.items[box->queue->segments.count - 1];
	offset = current->end;
	nonce = current->header.nonce;
	memcpy(name, current->name, sizeof(name));
	box_kill(box);
	tear_batch(box, name, nonce, offset);
	assert_true(box_open(box));
	assert_int_equal(queue_flush(box->queue, id), ERR_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_walk_goes_on_while_its_copies_are_being_synced, setup, box_teardown),
	    cmocka_unit_test_setup_teardown(on_a_full_disk_each_segment_is_freed_before_the_next_is_walked, setup,
					    box_teardown),
	    cmocka_unit_test_setup_teardown(a_deletion_is_copied_no_later_than_its_message, setup, box_teardown),
	};

	return cmocka_run_group_tests_name("compaction", tests, NULL, NULL);
}
