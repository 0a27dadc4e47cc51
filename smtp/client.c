#include "smtp/client.h"

#include "smtp/client_internal.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

enum { INPUT_MAX = 256 * 1024 };

static const struct smtp_client_limits defaults = {
    .greeting_ms = 5 * 60 * 1000,
    .command_ms = 5 * 60 * 1000,
    .data_ms = 2 * 60 * 1000,
    .block_ms = 3 * 60 * 1000,
    .dot_ms = 10 * 60 * 1000,
    .quit_ms = 5 * 1000,
    .start_ms = 15 * 60 * 1000,
    .transaction_ms = 45 * 60 * 1000,
};

/* What is being waited for, and where that is, by phase. */
static const struct {
	const char *doing;
	enum delivery_stage stage;
} phases[] = {
    [PHASE_GREETING] = {"the greeting", STAGE_GREETING},
    [PHASE_EHLO] = {"the reply to EHLO", STAGE_GREETING},
    [PHASE_HELO] = {"the reply to HELO", STAGE_GREETING},
    [PHASE_STARTTLS] = {"the reply to STARTTLS", STAGE_TLS},
    [PHASE_TLS] = {"the TLS handshake", STAGE_TLS},
    [PHASE_AUTH] = {"the reply to AUTH", STAGE_AUTH},
    [PHASE_READY] = {"nothing", STAGE_NONE},
    [PHASE_TRANSACTION] = {"", STAGE_MAIL}, /* the transaction knows better */
    [PHASE_QUIT] = {"the reply to QUIT", STAGE_NONE},
    [PHASE_ENDING] = {"nothing", STAGE_NONE},
    [PHASE_ENDED] = {"nothing", STAGE_NONE},
};

const char *smtp_client_cause_name(enum smtp_client_cause cause)
{
	static const char *const names[] = {
	    [SMTP_CLIENT_REPLIED] = "replied",	 [SMTP_CLIENT_UNDELIVERABLE] = "undeliverable",
	    [SMTP_CLIENT_LOST] = "lost",	 [SMTP_CLIENT_TIMEOUT] = "timeout",
	    [SMTP_CLIENT_PROTOCOL] = "protocol", [SMTP_CLIENT_NO_TLS] = "no_tls",
	    [SMTP_CLIENT_NO_AUTH] = "no_auth",	 [SMTP_CLIENT_ABORTED] = "aborted",
	};

	return names[cause];
}

const char *smtp_client_event_name(enum smtp_client_event_type type)
{
	static const char *const names[] = {
	    [SMTP_CLIENT_NEED_TLS] = "need_tls",
	    [SMTP_CLIENT_READY] = "ready",
	    [SMTP_CLIENT_RESULT] = "result",
	    [SMTP_CLIENT_NEED_BODY] = "need_body",
	    [SMTP_CLIENT_TRANSACTION_DONE] = "transaction_done",
	    [SMTP_CLIENT_FAILED] = "failed",
	    [SMTP_CLIENT_CLOSED] = "closed",
	};

	return names[type];
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static void default_to(int64_t *limit, int64_t value)
{
	if (*limit <= 0)
		*limit = value;
}

static void set_limits(struct smtp_client *c, const struct smtp_client_limits *limits)
{
	c->limits = *limits;
	default_to(&c->limits.greeting_ms, defaults.greeting_ms);
	default_to(&c->limits.command_ms, defaults.command_ms);
	default_to(&c->limits.data_ms, defaults.data_ms);
	default_to(&c->limits.block_ms, defaults.block_ms);
	default_to(&c->limits.dot_ms, defaults.dot_ms);
	default_to(&c->limits.quit_ms, defaults.quit_ms);
	default_to(&c->limits.start_ms, defaults.start_ms);
	default_to(&c->limits.transaction_ms, defaults.transaction_ms);
}

static void copy_credentials(struct smtp_client *c, const struct sasl_client_credentials *given)
{
	if (given->mechanism == SASL_CLIENT_NONE)
		return;
	c->credentials = *given;
	c->credentials.username = xstrdup(given->username ? given->username : "");
	c->credentials.secret = xstrdup(given->secret ? given->secret : "");
	c->credentials.host = given->host ? xstrdup(given->host) : NULL;
}

void client_forget_credentials(struct smtp_client *c)
{
	char *secret = (char *)c->credentials.secret;

	sasl_client_free(&c->sasl);
	if (secret)
		sodium_memzero(secret, strlen(secret));
	free(secret);
	free((char *)c->credentials.username);
	free((char *)c->credentials.host);
	c->credentials = (struct sasl_client_credentials){0};
}

struct smtp_client *smtp_client_new(const struct smtp_client_options *options, int64_t now_ms)
{
	struct smtp_client *c = xcalloc(1, sizeof(*c));

	c->now_ms = now_ms;
	set_limits(c, &options->limits);
	c->helo_name = xstrdup(options->helo_name);
	c->tls = options->tls;
	c->is_tls = options->tls == SMTP_CLIENT_TLS_IMPLICIT;
	c->allow_plaintext_auth = options->allow_plaintext_auth;
	c->use_helo = options->use_helo;
	c->no_pipelining = options->no_pipelining;
	c->no_chunking = options->no_chunking;
	copy_credentials(c, &options->credentials);
	buf_init(&c->in, INPUT_MAX);
	buf_init(&c->out, SMTP_CLIENT_OUTPUT_MAX);
	smtp_reply_parser_init(&c->parser);
	c->phase = PHASE_GREETING;
	c->overall_deadline_ms = now_ms + c->limits.start_ms;
	client_wait(c, c->limits.greeting_ms);
	return c;
}

static void wipe_output(struct smtp_client *c)
{
	if (c->out.data)
		sodium_memzero(c->out.data, c->out.cap);
	buf_reset(&c->out);
}

void smtp_client_free(struct smtp_client **client)
{
	struct smtp_client *c = *client;

	if (!c)
		return;
	if (c->phase == PHASE_AUTH)
		wipe_output(c);
	client_forget_credentials(c);
	smtp_reply_parser_fini(&c->parser);
	buf_fini(&c->in);
	buf_fini(&c->out);
	free(c->tx.recipients);
	free(c->helo_name);
	free(c);
	*client = NULL;
}

/* ---- Bytes and time --------------------------------------------------------------------------------------------- */

void smtp_client_input(struct smtp_client *c, struct slice bytes)
{
	if (c->phase == PHASE_ENDED || c->phase == PHASE_ENDING)
		return;
	if (buf_append(&c->in, bytes) < 0)
		client_fail(c, SMTP_CLIENT_PROTOCOL, STAGE_NONE, "the server sends far more than it was asked for");
}

void smtp_client_eof(struct smtp_client *c, const char *why)
{
	if (c->is_eof)
		return;
	c->is_eof = true;
	smtp_reply_append_text(c->eof_why, sizeof(c->eof_why), slice_of_str(why));
}

struct slice smtp_client_output(const struct smtp_client *c)
{
	return buf_slice(&c->out);
}

void smtp_client_output_sent(struct smtp_client *c, size_t len)
{
	len = MIN(len, buf_len(&c->out));
	if (len == 0)
		return;
	/* Credentials: nothing of them stays behind. */
	if (c->phase == PHASE_AUTH)
		sodium_memzero(c->out.data + c->out.start, len);
	buf_consume(&c->out, len);
	c->sent_bytes += len;
	c->progress_at_ms = c->now_ms;
	if (c->phase == PHASE_TRANSACTION)
		tx_on_sent(c);
}

void client_queue(struct smtp_client *c, struct slice bytes)
{
	if (buf_len(&c->out) == 0)
		c->progress_at_ms = c->now_ms;
	BUG_ON(buf_append(&c->out, bytes) < 0);
}

void smtp_client_tick(struct smtp_client *c, int64_t now_ms)
{
	if (now_ms > c->now_ms)
		c->now_ms = now_ms;
}

void client_wait(struct smtp_client *c, int64_t ms)
{
	c->step_deadline_ms = ms == INT64_MAX ? INT64_MAX : c->now_ms + ms;
}

int64_t smtp_client_deadline_ms(const struct smtp_client *c)
{
	int64_t step = c->phase == PHASE_TRANSACTION ? tx_step_deadline_ms(c) : c->step_deadline_ms;

	if (c->phase == PHASE_ENDED || c->phase == PHASE_ENDING)
		return INT64_MAX;
	return MIN(step, c->overall_deadline_ms);
}

/* ---- The end of a session --------------------------------------------------------------------------------------- */

void client_set_phase(struct smtp_client *c, enum client_phase phase)
{
	if (c->phase == PHASE_AUTH)
		wipe_output(c);
	c->phase = phase;
}

enum delivery_stage client_stage(const struct smtp_client *c)
{
	return c->phase == PHASE_TRANSACTION ? tx_stage(c) : phases[c->phase].stage;
}

static const char *doing(const struct smtp_client *c)
{
	return c->phase == PHASE_TRANSACTION ? tx_doing(c) : phases[c->phase].doing;
}

/* The server would still understand it, and no content is under way. */
static bool may_say_quit(const struct smtp_client *c)
{
	return !c->is_eof && c->phase != PHASE_TLS && c->phase != PHASE_QUIT && !c->tx.is_body_wanted &&
	       buf_room(&c->out) > 16;
}

/* Once: the first reason stands. */
static bool end(struct smtp_client *c, enum smtp_client_cause cause, enum delivery_stage stage)
{
	bool quit;

	if (c->phase == PHASE_ENDING || c->phase == PHASE_ENDED)
		return false;
	c->end.cause = cause;
	c->end.stage = stage;
	/* Facts that hold for what is under way; the results of its recipients take them over. */
	if (c->tx.what) {
		c->end.may_have_been_taken =
		    tx_may_have_been_taken(c) && !(cause == SMTP_CLIENT_REPLIED && c->tx.read_step == TX_END);
		c->end.untried = c->transaction_count > 1 && !c->tx.has_answer &&
				 (cause == SMTP_CLIENT_LOST || (cause == SMTP_CLIENT_REPLIED && c->reply.code == 421));
		if (c->end.may_have_been_taken && cause != SMTP_CLIENT_REPLIED)
			c->end.stage = STAGE_DOT;
	}
	quit = cause == SMTP_CLIENT_REPLIED && may_say_quit(c);
	client_set_phase(c, PHASE_ENDING);
	c->has_notice = c->tx.is_body_wanted = false;
	if (quit)
		client_queue(c, SLICE("QUIT\r\n"));
	return true;
}

void client_fail(struct smtp_client *c, enum smtp_client_cause cause, enum delivery_stage stage, const char *text)
{
	if (end(c, cause, stage)) {
		smtp_reply_set(&c->end.reply, 0, "", text);
		if (c->tx.what && c->tx.has_early)
			c->end.reply.code = c->tx.early.code;
	}
}

void client_fail_reply(struct smtp_client *c, enum delivery_stage stage)
{
	if (end(c, SMTP_CLIENT_REPLIED, stage))
		c->end.reply = c->reply;
}

void client_close(struct smtp_client *c)
{
	if (end(c, SMTP_CLIENT_REPLIED, STAGE_NONE))
		c->end.reply = c->reply;
	c->is_end_polite = true;
}

/* The server broke the protocol. */
static void fail_protocol(struct smtp_client *c, const char *what)
{
	char text[SMTP_REPLY_TEXT_MAX];

	snprintf(text, sizeof(text), "protocol error while waiting for %s: %s", doing(c), what);
	client_fail(c, SMTP_CLIENT_PROTOCOL, client_stage(c), text);
}

void client_fail_unexpected(struct smtp_client *c)
{
	char text[SMTP_REPLY_TEXT_MAX];

	snprintf(text, sizeof(text), "unexpected reply %d %.300s", c->reply.code, c->reply.text);
	fail_protocol(c, text);
}

static void on_eof(struct smtp_client *c)
{
	char text[SMTP_REPLY_TEXT_MAX];

	/* RFC 5321 §3.2 knows servers that do not understand EHLO; some hang up on it (PROMISE: once more with HELO).
	 */
	c->try_helo = c->phase == PHASE_EHLO && !smtp_reply_is_partial(&c->parser) && !c->is_tls &&
		      c->tls != SMTP_CLIENT_TLS_REQUIRED && c->credentials.mechanism == SASL_CLIENT_NONE;
	c->is_end_polite = c->phase == PHASE_READY || c->phase == PHASE_QUIT;
	if (c->is_end_polite)
		snprintf(text, sizeof(text), "the server closed the connection");
	else if (c->phase == PHASE_TRANSACTION && c->tx.has_early)
		snprintf(text, sizeof(text), "the server said %d %.300s and closed before it had the whole message",
			 c->tx.early.code, c->tx.early.text);
	else
		snprintf(text, sizeof(text), "connection lost while waiting for %s%s%s", doing(c),
			 c->eof_why[0] ? ": " : "", c->eof_why);
	client_fail(c, SMTP_CLIENT_LOST, client_stage(c), text);
}

static void on_timeout(struct smtp_client *c)
{
	char text[SMTP_REPLY_TEXT_MAX];

	c->is_end_polite = c->phase == PHASE_QUIT;
	snprintf(text, sizeof(text), "timed out while waiting for %s%s", doing(c),
		 c->now_ms >= c->overall_deadline_ms ? " (too slow as a whole)" : "");
	client_fail(c, SMTP_CLIENT_TIMEOUT, client_stage(c), text);
}

static bool end_next(struct smtp_client *c, struct smtp_client_event *event)
{
	if (tx_end_next(c, event))
		return true;
	event->type = c->is_end_polite ? SMTP_CLIENT_CLOSED : SMTP_CLIENT_FAILED;
	event->result = c->end;
	event->try_helo = c->try_helo;
	c->phase = PHASE_ENDED;
	buf_reset(&c->in);
	return true;
}

/* ---- The turn --------------------------------------------------------------------------------------------------- */

/* True: a reply was handled, or the session ended over it. */
static bool read_reply(struct smtp_client *c)
{
	struct slice rest = buf_slice(&c->in);
	const char *why = "";
	int rc;

	if (rest.len == 0)
		return false;
	if (c->phase == PHASE_TLS) {
		client_fail(c, SMTP_CLIENT_PROTOCOL, STAGE_TLS, "the server sent clear text instead of TLS");
		return true;
	}
	rc = smtp_reply_parse(&c->parser, &rest, &c->reply, &why);
	buf_consume(&c->in, buf_len(&c->in) - rest.len);
	if (rc > 0 && c->phase == PHASE_TRANSACTION)
		tx_on_reply(c);
	else if (rc > 0)
		session_on_reply(c);
	else if (rc < 0 && c->phase == PHASE_QUIT)
		client_close(c);
	else if (rc < 0)
		fail_protocol(c, why);
	return rc != 0;
}

/* True: something has changed. */
static bool step(struct smtp_client *c)
{
	if (read_reply(c))
		return true;
	if (c->is_eof)
		on_eof(c);
	else if (c->now_ms >= smtp_client_deadline_ms(c))
		on_timeout(c);
	else if (c->phase == PHASE_READY && c->is_quit_wanted)
		session_quit(c);
	else
		return false;
	return true;
}

bool smtp_client_next(struct smtp_client *c, struct smtp_client_event *event)
{
	*event = (struct smtp_client_event){0};
	while (c->phase != PHASE_ENDED) {
		if (c->has_notice) {
			c->has_notice = false;
			event->type = c->notice;
			return true;
		}
		if (c->phase == PHASE_ENDING)
			return end_next(c, event);
		if (c->phase == PHASE_TRANSACTION && tx_next(c, event))
			return true;
		if (!c->has_notice && !step(c))
			return false;
	}
	return false;
}

void client_notice(struct smtp_client *c, enum smtp_client_event_type type)
{
	c->has_notice = true;
	c->notice = type;
}

void smtp_client_quit(struct smtp_client *c)
{
	c->is_quit_wanted = true;
	if (c->phase < PHASE_READY) {
		client_fail(c, SMTP_CLIENT_ABORTED, STAGE_NONE, "the session was ended before it stood");
		c->is_end_polite = true;
	}
}

void smtp_client_abort(struct smtp_client *c, const char *text)
{
	client_fail(c, SMTP_CLIENT_ABORTED, client_stage(c), text);
}

/* ---- What was learnt -------------------------------------------------------------------------------------------- */

const struct smtp_client_capabilities *smtp_client_capabilities(const struct smtp_client *c)
{
	return &c->offered;
}

bool smtp_client_is_tls(const struct smtp_client *c)
{
	return c->is_tls;
}

const char *smtp_client_peer_name(const struct smtp_client *c)
{
	return c->peer_name;
}

bool smtp_client_is_ready(const struct smtp_client *c)
{
	return c->phase == PHASE_READY && !c->has_notice && !c->is_eof && !c->is_quit_wanted && buf_len(&c->in) == 0;
}

uint32_t smtp_client_transaction_count(const struct smtp_client *c)
{
	return c->transaction_count;
}
