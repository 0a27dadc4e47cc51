/* Who is told what, by whom and how often: DSNs as they stand in the queue. */
#include "support_relay.h"

#include "relayd/metrics.h"
#include "relayd/webhook.h"

static const int64_t minute_ms = 60 * 1000;

static void make_teller(struct relay *relay, struct webhook *webhook)
{
	struct bounce_options options = {relay->loop, relay->queue, &relay->clock.clock, &relay->rng.rng, relay->log,
					 NULL,	      webhook};

	relay->teller = bounce_new(&options);
	bounce_configure(relay->teller, relay->config);
}

static int setup(void **state)
{
	struct relay *relay = xmalloc(sizeof(*relay));

	relay_init(relay, NULL);
	make_teller(relay, NULL);
	*state = relay;
	return 0;
}

static int teardown(void **state)
{
	struct relay *relay = *state;

	bounce_free(&relay->teller);
	relay_fini(relay);
	free(relay);
	return 0;
}

static void configure(struct relay *relay, const char *yaml)
{
	relay_configure(relay, yaml);
	bounce_configure(relay->teller, relay->config);
}

/* ---- what stands in the queue ---- */

struct found {
	struct relay *relay;
	unsigned count;
	uint64_t id; /* of the last */
};

static void visit(void *ctx, const struct queue_brief *brief)
{
	struct found *found = ctx;
	struct queue_message message;

	assert_int_equal(queue_read_envelope(found->relay->queue, brief->id, 0, &message), 0);
	if (message.envelope.flags & QUEUE_BOUNCE) {
		found->count++;
		found->id = brief->id > found->id ? brief->id : found->id;
	}
	queue_message_free(&message);
}

static struct found find_dsns(struct relay *relay)
{
	struct found found = {.relay = relay};
	uint64_t cursor = 0;

	relay_turn(relay);
	do
		queue_iterate(relay->queue, &cursor, 1000, visit, &found);
	while (cursor);
	return found;
}

/* The text of the last DSN, until the next call; `to` is checked. */
static const char *dsn_text(struct relay *relay, const char *to)
{
	static char text[1 << 20];
	struct found found = find_dsns(relay);
	struct queue_message message;

	assert_true(found.count > 0);
	assert_int_equal(queue_read_envelope(relay->queue, found.id, 0, &message), 0);
	assert_int_equal(message.envelope.sender.len, 0);
	assert_int_equal(message.envelope.class, MESSAGE_BULK);
	assert_int_equal(message.envelope.recipients[0].notify, QUEUE_NOTIFY_NEVER);
	assert_true(slice_eq(message.envelope.recipients[0].address, slice_of_str(to)));
	assert_true(message.is_inline);
	snprintf(text, sizeof(text), "%.*s", SLICE_ARG(message.content));
	queue_message_free(&message);
	return text;
}

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' is not in:\n%s", part, text);
}

/* ---- messages and their ends ---- */

static uint64_t submit(struct relay *relay, const char *sender, const struct queue_recipient *recipients, size_t count)
{
	struct queue_envelope envelope = {.sender = slice_of_str(sender),
					  .envid = SLICE("Q+2BQ"),
					  .recipients = recipients,
					  .recipient_count = count,
					  .arrived_wall = clock_wall_ms(&relay->clock.clock),
					  .expires_wall = clock_wall_ms(&relay->clock.clock) + 3600 * 1000};
	uint64_t id = relay_submit_envelope(relay, &envelope);

	relay_turn(relay);
	return id;
}

static uint64_t submit_one(struct relay *relay, const char *sender, const char *recipient, uint32_t notify)
{
	struct queue_recipient one = {
	    .address = slice_of_str(recipient), .orcpt = SLICE("rfc822;Joe+2Bx@a.example"), .notify = notify};

	return submit(relay, sender, &one, 1);
}

static void refuse(struct relay *relay, const char *key)
{
	struct outcome outcome = outcome_like(OUTCOME_FAILED, CLASS_MAILBOX, STAGE_RCPT, 550, "5.1.1", "no such user");

	fake_finish(relay_connect_to(relay, key), &outcome);
}

/* ---- tests ---- */

static void the_sender_is_told_before_the_message_ends(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit_one(relay, "app@example.org", "joe@a.example", 0);
	const char *text;

	refuse(relay, "mx:a.example");
	text = dsn_text(relay, "app@example.org");
	assert_has(text, "Original-Envelope-Id: Q+Q\r\n");
	assert_has(text, "Original-Recipient: rfc822; Joe+x@a.example\r\n");
	assert_has(text, "Final-Recipient: rfc822; joe@a.example\r\n");
	assert_has(text, "Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example.net\r\n");
	assert_has(text, "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n");
	assert_has(text, "There is no such mailbox.");
	assert_has(text, "Last-Attempt-Date: ");
	assert_false(relay_is_queued(relay, id));
}

/* I4: For each NOTIFY and each kind of news: is a DSN due? */
static void notify_decides(void **state)
{
	static const struct {
		uint32_t notify;
		bool failed, relayed;
	} rows[] = {
	    {0, true, false},
	    {QUEUE_NOTIFY_NEVER, false, false},
	    {QUEUE_NOTIFY_FAILURE, true, false},
	    {QUEUE_NOTIFY_DELAY, false, false},
	    {QUEUE_NOTIFY_SUCCESS, false, true},
	    {QUEUE_NOTIFY_SUCCESS | QUEUE_NOTIFY_FAILURE, true, true},
	};
	struct relay *relay = *state;
	unsigned expected = 0;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		submit_one(relay, "app@example.org", "joe@a.example", rows[i].notify);
		refuse(relay, "mx:a.example");
		expected += rows[i].failed;
		assert_int_equal(find_dsns(relay).count, expected);
		submit_one(relay, "app@example.org", "joe@a.example", rows[i].notify);
		fake_deliver(relay_connect_to(relay, "mx:a.example"));
		expected += rows[i].relayed;
		assert_int_equal(find_dsns(relay).count, expected);
	}
	assert_true(relay_log_has(relay, "event=bounce_omitted"));
	assert_true(relay_log_has(relay, "kind=failed recipients=1 text=NOTIFY"));
}

/* I5 */
static void success_is_told_where_the_next_hop_will_not(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit_one(relay, "app@example.org", "joe@a.example", QUEUE_NOTIFY_SUCCESS);
	struct fake_connection *connection = relay_connect_to(relay, "mx:a.example");

	connection->job->next_hop_reports = true;
	fake_deliver(connection);
	assert_int_equal(find_dsns(relay).count, 0);
	assert_false(relay_is_queued(relay, id));
	id = submit_one(relay, "app@example.org", "joe@a.example", QUEUE_NOTIFY_SUCCESS);
	fake_deliver(relay_connect_to(relay, "mx:a.example"));
	assert_has(dsn_text(relay, "app@example.org"), "Action: relayed\r\nStatus: 2.0.0\r\n");
	assert_false(relay_is_queued(relay, id));
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_DELIVERED);
}

/* I3 */
static void nobody_is_told_of_a_bounce(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit_one(relay, "", "joe@a.example", 0);

	refuse(relay, "mx:a.example");
	assert_int_equal(find_dsns(relay).count, 0);
	assert_false(relay_is_queued(relay, id));
	assert_true(relay_log_has(relay, "kind=failed recipients=1 text=\"null reverse-path\""));
}

static void bounce_to_gets_it_instead(void **state)
{
	struct relay *relay = *state;

	configure(relay, "bounce: {to: postmaster@example.com}\n");
	submit_one(relay, "app@example.org", "joe@a.example", 0);
	refuse(relay, "mx:a.example");
	assert_has(dsn_text(relay, "postmaster@example.com"), "To: <postmaster@example.com>\r\n");
	submit_one(relay, "", "joe@a.example", 0);
	refuse(relay, "mx:a.example");
	assert_int_equal(find_dsns(relay).count, 1);
}

static void nobody_is_told_whom_the_policy_forbids_to_write_to(void **state)
{
	struct relay *relay = *state;

	configure(relay, "allowed_recipients: ['@a.example']\n");
	submit_one(relay, "app@example.org", "joe@a.example", 0);
	refuse(relay, "mx:a.example");
	assert_int_equal(find_dsns(relay).count, 0);
	assert_true(relay_log_has(relay, "text=\"suppress or allowed_recipients\""));
	/* Staging: everything goes to one mailbox, bounces too. */
	configure(relay, "redirect: staging@example.com\nbounce: {to: postmaster@example.com}\n");
	submit_one(relay, "app@example.org", "joe@a.example", 0);
	refuse(relay, "mx:a.example");
	assert_has(dsn_text(relay, "staging@example.com"), "To: <staging@example.com>\r\n");
}

static void the_dsn_names_who_was_written_to(void **state)
{
	struct relay *relay = *state;
	struct queue_recipient one = {.address = SLICE("ann@a.example"), .original = SLICE("root@corp.example")};

	submit(relay, "app@example.org", &one, 1);
	refuse(relay, "mx:a.example");
	assert_has(dsn_text(relay, "app@example.org"),
		   "Original-Recipient: rfc822; root@corp.example\r\nFinal-Recipient: rfc822; ann@a.example\r\n");
}

static void no_mail_with_mode_none(void **state)
{
	struct relay *relay = *state;
	uint64_t id;

	configure(relay, "bounce: {mode: none}\n");
	id = submit_one(relay, "app@example.org", "joe@a.example", 0);
	refuse(relay, "mx:a.example");
	assert_int_equal(find_dsns(relay).count, 0);
	assert_false(relay_is_queued(relay, id));
	assert_true(relay_log_has(relay, "text=bounce.mode"));
}

enum { MANY = 100 };

static uint64_t submit_many(struct relay *relay)
{
	struct queue_recipient recipients[MANY];
	char addresses[MANY][32];

	for (int i = 0; i < MANY; i++) {
		snprintf(addresses[i], sizeof(addresses[i]), "joe@d%d.example", i);
		recipients[i] = (struct queue_recipient){.address = slice_of_str(addresses[i])};
	}
	return submit(relay, "app@example.org", recipients, MANY);
}

/* ---- mail and events ---- */

/* A webhook whose syncs end when the test says so. */
struct hook {
	struct webhook *webhook;
	uint64_t tokens[16];
	unsigned syncs, ended;
};

static void sync_later(void *ctx, int fd, uint64_t token)
{
	struct hook *hook = ctx;

	(void)fd;
	assert_true(hook->syncs < ARRAY_LEN(hook->tokens));
	hook->tokens[hook->syncs++] = token;
}

static uint64_t never_answered(void *ctx, const struct https_request *request, https_cb *cb, void *cb_ctx)
{
	(void)ctx;
	(void)request;
	(void)cb;
	(void)cb_ctx;
	return 1;
}

static void forget_post(void *ctx, uint64_t *id)
{
	(void)ctx;
	*id = 0;
}

static void on_turn(void *ctx)
{
	struct hook *hook = ctx;

	if (hook->webhook)
		webhook_turn(hook->webhook);
}

static void open_webhook(struct relay *relay, struct hook *hook, const struct disk_async *async)
{
	struct webhook_options options = {.loop = relay->loop,
					  .clock = &relay->clock.clock,
					  .rng = &relay->rng.rng,
					  .log = relay->log,
					  .metrics = relay->metrics,
					  .poster = {hook, never_answered, forget_post},
					  .spool_fd = relay->fd,
					  .async = async};
	char secret[128], yaml[400];
	FILE *file;

	snprintf(secret, sizeof(secret), "%s/secret", relay->folder);
	file = fopen(secret, "w");
	assert_true(file && fputs("key\n", file) >= 0 && fclose(file) == 0);
	snprintf(yaml, sizeof(yaml),
		 "bounce: {mode: both}\nwebhook: {url: 'https://hook.example/x', secret_file: %s, events: [failed]}\n",
		 secret);
	hook->webhook = webhook_new(&options);
	bounce_free(&relay->teller);
	make_teller(relay, hook->webhook);
	configure(relay, yaml);
	assert_int_equal(webhook_stage(hook->webhook, relay->config, NULL), 0);
	webhook_commit(hook->webhook, relay->config);
	loop_add_turn_hook(relay->loop, on_turn, hook);
}

static void a_message_ends_when_both_its_dsn_and_its_event_are_stored(void **state)
{
	static struct hook hook; /* the loop outlives this function */
	const struct disk_async async = {.ctx = &hook, .sync = sync_later};
	struct relay *relay = *state;
	uint64_t id;

	open_webhook(relay, &hook, &async);
	id = submit_one(relay, "app@example.org", "joe@a.example", 0);
	refuse(relay, "mx:a.example");
	assert_int_equal(find_dsns(relay).count, 1);
	assert_true(relay_is_queued(relay, id));
	assert_true(hook.syncs > 0);
	while (hook.ended < hook.syncs) {
		assert_true(webhook_on_disk_done(hook.webhook,
						 &(struct disk_done){.token = hook.tokens[hook.ended++], .fd = -1}));
		relay_turn(relay);
	}
	assert_false(relay_is_queued(relay, id));
	assert_int_equal(find_dsns(relay).count, 1);
	bounce_free(&relay->teller);
	webhook_free(&hook.webhook);
}

static void refuse_number(struct relay *relay, int i)
{
	char key[32];

	snprintf(key, sizeof(key), "mx:d%d.example", i);
	refuse(relay, key);
	fake_close(relay_connection_to(relay, key));
}

/* I11: a hundred domains refuse one message, one by one. */
static void a_storm_becomes_two(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit_many(relay);

	refuse_number(relay, 0);
	assert_int_equal(find_dsns(relay).count, 1);
	for (int i = 1; i < MANY - 1; i++)
		refuse_number(relay, i);
	assert_int_equal(find_dsns(relay).count, 1);
	assert_true(relay_is_queued(relay, id));
	assert_int_equal(relay->report_count, 1);
	refuse_number(relay, MANY - 1); /* the last one ends the wait */
	assert_int_equal(find_dsns(relay).count, 2);
	assert_false(relay_is_queued(relay, id));
	assert_has(dsn_text(relay, "app@example.org"), "Final-Recipient: rfc822; joe@d99.example\r\n");
	assert_has(dsn_text(relay, "app@example.org"), "Final-Recipient: rfc822; joe@d1.example\r\n");
}

static void what_is_gathered_goes_after_a_minute(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit_many(relay);

	for (int i = 0; i < 3; i++)
		refuse_number(relay, i);
	relay_pass(relay, minute_ms - 1);
	assert_int_equal(find_dsns(relay).count, 1);
	relay_pass(relay, 1);
	assert_int_equal(find_dsns(relay).count, 2);
	relay_turn(relay);
	assert_int_equal(relay_report(relay, id, 2)->outcome.kind, OUTCOME_FAILED);
	refuse_number(relay, 3);
	assert_int_equal(find_dsns(relay).count, 2);
	relay_pass(relay, minute_ms);
	assert_int_equal(find_dsns(relay).count, 3);
	relay_pass(relay, 2 * minute_ms); /* calm again: the next is told at once */
	refuse_number(relay, 4);
	assert_int_equal(find_dsns(relay).count, 4);
	assert_true(relay_is_queued(relay, id));
}

static void a_stop_does_not_wait_for_the_minute(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit_many(relay);

	for (int i = 0; i < 3; i++)
		refuse_number(relay, i);
	bounce_hurry(relay->teller);
	assert_int_equal(find_dsns(relay).count, 2);
	assert_int_equal(relay_report(relay, id, 2)->outcome.kind, OUTCOME_FAILED);
	refuse_number(relay, 3);
	assert_int_equal(find_dsns(relay).count, 3);
}

static void what_is_gathered_and_not_told_is_tried_again_after_a_crash(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit_many(relay);
	struct queue_message message;
	unsigned waiting = 0;

	for (int i = 0; i < 3; i++)
		refuse_number(relay, i);
	relay_turn(relay);
	bounce_free(&relay->teller);
	relay_restart(relay);
	assert_int_equal(queue_read_envelope(relay->queue, id, 0, &message), 0);
	for (uint32_t i = 0; i < MANY; i++)
		waiting += message.status[i].state != QUEUE_FINAL;
	queue_message_free(&message);
	assert_int_equal(waiting, MANY - 1);
}

/* I11: A sender that no header can name is nobody to wait for. */
static void a_sender_that_cannot_be_written_to_is_no_reason_to_wait(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit_one(relay, "not an address", "joe@a.example", 0);

	refuse(relay, "mx:a.example");
	relay_turn(relay);
	assert_false(relay_is_queued(relay, id));
	assert_int_equal(find_dsns(relay).count, 0);
	assert_true(relay_log_has(relay, "event=bounce_omitted"));
}

static int no_room(struct disk *disk, uint64_t *bytes)
{
	(void)disk;
	*bytes = 0;
	return 0;
}

static void a_dsn_that_finds_no_room_is_said_and_comes_later(void **state)
{
	struct relay *relay = *state;
	int (*free_bytes)(struct disk *, uint64_t *) = relay->disk->free_bytes;
	uint64_t id = submit_one(relay, "app@example.org", "joe@a.example", 0);

	relay->disk->free_bytes = no_room;
	relay_pass(relay, minute_ms);
	submit_one(relay, "", "ann@b.example", 0); /* the journal looks when it has something to write */
	refuse(relay, "mx:a.example");
	relay_turn(relay);
	assert_true(relay_is_queued(relay, id));
	assert_true(relay_log_has(relay, "event=bounce_waits"));
	relay->disk->free_bytes = free_bytes;
	relay_pass(relay, 2 * minute_ms);
	refuse(relay, "mx:a.example");
	assert_has(dsn_text(relay, "app@example.org"), "Status: 5.1.1");
	assert_false(relay_is_queued(relay, id));
}

/* The remote reply stands as it was said; our own verdict is the status (RFC 3464 section 2.3.4, 2.3.6). */
static void expiry_tells_the_last_reply_and_the_time(void **state)
{
	struct relay *relay = *state;
	struct outcome outcome =
	    outcome_like(OUTCOME_DEFERRED, CLASS_MAILBOX, STAGE_RCPT, 452, "4.2.2", "mailbox full");
	uint64_t id = submit_one(relay, "app@example.org", "joe@a.example", 0);
	const char *text;

	for (int minutes = 0; minutes < 70 && relay_is_queued(relay, id); minutes++) {
		if (relay_connection(relay, 0)) {
			fake_session(relay_connection(relay, 0));
			if (relay_connection(relay, 0)->job)
				fake_finish(relay_connection(relay, 0), &outcome);
			fake_close(relay_connection(relay, 0));
		}
		relay_pass(relay, minute_ms);
	}
	text = dsn_text(relay, "app@example.org");
	assert_has(text, "Status: 5.4.7\r\n");
	assert_has(text, "Diagnostic-Code: smtp; 452 4.2.2 mailbox full\r\n");
	assert_has(text, "It was tried until the time for it was over.");
	assert_has(text, "The mailbox is full. Reach the recipient in another way");
	assert_false(relay_is_queued(relay, id));
}

/* What is held waits on purpose: its time is looked at when it is released. */
static void a_held_message_ends_when_it_is_released_after_its_time(void **state)
{
	struct relay *relay = *state;
	struct queue_recipient one = {.address = SLICE("joe@a.example")};
	uint64_t id = submit(relay, "app@example.org", &one, 1);

	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "refused");
	queue_hold(relay->queue, id);
	relay_pass(relay, 3 * 60 * minute_ms);
	assert_true(relay_is_queued(relay, id));
	assert_int_equal(find_dsns(relay).count, 0);
	queue_release(relay->queue, id);
	relay_pass(relay, minute_ms);
	assert_false(relay_is_queued(relay, id));
	assert_has(dsn_text(relay, "app@example.org"), "Action: failed\r\nStatus: 5.4.7\r\n");
	assert_null(strstr(dsn_text(relay, "app@example.org"), "Last-Attempt-Date"));
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_EXPIRED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(the_sender_is_told_before_the_message_ends),
	    TEST(notify_decides),
	    TEST(success_is_told_where_the_next_hop_will_not),
	    TEST(nobody_is_told_of_a_bounce),
	    TEST(bounce_to_gets_it_instead),
	    TEST(nobody_is_told_whom_the_policy_forbids_to_write_to),
	    TEST(the_dsn_names_who_was_written_to),
	    TEST(no_mail_with_mode_none),
	    TEST(a_message_ends_when_both_its_dsn_and_its_event_are_stored),
	    TEST(a_storm_becomes_two),
	    TEST(what_is_gathered_goes_after_a_minute),
	    TEST(a_stop_does_not_wait_for_the_minute),
	    TEST(what_is_gathered_and_not_told_is_tried_again_after_a_crash),
	    TEST(a_sender_that_cannot_be_written_to_is_no_reason_to_wait),
	    TEST(a_dsn_that_finds_no_room_is_said_and_comes_later),
	    TEST(expiry_tells_the_last_reply_and_the_time),
	    TEST(a_held_message_ends_when_it_is_released_after_its_time),
	};
	return cmocka_run_group_tests_name("bounce", tests, NULL, NULL);
}
