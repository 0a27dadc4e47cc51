/*
 * relayd/destination.h - a next hop with everything that belongs to it alone: its lines, connections, window and health
 *
 * A destination is an MX domain or a relayhost. A slow or dead one takes nothing from the others: it has its own limit
 * of connections, which grows with quick successes and halves on trouble, and its own back-off, during which nothing is
 * tried but one probe at its end. At the limit of all connections a destination without any gets the next place that
 * another one gives up, and others do give up places for it. Those that have taken no mail yet share
 * three quarters of all connections.
 *
 * LINES      jobs in memory wait in `ready`, at most DESTINATION_READY_MAX; messages beyond that wait in `parked`,
 *            which costs no memory (queue/queue.h), and come back through the scheduler when there is room.
 * CLASSES    transactional, default and bulk are served 8 : 4 : 1, so that none starves.
 * BACK-OFF   after a connection or account failure, or when three messages in a row were broken off (421, or the
 *            connection is lost): 5 s, doubling to 10 min (relayhosts: to 1 min, refused accounts to 5 min, limits to 10
 *            min). After three in a row that were throttled: 5 min, doubling to an hour (relayhosts: 5 s to 1 min, for
 *            they count by the second). Ended by a success, or by an operator's flush. When the next hop cannot be
 *            connected to, or refuses our login, all that lead there rest, and one of them probes.
 * PAUSED     relayhosts keep their mail parked, in order.
 * LIMIT      of connections: one for each next hop, shared by all destinations that lead there.
 * RATES      of the relayhost, and of the route if it has one (then it is a destination of its own): what has no place
 *            yet waits in the line, in order. A lifetime that ends in a long wait ends in time.
 */
#ifndef RELAYD_DESTINATION_H
#define RELAYD_DESTINATION_H

#include "base/clock.h"
#include "base/outcome.h"
#include "config/config.h"
#include "queue/queue.h"
#include "relayd/job.h"
#include "relayd/loop.h"
#include "relayd/pauses.h"
#include "relayd/rates.h"

#include <uthash.h>

enum { DESTINATION_READY_MAX = 64, DESTINATION_NAME_MAX = 256, DESTINATION_ROUTE_MAX = 128 };

enum destination_kind { DESTINATION_MX, DESTINATION_RELAYHOST, DESTINATION_CAPTURE };

/* Which next hop, and how it must be reached: what makes two destinations the same. */
struct destination_id {
	enum destination_kind kind;
	enum config_tls_level tls;	   /* of the route; CONFIG_TLS_UNSET: as usual for that kind */
	bool tls_optional;		   /* what it publishes about TLS, or has shown before, does not count */
	char name[DESTINATION_NAME_MAX];   /* the domain as A-labels, the relayhost's name, or "captured" */
	char route[DESTINATION_ROUTE_MAX]; /* its name, if it has a rate of its own; else "" */
};

struct destinations;

/* A destination's view of one connection; embedded in the driver's own object. */
struct destination_slot {
	struct list node; /* in `idle` */
	bool busy;	  /* connecting or in a transaction */
	bool has_session; /* it has asked for a job; before that it is `coming` */
	unsigned job_count;
};

/* Read by status, metrics and the scheduler; changed in the destination's own files alone. */
struct destination {
	UT_hash_handle hh;
	struct destinations *owner;
	/* "mx:example.net", "relayhost:main", "capture:captured", "mx:example.net/verify", "mx:example.net/tls-optional", "relayhost:main#newsletter"
	 * (the route) */
	char key[DESTINATION_NAME_MAX + DESTINATION_ROUTE_MAX + 32];
	struct destination_id id;

	struct list ready[MESSAGE_CLASS_COUNT];
	unsigned ready_count;
	unsigned turn; /* of the weighted round over the classes */
	struct queue_list parked[MESSAGE_CLASS_COUNT];
	int64_t expires_wall; /* not later than a lifetime ends among those who may wait long; INT64_MAX: none does */
	unsigned sweep;	      /* parked messages that still have to go through the scheduler once */
	unsigned put_off;     /* messages that wait in the queue because of its trouble, as far as we know */

	struct destination_hop *hop; /* whoever leads to the same one */
	struct list hop_node;

	struct rate *rates[2]; /* of the relayhost, of the route; NULL: none */
	struct rate_waiter rate_waiter;
	unsigned places; /* taken under the rates, for connections that are coming */

	struct list idle;	    /* deliveries without a job, the longest idle first */
	unsigned connections, busy; /* busy: connecting or in a transaction */
	unsigned coming, sessions;  /* the connections that have not yet, and those that have asked for a job */
	unsigned window;
	unsigned enough;		      /* sessions when a connection more was refused; 0: not known */
	int64_t grow_pause_ms, grow_after_ms; /* until one more is tried */
	int64_t progress_ms;		      /* a session began, or a job went quickly */
	struct list starved_node;	      /* in the line of those who wait for any connection at all */

	unsigned failures;     /* connection failures since the last success */
	unsigned broken;       /* messages in a row that the hosts broke off, or throttled */
	uint64_t throttled_id; /* the last of the latter */
	int64_t backoff_until_ms;
	struct outcome trouble; /* what the last failure was; kind OUTCOME_NONE: healthy */
	int64_t trouble_since_wall, last_success_wall;
	uint64_t refused_id;	/* the last message whose sender was refused since the last success; 0: none */
	bool is_refused_by_all; /* and it is not that message's fault */
	timer_id timer, refill_timer, sweep_timer;
	bool paused;	 /* by an operator */
	bool is_retired; /* a relayhost that is not configured any more */
	int64_t used_at_ms;

	char greylister[256 + 64]; /* the host that greylisted last, as outcomes name it */
	int64_t greylister_ms;
};

/* What destinations tell the scheduler. */
struct destination_events {
	void *ctx;
	/* A connection has taken the job. */
	void (*on_job_begun)(void *ctx, struct job *job);
	/* The outcome of recipient `i` of the job. */
	void (*on_outcome)(void *ctx, struct job *job, uint32_t i, const struct outcome *outcome);
	/* The attempt is over: recipients without an outcome wait again until `retry_wall` without having been tried.
	 * The job is the scheduler's to free. */
	void (*on_job_done)(void *ctx, struct job *job, int64_t retry_wall);
	/* Room in the line: a parked message may come back. */
	void (*on_unparked)(void *ctx, uint64_t id);
	/* Health changed: trouble began (another kind of trouble counts), or ended (outcome kind OUTCOME_NONE). */
	void (*on_health)(void *health_ctx, struct destination *destination);
	/* A message has to wait for its turn under a rate; once for each. May be NULL. */
	void (*on_rate_wait)(void *health_ctx, enum rate_scope scope);
	void *health_ctx;
};

/* How a destination opens a connection and hands it work: relayd/delivery.c, or a fake one in tests. */
struct destination_driver {
	void *ctx;
	/* Begins to connect; it will ask destination_next_job() when it is ready. */
	struct destination_slot *(*open)(void *ctx, struct destination *destination);
	/* An idle one: ask destination_next_job() now. */
	void (*wake)(struct destination_slot *slot);
	/* An idle one: QUIT and close; destination_on_closed() follows. */
	void (*quit)(struct destination_slot *slot);
	/* Destinations without any connection wait for a place. Ends up to `count` of those that have not come to a
	 * session in a reasonable time, the longest first, as failed. NULL: each ends in its own time. */
	void (*hurry)(void *ctx, unsigned count);
};

struct destinations_options {
	struct loop *loop;
	struct queue *queue;
	const struct clock *clock;
	struct destination_events events;
	struct destination_driver driver;
	struct destination_driver capture; /* of DESTINATION_CAPTURE; open NULL: there is none to come */
	unsigned connections_max;	   /* of all destinations together */
	unsigned per_destination_max;
	const struct pauses *pauses; /* NULL: nothing is ever paused */
	struct rates *rates;	     /* NULL: nothing is limited */
};

struct destinations *destinations_new(const struct destinations_options *options);
/* Deliveries must have ended. Jobs in lines are handed back through on_job_done. */
void destinations_free(struct destinations **destinations);
void destinations_set_limits(struct destinations *destinations, unsigned connections_max, unsigned per_destination_max);
/* Finds or makes it; lives as long as it has work, or trouble, or was used within the last ten minutes. */
struct destination *destinations_get(struct destinations *destinations, const struct destination_id *id);
/* The same without making one; NULL: there is none, so it has no work and no trouble. */
struct destination *destinations_find(const struct destinations *destinations, const struct destination_id *id);
/* Next one after `previous` (NULL: the first), in any order; NULL at the end. */
struct destination *destinations_next(struct destinations *destinations, struct destination *previous);
unsigned destinations_connection_count(const struct destinations *destinations);

/* It may be given jobs now. False: back-off or paused; *until_wall says when to ask again. */
bool destination_is_open(const struct destination *destination, int64_t *until_wall);
/* There is room for another job in memory; otherwise park the message. */
bool destination_has_room(const struct destination *destination);
/* Messages of that class are parked: who comes now has to stand behind them. */
bool destination_has_parked(const struct destination *destination, enum message_class class);
void destination_park(struct destination *destination, enum message_class class, uint64_t id, int64_t expires_wall);
/* A message waits in the queue because of its trouble, or has come back from there; for destination_waiting() alone. */
void destination_note_put_off(struct destination *destination);
void destination_note_return(struct destination *destination);
/* The rate for whose next place its mail waits; NULL: for none. */
const struct rate *destination_full_rate(const struct destination *destination);
/* Messages that are known to wait for it: in its line, parked, and put off while it is in trouble. */
uint64_t destination_waiting(const struct destination *destination);
/* Takes the job into its line; it is begun at once or later. */
void destination_submit(struct destination *destination, struct job *job);
/*
 * The account at this relayhost is in trouble, as was found out without a connection (no access token): it is closed
 * until then, and its line gets the outcome. Over with destinations_mend_relayhost(), or by a session.
 */
void destinations_hold_relayhost(struct destinations *destinations, const char *relayhost,
				 const struct outcome *outcome, int64_t until_ms);
void destinations_mend_relayhost(struct destinations *destinations, const char *relayhost);
/* The configuration or a secret may have changed, so that the trouble is mended: the next probe is at once. */
void destinations_retry_relayhosts(struct destinations *destinations);
/* An operator's flush: ends back-off. */
void destination_retry_now(struct destination *destination);
/* An operator has paused or resumed relayhosts. */
void destinations_apply_pauses(struct destinations *destinations);
/* What waits for long, for a paused one or for a rate, looks whether there is another way by now: a relayhost was
 * resumed, or the routes have changed. */
void destinations_route_anew(struct destinations *destinations);
/* Relayhosts that this configuration does not have any more are in no trouble, and their mail goes where it says. */
void destinations_retire_relayhosts(struct destinations *destinations, const struct config *config);
/* Ends idle connections and begins no new jobs: the daemon stops. */
void destinations_stop(struct destinations *destinations);

/* --- called by the driver --- */

/* The next job for a connection that is ready; NULL: none, the delivery is now idle, or was told to quit. */
struct job *destination_next_job(struct destination *destination, struct destination_slot *slot);
/* False: its time has ended meanwhile, an operator has held or deleted it, or the journal is in trouble. Of the jobs that
 * destination_next_job() gives it is true; ask before one of them begins anew at another host. */
bool destination_may_begin(const struct destination *destination, const struct job *job);
/* A job goes back to the front of the line, untried: its reused connection had died. */
void destination_return_job(struct destination *destination, struct job *job);
/* See destination_events. `quick`: the transaction took less than two seconds. */
void destination_on_outcome(struct destination *destination, struct job *job, uint32_t i,
			    const struct outcome *outcome);
void destination_on_job_done(struct destination *destination, struct job *job, bool quick);
/* A session is established: trouble is over, except where only a message shows it: that of our account (a daily limit),
 * and sessions that are always broken off. */
void destination_on_session(struct destination *destination);
/* No session could be had from any host, or the account is in trouble: all jobs in the line get this outcome. While
 * other sessions get on it only means that there are enough of them. */
void destination_on_failed(struct destination *destination, const struct outcome *outcome);
/* A session ended within a message, whose outcome this is, and no other host took it. One message may be what breaks it;
 * when it happens to one after the other the destination rests as after destination_on_failed(). */
void destination_on_broken(struct destination *destination, const struct outcome *outcome);
/* A second connection, while the first is slow to be made; false: the limits say no. Given back when one of them stands
 * or has failed. */
bool destination_take_extra(struct destination *destination);
void destination_give_back_extra(struct destination *destination);
/* The idle connection of `slot` leaves its destination, and takes the place of one that was about to be made in `to`.
 * Then tell destination_on_session() and ask for a job. */
void destination_move_slot(struct destination *from, struct destination_slot *slot, struct destination *to);
/* A connection is gone. */
void destination_on_closed(struct destination *destination, struct destination_slot *slot);

#endif
