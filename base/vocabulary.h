/*
 * base/vocabulary.h - the one vocabulary of log, metrics, events, JSON, configuration and journal
 *
 * The numbers stand in the journal and never change; new words go to the end. The words are Contract.
 */
#ifndef BASE_VOCABULARY_H
#define BASE_VOCABULARY_H

#include "base/slice.h"

/* How a delivery attempt, or a recipient's life, ended. */
enum outcome_kind {
	OUTCOME_NONE = 0,  /* nothing has happened yet */
	OUTCOME_DELIVERED, /* the next hop answered 2xx to the final dot */
	OUTCOME_DEFERRED,  /* will be tried again */
	OUTCOME_FAILED,	   /* refused for good; the sender is told */
	OUTCOME_EXPIRED,   /* given up after its lifetime; the sender is told */
	OUTCOME_DELETED,   /* removed by an operator's command, or nobody is left to be told */
};

/* Why it was not delivered. */
enum failure_class {
	CLASS_NONE = 0,
	CLASS_GREYLIST, /* "come back later", said to strangers */
	CLASS_THROTTLE, /* too much, too fast */
	CLASS_AUTH,	/* our account at the relayhost is in trouble, not the message */
	CLASS_MAILBOX,	/* this mailbox: unknown, full, disabled */
	CLASS_POLICY,	/* the content or the sender is not wanted */
	CLASS_CONNECT,	/* no connection, or it broke */
	CLASS_DNS,	/* the domain or the resolver */
	CLASS_TLS,	/* no TLS that satisfies what is required */
	CLASS_OTHER,
	CLASS_COUNT,
};

/* Where a queued message stands. */
enum message_state {
	STATE_READY = 0, /* due; waits for its destination's turn */
	STATE_INFLIGHT,	 /* an attempt is under way */
	STATE_DEFERRED,	 /* waits for its next attempt */
	STATE_HELD,	 /* an operator holds it */
	STATE_COUNT,
};

/* How urgent a message is. */
enum message_class {
	MESSAGE_DEFAULT = 0,
	MESSAGE_TRANSACTIONAL,
	MESSAGE_BULK,
	MESSAGE_CLASS_COUNT,
};

/* The words; "none" for OUTCOME_NONE and CLASS_NONE. Static strings. */
const char *outcome_kind_name(enum outcome_kind kind);
const char *failure_class_name(enum failure_class class);
const char *message_state_name(enum message_state state);
const char *message_class_name(enum message_class class);
/* The reverse. False: no such word. */
bool message_class_parse(struct slice word, enum message_class *class);

#endif
