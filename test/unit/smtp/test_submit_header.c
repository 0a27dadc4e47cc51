#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "smtp/submit_header.h"

#include <stdio.h>
#include <stdlib.h>

#define RECEIVED                                                                                                       \
	"Received: by relay.test with ESMTPSA id 0123456789ABC\r\n\tfor <b@example.org>;\r\n"                          \
	"\tTue, 25 Nov 2025 06:34:00 +0000\r\n"
#define COMPLETE "From: a@example.com\r\nDate: x\r\nMessage-ID: <1@x>\r\n"

static struct rng_seeded seeded;

static struct submit_header_options usual(void)
{
	rng_seeded_init(&seeded, 1);
	return (struct submit_header_options){.hostname = SLICE("relay.test"),
					      .origin = SLICE("example.com"),
					      .id = SLICE("0123456789ABC"),
					      .sender = SLICE("app@example.com"),
					      .only_recipient = SLICE("b@example.org"),
					      .hide_client = true,
					      .helo = SLICE("client.test"),
					      .client_address = SLICE("192.0.2.7"),
					      .esmtp = true,
					      .tls = true,
					      .authenticated = true,
					      .wall_ms = INT64_C(1764052440000),
					      .rng = &seeded.rng};
}

static void expect(const struct submit_header_options *options, const char *block, const char *prefix, const char *kept)
{
	struct submit_header header;

	assert_int_equal(submit_header_make(&header, slice_of_str(block), options), 0);
	if (!slice_eq(buf_slice(&header.prefix), slice_of_str(prefix)) || !slice_eq(header.kept, slice_of_str(kept)))
		fail_msg("%s\nprefix: %.*s\nkept: %.*s", block, SLICE_ARG(buf_slice(&header.prefix)),
			 SLICE_ARG(header.kept));
	submit_header_fini(&header);
}

static void refused(const char *block, int code, const char *word)
{
	struct submit_header_options options = usual();
	struct submit_header header;

	assert_int_equal(submit_header_make(&header, slice_of_str(block), &options), ERR_SYNTAX);
	assert_int_equal(header.refusal.code, code);
	assert_true(header.refusal.enhanced[0] == '5');
	if (!strstr(header.refusal.text, word))
		fail_msg("%s", header.refusal.text);
	submit_header_fini(&header);
}

/* C18, CLIENTS 10: fields are sacred; what is whole is passed on without a copy. */
static void a_complete_header_stays_octet_for_octet(void **state)
{
	const char *block =
	    COMPLETE "sUbJeCt:  a\t \r\n\t b  \r\nX-Empty:\r\nTo: b@example.org,\r\n  root\r\nSubject: two\r\n";
	struct submit_header_options options = usual();
	struct submit_header header;

	(void)state;
	expect(&options, block, RECEIVED, block);
	assert_int_equal(submit_header_make(&header, slice_of_str(block), &options), 0);
	assert_ptr_equal(header.kept.ptr, block);
	assert_true(slice_eq(header.message_id, SLICE("<1@x>")));
	assert_false(header.added_date || header.added_message_id || header.added_from || header.has_8bit);
	submit_header_fini(&header);
}

/* C17, CLIENTS 11 */
static void date_and_message_id_are_added_when_missing(void **state)
{
	struct submit_header_options options = usual();
	struct submit_header header;

	(void)state;
	assert_int_equal(submit_header_make(&header, SLICE("From: a@example.com\r\n"), &options), 0);
	assert_true(header.added_date && header.added_message_id);
	assert_true(
	    slice_has_prefix(buf_slice(&header.prefix),
			     SLICE(RECEIVED "Date: Tue, 25 Nov 2025 06:34:00 +0000\r\nMessage-ID: <0123456789ABC.")));
	assert_true(slice_has_prefix(header.message_id, SLICE("<0123456789ABC.")));
	assert_true(slice_eq(slice_from(header.message_id, header.message_id.len - 12), SLICE("@relay.test>")));
	submit_header_fini(&header);
	/* Odd ones stay as they are. */
	expect(&options, "From: a@b\r\nDate: yesterday\r\nMESSAGE-ID:\r\nDate: again\r\n", RECEIVED,
	       "From: a@b\r\nDate: yesterday\r\nMESSAGE-ID:\r\nDate: again\r\n");
}

/* CLIENTS: at(1) has no From, cron a bare one. RFC 6409 §8. */
static void from_is_added_or_completed(void **state)
{
	struct submit_header_options options = usual();
	struct submit_header header;

	(void)state;
	expect(&options, "Date: x\r\nMessage-ID: <1@x>\r\n", RECEIVED "From: app@example.com\r\n",
	       "Date: x\r\nMessage-ID: <1@x>\r\n");
	options.sender = SLICE("");
	expect(&options, "Date: x\r\nMessage-ID: <1@x>\r\n", RECEIVED "From: MAILER-DAEMON@relay.test\r\n",
	       "Date: x\r\nMessage-ID: <1@x>\r\n");
	options.sender = SLICE("root");
	expect(&options, "Date: x\r\nMessage-ID: <1@x>\r\n", RECEIVED "From: root@example.com\r\n",
	       "Date: x\r\nMessage-ID: <1@x>\r\n");
	expect(&options, "From: root (Cron Daemon)\r\nDate: x\r\nMessage-ID: <1@x>\r\n", RECEIVED,
	       "From: root@example.com (Cron Daemon)\r\nDate: x\r\nMessage-ID: <1@x>\r\n");
	expect(&options, "from : \"A\" <root>,\r\n www\r\nDate: x\r\nMessage-ID: <1@x>\r\n", RECEIVED,
	       "from: \"A\" <root@example.com>,\r\n www@example.com\r\nDate: x\r\nMessage-ID: <1@x>\r\n");
	/* One that needs quotes gets them. */
	expect(&options, "From: A: www.; b\r\nDate: x\r\nMessage-ID: <1@x>\r\n", RECEIVED,
	       "From: A: \"www.\"@example.com; b@example.com\r\nDate: x\r\nMessage-ID: <1@x>\r\n");
	assert_int_equal(submit_header_make(&header, SLICE("From: root\r\n"), &options), 0);
	assert_true(header.completed_from && !header.added_from);
	assert_int_equal(header.from_count, 1);
	assert_true(slice_eq(header.from[0], SLICE("root@example.com")));
	assert_true(slice_eq(header.from_domain, SLICE("example.com")));
	submit_header_fini(&header);
	options.origin = SLICE("");
	expect(&options, "From: root\r\nDate: x\r\nMessage-ID: <1@x>\r\n", RECEIVED,
	       "From: root@relay.test\r\nDate: x\r\nMessage-ID: <1@x>\r\n");
}

static void addresses_of_from_and_sender(void **state)
{
	struct submit_header_options options = usual();
	struct submit_header header;

	(void)state;
	assert_int_equal(
	    submit_header_make(&header,
			       SLICE("Sender: S <s@example.net>\r\nFrom: Acme, Inc. <a@m\xc3\xbcller.example>,\r\n"
				     " \"b c\"@example.org\r\n"),
			       &options),
	    0);
	assert_int_equal(header.from_count, 2);
	assert_true(slice_eq(header.from[0], SLICE("a@m\xc3\xbcller.example")));
	assert_true(slice_eq(header.from[1], SLICE("\"b c\"@example.org")));
	assert_true(slice_eq(header.from_domain, SLICE("m\xc3\xbcller.example")));
	assert_true(slice_eq(header.header_sender, SLICE("s@example.net")));
	assert_true(header.has_8bit && !header.completed_from);
	submit_header_fini(&header);
}

/* CLIENTS 11: also folded, repeated, in capitals. */
static void what_must_not_go_out_is_removed(void **state)
{
	struct slice more[] = {SLICE("x-originating-ip"), SLICE("X-B")};
	struct submit_header_options options = usual();

	(void)state;
	expect(
	    &options,
	    "BCC: x@example.org\r\n" COMPLETE "Bcc: y@example.org,\r\n\tz@example.org\r\nbcc:\r\nReturn-Path: <a@b>\r\n"
	    "X-Relayd-Tag: t\r\nx-relayd-original-to: a\r\nResent-Bcc: q@example.org\r\nBccX: stays\r\nSubject: s\r\n",
	    RECEIVED, COMPLETE "BccX: stays\r\nSubject: s\r\n");
	options.remove = more;
	options.remove_count = 2;
	expect(&options, COMPLETE "X-Originating-IP: 1\r\nX-A: 1\r\nX-B: 2\r\n", RECEIVED, COMPLETE "X-A: 1\r\n");
}

/* CLIENTS, DKIM verifiers: dkimpy cannot read a blank before the colon. */
static void what_verifiers_cannot_read_is_repaired(void **state)
{
	struct submit_header_options options = usual();

	(void)state;
	expect(&options, COMPLETE "Subject : a\r\nX\t:  b\r\n  c\r\n", RECEIVED,
	       COMPLETE "Subject: a\r\nX:  b\r\n  c\r\n");
	expect(&options, COMPLETE "Subject: a", RECEIVED, COMPLETE "Subject: a\r\n");
}

/* C20: RFC 3848, RFC 5321 §4.4. */
static void received_says_how_it_came(void **state)
{
	struct submit_header_options options = usual();
	const struct {
		bool esmtp, tls, auth, utf8;
		const char *with;
	} cases[] = {
	    {false, false, false, false, "SMTP"},   {true, false, false, false, "ESMTP"},
	    {true, true, false, false, "ESMTPS"},   {true, false, true, false, "ESMTPA"},
	    {true, true, true, false, "ESMTPSA"},   {true, false, false, true, "UTF8SMTP"},
	    {true, true, true, true, "UTF8SMTPSA"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char text[300];
		options.esmtp = cases[i].esmtp;
		options.tls = cases[i].tls;
		options.authenticated = cases[i].auth;
		options.smtputf8 = cases[i].utf8;
		snprintf(text, sizeof(text),
			 "Received: by relay.test with %s id 0123456789ABC\r\n\tfor <b@example.org>;\r\n"
			 "\tTue, 25 Nov 2025 06:34:00 +0000\r\n",
			 cases[i].with);
		expect(&options, COMPLETE, text, COMPLETE);
	}
	options = usual();
	options.with = SLICE("local");
	options.only_recipient = SLICE("");
	expect(&options, COMPLETE,
	       "Received: by relay.test with local id 0123456789ABC;\r\n\tTue, 25 Nov 2025 06:34:00 +0000\r\n",
	       COMPLETE);
	/* Only a message that is UTF-8 anyway may carry a recipient that is. */
	options.only_recipient = SLICE("m\xc3\xbc@example.org");
	expect(&options, COMPLETE,
	       "Received: by relay.test with local id 0123456789ABC;\r\n\tTue, 25 Nov 2025 06:34:00 +0000\r\n",
	       COMPLETE);
}

static void received_names_the_client_only_when_told(void **state)
{
	struct submit_header_options options = usual();

	(void)state;
	options.hide_client = false;
	expect(&options, COMPLETE,
	       "Received: from client.test ([192.0.2.7])\r\n\t"
	       "by"
	       " relay.test with ESMTPSA id 0123456789ABC\r\n"
	       "\tfor <b@example.org>;\r\n\tTue, 25 Nov 2025 06:34:00 +0000\r\n",
	       COMPLETE);
	options.helo = SLICE("evil)\\(x: y");
	options.client_address = SLICE("2001:db8::1");
	expect(&options, COMPLETE,
	       "Received: from unknown ([IPv6:2001:db8::1])\r\n\tby relay.test with ESMTPSA id 0123456789ABC\r\n"
	       "\tfor <b@example.org>;\r\n\tTue, 25 Nov 2025 06:34:00 +0000\r\n",
	       COMPLETE);
	options.client_address = SLICE("");
	expect(&options, COMPLETE, RECEIVED, COMPLETE);
}

static void wishes_of_the_message(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
	} lifetimes[] = {
	    {"90s", 90000}, {"10m", 600000}, {"1h30m", 5400000}, {"5d", 432000000}, {"30d", INT64_C(2592000000)}};
	struct submit_header_options options = usual();
	struct submit_header header;
	char block[200];

	(void)state;
	assert_int_equal(
	    submit_header_make(&header,
			       SLICE(COMPLETE "X-Relayd-Class: bulk\r\nX-RELAYD-TAG:\r\n login-code_1.a \r\n"
					      "TLS-Required: no\r\n"),
			       &options),
	    0);
	assert_true(header.has_class && header.class == MESSAGE_BULK);
	assert_true(slice_eq(header.tag, SLICE("login-code_1.a")));
	assert_true(header.tls_required_no);
	assert_true(slice_eq(header.kept, SLICE(COMPLETE "TLS-Required: no\r\n")));
	submit_header_fini(&header);
	for (size_t i = 0; i < ARRAY_LEN(lifetimes); i++) {
		snprintf(block, sizeof(block), COMPLETE "X-Relayd-Lifetime: %s\r\n", lifetimes[i].text);
		assert_int_equal(submit_header_make(&header, slice_of_str(block), &options), 0);
		assert_true(header.lifetime_ms == lifetimes[i].ms);
		submit_header_fini(&header);
	}
}

static void wishes_that_mean_nothing_are_refused(void **state)
{
	static const char *const lifetimes[] = {
	    "", "0s", "10", "m", "-1m", "10 m", "10w", "31d", "99999999999999999999d", "1.5h", "1h x"};
	char block[200];

	(void)state;
	refused(COMPLETE "X-Relayd-Class: urgent\r\n", 550, "X-Relayd-Class");
	refused(COMPLETE "X-Relayd-Class: bulk\r\nX-Relayd-Class: bulk\r\n", 550, "X-Relayd-Class");
	refused(COMPLETE "X-Relayd-Tag: two words\r\n", 550, "X-Relayd-Tag");
	refused(COMPLETE "X-Relayd-Tag:\r\n", 550, "X-Relayd-Tag");
	refused(COMPLETE "X-Relayd-Tag: a\r\nX-Relayd-Tag: b\r\n", 550, "X-Relayd-Tag");
	refused(COMPLETE "X-Relayd-Tag: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", 550,
		"X-Relayd-Tag");
	for (size_t i = 0; i < ARRAY_LEN(lifetimes); i++) {
		snprintf(block, sizeof(block), COMPLETE "X-Relayd-Lifetime: %s\r\n", lifetimes[i]);
		refused(block, 550, "X-Relayd-Lifetime");
	}
}

/* C19, K3: as OpenDKIM does. */
static void froms_that_no_verifier_can_judge_are_refused(void **state)
{
	(void)state;
	refused("From: a@example.com\r\nFROM: b@example.com\r\n", 550, "more than one From");
	refused("From:\r\n", 550, "no address");
	refused("From: Some Body\r\n", 550, "no address");
	refused("From: App <>\r\n", 550, "no address");
	refused("From: \"App <a@example.com>\r\n", 550, "no address");
	refused("From: undisclosed:;\r\n", 550, "no address");
	refused("From: a@example.com, \"b\r\n", 550, "no address");
}

/* C21 */
static void loops_end(void **state)
{
	struct submit_header_options options = usual();
	struct submit_header header;
	struct buf block;

	(void)state;
	buf_init(&block, 100000);
	buf_append_str(&block, COMPLETE);
	for (int i = 0; i < 99; i++)
		buf_append_str(&block, "Received: by x; y\r\n");
	assert_int_equal(submit_header_make(&header, buf_slice(&block), &options), 0);
	assert_int_equal(header.received_count, 99);
	submit_header_fini(&header);
	buf_append_str(&block, "received: by x; y\r\n");
	assert_int_equal(submit_header_make(&header, buf_slice(&block), &options), ERR_SYNTAX);
	assert_int_equal(header.refusal.code, 554);
	assert_string_equal(header.refusal.enhanced, "5.4.6");
	submit_header_fini(&header);
	buf_fini(&block);
}

static void an_empty_header_becomes_one(void **state)
{
	struct submit_header_options options = usual();
	struct submit_header header;

	(void)state;
	assert_int_equal(submit_header_make(&header, SLICE(""), &options), 0);
	assert_true(header.added_from && header.added_date && header.added_message_id);
	assert_int_equal(header.kept.len, 0);
	submit_header_fini(&header);
}

static void too_many_authors_and_large_headers(void **state)
{
	struct submit_header_options options = usual();
	struct submit_header header;
	struct buf block;

	(void)state;
	buf_init(&block, 4 << 20);
	buf_append_str(&block, "Bcc: x\r\nFrom: a@example.com");
	for (int i = 0; i < 200; i++)
		buf_append_str(&block, ",\r\n a@example.com");
	buf_append_str(&block, "\r\n");
	assert_int_equal(submit_header_make(&header, buf_slice(&block), &options), ERR_SYNTAX);
	submit_header_fini(&header);
	buf_clear(&block);
	buf_append_str(&block, "From: a");
	for (int i = 0; i < 99; i++)
		buf_append_str(&block, ",a");
	buf_append_str(&block, "\r\nBcc: x\r\n");
	for (int i = 0; i < 50000; i++)
		buf_append_str(&block, "X-A : b\r\n");
	assert_int_equal(submit_header_make(&header, buf_slice(&block), &options), 0);
	assert_int_equal(header.from_count, 100);
	assert_int_equal(header.kept.len,
			 strlen("From: a@example.com") + 99 * strlen(",a@example.com") + 2 + 50000 * 8);
	submit_header_fini(&header);
	buf_fini(&block);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_complete_header_stays_octet_for_octet),
	    cmocka_unit_test(date_and_message_id_are_added_when_missing),
	    cmocka_unit_test(from_is_added_or_completed),
	    cmocka_unit_test(addresses_of_from_and_sender),
	    cmocka_unit_test(what_must_not_go_out_is_removed),
	    cmocka_unit_test(what_verifiers_cannot_read_is_repaired),
	    cmocka_unit_test(received_says_how_it_came),
	    cmocka_unit_test(received_names_the_client_only_when_told),
	    cmocka_unit_test(wishes_of_the_message),
	    cmocka_unit_test(wishes_that_mean_nothing_are_refused),
	    cmocka_unit_test(froms_that_no_verifier_can_judge_are_refused),
	    cmocka_unit_test(loops_end),
	    cmocka_unit_test(an_empty_header_becomes_one),
	    cmocka_unit_test(too_many_authors_and_large_headers),
	};
	return cmocka_run_group_tests_name("smtp submit header", tests, NULL, NULL);
}
