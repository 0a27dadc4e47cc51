/*
 * smtp/server_reply.h - replies of the server: a code, an enhanced code, and words that say what to do
 *
 * A value, made of static strings or borrowed ones. Formatting it (smtp/server.c does) gives lines of at most 512
 * octets in printable ASCII, each with code and enhanced code (RFC 2034 §4); whatever else stands in the text becomes
 * "?", so that nothing a client sent can forge a line.
 */
#ifndef SMTP_SERVER_REPLY_H
#define SMTP_SERVER_REPLY_H

#include "base/buf.h"

struct smtp_server_reply {
	int code;	      /* 200 .. 599. 421: the connection is closed behind it */
	const char *enhanced; /* "5.1.1"; NULL: none (220, 250 to EHLO, 3yz, and RFC 2034 §4) */
	const char *text;     /* "\n" separates lines */
};

/* Appends all lines with their CRLF; what is over 16 lines is left out. */
void smtp_server_reply_format(struct buf *out, const struct smtp_server_reply *reply);

#endif
