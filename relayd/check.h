/*
 * relayd/check.h - what of a configuration shows only when its files are opened: for `relayd -t`, and before a start
 *
 * The start itself finds the same mistakes, one after the other; here nothing is made or changed.
 */
#ifndef RELAYD_CHECK_H
#define RELAYD_CHECK_H

#include "relayd/relayd.h"
#include "relayd/spool.h"

/* Loads the keys, certificates and users that the configuration names, and looks the service user up. All mistakes go to
 * standard error; EX_OK or EX_CONFIG. */
int check_parts(struct config *config);

/* Tells on standard error when a start here would be refused because the spool would vanish: which is no mistake of the
 * configuration, for it may be checked elsewhere. */
void check_warn_of_spool(const struct config *config);

/*
 * As root: what `user` could not read, for the daemon reads only the first time as root, and its helpers not even that.
 * Each file is told on standard error behind `prefix`; EX_CONFIG when there are any. Nothing when nobody else is to be
 * become.
 */
int check_as_user(const struct relayd_options *options, const struct service_user *user, const char *prefix);

#endif
