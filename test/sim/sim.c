#include "test/sim/sim.h"

#define EPOCH_MS 1790000000000

static int64_t read_mono(const struct clock *clock)
{
	return CONTAINER_OF(clock, struct sim_clock, clock)->mono;
}

static int64_t read_wall(const struct clock *clock)
{
	struct sim_clock *c = CONTAINER_OF((struct clock *)(uintptr_t)clock, struct sim_clock, clock);

	if (c->creeps && c->crept_at != c->mono && ++c->looks % 61 == 0) {
		c->crept_at = c->mono;
		c->wall++;
	}
	return c->wall;
}

void sim_clock_init(struct sim_clock *clock, bool creeps)
{
	*clock = (struct sim_clock){{read_mono, read_wall}, 1000, EPOCH_MS, creeps, 0, 0};
}

void sim_clock_advance_to(struct sim_clock *clock, int64_t mono_ms)
{
	BUG_ON(mono_ms < clock->mono);
	clock->wall += mono_ms - clock->mono;
	clock->mono = mono_ms;
}

int64_t sim_between(struct rng *rng, int64_t from, int64_t to)
{
	return from + (int64_t)rng_below(rng, (uint64_t)(to - from + 1));
}

bool sim_chance(struct rng *rng, unsigned percent)
{
	return rng_below(rng, 100) < percent;
}

/* By rejection: uniform, kept with a chance of from : x. */
int64_t sim_log_uniform(struct rng *rng, int64_t from, int64_t to)
{
	int64_t x;

	do
		x = sim_between(rng, from, to);
	while (rng_below(rng, (uint64_t)x) >= (uint64_t)from);
	return x;
}

uint64_t sim_hash(uint64_t a, uint64_t b)
{
	uint64_t x = a * 0x9e3779b97f4a7c15u + b;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}
