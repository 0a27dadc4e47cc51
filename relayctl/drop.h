/*
 * relayctl/drop.h - leaves a message in SPOOL/drop/, for a daemon that is away (read by relayd/drop.h)
 *
 * The file gets a name that nobody can guess, since others may enter the folder though not list it, and is readable for
 * the daemon. It appears by rename, whole; 0 means that it is on stable storage under its name.
 */
#ifndef RELAYCTL_DROP_H
#define RELAYCTL_DROP_H

#include "relayctl/submit.h"

/* ERR_NO_SPACE: the folder's file system has not the room that the daemon's journal needs; and others, with words. */
int drop_put(const char *spool, const struct submission *submission, struct err *err);

#endif
