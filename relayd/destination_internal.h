/*
 * relayd/destination_internal.h - what the files of a destination share
 *
 *   destination.c         the set of them, connections, jobs on their way
 *   destination_health.c  window, back-off, trouble
 *   destination_line.c    jobs in line, parked messages, and lifetimes that end while they wait
 *   destination_rate.c    places under the limits of its relayhost and route
 *   destination_hop.c     what is shared with others that lead to the same next hop: limit of connections, probes
 *   destination_place.c   the limit of all connections, and who waits for a place
 */
#ifndef RELAYD_DESTINATION_INTERNAL_H
#define RELAYD_DESTINATION_INTERNAL_H

#include "base/base.h"
#include "relayd/destination.h"

enum place_kind { PLACE_KNOWN, PLACE_STRANGER, PLACE_KIND_COUNT };

struct destinations {
	struct destinations_options options;
	struct destination *by_key;
	struct destination_hop *hops;
	unsigned connections, strange; /* all; those of strangers */
	struct list starved[PLACE_KIND_COUNT];
	enum place_kind served_last;
	timer_id hurry_timer; /* as long as any are starved */
	bool stopping;
};

static inline int64_t destinations_now_ms(const struct destinations *destinations)
{
	return loop_now_ms(destinations->options.loop);
}

static inline const struct destination_driver *destination_driver(const struct destination *d)
{
	return d->id.kind == DESTINATION_CAPTURE ? &d->owner->options.capture : &d->owner->options.driver;
}

/* ---- destination.c ---- */

/* Gives the line to idle connections, then to new ones, as far as window, limits and rates allow. */
void destination_pump(struct destination *d);
/* It is open again. A timer callback. */
void destination_on_backoff_over(void *ctx);

/* ---- destination_health.c ---- */

void destination_end_trouble(struct destination *d);

/* ---- destination_line.c ---- */

void destination_line_init(struct destination *d);
/* What still stands in the line has been handed back. */
void destination_line_fini(struct destination *d);
void destination_line_append(struct destination *d, struct job *job);
void destination_line_prepend(struct destination *d, struct job *job);
/* The next by class and order; NULL: none. */
struct job *destination_line_pop(struct destination *d);
/* The same, but one whose lifetime has ended, or that must not begin (queue/queue.h), goes back to the scheduler. */
struct job *destination_line_pop_live(struct destination *d);
/* That one, left where it is. */
struct job *destination_line_peek(const struct destination *d);
/* All of it, untried. */
void destination_line_hand_back(struct destination *d, int64_t retry_wall);
/* Parked ones come back as far as there is room. */
void destination_line_unpark(struct destination *d);
/* With a line that is full enough the deliveries ask for the parked ones. Otherwise, when they are sent elsewhere or
 * put off, they come back in portions, so that the loop never stalls. */
void destination_line_refill_later(struct destination *d);
/* At once, and then later. */
void destination_line_refill(struct destination *d);
/* Each parked message goes through the scheduler once: those that stay come to stand in the same order again. */
void destination_line_sweep(struct destination *d);
/* Waiting may take long: what ends meanwhile ends in time. */
void destination_line_watch_lifetimes(struct destination *d);
uint64_t destination_parked_count(const struct destination *d);

/* ---- destination_rate.c ---- */

void destination_rate_init(struct destination *d);
void destination_rate_fini(struct destination *d);
/* Takes places until there are `count`; always true without a rate. False: it waits, and is pumped when there is one.
 */
bool destination_rate_reserve(struct destination *d, unsigned count);
/* A message goes out. */
void destination_rate_use(struct destination *d);
/* It did not go out after all. */
void destination_rate_unuse(struct destination *d);
/* Gives back what is reserved for more connections than are coming. */
void destination_rate_settle(struct destination *d);

/* ---- destination_hop.c ---- */

void destination_hop_init(struct destination *d);
void destination_hop_fini(struct destination *d);
/* A connection more, or (-1) less: of the destination, of the next hop, of all. */
void destination_hop_count(struct destination *d, int by);
bool destination_hop_is_full(const struct destination *d);
/* It is full, and another one has work and no connection at all. */
bool destination_hop_is_wanted(const struct destination *d);
/* Another one that has an idle connection; NULL: none. */
struct destination *destination_hop_idle(const struct destination *d);
/* There is a place: pumps the others that have work and no connection. */
void destination_hop_serve(struct destination *d);
/* The others that lead there; `previous` NULL: the first one. NULL: no more. */
struct destination *destination_hop_next(const struct destination *d, const struct destination *previous);
/* It is the next hop that does not answer, or our account there, not what this destination asks of it; and no other has
 * a session. */
bool destination_hop_is_down(const struct destination *d, const struct outcome *outcome);
/* It is in such trouble, and another one tries just now whether it is over. */
bool destination_hop_is_probed(const struct destination *d);
/* One that is in such trouble still, beside this one; NULL: none. */
struct destination *destination_hop_in_trouble(const struct destination *d);

/* ---- destination_place.c ---- */

/* One connection more may be made, as far as all of them together go. */
bool destination_place_is_free(const struct destination *d);
/* An idle connection of another destination gives its place to this one. True: there is one now. */
bool destination_place_make(struct destination *d);
/* It waits for one, if it has none at all. */
void destination_place_await(struct destination *d);
/* Another one waits for the place that this one could give up. */
bool destination_place_is_wanted(const struct destination *d);
/* Pumps those that wait, as far as there are places. */
void destination_place_serve(struct destinations *owner);
/* It has made, or (-1) closed, a connection. */
void destination_place_count(struct destination *d, int by);
/* It has taken a message. */
void destination_place_note_taken(struct destination *d);

#endif
