/* Destinations that lead to the same next hop (its routes with a rate, or a TLS level, of their own) share its limit of
 * connections: the server at the other end sees them all. */
#include "relayd/destination_internal.h"

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
	LIST_FOREACH (node, &d->hop->members)
		if (node != &d->hop_node && wants_place(CONTAINER_OF(node, struct destination, hop_node)))
			return true;
	return false;
}

struct destination *destination_hop_idle(const struct destination *d)
{
	LIST_FOREACH (node, &d->hop->members) {
		struct destination *other = CONTAINER_OF(node, struct destination, hop_node);
		if (other != d && !list_is_empty(&other->idle))
			return other;
	}
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
