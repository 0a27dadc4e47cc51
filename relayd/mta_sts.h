/*
 * relayd/mta_sts.h - which MTA-STS policy holds for a domain (RFC 8461): asked of DNS, fetched by HTTPS, kept on disk
 *
 * LOOKUP    The TXT record at _mta-sts.DOMAIN names the policy's version. The one that is kept, of that version and not
 *           expired, holds at once; a new one is fetched first. Whatever fails (DNS, HTTPS, TLS, a broken policy), a
 *           policy that is kept holds until it expires (section 5.1); without one there is none for now, and the next
 *           fetch is five minutes away.
 * WAIT      A lookup answers within MTA_STS_WAIT_MS, by what is known then; the fetch goes on for the next one. Once
 *           somebody has waited in vain, others wait for MTA_STS_HASTY_MS at most, for five minutes.
 * REFRESH   Past half of its life, or after a day, a policy is fetched anew, on a lookup or by itself once an hour, so
 *           that none expires while its server is well.
 * KEPT      In SPOOL/mta-sts.json (relayd/memo.h), at most MTA_STS_DOMAINS_MAX domains and MTA_STS_BYTES_MAX; those
 * that were not asked for longest go first. Written a second after a change, and at the end. FETCH
 * https://mta-sts.DOMAIN/.well-known/mta-sts.txt: 200, text/plain, at most 64 KiB, a verified certificate, no
 *           redirects; one at a time for a domain.
 */
#ifndef RELAYD_MTA_STS_H
#define RELAYD_MTA_STS_H

#include "base/log.h"
#include "dns/dns.h"
#include "relayd/https.h"
#include "relayd/memo.h"
#include "relayd/mta_sts_policy.h"

enum {
	MTA_STS_WAIT_MS = 10 * 1000,
	MTA_STS_HASTY_MS = 500,
	MTA_STS_FETCH_MS = 60 * 1000,
	MTA_STS_FAILURE_MS = 5 * 60 * 1000, /* section 3.3 */
	MTA_STS_DOMAINS_MAX = 4096,
	MTA_STS_BYTES_MAX = 768 * 1024, /* what fits into a memo */
};

struct mta_sts;

/* Who fetches: relayd/https.h, or a test. The answer may not come from inside send(). */
struct mta_sts_fetcher {
	void *ctx;
	uint64_t (*send)(void *ctx, const struct https_request *request, https_cb *cb, void *cb_ctx);
	void (*cancel)(void *ctx, uint64_t *id);
};
struct mta_sts_fetcher mta_sts_fetcher_https(struct https *https);

/* All borrowed. */
struct mta_sts_options {
	struct dns *dns;
	struct timers *timers;
	const struct clock *clock;
	struct log *log;
	struct mta_sts_fetcher fetcher;
	struct memos *memos; /* NULL: nothing is kept on disk */
	uint16_t port;	     /* of the policies' servers; 0: 443 */
};

enum mta_sts_answer {
	MTA_STS_HOLDS,	 /* `policy` is in force, whatever its mode */
	MTA_STS_ABSENT,	 /* the domain has none */
	MTA_STS_UNKNOWN, /* it could not be found out, and none is kept */
};

/* `policy` is NULL unless HOLDS, and lives during the callback; mta_sts_policy_ref() keeps it. */
typedef void mta_sts_cb(void *ctx, enum mta_sts_answer answer, struct mta_sts_policy *policy);

/* Reads what was kept. */
struct mta_sts *mta_sts_new(const struct mta_sts_options *options);
/* Cancels all lookups. The memos must be gone before it. Sets NULL, accepts NULL. Not from a callback. */
void mta_sts_free(struct mta_sts **mta_sts);
/* `domain`: A-labels, lower case. Calls back once, later, from a timer. The id is never 0. */
uint64_t mta_sts_lookup(struct mta_sts *mta_sts, const char *domain, mta_sts_cb *cb, void *ctx);
/* Afterwards the callback never comes. Sets *id to 0; one that is 0 or answered is harmless. */
void mta_sts_cancel(struct mta_sts *mta_sts, uint64_t *id);
/* For fetches that begin from now on. */
void mta_sts_set_port(struct mta_sts *mta_sts, uint16_t port);
/* The policies that are kept. */
size_t mta_sts_count(const struct mta_sts *mta_sts);

#endif
