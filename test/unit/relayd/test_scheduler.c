/* The scheduler: from due to attempted, and from an outcome back to the queue. */
#include "support_relay.h"

static const char two_relayhosts[] = "relayhosts:\n"
				     "  main: {address: 'smtp.example.net:587', tls: none, priority: 10}\n"
				     "  spare: {address: 'spare.example.net:587', tls: none, priority: 20}\n";

static const int64_t hour_ms = 3600 * 1000;

static struct outcome refused(const char *text)
{
	return outcome_like(OUTCOME_FAILED, CLASS_MAILBOX, STAGE_RCPT, 550, "5.1.1", text);
}

static struct outcome put_off(const char *text)
{
	return outcome_like(OUTCOME_DEFERRED, CLASS_OTHER, STAGE_RCPT, 451, "4.3.0", text);
}

static bool is_queued(struct relay *relay, uint64_t id)
{
	struct queue_brief brief;

	return queue_brief(relay->queue, id, &brief) == 0;
}

static enum message_state state_of(struct relay *relay, uint64_t id)
{
	struct queue_brief brief;

	assert_int_equal(queue_brief(relay->queue, id, &brief), 0);
	return brief.state;
}

static uint64_t submit(struct relay *relay, const char *recipients)
{
	uint64_t id = relay_submit(relay, "app@example.org", recipients);

	relay_turn(relay);
	return id;
}

static void close_all(struct relay *relay)
{
	relay_close_all(relay);
	relay_turn(relay);
}

/* ---- outcomes ---- */

static void a_delivered_message_leaves_the_queue(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example");

	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_false(is_queued(relay, id));
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
	assert_int_equal(state_of(relay, id), STATE_DEFERRED);
	relay_pass(relay, next - clock_wall_ms(&relay->clock.clock) - 1);
	assert_null(relay_connection(relay, 0));
	relay_pass(relay, 1);
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_int_equal(relay_report(relay, id, 0)->attempts, 2);
	assert_false(is_queued(relay, id));
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
	assert_true(is_queued(relay, id));
	assert_int_equal(relay->report_count, 0);
	assert_int_equal(scheduler_job_count(relay->scheduler), 1);
	relay_pass(relay, hour_ms);
	assert_null(relay_connection(relay, 0)); /* nobody tries it meanwhile */
	relay->bounce_done(relay->bounce_ctx, 0);
	assert_false(is_queued(relay, id));
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
	assert_true(is_queued(relay, id));
	assert_int_equal(relay->report_count, 0);
	relay_pass(relay, 60 * 1000 - 1);
	assert_null(relay_connection(relay, 0));
	relay_pass(relay, 1);
	relay->bounce_result = 0;
	fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
	assert_false(is_queued(relay, id));
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

/* ---- the end of a lifetime ---- */

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
	assert_false(is_queued(relay, id));
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
	assert_false(is_queued(relay, id));
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
	assert_false(is_queued(relay, goes));
	assert_int_equal(relay->bounces, 0);
	be_busy(relay, hour_ms);
	assert_int_equal(relay->bounces, 1);
	assert_string_equal(relay_report(relay, stays, 0)->outcome.text, "busy");
	assert_int_equal(relay_report(relay, stays, 0)->outcome.kind, OUTCOME_EXPIRED);
	assert_false(is_queued(relay, stays));
}

/* Its sender hears of it when the time is over, not at the next step of the schedule; and until then it is tried. */
static void the_last_attempt_is_at_the_end_of_the_lifetime(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit(relay, "one@a.example");
	struct outcome outcome = put_off("busy");
	unsigned attempts = 0;

	while (is_queued(relay, id) && clock_wall_ms(&relay->clock.clock) < RELAY_WALL_MS + 7 * 24 * hour_ms) {
		if (relay_connection(relay, 0)) {
			fake_finish(relay_connect_to(relay, "mx:a.example"), &outcome);
			close_all(relay);
			attempts++;
		}
		relay_pass(relay, 60 * 1000);
	}
	assert_false(is_queued(relay, id));
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
	assert_true(is_queued(relay, id));
}

/* ---- where to ---- */

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
	assert_false(is_queued(relay, id));
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
	assert_false(is_queued(relay, id));
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
	assert_true(is_queued(relay, id));
	relay_pass(relay, 5000);
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_false(is_queued(relay, id));
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
	assert_false(is_queued(relay, id));
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
	assert_int_equal(state_of(relay, id), STATE_DEFERRED);
	assert_string_equal(relay_report(relay, id, 0)->outcome.text, "no route now");
	relay->route = NULL;
	relay_pass(relay, hour_ms);
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
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
	assert_false(is_queued(relay, id));
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

	assert_int_equal(state_of(relay, id), STATE_READY);
	relay_connect_to(relay, "mx:a.example");
	relay_connect_to(relay, "mx:b.example");
	assert_int_equal(state_of(relay, id), STATE_INFLIGHT);
	fake_deliver(relay_connection_to(relay, "mx:a.example"));
	assert_int_equal(state_of(relay, id), STATE_INFLIGHT);
	fake_deliver(relay_connection_to(relay, "mx:b.example"));
	assert_false(is_queued(relay, id));
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
	assert_true(is_queued(relay, id)); /* its content is still being read */
	fake_finish(relay_connection_to(relay, "mx:b.example"), &outcome);
	assert_false(is_queued(relay, id));
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
	assert_false(is_queued(relay, id));
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
	assert_false(is_queued(relay, id));
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
	assert_int_equal(state_of(relay, id), STATE_HELD);
	assert_int_equal(queue_release(relay->queue, id), 0);
	relay_turn(relay);
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_false(is_queued(relay, id));
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
	assert_true(is_queued(relay, id));
}

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

static bool was_told(struct relay *relay, const char *text)
{
	struct slice log = buf_slice(&relay->log_text);

	return log.len > 0 && memmem(log.ptr, log.len, text, strlen(text)) != NULL;
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
	assert_true(was_told(relay, "event=clock_set by_sec=315360000"));
	assert_int_equal(relay->bounces, 0);
	assert_true(relay_report(relay, under_way, 0)->next_wall > clock_wall_ms(&relay->clock.clock));
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_false(is_queued(relay, waits));
	fake_session(relay_connection_to(relay, "mx:d.example")); /* what stood in line goes back, and comes anew */
	relay_turn(relay);
	fake_deliver(relay_connect_to(relay, "mx:d.example"));
	assert_false(is_queued(relay, in_line));
	fake_finish(relay_connect_to(relay, "mx:b.example"), &outcome);
	assert_true(relay_report(relay, ends, 0)->next_wall > clock_wall_ms(&relay->clock.clock));
	assert_int_equal(relay->bounces, 0);
	be_busy(relay, hour_ms);
	assert_int_equal(relay->bounces, 2);
	assert_false(is_queued(relay, ends));
	assert_false(is_queued(relay, under_way));
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
	assert_false(is_queued(relay, id));
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
	while (is_queued(relay, id) && clock_wall_ms(&relay->clock.clock) < RELAY_WALL_MS + 7 * 24 * hour_ms)
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
	assert_false(is_queued(relay, id));
	assert_false(is_queued(relay, other));
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
	    TEST(an_expired_message_tells_each_recipients_own_story),
	    TEST(a_message_that_was_never_tried_expires_too),
	    TEST(what_ended_while_the_daemon_was_away_is_tried_once_more),
	    TEST(the_last_attempt_is_at_the_end_of_the_lifetime),
	    TEST(a_delay_is_told_once_for_all_recipients_of_a_job),
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
	    TEST(recipients_put_off_one_by_one_come_back_together),
	    TEST(recipients_due_a_moment_apart_are_both_served),
	    TEST(many_due_at_once_all_get_their_turn),
	    TEST(a_message_is_in_flight_until_its_last_job_is_done),
	    TEST(what_is_deleted_while_in_flight_is_gone_after_its_last_job),
	    TEST(what_is_deleted_while_it_stands_in_line_is_not_sent),
	    TEST(what_is_deleted_does_not_begin_for_its_other_recipients),
	    TEST(what_is_held_while_it_stands_in_line_is_not_sent),
	    TEST(a_stopped_scheduler_begins_nothing),
	    TEST(the_wall_clock_may_be_set_forward),
	    TEST(a_jump_forward_ends_no_lifetime_before_another_attempt),
	    TEST(a_short_lifetime_ends_in_a_jump),
	    TEST(a_jump_that_is_taken_back_leaves_nothing_behind),
	    TEST(what_waits_for_a_day_far_away_waits_no_longer_when_the_wall_clock_is_set_back),
	};
	return cmocka_run_group_tests_name("scheduler", tests, NULL, NULL);
}
