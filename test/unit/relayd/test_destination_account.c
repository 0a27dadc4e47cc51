/* A destination whose trouble is our account with it: a login, a limit, a sender; none of it is the message's fault. */
#include "support_relay.h"

/* G37 */
static void a_refused_login_rests_the_relayhost(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, RELAY_BY_MAIN);
	relay_submit_many(relay, "one@a.example", 10);
	fake_fail(relay_connection(relay, 0), CLASS_AUTH, STAGE_AUTH, "535 authentication failed");
	assert_string_equal(relay->last_health, "relayhost:main auth");
	assert_int_equal(relay->reports[0].outcome.kind, OUTCOME_DEFERRED);
}

/* A daily limit is told at MAIL, in a session that stands. Sessions that come up do not end the trouble, else it would
 * begin and end with each probe, and the back-off would never grow. */
static void a_daily_limit_is_trouble_until_a_message_gets_through(void **state)
{
	struct relay *relay = *state;
	struct outcome limit =
	    outcome_like(OUTCOME_DEFERRED, CLASS_THROTTLE, STAGE_MAIL, 550, "5.4.5", "daily limit exceeded");
	static const int64_t waits[] = {5000, 10000, 20000, 40000, 80000, 160000, 320000, 600000, 600000};

	relay_configure(relay, RELAY_BY_MAIN);
	relay_submit_many(relay, "one@a.example", 1);
	fake_session(relay_connection(relay, 0));
	for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
		fake_finish(relay_connection(relay, 0), &limit);
		relay_close_all(relay);
		relay_turn(relay);
		relay_submit_many(relay, "one@a.example", 2);
		assert_int_equal(relay_time_to_next_open(relay, 3600 * 1000), waits[i]);
		assert_int_equal(relay->health_changes, 1);
		assert_int_equal(relay_connection_count(relay), 1);
		fake_session(relay_connection(relay, 0));
		assert_int_equal(relay->health_changes, 1);
	}
	assert_string_equal(relay->last_health, "relayhost:main throttle");
	fake_deliver(relay_connection(relay, 0));
	assert_int_equal(relay->health_changes, 2);
	assert_string_equal(relay->last_health, "relayhost:main none");
	relay_turn(relay);
	assert_true(relay_deliver_all(relay) > 0);
}

/* Amazon SES's words. */
static struct outcome refused_sender(void)
{
	return outcome_like(OUTCOME_DEFERRED, CLASS_AUTH, STAGE_DOT, 554, "5.0.0",
			    "Message rejected: Email address is not verified.");
}

/* The relayhost takes a job: the first connection's, or a new one's. */
static struct fake_connection *taking(struct relay *relay)
{
	relay_turn(relay);
	for (unsigned i = 0; relay_connection(relay, i); i++) {
		struct fake_connection *connection = relay_connection(relay, i);
		if (!connection->job && !connection->slot.has_session)
			fake_session(connection);
		if (connection->job)
			return connection;
	}
	fail_msg("no connection has a job");
	return NULL;
}

static void a_sender_that_is_refused_while_others_get_through_is_at_fault(void **state)
{
	struct relay *relay = *state;
	struct outcome refused = refused_sender();
	uint64_t bad;

	relay_configure(relay, RELAY_BY_MAIN);
	relay_submit(relay, "app@example.org", "one@a.example");
	fake_deliver(taking(relay));
	bad = relay_submit(relay, "other@example.org", "one@a.example two@a.example");
	fake_finish(taking(relay), &refused);
	relay_turn(relay);
	assert_int_equal(relay->health_changes, 0); /* one refusal proves nothing */
	assert_int_equal(relay_report(relay, bad, 1)->outcome.kind, OUTCOME_DEFERRED);
	relay_submit(relay, "app@example.org", "one@a.example");
	fake_deliver(taking(relay));
	relay_pass(relay, 120 * 1000);
	fake_finish(taking(relay), &refused);
	relay_turn(relay);
	assert_int_equal(relay_report(relay, bad, 0)->outcome.kind, OUTCOME_FAILED);
	assert_int_equal(relay_report(relay, bad, 1)->outcome.kind, OUTCOME_FAILED);
	assert_int_equal(relay_report(relay, bad, 0)->outcome.class, CLASS_POLICY);
	assert_int_equal(relay->health_changes, 0);
}

static void senders_that_are_all_refused_are_the_account_s_trouble(void **state)
{
	struct relay *relay = *state;
	struct outcome refused = refused_sender();
	uint64_t first, second;

	relay_configure(relay, RELAY_BY_MAIN);
	relay_submit(relay, "app@example.org", "one@a.example");
	fake_deliver(taking(relay));
	first = relay_submit(relay, "app@example.org", "one@a.example");
	fake_finish(taking(relay), &refused);
	second = relay_submit(relay, "other@example.org", "one@a.example");
	fake_finish(taking(relay), &refused);
	relay_turn(relay);
	assert_string_equal(relay->last_health, "relayhost:main auth");
	/* However often it is tried. */
	for (int i = 0; i < 6; i++) {
		relay_pass(relay, 700 * 1000);
		fake_finish(taking(relay), &refused);
	}
	relay_turn(relay);
	assert_int_equal(relay->bounces, 0);
	assert_int_equal(relay_report(relay, first, 0)->outcome.kind, OUTCOME_DEFERRED);
	assert_int_equal(relay_report(relay, second, 0)->outcome.kind, OUTCOME_DEFERRED);
	assert_int_equal(relay->health_changes, 1);
	relay_pass(relay, 700 * 1000);
	fake_deliver(taking(relay));
	assert_string_equal(relay->last_health, "relayhost:main none");
}

/* A new installation: nobody has said yet that the sender is ours. */
static void a_first_message_with_an_unverified_sender_is_held(void **state)
{
	struct relay *relay = *state;
	struct outcome refused = refused_sender();

	relay_configure(relay, RELAY_BY_MAIN);
	relay_submit(relay, "app@example.org", "one@a.example two@a.example");
	fake_finish(taking(relay), &refused);
	assert_string_equal(relay->last_health, "relayhost:main auth");
	relay_pass(relay, 700 * 1000);
	fake_finish(taking(relay), &refused);
	relay_turn(relay);
	assert_int_equal(relay->bounces, 0);
}

static void a_relayhost_without_a_token_is_held_until_it_has_one(void **state)
{
	struct relay *relay = *state;
	struct outcome none = outcome_like(OUTCOME_DEFERRED, CLASS_AUTH, STAGE_AUTH, 0, "4.7.0", "no access token");
	int64_t now;

	relay_configure(relay, RELAY_BY_MAIN);
	now = loop_now_ms(relay->loop);
	destinations_hold_relayhost(relay->destinations, "main", &none, now + 300 * 1000);
	assert_string_equal(relay->last_health, "relayhost:main auth");
	relay_submit(relay, "app@example.org", "one@a.example");
	relay_pass(relay, 290 * 1000);
	assert_int_equal(relay->opened, 0);
	destinations_mend_relayhost(relay->destinations, "main");
	assert_string_equal(relay->last_health, "relayhost:main none");
	relay_pass(relay, 60 * 1000);
	assert_int_equal(relay->opened, 1);
	/* Other trouble is not ended by a token. */
	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "refused");
	destinations_mend_relayhost(relay->destinations, "main");
	assert_string_equal(relay->last_health, "relayhost:main connect");
}

static void assert_tried_at_once(struct relay *relay, const struct outcome *trouble)
{
	relay_configure(relay, RELAY_BY_MAIN);
	for (int i = 0; i < 8; i++) { /* until the back-off is long */
		relay_submit_many(relay, "one@a.example", 1);
		relay_pass(relay, 600 * 1000);
		destination_on_failed(relay_connection(relay, 0)->destination, trouble);
		fake_close(relay_connection(relay, 0));
		relay_turn(relay);
	}
	relay_submit_many(relay, "one@a.example", 1);
	relay_turn(relay);
	assert_null(relay_connection(relay, 0));
	destinations_retry_relayhosts(relay->destinations);
	relay_submit_many(relay, "one@a.example", 1);
	relay_turn(relay);
	assert_non_null(relay_connection(relay, 0));
}

static void a_changed_secret_is_tried_at_once(void **state)
{
	struct outcome refused = outcome_like(OUTCOME_DEFERRED, CLASS_AUTH, STAGE_AUTH, 535, "5.7.8", "no");

	assert_tried_at_once(*state, &refused);
}

static void a_changed_port_is_tried_at_once(void **state)
{
	struct outcome no_tls =
	    outcome_like(OUTCOME_DEFERRED, CLASS_TLS, STAGE_TLS, 0, "4.7.5", "it does not speak TLS");

	assert_tried_at_once(*state, &no_tls);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_refused_login_rests_the_relayhost),
	    TEST(a_daily_limit_is_trouble_until_a_message_gets_through),
	    TEST(a_sender_that_is_refused_while_others_get_through_is_at_fault),
	    TEST(senders_that_are_all_refused_are_the_account_s_trouble),
	    TEST(a_first_message_with_an_unverified_sender_is_held),
	    TEST(a_relayhost_without_a_token_is_held_until_it_has_one),
	    TEST(a_changed_secret_is_tried_at_once),
	    TEST(a_changed_port_is_tried_at_once),
	};
	return cmocka_run_group_tests_name("destination_account", tests, NULL, NULL);
}
