/*
 * dkim/dkim.h - what all files of this folder share: algorithms and limits
 *
 * The folder knows DKIM (RFC 6376, 8301, 8463) and nothing of sockets, queues or configuration. Who signs what:
 *
 *   daemon   dkim_domains_find()      which domain and selectors sign for this From            select.h
 *            dkim_body_hash_*         while DATA arrives                                        body_hash.h
 *            dkim_signature_prepare() fields + body hash -> unsigned field and digest           signature.h
 *   helper   dkim_key_sign()          digest -> signature; the only place that has private keys key.h
 *   daemon   dkim_signature_finish()  signature -> the field to put above the message           signature.h
 *   relayctl dkim_record_*            what stands in DNS, and whether it fits our key           record.h
 */
#ifndef DKIM_DKIM_H
#define DKIM_DKIM_H

#include "base/slice.h"

/* The values of the a= tag that are signed with; rsa-sha1 is forbidden by RFC 8301 section 3.1. */
enum dkim_algorithm {
	DKIM_RSA_SHA256 = 0,
	DKIM_ED25519_SHA256, /* RFC 8463 */
	DKIM_ALGORITHM_COUNT,
};

enum {
	DKIM_DIGEST_BYTES = 32,		/* SHA-256: the body hash, and what is signed */
	DKIM_SIGNATURE_MAX_BYTES = 512, /* RSA 4096; Ed25519 has 64 */
	DKIM_PUBLIC_MAX_BYTES = 1024,	/* SubjectPublicKeyInfo of RSA 4096 has 550 */
	DKIM_RSA_MIN_BITS = 1024,	/* smaller keys are refused (RFC 8301 section 3.2: MUST) */
	DKIM_RSA_WARN_BITS = 2048,	/* smaller keys raise a warning (SHOULD) */
	DKIM_RSA_MAX_BITS = 4096, /* larger ones need not be verified by anybody, and take 9 ms and more to sign */
};

/* "rsa-sha256", "ed25519-sha256". */
const char *dkim_algorithm_name(enum dkim_algorithm algorithm);
/* The k= tag of the DNS record: "rsa", "ed25519". */
const char *dkim_algorithm_key_type(enum dkim_algorithm algorithm);

/* A selector as it may stand in s= and before "._domainkey": dot-separated labels of letters, digits, "-" and "_", at
 * most 63 octets each and 190 in all. Whether the whole name fits in DNS: dkim_record_format_name(). */
bool dkim_is_selector(struct slice text);
/* A domain as it may stand in d=: at least one label, A-labels only, at most 253 octets, no dot at the end. */
bool dkim_is_domain(struct slice text);

#endif
