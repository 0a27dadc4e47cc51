/*
 * Reading. Whatever is handed out was looked up just before, and checked to be the record that was written there, of
 * this message and piece; so a reader may stay open while compaction moves its pieces.
 */
#include "queue/internal.h"
#include "queue/xxh3.h"

#include <stdio.h>
#include <stdlib.h>

struct queue_content {
	struct queue *queue;
	uint64_t id;
	struct payload_content content;
	char *memory; /* a record: the MESSAGE with its body, or the present piece */
	struct slice rest;
	uint32_t next_piece;
	XXH3_state_t *hash; /* with pieces only */
};

static bool is_message_of(const struct record_header *header, uint64_t id)
{
	return header->id == id && (header->type == RECORD_MESSAGE || header->type == RECORD_MOVE);
}

/* The message's record into fresh memory; on ERR_CORRUPT the message has been put aside. */
static int read_message(struct queue *queue, uint64_t id, char **memory, struct slice *payload)
{
	struct slot *slot = index_find(queue->index, id);
	struct record_header header;
	int rc;

	if (!slot)
		return ERR_NOT_FOUND;
	if (!(slot->flags & SLOT_SYNCED) || slot->message.segment == 0)
		return ERR_TEMPORARY;
	if (slot->flags & SLOT_CORRUPT)
		return ERR_CORRUPT;
	*memory = xmalloc(RECORD_HEADER_BYTES + (size_t)slot->length);
	rc = segments_read(&queue->segments, slot->message, slot->length, *memory, &header);
	if (rc == 0 && !is_message_of(&header, id))
		rc = ERR_CORRUPT;
	if (rc < 0 && !(rc == ERR_CORRUPT && queue->rules->trust_reads)) {
		free(*memory);
		*memory = NULL;
		if (rc == ERR_CORRUPT)
			aside_put(queue, slot, "its MESSAGE record is damaged");
		return rc;
	}
	*payload = slice_of(*memory + RECORD_HEADER_BYTES, slot->length);
	return 0;
}

/* ---- Envelopes ---- */

/* The RESULT that stands there, whosever it is. */
static int read_result_at(const struct queue *queue, struct record_place place, char *room,
			  struct record_header *header, struct payload_result *result)
{
	const struct segment *segment = place.segment ? segments_find(&queue->segments, place.segment) : NULL;
	uint64_t offset = (uint64_t)place.at8 * RECORD_ALIGN;
	ssize_t n;

	if (!segment)
		return ERR_NOT_FOUND;
	n = queue->disk->read(queue->disk, segment->fd, room, RESULT_ROOM, offset);
	if (n < RECORD_HEADER_BYTES || !record_open(room, segment->header.nonce, offset, header) ||
	    header->type != RECORD_RESULT || (ssize_t)(header->length + RECORD_HEADER_BYTES) > n ||
	    !record_payload_ok(header, room + RECORD_HEADER_BYTES, segment->header.nonce, offset))
		return ERR_NOT_FOUND;
	return payload_get_result(slice_of(room + RECORD_HEADER_BYTES, header->length), result);
}

int content_read_result(const struct queue *queue, const struct index_rcpt *rcpt, char *room,
			struct payload_result *result)
{
	struct record_header header;

	return read_result_at(queue, rcpt->result, room, &header, result);
}

struct outcomes {
	struct queue_message *message;
	struct slot *slot;
};

static void set_outcome(struct queue_recipient_status *status, const struct payload_result *result)
{
	if (!status->last)
		status->last = xcalloc(1, sizeof(*status->last));
	payload_outcome_of(result, status->last);
}

/* What is folded into the MOVE counts where no later RESULT stands. */
static int folded_outcome(void *ctx, uint32_t recipient, const struct payload_result *result)
{
	struct outcomes *outcomes = ctx;

	if (recipient < outcomes->slot->rcpt_count)
		set_outcome(&outcomes->message->status[recipient], result);
	return 0;
}

static void read_outcomes(const struct queue *queue, struct slot *slot, struct slice payload, struct queue_message *out)
{
	struct outcomes outcomes = {out, slot};
	char room[RESULT_ROOM];

	payload_get_states(payload, folded_outcome, &outcomes);
	for (uint32_t i = 0; i < slot->rcpt_count; i++) {
		struct payload_result result;
		if (content_read_result(queue, slot_rcpt(slot, i), room, &result) == 0)
			set_outcome(&out->status[i], &result);
	}
}

static void fill_status(struct slot *slot, struct queue_message *out)
{
	for (uint32_t i = 0; i < slot->rcpt_count; i++) {
		const struct index_rcpt *rcpt = slot_rcpt(slot, i);
		out->status[i] = (struct queue_recipient_status){
		    .state = (enum queue_recipient_state)rcpt_state(rcpt),
		    .kind = rcpt->kind_reason >> 4,
		    .reason = rcpt->kind_reason & 15,
		    .attempts = rcpt->attempts,
		    .next_attempt_wall = rcpt->next_wall,
		    .hint_used = rcpt->bits & RCPT_HINT_USED,
		};
	}
}

static int decode_message(struct slice payload, uint32_t rcpt_count, struct queue_message *out)
{
	struct queue_recipient *recipients = xcalloc(rcpt_count, sizeof(*recipients));
	struct payload_core core;
	int rc = payload_get_core(payload, &core);

	out->envelope.recipients = recipients;
	out->status = xcalloc(rcpt_count, sizeof(*out->status));
	if (rc == 0)
		rc = payload_get_envelope(payload, &out->envelope, recipients, rcpt_count);
	if (rc < 0) {
		out->envelope.recipients = recipients;
		out->envelope.recipient_count = 0;
		return rc;
	}
	out->content_bytes = core.content.bytes;
	out->is_inline = core.content.is_inline;
	out->content = core.content.body;
	return 0;
}

int queue_read_envelope(struct queue *queue, uint64_t id, uint32_t flags, struct queue_message *out)
{
	struct slice payload;
	struct slot *slot;
	char *memory;
	int rc = read_message(queue, id, &memory, &payload);

	*out = (struct queue_message){0};
	if (rc < 0)
		return rc;
	slot = index_find(queue->index, id);
	out->id = id;
	out->memory = memory;
	rc = decode_message(payload, slot->rcpt_count, out);
	if (rc < 0 || out->envelope.recipient_count != slot->rcpt_count) {
		queue_message_free(out);
		aside_put(queue, slot, "its MESSAGE record cannot be read");
		return ERR_CORRUPT;
	}
	out->state = index_state(queue->index, slot);
	out->warned = slot->flags & SLOT_WARNED;
	fill_status(slot, out);
	if (flags & QUEUE_READ_OUTCOMES)
		read_outcomes(queue, slot, payload, out);
	return 0;
}

/* ---- What happened ---- */

struct folded_attempt {
	uint32_t recipient;
	bool is_there;
	struct payload_result result;
};

static int keep_folded(void *ctx, uint32_t recipient, const struct payload_result *result)
{
	struct folded_attempt *folded = ctx;

	if (recipient == folded->recipient) {
		folded->is_there = true;
		folded->result = *result;
	}
	return 0;
}

static void put_attempt(struct queue_attempt *out, const struct payload_result *result)
{
	out->at_wall = result->at_wall;
	out->attempts = result->attempts;
	payload_outcome_of(result, &out->outcome);
}

/* From RESULT to RESULT; what stands there by now may be anybody's. */
static size_t follow_attempts(const struct queue *queue, uint64_t id, uint32_t recipient, struct record_place place,
			      struct queue_attempt *out, size_t max)
{
	struct payload_result result;
	struct record_header header;
	char room[RESULT_ROOM];
	size_t count = 0;

	while (count < max && read_result_at(queue, place, room, &header, &result) == 0 && header.id == id &&
	       header.index == recipient) {
		put_attempt(&out[count++], &result);
		place = result.before;
	}
	return count;
}

size_t queue_read_attempts(struct queue *queue, uint64_t id, uint32_t recipient, struct queue_attempt *out, size_t max)
{
	struct folded_attempt folded = {.recipient = recipient};
	struct slot *slot = queue_find(queue, id);
	struct slice payload;
	size_t count = 0;
	char *memory;

	if (!slot || recipient >= slot->rcpt_count || max == 0)
		return 0;
	if (slot_rcpt(slot, recipient)->result.segment != 0)
		return follow_attempts(queue, id, recipient, slot_rcpt(slot, recipient)->result, out, max);
	if (read_message(queue, id, &memory, &payload) != 0)
		return 0;
	if (payload_get_states(payload, keep_folded, &folded) == 0 && folded.is_there) {
		put_attempt(&out[count++], &folded.result);
		count += follow_attempts(queue, id, recipient, folded.result.before, out + count, max - count);
	}
	free(memory);
	return count;
}

void queue_message_free(struct queue_message *message)
{
	for (size_t i = 0; message->status && i < message->envelope.recipient_count; i++)
		free(message->status[i].last);
	free(message->status);
	free((void *)message->envelope.recipients);
	free(message->memory);
	*message = (struct queue_message){0};
}

/* ---- Contents ---- */

struct queue_content *queue_content_open(struct queue *queue, uint64_t id, struct err *err)
{
	struct queue_content *content;
	struct payload_core core;
	struct slice payload;
	char *memory;
	int rc = read_message(queue, id, &memory, &payload);

	if (rc == 0) {
		rc = payload_get_core(payload, &core);
		if (rc < 0) {
			free(memory);
			aside_put(queue, index_find(queue->index, id), "its MESSAGE record cannot be read");
		}
	}
	if (rc < 0) {
		err_set(err, rc, "the message cannot be read: %s", err_code_name(rc));
		return NULL;
	}
	content = xcalloc(1, sizeof(*content));
	*content = (struct queue_content){.queue = queue, .id = id, .content = core.content, .memory = memory};
	if (core.content.is_inline) {
		content->rest = core.content.body;
		return content;
	}
	free(memory);
	content->memory = NULL;
	content->hash = XXH3_createState();
	BUG_ON(!content->hash);
	XXH3_64bits_reset(content->hash);
	return content;
}

static int check_piece(const struct queue_content *content, const struct record_header *header)
{
	if (header->type != RECORD_DATA || header->id != content->id || header->index != content->next_piece ||
	    header->length == 0)
		return ERR_CORRUPT;
	return 0;
}

/* All pieces are there and they are together what was submitted: asked before the last one is given out. */
static int check_whole(struct queue_content *content)
{
	if (content->queue->rules->trust_pieces || content->next_piece < content->content.pieces)
		return 0;
	return XXH3_64bits_digest(content->hash) == content->content.hash ? 0 : ERR_CORRUPT;
}

static int read_piece(struct queue_content *content, const struct index_place *piece)
{
	struct queue *queue = content->queue;
	struct record_header header;
	int rc;

	free(content->memory);
	content->memory = xmalloc(RECORD_HEADER_BYTES + (size_t)piece->length);
	rc = segments_read(&queue->segments, piece->at, piece->length, content->memory, &header);
	if (rc == 0)
		rc = check_piece(content, &header);
	if (rc == ERR_CORRUPT && queue->rules->trust_reads)
		rc = 0;
	if (rc < 0)
		return rc;
	content->rest = slice_of(content->memory + RECORD_HEADER_BYTES, piece->length);
	content->next_piece++;
	XXH3_64bits_update(content->hash, content->rest.ptr, content->rest.len);
	return check_whole(content);
}

static int next_piece(struct queue_content *content)
{
	struct slot *slot = queue_find(content->queue, content->id);
	char text[64];
	int rc;

	if (!slot)
		return ERR_NOT_FOUND;
	if (slot->flags & SLOT_CORRUPT || content->next_piece >= slot_piece_count(slot))
		return ERR_CORRUPT;
	while (content->queue->rules->trust_pieces && content->next_piece + 1 < content->content.pieces &&
	       slot->u.extra->pieces[content->next_piece].at.segment == 0)
		content->next_piece++;
	rc = read_piece(content, &slot->u.extra->pieces[content->next_piece]);
	if (rc == ERR_CORRUPT) {
		content->rest = (struct slice){0};
		snprintf(text, sizeof(text), "piece %u of its content is damaged", content->next_piece);
		aside_put(content->queue, slot, text);
	}
	return rc;
}

ssize_t queue_content_read(struct queue_content *content, void *out, size_t len)
{
	size_t n;

	if (content->rest.len == 0) {
		int rc;
		if (content->content.is_inline || content->next_piece == content->content.pieces)
			return 0;
		rc = next_piece(content);
		if (rc < 0)
			return rc;
	}
	n = MIN(len, content->rest.len);
	memcpy(out, content->rest.ptr, n);
	content->rest = slice_from(content->rest, n);
	return (ssize_t)n;
}

void queue_content_close(struct queue_content **content)
{
	if (!*content)
		return;
	XXH3_freeState((*content)->hash);
	free((*content)->memory);
	free(*content);
	*content = NULL;
}
