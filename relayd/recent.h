/*
 * relayd/recent.h - messages that left the queue lately, so that `relayctl show` and `send` can tell what became of
 * them
 *
 * A ring in memory, bounded; a convenience, never a record: the log and the events are that.
 */
#ifndef RELAYD_RECENT_H
#define RELAYD_RECENT_H

#include "queue/queue.h"

enum { RECENT_MAX = 512 };

struct recent;

/* One recipient's end. Strings are the ring's, valid until the next recent_add(). */
struct recent_entry {
	uint64_t id;
	int64_t at_wall, arrived_wall;
	uint64_t bytes;
	uint32_t attempts;
	enum outcome_kind kind;
	enum failure_class class;
	enum delivery_stage stage;
	enum message_class message_class;
	int code;
	char enhanced[12];
	const char *sender, *recipient, *user, *client, *message_id, *tag, *host, *text;
};

struct recent *recent_new(void);
void recent_free(struct recent **recent);
void recent_add(struct recent *recent, const struct queue_message *message, uint32_t recipient,
		const struct outcome *outcome, uint32_t attempts, int64_t now_wall);
/* The entry of this id after `previous` (NULL: the first), in the order of their ends; NULL: no more. */
const struct recent_entry *recent_find(const struct recent *recent, uint64_t id, const struct recent_entry *previous);

#endif
