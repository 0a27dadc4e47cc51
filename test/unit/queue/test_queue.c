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
	uint64_t keep, ids[400];

	spool_open(spool);
	keep = spool_submit(spool, 2, slice_of(big, 30000));
	assert_int_equal(spool_take_all(spool), 2);
	spool_result(spool, keep, 1, OUTCOME_DEFERRED, SPOOL_WALL_MS + 60000000);
	for (int round = 0; round < 10; round++) {
		for (size_t i = 0; i < ARRAY_LEN(ids); i++)
			ids[i] = spool_submit(spool, 1, slice_of(big + i, 3000));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_message_lives_from_upload_to_done, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_restart_keeps_messages_and_states, setup, teardown),
	    cmocka_unit_test_setup_teardown(draining_frees_segments_and_moves_stragglers, setup, teardown),
	};
	return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
