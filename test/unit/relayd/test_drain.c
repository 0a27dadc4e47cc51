/* A drain ends when nothing is left to deliver, or in time; and it begins once. */
#include "support_relay.h"

#include "relayd/drain.h"

struct fixture {
	struct relay relay;
	struct drain *drain;
	unsigned intake_stops, stops;
	bool is_busy; /* something is still being submitted */
};

static void stop_intake(void *ctx)
{
	((struct fixture *)ctx)->intake_stops++;
}

static bool is_intake_quiet(void *ctx)
{
	return !((struct fixture *)ctx)->is_busy;
}

static void stop(void *ctx)
{
	((struct fixture *)ctx)->stops++;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct drain_options options;

	relay_init(&f->relay, NULL);
	options = (struct drain_options){.loop = f->relay.loop,
					 .queue = f->relay.queue,
					 .log = f->relay.log,
					 .ctx = f,
					 .stop_intake = stop_intake,
					 .is_intake_quiet = is_intake_quiet,
					 .stop = stop};
	f->drain = drain_new(&options);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	drain_free(&f->drain);
	relay_fini(&f->relay);
	free(f);
	return 0;
}

static struct drain_progress look(struct fixture *f)
{
	struct drain_progress progress;

	drain_look(f->drain, &progress);
	return progress;
}

static void nothing_happens_unasked(void **state)
{
	struct fixture *f = *state;

	relay_pass(&f->relay, 60 * 1000);
	assert_false(look(f).has_begun);
	assert_int_equal(f->stops + f->intake_stops, 0);
}

/* I10 */
static void it_is_over_when_all_is_delivered(void **state)
{
	struct fixture *f = *state;

	relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_turn(&f->relay);
	drain_begin(f->drain, 60 * 1000);
	assert_int_equal(f->intake_stops, 1);
	assert_int_equal(look(f).left, 1);
	relay_pass(&f->relay, 10 * 1000);
	assert_false(look(f).is_over);
	fake_session(relay_connection(&f->relay, 0));
	fake_deliver(relay_connection(&f->relay, 0));
	relay_pass(&f->relay, 200);
	assert_true(look(f).is_over);
	assert_int_equal(look(f).left, 0);
	assert_int_equal(f->stops, 0); /* who waits for the end hears of it first */
	relay_pass(&f->relay, 1000);
	assert_int_equal(f->stops, 1);
	assert_true(relay_log_has(&f->relay, "event=drained left=0 held=0"));
	relay_pass(&f->relay, 60 * 1000);
	assert_int_equal(f->stops, 1);
}

static void a_submission_under_way_is_waited_for(void **state)
{
	struct fixture *f = *state;

	f->is_busy = true;
	drain_begin(f->drain, 60 * 1000);
	relay_pass(&f->relay, 10 * 1000);
	assert_false(look(f).is_over);
	f->is_busy = false;
	relay_pass(&f->relay, 1000);
	assert_int_equal(f->stops, 1);
}

static void it_gives_up_in_time(void **state)
{
	struct fixture *f = *state;

	relay_submit(&f->relay, "app@example.org", "one@a.example");
	drain_begin(f->drain, 5000);
	relay_pass(&f->relay, 4900);
	assert_false(look(f).is_over);
	relay_pass(&f->relay, 100);
	assert_true(look(f).is_over);
	assert_int_equal(look(f).left, 1);
	relay_pass(&f->relay, 1000);
	assert_int_equal(f->stops, 1);
}

static void the_earlier_end_counts(void **state)
{
	struct fixture *f = *state;

	relay_submit(&f->relay, "app@example.org", "one@a.example");
	drain_begin(f->drain, 3600 * 1000);
	drain_begin(f->drain, 2000);
	drain_begin(f->drain, 3600 * 1000);
	assert_int_equal(f->intake_stops, 1);
	relay_pass(&f->relay, 3000);
	assert_int_equal(f->stops, 1);
}

/* What an operator holds will not move by waiting. */
static void the_held_are_not_waited_for(void **state)
{
	struct fixture *f = *state;

	queue_hold(f->relay.queue, relay_submit(&f->relay, "app@example.org", "one@a.example"));
	drain_begin(f->drain, 3600 * 1000);
	relay_pass(&f->relay, 1000);
	assert_int_equal(f->stops, 1);
	assert_int_equal(look(f).held, 1);
	assert_int_equal(look(f).left, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(nothing_happens_unasked),
	    TEST(it_is_over_when_all_is_delivered),
	    TEST(a_submission_under_way_is_waited_for),
	    TEST(it_gives_up_in_time),
	    TEST(the_earlier_end_counts),
	    TEST(the_held_are_not_waited_for),
	};
	return cmocka_run_group_tests_name("drain", tests, NULL, NULL);
}
