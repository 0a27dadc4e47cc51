/* Relayhosts that an operator has paused, or taken out of the configuration. */
#include "support_relay.h"

static void a_paused_relayhost_begins_nothing(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, RELAY_BY_MAIN);
	relay_submit_many(relay, "one@a.example", 1);
	fake_session(relay_connection(relay, 0));
	relay_submit_many(relay, "two@a.example", 100); /* more than a line holds */
	relay_pause(relay, "main", true);
	fake_deliver(relay_connection(relay, 0));
	assert_null(relay_connection(relay, 0)->job);
	relay_close_all(relay);
	relay->opened = 0;
	relay_submit_many(relay, "three@a.example", 5);
	relay_pass(relay, 6 * 3600 * 1000);
	assert_int_equal(relay->opened, 0);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:main")), 105);
	relay_pause(relay, "main", false);
	assert_int_equal(relay_deliver_all(relay), 105);
	assert_int_equal(relay_waiting(relay), 0);
}

static void mail_of_a_paused_relayhost_takes_the_next_one(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, "relayhosts:\n  main: {address: 'smtp.example.net:587', tls: none, priority: 1}\n"
			       "  spare: {address: 'smtp.example.com:587', tls: none, priority: 2}\n");
	relay_submit_many(relay, "one@a.example", 100);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:main")), 100);
	relay_pause(relay, "main", true);
	relay_pass(relay, 1000);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:main")), 0);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:spare")), 100);
	relay_submit_many(relay, "two@a.example", 1);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:spare")), 101);
}

static void a_pause_outlasts_a_restart(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, RELAY_BY_MAIN);
	relay_pause(relay, "main", true);
	relay_restart(relay);
	relay_submit_many(relay, "one@a.example", 1);
	assert_int_equal(relay->opened, 0);
	relay_pause(relay, "main", false);
	assert_int_equal(relay_deliver_all(relay), 1);
	relay_restart(relay);
	assert_false(pauses_has(relay->pauses, "main"));
}

static void a_lifetime_ends_in_time_at_a_paused_relayhost(void **state)
{
	struct relay *relay = *state;
	uint64_t id;

	relay_configure(relay, RELAY_BY_MAIN);
	relay_pause(relay, "main", true);
	relay_submit_many(relay, "first@a.example", 3);
	id = relay_submit_lifetime(relay, 600 * 1000, "one@a.example");
	relay_pass(relay, 590 * 1000);
	assert_int_equal(relay->report_count, 0);
	relay_pass(relay, 80 * 1000);
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_EXPIRED);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:main")), 3);
}

#define TWO_RELAYHOSTS                                                                                                 \
	"relayhosts:\n  main: {address: 'smtp.example.net:587', tls: none, priority: 1}\n"                             \
	"  spare: {address: 'smtp.example.com:587', tls: none, priority: 2}\n"

/* A pause ends when somebody says so, a back-off by itself. */
static void mail_waits_for_the_one_in_trouble_not_for_the_paused_one(void **state)
{
	const struct outcome no_token =
	    outcome_like(OUTCOME_DEFERRED, CLASS_AUTH, STAGE_AUTH, 0, "4.7.0", "no access token");
	struct relay *relay = *state;

	relay_configure(relay, TWO_RELAYHOSTS);
	relay_pause(relay, "main", true);
	destinations_hold_relayhost(relay->destinations, "spare", &no_token, loop_now_ms(relay->loop) + 300 * 1000);
	relay_submit_many(relay, "one@a.example", 100);
	relay_pass(relay, 1000);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:main")), 0);
	relay_pass(relay, 310 * 1000);
	assert_int_equal(relay_deliver_all(relay), 100);
	assert_int_equal(relay_waiting(relay), 0);
}

static void mail_goes_by_the_one_of_two_that_is_resumed(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, TWO_RELAYHOSTS);
	relay_pause(relay, "main", true);
	relay_pause(relay, "spare", true);
	relay_submit_many(relay, "one@a.example", 100);
	relay_pause(relay, "spare", false);
	relay_pass(relay, 1000);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:main")), 0);
	assert_int_equal(relay_deliver_all(relay), 100);
	assert_int_equal(relay_waiting(relay), 0);
}

static void mail_of_a_paused_relayhost_takes_the_one_that_is_configured_since(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, RELAY_BY_MAIN);
	relay_pause(relay, "main", true);
	relay_submit_many(relay, "one@a.example", 100);
	relay_configure(relay, TWO_RELAYHOSTS);
	destinations_route_anew(relay->destinations); /* as a reload does */
	relay_pass(relay, 1000);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:main")), 0);
	assert_int_equal(relay_deliver_all(relay), 100);
}

/* Whoever it is that mail waits for long. */
static void mail_behind_a_rate_takes_the_one_that_is_configured_since(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, "relayhosts:\n  main: {address: 'smtp.example.net:587', tls: none, rate: 1/d}\n");
	relay_submit_many(relay, "one@a.example", 200);
	relay_configure(relay, "relayhosts:\n  spare: {address: 'smtp.example.com:587', tls: none}\n"
			       "  main: {address: 'smtp.example.net:587', tls: none, rate: 1/d, default: false}\n");
	destinations_route_anew(relay->destinations); /* as a reload does */
	relay_pass(relay, 1000);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:spare")), 200 - DESTINATION_READY_MAX);
}

static void a_relayhost_that_is_taken_out_is_in_no_trouble(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, RELAY_BY_MAIN);
	relay_submit_many(relay, "one@a.example", 100);
	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	assert_string_equal(relay->last_health, "relayhost:main connect");
	relay_configure(relay, "relayhosts:\n  other: {address: 'smtp.example.com:587', tls: none}\n");
	destinations_retire_relayhosts(relay->destinations, relay->config); /* as a reload does */
	assert_string_equal(relay->last_health, "relayhost:main none");
	while (relay_connection(relay, 0) && !strcmp(relay_connection(relay, 0)->destination->key, "relayhost:main"))
		fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	assert_string_equal(relay->last_health, "relayhost:main none");
	relay_pass(relay, 600 * 1000);
	assert_int_equal(relay_deliver_all(relay), 100);
}

/* The session ended before it was tried, and the pause has begun meanwhile. */
static void what_comes_back_untried_does_not_stay_in_a_paused_line(void **state)
{
	struct relay *relay = *state;
	struct fake_connection *connection;
	struct job *job;

	relay_configure(relay, TWO_RELAYHOSTS);
	relay_submit_many(relay, "one@a.example", 1);
	connection = relay_connect_to(relay, "relayhost:main");
	relay_pause(relay, "main", true);
	job = connection->job;
	connection->job = NULL;
	destination_return_job(connection->destination, job);
	fake_close(connection);
	relay_pass(relay, 1000);
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:main")), 0);
	assert_int_equal(relay_deliver_all(relay), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_paused_relayhost_begins_nothing),
	    TEST(mail_of_a_paused_relayhost_takes_the_next_one),
	    TEST(a_pause_outlasts_a_restart),
	    TEST(a_lifetime_ends_in_time_at_a_paused_relayhost),
	    TEST(mail_waits_for_the_one_in_trouble_not_for_the_paused_one),
	    TEST(mail_goes_by_the_one_of_two_that_is_resumed),
	    TEST(mail_of_a_paused_relayhost_takes_the_one_that_is_configured_since),
	    TEST(mail_behind_a_rate_takes_the_one_that_is_configured_since),
	    TEST(a_relayhost_that_is_taken_out_is_in_no_trouble),
	    TEST(what_comes_back_untried_does_not_stay_in_a_paused_line),
	};
	return cmocka_run_group_tests_name("destination_pause", tests, NULL, NULL);
}
