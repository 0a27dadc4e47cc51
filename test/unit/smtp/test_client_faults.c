/*
 * A small honest server that goes wrong at its n-th reply, for every n and every way of going wrong. Whatever happens:
 * exactly one result per recipient, never a hang, never "delivered" without a 2yz to the end of the very message, and
 * no message that was taken is called anything but delivered or perhaps taken.
 */
#include "support_peer.h"

#include <stdio.h>
#include <stdlib.h>

enum fault {
	FAULT_NONE,
	FAULT_4YZ,
	FAULT_5YZ,
	FAULT_421,
	FAULT_421_CLOSE,
	FAULT_GARBAGE,
	FAULT_WRONG_CLASS, /* 2yz for 354, 354 for the others */
	FAULT_TWO_CODES,
	FAULT_EOF,	  /* instead of the reply */
	FAULT_EOF_AFTER,  /* the reply, then the end */
	FAULT_EOF_WITHIN, /* half of it */
	FAULT_SILENCE,
	FAULT_TWICE, /* one reply too many */
	FAULT_COUNT,
};
static const char *const fault_names[] = {"none",	"4yz",	       "5yz",	    "421", "421 and close",
					  "garbage",	"wrong class", "two codes", "eof", "eof after",
					  "eof within", "silence",     "twice"};

enum { RECIPIENTS = 3, MESSAGES = 3, TIME_LIMIT = 100 };

/* What a run is about. */
struct plan {
	bool pipelining, chunking, starttls, auth, message_is_large;
	bool refuses_second; /* recipient 1 of each message gets 550 anyway */
	enum fault fault;
	unsigned at; /* which reply of the connection, from 0 */
	size_t in_step, out_step;
};

struct server {
	const struct plan *plan;
	struct buf in, out; /* what came, what is to be sent */
	unsigned replies;
	bool is_closed, is_silent;
	bool greeted, in_data, tls, has_mail;
	uint64_t bdat_left;
	bool in_bdat;
	struct buf content;
	/* Messages: the client announces in MAIL FROM which one it is. */
	unsigned message;
	bool accepted[MESSAGES][RECIPIENTS], taken[MESSAGES];
	bool said_2yz_to_end[MESSAGES];
};

/* Says `text` with `code`, or what the fault wants. Returns the code that counts for the server itself. */
static int say(struct server *s, int code, const char *text)
{
	enum fault fault = s->replies++ == s->plan->at ? s->plan->fault : FAULT_NONE;

	if (s->is_closed || s->is_silent)
		return 0;
	switch (fault) {
	case FAULT_4YZ: code = 450; break;
	case FAULT_5YZ: code = 550; break;
	case FAULT_421: code = 421; break;
	case FAULT_421_CLOSE:
		code = 421;
		s->is_closed = true;
		break;
	case FAULT_GARBAGE: buf_append(&s->out, SLICE("\x16\x03\x01 what\r\n")); return code;
	case FAULT_WRONG_CLASS: code = code == 354 ? 250 : 354; break;
	case FAULT_TWO_CODES: buf_printf(&s->out, "%d-a\r\n%d b\r\n", code, code + 1); return code;
	case FAULT_EOF: s->is_closed = true; return code;
	case FAULT_EOF_AFTER: s->is_closed = true; break;
	case FAULT_EOF_WITHIN:
		buf_printf(&s->out, "%d", code / 10);
		s->is_closed = true;
		return code;
	case FAULT_SILENCE: s->is_silent = true; return code;
	case FAULT_TWICE: buf_printf(&s->out, "%d twice\r\n", code); break;
	default: break;
	}
	if (fault == FAULT_NONE || fault == FAULT_EOF_AFTER || fault == FAULT_TWICE)
		buf_printf(&s->out, "%s\r\n", text);
	else
		buf_printf(&s->out, "%d fault\r\n", code);
	return code;
}

static void end_of_message(struct server *s)
{
	char wanted[32];
	struct slice content = buf_slice(&s->content);
	bool anybody = false;
	int code;

	snprintf(wanted, sizeof(wanted), "X-Number: %u\r\n", s->message);
	for (int i = 0; i < RECIPIENTS; i++)
		anybody = anybody || s->accepted[s->message][i];
	if (!s->has_mail || !anybody) {
		say(s, 554, "554 no valid recipients");
	} else {
		/* Complete and unchanged, or nothing at all. */
		assert_true(slice_has_prefix(content, slice_of_str(wanted)));
		assert_true(content.len >= 9 && memcmp(content.ptr + content.len - 9, "\r\n.end.\r\n", 9) == 0);
		/* From here on it has the message, unless it says no itself. */
		s->taken[s->message] = true;
		code = say(s, 250, "250 2.0.0 taken");
		if (code >= 400)
			s->taken[s->message] = false;
		s->said_2yz_to_end[s->message] = code / 100 == 2;
	}
	s->has_mail = false;
	buf_clear(&s->content);
}

static void ehlo(struct server *s)
{
	char text[256];

	snprintf(text, sizeof(text), "250-mx.example\r\n%s%s%s%s250 SIZE",
		 s->plan->pipelining ? "250-PIPELINING\r\n" : "", s->plan->chunking ? "250-CHUNKING\r\n" : "",
		 s->plan->starttls && !s->tls ? "250-STARTTLS\r\n" : "", s->plan->auth ? "250-AUTH PLAIN\r\n" : "");
	say(s, 250, text);
}

static void on_mail(struct server *s, struct slice line)
{
	s->message = (unsigned)(line.ptr[11] - '0');
	assert_true(s->message < MESSAGES && !s->has_mail);
	s->has_mail = say(s, 250, "250 ok") == 250;
}

static void on_rcpt(struct server *s, struct slice line)
{
	unsigned index = (unsigned)(line.ptr[9] - '0');

	assert_true(index < RECIPIENTS);
	if (!s->has_mail)
		say(s, 503, "503 no MAIL");
	else if (s->plan->refuses_second && index == 1)
		say(s, 550, "550 5.1.1 unknown");
	else
		s->accepted[s->message][index] = say(s, 250, "250 ok") == 250;
}

static void on_line(struct server *s, struct slice line)
{
	/* Nothing is sent ahead: the client has read the reply before. */
	if (!s->plan->pipelining && s->plan->fault != FAULT_TWICE)
		assert_int_equal(buf_len(&s->out), 0);
	if (slice_has_prefix(line, SLICE("EHLO ")) || slice_has_prefix(line, SLICE("HELO "))) {
		ehlo(s);
	} else if (slice_eq(line, SLICE("STARTTLS"))) {
		s->tls = say(s, 220, "220 go") == 220;
	} else if (slice_has_prefix(line, SLICE("AUTH "))) {
		assert_true(!s->plan->starttls || s->tls);
		say(s, 235, "235 ok");
	} else if (slice_has_prefix(line, SLICE("MAIL FROM:<"))) {
		on_mail(s, line);
	} else if (slice_has_prefix(line, SLICE("RCPT TO:<"))) {
		on_rcpt(s, line);
	} else if (slice_eq(line, SLICE("DATA"))) {
		s->in_data = s->has_mail ? say(s, 354, "354 go") == 354 : say(s, 503, "503 no MAIL") == 354;
	} else if (slice_has_prefix(line, SLICE("BDAT "))) {
		s->bdat_left = strtoull(line.ptr + 5, NULL, 10);
		s->in_bdat = true;
	} else if (slice_eq(line, SLICE("RSET"))) {
		say(s, 250, "250 reset");
		s->has_mail = false;
	} else if (slice_eq(line, SLICE("QUIT"))) {
		say(s, 221, "221 bye");
		s->is_closed = true;
	} else {
		fail_msg("the client said '%.*s'", SLICE_ARG(line));
	}
}

/* Takes what has come as far as it goes; false: nothing more. */
static bool serve_one(struct server *s)
{
	struct slice in = buf_slice(&s->in);
	ptrdiff_t lf = slice_find(in, '\n');
	size_t len;

	if (s->in_bdat) {
		len = MIN(in.len, s->bdat_left);
		buf_append(&s->content, slice_to(in, len));
		s->bdat_left -= len;
		buf_consume(&s->in, len);
		if (s->bdat_left)
			return false;
		s->in_bdat = false;
		end_of_message(s);
		return true;
	}
	if (lf < 0)
		return false;
	assert_true(lf > 0 && in.ptr[lf - 1] == '\r');
	in.len = (size_t)lf + 1;
	if (s->in_data && slice_eq(in, SLICE(".\r\n"))) {
		s->in_data = false;
		end_of_message(s);
	} else if (s->in_data) {
		buf_append(&s->content, in.ptr[0] == '.' ? slice_from(in, 1) : in);
	} else {
		on_line(s, slice_to(in, in.len - 2));
	}
	buf_consume(&s->in, in.len);
	return true;
}

static void serve(struct server *s, struct slice bytes)
{
	assert_int_equal(buf_append(&s->in, bytes), 0);
	if (!s->greeted)
		say(s, 220, "220 mx.example");
	s->greeted = true;
	while (!s->is_closed && !s->is_silent && serve_one(s))
		;
}

/* ---- The host ---------------------------------------------------------------------------------------------------- */

struct host {
	const struct plan *plan;
	struct smtp_client *client;
	struct server server;
	struct smtp_client_recipient recipients[MESSAGES][RECIPIENTS];
	char senders[MESSAGES][8];
	struct smtp_transaction transactions[MESSAGES];
	struct buf contents[MESSAGES];
	struct slice rest;
	bool feeding, is_over, was_ready;
	int current; /* -1: none */
	int sent;    /* transactions begun */
	unsigned results[MESSAGES][RECIPIENTS];
	struct smtp_client_result result[MESSAGES][RECIPIENTS];
	int64_t now_ms;
	char what[256];
};

#define CHECK(host, condition)                                                                                         \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			fail_msg("%s: " #condition, (host)->what);                                                     \
	} while (0)

static void send_next(struct host *h)
{
	if (h->sent == MESSAGES) {
		smtp_client_quit(h->client);
		return;
	}
	h->current = h->sent++;
	h->rest = buf_slice(&h->contents[h->current]);
	smtp_client_send(h->client, &h->transactions[h->current]);
}

static void on_event(struct host *h, const struct smtp_client_event *event)
{
	CHECK(h, !h->is_over);
	switch (event->type) {
	case SMTP_CLIENT_NEED_TLS: smtp_client_tls_started(h->client); break;
	case SMTP_CLIENT_READY:
		CHECK(h, !h->was_ready);
		h->was_ready = true;
		send_next(h);
		break;
	case SMTP_CLIENT_RESULT:
		CHECK(h, h->current >= 0 && event->recipient < RECIPIENTS);
		h->results[h->current][event->recipient]++;
		h->result[h->current][event->recipient] = event->result;
		CHECK(h, event->result.reply.text[0]);
		break;
	case SMTP_CLIENT_NEED_BODY:
		CHECK(h, h->current >= 0 && !h->feeding);
		h->feeding = true;
		break;
	case SMTP_CLIENT_TRANSACTION_DONE:
		CHECK(h, h->current >= 0);
		for (int i = 0; i < RECIPIENTS; i++)
			CHECK(h, h->results[h->current][i] == 1);
		h->current = -1;
		h->feeding = false;
		if (event->reusable)
			send_next(h);
		break;
	default: CHECK(h, h->current < 0); h->is_over = true;
	}
}

static bool feed(struct host *h)
{
	size_t room = h->feeding ? smtp_client_body_room(h->client) : 0;

	if (room == 0)
		return false;
	if (h->rest.len == 0) {
		smtp_client_body_end(h->client);
		h->feeding = false;
	}
	h->rest = slice_from(h->rest, smtp_client_body(h->client, slice_to(h->rest, h->plan->out_step * 7)));
	return true;
}

/* One turn of the host: events, content, output to the server, replies to the client. False: everything stands still.
 */
static bool turn(struct host *h)
{
	struct smtp_client_event event;
	struct slice out, in;
	bool moved = false;

	while (smtp_client_next(h->client, &event)) {
		on_event(h, &event);
		moved = true;
	}
	if (h->is_over)
		return false;
	moved = feed(h) || moved;
	out = slice_to(smtp_client_output(h->client), h->plan->out_step);
	if (out.len && !h->server.is_closed) {
		serve(&h->server, out);
		smtp_client_output_sent(h->client, out.len);
		moved = true;
	}
	in = slice_to(buf_slice(&h->server.out), h->plan->in_step);
	if (in.len) {
		smtp_client_input(h->client, in);
		buf_consume(&h->server.out, in.len);
		moved = true;
	} else if (h->server.is_closed) {
		smtp_client_eof(h->client, NULL);
		moved = true;
	}
	return moved;
}

static void prepare(struct host *h, const struct plan *plan)
{
	static const struct slice addresses[] = {{"0@x.example", 11}, {"1@x.example", 11}, {"2@x.example", 11}};
	struct smtp_client_options options = {.helo_name = "relay.example"};

	*h = (struct host){.plan = plan, .current = -1};
	snprintf(
	    h->what, sizeof(h->what),
	    "%s at reply %u (pipelining %d, chunking %d, starttls %d, auth %d, large %d, refuses %d, in %zu, out %zu)",
	    fault_names[plan->fault], plan->at, plan->pipelining, plan->chunking, plan->starttls, plan->auth,
	    plan->message_is_large, plan->refuses_second, plan->in_step, plan->out_step);
	for (int m = 0; m < MESSAGES; m++) {
		snprintf(h->senders[m], sizeof(h->senders[m]), "%d@y", m);
		for (int i = 0; i < RECIPIENTS; i++)
			h->recipients[m][i].address = addresses[i];
		buf_init(&h->contents[m], 1 << 20);
		buf_printf(&h->contents[m], "X-Number: %d\r\n\r\n", m);
		while (plan->message_is_large && buf_len(&h->contents[m]) < SMTP_CLIENT_ONE_FLIGHT_MAX + 100)
			buf_append_str(&h->contents[m], ".a line that begins with a dot\r\n");
		buf_append_str(&h->contents[m], "\r\n.end.\r\n");
		h->transactions[m] = (struct smtp_transaction){.sender = slice_of_str(h->senders[m]),
							       .recipients = h->recipients[m],
							       .recipient_count = RECIPIENTS,
							       .content_bytes = buf_len(&h->contents[m])};
	}
	h->server.plan = plan;
	buf_init(&h->server.in, 8 << 20);
	buf_init(&h->server.out, 1 << 20);
	buf_init(&h->server.content, 8 << 20);
	options.tls = plan->starttls ? SMTP_CLIENT_TLS_REQUIRED : SMTP_CLIENT_TLS_NONE;
	if (plan->auth) {
		options.credentials =
		    (struct sasl_client_credentials){.mechanism = SASL_CLIENT_AUTO, .username = "u", .secret = "p"};
		options.allow_plaintext_auth = true;
	}
	h->client = smtp_client_new(&options, 0);
}

static bool is_delivered(const struct smtp_client_result *result)
{
	return result->cause == SMTP_CLIENT_REPLIED && result->stage == STAGE_DOT && result->reply.code / 100 == 2;
}

/* In one flight nothing but the count says what a reply belongs to. A surplus one is noticed when it is there in time,
 * and not when it comes later. */
static bool is_count_lost(const struct plan *plan)
{
	return plan->fault == FAULT_TWICE && plan->pipelining && plan->chunking && plan->in_step < 100;
}

static void check_message(struct host *h, int m)
{
	for (int i = 0; i < RECIPIENTS; i++) {
		const struct smtp_client_result *result = &h->result[m][i];

		CHECK(h, h->results[m][i] == (m < h->sent ? 1u : 0u));
		if (is_delivered(result)) {
			CHECK(h, h->server.taken[m] && (h->server.accepted[m][i] || is_count_lost(h->plan)));
			CHECK(h, h->server.said_2yz_to_end[m]);
			CHECK(h, !result->may_have_been_taken);
		} else if (h->server.taken[m] && h->server.accepted[m][i] && !is_count_lost(h->plan)) {
			/* It was taken, and its sender does not know: then it must be known that this may be so. */
			CHECK(h, result->may_have_been_taken);
			CHECK(h, result->stage == STAGE_DOT || result->cause == SMTP_CLIENT_REPLIED);
		}
		/* A permanent word about a message is the server's own, or about what it offers. */
		if (result->reply.code >= 500)
			CHECK(h, result->cause == SMTP_CLIENT_REPLIED || result->cause == SMTP_CLIENT_LOST);
	}
}

/* Returns how many replies the server gave. */
static unsigned run(const struct plan *plan)
{
	static struct host h;
	unsigned replies, waits = 0;

	prepare(&h, plan);
	serve(&h.server, (struct slice){0});
	while (!h.is_over) {
		while (turn(&h))
			;
		if (h.is_over)
			break;
		/* Only time can help: there must be a deadline, and it must lead on. */
		CHECK(&h, smtp_client_deadline_ms(h.client) != INT64_MAX);
		CHECK(&h, waits++ < TIME_LIMIT);
		h.now_ms = smtp_client_deadline_ms(h.client);
		smtp_client_tick(h.client, h.now_ms);
	}
	for (int m = 0; m < MESSAGES; m++)
		check_message(&h, m);
	if (plan->fault == FAULT_NONE)
		for (int m = 0; m < MESSAGES; m++)
			CHECK(&h, is_delivered(&h.result[m][0]) && is_delivered(&h.result[m][2]));
	replies = h.server.replies;
	smtp_client_free(&h.client);
	for (int m = 0; m < MESSAGES; m++)
		buf_fini(&h.contents[m]);
	buf_fini(&h.server.in);
	buf_fini(&h.server.out);
	buf_fini(&h.server.content);
	return replies;
}

static void run_all_faults(struct plan plan)
{
	unsigned replies;

	plan.fault = FAULT_NONE;
	plan.at = UINT32_MAX;
	replies = run(&plan);
	assert_true(replies > 10);
	for (int fault = FAULT_4YZ; fault < FAULT_COUNT; fault++)
		for (plan.at = 0; plan.at < replies; plan.at++) {
			plan.fault = (enum fault)fault;
			run(&plan);
		}
}

static void run_all_sessions(size_t in_step, size_t out_step)
{
	for (unsigned bits = 0; bits < 32; bits++)
		run_all_faults((struct plan){.pipelining = bits & 1,
					     .chunking = bits & 2,
					     .refuses_second = bits & 4,
					     .starttls = bits & 8,
					     .auth = bits & 16,
					     .in_step = in_step,
					     .out_step = out_step});
}

/* G10, G21, G27, G33 */
static void test_every_fault_at_every_reply(void **state)
{
	(void)state;
	run_all_sessions(100000, 100000);
}

static void test_every_fault_at_every_reply_octet_by_octet(void **state)
{
	(void)state;
	run_all_sessions(1, 3);
}

static void test_every_fault_at_every_reply_with_a_large_message(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < 4; bits++)
		run_all_faults((struct plan){.pipelining = bits & 1,
					     .chunking = bits & 2,
					     .message_is_large = true,
					     .in_step = 5,
					     .out_step = 1000});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_every_fault_at_every_reply),
	    cmocka_unit_test(test_every_fault_at_every_reply_octet_by_octet),
	    cmocka_unit_test(test_every_fault_at_every_reply_with_a_large_message),
	};
	return cmocka_run_group_tests_name("client, faults at each reply", tests, NULL, NULL);
}
