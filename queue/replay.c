/*
 * Recovery's second half: the records of the chain, in their order, make the index. Pieces may come before or after
 * their MESSAGE; a MOVE replaces what was known; what belongs to nobody is forgotten.
 */
#include "queue/recovery.h"

#include "base/base.h"
#include "queue/internal.h"

#include <stdlib.h>
#include <uthash.h>

#define FUTURE_MAX_MS (24 * 3600 * 1000) /* a next attempt is never farther away than this after a start */

struct recovery_orphan {
	uint64_t id;
	struct index_place *pieces;
	uint32_t count;
	UT_hash_handle hh;
};

/* ---- Applying records to the index ---- */

static struct recovery_orphan *orphan_of(struct recovery *recovery, uint64_t id, bool make)
{
	struct recovery_orphan *orphan;

	HASH_FIND(hh, recovery->orphans, &id, sizeof(id), orphan);
	if (!orphan && make) {
		orphan = xcalloc(1, sizeof(*orphan));
		orphan->id = id;
		HASH_ADD(hh, recovery->orphans, id, sizeof(orphan->id), orphan);
	}
	return orphan;
}

static void free_orphan(struct recovery *recovery, struct recovery_orphan *orphan)
{
	HASH_DELETE(hh, recovery->orphans, orphan);
	free(orphan->pieces);
	free(orphan);
}

static void apply_data(struct recovery *recovery, const struct record_header *header, struct record_place place)
{
	struct slot *slot = index_find(recovery->index, header->id);
	struct index_place piece = {place, header->length};
	struct recovery_orphan *orphan;

	if (slot) {
		if (header->index < slot_piece_count(slot))
			slot->u.extra->pieces[header->index] = piece;
		return;
	}
	orphan = orphan_of(recovery, header->id, true);
	if (header->index >= orphan->count) {
		uint32_t count = header->index + 1u;
		orphan->pieces = xreallocarray(orphan->pieces, count, sizeof(orphan->pieces[0]));
		memset(orphan->pieces + orphan->count, 0, (count - orphan->count) * sizeof(orphan->pieces[0]));
		orphan->count = count;
	}
	orphan->pieces[header->index] = piece;
}

static int64_t clamp_next(const struct recovery *recovery, int64_t next_wall)
{
	return MIN(next_wall, recovery->now_wall + FUTURE_MAX_MS);
}

struct state_context {
	struct recovery *recovery;
	struct slot *slot;
};

static int apply_state(void *ctx, uint32_t recipient, const struct payload_result *result)
{
	struct state_context *state = ctx;
	struct payload_result clamped = *result;

	clamped.next_wall = clamp_next(state->recovery, result->next_wall);
	if (recipient < state->slot->rcpt_count)
		result_to_rcpt(state->slot, recipient, &clamped);
	return 0;
}

static void adopt_orphan(struct recovery *recovery, struct slot *slot)
{
	struct recovery_orphan *orphan = orphan_of(recovery, slot->id, false);

	if (!orphan)
		return;
	for (uint32_t i = 0; i < orphan->count && i < slot_piece_count(slot); i++)
		slot->u.extra->pieces[i] = orphan->pieces[i];
	free_orphan(recovery, orphan);
}

/* A known message is begun anew: a MOVE replaces all that was known but the places of its pieces; a deletion stays. */
static void reset_slot(struct slot *slot, int64_t due)
{
	slot->flags &= SLOT_EXTRA | SLOT_DELETING;
	for (uint32_t i = 0; i < slot->rcpt_count; i++) {
		struct index_rcpt *rcpt = slot_rcpt(slot, i);
		slot_rcpt_set(slot, i, RCPT_WAITING, due);
		rcpt->result = (struct record_place){0};
		rcpt->attempts = 0;
		rcpt->kind_reason = 0;
		rcpt->bits = RCPT_WAITING;
	}
}

/* `is_new`: no record of this id has been read yet, so there is nothing to be looked up. */
static int apply_message(struct recovery *recovery, const struct record_header *header, struct slice payload,
			 struct record_place place, bool is_new)
{
	struct slot *slot = is_new ? NULL : index_find(recovery->index, header->id);
	struct payload_core core;
	struct state_context state = {recovery, NULL};
	int64_t due;
	int rc = payload_get_core(payload, &core);

	if (rc < 0 || header->id == 0)
		return rc < 0 ? rc : ERR_CORRUPT;
	due = MIN(core.arrived_wall, recovery->now_wall);
	if (slot && (slot->rcpt_count != core.recipient_count || slot_piece_count(slot) != core.content.pieces))
		return ERR_CORRUPT;
	if (slot) {
		reset_slot(slot, due);
	} else {
		slot = index_add(recovery->index, header->id, core.recipient_count, core.content.pieces, due, due);
		if (!is_new)
			adopt_orphan(recovery, slot);
	}
	slot->message = place;
	slot->length = header->length;
	slot->class = (uint8_t)core.class;
	index_set_bytes(recovery->index, slot, (uint32_t)MIN(core.content.bytes, UINT32_MAX));
	if (core.held || (header->type == RECORD_MESSAGE && core.flags & QUEUE_HELD))
		slot->flags |= SLOT_HELD;
	if (core.warned)
		slot->flags |= SLOT_WARNED;
	if (core.deleting)
		slot->flags |= SLOT_DELETING;
	state.slot = slot;
	return payload_get_states(payload, apply_state, &state);
}

static int apply_result(struct recovery *recovery, const struct record_header *header, struct slice payload,
			struct record_place place)
{
	struct slot *slot = index_find(recovery->index, header->id);
	struct payload_result result;
	int rc = payload_get_result(payload, &result);

	if (rc < 0)
		return rc;
	if (!slot || header->index >= slot->rcpt_count)
		return 0;
	result.next_wall = clamp_next(recovery, result.next_wall);
	result_to_rcpt(slot, header->index, &result);
	slot_rcpt(slot, header->index)->result = place;
	return 0;
}

static void forget_message(struct recovery *recovery, uint64_t id)
{
	struct slot *slot = index_find(recovery->index, id);
	struct recovery_orphan *orphan = orphan_of(recovery, id, false);

	if (slot)
		free(index_remove(recovery->index, slot));
	if (orphan)
		free_orphan(recovery, orphan);
}

static void apply_flag(struct recovery *recovery, uint64_t id, uint8_t set, uint8_t clear)
{
	struct slot *slot = index_find(recovery->index, id);

	if (slot)
		slot->flags = (uint8_t)((slot->flags | set) & ~clear);
}

/* 0; ERR_CORRUPT: sound checksums around nonsense; ERR_VERSION: a newer relayd must know better. */
static int apply(struct recovery *recovery, const struct record_header *header, struct slice payload,
		 struct record_place place)
{
	/* Ids grow, so most messages are told to be new without a search. */
	bool is_new = header->id > recovery->highest_id;

	recovery->highest_id = MAX(recovery->highest_id, header->id);
	recovery_see_id(recovery, header->id);
	switch (header->type) {
	case RECORD_DATA: apply_data(recovery, header, place); return 0;
	case RECORD_MESSAGE:
	case RECORD_MOVE: return apply_message(recovery, header, payload, place, is_new);
	case RECORD_RESULT: return apply_result(recovery, header, payload, place);
	case RECORD_HOLD: apply_flag(recovery, header->id, SLOT_HELD, 0); return 0;
	case RECORD_RELEASE: apply_flag(recovery, header->id, 0, SLOT_HELD); return 0;
	case RECORD_WARNED: apply_flag(recovery, header->id, SLOT_WARNED, 0); return 0;
	case RECORD_DELETE: apply_flag(recovery, header->id, SLOT_DELETING, 0); return 0;
	case RECORD_DONE: forget_message(recovery, header->id); return 0;
	case RECORD_MARK:
	case RECORD_SEAL: return 0;
	default: return header->flags & RECORD_MUST_KNOW ? ERR_VERSION : 0;
	}
}

/* ---- Reading the chain ---- */

struct walk {
	struct recovery *recovery;
	struct segment *segment;
	struct scan scan;
	bool is_newest;
	uint64_t offset;
};

/* The record at the walk's offset; false: it is not sound. Pieces of older segments are only stepped over: their bytes
 * are checked when they are read for delivery. */
static bool read_record(struct walk *walk, struct record_header *header, struct slice *payload)
{
	*payload = (struct slice){0};
	if (!scan_header(&walk->scan, walk->offset, header))
		return false;
	if (header->type == RECORD_DATA && !walk->is_newest && !walk->recovery->check_bodies)
		return true;
	return scan_payload(&walk->scan, walk->offset, header, payload);
}

static void on_bad(struct walk *walk, uint64_t counts_until)
{
	struct record_header header;
	uint64_t from = walk->offset, next, id = 0;

	/* A sound header tells how long its damaged payload is, and whose it was. */
	if (scan_header(&walk->scan, from, &header)) {
		next = recovery_step_over(walk->recovery->rules, from, &header);
		id = header.id;
		recovery_see_id(walk->recovery, id);
	} else {
		next = scan_next_valid(&walk->scan, from + RECORD_ALIGN);
	}
	next = MIN(next, walk->scan.limit);
	if (next < walk->scan.limit || from < counts_until)
		recovery_add_range(walk->recovery, walk->segment, from, next, id, from >= counts_until);
	walk->offset = next;
}

int replay_segment(struct recovery *recovery, struct segment *segment, bool is_newest, struct err *err)
{
	uint64_t limit = is_newest ? recovery->tail_end : segment->end;
	struct walk walk = {recovery, segment, {0}, is_newest, SEGMENT_DATA_START};
	int rc = 0;

	scan_init(&walk.scan, recovery->disk, segment->fd, segment->header.nonce, limit);
	while (rc == 0 && walk.offset + RECORD_HEADER_BYTES <= limit) {
		struct record_place place = {segment->header.number, (uint32_t)(walk.offset / RECORD_ALIGN)};
		struct record_header header;
		struct slice payload;
		if (!read_record(&walk, &header, &payload)) {
			if (!recovery_skip_padding(recovery->rules, &walk.scan, &walk.offset))
				on_bad(&walk, segment->end);
			continue;
		}
		recovery->records++;
		rc = apply(recovery, &header, payload, place);
		if (rc == ERR_CORRUPT) {
			recovery_add_range(recovery, segment, walk.offset, walk.offset + record_bytes(header.length),
					   header.id, walk.offset >= segment->end);
			rc = 0;
		}
		walk.offset = recovery_step_over(recovery->rules, walk.offset, &header);
	}
	if (rc == ERR_VERSION)
		err_set(err, rc, "segment %u holds records that only a newer relayd understands",
			segment->header.number);
	recovery->report->bytes_read += walk.scan.bytes_read;
	recovery->report->segments++;
	scan_fini(&walk.scan);
	return rc;
}

/* ---- Messages that cannot be sent ---- */

static bool is_whole(const struct slot *slot)
{
	uint64_t bytes = 0;

	if (slot_piece_count(slot) == 0)
		return true;
	for (uint32_t i = 0; i < slot_piece_count(slot); i++) {
		if (slot->u.extra->pieces[i].at.segment == 0)
			return false;
		bytes += slot->u.extra->pieces[i].length;
	}
	return bytes == slot->bytes;
}

static bool is_in_tail(const struct recovery *recovery, struct record_place place)
{
	const struct segment *newest = segments_find(recovery->segments, recovery->newest);

	return place.segment == recovery->newest && (uint64_t)place.at8 * RECORD_ALIGN >= newest->end;
}

static void set_broken_aside(struct recovery *recovery, struct slot *slot)
{
	struct recovery_broken broken = {.id = slot->id,
					 .message = slot->message,
					 .length = slot->length,
					 .is_suspect = is_in_tail(recovery, slot->message)};

	recovery_tell_corruption(recovery, slot->id,
				 broken.is_suspect ? "pieces of its content are missing; it was not known to be synced"
						   : "pieces of its content are missing or damaged: it cannot be sent");
	broken.extra = index_remove(recovery->index, slot);
	recovery->broken = xreallocarray(recovery->broken, recovery->broken_count + 1, sizeof(recovery->broken[0]));
	recovery->broken[recovery->broken_count++] = broken;
	recovery->report->quarantined++;
}

void replay_check_messages(struct recovery *recovery)
{
	for (uint32_t number = 0; number < index_limit(recovery->index); number++) {
		struct slot *slot = index_slot(recovery->index, number);
		if (slot->id == 0)
			continue;
		if (!recovery->rules->trust_pieces && !is_whole(slot)) {
			set_broken_aside(recovery, slot);
			continue;
		}
		if (slot->rcpt_open == 0 || slot->flags & SLOT_DELETING)
			continue; /* its DONE was not written any more: repair.c does */
		recovery->report->messages++;
		recovery->report->recipients += slot->rcpt_open;
		recovery->report->content_bytes += slot->bytes;
	}
}

const struct index_place *replay_orphans(struct recovery *recovery, uint64_t id, uint32_t *count)
{
	const struct recovery_orphan *orphan = orphan_of(recovery, id, false);

	*count = orphan ? orphan->count : 0;
	return orphan ? orphan->pieces : NULL;
}

void replay_fini(struct recovery *recovery)
{
	struct recovery_orphan *orphan, *next;

	HASH_ITER(hh, recovery->orphans, orphan, next)
	{
		free_orphan(recovery, orphan);
	}
}
