/*
 * relayd/router.h - the one place that decides where a recipient goes
 *
 * A user's own relayhost counts first. The first route whose conditions all hold counts; without one, everything goes
 * through the relayhosts with `default: true`, by priority and, among equals, at random by weight; without relayhosts
 * by MX. Pure.
 */
#ifndef RELAYD_ROUTER_H
#define RELAYD_ROUTER_H

#include "base/random.h"
#include "config/config.h"
#include "queue/queue.h"
#include "relayd/scheduler.h"

/* What routing looks at. */
struct router_question {
	struct slice sender; /* reverse-path; when it is empty, `from_domain` stands for it as "@domain" */
	struct slice from_domain;
	struct slice user;
	struct slice recipient;
	struct slice relayhost; /* of the user (relayhost=): goes before all routes; empty: none */
	bool tls_optional;	/* "TLS-Required: No" */
};

/* About one recipient of a message. Slices borrow from the envelope. */
struct router_question router_question_of(const struct queue_envelope *envelope, uint32_t recipient);

/* Fills `out`; *route (may be NULL) is the entry that decided, NULL: the default. */
void router_decide(const struct config *config, struct rng *rng, const struct router_question *question,
		   struct scheduler_targets *out, const struct config_route **route);

/* What TLS that destination needs, when the route says nothing. */
enum config_tls_level router_default_tls(enum destination_kind kind);

/* The domain behind the last @, lower case and as A-labels, or an address literal with its brackets, into `out`.
 * ERR_SYNTAX: there is none. */
int router_domain_of(struct slice address, char *out, size_t size);

#endif
