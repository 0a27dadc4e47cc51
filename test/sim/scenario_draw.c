#include "test/sim/scenario_internal.h"

static struct rig_rate draw_rate(struct rng *rng)
{
	static const struct rig_rate kinds[] = {{10, MIN_MS}, {200, HOUR_MS}, {2000, DAY_MS}};
	const struct rig_rate *kind = &kinds[rng_below(rng, ARRAY_LEN(kinds))];

	return (struct rig_rate){1 + (unsigned)rng_below(rng, kind->count), kind->per_ms};
}

/* The last one of several is healthy. Those that lie, or refuse what is not theirs to refuse, are for others. */
static void draw_relayhosts(struct scenario_options *options, struct rng *rng)
{
	static const enum behaviour kinds[] = {HEALTHY,	       REFUSED,	 SILENT,    FLAPPING,	 OUT_OF_QUOTA,
					       ACCOUNT_LOCKED, THROTTLE, BUSY,	    TARPIT,	 TAKES_AND_DROPS,
					       DROPPING,       FLAKY,	 FEW_RCPTS, IDLE_CLOSER, SESSION_LIMIT};
	unsigned count = 1 + (unsigned)rng_below(rng, RIG_RELAYHOSTS_MAX);

	options->sick_percent = 0;
	options->rig.relayhosts = count;
	for (unsigned i = 0; i < count; i++) {
		options->relayhosts[i] = i > 0 && i == count - 1 ? HEALTHY : kinds[rng_below(rng, ARRAY_LEN(kinds))];
		if (sim_chance(rng, 30))
			options->rig.rates[i] = draw_rate(rng);
	}
	if (sim_chance(rng, 50))
		options->pauses = 1 + (unsigned)rng_below(rng, 8);
}

static void draw_routes(struct scenario_options *options, struct rng *rng)
{
	unsigned healthy = options->domains - options->domains * options->sick_percent / 100;

	options->rig.route_count = 1 + (unsigned)rng_below(rng, RIG_ROUTES_MAX);
	for (unsigned i = 0; i < options->rig.route_count; i++)
		options->rig.routes[i] = (struct rig_route){
		    options->rig.relayhosts + (unsigned)rng_below(rng, healthy - options->rig.relayhosts),
		    draw_rate(rng)};
}

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
	    .deletes = sim_chance(r, 30) ? (unsigned)rng_below(r, 20) : 0,
	    .bounces = sim_chance(r, 20) ? (unsigned)rng_below(r, 10) : 0,
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
	if (sim_chance(r, 30))
		draw_relayhosts(options, r);
	if (sim_chance(r, 40))
		draw_routes(options, r);
	if (sim_chance(r, 20))
		options->rig.user_rate =
		    (struct rig_rate){options->messages / 24 * (1 + (unsigned)rng_below(r, 3)), HOUR_MS};
}

void scenario_calm(struct scenario_options *options)
{
	options->crashes = options->stops = options->failing_syncs = 0;
	options->flushes = options->holds = options->deletes = options->bounces = options->pauses = 0;
	options->clock_steps = 0;
	options->clock_creeps = false;
	options->rig.relayhosts = options->rig.route_count = options->rig.user_rate.count = 0;
}
