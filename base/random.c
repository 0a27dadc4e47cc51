#include "base/random.h"

#include "base/base.h"

#include <sodium.h>
#include <string.h>

static void system_fill(struct rng *rng, void *out, size_t len)
{
	(void)rng;
	randombytes_buf(out, len);
}

struct rng *rng_system(void)
{
	static struct rng system_rng = {system_fill};
	BUG_ON(sodium_init() < 0);
	return &system_rng;
}

static uint64_t splitmix(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void seeded_fill(struct rng *rng, void *out, size_t len)
{
	struct rng_seeded *s = CONTAINER_OF(rng, struct rng_seeded, rng);
	char *at = out;

	while (len > 0) {
		uint64_t word = splitmix(&s->state);
		size_t n = MIN(len, sizeof(word));
		memcpy(at, &word, n);
		at += n;
		len -= n;
	}
}

void rng_seeded_init(struct rng_seeded *s, uint64_t seed)
{
	*s = (struct rng_seeded){{seeded_fill}, seed};
}

uint64_t rng_u64(struct rng *rng)
{
	uint64_t word;
	rng->fill(rng, &word, sizeof(word));
	return word;
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
	uint64_t limit, word;

	if (bound < 2)
		return 0;
	limit = UINT64_MAX - UINT64_MAX % bound;
	do
		word = rng_u64(rng);
	while (word >= limit);
	return word % bound;
}
