/*
 * relayd/bounce.h - tells senders what became of their mail: DSNs (RFC 3461 to 3464) into the queue, and the webhook
 *
 * Decides whether a DSN is due (NOTIFY, null reverse-path, bounce.mode) and to whom (bounce.to), and has
 * relayd/notice.h make it. Failures are also told to the webhook, if it wants them or bounce.mode says so. Whoever asks
 * records the original's outcome only after `done` said 0: so a crash in between tells the sender twice at worst, and
 * never not at all.
 *
 * - Nobody: null reverse-path, NOTIFY that does not ask for it, bounce.mode without mail. A log line, and done.
 * - Webhook: its events are stored before `done`. Where the webhook is all there is (bounce.mode: webhook or both), an
 *   event that cannot be stored now makes the recipient wait; otherwise it is dropped and counted.
 * - Storms: one message that fails for a thousand recipients one by one is told of at once for the first of them, and
 *   then at most once a minute for all that came meanwhile, or when its last recipient has ended. What waits for that
 *   is not recorded yet.
 */
#ifndef RELAYD_BOUNCE_H
#define RELAYD_BOUNCE_H

#include "relayd/job.h"
#include "relayd/notice.h"
#include "relayd/webhook.h"

struct bounce;

struct bounce_options {
	struct loop *loop;
	struct queue *queue;
	const struct clock *clock;
	struct rng *rng;
	struct log *log;
	struct signer *signer;	 /* NULL: nobody signs */
	struct webhook *webhook; /* NULL: there is none */
};

/* Copied; what it names outlives it. */
struct bounce *bounce_new(const struct bounce_options *options);
/* Before the queue, the signer and the webhook. What is on its way into the queue stays; nobody is told any more. */
void bounce_free(struct bounce **bounce);
/* Takes a reference. */
void bounce_configure(struct bounce *bounce, struct config *config);

/*
 * See scheduler_options.bounce. All outcomes are of one kind: DEFERRED asks for a delay warning, DELIVERED for the
 * report that mail was relayed to a host which will not report itself, FAILED and EXPIRED for a failure report. `done`
 * comes once, perhaps from inside the call, with 0 or why the DSN could not be queued now. Message and outcomes are
 * borrowed: those of failures until `done`, others during the call.
 */
void bounce_send(struct bounce *bounce, const struct queue_message *message, const struct job_failure *failures,
		 uint32_t count, void (*done)(void *done_ctx, enum err_code result), void *done_ctx);
/* The daemon stops: what is gathered is sent now, and nothing is gathered any more. */
void bounce_hurry(struct bounce *bounce);

#endif
