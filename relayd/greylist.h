/*
 * relayd/greylist.h - what is learnt about greylisters, for each operator of MX hosts; kept over restarts
 *
 * LESSON   Of an operator it is known how long a refused recipient had waited at most (the longest refused wait), and
 *          how long one had at least when it passed (the shortest accepted wait): the delay lies between. Who is
 * refused next comes back just behind the accepted wait; as long as the two are far apart, one at a time comes in the
 *          middle between them and so narrows it.
 * WAVE     Many greylisters know a client once one of its messages has passed. So when one passes, two of those that
 *          wait at that operator are tried at once, then four, and so on; one that is refused lets nobody follow.
 * GENTLE   Of those that wait at an operator one comes back each ten seconds.
 * OPERATOR The last labels of the host's name: mx1.example.net and mx2.example.net are one.
 *
 * Pure but for its memo: times are given in wall milliseconds. Bounded: 2,048 operators in SPOOL/greylist.json, 8,192
 * recipients that wait, in memory; of those that were refused before a restart nothing is learnt.
 */
#ifndef RELAYD_GREYLIST_H
#define RELAYD_GREYLIST_H

#include "base/random.h"
#include "relayd/memo.h"
#include "relayd/metrics.h"

struct greylist;

enum { GREYLIST_OPERATORS_MAX = 2048, GREYLIST_WAITING_MAX = 8192, GREYLIST_OPERATOR_MAX = 96 };

/* All borrowed; `memos` NULL: kept nowhere. `release`: that recipient is to be tried now; from greylist_passed() alone.
 */
struct greylist_options {
	struct memos *memos;
	struct metrics *metrics; /* NULL: none */
	struct rng *rng;
	void *ctx;
	void (*release)(void *ctx, uint64_t id, uint32_t recipient);
};

/* `now_wall`: what is older than 60 days is forgotten. */
struct greylist *greylist_new(const struct greylist_options *options, int64_t now_wall);
/* After the memos. Accepts NULL, sets NULL. */
void greylist_free(struct greylist **greylist);

/* A refusal. */
struct greylist_refusal {
	const char *host; /* of the outcome: "name[address]" */
	uint64_t id;
	uint32_t recipient;
	bool was_refused;     /* its last refusal was a greylister's too */
	bool has_hint;	      /* the server said when */
	bool is_hinted;	      /* and is believed: `otherwise_ms` is that */
	int64_t otherwise_ms; /* the wait if nothing has been learnt */
};
/* The wait until its next attempt, in milliseconds. Recipients of a message that are refused at the same time get the
 * same. */
int64_t greylist_refused(struct greylist *greylist, const struct greylist_refusal *refusal, int64_t now_wall);
/* It was delivered; harmless for one that was never refused. */
void greylist_passed(struct greylist *greylist, uint64_t id, uint32_t recipient, int64_t now_wall);
/* It has ended otherwise. */
void greylist_forget(struct greylist *greylist, uint64_t id, uint32_t recipient);
/* It waits for something else now. */
void greylist_set_aside(struct greylist *greylist, uint64_t id, uint32_t recipient);

/* What is known of the operator of this host. */
struct greylist_lesson {
	char name[GREYLIST_OPERATOR_MAX];
	int64_t refused_ms, accepted_ms; /* 0: nothing */
};
void greylist_look_up(const struct greylist *greylist, const char *host, struct greylist_lesson *out);
/* How often it was refused so far; 0: not as far as is remembered. */
uint32_t greylist_refusal_count(const struct greylist *greylist, uint64_t id, uint32_t recipient);
size_t greylist_waiting_count(const struct greylist *greylist);

/* "mx1.mail.example.co.uk[192.0.2.1]" -> "example.co.uk"; an address stays one. */
void greylist_operator_of(const char *host, char out[GREYLIST_OPERATOR_MAX]);

#endif
