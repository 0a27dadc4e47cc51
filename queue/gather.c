#include "queue/gather.h"

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

void gather_init(struct gather *gather)
{
	*gather = (struct gather){0};
	batch_init(&gather->idle);
}

void gather_drop(struct gather *gather)
{
	for (uint32_t i = 0; i < gather->count; i++)
		batch_drop(&gather->batches[i]);
	batch_fini(&gather->idle);
	free(gather->batches);
	*gather = (struct gather){0};
}

struct gather_sum gather_sum(const struct gather *gather)
{
	struct gather_sum sum = {.is_empty = true};

	for (uint32_t i = 0; i < gather->count; i++) {
		const struct batch *batch = &gather->batches[i];
		if (batch->count == 0)
			continue;
		if (sum.is_empty)
			sum.since_ms = batch->since_ms;
		sum.is_empty = false;
		sum.bytes += buf_len(&batch->bytes);
		sum.has_message |= batch->has_message;
		sum.has_move |= batch->has_move;
		sum.has_done |= batch->has_done;
		sum.has_intake |= batch->has_intake;
	}
	return sum;
}

static struct batch *insert(struct gather *gather, uint32_t at)
{
	if (gather->count == gather->cap) {
		gather->cap = gather->cap ? gather->cap * 2 : 4;
		gather->batches = xreallocarray(gather->batches, gather->cap, sizeof(gather->batches[0]));
	}
	memmove(&gather->batches[at + 1], &gather->batches[at], (gather->count - at) * sizeof(gather->batches[0]));
	gather->count++;
	return &gather->batches[at];
}

struct batch *gather_open(struct gather *gather)
{
	struct batch *last = gather->count > 0 ? &gather->batches[gather->count - 1] : NULL;

	if (last && last->count < BATCH_ITEMS && buf_len(&last->bytes) < BATCH_BYTES)
		return last;
	last = insert(gather, gather->count);
	*last = gather->idle;
	batch_init(&gather->idle);
	return last;
}

struct batch *gather_first(const struct gather *gather)
{
	for (uint32_t i = 0; i < gather->count; i++)
		if (gather->batches[i].count > 0)
			return &gather->batches[i];
	return NULL;
}

static void remove_empty(struct gather *gather)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < gather->count; i++) {
		if (gather->batches[i].count > 0)
			gather->batches[kept++] = gather->batches[i];
		else
			gather_keep_memory(gather, &gather->batches[i]);
	}
	gather->count = kept;
}

void gather_take(struct gather *gather, struct batch *out, uint32_t count)
{
	struct batch *first = gather_first(gather), rest;

	BUG_ON(out->count > 0 || !first || count > first->count);
	gather_keep_memory(gather, out);
	if (count == first->count) {
		*out = *first;
		batch_init(first);
	} else {
		batch_copy(out, first, 0, count, false);
		batch_init(&rest);
		batch_copy(&rest, first, count, first->count, false);
		batch_fini(first);
		*first = rest;
	}
	remove_empty(gather);
}

void gather_put_back(struct gather *gather, struct batch *batch)
{
	*insert(gather, 0) = *batch;
	batch_init(batch);
}

void gather_keep_memory(struct gather *gather, struct batch *batch)
{
	batch_clear(batch);
	if (gather->idle.bytes.cap == 0) {
		batch_fini(&gather->idle);
		gather->idle = *batch;
	} else {
		batch_fini(batch);
	}
	batch_init(batch);
}
