#include "relayd/scheduler.h"

#include "base/base.h"
#include "relayd/outcome.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	DISPATCHES_PER_TURN = 128,
	WAIT_MAX_MS = 60 * 1000, /* the wall clock may be set meanwhile */
	UNREADABLE_WAIT_MS = 1000,
	NO_DSN_WAIT_MS = 60 * 1000,
	NO_EVENT_WAIT_MS = 15 * 60 * 1000, /* the webhook has been down for long, and each try is one more refusal */
	FRESH_MS = 3 * 1000,		   /* within so much a new message is first looked at */
	FULL_WAIT_MS = 10 * 1000,
};

struct scheduler {
	struct scheduler_options options;
	struct retry_policy policy;
	int64_t warn_after_ms;
	timer_id timer;
	int64_t timer_at_ms;
	unsigned jobs, bounces;
	struct list warnings, givings_up; /* DSNs that are on their way into the queue */
	bool stopping;
};

struct warning {
	struct list node;
	struct scheduler *scheduler;
	uint64_t id;
};

struct giving_up {
	struct list node;
	struct scheduler *scheduler;
	struct job *job;
};

struct scheduler *scheduler_new(const struct scheduler_options *options)
{
	struct scheduler *s = xcalloc(1, sizeof(*s));

	s->options = *options;
	list_init(&s->warnings);
	list_init(&s->givings_up);
	retry_policy_default(&s->policy);
	return s;
}

static void job_free(struct scheduler *s, struct job *job);

void scheduler_free(struct scheduler **scheduler)
{
	struct scheduler *s = *scheduler;

	if (!s)
		return;
	for (struct list *node; (node = list_pop(&s->warnings));)
		free(CONTAINER_OF(node, struct warning, node));
	for (struct list *node; (node = list_pop(&s->givings_up));) {
		struct giving_up *giving_up = CONTAINER_OF(node, struct giving_up, node);
		job_free(s, giving_up->job);
		free(giving_up);
	}
	timers_cancel(loop_timers(s->options.loop), &s->timer);
	free(s);
	*scheduler = NULL;
}

void scheduler_configure(struct scheduler *s, const struct retry_policy *policy, int64_t warn_after_ms)
{
	s->policy = *policy;
	s->warn_after_ms = warn_after_ms;
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
	return s->jobs;
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

/* ---- tickets and jobs ---- */

static struct job *job_new(struct scheduler *s, struct ticket *ticket, const uint32_t *indexes, uint32_t count)
{
	struct job *job = xcalloc(1, sizeof(*job));

	job->ticket = ticket;
	job->count = count;
	job->indexes = xmalloc(count * sizeof(*job->indexes));
	memcpy(job->indexes, indexes, count * sizeof(*job->indexes));
	job->has_outcome = xcalloc(count, sizeof(*job->has_outcome));
	list_node_init(&job->node);
	ticket->jobs++;
	s->jobs++;
	return job;
}

static void ticket_unref(struct ticket *ticket)
{
	if (--ticket->jobs > 0)
		return;
	queue_message_free(&ticket->message);
	free(ticket);
}

static void job_free(struct scheduler *s, struct job *job)
{
	ticket_unref(job->ticket);
	free(job->indexes);
	free(job->has_outcome);
	free(job->failures);
	free(job->delays);
	free(job->deferrals);
	free(job->successes);
	free(job);
	s->jobs--;
}

/* ---- outcomes ---- */

/* Several jobs of one message may be under way, for several destinations. */
static void change_inflight(struct scheduler *s, uint64_t id, int64_t by)
{
	struct queue_brief brief;

	if (queue_brief(s->options.queue, id, &brief) == 0)
		queue_set_inflight(s->options.queue, id, (uint32_t)MAX((int64_t)brief.inflight + by, (int64_t)0));
}

/* A job that ends in its line counts as begun too: each result takes its recipient off the number in flight. */
static void begin_once(struct scheduler *s, struct job *job)
{
	if (job->has_begun)
		return;
	job->has_begun = true;
	change_inflight(s, job->ticket->message.id, job->count);
}

static void add(struct job_failure **items, uint32_t *count, const struct job_failure *item)
{
	*items = xreallocarray(*items, *count + 1, sizeof(**items));
	(*items)[(*count)++] = *item;
}

static void add_outcome(struct job_failure **items, uint32_t *count, const struct job *job, uint32_t i,
			const struct outcome *outcome, int64_t now)
{
	struct job_failure told = {job->indexes[i], *outcome, job->destination ? now : 0, ""};

	if (job->destination && job->destination->id.kind == DESTINATION_RELAYHOST)
		snprintf(told.relayhost, sizeof(told.relayhost), "%.32s", job->destination->id.name);
	add(items, count, &told);
}

static void note_end(struct scheduler *s, uint64_t id, uint32_t index, const struct outcome *outcome)
{
	if (!s->options.greylist)
		return;
	if (outcome->kind == OUTCOME_DELIVERED)
		greylist_passed(s->options.greylist, id, index, now_wall(s));
	else if (outcome->kind != OUTCOME_DEFERRED)
		greylist_forget(s->options.greylist, id, index);
	else if (outcome->class != CLASS_GREYLIST)
		greylist_set_aside(s->options.greylist, id, index);
}

void scheduler_release(void *ctx, uint64_t id, uint32_t recipient)
{
	struct scheduler *s = ctx;

	queue_hasten(s->options.queue, id, recipient, now_wall(s));
}

static void record(struct scheduler *s, struct job *job, uint32_t index, const struct outcome *outcome,
		   int64_t next_wall, bool hint_used)
{
	const struct queue_message *message = &job->ticket->message;
	struct queue_result result = {outcome, message->status[index].attempts + 1, next_wall, hint_used};

	queue_record_result(s->options.queue, message->id, index, &result);
	note_end(s, message->id, index, outcome);
	s->options.report(s->options.ctx, message, index, job->destination, outcome, result.attempts, next_wall);
}

static void on_warned(void *ctx, enum err_code result)
{
	struct warning *warning = ctx;

	if (result == 0)
		queue_set_warned(warning->scheduler->options.queue, warning->id);
	list_remove(&warning->node);
	free(warning);
}

/* Another job of the same message may have warned since this one was read. */
static bool is_warned(struct scheduler *s, const struct queue_message *message)
{
	struct queue_brief brief;

	LIST_FOREACH (node, &s->warnings)
		if (CONTAINER_OF(node, struct warning, node)->id == message->id)
			return true;
	return message->warned || queue_brief(s->options.queue, message->id, &brief) != 0 || brief.warned;
}

static bool wants_warning(struct scheduler *s, const struct queue_message *message)
{
	return s->warn_after_ms > 0 && now_wall(s) - message->envelope.arrived_wall >= s->warn_after_ms &&
	       !is_warned(s, message);
}

/* One for all recipients of the job. */
static void warn_of_delays(struct scheduler *s, struct job *job)
{
	struct queue_message *message = &job->ticket->message;
	struct warning *warning;

	if (job->delay_count == 0 || !wants_warning(s, message))
		return;
	message->warned = true;
	warning = xmalloc(sizeof(*warning));
	*warning = (struct warning){.scheduler = s, .id = message->id};
	list_append(&s->warnings, &warning->node);
	s->options.bounce(s->options.ctx, message, job->delays, job->delay_count, on_warned, warning);
}

/*
 * Recipients that are put off together for the same reason come back together, in one transaction: it costs the server
 * less, and a greylister that looks at all recipients at once (rspamd) knows them again.
 */
static int64_t delay(struct scheduler *s, struct job *job, const struct retry_input *input, bool *hint_taken)
{
	const struct retry_input *last = &job->last_input;

	if (job->last_delay_ms == 0 || last->class != input->class || last->attempts != input->attempts ||
	    last->hint_ms != input->hint_ms || last->hint_used != input->hint_used) {
		job->last_delay_ms = retry_delay_ms(&s->policy, input, s->options.rng, &job->last_hint_taken);
		job->last_input = *input;
	}
	*hint_taken = job->last_hint_taken;
	return job->last_delay_ms;
}

static void defer(struct scheduler *s, struct job *job, const struct job_failure *deferral, int64_t now)
{
	const struct queue_message *message = &job->ticket->message;
	const struct outcome *outcome = &deferral->outcome;
	const struct queue_recipient_status *status = &message->status[deferral->index];
	struct retry_input input = {outcome->class, status->attempts + 1, 1000ll * outcome_retry_hint_sec(outcome),
				    status->hint_used};
	bool hint_taken = false;
	int64_t wait = delay(s, job, &input, &hint_taken), next;

	if (s->options.greylist && outcome->class == CLASS_GREYLIST) {
		struct greylist_refusal refusal = {
		    outcome->host, message->id, deferral->index, status->reason == CLASS_GREYLIST, input.hint_ms > 0,
		    hint_taken,	   wait};
		wait = greylist_refused(s->options.greylist, &refusal, now);
	}
	next = now + wait;
	/* The last look is at the end of its lifetime, so that the sender hears of it then. */
	next = MIN(next, message->envelope.expires_wall);
	record(s, job, deferral->index, outcome, next, status->hint_used || hint_taken);
	if (wants_warning(s, message))
		add(&job->delays, &job->delay_count, deferral);
}

/* The last reply stays as it was, since it tells why; that time is over says the kind (5.4.7 in the DSN). */
static void make_expired(struct outcome *outcome)
{
	outcome->kind = OUTCOME_EXPIRED;
	if (outcome->enhanced[0] == '\0')
		snprintf(outcome->enhanced, sizeof(outcome->enhanced), "5.4.7");
}

static void expire(struct job *job, const struct job_failure *deferral)
{
	struct job_failure expired = *deferral;

	make_expired(&expired.outcome);
	add(&job->failures, &job->failure_count, &expired);
}

/* At the end of the job and by one look at the clock, however long the server took to refuse them one by one. */
static void settle_deferrals(struct scheduler *s, struct job *job)
{
	int64_t now = now_wall(s);
	bool has_ended = now >= job->ticket->message.envelope.expires_wall;

	for (uint32_t i = 0; i < job->deferral_count; i++) {
		if (has_ended)
			expire(job, &job->deferrals[i]);
		else
			defer(s, job, &job->deferrals[i], now);
	}
	if (job->deferral_count > 0 && !has_ended && job->destination)
		destination_note_put_off(job->destination);
}

/* ---- which next hop ---- */

/* It was in trouble, and something is on its way there to see whether it still is. */
static bool is_being_probed(const struct destination *d)
{
	return d->failures > 0 && (d->busy > 0 || d->ready_count > 0);
}

/* The first target that is open and not in doubt; else the first that is open; else the one that opens first, so that
 * it is tried then. */
static struct destination *choose(struct scheduler *s, const struct scheduler_targets *targets)
{
	struct destination *doubtful = NULL, *closed = NULL;
	int64_t closed_until = INT64_MAX;

	for (size_t i = 0; i < targets->count; i++) {
		int64_t until;
		struct destination *d = destinations_get(s->options.destinations, &targets->targets[i]);
		bool is_open = destination_is_open(d, &until);
		if (is_open && !is_being_probed(d))
			return d;
		if (is_open) {
			doubtful = doubtful ? doubtful : d;
		} else if (until < closed_until) {
			closed_until = until;
			closed = d;
		}
	}
	return doubtful ? doubtful : closed;
}

/*
 * The next hop failed before it looked at the message, and there is another that takes mail now: the recipient goes
 * there at once, and this was no attempt. The hop that failed is closed by now, so it is not chosen again.
 */
static bool may_go_elsewhere(struct scheduler *s, const struct job *job, uint32_t i, const struct outcome *outcome)
{
	const struct queue_envelope *envelope = &job->ticket->message.envelope;
	struct scheduler_targets targets = {0};
	struct destination *other;
	int64_t until;

	if (outcome->kind != OUTCOME_DEFERRED || !job->destination || now_wall(s) >= envelope->expires_wall ||
	    (outcome->stage >= STAGE_MAIL && !outcome_is_account_trouble(outcome)))
		return false;
	s->options.route(s->options.ctx, envelope, job->indexes[i], &targets);
	if (targets.count < 2)
		return false;
	other = choose(s, &targets);
	return other != job->destination && destination_is_open(other, &until);
}

/* ---- outcomes, as destinations tell them ---- */

/* RFC 3461 section 5.2.2: whoever asked for news of success and cannot get it from the next hop gets it from us. */
static bool wants_success(const struct job *job, uint32_t i)
{
	return job->destination && !job->next_hop_reports && (job_recipient(job, i)->notify & QUEUE_NOTIFY_SUCCESS);
}

static void on_success_told(void *ctx, enum err_code result)
{
	(void)ctx;
	(void)result; /* the delivery is recorded already */
}

/* The DSN goes into the same batch of the journal as the results, before them, since it needs the message's header. */
static void settle_successes(struct scheduler *s, struct job *job)
{
	if (job->success_count == 0)
		return;
	s->options.bounce(s->options.ctx, &job->ticket->message, job->successes, job->success_count, on_success_told,
			  NULL);
	for (uint32_t i = 0; i < job->success_count; i++)
		record(s, job, job->successes[i].index, &job->successes[i].outcome, 0, false);
}

static void on_outcome(void *ctx, struct job *job, uint32_t i, const struct outcome *outcome)
{
	struct scheduler *s = ctx;
	int64_t now = now_wall(s);

	if (job->has_outcome[i] || may_go_elsewhere(s, job, i, outcome))
		return;
	begin_once(s, job);
	job->has_outcome[i] = true;
	job->reported++;
	switch (outcome->kind) {
	case OUTCOME_DELIVERED:
		if (wants_success(job, i))
			add_outcome(&job->successes, &job->success_count, job, i, outcome, now);
		else
			record(s, job, job->indexes[i], outcome, 0, false);
		break;
	case OUTCOME_DEFERRED: add_outcome(&job->deferrals, &job->deferral_count, job, i, outcome, now); break;
	default: add_outcome(&job->failures, &job->failure_count, job, i, outcome, now);
	}
}

static void give_back(struct scheduler *s, struct job *job, uint32_t index, int64_t next_wall)
{
	uint64_t id = job->ticket->message.id;

	queue_give_back(s->options.queue, id, index, next_wall);
	if (job->has_begun)
		change_inflight(s, id, -1);
}

static void on_bounced(void *ctx, enum err_code result)
{
	struct giving_up *giving_up = ctx;
	struct scheduler *s = giving_up->scheduler;
	struct job *job = giving_up->job;

	for (uint32_t f = 0; f < job->failure_count; f++) {
		if (result == 0)
			record(s, job, job->failures[f].index, &job->failures[f].outcome, 0, false);
		else
			give_back(s, job, job->failures[f].index,
				  now_wall(s) + (result == ERR_LIMIT ? NO_EVENT_WAIT_MS : NO_DSN_WAIT_MS));
	}
	job_free(s, job);
	list_remove(&giving_up->node);
	s->bounces--;
	free(giving_up);
}

static void on_job_done(void *ctx, struct job *job, int64_t retry_wall)
{
	struct scheduler *s = ctx;
	struct giving_up *giving_up;

	for (uint32_t i = 0; i < job->count; i++)
		if (!job->has_outcome[i])
			give_back(s, job, job->indexes[i], retry_wall);
	settle_successes(s, job);
	settle_deferrals(s, job);
	warn_of_delays(s, job);
	if (job->failure_count == 0) {
		job_free(s, job);
		return;
	}
	giving_up = xmalloc(sizeof(*giving_up));
	*giving_up = (struct giving_up){.scheduler = s, .job = job};
	list_append(&s->givings_up, &giving_up->node);
	s->bounces++;
	s->options.bounce(s->options.ctx, &job->ticket->message, job->failures, job->failure_count, on_bounced,
			  giving_up);
}

static void on_job_begun(void *ctx, struct job *job)
{
	begin_once(ctx, job);
}

/* Recipients that end, or are deferred, without any destination. */
static void finish_locally(struct scheduler *s, struct ticket *ticket, const uint32_t *indexes, uint32_t count,
			   const struct outcome *outcome)
{
	struct job *job = job_new(s, ticket, indexes, count);

	for (uint32_t i = 0; i < count; i++)
		on_outcome(s, job, i, outcome);
	on_job_done(s, job, now_wall(s));
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
		plan_add(plan, targets.count > 0 ? choose(s, &targets) : NULL, &targets.failure, i);
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
 * costing memory. */
static bool is_parked(const struct queue_message *message, const struct plan *plan)
{
	struct destination *d = plan->groups[0].destination;
	int64_t until;

	if (plan->count != 1 || !d || has_others(message, &plan->groups[0]))
		return false;
	if (!d->paused && (!destination_is_open(d, &until) || destination_has_room(d)))
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
		destination_submit(group->destination, job_new(s, ticket, group->indexes, group->count));
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
	make_expired(out);
	if (out->text[0] == '\0')
		snprintf(out->text, sizeof(out->text), "not delivered within its lifetime");
}

static void end_lifetime(struct scheduler *s, struct ticket *ticket, const uint32_t *indexes, uint32_t count)
{
	struct job *job = job_new(s, ticket, indexes, count);
	struct outcome last;

	for (uint32_t i = 0; i < count; i++) {
		last_word(&ticket->message.status[indexes[i]], &last);
		on_outcome(s, job, i, &last);
	}
	on_job_done(s, job, now_wall(s));
}

/* ---- an operator's word ---- */

static bool is_being_tried(const struct queue_message *message)
{
	for (uint32_t i = 0; i < message->envelope.recipient_count; i++)
		if (message->status[i].state == QUEUE_TAKEN)
			return true;
	return false;
}

/* Its DSN is on its way already. */
static bool is_being_given_up(const struct scheduler *s, uint64_t id)
{
	LIST_FOREACH (node, &s->givings_up)
		if (CONTAINER_OF(node, struct giving_up, node)->job->ticket->message.id == id)
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
	if (rc == 0 && !is_being_given_up(s, id))
		fail_open_recipients(s, ticket);
	ticket_unref(ticket);
	return rc;
}

unsigned scheduler_bounce_count(const struct scheduler *s)
{
	return s->bounces;
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
	bool has_ended = rc == 0 && now >= ticket->message.envelope.expires_wall;

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
	if (plan.count == 0 || !is_parked(&ticket->message, &plan))
		begin(s, ticket, &plan, now);
	plan_fini(&plan);
	ticket_unref(ticket);
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
