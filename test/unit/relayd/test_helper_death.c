/* Helpers that die or fall silent: who does their work, and what waits for whom meanwhile. */
#include "support_helper.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void the_work_of_a_killed_helper_is_done_by_another(void **state)
{
	enum { COUNT = 40 };
	struct rig *f = *state;
	struct question questions[COUNT];

	rig_signal_all(CRYPTO, SIGSTOP); /* in the middle of work, for certain */
	for (int i = 0; i < COUNT; i++)
		rig_sign(f, &questions[i], 0, 1);
	rig_signal_all(CRYPTO, SIGKILL);
	rig_turn_until(f, &f->answers, COUNT);
	for (int i = 0; i < COUNT; i++)
		assert_true(rig_is_signed_by(&questions[i], 0));
	assert_int_equal(helpers_count(f->helpers).replaced, 2);
	rig_assert_logged(f, "helper_ended");
}

/* A stopped helper that is ready: it runs only while nobody listens to it, so it never gets hold of a request. */
static pid_t await_stopped(struct rig *f)
{
	pid_t pids[PIDS_MAX];
	int status;

	while (rig_find_helpers(CRYPTO, pids) != 1)
		loop_turn(f->loop, 0); /* it is being forked; nothing is ready meanwhile */
	do {
		rig_send_signal(pids[0], SIGCONT);
		usleep(2000);
		rig_send_signal(pids[0], SIGSTOP);
		assert_int_equal(waitpid(pids[0], &status, WUNTRACED), pids[0]);
		assert_true(WIFSTOPPED(status));
		loop_turn(f->loop, 0);
	} while (helpers_count(f->helpers).ready == 0);
	return pids[0];
}

static void a_request_that_takes_three_helpers_along_is_given_up(void **state)
{
	struct rig *f = *state;
	struct question q;
	pid_t pid = await_stopped(f);

	rig_sign(f, &q, 0, 1);
	for (unsigned death = 1; death <= 3; death++) {
		assert_int_equal(q.answers, 0);
		rig_send_signal(pid, SIGKILL);
		while (helpers_count(f->helpers).replaced < death)
			loop_turn(f->loop, 0);
		clock_virtual_advance(&f->clock, 2000); /* over the pause */
		if (death < 3)
			pid = await_stopped(f);
	}
	rig_turn_until(f, &q.answers, 1);
	assert_int_equal(q.result, ERR_TEMPORARY);
}

static void helpers_that_die_at_once_are_not_replaced_without_end(void **state)
{
	struct rig *f = *state;
	unsigned replaced;

	assert_int_equal(rename(rig_in_top("ed0"), rig_in_top("away")), 0);
	rig_signal_all(CRYPTO, SIGKILL);
	while (helpers_count(f->helpers).replaced < 3 || helpers_count(f->helpers).ready > 0)
		loop_turn(f->loop, 20);
	/* The clock stands: the pause is not over. */
	for (int i = 0; i < 10; i++)
		loop_turn(f->loop, 5);
	replaced = helpers_count(f->helpers).replaced;
	assert_true(replaced <= 6);
	rig_assert_logged(f, "helper_failed");
	rig_assert_logged(f, "ed0");
	assert_int_equal(rename(rig_in_top("away"), rig_in_top("ed0")), 0);
	clock_virtual_advance(&f->clock, 60 * 1000);
	while (helpers_count(f->helpers).ready < 2) {
		loop_turn(f->loop, 20);
		clock_virtual_advance(&f->clock, 1000);
	}
}

static void a_silent_helper_is_killed_and_its_work_done_by_another(void **state)
{
	struct rig *f = *state;
	struct question a, b;

	rig_signal_all(CRYPTO, SIGSTOP);
	rig_sign(f, &a, 0, 1);
	rig_sign(f, &b, 0, 1);
	loop_turn(f->loop, 0);
	assert_int_equal(f->answers, 0);
	for (int seconds = 0; seconds < 40; seconds += 5) {
		clock_virtual_advance(&f->clock, 5000);
		loop_turn(f->loop, 0);
	}
	rig_turn_until(f, &f->answers, 2);
	assert_true(rig_is_signed_by(&a, 0) && rig_is_signed_by(&b, 0));
	rig_assert_logged(f, "helper_silent");
}

/* Both are stopped, then one goes on: what can be answered then? With a check at each, or with a signature behind a
 * check, no signature could come first whichever goes on. */
static void a_password_never_takes_the_last_free_helper(void **state)
{
	struct rig *f = *state;
	struct question first, second, signature;
	bool came_first = false;
	pid_t pids[PIDS_MAX];

	for (unsigned goes_on = 0; goes_on < 2; goes_on++) {
		unsigned before = f->answers;
		assert_int_equal(rig_find_helpers(CRYPTO, pids), 2);
		rig_signal_all(CRYPTO, SIGSTOP);
		rig_check(f, &first, "person", "correct horse");
		rig_check(f, &second, "person", "correct horse");
		rig_sign(f, &signature, 0, 1);
		rig_send_signal(pids[goes_on], SIGCONT);
		rig_turn_until(f, &f->answers, before + 1);
		came_first |= signature.answers == 1 && first.answers + second.answers == 0;
		rig_signal_all(CRYPTO, SIGCONT);
		rig_turn_until(f, &f->answers, before + 3);
	}
	assert_true(came_first);
}

static void signatures_wait_rather_than_queue_behind_a_password(void **state)
{
	enum { SIGNATURES = 40 };
	struct rig *f = *state;
	struct question password, signatures[SIGNATURES];
	unsigned waiting;

	rig_signal_all(CRYPTO, SIGSTOP);
	for (int i = 0; i < SIGNATURES; i++)
		rig_sign(f, &signatures[i], 0, 1);
	waiting = helpers_count(f->helpers).waiting;
	assert_true(waiting > 0 && waiting < SIGNATURES);
	rig_signal_all(CRYPTO, SIGCONT);
	rig_turn_until(f, &f->answers, SIGNATURES);

	rig_signal_all(CRYPTO, SIGSTOP);
	rig_check(f, &password, "person", "correct horse");
	for (int i = 0; i < SIGNATURES; i++)
		rig_sign(f, &signatures[i], 0, 1);
	/* With both they had so many places; now they have those of one. */
	assert_int_equal(helpers_count(f->helpers).waiting - waiting, (SIGNATURES - waiting) / 2);
	rig_signal_all(CRYPTO, SIGCONT);
	rig_turn_until(f, &f->answers, 2 * SIGNATURES + 1);
}

static void one_helper_alone_does_everything(void **state)
{
	struct rig *f = *state;
	struct question password, signature;

	rig_check(f, &password, "person", "correct horse");
	rig_sign(f, &signature, 0, 1);
	rig_turn_until(f, &f->answers, 2);
	assert_int_equal(password.result, AUTH_GOOD);
	assert_true(rig_is_signed_by(&signature, 0));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
#define TEST_ONE(name) cmocka_unit_test_setup_teardown(name, rig_setup_one, rig_teardown)
	    TEST(the_work_of_a_killed_helper_is_done_by_another),
	    TEST_ONE(a_request_that_takes_three_helpers_along_is_given_up),
	    TEST(helpers_that_die_at_once_are_not_replaced_without_end),
	    TEST(a_silent_helper_is_killed_and_its_work_done_by_another),
	    TEST(a_password_never_takes_the_last_free_helper),
	    TEST(signatures_wait_rather_than_queue_behind_a_password),
	    TEST_ONE(one_helper_alone_does_everything),
	};
	return cmocka_run_group_tests_name("helpers, death", tests, rig_group_setup, rig_group_teardown);
}
