/*
 * smtp/content.h - what comes between 354 and the reply: from octets on the line to the octets of a message
 *
 * Finds the end, which is CRLF.CRLF and nothing else (RFC 5321 §4.1.1.4), takes away the dots that the client put in
 * (§4.5.2), and watches over what must not go on: bare CR and LF (the stuff of SMTP smuggling), NUL, and, if wanted,
 * lines of more than 998 octets. Works line by line with memchr(); cut anywhere, it gives the same octets.
 *
 * What it cannot decide yet (a CR, a dot or a dot and CR at the very end of the input) it does not take: the caller
 * keeps these at most two octets and hands them in again with what follows. So the state is small.
 *
 * NORMALIZE is for old programs that end lines with LF alone: a bare LF becomes CRLF, several CR count
 * as one, and a CR that no LF follows becomes a blank (never a line: a field value with a CR in it must not become two
 * fields). Such a program
 * doubles its dots after LF, so there a doubled dot is halved; a single one stays. The end is still CRLF.CRLF alone.
 */
#ifndef SMTP_CONTENT_H
#define SMTP_CONTENT_H

#include "base/slice.h"

enum content_bare_newlines { CONTENT_BARE_REJECT = 0, CONTENT_BARE_NORMALIZE };

enum content_flag {
	CONTENT_8BIT = 1,	  /* an octet over 127 */
	CONTENT_BARE_NEWLINE = 2, /* a CR or LF that is not in CRLF; with NORMALIZE it has been dealt with */
	CONTENT_NUL = 4,
	CONTENT_LONG_LINE = 8, /* over 998 octets without CRLF */
};

/* Embedded; zeroed by content_init(). */
struct content {
	enum content_bare_newlines bare_newlines;
	bool mid_line;	 /* the next octet does not begin a line */
	bool after_bare; /* it begins a line, but behind a bare LF */
	uint64_t bytes;	 /* given out: the size of the message */
	uint64_t line_bytes;
	unsigned flags; /* enum content_flag */
};

enum content_status {
	CONTENT_MORE,  /* nothing more can be decided: *taken octets are done with */
	CONTENT_PIECE, /* *piece is the next part of the message; call again for the rest of the input */
	CONTENT_END,   /* the end was the last that was taken */
};

void content_init(struct content *content, enum content_bare_newlines bare_newlines);
/* Takes *taken octets from the front of `in`. The piece lies in `in` or is static; it is never empty. */
enum content_status content_next(struct content *content, struct slice in, size_t *taken, struct slice *piece);

#endif
