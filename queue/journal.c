/*
 * The writer. `gather` holds what was appended and not written; `flight` the one batch that is written and being
 * synced. Records lie in both as they will lie in the file, but their headers are sealed only when the place is known,
 * so the same bytes can be written again elsewhere after a failure.
 */
#include "queue/journal_internal.h"

#include "base/base.h"
#include "queue/payload.h"

#include <stdio.h>
#include <stdlib.h>

#define COMMIT_DELAY_MS 10	/* results wait this long for company */
#define MARK_DELAY_MS 1000	/* a lone MARK after the last batch */
#define RETRY_MS 3000		/* after two failures running */
#define SPACE_LOOK_MS 1000	/* how old the figure of free space may be */
#define BULK_BYTES (512 * 1024) /* this much is written without waiting for company */
#define PAYLOAD_MAX (4u << 20)
#define ZERO_BATCH_BYTES (16 * 1024) /* behind a larger batch zeros are more than the metadata that they save */
#define ZERO_AHEAD_BYTES (64 * 1024)
#define WAITING_MAX (256u << 20) /* a last resort; queue_may_accept() stops intake at 8 MiB */

static const struct journal_rules all_kept;

int64_t journal_now_ms(const struct journal *journal)
{
	return clock_mono_ms(journal->options.clock);
}

static void note(const struct journal *journal, const char *text)
{
	const struct queue_notify *notify = journal->options.notify;

	if (notify->on_note)
		notify->on_note(notify->ctx, text);
}

struct buf *journal_append_begin(struct journal *journal)
{
	struct buf *bytes;
	char *at;

	BUG_ON(journal->open);
	journal->open = gather_open(&journal->gather);
	bytes = &journal->open->bytes;
	journal->begun = buf_len(bytes);
	at = buf_reserve(bytes, RECORD_HEADER_BYTES);
	if (at) {
		memset(at, 0, RECORD_HEADER_BYTES);
		buf_commit(bytes, RECORD_HEADER_BYTES);
	}
	return bytes;
}

void journal_append_cancel(struct journal *journal)
{
	BUG_ON(!journal->open);
	buf_truncate(&journal->open->bytes, journal->begun);
	journal->open = NULL;
}

static void stamp_header(struct batch *batch, const struct journal_item *item)
{
	struct record_header header = {
	    .length = item->length, .type = item->type, .index = item->index, .id = item->id};

	record_stamp(batch->bytes.data + batch->bytes.start + item->at, &header);
}

int journal_append_end(struct journal *journal, const struct journal_item *item)
{
	struct batch *batch = journal->open;
	struct journal_item added = *item;
	size_t whole, pad;
	char *at = NULL;

	BUG_ON(!batch);
	whole = buf_len(&batch->bytes) - journal->begun;
	if (whole < RECORD_HEADER_BYTES || whole - RECORD_HEADER_BYTES > journal_payload_max(journal) ||
	    journal_unsynced_bytes(journal) > WAITING_MAX) {
		journal_append_cancel(journal);
		return ERR_LIMIT;
	}
	added.length = (uint32_t)(whole - RECORD_HEADER_BYTES);
	added.at = (uint32_t)journal->begun;
	pad = record_bytes(added.length) - whole;
	at = buf_reserve(&batch->bytes, pad);
	if (!at) {
		journal_append_cancel(journal);
		return ERR_LIMIT;
	}
	memset(at, 0, pad);
	buf_commit(&batch->bytes, pad);
	stamp_header(batch, &added);
	journal->open = NULL;
	journal->counts.appended_bytes += record_bytes(added.length);
	batch_add(batch, &added, journal_now_ms(journal));
	return 0;
}

uint32_t journal_payload_max(const struct journal *journal)
{
	uint64_t room = journal->options.segment_bytes - SEGMENT_DATA_START - RECORD_HEADER_BYTES -
			record_bytes(PAYLOAD_MARK_BYTES) - RECORD_ALIGN;

	return (uint32_t)MIN(room, (uint64_t)PAYLOAD_MAX);
}

static void refuse_intake_of(struct journal *journal, struct batch *batch, enum err_code why)
{
	struct batch old = *batch;

	if (!old.has_intake)
		return;
	batch_init(batch);
	batch_copy(batch, &old, 0, old.count, true);
	for (uint32_t i = 0; i < old.count; i++)
		if (old.items[i].is_intake)
			journal->options.on_refused(journal->options.ctx, &old.items[i], why);
	batch_fini(&old);
}

/* Tells those who wait for a 250 that it will not come, and takes their records out. */
void journal_refuse_intake(struct journal *journal, enum err_code why)
{
	for (uint32_t i = 0; i < journal->gather.count; i++)
		refuse_intake_of(journal, &journal->gather.batches[i], why);
}

/* ---- Failure ---- */

/* Only a broken rule asks for it: pieces left memory when they were written. */
static void forget_pieces(struct batch *batch)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < batch->count; i++)
		if (batch->items[i].type != RECORD_DATA)
			batch->items[kept++] = batch->items[i];
	batch->count = kept;
}

/* What was in flight comes first again, in its old order, without the MARK and the zeros that ended it. */
static void take_back_flight(struct journal *journal)
{
	struct batch *flight = &journal->flight;
	const struct journal_item *last;

	if (journal->rules->forget_unsynced)
		forget_pieces(flight);
	if (flight->count == 0) {
		batch_clear(flight);
		return;
	}
	last = &flight->items[flight->count - 1];
	buf_truncate(&flight->bytes, last->at + record_bytes(last->length));
	gather_put_back(&journal->gather, flight);
}

static void fail(struct journal *journal, const char *what, int error)
{
	char reason[256];

	journal->counts.errors++;
	journal->failures++;
	journal->sync_token = 0;
	snprintf(reason, sizeof(reason), "%s in segment %u failed: %s", what,
		 journal->current ? journal->current->header.number : 0,
		 error == DISK_HELPER_DIED ? "the helper died" : strerror(-error));
	note(journal, reason);
	journal_end_segment(journal);
	take_back_flight(journal);
	journal->mark_at_ms = journal_now_ms(journal);
	if (journal->failures < 2)
		return;
	journal->retry_at_ms = journal_now_ms(journal) + RETRY_MS;
	journal_set_state(journal, journal_is_space_error(error) ? QUEUE_NO_SPACE : QUEUE_POISONED, reason);
	journal_refuse_intake(journal, journal_is_space_error(error) ? ERR_NO_SPACE : ERR_IO);
}

/* ---- Writing ---- */

static uint64_t padded(const struct journal *journal, uint64_t bytes)
{
	uint64_t whole = bytes + (journal->rules->no_marks ? 0 : record_bytes(PAYLOAD_MARK_BYTES));

	return journal->rules->no_padding ? whole : record_block_up(whole);
}

/* How many items of the next batch fit into the current segment together with their MARK. */
static uint32_t items_that_fit(const struct journal *journal, uint64_t room)
{
	const struct batch *next = gather_first(&journal->gather);
	uint32_t count = next ? next->count : 0;

	while (count > 0 &&
	       padded(journal, next->items[count - 1].at + record_bytes(next->items[count - 1].length)) > room)
		count--;
	return count;
}

/* Only a broken rule asks for it: what the batch in flight replaces counts as gone while it is being written. */
static uint32_t oldest_needed_behind_flight(struct journal *journal)
{
	const struct segments *segments = journal->options.segments;
	const struct batch *flight = &journal->flight;
	uint32_t *live = xcalloc(segments->count, sizeof(*live)), first;

	for (uint32_t i = 0; i < segments->count; i++)
		live[i] = segments->items[i]->live;
	for (uint32_t i = 0; i < flight->count; i++) {
		struct segment *segment = segments_find(segments, flight->items[i].old.segment);
		if (segment && segment->live > 0)
			segment->live--;
	}
	first = journal_oldest_needed(journal);
	for (uint32_t i = 0; i < segments->count; i++)
		segments->items[i]->live = live[i];
	free(live);
	return first;
}

static uint64_t id_floor_of(const struct journal *journal)
{
	return journal->rules->reuse_ids ? 0 : journal->options.id_floor(journal->options.ctx);
}

static void append_mark(struct journal *journal)
{
	struct buf *bytes = &journal->flight.bytes;
	uint64_t start = journal->current->end;
	struct record_header header = {.length = PAYLOAD_MARK_BYTES, .type = RECORD_MARK};
	struct payload_mark mark = {start, journal_oldest_needed(journal), id_floor_of(journal)};
	size_t offset = buf_len(bytes);

	if (journal->rules->free_unsynced)
		mark.first = oldest_needed_behind_flight(journal);
	BUG_ON(!buf_reserve(bytes, record_bytes(PAYLOAD_MARK_BYTES)));
	header.watermark = journal->watermark;
	buf_commit(bytes, RECORD_HEADER_BYTES);
	payload_put_mark(bytes, &mark);
	record_seal(bytes->data + bytes->start + offset, &header, journal->current->header.nonce, start + offset);
	journal->flight_first = (uint32_t)mark.first;
}

static void seal_flight(struct journal *journal)
{
	struct batch *flight = &journal->flight;
	uint64_t nonce = journal->current->header.nonce, start = journal->current->end;
	size_t pad;
	char *at;

	for (uint32_t i = 0; i < flight->count; i++) {
		struct record_header header;
		at = flight->bytes.data + flight->bytes.start + flight->items[i].at;
		record_peek(at, &header);
		header.watermark = journal->watermark;
		record_seal(at, &header, nonce, start + flight->items[i].at);
	}
	if (!journal->rules->no_marks)
		append_mark(journal);
	pad = journal->rules->no_padding ? 0 : record_block_up(buf_len(&flight->bytes)) - buf_len(&flight->bytes);
	at = buf_reserve(&flight->bytes, pad);
	BUG_ON(!at);
	memset(at, 0, pad);
	buf_commit(&flight->bytes, pad);
}

static int write_bytes(struct journal *journal, struct slice bytes, uint64_t offset)
{
	struct disk *disk = journal->options.disk;

	journal->counts.written_bytes += bytes.len;
	return disk->write(disk, journal->current->fd, bytes.ptr, bytes.len, offset);
}

static int write_header(struct journal *journal)
{
	char blocks[SEGMENT_DATA_START];
	size_t len = journal->rules->no_second_header ? RECORD_BLOCK : sizeof(blocks);

	segment_header_put(blocks, &journal->current->header);
	return write_bytes(journal, slice_of(blocks, len), 0);
}

static void on_synced(struct journal *journal, const struct disk_done *done);

static void begin_sync(struct journal *journal)
{
	journal->sync_token = journal_token(journal);
	journal->options.disk->sync(journal->options.disk, journal->current->fd, journal->sync_token);
}

/*
 * The first write to an allocated block changes the file's metadata, which costs a sync more than a small batch itself
 * does, on a file system with a journal of its own many times more. So one batch brings zeros for those that follow:
 * they overwrite blocks that are written already.
 */
static int write_zeros_ahead(struct journal *journal, size_t batch)
{
	static const char zeros[ZERO_AHEAD_BYTES];
	const struct segment *current = journal->current;
	uint64_t end = current->end + batch, len = MIN(sizeof(zeros), current->bytes - end);

	if (!journal->options.disk->overwrites_in_place || batch > ZERO_BATCH_BYTES || end <= journal->zeroed)
		return 0;
	journal->zeroed = end + len;
	return len > 0 ? write_bytes(journal, slice_of(zeros, len), end) : 0;
}

static void write_flight(struct journal *journal)
{
	struct slice bytes;
	int rc = 0;

	seal_flight(journal);
	if (journal->rules->sync_early)
		begin_sync(journal);
	bytes = buf_slice(&journal->flight.bytes);
	if (journal->header_pending)
		rc = write_header(journal);
	if (rc == 0)
		rc = write_bytes(journal, bytes, journal->current->end);
	if (rc == 0)
		rc = write_zeros_ahead(journal, bytes.len);
	if (rc < 0 && !journal->rules->write_error_is_fine) {
		fail(journal, "write", rc);
		return;
	}
	journal->header_pending = false;
	if (!journal->rules->sync_early)
		begin_sync(journal);
	if (journal->rules->reply_unsynced) {
		journal->sync_token = 0;
		on_synced(journal, &(struct disk_done){0});
	}
}

/* True: there is a segment with room for at least one item (or for a lone MARK). */
static bool find_room(struct journal *journal, uint32_t *count)
{
	for (int tries = 0; tries < 2; tries++) {
		uint64_t room;
		if (!journal->current && !journal_open_segment(journal))
			return false;
		room = journal->current->bytes - journal->current->end;
		*count = items_that_fit(journal, room);
		if (*count > 0 || (!gather_first(&journal->gather) && padded(journal, 0) <= room))
			return true;
		journal->current = NULL; /* full; all of it is synced, for nothing is in flight */
	}
	return false;
}

static bool is_due(const struct journal *journal, int64_t now)
{
	struct gather_sum waiting;

	if (journal->failures >= 2)
		return now >= journal->retry_at_ms;
	if (journal->mark_at_ms <= now)
		return true;
	waiting = gather_sum(&journal->gather);
	if (waiting.is_empty)
		return journal->hurry && journal->mark_at_ms != INT64_MAX;
	return waiting.has_message || journal->hurry || waiting.bytes >= BULK_BYTES ||
	       now >= waiting.since_ms + COMMIT_DELAY_MS;
}

void journal_turn(struct journal *journal)
{
	int64_t now = journal_now_ms(journal);
	uint32_t count;

	if (now >= journal->free_looked_ms + SPACE_LOOK_MS &&
	    (gather_first(&journal->gather) || journal->state == QUEUE_NO_SPACE))
		journal_look_at_space(journal);
	journal_prepare_spare(journal);
	journal_check_first(journal);
	journal_review_state(journal);
	if (journal->sync_token || !is_due(journal, now))
		return;
	if (!find_room(journal, &count)) {
		if (journal->failures >= 2)
			journal->retry_at_ms = now + RETRY_MS;
		journal_review_state(journal);
		return;
	}
	if (count > 0)
		gather_take(&journal->gather, &journal->flight, count);
	journal->mark_at_ms = INT64_MAX;
	write_flight(journal);
}

/* ---- The end of a sync ---- */

static void on_synced(struct journal *journal, const struct disk_done *done)
{
	struct segment *current = journal->current;
	const struct queue_notify *notify = journal->options.notify;
	struct batch flight = journal->flight;
	uint64_t start = current->end;

	batch_init(&journal->flight);
	journal->counts.syncs++;
	current->end += buf_len(&flight.bytes);
	current->synced = current->end;
	if (!journal->rules->no_marks)
		journal->watermark =
		    (struct record_place){current->header.number, (uint32_t)(current->synced / RECORD_ALIGN)};
	if (journal->failures >= 2)
		journal_set_state(journal, QUEUE_OK, "the disk works again");
	journal->failures = 0;
	if (flight.count > 0)
		journal->mark_at_ms = journal_now_ms(journal) + MARK_DELAY_MS;
	journal_clean_behind(journal);
	journal_discard_below(journal, journal->flight_first);
	if (notify->on_synced)
		notify->on_synced(notify->ctx, done->duration_us);
	for (uint32_t i = 0; i < flight.count; i++) {
		struct record_place place = {current->header.number,
					     (uint32_t)((start + flight.items[i].at) / RECORD_ALIGN)};
		journal->options.on_synced(journal->options.ctx, &flight.items[i], place);
	}
	gather_keep_memory(&journal->gather, &flight);
}

bool journal_on_done(struct journal *journal, const struct disk_done *done)
{
	if (done->token != 0 && done->token == journal->prepare_token) {
		journal_on_prepared(journal, done);
		return true;
	}
	if (done->token == 0 || done->token != journal->sync_token)
		return false;
	journal->sync_token = 0;
	if (done->result == 0 || (done->result == DISK_HELPER_DIED && journal->rules->dead_helper_is_fine))
		on_synced(journal, done);
	else if (journal->rules->sync_again)
		begin_sync(journal);
	else
		fail(journal, "sync", done->result);
	return true;
}

/* ---- The rest ---- */

int64_t journal_next_deadline_ms(const struct journal *journal)
{
	struct gather_sum waiting;
	int64_t at = INT64_MAX;

	if (journal->state == QUEUE_NO_SPACE)
		at = journal->free_looked_ms + SPACE_LOOK_MS;
	if (!journal->spare && !journal->prepare_token)
		at = MIN(at, journal->prepare_at_ms);
	if (journal->sync_token)
		return at;
	if (journal->failures >= 2)
		return MIN(at, journal->retry_at_ms);
	if (!journal->current && (!journal_has_spare(journal) || journal->state == QUEUE_NO_SPACE))
		return at; /* nothing can be written before there is a segment */
	at = MIN(at, journal->mark_at_ms);
	waiting = gather_sum(&journal->gather);
	if (waiting.is_empty)
		return at;
	if (waiting.has_message || journal->hurry || waiting.bytes >= BULK_BYTES)
		return journal_now_ms(journal);
	return MIN(at, waiting.since_ms + COMMIT_DELAY_MS);
}

void journal_hurry(struct journal *journal)
{
	journal->hurry = true;
}

bool journal_is_synced(const struct journal *journal)
{
	return journal->sync_token == 0 && !gather_first(&journal->gather) && journal->mark_at_ms == INT64_MAX;
}

static void forget_in(struct batch *batch, uint64_t id)
{
	for (uint32_t i = 0; i < batch->count; i++)
		if (batch->items[i].id == id && batch->items[i].type == RECORD_MESSAGE)
			batch->items[i].cb = NULL;
}

void journal_forget(struct journal *journal, uint64_t id)
{
	forget_in(&journal->flight, id);
	for (uint32_t i = 0; i < journal->gather.count; i++)
		forget_in(&journal->gather.batches[i], id);
}

uint64_t journal_unsynced_bytes(const struct journal *journal)
{
	return gather_sum(&journal->gather).bytes + buf_len(&journal->flight.bytes);
}

uint32_t journal_current(const struct journal *journal)
{
	return journal->current ? journal->current->header.number : 0;
}

void journal_counts(const struct journal *journal, struct journal_counts *counts)
{
	*counts = journal->counts;
	counts->free_bytes = journal->free_bytes;
	counts->spare_bytes = journal->spare ? journal->spare->bytes : 0;
	for (uint32_t i = 0; i < journal->condemned_count; i++)
		counts->spare_bytes += journal->condemned[i]->bytes;
}

uint64_t journal_token(struct journal *journal)
{
	return ++journal->next_token;
}

struct journal *journal_new(const struct journal_options *options, uint32_t next_number, uint64_t next_name)
{
	struct journal *journal = xcalloc(1, sizeof(*journal));
	const struct segments *segments = options->segments;

	BUG_ON(segments->count == 0);
	journal->options = *options;
	journal->rules = options->rules ? options->rules : &all_kept;
	journal->next_number = next_number;
	journal->next_name = next_name;
	gather_init(&journal->gather);
	batch_init(&journal->flight);
	journal->current = segments->items[segments->count - 1];
	journal->first_written = journal->current->header.first;
	journal->mark_at_ms = INT64_MAX;
	if (journal->current->synced > SEGMENT_DATA_START) {
		journal->watermark = (struct record_place){journal->current->header.number,
							   (uint32_t)(journal->current->synced / RECORD_ALIGN)};
		journal->mark_at_ms = journal_now_ms(journal) + MARK_DELAY_MS;
	} else if (journal->current->header.previous) {
		journal->watermark = (struct record_place){journal->current->header.previous,
							   (uint32_t)(journal->current->header.cut / RECORD_ALIGN)};
	}
	journal_look_at_space(journal);
	journal_prepare_spare(journal);
	journal_review_state(journal);
	return journal;
}

void journal_free(struct journal **journal)
{
	struct journal *old = *journal;

	if (!old)
		return;
	gather_drop(&old->gather);
	batch_drop(&old->flight);
	segment_free(&old->spare, old->options.disk);
	for (uint32_t i = 0; i < old->condemned_count; i++)
		segment_free(&old->condemned[i], old->options.disk);
	free(old->condemned);
	free(old);
	*journal = NULL;
}
