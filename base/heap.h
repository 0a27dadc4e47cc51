/*
 * base/heap.h - 4-ary min-heap of (key, id) pairs
 *
 * 16 bytes an entry, no allocation per item. Whoever wants to remove or move an entry keeps its position, which the
 * heap reports through `moved` each time it changes. Equal keys come out in any order.
 */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAP_NONE UINT32_MAX

struct heap_entry {
	int64_t key;
	uint32_t id;
};

struct heap {
	struct heap_entry *entries;
	uint32_t count, cap;
	void (*moved)(void *ctx, uint32_t id, uint32_t position); /* HEAP_NONE: left the heap */
	void *ctx;
};

void heap_init(struct heap *heap, void (*moved)(void *ctx, uint32_t id, uint32_t position), void *ctx);
void heap_fini(struct heap *heap);
void heap_push(struct heap *heap, int64_t key, uint32_t id);
/* NULL when empty; valid until the heap changes. */
const struct heap_entry *heap_peek(const struct heap *heap);
void heap_pop(struct heap *heap);
void heap_remove_at(struct heap *heap, uint32_t position);
void heap_update_at(struct heap *heap, uint32_t position, int64_t key);

#endif
