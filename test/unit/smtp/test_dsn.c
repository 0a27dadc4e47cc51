/* Delivery status notifications: the whole text of one, and what hostile text, sizes and UTF-8 do to others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/err.h"
#include "smtp/dsn.h"
#include "smtp/syntax.h"

#include <stdio.h>
#include <stdlib.h>

static const char original[] =
    "Received: from x\r\nMessage-ID: <a.b@c.example>\r\nSubject: hello\r\n\r\nbody\r\n.dot\r\n";

static const struct outcome unknown_user = {
    .kind = OUTCOME_FAILED,
    .class = CLASS_MAILBOX,
    .stage = STAGE_RCPT,
    .code = 550,
    .enhanced = "5.1.1",
    .host = "mx.example.com[192.0.2.1]",
    .text = "<joe@example.com>: Recipient address rejected: User unknown in table",
};
static const struct outcome refused = {
    .kind = OUTCOME_EXPIRED,
    .class = CLASS_CONNECT,
    .stage = STAGE_CONNECT,
    .enhanced = "4.4.1",
    .host = "mx2.example.com[192.0.2.9]",
    .text = "connection refused",
};

enum { WALL = 1764050000 };
#define WALL_MS ((int64_t)WALL * 1000)

struct fixture {
	struct dsn dsn;
	struct dsn_recipient recipients[2];
	struct rng_seeded rng;
	struct buf out;
	struct dsn_result result;
};

static void begin(struct fixture *f)
{
	*f = (struct fixture){0};
	rng_seeded_init(&f->rng, 1);
	buf_init(&f->out, DSN_BYTES_MAX);
	f->recipients[0] = (struct dsn_recipient){.address = SLICE("joe@example.com"),
						  .orcpt = SLICE("rfc822;Joe+2BX@example.com"),
						  .outcome = &unknown_user,
						  .last_attempt_wall = WALL_MS};
	f->recipients[1] = (struct dsn_recipient){
	    .address = SLICE("ann@example.com"), .outcome = &refused, .last_attempt_wall = WALL_MS};
	f->dsn = (struct dsn){.kind = DSN_FAILED,
			      .hostname = "relay.example.com",
			      .to = SLICE("me@example.org"),
			      .message_id = "0ABC",
			      .original_id = "0DEF",
			      .envid = SLICE("QQ+2B1"),
			      .arrived_wall = WALL_MS - 10000000,
			      .now_wall = WALL_MS,
			      .recipients = f->recipients,
			      .recipient_count = 1,
			      .original = SLICE(original),
			      .original_bytes = sizeof(original) - 1,
			      .rng = &f->rng.rng};
}

/* The text, NUL-terminated, until the next call. */
static const char *compose(struct fixture *f)
{
	buf_clear(&f->out);
	assert_int_equal(dsn_compose(&f->out, &f->dsn, &f->result), 0);
	assert_int_equal(buf_append(&f->out, slice_of("", 1)), 0);
	return buf_slice(&f->out).ptr;
}

static void end(struct fixture *f)
{
	buf_fini(&f->out);
}

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' is not in:\n%s", part, text);
}

static void assert_lacks(const char *text, const char *part)
{
	if (strstr(text, part))
		fail_msg("'%s' is in:\n%s", part, text);
}

static void test_a_whole_failure(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f);
	f.dsn.recipient_count = 2;
	f.dsn.return_full = true;
	assert_string_equal(compose(&f),
			    "From: Mail Delivery System <MAILER-DAEMON@relay.example.com>\r\n"
			    "To: <me@example.org>\r\n"
			    "Subject: Undelivered mail returned to sender\r\n"
			    "Date: Tue, 25 Nov 2025 05:53:20 +0000\r\n"
			    "Message-ID: <0ABC@relay.example.com>\r\n"
			    "In-Reply-To: <a.b@c.example>\r\n"
			    "References: <a.b@c.example>\r\n"
			    "Auto-Submitted: auto-replied\r\n"
			    "MIME-Version: 1.0\r\n"
			    "Content-Type: multipart/report; report-type=delivery-status;\r\n"
			    "\tboundary=\"=_910a2dec89025cc1.beeb8da1658eec67\"\r\n"
			    "\r\n"
			    "This is a MIME message; a mail program shows it better.\r\n"
			    "\r\n"
			    "--=_910a2dec89025cc1.beeb8da1658eec67\r\n"
			    "Content-Type: text/plain; charset=us-ascii\r\n"
			    "Content-Description: Notification\r\n"
			    "Content-Transfer-Encoding: 7bit\r\n"
			    "\r\n"
			    "This is the mail relay relay.example.com.\r\n"
			    "\r\n"
			    "Your message could not be delivered to these recipients, and no further\r\n"
			    "attempt will be made for them:\r\n"
			    "\r\n"
			    "  <joe@example.com>\r\n"
			    "    The host mx.example.com[192.0.2.1] said: 550 5.1.1 <joe@example.com>:\r\n"
			    "    Recipient address rejected: User unknown in table\r\n"
			    "    There is no such mailbox. Check the part of the address before the @.\r\n"
			    "\r\n"
			    "  <ann@example.com>\r\n"
			    "    connection refused - mx2.example.com[192.0.2.9]\r\n"
			    "    It was tried until the time for it was over.\r\n"
			    "    The recipient's host could not be reached, or the connection broke.\r\n"
			    "\r\n"
			    "The message was received on Tue, 25 Nov 2025 03:06:40 +0000\r\n"
			    "It has the number 0DEF in the relay's log.\r\n"
			    "It is attached.\r\n"
			    "\r\n"
			    "--=_910a2dec89025cc1.beeb8da1658eec67\r\n"
			    "Content-Type: message/delivery-status\r\n"
			    "Content-Description: Delivery report\r\n"
			    "Content-Transfer-Encoding: 7bit\r\n"
			    "\r\n"
			    "Reporting-MTA: dns; relay.example.com\r\n"
			    "Original-Envelope-Id: QQ+1\r\n"
			    "Arrival-Date: Tue, 25 Nov 2025 03:06:40 +0000\r\n"
			    "X-Relayd-Id: 0DEF\r\n"
			    "\r\n"
			    "Original-Recipient: rfc822; Joe+X@example.com\r\n"
			    "Final-Recipient: rfc822; joe@example.com\r\n"
			    "Action: failed\r\n"
			    "Status: 5.1.1\r\n"
			    "Remote-MTA: dns; mx.example.com\r\n"
			    "Diagnostic-Code: smtp; 550 5.1.1 <joe@example.com>: Recipient address\r\n"
			    "    rejected: User unknown in table\r\n"
			    "Last-Attempt-Date: Tue, 25 Nov 2025 05:53:20 +0000\r\n"
			    "\r\n"
			    "Final-Recipient: rfc822; ann@example.com\r\n"
			    "Action: failed\r\n"
			    "Status: 5.4.7\r\n"
			    "Remote-MTA: dns; mx2.example.com\r\n"
			    "Diagnostic-Code: x-relayd; connection refused\r\n"
			    "Last-Attempt-Date: Tue, 25 Nov 2025 05:53:20 +0000\r\n"
			    "\r\n"
			    "--=_910a2dec89025cc1.beeb8da1658eec67\r\n"
			    "Content-Type: message/rfc822\r\n"
			    "Content-Description: Undelivered message\r\n"
			    "Content-Transfer-Encoding: 7bit\r\n"
			    "\r\n"
			    "Received: from x\r\nMessage-ID: <a.b@c.example>\r\nSubject: hello\r\n\r\nbody\r\n.dot\r\n"
			    "\r\n"
			    "--=_910a2dec89025cc1.beeb8da1658eec67--\r\n");
	assert_true(f.result.returned_whole);
	assert_false(f.result.has_8bit || f.result.needs_smtputf8);
	end(&f);
}

static void test_a_delay_says_until_when_and_returns_the_header_alone(void **state)
{
	static const struct outcome greylisted = {.kind = OUTCOME_DEFERRED,
						  .class = CLASS_GREYLIST,
						  .code = 451,
						  .enhanced = "4.7.1",
						  .host = "mx",
						  .text = "later"};
	struct fixture f;
	const char *text;

	(void)state;
	begin(&f);
	f.dsn.kind = DSN_DELAYED;
	f.dsn.return_full = true;
	f.recipients[0].outcome = &greylisted;
	f.recipients[0].will_retry_until_wall = WALL_MS + 86400000;
	text = compose(&f);
	assert_has(text, "Action: delayed\r\nStatus: 4.7.1\r\n");
	assert_has(text, "Will-Retry-Until: Wed, 26 Nov 2025 05:53:20 +0000\r\n");
	assert_has(text, "    It will be tried until Wed, 26 Nov 2025 05:53:20 +0000\r\n");
	assert_has(text, "THIS IS A WARNING ONLY");
	assert_has(text, "Content-Type: text/rfc822-headers\r\n");
	assert_has(text, "Subject: hello\r\n\r\n--");
	assert_lacks(text, "body");
	end(&f);
}

static void test_success_is_relayed_delivered_or_expanded(void **state)
{
	static const struct outcome taken = {
	    .kind = OUTCOME_DELIVERED, .code = 250, .enhanced = "2.0.0", .host = "mx.example.com", .text = "ok"};
	struct fixture f;

	(void)state;
	begin(&f);
	f.dsn.kind = DSN_RELAYED;
	f.recipients[0].outcome = &taken;
	assert_has(compose(&f),
		   "Action: relayed\r\nStatus: 2.0.0\r\nRemote-MTA: dns; mx.example.com\r\nDiagnostic-Code: "
		   "smtp; 250 2.0.0 ok\r\n");
	f.recipients[0].is_final_delivery = true;
	assert_has(compose(&f), "Action: delivered\r\n");
	f.recipients[0].is_final_delivery = false;
	f.recipients[0].is_expanded = true;
	assert_has(compose(&f), "Action: expanded\r\n");
	end(&f);
}

/* G36: RFC 3464 §2.3.4: the status says what the action says. */
static void test_the_status_fits_the_action(void **state)
{
	static const struct {
		enum dsn_kind kind;
		enum outcome_kind outcome;
		const char *enhanced, *status;
	} cases[] = {
	    {DSN_FAILED, OUTCOME_FAILED, "5.7.1", "Status: 5.7.1\r\n"},
	    {DSN_FAILED, OUTCOME_FAILED, "", "Status: 5.0.0\r\n"},
	    {DSN_FAILED, OUTCOME_FAILED, "4.2.2", "Status: 5.0.0\r\n"},
	    {DSN_FAILED, OUTCOME_EXPIRED, "4.2.2", "Status: 5.4.7\r\n"},
	    {DSN_FAILED, OUTCOME_EXPIRED, "5.1.1", "Status: 5.4.7\r\n"},
	    {DSN_DELAYED, OUTCOME_DEFERRED, "5.7.8", "Status: 4.0.0\r\n"},
	    {DSN_DELAYED, OUTCOME_DEFERRED, "4.4.1", "Status: 4.4.1\r\n"},
	    {DSN_RELAYED, OUTCOME_DELIVERED, "", "Status: 2.0.0\r\n"},
	};
	struct fixture f;

	(void)state;
	begin(&f);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct outcome outcome = {.kind = cases[i].outcome, .code = 550};

		snprintf(outcome.enhanced, sizeof(outcome.enhanced), "%s", cases[i].enhanced);
		f.dsn.kind = cases[i].kind;
		f.recipients[0].outcome = &outcome;
		assert_has(compose(&f), cases[i].status);
	}
	end(&f);
}

/* No octet over 127, no bare CR or LF, no control; every line of sane length. */
static void assert_clean(const char *text, bool may_be_8bit, size_t longest)
{
	size_t column = 0;

	for (const char *at = text; *at; at++) {
		unsigned char c = (unsigned char)*at;

		if (c == '\r')
			assert_int_equal(at[1], '\n');
		else if (c == '\n')
			assert_int_equal(at[-1], '\r');
		else
			assert_true((c >= ' ' && c != 0x7f) || c == '\t');
		assert_true(c < 0x80 || may_be_8bit);
		column = c == '\n' ? 0 : column + 1;
		assert_true(column <= longest);
	}
}

/* G8, G38 */
static void test_hostile_text_stays_in_its_line_and_is_cut(void **state)
{
	struct outcome hostile = {.kind = OUTCOME_FAILED, .code = 550, .enhanced = "5.0.0"};
	struct fixture f;
	const char *text;

	(void)state;
	begin(&f);
	snprintf(hostile.text, sizeof(hostile.text),
		 "a\r\nAction: delivered\r\n\r\n--boundary\r\n\x1b]0;x\x07 \xff\xfe gr\xc3\xbc\xc3\x9f \x7f");
	snprintf(hostile.host, sizeof(hostile.host), "evil\r\nX: y[192.0.2.1]");
	f.recipients[0].outcome = &hostile;
	f.recipients[0].orcpt = SLICE("rfc822;a+0D+0AInjected:+20x");
	f.dsn.envid = SLICE("x+0D+0AInjected:+20y");
	text = compose(&f);
	assert_clean(text, false, 998);
	assert_lacks(text, "\r\nAction: delivered");
	assert_lacks(text, "\r\n--boundary");
	assert_lacks(text, "\r\nInjected");
	assert_lacks(text, "\r\nX: y");
	assert_lacks(text, "Remote-MTA");
	assert_has(text, "Original-Recipient: rfc822; a+0D+0AInjected:+20x\r\n");
	assert_has(text, "Original-Envelope-Id: x+0D+0AInjected:+20y\r\n");
	assert_has(text, "gr\\xC3\\xBC\\xC3\\x9F");

	memset(hostile.text, 'x', sizeof(hostile.text) - 1);
	text = compose(&f);
	assert_clean(text, false, 998);
	assert_has(text, "xxx...\r\n");
	memset(hostile.text, '\x01', sizeof(hostile.text) - 1);
	assert_clean(compose(&f), false, 998);
	end(&f);
}

static void test_many_random_texts_stay_clean(void **state)
{
	struct fixture f;
	struct rng_seeded rng;

	(void)state;
	begin(&f);
	rng_seeded_init(&rng, 7);
	for (int i = 0; i < 2000; i++) {
		struct outcome outcome = {.kind = OUTCOME_FAILED, .code = i % 2 ? 550 : 0};
		char address[64];
		size_t len = rng_below(&rng.rng, sizeof(outcome.text));

		rng.rng.fill(&rng.rng, outcome.text, len);
		rng.rng.fill(&rng.rng, outcome.host, rng_below(&rng.rng, 40));
		for (size_t k = 0; i % 3 == 0 && k < len; k++)
			outcome.text[k] = (char)(' ' + (unsigned char)outcome.text[k] % 8);
		outcome.text[len] = '\0';
		rng.rng.fill(&rng.rng, address, sizeof(address));
		f.recipients[0].address = slice_of(address, rng_below(&rng.rng, sizeof(address)));
		f.recipients[0].orcpt = slice_of(outcome.text, len);
		f.recipients[0].outcome = &outcome;
		f.dsn.envid = f.recipients[0].orcpt;
		assert_clean(compose(&f), false, 998);
	}
	end(&f);
}

/* I6 */
static void test_the_boundary_is_not_in_the_message(void **state)
{
	static const char hostile[] = "Subject: x\r\n\r\n--=_910a2dec89025cc1.beeb8da1658eec67--\r\n";
	struct fixture f;
	const char *text;

	(void)state;
	begin(&f);
	f.dsn.original = SLICE(hostile);
	f.dsn.original_bytes = sizeof(hostile) - 1;
	f.dsn.return_full = true;
	text = compose(&f);
	assert_true(f.result.returned_whole);
	assert_lacks(text, "boundary=\"=_910a2dec89025cc1.beeb8da1658eec67\"");
	assert_has(text, "\tboundary=\"=_");
	end(&f);
}

/* I6 */
static void test_only_what_is_asked_for_here_and_small_is_returned_whole(void **state)
{
	struct fixture f;
	char *large = xmalloc(DSN_ORIGINAL_MAX + 1);

	(void)state;
	begin(&f);
	compose(&f);
	assert_false(f.result.returned_whole);
	f.dsn.return_full = true;
	compose(&f);
	assert_true(f.result.returned_whole);
	f.dsn.original_bytes++;
	compose(&f);
	assert_false(f.result.returned_whole);

	memset(large, 'x', DSN_ORIGINAL_MAX + 1);
	memcpy(large, "Subject: x\r\n\r\n", 14);
	f.dsn.original = slice_of(large, DSN_ORIGINAL_MAX);
	f.dsn.original_bytes = DSN_ORIGINAL_MAX;
	compose(&f);
	assert_true(f.result.returned_whole);
	f.dsn.original = slice_of(large, DSN_ORIGINAL_MAX + 1);
	f.dsn.original_bytes = DSN_ORIGINAL_MAX + 1;
	assert_lacks(compose(&f), "xxxx");
	assert_false(f.result.returned_whole);
	/* Bare line ends never leave, and NUL cannot travel in a part that is not encoded. */
	f.dsn.original = SLICE("A: b\r\n\r\nx\ny\r\n");
	f.dsn.original_bytes = f.dsn.original.len;
	compose(&f);
	assert_false(f.result.returned_whole);
	f.dsn.original = SLICE("A: b\r\n\r\n\0\r\n");
	f.dsn.original_bytes = f.dsn.original.len;
	compose(&f);
	assert_false(f.result.returned_whole);
	free(large);
	end(&f);
}

static void test_a_long_header_is_cut_between_fields(void **state)
{
	struct buf header;
	struct fixture f;
	const char *text;

	(void)state;
	begin(&f);
	buf_init(&header, 1 << 20);
	while (buf_len(&header) < 2 * DSN_HEADER_MAX)
		assert_int_equal(buf_append_str(&header, "X-Field: value\r\n\tfolded\r\n"), 0);
	f.dsn.original = buf_slice(&header);
	f.dsn.original_bytes = f.dsn.original.len;
	text = compose(&f);
	assert_true(strlen(text) < DSN_HEADER_MAX + 4096);
	assert_has(text, "\tfolded\r\n\r\n--");
	assert_lacks(text, "X-Field: value\r\n\r\n--");
	buf_fini(&header);
	end(&f);
}

static void test_headers_that_are_not_plain_are_encoded(void **state)
{
	static const char *const headers[] = {"Subject: gr\xc3\xbc\xc3\x9f =\r\n\r\n", "Subject: a\rb\r\n\r\n",
					      "Subject: a\nb\r\n\r\n", "Subject: a\r"};
	static const char *const encoded[] = {"Subject: gr=C3=BC=C3=9F =3D\r\n", "Subject: a=0Db\r\n",
					      "Subject: a=0Ab\r\n", "Subject: a=0D\r\n"};
	struct fixture f;

	(void)state;
	begin(&f);
	for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
		const char *text;

		f.dsn.original = slice_of_str(headers[i]);
		f.dsn.original_bytes = f.dsn.original.len;
		text = compose(&f);
		assert_clean(text, false, 998);
		assert_has(text, "Content-Type: text/rfc822-headers\r\nContent-Description: Header of the message\r\n"
				 "Content-Transfer-Encoding: quoted-printable\r\n");
		assert_has(text, encoded[i]);
	}
	end(&f);
}

static void test_a_long_header_line_is_encoded(void **state)
{
	struct fixture f;
	char header[3000] = "Subject: ";

	(void)state;
	begin(&f);
	memset(header + 9, 'x', 2000);
	memcpy(header + 2009, "\r\n\r\n", 5);
	f.dsn.original = slice_of_str(header);
	f.dsn.original_bytes = f.dsn.original.len;
	assert_clean(compose(&f), false, 998);
	end(&f);
}

/* I6 */
static void test_an_8bit_message_is_returned_as_8bit(void **state)
{
	static const char eight[] = "Subject: x\r\n\r\ngr\xc3\xbc\xc3\x9f\r\n";
	struct fixture f;
	const char *text;

	(void)state;
	begin(&f);
	f.dsn.original = SLICE(eight);
	f.dsn.original_bytes = sizeof(eight) - 1;
	f.dsn.return_full = true;
	text = compose(&f);
	assert_true(f.result.has_8bit && !f.result.needs_smtputf8);
	assert_has(text, "\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\nThis is");
	assert_has(text, "Content-Transfer-Encoding: 8bit\r\n\r\nSubject: x\r\n\r\ngr\xc3\xbc\xc3\x9f\r\n");
	end(&f);
}

/* An alias was written to: whoever wrote knows that name, not what stands behind it. */
static void test_the_submitted_address_is_the_original_one(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f);
	f.recipients[0].submitted = SLICE("root");
	assert_has(compose(&f), "Original-Recipient: rfc822; Joe+X@example.com\r\n");
	f.recipients[0].orcpt = SLICE("");
	assert_has(compose(&f),
		   "\r\n\r\nOriginal-Recipient: rfc822; root\r\nFinal-Recipient: rfc822; joe@example.com\r\n");
	end(&f);
}

/* RFC 6533. */
static void test_utf8_addresses(void **state)
{
	static const char header[] = "Subject: gr\xc3\xbc\xc3\x9f\r\n\r\n";
	struct fixture f;
	const char *text;

	(void)state;
	begin(&f);
	f.recipients[0].address = SLICE("j\xc3\xb6rg+a@b\xc3\xbc"
					"cher.example");
	f.recipients[0].orcpt = SLICE("utf-8;\xe2\x82\xac@x.example");
	f.dsn.original = SLICE(header);
	f.dsn.original_bytes = sizeof(header) - 1;
	text = compose(&f);
	assert_clean(text, false, 998);
	assert_has(text, "Original-Recipient: utf-8; \\x{20AC}@x.example\r\n"
			 "Final-Recipient: utf-8; j\\x{F6}rg\\x{2B}a@b\\x{FC}cher.example\r\n");
	assert_has(text, "Content-Type: message/delivery-status\r\n");
	assert_false(f.result.needs_smtputf8);

	/* A sender with such an address can read the same in UTF-8. */
	f.dsn.to = SLICE("\xc3\xa4@x.example");
	text = compose(&f);
	assert_clean(text, true, 998);
	assert_true(f.result.needs_smtputf8 && f.result.has_8bit);
	assert_has(text, "To: <\xc3\xa4@x.example>\r\n");
	assert_has(text, "Content-Type: message/global-delivery-status\r\n");
	assert_has(text, "Original-Recipient: utf-8; \xe2\x82\xac@x.example\r\n"
			 "Final-Recipient: utf-8; j\xc3\xb6rg+a@b\xc3\xbc"
			 "cher.example\r\n");
	assert_has(text, "Content-Type: message/global-headers\r\n");
	/* No control comes along. */
	f.recipients[0].orcpt = SLICE("utf-8;\xe2\x82\xac\r\nX: y\0");
	text = compose(&f);
	assert_has(text, "Original-Recipient: utf-8; \xe2\x82\xac\\x0D\\x0AX: y\\x00\r\n");
	f.recipients[0].orcpt = SLICE("utf-8;\\x{20AC}@x.example");
	assert_has(compose(&f), "Original-Recipient: utf-8; \\x{20AC}@x.example\r\n");
	end(&f);
}

static void test_thousands_of_recipients_are_counted(void **state)
{
	enum { COUNT = DSN_RECIPIENTS_MAX + 500 };
	struct dsn_recipient *recipients = xcalloc(COUNT, sizeof(*recipients));
	struct fixture f;

	(void)state;
	begin(&f);
	for (size_t i = 0; i < COUNT; i++)
		recipients[i] = f.recipients[0];
	f.dsn.recipients = recipients;
	f.dsn.recipient_count = COUNT;
	assert_has(compose(&f), "  and 500 more\r\n");
	free(recipients);
	end(&f);
}

/* The largest that limits.recipients and a talkative server bring about. */
static void test_as_many_recipients_are_told_as_fit(void **state)
{
	struct dsn_recipient *recipients = xcalloc(DSN_RECIPIENTS_MAX, sizeof(*recipients));
	struct outcome talkative = unknown_user;
	char address[512], *at = address;
	struct fixture f;
	const char *text;

	(void)state;
	begin(&f);
	for (int i = 0; i < 150; i++)
		at = stpcpy(at, "\xce\xbb");
	strcpy(at, "@example.com");
	for (size_t i = 0; i + 2 < sizeof(talkative.text); i += 2)
		strcpy(talkative.text + i, "\xce\xbb");
	for (size_t i = 0; i < DSN_RECIPIENTS_MAX; i++)
		recipients[i] = (struct dsn_recipient){
		    .address = slice_of_str(address), .submitted = slice_of_str(address), .outcome = &talkative};
	f.dsn.recipients = recipients;
	f.dsn.recipient_count = DSN_RECIPIENTS_MAX;
	text = compose(&f);
	assert_has(text, "=CE=BB");
	assert_has(text, "  and 500 more\r\n");
	free(recipients);
	end(&f);
}

static void test_what_does_not_fit_leaves_nothing_behind(void **state)
{
	struct fixture f;
	struct buf small;

	(void)state;
	begin(&f);
	compose(&f);
	for (size_t size = 1; size < buf_len(&f.out); size += 7) {
		buf_init(&small, size);
		if (size > 3)
			assert_int_equal(buf_append_str(&small, "abc"), 0);
		assert_int_equal(dsn_compose(&small, &f.dsn, NULL), ERR_LIMIT);
		assert_int_equal(buf_len(&small), size > 3 ? 3 : 0);
		buf_fini(&small);
	}
	end(&f);
}

static void test_a_receiver_that_is_no_address_is_refused(void **state)
{
	static const char *const bad[] = {"", "a@b\r\nBcc: x@y", "a b@c", "<a@b>", "a@b>, <c@d"};
	struct fixture f;

	(void)state;
	begin(&f);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		f.dsn.to = slice_of_str(bad[i]);
		assert_int_equal(dsn_compose(&f.out, &f.dsn, NULL), ERR_SYNTAX);
		assert_int_equal(buf_len(&f.out), 0);
	}
	end(&f);
}

static void test_no_references_from_a_strange_message_id(void **state)
{
	static const char *const headers[] = {"Message-ID: <a b@c>\r\n\r\n",   "Message-ID: <a@b> <c@d>\r\n\r\n",
					      "Message-ID: x\r\n\r\n",	       "Message-ID: <a\r\n b@c>\r\n\r\n",
					      "\r\nMessage-ID: <a@b>\r\n\r\n", ""};
	struct fixture f;

	(void)state;
	begin(&f);
	for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
		f.dsn.original = slice_of_str(headers[i]);
		f.dsn.original_bytes = f.dsn.original.len;
		assert_lacks(compose(&f), "In-Reply-To");
	}
	end(&f);
}

static int set_zone(void **state)
{
	(void)state;
	return setenv("TZ", "UTC", 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_a_whole_failure),
	    cmocka_unit_test(test_a_delay_says_until_when_and_returns_the_header_alone),
	    cmocka_unit_test(test_success_is_relayed_delivered_or_expanded),
	    cmocka_unit_test(test_the_status_fits_the_action),
	    cmocka_unit_test(test_hostile_text_stays_in_its_line_and_is_cut),
	    cmocka_unit_test(test_many_random_texts_stay_clean),
	    cmocka_unit_test(test_the_boundary_is_not_in_the_message),
	    cmocka_unit_test(test_only_what_is_asked_for_here_and_small_is_returned_whole),
	    cmocka_unit_test(test_a_long_header_is_cut_between_fields),
	    cmocka_unit_test(test_headers_that_are_not_plain_are_encoded),
	    cmocka_unit_test(test_a_long_header_line_is_encoded),
	    cmocka_unit_test(test_an_8bit_message_is_returned_as_8bit),
	    cmocka_unit_test(test_the_submitted_address_is_the_original_one),
	    cmocka_unit_test(test_utf8_addresses),
	    cmocka_unit_test(test_thousands_of_recipients_are_counted),
	    cmocka_unit_test(test_as_many_recipients_are_told_as_fit),
	    cmocka_unit_test(test_what_does_not_fit_leaves_nothing_behind),
	    cmocka_unit_test(test_a_receiver_that_is_no_address_is_refused),
	    cmocka_unit_test(test_no_references_from_a_strange_message_id),
	};
	return cmocka_run_group_tests_name("dsn", tests, set_zone, NULL);
}
