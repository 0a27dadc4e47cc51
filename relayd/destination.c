#include "relayd/destination_internal.h"

#include "relayd/outcome.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	WINDOW_START = 4,
	BACKOFF_FIRST_MS = 5 * 1000,
	BACKOFF_MX_MAX_MS = 10 * 60 * 1000,
	BACKOFF_RELAYHOST_MAX_MS = 60 * 1000,
	BACKOFF_ACCOUNT_MAX_MS = 5 * 60 * 1000,
	BACKOFF_LIMIT_MAX_MS = 10 * 60 * 1000,
	FORGET_AFTER_MS = 10 * 60 * 1000,
	PROGRESS_MS = 30 * 1000, /* a session that has got nowhere for longer proves nothing */
	GROW_PAUSE_FIRST_MS = 2 * 1000,
	GROW_PAUSE_MAX_MS = 60 * 1000,
	PAUSED_LOOK_MS = 60 * 1000,
	BROKEN_MAX = 3,	       /* messages in a row that one alone is not to blame for */
	YIELD_AFTER_JOBS = 50, /* the last connection goes too when others have none */
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

bool destination_is_open(const struct destination *d, int64_t *until_wall)
{
	int64_t wall = clock_wall_ms(d->owner->options.clock);

	*until_wall = wall;
	if (d->paused) {
		*until_wall = wall + PAUSED_LOOK_MS;
		return false;
	}
	if (d->backoff_until_ms <= destinations_now_ms(d->owner))
		return true;
	*until_wall = wall + d->backoff_until_ms - destinations_now_ms(d->owner);
	/* Its trouble may be over before: what waits looks again meanwhile. */
	if (d->id.kind == DESTINATION_RELAYHOST)
		*until_wall = MIN(*until_wall, wall + BACKOFF_RELAYHOST_MAX_MS);
	return false;
}

static const struct destination_driver *driver_of(const struct destination *d)
{
	return d->id.kind == DESTINATION_CAPTURE ? &d->owner->options.capture : &d->owner->options.driver;
}

/* An idle connection of any destination gives its place to one that has work. */
static void quit_an_idle_one(struct destinations *destinations)
{
	struct destination *d, *next;

	HASH_ITER(hh, destinations->by_key, d, next)
	{
		if (list_is_empty(&d->idle))
			continue;
		driver_of(d)->quit(CONTAINER_OF(d->idle.next, struct destination_slot, node));
		return;
	}
}

/* One with none at all comes before the idle ones of others that lead to the same next hop. */
static void quit_an_idle_sibling(struct destination *d)
{
	struct destination *other = d->connections == 0 ? destination_hop_idle(d) : NULL;

	if (other)
		driver_of(other)->quit(CONTAINER_OF(other->idle.next, struct destination_slot, node));
}

/* In trouble one probe at a time is enough. */
static unsigned busy_limit(const struct destination *d)
{
	return d->failures > 0 ? 1 : MIN(d->window, d->owner->options.per_destination_max);
}

static bool may_connect(struct destination *d)
{
	struct destinations *owner = d->owner;

	if (d->busy >= busy_limit(d))
		return false;
	if (destination_hop_is_full(d)) {
		quit_an_idle_sibling(d);
		return false;
	}
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
	destination_hop_count(d, 1);
	d->busy++;
	d->coming++;
	slot = driver_of(d)->open(driver_of(d)->ctx, d);
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
		driver_of(d)->wake(slot);
	}
	while (d->ready_count > d->coming && may_connect(d) && destination_rate_reserve(d, d->coming + 1))
		open_connection(d);
}

/* There is a place: the destination that has waited longest for any connection comes first. */
static void serve_starved(struct destinations *owner)
{
	struct list *node;

	while (owner->connections < owner->options.connections_max && (node = list_pop(&owner->starved)))
		destination_pump(CONTAINER_OF(node, struct destination, starved_node));
}

/* Others have no connection at all: who has several gives one up, and who has one after a while. */
static bool must_yield(const struct destination *d, const struct destination_slot *slot)
{
	return (!list_is_empty(&d->owner->starved) || destination_hop_is_wanted(d)) &&
	       (d->connections > 1 || slot->job_count >= YIELD_AFTER_JOBS);
}

static void on_backoff_over(void *ctx)
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
	if (d->owner->stopping) /* nobody takes it any more */
		destination_line_hand_back(d, clock_wall_ms(d->owner->options.clock));
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
		destination_line_hand_back(d, now);
		while (!list_is_empty(&d->idle)) {
			struct list *node = list_pop(&d->idle);
			driver_of(d)->quit(CONTAINER_OF(node, struct destination_slot, node));
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
	if (d->owner->stopping || yields || !list_is_empty(&d->owner->starved))
		driver_of(d)->quit(slot);
	return NULL;
}

/* Who is told all the time that a password is wrong may lock the account; and a day's limit is not over in a minute. */
static int64_t backoff_max_ms(const struct destination *d, const struct outcome *outcome)
{
	if (d->id.kind == DESTINATION_MX)
		return BACKOFF_MX_MAX_MS;
	if (!outcome_is_account_trouble(outcome) || outcome->code < 400)
		return BACKOFF_RELAYHOST_MAX_MS;
	return outcome->class == CLASS_THROTTLE ? BACKOFF_LIMIT_MAX_MS : BACKOFF_ACCOUNT_MAX_MS;
}

static void back_off(struct destination *d, const struct outcome *outcome)
{
	int64_t max = backoff_max_ms(d, outcome);
	int64_t wait = BACKOFF_FIRST_MS << MIN(d->failures, 12u);

	if (d->backoff_until_ms > destinations_now_ms(d->owner))
		return; /* connections that were open together fail together: once is enough */
	d->failures++;
	d->window = MAX(d->window / 2, 1u);
	d->backoff_until_ms = destinations_now_ms(d->owner) + MIN(wait, max);
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
		destination_pump(d);
	}
}

/* Trouble that only shows once there is a message: with our account, or the hosts break off. */
static bool is_in_session_trouble(const struct destination *d)
{
	return d->trouble.stage >= STAGE_MAIL;
}

/* The host looked at the message and said what it thinks of it. */
static bool is_answer(const struct outcome *outcome)
{
	return outcome->code > 0 && outcome->stage >= STAGE_MAIL && !outcome_is_host_trouble(outcome);
}

static bool ends_session_trouble(const struct destination *d, const struct outcome *outcome)
{
	if (outcome->kind == OUTCOME_DELIVERED)
		return true;
	return outcome_is_account_trouble(&d->trouble) ? outcome->stage > d->trouble.stage : is_answer(outcome);
}

/*
 * Is it this message's sender, or all of them? The first refusal after a success only puts the message off. When it is
 * refused once more, the message is at fault if another one got through meanwhile; otherwise, as always when nothing
 * ever got through, the account is in trouble.
 */
static void judge_refused_sender(struct destination *d, const struct job *job, uint32_t i, struct outcome *outcome)
{
	const struct queue_message *message = &job->ticket->message;
	bool was_refused = message->status[job->indexes[i]].reason == CLASS_AUTH;
	bool others_get_through = d->last_success_wall > 0 && d->refused_id == 0;

	if (others_get_through && was_refused) {
		outcome_blame_message(outcome);
	} else if (others_get_through || (d->refused_id == message->id && !was_refused && !d->is_refused_by_all)) {
		d->refused_id = message->id;
	} else {
		d->refused_id = message->id;
		d->is_refused_by_all = true;
		back_off(d, outcome);
		note_trouble(d, outcome);
	}
}

static void note_account(struct destination *d, const struct job *job, uint32_t i, struct outcome *outcome)
{
	if (outcome->kind == OUTCOME_DELIVERED) {
		d->refused_id = 0;
		d->is_refused_by_all = false;
	}
	if (d->id.kind == DESTINATION_RELAYHOST && outcome_is_refused_sender(outcome)) {
		judge_refused_sender(d, job, i, outcome);
	} else if (d->id.kind == DESTINATION_RELAYHOST && outcome_is_account_trouble(outcome)) {
		back_off(d, outcome);
		note_trouble(d, outcome);
	} else if (is_in_session_trouble(d) && ends_session_trouble(d, outcome)) {
		end_trouble(d);
	}
}

void destination_on_outcome(struct destination *d, struct job *job, uint32_t i, const struct outcome *told)
{
	const struct destination_events *events = &d->owner->options.events;
	struct outcome outcome = *told;

	if (outcome.kind == OUTCOME_DELIVERED)
		d->last_success_wall = clock_wall_ms(d->owner->options.clock);
	if (outcome.class == CLASS_GREYLIST) {
		snprintf(d->greylister, sizeof(d->greylister), "%s", outcome.host);
		d->greylister_ms = destinations_now_ms(d->owner);
	}
	if (outcome.class == CLASS_THROTTLE)
		d->window = MAX(d->window / 2, 1u);
	if (is_answer(&outcome))
		d->broken = 0;
	note_account(d, job, i, &outcome);
	events->on_outcome(events->ctx, job, i, &outcome);
}

/* Where there were enough connections a while ago one more is tried, and no other until it is known what comes of it. */
static bool may_grow(const struct destination *d)
{
	if (d->window >= d->owner->options.per_destination_max)
		return false;
	return d->enough == 0 || (d->window <= d->enough && destinations_now_ms(d->owner) >= d->grow_after_ms);
}

void destination_on_job_done(struct destination *d, struct job *job, bool quick)
{
	const struct destination_events *events = &d->owner->options.events;

	if (quick)
		d->progress_ms = destinations_now_ms(d->owner);
	if (quick && may_grow(d))
		d->window++;
	events->on_job_done(events->ctx, job, clock_wall_ms(d->owner->options.clock));
}

void destination_on_session(struct destination *d)
{
	d->progress_ms = destinations_now_ms(d->owner);
	if (!is_in_session_trouble(d))
		end_trouble(d);
}

/* Its next destination: there is one for each TLS level that routes ask of it. NULL: no more. The first is made. */
static struct destination *next_of_relayhost(struct destinations *destinations, const char *relayhost, int *level)
{
	struct destination_id id = {.kind = DESTINATION_RELAYHOST};
	struct destination *d = NULL;

	slice_to_cstr(slice_of_str(relayhost), id.name, sizeof(id.name));
	for (; !d && *level <= CONFIG_TLS_DANE; ++*level) {
		id.tls = (enum config_tls_level) * level;
		d = id.tls == CONFIG_TLS_UNSET ? destinations_get(destinations, &id)
					       : destinations_find(destinations, &id);
	}
	return d;
}

void destinations_hold_relayhost(struct destinations *destinations, const char *relayhost,
				 const struct outcome *outcome, int64_t until_ms)
{
	struct destination *d;
	int level = CONFIG_TLS_UNSET;

	while ((d = next_of_relayhost(destinations, relayhost, &level))) {
		d->failures += d->failures == 0;
		d->backoff_until_ms = MAX(d->backoff_until_ms, until_ms);
		timers_set(loop_timers(destinations->options.loop), &d->timer, d->backoff_until_ms, on_backoff_over, d);
		destination_on_failed(d, outcome);
	}
}

static bool is_held(const struct destination *d)
{
	return d->trouble.kind != OUTCOME_NONE && d->trouble.class == CLASS_AUTH && d->trouble.stage == STAGE_AUTH &&
	       d->trouble.code == 0;
}

void destinations_mend_relayhost(struct destinations *destinations, const char *relayhost)
{
	struct destination *d;
	int level = CONFIG_TLS_UNSET;

	while ((d = next_of_relayhost(destinations, relayhost, &level)))
		if (is_held(d)) {
			end_trouble(d);
			on_backoff_over(d);
		}
}

void destinations_retry_relayhosts(struct destinations *destinations)
{
	struct destination *d, *next;
	int64_t now = destinations_now_ms(destinations);

	HASH_ITER(hh, destinations->by_key, d, next)
	if (d->id.kind == DESTINATION_RELAYHOST && d->backoff_until_ms > now) {
		d->backoff_until_ms = now;
		timers_set(loop_timers(destinations->options.loop), &d->timer, now, on_backoff_over, d);
	}
}

/* The server takes so many connections and no more. */
static bool has_enough_sessions(const struct destination *d, const struct outcome *outcome)
{
	return outcome->kind == OUTCOME_DEFERRED && !outcome_is_account_trouble(outcome) && d->sessions > 0 &&
	       destinations_now_ms(d->owner) - d->progress_ms < PROGRESS_MS;
}

/* Nothing goes there for a while, and what stands in line gets this outcome. */
static void fail(struct destination *d, const struct outcome *outcome)
{
	struct list line;

	if (outcome->kind == OUTCOME_DEFERRED) {
		back_off(d, outcome);
		note_trouble(d, outcome);
	}
	/* The jobs that stand in line now, not those that events may add. */
	list_init(&line);
	for (struct job *job; (job = destination_line_pop(d));)
		list_append(&line, &job->node);
	for (struct list *node; (node = list_pop(&line));) {
		struct job *job = CONTAINER_OF(node, struct job, node);
		/* Not of what an operator has held or deleted meanwhile. */
		for (uint32_t i = 0;
		     i < job->count && queue_may_begin(d->owner->options.queue, job->ticket->message.id); i++)
			destination_on_outcome(d, job, i, outcome);
		destination_on_job_done(d, job, false);
	}
	/* Parked ones go through the scheduler again, which finds the back-off, another relayhost, or the same end. */
	destination_line_refill_later(d);
}

/* One refusal may be chance: the pause is short at first, and doubles as long as no further session can be had. Those
 * that fail together count once. */
static void note_enough(struct destination *d)
{
	int64_t now = destinations_now_ms(d->owner);

	if (d->enough == 0)
		d->grow_pause_ms = GROW_PAUSE_FIRST_MS;
	else if (now >= d->grow_after_ms)
		d->grow_pause_ms = MIN(2 * d->grow_pause_ms, (int64_t)GROW_PAUSE_MAX_MS);
	if (d->enough == 0 || now >= d->grow_after_ms)
		d->grow_after_ms = now + d->grow_pause_ms;
	d->enough = d->sessions;
	d->window = MIN(d->window, d->sessions);
}

void destination_on_failed(struct destination *d, const struct outcome *outcome)
{
	if (has_enough_sessions(d, outcome))
		note_enough(d);
	else
		fail(d, outcome);
}

void destination_on_broken(struct destination *d, const struct outcome *outcome)
{
	if (++d->broken >= BROKEN_MAX)
		fail(d, outcome);
}

bool destination_take_extra(struct destination *d)
{
	if (destination_hop_is_full(d) || d->owner->connections >= d->owner->options.connections_max)
		return false;
	destination_hop_count(d, 1);
	return true;
}

void destination_give_back_extra(struct destination *d)
{
	destination_hop_count(d, -1);
	serve_starved(d->owner);
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
	serve_starved(from->owner);
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
	serve_starved(d->owner);
	destination_hop_serve(d);
	destination_line_refill_later(d);
	destination_pump(d);
}
