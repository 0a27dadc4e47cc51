/*
 * dkim/record.h - the public key in DNS: SELECTOR._domainkey.DOMAIN TXT (RFC 6376 section 3.6)
 *
 * For `relayctl dkim keygen|show|check` and the doctor: writing the record, reading one back, comparing it with our
 * key, and verifying a signature with it as a receiver would.
 */
#ifndef DKIM_RECORD_H
#define DKIM_RECORD_H

#include "base/buf.h"
#include "base/err.h"
#include "dkim/dkim.h"

/* Appends "v=DKIM1; k=rsa; p=..." on one line. `public_key`: from dkim_key_public(). ERR_LIMIT: `out` is full. */
int dkim_record_format(struct buf *out, enum dkim_algorithm algorithm, struct slice public_key);
/* The same as a line of a zone file, with its newline: name with a final dot, TTL left out, IN TXT, and the text in
 * quoted strings of at most 255 octets in parentheses. ERR_SYNTAX: selector or domain is none. */
int dkim_record_format_zone(struct buf *out, struct slice selector, struct slice domain, enum dkim_algorithm algorithm,
			    struct slice public_key);
/* Appends "SELECTOR._domainkey.DOMAIN": the name to look up. ERR_SYNTAX, ERR_LIMIT. */
int dkim_record_format_name(struct buf *out, struct slice selector, struct slice domain);

/* A record that was read. Plain data, nothing to free. */
struct dkim_record {
	enum dkim_algorithm algorithm; /* k=; rsa when absent */
	unsigned char public_key[DKIM_PUBLIC_MAX_BYTES];
	size_t public_key_len; /* 0: p= is empty, the key is revoked */
	unsigned bits;	       /* of the RSA modulus; 256 for Ed25519; 0 when revoked */
	bool is_testing;       /* t=y: verifiers must not treat a failure otherwise than an unsigned message */
	bool is_strict;	       /* t=s: i= must not be in a subdomain of d= (we send none) */
	bool allows_sha256;    /* no h=, or h= names sha256 */
	bool allows_email;     /* no s=, or s= names email or * */
};

/*
 * `txt`: the strings of one TXT record joined without anything between them.
 * ERR_SYNTAX: not a DKIM record, or broken (the text says where); ERR_UNSUPPORTED: another k= or v=.
 */
int dkim_record_parse(struct slice txt, struct dkim_record *record, struct err *err);

/* How a published record relates to the key that we sign with. */
enum dkim_record_verdict {
	DKIM_RECORD_MATCHES = 0,
	DKIM_RECORD_REVOKED,	    /* p= is empty */
	DKIM_RECORD_OTHER_TYPE,	    /* k= is not that of our key */
	DKIM_RECORD_OTHER_KEY,	    /* a different key: signatures will fail */
	DKIM_RECORD_FORBIDS_SHA256, /* our key, but h= excludes it */
	DKIM_RECORD_FORBIDS_EMAIL,  /* our key, but s= excludes it */
	DKIM_RECORD_TESTING,	    /* our key, but t=y: receivers ignore the result */
};

enum dkim_record_verdict dkim_record_compare(const struct dkim_record *record, enum dkim_algorithm algorithm,
					     struct slice public_key);
/* "matches", "revoked", "other-type", "other-key", "forbids-sha256", "forbids-email", "testing". */
const char *dkim_record_verdict_name(enum dkim_record_verdict verdict);

/* Whether `signature` over `digest` was made by the private key of this record. */
bool dkim_record_verify(const struct dkim_record *record, const unsigned char digest[DKIM_DIGEST_BYTES],
			struct slice signature);

#endif
