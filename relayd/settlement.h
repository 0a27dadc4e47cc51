/*
 * relayd/settlement.h - what became of a job: each outcome back into the queue
 *
 * Used by the scheduler only, which makes jobs of what is due, and hands on what destinations tell of them. A recipient
 * is recorded as delivered at once (or, where its sender asked for the news and the next hop does not send it, when the
 * job ends); put off at the end of the job, until a time that queue/retry.c gives; and given up once the DSN for it is
 * in the journal (queue/queue.h says why). At the end of a job the sender is warned of what takes long.
 */
#ifndef RELAYD_SETTLEMENT_H
#define RELAYD_SETTLEMENT_H

#include "relayd/clock_jump.h"
#include "relayd/scheduler.h"

struct settlement;

/* Borrows both, which outlive it; the options may change meanwhile. */
struct settlement *settlement_new(const struct scheduler_options *options, struct clock_jump *jump);
/* Of DSNs that are on their way nothing is heard any more: free the bounce next. */
void settlement_free(struct settlement **settlement);
/* Copied. warn_after_ms 0: no delay warnings. */
void settlement_configure(struct settlement *settlement, const struct retry_policy *policy, int64_t warn_after_ms);

/* A job of these recipients, by their places in the message; copied. It holds the ticket until it has ended. */
struct job *settlement_new_job(struct settlement *settlement, struct ticket *ticket, const uint32_t *indexes,
			       uint32_t count);
/* Its recipients are in flight; once, however often it is said. */
void settlement_begin_job(struct settlement *settlement, struct job *job);
/* What became of recipient `i` of the job. Nothing comes of it where the recipient may go to another next hop of its
 * route at once: it is given back at the end of the job, and this was no attempt. */
void settlement_note_outcome(struct settlement *settlement, struct job *job, uint32_t i, const struct outcome *outcome);
/* Recipients without an outcome go back into the queue, due at `retry_wall`; the others get what they have earned. Takes
 * the job. */
void settlement_end_job(struct settlement *settlement, struct job *job, int64_t retry_wall);
/* Drops one reference; the last one frees it. */
void ticket_unref(struct ticket *ticket);

/* Jobs that have not ended, those whose DSNs are under way included, and how many those are. */
unsigned settlement_job_count(const struct settlement *settlement);
unsigned settlement_bounce_count(const struct settlement *settlement);
/* The DSN of this message is on its way already. */
bool settlement_gives_up(const struct settlement *settlement, uint64_t id);

#endif
