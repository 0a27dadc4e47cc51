#include "base/timer.h"

#include "base/base.h"
#include "base/heap.h"

#include <stdbool.h>
#include <stdlib.h>

struct timer {
	timer_cb *cb;
	void *ctx;
	uint32_t generation; /* counts the uses of this slot, so that an old id never hits a new timer */
	uint32_t position;   /* in the heap; HEAP_NONE: free, or being fired */
	uint32_t next_free;
};

struct timers {
	struct heap heap;
	struct timer *slots;
	uint32_t slot_count, free_head;
	timer_id *due; /* being fired: out of the heap, and still to be cancelled */
	uint32_t due_cap;
	bool is_running;
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
	free((*timers)->due);
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
	/* 0 would make an id that stands for none, or that cannot be cancelled. */
	if (++timers->slots[slot].generation == 0)
		timers->slots[slot].generation = 1;
	timers->slots[slot].next_free = timers->free_head;
	timers->free_head = slot;
}

static timer_id id_of(const struct timers *timers, uint32_t slot)
{
	return (uint64_t)timers->slots[slot].generation << 32 | slot;
}

timer_id timers_add(struct timers *timers, int64_t at_ms, timer_cb *cb, void *ctx)
{
	uint32_t slot = take_slot(timers);
	struct timer *timer = &timers->slots[slot];

	timer->cb = cb;
	timer->ctx = ctx;
	heap_push(&timers->heap, at_ms, slot);
	return id_of(timers, slot);
}

static bool is_current(const struct timers *timers, timer_id id)
{
	uint32_t slot = (uint32_t)id;

	return id != 0 && slot < timers->slot_count && id == id_of(timers, slot);
}

void timers_cancel(struct timers *timers, timer_id *id)
{
	uint32_t slot = (uint32_t)*id;

	if (is_current(timers, *id)) {
		if (timers->slots[slot].position != HEAP_NONE)
			heap_remove_at(&timers->heap, timers->slots[slot].position);
		give_slot(timers, slot);
	}
	*id = 0;
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

/* Takes all that are due out of the heap first: what callbacks add then neither fires in this run nor, by being
 * earlier, hides others that are due. */
static uint32_t take_due(struct timers *timers, int64_t now_ms)
{
	const struct heap_entry *first;
	uint32_t count = 0;

	while ((first = heap_peek(&timers->heap)) && first->key <= now_ms) {
		if (count == timers->due_cap) {
			timers->due_cap = timers->due_cap ? timers->due_cap * 2 : 64;
			timers->due = xreallocarray(timers->due, timers->due_cap, sizeof(*timers->due));
		}
		timers->due[count++] = id_of(timers, first->id);
		heap_pop(&timers->heap);
	}
	return count;
}

void timers_run(struct timers *timers, int64_t now_ms)
{
	uint32_t count;

	BUG_ON(timers->is_running);
	timers->is_running = true;
	count = take_due(timers, now_ms);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t slot = (uint32_t)timers->due[i];
		struct timer timer;
		if (!is_current(timers, timers->due[i]))
			continue; /* cancelled by one that fired before it */
		timer = timers->slots[slot];
		give_slot(timers, slot);
		timer.cb(timer.ctx);
	}
	timers->is_running = false;
}
