/*
 * relayd/control_activity.h - how much has happened lately, for `relayctl status`
 *
 * Looks at the counters every ten seconds and remembers a quarter of an hour; of users every minute.
 */
#ifndef RELAYD_CONTROL_ACTIVITY_H
#define RELAYD_CONTROL_ACTIVITY_H

#include "relayd/loop.h"
#include "relayd/metrics.h"

#include <jansson.h>

struct activity;

/* Borrowed. */
struct activity *activity_new(struct loop *loop, const struct metrics *metrics);
void activity_free(struct activity **activity);

/* {accepted, delivered, deferred, failed} since the start. A new reference, as the next ones. */
json_t *activity_totals(const struct activity *activity);
/* {last_minute: {accepted, ...}, last_15_minutes: {...}} */
json_t *activity_rates(const struct activity *activity);
/* [{user, accepted, last_15_minutes}], the ten busiest of late, then of all time; "" are trusted addresses. */
json_t *activity_users(struct activity *activity);

#endif
