#include "relayd/destination.h"

#include "base/base.h"
#include "relayd/outcome.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	WINDOW_START = 4,
	BACKOFF_FIRST_MS = 5 * 1000,
	BACKOFF_MX_MAX_MS = 10 * 60 * 1000,
	BACKOFF_RELAYHOST_MAX_MS = 60 * 1000,
	FORGET_AFTER_MS = 10 * 60 * 1000,
	REFILL_EACH_MS = 10,
	PROGRESS_MS = 30 * 1000, /* a session that has got nowhere for longer proves nothing */
	GROW_PAUSE_MS = 60 * 1000,
	PAUSED_LOOK_MS = 60 * 1000,
	SWEEP_EACH_MS = 60 * 1000,
	YIELD_AFTER_JOBS = 50, /* the last connection goes too when others have none */
};

/* Jobs of each class in a round of the line, the transactional first. */
static const enum message_class round_order[] = {
    MESSAGE_TRANSACTIONAL, MESSAGE_TRANSACTIONAL, MESSAGE_DEFAULT, MESSAGE_TRANSACTIONAL, MESSAGE_TRANSACTIONAL,
    MESSAGE_DEFAULT,	   MESSAGE_TRANSACTIONAL, MESSAGE_BULK,	   MESSAGE_TRANSACTIONAL, MESSAGE_DEFAULT,
    MESSAGE_TRANSACTIONAL, MESSAGE_TRANSACTIONAL, MESSAGE_DEFAULT};

struct destinations {
	struct destinations_options options;
	struct destination *by_key;
	unsigned connections;
	struct list starved;
	bool stopping;
};

struct destinations *destinations_new(const struct destinations_options *options)
{
	struct destinations *destinations = xcalloc(1, sizeof(*destinations));
	destinations->options = *options;
	list_init(&destinations->starved);
	return destinations;
}

static void destination_free(struct destination *d)
{
	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	timers_cancel(loop_timers(d->owner->options.loop), &d->refill_timer);
	timers_cancel(loop_timers(d->owner->options.loop), &d->sweep_timer);
	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++)
		queue_list_fini(&d->parked[class]);
	list_remove(&d->starved_node);
	HASH_DEL(d->owner->by_key, d);
	free(d);
}

static void hand_back_line(struct destination *d, int64_t retry_wall)
{
	const struct destination_events *events = &d->owner->options.events;

	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++)
		for (struct list *node; (node = list_pop(&d->ready[class]));) {
			d->ready_count--;
			events->on_job_done(events->ctx, CONTAINER_OF(node, struct job, node), retry_wall);
		}
}

void destinations_free(struct destinations **destinations)
{
	struct destination *d, *next;

	if (!*destinations)
		return;
	HASH_ITER(hh, (*destinations)->by_key, d, next)
	{
		hand_back_line(d, 0);
		destination_free(d);
	}
	free(*destinations);
	*destinations = NULL;
}

void destinations_set_limits(struct destinations *destinations, unsigned connections_max, unsigned per_destination_max)
{
	destinations->options.connections_max = connections_max;
	destinations->options.per_destination_max = per_destination_max;
}

static void make_key(char *out, size_t size, const struct destination_id *id)
{
	snprintf(out, size, "%s:%s%s%s", id->kind == DESTINATION_MX ? "mx" : "relayhost", id->name,
		 id->tls == CONFIG_TLS_UNSET ? "" : "/",
		 id->tls == CONFIG_TLS_UNSET ? "" : config_tls_level_name(id->tls));
}

static int64_t now_ms(const struct destinations *destinations)
{
	return loop_now_ms(destinations->options.loop);
}

static bool is_paused(const struct destinations *destinations, const struct destination_id *id)
{
	return id->kind == DESTINATION_RELAYHOST && pauses_has(destinations->options.pauses, id->name);
}

static bool is_forgettable(const struct destination *d, int64_t now)
{
	for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++)
		if (d->parked[class].count > 0)
			return false;
	return d->ready_count == 0 && d->connections == 0 && d->trouble.kind == OUTCOME_NONE &&
	       now - d->used_at_ms > FORGET_AFTER_MS;
}

/* A few old ones go each time that a new one comes, so that their number stays in proportion to what is in use. Those
 * that stay go to the end: the next look is at others. */
static void forget_some(struct destinations *destinations)
{
	struct destination *d, *next;
	int looked = 0;

	HASH_ITER(hh, destinations->by_key, d, next)
	{
		if (++looked > 4)
			break;
		if (is_forgettable(d, now_ms(destinations))) {
			destination_free(d);
		} else {
			HASH_DEL(destinations->by_key, d);
			HASH_ADD_STR(destinations->by_key, key, d);
		}
	}
}

struct destination *destinations_get(struct destinations *destinations, const struct destination_id *id)
{
	char key[sizeof((struct destination){0}.key)];
	struct destination *d;

	make_key(key, sizeof(key), id);
	HASH_FIND_STR(destinations->by_key, key, d);
	if (!d) {
		forget_some(destinations);
		d = xcalloc(1, sizeof(*d));
		d->owner = destinations;
		d->id = *id;
		memcpy(d->key, key, sizeof(key));
		for (int class = 0; class < MESSAGE_CLASS_COUNT; class ++) {
			list_init(&d->ready[class]);
			queue_list_init(&d->parked[class], destinations->options.queue);
		}
		list_init(&d->idle);
		list_node_init(&d->starved_node);
		d->window = WINDOW_START;
		d->parked_expires_wall = INT64_MAX;
		d->paused = is_paused(destinations, id);
		HASH_ADD_STR(destinations->by_key, key, d);
	}
	d->used_at_ms = now_ms(destinations);
	return d;
}

struct destination *destinations_find(const struct destinations *destinations, const struct destination_id *id)
{
	char key[sizeof((struct destination){0}.key)];
	struct destination *d;

	make_key(key, sizeof(key), id);
	HASH_FIND_STR(destinations->by_key, key, d);
	return d;
}

struct destination *destinations_next(struct destinations *destinations, struct destination *previous)
{
	return previous ? previous->hh.next : destinations->by_key;
}

unsigned destinations_connection_count(const struct destinations *destinations)
{
	return destinations->connections;
}

bool destination_is_open(const struct destination *d, int64_t *until_wall)
{
	int64_t wall = clock_wall_ms(d->owner->options.clock);

	*until_wall = wall;
	if (d->paused) {
		*until_wall = wall + PAUSED_LOOK_MS;
		return false;
	}
	if (d->backoff_until_ms <= now_ms(d->owner))
		return true;
	*until_wall = wall + d->backoff_until_ms - now_ms(d->owner);
	return false;
}

bool destination_has_room(const struct destination *d)
{
	return d->ready_count < DESTINATION_READY_MAX;
}

static void on_sweep(void *ctx);

void destination_park(struct destination *d, enum message_class class, uint64_t id, int64_t expires_wall)
{
	queue_list_append(&d->parked[class], id);
	if (d->parked_expires_wall == INT64_MAX)
		timers_set(loop_timers(d->owner->options.loop), &d->sweep_timer, now_ms(d->owner) + SWEEP_EACH_MS,
			   on_sweep, d);
	d->parked_expires_wall = MIN(d->parked_expires_wall, expires_wall);
}

static uint64_t parked_count(const struct destination *d)
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
	return parked_count(d) + d->ready_count + d->put_off;
}

/* An idle connection of any destination gives its place to one that has work. */
static void quit_an_idle_one(struct destinations *destinations)
{
	struct destination *d, *next;

	HASH_ITER(hh, destinations->by_key, d, next)
	{
		if (list_is_empty(&d->idle))
			continue;
		destinations->options.driver.quit(CONTAINER_OF(d->idle.next, struct destination_slot, node));
		return;
	}
}

/* In trouble one probe at a time is enough. */
static unsigned busy_limit(const struct destination *d)
{
	return d->failures > 0 ? 1 : MIN(d->window, d->owner->options.per_destination_max);
}

static bool may_connect(struct destination *d)
{
	struct destinations *owner = d->owner;

	if (d->busy >= busy_limit(d) || d->connections >= owner->options.per_destination_max)
		return false;
	if (owner->connections >= owner->options.connections_max)
		quit_an_idle_one(owner);
	if (owner->connections < owner->options.connections_max)
		return true;
	if (d->connections == 0 && !list_is_linked(&d->starved_node))
		list_append(&owner->starved, &d->starved_node);
	return false;
}

static void open_connection(struct destination *d)
{
	struct destination_slot *slot;

	list_remove(&d->starved_node);
	d->connections++;
	d->busy++;
	d->coming++;
	d->owner->connections++;
	slot = d->owner->options.driver.open(d->owner->options.driver.ctx, d);
	slot->busy = true;
	slot->has_session = false;
	slot->job_count = 0;
	list_node_init(&slot->node);
}

/* Gives the line to idle connections, then to new ones, as far as window and limits allow. */
static void pump(struct destination *d)
{
	int64_t until;

	if (d->owner->stopping || !destination_is_open(d, &until))
		return;
	while (d->ready_count > 0 && !list_is_empty(&d->idle) && d->busy < busy_limit(d)) {
		struct destination_slot *slot = CONTAINER_OF(list_pop(&d->idle), struct destination_slot, node);
		slot->busy = true;
		d->busy++;
		d->owner->options.driver.wake(slot);
	}
	while (d->ready_count > d->coming && may_connect(d))
		open_connection(d);
}

/* There is a place: the destination that has waited longest for any connection comes first. */
static void serve_starved(struct destinations *owner)
{
	struct list *node;

	while (owner->connections < owner->options.connections_max && (node = list_pop(&owner->starved)))
		pump(CONTAINER_OF(node, struct destination, starved_node));
}

/* Others have no connection at all: who has several gives one up, and who has one after a while. */
static bool must_yield(const struct destination *d, const struct destination_slot *slot)
{
	return !list_is_empty(&d->owner->starved) && (d->connections > 1 || slot->job_count >= YIELD_AFTER_JOBS);
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

static void unpark(struct destination *d)
{
	const struct destination_events *events = &d->owner->options.events;
	uint64_t id;

	if (d->owner->stopping || !wants_parked(d))
		return;
	d->used_at_ms = now_ms(d->owner); /* the scheduler may make and forget destinations, but not this one */
	for (int i = 0; i < DESTINATION_READY_MAX / 2 && pop_parked(d, &id); i++) {
		d->sweep -= d->sweep > 0;
		events->on_unparked(events->ctx, id);
	}
	if (parked_count(d) == 0)
		d->sweep = 0;
}

static void on_refill(void *ctx);

/* With a line that is full enough the deliveries ask for the parked ones. Otherwise, when they are sent elsewhere or
 * put off, they come back in portions, so that the loop never stalls. */
static void refill_later(struct destination *d)
{
	if (parked_count(d) > 0 && wants_parked(d))
		timers_set(loop_timers(d->owner->options.loop), &d->refill_timer, now_ms(d->owner) + REFILL_EACH_MS,
			   on_refill, d);
}

static void on_refill(void *ctx)
{
	unpark(ctx);
	refill_later(ctx);
}

/* Each goes through the scheduler once, in order: those that stay come to stand in the same order again. */
static void sweep(struct destination *d)
{
	d->sweep = (unsigned)parked_count(d);
	d->parked_expires_wall = INT64_MAX;
	on_refill(d);
}

static void on_sweep(void *ctx)
{
	struct destination *d = ctx;

	if (parked_count(d) == 0)
		d->parked_expires_wall = INT64_MAX;
	else if (clock_wall_ms(d->owner->options.clock) >= d->parked_expires_wall)
		sweep(d);
	if (d->parked_expires_wall != INT64_MAX)
		timers_set(loop_timers(d->owner->options.loop), &d->sweep_timer, now_ms(d->owner) + SWEEP_EACH_MS,
			   on_sweep, d);
}

static void on_backoff_over(void *ctx)
{
	on_refill(ctx);
	pump(ctx);
}

void destination_submit(struct destination *d, struct job *job)
{
	job->destination = d;
	list_append(&d->ready[job->ticket->message.envelope.class], &job->node);
	d->ready_count++;
	pump(d);
}

void destination_return_job(struct destination *d, struct job *job)
{
	list_prepend(&d->ready[job->ticket->message.envelope.class], &job->node);
	d->ready_count++;
}

void destination_retry_now(struct destination *d)
{
	d->backoff_until_ms = 0;
	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	on_backoff_over(d);
}

/* What stands in line goes elsewhere, if it may; what cannot comes back and is parked. */
static void begin_pause(struct destination *d)
{
	d->paused = true;
	hand_back_line(d, clock_wall_ms(d->owner->options.clock));
	sweep(d);
}

static void end_pause(struct destination *d)
{
	d->paused = false;
	destination_retry_now(d);
}

static struct destination *find_changed(struct destinations *destinations)
{
	struct destination *d, *next;

	HASH_ITER(hh, destinations->by_key, d, next)
	if (d->paused != is_paused(destinations, &d->id))
		return d;
	return NULL;
}

/* Looked for anew each time: either may make and forget destinations. */
void destinations_apply_pauses(struct destinations *destinations)
{
	struct destination *d;

	while ((d = find_changed(destinations)))
		(d->paused ? end_pause : begin_pause)(d);
}

void destinations_stop(struct destinations *destinations)
{
	struct destination *d, *next;
	int64_t now = clock_wall_ms(destinations->options.clock);

	destinations->stopping = true;
	HASH_ITER(hh, destinations->by_key, d, next)
	{
		hand_back_line(d, now);
		while (!list_is_empty(&d->idle)) {
			struct list *node = list_pop(&d->idle);
			destinations->options.driver.quit(CONTAINER_OF(node, struct destination_slot, node));
		}
	}
}

static struct job *pop_ready(struct destination *d)
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

static void note_asking(struct destination *d, struct destination_slot *slot)
{
	if (slot->has_session)
		return;
	slot->has_session = true;
	d->coming--;
	d->sessions++;
}

static void begin_job(struct destination *d, struct destination_slot *slot, struct job *job)
{
	job->started_ms = now_ms(d->owner);
	slot->job_count++;
	if (!slot->busy) {
		slot->busy = true;
		d->busy++;
		list_remove(&slot->node);
	}
	d->owner->options.events.on_job_begun(d->owner->options.events.ctx, job);
	unpark(d);
	refill_later(d);
	pump(d); /* the window may have grown */
}

struct job *destination_next_job(struct destination *d, struct destination_slot *slot)
{
	bool yields = must_yield(d, slot);
	struct job *job = NULL;
	int64_t until;

	note_asking(d, slot);
	if (!d->owner->stopping && !yields && destination_is_open(d, &until) && d->busy <= MAX(d->window, 1u))
		job = pop_ready(d);
	if (job) {
		begin_job(d, slot, job);
		return job;
	}
	if (slot->busy) {
		slot->busy = false;
		d->busy--;
		list_append(&d->idle, &slot->node);
	}
	d->used_at_ms = now_ms(d->owner);
	refill_later(d);
	if (d->owner->stopping || yields || !list_is_empty(&d->owner->starved))
		d->owner->options.driver.quit(slot);
	return NULL;
}

static void back_off(struct destination *d)
{
	int64_t max = d->id.kind == DESTINATION_MX ? BACKOFF_MX_MAX_MS : BACKOFF_RELAYHOST_MAX_MS;
	int64_t wait = BACKOFF_FIRST_MS << MIN(d->failures, 12u);

	if (d->backoff_until_ms > now_ms(d->owner))
		return; /* connections that were open together fail together: once is enough */
	d->failures++;
	d->window = MAX(d->window / 2, 1u);
	d->backoff_until_ms = now_ms(d->owner) + MIN(wait, max);
	timers_set(loop_timers(d->owner->options.loop), &d->timer, d->backoff_until_ms, on_backoff_over, d);
}

static void note_trouble(struct destination *d, const struct outcome *outcome)
{
	const struct destination_events *events = &d->owner->options.events;
	bool is_new = d->trouble.kind == OUTCOME_NONE || d->trouble.class != outcome->class;

	if (d->trouble.kind == OUTCOME_NONE)
		d->trouble_since_wall = clock_wall_ms(d->owner->options.clock);
	d->trouble = *outcome;
	if (is_new)
		events->on_health(events->health_ctx, d);
}

static void end_trouble(struct destination *d)
{
	const struct destination_events *events = &d->owner->options.events;
	bool was_in_trouble = d->trouble.kind != OUTCOME_NONE;

	d->failures = 0;
	d->put_off = 0;
	d->backoff_until_ms = 0;
	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	if (was_in_trouble) {
		d->trouble = (struct outcome){0};
		events->on_health(events->health_ctx, d);
		pump(d);
	}
}

/* Trouble with our account that only shows once there is a message to refuse. */
static bool is_in_session_trouble(const struct destination *d)
{
	return d->trouble.stage >= STAGE_MAIL && outcome_is_account_trouble(&d->trouble);
}

void destination_on_outcome(struct destination *d, struct job *job, uint32_t i, const struct outcome *outcome)
{
	const struct destination_events *events = &d->owner->options.events;

	if (outcome->kind == OUTCOME_DELIVERED)
		d->last_success_wall = clock_wall_ms(d->owner->options.clock);
	if (outcome->class == CLASS_THROTTLE)
		d->window = MAX(d->window / 2, 1u);
	if (d->id.kind == DESTINATION_RELAYHOST && outcome_is_account_trouble(outcome)) {
		back_off(d);
		note_trouble(d, outcome);
	} else if (is_in_session_trouble(d) &&
		   (outcome->kind == OUTCOME_DELIVERED || outcome->stage > d->trouble.stage)) {
		end_trouble(d);
	}
	events->on_outcome(events->ctx, job, i, outcome);
}

void destination_on_job_done(struct destination *d, struct job *job, bool quick)
{
	const struct destination_events *events = &d->owner->options.events;

	if (quick)
		d->progress_ms = now_ms(d->owner);
	if (quick && d->window < d->owner->options.per_destination_max && now_ms(d->owner) >= d->grow_after_ms)
		d->window++;
	events->on_job_done(events->ctx, job, clock_wall_ms(d->owner->options.clock));
}

void destination_on_session(struct destination *d)
{
	d->progress_ms = now_ms(d->owner);
	if (!is_in_session_trouble(d))
		end_trouble(d);
}

/* The server takes so many connections and no more. */
static bool has_enough_sessions(const struct destination *d, const struct outcome *outcome)
{
	return outcome->kind == OUTCOME_DEFERRED && !outcome_is_account_trouble(outcome) && d->sessions > 0 &&
	       now_ms(d->owner) - d->progress_ms < PROGRESS_MS;
}

void destination_on_failed(struct destination *d, const struct outcome *outcome)
{
	struct list line;

	if (has_enough_sessions(d, outcome)) {
		d->window = MIN(d->window, d->sessions);
		d->grow_after_ms = now_ms(d->owner) + GROW_PAUSE_MS;
		return;
	}
	if (outcome->kind == OUTCOME_DEFERRED) {
		back_off(d);
		note_trouble(d, outcome);
	}
	/* The jobs that stand in line now, not those that events may add. */
	list_init(&line);
	for (struct job *job; (job = pop_ready(d));)
		list_append(&line, &job->node);
	for (struct list *node; (node = list_pop(&line));) {
		struct job *job = CONTAINER_OF(node, struct job, node);
		for (uint32_t i = 0; i < job->count; i++)
			destination_on_outcome(d, job, i, outcome);
		destination_on_job_done(d, job, false);
	}
	/* Parked ones go through the scheduler again, which finds the back-off, another relayhost, or the same end. */
	refill_later(d);
}

void destination_on_closed(struct destination *d, struct destination_slot *slot)
{
	list_remove(&slot->node);
	if (slot->busy)
		d->busy--;
	slot->busy = false;
	if (slot->has_session)
		d->sessions--;
	else
		d->coming--;
	d->connections--;
	d->owner->connections--;
	serve_starved(d->owner);
	refill_later(d);
	pump(d);
}
