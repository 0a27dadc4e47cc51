/* POST /v1/flush, hold, release, delete, bounce - what an operator does to one message; many: control_bulk.c. */
#include "relayd/control_internal.h"

#include "base/base.h"
#include "base/msgid.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	SYNC_LOOK_MS = 5,
	SYNC_PATIENCE_MS = 1000,
	/* More recipients of a deleted message are not remembered: the ring is for others too. */
	RECENT_DELETED_MAX = 32,
};

void control_log_action(struct control *control, const char *action, uint64_t id, struct slice sender,
			const char *conditions, int64_t count)
{
	log_event(control->options.log, LOG_INFO, "operator", LOG_ID(id),
		  id ? LOG_ADDR("from", sender) : LOG_STR("from", ""), LOG_STR("action", action),
		  LOG_STR("conditions", conditions), LOG_INT("messages", count));
}

/* ---- answers that wait for the disk ---- */

struct waiter {
	struct control *control;
	struct http_stream *stream;
	timer_id timer;
	uint64_t id, syncs;
	int64_t until_ms;
	json_t *document;
	control_finish *finish;
	bool is_synced, is_over;
};

static void waiter_free(void *ctx)
{
	struct waiter *waiter = ctx;

	timers_cancel(loop_timers(waiter->control->options.loop), &waiter->timer);
	json_decref(waiter->document);
	free(waiter);
}

/* The sync that runs may have begun before our record was written: the one after it has not. */
static void waiter_look(struct waiter *waiter)
{
	struct queue_stats stats;

	queue_stats(waiter->control->options.queue, &stats);
	waiter->is_synced = stats.unsynced_bytes == 0 || stats.syncs >= waiter->syncs + 2;
	waiter->is_over = waiter->is_synced || loop_now_ms(waiter->control->options.loop) >= waiter->until_ms;
}

static void on_look(void *ctx)
{
	struct waiter *waiter = ctx;
	struct loop *loop = waiter->control->options.loop;

	waiter_look(waiter);
	if (waiter->is_over)
		http_stream_wake(waiter->stream);
	else
		timers_set(loop_timers(loop), &waiter->timer, loop_now_ms(loop) + SYNC_LOOK_MS, on_look, waiter);
}

static enum http_more waiter_next(void *ctx, struct buf *out)
{
	struct waiter *waiter = ctx;
	struct loop *loop = waiter->control->options.loop;

	if (!waiter->is_over) {
		timers_set(loop_timers(loop), &waiter->timer, loop_now_ms(loop) + SYNC_LOOK_MS, on_look, waiter);
		return HTTP_WAIT;
	}
	if (waiter->finish)
		waiter->document = waiter->finish(waiter->control, waiter->id, waiter->is_synced, waiter->document);
	if (control_dump(out, waiter->document) != 0)
		buf_append_str(out, "{\"error\":\"the answer is too long\"}");
	buf_append_byte(out, '\n');
	return HTTP_END;
}

void control_answer_synced(struct control *control, struct http_response *response, uint64_t id, json_t *document,
			   control_finish *finish)
{
	struct waiter *waiter = xcalloc(1, sizeof(*waiter));
	struct queue_stats stats;

	queue_stats(control->options.queue, &stats);
	waiter->control = control;
	waiter->id = id;
	waiter->syncs = stats.syncs;
	waiter->until_ms = loop_now_ms(control->options.loop) + SYNC_PATIENCE_MS;
	waiter->document = document;
	waiter->finish = finish;
	response->stream_next = waiter_next;
	response->stream_free = waiter_free;
	response->stream_ctx = waiter;
	response->stream = &waiter->stream;
}

/* ---- one message ---- */

/* The request's only key is `id`; false: it was refused. */
static bool parse_id(json_t *body, uint64_t *id, struct http_response *response)
{
	const char *text = json_string_value(json_object_get(body, "id"));

	if (!text || json_object_size(body) != 1)
		control_refuse(response, 400, "the request wants {\"id\": ID}");
	else if (!msgid_parse(slice_of_str(text), id))
		control_refuse(response, 404, "no message %.64s", text);
	else
		return true;
	return false;
}

static json_t *set_synced(struct control *control, uint64_t id, bool synced, json_t *document)
{
	(void)control;
	(void)id;
	json_object_set_new(document, "synced", json_boolean(synced));
	return document;
}

/* The message as it is before the act, for log and ring; an unreadable one is empty. */
static void look_at(struct control *control, uint64_t id, struct queue_message *message)
{
	if (queue_read_envelope(control->options.queue, id, 0, message) != 0)
		*message = (struct queue_message){0};
}

static void refuse_act(struct http_response *response, const char *action, const char *id, int rc)
{
	if (rc == ERR_NOT_FOUND)
		control_refuse(response, 404, "no message %s", id);
	else if (rc == ERR_CORRUPT)
		control_refuse(response, 409, "the stored bytes of %s are damaged: it can only be deleted", id);
	else
		control_refuse(response, 500, "cannot %s %s: %s", action, id, err_code_name(rc));
}

static bool names_one(json_t *body)
{
	return json_object_get(body, "id") != NULL;
}

/* On the one that is named, or on all that fit. */
static void act(struct control *control, const char *action, int (*change)(struct queue *queue, uint64_t id),
		void (*done)(struct control *control, const struct queue_message *message), json_t *body,
		struct http_response *response)
{
	char text[MSGID_CHARS + 1];
	struct queue_message message;
	uint64_t id;
	int rc;

	if (!names_one(body)) {
		control_begin_bulk(control, action, body, response);
		return;
	}
	if (!parse_id(body, &id, response))
		return;
	msgid_format(id, text);
	look_at(control, id, &message);
	rc = change(control->options.queue, id);
	if (rc != 0) {
		refuse_act(response, action, text, rc);
	} else {
		control_log_action(control, action, id, message.envelope.sender, NULL, 1);
		if (done)
			done(control, &message);
		control_answer_synced(control, response, id, json_pack("{s:i}", "count", 1), set_synced);
	}
	queue_message_free(&message);
}

static const struct outcome deleted = {.kind = OUTCOME_DELETED, .stage = STAGE_QUEUE, .text = "deleted by an operator"};

/* What is in flight tells its own end. */
static bool ends_now(const struct queue_message *message, uint32_t r)
{
	enum queue_recipient_state state = message->status[r].state;

	return state != QUEUE_FINAL && (state != QUEUE_TAKEN || message->state != STATE_INFLIGHT);
}

void control_tell_deleted(struct control *control, const struct queue_message *message)
{
	struct event_outcome event = {
	    .message = message, .outcome = &deleted, .relayhost = "", .now_wall = control_now_wall(control)};

	if (!control->options.webhook)
		return;
	for (uint32_t r = 0; r < message->envelope.recipient_count; r++) {
		event.recipient = r;
		event.attempts = message->status[r].attempts;
		if (ends_now(message, r))
			webhook_tell_outcome(control->options.webhook, &event, false, NULL, NULL, NULL);
	}
}

static void remember_deleted(struct control *control, const struct queue_message *message)
{
	int remembered = 0;

	control_tell_deleted(control, message);
	for (uint32_t r = 0; r < message->envelope.recipient_count && remembered < RECENT_DELETED_MAX; r++) {
		if (!ends_now(message, r))
			continue;
		recent_add(control->options.recent, message, r, &deleted, message->status[r].attempts,
			   control_now_wall(control));
		remembered++;
	}
}

/* ---- bounce, flush ---- */

static void bounce_one(struct control *control, json_t *body, struct http_response *response)
{
	char text[MSGID_CHARS + 1];
	struct queue_message message;
	uint64_t id;
	int rc;

	if (!parse_id(body, &id, response))
		return;
	msgid_format(id, text);
	look_at(control, id, &message);
	rc = scheduler_bounce(control->options.scheduler, id);
	if (rc == ERR_LOCKED)
		control_refuse(response, 409, "an attempt of %s is under way: try again when it is over", text);
	else if (rc == ERR_TEMPORARY)
		control_refuse(response, 409, "%s is not stored yet", text);
	else if (rc != 0)
		refuse_act(response, "bounce", text, rc);
	else
		control_answer_synced(control, response, id, json_pack("{s:i}", "count", 1), set_synced);
	if (rc == 0)
		control_log_action(control, "bounce", id, message.envelope.sender, NULL, 1);
	queue_message_free(&message);
}

static void flush_one(struct control *control, json_t *body, struct http_response *response)
{
	const struct control_domain all = {{0}, {0}};
	char text[MSGID_CHARS + 1];
	struct queue_message message;
	struct queue_brief brief;
	uint64_t id;

	if (!parse_id(body, &id, response))
		return;
	msgid_format(id, text);
	if (queue_brief(control->options.queue, id, &brief) != 0) {
		control_refuse(response, 404, "no message %s", text);
		return;
	}
	if (brief.state == STATE_HELD) {
		control_refuse(response, 409, "%s is held: release it", text);
		return;
	}
	look_at(control, id, &message);
	control_retry_targets(control, &message, &all);
	queue_flush(control->options.queue, id);
	control_log_action(control, "flush", id, message.envelope.sender, NULL, 1);
	queue_message_free(&message);
	control_answer(response, json_pack("{s:i}", "count", 1));
}

/* ---- the requests ---- */

void control_post_hold(struct control *control, const struct http_request *request, json_t *body,
		       struct http_response *response)
{
	(void)request;
	act(control, "hold", queue_hold, NULL, body, response);
}

void control_post_release(struct control *control, const struct http_request *request, json_t *body,
			  struct http_response *response)
{
	(void)request;
	act(control, "release", queue_release, NULL, body, response);
}

void control_post_delete(struct control *control, const struct http_request *request, json_t *body,
			 struct http_response *response)
{
	(void)request;
	act(control, "delete", queue_delete, remember_deleted, body, response);
}

void control_post_bounce(struct control *control, const struct http_request *request, json_t *body,
			 struct http_response *response)
{
	(void)request;
	if (names_one(body))
		bounce_one(control, body, response);
	else
		control_begin_bulk(control, "bounce", body, response);
}

void control_post_flush(struct control *control, const struct http_request *request, json_t *body,
			struct http_response *response)
{
	(void)request;
	if (names_one(body))
		flush_one(control, body, response);
	else
		control_begin_bulk(control, "flush", body, response);
}
