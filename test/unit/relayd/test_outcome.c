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
    {STAGE_RCPT, false, 0, 452, "4.2.2", "Greylisted, please try again in a few moments.", OUTCOME_DEFERRED,
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
    {STAGE_RCPT, false, 0, 551, "5.1.6", "User not local; please try <them@elsewhere.example>", OUTCOME_FAILED,
     CLASS_MAILBOX},
    {STAGE_RCPT, false, 0, 452, "4.2.2", "Mailbox full", OUTCOME_DEFERRED, CLASS_MAILBOX},
    {STAGE_DOT, false, 0, 554, "5.7.1", "Message rejected as spam", OUTCOME_FAILED, CLASS_POLICY},
    {STAGE_GREETING, false, 0, 554, "", "no SMTP service here", OUTCOME_DEFERRED, CLASS_POLICY},
    {STAGE_AUTH, true, 0, 535, "5.7.8", "Authentication failed", OUTCOME_DEFERRED, CLASS_AUTH},
    {STAGE_MAIL, true, 0, 530, "5.7.0", "Authentication required", OUTCOME_DEFERRED, CLASS_AUTH},
    {STAGE_MAIL, true, 0, 530, "5.7.0", "Must issue a STARTTLS command first", OUTCOME_DEFERRED, CLASS_AUTH},
    {STAGE_MAIL, false, 0, 530, "5.7.0", "Must issue a STARTTLS command first", OUTCOME_DEFERRED, CLASS_TLS},
    {STAGE_RCPT, false, 0, 554, "5.7.1", "STARTTLS is required to send mail", OUTCOME_DEFERRED, CLASS_TLS},
    {STAGE_MAIL, false, 0, 530, "5.7.0", "Authentication required", OUTCOME_FAILED, CLASS_AUTH},
    {STAGE_MAIL, true, 0, 550, "5.4.5", "Daily user sending limit exceeded", OUTCOME_DEFERRED, CLASS_THROTTLE},
    {STAGE_MAIL, false, 0, 550, "5.4.5", "Daily user sending limit exceeded", OUTCOME_FAILED, CLASS_THROTTLE},
    {STAGE_MAIL, false, 0, 421, "4.3.2", "System shutting down", OUTCOME_DEFERRED, CLASS_CONNECT},
    {STAGE_DOT, false, 0, 550, "2.0.0", "contradiction: the basic code rules", OUTCOME_FAILED, CLASS_OTHER},
};

/* G23, G36 */
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

/* What relayhosts say about our account, and what it must mean. */
enum account { MESSAGE, LOGIN, LIMIT, SENDER, LATER };

static const struct {
	enum delivery_stage stage;
	int code;
	const char *enhanced, *text;
	enum account account;
} accounts[] = {
    /* Amazon SES */
    {STAGE_AUTH, 535, "", "Authentication Credentials Invalid", LOGIN},
    {STAGE_MAIL, 530, "", "Authentication required", LOGIN},
    {STAGE_DOT, 454, "", "Throttling failure: Daily message quota exceeded.", LIMIT},
    {STAGE_DOT, 454, "", "Throttling failure: Maximum sending rate exceeded.", LATER},
    {STAGE_DOT, 554, "",
     "Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1: "
     "app@example.org",
     SENDER},
    {STAGE_DOT, 554, "",
     "Access denied: User `arn:aws:iam::123456789012:user/smtp' is not authorized to perform `ses:SendRawEmail' on "
     "resource `arn:aws:ses:eu-west-1:123456789012:identity/example.org'",
     LOGIN},
    {STAGE_DOT, 554, "",
     "Sending paused for this account. For more information, please check the inbox of the email address associated "
     "with your AWS account.",
     LOGIN},
    {STAGE_DOT, 554, "", "Transaction failed: Duplicate header 'Subject'.", MESSAGE},
    {STAGE_RCPT, 501, "", "Invalid RCPT TO address provided", MESSAGE},
    /* Gmail, Google Workspace */
    {STAGE_AUTH, 535, "5.7.8", "Username and Password not accepted. Learn more at", LOGIN},
    {STAGE_AUTH, 534, "5.7.9", "Application-specific password required. Learn more at", LOGIN},
    {STAGE_AUTH, 454, "4.7.0", "Too many login attempts, please try again later.", LOGIN},
    {STAGE_MAIL, 530, "5.7.0", "Authentication Required. For more information, go to", LOGIN},
    {STAGE_DOT, 550, "5.4.5", "Daily user sending limit exceeded. For more information on Gmail sending limits go to",
     LIMIT},
    {STAGE_RCPT, 550, "5.4.5", "Daily SMTP relay limit exceeded for customer.", LIMIT},
    {STAGE_MAIL, 550, "5.7.1", "Daily SMTP relay sending limit exceeded for this user", LIMIT},
    {STAGE_RCPT, 550, "5.7.1",
     "Invalid credentials for relay [192.0.2.1]. The IP address you've registered in your G Suite SMTP Relay service "
     "doesn't match",
     LOGIN},
    {STAGE_DOT, 552, "5.7.0", "This message was blocked because its content presents a potential security issue.",
     MESSAGE},
    {STAGE_RCPT, 553, "5.1.3", "The recipient address <x@> is not a valid RFC 5321 address.", MESSAGE},
    /* Microsoft 365 */
    {STAGE_AUTH, 535, "5.7.3", "Authentication unsuccessful [AM0PR01CA0000.eurprd01.prod.exchangelabs.com]", LOGIN},
    {STAGE_AUTH, 535, "5.7.139",
     "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit "
     "https://aka.ms/smtp_auth_disabled for more information.",
     LOGIN},
    {STAGE_MAIL, 530, "5.7.57", "Client not authenticated to send mail.", LOGIN},
    {STAGE_MAIL, 550, "5.7.57", "SMTP; Client was not authenticated to send anonymous mail during MAIL FROM", LOGIN},
    {STAGE_MAIL, 432, "4.3.2", "Concurrent connections limit exceeded.", LATER},
    {STAGE_DOT, 554, "5.2.252", "SendAsDenied; app@example.org not allowed to send as other@example.org;", SENDER},
    {STAGE_DOT, 554, "5.2.0",
     "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to "
     "a permanent exception",
     SENDER},
    {STAGE_DOT, 550, "5.7.60", "SMTP; Client does not have permissions to send as this sender", SENDER},
    {STAGE_DOT, 554, "5.2.0",
     "STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a permanent "
     "exception with message The message can't be submitted because the sender's submission quota was exceeded.",
     LIMIT},
    {STAGE_DOT, 554, "5.2.0", "STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message", LOGIN},
    {STAGE_DOT, 550, "5.1.90",
     "Your message can't be sent because you've reached your daily limit for message recipients", LIMIT},
    {STAGE_RCPT, 550, "5.7.705", "Access denied, tenant has exceeded threshold.", LIMIT},
    {STAGE_MAIL, 501, "5.1.8", "Access denied, bad outbound sender AS(42003)", LOGIN},
    {STAGE_DOT, 550, "5.1.10", "RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", MESSAGE},
    /* Mailgun */
    {STAGE_AUTH, 535, "5.7.0", "Mailgun is not loving your login or password", LOGIN},
    {STAGE_DOT, 421, "", "Domain example.org is not allowed to send: recipient limit exceeded", LIMIT},
    {STAGE_DOT, 550, "5.7.1",
     "Domain example.org is not allowed to send: The domain is unverified and requires DNS configuration.", LOGIN},
    {STAGE_DOT, 550, "5.7.1",
     "Free accounts are for test purposes only. Please upgrade or add the address to your authorized recipients.",
     MESSAGE},
    /* SendGrid */
    {STAGE_AUTH, 535, "", "Authentication failed: Bad username / password", LOGIN},
    {STAGE_AUTH, 451, "", "Authentication failed: Maximum credits exceeded", LOGIN},
    {STAGE_DOT, 550, "",
     "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved.",
     SENDER},
    {STAGE_MAIL, 550, "", "Unauthenticated senders not allowed", LOGIN},
    {STAGE_MAIL, 450, "", "too frequent connects from 192.0.2.1, please try again later.", LATER},
    {STAGE_DOT, 552, "", "Message size exceeds fixed maximum message size", MESSAGE},
    /* Others, and a smart host of one's own */
    {STAGE_MAIL, 553, "", "Relaying disallowed as app@example.org", SENDER},
    {STAGE_DOT, 550, "5.4.6", "Unusual sending activity detected. Please try after sometime", LOGIN},
    {STAGE_DOT, 450, "", "The from.email domain must be verified in your account to send emails. #MS42207", SENDER},
    {STAGE_RCPT, 553, "5.7.1", "<a@example.org>: Sender address rejected: not owned by user app", SENDER},
    {STAGE_RCPT, 554, "5.7.1", "<user@example.net>: Relay access denied", SENDER},
    {STAGE_RCPT, 550, "5.7.54", "SMTP; Unable to relay recipient in non-accepted domain", SENDER},
    {STAGE_RCPT, 550, "5.2.1", "The email account that you tried to reach is disabled.", MESSAGE},
    {STAGE_RCPT, 550, "5.1.1", "User unknown; daily news are not for them", MESSAGE},
};

static void accounts_at_relayhosts(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(accounts); i++) {
		enum account account = accounts[i].account;
		struct outcome_place place = {accounts[i].stage, "smtp.example.net[192.0.2.1]", true, 0};
		struct outcome out;
		enum failure_class class;

		outcome_of_reply(&out, &place, accounts[i].code, accounts[i].enhanced, accounts[i].text);
		class = account == LOGIN || account == SENDER ? CLASS_AUTH : CLASS_THROTTLE;
		if ((out.kind == OUTCOME_FAILED) != (account == MESSAGE) ||
		    (account != MESSAGE && out.class != class) ||
		    outcome_is_account_trouble(&out) != (account != MESSAGE && account != LATER) ||
		    outcome_is_refused_sender(&out) != (account == SENDER))
			fail_msg("%d %s %s: %s/%s, trouble %d", accounts[i].code, accounts[i].enhanced,
				 accounts[i].text, outcome_kind_name(out.kind), failure_class_name(out.class),
				 outcome_is_account_trouble(&out));
	}
}

/* The same words at an MX are about the message, or about a stranger like any other. */
static void accounts_are_a_matter_of_relayhosts_alone(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(accounts); i++) {
		struct outcome_place place = {accounts[i].stage, "mx.example.net[192.0.2.1]", false, 0};
		struct outcome out;

		if (accounts[i].stage < STAGE_MAIL)
			continue;
		outcome_of_reply(&out, &place, accounts[i].code, accounts[i].enhanced, accounts[i].text);
		assert_int_equal(out.kind, accounts[i].code >= 500 ? OUTCOME_FAILED : OUTCOME_DEFERRED);
		assert_false(outcome_is_refused_sender(&out));
	}
}

static void a_message_that_is_to_blame_fails(void **state)
{
	struct outcome_place place = {STAGE_DOT, "smtp.example.net", true, 0};
	struct outcome out;

	(void)state;
	outcome_of_reply(&out, &place, 554, "", "Email address is not verified");
	outcome_blame_message(&out);
	assert_int_equal(out.kind, OUTCOME_FAILED);
	assert_int_equal(out.class, CLASS_POLICY);
	outcome_of_reply(&out, &place, 450, "", "The domain must be verified");
	outcome_blame_message(&out);
	assert_int_equal(out.kind, OUTCOME_DEFERRED);
}

static void outcome_of_faults(void **state)
{
	struct outcome_place place = {STAGE_CONNECT, "mx.example.net", false, 0};
	struct outcome out;

	(void)state;
	outcome_of_fault(&out, &place, OUTCOME_DEFERRED, CLASS_CONNECT, NULL, "connection refused");
	assert_string_equal(out.enhanced, "4.4.1");
	assert_true(outcome_is_host_trouble(&out));
	place.stage = STAGE_RCPT;
	outcome_of_fault(&out, &place, OUTCOME_DEFERRED, CLASS_CONNECT, NULL, "connection lost");
	assert_true(outcome_is_host_trouble(&out));
	place.stage = STAGE_DNS;
	outcome_of_fault(&out, &place, OUTCOME_FAILED, CLASS_DNS, "5.1.2", "no such domain");
	assert_string_equal(out.enhanced, "5.1.2");
	assert_false(outcome_is_host_trouble(&out));
}

static bool holds_everywhere(enum delivery_stage stage, int code, const char *enhanced, const char *text)
{
	struct outcome_place place = {stage, "mx.example.net[192.0.2.1]", stage == STAGE_AUTH, 0};
	struct outcome out;

	outcome_of_reply(&out, &place, code, enhanced, text);
	return outcome_holds_everywhere(&out);
}

static void what_all_hosts_would_say(void **state)
{
	(void)state;
	assert_true(holds_everywhere(STAGE_GREETING, 421, "4.7.0", "[TSS04] Messages temporarily deferred"));
	assert_true(holds_everywhere(STAGE_GREETING, 421, "4.7.28", "unusual rate of unsolicited mail"));
	assert_true(holds_everywhere(STAGE_AUTH, 535, "5.7.8", "Authentication failed"));
	assert_false(holds_everywhere(STAGE_AUTH, 454, "4.7.0", "Temporary authentication failure"));
	assert_true(holds_everywhere(STAGE_GREETING, 451, "4.7.500", "Server busy. Please try again later"));
	assert_false(holds_everywhere(STAGE_GREETING, 421, "4.3.2", "Server busy"));
	assert_false(holds_everywhere(STAGE_GREETING, 421, "4.7.0", "Too many concurrent connections"));
	assert_false(holds_everywhere(STAGE_GREETING, 421, "4.3.2", "Service not available"));
	assert_false(holds_everywhere(STAGE_GREETING, 554, "5.7.1", "blocked"));
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
	assert_int_equal(hint(CLASS_GREYLIST, "Greylisted for 05:00 minutes"), 300);
	assert_int_equal(hint(CLASS_GREYLIST, "Greylisted at 14:30:00, try again in 5 minutes"), 300);
	assert_int_equal(hint(CLASS_GREYLIST, "Try again later, greylisted until Mon, 30 Nov 2026 14:30:00 GMT"), 0);
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
	    cmocka_unit_test(accounts_at_relayhosts),
	    cmocka_unit_test(accounts_are_a_matter_of_relayhosts_alone),
	    cmocka_unit_test(a_message_that_is_to_blame_fails),
	    cmocka_unit_test(outcome_of_faults),
	    cmocka_unit_test(what_all_hosts_would_say),
	    cmocka_unit_test(hints_are_read_only_where_they_are_hints),
	    cmocka_unit_test(bounce_classes),
	};
	return cmocka_run_group_tests_name("outcome", tests, NULL, NULL);
}
