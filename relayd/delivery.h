/*
 * relayd/delivery.h - one connection to a next hop: finds its hosts, connects, runs the SMTP client, reports outcomes
 *
 * The driver of a destination (relayd/destination.h). It pulls jobs as long as there are any, then idles a little for
 * the next one, then quits.
 *
 *     RESOLVING ──▶ CONNECTING ──▶ SESSION ──READY──▶ TRANSACTION ⇄ IDLE ──▶ gone
 *                     ▲   │ refused, or the session could not be had      │
 *                     ├───┘ next address, next MX host; none left:        │ the host cannot take the message now
 *                     │     destination_on_failed()                       │ (delivery_move.c): it goes along
 *                     └───────────────────────────────────────────────────┘
 */
#ifndef RELAYD_DELIVERY_H
#define RELAYD_DELIVERY_H

#include "config/config.h"
#include "dns/mx.h"
#include "queue/queue.h"
#include "relayd/destination.h"
#include "relayd/metrics.h"
#include "relayd/stream.h"
#include "relayd/tls_lookup.h"

struct deliveries;

/* All borrowed. */
struct deliveries_options {
	struct loop *loop;
	struct net *net;
	struct queue *queue;
	struct metrics *metrics;
	struct resolver *resolver;
	struct mx *mx;
	struct log *log;       /* NULL: nothing to tell */
	struct oauth2 *oauth2; /* NULL: relayhosts with oauth2 get no token */
	struct tls_sources tls;
};

struct deliveries *deliveries_new(const struct deliveries_options *options);
/* Closes what is left at once: recipients under way wait again, untried. */
void deliveries_free(struct deliveries **deliveries);
/* For connections that begin from now on: those without a message end, the others take no further one. Takes a reference
 * to both. The policy is of that configuration. */
void deliveries_configure(struct deliveries *deliveries, struct config *config, struct tls_policy *policy);
struct destination_driver deliveries_driver(struct deliveries *deliveries);
/* Connections that exist. */
unsigned deliveries_count(const struct deliveries *deliveries);
/* Breaks all off: what was not answered waits again. */
void deliveries_abort(struct deliveries *deliveries);

#endif
