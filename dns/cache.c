#include "dns/cache.h"

#include "base/base.h"
#include "base/list.h"

#include <stdlib.h>
#include <uthash.h>

struct entry {
	const struct dns_answer *answer; /* its name and type are the key */
	int64_t stale_until_ms;		 /* 0: never stands in for a failure */
	size_t bytes;
	struct list node; /* the most recently used come last */
	UT_hash_handle hh;
	size_t key_len;
	char key[]; /* type, name */
};

struct dns_cache {
	struct dns_cache_limits limits;
	struct entry *entries;
	struct list by_use;
	size_t bytes;
};

struct dns_cache *dns_cache_new(const struct dns_cache_limits *limits)
{
	struct dns_cache *cache = xcalloc(1, sizeof(*cache));

	cache->limits = *limits;
	list_init(&cache->by_use);
	return cache;
}

static void remove_entry(struct dns_cache *cache, struct entry *entry)
{
	HASH_DEL(cache->entries, entry);
	list_remove(&entry->node);
	cache->bytes -= entry->bytes;
	dns_answer_unref(&entry->answer);
	free(entry);
}

void dns_cache_clear(struct dns_cache *cache)
{
	LIST_FOREACH (node, &cache->by_use)
		remove_entry(cache, CONTAINER_OF(node, struct entry, node));
}

void dns_cache_free(struct dns_cache **cache)
{
	if (!*cache)
		return;
	dns_cache_clear(*cache);
	free(*cache);
	*cache = NULL;
}

static size_t make_key(const char *name, uint16_t type, char *key)
{
	size_t len = strlen(name);

	BUG_ON(len > DNS_NAME_MAX);
	memcpy(key, &type, sizeof(type));
	memcpy(key + sizeof(type), name, len);
	return sizeof(type) + len;
}

static struct entry *find(struct dns_cache *cache, const char *name, uint16_t type)
{
	char key[DNS_NAME_MAX + sizeof(type)];
	size_t len = make_key(name, type, key);
	struct entry *entry;

	HASH_FIND(hh, cache->entries, key, len, entry);
	return entry;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
	return value < low ? low : value > high ? high : value;
}

static bool may_stand_in(const struct dns_answer *answer)
{
	return answer->status == DNS_OK &&
	       (answer->type == DNS_MX || answer->type == DNS_A || answer->type == DNS_AAAA);
}

static void set_times(const struct dns_cache_limits *limits, struct dns_answer *answer, struct entry *entry,
		      int64_t now_ms)
{
	int64_t ceiling =
	    answer->status == DNS_OK ? limits->ttl_max_ms : MIN(limits->negative_ttl_max_ms, limits->ttl_max_ms);
	int64_t ttl = clamp((int64_t)answer->ttl_sec * 1000, MIN(limits->ttl_min_ms, ceiling), ceiling);

	answer->expires_at_ms = now_ms + ttl;
	entry->stale_until_ms = may_stand_in(answer) ? answer->expires_at_ms + limits->stale_max_ms : 0;
}

void dns_cache_put(struct dns_cache *cache, struct dns_answer *answer, int64_t now_ms)
{
	char key[DNS_NAME_MAX + sizeof(answer->type)];
	size_t len = make_key(answer->name, answer->type, key);
	struct entry *entry;

	if (answer->status == DNS_TEMPORARY)
		return;
	entry = find(cache, answer->name, answer->type);
	if (entry)
		remove_entry(cache, entry);
	entry = xcalloc(1, sizeof(*entry) + len);
	entry->key_len = len;
	memcpy(entry->key, key, len);
	set_times(&cache->limits, answer, entry, now_ms);
	entry->answer = dns_answer_ref(answer);
	entry->bytes = sizeof(*entry) + len + answer->memory_bytes;
	cache->bytes += entry->bytes;
	HASH_ADD_KEYPTR(hh, cache->entries, entry->key, entry->key_len, entry);
	list_append(&cache->by_use, &entry->node);
	while (!list_is_empty(&cache->by_use) &&
	       (HASH_COUNT(cache->entries) > cache->limits.entries || cache->bytes > cache->limits.bytes))
		remove_entry(cache, CONTAINER_OF(cache->by_use.next, struct entry, node));
}

const struct dns_answer *dns_cache_find(struct dns_cache *cache, const char *name, uint16_t type, int64_t now_ms)
{
	struct entry *entry = find(cache, name, type);

	if (!entry)
		return NULL;
	if (now_ms >= entry->answer->expires_at_ms) {
		if (now_ms >= entry->stale_until_ms)
			remove_entry(cache, entry);
		return NULL;
	}
	list_remove(&entry->node);
	list_append(&cache->by_use, &entry->node);
	return entry->answer;
}

const struct dns_answer *dns_cache_find_stale(struct dns_cache *cache, const char *name, uint16_t type, int64_t now_ms)
{
	struct entry *entry = find(cache, name, type);

	if (!entry || now_ms >= entry->stale_until_ms)
		return NULL;
	/* The cache set this time in the first place; whoever holds the answer too only learns that it counts longer.
	 */
	((struct dns_answer *)(uintptr_t)entry->answer)->expires_at_ms =
	    MIN(now_ms + cache->limits.ttl_min_ms, entry->stale_until_ms);
	return entry->answer;
}

size_t dns_cache_count(const struct dns_cache *cache)
{
	return HASH_COUNT(cache->entries);
}

size_t dns_cache_bytes(const struct dns_cache *cache)
{
	return cache->bytes;
}
