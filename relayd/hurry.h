/*
 * relayd/hurry.h - mail that waits for a relayhost's account does not wait longer than that
 *
 * When the account of a relayhost is well again, messages that were put off because of it, or never tried, become due
 * at once instead of at their next times. After a reload also those that found no session, for that may be what was
 * mended; only where nothing goes by MX, whose hosts the reload has not made any better. Walks over the queue's index in portions, so that the loop never stalls.
 */
#ifndef RELAYD_HURRY_H
#define RELAYD_HURRY_H

#include "queue/queue.h"
#include "relayd/loop.h"

struct hurry;

struct hurry *hurry_new(struct loop *loop, struct queue *queue);
/* Accepts NULL, sets NULL. */
void hurry_free(struct hurry **hurry);
/* Begins to walk, or once more from the start. */
void hurry_begin(struct hurry *hurry);
/* The same, and those that were put off for connect, dns or tls. */
void hurry_begin_with_sessions(struct hurry *hurry);

#endif
