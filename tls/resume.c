#include "tls/resume.h"

#include "base/base.h"
#include "base/list.h"

#include <stdlib.h>
#include <uthash.h>

/* Bigger ones hold a long certificate chain and are not worth their memory. */
#define DATA_MAX (16 * 1024)

struct entry {
	UT_hash_handle hh;
	struct list by_age; /* oldest first */
	int64_t expires_at_ms;
	bool single_use;
	char *data;
	size_t len;
	char key[];
};

struct tls_resume_cache {
	const struct clock *clock;
	struct entry *entries;
	struct list by_age;
	char *taken; /* what the last take handed out of a single-use entry */
};

struct tls_resume_cache *tls_resume_cache_new(const struct clock *clock)
{
	struct tls_resume_cache *cache = xcalloc(1, sizeof(*cache));

	cache->clock = clock;
	list_init(&cache->by_age);
	return cache;
}

static void free_secret(char *data, size_t len)
{
	if (data)
		explicit_bzero(data, len);
	free(data);
}

static void remove_entry(struct tls_resume_cache *cache, struct entry *entry)
{
	HASH_DEL(cache->entries, entry);
	list_remove(&entry->by_age);
	free_secret(entry->data, entry->len);
	free(entry);
}

void tls_resume_cache_free(struct tls_resume_cache **cache)
{
	struct tls_resume_cache *gone = *cache;

	*cache = NULL;
	if (!gone)
		return;
	LIST_FOREACH (node, &gone->by_age)
		remove_entry(gone, CONTAINER_OF(node, struct entry, by_age));
	free(gone->taken);
	free(gone);
}

size_t tls_resume_cache_count(const struct tls_resume_cache *cache)
{
	return HASH_COUNT(cache->entries);
}

/* The age list is in order of expiry, since all live equally long. */
static void remove_stale(struct tls_resume_cache *cache, size_t most)
{
	int64_t now = clock_mono_ms(cache->clock);

	LIST_FOREACH (node, &cache->by_age) {
		struct entry *entry = CONTAINER_OF(node, struct entry, by_age);

		if (entry->expires_at_ms > now && HASH_COUNT(cache->entries) <= most)
			break;
		remove_entry(cache, entry);
	}
}

void tls_resume_cache_put(struct tls_resume_cache *cache, const char *key, struct slice data, bool single_use)
{
	size_t key_len = strlen(key);
	struct entry *entry;

	if (!data.len || data.len > DATA_MAX)
		return;
	HASH_FIND(hh, cache->entries, key, key_len, entry);
	if (entry)
		remove_entry(cache, entry);
	remove_stale(cache, TLS_RESUME_ENTRIES - 1);
	entry = xcalloc(1, sizeof(*entry) + key_len + 1);
	memcpy(entry->key, key, key_len);
	entry->data = xmemdup(data.ptr, data.len);
	entry->len = data.len;
	entry->single_use = single_use;
	entry->expires_at_ms = clock_mono_ms(cache->clock) + TLS_RESUME_LIFETIME_MS;
	HASH_ADD_KEYPTR(hh, cache->entries, entry->key, key_len, entry);
	list_append(&cache->by_age, &entry->by_age);
}

struct slice tls_resume_cache_take(struct tls_resume_cache *cache, const char *key)
{
	struct entry *entry;
	struct slice data;

	free(cache->taken);
	cache->taken = NULL;
	remove_stale(cache, TLS_RESUME_ENTRIES);
	HASH_FIND(hh, cache->entries, key, strlen(key), entry);
	if (!entry)
		return (struct slice){0};
	data = slice_of(entry->data, entry->len);
	if (entry->single_use) {
		cache->taken = entry->data;
		entry->data = NULL;
		remove_entry(cache, entry);
	}
	return data;
}
