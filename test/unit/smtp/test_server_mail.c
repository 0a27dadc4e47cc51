/* PROMISE table B: order, paths, parameters. */
#include "support_transcript.h"

#define MAIL_OK "C: MAIL FROM:<a@example.com>\n= MAIL a@example.com\nS: 250 2.1.0 Ok\n"
#define RCPT_OK "C: RCPT TO:<b@example.org>\n= RCPT b@example.org\nS: 250 2.1.5 Ok\n"
#define NO_EHLO "S: 503 5.5.1 Say EHLO first\n= REJECTED sequence 503\n"
#define NO_MAIL "S: 503 5.5.1 Say MAIL first\n= REJECTED sequence 503\n"
#define NESTED "S: 503 5.5.1 Not within...\n= REJECTED sequence 503\n"
#define BAD_FROM "S: 501 5.1.7 Bad sender address: ...\n= REJECTED address 501\n"
#define BAD_TO "S: 501 5.1.3 Bad recipient address: ...\n= REJECTED address 501\n"
#define BAD_PARAM "S: 501 5.5.4 ...\n= REJECTED syntax 501\n"
#define NO_PARAM "S: 555 5.5.4 ...\n= REJECTED syntax 555\n"
#define TOO_BIG "S: 552 5.3.4 ...\n= REJECTED too_big 552\n"
#define MAIL_AGAIN "C: RSET\n= ABORTED reset\nS: 250 2.0.0 Ok\n"

static void B1_mail_before_ehlo(void **state)
{
	(void)state;
	transcript("! trusted\nS: 220 ...\n"
		   "C: MAIL FROM:<a@example.com>\n" NO_EHLO "C: RCPT TO:<b@example.org>\n" NO_EHLO
		   "C: AUTH PLAIN\n" NO_EHLO "C: STARTTLS\n" NO_EHLO
		   "C: RSET\nS: 250 2.0.0 Ok\nC: NOOP\nS: 250 2.0.0 Ok\nC: DATA\n" NO_EHLO);
}

static void B2_out_of_order(void **state)
{
	(void)state;
	transcript_trusted("C: RCPT TO:<b@example.org>\n" NO_MAIL
			   "C: DATA\nS: 503 5.5.1 Say MAIL and RCPT first\n= REJECTED sequence 503\n" MAIL_OK
			   "C: DATA\nS: 554 5.5.1 No valid recipients\n= REJECTED sequence 554\n");
}

static void B3_B5_what_a_transaction_outlives(void **state)
{
	(void)state;
	transcript_trusted(MAIL_OK "C: MAIL FROM:<c@example.com>\n" NESTED RCPT_OK
				   "C: MAIL FROM:<c@example.com>\n" NESTED "C: NOOP\nS: 250 2.0.0 Ok\n"
				   "C: VRFY x\nS: 252 2.5.0 ...\nC: HELP\nS: 214-2.0.0 ...\nS: 214 2.0.0 ...\n"
				   "C: RCPT TO:<>\n" BAD_TO "C: AUTH PLAIN\n" NESTED "C: STARTTLS\n" NESTED
				   "C: FOO\nS: 500 5.5.2 ...\n= REJECTED unknown_command 500\n"
				   "C: DATA\n= DATA\nS: 354 ...\n");
}

static void B4_rset_and_ehlo_clear(void **state)
{
	(void)state;
	transcript_trusted(MAIL_OK RCPT_OK MAIL_AGAIN
			   "C: DATA\nS: 503 5.5.1 Say MAIL and RCPT first\n= REJECTED sequence 503\n" MAIL_OK
			   "C: HELO other\n= ABORTED reset\n= HELO\nS: 250 relay.test\n"
			   "C: RCPT TO:<b@example.org>\n" NO_MAIL);
}

static void B8_null_sender(void **state)
{
	(void)state;
	transcript_trusted("C: MAIL FROM:<>\n= MAIL <>\nS: 250 2.1.0 Ok\n" RCPT_OK);
}

static void B9_empty_paths(void **state)
{
	(void)state;
	transcript_trusted(MAIL_OK "C: RCPT TO:<>\n" BAD_TO "C: RCPT TO:<@>\n" BAD_TO "C: RCPT TO:<a@>\n" BAD_TO
				   "C: RCPT TO:<@b>\n" BAD_TO "C: RCPT TO:<\"\"@b>\n= RCPT \"\"@b\nS: 250 2.1.5 Ok\n");
}

static void B10_quoted_local_parts_keep_their_quotes(void **state)
{
	(void)state;
	transcript_trusted(
	    "C: MAIL FROM:<\"a\\\\\"b@x\"@example.com>\n= MAIL \"a\\\"b@x\"@example.com\nS: 250 2.1.0 Ok\n"
	    "C: RCPT TO:<\"x>y\"@example.org>\n= RCPT \"x>y\"@example.org\nS: 250 2.1.5 Ok\n"
	    "C: RCPT TO:<\"a b\"@example.org>\n= RCPT \"a b\"@example.org\nS: 250 2.1.5 Ok\n"
	    "C: RCPT TO:<\"a\\\\\\\\\"@example.org>\n= RCPT \"a\\\\\"@example.org\nS: 250 2.1.5 Ok\n"
	    "C: RCPT TO:<\"a\\\\\"@example.org>\n" BAD_TO "C: RCPT TO:<\"a@example.org>\n" BAD_TO
	    "C: RCPT TO:<a\"b\"@example.org>\n" BAD_TO);
}

static void B11_source_routes_are_not_passed_on(void **state)
{
	(void)state;
	transcript_trusted(
	    "C: MAIL FROM:<@one.example,@two.example:a@example.com>\n= MAIL a@example.com\nS: 250 2.1.0 Ok\n"
	    "C: RCPT TO:<@one.example:b@example.org>\n= RCPT b@example.org\nS: 250 2.1.5 Ok\n"
	    "C: RCPT TO:<@one.example:>\n" BAD_TO "C: RCPT TO:<@:b@example.org>\n" BAD_TO
	    "C: RCPT TO:<@one,two:b@example.org>\n" BAD_TO);
}

static void B12_local_parts_are_opaque(void **state)
{
	(void)state;
	transcript_trusted(MAIL_OK "C: RCPT TO:<a%b@example.org>\n= RCPT a%b@example.org\nS: 250 2.1.5 Ok\n"
				   "C: RCPT TO:<a!b@example.org>\n= RCPT a!b@example.org\nS: 250 2.1.5 Ok\n"
				   "C: RCPT TO:<CaSe+tag@Example.ORG>\n= RCPT CaSe+tag@Example.ORG\nS: 250 2.1.5 Ok\n");
}

static void B13_address_literals(void **state)
{
	(void)state;
	transcript_trusted(MAIL_OK "C: RCPT TO:<a@[192.0.2.1]>\n= RCPT a@[192.0.2.1]\nS: 250 2.1.5 Ok\n"
				   "C: RCPT TO:<a@[IPv6:2001:db8::1]>\n= RCPT a@[IPv6:2001:db8::1]\nS: 250 2.1.5 Ok\n"
				   "C: RCPT TO:<a@[192.0.2.256]>\n" BAD_TO "C: RCPT TO:<a@[192.0.2.1>\n" BAD_TO
				   "C: RCPT TO:<a@[]>\n" BAD_TO "C: RCPT TO:<a@[x:y]>\n" BAD_TO
				   "C: RCPT TO:<a@[IPv6:2001::db8::1]>\n" BAD_TO
				   "C: RCPT TO:<a@[2001:db8::1]>\n" BAD_TO);
}

static void B14_B15_lengths(void **state)
{
	(void)state;
	transcript_trusted(MAIL_OK
			   "C: RCPT TO:<\\R64:x@example.org>\n"
			   "= RCPT xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx@example.org\n"
			   "S: 250 2.1.5 Ok\n"
			   "C: RCPT TO:<\\R242:x@example.org>\n= RCPT xxxxxxxxxx...\nS: 250 2.1.5 Ok\n"
			   "C: RCPT TO:<\\R243:x@example.org>\n" BAD_TO "C: RCPT TO:<\\R300:x@example.org>\n" BAD_TO
			   "C: RCPT TO:<\\R10000:x@example.org>\n"
			   "S: 500 5.5.2 Line too long...\n= REJECTED line_too_long 500\n"
			   "C: RCPT TO:<a@\\R63:x.org>\n= RCPT a@xxxxxxxxxx...\nS: 250 2.1.5 Ok\n"
			   "C: RCPT TO:<a@\\R64:x.org>\n" BAD_TO
			   "C: RCPT TO:<a@\\R60:x.\\R60:x.\\R60:x.\\R60:x.\\R10:x>\n" BAD_TO
			   "C: RCPT TO:<a@example..org>\n" BAD_TO "C: RCPT TO:<a@.example.org>\n" BAD_TO
			   "C: RCPT TO:<a@example.org.>\n" BAD_TO);
}

static void B16_broken_paths(void **state)
{
	(void)state;
	transcript_trusted("C: MAIL FROM:a@example.com\n" BAD_FROM "C: MAIL FROM:<a@example.com\n" BAD_FROM
			   "C: MAIL FROM:a@example.com>\n" BAD_FROM "C: MAIL FROM:<a@example.com>x\n" BAD_PARAM
			   "C: MAIL FROM:<a@b@example.com>\n" BAD_FROM "C: MAIL FROM:<a b@example.com>\n" BAD_FROM
			   "C: MAIL FROM:<a,b@example.com>\n" BAD_FROM "C: MAIL FROM:<.a@example.com>\n" BAD_FROM
			   "C: MAIL FROM:<a.@example.com>\n" BAD_FROM "C: MAIL FROM:<a..b@example.com>\n" BAD_FROM
			   "C: MAIL FROM:<a@ex ample.com>\n" BAD_FROM "C: MAIL FROM:<<a@example.com>>\n" BAD_FROM
			   "C: MAIL FROM:<a@-x.com>\n" BAD_FROM "C: MAIL FROM:<a@x-.com>\n" BAD_FROM
			   "C: MAIL\n" BAD_PARAM "C: MAIL FROM\n" BAD_PARAM "C: MAIL TO:<a@example.com>\n" BAD_PARAM
			   "C: MAIL FROM:\n" BAD_FROM "C: RCPT FROM:<a@example.com>\n" NO_MAIL);
	/* A blank behind the colon is what many send. */
	transcript_trusted("C: MAIL FROM: <a@example.com>\n= MAIL a@example.com\nS: 250 2.1.0 Ok\n"
			   "C: RCPT TO:  <b@example.org>\n= RCPT b@example.org\nS: 250 2.1.5 Ok\n"
			   "C: RCPT TO <b@example.org>\n" BAD_PARAM);
}

static void B16_bare_names(void **state)
{
	(void)state;
	transcript_trusted("C: MAIL FROM:<root>\n" BAD_FROM MAIL_OK "C: RCPT TO:<root>\n" BAD_TO
			   "C: RCPT TO:<Postmaster>\n= RCPT Postmaster\nS: 250 2.1.5 Ok\n");
	transcript_trusted("! bare_names\nC: MAIL FROM:<root>\n= MAIL root\nS: 250 2.1.0 Ok\n"
			   "C: RCPT TO:<root>\n= RCPT root\nS: 250 2.1.5 Ok\n");
}

/* B17, A25: nothing is expanded, everything is an address or refused. */
static void B17_metacharacters(void **state)
{
	(void)state;
	transcript_trusted("C: MAIL FROM:<;touch${IFS}x;@example.com>\n" BAD_FROM
			   "C: MAIL FROM:<$(id)@example.com>\n" BAD_FROM
			   "C: MAIL FROM:<`id`@example.com>\n= MAIL `id`@example.com\nS: 250 2.1.0 Ok\n"
			   "C: RCPT TO:<${run{id}}@example.org>\n= RCPT ${run{id}}@example.org\nS: 250 2.1.5 Ok\n"
			   "C: RCPT TO:<|/bin/sh@example.org>\n= RCPT |/bin/sh@example.org\nS: 250 2.1.5 Ok\n"
			   "C: RCPT TO:</etc/passwd@example.org>\n= RCPT /etc/passwd@example.org\nS: 250 2.1.5 Ok\n");
}

static void B18_injected_line_ends(void **state)
{
	(void)state;
	transcript_trusted("C: MAIL FROM:<a@example.com\\rRCPT TO:<x@example.org>\n"
			   "S: 500 5.5.2 ...\n= REJECTED bad_octets 500\n"
			   "C: MAIL FROM:<a%0d%0aRCPT@example.com>\n= MAIL a%0d%0aRCPT@example.com\nS: 250 2.1.0 Ok\n");
}

static void A18_B19_utf8_in_paths(void **state)
{
	(void)state;
	transcript_trusted(
	    "C: MAIL FROM:<m\\xc3\\xbcller@example.com>\nS: 550 5.6.7 ...\n= REJECTED address 550\n" MAIL_OK
	    "C: RCPT TO:<m\\xc3\\xbcller@example.org>\nS: 553 5.6.7 ...\n= REJECTED address 553\n"
	    "C: RCPT TO:<b@m\\xc3\\xbcller.example>\nS: 553 5.6.7 ...\n= REJECTED address 553\n"
	    "C: RCPT TO:<b\\xff@example.org>\n" BAD_TO);
	transcript_trusted("C: MAIL FROM:<m\\xc3\\xbcller@example.com> SMTPUTF8\n"
			   "= MAIL m\\xc3\\xbcller@example.com smtputf8\nS: 250 2.1.0 Ok\n"
			   "C: RCPT TO:<\"\\xe4\\xbd\\xa0 \\xe5\\xa5\\xbd\"@\\xe4\\xbe\\x8b.example>\n"
			   "= RCPT \"\\xe4\\xbd\\xa0 \\xe5\\xa5\\xbd\"@\\xe4\\xbe\\x8b.example\nS: 250 2.1.5 Ok\n"
			   /* broken, overlong, a surrogate, beyond the end, a line end of Unicode */
			   "C: RCPT TO:<b\\xc3@example.org>\n" BAD_TO "C: RCPT TO:<b\\xc0\\xaf@example.org>\n" BAD_TO
			   "C: RCPT TO:<b\\xed\\xa0\\x80@example.org>\n" BAD_TO
			   "C: RCPT TO:<b\\xf5\\x80\\x80\\x80@example.org>\n" BAD_TO
			   "C: RCPT TO:<b\\xe2\\x80\\xa8@example.org>\n" BAD_TO
			   "C: RCPT TO:<b\\xc2\\x85@example.org>\n" BAD_TO);
	transcript("! trusted\n! no_smtputf8\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n"
		   "C: MAIL FROM:<a@example.com> SMTPUTF8\n" NO_PARAM
		   "C: MAIL FROM:<m\\xc3\\xbcller@example.com>\nS: 550 5.6.7 ...\n= REJECTED address 550\n");
	/* What was said with one message does not hold for the next. */
	transcript_trusted(
	    "C: MAIL FROM:<a@example.com> SMTPUTF8\n= MAIL a@example.com smtputf8\nS: 250 2.1.0 Ok\n" MAIL_AGAIN MAIL_OK
	    "C: RCPT TO:<m\\xc3\\xbcller@example.org>\nS: 553 5.6.7 ...\n= REJECTED address 553\n");
}

static void B21_B22_size(void **state)
{
	(void)state;
	transcript("! trusted\n! limit message_bytes 1000\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n"
		   "C: MAIL FROM:<a@example.com> SIZE=1001\n" TOO_BIG "C: MAIL FROM:<a@example.com> SIZE=2000\n" TOO_BIG
		   "C: MAIL FROM:<a@example.com> SIZE=18446744073709551616\n" TOO_BIG
		   "C: MAIL FROM:<a@example.com> SIZE=18446744073709551615\n" TOO_BIG
		   "C: MAIL FROM:<a@example.com> SIZE=4294967297\n" TOO_BIG
		   "C: MAIL FROM:<a@example.com> SIZE=99999999999999999999999999\n" TOO_BIG
		   "C: MAIL FROM:<a@example.com> SIZE=-1\n" BAD_PARAM
		   "C: MAIL FROM:<a@example.com> SIZE=abc\n" BAD_PARAM "C: MAIL FROM:<a@example.com> SIZE=\n" BAD_PARAM
		   "C: MAIL FROM:<a@example.com> SIZE\n" BAD_PARAM
		   "C: MAIL FROM:<a@example.com> SIZE=1000\n= MAIL a@example.com size=1000\nS: 250 2.1.0 Ok\n");
}

static void B23_B24_B25_parameters(void **state)
{
	(void)state;
	transcript_trusted(
	    "C: MAIL FROM:<a@example.com> BODY=BOGUS\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> BODY=BINARYMIME\n" BAD_PARAM "C: MAIL FROM:<a@example.com> BODY\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> FOO=bar\n" NO_PARAM "C: MAIL FROM:<a@example.com> FOO\n" NO_PARAM
	    "C: MAIL FROM:<a@example.com> SIZE=1 SIZE=1\n" BAD_PARAM "C: MAIL FROM:<a@example.com> ===\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> -x=1\n" BAD_PARAM "C: MAIL FROM:<a@example.com> SIZE==1\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> SIZE=1=2\n" BAD_PARAM "C: MAIL FROM:<a@example.com>SIZE=1\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> SMTPUTF8=1\n" BAD_PARAM "C: MAIL FROM:<a@example.com> \\R300:=\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> NOTIFY=NEVER\n" NO_PARAM
	    "C: MAIL FROM:<a@example.com>  BODY=7BIT   SIZE=5  \n= MAIL a@example.com size=5\n"
	    "S: 250 2.1.0 Ok\n"
	    "C: RCPT TO:<b@example.org> FOO=bar\n" NO_PARAM "C: RCPT TO:<b@example.org> RET=FULL\n" NO_PARAM);
}

static void B26_dsn(void **state)
{
	(void)state;
	transcript_trusted(
	    "C: MAIL FROM:<a@example.com> RET=SOME\n" BAD_PARAM "C: MAIL FROM:<a@example.com> RET\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> ENVID=\n" BAD_PARAM "C: MAIL FROM:<a@example.com> ENVID=a+0Ab\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> ENVID=a+zz\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> ENVID=\\R101:e\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> RET=FULL RET=HDRS\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> ret=hdrs ENVID=QQ+2B314159\n"
	    "= MAIL a@example.com ret=hdrs envid=QQ+2B314159\nS: 250 2.1.0 Ok\n"
	    "C: RCPT TO:<b@example.org> NOTIFY=NEVER\n= RCPT b@example.org notify=1\nS: 250 2.1.5 Ok\n"
	    "C: RCPT TO:<c@example.org> NOTIFY=success,DELAY ORCPT=rfc822;c+2Bd@example.org\n"
	    "= RCPT c@example.org notify=10 orcpt=rfc822;c+2Bd@example.org\nS: 250 2.1.5 Ok\n"
	    "C: RCPT TO:<b@example.org> NOTIFY=NEVER,FAILURE\n" BAD_PARAM
	    "C: RCPT TO:<b@example.org> NOTIFY=FAILURE,FAILURE\n" BAD_PARAM
	    "C: RCPT TO:<b@example.org> NOTIFY=\n" BAD_PARAM "C: RCPT TO:<b@example.org> NOTIFY=SUCCESS,\n" BAD_PARAM
	    "C: RCPT TO:<b@example.org> NOTIFY=NEVER NOTIFY=NEVER\n" BAD_PARAM
	    "C: RCPT TO:<b@example.org> ORCPT=rfc822\n" BAD_PARAM
	    "C: RCPT TO:<b@example.org> ORCPT=rfc822;a+0D+0AX:y\n" BAD_PARAM
	    "C: RCPT TO:<b@example.org> ORCPT=;a\n" BAD_PARAM
	    "C: RCPT TO:<b@example.org> ORCPT=rfc822;\\R494:x\n" BAD_PARAM);
	transcript("! trusted\n! no_dsn\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n"
		   "C: MAIL FROM:<a@example.com> RET=FULL\n" NO_PARAM
		   "C: MAIL FROM:<a@example.com> ENVID=x\n" NO_PARAM MAIL_OK
		   "C: RCPT TO:<b@example.org> NOTIFY=NEVER\n" NO_PARAM);
}

/* RFC 6533 */
static void B26_dsn_with_utf8(void **state)
{
	(void)state;
	transcript_trusted("C: MAIL FROM:<a@example.com> SMTPUTF8\n= MAIL a@example.com smtputf8\nS: 250 2.1.0 Ok\n"
			   "C: RCPT TO:<b@example.org> ORCPT=utf-8;m\\xc3\\xbcller@example.org\n"
			   "= RCPT b@example.org orcpt=utf-8;m\\xc3\\xbcller@example.org\nS: 250 2.1.5 Ok\n"
			   "C: RCPT TO:<b@example.org> ORCPT=utf-8;m\\\\x{FC}ller@example.org\n"
			   "= RCPT b@example.org orcpt=utf-8;m\\x{FC}ller@example.org\nS: 250 2.1.5 Ok\n"
			   "C: RCPT TO:<b@example.org> ORCPT=utf-8;m\\\\x{}ller@example.org\n" BAD_PARAM
			   "C: RCPT TO:<b@example.org> ORCPT=rfc822;m\\xc3\\xbcller@example.org\n" BAD_PARAM);
	transcript_trusted(MAIL_OK "C: RCPT TO:<b@example.org> ORCPT=utf-8;m\\xc3\\xbcller@example.org\n" BAD_PARAM);
}

static void B27_auth_on_mail(void **state)
{
	(void)state;
	transcript(
	    "! trusted\n! auth\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n"
	    "C: MAIL FROM:<a@example.com> AUTH=<>\n= MAIL a@example.com auth=<>\nS: 250 2.1.0 Ok\n" MAIL_AGAIN
	    "C: MAIL FROM:<a@example.com> AUTH=e+3Dmc2@example.com\n= MAIL a@example.com auth=e+3Dmc2@example.com\n"
	    "S: 250 2.1.0 Ok\n" MAIL_AGAIN "C: MAIL FROM:<a@example.com> AUTH=+x\n" BAD_PARAM
	    "C: MAIL FROM:<a@example.com> AUTH\n" BAD_PARAM);
	transcript_trusted("C: MAIL FROM:<a@example.com> AUTH=<>\n" NO_PARAM);
}

/* RFC 8689 §4.2: only where it is offered, which is under TLS. */
static void requiretls(void **state)
{
	(void)state;
	transcript("! trusted\n! tls_active\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n"
		   "C: MAIL FROM:<a@example.com> REQUIRETLS=1\n" BAD_PARAM
		   "C: MAIL FROM:<a@example.com> REQUIRETLS\n= MAIL a@example.com requiretls\nS: 250 2.1.0 Ok\n");
	transcript_trusted("C: MAIL FROM:<a@example.com> REQUIRETLS\n" NO_PARAM);
}

/* C11: a client that does not wait for 354 sends its message as commands; none of it may run. */
static void C11_content_behind_a_refused_data_never_runs(void **state)
{
	(void)state;
	transcript_trusted(MAIL_OK "C: DATA\nS: 554 5.5.1 ...\n= REJECTED sequence 554\n"
				   "C: Subject: x\nS: 500 5.5.2 ...\n= REJECTED unknown_command 500\n"
				   "= ABORTED sequence\n= CLOSE sequence\n"
				   "C: MAIL FROM:<evil@example.com>\n");
	transcript_trusted(MAIL_OK
			   "C: DATA\nS: 554 5.5.1 ...\n= REJECTED sequence 554\n"
			   "C: RSET\n= ABORTED reset\nS: 250 2.0.0 Ok\n"
			   "C: FOO\nS: 500 5.5.2 ...\n= REJECTED unknown_command 500\nC: NOOP\nS: 250 2.0.0 Ok\n");
}

static void C11_in_the_same_segment_it_ends_the_session(void **state)
{
	struct smtp_server_options options = {.hostname = "relay.test", .trusted = true};
	struct smtp_server *s = smtp_server_new(&options, 0);
	struct smtp_server_event event;
	bool closed = false;

	(void)state;
	smtp_server_input(s, SLICE("HELO a\r\nDATA\r\nMAIL FROM:<evil@example.com>\r\n.\r\n"));
	do {
		while (smtp_server_next(s, &event)) {
			assert_true(event.type != SMTP_SERVER_MAIL);
			closed |= event.type == SMTP_SERVER_CLOSE;
		}
		smtp_server_output_sent(s, smtp_server_output(s).len);
	} while (!closed);
	smtp_server_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(B1_mail_before_ehlo),
	    cmocka_unit_test(B2_out_of_order),
	    cmocka_unit_test(B3_B5_what_a_transaction_outlives),
	    cmocka_unit_test(B4_rset_and_ehlo_clear),
	    cmocka_unit_test(B8_null_sender),
	    cmocka_unit_test(B9_empty_paths),
	    cmocka_unit_test(B10_quoted_local_parts_keep_their_quotes),
	    cmocka_unit_test(B11_source_routes_are_not_passed_on),
	    cmocka_unit_test(B12_local_parts_are_opaque),
	    cmocka_unit_test(B13_address_literals),
	    cmocka_unit_test(B14_B15_lengths),
	    cmocka_unit_test(B16_broken_paths),
	    cmocka_unit_test(B16_bare_names),
	    cmocka_unit_test(B17_metacharacters),
	    cmocka_unit_test(B18_injected_line_ends),
	    cmocka_unit_test(A18_B19_utf8_in_paths),
	    cmocka_unit_test(B21_B22_size),
	    cmocka_unit_test(B23_B24_B25_parameters),
	    cmocka_unit_test(B26_dsn),
	    cmocka_unit_test(B26_dsn_with_utf8),
	    cmocka_unit_test(B27_auth_on_mail),
	    cmocka_unit_test(requiretls),
	    cmocka_unit_test(C11_content_behind_a_refused_data_never_runs),
	    cmocka_unit_test(C11_in_the_same_segment_it_ends_the_session),
	};
	return cmocka_run_group_tests_name("smtp server: mail", tests, NULL, NULL);
}
