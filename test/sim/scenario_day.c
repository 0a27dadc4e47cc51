#include "test/sim/scenario_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* A message counts when a session begins with it, and we see its MAIL: with the sick, that is late. */
static void set_meter(struct meter *meter, const struct rig_rate *rate, bool is_healthy)
{
	if (rate->count > 0 && meter->count == 0)
		meter_init(meter, rate->count, rate->per_ms, is_healthy ? 20 * SEC_MS : 3 * MIN_MS);
}

/* Whoever sets the clock and starts again has the relay believe that the past is longer ago than it is. */
static void set_meters(struct scenario *s)
{
	const struct rig_options *rig = &s->options.rig;
	bool is_healthy = true;

	if (s->options.clock_steps > 0 && s->options.crashes + s->options.stops > 0)
		return;
	for (unsigned r = 0; r < rig->relayhosts; r++) {
		bool is_this_healthy = behaviour_is_healthy(s->options.relayhosts[r]);
		is_healthy &= is_this_healthy;
		set_meter(&s->world->domains[r].meter, &rig->rates[r], is_this_healthy);
	}
	/* The first route that matches counts. */
	for (unsigned i = 0; i < rig->route_count; i++)
		set_meter(&s->world->domains[rig->routes[i].domain].route_meter, &rig->routes[i].rate, is_healthy);
}

bool scenario_is_limited(const struct scenario *s, unsigned domain)
{
	if (s->options.rig.relayhosts > 0 && s->options.rig.rates[0].count > 0)
		return true;
	for (unsigned i = 0; i < s->options.rig.route_count; i++)
		if (s->options.rig.routes[i].domain == domain)
			return true;
	return false;
}

/* Of everything that goes through the relayhosts. */
static enum expectation expect_of_relayhosts(const struct scenario *s)
{
	const struct rig_options *rig = &s->options.rig;

	if (s->options.pauses > 0)
		return EXPECT_ANY;
	for (unsigned r = 0; r < rig->relayhosts; r++)
		if (rig->rates[r].count > 0 || !behaviour_is_healthy(s->options.relayhosts[r]))
			return EXPECT_ANY;
	return EXPECT_DELIVERED;
}

void scenario_make_world(struct scenario *s)
{
	struct world *world = s->world;
	unsigned sick = s->options.domains * s->options.sick_percent / 100, first = s->options.domains - sick;

	world->is_even = s->options.is_even;
	world->connections_max = s->options.rig.connections;
	world->per_destination_max = s->options.rig.per_destination;
	world->is_roomy = world->connections_max >= 100 && world->per_destination_max >= 5;
	world->checks_returns = world->is_roomy && s->options.clock_steps == 0;
	world->port = s->options.rig.relayhosts > 0 ? 587 : 25;
	for (unsigned d = 0; d < s->options.domains; d++) {
		enum behaviour behaviour = d < s->options.rig.relayhosts ? s->options.relayhosts[d] : HEALTHY;
		/* Each kind in turn, from a random one on, so that none is missing for long. */
		if (d >= first)
			behaviour = s->options.only != BEHAVIOUR_COUNT
					? s->options.only
					: (enum behaviour)(1 + (s->options.seed * 7 + d) % (BEHAVIOUR_COUNT - 1));
		world_make_domain(world, d, behaviour);
	}
	set_meters(s);
}

/* A few domains get much of the mail. */
static unsigned draw_domain(struct scenario *s)
{
	unsigned relayhosts = s->options.rig.relayhosts, others = s->options.domains - relayhosts;

	if (!s->options.is_calm && sim_chance(&s->rng.rng, 30))
		return relayhosts + (unsigned)(sim_hash(s->options.seed, rng_below(&s->rng.rng, 4)) % others);
	return relayhosts + (unsigned)rng_below(&s->rng.rng, others);
}

static uint32_t draw_notify(struct rng *rng)
{
	static const uint32_t flags[] = {QUEUE_NOTIFY_NEVER, QUEUE_NOTIFY_FAILURE,
					 QUEUE_NOTIFY_FAILURE | QUEUE_NOTIFY_DELAY, QUEUE_NOTIFY_DELAY};

	return sim_chance(rng, 75) ? 0 : flags[rng_below(rng, ARRAY_LEN(flags))];
}

static char draw_person(const struct domain *domain, struct rng *rng)
{
	if (domain->behaviour == FULL && sim_chance(rng, 50))
		return 'f';
	return sim_chance(rng, 4) ? 'n' : 'u';
}

static void draw_rcpt(struct scenario *s, struct truth_rcpt *rcpt, unsigned number)
{
	const struct domain *domain = &s->world->domains[number];
	char person = draw_person(domain, &s->rng.rng);
	unsigned mailbox = (unsigned)rng_below(&s->rng.rng, 20);
	bool is_limited = scenario_is_limited(s, number);

	rcpt->domain = number;
	rcpt->notify = draw_notify(&s->rng.rng);
	rcpt->is_hostile = domain->behaviour == HOSTILE;
	rcpt->is_brisk =
	    behaviour_is_healthy(domain->behaviour) && person == 'u' && !is_limited && s->options.pauses == 0;
	rcpt->expect = behaviour_expectation(domain->behaviour);
	if (is_limited || expect_of_relayhosts(s) == EXPECT_ANY)
		rcpt->expect = EXPECT_ANY;
	if (person != 'u' && rcpt->expect == EXPECT_DELIVERED)
		rcpt->expect = person == 'n' ? EXPECT_FAILED : EXPECT_ANY;
	if (domain->behaviour == OLD && rcpt->message->is_8bit)
		rcpt->expect = EXPECT_FAILED;
	/* With few connections and many dead hosts, or when time jumps, nobody can promise to be in time. */
	if ((!s->world->is_roomy || s->options.clock_steps > 0) && rcpt->expect == EXPECT_DELIVERED)
		rcpt->expect = EXPECT_ANY;
	snprintf(rcpt->address, sizeof(rcpt->address), "%c%u+%u.%u@%s", person, mailbox, rcpt->message->serial,
		 rcpt->index, domain->name);
}

static size_t draw_bytes(struct scenario *s)
{
	struct rng *rng = &s->rng.rng;

	if (s->options.is_calm || sim_chance(rng, 80))
		return (size_t)sim_between(rng, 300, 4000);
	return (size_t)sim_log_uniform(rng, 4000, 200000);
}

static unsigned draw_rcpt_count(struct scenario *s)
{
	unsigned dice = (unsigned)rng_below(&s->rng.rng, 200);

	if (s->options.is_calm || dice < 140)
		return 1;
	return dice < 198 ? 2 + (unsigned)rng_below(&s->rng.rng, 5) : 20 + (unsigned)rng_below(&s->rng.rng, 100);
}

/* `domain` UINT_MAX: drawn for each recipient. */
static void draw_message(struct scenario *s, int64_t due_ms, unsigned domain)
{
	unsigned sender = draw_domain(s);
	struct truth_message *message = ledger_add_message(s->ledger, draw_rcpt_count(s));
	const struct domain *home = &s->world->domains[sender];

	message->due_ms = due_ms;
	message->bytes = draw_bytes(s);
	message->class = (enum message_class)rng_below(&s->rng.rng, MESSAGE_CLASS_COUNT);
	message->is_8bit = sim_chance(&s->rng.rng, 10);
	message->is_told = home->behaviour == HEALTHY && s->world->is_roomy && s->options.clock_steps == 0 &&
			   !scenario_is_limited(s, sender) && expect_of_relayhosts(s) == EXPECT_DELIVERED;
	message->sender_is_hostile = home->behaviour == HOSTILE;
	if (!s->options.is_even && sim_chance(&s->rng.rng, 85))
		snprintf(message->sender, sizeof(message->sender), "s%u+%u@%s", (unsigned)rng_below(&s->rng.rng, 5),
			 message->serial, home->name);
	for (uint32_t i = 0; i < message->rcpt_count; i++)
		draw_rcpt(s, &message->rcpts[i], domain != UINT32_MAX ? domain : draw_domain(s));
}

/* Several messages within a few seconds, all for one domain. */
static unsigned draw_burst(struct scenario *s, unsigned room)
{
	int64_t at = sim_between(&s->rng.rng, 2 * SEC_MS, s->options.day_ms);
	unsigned domain = draw_domain(s), count = 20 + (unsigned)rng_below(&s->rng.rng, 200);

	count = MIN(count, room);

	for (unsigned i = 0; i < count; i++)
		draw_message(s, at + (int64_t)rng_below(&s->rng.rng, 2000), domain);
	return count;
}

static void on_arrival(void *ctx)
{
	struct arrival *arrival = ctx;
	struct scenario *s = arrival->scenario;

	if (rig_submit(s->rig, arrival->message))
		s->arrivals_left--;
	else
		timers_set(loop_timers(s->world->loop), &arrival->timer, s->clock.mono + RETRY_MS, on_arrival, arrival);
}

static bool leave_out_sick(struct scenario *s, struct truth_message *message)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < message->rcpt_count; i++) {
		struct truth_rcpt *rcpt = &message->rcpts[i];
		if (s->options.leaves_out_sick && !behaviour_is_healthy(s->world->domains[rcpt->domain].behaviour))
			continue;
		message->rcpts[kept] = *rcpt;
		message->rcpts[kept].index = kept;
		snprintf(strchr(message->rcpts[kept].address, '+'), sizeof(rcpt->address) - 8, "+%u.%u@%s",
			 message->serial, kept, s->world->domains[rcpt->domain].name);
		kept++;
	}
	message->rcpt_count = kept;
	return kept > 0;
}

void scenario_make_day(struct scenario *s)
{
	unsigned left = s->options.messages;
	struct timers *timers = loop_timers(s->world->loop);

	while (left > 0) {
		if (!s->options.is_calm && sim_chance(&s->rng.rng, 1)) {
			left -= draw_burst(s, left);
			continue;
		}
		draw_message(s, sim_between(&s->rng.rng, 2 * SEC_MS, s->options.day_ms), UINT32_MAX);
		left--;
	}
	s->arrivals = xcalloc(s->options.messages, sizeof(*s->arrivals));
	for (unsigned m = 0; m < s->options.messages; m++) {
		struct truth_message *message = ledger_message(s->ledger, m + 1);
		if (!leave_out_sick(s, message))
			continue;
		s->arrivals[m] = (struct arrival){s, message, 0};
		s->arrivals[m].timer = timers_add(timers, message->due_ms, on_arrival, &s->arrivals[m]);
		s->arrivals_left++;
	}
}
