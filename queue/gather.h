/*
 * queue/gather.h - what was appended and is not on its way to the disk yet: batches, the oldest first
 *
 * Private to the journal's writer. A batch that has grown to BATCH_BYTES or BATCH_ITEMS is closed and the next one
 * begun, so that neither a write nor the end of a sync holds up the loop, however long the disk kept everybody waiting.
 */
#ifndef QUEUE_GATHER_H
#define QUEUE_GATHER_H

#include "queue/batch.h"

#define BATCH_BYTES (512u << 10) /* a record that begins below may end above */
#define BATCH_ITEMS 4096

struct gather {
	struct batch *batches;
	uint32_t count, cap;
	struct batch idle; /* memory for the next one */
};

/* What all of it comes to. */
struct gather_sum {
	uint64_t bytes;
	int64_t since_ms; /* of the oldest item */
	bool is_empty, has_message, has_move, has_done, has_intake;
};

void gather_init(struct gather *gather);
/* Frees the items' extras too. */
void gather_drop(struct gather *gather);
struct gather_sum gather_sum(const struct gather *gather);
/* Where the next record goes; begins a batch if the last one is full. */
struct batch *gather_open(struct gather *gather);
/* The one to be written first; NULL: there is nothing. */
struct batch *gather_first(const struct gather *gather);
/* Moves the first `count` items of the first batch into `out`, an empty one. */
void gather_take(struct gather *gather, struct batch *out, uint32_t count);
/* Puts a batch that was taken in front again, and leaves `batch` empty. */
void gather_put_back(struct gather *gather, struct batch *batch);
/* An empty batch whose memory may serve again; leaves `batch` without any. */
void gather_keep_memory(struct gather *gather, struct batch *batch);

#endif
