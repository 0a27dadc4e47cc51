#include "base/timer.h"

#include "base/base.h"
#include "base/heap.h"

#include <stdlib.h>

struct timer {
	timer_cb *cb;
	void *ctx;
	uint32_t generation; /* counts the uses of this slot, so that an old id never hits a new timer */
	uint32_t position;   /* in the heap; HEAP_NONE: free */
	uint32_t next_free;
	uint64_t serial;
};

struct timers {
	struct heap heap;
	struct timer *slots;
	uint32_t slot_count, free_head;
	uint64_t serial;
};

static void on_moved(void *ctx, uint32_t id, uint32_t position)
{
	struct timers *timers = ctx;
	timers->slots[id].position = position;
}

struct timers *timers_new(void)
{
	struct timers *timers = xcalloc(1, sizeof(*timers));
	heap_init(&timers->heap, on_moved, timers);
	timers->free_head = HEAP_NONE;
	return timers;
}

void timers_free(struct timers **timers)
{
	if (!*timers)
		return;
	heap_fini(&(*timers)->heap);
	free((*timers)->slots);
	free(*timers);
	*timers = NULL;
}

static uint32_t take_slot(struct timers *timers)
{
	uint32_t slot = timers->free_head;

	if (slot == HEAP_NONE) {
		uint32_t old = timers->slot_count;
		uint32_t count = old ? old * 2 : 64;
		timers->slots = xreallocarray(timers->slots, count, sizeof(*timers->slots));
		for (uint32_t i = old; i < count; i++)
			timers->slots[i] = (struct timer){
			    .generation = 1, .position = HEAP_NONE, .next_free = i + 1 < count ? i + 1 : HEAP_NONE};
		timers->slot_count = count;
		slot = old;
	}
	timers->free_head = timers->slots[slot].next_free;
	return slot;
}

static void give_slot(struct timers *timers, uint32_t slot)
{
	timers->slots[slot].generation++;
	timers->slots[slot].next_free = timers->free_head;
	timers->free_head = slot;
}

timer_id timers_add(struct timers *timers, int64_t at_ms, timer_cb *cb, void *ctx)
{
	uint32_t slot = take_slot(timers);
	struct timer *timer = &timers->slots[slot];

	timer->cb = cb;
	timer->ctx = ctx;
	timer->serial = ++timers->serial;
	heap_push(&timers->heap, at_ms, slot);
	return (uint64_t)timers->slots[slot].generation << 32 | slot;
}

void timers_cancel(struct timers *timers, timer_id *id)
{
	uint32_t slot = (uint32_t)*id;
	uint32_t generation = (uint32_t)(*id >> 32);

	*id = 0;
	if (generation == 0 || slot >= timers->slot_count || timers->slots[slot].generation != generation)
		return;
	heap_remove_at(&timers->heap, timers->slots[slot].position);
	give_slot(timers, slot);
}

void timers_set(struct timers *timers, timer_id *id, int64_t at_ms, timer_cb *cb, void *ctx)
{
	timers_cancel(timers, id);
	*id = timers_add(timers, at_ms, cb, ctx);
}

int64_t timers_next_at_ms(const struct timers *timers)
{
	const struct heap_entry *first = heap_peek(&timers->heap);
	return first ? first->key : INT64_MAX;
}

void timers_run(struct timers *timers, int64_t now_ms)
{
	uint64_t last_serial = timers->serial;

	for (;;) {
		const struct heap_entry *first = heap_peek(&timers->heap);
		struct timer due;

		if (!first || first->key > now_ms)
			return;
		due = timers->slots[first->id];
		if (due.serial > last_serial)
			return;
		give_slot(timers, first->id);
		heap_pop(&timers->heap);
		due.cb(due.ctx);
	}
}
