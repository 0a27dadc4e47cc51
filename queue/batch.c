#include "queue/batch.h"

#include "base/base.h"

#include <stdlib.h>

#define BYTES_MAX (16u << 20)  /* a batch is closed long before: gather.h */
#define IDLE_BUFFER (1u << 20) /* a larger buffer is given back when it is empty */

void batch_init(struct batch *batch)
{
	*batch = (struct batch){0};
	buf_init(&batch->bytes, BYTES_MAX);
}

/* The items' extras have gone to the owner, or to another batch. */
void batch_fini(struct batch *batch)
{
	buf_fini(&batch->bytes);
	free(batch->items);
}

void batch_drop(struct batch *batch)
{
	for (uint32_t i = 0; i < batch->count; i++)
		free(batch->items[i].extra);
	batch_fini(batch);
}

void batch_clear(struct batch *batch)
{
	if (batch->bytes.cap > IDLE_BUFFER) {
		buf_reset(&batch->bytes);
		free(batch->items);
		batch->items = NULL;
		batch->cap = 0;
	}
	buf_clear(&batch->bytes);
	batch->count = 0;
	batch->has_message = batch->has_move = batch->has_done = batch->has_intake = false;
}

void batch_add(struct batch *batch, const struct journal_item *item, int64_t now)
{
	if (batch->count == batch->cap) {
		batch->cap = batch->cap ? batch->cap * 2 : 64;
		batch->items = xreallocarray(batch->items, batch->cap, sizeof(batch->items[0]));
	}
	if (batch->count == 0)
		batch->since_ms = now;
	batch->items[batch->count++] = *item;
	batch->has_message |= item->type == RECORD_MESSAGE;
	batch->has_move |= item->old.segment != 0 && item->type != RECORD_DONE;
	batch->has_done |= item->type == RECORD_DONE;
	batch->has_intake |= item->is_intake;
}

static struct slice item_record(const struct batch *batch, const struct journal_item *item)
{
	return slice_of(batch->bytes.data + batch->bytes.start + item->at, record_bytes(item->length));
}

/* Copies items from .. to of `from` to the end of `to`, without those of intake if `drop_intake`. */
void batch_copy(struct batch *to, const struct batch *from, uint32_t first, uint32_t last, bool drop_intake)
{
	for (uint32_t i = first; i < last; i++) {
		struct journal_item item = from->items[i];
		if (drop_intake && item.is_intake)
			continue;
		item.at = (uint32_t)buf_len(&to->bytes);
		BUG_ON(buf_append(&to->bytes, item_record(from, &from->items[i])) < 0);
		batch_add(to, &item, from->since_ms);
	}
}
