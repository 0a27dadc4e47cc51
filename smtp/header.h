/*
 * smtp/header.h - where a message's header ends, and the fields in it
 *
 * THE SCANNER is fed the content as it comes, cut anywhere, and gathers the header block until it knows where it ends:
 *   - at the empty line,
 *   - at a line that is no header field and no continuation of one: the body begins there, nothing is lost (RFC 5322
 *     §2.2 wants an empty line; senders forget it),
 *   - at the end of the content.
 * A field line is a name of printable ASCII without ":" (RFC 5322 §2.2), blanks perhaps (§4.5.8), and ":". Lines that
 * begin with a blank continue the field before. A first line of the mbox format ("From joe Tue Nov 25 ...") is no part
 * of a message and is set aside. The block lives in the scanner's memory, once.
 *
 *     header_scanner_init(&scan, HEADER_BLOCK_MAX_BYTES);
 *     each piece:  status = header_scanner_input(&scan, piece, &taken);    // taken < piece.len: the rest is body
 *     at the end:  header_scanner_end(&scan);                              // for contents without a body
 *     once it is not HEADER_MORE:  header_scanner_block(), header_scanner_leftover(), then the pieces' rest
 *     header_scanner_fini(&scan);
 *
 * THE FIELDS are cut out of a block by header_next_field(), in one linear pass without memory; ask as often as needed.
 *
 * Lines end with CRLF; a bare CR or LF is an octet like others (smtp/content.h has dealt with them).
 */
#ifndef SMTP_HEADER_H
#define SMTP_HEADER_H

#include "base/buf.h"

enum {
	HEADER_BLOCK_MAX_BYTES = 256 * 1024, /* a ceiling that suits most: an address list of 5,000 needs 200 KiB */
	HEADER_NAME_MAX_BYTES = 998,	     /* a longer "name" is no field (RFC 5322 §2.1.1) */
};

enum header_status {
	HEADER_MORE,	 /* the block has not ended yet */
	HEADER_COMPLETE, /* it has */
	HEADER_TOO_LONG, /* it is longer than allowed: refuse the message (552 5.3.4) */
};

enum header_end {
	HEADER_END_EMPTY_LINE, /* the separator was there, and was taken: it is in neither block nor leftover */
	HEADER_END_NO_FIELD,   /* the first line of the body is no field */
	HEADER_END_CONTENT,    /* the content ended: no body */
};

/* Embedded; all of it is private. */
struct header_scanner {
	struct buf block;
	enum header_status status;
	enum header_end end;
	size_t line;	 /* where in `block` the current line begins */
	size_t examined; /* up to where it has been looked at without result */
	bool is_judged;	 /* the current line belongs to the header */
	bool had_mbox;	 /* one was set aside */
	uint32_t field_count;
};

void header_scanner_init(struct header_scanner *scan, size_t max_bytes);
void header_scanner_fini(struct header_scanner *scan);

/* Takes from the front of `content` what belongs to the header; *taken is all of it while HEADER_MORE. */
enum header_status header_scanner_input(struct header_scanner *scan, struct slice content, size_t *taken);
/* The content is over. Never HEADER_MORE. */
enum header_status header_scanner_end(struct header_scanner *scan);

/* The fields with their CRLFs, without the empty line; a last line without CRLF (the content ended in it) lacks it.
 * Valid until the scanner changes; so is the next one. */
struct slice header_scanner_block(const struct header_scanner *scan);
/* Octets that were taken but belong to the front of the body. */
struct slice header_scanner_leftover(const struct header_scanner *scan);

uint32_t header_scanner_field_count(const struct header_scanner *scan);

/* One field. Slices lie in the block. */
struct header_field {
	struct slice raw;  /* name to final CRLF, with foldings */
	struct slice name; /* without blanks and colon */
	struct slice body; /* behind the colon, with foldings, without the final CRLF */
};

/* The next field from the front of *block; false: it is empty. What is no field (in bytes that no scanner has judged)
 * is given with an empty name. */
bool header_next_field(struct slice *block, struct header_field *out);
/* The first of that name (in any case). */
bool header_find_field(struct slice block, struct slice name, struct header_field *out);

#endif
