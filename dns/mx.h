/*
 * dns/mx.h - where the mail of a domain goes (RFC 5321 section 5.1, RFC 7505)
 *
 * A domain, as it stands behind the @, becomes an ordered list of hosts with addresses, or a reason why there is none.
 *
 *  1. An address literal is its own host. Anything else becomes A-labels (IDNA 2008).
 *  2. MX. NXDOMAIN: no such domain. Failed: temporary, never the address of the domain instead. One record with host
 * ".": takes no mail. NODATA: the domain itself is the only host, with preference 0.
 *  3. By preference, at random among equals; each host once. A host that is ourselves takes all of its preference and
 *     worse with it, so that mail only moves towards better hosts.
 *  4. The first MX_HOSTS_AT_ONCE hosts are resolved in parallel; when none of them has an address, the next, up to
 *     MX_HOSTS_TRIED. Hosts behind them are not looked at: "hosts_left_out" counts them.
 *  5. Addresses that are ours count as our name does. Loopback, unspecified, link-local, multicast and reserved ones
 * are dropped. Private ones are not: inside a company they are where mail goes.
 *
 * Pure apart from its questions to the resolver. CALLBACKS as in resolver.h: from timers_run() alone, exactly once
 * unless cancelled, and not after mx_cancel(). A callback may look up and cancel; it must not free the mx.
 */
#ifndef DNS_MX_H
#define DNS_MX_H

#include "dns/resolver.h"

enum { MX_HOSTS_AT_ONCE = 16, MX_HOSTS_TRIED = 64, MX_ADDRESSES_MAX = 64 };

enum mx_status {
	MX_OK = 0,
	MX_NO_DOMAIN,  /* 5.1.2: no such domain, no MX and no address, or not a domain name at all */
	MX_NULL,       /* 5.1.10: the domain takes no mail */
	MX_UNRESOLVED, /* 5.4.4: it has MX hosts, but none has an address (that we may use by delivery.ip) */
	MX_LOOP,       /* 5.4.6: we are the best host ourselves, or all addresses are loopback or our own */
	MX_TEMPORARY,  /* 4.4.3: the resolver failed; try again */
};

struct mx_host {
	const char *name;      /* no trailing dot; for an address literal the literal with its brackets */
	const char *canonical; /* after aliases; equals name when there are none */
	uint16_t preference;
	/* The address answers were authenticated (DNSSEC, trusted resolver), all of the alias chain. With mx_secure it
	 * makes the host fit for DANE (RFC 7672 section 2.2): look for _25._tcp.CANONICAL, then _25._tcp.NAME. */
	bool secure;
	/* In the order in which to try them. */
	const struct dns_address *addresses;
	size_t address_count;
};

struct mx_result {
	enum mx_status status;
	char domain[256];	     /* A-labels, lower case, or the literal; "" when it was no domain */
	char text[256];		     /* unless OK: what was wrong, for people; printable ASCII, one line */
	bool is_implicit;	     /* no MX records: the domain is its own host */
	bool is_literal;	     /* an address literal */
	bool mx_secure;		     /* the MX answer (or its absence) was authenticated */
	int64_t expires_at_ms;	     /* clock_mono_ms(): ask again after it */
	const struct mx_host *hosts; /* best first; each with at least one address. 0 of them unless OK */
	size_t host_count;
	size_t hosts_left_out; /* MX hosts without address, refused, or past the limits */
};

struct mx_options {
	enum dns_ip ip;
	bool allow_loopback; /* loopback addresses are fine, and never our own */
	/* Names that are ourselves: `hostname`, and further ones. Copied. */
	const char *const *own_names;
	size_t own_name_count;
	/* dns_own_addresses(). Copied. */
	const struct dns_address *own_addresses;
	size_t own_address_count;
};

struct mx;
/* The result is the receiver's: mx_result_free(). */
typedef void mx_cb(void *ctx, struct mx_result *result);

/* Borrows all of it but the options. */
struct mx *mx_new(struct dns *dns, struct resolver *resolver, struct timers *timers, const struct clock *clock,
		  struct rng *rng, const struct mx_options *options);
/* Cancels all lookups. */
void mx_free(struct mx **mx);
/* For lookups that begin from now on, and the checks of those under way. */
void mx_configure(struct mx *mx, const struct mx_options *options);

/* `domain` is copied: what stands behind the @, in UTF-8 or A-labels, or an address literal. The id is never 0. */
uint64_t mx_lookup(struct mx *mx, const char *domain, mx_cb *cb, void *ctx);
void mx_cancel(struct mx *mx, uint64_t *id);

/* Sets NULL, accepts NULL. */
void mx_result_free(struct mx_result **result);

/* "ok", "no-domain", "null-mx", "unresolved", "loop", "temporary". */
const char *mx_status_name(enum mx_status status);
/* "5.1.2" and so on; "" for MX_OK. */
const char *mx_status_enhanced(enum mx_status status);
/* The domain as DNS wants it (RFC 5891, base/idna.h): A-labels, lower case, no trailing dot. `out` has 256 octets. False: not a
 * domain. Also for the From domain and TLS names. */
bool mx_domain_to_ascii(struct slice domain, char *out);

#endif
