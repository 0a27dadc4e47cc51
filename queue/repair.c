/*
 * From what recovery found to a journal that can be appended to. The order is the point: evidence is copied and synced
 * first; then the records behind the watermark are copied into a new file and synced; then its header, which declares
 * where the old segment ends, is written and synced; and only then anything is unlinked or cut off. Before that header
 * stands, all is as it was, so the whole may be cut short anywhere and done again.
 */
#include "queue/recovery.h"

#include "base/base.h"
#include "queue/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define COPY_BYTES (256 * 1024)

struct repair {
	struct recovery *recovery;
	const struct queue_options *options;
	struct err *err;
	struct segment *old;	 /* the newest as it was found; NULL: the journal is empty */
	bool old_is_out;	 /* nothing in it counts: it has left the table */
	struct segment *segment; /* the new one */
	struct buf bytes;	 /* copies that are not written yet */
	uint64_t at;		 /* where they go */
};

static int disk_error(struct repair *repair, int error, const char *what)
{
	return err_set(repair->err, err_code_of_errno(-error), "%s: %s", what, strerror(-error));
}

/* ---- The new segment ---- */

/* Ids that are given out from now on and never written down are skipped by the next start, though the clock stand
 * still.
 */
static uint64_t floor_with_gap(const struct recovery *recovery)
{
	struct id_source ids;

	id_source_init(&ids, recovery->spool, recovery->id_floor);
	id_next(&ids, recovery->now_wall);
	return id_floor(&ids);
}

static void new_header(struct repair *repair)
{
	struct recovery *recovery = repair->recovery;
	struct segment_header *header = &repair->segment->header;

	*header = (struct segment_header){
	    .number = recovery->highest + 1,
	    .nonce = recovery->rules->no_nonce ? 0 : rng_u64(repair->options->rng),
	    .id_floor = recovery->rules->reuse_ids ? 0 : floor_with_gap(recovery),
	    .spool = recovery->spool,
	    .created_wall = recovery->now_wall,
	    .size = repair->segment->bytes,
	};
	if (!repair->old)
		return;
	if (repair->old->end > 0) {
		segment_header_link(header, &repair->old->header, recovery->rules->no_cut ? 0 : repair->old->end);
		return;
	}
	header->previous = repair->old->header.previous;
	header->cut = repair->old->header.cut;
	header->previous_nonce = repair->old->header.previous_nonce;
	header->previous_previous = repair->old->header.previous_previous;
	header->previous_cut = repair->old->header.previous_cut;
}

/* Room for all that may have to be copied, with a little for what follows. */
static uint64_t least_bytes(const struct repair *repair)
{
	const struct recovery *recovery = repair->recovery;
	uint64_t tail = repair->old ? recovery->tail_end - MAX(repair->old->end, (uint64_t)SEGMENT_DATA_START) : 0;

	return record_block_up(SEGMENT_DATA_START + tail + recovery->broken_count * (uint64_t)RECORD_HEADER_BYTES) +
	       2 * RECORD_BLOCK;
}

/* On a full disk a start must not fail for want of a whole segment: a small one will do. */
static int create_file(struct repair *repair, struct segment *segment)
{
	struct recovery *recovery = repair->recovery;
	uint64_t least = least_bytes(repair), bytes = MAX(repair->options->segment_bytes, least);
	int rc;

	for (;;) {
		snprintf(segment->name, sizeof(segment->name), "new-%016" PRIx64, recovery->next_name++);
		segment->bytes = bytes;
		rc = recovery->disk->create(recovery->disk, DISK_JOURNAL, segment->name, bytes, &segment->fd);
		if (rc == 0 || err_code_of_errno(-rc) != ERR_NO_SPACE || bytes == least)
			return rc;
		bytes = MAX(record_block_up(bytes / 4), least);
	}
}

static int make_file(struct repair *repair)
{
	struct segment *segment = xcalloc(1, sizeof(*segment));
	int rc;

	repair->segment = segment;
	segment->fd = -1;
	rc = create_file(repair, segment);
	if (rc < 0)
		return disk_error(repair, rc, "a new segment cannot be made in the journal");
	new_header(repair);
	repair->at = SEGMENT_DATA_START;
	return 0;
}

static int write_copies(struct repair *repair)
{
	struct disk *disk = repair->recovery->disk;
	struct slice bytes = buf_slice(&repair->bytes);
	int rc = disk->write(disk, repair->segment->fd, bytes.ptr, bytes.len, repair->at);

	if (rc < 0)
		return disk_error(repair, rc, "the new segment cannot be written");
	repair->at += bytes.len;
	buf_clear(&repair->bytes);
	return 0;
}

/* Appends a record; *place tells where it will stand. */
static int put_record(struct repair *repair, struct record_header header, struct slice payload,
		      struct record_place *place)
{
	uint64_t offset = repair->at + buf_len(&repair->bytes);
	size_t len = record_bytes(header.length);
	char *at = buf_reserve(&repair->bytes, len);

	BUG_ON(!at);
	memset(at, 0, len);
	if (payload.len > 0)
		memcpy(at + RECORD_HEADER_BYTES, payload.ptr, payload.len);
	header.watermark = (struct record_place){repair->segment->header.previous,
						 (uint32_t)(repair->segment->header.cut / RECORD_ALIGN)};
	record_seal(at, &header, repair->segment->header.nonce, offset);
	buf_commit(&repair->bytes, len);
	*place = (struct record_place){repair->segment->header.number, (uint32_t)(offset / RECORD_ALIGN)};
	return buf_len(&repair->bytes) >= COPY_BYTES ? write_copies(repair) : 0;
}

static bool same_place(struct record_place a, struct record_place b)
{
	return a.segment == b.segment && a.at8 == b.at8;
}

/* Where the index says that the record is, if this copy is the one that counts; NULL: nothing points to it. */
static struct record_place *pointer_to(struct slot *slot, const struct record_header *header, struct record_place place)
{
	struct record_place *pointer = NULL;

	switch (header->type) {
	case RECORD_MESSAGE:
	case RECORD_MOVE: pointer = &slot->message; break;
	case RECORD_DATA:
		if (header->index < slot_piece_count(slot))
			pointer = &slot->u.extra->pieces[header->index].at;
		break;
	case RECORD_RESULT:
		if (header->index < slot->rcpt_count)
			pointer = &slot_rcpt(slot, header->index)->result;
		break;
	default: break;
	}
	return pointer && same_place(*pointer, place) ? pointer : NULL;
}

static bool is_wanted(const struct slot *slot, const struct record_header *header, const struct record_place *pointer)
{
	switch (header->type) {
	case RECORD_DONE: return true;
	case RECORD_HOLD:
	case RECORD_RELEASE:
	case RECORD_WARNED:
	case RECORD_DELETE: return slot != NULL;
	case RECORD_DATA:
	case RECORD_MESSAGE:
	case RECORD_MOVE:
	case RECORD_RESULT: return pointer != NULL;
	default: return false;
	}
}

static int copy_record(struct repair *repair, const struct record_header *header, struct slice payload,
		       struct record_place old_place)
{
	struct slot *slot = index_find(repair->recovery->index, header->id);
	struct record_place *pointer = slot ? pointer_to(slot, header, old_place) : NULL;
	struct record_place place;
	int rc;

	if (!is_wanted(slot, header, pointer))
		return 0;
	rc = put_record(repair, *header, payload, &place);
	if (rc == 0 && pointer)
		*pointer = place;
	return rc;
}

static int copy_tail(struct repair *repair)
{
	const struct segment *old = repair->old;
	uint64_t offset = MAX(old->end, (uint64_t)SEGMENT_DATA_START);
	struct scan scan;
	int rc = 0;

	scan_init(&scan, repair->recovery->disk, old->fd, old->header.nonce, repair->recovery->tail_end);
	while (rc == 0 && (offset = scan_next_valid(&scan, offset)) + RECORD_HEADER_BYTES <= scan.limit) {
		struct record_place place = {old->header.number, (uint32_t)(offset / RECORD_ALIGN)};
		struct record_header header;
		struct slice payload;
		scan_header(&scan, offset, &header);
		scan_payload(&scan, offset, &header, &payload);
		rc = copy_record(repair, &header, payload, place);
		offset += record_bytes(header.length);
	}
	/* What could be read before must not be left out now. */
	if (rc == 0 && scan.read_errors > 0)
		rc = err_set(repair->err, ERR_IO, "segment %u cannot be read", old->header.number);
	scan_fini(&scan);
	return rc;
}

/* Those that were set aside, and those whose DONE was not written any more: all recipients are final, or it was deleted
 * while in flight. */
static int put_dones(struct repair *repair)
{
	struct recovery *recovery = repair->recovery;
	struct record_header header = {.type = RECORD_DONE};
	struct record_place place;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < recovery->broken_count; i++) {
		header.id = recovery->broken[i].id;
		rc = put_record(repair, header, (struct slice){0}, &place);
	}
	for (uint32_t number = 0; rc == 0 && number < index_limit(recovery->index); number++) {
		struct slot *slot = index_slot(recovery->index, number);
		if (slot->id == 0 || (slot->rcpt_open > 0 && !(slot->flags & SLOT_DELETING)))
			continue;
		header.id = slot->id;
		free(index_remove(recovery->index, slot));
		rc = put_record(repair, header, (struct slice){0}, &place);
	}
	return rc;
}

static int end_batch(struct repair *repair)
{
	const struct journal_rules *rules = repair->recovery->rules;
	struct payload_mark mark = {SEGMENT_DATA_START, repair->recovery->first, repair->segment->header.id_floor};
	struct record_header header = {.type = RECORD_MARK, .length = PAYLOAD_MARK_BYTES};
	char room[PAYLOAD_MARK_BYTES], *at;
	struct buf payload = {.data = room, .cap = sizeof(room), .max = sizeof(room)};
	struct record_place place;
	size_t pad;
	int rc = 0;

	if (repair->at == SEGMENT_DATA_START && buf_len(&repair->bytes) == 0)
		return 0;
	payload_put_mark(&payload, &mark);
	if (!rules->no_marks)
		rc = put_record(repair, header, buf_slice(&payload), &place);
	if (rc < 0)
		return rc;
	pad = (size_t)(record_block_up(repair->at + buf_len(&repair->bytes)) - repair->at) - buf_len(&repair->bytes);
	at = buf_reserve(&repair->bytes, pad);
	BUG_ON(!at);
	memset(at, 0, pad);
	buf_commit(&repair->bytes, pad);
	return write_copies(repair);
}

static int write_header(struct repair *repair)
{
	struct disk *disk = repair->recovery->disk;
	char blocks[SEGMENT_DATA_START];
	size_t len = repair->recovery->rules->no_second_header ? RECORD_BLOCK : sizeof(blocks);
	int rc;

	segment_header_put(blocks, &repair->segment->header);
	rc = disk->write(disk, repair->segment->fd, blocks, len, 0);
	return rc < 0 ? disk_error(repair, rc, "the new segment's header cannot be written") : 0;
}

static int sync_segment(struct repair *repair, bool with_directory)
{
	struct disk *disk = repair->recovery->disk;
	int rc = disk->sync_now(disk, repair->segment->fd);

	if (rc == 0 && with_directory)
		rc = disk->sync_dir(disk, DISK_JOURNAL);
	return rc < 0 ? disk_error(repair, rc, "the new segment cannot be synced") : 0;
}

/* ---- What is needed, and what is not ---- */

static void count_needed(struct repair *repair)
{
	struct recovery *recovery = repair->recovery;

	for (uint32_t number = 0; number < index_limit(recovery->index); number++) {
		struct slot *slot = index_slot(recovery->index, number);
		if (slot->id == 0)
			continue;
		segments_keep(recovery->segments, slot->message, slot->length);
		for (uint32_t i = 0; !recovery->rules->forget_pieces && i < slot_piece_count(slot); i++)
			segments_keep(recovery->segments, slot->u.extra->pieces[i].at, slot->u.extra->pieces[i].length);
	}
}

static uint32_t oldest_needed(const struct repair *repair)
{
	const struct segments *segments = repair->recovery->segments;
	uint32_t i = 0;

	while (i + 1 < segments->count && segments->items[i]->live == 0)
		i++;
	return segments->items[i]->header.number;
}

/* The new segment takes its place at the end of the table; the old newest leaves it if nothing in it counts. */
static void enter_table(struct repair *repair)
{
	struct segments *segments = repair->recovery->segments;

	repair->old_is_out = repair->old && repair->old->end == 0;
	if (repair->old_is_out)
		segments_take(segments, repair->old);
	segments_add(segments, repair->segment);
	repair->segment->end = repair->segment->synced = repair->at;
	repair->segment->bytes = MAX(repair->segment->bytes, repair->at);
}

static void unlink_file(struct repair *repair, const char *name)
{
	repair->recovery->disk->unlink(repair->recovery->disk, DISK_JOURNAL, name);
}

/* What was made ahead of need, and files of recoveries that were cut short: nothing is lost with them, and on a full
 * disk their room is the one that was kept for this start. */
static void unlink_headless(struct repair *repair)
{
	struct recovery *recovery = repair->recovery;

	for (uint32_t i = 0; i < recovery->leftover_count; i++) {
		struct recovery_leftover *leftover = &recovery->leftovers[i];
		if (leftover->has_header)
			continue;
		unlink_file(repair, leftover->name);
		if (recovery->rules->quarantine_last)
			continue;
		recovery->disk->close(recovery->disk, leftover->fd);
		leftover->fd = -1;
	}
}

static void clean(struct repair *repair)
{
	struct recovery *recovery = repair->recovery;
	struct segments *segments = recovery->segments;
	struct segment *old = repair->old;

	for (uint32_t i = 0; i < recovery->leftover_count; i++)
		if (recovery->leftovers[i].has_header)
			unlink_file(repair, recovery->leftovers[i].name);
	if (repair->old_is_out) {
		unlink_file(repair, old->name);
	} else if (old && old->bytes > old->end && recovery->disk->truncate(recovery->disk, old->fd, old->end) == 0) {
		old->bytes = old->end;
	}
	while (segments->items[0]->header.number < repair->segment->header.first) {
		struct segment *segment = segments->items[0];
		segments_drop_first(segments, 1);
		unlink_file(repair, segment->name);
		segment_free(&segment, recovery->disk);
	}
}

static int fill_segment(struct repair *repair)
{
	const struct journal_rules *rules = repair->recovery->rules;
	int rc = 0;

	buf_init(&repair->bytes, COPY_BYTES + (64u << 20));
	if (repair->old && !rules->tail_stays)
		rc = copy_tail(repair);
	if (rc == 0)
		rc = put_dones(repair);
	if (rc == 0)
		rc = end_batch(repair);
	buf_fini(&repair->bytes);
	return rc;
}

/* Only a broken rule asks for it: the newest segment goes on where its good records end. */
static int append_to_old(struct repair *repair)
{
	repair->old->end = record_block_up(repair->recovery->tail_end);
	repair->old->synced = repair->old->end;
	count_needed(repair);
	return 0;
}

int repair_run(struct recovery *recovery, const struct queue_options *options, struct err *err)
{
	struct repair repair = {.recovery = recovery, .options = options, .err = err};
	const struct journal_rules *rules = recovery->rules;
	int rc = rules->quarantine_last ? 0 : evidence_save(recovery, err);

	if (recovery->newest)
		repair.old = segments_find(recovery->segments, recovery->newest);
	if (repair.old && rules->tail_stays)
		repair.old->end = record_block_up(recovery->tail_end);
	if (rc == 0 && rules->append_replayed && repair.old)
		return append_to_old(&repair);
	if (recovery->spool == 0)
		recovery->spool = rng_u64(options->rng);
	if (rc == 0)
		unlink_headless(&repair);
	if (rc == 0)
		rc = make_file(&repair);
	if (rc == 0)
		rc = fill_segment(&repair);
	if (rc == 0 && !rules->header_first)
		rc = sync_segment(&repair, !rules->no_dir_sync);
	if (rc < 0) {
		segment_free(&repair.segment, recovery->disk);
		return rc; /* the old one is still in the table */
	}
	enter_table(&repair);
	count_needed(&repair);
	repair.segment->header.first = oldest_needed(&repair);
	if (rules->clean_early)
		clean(&repair);
	rc = write_header(&repair);
	if (rc == 0)
		rc = sync_segment(&repair, rules->header_first);
	if (rc == 0 && !rules->clean_early)
		clean(&repair);
	if (rc == 0 && rules->quarantine_last)
		rc = evidence_save(recovery, err);
	if (repair.old_is_out)
		segment_free(&repair.old, recovery->disk);
	return rc;
}
