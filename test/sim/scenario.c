#include "test/sim/scenario_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- time ---- */

/* All that happens at this instant. False: something is wrong. */
static bool run_instant(struct scenario *s)
{
	unsigned happened, spins = 0;

	do {
		bool was_up = rig_is_up(s->rig);
		happened = loop_turn(s->world->loop, 0) + rig_turn(s->rig);
		world_check_connections(s->world);
		s->turns++;
		if (was_up && !rig_is_up(s->rig))
			scenario_restart_later(s); /* an orderly stop has ended */
		if (s->crash_in_turns > 0 && --s->crash_in_turns == 0)
			scenario_crash_now(s);
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
	scenario_make_world(s);
	s->rig = rig_new(&options->rig, &s->clock, s->world, s->ledger, sim_hash(options->seed, 4));
	scenario_make_day(s);
	scenario_plan_incidents(s);
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

static int by_acceptance(const void *a, const void *b)
{
	const struct truth_message *const *x = a, *const *y = b;

	return ((*x)->accepted_at_ms > (*y)->accepted_at_ms) - ((*x)->accepted_at_ms < (*y)->accepted_at_ms);
}

/* What had to wait for its turn under a rate. Who was delivered more than a minute before one of his class that was
 * accepted before him has overtaken it. */
static void count_limited(const struct scenario *s, struct scenario_result *result)
{
	uint32_t count = ledger_message_count(s->ledger);
	const struct truth_message **messages = xcalloc(count, sizeof(struct truth_message *));
	int64_t last_ms[MESSAGE_CLASS_COUNT] = {0};

	for (uint32_t m = 0; m < count; m++)
		messages[m] = ledger_message(s->ledger, m + 1);
	qsort(messages, count, sizeof(struct truth_message *), by_acceptance);
	for (uint32_t m = 0; m < count; m++) {
		const struct truth_rcpt *rcpt = &messages[m]->rcpts[0];
		int64_t *last = &last_ms[messages[m]->class];
		if (rcpt->visits == 0 || !scenario_is_limited(s, rcpt->domain))
			continue;
		if (result->limited_count++ == 0)
			result->limited_first_ms = messages[m]->accepted_at_ms;
		if (rcpt->accepted == 0)
			continue; /* refused: it has used its place, too */
		result->limited_last_ms = MAX(result->limited_last_ms, rcpt->accepted_at_ms);
		result->limited_overtakes += rcpt->accepted_at_ms < *last - MIN_MS;
		*last = MAX(*last, rcpt->accepted_at_ms);
	}
	free(messages);
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

/*
 * A host that never answers is tried ever more seldom: 5, 10, 20 .. seconds, up to ten minutes behind each other
 * (relayhosts: one minute), and anew after a start; by a few connections the first time, and by one from then on.
 */
static void check_hammering(struct scenario *s)
{
	enum { FIRST_TIMES = 14, MX_PER_HOUR = 7, RELAYHOST_PER_HOUR = 66 };
	unsigned hours = (unsigned)(s->clock.mono / HOUR_MS) + 1;

	for (unsigned d = 0; d < s->world->domain_count; d++) {
		const struct domain *domain = &s->world->domains[d];
		bool is_relayhost = d < s->options.rig.relayhosts;
		/* Each route with a rate probes for itself. */
		unsigned hosts = is_relayhost ? 1 + s->options.rig.route_count : domain->host_count, most;
		if (domain->behaviour != REFUSED && domain->behaviour != SILENT)
			continue;
		most = hosts * (FIRST_TIMES * rig_start_count(s->rig) +
				(is_relayhost ? RELAYHOST_PER_HOUR : MX_PER_HOUR) * hours);
		if (domain->asked > most)
			ledger_violate(s->ledger, 0, "%s is dead, and is tried %u times in %u hours", domain->name,
				       domain->asked, hours);
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
		check_hammering(&s);
		rig_compare(s.rig);
		ledger_finish(s.ledger, !options->is_cut, s.clock.wall);
	}
	if (ledger_violations(s.ledger) == 0 && !options->is_cut)
		idle(&s, result);
	ledger_totals(s.ledger, &result->totals);
	count_greylisted(&s, result);
	count_healthy(&s, result);
	count_limited(&s, result);
	result->virtual_ms = s.clock.mono;
	result->turns = s.turns;
	result->refused = s.world->domains[0].refused;
	result->relayhost_asked = s.world->domains[0].asked;
	result->first_taken = s.world->domains[0].taken;
	result->connections_most = s.world->connections_most;
	if (rig_is_up(s.rig))
		result->destinations_left = rig_destination_count(s.rig);
	result->is_good = ledger_violations(s.ledger) == 0;
	if (verbose)
		print_domains(&s);
	ledger_print(s.ledger);
	tear_down(&s);
}
