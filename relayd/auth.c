#include "relayd/auth.h"

#include "base/base.h"
#include "base/buf.h"
#include "base/list.h"

#include <sodium.h>
#include <stdlib.h>
#include <uthash.h>

enum {
	REMEMBER_MS = 10 * 60 * 1000,
	REMEMBERED_MAX = 1024,
	ADDRESSES_MAX = 4096,
	FORGIVE_MS = 10 * 60 * 1000, /* without a failure for so long an address starts afresh */
	DELAY_FIRST_MS = 250,
	DELAY_MAX_MS = 4000,
	FAILURES_MAX = 10, /* then the address is shut out */
	SHUT_OUT_MS = 60 * 1000,
	CHECKS_PER_ADDRESS = 4, /* at a time; more would hold others up, and be guesses that nothing slows down */
};

struct credential {
	UT_hash_handle hh;
	unsigned char key[32];
	int64_t until_ms;
	char *options;
};

struct address {
	UT_hash_handle hh;
	struct dns_address key;
	unsigned failures;
	int64_t last_ms, shut_until_ms;
};

/* Who has requests in the backend just now. */
struct origin {
	UT_hash_handle hh;
	struct dns_address key;
	unsigned checking;
	struct list waiting; /* requests; only while `checking` is at its limit */
};

struct request {
	UT_hash_handle hh;
	uint64_t id;
	struct auth *auth;
	struct origin *origin; /* in the backend, or waiting */
	struct list node;      /* in origin->waiting */
	struct buf secret;     /* user and password, while it waits */
	size_t user_len;
	unsigned char credential[32];
	struct dns_address address;
	auth_cb *cb; /* NULL: cancelled */
	void *ctx;
	enum auth_verdict verdict;
	char *options;
	uint64_t generation; /* of the users it is checked against */
	timer_id timer;
	bool in_backend;
};

struct auth {
	struct loop *loop;
	struct auth_backend backend;
	unsigned char hash_key[crypto_generichash_KEYBYTES];
	struct credential *credentials;
	struct address *addresses;
	struct origin *origins;
	struct request *requests;
	uint64_t last_id, generation;
};

const char *auth_verdict_name(enum auth_verdict verdict)
{
	static const char *const names[] = {"ok", "failed", "error", "blocked"};
	return names[verdict];
}

struct auth *auth_new(struct loop *loop, struct rng *rng, const struct auth_backend *backend)
{
	struct auth *auth = xcalloc(1, sizeof(*auth));

	auth->loop = loop;
	auth->backend = *backend;
	rng->fill(rng, auth->hash_key, sizeof(auth->hash_key));
	return auth;
}

static void credential_free(struct auth *auth, struct credential *credential)
{
	HASH_DEL(auth->credentials, credential);
	free(credential->options);
	free(credential);
}

void auth_forget(struct auth *auth)
{
	struct credential *credential, *next;

	auth->generation++;
	HASH_ITER(hh, auth->credentials, credential, next)
	credential_free(auth, credential);
}

static void wipe_secret(struct request *request)
{
	if (request->secret.data)
		sodium_memzero(request->secret.data, request->secret.cap);
	buf_fini(&request->secret);
}

static void request_free(struct request *request)
{
	list_remove(&request->node);
	wipe_secret(request);
	timers_cancel(loop_timers(request->auth->loop), &request->timer);
	HASH_DEL(request->auth->requests, request);
	free(request->options);
	free(request);
}

void auth_free(struct auth **auth)
{
	struct address *address, *next_address;
	struct request *request, *next_request;
	struct origin *origin, *next_origin;

	if (!*auth)
		return;
	auth_forget(*auth);
	HASH_ITER(hh, (*auth)->requests, request, next_request)
	request_free(request);
	HASH_ITER(hh, (*auth)->origins, origin, next_origin)
	{
		HASH_DEL((*auth)->origins, origin);
		free(origin);
	}
	HASH_ITER(hh, (*auth)->addresses, address, next_address)
	{
		HASH_DEL((*auth)->addresses, address);
		free(address);
	}
	sodium_memzero((*auth)->hash_key, sizeof((*auth)->hash_key));
	free(*auth);
	*auth = NULL;
}

/* The lengths go in too, so that ("ab", "c") and ("a", "bc") differ. */
static void credential_key(const struct auth *auth, struct slice user, struct slice password, unsigned char out[32])
{
	crypto_generichash_state state;
	uint64_t lengths[2] = {user.len, password.len};

	crypto_generichash_init(&state, auth->hash_key, sizeof(auth->hash_key), 32);
	crypto_generichash_update(&state, (const unsigned char *)lengths, sizeof(lengths));
	if (user.len)
		crypto_generichash_update(&state, (const unsigned char *)user.ptr, user.len);
	if (password.len)
		crypto_generichash_update(&state, (const unsigned char *)password.ptr, password.len);
	crypto_generichash_final(&state, out, 32);
}

static struct address *find_address(struct auth *auth, const struct dns_address *key)
{
	struct address *address;
	HASH_FIND(hh, auth->addresses, key, sizeof(*key), address);
	return address;
}

static void note_failure(struct auth *auth, const struct dns_address *key)
{
	struct address *address = find_address(auth, key);
	int64_t now = loop_now_ms(auth->loop);

	if (!address) {
		if (HASH_COUNT(auth->addresses) >= ADDRESSES_MAX) {
			struct address *oldest = auth->addresses; /* uthash keeps the order of insertion */
			HASH_DEL(auth->addresses, oldest);
			free(oldest);
		}
		address = xcalloc(1, sizeof(*address));
		address->key = *key;
		HASH_ADD(hh, auth->addresses, key, sizeof(*key), address);
	}
	if (now - address->last_ms > FORGIVE_MS)
		address->failures = 0;
	address->failures++;
	address->last_ms = now;
	if (address->failures % FAILURES_MAX == 0)
		address->shut_until_ms = now + SHUT_OUT_MS;
}

static void note_success(struct auth *auth, const struct dns_address *key)
{
	struct address *address = find_address(auth, key);

	if (!address)
		return;
	HASH_DEL(auth->addresses, address);
	free(address);
}

static int64_t delay_of(struct auth *auth, const struct dns_address *key)
{
	struct address *address = find_address(auth, key);

	if (!address || address->failures == 0)
		return 0;
	return MIN((int64_t)DELAY_FIRST_MS << MIN(address->failures - 1, 10u), (int64_t)DELAY_MAX_MS);
}

static void remember(struct auth *auth, const unsigned char key[32], struct slice options)
{
	struct credential *credential;

	HASH_FIND(hh, auth->credentials, key, 32, credential);
	if (!credential) {
		if (HASH_COUNT(auth->credentials) >= REMEMBERED_MAX)
			credential_free(auth, auth->credentials);
		credential = xcalloc(1, sizeof(*credential));
		memcpy(credential->key, key, 32);
		HASH_ADD(hh, auth->credentials, key, 32, credential);
	}
	free(credential->options);
	credential->options = xmemdup(options.ptr, options.len);
	credential->until_ms = loop_now_ms(auth->loop) + REMEMBER_MS;
}

static const char *recall(struct auth *auth, const unsigned char key[32])
{
	struct credential *credential;

	HASH_FIND(hh, auth->credentials, key, 32, credential);
	if (credential && credential->until_ms <= loop_now_ms(auth->loop)) {
		credential_free(auth, credential);
		credential = NULL;
	}
	return credential ? credential->options : NULL;
}

static void on_answer_due(void *ctx)
{
	struct request *request = ctx;
	auth_cb *cb = request->cb;
	void *cb_ctx = request->ctx;
	enum auth_verdict verdict = request->verdict;
	char *options = request->options;

	request->options = NULL;
	request_free(request);
	if (cb)
		cb(cb_ctx, verdict, slice_of_str(options));
	free(options);
}

static void answer_in(struct request *request, enum auth_verdict verdict, struct slice options, int64_t delay_ms)
{
	struct loop *loop = request->auth->loop;

	request->verdict = verdict;
	request->options = xmemdup(options.ptr, options.len);
	timers_set(loop_timers(loop), &request->timer, loop_now_ms(loop) + delay_ms, on_answer_due, request);
}

/* ---- so many of an address at a time ---- */

static void on_checked(void *ctx, enum auth_verdict verdict, struct slice options);

static struct origin *origin_get(struct auth *auth, const struct dns_address *key)
{
	struct origin *origin;

	HASH_FIND(hh, auth->origins, key, sizeof(*key), origin);
	if (origin)
		return origin;
	origin = xcalloc(1, sizeof(*origin));
	origin->key = *key;
	list_init(&origin->waiting);
	HASH_ADD(hh, auth->origins, key, sizeof(*key), origin);
	return origin;
}

static void begin_check(struct request *request, struct slice user, struct slice password)
{
	struct auth *auth = request->auth;

	request->origin->checking++;
	request->generation = auth->generation;
	request->in_backend = true;
	auth->backend.verify(auth->backend.ctx, user, password, on_checked, request);
}

static void wait_for_others(struct request *request, struct slice user, struct slice password)
{
	buf_init(&request->secret, user.len + password.len);
	buf_append(&request->secret, user);
	buf_append(&request->secret, password);
	request->user_len = user.len;
	list_append(&request->origin->waiting, &request->node);
}

/* True: it could be answered without a check. */
static bool answer_at_once(struct request *request)
{
	struct auth *auth = request->auth;
	struct address *known = find_address(auth, &request->address);
	const char *options = recall(auth, request->credential);

	if (options)
		answer_in(request, AUTH_GOOD, slice_of_str(options), 0);
	else if (known && known->shut_until_ms > loop_now_ms(auth->loop))
		answer_in(request, AUTH_SHUT_OUT, SLICE(""), 0);
	else
		return false;
	return true;
}

static void begin_next(struct auth *auth, struct origin *origin)
{
	struct list *node;

	while (origin->checking < CHECKS_PER_ADDRESS && (node = list_pop(&origin->waiting))) {
		struct request *request = CONTAINER_OF(node, struct request, node);
		struct slice secret = buf_slice(&request->secret);
		if (!answer_at_once(request))
			begin_check(request, slice_to(secret, request->user_len),
				    slice_from(secret, request->user_len));
		wipe_secret(request);
	}
	if (origin->checking > 0)
		return;
	HASH_DEL(auth->origins, origin);
	free(origin);
}

static void on_checked(void *ctx, enum auth_verdict verdict, struct slice options)
{
	struct request *request = ctx;
	struct auth *auth = request->auth;
	struct origin *origin = request->origin;
	int64_t delay = 0;

	request->in_backend = false;
	if (verdict == AUTH_GOOD) {
		note_success(auth, &request->address);
		/* An answer that is older than the users of now may be about one who is gone. */
		if (request->generation == auth->generation)
			remember(auth, request->credential, options);
	} else if (verdict == AUTH_WRONG) {
		note_failure(auth, &request->address);
		delay = delay_of(auth, &request->address);
	}
	if (request->cb)
		answer_in(request, verdict, options, delay);
	else
		request_free(request);
	origin->checking--;
	begin_next(auth, origin);
}

uint64_t auth_check(struct auth *auth, const struct dns_address *address, struct slice user, struct slice password,
		    auth_cb *cb, void *ctx)
{
	struct request *request = xcalloc(1, sizeof(*request));

	request->id = ++auth->last_id;
	request->auth = auth;
	request->cb = cb;
	request->ctx = ctx;
	list_node_init(&request->node);
	credential_key(auth, user, password, request->credential);
	request->address = dns_address_client(address);
	HASH_ADD(hh, auth->requests, id, sizeof(request->id), request);
	if (answer_at_once(request))
		return request->id;
	request->origin = origin_get(auth, &request->address);
	if (request->origin->checking < CHECKS_PER_ADDRESS)
		begin_check(request, user, password);
	else
		wait_for_others(request, user, password);
	return request->id;
}

void auth_cancel(struct auth *auth, uint64_t *id)
{
	struct request *request;
	uint64_t wanted = *id;

	*id = 0;
	if (wanted == 0)
		return;
	HASH_FIND(hh, auth->requests, &wanted, sizeof(wanted), request);
	if (!request)
		return;
	/* The helper's answer still counts for the address: who hangs up on a wrong password has failed all the same.
	 */
	request->cb = NULL;
	if (!request->in_backend)
		request_free(request);
}
