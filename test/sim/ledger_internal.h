/* What the files of the ledger share: ledger.c (messages, history), ledger_dsn.c, ledger_end.c (crashes, the verdict). */
#ifndef TEST_SIM_LEDGER_INTERNAL_H
#define TEST_SIM_LEDGER_INTERNAL_H

#include "test/sim/ledger.h"

enum { TRACE_ENTRIES = 1 << 16, VIOLATIONS_MAX = 8, PRINTED_PER_MESSAGE = 60 };

struct trace_entry {
	int64_t at_ms;
	uint32_t serial;
	char text[100];
};

struct violation {
	uint32_t serial;
	int64_t at_ms;
	char text[200];
};

struct ledger {
	const struct sim_clock *clock;
	bool clock_steps;
	uint32_t watched; /* its history is printed as it happens */
	struct truth_message **messages;
	uint32_t count, cap;
	struct trace_entry *trace;
	uint64_t traced;
	struct violation violations[VIOLATIONS_MAX];
	unsigned violation_count;
	struct truth_rcpt **pending; /* results that are not durable yet */
	struct truth_dsn **pending_dsns;
	size_t pending_count, pending_cap, pending_dsn_count, pending_dsn_cap;
};

int64_t ledger_now_ms(const struct ledger *ledger);
/* The sender wants to hear of this: enum queue_notify_flag. */
bool ledger_wants_dsn(const struct truth_rcpt *rcpt, uint32_t flag);
void ledger_report_dsn(struct ledger *ledger, const struct queue_message *message, const struct outcome *outcome);

#endif
