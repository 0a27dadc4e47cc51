/*
 * Places among all connections: who may have one, who waits for one, who comes next.
 *
 * STRANGERS  MX domains that have taken no message yet (since this was made) share three quarters of them. However many
 *            domains point at hosts that accept connections and then let them hang, those who have taken mail before go
 *            on getting theirs.
 * WAITING    only destinations without any connection. Both kinds in turns, the longest waiting first.
 */
#include "relayd/destination_internal.h"

enum { HURRY_EACH_MS = 1000 };

static bool is_stranger(const struct destination *d)
{
	return d->id.kind == DESTINATION_MX && d->last_success_wall == 0;
}

static bool have_strangers_room(const struct destinations *owner)
{
	return owner->strange < owner->options.connections_max - owner->options.connections_max / 4;
}

static bool has_place(const struct destinations *owner, enum place_kind kind)
{
	return owner->connections < owner->options.connections_max &&
	       (kind == PLACE_KNOWN || have_strangers_room(owner));
}

static enum place_kind kind_of(const struct destination *d)
{
	return is_stranger(d) ? PLACE_STRANGER : PLACE_KNOWN;
}

bool destination_place_is_free(const struct destination *d)
{
	return has_place(d->owner, kind_of(d));
}

bool destination_place_make(struct destination *d)
{
	struct destinations *owner = d->owner;
	bool any_will_do = owner->connections >= owner->options.connections_max;
	struct destination *other, *next;

	HASH_ITER(hh, owner->by_key, other, next)
	{
		if (list_is_empty(&other->idle) || !(any_will_do || is_stranger(other)))
			continue;
		destination_driver(other)->quit(CONTAINER_OF(other->idle.next, struct destination_slot, node));
		break;
	}
	return destination_place_is_free(d);
}

void destination_place_count(struct destination *d, int by)
{
	d->owner->connections += (unsigned)by;
	if (is_stranger(d))
		d->owner->strange += (unsigned)by;
}

void destination_place_note_taken(struct destination *d)
{
	bool was_stranger = is_stranger(d);

	d->last_success_wall = clock_wall_ms(d->owner->options.clock);
	if (!was_stranger)
		return;
	d->owner->strange -= d->connections;
	destination_place_serve(d->owner);
}

/* Hosts that accept a connection and then say nothing would hold all places for minutes, if only enough domains name
 * them. */
static void on_hurry(void *ctx)
{
	struct destinations *owner = ctx;
	unsigned count = 0;

	for (int kind = 0; kind < PLACE_KIND_COUNT; kind++)
		LIST_FOREACH (node, &owner->starved[kind])
			count++;
	if (count == 0 || owner->stopping)
		return;
	owner->options.driver.hurry(owner->options.driver.ctx, count);
	timers_set(loop_timers(owner->options.loop), &owner->hurry_timer, destinations_now_ms(owner) + HURRY_EACH_MS,
		   on_hurry, owner);
}

void destination_place_await(struct destination *d)
{
	struct destinations *owner = d->owner;
	bool is_first = list_is_empty(&owner->starved[PLACE_KNOWN]) && list_is_empty(&owner->starved[PLACE_STRANGER]);

	if (d->connections > 0 || list_is_linked(&d->starved_node))
		return;
	list_append(&owner->starved[kind_of(d)], &d->starved_node);
	if (is_first && owner->options.driver.hurry)
		timers_set(loop_timers(owner->options.loop), &owner->hurry_timer,
			   destinations_now_ms(owner) + HURRY_EACH_MS, on_hurry, owner);
}

bool destination_place_is_wanted(const struct destination *d)
{
	const struct destinations *owner = d->owner;

	if (!list_is_empty(&owner->starved[PLACE_KNOWN]))
		return true;
	/* One that a stranger cannot have is given up in vain. */
	return !list_is_empty(&owner->starved[PLACE_STRANGER]) && (is_stranger(d) || have_strangers_room(owner));
}

static struct list *next_waiting(struct destinations *owner)
{
	for (int tries = 0; tries < PLACE_KIND_COUNT; tries++) {
		struct list *node;
		owner->served_last = (owner->served_last + 1) % PLACE_KIND_COUNT;
		node = has_place(owner, owner->served_last) ? list_pop(&owner->starved[owner->served_last]) : NULL;
		if (node)
			return node;
	}
	return NULL;
}

void destination_place_serve(struct destinations *owner)
{
	struct list *node;

	while ((node = next_waiting(owner)))
		destination_pump(CONTAINER_OF(node, struct destination, starved_node));
}
