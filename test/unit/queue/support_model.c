#include "support_model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void model_violation(struct run *run, const char *format, ...)
{
	va_list args;

	if (run->result->violated)
		return;
	run->result->violated = true;
	run->result->at_step = run->step;
	va_start(args, format);
	vsnprintf(run->result->text, sizeof(run->result->text), format, args);
	va_end(args);
	if (run->trace)
		printf("VIOLATION %s\n", run->result->text);
}

void model_say(const struct run *run, const char *format, ...)
{
	va_list args;

	if (!run->trace)
		return;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
}

/* ---- what is durable ---- */

void model_record(struct run *run, struct recorded *recorded, uint32_t value)
{
	recorded->seq = ++run->seq;
	recorded->value = value;
}

bool model_is_durable(const struct run *run, const struct recorded *recorded)
{
	return recorded->seq <= run->durable_seq;
}

uint32_t model_must_be(const struct run *run, const struct recorded *recorded)
{
	return model_is_durable(run, recorded) ? recorded->value : recorded->durable_value;
}

static void settle_recorded(const struct run *run, struct recorded *recorded)
{
	if (model_is_durable(run, recorded))
		recorded->durable_value = recorded->value;
}

/* What has become durable is remembered, so that a later change that is not does not hide it. */
static void settle(struct run *run)
{
	for (uint32_t i = 0; i < run->message_count; i++) {
		struct model_message *message = &run->messages[i];
		settle_recorded(run, &message->held);
		settle_recorded(run, &message->warned);
		settle_recorded(run, &message->deleted);
		for (uint32_t r = 0; r < message->rcpt_count; r++) {
			settle_recorded(run, &message->rcpts[r].final);
			settle_recorded(run, &message->rcpts[r].attempts);
		}
	}
}

void model_look_at_durability(struct run *run)
{
	if (!run->queue || run->disk.is_dead || journal_unsynced_bytes(run->queue->journal) > 0)
		return;
	if (run->durable_seq < run->seq) {
		run->durable_seq = run->seq;
		settle(run);
	}
}

/* ---- messages ---- */

struct model_message *model_by_id(struct run *run, uint64_t id)
{
	for (uint32_t i = run->message_count; i > 0; i--)
		if (run->messages[i - 1].id == id)
			return &run->messages[i - 1];
	return NULL;
}

bool model_all_final(const struct model_message *message)
{
	for (uint32_t r = 0; r < message->rcpt_count; r++)
		if (message->rcpts[r].final.value == 0)
			return false;
	return true;
}

bool model_all_final_durable(const struct run *run, const struct model_message *message)
{
	for (uint32_t r = 0; r < message->rcpt_count; r++)
		if (model_must_be(run, &message->rcpts[r].final) == 0)
			return false;
	return true;
}

bool model_is_alive(const struct model_message *message)
{
	return message->life == LIFE_ACKED && !message->is_lost && message->deleted.value == 0 &&
	       !model_all_final(message);
}

bool model_is_excused(const struct run *run, const struct model_message *message)
{
	return message->is_lost || (message->is_hit && run->told > 0);
}

struct model_message *model_choose_alive(struct run *run, uint32_t a)
{
	for (uint32_t i = 0; i < run->message_count; i++) {
		struct model_message *message = &run->messages[(a + i) % run->message_count];
		if (model_is_alive(message))
			return message;
	}
	return NULL;
}

void model_use_id(struct run *run, uint64_t id)
{
	for (uint32_t i = 0; i < run->id_count; i++)
		if (run->ids_used[i] == id)
			model_violation(run, "ID USED TWICE");
	if (run->id_count < ARRAY_LEN(run->ids_used))
		run->ids_used[run->id_count++] = id;
}

void model_on_commit(void *ctx, uint64_t id, enum err_code code)
{
	struct run *run = ctx;
	struct model_message *message = model_by_id(run, id);

	if (run->disk.is_dead)
		return;
	if (!message || message->life != LIFE_PENDING) {
		model_violation(run, "ANSWERED TWICE, OR FOR NOTHING");
		return;
	}
	if (code == 0) {
		message->life = LIFE_ACKED;
		run->result->acked++;
		run->durable_seq = MAX(run->durable_seq, message->commit_seq);
		settle(run);
		model_say(run, "        250 for message %u\n", (unsigned)(message - run->messages));
	} else {
		message->life = LIFE_REFUSED;
		message->refused_at_syncs = run->disk.syncs_ok;
		model_say(run, "        %d for message %u\n", code, (unsigned)(message - run->messages));
	}
}

void model_abort_upload(struct model_upload *upload)
{
	queue_upload_abort(&upload->upload);
	free(upload->content);
	*upload = (struct model_upload){0};
}

void model_close_readers(struct run *run)
{
	for (uint32_t i = 0; i < READERS_MAX; i++)
		queue_content_close(&run->readers[i].content);
}
