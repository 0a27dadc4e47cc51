/*
 * Each rule of the journal earns its place: with it broken, random histories on the fault disk end in a violation; with
 * all kept, the very same histories do not. SHRINK=1 shows the shortest history for each.
 */
#include "support_history.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HISTORIES_MAX 40000

struct broken_rule {
	const char *name;
	struct journal_rules rules;
	enum history_danger danger;
	uint32_t steps;
};

static const struct broken_rule broken_rules[] = {
    {"each batch is padded to whole blocks", {.no_padding = true}, DANGER_FAULTS, 60},
    {"the header stands twice", {.no_second_header = true}, DANGER_ROT, 40},
    {"a MARK ends each batch and carries the watermark", {.no_marks = true}, DANGER_ROT, 60},
    {"a failed sync is never repeated on the same file", {.sync_again = true}, DANGER_FAULTS, 60},
    {"a sync whose helper died counts as failed", {.dead_helper_is_fine = true}, DANGER_FAULTS, 60},
    {"bytes stay in memory until they are synced", {.forget_unsynced = true}, DANGER_FAULTS, 60},
    {"a failed write ends the segment", {.write_error_is_fine = true}, DANGER_FAULTS, 60},
    {"the header names how far its predecessor counts", {.no_cut = true}, DANGER_FAULTS, 60},
    {"a copy replaces the old record only when it is synced", {.free_unsynced = true}, DANGER_FAULTS, 400},
    {"a segment is unlinked only when a synced MARK says so", {.free_unmarked = true}, DANGER_FAULTS, 120},
    {"pieces of messages keep their segment", {.forget_pieces = true}, DANGER_FAULTS, 200},
    {"pieces of uploads under way keep their segment", {.forget_uploads = true}, DANGER_FAULTS, 200},
    {"pieces of uploads under way are moved", {.uploads_stay = true}, DANGER_FAULTS, 300},
    {"a MOVE holds the state of the moment when it is written", {.fold_early = true}, DANGER_FAULTS, 200},
    {"what is read for delivery is checked", {.trust_reads = true}, DANGER_ROT, 60},
    {"number and hash of pieces are checked", {.trust_pieces = true}, DANGER_ROT, 60},
    {"files are never recycled without a nonce", {.no_nonce = true, .recycle = true}, DANGER_FAULTS, 200},
    {"a message is due only when it is synced", {.schedule_unsynced = true}, DANGER_FAULTS, 60},
    {"a sync covers only what was written before it began", {.sync_early = true}, DANGER_FAULTS, 60},
    {"the 250 waits for the sync", {.reply_unsynced = true}, DANGER_FAULTS, 60},
    {"a replayed segment is never appended to", {.append_replayed = true}, DANGER_FAULTS, 60},
    {"a file's name is synced before its header", {.no_dir_sync = true}, DANGER_FAULTS, 60},
    {"evidence is saved before anything changes", {.quarantine_last = true}, DANGER_ROT, 60},
    {"recovery copies the records behind the watermark", {.tail_stays = true}, DANGER_FAULTS, 60},
    {"recovery syncs the copies before the header", {.header_first = true}, DANGER_FAULTS, 60},
    {"nothing goes before the new header stands", {.clean_early = true}, DANGER_FAULTS, 60},
    {"good records behind a gap are kept", {.stop_at_gap = true}, DANGER_ROT, 60},
    {"ids have a floor in the headers", {.reuse_ids = true}, DANGER_FAULTS, 60},
    {"the last segments are kept for results and moves", {.no_reserve = true}, DANGER_FULL, 300},
};

static bool find_violation(const struct broken_rule *rule, struct history *history, struct history_result *result,
			   uint64_t *tried)
{
	for (*tried = 1; *tried <= HISTORIES_MAX; (*tried)++) {
		history_random(history, 5000000 + *tried, rule->steps, rule->danger);
		history_run(history, &rule->rules, false, result);
		if (result->violated)
			return true;
	}
	return false;
}

static void each_rule_is_needed(void **state)
{
	static struct history history;
	struct history_result result, kept;
	unsigned unnoticed = 0;
	uint64_t tried;

	(void)state;
	for (size_t i = 0; i < sizeof(broken_rules) / sizeof(broken_rules[0]); i++) {
		const struct broken_rule *rule = &broken_rules[i];
		if (getenv("RULE") && !strstr(rule->name, getenv("RULE")))
			continue;
		if (!find_violation(rule, &history, &result, &tried)) {
			print_error("broken, and nobody noticed: %s\n", rule->name);
			unnoticed++;
			continue;
		}
		history_run(&history, NULL, false, &kept);
		if (kept.violated)
			fail_msg("kept, and yet: %s", kept.text);
		print_message("# without \"%s\": %s (history %" PRIu64 ")\n", rule->name, result.text, tried);
		if (getenv("SHRINK")) {
			history_shrink(&history, &rule->rules);
			history_run(&history, &rule->rules, true, &result);
		}
	}
	assert_int_equal(unnoticed, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_rule_is_needed),
	};
	return cmocka_run_group_tests_name("rules", tests, NULL, NULL);
}
