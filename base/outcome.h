/*
 * base/outcome.h - what became of a recipient, as one value
 *
 * Made once, by relayd/outcome.c, from a reply, a TLS, DNS or network fault; it goes unchanged into the journal, the
 * log, metrics, events, the webhook and the DSN. Strings are NUL-terminated and "" rather than missing.
 */
#ifndef BASE_OUTCOME_H
#define BASE_OUTCOME_H

#include "base/vocabulary.h"

/* What was being done when it ended. The numbers stand in the journal; new ones go to the end. */
enum delivery_stage {
	STAGE_NONE = 0,
	STAGE_ROUTE,	/* choosing the next hop: suppressed, loop, no route */
	STAGE_DNS,	/* MX and address lookups */
	STAGE_CONNECT,	/* TCP */
	STAGE_GREETING, /* 220 and EHLO */
	STAGE_TLS,
	STAGE_AUTH,
	STAGE_MAIL,
	STAGE_RCPT,
	STAGE_DATA,  /* from DATA or BDAT to the last byte of content */
	STAGE_DOT,   /* waiting for the reply to the final dot: the message may have been taken */
	STAGE_QUEUE, /* expired, deleted, bounced by an operator */
	STAGE_COUNT,
};

struct outcome {
	enum outcome_kind kind;
	enum failure_class class; /* CLASS_NONE when delivered */
	enum delivery_stage stage;
	int code;	   /* basic reply code, 0: no reply */
	char enhanced[12]; /* "5.1.1" */
	char host[256];	   /* the next hop as "name[address]" */
	char text[512];	   /* reply text, or what happened; printable ASCII or UTF-8, one line */
};

const char *delivery_stage_name(enum delivery_stage stage);

#endif
