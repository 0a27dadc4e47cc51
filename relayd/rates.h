/*
 * relayd/rates.h - at most so many messages in so much time, for each relayhost and route that has a `rate`
 *
 * WINDOW   In no stretch of time of that length do more messages go out than the rate says: upstreams count like that.
 *          The window moves in sixtieths of its length, so a place becomes free at most a sixtieth late. Who was silent
 *          may send all of them at once.
 * KEPT     What was sent stands in SPOOL/rates.json: a restart begins no new window. A crash forgets at most a twentieth
 *          of what the rate allows, and no more than five seconds of it.
 * LINE     Who found nothing free waits in order, and is called when there is something.
 */
#ifndef RELAYD_RATES_H
#define RELAYD_RATES_H

#include "base/clock.h"
#include "base/list.h"
#include "config/config.h"
#include "relayd/loop.h"
#include "relayd/memo.h"

struct rates;
struct rate;

enum rate_scope { RATE_OF_RELAYHOST, RATE_OF_ROUTE };
/* "relayhost", "route" */
const char *rate_scope_name(enum rate_scope scope);

/* All borrowed. `memos` NULL: kept nowhere. */
struct rates *rates_new(struct loop *loop, const struct clock *clock, struct memos *memos);
/* After the memos; nobody waits any more. Accepts NULL, sets NULL. */
void rates_free(struct rates **rates);
/* The limits of the configuration; what has none any more is not limited. Who waits may be called, later. */
void rates_configure(struct rates *rates, const struct config *config);

/* Finds or makes it, without a limit then; lives as long as the rates. */
struct rate *rates_get(struct rates *rates, enum rate_scope scope, const char *name);

/* One who waits; embedded in the owner. */
struct rate_waiter {
	struct list node;
	void (*on_free)(void *ctx); /* ask rate_take() again; in the order of rate_wait() */
	void *ctx;
};

/* Takes one place: 0; or takes none and returns in how many milliseconds there is one, at least 1. It stays taken until
 * one of the next two. */
int64_t rate_take(struct rate *rate);
/* A message goes out for one that was taken: from now on it counts, for the length of the rate. */
void rate_use(struct rate *rate);
/* One was taken for nothing. */
void rate_give_back(struct rate *rate);
/* The last one that was used has not gone out after all: it is taken again. */
void rate_unuse(struct rate *rate);
/* To the end of the line, if it does not stand in one. */
void rate_wait(struct rate *rate, struct rate_waiter *waiter);
/* Out of the line; harmless when it is in none. */
void rate_stop_waiting(struct rate_waiter *waiter);
/* In how many milliseconds there is a place; 0: now. */
int64_t rate_wait_ms(const struct rate *rate);
/* count 0: no limit. */
const struct config_rate *rate_limit(const struct rate *rate);
/* Places that are used or taken. */
uint64_t rate_used(const struct rate *rate);
enum rate_scope rate_scope(const struct rate *rate);
const char *rate_name(const struct rate *rate);

#endif
