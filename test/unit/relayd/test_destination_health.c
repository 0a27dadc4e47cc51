/* Destinations in trouble: back-off, rests of those that break off or throttle, and when it is over. */
#include "support_relay.h"

static void back_off_doubles_to_its_limit(struct relay *relay, const char *key, const int64_t *waits, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		fake_fail(relay_connection_to(relay, key), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
		relay_turn(relay);
		assert_null(relay_connection(relay, 0));
		relay_submit_many(relay, "new@a.example", 2); /* there is always somebody who waits */
		assert_int_equal(relay_time_to_next_open(relay, 3600 * 1000), waits[i]);
		assert_int_equal(relay_connection_count(relay), 1); /* one probe */
	}
}

static void back_off_of_an_mx(void **state)
{
	struct relay *relay = *state;
	static const int64_t waits[] = {5000, 10000, 20000, 40000, 80000, 160000, 320000, 600000, 600000};

	relay_submit_many(relay, "one@a.example", 1);
	back_off_doubles_to_its_limit(relay, "mx:a.example", waits, ARRAY_LEN(waits));
}

static void back_off_of_a_relayhost_is_shorter(void **state)
{
	struct relay *relay = *state;
	static const int64_t waits[] = {5000, 10000, 20000, 40000, 60000, 60000};

	relay_configure(relay, RELAY_BY_MAIN);
	relay_submit_many(relay, "one@a.example", 1);
	back_off_doubles_to_its_limit(relay, "relayhost:main", waits, ARRAY_LEN(waits));
}

static void a_failure_defers_all_that_stand_in_line(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 30);
	fake_fail(relay_connection(relay, 0), CLASS_DNS, STAGE_DNS, "SERVFAIL");
	assert_int_equal(relay->report_count, 30);
	for (size_t i = 0; i < 30; i++) {
		assert_int_equal(relay->reports[i].outcome.kind, OUTCOME_DEFERRED);
		assert_int_equal(relay->reports[i].outcome.class, CLASS_DNS);
		assert_string_equal(relay->reports[i].destination, "mx:a.example");
		assert_true(relay->reports[i].next_wall > RELAY_WALL_MS);
	}
}

static void connections_that_fail_together_count_once(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 8);
	assert_int_equal(relay_connection_count(relay), 4);
	while (relay_connection(relay, 0))
		fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	assert_int_equal(relay_destination(relay, "mx:a.example")->failures, 1);
	relay_submit_many(relay, "two@a.example", 1);
	assert_int_equal(relay_time_to_next_open(relay, 3600 * 1000), 5000);
}

/* F18 */
static void a_dead_destination_takes_nothing_from_the_others(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@dead.example", 100);
	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	relay_close_all(relay);
	relay_submit_many(relay, "one@a.example", 5);
	assert_int_equal(relay_deliver_all(relay), 5);
}

static void a_good_probe_lets_the_others_follow_at_once(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 1);
	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	relay_submit_many(relay, "two@a.example", 20);
	relay_time_to_next_open(relay, 3600 * 1000);
	assert_int_equal(relay_connection_count(relay), 1);
	fake_session(relay_connection(relay, 0));
	relay_turn(relay);
	assert_true(relay_connection_count(relay) > 1);
	assert_int_equal(relay_destination(relay, "mx:a.example")->trouble.kind, OUTCOME_NONE);
	assert_int_equal(relay_deliver_all(relay), 20);
}

/* The host ends the session within the message. */
static void break_off(struct relay *relay, const char *key, const struct outcome *outcome)
{
	struct fake_connection *connection = relay_connection_to(relay, key);
	struct destination *destination = connection->destination;
	struct job *job;

	if (!connection->job)
		fake_session(connection);
	job = connection->job;
	assert_non_null(job);
	connection->job = NULL;
	destination_on_outcome(destination, job, 0, outcome);
	destination_on_job_done(destination, job, false);
	destination_on_broken(destination, outcome);
	fake_close(connection);
	relay_turn(relay);
}

static const struct outcome closing = {.kind = OUTCOME_DEFERRED,
				       .class = CLASS_CONNECT,
				       .stage = STAGE_RCPT,
				       .code = 421,
				       .enhanced = "4.3.2",
				       .text = "closing"};

static void a_destination_that_always_breaks_off_rests(void **state)
{
	struct relay *relay = *state;
	static const int64_t waits[] = {5000, 10000, 20000, 40000, 80000, 160000, 320000, 600000, 600000};

	destinations_set_limits(relay->destinations, 200, 1);
	relay_submit_many(relay, "one@a.example", 30);
	break_off(relay, "mx:a.example", &closing);
	break_off(relay, "mx:a.example", &closing);
	assert_int_equal(relay->health_changes, 0);
	break_off(relay, "mx:a.example", &closing);
	assert_string_equal(relay->last_health, "mx:a.example connect");
	assert_int_equal(relay->report_count, 30); /* nobody else in the line has to find out for himself */
	for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
		assert_null(relay_connection(relay, 0));
		relay_submit_many(relay, "new@a.example", 2);
		assert_int_equal(relay_time_to_next_open(relay, 3600 * 1000), waits[i]);
		fake_session(relay_connection(relay, 0)); /* that there is a session proves nothing */
		assert_int_equal(relay->health_changes, 1);
		break_off(relay, "mx:a.example", &closing);
	}
}

static const struct outcome busy = {.kind = OUTCOME_DEFERRED,
				    .class = CLASS_THROTTLE,
				    .stage = STAGE_RCPT,
				    .code = 451,
				    .enhanced = "4.7.500",
				    .text = "server busy"};

/* Its connection stays. */
static void throttle(struct relay *relay, const struct outcome *outcome)
{
	struct fake_connection *connection = relay_connection(relay, 0);

	if (!connection->job)
		fake_session(connection);
	fake_finish(connection, outcome);
	relay_turn(relay);
}

static void a_destination_that_throttles_rests_longer_each_time(void **state)
{
	struct relay *relay = *state;
	static const int64_t minutes[] = {5, 10, 20, 40, 60, 60};
	int64_t began;

	destinations_set_limits(relay->destinations, 200, 1);
	relay_submit_many(relay, "one@a.example", 30);
	throttle(relay, &busy);
	throttle(relay, &busy);
	assert_int_equal(relay->health_changes, 0);
	assert_int_equal(relay->report_count, 2);
	throttle(relay, &busy);
	assert_string_equal(relay->last_health, "mx:a.example throttle");
	assert_int_equal(relay->report_count, 30); /* the line does not try its luck one by one */
	for (size_t i = 0; i < ARRAY_LEN(minutes); i++) {
		assert_null(relay_connection(relay, 0)->job);
		began = loop_now_ms(relay->loop);
		relay_submit_many(relay, "new@a.example", 2);
		while (!relay_connection(relay, 0)->job)
			relay_pass(relay, 1000);
		assert_in_range(loop_now_ms(relay->loop) - began, minutes[i] * 60000 - 1000, minutes[i] * 60000 + 1000);
		throttle(relay, &busy);
	}
	assert_int_equal(relay->health_changes, 1);
}

/* Who says so in its greeting, before any message. */
static void a_destination_that_throttles_at_once_rests_as_long(void **state)
{
	const struct outcome deferred =
	    outcome_like(OUTCOME_DEFERRED, CLASS_THROTTLE, STAGE_GREETING, 421, "4.7.0",
			 "[TSS04] Messages temporarily deferred due to unexpected volume or user complaints");
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 1);
	destination_on_failed(relay_connection(relay, 0)->destination, &deferred);
	fake_close(relay_connection(relay, 0));
	relay_turn(relay);
	relay_submit_many(relay, "two@a.example", 20);
	assert_int_equal(relay_time_to_next_open(relay, 3600 * 1000), 300 * 1000);
}

static void what_it_takes_again_ends_the_rest_of_who_throttles(void **state)
{
	struct relay *relay = *state;

	destinations_set_limits(relay->destinations, 200, 1);
	relay_submit_many(relay, "one@a.example", 3);
	for (int i = 0; i < 3; i++)
		throttle(relay, &busy);
	relay_submit_many(relay, "new@a.example", 5);
	while (!relay_connection(relay, 0)->job)
		relay_pass(relay, 1000);
	fake_deliver(relay_connection(relay, 0));
	assert_string_equal(relay->last_health, "mx:a.example none");
	assert_int_equal(relay_deliver_all(relay), 4);
}

/* Gmail: "450 4.2.1 The user you are trying to contact is receiving mail at a rate that ...". */
static void one_mailbox_that_is_throttled_lets_the_others_pass(void **state)
{
	struct relay *relay = *state;
	struct outcome mailbox = busy;

	snprintf(mailbox.enhanced, sizeof(mailbox.enhanced), "4.2.1");
	destinations_set_limits(relay->destinations, 200, 1);
	relay_submit_many(relay, "one@a.example", 20);
	for (int i = 0; i < 6; i++)
		throttle(relay, &mailbox);
	assert_int_equal(relay->health_changes, 0);
	assert_int_equal(relay_deliver_all(relay), 14);
}

static void an_answer_ends_its_rest(void **state)
{
	struct relay *relay = *state;
	struct outcome refused = outcome_like(OUTCOME_FAILED, CLASS_MAILBOX, STAGE_RCPT, 550, "5.1.1", "no such user");

	destinations_set_limits(relay->destinations, 200, 1);
	relay_submit_many(relay, "one@a.example", 3);
	for (int i = 0; i < 3; i++)
		break_off(relay, "mx:a.example", &closing);
	relay_submit_many(relay, "new@a.example", 2);
	relay_time_to_next_open(relay, 3600 * 1000);
	fake_session(relay_connection(relay, 0));
	fake_finish(relay_connection(relay, 0), &refused);
	assert_string_equal(relay->last_health, "mx:a.example none");
	break_off(relay, "mx:a.example", &closing);
	assert_int_equal(relay_destination(relay, "mx:a.example")->failures, 0);
}

/* One message may make a content filter fall over: the others are none the worse for it. */
static void a_message_that_breaks_its_session_stops_nobody(void **state)
{
	struct relay *relay = *state;

	destinations_set_limits(relay->destinations, 200, 1);
	relay_submit_many(relay, "one@a.example", 20);
	for (int i = 0; i < 6; i++) {
		break_off(relay, "mx:a.example", &closing);
		fake_session(relay_connection(relay, 0));
		fake_deliver(relay_connection(relay, 0));
	}
	assert_int_equal(relay->health_changes, 0);
	assert_int_equal(relay_deliver_all(relay), 20 - 12);
}

static void health_is_told_once_for_each_change(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 1);
	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	assert_int_equal(relay->health_changes, 1);
	assert_string_equal(relay->last_health, "mx:a.example connect");
	relay_submit_many(relay, "two@a.example", 1);
	relay_time_to_next_open(relay, 3600 * 1000);
	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection timed out");
	assert_int_equal(relay->health_changes, 1);
	relay_submit_many(relay, "two@a.example", 1);
	relay_time_to_next_open(relay, 3600 * 1000);
	fake_fail(relay_connection(relay, 0), CLASS_TLS, STAGE_TLS, "bad certificate");
	assert_int_equal(relay->health_changes, 2);
	assert_string_equal(relay->last_health, "mx:a.example tls");
	relay_submit_many(relay, "two@a.example", 1);
	relay_time_to_next_open(relay, 3600 * 1000);
	fake_session(relay_connection(relay, 0));
	assert_int_equal(relay->health_changes, 3);
	assert_string_equal(relay->last_health, "mx:a.example none");
	fake_deliver(relay_connection(relay, 0));
	assert_int_equal(relay->health_changes, 3);
}

/* A server that takes three connections and no more is not in trouble: its 421 to the fourth must neither defer what
 * stands in line nor rest the three. */
static void a_refused_extra_connection_is_no_trouble(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 40);
	for (unsigned i = 0; i < 3; i++)
		fake_session(relay_connection(relay, i));
	fake_fail(relay_connection(relay, 3), CLASS_CONNECT, STAGE_GREETING, "too many connections");
	assert_int_equal(relay->report_count, 0);
	assert_int_equal(relay->health_changes, 0);
	assert_int_equal(relay_connection_count(relay), 3);
	for (int i = 0; i < 10; i++) /* nor is it asked for at once again */
		fake_deliver(relay_connection(relay, (unsigned)i % 3));
	relay_turn(relay);
	assert_int_equal(relay_connection_count(relay), 3);
	assert_int_equal(relay_deliver_all(relay), 30);
	assert_int_equal(relay->opened, 4);
}

/* Messages go out over the connections that there are, until one more is asked for; after how many milliseconds. */
static int64_t time_to_one_more(struct relay *relay, unsigned sessions)
{
	int64_t began = clock_mono_ms(&relay->clock.clock);
	unsigned opened = relay->opened;

	while (relay->opened == opened && clock_mono_ms(&relay->clock.clock) - began < 120 * 1000) {
		relay_submit_many(relay, "one@a.example", sessions);
		for (unsigned i = 0; i < sessions; i++)
			fake_deliver(relay_connection(relay, i));
		relay_pass(relay, 500);
	}
	assert_int_equal(relay->opened, opened + 1); /* never more than one */
	return clock_mono_ms(&relay->clock.clock) - began;
}

/* That a connection was cut while it was made (the server restarts) costs seconds, not a minute. */
static void one_connection_more_is_tried_soon_then_ever_later(void **state)
{
	struct relay *relay = *state;
	static const int64_t pauses[] = {2000, 4000, 8000, 16000, 32000, 60000, 60000};

	relay_submit_many(relay, "one@a.example", 40);
	for (unsigned i = 0; i < 3; i++)
		fake_session(relay_connection(relay, i));
	for (size_t p = 0; p < ARRAY_LEN(pauses); p++) {
		fake_fail(relay_connection(relay, 3), CLASS_CONNECT, STAGE_GREETING, "too many connections");
		assert_in_range(time_to_one_more(relay, 3), pauses[p], pauses[p] + 1000);
	}
	fake_session(relay_connection(relay, 3)); /* and when it is taken there is no pause any more */
	relay_submit_many(relay, "one@a.example", 40);
	relay_deliver_all(relay);
	assert_true(relay->opened > 4 + ARRAY_LEN(pauses));
	assert_int_equal(relay->health_changes, 0);
}

/* But when the sessions are gone as well, it is. */
static void a_refused_connection_alone_is_trouble(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 40);
	fake_session(relay_connection(relay, 0));
	fake_close(relay_connection(relay, 0));
	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_GREETING, "too many connections");
	assert_int_equal(relay->health_changes, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(back_off_of_an_mx),
	    TEST(back_off_of_a_relayhost_is_shorter),
	    TEST(a_failure_defers_all_that_stand_in_line),
	    TEST(connections_that_fail_together_count_once),
	    TEST(a_dead_destination_takes_nothing_from_the_others),
	    TEST(a_good_probe_lets_the_others_follow_at_once),
	    TEST(a_destination_that_always_breaks_off_rests),
	    TEST(a_destination_that_throttles_rests_longer_each_time),
	    TEST(a_destination_that_throttles_at_once_rests_as_long),
	    TEST(what_it_takes_again_ends_the_rest_of_who_throttles),
	    TEST(one_mailbox_that_is_throttled_lets_the_others_pass),
	    TEST(an_answer_ends_its_rest),
	    TEST(a_message_that_breaks_its_session_stops_nobody),
	    TEST(health_is_told_once_for_each_change),
	    TEST(a_refused_extra_connection_is_no_trouble),
	    TEST(one_connection_more_is_tried_soon_then_ever_later),
	    TEST(a_refused_connection_alone_is_trouble),
	};

	return cmocka_run_group_tests_name("destination_health", tests, NULL, NULL);
}
