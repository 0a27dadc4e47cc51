#include "queue/retry.h"

#include "base/base.h"
#include "base/err.h"

#define SEC(n) ((int64_t)(n)*1000)
#define MIN_SEC(m, s) SEC((m)*60 + (s))
#define HOURS(h) SEC((h)*3600)

/* Visits 5:10, 10:20, 18:00, 30:20, 44:00, 60:20 after the first refusal, then 2:00:20, 4:00:20, 6:00:20 and every four
 * hours. OpenBSD's spamd (25 minutes) needs two: 30:20 and 44:00. */
static const int64_t greylist_steps[] = {
    MIN_SEC(5, 10),  MIN_SEC(5, 10), MIN_SEC(7, 40), MIN_SEC(12, 20), MIN_SEC(13, 40),
    MIN_SEC(16, 20), MIN_SEC(60, 0), HOURS(2),	     HOURS(2),	      HOURS(4),
};
static const int64_t throttle_steps[] = {MIN_SEC(5, 0), MIN_SEC(15, 0), MIN_SEC(30, 0), HOURS(1)};
static const int64_t auth_steps[] = {MIN_SEC(1, 0), MIN_SEC(2, 0), MIN_SEC(5, 0), MIN_SEC(10, 0)};
static const int64_t mailbox_steps[] = {MIN_SEC(30, 0), HOURS(1), HOURS(2), HOURS(4)};
static const int64_t connect_steps[] = {MIN_SEC(1, 0),	MIN_SEC(3, 0),	MIN_SEC(8, 0),
					MIN_SEC(15, 0), MIN_SEC(30, 0), HOURS(1)};
static const int64_t other_steps[] = {MIN_SEC(5, 0), MIN_SEC(10, 0), MIN_SEC(20, 0), MIN_SEC(40, 0), MIN_SEC(67, 0)};

void retry_policy_default(struct retry_policy *policy)
{
	*policy = (struct retry_policy){0};
	retry_policy_set(policy, CLASS_GREYLIST, greylist_steps, ARRAY_LEN(greylist_steps));
	retry_policy_set(policy, CLASS_THROTTLE, throttle_steps, ARRAY_LEN(throttle_steps));
	retry_policy_set(policy, CLASS_AUTH, auth_steps, ARRAY_LEN(auth_steps));
	retry_policy_set(policy, CLASS_MAILBOX, mailbox_steps, ARRAY_LEN(mailbox_steps));
	retry_policy_set(policy, CLASS_CONNECT, connect_steps, ARRAY_LEN(connect_steps));
	retry_policy_set(policy, CLASS_DNS, connect_steps, ARRAY_LEN(connect_steps));
	retry_policy_set(policy, CLASS_TLS, connect_steps, ARRAY_LEN(connect_steps));
	retry_policy_set(policy, CLASS_OTHER, other_steps, ARRAY_LEN(other_steps));
}

int retry_policy_set(struct retry_policy *policy, enum failure_class class, const int64_t *step_ms, size_t count)
{
	struct retry_steps steps = {.count = (uint32_t)count};

	BUG_ON(class >= CLASS_COUNT);
	if (count == 0 || count > RETRY_STEPS_MAX)
		return ERR_LIMIT;
	for (size_t i = 0; i < count; i++) {
		if (step_ms[i] < SEC(1))
			return ERR_LIMIT;
		steps.step_ms[i] = step_ms[i];
	}
	policy->steps[class] = steps;
	return 0;
}

static const struct retry_steps *steps_of(const struct retry_policy *policy, enum failure_class class)
{
	const struct retry_steps *steps = &policy->steps[class < CLASS_COUNT ? class : CLASS_OTHER];

	return steps->count > 0 ? steps : &policy->steps[CLASS_OTHER];
}

/* Greylisters remember to the second, so their steps get little; the others are spread by an eighth, 5 minutes at most.
 */
static int64_t jitter_ms(enum failure_class class, int64_t step_ms, struct rng *rng)
{
	int64_t span = class == CLASS_GREYLIST ? SEC(15) : MIN(step_ms / 8, MIN_SEC(5, 0));

	return (int64_t)rng_below(rng, (uint64_t)span + 1);
}

static bool may_believe(const struct retry_input *input)
{
	return input->hint_ms > 0 && !input->hint_used &&
	       (input->class == CLASS_GREYLIST || input->class == CLASS_THROTTLE);
}

int64_t retry_delay_ms(const struct retry_policy *policy, const struct retry_input *input, struct rng *rng,
		       bool *hint_taken)
{
	const struct retry_steps *steps = steps_of(policy, input->class);
	bool hint = may_believe(input);
	uint32_t at;

	if (hint_taken)
		*hint_taken = hint;
	if (hint)
		return MAX(RETRY_HINT_MIN_MS, MIN(input->hint_ms, RETRY_HINT_MAX_MS)) + SEC(5) +
		       (int64_t)rng_below(rng, (uint64_t)SEC(10) + 1);
	BUG_ON(steps->count == 0);
	at = input->attempts > 0 ? input->attempts - 1 : 0;
	if (at >= steps->count)
		at = steps->count - 1;
	return steps->step_ms[at] + jitter_ms(input->class, steps->step_ms[at], rng);
}
