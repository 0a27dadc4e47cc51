#include "support_box.h"

#include "base/base.h"
#include "queue/internal.h"

static void on_corruption(void *ctx, uint64_t id, const char *text)
{
	struct box *box = ctx;

	(void)id;
	box->told++;
	snprintf(box->last_told, sizeof(box->last_told), "%s", text);
}

static void set_options(struct box *box, uint64_t segment_bytes)
{
	clock_virtual_init(&box->clock, BOX_WALL_MS);
	rng_seeded_init(&box->rng, 3);
	box->options = (struct queue_options){
	    .disk = &box->disk.disk,
	    .clock = &box->clock.clock,
	    .rng = &box->rng.rng,
	    .segment_bytes = segment_bytes,
	    .piece_bytes = 2048,
	    .notify = {box, .on_corruption = on_corruption},
	};
}

void box_init(struct box *box, uint64_t segment_bytes)
{
	*box = (struct box){0};
	fault_disk_init(&box->disk, 1000 * segment_bytes, 1);
	set_options(box, segment_bytes);
}

void box_copy(struct box *box, const struct box *from)
{
	*box = (struct box){0};
	fault_disk_copy(&box->disk, &from->disk);
	set_options(box, from->options.segment_bytes);
	box->clock.wall = from->clock.wall + 1000;
}

int box_teardown(void **state)
{
	box_fini(*state);
	free(*state);
	return 0;
}

bool box_open(struct box *box)
{
	box->err = (struct err){0};
	box->told = 0;
	box->queue = queue_open(&box->options, &box->report, &box->err);
	return box->queue != NULL;
}

void box_kill(struct box *box)
{
	if (box->queue)
		journal_free(&box->queue->journal);
	queue_close(&box->queue);
	fault_disk_crash(&box->disk, false, 0);
}

void box_fini(struct box *box)
{
	box_kill(box);
	fault_disk_fini(&box->disk);
}

void box_sync(struct box *box)
{
	for (int i = 0; i < 1000; i++) {
		queue_turn(box->queue);
		if (!fault_disk_finish(&box->disk) && journal_unsynced_bytes(box->queue->journal) == 0)
			return;
		if (box->disk.async_count == 0)
			clock_virtual_advance(&box->clock, 10);
	}
	fail_msg("the queue does not sync");
}

void box_settle(struct box *box)
{
	for (int i = 0; i < 10000; i++) {
		int64_t deadline, now = clock_mono_ms(&box->clock.clock);
		queue_turn(box->queue);
		if (fault_disk_finish(&box->disk))
			continue;
		deadline = queue_next_deadline_ms(box->queue);
		if (deadline == INT64_MAX)
			return;
		if (deadline > now)
			clock_virtual_advance(&box->clock, deadline - now);
	}
	fail_msg("the queue does not come to rest");
}

static void on_commit(void *ctx, uint64_t id, enum err_code result)
{
	int *answer = ctx;

	(void)id;
	*answer = result;
}

uint64_t box_submit(struct box *box, uint32_t recipients, struct slice content)
{
	struct queue_recipient list[16];
	struct queue_envelope envelope = {.sender = SLICE("a@example.com"),
					  .prefix = SLICE("Received: here\r\n"),
					  .arrived_wall = clock_wall_ms(&box->clock.clock),
					  .recipients = list,
					  .recipient_count = recipients};
	struct queue_upload *upload = queue_upload_begin(box->queue, NULL);
	int answer = 1;
	uint64_t id;

	assert_non_null(upload);
	for (uint32_t i = 0; i < recipients; i++)
		list[i] = (struct queue_recipient){.address = SLICE("someone@example.org")};
	id = queue_upload_id(upload);
	assert_int_equal(queue_upload_append(upload, content), 0);
	assert_int_equal(queue_upload_commit(&upload, &envelope, on_commit, &answer), 0);
	box_sync(box);
	assert_int_equal(answer, 0);
	return id;
}

void box_result(struct box *box, uint64_t id, uint32_t index, enum outcome_kind kind)
{
	struct outcome outcome = {.kind = kind, .class = CLASS_OTHER, .stage = STAGE_RCPT, .code = 451};
	struct queue_result result = {
	    .outcome = &outcome, .attempts = 1, .next_attempt_wall = clock_wall_ms(&box->clock.clock) + 1000};

	snprintf(outcome.text, sizeof(outcome.text), "come back later");
	assert_int_equal(queue_record_result(box->queue, id, index, &result), 0);
}

int box_check(struct box *box, uint64_t id, struct slice content)
{
	struct queue_content *reader;
	struct queue_brief brief;
	char bytes[5000];
	size_t at = 0;
	ssize_t n = 0;

	if (queue_brief(box->queue, id, &brief) < 0)
		return -1;
	reader = queue_content_open(box->queue, id, NULL);
	while (reader && (n = queue_content_read(reader, bytes, sizeof(bytes))) > 0) {
		assert_true(at + (size_t)n <= content.len);
		assert_memory_equal(bytes, content.ptr + at, n);
		at += (size_t)n;
	}
	if (reader && n == 0)
		assert_int_equal(at, content.len);
	n = reader ? n : -1;
	queue_content_close(&reader);
	return n == 0;
}

static void count_one(void *ctx, const struct queue_brief *brief)
{
	(void)brief;
	++*(uint64_t *)ctx;
}

uint64_t box_count(struct box *box)
{
	uint64_t cursor = 0, count = 0;

	queue_iterate(box->queue, &cursor, SIZE_MAX, count_one, &count);
	return count;
}

bool box_quarantined(struct box *box, struct slice bytes)
{
	for (uint32_t i = 0; i < box->disk.cached_count[DISK_QUARANTINE]; i++) {
		uint64_t size;
		const char *file = fault_disk_bytes(&box->disk, DISK_QUARANTINE,
						    fault_disk_name(&box->disk, DISK_QUARANTINE, i), &size);
		if (memmem(file, size, bytes.ptr, bytes.len))
			return true;
	}
	return false;
}
