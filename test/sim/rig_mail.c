#include "test/sim/letter.h"
#include "test/sim/rig_internal.h"

#include <stdio.h>
#include <stdlib.h>

static void on_committed(void *ctx, uint64_t id, enum err_code result)
{
	struct truth_message *message = ctx;

	(void)id;
	ledger_on_accepted(message->ledger, message, result);
}

static void put_content(struct queue_upload *upload, const struct truth_message *message)
{
	struct buf letter;

	buf_init(&letter, 1 << 20);
	letter_write(message, &letter);
	queue_upload_append(upload, buf_slice(&letter));
	buf_fini(&letter);
}

static void fill_recipients(const struct truth_message *message, struct queue_recipient *out)
{
	for (uint32_t i = 0; i < message->rcpt_count; i++)
		out[i] = (struct queue_recipient){.address = slice_of_str(message->rcpts[i].address),
						  .notify = message->rcpts[i].notify};
}

/* Full at a start, then filled evenly: our own count must say yes, too. */
static bool may_send(struct rig *rig)
{
	const struct config_rate rate = {rig->options.user_rate.count, rig->options.user_rate.per_ms};
	double more;

	if (rate.count == 0)
		return true;
	if (quota_take(rig->quota, SLICE("app"), &rate, rig->clock->mono) > 0)
		return false;
	more = (double)(rig->clock->mono - rig->tokens_at_ms) * (double)rate.count / (double)rate.per_ms;
	rig->tokens = MIN(rig->tokens + more, (double)rate.count) - 1;
	rig->tokens_at_ms = rig->clock->mono;
	if (rig->tokens < -0.01)
		ledger_violate(rig->ledger, 0, "the user sends more than %lld in %lld s", (long long)rate.count,
			       (long long)rate.per_ms / 1000);
	return true;
}

bool rig_submit(struct rig *rig, struct truth_message *message)
{
	struct queue_recipient *recipients;
	struct queue_upload *upload;
	int64_t now = clock_wall_ms(&rig->clock->clock);
	struct queue_envelope envelope = {.sender = slice_of_str(message->sender),
					  .user = SLICE("app"),
					  .from_domain = SLICE("sender.test"),
					  .prefix = SLICE(LETTER_PREFIX),
					  .body = message->is_8bit ? QUEUE_BODY_8BITMIME : QUEUE_BODY_7BIT,
					  .class = message->class,
					  .arrived_wall = now,
					  .expires_wall = now + rig->options.expire_ms,
					  .recipient_count = message->rcpt_count};

	if (!rig->is_up || rig->is_stopping || queue_may_accept(rig->queue) != 0 || !may_send(rig))
		return false;
	upload = queue_upload_begin(rig->queue, NULL);
	if (!upload)
		return false;
	recipients = xcalloc(message->rcpt_count, sizeof(*recipients));
	fill_recipients(message, recipients);
	envelope.recipients = recipients;
	put_content(upload, message);
	message->id = queue_upload_id(upload);
	message->state = OFFERED;
	message->arrived_wall = now;
	message->expires_wall = envelope.expires_wall;
	ledger_trace(rig->ledger, message->serial, "client: sends %zu octets to %u recipients", message->bytes,
		     message->rcpt_count);
	if (queue_upload_commit(&upload, &envelope, on_committed, message) != 0)
		message->state = UNBORN;
	free(recipients);
	return message->state == OFFERED;
}

/* ---- the operator ---- */

/* False: it is not there, or not now. Else free *queued. */
static bool look_at(struct rig *rig, struct truth_message *message, struct queue_message *queued, bool *is_inflight)
{
	struct queue_brief brief;

	if (!rig->is_up || rig->is_stopping || message->state != ACCEPTED ||
	    queue_brief(rig->queue, message->id, &brief) != 0 ||
	    queue_read_envelope(rig->queue, message->id, 0, queued) != 0)
		return false;
	*is_inflight = brief.inflight > 0;
	return true;
}

void rig_flush(struct rig *rig, struct truth_message *message)
{
	struct queue_message queued;
	bool is_inflight;

	if (message->is_held || message->is_deleted || !look_at(rig, message, &queued, &is_inflight))
		return;
	if (queue_flush(rig->queue, message->id) == 0)
		ledger_on_flush(rig->ledger, message);
	queue_message_free(&queued);
}

void rig_hold(struct rig *rig, struct truth_message *message)
{
	struct queue_message queued;
	bool is_inflight;

	if (message->is_held || message->is_deleted || !look_at(rig, message, &queued, &is_inflight))
		return;
	if (queue_hold(rig->queue, message->id) == 0)
		ledger_on_hold(rig->ledger, message, &queued, is_inflight);
	queue_message_free(&queued);
}

bool rig_release(struct rig *rig, struct truth_message *message)
{
	struct queue_message queued;
	bool is_inflight;

	if (!rig->is_up || rig->is_stopping)
		return false;
	if (look_at(rig, message, &queued, &is_inflight)) {
		if (queue_release(rig->queue, message->id) == 0)
			ledger_on_release(rig->ledger, message);
		queue_message_free(&queued);
	}
	return true;
}

void rig_delete(struct rig *rig, struct truth_message *message)
{
	struct queue_message queued;
	bool is_inflight;

	if (message->is_deleted || !look_at(rig, message, &queued, &is_inflight))
		return;
	if (queue_delete(rig->queue, message->id) == 0)
		ledger_on_delete(rig->ledger, message, &queued, is_inflight);
	queue_message_free(&queued);
}

void rig_bounce(struct rig *rig, struct truth_message *message)
{
	struct queue_message queued;
	bool is_inflight;

	if (message->is_deleted || !look_at(rig, message, &queued, &is_inflight))
		return;
	queue_message_free(&queued);
	/* It tells of the failures at once, perhaps. */
	if (!is_inflight)
		ledger_on_return(rig->ledger, message);
	scheduler_bounce(rig->scheduler, message->id);
}

void rig_repeat_releases(struct rig *rig)
{
	for (uint32_t serial = 1; serial <= ledger_message_count(rig->ledger); serial++) {
		struct truth_message *message = ledger_message(rig->ledger, serial);
		struct queue_brief brief;
		if (!message->is_held && message->state == ACCEPTED &&
		    queue_brief(rig->queue, message->id, &brief) == 0 && brief.state == STATE_HELD)
			rig_release(rig, message);
	}
}

bool rig_pause(struct rig *rig, unsigned relayhost, bool paused)
{
	char name[8];

	if (!rig->is_up || rig->is_stopping)
		return false;
	snprintf(name, sizeof(name), "r%u", relayhost);
	ledger_trace(rig->ledger, 0, "operator: %s %s", paused ? "pauses" : "resumes", name);
	pauses_set(rig->pauses, name, paused);
	destinations_apply_pauses(rig->destinations);
	return true;
}

bool rig_is_paused(const struct rig *rig, unsigned relayhost)
{
	char name[8];

	snprintf(name, sizeof(name), "r%u", relayhost);
	return pauses_has(rig->pauses, name);
}
