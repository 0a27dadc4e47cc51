/*
 * smtp/encoded_word.h - words of a header field that are not ASCII (RFC 2047)
 *
 * Writing is UTF-8 in the "Q" encoding, which people can half read. Reading is for comparing alone: it takes UTF-8,
 * ISO-8859-1 and US-ASCII in both encodings and leaves everything else as it stands.
 */
#ifndef SMTP_ENCODED_WORD_H
#define SMTP_ENCODED_WORD_H

#include "base/buf.h"

enum { ENCODED_WORD_MAX_CHARS = 75 }; /* RFC 2047 section 2 */

/* Appends `text` (valid UTF-8, one line) as encoded words, parted by foldings. The buffer has room. */
void encoded_word_write(struct buf *out, struct slice text);
/* Appends an unstructured field's body in UTF-8, unfolded. What does not fit is left out. */
void encoded_word_read(struct buf *out, struct slice body);

#endif
