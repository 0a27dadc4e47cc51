/*
 * One seed: a world, a day of mail into it, crashes and stops, and then time until everything has ended.
 */
#ifndef TEST_SIM_SCENARIO_H
#define TEST_SIM_SCENARIO_H

#include "test/sim/rig.h"

struct scenario_options {
	uint64_t seed;
	unsigned domains, messages;
	unsigned sick_percent;			       /* of the domains; the others are healthy */
	enum behaviour only;			       /* BEHAVIOUR_COUNT: any; else all sick domains have this one */
	enum behaviour relayhosts[RIG_RELAYHOSTS_MAX]; /* as many as rig.relayhosts says */
	bool leaves_out_sick;			       /* the same day without the recipients at sick domains */
	unsigned crashes, stops;		       /* of the relay */
	unsigned failing_syncs;
	unsigned flushes, holds, deletes, bounces, pauses; /* by an operator */
	unsigned clock_steps;				   /* of the wall clock, in either direction */
	bool is_calm; /* no bursts, no mass mail, small messages, one recipient each */
	bool is_even; /* every host and every lookup takes the same time, and nobody is sent DSNs: for comparisons */
	bool is_cut;  /* ends with the day, whatever still waits */
	bool clock_creeps;
	int64_t day_ms;
	struct rig_options rig;
};
/* Everything drawn from the seed. */
void scenario_draw(struct scenario_options *options, uint64_t seed, unsigned messages);

/* Neither crashes nor operators nor anything else that disturbs. */
void scenario_calm(struct scenario_options *options);

struct scenario_result {
	bool is_good;
	struct ledger_totals totals;
	int64_t virtual_ms;
	uint64_t turns;
	unsigned idle_wakeups;	   /* in an hour with nothing to do */
	unsigned connections_most; /* at a time */
	unsigned sessions, barren; /* with healthy domains; of them without a message */
	unsigned destinations_left;
	unsigned refused, relayhost_asked; /* messages that the first relayhost refused; connections to it */
	/* Under a rate, of the first recipients of messages: how many, how many overtook, the first 250 and the last. */
	unsigned limited_count, limited_overtakes;
	int64_t limited_first_ms, limited_last_ms;
	unsigned first_taken; /* messages, by the hosts of domain 0 */
	/* Recipients whose first refusal was a greylister's: how long behind its delay they came in, in all. */
	unsigned greylisted, greylisted_visits;
	double greylisted_behind_mean_ms;
};

/* Prints violations with their history. `verbose`: also what became of each domain. */
void scenario_run(const struct scenario_options *options, bool verbose, struct scenario_result *result);

#endif
