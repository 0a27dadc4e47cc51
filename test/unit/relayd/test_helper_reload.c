/* Helpers and their configuration: which keys and users they start with, and what a reload changes. */
#include "support_helper.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void after_a_reload_old_questions_get_the_old_key(void **state)
{
	struct rig *f = *state;
	struct config *fresh = rig_config(2, rig_domain_line("z.test", "ed2", "ed1"));
	struct question old[30], new;
	pid_t pids[PIDS_MAX];

	rig_signal_all(CRYPTO, SIGSTOP);
	for (int i = 0; i < 30; i++)
		rig_sign(f, &old[i], 0, 1); /* ed0; most of them wait */
	assert_int_equal(helpers_reload(f->helpers, fresh, NULL), 0);
	rig_sign(f, &new, 0, 1); /* ed1 */
	rig_turn_until(f, &new.answers, 1);
	assert_true(rig_is_signed_by(&new, 1));
	assert_int_equal(f->answers, 1);
	rig_signal_all(CRYPTO, SIGCONT);
	rig_turn_until(f, &f->answers, 31);
	for (int i = 0; i < 30; i++)
		assert_true(rig_is_signed_by(&old[i], 0));
	while (rig_find_helpers(CRYPTO, pids) > 2) {
		loop_turn(f->loop, 20);
		clock_virtual_advance(&f->clock, 20);
	}
	assert_int_equal(helpers_key_algorithm(f->helpers, 0, 0), DKIM_ED25519_SHA256);
	config_free(&fresh);
}

static void a_bad_reload_changes_nothing(void **state)
{
	struct rig *f = *state;
	struct config *bad = rig_config(2, rig_domain_line("z.test", "ed1", "missing"));
	struct question q;
	struct err err;
	pid_t pids[PIDS_MAX];

	assert_int_equal(helpers_reload(f->helpers, bad, &err), ERR_NOT_FOUND);
	assert_non_null(strstr(err.text, "missing"));
	assert_non_null(strstr(err.text, "z.test"));
	rig_sign(f, &q, 0, 1);
	rig_turn_until(f, &q.answers, 1);
	assert_true(rig_is_signed_by(&q, 0));
	while (rig_find_helpers(CRYPTO, pids) > 2) {
		loop_turn(f->loop, 20);
		clock_virtual_advance(&f->clock, 20);
	}
	config_free(&bad);
}

static void what_is_staged_serves_only_when_it_is_committed(void **state)
{
	struct rig *f = *state;
	struct config *fresh = rig_config(2, rig_domain_line("z.test", "ed2", "ed1"));
	struct question q;

	assert_int_equal(helpers_stage(f->helpers, fresh, NULL), 0);
	rig_sign(f, &q, 0, 1);
	rig_turn_until(f, &q.answers, 1);
	assert_true(rig_is_signed_by(&q, 0));
	helpers_unstage(f->helpers);
	helpers_commit(f->helpers); /* nothing */
	rig_sign(f, &q, 0, 1);
	rig_turn_until(f, &q.answers, 1);
	assert_true(rig_is_signed_by(&q, 0));
	assert_int_equal(helpers_stage(f->helpers, fresh, NULL), 0);
	helpers_commit(f->helpers);
	rig_sign(f, &q, 0, 1);
	rig_turn_until(f, &q.answers, 1);
	assert_true(rig_is_signed_by(&q, 1));
	config_free(&fresh);
}

static void a_replacement_must_have_the_same_keys(void **state)
{
	struct rig *f = *state;
	struct question q;
	pid_t pids[PIDS_MAX];

	assert_int_equal(rename(rig_in_top("ed0"), rig_in_top("away")), 0);
	assert_int_equal(rename(rig_in_top("ed1"), rig_in_top("ed0")), 0);
	assert_int_equal(rig_find_helpers(CRYPTO, pids), 2);
	rig_send_signal(pids[0], SIGKILL);
	while (helpers_count(f->helpers).replaced < 2)
		loop_turn(f->loop, 20);
	rig_assert_logged(f, "helper_key_changed");
	for (int i = 0; i < 5; i++) {
		rig_sign(f, &q, 0, 1);
		rig_turn_until(f, &q.answers, 1);
		assert_true(rig_is_signed_by(&q, 0));
	}
	assert_int_equal(rename(rig_in_top("ed0"), rig_in_top("ed1")), 0);
	assert_int_equal(rename(rig_in_top("away"), rig_in_top("ed0")), 0);
}

static void a_start_with_a_bad_users_file_says_where(void **state)
{
	struct rig *f = rig_new();
	int fd = open(rig_in_top("users.bad"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	struct err err;

	(void)state;
	assert_int_equal(write(fd, "app:plain text\n", 15), 15);
	close(fd);
	assert_int_equal(rename(rig_in_top("users"), rig_in_top("users.good")), 0);
	assert_int_equal(rename(rig_in_top("users.bad"), rig_in_top("users")), 0);
	for (unsigned helpers = 0; helpers < 3; helpers += 2) {
		f->config = rig_config(helpers, rig_domain_line("a.test", "ed0", NULL));
		assert_int_equal(rig_start(f, &err), -1);
		assert_int_equal(err.code, ERR_CONFIG);
		assert_non_null(strstr(err.text, "users:1:"));
		config_free(&f->config);
	}
	assert_int_equal(rename(rig_in_top("users.good"), rig_in_top("users")), 0);
	loop_free(&f->loop);
	log_free(&f->log);
	close(f->folder);
	free(f);
}

static void many_domains_keep_their_order(void **state)
{
	enum { DOMAINS = 70 }; /* more than fit in one packet of the report */
	struct rig *f = rig_new();
	struct buf text;
	struct question q;

	(void)state;
	buf_init(&text, 64 * 1024);
	for (int d = 0; d < DOMAINS; d++) {
		buf_printf(&text, "%sd%d.test: {s: %s}", d ? ", " : "", d, rig_in_top(d == 69 ? "ed2" : "ed0"));
	}
	buf_append_byte(&text, '\0');
	f->config = rig_config(2, buf_slice(&text).ptr);
	assert_int_equal(rig_start(f, NULL), 0);
	rig_sign(f, &q, 69, 0);
	rig_turn_until(f, &q.answers, 1);
	assert_true(rig_is_signed_by(&q, 2));
	buf_fini(&text);
	*state = f;
	rig_teardown(state);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
	    TEST(after_a_reload_old_questions_get_the_old_key),		TEST(a_bad_reload_changes_nothing),
	    TEST(what_is_staged_serves_only_when_it_is_committed),	TEST(a_replacement_must_have_the_same_keys),
	    cmocka_unit_test(a_start_with_a_bad_users_file_says_where), cmocka_unit_test(many_domains_keep_their_order),
	};
	return cmocka_run_group_tests_name("helpers, reload", tests, rig_group_setup, rig_group_teardown);
}
