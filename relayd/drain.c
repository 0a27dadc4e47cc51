#include "relayd/drain.h"

#include "base/base.h"

#include <stdlib.h>

enum { LOOK_EACH_MS = 100, FAREWELL_MS = 250 }; /* so that who waits for the end hears of it */

struct drain {
	struct drain_options options;
	timer_id timer;
	int64_t until_ms;
	struct drain_progress progress;
};

struct drain *drain_new(const struct drain_options *options)
{
	struct drain *drain = xcalloc(1, sizeof(*drain));

	drain->options = *options;
	return drain;
}

void drain_free(struct drain **drain)
{
	if (!*drain)
		return;
	timers_cancel(loop_timers((*drain)->options.loop), &(*drain)->timer);
	free(*drain);
	*drain = NULL;
}

static void look(struct drain *drain)
{
	struct queue_stats stats;

	queue_stats(drain->options.queue, &stats);
	drain->progress.held = stats.messages[STATE_HELD];
	drain->progress.left =
	    stats.messages[STATE_READY] + stats.messages[STATE_INFLIGHT] + stats.messages[STATE_DEFERRED];
}

static void on_farewell(void *ctx)
{
	struct drain *drain = ctx;

	drain->options.stop(drain->options.ctx);
}

static void on_time(void *ctx)
{
	struct drain *drain = ctx;
	struct loop *loop = drain->options.loop;
	int64_t now = loop_now_ms(loop);

	look(drain);
	drain->progress.is_over =
	    (drain->progress.left == 0 && drain->options.is_intake_quiet(drain->options.ctx)) || now >= drain->until_ms;
	if (!drain->progress.is_over) {
		timers_set(loop_timers(loop), &drain->timer, MIN(now + LOOK_EACH_MS, drain->until_ms), on_time, drain);
		return;
	}
	log_event(drain->options.log, LOG_INFO, "drained", LOG_INT("left", drain->progress.left),
		  LOG_INT("held", drain->progress.held));
	timers_set(loop_timers(loop), &drain->timer, now + FAREWELL_MS, on_farewell, drain);
}

void drain_begin(struct drain *drain, int64_t timeout_ms)
{
	struct loop *loop = drain->options.loop;
	int64_t until = timeout_ms < INT64_MAX / 2 ? loop_now_ms(loop) + timeout_ms : INT64_MAX;

	if (drain->progress.is_over)
		return;
	if (!drain->progress.has_begun) {
		drain->progress.has_begun = true;
		drain->until_ms = until;
		log_event(drain->options.log, LOG_INFO, "draining", LOG_INT("timeout_sec", timeout_ms / 1000));
		drain->options.stop_intake(drain->options.ctx);
	}
	drain->until_ms = MIN(drain->until_ms, until);
	look(drain);
	timers_set(loop_timers(loop), &drain->timer, loop_now_ms(loop) + LOOK_EACH_MS, on_time, drain);
}

void drain_look(const struct drain *drain, struct drain_progress *out)
{
	*out = drain->progress;
}
