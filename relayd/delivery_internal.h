/*
 * relayd/delivery_internal.h - what the files of a delivery share
 *
 *   delivery.c          the set of them, the driver of destinations, beginning and end
 *   delivery_connect.c  from a destination to addresses, and what becomes of a connected stream
 *   delivery_race.c     from addresses to one connected stream: their order, the next one when one fails or is slow
 *   delivery_move.c     a message that a host does not take goes on to the next one
 *   delivery_tls.c      what the hosts publish about TLS, the handshake, what it is worth
 *   delivery_token.c    the access token of a relayhost
 *   delivery_session.c  the SMTP client's events, jobs, content, outcomes
 */
#ifndef RELAYD_DELIVERY_INTERNAL_H
#define RELAYD_DELIVERY_INTERNAL_H

#include "base/base.h"
#include "relayd/delivery.h"
#include "relayd/hosts.h"
#include "relayd/oauth2.h"
#include "relayd/outcome.h"
#include "relayd/tls_lookup.h"
#include "smtp/client.h"

enum { CANDIDATES_MAX = 32, ATTEMPTS_MAX = 3 };

struct deliveries {
	struct deliveries_options options;
	struct config *config;
	struct tls_policy *policy;
	struct hosts *hosts;
	struct list all;
	unsigned count;
};

/* One address to try. */
struct candidate {
	char host[256];
	struct dns_address address;
	unsigned rank;		       /* equal ones are equally good: the MX preference */
	const struct tls_facts *facts; /* of its host */
	int64_t failed_at_ms;	       /* a short while ago; 0: not */
	bool is_known;		       /* a greylister there knows us */
};

enum stage { RESOLVING, CONNECTING, SESSION, IDLE, TRANSACTION, ENDING };

/* A connection that is being made. */
struct attempt {
	struct delivery *delivery;
	struct candidate *candidate;
	struct stream *stream; /* NULL: this place is free */
	int64_t began_ms;
	bool is_extra; /* beside another one; lent by the destination */
};

struct delivery {
	struct destination_slot slot; /* first: the destination knows it by this */
	struct list node;	      /* in deliveries.all */
	struct deliveries *owner;
	struct destination *destination;
	struct config *config;
	struct tls_policy *policy; /* of the same configuration */
	enum stage stage;

	uint64_t lookup;	       /* of mx or resolver */
	struct mx_result *hosts;       /* until it is known what they publish; NULL for relayhosts */
	struct tls_lookup *tls_lookup; /* owns the facts */
	struct candidate candidates[CANDIDATES_MAX];
	size_t candidate_count, next_candidate;
	struct candidate *current; /* that it is connected to, or that is spoken of */
	struct attempt attempts[ATTEMPTS_MAX];
	int64_t last_attempt_ms, until_ms; /* until: no other candidate is begun after it */
	uint16_t port;
	struct tls_need need; /* of the address that it is connected to */
	enum tls_verdict verdict;
	struct err tls_why;	    /* what keeps it from being AUTHENTICATED */
	bool without_tls, use_helo; /* of the second try with the same address */
	struct outcome fault;	    /* why the last address failed */
	bool moves_on, is_replaced;
	bool is_shared; /* it has come from another destination, whose hosts its candidates are */

	uint64_t token_request, token_number;
	char *token; /* NULL: none */
	bool has_renewed_token;

	struct stream *stream;
	struct smtp_client *client;
	timer_id timer;
	timer_id tls_timer; /* of the handshake, beside the SMTP client's own deadlines */
	int64_t opened_ms, step_began_ms, transaction_began_ms;
	char where[256 + DNS_ADDRESS_TEXT + 3]; /* "name[address]" */

	struct job *job;
	struct smtp_transaction transaction; /* with `recipients`: what the client borrows */
	struct smtp_client_recipient *recipients;
	uint32_t *indexes;	  /* of each of them in the job */
	struct outcome break_off; /* the host ended this transaction; kind OUTCOME_NONE: it did not */
	bool untried, has_body;
	struct outcome *refusals; /* by index in the job: what hosts have said that it has left; NULL: none */
	unsigned moves;
	const struct candidate *first_host; /* that the job was to go to */
	size_t prefix_sent, inline_sent;
	struct queue_content *content;
	bool feeding;
};

/* ---- delivery.c ---- */

int64_t delivery_now_ms(const struct delivery *d);
bool delivery_is_to_relayhost(const struct delivery *d);
/* NULL: direct delivery, or a relayhost that is not configured any more. */
const struct config_relayhost *delivery_relayhost(const struct delivery *d);
/* It began under a configuration that is not in force any more: another address, login or demand for TLS may be. It
 * ends what it has begun, and takes nothing more. */
bool delivery_is_outdated(const struct delivery *d);
/* The time since `step_began_ms`, for relayd_attempt_duration_seconds; the next step begins now. "auth" is all from the
 * greeting to the end of AUTH. */
void delivery_observe(struct delivery *d, const char *phase);
struct outcome_place delivery_place(const struct delivery *d, enum delivery_stage stage, unsigned attempts);
void delivery_drop_connection(struct delivery *d);
void delivery_close_content(struct delivery *d);
/* Over: recipients without an outcome wait again; the object is freed at the end of the turn. */
void delivery_end(struct delivery *d);
/* Like delivery_end(), but what the client has to say (QUIT) goes out first. */
void delivery_end_gently(struct delivery *d);
/* QUIT, and the connection closes by itself; the delivery goes on without it. */
void delivery_part(struct delivery *d);
/* QUIT, and nobody is waited for: an idle session that said it must not be given another job. */
void delivery_say_goodbye(struct delivery *d);

/* ---- delivery_connect.c ---- */

/* Gets a token where one is needed, then finds the hosts. A timer callback. */
void delivery_begin(void *ctx);
/* Looks the hosts up, then connects. */
void delivery_find_hosts(struct delivery *d);
/* No session with any host (d->fault says why): the destination's trouble, not that of one message. Or no other one for
 * the job that moves on: it ends as the hosts have said. */
void delivery_fail_destination(struct delivery *d);
/* `facts` live as long as the delivery. */
void delivery_add_candidate(struct delivery *d, const char *host, const struct dns_address *address, unsigned rank,
			    const struct tls_facts *facts);
/* A host could not be used. */
void delivery_note_fault(struct delivery *d, const struct outcome *fault);
/* The connection stands. */
void delivery_take_stream(struct delivery *d, struct stream *stream);
/* An idle connection of another destination to the same host takes its place, if there is one: then it is over. */
bool delivery_share(struct delivery *d);
/* The same address once more. */
void delivery_retry_current(struct delivery *d);
/* This address was no good (d->fault says why); the next one, or the destination has failed. */
void delivery_give_up_candidate(struct delivery *d);
/* QUIT, then the next one. */
void delivery_leave_candidate(struct delivery *d);
void delivery_candidate_fault(struct delivery *d, enum delivery_stage stage, enum failure_class class,
			      const char *text);

/* ---- delivery_race.c ---- */

/* To the first candidate, or the destination has failed (d->fault) when there is none. */
void delivery_connect(struct delivery *d);
/* To the next one. */
void delivery_connect_next(struct delivery *d);
/* There is one, and time for it. */
bool delivery_has_next(const struct delivery *d);
void delivery_end_attempts(struct delivery *d);

/* ---- delivery_move.c ---- */

bool delivery_is_worth_another_host(const struct outcome *outcome);
/* There is another host for the message. */
bool delivery_may_move(const struct delivery *d);
/* What this host says of recipient `i`. */
void delivery_put_aside(struct delivery *d, const struct job *job, uint32_t i, const struct outcome *outcome);
/* QUIT, and d->job goes along to the next host. */
void delivery_move_on(struct delivery *d);
/* No other host: the open recipients get what was put aside, and the job ends. */
void delivery_end_refused(struct delivery *d, struct job *job);
/* For a new job. */
void delivery_forget_refusals(struct delivery *d);
/* False: this session was not made for the job, and there are hosts that only a new one finds. */
bool delivery_knows_all_hosts(const struct delivery *d);

/* ---- delivery_tls.c ---- */

/* Begins to ask what concerns the destination as a whole. */
void delivery_tls_begin(struct delivery *d);
/* The hosts are known: asks what they publish, makes candidates of those that may be connected to, and begins. `hosts`
 * is taken. */
void delivery_tls_ask_hosts(struct delivery *d, struct mx_result *hosts);
/* The same for a relayhost. */
void delivery_tls_ask_relayhost(struct delivery *d, const struct resolver_result *found);
/* What the host at the other end of the connection needs: d->need. */
void delivery_tls_decide(struct delivery *d);
void delivery_start_tls(struct delivery *d);
/* For stream_events. */
void delivery_on_tls(void *ctx, bool ok, const char *why);
/* READY: counts, remembers and tells what the session is worth. */
void delivery_tls_note_session(struct delivery *d);
/* No session could be had, as `fault` says: when TLS is why, it is remembered, and said what asked for it. */
void delivery_tls_note_failure(struct delivery *d, struct outcome *fault);
/* RFC 8689: may a message with REQUIRETLS go here? Otherwise `out` (NULL: not wanted) says why not. */
bool delivery_tls_may_carry(const struct delivery *d, struct outcome *out);

/* ---- delivery_token.c ---- */

bool delivery_wants_token(const struct config_relayhost *relayhost);
/* Goes on with delivery_find_hosts() or delivery_retry_current(), or the destination has failed. */
void delivery_ask_token(struct delivery *d);
/* The session ended with this result. True: it is because of the token, and another one is on its way. */
bool delivery_renew_token(struct delivery *d, const struct smtp_client_result *result);
void delivery_drop_token(struct delivery *d);

/* ---- delivery_session.c ---- */

/* The connection stands (and TLS, if it is implicit): the SMTP client begins. */
void delivery_begin_session(struct delivery *d);
/* Runs the client machine as far as it goes. */
void delivery_pump(struct delivery *d);
void delivery_take_job(struct delivery *d);
/* If it idles, it has done so for long enough. */
void delivery_end_idling(struct delivery *d);

#endif
