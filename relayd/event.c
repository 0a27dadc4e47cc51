#include "relayd/event.h"

#include "base/base.h"
#include "base/msgid.h"
#include "relayd/json_text.h"

#include <stdio.h>
#include <time.h>

/* RFC 3339, UTC, milliseconds. */
static json_t *time_text(int64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	char text[40], day[32];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%03dZ", day, (int)(wall_ms % 1000));
	return json_string(text);
}

static void put_text(json_t *object, const char *key, struct slice text)
{
	if (text.len > 0)
		json_object_set_new(object, key, json_clean_text(text));
}

static void put_str(json_t *object, const char *key, const char *text)
{
	put_text(object, key, slice_of_str(text));
}

static int append_piece(const char *piece, size_t len, void *out)
{
	return buf_append(out, slice_of(piece, len));
}

/* Takes the reference. */
static int dump(struct buf *out, json_t *object)
{
	size_t before = buf_len(out);
	int rc = json_dump_callback(object, append_piece, out, JSON_COMPACT);

	json_decref(object);
	if (rc == 0)
		return 0;
	buf_truncate(out, before);
	return ERR_LIMIT;
}

static json_t *begin(const char *event_id, const char *event, int64_t now_wall)
{
	json_t *object = json_object();

	json_object_set_new(object, "event_id", json_string(event_id));
	json_object_set_new(object, "time", time_text(now_wall));
	json_object_set_new(object, "event", json_string(event));
	return object;
}

static void put_message(json_t *object, const struct queue_message *message, const struct queue_recipient *recipient)
{
	const struct queue_envelope *envelope = &message->envelope;
	char id[MSGID_CHARS + 1];

	msgid_format(message->id, id);
	json_object_set_new(object, "id", json_string(id));
	put_text(object, "user", envelope->user);
	json_object_set_new(object, "from", json_clean_text(envelope->sender));
	put_text(object, "rcpt", recipient->address);
	put_text(object, "original_rcpt", recipient->original);
	put_text(object, "message_id", envelope->message_id);
	put_text(object, "tag", envelope->tag);
	put_text(object, "envid", envelope->envid);
}

static void put_result(json_t *object, const struct outcome *outcome)
{
	json_object_set_new(object, "outcome", json_string(outcome_kind_name(outcome->kind)));
	if (outcome->class != CLASS_NONE)
		put_str(object, "class", failure_class_name(outcome->class));
	if (outcome->code)
		json_object_set_new(object, "code", json_integer(outcome->code));
	put_str(object, "host", outcome->host);
	put_str(object, "enhanced", outcome->enhanced);
	if (outcome->stage != STAGE_NONE)
		put_str(object, "stage", delivery_stage_name(outcome->stage));
	put_str(object, "text", outcome->text);
}

int event_put_outcome(struct buf *out, const struct event_outcome *event)
{
	const struct queue_envelope *envelope = &event->message->envelope;
	const char *kind = outcome_kind_name(event->outcome->kind);
	char id[MSGID_CHARS + 1], event_id[80];
	json_t *object;

	msgid_format(event->message->id, id);
	snprintf(event_id, sizeof(event_id), "%s-%u-%u-%s", id, (unsigned)event->recipient, (unsigned)event->attempts,
		 kind);
	object = begin(event_id, kind, event->now_wall);
	put_message(object, event->message, &envelope->recipients[event->recipient]);
	put_result(object, event->outcome);
	put_str(object, "relayhost", event->relayhost);
	json_object_set_new(object, "attempts", json_integer(event->attempts));
	json_object_set_new(object, "age_ms", json_integer(MAX(event->now_wall - envelope->arrived_wall, (int64_t)0)));
	if (event->outcome->kind == OUTCOME_DEFERRED)
		json_object_set_new(object, "next_attempt", time_text(event->next_wall));
	return dump(out, object);
}

int event_put_alert(struct buf *out, const struct event_alert *event)
{
	const char *state = event->is_active ? "active" : "over";
	char event_id[400];
	json_t *object;

	snprintf(event_id, sizeof(event_id), "alert-%s-%s-%lld-%s", event->relay, event->alert,
		 (long long)event->since_wall, state);
	object = begin(event_id, "alert", event->now_wall);
	put_str(object, "relay", event->relay);
	put_str(object, "alert", event->alert);
	put_str(object, "state", state);
	put_str(object, "text", event->text);
	json_object_set_new(object, "since", time_text(event->since_wall));
	return dump(out, object);
}
