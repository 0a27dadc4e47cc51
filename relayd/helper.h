/*
 * relayd/helper.h - forked helper processes: what would block the loop, and what must not be in its memory
 *
 * One helper syncs the journal (and makes and unlinks its segments); `helpers` of them sign and check passwords. DKIM
 * keys and password hashes are loaded inside the latter after the fork and are nowhere else. Requests are answered by
 * callback from the loop, never from inside the call. A helper keeps nothing but its socket, its keys and standard
 * error, runs as the service user under relayd/sandbox.h, and dies with the daemon.
 *
 * DEATH    A helper that dies is replaced, at once if it had lived for a second, else after a pause that doubles up to
 *          half a minute. Signatures and checks that it had are repeated by another; one that took three helpers along
 *          fails with ERR_TEMPORARY. A sync is never repeated: it ends with DISK_HELPER_DIED (queue/disk.h), and the
 *          new sync helper is there before that is told. One that says nothing for half a minute is killed, but never
 *          the sync helper: a disk may take that long.
 * RELOAD   New helpers for the new keys; what was asked before is done by the old ones, with the old keys, and then
 * they go. A replacement must find the keys that its siblings have: when files have changed, only a reload helps.
 * INLINE   `helpers: 0`: all of it happens in this process at the end of the turn, with the same interface; for tests
 *          and very small machines.
 * FAIRNESS A password check that may take Argon2 (tens of ms) never occupies the last helper that is free for
 *          signatures, if there are two, and signatures don't queue behind it.
 * BOUNDED  4,096 signatures and 256 checks wait at most.
 *
 * From a callback helpers_sign(), _cancel(), the disk's functions and questions may be called; what changes the helpers
 * themselves (reload, stage, commit, unstage, free) may not.
 */
#ifndef RELAYD_HELPER_H
#define RELAYD_HELPER_H

#include "base/log.h"
#include "config/config.h"
#include "dkim/dkim.h"
#include "queue/disk.h"
#include "relayd/auth.h"
#include "relayd/loop.h"

struct helpers;

struct helpers_options {
	struct loop *loop;
	struct log *log;
	/* The journal's folder, for the sync helper; -1: there is none (inline disk). A duplicate is kept. */
	int journal_fd;
	/* Where the ends of syncs and preparations go: queue_on_disk_done(). */
	void (*on_disk_done)(void *ctx, const struct disk_done *done);
	void *disk_ctx;
	/* main()'s argv, so that ps shows "relayd: sync"; NULL: only the name of the process is changed. */
	char **argv;
	bool no_seccomp; /* for valgrind */
};

/* Forks the helpers and waits until each has loaded its keys and users: NULL, with words that name the file, when one
 * cannot. Privileges have been dropped before. Takes a reference to the configuration. */
struct helpers *helpers_new(const struct helpers_options *options, struct config *config, struct err *err);
/* Requests under way are dropped without a callback; waits until a sync under way is done, at most five seconds. */
void helpers_free(struct helpers **helpers);

/* Starts helpers with the keys and users of this configuration, and waits for them as helpers_new() does; the old ones
 * finish what they have. On an error all stays as it was. The same as helpers_stage() and helpers_commit(). */
int helpers_reload(struct helpers *helpers, struct config *config, struct err *err);
/* In two steps, for a reload that may still fail elsewhere: the new ones are ready but get nothing yet. Replaces what
 * was staged before. */
int helpers_stage(struct helpers *helpers, struct config *config, struct err *err);
/* What is staged serves from now on. Harmless when nothing is. */
void helpers_commit(struct helpers *helpers);
/* Ends what is staged. Harmless when nothing is. */
void helpers_unstage(struct helpers *helpers);

/* How many users may log in; of what is staged, if something is. */
size_t helpers_user_count(const struct helpers *helpers);

/* What a helper said about a key it has loaded. */
struct helpers_key_info {
	enum dkim_algorithm algorithm;
	unsigned bits;
	unsigned warnings; /* bits of enum dkim_key_warning */
};
/* Of key `key` of domain `domain`, as in config->dkim of the configuration that serves. */
struct helpers_key_info helpers_key_info(const struct helpers *helpers, uint32_t domain, uint32_t key);
enum dkim_algorithm helpers_key_algorithm(const struct helpers *helpers, uint32_t domain, uint32_t key);

typedef void helpers_sign_cb(void *ctx, enum err_code result, struct slice signature);
/* ERR_LIMIT when too many wait; ERR_CRYPTO; ERR_NOT_FOUND: no such key; ERR_TEMPORARY. The id is for helpers_cancel().
 */
uint64_t helpers_sign(struct helpers *helpers, uint32_t domain, uint32_t key,
		      const unsigned char digest[DKIM_DIGEST_BYTES], helpers_sign_cb *cb, void *ctx);
/* After it the callback never comes. Harmless for 0 and for one that has ended; sets *id to 0. */
void helpers_cancel(struct helpers *helpers, uint64_t *id);
/* For auth_new(). A password that is too long for a packet (12 KiB with the name) is wrong. */
struct auth_backend helpers_auth_backend(struct helpers *helpers);
/* For disk_real_new(); valid as long as the helpers. */
const struct disk_async *helpers_disk_async(struct helpers *helpers);
/* Syncs, preparations and unlinks that have not ended. */
unsigned helpers_disk_pending(const struct helpers *helpers);

/* For status: how many crypto helpers are ready, and how many processes have been replaced since the start. */
struct helpers_counts {
	unsigned ready, waiting, replaced;
};
struct helpers_counts helpers_count(const struct helpers *helpers);

#endif
