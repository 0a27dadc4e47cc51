/*
 * relayd/helper.h - forked helper processes: what would block the loop, and what must not be in its memory
 *
 * One helper syncs the journal (and makes and unlinks its segments); `helpers` of them sign and check passwords. DKIM
 * keys and password hashes are loaded inside the latter after the fork and are nowhere else. Requests are answered by
 * callback from the loop, never from inside the call. A helper keeps nothing but its socket and its keys, runs as the
 * service user, and dies with the daemon.
 *
 * DEATH    A helper that dies is replaced; signatures and checks that it had are repeated by another. A sync is never
 *          repeated: it ends with DISK_HELPER_DIED (queue/disk.h).
 * INLINE   `helpers: 0`: all of it happens in this process, with the same interface; for tests and very small machines.
 * FAIRNESS A password check (tens of ms) never occupies the last helper that is free for signatures, if there are two.
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
	/* The journal's folder, for the sync helper; -1: there is none (inline disk). */
	int journal_fd;
	/* Where the ends of syncs and preparations go: queue_on_disk_done(). */
	void (*on_disk_done)(void *ctx, const struct disk_done *done);
	void *disk_ctx;
};

/* Forks the helpers and waits until each has loaded its keys and users: NULL, with words that name the file, when one
 * cannot. Privileges have been dropped before. Takes a reference to the configuration. */
struct helpers *helpers_new(const struct helpers_options *options, struct config *config, struct err *err);
/* Requests under way are dropped without a callback; waits until a sync under way is done. */
void helpers_free(struct helpers **helpers);
/* Starts helpers with the keys and users of this configuration; the old ones finish what they have. On an error all
 * stays as it was. */
int helpers_reload(struct helpers *helpers, struct config *config, struct err *err);

/* How many users may log in; of the last load. */
size_t helpers_user_count(const struct helpers *helpers);
/* Of key `key` of domain `domain`, as in config->dkim. */
enum dkim_algorithm helpers_key_algorithm(const struct helpers *helpers, uint32_t domain, uint32_t key);

typedef void helpers_sign_cb(void *ctx, enum err_code result, struct slice signature);
/* ERR_LIMIT when too many wait; ERR_CRYPTO. The id is for helpers_cancel(). */
uint64_t helpers_sign(struct helpers *helpers, uint32_t domain, uint32_t key,
		      const unsigned char digest[DKIM_DIGEST_BYTES], helpers_sign_cb *cb, void *ctx);
/* After it the callback never comes. Harmless for 0 and for one that has ended; sets *id to 0. */
void helpers_cancel(struct helpers *helpers, uint64_t *id);
/* For auth_new(). */
struct auth_backend helpers_auth_backend(struct helpers *helpers);
/* For disk_real_new(); valid as long as the helpers. */
const struct disk_async *helpers_disk_async(struct helpers *helpers);
/* Syncs, preparations and unlinks that have not ended. */
unsigned helpers_disk_pending(const struct helpers *helpers);

#endif
