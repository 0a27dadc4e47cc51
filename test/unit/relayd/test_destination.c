/* Destinations: connections, windows and lines, with connections that do what the test says. */
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
