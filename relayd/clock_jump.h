/*
 * relayd/clock_jump.h - a wall clock that is set neither ends the life of mail nor makes it wait for years
 *
 * The times of next attempts and the ends of lifetimes are the wall clock's; that it was set shows when it is compared
 * with the monotonic one.
 *
 * FORWARD  A date that is put right after the boot, a machine that was asleep; the daemon's own absence counts as a jump
 *          too. What came to its end in the jump lives for half an hour more, in which it is tried again, before its
 *          sender is told that it has expired. Not so what was given an hour or less to live: that is never sent late.
 * BACK     What was put off until a day that is far away now waits for half an hour at most. Walks over the queue's index
 *          in portions, so that the loop never stalls.
 */
#ifndef RELAYD_CLOCK_JUMP_H
#define RELAYD_CLOCK_JUMP_H

#include "base/clock.h"
#include "base/log.h"
#include "queue/queue.h"
#include "relayd/loop.h"

/* Embedded in the owner; all of it is private. */
struct clock_jump {
	const struct clock *clock;
	struct log *log;
	int64_t seen_wall, seen_ms; /* at the last look */
	/* What ended behind `from` and up to `to` lives until then. All 0: nothing. */
	int64_t from_wall, to_wall, until_wall;
	uint64_t cursor;
	bool is_walking;
	struct queue *queue; /* during the turn */
};

/* Both borrowed. The clock is looked at: this is when the daemon's absence ends. */
void clock_jump_init(struct clock_jump *jump, const struct clock *clock, struct log *log);
/* Has it been set? Tells so in the log. In each turn of the loop, and before a question about expiry. */
void clock_jump_look(struct clock_jump *jump);
/* When the message expires. */
int64_t clock_jump_expires_wall(const struct clock_jump *jump, const struct queue_envelope *envelope);
/* In each turn of the loop: brings the next attempts nearer. */
void clock_jump_turn(struct clock_jump *jump, struct queue *queue, struct loop *loop);

#endif
