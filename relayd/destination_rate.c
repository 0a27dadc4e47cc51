/* The places of a destination under the limits of its relayhost and its route: taken before a connection is opened for
 * a message, so that none is opened in vain. */
#include "relayd/destination_internal.h"

static void on_free(void *ctx)
{
	destination_pump(ctx);
}

void destination_rate_init(struct destination *d)
{
	struct rates *rates = d->owner->options.rates;

	d->rate_waiter = (struct rate_waiter){.on_free = on_free, .ctx = d};
	list_node_init(&d->rate_waiter.node);
	if (rates && d->id.kind == DESTINATION_RELAYHOST)
		d->rates[0] = rates_get(rates, RATE_OF_RELAYHOST, d->id.name);
	if (rates && d->id.route[0])
		d->rates[1] = rates_get(rates, RATE_OF_ROUTE, d->id.route);
}

void destination_rate_fini(struct destination *d)
{
	rate_stop_waiting(&d->rate_waiter);
}

static bool is_limited(const struct destination *d)
{
	for (size_t i = 0; i < ARRAY_LEN(d->rates); i++)
		if (d->rates[i] && rate_limit(d->rates[i])->count > 0)
			return true;
	return false;
}

static void give_back(struct destination *d, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (d->rates[i])
			rate_give_back(d->rates[i]);
}

static void wait_for(struct destination *d, struct rate *rate)
{
	const struct destination_events *events = &d->owner->options.events;
	struct job *first = destination_line_peek(d);

	rate_wait(rate, &d->rate_waiter);
	destination_line_watch_lifetimes(d);
	if (!first || first->has_waited || d->places > 0)
		return;
	first->has_waited = true;
	if (events->on_rate_wait)
		events->on_rate_wait(events->health_ctx, rate_scope(rate));
}

static bool take_place(struct destination *d)
{
	for (size_t i = 0; i < ARRAY_LEN(d->rates); i++) {
		if (!d->rates[i] || rate_take(d->rates[i]) == 0)
			continue;
		give_back(d, i);
		wait_for(d, d->rates[i]);
		return false;
	}
	d->places++;
	return true;
}

bool destination_rate_reserve(struct destination *d, unsigned count)
{
	if (!is_limited(d))
		return true;
	while (d->places < count)
		if (!take_place(d))
			return false;
	return true;
}

void destination_rate_use(struct destination *d)
{
	if (d->places == 0)
		return;
	d->places--;
	for (size_t i = 0; i < ARRAY_LEN(d->rates); i++)
		if (d->rates[i])
			rate_use(d->rates[i]);
}

void destination_rate_unuse(struct destination *d)
{
	if (!is_limited(d))
		return;
	d->places++;
	for (size_t i = 0; i < ARRAY_LEN(d->rates); i++)
		if (d->rates[i])
			rate_unuse(d->rates[i]);
}

void destination_rate_settle(struct destination *d)
{
	for (; d->places > d->coming; d->places--)
		give_back(d, ARRAY_LEN(d->rates));
}

const struct rate *destination_full_rate(const struct destination *d)
{
	for (size_t i = 0; i < ARRAY_LEN(d->rates) && d->ready_count > 0; i++)
		if (d->rates[i] && rate_wait_ms(d->rates[i]) > 0)
			return d->rates[i];
	return NULL;
}
