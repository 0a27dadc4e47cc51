/*
 * queue/payload.h - what stands in the payloads of MESSAGE, MOVE, RESULT and MARK
 *
 * Pure: encodes into a buffer, decodes into slices of the payload. The tags are told in queue/journal.h.
 */
#ifndef QUEUE_PAYLOAD_H
#define QUEUE_PAYLOAD_H

#include "base/buf.h"
#include "queue/queue.h"
#include "queue/record.h"

/* What a MESSAGE says about its content. */
struct payload_content {
	uint64_t bytes;
	uint64_t hash; /* XXH3-64 over all of it */
	uint32_t pieces;
	bool is_inline; /* then pieces is 0 and `body` holds it */
	struct slice body;
};

/* A recipient's recorded state: the payload of a RESULT, or folded into a MOVE. */
struct payload_result {
	enum outcome_kind kind;
	enum failure_class class;
	enum delivery_stage stage;
	uint32_t attempts;
	int64_t next_wall;
	uint32_t code;
	bool hint_used;
	struct slice enhanced, host, text;
	int64_t at_wall;	    /* when it was recorded; 0: not known */
	struct record_place before; /* the RESULT before it, which may be gone; segment 0: none is known */
};

/* The head of a MESSAGE or MOVE, without its texts: what the index needs. */
struct payload_core {
	int64_t arrived_wall, expires_wall;
	struct payload_content content;
	uint32_t recipient_count;
	uint32_t flags;
	enum message_class class;
	enum queue_body body;
	enum queue_ret ret;
	bool held, warned, deleting; /* MOVE: folded */
};

struct payload_mark {
	uint64_t batch_start;
	uint64_t first;
	uint64_t id_floor; /* as in a segment's header, but of now */
};
#define PAYLOAD_MARK_BYTES 24

/* 0, or ERR_LIMIT: a string or the buffer is too long, nothing was appended; ERR_SYNTAX: no recipient. */
int payload_put_message(struct buf *out, const struct queue_envelope *envelope, const struct payload_content *content);
int payload_put_result(struct buf *out, const struct payload_result *result);
int payload_put_mark(struct buf *out, const struct payload_mark *mark);
/* Copies a MESSAGE's or MOVE's payload without the state that is folded into it. */
int payload_copy_message(struct buf *out, struct slice payload);
int payload_put_state(struct buf *out, uint32_t recipient, const struct payload_result *result);
int payload_put_message_state(struct buf *out, bool held, bool warned, bool deleting);

struct payload_result payload_result_of(const struct queue_result *result);
void payload_outcome_of(const struct payload_result *result, struct outcome *out);

/* All of these give 0, ERR_CORRUPT (not well formed) or ERR_VERSION (something that must be known is not). */
int payload_get_core(struct slice payload, struct payload_core *core);
/* Calls back for each folded state; a value other than 0 ends it and is returned. */
typedef int payload_state_cb(void *ctx, uint32_t recipient, const struct payload_result *result);
int payload_get_states(struct slice payload, payload_state_cb *cb, void *ctx);
/* All texts; `recipients` has room for core.recipient_count of them. */
int payload_get_envelope(struct slice payload, struct queue_envelope *envelope, struct queue_recipient *recipients,
			 size_t room);
int payload_get_result(struct slice payload, struct payload_result *result);
int payload_get_mark(struct slice payload, struct payload_mark *mark);

#endif
