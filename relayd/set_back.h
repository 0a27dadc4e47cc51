/*
 * relayd/set_back.h - mail does not wait for a day that has become far away
 *
 * Times of next attempts are the wall clock's. When a machine comes up with a date a year ahead and is then told the
 * right one, what was put off meanwhile would wait for a year; now it waits half an hour at most. Walks over the
 * queue's index in portions, so that the loop never stalls.
 */
#ifndef RELAYD_SET_BACK_H
#define RELAYD_SET_BACK_H

#include "queue/queue.h"
#include "relayd/loop.h"

/* Embedded in the owner; begins as zeros. */
struct set_back {
	int64_t seen_wall; /* at the last turn */
	uint64_t cursor;
	bool is_walking;
	struct queue *queue; /* during the turn */
};

/* In each turn of the loop. */
void set_back_turn(struct set_back *set_back, struct queue *queue, struct loop *loop, int64_t now_wall);

#endif
