/* One message of the listing as an object. */
#include "relayd/control_internal.h"

#include "base/base.h"

#include <stdio.h>

/* A row stays far below the stream's buffer, however many recipients there are. */
enum { ROW_RECIPIENTS_MAX = 100, ROW_ADDRESS_BYTES_MAX = 16 * 1024 };

/* Where the first recipient that waits may go; false: none waits. */
static bool find_targets(struct control *control, const struct queue_message *message,
			 struct scheduler_targets *targets)
{
	uint32_t r = 0;

	while (message && r < message->envelope.recipient_count && message->status[r].state == QUEUE_FINAL)
		r++;
	if (!message || r == message->envelope.recipient_count)
		return false;
	control_route(control, &message->envelope, r, targets);
	return true;
}

/* What waits for an operator alone must not look as if it waited for somebody's server. */
static bool waits_for_pause(struct control *control, const struct queue_message *message, char *out, size_t size)
{
	struct scheduler_targets targets;

	if (pauses_count(control->options.pauses) == 0 || !find_targets(control, message, &targets))
		return false;
	for (size_t i = 0; i < targets.count; i++)
		if (targets.targets[i].kind != DESTINATION_RELAYHOST ||
		    !pauses_has(control->options.pauses, targets.targets[i].name))
			return false;
	return targets.count > 0 && control_why_not_now(control, &targets.targets[0], out, size);
}

/* One that was never tried waits for its next hop, if that is in trouble. */
static json_t *hop_reason_of(struct control *control, const struct queue_message *message)
{
	struct scheduler_targets targets;
	const struct destination *d;
	char text[sizeof(d->key) + sizeof(d->trouble.text) + 64];

	if (!find_targets(control, message, &targets))
		return json_string("");
	d = targets.count > 0 ? destinations_find(control->options.destinations, &targets.targets[0]) : NULL;
	if (!d)
		return json_string("");
	if (d->trouble.kind == OUTCOME_NONE)
		return control_why_not_now(control, &d->id, text, sizeof(text)) ? control_str(text) : json_string("");
	snprintf(text, sizeof(text), "waits for %s: %s: %s", d->key, failure_class_name(d->trouble.class),
		 d->trouble.text);
	return control_str(text);
}

static void put_words(enum failure_class class, const struct outcome *last, char *out, size_t size)
{
	if (last->code > 0)
		snprintf(out, size, "%s: %d %s", failure_class_name(class), (int)last->code, last->text);
	else
		snprintf(out, size, "%s: %s", failure_class_name(class), last->text);
}

/* The word, and what the server said where it is at hand. */
static json_t *reason_of(struct control *control, const struct queue_brief *brief, const struct queue_message *message)
{
	char text[700];

	if (brief->corrupt)
		return json_string("its stored bytes are damaged");
	if (brief->reason == CLASS_NONE)
		return hop_reason_of(control, message);
	snprintf(text, sizeof(text), "%s", failure_class_name(brief->reason));
	for (size_t i = 0; message && i < message->envelope.recipient_count; i++) {
		const struct queue_recipient_status *status = &message->status[i];
		if (status->state == QUEUE_FINAL || !status->last || status->reason != brief->reason)
			continue;
		put_words(brief->reason, status->last, text, sizeof(text));
		break;
	}
	return control_str(text);
}

/* Those that still wait for something. */
static json_t *recipients_of(const struct queue_message *message)
{
	json_t *list = json_array();
	size_t bytes = 0;

	for (size_t i = 0; message && i < message->envelope.recipient_count; i++) {
		struct slice address = message->envelope.recipients[i].address;
		if (message->status[i].state == QUEUE_FINAL)
			continue;
		bytes += address.len;
		if (json_array_size(list) == ROW_RECIPIENTS_MAX || bytes > ROW_ADDRESS_BYTES_MAX)
			break;
		json_array_append_new(list, control_text(address));
	}
	return list;
}

static void set_next_attempt(json_t *row, const struct queue_brief *brief, bool is_paused, int64_t now)
{
	bool is_planned = brief->state != STATE_HELD && brief->next_attempt_wall != INT64_MAX && !is_paused;

	json_object_set_new(row, "next_attempt", is_planned ? control_iso_time(brief->next_attempt_wall) : json_null());
	json_object_set_new(row, "next_attempt_sec",
			    is_planned ? control_seconds(now, brief->next_attempt_wall) : json_null());
}

json_t *control_row(struct control *control, const struct queue_brief *brief, const struct queue_message *message)
{
	int64_t now = control_now_wall(control);
	char pause[DESTINATION_NAME_MAX + 64];
	bool is_paused = !brief->corrupt && waits_for_pause(control, message, pause, sizeof(pause));
	json_t *row = json_pack("{s:o, s:s, s:o, s:o, s:I, s:o, s:I}", "id", control_id(brief->id), "state",
				message_state_name(brief->state), "sender",
				control_text(message ? message->envelope.sender : SLICE("")), "recipients",
				recipients_of(message), "recipient_count", (json_int_t)brief->open, "age",
				control_seconds(brief->arrived_wall, now), "attempts", (json_int_t)brief->attempts);

	set_next_attempt(row, brief, is_paused, now);
	json_object_set_new(row, "reason", is_paused ? control_str(pause) : reason_of(control, brief, message));
	json_object_set_new(row, "class", json_string(message_class_name(brief->class)));
	json_object_set_new(row, "bytes", json_integer((json_int_t)brief->bytes));
	json_object_set_new(row, "user", control_text(message ? message->envelope.user : SLICE("")));
	return row;
}
