/*
 * How much a next hop was promised to see at most: so many messages in any stretch of so much time.
 *
 * Kept outside the relay, and stricter than it needs to be: it remembers each message.
 */
#ifndef TEST_SIM_METER_H
#define TEST_SIM_METER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct meter {
	unsigned count; /* 0: no limit */
	int64_t per_ms;
	int64_t slack_ms; /* so much shorter may the stretch be: what a connection takes to begin */
	int64_t *times;	  /* of the messages that count, in order */
	size_t seen, cap;
};

void meter_init(struct meter *meter, unsigned count, int64_t per_ms, int64_t slack_ms);
void meter_fini(struct meter *meter);
/* A message went out at that time, which may be before others that were noted. False: one too many went out around it. */
bool meter_note(struct meter *meter, int64_t at_ms);
/* The relay crashed: what went out since then it may have forgotten, and does not count. */
void meter_forgive(struct meter *meter, int64_t since_ms);

#endif
