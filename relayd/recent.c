#include "relayd/recent.h"

#include "base/base.h"

#include <stdlib.h>

struct recent {
	struct recent_entry entries[RECENT_MAX];
	char *memory[RECENT_MAX]; /* one block with all strings of an entry */
	size_t next;
};

struct recent *recent_new(void)
{
	return xcalloc(1, sizeof(struct recent));
}

void recent_free(struct recent **recent)
{
	if (!*recent)
		return;
	for (size_t i = 0; i < RECENT_MAX; i++)
		free((*recent)->memory[i]);
	free(*recent);
	*recent = NULL;
}

static const char *put(char **at, struct slice text)
{
	char *start = *at;

	if (text.len)
		memcpy(start, text.ptr, text.len);
	start[text.len] = '\0';
	*at += text.len + 1;
	return start;
}

void recent_add(struct recent *recent, const struct queue_message *message, uint32_t recipient,
		const struct outcome *outcome, uint32_t attempts, int64_t now_wall)
{
	const struct queue_envelope *envelope = &message->envelope;
	const struct slice texts[] = {envelope->sender,
				      envelope->recipients[recipient].address,
				      envelope->user,
				      envelope->client,
				      envelope->message_id,
				      slice_of_str(outcome->host),
				      slice_of_str(outcome->text),
				      envelope->tag};
	struct recent_entry *entry = &recent->entries[recent->next];
	size_t size = 0;
	char *at;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		size += texts[i].len + 1;
	free(recent->memory[recent->next]);
	recent->memory[recent->next] = at = xmalloc(size);
	recent->next = (recent->next + 1) % RECENT_MAX;

	*entry = (struct recent_entry){.id = message->id,
				       .at_wall = now_wall,
				       .arrived_wall = envelope->arrived_wall,
				       .bytes = message->content_bytes,
				       .attempts = attempts,
				       .kind = outcome->kind,
				       .class = outcome->class,
				       .stage = outcome->stage,
				       .message_class = envelope->class,
				       .code = outcome->code};
	memcpy(entry->enhanced, outcome->enhanced, sizeof(entry->enhanced));
	entry->sender = put(&at, texts[0]);
	entry->recipient = put(&at, texts[1]);
	entry->user = put(&at, texts[2]);
	entry->client = put(&at, texts[3]);
	entry->message_id = put(&at, texts[4]);
	entry->host = put(&at, texts[5]);
	entry->text = put(&at, texts[6]);
	entry->tag = put(&at, texts[7]);
}

const struct recent_entry *recent_find(const struct recent *recent, uint64_t id, const struct recent_entry *previous)
{
	/* Steps from the oldest, which stands where the next one will. */
	size_t step =
	    previous ? ((size_t)(previous - recent->entries) + RECENT_MAX - recent->next) % RECENT_MAX + 1 : 0;

	for (; step < RECENT_MAX; step++) {
		const struct recent_entry *entry = &recent->entries[(recent->next + step) % RECENT_MAX];
		if (entry->kind != OUTCOME_NONE && entry->id == id)
			return entry;
	}
	return NULL;
}
