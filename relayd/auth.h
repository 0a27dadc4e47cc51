/*
 * relayd/auth.h - may this client be who it says? Remembers good passwords, slows bad ones down
 *
 * The check itself runs in a helper process (relayd/helper.h); this side never sees a hash. A verified password is
 * remembered for ten minutes as a keyed hash in memory, so that a busy client costs one check. Each failure of an
 * address delays its next answer, and too many block it for a while: that is an answer without a check, so guessing
 * cannot load the helpers. Nor can a crowd: of one address four passwords are checked at a time, the others wait in
 * line, and hear that they are shut out when those before them were guesses.
 */
#ifndef RELAYD_AUTH_H
#define RELAYD_AUTH_H

#include "base/random.h"
#include "base/slice.h"
#include "dns/address.h"
#include "relayd/loop.h"

struct auth;

enum auth_verdict {
	AUTH_GOOD,
	AUTH_WRONG,    /* 535 */
	AUTH_LATER,    /* 454: it could not be checked now */
	AUTH_SHUT_OUT, /* 421: too many failures from this address */
};
const char *auth_verdict_name(enum auth_verdict verdict);

/* `options`: the user's options as text for user_options_parse(), "" for none; lives during the call. */
typedef void auth_cb(void *ctx, enum auth_verdict verdict, struct slice options);

/* The real check: calls back once with AUTH_GOOD, AUTH_WRONG or AUTH_LATER, later, never from inside the call. */
struct auth_backend {
	void *ctx;
	void (*verify)(void *ctx, struct slice user, struct slice password, auth_cb *cb, void *cb_ctx);
};

struct auth *auth_new(struct loop *loop, struct rng *rng, const struct auth_backend *backend);
/* Requests under way must have been answered or cancelled. */
void auth_free(struct auth **auth);

/* `address`: who asks, counted as dns_address_client() says; `password` is wiped from our memory afterwards. Calls back
 * once, never from inside the call. The id is for auth_cancel(). */
uint64_t auth_check(struct auth *auth, const struct dns_address *address, struct slice user, struct slice password,
		    auth_cb *cb, void *ctx);
/* After it the callback never comes. Accepts 0; sets *id to 0. */
void auth_cancel(struct auth *auth, uint64_t *id);
/* The users have changed: remembered passwords count no more. */
void auth_forget(struct auth *auth);

#endif
