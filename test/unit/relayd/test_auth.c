/* Password checks: what is remembered, what is slowed down, what is shut out; in virtual time, with a helper that
 * answers when the test says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHECKS_MAX = 256 };

static const char options_text[] = "from=@example.org";
static const struct slice local = {"\x7f\0\0\1", 4};

struct check {
	auth_cb *cb;
	void *ctx;
	char user[32], password[32];
};

struct answer {
	unsigned count;
	enum auth_verdict verdict;
	char options[64];
	int64_t at_ms;
};

static struct clock_virtual clock_now;
static struct loop *loop;
static struct auth *auth;
static struct rng_seeded rng;
static struct check checks[CHECKS_MAX];
static unsigned check_count, answered;

static void verify(void *ctx, struct slice user, struct slice password, auth_cb *cb, void *cb_ctx)
{
	struct check *check = &checks[check_count++];

	(void)ctx;
	assert_true(check_count <= CHECKS_MAX);
	*check = (struct check){.cb = cb, .ctx = cb_ctx};
	slice_to_cstr(user, check->user, sizeof(check->user));
	slice_to_cstr(password, check->password, sizeof(check->password));
}

static int setup(void **state)
{
	struct auth_backend backend = {NULL, verify};

	(void)state;
	check_count = answered = 0;
	clock_virtual_init(&clock_now, 1790000000000);
	rng_seeded_init(&rng, 3);
	loop = loop_new(&clock_now.clock);
	auth = auth_new(loop, &rng.rng, &backend);
	loop_turn(loop, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	auth_free(&auth);
	loop_free(&loop);
	return 0;
}

static void on_answer(void *ctx, enum auth_verdict verdict, struct slice options)
{
	struct answer *answer = ctx;

	answer->count++;
	answer->verdict = verdict;
	slice_to_cstr(options, answer->options, sizeof(answer->options));
	answer->at_ms = clock_mono_ms(&clock_now.clock);
}

static void pass(int64_t ms)
{
	int64_t until = clock_now.mono + ms;

	do {
		int64_t next;
		loop_turn(loop, 0);
		next = loop_next_at_ms(loop);
		clock_virtual_advance(&clock_now, MIN(MAX(next, clock_now.mono + 1), until) - clock_now.mono);
	} while (clock_now.mono < until);
	loop_turn(loop, 0);
}

static uint64_t ask_from(struct slice octets, const char *user, const char *password, struct answer *answer)
{
	struct dns_address address = {.family = octets.len == 4 ? DNS_IPV4 : DNS_IPV6};

	*answer = (struct answer){0};
	memcpy(address.bytes, octets.ptr, octets.len);
	return auth_check(auth, &address, slice_of_str(user), slice_of_str(password), on_answer, answer);
}

/* The helper's answer to the oldest check that it has not answered. */
static void helper_says(enum auth_verdict verdict)
{
	struct check *check = &checks[answered++];

	assert_true(answered <= check_count);
	check->cb(check->ctx, verdict, verdict == AUTH_GOOD ? slice_of_str(options_text) : SLICE(""));
}

/* How long the answer to a wrong password takes. */
static int64_t fail_from(struct slice address)
{
	struct answer answer;
	int64_t began = clock_now.mono;

	ask_from(address, "app", "wrong", &answer);
	helper_says(AUTH_WRONG);
	pass(60 * 1000);
	assert_int_equal(answer.count, 1);
	assert_int_equal(answer.verdict, AUTH_WRONG);
	return answer.at_ms - began;
}

static void a_good_password_is_good_and_brings_its_options(void **state)
{
	struct answer answer;

	(void)state;
	ask_from(local, "app", "secret", &answer);
	assert_int_equal(check_count, 1);
	assert_string_equal(checks[0].user, "app");
	assert_string_equal(checks[0].password, "secret");
	pass(100);
	assert_int_equal(answer.count, 0);
	helper_says(AUTH_GOOD);
	assert_int_equal(answer.count, 0); /* never from inside */
	pass(1);
	assert_int_equal(answer.count, 1);
	assert_int_equal(answer.verdict, AUTH_GOOD);
	assert_string_equal(answer.options, options_text);
}

static void it_is_remembered_for_ten_minutes(void **state)
{
	struct answer answer;

	(void)state;
	ask_from(local, "app", "secret", &answer);
	helper_says(AUTH_GOOD);
	pass(10 * 60 * 1000 - 10);
	ask_from(local, "app", "secret", &answer);
	assert_int_equal(answer.count, 0);
	pass(1);
	assert_int_equal(answer.verdict, AUTH_GOOD);
	assert_string_equal(answer.options, options_text);
	assert_int_equal(check_count, 1);
	pass(10);
	ask_from(local, "app", "secret", &answer); /* being used does not prolong it */
	assert_int_equal(check_count, 2);
	helper_says(AUTH_GOOD);
}

static void only_the_very_same_is_remembered(void **state)
{
	struct answer answer;

	(void)state;
	ask_from(local, "ab", "cd", &answer);
	helper_says(AUTH_GOOD);
	pass(1);
	ask_from(local, "a", "bcd", &answer);
	ask_from(local, "abc", "d", &answer);
	ask_from(local, "ab", "cD", &answer);
	ask_from(local, "ab", "", &answer);
	ask_from(local, "", "abcd", &answer);
	while (answered < check_count)
		helper_says(AUTH_LATER);
	assert_int_equal(check_count, 6);
	pass(1);
}

static void new_users_make_it_forget(void **state)
{
	struct answer answer;

	(void)state;
	ask_from(local, "app", "secret", &answer);
	helper_says(AUTH_GOOD);
	pass(1);
	auth_forget(auth);
	ask_from(local, "app", "secret", &answer);
	assert_int_equal(check_count, 2);
	helper_says(AUTH_WRONG);
	pass(1000);
	assert_int_equal(answer.verdict, AUTH_WRONG);
}

/* A check that began with the old users must not be remembered with the new ones. */
static void an_answer_of_the_old_users_is_not_remembered(void **state)
{
	struct answer answer;

	(void)state;
	ask_from(local, "app", "secret", &answer);
	auth_forget(auth);
	helper_says(AUTH_GOOD);
	pass(1);
	assert_int_equal(answer.verdict, AUTH_GOOD);
	ask_from(local, "app", "secret", &answer);
	assert_int_equal(check_count, 2);
	helper_says(AUTH_WRONG);
	pass(1000);
}

static void what_cannot_be_checked_is_neither_remembered_nor_counted(void **state)
{
	struct answer answer;

	(void)state;
	for (int i = 0; i < 30; i++) {
		ask_from(local, "app", "secret", &answer);
		helper_says(AUTH_LATER);
		pass(1);
		assert_int_equal(answer.count, 1);
		assert_int_equal(answer.verdict, AUTH_LATER);
	}
	assert_int_equal(check_count, 30);
}

static void failures_are_answered_ever_slower(void **state)
{
	static const int64_t delays[] = {250, 500, 1000, 2000, 4000, 4000, 4000};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(delays); i++)
		assert_int_equal(fail_from(local), delays[i]);
}

static void ten_failures_shut_an_address_out_for_a_minute(void **state)
{
	struct answer answer;

	(void)state;
	for (int i = 0; i < 10; i++) {
		ask_from(local, "app", "wrong", &answer);
		helper_says(AUTH_WRONG);
		pass(4000);
	}
	assert_int_equal(check_count, 10);
	ask_from(local, "app", "secret", &answer);
	pass(1);
	assert_int_equal(answer.verdict, AUTH_SHUT_OUT);
	assert_int_equal(check_count, 10); /* the helper is not asked */
	pass(60 * 1000);
	ask_from(local, "app", "secret", &answer);
	assert_int_equal(check_count, 11);
	helper_says(AUTH_GOOD);
	pass(1);
	assert_int_equal(answer.verdict, AUTH_GOOD);
}

/* A hundred guesses at once are not a way around it. */
static void guesses_at_the_same_time_count_one_by_one(void **state)
{
	enum { GUESSES = 100 };
	static struct answer answers[GUESSES];
	struct answer answer;

	(void)state;
	for (int i = 0; i < GUESSES; i++)
		ask_from(local, "app", "wrong", &answers[i]);
	while (answered < check_count)
		helper_says(AUTH_WRONG);
	ask_from(local, "app", "wrong", &answer);
	pass(5000);
	assert_int_equal(answer.verdict, AUTH_SHUT_OUT);
	for (int i = 0; i < GUESSES; i++)
		assert_int_equal(answers[i].count, 1);
}

/* E16: a crowd at one address neither fills the helpers' line nor gets a hundred guesses through. */
static void of_an_address_four_are_checked_at_a_time(void **state)
{
	enum { CROWD = 20 };
	static const struct slice other = {"\x7f\0\0\2", 4};
	static struct answer answers[CROWD];
	struct answer somebody;
	uint64_t ids[CROWD];

	(void)state;
	for (int i = 0; i < CROWD; i++) {
		char password[16];
		snprintf(password, sizeof(password), "guess %d", i);
		ids[i] = ask_from(local, "app", password, &answers[i]);
	}
	assert_int_equal(check_count, 4);
	ask_from(other, "app", "secret", &somebody);
	assert_int_equal(check_count, 5);
	auth_cancel(auth, &ids[4]); /* it has not come so far */
	helper_says(AUTH_WRONG);
	assert_int_equal(check_count, 6);
	assert_string_equal(checks[5].password, "guess 5");
	while (answered < check_count)
		helper_says(AUTH_LATER);
	assert_int_equal(check_count, CROWD); /* none failed any more, so all but the cancelled had their turn */
	pass(5000);
	for (int i = 0; i < CROWD; i++)
		assert_int_equal(answers[i].count, i != 4);
}

static void those_behind_ten_guesses_are_shut_out_without_a_check(void **state)
{
	enum { CROWD = 40 };
	static struct answer answers[CROWD];
	unsigned shut_out = 0;

	(void)state;
	for (int i = 0; i < CROWD; i++)
		ask_from(local, "app", i == CROWD - 1 ? "remembered" : "guess", &answers[i]);
	while (answered < check_count)
		helper_says(AUTH_WRONG);
	pass(5000);
	for (int i = 0; i < CROWD; i++) {
		assert_int_equal(answers[i].count, 1);
		shut_out += answers[i].verdict == AUTH_SHUT_OUT;
	}
	assert_int_equal(check_count, 13); /* ten, and those that were being checked */
	assert_int_equal(shut_out, CROWD - 13);
}

static void who_waits_hears_at_once_when_the_password_has_become_known(void **state)
{
	static struct answer answers[6];

	(void)state;
	for (int i = 0; i < 6; i++)
		ask_from(local, "app", "secret", &answers[i]);
	helper_says(AUTH_GOOD);
	pass(1);
	assert_int_equal(check_count, 4);
	assert_int_equal(answers[4].verdict, AUTH_GOOD);
	assert_int_equal(answers[5].count, 1);
	assert_string_equal(answers[5].options, options_text);
	while (answered < check_count)
		helper_says(AUTH_GOOD);
	pass(1);
}

static void who_hangs_up_has_failed_all_the_same(void **state)
{
	struct answer answer;
	uint64_t id;

	(void)state;
	for (int i = 0; i < 10; i++) {
		id = ask_from(local, "app", "wrong", &answer);
		auth_cancel(auth, &id);
		assert_int_equal(id, 0);
		helper_says(AUTH_WRONG);
	}
	assert_int_equal(answer.count, 0);
	ask_from(local, "app", "wrong", &answer);
	pass(1);
	assert_int_equal(answer.verdict, AUTH_SHUT_OUT);
}

static void others_are_not_shut_out_with_it(void **state)
{
	static const struct slice other = {"\x7f\0\0\2", 4};
	struct answer answer;

	(void)state;
	for (int i = 0; i < 10; i++)
		fail_from(local);
	assert_int_equal(fail_from(other), 250);
	/* Nor is a client whose password is remembered, behind the same address. */
	ask_from(other, "app", "secret", &answer);
	helper_says(AUTH_GOOD);
	pass(1);
	for (int i = 0; i < 10; i++) {
		ask_from(local, "app", "wrong", &answer);
		helper_says(AUTH_WRONG);
	}
	pass(5000);
	ask_from(local, "app", "secret", &answer);
	pass(1);
	assert_int_equal(answer.verdict, AUTH_GOOD);
}

static void an_ipv6_client_is_its_64(void **state)
{
	static const struct slice one = {"\x20\x01\x0d\xb8\0\0\0\1\0\0\0\0\0\0\0\1", 16},
				  same = {"\x20\x01\x0d\xb8\0\0\0\1\xff\xff\xff\xff\xff\xff\xff\xff", 16},
				  other = {"\x20\x01\x0d\xb8\0\0\0\2\0\0\0\0\0\0\0\1", 16};

	(void)state;
	fail_from(one);
	assert_int_equal(fail_from(same), 500);
	assert_int_equal(fail_from(other), 250);
}

/* As a dual-stack socket tells them. */
static void ipv4_in_ipv6_is_that_ipv4_address(void **state)
{
	static const struct slice one = {"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1", 16},
				  other = {"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\2", 16}, plain = {"\xc0\0\2\1", 4};

	(void)state;
	fail_from(one);
	assert_int_equal(fail_from(other), 250);
	assert_int_equal(fail_from(plain), 500);
}

static void a_success_forgives(void **state)
{
	struct answer answer;

	(void)state;
	for (int i = 0; i < 5; i++)
		fail_from(local);
	ask_from(local, "app", "secret", &answer);
	helper_says(AUTH_GOOD);
	pass(1);
	assert_int_equal(fail_from(local), 250);
}

static void ten_quiet_minutes_forgive_too(void **state)
{
	(void)state;
	for (int i = 0; i < 5; i++)
		fail_from(local);
	pass(10 * 60 * 1000);
	assert_int_equal(fail_from(local), 250);
}

static void cancelled_requests_are_silent(void **state)
{
	struct answer answer;
	uint64_t id, none = 0;

	(void)state;
	auth_cancel(auth, &none);
	id = ask_from(local, "app", "secret", &answer);
	helper_says(AUTH_GOOD);
	auth_cancel(auth, &id); /* the answer was on its way */
	pass(1000);
	assert_int_equal(answer.count, 0);
	id = ask_from(local, "app", "secret", &answer);
	pass(1);
	assert_int_equal(answer.count, 1);
	auth_cancel(auth, &id); /* it has come */
}

static void memory_is_bounded(void **state)
{
	char user[32], address[4];
	struct answer answer;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		snprintf(user, sizeof(user), "user%d", i);
		ask_from(local, user, "secret", &answer);
		check_count = answered = 0;
		checks[0].cb(checks[0].ctx, AUTH_GOOD, SLICE(""));
		pass(1);
	}
	ask_from(local, "user2999", "secret", &answer); /* the latest are still known */
	pass(1);
	assert_int_equal(check_count, 0);
	assert_int_equal(answer.verdict, AUTH_GOOD);
	ask_from(local, "user0", "secret", &answer); /* the first not */
	assert_int_equal(check_count, 1);
	helper_says(AUTH_GOOD);
	pass(1);
	for (uint32_t i = 0; i < 5000; i++) {
		memcpy(address, &i, 4);
		check_count = answered = 0;
		ask_from(slice_of(address, 4), "app", "wrong", &answer);
		helper_says(AUTH_WRONG);
		pass(250);
	}
	assert_int_equal(answer.count, 1);
}

static void verdicts_have_names(void **state)
{
	(void)state;
	assert_string_equal(auth_verdict_name(AUTH_GOOD), "ok");
	assert_string_equal(auth_verdict_name(AUTH_WRONG), "failed");
	assert_string_equal(auth_verdict_name(AUTH_LATER), "error");
	assert_string_equal(auth_verdict_name(AUTH_SHUT_OUT), "blocked");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_good_password_is_good_and_brings_its_options),
	    TEST(it_is_remembered_for_ten_minutes),
	    TEST(only_the_very_same_is_remembered),
	    TEST(new_users_make_it_forget),
	    TEST(an_answer_of_the_old_users_is_not_remembered),
	    TEST(what_cannot_be_checked_is_neither_remembered_nor_counted),
	    TEST(failures_are_answered_ever_slower),
	    TEST(ten_failures_shut_an_address_out_for_a_minute),
	    TEST(guesses_at_the_same_time_count_one_by_one),
	    TEST(of_an_address_four_are_checked_at_a_time),
	    TEST(those_behind_ten_guesses_are_shut_out_without_a_check),
	    TEST(who_waits_hears_at_once_when_the_password_has_become_known),
	    TEST(who_hangs_up_has_failed_all_the_same),
	    TEST(others_are_not_shut_out_with_it),
	    TEST(an_ipv6_client_is_its_64),
	    TEST(ipv4_in_ipv6_is_that_ipv4_address),
	    TEST(a_success_forgives),
	    TEST(ten_quiet_minutes_forgive_too),
	    TEST(cancelled_requests_are_silent),
	    TEST(memory_is_bounded),
	    TEST(verdicts_have_names),
	};
	return cmocka_run_group_tests_name("auth", tests, NULL, NULL);
}
