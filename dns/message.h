/*
 * dns/message.h - a DNS answer: from the bytes of a hostile packet to checked values
 *
 * Pure: no sockets, no clock. The parser reads no octet outside the packet, follows compression pointers only
 * backwards, and keeps names and records below the ceilings given here; all work is linear in the packet's length. It
 * walks the records itself because c-ares 1.18 gives neither the TTL of an MX record nor TLSA at all, and no version
 * older than 1.28 gives both beside the AD bit.
 * Names: dns/name.h.
 */
#ifndef DNS_MESSAGE_H
#define DNS_MESSAGE_H

#include "dns/address.h"
#include "dns/name.h"

/* Those whose data is understood; any other type can be asked for, but gives no records. */
enum dns_type {
	DNS_A = 1,
	DNS_CNAME = 5,
	DNS_SOA = 6, /* only as part of a negative answer */
	DNS_PTR = 12,
	DNS_MX = 15,
	DNS_TXT = 16,
	DNS_AAAA = 28,
	DNS_TLSA = 52,
};

enum {
	DNS_CNAME_MAX = 16,		    /* aliases in one answer */
	DNS_ANSWER_BYTES_MAX = 1024 * 1024, /* memory of one parsed answer */
	DNS_EDNS_SIZE = 1232, /* what we take by UDP: fits every path without fragments (DNS flag day 2020) */
	DNS_QUERY_MAX = 288,  /* header, longest name, type and class, OPT */
};

enum dns_status {
	DNS_OK = 0,    /* at least one record */
	DNS_NXDOMAIN,  /* the name does not exist */
	DNS_NODATA,    /* the name exists, but has no record of this type */
	DNS_TEMPORARY, /* no answer, or none that can be believed: SERVFAIL, REFUSED, time-out, garbage, alias loop */
};

struct dns_record {
	uint32_t ttl_sec; /* as sent; over 2^31 - 1 counts as 0 (RFC 2181 section 8) */
	union {
		struct dns_address address; /* A, AAAA */
		const char *name;	    /* CNAME, PTR */
		struct {
			uint16_t preference;
			const char *host; /* "": the root, as a null MX has it (RFC 7505) */
		} mx;
		struct slice text; /* TXT: its strings joined (RFC 7208 section 3.3); any octets */
		struct {
			uint8_t usage, selector, matching;
			struct slice data;
			struct slice rdata; /* all of it, for tls_tlsa_parse() */
		} tlsa;
	};
};

/*
 * Immutable and counted: whoever wants to keep one past the callback takes a reference. All that it points to lives as
 * long as it does.
 */
struct dns_answer {
	enum dns_status status;
	uint16_t type;
	uint16_t rcode; /* of the packet; 0 without one */
	bool ad; /* authenticated by DNSSEC, said by a resolver that is trusted; with aliases: all of the chain */
	uint32_t
	    ttl_sec; /* the least of all records and aliases; negative answers: of RFC 2308 section 5, 0 when unknown */
	int64_t expires_at_ms; /* clock_mono_ms() until which the cache holds it; set by dns.c */
	const char *name;      /* the question */
	const char *canonical; /* where the aliases lead; the question's name when there are none */
	const char *reason;    /* TEMPORARY, NXDOMAIN, NODATA: what happened, in words; else "" */
	const struct dns_record *records;
	size_t record_count;
	size_t memory_bytes;
	unsigned references;
};

/* "ok", "nxdomain", "nodata", "temporary". */
const char *dns_status_name(enum dns_status status);
/* "MX", or "TYPE123" for one without a name here. Static, or written into `out`. */
const char *dns_type_name(uint16_t type, char out[16]);

/*
 * A question for a recursive resolver: RD, and AD to be told whether the answer is authenticated (RFC 6840
 * section 5.7). `name` is normalized; `out` has room for DNS_QUERY_MAX. Returns its length. `edns`: with an OPT record,
 * the last one.
 */
size_t dns_message_build_query(uint16_t id, const char *name, uint16_t type, bool edns, uint8_t *out);

/*
 * Parses an answer to the question (name, type); `name` is normalized. Never NULL: garbage, an answer to another
 * question, TC, and rcodes other than NOERROR and NXDOMAIN give DNS_TEMPORARY with the reason. One reference, the
 * caller's. An answer that ends in an alias whose target it says nothing about is DNS_OK with no record and `canonical`
 * set: ask again for that name.
 */
struct dns_answer *dns_message_parse(struct slice packet, const char *name, uint16_t type);
/* An answer without a packet. `reason` is copied. */
struct dns_answer *dns_answer_new(const char *name, uint16_t type, enum dns_status status, const char *reason);
/* `tail` answers the question for the canonical name of `head`: one answer to head's question, AD only if both have it.
 * Takes no reference away. */
struct dns_answer *dns_answer_join(const struct dns_answer *head, const struct dns_answer *tail);

/* One more reference; returns its argument. */
const struct dns_answer *dns_answer_ref(const struct dns_answer *answer);
/* One reference less, and *answer = NULL. NULL is fine. */
void dns_answer_unref(const struct dns_answer **answer);

#endif
