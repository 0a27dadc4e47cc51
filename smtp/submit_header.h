/*
 * smtp/submit_header.h - what a submission server does to the header of a message (RFC 6409 §8)
 *
 * Pure: the header block and what is known about the session go in; fields to add, the block to keep and the facts that
 * others decide by come out. Called once per message, when header.h has found the end of the header.
 *
 * - Added on top: Received (RFC 5321 §4.4, RFC 3848, RFC 6531); Date and Message-ID when they are missing; From when it
 *   is missing (at(1), cron): `author`, else the reverse-path, or MAILER-DAEMON@hostname for <>, since no verifier
 *   judges a message without it.
 * - Removed: Bcc, Resent-Bcc, Return-Path, X-Relayd-*, in any case, folded or repeated; and those in `remove`.
 * - Repaired: blanks before a field's colon are dropped (dkimpy cannot read such a field); in From a name without a
 *   domain ("root") gets "@origin" when no address there has one; a last line gets its CRLF.
 * - All other fields stay byte for byte, in their order.
 * - Refused: two From fields (receivers refuse them, and which one counts is a matter of taste: RFC 6376 §8.15); a From
 *   without a readable address; 100 Received fields (RFC 5321 §6.3); an X-Relayd-* value that means nothing. Then the
 *   result is negative and `refusal` is the reply, with words that name the field.
 *
 * A header with nothing in it is fine: what is added makes it one. NUL and bare newlines never get here (content.h).
 */
#ifndef SMTP_SUBMIT_HEADER_H
#define SMTP_SUBMIT_HEADER_H

#include "base/buf.h"
#include "base/err.h"
#include "base/random.h"
#include "base/vocabulary.h"
#include "smtp/server_reply.h"

enum {
	SUBMIT_HEADER_RECEIVED_MAX = 100,
	SUBMIT_HEADER_TAG_MAX_BYTES = 64,
	SUBMIT_HEADER_FROM_MAX = 100, /* addresses of the From field that are kept; more are refused */
};

/* Borrowed during the call. */
struct submit_header_options {
	struct slice hostname;
	struct slice origin;			  /* completes bare names in From; empty: hostname */
	struct slice id;			  /* the message's, 13 characters */
	struct slice sender;			  /* reverse-path; empty: <> */
	struct slice author;			  /* the address of a From that must be added; empty: the sender */
	struct slice only_recipient;		  /* for "for"; empty when there are several */
	bool hide_client;			  /* no "from" clause in Received */
	struct slice helo;			  /* with hide_client false */
	struct slice client_address;		  /* "192.0.2.1", "2001:db8::1"; empty: not known (submit.sock) */
	bool esmtp, tls, authenticated, smtputf8; /* make the "with" keyword: ESMTPSA, UTF8SMTPS, SMTP ... */
	struct slice with;			  /* another keyword than these, such as "local"; usually empty */
	int64_t wall_ms;
	int utc_offset_min;	    /* smtp_date_local_offset_min() */
	struct rng *rng;	    /* for a new Message-ID */
	const struct slice *remove; /* more names to remove */
	size_t remove_count;
};

/* Made by submit_header_make(), even when it refuses; give it back with submit_header_fini(). */
struct submit_header {
	struct buf prefix; /* fields with CRLF: goes on top, below DKIM-Signature */
	struct slice kept; /* the rest of the header, in the given block or in `changed`; then comes the empty line */
	struct buf changed;

	/* Facts. Slices live as this structure. */
	struct slice from[SUBMIT_HEADER_FROM_MAX]; /* of From, each with a domain; at least one if 0 was given */
	size_t from_count;
	struct slice from_domain;   /* of the first */
	struct slice header_sender; /* address of Sender; empty: none */
	struct slice message_id;    /* with its brackets, the given or the new one */
	bool has_8bit;		    /* octets over 127 in what is kept */
	bool added_date, added_message_id, added_from, completed_from;
	uint32_t received_count; /* before ours */
	bool has_class;
	enum message_class class; /* X-Relayd-Class */
	int64_t lifetime_ms;	  /* X-Relayd-Lifetime; 0: none */
	struct slice tag;	  /* X-Relayd-Tag; empty: none */
	bool tls_required_no;	  /* "TLS-Required: No", RFC 8689 §5; the field stays */

	struct smtp_server_reply refusal; /* when it was refused; strings live as this structure */
	struct buf memory;		  /* private */
	char refusal_text[256];		  /* private */
};

/* `block` as header_scanner_block() gives it, borrowed as long as `out` is used. 0, or ERR_SYNTAX with out->refusal. */
int submit_header_make(struct submit_header *out, struct slice block, const struct submit_header_options *options);
void submit_header_fini(struct submit_header *header);

#endif
