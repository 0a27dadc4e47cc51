/* Destinations that lead to the same next hop: they rest together, and one of them probes. */
#include "support_relay.h"

static const char two_routes[] = "relayhosts:\n  main: {address: 'smtp.example.net:587', tls: none}\n"
				 "routes:\n"
				 "  - {name: slow, to: ['@a.example'], via: [main], rate: 100/1m}\n"
				 "  - {name: calm, to: ['@b.example'], via: [main], rate: 100/1m}\n";

#define SLOW "relayhost:main#slow"
#define CALM "relayhost:main#calm"
#define PLAIN "relayhost:main"

static void submit_to_all(struct relay *relay)
{
	relay_submit(relay, "x@example.org", "one@a.example");
	relay_submit(relay, "x@example.org", "one@b.example");
	relay_submit(relay, "x@example.org", "one@c.example");
}

static void refuse(struct relay *relay, const char *key)
{
	fake_fail(relay_connection_to(relay, key), CLASS_CONNECT, STAGE_CONNECT, "Connection refused");
	relay_turn(relay);
}

static unsigned count_connections(struct relay *relay)
{
	unsigned count = 0;

	while (relay_connection(relay, count))
		count++;
	return count;
}

/* The others' mail is told so too, and waits by the same schedule. */
static void who_finds_the_hop_dead_says_so_to_all(void **state)
{
	struct relay *relay = *state;
	unsigned opened;

	relay_configure(relay, two_routes);
	submit_to_all(relay);
	assert_int_equal(count_connections(relay), 3); /* nothing is known yet */
	refuse(relay, SLOW);
	assert_int_equal(relay->report_count, 3);
	for (size_t i = 0; i < 3; i++)
		assert_string_equal(relay->reports[i].outcome.text, "Connection refused");
	refuse(relay, CALM);
	refuse(relay, PLAIN);
	assert_int_equal(relay->report_count, 3);
	assert_int_equal(relay_destination(relay, SLOW)->failures, 1);
	assert_int_equal(relay_destination(relay, CALM)->failures, 1);
	/* While it rests nobody connects. */
	opened = relay->opened;
	submit_to_all(relay);
	assert_int_equal(relay->opened, opened);
}

static void one_probes_and_when_it_gets_through_all_go_on(void **state)
{
	struct relay *relay = *state;
	unsigned opened;

	relay_configure(relay, two_routes);
	submit_to_all(relay);
	refuse(relay, SLOW);
	refuse(relay, CALM);
	refuse(relay, PLAIN);
	for (int round = 0; round < 4; round++) {
		opened = relay->opened;
		relay_pass(relay, 70 * 1000);
		assert_int_equal(relay->opened, opened + 1);
		assert_int_equal(count_connections(relay), 1);
		fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "Connection refused");
		relay_turn(relay);
		submit_to_all(relay);
	}
	relay_pass(relay, 70 * 1000);
	assert_int_equal(count_connections(relay), 1);
	fake_session(relay_connection(relay, 0));
	relay_turn(relay);
	assert_int_equal(relay_destination(relay, SLOW)->trouble.kind, OUTCOME_NONE);
	assert_int_equal(relay_destination(relay, CALM)->trouble.kind, OUTCOME_NONE);
	assert_int_equal(relay_destination(relay, PLAIN)->trouble.kind, OUTCOME_NONE);
	for (int i = 0; i < 60 && relay_waiting(relay) > 0; i++) {
		relay_deliver_all(relay);
		relay_pass(relay, 60 * 1000);
	}
	assert_int_equal(relay_waiting(relay), 0);
}

/* What one of them asks for, and does not get, is its own trouble. */
static void trouble_with_tls_is_not_shared(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, two_routes);
	submit_to_all(relay);
	fake_fail(relay_connection_to(relay, SLOW), CLASS_TLS, STAGE_TLS, "no STARTTLS");
	relay_turn(relay);
	assert_int_equal(relay->report_count, 1);
	assert_int_equal(relay_destination(relay, CALM)->failures, 0);
	fake_deliver(relay_connect_to(relay, CALM));
	assert_int_equal(relay_destination(relay, SLOW)->failures, 1);
}

/* The server takes so many connections and no more: that is no reason to rest. */
static void a_session_of_another_says_that_it_lives(void **state)
{
	struct relay *relay = *state;

	relay_configure(relay, two_routes);
	submit_to_all(relay);
	fake_deliver(relay_connect_to(relay, CALM));
	refuse(relay, SLOW);
	assert_int_equal(relay_destination(relay, CALM)->failures, 0);
	fake_deliver(relay_connect_to(relay, PLAIN));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(who_finds_the_hop_dead_says_so_to_all),
	    TEST(one_probes_and_when_it_gets_through_all_go_on),
	    TEST(trouble_with_tls_is_not_shared),
	    TEST(a_session_of_another_says_that_it_lives),
	};

	return cmocka_run_group_tests_name("destination_hop", tests, NULL, NULL);
}
