#include "relayd/quota.h"

#include "base/base.h"

#include <stdlib.h>
#include <uthash.h>

#define NS_PER_MS INT64_C(1000000)
#define PER_MAX_MS (100 * 365 * CONFIG_DAY_MS) /* so that sums of it fit */

struct bucket {
	UT_hash_handle hh;
	int64_t full_at_ns;
	char name[];
};

struct quota {
	struct bucket *buckets; /* uthash keeps them in order; the front is looked at for full ones */
};

struct quota *quota_new(void)
{
	return xcalloc(1, sizeof(struct quota));
}

static void bucket_free(struct quota *quota, struct bucket *bucket)
{
	HASH_DEL(quota->buckets, bucket);
	free(bucket);
}

void quota_free(struct quota **quota)
{
	if (!*quota)
		return;
	while ((*quota)->buckets)
		bucket_free(*quota, (*quota)->buckets);
	free(*quota);
	*quota = NULL;
}

static struct bucket *find(const struct quota *quota, struct slice user)
{
	struct bucket *bucket;

	HASH_FIND(hh, quota->buckets, user.ptr, user.len, bucket);
	return bucket;
}

/* Each new bucket looks at two old ones, so there are at most about twice as many as are not full. */
static void forget_full_ones(struct quota *quota, int64_t now_ns)
{
	for (int i = 0; i < 2 && quota->buckets; i++) {
		struct bucket *first = quota->buckets;
		bool is_full = first->full_at_ns <= now_ns;
		HASH_DEL(quota->buckets, first);
		if (is_full)
			free(first);
		else
			HASH_ADD_KEYPTR(hh, quota->buckets, first->name, strlen(first->name), first);
	}
}

static struct bucket *add(struct quota *quota, struct slice user, int64_t now_ns)
{
	struct bucket *bucket = xcalloc(1, sizeof(*bucket) + user.len + 1);

	forget_full_ones(quota, now_ns);
	memcpy(bucket->name, user.ptr, user.len);
	HASH_ADD_KEYPTR(hh, quota->buckets, bucket->name, user.len, bucket);
	return bucket;
}

/* What one token takes to come back. */
static int64_t interval_ns(const struct config_rate *rate)
{
	return MIN(rate->per_ms, PER_MAX_MS) * NS_PER_MS / rate->count;
}

int64_t quota_take(struct quota *quota, struct slice user, const struct config_rate *rate, int64_t now_ms)
{
	int64_t now_ns = now_ms * NS_PER_MS, interval, full_at, over;
	struct bucket *bucket = find(quota, user);

	if (rate->count == 0)
		return 0;
	interval = interval_ns(rate);
	full_at = (bucket ? MAX(bucket->full_at_ns, now_ns) : now_ns) + interval;
	over = full_at - now_ns - interval * rate->count;
	if (over > 0)
		return (over + NS_PER_MS - 1) / NS_PER_MS;
	if (!bucket)
		bucket = add(quota, user, now_ns);
	bucket->full_at_ns = full_at;
	return 0;
}

void quota_give_back(struct quota *quota, struct slice user, const struct config_rate *rate)
{
	struct bucket *bucket = find(quota, user);

	if (bucket && rate->count > 0)
		bucket->full_at_ns -= interval_ns(rate);
}

size_t quota_count(const struct quota *quota)
{
	return HASH_COUNT(quota->buckets);
}
