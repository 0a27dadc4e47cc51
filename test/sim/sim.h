/*
 * The simulation: one relay whole (queue, scheduler, destinations, deliveries, bounce, router, retry, streams, DNS) in
 * virtual time, and around it a world of scripted destinations.
 *
 *     sim_relay.c   the program: seeds, comparisons, figures
 *     pool          runs them in several processes
 *     scenario      one seed: who there is, what is sent when, when it crashes; moves the clock
 *     rig           the relay, assembled as relayd/relayd.c does it, on a disk in memory; started, stopped, crashed
 *     world, dns    domains, their DNS and their hosts
 *     socket        sockets and epoll in memory
 *     peer          one SMTP session of a host
 *     behaviour     what a host says, and when: the script
 *     ledger        what is true, what the relay must do about it, and the history that tells
 *
 * Everything random comes from the seed, so a seed repeats its run.
 */
#ifndef TEST_SIM_SIM_H
#define TEST_SIM_SIM_H

#include "base/base.h"
#include "base/clock.h"
#include "base/random.h"

#include <stdbool.h>

#define SEC_MS ((int64_t)1000)
#define MIN_MS (60 * SEC_MS)
#define HOUR_MS (60 * MIN_MS)
#define DAY_MS (24 * HOUR_MS)

/* Stands until it is moved; but the wall clock may creep on by a millisecond between two looks, as it does in life. */
struct sim_clock {
	struct clock clock; /* first */
	int64_t mono, wall;
	bool creeps;
	uint32_t looks;
	int64_t crept_at;
};
void sim_clock_init(struct sim_clock *clock, bool creeps);
void sim_clock_advance_to(struct sim_clock *clock, int64_t mono_ms);

/* Uniform in from .. to. */
int64_t sim_between(struct rng *rng, int64_t from, int64_t to);
/* True in `percent` of a hundred cases. */
bool sim_chance(struct rng *rng, unsigned percent);
/* Log-uniform in from .. to. */
int64_t sim_log_uniform(struct rng *rng, int64_t from, int64_t to);
/* The same number for the same inputs: what must not depend on the order of events. */
uint64_t sim_hash(uint64_t a, uint64_t b);

#endif
