/*
 * smtp/dsn.h - the text of a delivery status notification (RFC 3461 §6, 3462/6522, 3463, 3464, 6533)
 *
 * Used by relayd/bounce: facts in, a complete message out (header and body, CRLF, no dot-stuffing), to be queued with
 * the null reverse-path. Whether one is due (NOTIFY, null sender, bounce.mode) is the caller's decision.
 *
 *   multipart/report; report-type=delivery-status
 *     1  text/plain                  what happened, to whom, what the remote host said, what to do; for people
 *     2  message/delivery-status     the same for programs
 *     3  message/rfc822              the message itself (RET=FULL and not too large), else
 *        text/rfc822-headers         its header
 *
 * 7-BIT   Everything is 7-bit where that can be had: header and text are encoded, UTF-8 addresses take RFC 6533's form
 *         \x{HEX}. Only a message returned whole may be 8-bit, and for a sender with a UTF-8 address the parts take RFC
 *         6533's global forms, 8-bit: the result says what the DSN needs of its next hop.
 * PEERS   Text of remote hosts is made printable, cut at 500 octets and folded; it can never begin a line of its own, a
 *         field or a boundary. The boundary is random and does not occur in the returned message.
 */
#ifndef SMTP_DSN_H
#define SMTP_DSN_H

#include "base/buf.h"
#include "base/outcome.h"
#include "base/random.h"

enum {
	DSN_ORIGINAL_MAX = 256 * 1024,	/* a larger message is never returned whole */
	DSN_HEADER_MAX = 64 * 1024,	/* of its header, when that is returned */
	DSN_RECIPIENTS_MAX = 1000,	/* told one by one, as far as there is room; the rest is counted */
	DSN_BYTES_MAX = 4 * 1024 * 1024 /* a good ceiling for `out` */
};

enum dsn_kind {
	DSN_FAILED,  /* given up: Action failed */
	DSN_DELAYED, /* not yet: Action delayed; delivery goes on */
	DSN_RELAYED, /* SUCCESS was asked for: handed to a host that does not give DSNs (Action relayed), or delivered
		      */
};
const char *dsn_kind_name(enum dsn_kind kind);

struct dsn_recipient {
	struct slice address;	       /* the final one, as it stood in RCPT, without angle brackets */
	struct slice orcpt;	       /* xtext "type;address" as given; empty: Original-Recipient is `submitted` */
	struct slice submitted;	       /* before aliases and rewriting; empty: the same, no Original-Recipient */
	const struct outcome *outcome; /* borrowed for the call */
	int64_t last_attempt_wall;     /* 0: none was made */
	int64_t will_retry_until_wall; /* DSN_DELAYED; 0: not told */
	bool is_final_delivery;	       /* DSN_RELAYED: Action delivered instead of relayed */
	bool is_expanded;	       /* DSN_RELAYED: Action expanded */
};

/* All borrowed for the call. Times are milliseconds since 1970. */
struct dsn {
	enum dsn_kind kind;
	const char *hostname;	 /* ours: Reporting-MTA, MAILER-DAEMON@ */
	struct slice to;	 /* who gets it: the sender, or bounce.to; without angle brackets */
	const char *message_id;	 /* the left side of the DSN's own Message-ID, e.g. base/msgid.h's text; NULL: random */
	const char *original_id; /* the queue's id of the message it is about; NULL: not told */
	struct slice envid;	 /* xtext as given; empty: none */
	int64_t arrived_wall;	 /* of the original; 0: not told */
	int64_t now_wall;
	const struct dsn_recipient *recipients;
	size_t recipient_count;
	/* The original: header and body as far as the caller has it at hand; at least the header. Whole when
	 * original.len == original_bytes. */
	struct slice original;
	uint64_t original_bytes;
	bool return_full; /* RET=FULL: whole, in a DSN_FAILED, if it is here and at most DSN_ORIGINAL_MAX */
	struct rng *rng;
};

struct dsn_result {
	bool has_8bit;	     /* needs 8BITMIME */
	bool needs_smtputf8; /* needs SMTPUTF8 */
	bool returned_whole;
};

/* Appends the message to `out`. ERR_LIMIT: it does not fit (nothing useful is in `out` then); ERR_SYNTAX: `to` cannot
 * stand in a header. `result` may be NULL. */
int dsn_compose(struct buf *out, const struct dsn *dsn, struct dsn_result *result);

#endif
