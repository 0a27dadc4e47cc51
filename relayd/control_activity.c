#include "relayd/control_activity.h"

#include "base/base.h"
#include "base/vocabulary.h"

#include <stdlib.h>

enum {
	LOOK_EACH_MS = 10 * 1000,
	LOOKS_A_MINUTE = 6,
	MINUTES = 15,
	SAMPLES = MINUTES * LOOKS_A_MINUTE + 1,
	USERS_SHOWN = 10
};

enum fact { ACCEPTED, DELIVERED, DEFERRED, FAILED, FACT_COUNT };
static const char *const fact_names[] = {"accepted", "delivered", "deferred", "failed"};

struct sample {
	double counts[FACT_COUNT];
};

struct user_activity {
	char *name;
	double total, seen;	   /* now, and when the last minute began */
	uint32_t minutes[MINUTES]; /* the last first */
};

struct activity {
	struct loop *loop;
	const struct metrics *metrics;
	timer_id timer;
	struct sample samples[SAMPLES]; /* a ring; the newest stands before `next` */
	size_t next, filled;
	struct user_activity *users;
	size_t user_count;
};

/* The label `result` of submissions and `outcome` of attempts are the third. */
static double attempts(const struct activity *activity, enum outcome_kind kind)
{
	return metrics_sum(activity->metrics, METRIC_DELIVERY_ATTEMPTS, 2, outcome_kind_name(kind));
}

static struct sample look(const struct activity *activity)
{
	return (struct sample){
	    .counts = {[ACCEPTED] = metrics_sum(activity->metrics, METRIC_SUBMISSIONS, 2, "accepted"),
		       [DELIVERED] = attempts(activity, OUTCOME_DELIVERED),
		       [DEFERRED] = attempts(activity, OUTCOME_DEFERRED),
		       [FAILED] = attempts(activity, OUTCOME_FAILED) + attempts(activity, OUTCOME_EXPIRED)}};
}

/* ---- users ---- */

static struct user_activity *find_user(struct activity *activity, const char *name)
{
	struct user_activity *user;

	for (size_t i = 0; i < activity->user_count; i++)
		if (strcmp(activity->users[i].name, name) == 0)
			return &activity->users[i];
	activity->users = xreallocarray(activity->users, activity->user_count + 1, sizeof(*activity->users));
	user = &activity->users[activity->user_count++];
	*user = (struct user_activity){.name = xstrdup(name)};
	return user;
}

/* A user is counted on each listener. */
static void add_user(void *ctx, const char *const labels[], double value)
{
	if (strcmp(labels[2], "accepted") == 0)
		find_user(ctx, labels[1])->total += value;
}

static void look_at_users(struct activity *activity)
{
	for (size_t i = 0; i < activity->user_count; i++)
		activity->users[i].total = 0;
	metrics_each(activity->metrics, METRIC_SUBMISSIONS, add_user, activity);
}

static void end_minute(struct activity *activity)
{
	look_at_users(activity);
	for (size_t i = 0; i < activity->user_count; i++) {
		struct user_activity *user = &activity->users[i];
		memmove(user->minutes + 1, user->minutes, sizeof(user->minutes) - sizeof(user->minutes[0]));
		user->minutes[0] = (uint32_t)(user->total - user->seen);
		user->seen = user->total;
	}
}

/* ---- time ---- */

static void on_time(void *ctx)
{
	struct activity *activity = ctx;

	activity->samples[activity->next] = look(activity);
	activity->next = (activity->next + 1) % SAMPLES;
	activity->filled = MIN(activity->filled + 1, (size_t)SAMPLES);
	if (activity->next % LOOKS_A_MINUTE == 0)
		end_minute(activity);
	timers_set(loop_timers(activity->loop), &activity->timer, loop_now_ms(activity->loop) + LOOK_EACH_MS, on_time,
		   activity);
}

struct activity *activity_new(struct loop *loop, const struct metrics *metrics)
{
	struct activity *activity = xcalloc(1, sizeof(*activity));

	activity->loop = loop;
	activity->metrics = metrics;
	on_time(activity);
	return activity;
}

void activity_free(struct activity **activity)
{
	struct activity *a = *activity;

	if (!a)
		return;
	timers_cancel(loop_timers(a->loop), &a->timer);
	for (size_t i = 0; i < a->user_count; i++)
		free(a->users[i].name);
	free(a->users);
	free(a);
	*activity = NULL;
}

/* ---- answers ---- */

static json_t *facts(const struct sample *now, const struct sample *before)
{
	json_t *object = json_object();

	for (int fact = 0; fact < FACT_COUNT; fact++)
		json_object_set_new(object, fact_names[fact],
				    json_integer((json_int_t)(now->counts[fact] - before->counts[fact])));
	return object;
}

json_t *activity_totals(const struct activity *activity)
{
	static const struct sample nothing;
	struct sample now = look(activity);

	return facts(&now, &nothing);
}

/* Of so many looks ago; the first one if it is not so long ago. */
static const struct sample *sample_before(const struct activity *activity, size_t looks)
{
	size_t back = MIN(looks, activity->filled);

	return &activity->samples[(activity->next + SAMPLES - back) % SAMPLES];
}

json_t *activity_rates(const struct activity *activity)
{
	struct sample now = look(activity);

	return json_pack("{s:o, s:o}", "last_minute", facts(&now, sample_before(activity, LOOKS_A_MINUTE)),
			 "last_15_minutes", facts(&now, sample_before(activity, SAMPLES)));
}

static int64_t lately(const struct user_activity *user)
{
	int64_t sum = (int64_t)(user->total - user->seen);

	for (size_t i = 0; i + 1 < MINUTES; i++)
		sum += user->minutes[i];
	return sum;
}

static int busier_first(const void *a, const void *b)
{
	const struct user_activity *x = a, *y = b;
	int64_t lately_x = lately(x), lately_y = lately(y);

	if (lately_x != lately_y)
		return lately_x > lately_y ? -1 : 1;
	return x->total > y->total ? -1 : x->total < y->total;
}

json_t *activity_users(struct activity *a)
{
	json_t *list = json_array();

	look_at_users(a);
	if (a->user_count > 0)
		qsort(a->users, a->user_count, sizeof(*a->users), busier_first);
	for (size_t i = 0; i < a->user_count && i < USERS_SHOWN && a->users[i].total > 0; i++)
		json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "user", a->users[i].name, "accepted",
						      (json_int_t)a->users[i].total, "last_15_minutes",
						      (json_int_t)lately(&a->users[i])));
	return list;
}
