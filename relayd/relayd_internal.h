/*
 * relayd/relayd_internal.h - the daemon's inside, shared by relayd.c (start, turn, stop), relayd_parts.c (which parts
 * there are, and what they tell each other) and relayd_reload.c (the configuration in force, and exchanging it)
 *
 * Nobody else includes it: a part is handed what it needs, and knows nothing of the whole.
 */
#ifndef RELAYD_RELAYD_INTERNAL_H
#define RELAYD_RELAYD_INTERNAL_H

#include "relayd/gauges.h"
#include "relayd/loop.h"
#include "relayd/relayd.h"
#include "relayd/spool.h"
#include "relayd/web.h"

struct relayd {
	struct relayd_options options;
	struct config *config, *started; /* in force; of the start */
	char restart[512];		 /* keys that are different now, and want a restart; "": none */
	char refused[512];		 /* why the last reload was refused; "": it was not */
	const struct clock *clock;
	struct log *log;
	struct loop *loop;
	struct metrics *metrics;
	struct service_user user;
	int spool_fd, lock_fd;
	struct listeners *listeners;
	struct helpers *helpers;
	struct disk *disk;
	struct queue *queue;
	struct memos *memos;
	struct pauses *pauses;
	struct rates *rates;
	struct greylist *greylist;
	struct net *net;
	struct dns_loop *dns;
	struct resolver *resolver;
	struct mx *mx;
	struct https *https;
	struct mta_sts *mta_sts;
	struct tls_memory *tls_memory;
	struct oauth2 *oauth2;
	struct hurry *hurry;
	struct auth *auth;
	struct dedupe *dedupe;
	struct signer *signer;
	struct health *health;
	struct recent *recent;
	struct report *report;
	struct bounce *bounce;
	struct webhook *webhook;
	struct scheduler *scheduler;
	struct destinations *destinations;
	struct deliveries *deliveries;
	struct captures *captures;
	struct tls_policy *tls_policy;
	struct submissions *submissions;
	struct drop *drop;
	struct control *control;
	struct drain *drain;
	struct web web;
	struct gauges gauges;
	struct changes *changes, *resolv_changes; /* the configuration's files; resolv.conf */
	timer_id health_timer, changes_timer, stop_timer;
	int64_t started_wall;
	char early_damage[256]; /* what recovery found, before there was anybody to tell */
	bool stopping;
	int exit_code;
};

/* ---- relayd.c ---- */

/* No new connections, what is under way may finish; the loop is left. Once. */
void relayd_begin_stop(struct relayd *r);

/* ---- relayd_parts.c; both return one of sysexits.h, and words in `err` ---- */

/* Helpers, disk, journal: privileges are dropped by now. */
int relayd_make_storage(struct relayd *r, struct err *err);
/* All the others, with the configuration applied and the listeners ready to be started. */
int relayd_make_parts(struct relayd *r, struct err *err);
/* In the order that callbacks need; also when only some were made. */
void relayd_free_parts(struct relayd *r);

/* ---- relayd_reload.c ---- */

void relayd_configure_log(struct relayd *r);
/* Makes r->mx if there is none. */
void relayd_configure_mx(struct relayd *r);
/* Where descriptors are few, deliveries keep to their share: without one a connection would seem to be refused. */
unsigned relayd_connections_max(const struct relayd *r);
/* Everything that can be exchanged while running; nothing in it can fail. */
void relayd_apply_config(struct relayd *r);
/* Reads the configuration again. Not 0: `err` and the log say why, and all stays as it was. `ctx`: the struct relayd. */
int relayd_reload(void *ctx, struct err *err);
/* From now on changed files are noticed. */
void relayd_watch_changes(struct relayd *r);

#endif
