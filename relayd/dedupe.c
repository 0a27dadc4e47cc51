#include "relayd/dedupe.h"

#include "base/base.h"

#include <stdlib.h>
#include <uthash.h>

struct dedupe_claim {
	UT_hash_handle hh;
	unsigned char key[DEDUPE_KEY_BYTES];
	struct dedupe *dedupe;
	struct list node;    /* the settled ones, the oldest first */
	struct list waiters; /* while it is under way */
	void *owner;
	uint64_t id; /* 0: under way */
	int64_t settled_ms;
};

struct dedupe {
	const struct clock *clock;
	struct dedupe_claim *claims;
	struct list settled;
	unsigned settled_count;
	int64_t window_ms;
};

struct dedupe *dedupe_new(const struct clock *clock)
{
	struct dedupe *dedupe = xcalloc(1, sizeof(*dedupe));

	dedupe->clock = clock;
	list_init(&dedupe->settled);
	return dedupe;
}

static void forget(struct dedupe_claim *claim)
{
	if (list_is_linked(&claim->node))
		claim->dedupe->settled_count--;
	list_remove(&claim->node);
	HASH_DEL(claim->dedupe->claims, claim);
	free(claim);
}

void dedupe_free(struct dedupe **dedupe)
{
	struct dedupe_claim *claim, *next;

	if (!*dedupe)
		return;
	HASH_ITER(hh, (*dedupe)->claims, claim, next)
	{
		while (list_pop(&claim->waiters))
			;
		forget(claim);
	}
	free(*dedupe);
	*dedupe = NULL;
}

static struct dedupe_claim *oldest(const struct dedupe *dedupe)
{
	return list_is_empty(&dedupe->settled) ? NULL : CONTAINER_OF(dedupe->settled.next, struct dedupe_claim, node);
}

static void forget_old_ones(struct dedupe *dedupe)
{
	int64_t now_ms = clock_mono_ms(dedupe->clock);
	struct dedupe_claim *claim;

	while ((claim = oldest(dedupe)) &&
	       (claim->settled_ms + dedupe->window_ms <= now_ms || dedupe->settled_count > DEDUPE_SETTLED_MAX))
		forget(claim);
}

void dedupe_configure(struct dedupe *dedupe, int64_t window_ms)
{
	dedupe->window_ms = window_ms;
	if (window_ms == 0)
		while (!list_is_empty(&dedupe->settled))
			forget(oldest(dedupe));
}

bool dedupe_is_on(const struct dedupe *dedupe)
{
	return dedupe->window_ms > 0;
}

static struct dedupe_claim *make_claim(struct dedupe *dedupe, const unsigned char *key)
{
	struct dedupe_claim *claim = xcalloc(1, sizeof(*claim));

	claim->dedupe = dedupe;
	memcpy(claim->key, key, sizeof(claim->key));
	list_node_init(&claim->node);
	list_init(&claim->waiters);
	HASH_ADD(hh, dedupe->claims, key, sizeof(claim->key), claim);
	return claim;
}

enum dedupe_answer dedupe_ask(struct dedupe *dedupe, const unsigned char key[DEDUPE_KEY_BYTES],
			      struct dedupe_claim **claim, uint64_t *first_id, struct dedupe_waiter *waiter)
{
	struct dedupe_claim *known;

	forget_old_ones(dedupe);
	HASH_FIND(hh, dedupe->claims, key, DEDUPE_KEY_BYTES, known);
	if (!known) {
		*claim = make_claim(dedupe, key);
		return DEDUPE_FIRST;
	}
	if (known->id) {
		*first_id = known->id;
		return DEDUPE_REPEATED;
	}
	list_append(&known->waiters, &waiter->node);
	return DEDUPE_UNDERWAY;
}

/* A waiter may cancel others, and ask again, which makes it wait for another claim: so all leave this one first. */
static void call_waiters(struct list *waiters, uint64_t id)
{
	for (struct list *node; (node = list_pop(waiters));) {
		struct dedupe_waiter *waiter = CONTAINER_OF(node, struct dedupe_waiter, node);
		waiter->on_settled(waiter->ctx, id);
	}
}

void dedupe_settle(struct dedupe_claim **settled, uint64_t id)
{
	struct dedupe_claim *claim = *settled;
	struct list waiters;

	if (!claim)
		return;
	*settled = NULL;
	list_init(&waiters);
	for (struct list *node; (node = list_pop(&claim->waiters));)
		list_append(&waiters, node);
	if (id == 0 || !dedupe_is_on(claim->dedupe)) {
		forget(claim);
	} else {
		claim->id = id;
		claim->owner = NULL;
		claim->settled_ms = clock_mono_ms(claim->dedupe->clock);
		claim->dedupe->settled_count++;
		list_append(&claim->dedupe->settled, &claim->node);
		forget_old_ones(claim->dedupe);
	}
	call_waiters(&waiters, id);
}

void dedupe_cancel(struct dedupe_waiter *waiter)
{
	list_remove(&waiter->node);
}

void dedupe_claim_set_owner(struct dedupe_claim *claim, void *owner)
{
	claim->owner = owner;
}

void *dedupe_claim_owner(const struct dedupe_claim *claim)
{
	return claim->owner;
}

unsigned dedupe_count(const struct dedupe *dedupe)
{
	return dedupe->settled_count;
}
