/*
 * relayd/metrics.h - counters, gauges and histograms in the Prometheus text format
 *
 * The families are fixed (relayd/metrics.c has the table; names are Contract). A series is one family with one set of
 * label values; it exists at 0 from the moment it is asked for, so ask for all known label values at start. Never label
 * by address, domain, message id or reply text: a series lives as long as the metrics.
 */
#ifndef RELAYD_METRICS_H
#define RELAYD_METRICS_H

#include "base/buf.h"

enum metric {
	METRIC_BUILD_INFO,
	METRIC_SUBMISSIONS,
	METRIC_SUBMISSION_REJECTIONS,
	METRIC_SUPPRESSED,
	METRIC_AUTH_ATTEMPTS,
	METRIC_SUBMISSION_DURATION,
	METRIC_MESSAGE_SIZE,
	METRIC_QUEUE_MESSAGES,
	METRIC_QUEUE_RECIPIENTS,
	METRIC_QUEUE_BYTES,
	METRIC_QUEUE_OLDEST_AGE,
	METRIC_DELIVERY_ATTEMPTS,
	METRIC_DEFERRALS,
	METRIC_BOUNCES,
	METRIC_DELIVERY_LATENCY,
	METRIC_ATTEMPT_DURATION,
	METRIC_LAST_SUCCESS,
	METRIC_RELAYHOST_UP,
	METRIC_ALERT_ACTIVE,
	METRIC_UPSTREAM_AUTH_FAILURES,
	METRIC_RATE_LIMIT_WAITS,
	METRIC_GREYLIST_WAIT,
	METRIC_GREYLIST_HINTS,
	METRIC_OAUTH_TOKEN_EXPIRY,
	METRIC_CONNECTIONS,
	METRIC_TLS_HANDSHAKES,
	METRIC_DKIM_SIGNATURES,
	METRIC_JOURNAL_FSYNC_DURATION,
	METRIC_JOURNAL_BYTES,
	METRIC_JOURNAL_FREE_BYTES,
	METRIC_JOURNAL_ERRORS,
	METRIC_CERTIFICATE_EXPIRY,
	METRIC_RELOAD_SUCCESSFUL,
	METRIC_RELOAD_SUCCESS_TIME,
	METRIC_WEBHOOK_EVENTS,
	METRIC_LOG_LINES_DROPPED,
	METRIC_LOOP_TURN_MAX,
	METRIC_PROCESS_CPU,
	METRIC_PROCESS_RESIDENT,
	METRIC_PROCESS_VIRTUAL,
	METRIC_PROCESS_OPEN_FDS,
	METRIC_PROCESS_MAX_FDS,
	METRIC_PROCESS_START_TIME,
	METRIC_COUNT,
};

struct metrics;
struct series;

struct metrics *metrics_new(void);
void metrics_free(struct metrics **metrics);

/* The series of this family with these label values, as many as the family has labels (unused ones: NULL). The pointer
 * lives as long as `metrics`. */
struct series *metrics_series(struct metrics *metrics, enum metric metric, const char *first, const char *second,
			      const char *third);

/* The same without making one; NULL: there is none. */
struct series *metrics_find(const struct metrics *metrics, enum metric metric, const char *first, const char *second,
			    const char *third);

void series_add(struct series *series, double amount);
void series_set(struct series *series, double value);
/* Histograms only. */
void series_observe(struct series *series, double value);
/* The value of a counter or gauge; a histogram's count. */
double series_value(const struct series *series);

/* The sum of all series whose label number `label` (from 0) has this value; 0: there is none. Counters and gauges. */
double metrics_sum(const struct metrics *metrics, enum metric metric, int label, const char *value);

/* Calls back for each series of the family with its label values. Counters and gauges. */
void metrics_each(const struct metrics *metrics, enum metric metric,
		  void (*visit)(void *ctx, const char *const labels[], double value), void *ctx);

/* The least value above 0 of all its series; 0: there is none. Counters and gauges. */
double metrics_least(const struct metrics *metrics, enum metric metric);

/* Called at each scrape before the values are read, to set gauges. */
void metrics_on_scrape(struct metrics *metrics, void (*collect)(void *ctx), void *ctx);
/* Calls the collectors and appends the exposition. */
void metrics_render(struct metrics *metrics, struct buf *out);

/* process_* from /proc/self. */
void metrics_collect_process(struct metrics *metrics);

#endif
