/*
 * smtp/reply.h - replies of an SMTP server, cut out of a stream of bytes (RFC 5321 §4.2)
 *
 * Used by smtp/client.c, and wherever a reply must be read. Embedded (init/fini), no sockets, linear time whatever the
 * cuts between the reads.
 *
 * A REPLY is one or more lines "250-text" ended by one "250 text" or "250" alone. Codes begin with 2, 3, 4 or 5; other
 * digits are not judged (571 is in use). All lines of a reply carry the same code.
 * A LINE ends at LF; one CR before it belongs to the line end. That is the only tolerance, and the same everywhere: a
 * CR elsewhere is text.
 * BROKEN (-1) is anything else: no code, "25", "250x", an empty line, "999", different codes, more than 100 lines or
 * 64 KiB. The stream cannot be read any further then; every later call says -1.
 * ENHANCED codes (RFC 3463) count only when their class fits the basic code; otherwise they stay in the text.
 */
#ifndef SMTP_REPLY_H
#define SMTP_REPLY_H

#include "base/buf.h"

enum {
	SMTP_REPLY_LINES_MAX = 100,
	SMTP_REPLY_BYTES_MAX = 64 * 1024, /* all lines of one reply */
	SMTP_REPLY_TEXT_MAX = 500,	  /* octets kept of the text for people */
};

/* Pure data, what people and outcome.c look at. */
struct smtp_reply {
	int code;	   /* 200 .. 599; 0: there was no reply */
	char enhanced[12]; /* "5.1.1", "" when there is none that fits */
	char text[SMTP_REPLY_TEXT_MAX +
		  1]; /* see smtp_reply_append_text(); lines joined by a blank, without the codes */
};

struct smtp_reply_parser {
	struct buf raw;				  /* the lines so far, without line ends */
	uint32_t line_ends[SMTP_REPLY_LINES_MAX]; /* offsets into raw */
	uint32_t line_count;			  /* complete ones */
	uint32_t bytes;				  /* of this reply, as they came */
	int code;				  /* of the first line */
	bool is_done;				  /* the next byte begins a new reply */
	const char *broken;			  /* why the stream is broken; static */
};

void smtp_reply_parser_init(struct smtp_reply_parser *parser);
void smtp_reply_parser_fini(struct smtp_reply_parser *parser);
/* Forgets a half-read reply and a broken stream: for a new one (after STARTTLS). */
void smtp_reply_parser_reset(struct smtp_reply_parser *parser);

/* Takes bytes from the front of *input. 1: a reply is complete and in *reply, the rest of *input lies behind it. 0: all
 * was taken, more is needed. -1: broken; `why` (may be NULL) gets a static string that says in words what is wrong. */
int smtp_reply_parse(struct smtp_reply_parser *parser, struct slice *input, struct smtp_reply *reply, const char **why);

/* Some bytes of a reply have come, but not all. */
bool smtp_reply_is_partial(const struct smtp_reply_parser *parser);

/* The lines of the reply that was completed last, as they came (hostile bytes, without code, separator and line end);
 * valid until the next byte is parsed. Line 0 of an EHLO reply names the server, the others are keywords. */
size_t smtp_reply_line_count(const struct smtp_reply_parser *parser);
struct slice smtp_reply_line(const struct smtp_reply_parser *parser, size_t index);

/*
 * Makes a peer's bytes fit for logs, reports and terminals: one line; printable ASCII and well-formed UTF-8 stay, a
 * tabulator becomes a blank, all else (see base/utf8.h)
 * becomes "\xHH". Appends to `out`, which holds `size` bytes and is NUL-terminated; what does not fit is cut between
 * characters and ends with "...". False: it was cut.
 */
bool smtp_reply_append_text(char *out, size_t size, struct slice bytes);

/* A reply that did not come from a server: for results that are decided here. */
void smtp_reply_set(struct smtp_reply *reply, int code, const char *enhanced, const char *text);

/* 2, 3, 4 or 5; 0: no reply. */
static inline int smtp_reply_class(const struct smtp_reply *reply)
{
	return reply->code / 100;
}

#endif
