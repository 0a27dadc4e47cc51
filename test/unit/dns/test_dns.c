/* Questions: joined, queued, cancelled, followed, cached; in virtual time, with a zone that answers. */
#include "support_dns.h"

#include <stdio.h>
#include <stdlib.h>

enum { SECOND = 1000 };

static struct env *env;

static int teardown(void **state)
{
	(void)state;
	if (env)
		env_free(&env);
	return 0;
}

struct got {
	int calls;
	enum dns_status status;
	const struct dns_answer *answer;
};

static void on_got(void *ctx, const struct dns_answer *answer)
{
	struct got *got = ctx;

	got->calls++;
	got->status = answer->status;
	dns_answer_unref(&got->answer);
	got->answer = dns_answer_ref(answer);
}

static void done(struct got *got)
{
	dns_answer_unref(&got->answer);
	*got = (struct got){0};
}

/* Asks, waits for the answer. */
static struct got ask(const char *name, uint16_t type)
{
	struct got got = {0};

	assert_true(dns_query(env->dns, name, type, on_got, &got) != 0);
	assert_int_equal(got.calls, 0);
	env_run(env);
	assert_int_equal(got.calls, 1);
	return got;
}

static void an_answer_comes_later_and_once(void **state)
{
	struct got got;

	(void)state;
	env = env_new("example.org MX 10 mx.example.org");
	got = ask("Example.ORG.", DNS_MX);
	assert_int_equal(got.status, DNS_OK);
	assert_string_equal(got.answer->records[0].mx.host, "mx.example.org");
	assert_string_equal(got.answer->name, "example.org");
	env_advance(env, 60 * SECOND);
	assert_int_equal(got.calls, 1);
	done(&got);
}

static void the_cache_answers_in_the_next_turn(void **state)
{
	struct dns_counts counts;
	struct got got;

	(void)state;
	env = env_new("example.org MX 10 mx.example.org");
	for (int i = 0; i < 3; i++) {
		got = ask("example.org", DNS_MX);
		done(&got);
	}
	dns_count(env->dns, &counts);
	assert_int_equal(counts.asked, 1);
	assert_int_equal(counts.answered, 1);
	assert_int_equal(counts.cache_hits, 2);
	assert_int_equal(counts.cached, 1);
	env_advance(env, 300 * SECOND);
	got = ask("example.org", DNS_MX);
	done(&got);
	assert_int_equal(env_count_asked(env, "example.org", DNS_MX), 2);
	dns_flush(env->dns);
	got = ask("example.org", DNS_MX);
	done(&got);
	assert_int_equal(env_count_asked(env, "example.org", DNS_MX), 3);
}

static void equal_questions_are_joined(void **state)
{
	struct got got[3] = {{0}};
	struct dns_counts counts;

	(void)state;
	env = env_new("example.org MX 10 mx.example.org");
	env->is_held = true;
	for (int i = 0; i < 3; i++)
		dns_query(env->dns, i ? "EXAMPLE.org" : "example.org", DNS_MX, on_got, &got[i]);
	env_run(env);
	assert_int_equal(env->asked_count, 1);
	env_answer_held(env);
	env_run(env);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(got[i].calls, 1);
		done(&got[i]);
	}
	dns_count(env->dns, &counts);
	assert_int_equal(counts.joined, 2);
	assert_int_equal(counts.inflight, 0);
}

static void impossible_names_do_not_exist(void **state)
{
	struct got got;

	(void)state;
	env = env_new("");
	got = ask("a..b", DNS_MX);
	assert_int_equal(got.status, DNS_NXDOMAIN);
	assert_string_equal(got.answer->reason, "not a possible domain name");
	assert_int_equal(env->asked_count, 0);
	done(&got);
}

static void cancelled_in_each_state_nothing_comes(void **state)
{
	struct got got = {0};
	uint64_t id, other;

	(void)state;
	env = env_new("example.org MX 10 mx.example.org");
	env->is_held = true;
	/* On the way. */
	id = dns_query(env->dns, "example.org", DNS_MX, on_got, &got);
	other = id;
	dns_cancel(env->dns, &id);
	assert_int_equal(id, 0);
	env_answer_held(env);
	env_run(env);
	/* Twice, and 0: harmless. */
	dns_cancel(env->dns, &other);
	dns_cancel(env->dns, &id);
	/* It has answered, but nobody was told yet; and answered by the cache. */
	env->is_held = false;
	dns_flush(env->dns);
	id = dns_query(env->dns, "example.org", DNS_MX, on_got, &got);
	dns_cancel(env->dns, &id);
	env_run(env);
	id = dns_query(env->dns, "example.org", DNS_MX, on_got, &got);
	dns_cancel(env->dns, &id);
	env_run(env);
	/* An impossible name. */
	id = dns_query(env->dns, "a..b", DNS_MX, on_got, &got);
	dns_cancel(env->dns, &id);
	env_run(env);
	assert_int_equal(got.calls, 0);
}

static void one_of_two_that_share_a_question_may_leave(void **state)
{
	struct got first = {0}, second = {0};
	uint64_t id;

	(void)state;
	env = env_new("example.org MX 10 mx.example.org");
	env->is_held = true;
	id = dns_query(env->dns, "example.org", DNS_MX, on_got, &first);
	dns_query(env->dns, "example.org", DNS_MX, on_got, &second);
	dns_cancel(env->dns, &id);
	env_answer_held(env);
	env_run(env);
	assert_int_equal(first.calls, 0);
	assert_int_equal(second.calls, 1);
	done(&second);
}

struct pair {
	struct got got;
	uint64_t other;
};

static void on_cancel_other(void *ctx, const struct dns_answer *answer)
{
	struct pair *pair = ctx;

	on_got(&pair->got, answer);
	dns_cancel(env->dns, &pair->other);
}

/* Both answers are there in the same turn: whoever is told first takes the other back. */
static void a_callback_may_cancel_its_neighbour(void **state)
{
	struct pair a = {{0}, 0}, b = {{0}, 0};

	(void)state;
	env = env_new("example.org MX 10 mx.example.org");
	b.other = dns_query(env->dns, "example.org", DNS_MX, on_cancel_other, &a);
	a.other = dns_query(env->dns, "example.org", DNS_A, on_cancel_other, &b);
	env_run(env);
	assert_int_equal(a.got.calls + b.got.calls, 1);
	done(&a.got);
	done(&b.got);
}

struct again {
	int calls;
};

static void on_ask_again(void *ctx, const struct dns_answer *answer)
{
	struct again *again = ctx;

	(void)answer;
	if (++again->calls < 5)
		dns_query(env->dns, "example.org", again->calls < 3 ? DNS_MX : DNS_A, on_ask_again, again);
}

static void a_callback_may_ask(void **state)
{
	struct again again = {0};

	(void)state;
	env = env_new("example.org MX 10 mx.example.org");
	dns_query(env->dns, "example.org", DNS_MX, on_ask_again, &again);
	env_run(env);
	assert_int_equal(again.calls, 5);
}

enum { MANY = 600 };

static void more_than_256_wait_in_order(void **state)
{
	static struct got got[MANY];
	static uint64_t ids[MANY];
	struct dns_counts counts;
	char name[32];

	(void)state;
	env = env_new("");
	env->is_held = true;
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "n%d.example", i);
		ids[i] = dns_query(env->dns, name, DNS_A, on_got, &got[i]);
	}
	env_run(env);
	dns_count(env->dns, &counts);
	assert_int_equal(counts.inflight, 256);
	assert_int_equal(counts.waiting, MANY - 256);
	assert_int_equal(env->asked_count, 256);
	/* One that waits is cancelled: never asked. */
	dns_cancel(env->dns, &ids[300]);
	env_answer_held(env);
	env_run(env);
	assert_string_equal(env->asked[256].name, "n256.example");
	env_answer_held(env);
	env_run(env);
	env_answer_held(env);
	env_run(env);
	assert_int_equal(env_count_asked(env, "n300.example", DNS_A), 0);
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(got[i].calls, i == 300 ? 0 : 1);
		done(&got[i]);
	}
	dns_count(env->dns, &counts);
	assert_int_equal(counts.inflight, 0);
	assert_int_equal(counts.waiting, 0);
}

/* Domains whose servers are silent: others wait two seconds for them, and not until each of them has run out of time. */
static void silent_domains_hold_up_no_other_for_long(void **state)
{
	struct dns_counts counts;
	struct got got = {0};
	char name[32];
	int asked;

	(void)state;
	env = env_new("");
	env->is_held = true;
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "n%d.silent", i);
		dns_query(env->dns, name, DNS_A, on_got, &got);
	}
	dns_query(env->dns, "good.example", DNS_A, on_got, &got);
	env_run(env);
	assert_int_equal(env->asked_count, 256);
	env_advance(env, 1999);
	assert_int_equal(env->asked_count, 256);
	env_advance(env, 1);
	assert_int_equal(env_count_asked(env, "good.example", DNS_A), 1);
	dns_count(env->dns, &counts);
	assert_int_equal(counts.inflight, 301);
	assert_int_equal(counts.waiting, 0);
	/* Not without end. */
	asked = 301;
	for (int round = 0; round < 12; round++) {
		for (int i = 0; i < 256; i++) {
			snprintf(name, sizeof(name), "m%d.silent", asked++);
			dns_query(env->dns, name, DNS_A, on_got, &got);
		}
		env_advance(env, 2000);
	}
	dns_count(env->dns, &counts);
	assert_int_equal(counts.inflight, 2048 + 256);
	assert_int_equal(counts.waiting, (size_t)asked - 2048 - 256);
	assert_int_equal(got.calls, 0);
}

/* Two that share a waiting question both go: it goes too, and the count is right. */
static void the_last_to_leave_takes_the_waiting_question_along(void **state)
{
	struct got got = {0};
	struct dns_counts counts;
	uint64_t a, b;
	char name[32];

	(void)state;
	env = env_new("");
	env->is_held = true;
	for (int i = 0; i < 256; i++) {
		snprintf(name, sizeof(name), "n%d.example", i);
		dns_query(env->dns, name, DNS_A, on_got, &got);
	}
	a = dns_query(env->dns, "late.example", DNS_A, on_got, &got);
	b = dns_query(env->dns, "late.example", DNS_A, on_got, &got);
	dns_cancel(env->dns, &a);
	dns_count(env->dns, &counts);
	assert_int_equal(counts.waiting, 1);
	dns_cancel(env->dns, &b);
	dns_count(env->dns, &counts);
	assert_int_equal(counts.waiting, 0);
	/* Freed with 256 on the way. */
}

static void freed_with_questions_in_each_state_nothing_comes(void **state)
{
	static struct got got;
	char name[32];

	(void)state;
	env = env_new("x.example A 192.0.2.1");
	dns_query(env->dns, "x.example", DNS_A, on_got, &got); /* answered, not told */
	env->is_held = true;
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "n%d.example", i);
		dns_query(env->dns, name, DNS_A, on_got, &got);
	}
	env_free(&env);
	assert_int_equal(got.calls, 0);
}

/* A transport may say nonsense. */
static void late_and_unknown_tokens_are_ignored(void **state)
{
	struct got got = {0};

	(void)state;
	env = env_new("example.org MX 10 mx.example.org");
	env->is_held = true;
	dns_query(env->dns, "example.org", DNS_MX, on_got, &got);
	dns_transport_answer(env->dns, 12345, (struct slice){0});
	env_answer_held(env);
	dns_transport_answer(env->dns, env->asked[0].token, (struct slice){0});
	env_run(env);
	dns_transport_answer(env->dns, env->asked[0].token, (struct slice){0});
	env_run(env);
	assert_int_equal(got.calls, 1);
	assert_int_equal(got.status, DNS_OK);
	done(&got);
}

static void failures_are_temporary_and_not_kept(void **state)
{
	struct dns_counts counts;
	struct got got;

	(void)state;
	env = env_new("bad.example SERVFAIL\nmute.example SILENT");
	got = ask("bad.example", DNS_MX);
	assert_int_equal(got.status, DNS_TEMPORARY);
	assert_string_equal(got.answer->reason, "SERVFAIL");
	done(&got);
	got = ask("mute.example", DNS_MX);
	assert_int_equal(got.status, DNS_TEMPORARY);
	done(&got);
	dns_count(env->dns, &counts);
	assert_int_equal(counts.failed, 2);
	assert_int_equal(counts.cached, 0);
	/* The retry notices at once that it is well again. */
	env->zone = "bad.example MX 10 mx.example";
	got = ask("bad.example", DNS_MX);
	assert_int_equal(got.status, DNS_OK);
	done(&got);
}

static void a_stale_mx_stands_in_for_a_dead_resolver(void **state)
{
	struct dns_counts counts;
	struct got got;

	(void)state;
	env = env_new("example.org MX 10 mx.example.org\nexample.org TTL 60");
	got = ask("example.org", DNS_MX);
	done(&got);
	env->zone = "example.org SERVFAIL";
	env_advance(env, 10 * 60 * SECOND);
	for (int i = 0; i < 3; i++) {
		got = ask("example.org", DNS_MX);
		assert_int_equal(got.status, DNS_OK);
		assert_true(got.answer->expires_at_ms > env->clock.mono);
		done(&got);
	}
	/* One question in 30 s, not one for each message. */
	assert_int_equal(env_count_asked(env, "example.org", DNS_MX), 2);
	dns_count(env->dns, &counts);
	assert_int_equal(counts.stale_hits, 1);
	env_advance(env, 60 * 60 * SECOND);
	got = ask("example.org", DNS_MX);
	assert_int_equal(got.status, DNS_TEMPORARY);
	done(&got);
}

static void nxdomain_replaces_an_old_answer(void **state)
{
	struct got got;

	(void)state;
	env = env_new("example.org MX 10 mx.example.org\nexample.org TTL 60");
	got = ask("example.org", DNS_MX);
	done(&got);
	env->zone = "";
	env_advance(env, 61 * SECOND);
	got = ask("example.org", DNS_MX);
	assert_int_equal(got.status, DNS_NXDOMAIN);
	done(&got);
}

static void aliases_within_an_answer(void **state)
{
	struct got got;

	(void)state;
	env = env_new("a.example CNAME b.example\nb.example CNAME c.example\nc.example A 192.0.2.1");
	env->is_secure = true;
	got = ask("a.example", DNS_A);
	assert_int_equal(got.status, DNS_OK);
	assert_string_equal(got.answer->canonical, "c.example");
	assert_true(got.answer->ad);
	assert_int_equal(env->asked_count, 1);
	done(&got);
}

/* A forwarder that gives one alias at a time. */
static void on_ask_one_alias(void *ctx, struct dns *dns, uint64_t token, const char *name, uint16_t type)
{
	static struct packet p;
	char target[64];
	int number = name[0] == 'n' ? (int)strtol(name + 1, NULL, 10) : 0;
	int *last = ctx;

	packet_begin(&p, 0, QR | RD | RA | (number == 1 ? 0 : AD), name, type);
	snprintf(target, sizeof(target), "n%d.example", number + 1);
	if (number == *last)
		packet_add(&p, ANSWER, name, DNS_A, 300, rdata_address("192.0.2.1"));
	else
		packet_add(&p, ANSWER, name, DNS_CNAME, 60, rdata_name(target));
	dns_transport_answer(dns, token, packet_slice(&p));
}

static void expect_chain(int length, enum dns_status status)
{
	struct dns_transport transport = {on_ask_one_alias, &length};
	struct dns_options options = {.transport = &transport};
	struct got got = {0};

	env = env_new("");
	dns_free(&env->dns);
	env->dns = dns_new(&options, NULL, env->timers, &env->clock.clock, &env->rng.rng, NULL);
	got = ask("start.example", DNS_A);
	assert_int_equal(got.status, status);
	if (status == DNS_OK) {
		assert_int_equal(got.answer->record_count, 1);
		assert_string_equal(got.answer->name, "start.example");
		assert_int_equal(got.answer->ttl_sec, length ? 60 : 300);
		/* One link without DNSSEC, and the chain has none. */
		assert_int_equal(got.answer->ad, length < 1);
	}
	done(&got);
	resolver_free(&env->resolver);
	env_free(&env);
}

static void aliases_left_to_us_are_followed_so_far(void **state)
{
	(void)state;
	expect_chain(0, DNS_OK);
	expect_chain(1, DNS_OK);
	expect_chain(7, DNS_OK);
	expect_chain(9, DNS_TEMPORARY);
	expect_chain(1000000, DNS_TEMPORARY);
}

static void a_reload_empties_the_cache(void **state)
{
	struct got got;

	(void)state;
	env = env_new("example.org MX 10 mx.example.org");
	got = ask("example.org", DNS_MX);
	done(&got);
	assert_int_equal(dns_reload(env->dns, NULL), 0);
	got = ask("example.org", DNS_MX);
	done(&got);
	assert_int_equal(env->asked_count, 2);
}

/* Held by the receiver, an answer outlives cache and dns. */
static void an_answer_outlives_all(void **state)
{
	struct got got;

	(void)state;
	env = env_new("example.org MX 10 mx.example.org");
	got = ask("example.org", DNS_MX);
	env_free(&env);
	assert_string_equal(got.answer->records[0].mx.host, "mx.example.org");
	done(&got);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_teardown(function, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(an_answer_comes_later_and_once),
	    TEST(the_cache_answers_in_the_next_turn),
	    TEST(equal_questions_are_joined),
	    TEST(impossible_names_do_not_exist),
	    TEST(cancelled_in_each_state_nothing_comes),
	    TEST(one_of_two_that_share_a_question_may_leave),
	    TEST(a_callback_may_cancel_its_neighbour),
	    TEST(a_callback_may_ask),
	    TEST(more_than_256_wait_in_order),
	    TEST(silent_domains_hold_up_no_other_for_long),
	    TEST(the_last_to_leave_takes_the_waiting_question_along),
	    TEST(freed_with_questions_in_each_state_nothing_comes),
	    TEST(late_and_unknown_tokens_are_ignored),
	    TEST(failures_are_temporary_and_not_kept),
	    TEST(a_stale_mx_stands_in_for_a_dead_resolver),
	    TEST(nxdomain_replaces_an_old_answer),
	    TEST(aliases_within_an_answer),
	    TEST(aliases_left_to_us_are_followed_so_far),
	    TEST(a_reload_empties_the_cache),
	    TEST(an_answer_outlives_all),
	};

	return cmocka_run_group_tests_name("dns", tests, NULL, NULL);
}
