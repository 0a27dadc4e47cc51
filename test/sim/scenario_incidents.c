#include "test/sim/scenario_internal.h"

#include <stdio.h>

/* What an operator said an instant before a crash may be forgotten, and is said again. */
static void repeat_pauses(struct scenario *s)
{
	for (unsigned r = 0; r < s->options.rig.relayhosts; r++) {
		const struct domain *domain = &s->world->domains[r];
		if (rig_is_paused(s->rig, r) == domain->is_paused)
			continue;
		if (s->down_since_ms - domain->pause_changed_ms > SEC_MS)
			ledger_violate(s->ledger, 0, "%s was %s, and the relay has forgotten it", domain->name,
				       domain->is_paused ? "paused" : "resumed");
		rig_pause(s->rig, r, domain->is_paused);
	}
}

static void on_restart(void *ctx)
{
	struct scenario *s = ctx;

	rig_start(s->rig);
	rig_repeat_releases(s->rig);
	repeat_pauses(s);
}

void scenario_restart_later(struct scenario *s)
{
	s->down_since_ms = s->clock.mono;
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

	if (!rig_release(s->rig, arrival->message))
		timers_set(loop_timers(s->world->loop), &arrival->timer, s->clock.mono + RETRY_MS, on_release, arrival);
}

static void release_later(struct scenario *s, const struct truth_message *message, int64_t in_ms)
{
	struct arrival *arrival = &s->arrivals[message->serial - 1];

	timers_set(loop_timers(s->world->loop), &arrival->timer, s->clock.mono + in_ms, on_release, arrival);
}

static void on_hold(void *ctx)
{
	struct scenario *s = ctx;

	for (int i = 0; i < 50; i++) {
		struct truth_message *message = draw_existing(s);
		if (message->is_held)
			continue;
		rig_hold(s->rig, message);
		if (message->is_held)
			release_later(s, message, sim_log_uniform(&s->rng.rng, SEC_MS, HOUR_MS));
	}
}

static void on_delete(void *ctx)
{
	struct scenario *s = ctx;

	for (int i = 0; i < 20; i++)
		rig_delete(s->rig, draw_existing(s));
}

/* What cannot be returned stays held. */
static void on_bounce(void *ctx)
{
	struct scenario *s = ctx;

	for (int i = 0; i < 20; i++) {
		struct truth_message *message = draw_existing(s);
		if (message->is_held || message->state != ACCEPTED)
			continue;
		rig_bounce(s->rig, message);
		release_later(s, message, HOUR_MS);
	}
}

static void pause_or_resume(void *ctx)
{
	struct pause *pause = ctx;
	struct scenario *s = pause->scenario;
	struct domain *domain = &s->world->domains[pause->relayhost];
	int64_t again_ms = RETRY_MS;

	if (rig_pause(s->rig, pause->relayhost, !domain->is_paused)) {
		domain->is_paused = !domain->is_paused;
		domain->pause_changed_ms = s->clock.mono;
		again_ms = sim_log_uniform(&s->rng.rng, MIN_MS, HOUR_MS);
		if (!domain->is_paused)
			return;
	}
	timers_set(loop_timers(s->world->loop), &pause->timer, s->clock.mono + again_ms, pause_or_resume, pause);
}

static void on_pause(void *ctx)
{
	struct scenario *s = ctx;
	struct pause *pause = &s->pauses[rng_below(&s->rng.rng, s->options.rig.relayhosts)];

	if (!s->world->domains[pause->relayhost].is_paused)
		pause_or_resume(pause);
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

void scenario_plan_incidents(struct scenario *s)
{
	const struct scenario_options *options = &s->options;

	for (unsigned r = 0; r < RIG_RELAYHOSTS_MAX; r++)
		s->pauses[r] = (struct pause){s, r, 0};
	s->incidents_left = options->crashes + options->stops;
	plan_incidents(s, options->crashes, on_crash_time);
	plan_incidents(s, options->stops, on_stop_time);
	plan_incidents(s, options->failing_syncs, on_sync_fails);
	plan_incidents(s, options->flushes, on_flush);
	plan_incidents(s, options->holds, on_hold);
	plan_incidents(s, options->deletes, on_delete);
	plan_incidents(s, options->bounces, on_bounce);
	plan_incidents(s, options->pauses, on_pause);
	plan_incidents(s, options->clock_steps, on_clock_step);
}

void scenario_crash_now(struct scenario *s)
{
	s->crash_in_turns = 0;
	if (!rig_is_up(s->rig))
		return;
	rig_crash(s->rig, sim_chance(&s->rng.rng, 60));
	scenario_restart_later(s);
}
