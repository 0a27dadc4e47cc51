#include "queue/recovery.h"

#include "base/base.h"
#include "base/msgid.h"
#include "queue/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

#define FUTURE_MAX_MS (24 * 3600 * 1000) /* a next attempt is never farther away than this after a start */
#define PEEK_BYTES (256 * 1024)		 /* of a file without header: an unsynced first batch shows here */

struct recovery_orphan {
	uint64_t id;
	struct index_place *pieces;
	uint32_t count;
	UT_hash_handle hh;
};

/* ---- Telling ---- */

static void tell_corruption(const struct recovery *recovery, uint64_t id, const char *text)
{
	if (recovery->notify->on_corruption)
		recovery->notify->on_corruption(recovery->notify->ctx, id, text);
}

static void tell_note(const struct recovery *recovery, const char *text)
{
	if (recovery->notify->on_note)
		recovery->notify->on_note(recovery->notify->ctx, text);
}

static void add_range(struct recovery *recovery, const struct segment *segment, uint64_t offset, uint64_t end,
		      uint64_t id, bool is_suspect)
{
	struct recovery_range *range;
	char text[256], id_text[MSGID_CHARS + 16] = "";

	recovery->ranges = xreallocarray(recovery->ranges, recovery->range_count + 1, sizeof(recovery->ranges[0]));
	range = &recovery->ranges[recovery->range_count++];
	*range = (struct recovery_range){.fd = segment->fd,
					 .segment = segment->header.number,
					 .offset = offset,
					 .bytes = end - offset,
					 .id = id,
					 .is_suspect = is_suspect};
	memcpy(range->name, segment->name, sizeof(range->name));
	if (is_suspect) {
		recovery->report->suspect_ranges++;
		recovery->report->suspect_bytes += range->bytes;
	} else {
		recovery->report->corrupt_ranges++;
		recovery->report->corrupt_bytes += range->bytes;
	}
	if (id) {
		memcpy(id_text, ", of message ", 13);
		msgid_format(id, id_text + 13);
	}
	snprintf(text, sizeof(text), "segment %u (%s): octets %" PRIu64 " to %" PRIu64 " are %s%s",
		 segment->header.number, segment->name, offset, end,
		 is_suspect ? "torn or damaged" : "damaged, though they had been synced", id_text);
	tell_corruption(recovery, id, text);
}

/* ---- Finding the files ---- */

static bool parse_name(const char *name, uint64_t *number)
{
	char *end;

	if (strlen(name) != 20 || (strncmp(name, "seg-", 4) != 0 && strncmp(name, "new-", 4) != 0))
		return false;
	*number = strtoull(name + 4, &end, 16);
	return *end == '\0';
}

struct names {
	char (*items)[SEGMENT_NAME_MAX];
	uint32_t count;
};

static int collect_name(void *ctx, const char *name)
{
	struct names *names = ctx;

	names->items = xreallocarray(names->items, names->count + 1, sizeof(names->items[0]));
	snprintf(names->items[names->count++], SEGMENT_NAME_MAX, "%s", name);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

static bool has_content(struct recovery *recovery, int fd, uint64_t limit)
{
	struct scan scan;
	bool any;

	scan_init(&scan, recovery->disk, fd, 0, limit);
	any = scan_last_nonzero(&scan, 0) > 0;
	scan_fini(&scan);
	return any;
}

static void add_leftover(struct recovery *recovery, const char *name, int fd, uint64_t size, bool header)
{
	struct recovery_leftover *leftover;

	recovery->leftovers =
	    xreallocarray(recovery->leftovers, recovery->leftover_count + 1, sizeof(recovery->leftovers[0]));
	leftover = &recovery->leftovers[recovery->leftover_count++];
	*leftover = (struct recovery_leftover){.fd = fd, .size = size, .has_header = header};
	snprintf(leftover->name, sizeof(leftover->name), "%s", name);
	recovery->report->leftovers++;
}

/* Made ahead of need, it is empty; from a recovery that was cut short, it has records and no header yet; a header that
 * is there and unsound, or records in a file that recovery did not make, are evidence of more. */
static void add_headless(struct recovery *recovery, const char *name, int fd, uint64_t size)
{
	struct recovery_leftover *leftover;

	add_leftover(recovery, name, fd, size, false);
	leftover = &recovery->leftovers[recovery->leftover_count - 1];
	leftover->has_content = has_content(recovery, fd, MIN(size, (uint64_t)PEEK_BYTES));
	if (strncmp(name, "seg-", 4) == 0)
		leftover->is_evidence = leftover->has_content;
	else
		leftover->is_evidence = has_content(recovery, fd, MIN(size, (uint64_t)SEGMENT_DATA_START));
}

static void add_found(struct recovery *recovery, const char *name, int fd, uint64_t size,
		      const struct segment_header *header)
{
	struct segment *segment = xcalloc(1, sizeof(*segment));

	segment->header = *header;
	snprintf(segment->name, sizeof(segment->name), "%s", name);
	segment->fd = fd;
	segment->bytes = size;
	recovery->found = xreallocarray(recovery->found, recovery->found_count + 1, sizeof(recovery->found[0]));
	recovery->found[recovery->found_count++] = segment;
	recovery->highest = MAX(recovery->highest, header->number);
	recovery->id_floor = MAX(recovery->id_floor, header->id_floor);
	recovery->spool = header->spool;
}

static int look_at_file(struct recovery *recovery, const char *name, struct err *err)
{
	struct segment_header header;
	char blocks[SEGMENT_DATA_START], text[256];
	uint64_t size, number;
	ssize_t n;
	int fd, rc;

	if (!parse_name(name, &number)) {
		snprintf(text, sizeof(text), "journal/%.100s is not ours: left alone", name);
		tell_note(recovery, text);
		return 0;
	}
	recovery->next_name = MAX(recovery->next_name, number + 1);
	rc = recovery->disk->open(recovery->disk, DISK_JOURNAL, name, &fd, &size);
	if (rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM)
		return err_set(err, ERR_SYSTEM, "cannot open journal/%s: %s", name, strerror(-rc));
	if (rc == 0) {
		n = recovery->disk->read(recovery->disk, fd, blocks, sizeof(blocks), 0);
		if (n >= 0) {
			rc = segment_header_get(blocks, (size_t)n, &header);
			if (rc == 1)
				add_found(recovery, name, fd, size, &header);
			else if (rc == 0)
				add_headless(recovery, name, fd, size);
			else
				recovery->disk->close(recovery->disk, fd);
			return rc < 0 ? err_set(err, ERR_VERSION, "journal/%s was written by a newer relayd", name) : 0;
		}
		recovery->disk->close(recovery->disk, fd);
		rc = (int)n;
	}
	if (rc == -ENOENT)
		return 0; /* only a tool that looks at a living journal sees this: it was freed meanwhile */
	snprintf(text, sizeof(text), "journal/%s cannot be read (%s): left alone", name,
		 rc == -EINVAL ? "not a regular file of its own" : strerror(-rc));
	tell_corruption(recovery, 0, text);
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const struct segment *const *left = a, *const *right = b;

	return (*left)->header.number < (*right)->header.number ? -1 : 1;
}

int recovery_find_files(struct recovery *recovery, struct err *err)
{
	struct names names = {0};
	int rc = recovery->disk->list(recovery->disk, DISK_JOURNAL, collect_name, &names);

	if (rc < 0)
		rc = err_set(err, err_code_of_errno(-rc), "cannot list the journal: %s", strerror(-rc));
	if (rc == 0 && names.count > 0)
		qsort(names.items, names.count, sizeof(names.items[0]), by_name);
	for (uint32_t i = 0; rc == 0 && i < names.count; i++)
		rc = look_at_file(recovery, names.items[i], err);
	free(names.items);
	if (recovery->found_count > 0)
		qsort(recovery->found, recovery->found_count, sizeof(recovery->found[0]), by_number);
	return rc;
}

/* ---- The newest segment: how far is it known to be synced, where does it end ---- */

static void see_id(struct recovery *recovery, uint64_t id)
{
	recovery->id_floor = MAX(recovery->id_floor, id < UINT64_MAX ? id + 1 : id);
}

/* A reader steps from record to record; behind a MARK the next stands at the next block. */
static uint64_t step_over(const struct journal_rules *rules, uint64_t offset, const struct record_header *header)
{
	uint64_t next = offset + record_bytes(header->length);

	return header->type == RECORD_MARK && !rules->no_padding ? record_block_up(next) : next;
}

/* Only a broken rule asks for it: without a MARK nothing but the zeros tells that a batch has ended. */
static bool skip_padding(const struct journal_rules *rules, struct scan *scan, uint64_t *offset)
{
	const char *at = scan_bytes(scan, *offset, RECORD_HEADER_BYTES);

	if (!rules->no_marks || *offset % RECORD_BLOCK == 0 || at[0] != 0 ||
	    memcmp(at, at + 1, RECORD_HEADER_BYTES - 1))
		return false;
	*offset = record_block_up(*offset);
	return true;
}

static void see_mark(struct recovery *recovery, struct slice payload)
{
	struct payload_mark mark;

	if (payload_get_mark(payload, &mark) == 0 && mark.first <= recovery->highest)
		recovery->first = MAX(recovery->first, (uint32_t)mark.first);
}

/* Reads all of it, payloads too. Sets `end` to the watermark (0: there is none) and returns where good records end. */
static uint64_t survey(struct recovery *recovery, struct segment *segment)
{
	uint64_t offset = SEGMENT_DATA_START, good_end = SEGMENT_DATA_START, watermark = 0;
	struct scan scan;

	scan_init(&scan, recovery->disk, segment->fd, segment->header.nonce, segment->bytes);
	while (offset + RECORD_HEADER_BYTES <= scan.limit) {
		struct record_header header;
		struct slice payload;
		if (!scan_header(&scan, offset, &header) || !scan_payload(&scan, offset, &header, &payload)) {
			if (skip_padding(recovery->rules, &scan, &offset))
				continue;
			if (recovery->rules->stop_at_gap)
				break;
			offset = scan_next_valid(&scan, offset + RECORD_ALIGN);
			continue;
		}
		if (header.watermark.segment == segment->header.number)
			watermark = MAX(watermark, (uint64_t)header.watermark.at8 * RECORD_ALIGN);
		if (header.type == RECORD_MARK)
			see_mark(recovery, payload);
		offset = step_over(recovery->rules, offset, &header);
		good_end = offset;
	}
	recovery->report->bytes_read += scan.bytes_read;
	scan_fini(&scan);
	segment->end = watermark;
	return MAX(good_end, watermark);
}

static void count_torn(struct recovery *recovery, const struct segment *segment, uint64_t from)
{
	struct scan scan;
	uint64_t torn;
	char text[128];

	if (from >= segment->bytes)
		return;
	scan_init(&scan, recovery->disk, segment->fd, segment->header.nonce, segment->bytes);
	torn = scan_last_nonzero(&scan, from) - from;
	scan_fini(&scan);
	recovery->report->torn_bytes += torn;
	if (torn == 0)
		return;
	snprintf(text, sizeof(text), "segment %u: a torn end of %" PRIu64 " octets is cut off", segment->header.number,
		 torn);
	tell_note(recovery, text);
}

/* ---- The chain ---- */

static bool has_record(struct recovery *recovery, const struct recovery_leftover *leftover, uint64_t nonce)
{
	uint64_t limit = MIN(leftover->size, (uint64_t)PEEK_BYTES);
	struct scan scan;
	bool any;

	if (limit < SEGMENT_DATA_START)
		return false;
	scan_init(&scan, recovery->disk, leftover->fd, nonce, limit);
	any = scan_next_valid(&scan, SEGMENT_DATA_START) < limit;
	scan_fini(&scan);
	return any;
}

static struct segment *take_found(struct recovery *recovery, uint32_t at)
{
	struct segment *segment = recovery->found[at];

	recovery->found_count--;
	memmove(recovery->found + at, recovery->found + at + 1,
		(recovery->found_count - at) * sizeof(recovery->found[0]));
	return segment;
}

static struct segment *take_number(struct recovery *recovery, uint32_t number)
{
	for (uint32_t at = 0; at < recovery->found_count; at++)
		if (recovery->found[at]->header.number == number)
			return take_found(recovery, at);
	return NULL;
}

/* The highest below `number` that is still needed. */
static struct segment *take_older(struct recovery *recovery, uint32_t number)
{
	uint32_t at = recovery->found_count;

	while (at > 0 && recovery->found[at - 1]->header.number >= number)
		at--;
	return at > 0 && recovery->found[at - 1]->header.number >= recovery->first ? take_found(recovery, at - 1)
										   : NULL;
}

/* A file without sound header whose first record is sound with the nonce that its successor names: both copies of the
 * header were lost, and the successor tells what stood in them. */
static struct segment *adopt_headless(struct recovery *recovery, const struct segment_header *successor)
{
	char text[128];

	for (uint32_t i = 0; i < recovery->leftover_count; i++) {
		struct recovery_leftover *leftover = &recovery->leftovers[i];
		struct segment_header header = {.number = successor->previous,
						.nonce = successor->previous_nonce,
						.previous = successor->previous_previous,
						.cut = successor->previous_cut};
		struct segment *segment;
		if (leftover->has_header || !leftover->has_content ||
		    !has_record(recovery, leftover, successor->previous_nonce))
			continue;
		segment = xcalloc(1, sizeof(*segment));
		segment->header = header;
		memcpy(segment->name, leftover->name, sizeof(segment->name));
		segment->fd = leftover->fd;
		segment->bytes = leftover->size;
		*leftover = recovery->leftovers[--recovery->leftover_count];
		recovery->report->leftovers--;
		snprintf(text, sizeof(text),
			 "segment %u (%s): both headers are damaged; read with its successor's help", header.number,
			 segment->name);
		tell_corruption(recovery, 0, text);
		recovery->report->corrupt_ranges++;
		return segment;
	}
	return NULL;
}

static void tell_missing(struct recovery *recovery, uint32_t number)
{
	char text[96];

	recovery->report->segments_missing++;
	snprintf(text, sizeof(text), "segment %u is missing, or its headers are damaged", number);
	tell_corruption(recovery, 0, text);
}

/* What counts of `segment` ends where its successor says; 0: the successor is lost, so all that is good counts. */
static void set_end(struct recovery *recovery, struct segment *segment, uint64_t cut)
{
	if (cut == 0) {
		segment->end = MIN(survey(recovery, segment), segment->bytes);
	} else {
		segment->end = cut;
	}
	segment->synced = segment->end;
}

/* The segment before this one, with its end; NULL: there is none that is needed and can be read. */
static struct segment *step_back(struct recovery *recovery, const struct segment_header *header)
{
	struct segment *segment;

	if (header->previous == 0 || header->previous < recovery->first)
		return NULL;
	segment = take_number(recovery, header->previous);
	if (!segment)
		segment = adopt_headless(recovery, header);
	if (segment) {
		set_end(recovery, segment, header->cut);
		return segment;
	}
	tell_missing(recovery, header->previous);
	segment = take_older(recovery, header->previous);
	if (segment)
		set_end(recovery, segment, 0);
	return segment;
}

static void link_chain(struct recovery *recovery)
{
	struct segment **chain = NULL, *segment;
	uint32_t count = 0;

	if (recovery->found_count == 0)
		return;
	segment = take_found(recovery, recovery->found_count - 1);
	recovery->newest = segment->header.number;
	recovery->first = segment->header.first;
	recovery->tail_end = survey(recovery, segment);
	segment->synced = segment->end;
	while (segment) {
		chain = xreallocarray(chain, count + 1, sizeof(chain[0]));
		chain[count++] = segment;
		segment = step_back(recovery, &segment->header);
	}
	while (count > 0)
		segments_add(recovery->segments, chain[--count]);
	free(chain);
}

/* Sound headers outside the chain: freed, or nothing of them was ever synced. Of a number that stands twice the second
 * file is left alone, for nobody knows how it came. */
static void drop_unchained(struct recovery *recovery)
{
	char text[128];

	for (uint32_t i = 0; i < recovery->found_count; i++) {
		struct segment *segment = recovery->found[i];
		struct segment *twin = segments_find(recovery->segments, segment->header.number);
		if (twin && twin->header.nonce != segment->header.nonce) {
			snprintf(text, sizeof(text), "segment %u stands twice, also in %s: left alone",
				 segment->header.number, segment->name);
			tell_corruption(recovery, 0, text);
			continue;
		}
		add_leftover(recovery, segment->name, segment->fd, segment->bytes, true);
		segment->fd = -1;
	}
}

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

/* A known message is begun anew: a MOVE replaces all that was known but the places of its pieces. */
static void reset_slot(struct slot *slot, int64_t due)
{
	slot->flags &= SLOT_EXTRA;
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
	see_id(recovery, header->id);
	switch (header->type) {
	case RECORD_DATA: apply_data(recovery, header, place); return 0;
	case RECORD_MESSAGE:
	case RECORD_MOVE: return apply_message(recovery, header, payload, place, is_new);
	case RECORD_RESULT: return apply_result(recovery, header, payload, place);
	case RECORD_HOLD: apply_flag(recovery, header->id, SLOT_HELD, 0); return 0;
	case RECORD_RELEASE: apply_flag(recovery, header->id, 0, SLOT_HELD); return 0;
	case RECORD_WARNED: apply_flag(recovery, header->id, SLOT_WARNED, 0); return 0;
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
		next = step_over(walk->recovery->rules, from, &header);
		id = header.id;
		see_id(walk->recovery, id);
	} else {
		next = scan_next_valid(&walk->scan, from + RECORD_ALIGN);
	}
	next = MIN(next, walk->scan.limit);
	if (next < walk->scan.limit || from < counts_until)
		add_range(walk->recovery, walk->segment, from, next, id, from >= counts_until);
	walk->offset = next;
}

static int read_segment(struct recovery *recovery, struct segment *segment, bool is_newest, struct err *err)
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
			if (!skip_padding(recovery->rules, &walk.scan, &walk.offset))
				on_bad(&walk, segment->end);
			continue;
		}
		recovery->records++;
		rc = apply(recovery, &header, payload, place);
		if (rc == ERR_CORRUPT) {
			add_range(recovery, segment, walk.offset, walk.offset + record_bytes(header.length), header.id,
				  walk.offset >= segment->end);
			rc = 0;
		}
		walk.offset = step_over(recovery->rules, walk.offset, &header);
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
	struct recovery_broken broken = {slot->id, slot->message, slot->length, is_in_tail(recovery, slot->message)};

	recovery->broken = xreallocarray(recovery->broken, recovery->broken_count + 1, sizeof(recovery->broken[0]));
	recovery->broken[recovery->broken_count++] = broken;
	recovery->report->quarantined++;
	tell_corruption(recovery, slot->id,
			broken.is_suspect ? "pieces of its content are missing; it was not known to be synced"
					  : "pieces of its content are missing or damaged: it cannot be sent");
	free(index_remove(recovery->index, slot));
}

static void check_messages(struct recovery *recovery)
{
	for (uint32_t number = 0; number < index_limit(recovery->index); number++) {
		struct slot *slot = index_slot(recovery->index, number);
		if (slot->id == 0)
			continue;
		if (!recovery->rules->trust_pieces && !is_whole(slot)) {
			set_broken_aside(recovery, slot);
			continue;
		}
		if (slot->rcpt_open == 0)
			continue; /* the DONE behind its last result was not written any more: repair.c does */
		recovery->report->messages++;
		recovery->report->recipients += slot->rcpt_open;
		recovery->report->content_bytes += slot->bytes;
	}
}

int recovery_scan(struct recovery *recovery, struct err *err)
{
	int rc = recovery_find_files(recovery, err);

	if (rc < 0)
		return rc;
	link_chain(recovery);
	drop_unchained(recovery);
	for (uint32_t i = 0; rc == 0 && i < recovery->segments->count; i++) {
		struct segment *segment = recovery->segments->items[i];
		bool is_newest = segment->header.number == recovery->newest;
		rc = read_segment(recovery, segment, is_newest, err);
		if (is_newest)
			count_torn(recovery, segment, recovery->tail_end);
		if (recovery->notify->on_progress)
			recovery->notify->on_progress(recovery->notify->ctx, i + 1, recovery->segments->count);
	}
	if (rc == 0)
		check_messages(recovery);
	return rc;
}

void recovery_fini(struct recovery *recovery)
{
	struct recovery_orphan *orphan, *next;

	HASH_ITER(hh, recovery->orphans, orphan, next)
	{
		free_orphan(recovery, orphan);
	}
	for (uint32_t i = 0; i < recovery->found_count; i++)
		segment_free(&recovery->found[i], recovery->disk);
	for (uint32_t i = 0; i < recovery->leftover_count; i++)
		if (recovery->leftovers[i].fd >= 0)
			recovery->disk->close(recovery->disk, recovery->leftovers[i].fd);
	free(recovery->found);
	free(recovery->leftovers);
	free(recovery->ranges);
	free(recovery->broken);
}

/* ---- For the queue ---- */

/* From now on the messages count, and stand in the heaps. */
static void activate(struct index *index)
{
	for (uint32_t number = 0; number < index_limit(index); number++) {
		struct slot *slot = index_slot(index, number);
		if (slot->id == 0)
			continue;
		slot->flags |= SLOT_SYNCED;
		index_change_end(index, slot);
	}
}

static int scan_and_repair(struct recovery *recovery, const struct queue_options *options, struct err *err)
{
	int rc = 0;

	/* What a killed run created or unlinked must be decided before anything is built on it. */
	if (!recovery->rules->no_dir_sync)
		rc = recovery->disk->sync_dir(recovery->disk, DISK_JOURNAL);
	if (rc < 0)
		return err_set(err, err_code_of_errno(-rc), "the journal's directory cannot be synced: %s",
			       strerror(-rc));
	rc = recovery_scan(recovery, err);
	return rc < 0 ? rc : repair_run(recovery, options, err);
}

int recovery_run(struct queue *queue, struct queue_report *report, uint32_t *next_number, uint64_t *next_name,
		 uint64_t *spool, struct err *err)
{
	int64_t began_ms = clock_mono_ms(queue->options.clock);
	struct recovery recovery = {
	    .disk = queue->disk,
	    .segments = &queue->segments,
	    .index = queue->index,
	    .notify = &queue->options.notify,
	    .rules = queue->rules,
	    .report = report,
	    .now_wall = clock_wall_ms(queue->options.clock),
	};
	int rc;

	*report = (struct queue_report){0};
	rc = scan_and_repair(&recovery, &queue->options, err);
	if (rc == 0) {
		activate(queue->index);
		id_source_init(&queue->ids, recovery.spool, queue->rules->reuse_ids ? 0 : recovery.id_floor);
		queue->corruptions =
		    report->corrupt_ranges + report->suspect_ranges + report->segments_missing + report->quarantined;
	}
	*next_number = recovery.highest + 2;
	*next_name = recovery.next_name;
	*spool = recovery.spool;
	report->duration_ms = clock_mono_ms(queue->options.clock) - began_ms;
	recovery_fini(&recovery);
	return rc;
}
