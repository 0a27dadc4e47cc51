/* PROMISE tables D (what of STARTTLS the machine decides) and E: AUTH and who may send. */
#include "support_transcript.h"

#include "base/buf.h"

#include <stdlib.h>

#define GREETING "S: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n"
#define TLS_REQUIRED "S: 530 5.7.0 Say STARTTLS first...\n= REJECTED tls_required 530\n"
#define AUTH_REQUIRED "S: 530 5.7.0 Authentication required...\n= REJECTED auth_required 530\n"
#define WRONG "S: 535 5.7.8 ...\n= REJECTED auth_failed 535\n"
#define NO_BASE64 "S: 501 5.5.2 ...\n= REJECTED auth_failed 501\n"
#define OK "S: 235 2.7.0 Authentication successful\n"
#define SEQUENCE "S: 503 5.5.1 ...\n= REJECTED sequence 503\n"
#define AUTH "! auth\n! tls_active\n" GREETING
#define MAIL_OK "C: MAIL FROM:<a@example.com>\n= MAIL a@example.com\nS: 250 2.1.0 Ok\n"

/* app, secret */
#define PLAIN "AGFwcABzZWNyZXQ="

static void E1_plain_and_login(void **state)
{
	(void)state;
	transcript(AUTH "C: AUTH PLAIN " PLAIN "\n= AUTH PLAIN app secret\n" OK MAIL_OK);
	/* CLIENTS 3: the empty challenge is "334 ". */
	transcript(AUTH "C: auth plain\nS: 334 \nC: " PLAIN "\n= AUTH PLAIN app secret\n" OK);
	/* CLIENTS 1: exactly these challenges. */
	transcript(AUTH "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: YXBw\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\n"
			"= AUTH LOGIN app secret\n" OK MAIL_OK);
	transcript(AUTH "C: AUTH LOGIN YXBw\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\n= AUTH LOGIN app secret\n" OK);
	/* An authorisation identity that is the user's own. */
	transcript(AUTH "C: AUTH PLAIN YXBwAGFwcABzZWNyZXQ=\n= AUTH PLAIN app secret\n" OK);
}

static void E2_cancelled(void **state)
{
	(void)state;
	transcript(AUTH "C: AUTH PLAIN\nS: 334 \nC: *\nS: 501 5.7.0 ...\n= REJECTED auth_failed 501\n"
			"C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: YXBw\nS: 334 UGFzc3dvcmQ6\nC: *\n"
			"S: 501 5.7.0 ...\n= REJECTED auth_failed 501\n"
			"C: MAIL FROM:<a@example.com>\n" AUTH_REQUIRED);
}

static void E3_bad_base64(void **state)
{
	(void)state;
	transcript(AUTH "C: AUTH PLAIN ===\n" NO_BASE64 "C: AUTH PLAIN AGFw!wBz\n" NO_BASE64
			"C: AUTH PLAIN AGFwcABzZWNyZXQ\n" NO_BASE64 "C: AUTH PLAIN AGFwcABzZWNyZXR=\n" NO_BASE64
			"C: AUTH PLAIN =\n" WRONG "C: AUTH PLAIN\nS: 334 \nC: \n" WRONG
			"C: AUTH PLAIN\nS: 334 \nC: NOOP x\n" NO_BASE64);
}

static void E4_too_long(void **state)
{
	(void)state;
	transcript(AUTH "C: AUTH PLAIN \\R13000:A\nS: 500 5.5.2 ...\n= REJECTED line_too_long 500\n"
			"C: AUTH PLAIN\nS: 334 \nC: \\R100000:A\nS: 500 5.5.6 ...\n= REJECTED auth_failed 500\n"
			"C: NOOP\nS: 250 2.0.0 Ok\n"
			"C: AUTH PLAIN \\R12000:A\n" WRONG);
	transcript(AUTH "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: \\R1048576:A\nS: 500 5.5.6 ...\n"
			"= REJECTED auth_failed 500\nC: NOOP\nS: 250 2.0.0 Ok\n");
}

static void E5_malformed_credentials(void **state)
{
	(void)state;
	transcript(AUTH "C: AUTH PLAIN YXBw\n" WRONG		 /* app */
			"C: AUTH PLAIN AGFwcA==\n" WRONG	 /* NUL app */
			"C: AUTH PLAIN AGFwcABzZWMAcmV0\n" WRONG /* NUL in the password */
			"C: AUTH PLAIN AABzZWNyZXQ=\n" WRONG	 /* no user */
			"C: AUTH PLAIN AGFwcAA=\n" WRONG	 /* no password */
			"C: AUTH PLAIN AGEKYgBzZWNyZXQ=\n" WRONG /* LF in the user */
			"C: AUTH LOGIN =\n" WRONG);
	transcript(AUTH "C: AUTH LOGIN YXBw\nS: 334 UGFzc3dvcmQ6\nC: \n" WRONG
			"C: AUTH LOGIN YXBw\nS: 334 UGFzc3dvcmQ6\nC: c2UAY3JldA==\n" WRONG);
}

static void E6_somebody_else(void **state)
{
	(void)state;
	transcript(AUTH "C: AUTH PLAIN cm9vdABhcHAAc2VjcmV0\n" WRONG);
}

static void E7_E8_wrong(void **state)
{
	(void)state;
	transcript(AUTH "> auth bad\nC: AUTH PLAIN " PLAIN "\n= AUTH PLAIN app secret\n" WRONG
			"C: MAIL FROM:<a@example.com>\n" AUTH_REQUIRED "C: AUTH PLAIN " PLAIN
			"\n= AUTH PLAIN app secret\n" OK MAIL_OK);
}

static void E9_twice_and_in_a_transaction(void **state)
{
	(void)state;
	transcript(AUTH "C: AUTH PLAIN " PLAIN "\n= AUTH PLAIN app secret\n" OK "C: AUTH PLAIN " PLAIN
			"\n" SEQUENCE MAIL_OK "C: AUTH PLAIN " PLAIN "\n" SEQUENCE
			"C: RSET\n= ABORTED reset\nS: 250 2.0.0 Ok\n");
}

static void E10_other_mechanisms(void **state)
{
	(void)state;
	transcript(AUTH "C: AUTH EXTERNAL\nS: 504 5.5.4 ...\n= REJECTED syntax 504\n"
			"C: AUTH NTLM x\nS: 504 5.5.4 ...\n= REJECTED syntax 504\n"
			"C: AUTH CRAM-MD5\nS: 504 5.5.4 ...\n= REJECTED syntax 504\n"
			"C: AUTH PLAINX\nS: 504 5.5.4 ...\n= REJECTED syntax 504\n"
			"C: AUTH\nS: 501 5.5.4 ...\n= REJECTED syntax 501\n"
			"C: AUTH PLAIN " PLAIN " x\n" NO_BASE64);
}

static void E11_many_failures(void **state)
{
	(void)state;
	transcript("! limit auth_failures 2\n" AUTH "> auth bad\nC: AUTH PLAIN " PLAIN
		   "\n= AUTH PLAIN app secret\n" WRONG "> auth bad\nC: AUTH PLAIN " PLAIN
		   "\nC: NOOP\n= AUTH PLAIN app secret\n" WRONG
		   "S: 421 4.7.0 ...\n= REJECTED auth_blocked 421\n= CLOSE auth_blocked\n");
	transcript(AUTH "> auth shut_out\nC: AUTH PLAIN " PLAIN "\n= AUTH PLAIN app secret\n"
			"S: 421 4.7.0 ...\n= REJECTED auth_blocked 421\n= CLOSE auth_blocked\n");
}

/* Never an open relay. */
static void E12_without_auth(void **state)
{
	(void)state;
	transcript(AUTH "C: MAIL FROM:<a@example.com>\n" AUTH_REQUIRED "C: RCPT TO:<b@example.org>\n" AUTH_REQUIRED
			"C: DATA\n" AUTH_REQUIRED "C: VRFY x\nS: 252 2.5.0 ...\n");
	/* Nobody can log in here, and this address is not trusted. */
	transcript(GREETING
		   "C: MAIL FROM:<a@example.com>\nS: 554 5.7.1 Relaying denied...\n= REJECTED auth_required 554\n"
		   "C: AUTH PLAIN " PLAIN "\nS: 502 5.5.1 ...\n= REJECTED sequence 502\n");
}

/* E17: cannot be checked now; fails closed. E13: the client is gone while it is checked. */
static void E13_E17_later(void **state)
{
	(void)state;
	transcript(AUTH
		   "> auth temporary\nC: AUTH PLAIN " PLAIN "\n= AUTH PLAIN app secret\n"
		   "S: 454 4.7.0 ...\n= REJECTED auth_unavailable 454\nC: MAIL FROM:<a@example.com>\n" AUTH_REQUIRED);
	transcript(AUTH "> hold auth\nC: AUTH PLAIN " PLAIN "\nC: NOOP\n= AUTH PLAIN app secret\n"
			"> eof\n> answer\n" OK "S: 250 2.0.0 Ok\n= CLOSE gone\n");
	transcript(AUTH "> hold auth\nC: AUTH PLAIN " PLAIN "\n= AUTH PLAIN app secret\n> close\n= CLOSE shutdown\n");
}

static void E14_outlives_rset_and_ehlo(void **state)
{
	(void)state;
	transcript(AUTH "C: AUTH PLAIN " PLAIN "\n= AUTH PLAIN app secret\n" OK "C: RSET\nS: 250 2.0.0 Ok\n"
			"C: HELO again\n= HELO\nS: 250 relay.test\n" MAIL_OK);
}

static void E15_before_ehlo_or_tls(void **state)
{
	(void)state;
	transcript("! auth\n! tls_active\nS: 220 ...\nC: AUTH PLAIN " PLAIN "\n" SEQUENCE);
	transcript("! auth\n! starttls\n! tls_required\n" GREETING "C: AUTH PLAIN " PLAIN "\n"
		   "S: 538 5.7.11 ...\n= REJECTED tls_required 538\n");
	transcript("! auth\n! allow_plaintext_auth\n" GREETING "C: AUTH PLAIN " PLAIN
		   "\n= AUTH PLAIN app secret\n" OK MAIL_OK);
}

/* E18: of a secret that came in nothing stays in the machine's memory. */
static void E18_secrets_are_wiped(void **state)
{
	struct smtp_server_options options = {.hostname = "relay.test", .auth = true, .tls_active = true};
	struct smtp_server *s = smtp_server_new(&options, 0);
	struct smtp_server_event event;

	(void)state;
	smtp_server_input(s, SLICE("EHLO a\r\nAUTH PLAIN " PLAIN "\r\n"));
	while (smtp_server_next(s, &event) && event.type != SMTP_SERVER_AUTH)
		;
	assert_true(slice_eq(event.auth.password, SLICE("secret")));
	smtp_server_auth_done(s, SMTP_SERVER_AUTH_OK);
	while (smtp_server_next(s, &event))
		;
	smtp_server_output_sent(s, smtp_server_output(s).len);
	while (smtp_server_next(s, &event))
		;
	assert_true(smtp_server_memory_bytes(s) < 2048);
	smtp_server_free(&s);
}

/* D1, D2: with mandatory TLS nothing else goes. */
static void D2_before_tls(void **state)
{
	(void)state;
	transcript("! auth\n! starttls\n! tls_required\nS: 220 ...\nC: MAIL FROM:<a@example.com>\n" TLS_REQUIRED
		   "C: HELO app\n= HELO\nS: 250 relay.test\n"
		   "C: MAIL FROM:<a@example.com>\n" TLS_REQUIRED "C: RCPT TO:<b@example.org>\n" TLS_REQUIRED
		   "C: DATA\n" TLS_REQUIRED "C: VRFY x\n" TLS_REQUIRED
		   "C: NOOP\nS: 250 2.0.0 Ok\nC: QUIT\nS: 221 2.0.0 Bye\n"
		   "= CLOSE quit\n");
	/* Trusted clients need neither. */
	transcript("! auth\n! starttls\n! tls_required\n! trusted\n" GREETING MAIL_OK);
}

static void D3_plaintext_behind_starttls_is_dropped(void **state)
{
	struct smtp_server_options options = {.hostname = "relay.test", .auth = true, .starttls = true};
	struct smtp_server *s = smtp_server_new(&options, 0);
	struct smtp_server_event event;
	struct smtp_server_status status;

	(void)state;
	smtp_server_input(s, SLICE("EHLO a\r\nSTARTTLS\r\nNOOP\r\nMAIL FRO"));
	while (smtp_server_next(s, &event))
		assert_int_equal(event.type, SMTP_SERVER_HELO);
	assert_false(smtp_server_wants_input(s));
	/* What the host had read with it is taken, and dropped. */
	assert_int_equal(smtp_server_input(s, SLICE("M:<a@b>\r\n")), 9);
	smtp_server_output_sent(s, smtp_server_output(s).len);
	assert_true(smtp_server_next(s, &event));
	assert_int_equal(event.type, SMTP_SERVER_STARTTLS);
	assert_int_equal(smtp_server_input(s, SLICE("NOOP\r\n")), 6);
	assert_false(smtp_server_next(s, &event));
	smtp_server_tls_started(s);
	assert_false(smtp_server_next(s, &event));
	assert_int_equal(smtp_server_output(s).len, 0);
	smtp_server_status(s, &status);
	assert_true(status.tls);
	assert_string_equal(status.helo, "");
	smtp_server_input(s, SLICE("M:<a@b>\r\n"));
	assert_true(smtp_server_next(s, &event));
	assert_int_equal(event.code, 500);
	smtp_server_free(&s);
}

static void D4_D5_starttls(void **state)
{
	(void)state;
	transcript("! auth\n! starttls\n! allow_plaintext_auth\n" GREETING "C: AUTH PLAIN " PLAIN
		   "\n= AUTH PLAIN app secret\n" OK "C: STARTTLS x\nS: 501 5.5.4 ...\n= REJECTED syntax 501\n" MAIL_OK
		   "C: STARTTLS\n" SEQUENCE "C: RSET\n= ABORTED reset\nS: 250 2.0.0 Ok\n"
		   "C: STARTTLS\nS: 220 2.0.0 Ready to start TLS\n= STARTTLS\n"
		   "> tls\n"
		   "C: MAIL FROM:<a@example.com>\n" AUTH_REQUIRED "C: AUTH PLAIN " PLAIN "\n" SEQUENCE
		   "C: HELO again\n= HELO\nS: 250 relay.test\nC: STARTTLS\n" SEQUENCE
		   "C: MAIL FROM:<a@example.com>\n" AUTH_REQUIRED "C: AUTH PLAIN " PLAIN
		   "\n= AUTH PLAIN app secret\n" OK MAIL_OK);
	transcript("! auth\n" GREETING "C: STARTTLS\nS: 502 5.5.1 ...\n= REJECTED sequence 502\n");
	/* The handshake never comes, or the client goes. */
	transcript("! starttls\n" GREETING
		   "C: STARTTLS\nS: 220 2.0.0 ...\n= STARTTLS\n> wait 60000\n= CLOSE timeout\n");
	transcript("! starttls\n" GREETING "C: STARTTLS\nS: 220 2.0.0 ...\n= STARTTLS\n> eof\n= CLOSE gone\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(E1_plain_and_login),
	    cmocka_unit_test(E2_cancelled),
	    cmocka_unit_test(E3_bad_base64),
	    cmocka_unit_test(E4_too_long),
	    cmocka_unit_test(E5_malformed_credentials),
	    cmocka_unit_test(E6_somebody_else),
	    cmocka_unit_test(E7_E8_wrong),
	    cmocka_unit_test(E9_twice_and_in_a_transaction),
	    cmocka_unit_test(E10_other_mechanisms),
	    cmocka_unit_test(E11_many_failures),
	    cmocka_unit_test(E12_without_auth),
	    cmocka_unit_test(E13_E17_later),
	    cmocka_unit_test(E14_outlives_rset_and_ehlo),
	    cmocka_unit_test(E15_before_ehlo_or_tls),
	    cmocka_unit_test(E18_secrets_are_wiped),
	    cmocka_unit_test(D2_before_tls),
	    cmocka_unit_test(D3_plaintext_behind_starttls_is_dropped),
	    cmocka_unit_test(D4_D5_starttls),
	};
	return cmocka_run_group_tests_name("smtp server: auth and tls", tests, NULL, NULL);
}
