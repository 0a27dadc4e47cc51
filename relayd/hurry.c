#include "relayd/hurry.h"

#include "base/base.h"

#include <stdlib.h>

enum { PORTION = 4096, PAUSE_MS = 10 };

struct hurry {
	struct loop *loop;
	struct queue *queue;
	uint64_t cursor;
	timer_id timer; /* while a walk is under way */
	bool with_sessions;
};

struct hurry *hurry_new(struct loop *loop, struct queue *queue)
{
	struct hurry *hurry = xcalloc(1, sizeof(*hurry));

	hurry->loop = loop;
	hurry->queue = queue;
	return hurry;
}

void hurry_free(struct hurry **hurry)
{
	if (!*hurry)
		return;
	timers_cancel(loop_timers((*hurry)->loop), &(*hurry)->timer);
	free(*hurry);
	*hurry = NULL;
}

static bool is_concerned(const struct hurry *hurry, const struct queue_brief *brief)
{
	switch (brief->reason) {
	case CLASS_AUTH: return true;
	case CLASS_CONNECT:
	case CLASS_DNS:
	case CLASS_TLS: return hurry->with_sessions || brief->attempts == 0;
	default: return brief->attempts == 0;
	}
}

static void look_at(void *ctx, const struct queue_brief *brief)
{
	struct hurry *hurry = ctx;

	if (brief->state != STATE_HELD && !brief->popped && is_concerned(hurry, brief))
		queue_flush(hurry->queue, brief->id);
}

static void walk(void *ctx)
{
	struct hurry *hurry = ctx;

	hurry->timer = 0;
	queue_iterate(hurry->queue, &hurry->cursor, PORTION, look_at, hurry);
	if (hurry->cursor != 0)
		timers_set(loop_timers(hurry->loop), &hurry->timer, loop_now_ms(hurry->loop) + PAUSE_MS, walk, hurry);
}

static void begin(struct hurry *hurry, bool with_sessions)
{
	/* One that began with them and has not ended goes on with them. */
	hurry->with_sessions = with_sessions || (hurry->timer != 0 && hurry->with_sessions);
	hurry->cursor = 0;
	timers_set(loop_timers(hurry->loop), &hurry->timer, loop_now_ms(hurry->loop), walk, hurry);
}

void hurry_begin(struct hurry *hurry)
{
	begin(hurry, false);
}

void hurry_begin_with_sessions(struct hurry *hurry)
{
	begin(hurry, true);
}
