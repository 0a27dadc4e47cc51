/*
 * Greylisting: how long behind a greylister's delay mail comes in, and for how many attempts, against the schedules of
 * others on the same model. All in virtual time, so the figures are exact, and conditions.
 *
 * MODEL  1,000 operators, each with a delay drawn log-uniform from 1 to 60 minutes, never from a schedule, and no hint.
 *        To each of them twelve messages go one after the other, each a new triplet, so that none is known from before.
 *        Ours: queue/retry.c and relayd/greylist.c as the scheduler asks them. Postfix 3.7: the age of the message,
 *        clamped to 300 .. 4000 s, at queue scans each 300 s. Exim 4: F,2h,15m; G,16h,1h,1.5 at queue runs each 30 min.
 *        Haraka: 64 s, doubling. Scans and runs have a random phase.
 */
#include "queue/retry.h"
#include "relayd/greylist.h"
#include "test/sim/sim.h"

#include <math.h>
#include <stdio.h>

enum { OPERATORS = 1000, MESSAGES = 12, LEARNT = 5 }; /* LEARNT: by then the delay is known */

struct figure {
	double behind_ms, behind_worst_ms, attempts, first_hour; /* means, but for the worst */
	unsigned count;
};

static void note(struct figure *figure, int64_t behind_ms, unsigned attempts, unsigned first_hour)
{
	figure->count++;
	figure->behind_ms += ((double)behind_ms - figure->behind_ms) / figure->count;
	figure->attempts += (attempts - figure->attempts) / figure->count;
	figure->first_hour += (first_hour - figure->first_hour) / figure->count;
	figure->behind_worst_ms = MAX(figure->behind_worst_ms, (double)behind_ms);
}

static void print(const char *who, const struct figure *figure)
{
	printf("%-24s %6.0f s behind the delay, %6.0f at worst; %.2f attempts, %.2f in the first hour\n", who,
	       figure->behind_ms / 1000, figure->behind_worst_ms / 1000, figure->attempts, figure->first_hour);
}

/* ---- others: the next visit after `at`, all times from the first refusal ---- */

static int64_t at_scan(int64_t due, int64_t each, int64_t phase)
{
	return due <= phase ? phase : phase + (due - phase + each - 1) / each * each;
}

static int64_t postfix(int64_t at, unsigned attempt, int64_t phase)
{
	(void)attempt;
	return at_scan(at + MIN(MAX(at, 300 * SEC_MS), 4000 * SEC_MS), 300 * SEC_MS, phase % (300 * SEC_MS));
}

static int64_t exim(int64_t at, unsigned attempt, int64_t phase)
{
	int64_t wait = at < 2 * HOUR_MS ? 15 * MIN_MS : (int64_t)(HOUR_MS * pow(1.5, (double)MIN(attempt, 12u)));

	return at_scan(at + wait, 30 * MIN_MS, phase % (30 * MIN_MS));
}

static int64_t haraka(int64_t at, unsigned attempt, int64_t phase)
{
	(void)phase;
	return at + ((int64_t)64 * SEC_MS << MIN(attempt - 1, 12u));
}

static void visit(struct figure *figure, int64_t delay, int64_t phase,
		  int64_t (*next)(int64_t at, unsigned attempt, int64_t phase))
{
	unsigned attempts = 0, first_hour = 0;
	int64_t at = 0;

	while (at < delay) {
		at = next(at, ++attempts, phase);
		first_hour += at <= HOUR_MS;
	}
	note(figure, at - delay, attempts, first_hour);
}

/* ---- ours ---- */

static void no_release(void *ctx, uint64_t id, uint32_t recipient)
{
	(void)ctx;
	(void)id;
	(void)recipient;
}

struct ours {
	struct retry_policy policy;
	struct greylist *greylist;
	struct rng *rng;
	int64_t now_wall;
	uint64_t id;
};

static void visit_ours(struct ours *ours, struct figure *figure, const char *host, int64_t delay)
{
	struct greylist_refusal refusal = {.host = host, .id = ++ours->id};
	unsigned attempts = 0, first_hour = 0;
	int64_t at = 0, wait;

	while (at < delay) {
		struct retry_input input = {.class = CLASS_GREYLIST, .attempts = ++attempts};
		refusal.otherwise_ms = retry_delay_ms(&ours->policy, &input, ours->rng, NULL);
		wait = greylist_refused(ours->greylist, &refusal, ours->now_wall);
		refusal.was_refused = true;
		at += wait;
		ours->now_wall += wait;
		first_hour += at <= HOUR_MS;
	}
	greylist_passed(ours->greylist, ours->id, 0, ours->now_wall);
	note(figure, at - delay, attempts, first_hour);
}

static bool is_met(const char *goal, bool met)
{
	printf("%s: %s\n", met ? "met" : "MISSED", goal);
	return met;
}

int main(void)
{
	struct figure messages[MESSAGES] = {{0}}, by_postfix = {0}, by_exim = {0}, by_haraka = {0};
	struct rng_seeded rng;
	struct ours ours = {.rng = &rng.rng, .now_wall = 1790000000000};
	struct greylist_options options = {.rng = &rng.rng, .release = no_release};
	bool all;

	rng_seeded_init(&rng, 1);
	retry_policy_default(&ours.policy);
	ours.greylist = greylist_new(&options, ours.now_wall);
	for (int o = 0; o < OPERATORS; o++) {
		int64_t delay = sim_log_uniform(&rng.rng, MIN_MS, HOUR_MS), phase = sim_between(&rng.rng, 0, DAY_MS);
		char host[32];
		snprintf(host, sizeof(host), "mx.operator%d.test", o);
		for (int m = 0; m < MESSAGES; m++)
			visit_ours(&ours, &messages[m], host, delay);
		visit(&by_postfix, delay, phase, postfix);
		visit(&by_exim, delay, phase, exim);
		visit(&by_haraka, delay, phase, haraka);
	}
	greylist_free(&ours.greylist);
	for (int m = 0; m < MESSAGES; m++) {
		char who[32];
		snprintf(who, sizeof(who), "relayd, message %d", m + 1);
		print(who, &messages[m]);
	}
	print("Postfix, each", &by_postfix);
	print("Exim, each", &by_exim);
	print("Haraka, each", &by_haraka);
	all = is_met("the first message at most 5 min behind", messages[0].behind_ms <= 5.0 * MIN_MS);
	all &= is_met("it takes fewer attempts in the first hour than Haraka",
		      messages[0].first_hour < by_haraka.first_hour);
	all &= is_met("sooner than Postfix, Exim and Haraka", messages[0].behind_ms < by_postfix.behind_ms &&
								  messages[0].behind_ms < by_exim.behind_ms &&
								  messages[0].behind_ms < by_haraka.behind_ms);
	all &= is_met("the second one sooner than the first, for fewer attempts",
		      messages[1].behind_ms < messages[0].behind_ms && messages[1].attempts < messages[0].attempts);
	for (int m = 2; m < LEARNT; m++)
		all &= is_met("each of the next ones sooner than the one before, for two attempts at most",
			      messages[m].behind_ms < messages[m - 1].behind_ms && messages[m].attempts <= 2.0);
	all &= is_met("the fifth at most 30 s behind", messages[LEARNT - 1].behind_ms <= 30.0 * SEC_MS);
	all &=
	    is_met("the last at most 30 s behind, whatever the delay, in one attempt",
		   messages[MESSAGES - 1].behind_worst_ms <= 30.0 * SEC_MS && messages[MESSAGES - 1].attempts <= 1.0);
	return all ? 0 : 1;
}
