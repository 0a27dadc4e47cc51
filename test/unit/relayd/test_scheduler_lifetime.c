/* The scheduler at the end of a lifetime: expiry, the warning before it, and what a wall clock that jumps does to both. */
#include "support_scheduler.h"

/* ---- expiry ---- */

/* I2 */
static void an_expired_message_tells_each_recipients_own_story(void **state)
{
	struct relay *relay = *state;
	uint64_t id = relay_submit_lifetime(relay, hour_ms, "one@a.example two@a.example three@b.example");
	struct outcome first = put_off("first is full"), second = put_off("second is busy"),
		       third = outcome_like(OUTCOME_DEFERRED, CLASS_POLICY, STAGE_DOT, 451, "4.7.1", "not today");
	struct fake_connection *connection = relay_connect_to(relay, "mx:a.example");
	struct job *job = connection->job;

	connection->job = NULL;
	destination_on_outcome(connection->destination, job, 0, &first);
	destination_on_outcome(connection->destination, job, 1, &second);
	destination_on_job_done(connection->destination, job, true);
	fake_finish(relay_connect_to(relay, "mx:b.example"), &third);
	close_all(relay);
	relay_pass(relay, 1000);
	/* The daemon was away for a week. */
	scheduler_stop(relay->scheduler);
	clock_virtual_advance(&relay->clock, 7 * 24 * hour_ms);
	relay_restart(relay);
	relay_turn(relay);
	assert_null(relay_connection(relay, 0));
	assert_int_equal(relay->bounces, 1);
	assert_int_equal(relay->bounced_count, 3);
	assert_string_equal(relay->bounced[0].outcome.text, "first is full");
	assert_string_equal(relay->bounced[1].outcome.text, "second is busy");
	assert_string_equal(relay->bounced[2].outcome.text, "not today");
	assert_int_equal(relay->bounced[2].outcome.class, CLASS_POLICY);
	for (uint32_t r = 0; r < 3; r++) {
		assert_int_equal(relay->bounced[r].index, r);
		assert_int_equal(relay->bounced[r].outcome.kind, OUTCOME_EXPIRED);
		assert_string_equal(relay->bounced[r].outcome.enhanced, r < 2 ? "4.3.0" : "4.7.1");
		assert_int_equal(relay->bounced[r].attempted_wall, 0);
		assert_int_equal(relay_report(relay, id, r)->outcome.kind, OUTCOME_EXPIRED);
	}
	assert_false(relay_is_queued(relay, id));
}

static void a_message_that_was_never_tried_expires_too(void **state)
{
	struct relay *relay = *state;
	uint64_t id = relay_submit_lifetime(relay, hour_ms, "one@a.example");

	fake_close(relay_connection(relay, 0));
	clock_virtual_advance(&relay->clock, 7 * 24 * hour_ms);
	relay_restart(relay);
	relay_turn(relay);
	assert_int_equal(relay->bounces, 1);
	assert_string_equal(relay->bounced[0].outcome.text, "not delivered within its lifetime");
	assert_int_equal(relay->bounced[0].outcome.kind, OUTCOME_EXPIRED);
	assert_false(relay_is_queued(relay, id));
}

/* Everybody refuses for the present, for so long. */
static void be_busy(struct relay *relay, int64_t ms)
{
	struct outcome outcome = put_off("busy");

	for (; ms > 0; ms -= 60 * 1000) {
		for (unsigned i = 0; relay_connection(relay, i); i++) {
			struct fake_connection *connection = relay_connection(relay, i);
			if (!connection->job)
				fake_session(connection);
			if (connection->job)
				fake_finish(connection, &outcome);
		}
		close_all(relay);
		relay_pass(relay, 60 * 1000);
	}
}

static void what_ended_while_the_daemon_was_away_is_tried_once_more(void **state)
{
	struct relay *relay = *state;
	struct outcome outcome = put_off("busy");
	uint64_t goes = submit(relay, "one@a.example"), stays = submit(relay, "one@b.example");

	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	fake_finish(relay_connect_to(relay, "mx:b.example"), &outcome);
	close_all(relay);
	scheduler_stop(relay->scheduler);
	clock_virtual_advance(&relay->clock, 7 * 24 * hour_ms);
	relay_restart(relay);
	relay_turn(relay);
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_false(relay_is_queued(relay, goes));
	assert_int_equal(relay->bounces, 0);
	be_busy(relay, hour_ms);
	assert_int_equal(relay->bounces, 1);
	assert_string_equal(relay_report(relay, stays, 0)->outcome.text, "busy");
	assert_int_equal(relay_report(relay, stays, 0)->outcome.kind, OUTCOME_EXPIRED);
	assert_false(relay_is_queued(relay, stays));
}

/* Its sender hears of it when the time is over, not at the next step of the schedule; and until then it is tried. */
static void the_last_attempt_is_at_the_end_of_the_lifetime(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example");
	struct outcome outcome = put_off("busy");
	unsigned attempts = 0;

	while (relay_is_queued(relay, id) && clock_wall_ms(&relay->clock.clock) < RELAY_WALL_MS + 7 * 24 * hour_ms) {
		if (relay_connection(relay, 0)) {
			fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
			close_all(relay);
			attempts++;
		}
		relay_pass(relay, 60 * 1000);
	}
	assert_false(relay_is_queued(relay, id));
	assert_in_range(clock_wall_ms(&relay->clock.clock), RELAY_WALL_MS + 120 * hour_ms,
			RELAY_WALL_MS + 120 * hour_ms + 2 * 60 * 1000);
	assert_in_range(attempts, 20, 200);
	assert_int_equal(relay->bounces, 1);
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_EXPIRED);
	assert_string_equal(relay_report(relay, id, 0)->outcome.text, "busy");
}

static void a_delay_is_told_once_for_all_recipients_of_a_job(void **state)
{
	struct relay *relay = *state;
	struct retry_policy policy;
	struct outcome outcome = put_off("busy");
	uint64_t id;

	retry_policy_default(&policy);
	scheduler_configure(relay->scheduler, &policy, 4 * hour_ms);
	id = submit(relay, "one@a.example two@a.example");
	for (int64_t hours = 0; hours < 12 * 12; hours++) {
		while (relay_connection(relay, 0)) {
			fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
			close_all(relay);
		}
		if (clock_wall_ms(&relay->clock.clock) < RELAY_WALL_MS + 4 * hour_ms)
			assert_int_equal(relay->bounces, 0);
		relay_pass(relay, hour_ms / 12);
	}
	assert_int_equal(relay->bounces, 1);
	assert_true(relay->bounced_id == id);
	assert_int_equal(relay->bounced_count, 2);
	assert_int_equal(relay->bounced[0].outcome.kind, OUTCOME_DEFERRED);
	assert_int_equal(relay->bounced[1].index, 1);
	assert_true(relay_is_queued(relay, id));
}

/* ---- the wall clock jumps ---- */

/* F19 */
static void the_wall_clock_may_be_set_forward(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example");
	struct outcome outcome = put_off("busy");

	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	close_all(relay);
	relay->clock.wall += 2 * hour_ms;
	relay_pass(relay, 61 * 1000);
	assert_true(relay_connect_to(relay, "mx:a.example")->job->ticket->message.id == id);
}

/* F19: from 1970 to today, or ten years too far. What is in line, what waits and what is under way is not expired for
 * that; but it does not live for ever either. */
static void a_jump_forward_ends_no_lifetime_before_another_attempt(void **state)
{
	struct relay *relay = *state;
	struct outcome outcome = put_off("busy");
	uint64_t waits = submit(relay, "one@a.example"), under_way, ends, in_line;
	struct fake_connection *busy;

	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	ends = submit(relay, "one@b.example");
	fake_finish(relay_connect_to(relay, "mx:b.example"), &outcome);
	close_all(relay);
	under_way = submit(relay, "one@c.example");
	busy = relay_connect_to(relay, "mx:c.example");
	in_line = submit(relay, "one@d.example"); /* no session yet */
	relay->clock.wall += 10 * 365 * 24 * hour_ms;
	fake_finish(busy, &outcome);
	relay_turn(relay);
	assert_true(relay_log_has(relay, "event=clock_set by_sec=315360000"));
	assert_int_equal(relay->bounces, 0);
	assert_true(relay_report(relay, under_way, 0)->next_wall > clock_wall_ms(&relay->clock.clock));
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_false(relay_is_queued(relay, waits));
	fake_session(relay_connection_to(relay, "mx:d.example")); /* what stood in line goes back, and comes anew */
	relay_turn(relay);
	fake_deliver(relay_connect_to(relay, "mx:d.example"));
	assert_false(relay_is_queued(relay, in_line));
	fake_finish(relay_connect_to(relay, "mx:b.example"), &outcome);
	assert_true(relay_report(relay, ends, 0)->next_wall > clock_wall_ms(&relay->clock.clock));
	assert_int_equal(relay->bounces, 0);
	be_busy(relay, hour_ms);
	assert_int_equal(relay->bounces, 2);
	assert_false(relay_is_queued(relay, ends));
	assert_false(relay_is_queued(relay, under_way));
}

/* A machine may have slept: a one-time code is not sent late. */
static void a_short_lifetime_ends_in_a_jump(void **state)
{
	struct relay *relay = *state;
	struct outcome outcome = put_off("busy");
	uint64_t id = relay_submit_lifetime(relay, 10 * 60 * 1000, "one@a.example");

	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	close_all(relay);
	relay->clock.wall += hour_ms;
	relay_pass(relay, 61 * 1000);
	assert_int_equal(relay->bounces, 1);
	assert_int_equal(relay->opened, 1);
	assert_false(relay_is_queued(relay, id));
}

/* Ten years ahead by mistake, and mended within the half hour: nothing of it remains. */
static void a_jump_that_is_taken_back_leaves_nothing_behind(void **state)
{
	static const int64_t jump_ms = 10ll * 365 * 24 * 3600 * 1000;
	struct relay *relay = *state;
	struct outcome outcome = put_off("busy");
	uint64_t id = submit(relay, "one@a.example");

	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	close_all(relay);
	relay->clock.wall += jump_ms;
	relay_turn(relay);
	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	close_all(relay);
	relay->clock.wall -= jump_ms;
	while (relay_is_queued(relay, id) && clock_wall_ms(&relay->clock.clock) < RELAY_WALL_MS + 7 * 24 * hour_ms)
		be_busy(relay, hour_ms / 4);
	assert_in_range(clock_wall_ms(&relay->clock.clock), RELAY_WALL_MS + 120 * hour_ms,
			RELAY_WALL_MS + 121 * hour_ms);
	assert_int_equal(relay->bounces, 1);
}

/* F19: the machine came up with a wrong date, and has been told the right one. */
static void what_waits_for_a_day_far_away_waits_no_longer_when_the_wall_clock_is_set_back(void **state)
{
	static const int64_t year_ms = 365ll * 24 * 3600 * 1000;
	struct relay *relay = *state;
	struct outcome outcome = put_off("busy");
	uint64_t id, other;

	relay->clock.wall += year_ms;
	id = submit(relay, "one@a.example");
	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	other = submit(relay, "one@b.example two@b.example");
	fake_finish(relay_connect_to(relay, "mx:b.example"), &outcome);
	close_all(relay);
	relay->clock.wall -= year_ms;
	relay_pass(relay, hour_ms);
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	fake_deliver(relay_connect_to(relay, "mx:b.example"));
	assert_false(relay_is_queued(relay, id));
	assert_false(relay_is_queued(relay, other));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(an_expired_message_tells_each_recipients_own_story),
	    TEST(a_message_that_was_never_tried_expires_too),
	    TEST(what_ended_while_the_daemon_was_away_is_tried_once_more),
	    TEST(the_last_attempt_is_at_the_end_of_the_lifetime),
	    TEST(a_delay_is_told_once_for_all_recipients_of_a_job),
	    TEST(the_wall_clock_may_be_set_forward),
	    TEST(a_jump_forward_ends_no_lifetime_before_another_attempt),
	    TEST(a_short_lifetime_ends_in_a_jump),
	    TEST(a_jump_that_is_taken_back_leaves_nothing_behind),
	    TEST(what_waits_for_a_day_far_away_waits_no_longer_when_the_wall_clock_is_set_back),
	};
	return cmocka_run_group_tests_name("scheduler, lifetimes", tests, NULL, NULL);
}
