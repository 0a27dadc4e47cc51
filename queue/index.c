#include "queue/index.h"

#include "base/base.h"
#include "queue/id.h"

#include <stdlib.h>

#define CHUNK_SLOTS 1024
#define BUCKETS_MIN 64
#define STATE_UNSYNCED 254
#define STATE_FREE 255

/* Age and state lie apart from the slots, so that looking at all of them touches 5 bytes each. */
struct chunk {
	struct slot slots[CHUNK_SLOTS];
	uint32_t arrived_sec[CHUNK_SLOTS]; /* since ID_EPOCH_WALL_MS */
	uint8_t state[CHUNK_SLOTS];
};

/* Ids are found by linear hashing: `buckets` grows by one at a time, each time one old bucket is split, so that no
 * insertion ever moves more than a few slots. */
struct index {
	struct chunk **chunks;
	uint32_t chunk_count, chunk_cap;
	uint32_t limit, free_head;
	uint32_t *buckets;
	uint32_t bucket_count, bucket_cap;
	uint32_t level; /* a power of two: level <= bucket_count < 2 * level */
	uint32_t slot_count;
	size_t extra_bytes;
	struct heap heaps[MESSAGE_CLASS_COUNT];
	struct index_counts counts;
};

static const enum message_class class_order[] = {MESSAGE_TRANSACTIONAL, MESSAGE_DEFAULT, MESSAGE_BULK};

_Static_assert(sizeof(struct slot) == 80, "the budget in index.h");
_Static_assert(sizeof(struct index_rcpt) == 20, "the budget in index.h");

struct slot *index_slot(const struct index *index, uint32_t number)
{
	return &index->chunks[number / CHUNK_SLOTS]->slots[number % CHUNK_SLOTS];
}

uint32_t index_limit(const struct index *index)
{
	return index->limit;
}

static uint8_t *state_of(const struct index *index, const struct slot *slot)
{
	return &index->chunks[slot->number / CHUNK_SLOTS]->state[slot->number % CHUNK_SLOTS];
}

static uint32_t *arrived_of(const struct index *index, const struct slot *slot)
{
	return &index->chunks[slot->number / CHUNK_SLOTS]->arrived_sec[slot->number % CHUNK_SLOTS];
}

enum message_state index_state(const struct index *index, const struct slot *slot)
{
	uint8_t state = *state_of(index, slot);

	return state < STATE_COUNT ? state : STATE_READY;
}

int64_t index_arrived_wall(const struct index *index, const struct slot *slot)
{
	return ID_EPOCH_WALL_MS + (int64_t)*arrived_of(index, slot) * 1000;
}

/* ---- The table of ids ---- */

static uint32_t bucket_of(const struct index *index, uint64_t id)
{
	uint64_t hash = id * 0x9e3779b97f4a7c15u;
	uint32_t bucket;

	hash ^= hash >> 32;
	bucket = (uint32_t)hash & (2 * index->level - 1);
	return bucket < index->bucket_count ? bucket : bucket - index->level;
}

static void bucket_push(struct index *index, struct slot *slot)
{
	uint32_t *head = &index->buckets[bucket_of(index, slot->id)];

	slot->hash_next = *head;
	*head = slot->number;
}

/* Adds one bucket; the slots of the bucket that it came from are shared out between the two. */
static void split_one(struct index *index)
{
	uint32_t number;

	if (index->bucket_count == index->bucket_cap) {
		index->bucket_cap *= 2;
		index->buckets = xreallocarray(index->buckets, index->bucket_cap, sizeof(index->buckets[0]));
	}
	index->buckets[index->bucket_count++] = INDEX_NONE;
	number = index->buckets[index->bucket_count - 1 - index->level];
	index->buckets[index->bucket_count - 1 - index->level] = INDEX_NONE;
	if (index->bucket_count == 2 * index->level)
		index->level *= 2;
	while (number != INDEX_NONE) {
		struct slot *slot = index_slot(index, number);
		number = slot->hash_next;
		bucket_push(index, slot);
	}
	number = index->buckets[index->bucket_count - index->level];
	if (number != INDEX_NONE) /* the next split's: with a million slots each is a miss in the cache */
		__builtin_prefetch(index_slot(index, number));
}

struct slot *index_find(const struct index *index, uint64_t id)
{
	uint32_t number = index->buckets[bucket_of(index, id)];

	while (number != INDEX_NONE) {
		struct slot *slot = index_slot(index, number);
		if (slot->id == id)
			return slot;
		number = slot->hash_next;
	}
	return NULL;
}

static void bucket_remove(struct index *index, struct slot *slot)
{
	uint32_t *link = &index->buckets[bucket_of(index, slot->id)];

	while (*link != slot->number) {
		BUG_ON(*link == INDEX_NONE);
		link = &index_slot(index, *link)->hash_next;
	}
	*link = slot->hash_next;
}

/* ---- Slots ---- */

static void heap_moved(void *ctx, uint32_t id, uint32_t position)
{
	index_slot(ctx, id)->heap_at = position;
}

struct index *index_new(void)
{
	struct index *index = xcalloc(1, sizeof(*index));

	index->free_head = INDEX_NONE;
	index->level = index->bucket_count = index->bucket_cap = BUCKETS_MIN;
	index->buckets = xreallocarray(NULL, BUCKETS_MIN, sizeof(index->buckets[0]));
	memset(index->buckets, 0xff, BUCKETS_MIN * sizeof(index->buckets[0]));
	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++)
		heap_init(&index->heaps[class], heap_moved, index);
	return index;
}

void index_free(struct index **index)
{
	struct index *old = *index;

	if (!old)
		return;
	for (uint32_t number = 0; number < old->limit; number++) {
		struct slot *slot = index_slot(old, number);
		if (slot->id != 0 && slot->flags & SLOT_EXTRA)
			free(slot->u.extra);
	}
	for (uint32_t i = 0; i < old->chunk_count; i++)
		free(old->chunks[i]);
	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++)
		heap_fini(&old->heaps[class]);
	free(old->chunks);
	free(old->buckets);
	free(old);
	*index = NULL;
}

static struct slot *take_free(struct index *index)
{
	struct slot *slot;

	if (index->free_head != INDEX_NONE) {
		slot = index_slot(index, index->free_head);
		index->free_head = slot->hash_next;
		return slot;
	}
	if (index->limit == index->chunk_count * CHUNK_SLOTS) {
		BUG_ON(index->limit > INDEX_NONE - 2 * CHUNK_SLOTS);
		if (index->chunk_count == index->chunk_cap) {
			index->chunk_cap = index->chunk_cap ? index->chunk_cap * 2 : 16;
			index->chunks = xreallocarray(index->chunks, index->chunk_cap, sizeof(index->chunks[0]));
		}
		index->chunks[index->chunk_count] = xcalloc(1, sizeof(struct chunk));
		memset(index->chunks[index->chunk_count]->state, STATE_FREE, CHUNK_SLOTS);
		index->chunk_count++;
	}
	slot = index_slot(index, index->limit);
	slot->number = index->limit++;
	return slot;
}

static size_t extra_size(uint32_t rcpt_count, uint32_t piece_count)
{
	size_t rcpts = sizeof(struct index_extra) + rcpt_count * sizeof(struct index_rcpt);

	return ((rcpts + 7) & ~(size_t)7) + piece_count * sizeof(struct index_place);
}

static struct index_extra *extra_new(uint32_t rcpt_count, uint32_t piece_count, int64_t next_wall)
{
	size_t rcpts = sizeof(struct index_extra) + rcpt_count * sizeof(struct index_rcpt);
	struct index_extra *extra = xcalloc(1, extra_size(rcpt_count, piece_count));

	extra->piece_count = piece_count;
	extra->pieces = (struct index_place *)(void *)((char *)extra + ((rcpts + 7) & ~(size_t)7));
	extra->next_wall = next_wall;
	extra->waiting = rcpt_count;
	for (uint32_t i = 0; i < rcpt_count; i++)
		extra->rcpts[i].next_wall = next_wall;
	return extra;
}

static uint32_t to_sec(int64_t wall_ms)
{
	int64_t sec = wall_ms > ID_EPOCH_WALL_MS ? (wall_ms - ID_EPOCH_WALL_MS) / 1000 : 0;

	return (uint32_t)MIN(sec, (int64_t)UINT32_MAX);
}

struct slot *index_add(struct index *index, uint64_t id, uint32_t rcpt_count, uint32_t piece_count,
		       int64_t arrived_wall, int64_t next_wall)
{
	struct slot *slot = take_free(index);
	uint32_t number = slot->number;

	*slot = (struct slot){
	    .id = id,
	    .number = number,
	    .heap_at = HEAP_NONE,
	    .list_next = INDEX_NONE,
	    .list_prev = INDEX_NONE,
	    .list_number = INDEX_NONE,
	    .rcpt_count = (uint16_t)rcpt_count,
	    .rcpt_open = (uint16_t)rcpt_count,
	};
	if (rcpt_count == 1 && piece_count == 0) {
		slot->u.one = (struct index_rcpt){.next_wall = next_wall};
	} else {
		slot->u.extra = extra_new(rcpt_count, piece_count, next_wall);
		slot->flags |= SLOT_EXTRA;
		index->extra_bytes += extra_size(rcpt_count, piece_count);
	}
	*state_of(index, slot) = STATE_UNSYNCED;
	*arrived_of(index, slot) = to_sec(arrived_wall);
	bucket_push(index, slot);
	if (++index->slot_count > index->bucket_count)
		split_one(index);
	index->counts.all_messages++;
	return slot;
}

struct index_extra *index_remove(struct index *index, struct slot *slot)
{
	struct index_extra *extra = slot->flags & SLOT_EXTRA ? slot->u.extra : NULL;

	index_change_begin(index, slot);
	if (slot->heap_at != HEAP_NONE)
		heap_remove_at(&index->heaps[slot->class], slot->heap_at);
	bucket_remove(index, slot);
	if (extra)
		index->extra_bytes -= extra_size(slot->rcpt_count, extra->piece_count);
	index->slot_count--;
	index->counts.all_messages--;
	index->counts.all_bytes -= slot->bytes;
	*state_of(index, slot) = STATE_FREE;
	slot->id = 0;
	slot->flags = 0;
	slot->hash_next = index->free_head;
	index->free_head = slot->number;
	return extra;
}

/* ---- Changes ---- */

uint32_t slot_taken(const struct slot *slot)
{
	if (slot->flags & SLOT_EXTRA)
		return slot->u.extra->taken;
	return rcpt_state(&slot->u.one) == RCPT_TAKEN;
}

int64_t slot_next_wall(struct slot *slot)
{
	struct index_extra *extra = slot->u.extra;

	if (!(slot->flags & SLOT_EXTRA))
		return rcpt_state(&slot->u.one) == RCPT_WAITING ? slot->u.one.next_wall : INT64_MAX;
	if (extra->next_is_stale) {
		extra->next_is_stale = false;
		extra->next_wall = INT64_MAX;
		for (uint32_t i = 0; extra->waiting > 0 && i < slot->rcpt_count; i++)
			if (rcpt_state(&extra->rcpts[i]) == RCPT_WAITING)
				extra->next_wall = MIN(extra->next_wall, extra->rcpts[i].next_wall);
	}
	return extra->next_wall;
}

static void extra_count(struct index_extra *extra, const struct index_rcpt *rcpt, uint32_t step)
{
	if (rcpt_state(rcpt) == RCPT_WAITING)
		extra->waiting += step;
	else if (rcpt_state(rcpt) == RCPT_TAKEN)
		extra->taken += step;
}

void slot_rcpt_set(struct slot *slot, uint32_t i, enum index_rcpt_state state, int64_t next_wall)
{
	struct index_rcpt *rcpt = slot_rcpt(slot, i);
	struct index_extra *extra = slot->flags & SLOT_EXTRA ? slot->u.extra : NULL;
	enum index_rcpt_state before = rcpt_state(rcpt);

	if (extra) {
		if (before == RCPT_WAITING && rcpt->next_wall <= extra->next_wall)
			extra->next_is_stale = true;
		extra_count(extra, rcpt, (uint32_t)-1);
	}
	rcpt->bits = (uint8_t)((rcpt->bits & ~RCPT_STATE_MASK) | state);
	if (state == RCPT_WAITING)
		rcpt->next_wall = next_wall;
	if (extra) {
		extra_count(extra, rcpt, 1);
		if (state == RCPT_WAITING && next_wall < extra->next_wall)
			extra->next_wall = next_wall;
	}
	if (before != RCPT_FINAL && state == RCPT_FINAL)
		slot->rcpt_open--;
	else if (before == RCPT_FINAL && state != RCPT_FINAL)
		slot->rcpt_open++;
}

static enum message_state derive_state(const struct slot *slot)
{
	if (slot->flags & SLOT_HELD)
		return STATE_HELD;
	if (slot->inflight > 0)
		return STATE_INFLIGHT;
	if (slot->flags & SLOT_POPPED || slot_taken(slot) > 0 || !(slot->flags & SLOT_TRIED))
		return STATE_READY;
	return STATE_DEFERRED;
}

void index_change_begin(struct index *index, struct slot *slot)
{
	uint8_t state = *state_of(index, slot);

	if (state >= STATE_COUNT)
		return;
	index->counts.messages[state]--;
	index->counts.recipients[state] -= slot->rcpt_open;
	index->counts.bytes[state] -= slot->bytes;
}

static void update_heap(struct index *index, struct slot *slot)
{
	struct heap *heap = &index->heaps[slot->class];
	int64_t key = INT64_MAX;

	if (!(slot->flags & (SLOT_POPPED | SLOT_HELD | SLOT_DELETING | SLOT_CORRUPT)))
		key = slot_next_wall(slot);
	if (key == INT64_MAX) {
		if (slot->heap_at != HEAP_NONE)
			heap_remove_at(heap, slot->heap_at);
	} else if (slot->heap_at == HEAP_NONE) {
		heap_push(heap, key, slot->number);
	} else if (heap->entries[slot->heap_at].key != key) {
		heap_update_at(heap, slot->heap_at, key);
	}
}

void index_change_end(struct index *index, struct slot *slot)
{
	enum message_state state = derive_state(slot);

	if (!(slot->flags & SLOT_SYNCED))
		return;
	*state_of(index, slot) = (uint8_t)state;
	index->counts.messages[state]++;
	index->counts.recipients[state] += slot->rcpt_open;
	index->counts.bytes[state] += slot->bytes;
	update_heap(index, slot);
}

void index_set_bytes(struct index *index, struct slot *slot, uint32_t bytes)
{
	index->counts.all_bytes += (uint64_t)bytes - slot->bytes;
	slot->bytes = bytes;
}

/* ---- Looking ---- */

struct slot *index_first_due(const struct index *index, int64_t now_wall)
{
	for (size_t i = 0; i < ARRAY_LEN(class_order); i++) {
		const struct heap_entry *first = heap_peek(&index->heaps[class_order[i]]);
		if (first && first->key <= now_wall)
			return index_slot(index, first->id);
	}
	return NULL;
}

int64_t index_next_due_wall(const struct index *index)
{
	int64_t due = INT64_MAX;

	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++) {
		const struct heap_entry *first = heap_peek(&index->heaps[class]);
		if (first)
			due = MIN(due, first->key);
	}
	return due;
}

const struct index_counts *index_counts(const struct index *index)
{
	return &index->counts;
}

void index_oldest(const struct index *index, int64_t oldest_wall[STATE_COUNT])
{
	uint32_t oldest[256];

	memset(oldest, 0xff, sizeof(oldest));
	for (uint32_t i = 0; i < index->chunk_count; i++) {
		const struct chunk *chunk = index->chunks[i];
		for (uint32_t at = 0; at < CHUNK_SLOTS; at++)
			if (chunk->arrived_sec[at] < oldest[chunk->state[at]])
				oldest[chunk->state[at]] = chunk->arrived_sec[at];
	}
	for (int state = 0; state < STATE_COUNT; state++)
		oldest_wall[state] =
		    index->counts.messages[state] ? ID_EPOCH_WALL_MS + (int64_t)oldest[state] * 1000 : 0;
}

size_t index_memory_bytes(const struct index *index)
{
	size_t bytes = sizeof(*index) + index->chunk_count * sizeof(struct chunk) +
		       index->chunk_cap * sizeof(index->chunks[0]) + index->bucket_cap * sizeof(index->buckets[0]) +
		       index->extra_bytes;

	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++)
		bytes += index->heaps[class].cap * sizeof(struct heap_entry);
	return bytes;
}
