/* Replies of real servers, and what they must mean. */
#include "base/base.h"
#include "relayd/outcome.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct row {
	enum delivery_stage stage;
	bool at_relayhost;
	unsigned attempts;
	int code;
	const char *enhanced, *text;
	enum outcome_kind kind;
	enum failure_class class;
};

static const struct row rows[] = {
    {STAGE_DOT, false, 0, 250, "2.0.0", "Ok: queued as 4F2", OUTCOME_DELIVERED, CLASS_NONE},
    {STAGE_DOT, false, 0, 250, "5.1.1", "odd but the basic code rules", OUTCOME_DELIVERED, CLASS_NONE},
    {STAGE_RCPT, false, 0, 450, "4.2.0",
     "<u@example.net>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/example.net.html",
     OUTCOME_DEFERRED, CLASS_GREYLIST},
    {STAGE_DOT, false, 0, 451, "4.7.1", "Try again later", OUTCOME_DEFERRED, CLASS_GREYLIST},
    {STAGE_DOT, false, 3, 451, "4.7.1", "Try again later", OUTCOME_DEFERRED, CLASS_POLICY},
    {STAGE_RCPT, false, 0, 451, "4.7.1", "Greylisting in action, please come back in 00:05:00", OUTCOME_DEFERRED,
     CLASS_GREYLIST},
    {STAGE_DATA, false, 0, 451, "", "Temporary failure, please try again later.", OUTCOME_DEFERRED, CLASS_GREYLIST},
    {STAGE_MAIL, false, 0, 451, "4.7.500", "Server busy. Please try again later from [192.0.2.1]. (S77714)",
     OUTCOME_DEFERRED, CLASS_THROTTLE},
    {STAGE_GREETING, false, 0, 421, "4.7.0",
     "[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume", OUTCOME_DEFERRED, CLASS_THROTTLE},
    {STAGE_DOT, false, 0, 421, "4.7.28", "Our system has detected an unusual rate of unsolicited mail",
     OUTCOME_DEFERRED, CLASS_THROTTLE},
    {STAGE_RCPT, false, 0, 450, "4.2.1", "The user you are trying to contact is receiving email too quickly",
     OUTCOME_DEFERRED, CLASS_THROTTLE},
    {STAGE_RCPT, false, 0, 550, "5.1.1", "<nobody@example.net>: Recipient address rejected: User unknown",
     OUTCOME_FAILED, CLASS_MAILBOX},
    {STAGE_RCPT, false, 0, 550, "", "no such user here", OUTCOME_FAILED, CLASS_MAILBOX},
    {STAGE_RCPT, false, 0, 452, "4.2.2", "Mailbox full", OUTCOME_DEFERRED, CLASS_MAILBOX},
    {STAGE_DOT, false, 0, 554, "5.7.1", "Message rejected as spam", OUTCOME_FAILED, CLASS_POLICY},
    {STAGE_GREETING, false, 0, 554, "", "no SMTP service here", OUTCOME_DEFERRED, CLASS_POLICY},
    {STAGE_AUTH, true, 0, 535, "5.7.8", "Authentication failed", OUTCOME_DEFERRED, CLASS_AUTH},
    {STAGE_MAIL, true, 0, 530, "5.7.0", "Authentication required", OUTCOME_DEFERRED, CLASS_AUTH},
    {STAGE_MAIL, true, 0, 550, "5.4.5", "Daily user sending limit exceeded", OUTCOME_DEFERRED, CLASS_THROTTLE},
    {STAGE_MAIL, false, 0, 550, "5.4.5", "Daily user sending limit exceeded", OUTCOME_FAILED, CLASS_THROTTLE},
    {STAGE_MAIL, false, 0, 421, "4.3.2", "System shutting down", OUTCOME_DEFERRED, CLASS_CONNECT},
    {STAGE_DOT, false, 0, 550, "2.0.0", "contradiction: the basic code rules", OUTCOME_FAILED, CLASS_OTHER},
};

static void outcome_of_real_replies(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct row *row = &rows[i];
		struct outcome_place place = {row->stage, "mx.example.net[192.0.2.1]", row->at_relayhost,
					      row->attempts};
		struct outcome out;

		outcome_of_reply(&out, &place, row->code, row->enhanced, row->text);
		if (out.kind != row->kind || out.class != row->class)
			fail_msg("%d %s %s: %s/%s", row->code, row->enhanced, row->text, outcome_kind_name(out.kind),
				 failure_class_name(out.class));
		assert_string_equal(out.host, place.host);
		assert_int_equal(out.code, row->code);
		assert_true(out.enhanced[0] != '\0');
	}
}

static void outcome_of_account_trouble_never_fails_the_message(void **state)
{
	struct outcome_place place = {STAGE_AUTH, "smtp.example.net", true, 0};
	struct outcome out;

	(void)state;
	outcome_of_reply(&out, &place, 535, "5.7.8", "bad credentials");
	assert_true(outcome_is_account_trouble(&out));
	place.stage = STAGE_RCPT;
	outcome_of_reply(&out, &place, 550, "5.1.1", "unknown");
	assert_false(outcome_is_account_trouble(&out));
}

static void outcome_of_faults(void **state)
{
	struct outcome_place place = {STAGE_CONNECT, "mx.example.net", false, 0};
	struct outcome out;

	(void)state;
	outcome_of_fault(&out, &place, OUTCOME_DEFERRED, CLASS_CONNECT, NULL, "connection refused");
	assert_string_equal(out.enhanced, "4.4.1");
	assert_true(outcome_is_host_trouble(&out));
	place.stage = STAGE_DNS;
	outcome_of_fault(&out, &place, OUTCOME_FAILED, CLASS_DNS, "5.1.2", "no such domain");
	assert_string_equal(out.enhanced, "5.1.2");
	assert_false(outcome_is_host_trouble(&out));
}

static int hint(enum failure_class class, const char *text)
{
	struct outcome out = {.kind = OUTCOME_DEFERRED, .class = class, .code = 451};
	slice_to_cstr(slice_of_str(text), out.text, sizeof(out.text));
	return outcome_retry_hint_sec(&out);
}

static void hints_are_read_only_where_they_are_hints(void **state)
{
	(void)state;
	assert_int_equal(hint(CLASS_GREYLIST, "Greylisted, retry in 300 seconds"), 300);
	assert_int_equal(hint(CLASS_GREYLIST, "please come back in 00:05:00"), 300);
	assert_int_equal(hint(CLASS_GREYLIST, "try again in 5 minutes"), 300);
	assert_int_equal(hint(CLASS_THROTTLE, "rate limited, wait 2h"), 7200);
	assert_int_equal(hint(CLASS_GREYLIST, "retry after 5 s"), 30);
	assert_int_equal(hint(CLASS_GREYLIST, "come back in 999999 hours"), 14400);
	assert_int_equal(hint(CLASS_GREYLIST, "from [192.0.2.1] later"), 0);
	assert_int_equal(hint(CLASS_GREYLIST, "see http://help.example/300-seconds"), 0);
	assert_int_equal(hint(CLASS_GREYLIST, "ticket A300 sec"), 0);
	assert_int_equal(hint(CLASS_GREYLIST, "Try again later"), 0);
	assert_int_equal(hint(CLASS_OTHER, "retry in 300 seconds"), 0);
}

static void bounce_classes(void **state)
{
	struct outcome_place place = {STAGE_RCPT, "mx", false, 0};
	struct outcome out;

	(void)state;
	outcome_of_reply(&out, &place, 550, "5.1.1", "unknown");
	assert_string_equal(outcome_bounce_class(&out), "no_user");
	outcome_of_reply(&out, &place, 552, "5.3.4", "too big");
	assert_string_equal(outcome_bounce_class(&out), "size");
	outcome_of_reply(&out, &place, 554, "5.7.1", "Relay access denied");
	assert_string_equal(outcome_bounce_class(&out), "relay");
	outcome_of_fault(&out, &place, OUTCOME_EXPIRED, CLASS_CONNECT, "5.4.7", "gave up");
	assert_string_equal(outcome_bounce_class(&out), "expired");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(outcome_of_real_replies),
	    cmocka_unit_test(outcome_of_account_trouble_never_fails_the_message),
	    cmocka_unit_test(outcome_of_faults),
	    cmocka_unit_test(hints_are_read_only_where_they_are_hints),
	    cmocka_unit_test(bounce_classes),
	};
	return cmocka_run_group_tests_name("outcome", tests, NULL, NULL);
}
