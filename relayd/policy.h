/*
 * relayd/policy.h - the one door for what an operator changes or forbids in mail, before it is signed and journaled
 *
 * Pure: addresses and header in, by the rules of one configuration; rewritten or refused out. Called by intake alone,
 * once per MAIL, RCPT and message, so that what is signed and journaled is what will be sent, whoever carries it.
 *
 * THE ORDER, for a sender     complete a bare name with origin, ask the user's from=, rewrite.from_file
 *           for a recipient   complete, aliases (names of origin only), rewrite.recipient_file, suppress,
 *                             allowed_recipients; then for the message as a whole bcc, or redirect instead of all
 *           for the header    remove, ask the user's from=, complete, rewrite From and Sender, set, Subject; see
 *                             relayd/policy_header.h
 *
 * The empty sender is never changed: a bounce that had a sender could bounce. Replies are static.
 */
#ifndef RELAYD_POLICY_H
#define RELAYD_POLICY_H

#include "config/config.h"
#include "config/users.h"
#include "smtp/server_reply.h"
#include "smtp/submit_header.h"
#include "smtp/syntax.h"

enum {
	POLICY_ALIAS_MAX = 1000, /* recipients that one alias may stand for */
	POLICY_TEXTS_MAX_BYTES = POLICY_ALIAS_MAX * (SMTP_ADDRESS_MAX_BYTES + 1),
};

/* An address in memory of its own, NUL-terminated. */
struct policy_address {
	char text[SMTP_ADDRESS_MAX_BYTES + 1];
	size_t len;
};

static inline struct slice policy_address_slice(const struct policy_address *address)
{
	return slice_of(address->text, address->len);
}

/* What completes bare names: `origin`, or the host name. */
struct slice policy_origin(const struct config *config);

/* The reverse-path `submitted` into *out, as it will be sent. NULL, or the reply that refuses it. */
const struct smtp_server_reply *policy_sender(const struct config *config, const struct user_options *options,
					      struct slice submitted, struct policy_address *out);
/* May this user write in the name of `address` (with a domain)? */
bool policy_user_may_use(const struct user_options *options, struct slice address);
/* May they write in the names of From, and of Sender, Resent-From and Resent-Sender? NULL, or the reply that refuses it. */
const struct smtp_server_reply *policy_names(const struct config *config, const struct user_options *options,
					     const struct submit_header *header);
/* An author's address of the header, by rewrite.from_file. False: it stays. */
bool policy_rewrite_author(const struct config *config, struct slice address, struct policy_address *out);

/* What a recipient stands for. */
struct policy_recipients {
	struct buf texts;    /* addresses, each with a NUL behind it */
	size_t count;	     /* at least one, when it is not refused */
	unsigned suppressed; /* that were on the suppression list, and are not among them */
	unsigned looked_at;  /* what it cost, also when it is refused */
};
void policy_recipients_init(struct policy_recipients *recipients);
void policy_recipients_fini(struct policy_recipients *recipients);
/* NULL, or the reply that refuses `submitted`. */
const struct smtp_server_reply *policy_recipient(const struct config *config, struct slice submitted,
						 struct policy_recipients *out);

/* Where a DSN for this sender goes: to it, to `redirect`, or nowhere (empty) when it may not be written to. */
struct slice policy_bounce_recipient(const struct config *config, struct slice sender);

#endif
