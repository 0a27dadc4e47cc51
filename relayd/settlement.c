#include "relayd/settlement.h"

#include "base/base.h"
#include "relayd/next_hop.h"
#include "relayd/outcome.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	NO_DSN_WAIT_MS = 60 * 1000,
	NO_EVENT_WAIT_MS = 15 * 60 * 1000, /* the webhook has been down for long, and each try is one more refusal */
};

struct settlement {
	const struct scheduler_options *options;
	struct clock_jump *jump;
	struct retry_policy policy;
	int64_t warn_after_ms;
	unsigned jobs, bounces;
	struct list warnings, givings_up; /* DSNs that are on their way into the queue */
};

struct warning {
	struct list node;
	struct settlement *settlement;
	uint64_t id;
};

struct giving_up {
	struct list node;
	struct settlement *settlement;
	struct job *job;
};

struct settlement *settlement_new(const struct scheduler_options *options, struct clock_jump *jump)
{
	struct settlement *s = xcalloc(1, sizeof(*s));

	s->options = options;
	s->jump = jump;
	list_init(&s->warnings);
	list_init(&s->givings_up);
	retry_policy_default(&s->policy);
	return s;
}

void settlement_configure(struct settlement *s, const struct retry_policy *policy, int64_t warn_after_ms)
{
	s->policy = *policy;
	s->warn_after_ms = warn_after_ms;
}

unsigned settlement_job_count(const struct settlement *s)
{
	return s->jobs;
}

unsigned settlement_bounce_count(const struct settlement *s)
{
	return s->bounces;
}

bool settlement_gives_up(const struct settlement *s, uint64_t id)
{
	LIST_FOREACH (node, &s->givings_up)
		if (CONTAINER_OF(node, struct giving_up, node)->job->ticket->message.id == id)
			return true;
	return false;
}

static int64_t now_wall(const struct settlement *s)
{
	return clock_wall_ms(s->options->clock);
}

/* ---- tickets and jobs ---- */

struct job *settlement_new_job(struct settlement *s, struct ticket *ticket, const uint32_t *indexes, uint32_t count)
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

void ticket_unref(struct ticket *ticket)
{
	if (--ticket->jobs > 0)
		return;
	queue_message_free(&ticket->message);
	free(ticket);
}

static void job_free(struct settlement *s, struct job *job)
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

void settlement_free(struct settlement **settlement)
{
	struct settlement *s = *settlement;

	if (!s)
		return;
	for (struct list *node; (node = list_pop(&s->warnings));)
		free(CONTAINER_OF(node, struct warning, node));
	for (struct list *node; (node = list_pop(&s->givings_up));) {
		struct giving_up *giving_up = CONTAINER_OF(node, struct giving_up, node);
		job_free(s, giving_up->job);
		free(giving_up);
	}
	free(s);
	*settlement = NULL;
}

/* ---- one outcome ---- */

/* Several jobs of one message may be under way, for several destinations. */
static void change_inflight(struct settlement *s, uint64_t id, int64_t by)
{
	struct queue_brief brief;

	if (queue_brief(s->options->queue, id, &brief) == 0)
		queue_set_inflight(s->options->queue, id, (uint32_t)MAX((int64_t)brief.inflight + by, (int64_t)0));
}

/* A job that ends in its line counts as begun too: each result takes its recipient off the number in flight. */
void settlement_begin_job(struct settlement *s, struct job *job)
{
	if (job->has_begun)
		return;
	job->has_begun = true;
	change_inflight(s, job->ticket->message.id, job->count);
}

static void note_end(struct settlement *s, uint64_t id, uint32_t index, const struct outcome *outcome)
{
	if (!s->options->greylist)
		return;
	if (outcome->kind == OUTCOME_DELIVERED)
		greylist_passed(s->options->greylist, id, index, now_wall(s));
	else if (outcome->kind != OUTCOME_DEFERRED)
		greylist_forget(s->options->greylist, id, index);
	else if (outcome->class != CLASS_GREYLIST)
		greylist_set_aside(s->options->greylist, id, index);
}

static void record(struct settlement *s, struct job *job, uint32_t index, const struct outcome *outcome,
		   int64_t next_wall, bool hint_used)
{
	const struct queue_message *message = &job->ticket->message;
	struct queue_result result = {outcome, message->status[index].attempts + 1, next_wall, hint_used};

	queue_record_result(s->options->queue, message->id, index, &result);
	note_end(s, message->id, index, outcome);
	s->options->report(s->options->ctx, message, index, job->destination, outcome, result.attempts, next_wall);
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

/* The hop failed before it looked at the message; or it broke off so many others that it is closed now, which is what
 * those in line are told. */
static bool is_about_hop(const struct job *job, const struct outcome *outcome)
{
	bool may_have_been_taken = outcome->stage == STAGE_DOT && outcome->code == 0;
	int64_t until;

	if (outcome->stage < STAGE_MAIL || outcome_is_account_trouble(outcome))
		return true;
	return outcome_is_host_trouble(outcome) && !may_have_been_taken &&
	       !destination_is_open(job->destination, &until);
}

/* The clock may have been set while the attempt was under way. */
static int64_t expires_wall(const struct settlement *s, const struct job *job)
{
	clock_jump_look(s->jump);
	return clock_jump_expires_wall(s->jump, &job->ticket->message.envelope);
}

/*
 * The next hop failed before it looked at the message, and there is another that takes mail now: the recipient goes
 * there at once, and this was no attempt. The hop that failed is closed by now, so it is not chosen again.
 */
static bool may_go_elsewhere(struct settlement *s, const struct job *job, uint32_t i, const struct outcome *outcome)
{
	const struct queue_envelope *envelope = &job->ticket->message.envelope;
	struct scheduler_targets targets = {0};
	struct destination *other;
	int64_t until;

	if (outcome->kind != OUTCOME_DEFERRED || !job->destination || now_wall(s) >= expires_wall(s, job) ||
	    !is_about_hop(job, outcome))
		return false;
	s->options->route(s->options->ctx, envelope, job->indexes[i], &targets);
	if (targets.count < 2)
		return false;
	other = next_hop_choose(s->options->destinations, &targets);
	return other != job->destination && destination_is_open(other, &until);
}

/* RFC 3461 section 5.2.2: whoever asked for news of success and cannot get it from the next hop gets it from us. */
static bool wants_success(const struct job *job, uint32_t i)
{
	return job->destination && !job->next_hop_reports && (job_recipient(job, i)->notify & QUEUE_NOTIFY_SUCCESS);
}

void settlement_note_outcome(struct settlement *s, struct job *job, uint32_t i, const struct outcome *outcome)
{
	int64_t now = now_wall(s);

	if (job->has_outcome[i] || may_go_elsewhere(s, job, i, outcome))
		return;
	settlement_begin_job(s, job);
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

/* ---- the delay warning ---- */

static void on_warned(void *ctx, enum err_code result)
{
	struct warning *warning = ctx;

	if (result == 0)
		queue_set_warned(warning->settlement->options->queue, warning->id);
	list_remove(&warning->node);
	free(warning);
}

/* Another job of the same message may have warned since this one was read. */
static bool is_warned(struct settlement *s, const struct queue_message *message)
{
	struct queue_brief brief;

	LIST_FOREACH (node, &s->warnings)
		if (CONTAINER_OF(node, struct warning, node)->id == message->id)
			return true;
	return message->warned || queue_brief(s->options->queue, message->id, &brief) != 0 || brief.warned;
}

static bool wants_warning(struct settlement *s, const struct queue_message *message)
{
	return s->warn_after_ms > 0 && now_wall(s) - message->envelope.arrived_wall >= s->warn_after_ms &&
	       !is_warned(s, message);
}

/* One for all recipients of the job. */
static void warn_of_delays(struct settlement *s, struct job *job)
{
	struct queue_message *message = &job->ticket->message;
	struct warning *warning;

	if (job->delay_count == 0 || !wants_warning(s, message))
		return;
	message->warned = true;
	warning = xmalloc(sizeof(*warning));
	*warning = (struct warning){.settlement = s, .id = message->id};
	list_append(&s->warnings, &warning->node);
	s->options->bounce(s->options->ctx, message, job->delays, job->delay_count, on_warned, warning);
}

/* ---- the end of a job ---- */

/*
 * Recipients that are put off together for the same reason come back together, in one transaction: it costs the server
 * less, and a greylister that looks at all recipients at once (rspamd) knows them again.
 */
static int64_t delay(struct settlement *s, struct job *job, const struct retry_input *input, bool *hint_taken)
{
	const struct retry_input *last = &job->last_input;

	if (job->last_delay_ms == 0 || last->class != input->class || last->attempts != input->attempts ||
	    last->hint_ms != input->hint_ms || last->hint_used != input->hint_used) {
		job->last_delay_ms = retry_delay_ms(&s->policy, input, s->options->rng, &job->last_hint_taken);
		job->last_input = *input;
	}
	*hint_taken = job->last_hint_taken;
	return job->last_delay_ms;
}

/* An operator deleted the message during the attempt: there will be no other. */
static bool is_being_deleted(const struct settlement *s, uint64_t id)
{
	struct queue_brief brief;

	return queue_brief(s->options->queue, id, &brief) == 0 && brief.deleting;
}

static void end_as_deleted(struct settlement *s, struct job *job, const struct job_failure *deferral)
{
	struct outcome outcome = deferral->outcome;

	outcome.kind = OUTCOME_DELETED;
	record(s, job, deferral->index, &outcome, 0, false);
}

/* A greylister's clock begins with its first refusal, whatever was in the way before. After a restart only the attempts
 * are known. */
static uint32_t attempts_of_class(struct settlement *s, const struct job *job, const struct job_failure *deferral)
{
	const struct queue_message *message = &job->ticket->message;
	const struct queue_recipient_status *status = &message->status[deferral->index];
	uint32_t known = 0;

	if (deferral->outcome.class != CLASS_GREYLIST)
		return status->attempts + 1;
	if (s->options->greylist)
		known = greylist_refusal_count(s->options->greylist, message->id, deferral->index);
	return known > 0 || status->reason != CLASS_GREYLIST ? known + 1 : status->attempts + 1;
}

static void defer(struct settlement *s, struct job *job, const struct job_failure *deferral, int64_t now)
{
	const struct queue_message *message = &job->ticket->message;
	const struct outcome *outcome = &deferral->outcome;
	const struct queue_recipient_status *status = &message->status[deferral->index];
	struct retry_input input = {outcome->class, attempts_of_class(s, job, deferral),
				    1000ll * outcome_retry_hint_sec(outcome), status->hint_used};
	bool hint_taken = false;
	int64_t wait = delay(s, job, &input, &hint_taken), next;

	if (s->options->greylist && outcome->class == CLASS_GREYLIST) {
		struct greylist_refusal refusal = {
		    outcome->host, message->id, deferral->index, status->reason == CLASS_GREYLIST, input.hint_ms > 0,
		    hint_taken,	   wait};
		wait = greylist_refused(s->options->greylist, &refusal, now);
	}
	next = now + wait;
	/* The last look is at the end of its lifetime, so that the sender hears of it then. */
	next = MIN(next, expires_wall(s, job));
	record(s, job, deferral->index, outcome, next, status->hint_used || hint_taken);
	if (wants_warning(s, message))
		add(&job->delays, &job->delay_count, deferral);
}

static void expire(struct job *job, const struct job_failure *deferral)
{
	struct job_failure expired = *deferral;

	outcome_expire(&expired.outcome);
	add(&job->failures, &job->failure_count, &expired);
}

/* At the end of the job and by one look at the clock, however long the server took to refuse them one by one. */
static void settle_deferrals(struct settlement *s, struct job *job)
{
	int64_t now = now_wall(s);
	bool has_ended = now >= expires_wall(s, job);
	bool is_deleted = is_being_deleted(s, job->ticket->message.id);

	for (uint32_t i = 0; i < job->deferral_count; i++) {
		if (is_deleted)
			end_as_deleted(s, job, &job->deferrals[i]);
		else if (has_ended)
			expire(job, &job->deferrals[i]);
		else
			defer(s, job, &job->deferrals[i], now);
	}
	if (job->deferral_count > 0 && !has_ended && job->destination)
		destination_note_put_off(job->destination);
}

static void on_success_told(void *ctx, enum err_code result)
{
	(void)ctx;
	(void)result; /* the delivery is recorded already */
}

/* The DSN goes into the same batch of the journal as the results, before them, since it needs the message's header. */
static void settle_successes(struct settlement *s, struct job *job)
{
	if (job->success_count == 0)
		return;
	s->options->bounce(s->options->ctx, &job->ticket->message, job->successes, job->success_count, on_success_told,
			   NULL);
	for (uint32_t i = 0; i < job->success_count; i++)
		record(s, job, job->successes[i].index, &job->successes[i].outcome, 0, false);
}

static void give_back(struct settlement *s, struct job *job, uint32_t index, int64_t next_wall)
{
	uint64_t id = job->ticket->message.id;

	queue_give_back(s->options->queue, id, index, next_wall);
	if (job->has_begun)
		change_inflight(s, id, -1);
}

static void on_bounced(void *ctx, enum err_code result)
{
	struct giving_up *giving_up = ctx;
	struct settlement *s = giving_up->settlement;
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

void settlement_end_job(struct settlement *s, struct job *job, int64_t retry_wall)
{
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
	*giving_up = (struct giving_up){.settlement = s, .job = job};
	list_append(&s->givings_up, &giving_up->node);
	s->bounces++;
	s->options->bounce(s->options->ctx, &job->ticket->message, job->failures, job->failure_count, on_bounced,
			   giving_up);
}
