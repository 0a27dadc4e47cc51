/* Mail that waited for a relayhost's account goes when the account is well again. */
#include "support_relay.h"

#include "relayd/hurry.h"

static int setup(void **state)
{
	return relay_setup_with(state, RELAY_BY_MAIN);
}

static int64_t next_attempt(struct relay *relay, uint64_t id)
{
	struct queue_brief brief;

	assert_int_equal(queue_brief(relay->queue, id, &brief), 0);
	return brief.next_attempt_wall - clock_wall_ms(&relay->clock.clock);
}

static uint64_t defer(struct relay *relay, enum failure_class class)
{
	struct outcome outcome = outcome_like(OUTCOME_DEFERRED, class, STAGE_DOT, 451, "4.0.0", "later");
	uint64_t id = relay_submit(relay, "app@example.org", "one@a.example");

	fake_session(relay_connection(relay, 0));
	fake_finish(relay_connection(relay, 0), &outcome);
	while (relay_connection(relay, 0))
		fake_close(relay_connection(relay, 0));
	destination_retry_now(relay_destination(relay, "relayhost:main"));
	return id;
}

static void only_what_waits_for_the_account_is_hurried(void **state)
{
	struct relay *relay = *state;
	uint64_t mailbox = defer(relay, CLASS_MAILBOX), account = defer(relay, CLASS_AUTH),
		 held = defer(relay, CLASS_AUTH);
	struct outcome none = outcome_like(OUTCOME_DEFERRED, CLASS_AUTH, STAGE_AUTH, 0, "4.7.0", "no token");
	struct hurry *hurry = hurry_new(relay->loop, relay->queue);
	uint64_t untried;

	queue_hold(relay->queue, held);
	destinations_hold_relayhost(relay->destinations, "main", &none, loop_now_ms(relay->loop) + 50 * 1000);
	untried = relay_submit(relay, "app@example.org", "one@a.example");
	relay_turn(relay);
	assert_true(next_attempt(relay, mailbox) > 0);
	assert_true(next_attempt(relay, account) > 0);
	assert_true(next_attempt(relay, untried) > 0);
	destinations_mend_relayhost(relay->destinations, "main");
	hurry_begin(hurry);
	relay_turn(relay);
	relay_turn(relay);
	/* Both are on their way; a connection takes them one after the other. */
	fake_session(relay_connection(relay, 0));
	fake_deliver(relay_connection(relay, 0));
	fake_deliver(relay_connection(relay, 0));
	relay_turn(relay);
	assert_int_equal(relay_report(relay, account, 0)->outcome.kind, OUTCOME_DELIVERED);
	assert_int_equal(relay_report(relay, untried, 0)->outcome.kind, OUTCOME_DELIVERED);
	assert_true(next_attempt(relay, mailbox) > 0);
	assert_int_equal(relay_report(relay, held, 0)->outcome.kind, OUTCOME_DEFERRED);
	hurry_free(&hurry);
	assert_null(hurry);
}

static void what_found_no_session_is_hurried_when_asked_for(void **state)
{
	struct relay *relay = *state;
	uint64_t mailbox = defer(relay, CLASS_MAILBOX), tls = defer(relay, CLASS_TLS);
	struct hurry *hurry = hurry_new(relay->loop, relay->queue);

	hurry_begin(hurry);
	relay_turn(relay);
	relay_turn(relay);
	assert_true(next_attempt(relay, tls) > 0);
	hurry_begin_with_sessions(hurry);
	hurry_begin(hurry); /* a walk that is under way loses nothing */
	relay_turn(relay);
	relay_turn(relay);
	fake_session(relay_connection(relay, 0));
	fake_deliver(relay_connection(relay, 0));
	relay_turn(relay);
	assert_int_equal(relay_report(relay, tls, 0)->outcome.kind, OUTCOME_DELIVERED);
	assert_true(next_attempt(relay, mailbox) > 0);
	hurry_free(&hurry);
}

static void a_walk_under_way_ends_with_its_owner(void **state)
{
	struct relay *relay = *state;
	struct hurry *hurry = hurry_new(relay->loop, relay->queue);

	defer(relay, CLASS_AUTH);
	hurry_begin(hurry);
	hurry_begin(hurry);
	hurry_free(&hurry);
	relay_turn(relay);
	assert_null(relay_connection(relay, 0));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(only_what_waits_for_the_account_is_hurried, setup, relay_teardown),
	    cmocka_unit_test_setup_teardown(what_found_no_session_is_hurried_when_asked_for, setup, relay_teardown),
	    cmocka_unit_test_setup_teardown(a_walk_under_way_ends_with_its_owner, setup, relay_teardown),
	};
	return cmocka_run_group_tests_name("hurry", tests, NULL, NULL);
}
