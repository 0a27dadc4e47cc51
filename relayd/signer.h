/*
 * relayd/signer.h - DKIM signatures for messages: which keys, what is signed, and the helper that does it
 *
 * The keys themselves are in the helper processes (relayd/helper.h); here is only which domain has which selectors.
 */
#ifndef RELAYD_SIGNER_H
#define RELAYD_SIGNER_H

#include "base/buf.h"
#include "config/config.h"
#include "dkim/signature.h"
#include "relayd/helper.h"
#include "relayd/metrics.h"

struct signer;
struct signing;

struct signer *signer_new(struct loop *loop, struct helpers *helpers, struct metrics *metrics,
			  const struct clock *clock);
void signer_free(struct signer **signer);
/* Takes a reference. The helpers must have loaded the keys of this configuration. ERR_CONFIG, with words. */
int signer_configure(struct signer *signer, struct config *config, struct err *err);

/* What is signed; all borrowed during the call. */
struct signer_message {
	const struct dkim_field *fields; /* as they will be sent, from the top down */
	size_t field_count;
	const unsigned char *body_hash; /* DKIM_DIGEST_BYTES */
	struct slice from_domain;
	int64_t expires_wall;	  /* of the message in the queue */
	const struct slice *omit; /* names of fields that a relayhost on its route may rewrite */
	size_t omit_count;
};

/* result 0: `fields` are the finished DKIM-Signature fields, "" when nobody signs for this domain. ERR_TEMPORARY: no
 * answer within ten seconds; else what the helper said. */
typedef void signer_cb(void *ctx, enum err_code result, struct slice fields);

/* Begins; calls back once, later, never from inside. NULL with a negative *result when the message cannot be signed at
 * all (no From); NULL with *result 0 when nobody signs for this domain: go on at once. */
struct signing *signer_sign(struct signer *signer, const struct signer_message *message, signer_cb *cb, void *ctx,
			    int *result);
/* After it the callback never comes. Accepts NULL, sets NULL. */
void signer_cancel(struct signing **signing);

#endif
