/*
 * dns/dns.h - all DNS of the daemon: c-ares behind descriptor and timer hooks, typed answers, a cache
 *
 * The folder asks a recursive resolver and never validates itself. It knows nothing of mail but dns/mx.h, which picks
 * the hosts of a domain.
 *
 *   dns.h       a question, an answer                      message.h   from packet to values, hostile bytes
 *   resolver.h  the addresses of a host, for connecting    cache.h     answers by name and type
 *   mx.h        where the mail of a domain goes            address.h   IP addresses as values
 *
 * LIMITS  256 questions are on the way at a time, and 2,048 besides that have been so for two seconds, so that domains
 * with silent servers hold up no other for long; more wait in order. Equal questions on the way are asked once. 64k
 * waiting: the rest is answered with DNS_TEMPORARY.
 *
 * TIME    A question ends after timeout_ms x (2^tries - 1) for each server at the latest, whatever the servers do.
 *
 * PORTS   The channel to the servers is replaced every thousand questions, and sockets are closed when nothing is on
 * the way, so that source ports change (RFC 5452 section 9.2); query ids come from the rng.
 *
 * CALLBACKS come from timers_run() alone, never from inside dns_query() or dns_on_fd(). A callback may ask, cancel and
 * reload; it must not free the dns.
 */
#ifndef DNS_DNS_H
#define DNS_DNS_H

#include "base/clock.h"
#include "base/err.h"
#include "base/random.h"
#include "base/timer.h"
#include "dns/message.h"

struct dns;

/* Whose AD bit is believed. */
enum dns_trust {
	DNS_TRUST_LOOPBACK = 0, /* when all servers are loopback addresses, other than Docker's forwarder 127.0.0.11 */
	DNS_TRUST_ALWAYS,	/* dns.trust_ad: true */
	DNS_TRUST_NEVER,
};

/* Zero everywhere is the default. Read during dns_new() only, except transport. */
struct dns_options {
	const char *const *servers; /* "ADDRESS:PORT", "[ADDRESS]:PORT" or "ADDRESS"; none: resolv.conf */
	size_t server_count;
	const char *resolv_conf; /* NULL: /etc/resolv.conf */
	enum dns_trust trust;
	int timeout_ms; /* of the first try, doubled with each; 0: 2000 */
	int tries;	/* 0: 3 */
	/* The cache, all 0 for: 65,536 answers, 32 MiB, 30 s, 1 h, 5 min, 1 h. */
	size_t cache_entries, cache_bytes;
	int64_t ttl_min_ms, ttl_max_ms, negative_ttl_max_ms, stale_max_ms;
	const struct dns_transport *transport; /* NULL: c-ares; borrowed, outlives the dns. For tests and simulation. */
};

/* The loop, as far as dns needs it. Borrowed; must outlive the dns. */
struct dns_host {
	/* Watch `fd` (level-triggered); both false: stop watching, it is about to be closed. The host calls
	 * dns_on_fd(). */
	void (*watch)(void *ctx, int fd, bool want_read, bool want_write);
	void *ctx;
};

/* Something else that answers. */
struct dns_transport {
	/* Answers later, or from inside, by dns_transport_answer(dns, token, packet): once for each token. */
	void (*ask)(void *ctx, struct dns *dns, uint64_t token, const char *name, uint16_t type);
	void *ctx;
};

/* `answer` lives during the callback; dns_answer_ref() keeps it. */
typedef void dns_cb(void *ctx, const struct dns_answer *answer);

/*
 * Borrows host, timers, clock and rng, which must outlive it; copies the options. Reads resolv.conf unless servers are
 * given; a file that is missing or names no server means 127.0.0.1. NULL, with words: a server that is no address,
 * resolv.conf that cannot be read, no memory.
 */
struct dns *dns_new(const struct dns_options *options, const struct dns_host *host, struct timers *timers,
		    const struct clock *clock, struct rng *rng, struct err *err);
/* Cancels all questions. Sets NULL, accepts NULL. Not from a callback. */
void dns_free(struct dns **dns);

/*
 * Asks; `name` is taken as it stands, never completed by a search list, and copied. Calls back exactly once, later,
 * from a timer; the id is never 0. A name that cannot exist is DNS_NXDOMAIN. Of the cache an answer comes in the next
 * turn. Stale answers (at most stale_max_ms past their time) stand in for DNS_TEMPORARY for MX, A and AAAA.
 */
uint64_t dns_query(struct dns *dns, const char *name, uint16_t type, dns_cb *cb, void *ctx);
/* Afterwards the callback never comes. Sets *id to 0; one that is 0 or answered is harmless. */
void dns_cancel(struct dns *dns, uint64_t *id);

/* From the loop; errors and hang-ups count as readable and writable. A descriptor that is no longer ours is harmless.
 */
void dns_on_fd(struct dns *dns, int fd, bool readable, bool writable);
/* From the transport. An empty packet: no answer came (time-out). Unknown tokens are ignored. */
void dns_transport_answer(struct dns *dns, uint64_t token, struct slice packet);

/*
 * Reads resolv.conf again: new questions go to the new servers, those on the way end at the old ones, the cache is
 * emptied. With servers given it does only the latter. On an error (the file is unreadable or missing) all stays as it
 * was.
 */
int dns_reload(struct dns *dns, struct err *err);
/* Forgets all cached answers. */
void dns_flush(struct dns *dns);

/* The search list and ndots of resolv.conf, for names that an operator configured. Valid until dns_reload(). */
const char *const *dns_search_list(const struct dns *dns, size_t *count, int *ndots);
/* Is the AD bit believed now? */
bool dns_is_trusted(const struct dns *dns);
/* The servers in use as "127.0.0.1:53, ..." into `out`. */
void dns_format_servers(const struct dns *dns, char *out, size_t size);

struct dns_counts {
	uint64_t asked, answered, failed; /* questions sent to the servers; of them answered; of them DNS_TEMPORARY */
	uint64_t cache_hits, stale_hits, joined;
	size_t inflight, waiting, cached;
	size_t cached_bytes;
};
void dns_count(const struct dns *dns, struct dns_counts *out);

#endif
