#include "test/sim/ledger_internal.h"

#include <stdlib.h>

/* ---- crashes ---- */

void ledger_on_going_down(struct ledger *ledger)
{
	for (uint32_t m = 0; m < ledger->count; m++)
		for (uint32_t i = 0; i < ledger->messages[m]->rcpt_count; i++)
			ledger->messages[m]->rcpts[i].come_until_ms = 0;
}

static void excuse_message(struct truth_message *message)
{
	for (uint32_t i = 0; i < message->rcpt_count; i++) {
		struct truth_rcpt *rcpt = &message->rcpts[i];
		if (rcpt->is_durable)
			continue;
		rcpt->excused += rcpt->accepted > 0;
		rcpt->dsn_excused += rcpt->dsn_begun;
	}
	for (unsigned d = 0; d < message->dsn_count; d++) {
		struct truth_dsn *dsn = &message->dsns[d];
		if (dsn->is_durable)
			continue;
		dsn->excused += dsn->taken > 0;
	}
	/* A warning may be in the queue although nobody knows yet that it is. */
	message->delays_excused += message->state == ACCEPTED;
}

void ledger_on_break(struct ledger *ledger)
{
	for (uint32_t m = 0; m < ledger->count; m++)
		excuse_message(ledger->messages[m]);
}

void ledger_on_crash(struct ledger *ledger)
{
	ledger_on_going_down(ledger);
	ledger_on_break(ledger);
	for (uint32_t m = 0; m < ledger->count; m++) {
		struct truth_message *message = ledger->messages[m];
		if (message->state == OFFERED)
			message->state = UNCERTAIN;
		for (unsigned d = 0; d < message->dsn_count; d++)
			if (!message->dsns[d].is_durable)
				message->dsns[d].final = OUTCOME_NONE;
	}
	for (size_t i = 0; i < ledger->pending_count; i++)
		ledger->pending[i]->is_pending = false;
	ledger->pending_count = ledger->pending_dsn_count = 0;
}

static void compare_rcpt(struct ledger *ledger, struct truth_rcpt *rcpt, const struct queue_recipient_status *status)
{
	uint32_t serial = rcpt->message->serial;

	if (rcpt->is_durable && (status->state != QUEUE_FINAL || status->kind != rcpt->final))
		ledger_violate(ledger, serial, "%s was %s on the disk, and is %s after the start", rcpt->address,
			       outcome_kind_name(rcpt->final),
			       status->state == QUEUE_FINAL ? outcome_kind_name(status->kind) : "open");
	if (status->attempts < rcpt->durable_attempts || status->attempts > rcpt->attempts)
		ledger_violate(ledger, serial, "%s has %u attempts after the start; %u were recorded, %u made",
			       rcpt->address, status->attempts, rcpt->durable_attempts, rcpt->attempts);
	rcpt->attempts = rcpt->durable_attempts = status->attempts;
	rcpt->final = status->state == QUEUE_FINAL ? status->kind : OUTCOME_NONE;
	rcpt->is_durable = status->state == QUEUE_FINAL;
	rcpt->not_before_wall = rcpt->durable_not_before_wall = rcpt->is_durable ? 0 : status->next_attempt_wall;
	if (!rcpt->is_durable)
		rcpt->dsn_queued = false;
}

struct comparing {
	struct ledger *ledger;
	struct queue *queue;
	bool is_start;
};

/* A hold or a deletion that had not reached the disk may be forgotten. */
static void compare_operated(struct ledger *ledger, struct truth_message *message, enum message_state state)
{
	if (message->is_held && message->is_hold_durable && state != STATE_HELD)
		ledger_violate(ledger, message->serial, "it was held on the disk, and is %s after the start",
			       message_state_name(state));
	if (message->is_deleted && message->is_delete_durable)
		ledger_violate(ledger, message->serial, "it was deleted on the disk, and is there after the start");
	if (state != STATE_HELD)
		message->is_held = false;
	message->is_deleted = false;
	for (uint32_t i = 0; i < message->rcpt_count; i++) {
		message->rcpts[i].is_stopped = message->is_held;
		message->rcpts[i].is_dying = false;
	}
}

static void compare_message(void *ctx, const struct queue_brief *brief)
{
	struct comparing *comparing = ctx;
	struct queue_message queued;
	struct truth_rcpt *first;

	if (queue_read_envelope(comparing->queue, brief->id, 0, &queued) != 0) {
		ledger_violate(comparing->ledger, 0, "a message cannot be read after the start");
		return;
	}
	first = ledger_find_rcpt(comparing->ledger, queued.envelope.recipients[0].address);
	if (first) {
		struct truth_message *message = first->message;
		message->is_in_queue = true;
		if (message->state == UNCERTAIN) {
			message->state = ACCEPTED;
			message->accepted_at_ms = ledger_now_ms(comparing->ledger);
		}
		for (uint32_t i = 0; i < message->rcpt_count; i++)
			compare_rcpt(comparing->ledger, &message->rcpts[i], &queued.status[i]);
		if (comparing->is_start)
			compare_operated(comparing->ledger, message, brief->state);
	} else if (!(queued.envelope.flags & QUEUE_BOUNCE)) {
		ledger_violate(comparing->ledger, 0, "a message that nobody sent");
	}
	queue_message_free(&queued);
}

static void compare_absent(struct ledger *ledger, struct truth_message *message)
{
	for (uint32_t i = 0; i < message->rcpt_count; i++) {
		struct truth_rcpt *rcpt = &message->rcpts[i];
		if (rcpt->final == OUTCOME_NONE && rcpt->is_dying)
			rcpt->final = OUTCOME_DELETED;
		if (rcpt->final == OUTCOME_NONE)
			ledger_violate(ledger, message->serial, "%s is lost: not in the queue after the start",
				       rcpt->address);
		rcpt->is_durable = rcpt->final != OUTCOME_NONE;
	}
}

void ledger_compare(struct ledger *ledger, struct queue *queue, bool is_start)
{
	struct comparing comparing = {ledger, queue, is_start};
	uint64_t cursor = 0;

	for (uint32_t m = 0; m < ledger->count; m++)
		ledger->messages[m]->is_in_queue = false;
	do
		queue_iterate(queue, &cursor, 1000, compare_message, &comparing);
	while (cursor != 0);
	for (uint32_t m = 0; m < ledger->count; m++)
		if (ledger->messages[m]->state == ACCEPTED && !ledger->messages[m]->is_in_queue)
			compare_absent(ledger, ledger->messages[m]);
}

/* ---- the end ---- */

static void check_expectation(struct ledger *ledger, const struct truth_rcpt *rcpt)
{
	static const enum outcome_kind wanted[] = {[EXPECT_DELIVERED] = OUTCOME_DELIVERED,
						   [EXPECT_FAILED] = OUTCOME_FAILED,
						   [EXPECT_EXPIRED] = OUTCOME_EXPIRED};

	if (rcpt->expect != EXPECT_ANY && rcpt->final != OUTCOME_NONE && rcpt->final != wanted[rcpt->expect])
		ledger_violate(ledger, rcpt->message->serial, "%s should be %s, and is %s", rcpt->address,
			       outcome_kind_name(wanted[rcpt->expect]), outcome_kind_name(rcpt->final));
}

static void check_told(struct ledger *ledger, const struct truth_rcpt *rcpt)
{
	const struct truth_message *message = rcpt->message;
	bool gave_up = rcpt->final == OUTCOME_FAILED || rcpt->final == OUTCOME_EXPIRED;

	if (gave_up && ledger_wants_dsn(rcpt, QUEUE_NOTIFY_FAILURE) && message->is_told && rcpt->dsn_seen == 0)
		ledger_violate(ledger, message->serial, "%s was given up, and the sender was never told",
			       rcpt->address);
	if (!ledger_wants_dsn(rcpt, QUEUE_NOTIFY_FAILURE) && rcpt->dsn_seen > 0)
		ledger_violate(ledger, message->serial, "a DSN about %s, which nobody wanted", rcpt->address);
	if (rcpt->final == OUTCOME_DELIVERED && rcpt->dsn_seen > rcpt->dsn_excused)
		ledger_violate(ledger, message->serial, "%s was delivered, and the sender was told of a failure",
			       rcpt->address);
}

void ledger_finish(struct ledger *ledger, bool is_drained, int64_t now_wall)
{
	for (uint32_t m = 0; m < ledger->count; m++) {
		struct truth_message *message = ledger->messages[m];
		for (uint32_t i = 0; message->state == ACCEPTED && i < message->rcpt_count; i++) {
			struct truth_rcpt *rcpt = &message->rcpts[i];
			check_expectation(ledger, rcpt);
			if (rcpt->final == OUTCOME_NONE && (is_drained || now_wall > message->expires_wall + HOUR_MS))
				ledger_violate(ledger, message->serial, "%s has no outcome at the end", rcpt->address);
			if (is_drained)
				check_told(ledger, rcpt);
		}
	}
}

static void count_rcpt(const struct truth_rcpt *rcpt, struct ledger_totals *out)
{
	int64_t latency = rcpt->accepted_at_ms - rcpt->message->accepted_at_ms;

	out->rcpts++;
	out->delivered += rcpt->final == OUTCOME_DELIVERED;
	out->failed += rcpt->final == OUTCOME_FAILED;
	out->expired += rcpt->final == OUTCOME_EXPIRED;
	out->deleted += rcpt->final == OUTCOME_DELETED;
	out->waiting += rcpt->final == OUTCOME_NONE;
	out->twice += rcpt->accepted > 1;
	if (!rcpt->is_brisk || rcpt->accepted == 0)
		return;
	out->brisk_count++;
	out->brisk_mean_ms += ((double)latency - out->brisk_mean_ms) / out->brisk_count;
	out->brisk_worst_ms = MAX(out->brisk_worst_ms, latency);
}

void ledger_totals(const struct ledger *ledger, struct ledger_totals *out)
{
	*out = (struct ledger_totals){0};
	for (uint32_t m = 0; m < ledger->count; m++) {
		const struct truth_message *message = ledger->messages[m];
		if (message->state != ACCEPTED) {
			out->never_offered++;
			continue;
		}
		out->messages++;
		for (uint32_t i = 0; i < message->rcpt_count; i++)
			count_rcpt(&message->rcpts[i], out);
		for (unsigned d = 0; d < message->dsn_count; d++) {
			out->dsns += message->dsns[d].taken > 0 && !message->dsns[d].is_delay;
			out->delays += message->dsns[d].taken > 0 && message->dsns[d].is_delay;
		}
	}
}
