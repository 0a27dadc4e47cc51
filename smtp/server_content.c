/* What comes after 354. Once a message cannot be taken its octets are no longer given out, but its end is looked for
 * until it is found: content never runs as commands. */
#include "base/base.h"
#include "smtp/server_internal.h"

enum { SWALLOW_MIN_BYTES = 64 << 20 };

void server_content_begin(struct smtp_server *s)
{
	content_init(&s->content, s->options->bare_newlines);
	s->refusal_code = 0;
	server_set_state(s, DATA);
}

/* Why the message cannot be taken, by its octets: what they all are, so that the reply does not depend on how they were
 * cut into reads. */
static enum smtp_server_reason fault_of(const struct smtp_server *s)
{
	unsigned flags = s->content.flags;

	if (flags & CONTENT_NUL)
		return SMTP_SERVER_NUL;
	if ((flags & CONTENT_BARE_NEWLINE) && s->options->bare_newlines == CONTENT_BARE_REJECT)
		return SMTP_SERVER_BARE_NEWLINE;
	if ((flags & CONTENT_LONG_LINE) && s->options->reject_long_lines)
		return SMTP_SERVER_LONG_LINE;
	return s->content.bytes > s->limits.message_bytes ? SMTP_SERVER_TOO_BIG : SMTP_SERVER_NONE;
}

static void refuse_message(struct smtp_server *s)
{
	enum smtp_server_reason fault = fault_of(s);
	int code = s->refusal_code;

	server_set_state(s, READY);
	if (code) {
		buf_append(&s->out, buf_slice(&s->refusal));
		server_tell(s, SMTP_SERVER_REJECTED, SMTP_SERVER_MESSAGE_REFUSED, code);
		if (code == 421)
			server_end(s, SMTP_SERVER_MESSAGE_REFUSED);
		return;
	}
	switch (fault) {
	case SMTP_SERVER_NUL:
		server_refuse(s, fault, 550, "5.6.0",
			      "The message holds a NUL octet, no mail may: encode it as base64");
		break;
	case SMTP_SERVER_BARE_NEWLINE:
		server_refuse(s, fault, 550, "5.6.11",
			      "The message holds a CR or LF alone: lines must end with CR LF (or set "
			      "`bare_newlines: normalize` for this listener)");
		break;
	case SMTP_SERVER_LONG_LINE:
		server_refuse(s, fault, 550, "5.6.0",
			      "A line of the message is longer than 998 octets: encode it as quoted-printable or "
			      "base64 (or set `long_lines: pass`)");
		break;
	default: server_refuse(s, SMTP_SERVER_TOO_BIG, 552, "5.3.4", "The message is too big"); break;
	}
}

static enum server_step on_end(struct smtp_server *s, struct smtp_server_event *event)
{
	if (s->state == SWALLOW) {
		refuse_message(s);
		return STEP_AGAIN;
	}
	server_set_state(s, STORING);
	event->type = SMTP_SERVER_COMPLETE;
	event->complete = (struct smtp_server_complete){s->content.bytes, s->content.flags};
	return STEP_EVENT;
}

/* Endless content would be swallowed for ever. */
static bool is_endless(const struct smtp_server *s)
{
	uint64_t most = MAX(2 * s->limits.message_bytes, (uint64_t)SWALLOW_MIN_BYTES);

	return s->state == SWALLOW && s->content.bytes > most;
}

static enum server_step on_more(struct smtp_server *s, size_t taken)
{
	if (taken)
		return STEP_AGAIN;
	if (!s->eof)
		return STEP_WAIT;
	server_end(s, SMTP_SERVER_GONE);
	return STEP_AGAIN;
}

enum server_step server_content(struct smtp_server *s, struct smtp_server_event *event)
{
	struct slice piece = {0};
	size_t taken;
	enum content_status status = content_next(&s->content, buf_slice(&s->in), &taken, &piece);

	if (s->state == DATA && fault_of(s) != SMTP_SERVER_NONE) {
		server_abort(s, SMTP_SERVER_MESSAGE_REFUSED);
		server_set_state(s, SWALLOW);
	}
	if (s->state == DATA && status == CONTENT_PIECE) {
		s->piece = taken;
		event->type = SMTP_SERVER_CONTENT;
		event->content = piece;
		return STEP_EVENT;
	}
	buf_consume(&s->in, taken);
	s->searched = 0;
	if (status == CONTENT_END)
		return on_end(s, event);
	if (is_endless(s)) {
		server_refuse(s, SMTP_SERVER_TOO_BIG, 552, "5.3.4", "The message is too big and does not end, closing");
		server_end(s, SMTP_SERVER_TOO_BIG);
		return STEP_AGAIN;
	}
	return status == CONTENT_MORE ? on_more(s, taken) : STEP_AGAIN;
}

void smtp_server_refuse_content(struct smtp_server *server, const struct smtp_server_reply *reply)
{
	struct smtp_server *s = server;

	if (s->state != DATA)
		return;
	buf_clear(&s->refusal);
	smtp_server_reply_format(&s->refusal, reply);
	s->refusal_code = reply->code;
	server_abort(s, SMTP_SERVER_MESSAGE_REFUSED);
	server_set_state(s, SWALLOW);
}

void smtp_server_stored(struct smtp_server *server, const struct smtp_server_reply *reply)
{
	static const struct smtp_server_reply usual = {250, "2.0.0", "Ok"};
	struct smtp_server *s = server;

	if (s->state != STORING)
		return;
	s->open = false;
	s->recipients = 0;
	s->smtputf8 = false;
	server_set_state(s, READY);
	if (!reply)
		reply = &usual;
	if (reply->code >= 400) {
		server_decline(s, SMTP_SERVER_MESSAGE_REFUSED, reply);
		return;
	}
	s->messages++;
	s->idle_commands = s->recent_errors = 0;
	server_say(s, reply->code, reply->enhanced, reply->text);
}
