/* A submission session. The first four octets choose the server's options, how the host answers and how the rest is cut
 * into reads; the rest is what the client says. It is run whole and cut: both must give the same events and output.
 * Then slowly, and once more with a host that answers late, refuses content under way, sends little of the output at a
 * time, and may shut the session down in the middle. Whatever comes: no mail for strangers, no bare newline or NUL in
 * what is accepted, well-formed replies, bounded memory, and an end.
 */
#include "base/base.h"
#include "base/buf.h"
#include "smtp/server.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LOG_MAX = 32 << 20, MEMORY_MAX = 160 * 1024 };

struct session {
	struct smtp_server_options options;
	struct smtp_server *server;
	uint8_t seed;
	unsigned answers;
	bool is_user, has_tls, may_differ, is_closed;
	bool is_moody;	 /* late answers and the like */
	bool is_refused; /* the content that arrives */
	enum smtp_server_event_type held;
	bool is_held;
	char last; /* octet of content */
	struct buf events, output;
};

/* The same answers in the same order, whatever the cuts. */
static unsigned roll(struct session *session)
{
	unsigned x = (session->seed * 2654435761u) ^ (++session->answers * 40503u);

	x ^= x >> 13;
	return session->seed ? x % 8 : 0;
}

static void note(struct session *session, struct slice text)
{
	BUG_ON(buf_append(&session->events, text) < 0);
}

static void check_output(struct slice out)
{
	while (out.len) {
		ptrdiff_t end = slice_find(out, '\n');
		BUG_ON(end < 4 || end > 511 || out.ptr[end - 1] != '\r');
		BUG_ON(out.ptr[0] < '2' || out.ptr[0] > '5' || (out.ptr[3] != ' ' && out.ptr[3] != '-'));
		for (ptrdiff_t i = 0; i < end - 1; i++)
			BUG_ON(out.ptr[i] < ' ' || out.ptr[i] > '~');
		out = slice_from(out, (size_t)end + 1);
	}
}

static void check_content(struct session *session, struct slice content)
{
	BUG_ON(content.len == 0);
	for (size_t i = 0; i < content.len; i++) {
		BUG_ON(content.ptr[i] == '\0');
		BUG_ON((content.ptr[i] == '\n') != (session->last == '\r'));
		session->last = content.ptr[i];
	}
}

static void check_mailbox(const struct smtp_mailbox *box)
{
	for (size_t i = 0; i < box->address.len; i++)
		BUG_ON((unsigned char)box->address.ptr[i] < ' ' || box->address.ptr[i] == 0x7f);
	BUG_ON(box->address.len > SMTP_ADDRESS_MAX_BYTES);
}

static const struct smtp_server_reply *answer(struct session *session)
{
	static const struct smtp_server_reply replies[] = {
	    {451, "4.3.0", "Later"}, {550, "5.7.1", "Not\nfrom here"}, {421, "4.3.0", "Gone\xff"}};
	unsigned which = roll(session);

	return which < ARRAY_LEN(replies) && session->seed ? &replies[which] : NULL;
}

static void answer_auth(struct session *session)
{
	enum smtp_server_auth_result result = (enum smtp_server_auth_result)(roll(session) % 4);

	session->is_user |= result == SMTP_SERVER_AUTH_OK;
	smtp_server_auth_done(session->server, result);
}

/* A handshake that ends when the session has been given up is nobody's. */
static void start_tls(struct session *session)
{
	if (strcmp(smtp_server_state_name(session->server), "TLS") != 0)
		return;
	session->has_tls = true;
	session->is_user = false;
	smtp_server_tls_started(session->server);
}

static void answer_now(struct session *session, enum smtp_server_event_type type)
{
	switch (type) {
	case SMTP_SERVER_AUTH: answer_auth(session); break;
	case SMTP_SERVER_MAIL: smtp_server_mail_done(session->server, answer(session)); break;
	case SMTP_SERVER_RCPT: smtp_server_rcpt_done(session->server, answer(session)); break;
	case SMTP_SERVER_DATA: smtp_server_data_done(session->server, answer(session)); break;
	case SMTP_SERVER_STARTTLS: start_tls(session); break;
	default: smtp_server_stored(session->server, answer(session));
	}
}

static void answer_later(struct session *session, enum smtp_server_event_type type)
{
	BUG_ON(session->is_held);
	if (session->is_moody && roll(session) < 4) {
		session->is_held = true;
		session->held = type;
	} else {
		answer_now(session, type);
	}
}

/* Answers what was held back; also to a session that does not wait any more. */
static void answer_held(struct session *session)
{
	if (!session->is_held)
		return;
	session->is_held = false;
	answer_now(session, session->held);
}

static void on_auth(struct session *session, const struct smtp_server_auth *auth)
{
	BUG_ON(auth->user.len == 0 || auth->password.len == 0 || slice_find(auth->password, '\0') >= 0);
	BUG_ON(!session->has_tls && !session->options.allow_plaintext_auth);
	note(session, auth->user);
	note(session, auth->password);
	answer_later(session, SMTP_SERVER_AUTH);
}

static void on_mail(struct session *session, const struct smtp_server_mail *mail)
{
	const struct smtp_server_options *o = &session->options;

	BUG_ON(!o->trusted && !session->is_user);
	BUG_ON(!o->trusted && o->tls_required && !session->has_tls);
	BUG_ON(mail->sender.is_utf8 && !mail->smtputf8);
	BUG_ON(mail->requiretls && !session->has_tls);
	check_mailbox(&mail->sender);
	note(session, mail->sender.address);
	note(session, mail->envid);
	note(session, mail->auth);
	answer_later(session, SMTP_SERVER_MAIL);
}

static void on_content(struct session *session, struct slice content)
{
	BUG_ON(session->is_refused);
	check_content(session, content);
	if (!session->is_moody || roll(session) != 1)
		return;
	smtp_server_refuse_content(session->server,
				   &(struct smtp_server_reply){roll(session) & 1 ? 552 : 421, "5.3.4", "Enough"});
	session->is_refused = true;
}

static void on_close(struct session *session, enum smtp_server_reason reason)
{
	session->is_closed = true;
	/* Content that comes in the same read as a refused DATA ends the session: that depends on the cuts. */
	session->may_differ |= reason == SMTP_SERVER_SEQUENCE || reason == SMTP_SERVER_TLS_REQUIRED ||
			       reason == SMTP_SERVER_AUTH_REQUIRED || reason == SMTP_SERVER_SYNTAX ||
			       reason == SMTP_SERVER_MESSAGE_REFUSED;
}

static void on_event(struct session *session, const struct smtp_server_event *event)
{
	BUG_ON(session->is_closed);
	if (event->type != SMTP_SERVER_CONTENT)
		note(session, slice_of_str(smtp_server_event_name(event->type)));
	switch (event->type) {
	case SMTP_SERVER_AUTH: on_auth(session, &event->auth); break;
	case SMTP_SERVER_MAIL: on_mail(session, &event->mail); break;
	case SMTP_SERVER_RCPT:
		BUG_ON(event->rcpt.recipient.address.len == 0);
		check_mailbox(&event->rcpt.recipient);
		note(session, event->rcpt.recipient.address);
		note(session, event->rcpt.orcpt);
		answer_later(session, SMTP_SERVER_RCPT);
		break;
	case SMTP_SERVER_DATA:
		session->last = 0;
		session->is_refused = false;
		answer_later(session, SMTP_SERVER_DATA);
		break;
	case SMTP_SERVER_CONTENT: on_content(session, event->content); break;
	case SMTP_SERVER_COMPLETE:
		BUG_ON(session->is_refused || (session->last != '\n' && session->last != 0));
		answer_later(session, SMTP_SERVER_COMPLETE);
		break;
	case SMTP_SERVER_STARTTLS:
		session->may_differ = true;
		answer_later(session, SMTP_SERVER_STARTTLS);
		break;
	case SMTP_SERVER_REJECTED:
	case SMTP_SERVER_ABORTED: note(session, slice_of_str(smtp_server_reason_name(event->reason))); break;
	case SMTP_SERVER_CLOSE: on_close(session, event->reason); break;
	default: break;
	}
}

static void pump(struct session *session)
{
	struct smtp_server_event event;
	struct slice out;

	do {
		while (smtp_server_next(session->server, &event))
			on_event(session, &event);
		out = smtp_server_output(session->server);
		if (session->is_moody && out.len && roll(session) < 3) {
			smtp_server_output_sent(session->server, 1 + roll(session) * out.len / 9);
			break;
		}
		if (!session->is_moody)
			check_output(out);
		BUG_ON(buf_append(&session->output, out) < 0);
		smtp_server_output_sent(session->server, out.len);
	} while (out.len);
	BUG_ON(smtp_server_memory_bytes(session->server) > MEMORY_MAX);
}

static void choose(struct smtp_server_options *o, uint8_t a, uint8_t b)
{
	o->hostname = "relay.test";
	o->trusted = a & 1;
	o->auth = a & 2;
	o->allow_plaintext_auth = a & 4;
	o->starttls = a & 8;
	o->tls_required = a & 16;
	o->bare_newlines = a & 32 ? CONTENT_BARE_NORMALIZE : CONTENT_BARE_REJECT;
	o->reject_long_lines = a & 64;
	o->bare_names = a & 128;
	o->no_smtputf8 = b & 1;
	o->no_dsn = b & 2;
	o->tls_active = b & 4;
	o->limits.errors = b & 8 ? 5 : 0;
	o->limits.recipients = b & 16 ? 2 : 0;
	o->limits.message_bytes = b & 32 ? 100 : 0;
	o->limits.commands = b & 64 ? 20 : 0;
}

static void run(struct session *session, struct slice text, size_t cut, int64_t wait_ms)
{
	int64_t now = 0;

	session->has_tls = session->options.tls_active;
	session->server = smtp_server_new(&session->options, now);
	buf_init(&session->events, LOG_MAX);
	buf_init(&session->output, LOG_MAX);
	pump(session);
	while (text.len) {
		size_t taken;
		smtp_server_tick(session->server, now += wait_ms);
		taken = smtp_server_input(session->server, slice_to(text, cut));
		BUG_ON(taken == 0);
		pump(session);
		text = slice_from(text, taken);
	}
	smtp_server_eof(session->server);
	pump(session);
	BUG_ON(!session->is_closed);
	smtp_server_free(&session->server);
}

static void act(struct session *session)
{
	switch (roll(session) + 8 * (roll(session) & 1)) {
	case 14: smtp_server_shutdown(session->server); break;
	case 15: smtp_server_close(session->server, answer(session)); break;
	default: break;
	}
}

static void run_moody(struct session *session, struct slice text, size_t cut)
{
	int64_t now = 0;

	session->is_moody = true;
	session->has_tls = session->options.tls_active;
	session->server = smtp_server_new(&session->options, now);
	buf_init(&session->events, LOG_MAX);
	buf_init(&session->output, LOG_MAX);
	pump(session);
	while (text.len && !session->is_closed) {
		smtp_server_tick(session->server, now += 100 * roll(session));
		if (smtp_server_wants_input(session->server))
			text = slice_from(text, smtp_server_input(session->server, slice_to(text, cut)));
		if (roll(session) & 1)
			answer_held(session);
		act(session);
		pump(session);
	}
	smtp_server_eof(session->server);
	for (int i = 0; i < 10000 && !session->is_closed; i++) {
		answer_held(session);
		smtp_server_tick(session->server, now += 1000);
		pump(session);
	}
	BUG_ON(!session->is_closed);
	smtp_server_free(&session->server);
}

static void end(struct session *session)
{
	buf_fini(&session->events);
	buf_fini(&session->output);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct session whole = {0}, cut = {0}, slow = {0}, moody = {0};
	struct slice text;

	if (size < 4)
		return 0;
	choose(&whole.options, data[0], data[1]);
	whole.seed = cut.seed = slow.seed = data[2];
	moody.seed = data[2] | 1;
	cut.options = slow.options = moody.options = whole.options;
	text = slice_from(slice_of(data, size), 4);
	run(&whole, text, 20000, 0);
	run(&cut, text, 1 + data[3] % 64, 0);
	if (!whole.may_differ && !cut.may_differ)
		BUG_ON(!slice_eq(buf_slice(&whole.events), buf_slice(&cut.events)) ||
		       !slice_eq(buf_slice(&whole.output), buf_slice(&cut.output)));
	run(&slow, text, 1 + data[3] % 64, 100 * data[3]);
	run_moody(&moody, text, 1 + data[3] % 64);
	end(&whole);
	end(&cut);
	end(&slow);
	end(&moody);
	return 0;
}
