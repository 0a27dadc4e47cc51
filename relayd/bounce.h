/*
 * relayd/bounce.h - tells senders: puts DSNs (RFC 3461 to 3464) into the queue
 *
 * Decides whether one is due (NOTIFY, null reverse-path, bounce.mode), composes it with smtp/dsn.h and commits it as a
 * message of its own. Whoever asks records the original's outcome only after `done` said 0: so a crash in between tells
 * the sender twice at worst, and never not at all.
 */
#ifndef RELAYD_BOUNCE_H
#define RELAYD_BOUNCE_H

#include "base/log.h"
#include "base/random.h"
#include "config/config.h"
#include "queue/queue.h"
#include "relayd/job.h"

struct bounce;

struct bounce *bounce_new(struct queue *queue, const struct clock *clock, struct rng *rng, struct log *log);
/* Before the queue. What is on its way into the queue stays; nobody is told any more. */
void bounce_free(struct bounce **bounce);
/* Takes a reference. */
void bounce_configure(struct bounce *bounce, struct config *config);

/* See scheduler_options.bounce: outcomes of kind DEFERRED ask for a delay warning, others for a failure report. `done`
 * comes once, perhaps from inside the call, with 0 or why the DSN could not be queued now. */
void bounce_send(struct bounce *bounce, const struct queue_message *message, const struct job_failure *failures,
		 uint32_t count, void (*done)(void *done_ctx, enum err_code result), void *done_ctx);

#endif
