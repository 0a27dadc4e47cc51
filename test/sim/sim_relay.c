/*
 * The relay whole, in virtual time.
 *
 * A seed is a day of mail: 300 to 900 messages for two or three recipients each, every tenth one a day of 2,000 to
 * 6,000; then as long as it takes until the last of them has ended. So it is about a thousand messages a day on
 * average, and SEEDS such days.
 *
 *     SEED=17   that seed alone, with what became of each domain
 *     MESSAGE=5 with SEED: the whole history of that message
 *     SEEDS=5   so many, from FROM (1) on
 *     PART=days, healthy, relayhosts, quotas or greylist: that part alone
 *     LONG=1    ten times as many; LONG=50: fifty times
 *     JOBS=2    so many processes; default: one for each processor
 *     SIM_LOG=1 the relay's own log, too
 */
#include "test/sim/pool.h"
#include "test/sim/scenario.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { SEEDS = 500, MESSAGES = 600, MESSAGES_BIG = 4000, BIG_DAY = 10, MESSAGES_COMPARED = 1600 };

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

/* Of all days, in memory that all processes share. */
struct sums {
	atomic_ullong days, messages, rcpts, dsns, virtual_hours;
};
static struct sums *sums;

static void add_up(const struct scenario_result *result)
{
	atomic_fetch_add(&sums->days, 1);
	atomic_fetch_add(&sums->messages, result->totals.messages);
	atomic_fetch_add(&sums->rcpts, result->totals.rcpts);
	atomic_fetch_add(&sums->dsns, result->totals.dsns + result->totals.delays);
	atomic_fetch_add(&sums->virtual_hours, (unsigned long long)(result->virtual_ms / HOUR_MS));
}

static unsigned rate_count(const struct rig_options *rig)
{
	unsigned count = rig->route_count + (rig->user_rate.count > 0);

	for (unsigned r = 0; r < rig->relayhosts; r++)
		count += rig->rates[r].count > 0;
	return count;
}

static bool run_seed(uint64_t seed, bool verbose)
{
	struct scenario_options options;
	struct scenario_result result;
	const struct ledger_totals *t = &result.totals;
	int64_t began = real_ms();

	scenario_draw(&options, seed, seed % BIG_DAY == 0 ? MESSAGES_BIG : MESSAGES);
	printf("SEED=%llu: %u domains, %u%% sick, %u relayhosts, %u rates, %u pauses, %u crashes, %u stops, limits "
	       "%u/%u, expiry %lld h%s\n",
	       (unsigned long long)seed, options.domains, options.sick_percent, options.rig.relayhosts,
	       rate_count(&options.rig), options.pauses, options.crashes, options.stops, options.rig.connections,
	       options.rig.per_destination, (long long)(options.rig.expire_ms / HOUR_MS),
	       options.is_cut ? ", cut" : "");
	scenario_run(&options, verbose, &result);
	printf("  %u messages, %u recipients: %u delivered, %u failed, %u expired, %u deleted, %u waiting; %u twice; "
	       "%u DSNs, %u "
	       "warnings; healthy in %.0f ms, %.0f s at worst; %u sessions, %u without a message; most %u connections; "
	       "%lld h, %llu turns, %lld ms\n",
	       t->messages, t->rcpts, t->delivered, t->failed, t->expired, t->deleted, t->waiting, t->twice, t->dsns,
	       t->delays, t->brisk_mean_ms, (double)t->brisk_worst_ms / 1000, result.sessions, result.barren,
	       result.connections_most, (long long)(result.virtual_ms / HOUR_MS), (unsigned long long)result.turns,
	       (long long)(real_ms() - began));
	if (!result.is_good)
		printf("FAILED: SEED=%llu\n", (unsigned long long)seed);
	add_up(&result);
	return result.is_good;
}

/* ---- healthy destinations are as fast as without the sick ones ---- */

static bool compare_healthy(uint64_t seed, enum behaviour sick, unsigned sick_percent)
{
	struct scenario_options options;
	struct scenario_result with, without;
	bool is_good;

	scenario_draw(&options, seed, MESSAGES_COMPARED);
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
	return is_good;
}

static bool compare(uint64_t number)
{
	static const enum behaviour kinds[] = {BEHAVIOUR_COUNT, TARPIT,	  SILENT,   REFUSED,
					       HOSTILE,		DNS_DEAD, THROTTLE, BUSY};
	uint64_t kind = number % ARRAY_LEN(kinds), seed = 1 + number / ARRAY_LEN(kinds);

	return compare_healthy(1000 * (kind + 1) + seed, kinds[kind], 60);
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

	scenario_draw(&options, 40 + first, MESSAGES_COMPARED / 2);
	options.domains = 20;
	options.sick_percent = 0;
	scenario_calm(&options);
	options.is_cut = false;
	options.rig = (struct rig_options){.connections = 200,
					   .per_destination = 20,
					   .relayhosts = count,
					   .expire_ms = 48 * HOUR_MS,
					   .sync_worst_ms = 10};
	options.relayhosts[0] = first;
	options.relayhosts[1] = HEALTHY;
	scenario_run(&options, false, &result);
	probes = (unsigned)(result.virtual_ms / 2 / MIN_MS * 5 / 4) + 50;
	is_good = result.is_good && t->expired == 0 && t->waiting == 0 && result.refused <= probes;
	if (count > 1 && first != TAKES_AND_DROPS &&
	    first != TARPIT) /* a minute: one connection that times out, and room */
		is_good = is_good && t->brisk_worst_ms < MIN_MS;
	printf(
	    "%u relayhosts, the first %s: %u delivered, %u failed, in %.0f ms, %.0f s at worst; %u connections to it, "
	    "%u messages refused by it, %u taken\n",
	    count, behaviour_name(first), t->delivered, t->failed, t->brisk_mean_ms, (double)t->brisk_worst_ms / 1000,
	    result.relayhost_asked, result.refused, result.first_taken);
	if (!is_good)
		printf("FAILED: a relayhost in trouble is hammered, or loses mail\n");
	return is_good;
}

static bool run_relayhost_kind(uint64_t number)
{
	static const enum behaviour kinds[] = {HEALTHY,	       REFUSED,		FLAPPING, OUT_OF_QUOTA,
					       ACCOUNT_LOCKED, TAKES_AND_DROPS, TARPIT};
	enum behaviour kind = kinds[number / 2];

	return run_relayhosts(kind, kind == REFUSED ? 2 : 1 + number % 2);
}
enum { RELAYHOST_RUNS = 14 };

/* ---- quotas: what is over them waits in order, and they are used up ---- */

static bool run_quota(uint64_t number)
{
	/* Of a day's 800 messages to 20 domains: through one relayhost, through the first of two, of a route by MX. */
	static const struct {
		const char *words;
		unsigned relayhosts;
		struct rig_rate relayhost, route;
	} kinds[] = {{"one relayhost, 20/h", 1, {20, HOUR_MS}, {0, 0}},
		     {"two relayhosts, the first 400/d", 2, {400, DAY_MS}, {0, 0}},
		     {"one relayhost, and a route 1/h", 1, {0, 0}, {1, HOUR_MS}},
		     {"a route by MX, 1/h", 0, {0, 0}, {1, HOUR_MS}},
		     {"a route by MX, 1/m", 0, {0, 0}, {1, MIN_MS}}};
	const struct rig_rate *rate = kinds[number].relayhost.count ? &kinds[number].relayhost : &kinds[number].route;
	struct scenario_options options;
	struct scenario_result result;
	const struct ledger_totals *t = &result.totals;
	double needed_ms, took_ms;
	bool is_good;

	scenario_draw(&options, 60 + number, MESSAGES_COMPARED / 2);
	options.messages = MESSAGES_COMPARED / 2;
	options.domains = 20 + kinds[number].relayhosts;
	options.sick_percent = 0;
	scenario_calm(&options);
	options.is_cut = false;
	options.is_calm = options.is_even = true;
	options.rig = (struct rig_options){.connections = 200,
					   .per_destination = 20,
					   .relayhosts = kinds[number].relayhosts,
					   .rates = {kinds[number].relayhost},
					   .route_count = kinds[number].route.count > 0,
					   .routes = {{kinds[number].relayhosts, kinds[number].route}},
					   .expire_ms = 96 * HOUR_MS,
					   .sync_worst_ms = 10};
	options.relayhosts[0] = options.relayhosts[1] = HEALTHY;
	scenario_run(&options, false, &result);
	/* All but the first lot have to wait; the window moves by sixtieths, and the day's mail has to come first. */
	needed_ms = (double)((result.limited_count - 1) / rate->count) * (double)rate->per_ms;
	took_ms = (double)(result.limited_last_ms - result.limited_first_ms);
	is_good = result.is_good && t->expired == 0 && t->waiting == 0 && result.limited_overtakes == 0 &&
		  took_ms <= MAX(needed_ms * 1.03, (double)DAY_MS) + (double)rate->per_ms &&
		  t->brisk_worst_ms < 5 * SEC_MS;
	printf("%s: %u messages in %.1f h (at least %.1f), %u overtook; the others in %.0f ms, %lld at worst\n",
	       kinds[number].words, result.limited_count, took_ms / HOUR_MS, needed_ms / HOUR_MS,
	       result.limited_overtakes, t->brisk_mean_ms, (long long)t->brisk_worst_ms);
	if (!is_good)
		printf("FAILED: a quota is not used up, or not kept in order\n");
	return is_good;
}
enum { QUOTA_RUNS = 5 };

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
	options.rig = (struct rig_options){
	    .connections = 200, .per_destination = 20, .expire_ms = 48 * HOUR_MS, .sync_worst_ms = 10};
	scenario_run(&options, false, &result);
	printf("greylisted %s, delays of 1 to 60 min (log-uniform): in %.0f s behind the delay, %.1f visits, %u "
	       "recipients\n",
	       words, result.greylisted_behind_mean_ms / 1000,
	       result.greylisted ? (double)result.greylisted_visits / result.greylisted : 0, result.greylisted);
	return result.is_good && result.greylisted > 100;
}

static bool run_greylist(uint64_t number)
{
	static const struct {
		const char *words;
		enum behaviour kind;
	} kinds[] = {
	    {"without a hint", GREYLIST}, {"with a hint", GREYLIST_HINT}, {"at the end of data", GREYLIST_CONTENT}};

	return measure_greylist(kinds[number].words, kinds[number].kind);
}
enum { GREYLIST_RUNS = 3 };

/* ---- all of them ---- */

struct part {
	const char *name;
	uint64_t from;
	unsigned count;
	bool (*run)(uint64_t number);
};

static bool run_day(uint64_t seed)
{
	return run_seed(seed, false);
}

static bool run_task(void *ctx, unsigned number)
{
	const struct part *part = ctx;

	for (; number >= part->count; part++)
		number -= part->count;
	return part->run(part->from + number);
}

/* LONG=1 means ten times. */
static unsigned scale(void)
{
	uint64_t factor = number_of("LONG", 0);

	return factor == 0 ? 1 : factor == 1 ? 10 : (unsigned)factor;
}

int main(void)
{
	uint64_t only = number_of("SEED", 0);
	struct part parts[] = {
	    {"healthy", 0, 8 * scale(), compare},
	    {"relayhosts", 0, RELAYHOST_RUNS, run_relayhost_kind},
	    {"quotas", 0, QUOTA_RUNS, run_quota},
	    {"greylist", 0, GREYLIST_RUNS, run_greylist},
	    {"days", number_of("FROM", 1), (unsigned)number_of("SEEDS", SEEDS * scale()), run_day},
	};
	unsigned count = 0, failed;
	int64_t began = real_ms();

	sums = mmap(NULL, sizeof(*sums), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (only)
		return run_seed(only, true) ? 0 : 1;
	for (size_t p = 0; p < ARRAY_LEN(parts); p++) {
		if (getenv("PART") && strcmp(getenv("PART"), parts[p].name) != 0)
			parts[p].count = 0;
		count += parts[p].count;
	}
	failed = pool_run(count, run_task, parts);
	printf(
	    "%llu simulated days, %llu hours with their ends: %llu messages, %llu recipients, %llu DSNs; %u failures, "
	    "%lld s\n",
	    sums->days, sums->virtual_hours, sums->messages, sums->rcpts, sums->dsns, failed,
	    (long long)(real_ms() - began) / 1000);
	return failed ? 1 : 0;
}
