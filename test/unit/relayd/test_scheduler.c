/* The scheduler: from due to attempted, and from an outcome back to the queue. */
#include "support_scheduler.h"

/* ---- outcomes ---- */

static void a_delivered_message_leaves_the_queue(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example");

	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_false(relay_is_queued(relay, id));
	assert_int_equal(relay->report_count, 1);
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_DELIVERED);
	assert_int_equal(relay_report(relay, id, 0)->attempts, 1);
	assert_int_equal(relay->bounces, 0);
	assert_int_equal(scheduler_job_count(relay->scheduler), 0);
}

static void recipients_at_one_destination_share_a_job(void **state)
{
	struct relay *relay = *state;

	submit(relay, "one@a.example two@b.example three@A.EXAMPLE");
	assert_int_equal(scheduler_job_count(relay->scheduler), 2);
	assert_int_equal(relay_connect_to(relay, "mx:a.example")->job->count, 2);
	assert_int_equal(relay_connect_to(relay, "mx:b.example")->job->count, 1);
	assert_int_equal(job_recipient(relay_connection_to(relay, "mx:b.example")->job, 0)->address.ptr[0], 't');
}

static void a_deferred_message_is_tried_again_at_its_time(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example");
	struct outcome outcome = put_off("try again");
	int64_t next;

	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	close_all(relay);
	next = relay_report(relay, id, 0)->next_wall;
	assert_true(next > RELAY_WALL_MS + 60 * 1000 && next < RELAY_WALL_MS + hour_ms);
	assert_int_equal(relay_message_state(relay, id), STATE_DEFERRED);
	relay_pass(relay, next - clock_wall_ms(&relay->clock.clock) - 1);
	assert_null(relay_connection(relay, 0));
	relay_pass(relay, 1);
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_int_equal(relay_report(relay, id, 0)->attempts, 2);
	assert_false(relay_is_queued(relay, id));
}

static void a_hint_is_honoured_once(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example");
	struct outcome outcome = outcome_like(OUTCOME_DEFERRED, CLASS_GREYLIST, STAGE_RCPT, 450, "4.2.0",
					      "Greylisted, please retry in 900 seconds");
	int64_t wait;

	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	close_all(relay);
	wait = relay_report(relay, id, 0)->next_wall - clock_wall_ms(&relay->clock.clock);
	assert_in_range(wait, 900 * 1000, 930 * 1000);
	snprintf(outcome.text, sizeof(outcome.text), "Greylisted, please retry in 14400 seconds");
	relay_pass(relay, wait);
	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	wait = relay_report(relay, id, 0)->next_wall - clock_wall_ms(&relay->clock.clock);
	assert_in_range(wait, 1, hour_ms);
}

static void a_failed_recipient_ends_only_when_its_dsn_is_safe(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example two@a.example");
	struct outcome outcome = refused("no such user");

	relay->bounce_waits = true;
	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	close_all(relay);
	assert_int_equal(relay->bounces, 1);
	assert_true(relay->bounced_id == id);
	assert_int_equal(relay->bounced_count, 2);
	assert_int_equal(relay->bounced[1].index, 1);
	assert_string_equal(relay->bounced[1].outcome.text, "no such user");
	assert_true(relay_is_queued(relay, id));
	assert_int_equal(relay->report_count, 0);
	assert_int_equal(scheduler_job_count(relay->scheduler), 1);
	relay_pass(relay, hour_ms);
	assert_null(relay_connection(relay, 0)); /* nobody tries it meanwhile */
	relay->bounce_done(relay->bounce_ctx, 0);
	assert_false(relay_is_queued(relay, id));
	assert_int_equal(relay_report(relay, id, 1)->outcome.kind, OUTCOME_FAILED);
	assert_int_equal(scheduler_job_count(relay->scheduler), 0);
}

static void without_a_dsn_a_failed_recipient_is_tried_again(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example");
	struct outcome outcome = refused("no such user");

	relay->bounce_result = ERR_NO_SPACE;
	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	close_all(relay);
	assert_true(relay_is_queued(relay, id));
	assert_int_equal(relay->report_count, 0);
	relay_pass(relay, 60 * 1000 - 1);
	assert_null(relay_connection(relay, 0));
	relay_pass(relay, 1);
	relay->bounce_result = 0;
	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	assert_false(relay_is_queued(relay, id));
}

static void outcomes_differ_within_a_job(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "good@a.example bad@a.example later@a.example untold@a.example");
	struct outcome good = outcome_like(OUTCOME_DELIVERED, CLASS_NONE, STAGE_DOT, 250, "2.0.0", "ok"),
		       bad = refused("no such user"), later = put_off("mailbox busy");
	struct fake_connection *connection = relay_connect_to(relay, "mx:a.example");
	struct job *job = connection->job;

	connection->job = NULL;
	destination_on_outcome(connection->destination, job, 0, &good);
	destination_on_outcome(connection->destination, job, 1, &bad);
	destination_on_outcome(connection->destination, job, 2, &later);
	destination_on_outcome(connection->destination, job, 0, &bad); /* the first word counts */
	destination_on_job_done(connection->destination, job, true);
	close_all(relay);
	assert_int_equal(relay->bounced_count, 1);
	assert_int_equal(relay->bounced[0].index, 1);
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_DELIVERED);
	assert_int_equal(relay_report(relay, id, 1)->outcome.kind, OUTCOME_FAILED);
	assert_int_equal(relay_report(relay, id, 2)->outcome.kind, OUTCOME_DEFERRED);
	/* The one that heard nothing goes at once, alone, and as a first attempt. */
	assert_int_equal(relay_connect_to(relay, "mx:a.example")->job->count, 1);
	fake_deliver(relay_connection(relay, 0));
	assert_int_equal(relay_report(relay, id, 3)->attempts, 1);
}

/* I9 */
static void what_was_in_flight_is_tried_again_after_a_restart(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example");

	relay_connect_to(relay, "mx:a.example");
	relay_restart(relay);
	relay_turn(relay);
	assert_true(relay_connect_to(relay, "mx:a.example")->job->ticket->message.id == id);
	assert_int_equal(relay->report_count, 0);
}

/* ---- time and order ---- */

static void time_passes_while_routing(struct relay *relay, const struct queue_envelope *envelope, uint32_t recipient,
				      struct scheduler_targets *out)
{
	(void)envelope;
	(void)recipient;
	clock_virtual_advance(&relay->clock, 1);
	out->count = 1;
	out->targets[0] = (struct destination_id){.kind = DESTINATION_MX, .name = "a.example"};
}

/* A recipient that comes due between the look and the deed must not be taken by nobody. */
static void recipients_put_off_one_by_one_come_back_together(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example two@a.example");
	struct outcome outcome = put_off("busy");
	struct fake_connection *connection = relay_connect_to(relay, "mx:a.example");
	struct job *job = connection->job;

	connection->job = NULL;
	destination_on_outcome(connection->destination, job, 0, &outcome);
	relay_pass(relay, 30 * 1000); /* a slow server */
	destination_on_outcome(connection->destination, job, 1, &outcome);
	destination_on_job_done(connection->destination, job, true);
	assert_true(relay_report(relay, id, 0)->next_wall == relay_report(relay, id, 1)->next_wall);
	assert_true(relay_report(relay, id, 1)->next_wall >= clock_wall_ms(&relay->clock.clock) + 5 * 60 * 1000);
	close_all(relay);
}

static void recipients_due_a_moment_apart_are_both_served(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example two@a.example");
	struct outcome outcome = put_off("busy");
	struct fake_connection *connection = relay_connect_to(relay, "mx:a.example");
	struct job *job = connection->job;
	struct queue_result result = {&outcome, 1, 0, false};

	connection->job = NULL;
	destination_on_outcome(connection->destination, job, 0, &outcome);
	job->has_outcome[1] = true;
	destination_on_job_done(connection->destination, job, true);
	result.next_attempt_wall = relay_report(relay, id, 0)->next_wall + 1;
	assert_int_equal(queue_record_result(relay->queue, id, 1, &result), 0);
	close_all(relay);
	relay->route = time_passes_while_routing;
	relay_pass(relay, result.next_attempt_wall - clock_wall_ms(&relay->clock.clock) + 1000);
	while (relay_connection(relay, 0)) {
		while (relay_connection(relay, 0)->job || relay_connection(relay, 0)->slot.busy) {
			if (!relay_connection(relay, 0)->job)
				fake_session(relay_connection(relay, 0));
			if (relay_connection(relay, 0)->job)
				fake_deliver(relay_connection(relay, 0));
		}
		close_all(relay);
		relay_pass(relay, 1000);
	}
	assert_false(relay_is_queued(relay, id));
}

static void many_due_at_once_all_get_their_turn(void **state)
{
	struct relay *relay = *state;
	unsigned delivered = 0;

	relay_submit_many(relay, "one@a.example", 1000);
	for (int rounds = 0; rounds < 2000 && relay_connection(relay, 0); rounds++) {
		struct fake_connection *connection = relay_connection(relay, 0);
		if (!connection->job)
			fake_session(connection);
		while (connection->job) {
			fake_deliver(connection);
			delivered++;
		}
		fake_close(connection);
		relay_pass(relay, 10);
	}
	assert_int_equal(delivered, 1000);
}

static void a_message_is_in_flight_until_its_last_job_is_done(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example two@b.example three@b.example");

	assert_int_equal(relay_message_state(relay, id), STATE_READY);
	relay_connect_to(relay, "mx:a.example");
	relay_connect_to(relay, "mx:b.example");
	assert_int_equal(relay_message_state(relay, id), STATE_INFLIGHT);
	fake_deliver(relay_connection_to(relay, "mx:a.example"));
	assert_int_equal(relay_message_state(relay, id), STATE_INFLIGHT);
	fake_deliver(relay_connection_to(relay, "mx:b.example"));
	assert_false(relay_is_queued(relay, id));
}

/* I10 */
static void what_is_deleted_while_in_flight_is_gone_after_its_last_job(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example two@b.example");
	struct outcome outcome = put_off("busy");

	relay_connect_to(relay, "mx:a.example");
	relay_connect_to(relay, "mx:b.example");
	queue_delete(relay->queue, id);
	fake_finish(relay_connection_to(relay, "mx:a.example"), &outcome);
	assert_true(relay_is_queued(relay, id)); /* its content is still being read */
	fake_finish(relay_connection_to(relay, "mx:b.example"), &outcome);
	assert_false(relay_is_queued(relay, id));
	for (uint32_t i = 0; i < 2; i++) /* a deferral would promise another attempt */
		assert_int_equal(relay_report(relay, id, i)->outcome.kind, OUTCOME_DELETED);
	assert_string_equal(relay_report(relay, id, 0)->outcome.text, "busy");
	close_all(relay);
	relay_pass(relay, 24 * hour_ms);
	assert_null(relay_connection(relay, 0));
}

/* I10: what stands in line is not under way yet. */
static void what_is_deleted_while_it_stands_in_line_is_not_sent(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example"), other = submit(relay, "two@a.example");
	struct fake_connection *connection = relay_connection_to(relay, "mx:a.example");

	assert_int_equal(queue_delete(relay->queue, id), 0);
	assert_false(relay_is_queued(relay, id));
	fake_session(connection);
	assert_true(connection->job->ticket->message.id == other);
	fake_deliver(connection);
	assert_null(connection->job);
	assert_int_equal(relay->report_count, 1);
	close_all(relay);
	assert_int_equal(scheduler_job_count(relay->scheduler), 0);
}

static void what_is_deleted_does_not_begin_for_its_other_recipients(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example two@b.example");
	struct fake_connection *waiting = relay_connection_to(relay, "mx:b.example");

	relay_connect_to(relay, "mx:a.example");
	assert_int_equal(queue_delete(relay->queue, id), 0);
	fake_session(waiting);
	assert_null(waiting->job);
	fake_deliver(relay_connection_to(relay, "mx:a.example"));
	assert_false(relay_is_queued(relay, id));
	assert_int_equal(relay->report_count, 1);
	close_all(relay);
}

static void what_is_held_while_it_stands_in_line_is_not_sent(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example");
	struct fake_connection *connection = relay_connection_to(relay, "mx:a.example");

	assert_int_equal(queue_hold(relay->queue, id), 0);
	fake_session(connection);
	assert_null(connection->job);
	relay_pass(relay, hour_ms);
	assert_int_equal(relay_message_state(relay, id), STATE_HELD);
	assert_int_equal(queue_release(relay->queue, id), 0);
	relay_turn(relay);
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_false(relay_is_queued(relay, id));
	close_all(relay);
}

static void a_stopped_scheduler_begins_nothing(void **state)
{
	struct relay *relay = *state;
	uint64_t id;

	scheduler_stop(relay->scheduler);
	id = submit(relay, "one@a.example");
	relay_pass(relay, hour_ms);
	assert_null(relay_connection(relay, 0));
	assert_true(relay_is_queued(relay, id));
}

static void never_released(void *ctx, uint64_t id, uint32_t recipient)
{
	(void)ctx;
	fail_msg("%llu %u: nobody has passed", (unsigned long long)id, recipient);
}

/* The first refusal of a greylister is the first, whatever was in the way before. */
static void greylisting_begins_with_its_own_first_refusal(void **state)
{
	static const int64_t waits_sec[] = {310, 310, 460};
	struct relay *relay = *state;
	const struct greylist_options options = {.rng = &relay->rng.rng, .release = never_released};
	struct greylist *greylist = greylist_new(&options, clock_wall_ms(&relay->clock.clock));
	const struct outcome closed =
	    outcome_like(OUTCOME_DEFERRED, CLASS_CONNECT, STAGE_RCPT, 421, "4.3.2", "not now");
	const struct outcome greylisted =
	    outcome_like(OUTCOME_DEFERRED, CLASS_GREYLIST, STAGE_RCPT, 450, "4.2.0", "Greylisted");
	uint64_t id = relay_submit(relay, "app@a.example", "one@b.example");

	scheduler_set_greylist(relay->scheduler, greylist);
	for (int i = 0; i < 6; i++) {
		fake_finish(relay_connect_to(relay, "mx:b.example"), &closed);
		relay_pass(relay, 2 * 3600 * 1000);
	}
	for (size_t i = 0; i < ARRAY_LEN(waits_sec); i++) {
		int64_t wait;
		fake_finish(relay_connect_to(relay, "mx:b.example"), &greylisted);
		wait = relay_report(relay, id, 0)->next_wall - clock_wall_ms(&relay->clock.clock);
		assert_in_range(wait, waits_sec[i] * 1000, waits_sec[i] * 1000 + 25 * 1000);
		relay_pass(relay, wait);
	}
	scheduler_set_greylist(relay->scheduler, NULL);
	greylist_free(&greylist);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(greylisting_begins_with_its_own_first_refusal),
	    TEST(a_delivered_message_leaves_the_queue),
	    TEST(recipients_at_one_destination_share_a_job),
	    TEST(a_deferred_message_is_tried_again_at_its_time),
	    TEST(a_hint_is_honoured_once),
	    TEST(a_failed_recipient_ends_only_when_its_dsn_is_safe),
	    TEST(without_a_dsn_a_failed_recipient_is_tried_again),
	    TEST(outcomes_differ_within_a_job),
	    TEST(what_was_in_flight_is_tried_again_after_a_restart),
	    TEST(recipients_put_off_one_by_one_come_back_together),
	    TEST(recipients_due_a_moment_apart_are_both_served),
	    TEST(many_due_at_once_all_get_their_turn),
	    TEST(a_message_is_in_flight_until_its_last_job_is_done),
	    TEST(what_is_deleted_while_in_flight_is_gone_after_its_last_job),
	    TEST(what_is_deleted_while_it_stands_in_line_is_not_sent),
	    TEST(what_is_deleted_does_not_begin_for_its_other_recipients),
	    TEST(what_is_held_while_it_stands_in_line_is_not_sent),
	    TEST(a_stopped_scheduler_begins_nothing),
	};
	return cmocka_run_group_tests_name("scheduler", tests, NULL, NULL);
}
