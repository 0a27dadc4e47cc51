#include "support_base.h"

#include "base/random.h"

#include <string.h>

static void a_seed_repeats(void **state)
{
	struct rng_seeded a, b, c;
	int different = 0;
	(void)state;

	rng_seeded_init(&a, 1);
	rng_seeded_init(&b, 1);
	rng_seeded_init(&c, 2);
	for (int i = 0; i < 100; i++) {
		uint64_t x = rng_u64(&a.rng);
		assert_int_equal(x, rng_u64(&b.rng));
		different += x != rng_u64(&c.rng);
	}
	assert_int_equal(different, 100);
}

/* SplitMix64 as published: the first numbers of seed 1234567. */
static void known_numbers(void **state)
{
	static const uint64_t wanted[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
					  4593380528125082431u, 16408922859458223821u};
	struct rng_seeded random;
	(void)state;

	rng_seeded_init(&random, 1234567);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		assert_int_equal(rng_u64(&random.rng), wanted[i]);
}

static void fill_fills_all_and_no_more(void **state)
{
	struct rng *const generators[] = {rng_system(), &((struct rng_seeded *)*state)->rng};

	for (size_t g = 0; g < 2; g++)
		for (size_t len = 0; len < 40; len++) {
			unsigned char seen[40] = {0}, out[48];
			for (int round = 0; round < 200; round++) {
				memset(out, 0, sizeof(out));
				generators[g]->fill(generators[g], out, len);
				for (size_t i = 0; i < len; i++)
					seen[i] |= out[i];
				for (size_t i = len; i < sizeof(out); i++)
					assert_int_equal(out[i], 0);
			}
			for (size_t i = 0; i < len; i++)
				assert_int_not_equal(seen[i], 0);
		}
}

static void bounds_hold(void **state)
{
	static const uint64_t bounds[] = {1,	     2, 3, 7, 256, 1000, 1ull << 32, (1ull << 63) + 1, UINT64_MAX - 1,
					  UINT64_MAX};
	struct rng_seeded *random = *state;

	assert_int_equal(rng_below(&random->rng, 0), 0);
	for (size_t i = 0; i < sizeof(bounds) / sizeof(*bounds); i++)
		for (int round = 0; round < 1000; round++)
			assert_true(rng_below(&random->rng, bounds[i]) < bounds[i]);
}

/* Chi-squared over ten classes: 9 degrees of freedom exceed 33.7 once in ten thousand; the seed is fixed. */
static void below_is_uniform(void **state)
{
	enum { CLASSES = 10, ROUNDS = 100000 };
	struct rng_seeded *random = *state;
	unsigned count[CLASSES] = {0};
	double sum = 0;

	for (int i = 0; i < ROUNDS; i++)
		count[rng_below(&random->rng, CLASSES)]++;
	for (int i = 0; i < CLASSES; i++) {
		double off = (double)count[i] - ROUNDS / CLASSES;
		sum += off * off / (ROUNDS / CLASSES);
	}
	assert_true(sum < 33.7);
}

/* A bound of three quarters of the range: a plain remainder would give the lower third twice as often as the others. */
static void below_has_no_bias_for_large_bounds(void **state)
{
	const uint64_t bound = 3ull << 62;
	struct rng_seeded *random = *state;
	unsigned count[3] = {0};

	for (int i = 0; i < 30000; i++)
		count[rng_below(&random->rng, bound) / (bound / 3)]++;
	for (int i = 0; i < 3; i++)
		assert_in_range(count[i], 9600, 10400);
}

static void the_system_s_numbers_differ(void **state)
{
	uint64_t last = rng_u64(rng_system());
	(void)state;

	for (int i = 0; i < 100; i++) {
		uint64_t next = rng_u64(rng_system());
		assert_int_not_equal(next, last);
		last = next;
	}
}

int main(void)
{
	static struct rng_seeded random;
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_seed_repeats),
	    cmocka_unit_test(known_numbers),
	    cmocka_unit_test_prestate(fill_fills_all_and_no_more, &random),
	    cmocka_unit_test_prestate(bounds_hold, &random),
	    cmocka_unit_test_prestate(below_is_uniform, &random),
	    cmocka_unit_test_prestate(below_has_no_bias_for_large_bounds, &random),
	    cmocka_unit_test(the_system_s_numbers_differ),
	};

	rng_seeded_init(&random, 42);
	return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
