/*
 * queue/batch.h - records that wait together: their bytes as they will lie in the file, and what is to be done then
 *
 * Private to the journal's writer.
 */
#ifndef QUEUE_BATCH_H
#define QUEUE_BATCH_H

#include "queue/journal.h"

struct batch {
	struct buf bytes;
	struct journal_item *items;
	uint32_t count, cap;
	bool has_message, has_move, has_done, has_intake;
	int64_t since_ms; /* of the first item */
};

void batch_init(struct batch *batch);
/* Gives memory back; the items' extras have gone to the owner, or to another batch. */
void batch_fini(struct batch *batch);
/* Frees the extras too. */
void batch_drop(struct batch *batch);
/* Empties it and keeps its memory, unless that is much. */
void batch_clear(struct batch *batch);
/* Notes an item whose bytes have been appended. */
void batch_add(struct batch *batch, const struct journal_item *item, int64_t now_ms);
/* Copies items first .. last - 1 to the end of `to`, without those of intake if `drop_intake`. */
void batch_copy(struct batch *to, const struct batch *from, uint32_t first, uint32_t last, bool drop_intake);

#endif
