/* Zeros that a small batch writes ahead, so that the syncs of the next ones change no metadata. */
#include "support_box.h"

#include "base/base.h"
#include "queue/internal.h"

#define SEGMENT (1024 * 1024)
#define AHEAD (64 * 1024)
#define HEADER 8192

static int setup(void **state)
{
	struct box *box = xcalloc(1, sizeof(*box));

	box_init(box, SEGMENT);
	assert_true(box_open(box));
	box_sync(box);
	*state = box;
	return 0;
}

static uint64_t written(const struct box *box)
{
	struct queue_stats stats;

	queue_stats(box->queue, &stats);
	return stats.written_bytes;
}

/* What one message of `size` octets, alone in its batch, lets the journal write. */
static uint64_t written_by(struct box *box, size_t size)
{
	static char content[100000];
	uint64_t before = written(box);

	box_submit(box, 1, slice_of(content, size));
	return written(box) - before;
}

static void one_small_batch_brings_zeros_for_those_that_follow(void **state)
{
	struct box *box = *state;

	assert_int_equal(written_by(box, 100), RECORD_BLOCK + AHEAD);
	for (int i = 0; i < AHEAD / RECORD_BLOCK; i++)
		assert_int_equal(written_by(box, 100), RECORD_BLOCK);
	assert_int_equal(written_by(box, 100), RECORD_BLOCK + AHEAD);
}

static void a_large_batch_brings_none(void **state)
{
	struct box *box = *state;
	uint64_t large = written_by(box, 20000);

	assert_in_range(large, 20000, 30000);
	assert_int_equal(written_by(box, 100), RECORD_BLOCK + AHEAD);
}

static void zeros_end_with_the_segment(void **state)
{
	struct box *box = *state;
	uint64_t room = SEGMENT - HEADER - RECORD_BLOCK, bytes = written_by(box, 100) - RECORD_BLOCK;

	for (; room > 0; room -= RECORD_BLOCK)
		bytes += written_by(box, 100) - RECORD_BLOCK;
	assert_int_equal(bytes, SEGMENT - HEADER - 15 * RECORD_BLOCK); /* each 17th block brought the zeros */
}

static void where_a_second_write_goes_elsewhere_there_are_none(void **state)
{
	struct box *box = *state;

	box->disk.disk.overwrites_in_place = false;
	assert_int_equal(written_by(box, 100), RECORD_BLOCK);
}

static void what_overwrites_them_is_there_after_a_power_cut(void **state)
{
	static char content[3000];
	struct box *box = *state;
	uint64_t ids[20];

	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		memset(content, (char)i, sizeof(content));
		ids[i] = box_submit(box, 1, slice_of(content, sizeof(content)));
	}
	box_kill(box);
	fault_disk_crash(&box->disk, true, 1);
	assert_true(box_open(box));
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		memset(content, (char)i, sizeof(content));
		assert_int_equal(box_check(box, ids[i], slice_of(content, sizeof(content))), 1);
	}
	assert_int_equal(box_count(box), ARRAY_LEN(ids));
	assert_int_equal(box->told, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, box_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(one_small_batch_brings_zeros_for_those_that_follow),
	    TEST(a_large_batch_brings_none),
	    TEST(zeros_end_with_the_segment),
	    TEST(where_a_second_write_goes_elsewhere_there_are_none),
	    TEST(what_overwrites_them_is_there_after_a_power_cut),
	};

	return cmocka_run_group_tests_name("zeros ahead", tests, NULL, NULL);
}
