/* Events on their way to a server that the test plays: what is posted, when again, and what becomes of the rest. */
#include "support_relay.h"

#include "relayd/metrics.h"
#include "relayd/webhook.h"

#include <fcntl.h>
#include <unistd.h>

static const int64_t second_ms = 1000, minute_ms = 60 * 1000, hour_ms = 3600 * 1000;

enum { SMALL_BYTES = 4 * 1024 * 1024 };

struct hook {
	struct relay relay;
	struct webhook *webhook;
	/* The POST under way, and the last one's text. */
	uint64_t id;
	https_cb *cb;
	void *cb_ctx;
	unsigned posts;
	char url[128], headers[2][256];
	struct buf body;
	char trouble[256]; /* "": none */
	unsigned troubles;
	unsigned stored, lost;
};

/* ---- the server ---- */

static uint64_t poster_send(void *ctx, const struct https_request *request, https_cb *cb, void *cb_ctx)
{
	struct hook *hook = ctx;

	assert_null(hook->cb); /* one at a time */
	hook->cb = cb;
	hook->cb_ctx = cb_ctx;
	hook->posts++;
	snprintf(hook->url, sizeof(hook->url), "%s", request->url);
	assert_int_equal(request->header_count, 2);
	for (size_t i = 0; i < 2; i++)
		snprintf(hook->headers[i], sizeof(hook->headers[i]), "%s", request->headers[i]);
	buf_clear(&hook->body);
	buf_append(&hook->body, request->body);
	assert_true(request->is_configured_name);
	return ++hook->id;
}

static void poster_cancel(void *ctx, uint64_t *id)
{
	((struct hook *)ctx)->cb = NULL;
	*id = 0;
}

static void answer_with(struct hook *hook, const struct https_answer *answer)
{
	https_cb *cb = hook->cb;

	assert_non_null(cb);
	hook->cb = NULL;
	cb(hook->cb_ctx, answer);
	relay_turn(&hook->relay);
}

static void answer(struct hook *hook, int status)
{
	answer_with(hook, &(struct https_answer){.reason = "", .status = status, .content_type = ""});
}

static void fail_to_connect(struct hook *hook)
{
	answer_with(hook, &(struct https_answer){.result = HTTPS_CONNECT, .reason = "refused", .content_type = ""});
}

/* ---- the relay around it ---- */

static void on_trouble(void *ctx, const char *text)
{
	struct hook *hook = ctx;

	snprintf(hook->trouble, sizeof(hook->trouble), "%s", text ? text : "");
	hook->troubles += text != NULL;
}

static void on_corruption(void *ctx, const char *text)
{
	(void)ctx;
	fail_msg("%s", text);
}

static void on_turn(void *ctx)
{
	struct hook *hook = ctx;

	if (hook->webhook)
		webhook_turn(hook->webhook);
}

static void open_webhook(struct hook *hook)
{
	struct webhook_options options = {.loop = hook->relay.loop,
					  .clock = &hook->relay.clock.clock,
					  .rng = &hook->relay.rng.rng,
					  .log = hook->relay.log,
					  .metrics = hook->relay.metrics,
					  .poster = {hook, poster_send, poster_cancel},
					  .max_bytes = SMALL_BYTES,
					  .spool_fd = hook->relay.fd,
					  .ctx = hook,
					  .on_trouble = on_trouble,
					  .on_corruption = on_corruption};
	struct err err = {0};

	hook->webhook = webhook_new(&options);
	if (webhook_stage(hook->webhook, hook->relay.config, &err) != 0)
		fail_msg("%s", err.text);
	webhook_commit(hook->webhook, hook->relay.config);
}

static void configure(struct hook *hook, const char *more)
{
	char yaml[512], path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/secret", hook->relay.folder);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, "key\n", 4), 4);
	close(fd);
	snprintf(yaml, sizeof(yaml), "webhook: {url: 'https://hook.example/x', secret_file: %s%s", path, more);
	relay_configure(&hook->relay, yaml);
}

static int setup(void **state)
{
	struct hook *hook = xcalloc(1, sizeof(*hook));

	relay_init(&hook->relay, NULL);
	buf_init(&hook->body, 4 << 20);
	configure(hook, "}\n");
	open_webhook(hook);
	loop_add_turn_hook(hook->relay.loop, on_turn, hook);
	*state = hook;
	return 0;
}

static int teardown(void **state)
{
	struct hook *hook = *state;

	bounce_free(&hook->relay.teller);
	webhook_free(&hook->webhook);
	relay_fini(&hook->relay);
	buf_fini(&hook->body);
	free(hook);
	return 0;
}

static void on_stored(void *ctx, enum err_code result)
{
	struct hook *hook = ctx;

	if (result == 0)
		hook->stored++;
	else
		hook->lost++;
}

static int tell(struct hook *hook, const char *event)
{
	return webhook_tell(hook->webhook, slice_of_str(event), false, on_stored, hook);
}

static void tell_number(struct hook *hook, int number)
{
	char event[64];

	snprintf(event, sizeof(event), "{\"number\":%d}", number);
	assert_int_equal(tell(hook, event), 0);
}

static const char *body(struct hook *hook)
{
	static char text[1 << 20];

	snprintf(text, sizeof(text), "%.*s", SLICE_ARG(buf_slice(&hook->body)));
	return text;
}

static double counted(struct hook *hook, const char *result)
{
	return series_value(metrics_series(hook->relay.metrics, METRIC_WEBHOOK_EVENTS, result, NULL, NULL));
}

static void pass(struct hook *hook, int64_t ms)
{
	relay_pass(&hook->relay, ms);
}

/* ---- tests ---- */

static void an_event_is_posted_and_signed(void **state)
{
	struct hook *hook = *state;
	char expected[WEBHOOK_SIGNATURE_MAX];

	tell_number(hook, 1);
	assert_int_equal(hook->stored, 0);
	relay_turn(&hook->relay);
	assert_int_equal(hook->stored, 1);
	assert_int_equal(hook->posts, 1);
	assert_string_equal(hook->url, "https://hook.example/x");
	assert_string_equal(body(hook), "{\"relay\":\"relay.example.org\",\"events\":[{\"number\":1}]}\n");
	assert_string_equal(hook->headers[0], "Content-Type: application/json");
	webhook_sign("key", RELAY_WALL_MS / 1000, buf_slice(&hook->body), expected);
	assert_string_equal(hook->headers[1] + strlen("X-Relayd-Signature: "), expected);
	answer(hook, 200);
	assert_int_equal(hook->posts, 1);
	assert_true(counted(hook, "sent") == 1);
}

/* By another implementation: */
static void the_signature_is_hmac_sha256(void **state)
{
	char signature[WEBHOOK_SIGNATURE_MAX];

	(void)state;
	/* printf '0.what do ya want for nothing?' | openssl dgst -sha256 -hmac Jefe */
	webhook_sign("Jefe", 0, SLICE("what do ya want for nothing?"), signature);
	assert_string_equal(signature, "t=0,v1=37f471929915ccd2cbbe79feb84ffcff4f2bb25e15fc41c2506687331ae179cc");
}

static void what_comes_meanwhile_goes_in_one_batch_in_order(void **state)
{
	struct hook *hook = *state;

	tell_number(hook, 0);
	relay_turn(&hook->relay);
	for (int i = 1; i <= 150; i++)
		tell_number(hook, i);
	relay_turn(&hook->relay);
	assert_int_equal(hook->posts, 1);
	answer(hook, 204);
	assert_non_null(strstr(body(hook), "[{\"number\":1},{\"number\":2},"));
	assert_non_null(strstr(body(hook), "{\"number\":100}]"));
	answer(hook, 204);
	assert_non_null(strstr(body(hook), "[{\"number\":101},"));
	assert_non_null(strstr(body(hook), "{\"number\":150}]"));
	answer(hook, 204);
	assert_int_equal(hook->posts, 3);
	assert_true(counted(hook, "sent") == 151);
}

static void large_events_make_smaller_batches(void **state)
{
	struct hook *hook = *state;
	static char event[40 * 1024];

	memset(event, ' ', sizeof(event) - 1);
	event[0] = '{';
	event[sizeof(event) - 2] = '}';
	for (int i = 0; i < 20; i++)
		assert_int_equal(tell(hook, event), 0);
	relay_turn(&hook->relay);
	for (int i = 0; hook->cb; i++) {
		assert_true(buf_len(&hook->body) < 400 * 1024);
		answer(hook, 200);
	}
	assert_in_range(hook->posts, 3, 6);
	assert_true(counted(hook, "sent") == 20);
}

static void a_failure_is_tried_again_later_and_later(void **state)
{
	struct hook *hook = *state;
	int64_t waits[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900};

	tell_number(hook, 1);
	relay_turn(&hook->relay);
	for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
		unsigned before = hook->posts;
		if (i % 2)
			answer(hook, 500);
		else
			fail_to_connect(hook);
		pass(hook, waits[i] * second_ms - 1);
		assert_int_equal(hook->posts, before);
		pass(hook, waits[i] * second_ms / 8 + 2);
		assert_int_equal(hook->posts, before + 1);
	}
	answer(hook, 200);
	assert_true(counted(hook, "sent") == 1);
	tell_number(hook, 2); /* at once again */
	relay_turn(&hook->relay);
	assert_non_null(hook->cb);
}

static void retry_after_is_honoured(void **state)
{
	struct hook *hook = *state;

	tell_number(hook, 1);
	relay_turn(&hook->relay);
	answer_with(hook, &(struct https_answer){
			      .reason = "", .status = 429, .content_type = "", .retry_after_ms = 300 * second_ms});
	pass(hook, 299 * second_ms);
	assert_int_equal(hook->posts, 1);
	pass(hook, 40 * second_ms);
	assert_int_equal(hook->posts, 2);
}

static void trouble_begins_after_a_minute_and_ends(void **state)
{
	struct hook *hook = *state;

	tell_number(hook, 1);
	relay_turn(&hook->relay);
	for (int64_t began = clock_mono_ms(&hook->relay.clock.clock);
	     clock_mono_ms(&hook->relay.clock.clock) - began < minute_ms; pass(hook, second_ms))
		if (hook->cb)
			fail_to_connect(hook);
	assert_string_equal(hook->trouble, "");
	pass(hook, 2 * minute_ms);
	fail_to_connect(hook);
	assert_string_equal(hook->trouble, "connect: refused");
	pass(hook, 5 * minute_ms);
	answer(hook, 200);
	assert_string_equal(hook->trouble, "");
}

/* A server that chokes on number 3. */
static void serve_all_but_three(struct hook *hook)
{
	while (hook->cb)
		answer(hook, strstr(body(hook), "{\"number\":3}") ? 422 : 200);
}

static void one_bad_event_does_not_block_the_others(void **state)
{
	struct hook *hook = *state;
	int64_t began;

	tell_number(hook, 0);
	relay_turn(&hook->relay);
	for (int i = 1; i <= 6; i++)
		tell_number(hook, i);
	relay_turn(&hook->relay);
	answer(hook, 200);
	began = clock_mono_ms(&hook->relay.clock.clock);
	while (counted(hook, "sent") < 6 && clock_mono_ms(&hook->relay.clock.clock) - began < hour_ms) {
		serve_all_but_three(hook);
		pass(hook, second_ms);
	}
	assert_true(counted(hook, "sent") == 6);
	assert_true(counted(hook, "refused") == 1);
	assert_in_range(clock_mono_ms(&hook->relay.clock.clock) - began, 10 * minute_ms, 20 * minute_ms);
	assert_true(relay_log_has(&hook->relay, "event=webhook_given_up"));
	assert_true(relay_log_has(&hook->relay, "result=refused events=1"));
	assert_int_equal(hook->troubles > 0, 1);
	assert_string_equal(hook->trouble, "");
}

/* Not the content's fault: nothing is given up for it. */
static void a_wrong_url_or_password_gives_up_nothing(void **state)
{
	static const int statuses[] = {401, 403, 404, 405, 410, 429, 500, 503};
	struct hook *hook = *state;

	tell_number(hook, 1);
	relay_turn(&hook->relay);
	for (int i = 0; i < 40; i++) {
		answer(hook, statuses[i % (int)ARRAY_LEN(statuses)]);
		pass(hook, 17 * minute_ms);
	}
	assert_true(counted(hook, "refused") == 0);
	answer(hook, 200);
	assert_true(counted(hook, "sent") == 1);
}

static void after_a_day_an_event_is_given_up(void **state)
{
	struct hook *hook = *state;

	tell_number(hook, 1);
	relay_turn(&hook->relay);
	for (int hours = 0; hours < 12; hours++) {
		fail_to_connect(hook);
		pass(hook, hour_ms);
	}
	tell_number(hook, 2);
	for (int hours = 12; hours < 23; hours++) {
		fail_to_connect(hook);
		pass(hook, hour_ms);
	}
	assert_true(counted(hook, "expired") == 0);
	fail_to_connect(hook);
	pass(hook, 2 * hour_ms);
	fail_to_connect(hook);
	assert_true(counted(hook, "expired") == 1);
	pass(hook, hour_ms);
	assert_non_null(strstr(body(hook), "[{\"number\":2}]"));
	answer(hook, 200);
	assert_true(counted(hook, "sent") == 1);
}

/* The daemon, or its clock, was away for days: each event is tried first. */
static void an_old_event_is_tried_before_it_is_given_up(void **state)
{
	struct hook *hook = *state;

	tell_number(hook, 1);
	relay_turn(&hook->relay);
	clock_virtual_advance(&hook->relay.clock, 72 * hour_ms);
	fail_to_connect(hook);
	assert_true(counted(hook, "expired") == 0);
	pass(hook, minute_ms);
	answer(hook, 200);
	assert_true(counted(hook, "sent") == 1);
}

static void events_outlive_the_process(void **state)
{
	struct hook *hook = *state;

	for (int i = 1; i <= 3; i++)
		tell_number(hook, i);
	relay_turn(&hook->relay);
	webhook_free(&hook->webhook);
	open_webhook(hook);
	relay_turn(&hook->relay);
	assert_non_null(strstr(body(hook), "[{\"number\":1},{\"number\":2},{\"number\":3}]"));
	answer(hook, 200);
	webhook_free(&hook->webhook);
	open_webhook(hook);
	relay_turn(&hook->relay);
	assert_null(hook->cb);
}

static void a_full_queue_drops_and_says_so_and_keeps_room_for_failures(void **state)
{
	struct hook *hook = *state;
	static char event[4000];
	unsigned kept = 0;

	memset(event, 'x', sizeof(event) - 1);
	while (tell(hook, event) == 0) {
		kept++;
		relay_turn(&hook->relay);
	}
	assert_true(kept > 100);
	assert_true(counted(hook, "full") == 1);
	assert_non_null(strstr(hook->trouble, "new ones are dropped"));
	assert_int_equal(webhook_tell(hook->webhook, slice_of_str(event), true, NULL, NULL), 0);
	relay_turn(&hook->relay);
	fail_to_connect(hook); /* does not change the reason */
	assert_non_null(strstr(hook->trouble, "new ones are dropped"));
	pass(hook, minute_ms);
	while (hook->cb)
		answer(hook, 200);
	assert_string_equal(hook->trouble, "");
	assert_int_equal(tell(hook, event), 0);
	relay_turn(&hook->relay);
	answer(hook, 200);
	assert_true(counted(hook, "sent") == kept + 2);
}

static void without_a_webhook_nothing_is_told(void **state)
{
	struct hook *hook = *state;

	relay_configure(&hook->relay, "");
	assert_int_equal(webhook_stage(hook->webhook, hook->relay.config, NULL), 0);
	webhook_commit(hook->webhook, hook->relay.config);
	assert_false(webhook_wants(hook->webhook, CONFIG_EVENT_ALERT));
	assert_int_equal(tell(hook, "{}"), ERR_CLOSED);
	relay_turn(&hook->relay);
	assert_int_equal(hook->posts, 0);
}

/* ---- failures that only the webhook tells ---- */

static void make_teller(struct hook *hook, const char *mode)
{
	struct relay *relay = &hook->relay;
	struct bounce_options options = {.loop = relay->loop,
					 .queue = relay->queue,
					 .clock = &relay->clock.clock,
					 .rng = &relay->rng.rng,
					 .log = relay->log,
					 .webhook = hook->webhook};
	char more[128];
	struct err err;

	snprintf(more, sizeof(more), ", events: [failed]}\nbounce: {mode: %s}\n", mode);
	configure(hook, more);
	assert_int_equal(webhook_stage(hook->webhook, relay->config, &err), 0);
	webhook_commit(hook->webhook, relay->config);
	relay->teller = bounce_new(&options);
	bounce_configure(relay->teller, relay->config);
}

static void refuse_now(struct hook *hook)
{
	struct fake_connection *connection = relay_connection(&hook->relay, 0);
	struct outcome outcome = outcome_like(OUTCOME_FAILED, CLASS_MAILBOX, STAGE_RCPT, 550, "5.1.1", "no such user");

	if (!connection->job)
		fake_session(connection);
	fake_finish(connection, &outcome);
}

static uint64_t submit_and_refuse(struct hook *hook)
{
	uint64_t id = relay_submit(&hook->relay, "app@example.org", "joe@a.example");

	relay_turn(&hook->relay);
	refuse_now(hook);
	return id;
}

static bool is_queued(struct hook *hook, uint64_t id)
{
	struct queue_brief brief;

	return queue_brief(hook->relay.queue, id, &brief) == 0;
}

static unsigned queued_count(struct hook *hook)
{
	struct queue_stats stats;
	unsigned sum = 0;

	queue_stats(hook->relay.queue, &stats);
	for (int state = 0; state < STATE_COUNT; state++)
		sum += (unsigned)stats.messages[state];
	return sum;
}

static void a_failure_ends_when_its_event_is_stored(void **state)
{
	struct hook *hook = *state;
	uint64_t id;

	make_teller(hook, "webhook");
	id = submit_and_refuse(hook);
	assert_true(is_queued(hook, id)); /* its event is not yet on the disk */
	relay_turn(&hook->relay);
	assert_false(is_queued(hook, id));
	assert_int_equal(queued_count(hook), 0); /* no DSN */
	assert_non_null(strstr(body(hook), "\"event\":\"failed\""));
	assert_non_null(strstr(body(hook), "\"rcpt\":\"joe@a.example\""));
	assert_non_null(strstr(body(hook), "-0-1-failed\""));
	assert_non_null(strstr(body(hook), "\"attempts\":1"));
}

static void both_means_mail_and_event(void **state)
{
	struct hook *hook = *state;
	uint64_t id;

	make_teller(hook, "both");
	id = submit_and_refuse(hook);
	relay_turn(&hook->relay);
	assert_false(is_queued(hook, id));
	assert_int_equal(queued_count(hook), 1);
	assert_non_null(strstr(body(hook), "\"event\":\"failed\""));
}

static void fill(struct hook *hook)
{
	static char event[60 * 1024];

	memset(event, 'x', sizeof(event) - 1);
	while (webhook_tell(hook->webhook, slice_of_str(event), true, NULL, NULL) == 0)
		relay_turn(&hook->relay);
	event[300] = '\0';
	while (webhook_tell(hook->webhook, slice_of_str(event), true, NULL, NULL) == 0)
		relay_turn(&hook->relay);
}

static void without_room_for_its_event_a_failure_waits(void **state)
{
	struct hook *hook = *state;
	uint64_t id;

	make_teller(hook, "webhook");
	fill(hook);
	id = submit_and_refuse(hook);
	relay_turn(&hook->relay);
	assert_true(is_queued(hook, id));
	assert_int_equal(hook->relay.report_count, 0);
	assert_true(relay_log_has(&hook->relay, "event=bounce_waits"));
	while (hook->cb)
		answer(hook, 200);
	pass(hook, 15 * minute_ms + second_ms);
	refuse_now(hook);
	relay_turn(&hook->relay);
	assert_false(is_queued(hook, id));
}

/* Mail tells it too, so nothing waits for a webhook that is full. */
static void beside_mail_an_event_without_room_is_dropped(void **state)
{
	struct hook *hook = *state;
	double before;
	uint64_t id;

	make_teller(hook, "mail");
	fill(hook);
	before = counted(hook, "full");
	id = submit_and_refuse(hook);
	relay_turn(&hook->relay);
	assert_false(is_queued(hook, id));
	assert_int_equal(queued_count(hook), 1);
	assert_true(counted(hook, "full") == before + 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(an_event_is_posted_and_signed),
	    cmocka_unit_test(the_signature_is_hmac_sha256),
	    TEST(what_comes_meanwhile_goes_in_one_batch_in_order),
	    TEST(large_events_make_smaller_batches),
	    TEST(a_failure_is_tried_again_later_and_later),
	    TEST(retry_after_is_honoured),
	    TEST(trouble_begins_after_a_minute_and_ends),
	    TEST(one_bad_event_does_not_block_the_others),
	    TEST(a_wrong_url_or_password_gives_up_nothing),
	    TEST(after_a_day_an_event_is_given_up),
	    TEST(an_old_event_is_tried_before_it_is_given_up),
	    TEST(events_outlive_the_process),
	    TEST(a_full_queue_drops_and_says_so_and_keeps_room_for_failures),
	    TEST(without_a_webhook_nothing_is_told),
	    TEST(a_failure_ends_when_its_event_is_stored),
	    TEST(both_means_mail_and_event),
	    TEST(without_room_for_its_event_a_failure_waits),
	    TEST(beside_mail_an_event_without_room_is_dropped),
	};
	return cmocka_run_group_tests_name("webhook", tests, NULL, NULL);
}
