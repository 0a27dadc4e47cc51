#include "test/sim/scenario.h"

#include <stdio.h>
#include <stdlib.h>

enum { SPIN_MAX = 50000, CRASH_TURNS_MAX = 40, RETRY_SUBMISSION_MS = 20000 };

struct scenario;

struct arrival {
	struct scenario *scenario;
	struct truth_message *message;
	timer_id timer;
};

struct scenario {
	struct scenario_options options;
	struct sim_clock clock;
	struct rng_seeded rng;
	struct ledger *ledger;
	struct world *world;
	struct rig *rig;
	struct arrival *arrivals;
	unsigned arrivals_left;
	unsigned crash_in_turns; /* 0: no crash is due */
	unsigned incidents_left; /* crashes and stops that have not come yet */
	uint64_t turns, wakeups;
};

void scenario_draw(struct scenario_options *options, uint64_t seed, unsigned messages)
{
	static const unsigned connections[] = {200, 200, 200, 200, 60, 12}, per_destination[] = {20, 20, 20, 5, 2, 1};
	static const int64_t expiries[] = {4, 8, 24, 48};
	struct rng_seeded rng;
	struct rng *r = &rng.rng;

	rng_seeded_init(&rng, sim_hash(seed, 1));
	*options = (struct scenario_options){
	    .seed = seed,
	    .domains = 30 + (unsigned)rng_below(r, 50),
	    .messages = messages / 2 + (unsigned)rng_below(r, messages),
	    .sick_percent = 40 + (unsigned)rng_below(r, 50),
	    .only = BEHAVIOUR_COUNT,
	    .crashes = sim_chance(r, 75) ? (unsigned)rng_below(r, 8) : 0,
	    .stops = sim_chance(r, 40) ? (unsigned)rng_below(r, 4) : 0,
	    .failing_syncs = sim_chance(r, 25) ? (unsigned)rng_below(r, 4) : 0,
	    .flushes = sim_chance(r, 30) ? (unsigned)rng_below(r, 40) : 0,
	    .holds = sim_chance(r, 30) ? (unsigned)rng_below(r, 20) : 0,
	    .clock_steps = sim_chance(r, 20) ? (unsigned)rng_below(r, 4) : 0,
	    .is_cut = sim_chance(r, 15),
	    .clock_creeps = sim_chance(r, 50),
	    .day_ms = DAY_MS,
	    .rig = {.connections = connections[rng_below(r, ARRAY_LEN(connections))],
		    .per_destination = per_destination[rng_below(r, ARRAY_LEN(per_destination))],
		    .expire_ms = expiries[rng_below(r, ARRAY_LEN(expiries))] * HOUR_MS,
		    .warn_after_ms = (int64_t)rng_below(r, 4) * HOUR_MS,
		    .sync_worst_ms = sim_between(r, 2, 200)},
	};
}

void scenario_calm(struct scenario_options *options)
{
	options->crashes = options->stops = options->failing_syncs = 0;
	options->flushes = options->holds = options->clock_steps = 0;
	options->clock_creeps = false;
}

/* ---- the world and the day ---- */

static void make_world(struct scenario *s)
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
		enum behaviour behaviour = HEALTHY;
		if (d == 0 && s->options.rig.relayhosts > 0)
			behaviour = s->options.relayhost;
		/* Each kind in turn, from a random one on, so that none is missing for long. */
		if (d >= first)
			behaviour = s->options.only != BEHAVIOUR_COUNT
					? s->options.only
					: (enum behaviour)(1 + (s->options.seed * 7 + d) % (BEHAVIOUR_COUNT - 1));
		world_make_domain(world, d, behaviour);
	}
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

	rcpt->domain = number;
	rcpt->notify = draw_notify(&s->rng.rng);
	rcpt->is_hostile = domain->behaviour == HOSTILE;
	rcpt->is_brisk = behaviour_is_healthy(domain->behaviour) && person == 'u';
	rcpt->expect = behaviour_expectation(domain->behaviour);
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
	message->is_told = home->behaviour == HEALTHY && s->world->is_roomy && s->options.clock_steps == 0;
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
		timers_set(loop_timers(s->world->loop), &arrival->timer, s->clock.mono + RETRY_SUBMISSION_MS,
			   on_arrival, arrival);
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

static void make_day(struct scenario *s)
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

/* ---- crashes, stops, failing disks ---- */

static void on_restart(void *ctx)
{
	struct scenario *s = ctx;

	rig_start(s->rig);
	rig_repeat_releases(s->rig);
}

static void restart_later(struct scenario *s)
{
	timers_add(loop_timers(s->world->loop), s->clock.mono + sim_log_uniform(&s->rng.rng, 100, 10 * MIN_MS),
		   on_restart, s);
}

static void on_crash_time(void *ctx)
{
	struct scenario *s = ctx;

	s->incidents_left--;
	s->crash_in_turns = 1 + (unsigned)rng_below(&s->rng.rng, CRASH_TURNS_MAX);
}

static void on_stop_time(void *ctx)
{
	struct scenario *s = ctx;

	s->incidents_left--;
	if (rig_is_up(s->rig) && !rig_is_stopping(s->rig))
		rig_stop(s->rig);
}

static void on_sync_fails(void *ctx)
{
	struct scenario *s = ctx;

	rig_fail_sync(s->rig);
}

static struct truth_message *draw_existing(struct scenario *s)
{
	return ledger_message(s->ledger, 1 + (uint32_t)rng_below(&s->rng.rng, ledger_message_count(s->ledger)));
}

static void on_flush(void *ctx)
{
	struct scenario *s = ctx;

	for (int i = 0; i < 50; i++)
		rig_flush(s->rig, draw_existing(s));
}

static void on_release(void *ctx)
{
	struct arrival *arrival = ctx;
	struct scenario *s = arrival->scenario;

	if (rig_is_up(s->rig) && !rig_is_stopping(s->rig))
		rig_release(s->rig, arrival->message);
	else
		timers_set(loop_timers(s->world->loop), &arrival->timer, s->clock.mono + RETRY_SUBMISSION_MS,
			   on_release, arrival);
}

static void on_hold(void *ctx)
{
	struct scenario *s = ctx;

	for (int i = 0; i < 50; i++) {
		struct truth_message *message = draw_existing(s);
		struct arrival *arrival = &s->arrivals[message->serial - 1];
		if (message->is_held)
			continue;
		rig_hold(s->rig, message);
		if (message->is_held)
			timers_set(loop_timers(s->world->loop), &arrival->timer,
				   s->clock.mono + sim_log_uniform(&s->rng.rng, SEC_MS, HOUR_MS), on_release, arrival);
	}
}

static void on_clock_step(void *ctx)
{
	struct scenario *s = ctx;
	int64_t step = sim_log_uniform(&s->rng.rng, SEC_MS, 2 * HOUR_MS);

	s->clock.wall += sim_chance(&s->rng.rng, 50) ? step : -step;
	ledger_trace(s->ledger, 0, "the wall clock is set by about %lld s", (long long)step / 1000);
}

/* Shortly after some message has come, for then there is something to disturb. */
static void plan_incidents(struct scenario *s, unsigned count, timer_cb *cb)
{
	for (unsigned i = 0; i < count; i++) {
		uint32_t serial = 1 + (uint32_t)rng_below(&s->rng.rng, ledger_message_count(s->ledger));
		int64_t at = ledger_message(s->ledger, serial)->due_ms + (int64_t)rng_below(&s->rng.rng, 3000);
		timers_add(loop_timers(s->world->loop), at, cb, s);
	}
}

static void crash_now(struct scenario *s)
{
	s->crash_in_turns = 0;
	if (!rig_is_up(s->rig))
		return;
	rig_crash(s->rig, sim_chance(&s->rng.rng, 60));
	restart_later(s);
}

/* ---- time ---- */

/* All that happens at this instant. False: something is wrong. */
static bool run_instant(struct scenario *s)
{
	unsigned happened, spins = 0;

	do {
		bool was_up = rig_is_up(s->rig);
		happened = loop_turn(s->world->loop, 0) + rig_turn(s->rig);
		s->turns++;
		if (was_up && !rig_is_up(s->rig))
			restart_later(s); /* an orderly stop has ended */
		if (s->crash_in_turns > 0 && --s->crash_in_turns == 0)
			crash_now(s);
		if (++spins > SPIN_MAX) {
			ledger_violate(s->ledger, 0, "the loop spins");
			return false;
		}
	} while (happened > 0 || rig_next_at_ms(s->rig) <= s->clock.mono ||
		 loop_next_at_ms(s->world->loop) <= s->clock.mono);
	return ledger_violations(s->ledger) == 0;
}

/* `until_empty`: or until nothing is left to be done. */
static void run_until(struct scenario *s, int64_t until_ms, bool until_empty)
{
	int64_t look_at_ms = 0;

	while (run_instant(s) && s->clock.mono < until_ms) {
		int64_t ours = loop_next_at_ms(s->world->loop), rigs = rig_next_at_ms(s->rig);
		if (until_empty && s->clock.mono >= look_at_ms) {
			look_at_ms = s->clock.mono + MIN_MS;
			if (s->arrivals_left == 0 && s->incidents_left == 0 && rig_is_empty(s->rig))
				return;
		}
		s->wakeups += rigs <= ours && rigs <= until_ms;
		sim_clock_advance_to(&s->clock, MIN(MIN(ours, rigs), until_ms));
	}
}

/* ---- all together ---- */

static void set_up(struct scenario *s, const struct scenario_options *options)
{
	*s = (struct scenario){.options = *options};
	rng_seeded_init(&s->rng, sim_hash(options->seed, 2));
	sim_clock_init(&s->clock, options->clock_creeps);
	s->ledger = ledger_new(&s->clock);
	if (options->clock_steps > 0)
		ledger_expect_clock_steps(s->ledger);
	s->world = world_new(&s->clock, s->ledger, sim_hash(options->seed, 3), options->domains);
	make_world(s);
	s->rig = rig_new(&options->rig, &s->clock, s->world, s->ledger, sim_hash(options->seed, 4));
	make_day(s);
	s->incidents_left = options->crashes + options->stops;
	plan_incidents(s, options->crashes, on_crash_time);
	plan_incidents(s, options->stops, on_stop_time);
	plan_incidents(s, options->failing_syncs, on_sync_fails);
	plan_incidents(s, options->flushes, on_flush);
	plan_incidents(s, options->holds, on_hold);
	plan_incidents(s, options->clock_steps, on_clock_step);
	rig_start(s->rig);
}

static void tear_down(struct scenario *s)
{
	rig_free(&s->rig);
	world_free(&s->world);
	ledger_free(&s->ledger);
	free(s->arrivals);
}

static void print_domains(const struct scenario *s)
{
	printf("  %-18s %7s %7s %7s %7s %7s %7s %5s\n", "domain", "asked", "session", "barren", "MAIL", "RCPT", "taken",
	       "conns");
	for (unsigned d = 0; d < s->world->domain_count; d++) {
		const struct domain *domain = &s->world->domains[d];
		printf("  %-18s %7u %7u %7u %7u %7u %7u %5u\n", behaviour_name(domain->behaviour), domain->asked,
		       domain->sessions, domain->barren, domain->mails, domain->rcpts, domain->taken,
		       domain->connections_most);
	}
}

static void count_greylisted(const struct scenario *s, struct scenario_result *result)
{
	for (uint32_t m = 1; m <= ledger_message_count(s->ledger); m++) {
		const struct truth_message *message = ledger_message(s->ledger, m);
		for (uint32_t i = 0; i < message->rcpt_count; i++) {
			const struct truth_rcpt *rcpt = &message->rcpts[i];
			const struct domain *domain = &s->world->domains[rcpt->domain];
			if (domain->behaviour < GREYLIST || domain->behaviour > GREYLIST_CONTENT || rcpt->visits < 2 ||
			    rcpt->accepted == 0)
				continue;
			result->greylisted++;
			result->greylisted_visits += rcpt->visits;
			result->greylisted_behind_mean_ms +=
			    ((double)(rcpt->accepted_at_ms - message->accepted_at_ms - domain->delay_ms) -
			     result->greylisted_behind_mean_ms) /
			    result->greylisted;
		}
	}
}

static void count_healthy(const struct scenario *s, struct scenario_result *result)
{
	for (unsigned d = 0; d < s->world->domain_count; d++) {
		if (!behaviour_is_healthy(s->world->domains[d].behaviour))
			continue;
		result->sessions += s->world->domains[d].sessions;
		result->barren += s->world->domains[d].barren;
	}
}

/* An hour with nothing to do. */
static void idle(struct scenario *s, struct scenario_result *result)
{
	uint64_t before;

	run_until(s, s->clock.mono + 10 * MIN_MS, false); /* idle connections end */
	before = s->wakeups;
	run_until(s, s->clock.mono + HOUR_MS, false);
	result->idle_wakeups = (unsigned)(s->wakeups - before);
	if (result->idle_wakeups > 2)
		ledger_violate(s->ledger, 0, "an idle relay woke up %u times in an hour", result->idle_wakeups);
	if (s->world->connections > 0)
		ledger_violate(s->ledger, 0, "an idle relay has %u connections", s->world->connections);
}

void scenario_run(const struct scenario_options *options, bool verbose, struct scenario_result *result)
{
	struct scenario s;
	int64_t last_ms = options->day_ms + 2 * options->rig.expire_ms + 12 * HOUR_MS;

	*result = (struct scenario_result){0};
	set_up(&s, options);
	run_until(&s, options->day_ms, false);
	if (options->is_cut) {
		/* The relay may be down just now. */
		while (ledger_violations(s.ledger) == 0 && (!rig_is_up(s.rig) || rig_is_stopping(s.rig)))
			run_until(&s, s.clock.mono + MIN_MS, false);
	} else {
		run_until(&s, last_ms, true);
	}
	if (ledger_violations(s.ledger) == 0) {
		rig_compare(s.rig);
		ledger_finish(s.ledger, !options->is_cut, s.clock.wall);
	}
	if (ledger_violations(s.ledger) == 0 && !options->is_cut)
		idle(&s, result);
	ledger_totals(s.ledger, &result->totals);
	count_greylisted(&s, result);
	count_healthy(&s, result);
	result->virtual_ms = s.clock.mono;
	result->turns = s.turns;
	result->refused = s.world->domains[0].refused;
	result->relayhost_asked = s.world->domains[0].asked;
	result->connections_most = s.world->connections_most;
	if (rig_is_up(s.rig))
		result->destinations_left = rig_destination_count(s.rig);
	result->is_good = ledger_violations(s.ledger) == 0;
	if (verbose)
		print_domains(&s);
	ledger_print(s.ledger);
	tear_down(&s);
}
