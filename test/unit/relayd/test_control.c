/* The control API: status, one message, and what an operator does to messages; over HTTP, with a real queue. */
#include "support_http.h"

#include "base/msgid.h"
#include "relayd/control.h"

#include <unistd.h>

struct fixture {
	struct relay relay;
	struct control *control;
	struct web_server web;
	struct web_answer answer;
	int reload_result;
	unsigned reloads;
};

static const char main_relayhost[] = "relayhosts:\n  main:\n    address: smtp.example.net:587\n    tls: none\n";

static const struct config *current_config(void *ctx)
{
	return ((struct fixture *)ctx)->relay.config;
}

static int reload(void *ctx, struct err *err)
{
	struct fixture *f = ctx;

	f->reloads++;
	return f->reload_result ? err_set(err, f->reload_result, "relayd.yaml:3:1: unknown key 'relayhots'") : 0;
}

static void make_control(struct fixture *f)
{
	struct control_options options = {.loop = f->relay.loop,
					  .clock = &f->relay.clock.clock,
					  .log = f->relay.log,
					  .metrics = f->relay.metrics,
					  .queue = f->relay.queue,
					  .destinations = f->relay.destinations,
					  .pauses = f->relay.pauses,
					  .scheduler = f->relay.scheduler,
					  .health = f->relay.health,
					  .recent = f->relay.recent,
					  .ctx = f,
					  .config = current_config,
					  .reload = reload,
					  .started_wall = RELAY_WALL_MS - 3600 * 1000};

	f->control = control_new(&options);
	web_server_init(&f->web, &f->relay, control_handle, f->control);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	relay_init(&f->relay, main_relayhost);
	make_control(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	web_answer_fini(&f->answer);
	web_server_fini(&f->web);
	control_free(&f->control);
	relay_fini(&f->relay);
	free(f);
	return 0;
}

static void restart(struct fixture *f)
{
	web_server_fini(&f->web);
	control_free(&f->control);
	relay_restart(&f->relay);
	make_control(f);
}

/* ---- asking ---- */

static json_t *ask(struct fixture *f, int status, const char *method, const char *path, const char *body)
{
	web_answer_fini(&f->answer);
	web_ask(&f->web, method, path, body, &f->answer);
	if (f->answer.status != status || !f->answer.json)
		fail_msg("%s %s: %d %s", method, path, f->answer.status, buf_slice(&f->answer.body).ptr);
	assert_string_equal(f->answer.type, "application/json");
	return f->answer.json;
}

static json_t *get(struct fixture *f, const char *path)
{
	return ask(f, 200, "GET", path, NULL);
}

static const char *id_text(uint64_t id)
{
	static char text[MSGID_CHARS + 1];

	msgid_format(id, text);
	return text;
}

static json_t *show(struct fixture *f, uint64_t id)
{
	char path[64];

	snprintf(path, sizeof(path), "/v1/message?id=%s", id_text(id));
	return get(f, path);
}

static json_t *act(struct fixture *f, int status, const char *what, uint64_t id)
{
	char path[64], body[64];

	snprintf(path, sizeof(path), "/v1/%s", what);
	snprintf(body, sizeof(body), "{\"id\": \"%s\"}", id_text(id));
	return ask(f, status, "POST", path, body);
}

static const char *text_of(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	if (!text)
		fail_msg("no text %s", key);
	return text;
}

static int64_t number_of(json_t *object, const char *key)
{
	json_t *number = json_object_get(object, key);

	if (!json_is_integer(number))
		fail_msg("no integer %s", key);
	return json_integer_value(number);
}

static json_t *recipient_of(json_t *message, size_t index)
{
	json_t *recipient = json_array_get(json_object_get(message, "recipients"), index);

	assert_non_null(recipient);
	return recipient;
}

/* A message to one@example.net through the relayhost whose attempt was put off by this reply. */
static uint64_t submit_deferred(struct fixture *f, const struct outcome *outcome)
{
	uint64_t id = relay_submit(&f->relay, "app@example.org", "one@example.net");
	struct fake_connection *connection;

	relay_turn(&f->relay);
	connection = relay_connection_to(&f->relay, "relayhost:main");
	if (!connection->job)
		fake_session(connection);
	fake_finish(connection, outcome);
	relay_turn(&f->relay);
	return id;
}

static const struct outcome *greylisted(void)
{
	static struct outcome outcome;

	outcome = outcome_like(OUTCOME_DEFERRED, CLASS_GREYLIST, STAGE_RCPT, 450, "4.2.0", "Greylisted, come back");
	return &outcome;
}

/* ---- paths and bodies ---- */

static void refuses_what_it_does_not_know(void **state)
{
	struct fixture *f = *state;

	assert_non_null(json_object_get(ask(f, 404, "GET", "/", NULL), "error"));
	ask(f, 404, "GET", "/v1/nonsense", NULL);
	ask(f, 404, "GET", "/v1/status/", NULL);
	ask(f, 404, "GET", "/metrics", NULL);
	ask(f, 405, "POST", "/v1/status", "{}");
	ask(f, 405, "GET", "/v1/flush", NULL);
	ask(f, 405, "DELETE", "/v1/delete", NULL);
}

static void refuses_bodies_that_make_no_sense(void **state)
{
	struct fixture *f = *state;
	static const char *const bodies[] = {"{", "[]", "\"id\"", "{\"id\": 1, \"id\": 2}", "{} {}", "\xff"};
	static const char *const ids[] = {"", "{}", "{\"id\": 7}", "{\"id\": null}",
					  "{\"id\": \"0000000000001\", \"all\": true}"};

	for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
		ask(f, 400, "POST", "/v1/flush", bodies[i]);
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		ask(f, 400, "POST", "/v1/hold", ids[i]);
		ask(f, 400, "POST", "/v1/release", ids[i]);
		ask(f, 400, "POST", "/v1/delete", ids[i]);
		ask(f, 400, "POST", "/v1/bounce", ids[i]);
	}
	/* Above all, what is misspelt must not mean "everything". */
	ask(f, 400, "POST", "/v1/flush", "{\"sendre\": \"a@example.org\"}");
	ask(f, 400, "POST", "/v1/flush", "{\"sender\": null}");
	ask(f, 400, "POST", "/v1/flush", "{\"state\": \"nonsense\"}");
	ask(f, 400, "POST", "/v1/flush", "{\"age\": \"old\"}");
	ask(f, 400, "POST", "/v1/flush", "{\"domain\": \"\"}");
	ask(f, 400, "POST", "/v1/flush", "{\"domain\": \"@\"}");
	ask(f, 400, "POST", "/v1/flush", "{\"domain\": 7}");
	ask(f, 400, "POST", "/v1/flush", "{\"domain\": \"a.example\", \"id\": \"0000000000001\"}");
	ask(f, 400, "POST", "/v1/delete", "{\"all\": \"true\"}");
	ask(f, 400, "POST", "/v1/delete", "{\"all\": false}");
	ask(f, 400, "POST", "/v1/delete", "{\"all\": true, \"domain\": \"a.example\"}");
	ask(f, 400, "POST", "/v1/delete", "{\"dry_run\": true}");
}

static void unknown_ids_are_not_found(void **state)
{
	struct fixture *f = *state;
	json_t *answer;

	answer = ask(f, 404, "GET", "/v1/message?id=0000000000007", NULL);
	assert_string_equal(text_of(answer, "error"), "no message 0000000000007");
	answer = ask(f, 404, "GET", "/v1/message?id=rubbish", NULL);
	assert_string_equal(text_of(answer, "error"), "no message rubbish");
	ask(f, 400, "GET", "/v1/message", NULL);
	act(f, 404, "flush", 7);
	act(f, 404, "hold", 7);
	act(f, 404, "release", 7);
	act(f, 404, "delete", 7);
	ask(f, 404, "POST", "/v1/hold", "{\"id\": \"*\"}");
}

/* ---- status ---- */

static void status_of_an_idle_relay(void **state)
{
	struct fixture *f = *state;
	static const char *const states[] = {"ready", "inflight", "deferred", "held"};
	json_t *status = get(f, "/v1/status"), *main;

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
	struct fixture *f = *state;
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
	lately = json_object_get(get(f, "/v1/status"), "rates");
	assert_int_equal(number_of(json_object_get(lately, "last_minute"), "accepted"), 10);
	assert_int_equal(number_of(json_object_get(lately, "last_15_minutes"), "accepted"), 15);
	assert_int_equal(number_of(json_object_get(lately, "last_15_minutes"), "failed"), 2);
	user = json_array_get(json_object_get(f->answer.json, "users"), 0);
	assert_string_equal(text_of(user, "user"), "app");
	assert_int_equal(number_of(user, "accepted"), 13);
	assert_int_equal(number_of(user, "last_15_minutes"), 13);
	relay_pass(&f->relay, 16 * 60 * 1000);
	lately = json_object_get(get(f, "/v1/status"), "rates");
	assert_int_equal(number_of(json_object_get(lately, "last_minute"), "accepted"), 0);
	assert_int_equal(number_of(json_object_get(lately, "last_15_minutes"), "accepted"), 0);
	user = json_array_get(json_object_get(f->answer.json, "users"), 0);
	assert_int_equal(number_of(user, "accepted"), 13);
	assert_int_equal(number_of(user, "last_15_minutes"), 0);
	totals = json_object_get(get(f, "/v1/status"), "totals");
	assert_int_equal(number_of(totals, "accepted"), 15);
	assert_int_equal(number_of(totals, "delivered"), 9);
	assert_int_equal(number_of(totals, "deferred"), 7);
	assert_int_equal(number_of(totals, "failed"), 2);
	assert_int_equal(number_of(json_object_get(f->answer.json, "connections"), "inbound"), 6);
}

static void status_knows_ages_and_reasons(void **state)
{
	struct fixture *f = *state;
	json_t *status, *ages;

	submit_deferred(f, greylisted());
	relay_pass(&f->relay, 10 * 60 * 1000);
	act(f, 200, "hold", relay_submit(&f->relay, "app@example.org", "two@example.net"));
	status = get(f, "/v1/status");
	ages = json_object_get(json_object_get(json_object_get(status, "queue"), "held"), "ages");
	assert_int_equal(number_of(ages, "5m"), 1);
	assert_int_equal(number_of(ages, "1h"), 0);
	assert_int_equal(json_object_size(json_object_get(status, "reasons")), 1);
	assert_int_equal(number_of(json_object_get(status, "reasons"), "greylist"), 1);
}

static void status_tells_of_a_dead_relayhost(void **state)
{
	struct fixture *f = *state;
	json_t *status, *main, *trouble;

	relay_submit(&f->relay, "app@example.org", "one@example.net");
	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	relay_pass(&f->relay, 2000);
	status = get(f, "/v1/status");
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
	assert_int_equal(number_of(json_object_get(json_object_get(status, "queue"), "deferred"), "messages"), 1);
	assert_int_equal(number_of(json_object_get(json_object_get(status, "queue"), "deferred"), "oldest_age_sec"), 2);
}

static void status_shows_the_ten_worst_troubles(void **state)
{
	struct fixture *f = *state;
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
	troubles = json_object_get(get(f, "/v1/status"), "troubles");
	assert_int_equal(json_array_size(troubles), 10);
	for (size_t i = 0; i < 10; i++) { /* nothing stands in their lines: the longest in trouble are the worst */
		snprintf(to, sizeof(to), "mx:d%zu.example", i);
		assert_string_equal(text_of(json_array_get(troubles, i), "destination"), to);
	}
}

static void last_success_survives_a_forgotten_destination(void **state)
{
	struct fixture *f = *state;
	json_t *status;

	series_set(metrics_series(f->relay.metrics, METRIC_LAST_SUCCESS, "main", NULL, NULL),
		   RELAY_WALL_MS / 1000.0 - 60);
	status = get(f, "/v1/status");
	assert_in_range(number_of(json_array_get(json_object_get(status, "relayhosts"), 0), "last_success_sec"), 60,
			61);
}

static void health_says_why_not(void **state)
{
	struct fixture *f = *state;
	json_t *health = get(f, "/v1/health?mail=1");

	assert_true(json_is_true(json_object_get(health, "ok")));
	health_raise(f->relay.health, ALERT_RELAYHOST, "relayhost main: connect: refused");
	get(f, "/v1/health");
	get(f, "/v1/health?mail=0");
	health = ask(f, 503, "GET", "/v1/health?mail=1", NULL);
	assert_true(json_is_false(json_object_get(health, "ok")));
	assert_string_equal(text_of(health, "reason"), "relayhost main: connect: refused");
	queue_stop(f->relay.queue);
	health = ask(f, 503, "GET", "/v1/health", NULL);
	assert_non_null(strstr(text_of(health, "reason"), "stopping"));
}

static void reload_tells_what_is_wrong(void **state)
{
	struct fixture *f = *state;
	json_t *answer = ask(f, 200, "POST", "/v1/reload", NULL);

	assert_true(json_is_true(json_object_get(answer, "ok")));
	f->reload_result = ERR_CONFIG;
	answer = ask(f, 400, "POST", "/v1/reload", "{}");
	assert_string_equal(text_of(answer, "error"), "relayd.yaml:3:1: unknown key 'relayhots'");
	assert_int_equal(f->reloads, 2);
}

/* ---- one message ---- */

static void a_message_before_its_first_attempt(void **state)
{
	struct fixture *f = *state;
	uint64_t id = relay_submit_class(&f->relay, MESSAGE_TRANSACTIONAL, "app@example.org", "one@example.net");
	json_t *message = show(f, id), *one;

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
	struct fixture *f = *state;
	uint64_t id = submit_deferred(f, greylisted());
	json_t *message = show(f, id), *one = recipient_of(message, 0);

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
	struct fixture *f = *state;
	uint64_t id = relay_submit(&f->relay, "app@example.org", "one@example.net");

	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	fake_finish(relay_connection(&f->relay, 0), greylisted());
	assert_string_equal(text_of(recipient_of(show(f, id), 0), "text"), "Greylisted, come back");
}

static void back_off_of_a_destination_is_part_of_the_reason(void **state)
{
	struct fixture *f = *state;
	uint64_t first = relay_submit(&f->relay, "app@example.org", "one@example.net"), second;
	json_t *one;

	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	relay_turn(&f->relay);
	second = relay_submit(&f->relay, "app@example.org", "two@example.net");
	relay_turn(&f->relay);
	one = recipient_of(show(f, first), 0);
	assert_string_equal(text_of(one, "why"),
			    "no connection, or it broke; back-off of relayhost:main (connect) ends in 5 s");
	one = recipient_of(show(f, second), 0); /* never tried, and yet it waits */
	assert_string_equal(text_of(one, "outcome"), "none");
	assert_string_equal(text_of(one, "why"),
			    "its turn has not come yet; back-off of relayhost:main (connect) ends in 5 s");
	assert_in_range(number_of(one, "next_attempt_sec"), 4, 5);
}

static void a_delivered_message_is_remembered(void **state)
{
	struct fixture *f = *state;
	uint64_t id = relay_submit(&f->relay, "app@example.org", "one@example.net two@example.net");
	json_t *message, *two;

	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	fake_deliver(relay_connection(&f->relay, 0));
	relay_turn(&f->relay);
	message = show(f, id);
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
	struct fixture *f = *state;
	uint64_t id;
	json_t *message;

	relay_configure(&f->relay, "");
	id = relay_submit(&f->relay, "app@example.org", "one@a.example two@b.example");
	relay_turn(&f->relay);
	fake_session(relay_connection_to(&f->relay, "mx:a.example"));
	fake_deliver(relay_connection_to(&f->relay, "mx:a.example"));
	fake_fail(relay_connection_to(&f->relay, "mx:b.example"), CLASS_DNS, STAGE_DNS, "SERVFAIL");
	relay_turn(&f->relay);
	message = show(f, id);
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
	struct fixture *f = *state;
	struct queue_recipient to = {.address = SLICE("\xC3\xA4@example.net")};
	struct queue_envelope envelope = {.sender = SLICE("a\xff\xC3(\x1b[31m\xC2\x85@example.org"),
					  .tag = SLICE("nul\0l\xED\xA0\x80"),
					  .arrived_wall = RELAY_WALL_MS,
					  .expires_wall = RELAY_WALL_MS + 86400000,
					  .recipients = &to,
					  .recipient_count = 1};
	json_t *message = show(f, relay_submit_envelope(&f->relay, &envelope));

	assert_string_equal(text_of(message, "sender"),
			    "a\xEF\xBF\xBD\xEF\xBF\xBD(\xEF\xBF\xBD[31m\xEF\xBF\xBD@example.org");
	assert_string_equal(text_of(message, "tag"), "nul\xEF\xBF\xBDl\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
	assert_string_equal(text_of(recipient_of(message, 0), "address"), "\xC3\xA4@example.net");
}

/* ---- hold, release, delete ---- */

static void a_held_message_waits_until_it_is_released(void **state)
{
	struct fixture *f = *state;
	uint64_t id = submit_deferred(f, greylisted());
	unsigned opened = f->relay.opened;
	json_t *answer = act(f, 200, "hold", id);

	assert_int_equal(number_of(answer, "count"), 1);
	assert_true(json_is_true(json_object_get(answer, "synced")));
	assert_true(relay_log_has(&f->relay, "event=operator"));
	assert_true(relay_log_has(&f->relay, "action=hold"));
	restart(f);
	relay_pass(&f->relay, 2ll * 3600 * 1000);
	assert_int_equal(f->relay.opened, opened);
	assert_string_equal(text_of(show(f, id), "state"), "held");
	assert_true(json_is_null(json_object_get(recipient_of(f->answer.json, 0), "next_attempt_sec")));
	act(f, 409, "flush", id);
	act(f, 200, "release", id);
	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	assert_non_null(relay_connection(&f->relay, 0)->job);
	assert_true(relay_connection(&f->relay, 0)->job->ticket->message.id == id);
}

static void the_answer_to_hold_waits_for_the_disk(void **state)
{
	struct fixture *f = *state;
	uint64_t id = submit_deferred(f, greylisted());
	struct queue_stats before, after;

	relay_pass(&f->relay, 5000);
	queue_stats(f->relay.queue, &before);
	act(f, 200, "hold", id);
	queue_stats(f->relay.queue, &after);
	assert_true(after.syncs > before.syncs);
	assert_int_equal(after.unsynced_bytes, 0);
}

static void a_deleted_message_is_gone_and_remembered(void **state)
{
	struct fixture *f = *state;
	uint64_t id = submit_deferred(f, greylisted());
	json_t *message;

	act(f, 200, "delete", id);
	assert_true(relay_log_has(&f->relay, "action=delete"));
	assert_true(relay_log_has(&f->relay, "from=app@example.org"));
	message = show(f, id);
	assert_string_equal(text_of(message, "state"), "done");
	assert_string_equal(text_of(recipient_of(message, 0), "outcome"), "deleted");
	assert_string_equal(text_of(recipient_of(message, 0), "text"), "deleted by an operator");
	act(f, 404, "delete", id);
	restart(f);
	relay_pass(&f->relay, 86400ll * 1000);
	assert_null(relay_connection(&f->relay, 0));
}

/* I10 */
static void what_is_in_flight_while_deleted_tells_its_own_end(void **state)
{
	struct fixture *f = *state;
	uint64_t id = relay_submit(&f->relay, "app@example.org", "one@example.net");
	json_t *message;

	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	act(f, 200, "delete", id);
	fake_deliver(relay_connection(&f->relay, 0));
	message = show(f, id);
	assert_int_equal(json_array_size(json_object_get(message, "recipients")), 1);
	assert_string_equal(text_of(recipient_of(message, 0), "outcome"), "delivered");
}

/* ---- flush ---- */

static void flush_of_one_ends_its_destinations_back_off(void **state)
{
	struct fixture *f = *state;
	uint64_t id = relay_submit(&f->relay, "app@example.org", "one@example.net");
	json_t *answer;

	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	relay_turn(&f->relay);
	assert_null(relay_connection(&f->relay, 0));
	answer = act(f, 200, "flush", id);
	assert_int_equal(number_of(answer, "count"), 1);
	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	assert_true(relay_connection(&f->relay, 0)->job->ticket->message.id == id);
}

static void submit_to_two_domains_that_fail(struct fixture *f)
{
	relay_configure(&f->relay, "");
	relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_submit(&f->relay, "app@example.org", "two@b.example");
	relay_turn(&f->relay);
	fake_fail(relay_connection_to(&f->relay, "mx:a.example"), CLASS_CONNECT, STAGE_CONNECT, "refused");
	fake_fail(relay_connection_to(&f->relay, "mx:b.example"), CLASS_CONNECT, STAGE_CONNECT, "refused");
	relay_pass(&f->relay, 100);
	assert_null(relay_connection(&f->relay, 0));
}

static void flush_of_a_domain_leaves_the_others_alone(void **state)
{
	struct fixture *f = *state;
	json_t *answer;

	submit_to_two_domains_that_fail(f);
	answer = ask(f, 200, "POST", "/v1/flush", "{\"domain\": \"A.Example\"}");
	assert_int_equal(number_of(answer, "count"), 1);
	relay_turn(&f->relay);
	assert_string_equal(relay_connection(&f->relay, 0)->destination->key, "mx:a.example");
	assert_null(relay_connection(&f->relay, 1));
	answer = ask(f, 200, "POST", "/v1/flush", "{\"domain\": \"c.example\"}");
	assert_int_equal(number_of(answer, "count"), 0);
	assert_true(relay_log_has(&f->relay, "action=flush conditions=\"domain=A.Example\" messages=1"));
}

static void flush_of_a_domain_wakes_the_relayhost_it_goes_by(void **state)
{
	struct fixture *f = *state;

	relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "refused");
	relay_turn(&f->relay);
	assert_int_equal(number_of(ask(f, 200, "POST", "/v1/flush", "{\"domain\": \"a.example\"}"), "count"), 1);
	relay_turn(&f->relay);
	assert_string_equal(relay_connection(&f->relay, 0)->destination->key, "relayhost:main");
}

static void flush_of_all_attempts_all_but_the_held(void **state)
{
	struct fixture *f = *state;
	uint64_t held;

	submit_to_two_domains_that_fail(f);
	held = relay_submit(&f->relay, "app@example.org", "three@c.example");
	act(f, 200, "hold", held);
	assert_int_equal(number_of(ask(f, 200, "POST", "/v1/flush", NULL), "count"), 2);
	relay_turn(&f->relay);
	relay_connection_to(&f->relay, "mx:a.example");
	relay_connection_to(&f->relay, "mx:b.example");
	assert_string_equal(text_of(show(f, held), "state"), "held");
}

static void flush_of_many_goes_in_steps(void **state)
{
	struct fixture *f = *state;
	struct http_response response = {.status = 200};
	struct http_request request = {.method = "POST", .path = "/v1/flush"};
	struct buf out;
	unsigned steps = 1;

	relay_submit_many(&f->relay, "one@example.net", 3000);
	buf_init(&response.body, 1000);
	buf_init(&out, 1 << 20);
	control_handle(f->control, &request, &response);
	assert_non_null(response.stream_next);
	while (response.stream_next(response.stream_ctx, &out) != HTTP_END) {
		assert_in_range(buf_len(&out), 1, 64 * 1024);
		relay_turn(&f->relay);
		steps++;
	}
	response.stream_free(response.stream_ctx);
	assert_true(steps > 2);
	assert_non_null(memmem(buf_slice(&out).ptr, buf_len(&out), "{\"count\":3000,", 14));
	buf_fini(&out);
	buf_fini(&response.body);
}

/* A client that leaves ends the flush; the log does not say that all was done. */
static void a_flush_that_is_broken_off_says_so(void **state)
{
	struct fixture *f = *state;
	struct http_response response = {.status = 200};
	struct http_request request = {.method = "POST", .path = "/v1/flush"};

	buf_init(&response.body, 1000);
	control_handle(f->control, &request, &response);
	response.stream_free(response.stream_ctx);
	buf_fini(&response.body);
	assert_true(relay_log_has(&f->relay, "action=flush_broken_off messages=0"));
}

/* ---- many, by conditions ---- */

static json_t *act_on(struct fixture *f, const char *what, const char *conditions)
{
	char path[64];

	snprintf(path, sizeof(path), "/v1/%s", what);
	return ask(f, 200, "POST", path, conditions);
}

static void three_to_two_domains(struct fixture *f, uint64_t ids[3])
{
	ids[0] = relay_submit(&f->relay, "app@example.org", "one@a.example");
	ids[1] = relay_submit(&f->relay, "app@example.org", "two@b.example three@a.example");
	ids[2] = relay_submit(&f->relay, "other@example.org", "four@b.example");
	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "refused");
	relay_pass(&f->relay, 100);
}

static const char *state_of(struct fixture *f, uint64_t id)
{
	return text_of(show(f, id), "state");
}

static void a_dry_run_counts_and_touches_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t ids[3];

	three_to_two_domains(f, ids);
	assert_int_equal(number_of(act_on(f, "delete", "{\"domain\": \"a.example\", \"dry_run\": true}"), "count"), 2);
	assert_null(json_object_get(f->answer.json, "synced"));
	assert_int_equal(number_of(act_on(f, "bounce", "{\"all\": true, \"dry_run\": true}"), "count"), 3);
	assert_int_equal(number_of(act_on(f, "release", "{\"all\": true, \"dry_run\": true}"), "count"), 0);
	assert_false(relay_log_has(&f->relay, "event=operator"));
	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		assert_string_equal(state_of(f, ids[i]), "deferred");
}

static void many_are_held_released_and_deleted(void **state)
{
	struct fixture *f = *state;
	uint64_t ids[3];
	json_t *answer;

	three_to_two_domains(f, ids);
	answer = act_on(f, "hold", "{\"sender\": \"app@example.org\", \"domain\": \"b.example\"}");
	assert_int_equal(number_of(answer, "count"), 1);
	assert_true(json_is_true(json_object_get(answer, "synced")));
	assert_string_equal(state_of(f, ids[0]), "deferred");
	assert_string_equal(state_of(f, ids[1]), "held");
	assert_int_equal(number_of(act_on(f, "hold", "{\"all\": true}"), "count"), 2); /* who is held already is not */
	assert_int_equal(number_of(act_on(f, "release", "{\"recipient\": \"Three@A.Example\"}"), "count"), 1);
	assert_int_equal(number_of(act_on(f, "delete", "{\"state\": \"held\"}"), "count"), 2);
	assert_string_equal(state_of(f, ids[1]), "deferred");
	assert_true(relay_log_has(&f->relay, "action=delete conditions=\"state=held\" messages=2"));
	assert_true(relay_log_has(&f->relay, "from=other@example.org action=delete messages=1"));
	act(f, 404, "hold", ids[0]);
}

static void conditions_of_time_reason_and_way(void **state)
{
	struct fixture *f = *state;
	uint64_t ids[3];

	three_to_two_domains(f, ids);
	relay_pass(&f->relay, 60000);
	relay_submit(&f->relay, "app@example.org", "young@a.example");
	act_on(f, "hold", "{\"age\": \"1m\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 3);
	act_on(f, "hold", "{\"age\": \"2m\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 0);
	act_on(f, "hold", "{\"reason\": \"connect\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 3);
	act_on(f, "hold", "{\"class\": \"bulk\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 0);
	act_on(f, "hold", "{\"relayhost\": \"main\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 4);
	act_on(f, "hold", "{\"relayhost\": \"mx\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 0);
}

/* ---- bounce ---- */

static void a_bounced_message_fails_by_the_operators_word(void **state)
{
	struct fixture *f = *state;
	uint64_t id = submit_deferred(f, greylisted());
	json_t *message;

	assert_int_equal(number_of(act(f, 200, "bounce", id), "count"), 1);
	assert_int_equal(f->relay.bounces, 1);
	assert_true(f->relay.bounced_id == id);
	assert_int_equal(f->relay.bounced[0].outcome.kind, OUTCOME_FAILED);
	assert_string_equal(f->relay.bounced[0].outcome.text, "returned to the sender by an operator");
	message = show(f, id);
	assert_string_equal(text_of(message, "state"), "done");
	assert_string_equal(text_of(recipient_of(message, 0), "outcome"), "failed");
	assert_true(relay_log_has(&f->relay, "action=bounce"));
	act(f, 404, "bounce", id);
}

/* Until the DSN is safe it is neither sent nor gone; and if it never is, the message stays held. */
static void a_bounce_waits_for_its_dsn(void **state)
{
	struct fixture *f = *state;
	uint64_t id = submit_deferred(f, greylisted());

	f->relay.bounce_waits = true;
	act(f, 200, "bounce", id);
	assert_string_equal(state_of(f, id), "held");
	assert_int_equal(scheduler_bounce_count(f->relay.scheduler), 1);
	f->relay.bounce_done(f->relay.bounce_ctx, ERR_NO_SPACE);
	relay_pass(&f->relay, 86400ll * 1000);
	assert_string_equal(state_of(f, id), "held");
	assert_int_equal(scheduler_bounce_count(f->relay.scheduler), 0);
	act(f, 200, "bounce", id);
	f->relay.bounce_done(f->relay.bounce_ctx, 0);
	assert_string_equal(state_of(f, id), "done");
}

/* I10 */
static void what_is_being_tried_is_not_bounced(void **state)
{
	struct fixture *f = *state;
	uint64_t id = relay_submit(&f->relay, "app@example.org", "one@example.net");
	json_t *answer;

	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	act(f, 409, "bounce", id);
	answer = act_on(f, "bounce", "{\"all\": true}");
	assert_int_equal(number_of(answer, "count"), 0);
	assert_int_equal(number_of(answer, "busy"), 1);
	assert_string_equal(state_of(f, id), "inflight");
	fake_deliver(relay_connection(&f->relay, 0));
	assert_int_equal(f->relay.bounces, 0);
}

static void many_bounces_do_not_pile_up(void **state)
{
	enum { COUNT = 1000 };
	struct fixture *f = *state;
	json_t *answer;

	relay_submit_many(&f->relay, "one@example.net", COUNT);
	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "refused");
	relay_pass(&f->relay, 1000);
	answer = act_on(f, "bounce", "{\"domain\": \"example.net\"}");
	assert_int_equal(number_of(answer, "count"), COUNT);
	assert_int_equal(number_of(answer, "failed"), 0);
	assert_int_equal(f->relay.bounces, COUNT);
	assert_int_equal(number_of(json_object_get(json_object_get(get(f, "/v1/status"), "queue"), "held"), "messages"),
			 0);
}

static void a_relayhost_is_paused_and_resumed(void **state)
{
	struct fixture *f = *state;
	json_t *answer = ask(f, 200, "POST", "/v1/relayhosts/main/pause", "");
	uint64_t id;

	assert_string_equal(json_string_value(json_object_get(answer, "name")), "main");
	assert_true(json_is_true(json_object_get(answer, "paused")));
	assert_true(json_is_true(json_object_get(answer, "changed")));
	answer = ask(f, 200, "POST", "/v1/relayhosts/main/pause", "{}");
	assert_true(json_is_false(json_object_get(answer, "changed")));
	id = relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_pass(&f->relay, 60 * 1000);
	assert_int_equal(f->relay.opened, 0);
	answer = json_array_get(json_object_get(show(f, id), "recipients"), 0);
	assert_string_equal(json_string_value(json_object_get(answer, "why")),
			    "its turn has not come yet; relayhost main is paused by an operator");
	answer = json_array_get(json_object_get(get(f, "/v1/status"), "relayhosts"), 0);
	assert_true(json_is_true(json_object_get(answer, "paused")));
	assert_int_equal(json_integer_value(json_object_get(answer, "paused_sec")), 60);
	assert_int_equal(json_integer_value(json_object_get(answer, "waiting")), 1);
	answer = ask(f, 200, "POST", "/v1/relayhosts/main/resume", "");
	assert_true(json_is_false(json_object_get(answer, "paused")));
	fake_session(relay_connection(&f->relay, 0));
	fake_deliver(relay_connection(&f->relay, 0));
	ask(f, 404, "POST", "/v1/relayhosts/other/pause", "");
	ask(f, 404, "POST", "/v1/relayhosts/other/resume", "");
	ask(f, 404, "POST", "/v1/relayhosts//pause", "");
	ask(f, 404, "POST", "/v1/relayhosts/main/pause/more", "");
	ask(f, 405, "GET", "/v1/relayhosts/main/pause", NULL);
	assert_true(relay_log_has(&f->relay, "action=pause"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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
	    TEST(a_held_message_waits_until_it_is_released),
	    TEST(the_answer_to_hold_waits_for_the_disk),
	    TEST(a_relayhost_is_paused_and_resumed),
	    TEST(a_deleted_message_is_gone_and_remembered),
	    TEST(what_is_in_flight_while_deleted_tells_its_own_end),
	    TEST(flush_of_one_ends_its_destinations_back_off),
	    TEST(flush_of_a_domain_leaves_the_others_alone),
	    TEST(flush_of_a_domain_wakes_the_relayhost_it_goes_by),
	    TEST(flush_of_all_attempts_all_but_the_held),
	    TEST(flush_of_many_goes_in_steps),
	    TEST(a_flush_that_is_broken_off_says_so),
	    TEST(a_dry_run_counts_and_touches_nothing),
	    TEST(many_are_held_released_and_deleted),
	    TEST(conditions_of_time_reason_and_way),
	    TEST(a_bounced_message_fails_by_the_operators_word),
	    TEST(a_bounce_waits_for_its_dsn),
	    TEST(what_is_being_tried_is_not_bounced),
	    TEST(many_bounces_do_not_pile_up),
	};
	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
