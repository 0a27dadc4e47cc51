/*
 * relayd/scheduler.h - from "due in the queue" to "a job in a destination's line", and from an outcome back to the
 * queue
 *
 * It opens due messages (bounded work a turn), asks the router where each recipient goes, makes jobs, and hands every
 * outcome to relayd/settlement.c, which makes a recorded result of it: delivered, deferred until a time that
 * queue/retry.c gives, failed or expired. A recipient that is given up is recorded only once the DSN for it is in the
 * journal (queue/queue.h says why).
 *
 * FAILOVER   A recipient whose next hop could not be reached, or has trouble with our account, goes to the next one of
 * its route at once, without an attempt being counted. While one is tried again after trouble, only what is on its way
 * there already waits for it.
 */
#ifndef RELAYD_SCHEDULER_H
#define RELAYD_SCHEDULER_H

#include "base/clock.h"
#include "base/random.h"
#include "queue/queue.h"
#include "queue/retry.h"
#include "relayd/destination.h"
#include "relayd/greylist.h"
#include "relayd/job.h"
#include "relayd/loop.h"

struct scheduler;

/* Where a recipient may go, in order of preference; or the outcome when it goes nowhere: failed, deferred, or delivered
 * by being discarded. */
enum { SCHEDULER_TARGETS_MAX = 16 };
struct scheduler_targets {
	size_t count; /* 0: `failure` is the outcome */
	struct destination_id targets[SCHEDULER_TARGETS_MAX];
	struct outcome failure;
};

/* What the scheduler needs from the rest; all borrowed. */
struct scheduler_options {
	struct loop *loop;
	struct queue *queue;
	struct destinations *destinations;
	struct greylist *greylist; /* NULL: nothing is learnt */
	const struct clock *clock;
	struct log *log; /* hears when the clock was set */
	struct rng *rng;
	void *ctx;
	void (*route)(void *ctx, const struct queue_envelope *envelope, uint32_t recipient,
		      struct scheduler_targets *out);
	/* For log, metrics and events: once per outcome. `destination` NULL: none was reached. next_wall: deferred
	 * only. */
	void (*report)(void *ctx, const struct queue_message *message, uint32_t recipient,
		       const struct destination *destination, const struct outcome *outcome, uint32_t attempts,
		       int64_t next_wall);
	/* Sends the DSN for recipients that are given up, the delay warning (kind OUTCOME_DEFERRED), or the news of
	 * success (OUTCOME_DELIVERED) that the next hop will not send. `done` comes once when it is in the journal (0
	 * also when none is wanted), perhaps at once. Borrowed as relayd/bounce.h says. */
	void (*bounce)(void *ctx, const struct queue_message *message, const struct job_failure *failures,
		       uint32_t count, void (*done)(void *done_ctx, enum err_code result), void *done_ctx);
};

struct scheduler *scheduler_new(const struct scheduler_options *options);
/* Destinations go first: they hand their jobs back. DSNs that are on their way are not heard of any more: free the
 * bounce next. */
void scheduler_free(struct scheduler **scheduler);
/* Copied. warn_after_ms 0: no delay warnings. */
void scheduler_configure(struct scheduler *scheduler, const struct retry_policy *policy, int64_t warn_after_ms);
/* At the end of each turn, after queue_turn(). */
void scheduler_turn(struct scheduler *scheduler);
/* Begins nothing new. */
void scheduler_stop(struct scheduler *scheduler);
/* Jobs that have not come back, DSNs under way included. */
unsigned scheduler_job_count(const struct scheduler *scheduler);

/*
 * An operator's word: its open recipients fail now, and the sender is told. The message is held first, so that whatever
 * happens until the DSN is in the journal, it is not sent meanwhile; where no DSN can be queued it stays held. 0: it is
 * on its way; ERR_LOCKED: an attempt is under way; ERR_NOT_FOUND, ERR_CORRUPT, ERR_TEMPORARY (not synced yet), ERR_IO.
 */
int scheduler_bounce(struct scheduler *scheduler, uint64_t id);
/* Messages given up whose DSNs are on their way into the queue: they take memory. */
unsigned scheduler_bounce_count(const struct scheduler *scheduler);

/* For destinations: struct destination_events with the scheduler behind it; on_health is left to the caller. */
void scheduler_destination_events(struct scheduler *scheduler, struct destination_events *events);
/* For struct greylist_options; `ctx` is the scheduler: a recipient that waits is due now. */
void scheduler_release(void *ctx, uint64_t id, uint32_t recipient);
void scheduler_set_greylist(struct scheduler *scheduler, struct greylist *greylist);
/* destinations_new() needs the events, the scheduler needs the destinations. */
void scheduler_set_destinations(struct scheduler *scheduler, struct destinations *destinations);

#endif
