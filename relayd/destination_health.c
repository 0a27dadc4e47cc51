/* What outcomes and sessions say of a destination as a whole: its window, back-off and trouble; and whether a message or
 * our account at a relayhost is at fault. */
#include "relayd/destination_internal.h"

#include "relayd/outcome.h"

#include <stdio.h>

enum {
	BACKOFF_FIRST_MS = 5 * 1000,
	BACKOFF_MX_MAX_MS = 10 * 60 * 1000,
	BACKOFF_RELAYHOST_MAX_MS = 60 * 1000,
	BACKOFF_ACCOUNT_MAX_MS = 5 * 60 * 1000,
	BACKOFF_LIMIT_MAX_MS = 10 * 60 * 1000,
	BACKOFF_THROTTLE_FIRST_MS = 5 * 60 * 1000,
	BACKOFF_THROTTLE_MAX_MS = 60 * 60 * 1000,
	PAUSED_LOOK_MS = 60 * 1000,
	PROGRESS_MS = 30 * 1000, /* a session that has got nowhere for longer proves nothing */
	GROW_PAUSE_FIRST_MS = 2 * 1000,
	GROW_PAUSE_MAX_MS = 60 * 1000,
	BROKEN_MAX = 3, /* messages in a row that one alone is not to blame for */
};

bool destination_is_open(const struct destination *d, int64_t *until_wall)
{
	int64_t wall = clock_wall_ms(d->owner->options.clock);

	*until_wall = wall;
	if (d->paused) {
		*until_wall = wall + PAUSED_LOOK_MS;
		return false;
	}
	if (d->backoff_until_ms <= destinations_now_ms(d->owner))
		return true;
	*until_wall = wall + d->backoff_until_ms - destinations_now_ms(d->owner);
	/* Its trouble may be over before: what waits looks again meanwhile. */
	if (d->id.kind == DESTINATION_RELAYHOST)
		*until_wall = MIN(*until_wall, wall + BACKOFF_RELAYHOST_MAX_MS);
	return false;
}

/* It has had too much of us: more than one of its mailboxes (x.2.y, RFC 3463) or our account at a relayhost. */
static bool is_throttled(const struct destination *d, const struct outcome *outcome)
{
	return outcome->kind == OUTCOME_DEFERRED && outcome->class == CLASS_THROTTLE &&
	       (outcome->stage >= STAGE_MAIL || outcome_holds_everywhere(outcome)) &&
	       strncmp(outcome->enhanced, "4.2.", 4) != 0 &&
	       !(d->id.kind == DESTINATION_RELAYHOST && outcome_is_account_trouble(outcome));
}

/* Relayhosts count messages by the second; the hosts of others want to be left in peace. */
static int64_t backoff_first_ms(const struct destination *d, const struct outcome *outcome)
{
	return d->id.kind == DESTINATION_MX && is_throttled(d, outcome) ? BACKOFF_THROTTLE_FIRST_MS : BACKOFF_FIRST_MS;
}

/* Who is told all the time that a password is wrong may lock the account; and a day's limit is not over in a minute. */
static int64_t backoff_max_ms(const struct destination *d, const struct outcome *outcome)
{
	if (d->id.kind == DESTINATION_MX)
		return is_throttled(d, outcome) ? BACKOFF_THROTTLE_MAX_MS : BACKOFF_MX_MAX_MS;
	if (!outcome_is_account_trouble(outcome) || outcome->code < 400)
		return BACKOFF_RELAYHOST_MAX_MS;
	return outcome->class == CLASS_THROTTLE ? BACKOFF_LIMIT_MAX_MS : BACKOFF_ACCOUNT_MAX_MS;
}

static void back_off(struct destination *d, const struct outcome *outcome)
{
	int64_t max = backoff_max_ms(d, outcome);
	int64_t wait = backoff_first_ms(d, outcome) << MIN(d->failures, 12u);

	if (d->backoff_until_ms > destinations_now_ms(d->owner))
		return; /* connections that were open together fail together: once is enough */
	d->failures++;
	d->window = MAX(d->window / 2, 1u);
	d->backoff_until_ms = destinations_now_ms(d->owner) + MIN(wait, max);
	timers_set(loop_timers(d->owner->options.loop), &d->timer, d->backoff_until_ms, destination_on_backoff_over, d);
}

static void note_trouble(struct destination *d, const struct outcome *outcome)
{
	const struct destination_events *events = &d->owner->options.events;
	bool is_new = d->trouble.kind == OUTCOME_NONE || d->trouble.class != outcome->class;

	if (d->is_retired) /* nobody would hear that it is over */
		return;
	if (d->trouble.kind == OUTCOME_NONE)
		d->trouble_since_wall = clock_wall_ms(d->owner->options.clock);
	d->trouble = *outcome;
	if (is_new)
		events->on_health(events->health_ctx, d);
}

void destination_end_trouble(struct destination *d)
{
	const struct destination_events *events = &d->owner->options.events;
	bool was_in_trouble = d->trouble.kind != OUTCOME_NONE;

	d->failures = 0;
	d->put_off = 0;
	d->backoff_until_ms = 0;
	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	if (was_in_trouble) {
		d->trouble = (struct outcome){0};
		events->on_health(events->health_ctx, d);
		destination_pump(d);
	}
}

/* Trouble that only shows once there is a message: with our account, or the hosts break off. */
static bool is_in_session_trouble(const struct destination *d)
{
	return d->trouble.stage >= STAGE_MAIL;
}

/* The host looked at the message and said what it thinks of it. */
static bool is_answer(const struct destination *d, const struct outcome *outcome)
{
	return outcome->code > 0 && outcome->stage >= STAGE_MAIL && !outcome_is_host_trouble(outcome) &&
	       !is_throttled(d, outcome);
}

static bool ends_session_trouble(const struct destination *d, const struct outcome *outcome)
{
	if (outcome->kind == OUTCOME_DELIVERED)
		return true;
	return outcome_is_account_trouble(&d->trouble) ? outcome->stage > d->trouble.stage : is_answer(d, outcome);
}

/*
 * Is it this message's sender, or all of them? The first refusal after a success only puts the message off. When it is
 * refused once more, the message is at fault if another one got through meanwhile; otherwise, as always when nothing
 * ever got through, the account is in trouble.
 */
static void judge_refused_sender(struct destination *d, const struct job *job, uint32_t i, struct outcome *outcome)
{
	const struct queue_message *message = &job->ticket->message;
	bool was_refused = message->status[job->indexes[i]].reason == CLASS_AUTH;
	bool others_get_through = d->last_success_wall > 0 && d->refused_id == 0;

	if (others_get_through && was_refused) {
		outcome_blame_message(outcome);
	} else if (others_get_through || (d->refused_id == message->id && !was_refused && !d->is_refused_by_all)) {
		d->refused_id = message->id;
	} else {
		d->refused_id = message->id;
		d->is_refused_by_all = true;
		back_off(d, outcome);
		note_trouble(d, outcome);
	}
}

static void note_account(struct destination *d, const struct job *job, uint32_t i, struct outcome *outcome)
{
	if (outcome->kind == OUTCOME_DELIVERED) {
		d->refused_id = 0;
		d->is_refused_by_all = false;
	}
	if (d->id.kind == DESTINATION_RELAYHOST && outcome_is_refused_sender(outcome)) {
		judge_refused_sender(d, job, i, outcome);
	} else if (d->id.kind == DESTINATION_RELAYHOST && outcome_is_account_trouble(outcome)) {
		back_off(d, outcome);
		note_trouble(d, outcome);
	} else if (is_in_session_trouble(d) && ends_session_trouble(d, outcome)) {
		destination_end_trouble(d);
	}
}

/* Once for each message; the rest begins when this one is done. */
static void note_throttled(struct destination *d, const struct job *job, const struct outcome *outcome)
{
	if (d->throttled_id == job->ticket->message.id)
		return;
	d->throttled_id = job->ticket->message.id;
	if (++d->broken >= BROKEN_MAX)
		note_trouble(d, outcome);
}

void destination_on_outcome(struct destination *d, struct job *job, uint32_t i, const struct outcome *told)
{
	const struct destination_events *events = &d->owner->options.events;
	struct outcome outcome = *told;

	if (outcome.kind == OUTCOME_DELIVERED)
		destination_place_note_taken(d);
	if (outcome.class == CLASS_GREYLIST) {
		snprintf(d->greylister, sizeof(d->greylister), "%s", outcome.host);
		d->greylister_ms = destinations_now_ms(d->owner);
	}
	if (outcome.class == CLASS_THROTTLE)
		d->window = MAX(d->window / 2, 1u);
	if (is_throttled(d, &outcome) && !outcome_is_host_trouble(&outcome))
		note_throttled(d, job, &outcome);
	if (is_answer(d, &outcome))
		d->broken = 0;
	note_account(d, job, i, &outcome);
	events->on_outcome(events->ctx, job, i, &outcome);
}

void destination_on_session(struct destination *d)
{
	struct destination *other;

	d->progress_ms = destinations_now_ms(d->owner);
	if (!is_in_session_trouble(d))
		destination_end_trouble(d);
	/* Looked for anew each time: what goes on there may make and forget destinations. */
	while ((other = destination_hop_in_trouble(d))) {
		destination_end_trouble(other);
		destination_on_backoff_over(other);
	}
}

/* Its next destination: there is one for each TLS level that routes ask of it. NULL: no more. The first is made. */
static struct destination *next_of_relayhost(struct destinations *destinations, const char *relayhost, int *level)
{
	struct destination_id id = {.kind = DESTINATION_RELAYHOST};
	struct destination *d = NULL;

	slice_to_cstr(slice_of_str(relayhost), id.name, sizeof(id.name));
	for (; !d && *level <= CONFIG_TLS_DANE; ++*level) {
		id.tls = (enum config_tls_level) * level;
		d = id.tls == CONFIG_TLS_UNSET ? destinations_get(destinations, &id)
					       : destinations_find(destinations, &id);
	}
	return d;
}

void destinations_hold_relayhost(struct destinations *destinations, const char *relayhost,
				 const struct outcome *outcome, int64_t until_ms)
{
	struct destination *d;
	int level = CONFIG_TLS_UNSET;

	while ((d = next_of_relayhost(destinations, relayhost, &level))) {
		d->failures += d->failures == 0;
		d->backoff_until_ms = MAX(d->backoff_until_ms, until_ms);
		timers_set(loop_timers(destinations->options.loop), &d->timer, d->backoff_until_ms,
			   destination_on_backoff_over, d);
		destination_on_failed(d, outcome);
	}
}

static bool is_held(const struct destination *d)
{
	return d->trouble.kind != OUTCOME_NONE && d->trouble.class == CLASS_AUTH && d->trouble.stage == STAGE_AUTH &&
	       d->trouble.code == 0;
}

void destinations_mend_relayhost(struct destinations *destinations, const char *relayhost)
{
	struct destination *d;
	int level = CONFIG_TLS_UNSET;

	while ((d = next_of_relayhost(destinations, relayhost, &level)))
		if (is_held(d)) {
			destination_end_trouble(d);
			destination_on_backoff_over(d);
		}
}

void destinations_retry_relayhosts(struct destinations *destinations)
{
	struct destination *d, *next;
	int64_t now = destinations_now_ms(destinations);

	HASH_ITER(hh, destinations->by_key, d, next)
	if (d->id.kind == DESTINATION_RELAYHOST && d->backoff_until_ms > now) {
		d->backoff_until_ms = now;
		timers_set(loop_timers(destinations->options.loop), &d->timer, now, destination_on_backoff_over, d);
	}
}

/* The server takes so many connections and no more. */
static bool has_enough_sessions(const struct destination *d, const struct outcome *outcome)
{
	return outcome->kind == OUTCOME_DEFERRED && !outcome_is_account_trouble(outcome) && d->sessions > 0 &&
	       destinations_now_ms(d->owner) - d->progress_ms < PROGRESS_MS;
}

/* Takes what stands in line now, not what events may add. Parked ones go through the scheduler again, which finds the
 * back-off, another relayhost, or the same end. */
static void begin_rest(struct destination *d, const struct outcome *outcome, struct list *line)
{
	if (outcome->kind == OUTCOME_DEFERRED) {
		back_off(d, outcome);
		note_trouble(d, outcome);
	}
	d->used_at_ms = destinations_now_ms(d->owner); /* not forgotten while its jobs come to their end */
	for (struct job *job; (job = destination_line_pop(d));)
		list_append(line, &job->node);
	destination_line_refill_later(d);
}

/* Nothing goes there for a while, and what stands in line gets this outcome; with all that lead to the same next hop, if
 * it is the next hop's. */
static void fail(struct destination *d, const struct outcome *outcome)
{
	struct list line;
	bool is_down = destination_hop_is_down(d, outcome);

	list_init(&line);
	begin_rest(d, outcome, &line);
	for (struct destination *other = NULL; is_down && (other = destination_hop_next(d, other));)
		begin_rest(other, outcome, &line);
	for (struct list *node; (node = list_pop(&line));) {
		struct job *job = CONTAINER_OF(node, struct job, node);
		struct destination *own = job->destination;
		/* Not of what an operator has held or deleted meanwhile. */
		for (uint32_t i = 0;
		     i < job->count && queue_may_begin(own->owner->options.queue, job->ticket->message.id); i++)
			destination_on_outcome(own, job, i, outcome);
		destination_on_job_done(own, job, false);
	}
}

/* Where there were enough connections a while ago one more is tried, and no other until it is known what comes of it. */
static bool may_grow(const struct destination *d)
{
	if (d->window >= d->owner->options.per_destination_max)
		return false;
	return d->enough == 0 || (d->window <= d->enough && destinations_now_ms(d->owner) >= d->grow_after_ms);
}

void destination_on_job_done(struct destination *d, struct job *job, bool quick)
{
	const struct destination_events *events = &d->owner->options.events;

	if (quick)
		d->progress_ms = destinations_now_ms(d->owner);
	if (quick && may_grow(d))
		d->window++;
	events->on_job_done(events->ctx, job, clock_wall_ms(d->owner->options.clock));
	if (d->broken >= BROKEN_MAX && d->trouble.class == CLASS_THROTTLE) {
		struct outcome trouble = d->trouble;
		fail(d, &trouble);
	}
}

/* One refusal may be chance: the pause is short at first, and doubles as long as no further session can be had. Those
 * that fail together count once. */
static void note_enough(struct destination *d)
{
	int64_t now = destinations_now_ms(d->owner);

	if (d->enough == 0)
		d->grow_pause_ms = GROW_PAUSE_FIRST_MS;
	else if (now >= d->grow_after_ms)
		d->grow_pause_ms = MIN(2 * d->grow_pause_ms, (int64_t)GROW_PAUSE_MAX_MS);
	if (d->enough == 0 || now >= d->grow_after_ms)
		d->grow_after_ms = now + d->grow_pause_ms;
	d->enough = d->sessions;
	d->window = MIN(d->window, d->sessions);
}

void destination_on_failed(struct destination *d, const struct outcome *outcome)
{
	if (has_enough_sessions(d, outcome))
		note_enough(d);
	else
		fail(d, outcome);
}

void destination_on_broken(struct destination *d, const struct outcome *outcome)
{
	if (++d->broken >= BROKEN_MAX)
		fail(d, outcome);
}
