/*
 * The other end of the client machine, for its tests: a player of transcripts, and a small server that can be told to
 * misbehave at any reply.
 */
#ifndef SUPPORT_PEER_H
#define SUPPORT_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "smtp/client.h"

/*
 * A TRANSCRIPT is lines, each beginning with
 *
 *   S:  a line of the server; neighbours arrive together, but cut as the run wants it. "S." is one without line end.
 *       "\r", "\n", "\xHH" and "\\" stand for octets
 *   C:  a line of the client, content included
 *   =   an event, in the words of peer_describe()
 *   >   something the host does: "send N" (transaction N), "quit", "eof [WHY]", "tick MS" (milliseconds later), "tls",
 *       "tlsfail TEXT", "abort TEXT", "feed N" (octets of content), "end" (of the content), "feed N end", "eof+send N"
 *
 * Between two things that the server or the host does, the lines and the events of the client must be exactly those
 * written, each in their order.
 */
struct peer_setup {
	struct smtp_client_options options;
	const struct smtp_transaction *transactions;
	const char *content;	   /* NULL: "Subject: x\r\n\r\nhello\r\n" */
	size_t content_len;	   /* 0: strlen(content) */
	bool keeps_body_to_itself; /* the host feeds nothing */
	/* At the end of each run. */
	void (*check)(struct smtp_client *client);
};

/* Plays it whole, octet by octet in both directions, and cut in two at every position of what the server sends. */
void peer_play(const struct peer_setup *setup, const char *transcript);

/* "result 0 replied rcpt 550 5.1.1 no such user", "done reusable", "failed lost dot 0 connection lost ... +taken". */
void peer_describe(const struct smtp_client_event *event, char *out, size_t size);

#endif
