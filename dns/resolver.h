/*
 * dns/resolver.h - the addresses of a host, in the order in which to try them
 *
 * A and AAAA together, by policy; for names that an operator wrote (a relayhost, an HTTPS server) also /etc/hosts, the
 * search list of resolv.conf and plain addresses, so that "mailpit", "localhost" and Kubernetes service names work as
 * they do everywhere else.
 *
 * ORDER   By family as the policy says; inside a family at random, so that load spreads although answers are cached.
 * CALLBACKS come from timers_run() alone, once unless cancelled. A callback may look up and cancel; it must not free
 * the resolver.
 */
#ifndef DNS_RESOLVER_H
#define DNS_RESOLVER_H

#include "dns/dns.h"

enum dns_ip {
	DNS_IP_4 = 0,	/* IPv4 only; AAAA is not asked for */
	DNS_IP_6,	/* IPv6 only */
	DNS_IP_PREFER4, /* all of IPv4, then IPv6 */
	DNS_IP_ANY,	/* IPv6 and IPv4 in turn (RFC 8305 section 4) */
};

enum { RESOLVER_ADDRESSES_MAX = 16 }; /* of one host; a random choice of them when there are more */

struct resolver_options {
	enum dns_ip ip;
	/* The name was written by an operator: plain addresses, /etc/hosts, names below localhost, search list. */
	bool is_configured_name;
};

struct resolver_result {
	enum dns_status status; /* OK: at least one address. TEMPORARY only when a failed query might have given one. */
	bool secure;		/* every answer that gave an address had a trusted AD bit */
	int64_t expires_at_ms;	/* clock_mono_ms(); the earliest of the answers */
	const char *canonical;	/* where the aliases lead; borrowed as the rest: valid during the callback */
	const char *reason;	/* unless OK */
	struct dns_address addresses[RESOLVER_ADDRESSES_MAX];
	size_t address_count;
};

typedef void resolver_cb(void *ctx, const struct resolver_result *result);

struct resolver;

/* Borrows all of it. `hosts_file` NULL: /etc/hosts. */
struct resolver *resolver_new(struct dns *dns, struct timers *timers, const struct clock *clock, struct rng *rng,
			      const char *hosts_file);
/* Cancels all lookups. */
void resolver_free(struct resolver **resolver);
/* `name` is copied. The id is never 0. */
uint64_t resolver_lookup(struct resolver *resolver, const char *name, const struct resolver_options *options,
			 resolver_cb *cb, void *ctx);
/* Afterwards the callback never comes. Sets *id to 0; one that is 0 or answered is harmless. */
void resolver_cancel(struct resolver *resolver, uint64_t *id);

/* For libcurl's CURLOPT_RESOLVE: "HOST:PORT:ADDRESS[,ADDRESS]..." with IPv6 addresses in brackets. False: no address,
 * or `size` is too small. */
bool resolver_format_curl(const struct resolver_result *result, const char *host, unsigned port, char *out,
			  size_t size);

#endif
