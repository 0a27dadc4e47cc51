#include "relayd/scheduler.h"

#include "base/base.h"
#include "relayd/clock_jump.h"
#include "relayd/next_hop.h"
#include "relayd/outcome.h"
#include "relayd/settlement.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	DISPATCHES_PER_TURN = 128,
	WAIT_MAX_MS = 60 * 1000, /* the wall clock may be set meanwhile */
	UNREADABLE_WAIT_MS = 1000,
	FRESH_MS = 3 * 1000, /* within so much a new message is first looked at */
	FULL_WAIT_MS = 10 * 1000,
};

struct scheduler {
	struct scheduler_options options;
	struct settlement *settlement;
	timer_id timer;
	int64_t timer_at_ms;
	struct clock_jump jump;
	bool stopping;
};

struct scheduler *scheduler_new(const struct scheduler_options *options)
{
	struct scheduler *s = xcalloc(1, sizeof(*s));

	s->options = *options;
	clock_jump_init(&s->jump, options->clock, options->log);
	s->settlement = settlement_new(&s->options, &s->jump);
	return s;
}

void scheduler_free(struct scheduler **scheduler)
{
	struct scheduler *s = *scheduler;

	if (!s)
		return;
	settlement_free(&s->settlement);
	timers_cancel(loop_timers(s->options.loop), &s->timer);
	free(s);
	*scheduler = NULL;
}

void scheduler_configure(struct scheduler *s, const struct retry_policy *policy, int64_t warn_after_ms)
{
	settlement_configure(s->settlement, policy, warn_after_ms);
}

void scheduler_set_destinations(struct scheduler *s, struct destinations *destinations)
{
	s->options.destinations = destinations;
}

void scheduler_set_greylist(struct scheduler *s, struct greylist *greylist)
{
	s->options.greylist = greylist;
}

unsigned scheduler_job_count(const struct scheduler *s)
{
	return settlement_job_count(s->settlement);
}

unsigned scheduler_bounce_count(const struct scheduler *s)
{
	return settlement_bounce_count(s->settlement);
}

void scheduler_stop(struct scheduler *s)
{
	s->stopping = true;
	timers_cancel(loop_timers(s->options.loop), &s->timer);
}

static int64_t now_wall(const struct scheduler *s)
{
	return clock_wall_ms(s->options.clock);
}

void scheduler_release(void *ctx, uint64_t id, uint32_t recipient)
{
	struct scheduler *s = ctx;

	queue_hasten(s->options.queue, id, recipient, now_wall(s));
}

/* ---- dispatch ---- */

/* Where the recipients of one message go; groups[g] holds those of one destination. */
struct group {
	struct destination *destination; /* NULL: `failure` */
	struct outcome failure;
	uint32_t *indexes;
	uint32_t count;
};

struct plan {
	struct group *groups;
	size_t count;
};

static void plan_fini(struct plan *plan)
{
	for (size_t g = 0; g < plan->count; g++)
		free(plan->groups[g].indexes);
	free(plan->groups);
}

static void plan_add(struct plan *plan, struct destination *destination, const struct outcome *failure, uint32_t index)
{
	struct group *group = NULL;

	for (size_t g = 0; g < plan->count && destination; g++)
		if (plan->groups[g].destination == destination)
			group = &plan->groups[g];
	if (!group) {
		plan->groups = xreallocarray(plan->groups, plan->count + 1, sizeof(*plan->groups));
		group = &plan->groups[plan->count++];
		*group = (struct group){.destination = destination};
		if (!destination)
			group->failure = *failure;
	}
	if ((group->count & (group->count - 1)) == 0)
		group->indexes = xreallocarray(group->indexes, group->count ? group->count * 2 : 1, sizeof(uint32_t));
	group->indexes[group->count++] = index;
}

static void make_plan(struct scheduler *s, const struct queue_message *message, int64_t now, struct plan *plan)
{
	*plan = (struct plan){0};
	for (uint32_t i = 0; i < message->envelope.recipient_count; i++) {
		const struct queue_recipient_status *status = &message->status[i];
		struct scheduler_targets targets = {0};
		if (status->state != QUEUE_WAITING || status->next_attempt_wall > now)
			continue;
		s->options.route(s->options.ctx, &message->envelope, i, &targets);
		plan_add(plan, targets.count > 0 ? next_hop_choose(s->options.destinations, &targets) : NULL,
			 &targets.failure, i);
	}
}

/* Somebody who is not in the group is due later, or may be: the message must not stand in a line then. */
static bool has_others(const struct queue_message *message, const struct group *group)
{
	uint32_t open = 0;

	for (uint32_t i = 0; i < message->envelope.recipient_count; i++)
		open += message->status[i].state != QUEUE_FINAL;
	return open > group->count;
}

/* A message all of which waits for one destination that is paused, or whose line is full, stands behind it without
 * costing memory; and nobody who comes later stands before it. */
static bool is_parked(const struct queue_message *message, const struct plan *plan, bool was_parked)
{
	struct destination *d = plan->groups[0].destination;
	int64_t until;

	if (plan->count != 1 || !d || has_others(message, &plan->groups[0]))
		return false;
	if (!d->paused && !destination_is_open(d, &until))
		return false;
	if (!d->paused && destination_has_room(d) &&
	    (was_parked || !destination_has_parked(d, message->envelope.class)))
		return false;
	destination_park(d, message->envelope.class, message->id, message->envelope.expires_wall);
	return true;
}

/* Only these wait: the message's other recipients have their own times. */
static void put_off(struct scheduler *s, const struct queue_message *message, const struct group *group, int64_t until)
{
	until = MIN(until, message->envelope.expires_wall);
	for (uint32_t i = 0; i < group->count; i++)
		queue_give_back(s->options.queue, message->id, group->indexes[i], until);
}

/* A line that moves by a rate alone need not be looked at all the time. */
static int64_t wait_for_room_ms(const struct destination *destination)
{
	const struct rate *rate = destination_full_rate(destination);

	return rate ? MIN(MAX(rate_wait_ms(rate), (int64_t)FULL_WAIT_MS), (int64_t)WAIT_MAX_MS) : FULL_WAIT_MS;
}

/* Recipients that end, or are deferred, without any destination. */
static void finish_locally(struct scheduler *s, struct ticket *ticket, const uint32_t *indexes, uint32_t count,
			   const struct outcome *outcome)
{
	struct job *job = settlement_new_job(s->settlement, ticket, indexes, count);

	for (uint32_t i = 0; i < count; i++)
		settlement_note_outcome(s->settlement, job, i, outcome);
	settlement_end_job(s->settlement, job, now_wall(s));
}

static void begin_group(struct scheduler *s, struct ticket *ticket, const struct group *group)
{
	int64_t until;

	if (!group->destination) {
		finish_locally(s, ticket, group->indexes, group->count, &group->failure);
	} else if (!destination_is_open(group->destination, &until)) {
		destination_note_put_off(group->destination);
		put_off(s, &ticket->message, group, until);
	} else if (!destination_has_room(group->destination)) {
		put_off(s, &ticket->message, group, now_wall(s) + wait_for_room_ms(group->destination));
	} else {
		destination_submit(group->destination,
				   settlement_new_job(s->settlement, ticket, group->indexes, group->count));
	}
}

/* What the sender is told: the last reply for this very recipient, if there was one. */
static void last_word(const struct queue_recipient_status *status, struct outcome *out)
{
	*out = (struct outcome){.class = status->reason, .stage = STAGE_QUEUE};
	if (status->last)
		*out = *status->last;
	if (out->class == CLASS_NONE)
		out->class = CLASS_OTHER;
	outcome_expire(out);
	if (out->text[0] == '\0')
		snprintf(out->text, sizeof(out->text), "not delivered within its lifetime");
}

static void end_lifetime(struct scheduler *s, struct ticket *ticket, const uint32_t *indexes, uint32_t count)
{
	struct job *job = settlement_new_job(s->settlement, ticket, indexes, count);
	struct outcome last;

	for (uint32_t i = 0; i < count; i++) {
		last_word(&ticket->message.status[indexes[i]], &last);
		settlement_note_outcome(s->settlement, job, i, &last);
	}
	settlement_end_job(s->settlement, job, now_wall(s));
}

/* `now` is that of the plan: nobody is taken who is not in it. */
static void begin(struct scheduler *s, struct ticket *ticket, const struct plan *plan, int64_t now)
{
	struct queue_message *message = &ticket->message;
	size_t max = message->envelope.recipient_count;
	uint32_t *taken = xmalloc(max * sizeof(*taken));
	size_t count = queue_take_due(s->options.queue, message->id, now, taken, max);

	if (count > 0 && now >= message->envelope.expires_wall)
		end_lifetime(s, ticket, taken, (uint32_t)count);
	else
		for (size_t g = 0; count > 0 && g < plan->count; g++)
			begin_group(s, ticket, &plan->groups[g]);
	free(taken);
}

/* What comes back from the queue to a destination does not wait there any more. */
static void note_returns(const struct queue_message *message, const struct plan *plan, int64_t now)
{
	bool is_fresh = now - message->envelope.arrived_wall < FRESH_MS;

	for (size_t g = 0; g < plan->count; g++)
		if (plan->groups[g].destination &&
		    (!is_fresh || message->status[plan->groups[g].indexes[0]].attempts > 0))
			destination_note_return(plan->groups[g].destination);
}

static void dispatch(struct scheduler *s, uint64_t id, bool was_parked)
{
	struct ticket *ticket = xcalloc(1, sizeof(*ticket));
	struct plan plan = {0};
	int64_t now = now_wall(s);
	int rc = queue_read_envelope(s->options.queue, id, 0, &ticket->message);
	struct queue_envelope *envelope = &ticket->message.envelope;
	bool has_ended;

	if (rc == 0)
		envelope->expires_wall = clock_jump_expires_wall(&s->jump, envelope);
	has_ended = rc == 0 && now >= envelope->expires_wall;

	if (has_ended) { /* once in its life: the last reply goes into the DSN */
		queue_message_free(&ticket->message);
		rc = queue_read_envelope(s->options.queue, id, QUEUE_READ_OUTCOMES, &ticket->message);
	}
	if (rc == ERR_TEMPORARY || rc == ERR_IO)
		queue_push_back(s->options.queue, id, now + UNREADABLE_WAIT_MS);
	if (rc != 0) {
		free(ticket);
		return;
	}
	ticket->jobs = 1; /* ours, until the end of this function */
	if (!has_ended)
		make_plan(s, &ticket->message, now, &plan);
	if (!was_parked)
		note_returns(&ticket->message, &plan, now);
	if (plan.count == 0 || !is_parked(&ticket->message, &plan, was_parked))
		begin(s, ticket, &plan, now);
	plan_fini(&plan);
	ticket_unref(ticket);
}

/* ---- an operator's word ---- */

static bool is_being_tried(const struct queue_message *message)
{
	for (uint32_t i = 0; i < message->envelope.recipient_count; i++)
		if (message->status[i].state == QUEUE_TAKEN)
			return true;
	return false;
}

static void fail_open_recipients(struct scheduler *s, struct ticket *ticket)
{
	const struct outcome word = {.kind = OUTCOME_FAILED,
				     .class = CLASS_OTHER,
				     .stage = STAGE_QUEUE,
				     .enhanced = "5.0.0",
				     .text = "returned to the sender by an operator"};
	uint32_t count = (uint32_t)ticket->message.envelope.recipient_count, open = 0;
	uint32_t *indexes = xmalloc(count * sizeof(*indexes));

	for (uint32_t i = 0; i < count; i++)
		if (ticket->message.status[i].state == QUEUE_WAITING)
			indexes[open++] = i;
	if (open > 0)
		finish_locally(s, ticket, indexes, open, &word);
	free(indexes);
}

int scheduler_bounce(struct scheduler *s, uint64_t id)
{
	struct ticket *ticket = xcalloc(1, sizeof(*ticket));
	int rc = queue_read_envelope(s->options.queue, id, 0, &ticket->message);

	if (rc != 0) {
		free(ticket);
		return rc;
	}
	ticket->jobs = 1; /* ours, until the end of this function */
	if (is_being_tried(&ticket->message))
		rc = ERR_LOCKED;
	else if (ticket->message.state != STATE_HELD)
		rc = queue_hold(s->options.queue, id);
	if (rc == 0 && !settlement_gives_up(s->settlement, id))
		fail_open_recipients(s, ticket);
	ticket_unref(ticket);
	return rc;
}

/* ---- what destinations tell ---- */

static void on_job_begun(void *ctx, struct job *job)
{
	settlement_begin_job(((struct scheduler *)ctx)->settlement, job);
}

static void on_outcome(void *ctx, struct job *job, uint32_t i, const struct outcome *outcome)
{
	settlement_note_outcome(((struct scheduler *)ctx)->settlement, job, i, outcome);
}

static void on_job_done(void *ctx, struct job *job, int64_t retry_wall)
{
	settlement_end_job(((struct scheduler *)ctx)->settlement, job, retry_wall);
}

static void on_unparked(void *ctx, uint64_t id)
{
	struct scheduler *s = ctx;

	if (s->stopping || !queue_may_deliver(s->options.queue))
		queue_push_back(s->options.queue, id, now_wall(s));
	else
		dispatch(s, id, true);
}

void scheduler_destination_events(struct scheduler *s, struct destination_events *events)
{
	events->ctx = s;
	events->on_job_begun = on_job_begun;
	events->on_outcome = on_outcome;
	events->on_job_done = on_job_done;
	events->on_unparked = on_unparked;
}

static void on_timer(void *ctx)
{
	struct scheduler *s = ctx;

	s->timer = 0; /* the turn that it causes does the work */
}

/* One that fires too early costs a turn; setting it anew each turn would cost more. */
static void wake_at(struct scheduler *s, int64_t at_ms)
{
	if (s->timer != 0 && s->timer_at_ms <= at_ms)
		return;
	s->timer_at_ms = at_ms;
	timers_set(loop_timers(s->options.loop), &s->timer, at_ms, on_timer, s);
}

void scheduler_turn(struct scheduler *s)
{
	struct loop *loop = s->options.loop;
	int64_t now = now_wall(s), due;
	uint64_t id;
	int budget = DISPATCHES_PER_TURN;

	if (s->stopping)
		return;
	clock_jump_turn(&s->jump, s->options.queue, loop);
	while (budget > 0 && queue_may_deliver(s->options.queue) && queue_pop_due(s->options.queue, now, &id)) {
		dispatch(s, id, false);
		budget--;
	}
	due = queue_next_due_wall(s->options.queue);
	if (due == INT64_MAX || !queue_may_deliver(s->options.queue))
		timers_cancel(loop_timers(loop), &s->timer);
	else
		wake_at(s, loop_now_ms(loop) + MIN(MAX(due - now, 0), (int64_t)WAIT_MAX_MS));
}
