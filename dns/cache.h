/*
 * dns/cache.h - answers by (name, type), with a ceiling, the least recently used leave first
 *
 * Used by dns.c only. Times are those of clock_mono_ms(), handed in. Answers are counted, the cache holds one reference
 * to each. DNS_TEMPORARY is never kept (RFC 2308 section 7 leaves it open; a retry must be able to notice at once that
 * the resolver is back).
 *
 * FRESH  for the TTL, held between ttl_min and ttl_max; negative answers at most negative_ttl_max.
 * STALE  for stale_max longer, only for positive MX, A and AAAA answers: better mail to an address of an hour ago than
 * no mail while the resolver is down (RFC 8767).
 */
#ifndef DNS_CACHE_H
#define DNS_CACHE_H

#include "dns/message.h"

struct dns_cache;

struct dns_cache_limits {
	size_t entries, bytes;
	int64_t ttl_min_ms, ttl_max_ms, negative_ttl_max_ms, stale_max_ms;
};

struct dns_cache *dns_cache_new(const struct dns_cache_limits *limits);
void dns_cache_free(struct dns_cache **cache);
/* Keeps the answer under the question's name and type, and sets its expires_at_ms; replaces an older one. */
void dns_cache_put(struct dns_cache *cache, struct dns_answer *answer, int64_t now_ms);
/* NULL: none that is fresh. Borrowed: valid until the cache changes. */
const struct dns_answer *dns_cache_find(struct dns_cache *cache, const char *name, uint16_t type, int64_t now_ms);
/* One past its time that may stand in for a failure, or NULL. It counts as fresh for ttl_min from now, so that a dead
 * resolver is not asked for each message (RFC 8767 section 5). */
const struct dns_answer *dns_cache_find_stale(struct dns_cache *cache, const char *name, uint16_t type, int64_t now_ms);
void dns_cache_clear(struct dns_cache *cache);
size_t dns_cache_count(const struct dns_cache *cache);
size_t dns_cache_bytes(const struct dns_cache *cache);

#endif
