/*
 * relayd/drain.h - stop accepting, deliver what waits, then stop: before a machine or container goes for good
 *
 * It is over when nothing waits but what an operator holds, or when its time is; then the daemon stops as after
 * SIGTERM, and what is left stays in the journal. A drain cannot be taken back.
 */
#ifndef RELAYD_DRAIN_H
#define RELAYD_DRAIN_H

#include "base/log.h"
#include "queue/queue.h"
#include "relayd/loop.h"

struct drain;

struct drain_options {
	struct loop *loop;
	struct queue *queue;
	struct log *log;
	void *ctx;
	/* No new mail; what is being submitted may finish. */
	void (*stop_intake)(void *ctx);
	bool (*is_intake_quiet)(void *ctx);
	/* The daemon stops. */
	void (*stop)(void *ctx);
};

/* Options are copied. */
struct drain *drain_new(const struct drain_options *options);
void drain_free(struct drain **drain);
/* `timeout_ms` from now; when it has begun already, the earlier end counts. */
void drain_begin(struct drain *drain, int64_t timeout_ms);

struct drain_progress {
	bool has_begun, is_over;
	uint64_t left; /* messages that can be delivered */
	uint64_t held;
};
/* Once it is over the numbers stay as they were then; the daemon stops a moment later. */
void drain_look(const struct drain *drain, struct drain_progress *out);

#endif
