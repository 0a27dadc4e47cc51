/* Helper processes: signatures and passwords, with and without processes; and what a helper is. */
#include "support_helper.h"

#include "relayd/sandbox.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- signatures and passwords; with and without processes ---- */

static void both_algorithms_sign(void **state)
{
	struct rig *f = *state;
	struct question rsa, ed;

	rig_sign(f, &rsa, 0, 0);
	rig_sign(f, &ed, 0, 1);
	assert_int_equal(f->answers, 0); /* never from inside */
	rig_turn_until(f, &f->answers, 2);
	assert_int_equal(rsa.result, 0);
	assert_int_equal(rsa.len, 128);
	assert_true(rig_is_signed_by(&ed, 0));
	assert_int_equal(helpers_key_algorithm(f->helpers, 0, 0), DKIM_RSA_SHA256);
	assert_int_equal(helpers_key_info(f->helpers, 0, 0).bits, 1024);
	assert_true(helpers_key_info(f->helpers, 0, 0).warnings & DKIM_KEY_SMALL);
	assert_int_equal(helpers_key_algorithm(f->helpers, 0, 1), DKIM_ED25519_SHA256);
}

/* RSA PKCS#1 v1.5 and Ed25519 have but one right signature. */
static void inline_and_helper_give_the_same(void **state)
{
	struct rig *f = *state, *inline_f = rig_new();
	struct question here[2], there[2];

	inline_f->config = rig_config(0, rig_domain_line("a.test", "rsa", "ed0"));
	assert_int_equal(rig_start(inline_f, NULL), 0);
	for (uint32_t key = 0; key < 2; key++) {
		rig_sign(inline_f, &here[key], 0, key);
		rig_sign(f, &there[key], 0, key);
	}
	rig_turn_until(inline_f, &inline_f->answers, 2);
	rig_turn_until(f, &f->answers, 2);
	for (int key = 0; key < 2; key++) {
		assert_int_equal(here[key].len, there[key].len);
		assert_memory_equal(here[key].data, there[key].data, here[key].len);
	}
	helpers_free(&inline_f->helpers);
	loop_free(&inline_f->loop);
	log_free(&inline_f->log);
	config_free(&inline_f->config);
	close(inline_f->folder);
	free(inline_f);
}

static void unknown_keys_are_not_found(void **state)
{
	struct rig *f = *state;
	struct question a, b, c;

	rig_sign(f, &a, 7, 0);
	rig_sign(f, &b, 0, 2);
	rig_sign(f, &c, UINT32_MAX, UINT32_MAX);
	rig_turn_until(f, &f->answers, 3);
	assert_int_equal(a.result, ERR_NOT_FOUND);
	assert_int_equal(b.result, ERR_NOT_FOUND);
	assert_int_equal(c.result, ERR_NOT_FOUND);
}

static void passwords_are_right_or_wrong(void **state)
{
	struct rig *f = *state;
	static char endless[64 * 1024];
	struct question good, person, wrong, nobody, empty, overlong;

	memset(endless, 'x', sizeof(endless) - 1);
	rig_check(f, &good, "app", rig_token);
	rig_check(f, &person, "person", "correct horse");
	rig_check(f, &wrong, "app", "correct horse");
	rig_check(f, &nobody, "nobody", rig_token);
	rig_check(f, &empty, "", "");
	rig_check(f, &overlong, "app", endless);
	assert_int_equal(f->answers, 0);
	rig_turn_until(f, &f->answers, 6);
	assert_int_equal(good.result, AUTH_GOOD);
	assert_true(slice_eq(slice_of(good.data, good.len), SLICE("from=@example.com:rate=100/m")));
	assert_int_equal(person.result, AUTH_GOOD);
	assert_int_equal(person.len, 0);
	assert_int_equal(wrong.result, AUTH_WRONG);
	assert_int_equal(nobody.result, AUTH_WRONG);
	assert_int_equal(empty.result, AUTH_WRONG);
	assert_int_equal(overlong.result, AUTH_WRONG);
	assert_int_equal(helpers_user_count(f->helpers), 3);
}

/* Cut options would allow more than the whole. */
static void long_options_arrive_whole(void **state)
{
	struct rig *f = *state;
	struct user_options *options;
	struct question q;

	rig_check(f, &q, "many", rig_token);
	rig_turn_until(f, &f->answers, 1);
	assert_int_equal(q.result, AUTH_GOOD);
	assert_true(q.len >= 7000);
	options = user_options_parse(slice_of(q.data, q.len), NULL);
	assert_non_null(options);
	assert_true(options->from.count > 150);
	user_options_free(&options);
}

static void a_cancelled_question_is_never_answered(void **state)
{
	struct rig *f = *state;
	struct question gone[20], last;
	uint64_t ids[20], none = 0, stale;

	for (int i = 0; i < 20; i++)
		ids[i] = rig_sign(f, &gone[i], 0, 0); /* some are with a helper, the others wait */
	stale = ids[0];
	for (int i = 0; i < 20; i++) {
		helpers_cancel(f->helpers, &ids[i]);
		assert_int_equal(ids[i], 0);
	}
	helpers_cancel(f->helpers, &none);
	rig_sign(f, &last, 0, 1);
	rig_turn_until(f, &last.answers, 1);
	for (int i = 0; i < 5; i++)
		loop_turn(f->loop, 0);
	assert_int_equal(f->answers, 1);
	helpers_cancel(f->helpers, &stale);
}

static void too_many_are_refused_and_the_rest_is_answered(void **state)
{
	enum { FLOOD = 5000 };
	struct rig *f = *state;
	struct question *flood = xcalloc(FLOOD, sizeof(*flood));
	unsigned refused = 0, good = 0;

	for (int i = 0; i < FLOOD; i++)
		rig_sign(f, &flood[i], 0, 1);
	rig_turn_until(f, &f->answers, FLOOD);
	for (int i = 0; i < FLOOD; i++) {
		assert_int_equal(flood[i].answers, 1);
		refused += flood[i].result == ERR_LIMIT;
		good += rig_is_signed_by(&flood[i], 0);
	}
	assert_true(refused > 0);
	assert_int_equal(refused + good, FLOOD);
	free(flood);
}

/* ---- what a helper is ---- */

static unsigned count_fds(pid_t pid)
{
	char path[64];
	struct dirent *entry;
	unsigned count = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir)))
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

static void a_helper_keeps_nothing_of_the_daemons(void **state)
{
	struct rig *f = *state;
	char path[64], status[4096];
	pid_t pids[PIDS_MAX], sync = rig_find_one(SYNC);
	struct question q;

	rig_sign(f, &q, 0, 1);
	f->disk->sync(f->disk->ctx, f->folder, 1);
	rig_turn_until(f, &q.answers, 1);
	rig_turn_until(f, &f->disk_answers, 1); /* both are settled in */
	assert_int_equal(rig_find_helpers(CRYPTO, pids), 2);
	if (geteuid() != 0)
		skip();				 /* it is not dumpable: only root can look */
	assert_int_equal(count_fds(pids[0]), 4); /* 0, 1, 2, socket */
	assert_int_equal(count_fds(sync), 5);	 /* and the journal's folder */
	snprintf(path, sizeof(path), "/proc/%d/status", (int)sync);
	rig_read_file(path, status, sizeof(status));
	assert_non_null(strstr(status, "NoNewPrivs:\t1"));
	if (!sandbox_is_sanitized())
		assert_non_null(strstr(status, "Seccomp:\t2"));
}

static void signals_of_the_group_do_not_end_it(void **state)
{
	struct rig *f = *state;
	struct question q;

	rig_signal_all(CRYPTO, SIGTERM);
	rig_signal_all(CRYPTO, SIGINT);
	rig_signal_all(CRYPTO, SIGHUP);
	rig_signal_all(SYNC, SIGTERM);
	rig_sign(f, &q, 0, 1);
	f->disk->sync(f->disk->ctx, f->folder, 1);
	rig_turn_until(f, &q.answers, 1);
	rig_turn_until(f, &f->disk_answers, 1);
	assert_int_equal(helpers_count(f->helpers).replaced, 0);
}

static void assert_it_dies(pid_t pid)
{
	int64_t until = rig_real_ms() + 10 * 1000;

	while (waitpid(pid, NULL, WNOHANG) == 0) {
		if (rig_real_ms() > until)
			rig_send_signal(pid, SIGKILL);
		assert_true(rig_real_ms() <= until);
		usleep(1000);
	}
}

/* In a process of its own, which is then killed: the helpers must go too, whatever they are doing, and nothing that
 * they inherited may live on. They are stopped, so that they don't see the closed socket. */
static void helpers_die_with_the_daemon(void **state)
{
	pid_t pids[PIDS_MAX] = {0}, daemon;
	int report[2], lock[2];
	unsigned count;
	char byte;

	(void)state;
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	assert_int_equal(pipe2(report, O_CLOEXEC), 0);
	assert_int_equal(pipe2(lock, O_CLOEXEC), 0); /* ends when nobody has its writing end any more */
	daemon = fork();
	assert_true(daemon >= 0);
	if (daemon == 0) {
		void *inner;
		rig_setup_with(&inner, 2);
		count = rig_find_helpers(CRYPTO, pids);
		pids[count++] = rig_find_one(SYNC);
		for (unsigned i = 0; i < count; i++)
			rig_send_signal(pids[i], SIGSTOP);
		if (write(report[1], pids, sizeof(pids)) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	close(lock[1]);
	assert_int_equal(read(report[0], pids, sizeof(pids)), sizeof(pids));
	rig_send_signal(daemon, SIGKILL);
	assert_int_equal(waitpid(daemon, NULL, 0), daemon);
	assert_int_equal(read(lock[0], &byte, 1), 0);
	for (int i = 0; i < 3; i++)
		assert_it_dies(pids[i]); /* ours now */
	close(lock[0]);
	close(report[0]);
	close(report[1]);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
#define TEST_INLINE(name) {#name "_inline", name, rig_setup_inline, rig_teardown, NULL}
	    TEST(both_algorithms_sign),
	    TEST_INLINE(both_algorithms_sign),
	    TEST(inline_and_helper_give_the_same),
	    TEST(unknown_keys_are_not_found),
	    TEST_INLINE(unknown_keys_are_not_found),
	    TEST(passwords_are_right_or_wrong),
	    TEST_INLINE(passwords_are_right_or_wrong),
	    TEST(long_options_arrive_whole),
	    TEST_INLINE(long_options_arrive_whole),
	    TEST(a_cancelled_question_is_never_answered),
	    TEST_INLINE(a_cancelled_question_is_never_answered),
	    TEST(too_many_are_refused_and_the_rest_is_answered),
	    TEST_INLINE(too_many_are_refused_and_the_rest_is_answered),
	    TEST(a_helper_keeps_nothing_of_the_daemons),
	    TEST(signals_of_the_group_do_not_end_it),
	    cmocka_unit_test(helpers_die_with_the_daemon),
	};
	return cmocka_run_group_tests_name("helpers", tests, rig_group_setup, rig_group_teardown);
}
