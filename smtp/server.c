#include "smtp/server_internal.h"

#include <sodium.h>
#include <stdlib.h>

enum {
	FLUSH_MS = 10 * 1000, /* for the last replies of a session */
	HANDSHAKE_MS = 60 * 1000,
};

/* ---- Making one ------------------------------------------------------------------------------------------------- */

static void fill_limits(struct smtp_server_limits *limits)
{
	static const struct smtp_server_limits usual = {
	    .message_bytes = 25 << 20,
	    .recipients = 1000,
	    .messages = 1000,
	    .commands = 1000,
	    .errors = 100,
	    .auth_failures = 10,
	    .idle_ms = 5 * 60 * 1000,
	    .login_ms = 5 * 60 * 1000,
	    .session_ms = 4 * 3600 * 1000,
	    .data_grace_ms = 60 * 1000,
	    .data_bytes_per_sec = 512,
	};

#define FILL(member) limits->member = limits->member ? limits->member : usual.member
	FILL(message_bytes);
	FILL(recipients);
	FILL(messages);
	FILL(commands);
	FILL(errors);
	FILL(auth_failures);
	FILL(idle_ms);
	FILL(login_ms);
	FILL(session_ms);
	FILL(data_grace_ms);
	FILL(data_bytes_per_sec);
#undef FILL
}

struct smtp_server *smtp_server_new(const struct smtp_server_options *options, int64_t now_ms)
{
	struct smtp_server *s = xcalloc(1, sizeof(*s));

	s->options = options;
	s->limits = options->limits;
	fill_limits(&s->limits);
	s->tls = options->tls_active;
	s->now_ms = s->started_ms = s->moved_ms = now_ms;
	s->waiting_since_ms = now_ms;
	buf_init(&s->in, SERVER_INPUT_MAX);
	buf_init(&s->out, SERVER_OUTPUT_MAX);
	buf_init(&s->refusal, SERVER_OUTPUT_MARK);
	buf_printf(&s->out, "220 %.255s ESMTP relayd\r\n", options->hostname);
	return s;
}

static void wipe_and_free(struct buf *buf)
{
	if (buf->data)
		sodium_memzero(buf->data, buf->cap);
	buf_fini(buf);
}

void smtp_server_free(struct smtp_server **server)
{
	struct smtp_server *s = *server;

	*server = NULL;
	if (!s)
		return;
	server_auth_end(s);
	wipe_and_free(&s->in);
	buf_fini(&s->out);
	buf_fini(&s->refusal);
	free(s->helo);
	free(s->user);
	free(s);
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

const char *smtp_server_event_name(enum smtp_server_event_type type)
{
	static const char *const names[] = {
	    [SMTP_SERVER_HELO] = "HELO",	 [SMTP_SERVER_AUTH] = "AUTH",	    [SMTP_SERVER_MAIL] = "MAIL",
	    [SMTP_SERVER_RCPT] = "RCPT",	 [SMTP_SERVER_DATA] = "DATA",	    [SMTP_SERVER_CONTENT] = "CONTENT",
	    [SMTP_SERVER_COMPLETE] = "COMPLETE", [SMTP_SERVER_ABORTED] = "ABORTED", [SMTP_SERVER_STARTTLS] = "STARTTLS",
	    [SMTP_SERVER_REJECTED] = "REJECTED", [SMTP_SERVER_CLOSE] = "CLOSE",
	};
	return names[type];
}

const char *smtp_server_reason_name(enum smtp_server_reason reason)
{
	static const char *const names[SMTP_SERVER_REASON_COUNT] = {
	    [SMTP_SERVER_NONE] = "none",
	    [SMTP_SERVER_QUIT] = "quit",
	    [SMTP_SERVER_RESET] = "reset",
	    [SMTP_SERVER_GONE] = "gone",
	    [SMTP_SERVER_SHUTDOWN] = "shutdown",
	    [SMTP_SERVER_TIMEOUT] = "timeout",
	    [SMTP_SERVER_TOO_SLOW] = "too_slow",
	    [SMTP_SERVER_SYNTAX] = "syntax",
	    [SMTP_SERVER_SEQUENCE] = "sequence",
	    [SMTP_SERVER_UNKNOWN_COMMAND] = "unknown_command",
	    [SMTP_SERVER_ADDRESS] = "address",
	    [SMTP_SERVER_LINE_TOO_LONG] = "line_too_long",
	    [SMTP_SERVER_BAD_OCTETS] = "bad_octets",
	    [SMTP_SERVER_FOREIGN_PROTOCOL] = "foreign_protocol",
	    [SMTP_SERVER_TLS_REQUIRED] = "tls_required",
	    [SMTP_SERVER_AUTH_REQUIRED] = "auth_required",
	    [SMTP_SERVER_AUTH_FAILED] = "auth_failed",
	    [SMTP_SERVER_AUTH_UNAVAILABLE] = "auth_unavailable",
	    [SMTP_SERVER_AUTH_BLOCKED] = "auth_blocked",
	    [SMTP_SERVER_TOO_MANY_ERRORS] = "too_many_errors",
	    [SMTP_SERVER_TOO_MANY_COMMANDS] = "too_many_commands",
	    [SMTP_SERVER_TOO_MANY_MESSAGES] = "too_many_messages",
	    [SMTP_SERVER_TOO_MANY_RECIPIENTS] = "too_many_recipients",
	    [SMTP_SERVER_SENDER_REFUSED] = "sender_refused",
	    [SMTP_SERVER_RECIPIENT_REFUSED] = "recipient_refused",
	    [SMTP_SERVER_MESSAGE_REFUSED] = "message_refused",
	    [SMTP_SERVER_TOO_BIG] = "too_big",
	    [SMTP_SERVER_BARE_NEWLINE] = "bare_newline",
	    [SMTP_SERVER_NUL] = "nul",
	    [SMTP_SERVER_LONG_LINE] = "long_line",
	};
	return names[reason];
}

const char *smtp_server_state_name(const struct smtp_server *server)
{
	static const char *const names[SERVER_STATE_COUNT] = {
	    [START] = "START",	       [READY] = "READY",
	    [MAIL] = "MAIL",	       [RCPT] = "RCPT",
	    [AUTH_LINE] = "AUTH_LINE", [WAIT_AUTH] = "WAIT_AUTH",
	    [WAIT_MAIL] = "WAIT_MAIL", [WAIT_RCPT] = "WAIT_RCPT",
	    [WAIT_DATA] = "WAIT_DATA", [STORING] = "STORING",
	    [DATA] = "DATA",	       [SWALLOW] = "SWALLOW",
	    [TLS_FLUSH] = "TLS_FLUSH", [TLS] = "TLS",
	    [CLOSING] = "CLOSING",     [CLOSED] = "CLOSED",
	};
	return names[server->state];
}

/* ---- States, replies, facts ------------------------------------------------------------------------------------- */

static bool is_command_state(enum server_state state)
{
	return state < COMMAND_STATE_COUNT;
}

bool server_is_waiting_for_host(const struct smtp_server *s)
{
	return s->state >= WAIT_AUTH && s->state <= STORING;
}

/* Each state is a new step for the clock, except that content which is refused is still the same content. */
void server_set_state(struct smtp_server *s, enum server_state state)
{
	s->state = state;
	if (state != SWALLOW)
		s->waited_ms = 0;
	s->waiting_since_ms = -1;
	if (state == CLOSING || state == TLS_FLUSH || state == TLS)
		s->moved_ms = s->now_ms;
}

/* `out` has room for a reply above its mark, and no command is taken above the mark. */
static void append_reply(struct smtp_server *s, const struct smtp_server_reply *reply)
{
	if (buf_len(&s->out) == 0)
		s->moved_ms = s->now_ms;
	smtp_server_reply_format(&s->out, reply);
}

void server_say(struct smtp_server *s, int code, const char *enhanced, const char *text)
{
	append_reply(s, &(struct smtp_server_reply){code, enhanced, text});
}

void server_tell(struct smtp_server *s, enum smtp_server_event_type type, enum smtp_server_reason reason, int code)
{
	BUG_ON(s->fact_count == SERVER_FACTS_MAX);
	s->facts[s->fact_count++] = (struct server_fact){type, reason, code};
}

void server_decline(struct smtp_server *s, enum smtp_server_reason reason, const struct smtp_server_reply *reply)
{
	append_reply(s, reply);
	server_tell(s, SMTP_SERVER_REJECTED, reason, reply->code);
	if (reply->code == 421)
		server_end(s, reason);
}

void server_refuse(struct smtp_server *s, enum smtp_server_reason reason, int code, const char *enhanced,
		   const char *text)
{
	server_decline(s, reason, &(struct smtp_server_reply){code, enhanced, text});
	s->errors++;
	if (++s->recent_errors >= s->limits.errors && s->state < CLOSING)
		server_decline(s, SMTP_SERVER_TOO_MANY_ERRORS,
			       &(struct smtp_server_reply){421, "4.7.0", "Too many errors, closing"});
}

void server_abort(struct smtp_server *s, enum smtp_server_reason reason)
{
	bool host_knows = s->open || s->state == WAIT_MAIL;

	s->open = false;
	s->recipients = 0;
	s->smtputf8 = false;
	if (host_knows)
		server_tell(s, SMTP_SERVER_ABORTED, reason, 0);
}

void server_end(struct smtp_server *s, enum smtp_server_reason reason)
{
	if (s->state >= CLOSING)
		return;
	server_abort(s, reason);
	server_auth_end(s);
	server_set_state(s, CLOSING);
	s->close_reason = reason;
	wipe_and_free(&s->in);
	s->piece = 0;
}

/* ---- The pull loop ---------------------------------------------------------------------------------------------- */

static bool take_fact(struct smtp_server *s, struct smtp_server_event *event)
{
	if (s->fact_count == 0)
		return false;
	event->type = s->facts[0].type;
	event->reason = s->facts[0].reason;
	event->code = s->facts[0].code;
	memmove(s->facts, s->facts + 1, (size_t)--s->fact_count * sizeof(s->facts[0]));
	return true;
}

static enum server_step step_line(struct smtp_server *s, struct smtp_server_event *event)
{
	size_t before = buf_len(&s->in);
	bool was_skipping = s->skipping;
	struct slice line;

	if (s->stopping && (s->state < MAIL || s->state == AUTH_LINE)) {
		server_decline(s, SMTP_SERVER_SHUTDOWN,
			       &(struct smtp_server_reply){421, "4.3.2", "Going down, try again later"});
		return STEP_AGAIN;
	}
	if (buf_len(&s->out) > SERVER_OUTPUT_MARK)
		return STEP_WAIT;
	if (server_take_line(s, &line) == 0) {
		if (s->state == CLOSING || s->skipping != was_skipping || buf_len(&s->in) != before)
			return STEP_AGAIN;
		if (!s->eof)
			return STEP_WAIT;
		server_end(s, SMTP_SERVER_GONE);
		return STEP_AGAIN;
	}
	/* Consuming moves an offset: the line stays where it is until something is put in. */
	buf_consume(&s->in, line.len + 2);
	s->searched = 0;
	s->waited_ms = 0;
	return s->state == AUTH_LINE ? server_auth_line(s, line, event) : server_command(s, line, event);
}

static enum server_step step_tls(struct smtp_server *s, struct smtp_server_event *event)
{
	if (buf_len(&s->out))
		return STEP_WAIT;
	wipe_and_free(&s->in);
	s->searched = 0;
	server_set_state(s, TLS);
	event->type = SMTP_SERVER_STARTTLS;
	return STEP_EVENT;
}

static enum server_step step_close(struct smtp_server *s, struct smtp_server_event *event)
{
	if (buf_len(&s->out))
		return STEP_WAIT;
	server_set_state(s, CLOSED);
	event->type = SMTP_SERVER_CLOSE;
	event->reason = s->close_reason;
	return STEP_EVENT;
}

static enum server_step step(struct smtp_server *s, struct smtp_server_event *event)
{
	switch (s->state) {
	case START:
	case READY:
	case MAIL:
	case RCPT:
	case AUTH_LINE: return step_line(s, event);
	case DATA:
	case SWALLOW: return server_content(s, event);
	case TLS_FLUSH: return step_tls(s, event);
	case CLOSING: return step_close(s, event);
	default: return STEP_WAIT;
	}
}

/* An idle session costs little. */
static void give_memory_back(struct smtp_server *s)
{
	if (buf_len(&s->in) == 0 && s->in.cap > SERVER_IDLE_BUFFER_BYTES && s->state != DATA)
		wipe_and_free(&s->in);
	if (buf_len(&s->out) == 0 && s->out.cap > SERVER_IDLE_BUFFER_BYTES)
		buf_reset(&s->out);
	if (s->state != SWALLOW)
		buf_reset(&s->refusal);
}

static bool is_waiting_for_client(const struct smtp_server *s)
{
	return is_command_state(s->state) || s->state == AUTH_LINE || s->state == DATA || s->state == SWALLOW;
}

static bool expire(struct smtp_server *s);

bool smtp_server_next(struct smtp_server *server, struct smtp_server_event *event)
{
	struct smtp_server *s = server;

	*event = (struct smtp_server_event){0};
	for (;;) {
		enum server_step did;

		if (s->piece) {
			buf_consume(&s->in, s->piece);
			s->piece = 0;
		}
		if (take_fact(s, event))
			return true;
		did = step(s, event);
		if (did == STEP_EVENT)
			return true;
		if (did == STEP_WAIT && s->fact_count == 0) {
			if (is_waiting_for_client(s) && s->waiting_since_ms < 0)
				s->waiting_since_ms = s->now_ms;
			if (!expire(s))
				break;
		}
	}
	give_memory_back(s);
	return false;
}

/* ---- Bytes ------------------------------------------------------------------------------------------------------ */

bool smtp_server_wants_input(const struct smtp_server *server)
{
	return !server->eof && server->state != TLS_FLUSH && server->state != TLS && server->state != CLOSED &&
	       buf_len(&server->out) <= SERVER_OUTPUT_MARK && buf_room(&server->in) > 0;
}

size_t smtp_server_input(struct smtp_server *server, struct slice bytes)
{
	struct smtp_server *s = server;

	if (s->state >= TLS_FLUSH)
		return bytes.len;
	if (s->piece) {
		buf_consume(&s->in, s->piece);
		s->piece = 0;
	}
	bytes = slice_to(bytes, buf_room(&s->in));
	if (bytes.len && s->waiting_since_ms >= 0) {
		s->waited_ms += s->now_ms - s->waiting_since_ms;
		s->waiting_since_ms = -1;
	}
	buf_append(&s->in, bytes);
	return bytes.len;
}

void smtp_server_eof(struct smtp_server *server)
{
	server->eof = true;
	if (server->state == TLS_FLUSH || server->state == TLS)
		server_end(server, SMTP_SERVER_GONE);
}

struct slice smtp_server_output(const struct smtp_server *server)
{
	return buf_slice(&server->out);
}

void smtp_server_output_sent(struct smtp_server *server, size_t len)
{
	buf_consume(&server->out, len);
	if (len && server->state != CLOSING)
		server->moved_ms = server->now_ms;
}

/* ---- Time ------------------------------------------------------------------------------------------------------- */

void smtp_server_tick(struct smtp_server *server, int64_t now_ms)
{
	if (now_ms > server->now_ms)
		server->now_ms = now_ms;
}

/* How long the client may let us wait for content in all; every octet buys time. */
static int64_t content_allowance_ms(const struct smtp_server *s)
{
	return s->limits.data_grace_ms + (int64_t)(s->content.bytes * 1000 / s->limits.data_bytes_per_sec);
}

static int64_t step_deadline_ms(const struct smtp_server *s)
{
	bool is_content = s->state == DATA || s->state == SWALLOW;
	int64_t allowed = s->limits.idle_ms - (is_content ? 0 : s->waited_ms);
	int64_t deadline;

	if (is_content)
		allowed = MIN(allowed, content_allowance_ms(s) - s->waited_ms);
	deadline = s->waiting_since_ms + allowed;
	if (is_content || s->open)
		return deadline;
	if (!s->has_logged_in)
		deadline = MIN(deadline, s->started_ms + s->limits.login_ms);
	return MIN(deadline, s->started_ms + s->limits.session_ms);
}

int64_t smtp_server_deadline_ms(const struct smtp_server *server)
{
	const struct smtp_server *s = server;
	int64_t deadline = INT64_MAX;

	if (s->state == CLOSED || server_is_waiting_for_host(s))
		return INT64_MAX;
	if (s->state == CLOSING)
		return s->moved_ms + FLUSH_MS;
	if (s->state == TLS)
		return s->moved_ms + HANDSHAKE_MS;
	if (buf_len(&s->out))
		deadline = s->moved_ms + s->limits.idle_ms;
	if (is_waiting_for_client(s) && s->waiting_since_ms >= 0)
		deadline = MIN(deadline, step_deadline_ms(s));
	return deadline;
}

static void expire_session(struct smtp_server *s)
{
	bool is_slow = (s->state == DATA || s->state == SWALLOW) &&
		       s->waited_ms + s->now_ms - s->waiting_since_ms >= content_allowance_ms(s);
	const struct smtp_server_reply slow = {421, "4.4.2", "Too slow, closing: send the message at a steady pace"};
	const struct smtp_server_reply idle = {421, "4.4.2", "Timeout, closing: nothing complete came in time"};

	server_decline(s, is_slow ? SMTP_SERVER_TOO_SLOW : SMTP_SERVER_TIMEOUT, is_slow ? &slow : &idle);
}

/* False: no time has run out. */
static bool expire(struct smtp_server *s)
{
	bool is_stuck = buf_len(&s->out) && s->now_ms >= s->moved_ms + s->limits.idle_ms;

	if (s->now_ms < smtp_server_deadline_ms(s))
		return false;
	if (s->state == CLOSING || s->state == TLS || is_stuck) {
		server_end(s, SMTP_SERVER_TIMEOUT);
		buf_reset(&s->out);
	} else {
		expire_session(s);
	}
	return true;
}

/* ---- Ends ------------------------------------------------------------------------------------------------------- */

void smtp_server_tls_started(struct smtp_server *server)
{
	struct smtp_server *s = server;

	if (s->state != TLS)
		return;
	free(s->helo);
	free(s->user);
	s->helo = s->user = NULL;
	s->esmtp = false;
	s->tls = true;
	server_set_state(s, START);
}

void smtp_server_shutdown(struct smtp_server *server)
{
	server->stopping = true;
}

void smtp_server_close(struct smtp_server *server, const struct smtp_server_reply *reply)
{
	if (server->state >= CLOSING)
		return;
	if (reply)
		append_reply(server, reply);
	server_end(server, SMTP_SERVER_SHUTDOWN);
}

/* ---- What is known ---------------------------------------------------------------------------------------------- */

void smtp_server_status(const struct smtp_server *server, struct smtp_server_status *out)
{
	const struct smtp_server *s = server;

	*out = (struct smtp_server_status){
	    .helo = s->helo ? s->helo : "",
	    .user = s->user ? s->user : "",
	    .esmtp = s->esmtp,
	    .tls = s->tls,
	    .in_transaction = s->open,
	    .is_idle = s->state == START || s->state == READY || s->state == AUTH_LINE,
	    .has_logged_in = s->has_logged_in,
	    .recipients = s->recipients,
	    .messages = s->messages,
	    .commands = s->commands,
	    .errors = s->errors,
	    .auth_failures = s->auth_failures,
	    .content_bytes = s->content.bytes,
	};
}

size_t smtp_server_memory_bytes(const struct smtp_server *server)
{
	const struct smtp_server *s = server;
	size_t sum = sizeof(*s) + s->in.cap + s->out.cap + s->refusal.cap;

	sum += s->helo ? strlen(s->helo) + 1 : 0;
	sum += s->user ? strlen(s->user) + 1 : 0;
	return sum + (s->sasl ? sizeof(*s->sasl) + s->sasl->memory.cap : 0);
}
