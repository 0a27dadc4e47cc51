/*
 * GET /v1/events - what happens, as it happens: the facts of the log as JSON lines, those that the client asks for
 *
 * Each client has a buffer; what does not fit, because it reads too slowly, is dropped for it and counted, and it is
 * told how many were. Nothing is kept for nobody: without clients the log has no tap.
 */
#include "relayd/control_filter.h"

#include "base/base.h"
#include "base/msgid.h"

#include <stdlib.h>
#include <time.h>

enum {
	PENDING_MAX_BYTES = 256 * 1024,
	STEP_BYTES = 32 * 1024,
	HEARTBEAT_MS = 10 * 1000, /* shows a client that left that nobody is there */
};

struct tail {
	struct list node; /* in control->tails */
	struct control *control;
	struct http_stream *stream;
	timer_id timer;
	enum log_level level;
	char *events; /* parted by commas; NULL: any */
	char *sender, *recipient, *user, *relayhost, *outcome;
	uint64_t id; /* 0: any */
	struct control_domain domain;
	struct buf pending;
	uint64_t dropped;
	bool waits;
};

static void tail_free(void *ctx)
{
	struct tail *tail = ctx;

	list_remove(&tail->node);
	if (list_is_empty(&tail->control->tails))
		log_set_tap(tail->control->options.log, NULL, NULL);
	timers_cancel(loop_timers(tail->control->options.loop), &tail->timer);
	buf_fini(&tail->pending);
	free(tail->events);
	free(tail->sender);
	free(tail->recipient);
	free(tail->user);
	free(tail->relayhost);
	free(tail->outcome);
	free(tail);
}

/* ---- which ---- */

static const struct log_field *find_field(const struct log_field *fields, const char *key)
{
	for (; fields->type != LOG_FIELD_END; fields++)
		if (strcmp(fields->key, key) == 0)
			return fields;
	return NULL;
}

static struct slice field_text(const struct log_field *fields, const char *key)
{
	const struct log_field *field = find_field(fields, key);

	return field ? field->text : SLICE("");
}

static bool is_listed(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
		if (strncmp(at, word, len) == 0 && (at[len] == ',' || at[len] == '\0'))
			return true;
	return false;
}

/* Of a relayhost itself, or of what went by it. */
static bool is_of_relayhost(const struct log_field *fields, const char *name)
{
	struct slice destination = field_text(fields, "destination"), prefix = SLICE("relayhost:");
	struct slice wanted = slice_of_str(name), rest;

	if (slice_eq(field_text(fields, "relayhost"), wanted))
		return true;
	if (!slice_has_prefix(destination, prefix))
		return false;
	rest = slice_from(destination, prefix.len);
	return slice_has_prefix(rest, wanted) && (rest.len == wanted.len || rest.ptr[wanted.len] == '/');
}

static bool is_sender(const struct log_field *fields, const char *sender)
{
	const struct log_field *from = find_field(fields, "from");
	struct slice wanted = slice_of_str(sender);

	return from && slice_case_eq(from->text, slice_eq(wanted, SLICE("<>")) ? SLICE("") : wanted);
}

static bool wants(const struct tail *tail, enum log_level level, const char *event, const struct log_field *fields)
{
	const struct log_field *id = tail->id ? find_field(fields, "id") : NULL;

	if (level > tail->level || (tail->events && !is_listed(tail->events, event)))
		return false;
	if (tail->id && (!id || (uint64_t)id->number != tail->id))
		return false;
	if (tail->domain.text[0] &&
	    (!find_field(fields, "rcpt") || !control_domain_matches(&tail->domain, field_text(fields, "rcpt"))))
		return false;
	return (!tail->user || slice_eq(field_text(fields, "user"), slice_of_str(tail->user))) &&
	       (!tail->sender || is_sender(fields, tail->sender)) &&
	       (!tail->recipient || slice_case_eq(field_text(fields, "rcpt"), slice_of_str(tail->recipient))) &&
	       (!tail->outcome || slice_eq(field_text(fields, "outcome"), slice_of_str(tail->outcome))) &&
	       (!tail->relayhost || is_of_relayhost(fields, tail->relayhost));
}

/* ---- lines ---- */

static json_t *time_of(int64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm tm;
	char text[40];

	if (!gmtime_r(&seconds, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
		return json_null();
	return json_sprintf("%s.%03dZ", text, (int)(wall_ms % 1000));
}

static json_t *begin_line(struct control *control, enum log_level level, const char *event)
{
	return json_pack("{s:o, s:s, s:s}", "time", time_of(control_now_wall(control)), "level", log_level_name(level),
			 "event", event);
}

static json_t *line_of(struct control *control, enum log_level level, const char *event, const struct log_field *fields)
{
	json_t *line = begin_line(control, level, event);

	for (; fields->type != LOG_FIELD_END; fields++) {
		json_t *value = NULL;
		if (fields->type == LOG_FIELD_INT)
			value = json_integer((json_int_t)fields->number);
		else if (fields->type == LOG_FIELD_ID && fields->number != 0)
			value = control_id((uint64_t)fields->number);
		else if (fields->type == LOG_FIELD_ADDRESS || (fields->type == LOG_FIELD_TEXT && fields->text.len))
			value = control_text(slice_to(fields->text, 1000));
		if (value)
			json_object_set_new(line, fields->key, value);
	}
	return line;
}

static void put(struct tail *tail, const json_t *line)
{
	if (tail->dropped > 0 || control_dump(&tail->pending, line) != 0 || buf_append_byte(&tail->pending, '\n') != 0)
		tail->dropped++;
}

static void on_time(void *ctx);

static void wake_at(struct tail *tail, int64_t at_ms)
{
	timers_set(loop_timers(tail->control->options.loop), &tail->timer, at_ms, on_time, tail);
}

/* Of what has happened in this turn, or the heartbeat. */
static void on_time(void *ctx)
{
	struct tail *tail = ctx;

	if (tail->waits && buf_len(&tail->pending) == 0)
		buf_append_byte(&tail->pending, '\n');
	tail->waits = false;
	http_stream_wake(tail->stream);
}

/* From anywhere: the stream is woken later. */
static void on_fact(void *ctx, enum log_level level, const char *event, const struct log_field *fields)
{
	struct control *control = ctx;
	json_t *line = NULL;

	LIST_FOREACH (node, &control->tails) {
		struct tail *tail = CONTAINER_OF(node, struct tail, node);
		if (!wants(tail, level, event, fields))
			continue;
		line = line ? line : line_of(control, level, event, fields);
		put(tail, line);
		if (tail->waits)
			wake_at(tail, loop_now_ms(control->options.loop));
	}
	json_decref(line);
}

static void tell_of_dropped(struct tail *tail)
{
	json_t *line = begin_line(tail->control, LOG_WARN, "dropped");

	json_object_set_new(line, "count", json_integer((json_int_t)tail->dropped));
	tail->dropped = 0;
	put(tail, line);
	json_decref(line);
}

static enum http_more tail_next(void *ctx, struct buf *out)
{
	struct tail *tail = ctx;
	struct slice some;

	if (buf_len(&tail->pending) == 0 && tail->dropped > 0)
		tell_of_dropped(tail);
	some = slice_to(buf_slice(&tail->pending), STEP_BYTES);
	if (some.len == 0) {
		tail->waits = true;
		wake_at(tail, loop_now_ms(tail->control->options.loop) + HEARTBEAT_MS);
		return HTTP_WAIT;
	}
	buf_append(out, some);
	buf_consume(&tail->pending, some.len);
	return HTTP_MORE;
}

/* ---- the request ---- */

static char *copy(const struct http_request *request, const char *name)
{
	const char *value = http_request_query(request, name);

	return value ? xstrdup(value) : NULL;
}

static int parse_level(struct tail *tail, const char *word, struct http_response *response)
{
	tail->level = LOG_INFO;
	if (!word)
		return 0;
	for (int level = LOG_ERROR; level <= LOG_DEBUG; level++)
		if (strcmp(log_level_name((enum log_level)level), word) == 0) {
			tail->level = (enum log_level)level;
			return 0;
		}
	control_refuse(response, 400, "unknown level '%.64s'; there are error, warn, info, debug", word);
	return ERR_SYNTAX;
}

static int parse(struct tail *tail, const struct http_request *request, struct http_response *response)
{
	const char *id = http_request_query(request, "id"), *domain = http_request_query(request, "domain");

	if (parse_level(tail, http_request_query(request, "level"), response) != 0)
		return ERR_SYNTAX;
	if (id && !msgid_parse(slice_of_str(id), &tail->id)) {
		control_refuse(response, 400, "'%.64s' is no id", id);
		return ERR_SYNTAX;
	}
	if (domain)
		control_domain_init(&tail->domain, domain);
	tail->events = copy(request, "event");
	tail->sender = copy(request, "sender");
	tail->recipient = copy(request, "recipient");
	tail->user = copy(request, "user");
	tail->relayhost = copy(request, "relayhost");
	tail->outcome = copy(request, "outcome");
	return 0;
}

void control_get_events(struct control *control, const struct http_request *request, json_t *body,
			struct http_response *response)
{
	struct tail *tail = xcalloc(1, sizeof(*tail));
	json_t *first;

	(void)body;
	tail->control = control;
	buf_init(&tail->pending, PENDING_MAX_BYTES);
	list_append(&control->tails, &tail->node);
	if (parse(tail, request, response) != 0) {
		tail_free(tail);
		return;
	}
	first = begin_line(control, LOG_INFO, "tail");
	json_object_set_new(first, "text", json_string("what happens from now on"));
	put(tail, first);
	json_decref(first);
	log_set_tap(control->options.log, on_fact, control);
	response->content_type = "application/x-ndjson";
	response->stream_next = tail_next;
	response->stream_free = tail_free;
	response->stream_ctx = tail;
	response->stream = &tail->stream;
}
