/* MAIL, RCPT and DATA: what they say, what is wrong with it, and what the host makes of it. */
#include "base/base.h"
#include "smtp/server_internal.h"

#include <stdio.h>

/* ---- Parameters ------------------------------------------------------------------------------------------------- */

/* Why a parameter, or the whole command, is refused; code 0: it is not. */
struct fault {
	enum smtp_server_reason reason;
	int code;
	const char *enhanced, *text;
};

static const struct fault no_fault;

static struct fault bad_value(const char *text)
{
	return (struct fault){SMTP_SERVER_SYNTAX, 501, "5.5.4", text};
}

static const struct fault not_known = {SMTP_SERVER_SYNTAX, 555, "5.5.4",
				       "A parameter is not known or not offered, EHLO lists what is"};

static struct fault take_size(const struct smtp_server *s, const struct smtp_param *param,
			      struct smtp_server_mail *mail)
{
	int rc = smtp_parse_size(param->value, &mail->size);

	if (rc == ERR_SYNTAX)
		return bad_value("SIZE wants a number of octets");
	mail->has_size = true;
	if (rc == ERR_LIMIT || mail->size > s->limits.message_bytes)
		return (struct fault){SMTP_SERVER_TOO_BIG, 552, "5.3.4",
				      "The message is too big, EHLO says how big it may be"};
	return no_fault;
}

static struct fault take_body(const struct smtp_param *param, struct smtp_server_mail *mail)
{
	mail->body_8bitmime = slice_case_eq(param->value, SLICE("8BITMIME"));
	if (mail->body_8bitmime || slice_case_eq(param->value, SLICE("7BIT")))
		return no_fault;
	return bad_value("BODY is 7BIT or 8BITMIME");
}

static struct fault take_word(const struct smtp_param *param, bool *flag)
{
	*flag = true;
	return param->has_value ? bad_value("This parameter takes no value") : no_fault;
}

static struct fault take_ret(const struct smtp_param *param, struct smtp_server_mail *mail)
{
	return smtp_parse_ret(param->value, &mail->ret) < 0 ? bad_value("RET is FULL or HDRS") : no_fault;
}

static struct fault take_envid(const struct smtp_param *param, struct smtp_server_mail *mail)
{
	mail->envid = param->value;
	return smtp_is_envid(param->value) ? no_fault
					   : bad_value("ENVID wants at most 100 printable characters as xtext");
}

/* RFC 4954 §5: noted, never believed. */
static struct fault take_auth(const struct smtp_param *param, struct smtp_server_mail *mail)
{
	mail->auth = param->value;
	if (slice_eq(param->value, SLICE("<>")) || (param->has_value && smtp_is_xtext(param->value)))
		return no_fault;
	return bad_value("AUTH wants an address as xtext, or <>");
}

enum mail_param { PARAM_SIZE, PARAM_BODY, PARAM_SMTPUTF8, PARAM_RET, PARAM_ENVID, PARAM_AUTH, PARAM_REQUIRETLS };

static const char *const mail_params[] = {
    [PARAM_SIZE] = "SIZE",   [PARAM_BODY] = "BODY", [PARAM_SMTPUTF8] = "SMTPUTF8",     [PARAM_RET] = "RET",
    [PARAM_ENVID] = "ENVID", [PARAM_AUTH] = "AUTH", [PARAM_REQUIRETLS] = "REQUIRETLS",
};

static bool is_offered(const struct smtp_server *s, enum mail_param param)
{
	switch (param) {
	case PARAM_SMTPUTF8: return !s->options->no_smtputf8;
	case PARAM_RET:
	case PARAM_ENVID: return !s->options->no_dsn;
	case PARAM_AUTH: return s->options->auth;
	case PARAM_REQUIRETLS: return s->tls && !s->options->no_requiretls;
	default: return true;
	}
}

static struct fault take_mail_param(const struct smtp_server *s, enum mail_param which, const struct smtp_param *param,
				    struct smtp_server_mail *mail)
{
	switch (which) {
	case PARAM_SIZE: return take_size(s, param, mail);
	case PARAM_BODY: return take_body(param, mail);
	case PARAM_SMTPUTF8: return take_word(param, &mail->smtputf8);
	case PARAM_RET: return take_ret(param, mail);
	case PARAM_ENVID: return take_envid(param, mail);
	case PARAM_AUTH: return take_auth(param, mail);
	case PARAM_REQUIRETLS: return take_word(param, &mail->requiretls);
	}
	return not_known;
}

/* Index of a keyword, `count` when it is none of the names. */
static size_t find_keyword(struct slice keyword, const char *const *names, size_t count)
{
	size_t i = 0;

	while (i < count && !slice_case_eq(keyword, slice_of_str(names[i])))
		i++;
	return i;
}

/* The next parameter into *param, its index among `names` into *which. 1, or 0: no more, or *fault says why not. */
static int next_param(struct slice *rest, const char *const *names, size_t count, unsigned *seen,
		      struct smtp_param *param, size_t *which, struct fault *fault)
{
	int rc = smtp_next_param(rest, param);

	if (rc == 0)
		return 0;
	if (rc < 0) {
		*fault = bad_value("The parameters are broken: they look like KEYWORD=value");
		return 0;
	}
	*which = find_keyword(param->keyword, names, count);
	if (*which == count) {
		*fault = not_known;
		return 0;
	}
	if (*seen & 1u << *which) {
		*fault = bad_value("A parameter stands twice");
		return 0;
	}
	*seen |= 1u << *which;
	return 1;
}

static struct fault take_mail_params(const struct smtp_server *s, struct slice rest, struct smtp_server_mail *mail)
{
	struct fault fault = no_fault;
	struct smtp_param param;
	unsigned seen = 0;
	size_t which;

	while (fault.code == 0 && next_param(&rest, mail_params, ARRAY_LEN(mail_params), &seen, &param, &which, &fault))
		fault = is_offered(s, (enum mail_param)which) ? take_mail_param(s, (enum mail_param)which, &param, mail)
							      : not_known;
	return fault;
}

static struct fault take_rcpt_params(const struct smtp_server *s, struct slice rest, struct smtp_server_rcpt *rcpt)
{
	static const char *const names[] = {"NOTIFY", "ORCPT"};
	struct fault fault = no_fault;
	struct smtp_param param;
	unsigned seen = 0;
	size_t which;

	while (fault.code == 0 && next_param(&rest, names, ARRAY_LEN(names), &seen, &param, &which, &fault)) {
		if (s->options->no_dsn)
			return not_known;
		if (which == 0 && smtp_parse_notify(param.value, &rcpt->notify) < 0)
			return bad_value("NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY");
		if (which == 1 && !smtp_is_orcpt(param.value, s->smtputf8 ? SMTP_MAY_BE_UTF8 : 0))
			return bad_value("ORCPT looks like rfc822;address-as-xtext");
		if (which == 1)
			rcpt->orcpt = param.value;
	}
	return fault;
}

/* ---- Paths ------------------------------------------------------------------------------------------------------ */

/* "FROM:" or "TO:" and the blanks that many clients put behind it, against RFC 5321 §3.3. */
static bool skip_word(struct slice *args, struct slice word)
{
	if (!slice_has_case_prefix(*args, word))
		return false;
	*args = slice_from(*args, word.len);
	while (args->len && args->ptr[0] == ' ')
		*args = slice_from(*args, 1);
	return true;
}

static void refuse_path(struct smtp_server *s, const char *whose, const char *enhanced, const char *why)
{
	char text[256];

	snprintf(text, sizeof(text), "Bad %s address: %s", whose, why);
	server_refuse(s, SMTP_SERVER_ADDRESS, 501, enhanced, text);
}

/* RFC 6531 §3.5. */
static bool refuse_utf8(struct smtp_server *s, int code)
{
	server_refuse(s, SMTP_SERVER_ADDRESS, code, "5.6.7",
		      s->options->no_smtputf8 ? "The address is not ASCII, and SMTPUTF8 is not offered here"
					      : "The address is not ASCII: say SMTPUTF8 with MAIL");
	return false;
}

static bool refuse_fault(struct smtp_server *s, const struct fault *fault)
{
	server_refuse(s, fault->reason, fault->code, fault->enhanced, fault->text);
	return false;
}

/* ---- MAIL ------------------------------------------------------------------------------------------------------- */

bool server_mail(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	unsigned flags = SMTP_MAY_BE_EMPTY | SMTP_MAY_BE_UTF8 | (s->options->bare_names ? SMTP_MAY_BE_BARE : 0);
	struct fault fault;
	const char *why;

	if (s->messages >= s->limits.messages) {
		server_decline(
		    s, SMTP_SERVER_TOO_MANY_MESSAGES,
		    &(struct smtp_server_reply){421, "4.7.0", "Enough messages for one connection, connect again"});
		return false;
	}
	if (!skip_word(&args, SLICE("FROM:"))) {
		server_refuse(s, SMTP_SERVER_SYNTAX, 501, "5.5.4", "Syntax: MAIL FROM:<address>");
		return false;
	}
	if (smtp_parse_path(&args, flags, &event->mail.sender, &why) < 0) {
		refuse_path(s, "sender", "5.1.7", why);
		return false;
	}
	fault = take_mail_params(s, args, &event->mail);
	if (fault.code)
		return refuse_fault(s, &fault);
	if (event->mail.sender.is_utf8 && !event->mail.smtputf8)
		return refuse_utf8(s, 550);
	s->smtputf8 = event->mail.smtputf8;
	server_set_state(s, WAIT_MAIL);
	event->type = SMTP_SERVER_MAIL;
	return true;
}

void smtp_server_mail_done(struct smtp_server *server, const struct smtp_server_reply *reply)
{
	struct smtp_server *s = server;

	if (s->state != WAIT_MAIL)
		return;
	if (reply && reply->code >= 400) {
		server_set_state(s, READY);
		server_decline(s, SMTP_SERVER_SENDER_REFUSED, reply);
		return;
	}
	s->open = s->has_logged_in = true;
	s->recipients = 0;
	server_set_state(s, MAIL);
	server_say(s, 250, "2.1.0", reply ? reply->text : "Ok");
}

/* ---- RCPT ------------------------------------------------------------------------------------------------------- */

bool server_rcpt(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	unsigned flags = SMTP_MAY_BE_UTF8 | (s->options->bare_names ? SMTP_MAY_BE_BARE : 0);
	struct fault fault;
	const char *why;

	if (!skip_word(&args, SLICE("TO:"))) {
		server_refuse(s, SMTP_SERVER_SYNTAX, 501, "5.5.4", "Syntax: RCPT TO:<address>");
		return false;
	}
	if (smtp_parse_path(&args, flags, &event->rcpt.recipient, &why) < 0) {
		refuse_path(s, "recipient", "5.1.3", why);
		return false;
	}
	fault = take_rcpt_params(s, args, &event->rcpt);
	if (fault.code)
		return refuse_fault(s, &fault);
	if (event->rcpt.recipient.is_utf8 && !s->smtputf8)
		return refuse_utf8(s, 553);
	if (s->recipients >= s->limits.recipients) {
		s->idle_commands--;
		server_decline(s, SMTP_SERVER_TOO_MANY_RECIPIENTS,
			       &(struct smtp_server_reply){452, "4.5.3",
							   "Too many recipients, send to the rest in another message"});
		return false;
	}
	server_set_state(s, WAIT_RCPT);
	event->type = SMTP_SERVER_RCPT;
	return true;
}

void smtp_server_rcpt_done(struct smtp_server *server, const struct smtp_server_reply *reply)
{
	struct smtp_server *s = server;

	if (s->state != WAIT_RCPT)
		return;
	server_set_state(s, s->recipients ? RCPT : MAIL);
	if (reply && reply->code >= 400) {
		if (reply->code >= 500)
			server_refuse(s, SMTP_SERVER_RECIPIENT_REFUSED, reply->code, reply->enhanced, reply->text);
		else
			server_decline(s, SMTP_SERVER_RECIPIENT_REFUSED, reply);
		return;
	}
	s->recipients++;
	s->idle_commands--;
	server_set_state(s, RCPT);
	server_say(s, 250, "2.1.5", reply ? reply->text : "Ok");
}

/* ---- DATA ------------------------------------------------------------------------------------------------------- */

/* RFC 2920 §3.1: DATA is the last command of a group, so what is here already is content of a client that did not wait.
 */
void server_refuse_data(struct smtp_server *s, enum smtp_server_reason reason, int code, const char *enhanced,
			const char *text)
{
	bool has_more = buf_len(&s->in) > 0;

	server_refuse(s, reason, code, enhanced, text);
	s->data_was_refused = true;
	if (has_more)
		server_end(s, reason);
}

bool server_data(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	if (args.len) {
		server_refuse_data(s, SMTP_SERVER_SYNTAX, 501, "5.5.4", "DATA takes no argument");
		return false;
	}
	server_set_state(s, WAIT_DATA);
	event->type = SMTP_SERVER_DATA;
	return true;
}

void smtp_server_data_done(struct smtp_server *server, const struct smtp_server_reply *reply)
{
	struct smtp_server *s = server;

	if (s->state != WAIT_DATA)
		return;
	if (!reply || reply->code < 400) {
		server_content_begin(s);
		server_say(s, 354, NULL, "End data with <CR><LF>.<CR><LF>");
		return;
	}
	/* Over with it: smtplib raises here without RSET, and goes on with the next MAIL. */
	server_set_state(s, RCPT);
	server_decline(s, SMTP_SERVER_MESSAGE_REFUSED, reply);
	if (s->state == CLOSING)
		return;
	server_abort(s, SMTP_SERVER_MESSAGE_REFUSED);
	server_set_state(s, READY);
	s->data_was_refused = true;
	if (buf_len(&s->in))
		server_end(s, SMTP_SERVER_MESSAGE_REFUSED);
}
