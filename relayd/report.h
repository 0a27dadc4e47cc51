/*
 * relayd/report.h - tells the world what became of messages: one log line and the metrics for each fact
 *
 * Every outcome passes here once. Labels come from a fixed set: configured relayhosts ("mx" for direct delivery), and
 * the operator behind an MX name as far as it is one of the large ones.
 */
#ifndef RELAYD_REPORT_H
#define RELAYD_REPORT_H

#include "base/log.h"
#include "queue/queue.h"
#include "relayd/destination.h"
#include "relayd/metrics.h"

struct report;

/* All borrowed. */
struct report *report_new(struct log *log, struct metrics *metrics, const struct clock *clock);
void report_free(struct report **report);
/* Makes all series of this relayhost ("mx" is always there) at 0. */
void report_add_relayhost(struct report *report, const char *name);

/* See scheduler_options.report. */
void report_outcome(struct report *report, const struct queue_message *message, uint32_t recipient,
		    const struct destination *destination, const struct outcome *outcome, uint32_t attempts,
		    int64_t next_wall);
/* A destination got into trouble or out of it. */
void report_health(struct report *report, const struct destination *destination);
/* "google", "microsoft", "yahoo", "apple" or "other", by the name of the MX host. Static. */
const char *report_operator(const char *host);

#endif
