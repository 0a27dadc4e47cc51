/*
 * relayd/quota.h - so many messages in so much time, for each user: a token bucket per name
 *
 * A bucket holds `count` tokens and is filled evenly over `per_ms`: a user that was silent may send `count` messages at
 * once, then one at a time. Kept as one number a user (the time at which the bucket is full again: "GCRA"), and
 * forgotten once it is full. Pure: the time is given, monotonic milliseconds.
 */
#ifndef RELAYD_QUOTA_H
#define RELAYD_QUOTA_H

#include "base/slice.h"
#include "config/values.h"

struct quota;

struct quota *quota_new(void);
/* Accepts NULL, sets NULL. */
void quota_free(struct quota **quota);

/* Takes a token: 0. None is there: takes none, and returns in how many milliseconds there will be one, at least 1. A
 * rate of count 0 is no limit. */
int64_t quota_take(struct quota *quota, struct slice user, const struct config_rate *rate, int64_t now_ms);
/* Gives a token back that was taken for a message which was not sent after all. */
void quota_give_back(struct quota *quota, struct slice user, const struct config_rate *rate);
/* Buckets that are not known to be full. */
size_t quota_count(const struct quota *quota);

#endif
