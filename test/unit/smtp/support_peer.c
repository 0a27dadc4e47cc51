#include "support_peer.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

enum { LINE = 4096, LOG = 256 };

/* How a run cuts the streams. */
struct cutting {
	size_t in_step, out_step; /* octets a time; 0: all */
	size_t cut_at;		  /* of all that the server sends; 0: nowhere */
};

struct player {
	const struct peer_setup *setup;
	struct smtp_client *client;
	struct cutting cutting;
	int64_t now_ms;
	size_t server_bytes; /* so far */
	struct buf output;
	char *events[LOG];
	size_t event_count, event_at;
	bool feeding;
	struct slice rest; /* content */
	int line_number;
	const char *line;
};

void peer_describe(const struct smtp_client_event *event, char *out, size_t size)
{
	const struct smtp_client_result *result = &event->result;
	char index[16] = "";

	if (event->type == SMTP_CLIENT_TRANSACTION_DONE) {
		snprintf(out, size, "done%s", event->reusable ? " reusable" : "");
	} else if (event->type == SMTP_CLIENT_RESULT || event->type == SMTP_CLIENT_FAILED ||
		   event->type == SMTP_CLIENT_CLOSED) {
		if (event->type == SMTP_CLIENT_RESULT)
			snprintf(index, sizeof(index), " %u", event->recipient);
		snprintf(out, size, "%s%s %s %s %d%s%s%s%s%s%s%s%s", smtp_client_event_name(event->type), index,
			 smtp_client_cause_name(result->cause), delivery_stage_name(result->stage), result->reply.code,
			 result->reply.enhanced[0] ? " " : "", result->reply.enhanced, result->reply.text[0] ? " " : "",
			 result->reply.text, result->may_have_been_taken ? " +taken" : "",
			 result->untried ? " +untried" : "", result->too_many_recipients ? " +toomany" : "",
			 event->try_helo ? " +helo" : "");
	} else {
		snprintf(out, size, "%s", smtp_client_event_name(event->type));
	}
}

_Noreturn static void wrong(const struct player *p, const char *what, const char *detail)
{
	fail_msg("line %d '%s': %s '%s' (in_step %zu, out_step %zu, cut_at %zu)", p->line_number, p->line, what, detail,
		 p->cutting.in_step, p->cutting.out_step, p->cutting.cut_at);
	abort();
}

static void take_events(struct player *p)
{
	struct smtp_client_event event;
	char text[2 * LINE];

	while (smtp_client_next(p->client, &event)) {
		peer_describe(&event, text, sizeof(text));
		assert_true(p->event_count < LOG);
		p->events[p->event_count++] = xstrdup(text);
		if (event.type == SMTP_CLIENT_NEED_BODY)
			p->feeding = !p->setup->keeps_body_to_itself;
		if (event.type == SMTP_CLIENT_TRANSACTION_DONE)
			p->feeding = false;
	}
	memset(&event, 0xff, sizeof(event));
	assert_false(smtp_client_next(p->client, &event));
}

static bool feed(struct player *p)
{
	size_t room = p->feeding ? smtp_client_body_room(p->client) : 0, taken;

	if (room == 0)
		return false;
	if (p->rest.len == 0) {
		smtp_client_body_end(p->client);
		p->feeding = false;
		return true;
	}
	taken = smtp_client_body(p->client, slice_to(p->rest, p->cutting.out_step ? p->cutting.out_step : SIZE_MAX));
	assert_true(taken > 0);
	p->rest = slice_from(p->rest, taken);
	return true;
}

static void pump(struct player *p)
{
	bool moved;

	do {
		struct slice out;

		take_events(p);
		out = smtp_client_output(p->client);
		moved = out.len > 0;
		out = slice_to(out, p->cutting.out_step ? p->cutting.out_step : SIZE_MAX);
		assert_int_equal(buf_append(&p->output, out), 0);
		smtp_client_output_sent(p->client, out.len);
		moved = feed(p) || moved;
	} while (moved);
}

/* Everything the client has said and done has been asked for. */
static void expect_quiet(struct player *p)
{
	char text[LINE];

	slice_to_cstr(buf_slice(&p->output), text, sizeof(text));
	if (buf_len(&p->output))
		wrong(p, "the client also said", text);
	if (p->event_at < p->event_count)
		wrong(p, "there was also the event", p->events[p->event_at]);
}

static void expect_output(struct player *p, struct slice wanted)
{
	struct slice got = buf_slice(&p->output);
	char text[LINE];
	ptrdiff_t lf = slice_find(got, '\n');

	slice_to_cstr(slice_to(got, lf < 0 ? got.len : (size_t)lf), text, sizeof(text));
	if (lf < 1 || got.ptr[lf - 1] != '\r' || !slice_eq(slice_to(got, (size_t)lf - 1), wanted))
		wrong(p, "the client said", text);
	buf_consume(&p->output, (size_t)lf + 1);
}

static void expect_event(struct player *p, const char *wanted)
{
	if (p->event_at == p->event_count)
		wrong(p, "there is no event", "");
	if (strcmp(p->events[p->event_at], wanted) != 0)
		wrong(p, "the event is", p->events[p->event_at]);
	p->event_at++;
}

static void deliver(struct player *p, struct slice bytes)
{
	while (bytes.len) {
		size_t len = p->cutting.in_step ? p->cutting.in_step : bytes.len, left;

		len = MIN(len, bytes.len);
		left = p->cutting.cut_at > p->server_bytes ? p->cutting.cut_at - p->server_bytes : SIZE_MAX;
		len = MIN(len, left);
		smtp_client_input(p->client, slice_to(bytes, len));
		bytes = slice_from(bytes, len);
		p->server_bytes += len;
		pump(p);
	}
}

static void do_action(struct player *p, const char *action)
{
	const char *rest = strchr(action, ' ');

	rest = rest ? rest + 1 : "";
	if (strncmp(action, "eof+send", 8) == 0) {
		smtp_client_eof(p->client, NULL);
		smtp_client_send(p->client, &p->setup->transactions[strtol(rest, NULL, 10)]);
	} else if (strncmp(action, "send", 4) == 0) {
		p->rest = p->setup->content
			      ? slice_of(p->setup->content,
					 p->setup->content_len ? p->setup->content_len : strlen(p->setup->content))
			      : SLICE("Subject: x\r\n\r\nhello\r\n");
		smtp_client_send(p->client, &p->setup->transactions[strtol(rest, NULL, 10)]);
	} else if (strcmp(action, "quit") == 0) {
		smtp_client_quit(p->client);
	} else if (strncmp(action, "eof", 3) == 0) {
		smtp_client_eof(p->client, *rest ? rest : NULL);
	} else if (strncmp(action, "tick", 4) == 0) {
		p->now_ms += strtol(rest, NULL, 10);
		smtp_client_tick(p->client, p->now_ms);
	} else if (strcmp(action, "tls") == 0) {
		smtp_client_tls_started(p->client);
	} else if (strncmp(action, "tlsfail", 7) == 0) {
		smtp_client_tls_failed(p->client, rest);
	} else if (strncmp(action, "abort", 5) == 0) {
		smtp_client_abort(p->client, rest);
	} else if (strncmp(action, "feed", 4) == 0) {
		size_t taken = smtp_client_body(p->client, slice_to(p->rest, (size_t)strtol(rest, NULL, 10)));
		assert_int_equal(taken, strtol(rest, NULL, 10));
		p->rest = slice_from(p->rest, taken);
		if (strstr(action, " end"))
			smtp_client_body_end(p->client);
	} else if (strcmp(action, "end") == 0) {
		smtp_client_body_end(p->client);
	} else {
		wrong(p, "unknown action", action);
	}
	pump(p);
}

static void unescape(struct buf *out, const char *text)
{
	for (; *text; text++) {
		unsigned byte = (unsigned char)*text;

		if (*text == '\\') {
			text++;
			byte = *text == 'r' ? '\r' : *text == 'n' ? '\n' : (unsigned char)*text;
			if (*text == 'x') {
				char hex[3] = {text[1], text[2], 0};
				byte = (unsigned)strtoul(hex, NULL, 16);
				text += 2;
			}
		}
		assert_int_equal(buf_append_byte(out, (char)byte), 0);
	}
}

/* One run; returns how many octets the server sent. */
static size_t run(const struct peer_setup *setup, const char *transcript, struct cutting cutting)
{
	struct player p = {.setup = setup, .cutting = cutting, .now_ms = 1000, .line = ""};
	struct buf server;
	char line[LINE];

	buf_init(&p.output, 64 * 1024 * 1024);
	buf_init(&server, 1 << 20);
	p.client = smtp_client_new(&setup->options, p.now_ms);
	pump(&p);
	while (*transcript) {
		size_t len = strcspn(transcript, "\n");

		assert_true(len < sizeof(line));
		memcpy(line, transcript, len);
		line[len] = '\0';
		transcript += len + (transcript[len] == '\n');
		p.line_number++;
		p.line = line;
		if (line[0] == 'S') {
			expect_quiet(&p);
			unescape(&server, line + 3);
			if (line[1] == ':')
				assert_int_equal(buf_append_str(&server, "\r\n"), 0);
			if (*transcript == 'S')
				continue;
			deliver(&p, buf_slice(&server));
			buf_clear(&server);
		} else if (line[0] == '>') {
			expect_quiet(&p);
			do_action(&p, line + 2);
		} else if (line[0] == 'C') {
			expect_output(&p, slice_from(slice_of_str(line), 3));
		} else if (line[0] == '=') {
			expect_event(&p, line + 2);
		} else {
			wrong(&p, "not a line of a transcript", line);
		}
	}
	p.line = "the end";
	expect_quiet(&p);
	if (setup->check)
		setup->check(p.client);
	smtp_client_free(&p.client);
	assert_null(p.client);
	for (size_t i = 0; i < p.event_count; i++)
		free(p.events[i]);
	buf_fini(&p.output);
	buf_fini(&server);
	return p.server_bytes;
}

void peer_play(const struct peer_setup *setup, const char *transcript)
{
	size_t bytes = run(setup, transcript, (struct cutting){0});

	run(setup, transcript, (struct cutting){.in_step = 1});
	run(setup, transcript, (struct cutting){.out_step = 1});
	run(setup, transcript, (struct cutting){.in_step = 1, .out_step = 1});
	for (size_t at = 1; at < bytes && at < 4096; at++)
		run(setup, transcript, (struct cutting){.cut_at = at});
}
