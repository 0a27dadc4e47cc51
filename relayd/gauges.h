/*
 * relayd/gauges.h - metrics that are not counted as things happen but read when somebody scrapes
 */
#ifndef RELAYD_GAUGES_H
#define RELAYD_GAUGES_H

#include "base/log.h"
#include "queue/queue.h"
#include "relayd/destination.h"
#include "relayd/metrics.h"

/* What is read; borrowed. */
struct gauges {
	struct metrics *metrics;
	const struct clock *clock;
	struct queue *queue;
	const struct destinations *destinations;
	struct loop *loop;
	const struct log *log;
};

/* For metrics_on_scrape(); `ctx` is a struct gauges. */
void gauges_collect(void *ctx);

#endif
