/* What an operator does to messages and relayhosts by the control API: hold, release, delete, flush, bounce, pause. */
#include "support_control.h"

/* ---- hold, release, delete ---- */

static void a_held_message_waits_until_it_is_released(void **state)
{
	struct console *f = *state;
	uint64_t id = submit_greylisted(f);
	unsigned opened = f->relay.opened;
	json_t *answer = console_act(f, 200, "hold", id);

	assert_int_equal(number_of(answer, "count"), 1);
	assert_true(json_is_true(json_object_get(answer, "synced")));
	assert_true(relay_log_has(&f->relay, "event=operator"));
	assert_true(relay_log_has(&f->relay, "action=hold"));
	console_restart(f);
	relay_pass(&f->relay, 2ll * 3600 * 1000);
	assert_int_equal(f->relay.opened, opened);
	assert_string_equal(text_of(console_show(f, id), "state"), "held");
	assert_true(json_is_null(json_object_get(recipient_of(f->answer.json, 0), "next_attempt_sec")));
	console_act(f, 409, "flush", id);
	console_act(f, 200, "release", id);
	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	assert_non_null(relay_connection(&f->relay, 0)->job);
	assert_true(relay_connection(&f->relay, 0)->job->ticket->message.id == id);
}

static void the_answer_to_hold_waits_for_the_disk(void **state)
{
	struct console *f = *state;
	uint64_t id = submit_greylisted(f);
	struct queue_stats before, after;

	relay_pass(&f->relay, 5000);
	queue_stats(f->relay.queue, &before);
	console_act(f, 200, "hold", id);
	queue_stats(f->relay.queue, &after);
	assert_true(after.syncs > before.syncs);
	assert_int_equal(after.unsynced_bytes, 0);
}

static void a_deleted_message_is_gone_and_remembered(void **state)
{
	struct console *f = *state;
	uint64_t id = submit_greylisted(f);
	json_t *message;

	console_act(f, 200, "delete", id);
	assert_true(relay_log_has(&f->relay, "action=delete"));
	assert_true(relay_log_has(&f->relay, "from=app@example.org"));
	message = console_show(f, id);
	assert_string_equal(text_of(message, "state"), "done");
	assert_string_equal(text_of(recipient_of(message, 0), "outcome"), "deleted");
	assert_string_equal(text_of(recipient_of(message, 0), "text"), "deleted by an operator");
	console_act(f, 404, "delete", id);
	console_restart(f);
	relay_pass(&f->relay, 86400ll * 1000);
	assert_null(relay_connection(&f->relay, 0));
}

/* I10 */
static void what_is_in_flight_while_deleted_tells_its_own_end(void **state)
{
	struct console *f = *state;
	uint64_t id = relay_submit(&f->relay, "app@example.org", "one@example.net");
	json_t *message;

	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	console_act(f, 200, "delete", id);
	fake_deliver(relay_connection(&f->relay, 0));
	message = console_show(f, id);
	assert_int_equal(json_array_size(json_object_get(message, "recipients")), 1);
	assert_string_equal(text_of(recipient_of(message, 0), "outcome"), "delivered");
}

/* ---- flush ---- */

static void flush_of_one_ends_its_destinations_back_off(void **state)
{
	struct console *f = *state;
	uint64_t id = relay_submit(&f->relay, "app@example.org", "one@example.net");
	json_t *answer;

	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	relay_turn(&f->relay);
	assert_null(relay_connection(&f->relay, 0));
	answer = console_act(f, 200, "flush", id);
	assert_int_equal(number_of(answer, "count"), 1);
	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	assert_true(relay_connection(&f->relay, 0)->job->ticket->message.id == id);
}

static void submit_to_two_domains_that_fail(struct console *f)
{
	relay_configure(&f->relay, "");
	relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_submit(&f->relay, "app@example.org", "two@b.example");
	relay_turn(&f->relay);
	fake_fail(relay_connection_to(&f->relay, "mx:a.example"), CLASS_CONNECT, STAGE_CONNECT, "refused");
	fake_fail(relay_connection_to(&f->relay, "mx:b.example"), CLASS_CONNECT, STAGE_CONNECT, "refused");
	relay_pass(&f->relay, 100);
	assert_null(relay_connection(&f->relay, 0));
}

static void flush_of_a_domain_leaves_the_others_alone(void **state)
{
	struct console *f = *state;
	json_t *answer;

	submit_to_two_domains_that_fail(f);
	answer = console_ask(f, 200, "POST", "/v1/flush", "{\"domain\": \"A.Example\"}");
	assert_int_equal(number_of(answer, "count"), 1);
	relay_turn(&f->relay);
	assert_string_equal(relay_connection(&f->relay, 0)->destination->key, "mx:a.example");
	assert_null(relay_connection(&f->relay, 1));
	answer = console_ask(f, 200, "POST", "/v1/flush", "{\"domain\": \"c.example\"}");
	assert_int_equal(number_of(answer, "count"), 0);
	assert_true(relay_log_has(&f->relay, "action=flush conditions=\"domain=A.Example\" messages=1"));
}

static void flush_of_a_domain_wakes_the_relayhost_it_goes_by(void **state)
{
	struct console *f = *state;

	relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "refused");
	relay_turn(&f->relay);
	assert_int_equal(number_of(console_ask(f, 200, "POST", "/v1/flush", "{\"domain\": \"a.example\"}"), "count"),
			 1);
	relay_turn(&f->relay);
	assert_string_equal(relay_connection(&f->relay, 0)->destination->key, "relayhost:main");
}

static void flush_of_all_attempts_all_but_the_held(void **state)
{
	struct console *f = *state;
	uint64_t held;

	submit_to_two_domains_that_fail(f);
	held = relay_submit(&f->relay, "app@example.org", "three@c.example");
	console_act(f, 200, "hold", held);
	assert_int_equal(number_of(console_ask(f, 200, "POST", "/v1/flush", NULL), "count"), 2);
	relay_turn(&f->relay);
	relay_connection_to(&f->relay, "mx:a.example");
	relay_connection_to(&f->relay, "mx:b.example");
	assert_string_equal(text_of(console_show(f, held), "state"), "held");
}

static void flush_of_many_goes_in_steps(void **state)
{
	struct console *f = *state;
	struct http_response response = {.status = 200};
	struct http_request request = {.method = "POST", .path = "/v1/flush"};
	struct buf out;
	unsigned steps = 1;

	relay_submit_many(&f->relay, "one@example.net", 3000);
	buf_init(&response.body, 1000);
	buf_init(&out, 1 << 20);
	control_handle(f->control, &request, &response);
	assert_non_null(response.stream_next);
	while (response.stream_next(response.stream_ctx, &out) != HTTP_END) {
		assert_in_range(buf_len(&out), 1, 64 * 1024);
		relay_turn(&f->relay);
		steps++;
	}
	response.stream_free(response.stream_ctx);
	assert_true(steps > 2);
	assert_non_null(memmem(buf_slice(&out).ptr, buf_len(&out), "{\"count\":3000,", 14));
	buf_fini(&out);
	buf_fini(&response.body);
}

/* A client that leaves ends the flush; the log does not say that all was done. */
static void a_flush_that_is_broken_off_says_so(void **state)
{
	struct console *f = *state;
	struct http_response response = {.status = 200};
	struct http_request request = {.method = "POST", .path = "/v1/flush"};

	buf_init(&response.body, 1000);
	control_handle(f->control, &request, &response);
	response.stream_free(response.stream_ctx);
	buf_fini(&response.body);
	assert_true(relay_log_has(&f->relay, "action=flush_broken_off messages=0"));
}

/* ---- many, by conditions ---- */

static void three_to_two_domains(struct console *f, uint64_t ids[3])
{
	ids[0] = relay_submit(&f->relay, "app@example.org", "one@a.example");
	ids[1] = relay_submit(&f->relay, "app@example.org", "two@b.example three@a.example");
	ids[2] = relay_submit(&f->relay, "other@example.org", "four@b.example");
	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "refused");
	relay_pass(&f->relay, 100);
}

static const char *state_of(struct console *f, uint64_t id)
{
	return text_of(console_show(f, id), "state");
}

static void a_dry_run_counts_and_touches_nothing(void **state)
{
	struct console *f = *state;
	uint64_t ids[3];

	three_to_two_domains(f, ids);
	assert_int_equal(
	    number_of(console_act_on(f, "delete", "{\"domain\": \"a.example\", \"dry_run\": true}"), "count"), 2);
	assert_null(json_object_get(f->answer.json, "synced"));
	assert_int_equal(number_of(console_act_on(f, "bounce", "{\"all\": true, \"dry_run\": true}"), "count"), 3);
	assert_int_equal(number_of(console_act_on(f, "release", "{\"all\": true, \"dry_run\": true}"), "count"), 0);
	assert_false(relay_log_has(&f->relay, "event=operator"));
	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		assert_string_equal(state_of(f, ids[i]), "deferred");
}

static void many_are_held_released_and_deleted(void **state)
{
	struct console *f = *state;
	uint64_t ids[3];
	json_t *answer;

	three_to_two_domains(f, ids);
	answer = console_act_on(f, "hold", "{\"sender\": \"app@example.org\", \"domain\": \"b.example\"}");
	assert_int_equal(number_of(answer, "count"), 1);
	assert_true(json_is_true(json_object_get(answer, "synced")));
	assert_string_equal(state_of(f, ids[0]), "deferred");
	assert_string_equal(state_of(f, ids[1]), "held");
	assert_int_equal(number_of(console_act_on(f, "hold", "{\"all\": true}"), "count"),
			 2); /* who is held already is not */
	assert_int_equal(number_of(console_act_on(f, "release", "{\"recipient\": \"Three@A.Example\"}"), "count"), 1);
	assert_int_equal(number_of(console_act_on(f, "delete", "{\"state\": \"held\"}"), "count"), 2);
	assert_string_equal(state_of(f, ids[1]), "deferred");
	assert_true(relay_log_has(&f->relay, "action=delete conditions=\"state=held\" messages=2"));
	assert_true(relay_log_has(&f->relay, "from=other@example.org action=delete messages=1"));
	console_act(f, 404, "hold", ids[0]);
}

static void conditions_of_time_reason_and_way(void **state)
{
	struct console *f = *state;
	uint64_t ids[3];

	three_to_two_domains(f, ids);
	relay_pass(&f->relay, 60000);
	relay_submit(&f->relay, "app@example.org", "young@a.example");
	console_act_on(f, "hold", "{\"age\": \"1m\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 3);
	console_act_on(f, "hold", "{\"age\": \"2m\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 0);
	console_act_on(f, "hold", "{\"reason\": \"connect\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 3);
	console_act_on(f, "hold", "{\"class\": \"bulk\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 0);
	console_act_on(f, "hold", "{\"relayhost\": \"main\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 4);
	console_act_on(f, "hold", "{\"relayhost\": \"mx\", \"dry_run\": true}");
	assert_int_equal(number_of(f->answer.json, "count"), 0);
}

/* ---- bounce ---- */

static void a_bounced_message_fails_by_the_operators_word(void **state)
{
	struct console *f = *state;
	uint64_t id = submit_greylisted(f);
	json_t *message;

	assert_int_equal(number_of(console_act(f, 200, "bounce", id), "count"), 1);
	assert_int_equal(f->relay.bounces, 1);
	assert_true(f->relay.bounced_id == id);
	assert_int_equal(f->relay.bounced[0].outcome.kind, OUTCOME_FAILED);
	assert_string_equal(f->relay.bounced[0].outcome.text, "returned to the sender by an operator");
	message = console_show(f, id);
	assert_string_equal(text_of(message, "state"), "done");
	assert_string_equal(text_of(recipient_of(message, 0), "outcome"), "failed");
	assert_true(relay_log_has(&f->relay, "action=bounce"));
	console_act(f, 404, "bounce", id);
}

/* Until the DSN is safe it is neither sent nor gone; and if it never is, the message stays held. */
static void a_bounce_waits_for_its_dsn(void **state)
{
	struct console *f = *state;
	uint64_t id = submit_greylisted(f);

	f->relay.bounce_waits = true;
	console_act(f, 200, "bounce", id);
	assert_string_equal(state_of(f, id), "held");
	console_act(f, 200, "bounce", id); /* said twice, it is told once */
	assert_int_equal(f->relay.bounces, 1);
	assert_int_equal(scheduler_bounce_count(f->relay.scheduler), 1);
	f->relay.bounce_done(f->relay.bounce_ctx, ERR_NO_SPACE);
	relay_pass(&f->relay, 86400ll * 1000);
	assert_string_equal(state_of(f, id), "held");
	assert_int_equal(scheduler_bounce_count(f->relay.scheduler), 0);
	console_act(f, 200, "bounce", id);
	f->relay.bounce_done(f->relay.bounce_ctx, 0);
	assert_string_equal(state_of(f, id), "done");
}

/* I10 */
static void what_is_being_tried_is_not_bounced(void **state)
{
	struct console *f = *state;
	uint64_t id = relay_submit(&f->relay, "app@example.org", "one@example.net");
	json_t *answer;

	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	console_act(f, 409, "bounce", id);
	answer = console_act_on(f, "bounce", "{\"all\": true}");
	assert_int_equal(number_of(answer, "count"), 0);
	assert_int_equal(number_of(answer, "busy"), 1);
	assert_string_equal(state_of(f, id), "inflight");
	fake_deliver(relay_connection(&f->relay, 0));
	assert_int_equal(f->relay.bounces, 0);
}

static void many_bounces_do_not_pile_up(void **state)
{
	enum { COUNT = 1000 };
	struct console *f = *state;
	json_t *answer;

	relay_submit_many(&f->relay, "one@example.net", COUNT);
	relay_turn(&f->relay);
	fake_fail(relay_connection(&f->relay, 0), CLASS_CONNECT, STAGE_CONNECT, "refused");
	relay_pass(&f->relay, 1000);
	answer = console_act_on(f, "bounce", "{\"domain\": \"example.net\"}");
	assert_int_equal(number_of(answer, "count"), COUNT);
	assert_int_equal(number_of(answer, "failed"), 0);
	assert_int_equal(f->relay.bounces, COUNT);
	assert_int_equal(
	    number_of(json_object_get(json_object_get(console_get(f, "/v1/status"), "queue"), "held"), "messages"), 0);
}

/* ---- pause ---- */

static void a_relayhost_is_paused_and_resumed(void **state)
{
	struct console *f = *state;
	json_t *answer = console_ask(f, 200, "POST", "/v1/relayhosts/main/pause", "");
	uint64_t id;

	assert_string_equal(json_string_value(json_object_get(answer, "name")), "main");
	assert_true(json_is_true(json_object_get(answer, "paused")));
	assert_true(json_is_true(json_object_get(answer, "changed")));
	answer = console_ask(f, 200, "POST", "/v1/relayhosts/main/pause", "{}");
	assert_true(json_is_false(json_object_get(answer, "changed")));
	id = relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_pass(&f->relay, 60 * 1000);
	assert_int_equal(f->relay.opened, 0);
	answer = json_array_get(json_object_get(console_show(f, id), "recipients"), 0);
	assert_string_equal(json_string_value(json_object_get(answer, "why")),
			    "its turn has not come yet; relayhost main is paused by an operator");
	answer = json_array_get(json_object_get(console_get(f, "/v1/status"), "relayhosts"), 0);
	assert_true(json_is_true(json_object_get(answer, "paused")));
	assert_int_equal(json_integer_value(json_object_get(answer, "paused_sec")), 60);
	assert_int_equal(json_integer_value(json_object_get(answer, "waiting")), 1);
	answer = console_ask(f, 200, "POST", "/v1/relayhosts/main/resume", "");
	assert_true(json_is_false(json_object_get(answer, "paused")));
	fake_session(relay_connection(&f->relay, 0));
	fake_deliver(relay_connection(&f->relay, 0));
	console_ask(f, 404, "POST", "/v1/relayhosts/other/pause", "");
	console_ask(f, 404, "POST", "/v1/relayhosts/other/resume", "");
	console_ask(f, 404, "POST", "/v1/relayhosts//pause", "");
	console_ask(f, 404, "POST", "/v1/relayhosts/main/pause/more", "");
	console_ask(f, 405, "GET", "/v1/relayhosts/main/pause", NULL);
	assert_true(relay_log_has(&f->relay, "action=pause"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, console_setup_relayhost, console_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_held_message_waits_until_it_is_released),
	    TEST(the_answer_to_hold_waits_for_the_disk),
	    TEST(a_relayhost_is_paused_and_resumed),
	    TEST(a_deleted_message_is_gone_and_remembered),
	    TEST(what_is_in_flight_while_deleted_tells_its_own_end),
	    TEST(flush_of_one_ends_its_destinations_back_off),
	    TEST(flush_of_a_domain_leaves_the_others_alone),
	    TEST(flush_of_a_domain_wakes_the_relayhost_it_goes_by),
	    TEST(flush_of_all_attempts_all_but_the_held),
	    TEST(flush_of_many_goes_in_steps),
	    TEST(a_flush_that_is_broken_off_says_so),
	    TEST(a_dry_run_counts_and_touches_nothing),
	    TEST(many_are_held_released_and_deleted),
	    TEST(conditions_of_time_reason_and_way),
	    TEST(a_bounced_message_fails_by_the_operators_word),
	    TEST(a_bounce_waits_for_its_dsn),
	    TEST(what_is_being_tried_is_not_bounced),
	    TEST(many_bounces_do_not_pile_up),
	};
	return cmocka_run_group_tests_name("control_act", tests, NULL, NULL);
}
