/*
 * smtp/dsn_internal.h - the parts of a DSN; only dsn*.c include it
 *
 *   dsn.c         header, boundary, the returned message
 *   dsn_words.c   the part for people
 *   dsn_status.c  the part for programs
 */
#ifndef SMTP_DSN_INTERNAL_H
#define SMTP_DSN_INTERNAL_H

#include "base/base.h"
#include "smtp/dsn.h"

enum { DSN_PEER_TEXT_BYTES = 500 };

/* Appends, and remembers when something did not fit. */
struct dsn_writer {
	struct buf *out;
	bool is_full;
};

void dsn_put(struct dsn_writer *w, struct slice bytes);
void dsn_put_str(struct dsn_writer *w, const char *text);
void dsn_printf(struct dsn_writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Date and time, or nothing when `wall_ms` is 0. */
void dsn_put_date(struct dsn_writer *w, const char *label, int64_t wall_ms);
/* `text` broken at blanks so that lines stay under 78 columns; each line after the first begins with `indent`, which
 * may hold a CRLF of its own making only at its start. `column`: where the first line stands already. */
void dsn_put_wrapped(struct dsn_writer *w, const char *text, const char *indent, size_t column);
/* RFC 2045 §6.7; lines end with CRLF. */
void dsn_put_quoted_printable(struct dsn_writer *w, struct slice text);

/* Printable, one line, at most DSN_PEER_TEXT_BYTES; with `ascii` nothing over 127. */
void dsn_clean(char out[DSN_PEER_TEXT_BYTES + 1], struct slice text, bool ascii);

/* "5.1.1", or "" when that is no such code. */
const char *dsn_enhanced(const struct outcome *outcome);
/* The same as a part of the remote reply: "" when it contradicts the reply's code. */
const char *dsn_reply_enhanced(const struct outcome *outcome);

/* The whole parts, without boundary. `told`: so many recipients are told one by one, the rest is counted. */
void dsn_put_words(struct dsn_writer *w, const struct dsn *dsn, size_t told, bool returned_whole);
/* `utf8`: RFC 6533's message/global-delivery-status. */
void dsn_put_status(struct dsn_writer *w, const struct dsn *dsn, size_t told, bool utf8);

#endif
