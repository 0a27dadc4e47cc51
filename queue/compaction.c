/*
 * Compaction: what is still needed of the oldest segment is copied to the end of the journal, so that the segment can
 * be freed. Only the oldest can be: what is recorded of a message always stands in its own segment or in a later one.
 *
 * It begins when the files take more than 1.5 times what is needed plus two segments, and looks at four bytes for each
 * byte that others append or that dies (pacing by what is appended alone would fall far behind while a queue drains). A
 * step ends after a millisecond, or two when the files near their bound. The walk goes from record to record and asks
 * the index whether this very copy counts; what it cannot find because a header is damaged is found by a sweep over the
 * index afterwards.
 *
 * A segment is free only when its copies are synced. The walk does not wait for that, or a drain would outrun it: it
 * goes on in the next segments, but only while there is room for mail, since on a full disk copies come out of the
 * reserve.
 */
#include "queue/internal.h"

#include <stdio.h>
#include <stdlib.h>

#define STEP_BYTES (4u << 20)
#define STEP_MS 1
#define STEP_NEAR_BOUND_MS 2
#define STEP_RECORDS 64 /* between looks at the clock */
#define SWEEP_SLOTS 4096
#define SEGMENTS_SLACK 16 /* many small segments (one for each restart) are as bad as large ones */
#define BUDGET_SEGMENTS 4
#define STUCK_MS 10000	 /* before another try at what can be neither moved nor put aside */
#define AHEAD_SEGMENTS 8 /* walked, their copies not synced yet */

/* ---- When ---- */

/* Bytes of the files beyond `tenths` / 10 of what is needed. */
static uint64_t excess(const struct queue *queue, uint64_t tenths)
{
	uint64_t needed = queue->segments.live_bytes / 10 * tenths, disk;
	struct journal_counts counts;

	journal_counts(queue->journal, &counts);
	disk = segments_bytes(&queue->segments) + counts.spare_bytes;
	return disk > needed ? disk - needed : 0;
}

static bool is_wanted(const struct queue *queue)
{
	const struct segments *segments = &queue->segments;
	uint64_t size = queue->options.segment_bytes;

	if (segments->count < 2)
		return false;
	return excess(queue, 15) > 2 * size || segments->count > SEGMENTS_SLACK + 2 * (segments->live_bytes / size);
}

static void earn_budget(struct queue *queue)
{
	struct compaction *c = &queue->compaction;
	struct journal_counts counts;
	uint64_t appended, released, size = queue->options.segment_bytes;

	journal_counts(queue->journal, &counts);
	appended = counts.appended_bytes - c->own_appended;
	released = queue->segments.released_bytes - c->own_released;
	c->budget += 4 * (appended - c->seen_appended + released - c->seen_released);
	c->seen_appended = appended;
	c->seen_released = released;
	/* Restarts and failures leave segments that nobody paid for. */
	if (c->budget == 0 && excess(queue, 20) > 3 * size)
		c->budget = size;
	c->budget = MIN(c->budget, BUDGET_SEGMENTS * size);
}

void compaction_on_copied(struct queue *queue, const struct journal_item *item, bool took_place)
{
	struct compaction *c = &queue->compaction;

	BUG_ON(c->pending == 0);
	c->pending--;
	if (took_place)
		c->own_released += record_bytes(item->old_length);
}

/* ---- Copying ---- */

static void count_copy(struct queue *queue, uint64_t appended_before)
{
	struct journal_counts counts;

	journal_counts(queue->journal, &counts);
	queue->compaction.own_appended += counts.appended_bytes - appended_before;
	queue->compaction.pending++;
}

static uint64_t appended_bytes(const struct queue *queue)
{
	struct journal_counts counts;

	journal_counts(queue->journal, &counts);
	return counts.appended_bytes;
}

/* States by recipient, with the texts that the old copy had folded in. */
struct folded {
	struct payload_result *states;
	uint32_t count;
};

static int collect_state(void *ctx, uint32_t recipient, const struct payload_result *result)
{
	struct folded *folded = ctx;

	if (recipient < folded->count)
		folded->states[recipient] = *result;
	return 0;
}

/* What memory knows is the state; the texts come from the last RESULT, or from the old copy if there was none since. */
static struct payload_result state_now(const struct queue *queue, struct slot *slot, uint32_t i,
				       const struct payload_result *folded, char *room, bool with_texts)
{
	const struct index_rcpt *rcpt = slot_rcpt(slot, i);
	struct payload_result state = result_of_rcpt(rcpt), texts = {0};

	if (!with_texts)
		return state;
	if (rcpt->result.segment == 0)
		texts = *folded;
	else if (content_read_result(queue, rcpt, room, &texts) < 0)
		return state;
	if (texts.kind != state.kind || texts.attempts != state.attempts)
		return state; /* a newer result is on its way to the disk */
	state.stage = texts.stage;
	state.code = texts.code;
	state.enhanced = texts.enhanced;
	state.host = texts.host;
	state.text = texts.text;
	state.at_wall = texts.at_wall;
	state.before = texts.before;
	return state;
}

static int put_states(struct queue *queue, struct slot *slot, struct buf *out, const struct payload_result *folded,
		      bool with_texts)
{
	char room[RESULT_ROOM];
	int rc = payload_put_message_state(out, slot->flags & SLOT_HELD, slot->flags & SLOT_WARNED,
					   slot->flags & SLOT_DELETING);

	for (uint32_t i = 0; rc == 0 && i < slot->rcpt_count; i++) {
		struct payload_result state;
		if (slot_rcpt(slot, i)->kind_reason == 0)
			continue;
		state = state_now(queue, slot, i, &folded[i], room, with_texts);
		rc = payload_put_state(out, i, &state);
	}
	return rc;
}

static int append_move(struct queue *queue, struct slot *slot, struct slice payload,
		       const struct payload_result *folded, bool with_texts)
{
	struct journal_item item = {
	    .id = slot->id, .type = RECORD_MOVE, .old = slot->message, .old_length = slot->length};
	struct buf *out = journal_append_begin(queue->journal);
	int rc = queue->rules->fold_early ? buf_append(out, payload) : payload_copy_message(out, payload);

	if (rc == 0 && !queue->rules->fold_early)
		rc = put_states(queue, slot, out, folded, with_texts);
	if (rc < 0) {
		journal_append_cancel(queue->journal);
		return rc;
	}
	return journal_append_end(queue->journal, &item);
}

static int move_read_message(struct queue *queue, struct slot *slot, struct slice payload)
{
	struct folded folded = {xcalloc(slot->rcpt_count, sizeof(folded.states[0])), slot->rcpt_count};
	uint64_t before = appended_bytes(queue);
	struct payload_core core;
	int rc = payload_get_core(payload, &core);

	if (rc == 0 && core.recipient_count != slot->rcpt_count)
		rc = ERR_CORRUPT;
	if (rc == 0)
		rc = payload_get_states(payload, collect_state, &folded);
	if (rc == 0) {
		rc = append_move(queue, slot, payload, folded.states, true);
		if (rc == ERR_LIMIT)
			rc = append_move(queue, slot, payload, folded.states, false);
	}
	free(folded.states);
	if (rc == 0)
		count_copy(queue, before);
	return rc;
}

/* True: go on. */
static bool move_message(struct queue *queue, struct slot *slot)
{
	char *memory = xmalloc(RECORD_HEADER_BYTES + (size_t)slot->length);
	struct record_header header;
	int rc = segments_read(&queue->segments, slot->message, slot->length, memory, &header);

	if (rc == 0 && header.id != slot->id)
		rc = ERR_CORRUPT;
	if (rc == 0)
		rc = move_read_message(queue, slot, slice_of(memory + RECORD_HEADER_BYTES, slot->length));
	free(memory);
	if (rc == ERR_CORRUPT || rc == ERR_VERSION)
		aside_put(queue, slot, "its MESSAGE record is damaged");
	return rc == 0;
}

static int append_piece(struct queue *queue, uint64_t id, uint32_t number, const struct index_place *piece,
			struct slice content)
{
	struct journal_item item = {
	    .id = id, .index = (uint16_t)number, .type = RECORD_DATA, .old = piece->at, .old_length = piece->length};

	if (buf_append(journal_append_begin(queue->journal), content) < 0) {
		journal_append_cancel(queue->journal);
		return ERR_LIMIT;
	}
	return journal_append_end(queue->journal, &item);
}

static bool move_piece(struct queue *queue, uint64_t id, uint32_t number, const struct index_place *piece)
{
	char *memory = xmalloc(RECORD_HEADER_BYTES + (size_t)piece->length);
	uint64_t before = appended_bytes(queue);
	struct record_header header;
	struct slot *slot;
	int rc = segments_read(&queue->segments, piece->at, piece->length, memory, &header);

	if (rc == 0 && (header.id != id || header.type != RECORD_DATA || header.index != number))
		rc = ERR_CORRUPT;
	if (rc == 0) {
		rc = append_piece(queue, id, number, piece, slice_of(memory + RECORD_HEADER_BYTES, piece->length));
		if (rc == 0)
			count_copy(queue, before);
	}
	free(memory);
	slot = rc == ERR_CORRUPT ? queue_find(queue, id) : NULL;
	if (slot)
		aside_put(queue, slot, "a piece of its content is damaged");
	return rc == 0;
}

/* ---- The walk ---- */

static bool is_here(struct record_place a, uint32_t segment, uint64_t offset)
{
	return a.segment == segment && (uint64_t)a.at8 * RECORD_ALIGN == offset;
}

static void consider_data(struct queue *queue, const struct record_header *header, uint64_t offset)
{
	struct compaction *c = &queue->compaction;
	struct slot *slot = index_find(queue->index, header->id);
	const struct index_place *piece = NULL;

	if (slot && header->index < slot_piece_count(slot))
		piece = &slot->u.extra->pieces[header->index];
	else if (!slot && !queue->rules->uploads_stay)
		piece = upload_piece(queue, header->id, header->index);
	if (piece && is_here(piece->at, c->segment, offset))
		move_piece(queue, header->id, header->index, piece);
}

static void consider(struct queue *queue, const struct record_header *header, uint64_t offset)
{
	struct compaction *c = &queue->compaction;
	struct slot *slot;

	if (header->type == RECORD_DATA) {
		consider_data(queue, header, offset);
	} else if (header->type == RECORD_MESSAGE || header->type == RECORD_MOVE) {
		slot = queue_find(queue, header->id);
		if (slot && is_here(slot->message, c->segment, offset))
			move_message(queue, slot);
	}
}

/* Looks at one record, or steps over eight bytes that are none. Returns how many bytes that were. */
static uint64_t walk_on(struct queue *queue)
{
	struct compaction *c = &queue->compaction;
	struct record_header header;
	uint64_t offset = c->offset, next;

	if (scan_header(&c->scan, offset, &header)) {
		next = offset + record_bytes(header.length);
		if (header.type == RECORD_MARK && !queue->rules->no_padding)
			next = record_block_up(next);
		consider(queue, &header, offset);
	} else {
		next = offset + RECORD_ALIGN;
	}
	c->offset = next;
	return next - offset;
}

static bool stands_in(const struct slot *slot, uint32_t segment)
{
	bool found = slot->message.segment == segment;

	for (uint32_t i = 0; !found && i < slot_piece_count(slot); i++)
		found = slot->u.extra->pieces[i].at.segment == segment;
	return found;
}

/* What the walk did not find: its header is damaged, or the walk was misled by one. */
static void sweep_slot(struct queue *queue, struct slot *slot)
{
	uint32_t segment = queue->compaction.segment;

	if (slot->flags & SLOT_CORRUPT) {
		if (stands_in(slot, segment))
			aside_put(queue, slot, "");
		return;
	}
	if (slot->message.segment == segment && !move_message(queue, slot))
		return;
	for (uint32_t i = 0; i < slot_piece_count(slot); i++)
		if (slot->u.extra->pieces[i].at.segment == segment &&
		    !move_piece(queue, slot->id, i, &slot->u.extra->pieces[i]))
			return;
}

/* All was looked at and something stays: a sector that cannot be read (which is no damage yet, it may be a cable), or a
 * quarantine that takes nothing. Trying without end would keep loop and disk busy with nothing else. */
static void leave_for_now(struct queue *queue)
{
	struct compaction *c = &queue->compaction;
	const struct segment *segment = segments_find(&queue->segments, c->segment);
	char text[128];

	if (!segment || segment->live == 0)
		return;
	c->not_before_ms = clock_mono_ms(queue->options.clock) + STUCK_MS;
	if (c->told == c->segment)
		return;
	c->told = c->segment;
	snprintf(text, sizeof(text),
		 "segment %u (%s) cannot be freed: some of it is needed and cannot be read or moved", c->segment,
		 segment->name);
	queue_tell_corruption(queue, 0, text);
}

static void sweep_on(struct queue *queue)
{
	struct compaction *c = &queue->compaction;
	uint32_t limit = index_limit(queue->index);

	for (uint32_t looked = 0; looked < SWEEP_SLOTS && c->sweep < limit; looked++) {
		struct slot *slot = index_slot(queue->index, c->sweep++);
		if (slot->id != 0 && slot->flags & SLOT_SYNCED)
			sweep_slot(queue, slot);
	}
	c->budget -= MIN(c->budget, (uint64_t)SWEEP_SLOTS * RECORD_ALIGN);
	if (c->sweep < limit)
		return;
	c->sweep = 0;
	if (!queue->rules->uploads_stay)
		upload_each_piece(queue, c->segment, move_piece);
	c->is_waiting = c->pending > 0 || queue->asides || journal_unsynced_bytes(queue->journal) > 0;
	if (!c->is_waiting)
		leave_for_now(queue);
}

/* The oldest segment with something in it that is needed and that is not walked yet; once all copies are synced also one
 * that is, for then the walk has missed something there. 0: none now. */
static uint32_t choose_segment(const struct queue *queue)
{
	const struct segments *segments = &queue->segments;
	const struct compaction *c = &queue->compaction;
	uint32_t ahead = 0;

	for (uint32_t i = 0; i + 1 < segments->count; i++) {
		const struct segment *segment = segments->items[i];
		if (segment->live == 0)
			continue;
		if (c->pending == 0 || segment->header.number > c->walked)
			return segment->header.number;
		if (++ahead == AHEAD_SEGMENTS || journal_state(queue->journal) != QUEUE_OK)
			return 0;
	}
	return 0;
}

static void begin_walk(struct queue *queue, uint32_t number)
{
	struct compaction *c = &queue->compaction;
	const struct segment *segment = segments_find(&queue->segments, number);

	scan_fini(&c->scan);
	c->segment = number;
	if (!segment)
		return;
	c->offset = number > c->walked ? SEGMENT_DATA_START : segment->end;
	c->sweep = 0;
	scan_init(&c->scan, queue->disk, segment->fd, segment->header.nonce, segment->end);
}

static bool may_walk(const struct queue *queue, uint64_t looked)
{
	const struct compaction *c = &queue->compaction;

	return c->offset + RECORD_HEADER_BYTES <= c->scan.limit && looked < c->budget && looked < STEP_BYTES &&
	       journal_unsynced_bytes(queue->journal) <= QUEUE_UNSYNCED_MAX;
}

/* The bound is 2 x what is needed + 4 segments. */
static int64_t step_ms(const struct queue *queue)
{
	return excess(queue, 20) > 3 * queue->options.segment_bytes ? STEP_NEAR_BOUND_MS : STEP_MS;
}

static void step(struct queue *queue)
{
	struct compaction *c = &queue->compaction;
	int64_t until_ms = clock_mono_ms(queue->options.clock) + step_ms(queue);
	uint64_t looked = 0;

	do {
		for (int i = 0; i < STEP_RECORDS && may_walk(queue, looked); i++)
			looked += walk_on(queue);
	} while (may_walk(queue, looked) && clock_mono_ms(queue->options.clock) < until_ms);
	c->budget -= MIN(c->budget, looked);
	if (c->offset + RECORD_HEADER_BYTES <= c->scan.limit)
		return;
	c->walked = MAX(c->walked, c->segment);
	if (c->sweep > 0 && c->pending > 0)
		c->is_waiting = true;
	else if (c->pending == 0 && c->budget > 0)
		sweep_on(queue);
}

void compaction_step(struct queue *queue)
{
	struct compaction *c = &queue->compaction;
	uint32_t target;

	earn_budget(queue);
	c->is_waiting = true;
	if (!is_wanted(queue)) {
		c->budget = 0;
		c->not_before_ms = 0;
		return;
	}
	if (c->budget == 0 || clock_mono_ms(queue->options.clock) < c->not_before_ms ||
	    journal_state(queue->journal) == QUEUE_POISONED ||
	    journal_unsynced_bytes(queue->journal) > QUEUE_UNSYNCED_MAX)
		return;
	target = c->sweep > 0 ? c->segment : choose_segment(queue);
	if (target == 0)
		return;
	if (target != c->segment)
		begin_walk(queue, target);
	c->is_waiting = false;
	step(queue);
}

int64_t compaction_next_deadline_ms(const struct queue *queue)
{
	const struct compaction *c = &queue->compaction;
	int64_t now = clock_mono_ms(queue->options.clock);

	if (c->not_before_ms > now)
		return c->not_before_ms;
	return c->is_waiting || c->budget == 0 ? INT64_MAX : now;
}

void compaction_fini(struct queue *queue)
{
	scan_fini(&queue->compaction.scan);
}
