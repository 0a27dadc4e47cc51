#include "base/log_repeat.h"

#include "base/base.h"

/* The slot of this key, or a free one for it; NULL: there is none. */
static struct log_repeat *find(struct log_repeat *slots, unsigned count, uint64_t key, int64_t now_ms)
{
	struct log_repeat *free_slot = NULL;

	for (unsigned i = 0; i < count; i++) {
		struct log_repeat *slot = &slots[i];
		bool is_over = slot->until_ms <= now_ms && slot->count == 0;
		if (slot->key == key && !is_over)
			return slot;
		if (is_over && !free_slot)
			free_slot = slot;
	}
	if (free_slot)
		*free_slot = (struct log_repeat){.key = key, .until_ms = now_ms + LOG_REPEAT_WINDOW_MS};
	return free_slot;
}

struct log_repeat *log_repeats_count(struct log_repeats *repeats, uint64_t key, uint64_t event_key, int64_t now_ms)
{
	struct log_repeat *slot;

	if (repeats->burst == 0)
		return NULL;
	slot = find(repeats->keys, LOG_REPEAT_KEYS, key, now_ms);
	if (!slot)
		slot = find(repeats->events, LOG_REPEAT_EVENTS, event_key, now_ms);
	if (!slot)
		return NULL;
	if (slot->written < repeats->burst) {
		slot->written++;
		return NULL;
	}
	slot->count++;
	repeats->next_ms = MIN(repeats->next_ms, slot->until_ms);
	return slot;
}

struct log_repeat *log_repeats_due(struct log_repeats *repeats, int64_t now_ms)
{
	if (now_ms < repeats->next_ms)
		return NULL;
	repeats->next_ms = INT64_MAX;
	for (unsigned i = 0; i < LOG_REPEAT_KEYS + LOG_REPEAT_EVENTS; i++) {
		struct log_repeat *slot =
		    i < LOG_REPEAT_KEYS ? &repeats->keys[i] : &repeats->events[i - LOG_REPEAT_KEYS];
		if (slot->count == 0)
			continue;
		if (slot->until_ms <= now_ms) {
			repeats->next_ms = 0; /* there may be another */
			slot->until_ms = 0;
			return slot;
		}
		repeats->next_ms = MIN(repeats->next_ms, slot->until_ms);
	}
	return NULL;
}
