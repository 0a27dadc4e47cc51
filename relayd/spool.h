/*
 * relayd/spool.h - the spool folder: made, owned, checked and locked before anything else
 *
 * SPOOL is 0711 and belongs to the service user; below it journal/ and quarantine/ (the queue's), drop/ (1733: anybody
 * may put a message there while the daemon is away), the sockets, the lock and the self-signed certificate.
 */
#ifndef RELAYD_SPOOL_H
#define RELAYD_SPOOL_H

#include "base/err.h"
#include "base/log.h"
#include "config/config.h"

#include <sys/types.h>

struct service_user {
	const char *name; /* borrowed; NULL: whoever started us */
	uid_t uid;
	gid_t gid;
	bool must_drop; /* we are root and `name` is somebody else */
};

/* Whom to run as: root becomes the configured user, anybody else stays. EX_OK, or EX_CONFIG with words: no such user.
 */
int service_user_find(const struct config *config, struct service_user *user, struct err *err);

/* Whether spool_open() would refuse the spool because it would vanish with the container; with words. */
bool spool_would_be_refused(const struct config *config, struct err *err);

/*
 * Makes SPOOL if need be (as root, then given to `user`), refuses one that would vanish unless ephemeral_spool says
 * otherwise, and opens it: *dir_fd. EX_OK, EX_CANTCREAT (73), EX_NOPERM (77) or EX_IOERR (74), with words.
 */
int spool_open(const struct config *config, const struct service_user *user, struct log *log, int *dir_fd,
	       struct err *err);

/* Takes the lock and gives its file to `user`, waiting up to 60 s for another daemon to leave (a rolling restart). EX_OK,
 * EX_TEMPFAIL (75), EX_IOERR, EX_NOPERM. */
int spool_lock(int dir_fd, const struct service_user *user, struct log *log, int *lock_fd, struct err *err);

#endif
