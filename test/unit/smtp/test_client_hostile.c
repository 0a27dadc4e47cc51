/* Servers on their bad days: what they break off, delay, say out of turn or never say. */
#include "support_sessions.h"

/* ---- 421 ---- */

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

/* ---- Ends of the connection ---- */

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

/* ---- Out of turn ---- */

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

/* ---- Early replies ---- */

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

/* ---- Bounds ---- */

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
	    cmocka_unit_test(test_an_endless_banner_and_reply_bombs_end),
	    cmocka_unit_test(test_a_flood_between_two_turns_ends_the_session),
	    cmocka_unit_test(test_thousands_of_recipients_are_written_as_they_are_read),
	    cmocka_unit_test(test_freeing_at_any_moment_is_harmless),
	};
	return cmocka_run_group_tests_name("client, hostile servers", tests, NULL, NULL);
}
