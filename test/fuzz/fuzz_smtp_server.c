/* A submission session. The first four octets choose the server's options, how the host answers and how the rest is cut
 * into reads; the rest is what the client says. It is run whole and cut: both must give the same events and output.
 * Whatever comes: no mail for strangers, no bare newline or NUL in what is accepted, well-formed replies, bounded
 * memory.
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
	bool is_user, has_tls, may_differ, is_closed, in_content;
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

static void on_auth(struct session *session, const struct smtp_server_auth *auth)
{
	enum smtp_server_auth_result result = (enum smtp_server_auth_result)(roll(session) % 4);

	BUG_ON(auth->user.len == 0 || auth->password.len == 0 || slice_find(auth->password, '\0') >= 0);
	BUG_ON(!session->has_tls && !session->options.allow_plaintext_auth);
	note(session, auth->user);
	note(session, auth->password);
	session->is_user |= result == SMTP_SERVER_AUTH_OK;
	smtp_server_auth_done(session->server, result);
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
	smtp_server_mail_done(session->server, answer(session));
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
		smtp_server_rcpt_done(session->server, answer(session));
		break;
	case SMTP_SERVER_DATA:
		session->last = 0;
		smtp_server_data_done(session->server, answer(session));
		break;
	case SMTP_SERVER_CONTENT: check_content(session, event->content); break;
	case SMTP_SERVER_COMPLETE:
		BUG_ON(session->last != '\n' && session->last != 0);
		smtp_server_stored(session->server, answer(session));
		break;
	case SMTP_SERVER_STARTTLS:
		session->has_tls = session->may_differ = true;
		session->is_user = false;
		smtp_server_tls_started(session->server);
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

static void end(struct session *session)
{
	buf_fini(&session->events);
	buf_fini(&session->output);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct session whole = {0}, cut = {0}, slow = {0};
	struct slice text;

	if (size < 4)
		return 0;
	choose(&whole.options, data[0], data[1]);
	whole.seed = cut.seed = slow.seed = data[2];
	cut.options = slow.options = whole.options;
	text = slice_from(slice_of(data, size), 4);
	run(&whole, text, 20000, 0);
	run(&cut, text, 1 + data[3] % 64, 0);
	if (!whole.may_differ && !cut.may_differ)
		BUG_ON(!slice_eq(buf_slice(&whole.events), buf_slice(&cut.events)) ||
		       !slice_eq(buf_slice(&whole.output), buf_slice(&cut.output)));
	run(&slow, text, 1 + data[3] % 64, 100 * data[3]);
	end(&whole);
	end(&cut);
	end(&slow);
	return 0;
}
