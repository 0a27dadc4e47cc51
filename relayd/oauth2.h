/*
 * relayd/oauth2.h - access tokens for relayhosts that want XOAUTH2 or OAUTHBEARER
 *
 * Each relayhost with `oauth2` has at most one token and one request for it under way. A token is fetched at the start
 * and again well before it expires, so that mail does not wait for it.
 *
 * TROUBLE   A request that fails is repeated after 5 s, doubling to 5 min, with jitter, or as Retry-After says. While
 *           the last token is still good nothing else happens. Without a good token the relayhost is held: on_trouble()
 *           tells, with the time of the next try, and on_mended() when a token has come.
 * REFUSED   A relayhost that refuses a token gets one new one; another only five minutes later.
 * ROTATION  A refresh token that comes with an answer replaces the one before. It is kept in SPOOL/oauth2.json (0600,
 *           synced) and preferred, until the operator configures another one than that from which it descends; when it
 *           is refused, the configured one is tried too.
 * SECRETS   Files are read at each request. Neither secrets nor tokens are ever logged; answers' words are, without.
 */
#ifndef RELAYD_OAUTH2_H
#define RELAYD_OAUTH2_H

#include "base/outcome.h"
#include "base/random.h"
#include "config/config.h"
#include "relayd/https.h"
#include "relayd/memo.h"
#include "relayd/metrics.h"

struct oauth2;

struct oauth2_options {
	struct loop *loop;
	struct https *https;
	const struct clock *clock;
	struct rng *rng;
	struct log *log;
	struct metrics *metrics;
	struct memos *memos;
	void *ctx;
	/* From timers, the end of a turn, and oauth2_configure(). */
	void (*on_trouble)(void *ctx, const char *relayhost, const struct outcome *outcome, int64_t next_try_ms);
	void (*on_mended)(void *ctx, const char *relayhost);
};

/* Copies the options, borrows what they point to; reads the memo. */
struct oauth2 *oauth2_new(const struct oauth2_options *options);
/* Before the https; cancels everything. Sets NULL, accepts NULL. */
void oauth2_free(struct oauth2 **oauth2);
/* Takes a reference. Relayhosts whose settings are the same keep their token; those in trouble try again at once. */
void oauth2_configure(struct oauth2 *oauth2, struct config *config);

/* `token` NULL: there is none, `why` says why. Otherwise it is borrowed, and `number` tells it from later ones. */
typedef void oauth2_cb(void *ctx, const char *token, uint64_t number, const char *why);
/* Calls back once, from the end of a turn or from a timer, never from inside. The id is never 0. */
uint64_t oauth2_ask(struct oauth2 *oauth2, const char *relayhost, oauth2_cb *cb, void *ctx);
/* Afterwards the callback never comes. Sets *id to 0; one that is 0 or answered is harmless. */
void oauth2_cancel(struct oauth2 *oauth2, uint64_t *id);
/* The relayhost has refused the token of this number. True: ask for another one. */
bool oauth2_on_refused(struct oauth2 *oauth2, const char *relayhost, uint64_t number);

enum oauth2_state {
	OAUTH2_NONE,	 /* the relayhost has no oauth2 */
	OAUTH2_FETCHING, /* the first token is on its way */
	OAUTH2_VALID,
	OAUTH2_FAILING, /* no good token, and the endpoint does not give one */
};

struct oauth2_status {
	enum oauth2_state state;
	bool is_asking;	      /* a request is under way */
	int64_t expires_wall; /* of the token; 0: there is none */
	const char *trouble;  /* why the last request failed; "" when it did not; lives until the next call */
};

/* "none", "fetching", "valid", "failing". */
const char *oauth2_state_name(enum oauth2_state state);
void oauth2_look(const struct oauth2 *oauth2, const char *relayhost, struct oauth2_status *out);

#endif
