/* What the files of the rig share: rig.c (start, turns, end), rig_config.c (what it is configured with), rig_mail.c (mail
 * and the operator). */
#ifndef TEST_SIM_RIG_INTERNAL_H
#define TEST_SIM_RIG_INTERNAL_H

#include "test/sim/rig.h"

#include "queue/internal.h"
#include "relayd/bounce.h"
#include "relayd/delivery.h"
#include "relayd/hurry.h"
#include "relayd/quota.h"
#include "relayd/router.h"
#include "relayd/scheduler.h"

struct rig {
	struct rig_options options;
	struct sim_clock *clock;
	struct world *world;
	struct ledger *ledger;
	struct rng_seeded rng;
	struct fault_disk disk;
	timer_id disk_timer; /* of the world's loop */
	bool disk_ended, sync_fails;

	struct config *config;
	struct tls_policy *tls_policy;
	struct loop *loop;
	struct log *log;
	struct metrics *metrics;
	struct net *net;
	struct dns *dns;
	struct resolver *resolver;
	struct mx *mx;
	struct queue *queue;
	struct bounce *bounce;
	struct hurry *hurry;
	struct scheduler *scheduler;
	struct greylist *greylist;
	struct destinations *destinations;
	struct deliveries *deliveries;
	struct list bouncing; /* struct bouncing */
	char spool[64];
	int spool_fd;
	struct memos *memos;
	struct pauses *pauses;
	struct rates *rates;
	struct quota *quota;
	double tokens; /* of the user, as we count them */
	int64_t tokens_at_ms;
	unsigned starts;
	bool is_up, is_stopping, is_closing, had_power_cut;
	int64_t stop_until_ms; /* of this step */
};

struct config *rig_make_config(const struct rig_options *options);
/* The small files that outlive the relay: pauses, rates, what was learnt of greylisters. */
void rig_make_spool(struct rig *rig);
void rig_remove_spool(struct rig *rig);

#endif
