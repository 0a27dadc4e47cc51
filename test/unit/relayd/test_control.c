/* The control API: what it refuses, status, health, reload, one message; over HTTP, with a real queue. */
#include "support_control.h"

/* ---- paths and bodies ---- */

static void refuses_what_it_does_not_know(void **state)
{
	struct console *f = *state;

	assert_non_null(json_object_get(console_ask(f, 404, "GET", "/", NULL), "error"));
	console_ask(f, 404, "GET", "/v1/nonsense", NULL);
	console_ask(f, 404, "GET", "/v1/status/", NULL);
	console_ask(f, 404, "GET", "/metrics", NULL);
	console_ask(f, 405, "POST", "/v1/status", "{}");
	console_ask(f, 405, "GET", "/v1/flush", NULL);
	console_ask(f, 405, "DELETE", "/v1/delete", NULL);
}

static void refuses_bodies_that_make_no_sense(void **state)
{
	struct console *f = *state;
	static const char *const bodies[] = {"{", "[]", "\"id\"", "{\"id\": 1, \"id\": 2}", "{} {}", "\xff"};
	static const char *const ids[] = {"", "{}", "{\"id\": 7}", "{\"id\": null}",
					  "{\"id\": \"0000000000001\", \"all\": true}"};

	for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
		console_ask(f, 400, "POST", "/v1/flush", bodies[i]);
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		console_ask(f, 400, "POST", "/v1/hold", ids[i]);
		console_ask(f, 400, "POST", "/v1/release", ids[i]);
		console_ask(f, 400, "POST", "/v1/delete", ids[i]);
		console_ask(f, 400, "POST", "/v1/bounce", ids[i]);
	}
	/* Above all, what is misspelt must not mean "everything". */
	console_ask(f, 400, "POST", "/v1/flush", "{\"sendre\": \"a@example.org\"}");
	console_ask(f, 400, "POST", "/v1/flush", "{\"sender\": null}");
	console_ask(f, 400, "POST", "/v1/flush", "{\"state\": \"nonsense\"}");
	console_ask(f, 400, "POST", "/v1/flush", "{\"age\": \"old\"}");
	console_ask(f, 400, "POST", "/v1/flush", "{\"domain\": \"\"}");
	console_ask(f, 400, "POST", "/v1/flush", "{\"domain\": \"@\"}");
	console_ask(f, 400, "POST", "/v1/flush", "{\"domain\": 7}");
	console_ask(f, 400, "POST", "/v1/flush", "{\"domain\": \"a.example\", \"id\": \"0000000000001\"}");
	console_ask(f, 400, "POST", "/v1/delete", "{\"all\": \"true\"}");
	console_ask(f, 400, "POST", "/v1/delete", "{\"all\": false}");
	console_ask(f, 400, "POST", "/v1/delete", "{\"all\": true, \"domain\": \"a.example\"}");
	console_ask(f, 400, "POST", "/v1/delete", "{\"dry_run\": true}");
}

static void unknown_ids_are_not_found(void **state)
{
	struct console *f = *state;
	json_t *answer;

	answer = console_ask(f, 404, "GET", "/v1/message?id=0000000000007", NULL);
	assert_string_equal(
	    text_of(answer, "error"),
	    "no message 0000000000007: it does not wait, nor has it ended lately; the log tells its end");
	answer = console_ask(f, 404, "GET", "/v1/message?id=rubbish", NULL);
	assert_string_equal(text_of(answer, "error"),
			    "'rubbish' is no id: 13 letters and digits, as in the 250 and in the log");
	console_ask(f, 400, "GET", "/v1/message", NULL);
	console_act(f, 404, "flush", 7);
	console_act(f, 404, "hold", 7);
	console_act(f, 404, "release", 7);
	console_act(f, 404, "delete", 7);
	console_ask(f, 404, "POST", "/v1/hold", "{\"id\": \"*\"}");
}

/* ---- status ---- */

static void status_of_an_idle_relay(void **state)
{
	struct console *f = *state;
	static const char *const states[] = {"ready", "inflight", "deferred", "held"};
	json_t *status = console_get(f, "/v1/status"), *main;

	assert_string_equal(text_of(status, "version"), RELAYD_VERSION);
	assert_string_equal(text_of(status, "hostname"), "relay.example.org");
	assert_in_range(number_of(status, "uptime_sec"), 3600, 3601);
	assert_string_equal(text_of(status, "health"), "ok");
	assert_int_equal(json_array_size(json_object_get(status, "alerts")), 0);
	assert_int_equal(json_array_size(json_object_get(status, "troubles")), 0);
	assert_int_equal(number_of(json_object_get(status, "totals"), "accepted"), 0);
	for (size_t i = 0; i < ARRAY_LEN(states); i++)
		assert_int_equal(number_of(json_object_get(json_object_get(status, "queue"), states[i]), "messages"),
				 0);
	assert_string_equal(text_of(json_object_get(status, "journal"), "state"), "ok");
	assert_true(number_of(json_object_get(status, "journal"), "free_bytes") > 0);
	main = json_array_get(json_object_get(status, "relayhosts"), 0);
	assert_string_equal(text_of(main, "name"), "main");
	assert_string_equal(text_of(main, "address"), "smtp.example.net:587");
	assert_true(json_is_true(json_object_get(main, "up")));
	assert_true(json_is_null(json_object_get(main, "last_success_sec")));
	assert_non_null(strstr(text_of(status, "promise"), "fsynced"));
}

static void status_counts_what_happened(void **state)
{
	struct console *f = *state;
	struct metrics *m = f->relay.metrics;
	json_t *totals, *lately, *user;

	series_add(metrics_series(m, METRIC_SUBMISSIONS, "a", "app", "accepted"), 3);
	series_add(metrics_series(m, METRIC_SUBMISSIONS, "b", "", "accepted"), 2);
	series_add(metrics_series(m, METRIC_SUBMISSIONS, "b", "", "rejected"), 100);
	series_add(metrics_series(m, METRIC_DELIVERY_ATTEMPTS, "mx", "google", "delivered"), 4);
	series_add(metrics_series(m, METRIC_DELIVERY_ATTEMPTS, "main", "other", "delivered"), 5);
	series_add(metrics_series(m, METRIC_DELIVERY_ATTEMPTS, "main", "other", "deferred"), 7);
	series_add(metrics_series(m, METRIC_DELIVERY_ATTEMPTS, "main", "other", "failed"), 1);
	series_add(metrics_series(m, METRIC_DELIVERY_ATTEMPTS, "main", "other", "expired"), 1);
	series_set(metrics_series(m, METRIC_CONNECTIONS, "in", NULL, NULL), 6);
	relay_pass(&f->relay, 20 * 1000);
	series_add(metrics_series(m, METRIC_SUBMISSIONS, "a", "app", "accepted"), 10);
	relay_pass(&f->relay, 50 * 1000);
	lately = json_object_get(console_get(f, "/v1/status"), "rates");
	assert_int_equal(number_of(json_object_get(lately, "last_minute"), "accepted"), 10);
	assert_int_equal(number_of(json_object_get(lately, "last_15_minutes"), "accepted"), 15);
	assert_int_equal(number_of(json_object_get(lately, "last_15_minutes"), "failed"), 2);
	user = json_array_get(json_object_get(f->answer.json, "users"), 0);
	assert_string_equal(text_of(user, "user"), "app");
	assert_int_equal(number_of(user, "accepted"), 13);
	assert_int_equal(number_of(user, "last_15_minutes"), 13);
	relay_pass(&f->relay, 16 * 60 * 1000);
	lately = json_object_get(console_get(f, "/v1/status"), "rates");
	assert_int_equal(number_of(json_object_get(lately, "last_minute"), "accepted"), 0);
	assert_int_equal(number_of(json_object_get(lately, "last_15_minutes"), "accepted"), 0);
	user = json_array_get(json_object_get(f->answer.json, "users"), 0);
	assert_int_equal(number_of(user, "accepted"), 13);
	assert_int_equal(number_of(user, "last_15_minutes"), 0);
	totals = json_object_get(console_get(f, "/v1/status"), "totals");
	assert_int_equal(number_of(totals, "accepted"), 15);
	assert_int_equal(number_of(totals, "delivered"), 9);
	assert_int_equal(number_of(totals, "deferred"), 7);
	assert_int_equal(number_of(totals, "failed"), 2);
	assert_int_equal(number_of(json_object_get(f->answer.json, "connections"), "inbound"), 6);
}

static void status_knows_ages_and_reasons(void **state)
{
	struct console *f = *state;
	json_t *status, *ages;

	submit_greylisted(f);
	relay_pass(&f->relay, 10 * 60 * 1000);
	console_act(f, 200, "hold", relay_submit(&f->relay, "app@example.org", "two@example.net"));
	status = console_get(f, "/v1/status");
	ages = json_object_get(json_object_get(json_object_get(status, "queue"), "held"), "ages");
	assert_int_equal(number_of(ages, "5m"), 1);
	assert_int_equal(number_of(ages, "1h"), 0);
	assert_int_equal(json_object_size(json_object_get(status, "reasons")), 1);
	assert_int_equal(number_of(json_object_get(status, "reasons"), "greylist"), 1);
}

static void status_tells_of_a_dead_relayhost(void **state)
{
	struct console *f = *state;
	json_t *status, *main, *trouble;

	relay_submit(&f->relay, "app@example.org", "one@example.net");
	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	relay_pass(&f->relay, 2000);
	status = console_get(f, "/v1/status");
	assert_non_null(strstr(text_of(status, "health"), "main"));
	assert_string_equal(text_of(json_array_get(json_object_get(status, "alerts"), 0), "alert"), "relayhost");
	main = json_array_get(json_object_get(status, "relayhosts"), 0);
	assert_true(json_is_false(json_object_get(main, "up")));
	assert_string_equal(text_of(main, "class"), "connect");
	assert_string_equal(text_of(main, "trouble"), "connection refused");
	assert_int_equal(json_array_size(json_object_get(status, "troubles")), 1);
	trouble = json_array_get(json_object_get(status, "troubles"), 0);
	assert_string_equal(text_of(trouble, "destination"), "relayhost:main");
	assert_string_equal(text_of(trouble, "reason"), "connection refused");
	assert_int_equal(number_of(trouble, "since_sec"), 2);
	assert_int_equal(number_of(trouble, "next_attempt_sec"), 3);
	assert_int_equal(number_of(trouble, "code"), 0);
	assert_int_equal(number_of(json_object_get(json_object_get(status, "queue"), "deferred"), "messages"), 1);
	assert_int_equal(number_of(json_object_get(json_object_get(status, "queue"), "deferred"), "oldest_age_sec"), 2);
}

static void status_shows_the_ten_worst_troubles(void **state)
{
	struct console *f = *state;
	json_t *troubles;
	char to[64];

	relay_configure(&f->relay, "");
	for (int i = 0; i < 14; i++) {
		snprintf(to, sizeof(to), "one@d%d.example", i);
		relay_submit(&f->relay, "app@example.org", to);
		relay_turn(&f->relay);
		fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "no route to host");
		relay_pass(&f->relay, 100);
	}
	troubles = json_object_get(console_get(f, "/v1/status"), "troubles");
	assert_int_equal(json_array_size(troubles), 10);
	for (size_t i = 0; i < 10; i++) { /* nothing stands in their lines: the longest in trouble are the worst */
		snprintf(to, sizeof(to), "mx:d%zu.example", i);
		assert_string_equal(text_of(json_array_get(troubles, i), "destination"), to);
	}
}

static void last_success_survives_a_forgotten_destination(void **state)
{
	struct console *f = *state;
	json_t *status;

	series_set(metrics_series(f->relay.metrics, METRIC_LAST_SUCCESS, "main", NULL, NULL),
		   RELAY_WALL_MS / 1000.0 - 60);
	status = console_get(f, "/v1/status");
	assert_in_range(number_of(json_array_get(json_object_get(status, "relayhosts"), 0), "last_success_sec"), 60,
			61);
}

static void health_says_why_not(void **state)
{
	struct console *f = *state;
	json_t *health = console_get(f, "/v1/health?mail=1");

	assert_true(json_is_true(json_object_get(health, "ok")));
	health_raise(f->relay.health, ALERT_RELAYHOST, "relayhost main: connect: refused");
	console_get(f, "/v1/health");
	console_get(f, "/v1/health?mail=0");
	health = console_ask(f, 503, "GET", "/v1/health?mail=1", NULL);
	assert_true(json_is_false(json_object_get(health, "ok")));
	assert_string_equal(text_of(health, "reason"), "relayhost main: connect: refused");
	queue_stop(f->relay.queue);
	health = console_ask(f, 503, "GET", "/v1/health", NULL);
	assert_non_null(strstr(text_of(health, "reason"), "stopping"));
}

static void reload_tells_what_is_wrong(void **state)
{
	struct console *f = *state;
	json_t *answer = console_ask(f, 200, "POST", "/v1/reload", NULL);

	assert_true(json_is_true(json_object_get(answer, "ok")));
	f->reload_result = ERR_CONFIG;
	answer = console_ask(f, 400, "POST", "/v1/reload", "{}");
	assert_string_equal(text_of(answer, "error"), "relayd.yaml:3:1: unknown key 'relayhots'");
	assert_int_equal(f->reloads, 2);
}

/* ---- one message ---- */

static void a_message_before_its_first_attempt(void **state)
{
	struct console *f = *state;
	uint64_t id = relay_submit_class(&f->relay, MESSAGE_TRANSACTIONAL, "app@example.org", "one@example.net");
	json_t *message = console_show(f, id), *one;

	assert_string_equal(text_of(message, "id"), id_text(id));
	assert_string_equal(text_of(message, "state"), "ready");
	assert_string_equal(text_of(message, "sender"), "app@example.org");
	assert_string_equal(text_of(message, "user"), "app");
	assert_string_equal(text_of(message, "class"), "transactional");
	assert_string_equal(text_of(message, "client"), "[192.0.2.9]:4711");
	assert_string_equal(text_of(message, "message_id"), "<1@example.org>");
	assert_string_equal(text_of(message, "tag"), "");
	assert_int_equal(number_of(message, "bytes"), strlen("Subject: test\r\n\r\nHello\r\n"));
	one = recipient_of(message, 0);
	assert_string_equal(text_of(one, "address"), "one@example.net");
	assert_string_equal(text_of(one, "outcome"), "none");
	assert_int_equal(number_of(one, "attempts"), 0);
	assert_int_equal(number_of(one, "code"), 0);
}

static void a_greylisted_message_says_why_it_waits(void **state)
{
	struct console *f = *state;
	uint64_t id = submit_greylisted(f);
	json_t *message = console_show(f, id), *one = recipient_of(message, 0);

	assert_string_equal(text_of(message, "state"), "deferred");
	assert_string_equal(text_of(one, "outcome"), "deferred");
	assert_string_equal(text_of(one, "class"), "greylist");
	assert_string_equal(text_of(one, "stage"), "rcpt");
	assert_int_equal(number_of(one, "code"), 450);
	assert_string_equal(text_of(one, "enhanced"), "4.2.0");
	assert_string_equal(text_of(one, "host"), "mx.example.net[192.0.2.1]");
	assert_string_equal(text_of(one, "text"), "Greylisted, come back");
	assert_int_equal(number_of(one, "attempts"), 1);
	assert_true(number_of(one, "next_attempt_sec") > 60);
	assert_string_equal(text_of(one, "why"), "greylisted: the server asked to come back later");
}

/* The result's words are on disk only some milliseconds after the attempt; the answer waits for them. */
static void the_reply_is_there_right_after_the_attempt(void **state)
{
	struct console *f = *state;
	uint64_t id = relay_submit(&f->relay, "app@example.org", "one@example.net");

	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	fake_finish(relay_connection(&f->relay, 0), greylisted());
	assert_string_equal(text_of(recipient_of(console_show(f, id), 0), "text"), "Greylisted, come back");
}

static void back_off_of_a_destination_is_part_of_the_reason(void **state)
{
	struct console *f = *state;
	uint64_t first = relay_submit(&f->relay, "app@example.org", "one@example.net"), second;
	json_t *one;

	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	relay_turn(&f->relay);
	second = relay_submit(&f->relay, "app@example.org", "two@example.net");
	relay_turn(&f->relay);
	one = recipient_of(console_show(f, first), 0);
	assert_string_equal(
	    text_of(one, "why"),
	    "no connection, or it broke; relayhost:main is in trouble (connect: connection refused) and "
	    "rests for 5 s");
	one = recipient_of(console_show(f, second), 0); /* never tried, and yet it waits */
	assert_string_equal(text_of(one, "outcome"), "none");
	assert_string_equal(text_of(one, "why"),
			    "its turn has not come yet; relayhost:main is in trouble (connect: connection refused) and "
			    "rests for 5 s");
	assert_in_range(number_of(one, "next_attempt_sec"), 4, 5);
}

static void a_delivered_message_is_remembered(void **state)
{
	struct console *f = *state;
	uint64_t id = relay_submit(&f->relay, "app@example.org", "one@example.net two@example.net");
	json_t *message, *two;

	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	fake_deliver(relay_connection(&f->relay, 0));
	relay_turn(&f->relay);
	message = console_show(f, id);
	assert_string_equal(text_of(message, "state"), "done");
	assert_string_equal(text_of(message, "sender"), "app@example.org");
	assert_string_equal(text_of(message, "class"), "default");
	assert_int_equal(json_array_size(json_object_get(message, "recipients")), 2);
	two = recipient_of(message, 1);
	assert_string_equal(text_of(two, "address"), "two@example.net");
	assert_string_equal(text_of(two, "outcome"), "delivered");
	assert_string_equal(text_of(two, "text"), "queued as 12345");
	assert_int_equal(number_of(two, "code"), 250);
	assert_int_equal(number_of(two, "attempts"), 1);
	assert_true(json_is_null(json_object_get(two, "next_attempt_sec")));
}

static void recipients_of_one_message_end_apart(void **state)
{
	struct console *f = *state;
	uint64_t id;
	json_t *message;

	relay_configure(&f->relay, "");
	id = relay_submit(&f->relay, "app@example.org", "one@a.example two@b.example");
	relay_turn(&f->relay);
	fake_session(relay_connection_to(&f->relay, "mx:a.example"));
	fake_deliver(relay_connection_to(&f->relay, "mx:a.example"));
	fake_fail(relay_connection_to(&f->relay, "mx:b.example"), CLASS_DNS, STAGE_DNS, "SERVFAIL");
	relay_turn(&f->relay);
	message = console_show(f, id);
	assert_string_equal(text_of(message, "state"), "deferred");
	assert_string_equal(text_of(recipient_of(message, 0), "outcome"), "delivered");
	assert_string_equal(text_of(recipient_of(message, 0), "text"), "queued as 12345");
	assert_true(json_is_null(json_object_get(recipient_of(message, 0), "next_attempt_sec")));
	assert_string_equal(text_of(recipient_of(message, 1), "outcome"), "deferred");
	assert_string_equal(text_of(recipient_of(message, 1), "text"), "SERVFAIL");
	assert_true(number_of(recipient_of(message, 1), "next_attempt_sec") > 0);
}

static void broken_bytes_are_made_printable(void **state)
{
	struct console *f = *state;
	struct queue_recipient to = {.address = SLICE("\xC3\xA4@example.net")};
	struct queue_envelope envelope = {.sender = SLICE("a\xff\xC3(\x1b[31m\xC2\x85@example.org"),
					  .tag = SLICE("nul\0l\xED\xA0\x80"),
					  .arrived_wall = RELAY_WALL_MS,
					  .expires_wall = RELAY_WALL_MS + 86400000,
					  .recipients = &to,
					  .recipient_count = 1};
	json_t *message = console_show(f, relay_submit_envelope(&f->relay, &envelope));

	assert_string_equal(text_of(message, "sender"),
			    "a\xEF\xBF\xBD\xEF\xBF\xBD(\xEF\xBF\xBD[31m\xEF\xBF\xBD@example.org");
	assert_string_equal(text_of(message, "tag"), "nul\xEF\xBF\xBDl\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
	assert_string_equal(text_of(recipient_of(message, 0), "address"), "\xC3\xA4@example.net");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, console_setup_relayhost, console_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(refuses_what_it_does_not_know),
	    TEST(refuses_bodies_that_make_no_sense),
	    TEST(unknown_ids_are_not_found),
	    TEST(status_of_an_idle_relay),
	    TEST(status_counts_what_happened),
	    TEST(status_knows_ages_and_reasons),
	    TEST(status_tells_of_a_dead_relayhost),
	    TEST(status_shows_the_ten_worst_troubles),
	    TEST(last_success_survives_a_forgotten_destination),
	    TEST(health_says_why_not),
	    TEST(reload_tells_what_is_wrong),
	    TEST(a_message_before_its_first_attempt),
	    TEST(a_greylisted_message_says_why_it_waits),
	    TEST(the_reply_is_there_right_after_the_attempt),
	    TEST(back_off_of_a_destination_is_part_of_the_reason),
	    TEST(a_delivered_message_is_remembered),
	    TEST(recipients_of_one_message_end_apart),
	    TEST(broken_bytes_are_made_printable),
	};
	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
