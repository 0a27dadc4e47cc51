/*
 * A history: what happens to a queue on the fault disk, step by step, against a model of what was promised. Made from a
 * seed, run the same way each time, and shrunk when it ends in a violation.
 */
#ifndef TEST_QUEUE_SUPPORT_HISTORY_H
#define TEST_QUEUE_SUPPORT_HISTORY_H

#include "queue/journal.h"
#include "support_fault_disk.h"

enum step_kind {
	STEP_SUBMIT,  /* a: recipients, b: octets */
	STEP_BEGIN,   /* an upload */
	STEP_PIECE,   /* a: which upload, b: octets */
	STEP_COMMIT,  /* a: which upload, b: recipients */
	STEP_ABORT,   /* a: which upload */
	STEP_TURN,    /* of the loop */
	STEP_FINISH,  /* one asynchronous operation of the disk ends */
	STEP_FLUSH,   /* turns and ends until nothing is under way */
	STEP_TIME,    /* a: how much */
	STEP_DELIVER, /* takes all that is due */
	STEP_RESULT,  /* a: which recipient, b: what became of it */
	STEP_DONE,    /* a: which message; all its recipients are delivered */
	STEP_HOLD,
	STEP_RELEASE,
	STEP_DELETE,
	STEP_WARN,
	STEP_READ,   /* a: which message: all of it */
	STEP_READER, /* a: which message: a reader stays open */
	STEP_READ_ON,
	STEP_FAULT, /* a: kind, b: after how many operations and for how long */
	STEP_CALM,  /* faults end; time passes; bounds hold and mail is taken again */
	STEP_CRASH, /* a: 0 kill, 1 power; b: seed, and faults during recovery */
	STEP_ROT,   /* a: which segment, b: where; then a crash */
	STEP_KIND_COUNT,
};

struct step {
	uint8_t kind;
	uint32_t a, b;
};

#define HISTORY_STEPS_MAX 400

struct history {
	uint64_t seed; /* of disk, nonces and contents */
	uint64_t capacity_segments;
	/* A fault at one operation of the disk, and at `plan_count` in all; 0: none. */
	uint64_t plan_at, plan_count;
	enum fault_kind plan_kind;
	uint32_t count;
	struct step steps[HISTORY_STEPS_MAX];
};

struct history_result {
	bool violated;
	char text[300];
	uint32_t at_step;
	uint64_t ops;	    /* of the disk */
	uint64_t faults;    /* that struck */
	uint64_t crashes;   /* recoveries that were checked */
	uint64_t acked;	    /* messages */
	uint64_t compacted; /* MOVEs and moved pieces */
	uint64_t freed;	    /* segments that went away */
};

/* What may happen in a random history besides the life of mail. */
enum history_danger {
	DANGER_NONE = 0,
	DANGER_FAULTS = 1,
	DANGER_ROT = 2,
	DANGER_FULL = 4,  /* much mail on a small disk */
	DANGER_CRASH = 8, /* crashes, but no fault */
};
void history_random(struct history *history, uint64_t seed, uint32_t steps, enum history_danger danger);
/* Runs it on a fresh disk, with a calm, a crash and a check at the end. `trace`: says what happens. */
void history_run(const struct history *history, const struct journal_rules *rules, bool trace,
		 struct history_result *result);
/* Removes steps as long as it still ends in a violation. */
void history_shrink(struct history *history, const struct journal_rules *rules);
void history_print(const struct history *history);
const char *history_step_name(enum step_kind kind);

#endif
