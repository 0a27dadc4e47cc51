/* What became of a recipient, and what an operator wants of a message: each a record, each absolute. */
#include "queue/internal.h"

struct payload_result result_of_rcpt(const struct index_rcpt *rcpt)
{
	return (struct payload_result){
	    .kind = rcpt->kind_reason >> 4,
	    .class = rcpt->kind_reason & 15,
	    .attempts = rcpt->attempts,
	    .next_wall = rcpt->next_wall,
	    .hint_used = rcpt->bits & RCPT_HINT_USED,
	};
}

static bool is_final(enum outcome_kind kind)
{
	return kind == OUTCOME_DELIVERED || kind == OUTCOME_FAILED || kind == OUTCOME_EXPIRED ||
	       kind == OUTCOME_DELETED;
}

void result_to_rcpt(struct slot *slot, uint32_t i, const struct payload_result *result)
{
	struct index_rcpt *rcpt = slot_rcpt(slot, i);

	rcpt->kind_reason = (uint8_t)(result->kind << 4 | result->class);
	rcpt->attempts = (uint16_t)MIN(result->attempts, UINT16_MAX);
	if (result->hint_used)
		rcpt->bits |= RCPT_HINT_USED;
	slot->flags |= SLOT_TRIED;
	slot_rcpt_set(slot, i, is_final(result->kind) ? RCPT_FINAL : RCPT_WAITING, result->next_wall);
}

static int append_result(struct queue *queue, uint64_t id, uint32_t index, const struct payload_result *result)
{
	struct journal_item item = {.id = id, .index = (uint16_t)index, .type = RECORD_RESULT};
	int rc = payload_put_result(journal_append_begin(queue->journal), result);

	if (rc < 0) {
		journal_append_cancel(queue->journal);
		return rc;
	}
	return journal_append_end(queue->journal, &item);
}

int queue_record_result(struct queue *queue, uint64_t id, uint32_t index, const struct queue_result *given)
{
	struct slot *slot = queue_find(queue, id);
	struct payload_result result = payload_result_of(given);
	int rc;

	if (!slot || index >= slot->rcpt_count)
		return ERR_NOT_FOUND;
	if (rcpt_state(slot_rcpt(slot, index)) == RCPT_FINAL)
		return ERR_EXISTS;
	if (!is_final(result.kind))
		result.kind = slot->flags & SLOT_DELETING ? OUTCOME_DELETED : OUTCOME_DEFERRED;
	result.at_wall = clock_wall_ms(queue->options.clock);
	result.before = slot_rcpt(slot, index)->result;
	result.hint_used |= (slot_rcpt(slot, index)->bits & RCPT_HINT_USED) != 0;
	rc = append_result(queue, id, index, &result);
	if (rc < 0)
		return rc;
	index_change_begin(queue->index, slot);
	if (slot->inflight > 0)
		slot->inflight--;
	result_to_rcpt(slot, index, &result);
	index_change_end(queue->index, slot);
	if (slot->rcpt_open == 0)
		queue_finish(queue, slot);
	else if (slot->flags & SLOT_DELETING && slot->inflight == 0)
		return queue_delete(queue, id);
	return 0;
}

static int set_flag(struct queue *queue, uint64_t id, enum record_type type, uint8_t set, uint8_t clear)
{
	struct slot *slot = queue_find(queue, id);
	int rc;

	if (!slot)
		return ERR_NOT_FOUND;
	if (slot->flags & SLOT_CORRUPT)
		return ERR_CORRUPT;
	rc = queue_append_simple(queue, type, id);
	if (rc < 0)
		return rc;
	if (set & SLOT_HELD)
		schedule_forget_list(queue, slot);
	index_change_begin(queue->index, slot);
	slot->flags = (uint8_t)((slot->flags | set) & ~clear);
	index_change_end(queue->index, slot);
	return 0;
}

int queue_set_warned(struct queue *queue, uint64_t id)
{
	return set_flag(queue, id, RECORD_WARNED, SLOT_WARNED, 0);
}

int queue_hold(struct queue *queue, uint64_t id)
{
	return set_flag(queue, id, RECORD_HOLD, SLOT_HELD, SLOT_POPPED);
}

int queue_release(struct queue *queue, uint64_t id)
{
	int rc = set_flag(queue, id, RECORD_RELEASE, 0, SLOT_HELD);

	return rc < 0 ? rc : queue_flush(queue, id);
}

int queue_delete(struct queue *queue, uint64_t id)
{
	struct slot *slot = queue_find(queue, id);
	int rc;

	if (!slot)
		return ERR_NOT_FOUND;
	if (slot->inflight == 0) {
		queue_finish(queue, slot);
		return 0;
	}
	if (slot->flags & SLOT_DELETING)
		return 0;
	rc = queue_append_simple(queue, RECORD_DELETE, id);
	if (rc < 0)
		return rc;
	schedule_forget_list(queue, slot);
	index_change_begin(queue->index, slot);
	slot->flags |= SLOT_DELETING;
	slot->flags &= (uint8_t)~SLOT_POPPED;
	index_change_end(queue->index, slot);
	return 0;
}
