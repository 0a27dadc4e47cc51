/* PROMISE table A: lines and commands. */
#include "support_transcript.h"

#define UNKNOWN "S: 500 5.5.2 Command not recognised...\n= REJECTED unknown_command 500\n"
#define TOO_LONG "S: 500 5.5.2 Line too long...\n= REJECTED line_too_long 500\n"
#define BAD_OCTETS "S: 500 5.5.2 Control characters...\n= REJECTED bad_octets 500\n"
#define ALIVE "C: NOOP\nS: 250 2.0.0 Ok\n"

static void A1_A2_greets_and_offers(void **state)
{
	(void)state;
	transcript("! starttls\n! auth\n! limit message_bytes 1000\n"
		   "S: 220 relay.test ESMTP relayd\n"
		   "C: EHLO app\n= HELO\n"
		   "S: 250-relay.test\nS: 250-PIPELINING\nS: 250-SIZE 1000\nS: 250-8BITMIME\nS: 250-SMTPUTF8\n"
		   "S: 250-ENHANCEDSTATUSCODES\nS: 250-DSN\nS: 250 STARTTLS\n");
	transcript("! starttls\n! auth\n! tls_active\n"
		   "S: 220 relay.test ESMTP relayd\n"
		   "C: EHLO app\n= HELO\n"
		   "S: 250-relay.test\nS: 250-PIPELINING\nS: 250-SIZE 26214400\nS: 250-8BITMIME\nS: 250-SMTPUTF8\n"
		   "S: 250-ENHANCEDSTATUSCODES\nS: 250-DSN\nS: 250-AUTH PLAIN LOGIN\nS: 250 REQUIRETLS\n");
	transcript("! trusted\n! no_dsn\n! no_smtputf8\n"
		   "S: 220 relay.test ESMTP relayd\n"
		   "C: EHLO app\n= HELO\n"
		   "S: 250-relay.test\nS: 250-PIPELINING\nS: 250-SIZE 26214400\nS: 250-8BITMIME\n"
		   "S: 250 ENHANCEDSTATUSCODES\n");
}

/* CLIENTS 6: EHLO any number of times, of any shape. */
static void A3_helo_and_ehlo(void **state)
{
	(void)state;
	transcript("! trusted\n! no_dsn\n! no_smtputf8\n"
		   "S: 220 ...\n"
		   "C: HELO localhost.localdomain\n= HELO\nS: 250 relay.test\n"
		   "C: EHLO [127.0.0.1]\n= HELO\n"
		   "S: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250 ...\n"
		   "C: HELO vm\n= HELO\nS: 250 relay.test\n");
}

static void A4_greeting_without_a_name(void **state)
{
	(void)state;
	transcript_trusted("C: EHLO\nS: 501 5.5.4 ...\n= REJECTED syntax 501\n"
			   "C: HELO  \nS: 501 5.5.4 ...\n= REJECTED syntax 501\n" ALIVE);
}

/* CLIENTS 5. */
static void A5_any_case(void **state)
{
	(void)state;
	transcript_trusted("C: mAiL frOM:<a@example.com> siZe=5 bOdY=8bitMIME\n"
			   "= MAIL a@example.com size=5 8bitmime\nS: 250 2.1.0 Ok\n"
			   "C: rcpt To:<b@example.org>\n= RCPT b@example.org\nS: 250 2.1.5 Ok\n"
			   "C: data\n= DATA\nS: 354 ...\n");
}

static void A6_A7_A21_what_is_no_command(void **state)
{
	(void)state;
	transcript_trusted("C: FOO bar\n" UNKNOWN "C: MAILFROM:<a@example.com>\n" UNKNOWN "C:  NOOP\n" UNKNOWN
			   "C: \\xff\\xfe\\xfd\n" UNKNOWN "C: DEBUG\n" UNKNOWN "C: WIZ\n" UNKNOWN
			   "C: XCLIENT NAME=x\n" UNKNOWN "C: XFORWARD NAME=x\n" UNKNOWN ALIVE);
	transcript_trusted("C: TURN\nC: SEND x\nC: SOML x\nC: SAML x\nC: ATRN x\nC: BURL x\nC: ETRN x\nC: EXPN staff\n"
			   "S: 502 5.5.1 ...\nS: 502 5.5.1 ...\nS: 502 5.5.1 ...\nS: 502 5.5.1 ...\n"
			   "S: 502 5.5.1 ...\nS: 502 5.5.1 ...\nS: 502 5.5.1 ...\nS: 502 5.5.1 ...\n"
			   "= REJECTED unknown_command 502\n= REJECTED unknown_command 502\n"
			   "= REJECTED unknown_command 502\n= REJECTED unknown_command 502\n"
			   "= REJECTED unknown_command 502\n= REJECTED unknown_command 502\n"
			   "= REJECTED unknown_command 502\n= REJECTED unknown_command 502\n" ALIVE);
}

static void A8_empty_lines(void **state)
{
	(void)state;
	transcript_trusted("C: \n" UNKNOWN "C:    \n" UNKNOWN ALIVE);
}

static void A9_A10_A11_lines_that_are_too_long(void **state)
{
	(void)state;
	transcript_trusted("C: NOOP \\R2000:x\n" TOO_LONG ALIVE);
	transcript_trusted("C: EHLO \\R12000:x\n" TOO_LONG ALIVE);
	/* 512 octets with the CRLF are a command, 513 are none. */
	transcript_trusted("C: NOOP \\R505:x\nS: 250 2.0.0 Ok\nC: NOOP \\R506:x\n" TOO_LONG ALIVE);
	transcript_trusted("C| \\R507:xNOOP\\r\\nNOOP\\r\\n\n" TOO_LONG "S: 250 2.0.0 Ok\n");
	transcript_trusted("C: \\R508:xNOOP\n" TOO_LONG "C: \\R1023:xNOOP\n" TOO_LONG "C: \\R4095:xNOOP\n" TOO_LONG
			   "C: \\R16384:xNOOP\n" TOO_LONG ALIVE);
	transcript_trusted("C: \\R1048576:xNOOP\n" TOO_LONG ALIVE);
	/* A bare CR or LF inside does not end it. */
	transcript_trusted("C| \\R600:x\\nNOOP\\n\\R600:x\\rNOOP\\r\\r\\n\n" TOO_LONG ALIVE);
}

/* RFC 1870, 3461, 4954, 6152, 6531: these may be longer. */
static void A11_extensions_make_room(void **state)
{
	(void)state;
	transcript("! trusted\n! auth\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n"
		   "C: MAIL FROM:<\\R60:x@\\R60:y.\\R60:y.example.com> SIZE=12345 BODY=8BITMIME SMTPUTF8 RET=HDRS "
		   "ENVID=\\R100:e AUTH=\\R400:a\n"
		   "= MAIL xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx@...\nS: 250 2.1.0 Ok\n"
		   "C: RCPT TO:<b@example.org> ORCPT=rfc822;\\R493:b NOTIFY=SUCCESS,FAILURE,DELAY\n"
		   "= RCPT b@example.org notify=14 orcpt=rfc822;...\nS: 250 2.1.5 Ok\n"
		   "C: RCPT TO:<\\R1700:x>\n" TOO_LONG ALIVE);
}

static void A12_a_line_without_end(void **state)
{
	(void)state;
	transcript_trusted("C| \\R3000000:x\n" TOO_LONG "= CLOSE line_too_long\n");
}

static void A14_bare_lf_is_no_line_end(void **state)
{
	(void)state;
	transcript_trusted(
	    "C| NOOP\\nMAIL FROM:<a@example.com>\\r\\n\n"
	    "S: 500 5.5.2 A command ends with CR LF...\n= REJECTED bad_octets 500\n= CLOSE bad_octets\n");
}

static void A15_A16_A17_controls(void **state)
{
	(void)state;
	transcript_trusted(
	    "C: NOOP\\rMAIL FROM:<a@example.com>\n" BAD_OCTETS "C: NO\\0OP\n" BAD_OCTETS "C: NOOP\\0\n" BAD_OCTETS
	    "C: MAIL FROM:<a@exa\\0mple.com>\n" BAD_OCTETS "C: MAIL FROM:<a\\x07@example.com>\n" BAD_OCTETS
	    "C: MAIL FROM:<a\\tb@example.com>\n" BAD_OCTETS "C: MAIL FROM:<a\\x1b@example.com>\n" BAD_OCTETS
	    "C: MAIL FROM:<a\\x7f@example.com>\n" BAD_OCTETS "C: EHLO a\\0b\n" BAD_OCTETS ALIVE);
	/* The CR before CRLF. */
	transcript_trusted("C| NOOP\\r\\r\\n\n" BAD_OCTETS ALIVE);
}

static void A19_trailing_blanks(void **state)
{
	(void)state;
	transcript_trusted("C: RSET   \nS: 250 2.0.0 Ok\nC: NOOP \\t \nS: 250 2.0.0 Ok\nC: QUIT \nS: 221 2.0.0 Bye\n"
			   "= CLOSE quit\n");
	transcript_trusted("C: RSET x\nS: 501 5.5.4 ...\n= REJECTED syntax 501\n"
			   "C: QUIT now\nS: 501 5.5.4 ...\n= REJECTED syntax 501\n" ALIVE);
}

static void A20_vrfy_tells_nothing(void **state)
{
	(void)state;
	transcript_trusted("C: VRFY root\nS: 252 2.5.0 ...\nC: VRFY\nS: 501 5.5.4 ...\n= REJECTED syntax 501\n"
			   "C: HELP\nS: 214-2.0.0 ...\nS: 214 2.0.0 ...\n");
}

static void A22_quit(void **state)
{
	(void)state;
	transcript("! trusted\nS: 220 ...\nC: QUIT\nC: NOOP\nS: 221 2.0.0 Bye\n= CLOSE quit\n");
}

static void A23_http(void **state)
{
	(void)state;
	transcript("! trusted\nS: 220 ...\n"
		   "C: POST / HTTP/1.1\nC: Host: localhost\nC: \nC: EHLO x\nC: MAIL FROM:<a@example.com>\n"
		   "S: 554 5.5.1 ...\n= REJECTED foreign_protocol 554\n= CLOSE foreign_protocol\n");
	transcript_trusted("C: GET / HTTP/1.0\nS: 554 5.5.1 ...\n= REJECTED foreign_protocol 554\n"
			   "= CLOSE foreign_protocol\n");
}

static void A24_a_client_that_talks_first(void **state)
{
	struct smtp_server_options options = {.hostname = "relay.test", .trusted = true, .no_dsn = true};
	struct smtp_server *s = smtp_server_new(&options, 0);
	struct smtp_server_event event;

	(void)state;
	smtp_server_input(s, SLICE("HELO early\r\n"));
	assert_true(smtp_server_next(s, &event));
	assert_int_equal(event.type, SMTP_SERVER_HELO);
	assert_false(smtp_server_next(s, &event));
	assert_true(slice_eq(smtp_server_output(s), SLICE("220 relay.test ESMTP relayd\r\n250 relay.test\r\n")));
	smtp_server_free(&s);
}

static void A25_formats(void **state)
{
	(void)state;
	transcript_trusted("C: EHLO %s%n%x\n= HELO\n"
			   "S: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250 DSN\n"
			   "C: %s%n%x %s\n" UNKNOWN "C: MAIL FROM:<%s%n%x@example.com>\n"
			   "= MAIL %s%n%x@example.com\nS: 250 2.1.0 Ok\n");
}

static void A26_tls_in_clear_text(void **state)
{
	(void)state;
	transcript("! trusted\nS: 220 ...\nC| \\x16\\x03\\x01\\x02\\0\\x01\\0\\x01\\xfc\\x03\\x03\n"
		   "S: 500 5.5.2 This looks like TLS...\n= REJECTED bad_octets 500\n= CLOSE bad_octets\n");
}

static void A28_proxy_headers_are_bad_commands(void **state)
{
	(void)state;
	transcript_trusted("C: PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n" UNKNOWN ALIVE);
	transcript_trusted(
	    "C| \\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21\\x11\\0\\x0c\n" UNKNOWN UNKNOWN BAD_OCTETS
	    "S: 500 5.5.2 A command ends with CR LF...\n= REJECTED bad_octets 500\n= CLOSE bad_octets\n");
}

/* C25, C26: CHUNKING is not offered, and what follows BDAT is not read as commands. */
static void C25_bdat_ends_the_session(void **state)
{
	(void)state;
	transcript_trusted("C: BDAT 30 LAST\nC: MAIL FROM:<evil@example.com>\n"
			   "S: 502 5.5.1 ...\n= REJECTED unknown_command 502\n= CLOSE unknown_command\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(A1_A2_greets_and_offers),
	    cmocka_unit_test(A3_helo_and_ehlo),
	    cmocka_unit_test(A4_greeting_without_a_name),
	    cmocka_unit_test(A5_any_case),
	    cmocka_unit_test(A6_A7_A21_what_is_no_command),
	    cmocka_unit_test(A8_empty_lines),
	    cmocka_unit_test(A9_A10_A11_lines_that_are_too_long),
	    cmocka_unit_test(A11_extensions_make_room),
	    cmocka_unit_test(A12_a_line_without_end),
	    cmocka_unit_test(A14_bare_lf_is_no_line_end),
	    cmocka_unit_test(A15_A16_A17_controls),
	    cmocka_unit_test(A19_trailing_blanks),
	    cmocka_unit_test(A20_vrfy_tells_nothing),
	    cmocka_unit_test(A22_quit),
	    cmocka_unit_test(A23_http),
	    cmocka_unit_test(A24_a_client_that_talks_first),
	    cmocka_unit_test(A25_formats),
	    cmocka_unit_test(A26_tls_in_clear_text),
	    cmocka_unit_test(A28_proxy_headers_are_bad_commands),
	    cmocka_unit_test(C25_bdat_ends_the_session),
	};
	return cmocka_run_group_tests_name("smtp server: commands", tests, NULL, NULL);
}
