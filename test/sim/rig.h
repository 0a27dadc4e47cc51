/*
 * The relay under test, assembled as relayd/relayd.c does it, without listeners, helpers, control and TLS certificates.
 *
 * It has its own loop. A crash drops all of it, writes nothing more, and leaves the disk as a power cut or a kill
 * leaves it. A stop is what SIGTERM does. After both everything is gone but the disk, and rig_start() makes it anew.
 */
#ifndef TEST_SIM_RIG_H
#define TEST_SIM_RIG_H

#include "test/sim/ledger.h"
#include "test/sim/world.h"
#include "test/unit/queue/support_fault_disk.h"

enum { RIG_RELAYHOSTS_MAX = 4, RIG_ROUTES_MAX = 8 };

struct rig_rate {
	unsigned count; /* 0: none */
	int64_t per_ms; /* a minute, an hour or a day */
};

/* "to" that domain, with a rate of its own; the way is the usual one. */
struct rig_route {
	unsigned domain;
	struct rig_rate rate;
};

struct rig_options {
	unsigned connections, per_destination;
	unsigned relayhosts;		  /* 0: by MX; else domains 0 .. are relayhosts, in this order of preference */
	int64_t expire_ms, warn_after_ms; /* warn_after_ms 0: never */
	int64_t sync_worst_ms;		  /* how long the disk takes at worst */
	struct rig_rate rates[RIG_RELAYHOSTS_MAX];
	unsigned route_count;
	struct rig_route routes[RIG_ROUTES_MAX];
	struct rig_rate user_rate; /* of the user "app" */
};

struct rig;

/* Borrows clock, world and ledger. The disk is empty. */
struct rig *rig_new(const struct rig_options *options, struct sim_clock *clock, struct world *world,
		    struct ledger *ledger, uint64_t seed);
void rig_free(struct rig **rig);
void rig_start(struct rig *rig);
bool rig_is_up(const struct rig *rig);
/* `power`: unsynced writes are lost, torn or garbled; else only what was not written. */
void rig_crash(struct rig *rig, bool power);
/* Begins an orderly stop; rig_is_up() is false when it is done. Turns and time are the caller's. */
void rig_stop(struct rig *rig);
bool rig_is_stopping(const struct rig *rig);

/* NULL while it is down. */
struct loop *rig_loop(struct rig *rig);
/* One turn; how many things happened. */
unsigned rig_turn(struct rig *rig);
/* When it wants to be woken; INT64_MAX: never. */
int64_t rig_next_at_ms(const struct rig *rig);

/* Hands the message in; false: not now. */
bool rig_submit(struct rig *rig, struct truth_message *message);
/* What an operator may do to a message; nothing, when the relay is down or the message is gone. */
void rig_flush(struct rig *rig, struct truth_message *message);
void rig_hold(struct rig *rig, struct truth_message *message);
/* False: the relay is down, try again. */
bool rig_release(struct rig *rig, struct truth_message *message);
void rig_delete(struct rig *rig, struct truth_message *message);
/* Returns it to its sender. */
void rig_bounce(struct rig *rig, struct truth_message *message);
/* A relayhost, by number. False: not now. */
bool rig_pause(struct rig *rig, unsigned relayhost, bool paused);
bool rig_is_paused(const struct rig *rig, unsigned relayhost);
/* A crash may forget a release that was just made. */
void rig_repeat_releases(struct rig *rig);
/* The next sync fails. */
void rig_fail_sync(struct rig *rig);

/* Nothing is in the queue, nothing is under way. */
bool rig_is_empty(const struct rig *rig);
uint64_t rig_message_count(const struct rig *rig);
unsigned rig_connection_count(const struct rig *rig);
/* What the queue holds against what was promised, at the end. */
void rig_compare(struct rig *rig);
unsigned rig_start_count(const struct rig *rig);
/* The destinations in memory. */
unsigned rig_destination_count(const struct rig *rig);

#endif
