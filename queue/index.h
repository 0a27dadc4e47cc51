/*
 * queue/index.h - what is known of each queued message in memory
 *
 * At most 120 bytes for a message with one recipient and small content: a slot of 80, 5 for age and state, 16 in the
 * heap of next attempts, 4 to 8 in the table that finds ids. More recipients cost 24 each, pieces 12 each. Slots lie in
 * chunks that never move; nothing here grows in one step: chunks are added one by one, the table of ids splits one
 * bucket at a time.
 *
 * Private to queue/. It also counts messages, recipients and bytes per state. A slot is changed between
 * index_change_begin() and index_change_end(), which keep those counts right.
 */
#ifndef QUEUE_INDEX_H
#define QUEUE_INDEX_H

#include "base/heap.h"
#include "base/vocabulary.h"
#include "queue/record.h"

#include <stdbool.h>

#define INDEX_NONE UINT32_MAX

/* A record in the journal, with the length of its payload. */
struct index_place {
	struct record_place at;
	uint32_t length;
};

enum index_rcpt_state { RCPT_WAITING = 0, RCPT_TAKEN = 1, RCPT_FINAL = 2 };

/* Packed, so that a slot has room for its number. */
struct index_rcpt {
	int64_t next_wall;
	struct record_place result; /* its last RESULT; segment 0: none, or folded into the MOVE */
	uint16_t attempts;
	uint8_t kind_reason; /* enum outcome_kind << 4 | enum failure_class, of the last result */
	uint8_t bits;	     /* enum index_rcpt_state; RCPT_HINT_USED */
} __attribute__((packed, aligned(4)));
#define RCPT_STATE_MASK 3
#define RCPT_HINT_USED 4

/* For messages with more than one recipient or with pieces; one block of memory. */
struct index_extra {
	int64_t next_wall; /* the earliest of those that wait */
	uint32_t piece_count;
	uint32_t taken, waiting; /* recipients */
	bool next_is_stale;
	struct index_place *pieces;
	struct index_rcpt rcpts[];
};

enum slot_flag {
	SLOT_EXTRA = 1,	 /* `u.extra` counts, not `u.one` */
	SLOT_SYNCED = 2, /* its MESSAGE is on stable storage */
	SLOT_HELD = 4,
	SLOT_WARNED = 8,
	SLOT_POPPED = 16,
	SLOT_TRIED = 32,    /* there was a result */
	SLOT_DELETING = 64, /* goes when the attempts in flight end */
	SLOT_CORRUPT = 128, /* its bytes are damaged: held for good */
};

struct slot {
	uint64_t id; /* 0: free, then hash_next links free slots */
	union {
		struct index_rcpt one;
		struct index_extra *extra;
	} __attribute__((packed, aligned(4))) u;
	uint32_t number;	     /* of this slot, for ever */
	struct record_place message; /* where its MESSAGE or MOVE is */
	uint32_t length;	     /* of that payload */
	uint32_t bytes;		     /* content */
	uint32_t heap_at;	     /* HEAP_NONE: not in the heap */
	uint32_t hash_next;
	uint32_t list_next, list_prev, list_number; /* INDEX_NONE: on no list */
	uint16_t rcpt_count, rcpt_open;
	uint16_t inflight;
	uint8_t class;
	uint8_t flags;
};

struct index;

struct index_counts {
	uint64_t messages[STATE_COUNT], recipients[STATE_COUNT], bytes[STATE_COUNT];
	uint64_t all_messages, all_bytes; /* with those that are not synced yet */
};

struct index *index_new(void);
void index_free(struct index **index);

/* A new slot, not synced, not in the heap; all recipients wait and are due at `next_wall`. The id must be new. */
struct slot *index_add(struct index *index, uint64_t id, uint32_t rcpt_count, uint32_t piece_count,
		       int64_t arrived_wall, int64_t next_wall);
/* Takes it out of heap and table and frees it. Lists are the caller's. Its extra goes to the caller (NULL: none), who
 * frees it: the pieces in it are still needed on disk until the DONE is synced. */
struct index_extra *index_remove(struct index *index, struct slot *slot);
struct slot *index_find(const struct index *index, uint64_t id);

struct slot *index_slot(const struct index *index, uint32_t number);
/* All numbers in use are below it; a number below it may be free (id 0). */
uint32_t index_limit(const struct index *index);

static inline struct index_rcpt *slot_rcpt(struct slot *slot, uint32_t i)
{
	return slot->flags & SLOT_EXTRA ? &slot->u.extra->rcpts[i] : &slot->u.one;
}

static inline uint32_t slot_piece_count(const struct slot *slot)
{
	return slot->flags & SLOT_EXTRA ? slot->u.extra->piece_count : 0;
}

static inline enum index_rcpt_state rcpt_state(const struct index_rcpt *rcpt)
{
	return rcpt->bits & RCPT_STATE_MASK;
}

void index_change_begin(struct index *index, struct slot *slot);
/* Brings state, counts and the place in the heap up to date: in the heap while a recipient waits, synced, and neither
 * popped, held nor being deleted. */
void index_change_end(struct index *index, struct slot *slot);
/* Inside a change: the size of the content. */
void index_set_bytes(struct index *index, struct slot *slot, uint32_t bytes);
/* Inside a change: a recipient's new state; `next_wall` counts while it waits. */
void slot_rcpt_set(struct slot *slot, uint32_t i, enum index_rcpt_state state, int64_t next_wall);
/* The earliest next attempt of a waiting recipient; INT64_MAX: none waits. */
int64_t slot_next_wall(struct slot *slot);
uint32_t slot_taken(const struct slot *slot);

enum message_state index_state(const struct index *index, const struct slot *slot);
int64_t index_arrived_wall(const struct index *index, const struct slot *slot);
/* The one to be popped next at `now_wall`; NULL: none is due. */
struct slot *index_first_due(const struct index *index, int64_t now_wall);
int64_t index_next_due_wall(const struct index *index);

const struct index_counts *index_counts(const struct index *index);
/* The oldest arrival per state, 0: none; looks at all. */
void index_oldest(const struct index *index, int64_t oldest_wall[STATE_COUNT]);
size_t index_memory_bytes(const struct index *index);

#endif
