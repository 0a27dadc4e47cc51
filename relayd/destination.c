#include "relayd/destination_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	WINDOW_START = 4,
	FORGET_AFTER_MS = 10 * 60 * 1000,
	YIELD_AFTER_JOBS = 50, /* the last connection goes too when others have none */
};

struct destinations *destinations_new(const struct destinations_options *options)
{
	struct destinations *destinations = xcalloc(1, sizeof(*destinations));
	destinations->options = *options;
	list_init(&destinations->starved[PLACE_KNOWN]);
	list_init(&destinations->starved[PLACE_STRANGER]);
	return destinations;
}

static void destination_free(struct destination *d)
{
	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	destination_line_fini(d);
	destination_rate_fini(d);
	destination_hop_fini(d);
	list_remove(&d->starved_node);
	HASH_DEL(d->owner->by_key, d);
	free(d);
}

void destinations_free(struct destinations **destinations)
{
	struct destination *d, *next;

	if (!*destinations)
		return;
	HASH_ITER(hh, (*destinations)->by_key, d, next)
	{
		destination_line_hand_back(d, 0);
		destination_free(d);
	}
	timers_cancel(loop_timers((*destinations)->options.loop), &(*destinations)->hurry_timer);
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
	static const char *const kinds[] = {
	    [DESTINATION_MX] = "mx", [DESTINATION_RELAYHOST] = "relayhost", [DESTINATION_CAPTURE] = "capture"};

	const char *level = id->tls_optional		  ? "tls-optional"
			    : id->tls == CONFIG_TLS_UNSET ? ""
							  : config_tls_level_name(id->tls);

	snprintf(out, size, "%s:%s%s%s%s%s", kinds[id->kind], id->name, level[0] ? "/" : "", level,
		 id->route[0] ? "#" : "", id->route);
}

static bool is_paused(const struct destinations *destinations, const struct destination_id *id)
{
	return id->kind == DESTINATION_RELAYHOST && pauses_has(destinations->options.pauses, id->name);
}

static bool is_forgettable(const struct destination *d, int64_t now)
{
	return destination_parked_count(d) == 0 && d->ready_count == 0 && d->connections == 0 &&
	       d->trouble.kind == OUTCOME_NONE && now - d->used_at_ms > FORGET_AFTER_MS;
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
		if (is_forgettable(d, destinations_now_ms(destinations))) {
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
		destination_line_init(d);
		list_init(&d->idle);
		list_node_init(&d->starved_node);
		d->window = WINDOW_START;
		destination_rate_init(d);
		destination_hop_init(d);
		d->paused = is_paused(destinations, id);
		HASH_ADD_STR(destinations->by_key, key, d);
	}
	d->used_at_ms = destinations_now_ms(destinations);
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

/* One with none at all comes before the idle ones of others that lead to the same next hop. */
static void quit_an_idle_sibling(struct destination *d)
{
	struct destination *other = d->connections == 0 ? destination_hop_idle(d) : NULL;

	if (other)
		destination_driver(other)->quit(CONTAINER_OF(other->idle.next, struct destination_slot, node));
}

/* In trouble one probe at a time is enough. */
static unsigned busy_limit(const struct destination *d)
{
	return d->failures > 0 ? 1 : MIN(d->window, d->owner->options.per_destination_max);
}

static bool may_connect(struct destination *d)
{
	if (d->busy >= busy_limit(d) || destination_hop_is_probed(d))
		return false;
	if (destination_hop_is_full(d)) {
		quit_an_idle_sibling(d);
		return false;
	}
	if (destination_place_is_free(d) || destination_place_make(d))
		return true;
	destination_place_await(d);
	return false;
}

static void open_connection(struct destination *d)
{
	struct destination_slot *slot;

	list_remove(&d->starved_node);
	destination_hop_count(d, 1);
	d->busy++;
	d->coming++;
	slot = destination_driver(d)->open(destination_driver(d)->ctx, d);
	slot->busy = true;
	slot->has_session = false;
	slot->job_count = 0;
	list_node_init(&slot->node);
}

void destination_pump(struct destination *d)
{
	int64_t until;

	if (d->owner->stopping || !destination_is_open(d, &until))
		return;
	while (d->ready_count > 0 && !list_is_empty(&d->idle) && d->busy < busy_limit(d) &&
	       destination_rate_reserve(d, 1)) {
		struct destination_slot *slot = CONTAINER_OF(list_pop(&d->idle), struct destination_slot, node);
		slot->busy = true;
		d->busy++;
		destination_driver(d)->wake(slot);
	}
	while (d->ready_count > d->coming && may_connect(d) && destination_rate_reserve(d, d->coming + 1))
		open_connection(d);
}

/* Others have no connection at all: who has several gives one up, and who has one after a while. */
static bool must_yield(const struct destination *d, const struct destination_slot *slot)
{
	return (destination_place_is_wanted(d) || destination_hop_is_wanted(d)) &&
	       (d->connections > 1 || slot->job_count >= YIELD_AFTER_JOBS);
}

void destination_on_backoff_over(void *ctx)
{
	destination_line_refill(ctx);
	destination_pump(ctx);
}

void destination_submit(struct destination *d, struct job *job)
{
	job->destination = d;
	destination_line_append(d, job);
	if (list_is_linked(&d->rate_waiter.node))
		destination_line_watch_lifetimes(d);
	destination_pump(d);
}

void destination_return_job(struct destination *d, struct job *job)
{
	destination_line_prepend(d, job);
	destination_rate_unuse(d);
	if (d->owner->stopping || d->paused) /* nobody takes it any more */
		destination_line_hand_back(d, clock_wall_ms(d->owner->options.clock));
}

void destination_retry_now(struct destination *d)
{
	d->backoff_until_ms = 0;
	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	destination_on_backoff_over(d);
}

/* What stands in line goes elsewhere, if it may; what cannot comes back and is parked. */
static void begin_pause(struct destination *d)
{
	d->paused = true;
	destination_line_hand_back(d, clock_wall_ms(d->owner->options.clock));
	destination_line_sweep(d);
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
	bool has_ended = false;

	while ((d = find_changed(destinations))) {
		has_ended = has_ended || d->paused;
		(d->paused ? end_pause : begin_pause)(d);
	}
	if (has_ended)
		destinations_route_anew(destinations);
}

static void on_route_time(void *ctx)
{
	destination_line_sweep(ctx);
}

/* In a turn of its own. */
static void route_anew(struct destination *d)
{
	if (destination_parked_count(d) > 0)
		timers_set(loop_timers(d->owner->options.loop), &d->refill_timer, destinations_now_ms(d->owner),
			   on_route_time, d);
}

void destinations_route_anew(struct destinations *destinations)
{
	struct destination *d, *next;

	HASH_ITER(hh, destinations->by_key, d, next)
	if (d->paused || list_is_linked(&d->rate_waiter.node))
		route_anew(d);
}

void destinations_retire_relayhosts(struct destinations *destinations, const struct config *config)
{
	struct destination *d, *next;

	HASH_ITER(hh, destinations->by_key, d, next)
	{
		if (d->id.kind != DESTINATION_RELAYHOST)
			continue;
		d->is_retired = !config_find_relayhost(config, slice_of_str(d->id.name));
		if (!d->is_retired)
			continue;
		destination_line_hand_back(d, clock_wall_ms(destinations->options.clock));
		route_anew(d);
		destination_end_trouble(d);
	}
}

void destinations_stop(struct destinations *destinations)
{
	struct destination *d, *next;
	int64_t now = clock_wall_ms(destinations->options.clock);

	destinations->stopping = true;
	HASH_ITER(hh, destinations->by_key, d, next)
	{
		destination_line_hand_back(d, now);
		while (!list_is_empty(&d->idle)) {
			struct list *node = list_pop(&d->idle);
			destination_driver(d)->quit(CONTAINER_OF(node, struct destination_slot, node));
		}
	}
}

static void note_asking(struct destination *d, struct destination_slot *slot)
{
	if (slot->has_session)
		return;
	slot->has_session = true;
	d->coming--;
	d->sessions++;
	if (d->enough > 0 && d->sessions > d->enough)
		d->enough = 0; /* it takes more of them by now */
}

static void begin_job(struct destination *d, struct destination_slot *slot, struct job *job)
{
	destination_rate_use(d);
	job->started_ms = destinations_now_ms(d->owner);
	slot->job_count++;
	if (!slot->busy) {
		slot->busy = true;
		d->busy++;
		list_remove(&slot->node);
	}
	d->owner->options.events.on_job_begun(d->owner->options.events.ctx, job);
	destination_line_unpark(d);
	destination_line_refill_later(d);
	destination_pump(d); /* the window may have grown */
}

/* A place is there before the job leaves its line. */
static struct job *pop_allowed(struct destination *d)
{
	return d->ready_count > 0 && destination_rate_reserve(d, 1) ? destination_line_pop_live(d) : NULL;
}

struct job *destination_next_job(struct destination *d, struct destination_slot *slot)
{
	bool yields = must_yield(d, slot);
	struct job *job = NULL;
	int64_t until;

	note_asking(d, slot);
	if (!d->owner->stopping && !yields && destination_is_open(d, &until) && d->busy <= MAX(d->window, 1u))
		job = pop_allowed(d);
	if (job) {
		begin_job(d, slot, job);
		return job;
	}
	if (slot->busy) {
		slot->busy = false;
		d->busy--;
		list_append(&d->idle, &slot->node);
	}
	d->used_at_ms = destinations_now_ms(d->owner);
	destination_rate_settle(d);
	destination_line_refill_later(d);
	if (d->owner->stopping || yields || destination_place_is_wanted(d))
		destination_driver(d)->quit(slot);
	return NULL;
}

bool destination_take_extra(struct destination *d)
{
	if (destination_hop_is_full(d) || !destination_place_is_free(d))
		return false;
	destination_hop_count(d, 1);
	return true;
}

void destination_give_back_extra(struct destination *d)
{
	destination_hop_count(d, -1);
	destination_place_serve(d->owner);
	destination_hop_serve(d);
}

void destination_move_slot(struct destination *from, struct destination_slot *slot, struct destination *to)
{
	list_remove(&slot->node);
	from->sessions--;
	destination_hop_count(from, -1);
	*slot = (struct destination_slot){.busy = true};
	list_node_init(&slot->node);
	to->used_at_ms = from->used_at_ms = destinations_now_ms(from->owner);
	destination_place_serve(from->owner);
	destination_hop_serve(from);
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
	destination_hop_count(d, -1);
	destination_rate_settle(d);
	destination_place_serve(d->owner);
	destination_hop_serve(d);
	destination_line_refill_later(d);
	destination_pump(d);
}
