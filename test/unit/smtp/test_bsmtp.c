#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "smtp/bsmtp.h"

static void what_is_written_is_read(void **state)
{
	struct smtp_client_recipient recipients[] = {
	    {SLICE("one@example.net"), SLICE("rfc822;one@example.net"), SMTP_DSN_SUCCESS | SMTP_DSN_FAILURE},
	    {SLICE("\"a b\"@example.net"), {0}, SMTP_DSN_NEVER},
	    {SLICE("j\xc3\xb6rg@example.net"), {0}, 0},
	};
	struct smtp_transaction t = {.sender = SLICE("root@host.example"),
				     .recipients = recipients,
				     .recipient_count = 3,
				     .content_bytes = 12345,
				     .has_8bit = true,
				     .ret = SMTP_DSN_RET_HDRS,
				     .envid = SLICE("job+2B1")};
	struct bsmtp batch;
	const char *why = NULL;
	struct buf out;
	(void)state;

	buf_init(&out, 10000);
	assert_int_equal(bsmtp_format(&out, &t), 0);
	assert_true(slice_eq(buf_slice(&out),
			     SLICE("MAIL FROM:<root@host.example> SIZE=12345 BODY=8BITMIME RET=HDRS ENVID=job+2B1\r\n"
				   "RCPT TO:<one@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;one@example.net\r\n"
				   "RCPT TO:<\"a b\"@example.net> NOTIFY=NEVER\r\n"
				   "RCPT TO:<j\xc3\xb6rg@example.net>\r\n"
				   "DATA\r\n")));
	for (size_t cut = 0; cut < buf_len(&out); cut++)
		assert_int_equal(bsmtp_parse(slice_to(buf_slice(&out), cut), &batch, &why), 0);
	buf_append_str(&out, "Subject: x\r\n");
	assert_int_equal(bsmtp_parse(buf_slice(&out), &batch, &why), 1);
	assert_true(slice_eq(slice_from(buf_slice(&out), batch.content_at), SLICE("Subject: x\r\n")));
	assert_true(slice_eq(batch.transaction.sender, t.sender));
	assert_true(batch.transaction.content_bytes == 12345 && batch.transaction.has_8bit);
	assert_int_equal(batch.transaction.ret, SMTP_DSN_RET_HDRS);
	assert_true(slice_eq(batch.transaction.envid, t.envid));
	assert_int_equal(batch.transaction.recipient_count, 3);
	for (size_t i = 0; i < 3; i++) {
		assert_true(slice_eq(batch.transaction.recipients[i].address, recipients[i].address));
		assert_true(slice_eq(batch.transaction.recipients[i].orcpt, recipients[i].orcpt));
		assert_int_equal(batch.transaction.recipients[i].notify, recipients[i].notify);
	}
	bsmtp_fini(&batch);
	buf_fini(&out);
}

static void the_null_sender(void **state)
{
	struct bsmtp batch;
	const char *why;
	(void)state;

	assert_int_equal(bsmtp_parse(SLICE("MAIL FROM:<> SIZE=1\r\nRCPT TO:<a@example.net>\r\nDATA\r\n"), &batch, &why),
			 1);
	assert_int_equal(batch.transaction.sender.len, 0);
	bsmtp_fini(&batch);
}

static void nothing_breaks_a_line(void **state)
{
	struct smtp_client_recipient r = {SLICE("a@example.net>\r\nRCPT TO:<b@example.net"), {0}, 0};
	struct smtp_transaction t = {
	    .sender = SLICE("x@example.org"), .recipients = &r, .recipient_count = 1, .content_bytes = 1};
	struct buf out;
	(void)state;

	buf_init(&out, 10000);
	assert_int_equal(bsmtp_format(&out, &t), ERR_SYNTAX);
	r.address = SLICE("a@example.net");
	t.sender = SLICE("x\n@example.org");
	assert_int_equal(bsmtp_format(&out, &t), ERR_SYNTAX);
	buf_fini(&out);
}

static void what_is_none_is_refused(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
	    {"DATA\r\n", "no recipients"},
	    {"MAIL FROM:<a@b> SIZE=1\r\nDATA\r\n", "no recipients"},
	    {"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\n", "MAIL without SIZE"},
	    {"MAIL FROM:<a@b> SIZE=99999999999999999999999\r\n", "a parameter of MAIL that is not understood"},
	    {"MAIL FROM:<a@b> SIZE=1 AUTH=root\r\n", "a parameter of MAIL that is not understood"},
	    {"MAIL FROM:<a@b> SIZE=1\r\nMAIL FROM:<a@b> SIZE=1\r\n", "a second MAIL"},
	    {"MAIL FROM:<> SIZE=1\r\nMAIL FROM:<> SIZE=1\r\n", "a second MAIL"},
	    {"RCPT TO:<a@b>\r\n", "RCPT before MAIL"},
	    {"MAIL FROM:<a@b> SIZE=1\r\nRCPT TO:<a@b> NOTIFY=NEVER,DELAY\r\n",
	     "a parameter of RCPT that is not understood"},
	    {"MAIL FROM:<a@b> SIZE=1\nRCPT TO:<a@b>\nDATA\n", "a line that is too long or not ended by CRLF"},
	    {"\r\n", "a line that is neither MAIL, RCPT nor DATA"},
	    {"EHLO x\r\n", "a line that is neither MAIL, RCPT nor DATA"},
	};
	static char endless[5000];
	struct bsmtp batch;
	const char *why;
	(void)state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(bsmtp_parse(slice_of_str(cases[i].text), &batch, &why), -1);
		assert_string_equal(why, cases[i].why);
		assert_null(batch.recipients);
	}
	assert_int_equal(bsmtp_parse(SLICE("MAIL FROM:<a@b@c> SIZE=1\r\n"), &batch, &why), -1);
	memset(endless, 'x', sizeof(endless));
	assert_int_equal(bsmtp_parse(slice_of(endless, sizeof(endless)), &batch, &why), -1);
	assert_int_equal(bsmtp_parse(SLICE(""), &batch, &why), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_is_written_is_read),
	    cmocka_unit_test(the_null_sender),
	    cmocka_unit_test(nothing_breaks_a_line),
	    cmocka_unit_test(what_is_none_is_refused),
	};
	return cmocka_run_group_tests_name("bsmtp", tests, NULL, NULL);
}
