/* The life of a session: transactions, pipelining, answers that come late, ends. */
#include "support_transcript.h"

#define DATA_OK "= DATA\nS: 354 End data with <CR><LF>.<CR><LF>\n"
#define ENVELOPE                                                                                                       \
	"C: MAIL FROM:<a@example.com>\nC: RCPT TO:<b@example.org>\n"                                                   \
	"= MAIL a@example.com\nS: 250 2.1.0 Ok\n= RCPT b@example.org\nS: 250 2.1.5 Ok\n"

static void a_message_from_greeting_to_quit(void **state)
{
	(void)state;
	transcript_trusted("C: MAIL FROM:<a@example.com>\n"
			   "= MAIL a@example.com\n"
			   "S: 250 2.1.0 Ok\n"
			   "C: RCPT TO:<b@example.org>\n"
			   "= RCPT b@example.org\n"
			   "S: 250 2.1.5 Ok\n"
			   "C: DATA\n" DATA_OK "C: Subject: x\n"
			   "C: \n"
			   "C: ..hello\n"
			   "> stored 250 2.0.0 Ok: queued as 0123456789ABC\n"
			   "C: .\n"
			   "= COMPLETE |Subject: x\\r\\n\\r\\n.hello\\r\\n|\n"
			   "S: 250 2.0.0 Ok: queued as 0123456789ABC\n"
			   "C: QUIT\n"
			   "S: 221 2.0.0 Bye\n"
			   "= CLOSE quit\n");
}

/* CLIENTS 9: swaks --pipeline. The replies keep their order. */
static void a_pipelined_group_is_answered_in_order(void **state)
{
	(void)state;
	transcript_trusted("> rcpt 550 5.1.1 No such user\n"
			   "C: MAIL FROM:<a@example.com> SIZE=100\n"
			   "C: RCPT TO:<nobody@example.org>\n"
			   "C: RCPT TO:<b@example.org>\n"
			   "C: DATA\n"
			   "= MAIL a@example.com size=100\n"
			   "S: 250 2.1.0 Ok\n"
			   "= RCPT nobody@example.org\n"
			   "S: 550 5.1.1 No such user\n"
			   "= REJECTED recipient_refused 550\n"
			   "= RCPT b@example.org\n"
			   "S: 250 2.1.5 Ok\n" DATA_OK);
}

/* A2, STYLE: the replies of a group go out as one piece. */
static void replies_of_a_group_gather(void **state)
{
	struct smtp_server_options options = {.hostname = "relay.test", .trusted = true};
	struct smtp_server *s = smtp_server_new(&options, 0);
	struct smtp_server_event event;
	int rcpts = 0;

	(void)state;
	smtp_server_input(s, SLICE("EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n"));
	while (smtp_server_next(s, &event)) {
		if (event.type == SMTP_SERVER_MAIL)
			smtp_server_mail_done(s, NULL);
		else if (event.type == SMTP_SERVER_RCPT && ++rcpts)
			smtp_server_rcpt_done(s, NULL);
		else if (event.type == SMTP_SERVER_DATA)
			smtp_server_data_done(s, NULL);
	}
	assert_int_equal(rcpts, 2);
	assert_non_null(memmem(smtp_server_output(s).ptr, smtp_server_output(s).len,
			       "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n354 ", 46));
	smtp_server_free(&s);
	assert_null(s);
}

/* B6, CLIENTS 8: nodemailer's pool sends many messages without RSET. */
static void no_recipient_leaks_into_the_next_message(void **state)
{
	(void)state;
	transcript_trusted(ENVELOPE "C: DATA\n" DATA_OK "C: one\nC: .\n= COMPLETE |one\\r\\n|\nS: 250 2.0.0 Ok\n"
				    "C: RCPT TO:<c@example.org>\n"
				    "S: 503 5.5.1 Say MAIL first\n= REJECTED sequence 503\n"
				    "C: MAIL FROM:<d@example.com>\n= MAIL d@example.com\nS: 250 2.1.0 Ok\n"
				    "C: DATA\nS: 554 5.5.1 No valid recipients\n= REJECTED sequence 554\n"
				    "C: RCPT TO:<e@example.org>\n= RCPT e@example.org\nS: 250 2.1.5 Ok\n"
				    "C: DATA\n" DATA_OK "C: two\nC: .\n= COMPLETE |two\\r\\n|\nS: 250 2.0.0 Ok\n");
}

/* C9: what stands behind the true end in the same segment is served in order. */
static void commands_behind_the_end_of_data_are_served(void **state)
{
	(void)state;
	transcript_trusted(ENVELOPE "C: DATA\n" DATA_OK
				    "C: one\nC: .\nC: MAIL FROM:<c@example.com>\nC: NOOP\nC: RSET\nC: QUIT\n"
				    "= COMPLETE |one\\r\\n|\nS: 250 2.0.0 Ok\n"
				    "= MAIL c@example.com\nS: 250 2.1.0 Ok\n"
				    "S: 250 2.0.0 Ok\n"
				    "= ABORTED reset\nS: 250 2.0.0 Ok\n"
				    "S: 221 2.0.0 Bye\n= CLOSE quit\n");
}

static void nothing_is_said_before_the_disk_has_answered(void **state)
{
	(void)state;
	transcript_trusted(ENVELOPE
			   "C: DATA\n" DATA_OK "> hold stored\n"
			   "C: one\nC: .\nC: NOOP\n"
			   "= COMPLETE |one\\r\\n|\n"
			   "> wait 600000\n"
			   "> stored 451 4.3.0 The disk is in trouble\n"
			   "> answer\n"
			   "= REJECTED message_refused 451\nS: 451 4.3.0 The disk is in trouble\nS: 250 2.0.0 Ok\n");
}

static void late_answers_are_waited_for(void **state)
{
	(void)state;
	transcript_trusted("> hold mail\n"
			   "C: MAIL FROM:<a@example.com>\nC: RCPT TO:<b@example.org>\nC: DATA\n"
			   "= MAIL a@example.com\n"
			   "> hold rcpt\n"
			   "> answer\n"
			   "S: 250 2.1.0 Ok\n= RCPT b@example.org\n"
			   "> hold data\n"
			   "> answer\n"
			   "S: 250 2.1.5 Ok\n= DATA\n"
			   "> answer\n"
			   "S: 354 End data with <CR><LF>.<CR><LF>\n");
}

static void answers_that_nobody_waits_for_are_dropped(void **state)
{
	struct smtp_server_options options = {.hostname = "relay.test", .trusted = true};
	struct smtp_server_reply reply = {550, "5.0.0", "x"};
	struct smtp_server *s = smtp_server_new(&options, 0);
	size_t before = smtp_server_output(s).len;

	(void)state;
	smtp_server_auth_done(s, SMTP_SERVER_AUTH_OK);
	smtp_server_mail_done(s, NULL);
	smtp_server_rcpt_done(s, NULL);
	smtp_server_data_done(s, &reply);
	smtp_server_stored(s, NULL);
	smtp_server_refuse_content(s, &reply);
	smtp_server_tls_started(s);
	assert_int_equal(smtp_server_output(s).len, before);
	assert_string_equal(smtp_server_state_name(s), "START");
	smtp_server_free(&s);
}

/* The host's words: MAIL refused, a RCPT deferred, DATA refused, the message refused. */
static void the_host_refuses(void **state)
{
	(void)state;
	transcript_trusted("> mail 452 4.3.1 No space\n"
			   "C: MAIL FROM:<a@example.com>\n"
			   "= MAIL a@example.com\nS: 452 4.3.1 No space\n= REJECTED sender_refused 452\n"
			   "C: RCPT TO:<b@example.org>\n"
			   "S: 503 5.5.1 Say MAIL first\n= REJECTED sequence 503\n"
			   "C: MAIL FROM:<a@example.com>\n= MAIL a@example.com\nS: 250 2.1.0 Ok\n"
			   "> rcpt 451 4.2.0 Later\n"
			   "C: RCPT TO:<b@example.org>\n"
			   "= RCPT b@example.org\nS: 451 4.2.0 Later\n= REJECTED recipient_refused 451\n"
			   "C: RCPT TO:<c@example.org>\n= RCPT c@example.org\nS: 250 2.1.5 Ok\n"
			   "> data 452 4.3.1 No space\n"
			   "C: DATA\n= DATA\nS: 452 4.3.1 No space\n= REJECTED message_refused 452\n"
			   "= ABORTED message_refused\n"
			   "C: MAIL FROM:<a@example.com>\n= MAIL a@example.com\nS: 250 2.1.0 Ok\n"
			   "C: RCPT TO:<c@example.org>\n= RCPT c@example.org\nS: 250 2.1.5 Ok\n"
			   "C: DATA\n" DATA_OK "> stored 550 5.7.1 Not from here\\nSet from= for this user\n"
			   "C: x\nC: .\n= COMPLETE |x\\r\\n|\nS: 550 5.7.1 Not from here\\nSet from= for this user\n"
			   "= REJECTED message_refused 550\n");
}

/* 421 is the end, wherever the host says it: nothing that comes behind is answered. */
static void the_host_ends_the_session_at_any_step(void **state)
{
	(void)state;
	transcript_trusted("> mail 421 4.3.2 Over\n"
			   "C: MAIL FROM:<a@example.com>\nC: NOOP\n"
			   "= MAIL a@example.com\nS: 421 4.3.2 Over\n= REJECTED sender_refused 421\n"
			   "= CLOSE sender_refused\n");
	transcript_trusted("C: MAIL FROM:<a@example.com>\n= MAIL a@example.com\nS: 250 2.1.0 Ok\n"
			   "> rcpt 421 4.3.2 Over\n"
			   "C: RCPT TO:<b@example.org>\nC: NOOP\n"
			   "= RCPT b@example.org\nS: 421 4.3.2 Over\n= REJECTED recipient_refused 421\n"
			   "= ABORTED recipient_refused\n= CLOSE recipient_refused\n");
	transcript_trusted(ENVELOPE "> data 421 4.3.2 Over\n"
				    "C: DATA\n"
				    "= DATA\nS: 421 4.3.2 Over\n= REJECTED message_refused 421\n"
				    "= ABORTED message_refused\n= CLOSE message_refused\n");
}

static void a_reply_of_several_lines_carries_its_code_on_each(void **state)
{
	struct smtp_server_reply reply = {550, "5.7.1", "one\ntwo\x1b[2Jthree\n\xc3\xbc"};
	struct smtp_server_reply empty = {250, "2.0.0", ""};
	char text[2001];
	struct smtp_server_reply is_long = {550, NULL, text};
	struct buf out;

	(void)state;
	buf_init(&out, 65536);
	smtp_server_reply_format(&out, &reply);
	smtp_server_reply_format(&out, &empty);
	buf_append_byte(&out, '\0');
	assert_string_equal(buf_slice(&out).ptr,
			    "550-5.7.1 one\r\n550-5.7.1 two?[2Jthree\r\n550 5.7.1 ??\r\n250 2.0.0\r\n");
	buf_clear(&out);
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	smtp_server_reply_format(&out, &is_long);
	assert_int_equal(buf_len(&out), 512);
	assert_memory_equal(buf_slice(&out).ptr + 510, "\r\n", 2);
	buf_clear(&out);
	memset(text, '\n', sizeof(text) - 1);
	smtp_server_reply_format(&out, &is_long);
	assert_int_equal(buf_len(&out), 16 * 6);
	buf_fini(&out);
}

/* The rest of a message that the host does not want is swallowed to its end. */
static void content_is_refused_while_it_arrives(void **state)
{
	(void)state;
	transcript_trusted(ENVELOPE "C: DATA\n" DATA_OK "> refuse 552 5.3.4 The header is too long\n"
				    "C: a: b\nC: MAIL FROM:<evil@example.com>\nC: .\nC: NOOP\n"
				    "= ABORTED message_refused\n= REJECTED message_refused 552\n"
				    "S: 552 5.3.4 The header is too long\nS: 250 2.0.0 Ok\n"
				    "C: MAIL FROM:<c@example.com>\n= MAIL c@example.com\nS: 250 2.1.0 Ok\n");
	/* Each refusal is one reply: a second of the session does not say the first again. */
	transcript_trusted(
	    ENVELOPE
	    "C: DATA\n" DATA_OK "> refuse 552 5.3.4 The header is too long\nC: a: b\nC: .\n"
	    "= ABORTED message_refused\n= REJECTED message_refused 552\nS: 552 5.3.4 The header is too long\n" ENVELOPE
	    "C: DATA\n" DATA_OK "> refuse 550 5.7.1 Not from you\nC: a: b\nC: .\nC: NOOP\n"
	    "= ABORTED message_refused\n= REJECTED message_refused 550\nS: 550 5.7.1 Not from you\nS: 250 2.0.0 Ok\n");
	transcript_trusted(ENVELOPE "C: DATA\n" DATA_OK "> refuse 421 4.3.0 Going away\n"
				    "C: a: b\nC: .\nC: NOOP\n"
				    "= ABORTED message_refused\n= REJECTED message_refused 421\n"
				    "S: 421 4.3.0 Going away\n= CLOSE message_refused\n");
}

/* B7, CLIENTS 7, F9, F10, F11. */
static void clients_that_leave(void **state)
{
	(void)state;
	transcript_trusted(ENVELOPE "C: QUIT\nS: 221 2.0.0 Bye\n= ABORTED quit\n= CLOSE quit\n");
	transcript_trusted("> eof\n= CLOSE gone\n");
	transcript_trusted("C| MAIL FROM:<a@exam\n> eof\n= CLOSE gone\n");
	transcript_trusted(ENVELOPE "> eof\n= ABORTED gone\n= CLOSE gone\n");
	transcript_trusted(ENVELOPE "C: DATA\n" DATA_OK "C: half of\nC| a message\\r\\n.\n"
				    "> eof\n= ABORTED gone\n= CLOSE gone\n");
	/* Half-closed behind the dot: the message is whole and gets its answer. */
	transcript_trusted(ENVELOPE "C: DATA\n" DATA_OK "> hold stored\n"
				    "C: x\nC: .\n= COMPLETE |x\\r\\n|\n"
				    "> eof\n"
				    "> answer\nS: 250 2.0.0 Ok\n= CLOSE gone\n");
	/* Half-closed with commands in the pipe: they are answered. */
	transcript_trusted("> hold mail\nC: MAIL FROM:<a@example.com>\nC: NOOP\n= MAIL a@example.com\n"
			   "> eof\n"
			   "> answer\nS: 250 2.1.0 Ok\nS: 250 2.0.0 Ok\n= ABORTED gone\n= CLOSE gone\n");
}

/* F20: transactions under way finish, then 421. */
static void shuts_down_gracefully(void **state)
{
	(void)state;
	transcript_trusted("> shutdown\nS: 421 4.3.2 ...\n= REJECTED shutdown 421\n= CLOSE shutdown\n");
	transcript_trusted(ENVELOPE "> shutdown\n"
				    "C: DATA\n" DATA_OK "C: x\nC: .\n"
				    "= COMPLETE |x\\r\\n|\nS: 250 2.0.0 Ok\n"
				    "S: 421 4.3.2 ...\n= REJECTED shutdown 421\n= CLOSE shutdown\n");
	transcript_trusted(ENVELOPE "> shutdown\nC: RSET\n= ABORTED reset\nS: 250 2.0.0 Ok\n"
				    "S: 421 4.3.2 ...\n= REJECTED shutdown 421\n= CLOSE shutdown\n");
}

static void is_closed_by_the_host(void **state)
{
	(void)state;
	transcript_trusted(ENVELOPE "> close 421 4.7.0 Too many connections\n"
				    "S: 421 4.7.0 Too many connections\n= ABORTED shutdown\n= CLOSE shutdown\n"
				    "C: NOOP\n");
	transcript_trusted("> hold stored\n" ENVELOPE "C: DATA\n" DATA_OK "C: x\nC: .\n= COMPLETE |x\\r\\n|\n"
			   "> close\n= ABORTED shutdown\n= CLOSE shutdown\n"
			   "> answer\n");
	transcript_trusted("> hold mail\nC: MAIL FROM:<a@example.com>\n= MAIL a@example.com\n"
			   "> close\n= ABORTED shutdown\n= CLOSE shutdown\n");
}

static void tells_what_it_knows(void **state)
{
	struct smtp_server_options options = {.hostname = "relay.test", .trusted = true};
	struct smtp_server *s = smtp_server_new(&options, 0);
	struct smtp_server_status status;
	struct smtp_server_event event;

	(void)state;
	smtp_server_status(s, &status);
	assert_string_equal(status.helo, "");
	assert_true(status.is_idle);
	smtp_server_input(s, SLICE("HELO an \xff odd\x01name\r\nEHLO b\xc3\xbc\r\nMAIL FROM:<a@b>\r\n"));
	while (smtp_server_next(s, &event))
		smtp_server_mail_done(s, NULL);
	smtp_server_status(s, &status);
	assert_string_equal(status.helo, "b??");
	assert_true(status.esmtp && status.in_transaction && status.has_logged_in && !status.is_idle && !status.tls);
	assert_int_equal(status.commands, 3);
	assert_int_equal(status.errors, 1);
	smtp_server_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_message_from_greeting_to_quit),
	    cmocka_unit_test(a_pipelined_group_is_answered_in_order),
	    cmocka_unit_test(replies_of_a_group_gather),
	    cmocka_unit_test(no_recipient_leaks_into_the_next_message),
	    cmocka_unit_test(commands_behind_the_end_of_data_are_served),
	    cmocka_unit_test(nothing_is_said_before_the_disk_has_answered),
	    cmocka_unit_test(late_answers_are_waited_for),
	    cmocka_unit_test(answers_that_nobody_waits_for_are_dropped),
	    cmocka_unit_test(the_host_refuses),
	    cmocka_unit_test(the_host_ends_the_session_at_any_step),
	    cmocka_unit_test(a_reply_of_several_lines_carries_its_code_on_each),
	    cmocka_unit_test(content_is_refused_while_it_arrives),
	    cmocka_unit_test(clients_that_leave),
	    cmocka_unit_test(shuts_down_gracefully),
	    cmocka_unit_test(is_closed_by_the_host),
	    cmocka_unit_test(tells_what_it_knows),
	};
	return cmocka_run_group_tests_name("smtp server", tests, NULL, NULL);
}
