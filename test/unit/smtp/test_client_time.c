/* How long the client waits for each step, and for the whole. */
#include "support_sessions.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_each_step_has_its_time),
	    cmocka_unit_test(test_the_time_for_the_last_reply_begins_when_all_is_sent),
	    cmocka_unit_test(test_an_idle_session_waits_for_nothing),
	    cmocka_unit_test(test_each_recipient_has_its_own_time),
	    cmocka_unit_test(test_a_trickle_extends_nothing),
	    cmocka_unit_test(test_slow_steps_are_bounded_as_a_whole),
	    cmocka_unit_test(test_a_server_that_stops_reading_is_left),
	};
	return cmocka_run_group_tests_name("client, time", tests, NULL, NULL);
}
