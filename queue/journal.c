/*
 * The writer. `gather` holds what was appended and not written; `flight` the one batch that is written and being
 * synced. Records lie in both as they will lie in the file, but their headers are sealed only when the place is known,
 * so the same bytes can be written again elsewhere after a failure.
 */
#include "queue/journal.h"

#include "base/base.h"
#include "queue/payload.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define COMMIT_DELAY_MS 10	  /* results wait this long for company */
#define MARK_DELAY_MS 1000	  /* a lone MARK after the last batch */
#define RETRY_MS 3000		  /* after two failures running */
#define HELPER_RETRY_MS 100	  /* a helper that dies is replaced */
#define SPACE_LOOK_MS 1000	  /* how old the figure of free space may be */
#define BULK_BYTES (512 * 1024)	  /* this much is written without waiting for company */
#define GATHER_MAX (256u << 20)	  /* a last resort; queue_may_accept() stops intake at 8 MiB */
#define IDLE_BUFFER (1024 * 1024) /* a larger buffer is given back when it is empty */
#define PAYLOAD_MAX (4u << 20)
#define MARK_BYTES 16

/* Room, in segments, that must be there before a new one is opened for ... What ends messages may take the last one: it
 * is what makes room again. A start then makes do with a small segment (repair.c). */
enum reserve { RESERVE_INTAKE = 4, RESERVE_RESULTS = 3, RESERVE_MOVES = 2, RESERVE_ENDS = 1 };

struct batch {
	struct buf bytes;
	struct journal_item *items;
	uint32_t count, cap;
	bool has_message, has_move, has_done, has_intake;
	int64_t since_ms; /* of the first item */
};

struct journal {
	struct journal_options options;
	const struct journal_rules *rules;
	struct segment *current; /* NULL: the next batch opens one */
	bool header_pending;	 /* the current segment's header goes out with the next batch */
	struct batch gather, flight;
	size_t begun; /* where the record under way begins in gather */
	bool is_begun;

	uint64_t sync_token; /* 0: none runs */
	struct record_place watermark;
	uint32_t first_written; /* `first` as synced */
	uint32_t flight_first;	/* as the batch in flight says */
	int64_t mark_at_ms;	/* when a lone MARK is due */
	bool hurry;

	struct segment *spare;
	uint64_t prepare_token; /* 0: none runs */
	int64_t prepare_at_ms;	/* not before */
	int prepare_error;
	struct segment **condemned; /* nothing of them counts; unlinked once a later header stands */
	uint32_t condemned_count;
	bool must_clean; /* something waits for the next header to stand */

	uint32_t failures; /* running */
	int64_t retry_at_ms;
	enum queue_journal_state state;
	uint32_t next_number;
	uint64_t next_name, next_token;
	uint64_t free_bytes;
	int64_t free_looked_ms;
	struct journal_counts counts;
};

static const struct journal_rules all_kept;

static int64_t now_ms(const struct journal *journal)
{
	return clock_mono_ms(journal->options.clock);
}

static void note(const struct journal *journal, const char *text)
{
	const struct queue_notify *notify = journal->options.notify;

	if (notify->on_note)
		notify->on_note(notify->ctx, text);
}

/* ---- Batches ---- */

static void batch_init(struct batch *batch)
{
	*batch = (struct batch){0};
	buf_init(&batch->bytes, GATHER_MAX);
}

/* The items' extras have gone to the owner, or to another batch. */
static void batch_fini(struct batch *batch)
{
	buf_fini(&batch->bytes);
	free(batch->items);
}

static void batch_drop(struct batch *batch)
{
	for (uint32_t i = 0; i < batch->count; i++)
		free(batch->items[i].extra);
	batch_fini(batch);
}

static void batch_clear(struct batch *batch)
{
	if (batch->bytes.cap > IDLE_BUFFER) {
		buf_reset(&batch->bytes);
		free(batch->items);
		batch->items = NULL;
		batch->cap = 0;
	}
	buf_clear(&batch->bytes);
	batch->count = 0;
	batch->has_message = batch->has_move = batch->has_done = batch->has_intake = false;
}

static void batch_add(struct batch *batch, const struct journal_item *item, int64_t now)
{
	if (batch->count == batch->cap) {
		batch->cap = batch->cap ? batch->cap * 2 : 64;
		batch->items = xreallocarray(batch->items, batch->cap, sizeof(batch->items[0]));
	}
	if (batch->count == 0)
		batch->since_ms = now;
	batch->items[batch->count++] = *item;
	batch->has_message |= item->type == RECORD_MESSAGE;
	batch->has_move |= item->old.segment != 0 && item->type != RECORD_DONE;
	batch->has_done |= item->type == RECORD_DONE;
	batch->has_intake |= item->is_intake;
}

static struct slice item_record(const struct batch *batch, const struct journal_item *item)
{
	return slice_of(batch->bytes.data + batch->bytes.start + item->at, record_bytes(item->length));
}

/* Copies items from .. to of `from` to the end of `to`, without those of intake if `drop_intake`. */
static void batch_copy(struct batch *to, const struct batch *from, uint32_t first, uint32_t last, bool drop_intake)
{
	for (uint32_t i = first; i < last; i++) {
		struct journal_item item = from->items[i];
		if (drop_intake && item.is_intake)
			continue;
		item.at = (uint32_t)buf_len(&to->bytes);
		BUG_ON(buf_append(&to->bytes, item_record(from, &from->items[i])) < 0);
		batch_add(to, &item, from->since_ms);
	}
}

struct buf *journal_append_begin(struct journal *journal)
{
	struct buf *bytes = &journal->gather.bytes;
	char *at;

	BUG_ON(journal->is_begun);
	journal->is_begun = true;
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
	BUG_ON(!journal->is_begun);
	journal->is_begun = false;
	buf_truncate(&journal->gather.bytes, journal->begun);
}

/* Leaves the header's fields where record_peek() finds them; the sums come with the place. */
static void stamp_header(struct journal *journal, const struct journal_item *item)
{
	char *at = journal->gather.bytes.data + journal->gather.bytes.start + journal->begun;
	struct record_header header = {
	    .length = item->length, .type = item->type, .index = item->index, .id = item->id};

	record_seal(at, &header, 0, 0);
}

int journal_append_end(struct journal *journal, const struct journal_item *item)
{
	struct buf *bytes = &journal->gather.bytes;
	struct journal_item added = *item;
	size_t whole = buf_len(bytes) - journal->begun, pad;
	char *at;

	BUG_ON(!journal->is_begun);
	if (whole < RECORD_HEADER_BYTES || whole - RECORD_HEADER_BYTES > journal_payload_max(journal)) {
		journal_append_cancel(journal);
		return ERR_LIMIT;
	}
	added.length = (uint32_t)(whole - RECORD_HEADER_BYTES);
	added.at = (uint32_t)journal->begun;
	pad = record_bytes(added.length) - whole;
	at = buf_reserve(bytes, pad);
	if (!at) {
		journal_append_cancel(journal);
		return ERR_LIMIT;
	}
	memset(at, 0, pad);
	buf_commit(bytes, pad);
	stamp_header(journal, &added);
	journal->is_begun = false;
	journal->counts.appended_bytes += record_bytes(added.length);
	batch_add(&journal->gather, &added, now_ms(journal));
	return 0;
}

uint32_t journal_payload_max(const struct journal *journal)
{
	uint64_t room = journal->options.segment_bytes - SEGMENT_DATA_START - RECORD_HEADER_BYTES -
			record_bytes(MARK_BYTES) - RECORD_ALIGN;

	return (uint32_t)MIN(room, (uint64_t)PAYLOAD_MAX);
}

/* ---- Space ---- */

/* While it is being prepared `spare` has no descriptor. */
static bool has_spare(const struct journal *journal)
{
	return journal->spare && journal->spare->fd >= 0;
}

static void look_at_space(struct journal *journal)
{
	uint64_t bytes;

	journal->free_looked_ms = now_ms(journal);
	if (journal->options.disk->free_bytes(journal->options.disk, &bytes) == 0)
		journal->free_bytes = bytes;
}

uint64_t journal_room(const struct journal *journal)
{
	return journal->free_bytes / journal->options.segment_bytes + (has_spare(journal) ? 1 : 0);
}

static void prepare_spare(struct journal *journal)
{
	struct segment *spare;

	if (journal->spare || journal->prepare_token || now_ms(journal) < journal->prepare_at_ms)
		return;
	spare = xcalloc(1, sizeof(*spare));
	spare->fd = -1;
	snprintf(spare->name, sizeof(spare->name), "seg-%016" PRIx64, journal->next_name++);
	spare->bytes = journal->options.segment_bytes;
	journal->spare = spare;
	journal->prepare_token = journal_token(journal);
	journal->options.disk->prepare(journal->options.disk, spare->name, spare->bytes, journal->prepare_token);
}

static void on_prepared(struct journal *journal, const struct disk_done *done)
{
	journal->prepare_token = 0;
	journal->prepare_error = done->result;
	look_at_space(journal);
	if (done->result == 0) {
		journal->spare->fd = done->fd;
		return;
	}
	journal->counts.errors++;
	/* A helper that died may have left the file behind; without a header it is nothing. */
	journal->options.disk->discard(journal->options.disk, journal->spare->name, -1);
	free(journal->spare);
	journal->spare = NULL;
	journal->prepare_at_ms = now_ms(journal) + (done->result == DISK_HELPER_DIED ? HELPER_RETRY_MS : RETRY_MS);
}

/* ---- State ---- */

static void set_state(struct journal *journal, enum queue_journal_state state, const char *reason)
{
	const struct queue_notify *notify = journal->options.notify;

	if (journal->state == state)
		return;
	journal->state = state;
	if (notify->on_state)
		notify->on_state(notify->ctx, state, reason);
}

static bool is_space_error(int error)
{
	return err_code_of_errno(-error) == ERR_NO_SPACE;
}

static void review_state(struct journal *journal)
{
	char reason[128];

	if (journal->failures >= 2)
		return; /* poisoned until a sync succeeds */
	if (!journal->current && !has_spare(journal) && journal->prepare_error < 0) {
		snprintf(reason, sizeof(reason), "a segment cannot be made: %s",
			 journal->prepare_error == DISK_HELPER_DIED ? "the helper died"
								    : strerror(-journal->prepare_error));
		set_state(journal, is_space_error(journal->prepare_error) ? QUEUE_NO_SPACE : QUEUE_POISONED, reason);
		return;
	}
	if (!journal->rules->no_reserve && journal_room(journal) < RESERVE_INTAKE) {
		snprintf(reason, sizeof(reason), "room for %" PRIu64 " segments of %" PRIu64 " bytes, %d are needed",
			 journal_room(journal), journal->options.segment_bytes, RESERVE_INTAKE);
		set_state(journal, QUEUE_NO_SPACE, reason);
	} else {
		set_state(journal, QUEUE_OK, "the journal takes mail");
	}
}

enum queue_journal_state journal_state(const struct journal *journal)
{
	return journal->state;
}

/* Tells those who wait for a 250 that it will not come, and takes their records out. */
static void refuse_intake(struct journal *journal, enum err_code why)
{
	struct batch old = journal->gather;

	if (!old.has_intake)
		return;
	batch_init(&journal->gather);
	batch_copy(&journal->gather, &old, 0, old.count, true);
	for (uint32_t i = 0; i < old.count; i++)
		if (old.items[i].is_intake)
			journal->options.on_refused(journal->options.ctx, &old.items[i], why);
	batch_fini(&old);
}

/* ---- Failure ---- */

static void discard(struct journal *journal, struct segment *segment)
{
	journal->options.disk->discard(journal->options.disk, segment->name, segment->fd);
	free(segment);
}

static void condemn(struct journal *journal, struct segment *segment)
{
	segments_take(journal->options.segments, segment);
	journal->condemned = xreallocarray(journal->condemned, journal->condemned_count + 1, sizeof(struct segment *));
	journal->condemned[journal->condemned_count++] = segment;
}

static void end_segment(struct journal *journal)
{
	struct segment *segment = journal->current;

	journal->current = NULL;
	journal->header_pending = false;
	segment->is_void = true;
	journal->must_clean = true;
	if (segment->synced > SEGMENT_DATA_START) {
		segment->end = segment->synced;
	} else if (segment->synced > 0) {
		condemn(journal, segment); /* recovery's: its header stands, so it stays until the next one does */
	} else {
		segments_take(journal->options.segments, segment);
		discard(journal, segment);
	}
}

/* Only a broken rule asks for it: pieces left memory when they were written. */
static void forget_pieces(struct batch *batch)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < batch->count; i++)
		if (batch->items[i].type != RECORD_DATA)
			batch->items[kept++] = batch->items[i];
	batch->count = kept;
}

/* What was in flight comes first again, in its old order. */
static void take_back_flight(struct journal *journal)
{
	struct batch later = journal->gather;

	if (journal->flight.count == 0) {
		batch_clear(&journal->flight);
		return;
	}
	if (journal->rules->forget_unsynced)
		forget_pieces(&journal->flight);
	journal->gather = journal->flight;
	if (journal->gather.count > 0)
		buf_truncate(&journal->gather.bytes,
			     journal->gather.items[journal->gather.count - 1].at +
				 record_bytes(journal->gather.items[journal->gather.count - 1].length));
	batch_copy(&journal->gather, &later, 0, later.count, false);
	batch_fini(&later);
	batch_init(&journal->flight);
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
	end_segment(journal);
	take_back_flight(journal);
	journal->mark_at_ms = now_ms(journal);
	if (journal->failures < 2)
		return;
	journal->retry_at_ms = now_ms(journal) + RETRY_MS;
	set_state(journal, is_space_error(error) ? QUEUE_NO_SPACE : QUEUE_POISONED, reason);
	refuse_intake(journal, is_space_error(error) ? ERR_NO_SPACE : ERR_IO);
}

/* ---- Freeing ---- */

/* The oldest segment that is needed. Only what is synced counts, since `live` changes only then. */
static uint32_t oldest_needed(const struct journal *journal)
{
	const struct segments *segments = journal->options.segments;
	uint32_t i = 0;

	while (i + 1 < segments->count && segments->items[i]->live == 0 && segments->items[i] != journal->current)
		i++;
	return segments->count ? segments->items[i]->header.number : 0;
}

/* All below `first` may go: that `first` is synced. In their order, so that what is left is never without its elder. */
static void discard_below(struct journal *journal, uint32_t first)
{
	struct segments *segments = journal->options.segments;

	while (segments->count > 0 && segments->items[0]->header.number < first) {
		struct segment *segment = segments->items[0];
		segments_drop_first(segments, 1);
		discard(journal, segment);
	}
	journal->first_written = first;
}

void journal_check_first(struct journal *journal)
{
	uint32_t first = oldest_needed(journal);
	int64_t now = now_ms(journal);

	if (first <= journal->first_written)
		return;
	if (journal->rules->free_unmarked)
		discard_below(journal, first);
	else if (journal->mark_at_ms > now + MARK_DELAY_MS)
		journal->mark_at_ms = journal_room(journal) < RESERVE_INTAKE ? now : now + MARK_DELAY_MS;
}

/* The header of the current segment is on stable storage: what it replaces may be cut off and unlinked. */
static void clean_behind(struct journal *journal)
{
	struct segments *segments = journal->options.segments;

	if (!journal->must_clean)
		return;
	journal->must_clean = false;
	for (uint32_t i = 0; i < journal->condemned_count; i++)
		discard(journal, journal->condemned[i]);
	journal->condemned_count = 0;
	for (uint32_t i = 0; i < segments->count; i++) {
		struct segment *segment = segments->items[i];
		if (!segment->is_void || segment == journal->current)
			continue;
		segment->is_void = false;
		if (segment->bytes > segment->end &&
		    journal->options.disk->truncate(journal->options.disk, segment->fd, segment->end) == 0)
			segment->bytes = segment->end;
	}
}

/* ---- Opening segments ---- */

static bool reserve_allows(struct journal *journal)
{
	uint64_t room = journal_room(journal);
	bool makes_room;

	if (journal->rules->no_reserve)
		return true;
	if (journal->gather.has_intake && room < RESERVE_INTAKE)
		refuse_intake(journal, ERR_NO_SPACE);
	makes_room = journal->gather.has_done || oldest_needed(journal) > journal->first_written;
	return room >= RESERVE_RESULTS || (journal->gather.has_move && room >= RESERVE_MOVES) ||
	       (makes_room && room >= RESERVE_ENDS);
}

static void link_to_chain(struct journal *journal, struct segment_header *header)
{
	const struct segments *segments = journal->options.segments;
	const struct segment *last = segments->count ? segments->items[segments->count - 1] : NULL;

	if (!last)
		return;
	segment_header_link(header, &last->header, journal->rules->no_cut ? 0 : last->end);
}

static bool open_segment(struct journal *journal)
{
	struct segment *segment;

	look_at_space(journal);
	if (!has_spare(journal)) {
		prepare_spare(journal);
		if (journal->prepare_error < 0 && !journal->prepare_token) {
			refuse_intake(journal, err_code_of_errno(-journal->prepare_error) == ERR_NO_SPACE ? ERR_NO_SPACE
													  : ERR_IO);
		}
		return false;
	}
	if (!reserve_allows(journal))
		return false;
	segment = journal->spare;
	journal->spare = NULL;
	segment->header = (struct segment_header){
	    .number = journal->next_number++,
	    .nonce = journal->rules->no_nonce ? 0 : rng_u64(journal->options.rng),
	    .id_floor = journal->rules->reuse_ids ? 0 : journal->options.id_floor(journal->options.ctx),
	    .spool = journal->options.spool,
	    .created_wall = clock_wall_ms(journal->options.clock),
	    .size = segment->bytes,
	};
	link_to_chain(journal, &segment->header);
	segment->end = SEGMENT_DATA_START;
	segments_add(journal->options.segments, segment);
	journal->current = segment;
	journal->header_pending = true;
	segment->header.first = oldest_needed(journal);
	prepare_spare(journal);
	return true;
}

/* ---- Writing ---- */

static uint64_t padded(const struct journal *journal, uint64_t bytes)
{
	uint64_t whole = bytes + (journal->rules->no_marks ? 0 : record_bytes(MARK_BYTES));

	return journal->rules->no_padding ? whole : record_block_up(whole);
}

/* How many of the gathered items fit into the current segment together with their MARK. */
static uint32_t items_that_fit(const struct journal *journal, uint64_t room)
{
	const struct batch *gather = &journal->gather;
	uint32_t count = gather->count;

	if (padded(journal, buf_len(&gather->bytes)) <= room)
		return count;
	while (count > 0 &&
	       padded(journal, gather->items[count - 1].at + record_bytes(gather->items[count - 1].length)) > room)
		count--;
	return count;
}

/* Moves the first `count` items into flight. */
static void load_flight(struct journal *journal, uint32_t count)
{
	struct batch old = journal->flight;

	BUG_ON(old.count > 0);
	if (count == journal->gather.count) {
		journal->flight = journal->gather;
		journal->gather = old;
		return;
	}
	batch_copy(&journal->flight, &journal->gather, 0, count, false);
	old = journal->gather;
	batch_init(&journal->gather);
	batch_copy(&journal->gather, &old, count, old.count, false);
	batch_fini(&old);
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
	first = oldest_needed(journal);
	for (uint32_t i = 0; i < segments->count; i++)
		segments->items[i]->live = live[i];
	free(live);
	return first;
}

static void append_mark(struct journal *journal)
{
	struct buf *bytes = &journal->flight.bytes;
	uint64_t start = journal->current->end;
	struct record_header header = {.length = MARK_BYTES, .type = RECORD_MARK};
	struct payload_mark mark = {start, journal->rules->free_unsynced ? oldest_needed_behind_flight(journal)
									 : oldest_needed(journal)};
	size_t offset = buf_len(bytes);

	BUG_ON(!buf_reserve(bytes, record_bytes(MARK_BYTES)));
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

static int write_header(struct journal *journal)
{
	char blocks[SEGMENT_DATA_START];
	size_t len = journal->rules->no_second_header ? RECORD_BLOCK : sizeof(blocks);

	segment_header_put(blocks, &journal->current->header);
	journal->counts.written_bytes += len;
	return journal->options.disk->write(journal->options.disk, journal->current->fd, blocks, len, 0);
}

static void on_synced(struct journal *journal, const struct disk_done *done);

static void begin_sync(struct journal *journal)
{
	journal->sync_token = journal_token(journal);
	journal->options.disk->sync(journal->options.disk, journal->current->fd, journal->sync_token);
}

static void write_flight(struct journal *journal)
{
	struct disk *disk = journal->options.disk;
	struct segment *current = journal->current;
	struct slice bytes;
	int rc = 0;

	seal_flight(journal);
	if (journal->rules->sync_early)
		begin_sync(journal);
	bytes = buf_slice(&journal->flight.bytes);
	if (journal->header_pending)
		rc = write_header(journal);
	if (rc == 0) {
		journal->counts.written_bytes += bytes.len;
		rc = disk->write(disk, current->fd, bytes.ptr, bytes.len, current->end);
	}
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
		if (!journal->current && !open_segment(journal))
			return false;
		room = journal->current->bytes - journal->current->end;
		*count = items_that_fit(journal, room);
		if (*count > 0 || (journal->gather.count == 0 && padded(journal, 0) <= room))
			return true;
		journal->current = NULL; /* full; all of it is synced, for nothing is in flight */
	}
	return false;
}

static bool is_due(const struct journal *journal, int64_t now)
{
	const struct batch *gather = &journal->gather;

	if (journal->failures >= 2)
		return now >= journal->retry_at_ms;
	if (journal->mark_at_ms <= now)
		return true;
	if (gather->count == 0)
		return journal->hurry && journal->mark_at_ms != INT64_MAX;
	return gather->has_message || journal->hurry || buf_len(&gather->bytes) >= BULK_BYTES ||
	       now >= gather->since_ms + COMMIT_DELAY_MS;
}

void journal_turn(struct journal *journal)
{
	int64_t now = now_ms(journal);
	uint32_t count;

	if (now >= journal->free_looked_ms + SPACE_LOOK_MS &&
	    (journal->gather.count > 0 || journal->state == QUEUE_NO_SPACE))
		look_at_space(journal);
	prepare_spare(journal);
	journal_check_first(journal);
	review_state(journal);
	if (journal->sync_token || !is_due(journal, now))
		return;
	if (!find_room(journal, &count)) {
		if (journal->failures >= 2)
			journal->retry_at_ms = now + RETRY_MS;
		review_state(journal);
		return;
	}
	load_flight(journal, count);
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
		set_state(journal, QUEUE_OK, "the disk works again");
	journal->failures = 0;
	if (flight.count > 0)
		journal->mark_at_ms = now_ms(journal) + MARK_DELAY_MS;
	clean_behind(journal);
	discard_below(journal, journal->flight_first);
	if (notify->on_synced)
		notify->on_synced(notify->ctx, done->duration_us);
	for (uint32_t i = 0; i < flight.count; i++) {
		struct record_place place = {current->header.number,
					     (uint32_t)((start + flight.items[i].at) / RECORD_ALIGN)};
		journal->options.on_synced(journal->options.ctx, &flight.items[i], place);
	}
	if (journal->flight.count == 0 && journal->flight.cap == 0) {
		batch_clear(&flight);
		journal->flight = flight; /* its memory serves again */
	} else {
		batch_fini(&flight);
	}
}

bool journal_on_done(struct journal *journal, const struct disk_done *done)
{
	if (done->token != 0 && done->token == journal->prepare_token) {
		on_prepared(journal, done);
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
	const struct batch *gather = &journal->gather;
	int64_t at = INT64_MAX;

	if (journal->state == QUEUE_NO_SPACE)
		at = journal->free_looked_ms + SPACE_LOOK_MS;
	if (!journal->spare && !journal->prepare_token)
		at = MIN(at, journal->prepare_at_ms);
	if (journal->sync_token)
		return at;
	if (journal->failures >= 2)
		return MIN(at, journal->retry_at_ms);
	if (!journal->current && (!has_spare(journal) || journal->state == QUEUE_NO_SPACE))
		return at; /* nothing can be written before there is a segment */
	at = MIN(at, journal->mark_at_ms);
	if (gather->count == 0)
		return at;
	if (gather->has_message || journal->hurry || buf_len(&gather->bytes) >= BULK_BYTES)
		return now_ms(journal);
	return MIN(at, gather->since_ms + COMMIT_DELAY_MS);
}

void journal_hurry(struct journal *journal)
{
	journal->hurry = true;
}

bool journal_is_synced(const struct journal *journal)
{
	return journal->sync_token == 0 && journal->gather.count == 0 && journal->mark_at_ms == INT64_MAX;
}

void journal_forget(struct journal *journal, uint64_t id)
{
	struct batch *batches[] = {&journal->flight, &journal->gather};

	for (size_t b = 0; b < ARRAY_LEN(batches); b++)
		for (uint32_t i = 0; i < batches[b]->count; i++)
			if (batches[b]->items[i].id == id && batches[b]->items[i].type == RECORD_MESSAGE)
				batches[b]->items[i].cb = NULL;
}

uint64_t journal_unsynced_bytes(const struct journal *journal)
{
	return buf_len(&journal->gather.bytes) + buf_len(&journal->flight.bytes);
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
	batch_init(&journal->gather);
	batch_init(&journal->flight);
	journal->current = segments->items[segments->count - 1];
	journal->first_written = journal->current->header.first;
	journal->mark_at_ms = INT64_MAX;
	if (journal->current->synced > SEGMENT_DATA_START) {
		journal->watermark = (struct record_place){journal->current->header.number,
							   (uint32_t)(journal->current->synced / RECORD_ALIGN)};
		journal->mark_at_ms = now_ms(journal) + MARK_DELAY_MS;
	} else if (journal->current->header.previous) {
		journal->watermark = (struct record_place){journal->current->header.previous,
							   (uint32_t)(journal->current->header.cut / RECORD_ALIGN)};
	}
	look_at_space(journal);
	prepare_spare(journal);
	review_state(journal);
	return journal;
}

void journal_free(struct journal **journal)
{
	struct journal *old = *journal;

	if (!old)
		return;
	batch_drop(&old->gather);
	batch_drop(&old->flight);
	segment_free(&old->spare, old->options.disk);
	for (uint32_t i = 0; i < old->condemned_count; i++)
		segment_free(&old->condemned[i], old->options.disk);
	free(old->condemned);
	free(old);
	*journal = NULL;
}
