/* Single faults, one by one, as the table of the promise lists them. */
#include "support_box.h"
#include "support_spool.h"

#include "base/base.h"
#include "queue/internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define SEGMENT (64 * 1024)

static char noise[20000];

struct answers {
	uint64_t ids[200];
	int codes[200];
	uint32_t count;
};

static void on_answer(void *ctx, uint64_t id, enum err_code code)
{
	struct answers *answers = ctx;

	answers->ids[answers->count] = id;
	answers->codes[answers->count++] = code;
}

static uint64_t commit(struct box *box, struct slice content, struct answers *answers)
{
	struct queue_recipient recipient = {.address = SLICE("someone@example.org")};
	struct queue_envelope envelope = {.sender = SLICE("a@example.com"),
					  .arrived_wall = clock_wall_ms(&box->clock.clock),
					  .recipients = &recipient,
					  .recipient_count = 1};
	struct queue_upload *upload = queue_upload_begin(box->queue, NULL);
	uint64_t id;

	assert_non_null(upload);
	id = queue_upload_id(upload);
	assert_int_equal(queue_upload_append(upload, content), 0);
	assert_int_equal(queue_upload_commit(&upload, &envelope, on_answer, answers), 0);
	return id;
}

static void open_box(struct box *box)
{
	box_init(box, SEGMENT);
	assert_true(box_open(box));
	box_settle(box);
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (char)(i * 31 + i / 7);
}

static void reopen(struct box *box)
{
	box_kill(box);
	assert_true(box_open(box));
}

static const char *name_of(struct box *box, uint32_t segment)
{
	return segments_find(&box->queue->segments, segment)->name;
}

/* ---- Failing writes and syncs ---- */

static void check_one_failure(enum fault_kind kind)
{
	static struct box box;
	struct answers answers = {0};
	uint64_t before, id;

	open_box(&box);
	before = box_submit(&box, 1, SLICE("before"));
	fault_disk_arm(&box.disk, kind == FAULT_DIED ? 2 : 1, 1, kind);
	id = commit(&box, SLICE("body"), &answers);
	box_sync(&box);
	assert_int_equal(answers.count, 1);
	assert_int_equal(answers.codes[0], 0);
	reopen(&box);
	assert_int_equal(box_check(&box, id, SLICE("body")), 1);
	assert_int_equal(box_check(&box, before, SLICE("before")), 1);
	assert_int_equal(box.told, 0);
	box_fini(&box);
}

/* J5, J7, J8, J9 */
static void one_failure_is_mended_by_a_new_segment(void **state)
{
	(void)state;
	check_one_failure(FAULT_EIO);
	check_one_failure(FAULT_ENOSPC);
	check_one_failure(FAULT_SHORT);
	check_one_failure(FAULT_DIED);
}

static void check_two_failures(enum fault_kind kind, enum err_code answer, int intake)
{
	static struct box box;
	struct answers answers = {0};
	struct queue_stats stats;
	uint64_t before, refused, after;

	open_box(&box);
	before = box_submit(&box, 1, SLICE("before"));
	fault_disk_arm(&box.disk, 1, 2, kind);
	refused = commit(&box, SLICE("refused"), &answers);
	for (int i = 0; i < 6; i++) {
		queue_turn(box.queue);
		fault_disk_finish(&box.disk);
	}
	assert_int_equal(answers.count, 1);
	assert_int_equal(answers.codes[0], answer);
	assert_int_equal(queue_may_accept(box.queue), intake);
	assert_null(queue_upload_begin(box.queue, NULL));
	/* Results wait in memory; deliveries go on. */
	assert_true(queue_may_deliver(box.queue));
	box_result(&box, before, 0, OUTCOME_DEFERRED);
	queue_turn(box.queue);
	queue_stats(box.queue, &stats);
	assert_true(stats.unsynced_bytes > 0);
	assert_int_equal(stats.errors, 2);
	/* Another try a few seconds later, without a hand. */
	clock_virtual_advance(&box.clock, 3000);
	box_sync(&box);
	assert_int_equal(queue_may_accept(box.queue), 0);
	after = box_submit(&box, 1, SLICE("after"));
	reopen(&box);
	assert_int_equal(box_check(&box, before, SLICE("before")), 1);
	assert_int_equal(box_check(&box, refused, SLICE("refused")), -1);
	assert_int_equal(box_check(&box, after, SLICE("after")), 1);
	box_fini(&box);
}

/* J6, J7, J8, J9 */
static void two_failures_running_are_told_to_all_who_wait(void **state)
{
	(void)state;
	check_two_failures(FAULT_EIO, ERR_IO, ERR_IO);
	check_two_failures(FAULT_ENOSPC, ERR_NO_SPACE, ERR_NO_SPACE);
}

/* J12 */
static void a_sync_that_takes_long_stops_nothing(void **state)
{
	static struct box box;
	struct answers answers = {0};

	(void)state;
	open_box(&box);
	commit(&box, SLICE("one"), &answers);
	queue_turn(box.queue);
	for (int second = 0; second < 30; second++) {
		clock_virtual_advance(&box.clock, 1000);
		commit(&box, SLICE("more"), &answers);
		queue_turn(box.queue);
		assert_int_equal(queue_may_accept(box.queue), 0);
	}
	assert_int_equal(answers.count, 0);
	box_sync(&box);
	assert_int_equal(answers.count, 31);
	box_fini(&box);
}

/* J13 */
static void a_group_stands_or_falls_together(void **state)
{
	static struct box box;
	struct answers answers = {0};

	(void)state;
	open_box(&box);
	for (int i = 0; i < 100; i++)
		commit(&box, SLICE("one of many"), &answers);
	fault_disk_arm(&box.disk, 2, 1, FAULT_EIO); /* the sync */
	queue_turn(box.queue);
	fault_disk_finish(&box.disk);
	queue_turn(box.queue);
	assert_int_equal(answers.count, 0);
	box_sync(&box);
	assert_int_equal(answers.count, 100);
	for (uint32_t i = 0; i < answers.count; i++)
		assert_int_equal(answers.codes[i], 0);
	reopen(&box);
	assert_int_equal(box_count(&box), 100);
	box_fini(&box);
}

static void intake_pauses_while_too_much_is_unsynced(void **state)
{
	static struct box box;
	struct answers answers = {0};
	uint32_t count = 0;

	(void)state;
	box_init(&box, 16 << 20);
	box.options.piece_bytes = 0;
	assert_true(box_open(&box));
	box_settle(&box);
	while (queue_may_accept(box.queue) == 0 && count < 200) {
		static char large[60000];
		commit(&box, slice_of(large, sizeof(large)), &answers);
		count++;
	}
	assert_int_equal(queue_may_accept(box.queue), ERR_LIMIT);
	assert_in_range(count, 130, 150); /* 8 MiB */
	box_sync(&box);
	assert_int_equal(queue_may_accept(box.queue), 0);
	assert_int_equal(answers.count, count);
	box_fini(&box);
}

/* ---- The end of the journal ---- */

/* J14, J15 */
static void a_tail_cut_at_each_octet_costs_only_the_last_batch(void **state)
{
	static struct box box, copy;
	struct answers answers = {0};
	uint64_t ids[3], last, size, start;
	char name[64];

	(void)state;
	open_box(&box);
	for (int i = 0; i < 3; i++)
		ids[i] = box_submit(&box, 1, slice_of(noise + i, 300));
	box_settle(&box);
	start = segments_find(&box.queue->segments, journal_current(box.queue->journal))->end;
	snprintf(name, sizeof(name), "%s", name_of(&box, journal_current(box.queue->journal)));
	last = commit(&box, SLICE("the last one"), &answers);
	queue_turn(box.queue);
	for (uint64_t at = start; at <= start + RECORD_BLOCK; at++) {
		char *bytes;
		int found;
		box_copy(&copy, &box);
		bytes = fault_disk_bytes(&copy.disk, DISK_JOURNAL, name, &size);
		memset(bytes + at, 0, size - at);
		assert_true(box_open(&copy));
		assert_int_equal(copy.report.corrupt_ranges + copy.report.suspect_ranges, 0);
		for (int i = 0; i < 3; i++)
			assert_int_equal(box_check(&copy, ids[i], slice_of(noise + i, 300)), 1);
		found = box_check(&copy, last, SLICE("the last one"));
		assert_true(found == -1 || (found == 1 && at > start + 100));
		assert_true(copy.report.torn_bytes > 0 || found == 1 || at < start + 8);
		box_fini(&copy);
	}
	box_fini(&box);
}

/* I10: relayctl has been told that it is gone. */
static void what_is_deleted_while_in_flight_does_not_come_back(void **state)
{
	(void)state;
	for (int moved = 0; moved < 2; moved++) {
		static struct box box;
		uint32_t taken[2];
		uint64_t id;
		open_box(&box);
		id = box_submit(&box, 2, SLICE("x"));
		assert_true(queue_pop_due(box.queue, BOX_WALL_MS, &id));
		assert_int_equal(queue_take_due(box.queue, id, BOX_WALL_MS, taken, 2), 2);
		assert_int_equal(queue_set_inflight(box.queue, id, 2), 0);
		box_result(&box, id, 0, OUTCOME_DEFERRED);
		assert_int_equal(queue_delete(box.queue, id), 0);
		box_settle(&box);
		assert_int_equal(box_count(&box), 1);
		for (int i = 0; moved && i < 300; i++)
			queue_delete(box.queue, box_submit(&box, 1, slice_of(noise, 3000)));
		box_settle(&box);
		reopen(&box);
		assert_int_equal(box_count(&box), 0);
		reopen(&box);
		assert_int_equal(box_count(&box), 0);
		assert_int_equal(box.told, 0);
		box_fini(&box);
	}
}

/* J16 */
static void old_bytes_behind_the_end_are_not_taken_for_new_ones(void **state)
{
	static struct box box;
	uint64_t old_size, size, end;
	char *bytes, old[SEGMENT];
	uint64_t kept;

	(void)state;
	open_box(&box);
	for (int i = 0; i < 12; i++)
		queue_delete(box.queue, box_submit(&box, 1, slice_of(noise, 3000)));
	memcpy(old, fault_disk_bytes(&box.disk, DISK_JOURNAL, name_of(&box, 1), &old_size), sizeof(old));
	kept = box_submit(&box, 1, SLICE("kept"));
	box_settle(&box);
	reopen(&box);
	end = segments_find(&box.queue->segments, journal_current(box.queue->journal))->end;
	bytes = fault_disk_bytes(&box.disk, DISK_JOURNAL, name_of(&box, journal_current(box.queue->journal)), &size);
	memcpy(bytes + end, old + end, size - end);
	reopen(&box);
	assert_int_equal(box_count(&box), 1);
	assert_int_equal(box_check(&box, kept, SLICE("kept")), 1);
	box_fini(&box);
}

/* J18: A sound header that claims the impossible is bounded by the file. */
static void an_absurd_length_is_bounded(void **state)
{
	static struct box box;
	static const uint32_t lengths[] = {0, 1, SEGMENT, INT32_MAX, UINT32_MAX - 40, UINT32_MAX};
	uint64_t id;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		const struct segment *segment;
		struct record_header header = {.type = RECORD_DATA, .id = 1};
		uint64_t size;
		char *bytes, raw[RECORD_HEADER_BYTES];
		open_box(&box);
		id = box_submit(&box, 1, SLICE("kept"));
		box_settle(&box);
		segment = segments_find(&box.queue->segments, journal_current(box.queue->journal));
		bytes = fault_disk_bytes(&box.disk, DISK_JOURNAL, segment->name, &size);
		/* The header alone, summed as journal.h says. */
		record_seal(raw, &header, segment->header.nonce, segment->end);
		put_u32(raw + 8, lengths[i]);
		put_u32(raw, (uint32_t)XXH3_64bits_withSeed(raw + 4, 28, segment->header.nonce + segment->end));
		assert_true(record_open(raw, segment->header.nonce, segment->end, &header));
		memcpy(bytes + segment->end, raw, sizeof(raw));
		reopen(&box);
		assert_int_equal(box_check(&box, id, SLICE("kept")), 1);
		box_fini(&box);
	}
}

/* J19 */
static void a_block_in_the_wrong_place_is_noticed(void **state)
{
	static struct box box;
	uint64_t ids[6], size;
	char *bytes;
	uint32_t lost = 0;

	(void)state;
	open_box(&box);
	for (int i = 0; i < 6; i++)
		ids[i] = box_submit(&box, 1, slice_of(noise + i, 200));
	box_settle(&box);
	bytes = fault_disk_bytes(&box.disk, DISK_JOURNAL, name_of(&box, 1), &size);
	memcpy(bytes + SEGMENT_DATA_START + RECORD_BLOCK, bytes + SEGMENT_DATA_START + 3 * RECORD_BLOCK, RECORD_BLOCK);
	reopen(&box);
	for (int i = 0; i < 6; i++)
		lost += box_check(&box, ids[i], slice_of(noise + i, 200)) != 1;
	assert_int_equal(lost, 1);
	assert_true(box.report.corrupt_ranges > 0);
	box_fini(&box);
}

/* J20 */
static void a_missing_segment_is_a_loss_that_is_told(void **state)
{
	static struct box box;
	uint64_t ids[30];
	uint32_t lost = 0, there = 0;
	char name[64];

	(void)state;
	open_box(&box);
	for (int i = 0; i < 30; i++)
		ids[i] = box_submit(&box, 1, slice_of(noise + i, 5000));
	box_settle(&box);
	assert_true(box.queue->segments.count >= 4);
	snprintf(name, sizeof(name), "%s", box.queue->segments.items[1]->name);
	box_kill(&box);
	assert_int_equal(box.disk.disk.unlink(&box.disk.disk, DISK_JOURNAL, name), 0);
	assert_true(box_open(&box));
	assert_int_equal(box.report.segments_missing, 1);
	for (int i = 0; i < 30; i++) {
		if (box_check(&box, ids[i], slice_of(noise + i, 5000)) == 1)
			there++;
		else
			lost++;
	}
	assert_true(lost > 0 && there > 15);
	box_fini(&box);
}

static void a_read_error_that_passes_costs_nothing(void **state)
{
	static struct box box;
	struct queue_message message;
	uint64_t ids[30];

	(void)state;
	open_box(&box);
	for (int i = 0; i < 30; i++)
		ids[i] = box_submit(&box, 1, slice_of(noise + i, 4000));
	box_settle(&box);
	box.disk.bad_reads = 1;
	assert_int_equal(queue_read_envelope(box.queue, ids[0], 0, &message), ERR_IO);
	assert_int_equal(queue_read_envelope(box.queue, ids[0], 0, &message), 0);
	queue_message_free(&message);
	for (uint32_t at = 0; at < 40; at++) {
		box_kill(&box);
		box.disk.good_reads = at;
		box.disk.bad_reads = 3;
		assert_true(box_open(&box));
		assert_int_equal(box.told, 0);
		assert_int_equal(box_count(&box), 30);
		box.disk.good_reads = box.disk.bad_reads = 0;
	}
	for (int i = 0; i < 30; i++)
		assert_int_equal(box_check(&box, ids[i], slice_of(noise + i, 4000)), 1);
	box_fini(&box);
}

/* ---- Versions, clocks, copies ---- */

/* I13 */
static struct {
	const char *name;
	int error;
	int (*open)(struct disk *disk, enum disk_area area, const char *name, int *fd, uint64_t *size);
} locked;

static int open_unless_locked(struct disk *disk, enum disk_area area, const char *name, int *fd, uint64_t *size)
{
	return strcmp(name, locked.name) == 0 ? locked.error : locked.open(disk, area, name, fd, size);
}

static void a_segment_that_cannot_be_opened_refuses_the_start(void **state)
{
	static const struct {
		int error;
		enum err_code code;
	} rows[] = {{-EACCES, ERR_PERMISSION}, {-EPERM, ERR_PERMISSION}, {-EROFS, ERR_PERMISSION},
		    {-EMFILE, ERR_SYSTEM},     {-ESTALE, ERR_SYSTEM},	 {-EMLINK, ERR_SYSTEM}};
	static struct box box;
	uint64_t ids[30], ops;
	uint32_t count;
	char name[64];

	(void)state;
	open_box(&box);
	for (int i = 0; i < 30; i++)
		ids[i] = box_submit(&box, 1, slice_of(noise + i, 5000));
	box_settle(&box);
	count = box.queue->segments.count;
	for (uint32_t which = 0; which < count; which++) {
		snprintf(name, sizeof(name), "%s", box.queue->segments.items[which]->name);
		box_kill(&box);
		locked.name = name;
		locked.open = box.disk.disk.open;
		box.disk.disk.open = open_unless_locked;
		for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
			locked.error = rows[i].error;
			ops = box.disk.ops;
			assert_false(box_open(&box));
			assert_int_equal(box.err.code, rows[i].code);
			assert_non_null(strstr(box.err.text, name));
			assert_int_equal(box.disk.ops, ops + 1); /* the directory was synced, and that was all */
		}
		box.disk.disk.open = locked.open;
		assert_true(box_open(&box));
		assert_int_equal(box.told, 0);
		for (int i = 0; i < 30; i++)
			assert_int_equal(box_check(&box, ids[i], slice_of(noise + i, 5000)), 1);
		/* A restart makes a new newest segment; the older ones stay. */
		assert_true(box.queue->segments.count >= count);
	}
	box_fini(&box);
}

static void a_newer_journal_is_refused_untouched(void **state)
{
	static struct box box;
	uint64_t size, ops;
	char *bytes;

	(void)state;
	open_box(&box);
	box_submit(&box, 1, SLICE("x"));
	box_settle(&box);
	bytes = fault_disk_bytes(&box.disk, DISK_JOURNAL, name_of(&box, 1), &size);
	box_kill(&box);
	for (uint32_t copy = 0; copy < 2; copy++) {
		struct segment_header header;
		put_u16(bytes + copy * RECORD_BLOCK + 8, SEGMENT_VERSION + 1);
		assert_int_equal(segment_header_get(bytes, SEGMENT_DATA_START, &header), copy == 0 ? 1 : 0);
	}
	/* With a sound sum it is another version, not damage. */
	for (uint32_t copy = 0; copy < 2; copy++)
		put_u64(bytes + copy * RECORD_BLOCK + 120,
			XXH3_64bits_withSeed(bytes + copy * RECORD_BLOCK, 120, 0x52454c415944));
	ops = box.disk.ops;
	assert_false(box_open(&box));
	assert_int_equal(box.err.code, ERR_VERSION);
	assert_int_equal(box.disk.ops, ops + 1); /* the directory was synced, and that was all */
	box_fini(&box);
}

/* J27 */
static void times_from_the_future_are_clamped(void **state)
{
	static struct box box;
	struct queue_brief brief;
	uint64_t id;

	(void)state;
	open_box(&box);
	box.clock.wall += 100ll * 365 * 86400 * 1000;
	id = box_submit(&box, 1, SLICE("x"));
	box_result(&box, id, 0, OUTCOME_DEFERRED);
	box_settle(&box);
	box.clock.wall -= 100ll * 365 * 86400 * 1000;
	reopen(&box);
	assert_int_equal(queue_brief(box.queue, id, &brief), 0);
	assert_true(brief.next_attempt_wall <= box.clock.wall + 24 * 3600 * 1000);
	assert_true(brief.arrived_wall <= box.clock.wall);
	assert_true(box_submit(&box, 1, SLICE("y")) > id);
	box_fini(&box);
}

/* J29 */
static void a_copy_made_while_running_is_a_sound_journal(void **state)
{
	static struct box box, copy;
	struct answers answers = {0};
	uint64_t ids[40];

	(void)state;
	open_box(&box);
	for (uint32_t i = 0; i < 40; i++) {
		ids[i] = box_submit(&box, 1, slice_of(noise + i, 2500));
		commit(&box, slice_of(noise, 100), &answers);
		queue_turn(box.queue);
		box_copy(&copy, &box);
		assert_true(box_open(&copy));
		assert_int_equal(copy.told, 0);
		for (uint32_t k = 0; k <= i; k++)
			assert_int_equal(box_check(&copy, ids[k], slice_of(noise + k, 2500)), 1);
		box_fini(&copy);
		box_sync(&box);
	}
	box_fini(&box);
}

/* ---- Strange things in the folder, on the real disk ---- */

/* J20 */
static void strange_files_are_told_and_left_alone(void **state)
{
	struct spool spool;
	uint64_t id;
	int dir, fd;
	struct stat st;

	(void)state;
	spool_init(&spool);
	spool_open(&spool);
	id = spool_submit(&spool, 1, SLICE("x\r\n"));
	spool_close(&spool);
	dir = disk_real_journal_fd(spool.disk);
	assert_int_equal(mkdirat(dir, "seg-00000000000000d0", 0700), 0);
	assert_int_equal(mkfifoat(dir, "seg-00000000000000d1", 0600), 0);
	assert_int_equal(symlinkat("/etc/passwd", dir, "seg-00000000000000d2"), 0);
	fd = openat(dir, "seg-00000000000000d3", O_CREAT | O_WRONLY, 0600); /* empty */
	close(fd);
	fd = openat(dir, "seg-00000000000000d4", O_CREAT | O_WRONLY, 0600); /* one octet */
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
	fd = openat(dir, "notes.txt", O_CREAT | O_WRONLY, 0600);
	close(fd);
	spool_open(&spool);
	assert_int_equal(spool.report.messages, 1);
	spool_assert_content(&spool, id, SLICE("x\r\n"));
	assert_true(spool.corruptions >= 3);
	assert_int_equal(fstatat(dir, "seg-00000000000000d0", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(fstatat(dir, "seg-00000000000000d1", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(fstatat(dir, "seg-00000000000000d2", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(fstatat(dir, "notes.txt", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(fstatat(dir, "seg-00000000000000d3", &st, AT_SYMLINK_NOFOLLOW), -1);
	assert_int_equal(fstatat(dir, "seg-00000000000000d4", &st, AT_SYMLINK_NOFOLLOW), -1);
	spool_fini(&spool);
}

/* As after `cp -al`: whoever writes one changes both. */
static void a_segment_with_a_second_name_refuses_the_start(void **state)
{
	struct queue_options options = {0};
	struct queue_report report;
	struct spool spool;
	struct err err;
	uint64_t id;
	char name[64];
	int dir;

	(void)state;
	spool_init(&spool);
	spool_open(&spool);
	id = spool_submit(&spool, 1, SLICE("x\r\n"));
	snprintf(name, sizeof(name), "%s", spool.queue->segments.items[0]->name);
	options = spool.queue->options;
	spool_close(&spool);
	dir = disk_real_journal_fd(spool.disk);
	assert_int_equal(linkat(dir, name, dir, "copy", 0), 0);
	assert_null(queue_open(&options, &report, &err));
	assert_int_equal(err.code, ERR_SYSTEM);
	assert_non_null(strstr(err.text, name));
	assert_int_equal(unlinkat(dir, "copy", 0), 0);
	spool_open(&spool);
	spool_assert_content(&spool, id, SLICE("x\r\n"));
	spool_fini(&spool);
}

/* J21 */
static void the_lock_admits_one(void **state)
{
	struct spool spool;
	struct err err;
	int first, second;

	(void)state;
	spool_init(&spool);
	first = queue_lock(spool.fd, &err);
	assert_true(first >= 0);
	assert_int_equal(queue_lock(spool.fd, &err), ERR_LOCKED);
	close(first);
	second = queue_lock(spool.fd, &err);
	assert_true(second >= 0);
	close(second);
	spool_fini(&spool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(one_failure_is_mended_by_a_new_segment),
	    cmocka_unit_test(two_failures_running_are_told_to_all_who_wait),
	    cmocka_unit_test(a_sync_that_takes_long_stops_nothing),
	    cmocka_unit_test(a_group_stands_or_falls_together),
	    cmocka_unit_test(intake_pauses_while_too_much_is_unsynced),
	    cmocka_unit_test(a_tail_cut_at_each_octet_costs_only_the_last_batch),
	    cmocka_unit_test(what_is_deleted_while_in_flight_does_not_come_back),
	    cmocka_unit_test(old_bytes_behind_the_end_are_not_taken_for_new_ones),
	    cmocka_unit_test(an_absurd_length_is_bounded),
	    cmocka_unit_test(a_block_in_the_wrong_place_is_noticed),
	    cmocka_unit_test(a_missing_segment_is_a_loss_that_is_told),
	    cmocka_unit_test(a_read_error_that_passes_costs_nothing),
	    cmocka_unit_test(a_segment_that_cannot_be_opened_refuses_the_start),
	    cmocka_unit_test(a_newer_journal_is_refused_untouched),
	    cmocka_unit_test(times_from_the_future_are_clamped),
	    cmocka_unit_test(a_copy_made_while_running_is_a_sound_journal),
	    cmocka_unit_test(strange_files_are_told_and_left_alone),
	    cmocka_unit_test(a_segment_with_a_second_name_refuses_the_start),
	    cmocka_unit_test(the_lock_admits_one),
	};
	return cmocka_run_group_tests_name("recovery", tests, NULL, NULL);
}
