/* Rates: in no stretch of time do more go out than they say, whenever they go out, restarts and changes included. */
#include "support_relay.h"

#include "relayd/rates.h"

struct fixture {
	struct relay relay; /* its folder, loop, clock and log */
	struct rate *rate;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	relay_init(&f->relay, NULL);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	relay_fini(&f->relay);
	free(f);
	return 0;
}

static void limit(struct fixture *f, const char *rate)
{
	char yaml[200];

	snprintf(yaml, sizeof(yaml), "relayhosts:\n  main: {address: 'smtp.example.net:587', tls: none%s%s}\n",
		 rate[0] ? ", rate: " : "", rate);
	relay_configure(&f->relay, yaml);
	f->rate = rates_get(f->relay.rates, RATE_OF_RELAYHOST, "main");
}

/* A place for a message that goes out at once: 0; or how long it waits. */
static int64_t go(struct fixture *f)
{
	int64_t wait = rate_take(f->rate);

	if (wait == 0)
		rate_use(f->rate);
	return wait;
}

/* Takes at random for a while, and looks at each stretch of the rate's length between two that were given. */
static void take_at_random(struct fixture *f, int64_t count, int64_t per_ms, uint64_t seed)
{
	enum { TAKES = 4000 };
	int64_t *at = xcalloc(TAKES, sizeof(*at)), began = clock_mono_ms(&f->relay.clock.clock);
	struct rng_seeded rng;
	size_t taken = 0;

	rng_seeded_init(&rng, seed);
	for (int i = 0; i < TAKES; i++) {
		int64_t wait = go(f);
		if (wait == 0)
			at[taken++] = clock_mono_ms(&f->relay.clock.clock);
		/* Now and then exactly as long as it says, and there must be a place then. */
		if (wait > 0 && rng_below(&rng.rng, 4) == 0) {
			relay_pass(&f->relay, wait);
			assert_int_equal(rate_take(f->rate), 0);
			rate_give_back(f->rate);
		} else {
			relay_pass(&f->relay, (int64_t)rng_below(&rng.rng, (uint64_t)(4 * per_ms / count)));
		}
	}
	for (size_t i = (size_t)count; i < taken; i++)
		if (at[i] - at[i - (size_t)count] < per_ms)
			fail_msg("%lld in %lld ms", (long long)count + 1, (long long)(at[i] - at[i - (size_t)count]));
	/* And nearly as many as there may be. */
	assert_true((double)taken >
		    0.4 * (double)(clock_mono_ms(&f->relay.clock.clock) - began) * (double)count / (double)per_ms);
	free(at);
}

static void never_more_in_any_stretch_of_time(void **state)
{
	struct fixture *f = *state;

	limit(f, "5/1s");
	take_at_random(f, 5, 1000, 1);
	limit(f, "30/1m");
	take_at_random(f, 30, 60 * 1000, 2);
	limit(f, "7/1d");
	take_at_random(f, 7, 24 * 3600 * 1000, 3);
}

static void a_place_is_free_at_most_a_sixtieth_late(void **state)
{
	struct fixture *f = *state;
	int64_t wait;

	limit(f, "1/1h");
	for (int i = 0; i < 50; i++) {
		assert_int_equal(go(f), 0);
		wait = go(f);
		assert_in_range(wait, 3600 * 1000, 3600 * 1000 + 60 * 1000);
		relay_pass(&f->relay, wait - 1);
		assert_int_equal(rate_take(f->rate), 1);
		relay_pass(&f->relay, 1 + 777 * i);
	}
}

static void a_restart_knows_when_they_were_sent(void **state)
{
	struct fixture *f = *state;

	limit(f, "10/1h");
	for (int i = 0; i < 5; i++)
		go(f);
	relay_pass(&f->relay, 1200 * 1000);
	for (int i = 0; i < 5; i++)
		go(f);
	relay_restart(&f->relay);
	limit(f, "10/1h");
	assert_int_equal(rate_used(f->rate), 10);
	relay_pass(&f->relay, 2400 * 1000 + 120 * 1000);
	assert_int_equal(rate_wait_ms(f->rate), 0);
	assert_int_equal(rate_used(f->rate), 5);
	relay_restart(&f->relay);
	limit(f, "10/1h");
	relay_pass(&f->relay, 3600 * 1000);
	assert_int_equal(rate_wait_ms(f->rate), 0);
	assert_int_equal(rate_used(f->rate), 0);
}

/* How many messages of main stand in rates.json. */
static unsigned kept(const struct fixture *f)
{
	char path[128];
	json_t *document, *taken, *count;
	unsigned sum = 0;
	size_t i;

	snprintf(path, sizeof(path), "%s/rates.json", f->relay.folder);
	document = json_load_file(path, 0, NULL);
	taken = json_object_get(json_object_get(document, "relayhost:main"), "taken");
	json_array_foreach(taken, i, count) sum += (unsigned)json_integer_value(count);
	json_decref(document);
	return sum;
}

/* All of an hour's messages may go out within a second. */
static void a_crash_forgets_a_twentieth_at_most(void **state)
{
	struct fixture *f = *state;

	limit(f, "100/1h");
	for (int i = 0; i < 99; i++) {
		go(f);
		relay_turn(&f->relay);
	}
	assert_in_range(kept(f), 99 - 5, 99);
	relay_pass(&f->relay, 5 * 1000);
	assert_int_equal(kept(f), 99);
}

/* A connection may take its time: the message counts from when it goes out, not from when its place was taken. */
static void what_is_taken_counts_from_its_use(void **state)
{
	struct fixture *f = *state;

	limit(f, "2/1m");
	assert_int_equal(rate_take(f->rate), 0);
	assert_int_equal(rate_take(f->rate), 0);
	assert_true(rate_take(f->rate) > 0);
	relay_pass(&f->relay, 100 * 1000);
	assert_true(rate_take(f->rate) > 0);
	rate_use(f->rate);
	relay_pass(&f->relay, 59 * 1000);
	assert_true(rate_take(f->rate) > 0);
	rate_give_back(f->rate);
	assert_int_equal(rate_take(f->rate), 0);
	rate_give_back(f->rate);
	relay_pass(&f->relay, 3 * 1000);
	assert_int_equal(rate_used(f->rate), 1);
	assert_int_equal(rate_wait_ms(f->rate), 0);
	assert_int_equal(rate_used(f->rate), 0);
	go(f);
	rate_unuse(f->rate);
	rate_give_back(f->rate);
	assert_int_equal(rate_used(f->rate), 0);
}

/* Whatever fraction of a slot the restarts are apart. */
static void a_restart_makes_nothing_older(void **state)
{
	struct fixture *f = *state;

	limit(f, "1/1h");
	for (int i = 0; i < 40; i++) {
		int64_t began = clock_wall_ms(&f->relay.clock.clock);
		assert_int_equal(go(f), 0);
		relay_pass(&f->relay, 10 * 1000 + 1777 * i);
		relay_restart(&f->relay);
		limit(f, "1/1h");
		relay_pass(&f->relay, go(f));
		assert_in_range(clock_wall_ms(&f->relay.clock.clock) - began, 3600 * 1000, 3600 * 1000 + 121 * 1000);
	}
}

static void a_changed_rate_forgives_nothing(void **state)
{
	struct fixture *f = *state;

	limit(f, "10/1h");
	for (int i = 0; i < 8; i++)
		go(f);
	limit(f, "5/1h");
	assert_true(go(f) > 0);
	limit(f, "20/1h");
	assert_int_equal(rate_used(f->rate), 8);
	limit(f, "5/1d");
	assert_true(go(f) > 0);
	limit(f, "");
	assert_int_equal(rate_take(f->rate), 0);
	assert_int_equal(rate_used(f->rate), 0);
}

struct waiter {
	struct rate_waiter waiter;
	struct fixture *f;
	unsigned number, takes;
	unsigned *order, *count;
};

static void on_free(void *ctx)
{
	struct waiter *w = ctx;

	w->order[(*w->count)++] = w->number;
	if (go(w->f) == 0)
		w->takes++;
	rate_wait(w->f->rate, &w->waiter);
}

static void those_who_wait_are_called_in_turn(void **state)
{
	struct fixture *f = *state;
	unsigned order[64], count = 0;
	struct waiter waiters[3];

	limit(f, "3/1m");
	for (int i = 0; i < 3; i++)
		go(f);
	for (unsigned i = 0; i < 3; i++) {
		waiters[i] = (struct waiter){{.on_free = on_free, .ctx = &waiters[i]}, f, i, 0, order, &count};
		list_node_init(&waiters[i].waiter.node);
		rate_wait(f->rate, &waiters[i].waiter);
	}
	relay_pass(&f->relay, 60 * 1000 - 1);
	assert_int_equal(count, 0);
	relay_pass(&f->relay, 1002);
	assert_int_equal(count, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(waiters[i].takes, 1);
	rate_stop_waiting(&waiters[1].waiter);
	relay_pass(&f->relay, 62 * 1000);
	assert_int_equal(waiters[0].takes + waiters[2].takes, 2 + 3);
	assert_int_equal(waiters[1].takes, 1);
	for (unsigned i = 0; i < 3; i++)
		rate_stop_waiting(&waiters[i].waiter);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(never_more_in_any_stretch_of_time),   TEST(a_place_is_free_at_most_a_sixtieth_late),
	    TEST(a_restart_knows_when_they_were_sent), TEST(a_restart_makes_nothing_older),
	    TEST(a_crash_forgets_a_twentieth_at_most), TEST(what_is_taken_counts_from_its_use),
	    TEST(a_changed_rate_forgives_nothing),     TEST(those_who_wait_are_called_in_turn),
	};
	return cmocka_run_group_tests_name("rates", tests, NULL, NULL);
}
