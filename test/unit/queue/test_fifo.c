/* The FIFO of events: order, bounds, restarts, and a disk that fails and forgets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "queue/fifo.h"
#include "support_fault_disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES = 128 * 1024, MAX_BYTES = 8 * FILE_BYTES, RECORDS_MAX = 20000, READ_MAX = 50 };

struct fixture {
	struct fault_disk disk;
	struct rng_seeded rng;
	struct fifo *fifo;
	struct buf bytes;
	unsigned corruptions;
	uint64_t appended;		/* records, numbered from 1: the stamp */
	uint8_t kept[RECORDS_MAX + 1];	/* 1: its callback said 0, 2: it said that it is lost */
	unsigned seen[RECORDS_MAX + 1]; /* so often has it been read and dropped */
	uint64_t last;			/* the highest that was read */
};

struct waiter {
	struct fixture *f;
	uint64_t number;
};

static struct waiter waiters[RECORDS_MAX + 1];

static void on_corruption(void *ctx, const char *text)
{
	assert_non_null(strstr(text, "events: "));
	((struct fixture *)ctx)->corruptions++;
}

static void open_fifo(struct fixture *f)
{
	struct fifo_options options = {.disk = &f->disk.disk,
				       .rng = &f->rng.rng,
				       .file_bytes = FILE_BYTES,
				       .max_bytes = MAX_BYTES,
				       .ctx = f,
				       .on_corruption = on_corruption};
	struct err err = {0};

	f->fifo = fifo_open(&options, &err);
	if (!f->fifo)
		fail_msg("%s", err.text);
}

static void begin(struct fixture *f, uint64_t seed)
{
	memset(f, 0, sizeof(*f));
	fault_disk_init(&f->disk, 64 << 20, seed);
	rng_seeded_init(&f->rng, seed);
	buf_init(&f->bytes, 4 * FIFO_RECORD_MAX);
	open_fifo(f);
}

static void end(struct fixture *f)
{
	fifo_free(&f->fifo);
	fault_disk_fini(&f->disk);
	buf_fini(&f->bytes);
}

static void on_kept(void *ctx, enum err_code result)
{
	struct waiter *waiter = ctx;

	assert_int_equal(waiter->f->kept[waiter->number], 0);
	waiter->f->kept[waiter->number] = result == 0 ? 1 : 2;
}

/* Record `number` says so, and is as long as its number asks for. */
static size_t make_record(uint64_t number, char *out)
{
	size_t len = 8 + number * 7919 % 3000;

	memset(out, 'a' + (int)(number % 26), len);
	memcpy(out, &number, sizeof(number));
	return len;
}

static int append(struct fixture *f, bool is_important)
{
	char record[4096];
	uint64_t number = f->appended + 1;
	size_t len = make_record(number, record);
	int rc;

	waiters[number] = (struct waiter){f, number};
	rc = fifo_append(f->fifo, slice_of(record, len), number, is_important, on_kept, &waiters[number]);
	if (rc == 0)
		f->appended++;
	return rc;
}

static void settle(struct fixture *f)
{
	do
		fifo_turn(f->fifo);
	while (fault_disk_finish(&f->disk));
	fifo_turn(f->fifo);
}

static void check_item(struct fixture *f, const struct fifo_item *item)
{
	char expected[4096];

	assert_in_range(item->stamp, 1, f->appended);
	assert_true(slice_eq(item->record, slice_of(expected, make_record(item->stamp, expected))));
}

/* Reads and drops up to `max`; how many came. */
static size_t take(struct fixture *f, size_t max)
{
	struct fifo_item items[READ_MAX];
	size_t count = fifo_read(f->fifo, items, MIN(max, (size_t)READ_MAX), &f->bytes);

	for (size_t i = 0; i < count; i++) {
		check_item(f, &items[i]);
		f->seen[items[i].stamp]++;
		f->last = MAX(f->last, items[i].stamp);
	}
	if (count > 0)
		fifo_drop(f->fifo, &items[count - 1]);
	return count;
}

static uint64_t take_all(struct fixture *f)
{
	uint64_t sum = 0;
	size_t count;

	while ((count = take(f, READ_MAX)) > 0)
		sum += count;
	return sum;
}

static void restart(struct fixture *f, bool power, uint64_t seed)
{
	fifo_free(&f->fifo);
	fault_disk_crash(&f->disk, power, seed);
	open_fifo(f);
}

/* ---- tests ---- */

static void what_goes_in_comes_out_in_order(void **state)
{
	static struct fixture f;
	struct fifo_item items[READ_MAX];
	uint64_t expected = 1;

	(void)state;
	begin(&f, 1);
	assert_int_equal(fifo_read(f.fifo, items, READ_MAX, &f.bytes), 0);
	for (int round = 0; round < 30; round++) {
		for (int i = 0; i < 7; i++)
			assert_int_equal(append(&f, false), 0);
		settle(&f);
		assert_true(fifo_is_synced(f.fifo));
		for (size_t n; (n = fifo_read(f.fifo, items, 3, &f.bytes)) > 0; fifo_drop(f.fifo, &items[n - 1]))
			for (size_t i = 0; i < n; i++, expected++) {
				check_item(&f, &items[i]);
				assert_int_equal(items[i].stamp, expected);
			}
		assert_int_equal(expected, f.appended + 1);
	}
	assert_true(fifo_bytes(f.fifo) <= 2 * FILE_BYTES); /* what is read is unlinked */
	assert_int_equal(f.corruptions, 0);
	end(&f);
}

static void only_what_is_synced_is_read(void **state)
{
	static struct fixture f;

	(void)state;
	begin(&f, 2);
	append(&f, false);
	assert_int_equal(take(&f, 1), 0);
	fifo_turn(f.fifo);
	assert_int_equal(take(&f, 1), 0);
	assert_int_equal(f.kept[1], 0);
	settle(&f);
	assert_int_equal(f.kept[1], 1);
	assert_int_equal(take(&f, 1), 1);
	end(&f);
}

static void what_is_not_dropped_comes_again(void **state)
{
	static struct fixture f;
	struct fifo_item items[READ_MAX];

	(void)state;
	begin(&f, 3);
	for (int i = 0; i < 10; i++)
		append(&f, false);
	settle(&f);
	assert_int_equal(fifo_read(f.fifo, items, 4, &f.bytes), 4);
	assert_int_equal(fifo_read(f.fifo, items, 4, &f.bytes), 4);
	assert_int_equal(items[0].stamp, 1);
	fifo_drop(f.fifo, &items[1]);
	restart(&f, false, 1);
	assert_int_equal(fifo_read(f.fifo, items, READ_MAX, &f.bytes), 8);
	assert_int_equal(items[0].stamp, 3);
	end(&f);
}

static void a_record_of_any_size_and_none_too_large(void **state)
{
	static struct fixture f;
	static char large[FIFO_RECORD_MAX + 1];
	struct fifo_item item;

	(void)state;
	begin(&f, 4);
	memset(large, 'x', sizeof(large));
	assert_int_equal(fifo_append(f.fifo, slice_of(large, sizeof(large)), 1, true, NULL, NULL), ERR_LIMIT);
	assert_int_equal(fifo_append(f.fifo, slice_of(large, 0), 1, true, NULL, NULL), ERR_LIMIT);
	for (uint64_t i = 0; i < 6; i++) {
		assert_int_equal(fifo_append(f.fifo, slice_of(large, i % 2 ? FIFO_RECORD_MAX : 1), i, true, NULL, NULL),
				 0);
		settle(&f);
	}
	for (uint64_t i = 0; i < 6; i++) {
		assert_int_equal(fifo_read(f.fifo, &item, 1, &f.bytes), 1);
		assert_int_equal(item.stamp, i);
		assert_int_equal(item.record.len, i % 2 ? FIFO_RECORD_MAX : 1);
		fifo_drop(f.fifo, &item);
	}
	assert_int_equal(fifo_read(f.fifo, &item, 1, &f.bytes), 0);
	end(&f);
}

static void a_full_one_says_so_and_keeps_room_for_what_matters(void **state)
{
	static struct fixture f;
	uint64_t plain, all;

	(void)state;
	begin(&f, 5);
	while (append(&f, false) == 0)
		settle(&f);
	plain = f.appended;
	while (append(&f, true) == 0)
		settle(&f);
	all = f.appended;
	assert_true(plain > 100 && all > plain + 10);
	assert_true(fifo_bytes(f.fifo) <= MAX_BYTES);
	for (uint64_t i = 1; i <= all; i++)
		assert_int_equal(f.kept[i], 1);
	assert_int_equal(take_all(&f), all);
	assert_int_equal(append(&f, false), 0); /* and there is room again */
	settle(&f);
	assert_int_equal(take_all(&f), 1);
	end(&f);
}

static void who_is_forgotten_is_not_called(void **state)
{
	static struct fixture f;

	(void)state;
	begin(&f, 6);
	append(&f, false);
	append(&f, false);
	fifo_turn(f.fifo);
	fifo_forget(f.fifo, &waiters[1]);
	append(&f, false);
	fifo_forget(f.fifo, &waiters[3]);
	settle(&f);
	assert_int_equal(f.kept[1], 0);
	assert_int_equal(f.kept[2], 1);
	assert_int_equal(f.kept[3], 0);
	assert_int_equal(take_all(&f), 3);
	end(&f);
}

static void a_failed_sync_goes_to_a_new_file(void **state)
{
	static const enum fault_kind kinds[] = {FAULT_EIO, FAULT_ENOSPC, FAULT_SHORT, FAULT_DIED};
	static struct fixture f;

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
		for (uint64_t at = 1; at <= 6; at++) {
			begin(&f, 7 + at);
			append(&f, false);
			fault_disk_arm(&f.disk, at, 1, kinds[k]);
			settle(&f);
			append(&f, false);
			settle(&f);
			assert_int_equal(f.kept[1], 1);
			assert_int_equal(f.kept[2], 1);
			take_all(&f);
			assert_true(f.seen[1] >= 1 && f.seen[2] >= 1);
			end(&f);
		}
}

static void a_disk_that_takes_nothing_is_said_and_tried_again(void **state)
{
	static struct fixture f;

	(void)state;
	begin(&f, 20);
	append(&f, false);
	fault_disk_arm(&f.disk, 1, 1000, FAULT_EIO);
	settle(&f);
	settle(&f);
	assert_int_equal(f.kept[1], 2);
	fault_disk_arm(&f.disk, 1, 0, FAULT_NONE);
	append(&f, false);
	settle(&f);
	assert_int_equal(f.kept[2], 1);
	take_all(&f);
	assert_int_equal(f.seen[2], 1);
	end(&f);
}

static void damaged_records_are_told_and_passed_over(void **state)
{
	static struct fixture f;
	char name[64];

	(void)state;
	begin(&f, 21);
	for (int i = 0; i < 40; i++) {
		append(&f, false);
		settle(&f);
	}
	snprintf(name, sizeof(name), "%016x.fifo", 1);
	fault_disk_rot(&f.disk, DISK_JOURNAL, name, 40000, 40100, 8);
	take_all(&f);
	assert_int_equal(f.corruptions, 1);
	assert_true(f.seen[1] == 1 && f.seen[40] == 1);
	assert_int_equal(f.disk.cached_count[DISK_QUARANTINE], 1);
	end(&f);
}

static void a_damaged_header_costs_one_file(void **state)
{
	static struct fixture f;
	char name[64];
	uint64_t count;

	(void)state;
	begin(&f, 22);
	for (int i = 0; i < 100; i++) {
		append(&f, false);
		settle(&f);
	}
	snprintf(name, sizeof(name), "%016x.fifo", 1);
	fault_disk_rot(&f.disk, DISK_JOURNAL, name, 0, 60, 8);
	restart(&f, false, 1);
	count = take_all(&f);
	assert_true(count > 0 && count < 100 && f.seen[100] == 1 && f.seen[1] == 0);
	assert_int_equal(f.corruptions, 1);
	end(&f);
}

static int no_descriptor(struct disk *disk, enum disk_area area, const char *name, int *fd, uint64_t *size)
{
	(void)disk, (void)area, (void)name, (void)fd, (void)size;
	return -EMFILE;
}

/* F15: a file that cannot be opened now is no damage. */
static void without_descriptors_it_waits(void **state)
{
	static struct fixture f;
	int (*open)(struct disk *, enum disk_area, const char *, int *, uint64_t *);

	(void)state;
	begin(&f, 24);
	for (int i = 0; i < 100; i++)
		append(&f, false);
	settle(&f);
	restart(&f, false, 1);
	open = f.disk.disk.open;
	f.disk.disk.open = no_descriptor;
	assert_int_equal(take_all(&f), 0);
	f.disk.disk.open = open;
	assert_int_equal(take_all(&f), 100);
	assert_int_equal(f.corruptions, 0);
	end(&f);
}

/* An error that passes must not cost what it hid. */
static void reads_that_fail_are_tried_again(void **state)
{
	(void)state;
	for (uint32_t good = 0; good < 12; good++) {
		static struct fixture f;
		begin(&f, 25);
		for (int i = 0; i < 100; i++)
			append(&f, false);
		settle(&f);
		restart(&f, false, 1);
		f.disk.good_reads = good;
		f.disk.bad_reads = 2;
		assert_int_equal(take_all(&f), 100);
		assert_int_equal(f.corruptions, 0);
		end(&f);
	}
}

static void a_lost_position_repeats_and_loses_nothing(void **state)
{
	static struct fixture f;

	(void)state;
	begin(&f, 23);
	for (int i = 0; i < 20; i++)
		append(&f, false);
	settle(&f);
	assert_int_equal(take(&f, 5), 5);
	fault_disk_rot(&f.disk, DISK_JOURNAL, "position", 0, 8192, 2000);
	restart(&f, false, 1);
	assert_int_equal(take_all(&f), 20);
	end(&f);
}

/*
 * A life of appends, turns, syncs, reads, kills, power cuts and faults. What was promised is read at least once; what
 * is read is what was appended; without a power cut or a fault nothing is read twice and the order is kept.
 */
static void a_history(uint64_t seed, bool with_power, bool with_faults)
{
	static struct fixture f;
	struct rng_seeded rng;
	uint64_t before = 0;

	begin(&f, seed);
	rng_seeded_init(&rng, seed * 31 + 7);
	for (int step = 0; step < 600; step++) {
		switch (rng_below(&rng.rng, 12)) {
		case 0:
		case 1:
		case 2:
		case 3: append(&f, rng_below(&rng.rng, 2)); break;
		case 4:
		case 5:
		case 6: fifo_turn(f.fifo); break;
		case 7:
		case 8: fault_disk_finish(&f.disk); break;
		case 9:
		case 10:
			before = f.last;
			if (take(&f, 1 + rng_below(&rng.rng, 5)) > 0 && !with_power && !with_faults)
				assert_true(f.last > before);
			break;
		default:
			if (with_faults && rng_below(&rng.rng, 4) == 0)
				fault_disk_arm(&f.disk, 1 + rng_below(&rng.rng, 4), 1 + rng_below(&rng.rng, 3),
					       rng_below(&rng.rng, 2) ? FAULT_EIO : FAULT_SHORT);
			else if (rng_below(&rng.rng, 4) == 0)
				restart(&f, with_power && rng_below(&rng.rng, 2), rng_u64(&rng.rng));
		}
	}
	fault_disk_arm(&f.disk, 1, 0, FAULT_NONE);
	settle(&f);
	restart(&f, false, 1);
	take_all(&f);
	for (uint64_t i = 1; i <= f.appended; i++) {
		if (f.kept[i] == 1 && f.seen[i] == 0)
			fail_msg("seed %llu: record %llu was promised and is lost", (unsigned long long)seed,
				 (unsigned long long)i);
		if (!with_power && !with_faults)
			assert_in_range(f.seen[i], 0, 1);
	}
	if (!with_power && !with_faults)
		assert_int_equal(f.corruptions, 0);
	end(&f);
}

static void histories(void **state)
{
	uint64_t first = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 10) : 1;
	uint64_t count = getenv("SEED") ? 1 : 100;

	(void)state;
	for (uint64_t seed = first; seed < first + count; seed++) {
		a_history(seed, false, false);
		a_history(seed, true, false);
		a_history(seed, true, true);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_goes_in_comes_out_in_order),
	    cmocka_unit_test(only_what_is_synced_is_read),
	    cmocka_unit_test(what_is_not_dropped_comes_again),
	    cmocka_unit_test(a_record_of_any_size_and_none_too_large),
	    cmocka_unit_test(a_full_one_says_so_and_keeps_room_for_what_matters),
	    cmocka_unit_test(who_is_forgotten_is_not_called),
	    cmocka_unit_test(a_failed_sync_goes_to_a_new_file),
	    cmocka_unit_test(a_disk_that_takes_nothing_is_said_and_tried_again),
	    cmocka_unit_test(damaged_records_are_told_and_passed_over),
	    cmocka_unit_test(a_damaged_header_costs_one_file),
	    cmocka_unit_test(without_descriptors_it_waits),
	    cmocka_unit_test(reads_that_fail_are_tried_again),
	    cmocka_unit_test(a_lost_position_repeats_and_loses_nothing),
	    cmocka_unit_test(histories),
	};
	return cmocka_run_group_tests_name("fifo", tests, NULL, NULL);
}
