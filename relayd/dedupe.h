/*
 * relayd/dedupe.h - messages that were taken a short while ago, so that one which is sent again is recognised
 *
 * A client that lost its connection before the 250 cannot know whether its message was taken, and sends it again. Who
 * takes a message claims its key first; the claim is settled when the message is on stable storage, or never will be.
 * A second one with the same key hears the first one's id, but not before the first is settled; if the first fails, the
 * second takes its place. A claim outlives the session that made it: that is the case this is for.
 *
 * Memory: at most DEDUPE_SETTLED_MAX settled keys of some 150 octets, the oldest are forgotten first; a claim under way
 * is never forgotten. Nothing is stored: after a restart the window starts empty.
 */
#ifndef RELAYD_DEDUPE_H
#define RELAYD_DEDUPE_H

#include "base/clock.h"
#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>

enum { DEDUPE_KEY_BYTES = 32, DEDUPE_SETTLED_MAX = 65536 };

struct dedupe;
struct dedupe_claim;

/* The clock is borrowed. Off at first. */
struct dedupe *dedupe_new(const struct clock *clock);
/* Claims under way go too, their waiters hear nothing: freed when nobody can call back any more. Accepts NULL. */
void dedupe_free(struct dedupe **dedupe);
/* 0: off, all that is settled is forgotten. */
void dedupe_configure(struct dedupe *dedupe, int64_t window_ms);
bool dedupe_is_on(const struct dedupe *dedupe);

/* Embedded in who waits. */
struct dedupe_waiter {
	struct list node;
	void (*on_settled)(void *ctx, uint64_t id); /* id 0: the first one failed; claim again */
	void *ctx;
};

enum dedupe_answer {
	DEDUPE_FIRST,	 /* *claim is the caller's: settle it */
	DEDUPE_REPEATED, /* *first_id has it */
	DEDUPE_UNDERWAY, /* `waiter` will be called once, out of dedupe_settle(); or cancel it */
};

/* `waiter` is filled in by the caller, its node initialised. */
enum dedupe_answer dedupe_ask(struct dedupe *dedupe, const unsigned char key[DEDUPE_KEY_BYTES],
			      struct dedupe_claim **claim, uint64_t *first_id, struct dedupe_waiter *waiter);
/* id 0: it was not taken. Sets *claim to NULL, accepts NULL. Calls the waiters, which may ask again. */
void dedupe_settle(struct dedupe_claim **claim, uint64_t id);
/* Harmless when it waits for nothing (its node must have been initialised). */
void dedupe_cancel(struct dedupe_waiter *waiter);

/* Who made the claim, kept for its owner's callbacks; NULL at first, and again when the owner is gone. */
void dedupe_claim_set_owner(struct dedupe_claim *claim, void *owner);
void *dedupe_claim_owner(const struct dedupe_claim *claim);

/* Settled keys. */
unsigned dedupe_count(const struct dedupe *dedupe);

#endif
