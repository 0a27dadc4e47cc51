/*
 * relayd/helper_internal.h - what helper.c, helper_pool.c and helper_disk.c know of each other and nobody else does
 */
#ifndef RELAYD_HELPER_INTERNAL_H
#define RELAYD_HELPER_INTERNAL_H

#include "base/list.h"
#include "relayd/helper.h"
#include "relayd/helper_protocol.h"

#include <uthash.h>

enum {
	LIVED_LONG_MS = 1000, /* a helper that dies earlier may die again at once */
	PAUSE_FIRST_MS = 100,
	PAUSE_MAX_MS = 30 * 1000,
	ZOMBIES_MAX = 64,
};

struct process {
	struct list node; /* in pool->processes */
	struct helpers *helpers;
	struct pool *pool; /* NULL: the sync helper */
	pid_t pid;
	int fd; /* -1: closed, the object goes at the end of the turn */
	struct watch *watch;
	struct list sent; /* requests, in order */
	unsigned sent_count, checks;
	uint32_t keys_reported;
	bool is_ready;
	int64_t started_at_ms, progress_at_ms; /* progress: the last answer, or when it got something to do */
};

struct request {
	UT_hash_handle hh; /* in helpers->by_id */
	struct list node;  /* waiting in a pool, sent to a process, or among helpers->answered */
	struct helpers *helpers;
	struct pool *pool;	 /* NULL: for the disk */
	struct process *process; /* that has it now */
	unsigned tries;
	bool is_slow;	/* a password check that may need Argon2 */
	uint64_t token; /* disk tasks */
	int fd;		/* disk tasks: to be sent while it waits; made, once it is answered; -1: none */
	int result;	/* while among helpers->answered */
	uint32_t duration_us;
	helpers_sign_cb *sign_cb;
	auth_cb *verify_cb;
	void *ctx;
	size_t packet_len;
	struct helper_request packet; /* last: only as much as is used is allocated */
};

/* Replacing what dies, not too fast. */
struct respawn {
	timer_id timer;
	unsigned quick_deaths;
};

/* Keys and users of one configuration, the helpers that have them, and what waits for these. */
struct pool {
	struct list node; /* in helpers->old_pools, once it is one */
	struct helpers *helpers;
	struct config *config;
	struct helper_report report;
	uint32_t *first_of_domain;
	struct helper_secrets *secrets; /* inline: no processes */
	struct list processes;
	struct list signs, checks; /* waiting; checks: those that may need Argon2 */
	unsigned sign_count, check_count;
	struct respawn respawn;
	bool is_old;
	bool inline_posted;
	timer_id inline_timer;
};

struct helpers {
	struct helpers_options options;
	struct pool *pool, *staged;
	struct list old_pools;
	struct process *disk_process;
	struct respawn disk_respawn;
	struct list disk_waiting; /* its socket was full */
	bool disk_is_inline;
	struct disk_async disk;
	unsigned disk_pending, replaced;
	struct request *by_id;
	uint64_t last_id;
	struct list answered; /* whose answer is known here; told at the end of the turn */
	bool answers_posted;
	struct list graveyard; /* closed processes */
	bool bury_posted;
	pid_t zombies[ZOMBIES_MAX]; /* killed, not yet waited for */
	unsigned zombie_count;
	timer_id zombie_timer, watchdog;
	union {
		struct helper_answer answer;
		struct helper_report_packet report;
	} packet; /* of whoever is read just now */
};

/* ---- helper.c: requests and processes */

/* `data` is copied; data_len too. */
struct request *request_new(struct helpers *h, enum helper_task task, const void *data, size_t len);
void request_free(struct request *r);
/* Tells `result` at the end of the turn: never from inside the call that asked. */
void request_answer(struct request *r, int result);
/* Hands the answer to whoever asked, and frees the request. */
void request_tell(struct request *r, int result, struct slice data);
/* False: the process took nothing (its socket is full, or it is gone). */
bool process_send(struct process *p, struct request *r, int fd);
/* NULL: errno. For the pool, or (NULL) the sync helper. */
struct process *process_start(struct helpers *h, struct pool *pool);
/* Kills it; what it had is still on p->sent, and is to be taken from there in this turn. */
void process_close(struct process *p);
/* The same, but it may finish what it is doing. */
void process_end(struct process *p);
/* Sets the timer of a replacement: at once, or after a pause. */
void respawn_after_death(struct helpers *h, struct respawn *respawn, const struct process *p, timer_cb *cb, void *ctx);
/* Kills crypto helpers that have been silent for too long. */
void watchdog_start(struct helpers *h);

/* ---- helper_pool.c */

/* Forks and waits. NULL with words. */
struct pool *pool_new(struct helpers *h, struct config *config, struct err *err);
void pool_free(struct pool **pool);
/* It gets nothing new, and goes when it has done all. */
void pool_retire(struct pool *pool);
void pool_submit(struct pool *pool, struct request *r);
void pool_dispatch(struct pool *pool);
/* A packet in helpers->packet from a helper that was not ready. False: it is of no use. */
bool pool_on_report(struct process *p, size_t len);
/* `p` has been closed already; its requests are still on p->sent. */
void pool_on_death(struct pool *pool, struct process *p);
/* After answers: frees an old one that has done all. */
void pool_on_progress(struct pool *pool);

/* ---- helper_disk.c */

void disk_init(struct helpers *h);
int disk_start(struct helpers *h, bool is_inline, struct err *err);
void disk_fini(struct helpers *h);
void disk_on_death(struct helpers *h, struct process *p);
/* Frees the request and tells the end; r->fd: of a preparation, or -1. */
void disk_finish(struct request *r, int result);
/* There is room in its socket again. */
void disk_on_progress(struct helpers *h);

#endif
