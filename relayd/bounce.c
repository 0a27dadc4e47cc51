#include "relayd/bounce.h"

#include "base/base.h"
#include "base/list.h"
#include "relayd/policy.h"

#include <stdlib.h>
#include <uthash.h>

enum { GATHER_MS = 60 * 1000 };

struct bounce {
	struct bounce_options options;
	struct notices *notices;
	struct config *config;
	struct gathering *gatherings; /* by message id */
	struct list parts;
	bool is_hurried;
};

/* Mail and events for one request: `done` comes when all of them are safe. */
struct parts {
	struct list node;
	struct bounce *bounce;
	uint64_t id;
	uint32_t recipients, pending;
	enum err_code result;
	void (*done)(void *ctx, enum err_code result);
	void *ctx;
};

/* A message whose sender has just been told of some recipients, while others are still under way. */
struct gathering {
	UT_hash_handle hh;
	struct bounce *bounce;
	uint64_t id;
	timer_id timer;
	struct list tellings; /* for the next DSN */
	uint32_t recipient_count;
};

/* What was asked for once. */
struct telling {
	struct list node;
	const struct queue_message *message;
	const struct job_failure *failures;
	uint32_t count;
	void (*done)(void *ctx, enum err_code result);
	void *ctx;
};

struct bounce *bounce_new(const struct bounce_options *options)
{
	struct bounce *bounce = xcalloc(1, sizeof(*bounce));
	struct notices_options noticing = {options->queue, options->clock, options->rng, options->log, options->signer};

	bounce->options = *options;
	list_init(&bounce->parts);
	bounce->notices = notices_new(&noticing);
	return bounce;
}

static void gathering_free(struct gathering *gathering)
{
	struct bounce *bounce = gathering->bounce;

	for (struct list *node; (node = list_pop(&gathering->tellings));)
		free(CONTAINER_OF(node, struct telling, node));
	timers_cancel(loop_timers(bounce->options.loop), &gathering->timer);
	HASH_DEL(bounce->gatherings, gathering);
	free(gathering);
}

void bounce_free(struct bounce **bounce)
{
	if (!*bounce)
		return;
	while ((*bounce)->gatherings)
		gathering_free((*bounce)->gatherings);
	for (struct list *node; (node = list_pop(&(*bounce)->parts));) {
		struct parts *parts = CONTAINER_OF(node, struct parts, node);
		if ((*bounce)->options.webhook)
			webhook_forget((*bounce)->options.webhook, parts);
		free(parts);
	}
	notices_free(&(*bounce)->notices);
	config_free(&(*bounce)->config);
	free(*bounce);
	*bounce = NULL;
}

void bounce_configure(struct bounce *bounce, struct config *config)
{
	struct config *old = bounce->config;

	bounce->config = config_ref(config);
	notices_configure(bounce->notices, config);
	config_free(&old);
}

/* ---- is one due? ---- */

static enum dsn_kind kind_of(const struct job_failure *failures)
{
	switch (failures[0].outcome.kind) {
	case OUTCOME_DEFERRED: return DSN_DELAYED;
	case OUTCOME_DELIVERED: return DSN_RELAYED;
	default: return DSN_FAILED;
	}
}

/* RFC 3461 section 4.1: without NOTIFY failures are told, delays may be, and success is not. */
static bool is_wanted(const struct queue_recipient *recipient, enum dsn_kind kind)
{
	static const uint32_t flags[] = {[DSN_FAILED] = QUEUE_NOTIFY_FAILURE,
					 [DSN_DELAYED] = QUEUE_NOTIFY_DELAY,
					 [DSN_RELAYED] = QUEUE_NOTIFY_SUCCESS};

	if (recipient->notify == 0)
		return kind != DSN_RELAYED;
	return recipient->notify & flags[kind];
}

static bool is_by_mail(const struct bounce *bounce)
{
	return bounce->config->bounce.mode == CONFIG_BOUNCE_MAIL || bounce->config->bounce.mode == CONFIG_BOUNCE_BOTH;
}

/* Who is told; empty: the policy has nobody written to there. */
static struct slice listener_of(const struct bounce *bounce, const struct queue_envelope *envelope)
{
	const struct config *config = bounce->config;

	if (config->bounce.to && !config->redirect)
		return slice_of_str(config->bounce.to);
	return policy_bounce_recipient(config, envelope->sender);
}

/* Why nobody is told of any of them; NULL: somebody is. */
static const char *silence(const struct bounce *bounce, const struct telling *telling)
{
	const struct queue_envelope *envelope = &telling->message->envelope;

	if (envelope->sender.len == 0)
		return "null reverse-path";
	if (!is_by_mail(bounce))
		return "bounce.mode";
	if (listener_of(bounce, envelope).len == 0)
		return "suppress or allowed_recipients";
	for (uint32_t i = 0; i < telling->count; i++)
		if (is_wanted(&envelope->recipients[telling->failures[i].index], kind_of(telling->failures)))
			return NULL;
	return "NOTIFY";
}

/* ---- one DSN for some tellings about one message ---- */

/* Whoever waits for the same DSN. */
struct waiters {
	uint32_t count;
	struct waiter {
		void (*done)(void *ctx, enum err_code result);
		void *ctx;
	} items[];
};

static void tell_waiters(void *ctx, enum err_code result)
{
	struct waiters *waiters = ctx;

	for (uint32_t i = 0; i < waiters->count; i++)
		waiters->items[i].done(waiters->items[i].ctx, result);
	free(waiters);
}

static size_t select_recipients(const struct telling *telling, struct dsn_recipient *out)
{
	const struct queue_envelope *envelope = &telling->message->envelope;
	size_t selected = 0;

	for (uint32_t i = 0; i < telling->count; i++) {
		const struct job_failure *failure = &telling->failures[i];
		const struct queue_recipient *recipient = &envelope->recipients[failure->index];
		if (!is_wanted(recipient, kind_of(telling->failures)))
			continue;
		out[selected++] = (struct dsn_recipient){.address = recipient->address,
							 .orcpt = recipient->orcpt,
							 .submitted = recipient->original,
							 .outcome = &failure->outcome,
							 .last_attempt_wall = failure->attempted_wall,
							 .will_retry_until_wall = envelope->expires_wall};
	}
	return selected;
}

/* A sender that cannot be written to will never be: that is said, and all. Anything else passes. */
static enum err_code excuse(const struct bounce *bounce, const struct notice *notice, int rc)
{
	if (rc != ERR_SYNTAX)
		return (enum err_code)rc;
	log_event(bounce->options.log, LOG_ERROR, "bounce_omitted", LOG_ID(notice->message->id),
		  LOG_STR("kind", dsn_kind_name(notice->kind)), LOG_INT("recipients", notice->recipient_count),
		  LOG_STR("text", "the sender's address cannot stand in a DSN"));
	return 0;
}

/* Takes what is on the list, of one message and one kind. */
static void send_all(struct bounce *bounce, struct list *tellings)
{
	const struct telling *first = CONTAINER_OF(tellings->next, struct telling, node);
	struct notice notice = {.kind = kind_of(first->failures), .message = first->message};
	struct dsn_recipient *recipients;
	struct waiters *waiters;
	size_t max = 0, waiter_count = 0;
	int rc;

	LIST_FOREACH (node, tellings) {
		max += CONTAINER_OF(node, struct telling, node)->count;
		waiter_count++;
	}
	recipients = xcalloc(max, sizeof(*recipients));
	waiters = xcalloc(1, sizeof(*waiters) + waiter_count * sizeof(waiters->items[0]));
	for (struct list *node; (node = list_pop(tellings));) {
		struct telling *telling = CONTAINER_OF(node, struct telling, node);
		notice.recipient_count += select_recipients(telling, recipients + notice.recipient_count);
		waiters->items[waiters->count++] = (struct waiter){telling->done, telling->ctx};
		free(telling);
	}
	notice.to = listener_of(bounce, &notice.message->envelope);
	notice.recipients = recipients;
	rc = notices_send(bounce->notices, &notice, tell_waiters, waiters);
	free(recipients);
	if (rc != 0)
		tell_waiters(waiters, excuse(bounce, &notice, rc));
}

/* ---- gathering ---- */

static void take_gathered(struct gathering *gathering, struct list *tellings)
{
	for (struct list *node; (node = list_pop(&gathering->tellings));)
		list_append(tellings, node);
	gathering->recipient_count = 0;
}

static void on_gathered(void *ctx);

static void send_gathered(struct gathering *gathering)
{
	struct bounce *bounce = gathering->bounce;
	struct list tellings;

	list_init(&tellings);
	take_gathered(gathering, &tellings);
	timers_set(loop_timers(bounce->options.loop), &gathering->timer, loop_now_ms(bounce->options.loop) + GATHER_MS,
		   on_gathered, gathering);
	send_all(bounce, &tellings);
}

static void on_gathered(void *ctx)
{
	struct gathering *gathering = ctx;

	gathering->timer = 0;
	if (list_is_empty(&gathering->tellings))
		gathering_free(gathering);
	else
		send_gathered(gathering);
}

/* Recipients of the message that may still fail, beside `known` of them. */
static bool may_more_fail(const struct bounce *bounce, uint64_t id, uint32_t known)
{
	struct queue_brief brief;

	return queue_brief(bounce->options.queue, id, &brief) == 0 && brief.open > known;
}

static struct gathering *find(struct bounce *bounce, uint64_t id)
{
	struct gathering *gathering;

	HASH_FIND(hh, bounce->gatherings, &id, sizeof(id), gathering);
	return gathering;
}

static void begin_gathering(struct bounce *bounce, uint64_t id)
{
	struct gathering *gathering = xcalloc(1, sizeof(*gathering));

	gathering->bounce = bounce;
	gathering->id = id;
	list_init(&gathering->tellings);
	HASH_ADD(hh, bounce->gatherings, id, sizeof(gathering->id), gathering);
	timers_set(loop_timers(bounce->options.loop), &gathering->timer, loop_now_ms(bounce->options.loop) + GATHER_MS,
		   on_gathered, gathering);
}

static void tell_failure(struct bounce *bounce, struct telling *telling)
{
	uint64_t id = telling->message->id;
	struct gathering *gathering = find(bounce, id);
	uint32_t known = telling->count + (gathering ? gathering->recipient_count : 0);
	bool is_last = bounce->is_hurried || !may_more_fail(bounce, id, known);
	struct list tellings;

	if (gathering && !is_last) {
		list_append(&gathering->tellings, &telling->node);
		gathering->recipient_count = known;
		return;
	}
	list_init(&tellings);
	if (gathering) {
		take_gathered(gathering, &tellings);
		gathering_free(gathering);
	} else if (!is_last) {
		begin_gathering(bounce, id);
	}
	list_append(&tellings, &telling->node);
	send_all(bounce, &tellings);
}

void bounce_hurry(struct bounce *bounce)
{
	struct gathering *gathering, *next;

	bounce->is_hurried = true;
	HASH_ITER(hh, bounce->gatherings, gathering, next)
	if (!list_is_empty(&gathering->tellings))
		send_gathered(gathering);
}

/* ---- the webhook ---- */

static void end_part(struct parts *parts)
{
	void (*done)(void *ctx, enum err_code result) = parts->done;
	enum err_code result = parts->result;
	void *ctx = parts->ctx;

	if (--parts->pending > 0)
		return;
	if (result != 0)
		log_event(parts->bounce->options.log, LOG_WARN, "bounce_waits", LOG_ID(parts->id),
			  LOG_INT("recipients", parts->recipients),
			  LOG_STR("text", result == ERR_LIMIT ? "there is no room for the DSN or its event"
							      : err_code_name(result)));
	list_remove(&parts->node);
	free(parts);
	done(ctx, result);
}

static void on_mailed(void *ctx, enum err_code result)
{
	struct parts *parts = ctx;

	if (result != 0)
		parts->result = result;
	end_part(parts);
}

/* Told on the side, beside mail: what becomes of it is the webhook's matter. */
static void on_event_stored(void *ctx, enum err_code result)
{
	(void)result;
	end_part(ctx);
}

static bool is_by_webhook(const struct bounce *bounce)
{
	return bounce->config->bounce.mode == CONFIG_BOUNCE_WEBHOOK ||
	       bounce->config->bounce.mode == CONFIG_BOUNCE_BOTH;
}

static int tell_event(struct bounce *bounce, struct parts *parts, const struct queue_message *message,
		      const struct job_failure *failure)
{
	bool must = is_by_webhook(bounce), is_told;
	struct event_outcome event = {.message = message,
				      .recipient = failure->index,
				      .outcome = &failure->outcome,
				      .relayhost = failure->relayhost,
				      .attempts = message->status[failure->index].attempts + 1,
				      .now_wall = clock_wall_ms(bounce->options.clock)};
	int rc = webhook_tell_outcome(bounce->options.webhook, &event, must, &is_told,
				      must ? on_mailed : on_event_stored, parts);

	if (rc == 0 && is_told)
		parts->pending++;
	return must ? rc : 0;
}

/* ERR_...: an event that must be told has no room now. */
static int tell_events(struct bounce *bounce, struct parts *parts, const struct queue_message *message,
		       const struct job_failure *failures, uint32_t count)
{
	int rc = 0;

	if (!bounce->options.webhook || kind_of(failures) != DSN_FAILED)
		return 0;
	for (uint32_t i = 0; rc == 0 && i < count; i++)
		rc = tell_event(bounce, parts, message, &failures[i]);
	return rc;
}

/* ---- mail ---- */

static void send_mail(struct bounce *bounce, const struct telling *wanted)
{
	struct telling *telling;
	struct list alone;

	telling = xmalloc(sizeof(*telling));
	*telling = *wanted;
	if (kind_of(wanted->failures) == DSN_FAILED) {
		tell_failure(bounce, telling);
		return;
	}
	list_init(&alone);
	list_append(&alone, &telling->node);
	send_all(bounce, &alone);
}

static void omit_mail(struct bounce *bounce, const struct telling *telling, const char *why)
{
	log_event(bounce->options.log, LOG_INFO, "bounce_omitted", LOG_ID(telling->message->id),
		  LOG_STR("kind", dsn_kind_name(kind_of(telling->failures))), LOG_INT("recipients", telling->count),
		  LOG_STR("text", why));
}

void bounce_send(struct bounce *bounce, const struct queue_message *message, const struct job_failure *failures,
		 uint32_t count, void (*done)(void *done_ctx, enum err_code result), void *done_ctx)
{
	struct parts *parts = xcalloc(1, sizeof(*parts));
	struct telling telling = {{0}, message, failures, count, on_mailed, parts};
	const char *why_not = silence(bounce, &telling);
	int rc;

	*parts = (struct parts){
	    .bounce = bounce, .id = message->id, .recipients = count, .pending = 1, .done = done, .ctx = done_ctx};
	list_append(&bounce->parts, &parts->node);
	rc = tell_events(bounce, parts, message, failures, count);
	if (rc == 0 && !why_not) {
		send_mail(bounce, &telling);
		return;
	}
	if (rc == 0)
		omit_mail(bounce, &telling, why_not);
	else
		parts->result = (enum err_code)rc;
	end_part(parts);
}
