/*
 * GET /v1/queue - the listing, written piece by piece while the client reads, so that a million messages stall nothing.
 * It walks the index in its order; what comes or goes meanwhile may or may not be in it.
 */
#include "relayd/control_internal.h"

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
	LIMIT_DEFAULT = 1000,
	/* One step: about two milliseconds of work, in looks at a place of the index. */
	STEP_WORK = 10000,
	READ_WORK = 50,
	STEP_BYTES = 32 * 1024,
	/* A row stays far below the stream's buffer, however many recipients there are. */
	ROW_RECIPIENTS_MAX = 100,
	ROW_ADDRESS_BYTES_MAX = 16 * 1024,
	/* More outcomes are not looked up for a row's reason. */
	ROW_OUTCOMES_MAX = 4,
};

struct listing {
	struct control *control;
	bool has_state, begun, more;
	enum message_state state;
	struct control_domain domain;
	char *sender, *user; /* NULL: any */
	int64_t limit, listed;
	uint64_t cursor;
	unsigned work;
	struct buf *out;
};

static void listing_free(void *ctx)
{
	struct listing *listing = ctx;

	free(listing->sender);
	free(listing->user);
	free(listing);
}

/* ---- rows ---- */

static json_t *iso_time(int64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm tm;
	char text[40];

	if (!gmtime_r(&seconds, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		return json_null();
	return json_string(text);
}

/* The word, and what the server said where it is at hand. */
static json_t *reason_of(const struct queue_brief *brief, const struct queue_message *message)
{
	char text[700];

	if (brief->corrupt)
		return json_string("its stored bytes are damaged");
	if (brief->reason == CLASS_NONE)
		return json_string("");
	snprintf(text, sizeof(text), "%s", failure_class_name(brief->reason));
	for (size_t i = 0; message && i < message->envelope.recipient_count; i++) {
		const struct queue_recipient_status *status = &message->status[i];
		if (status->state == QUEUE_FINAL || !status->last || status->reason != brief->reason)
			continue;
		snprintf(text, sizeof(text), "%s: %s", failure_class_name(brief->reason), status->last->text);
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

static void set_next_attempt(json_t *row, const struct queue_brief *brief, int64_t now)
{
	bool is_planned = brief->state != STATE_HELD && brief->next_attempt_wall != INT64_MAX;

	json_object_set_new(row, "next_attempt", is_planned ? iso_time(brief->next_attempt_wall) : json_null());
	json_object_set_new(row, "next_attempt_sec",
			    is_planned ? control_seconds(now, brief->next_attempt_wall) : json_null());
}

/* `message` NULL: it cannot be read. */
static json_t *row_of(struct control *control, const struct queue_brief *brief, const struct queue_message *message)
{
	int64_t now = control_now_wall(control);
	json_t *row = json_pack("{s:o, s:s, s:o, s:o, s:I, s:o, s:I}", "id", control_id(brief->id), "state",
				message_state_name(brief->state), "sender",
				control_text(message ? message->envelope.sender : SLICE("")), "recipients",
				recipients_of(message), "recipient_count", (json_int_t)brief->open, "age",
				control_seconds(brief->arrived_wall, now), "attempts", (json_int_t)brief->attempts);

	set_next_attempt(row, brief, now);
	json_object_set_new(row, "reason", reason_of(brief, message));
	json_object_set_new(row, "class", json_string(message_class_name(brief->class)));
	json_object_set_new(row, "bytes", json_integer((json_int_t)brief->bytes));
	json_object_set_new(row, "user", control_text(message ? message->envelope.user : SLICE("")));
	return row;
}

/* ---- conditions ---- */

static bool sender_matches(const struct listing *listing, struct slice sender)
{
	struct slice wanted;

	if (!listing->sender)
		return true;
	wanted = slice_of_str(listing->sender);
	return slice_case_eq(sender, slice_eq(wanted, SLICE("<>")) ? SLICE("") : wanted);
}

static bool has_recipient(const struct control_domain *domain, const struct queue_message *message)
{
	for (size_t i = 0; i < message->envelope.recipient_count; i++)
		if (message->status[i].state != QUEUE_FINAL &&
		    control_domain_matches(domain, message->envelope.recipients[i].address))
			return true;
	return false;
}

static bool wants_envelope(const struct listing *listing)
{
	return listing->sender || listing->user || listing->domain.text[0];
}

static bool matches(const struct listing *listing, const struct queue_message *message)
{
	return sender_matches(listing, message->envelope.sender) &&
	       (!listing->user || slice_eq(message->envelope.user, slice_of_str(listing->user))) &&
	       has_recipient(&listing->domain, message);
}

/* ---- the walk ---- */

static void append_row(struct listing *listing, const struct queue_brief *brief, const struct queue_message *message)
{
	json_t *row;

	if (listing->listed == listing->limit) {
		listing->more = true;
		return;
	}
	row = row_of(listing->control, brief, message);
	if (listing->listed++ > 0)
		buf_append_byte(listing->out, ',');
	buf_append_byte(listing->out, '\n');
	BUG_ON(control_dump(listing->out, row) != 0);
	json_decref(row);
}

static void visit(void *ctx, const struct queue_brief *brief)
{
	struct listing *listing = ctx;
	struct queue *queue = listing->control->options.queue;
	bool with_outcomes = brief->recipients <= ROW_OUTCOMES_MAX && brief->attempts > 0;
	struct queue_message message;
	struct queue_brief now;

	if (listing->has_state && brief->state != listing->state)
		return;
	listing->work += READ_WORK * (with_outcomes ? 1 + brief->recipients : 1);
	if (queue_read_envelope(queue, brief->id, with_outcomes ? QUEUE_READ_OUTCOMES : 0, &message) == 0) {
		if (matches(listing, &message))
			append_row(listing, brief, &message);
		queue_message_free(&message);
	} else if (!wants_envelope(listing) && queue_brief(queue, brief->id, &now) == 0) {
		append_row(listing, &now, NULL); /* perhaps it has only now been found damaged, and put aside */
	}
}

static enum http_more listing_next(void *ctx, struct buf *out)
{
	struct listing *listing = ctx;
	size_t before = buf_len(out);

	if (!listing->begun)
		buf_append_str(out, "{\"messages\":[");
	listing->begun = true;
	listing->out = out;
	listing->work = 0;
	do {
		queue_iterate(listing->control->options.queue, &listing->cursor, 1, visit, listing);
		listing->work++;
	} while (listing->cursor != 0 && !listing->more && listing->work < STEP_WORK &&
		 buf_len(out) - before < STEP_BYTES);
	if (listing->cursor != 0 && !listing->more) {
		if (buf_len(out) == before)
			buf_append_byte(out, '\n'); /* the client sees that we are at it */
		return HTTP_MORE;
	}
	buf_printf(out, "],\n\"more\":%s}\n", listing->more ? "true" : "false");
	return HTTP_END;
}

/* ---- the request ---- */

static char *copy_query(const struct http_request *request, const char *name)
{
	const char *value = http_request_query(request, name);

	return value ? xstrdup(value) : NULL;
}

static bool parse_state(struct listing *listing, const char *word, struct http_response *response)
{
	struct buf known;

	if (!word)
		return true;
	listing->has_state = true;
	if (message_state_parse(slice_of_str(word), &listing->state))
		return true;
	buf_init(&known, 1024);
	for (int state = 0; state < STATE_COUNT; state++)
		buf_printf(&known, "%s%s", state ? ", " : "", message_state_name(state));
	control_refuse(response, 400, "unknown state '%.64s'; there are %.*s", word, SLICE_ARG(buf_slice(&known)));
	buf_fini(&known);
	return false;
}

static bool parse_limit(struct listing *listing, const char *text, struct http_response *response)
{
	char *end = NULL;

	listing->limit = LIMIT_DEFAULT;
	if (!text)
		return true;
	listing->limit = *text >= '0' && *text <= '9' ? strtoll(text, &end, 10) : 0;
	if (listing->limit > 0 && *end == '\0')
		return true;
	control_refuse(response, 400, "limit wants a number above 0, not '%.64s'", text);
	return false;
}

static bool parse_domain(struct listing *listing, const char *text, struct http_response *response)
{
	if (!text)
		return true;
	control_domain_init(&listing->domain, text);
	if (listing->domain.text[0])
		return true;
	control_refuse(response, 400, "domain wants a name");
	return false;
}

void control_get_queue(struct control *control, const struct http_request *request, json_t *body,
		       struct http_response *response)
{
	struct listing *listing = xcalloc(1, sizeof(*listing));

	(void)body;
	listing->control = control;
	listing->sender = copy_query(request, "sender");
	listing->user = copy_query(request, "user");
	if (!parse_state(listing, http_request_query(request, "state"), response) ||
	    !parse_limit(listing, http_request_query(request, "limit"), response) ||
	    !parse_domain(listing, http_request_query(request, "domain"), response)) {
		listing_free(listing);
		return;
	}
	response->stream_next = listing_next;
	response->stream_free = listing_free;
	response->stream_ctx = listing;
}
