/*
 * What is true in the world, and what the relay must make of it.
 *
 * Every recipient's address carries the number of its message and its own index (u3+17.2@d5.test: recipient 2 of
 * message 17), and every sender's the number (s1+17@d0.test), so a server knows at RCPT whom it is about. The ledger
 * hears from the servers what really happened, from the relay what it says that happened, and from the disk what is
 * durable; wherever they disagree it notes a violation and the history of that message.
 */
#ifndef TEST_SIM_LEDGER_H
#define TEST_SIM_LEDGER_H

#include "base/outcome.h"
#include "queue/queue.h"
#include "relayd/job.h"
#include "test/sim/sim.h"

struct ledger;

enum expectation {
	EXPECT_ANY,
	EXPECT_DELIVERED,
	EXPECT_FAILED,
	EXPECT_EXPIRED,
};

struct truth_message;

struct truth_rcpt {
	struct truth_message *message;
	uint32_t index;
	unsigned domain;
	enum expectation expect;
	bool is_brisk;	 /* of a healthy domain: its latency counts */
	bool is_hostile; /* its server lies */
	uint32_t notify;
	char address[48];

	/* What the servers say. */
	unsigned accepted, excused; /* times that one took it; times beyond the first that are not the relay's fault */
	unsigned visits;	    /* RCPT commands */
	int64_t accepted_at_ms;
	int64_t come_from_ms, come_until_ms; /* when the next visit must come; 0: whenever */

	/* What the relay says. */
	enum outcome_kind final;
	bool is_durable; /* so is `final` */
	unsigned attempts, durable_attempts;
	int64_t not_before_wall, durable_not_before_wall; /* the next attempt that it announced */
	bool is_pending;				  /* a result is on its way to the disk */
	bool is_stopped; /* by an operator, and nothing of it was under way then: it must not be tried */
	bool is_dying;	 /* deleted while it was under way: ends as it ends, or not at all */

	/* DSNs about its failure. */
	bool dsn_begun, dsn_queued;	/* asked for; durable */
	unsigned dsn_seen, dsn_excused; /* different ones */
};

/* A DSN that the sender's server has seen. */
struct truth_dsn {
	uint64_t id;
	bool is_delay;
	enum outcome_kind final; /* what the relay says of its delivery */
	bool is_durable;
	unsigned taken, excused;
};
enum { TRUTH_DSNS_MAX = 16 };

enum truth_state {
	UNBORN,	   /* not offered to the relay yet */
	OFFERED,   /* its 250 is not there yet */
	ACCEPTED,  /* 250: the relay's responsibility */
	UNCERTAIN, /* the relay crashed before its 250: it may exist or not */
};

struct truth_message {
	struct ledger *ledger;
	uint32_t serial;
	enum truth_state state;
	uint64_t id;
	char sender[48]; /* "": <> */
	bool is_told;	 /* the sender's domain takes every DSN */
	bool sender_is_hostile;
	enum message_class class;
	bool is_8bit;
	size_t bytes;
	int64_t due_ms; /* when it is submitted */
	int64_t accepted_at_ms;
	int64_t arrived_wall, expires_wall;
	bool is_held, is_hold_durable; /* by an operator */
	bool is_deleted, is_delete_durable;
	bool is_in_queue; /* of ledger_compare() */
	struct truth_dsn dsns[TRUTH_DSNS_MAX];
	unsigned dsn_count;
	unsigned delays_seen, delays_excused;
	uint32_t rcpt_count;
	struct truth_rcpt *rcpts;
};

struct ledger *ledger_new(const struct sim_clock *clock);
void ledger_free(struct ledger **ledger);
/* The wall clock is set during the run: then nobody can say whether an attempt comes too early. */
void ledger_expect_clock_steps(struct ledger *ledger);
/* Before the run. Owned by the ledger; serials count from 1. */
struct truth_message *ledger_add_message(struct ledger *ledger, uint32_t rcpt_count);
/* serial 1 ..; NULL: none. */
struct truth_message *ledger_message(const struct ledger *ledger, uint32_t serial);
uint32_t ledger_message_count(const struct ledger *ledger);

/* ---- history and verdict ---- */

void ledger_trace(struct ledger *ledger, uint32_t serial, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void ledger_violate(struct ledger *ledger, uint32_t serial, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
unsigned ledger_violations(const struct ledger *ledger);
/* The violations, each with the history of its message. */
void ledger_print(const struct ledger *ledger);

/* ---- what servers see ---- */

/* NULL: no recipient of a message of ours (a sender who gets a DSN). */
struct truth_rcpt *ledger_find_rcpt(const struct ledger *ledger, struct slice address);
/* The message whose sender this is; NULL: none. */
struct truth_message *ledger_find_sender(const struct ledger *ledger, struct slice address);
void ledger_on_visit(struct ledger *ledger, struct truth_rcpt *rcpt);
/* The server has taken it; `is_excused`: the relay cannot know. */
void ledger_on_taken(struct ledger *ledger, struct truth_rcpt *rcpt, bool is_excused);
/* A DSN was taken by the sender's server. */
void ledger_on_dsn_taken(struct ledger *ledger, struct truth_message *message, struct slice content, bool is_excused);
/* ---- what the relay says ---- */

void ledger_on_accepted(struct ledger *ledger, struct truth_message *message, enum err_code result);
void ledger_on_report(struct ledger *ledger, const struct queue_message *message, uint32_t index,
		      const struct outcome *outcome, unsigned attempts, int64_t next_wall);
/* The relay asks for a DSN; true: this failure is one that the sender wants to hear of. */
bool ledger_on_bounce(struct ledger *ledger, const struct queue_message *message, const struct job_failure *failure);
/* The DSN about this failure is in the queue. */
void ledger_on_bounced(struct ledger *ledger, uint32_t serial, uint32_t index);
/* An operator holds it, releases it, deletes it. `queued` is the message as it was before; is_inflight: an attempt was
 * under way. */
void ledger_on_hold(struct ledger *ledger, struct truth_message *message, const struct queue_message *queued,
		    bool is_inflight);
void ledger_on_release(struct ledger *ledger, struct truth_message *message);
void ledger_on_delete(struct ledger *ledger, struct truth_message *message, const struct queue_message *queued,
		      bool is_inflight);
/* An operator returns it to its sender, whatever would have become of it. */
void ledger_on_return(struct ledger *ledger, struct truth_message *message);
/* An operator wants it to be tried now. */
void ledger_on_flush(struct ledger *ledger, struct truth_message *message);
/* The relay has learnt that this one may come sooner. */
void ledger_on_hastened(struct ledger *ledger, struct truth_rcpt *rcpt);
/* Everything that was reported so far is on stable storage. */
void ledger_on_synced(struct ledger *ledger);
/* The relay will be away: nobody comes back when he should. */
void ledger_on_going_down(struct ledger *ledger);
/* What is under way is broken off: all that is not durable may happen twice. */
void ledger_on_break(struct ledger *ledger);
/* The same, and what is not durable may be forgotten. */
void ledger_on_crash(struct ledger *ledger);
/* What the queue holds must be what was promised: after a start, or at any other time. */
void ledger_compare(struct ledger *ledger, struct queue *queue, bool is_start);
/* The end: nothing waits any more. */
void ledger_finish(struct ledger *ledger, bool is_drained, int64_t now_wall);

struct ledger_totals {
	unsigned messages, rcpts, delivered, failed, expired, deleted, waiting, never_offered;
	unsigned twice;		/* taken more than once, with an excuse */
	unsigned dsns, delays;	/* different ones that were taken */
	unsigned brisk_count;	/* deliveries to healthy domains */
	double brisk_mean_ms;	/* from 250 to 250 */
	int64_t brisk_worst_ms; /* the slowest of them */
};
void ledger_totals(const struct ledger *ledger, struct ledger_totals *out);

#endif
