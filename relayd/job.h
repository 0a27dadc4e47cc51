/*
 * relayd/job.h - a message on its way out: what is read from the queue once and shared by the attempts of one round
 *
 * A ticket is one message, opened; a job is those of its recipients that go to one destination in one attempt. The
 * scheduler makes them, a destination lines jobs up, a delivery carries them out and reports each recipient's outcome
 * to the scheduler; relayd/settlement.c frees them.
 */
#ifndef RELAYD_JOB_H
#define RELAYD_JOB_H

#include "base/list.h"
#include "base/outcome.h"
#include "queue/queue.h"
#include "queue/retry.h"

struct destination;

/* The outcome of a recipient whose sender is to be told: one that is given up waits until its DSN is safe in the queue.
 */
struct job_failure {
	uint32_t index;
	struct outcome outcome;
	int64_t attempted_wall; /* 0: no attempt led to it, or it is not known when */
	char relayhost[48];	/* that was tried; "": none */
};

struct ticket {
	struct queue_message message;
	uint32_t jobs; /* references */
};

struct job {
	struct list node; /* in the destination's line */
	struct ticket *ticket;
	struct destination *destination;
	uint32_t *indexes; /* recipients of the message, `count` of them */
	uint32_t count;
	uint32_t reported;	       /* recipients with an outcome in this attempt */
	bool *has_outcome;	       /* per entry of `indexes` */
	struct job_failure *failures;  /* `failure_count` of them */
	struct job_failure *deferrals; /* put off, when the job is done; `deferral_count` of them */
	struct job_failure *delays;    /* deferred long enough to tell the sender, `delay_count` of them */
	struct job_failure *successes; /* delivered, and the sender wants to be told; `success_count` of them */
	uint32_t failure_count, deferral_count, delay_count, success_count;
	bool next_hop_reports; /* it offers DSN: whoever asked for news of success hears of it from there */
	int64_t started_ms;    /* the attempt began */
	bool has_begun;	       /* its recipients count as in flight */
	bool has_waited;       /* for a rate; is counted */

	/* The wait that was last given to one of its recipients, and what for. */
	struct retry_input last_input;
	int64_t last_delay_ms;
	bool last_hint_taken;
};

static inline const struct queue_recipient *job_recipient(const struct job *job, uint32_t i)
{
	return &job->ticket->message.envelope.recipients[job->indexes[i]];
}

#endif
