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

/* As root: tells on standard error which files `user` could not read at a reload, for the start reads them as root. */
void check_warn_of_unreadable(const struct relayd_options *options, const struct service_user *user);

#endif
