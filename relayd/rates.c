#include "relayd/rates.h"

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

enum {
	WINDOW_SLOTS = 60,
	/* One more: the slot that is only partly within the window counts as a whole. */
	SLOTS = WINDOW_SLOTS + 1,
	KEEP_WITHIN_MS = 5 * 1000,
	KEEP_EACH = 20, /* parts of what a window holds; a crash forgets no more than one */
	KEPT_MAX = 4096,
};

struct rate {
	UT_hash_handle hh;
	struct rates *owner;
	enum rate_scope scope;
	struct config_rate limit;
	int64_t slot_ms, slot; /* the number of the slot that is now, in slot_ms since the clock's beginning */
	uint32_t gone[SLOTS];  /* messages, at slot number modulo SLOTS */
	uint64_t used;	       /* their sum */
	uint64_t taken;	       /* places for messages that have not gone out yet */
	uint64_t unkept;       /* changes since it was written down */
	struct list waiters;
	timer_id timer;
	char key[]; /* scope, ':', name */
};

struct rates {
	struct loop *loop;
	const struct clock *clock;
	struct memo *memo;
	struct rate *by_key;
};

const char *rate_scope_name(enum rate_scope scope)
{
	return scope == RATE_OF_RELAYHOST ? "relayhost" : "route";
}

const struct config_rate *rate_limit(const struct rate *rate)
{
	return &rate->limit;
}

uint64_t rate_used(const struct rate *rate)
{
	return rate->used + rate->taken;
}

enum rate_scope rate_scope(const struct rate *rate)
{
	return rate->scope;
}

const char *rate_name(const struct rate *rate)
{
	return strchr(rate->key, ':') + 1;
}

/* ---- the window ---- */

static int64_t now_ms(const struct rate *rate)
{
	return loop_now_ms(rate->owner->loop);
}

static uint32_t *slot_at(struct rate *rate, int64_t slot)
{
	return &rate->gone[(slot % SLOTS + SLOTS) % SLOTS];
}

/* Moves the window to now; what falls out of it is free again. */
static void advance(struct rate *rate)
{
	int64_t now = now_ms(rate) / rate->slot_ms;

	if (now - rate->slot >= SLOTS) {
		memset(rate->gone, 0, sizeof(rate->gone));
		rate->used = 0;
		rate->slot = now;
	}
	while (rate->slot < now) {
		uint32_t *oldest = slot_at(rate, ++rate->slot);
		rate->used -= *oldest;
		*oldest = 0;
	}
}

/* When the first of those that have gone out falls out of the window. */
static int64_t free_at_ms(struct rate *rate)
{
	int64_t slot = rate->slot - WINDOW_SLOTS;

	while (slot < rate->slot && *slot_at(rate, slot) == 0)
		slot++;
	return (slot + SLOTS) * rate->slot_ms;
}

static void set_limit(struct rate *rate, const struct config_rate *limit)
{
	uint64_t used;

	if (limit->count > 0 && limit->per_ms != rate->limit.per_ms) {
		/* It is not known when they were sent, in the new measure: they count as sent just now. */
		used = rate->used;
		memset(rate->gone, 0, sizeof(rate->gone));
		rate->slot_ms = MAX((limit->per_ms + WINDOW_SLOTS - 1) / WINDOW_SLOTS, INT64_C(1));
		rate->slot = now_ms(rate) / rate->slot_ms;
		rate->used = *slot_at(rate, rate->slot) = (uint32_t)MIN(used, (uint64_t)limit->count);
	}
	if (limit->count == 0) {
		memset(rate->gone, 0, sizeof(rate->gone));
		rate->used = 0;
	}
	rate->limit = *limit;
}

static bool is_full(struct rate *rate)
{
	if (rate->limit.count == 0)
		return false;
	advance(rate);
	return rate->used + rate->taken >= (uint64_t)rate->limit.count;
}

int64_t rate_wait_ms(const struct rate *rate)
{
	struct rate *r = (struct rate *)rate; /* it is only brought up to date */

	return is_full(r) ? MAX(free_at_ms(r) - now_ms(r), INT64_C(1)) : 0;
}

/* ---- who waits ---- */

static void arm(struct rate *rate);

static void serve(void *ctx)
{
	struct rate *rate = ctx;
	struct list *node;

	while (!is_full(rate) && (node = list_pop(&rate->waiters))) {
		struct rate_waiter *waiter = CONTAINER_OF(node, struct rate_waiter, node);
		waiter->on_free(waiter->ctx);
	}
	arm(rate);
}

static void arm(struct rate *rate)
{
	if (list_is_empty(&rate->waiters))
		timers_cancel(loop_timers(rate->owner->loop), &rate->timer);
	else
		timers_set(loop_timers(rate->owner->loop), &rate->timer, now_ms(rate) + rate_wait_ms(rate), serve,
			   rate);
}

static void keep(struct rate *rate)
{
	bool is_long = rate->limit.per_ms > KEEP_WITHIN_MS; /* what is shorter is over by the next start */
	bool is_much = ++rate->unkept * KEEP_EACH >= (uint64_t)rate->limit.count;

	if (rate->owner->memo)
		memo_changed(rate->owner->memo, is_long && is_much ? 0 : KEEP_WITHIN_MS);
}

int64_t rate_take(struct rate *rate)
{
	if (rate->limit.count == 0)
		return 0;
	if (is_full(rate))
		return rate_wait_ms(rate);
	rate->taken++;
	return 0;
}

/* Without a limit nothing is counted; what was taken before there was one may be used or given back after. */
void rate_use(struct rate *rate)
{
	rate->taken -= rate->taken > 0;
	if (rate->limit.count == 0)
		return;
	advance(rate);
	++*slot_at(rate, rate->slot);
	rate->used++;
	keep(rate);
}

void rate_give_back(struct rate *rate)
{
	rate->taken -= rate->taken > 0;
	arm(rate);
}

void rate_unuse(struct rate *rate)
{
	int64_t slot;

	if (rate->limit.count == 0)
		return;
	advance(rate);
	for (slot = rate->slot; slot > rate->slot - WINDOW_SLOTS && *slot_at(rate, slot) == 0; slot--)
		;
	if (*slot_at(rate, slot) == 0)
		return;
	--*slot_at(rate, slot);
	rate->used--;
	rate->taken++;
	keep(rate);
}

void rate_wait(struct rate *rate, struct rate_waiter *waiter)
{
	if (list_is_linked(&waiter->node))
		return;
	list_append(&rate->waiters, &waiter->node);
	arm(rate);
}

void rate_stop_waiting(struct rate_waiter *waiter)
{
	list_remove(&waiter->node); /* a timer that finds nobody does nothing */
}

/* ---- all of them ---- */

struct rate *rates_get(struct rates *rates, enum rate_scope scope, const char *name)
{
	size_t size = strlen(rate_scope_name(scope)) + strlen(name) + 2;
	struct rate *rate = xcalloc(1, sizeof(*rate) + size), *known;

	snprintf(rate->key, size, "%s:%s", rate_scope_name(scope), name);
	HASH_FIND_STR(rates->by_key, rate->key, known);
	if (known) {
		free(rate);
		return known;
	}
	rate->owner = rates;
	rate->scope = scope;
	rate->slot_ms = 1;
	list_init(&rate->waiters);
	HASH_ADD_STR(rates->by_key, key, rate);
	return rate;
}

static void limit_one(struct rates *rates, enum rate_scope scope, const char *name, const struct config_rate *limit)
{
	struct rate *rate;

	if (limit->count == 0)
		return;
	rate = rates_get(rates, scope, name);
	set_limit(rate, limit);
	arm(rate);
}

static const struct config_rate *find_limit(const struct config *config, enum rate_scope scope, const char *name)
{
	static const struct config_rate none;
	const struct config_relayhost *relayhost = config_find_relayhost(config, slice_of_str(name));

	if (scope == RATE_OF_RELAYHOST)
		return relayhost ? &relayhost->rate : &none;
	for (size_t i = 0; i < config->route_count; i++)
		if (strcmp(config->routes[i].name, name) == 0)
			return &config->routes[i].rate;
	return &none;
}

void rates_configure(struct rates *rates, const struct config *config)
{
	struct rate *rate, *next;

	HASH_ITER(hh, rates->by_key, rate, next)
	{
		set_limit(rate, find_limit(config, rate->scope, rate_name(rate)));
		arm(rate);
	}
	for (size_t i = 0; i < config->relayhost_count; i++)
		limit_one(rates, RATE_OF_RELAYHOST, config->relayhosts[i].name, &config->relayhosts[i].rate);
	for (size_t i = 0; i < config->route_count; i++)
		limit_one(rates, RATE_OF_ROUTE, config->routes[i].name, &config->routes[i].rate);
}

/* ---- kept ---- */

/* {"relayhost:main": {"per_ms": .., "at": wall, "taken": [..]}}: the numbers of the slots, the newest first; the first
 * began `at`. */
static json_t *save(void *ctx)
{
	struct rates *rates = ctx;
	json_t *document = json_object(), *taken;
	struct rate *rate, *next;
	int64_t wall = clock_wall_ms(rates->clock);
	int kept = 0;

	HASH_ITER(hh, rates->by_key, rate, next)
	{
		rate->unkept = 0;
		if (rate->limit.count == 0 || kept++ >= KEPT_MAX)
			continue;
		advance(rate);
		if (rate->used == 0)
			continue;
		taken = json_array();
		for (int64_t slot = rate->slot; slot > rate->slot - SLOTS; slot--)
			json_array_append_new(taken, json_integer(*slot_at(rate, slot)));
		json_object_set_new(document, rate->key,
				    json_pack("{s:I, s:I, s:o}", "per_ms", (json_int_t)rate->limit.per_ms, "at",
					      (json_int_t)(wall - now_ms(rate) + rate->slot * rate->slot_ms), "taken",
					      taken));
	}
	return document;
}

/* The slots of this run begin at other times than those that were kept: each of these counts as one of ours that ends
 * no sooner. A clock that was set back meanwhile makes them as old as nothing, never younger. */
static void load_one(struct rate *rate, const json_t *kept, int64_t wall)
{
	struct config_rate limit = {INT32_MAX, json_integer_value(json_object_get(kept, "per_ms"))};
	const json_t *taken = json_object_get(kept, "taken");
	int64_t age_ms, age_slots;

	if (limit.per_ms <= 0 || limit.per_ms > 400 * CONFIG_DAY_MS)
		return;
	set_limit(rate, &limit);
	age_ms = wall - (int64_t)json_integer_value(json_object_get(kept, "at")) - now_ms(rate) % rate->slot_ms;
	age_slots = MAX(age_ms, INT64_C(0)) / rate->slot_ms;
	for (size_t i = 0; i < json_array_size(taken) && age_slots + (int64_t)i < SLOTS; i++) {
		json_int_t count = json_integer_value(json_array_get(taken, i));
		if (count <= 0 || count > INT32_MAX)
			continue;
		*slot_at(rate, rate->slot - age_slots - (int64_t)i) = (uint32_t)count;
		rate->used += (uint64_t)count;
	}
}

static void load(struct rates *rates)
{
	json_t *document = memo_read(rates->memo), *kept;
	const char *key;
	int count = 0;

	json_object_foreach(document, key, kept)
	{
		const char *name = strchr(key, ':');
		bool is_route = strncmp(key, "route:", 6) == 0;
		if (name && count++ < KEPT_MAX && (is_route || strncmp(key, "relayhost:", 10) == 0))
			load_one(rates_get(rates, is_route ? RATE_OF_ROUTE : RATE_OF_RELAYHOST, name + 1), kept,
				 clock_wall_ms(rates->clock));
	}
	json_decref(document);
}

struct rates *rates_new(struct loop *loop, const struct clock *clock, struct memos *memos)
{
	struct rates *rates = xcalloc(1, sizeof(*rates));

	*rates = (struct rates){.loop = loop, .clock = clock};
	if (memos) {
		rates->memo = memo_new(memos, "rates.json", save, rates);
		load(rates);
	}
	return rates;
}

void rates_free(struct rates **rates)
{
	struct rate *rate, *next;

	if (!*rates)
		return;
	HASH_ITER(hh, (*rates)->by_key, rate, next)
	{
		timers_cancel(loop_timers((*rates)->loop), &rate->timer);
		HASH_DEL((*rates)->by_key, rate);
		free(rate);
	}
	free(*rates);
	*rates = NULL;
}
