/* The table of verbs and states, and the commands that carry no mail. */
#include "base/base.h"
#include "smtp/server_internal.h"

#include <stdlib.h>

typedef bool handler(struct smtp_server *s, struct slice args, struct smtp_server_event *event);

enum { HELO_MAX_BYTES = 255 };

/* ---- Greetings -------------------------------------------------------------------------------------------------- */

bool server_offers_auth(const struct smtp_server *s)
{
	return s->options->auth && (s->tls || s->options->allow_plaintext_auth);
}

static void say_offer(struct smtp_server *s)
{
	const struct smtp_server_options *o = s->options;
	struct buf text;

	buf_init(&text, 1024);
	buf_printf(&text, "%.255s\nPIPELINING\nSIZE %llu\n8BITMIME\n", o->hostname,
		   (unsigned long long)s->limits.message_bytes);
	buf_append_str(&text, o->no_smtputf8 ? "" : "SMTPUTF8\n");
	buf_append_str(&text, "ENHANCEDSTATUSCODES\n");
	buf_append_str(&text, o->no_dsn ? "" : "DSN\n");
	buf_append_str(&text, o->starttls && !s->tls ? "STARTTLS\n" : "");
	/* Some clients take the first mechanism that they know. */
	buf_append_str(&text, server_offers_auth(s) ? "AUTH PLAIN LOGIN\n" : "");
	buf_append_str(&text, s->tls && !o->no_requiretls ? "REQUIRETLS\n" : "");
	buf_truncate(&text, buf_len(&text) - 1);
	buf_append_byte(&text, '\0');
	server_say(s, 250, NULL, buf_slice(&text).ptr);
	buf_fini(&text);
}

/* Any name will do, but what goes into logs and Received must be harmless. */
static void set_helo(struct smtp_server *s, struct slice name)
{
	free(s->helo);
	name = slice_to(name, HELO_MAX_BYTES);
	s->helo = xmemdup(name.ptr, name.len);
	for (char *c = s->helo; *c; c++)
		if (*c <= ' ' || *c > '~')
			*c = '?';
}

static bool greet(struct smtp_server *s, struct slice args, bool esmtp)
{
	if (args.len == 0) {
		server_refuse(s, SMTP_SERVER_SYNTAX, 501, "5.5.4", "Say who you are: EHLO and a host name");
		return false;
	}
	server_abort(s, SMTP_SERVER_RESET);
	set_helo(s, args);
	s->esmtp = esmtp;
	server_set_state(s, READY);
	server_tell(s, SMTP_SERVER_HELO, SMTP_SERVER_NONE, 0);
	if (esmtp)
		say_offer(s);
	else
		server_say(s, 250, NULL, s->options->hostname);
	return false;
}

static bool on_ehlo(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)event;
	return greet(s, args, true);
}

static bool on_helo(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)event;
	return greet(s, args, false);
}

/* ---- Small ones ------------------------------------------------------------------------------------------------- */

static bool has_no_args(struct smtp_server *s, struct slice args)
{
	if (args.len == 0)
		return true;
	server_refuse(s, SMTP_SERVER_SYNTAX, 501, "5.5.4", "This command takes no argument");
	return false;
}

static bool on_starttls(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)event;
	if (s->tls)
		server_refuse(s, SMTP_SERVER_SEQUENCE, 503, "5.5.1", "TLS is active already");
	else if (!s->options->starttls)
		server_refuse(s, SMTP_SERVER_SEQUENCE, 502, "5.5.1", "STARTTLS is not offered here");
	else if (has_no_args(s, args)) {
		server_say(s, 220, "2.0.0", "Ready to start TLS");
		server_set_state(s, TLS_FLUSH);
	}
	return false;
}

static bool on_rset(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)event;
	if (!has_no_args(s, args))
		return false;
	server_abort(s, SMTP_SERVER_RESET);
	server_set_state(s, s->state == START ? START : READY);
	server_say(s, 250, "2.0.0", "Ok");
	return false;
}

static bool on_noop(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_say(s, 250, "2.0.0", "Ok");
	return false;
}

static bool on_quit(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)event;
	if (!has_no_args(s, args))
		return false;
	server_say(s, 221, "2.0.0", "Bye");
	server_end(s, SMTP_SERVER_QUIT);
	return false;
}

static bool on_vrfy(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)event;
	if (args.len == 0)
		server_refuse(s, SMTP_SERVER_SYNTAX, 501, "5.5.4", "VRFY wants an address");
	else
		server_say(s, 252, "2.5.0", "Not verified: send the message, it will be tried");
	return false;
}

static bool on_help(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_say(s, 214, "2.0.0",
		   "Commands: EHLO STARTTLS AUTH MAIL RCPT DATA RSET NOOP VRFY QUIT\nSee RFC 5321 and RFC 6409");
	return false;
}

/* ---- Refusals --------------------------------------------------------------------------------------------------- */

static bool first_ehlo(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_refuse(s, SMTP_SERVER_SEQUENCE, 503, "5.5.1", "Say EHLO first");
	return false;
}

static bool not_nested(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_refuse(s, SMTP_SERVER_SEQUENCE, 503, "5.5.1", "Not within a mail transaction: finish it, or say RSET");
	return false;
}

static bool first_mail(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_refuse(s, SMTP_SERVER_SEQUENCE, 503, "5.5.1", "Say MAIL first");
	return false;
}

static bool data_first_ehlo(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_refuse_data(s, SMTP_SERVER_SEQUENCE, 503, "5.5.1", "Say EHLO first");
	return false;
}

static bool data_first_mail(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_refuse_data(s, SMTP_SERVER_SEQUENCE, 503, "5.5.1", "Say MAIL and RCPT first");
	return false;
}

static bool data_first_rcpt(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_refuse_data(s, SMTP_SERVER_SEQUENCE, 554, "5.5.1", "No valid recipients");
	return false;
}

/* The octets of its chunk follow, and nobody knows how they would read as commands. */
static bool on_bdat(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_refuse(s, SMTP_SERVER_UNKNOWN_COMMAND, 502, "5.5.1", "CHUNKING is not offered here, use DATA");
	server_end(s, SMTP_SERVER_UNKNOWN_COMMAND);
	return false;
}

/* A browser that was made to talk to us (ALPACA and its elders): not another line of it is looked at. */
static bool on_foreign(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_refuse(s, SMTP_SERVER_FOREIGN_PROTOCOL, 554, "5.5.1", "This is SMTP, not HTTP");
	server_end(s, SMTP_SERVER_FOREIGN_PROTOCOL);
	return false;
}

static bool not_offered(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_refuse(s, SMTP_SERVER_UNKNOWN_COMMAND, 502, "5.5.1", "This command is not offered here");
	return false;
}

static bool unknown(struct smtp_server *s, struct slice args, struct smtp_server_event *event)
{
	(void)args;
	(void)event;
	server_refuse(s, SMTP_SERVER_UNKNOWN_COMMAND, 500, "5.5.2", "Command not recognised, HELP lists them");
	return false;
}

/* ---- The table -------------------------------------------------------------------------------------------------- */

enum verb_gate {
	GATE_NONE,
	GATE_TLS = 1,  /* not before TLS where that is required (RFC 3207 §4) */
	GATE_AUTH = 2, /* not for strangers */
	GATE_DATA = 4, /* content may follow a refusal */
};

static const struct verb {
	const char *name;
	unsigned gates;
	handler *handlers[COMMAND_STATE_COUNT];
} verbs[] = {
    /*                              START            READY            MAIL             RCPT */
    {"EHLO", GATE_NONE, {on_ehlo, on_ehlo, on_ehlo, on_ehlo}},
    {"HELO", GATE_NONE, {on_helo, on_helo, on_helo, on_helo}},
    {"MAIL", GATE_TLS | GATE_AUTH, {first_ehlo, server_mail, not_nested, not_nested}},
    {"RCPT", GATE_TLS | GATE_AUTH, {first_ehlo, first_mail, server_rcpt, server_rcpt}},
    {"DATA", GATE_TLS | GATE_AUTH | GATE_DATA, {data_first_ehlo, data_first_mail, data_first_rcpt, server_data}},
    {"RSET", GATE_NONE, {on_rset, on_rset, on_rset, on_rset}},
    {"NOOP", GATE_NONE, {on_noop, on_noop, on_noop, on_noop}},
    {"QUIT", GATE_NONE, {on_quit, on_quit, on_quit, on_quit}},
    {"STARTTLS", GATE_NONE, {first_ehlo, on_starttls, not_nested, not_nested}},
    {"AUTH", GATE_NONE, {first_ehlo, server_auth, not_nested, not_nested}},
    {"VRFY", GATE_TLS, {on_vrfy, on_vrfy, on_vrfy, on_vrfy}},
    {"HELP", GATE_NONE, {on_help, on_help, on_help, on_help}},
    {"BDAT", GATE_NONE, {on_bdat, on_bdat, on_bdat, on_bdat}},
    {"EXPN", GATE_NONE, {not_offered, not_offered, not_offered, not_offered}},
    {"ETRN", GATE_NONE, {not_offered, not_offered, not_offered, not_offered}},
    {"ATRN", GATE_NONE, {not_offered, not_offered, not_offered, not_offered}},
    {"BURL", GATE_NONE, {not_offered, not_offered, not_offered, not_offered}},
    {"TURN", GATE_NONE, {not_offered, not_offered, not_offered, not_offered}},
    {"SEND", GATE_NONE, {not_offered, not_offered, not_offered, not_offered}},
    {"SOML", GATE_NONE, {not_offered, not_offered, not_offered, not_offered}},
    {"SAML", GATE_NONE, {not_offered, not_offered, not_offered, not_offered}},
    {"GET", GATE_NONE, {on_foreign, on_foreign, on_foreign, on_foreign}},
    {"POST", GATE_NONE, {on_foreign, on_foreign, on_foreign, on_foreign}},
    {"PUT", GATE_NONE, {on_foreign, on_foreign, on_foreign, on_foreign}},
    {"HEAD", GATE_NONE, {on_foreign, on_foreign, on_foreign, on_foreign}},
    {"DELETE", GATE_NONE, {on_foreign, on_foreign, on_foreign, on_foreign}},
    {"OPTIONS", GATE_NONE, {on_foreign, on_foreign, on_foreign, on_foreign}},
    {"PATCH", GATE_NONE, {on_foreign, on_foreign, on_foreign, on_foreign}},
    {"CONNECT", GATE_NONE, {on_foreign, on_foreign, on_foreign, on_foreign}},
    {"TRACE", GATE_NONE, {on_foreign, on_foreign, on_foreign, on_foreign}},
    {"", GATE_NONE, {unknown, unknown, unknown, unknown}}, /* the last: every other word */
};

static const struct verb *find_verb(struct slice word)
{
	size_t i = 0;

	while (verbs[i].name[0] && !slice_case_eq(word, slice_of_str(verbs[i].name)))
		i++;
	return &verbs[i];
}

static void shut_gate(struct smtp_server *s, const struct verb *verb, enum smtp_server_reason reason, int code,
		      const char *enhanced, const char *text)
{
	if (verb->gates & GATE_DATA)
		server_refuse_data(s, reason, code, enhanced, text);
	else
		server_refuse(s, reason, code, enhanced, text);
}

/* RFC 6409 §4.3, RFC 3207 §4. */
static bool pass_gates(struct smtp_server *s, const struct verb *verb)
{
	const struct smtp_server_options *o = s->options;
	const char *text = o->untrusted_text;

	if (o->trusted)
		return true;
	if ((verb->gates & GATE_TLS) && o->tls_required && !s->tls) {
		shut_gate(s, verb, SMTP_SERVER_TLS_REQUIRED, 530, "5.7.0", "Say STARTTLS first, TLS is required here");
		return false;
	}
	if (!(verb->gates & GATE_AUTH) || s->user)
		return true;
	if (o->auth)
		shut_gate(s, verb, SMTP_SERVER_AUTH_REQUIRED, 530, "5.7.0",
			  text ? text
			       : "Authentication required: set user name and password in the sending program, or add "
				 "its address to `trusted`");
	else
		shut_gate(s, verb, SMTP_SERVER_AUTH_REQUIRED, 554, "5.7.1",
			  text ? text
			       : "Relaying denied: add the sending program's address to `trusted`, or set up users");
	return false;
}

/* Controls, NUL among them, have no place in any command. Octets over 127 have, in names and addresses. */
static bool has_controls(struct slice line)
{
	for (size_t i = 0; i < line.len; i++)
		if ((unsigned char)line.ptr[i] < ' ' || line.ptr[i] == 0x7f)
			return true;
	return false;
}

static struct slice without_trailing_blanks(struct slice line)
{
	while (line.len && (line.ptr[line.len - 1] == ' ' || line.ptr[line.len - 1] == '\t'))
		line.len--;
	return line;
}

/* False: too many have brought no message forward. */
static bool count_command(struct smtp_server *s)
{
	s->commands++;
	if (++s->idle_commands <= s->limits.commands)
		return true;
	server_decline(s, SMTP_SERVER_TOO_MANY_COMMANDS,
		       &(struct smtp_server_reply){421, "4.7.0", "Too many commands without a message, closing"});
	return false;
}

enum server_step server_command(struct smtp_server *s, struct slice line, struct smtp_server_event *event)
{
	const struct verb *verb;
	bool was_refused = s->data_was_refused, has_event = false;
	ptrdiff_t blank;
	struct slice word;

	s->data_was_refused = false;
	line = without_trailing_blanks(line);
	blank = slice_find(line, ' ');
	word = blank < 0 ? line : slice_to(line, (size_t)blank);
	verb = find_verb(word);
	if (!count_command(s))
		return STEP_AGAIN;
	if (has_controls(line)) {
		server_refuse(s, SMTP_SERVER_BAD_OCTETS, 500, "5.5.2", "Control characters have no place in a command");
		verb = find_verb((struct slice){0});
	} else if (pass_gates(s, verb)) {
		struct slice args = slice_from(line, word.len);
		while (args.len && args.ptr[0] == ' ')
			args = slice_from(args, 1);
		has_event = verb->handlers[s->state](s, args, event);
	}
	/* A client that does not wait for 354 sends its message as commands. */
	if (was_refused && verb->name[0] == '\0')
		server_end(s, SMTP_SERVER_SEQUENCE);
	return has_event ? STEP_EVENT : STEP_AGAIN;
}
