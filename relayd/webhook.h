/*
 * relayd/webhook.h - tells the operator's HTTPS server what happens: events, kept until it has taken them
 *
 * Events (relayd/event.h) go into a FIFO of their own, SPOOL/webhook (queue/fifo.h), and from there in order, at most
 * WEBHOOK_BATCH_MAX in a POST and one POST at a time:
 *
 *     Content-Type: application/json
 *     X-Relayd-Signature: t=SECONDS,v1=HEX      HMAC-SHA256 with the secret over "SECONDS" "." BODY
 *
 *     {"relay":"relay.example.com","events":[{...},...]}
 *
 * - Taken: any 2xx. At least once: an event may come again after a crash or a lost answer, with the same event_id.
 * - Again: anything else is tried again after 1, 2, 4 ... s, at most 15 minutes, or when Retry-After says. An event
 *   that is a day old and has been tried in vain for ten minutes is given up.
 * - Refused: a server may choke on one event. After a 4xx that is about the content events go one by one, and one that
 *   is refused alone five times in ten minutes is given up, so that it does not block the others.
 * - Full: WEBHOOK_BYTES_MAX wait at most; then events are dropped, except that the last eighth of the room takes only
 *   failures and alerts.
 *
 * All that is given up or dropped is counted (relayd_webhook_events_total), and the alert "webhook" is raised. Mail
 * never waits for a webhook; only a failure that nobody else is told of (bounce.mode: webhook) stays in the queue until
 * its event is stored.
 */
#ifndef RELAYD_WEBHOOK_H
#define RELAYD_WEBHOOK_H

#include "base/log.h"
#include "base/random.h"
#include "config/config.h"
#include "queue/disk.h"
#include "relayd/event.h"
#include "relayd/https.h"
#include "relayd/loop.h"
#include "relayd/metrics.h"

enum {
	WEBHOOK_BATCH_MAX = 100,
	WEBHOOK_BYTES_MAX = 64 * 1024 * 1024,
	WEBHOOK_SIGNATURE_MAX = 128,
};

struct webhook;

/* Who carries a POST: https_send() and https_cancel(), or a test. */
struct webhook_poster {
	void *ctx;
	uint64_t (*send)(void *ctx, const struct https_request *request, https_cb *cb, void *cb_ctx);
	void (*cancel)(void *ctx, uint64_t *id);
};
struct webhook_poster webhook_poster_https(struct https *https);

struct webhook_options {
	struct loop *loop;
	const struct clock *clock;
	struct rng *rng;
	struct log *log;
	struct metrics *metrics;
	struct webhook_poster poster;
	uint64_t max_bytes;		/* of what waits; 0: WEBHOOK_BYTES_MAX */
	int spool_fd;			/* borrowed */
	const struct disk_async *async; /* the sync helper; NULL: syncs are done at once, and block */
	void *ctx;
	/* The webhook is in trouble (`text` says how), or (NULL) is not any more. */
	void (*on_trouble)(void *ctx, const char *text);
	void (*on_corruption)(void *ctx, const char *text);
};

/* Options are copied; all that they name outlives it. */
struct webhook *webhook_new(const struct webhook_options *options);
/* Callbacks never come any more; what is not synced may be lost. Accepts NULL, sets NULL. */
void webhook_free(struct webhook **webhook);

/* A configuration in two steps, so that one that cannot be used leaves all as it is. stage() reads the secret and opens
 * the FIFO: ERR_CONFIG and others, with words. commit() cannot fail; it takes a reference. */
int webhook_stage(struct webhook *webhook, const struct config *config, struct err *err);
void webhook_commit(struct webhook *webhook, struct config *config);

/* Is it on the list of what is to be told? */
bool webhook_wants(const struct webhook *webhook, enum config_event event);

/* What became of a recipient, if somebody is to be told (webhook_wants(); an expiry counts as a failure too) or
 * `must_be_told`. Result and callback as those of webhook_tell(), but 0 and no callback when nobody is to be told:
 * *is_told says which. `is_told` may be NULL. */
int webhook_tell_outcome(struct webhook *webhook, const struct event_outcome *event, bool must_be_told, bool *is_told,
			 void (*cb)(void *ctx, enum err_code result), void *ctx);
/* An alert began or is over; `relay` is filled in here. */
void webhook_tell_alert(struct webhook *webhook, struct event_alert *alert);

/* `event`: a JSON object of relayd/event.h, copied. 0, and `cb` (may be NULL) comes once, later: 0 when the event is on
 * stable storage, ERR_IO when it is lost. ERR_LIMIT: no room; ERR_CLOSED: no webhook is configured; then it never
 * comes. What is lost or has no room is counted here. */
int webhook_tell(struct webhook *webhook, struct slice event, bool is_important,
		 void (*cb)(void *ctx, enum err_code result), void *ctx);
/* Callbacks with this context never come. */
void webhook_forget(struct webhook *webhook, const void *ctx);

/* At the end of each turn, before the journal's: an event is then written before the outcome that it tells of. */
void webhook_turn(struct webhook *webhook);
/* False: it is somebody else's. */
bool webhook_on_disk_done(struct webhook *webhook, const struct disk_done *done);
/* Nothing waits for the disk. */
bool webhook_is_synced(const struct webhook *webhook);

const char *webhook_relay_name(const struct webhook *webhook);

/* "t=SECONDS,v1=HEX". */
void webhook_sign(const char *secret, int64_t seconds, struct slice body, char out[WEBHOOK_SIGNATURE_MAX]);

#endif
