/*
 * POST /v1/flush, hold, release, delete, bounce with conditions - what an operator does to many messages
 *
 * A walk over the index in steps of about two milliseconds, as the client reads; a client that leaves ends it, and what
 * was done stays done. Before a step that writes there must be room in the journal's memory.
 */
#include "relayd/control_filter.h"

#include "base/base.h"
#include "base/msgid.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	/* One step, in looks at a place of the index. */
	STEP_WORK = 10000,
	ACT_WORK = 20,
	READ_WORK = 50,
	RETRY_WORK = 500,
	BOUNCE_WORK = 300,
	/* DSNs of ours on their way keep their messages in memory. */
	BOUNCES_MAX = 128,
	WAIT_MS = 5,
	SYNC_PATIENCE_MS = 1000,
	PROGRESS_EACH_MS = 100,
	HEARTBEAT_MS = 5 * 1000,
};

struct bulk;

/* 0: done; ERR_LOCKED: an attempt is under way; ERR_NOT_FOUND: it has left; others: it failed. `message` is NULL unless
 * the action wants it or the conditions did. */
typedef int bulk_act(struct bulk *bulk, const struct queue_brief *brief, const struct queue_message *message);

struct action {
	const char *name;
	bulk_act *act;
	bool (*applies)(const struct queue_brief *brief); /* others are passed over */
	bool wants_message;
	bool may_mean_all; /* without conditions and without "all" */
};

struct bulk {
	struct control *control;
	struct http_stream *stream;
	const struct action *action;
	struct control_filter filter;
	bool is_dry_run, wants_progress;
	struct destination_id *ids; /* flush of all: in back-off when it began */
	size_t id_count, id_next;
	bool walking, walked, done;
	uint64_t cursor, looked, total;
	unsigned work, bounces_before; /* DSNs that were on their way when it began */
	timer_id timer;
	int64_t heard_ms;		/* the client last heard of us */
	int64_t told_ms, sync_until_ms; /* 0: not yet */
	uint64_t syncs;
	int64_t count, busy, failed;
	int error; /* the last one */
};

/* ---- what is done to each ---- */

static bool is_any(const struct queue_brief *brief)
{
	(void)brief;
	return true;
}

static bool is_held(const struct queue_brief *brief)
{
	return brief->state == STATE_HELD && !brief->corrupt;
}

static bool is_not_held(const struct queue_brief *brief)
{
	return brief->state != STATE_HELD;
}

static bool is_sound(const struct queue_brief *brief)
{
	return !brief->corrupt;
}

static int do_flush(struct bulk *bulk, const struct queue_brief *brief, const struct queue_message *message)
{
	if (message)
		control_retry_targets(bulk->control, message, &bulk->filter.domain);
	return queue_flush(bulk->control->options.queue, brief->id);
}

static int do_hold(struct bulk *bulk, const struct queue_brief *brief, const struct queue_message *message)
{
	(void)message;
	return queue_hold(bulk->control->options.queue, brief->id);
}

static int do_release(struct bulk *bulk, const struct queue_brief *brief, const struct queue_message *message)
{
	(void)message;
	return queue_release(bulk->control->options.queue, brief->id);
}

/* Nobody else tells what became of it. */
static int do_delete(struct bulk *bulk, const struct queue_brief *brief, const struct queue_message *message)
{
	struct control *control = bulk->control;
	struct webhook *webhook = control->options.webhook;
	bool must_read = webhook && webhook_wants(webhook, CONFIG_EVENT_DELETED) && !message;
	struct queue_message read = {0};
	int rc;

	if (must_read && queue_read_envelope(control->options.queue, brief->id, 0, &read) == 0)
		message = &read;
	rc = queue_delete(control->options.queue, brief->id);
	if (rc == 0 && message)
		control_tell_deleted(control, message);
	if (rc == 0)
		control_log_action(control, "delete", brief->id, message ? message->envelope.sender : SLICE(""), NULL,
				   1);
	queue_message_free(&read);
	return rc;
}

static int do_bounce(struct bulk *bulk, const struct queue_brief *brief, const struct queue_message *message)
{
	(void)message;
	bulk->work += BOUNCE_WORK;
	return scheduler_bounce(bulk->control->options.scheduler, brief->id);
}

static const struct action actions[] = {
    {"flush", do_flush, is_not_held, false, true},  {"hold", do_hold, is_not_held, false, false},
    {"release", do_release, is_held, false, false}, {"delete", do_delete, is_any, true, false},
    {"bounce", do_bounce, is_sound, false, false},
};

/* ---- the walk ---- */

static void take(struct bulk *bulk, const struct queue_brief *brief, const struct queue_message *message)
{
	int rc = bulk->is_dry_run ? 0 : bulk->action->act(bulk, brief, message);

	bulk->work += ACT_WORK;
	if (rc == 0) {
		bulk->count++;
	} else if (rc == ERR_LOCKED) {
		bulk->busy++;
	} else if (rc != ERR_NOT_FOUND) {
		bulk->failed++;
		bulk->error = rc;
	}
}

static void visit(void *ctx, const struct queue_brief *brief)
{
	struct bulk *bulk = ctx;
	bool must_read = control_filter_wants_message(&bulk->filter);
	struct queue_message message;

	if (!bulk->action->applies(brief) ||
	    !control_filter_takes_brief(&bulk->filter, brief, control_now_wall(bulk->control)))
		return;
	if (!must_read && (bulk->is_dry_run || !bulk->action->wants_message)) {
		take(bulk, brief, NULL);
		return;
	}
	bulk->work += READ_WORK;
	if (queue_read_envelope(bulk->control->options.queue, brief->id, 0, &message) != 0) {
		if (!must_read)
			take(bulk, brief, NULL); /* what is damaged can be deleted */
		return;
	}
	bulk->work += (unsigned)message.envelope.recipient_count;
	if (!must_read || control_filter_takes_message(&bulk->filter, bulk->control, &message))
		take(bulk, brief, &message);
	queue_message_free(&message);
}

static void collect_destinations(struct bulk *bulk)
{
	struct destinations *all = bulk->control->options.destinations;
	size_t cap = 0;

	for (struct destination *d = destinations_next(all, NULL); d; d = destinations_next(all, d)) {
		if (!control_is_backing_off(bulk->control, d))
			continue;
		if (bulk->id_count == cap) {
			cap = cap ? cap * 2 : 16;
			bulk->ids = xreallocarray(bulk->ids, cap, sizeof(*bulk->ids));
		}
		bulk->ids[bulk->id_count++] = d->id;
	}
}

static void retry_next_destination(struct bulk *bulk)
{
	const struct destination_id *id = &bulk->ids[bulk->id_next++];
	struct destination *d = destinations_find(bulk->control->options.destinations, id);

	bulk->work += RETRY_WORK;
	if (d && control_is_backing_off(bulk->control, d))
		destination_retry_now(d);
}

static unsigned bounces_under_way(const struct bulk *bulk)
{
	unsigned count = scheduler_bounce_count(bulk->control->options.scheduler);

	return count > bulk->bounces_before ? count - bulk->bounces_before : 0;
}

/* The journal keeps in memory what is not synced yet; what a deletion frees must be possible on a full disk. */
static bool has_room(const struct bulk *bulk)
{
	return bulk->is_dry_run ||
	       (queue_may_accept(bulk->control->options.queue) != ERR_LIMIT && bounces_under_way(bulk) < BOUNCES_MAX);
}

/* False: it must wait. First come the destinations, so that what becomes due finds them open. */
static bool walk(struct bulk *bulk)
{
	bulk->work = 0;
	while (bulk->id_next < bulk->id_count && bulk->work < STEP_WORK)
		retry_next_destination(bulk);
	while (bulk->id_next == bulk->id_count && !bulk->walked && bulk->work < STEP_WORK) {
		if (!has_room(bulk))
			return false;
		queue_iterate(bulk->control->options.queue, &bulk->cursor, 1, visit, bulk);
		bulk->looked++;
		bulk->work++;
		bulk->walked = bulk->cursor == 0;
	}
	return true;
}

/* ---- until it is on stable storage ---- */

static bool is_synced(const struct bulk *bulk)
{
	struct queue_stats stats;

	queue_stats(bulk->control->options.queue, &stats);
	return stats.unsynced_bytes == 0 || stats.syncs >= bulk->syncs + 2;
}

/* The DSNs first: the results are written when they are in the journal. True: over, or patience is. */
static bool is_settled(struct bulk *bulk)
{
	int64_t now = loop_now_ms(bulk->control->options.loop);

	if (bulk->is_dry_run || bulk->count == 0)
		return true;
	if (bulk->sync_until_ms == 0) {
		struct queue_stats stats;
		queue_stats(bulk->control->options.queue, &stats);
		bulk->syncs = stats.syncs;
		bulk->sync_until_ms = now + SYNC_PATIENCE_MS;
	}
	return now >= bulk->sync_until_ms || (is_synced(bulk) && bounces_under_way(bulk) == 0);
}

/* ---- the answer ---- */

static void on_wait_over(void *ctx)
{
	http_stream_wake(((struct bulk *)ctx)->stream);
}

static enum http_more wait_a_little(struct bulk *bulk)
{
	struct loop *loop = bulk->control->options.loop;

	timers_set(loop_timers(loop), &bulk->timer, loop_now_ms(loop) + WAIT_MS, on_wait_over, bulk);
	return HTTP_WAIT;
}

/* Blanks before the document are none of it, and show that the client is still there. */
static void tell_progress(struct bulk *bulk, struct buf *out)
{
	int64_t now = loop_now_ms(bulk->control->options.loop);

	if (bulk->wants_progress && now - bulk->told_ms >= PROGRESS_EACH_MS) {
		bulk->told_ms = now;
		buf_printf(out, "{\"looked\":%llu,\"total\":%llu,\"count\":%lld}", (unsigned long long)bulk->looked,
			   (unsigned long long)MAX(bulk->total, bulk->looked), (long long)bulk->count);
	}
	buf_append_byte(out, '\n');
}

static void answer(struct bulk *bulk, struct buf *out)
{
	json_t *document = json_pack("{s:I, s:I, s:I}", "count", (json_int_t)bulk->count, "busy",
				     (json_int_t)bulk->busy, "failed", (json_int_t)bulk->failed);

	if (bulk->failed > 0)
		json_object_set_new(document, "error", json_string(err_code_name((enum err_code)bulk->error)));
	if (!bulk->is_dry_run)
		json_object_set_new(document, "synced", json_boolean(bulk->count == 0 || is_synced(bulk)));
	BUG_ON(control_dump(out, document) != 0);
	buf_append_byte(out, '\n');
	json_decref(document);
}

static enum http_more bulk_next(void *ctx, struct buf *out)
{
	struct bulk *bulk = ctx;
	int64_t now = loop_now_ms(bulk->control->options.loop);
	bool waits = !walk(bulk);

	if (waits && now - bulk->heard_ms < HEARTBEAT_MS)
		return wait_a_little(bulk);
	if (waits || !bulk->walked) {
		bulk->heard_ms = now;
		tell_progress(bulk, out);
		return HTTP_MORE;
	}
	if (!is_settled(bulk))
		return wait_a_little(bulk);
	bulk->done = true;
	answer(bulk, out);
	return HTTP_END;
}

static void tell(const struct bulk *bulk)
{
	char name[64], text[4096];
	struct buf conditions;

	buf_init(&conditions, sizeof(text));
	control_filter_format(&bulk->filter, &conditions);
	slice_to_cstr(buf_slice(&conditions), text, sizeof(text));
	snprintf(name, sizeof(name), "%s%s", bulk->action->name, bulk->done ? "" : "_broken_off");
	control_log_action(bulk->control, name, 0, SLICE(""), text, bulk->count);
	buf_fini(&conditions);
}

static void bulk_free(void *ctx)
{
	struct bulk *bulk = ctx;

	timers_cancel(loop_timers(bulk->control->options.loop), &bulk->timer);
	if (!bulk->is_dry_run)
		tell(bulk);
	control_filter_fini(&bulk->filter);
	free(bulk->ids);
	free(bulk);
}

/* ---- the request ---- */

static const char *value_of(const void *ctx, const char *name)
{
	return json_string_value(json_object_get(ctx, name));
}

static bool is_switch(const char *name)
{
	return strcmp(name, "all") == 0 || strcmp(name, "dry_run") == 0 || strcmp(name, "progress") == 0;
}

/* Above all, what is misspelt must not mean "everything". */
static int check_body(json_t *body, struct http_response *response)
{
	const char *name;
	json_t *value;

	json_object_foreach(body, name, value)
	{
		if (is_switch(name) ? json_is_boolean(value) : control_filter_has_name(name) && json_is_string(value))
			continue;
		control_refuse(response, 400,
			       is_switch(name)		       ? "%.64s wants true or false"
			       : control_filter_has_name(name) ? "%.64s wants a text"
							       : "unknown condition '%.64s'",
			       name);
		return ERR_SYNTAX;
	}
	return 0;
}

static int parse(struct bulk *bulk, json_t *body, struct http_response *response)
{
	bool all = json_is_true(json_object_get(body, "all"));

	if (check_body(body, response) != 0 || control_filter_init(&bulk->filter, value_of, body, response) != 0)
		return ERR_SYNTAX;
	bulk->is_dry_run = json_is_true(json_object_get(body, "dry_run"));
	bulk->wants_progress = json_is_true(json_object_get(body, "progress"));
	if (all != control_filter_is_empty(&bulk->filter) && !(bulk->action->may_mean_all && !all)) {
		control_refuse(response, 400,
			       all ? "conditions and \"all\" do not go together"
				   : "%s wants an id, conditions, or {\"all\": true}",
			       bulk->action->name);
		control_filter_fini(&bulk->filter);
		return ERR_SYNTAX;
	}
	return 0;
}

void control_begin_bulk(struct control *control, const char *action, json_t *body, struct http_response *response)
{
	struct bulk *bulk = xcalloc(1, sizeof(*bulk));
	struct queue_stats stats;

	bulk->control = control;
	bulk->bounces_before = scheduler_bounce_count(control->options.scheduler);
	bulk->heard_ms = loop_now_ms(control->options.loop);
	for (size_t i = 0; i < ARRAY_LEN(actions); i++)
		if (strcmp(actions[i].name, action) == 0)
			bulk->action = &actions[i];
	if (parse(bulk, body, response) != 0) {
		free(bulk);
		return;
	}
	queue_stats(control->options.queue, &stats);
	for (int state = 0; state < STATE_COUNT; state++)
		bulk->total += stats.messages[state];
	if (bulk->action->act == do_flush && !bulk->is_dry_run && control_filter_is_empty(&bulk->filter))
		collect_destinations(bulk);
	response->stream_next = bulk_next;
	response->stream_free = bulk_free;
	response->stream_ctx = bulk;
	response->stream = &bulk->stream;
}
