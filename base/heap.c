#include "base/heap.h"

#include "base/base.h"

#include <stdlib.h>

void heap_init(struct heap *heap, void (*moved)(void *ctx, uint32_t id, uint32_t position), void *ctx)
{
	*heap = (struct heap){.moved = moved, .ctx = ctx};
}

void heap_fini(struct heap *heap)
{
	free(heap->entries);
	heap->entries = NULL;
	heap->count = heap->cap = 0;
}

static void place(struct heap *heap, uint32_t position, struct heap_entry entry)
{
	heap->entries[position] = entry;
	heap->moved(heap->ctx, entry.id, position);
}

static void sift_up(struct heap *heap, uint32_t position, struct heap_entry entry)
{
	while (position > 0) {
		uint32_t parent = (position - 1) / 4;
		if (heap->entries[parent].key <= entry.key)
			break;
		place(heap, position, heap->entries[parent]);
		position = parent;
	}
	place(heap, position, entry);
}

static uint32_t smallest_child(const struct heap *heap, uint32_t position)
{
	uint64_t first = (uint64_t)position * 4 + 1;
	uint32_t best = HEAP_NONE;

	for (uint64_t child = first; child < first + 4 && child < heap->count; child++)
		if (best == HEAP_NONE || heap->entries[child].key < heap->entries[best].key)
			best = (uint32_t)child;
	return best;
}

static void sift_down(struct heap *heap, uint32_t position, struct heap_entry entry)
{
	for (;;) {
		uint32_t child = smallest_child(heap, position);
		if (child == HEAP_NONE || heap->entries[child].key >= entry.key)
			break;
		place(heap, position, heap->entries[child]);
		position = child;
	}
	place(heap, position, entry);
}

void heap_push(struct heap *heap, int64_t key, uint32_t id)
{
	if (heap->count == heap->cap) {
		BUG_ON(heap->cap > UINT32_MAX / 2);
		heap->cap = heap->cap ? heap->cap * 2 : 64;
		heap->entries = xreallocarray(heap->entries, heap->cap, sizeof(*heap->entries));
	}
	heap->count++;
	sift_up(heap, heap->count - 1, (struct heap_entry){key, id});
}

const struct heap_entry *heap_peek(const struct heap *heap)
{
	return heap->count ? &heap->entries[0] : NULL;
}

void heap_pop(struct heap *heap)
{
	heap_remove_at(heap, 0);
}

void heap_remove_at(struct heap *heap, uint32_t position)
{
	struct heap_entry last;

	BUG_ON(position >= heap->count);
	heap->moved(heap->ctx, heap->entries[position].id, HEAP_NONE);
	last = heap->entries[--heap->count];
	if (position == heap->count)
		return;
	if (position > 0 && heap->entries[(position - 1) / 4].key > last.key)
		sift_up(heap, position, last);
	else
		sift_down(heap, position, last);
}

void heap_update_at(struct heap *heap, uint32_t position, int64_t key)
{
	struct heap_entry entry;

	BUG_ON(position >= heap->count);
	entry = heap->entries[position];
	if (key < entry.key)
		sift_up(heap, position, (struct heap_entry){key, entry.id});
	else
		sift_down(heap, position, (struct heap_entry){key, entry.id});
}
