/* AUTH (RFC 4954). The line that carries a secret is wiped as soon as it is read. */
#include "base/base.h"
#include "smtp/server_internal.h"

#include <sodium.h>
#include <stdlib.h>

static void wipe(struct slice secret)
{
	if (secret.len)
		sodium_memzero((void *)(uintptr_t)secret.ptr, secret.len);
}

void server_auth_end(struct smtp_server *s)
{
	if (!s->sasl)
		return;
	sasl_server_fini(s->sasl);
	free(s->sasl);
	s->sasl = NULL;
}

static void fail(struct smtp_server *s, int code, const char *enhanced, const char *text)
{
	server_auth_end(s);
	server_set_state(s, READY);
	s->auth_failures++;
	server_refuse(s, SMTP_SERVER_AUTH_FAILED, code, enhanced, text);
	if (s->auth_failures >= s->limits.auth_failures && s->state < CLOSING)
		server_decline(s, SMTP_SERVER_AUTH_BLOCKED,
			       &(struct smtp_server_reply){421, "4.7.0", "Too many failed logins, closing"});
}

static void refuse_credentials(struct smtp_server *s)
{
	fail(s, 535, "5.7.8", "Authentication failed: user name or password is wrong");
}

static enum server_step take_step(struct smtp_server *s, enum sasl_step step, struct smtp_server_event *event)
{
	switch (step) {
	case SASL_CHALLENGE:
		buf_printf(&s->out, "334 %s\r\n", sasl_server_challenge(s->sasl));
		server_set_state(s, AUTH_LINE);
		return STEP_AGAIN;
	case SASL_COMPLETE:
		server_set_state(s, WAIT_AUTH);
		event->type = SMTP_SERVER_AUTH;
		event->auth = (struct smtp_server_auth){sasl_mechanism_name(s->sasl->mechanism), s->sasl->user,
							s->sasl->password};
		return STEP_EVENT;
	case SASL_CANCELLED: fail(s, 501, "5.7.0", "Authentication cancelled"); break;
	case SASL_UNDECODABLE: fail(s, 501, "5.5.2", "Not base64"); break;
	case SASL_MALFORMED:
	case SASL_OTHER_IDENTITY: refuse_credentials(s); break;
	}
	return STEP_AGAIN;
}

enum server_step server_auth_line(struct smtp_server *s, struct slice line, struct smtp_server_event *event)
{
	enum sasl_step step = sasl_server_respond(s->sasl, line);

	wipe(line);
	return take_step(s, step, event);
}

void server_auth_too_long(struct smtp_server *s)
{
	fail(s, 500, "5.5.6", "The response is longer than 12288 octets");
}

/* Is AUTH possible now? */
static bool may_begin(struct smtp_server *s)
{
	if (!s->options->auth)
		server_refuse(s, SMTP_SERVER_SEQUENCE, 502, "5.5.1", "AUTH is not offered here: no users are set up");
	else if (!server_offers_auth(s))
		server_refuse(s, SMTP_SERVER_TLS_REQUIRED, 538, "5.7.11",
			      "Encryption required: say STARTTLS before AUTH");
	else if (s->user)
		server_refuse(s, SMTP_SERVER_SEQUENCE, 503, "5.5.1", "Authenticated already");
	else
		return true;
	return false;
}

bool server_auth(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	enum sasl_mechanism mechanism;
	ptrdiff_t blank = slice_find(args, ' ');
	struct slice word = blank < 0 ? args : slice_to(args, (size_t)blank);
	struct slice initial = slice_from(args, word.len + 1);
	enum sasl_step step;

	if (!may_begin(s))
		return false;
	if (word.len == 0) {
		server_refuse(s, SMTP_SERVER_SYNTAX, 501, "5.5.4", "AUTH wants a mechanism: PLAIN or LOGIN");
		return false;
	}
	if (!sasl_mechanism_parse(word, &mechanism)) {
		server_refuse(s, SMTP_SERVER_SYNTAX, 504, "5.5.4",
			      "This mechanism is not offered, PLAIN and LOGIN are");
		return false;
	}
	s->sasl = xcalloc(1, sizeof(*s->sasl));
	sasl_server_init(s->sasl, mechanism);
	step = sasl_server_begin(s->sasl, blank >= 0, initial);
	wipe(initial);
	return take_step(s, step, event) == STEP_EVENT;
}

void smtp_server_auth_done(struct smtp_server *server, enum smtp_server_auth_result result)
{
	struct smtp_server *s = server;

	if (s->state != WAIT_AUTH)
		return;
	switch (result) {
	case SMTP_SERVER_AUTH_OK:
		s->user = xmemdup(s->sasl->user.ptr, s->sasl->user.len);
		s->has_logged_in = true;
		server_auth_end(s);
		server_set_state(s, READY);
		server_say(s, 235, "2.7.0", "Authentication successful");
		return;
	case SMTP_SERVER_AUTH_BAD: refuse_credentials(s); return;
	case SMTP_SERVER_AUTH_TEMPORARY:
		server_auth_end(s);
		server_set_state(s, READY);
		server_decline(s, SMTP_SERVER_AUTH_UNAVAILABLE,
			       &(struct smtp_server_reply){454, "4.7.0", "Cannot be checked now, try again later"});
		return;
	case SMTP_SERVER_AUTH_SHUT_OUT:
		server_decline(
		    s, SMTP_SERVER_AUTH_BLOCKED,
		    &(struct smtp_server_reply){421, "4.7.0", "Too many failed logins from this address, try later"});
		return;
	}
}
