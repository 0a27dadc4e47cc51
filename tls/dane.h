/*
 * tls/dane.h - does a certificate chain match TLSA records? (RFC 6698, RFC 7671, RFC 7672 §3.1)
 *
 * Only usages 2 (DANE-TA) and 3 (DANE-EE) count for SMTP; 0 and 1 are unusable (RFC 7672 §3.1.3), as are unknown
 * selectors and matching types, digests of the wrong length and malformed data.
 *
 * EE  the leaf or its public key is what the record says: names and dates don't matter (RFC 7672 §3.1.1).
 * TA  some certificate of the chain, or the full one in the record (2 0 0), is the record's, signs down to the leaf,
 * all are valid now, and the leaf is for one of `names` (RFC 7672 §3.1.2, §3.2.2).
 *
 * Whether the records may be believed at all (AD bit), and what follows from a failed lookup, is the caller's.
 */
#ifndef TLS_DANE_H
#define TLS_DANE_H

#include "base/err.h"
#include "base/slice.h"

/* At most this many records of one answer are looked at. */
#define TLS_DANE_RECORDS_MAX 64

struct tls_tlsa {
	uint8_t usage, selector, matching;
	struct slice data; /* borrowed from the RDATA */
};

/* RDATA of a TLSA record. False: too short to be one. */
bool tls_tlsa_parse(struct slice rdata, struct tls_tlsa *out);
/* Can it authenticate an SMTP server at all? */
bool tls_tlsa_is_usable(const struct tls_tlsa *record);
/* How many of them can: 0 means TLS is mandatory, but unauthenticated (RFC 7672 §2.2). */
size_t tls_tlsa_usable_count(const struct tls_tlsa *records, size_t count);

enum tls_dane_result {
	TLS_DANE_MATCH,	   /* `matched` says by which record */
	TLS_DANE_MISMATCH, /* don't deliver; `why` says what was wrong */
	TLS_DANE_UNUSABLE, /* no usable record: encrypted, not authenticated */
};

/*
 * `chain`: certificates in DER as the server sent them, the leaf first (an empty one never matches). `names`: the TLSA
 * base domain, and as the caller sees fit the next-hop domain and the CNAME-expanded name (RFC 7672 §3.2.2); A-labels.
 * `matched` and `why` may be NULL. Uses the system's time for TA.
 */
enum tls_dane_result tls_dane_match(const struct slice *chain, size_t chain_count, const struct tls_tlsa *records,
				    size_t record_count, const char *const *names, size_t name_count, size_t *matched,
				    struct err *why);

/* "match", "mismatch", "unusable". */
const char *tls_dane_result_name(enum tls_dane_result result);

#endif
