#include "relayd/greylist.h"

#include "base/base.h"
#include "base/list.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define SEC INT64_C(1000)
#define DAY (86400 * SEC)

enum {
	SLOT_MS = 10 * 1000,
	SLOTS = 1024, /* nearly three hours; who comes later finds room */
	BEHIND_MS = 5 * 1000,
	JITTER_MS = 5 * 1000,
	NEAR_MS = 20 * 1000,	    /* refused and accepted wait are as near as need be */
	WAIT_MIN_MS = 30 * 1000,    /* between two visits of the same recipient */
	WAIT_MAX_MS = 24 * 3600000, /* no greylister waits longer: nothing is learnt from it */
	NARROW_MAX_MS = 2 * 3600000,
	WAVE = 2,
	KEEP_WITHIN_MS = 5 * 1000,
};
#define FORGET_MS (60 * DAY)

struct operator_entry {
	UT_hash_handle hh;
	struct list node; /* in `by_use`, the longest unused first */
	struct list waiting;
	int64_t refused_ms, accepted_ms, used_wall;
	uint64_t busy[SLOTS / 64]; /* stretches of SLOT_MS in which somebody comes back; bit: its number modulo SLOTS */
	int64_t first_slot;	   /* older ones are over */
	uint64_t narrowing_id;	   /* who looks in the middle; 0: nobody */
	int64_t narrowing_wall;
	uint64_t last_id; /* the last answer, for the other recipients of that message */
	int64_t last_wall, last_ms;
	char name[GREYLIST_OPERATOR_MAX];
};

struct waiting_key {
	uint64_t id, recipient;
};

struct waiting {
	UT_hash_handle hh;
	struct waiting_key key;
	struct list node, age_node; /* in op.waiting; in `by_age` */
	struct operator_entry *op;
	int64_t first_wall;
	uint32_t refusals;
	bool is_whole;	   /* that was its first refusal */
	bool is_aside;	   /* waits for something else */
	bool is_released;  /* comes early */
	bool has_narrowed; /* looked in the middle: once is enough for one */
};

struct greylist {
	struct greylist_options options;
	struct memo *memo;
	struct operator_entry *operators;
	struct waiting *waiting;
	struct list by_use, by_age;
};

/* ---- operators ---- */

/* The last `count` labels. */
static const char *last_labels(const char *name, int count)
{
	const char *at = name + strlen(name);

	while (at > name && count > 0)
		if (*--at == '.' && --count == 0)
			return at + 1;
	return at;
}

static bool is_address(const char *name)
{
	return strchr(name, ':') || (*name && isdigit((unsigned char)name[strlen(name) - 1]));
}

/* Registries below a country's label have short names: co.uk, com.au, ne.jp. */
static bool ends_in_registry(const char *name)
{
	const char *country = last_labels(name, 1), *second = last_labels(name, 2);

	return strlen(country) == 2 && country > second && country - second - 1 <= 3;
}

void greylist_operator_of(const char *host, char out[GREYLIST_OPERATOR_MAX])
{
	char name[256];
	size_t len;

	if (*host == '[') {
		slice_to_cstr(slice_to(slice_of_str(host + 1), MIN(strcspn(host + 1, "]"), sizeof(name) - 1)), name,
			      sizeof(name));
	} else {
		slice_to_cstr(slice_to(slice_of_str(host), MIN(strcspn(host, "["), sizeof(name) - 1)), name,
			      sizeof(name));
	}
	for (char *c = name; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	len = strlen(name);
	if (len > 0 && name[len - 1] == '.')
		name[len - 1] = '\0';
	snprintf(out, GREYLIST_OPERATOR_MAX, "%.*s", GREYLIST_OPERATOR_MAX - 1,
		 is_address(name) ? name : last_labels(name, ends_in_registry(name) ? 3 : 2));
}

static struct operator_entry *find_operator(const struct greylist *greylist, const char *name)
{
	struct operator_entry *op;

	HASH_FIND_STR(greylist->operators, name, op);
	return op;
}

static void waiting_free(struct greylist *greylist, struct waiting *waiting)
{
	list_remove(&waiting->node);
	list_remove(&waiting->age_node);
	HASH_DEL(greylist->waiting, waiting);
	free(waiting);
}

static void operator_free(struct greylist *greylist, struct operator_entry *op)
{
	while (!list_is_empty(&op->waiting))
		waiting_free(greylist, CONTAINER_OF(op->waiting.next, struct waiting, node));
	list_remove(&op->node);
	HASH_DEL(greylist->operators, op);
	free(op);
}

static struct operator_entry *get_operator(struct greylist *greylist, const char *name, int64_t now_wall)
{
	struct operator_entry *op = find_operator(greylist, name);

	if (!op) {
		if (HASH_COUNT(greylist->operators) >= GREYLIST_OPERATORS_MAX)
			operator_free(greylist, CONTAINER_OF(greylist->by_use.next, struct operator_entry, node));
		op = xcalloc(1, sizeof(*op));
		snprintf(op->name, sizeof(op->name), "%s", name);
		list_init(&op->waiting);
		list_node_init(&op->node);
		HASH_ADD_STR(greylist->operators, name, op);
	}
	list_remove(&op->node);
	list_append(&greylist->by_use, &op->node);
	op->used_wall = now_wall;
	return op;
}

/* ---- who waits ---- */

static struct waiting *find_waiting(const struct greylist *greylist, uint64_t id, uint32_t recipient)
{
	struct waiting_key key = {id, recipient};
	struct waiting *waiting;

	HASH_FIND(hh, greylist->waiting, &key, sizeof(key), waiting);
	return waiting;
}

static struct waiting *add_waiting(struct greylist *greylist, struct operator_entry *op,
				   const struct greylist_refusal *refusal, int64_t now_wall)
{
	struct waiting *waiting = xcalloc(1, sizeof(*waiting));

	if (HASH_COUNT(greylist->waiting) >= GREYLIST_WAITING_MAX)
		waiting_free(greylist, CONTAINER_OF(greylist->by_age.next, struct waiting, age_node));
	waiting->key = (struct waiting_key){refusal->id, refusal->recipient};
	waiting->op = op;
	waiting->first_wall = now_wall;
	waiting->is_whole = !refusal->was_refused;
	list_append(&op->waiting, &waiting->node);
	list_append(&greylist->by_age, &waiting->age_node);
	HASH_ADD(hh, greylist->waiting, key, sizeof(waiting->key), waiting);
	return waiting;
}

void greylist_forget(struct greylist *greylist, uint64_t id, uint32_t recipient)
{
	struct waiting *waiting = find_waiting(greylist, id, recipient);

	if (waiting)
		waiting_free(greylist, waiting);
}

void greylist_set_aside(struct greylist *greylist, uint64_t id, uint32_t recipient)
{
	struct waiting *waiting = find_waiting(greylist, id, recipient);

	if (waiting)
		waiting->is_aside = true;
}

uint32_t greylist_refusal_count(const struct greylist *greylist, uint64_t id, uint32_t recipient)
{
	const struct waiting *waiting = find_waiting(greylist, id, recipient);

	return waiting ? waiting->refusals : 0;
}

size_t greylist_waiting_count(const struct greylist *greylist)
{
	return HASH_COUNT(greylist->waiting);
}

/* ---- lessons ---- */

static void keep(struct greylist *greylist)
{
	if (greylist->memo)
		memo_changed(greylist->memo, KEEP_WITHIN_MS);
}

static void learn_refused(struct greylist *greylist, struct operator_entry *op, int64_t wait_ms)
{
	if (wait_ms > WAIT_MAX_MS || wait_ms <= op->refused_ms)
		return;
	op->refused_ms = wait_ms;
	if (op->accepted_ms <= wait_ms)
		op->accepted_ms = 0; /* it has become stricter */
	keep(greylist);
}

static void learn_accepted(struct greylist *greylist, struct operator_entry *op, int64_t wait_ms)
{
	if (wait_ms > WAIT_MAX_MS || (op->accepted_ms > 0 && wait_ms >= op->accepted_ms))
		return;
	op->accepted_ms = wait_ms;
	if (op->refused_ms >= wait_ms)
		op->refused_ms = 0; /* it has become milder */
	keep(greylist);
}

void greylist_look_up(const struct greylist *greylist, const char *host, struct greylist_lesson *out)
{
	const struct operator_entry *op;

	*out = (struct greylist_lesson){{0}, 0, 0};
	greylist_operator_of(host, out->name);
	op = find_operator(greylist, out->name);
	if (!op)
		return;
	out->refused_ms = op->refused_ms;
	out->accepted_ms = op->accepted_ms;
}

/* ---- when to come back ---- */

/* How long after its first refusal this one is to come; 0: nobody knows. */
static int64_t learnt_wait(struct operator_entry *op, struct waiting *waiting, int64_t waited_ms, int64_t now_wall)
{
	int64_t middle = op->refused_ms + (op->accepted_ms - op->refused_ms) / 2;
	bool is_near = op->accepted_ms - op->refused_ms <= NEAR_MS;
	bool is_narrowed =
	    op->narrowing_id && op->narrowing_id != waiting->key.id && now_wall - op->narrowing_wall < NARROW_MAX_MS;

	if (op->accepted_ms == 0)
		return 0;
	if (is_near || is_narrowed || waiting->has_narrowed || middle < waited_ms + WAIT_MIN_MS)
		return op->accepted_ms + BEHIND_MS;
	waiting->has_narrowed = true;
	op->narrowing_id = waiting->key.id;
	op->narrowing_wall = now_wall;
	return middle;
}

static void pass_slots(struct operator_entry *op, int64_t now_slot)
{
	if (now_slot - op->first_slot >= SLOTS || now_slot < op->first_slot) {
		memset(op->busy, 0, sizeof(op->busy));
		op->first_slot = now_slot;
	}
	for (; op->first_slot < now_slot; op->first_slot++) {
		unsigned at = (unsigned)(op->first_slot % SLOTS);
		op->busy[at / 64] &= ~(UINT64_C(1) << at % 64);
	}
}

/* The first stretch of ten seconds at or behind that time in which nobody else comes. */
static int64_t take_slot(struct operator_entry *op, int64_t now_wall, int64_t wait_ms)
{
	int64_t wanted = (now_wall + wait_ms) / SLOT_MS, slot;

	pass_slots(op, now_wall / SLOT_MS);
	for (slot = wanted; slot < op->first_slot + SLOTS; slot++) {
		unsigned at = (unsigned)(slot % SLOTS);
		uint64_t bit = UINT64_C(1) << at % 64;
		if (op->busy[at / 64] & bit)
			continue;
		op->busy[at / 64] |= bit;
		break;
	}
	return slot == wanted ? wait_ms : slot * SLOT_MS - now_wall;
}

static int64_t choose_wait(struct greylist *greylist, struct operator_entry *op, struct waiting *waiting,
			   const struct greylist_refusal *refusal, int64_t now_wall)
{
	int64_t waited = now_wall - waiting->first_wall, wait = refusal->otherwise_ms, learnt;

	if (refusal->is_hinted)
		return wait;
	learnt = waiting->is_whole ? learnt_wait(op, waiting, waited, now_wall) : 0;
	if (learnt > waited)
		wait = MAX(learnt - waited, WAIT_MIN_MS) + (int64_t)rng_below(greylist->options.rng, JITTER_MS + 1);
	return take_slot(op, now_wall, wait);
}

int64_t greylist_refused(struct greylist *greylist, const struct greylist_refusal *refusal, int64_t now_wall)
{
	struct waiting *waiting = find_waiting(greylist, refusal->id, refusal->recipient);
	char name[GREYLIST_OPERATOR_MAX];
	struct operator_entry *op;

	if (refusal->has_hint && greylist->options.metrics)
		series_add(metrics_series(greylist->options.metrics, METRIC_GREYLIST_HINTS,
					  refusal->is_hinted ? "yes" : "no", NULL, NULL),
			   1);
	greylist_operator_of(refusal->host, name);
	if (waiting && strcmp(waiting->op->name, name) != 0) {
		waiting_free(greylist, waiting);
		waiting = NULL;
	}
	op = get_operator(greylist, name, now_wall);
	if (waiting && waiting->is_whole)
		learn_refused(greylist, op, now_wall - waiting->first_wall);
	if (op->narrowing_id == refusal->id)
		op->narrowing_id = 0;
	waiting = waiting ? waiting : add_waiting(greylist, op, refusal, now_wall);
	waiting->refusals++;
	waiting->is_aside = waiting->is_released = false;
	if (op->last_id != refusal->id || op->last_wall != now_wall || refusal->is_hinted)
		op->last_ms = choose_wait(greylist, op, waiting, refusal, now_wall);
	op->last_id = refusal->id;
	op->last_wall = now_wall;
	return op->last_ms;
}

/* All recipients of a message together, as they were refused together. */
static void release_message(struct greylist *greylist, struct operator_entry *op, uint64_t id)
{
	LIST_FOREACH (node, &op->waiting) {
		struct waiting *waiting = CONTAINER_OF(node, struct waiting, node);
		if (waiting->key.id != id || waiting->is_aside || waiting->is_released)
			continue;
		waiting->is_released = true;
		greylist->options.release(greylist->options.ctx, id, (uint32_t)waiting->key.recipient);
	}
}

static void release_some(struct greylist *greylist, struct operator_entry *op)
{
	int released = 0;

	LIST_FOREACH (node, &op->waiting) {
		struct waiting *waiting = CONTAINER_OF(node, struct waiting, node);
		if (waiting->is_aside || waiting->is_released)
			continue;
		release_message(greylist, op, waiting->key.id);
		if (++released == WAVE)
			return;
	}
}

void greylist_passed(struct greylist *greylist, uint64_t id, uint32_t recipient, int64_t now_wall)
{
	struct waiting *waiting = find_waiting(greylist, id, recipient);
	struct operator_entry *op;
	int64_t waited;

	if (!waiting)
		return;
	op = waiting->op;
	waited = now_wall - waiting->first_wall;
	if (waiting->is_whole && greylist->options.metrics)
		series_observe(metrics_series(greylist->options.metrics, METRIC_GREYLIST_WAIT, NULL, NULL, NULL),
			       (double)waited / 1000);
	/* One that came early may have passed because we are known now. */
	if (waiting->is_whole && !waiting->is_released)
		learn_accepted(greylist, op, waited);
	if (op->narrowing_id == id)
		op->narrowing_id = 0;
	waiting_free(greylist, waiting);
	release_some(greylist, op);
}

/* ---- kept ---- */

/* {"example.net": [refused_ms, accepted_ms, last used]} */
static json_t *save(void *ctx)
{
	const struct greylist *greylist = ctx;
	json_t *document = json_object();

	LIST_FOREACH (node, &greylist->by_use) {
		const struct operator_entry *op = CONTAINER_OF(node, struct operator_entry, node);
		if (op->refused_ms > 0 || op->accepted_ms > 0)
			json_object_set_new(document, op->name,
					    json_pack("[I, I, I]", (json_int_t)op->refused_ms,
						      (json_int_t)op->accepted_ms, (json_int_t)op->used_wall));
	}
	return document;
}

static int64_t number_at(const json_t *list, size_t at, int64_t max)
{
	int64_t number = json_integer_value(json_array_get(list, at));

	return number > 0 && number <= max ? number : 0;
}

/* By use, as they were written. */
static void load(struct greylist *greylist, int64_t now_wall)
{
	json_t *document = memo_read(greylist->memo), *lesson;
	const char *name;

	json_object_foreach(document, name, lesson)
	{
		int64_t used = number_at(lesson, 2, now_wall);
		struct operator_entry *op;
		if (used < now_wall - FORGET_MS || strlen(name) >= GREYLIST_OPERATOR_MAX)
			continue;
		op = get_operator(greylist, name, used);
		op->refused_ms = number_at(lesson, 0, WAIT_MAX_MS);
		op->accepted_ms = number_at(lesson, 1, WAIT_MAX_MS);
	}
	json_decref(document);
}

struct greylist *greylist_new(const struct greylist_options *options, int64_t now_wall)
{
	struct greylist *greylist = xcalloc(1, sizeof(*greylist));

	greylist->options = *options;
	if (options->metrics) {
		metrics_series(options->metrics, METRIC_GREYLIST_WAIT, NULL, NULL, NULL);
		metrics_series(options->metrics, METRIC_GREYLIST_HINTS, "yes", NULL, NULL);
		metrics_series(options->metrics, METRIC_GREYLIST_HINTS, "no", NULL, NULL);
	}
	list_init(&greylist->by_use);
	list_init(&greylist->by_age);
	if (options->memos) {
		greylist->memo = memo_new(options->memos, "greylist.json", save, greylist);
		load(greylist, now_wall);
	}
	return greylist;
}

void greylist_free(struct greylist **greylist)
{
	if (!*greylist)
		return;
	while (!list_is_empty(&(*greylist)->by_use))
		operator_free(*greylist, CONTAINER_OF((*greylist)->by_use.next, struct operator_entry, node));
	free(*greylist);
	*greylist = NULL;
}
