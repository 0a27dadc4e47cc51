#include "relayd/clock_jump.h"

#include "base/base.h"

enum {
	NOTICED_MS = 5 * 60 * 1000, /* less than that is no matter */
	WAIT_MAX_MS = 30 * 60 * 1000,
	REPRIEVE_MS = 30 * 60 * 1000,
	NEVER_LATE_MS = 60 * 60 * 1000, /* who gives so short a time means it */
	PORTION = 256,
	PAUSE_MS = 10,
};

static void reprieve(struct clock_jump *jump, int64_t from_wall)
{
	jump->from_wall = from_wall;
	jump->to_wall = jump->seen_wall;
	jump->until_wall = jump->seen_wall + REPRIEVE_MS;
}

void clock_jump_init(struct clock_jump *jump, const struct clock *clock, struct log *log)
{
	*jump = (struct clock_jump){
	    .clock = clock, .log = log, .seen_wall = clock_wall_ms(clock), .seen_ms = clock_mono_ms(clock)};
	reprieve(jump, INT64_MIN);
}

static void note_jump(struct clock_jump *jump, int64_t by_ms)
{
	int64_t from_wall = jump->seen_wall - by_ms;

	if (by_ms > 0) {
		/* One jump may follow the other; the first reprieve still holds. */
		reprieve(jump, from_wall < jump->until_wall ? jump->from_wall : from_wall);
	} else {
		jump->from_wall = jump->to_wall = jump->until_wall = 0;
		jump->is_walking = true;
		jump->cursor = 0;
	}
	log_event(jump->log, LOG_WARN, "clock_set", LOG_INT("by_sec", by_ms / 1000));
}

void clock_jump_look(struct clock_jump *jump)
{
	int64_t wall = clock_wall_ms(jump->clock), ms = clock_mono_ms(jump->clock);
	int64_t by_ms = (wall - jump->seen_wall) - (ms - jump->seen_ms);

	jump->seen_wall = wall;
	jump->seen_ms = ms;
	if (by_ms > NOTICED_MS || by_ms < -NOTICED_MS)
		note_jump(jump, by_ms);
}

int64_t clock_jump_expires_wall(const struct clock_jump *jump, const struct queue_envelope *envelope)
{
	int64_t end = envelope->expires_wall;
	bool ended_in_jump = end > jump->from_wall && end <= jump->to_wall;

	return ended_in_jump && end - envelope->arrived_wall > NEVER_LATE_MS ? jump->until_wall : end;
}

static void bring_nearer(void *ctx, const struct queue_brief *brief)
{
	const struct clock_jump *jump = ctx;

	for (uint32_t i = 0; i < brief->recipients; i++)
		queue_hasten(jump->queue, brief->id, i, jump->seen_wall + WAIT_MAX_MS);
}

void clock_jump_turn(struct clock_jump *jump, struct queue *queue, struct loop *loop)
{
	clock_jump_look(jump);
	if (!jump->is_walking)
		return;
	jump->queue = queue;
	queue_iterate(queue, &jump->cursor, PORTION, bring_nearer, jump);
	jump->is_walking = jump->cursor != 0;
	if (jump->is_walking)
		loop_wake_at(loop, loop_now_ms(loop) + PAUSE_MS);
}
