#include "relayd/mta_sts.h"

#include "base/base.h"
#include "base/list.h"

#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

enum {
	SAVE_WITHIN_MS = 1000,
	LOOK_EACH_MS = 3600 * 1000,
	REFRESH_AFTER_MS = 24 * 3600 * 1000,
	REFRESH_AT_ONCE = 64, /* looks at the hour */
	EVICT_LOOKS = 64,
	ENTRY_BYTES = 200,
	HTTPS_PORT = 443,
	HTTP_OK = 200,
};

/*
 * What is known of a domain, and who waits to know it.
 *
 *     lookup ──▶ TXT on the way ──▶ known version: answered          other version ──▶ fetch on the way ──▶ answered
 *
 * In the map as long as it has a policy, a question on the way, somebody who waits, or a failure to remember.
 */
struct domain {
	struct mta_sts *owner;
	char *name;
	struct mta_sts_policy *policy; /* NULL: none is kept */
	char id[MTA_STS_ID_MAX + 1];
	int64_t fetched_wall, expires_wall;

	uint64_t txt_query, fetch; /* 0: not on the way */
	char fetch_id[MTA_STS_ID_MAX + 1];
	char failed_id[MTA_STS_ID_MAX + 1]; /* this version could not be had; not again before: */
	int64_t retry_ms;
	int64_t hasty_until_ms; /* somebody has waited in vain: until then nobody else does for long */
	struct list waiters;
	UT_hash_handle hh;
};

struct waiter {
	uint64_t id;
	struct mta_sts *owner;
	struct domain *domain; /* NULL: there is no room for another one */
	mta_sts_cb *cb;
	void *ctx;
	timer_id timer;
	struct list node; /* in domain->waiters, or among those who are answered now */
	UT_hash_handle hh;
};

struct mta_sts {
	struct mta_sts_options options;
	struct domain *domains; /* those that were asked for longest first */
	struct waiter *waiters;
	uint64_t last_id;
	size_t bytes, count; /* of the policies that are kept; see weight() */
	struct memo *memo;   /* NULL: nothing is kept on disk */
	timer_id look_timer;
};

/* ---- small things ---- */

static int64_t now_ms(const struct mta_sts *m)
{
	return clock_mono_ms(m->options.clock);
}

static int64_t now_wall(const struct mta_sts *m)
{
	return clock_wall_ms(m->options.clock);
}

static bool holds(const struct domain *d)
{
	return d->policy && now_wall(d->owner) < d->expires_wall;
}

/* Old enough to be fetched anew though it still holds. */
static bool is_stale(const struct domain *d)
{
	int64_t age = now_wall(d->owner) - d->fetched_wall;

	return d->policy && age > MIN((d->expires_wall - d->fetched_wall) / 2, (int64_t)REFRESH_AFTER_MS);
}

static bool is_idle(const struct domain *d)
{
	return !d->txt_query && !d->fetch && list_is_empty(&d->waiters);
}

/* ---- the map ---- */

/* No less than its place on the disk. */
static size_t weight(const struct domain *d)
{
	return strlen(d->name) + d->policy->bytes + ENTRY_BYTES;
}

static void drop_policy(struct domain *d)
{
	if (!d->policy)
		return;
	d->owner->bytes -= weight(d);
	d->owner->count--;
	mta_sts_policy_unref(&d->policy);
}

static void free_domain(struct domain *d)
{
	struct mta_sts *m = d->owner;

	drop_policy(d);
	dns_cancel(m->options.dns, &d->txt_query);
	if (d->fetch)
		m->options.fetcher.cancel(m->options.fetcher.ctx, &d->fetch);
	HASH_DEL(m->domains, d);
	free(d->name);
	free(d);
}

static void forget_if_useless(struct domain *d)
{
	if (is_idle(d) && !d->policy && now_ms(d->owner) >= MAX(d->retry_ms, d->hasty_until_ms))
		free_domain(d);
}

/* The one that was not asked for longest and has nothing on the way; `other` stays. False: there is none. */
static bool evict_one(struct mta_sts *m, const struct domain *other, bool must_have_policy)
{
	struct domain *d, *next;
	int looked = 0;

	HASH_ITER(hh, m->domains, d, next)
	{
		if (++looked > EVICT_LOOKS)
			break;
		if (d == other || !is_idle(d) || (must_have_policy && !d->policy))
			continue;
		free_domain(d);
		return true;
	}
	return false;
}

static struct domain *find_domain(struct mta_sts *m, const char *name)
{
	struct domain *d;

	HASH_FIND_STR(m->domains, name, d);
	return d;
}

/* NULL: no room. */
static struct domain *make_domain(struct mta_sts *m, const char *name)
{
	struct domain *d;

	if (HASH_COUNT(m->domains) >= MTA_STS_DOMAINS_MAX && !evict_one(m, NULL, false))
		return NULL;
	d = xcalloc(1, sizeof(*d));
	d->owner = m;
	d->name = xstrdup(name);
	list_init(&d->waiters);
	HASH_ADD_KEYPTR(hh, m->domains, d->name, strlen(d->name), d);
	return d;
}

/* To the end of the map's order. */
static void touch(struct domain *d)
{
	HASH_DEL(d->owner->domains, d);
	HASH_ADD_KEYPTR(hh, d->owner->domains, d->name, strlen(d->name), d);
}

static void keep_policy(struct domain *d, struct mta_sts_policy *policy, int64_t fetched_wall, int64_t expires_wall)
{
	drop_policy(d);
	d->policy = policy;
	d->fetched_wall = fetched_wall;
	d->expires_wall = expires_wall;
	d->owner->bytes += weight(d);
	d->owner->count++;
	while (d->owner->bytes > MTA_STS_BYTES_MAX && evict_one(d->owner, d, true))
		;
}

/* ---- the disk ---- */

static json_t *to_json(const struct domain *d)
{
	struct buf text;
	json_t *entry;

	buf_init(&text, 2 * MTA_STS_TEXT_MAX);
	mta_sts_policy_format(d->policy, &text);
	entry = json_pack("{s:s, s:I, s:I, s:s%}", "id", d->id, "fetched", (json_int_t)d->fetched_wall, "expires",
			  (json_int_t)d->expires_wall, "policy", buf_slice(&text).ptr, buf_len(&text));
	buf_fini(&text);
	return entry;
}

/* In the order of the map. */
static json_t *save(void *ctx)
{
	const struct mta_sts *m = ctx;
	json_t *document = json_object();

	for (const struct domain *d = m->domains; d; d = d->hh.next)
		if (holds(d))
			json_object_set_new(document, d->name, to_json(d));
	return document;
}

/* Written by ourselves, but maybe under another clock: no policy comes from the future, or lives longer than it says.
 */
static void take_entry(struct mta_sts *m, const char *name, json_t *entry)
{
	json_int_t fetched, expires;
	const char *id, *text;
	struct mta_sts_policy *policy;
	struct domain *d;

	if (!dns_name_is_host(name) || json_unpack(entry, "{s:s, s:I, s:I, s:s}", "id", &id, "fetched", &fetched,
						   "expires", &expires, "policy", &text) != 0)
		return;
	policy = mta_sts_policy_parse(slice_of_str(text), NULL);
	if (!policy)
		return;
	expires = MIN((int64_t)expires, now_wall(m) + policy->max_age_sec * 1000);
	d = expires > now_wall(m) ? make_domain(m, name) : NULL;
	if (!d) {
		mta_sts_policy_unref(&policy);
		return;
	}
	slice_to_cstr(slice_of_str(id), d->id, sizeof(d->id));
	keep_policy(d, policy, MIN((int64_t)fetched, now_wall(m)), expires);
}

static void load(struct mta_sts *m)
{
	json_t *document = memo_read(m->memo), *entry;
	const char *name;

	json_object_foreach(document, name, entry) take_entry(m, name, entry);
	json_decref(document);
}

/* ---- answers ---- */

static void free_waiter(struct waiter *w)
{
	timers_cancel(w->owner->options.timers, &w->timer);
	list_remove(&w->node);
	HASH_DEL(w->owner->waiters, w);
	free(w);
}

/* The waiter's end. The callback may do anything but free the whole. */
static void answer_one(struct waiter *w, enum mta_sts_answer answer, struct mta_sts_policy *policy)
{
	mta_sts_cb *cb = w->cb;
	void *ctx = w->ctx;

	free_waiter(w);
	cb(ctx, policy ? MTA_STS_HOLDS : answer, policy);
}

/* By the policy that holds, or else `otherwise`. The domain may be gone afterwards. */
static void answer_all(struct domain *d, enum mta_sts_answer otherwise)
{
	struct mta_sts_policy *policy = holds(d) ? mta_sts_policy_ref(d->policy) : NULL;
	struct list turn, *node;

	list_init(&turn);
	while ((node = list_pop(&d->waiters))) {
		CONTAINER_OF(node, struct waiter, node)->domain = NULL;
		list_append(&turn, node);
	}
	forget_if_useless(d);
	while (!list_is_empty(&turn))
		answer_one(CONTAINER_OF(turn.next, struct waiter, node), otherwise, policy);
	mta_sts_policy_unref(&policy);
}

static void on_wait_over(void *ctx)
{
	struct waiter *w = ctx;
	struct domain *d = w->domain;
	struct mta_sts_policy *policy = d && holds(d) ? mta_sts_policy_ref(d->policy) : NULL;

	w->timer = 0;
	if (d)
		d->hasty_until_ms = now_ms(d->owner) + MTA_STS_FAILURE_MS;
	answer_one(w, MTA_STS_UNKNOWN, policy);
	mta_sts_policy_unref(&policy);
}

/* ---- the fetch ---- */

static void note_failure(struct domain *d, const char *why)
{
	memcpy(d->failed_id, d->fetch_id, sizeof(d->failed_id));
	d->retry_ms = now_ms(d->owner) + MTA_STS_FAILURE_MS;
	log_event(d->owner->options.log, LOG_WARN, "mta_sts", LOG_STR("domain", d->name),
		  LOG_STR("version", d->fetch_id), LOG_STR("kept", holds(d) ? d->id : ""), LOG_STR("text", why));
}

static bool is_text_plain(const char *type)
{
	size_t len = strlen("text/plain");

	return strncasecmp(type, "text/plain", len) == 0 && (!type[len] || strchr("; \t", type[len]));
}

static struct mta_sts_policy *policy_of(const struct https_answer *answer, char *why, size_t size)
{
	struct mta_sts_policy *policy = NULL;
	struct err err;

	if (answer->result != HTTPS_ANSWERED)
		snprintf(why, size, "%s", answer->reason);
	else if (answer->status != HTTP_OK)
		snprintf(why, size, "the policy's server said %d", answer->status);
	else if (!is_text_plain(answer->content_type))
		snprintf(why, size, "the policy is %.60s, not text/plain", answer->content_type);
	else if (!(policy = mta_sts_policy_parse(answer->body, &err)))
		snprintf(why, size, "%s", err.text);
	return policy;
}

static void take_policy(struct domain *d, struct mta_sts_policy *policy)
{
	bool is_same = d->policy && strcmp(d->id, d->fetch_id) == 0 && d->policy->mode == policy->mode;
	int64_t wall = now_wall(d->owner);

	memcpy(d->id, d->fetch_id, sizeof(d->id));
	d->failed_id[0] = '\0';
	d->retry_ms = d->hasty_until_ms = 0;
	keep_policy(d, policy, wall, wall + policy->max_age_sec * 1000);
	if (d->owner->memo)
		memo_changed(d->owner->memo, SAVE_WITHIN_MS);
	log_event(d->owner->options.log, is_same ? LOG_DEBUG : LOG_INFO, "mta_sts", LOG_STR("domain", d->name),
		  LOG_STR("version", d->id), LOG_STR("mode", mta_sts_mode_name(policy->mode)),
		  LOG_INT("max_age", policy->max_age_sec));
}

static void on_fetched(void *ctx, const struct https_answer *answer)
{
	struct domain *d = ctx;
	char why[sizeof((struct err){0}.text)];
	struct mta_sts_policy *policy = policy_of(answer, why, sizeof(why));

	d->fetch = 0;
	if (policy)
		take_policy(d, policy);
	else
		note_failure(d, why);
	/* Those who came since then wait for the version that DNS says. */
	if (!d->txt_query)
		answer_all(d, MTA_STS_UNKNOWN);
}

static bool may_fetch(const struct domain *d, const char *id)
{
	return !d->fetch && (now_ms(d->owner) >= d->retry_ms || strcmp(d->failed_id, id) != 0);
}

static void fetch(struct domain *d, const char *id)
{
	struct mta_sts *m = d->owner;
	struct https_request request = {.answer_max_bytes = MTA_STS_TEXT_MAX, .timeout_ms = MTA_STS_FETCH_MS};
	char url[DNS_NAME_MAX + 64], port[8] = "";

	if (m->options.port != HTTPS_PORT)
		snprintf(port, sizeof(port), ":%u", m->options.port);
	snprintf(url, sizeof(url), "https://mta-sts.%s%s/.well-known/mta-sts.txt", d->name, port);
	request.url = url;
	snprintf(d->fetch_id, sizeof(d->fetch_id), "%s", id);
	d->fetch = m->options.fetcher.send(m->options.fetcher.ctx, &request, on_fetched, d);
}

/* ---- the record ---- */

/* True: there is exactly one record of ours, and it is whole (section 3.1). */
static bool find_record(const struct dns_answer *answer, char id[MTA_STS_ID_MAX + 1])
{
	char other[MTA_STS_ID_MAX + 1];
	size_t found = 0;
	bool is_good = false;

	for (size_t i = 0; i < answer->record_count; i++) {
		int rc = mta_sts_record_parse(answer->records[i].text, other);
		if (rc == 0)
			continue;
		found++;
		is_good = rc == 1;
		memcpy(id, other, sizeof(other));
	}
	return found == 1 && is_good;
}

static void on_txt(void *ctx, const struct dns_answer *answer)
{
	struct domain *d = ctx;
	char id[MTA_STS_ID_MAX + 1];

	d->txt_query = 0;
	if (answer->status == DNS_TEMPORARY) {
		d->hasty_until_ms = now_ms(d->owner) + MTA_STS_FAILURE_MS;
		answer_all(d, MTA_STS_UNKNOWN);
	} else if (answer->status != DNS_OK || !find_record(answer, id)) {
		answer_all(d, MTA_STS_ABSENT);
	} else if (holds(d) && strcmp(d->id, id) == 0) {
		if (is_stale(d) && may_fetch(d, id))
			fetch(d, id);
		answer_all(d, MTA_STS_ABSENT);
	} else if (may_fetch(d, id)) {
		fetch(d, id);
	} else if (!d->fetch) {
		answer_all(d, MTA_STS_UNKNOWN);
	}
}

static void ask(struct domain *d)
{
	char name[DNS_NAME_MAX + 16];

	if (d->txt_query)
		return;
	snprintf(name, sizeof(name), "_mta-sts.%s", d->name);
	d->txt_query = dns_query(d->owner->options.dns, name, DNS_TXT, on_txt, d);
}

/* ---- the hour ---- */

static void on_look_time(void *ctx)
{
	struct mta_sts *m = ctx;
	struct domain *d, *next;
	int asked = 0;

	HASH_ITER(hh, m->domains, d, next)
	{
		if (is_idle(d) && d->policy && !holds(d))
			drop_policy(d);
		if (is_idle(d) && is_stale(d) && asked < REFRESH_AT_ONCE) {
			asked++;
			ask(d);
		}
		forget_if_useless(d);
	}
	m->look_timer = timers_add(m->options.timers, now_ms(m) + LOOK_EACH_MS, on_look_time, m);
}

/* ---- the whole ---- */

static uint64_t send_by_https(void *ctx, const struct https_request *request, https_cb *cb, void *cb_ctx)
{
	return https_send(ctx, request, cb, cb_ctx);
}

static void cancel_at_https(void *ctx, uint64_t *id)
{
	https_cancel(ctx, id);
}

struct mta_sts_fetcher mta_sts_fetcher_https(struct https *https)
{
	return (struct mta_sts_fetcher){https, send_by_https, cancel_at_https};
}

struct mta_sts *mta_sts_new(const struct mta_sts_options *options)
{
	struct mta_sts *m = xcalloc(1, sizeof(*m));

	m->options = *options;
	m->options.port = options->port ? options->port : HTTPS_PORT;
	if (options->memos) {
		m->memo = memo_new(options->memos, "mta-sts.json", save, m);
		load(m);
	}
	m->look_timer = timers_add(m->options.timers, now_ms(m) + LOOK_EACH_MS, on_look_time, m);
	return m;
}

void mta_sts_free(struct mta_sts **mta_sts)
{
	struct mta_sts *m = *mta_sts;
	struct waiter *w, *next_waiter;
	struct domain *d, *next;

	*mta_sts = NULL;
	if (!m)
		return;
	HASH_ITER(hh, m->waiters, w, next_waiter)
	free_waiter(w);
	HASH_ITER(hh, m->domains, d, next)
	free_domain(d);
	timers_cancel(m->options.timers, &m->look_timer);
	free(m);
}

static int64_t patience_ms(const struct domain *d)
{
	if (!d)
		return 0;
	return now_ms(d->owner) < d->hasty_until_ms ? MTA_STS_HASTY_MS : MTA_STS_WAIT_MS;
}

uint64_t mta_sts_lookup(struct mta_sts *m, const char *name, mta_sts_cb *cb, void *ctx)
{
	struct waiter *w = xcalloc(1, sizeof(*w));
	struct domain *d = find_domain(m, name);

	*w = (struct waiter){.id = ++m->last_id, .owner = m, .cb = cb, .ctx = ctx};
	list_node_init(&w->node);
	HASH_ADD(hh, m->waiters, id, sizeof(w->id), w);
	if (d)
		touch(d);
	else
		d = make_domain(m, name);
	w->domain = d;
	w->timer = timers_add(m->options.timers, now_ms(m) + patience_ms(d), on_wait_over, w);
	if (d) {
		list_append(&d->waiters, &w->node);
		ask(d);
	}
	return w->id;
}

void mta_sts_cancel(struct mta_sts *m, uint64_t *id)
{
	struct waiter *w;

	HASH_FIND(hh, m->waiters, id, sizeof(*id), w);
	*id = 0;
	if (w)
		free_waiter(w);
}

void mta_sts_set_port(struct mta_sts *m, uint16_t port)
{
	m->options.port = port;
}

size_t mta_sts_count(const struct mta_sts *m)
{
	return m->count;
}
