/*
 * relayd/tls_lookup.h - asks what a destination publishes about its TLS, before the first connection
 *
 * TLSA records of each host (RFC 7672 section 2.2): asked for only when the host's own name and addresses came with a
 * trusted AD bit, first below the name that aliases lead to, then below the one that was given. All hosts are asked at
 * once. The domain's MTA-STS policy (relayd/mta_sts.h). What was learnt of each host (relayd/tls_memory.h). It decides
 * nothing: the facts go to relayd/tls_policy.h.
 *
 *     lookup = tls_lookup_new(...);               early: what concerns the domain is asked while MX is looked up
 *     i = tls_lookup_add_host(lookup, ...) ...;
 *     tls_lookup_start(lookup, cb, ctx);          calls back exactly once, later, unless it is freed
 *     tls_lookup_facts(lookup, i)                 as long as the lookup lives
 */
#ifndef RELAYD_TLS_LOOKUP_H
#define RELAYD_TLS_LOOKUP_H

#include "dns/dns.h"
#include "relayd/mta_sts.h"
#include "relayd/tls_memory.h"
#include "relayd/tls_policy.h"

/* Whom to ask; borrowed. */
struct tls_sources {
	struct dns *dns;
	struct timers *timers;
	const struct clock *clock;
	struct mta_sts *mta_sts;   /* NULL: nobody has a policy */
	struct tls_memory *memory; /* NULL: nothing is learnt */
};

struct tls_lookup_question {
	const char *next_hop; /* by MX: the domain; NULL: a relayhost */
	uint16_t port;
	bool wants_dane, wants_sts;
};

struct tls_lookup_host {
	const char *name;      /* as MX or the configuration says, or an address without brackets */
	const char *canonical; /* where aliases lead; NULL: nowhere */
	bool is_name_secure;   /* see struct tls_facts */
	bool is_secure;	       /* its addresses, and all aliases on the way, were authenticated */
};

struct tls_lookup;
typedef void tls_lookup_cb(void *ctx);

/* Copies what it is given. */
struct tls_lookup *tls_lookup_new(const struct tls_sources *sources, const struct tls_lookup_question *question);
/* Cancels what is on the way. Sets *lookup to NULL, accepts NULL. May be called from the callback. */
void tls_lookup_free(struct tls_lookup **lookup);
/* Before tls_lookup_start(). Returns its number, from 0. */
size_t tls_lookup_add_host(struct tls_lookup *lookup, const struct tls_lookup_host *host);
void tls_lookup_start(struct tls_lookup *lookup, tls_lookup_cb *cb, void *ctx);
/* After the callback. */
const struct tls_facts *tls_lookup_facts(const struct tls_lookup *lookup, size_t host);

#endif
