/* What must be true behind a crash. */
#include "support_model.h"

bool model_check_content(struct run *run, const struct model_message *message)
{
	struct queue_content *content = queue_content_open(run->queue, message->id, NULL);
	char bytes[4096];
	size_t at = 0;
	ssize_t n;

	if (!content)
		return false;
	while ((n = queue_content_read(content, bytes, sizeof(bytes))) > 0) {
		if (at + (size_t)n > message->len || memcmp(bytes, message->content + at, (size_t)n) != 0) {
			model_violation(run, "READER SENDS FOREIGN BYTES");
			break;
		}
		at += (size_t)n;
	}
	queue_content_close(&content);
	if (n == 0 && at != message->len)
		model_violation(run, "READER SENDS A PART");
	return n == 0;
}

static void adopt(struct recorded *recorded, uint32_t value)
{
	*recorded = (struct recorded){0, value, value};
}

static void check_rcpt(struct run *run, struct model_message *message, uint32_t r,
		       const struct queue_recipient_status *status)
{
	struct model_rcpt *rcpt = &message->rcpts[r];
	uint32_t final = status->state == QUEUE_FINAL ? status->kind : 0;

	if (model_must_be(run, &rcpt->final) && final != model_must_be(run, &rcpt->final) &&
	    !model_is_excused(run, message))
		model_violation(run, "RESULT FORGOTTEN: message %u, recipient %u", (unsigned)(message - run->messages),
				r);
	else if (final && final != rcpt->final.value)
		model_violation(run, "RESULT FROM NOWHERE: message %u, recipient %u",
				(unsigned)(message - run->messages), r);
	if (status->attempts < model_must_be(run, &rcpt->attempts) && !model_is_excused(run, message))
		model_violation(run, "ATTEMPTS FORGOTTEN: message %u, recipient %u",
				(unsigned)(message - run->messages), r);
	else if (status->attempts > rcpt->attempts.value)
		model_violation(run, "ATTEMPTS FROM NOWHERE");
	adopt(&rcpt->final, final);
	adopt(&rcpt->attempts, status->attempts);
	rcpt->taken = false;
}

static void check_flag(struct run *run, const struct model_message *message, struct recorded *recorded, bool now,
		       const char *name)
{
	/* Of several changes that were not synced any may be the last that survived. */
	if (model_is_durable(run, recorded) && now != recorded->value && !model_is_excused(run, message))
		model_violation(run, "%s FORGOTTEN", name);
	adopt(recorded, now);
}

static bool may_be_present(struct run *run, const struct model_message *message)
{
	switch (message->life) {
	case LIFE_PENDING: return true;
	case LIFE_REFUSED: return message->refused_at_syncs == run->disk.syncs_ok;
	case LIFE_GONE: return false;
	case LIFE_ACKED: return model_must_be(run, &message->deleted) == 0 && !model_all_final_durable(run, message);
	}
	return false;
}

static bool may_be_absent(const struct model_message *message)
{
	return message->life != LIFE_ACKED || message->is_lost || message->deleted.value || model_all_final(message);
}

static bool quarantine_has(struct run *run, const struct evidence *evidence)
{
	for (uint32_t i = 0; i < run->disk.cached_count[DISK_QUARANTINE]; i++) {
		uint64_t size;
		const char *bytes = fault_disk_bytes(&run->disk, DISK_QUARANTINE,
						     fault_disk_name(&run->disk, DISK_QUARANTINE, i), &size);
		if (memmem(bytes, size, evidence->bytes, evidence->len))
			return true;
	}
	return false;
}

/* An accepted message is not there, or cannot be read: only what rotted may go this way, told and with the bytes kept.
 */
static void lose(struct run *run, struct model_message *message)
{
	unsigned number = (unsigned)(message - run->messages);
	bool any = false;

	if (message->is_lost)
		return;
	message->is_lost = true;
	if (!message->is_hit)
		model_violation(run, "LOST: message %u", number);
	else if (run->told == 0)
		model_violation(run, "SILENT LOSS: message %u", number);
	for (uint32_t i = 0; i < run->evidence_count; i++)
		any |= run->evidence[i].id == message->id && quarantine_has(run, &run->evidence[i]);
	if (message->is_hit && !any)
		model_violation(run, "LOST WITHOUT EVIDENCE: message %u", number);
}

static void check_present(struct run *run, struct model_message *message)
{
	struct queue_message read;
	int rc;

	if (!may_be_present(run, message) && !model_is_excused(run, message))
		model_violation(
		    run, message->life == LIFE_REFUSED ? "REFUSED, YET THERE: message %u" : "RESURRECTED: message %u",
		    (unsigned)(message - run->messages));
	message->life = LIFE_ACKED;
	rc = queue_read_envelope(run->queue, message->id, 0, &read);
	if (rc < 0 || !model_check_content(run, message)) {
		if (rc == 0)
			queue_message_free(&read);
		lose(run, message);
		return;
	}
	if (read.envelope.recipient_count != message->rcpt_count)
		model_violation(run, "ANOTHER ENVELOPE");
	for (uint32_t r = 0; r < message->rcpt_count; r++)
		check_rcpt(run, message, r, &read.status[r]);
	check_flag(run, message, &message->held, read.state == STATE_HELD, "HOLD");
	check_flag(run, message, &message->warned, read.warned, "WARNED");
	adopt(&message->deleted, 0);
	queue_message_free(&read);
}

static void check_absent(struct run *run, struct model_message *message)
{
	if (!may_be_absent(message))
		lose(run, message);
	message->life = LIFE_GONE;
}

struct finder {
	struct run *run;
	bool seen[MESSAGES_MAX];
};

static void on_found(void *ctx, const struct queue_brief *brief)
{
	struct finder *finder = ctx;
	struct model_message *message = model_by_id(finder->run, brief->id);

	if (!message)
		model_violation(finder->run, "A MESSAGE FROM NOWHERE");
	else
		finder->seen[message - finder->run->messages] = true;
}

void model_check_all(struct run *run)
{
	struct finder finder = {.run = run};
	uint64_t cursor = 0;

	run->result->crashes++;
	queue_iterate(run->queue, &cursor, SIZE_MAX, on_found, &finder);
	if (!run->rotten && (run->report.corrupt_ranges || run->report.segments_missing ||
			     (run->report.quarantined && !run->had_power_cut)))
		model_violation(run, "FALSE ALARM");
	for (uint32_t i = 0; i < run->message_count; i++) {
		if (finder.seen[i])
			check_present(run, &run->messages[i]);
		else
			check_absent(run, &run->messages[i]);
	}
	run->durable_seq = run->seq;
}
