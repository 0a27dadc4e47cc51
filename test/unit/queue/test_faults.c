/*
 * The journal under fire: random histories on the fault disk against the model of support_history.c.
 *
 * SEED=n runs that one history alone and says what happens in it. LONG=1 runs many more, HISTORIES=n so many of each
 * kind, FIRST=n begins the short ones at that seed. A history that ends in a
 * violation is shrunk and printed.
 */
#include "support_history.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct totals {
	uint64_t histories, ops, faults, crashes, acked, compacted;
};

static uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value && *value ? strtoull(value, NULL, 0) : otherwise;
}

static uint64_t scaled(uint64_t count)
{
	return env_number("HISTORIES", env_number("LONG", 0) ? count * 20 : count);
}

static void add(struct totals *totals, const struct history_result *result)
{
	totals->histories++;
	totals->ops += result->ops;
	totals->faults += result->faults;
	totals->crashes += result->crashes;
	totals->acked += result->acked;
	totals->compacted += result->compacted;
}

static void fail_with(struct history *history)
{
	struct history_result result;

	history_shrink(history, NULL);
	history_print(history);
	history_run(history, NULL, true, &result);
	fail_msg("%s", result.text);
}

static void run_histories(uint64_t first, uint64_t count, uint32_t steps, enum history_danger danger)
{
	struct totals totals = {0};
	static struct history history;
	struct history_result result;

	for (uint64_t seed = first; seed < first + count; seed++) {
		history_random(&history, seed, steps, danger);
		history_run(&history, NULL, false, &result);
		add(&totals, &result);
		if (result.violated)
			fail_with(&history);
	}
	print_message("# %" PRIu64 " histories: %" PRIu64 " disk operations, %" PRIu64 " faults, %" PRIu64
		      " recoveries checked, %" PRIu64 " messages accepted, %" PRIu64 " with compaction\n",
		      totals.histories, totals.ops, totals.faults, totals.crashes, totals.acked, totals.compacted);
}

static void one_history(uint64_t seed)
{
	static struct history history;
	struct history_result result;

	history_random(&history, seed, (uint32_t)env_number("STEPS", 60),
		       (enum history_danger)env_number("DANGER", DANGER_FAULTS));
	if (env_number("SHRINK", 0))
		history_shrink(&history, NULL);
	history_run(&history, NULL, true, &result);
	if (result.violated)
		fail_msg("%s", result.text);
}

static void long_quiet_histories_keep_everything(void **state)
{
	(void)state;
	run_histories(1, scaled(100), 400, DANGER_NONE);
}

/* J3, J28 */
static void short_histories_with_faults_keep_everything(void **state)
{
	(void)state;
	if (env_number("SEED", 0))
		one_history(env_number("SEED", 0));
	else
		run_histories(env_number("FIRST", 1000000), scaled(2000), 60, DANGER_FAULTS);
}

static void long_histories_with_faults_keep_everything(void **state)
{
	(void)state;
	run_histories(2000000, scaled(200), 400, DANGER_FAULTS);
}

static void rot_loses_nothing_in_silence(void **state)
{
	(void)state;
	run_histories(3000000, scaled(2000), 60, DANGER_ROT);
}

static void rot_and_faults_together_lose_nothing_in_silence(void **state)
{
	(void)state;
	run_histories(4000000, scaled(1000), 60, DANGER_ROT | DANGER_FAULTS);
}

/* J6, J25 */
static void a_full_disk_takes_results_and_then_mail_again(void **state)
{
	(void)state;
	run_histories(6000000, scaled(200), 200, DANGER_FULL);
	run_histories(7000000, scaled(200), 200, DANGER_FULL | DANGER_FAULTS);
}

/* Each way in which an operation fails: kind, and how many operations do. */
static const struct {
	enum fault_kind kind;
	uint64_t count;
} ways[] = {
    {FAULT_EIO, 1},  {FAULT_EIO, 40}, {FAULT_ENOSPC, 1}, {FAULT_ENOSPC, 40}, {FAULT_SHORT, 1},
    {FAULT_DIED, 1}, {FAULT_DIED, 3}, {FAULT_KILL, 1},	 {FAULT_POWER, 1},   {FAULT_POWER, 1},
};

static uint64_t fail_everywhere(struct history *history, struct totals *totals)
{
	struct history_result result;
	uint64_t points = 0;

	for (size_t way = 0; way < sizeof(ways) / sizeof(ways[0]); way++) {
		history->plan_kind = ways[way].kind;
		history->plan_count = ways[way].count;
		for (history->plan_at = 1;; history->plan_at++) {
			history_run(history, NULL, false, &result);
			add(totals, &result);
			if (result.violated)
				fail_with(history);
			if (result.ops < history->plan_at)
				break;
			points++;
		}
	}
	return points;
}

/* J1, J2, J4, J10, J24 */
static void every_operation_fails_in_every_way(void **state)
{
	uint64_t workloads = env_number("WORKLOADS", env_number("LONG", 0) ? 3000 : 230), points = 0;
	struct totals totals = {0};
	static struct history history;

	(void)state;
	for (uint64_t i = 0; i < workloads; i++) {
		/* Some are long enough for segments to fill, be walked and go. */
		history_random(&history, 8000000 + i, i % 23 == 0 ? 160 : 30, DANGER_CRASH);
		points += fail_everywhere(&history, &totals);
	}
	print_message("# %" PRIu64 " fault points in %" PRIu64 " workloads, %" PRIu64 " recoveries checked\n", points,
		      workloads, totals.crashes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_operation_fails_in_every_way),
	    cmocka_unit_test(long_quiet_histories_keep_everything),
	    cmocka_unit_test(short_histories_with_faults_keep_everything),
	    cmocka_unit_test(long_histories_with_faults_keep_everything),
	    cmocka_unit_test(a_full_disk_takes_results_and_then_mail_again),
	    cmocka_unit_test(rot_loses_nothing_in_silence),
	    cmocka_unit_test(rot_and_faults_together_lose_nothing_in_silence),
	};
	return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
