/*
 * The relay whole, in virtual time.
 *
 *     SEED=17   that seed alone, with what became of each domain
 *     MESSAGE=5 with SEED: the whole history of that message
 *     SEEDS=5   so many, from FROM (1) on
 *     PART=days, healthy, relayhosts or greylist: that part alone
 *     LONG=1    ten times as many
 *     SIM_LOG=1 the relay's own log, too
 */
#include "test/sim/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SEEDS = 60, MESSAGES = 800 };

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);

	return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static int64_t real_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool run_seed(uint64_t seed, bool verbose)
{
	struct scenario_options options;
	struct scenario_result result;
	const struct ledger_totals *t = &result.totals;
	int64_t began = real_ms();

	scenario_draw(&options, seed, MESSAGES);
	printf("SEED=%llu: %u domains, %u%% sick, %u crashes, %u stops, limits %u/%u, expiry %lld h%s\n",
	       (unsigned long long)seed, options.domains, options.sick_percent, options.crashes, options.stops,
	       options.rig.connections, options.rig.per_destination, (long long)(options.rig.expire_ms / HOUR_MS),
	       options.is_cut ? ", cut" : "");
	fflush(stdout);
	scenario_run(&options, verbose, &result);
	printf("  %u messages, %u recipients: %u delivered, %u failed, %u expired, %u waiting; %u twice; %u DSNs, %u "
	       "warnings; healthy in %.0f ms, %.0f s at worst; %u sessions, %u without a message; most %u connections; "
	       "%lld h, %llu turns, %lld ms\n",
	       t->messages, t->rcpts, t->delivered, t->failed, t->expired, t->waiting, t->twice, t->dsns, t->delays,
	       t->brisk_mean_ms, (double)t->brisk_worst_ms / 1000, result.sessions, result.barren,
	       result.connections_most, (long long)(result.virtual_ms / HOUR_MS), (unsigned long long)result.turns,
	       (long long)(real_ms() - began));
	if (!result.is_good)
		printf("FAILED: SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	return result.is_good;
}

/* ---- healthy destinations are as fast as without the sick ones ---- */

static bool compare_healthy(uint64_t seed, enum behaviour sick, unsigned sick_percent)
{
	struct scenario_options options;
	struct scenario_result with, without;
	bool is_good;

	scenario_draw(&options, seed, 2 * MESSAGES);
	options.domains = 60;
	options.sick_percent = sick_percent;
	options.only = sick;
	scenario_calm(&options);
	options.is_cut = options.is_even = true;
	options.rig.connections = 200;
	options.rig.per_destination = 20;
	scenario_run(&options, false, &with);
	options.leaves_out_sick = true;
	scenario_run(&options, false, &without);
	is_good = with.is_good && without.is_good && with.totals.brisk_count == without.totals.brisk_count &&
		  with.totals.brisk_mean_ms <= without.totals.brisk_mean_ms * 1.05 + 20 &&
		  (double)with.totals.brisk_worst_ms <= (double)without.totals.brisk_worst_ms * 1.25 + 1000;
	printf("SEED=%llu with %u%% %s: %u healthy deliveries in %.0f ms, %lld at worst; without: %.0f ms, %lld\n",
	       (unsigned long long)seed, sick_percent,
	       sick == BEHAVIOUR_COUNT ? "of all kinds of sick" : behaviour_name(sick), with.totals.brisk_count,
	       with.totals.brisk_mean_ms, (long long)with.totals.brisk_worst_ms, without.totals.brisk_mean_ms,
	       (long long)without.totals.brisk_worst_ms);
	if (!is_good)
		printf("FAILED: the sick slow the healthy down\n");
	fflush(stdout);
	return is_good;
}

static unsigned compare_all(bool is_long)
{
	static const enum behaviour kinds[] = {BEHAVIOUR_COUNT, TARPIT,	  SILENT,   REFUSED,
					       HOSTILE,		DNS_DEAD, THROTTLE, BUSY};
	unsigned failed = 0;

	for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
		for (uint64_t seed = 1; seed <= (is_long ? 10 : 1); seed++)
			failed += !compare_healthy(1000 * (k + 1) + seed, kinds[k], 60);
	return failed;
}

/* ---- relayhosts: their trouble with our account is nobody's failure ---- */

static bool run_relayhosts(enum behaviour first, unsigned count)
{
	struct scenario_options options;
	struct scenario_result result;
	const struct ledger_totals *t = &result.totals;
	/* Half of the time in trouble, and one probe a minute in it. */
	unsigned probes;
	bool is_good;

	scenario_draw(&options, 40 + first, MESSAGES);
	options.domains = 20;
	options.sick_percent = 0;
	scenario_calm(&options);
	options.is_cut = false;
	options.relayhost = first;
	options.rig = (struct rig_options){200, 20, count, 48 * HOUR_MS, 0, 10};
	scenario_run(&options, false, &result);
	probes = (unsigned)(result.virtual_ms / 2 / MIN_MS * 5 / 4) + 50;
	is_good = result.is_good && t->expired == 0 && t->waiting == 0 && result.refused <= probes;
	if (count > 1 && first != TAKES_AND_DROPS &&
	    first != TARPIT) /* a minute: one connection that times out, and room */
		is_good = is_good && t->brisk_worst_ms < MIN_MS;
	printf(
	    "%u relayhosts, the first %s: %u delivered, %u failed, in %.0f ms, %.0f s at worst; %u connections to it, "
	    "%u messages refused by it\n",
	    count, behaviour_name(first), t->delivered, t->failed, t->brisk_mean_ms, (double)t->brisk_worst_ms / 1000,
	    result.relayhost_asked, result.refused);
	if (!is_good)
		printf("FAILED: a relayhost in trouble is hammered, or loses mail\n");
	fflush(stdout);
	return is_good;
}

static unsigned run_all_relayhosts(void)
{
	static const enum behaviour kinds[] = {HEALTHY,	       REFUSED,		FLAPPING, OUT_OF_QUOTA,
					       ACCOUNT_LOCKED, TAKES_AND_DROPS, TARPIT};
	unsigned failed = 0;

	for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
		for (unsigned count = kinds[k] == REFUSED ? 2 : 1; count <= 2; count++)
			failed += !run_relayhosts(kinds[k], count);
	return failed;
}

/* ---- greylisting: how long behind the delay, with how many visits ---- */

static bool measure_greylist(const char *words, enum behaviour kind)
{
	struct scenario_options options;
	struct scenario_result result;

	scenario_draw(&options, 7, 1000);
	options.domains = 1000;
	options.messages = 1000;
	options.sick_percent = 100;
	options.only = kind;
	scenario_calm(&options);
	options.is_cut = false;
	options.is_calm = true;
	options.rig = (struct rig_options){200, 20, 0, 48 * HOUR_MS, 0, 10};
	scenario_run(&options, false, &result);
	printf("greylisted %s, delays of 1 to 60 min (log-uniform): in %.0f s behind the delay, %.1f visits, %u "
	       "recipients\n",
	       words, result.greylisted_behind_mean_ms / 1000,
	       result.greylisted ? (double)result.greylisted_visits / result.greylisted : 0, result.greylisted);
	return result.is_good && result.greylisted > 100;
}

static bool wants_part(const char *name)
{
	const char *part = getenv("PART");

	return !part || strcmp(part, name) == 0;
}

int main(void)
{
	bool is_long = getenv("LONG") && *getenv("LONG");
	uint64_t only = number_of("SEED", 0), count = number_of("SEEDS", is_long ? 10 * SEEDS : SEEDS);
	uint64_t from = number_of("FROM", 1);
	unsigned failed = 0;

	if (only)
		return run_seed(only, true) ? 0 : 1;
	for (uint64_t seed = from; seed < from + count && wants_part("days"); seed++)
		failed += !run_seed(seed, false);
	if (wants_part("healthy"))
		failed += compare_all(is_long);
	if (wants_part("relayhosts"))
		failed += run_all_relayhosts();
	if (wants_part("greylist")) {
		failed += !measure_greylist("without a hint", GREYLIST);
		failed += !measure_greylist("with a hint", GREYLIST_HINT);
		failed += !measure_greylist("at the end of data", GREYLIST_CONTENT);
	}
	printf("%llu simulated days, %u failures\n", (unsigned long long)count, failed);
	return failed ? 1 : 0;
}
