/* Transcripts of good and ordinary bad days: sessions, transactions, what is sent and what is told. */
#include "support_words.h"

static const struct smtp_transaction transactions[] = {
    {.sender = SLICE_INIT("s@y.example"), .recipients = one, .recipient_count = 1, .content_bytes = CONTENT},
    {.sender = SLICE_INIT("s@y.example"), .recipients = three, .recipient_count = 3, .content_bytes = CONTENT},
    {.recipients = one, .recipient_count = 1, .content_bytes = CONTENT},
};

static const struct peer_setup plain = {.options = {.helo_name = "relay.example"}, .transactions = transactions};
static const struct peer_setup opportunistic = {
    .options = {.helo_name = "relay.example", .tls = SMTP_CLIENT_TLS_OPPORTUNISTIC},
    .transactions = transactions,
};
static const struct peer_setup required = {
    .options = {.helo_name = "relay.example", .tls = SMTP_CLIENT_TLS_REQUIRED},
    .transactions = transactions,
};

#define PIPELINING HELLO "S: 250-mx.example\nS: 250-PIPELINING\nS: 250 SIZE 1000\n= ready\n"

/* ---- Transactions ----------------------------------------------------------------------------------------------- */

static void test_without_pipelining_nothing_is_sent_ahead(void **state)
{
	(void)state;
	peer_play(&plain, MINIMAL "> send 1\n"
				  "C: MAIL FROM:<s@y.example>\nS: 250 ok\n"
				  "C: RCPT TO:<a@x.example>\nS: 250 ok\n"
				  "C: RCPT TO:<b@x.example>\nS: 251 will forward\n"
				  "C: RCPT TO:<c@x.example>\nS: 250 ok\n"
				  "C: DATA\nS: 354 go\n= need_body\n" BODY "C: .\nS: 250 2.0.0 queued as 1\n"
				  "= result 0 replied dot 250 2.0.0 queued as 1\n"
				  "= result 1 replied dot 250 2.0.0 queued as 1\n"
				  "= result 2 replied dot 250 2.0.0 queued as 1\n"
				  "= done reusable\n"
				  "> quit\nC: QUIT\nS: 221 bye\n= closed replied none 221 bye\n");
}

static void test_with_pipelining_mail_rcpt_and_data_go_together(void **state)
{
	(void)state;
	peer_play(&plain, PIPELINING "> send 1\n"
				     "C: MAIL FROM:<s@y.example> SIZE=21\n"
				     "C: RCPT TO:<a@x.example>\nC: RCPT TO:<b@x.example>\nC: RCPT TO:<c@x.example>\n"
				     "C: DATA\n"
				     "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 unknown\nS: 250 ok\nS: 354 go\n"
				     "= result 1 replied rcpt 550 5.1.1 unknown\n"
				     "= need_body\n" BODY "C: .\n"
				     "S: 250 ok\n"
				     "= result 0 replied dot 250 ok\n= result 2 replied dot 250 ok\n= done reusable\n");
}

static void test_a_small_message_goes_out_in_one_flight_with_bdat(void **state)
{
	(void)state;
	peer_play(&plain, CHUNKING "> send 1\n= need_body\n"
				   "C: MAIL FROM:<s@y.example>\n"
				   "C: RCPT TO:<a@x.example>\nC: RCPT TO:<b@x.example>\nC: RCPT TO:<c@x.example>\n"
				   "C: BDAT 21 LAST\n" BODY
				   "S: 250 ok\nS: 250 ok\nS: 450 4.2.0 later\nS: 250 ok\nS: 250 taken\n"
				   "= result 1 replied rcpt 450 4.2.0 later\n"
				   "= result 0 replied dot 250 taken\n= result 2 replied dot 250 taken\n"
				   "= done reusable\n");
}

static void test_chunking_without_pipelining_waits_for_each_reply(void **state)
{
	(void)state;
	peer_play(&plain, HELLO "S: 250-mx.example\nS: 250 CHUNKING\n= ready\n> send 0\n"
				"C: MAIL FROM:<s@y.example>\nS: 250 ok\nC: RCPT TO:<a@x.example>\nS: 250 ok\n"
				"= need_body\nC: BDAT 21 LAST\n" BODY "S: 250 ok\n"
				"= result 0 replied dot 250 ok\n= done reusable\n");
}

static void test_chunking_and_pipelining_can_be_switched_off(void **state)
{
	struct peer_setup setup = plain;

	(void)state;
	setup.options.no_chunking = setup.options.no_pipelining = true;
	peer_play(&setup,
		  CHUNKING "> send 0\nC: MAIL FROM:<s@y.example>\nS: 250 ok\n"
			   "C: RCPT TO:<a@x.example>\nS: 250 ok\nC: DATA\nS: 354 go\n= need_body\n" BODY "C: .\n"
			   "S: 250 ok\n= result 0 replied dot 250 ok\n= done reusable\n");
}

static void test_all_recipients_refused_and_bdat_already_sent(void **state)
{
	(void)state;
	peer_play(&plain, CHUNKING "> send 0\n= need_body\n"
				   "C: MAIL FROM:<s@y.example>\nC: RCPT TO:<a@x.example>\nC: BDAT 21 LAST\n" BODY
				   "S: 250 ok\nS: 550 no\nS: 554 no valid recipients\n"
				   "= result 0 replied rcpt 550 no\n= done reusable\n"
				   "> send 0\n= need_body\nC: RSET\n"
				   "C: MAIL FROM:<s@y.example>\nC: RCPT TO:<a@x.example>\nC: BDAT 21 LAST\n" BODY
				   "S: 250 reset\nS: 250 ok\nS: 250 ok\nS: 250 taken\n"
				   "= result 0 replied dot 250 taken\n= done reusable\n");
}

/* G20, G25 */
static void test_all_recipients_refused_and_data_already_sent(void **state)
{
	(void)state;
	/* The server refuses DATA, as it should. */
	peer_play(
	    &plain, PIPELINING
	    "> send 0\nC: MAIL FROM:<s@y.example> SIZE=21\nC: RCPT TO:<a@x.example>\nC: DATA\n"
	    "S: 250 ok\nS: 550 no\nS: 503 no valid recipients\n= result 0 replied rcpt 550 no\n= done reusable\n");
	/* It does not: nothing but the dot is sent, and its reply means nothing. */
	peer_play(&plain, PIPELINING "> send 0\nC: MAIL FROM:<s@y.example> SIZE=21\nC: RCPT TO:<a@x.example>\nC: DATA\n"
				     "S: 250 ok\nS: 550 no\nS: 354 go\n= result 0 replied rcpt 550 no\nC: .\n"
				     "S: 250 thank you\n= done reusable\n");
}

/* G20 */
static void test_all_recipients_refused_without_pipelining_sends_no_data(void **state)
{
	(void)state;
	peer_play(&plain, MINIMAL "> send 1\nC: MAIL FROM:<s@y.example>\nS: 250 ok\n"
				  "C: RCPT TO:<a@x.example>\nS: 550 5.1.1 a\n= result 0 replied rcpt 550 5.1.1 a\n"
				  "C: RCPT TO:<b@x.example>\nS: 450 b\n= result 1 replied rcpt 450 b\n"
				  "C: RCPT TO:<c@x.example>\nS: 551 c\n= result 2 replied rcpt 551 c\n= done reusable\n"
				  "> send 0\nC: RSET\nS: 250 ok\nC: MAIL FROM:<s@y.example>\nS: 250 ok\n"
				  "C: RCPT TO:<a@x.example>\nS: 250 ok\nC: DATA\nS: 354 go\n= need_body\n" BODY "C: .\n"
				  "S: 250 ok\n= result 0 replied dot 250 ok\n= done reusable\n"
				  "> send 2\nC: MAIL FROM:<>\n");
}

static void test_a_refused_mail_is_the_result_of_all(void **state)
{
	(void)state;
	peer_play(&plain,
		  MINIMAL "> send 1\nC: MAIL FROM:<s@y.example>\nS: 550 5.7.1 not you\n"
			  "= result 0 replied mail 550 5.7.1 not you\n= result 1 replied mail 550 5.7.1 not you\n"
			  "= result 2 replied mail 550 5.7.1 not you\n= done reusable\n"
			  "> send 2\nC: MAIL FROM:<>\n");
	/* Pipelined: the other replies are counted and thrown away. */
	peer_play(&plain, PIPELINING "> send 0\nC: MAIL FROM:<s@y.example> SIZE=21\nC: RCPT TO:<a@x.example>\nC: DATA\n"
				     "S: 451 4.3.0 later\nS: 503 no MAIL\nS: 503 no MAIL\n"
				     "= result 0 replied mail 451 4.3.0 later\n= done reusable\n"
				     "> send 2\nC: MAIL FROM:<> SIZE=21\nC: RCPT TO:<a@x.example>\nC: DATA\n");
	/* The server contradicts itself; nobody is told a second time, and nothing is sent. */
	peer_play(&plain, PIPELINING "> send 0\nC: MAIL FROM:<s@y.example> SIZE=21\nC: RCPT TO:<a@x.example>\nC: DATA\n"
				     "S: 550 no\nS: 250 ok\nS: 354 go\n= result 0 replied mail 550 no\nC: .\n"
				     "S: 250 ok\n= done reusable\n");
}

/* G30 */
static void test_a_refused_data_or_dot_is_the_result_of_the_accepted(void **state)
{
	(void)state;
	peer_play(&plain,
		  MINIMAL "> send 0\nC: MAIL FROM:<s@y.example>\nS: 250 ok\nC: RCPT TO:<a@x.example>\nS: 250 ok\n"
			  "C: DATA\nS: 451 no\n= result 0 replied data 451 no\n= done reusable\n"
			  "> send 0\nC: RSET\nS: 250 ok\nC: MAIL FROM:<s@y.example>\nS: 250 ok\n"
			  "C: RCPT TO:<a@x.example>\nS: 250 ok\nC: DATA\nS: 354 go\n= need_body\n" BODY "C: .\n"
			  "S: 554 5.7.1 spam\n= result 0 replied dot 554 5.7.1 spam\n= done reusable\n"
			  "> send 0\nC: RSET\n");
}

/* G22 */
static void test_too_many_recipients_is_told_apart(void **state)
{
	(void)state;
#define THREE                                                                                                          \
	PIPELINING "> send 1\nC: MAIL FROM:<s@y.example> SIZE=21\nC: RCPT TO:<a@x.example>\n"                          \
		   "C: RCPT TO:<b@x.example>\nC: RCPT TO:<c@x.example>\nC: DATA\n"
	peer_play(&plain, THREE "S: 250 ok\nS: 250 ok\nS: 452 4.5.3 too many\nS: 452 4.2.2 full\nS: 354 go\n"
				"= result 1 replied rcpt 452 4.5.3 too many +toomany\n"
				"= result 2 replied rcpt 452 4.2.2 full\n= need_body\n" BODY "C: .\nS: 250 ok\n"
				"= result 0 replied dot 250 ok\n= done reusable\n");
	peer_play(&plain, THREE "S: 250 ok\nS: 250 ok\nS: 452 no\nS: 552 Too many recipients\nS: 354 go\n"
				"= result 1 replied rcpt 452 no +toomany\n"
				"= result 2 replied rcpt 552 Too many recipients +toomany\n= need_body\n" BODY "C: .\n"
				"S: 250 ok\n= result 0 replied dot 250 ok\n= done reusable\n");
	/* With nobody accepted before, another transaction at once would make no headway. */
	peer_play(&plain, THREE "S: 250 ok\nS: 452 4.5.3 too many\nS: 550 no\nS: 550 no\nS: 503 no\n"
				"= result 0 replied rcpt 452 4.5.3 too many\n= result 1 replied rcpt 550 no\n"
				"= result 2 replied rcpt 550 no\n= done reusable\n");
}

/* ---- Parameters and what a server cannot take -------------------------------------------------------------------- */

static void test_parameters_go_out_where_they_are_offered_and_needed(void **state)
{
	static const struct smtp_client_recipient recipients[] = {
	    {SLICE_INIT("a@x.example"), SLICE_INIT("rfc822;a+2Bb@x.example"), SMTP_DSN_SUCCESS | SMTP_DSN_DELAY},
	    {SLICE_INIT("\"q u\"@x.example"), {0}, SMTP_DSN_NEVER},
	    {SLICE_INIT("j\xc3\xb6rg@x.example"), SLICE_INIT("bad value"), 0},
	};
	static const struct smtp_transaction full[] = {{.sender = SLICE_INIT("s@y.example"),
							.recipients = recipients,
							.recipient_count = 3,
							.content_bytes = CONTENT,
							.has_8bit = true,
							.requiretls = true,
							.ret = SMTP_DSN_RET_HDRS,
							.envid = SLICE_INIT("id+3D1"),
							.auth = SLICE_INIT("<>")}};
	struct peer_setup setup = {.options = {.helo_name = "relay.example", .tls = SMTP_CLIENT_TLS_IMPLICIT},
				   .transactions = full};

	(void)state;
	peer_play(&setup,
		  HELLO "S: 250-mx\nS: 250-PIPELINING\nS: 250-SIZE\nS: 250-8bitmime\nS: 250-SMTPUTF8\nS: 250-DSN\n"
			"S: 250-AUTH PLAIN\nS: 250 REQUIRETLS\n= ready\n> send 0\n"
			"C: MAIL FROM:<s@y.example> SIZE=21 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+3D1 REQUIRETLS\n"
			"C: RCPT TO:<a@x.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@x.example\n"
			"C: RCPT TO:<\"q u\"@x.example> NOTIFY=NEVER\n"
			"C: RCPT TO:<j\xc3\xb6rg@x.example>\nC: DATA\n");
	setup.options.credentials =
	    (struct sasl_client_credentials){.mechanism = SASL_CLIENT_AUTO, .username = "u", .secret = "p"};
	peer_play(&setup,
		  HELLO "S: 250-mx\nS: 250-SIZE\nS: 250-8BITMIME\nS: 250-SMTPUTF8\nS: 250-DSN\n"
			"S: 250-AUTH PLAIN\nS: 250 REQUIRETLS\nC: AUTH PLAIN AHUAcA==\nS: 235 ok\n= ready\n> send 0\n"
			"C: MAIL FROM:<s@y.example> SIZE=21 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+3D1 REQUIRETLS "
			"AUTH=<>\n");
}

static void test_only_recipients_that_need_smtputf8_suffer_from_its_absence(void **state)
{
	static const struct smtp_client_recipient recipients[] = {TO("j\xc3\xb6rg@x.example"), TO("a@x.example"),
								  TO("bad@@x.example"), TO("b@x.example\r\nDATA")};
	static const struct smtp_transaction mixed[] = {{.recipients = recipients, .recipient_count = 4},
							{.recipients = recipients, .recipient_count = 1}};
	struct peer_setup setup = plain;

	(void)state;
	setup.transactions = mixed;
	peer_play(&setup,
		  MINIMAL "> send 0\n"
			  "= result 0 undeliverable rcpt 0 5.6.7 the address needs SMTPUTF8, which the next host does "
			  "not offer\n"
			  "= result 2 undeliverable rcpt 0 5.1.3 the recipient's address cannot be sent\n"
			  "= result 3 undeliverable rcpt 0 5.1.3 the recipient's address cannot be sent\n"
			  "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<a@x.example>\nS: 250 ok\nC: DATA\nS: 354 go\n"
			  "= need_body\n" BODY "C: .\nS: 250 ok\n= result 1 replied dot 250 ok\n= done reusable\n"
			  "> send 1\n"
			  "= result 0 undeliverable rcpt 0 5.6.7 the address needs SMTPUTF8, which the next host does "
			  "not offer\n= done reusable\n");
}

/* C14, B20, G14: bounced by whoever asked, never stripped of a bit. */
static void test_a_message_that_the_server_cannot_take_is_not_sent(void **state)
{
	static const struct smtp_transaction bad[] = {
	    {.recipients = one, .recipient_count = 1, .has_8bit = true},
	    {.recipients = one, .recipient_count = 1, .needs_smtputf8 = true},
	    {.recipients = one, .recipient_count = 1, .content_bytes = 1001},
	    {.recipients = one, .recipient_count = 1, .requiretls = true},
	    {.sender = SLICE_INIT("s\r\n@x"), .recipients = one, .recipient_count = 1},
	    {.sender = SLICE_INIT("j\xc3\xb6rg@x.example"), .recipients = three, .recipient_count = 3},
	    {.recipients = one, .recipient_count = 1, .content_bytes = 1000},
	};
	struct peer_setup setup = plain;

	(void)state;
	setup.transactions = bad;
#define REASON_8BIT "5.6.3 the message has 8-bit text, and the next host does not offer 8BITMIME"
#define REASON_UTF8 "5.6.7 the message needs SMTPUTF8, which the next host does not offer"
	peer_play(&setup, PIPELINING
		  "> send 0\n= result 0 undeliverable mail 0 " REASON_8BIT "\n= done reusable\n"
		  "> send 1\n= result 0 undeliverable mail 0 " REASON_UTF8 "\n= done reusable\n"
		  "> send 2\n= result 0 undeliverable mail 0 5.3.4 the message is larger than the next host "
		  "takes\n= done reusable\n"
		  "> send 3\n= result 0 undeliverable mail 0 5.7.30 the message requires TLS all the way, and "
		  "the next host does not offer it\n= done reusable\n"
		  "> send 4\n= result 0 undeliverable mail 0 5.1.7 the sender's address cannot be sent\n"
		  "= done reusable\n"
		  "> send 5\n= result 0 undeliverable mail 0 " REASON_UTF8 "\n"
		  "= result 1 undeliverable mail 0 " REASON_UTF8 "\n"
		  "= result 2 undeliverable mail 0 " REASON_UTF8 "\n= done reusable\n"
		  "> send 6\nC: MAIL FROM:<> SIZE=1000\nC: RCPT TO:<a@x.example>\nC: DATA\n");
}

/* ---- Sessions --------------------------------------------------------------------------------------------------- */

/* G19 */
static void test_starttls_forgets_what_was_learnt(void **state)
{
	(void)state;
	peer_play(&opportunistic,
		  HELLO "S: 250-mx.example\nS: 250-PIPELINING\nS: 250-AUTH PLAIN\nS: 250 STARTTLS\n"
			"C: STARTTLS\nS: 220 go\n= need_tls\n> tls\nC: EHLO relay.example\n"
			"S: 250-mx.example\nS: 250 SIZE 10\n= ready\n> send 0\n"
			"= result 0 undeliverable mail 0 5.3.4 the message is larger than the next host takes\n"
			"= done reusable\n");
}

static void test_what_was_offered_before_tls_is_gone_even_with_helo(void **state)
{
	(void)state;
	peer_play(&opportunistic,
		  HELLO "S: 250-mx.example\nS: 250-PIPELINING\nS: 250-SIZE\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n"
			"= need_tls\n> tls\nC: EHLO relay.example\nS: 502 what\nC: HELO relay.example\n"
			"S: 250 mx\n= ready\n> send 0\nC: MAIL FROM:<s@y.example>\n");
}

static void test_opportunistic_goes_on_without_tls(void **state)
{
	(void)state;
	peer_play(&opportunistic, MINIMAL);
	peer_play(&opportunistic,
		  HELLO "S: 250-mx.example\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 not now\n= ready\n");
	peer_play(&opportunistic, HELLO "S: 502 what\nC: HELO relay.example\nS: 250 mx\n= ready\n");
}

/* G16 */
static void test_required_tls_is_never_given_up(void **state)
{
	(void)state;
	peer_play(&required, HELLO "S: 250 mx.example\n"
				   "= failed no_tls tls 0 the server does not offer STARTTLS, and TLS is required\n");
	peer_play(&required, HELLO "S: 250-mx.example\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 not now\n"
				   "= failed replied tls 454 4.7.0 not now\nC: QUIT\n");
	peer_play(&required, HELLO "S: 502 what\n= failed replied greeting 502 what\nC: QUIT\n");
	peer_play(&required, HELLO "S: 250-mx.example\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n= need_tls\n"
				   "> tlsfail certificate expired\n= failed no_tls tls 0 certificate expired\n");
	peer_play(&required, HELLO "S: 250-mx.example\nS: 250 STARTTLS\nC: STARTTLS\nS: 250 ok\n"
				   "= failed protocol tls 0 protocol error while waiting for the reply to STARTTLS: "
				   "unexpected reply 250 ok\n");
}

/* G15: What arrives behind the 220 in the same read; in other cuts it arrives in place of the handshake. */
static void test_clear_text_behind_starttls_is_never_believed(void **state)
{
	static const char *const behind[] = {"250 injected\r\n", "2", "\x16\x03\x01"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(behind); i++) {
		for (int together = 0; together < 2; together++) {
			struct smtp_client *client = smtp_client_new(&required.options, 0);
			struct smtp_client_event event;

			smtp_client_input(client, SLICE("220 mx\r\n"));
			assert_false(smtp_client_next(client, &event));
			smtp_client_output_sent(client, 1000);
			smtp_client_input(client, SLICE("250-mx\r\n250 STARTTLS\r\n"));
			assert_false(smtp_client_next(client, &event));
			smtp_client_output_sent(client, 1000);
			smtp_client_input(client, SLICE("220 go\r\n"));
			if (together)
				smtp_client_input(client, slice_of_str(behind[i]));
			assert_true(smtp_client_next(client, &event));
			if (!together) {
				assert_int_equal(event.type, SMTP_CLIENT_NEED_TLS);
				smtp_client_input(client, slice_of_str(behind[i]));
				smtp_client_tls_started(client);
				assert_int_equal(smtp_client_output(client).len, 0);
				assert_true(smtp_client_next(client, &event));
			}
			assert_int_equal(event.type, SMTP_CLIENT_FAILED);
			assert_int_equal(event.result.cause, SMTP_CLIENT_PROTOCOL);
			assert_int_equal(event.result.stage, STAGE_TLS);
			assert_false(smtp_client_next(client, &event));
			smtp_client_free(&client);
		}
	}
}

static void test_greetings_that_refuse(void **state)
{
	(void)state;
	peer_play(&plain, "S: 554-go\nS: 554 away\n= failed replied greeting 554 go away\nC: QUIT\n");
	peer_play(&plain, "S: 421 4.3.2 busy\n= failed replied greeting 421 4.3.2 busy\nC: QUIT\n");
	peer_play(&plain, "S: 250 hello\n= failed protocol greeting 0 protocol error while waiting for the greeting: "
			  "unexpected reply 250 hello\n");
	peer_play(&plain,
		  "S: SSH-2.0-x\n= failed protocol greeting 0 protocol error while waiting for the greeting: a line "
		  "does not begin with a reply code\n");
	peer_play(&plain, "> eof\n= failed lost greeting 0 connection lost while waiting for the greeting\n");
	peer_play(
	    &plain,
	    "> eof Connection reset by peer\n"
	    "= failed lost greeting 0 connection lost while waiting for the greeting: Connection reset by peer\n");
}

/* G11, G12 */
static void test_helo_is_the_fallback(void **state)
{
	struct peer_setup setup = plain;

	(void)state;
	peer_play(&plain, HELLO "S: 500 what\nC: HELO relay.example\nS: 250 mx\n= ready\n> send 0\n"
				"C: MAIL FROM:<s@y.example>\n");
	peer_play(&plain, HELLO "S: 550 no\n= failed replied greeting 550 no\nC: QUIT\n");
	peer_play(&plain,
		  HELLO "S: 500 what\nC: HELO relay.example\nS: 550 no\n= failed replied greeting 550 no\nC: QUIT\n");
	peer_play(&plain,
		  HELLO "> eof\n= failed lost greeting 0 connection lost while waiting for the reply to EHLO +helo\n");
	peer_play(&required,
		  HELLO "> eof\n= failed lost greeting 0 connection lost while waiting for the reply to EHLO\n");
	setup.options.use_helo = true;
	peer_play(&setup, "S: 220 mx\nC: HELO relay.example\nS: 250 mx\n= ready\n");
	peer_play(&setup, "S: 220 mx\nC: HELO relay.example\n> eof\n"
			  "= failed lost greeting 0 connection lost while waiting for the reply to HELO\n");
}

static const struct peer_setup login = {
    .options = {.helo_name = "relay.example",
		.tls = SMTP_CLIENT_TLS_REQUIRED,
		.credentials = {.mechanism = SASL_CLIENT_AUTO, .username = "user", .secret = "pass"}},
    .transactions = transactions,
};
#define SECURE                                                                                                         \
	HELLO                                                                                                          \
	"S: 250-mx.example\nS: 250-AUTH PLAIN LOGIN\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n= need_tls\n> tls\n"     \
	"C: EHLO relay.example\n"

static void check_tls(struct smtp_client *client)
{
	assert_true(smtp_client_is_tls(client));
}

/* G37 */
static void test_auth(void **state)
{
	struct peer_setup setup = login;

	(void)state;
	peer_play(&setup, SECURE "S: 250-mx\nS: 250 AUTH LOGIN\nC: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dXNlcg==\n"
				 "S: 334 UGFzc3dvcmQ6\nC: cGFzcw==\nS: 235 2.7.0 ok\n= ready\n");
	peer_play(&setup, SECURE "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN AHVzZXIAcGFzcw==\nS: 535 5.7.8 wrong\n"
				 "= failed replied auth 535 5.7.8 wrong\nC: QUIT\n");
	peer_play(&setup, SECURE "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN AHVzZXIAcGFzcw==\nS: 334 junk\nC: *\n"
				 "S: 501 cancelled\n= failed replied auth 501 cancelled\nC: QUIT\n");
	peer_play(&setup, SECURE "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN AHVzZXIAcGFzcw==\nS: 421 later\n"
				 "= failed replied auth 421 later\nC: QUIT\n");
	peer_play(&setup, SECURE
		  "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN AHVzZXIAcGFzcw==\nS: 250 fine\n"
		  "= failed protocol auth 0 protocol error while waiting for the reply to AUTH: unexpected reply "
		  "250 fine\n");
	setup.check = check_tls;
	peer_play(&setup, SECURE "S: 250-mx\nS: 250-AUTH LOGIN\nS: 250 AUTH PLAIN\nC: AUTH PLAIN AHVzZXIAcGFzcw==\n"
				 "S: 235 ok\n= ready\n");
}

/* G37 */
static void test_a_server_that_challenges_for_ever_is_left(void **state)
{
	(void)state;
#define CHALLENGE "S: 334 eA==\nC: *\n"
	peer_play(
	    &login, SECURE
	    "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN AHVzZXIAcGFzcw==\n" CHALLENGE CHALLENGE CHALLENGE CHALLENGE
		CHALLENGE CHALLENGE CHALLENGE CHALLENGE
	    "S: 334 eA==\n= failed protocol auth 0 protocol error while waiting for the reply to AUTH: unexpected "
	    "reply 334 eA==\n");
}

/* G19, G37 */
static void test_credentials_need_tls_and_an_offer(void **state)
{
	struct peer_setup setup = login;

	(void)state;
	/* AUTH offered before TLS alone is no offer. */
	peer_play(&login,
		  SECURE "S: 250 mx\n= failed no_auth auth 0 the server offers no AUTH that is known here, PLAIN or "
			 "LOGIN is wanted\n");
	peer_play(&login, SECURE "S: 250-mx\nS: 250 AUTH XOAUTH2 GSSAPI\n"
				 "= failed no_auth auth 0 the server does not offer AUTH PLAIN or LOGIN\n");
	setup.options.tls = SMTP_CLIENT_TLS_OPPORTUNISTIC;
	peer_play(&setup,
		  HELLO "S: 250-mx\nS: 250 AUTH PLAIN\n= failed no_auth auth 0 a password is not sent without TLS\n");
	peer_play(&setup, HELLO "S: 502 no\n= failed replied greeting 502 no\nC: QUIT\n");
	setup.options.allow_plaintext_auth = true;
	peer_play(&setup, HELLO "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN AHVzZXIAcGFzcw==\nS: 235 ok\n= ready\n");
}

static void test_a_refused_token_is_told_with_the_servers_words(void **state)
{
	struct peer_setup setup = login;

	(void)state;
	setup.options.tls = SMTP_CLIENT_TLS_IMPLICIT;
	setup.options.credentials =
	    (struct sasl_client_credentials){.mechanism = SASL_CLIENT_XOAUTH2, .username = "u@x", .secret = "tok"};
	peer_play(&setup, HELLO "S: 250-mx\nS: 250 AUTH XOAUTH2\nC: AUTH XOAUTH2 dXNlcj11QHgBYXV0aD1CZWFyZXIgdG9rAQE=\n"
				"S: 334 eyJzdGF0dXMiOiI0MDEifQ==\nC: \nS: 535 5.7.8 no\n"
				"= failed replied auth 535 5.7.8 no {\"status\":\"401\"}\nC: QUIT\n");
}

/* ---- Ends of idle sessions --------------------------------------------------------------------------------------- */

static void test_an_idle_session_that_ends_is_no_failure(void **state)
{
	(void)state;
	peer_play(&plain, MINIMAL "S: 421 4.4.2 idle\n= closed replied none 421 4.4.2 idle\nC: QUIT\n");
	peer_play(&plain, MINIMAL "> eof\n= closed lost none 0 the server closed the connection\n");
	peer_play(&plain,
		  MINIMAL "S: 250 by the way\n= failed protocol none 0 protocol error while waiting for nothing: "
			  "unexpected reply 250 by the way\n");
}

/* G29 */
static void test_quit_ends_however_the_server_answers(void **state)
{
	struct peer_setup setup = plain;

	(void)state;
	peer_play(&plain, MINIMAL "> quit\nC: QUIT\n> eof\n= closed lost none 0 the server closed the connection\n");
	peer_play(&plain, MINIMAL "> quit\nC: QUIT\nS: 500 what\n= closed replied none 500 what\n");
	peer_play(&plain, "> quit\n= closed aborted none 0 the session was ended before it stood\n");
	setup.options.limits.quit_ms = 100;
	peer_play(&setup, MINIMAL "> quit\nC: QUIT\n> tick 99\n> tick 1\n"
				  "= closed timeout none 0 timed out while waiting for the reply to QUIT\n");
}

static void test_quit_waits_for_the_transaction(void **state)
{
	(void)state;
	peer_play(&plain, CHUNKING
		  "> send 0\n= need_body\nC: MAIL FROM:<s@y.example>\nC: RCPT TO:<a@x.example>\n"
		  "C: BDAT 21 LAST\n" BODY "> quit\nS: 250 ok\nS: 250 ok\nS: 250 ok\n"
		  "= result 0 replied dot 250 ok\n= done\nC: QUIT\nS: 221 bye\n= closed replied none 221 bye\n");
}

/* G33 */
static void test_a_session_found_dead_was_no_attempt(void **state)
{
	(void)state;
#define FIRST                                                                                                          \
	MINIMAL "> send 0\nC: MAIL FROM:<s@y.example>\nS: 250 ok\nC: RCPT TO:<a@x.example>\nS: 250 ok\nC: DATA\n"      \
		"S: 354 go\n= need_body\n" BODY "C: .\nS: 250 ok\n= result 0 replied dot 250 ok\n= done reusable\n"
	peer_play(&plain,
		  FIRST "> send 0\nC: MAIL FROM:<s@y.example>\n> eof\n"
			"= result 0 lost mail 0 connection lost while waiting for the reply to MAIL +untried\n= done\n"
			"= failed lost mail 0 connection lost while waiting for the reply to MAIL +untried\n");
	peer_play(&plain, FIRST "> send 0\nC: MAIL FROM:<s@y.example>\nS: 421 4.7.0 too many messages\n"
				"= result 0 replied mail 421 4.7.0 too many messages +untried\n= done\n"
				"= failed replied mail 421 4.7.0 too many messages +untried\nC: QUIT\n");
	/* The first on a connection is an attempt, and so is one that was answered. */
	peer_play(&plain, MINIMAL "> send 0\nC: MAIL FROM:<s@y.example>\n> eof\n"
				  "= result 0 lost mail 0 connection lost while waiting for the reply to MAIL\n= done\n"
				  "= failed lost mail 0 connection lost while waiting for the reply to MAIL\n");
	peer_play(&plain, FIRST "> send 0\nC: MAIL FROM:<s@y.example>\nS: 250 ok\nC: RCPT TO:<a@x.example>\n> eof\n"
				"= result 0 lost rcpt 0 connection lost while waiting for the reply to RCPT\n= done\n"
				"= failed lost rcpt 0 connection lost while waiting for the reply to RCPT\n");
}

static void test_a_message_for_an_ending_session_was_no_attempt(void **state)
{
	(void)state;
#define ENDING "lost mail 0 the session was ending +untried\n"
	peer_play(&plain, MINIMAL "> quit\nC: QUIT\n> send 1\n= result 0 " ENDING "= result 1 " ENDING
				  "= result 2 " ENDING "= done\n= closed " ENDING);
	/* Found closed, but not yet told. */
	peer_play(&plain, FIRST
		  "> eof+send 0\n= result 0 lost mail 0 connection lost while waiting for the reply to MAIL +untried\n"
		  "= done\n= failed lost mail 0 connection lost while waiting for the reply to MAIL +untried\nC: MAIL "
		  "FROM:<s@y.example>\n");
}

static void check_capabilities(struct smtp_client *client)
{
	const struct smtp_client_capabilities *offered = smtp_client_capabilities(client);

	assert_true(offered->esmtp && offered->pipelining && offered->chunking && offered->eightbitmime);
	assert_true(offered->smtputf8 && offered->dsn && offered->size && offered->starttls && offered->requiretls);
	assert_true(offered->enhancedstatuscodes);
	assert_int_equal(offered->size_max, 52428800);
	assert_int_equal(offered->rcpt_max, 100);
	assert_int_equal(offered->mail_max, UINT32_MAX);
	assert_int_equal(offered->auth_mechanisms,
			 SASL_CLIENT_BIT(SASL_CLIENT_PLAIN) | SASL_CLIENT_BIT(SASL_CLIENT_XOAUTH2));
	assert_string_equal(smtp_client_peer_name(client), "mx2.example");
}

static void check_nothing(struct smtp_client *client)
{
	struct smtp_client_capabilities none = {.esmtp = true, .size = true};

	assert_memory_equal(smtp_client_capabilities(client), &none, sizeof(none));
	assert_string_equal(smtp_client_peer_name(client), "\\x1B[1m");
}

/* G13 */
static void test_capabilities(void **state)
{
	struct peer_setup setup = plain;

	(void)state;
	setup.check = check_capabilities;
	peer_play(
	    &setup, HELLO
	    "S: 250-mx2.example at your service\nS: 250-pipelining\nS: 250-CHUNKING \nS: 250-8BITMIME\n"
	    "S: 250-SMTPUTF8\nS: 250-DSN\nS: 250-SIZE 52428800\nS: 250-STARTTLS junk\nS: 250-REQUIRETLS\n"
	    "S: 250-X-OTHER a b c\nS: 250-\nS: 250-AUTH GSSAPI  plain\nS: 250-AUTH XOAUTH2\n"
	    "S: 250-LIMITS MAILMAX=99999999999 RCPTMAX=100 OTHER RCPTMAX=x\nS: 250 ENHANCEDSTATUSCODES\n= ready\n");
	setup.check = check_nothing;
	peer_play(&setup,
		  HELLO "S: 250-\\x1b[1m x\nS: 250-SIZE -1\nS: 250-SIZE 18446744073709551616\nS: 250-PIPELININGX\n"
			"S: 250-AUTH\nS: 250-AUTHPLAIN\nS: 250 DSN\\x00\n= ready\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_without_pipelining_nothing_is_sent_ahead),
	    cmocka_unit_test(test_with_pipelining_mail_rcpt_and_data_go_together),
	    cmocka_unit_test(test_a_small_message_goes_out_in_one_flight_with_bdat),
	    cmocka_unit_test(test_chunking_without_pipelining_waits_for_each_reply),
	    cmocka_unit_test(test_chunking_and_pipelining_can_be_switched_off),
	    cmocka_unit_test(test_all_recipients_refused_and_bdat_already_sent),
	    cmocka_unit_test(test_all_recipients_refused_and_data_already_sent),
	    cmocka_unit_test(test_all_recipients_refused_without_pipelining_sends_no_data),
	    cmocka_unit_test(test_a_refused_mail_is_the_result_of_all),
	    cmocka_unit_test(test_a_refused_data_or_dot_is_the_result_of_the_accepted),
	    cmocka_unit_test(test_too_many_recipients_is_told_apart),
	    cmocka_unit_test(test_parameters_go_out_where_they_are_offered_and_needed),
	    cmocka_unit_test(test_only_recipients_that_need_smtputf8_suffer_from_its_absence),
	    cmocka_unit_test(test_a_message_that_the_server_cannot_take_is_not_sent),
	    cmocka_unit_test(test_starttls_forgets_what_was_learnt),
	    cmocka_unit_test(test_what_was_offered_before_tls_is_gone_even_with_helo),
	    cmocka_unit_test(test_opportunistic_goes_on_without_tls),
	    cmocka_unit_test(test_required_tls_is_never_given_up),
	    cmocka_unit_test(test_clear_text_behind_starttls_is_never_believed),
	    cmocka_unit_test(test_greetings_that_refuse),
	    cmocka_unit_test(test_helo_is_the_fallback),
	    cmocka_unit_test(test_auth),
	    cmocka_unit_test(test_a_server_that_challenges_for_ever_is_left),
	    cmocka_unit_test(test_credentials_need_tls_and_an_offer),
	    cmocka_unit_test(test_a_refused_token_is_told_with_the_servers_words),
	    cmocka_unit_test(test_an_idle_session_that_ends_is_no_failure),
	    cmocka_unit_test(test_quit_ends_however_the_server_answers),
	    cmocka_unit_test(test_quit_waits_for_the_transaction),
	    cmocka_unit_test(test_a_session_found_dead_was_no_attempt),
	    cmocka_unit_test(test_a_message_for_an_ending_session_was_no_attempt),
	    cmocka_unit_test(test_capabilities),
	};
	return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
