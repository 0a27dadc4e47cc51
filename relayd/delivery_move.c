/*
 * A message that a host cannot take now, or must not be given (REQUIRETLS), goes on to the next host of its domain
 * within the same attempt (RFC 5321 section 5.1): with those recipients that are still open, and not to many hosts. What
 * the hosts said is put aside until one takes it or none is left.
 *
 * Only where another host may know better: when it broke off (connect), or has a trouble of its own (other). Never a
 * greylister, which would see a stranger at its other hosts, nor one that has had too much of us; nor a message that
 * the host may have taken before the connection was lost. A relayhost has no other hosts.
 */
#include "relayd/delivery_internal.h"

#include <stdlib.h>

enum { MOVES_MAX = 4 };

bool delivery_is_worth_another_host(const struct outcome *outcome)
{
	return outcome->kind == OUTCOME_DEFERRED && (outcome->class == CLASS_OTHER || outcome->class == CLASS_CONNECT);
}

bool delivery_may_move(const struct delivery *d)
{
	return !delivery_is_to_relayhost(d) && d->moves < MOVES_MAX && delivery_has_next(d);
}

/* What is for now stands over what is for good: that host may take it later. */
void delivery_put_aside(struct delivery *d, const struct job *job, uint32_t i, const struct outcome *outcome)
{
	if (!d->refusals)
		d->refusals = xcalloc(job->count, sizeof(*d->refusals));
	if (d->refusals[i].kind != OUTCOME_DEFERRED || outcome->kind == OUTCOME_DEFERRED)
		d->refusals[i] = *outcome;
}

void delivery_forget_refusals(struct delivery *d)
{
	free(d->refusals);
	d->refusals = NULL;
	d->moves = 0;
	d->first_host = d->current;
}

/* One recipient's trouble is not the host's, the message's or the connection's is. */
static bool is_hosts_fault(const struct delivery *d)
{
	for (uint32_t i = 0; i < d->job->count; i++) {
		const struct outcome *refusal = &d->refusals[i];
		if (!d->job->has_outcome[i] && refusal->kind == OUTCOME_DEFERRED && refusal->class != CLASS_TLS &&
		    (refusal->stage != STAGE_RCPT || outcome_is_host_trouble(refusal)))
			return true;
	}
	return false;
}

void delivery_move_on(struct delivery *d)
{
	d->moves_on = false;
	d->moves++;
	delivery_close_content(d);
	if (is_hosts_fault(d))
		hosts_note_failed(d->owner->hosts, &d->current->address, d->port, delivery_now_ms(d));
	delivery_leave_candidate(d);
}

/*
 * A host that was passed by, because it could not be reached or for the sake of an earlier message, might do what the
 * others cannot: then it is not for good.
 */
static void judge(const struct delivery *d, struct outcome *refusal)
{
	bool is_complete = d->first_host == d->candidates && d->fault.kind != OUTCOME_DEFERRED;

	if (refusal->kind != OUTCOME_FAILED || delivery_is_to_relayhost(d) || is_complete)
		return;
	refusal->kind = OUTCOME_DEFERRED;
	refusal->enhanced[0] = '4';
}

void delivery_end_refused(struct delivery *d, struct job *job)
{
	struct outcome broken = {0};

	for (uint32_t i = 0; i < job->count; i++) {
		struct outcome refusal = d->refusals[i];
		if (job->has_outcome[i] || refusal.kind == OUTCOME_NONE)
			continue;
		if (outcome_is_host_trouble(&refusal) && refusal.class != CLASS_TLS)
			broken = refusal;
		judge(d, &refusal);
		destination_on_outcome(d->destination, job, i, &refusal);
	}
	destination_on_job_done(d->destination, job, false);
	if (broken.kind != OUTCOME_NONE)
		destination_on_broken(d->destination, &broken);
}

bool delivery_knows_all_hosts(const struct delivery *d)
{
	bool is_new = d->slot.job_count <= 1;
	bool begins_with_first = d->current == d->candidates && (d->candidate_count == 1 || delivery_has_next(d));

	return delivery_is_to_relayhost(d) || is_new || (begins_with_first && !d->is_shared);
}
