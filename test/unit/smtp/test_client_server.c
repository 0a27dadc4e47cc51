/*
 * Our client and our server, wired to each other in memory, cut at random in both directions: what is sent is what
 * arrives, and each side thinks the same of every recipient. Seeds are printed when something is wrong.
 */
#include "support_peer.h"

#include "base/random.h"
#include "smtp/server.h"

#include <stdio.h>
#include <stdlib.h>

enum { MESSAGES = 4, RECIPIENTS_MAX = 12, ROUNDS = 400 };

struct message {
	char sender[64], addresses[RECIPIENTS_MAX][64];
	struct smtp_client_recipient recipients[RECIPIENTS_MAX];
	struct smtp_transaction transaction;
	struct buf content;
	int codes[RECIPIENTS_MAX]; /* what the server will say at RCPT */
	int final_code;		   /* and at the end */
	/* What came about. */
	unsigned results[RECIPIENTS_MAX];
	struct smtp_client_result result[RECIPIENTS_MAX];
	bool is_stored;
};

struct wire {
	uint64_t seed;
	struct rng_seeded rng;
	struct smtp_client *client;
	struct smtp_server *server;
	struct message messages[MESSAGES];
	int current, arriving; /* as the client and as the server see it */
	unsigned rcpts;	       /* seen by the server */
	struct buf arrived;
	struct slice rest;
	bool feeding, client_is_over, server_is_over;
	struct smtp_server_options server_options;
};

#define CHECK(wire, condition)                                                                                         \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			fail_msg("seed %llu: " #condition, (unsigned long long)(wire)->seed);                          \
	} while (0)

static unsigned below(struct wire *w, unsigned bound)
{
	return (unsigned)rng_below(&w->rng.rng, bound);
}

/* ---- Messages --------------------------------------------------------------------------------------------------- */

static void make_content(struct wire *w, struct buf *out)
{
	static const char *const lines[] = {".\r\n",
					    "..\r\n",
					    "\r\n",
					    "text\r\n",
					    ".text with a dot\r\n",
					    "a line. and more\r\n",
					    "MAIL FROM:<x@y>\r\n",
					    "gr\xc3\xbc\xc3\x9f\r\n",
					    "QUIT\r\n",
					    "end.\r\n"};

	assert_int_equal(buf_append_str(out, "Subject: x\r\n\r\n"), 0);
	for (unsigned count = below(w, below(w, 10) ? 30 : 9000); count > 0; count--)
		assert_int_equal(buf_append_str(out, lines[below(w, ARRAY_LEN(lines))]), 0);
}

static void make_message(struct wire *w, struct message *m)
{
	static const char *const before[] = {"user", "\"quoted user\\\" ", "u.", "\xc3\xbc"};
	static const char *const behind[] = {"@x.example", "\"@x.example", "@[192.0.2.1]", "@x.example"};
	static const int codes[] = {250, 250, 250, 250, 550, 450};
	size_t count = 1 + below(w, RECIPIENTS_MAX);

	snprintf(m->sender, sizeof(m->sender), "sender%u@y.example", below(w, 100));
	for (size_t i = 0; i < count; i++) {
		unsigned form = below(w, ARRAY_LEN(before));

		snprintf(m->addresses[i], sizeof(m->addresses[i]), "%s%zu%s", before[form], i, behind[form]);
		m->recipients[i] = (struct smtp_client_recipient){
		    slice_of_str(m->addresses[i]), below(w, 2) ? SLICE("rfc822;a+2Bb@c.example") : SLICE(""),
		    below(w, 4) ? below(w, 8) << 1 : SMTP_DSN_NEVER};
		m->codes[i] = codes[below(w, ARRAY_LEN(codes))];
	}
	m->final_code = below(w, 4) ? 250 : below(w, 2) ? 451 : 554;
	buf_init(&m->content, 4 << 20);
	make_content(w, &m->content);
	m->transaction = (struct smtp_transaction){.sender = below(w, 4) ? slice_of_str(m->sender) : SLICE(""),
						   .recipients = m->recipients,
						   .recipient_count = count,
						   .content_bytes = below(w, 3) ? buf_len(&m->content) : 0,
						   .has_8bit = true,
						   .ret = (enum smtp_dsn_ret)below(w, 3),
						   .envid = below(w, 2) ? SLICE("id+2B1") : SLICE("")};
}

/* ---- The server's host ------------------------------------------------------------------------------------------ */

static const struct smtp_server_reply *refusal(int code)
{
	static const struct smtp_server_reply temporary = {.code = 450, .enhanced = "4.2.0", .text = "later"};
	static const struct smtp_server_reply permanent = {.code = 550, .enhanced = "5.1.1", .text = "unknown"};

	return code == 250 ? NULL : code < 500 ? &temporary : &permanent;
}

static void on_mail(struct wire *w, const struct smtp_server_mail *mail)
{
	const struct message *m = &w->messages[w->arriving];

	CHECK(w, slice_eq(mail->sender.address, m->transaction.sender));
	CHECK(w, mail->ret == m->transaction.ret);
	CHECK(w, slice_eq(mail->envid, m->transaction.envid));
	CHECK(w, mail->body_8bitmime);
	CHECK(w, mail->has_size == (m->transaction.content_bytes > 0));
	CHECK(w, !mail->has_size || mail->size == buf_len(&m->content));
	w->rcpts = 0;
	smtp_server_mail_done(w->server, NULL);
}

static void on_rcpt(struct wire *w, const struct smtp_server_rcpt *rcpt)
{
	const struct message *m = &w->messages[w->arriving];
	unsigned index = w->rcpts++;

	CHECK(w, index < m->transaction.recipient_count);
	CHECK(w, slice_eq(rcpt->recipient.address, m->recipients[index].address));
	CHECK(w, slice_eq(rcpt->orcpt, m->recipients[index].orcpt));
	CHECK(w, rcpt->notify == m->recipients[index].notify);
	smtp_server_rcpt_done(w->server, refusal(m->codes[index]));
}

static void on_complete(struct wire *w)
{
	struct message *m = &w->messages[w->arriving];

	CHECK(w, slice_eq(buf_slice(&w->arrived), buf_slice(&m->content)));
	m->is_stored = m->final_code == 250;
	smtp_server_stored(w->server, refusal(m->final_code));
}

static void serve(struct wire *w)
{
	struct smtp_server_event event;

	while (!w->server_is_over && smtp_server_next(w->server, &event)) {
		switch (event.type) {
		case SMTP_SERVER_AUTH:
			CHECK(w,
			      slice_eq(event.auth.user, SLICE("user")) && slice_eq(event.auth.password, SLICE("pass")));
			smtp_server_auth_done(w->server, SMTP_SERVER_AUTH_OK);
			break;
		case SMTP_SERVER_MAIL:
			w->arriving = w->current;
			on_mail(w, &event.mail);
			break;
		case SMTP_SERVER_RCPT: on_rcpt(w, &event.rcpt); break;
		case SMTP_SERVER_DATA:
			buf_clear(&w->arrived);
			smtp_server_data_done(w->server, NULL);
			break;
		case SMTP_SERVER_CONTENT: assert_int_equal(buf_append(&w->arrived, event.content), 0); break;
		case SMTP_SERVER_COMPLETE: on_complete(w); break;
		case SMTP_SERVER_STARTTLS: smtp_server_tls_started(w->server); break;
		case SMTP_SERVER_CLOSE: w->server_is_over = true; break;
		default: break;
		}
	}
}

/* ---- The client's host ------------------------------------------------------------------------------------------ */

static void send_next(struct wire *w)
{
	if (++w->current == MESSAGES) {
		smtp_client_quit(w->client);
		return;
	}
	w->rest = buf_slice(&w->messages[w->current].content);
	smtp_client_send(w->client, &w->messages[w->current].transaction);
}

static void on_client_event(struct wire *w, const struct smtp_client_event *event)
{
	struct message *m = &w->messages[MIN(MAX(w->current, 0), MESSAGES - 1)];

	switch (event->type) {
	case SMTP_CLIENT_NEED_TLS: smtp_client_tls_started(w->client); break;
	case SMTP_CLIENT_READY: send_next(w); break;
	case SMTP_CLIENT_RESULT:
		m->results[event->recipient]++;
		m->result[event->recipient] = event->result;
		break;
	case SMTP_CLIENT_NEED_BODY: w->feeding = true; break;
	case SMTP_CLIENT_TRANSACTION_DONE:
		w->feeding = false;
		CHECK(w, event->reusable);
		send_next(w);
		break;
	case SMTP_CLIENT_CLOSED: w->client_is_over = true; break;
	case SMTP_CLIENT_FAILED: fail_msg("seed %llu: %s", (unsigned long long)w->seed, event->result.reply.text);
	}
}

static void drive_client(struct wire *w)
{
	struct smtp_client_event event;
	size_t taken;

	while (smtp_client_next(w->client, &event))
		on_client_event(w, &event);
	if (!w->feeding || smtp_client_body_room(w->client) == 0)
		return;
	taken = smtp_client_body(w->client, slice_to(w->rest, 1 + below(w, 5000)));
	w->rest = slice_from(w->rest, taken);
	if (w->rest.len == 0) {
		smtp_client_body_end(w->client);
		w->feeding = false;
	}
}

/* ---- A run ------------------------------------------------------------------------------------------------------ */

static void run(uint64_t seed)
{
	static struct wire w;
	struct smtp_client_options options = {.helo_name = "client.example"};
	unsigned turns = 0;

	w = (struct wire){.seed = seed, .current = -1};
	rng_seeded_init(&w.rng, seed);
	for (int i = 0; i < MESSAGES; i++)
		make_message(&w, &w.messages[i]);
	options.tls = below(&w, 2) ? SMTP_CLIENT_TLS_REQUIRED : SMTP_CLIENT_TLS_NONE;
	options.no_pipelining = below(&w, 3) == 0;
	if (below(&w, 2))
		options.credentials =
		    (struct sasl_client_credentials){.mechanism = below(&w, 2) ? SASL_CLIENT_LOGIN : SASL_CLIENT_PLAIN,
						     .username = "user",
						     .secret = "pass"};
	options.allow_plaintext_auth = true;
	w.server_options = (struct smtp_server_options){.hostname = "server.example",
							.starttls = true,
							.auth = true,
							.allow_plaintext_auth = true,
							.trusted = true};
	buf_init(&w.arrived, 4 << 20);
	w.server = smtp_server_new(&w.server_options, 0);
	w.client = smtp_client_new(&options, 0);
	while (!w.client_is_over) {
		struct slice out;

		CHECK(&w, turns++ < 10000000);
		serve(&w);
		out = slice_to(smtp_server_output(w.server), 1 + below(&w, 60));
		smtp_client_input(w.client, out);
		smtp_server_output_sent(w.server, out.len);
		drive_client(&w);
		out = slice_to(smtp_client_output(w.client), 1 + below(&w, w.feeding ? 3000 : 60));
		out.len = smtp_server_wants_input(w.server) ? smtp_server_input(w.server, out) : 0;
		smtp_client_output_sent(w.client, out.len);
	}
	for (int k = 0; k < MESSAGES; k++) {
		struct message *m = &w.messages[k];

		for (size_t i = 0; i < m->transaction.recipient_count; i++) {
			const struct smtp_client_result *result = &m->result[i];
			int wanted = m->codes[i] != 250	    ? m->codes[i]
				     : m->final_code == 250 ? 250
				     : m->final_code < 500  ? 450
							    : 550;

			CHECK(&w, m->results[i] == 1 && result->cause == SMTP_CLIENT_REPLIED);
			CHECK(&w, result->reply.code == wanted);
			CHECK(&w, (result->reply.code == 250) == (m->codes[i] == 250 && m->is_stored));
			CHECK(&w, result->stage == (m->codes[i] != 250 ? STAGE_RCPT : STAGE_DOT));
		}
		buf_fini(&m->content);
	}
	buf_fini(&w.arrived);
	smtp_client_free(&w.client);
	smtp_server_free(&w.server);
}

static void test_what_is_sent_is_what_arrives(void **state)
{
	const char *only = getenv("SEED");

	(void)state;
	if (only) {
		run(strtoull(only, NULL, 10));
		return;
	}
	for (uint64_t seed = 1; seed <= ROUNDS; seed++)
		run(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_sent_is_what_arrives)};

	return cmocka_run_group_tests_name("client and server", tests, NULL, NULL);
}
