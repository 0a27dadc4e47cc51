/* What the files of a scenario share: scenario.c (time, the whole), scenario_draw.c (what is drawn), scenario_day.c (the
 * world and its mail), scenario_incidents.c (crashes, stops, disks, clocks, the operator). */
#ifndef TEST_SIM_SCENARIO_INTERNAL_H
#define TEST_SIM_SCENARIO_INTERNAL_H

#include "test/sim/scenario.h"

enum { SPIN_MAX = 50000, CRASH_TURNS_MAX = 40, RETRY_MS = 20000 };

struct scenario;

struct arrival {
	struct scenario *scenario;
	struct truth_message *message;
	timer_id timer;
};

struct pause {
	struct scenario *scenario;
	unsigned relayhost;
	timer_id timer;
};

struct scenario {
	struct scenario_options options;
	struct sim_clock clock;
	struct rng_seeded rng;
	struct ledger *ledger;
	struct world *world;
	struct rig *rig;
	struct arrival *arrivals;
	struct pause pauses[RIG_RELAYHOSTS_MAX];
	int64_t down_since_ms; /* the last time */
	unsigned arrivals_left;
	unsigned crash_in_turns; /* 0: no crash is due */
	unsigned incidents_left; /* crashes and stops that have not come yet */
	uint64_t turns, wakeups;
};

void scenario_make_world(struct scenario *s);
void scenario_make_day(struct scenario *s);
/* Mail to that domain waits for its turn under a rate. */
bool scenario_is_limited(const struct scenario *s, unsigned domain);
void scenario_plan_incidents(struct scenario *s);
/* An orderly stop has ended, or a crash: it comes up again after a while. */
void scenario_restart_later(struct scenario *s);
void scenario_crash_now(struct scenario *s);

#endif
