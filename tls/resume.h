/*
 * tls/resume.h - what clients remember of earlier sessions, so that the next handshake is cheap
 *
 * At most 1,000 entries of some 1 KB, the oldest goes first, none is used after an hour. A TLS 1.3 entry is used once
 * (RFC 8446 C.4). Only sessions of level TLS_LEVEL_OPPORTUNISTIC use it: a resumed session shows no certificate, so
 * nothing strict may rest on it. Sessions borrow the cache; it must outlive them.
 */
#ifndef TLS_RESUME_H
#define TLS_RESUME_H

#include "base/clock.h"
#include "base/slice.h"

#define TLS_RESUME_ENTRIES 1000
#define TLS_RESUME_LIFETIME_MS (3600 * 1000)

struct tls_resume_cache;

struct tls_resume_cache *tls_resume_cache_new(const struct clock *clock);
void tls_resume_cache_free(struct tls_resume_cache **cache);
size_t tls_resume_cache_count(const struct tls_resume_cache *cache);

/* For tls/session.c. Replaces an entry of the same key. */
void tls_resume_cache_put(struct tls_resume_cache *cache, const char *key, struct slice data, bool single_use);
/* Empty: nothing fresh. The slice lives until the next call on the cache. */
struct slice tls_resume_cache_take(struct tls_resume_cache *cache, const char *key);

#endif
