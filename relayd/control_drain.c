/* POST /v1/drain - lines that tell how far it is: {left, held}, at last {drained, left, held}. */
#include "relayd/control_internal.h"

#include "base/base.h"
#include "config/values.h"

#include <stdlib.h>

enum { TELL_EACH_MS = 200, TIMEOUT_DEFAULT_MS = 5 * 60 * 1000 };

struct watching {
	struct control *control;
	struct http_stream *stream;
	timer_id timer;
	bool is_due;
};

static void watching_free(void *ctx)
{
	struct watching *watching = ctx;

	timers_cancel(loop_timers(watching->control->options.loop), &watching->timer);
	free(watching);
}

static void on_due(void *ctx)
{
	struct watching *watching = ctx;

	watching->is_due = true;
	http_stream_wake(watching->stream);
}

static enum http_more watching_next(void *ctx, struct buf *out)
{
	struct watching *watching = ctx;
	struct loop *loop = watching->control->options.loop;
	struct drain_progress progress;
	json_t *line;

	if (!watching->is_due) {
		timers_set(loop_timers(loop), &watching->timer, loop_now_ms(loop) + TELL_EACH_MS, on_due, watching);
		return HTTP_WAIT;
	}
	watching->is_due = false;
	drain_look(watching->control->options.drain, &progress);
	line = json_pack("{s:I, s:I}", "left", (json_int_t)progress.left, "held", (json_int_t)progress.held);
	if (progress.is_over)
		json_object_set_new(line, "drained", json_boolean(progress.left + progress.held == 0));
	BUG_ON(control_dump(out, line) != 0);
	buf_append_byte(out, '\n');
	json_decref(line);
	return progress.is_over ? HTTP_END : HTTP_MORE;
}

void control_post_drain(struct control *control, const struct http_request *request, json_t *body,
			struct http_response *response)
{
	const char *text = json_string_value(json_object_get(body, "timeout"));
	int64_t timeout_ms = TIMEOUT_DEFAULT_MS;
	struct watching *watching;
	struct err why;

	(void)request;
	if (json_object_size(body) > (text ? 1 : 0)) {
		control_refuse(response, 400, "the request wants {} or {\"timeout\": \"5m\"}");
		return;
	}
	if (text && config_duration_parse(slice_of_str(text), &timeout_ms, &why) != 0) {
		control_refuse(response, 400, "timeout: '%.64s' %s", text, why.text);
		return;
	}
	drain_begin(control->options.drain, timeout_ms);
	watching = xcalloc(1, sizeof(*watching));
	watching->control = control;
	watching->is_due = true;
	response->content_type = "application/x-ndjson";
	response->stream_next = watching_next;
	response->stream_free = watching_free;
	response->stream_ctx = watching;
	response->stream = &watching->stream;
}
