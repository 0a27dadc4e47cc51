/*
 * dkim/canon.h - canonical forms of header fields and bodies (RFC 6376 section 3.4)
 *
 * relayd signs relaxed/relaxed; "simple" is here for checks of published examples and for verification. Input is mail
 * as it stands on the wire: lines end in CRLF. A CR or LF that stands alone is an ordinary octet.
 *
 * Everything is one pass and linear; the body's form is made while the body arrives, from pieces cut anywhere, with a
 * few octets of state.
 */
#ifndef DKIM_CANON_H
#define DKIM_CANON_H

#include "base/buf.h"

enum dkim_canon {
	DKIM_CANON_RELAXED = 0,
	DKIM_CANON_SIMPLE,
};

/* "relaxed", "simple": as in the c= tag. */
const char *dkim_canon_name(enum dkim_canon canon);

/* Takes the next octets of a canonical form; they are valid during the call only. Never called with none. */
typedef void dkim_canon_sink(void *ctx, struct slice bytes);

/* A body under way. Plain data: copy it to fork a body. */
struct dkim_body_canon {
	enum dkim_canon canon;
	bool has_content;	     /* something has been given out */
	uint64_t pending_crlf_count; /* line ends held back: they count only when something follows */
	bool pending_wsp;	     /* relaxed: a run of blanks held back, likewise */
	bool pending_cr;	     /* a CR whose LF may be in the next piece */
};

void dkim_body_canon_init(struct dkim_body_canon *body, enum dkim_canon canon);
/* The next piece of the body, after dot-unstuffing. */
void dkim_body_canon_update(struct dkim_body_canon *body, struct slice piece, dkim_canon_sink *sink, void *ctx);
/* The end of the body: a last line without CRLF gets one. An empty body gives nothing (relaxed) or CRLF (simple).
 * Leaves `body` as after init. */
void dkim_body_canon_final(struct dkim_body_canon *body, dkim_canon_sink *sink, void *ctx);

/*
 * Appends the canonical form of one header field, ending in CRLF. `raw`: name, colon, value with its foldings; a final
 * CRLF is optional. Relaxed: name in lower case, no blanks around the colon, unfolded, runs of blanks as one SP, none
 * at the end. Never more than raw.len + 2 octets.
 *
 * ERR_SYNTAX: there is no colon; ERR_LIMIT: over the ceiling of `out`, which then may hold a part.
 */
int dkim_canon_field(struct buf *out, enum dkim_canon canon, struct slice raw);

#endif
