/* Destinations with a rate: the rest waits, in order. */
#include "support_relay.h"

#include "relayd/rates.h"

static const char limited[] = "relayhosts:\n  main: {address: 'smtp.example.net:587', tls: none, rate: 10/1h}\n";

static void no_more_go_than_the_rate_says_and_the_rest_in_order(void **state)
{
	enum { HOUR_MS = 3600 * 1000 };
	struct relay *relay = *state;
	unsigned opened;

	relay_configure(relay, limited);
	for (int i = 0; i < 10; i++) { /* more than a line holds */
		relay_submit_many(relay, "one@a.example", 10);
		relay_pass(relay, 100);
	}
	assert_int_equal(relay_deliver_all(relay), 10);
	assert_int_equal(relay->rate_waits, 1);
	opened = relay->opened;
	relay_pass(relay, HOUR_MS - 1000);
	assert_int_equal(relay_deliver_all(relay), 0);
	assert_int_equal(relay->opened, opened); /* nobody connects in vain */
	assert_int_equal(destination_waiting(relay_destination(relay, "relayhost:main")), 90);
	relay_pass(relay, HOUR_MS / 60 + 2000);
	assert_int_equal(relay_deliver_all(relay), 10);
	for (int hour = 0; hour < 8; hour++) {
		relay_pass(relay, HOUR_MS + HOUR_MS / 60);
		assert_int_equal(relay_deliver_all(relay), 10);
	}
	assert_int_equal(relay_waiting(relay), 0);
	for (size_t i = 10; i < relay->report_count; i++)
		assert_true(relay->reports[i].id > relay->reports[i / 10 * 10 - 1].id);
}

/* The line has room again, and others are parked behind it. */
static void who_comes_later_does_not_overtake(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, limited);
	for (int i = 0; i < 10; i++) {
		relay_submit_many(relay, "one@a.example", 10);
		relay_pass(relay, 100);
	}
	for (int hour = 0; hour < 20; hour++) {
		relay_deliver_all(relay);
		relay_submit_many(relay, "one@a.example", 5);
		relay_pass(relay, 62 * 60 * 1000);
	}
	relay_deliver_all(relay);
	assert_int_equal(relay_waiting(relay), 0);
	for (size_t i = 20; i < relay->report_count; i++)
		assert_true(relay->reports[i].id > relay->reports[i - 20].id);
}

static void a_restart_begins_no_new_count(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, limited);
	relay_submit_many(relay, "one@a.example", 15);
	assert_int_equal(relay_deliver_all(relay), 10);
	relay_restart(relay);
	relay_pass(relay, 1800 * 1000);
	assert_int_equal(relay_deliver_all(relay), 0);
	relay_restart(relay);
	relay_pass(relay, 1800 * 1000 + 61 * 1000);
	assert_int_equal(relay_deliver_all(relay), 5);
}

static void a_connection_that_failed_uses_nothing_up(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, limited);
	relay_submit_many(relay, "one@a.example", 10);
	while (relay_connection(relay, 0))
		fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "Connection refused");
	assert_int_equal(rate_used(rates_get(relay->rates, RATE_OF_RELAYHOST, "main")), 0);
	relay_pass(relay, 3 * 60 * 1000);
	assert_int_equal(relay_deliver_all(relay), 10);
	assert_int_equal(rate_used(rates_get(relay->rates, RATE_OF_RELAYHOST, "main")), 10);
}

static void a_returned_message_uses_up_one_place(void **state)
{
	struct relay *relay = *state;
	struct fake_connection *connection;

	relay_configure(relay, limited);
	relay_submit_many(relay, "one@a.example", 1);
	connection = relay_connection(relay, 0);
	fake_session(connection);
	destination_return_job(connection->destination, connection->job);
	connection->job = NULL;
	fake_close(connection);
	relay_turn(relay);
	assert_int_equal(relay_deliver_all(relay), 1);
	assert_int_equal(rate_used(rates_get(relay->rates, RATE_OF_RELAYHOST, "main")), 1);
}

/* One limit over several domains: each gets its share, and no one's place is lost. */
static void a_route_is_limited_wherever_its_mail_goes(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, "routes:\n  - {name: news, to: ['@a.example', '@b.example'], via: [mx], rate: 6/1m}\n");
	relay_submit_many(relay, "one@a.example", 20);
	relay_submit_many(relay, "one@b.example", 20);
	relay_submit_many(relay, "one@c.example", 20);
	assert_int_equal(relay_deliver_all(relay), 26);
	for (int minute = 0; minute < 6; minute++) {
		relay_pass(relay, 62 * 1000);
		assert_in_range(relay_deliver_all(relay), minute < 5 ? 6 : 4, 6);
	}
	assert_non_null(relay_destination(relay, "mx:a.example#news"));
	assert_int_equal(relay_waiting(relay), 0);
}

/* The server sees them all: a route's own line is no reason for more connections; and it gets its share of them. */
static void a_route_shares_the_connections_of_its_relayhost(void **state)
{
	struct relay *relay = *state;
	unsigned most = 0, of_route = 0;
	uint64_t others = 0;

	relay_configure(relay,
			RELAY_BY_MAIN "routes:\n  - {name: news, to: ['@a.example'], via: [main], rate: 1000/1m}\n");
	destinations_set_limits(relay->destinations, 200, 3);
	relay_submit_many(relay, "one@b.example", 60);
	relay_submit_many(relay, "one@a.example", 60);
	for (unsigned round = 0; round < 1000 && relay_waiting(relay) > 0; round++) {
		struct fake_connection *connection = relay_connection(relay, round % relay_connection_count(relay));
		most = MAX(most, relay_connection_count(relay));
		if (!connection->job)
			fake_session(connection);
		else if (strcmp(connection->destination->key, "relayhost:main#news") == 0 && ++of_route == 1)
			others = relay_waiting(relay);
		if (connection->job)
			fake_deliver(connection);
		relay_turn(relay);
	}
	assert_int_equal(relay_waiting(relay), 0);
	assert_int_equal(most, 3);
	assert_true(others > 100); /* nobody waits until all others have gone */
}

static void a_rate_that_is_lifted_lets_all_go(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, limited);
	relay_submit_many(relay, "one@a.example", 30);
	assert_int_equal(relay_deliver_all(relay), 10);
	relay_configure(relay, RELAY_BY_MAIN);
	assert_int_equal(relay_deliver_all(relay), 20);
}

static void a_lifetime_ends_in_time_while_it_waits_for_its_turn(void **state)
{
	struct relay *relay = *state;
	uint64_t id;

	relay_configure(relay, limited);
	relay_submit_many(relay, "one@a.example", 30);
	id = relay_submit_lifetime(relay, 600 * 1000, "one@a.example");
	assert_int_equal(relay_deliver_all(relay), 10);
	relay_pass(relay, 661 * 1000);
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_EXPIRED);
	assert_int_equal(relay->report_count, 11);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(no_more_go_than_the_rate_says_and_the_rest_in_order),
	    TEST(who_comes_later_does_not_overtake),
	    TEST(a_restart_begins_no_new_count),
	    TEST(a_connection_that_failed_uses_nothing_up),
	    TEST(a_returned_message_uses_up_one_place),
	    TEST(a_route_is_limited_wherever_its_mail_goes),
	    TEST(a_route_shares_the_connections_of_its_relayhost),
	    TEST(a_rate_that_is_lifted_lets_all_go),
	    TEST(a_lifetime_ends_in_time_while_it_waits_for_its_turn),
	};
	return cmocka_run_group_tests_name("destination_rate", tests, NULL, NULL);
}
