/*
 * From candidates to one connected stream. In the spirit of RFC 8305, addresses that are equally good race: when one
 * has not answered within 300 ms the next one is tried besides, and the first that stands is taken. A worse MX host is
 * tried only when all better ones have failed. All of it ends in time, whatever the hosts do.
 */
#include "relayd/delivery_internal.h"

#include <stdio.h>

enum { STEP_MS = 300, ATTEMPT_MAX_MS = 5 * 60 * 1000, STICK_MS = 6 * 3600 * 1000 };

/* ---- the order ---- */

static void format_where(const struct candidate *candidate, char *out, size_t size)
{
	char address[DNS_ADDRESS_TEXT];

	dns_address_format(&candidate->address, address);
	if (strcmp(address, candidate->host) == 0)
		snprintf(out, size, "[%s]", address);
	else
		snprintf(out, size, "%s[%s]", candidate->host, address);
}

/* A greylister knows us at the host that has seen us (some share no memory with their siblings). */
static bool is_known_to(const struct delivery *d, const struct candidate *candidate)
{
	char where[sizeof(d->where)];

	if (d->destination->greylister[0] == '\0' || delivery_now_ms(d) - d->destination->greylister_ms > STICK_MS)
		return false;
	format_where(candidate, where, sizeof(where));
	return strcmp(where, d->destination->greylister) == 0;
}

static bool comes_before(const struct candidate *a, const struct candidate *b)
{
	if ((a->failed_at_ms > 0) != (b->failed_at_ms > 0))
		return a->failed_at_ms == 0;
	if (a->failed_at_ms > 0)
		return a->failed_at_ms < b->failed_at_ms;
	return a->rank == b->rank && a->is_known && !b->is_known;
}

/* Those that failed a short while ago come last, the longest ago first; else the order stays. */
static void put_in_order(struct delivery *d)
{
	for (size_t i = 0; i < d->candidate_count; i++) {
		struct candidate *c = &d->candidates[i], moved;
		size_t at = i;
		c->failed_at_ms = hosts_failed_at_ms(d->owner->hosts, &c->address, d->port, delivery_now_ms(d));
		c->is_known = is_known_to(d, c);
		moved = *c;
		for (; at > 0 && comes_before(&moved, &d->candidates[at - 1]); at--)
			d->candidates[at] = d->candidates[at - 1];
		d->candidates[at] = moved;
	}
}

/* ---- attempts ---- */

/* Its address is the one that is spoken of: in faults, and when it is taken. */
static void speak_of(struct delivery *d, struct candidate *candidate)
{
	d->current = candidate;
	format_where(candidate, d->where, sizeof(d->where));
}

static void end_attempt(struct attempt *attempt)
{
	struct delivery *d = attempt->delivery;
	bool was_extra = attempt->is_extra;

	stream_close(&attempt->stream);
	*attempt = (struct attempt){.delivery = d};
	if (was_extra)
		destination_give_back_extra(d->destination);
}

void delivery_end_attempts(struct delivery *d)
{
	for (size_t i = 0; i < ATTEMPTS_MAX; i++)
		if (d->attempts[i].stream)
			end_attempt(&d->attempts[i]);
}

static unsigned attempts_under_way(const struct delivery *d)
{
	unsigned count = 0;

	for (size_t i = 0; i < ATTEMPTS_MAX; i++)
		count += d->attempts[i].stream != NULL;
	return count;
}

static void fail_attempt(struct delivery *d, struct candidate *candidate, const char *why)
{
	speak_of(d, candidate);
	hosts_note_failed(d->owner->hosts, &candidate->address, d->port, delivery_now_ms(d));
	delivery_candidate_fault(d, STAGE_CONNECT, CLASS_CONNECT, why);
}

static void go_on(struct delivery *d);

static void on_connected(void *ctx);

static void on_attempt_end(void *ctx, const char *why)
{
	struct attempt *attempt = ctx;
	struct delivery *d = attempt->delivery;
	struct candidate *candidate = attempt->candidate;

	end_attempt(attempt);
	fail_attempt(d, candidate, why[0] ? why : "connection closed");
	go_on(d);
}

/* Nothing can come before it stands. */
static size_t on_early_input(void *ctx, struct slice bytes)
{
	(void)ctx;
	return bytes.len;
}

static const struct dns_address *source_of(const struct delivery *d, const struct candidate *candidate,
					   struct dns_address *out)
{
	const struct config_source_addresses *sources = &d->config->delivery.bind;

	for (size_t i = 0; i < sources->count; i++) {
		bool v4 = candidate->address.family == DNS_IPV4;
		if ((sources->items[i].family == AF_INET) != v4)
			continue;
		out->family = v4 ? DNS_IPV4 : DNS_IPV6;
		memcpy(out->bytes, sources->items[i].bytes, 16);
		return out;
	}
	return NULL;
}

/* False: that one failed at once. */
static bool start_attempt(struct delivery *d, struct attempt *attempt, bool is_extra)
{
	const struct stream_events events = {attempt, on_connected,    on_early_input,
					     NULL,    delivery_on_tls, on_attempt_end};
	struct candidate *candidate = &d->candidates[d->next_candidate++];
	struct dns_address source;
	struct err err;

	*attempt = (struct attempt){.delivery = d, .candidate = candidate, .began_ms = delivery_now_ms(d)};
	attempt->stream = stream_connect(d->owner->options.net, &candidate->address, d->port,
					 source_of(d, candidate, &source), &events, &err);
	if (attempt->stream) {
		attempt->is_extra = is_extra;
		d->last_attempt_ms = delivery_now_ms(d);
		return true;
	}
	if (is_extra)
		destination_give_back_extra(d->destination);
	fail_attempt(d, candidate, err.text);
	return false;
}

static bool has_next(const struct delivery *d)
{
	return d->next_candidate < d->candidate_count && (d->next_candidate == 0 || delivery_now_ms(d) < d->until_ms);
}

/* One that is no worse than those under way. */
static bool may_race(const struct delivery *d)
{
	const struct candidate *next = &d->candidates[d->next_candidate];

	return has_next(d) && d->next_candidate > 0 && next->rank == d->candidates[d->next_candidate - 1].rank &&
	       next->failed_at_ms == 0 && attempts_under_way(d) < ATTEMPTS_MAX;
}

static struct attempt *free_attempt(struct delivery *d)
{
	struct attempt *attempt = d->attempts;

	while (attempt->stream)
		attempt++;
	return attempt;
}

static void end_late_ones(struct delivery *d)
{
	for (size_t i = 0; i < ATTEMPTS_MAX; i++) {
		struct attempt *attempt = &d->attempts[i];
		struct candidate *candidate = attempt->candidate;
		if (!attempt->stream || delivery_now_ms(d) < attempt->began_ms + d->config->delivery.connect_timeout_ms)
			continue;
		end_attempt(attempt);
		fail_attempt(d, candidate, "connection timed out");
	}
}

static void on_step(void *ctx)
{
	struct delivery *d = ctx;

	end_late_ones(d);
	go_on(d);
}

/* The next step of the race, or the first deadline. */
static void arm(struct delivery *d)
{
	int64_t at = INT64_MAX;

	for (size_t i = 0; i < ATTEMPTS_MAX; i++)
		if (d->attempts[i].stream)
			at = MIN(at, d->attempts[i].began_ms + d->config->delivery.connect_timeout_ms);
	if (may_race(d))
		at = MIN(at, MAX(d->last_attempt_ms + STEP_MS, delivery_now_ms(d) + 1));
	timers_set(loop_timers(d->owner->options.loop), &d->timer, at, on_step, d);
}

/* Another one besides, when its time has come and there is a connection to spare. */
static void race(struct delivery *d)
{
	while (may_race(d) && delivery_now_ms(d) >= d->last_attempt_ms + STEP_MS) {
		d->last_attempt_ms = delivery_now_ms(d);
		if (!destination_take_extra(d->destination) || start_attempt(d, free_attempt(d), true))
			return;
	}
}

/* The time is up. Who had no turn begins the next time, or a host that is silent for long would hide them for ever. */
static void put_tried_behind(struct delivery *d)
{
	for (size_t i = 0; i < d->next_candidate && d->next_candidate < d->candidate_count; i++)
		hosts_note_hid_others(d->owner->hosts, &d->candidates[i].address, d->port, delivery_now_ms(d));
}

/* Something goes on as long as there is a candidate; otherwise the destination has failed. */
static void go_on(struct delivery *d)
{
	if (d->stage != CONNECTING)
		return;
	while (attempts_under_way(d) == 0 && has_next(d))
		start_attempt(d, free_attempt(d), false);
	if (attempts_under_way(d) == 0) {
		put_tried_behind(d);
		delivery_fail_destination(d);
		return;
	}
	race(d);
	arm(d);
}

/* The winner's stream is the delivery's from now on. */
static void on_connected(void *ctx)
{
	struct attempt *attempt = ctx;
	struct delivery *d = attempt->delivery;
	struct stream *stream = attempt->stream;

	speak_of(d, attempt->candidate);
	d->step_began_ms = attempt->began_ms;
	attempt->stream = NULL;
	if (attempt->is_extra)
		destination_give_back_extra(d->destination);
	*attempt = (struct attempt){.delivery = d};
	delivery_end_attempts(d);
	delivery_take_stream(d, stream);
}

void delivery_connect_next(struct delivery *d)
{
	d->stage = CONNECTING;
	go_on(d);
}

void delivery_connect(struct delivery *d)
{
	d->until_ms = delivery_now_ms(d) + ATTEMPT_MAX_MS;
	put_in_order(d);
	if (!delivery_share(d))
		delivery_connect_next(d);
}

bool delivery_has_next(const struct delivery *d)
{
	return has_next(d);
}
