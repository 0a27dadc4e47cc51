/* PROMISE table F, as far as the machine decides: ceilings, slowness, clients that do not read. */
#include "support_transcript.h"

#include "base/buf.h"

#define BEGIN                                                                                                          \
	"C: MAIL FROM:<a@example.com>\nC: RCPT TO:<b@example.org>\nC: DATA\n"                                          \
	"= MAIL a@example.com\nS: 250 2.1.0 Ok\n= RCPT b@example.org\nS: 250 2.1.5 Ok\n= DATA\nS: 354 ...\n"
#define TIMEOUT "S: 421 4.4.2 Timeout...\n= REJECTED timeout 421\n"
#define SLOW "S: 421 4.4.2 Too slow...\n= REJECTED too_slow 421\n"
#define MAIL_OK "C: MAIL FROM:<a@example.com>\n= MAIL a@example.com\nS: 250 2.1.0 Ok\n"
#define UNKNOWN "S: 500 5.5.2 ...\n= REJECTED unknown_command 500\n"

static void F1_slow_commands(void **state)
{
	(void)state;
	/* A trickle does not extend the time for a command. */
	transcript_trusted(MAIL_OK "> wait 299999\nC: NOOP\nS: 250 2.0.0 Ok\n> wait 299999\nC| NO\n> wait 1\n" TIMEOUT
				   "= ABORTED timeout\n= CLOSE timeout\n");
	transcript_trusted(MAIL_OK "C| N\n> wait 200000\nC| O\n> wait 99999\nC| O\n> wait 1\n" TIMEOUT
				   "= ABORTED timeout\n= CLOSE timeout\n");
}

static void F1_slow_content(void **state)
{
	(void)state;
	/* 60 s for nothing, and one second more for each 512 octets. */
	transcript_trusted(BEGIN "> wait 59999\nC| x\n> wait 2\n" SLOW "= ABORTED too_slow\n= CLOSE too_slow\n");
	transcript_trusted(BEGIN "C: \\R1022:x\n> wait 61999\nC: x\n> wait 5\n> wait 1\n" SLOW
				 "= ABORTED too_slow\n= CLOSE too_slow\n");
	transcript_trusted(BEGIN
			   "C: \\R512000:x\n> wait 299999\nC: x\nC: .\n= COMPLETE long |xxx...\nS: 250 2.0.0 Ok\n");
	transcript_trusted(BEGIN "C: \\R512000:x\n> wait 300000\n" TIMEOUT "= ABORTED timeout\n= CLOSE timeout\n");
}

/* The time for content runs only while the client is waited for. */
static void F1_our_own_slowness_is_not_the_clients(void **state)
{
	struct smtp_server_options options = {.hostname = "relay.test", .trusted = true};
	struct smtp_server *s = smtp_server_new(&options, 0);
	struct smtp_server_event event;

	(void)state;
	smtp_server_input(s, SLICE("HELO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx: y\r\n"));
	while (smtp_server_next(s, &event) && event.type != SMTP_SERVER_CONTENT) {
		smtp_server_mail_done(s, NULL);
		smtp_server_rcpt_done(s, NULL);
		smtp_server_data_done(s, NULL);
	}
	smtp_server_output_sent(s, smtp_server_output(s).len);
	assert_int_equal(event.type, SMTP_SERVER_CONTENT);
	/* The host takes its time with the content it was given. */
	assert_true(smtp_server_deadline_ms(s) == INT64_MAX);
	smtp_server_tick(s, 10000000);
	assert_false(smtp_server_next(s, &event));
	assert_int_equal(smtp_server_deadline_ms(s), 10000000 + 60 * 1000 + 6 * 1000 / 512);
	smtp_server_free(&s);
}

/* F2: who never logs in is sent away, however much he says. */
static void F2_strangers(void **state)
{
	(void)state;
	transcript_trusted("> wait 200000\nC: NOOP\nS: 250 2.0.0 Ok\n> wait 100000\n" TIMEOUT "= CLOSE timeout\n");
	transcript("! limit session_ms 1000000\n! trusted\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n" MAIL_OK
		   "> wait 290000\nC: RSET\n= ABORTED reset\nS: 250 2.0.0 Ok\n"
		   "> wait 290000\nC: NOOP\nS: 250 2.0.0 Ok\n> wait 290000\nC: NOOP\nS: 250 2.0.0 Ok\n"
		   "> wait 130000\n" TIMEOUT "= CLOSE timeout\n");
}

/* The whole session has an end too, but a message under way is taken. */
static void the_session_ends_behind_its_message(void **state)
{
	(void)state;
	transcript("! limit session_ms 1000\n! trusted\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n" BEGIN
		   "> wait 2000\nC: x\nC: .\n= COMPLETE |x\\r\\n|\nS: 250 2.0.0 Ok\n" TIMEOUT "= CLOSE timeout\n");
}

static void F4_recipients(void **state)
{
	(void)state;
	transcript("! limit recipients 2\n! limit commands 5\n! trusted\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 "
		   "relay.test\n" MAIL_OK
		   "C: RCPT TO:<b@example.org>\nC: RCPT TO:<c@example.org>\nC: RCPT TO:<d@example.org>\n"
		   "C: RCPT TO:<e@example.org>\nC: RCPT TO:<f@example.org>\nC: RCPT TO:<g@example.org>\n"
		   "= RCPT b@example.org\nS: 250 2.1.5 Ok\n= RCPT c@example.org\nS: 250 2.1.5 Ok\n"
		   "= REJECTED too_many_recipients 452\nS: 452 4.5.3 ...\n= REJECTED too_many_recipients 452\nS: 452 "
		   "4.5.3 ...\n"
		   "= REJECTED too_many_recipients 452\nS: 452 4.5.3 ...\n= REJECTED too_many_recipients 452\nS: 452 "
		   "4.5.3 ...\n"
		   "C: DATA\n= DATA\nS: 354 ...\nC: .\n= COMPLETE ||\nS: 250 2.0.0 Ok\n");
}

static void F6_commands_and_errors(void **state)
{
	(void)state;
	transcript("! limit commands 4\n! trusted\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n"
		   "C: NOOP\nS: 250 2.0.0 Ok\nC: NOOP\nS: 250 2.0.0 Ok\nC: RSET\nS: 250 2.0.0 Ok\nC: NOOP\nC: NOOP\n"
		   "S: 421 4.7.0 Too many commands...\n= REJECTED too_many_commands 421\n= CLOSE too_many_commands\n");
	transcript("! limit errors 3\n! trusted\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n"
		   "C: A\n" UNKNOWN "C: B\n" UNKNOWN BEGIN "C: .\n= COMPLETE ||\nS: 250 2.0.0 Ok\n"
		   /* A message that was taken makes good. */
		   "C: A\n" UNKNOWN "C: B\n" UNKNOWN "C: C\nC: D\n" UNKNOWN
		   "S: 421 4.7.0 Too many errors...\n= REJECTED too_many_errors 421\n= CLOSE too_many_errors\n");
}

static void messages_per_session(void **state)
{
	(void)state;
	transcript("! limit messages 1\n! trusted\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n" BEGIN
		   "C: .\n= COMPLETE ||\nS: 250 2.0.0 Ok\n"
		   "C: MAIL FROM:<a@example.com>\nS: 421 4.7.0 Enough messages...\n= REJECTED too_many_messages 421\n"
		   "= CLOSE too_many_messages\n");
}

/* F7: what is too big is swallowed, but not for ever. */
static void F7_endless_content(void **state)
{
	struct smtp_server_options options = {
	    .hostname = "relay.test", .trusted = true, .limits = {.message_bytes = 1000}};
	struct smtp_server *s = smtp_server_new(&options, 0);
	struct smtp_server_event event;
	static char block[32768];
	uint64_t fed = 0, given = 0;
	enum smtp_server_reason reason = SMTP_SERVER_NONE;
	bool closed = false;

	(void)state;
	memset(block, 'x', sizeof(block));
	smtp_server_input(s, SLICE("HELO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"));
	while (!closed) {
		while (smtp_server_next(s, &event)) {
			smtp_server_mail_done(s, NULL);
			smtp_server_rcpt_done(s, NULL);
			smtp_server_data_done(s, NULL);
			given += event.content.len;
			closed |= event.type == SMTP_SERVER_CLOSE;
			reason = event.reason;
		}
		smtp_server_output_sent(s, smtp_server_output(s).len);
		fed += smtp_server_input(s, slice_of(block, sizeof(block)));
		assert_true(fed < 80u << 20);
		assert_true(smtp_server_memory_bytes(s) < 80 * 1024);
	}
	assert_int_equal(given, 0);
	assert_int_equal(reason, SMTP_SERVER_TOO_BIG);
	smtp_server_free(&s);
}

/* F12: a client that never reads is not read from, and is closed in the end. */
static void F12_a_client_that_never_reads(void **state)
{
	struct smtp_server_options options = {
	    .hostname = "relay.test", .trusted = true, .limits = {.commands = 1000000}};
	struct smtp_server *s = smtp_server_new(&options, 0);
	struct smtp_server_event event;
	size_t fed = 0;

	(void)state;
	while (smtp_server_wants_input(s)) {
		fed += smtp_server_input(s, SLICE("NOOP\r\nHELP\r\n"));
		while (smtp_server_next(s, &event))
			;
		assert_true(fed < 1 << 20);
	}
	assert_true(smtp_server_output(s).len < 16 * 1024);
	assert_true(smtp_server_memory_bytes(s) < 96 * 1024);
	assert_true(smtp_server_deadline_ms(s) <= 5 * 60 * 1000);
	smtp_server_tick(s, 5 * 60 * 1000);
	assert_true(smtp_server_next(s, &event));
	assert_int_equal(event.type, SMTP_SERVER_CLOSE);
	assert_int_equal(event.reason, SMTP_SERVER_TIMEOUT);
	assert_int_equal(smtp_server_output(s).len, 0);
	assert_false(smtp_server_next(s, &event));
	assert_true(smtp_server_deadline_ms(s) == INT64_MAX);
	smtp_server_free(&s);
}

/* F12: output that is not taken at the end of the session holds it for ten seconds at most. */
static void the_last_reply_is_not_waited_for_long(void **state)
{
	(void)state;
	transcript_trusted("> stuck\nC: QUIT\n> wait 9999\n> wait 1\n= CLOSE quit\n");
	/* Who talks on meanwhile is read from and not heard, and gains no time. */
	transcript_trusted("> stuck\nC: QUIT\n> wait 9000\nC: NOOP\nC: \\R200000:x\n> wait 999\nC: EHLO again\n"
			   "> wait 1\n= CLOSE quit\n");
}

static void F2_idle_sessions_are_small(void **state)
{
	struct smtp_server_options options = {.hostname = "relay.test", .trusted = true};
	struct smtp_server *s = smtp_server_new(&options, 0);
	struct smtp_server_event event;

	(void)state;
	for (int i = 0; i < 3; i++) {
		smtp_server_input(s, SLICE("EHLO a.rather.long.name.of.some.host.example.com\r\nMAIL FROM:<a@b>\r\n"
					   "RCPT TO:<c@d>\r\nDATA\r\nsome: thing\r\n\r\nand\r\nmore\r\n.\r\n"));
		while (smtp_server_next(s, &event)) {
			smtp_server_mail_done(s, NULL);
			smtp_server_rcpt_done(s, NULL);
			smtp_server_data_done(s, NULL);
			smtp_server_stored(s, NULL);
		}
		smtp_server_output_sent(s, smtp_server_output(s).len);
		assert_false(smtp_server_next(s, &event));
		assert_true(smtp_server_memory_bytes(s) < 2048);
	}
	smtp_server_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(F1_slow_commands),
	    cmocka_unit_test(F1_slow_content),
	    cmocka_unit_test(F1_our_own_slowness_is_not_the_clients),
	    cmocka_unit_test(F2_strangers),
	    cmocka_unit_test(the_session_ends_behind_its_message),
	    cmocka_unit_test(F4_recipients),
	    cmocka_unit_test(F6_commands_and_errors),
	    cmocka_unit_test(messages_per_session),
	    cmocka_unit_test(F7_endless_content),
	    cmocka_unit_test(F12_a_client_that_never_reads),
	    cmocka_unit_test(the_last_reply_is_not_waited_for_long),
	    cmocka_unit_test(F2_idle_sessions_are_small),
	};
	return cmocka_run_group_tests_name("smtp server: limits", tests, NULL, NULL);
}
