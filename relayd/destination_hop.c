/* Destinations that lead to the same next hop (its routes with a rate, or a TLS level, of their own) share its limit of
 * connections: the server at the other end sees them all. When it does not answer they rest together, one of them tries
 * whether it is back, and then all go on. */
#include "relayd/destination_internal.h"

#include "relayd/outcome.h"

#include <stdio.h>
#include <stdlib.h>

struct destination_hop {
	UT_hash_handle hh;
	struct list members;
	unsigned connections;
	char key[DESTINATION_NAME_MAX + 8];
};

void destination_hop_init(struct destination *d)
{
	struct destinations *owner = d->owner;
	char key[sizeof((struct destination_hop){0}.key)];

	snprintf(key, sizeof(key), "%d:%s", (int)d->id.kind, d->id.name);
	HASH_FIND_STR(owner->hops, key, d->hop);
	if (!d->hop) {
		d->hop = xcalloc(1, sizeof(*d->hop));
		memcpy(d->hop->key, key, sizeof(key));
		list_init(&d->hop->members);
		HASH_ADD_STR(owner->hops, key, d->hop);
	}
	list_append(&d->hop->members, &d->hop_node);
}

void destination_hop_fini(struct destination *d)
{
	list_remove(&d->hop_node);
	if (!list_is_empty(&d->hop->members))
		return;
	HASH_DEL(d->owner->hops, d->hop);
	free(d->hop);
}

void destination_hop_count(struct destination *d, int by)
{
	d->connections += (unsigned)by;
	d->hop->connections += (unsigned)by;
	destination_place_count(d, by);
}

bool destination_hop_is_full(const struct destination *d)
{
	return d->hop->connections >= d->owner->options.per_destination_max;
}

/* It has work and no connection, and only the others keep it from one. */
static bool wants_place(const struct destination *d)
{
	int64_t until;

	return d->ready_count > 0 && d->connections == 0 && !list_is_linked(&d->rate_waiter.node) &&
	       destination_is_open(d, &until);
}

bool destination_hop_is_wanted(const struct destination *d)
{
	if (!destination_hop_is_full(d))
		return false;
	for (struct destination *other = NULL; (other = destination_hop_next(d, other));)
		if (wants_place(other))
			return true;
	return false;
}

struct destination *destination_hop_idle(const struct destination *d)
{
	for (struct destination *other = NULL; (other = destination_hop_next(d, other));)
		if (!list_is_empty(&other->idle))
			return other;
	return NULL;
}

void destination_hop_serve(struct destination *d)
{
	LIST_FOREACH (node, &d->hop->members) {
		struct destination *other = CONTAINER_OF(node, struct destination, hop_node);
		if (other != d && !destination_hop_is_full(d) && wants_place(other))
			destination_pump(other);
	}
}

struct destination *destination_hop_next(const struct destination *d, const struct destination *previous)
{
	const struct list *node = previous ? &previous->hop_node : &d->hop->members;
	struct list *next = node->next == &d->hop_node ? d->hop_node.next : node->next;

	return next == &d->hop->members ? NULL : CONTAINER_OF(next, struct destination, hop_node);
}

static bool is_of_hop(const struct destination *d, const struct outcome *outcome)
{
	return outcome->kind == OUTCOME_DEFERRED &&
	       (outcome->stage == STAGE_CONNECT ||
		(outcome->stage == STAGE_AUTH && d->id.kind == DESTINATION_RELAYHOST &&
		 outcome_is_account_trouble(outcome)));
}

bool destination_hop_is_down(const struct destination *d, const struct outcome *outcome)
{
	if (!is_of_hop(d, outcome))
		return false;
	for (struct destination *other = NULL; (other = destination_hop_next(d, other));)
		if (other->sessions > 0)
			return false;
	return true;
}

bool destination_hop_is_probed(const struct destination *d)
{
	if (!is_of_hop(d, &d->trouble))
		return false;
	for (struct destination *other = NULL; (other = destination_hop_next(d, other));)
		if (other->coming > 0 && is_of_hop(other, &other->trouble))
			return true;
	return false;
}

struct destination *destination_hop_in_trouble(const struct destination *d)
{
	for (struct destination *other = NULL; (other = destination_hop_next(d, other));)
		if (is_of_hop(other, &other->trouble))
			return other;
	return NULL;
}
