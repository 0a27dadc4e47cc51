/* GET /v1/message - one message and each recipient's state, from the queue and from what left it lately. */
#include "relayd/control_internal.h"

#include "base/base.h"
#include "base/msgid.h"
#include "relayd/outcome.h"

#include <stdio.h>
#include <stdlib.h>

/* So that the answer always fits; those that are done come last. */
enum {
	RECIPIENTS_MAX = 1000,
	/* What happened is told of so many recipients, and so much. */
	HISTORIES_MAX = 20,
	HISTORY_MAX = 50,
	HEADER_MAX_BYTES = 64 * 1024,
	HEADER_LINES_MAX = 500,
};

/* Why the next attempt is when it is. */
static const char *const why_texts[CLASS_COUNT] = {
    [CLASS_NONE] = "its turn has not come yet",
    [CLASS_GREYLIST] = "greylisted: the server asked to come back later",
    [CLASS_THROTTLE] = "the server says that we send too much or too fast",
    [CLASS_AUTH] = "our account there is in trouble, not the message",
    [CLASS_MAILBOX] = "the mailbox cannot take it now",
    [CLASS_POLICY] = "the server does not want it now",
    [CLASS_CONNECT] = "no connection, or it broke",
    [CLASS_DNS] = "the domain could not be looked up",
    [CLASS_TLS] = "no TLS connection as it is required",
    [CLASS_OTHER] = "the server had a temporary failure",
};

static void why_rate(const struct rate *rate, char *out, size_t size)
{
	struct buf limit;

	buf_init(&limit, 64);
	config_rate_format(rate_limit(rate), &limit);
	snprintf(out, size, "the rate of %s %s (%.*s) is used up, the next message goes in %lld s",
		 rate_scope_name(rate_scope(rate)), rate_name(rate), SLICE_ARG(buf_slice(&limit)),
		 (long long)(rate_wait_ms(rate) + 999) / 1000);
	buf_fini(&limit);
}

bool control_why_not_now(struct control *control, const struct destination_id *id, char *out, size_t size)
{
	const struct destination *d = destinations_find(control->options.destinations, id);
	int64_t wait_ms = d ? d->backoff_until_ms - loop_now_ms(control->options.loop) : 0;
	int len;

	if (id->kind == DESTINATION_RELAYHOST && pauses_has(control->options.pauses, id->name)) {
		snprintf(out, size, "relayhost %s is paused by an operator", id->name);
		return true;
	}
	if (wait_ms <= 0 && d && destination_full_rate(d)) {
		why_rate(destination_full_rate(d), out, size);
		return true;
	}
	if (!d || d->trouble.kind == OUTCOME_NONE)
		return false;
	len = snprintf(out, size, "%s is in trouble (%s: %.200s)", d->key, failure_class_name(d->trouble.class),
		       d->trouble.text);
	if (wait_ms > 0 && len > 0 && (size_t)len < size)
		snprintf(out + len, size - (size_t)len, " and rests for %lld s", (long long)(wait_ms + 999) / 1000);
	return true;
}

/* Where the time of the next attempt comes from. */
static int why_greylist(struct control *control, const struct queue_recipient_status *status, char *out, size_t size)
{
	struct greylist_lesson lesson;

	if (status->last && outcome_retry_hint_sec(status->last) > 0 && status->hint_used)
		return snprintf(out, size, ", and said when");
	if (!control->options.greylist || !status->last)
		return 0;
	greylist_look_up(control->options.greylist, status->last->host, &lesson);
	if (lesson.accepted_ms == 0)
		return 0;
	return snprintf(out, size, "; %s has let others through after %lld s", lesson.name,
			(long long)(lesson.accepted_ms + 999) / 1000);
}

/* Also that its destination is not tried before, which may be the whole reason of one that was never tried. */
static json_t *why_of(struct control *control, const struct queue_message *message, uint32_t r)
{
	enum failure_class class = message->status[r].reason;
	struct scheduler_targets targets;
	char now[DESTINATION_NAME_MAX + 512], text[sizeof(now) + 256];
	int len = snprintf(text, sizeof(text), "%s", why_texts[class < CLASS_COUNT ? class : CLASS_OTHER]);

	if (class == CLASS_GREYLIST)
		len += why_greylist(control, &message->status[r], text + len, sizeof(text) - (size_t)len);
	control_route(control, &message->envelope, r, &targets);
	for (size_t i = 0; i < targets.count; i++)
		if (control_why_not_now(control, &targets.targets[i], now, sizeof(now))) {
			snprintf(text + len, sizeof(text) - (size_t)len, "; %s", now);
			break;
		}
	return control_str(text);
}

static json_t *outcome_of(json_t *answer, enum outcome_kind kind, enum failure_class class, uint32_t attempts,
			  const struct outcome *last)
{
	static const struct outcome none;

	last = last ? last : &none;
	json_object_set_new(answer, "outcome", json_string(outcome_kind_name(kind)));
	json_object_set_new(answer, "class", json_string(failure_class_name(class)));
	json_object_set_new(answer, "attempts", json_integer(attempts));
	json_object_set_new(answer, "stage", json_string(delivery_stage_name(last->stage)));
	json_object_set_new(answer, "code", json_integer(last->code));
	json_object_set_new(answer, "enhanced", control_str(last->enhanced));
	json_object_set_new(answer, "host", control_str(last->host));
	json_object_set_new(answer, "text", control_str(last->text));
	return answer;
}

/* ---- from the ring ---- */

static json_t *recent_recipient(const struct recent_entry *entry)
{
	struct outcome last = {.stage = entry->stage, .code = entry->code};
	json_t *answer = json_pack("{s:o}", "address", control_str(entry->recipient));

	memcpy(last.enhanced, entry->enhanced, sizeof(last.enhanced));
	snprintf(last.host, sizeof(last.host), "%s", entry->host);
	snprintf(last.text, sizeof(last.text), "%s", entry->text);
	outcome_of(answer, entry->kind, entry->class, entry->attempts, &last);
	json_object_set_new(answer, "next_attempt_sec", json_null());
	json_object_set_new(answer, "why", json_string(""));
	return answer;
}

static json_t *recent_message(struct control *control, uint64_t id)
{
	const struct recent_entry *entry = recent_find(control->options.recent, id, NULL);
	json_t *answer, *recipients;

	if (!entry)
		return NULL;
	answer =
	    json_pack("{s:o, s:s, s:o, s:I, s:o, s:o, s:s, s:o, s:o, s:o}", "id", control_id(id), "state", "done",
		      "age", control_seconds(entry->arrived_wall, control_now_wall(control)), "bytes",
		      (json_int_t)entry->bytes, "sender", control_str(entry->sender), "user", control_str(entry->user),
		      "class", message_class_name(entry->message_class), "client", control_str(entry->client),
		      "message_id", control_str(entry->message_id), "tag", control_str(entry->tag));
	recipients = json_array();
	for (; entry; entry = recent_find(control->options.recent, id, entry))
		json_array_append_new(recipients, recent_recipient(entry));
	json_object_set_new(answer, "recipients", recipients);
	return answer;
}

/* The end of this recipient, when the queue has kept no more than the word. */
static const struct recent_entry *find_ended(struct control *control, uint64_t id, struct slice address)
{
	const struct recent_entry *entry = NULL;

	while ((entry = recent_find(control->options.recent, id, entry)))
		if (slice_eq(slice_of_str(entry->recipient), address))
			return entry;
	return NULL;
}

/* ---- from the queue ---- */

static json_t *attempt_of(struct control *control, const struct queue_attempt *attempt)
{
	int64_t now = control_now_wall(control);
	json_t *object =
	    json_pack("{s:o}", "ago_sec", attempt->at_wall ? control_seconds(attempt->at_wall, now) : json_null());

	json_object_set_new(object, "at", attempt->at_wall ? control_iso_time(attempt->at_wall) : json_null());
	return outcome_of(object, attempt->outcome.kind, attempt->outcome.class, attempt->attempts, &attempt->outcome);
}

/* The latest first. */
static json_t *history_of(struct control *control, uint64_t id, uint32_t r)
{
	struct queue_attempt *attempts = xcalloc(HISTORY_MAX, sizeof(*attempts));
	size_t count = queue_read_attempts(control->options.queue, id, r, attempts, HISTORY_MAX);
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(list, attempt_of(control, &attempts[i]));
	free(attempts);
	return list;
}

static struct slice without_line_end(struct slice line)
{
	return line.len > 0 && line.ptr[line.len - 1] == '\r' ? slice_to(line, line.len - 1) : line;
}

/* As it will be sent, up to the empty line; lines of folded fields stand by themselves. */
static json_t *header_of(struct control *control, const struct queue_message *message)
{
	struct queue_content *content = queue_content_open(control->options.queue, message->id, NULL);
	json_t *lines = json_array();
	struct slice text;
	struct buf header;

	buf_init(&header, HEADER_MAX_BYTES + QUEUE_PREFIX_MAX);
	buf_append(&header, message->envelope.prefix);
	while (content && buf_len(&header) < HEADER_MAX_BYTES) {
		char *at = buf_reserve(&header, 4096);
		ssize_t n = at ? queue_content_read(content, at, 4096) : 0;
		if (n <= 0)
			break;
		buf_commit(&header, (size_t)n);
	}
	queue_content_close(&content);
	text = buf_slice(&header);
	for (ptrdiff_t end; (end = slice_find(text, '\n')) > 1 && json_array_size(lines) < HEADER_LINES_MAX;
	     text = slice_from(text, (size_t)end + 1))
		json_array_append_new(lines, control_text(without_line_end(slice_to(text, (size_t)end))));
	buf_fini(&header);
	return lines;
}

static json_t *queued_recipient(struct control *control, const struct queue_message *message, uint32_t r)
{
	const struct queue_recipient_status *status = &message->status[r];
	struct slice address = message->envelope.recipients[r].address;
	const struct recent_entry *ended =
	    status->state == QUEUE_FINAL && !status->last ? find_ended(control, message->id, address) : NULL;
	bool is_planned = status->state == QUEUE_WAITING && message->state != STATE_HELD;
	bool is_in_line = status->state == QUEUE_TAKEN && message->state != STATE_INFLIGHT;
	json_t *answer;

	if (ended)
		return recent_recipient(ended);
	answer = json_pack("{s:o, s:o}", "address", control_text(address), "submitted_as",
			   control_text(message->envelope.recipients[r].original));
	outcome_of(answer, status->kind, status->reason, status->attempts, status->last);
	json_object_set_new(answer, "next_attempt_sec",
			    is_planned ? control_seconds(control_now_wall(control), status->next_attempt_wall)
				       : json_null());
	if (message->envelope.recipient_count <= HISTORIES_MAX)
		json_object_set_new(answer, "history", history_of(control, message->id, r));
	json_object_set_new(answer, "why", is_planned || is_in_line ? why_of(control, message, r) : json_string(""));
	return answer;
}

static void add_recipients(struct control *control, const struct queue_message *message, bool final, json_t *list)
{
	for (uint32_t r = 0; r < message->envelope.recipient_count && json_array_size(list) < RECIPIENTS_MAX; r++)
		if ((message->status[r].state == QUEUE_FINAL) == final)
			json_array_append_new(list, queued_recipient(control, message, r));
}

/* Everybody in the envelope's order if that fits. */
static json_t *queued_recipients(struct control *control, const struct queue_message *message)
{
	json_t *list = json_array();

	if (message->envelope.recipient_count <= RECIPIENTS_MAX) {
		for (uint32_t r = 0; r < message->envelope.recipient_count; r++)
			json_array_append_new(list, queued_recipient(control, message, r));
		return list;
	}
	add_recipients(control, message, false, list);
	add_recipients(control, message, true, list);
	return list;
}

static json_t *queued_message(struct control *control, const struct queue_message *message)
{
	const struct queue_envelope *envelope = &message->envelope;
	json_t *answer = json_pack("{s:o, s:s, s:o, s:I, s:o, s:o, s:s, s:o, s:o, s:o}", "id", control_id(message->id),
				   "state", message_state_name(message->state), "age",
				   control_seconds(envelope->arrived_wall, control_now_wall(control)), "bytes",
				   (json_int_t)message->content_bytes, "sender", control_text(envelope->sender), "user",
				   control_text(envelope->user), "class", message_class_name(envelope->class), "client",
				   control_text(envelope->client), "message_id", control_text(envelope->message_id),
				   "tag", control_text(envelope->tag));

	json_object_set_new(answer, "submitted_sender", control_text(envelope->sender_original));
	json_object_set_new(answer, "relayhost", control_text(envelope->relayhost));
	json_object_set_new(answer, "header", header_of(control, message));
	json_object_set_new(answer, "recipients", queued_recipients(control, message));
	json_object_set_new(answer, "recipient_count", json_integer((json_int_t)envelope->recipient_count));
	return answer;
}

/* What the index knows of one that cannot be read. */
static void answer_unreadable(struct control *control, uint64_t id, int rc, struct http_response *response)
{
	struct queue_brief brief;
	json_t *answer;

	if (queue_brief(control->options.queue, id, &brief) != 0) {
		control_refuse(response, 404, "it has just left the queue");
		return;
	}
	answer = json_pack(
	    "{s:o, s:s, s:o, s:I, s:[], s:I, s:s}", "id", control_id(id), "state", message_state_name(brief.state),
	    "age", control_seconds(brief.arrived_wall, control_now_wall(control)), "bytes", (json_int_t)brief.bytes,
	    "recipients", "recipient_count", (json_int_t)brief.recipients, "unreadable", err_code_name(rc));
	control_answer(response, answer);
}

/* A result's words are read from the journal, where they are a few milliseconds after the attempt. */
static bool lacks_words(const struct queue_message *message)
{
	for (size_t r = 0; r < message->envelope.recipient_count; r++)
		if (message->status[r].kind != OUTCOME_NONE && !message->status[r].last)
			return true;
	return false;
}

static json_t *look_again(struct control *control, uint64_t id, bool synced, json_t *document)
{
	struct queue_message message;
	json_t *fresh;

	(void)synced;
	if (queue_read_envelope(control->options.queue, id, QUEUE_READ_OUTCOMES, &message) == 0) {
		fresh = queued_message(control, &message);
		queue_message_free(&message);
	} else {
		fresh = recent_message(control, id);
	}
	if (!fresh)
		return document;
	json_decref(document);
	return fresh;
}

static void answer_queued(struct control *control, const struct queue_message *message, struct http_response *response)
{
	json_t *document = queued_message(control, message);

	if (lacks_words(message))
		control_answer_synced(control, response, message->id, document, look_again);
	else
		control_answer(response, document);
}

void control_get_message(struct control *control, const struct http_request *request, json_t *body,
			 struct http_response *response)
{
	const char *text = http_request_query(request, "id");
	struct queue_message message;
	json_t *answer = NULL;
	uint64_t id;
	int rc;

	(void)body;
	if (!text) {
		control_refuse(response, 400, "id is missing");
		return;
	}
	if (!msgid_parse(slice_of_str(text), &id)) {
		control_refuse(response, 404, "'%.64s' is no id: 13 letters and digits, as in the 250 and in the log",
			       text);
		return;
	}
	rc = queue_read_envelope(control->options.queue, id, QUEUE_READ_OUTCOMES, &message);
	if (rc == 0) {
		answer_queued(control, &message, response);
		queue_message_free(&message);
		return;
	}
	if (rc != ERR_NOT_FOUND && rc != ERR_TEMPORARY) {
		answer_unreadable(control, id, rc, response);
		return;
	}
	answer = recent_message(control, id);
	if (answer)
		control_answer(response, answer);
	else
		control_refuse(response, 404,
			       "no message %.64s: it does not wait, nor has it ended lately; the log tells its end",
			       text);
}
