/*
 * relayd/control.h - the operator's side: JSON over HTTP on SPOOL/control.sock, for relayctl and `curl --unix-socket`
 *
 *   GET  /v1/status                      all of it on one screen
 *   GET  /v1/health[?mail=1]             {ok, reason}; 200 or 503
 *   GET  /v1/queue?state=&domain=&...&sort=&limit=&after=&lines=
 *                                        {messages: [...], more, next}; the conditions of relayd/control_filter.h; sort
 *                                        age, next, attempts or size; after: "next" of the page before; lines=1: each
 *                                        message on a line, at last {more, next}
 *   GET  /v1/message?id=ID               one message with each recipient's last outcome and next attempt; also for a
 *                                        while after it has left the queue (state "done")
 *   GET  /v1/events?event=&level=&id=&user=&sender=&recipient=&domain=&relayhost=&outcome=
 *                                        what happens, as it happens: the log's facts as JSON lines (control_events.c)
 *   POST /v1/flush, /v1/hold, /v1/release, /v1/delete, /v1/bounce {id}
 *                                        {count: 1, synced}; answers when it is on stable storage, or after a second
 *   POST the same {state, domain, ...}   all messages that meet the conditions (relayd/control_filter.h); {all: true}
 *                                        every one; flush also with {}: {count, busy, failed, synced}. dry_run: true
 *                                        counts only; progress: true puts lines {looked, total, count} before it
 *   POST /v1/relayhosts/NAME/pause, /resume
 *                                        {name, paused, changed}: a paused one gets no new message until it is resumed,
 *                                        restarts included; 404: no such relayhost
 *   GET  /v1/route?to=&from=&user=       where mail would go, and why: {to, sender, refused, recipients: [{address,
 *                                        why, failure, next_hops}]}, from real lookups
 *   POST /v1/drain {} | {timeout}        stop accepting, deliver, stop: lines {left, held}, at last {drained, left,
 *                                        held}; the daemon stops then
 *   POST /v1/reload                      {ok, needs_restart}, or 400 with what is wrong with the configuration
 *
 * Refusals are {error: words}: 400 for a request that makes no sense, 404 when nothing is known by that id or path,
 * 405, 409 when the message's state forbids it. Numbers are integers; times are seconds from now (_sec) or "age". Texts
 * of peers are made printable UTF-8.
 *
 * Long work (the listing, what is done to many) is done in steps of about two milliseconds, as the client reads; a
 * client that leaves ends it.
 */
#ifndef RELAYD_CONTROL_H
#define RELAYD_CONTROL_H

#include "base/clock.h"
#include "base/log.h"
#include "config/config.h"
#include "dns/mx.h"
#include "queue/queue.h"
#include "relayd/destination.h"
#include "relayd/drain.h"
#include "relayd/health.h"
#include "relayd/http.h"
#include "relayd/loop.h"
#include "relayd/metrics.h"
#include "relayd/recent.h"
#include "relayd/scheduler.h"
#include "relayd/tls_lookup.h"
#include "relayd/webhook.h"

struct control;

/* All borrowed; they outlive the control. */
struct control_options {
	struct loop *loop;
	const struct clock *clock;
	struct log *log;
	struct metrics *metrics;
	struct queue *queue;
	struct destinations *destinations;
	struct pauses *pauses;
	struct oauth2 *oauth2; /* NULL: no relayhost has one */
	struct rates *rates;   /* NULL: nothing is limited */
	struct drain *drain;
	struct mx *mx;
	struct tls_sources tls;
	struct scheduler *scheduler;
	struct greylist *greylist; /* NULL: nothing is learnt */
	struct health *health;
	struct recent *recent;
	struct webhook *webhook; /* hears of what is deleted; NULL: there is none */
	void *ctx;		 /* of those below */
	/* What is in force; looked at during a request only. */
	const struct config *(*config)(void *ctx);
	const struct tls_policy *(*tls_policy)(void *ctx);
	/* 0, or what is wrong, in words. */
	int (*reload)(void *ctx, struct err *err);
	/* Keys that a reload could not change; "": none. NULL: nobody knows. */
	const char *(*needs_restart)(void *ctx);
	/* Why the last reload was refused; "": it was not. NULL: nobody knows. */
	const char *(*refused_config)(void *ctx);
	int64_t started_wall;
};

/* Options are copied. */
struct control *control_new(const struct control_options *options);
/* The HTTP server goes first: it ends the streams. */
void control_free(struct control **control);

/* `ctx` is the struct control. */
http_handler control_handle;

#endif
