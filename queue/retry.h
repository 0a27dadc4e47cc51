/*
 * queue/retry.h - when the next attempt is
 *
 * Pure: the only file that decides it. Each failure class has a list of steps, the waits after the first, second, ...
 * attempt; the last step repeats. A random part is added so that what failed together does not come back together. A
 * time that the server itself named ("retry in 300 seconds") wins where it may be believed: greylist and throttle only,
 * once per recipient, clamped to 30 s .. 4 h, plus 5 to 15 s.
 *
 * The default greylist steps sit just past the delays that greylisters use (5, 10, 15, 30, 60 minutes after the first
 * refusal), since a visit just before the end is a visit lost; and they widen by about a half each, which is what keeps
 * the wait behind an unknown delay short for few visits. relayd/greylist.h learns the rest.
 */
#ifndef QUEUE_RETRY_H
#define QUEUE_RETRY_H

#include "base/random.h"
#include "base/vocabulary.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RETRY_STEPS_MAX 32
#define RETRY_HINT_MIN_MS (30 * 1000)
#define RETRY_HINT_MAX_MS (4 * 3600 * 1000)

struct retry_steps {
	uint32_t count; /* 0: this class uses CLASS_OTHER's steps */
	int64_t step_ms[RETRY_STEPS_MAX];
};

struct retry_policy {
	struct retry_steps steps[CLASS_COUNT];
};

/* What is known when an attempt has failed for now. */
struct retry_input {
	enum failure_class class;
	uint32_t attempts; /* made so far, with this one: at least 1; for greylist those that were refused so */
	int64_t hint_ms;   /* the wait the server asked for; 0: none */
	bool hint_used;	   /* an earlier hint was believed for this recipient */
};

void retry_policy_default(struct retry_policy *policy);
/* Replaces the steps of a class; at most RETRY_STEPS_MAX, each at least one second: else ERR_LIMIT, nothing changed.
 * Setting CLASS_OTHER changes all classes without steps of their own. */
int retry_policy_set(struct retry_policy *policy, enum failure_class class, const int64_t *step_ms, size_t count);
/* The wait until the next attempt in milliseconds. *hint_taken (may be NULL) tells whether the hint decided. */
int64_t retry_delay_ms(const struct retry_policy *policy, const struct retry_input *input, struct rng *rng,
		       bool *hint_taken);

#endif
