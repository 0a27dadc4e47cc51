/*
 * Taking mail. A small content waits in the upload's buffer and goes into the MESSAGE; a large one is appended in
 * pieces as it comes, so an upload never holds more than one piece, and uploads interleave in the journal.
 */
#include "queue/internal.h"
#include "queue/xxh3.h"

#include <stdlib.h>
#include <uthash.h>

#define CONTENT_MAX UINT32_MAX
#define STATE_BYTES_MIN 32 /* of a recipient's state without texts in a MOVE */

struct queue_upload {
	struct queue *queue;
	uint64_t id;
	struct buf buf;
	uint64_t bytes;
	XXH3_state_t *hash; /* once there are pieces */
	struct index_place *pieces;
	uint32_t piece_count, piece_cap;
	enum err_code broken;
	UT_hash_handle hh;
};

static int64_t wall_ms(const struct queue *queue)
{
	return clock_wall_ms(queue->options.clock);
}

static struct queue_upload *begin(struct queue *queue, int answer, struct err *err)
{
	struct queue_upload *upload;

	if (answer < 0 && answer != ERR_LIMIT) {
		err_set(err, answer, "the queue takes no mail now");
		return NULL;
	}
	upload = xcalloc(1, sizeof(*upload));
	upload->queue = queue;
	upload->id = id_next(&queue->ids, wall_ms(queue));
	buf_init(&upload->buf, queue->options.piece_bytes);
	HASH_ADD(hh, queue->uploads, id, sizeof(upload->id), upload);
	return upload;
}

struct queue_upload *queue_upload_begin(struct queue *queue, struct err *err)
{
	return begin(queue, queue_may_accept(queue), err);
}

struct queue_upload *queue_upload_begin_dsn(struct queue *queue, struct err *err)
{
	return begin(queue, queue_may_store(queue), err);
}

uint64_t queue_upload_id(const struct queue_upload *upload)
{
	return upload->id;
}

uint64_t queue_upload_bytes(const struct queue_upload *upload)
{
	return upload->bytes;
}

static void upload_free(struct queue_upload **upload)
{
	HASH_DELETE(hh, (*upload)->queue->uploads, *upload);
	buf_fini(&(*upload)->buf);
	XXH3_freeState((*upload)->hash);
	free((*upload)->pieces);
	free(*upload);
	*upload = NULL;
}

void queue_upload_abort(struct queue_upload **upload)
{
	if (!*upload)
		return;
	for (uint32_t i = 0; !(*upload)->queue->rules->forget_uploads && i < (*upload)->piece_count; i++)
		queue_release_piece((*upload)->queue, &(*upload)->pieces[i]);
	upload_free(upload);
}

/* The buffered content becomes a piece. */
static int flush_piece(struct queue_upload *upload)
{
	struct journal *journal = upload->queue->journal;
	struct slice content = buf_slice(&upload->buf);
	struct journal_item item = {
	    .id = upload->id, .index = (uint16_t)upload->piece_count, .type = RECORD_DATA, .is_intake = true};
	int rc;

	if (upload->piece_count == UINT16_MAX)
		return ERR_LIMIT;
	if (!upload->hash) {
		upload->hash = XXH3_createState();
		BUG_ON(!upload->hash);
		XXH3_64bits_reset(upload->hash);
	}
	rc = buf_append(journal_append_begin(journal), content);
	if (rc < 0) {
		journal_append_cancel(journal);
		return rc;
	}
	rc = journal_append_end(journal, &item);
	if (rc < 0)
		return rc;
	XXH3_64bits_update(upload->hash, content.ptr, content.len);
	if (upload->piece_count == upload->piece_cap) {
		upload->piece_cap = upload->piece_cap ? upload->piece_cap * 2 : 8;
		upload->pieces = xreallocarray(upload->pieces, upload->piece_cap, sizeof(upload->pieces[0]));
	}
	upload->pieces[upload->piece_count++] = (struct index_place){.length = (uint32_t)content.len};
	buf_clear(&upload->buf);
	return 0;
}

int queue_upload_append(struct queue_upload *upload, struct slice content)
{
	if (content.len > CONTENT_MAX - upload->bytes)
		upload->broken = ERR_LIMIT;
	while (content.len > 0 && upload->broken == 0) {
		struct slice part = slice_to(content, buf_room(&upload->buf));
		if (part.len == 0) {
			upload->broken = flush_piece(upload);
			continue;
		}
		BUG_ON(buf_append(&upload->buf, part) < 0);
		upload->bytes += part.len;
		content = slice_from(content, part.len);
	}
	return upload->broken;
}

/* ---- Commit ---- */

static struct payload_content content_of(const struct queue_upload *upload, bool is_inline)
{
	struct slice rest = buf_slice(&upload->buf);

	if (is_inline)
		return (struct payload_content){.bytes = upload->bytes,
						.hash = XXH3_64bits(rest.ptr ? rest.ptr : "", rest.len),
						.is_inline = true,
						.body = rest};
	return (struct payload_content){
	    .bytes = upload->bytes, .hash = XXH3_64bits_digest(upload->hash), .pieces = upload->piece_count};
}

/* A MOVE must be able to hold the message together with the state of all recipients. */
static bool fits(const struct queue *queue, size_t payload, const struct queue_envelope *envelope)
{
	return payload + envelope->recipient_count * STATE_BYTES_MIN + 8 <= journal_payload_max(queue->journal);
}

/* The payload is in the journal's buffer, unended; or an error and nothing is. */
static int put_message(struct queue_upload *upload, const struct queue_envelope *envelope)
{
	struct journal *journal = upload->queue->journal;
	bool is_inline = upload->piece_count == 0;

	for (;;) {
		struct payload_content content;
		struct buf *out;
		size_t before;
		int rc = 0;

		if (!is_inline && buf_len(&upload->buf) > 0)
			rc = flush_piece(upload);
		if (rc < 0)
			return rc;
		content = content_of(upload, is_inline);
		out = journal_append_begin(journal);
		before = buf_len(out);
		rc = payload_put_message(out, envelope, &content);
		if (rc == 0 && fits(upload->queue, buf_len(out) - before, envelope))
			return 0;
		journal_append_cancel(journal);
		if (rc < 0 || !is_inline || upload->bytes == 0)
			return rc < 0 ? rc : ERR_LIMIT;
		is_inline = false;
	}
}

static void add_to_index(struct queue_upload *upload, const struct queue_envelope *envelope)
{
	struct queue *queue = upload->queue;
	int64_t due = MIN(envelope->arrived_wall, wall_ms(queue));
	struct slot *slot = index_add(queue->index, upload->id, (uint32_t)envelope->recipient_count,
				      upload->piece_count, envelope->arrived_wall, due);

	slot->class = envelope->class < MESSAGE_CLASS_COUNT ? (uint8_t)envelope->class : MESSAGE_DEFAULT;
	if (envelope->flags & QUEUE_HELD)
		slot->flags |= SLOT_HELD;
	index_set_bytes(queue->index, slot, (uint32_t)upload->bytes);
	for (uint32_t i = 0; i < upload->piece_count; i++)
		slot->u.extra->pieces[i] = upload->pieces[i];
}

static int commit(struct queue_upload *upload, const struct queue_envelope *envelope, queue_commit_cb *cb, void *ctx)
{
	struct queue *queue = upload->queue;
	struct journal_item item = {.id = upload->id, .type = RECORD_MESSAGE, .is_intake = true, .cb = cb, .ctx = ctx};
	int rc = upload->broken;

	if (rc == 0 && journal_state(queue->journal) == QUEUE_POISONED)
		rc = ERR_IO;
	if (rc == 0)
		rc = put_message(upload, envelope);
	if (rc == 0)
		rc = journal_append_end(queue->journal, &item);
	return rc;
}

int queue_upload_commit(struct queue_upload **upload, const struct queue_envelope *envelope, queue_commit_cb *cb,
			void *ctx)
{
	struct queue *queue = (*upload)->queue;
	uint64_t id = (*upload)->id;
	int rc = commit(*upload, envelope, cb, ctx);

	if (rc < 0) {
		queue_upload_abort(upload);
		return rc;
	}
	add_to_index(*upload, envelope);
	upload_free(upload);
	if (queue->rules->schedule_unsynced) {
		struct slot *slot = index_find(queue->index, id);
		slot->flags |= SLOT_SYNCED;
		index_change_end(queue->index, slot);
	}
	return 0;
}

void queue_commit_forget(struct queue *queue, uint64_t id)
{
	journal_forget(queue->journal, id);
}

/* ---- What the journal tells ---- */

static struct queue_upload *find_upload(struct queue *queue, uint64_t id)
{
	struct queue_upload *upload;

	HASH_FIND(hh, queue->uploads, &id, sizeof(id), upload);
	return upload;
}

struct index_place *upload_piece(struct queue *queue, uint64_t id, uint32_t number)
{
	struct queue_upload *upload = find_upload(queue, id);

	return upload && number < upload->piece_count ? &upload->pieces[number] : NULL;
}

uint64_t upload_count(const struct queue *queue)
{
	return HASH_COUNT(queue->uploads);
}

void upload_each_piece(struct queue *queue, uint32_t segment,
		       bool (*cb)(struct queue *queue, uint64_t id, uint32_t number, const struct index_place *piece))
{
	struct queue_upload *upload, *next;

	HASH_ITER(hh, queue->uploads, upload, next)
	{
		for (uint32_t i = 0; i < upload->piece_count; i++)
			if (upload->pieces[i].at.segment == segment && !cb(queue, upload->id, i, &upload->pieces[i]))
				return;
	}
}

static bool is_accepted(const struct slot *slot)
{
	return slot && slot->flags & SLOT_SYNCED;
}

/* A piece is where it should be: of a message, of an upload, or of nobody any more. */
static void piece_on_synced(struct queue *queue, const struct journal_item *item, struct record_place place)
{
	struct slot *slot = index_find(queue->index, item->id);
	struct index_place *piece = NULL;

	if (slot && item->index < slot_piece_count(slot))
		piece = &slot->u.extra->pieces[item->index];
	else if (!slot)
		piece = upload_piece(queue, item->id, item->index);
	if (item->old.segment)
		compaction_on_copied(queue, item, piece != NULL);
	if (!piece)
		return;
	if (!(queue->rules->forget_uploads && !is_accepted(slot)))
		queue_release_piece(queue, piece);
	*piece = (struct index_place){place, item->length};
	if (!(queue->rules->forget_uploads && !is_accepted(slot)))
		queue_keep_piece(queue, piece);
}

void upload_on_synced(struct queue *queue, const struct journal_item *item, struct record_place place)
{
	struct slot *slot;

	if (item->type == RECORD_DATA) {
		piece_on_synced(queue, item, place);
		return;
	}
	slot = index_find(queue->index, item->id);
	if (slot) {
		slot->message = place;
		slot->length = item->length;
		segments_keep(&queue->segments, place, item->length);
		for (uint32_t i = 0; queue->rules->forget_uploads && i < slot_piece_count(slot); i++)
			queue_keep_piece(queue, &slot->u.extra->pieces[i]);
		index_change_begin(queue->index, slot);
		slot->flags |= SLOT_SYNCED;
		index_change_end(queue->index, slot);
	}
	if (item->cb)
		item->cb(item->ctx, item->id, ERR_NONE);
}

void upload_on_refused(struct queue *queue, const struct journal_item *item, enum err_code why)
{
	struct slot *slot = index_find(queue->index, item->id);
	struct queue_upload *upload = find_upload(queue, item->id);

	if (upload)
		upload->broken = why;
	if (item->type != RECORD_MESSAGE)
		return;
	if (slot) {
		struct index_extra *extra;
		schedule_forget_list(queue, slot);
		extra = index_remove(queue->index, slot);
		if (!queue->rules->forget_uploads)
			queue_release_places(queue, (struct record_place){0}, 0, extra);
		free(extra);
	}
	if (item->cb)
		item->cb(item->ctx, item->id, why);
}
