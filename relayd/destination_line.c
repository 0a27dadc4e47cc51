/* Jobs in line and parked messages of a destination, and lifetimes that end while they wait. */
#include "relayd/destination_internal.h"

enum { REFILL_EACH_MS = 10, SWEEP_EACH_MS = 60 * 1000 };

/* Jobs of each class in a round of the line, the transactional first. */
static const enum message_class round_order[] = {
    MESSAGE_TRANSACTIONAL, MESSAGE_TRANSACTIONAL, MESSAGE_DEFAULT, MESSAGE_TRANSACTIONAL, MESSAGE_TRANSACTIONAL,
    MESSAGE_DEFAULT,	   MESSAGE_TRANSACTIONAL, MESSAGE_BULK,	   MESSAGE_TRANSACTIONAL, MESSAGE_DEFAULT,
    MESSAGE_TRANSACTIONAL, MESSAGE_TRANSACTIONAL, MESSAGE_DEFAULT};

void destination_line_init(struct destination *d)
{
	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++) {
		list_init(&d->ready[class]);
		queue_list_init(&d->parked[class], d->owner->options.queue);
	}
	d->expires_wall = INT64_MAX;
}

void destination_line_fini(struct destination *d)
{
	timers_cancel(loop_timers(d->owner->options.loop), &d->refill_timer);
	timers_cancel(loop_timers(d->owner->options.loop), &d->sweep_timer);
	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++)
		queue_list_fini(&d->parked[class]);
}

static int64_t now_wall(const struct destination *d)
{
	return clock_wall_ms(d->owner->options.clock);
}

/* ---- the line ---- */

static int64_t expires_wall(const struct job *job)
{
	return job->ticket->message.envelope.expires_wall;
}

void destination_line_append(struct destination *d, struct job *job)
{
	list_append(&d->ready[job->ticket->message.envelope.class], &job->node);
	d->ready_count++;
}

void destination_line_prepend(struct destination *d, struct job *job)
{
	list_prepend(&d->ready[job->ticket->message.envelope.class], &job->node);
	d->ready_count++;
}

struct job *destination_line_peek(const struct destination *d)
{
	for (size_t i = 0; i < ARRAY_LEN(round_order); i++) {
		const struct list *line = &d->ready[round_order[(d->turn + i) % ARRAY_LEN(round_order)]];
		if (!list_is_empty(line))
			return CONTAINER_OF(line->next, struct job, node);
	}
	return NULL;
}

struct job *destination_line_pop(struct destination *d)
{
	struct list *node = NULL;

	for (size_t i = 0; i < ARRAY_LEN(round_order) && !node; i++) {
		node = list_pop(&d->ready[round_order[d->turn % ARRAY_LEN(round_order)]]);
		d->turn++;
	}
	if (!node)
		return NULL;
	d->ready_count--;
	return CONTAINER_OF(node, struct job, node);
}

static void hand_back(struct destination *d, struct job *job, int64_t retry_wall)
{
	const struct destination_events *events = &d->owner->options.events;

	events->on_job_done(events->ctx, job, retry_wall);
}

bool destination_may_begin(const struct destination *d, const struct job *job)
{
	return expires_wall(job) > now_wall(d) && queue_may_begin(d->owner->options.queue, job->ticket->message.id);
}

struct job *destination_line_pop_live(struct destination *d)
{
	struct job *job;

	while ((job = destination_line_pop(d)) && !destination_may_begin(d, job))
		hand_back(d, job, now_wall(d));
	return job;
}

void destination_line_hand_back(struct destination *d, int64_t retry_wall)
{
	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++)
		for (struct list *node; (node = list_pop(&d->ready[class]));) {
			d->ready_count--;
			hand_back(d, CONTAINER_OF(node, struct job, node), retry_wall);
		}
}

/* ---- parked ---- */

bool destination_has_room(const struct destination *d)
{
	return d->ready_count < DESTINATION_READY_MAX;
}

bool destination_has_parked(const struct destination *d, enum message_class class)
{
	return d->parked[class].count > 0;
}

static void on_sweep(void *ctx);

static void note_lifetime(struct destination *d, int64_t expires)
{
	if (d->expires_wall == INT64_MAX)
		timers_set(loop_timers(d->owner->options.loop), &d->sweep_timer,
			   destinations_now_ms(d->owner) + SWEEP_EACH_MS, on_sweep, d);
	d->expires_wall = MIN(d->expires_wall, expires);
}

void destination_park(struct destination *d, enum message_class class, uint64_t id, int64_t expires)
{
	queue_list_append(&d->parked[class], id);
	note_lifetime(d, expires);
	destination_line_refill_later(d); /* there may be room, behind others */
}

void destination_line_watch_lifetimes(struct destination *d)
{
	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++)
		LIST_FOREACH (node, &d->ready[class])
			note_lifetime(d, expires_wall(CONTAINER_OF(node, struct job, node)));
}

uint64_t destination_parked_count(const struct destination *d)
{
	uint64_t count = 0;

	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++)
		count += d->parked[class].count;
	return count;
}

void destination_note_put_off(struct destination *d)
{
	if (d->trouble.kind != OUTCOME_NONE)
		d->put_off++;
}

void destination_note_return(struct destination *d)
{
	d->put_off -= d->put_off > 0;
}

uint64_t destination_waiting(const struct destination *d)
{
	return destination_parked_count(d) + d->ready_count + d->put_off;
}

static bool pop_parked(struct destination *d, uint64_t *id)
{
	static const enum message_class order[] = {MESSAGE_TRANSACTIONAL, MESSAGE_DEFAULT, MESSAGE_BULK};

	for (size_t i = 0; i < ARRAY_LEN(order); i++)
		if (queue_list_pop(&d->parked[order[i]], id))
			return true;
	return false;
}

/* Half empty is the moment: the scheduler reads several messages in a row, and the line never runs dry meanwhile. A
 * sweep takes them whatever the line holds. */
static bool wants_parked(const struct destination *d)
{
	return d->sweep > 0 || (!d->paused && d->ready_count <= DESTINATION_READY_MAX / 2);
}

void destination_line_unpark(struct destination *d)
{
	const struct destination_events *events = &d->owner->options.events;
	uint64_t id;

	if (d->owner->stopping || !wants_parked(d))
		return;
	d->used_at_ms =
	    destinations_now_ms(d->owner); /* the scheduler may make and forget destinations, but not this one */
	for (int i = 0; i < DESTINATION_READY_MAX / 2 && pop_parked(d, &id); i++) {
		d->sweep -= d->sweep > 0;
		events->on_unparked(events->ctx, id);
	}
	if (destination_parked_count(d) == 0)
		d->sweep = 0;
}

static void on_refill(void *ctx)
{
	destination_line_refill(ctx);
}

void destination_line_refill_later(struct destination *d)
{
	if (destination_parked_count(d) > 0 && wants_parked(d))
		timers_set(loop_timers(d->owner->options.loop), &d->refill_timer,
			   destinations_now_ms(d->owner) + REFILL_EACH_MS, on_refill, d);
}

void destination_line_refill(struct destination *d)
{
	destination_line_unpark(d);
	destination_line_refill_later(d);
}

void destination_line_sweep(struct destination *d)
{
	d->sweep = (unsigned)destination_parked_count(d);
	destination_line_refill(d);
}

/* ---- lifetimes ---- */

static void hand_back_ended(struct destination *d)
{
	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++) {
		struct list *next, *head = &d->ready[class];
		for (struct list *node = head->next; node != head; node = next) {
			struct job *job = CONTAINER_OF(node, struct job, node);
			next = node->next;
			if (expires_wall(job) > now_wall(d))
				continue;
			list_remove(node);
			d->ready_count--;
			hand_back(d, job, now_wall(d));
		}
	}
}

static void on_sweep(void *ctx)
{
	struct destination *d = ctx;
	bool is_over = now_wall(d) >= d->expires_wall;

	if (is_over)
		hand_back_ended(d);
	if (is_over || destination_parked_count(d) == 0) {
		d->expires_wall = INT64_MAX; /* known anew from those that stay */
		if (list_is_linked(&d->rate_waiter.node))
			destination_line_watch_lifetimes(d);
		destination_line_sweep(d);
	} else {
		timers_set(loop_timers(d->owner->options.loop), &d->sweep_timer,
			   destinations_now_ms(d->owner) + SWEEP_EACH_MS, on_sweep, d);
	}
}
