/*
 * dkim/signature.h - from a message's header fields and body hash to DKIM-Signature fields
 *
 * Two steps with the private-key operation in between, so that this side never sees a key:
 *
 *	struct dkim_signature signatures[2];
 *	rc = dkim_signature_prepare(signatures, signers, 2, &message, &err);
 *	... signatures[i].digest goes to the helper, the answer comes back later ...
 *	rc = dkim_signature_finish(&signatures[i], answer, &out);      // a whole field with CRLF
 *	dkim_signature_fini(&signatures[i]);
 *
 * What is signed: relaxed/relaxed, the fields of dkim_signed_fields() and no others. Each is named once more than it is
 * present (RFC 6376 sections 5.4 and 8.15), also when it is absent, so that nobody can add one without breaking the
 * signature. Instances go from the bottom of the header upwards (section 5.4.2); a name without an instance left
 * contributes nothing. Never Received, Return-Path, or l=.
 *
 * Left out: names in `omit` are neither signed nor oversigned, for the relayhost may rewrite or add them. From must be
 * signed (section 5.4) and stays even if named.
 *
 * Limits: of a name that stands more than DKIM_INSTANCES_MAX times (RFC 5322 section 3.6 allows each once), only the
 * lowest DKIM_INSTANCES_MAX are signed, and that name is not oversigned: the receiver would hash one more than we did.
 * So the field stays under 6 KB, and the work is linear in the size of the header.
 *
 * Folding: lines of at most 78 octets, unless domain or selector alone are longer.
 */
#ifndef DKIM_SIGNATURE_H
#define DKIM_SIGNATURE_H

#include "base/buf.h"
#include "base/err.h"
#include "dkim/dkim.h"

enum {
	DKIM_INSTANCES_MAX = 16,
	DKIM_SIGNERS_MAX = 8,		 /* signatures of one message */
	DKIM_FIELD_MAX_BYTES = 8 * 1024, /* no finished field is longer */
};

/* One header field as it will be sent: name, colon, value with foldings; the final CRLF is optional. Borrowed. */
struct dkim_field {
	struct slice raw;
};

/* Who signs: the selector and the kind of its key. */
struct dkim_signer {
	struct slice selector;
	enum dkim_algorithm algorithm;
};

/* The message. All of it is borrowed during the call only. */
struct dkim_message {
	const struct dkim_field *fields; /* from the top down; without the new DKIM-Signature fields */
	size_t field_count;
	const unsigned char *body_hash; /* DKIM_DIGEST_BYTES */
	struct slice domain;		/* d=, an A-label; see select.h */
	int64_t signed_at_sec;		/* t=, seconds since 1970 */
	int64_t expires_at_sec;		/* x=; 0: no x= */
	const struct slice *omit;	/* names of fields to leave out, in any case */
	size_t omit_count;
};

/* A signature under way. Owns its text. */
struct dkim_signature {
	enum dkim_algorithm algorithm;
	unsigned char digest[DKIM_DIGEST_BYTES]; /* what dkim_key_sign() signs */
	struct buf text;			 /* "DKIM-Signature: ...; b=", no CRLF */
};

/* Names of the fields that are signed, in the order of the h= tag; NULL ends the list. Static. */
const char *const *dkim_signed_fields(void);

/*
 * Fills `signatures[0..count-1]`, one per signer. The header is read and hashed once for all of them.
 *
 * ERR_NOT_FOUND: there is no From field (a verifier could not judge the message); ERR_SYNTAX: domain or selector cannot
 * stand in the field; ERR_LIMIT: more than DKIM_SIGNERS_MAX; ERR_CONFIG: x= not after t=. On error nothing needs
 * _fini().
 */
int dkim_signature_prepare(struct dkim_signature *signatures, const struct dkim_signer *signers, size_t count,
			   const struct dkim_message *message, struct err *err);
/* Appends the finished field, folded and with CRLF. `signature`: raw octets from dkim_key_sign(). ERR_LIMIT: `out` is
 * full (it then may hold a part), or the signature is empty or longer than DKIM_SIGNATURE_MAX_BYTES. */
int dkim_signature_finish(const struct dkim_signature *prepared, struct slice signature, struct buf *out);
/* Harmless on zeroed memory, and twice. */
void dkim_signature_fini(struct dkim_signature *signature);

#endif
