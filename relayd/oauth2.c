#include "relayd/oauth2.h"

#include "base/base.h"
#include "base/list.h"
#include "relayd/oauth2_grant.h"
#include "relayd/outcome.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	REQUEST_TIMEOUT_MS = 30 * 1000,
	ANSWER_MAX_BYTES = 64 * 1024,
	FORM_MAX_BYTES = 64 * 1024,
	AHEAD_MAX_SEC = 300,	 /* before it expires, and at most a quarter of its life */
	GOOD_FOR_MS = 10 * 1000, /* before it expires it is not given out any more; at most an eighth of its life */
	BACKOFF_FIRST_MS = 5 * 1000,
	BACKOFF_MAX_MS = 5 * 60 * 1000,
	RETRY_AFTER_MAX_MS = 15 * 60 * 1000,
	FORCE_EACH_MS = 5 * 60 * 1000,
	SEED_BYTES = 16,
};

#define SEED_HEX (2 * SEED_BYTES + 1)

/* One relayhost's account at its token endpoint. */
struct account {
	struct list node;
	struct oauth2 *owner;
	char *name;
	struct config *config; /* that `relayhost` is part of */
	const struct config_relayhost *relayhost;
	char endpoint[1024];

	char *token;
	uint64_t number;				 /* of the token */
	int64_t good_until_ms, expires_ms, expires_wall; /* good: so long it is given out */

	uint64_t request;
	bool tries_configured; /* the kept refresh token was refused: this time without it */
	bool is_held;	       /* on_trouble() was told */
	unsigned failures;
	char trouble[OAUTH2_WORDS_MAX + 64]; /* "": the last request succeeded, or none was made */
	char *used_secret, *used_refresh;    /* of the request under way */
	char seed[SEED_HEX];		     /* of the refresh token that is configured */
	timer_id timer;
	int64_t forced_ms; /* when a refused token was last dropped; 0: never */
};

struct waiter {
	struct list node;
	uint64_t id;
	char *relayhost;
	oauth2_cb *cb;
	void *ctx;
};

struct oauth2 {
	struct oauth2_options options;
	struct list accounts, waiters;
	json_t *kept; /* relayhost -> {"seed", "refresh_token"} */
	struct memo *memo;
	uint64_t last_id, last_number;
	bool serve_posted;
};

static void fetch(void *ctx);

static int64_t now_ms(const struct oauth2 *oauth2)
{
	return loop_now_ms(oauth2->options.loop);
}

static struct account *find(const struct oauth2 *oauth2, const char *relayhost)
{
	LIST_FOREACH (node, &oauth2->accounts) {
		struct account *account = CONTAINER_OF(node, struct account, node);
		if (strcmp(account->name, relayhost) == 0)
			return account;
	}
	return NULL;
}

static bool has_good_token(const struct account *account)
{
	return account->token && account->good_until_ms > now_ms(account->owner);
}

static void forget_token(struct account *account)
{
	config_secret_wipe(&account->token);
	account->good_until_ms = account->expires_ms = account->expires_wall = 0;
}

static void wake_at(struct account *account, int64_t at_ms)
{
	timers_set(loop_timers(account->owner->options.loop), &account->timer, at_ms, fetch, account);
}

/* ---- those who wait ---- */

/* The account can say now whether there is a token. */
static bool is_settled(const struct account *account)
{
	return !account || has_good_token(account) || (account->request == 0 && account->failures > 0);
}

static void answer(struct oauth2 *oauth2, struct waiter *waiter)
{
	struct account *account = find(oauth2, waiter->relayhost);
	bool is_good = account && has_good_token(account);

	waiter->cb(waiter->ctx, is_good ? account->token : NULL, is_good ? account->number : 0,
		   is_good   ? ""
		   : account ? account->trouble
			     : "this relayhost has no oauth2 any more");
	free(waiter->relayhost);
	free(waiter);
}

static struct waiter *pop_settled(struct oauth2 *oauth2)
{
	LIST_FOREACH (node, &oauth2->waiters) {
		struct waiter *waiter = CONTAINER_OF(node, struct waiter, node);
		if (!is_settled(find(oauth2, waiter->relayhost)))
			continue;
		list_remove(&waiter->node);
		return waiter;
	}
	return NULL;
}

static void serve(void *ctx)
{
	struct oauth2 *oauth2 = ctx;
	struct waiter *waiter;

	oauth2->serve_posted = false;
	while ((waiter = pop_settled(oauth2)))
		answer(oauth2, waiter);
}

static void serve_later(struct oauth2 *oauth2)
{
	if (!oauth2->serve_posted)
		loop_post(oauth2->options.loop, serve, oauth2);
	oauth2->serve_posted = true;
}

uint64_t oauth2_ask(struct oauth2 *oauth2, const char *relayhost, oauth2_cb *cb, void *ctx)
{
	struct waiter *waiter = xcalloc(1, sizeof(*waiter));

	*waiter = (struct waiter){.id = ++oauth2->last_id, .relayhost = xstrdup(relayhost), .cb = cb, .ctx = ctx};
	list_append(&oauth2->waiters, &waiter->node);
	serve_later(oauth2);
	return waiter->id;
}

void oauth2_cancel(struct oauth2 *oauth2, uint64_t *id)
{
	LIST_FOREACH (node, &oauth2->waiters) {
		struct waiter *waiter = CONTAINER_OF(node, struct waiter, node);
		if (*id == 0 || waiter->id != *id)
			continue;
		list_remove(&waiter->node);
		free(waiter->relayhost);
		free(waiter);
	}
	*id = 0;
}

bool oauth2_on_refused(struct oauth2 *oauth2, const char *relayhost, uint64_t number)
{
	struct account *account = find(oauth2, relayhost);

	if (!account)
		return false;
	if (account->number != number || !account->token)
		return true;
	if (account->forced_ms != 0 && now_ms(oauth2) - account->forced_ms < FORCE_EACH_MS)
		return false;
	account->forced_ms = now_ms(oauth2);
	forget_token(account);
	log_event(oauth2->options.log, LOG_WARN, "oauth2", LOG_STR("relayhost", relayhost), LOG_STR("state", "refused"),
		  LOG_STR("text", "the relayhost refused the token, a new one is fetched"));
	if (account->request == 0)
		wake_at(account, now_ms(oauth2));
	account->failures = 0;
	return true;
}

/* ---- refresh tokens that change ---- */

/* The one in the memo, if it descends from the configured one. */
static const char *kept_refresh_token(const struct account *account)
{
	const json_t *entry = json_object_get(account->owner->kept, account->name);
	const char *seed = json_string_value(json_object_get(entry, "seed"));

	return seed && strcmp(seed, account->seed) == 0 ? json_string_value(json_object_get(entry, "refresh_token"))
							: NULL;
}

static void keep_refresh_token(struct account *account, const char *refresh_token)
{
	json_object_set_new(account->owner->kept, account->name,
			    json_pack("{s:s, s:s}", "seed", account->seed, "refresh_token", refresh_token));
	memo_changed(account->owner->memo, 0);
}

/* It was refused, and the configured one was not. */
static void drop_refresh_token(struct account *account)
{
	json_object_del(account->owner->kept, account->name);
	memo_changed(account->owner->memo, 0);
}

static json_t *save(void *ctx)
{
	return json_incref(((struct oauth2 *)ctx)->kept);
}

/* Tells one configured refresh token from another without showing it. */
static void make_seed(struct account *account, const char *configured)
{
	unsigned char hash[SEED_BYTES];
	crypto_generichash_state state;

	crypto_generichash_init(&state, NULL, 0, sizeof(hash));
	crypto_generichash_update(&state, (const unsigned char *)configured, strlen(configured) + 1);
	crypto_generichash_update(&state, (const unsigned char *)account->relayhost->oauth2.client_id,
				  strlen(account->relayhost->oauth2.client_id));
	crypto_generichash_final(&state, hash, sizeof(hash));
	sodium_bin2hex(account->seed, sizeof(account->seed), hash, sizeof(hash));
}

/* ---- a request ---- */

static void wipe_used(struct account *account)
{
	config_secret_wipe(&account->used_secret);
	config_secret_wipe(&account->used_refresh);
}

static void hold(struct account *account, int64_t next_try_ms)
{
	struct oauth2 *oauth2 = account->owner;
	const struct outcome_place place = {STAGE_AUTH, account->relayhost->address.host, true, 0};
	struct outcome outcome;
	char text[sizeof(account->trouble) + 32];

	snprintf(text, sizeof(text), "no access token: %s", account->trouble);
	outcome_of_fault(&outcome, &place, OUTCOME_DEFERRED, CLASS_AUTH, NULL, text);
	account->is_held = true;
	oauth2->options.on_trouble(oauth2->options.ctx, account->name, &outcome, next_try_ms);
}

static int64_t backoff_ms(struct account *account, int64_t retry_after_ms)
{
	int64_t wait = MIN((int64_t)BACKOFF_FIRST_MS << MIN(account->failures, 12u), (int64_t)BACKOFF_MAX_MS);

	wait = wait * 4 / 5 + (int64_t)rng_below(account->owner->options.rng, (uint64_t)wait * 2 / 5);
	return MAX(wait, MIN(retry_after_ms, (int64_t)RETRY_AFTER_MAX_MS));
}

static void on_failure(struct account *account, const char *words, int64_t retry_after_ms)
{
	struct oauth2 *oauth2 = account->owner;
	int64_t wait = backoff_ms(account, retry_after_ms);
	bool is_good = has_good_token(account);

	wipe_used(account);
	account->failures++;
	snprintf(account->trouble, sizeof(account->trouble), "%s", words);
	log_event(oauth2->options.log, is_good ? LOG_WARN : LOG_ERROR, "oauth2", LOG_STR("relayhost", account->name),
		  LOG_STR("state", "failed"), LOG_STR("text", account->trouble), LOG_INT("next_try_sec", wait / 1000));
	wake_at(account, now_ms(oauth2) + wait);
	if (is_good)
		return;
	forget_token(account);
	hold(account, now_ms(oauth2) + wait);
	serve_later(oauth2);
}

static void take_token(struct account *account, struct oauth2_answer *granted)
{
	struct oauth2 *oauth2 = account->owner;
	int64_t life_ms = granted->expires_in_sec * 1000;
	int64_t ahead_ms = MIN(life_ms / 4, AHEAD_MAX_SEC * INT64_C(1000));

	forget_token(account);
	account->token = granted->access_token;
	granted->access_token = NULL;
	account->number = ++oauth2->last_number;
	account->expires_ms = now_ms(oauth2) + life_ms;
	account->good_until_ms = account->expires_ms - MIN(life_ms / 8, (int64_t)GOOD_FOR_MS);
	account->expires_wall = clock_wall_ms(oauth2->options.clock) + life_ms;
	account->failures = 0;
	account->trouble[0] = '\0';
	/* Not all of a fleet at the same moment. */
	ahead_ms += (int64_t)rng_below(oauth2->options.rng, (uint64_t)life_ms / 20 + 1);
	wake_at(account, account->expires_ms - ahead_ms);
	series_set(metrics_series(oauth2->options.metrics, METRIC_OAUTH_TOKEN_EXPIRY, account->name, NULL, NULL),
		   (double)account->expires_wall / 1000);
}

static void on_grant(struct account *account, struct oauth2_answer *granted)
{
	struct oauth2 *oauth2 = account->owner;
	bool is_new = granted->refresh_token && account->used_refresh &&
		      strcmp(granted->refresh_token, account->used_refresh) != 0;

	take_token(account, granted);
	if (is_new)
		keep_refresh_token(account, granted->refresh_token);
	else if (account->tries_configured)
		drop_refresh_token(account);
	account->tries_configured = false;
	wipe_used(account);
	log_event(oauth2->options.log, LOG_INFO, "oauth2", LOG_STR("relayhost", account->name),
		  LOG_STR("state", "token"), LOG_INT("expires_sec", granted->expires_in_sec),
		  LOG_STR("text", is_new ? "with a new refresh token" : ""));
	if (account->is_held) {
		account->is_held = false;
		oauth2->options.on_mended(oauth2->options.ctx, account->name);
	}
	serve_later(oauth2);
}

static void read_answer(struct account *account, const struct https_answer *told)
{
	const char *secrets[] = {account->used_secret, account->used_refresh, account->token};
	struct oauth2_answer read;

	oauth2_read_answer(told->status, told->body, secrets, ARRAY_LEN(secrets), &read);
	if (read.verdict == OAUTH2_GRANTED) {
		on_grant(account, &read);
	} else if (read.verdict == OAUTH2_REFUSED && !account->tries_configured && kept_refresh_token(account)) {
		account->tries_configured = true;
		wipe_used(account);
		wake_at(account, now_ms(account->owner));
	} else {
		account->tries_configured = false;
		on_failure(account, read.words, told->retry_after_ms);
	}
	config_secret_wipe(&read.access_token);
	config_secret_wipe(&read.refresh_token);
}

static void on_answer(void *ctx, const struct https_answer *told)
{
	struct account *account = ctx;
	char words[sizeof(account->trouble)];

	account->request = 0;
	if (told->result == HTTPS_ANSWERED) {
		read_answer(account, told);
		return;
	}
	snprintf(words, sizeof(words), "the token endpoint cannot be asked: %s: %.200s",
		 https_result_name(told->result), told->reason);
	on_failure(account, words, 0);
}

/* Reads what the operator configured, and chooses the refresh token. */
static int read_secrets(struct account *account, struct err *err)
{
	const struct config_oauth2 *oauth2 = &account->relayhost->oauth2;
	const char *kept;
	int rc = 0;

	wipe_used(account);
	account->seed[0] = '\0';
	if (config_secret_is_set(&oauth2->client_secret))
		rc = config_secret_read(&oauth2->client_secret, &account->used_secret, err);
	if (rc != 0 || !config_secret_is_set(&oauth2->refresh_token))
		return rc;
	rc = config_secret_read(&oauth2->refresh_token, &account->used_refresh, err);
	if (rc != 0)
		return rc;
	make_seed(account, account->used_refresh);
	kept = account->tries_configured ? NULL : kept_refresh_token(account);
	if (kept) {
		config_secret_wipe(&account->used_refresh);
		account->used_refresh = xstrdup(kept);
	}
	return 0;
}

static void send_form(struct account *account)
{
	static const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded",
					      "Accept: application/json"};
	struct https_request request = {.url = account->endpoint,
					.headers = headers,
					.header_count = ARRAY_LEN(headers),
					.answer_max_bytes = ANSWER_MAX_BYTES,
					.timeout_ms = REQUEST_TIMEOUT_MS,
					.is_configured_name = true};
	struct buf form;

	buf_init(&form, FORM_MAX_BYTES);
	/* All at once: a block that grows leaves its old bytes behind. */
	BUG_ON(!buf_reserve(&form, FORM_MAX_BYTES));
	if (oauth2_form(&account->relayhost->oauth2, account->used_secret, account->used_refresh, &form) == 0) {
		request.body = buf_slice(&form);
		account->request = https_send(account->owner->options.https, &request, on_answer, account);
	} else {
		on_failure(account, "client id, scope and secrets are too long", 0);
	}
	sodium_memzero(form.data, form.cap);
	buf_fini(&form);
}

/* A timer's callback. */
static void fetch(void *ctx)
{
	struct account *account = ctx;
	struct err err;

	account->timer = 0;
	if (account->request != 0)
		return;
	if (read_secrets(account, &err) == 0)
		send_form(account);
	else
		on_failure(account, err.text, 0);
}

/* ---- accounts ---- */

static void account_free(struct account *account)
{
	struct oauth2 *oauth2 = account->owner;

	https_cancel(oauth2->options.https, &account->request);
	timers_cancel(loop_timers(oauth2->options.loop), &account->timer);
	list_remove(&account->node);
	forget_token(account);
	wipe_used(account);
	config_free(&account->config);
	free(account->name);
	free(account);
}

static bool is_same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool is_same_secret(const struct config_secret *a, const struct config_secret *b)
{
	return is_same(a->file, b->file) && is_same(a->value, b->value);
}

static bool is_same_account(const struct config_relayhost *a, const struct config_relayhost *b)
{
	return a->oauth2.provider == b->oauth2.provider && is_same(a->oauth2.tenant, b->oauth2.tenant) &&
	       is_same(a->oauth2.client_id, b->oauth2.client_id) && is_same(a->oauth2.scope, b->oauth2.scope) &&
	       is_same(a->oauth2.token_url, b->oauth2.token_url) && is_same(a->username, b->username) &&
	       is_same_secret(&a->oauth2.client_secret, &b->oauth2.client_secret) &&
	       is_same_secret(&a->oauth2.refresh_token, &b->oauth2.refresh_token);
}

static void account_configure(struct account *account, struct config *config, const struct config_relayhost *relayhost)
{
	struct config *old = account->config;
	bool is_new = !account->relayhost || !is_same_account(account->relayhost, relayhost);

	account->config = config_ref(config);
	account->relayhost = relayhost;
	config_free(&old);
	if (!oauth2_endpoint(&relayhost->oauth2, account->endpoint, sizeof(account->endpoint)))
		account->endpoint[0] = '\0'; /* refused by https_send() with words */
	if (is_new) {
		https_cancel(account->owner->options.https, &account->request);
		forget_token(account);
	}
	if (is_new || account->failures > 0) {
		account->failures = 0;
		account->forced_ms = 0;
		account->tries_configured = false;
		wake_at(account, now_ms(account->owner));
	}
}

static struct account *account_new(struct oauth2 *oauth2, const char *name)
{
	struct account *account = xcalloc(1, sizeof(*account));

	account->owner = oauth2;
	account->name = xstrdup(name);
	list_append(&oauth2->accounts, &account->node);
	metrics_series(oauth2->options.metrics, METRIC_OAUTH_TOKEN_EXPIRY, name, NULL, NULL);
	return account;
}

void oauth2_configure(struct oauth2 *oauth2, struct config *config)
{
	LIST_FOREACH (node, &oauth2->accounts) {
		struct account *account = CONTAINER_OF(node, struct account, node);
		const struct config_relayhost *relayhost = config_find_relayhost(config, slice_of_str(account->name));
		if (relayhost && relayhost->oauth2.provider != CONFIG_OAUTH2_NONE)
			continue;
		if (account->is_held)
			oauth2->options.on_mended(oauth2->options.ctx, account->name);
		account_free(account);
	}
	for (size_t i = 0; i < config->relayhost_count; i++) {
		const struct config_relayhost *relayhost = &config->relayhosts[i];
		struct account *account = find(oauth2, relayhost->name);
		if (relayhost->oauth2.provider == CONFIG_OAUTH2_NONE)
			continue;
		account_configure(account ? account : account_new(oauth2, relayhost->name), config, relayhost);
	}
	serve_later(oauth2);
}

const char *oauth2_state_name(enum oauth2_state state)
{
	static const char *const names[] = {"none", "fetching", "valid", "failing"};

	return names[state];
}

void oauth2_look(const struct oauth2 *oauth2, const char *relayhost, struct oauth2_status *out)
{
	const struct account *account = oauth2 ? find(oauth2, relayhost) : NULL;

	*out = (struct oauth2_status){.trouble = ""};
	if (!account)
		return;
	out->trouble = account->trouble;
	out->is_asking = account->request != 0;
	out->expires_wall = account->expires_wall;
	out->state = has_good_token(account) ? OAUTH2_VALID : account->failures == 0 ? OAUTH2_FETCHING : OAUTH2_FAILING;
}

struct oauth2 *oauth2_new(const struct oauth2_options *options)
{
	struct oauth2 *oauth2 = xcalloc(1, sizeof(*oauth2));

	oauth2->options = *options;
	list_init(&oauth2->accounts);
	list_init(&oauth2->waiters);
	oauth2->memo = memo_new(options->memos, "oauth2.json", save, oauth2);
	oauth2->kept = memo_read(oauth2->memo);
	if (!json_is_object(oauth2->kept)) {
		json_decref(oauth2->kept);
		oauth2->kept = json_object();
	}
	return oauth2;
}

void oauth2_free(struct oauth2 **oauth2)
{
	struct oauth2 *o = *oauth2;

	if (!o)
		return;
	loop_unpost(o->options.loop, o);
	while (!list_is_empty(&o->accounts))
		account_free(CONTAINER_OF(o->accounts.next, struct account, node));
	while (!list_is_empty(&o->waiters)) {
		struct waiter *waiter = CONTAINER_OF(list_pop(&o->waiters), struct waiter, node);
		free(waiter->relayhost);
		free(waiter);
	}
	json_decref(o->kept);
	free(o);
	*oauth2 = NULL;
}
