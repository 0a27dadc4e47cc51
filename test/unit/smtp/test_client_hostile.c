/* Servers on their bad days: what they break off, delay, say out of turn or never say. */
#include "support_peer.h"

#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>

#define SLICE_INIT(literal)                                                                                            \
	{                                                                                                              \
		(literal), sizeof(literal) - 1                                                                         \
	}
#define TO(address)                                                                                                    \
	{                                                                                                              \
		SLICE_INIT(address), {0}, 0                                                                            \
	}

static const struct smtp_client_recipient one[] = {TO("a@x.example")};
static const struct smtp_client_recipient three[] = {TO("a@x.example"), TO("b@x.example"), TO("c@x.example")};

/* "Subject: x\r\n\r\nhello\r\n" */
enum { CONTENT = 21 };
static const struct smtp_transaction transactions[] = {
    {.recipients = one, .recipient_count = 1, .content_bytes = CONTENT},
    {.recipients = three, .recipient_count = 3, .content_bytes = CONTENT},
    {.recipients = one, .recipient_count = 1},
    {.recipients = one, .recipient_count = 1, .content_bytes = SMTP_CLIENT_ONE_FLIGHT_MAX + 1},
};

static const struct peer_setup plain = {.options = {.helo_name = "relay.example"}, .transactions = transactions};
static const struct peer_setup by_hand = {
    .options = {.helo_name = "relay.example"}, .transactions = transactions, .keeps_body_to_itself = true};

#define HELLO "S: 220 mx.example ESMTP\nC: EHLO relay.example\n"
#define MINIMAL HELLO "S: 250 mx.example\n= ready\n"
#define PIPELINING HELLO "S: 250-mx.example\nS: 250 PIPELINING\n= ready\n"
#define CHUNKING HELLO "S: 250-mx.example\nS: 250-PIPELINING\nS: 250 CHUNKING\n= ready\n"
#define BODY "C: Subject: x\nC: \nC: hello\n"
#define TO_RCPT MINIMAL "> send 0\nC: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<a@x.example>\n"
#define TO_DATA TO_RCPT "S: 250 ok\nC: DATA\n"
#define TO_BODY TO_DATA "S: 354 go\n= need_body\n"
#define TO_DOT TO_BODY BODY "C: .\n"
#define THREE                                                                                                          \
	PIPELINING "> send 1\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nC: RCPT TO:<b@x.example>\n"                   \
		   "C: RCPT TO:<c@x.example>\nC: DATA\n"

/* ---- 421 -------------------------------------------------------------------------------------------------------- */

/* G10 */
static void test_421_ends_the_session_wherever_it_comes(void **state)
{
	(void)state;
#define BYE "S: 421 4.3.2 shutting down\n"
	peer_play(&plain, HELLO BYE "= failed replied greeting 421 4.3.2 shutting down\nC: QUIT\n");
#define EXPECT(stage)                                                                                                  \
	"= result 0 replied " stage " 421 4.3.2 shutting down\n= done\n= failed replied " stage                        \
	" 421 4.3.2 shutting down\nC: QUIT\n"
	peer_play(&plain, MINIMAL "> send 0\nC: MAIL FROM:<>\n" BYE EXPECT("mail"));
	peer_play(&plain, TO_RCPT BYE EXPECT("rcpt"));
	peer_play(&plain, TO_DATA BYE EXPECT("data"));
	peer_play(&plain, TO_DOT BYE EXPECT("dot"));
}

/* G10 */
static void test_421_spares_what_was_answered_before(void **state)
{
	(void)state;
	peer_play(&plain,
		  THREE "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 unknown\n" BYE "= result 1 replied rcpt 550 5.1.1 unknown\n"
			"= result 0 replied rcpt 421 4.3.2 shutting down\n"
			"= result 2 replied rcpt 421 4.3.2 shutting down\n= done\n"
			"= failed replied rcpt 421 4.3.2 shutting down\nC: QUIT\n");
}

static void test_421_within_the_content_says_no_quit(void **state)
{
	(void)state;
	peer_play(&by_hand,
		  TO_BODY "> feed 12\nC: Subject: x\n" BYE "= result 0 replied data 421 4.3.2 shutting down\n= done\n"
			  "= failed replied data 421 4.3.2 shutting down\n> feed 0\n> end\n");
}

/* ---- Ends of the connection -------------------------------------------------------------------------------------- */

/* G21, G27 */
static void test_a_connection_that_ends(void **state)
{
	(void)state;
#define LOST(stage, doing)                                                                                             \
	"> eof\n= result 0 lost " stage " 0 connection lost while waiting for " doing "\n= done\n= failed lost " stage \
	" 0 connection lost while waiting for " doing "\n"
	peer_play(&plain, MINIMAL "> send 0\nC: MAIL FROM:<>\n" LOST("mail", "the reply to MAIL"));
	peer_play(&plain, TO_RCPT LOST("rcpt", "the reply to RCPT"));
	peer_play(&plain, TO_DATA LOST("data", "the reply to DATA"));
	peer_play(&by_hand, TO_BODY "> feed 12\nC: Subject: x\n" LOST("data", "the server to take content"));
	peer_play(&by_hand, TO_BODY LOST("data", "the server to take content"));
	/* In the middle of a reply. */
	peer_play(&plain, TO_RCPT "S: 250-half\n" LOST("rcpt", "the reply to RCPT"));
}

/* G28 */
static void test_after_the_dot_it_may_have_been_taken(void **state)
{
	(void)state;
#define TAKEN "connection lost while waiting for the reply to the end of the message +taken\n"
	peer_play(&plain, TO_DOT "> eof\n= result 0 lost dot 0 " TAKEN "= done\n= failed lost dot 0 " TAKEN);
	peer_play(&plain, TO_DOT "S. 25\n> eof\n= result 0 lost dot 0 " TAKEN "= done\n= failed lost dot 0 " TAKEN);
	/* In one flight all is out at once, and nothing has been answered. */
	peer_play(&plain,
		  CHUNKING "> send 0\n= need_body\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\n"
			   "C: BDAT 21 LAST\n" BODY
			   "> eof\n= result 0 lost dot 0 connection lost while waiting for the reply to MAIL +taken\n"
			   "= done\n"
			   "= failed lost dot 0 connection lost while waiting for the reply to MAIL +taken\n");
}

static void test_a_reply_before_the_end_counts(void **state)
{
	(void)state;
	/* 250 and closed in one breath: delivered. */
	peer_play(&plain, TO_DOT "S: 250 ok\n= result 0 replied dot 250 ok\n= done reusable\n> eof\n"
				 "= closed lost none 0 the server closed the connection\n");
	peer_play(&plain,
		  TO_DOT "S: 554 no\n= result 0 replied dot 554 no\n= done reusable\n> eof Connection reset by peer\n"
			 "= closed lost none 0 the server closed the connection\n");
}

/* G29 */
static void test_250_and_eof_in_one_turn_is_delivered(void **state)
{
	struct smtp_client *client = smtp_client_new(&plain.options, 0);
	struct smtp_client_event event;
	static const char *const replies[] = {"220 x\r\n", "250 x\r\n", "250 x\r\n",
					      "250 x\r\n", "354 x\r\n", "250 x\r\n"};
	bool delivered = false;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
		smtp_client_input(client, slice_of_str(replies[i]));
		if (i == ARRAY_LEN(replies) - 1)
			smtp_client_eof(client, "Connection reset by peer");
		while (smtp_client_next(client, &event)) {
			if (event.type == SMTP_CLIENT_READY)
				smtp_client_send(client, &transactions[0]);
			if (event.type == SMTP_CLIENT_NEED_BODY) {
				smtp_client_body(client, SLICE("Subject: x\r\n\r\nhello\r\n"));
				smtp_client_body_end(client);
			}
			if (event.type == SMTP_CLIENT_RESULT)
				delivered = event.result.cause == SMTP_CLIENT_REPLIED &&
					    event.result.reply.code == 250 && event.result.stage == STAGE_DOT;
			if (event.type == SMTP_CLIENT_TRANSACTION_DONE)
				assert_false(event.reusable);
		}
		smtp_client_output_sent(client, SIZE_MAX);
	}
	assert_true(delivered);
	assert_int_equal(event.type, 0); /* next() that gives nothing leaves nothing */
	smtp_client_free(&client);
}

/* ---- Out of turn ------------------------------------------------------------------------------------------------- */

/* The server's bytes arrive before the client has sent anything of what it wants to say. Returns the last event. */
static struct smtp_client_event talk_too_early(const char *const *turns, const struct smtp_transaction *transaction)
{
	struct smtp_client *client = smtp_client_new(&plain.options, 0);
	struct smtp_client_event event, last = {0};

	for (; *turns; turns++) {
		smtp_client_input(client, slice_of_str(*turns));
		while (smtp_client_next(client, &event)) {
			last = event;
			if (event.type == SMTP_CLIENT_READY)
				smtp_client_send(client, transaction);
		}
		smtp_client_output_sent(client, SIZE_MAX);
	}
	smtp_client_free(&client);
	return last;
}

/* G31 */
static void test_replies_before_their_command_are_never_believed(void **state)
{
	static const char *const greeting[] = {"220 mx\r\n250 mx\r\n", NULL};
	static const char *const ehlo[] = {"220 mx\r\n", "250 mx\r\n250 ok\r\n", NULL};
	static const char *const mail[] = {"220 mx\r\n", "250 mx\r\n", "250 ok\r\n250 ok\r\n", NULL};
	static const char *const pipelined[] = {"220 mx\r\n", "250-mx\r\n250 PIPELINING\r\n",
						"250 ok\r\n250 ok\r\n354 go\r\n250 done\r\n", NULL};
	static const char *const *const all[] = {greeting, ehlo, mail, pipelined};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		struct smtp_client_event last = talk_too_early(all[i], &transactions[0]);

		assert_int_equal(last.type, SMTP_CLIENT_FAILED);
		assert_int_equal(last.result.cause, SMTP_CLIENT_PROTOCOL);
	}
}

/* G5, G6, G25 */
static void test_wrong_codes_are_protocol_errors(void **state)
{
	(void)state;
#define WRONG(stage, doing, what)                                                                                      \
	"= result 0 protocol " stage " 0 protocol error while waiting for " doing ": " what                            \
	"\n= done\n= failed protocol " stage " 0 protocol error while waiting for " doing ": " what "\n"
#define NO_CODE "a line does not begin with a reply code"
	peer_play(&plain, MINIMAL "> send 0\nC: MAIL FROM:<>\nS: 354 go\n" WRONG("mail", "the reply to MAIL",
										 "unexpected reply 354 go"));
	peer_play(&plain, TO_RCPT "S: 354 go\n" WRONG("rcpt", "the reply to RCPT", "unexpected reply 354 go"));
	peer_play(&plain, TO_DATA "S: 250 go\n" WRONG("data", "the reply to DATA", "unexpected reply 250 go"));
	peer_play(&plain, TO_DATA "S: 334 go\n" WRONG("data", "the reply to DATA", "unexpected reply 334 go"));
	peer_play(&plain, TO_RCPT "S: \\x00\\xff\n" WRONG("rcpt", "the reply to RCPT", NO_CODE));
	peer_play(&plain, TO_RCPT "S: 250-a\nS: 550 b\n" WRONG("rcpt", "the reply to RCPT",
							       "the lines of a reply carry different codes"));
	/* After the dot, whatever is no 2yz leaves it open whether the message was taken. */
#define DOT(what)                                                                                                      \
	"= result 0 protocol dot 0 protocol error while waiting for the reply to the end of the message: " what        \
	" +taken\n= done\n= failed protocol dot 0 protocol error while waiting for the reply to the end of the "       \
	"message: " what " +taken\n"
	peer_play(&plain, TO_DOT "S: 354 go\n" DOT("unexpected reply 354 go"));
	peer_play(&plain, TO_DOT "S: 999\n" DOT(NO_CODE));
	peer_play(&plain, TO_DOT "S: 250x\n" DOT(NO_CODE));
	peer_play(&plain, TO_DOT "S: \n" DOT(NO_CODE));
}

static void test_a_refused_rset_is_no_recipients_fault(void **state)
{
	(void)state;
	peer_play(&plain, TO_DATA
		  "S: 451 no\n= result 0 replied data 451 no\n= done reusable\n> send 0\nC: RSET\nS: 550 no\n" WRONG(
		      "mail", "the reply to RSET", "unexpected reply 550 no"));
}

/* G31: In one flight only the count says which reply is whose. */
static void test_a_surplus_reply_in_one_flight_makes_no_delivery(void **state)
{
	static const char *const turns[] = {"220 mx\r\n", "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n", NULL};
	static const char *const ends[] = {"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n",
					   "250 ok\r\n250 ok\r\n250 ok\r\n421 bye\r\n"};

	(void)state;
	for (size_t k = 0; k < ARRAY_LEN(ends); k++) {
		struct smtp_client *client = smtp_client_new(&plain.options, 0);
		struct smtp_client_event event, result = {0};

		for (int i = 0; i < 3; i++) {
			smtp_client_input(client, slice_of_str(i < 2 ? turns[i] : ends[k]));
			while (smtp_client_next(client, &event)) {
				if (event.type == SMTP_CLIENT_READY)
					smtp_client_send(client, &transactions[0]);
				if (event.type == SMTP_CLIENT_NEED_BODY) {
					smtp_client_body(client, SLICE("Subject: x\r\n\r\nhello\r\n"));
					smtp_client_body_end(client);
				}
				if (event.type == SMTP_CLIENT_RESULT)
					result = event;
			}
			smtp_client_output_sent(client, SIZE_MAX);
		}
		assert_int_equal(result.result.cause, k == 0 ? SMTP_CLIENT_PROTOCOL : SMTP_CLIENT_REPLIED);
		assert_int_equal(result.result.may_have_been_taken, k == 0);
		smtp_client_free(&client);
	}
}

/* G31 */
static void test_more_replies_than_commands(void **state)
{
	(void)state;
	peer_play(&plain,
		  THREE "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\n= need_body\n" BODY "C: .\n"
			"S: 250 ok\n= result 0 replied dot 250 ok\n= result 1 replied dot 250 ok\n"
			"= result 2 replied dot 250 ok\n= done reusable\n"
			"S: 250 and one more\n= failed protocol none 0 protocol error while waiting for nothing: "
			"unexpected reply 250 and one more\n");
}

/* ---- Early replies ----------------------------------------------------------------------------------------------- */

/* G26 */
static void test_an_early_refusal_counts_when_all_has_been_sent(void **state)
{
	(void)state;
	peer_play(&by_hand,
		  TO_BODY "> feed 12\nC: Subject: x\nS: 552 5.3.4 too big\n> feed 9\nC: \nC: hello\n> end\nC: .\n"
			  "= result 0 replied dot 552 5.3.4 too big\n= done\nC: QUIT\n"
			  "= closed replied none 552 5.3.4 too big\n");
	peer_play(&by_hand,
		  CHUNKING "> send 0\n= need_body\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nC: BDAT 21 LAST\n"
			   "S: 250 ok\nS: 250 ok\n> feed 12\nC: Subject: x\nS: 451 no\n> feed 9 end\nC: \nC: hello\n"
			   "= result 0 replied dot 451 no\n= done\nC: QUIT\n= closed replied none 451 no\n");
}

/* G26 */
static void test_an_early_refusal_before_a_lost_connection_is_temporary(void **state)
{
	(void)state;
#define EARLY "552 the server said 552 too big and closed before it had the whole message\n"
	peer_play(&by_hand, TO_BODY "> feed 12\nC: Subject: x\nS: 552 5.3.4 too big\n> eof\n"
				    "= result 0 lost data " EARLY "= done\n= failed lost data " EARLY);
}

static void test_an_early_acceptance_is_never_believed(void **state)
{
	(void)state;
	peer_play(&by_hand, TO_BODY "> feed 12\nC: Subject: x\nS: 250 ok\n" WRONG("data", "the server to take content",
										  "unexpected reply 250 ok"));
	peer_play(&by_hand,
		  CHUNKING "> send 0\n= need_body\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nC: BDAT 21 LAST\n"
			   "S: 250 ok\nS: 250 ok\n> feed 12\nC: Subject: x\nS: 250 ok\n" WRONG(
			       "data", "the server to take content", "unexpected reply 250 ok"));
}

static void test_in_one_flight_a_refused_mail_still_gets_its_content(void **state)
{
	(void)state;
	peer_play(&by_hand,
		  CHUNKING "> send 0\n= need_body\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nC: BDAT 21 LAST\n"
			   "S: 550 5.7.1 no\n= result 0 replied mail 550 5.7.1 no\n"
			   "S: 503 no MAIL\n> feed 21 end\n" BODY "S: 503 no MAIL\n= done reusable\n");
}

/* ---- Content ------------------------------------------------------------------------------------------------------
 */

static void test_dots_are_doubled_at_the_start_of_lines(void **state)
{
	static const char dots[] = ".\r\n..\r\na.b\r\n.\r\n.c\r\n\r\n.";
	struct peer_setup setup = plain;

	(void)state;
	setup.content = dots;
	peer_play(&setup, MINIMAL
		  "> send 2\nC: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<a@x.example>\nS: 250 ok\nC: DATA\nS: 354 go\n"
		  "= need_body\nC: ..\nC: ...\nC: a.b\nC: ..\nC: ..c\nC: \nC: ..\nC: .\n");
}

/* All content of one transaction by DATA, as it went over the wire, for each size of portion. */
static void send_content(struct slice content, size_t portion, struct buf *wire)
{
	static const char *const replies[] = {"220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n", "354 x\r\n"};
	struct smtp_client *client = smtp_client_new(&plain.options, 0);
	struct smtp_client_event event;
	bool wanted = false;

	for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
		smtp_client_input(client, slice_of_str(replies[i]));
		while (smtp_client_next(client, &event)) {
			if (event.type == SMTP_CLIENT_READY)
				smtp_client_send(client, &transactions[2]);
			wanted = wanted || event.type == SMTP_CLIENT_NEED_BODY;
		}
		smtp_client_output_sent(client, SIZE_MAX);
	}
	assert_true(wanted);
	while (content.len) {
		content = slice_from(content, smtp_client_body(client, slice_to(content, portion)));
		assert_true(smtp_client_output(client).len <= SMTP_CLIENT_OUTPUT_MAX);
		if (smtp_client_body_room(client) < portion) {
			assert_int_equal(buf_append(wire, smtp_client_output(client)), 0);
			smtp_client_output_sent(client, SIZE_MAX);
		}
	}
	smtp_client_body_end(client);
	assert_int_equal(buf_append(wire, smtp_client_output(client)), 0);
	smtp_client_free(&client);
}

/* RFC 5321 §4.5.2, octet by octet: the plainest way to say it. */
static void stuff_plainly(struct slice content, struct buf *out)
{
	bool start = true;

	for (size_t i = 0; i < content.len; i++) {
		if (start && content.ptr[i] == '.')
			assert_int_equal(buf_append_byte(out, '.'), 0);
		assert_int_equal(buf_append_byte(out, content.ptr[i]), 0);
		start = content.ptr[i] == '\n';
	}
	assert_int_equal(buf_append_str(out, start ? ".\r\n" : "\r\n.\r\n"), 0);
}

static void test_stuffing_equals_the_plainest_way_for_random_content_and_cuts(void **state)
{
	struct rng_seeded rng;
	char content[600];

	(void)state;
	rng_seeded_init(&rng, 3);
	for (int round = 0; round < 3000; round++) {
		size_t len = rng_below(&rng.rng, sizeof(content)) + 1, portion = 1 + rng_below(&rng.rng, 50);
		struct buf wire, wanted;

		for (size_t i = 0; i < len; i++)
			content[i] = "..\r\n\nab"[rng_below(&rng.rng, 7)];
		buf_init(&wire, 1 << 20);
		buf_init(&wanted, 1 << 20);
		send_content(slice_of(content, len), portion, &wire);
		stuff_plainly(slice_of(content, len), &wanted);
		assert_true(slice_eq(buf_slice(&wire), buf_slice(&wanted)));
		buf_fini(&wire);
		buf_fini(&wanted);
	}
}

static void test_a_large_message_never_fills_the_memory(void **state)
{
	size_t len = 5 * 1024 * 1024;
	char *content = xmalloc(len);
	struct buf wire, wanted;

	(void)state;
	for (size_t i = 0; i < len; i++)
		content[i] = i % 50 == 0 ? '\n' : '.';
	buf_init(&wire, 64 << 20);
	buf_init(&wanted, 64 << 20);
	send_content(slice_of(content, len), 60000, &wire);
	stuff_plainly(slice_of(content, len), &wanted);
	assert_true(slice_eq(buf_slice(&wire), buf_slice(&wanted)));
	buf_fini(&wire);
	buf_fini(&wanted);
	free(content);
}

static void test_content_that_is_not_as_long_as_announced_is_broken_off(void **state)
{
	struct peer_setup setup = plain;

	(void)state;
#define SHORT "the content is shorter than it was announced\n"
#define LONG "the content is longer than it was announced\n"
	setup.content = "Subject: x\r\n\r\nhell\r\n";
	peer_play(&setup, TO_BODY "C: Subject: x\nC: \nC: hell\n= result 0 aborted data 0 " SHORT "= done\n"
				  "= failed aborted data 0 " SHORT);
	peer_play(&setup, CHUNKING "> send 0\n= need_body\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nC: BDAT 21 LAST\n"
				   "C: Subject: x\nC: \nC: hell\n= result 0 aborted mail 0 " SHORT "= done\n"
				   "= failed aborted mail 0 " SHORT);
	setup.keeps_body_to_itself = true;
	setup.content = "Subject: x\r\n\r\nhello\r\n!";
	peer_play(&setup, TO_BODY "> feed 21\nC: Subject: x\nC: \nC: hello\n> feed 1\n= result 0 aborted data 0 " LONG
				  "= done\n"
				  "= failed aborted data 0 " LONG "> end\n");
}

static void test_an_abort_never_ends_the_message(void **state)
{
	(void)state;
#define GONE "the content cannot be read\n"
	peer_play(&by_hand, TO_BODY
		  "> feed 12\nC: Subject: x\n> abort the content cannot be read\n= result 0 aborted data 0 " GONE
		  "= done\n= failed aborted data 0 " GONE "> end\n");
	peer_play(&by_hand,
		  CHUNKING "> send 0\n= need_body\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nC: BDAT 21 LAST\n"
			   "S: 250 ok\nS: 550 5.1.1 no\n= result 0 replied rcpt 550 5.1.1 no\n"
			   "> abort the content cannot be read\n= done\n= failed aborted data 0 " GONE);
	/* When it is out already, an abort does not call it back. */
	peer_play(&plain, TO_DOT "> abort stopping\n= result 0 aborted dot 0 stopping +taken\n= done\n"
				 "= failed aborted dot 0 stopping +taken\n");
	peer_play(&plain, MINIMAL "> abort stopping\n= failed aborted none 0 stopping\n");
}

/* The server has the whole message when it has the last octet: that one is not given before the end. */
static void test_bdat_holds_the_last_octet_until_the_end(void **state)
{
	(void)state;
	for (int aborts = 0; aborts < 2; aborts++) {
		struct smtp_client *client = smtp_client_new(&plain.options, 0);
		static const char *const replies[] = {"220 x\r\n", "250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n"};
		struct smtp_client_event event;
		struct slice out;

		for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
			smtp_client_input(client, slice_of_str(replies[i]));
			while (smtp_client_next(client, &event))
				if (event.type == SMTP_CLIENT_READY)
					smtp_client_send(client, &transactions[0]);
			out = smtp_client_output(client);
			if (i == 0)
				smtp_client_output_sent(client, SIZE_MAX);
		}
		assert_int_equal(smtp_client_body(client, SLICE("Subject: x\r\n\r\nhello\r\n")), CONTENT);
		out = smtp_client_output(client);
		assert_true(slice_has_prefix(slice_from(out, out.len - 6), SLICE("hello\r")));
		if (aborts)
			smtp_client_abort(client, "gone");
		smtp_client_body_end(client);
		out = smtp_client_output(client);
		assert_int_equal(out.ptr[out.len - 1], aborts ? '\r' : '\n');
		smtp_client_free(&client);
	}
}

static void test_a_large_message_with_bdat_waits_for_its_recipients(void **state)
{
	(void)state;
	peer_play(&plain, CHUNKING "> send 3\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nS: 250 ok\nS: 550 no\n"
				   "= result 0 replied rcpt 550 no\n= done reusable\n");
	peer_play(&by_hand, CHUNKING "> send 3\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nS: 250 ok\nS: 250 ok\n"
				     "= need_body\nC: BDAT 65537 LAST\n");
}

/* ---- Time ----------------------------------------------------------------------------------------------------------
 */

static const struct peer_setup hurried = {
    .options = {.helo_name = "relay.example",
		.limits = {.greeting_ms = 100,
			   .command_ms = 200,
			   .data_ms = 300,
			   .block_ms = 400,
			   .dot_ms = 500,
			   .start_ms = 100000,
			   .transaction_ms = 100000}},
    .transactions = transactions,
};

/* G1, G25, G28 */
static void test_each_step_has_its_time(void **state)
{
	(void)state;
	peer_play(&hurried,
		  "> tick 99\n> tick 1\n= failed timeout greeting 0 timed out while waiting for the greeting\n");
	peer_play(&hurried, "> tick 50\n" HELLO "> tick 199\n> tick 1\n"
			    "= failed timeout greeting 0 timed out while waiting for the reply to EHLO\n");
#define LATE(ms, stage, doing)                                                                                         \
	"> tick " ms "\n> tick 1\n= result 0 timeout " stage " 0 timed out while waiting for " doing                   \
	"\n= done\n= failed timeout " stage " 0 timed out while waiting for " doing "\n"
	peer_play(&hurried,
		  MINIMAL "> tick 100000\n> send 0\nC: MAIL FROM:<>\n" LATE("199", "mail", "the reply to MAIL"));
	peer_play(&hurried, TO_RCPT LATE("199", "rcpt", "the reply to RCPT"));
	peer_play(&hurried, TO_DATA LATE("299", "data", "the reply to DATA"));
	peer_play(&hurried, TO_DATA "> tick 250\nS: 354 go\n= need_body\n" BODY "C: .\n> tick 499\nS: 250 ok\n"
				    "= result 0 replied dot 250 ok\n= done reusable\n");
#define DOT_LATE "0 timed out while waiting for the reply to the end of the message +taken\n"
	peer_play(&hurried, TO_DOT "> tick 499\n> tick 1\n= result 0 timeout dot " DOT_LATE
				   "= done\n= failed timeout dot " DOT_LATE);
}

/* However long the content took. */
static void test_the_time_for_the_last_reply_begins_when_all_is_sent(void **state)
{
	struct peer_setup setup = hurried;

	(void)state;
	setup.keeps_body_to_itself = true;
	peer_play(&setup, TO_BODY
		  "> tick 390\n> feed 12\nC: Subject: x\n> tick 390\n> feed 9 end\nC: \nC: hello\nC: .\n"
		  "> tick 499\n> tick 1\n= result 0 timeout dot " DOT_LATE "= done\n= failed timeout dot " DOT_LATE);
}

static void test_an_idle_session_waits_for_nothing(void **state)
{
	(void)state;
	peer_play(&hurried, MINIMAL "> tick 1000000000\n> send 0\nC: MAIL FROM:<>\n");
}

static void test_each_recipient_has_its_own_time(void **state)
{
	struct peer_setup setup = hurried;

	(void)state;
	setup.options.no_pipelining = true;
	peer_play(&setup,
		  PIPELINING "> send 1\nC: MAIL FROM:<>\n> tick 150\nS: 250 ok\nC: RCPT TO:<a@x.example>\n> tick 150\n"
			     "S: 250 ok\nC: RCPT TO:<b@x.example>\n> tick 150\nS: 250 ok\nC: RCPT TO:<c@x.example>\n"
			     "> tick 200\n"
			     "= result 0 timeout rcpt 0 timed out while waiting for the reply to RCPT\n"
			     "= result 1 timeout rcpt 0 timed out while waiting for the reply to RCPT\n"
			     "= result 2 timeout rcpt 0 timed out while waiting for the reply to RCPT\n= done\n"
			     "= failed timeout rcpt 0 timed out while waiting for the reply to RCPT\n");
}

/* G1, G2: An octet a second, for ever: the time for the step is not extended, nor that for the whole. */
static void test_a_trickle_extends_nothing(void **state)
{
	struct smtp_client_options options = {.helo_name = "relay.example"};
	struct smtp_client *client = smtp_client_new(&options, 0);
	struct smtp_client_event event;
	int64_t now = 0;

	(void)state;
	assert_int_equal(smtp_client_deadline_ms(client), 5 * 60 * 1000);
	while (!smtp_client_next(client, &event)) {
		now += 1000;
		assert_true(now <= 5 * 60 * 1000);
		smtp_client_tick(client, now);
		smtp_client_input(client, SLICE("2"));
	}
	assert_int_equal(event.type, SMTP_CLIENT_FAILED);
	assert_int_equal(event.result.cause, SMTP_CLIENT_TIMEOUT);
	assert_int_equal(now, 5 * 60 * 1000);
	assert_int_equal(smtp_client_deadline_ms(client), INT64_MAX);
	smtp_client_free(&client);
}

/* G2: Each step within its time, but ever so many of them. */
static void test_slow_steps_are_bounded_as_a_whole(void **state)
{
	enum { RECIPIENTS = 100 };
	static struct smtp_client_recipient many[RECIPIENTS];
	struct smtp_transaction transaction = {.recipients = many, .recipient_count = RECIPIENTS, .content_bytes = 100};
	struct smtp_client_options options = {.helo_name = "relay.example"};
	struct smtp_client *client = smtp_client_new(&options, 0);
	struct smtp_client_event event, last = {0};
	unsigned results = 0;
	int64_t now = 0;

	(void)state;
	for (size_t i = 0; i < RECIPIENTS; i++)
		many[i] = one[0];
	smtp_client_input(client, SLICE("220 x\r\n"));
	while (last.type != SMTP_CLIENT_FAILED) {
		assert_true(now < 60 * 60 * 1000);
		while (smtp_client_next(client, &event)) {
			last = event;
			if (event.type == SMTP_CLIENT_READY)
				smtp_client_send(client, &transaction);
			if (event.type == SMTP_CLIENT_RESULT) {
				assert_int_equal(event.result.cause, SMTP_CLIENT_TIMEOUT);
				results++;
			}
		}
		smtp_client_output_sent(client, SIZE_MAX);
		now += 4 * 60 * 1000;
		smtp_client_tick(client, now);
		smtp_client_input(client, SLICE("250 x\r\n"));
	}
	assert_int_equal(results, RECIPIENTS);
	assert_non_null(strstr(last.result.reply.text, "too slow as a whole"));
	smtp_client_free(&client);
}

/* G32 */
static void test_a_server_that_stops_reading_is_left(void **state)
{
	struct smtp_client *client = smtp_client_new(&hurried.options, 0);
	static const char *const replies[] = {"220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n", "354 x\r\n"};
	struct smtp_client_event event;
	int64_t now = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
		smtp_client_input(client, slice_of_str(replies[i]));
		while (smtp_client_next(client, &event))
			if (event.type == SMTP_CLIENT_READY)
				smtp_client_send(client, &transactions[2]);
		smtp_client_output_sent(client, SIZE_MAX);
	}
	/* The host has nothing to give: the server is not to blame. */
	smtp_client_tick(client, now += 10000);
	assert_false(smtp_client_next(client, &event));
	/* Something is taken in each period. */
	smtp_client_body(client, SLICE("0123456789"));
	for (int i = 0; i < 9; i++) {
		smtp_client_tick(client, now += 399);
		assert_false(smtp_client_next(client, &event));
		smtp_client_output_sent(client, 1);
	}
	/* Nothing any more. */
	smtp_client_tick(client, now += 399);
	assert_false(smtp_client_next(client, &event));
	assert_int_equal(smtp_client_deadline_ms(client), now + 1);
	smtp_client_tick(client, now + 1);
	assert_true(smtp_client_next(client, &event));
	assert_int_equal(event.type, SMTP_CLIENT_RESULT);
	assert_int_equal(event.result.cause, SMTP_CLIENT_TIMEOUT);
	assert_int_equal(event.result.stage, STAGE_DATA);
	assert_false(event.result.may_have_been_taken);
	smtp_client_free(&client);
}

/* ---- Bounds --------------------------------------------------------------------------------------------------------
 */

/* G2, G3, G4 */
static void test_an_endless_banner_and_reply_bombs_end(void **state)
{
	static const char *const bombs[] = {"220-x\r\n", "220-", "x", "\r\n", "2", "220 x\r\n250 x\r\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bombs); i++) {
		struct smtp_client *client = smtp_client_new(&plain.options, 0);
		struct smtp_client_event event;
		size_t given = 0;

		while (!smtp_client_next(client, &event)) {
			assert_true(given < 2 * SMTP_REPLY_BYTES_MAX);
			for (int k = 0; k < 100; k++, given += strlen(bombs[i]))
				smtp_client_input(client, slice_of_str(bombs[i]));
		}
		assert_int_equal(event.type, SMTP_CLIENT_FAILED);
		assert_int_equal(event.result.cause, SMTP_CLIENT_PROTOCOL);
		assert_false(smtp_client_next(client, &event));
		smtp_client_free(&client);
	}
}

static void test_a_flood_between_two_turns_ends_the_session(void **state)
{
	struct smtp_client *client = smtp_client_new(&plain.options, 0);
	struct smtp_client_event event;
	static char block[60000];

	(void)state;
	memset(block, '2', sizeof(block));
	for (int i = 0; i < 100; i++)
		smtp_client_input(client, slice_of(block, sizeof(block)));
	assert_true(smtp_client_next(client, &event));
	assert_int_equal(event.type, SMTP_CLIENT_FAILED);
	assert_int_equal(event.result.cause, SMTP_CLIENT_PROTOCOL);
	smtp_client_free(&client);
}

static void test_thousands_of_recipients_are_written_as_they_are_read(void **state)
{
	enum { RECIPIENTS = 20000 };
	static struct smtp_client_recipient many[RECIPIENTS];
	struct smtp_transaction transaction = {.recipients = many, .recipient_count = RECIPIENTS, .content_bytes = 5};
	struct smtp_client *client = smtp_client_new(&plain.options, 0);
	struct smtp_client_event event;
	size_t results = 0, most = 0, turns = 0;
	bool done = false;

	(void)state;
	for (size_t i = 0; i < RECIPIENTS; i++)
		many[i] = one[0];
	smtp_client_input(client, SLICE("220 x\r\n"));
	while (!done) {
		struct slice out;
		struct buf replies;

		assert_true(turns++ < 100000);
		while (smtp_client_next(client, &event)) {
			if (event.type == SMTP_CLIENT_READY)
				smtp_client_send(client, &transaction);
			if (event.type == SMTP_CLIENT_NEED_BODY) {
				smtp_client_body(client, SLICE("x: y\n"));
				smtp_client_body_end(client);
			}
			results += event.type == SMTP_CLIENT_RESULT && event.result.reply.code == 250;
			done = done || event.type == SMTP_CLIENT_TRANSACTION_DONE;
		}
		out = smtp_client_output(client);
		most = MAX(most, out.len);
		buf_init(&replies, 1 << 20);
		for (size_t i = 0; i < out.len; i++)
			if (out.ptr[i] == '\n' && (i < 2 || out.ptr[i - 2] != 'y'))
				buf_append_str(&replies, memmem(out.ptr, i, "DATA", 4)	 ? "354 x\r\n"
							 : memmem(out.ptr, i, "EHLO", 4) ? "250-x\r\n250 PIPELINING\r\n"
											 : "250 x\r\n");
		smtp_client_output_sent(client, out.len);
		if (buf_len(&replies))
			smtp_client_input(client, buf_slice(&replies));
		buf_fini(&replies);
	}
	assert_int_equal(results, RECIPIENTS);
	assert_true(most < 32 * 1024);
	smtp_client_free(&client);
}

static void test_freeing_at_any_moment_is_harmless(void **state)
{
	struct smtp_client *client = NULL;

	(void)state;
	smtp_client_free(&client);
	client = smtp_client_new(&plain.options, 0);
	smtp_client_input(client, SLICE("220 x\r\n250"));
	smtp_client_free(&client);
	assert_null(client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_421_ends_the_session_wherever_it_comes),
	    cmocka_unit_test(test_421_spares_what_was_answered_before),
	    cmocka_unit_test(test_421_within_the_content_says_no_quit),
	    cmocka_unit_test(test_a_connection_that_ends),
	    cmocka_unit_test(test_after_the_dot_it_may_have_been_taken),
	    cmocka_unit_test(test_a_reply_before_the_end_counts),
	    cmocka_unit_test(test_250_and_eof_in_one_turn_is_delivered),
	    cmocka_unit_test(test_replies_before_their_command_are_never_believed),
	    cmocka_unit_test(test_wrong_codes_are_protocol_errors),
	    cmocka_unit_test(test_a_refused_rset_is_no_recipients_fault),
	    cmocka_unit_test(test_a_surplus_reply_in_one_flight_makes_no_delivery),
	    cmocka_unit_test(test_more_replies_than_commands),
	    cmocka_unit_test(test_an_early_refusal_counts_when_all_has_been_sent),
	    cmocka_unit_test(test_an_early_refusal_before_a_lost_connection_is_temporary),
	    cmocka_unit_test(test_an_early_acceptance_is_never_believed),
	    cmocka_unit_test(test_in_one_flight_a_refused_mail_still_gets_its_content),
	    cmocka_unit_test(test_dots_are_doubled_at_the_start_of_lines),
	    cmocka_unit_test(test_stuffing_equals_the_plainest_way_for_random_content_and_cuts),
	    cmocka_unit_test(test_a_large_message_never_fills_the_memory),
	    cmocka_unit_test(test_content_that_is_not_as_long_as_announced_is_broken_off),
	    cmocka_unit_test(test_an_abort_never_ends_the_message),
	    cmocka_unit_test(test_bdat_holds_the_last_octet_until_the_end),
	    cmocka_unit_test(test_a_large_message_with_bdat_waits_for_its_recipients),
	    cmocka_unit_test(test_each_step_has_its_time),
	    cmocka_unit_test(test_the_time_for_the_last_reply_begins_when_all_is_sent),
	    cmocka_unit_test(test_an_idle_session_waits_for_nothing),
	    cmocka_unit_test(test_each_recipient_has_its_own_time),
	    cmocka_unit_test(test_a_trickle_extends_nothing),
	    cmocka_unit_test(test_slow_steps_are_bounded_as_a_whole),
	    cmocka_unit_test(test_a_server_that_stops_reading_is_left),
	    cmocka_unit_test(test_an_endless_banner_and_reply_bombs_end),
	    cmocka_unit_test(test_a_flood_between_two_turns_ends_the_session),
	    cmocka_unit_test(test_thousands_of_recipients_are_written_as_they_are_read),
	    cmocka_unit_test(test_freeing_at_any_moment_is_harmless),
	};
	return cmocka_run_group_tests_name("client, hostile servers", tests, NULL, NULL);
}
