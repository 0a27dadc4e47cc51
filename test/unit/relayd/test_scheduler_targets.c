/* The scheduler: which of several next hops a recipient is given to, and what happens when none takes it. */
#include "support_scheduler.h"

static const char two_relayhosts[] = "relayhosts:\n"
				     "  main: {address: 'smtp.example.net:587', tls: none, priority: 10}\n"
				     "  spare: {address: 'spare.example.net:587', tls: none, priority: 20}\n";

static void the_preferred_open_destination_is_taken(void **state)
{
	struct relay *relay = *state;
	uint64_t first, second;

	relay_configure(relay, two_relayhosts);
	first = submit(relay, "one@a.example");
	fake_fail(relay_connection_to(relay, "relayhost:main"), CLASS_CONNECT, STAGE_CONNECT, "refused");
	relay_turn(relay);
	second = submit(relay, "two@a.example");
	while (relay->report_count < 2)
		fake_deliver(relay_connect_to(relay, "relayhost:spare"));
	assert_string_equal(relay_report(relay, first, 0)->destination, "relayhost:spare");
	assert_string_equal(relay_report(relay, second, 0)->destination, "relayhost:spare");
	close_all(relay);
	relay_pass(relay, 5000);
	submit(relay, "three@a.example");
	relay_connection_to(relay, "relayhost:main"); /* its time for a probe has come */
}

static void a_failed_relayhost_is_left_at_once_and_without_an_attempt(void **state)
{
	struct relay *relay = *state;
	uint64_t id;

	relay_configure(relay, two_relayhosts);
	id = submit(relay, "one@a.example two@b.example");
	fake_fail(relay_connection_to(relay, "relayhost:main"), CLASS_CONNECT, STAGE_CONNECT, "refused");
	relay_turn(relay);
	assert_int_equal(relay->report_count, 0);
	fake_deliver(relay_connect_to(relay, "relayhost:spare"));
	assert_int_equal(relay_report(relay, id, 0)->attempts, 1);
	assert_int_equal(relay_report(relay, id, 1)->attempts, 1);
	assert_false(relay_is_queued(relay, id));
}

static void break_off(struct relay *relay, struct fake_connection *connection, const struct outcome *outcome)
{
	struct job *job = connection->job;

	connection->job = NULL;
	destination_on_outcome(connection->destination, job, 0, outcome);
	destination_on_job_done(connection->destination, job, false);
	destination_on_broken(connection->destination, outcome);
	fake_close(connection);
	relay_turn(relay);
}

/* One that breaks off each message is closed after three of them; those in line have not been tried. */
static void a_relayhost_that_breaks_off_is_left_by_those_in_line(void **state)
{
	struct relay *relay = *state;
	struct outcome closing = outcome_like(OUTCOME_DEFERRED, CLASS_CONNECT, STAGE_RCPT, 421, "4.3.2", "closing");
	uint64_t id;

	relay_configure(relay, two_relayhosts);
	destinations_set_limits(relay->destinations, 200, 1);
	for (int i = 0; i < 3; i++)
		submit(relay, "one@a.example");
	id = submit(relay, "two@b.example");
	for (int i = 0; i < 3; i++)
		break_off(relay, relay_connect_to(relay, "relayhost:main"), &closing);
	assert_int_equal(relay->report_count, 3);
	fake_deliver(relay_connect_to(relay, "relayhost:spare"));
	assert_int_equal(relay_report(relay, id, 0)->attempts, 1);
	assert_false(relay_is_queued(relay, id));
}

/* RFC 5321 section 4.5.3.2.6: lost behind the final dot, it may be on its way; to send it elsewhere now makes two of it. */
static void what_a_closed_relayhost_may_have_taken_is_put_off(void **state)
{
	struct relay *relay = *state;
	struct outcome closing = outcome_like(OUTCOME_DEFERRED, CLASS_CONNECT, STAGE_RCPT, 421, "4.3.2", "closing");
	struct outcome lost = outcome_like(OUTCOME_DEFERRED, CLASS_CONNECT, STAGE_DOT, 0, "4.4.2", "connection lost");
	struct fake_connection *connections[4];
	uint64_t ids[4];

	relay_configure(relay, two_relayhosts);
	for (int i = 0; i < 4; i++)
		ids[i] = submit(relay, "one@a.example");
	for (unsigned i = 0; i < 4; i++) {
		connections[i] = relay_connection(relay, i);
		assert_non_null(connections[i]);
	}
	for (int i = 0; i < 4; i++)
		fake_session(connections[i]);
	for (int i = 0; i < 4; i++)
		assert_true(connections[i]->job && connections[i]->job->ticket->message.id == ids[i]);
	for (int i = 0; i < 3; i++)
		break_off(relay, connections[i], &closing);
	break_off(relay, connections[3], &lost);
	assert_int_equal(relay_report(relay, ids[3], 0)->outcome.kind, OUTCOME_DEFERRED);
	assert_string_equal(relay_report(relay, ids[3], 0)->destination, "relayhost:main");
	assert_int_equal(relay_report(relay, ids[3], 0)->attempts, 1);
}

static void with_all_relayhosts_down_the_message_waits(void **state)
{
	struct relay *relay = *state;
	uint64_t id;

	relay_configure(relay, two_relayhosts);
	id = submit(relay, "one@a.example");
	fake_fail(relay_connection_to(relay, "relayhost:main"), CLASS_CONNECT, STAGE_CONNECT, "refused");
	relay_turn(relay);
	fake_fail(relay_connection_to(relay, "relayhost:spare"), CLASS_CONNECT, STAGE_CONNECT, "refused too");
	assert_int_equal(relay->report_count, 1);
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_DEFERRED);
	assert_string_equal(relay_report(relay, id, 0)->outcome.text, "refused too");
	assert_null(relay_connection(relay, 0));
}

static void a_full_account_sends_its_message_through_the_other(void **state)
{
	struct relay *relay = *state;
	struct outcome limit = outcome_like(OUTCOME_DEFERRED, CLASS_THROTTLE, STAGE_MAIL, 550, "5.4.5", "daily limit");
	uint64_t id;

	relay_configure(relay, two_relayhosts);
	id = submit(relay, "one@a.example");
	fake_finish(relay_connect_to(relay, "relayhost:main"), &limit);
	relay_turn(relay);
	assert_int_equal(relay->report_count, 0);
	fake_deliver(relay_connect_to(relay, "relayhost:spare"));
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_DELIVERED);
}

static void while_a_relayhost_is_tried_again_others_go_through_the_next(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, two_relayhosts);
	submit(relay, "one@a.example");
	fake_fail(relay_connection_to(relay, "relayhost:main"), CLASS_CONNECT, STAGE_CONNECT, "timed out");
	relay_turn(relay);
	fake_deliver(relay_connect_to(relay, "relayhost:spare"));
	relay_pass(relay, 5000);
	submit(relay, "two@a.example");
	assert_null(relay_connection_to(relay, "relayhost:main")->job); /* the probe, which takes its time */
	submit(relay, "three@a.example");
	assert_non_null(relay_connect_to(relay, "relayhost:spare")->job);
}

static void a_message_for_a_resting_destination_costs_no_memory(void **state)
{
	struct relay *relay = *state;
	uint64_t id;

	submit(relay, "one@a.example");
	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "refused");
	id = submit(relay, "two@a.example");
	assert_int_equal(scheduler_job_count(relay->scheduler), 0);
	assert_int_equal(relay->report_count, 1); /* it was not tried */
	relay_pass(relay, 4999);
	assert_null(relay_connection(relay, 0));
	relay_pass(relay, 1);
	assert_true(relay_connect_to(relay, "mx:a.example")->job->ticket->message.id == id);
}

static void of_two_destinations_the_open_one_is_served_at_once(void **state)
{
	struct relay *relay = *state;
	uint64_t id;

	submit(relay, "one@a.example");
	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "refused");
	id = submit(relay, "one@a.example two@b.example");
	fake_deliver(relay_connect_to(relay, "mx:b.example"));
	close_all(relay);
	assert_true(relay_is_queued(relay, id));
	relay_pass(relay, 5000);
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_false(relay_is_queued(relay, id));
}

static void a_recipient_without_a_route_fails_alone(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a..example two@a.example");

	assert_int_equal(relay->bounced_count, 1);
	assert_int_equal(relay->bounced[0].index, 0);
	assert_string_equal(relay->bounced[0].outcome.enhanced, "5.1.2");
	assert_string_equal(relay_report(relay, id, 0)->destination, "");
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_false(relay_is_queued(relay, id));
}

static void no_route_now(struct relay *relay, const struct queue_envelope *envelope, uint32_t recipient,
			 struct scheduler_targets *out)
{
	(void)relay;
	(void)envelope;
	(void)recipient;
	out->failure = outcome_like(OUTCOME_DEFERRED, CLASS_OTHER, STAGE_ROUTE, 0, "4.3.5", "no route now");
}

static void a_route_that_is_missing_for_now_defers(void **state)
{
	struct relay *relay = *state;
	uint64_t id;

	relay->route = no_route_now;
	id = submit(relay, "one@a.example");
	assert_int_equal(relay_message_state(relay, id), STATE_DEFERRED);
	assert_string_equal(relay_report(relay, id, 0)->outcome.text, "no route now");
	relay->route = NULL;
	relay_pass(relay, hour_ms);
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(the_preferred_open_destination_is_taken),
	    TEST(a_failed_relayhost_is_left_at_once_and_without_an_attempt),
	    TEST(a_relayhost_that_breaks_off_is_left_by_those_in_line),
	    TEST(what_a_closed_relayhost_may_have_taken_is_put_off),
	    TEST(with_all_relayhosts_down_the_message_waits),
	    TEST(a_full_account_sends_its_message_through_the_other),
	    TEST(while_a_relayhost_is_tried_again_others_go_through_the_next),
	    TEST(a_message_for_a_resting_destination_costs_no_memory),
	    TEST(of_two_destinations_the_open_one_is_served_at_once),
	    TEST(a_recipient_without_a_route_fails_alone),
	    TEST(a_route_that_is_missing_for_now_defers),
	};
	return cmocka_run_group_tests_name("scheduler, targets", tests, NULL, NULL);
}
