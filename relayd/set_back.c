#include "relayd/set_back.h"

#include "base/base.h"

enum {
	BACK_MS = 5 * 60 * 1000, /* less than that is no matter */
	WAIT_MAX_MS = 30 * 60 * 1000,
	PORTION = 256,
	PAUSE_MS = 10,
};

static void bring_nearer(void *ctx, const struct queue_brief *brief)
{
	const struct set_back *set_back = ctx;

	for (uint32_t i = 0; i < brief->recipients; i++)
		queue_hasten(set_back->queue, brief->id, i, set_back->seen_wall + WAIT_MAX_MS);
}

void set_back_turn(struct set_back *set_back, struct queue *queue, struct loop *loop, int64_t now_wall)
{
	if (now_wall < set_back->seen_wall - BACK_MS) {
		set_back->is_walking = true;
		set_back->cursor = 0;
	}
	set_back->seen_wall = now_wall;
	if (!set_back->is_walking)
		return;
	set_back->queue = queue;
	queue_iterate(queue, &set_back->cursor, PORTION, bring_nearer, set_back);
	set_back->is_walking = set_back->cursor != 0;
	if (set_back->is_walking)
		loop_wake_at(loop, loop_now_ms(loop) + PAUSE_MS);
}
