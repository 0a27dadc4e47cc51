/* What the tests of the scheduler have in common: outcomes, and steps that take a turn of the relay. */
#ifndef SUPPORT_SCHEDULER_H
#define SUPPORT_SCHEDULER_H

#include "support_relay.h"

static const int64_t hour_ms = 3600 * 1000;

static inline struct outcome refused(const char *text)
{
	return outcome_like(OUTCOME_FAILED, CLASS_MAILBOX, STAGE_RCPT, 550, "5.1.1", text);
}

static inline struct outcome put_off(const char *text)
{
	return outcome_like(OUTCOME_DEFERRED, CLASS_OTHER, STAGE_RCPT, 451, "4.3.0", text);
}

static inline uint64_t submit(struct relay *relay, const char *recipients)
{
	uint64_t id = relay_submit(relay, "app@example.org", recipients);

	relay_turn(relay);
	return id;
}

static inline void close_all(struct relay *relay)
{
	relay_close_all(relay);
	relay_turn(relay);
}

#endif
