#include "relayctl/submit.h"

#include "base/base.h"
#include "base/buf.h"
#include "base/clock.h"
#include "relayctl/link.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

enum { REPLY_TIMEOUT_MS = 120 * 1000 };

struct dialog {
	const struct submit_server *server;
	const struct submission *submission;
	struct submit_result *result;
	struct err *err;
	struct link *link;
	struct smtp_client *client;
	struct smtp_client_recipient *recipients;
	struct smtp_transaction transaction;
	struct slice content;
	size_t sent;
	bool feeding, is_over, is_broken;
	int rc; /* of what is worst */
};

bool submit_tls_parse(const char *text, enum submit_tls *tls)
{
	static const char *const names[] = {
	    [SUBMIT_TLS_NONE] = "none",
	    [SUBMIT_TLS_OPPORTUNISTIC] = "opportunistic",
	    [SUBMIT_TLS_REQUIRED] = "required",
	    [SUBMIT_TLS_VERIFY] = "verify",
	};

	for (int i = SUBMIT_TLS_NONE; i <= SUBMIT_TLS_VERIFY; i++)
		if (strcmp(text, names[i]) == 0) {
			*tls = (enum submit_tls)i;
			return true;
		}
	return false;
}

/* ---- the message ---- */

static bool has_bare_newline(struct slice message)
{
	const char *at = message.ptr, *end = message.ptr + message.len;

	for (; (at = memchr(at, '\n', (size_t)(end - at))); at++)
		if (at == message.ptr || at[-1] != '\r')
			return true;
	return false;
}

struct slice submit_crlf(struct slice message, struct buf *memory)
{
	bool is_ended = message.len > 0 && message.ptr[message.len - 1] == '\n';

	if (is_ended && !has_bare_newline(message))
		return message;
	while (message.len > 0) {
		ptrdiff_t end = slice_find(message, '\n');
		struct slice line = end < 0 ? message : slice_to(message, (size_t)end);
		message = slice_from(message, end < 0 ? message.len : (size_t)end + 1);
		if (line.len > 0 && line.ptr[line.len - 1] == '\r')
			line.len--;
		buf_append(memory, line);
		buf_append_str(memory, "\r\n");
	}
	if (buf_len(memory) == 0)
		buf_append_str(memory, "\r\n");
	return buf_slice(memory);
}

static bool has_8bit(struct slice text)
{
	return !slice_is_ascii(text);
}

/* ---- results ---- */

static int code_of(const struct smtp_client_result *result)
{
	switch (result->cause) {
	case SMTP_CLIENT_REPLIED:
		if (result->reply.code == 421)
			return ERR_CLOSED;
		if (result->stage == STAGE_AUTH && result->reply.code >= 500)
			return ERR_CONFIG;
		return result->reply.code < 500 ? ERR_TEMPORARY : ERR_PERMISSION;
	case SMTP_CLIENT_UNDELIVERABLE: return ERR_PERMISSION;
	case SMTP_CLIENT_NO_TLS:
	case SMTP_CLIENT_NO_AUTH: return ERR_CONFIG;
	default: return ERR_CLOSED;
	}
}

/* The first is told. */
static void note_trouble(struct dialog *d, const struct smtp_client_result *result, const char *whom)
{
	const struct smtp_reply *reply = &result->reply;
	char code[20] = "";

	if (d->rc != 0)
		return;
	d->rc = code_of(result);
	d->result->stage = result->stage;
	d->result->code = reply->code;
	snprintf(d->result->enhanced, sizeof(d->result->enhanced), "%s", reply->enhanced);
	if (reply->code)
		snprintf(code, sizeof(code), "%d %s%s", reply->code, reply->enhanced, reply->enhanced[0] ? " " : "");
	err_set(d->err, (enum err_code)d->rc, "%.254s%s%s%.200s", whom, whom[0] ? ": " : "", code, reply->text);
}

static void on_result(struct dialog *d, uint32_t i, const struct smtp_client_result *result)
{
	const char *queued;

	if (result->cause == SMTP_CLIENT_REPLIED && result->stage == STAGE_DOT && result->reply.code < 300) {
		queued = strstr(result->reply.text, "queued as ");
		snprintf(d->result->id, sizeof(d->result->id), "%.13s", queued ? queued + strlen("queued as ") : "?");
		return;
	}
	d->result->refused++;
	note_trouble(d, result, result->stage == STAGE_RCPT ? d->submission->recipients[i] : "");
}

/* ---- the session ---- */

static bool wants_verify(const struct submit_server *server)
{
	struct in_addr address;

	if (server->tls != SUBMIT_TLS_AUTO)
		return server->tls == SUBMIT_TLS_VERIFY;
	if (!server->password || strcmp(server->host, "localhost") == 0 || strcmp(server->host, "::1") == 0)
		return false;
	return inet_pton(AF_INET, server->host, &address) != 1 || ntohl(address.s_addr) >> 24 != IN_LOOPBACKNET;
}

static enum smtp_client_tls tls_of(const struct submit_server *server)
{
	if (server->socket_path || server->tls == SUBMIT_TLS_NONE)
		return SMTP_CLIENT_TLS_NONE;
	return wants_verify(server) || server->tls == SUBMIT_TLS_REQUIRED ? SMTP_CLIENT_TLS_REQUIRED
									  : SMTP_CLIENT_TLS_OPPORTUNISTIC;
}

static void start_tls(struct dialog *d)
{
	const struct link_tls tls = {.host = d->server->host,
				     .level = wants_verify(d->server) ? TLS_LEVEL_VERIFY : TLS_LEVEL_OPPORTUNISTIC,
				     .ca_file = d->server->ca_file};
	struct err err;

	if (link_start_tls(d->link, &tls, &err) == 0)
		smtp_client_tls_started(d->client);
	else
		smtp_client_tls_failed(d->client, err.text);
}

static void begin_transaction(struct dialog *d)
{
	const struct submission *s = d->submission;

	d->recipients = xcalloc(s->recipient_count, sizeof(*d->recipients));
	for (size_t i = 0; i < s->recipient_count; i++)
		d->recipients[i] =
		    (struct smtp_client_recipient){.address = slice_of_str(s->recipients[i]), .notify = s->notify};
	d->transaction = (struct smtp_transaction){.sender = slice_of_str(s->sender),
						   .recipients = d->recipients,
						   .recipient_count = s->recipient_count,
						   .content_bytes = d->content.len,
						   .has_8bit = has_8bit(d->content),
						   .ret = s->ret,
						   .envid = slice_of_str(s->envid)};
	smtp_client_send(d->client, &d->transaction);
}

static void handle(struct dialog *d, const struct smtp_client_event *event)
{
	switch (event->type) {
	case SMTP_CLIENT_NEED_TLS: start_tls(d); break;
	case SMTP_CLIENT_READY: begin_transaction(d); break;
	case SMTP_CLIENT_RESULT: on_result(d, event->recipient, &event->result); break;
	case SMTP_CLIENT_NEED_BODY: d->feeding = true; break;
	case SMTP_CLIENT_TRANSACTION_DONE:
		d->feeding = false;
		d->is_over = true;
		smtp_client_quit(d->client);
		break;
	case SMTP_CLIENT_FAILED:
	case SMTP_CLIENT_CLOSED:
		if (!d->is_over)
			note_trouble(d, &event->result, "");
		d->is_over = true;
		break;
	}
}

static void feed(struct dialog *d)
{
	while (d->feeding && smtp_client_body_room(d->client) > 0) {
		d->sent += smtp_client_body(d->client, slice_from(d->content, d->sent));
		if (d->sent < d->content.len)
			continue;
		smtp_client_body_end(d->client);
		d->feeding = false;
	}
}

static int64_t time_left(const struct dialog *d)
{
	int64_t deadline = smtp_client_deadline_ms(d->client), now = clock_mono_ms(clock_system());

	return deadline == INT64_MAX ? REPLY_TIMEOUT_MS : MAX(deadline - now, (int64_t)0);
}

static void read_more(struct dialog *d)
{
	char bytes[4096];
	ssize_t n = link_read(d->link, bytes, sizeof(bytes), time_left(d));

	if (n > 0)
		smtp_client_input(d->client, slice_of(bytes, (size_t)n));
	else if (n != ERR_TEMPORARY)
		smtp_client_eof(d->client, n == 0 ? NULL : "the connection broke");
}

/* What the server said before it broke the connection is still read. */
static void write_some(struct dialog *d, struct slice output)
{
	d->is_broken = link_write(d->link, output) != 0;
	if (!d->is_broken)
		smtp_client_output_sent(d->client, output.len);
}

/* The reply to QUIT is not waited for. */
static void converse(struct dialog *d)
{
	struct smtp_client_event event;
	struct slice output;

	while (true) {
		smtp_client_tick(d->client, clock_mono_ms(clock_system()));
		while (smtp_client_next(d->client, &event))
			handle(d, &event);
		feed(d);
		output = smtp_client_output(d->client);
		if (output.len > 0 && !d->is_broken)
			write_some(d, output);
		else if (d->is_over)
			return;
		else
			read_more(d);
	}
}

int submit_message(const struct submit_server *server, const struct submission *submission,
		   struct submit_result *result, struct err *err)
{
	struct dialog d = {.server = server, .submission = submission, .result = result, .err = err};
	const struct smtp_client_options options = {
	    .helo_name = "localhost",
	    .tls = tls_of(server),
	    .credentials = {.mechanism = server->password ? SASL_CLIENT_AUTO : SASL_CLIENT_NONE,
			    .username = server->username,
			    .secret = server->password},
	    .allow_plaintext_auth = server->tls == SUBMIT_TLS_NONE,
	    .limits = {.greeting_ms = REPLY_TIMEOUT_MS, .command_ms = REPLY_TIMEOUT_MS}};
	struct buf memory;

	*result = (struct submit_result){0};
	d.link = server->socket_path ? link_open_unix(server->socket_path, err)
				     : link_open_tcp(server->host, server->port, REPLY_TIMEOUT_MS, err);
	if (!d.link)
		return ERR_CLOSED;
	buf_init(&memory, SIZE_MAX / 4);
	d.content = submit_crlf(submission->message, &memory);
	d.client = smtp_client_new(&options, clock_mono_ms(clock_system()));
	converse(&d);
	smtp_client_free(&d.client);
	link_close(&d.link);
	free(d.recipients);
	buf_fini(&memory);
	return d.rc;
}
