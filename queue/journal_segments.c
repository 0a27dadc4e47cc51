/*
 * Where the writer's segments come from and where they go: room and reserve, the one that is made ahead of need,
 * opening, ending, freeing.
 */
#include "queue/journal_internal.h"

#include "base/base.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define RETRY_MS 3000	    /* before another try to make a segment */
#define HELPER_RETRY_MS 100 /* a helper that dies is replaced */
#define MARK_DELAY_MS 1000  /* a freed segment may wait so long for a MARK */

/* Room, in segments, that must be there before a new one is opened for ... What ends messages may take the last one: it
 * is what makes room again. A start then makes do with a small segment (repair.c). */
enum reserve { RESERVE_INTAKE = 4, RESERVE_RESULTS = 3, RESERVE_MOVES = 2, RESERVE_ENDS = 1 };

/* ---- Space ---- */

/* While it is being prepared `spare` has no descriptor. */
bool journal_has_spare(const struct journal *journal)
{
	return journal->spare && journal->spare->fd >= 0;
}

void journal_look_at_space(struct journal *journal)
{
	uint64_t bytes;

	journal->free_looked_ms = journal_now_ms(journal);
	if (journal->options.disk->free_bytes(journal->options.disk, &bytes) == 0)
		journal->free_bytes = bytes;
}

/* Where no file can be made there is no room, whatever the file system says: a quota, or no inode is left. */
uint64_t journal_room(const struct journal *journal)
{
	if (!journal_has_spare(journal) && journal_is_space_error(journal->prepare_error))
		return 0;
	return journal->free_bytes / journal->options.segment_bytes + (journal_has_spare(journal) ? 1 : 0);
}

void journal_prepare_spare(struct journal *journal)
{
	struct segment *spare;

	if (journal->spare || journal->prepare_token || journal_now_ms(journal) < journal->prepare_at_ms)
		return;
	if (journal->free_bytes < journal->options.segment_bytes) {
		journal->prepare_error = -ENOSPC;
		journal->prepare_at_ms = journal_now_ms(journal) + RETRY_MS;
		return;
	}
	spare = xcalloc(1, sizeof(*spare));
	spare->fd = -1;
	snprintf(spare->name, sizeof(spare->name), "seg-%016" PRIx64, journal->next_name++);
	spare->bytes = journal->options.segment_bytes;
	journal->spare = spare;
	journal->prepare_token = journal_token(journal);
	journal->options.disk->prepare(journal->options.disk, spare->name, spare->bytes, journal->prepare_token);
}

void journal_on_prepared(struct journal *journal, const struct disk_done *done)
{
	journal->prepare_token = 0;
	journal->prepare_error = done->result;
	journal_look_at_space(journal);
	if (done->result == 0) {
		journal->spare->fd = done->fd;
		return;
	}
	journal->counts.errors++;
	/* A helper that died may have left the file behind; without a header it is nothing. */
	journal->options.disk->discard(journal->options.disk, journal->spare->name, -1);
	free(journal->spare);
	journal->spare = NULL;
	journal->prepare_at_ms =
	    journal_now_ms(journal) + (done->result == DISK_HELPER_DIED ? HELPER_RETRY_MS : RETRY_MS);
}

/* ---- State ---- */

void journal_set_state(struct journal *journal, enum queue_journal_state state, const char *reason)
{
	const struct queue_notify *notify = journal->options.notify;

	if (journal->state == state)
		return;
	journal->state = state;
	if (notify->on_state)
		notify->on_state(notify->ctx, state, reason);
}

bool journal_is_space_error(int error)
{
	return err_code_of_errno(-error) == ERR_NO_SPACE;
}

/* And that matters now: there is none to write to, or what looks like room is none. */
static bool cannot_make_segment(const struct journal *journal)
{
	bool seems_roomy = journal->free_bytes >= RESERVE_INTAKE * journal->options.segment_bytes;

	return !journal_has_spare(journal) && journal->prepare_error < 0 &&
	       (!journal->current || (seems_roomy && journal_is_space_error(journal->prepare_error)));
}

void journal_review_state(struct journal *journal)
{
	char reason[128];

	if (journal->failures >= 2)
		return; /* poisoned until a sync succeeds */
	if (cannot_make_segment(journal)) {
		snprintf(reason, sizeof(reason), "a segment cannot be made: %s",
			 journal->prepare_error == DISK_HELPER_DIED ? "the helper died"
								    : strerror(-journal->prepare_error));
		journal_set_state(
		    journal, journal_is_space_error(journal->prepare_error) ? QUEUE_NO_SPACE : QUEUE_POISONED, reason);
		return;
	}
	if (!journal->rules->no_reserve && journal_room(journal) < RESERVE_INTAKE) {
		snprintf(reason, sizeof(reason),
			 "the disk has room for %" PRIu64 " MiB of journal, %" PRIu64
			 " are needed before mail is taken",
			 journal_room(journal) * journal->options.segment_bytes >> 20,
			 RESERVE_INTAKE * journal->options.segment_bytes >> 20);
		journal_set_state(journal, QUEUE_NO_SPACE, reason);
	} else {
		journal_set_state(journal, QUEUE_OK, "the journal takes mail");
	}
}

enum queue_journal_state journal_state(const struct journal *journal)
{
	return journal->state;
}

/* ---- Ending a segment ---- */

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

void journal_end_segment(struct journal *journal)
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

/* ---- Freeing ---- */

/* The oldest segment that is needed. Only what is synced counts, since `live` changes only then. */
uint32_t journal_oldest_needed(const struct journal *journal)
{
	const struct segments *segments = journal->options.segments;
	uint32_t i = 0;

	while (i + 1 < segments->count && segments->items[i]->live == 0 && segments->items[i] != journal->current)
		i++;
	return segments->count ? segments->items[i]->header.number : 0;
}

/* All below `first` may go: that `first` is synced. In their order, so that what is left is never without its elder. */
void journal_discard_below(struct journal *journal, uint32_t first)
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
	uint32_t first = journal_oldest_needed(journal);
	int64_t now = journal_now_ms(journal);

	if (first <= journal->first_written)
		return;
	if (journal->rules->free_unmarked)
		journal_discard_below(journal, first);
	else if (journal->mark_at_ms > now + MARK_DELAY_MS)
		journal->mark_at_ms = journal_room(journal) < RESERVE_INTAKE ? now : now + MARK_DELAY_MS;
}

/* The header of the current segment is on stable storage: what it replaces may be cut off and unlinked. */
void journal_clean_behind(struct journal *journal)
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
	struct gather_sum waiting = gather_sum(&journal->gather);
	uint64_t room = journal_room(journal);
	bool makes_room;

	if (journal->rules->no_reserve)
		return true;
	if (waiting.has_intake && room < RESERVE_INTAKE) {
		journal_refuse_intake(journal, ERR_NO_SPACE);
		waiting = gather_sum(&journal->gather);
	}
	makes_room = waiting.has_done || journal_oldest_needed(journal) > journal->first_written;
	return room >= RESERVE_RESULTS || (waiting.has_move && room >= RESERVE_MOVES) ||
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

bool journal_open_segment(struct journal *journal)
{
	struct segment *segment;

	journal_look_at_space(journal);
	if (!journal_has_spare(journal)) {
		journal_prepare_spare(journal);
		if (journal->prepare_error < 0 && !journal->prepare_token) {
			journal_refuse_intake(journal, err_code_of_errno(-journal->prepare_error) == ERR_NO_SPACE
							   ? ERR_NO_SPACE
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
	journal->zeroed = 0;
	segment->header.first = journal_oldest_needed(journal);
	journal_prepare_spare(journal);
	return true;
}
