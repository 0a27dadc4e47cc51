/* The queue from its door, on the real disk. */
#include "support_spool.h"

#include "base/base.h"

static char big[100000];

static int setup(void **state)
{
	struct spool *spool = xcalloc(1, sizeof(*spool));

	spool_init(spool);
	*state = spool;
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 7 + i / 251);
	return 0;
}

static int teardown(void **state)
{
	spool_fini(*state);
	free(*state);
	return 0;
}

static void a_message_lives_from_upload_to_done(void **state)
{
	struct spool *spool = *state;
	struct slice content = SLICE("Subject: hello\r\n\r\nbody\r\n");
	struct queue_message message;
	struct queue_stats stats;
	uint64_t id;

	spool_open(spool);
	id = spool_submit(spool, 2, content);
	assert_int_equal(spool_take_all(spool), 2);
	assert_int_equal(queue_set_inflight(spool->queue, id, 2), 0);
	assert_int_equal(queue_read_envelope(spool->queue, id, 0, &message), 0);
	assert_int_equal(message.envelope.recipient_count, 2);
	assert_true(slice_eq(message.envelope.sender, SLICE("sender@example.com")));
	assert_true(slice_eq(message.envelope.recipients[1].address, SLICE("r1@example.org")));
	assert_true(message.is_inline && slice_eq(message.content, content));
	assert_int_equal(message.state, STATE_INFLIGHT);
	queue_message_free(&message);
	spool_result(spool, id, 0, OUTCOME_DELIVERED, 0);
	spool_result(spool, id, 1, OUTCOME_DEFERRED, SPOOL_WALL_MS + 300000);
	queue_stats(spool->queue, &stats);
	assert_int_equal(stats.messages[STATE_DEFERRED], 1);
	assert_int_equal(stats.recipients[STATE_DEFERRED], 1);
	assert_int_equal(spool_take_all(spool), 0);
	clock_virtual_advance(&spool->clock, 300000);
	assert_int_equal(spool_take_all(spool), 1);
	spool_result(spool, id, 1, OUTCOME_DELIVERED, 0);
	assert_int_equal(queue_read_envelope(spool->queue, id, 0, &message), ERR_NOT_FOUND);
	spool_settle(spool);
	queue_stats(spool->queue, &stats);
	assert_int_equal(stats.live_bytes, 0);
	spool_close(spool);
	spool_open(spool);
	assert_int_equal(spool->report.messages, 0);
	assert_int_equal(spool->corruptions, 0);
}

static void a_restart_keeps_messages_and_states(void **state)
{
	struct spool *spool = *state;
	struct queue_message message;
	uint64_t small, large;

	spool_open(spool);
	small = spool_submit(spool, 1, SLICE("x\r\n"));
	large = spool_submit(spool, 3, slice_of(big, sizeof(big)));
	assert_int_equal(spool_take_all(spool), 4);
	spool_result(spool, large, 0, OUTCOME_DELIVERED, 0);
	spool_result(spool, large, 1, OUTCOME_DEFERRED, SPOOL_WALL_MS + 60000);
	assert_int_equal(queue_hold(spool->queue, small), 0);
	for (int round = 0; round < 4; round++) {
		if (round == 3) {
			spool_settle(spool);
			spool_kill(spool);
		} else {
			spool_close(spool);
		}
		spool_open(spool);
		assert_int_equal(spool->report.messages, 2);
		assert_int_equal(spool->report.recipients, 3);
		spool_assert_content(spool, large, slice_of(big, sizeof(big)));
		spool_assert_content(spool, small, SLICE("x\r\n"));
		assert_int_equal(queue_read_envelope(spool->queue, large, QUEUE_READ_OUTCOMES, &message), 0);
		assert_int_equal(message.status[0].kind, OUTCOME_DELIVERED);
		assert_int_equal(message.status[1].kind, OUTCOME_DEFERRED);
		assert_int_equal(message.status[1].next_attempt_wall, SPOOL_WALL_MS + 60000);
		assert_string_equal(message.status[1].last->text, "not now, recipient 1");
		assert_int_equal(message.status[2].kind, OUTCOME_NONE);
		queue_message_free(&message);
		assert_int_equal(queue_read_envelope(spool->queue, small, 0, &message), 0);
		assert_int_equal(message.state, STATE_HELD);
		queue_message_free(&message);
	}
	assert_int_equal(spool->corruptions, 0);
}

static void draining_frees_segments_and_moves_stragglers(void **state)
{
	struct spool *spool = *state;
	struct queue_stats stats;
	struct queue_message message;
	uint64_t keep, ids[60];

	spool_open(spool);
	keep = spool_submit(spool, 2, slice_of(big, 30000));
	assert_int_equal(spool_take_all(spool), 2);
	spool_result(spool, keep, 1, OUTCOME_DEFERRED, SPOOL_WALL_MS + 60000000);
	for (int round = 0; round < 10; round++) {
		for (size_t i = 0; i < ARRAY_LEN(ids); i++)
			ids[i] = spool_submit(spool, 1, slice_of(big + i, 20000));
		spool_take_all(spool);
		for (size_t i = 0; i < ARRAY_LEN(ids); i++)
			spool_result(spool, ids[i], 0, OUTCOME_DELIVERED, 0);
		queue_turn(spool->queue);
	}
	spool_settle(spool);
	queue_stats(spool->queue, &stats);
	assert_true(stats.journal_bytes <= 2 * stats.live_bytes + 4 * spool->options.segment_bytes);
	spool_assert_content(spool, keep, slice_of(big, 30000));
	assert_int_equal(queue_read_envelope(spool->queue, keep, QUEUE_READ_OUTCOMES, &message), 0);
	assert_string_equal(message.status[1].last->text, "not now, recipient 1");
	queue_message_free(&message);
	spool_close(spool);
	spool_open(spool);
	assert_int_equal(spool->report.messages, 1);
	spool_assert_content(spool, keep, slice_of(big, 30000));
	assert_int_equal(spool->corruptions, 0);
}

/* ---- Scheduling ---- */

static void holding_releasing_and_deleting(void **state)
{
	struct spool *spool = *state;
	struct queue_brief brief;
	uint32_t indexes[3];
	uint64_t id, other;

	spool_open(spool);
	id = spool_submit(spool, 1, SLICE("x"));
	assert_true(queue_pop_due(spool->queue, INT64_MAX, &other));
	assert_int_equal(queue_hold(spool->queue, id), 0);
	assert_int_equal(queue_take_due(spool->queue, id, INT64_MAX, indexes, 3), 0);
	assert_false(queue_pop_due(spool->queue, INT64_MAX, &other));
	assert_int_equal(queue_brief(spool->queue, id, &brief), 0);
	assert_int_equal(brief.state, STATE_HELD);
	assert_int_equal(queue_release(spool->queue, id), 0);
	assert_true(queue_pop_due(spool->queue, clock_wall_ms(&spool->clock.clock), &other));
	assert_int_equal(queue_take_due(spool->queue, id, INT64_MAX, indexes, 3), 1);
	assert_int_equal(queue_set_inflight(spool->queue, id, 1), 0);
	/* Deleted while an attempt is under way: the attempt ends as it ends, and no other follows. */
	assert_int_equal(queue_delete(spool->queue, id), 0);
	assert_int_equal(queue_brief(spool->queue, id, &brief), 0);
	spool_result(spool, id, 0, OUTCOME_DEFERRED, SPOOL_WALL_MS);
	assert_int_equal(queue_brief(spool->queue, id, &brief), ERR_NOT_FOUND);
	id = spool_submit(spool, 2, SLICE("y"));
	assert_int_equal(queue_delete(spool->queue, id), 0);
	assert_int_equal(queue_delete(spool->queue, id), ERR_NOT_FOUND);
	spool_close(spool);
	spool_open(spool);
	assert_int_equal(spool->report.messages, 0);
}

static void what_is_given_back_comes_again(void **state)
{
	struct spool *spool = *state;
	int64_t now = clock_wall_ms(&spool->clock.clock);
	struct queue_brief brief;
	uint32_t indexes[3];
	uint64_t id, popped;

	spool_open(spool);
	id = spool_submit(spool, 3, SLICE("x"));
	assert_true(queue_pop_due(spool->queue, now, &popped));
	assert_int_equal(queue_take_due(spool->queue, id, now, indexes, 2), 2);
	/* The third was left over: the message is due again at once. */
	assert_true(queue_pop_due(spool->queue, now, &popped));
	assert_int_equal(queue_push_back(spool->queue, id, now + 500), 0);
	assert_false(queue_pop_due(spool->queue, now, &popped));
	assert_int_equal(queue_next_due_wall(spool->queue), now + 500);
	assert_int_equal(queue_give_back(spool->queue, id, indexes[1], now + 100), 0);
	assert_int_equal(queue_give_back(spool->queue, id, indexes[1], now), ERR_EXISTS);
	assert_int_equal(queue_next_due_wall(spool->queue), now + 100);
	assert_int_equal(queue_flush(spool->queue, id), 0);
	assert_true(queue_pop_due(spool->queue, now, &popped));
	assert_int_equal(queue_take_due(spool->queue, id, now, indexes, 3), 2);
	assert_int_equal(queue_brief(spool->queue, id, &brief), 0);
	assert_int_equal(brief.open, 3);
	assert_int_equal(brief.next_attempt_wall, INT64_MAX);
	assert_int_equal(queue_give_back(spool->queue, id, 99, now), ERR_NOT_FOUND);
	assert_int_equal(queue_give_back(spool->queue, 12345, 0, now), ERR_NOT_FOUND);
}

static void lists_hold_messages_in_order_and_let_go_of_the_gone(void **state)
{
	struct spool *spool = *state;
	struct queue_list first, second;
	uint64_t ids[5], id;

	spool_open(spool);
	queue_list_init(&first, spool->queue);
	queue_list_init(&second, spool->queue);
	for (int i = 0; i < 5; i++) {
		ids[i] = spool_submit(spool, 1, SLICE("x"));
		assert_int_equal(queue_list_append(&first, ids[i]), 0);
	}
	assert_int_equal(first.count, 5);
	assert_int_equal(queue_list_append(&second, ids[1]), 0);
	assert_int_equal(queue_list_append(&second, ids[3]), 0);
	assert_int_equal(first.count, 3);
	queue_delete(spool->queue, ids[2]);
	queue_hold(spool->queue, ids[0]);
	assert_int_equal(first.count, 1);
	assert_true(queue_list_pop(&second, &id) && id == ids[1]);
	assert_true(queue_list_pop(&second, &id) && id == ids[3]);
	assert_false(queue_list_pop(&second, &id));
	assert_true(queue_list_pop(&first, &id) && id == ids[4]);
	assert_int_equal(first.count, 0);
	assert_int_equal(queue_list_append(&first, 12345), ERR_NOT_FOUND);
	assert_int_equal(queue_list_append(&first, ids[4]), 0);
	queue_list_fini(&first);
	queue_list_fini(&second);
	/* Its number serves again. */
	queue_list_init(&second, spool->queue);
	assert_int_equal(queue_list_append(&second, ids[4]), 0);
	queue_list_fini(&second);
}

/* ---- Intake ---- */

static void limits_stop_intake_and_resume_it(void **state)
{
	struct spool *spool = *state;
	struct queue_upload *dsn;
	uint64_t ids[3];

	spool->options.limit_messages = 3;
	spool_open(spool);
	for (int i = 0; i < 3; i++)
		ids[i] = spool_submit(spool, 1, SLICE("x"));
	assert_int_equal(queue_may_accept(spool->queue), ERR_NO_SPACE);
	assert_null(queue_upload_begin(spool->queue, NULL));
	dsn = queue_upload_begin_dsn(spool->queue, NULL);
	assert_non_null(dsn);
	queue_upload_abort(&dsn);
	queue_delete(spool->queue, ids[0]);
	assert_int_equal(queue_may_accept(spool->queue), 0);
	spool_close(spool);
	spool->options.limit_messages = 0;
	spool->options.limit_bytes = 10000;
	spool_open(spool);
	assert_int_equal(queue_may_accept(spool->queue), 0);
	ids[0] = spool_submit(spool, 1, slice_of(big, 10000));
	assert_int_equal(queue_may_accept(spool->queue), ERR_NO_SPACE);
	queue_delete(spool->queue, ids[0]);
	assert_int_equal(queue_may_accept(spool->queue), 0);
	queue_stop(spool->queue);
	assert_int_equal(queue_may_accept(spool->queue), ERR_CLOSED);
	assert_null(queue_upload_begin_dsn(spool->queue, NULL));
}

static void never_called(void *ctx, uint64_t id, enum err_code result)
{
	(void)ctx;
	(void)id;
	(void)result;
	fail_msg("a forgotten callback came");
}

static void a_forgotten_committer_is_not_called(void **state)
{
	struct spool *spool = *state;
	struct queue_recipient recipient;
	struct queue_envelope envelope = spool_envelope(spool, &recipient, 1);
	struct queue_upload *upload;
	uint64_t id;

	spool_open(spool);
	upload = queue_upload_begin(spool->queue, NULL);
	id = queue_upload_id(upload);
	assert_int_equal(queue_upload_append(upload, SLICE("x")), 0);
	assert_int_equal(queue_upload_commit(&upload, &envelope, never_called, NULL), 0);
	assert_null(upload);
	queue_commit_forget(spool->queue, id);
	spool_settle(spool);
	spool_assert_content(spool, id, SLICE("x"));
	/* Aborted, nothing is left of it. */
	upload = queue_upload_begin(spool->queue, NULL);
	assert_int_equal(queue_upload_append(upload, slice_of(big, sizeof(big))), 0);
	queue_upload_abort(&upload);
	assert_null(upload);
	spool_settle(spool);
	spool_close(spool);
	spool_open(spool);
	assert_int_equal(spool->report.messages, 1);
}

static void an_envelope_that_cannot_be_kept_is_refused(void **state)
{
	static struct queue_recipient many[70000];
	struct spool *spool = *state;
	struct queue_recipient recipient;
	struct queue_envelope envelope = spool_envelope(spool, &recipient, 1);
	struct queue_upload *upload;

	spool_open(spool);
	upload = queue_upload_begin(spool->queue, NULL);
	envelope.recipient_count = 0;
	assert_int_equal(queue_upload_commit(&upload, &envelope, never_called, NULL), ERR_SYNTAX);
	assert_null(upload);
	/* More than a segment of recipients. */
	for (size_t i = 0; i < ARRAY_LEN(many); i++)
		many[i] = recipient;
	envelope.recipients = many;
	envelope.recipient_count = 6000;
	upload = queue_upload_begin(spool->queue, NULL);
	assert_int_equal(queue_upload_commit(&upload, &envelope, never_called, NULL), ERR_LIMIT);
	envelope.recipient_count = ARRAY_LEN(many);
	upload = queue_upload_begin(spool->queue, NULL);
	assert_int_equal(queue_upload_commit(&upload, &envelope, never_called, NULL), ERR_LIMIT);
	spool_settle(spool);
	assert_true(spool_submit(spool, 1, SLICE("still alive")) > 0);
}

/* However large the content is, an upload holds one piece of it. */
static void a_large_upload_stays_out_of_memory(void **state)
{
	struct spool *spool = *state;
	struct queue_upload *upload;
	struct queue_stats stats;

	spool->options.segment_bytes = 8 << 20;
	spool->options.piece_bytes = 0;
	spool_open(spool);
	upload = queue_upload_begin(spool->queue, NULL);
	for (int i = 0; i < 400; i++) {
		assert_int_equal(queue_upload_append(upload, slice_of(big, sizeof(big))), 0);
		clock_virtual_advance(&spool->clock, 10);
		queue_turn(spool->queue);
		queue_stats(spool->queue, &stats);
		assert_true(stats.unsynced_bytes < 256 * 1024);
	}
	assert_int_equal(queue_upload_bytes(upload), 400 * sizeof(big));
	queue_upload_abort(&upload);
	spool_settle(spool);
	queue_stats(spool->queue, &stats);
	assert_int_equal(stats.live_bytes, 0);
	assert_true(stats.journal_bytes <= 4u * (8 << 20));
}

/* ---- Looking ---- */

struct seen {
	uint64_t ids[300];
	uint32_t count;
	struct queue *queue;
};

static void see(void *ctx, const struct queue_brief *brief)
{
	struct seen *seen = ctx;

	seen->ids[seen->count++] = brief->id;
	/* The walk stands what happens meanwhile. */
	if (seen->count % 7 == 0)
		queue_delete(seen->queue, brief->id);
}

static void a_walk_sees_each_message_once(void **state)
{
	struct spool *spool = *state;
	struct seen seen = {0};
	struct queue_stats stats;
	uint64_t cursor = 0, total = 0;
	int steps = 0;

	spool_open(spool);
	for (int i = 0; i < 200; i++)
		spool_submit(spool, 1 + (size_t)i % 3, SLICE("x"));
	queue_stats(spool->queue, &stats);
	for (int i = 0; i < STATE_COUNT; i++)
		total += stats.messages[i];
	assert_int_equal(total, 200);
	assert_int_equal(stats.messages[STATE_READY], 200);
	assert_int_equal(stats.recipients[STATE_READY], 399);
	assert_int_equal(stats.oldest_arrived_wall[STATE_READY], SPOOL_WALL_MS);
	seen.queue = spool->queue;
	do {
		queue_iterate(spool->queue, &cursor, 16, see, &seen);
		steps++;
	} while (cursor != 0);
	assert_int_equal(seen.count, 200);
	assert_true(steps >= 12);
	for (uint32_t i = 0; i < seen.count; i++)
		for (uint32_t k = 0; k < i; k++)
			assert_true(seen.ids[i] != seen.ids[k]);
}

static void an_idle_queue_wants_nothing(void **state)
{
	struct spool *spool = *state;
	struct queue_stats before, after;

	spool_open(spool);
	spool_submit(spool, 1, SLICE("x"));
	spool_settle(spool);
	queue_stats(spool->queue, &before);
	for (int i = 0; i < 100; i++) {
		clock_virtual_advance(&spool->clock, 60000);
		queue_turn(spool->queue);
		assert_int_equal(queue_next_deadline_ms(spool->queue), INT64_MAX);
	}
	queue_stats(spool->queue, &after);
	assert_int_equal(after.written_bytes, before.written_bytes);
	assert_int_equal(after.syncs, before.syncs);
	assert_true(queue_is_synced(spool->queue));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_message_lives_from_upload_to_done, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_restart_keeps_messages_and_states, setup, teardown),
	    cmocka_unit_test_setup_teardown(draining_frees_segments_and_moves_stragglers, setup, teardown),
	    cmocka_unit_test_setup_teardown(holding_releasing_and_deleting, setup, teardown),
	    cmocka_unit_test_setup_teardown(what_is_given_back_comes_again, setup, teardown),
	    cmocka_unit_test_setup_teardown(lists_hold_messages_in_order_and_let_go_of_the_gone, setup, teardown),
	    cmocka_unit_test_setup_teardown(limits_stop_intake_and_resume_it, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_forgotten_committer_is_not_called, setup, teardown),
	    cmocka_unit_test_setup_teardown(an_envelope_that_cannot_be_kept_is_refused, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_large_upload_stays_out_of_memory, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_walk_sees_each_message_once, setup, teardown),
	    cmocka_unit_test_setup_teardown(an_idle_queue_wants_nothing, setup, teardown),
	};
	return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
