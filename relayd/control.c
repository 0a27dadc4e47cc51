#include "relayd/control_internal.h"

#include "base/base.h"
#include "base/msgid.h"
#include "relayd/json_text.h"
#include "relayd/router.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const struct {
	const char *method, *path;
	control_endpoint *endpoint;
} endpoints[] = {
    {"GET", "/v1/status", control_get_status},
    {"GET", "/v1/health", control_get_health},
    {"GET", "/v1/events", control_get_events},
    {"GET", "/v1/queue", control_get_queue},
    {"GET", "/v1/message", control_get_message},
    {"POST", "/v1/flush", control_post_flush},
    {"POST", "/v1/hold", control_post_hold},
    {"POST", "/v1/release", control_post_release},
    {"POST", "/v1/delete", control_post_delete},
    {"POST", "/v1/bounce", control_post_bounce},
    {"GET", "/v1/route", control_get_route},
    {"POST", "/v1/reload", control_post_reload},
    {"POST", "/v1/drain", control_post_drain},
    {"POST", "/v1/relayhosts/*/pause", control_post_relayhost},
    {"POST", "/v1/relayhosts/*/resume", control_post_relayhost},
};

struct control *control_new(const struct control_options *options)
{
	struct control *control = xcalloc(1, sizeof(*control));

	control->options = *options;
	list_init(&control->tails);
	control->activity = activity_new(options->loop, options->metrics);
	return control;
}

void control_free(struct control **control)
{
	if (!*control)
		return;
	activity_free(&(*control)->activity);
	free(*control);
	*control = NULL;
}

int64_t control_now_wall(const struct control *control)
{
	return clock_wall_ms(control->options.clock);
}

const struct config *control_config(const struct control *control)
{
	return control->options.config(control->options.ctx);
}

/* ---- requests ---- */

static bool is_method(const struct http_request *request, const char *method)
{
	return strcmp(request->method, method) == 0 ||
	       (strcmp(request->method, "HEAD") == 0 && strcmp(method, "GET") == 0);
}

static void post(struct control *control, control_endpoint *endpoint, const struct http_request *request,
		 struct http_response *response)
{
	struct slice text = slice_trim(request->body);
	json_error_t error;
	json_t *body = text.len == 0 ? json_object() : json_loadb(text.ptr, text.len, JSON_REJECT_DUPLICATES, &error);

	if (!body)
		control_refuse(response, 400, "the request is not JSON: %s", error.text);
	else if (!json_is_object(body))
		control_refuse(response, 400, "the request is not a JSON object");
	else
		endpoint(control, request, body, response);
	json_decref(body);
}

/* '*' stands for one part. */
static bool path_fits(const char *pattern, const char *path)
{
	for (; *pattern; pattern++) {
		if (*pattern != '*') {
			if (*pattern != *path++)
				return false;
			continue;
		}
		if (*path == '/' || *path == '\0')
			return false;
		path += strcspn(path, "/");
	}
	return *path == '\0';
}

void control_handle(void *ctx, const struct http_request *request, struct http_response *response)
{
	response->content_type = "application/json";
	for (size_t i = 0; i < ARRAY_LEN(endpoints); i++) {
		if (!path_fits(endpoints[i].path, request->path))
			continue;
		if (!is_method(request, endpoints[i].method))
			control_refuse(response, 405, "%s wants %s", endpoints[i].path, endpoints[i].method);
		else if (strcmp(endpoints[i].method, "POST") == 0)
			post(ctx, endpoints[i].endpoint, request, response);
		else
			endpoints[i].endpoint(ctx, request, NULL, response);
		return;
	}
	control_refuse(response, 404, "no such path");
}

/* ---- JSON ---- */

json_t *control_text(struct slice text)
{
	return json_clean_text(text);
}

json_t *control_str(const char *text)
{
	return control_text(slice_of_str(text));
}

json_t *control_id(uint64_t id)
{
	char text[MSGID_CHARS + 1];

	msgid_format(id, text);
	return json_string(text);
}

json_t *control_iso_time(int64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm tm;
	char text[40];

	if (!gmtime_r(&seconds, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		return json_null();
	return json_string(text);
}

json_t *control_seconds(int64_t from_wall, int64_t to_wall)
{
	return json_integer(to_wall > from_wall ? (to_wall - from_wall) / 1000 : 0);
}

int control_append_piece(const char *bytes, size_t len, void *ctx)
{
	return buf_append(ctx, slice_of(bytes, len));
}

int control_dump(struct buf *out, const json_t *document)
{
	size_t before = buf_len(out);

	if (json_dump_callback(document, control_append_piece, out, JSON_COMPACT) == 0)
		return 0;
	buf_truncate(out, before);
	return ERR_LIMIT;
}

void control_answer(struct http_response *response, json_t *document)
{
	if (control_dump(&response->body, document) != 0)
		control_refuse(response, 500, "the answer is too long");
	else
		buf_append_byte(&response->body, '\n');
	json_decref(document);
}

void control_refuse(struct http_response *response, int status, const char *format, ...)
{
	char words[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(words, sizeof(words), format, args);
	va_end(args);
	response->status = status;
	control_answer(response, json_pack("{s:o}", "error", control_str(words)));
}

/* ---- domains and destinations ---- */

void control_domain_init(struct control_domain *domain, const char *text)
{
	char address[DESTINATION_NAME_MAX + 1];

	if (*text == '@')
		text++;
	snprintf(domain->text, sizeof(domain->text), "%s", text);
	snprintf(address, sizeof(address), "@%s", domain->text);
	if (router_domain_of(slice_of_str(address), domain->ascii, sizeof(domain->ascii)) != 0)
		domain->ascii[0] = '\0';
}

bool control_domain_matches(const struct control_domain *domain, struct slice address)
{
	struct slice own = slice_from(address, (size_t)(slice_find_last(address, '@') + 1));
	char ascii[DESTINATION_NAME_MAX];

	if (domain->text[0] == '\0' || slice_case_eq(own, slice_of_str(domain->text)))
		return true;
	if (domain->ascii[0] == '\0')
		return false;
	if (slice_is_ascii(own))
		return slice_case_eq(own, slice_of_str(domain->ascii));
	return router_domain_of(address, ascii, sizeof(ascii)) == 0 && strcmp(ascii, domain->ascii) == 0;
}

void control_route(struct control *control, const struct queue_envelope *envelope, uint32_t recipient,
		   struct scheduler_targets *out)
{
	struct router_question question = router_question_of(envelope, recipient);

	router_decide(control_config(control), rng_system(), &question, out, NULL);
}

bool control_is_backing_off(const struct control *control, const struct destination *destination)
{
	return destination->backoff_until_ms > loop_now_ms(control->options.loop);
}

void control_retry_targets(struct control *control, const struct queue_message *message,
			   const struct control_domain *domain)
{
	for (uint32_t r = 0; r < message->envelope.recipient_count; r++) {
		struct scheduler_targets targets;
		if (message->status[r].state == QUEUE_FINAL ||
		    !control_domain_matches(domain, message->envelope.recipients[r].address))
			continue;
		control_route(control, &message->envelope, r, &targets);
		for (size_t i = 0; i < targets.count; i++) {
			/* Found anew each time: a retry may make and forget destinations. */
			struct destination *d = destinations_find(control->options.destinations, &targets.targets[i]);
			if (d && control_is_backing_off(control, d))
				destination_retry_now(d);
		}
	}
}
