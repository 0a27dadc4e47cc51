/* What is learnt about greylisters: operators, lessons, waves, slots, and what a restart keeps. */
#include "support_relay.h"

#include "queue/retry.h"
#include "relayd/greylist.h"

#define SEC INT64_C(1000)
#define MX "mx1.example.net[192.0.2.1]"

struct fixture {
	struct relay relay; /* its folder, loop, clock and log */
	struct memos *memos;
	struct greylist *greylist;
	uint64_t released[1024];
	unsigned count;
};

static void on_release(void *ctx, uint64_t id, uint32_t recipient)
{
	struct fixture *f = ctx;

	assert_in_range(recipient, 0, 3);
	f->released[f->count++] = id;
}

static int64_t now(struct fixture *f)
{
	return clock_wall_ms(&f->relay.clock.clock);
}

static void begin(struct fixture *f)
{
	struct memos_options remembering = {f->relay.loop, f->relay.log, f->relay.fd, NULL};
	struct greylist_options options = {
	    .metrics = f->relay.metrics, .rng = &f->relay.rng.rng, .ctx = f, .release = on_release};

	options.memos = f->memos = memos_new(&remembering);
	f->greylist = greylist_new(&options, now(f));
}

static void end(struct fixture *f)
{
	memos_free(&f->memos);
	greylist_free(&f->greylist);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	relay_init(&f->relay, NULL);
	begin(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	end(f);
	relay_fini(&f->relay);
	free(f);
	return 0;
}

static void pass(struct fixture *f, int64_t sec)
{
	clock_virtual_advance(&f->relay.clock, sec * SEC);
	relay_turn(&f->relay);
}

/* The wait in seconds. */
static double refuse(struct fixture *f, const char *host, uint64_t id, bool again, int64_t otherwise_sec)
{
	struct greylist_refusal refusal = {host, id, 0, again, false, false, otherwise_sec * SEC};

	return (double)greylist_refused(f->greylist, &refusal, now(f)) / 1000;
}

#define assert_between(value, low, high)                                                                               \
	do {                                                                                                           \
		double value_ = (value);                                                                               \
		if (value_ < (low) || value_ > (high))                                                                 \
			fail_msg("%g is not within %g .. %g", value_, (double)(low), (double)(high));                  \
	} while (0)

/* A message that is refused, and passes after that time. */
static void teach(struct fixture *f, uint64_t id, int64_t refused_sec, int64_t accepted_sec)
{
	refuse(f, MX, id, false, refused_sec);
	pass(f, refused_sec);
	refuse(f, MX, id, true, 300);
	pass(f, accepted_sec - refused_sec);
	greylist_passed(f->greylist, id, 0, now(f));
}

static struct greylist_lesson lesson(struct fixture *f, const char *host)
{
	struct greylist_lesson out;

	greylist_look_up(f->greylist, host, &out);
	return out;
}

static void hosts_of_one_operator(void **state)
{
	static const char *const rows[][2] = {
	    {"mx1.example.net[192.0.2.1]", "example.net"},
	    {"MX2.Example.NET.[2001:db8::1]", "example.net"},
	    {"example.net", "example.net"},
	    {"a.b.mail.example.co.uk[192.0.2.1]", "example.co.uk"},
	    {"mx.example.com.au", "example.com.au"},
	    {"mx.example.de", "example.de"},
	    {"mx.abcd.de", "abcd.de"},
	    {"[192.0.2.1]", "192.0.2.1"},
	    {"[2001:db8::1]", "2001:db8::1"},
	    {"localhost", "localhost"},
	    {"", ""},
	    {"co.uk", "co.uk"},
	};
	char out[GREYLIST_OPERATOR_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		greylist_operator_of(rows[i][0], out);
		assert_string_equal(out, rows[i][1]);
	}
}

/* G24 */
static void without_a_lesson_the_schedule_counts(void **state)
{
	struct fixture *f = *state;

	assert_between(refuse(f, MX, 1, false, 310), 310, 310);
	pass(f, 310);
	assert_between(refuse(f, MX, 1, true, 305), 305, 305);
}

/* G24 */
static void after_a_lesson_the_next_one_comes_just_behind(void **state)
{
	struct fixture *f = *state;

	teach(f, 1, 300, 315);
	assert_int_equal(lesson(f, "mx9.example.net").refused_ms, 300 * SEC);
	assert_int_equal(lesson(f, "mx9.example.net").accepted_ms, 315 * SEC);
	assert_int_equal(lesson(f, "mx.example.org").accepted_ms, 0);
	assert_between(refuse(f, "mx2.example.net[192.0.2.2]", 2, false, 310), 320, 325);
}

static void who_looked_in_the_middle_comes_soon_when_the_end_is_near(void **state)
{
	struct fixture *f = *state;

	teach(f, 1, 300, 330);
	assert_between(refuse(f, MX, 2, false, 310), 315, 320);
	pass(f, 315);
	assert_between(refuse(f, MX, 2, true, 310), 30, 35);
}

/* Whatever the delay, it is known to within 20 s after some messages, and each comes once more for it at most. */
static void the_lesson_becomes_narrow(void **state)
{
	struct fixture *f = *state;
	struct rng_seeded rng;

	rng_seeded_init(&rng, 5);
	for (int operator= 0; operator<200; operator++) {
		int64_t delay = 60 * SEC + (int64_t)rng_below(&rng.rng, 3600 * SEC);
		char host[64];
		snprintf(host, sizeof(host), "mx.operator%d.example", operator);
		for (uint64_t id = 1; id <= 12; id++) {
			int64_t waited = 0;
			int visits = 0;
			while (waited < delay) {
				int64_t wait = (int64_t)(refuse(f, host, (uint64_t) operator* 100 + id, visits > 0,
								300 << MIN(visits, 4)) *
							 1000);
				visits++;
				waited += wait;
				clock_virtual_advance(&f->relay.clock, wait);
			}
			greylist_passed(f->greylist, (uint64_t) operator* 100 + id, 0, now(f));
			if (id == 12 && (visits != 1 || waited - delay > 30 * SEC))
				fail_msg("delay %lld: %d visits, %lld ms behind", (long long)delay, visits,
					 (long long)(waited - delay));
			if (id > 1 && visits > 2)
				fail_msg("%d visits", visits);
		}
	}
}

static void only_one_at_a_time_looks_in_the_middle(void **state)
{
	struct fixture *f = *state;

	teach(f, 1, 300, 900);
	assert_between(refuse(f, MX, 2, false, 310), 600, 605);
	assert_between(refuse(f, MX, 3, false, 310), 905, 920);
	pass(f, 600);
	greylist_passed(f->greylist, 2, 0, now(f));
	assert_int_equal(lesson(f, MX).accepted_ms, 600 * SEC);
	assert_between(refuse(f, MX, 4, false, 310), 450, 465);
}

static void a_stricter_operator_is_learnt_anew(void **state)
{
	struct fixture *f = *state;

	teach(f, 1, 300, 315);
	refuse(f, MX, 2, false, 310);
	pass(f, 325);
	assert_between(refuse(f, MX, 2, true, 310), 310, 310);
	assert_int_equal(lesson(f, MX).accepted_ms, 0);
	pass(f, 310);
	greylist_passed(f->greylist, 2, 0, now(f));
	assert_int_equal(lesson(f, MX).accepted_ms, 635 * SEC);
}

static void a_hint_is_better_than_a_lesson(void **state)
{
	struct fixture *f = *state;
	struct greylist_refusal refusal = {MX, 2, 0, false, true, true, 77 * SEC};

	teach(f, 1, 300, 315);
	assert_int_equal(greylist_refused(f->greylist, &refusal, now(f)), 77 * SEC);
	pass(f, 77);
	greylist_passed(f->greylist, 2, 0, now(f));
	assert_int_equal(lesson(f, MX).accepted_ms, 77 * SEC);
	assert_true(series_value(metrics_series(f->relay.metrics, METRIC_GREYLIST_HINTS, "yes", NULL, NULL)) == 1);
	assert_true(series_value(metrics_series(f->relay.metrics, METRIC_GREYLIST_WAIT, NULL, NULL, NULL)) == 2);
}

/* 500 at once make no 500 reconnects at once. */
static void those_who_wait_come_back_one_by_one(void **state)
{
	struct fixture *f = *state;
	double waits[500];

	for (uint64_t id = 0; id < 500; id++)
		waits[id] = refuse(f, MX, id + 1, false, 310);
	for (int i = 0; i < 500; i++)
		for (int k = 0; k < i; k++)
			assert_false((int64_t)(waits[i] * 1000 + (double)now(f)) / (10 * SEC) ==
				     (int64_t)(waits[k] * 1000 + (double)now(f)) / (10 * SEC));
	assert_between(waits[0], 310, 310);
	assert_between(waits[499], 5290, 5310);
	/* A late one does not make an early one wait. */
	assert_between(refuse(f, "mx.example.org", 1000, true, 7200), 7200, 7200);
	assert_between(refuse(f, "mx.example.org", 1001, false, 310), 310, 310);
}

static void recipients_of_a_message_come_together(void **state)
{
	struct fixture *f = *state;
	struct greylist_refusal refusal = {MX, 1, 0, false, false, false, 310 * SEC};
	int64_t first = greylist_refused(f->greylist, &refusal, now(f));

	refusal.recipient = 1;
	assert_int_equal(greylist_refused(f->greylist, &refusal, now(f)), first);
}

static void one_that_passes_lets_others_follow_two_by_two(void **state)
{
	struct fixture *f = *state;

	for (uint64_t id = 1; id <= 40; id++)
		refuse(f, MX, id, false, 310);
	refuse(f, "mx.example.org", 99, false, 310);
	pass(f, 310);
	greylist_passed(f->greylist, 1, 0, now(f));
	assert_int_equal(f->count, 2);
	for (unsigned next = 0; next < f->count; next++)
		greylist_passed(f->greylist, f->released[next], 0, now(f));
	assert_int_equal(f->count, 39); /* all, each once */
	for (unsigned i = 0; i < f->count; i++)
		assert_int_equal(f->released[i], i + 2);
	assert_int_equal(greylist_waiting_count(f->greylist), 1);
}

static void one_that_is_refused_again_lets_nobody_follow(void **state)
{
	struct fixture *f = *state;

	for (uint64_t id = 1; id <= 40; id++)
		refuse(f, MX, id, false, 310);
	pass(f, 310);
	greylist_passed(f->greylist, 1, 0, now(f));
	assert_int_equal(f->count, 2);
	refuse(f, MX, 2, true, 310);
	refuse(f, MX, 3, true, 310);
	assert_int_equal(f->count, 2);
}

/* One that passes early may have passed because we are known now: that teaches nothing. */
static void what_comes_early_is_no_lesson(void **state)
{
	struct fixture *f = *state;

	teach(f, 1, 300, 315);
	refuse(f, MX, 2, false, 310);
	pass(f, 200);
	refuse(f, MX, 3, false, 310);
	pass(f, 100);
	greylist_passed(f->greylist, 2, 0, now(f));
	greylist_passed(f->greylist, 3, 0, now(f)); /* released by it after 100 s */
	assert_true(lesson(f, MX).accepted_ms > 200 * SEC);
}

static void who_waits_for_something_else_is_left_alone(void **state)
{
	struct fixture *f = *state;

	refuse(f, MX, 1, false, 310);
	refuse(f, MX, 2, false, 310);
	refuse(f, MX, 3, false, 310);
	greylist_set_aside(f->greylist, 2, 0);
	greylist_forget(f->greylist, 3, 0);
	pass(f, 310);
	greylist_passed(f->greylist, 1, 0, now(f));
	assert_int_equal(f->count, 0);
	greylist_passed(f->greylist, 17, 0, now(f));
	greylist_forget(f->greylist, 17, 0);
	greylist_set_aside(f->greylist, 17, 0);
}

static void a_restart_keeps_the_lessons(void **state)
{
	struct fixture *f = *state;

	teach(f, 1, 300, 315);
	refuse(f, MX, 2, false, 310);
	end(f);
	begin(f);
	assert_int_equal(lesson(f, MX).accepted_ms, 315 * SEC);
	/* When this one was first refused nobody knows: its wait teaches nothing. */
	pass(f, 20);
	refuse(f, MX, 2, true, 310);
	pass(f, 60);
	greylist_passed(f->greylist, 2, 0, now(f));
	assert_int_equal(lesson(f, MX).accepted_ms, 315 * SEC);
	pass(f, 61 * 86400);
	end(f);
	begin(f);
	assert_int_equal(lesson(f, MX).accepted_ms, 0);
}

static void memory_is_bounded(void **state)
{
	struct fixture *f = *state;
	char host[64];

	for (uint64_t id = 1; id <= 3 * GREYLIST_WAITING_MAX; id++) {
		snprintf(host, sizeof(host), "mx.operator%llu.example", (unsigned long long)id % 5000);
		refuse(f, host, id, false, 310);
	}
	assert_int_equal(greylist_waiting_count(f->greylist) <= GREYLIST_WAITING_MAX, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(hosts_of_one_operator),
	    TEST(without_a_lesson_the_schedule_counts),
	    TEST(after_a_lesson_the_next_one_comes_just_behind),
	    TEST(who_looked_in_the_middle_comes_soon_when_the_end_is_near),
	    TEST(the_lesson_becomes_narrow),
	    TEST(only_one_at_a_time_looks_in_the_middle),
	    TEST(a_stricter_operator_is_learnt_anew),
	    TEST(a_hint_is_better_than_a_lesson),
	    TEST(those_who_wait_come_back_one_by_one),
	    TEST(recipients_of_a_message_come_together),
	    TEST(one_that_passes_lets_others_follow_two_by_two),
	    TEST(one_that_is_refused_again_lets_nobody_follow),
	    TEST(what_comes_early_is_no_lesson),
	    TEST(who_waits_for_something_else_is_left_alone),
	    TEST(a_restart_keeps_the_lessons),
	    TEST(memory_is_bounded),
	};
	return cmocka_run_group_tests_name("greylist", tests, NULL, NULL);
}
