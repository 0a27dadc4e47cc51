#include "support_transcript.h"

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>

enum { TEXT_MAX = 8 << 20, WHOLE = -1, BYTES = -2 };

enum kind { ON_AUTH, ON_MAIL, ON_RCPT, ON_DATA, ON_STORED, ON_CONTENT, KIND_COUNT };
static const char *const kinds[KIND_COUNT] = {"auth", "mail", "rcpt", "data", "stored", "refuse"};

struct answer {
	bool set;
	char word[32];
	int code;
	char enhanced[16], text[512];
};

struct run {
	struct smtp_server_options options;
	struct smtp_server *server;
	int64_t now;
	long cut;    /* position, WHOLE or BYTES */
	size_t seen; /* client octets so far */
	bool is_stuck;
	struct answer answers[KIND_COUNT];
	bool hold[KIND_COUNT];
	int held;				     /* the kind that waits, -1 */
	struct buf events, output, content;	     /* what came */
	struct buf expected_events, expected_output; /* what should */
	struct buf pending;			     /* client octets of this group */
	const char *script;
};

/* ---- Words ------------------------------------------------------------------------------------------------------ */

static void put_escaped(struct buf *out, struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.ptr[i];
		if (c == '\r')
			buf_append_str(out, "\\r");
		else if (c == '\n')
			buf_append_str(out, "\\n");
		else if (c < ' ' || c > '~')
			buf_printf(out, "\\x%02x", c);
		else
			buf_append_byte(out, (char)c);
	}
}

static void put_unescaped(struct buf *out, struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];
		if (c == '\\' && i + 1 < text.len) {
			c = text.ptr[++i];
			if (c == 'R') {
				char *end;
				long count = strtol(text.ptr + i + 1, &end, 10);
				i = (size_t)(end - text.ptr) + 1;
				while (count-- > 0)
					assert_int_equal(buf_append_byte(out, text.ptr[i]), 0);
				continue;
			}
			if (c == 'x') {
				char hex[3] = {text.ptr[i + 1], text.ptr[i + 2], 0};
				c = (char)strtol(hex, NULL, 16);
				i += 2;
			} else {
				c = c == 'r' ? '\r' : c == 'n' ? '\n' : c == 't' ? '\t' : c == '0' ? '\0' : c;
			}
		}
		buf_append_byte(out, c);
	}
}

static struct slice take_word(struct slice *text)
{
	struct slice word;
	ptrdiff_t blank;

	*text = slice_trim(*text);
	blank = slice_find(*text, ' ');
	word = blank < 0 ? *text : slice_to(*text, (size_t)blank);
	*text = slice_trim(slice_from(*text, word.len));
	return word;
}

static bool is_word(struct slice word, const char *str)
{
	return slice_eq(word, slice_of_str(str));
}

static long take_number(struct slice *text)
{
	char number[32];

	slice_to_cstr(take_word(text), number, sizeof(number));
	return strtol(number, NULL, 10);
}

/* ---- Events ----------------------------------------------------------------------------------------------------- */

static void put_mail(struct buf *out, const struct smtp_server_mail *mail)
{
	static const char *const rets[] = {"", " ret=full", " ret=hdrs"};

	buf_append_byte(out, ' ');
	put_escaped(out, mail->sender.address.len ? mail->sender.address : SLICE("<>"));
	if (mail->has_size)
		buf_printf(out, " size=%llu", (unsigned long long)mail->size);
	buf_printf(out, "%s%s%s%s", mail->body_8bitmime ? " 8bitmime" : "", mail->smtputf8 ? " smtputf8" : "",
		   mail->requiretls ? " requiretls" : "", rets[mail->ret]);
	if (mail->envid.len)
		buf_printf(out, " envid=%.*s", SLICE_ARG(mail->envid));
	if (mail->auth.len)
		buf_printf(out, " auth=%.*s", SLICE_ARG(mail->auth));
}

static void put_rcpt(struct buf *out, const struct smtp_server_rcpt *rcpt)
{
	buf_append_byte(out, ' ');
	put_escaped(out, rcpt->recipient.address);
	if (rcpt->notify)
		buf_printf(out, " notify=%u", rcpt->notify);
	if (rcpt->orcpt.len) {
		buf_append_str(out, " orcpt=");
		put_escaped(out, rcpt->orcpt);
	}
}

static void put_complete(struct run *run, const struct smtp_server_complete *complete)
{
	assert_int_equal(complete->bytes, buf_len(&run->content));
	buf_printf(&run->events, "%s%s%s |", complete->flags & CONTENT_8BIT ? " 8bit" : "",
		   complete->flags & CONTENT_LONG_LINE ? " long" : "",
		   complete->flags & CONTENT_BARE_NEWLINE ? " bare" : "");
	put_escaped(&run->events, buf_slice(&run->content));
	buf_append_byte(&run->events, '|');
	buf_clear(&run->content);
}

static void put_event(struct run *run, const struct smtp_server_event *event)
{
	struct buf *out = &run->events;

	buf_append_str(out, smtp_server_event_name(event->type));
	switch (event->type) {
	case SMTP_SERVER_AUTH:
		buf_printf(out, " %s ", event->auth.mechanism);
		put_escaped(out, event->auth.user);
		buf_append_byte(out, ' ');
		put_escaped(out, event->auth.password);
		break;
	case SMTP_SERVER_MAIL: put_mail(out, &event->mail); break;
	case SMTP_SERVER_RCPT: put_rcpt(out, &event->rcpt); break;
	case SMTP_SERVER_COMPLETE: put_complete(run, &event->complete); break;
	case SMTP_SERVER_REJECTED:
		buf_printf(out, " %s %d", smtp_server_reason_name(event->reason), event->code);
		break;
	case SMTP_SERVER_ABORTED:
		buf_clear(&run->content);
		buf_printf(out, " %s", smtp_server_reason_name(event->reason));
		break;
	case SMTP_SERVER_CLOSE: buf_printf(out, " %s", smtp_server_reason_name(event->reason)); break;
	default: break;
	}
	buf_append_byte(out, '\n');
}

/* ---- The host --------------------------------------------------------------------------------------------------- */

static enum smtp_server_auth_result auth_result(const struct answer *answer)
{
	if (!answer->set)
		return SMTP_SERVER_AUTH_OK;
	if (strcmp(answer->word, "temporary") == 0)
		return SMTP_SERVER_AUTH_TEMPORARY;
	return strcmp(answer->word, "shut_out") == 0 ? SMTP_SERVER_AUTH_SHUT_OUT : SMTP_SERVER_AUTH_BAD;
}

static void give_answer(struct run *run, enum kind kind)
{
	struct answer *answer = &run->answers[kind];
	struct smtp_server_reply reply = {answer->code, answer->enhanced, answer->text};
	const struct smtp_server_reply *given = answer->set ? &reply : NULL;

	switch (kind) {
	case ON_AUTH: smtp_server_auth_done(run->server, auth_result(answer)); break;
	case ON_MAIL: smtp_server_mail_done(run->server, given); break;
	case ON_RCPT: smtp_server_rcpt_done(run->server, given); break;
	case ON_DATA: smtp_server_data_done(run->server, given); break;
	case ON_STORED: smtp_server_stored(run->server, given); break;
	default: break;
	}
	answer->set = false;
}

static int kind_of(enum smtp_server_event_type type)
{
	switch (type) {
	case SMTP_SERVER_AUTH: return ON_AUTH;
	case SMTP_SERVER_MAIL: return ON_MAIL;
	case SMTP_SERVER_RCPT: return ON_RCPT;
	case SMTP_SERVER_DATA: return ON_DATA;
	case SMTP_SERVER_COMPLETE: return ON_STORED;
	default: return -1;
	}
}

static void on_content(struct run *run, struct slice content)
{
	struct answer *answer = &run->answers[ON_CONTENT];

	assert_true(content.len > 0);
	assert_int_equal(buf_append(&run->content, content), 0);
	if (answer->set) {
		struct smtp_server_reply reply = {answer->code, answer->enhanced, answer->text};
		smtp_server_refuse_content(run->server, &reply);
		answer->set = false;
	}
}

static void on_event(struct run *run, const struct smtp_server_event *event)
{
	int kind = kind_of(event->type);

	if (event->type == SMTP_SERVER_CONTENT) {
		on_content(run, event->content);
		return;
	}
	put_event(run, event);
	if (kind < 0)
		return;
	if (run->hold[kind]) {
		run->hold[kind] = false;
		run->held = kind;
	} else {
		give_answer(run, (enum kind)kind);
	}
}

static bool flush(struct run *run)
{
	struct slice output = smtp_server_output(run->server);

	if (run->is_stuck || output.len == 0)
		return false;
	if (run->cut == BYTES)
		output.len = 1;
	assert_int_equal(buf_append(&run->output, output), 0);
	smtp_server_output_sent(run->server, output.len);
	return true;
}

static void pump(struct run *run)
{
	struct smtp_server_event event;

	do {
		while (smtp_server_next(run->server, &event))
			on_event(run, &event);
	} while (flush(run));
}

static void feed(struct run *run, struct slice bytes)
{
	while (bytes.len) {
		size_t taken = smtp_server_input(run->server, bytes);
		pump(run);
		if (taken == 0) {
			assert_true(run->is_stuck || run->held >= 0);
			break;
		}
		bytes = slice_from(bytes, taken);
	}
}

static void feed_group(struct run *run)
{
	struct slice bytes = buf_slice(&run->pending);
	long at = run->cut - (long)run->seen;

	run->seen += bytes.len;
	if (run->cut == BYTES) {
		for (size_t i = 0; i < bytes.len; i++)
			feed(run, slice_to(slice_from(bytes, i), 1));
	} else if (run->cut >= 0 && at > 0 && (size_t)at < bytes.len) {
		feed(run, slice_to(bytes, (size_t)at));
		feed(run, slice_from(bytes, (size_t)at));
	} else {
		feed(run, bytes);
	}
	buf_clear(&run->pending);
}

/* ---- Comparing -------------------------------------------------------------------------------------------------- */

static struct slice line_of(struct slice *text)
{
	ptrdiff_t end = slice_find(*text, '\n');
	struct slice line = end < 0 ? *text : slice_to(*text, (size_t)end);

	*text = slice_from(*text, line.len + 1);
	return line;
}

static bool matches(struct slice line, struct slice pattern)
{
	struct slice dots = SLICE("...");

	if (line.len && line.ptr[line.len - 1] == '\r')
		line.len--;
	if (pattern.len >= dots.len && slice_eq(slice_from(pattern, pattern.len - dots.len), dots))
		return slice_has_prefix(line, slice_to(pattern, pattern.len - dots.len));
	return slice_eq(line, pattern);
}

static void compare(struct run *run, const char *what, struct buf *came, struct buf *expected)
{
	struct slice a = buf_slice(came), b = buf_slice(expected);

	while (a.len || b.len) {
		struct slice line = line_of(&a), pattern = line_of(&b);
		if (matches(line, pattern))
			continue;
		fail_msg(
		    "%s (cut %ld, %zu octets in)\ncame:     %.*s\nexpected: %.*s\nall that came:\n%.*s\nin script:\n%s",
		    what, run->cut, run->seen, SLICE_ARG(line), SLICE_ARG(pattern), SLICE_ARG(buf_slice(came)),
		    run->script);
	}
	buf_clear(came);
	buf_clear(expected);
}

static void settle(struct run *run)
{
	if (buf_len(&run->pending))
		feed_group(run);
	compare(run, "output", &run->output, &run->expected_output);
	compare(run, "events", &run->events, &run->expected_events);
}

/* ---- The script ------------------------------------------------------------------------------------------------- */

static void set_limit(struct smtp_server_limits *limits, struct slice text)
{
	struct slice name = take_word(&text);
	long value = take_number(&text);

	if (is_word(name, "message_bytes"))
		limits->message_bytes = (uint64_t)value;
	else if (is_word(name, "recipients"))
		limits->recipients = (uint32_t)value;
	else if (is_word(name, "messages"))
		limits->messages = (uint32_t)value;
	else if (is_word(name, "commands"))
		limits->commands = (uint32_t)value;
	else if (is_word(name, "errors"))
		limits->errors = (uint32_t)value;
	else if (is_word(name, "auth_failures"))
		limits->auth_failures = (uint32_t)value;
	else if (is_word(name, "session_ms"))
		limits->session_ms = value;
	else
		fail_msg("no such limit: %.*s", SLICE_ARG(name));
}

static void set_option(struct run *run, struct slice text)
{
	struct smtp_server_options *o = &run->options;
	struct {
		const char *name;
		bool *flag;
	} flags[] = {{"starttls", &o->starttls},
		     {"tls_required", &o->tls_required},
		     {"tls_active", &o->tls_active},
		     {"auth", &o->auth},
		     {"allow_plaintext_auth", &o->allow_plaintext_auth},
		     {"trusted", &o->trusted},
		     {"bare_names", &o->bare_names},
		     {"reject_long_lines", &o->reject_long_lines},
		     {"no_smtputf8", &o->no_smtputf8},
		     {"no_dsn", &o->no_dsn},
		     {"no_requiretls", &o->no_requiretls}};
	struct slice word = take_word(&text);

	for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
		if (is_word(word, flags[i].name)) {
			*flags[i].flag = true;
			return;
		}
	}
	if (is_word(word, "normalize"))
		o->bare_newlines = CONTENT_BARE_NORMALIZE;
	else if (is_word(word, "limit"))
		set_limit(&o->limits, text);
	else
		fail_msg("no such option: %.*s", SLICE_ARG(word));
}

static void parse_reply(struct answer *answer, struct slice text)
{
	answer->code = (int)take_number(&text);
	slice_to_cstr(take_word(&text), answer->enhanced, sizeof(answer->enhanced));
	slice_to_cstr(text, answer->text, sizeof(answer->text));
}

static bool set_answer(struct run *run, struct slice word, struct slice text)
{
	for (int kind = 0; kind < KIND_COUNT; kind++) {
		if (!is_word(word, kinds[kind]))
			continue;
		run->answers[kind].set = true;
		if (kind == ON_AUTH)
			slice_to_cstr(text, run->answers[kind].word, sizeof(run->answers[kind].word));
		else
			parse_reply(&run->answers[kind], text);
		return true;
	}
	return false;
}

static void hold(struct run *run, struct slice word)
{
	for (int kind = 0; kind < KIND_COUNT; kind++)
		if (is_word(word, kinds[kind]))
			run->hold[kind] = true;
}

static void act(struct run *run, struct slice word, struct slice text)
{
	struct answer answer;
	struct smtp_server_reply reply = {0, answer.enhanced, answer.text};

	settle(run);
	if (is_word(word, "answer")) {
		assert_true(run->held >= 0);
		give_answer(run, (enum kind)run->held);
		run->held = -1;
	} else if (is_word(word, "eof")) {
		smtp_server_eof(run->server);
	} else if (is_word(word, "shutdown")) {
		smtp_server_shutdown(run->server);
	} else if (is_word(word, "tls")) {
		smtp_server_tls_started(run->server);
	} else if (is_word(word, "stuck") || is_word(word, "flow")) {
		run->is_stuck = is_word(word, "stuck");
	} else if (is_word(word, "wait")) {
		run->now += take_number(&text);
		smtp_server_tick(run->server, run->now);
	} else if (is_word(word, "close")) {
		parse_reply(&answer, text);
		reply.code = answer.code;
		smtp_server_close(run->server, text.len ? &reply : NULL);
	} else {
		fail_msg("no such action: %.*s", SLICE_ARG(word));
	}
	pump(run);
}

static void begin(struct run *run)
{
	if (run->server)
		return;
	run->server = smtp_server_new(&run->options, run->now);
	pump(run);
}

static void do_line(struct run *run, struct slice line)
{
	char mark = line.ptr[0];
	struct slice text = slice_from(line, line.len > 2 && line.ptr[2] == ' ' ? 3 : 2), word;

	if (mark == '!') {
		set_option(run, text);
		return;
	}
	begin(run);
	switch (mark) {
	case 'C':
		if (buf_len(&run->expected_output) || buf_len(&run->expected_events))
			settle(run);
		put_unescaped(&run->pending, text);
		if (line.ptr[1] == ':')
			buf_append_str(&run->pending, "\r\n");
		break;
	case 'S':
		buf_append(&run->expected_output, text);
		buf_append_byte(&run->expected_output, '\n');
		break;
	case '=':
		buf_append(&run->expected_events, slice_from(line, 2));
		buf_append_byte(&run->expected_events, '\n');
		break;
	case '>':
		text = slice_from(line, 1);
		word = take_word(&text);
		if (buf_len(&run->pending))
			settle(run);
		if (is_word(word, "hold"))
			hold(run, text);
		else if (!set_answer(run, word, text))
			act(run, word, text);
		break;
	default: fail_msg("what is this? %.*s", SLICE_ARG(line));
	}
}

static size_t run_once(const char *script, long cut)
{
	struct run run = {.options = {.hostname = "relay.test"}, .now = 1000, .cut = cut, .held = -1, .script = script};
	struct buf *bufs[] = {&run.events,	    &run.output,	  &run.content,
			      &run.expected_events, &run.expected_output, &run.pending};
	struct slice rest = slice_of_str(script);

	for (size_t i = 0; i < ARRAY_LEN(bufs); i++)
		buf_init(bufs[i], TEXT_MAX);
	while (rest.len) {
		struct slice line = line_of(&rest);
		while (line.len && (line.ptr[0] == ' ' || line.ptr[0] == '\t'))
			line = slice_from(line, 1);
		if (line.len && line.ptr[0] != '#')
			do_line(&run, line);
	}
	settle(&run);
	smtp_server_free(&run.server);
	for (size_t i = 0; i < ARRAY_LEN(bufs); i++)
		buf_fini(bufs[i]);
	return run.seen;
}

void transcript(const char *script)
{
	size_t octets = run_once(script, WHOLE), dense;

	run_once(script, BYTES);
	/* Short scripts at every octet; long ones near both ends, and here and there between. */
	dense = octets < 20000 ? 1000 : 30;
	for (size_t cut = 1; cut < octets;
	     cut += cut < dense || octets - cut < dense / 10 ? 1 : 1 + octets / (dense / 2))
		run_once(script, (long)cut);
}

void transcript_trusted(const char *script)
{
	static const char before[] = "S: 220 relay.test ESMTP relayd\n"
				     "C: EHLO app\n"
				     "S: 250-relay.test\nS: 250-PIPELINING\nS: 250-SIZE 26214400\nS: 250-8BITMIME\n"
				     "S: 250-SMTPUTF8\nS: 250-ENHANCEDSTATUSCODES\nS: 250 DSN\n"
				     "= HELO\n";
	struct buf all;

	buf_init(&all, TEXT_MAX);
	buf_append_str(&all, "! trusted\n");
	while (script[0] == '!') {
		struct slice rest = slice_of_str(script), line = line_of(&rest);
		buf_append(&all, line);
		buf_append_byte(&all, '\n');
		script = rest.ptr;
	}
	buf_append_str(&all, before);
	buf_append_str(&all, script);
	buf_append_byte(&all, '\0');
	transcript(buf_slice(&all).ptr);
	buf_fini(&all);
}
