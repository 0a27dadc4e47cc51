/* What is due, who has it, and the waiting lines. */
#include "queue/internal.h"

#include <stdlib.h>

/* ---- Due ---- */

bool queue_pop_due(struct queue *queue, int64_t now_wall, uint64_t *id)
{
	struct slot *slot = index_first_due(queue->index, now_wall);

	if (!slot)
		return false;
	index_change_begin(queue->index, slot);
	slot->flags |= SLOT_POPPED;
	index_change_end(queue->index, slot);
	*id = slot->id;
	return true;
}

int64_t queue_next_due_wall(const struct queue *queue)
{
	return index_next_due_wall(queue->index);
}

size_t queue_take_due(struct queue *queue, uint64_t id, int64_t now_wall, uint32_t *indexes, size_t max)
{
	struct slot *slot = queue_find(queue, id);
	size_t count = 0;

	if (!slot || slot->flags & (SLOT_HELD | SLOT_DELETING))
		return 0;
	schedule_forget_list(queue, slot);
	index_change_begin(queue->index, slot);
	slot->flags &= (uint8_t)~SLOT_POPPED;
	for (uint32_t i = 0; i < slot->rcpt_count && count < max; i++) {
		const struct index_rcpt *rcpt = slot_rcpt(slot, i);
		if (rcpt_state(rcpt) != RCPT_WAITING || rcpt->next_wall > now_wall)
			continue;
		slot_rcpt_set(slot, i, RCPT_TAKEN, 0);
		indexes[count++] = i;
	}
	index_change_end(queue->index, slot);
	return count;
}

int queue_give_back(struct queue *queue, uint64_t id, uint32_t index, int64_t next_wall)
{
	struct slot *slot = queue_find(queue, id);

	if (!slot || index >= slot->rcpt_count)
		return ERR_NOT_FOUND;
	if (rcpt_state(slot_rcpt(slot, index)) != RCPT_TAKEN)
		return ERR_EXISTS;
	index_change_begin(queue->index, slot);
	slot_rcpt_set(slot, index, RCPT_WAITING, next_wall);
	index_change_end(queue->index, slot);
	return 0;
}

int queue_push_back(struct queue *queue, uint64_t id, int64_t next_wall)
{
	struct slot *slot = queue_find(queue, id);

	if (!slot)
		return ERR_NOT_FOUND;
	schedule_forget_list(queue, slot);
	index_change_begin(queue->index, slot);
	slot->flags &= (uint8_t)~SLOT_POPPED;
	for (uint32_t i = 0; i < slot->rcpt_count; i++) {
		const struct index_rcpt *rcpt = slot_rcpt(slot, i);
		if (rcpt_state(rcpt) == RCPT_WAITING && rcpt->next_wall < next_wall)
			slot_rcpt_set(slot, i, RCPT_WAITING, next_wall);
	}
	index_change_end(queue->index, slot);
	return 0;
}

bool queue_may_begin(const struct queue *queue, uint64_t id)
{
	const struct slot *slot = queue_find(queue, id);

	return slot && !(slot->flags & (SLOT_HELD | SLOT_DELETING)) && queue_may_deliver(queue);
}

int queue_set_inflight(struct queue *queue, uint64_t id, uint32_t count)
{
	struct slot *slot = queue_find(queue, id);

	if (!slot)
		return ERR_NOT_FOUND;
	index_change_begin(queue->index, slot);
	slot->inflight = (uint16_t)MIN(count, UINT16_MAX);
	index_change_end(queue->index, slot);
	if (slot->flags & SLOT_DELETING && slot->inflight == 0)
		return queue_delete(queue, id);
	return 0;
}

int queue_hasten(struct queue *queue, uint64_t id, uint32_t index, int64_t next_wall)
{
	struct slot *slot = queue_find(queue, id);

	if (!slot || index >= slot->rcpt_count)
		return ERR_NOT_FOUND;
	if (rcpt_state(slot_rcpt(slot, index)) != RCPT_WAITING || slot_rcpt(slot, index)->next_wall <= next_wall)
		return 0;
	index_change_begin(queue->index, slot);
	slot_rcpt_set(slot, index, RCPT_WAITING, next_wall);
	index_change_end(queue->index, slot);
	return 0;
}

int queue_flush(struct queue *queue, uint64_t id)
{
	struct slot *slot = queue_find(queue, id);
	int64_t now = clock_wall_ms(queue->options.clock);

	if (!slot)
		return ERR_NOT_FOUND;
	index_change_begin(queue->index, slot);
	for (uint32_t i = 0; i < slot->rcpt_count; i++)
		if (rcpt_state(slot_rcpt(slot, i)) == RCPT_WAITING)
			slot_rcpt_set(slot, i, RCPT_WAITING, MIN(now, slot_rcpt(slot, i)->next_wall));
	index_change_end(queue->index, slot);
	return 0;
}

/* ---- Waiting lines ---- */

void queue_list_init(struct queue_list *list, struct queue *queue)
{
	uint32_t number = queue->list_hint;

	while (number < queue->list_cap && queue->lists[number])
		number++;
	if (number == queue->list_cap) {
		queue->list_cap = queue->list_cap ? queue->list_cap * 2 : 64;
		queue->lists = xreallocarray(queue->lists, queue->list_cap, sizeof(queue->lists[0]));
		for (uint32_t i = number; i < queue->list_cap; i++)
			queue->lists[i] = NULL;
	}
	queue->lists[number] = list;
	queue->list_hint = number + 1;
	*list = (struct queue_list){.head = INDEX_NONE, .tail = INDEX_NONE, .number = number, .queue = queue};
}

void queue_list_fini(struct queue_list *list)
{
	uint64_t id;

	if (!list->queue)
		return;
	while (queue_list_pop(list, &id))
		;
	list->queue->lists[list->number] = NULL;
	list->queue->list_hint = MIN(list->queue->list_hint, list->number);
	list->queue = NULL;
}

void schedule_forget_list(struct queue *queue, struct slot *slot)
{
	struct queue_list *list;

	if (slot->list_number == INDEX_NONE)
		return;
	list = queue->lists[slot->list_number];
	if (slot->list_prev == INDEX_NONE)
		list->head = slot->list_next;
	else
		index_slot(queue->index, slot->list_prev)->list_next = slot->list_next;
	if (slot->list_next == INDEX_NONE)
		list->tail = slot->list_prev;
	else
		index_slot(queue->index, slot->list_next)->list_prev = slot->list_prev;
	list->count--;
	slot->list_number = slot->list_next = slot->list_prev = INDEX_NONE;
}

int queue_list_append(struct queue_list *list, uint64_t id)
{
	struct slot *slot = queue_find(list->queue, id);

	if (!slot)
		return ERR_NOT_FOUND;
	schedule_forget_list(list->queue, slot);
	slot->list_number = list->number;
	slot->list_prev = list->tail;
	slot->list_next = INDEX_NONE;
	if (slot->list_prev != INDEX_NONE)
		index_slot(list->queue->index, slot->list_prev)->list_next = slot->number;
	else
		list->head = slot->number;
	list->tail = slot->number;
	list->count++;
	return 0;
}

bool queue_list_pop(struct queue_list *list, uint64_t *id)
{
	struct slot *slot;

	if (list->head == INDEX_NONE)
		return false;
	slot = index_slot(list->queue->index, list->head);
	*id = slot->id;
	schedule_forget_list(list->queue, slot);
	return true;
}
