/* The session from the greeting to READY: EHLO or HELO, STARTTLS, AUTH; and QUIT. */
#include "smtp/client_capabilities.h"
#include "smtp/client_internal.h"

#include <stdio.h>

enum { AUTH_STEPS_MAX = 8, AUTH_LINE_MAX = 16 * 1024 };

static void send_command(struct smtp_client *c, enum client_phase phase, const char *verb, const char *argument)
{
	char line[512];
	int len = snprintf(line, sizeof(line), "%s%s%.400s\r\n", verb, *argument ? " " : "", argument);

	client_set_phase(c, phase);
	client_queue(c, slice_of(line, (size_t)len));
	c->command_end = client_queued_bytes(c);
	client_wait(c, c->limits.command_ms);
}

static void set_peer_name(struct smtp_client *c)
{
	struct slice line = slice_trim(smtp_reply_line(&c->parser, 0));
	ptrdiff_t blank = slice_find(line, ' ');

	c->peer_name[0] = '\0';
	smtp_reply_append_text(c->peer_name, sizeof(c->peer_name), blank < 0 ? line : slice_to(line, (size_t)blank));
}

static void become_ready(struct smtp_client *c)
{
	client_forget_credentials(c);
	client_set_phase(c, PHASE_READY);
	client_notice(c, SMTP_CLIENT_READY);
	c->step_deadline_ms = c->overall_deadline_ms = INT64_MAX;
}

static void begin_auth(struct smtp_client *c)
{
	struct err err;

	if (!c->is_tls && !c->allow_plaintext_auth) {
		client_fail(c, SMTP_CLIENT_NO_AUTH, STAGE_AUTH, "a password is not sent without TLS");
		return;
	}
	c->sasl = sasl_client_new(&c->credentials, c->offered.auth_mechanisms, &err);
	if (!c->sasl) {
		client_fail(c, SMTP_CLIENT_NO_AUTH, STAGE_AUTH, err.text);
		return;
	}
	client_set_phase(c, PHASE_AUTH);
	/* At once, so that no growing leaves a copy behind. */
	BUG_ON(!buf_reserve(&c->out, AUTH_LINE_MAX));
	sasl_client_start(c->sasl, &c->out);
	c->command_end = client_queued_bytes(c);
	client_wait(c, c->limits.command_ms);
}

static bool wants_starttls(const struct smtp_client *c)
{
	return !c->is_tls && !c->starttls_refused &&
	       (c->tls == SMTP_CLIENT_TLS_OPPORTUNISTIC || c->tls == SMTP_CLIENT_TLS_REQUIRED);
}

/* What comes after EHLO. */
static void go_on(struct smtp_client *c)
{
	if (wants_starttls(c) && c->offered.starttls)
		send_command(c, PHASE_STARTTLS, "STARTTLS", "");
	else if (!c->is_tls && c->tls == SMTP_CLIENT_TLS_REQUIRED)
		client_fail(c, SMTP_CLIENT_NO_TLS, STAGE_TLS,
			    "the server does not offer STARTTLS, and TLS is required");
	else if (c->credentials.mechanism != SASL_CLIENT_NONE)
		begin_auth(c);
	else
		become_ready(c);
}

static void on_greeting(struct smtp_client *c)
{
	set_peer_name(c);
	if (smtp_reply_class(&c->reply) >= 4)
		client_fail_reply(c, STAGE_GREETING);
	else if (c->reply.code != 220)
		client_fail_unexpected(c);
	else if (c->use_helo)
		send_command(c, PHASE_HELO, "HELO", c->helo_name);
	else
		send_command(c, PHASE_EHLO, "EHLO", c->helo_name);
}

/* RFC 5321 §3.2, where nothing is lost by it. */
static bool may_fall_back_to_helo(const struct smtp_client *c)
{
	return c->reply.code >= 500 && c->reply.code <= 504 && c->credentials.mechanism == SASL_CLIENT_NONE &&
	       (c->is_tls || c->tls != SMTP_CLIENT_TLS_REQUIRED);
}

static void on_ehlo(struct smtp_client *c)
{
	if (smtp_reply_class(&c->reply) == 2) {
		set_peer_name(c);
		smtp_client_capabilities_parse(&c->offered, &c->parser);
		go_on(c);
	} else if (smtp_reply_class(&c->reply) == 3) {
		client_fail_unexpected(c);
	} else if (may_fall_back_to_helo(c)) {
		send_command(c, PHASE_HELO, "HELO", c->helo_name);
	} else {
		client_fail_reply(c, STAGE_GREETING);
	}
}

static void on_helo(struct smtp_client *c)
{
	if (smtp_reply_class(&c->reply) == 2)
		go_on(c);
	else if (smtp_reply_class(&c->reply) == 3)
		client_fail_unexpected(c);
	else
		client_fail_reply(c, STAGE_GREETING);
}

static void on_starttls(struct smtp_client *c)
{
	if (c->reply.code == 220) {
		/* RFC 3207 §4, CVE-2011-0411: what lies behind it came in clear text and must not count inside TLS. */
		if (buf_len(&c->in)) {
			client_fail(c, SMTP_CLIENT_PROTOCOL, STAGE_TLS,
				    "the server sent clear text behind its reply to STARTTLS");
			return;
		}
		client_set_phase(c, PHASE_TLS);
		client_notice(c, SMTP_CLIENT_NEED_TLS);
		client_wait(c, c->limits.command_ms);
	} else if (smtp_reply_class(&c->reply) < 4) {
		client_fail_unexpected(c);
	} else if (c->reply.code == 421 || c->tls == SMTP_CLIENT_TLS_REQUIRED) {
		client_fail_reply(c, STAGE_TLS);
	} else {
		c->starttls_refused = true;
		go_on(c);
	}
}

void smtp_client_tls_started(struct smtp_client *c)
{
	if (c->phase != PHASE_TLS)
		return;
	/* RFC 3207 §4.2: only what is said inside TLS counts. Bytes that came in meanwhile are a fault, see step(). */
	if (buf_len(&c->in))
		return;
	c->is_tls = true;
	c->offered = (struct smtp_client_capabilities){0};
	c->peer_name[0] = '\0';
	smtp_reply_parser_reset(&c->parser);
	send_command(c, PHASE_EHLO, "EHLO", c->helo_name);
}

void smtp_client_tls_failed(struct smtp_client *c, const char *text)
{
	if (c->phase == PHASE_TLS)
		client_fail(c, SMTP_CLIENT_NO_TLS, STAGE_TLS, text);
}

/* RFC 4954 §4. */
static void on_auth(struct smtp_client *c)
{
	const char *detail;

	if (c->reply.code == 334 && c->auth_steps++ < AUTH_STEPS_MAX) {
		BUG_ON(!buf_reserve(&c->out, AUTH_LINE_MAX));
		sasl_client_respond(c->sasl, smtp_reply_line(&c->parser, 0), &c->out);
		c->command_end = client_queued_bytes(c);
		client_wait(c, c->limits.command_ms);
	} else if (c->reply.code == 235) {
		c->authenticated_by = sasl_client_chosen(c->sasl);
		become_ready(c);
	} else if (smtp_reply_class(&c->reply) < 4) {
		client_fail_unexpected(c);
	} else {
		detail = sasl_client_detail(c->sasl);
		if (detail[0]) {
			smtp_reply_append_text(c->reply.text, sizeof(c->reply.text), SLICE(" "));
			smtp_reply_append_text(c->reply.text, sizeof(c->reply.text), slice_of_str(detail));
		}
		client_fail_reply(c, STAGE_AUTH);
	}
}

/* Nothing was asked. */
static void on_unsolicited(struct smtp_client *c)
{
	if (c->reply.code == 421) {
		if (c->phase == PHASE_READY)
			client_close(c);
		else
			client_fail_reply(c, client_stage(c));
	} else if (c->phase == PHASE_QUIT) {
		client_close(c);
	} else {
		client_fail_unexpected(c);
	}
}

void session_quit(struct smtp_client *c)
{
	send_command(c, PHASE_QUIT, "QUIT", "");
	client_wait(c, c->limits.quit_ms);
}

/* A reply cannot come before its command has gone out. */
static bool is_due(const struct smtp_client *c)
{
	return c->phase != PHASE_READY && c->phase != PHASE_TLS && c->sent_bytes >= c->command_end;
}

void session_on_reply(struct smtp_client *c)
{
	if (!is_due(c)) {
		on_unsolicited(c);
		return;
	}
	switch (c->phase) {
	case PHASE_GREETING: on_greeting(c); break;
	case PHASE_EHLO: on_ehlo(c); break;
	case PHASE_HELO: on_helo(c); break;
	case PHASE_STARTTLS: on_starttls(c); break;
	case PHASE_AUTH: on_auth(c); break;
	default: client_close(c); break; /* QUIT: whatever it says */
	}
}
