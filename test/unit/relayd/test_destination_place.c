/* The limit of all connections: who gives up a place, who gets it, and what is kept from strangers. */
#include "support_relay.h"

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

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(an_idle_connection_gives_its_place_to_another_destination),
	    TEST(a_closed_connection_makes_room_for_another_destination),
	    TEST(a_connection_that_becomes_idle_makes_room_too),
	    TEST(no_destination_starves_at_the_limit),
	    TEST(strangers_leave_places_to_those_who_have_taken_mail),
	};

	return cmocka_run_group_tests_name("destination_place", tests, NULL, NULL);
}
