/*
 * relayd/event.h - what the webhook is told, as JSON, one object an event
 *
 * The keys and words are those of the log (base/vocabulary.h); relayd.yaml(5) lists them. An event_id is made of what
 * the event is about (message, recipient, attempt, outcome), so one that is made again after a crash is known again.
 */
#ifndef RELAYD_EVENT_H
#define RELAYD_EVENT_H

#include "base/buf.h"
#include "base/outcome.h"
#include "queue/queue.h"

enum { EVENT_MAX_BYTES = 32 * 1024 };

/* What became of a recipient in an attempt; all borrowed. */
struct event_outcome {
	const struct queue_message *message;
	uint32_t recipient;
	const struct outcome *outcome;
	const char *relayhost; /* "": none */
	uint32_t attempts;
	int64_t next_wall; /* deferred only */
	int64_t now_wall;
};

struct event_alert {
	const char *relay; /* our host name */
	const char *alert, *text;
	bool is_active; /* it begins; else it is over */
	int64_t since_wall, now_wall;
};

/* Appends one object without a line end. ERR_LIMIT: there is no room, nothing useful was appended. */
int event_put_outcome(struct buf *out, const struct event_outcome *event);
int event_put_alert(struct buf *out, const struct event_alert *event);

#endif
