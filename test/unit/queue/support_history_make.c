/* Histories: made, shrunk, printed. */
#include "support_history.h"

#include "base/base.h"
#include "base/random.h"

#include <inttypes.h>
#include <stdio.h>

const char *history_step_name(enum step_kind kind)
{
	static const char *const names[] = {"submit",  "begin",	  "piece",  "commit",  "abort",	 "turn",
					    "finish",  "flush",	  "time",   "deliver", "result", "done",
					    "hold",    "release", "delete", "warn",    "read",	 "reader",
					    "read on", "fault",	  "calm",   "crash",   "rot"};

	return names[kind];
}

/* ---- Making ---- */

struct weight {
	enum step_kind kind;
	uint32_t weight;
	enum history_danger danger;
};

static const struct weight weights[] = {
    {STEP_SUBMIT, 14, DANGER_NONE}, {STEP_BEGIN, 4, DANGER_NONE},
    {STEP_PIECE, 8, DANGER_NONE},   {STEP_COMMIT, 5, DANGER_NONE},
    {STEP_ABORT, 1, DANGER_NONE},   {STEP_TURN, 14, DANGER_NONE},
    {STEP_FINISH, 14, DANGER_NONE}, {STEP_FLUSH, 8, DANGER_NONE},
    {STEP_TIME, 4, DANGER_NONE},    {STEP_DELIVER, 3, DANGER_NONE},
    {STEP_RESULT, 8, DANGER_NONE},  {STEP_DONE, 10, DANGER_NONE},
    {STEP_HOLD, 1, DANGER_NONE},    {STEP_RELEASE, 1, DANGER_NONE},
    {STEP_DELETE, 1, DANGER_NONE},  {STEP_WARN, 1, DANGER_NONE},
    {STEP_READ, 2, DANGER_NONE},    {STEP_READER, 2, DANGER_NONE},
    {STEP_READ_ON, 3, DANGER_NONE}, {STEP_FAULT, 5, DANGER_FAULTS},
    {STEP_CALM, 1, DANGER_FAULTS},  {STEP_CRASH, 3, DANGER_FAULTS | DANGER_CRASH},
    {STEP_ROT, 3, DANGER_ROT},
};

static uint32_t weight_of(const struct weight *weight, enum history_danger danger)
{
	return weight->danger == DANGER_NONE || weight->danger & danger ? weight->weight : 0;
}

void history_random(struct history *history, uint64_t seed, uint32_t steps, enum history_danger danger)
{
	struct rng_seeded rng;
	uint32_t total = 0;

	rng_seeded_init(&rng, seed ^ 0x5bd1e995u);
	*history = (struct history){.seed = seed, .count = MIN(steps, (uint32_t)HISTORY_STEPS_MAX)};
	history->capacity_segments = rng_below(&rng.rng, 5) == 0 ? 8 + rng_below(&rng.rng, 12) : 200;
	if (danger & DANGER_FULL)
		history->capacity_segments = 7 + rng_below(&rng.rng, 4);
	for (size_t i = 0; i < ARRAY_LEN(weights); i++)
		total += weight_of(&weights[i], danger);
	for (uint32_t s = 0; s < history->count; s++) {
		uint64_t at = rng_below(&rng.rng, total);
		size_t i = 0;
		while (at >= weight_of(&weights[i], danger))
			at -= weight_of(&weights[i++], danger);
		if (danger & DANGER_FULL && rng_below(&rng.rng, 3) == 0)
			i = 0;
		history->steps[s] = (struct step){(uint8_t)weights[i].kind, (uint32_t)rng_below(&rng.rng, 1u << 30),
						  (uint32_t)rng_below(&rng.rng, 1u << 30)};
		if (danger & DANGER_CRASH)
			history->steps[s].b = history->steps[s].b / 4 * 4 + 2; /* crash_now(): no faults of its own */
	}
}

/* ---- Shrinking ---- */

static bool still_violates(const struct history *history, const struct journal_rules *rules)
{
	struct history_result result;

	history_run(history, rules, false, &result);
	return result.violated;
}

void history_shrink(struct history *history, const struct journal_rules *rules)
{
	for (uint32_t chunk = history->count; chunk > 0; chunk = chunk > 1 ? (chunk + 1) / 2 : 0) {
		uint32_t at = 0;
		while (at < history->count) {
			struct history shorter = *history;
			uint32_t n = MIN(chunk, history->count - at);
			memmove(shorter.steps + at, shorter.steps + at + n,
				(shorter.count - at - n) * sizeof(shorter.steps[0]));
			shorter.count -= n;
			if (still_violates(&shorter, rules))
				*history = shorter;
			else
				at += n;
		}
	}
}

void history_print(const struct history *history)
{
	printf("SEED=%" PRIu64 ", %u steps", history->seed, history->count);
	if (history->plan_at)
		printf(", from disk operation %" PRIu64 " on %" PRIu64 " times %s", history->plan_at,
		       history->plan_count, fault_kind_name(history->plan_kind));
	printf(":\n");
	for (uint32_t i = 0; i < history->count; i++)
		printf("%3u %s %u %u\n", i, history_step_name((enum step_kind)history->steps[i].kind),
		       history->steps[i].a, history->steps[i].b);
}
