#include "queue/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#define SEGMENT_BYTES_DEFAULT (64u << 20)
#define SEGMENT_BYTES_SMALL (8u << 20) /* where not even 16 large ones would fit */
#define SEGMENT_BYTES_MIN (32u << 10)
#define TURN_ROUNDS 4

static const struct journal_rules all_kept;

const char *queue_journal_state_name(enum queue_journal_state state)
{
	switch (state) {
	case QUEUE_OK: return "ok";
	case QUEUE_NO_SPACE: return "no space";
	case QUEUE_POISONED: return "poisoned";
	}
	return "?";
}

/* ---- Telling ---- */

void queue_tell_corruption(struct queue *queue, uint64_t id, const char *text)
{
	const struct queue_notify *notify = &queue->options.notify;

	queue->corruptions++;
	if (notify->on_corruption)
		notify->on_corruption(notify->ctx, id, text);
}

void queue_tell_note(struct queue *queue, const char *text)
{
	const struct queue_notify *notify = &queue->options.notify;

	if (notify->on_note)
		notify->on_note(notify->ctx, text);
}

static void tell_accept(struct queue *queue)
{
	const struct queue_notify *notify = &queue->options.notify;
	int answer = queue_may_accept(queue);

	if (answer == queue->accept_told)
		return;
	queue->accept_told = answer;
	if (notify->on_accept)
		notify->on_accept(notify->ctx, answer);
}

/* ---- What the journal tells ---- */

void queue_keep_piece(struct queue *queue, const struct index_place *piece)
{
	if (!queue->rules->forget_pieces)
		segments_keep(&queue->segments, piece->at, piece->length);
}

void queue_release_piece(struct queue *queue, const struct index_place *piece)
{
	if (!queue->rules->forget_pieces)
		segments_release(&queue->segments, piece->at, piece->length);
}

void queue_release_places(struct queue *queue, struct record_place message, uint32_t length,
			  const struct index_extra *extra)
{
	segments_release(&queue->segments, message, length);
	for (uint32_t i = 0; extra && i < extra->piece_count; i++)
		queue_release_piece(queue, &extra->pieces[i]);
}

static void on_result_synced(struct queue *queue, const struct journal_item *item, struct record_place place)
{
	struct slot *slot = index_find(queue->index, item->id);

	if (slot && item->index < slot->rcpt_count)
		slot_rcpt(slot, item->index)->result = place;
}

/* From here on the copy counts. What was recorded before it is folded in; later RESULTs come after it. */
static void on_move_synced(struct queue *queue, const struct journal_item *item, struct record_place place)
{
	struct slot *slot = index_find(queue->index, item->id);

	compaction_on_copied(queue, item, slot != NULL);
	if (!slot)
		return;
	segments_release(&queue->segments, slot->message, slot->length);
	slot->message = place;
	slot->length = item->length;
	segments_keep(&queue->segments, place, item->length);
	for (uint32_t i = 0; i < slot->rcpt_count; i++)
		slot_rcpt(slot, i)->result = (struct record_place){0};
}

static void on_done_synced(struct queue *queue, const struct journal_item *item)
{
	queue_release_places(queue, item->old, item->old_length, item->extra);
	free(item->extra);
}

static void on_synced(void *ctx, const struct journal_item *item, struct record_place place)
{
	struct queue *queue = ctx;

	switch (item->type) {
	case RECORD_DATA:
	case RECORD_MESSAGE: upload_on_synced(queue, item, place); break;
	case RECORD_RESULT: on_result_synced(queue, item, place); break;
	case RECORD_MOVE: on_move_synced(queue, item, place); break;
	case RECORD_DONE: on_done_synced(queue, item); break;
	default: break;
	}
}

static void on_refused(void *ctx, const struct journal_item *item, enum err_code why)
{
	upload_on_refused(ctx, item, why);
}

static uint64_t next_id_floor(void *ctx)
{
	struct queue *queue = ctx;

	return id_floor(&queue->ids);
}

/* ---- Records without payload ---- */

int queue_append_simple(struct queue *queue, enum record_type type, uint64_t id)
{
	struct journal_item item = {.id = id, .type = (uint8_t)type};

	journal_append_begin(queue->journal);
	return journal_append_end(queue->journal, &item);
}

void queue_finish(struct queue *queue, struct slot *slot)
{
	struct journal_item item = {
	    .id = slot->id, .type = RECORD_DONE, .old = slot->message, .old_length = slot->length};

	schedule_forget_list(queue, slot);
	item.extra = index_remove(queue->index, slot);
	journal_append_begin(queue->journal);
	if (journal_append_end(queue->journal, &item) == 0)
		return;
	/* Memory's last ceiling: the DONE is lost, so after a restart the message comes back; its places stay needed.
	 */
	queue_tell_note(queue, "no memory for a DONE record; a finished message may come back after a restart");
	free(item.extra);
}

struct slot *queue_find(const struct queue *queue, uint64_t id)
{
	struct slot *slot = id ? index_find(queue->index, id) : NULL;

	return slot && slot->flags & SLOT_SYNCED ? slot : NULL;
}

/* ---- Opening and closing ---- */

int queue_lock(int spool_fd, struct err *err)
{
	int fd = openat(spool_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_set_errno(err, "cannot open the spool's lock");
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int rc = errno == EWOULDBLOCK ? err_set(err, ERR_LOCKED, "another relayd has the spool")
					      : err_set_errno(err, "cannot lock the spool");
		close(fd);
		return rc;
	}
	return fd;
}

static void choose_sizes(struct queue *queue)
{
	struct queue_options *options = &queue->options;
	uint64_t bytes = 0;

	if (options->segment_bytes == 0) {
		options->segment_bytes = SEGMENT_BYTES_DEFAULT;
		if (queue->disk->free_bytes(queue->disk, &bytes) == 0 && bytes < 16 * (uint64_t)SEGMENT_BYTES_DEFAULT)
			options->segment_bytes = SEGMENT_BYTES_SMALL;
	}
	BUG_ON(options->segment_bytes % RECORD_BLOCK != 0 || options->segment_bytes < SEGMENT_BYTES_MIN);
	if (options->piece_bytes == 0)
		options->piece_bytes = QUEUE_PIECE_BYTES;
	options->piece_bytes = MIN(options->piece_bytes, (uint32_t)(options->segment_bytes / 4));
}

static struct journal *start_journal(struct queue *queue, uint32_t next_number, uint64_t next_name, uint64_t spool)
{
	struct journal_options options = {
	    .disk = queue->disk,
	    .clock = queue->options.clock,
	    .rng = queue->options.rng,
	    .segments = &queue->segments,
	    .segment_bytes = queue->options.segment_bytes,
	    .spool = spool,
	    .rules = queue->rules,
	    .notify = &queue->options.notify,
	    .ctx = queue,
	    .on_synced = on_synced,
	    .on_refused = on_refused,
	    .id_floor = next_id_floor,
	};
	return journal_new(&options, next_number, next_name);
}

struct queue *queue_open(const struct queue_options *options, struct queue_report *report, struct err *err)
{
	struct queue *queue = xcalloc(1, sizeof(*queue));
	struct queue_report unwanted;
	uint32_t next_number;
	uint64_t next_name, spool;

	queue->options = *options;
	queue->disk = options->disk;
	queue->rules = options->rules ? options->rules : &all_kept;
	queue->options.rules = queue->rules;
	choose_sizes(queue);
	segments_init(&queue->segments, queue->disk);
	queue->index = index_new();
	if (recovery_run(queue, report ? report : &unwanted, &next_number, &next_name, &spool, err) < 0) {
		queue_close(&queue);
		return NULL;
	}
	queue->journal = start_journal(queue, next_number, next_name, spool);
	queue->compaction.seen_released = queue->segments.released_bytes;
	tell_accept(queue);
	return queue;
}

void queue_stop(struct queue *queue)
{
	queue->is_stopping = true;
	journal_hurry(queue->journal);
}

bool queue_is_synced(const struct queue *queue)
{
	return journal_is_synced(queue->journal) && !queue->asides;
}

/* An inline disk has no helper to wait for: a few turns bring everything down. */
static void sync_rest(struct queue *queue)
{
	queue_stop(queue);
	for (int turns = 0; turns < 64 && !queue_is_synced(queue); turns++)
		queue_turn(queue);
}

void queue_close(struct queue **queue)
{
	struct queue *old = *queue;

	if (!old)
		return;
	if (old->journal)
		sync_rest(old);
	aside_free_all(old);
	BUG_ON(old->uploads != NULL);
	journal_free(&old->journal);
	compaction_fini(old);
	segments_fini(&old->segments);
	index_free(&old->index);
	free(old->lists);
	free(old);
	*queue = NULL;
}

/* ---- The turn ---- */

void queue_on_disk_done(struct queue *queue, const struct disk_done *done)
{
	if (!journal_on_done(queue->journal, done) && !aside_on_done(queue, done) && done->fd >= 0)
		queue->disk->close(queue->disk, done->fd);
}

static bool take_done(struct queue *queue)
{
	struct disk_done done;
	bool any = false;

	while (queue->disk->next_done(queue->disk, &done)) {
		queue_on_disk_done(queue, &done);
		any = true;
	}
	return any;
}

static uint64_t written_bytes(const struct queue *queue)
{
	struct journal_counts counts;

	journal_counts(queue->journal, &counts);
	return counts.written_bytes;
}

/* A turn writes or compacts: both together would hold up the loop for longer than is good for anybody. While a batch is
 * being synced there is time enough. */
void queue_turn(struct queue *queue)
{
	uint64_t written = written_bytes(queue);

	take_done(queue);
	for (int round = 0; round < TURN_ROUNDS; round++) {
		journal_turn(queue->journal);
		if (!take_done(queue))
			break;
	}
	if (written == written_bytes(queue))
		compaction_step(queue);
	tell_accept(queue);
}

int64_t queue_next_deadline_ms(const struct queue *queue)
{
	int64_t journal = journal_next_deadline_ms(queue->journal);
	int64_t compaction = compaction_next_deadline_ms(queue);

	return MIN(journal, compaction);
}

/* ---- Answers ---- */

int queue_may_store(const struct queue *queue)
{
	if (queue->is_stopping)
		return ERR_CLOSED;
	switch (journal_state(queue->journal)) {
	case QUEUE_POISONED: return ERR_IO;
	case QUEUE_NO_SPACE: return ERR_NO_SPACE;
	case QUEUE_OK: break;
	}
	return 0;
}

static bool is_over_limits(const struct queue *queue)
{
	const struct index_counts *counts = index_counts(queue->index);
	const struct queue_options *options = &queue->options;

	return (options->limit_messages && counts->all_messages >= options->limit_messages) ||
	       (options->limit_bytes && counts->all_bytes >= options->limit_bytes);
}

int queue_may_accept(const struct queue *queue)
{
	int answer = queue_may_store(queue);

	if (answer < 0)
		return answer;
	if (is_over_limits(queue))
		return ERR_NO_SPACE;
	return journal_unsynced_bytes(queue->journal) > QUEUE_UNSYNCED_MAX ? ERR_LIMIT : 0;
}

bool queue_may_deliver(const struct queue *queue)
{
	return journal_state(queue->journal) == QUEUE_OK || journal_unsynced_bytes(queue->journal) < QUEUE_UNSYNCED_MAX;
}

static void brief_of(const struct queue *queue, struct slot *slot, struct queue_brief *out)
{
	*out = (struct queue_brief){
	    .id = slot->id,
	    .state = index_state(queue->index, slot),
	    .class = slot->class,
	    .recipients = slot->rcpt_count,
	    .open = slot->rcpt_open,
	    .inflight = slot->inflight,
	    .next_attempt_wall = slot_next_wall(slot),
	    .arrived_wall = index_arrived_wall(queue->index, slot),
	    .bytes = slot->bytes,
	    .warned = slot->flags & SLOT_WARNED,
	    .popped = slot->flags & SLOT_POPPED,
	    .deleting = slot->flags & SLOT_DELETING,
	    .corrupt = slot->flags & SLOT_CORRUPT,
	};
	for (uint32_t i = 0; i < slot->rcpt_count; i++) {
		const struct index_rcpt *rcpt = slot_rcpt(slot, i);
		if (rcpt_state(rcpt) == RCPT_FINAL || rcpt->attempts < out->attempts)
			continue;
		out->attempts = rcpt->attempts;
		out->reason = rcpt->kind_reason & 15;
	}
}

int queue_brief(const struct queue *queue, uint64_t id, struct queue_brief *out)
{
	struct slot *slot = queue_find(queue, id);

	if (!slot)
		return ERR_NOT_FOUND;
	brief_of(queue, slot, out);
	return 0;
}

void queue_iterate(struct queue *queue, uint64_t *cursor, size_t max, queue_visit *visit, void *ctx)
{
	for (size_t looked = 0; looked < max; looked++) {
		struct queue_brief brief;
		struct slot *slot;
		if (*cursor >= index_limit(queue->index)) {
			*cursor = 0;
			return;
		}
		slot = index_slot(queue->index, (uint32_t)(*cursor)++);
		if (slot->id == 0 || !(slot->flags & SLOT_SYNCED))
			continue;
		brief_of(queue, slot, &brief);
		visit(ctx, &brief);
	}
	if (*cursor >= index_limit(queue->index))
		*cursor = 0;
}

void queue_stats(const struct queue *queue, struct queue_stats *stats)
{
	const struct index_counts *counts = index_counts(queue->index);
	struct journal_counts journal;

	journal_counts(queue->journal, &journal);
	*stats = (struct queue_stats){
	    .journal_bytes = segments_bytes(&queue->segments) + journal.spare_bytes,
	    .live_bytes = queue->segments.live_bytes,
	    .free_bytes = journal.free_bytes,
	    .segments = queue->segments.count,
	    .syncs = journal.syncs,
	    .errors = journal.errors,
	    .written_bytes = journal.written_bytes,
	    .unsynced_bytes = journal_unsynced_bytes(queue->journal),
	    .corruptions = queue->corruptions,
	    .index_bytes = index_memory_bytes(queue->index),
	    .state = journal_state(queue->journal),
	};
	for (int state = 0; state < STATE_COUNT; state++) {
		stats->messages[state] = counts->messages[state];
		stats->recipients[state] = counts->recipients[state];
		stats->bytes[state] = counts->bytes[state];
	}
	stats->uploads = upload_count(queue);
	index_oldest(queue->index, stats->oldest_arrived_wall);
}
