/*
 * relayd/intake.h - one message on its way in: header, body hash, journal, signature, and the moment of the 250
 *
 * Fed by a submission session. Content flows through: only the header is held in memory. The message counts from the
 * moment that `done` says 0, which is after the journal has been synced; everything before can be dropped.
 */
#ifndef RELAYD_INTAKE_H
#define RELAYD_INTAKE_H

#include "config/users.h"
#include "queue/queue.h"
#include "relayd/dedupe.h"
#include "relayd/health.h"
#include "relayd/signer.h"
#include "smtp/server.h"

/* What intakes share; borrowed. `config` is exchanged at a reload. */
struct intake_context {
	struct queue *queue;
	struct signer *signer;
	struct dedupe *dedupe; /* freed when the queue calls back no more */
	struct health *health;
	struct log *log;
	const struct clock *clock;
	struct rng *rng;
	struct config *config;
};

/* Who submits, and how: for Received, the envelope and the policy. Borrowed while the intake is made. */
struct intake_client {
	struct slice user, listener, client; /* client: for people */
	struct slice address, helo;	     /* for Received, if hide_client is false */
	bool esmtp, tls, authenticated;
	const char *with;		    /* NULL, or another protocol word for Received */
	const struct user_options *options; /* NULL: none; borrowed as long as the intake */
};

struct intake;

enum intake_result {
	INTAKE_ACCEPTED, /* as `id` */
	INTAKE_REPEATED, /* it was accepted before, as `id`; nothing of this one is kept */
	INTAKE_REFUSED,	 /* `refusal` says why */
};
typedef void intake_done_cb(void *ctx, enum intake_result result, uint64_t id, const struct smtp_server_reply *refusal);

/* From MAIL; copies what it needs. NULL: the policy refuses the sender for this user (`options` may be NULL), *refusal
 * says why. */
struct intake *intake_new(struct intake_context *context, const struct smtp_server_mail *mail,
			  const struct user_options *options, const struct smtp_server_reply **refusal);
/* Drops everything; a message that is being committed goes on, without telling. Accepts NULL, sets NULL. */
void intake_free(struct intake **intake);
/* NULL, or the reply that refuses it. *suppressed is raised by how many addresses were on the suppression list. */
const struct smtp_server_reply *intake_add_recipient(struct intake *intake, const struct smtp_server_rcpt *rcpt,
						     unsigned *suppressed);

/* Content begins. NULL, or why it cannot be taken now. */
const struct smtp_server_reply *intake_begin(struct intake *intake, const struct intake_client *client);
/* NULL, or why the message is refused; nothing more may be fed then. */
const struct smtp_server_reply *intake_content(struct intake *intake, struct slice content);
/* All is there. `done` comes once, later or from inside. */
void intake_complete(struct intake *intake, const struct smtp_server_complete *complete, intake_done_cb *done,
		     void *ctx);

/* The header has not ended yet: what comes is kept in memory. */
bool intake_is_in_header(const struct intake *intake);
/* The envelope's sender, as the policy made it; the intake's. */
struct slice intake_sender(const struct intake *intake);
/* "signed", or "none" when there are keys and none of them is for this From; "" when there are no keys at all. */
const char *intake_dkim_word(const struct intake *intake);
/* About what it occupies. */
size_t intake_memory_bytes(const struct intake *intake);

/* The replies for a journal that takes no mail; NULL for 0. */
const struct smtp_server_reply *intake_reply_of(int queue_error);

#endif
