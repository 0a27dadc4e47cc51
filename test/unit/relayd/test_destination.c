/* Destinations: windows, back-off, lines and limits, with connections that do what the test says. */
#include "support_relay.h"

/* ---- connections ---- */

static void there_are_no_more_connections_than_messages(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 1);
	assert_int_equal(relay_connection_count(relay), 1);
	relay_submit_many(relay, "one@a.example", 1);
	assert_int_equal(relay_connection_count(relay), 2);
	relay_submit_many(relay, "one@a.example", 1);
	assert_int_equal(relay_connection_count(relay), 3);
}

static void the_window_begins_small_and_grows_with_success(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 60);
	assert_int_equal(relay_connection_count(relay), 4);
	for (unsigned i = 0; i < 4; i++)
		fake_session(relay_connection(relay, i));
	for (unsigned i = 0; i < 4; i++)
		fake_deliver(relay_connection(relay, i));
	relay_submit_many(relay, "one@a.example", 1);
	assert_int_equal(relay_connection_count(relay), 8);
	assert_int_equal(relay_deliver_all(relay), 57);
	assert_in_range(relay_destination(relay, "mx:a.example")->window, 9, 20);
	assert_in_range(relay->opened, 8, 20);
	assert_int_equal(relay_waiting(relay), 0);
}

static void the_window_stays_within_the_limit(void **state)
{
	struct relay *relay = *state;

	destinations_set_limits(relay->destinations, 200, 3);
	relay_submit_many(relay, "one@a.example", 60);
	assert_int_equal(relay_connection_count(relay), 3);
	assert_int_equal(relay_deliver_all(relay), 60);
	assert_int_equal(relay->opened, 3);
}

static void throttling_halves_the_window(void **state)
{
	struct relay *relay = *state;
	struct outcome throttled =
	    outcome_like(OUTCOME_DEFERRED, CLASS_THROTTLE, STAGE_MAIL, 451, "4.7.1", "too many messages");

	relay_submit_many(relay, "one@a.example", 10);
	fake_session(relay_connection(relay, 0));
	fake_finish(relay_connection(relay, 0), &throttled);
	assert_int_equal(relay_destination(relay, "mx:a.example")->window, 2 + 1); /* quick all the same */
	assert_int_equal(relay_report(relay, relay->reports[0].id, 0)->outcome.kind, OUTCOME_DEFERRED);
}

static void an_idle_connection_is_used_again(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 1);
	fake_session(relay_connection(relay, 0));
	fake_deliver(relay_connection(relay, 0));
	assert_null(relay_connection(relay, 0)->job);
	relay_submit_many(relay, "two@a.example", 1);
	assert_int_equal(relay->opened, 1);
	assert_int_equal(relay_connection(relay, 0)->woken, 1);
	assert_non_null(relay_connection(relay, 0)->job);
}

/* A connection that died while it was idle: its job goes to the front and is no attempt. */
static void a_returned_job_comes_first_and_counts_no_attempt(void **state)
{
	struct relay *relay = *state;
	struct fake_connection *connection;
	struct job *job;
	uint64_t id;

	destinations_set_limits(relay->destinations, 200, 1);
	relay_submit_many(relay, "one@a.example", 3);
	connection = relay_connection(relay, 0);
	fake_session(connection);
	job = connection->job;
	id = job->ticket->message.id;
	connection->job = NULL;
	destination_return_job(connection->destination, job);
	fake_close(connection);
	relay_turn(relay);
	connection = relay_connection(relay, 0);
	fake_session(connection);
	assert_true(connection->job->ticket->message.id == id);
	assert_int_equal(relay->report_count, 0);
}

/* ---- the limit of all connections ---- */

static void an_idle_connection_gives_its_place_to_another_destination(void **state)
{
	struct relay *relay = *state;

	destinations_set_limits(relay->destinations, 1, 20);
	relay_submit_many(relay, "one@a.example", 1);
	fake_session(relay_connection(relay, 0));
	fake_deliver(relay_connection(relay, 0));
	relay_submit_many(relay, "one@b.example", 1);
	assert_int_equal(relay->quits, 1);
	assert_int_equal(relay_connection_count(relay), 1);
	relay_connection_to(relay, "mx:b.example");
}

static void a_closed_connection_makes_room_for_another_destination(void **state)
{
	struct relay *relay = *state;

	destinations_set_limits(relay->destinations, 1, 20);
	relay_submit_many(relay, "one@a.example", 1);
	relay_submit_many(relay, "one@b.example", 1);
	assert_int_equal(relay_connection_count(relay), 1);
	fake_session(relay_connection_to(relay, "mx:a.example"));
	fake_close(relay_connection_to(relay, "mx:a.example"));
	relay_turn(relay);
	relay_connection_to(relay, "mx:b.example");
}

static void a_connection_that_becomes_idle_makes_room_too(void **state)
{
	struct relay *relay = *state;

	destinations_set_limits(relay->destinations, 2, 20);
	relay_submit_many(relay, "one@a.example", 1);
	relay_submit_many(relay, "one@b.example", 1);
	relay_submit_many(relay, "one@c.example", 1);
	fake_session(relay_connection_to(relay, "mx:a.example"));
	fake_deliver(relay_connection_to(relay, "mx:a.example"));
	relay_turn(relay);
	relay_connection_to(relay, "mx:c.example");
	assert_int_equal(relay_connection_count(relay), 2);
}

/* Whatever the limit, everybody gets a turn. */
static void no_destination_starves_at_the_limit(void **state)
{
	enum { DESTINATIONS = 40 };
	struct relay *relay = *state;
	char to[64];

	destinations_set_limits(relay->destinations, 3, 20);
	for (int i = 0; i < DESTINATIONS; i++) {
		snprintf(to, sizeof(to), "one@d%d.example", i);
		relay_submit_many(relay, to, 5);
	}
	assert_int_equal(relay_deliver_all(relay), DESTINATIONS * 5);
	assert_int_equal(relay_waiting(relay), 0);
	assert_in_range(destinations_connection_count(relay->destinations), 0, 3);
}

static void submit_to_strangers(struct relay *relay, int count)
{
	char to[64];

	for (int i = 0; i < count; i++) {
		snprintf(to, sizeof(to), "one@stranger%d.example", i);
		relay_submit_many(relay, to, 1);
	}
}

/* A thousand addresses that somebody signed up with, at as many domains of his own. */
static void strangers_leave_places_to_those_who_have_taken_mail(void **state)
{
	struct relay *relay = *state;

	destinations_set_limits(relay->destinations, 8, 20);
	relay_submit_many(relay, "one@a.example", 1);
	assert_int_equal(relay_deliver_all(relay), 1);
	relay_close_all(relay);
	submit_to_strangers(relay, 30);
	assert_int_equal(relay_connection_count(relay), 6);
	relay_submit_many(relay, "one@a.example", 3);
	assert_int_equal(relay_connection_count(relay), 8);
	fake_session(relay_connection_to(relay, "mx:a.example"));
	fake_deliver(relay_connection_to(relay, "mx:a.example"));
	assert_non_null(relay_connection_to(relay, "mx:a.example")->job);
	/* One that takes a message is none any more. */
	fake_session(relay_connection_to(relay, "mx:stranger0.example"));
	fake_deliver(relay_connection_to(relay, "mx:stranger0.example"));
	relay_turn(relay);
	relay_connection_to(relay, "mx:stranger6.example");
	assert_int_equal(relay_deliver_all(relay), 2 + 29);
}

/* ---- back-off ---- */

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

/* ---- lines ---- */

static void classes_are_served_eight_to_four_to_one(void **state)
{
	struct relay *relay = *state;
	unsigned served[MESSAGE_CLASS_COUNT] = {0};
	struct fake_connection *connection;

	destinations_set_limits(relay->destinations, 200, 1);
	for (int i = 0; i < 20; i++) {
		relay_submit_class(relay, MESSAGE_BULK, "app@example.org", "one@a.example");
		relay_submit_class(relay, MESSAGE_DEFAULT, "app@example.org", "one@a.example");
		relay_submit_class(relay, MESSAGE_TRANSACTIONAL, "app@example.org", "one@a.example");
	}
	relay_turn(relay);
	connection = relay_connection(relay, 0);
	fake_session(connection);
	for (int i = 0; i < 13; i++) {
		served[connection->job->ticket->message.envelope.class]++;
		fake_deliver(connection);
	}
	assert_int_equal(served[MESSAGE_TRANSACTIONAL], 8);
	assert_int_equal(served[MESSAGE_DEFAULT], 4);
	assert_int_equal(served[MESSAGE_BULK], 1);
}

static void what_does_not_fit_is_parked_and_comes_back(void **state)
{
	struct relay *relay = *state;
	struct destination *d;

	destinations_set_limits(relay->destinations, 200, 1);
	relay_submit_many(relay, "one@a.example", 500);
	d = relay_destination(relay, "mx:a.example");
	assert_int_equal(d->ready_count, DESTINATION_READY_MAX);
	assert_int_equal(d->parked[MESSAGE_DEFAULT].count, 500 - DESTINATION_READY_MAX);
	assert_int_equal(scheduler_job_count(relay->scheduler), DESTINATION_READY_MAX);
	assert_int_equal(relay_deliver_all(relay), 500);
	assert_int_equal(relay_waiting(relay), 0);
}

static int no_write(struct disk *disk, int fd, const void *bytes, size_t len, uint64_t offset)
{
	(void)disk, (void)fd, (void)bytes, (void)len, (void)offset;
	return -EIO;
}

/* More messages than a line holds, each with so many recipients that a few fill the journal's memory. */
static void submit_large_envelopes(struct relay *relay, unsigned count, struct queue_recipient *recipients,
				   size_t recipient_count)
{
	struct queue_envelope envelope = {.sender = SLICE("app@example.org"),
					  .arrived_wall = RELAY_WALL_MS,
					  .expires_wall = RELAY_WALL_MS + 86400 * 1000,
					  .recipients = recipients,
					  .recipient_count = recipient_count};

	for (size_t i = 0; i < recipient_count; i++)
		recipients[i] = (struct queue_recipient){.address = SLICE("one@a.example")};
	for (unsigned i = 0; i < count; i++)
		relay_submit_envelope(relay, &envelope);
	relay_turn(relay);
}

static unsigned deliver_while_there_are_jobs(struct relay *relay, const struct outcome *outcome)
{
	struct fake_connection *connection = relay_connection(relay, 0);
	unsigned count = 0;

	if (!connection->job)
		fake_session(connection);
	for (; connection->job; count++) {
		relay->report_count = 0;
		fake_finish(connection, outcome);
		relay_turn(relay);
	}
	return count;
}

/* J22: what is delivered must be recorded. */
static void while_too_many_results_wait_for_the_disk_nothing_begins(void **state)
{
	enum { MESSAGES = DESTINATION_READY_MAX + 16, RECIPIENTS = 1000 };
	static struct queue_recipient recipients[RECIPIENTS];
	struct relay *relay = *state;
	int (*write)(struct disk *, int, const void *, size_t, uint64_t) = relay->disk->write;
	struct outcome outcome = outcome_like(OUTCOME_DELIVERED, CLASS_NONE, STAGE_DOT, 250, "2.0.0", "");
	unsigned delivered;

	memset(outcome.text, 'x', sizeof(outcome.text) - 1);
	destinations_set_limits(relay->destinations, 200, 1);
	submit_large_envelopes(relay, MESSAGES, recipients, RECIPIENTS);
	assert_int_equal(relay_destination(relay, "mx:a.example")->parked[MESSAGE_DEFAULT].count, 16);
	relay->disk->write = no_write;
	delivered = deliver_while_there_are_jobs(relay, &outcome);
	assert_in_range(delivered, 5, 30);
	assert_int_equal(scheduler_job_count(relay->scheduler), 0);
	relay->disk->write = write;
	relay_pass(relay, 10 * 1000);
	delivered += deliver_while_there_are_jobs(relay, &outcome);
	assert_int_equal(delivered, MESSAGES);
	assert_int_equal(relay_waiting(relay), 0);
}

static void parked_messages_of_a_dead_destination_wait_for_its_probe(void **state)
{
	struct relay *relay = *state;
	unsigned opened;

	relay_submit_many(relay, "one@a.example", 500);
	opened = relay->opened;
	while (relay_connection(relay, 0))
		fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	relay_pass(relay, 4000);
	assert_int_equal(relay->opened, opened);
	assert_int_equal(relay_destination(relay, "mx:a.example")->parked[MESSAGE_DEFAULT].count, 0);
	/* Those in line were tried; the parked ones were not. */
	assert_int_equal(relay->report_count, DESTINATION_READY_MAX);
	relay_pass(relay, 1000);
	assert_int_equal(relay->opened, opened + 1);
	fake_session(relay_connection(relay, 0));
	assert_true(relay_deliver_all(relay) >= 500 - DESTINATION_READY_MAX);
	relay_pass(relay, 20ll * 60 * 1000);
	relay_deliver_all(relay);
	assert_int_equal(relay_waiting(relay), 0);
}

static void route_to_b(struct relay *relay, const struct queue_envelope *envelope, uint32_t recipient,
		       struct scheduler_targets *out)
{
	(void)relay;
	(void)envelope;
	(void)recipient;
	out->count = 1;
	out->targets[0] = (struct destination_id){.kind = DESTINATION_MX, .name = "b.example"};
}

/* I12: A reload may send the rest of the mail elsewhere: nobody may be left behind in the old line. */
static void parked_messages_leave_when_their_route_changes(void **state)
{
	struct relay *relay = *state;

	destinations_set_limits(relay->destinations, 200, 1);
	relay_submit_many(relay, "one@a.example", 1500);
	relay->route = route_to_b;
	assert_int_equal(relay_deliver_all(relay), DESTINATION_READY_MAX + (1500 - DESTINATION_READY_MAX));
	relay_pass(relay, 1000);
	relay_deliver_all(relay);
	assert_int_equal(relay_destination(relay, "mx:a.example")->parked[MESSAGE_DEFAULT].count, 0);
	assert_int_equal(relay_waiting(relay), 0);
}

static void a_domain_that_takes_no_mail_fails_them_all(void **state)
{
	struct relay *relay = *state;
	struct outcome null_mx =
	    outcome_like(OUTCOME_FAILED, CLASS_DNS, STAGE_DNS, 0, "5.1.10", "the domain takes no mail");

	relay_submit_many(relay, "one@a.example", 100);
	destination_on_failed(relay_connection(relay, 0)->destination, &null_mx);
	assert_int_equal(relay->health_changes, 0);
	relay_pass(relay, 20);
	while (relay_connection(relay, 0)) {
		destination_on_failed(relay_connection(relay, 0)->destination, &null_mx);
		fake_close(relay_connection(relay, 0));
		relay_pass(relay, 20);
	}
	assert_int_equal(relay->report_count, 100);
	assert_int_equal(relay->bounces, 100);
	assert_int_equal(relay_waiting(relay), 0);
}

/* Those that came during the back-off, and those that had been tried. */
static void what_is_put_off_counts_as_waiting(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, RELAY_BY_MAIN);
	relay_submit_many(relay, "one@a.example", 2);
	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "Connection refused");
	relay_submit_many(relay, "two@a.example", 3);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:main")), 5);
	/* Tried again and put off again, they are still no more. */
	for (int i = 0; i < 20; i++) {
		relay_pass(relay, 10 * 1000);
		while (relay_connection(relay, 0))
			fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "Connection refused");
		relay_turn(relay);
		assert_in_range(destination_waiting(relay_destination(relay, "relayhost:main")), 1, 5);
	}
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:main")), 5);
}

/* ---- the end, forgetting ---- */

static void stopping_hands_everything_back(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 5);
	fake_session(relay_connection(relay, 0));
	fake_session(relay_connection(relay, 1));
	relay_submit_many(relay, "one@b.example", 1);
	fake_session(relay_connection_to(relay, "mx:b.example"));
	fake_deliver(relay_connection_to(relay, "mx:b.example"));
	scheduler_stop(relay->scheduler);
	destinations_stop(relay->destinations);
	assert_int_equal(relay->quits, 1); /* the idle one */
	fake_deliver(relay_connection(relay, 0));
	assert_int_equal(relay->quits, 2);
	relay_close_all(relay);
	assert_int_equal(scheduler_job_count(relay->scheduler), 0);
	assert_int_equal(relay_waiting(relay), 4);
}

static unsigned destination_count(struct relay *relay)
{
	struct destination *d = NULL;
	unsigned count = 0;

	while ((d = destinations_next(relay->destinations, d)))
		count++;
	return count;
}

static void note_trouble_of(struct destination *d)
{
	struct outcome refused =
	    outcome_like(OUTCOME_DEFERRED, CLASS_CONNECT, STAGE_CONNECT, 0, "4.4.1", "Connection refused");

	destination_on_failed(d, &refused);
}

/* Busy ones at the head of the table must not keep all the others alive. */
static void destinations_out_of_use_are_forgotten(void **state)
{
	struct relay *relay = *state;
	struct destination_id id = {.kind = DESTINATION_MX};
	unsigned most = 0;

	for (int i = 0; i < 6; i++) {
		snprintf(id.name, sizeof(id.name), "busy%d.example", i);
		note_trouble_of(destinations_get(relay->destinations, &id));
	}
	for (int i = 0; i < 5000; i++) {
		snprintf(id.name, sizeof(id.name), "d%d.example", i);
		destinations_get(relay->destinations, &id);
		relay_pass(relay, 6000); /* a hundred in ten minutes */
		most = MAX(most, destination_count(relay));
	}
	assert_in_range(most, 100, 220);
	snprintf(id.name, sizeof(id.name), "busy3.example");
	assert_int_equal(destinations_find(relay->destinations, &id)->trouble.kind, OUTCOME_DEFERRED);
}

static void finding_makes_none(void **state)
{
	struct relay *relay = *state;
	struct destination_id id = {.kind = DESTINATION_MX, .name = "a.example"}, other = id;

	assert_null(destinations_find(relay->destinations, &id));
	destinations_get(relay->destinations, &id);
	assert_ptr_equal(destinations_find(relay->destinations, &id), destinations_get(relay->destinations, &id));
	other.tls = CONFIG_TLS_DANE;
	assert_null(destinations_find(relay->destinations, &other));
	assert_string_equal(destinations_get(relay->destinations, &other)->key, "mx:a.example/dane");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(there_are_no_more_connections_than_messages),
	    TEST(the_window_begins_small_and_grows_with_success),
	    TEST(the_window_stays_within_the_limit),
	    TEST(throttling_halves_the_window),
	    TEST(an_idle_connection_is_used_again),
	    TEST(a_returned_job_comes_first_and_counts_no_attempt),
	    TEST(an_idle_connection_gives_its_place_to_another_destination),
	    TEST(a_closed_connection_makes_room_for_another_destination),
	    TEST(a_connection_that_becomes_idle_makes_room_too),
	    TEST(no_destination_starves_at_the_limit),
	    TEST(strangers_leave_places_to_those_who_have_taken_mail),
	    TEST(back_off_of_an_mx),
	    TEST(back_off_of_a_relayhost_is_shorter),
	    TEST(a_failure_defers_all_that_stand_in_line),
	    TEST(connections_that_fail_together_count_once),
	    TEST(a_dead_destination_takes_nothing_from_the_others),
	    TEST(a_good_probe_lets_the_others_follow_at_once),
	    TEST(a_destination_that_always_breaks_off_rests),
	    TEST(a_destination_that_throttles_rests_longer_each_time),
	    TEST(what_it_takes_again_ends_the_rest_of_who_throttles),
	    TEST(one_mailbox_that_is_throttled_lets_the_others_pass),
	    TEST(an_answer_ends_its_rest),
	    TEST(a_message_that_breaks_its_session_stops_nobody),
	    TEST(health_is_told_once_for_each_change),
	    TEST(a_refused_extra_connection_is_no_trouble),
	    TEST(one_connection_more_is_tried_soon_then_ever_later),
	    TEST(a_refused_connection_alone_is_trouble),
	    TEST(classes_are_served_eight_to_four_to_one),
	    TEST(what_does_not_fit_is_parked_and_comes_back),
	    TEST(while_too_many_results_wait_for_the_disk_nothing_begins),
	    TEST(parked_messages_of_a_dead_destination_wait_for_its_probe),
	    TEST(parked_messages_leave_when_their_route_changes),
	    TEST(a_domain_that_takes_no_mail_fails_them_all),
	    TEST(what_is_put_off_counts_as_waiting),
	    TEST(stopping_hands_everything_back),
	    TEST(destinations_out_of_use_are_forgotten),
	    TEST(finding_makes_none),
	};
	return cmocka_run_group_tests_name("destination", tests, NULL, NULL);
}
