/*
 * relayd/notice.h - one DSN on its way into the queue: composed (smtp/dsn.h), signed (relayd/signer.h), committed
 *
 * Used by relayd/bounce.c, which decides whether one is due, for whom and to whom. A DSN is a message of its own with
 * the null reverse-path and NOTIFY=NEVER, class bulk: news of old mail never stands in the way of new mail. It is
 * signed when there is a DKIM key for the domain of its From, which is our host name; a signature that cannot be had is
 * told in the log and does without, for a DSN that may be distrusted is better than silence.
 */
#ifndef RELAYD_NOTICE_H
#define RELAYD_NOTICE_H

#include "base/log.h"
#include "base/random.h"
#include "config/config.h"
#include "queue/queue.h"
#include "relayd/signer.h"
#include "smtp/dsn.h"

struct notices;

struct notices_options {
	struct queue *queue;
	const struct clock *clock;
	struct rng *rng;
	struct log *log;
	struct signer *signer; /* NULL: nobody signs */
};

/* What is told; all borrowed during the call. */
struct notice {
	enum dsn_kind kind;
	const struct queue_message *message; /* what it is about */
	struct slice to;		     /* the sender, or bounce.to */
	const struct dsn_recipient *recipients;
	size_t recipient_count;
};

/* Copied; what it names outlives it. */
struct notices *notices_new(const struct notices_options *options);
/* Before queue and signer. What is committed stays; callbacks never come any more. */
void notices_free(struct notices **notices);
/* Takes a reference. */
void notices_configure(struct notices *notices, struct config *config);

/* 0: `done` comes once, later, with 0 when the DSN is on stable storage. ERR_SYNTAX: there will never be one, since
 * nobody can be written to at that address; other errors pass. Then `done` never comes. */
int notices_send(struct notices *notices, const struct notice *notice, void (*done)(void *ctx, enum err_code result),
		 void *ctx);

#endif
