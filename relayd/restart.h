/*
 * relayd/restart.h - what a reload cannot change, because it was done before privileges were given up, or once for all
 */
#ifndef RELAYD_RESTART_H
#define RELAYD_RESTART_H

#include "base/buf.h"
#include "config/config.h"

/* Appends the keys that are different now from what the daemon was started with, "listen, http"; nothing: none. */
void restart_find(const struct config *started, const struct config *now, struct buf *out);

#endif
