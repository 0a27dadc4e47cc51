/* POST /v1/flush, hold, release, delete - what an operator does to messages. */
#include "relayd/control_internal.h"

#include "base/base.h"
#include "base/msgid.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	/* One step of a flush: about two milliseconds of work, in looks at a place of the index. */
	STEP_WORK = 10000,
	FLUSH_WORK = 10,
	READ_WORK = 50,
	RETRY_WORK = 500,
	SYNC_LOOK_MS = 5,
	SYNC_PATIENCE_MS = 1000,
	/* More recipients of a deleted message are not remembered: the ring is for others too. */
	RECENT_DELETED_MAX = 32,
};

static void log_action(struct control *control, const char *action, uint64_t id, struct slice sender,
		       const char *domain, int64_t count)
{
	log_event(control->options.log, LOG_INFO, "operator", LOG_ID(id), LOG_ADDR("from", sender),
		  LOG_STR("action", action), LOG_STR("domain", domain), LOG_INT("messages", count));
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

static void act(struct control *control, const char *action, int (*change)(struct queue *queue, uint64_t id),
		void (*done)(struct control *control, const struct queue_message *message), json_t *body,
		struct http_response *response)
{
	char text[MSGID_CHARS + 1];
	struct queue_message message;
	uint64_t id;
	int rc;

	if (!parse_id(body, &id, response))
		return;
	msgid_format(id, text);
	look_at(control, id, &message);
	rc = change(control->options.queue, id);
	if (rc == ERR_NOT_FOUND) {
		control_refuse(response, 404, "no message %s", text);
	} else if (rc == ERR_CORRUPT) {
		control_refuse(response, 409, "the stored bytes of %s are damaged: it can only be deleted", text);
	} else if (rc != 0) {
		control_refuse(response, 500, "cannot %s %s: %s", action, text, err_code_name(rc));
	} else {
		log_action(control, action, id, message.envelope.sender, NULL, 1);
		if (done)
			done(control, &message);
		control_answer_synced(control, response, id, json_pack("{s:i}", "count", 1), set_synced);
	}
	queue_message_free(&message);
}

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

/* What is in flight tells its own end. */
static void remember_deleted(struct control *control, const struct queue_message *message)
{
	struct outcome deleted = {.kind = OUTCOME_DELETED, .stage = STAGE_QUEUE, .text = "deleted by an operator"};
	int remembered = 0;

	for (uint32_t r = 0; r < message->envelope.recipient_count && remembered < RECENT_DELETED_MAX; r++) {
		const struct queue_recipient_status *status = &message->status[r];
		if (status->state == QUEUE_FINAL || (status->state == QUEUE_TAKEN && message->state == STATE_INFLIGHT))
			continue;
		recent_add(control->options.recent, message, r, &deleted, status->attempts, control_now_wall(control));
		remembered++;
	}
}

void control_post_delete(struct control *control, const struct http_request *request, json_t *body,
			 struct http_response *response)
{
	(void)request;
	act(control, "delete", queue_delete, remember_deleted, body, response);
}

/* ---- flush ---- */

/* All messages, or those of a domain. First come the destinations, so that what becomes due finds them open. */
struct flush {
	struct control *control;
	struct control_domain domain;
	struct destination_id *ids; /* in back-off when it began */
	size_t id_count, id_next;
	bool walking, done;
	uint64_t cursor;
	unsigned work;
	int64_t count;
};

static void flush_free(void *ctx)
{
	struct flush *flush = ctx;

	log_action(flush->control, flush->done ? "flush" : "flush_broken_off", 0, SLICE(""), flush->domain.text,
		   flush->count);
	free(flush->ids);
	free(flush);
}

static void collect_destinations(struct flush *flush)
{
	struct destinations *all = flush->control->options.destinations;
	size_t cap = 0;

	for (struct destination *d = destinations_next(all, NULL); d; d = destinations_next(all, d)) {
		if (!control_is_backing_off(flush->control, d))
			continue;
		if (flush->id_count == cap) {
			cap = cap ? cap * 2 : 16;
			flush->ids = xreallocarray(flush->ids, cap, sizeof(*flush->ids));
		}
		flush->ids[flush->id_count++] = d->id;
	}
}

static void retry_next_destination(struct flush *flush)
{
	const struct destination_id *id = &flush->ids[flush->id_next++];
	struct destination *d = destinations_find(flush->control->options.destinations, id);

	flush->work += RETRY_WORK;
	if (d && control_is_backing_off(flush->control, d))
		destination_retry_now(d);
}

/* Whether a message of the domain it is; then its destinations are woken. */
static bool is_of_domain(struct flush *flush, uint64_t id)
{
	struct queue_message message;
	bool is_one = false;

	flush->work += READ_WORK;
	if (queue_read_envelope(flush->control->options.queue, id, 0, &message) != 0)
		return false;
	for (size_t r = 0; r < message.envelope.recipient_count && !is_one; r++)
		is_one = message.status[r].state != QUEUE_FINAL &&
			 control_domain_matches(&flush->domain, message.envelope.recipients[r].address);
	if (is_one)
		control_retry_targets(flush->control, &message, &flush->domain);
	flush->work += (unsigned)message.envelope.recipient_count;
	queue_message_free(&message);
	return is_one;
}

static void visit(void *ctx, const struct queue_brief *brief)
{
	struct flush *flush = ctx;

	if (brief->state == STATE_HELD || (flush->domain.text[0] && !is_of_domain(flush, brief->id)))
		return;
	flush->work += FLUSH_WORK;
	if (queue_flush(flush->control->options.queue, brief->id) == 0)
		flush->count++;
}

static enum http_more flush_next(void *ctx, struct buf *out)
{
	struct flush *flush = ctx;

	flush->work = 0;
	while (flush->id_next < flush->id_count && flush->work < STEP_WORK)
		retry_next_destination(flush);
	while (flush->id_next == flush->id_count && (flush->cursor != 0 || !flush->walking) &&
	       flush->work < STEP_WORK) {
		flush->walking = true;
		queue_iterate(flush->control->options.queue, &flush->cursor, 1, visit, flush);
		flush->work++;
	}
	if (!flush->walking || flush->cursor != 0) {
		buf_append_byte(out, '\n'); /* the client sees that we are at it */
		return HTTP_MORE;
	}
	flush->done = true;
	buf_printf(out, "{\"count\":%lld}\n", (long long)flush->count);
	return HTTP_END;
}

static void begin_flush(struct control *control, const char *domain, struct http_response *response)
{
	struct flush *flush = xcalloc(1, sizeof(*flush));

	flush->control = control;
	if (domain)
		control_domain_init(&flush->domain, domain);
	else
		collect_destinations(flush);
	if (domain && flush->domain.text[0] == '\0') {
		free(flush);
		control_refuse(response, 400, "domain wants a name");
		return;
	}
	response->stream_next = flush_next;
	response->stream_free = flush_free;
	response->stream_ctx = flush;
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
	log_action(control, "flush", id, message.envelope.sender, NULL, 1);
	queue_message_free(&message);
	control_answer(response, json_pack("{s:i}", "count", 1));
}

void control_post_flush(struct control *control, const struct http_request *request, json_t *body,
			struct http_response *response)
{
	const char *domain = json_string_value(json_object_get(body, "domain"));

	(void)request;
	if (json_object_size(body) == 0)
		begin_flush(control, NULL, response);
	else if (domain && json_object_size(body) == 1)
		begin_flush(control, domain, response);
	else if (json_object_get(body, "id"))
		flush_one(control, body, response);
	else
		control_refuse(response, 400, "the request wants {}, {\"id\": ID} or {\"domain\": NAME}");
}
