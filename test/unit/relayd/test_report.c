/* What the log and the metrics say of outcomes and destinations. */
#include "support_relay.h"

#include "relayd/metrics.h"
#include "relayd/report.h"

struct fixture {
	struct relay relay;
	struct report *report;
	struct queue_recipient to;
	struct queue_message message;
	struct destination main, mx;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	relay_init(&f->relay, NULL);
	f->report = report_new(f->relay.log, f->relay.metrics, &f->relay.clock.clock);
	f->to.address = SLICE("one@example.net");
	f->message = (struct queue_message){.id = 7,
					    .envelope = {.sender = SLICE("app@example.org"),
							 .user = SLICE("app"),
							 .tag = SLICE("welcome"),
							 .arrived_wall = RELAY_WALL_MS - 2500,
							 .recipients = &f->to,
							 .recipient_count = 1}};
	f->main.id = (struct destination_id){.kind = DESTINATION_RELAYHOST, .name = "main"};
	snprintf(f->main.key, sizeof(f->main.key), "relayhost:main");
	f->mx.id = (struct destination_id){.kind = DESTINATION_MX, .name = "example.net"};
	snprintf(f->mx.key, sizeof(f->mx.key), "mx:example.net");
	report_add_relayhost(f->report, "main");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	report_free(&f->report);
	relay_fini(&f->relay);
	free(f);
	return 0;
}

/* -1: there is no such series. */
static double value(struct fixture *f, enum metric metric, const char *first, const char *second, const char *third)
{
	const struct series *series = metrics_find(f->relay.metrics, metric, first, second, third);

	return series ? series_value(series) : -1;
}

static void report(struct fixture *f, const struct destination *destination, struct outcome outcome, const char *host,
		   int64_t next_wall)
{
	snprintf(outcome.host, sizeof(outcome.host), "%s", host);
	report_outcome(f->report, &f->message, 0, destination, &outcome, 2, next_wall);
}

static void all_series_are_there_from_the_start(void **state)
{
	struct fixture *f = *state;

	assert_true(value(f, METRIC_DELIVERY_ATTEMPTS, "mx", "google", "delivered") == 0);
	assert_true(value(f, METRIC_DELIVERY_ATTEMPTS, "mx", "other", "expired") == 0);
	assert_true(value(f, METRIC_DELIVERY_ATTEMPTS, "main", "other", "failed") == 0);
	assert_true(value(f, METRIC_DELIVERY_ATTEMPTS, "main", "google", "failed") == -1);
	assert_true(value(f, METRIC_DEFERRALS, "main", "greylist", NULL) == 0);
	assert_true(value(f, METRIC_DEFERRALS, "mx", "other", NULL) == 0);
	assert_true(value(f, METRIC_BOUNCES, "mx", "no_user", NULL) == 0);
	assert_true(value(f, METRIC_LAST_SUCCESS, "main", NULL, NULL) == 0);
	assert_true(value(f, METRIC_RELAYHOST_UP, "main", NULL, NULL) == 1);
	assert_true(value(f, METRIC_UPSTREAM_AUTH_FAILURES, "main", NULL, NULL) == 0);
}

static void a_delivery_is_told(void **state)
{
	struct fixture *f = *state;

	report(f, &f->mx, outcome_like(OUTCOME_DELIVERED, CLASS_NONE, STAGE_DOT, 250, "2.0.0", "queued"),
	       "ASPMX.L.GOOGLE.COM[192.0.2.1]", 0);
	assert_true(value(f, METRIC_DELIVERY_ATTEMPTS, "mx", "google", "delivered") == 1);
	assert_true(value(f, METRIC_DELIVERY_LATENCY, "mx", NULL, NULL) == 1);
	assert_true(value(f, METRIC_LAST_SUCCESS, "mx", NULL, NULL) == RELAY_WALL_MS / 1000.0);
	assert_true(relay_log_has(&f->relay,
				  "level=info event=delivered id=0000000000007 user=app from=app@example.org "
				  "rcpt=one@example.net outcome=delivered code=250 "
				  "host=ASPMX.L.GOOGLE.COM[192.0.2.1] enhanced=2.0.0"));
	assert_true(relay_log_has(&f->relay, "attempts=2 age_ms=2500 tag=welcome text=queued\n"));
	assert_false(relay_log_has(&f->relay, "class="));
	assert_false(relay_log_has(&f->relay, "retry_sec"));
}

static void a_deferral_says_when_the_next_attempt_is(void **state)
{
	struct fixture *f = *state;

	report(f, &f->main, outcome_like(OUTCOME_DEFERRED, CLASS_GREYLIST, STAGE_RCPT, 450, "4.2.0", "come back"),
	       "smtp.example.net[192.0.2.1]", RELAY_WALL_MS + 310 * 1000);
	assert_true(value(f, METRIC_DELIVERY_ATTEMPTS, "main", "other", "deferred") == 1);
	assert_true(value(f, METRIC_DEFERRALS, "main", "greylist", NULL) == 1);
	assert_true(value(f, METRIC_LAST_SUCCESS, "main", NULL, NULL) == 0);
	assert_true(relay_log_has(&f->relay, "outcome=deferred class=greylist code=450"));
	assert_true(relay_log_has(&f->relay, "stage=rcpt relayhost=main"));
	assert_true(relay_log_has(&f->relay, "retry_sec=310"));
}

static void a_bounce_is_a_warning_and_counted_by_reason(void **state)
{
	struct fixture *f = *state;

	report(f, &f->mx, outcome_like(OUTCOME_FAILED, CLASS_MAILBOX, STAGE_RCPT, 550, "5.1.1", "no such user"),
	       "mx.example.net[192.0.2.1]", 0);
	assert_true(value(f, METRIC_BOUNCES, "mx", "no_user", NULL) == 1);
	assert_true(relay_log_has(&f->relay, "level=warn event=failed"));
	report(f, &f->mx, outcome_like(OUTCOME_EXPIRED, CLASS_CONNECT, STAGE_CONNECT, 0, "5.4.7", "timed out"),
	       "mx.example.net[192.0.2.1]", 0);
	assert_true(value(f, METRIC_BOUNCES, "mx", "expired", NULL) == 1);
	assert_true(relay_log_has(&f->relay, "level=warn event=expired"));
}

static void an_outcome_without_a_destination(void **state)
{
	struct fixture *f = *state;

	report(f, NULL, outcome_like(OUTCOME_FAILED, CLASS_DNS, STAGE_ROUTE, 0, "5.1.2", "no domain"), "", 0);
	assert_true(value(f, METRIC_DELIVERY_ATTEMPTS, "mx", "other", "failed") == 1);
	assert_false(relay_log_has(&f->relay, "relayhost="));
}

static void a_peers_words_cannot_forge_a_line(void **state)
{
	struct fixture *f = *state;

	report(f, &f->mx,
	       outcome_like(OUTCOME_DEFERRED, CLASS_OTHER, STAGE_RCPT, 451, "4.0.0",
			    "x\" event=delivered\nlevel=info event=forged \x1b[2J"),
	       "mx.example.net[192.0.2.1]", RELAY_WALL_MS);
	assert_false(relay_log_has(&f->relay, "\nlevel=info event=forged"));
	assert_false(relay_log_has(&f->relay, "x\" event"));
	assert_false(relay_log_has(&f->relay, "\x1b"));
}

static void operators_are_known_by_their_names(void **state)
{
	static const struct {
		const char *host, *operator;
	} cases[] = {{"aspmx.l.google.com[192.0.2.1]", "google"},
		     {"alt1.gmail-smtp-in.l.google.com", "google"},
		     {"aspmx2.googlemail.com", "google"},
		     {"example-com.mail.protection.outlook.com[192.0.2.1]", "microsoft"},
		     {"example-com.x-v1.mx.microsoft[192.0.2.1]", "microsoft"},
		     {"mta5.am0.yahoodns.net", "yahoo"},
		     {"mx01.mail.icloud.com", "apple"},
		     {"notgoogle.com", "other"},
		     {"google.com.example.net", "other"},
		     {"[192.0.2.1]", "other"},
		     {"", "other"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_string_equal(report_operator(cases[i].host), cases[i].operator);
}

static void trouble_and_its_end_are_told(void **state)
{
	struct fixture *f = *state;

	f->main.trouble = outcome_like(OUTCOME_DEFERRED, CLASS_AUTH, STAGE_AUTH, 535, "5.7.8", "bad credentials");
	report_health(f->report, &f->main);
	assert_true(value(f, METRIC_RELAYHOST_UP, "main", NULL, NULL) == 0);
	assert_true(value(f, METRIC_UPSTREAM_AUTH_FAILURES, "main", NULL, NULL) == 1);
	assert_true(relay_log_has(&f->relay, "level=error event=destination_trouble class=auth code=535"));
	f->main.trouble = (struct outcome){0};
	report_health(f->report, &f->main);
	assert_true(value(f, METRIC_RELAYHOST_UP, "main", NULL, NULL) == 1);
	assert_true(relay_log_has(&f->relay, "event=destination_ok destination=relayhost:main"));
	f->mx.trouble = outcome_like(OUTCOME_DEFERRED, CLASS_CONNECT, STAGE_CONNECT, 0, "4.4.1", "refused");
	report_health(f->report, &f->mx);
	assert_true(relay_log_has(&f->relay, "level=warn event=destination_trouble class=connect"));
	assert_true(value(f, METRIC_RELAYHOST_UP, "example.net", NULL, NULL) == -1);
}

/* A reload names the relayhosts again. */
static void a_relayhost_that_is_down_stays_down_over_a_reload(void **state)
{
	struct fixture *f = *state;

	f->main.trouble = outcome_like(OUTCOME_DEFERRED, CLASS_CONNECT, STAGE_CONNECT, 0, "4.4.1", "refused");
	report_health(f->report, &f->main);
	report_add_relayhost(f->report, "main");
	assert_true(value(f, METRIC_RELAYHOST_UP, "main", NULL, NULL) == 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(all_series_are_there_from_the_start),
	    TEST(a_delivery_is_told),
	    TEST(a_deferral_says_when_the_next_attempt_is),
	    TEST(a_bounce_is_a_warning_and_counted_by_reason),
	    TEST(an_outcome_without_a_destination),
	    TEST(a_peers_words_cannot_forge_a_line),
	    TEST(operators_are_known_by_their_names),
	    TEST(trouble_and_its_end_are_told),
	    TEST(a_relayhost_that_is_down_stays_down_over_a_reload),
	};
	return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
