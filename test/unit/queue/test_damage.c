/*
 * What a worn disk does to a living queue: sectors that cannot be read, damaged messages and the copies of them, room
 * that is less than the file system says.
 */
#include "support_box.h"

#include "base/base.h"
#include "queue/internal.h"

#include <errno.h>

#define SEGMENT (64 * 1024)
#define PIECE 2048
#define TEN_MINUTES_MS (10 * 60 * 1000)

static char noise[40000];

/* ---- A disk with a few faults that stay ---- */

/* What the fault disk does not know: places and areas that fail for ever. */
static struct {
	struct disk plain; /* the functions that these stand before */
	int bad_fd;	   /* octets from .. to of it cannot be read */
	uint64_t from, to;
	unsigned bad_reads;
	const char *name;   /* of that file, once it is opened again */
	bool no_quarantine; /* what is written there fails ... */
	int quarantine_fd;
	unsigned quarantine_files; /* ... so often */
	uint64_t quarantine_room;  /* a file of it may have so many octets; 0: any */
	uint64_t claimed_bytes;	   /* what the file system says is free; 0: what is */
} worn;

static int worn_open(struct disk *disk, enum disk_area area, const char *name, int *fd, uint64_t *size)
{
	int rc = worn.plain.open(disk, area, name, fd, size);

	if (rc == 0 && worn.name && strcmp(name, worn.name) == 0)
		worn.bad_fd = *fd;
	return rc;
}

static ssize_t worn_read(struct disk *disk, int fd, void *out, size_t len, uint64_t offset)
{
	if (fd == worn.bad_fd && offset < worn.to && offset + len > worn.from) {
		worn.bad_reads++;
		return -EIO;
	}
	return worn.plain.read(disk, fd, out, len, offset);
}

static int worn_create(struct disk *disk, enum disk_area area, const char *name, uint64_t size, int *fd)
{
	int rc = worn.plain.create(disk, area, name, size, fd);

	if (rc == 0 && area == DISK_QUARANTINE) {
		worn.quarantine_fd = *fd;
		worn.quarantine_files++;
	}
	return rc;
}

static int worn_write(struct disk *disk, int fd, const void *bytes, size_t len, uint64_t offset)
{
	if (worn.no_quarantine && fd == worn.quarantine_fd)
		return -EIO;
	if (worn.quarantine_room && fd == worn.quarantine_fd && offset + len > worn.quarantine_room)
		return -ENOSPC;
	return worn.plain.write(disk, fd, bytes, len, offset);
}

static int worn_free_bytes(struct disk *disk, uint64_t *bytes)
{
	int rc = worn.plain.free_bytes(disk, bytes);

	if (worn.claimed_bytes)
		*bytes = worn.claimed_bytes;
	return rc;
}

static int setup(void **state)
{
	struct box *box = xcalloc(1, sizeof(*box));
	struct disk *disk = &box->disk.disk;

	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (char)(i * 31 + i / 7 + i / 1999);
	box_init(box, SEGMENT);
	memset(&worn, 0, sizeof(worn));
	worn.plain = *disk;
	worn.bad_fd = worn.quarantine_fd = -1;
	disk->open = worn_open;
	disk->read = worn_read;
	disk->create = worn_create;
	disk->write = worn_write;
	disk->free_bytes = worn_free_bytes;
	assert_true(box_open(box));
	box_settle(box);
	*state = box;
	return 0;
}

static const struct segment *segment_of(const struct box *box, struct record_place place)
{
	return segments_find(&box->queue->segments, place.segment);
}

static void damage(struct box *box, struct record_place place)
{
	uint64_t at = (uint64_t)place.at8 * RECORD_ALIGN;

	fault_disk_rot(&box->disk, DISK_JOURNAL, segment_of(box, place)->name, at, at + 8, 1);
}

/* Mail that comes and goes, until the journal would like to be compacted. */
static void pass_mail(struct box *box, int count)
{
	for (int i = 0; i < count; i++)
		queue_delete(box->queue, box_submit(box, 1, slice_of(noise, 3000)));
}

/* Turns as the loop would make them in this time; how many. */
static unsigned turns_in(struct box *box, int64_t span_ms)
{
	int64_t end = clock_mono_ms(&box->clock.clock) + span_ms;
	unsigned turns = 0;

	while (turns < 100000) {
		int64_t deadline, now = clock_mono_ms(&box->clock.clock);
		queue_turn(box->queue);
		turns++;
		if (fault_disk_finish(&box->disk))
			continue;
		deadline = queue_next_deadline_ms(box->queue);
		if (deadline > end)
			break;
		if (deadline > now)
			clock_virtual_advance(&box->clock, deadline - now);
	}
	clock_virtual_advance(&box->clock, end - clock_mono_ms(&box->clock.clock));
	return turns;
}

static void assert_within_bound(struct box *box)
{
	struct queue_stats stats;

	queue_stats(box->queue, &stats);
	assert_true(stats.journal_bytes <= 2 * stats.live_bytes + 4 * SEGMENT);
}

/* ---- Sectors that cannot be read ---- */

static void a_record_that_cannot_be_read_does_not_keep_the_disk_busy(void **state)
{
	struct box *box = *state;
	uint64_t id = box_submit(box, 1, slice_of(noise, 1500));
	struct record_place place = index_find(box->queue->index, id)->message;

	worn.bad_fd = segment_of(box, place)->fd;
	worn.from = (uint64_t)place.at8 * RECORD_ALIGN;
	worn.to = worn.from + 512;
	pass_mail(box, 200);
	worn.bad_reads = 0;
	for (int i = 0; i < 600; i++) /* something happens each second */
		turns_in(box, 1000);
	assert_in_range(worn.bad_reads, 1, 100);
	assert_int_equal(box->told, 1); /* once, not at each try */
	/* It is no damage yet: the cable may be put back. */
	worn.bad_fd = -1;
	turns_in(box, TEN_MINUTES_MS);
	assert_within_bound(box);
	assert_int_equal(box_check(box, id, slice_of(noise, 1500)), 1);
	assert_true(index_find(box->queue->index, id)->message.segment > place.segment);
}

static void one_bad_sector_of_two_headers_costs_nothing(void **state)
{
	struct box *box = *state;
	uint64_t ids[40];
	char name[SEGMENT_NAME_MAX];
	struct record_place place;

	for (int i = 0; i < 40; i++)
		ids[i] = box_submit(box, 1, slice_of(noise + i, 3000));
	box_settle(box);
	place = index_find(box->queue->index, ids[0])->message;
	memcpy(name, segment_of(box, place)->name, sizeof(name));
	for (uint64_t block = 0; block < 2; block++) {
		box_kill(box);
		worn.name = name;
		worn.from = block * RECORD_BLOCK + 512;
		worn.to = worn.from + 512;
		assert_true(box_open(box));
		assert_int_equal(box->told, 0);
		assert_int_equal(box_count(box), 40);
	}
	worn.bad_fd = -1;
	for (int i = 0; i < 40; i++)
		assert_int_equal(box_check(box, ids[i], slice_of(noise + i, 3000)), 1);
}

/* ---- Damaged messages ---- */

/* A message whose first pieces stand in an older segment than the rest. */
static uint64_t submit_over_segments(struct box *box, struct slice content)
{
	struct queue_recipient recipient = {.address = SLICE("someone@example.org")};
	struct queue_envelope envelope = {.arrived_wall = BOX_WALL_MS, .recipients = &recipient, .recipient_count = 1};
	struct queue_upload *upload = queue_upload_begin(box->queue, NULL);
	uint64_t id = queue_upload_id(upload), others[60];

	for (int i = 0; i < 60; i++) { /* much that is needed, so that nothing is moved */
		if (i == 40)
			assert_int_equal(queue_upload_append(upload, slice_to(content, 3 * PIECE + 100)), 0);
		others[i] = box_submit(box, 1, slice_of(noise, 3000));
	}
	assert_int_equal(queue_upload_append(upload, slice_from(content, 3 * PIECE + 100)), 0);
	assert_int_equal(queue_upload_commit(&upload, &envelope, NULL, NULL), 0);
	box_sync(box);
	for (int i = 0; i < 60; i++)
		queue_delete(box->queue, others[i]);
	return id;
}

static void what_could_not_be_put_aside_is_when_there_is_room_again(void **state)
{
	struct box *box = *state;
	struct slice content = slice_of(noise, 6 * PIECE);
	uint64_t id = submit_over_segments(box, content);
	struct slot *slot = index_find(box->queue->index, id);
	struct index_place piece = slot->u.extra->pieces[1];

	assert_true(piece.at.segment < slot->message.segment);
	damage(box, piece.at);
	worn.no_quarantine = true;
	assert_int_equal(box_check(box, id, content), 0);
	assert_int_equal(box->told, 1);
	pass_mail(box, 200);
	assert_in_range(turns_in(box, TEN_MINUTES_MS), 1, 2000);
	/* What is half a copy is no evidence, and takes room. */
	assert_int_equal(box->disk.cached_count[DISK_QUARANTINE], 0);
	assert_in_range(worn.quarantine_files, 2, 100);
	worn.no_quarantine = false;
	turns_in(box, TEN_MINUTES_MS);
	assert_within_bound(box);
	assert_int_equal(box_count(box), 0);
	assert_true(box_quarantined(box, slice_of(noise, PIECE)));
	assert_true(box_quarantined(box, slice_of(noise + 5 * PIECE, PIECE)));
}

/* A message of so many pieces, the third damaged, in a journal that nobody has open. */
static void leave_broken(struct box *box, size_t pieces)
{
	uint64_t id = box_submit(box, 1, slice_of(noise, pieces * PIECE));

	box_settle(box);
	damage(box, index_find(box->queue->index, id)->u.extra->pieces[2].at);
	box_kill(box);
}

/* At a start as in life: all that is left of it may be wanted by a person. */
static void the_sound_pieces_of_a_broken_message_are_evidence_too(void **state)
{
	struct box *box = *state;

	leave_broken(box, 6);
	assert_true(box_open(box));
	assert_int_equal(box->report.quarantined, 1);
	assert_int_equal(box_count(box), 0);
	for (size_t i = 0; i < 6; i++)
		if (i != 2)
			assert_true(box_quarantined(box, slice_of(noise + i * PIECE, PIECE)));
}

static void evidence_of_an_earlier_life_is_neither_taken_for_this_nor_lost(void **state)
{
	struct box *box = *state;
	uint64_t id = box_submit(box, 1, slice_of(noise, 700)), size;
	struct slot *slot = index_find(box->queue->index, id);
	char old[5000], record[32];
	const char *bytes;
	int fd;

	box_submit(box, 1, slice_of(noise, 700)); /* keeps the segment */
	box_settle(box);
	damage(box, slot->message);
	bytes = fault_disk_bytes(&box->disk, DISK_JOURNAL, segment_of(box, slot->message)->name, &size);
	memcpy(record, bytes + (uint64_t)slot->message.at8 * RECORD_ALIGN, sizeof(record));
	box_kill(box);
	assert_true(box_open(box));
	assert_int_equal(box->disk.cached_count[DISK_QUARANTINE], 1);
	/* As if the journal had been thrown away, and this was from before. */
	bytes = fault_disk_bytes(&box->disk, DISK_QUARANTINE, fault_disk_name(&box->disk, DISK_QUARANTINE, 0), &size);
	assert_in_range(size, 1, sizeof(old));
	memset(old, 'x', sizeof(old));
	assert_int_equal(worn.plain.open(&box->disk.disk, DISK_QUARANTINE,
					 fault_disk_name(&box->disk, DISK_QUARANTINE, 0), &fd, &size),
			 0);
	assert_int_equal(worn.plain.write(&box->disk.disk, fd, old, size, 0), 0);
	worn.plain.close(&box->disk.disk, fd);
	box_kill(box);
	for (int start = 0; start < 3; start++) {
		assert_true(box_open(box));
		assert_true(box_quarantined(box, slice_of(record, sizeof(record))));
		assert_true(box_quarantined(box, slice_of(old, size)));
		assert_int_equal(box->disk.cached_count[DISK_QUARANTINE], 2);
		box_kill(box);
	}
}

/* Without its MESSAGE nobody knows whose they are, but for the id that can still be read. */
static void pieces_whose_message_is_damaged_are_evidence(void **state)
{
	struct box *box = *state;
	uint64_t id = box_submit(box, 1, slice_of(noise, 6 * PIECE)), at;
	struct record_place place = index_find(box->queue->index, id)->message;

	box_settle(box);
	at = (uint64_t)place.at8 * RECORD_ALIGN + RECORD_HEADER_BYTES;
	fault_disk_rot(&box->disk, DISK_JOURNAL, segment_of(box, place)->name, at, at + 8, 1);
	box_kill(box);
	assert_true(box_open(box));
	assert_int_equal(box_count(box), 0);
	assert_true(box_quarantined(box, SLICE("someone@example.org")));
	for (size_t i = 0; i < 6; i++)
		assert_true(box_quarantined(box, slice_of(noise + i * PIECE, PIECE)));
}

/* On a full disk what must be there for a start is the room for it, and the MESSAGE is worth more than the pieces. */
static void pieces_that_find_no_room_do_not_stop_a_start(void **state)
{
	struct box *box = *state;

	leave_broken(box, 17);
	worn.quarantine_room = 2 * PIECE;
	assert_true(box_open(box));
	assert_int_equal(box->report.quarantined, 1);
	assert_true(box_quarantined(box, SLICE("someone@example.org")));
	assert_false(box_quarantined(box, slice_of(noise + 3 * PIECE, PIECE)));
}

/* ---- Room ---- */

/* A quota, or no inode left: the file system says that there is room, and files cannot be made. */
static void where_a_quota_ends_results_are_recorded_and_mail_is_taken_again(void **state)
{
	struct box *box = *state;
	struct queue_recipient recipient = {.address = SLICE("someone@example.org")};
	struct queue_envelope envelope = {.arrived_wall = BOX_WALL_MS, .recipients = &recipient, .recipient_count = 1};
	uint64_t id;
	unsigned accepted = 0, done = 0;

	worn.claimed_bytes = 1000 * SEGMENT;
	box->disk.capacity = 8 * SEGMENT;
	for (int i = 0; i < 1000; i++) {
		struct queue_upload *upload = queue_upload_begin(box->queue, NULL);
		if (!upload)
			break;
		assert_int_equal(queue_upload_append(upload, slice_of(noise, 1500)), 0);
		accepted += queue_upload_commit(&upload, &envelope, NULL, NULL) == 0;
		turns_in(box, 20);
	}
	assert_int_equal(queue_may_accept(box->queue), ERR_NO_SPACE);
	assert_in_range(accepted, 100, 400);
	turns_in(box, 20000);
	while (queue_pop_due(box->queue, INT64_MAX - 1, &id)) {
		queue_delete(box->queue, id);
		done++;
		turns_in(box, 20);
	}
	turns_in(box, 20000);
	assert_int_equal(queue_may_accept(box->queue), 0);
	assert_int_equal(journal_unsynced_bytes(box->queue->journal), 0);
	assert_int_equal(box_count(box), 0);
	assert_true(done > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_record_that_cannot_be_read_does_not_keep_the_disk_busy, setup,
					    box_teardown),
	    cmocka_unit_test_setup_teardown(one_bad_sector_of_two_headers_costs_nothing, setup, box_teardown),
	    cmocka_unit_test_setup_teardown(what_could_not_be_put_aside_is_when_there_is_room_again, setup,
					    box_teardown),
	    cmocka_unit_test_setup_teardown(the_sound_pieces_of_a_broken_message_are_evidence_too, setup, box_teardown),
	    cmocka_unit_test_setup_teardown(evidence_of_an_earlier_life_is_neither_taken_for_this_nor_lost, setup,
					    box_teardown),
	    cmocka_unit_test_setup_teardown(pieces_whose_message_is_damaged_are_evidence, setup, box_teardown),
	    cmocka_unit_test_setup_teardown(pieces_that_find_no_room_do_not_stop_a_start, setup, box_teardown),
	    cmocka_unit_test_setup_teardown(where_a_quota_ends_results_are_recorded_and_mail_is_taken_again, setup,
					    box_teardown),
	};

	return cmocka_run_group_tests_name("damage", tests, NULL, NULL);
}
