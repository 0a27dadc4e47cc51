/*
 * The inner half of a relay in one process, without the network: a real queue on a temporary folder, the loop in
 * virtual time, scheduler, destinations, health, metrics and log, and connections that do what the test says.
 */
#ifndef SUPPORT_RELAY_H
#define SUPPORT_RELAY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/random.h"
#include "config/config.h"
#include "queue/queue.h"
#include "relayd/bounce.h"
#include "relayd/capture.h"
#include "relayd/destination.h"
#include "relayd/health.h"
#include "relayd/recent.h"
#include "relayd/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RELAY_WALL_MS 1790000000000

/* All mail goes by one relayhost, "main". */
#define RELAY_BY_MAIN "relayhosts:\n  main: {address: 'smtp.example.net:587', tls: none}\n"

/* A connection that a destination has asked for. It does nothing by itself. */
struct fake_connection {
	struct destination_slot slot;
	struct list node; /* in relay.connections */
	struct relay *relay;
	struct destination *destination;
	struct job *job;
	unsigned number; /* of all that were ever opened, from 1 */
	unsigned woken;
};

/* What the scheduler reported. */
struct reported {
	uint64_t id;
	uint32_t recipient, attempts;
	struct outcome outcome;
	int64_t next_wall;
	char destination[DESTINATION_NAME_MAX + DESTINATION_ROUTE_MAX + 32]; /* its key; "": none */
};

enum { REPORTS_MAX = 4096 };

struct relay {
	char folder[64];
	int fd;
	struct disk *disk;
	struct clock_virtual clock;
	struct rng_seeded rng;
	struct loop *loop;
	struct queue *queue;
	struct log *log;
	struct buf log_text;
	struct metrics *metrics;
	struct memos *memos;
	struct pauses *pauses;
	struct rates *rates;
	unsigned rate_waits;
	struct destinations *destinations;
	struct scheduler *scheduler;
	struct health *health;
	struct recent *recent;
	struct config *config;

	/* Syncs of captured files: done at once, or held until the test says so. */
	struct captures *captures;
	struct disk_async capture_async;
	bool capture_waits;
	uint64_t capture_token; /* what waits; 0: nothing */
	unsigned capture_syncs;

	struct list connections; /* open ones, the oldest first */
	unsigned opened, quits;
	unsigned corruptions;
	unsigned health_changes;
	char last_health[DESTINATION_NAME_MAX + DESTINATION_ROUTE_MAX +
			 64]; /* "KEY CLASS", class none: it is well again */

	struct reported reports[REPORTS_MAX];
	size_t report_count;

	/* The bounce hook: what it was told last, and whether it answers at once. */
	unsigned bounces;
	uint64_t bounced_id;
	struct job_failure bounced[8];
	uint32_t bounced_count;
	enum err_code bounce_result;
	bool bounce_waits;
	void (*bounce_done)(void *ctx, enum err_code result);
	void *bounce_ctx;
	struct bounce *teller; /* answers instead when it is set; the test's own */
	/* Answers instead of the router when it is set. */
	void (*route)(struct relay *relay, const struct queue_envelope *envelope, uint32_t recipient,
		      struct scheduler_targets *out);
};

/* Configuration in YAML; NULL: none, so mail goes by MX. */
void relay_init(struct relay *relay, const char *yaml);
void relay_fini(struct relay *relay);
/* For cmocka: the state is a struct relay, by MX if nothing else is said. */
int relay_setup(void **state);
int relay_setup_with(void **state, const char *yaml);
int relay_teardown(void **state);
void relay_configure(struct relay *relay, const char *yaml);
/* Stops and starts again; what was in flight is so no more. */
void relay_restart(struct relay *relay);
/* Turns at the present time until nothing happens any more. */
void relay_turn(struct relay *relay);
/* An operator pauses a relayhost, or resumes it. */
void relay_pause(struct relay *relay, const char *relayhost, bool paused);
/* Lets time pass, stopping wherever there is something to do. */
void relay_pass(struct relay *relay, int64_t ms);

/* Submits a message, its recipients parted by spaces, and turns until it is accepted. */
uint64_t relay_submit(struct relay *relay, const char *sender, const char *recipients);
uint64_t relay_submit_class(struct relay *relay, enum message_class class, const char *sender, const char *recipients);
/* One that expires after so long. */
uint64_t relay_submit_lifetime(struct relay *relay, int64_t ms, const char *recipients);
uint64_t relay_submit_envelope(struct relay *relay, const struct queue_envelope *envelope);
/* So many of the same, synced together; they may all be under way already. */
void relay_submit_many(struct relay *relay, const char *recipients, unsigned count);

/* The connection that stands at this place among the open ones; NULL: there are fewer. */
struct fake_connection *relay_connection(struct relay *relay, unsigned place);
/* The first open one to the destination of this key; fails when there is none. */
struct fake_connection *relay_connection_to(struct relay *relay, const char *key);
/* The same, its session standing, with a job; fails when it has none. */
struct fake_connection *relay_connect_to(struct relay *relay, const char *key);
unsigned relay_connection_count(struct relay *relay);
/* Closes all that are open, and those that are opened instead. */
void relay_close_all(struct relay *relay);
/* Everything that stands in lines goes out, through as many connections as are opened; how many messages. */
unsigned relay_deliver_all(struct relay *relay);
/* How many messages wait in the queue, the held ones left out. */
uint64_t relay_waiting(struct relay *relay);
bool relay_is_queued(struct relay *relay, uint64_t id);
/* Fails when it is not queued. */
enum message_state relay_message_state(struct relay *relay, uint64_t id);
/* Milliseconds until a new connection is asked for. */
int64_t relay_time_to_next_open(struct relay *relay, int64_t at_most);
struct destination *relay_destination(struct relay *relay, const char *key);
/* The session stands: it takes a job if there is one. */
void fake_session(struct fake_connection *connection);
/* No session could be had. The connection is gone. */
void fake_fail(struct fake_connection *connection, enum failure_class class, enum delivery_stage stage,
	       const char *text);
/* Reports the outcome for all recipients of its job, ends it and asks for the next. */
void fake_finish(struct fake_connection *connection, const struct outcome *outcome);
void fake_deliver(struct fake_connection *connection);
void fake_close(struct fake_connection *connection);
struct outcome outcome_like(enum outcome_kind kind, enum failure_class class, enum delivery_stage stage, int code,
			    const char *enhanced, const char *text);

/* The last report of that message and recipient; fails when there is none. */
const struct reported *relay_report(const struct relay *relay, uint64_t id, uint32_t recipient);
bool relay_log_has(struct relay *relay, const char *text);

#endif
