/*
 * base/random.h - randomness as an interface: the system's generator, or a seeded one that repeats
 */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

struct rng {
	void (*fill)(struct rng *rng, void *out, size_t len);
};

/* libsodium's generator, safe over fork. Static, never freed. */
struct rng *rng_system(void);

/* SplitMix64: repeatable, for tests and simulation only. */
struct rng_seeded {
	struct rng rng; /* first: pass &s.rng */
	uint64_t state;
};
void rng_seeded_init(struct rng_seeded *s, uint64_t seed);

uint64_t rng_u64(struct rng *rng);
/* Uniform in 0 .. bound-1; a bound of 0 gives 0. */
uint64_t rng_below(struct rng *rng, uint64_t bound);

#endif
