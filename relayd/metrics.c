#include "relayd/metrics.h"

#include "base/base.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <uthash.h>

enum type { COUNTER, GAUGE, HISTOGRAM };
enum { LABELS_MAX = 3, BUCKETS_MAX = 16, COLLECTORS_MAX = 8, KEY_MAX_BYTES = 1024 };

struct family {
	const char *name;
	enum type type;
	const char *labels[LABELS_MAX];
	const char *help;
	const double *buckets; /* ends with 0 */
};

static const double fast_seconds[] = {.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 0};
static const double attempt_seconds[] = {.001, .005, .025, .1, .5, 1, 5, 30, 120, 600, 0};
static const double latency_seconds[] = {.25, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400, 0};
static const double size_bytes[] = {1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 0};
static const double greylist_seconds[] = {60, 120, 300, 330, 600, 900, 1200, 1800, 3600, 7200, 14400, 43200, 0};

static const struct family families[METRIC_COUNT] = {
    [METRIC_BUILD_INFO] =
	{"relayd_build_info", GAUGE, {"version", "revision", "gnutls"}, "Version of relayd, always 1.", NULL},
    [METRIC_SUBMISSIONS] = {"relayd_submissions_total",
			    COUNTER,
			    {"listener", "user", "result"},
			    "Messages submitted, by the answer to the end of data.",
			    NULL},
    [METRIC_SUBMISSION_REJECTIONS] =
	{"relayd_submission_rejections_total", COUNTER, {"reason"}, "Commands and messages refused.", NULL},
    [METRIC_SUPPRESSED] = {"relayd_suppressed_total",
			   COUNTER,
			   {0},
			   "Recipients that were not taken because they are on the suppression list.",
			   NULL},
    [METRIC_AUTH_ATTEMPTS] = {"relayd_auth_attempts_total", COUNTER, {"result"}, "Password checks of clients.", NULL},
    [METRIC_SUBMISSION_DURATION] = {"relayd_submission_duration_seconds",
				    HISTOGRAM,
				    {0},
				    "From the end of data to the 250: what the application waits for.",
				    fast_seconds},
    [METRIC_MESSAGE_SIZE] = {"relayd_message_size_bytes", HISTOGRAM, {0}, "Size of accepted messages.", size_bytes},
    [METRIC_QUEUE_MESSAGES] = {"relayd_queue_messages", GAUGE, {"state"}, "Messages in the queue.", NULL},
    [METRIC_QUEUE_RECIPIENTS] = {"relayd_queue_recipients", GAUGE, {"state"}, "Recipients still to be served.", NULL},
    [METRIC_QUEUE_BYTES] = {"relayd_queue_bytes", GAUGE, {"state"}, "Bytes of queued messages.", NULL},
    [METRIC_QUEUE_OLDEST_AGE] =
	{"relayd_queue_oldest_age_seconds", GAUGE, {"state"}, "Age of the oldest queued message.", NULL},
    [METRIC_DELIVERY_ATTEMPTS] = {"relayd_delivery_attempts_total",
				  COUNTER,
				  {"relayhost", "operator", "outcome"},
				  "Recipients by the outcome of an attempt.",
				  NULL},
    [METRIC_DEFERRALS] = {"relayd_deferrals_total", COUNTER, {"relayhost", "class"}, "Deferred recipients.", NULL},
    [METRIC_BOUNCES] = {"relayd_bounces_total", COUNTER, {"relayhost", "class"}, "Recipients given up.", NULL},
    [METRIC_DELIVERY_LATENCY] = {"relayd_delivery_latency_seconds",
				 HISTOGRAM,
				 {"relayhost"},
				 "From acceptance to the next hop's 250.",
				 latency_seconds},
    [METRIC_ATTEMPT_DURATION] = {"relayd_attempt_duration_seconds",
				 HISTOGRAM,
				 {"phase"},
				 "Time spent in each phase of a delivery.",
				 attempt_seconds},
    [METRIC_LAST_SUCCESS] = {"relayd_last_success_timestamp_seconds",
			     GAUGE,
			     {"relayhost"},
			     "When a message was last delivered, 0: never.",
			     NULL},
    [METRIC_RELAYHOST_UP] = {"relayd_relayhost_up", GAUGE, {"relayhost"}, "1: the last session succeeded.", NULL},
    [METRIC_ALERT_ACTIVE] = {"relayd_alert_active", GAUGE, {"alert"}, "1: a person should look.", NULL},
    [METRIC_UPSTREAM_AUTH_FAILURES] =
	{"relayd_upstream_auth_failures_total", COUNTER, {"relayhost"}, "Refused logins at a relayhost.", NULL},
    [METRIC_RATE_LIMIT_WAITS] = {"relayd_rate_limit_waits_total",
				 COUNTER,
				 {"scope"},
				 "Messages that had to wait for a rate, or a user's that were put off.",
				 NULL},
    [METRIC_GREYLIST_WAIT] = {"relayd_greylist_wait_seconds",
			      HISTOGRAM,
			      {0},
			      "From the first refusal of a greylisted recipient to its delivery.",
			      greylist_seconds},
    [METRIC_GREYLIST_HINTS] = {"relayd_greylist_hints_total",
			       COUNTER,
			       {"used"},
			       "Refusals by greylisters that said when to come back; used: we did so.",
			       NULL},
    [METRIC_OAUTH_TOKEN_EXPIRY] = {"relayd_oauth_token_expiry_timestamp_seconds",
				   GAUGE,
				   {"relayhost"},
				   "When the access token of the relayhost expires; 0: there was none yet.",
				   NULL},
    [METRIC_CONNECTIONS] = {"relayd_connections", GAUGE, {"direction"}, "Open SMTP connections.", NULL},
    [METRIC_TLS_HANDSHAKES] = {"relayd_tls_handshakes_total",
			       COUNTER,
			       {"direction", "version", "result"},
			       "TLS handshakes; result plain: a session without TLS.",
			       NULL},
    [METRIC_DKIM_SIGNATURES] =
	{"relayd_dkim_signatures_total", COUNTER, {"algorithm", "result"}, "DKIM signatures made.", NULL},
    [METRIC_JOURNAL_FSYNC_DURATION] =
	{"relayd_journal_fsync_duration_seconds", HISTOGRAM, {0}, "Time of one journal sync.", fast_seconds},
    [METRIC_JOURNAL_BYTES] = {"relayd_journal_bytes", GAUGE, {0}, "Size of the journal on disk.", NULL},
    [METRIC_JOURNAL_FREE_BYTES] =
	{"relayd_journal_free_bytes", GAUGE, {0}, "Free space of the spool's file system.", NULL},
    [METRIC_JOURNAL_ERRORS] = {"relayd_journal_errors_total", COUNTER, {0}, "Failed writes and syncs.", NULL},
    [METRIC_CERTIFICATE_EXPIRY] =
	{"relayd_certificate_expiry_timestamp_seconds", GAUGE, {"listener"}, "When the certificate expires.", NULL},
    [METRIC_RELOAD_SUCCESSFUL] = {"relayd_config_last_reload_successful",
				  GAUGE,
				  {0},
				  "1: the last reload of the configuration succeeded.",
				  NULL},
    [METRIC_RELOAD_SUCCESS_TIME] = {"relayd_config_last_reload_success_timestamp_seconds",
				    GAUGE,
				    {0},
				    "When the configuration was last loaded.",
				    NULL},
    [METRIC_WEBHOOK_EVENTS] = {"relayd_webhook_events_total",
			       COUNTER,
			       {"result"},
			       "Events for the webhook: sent, or given up (expired, refused), dropped (full) or lost.",
			       NULL},
    [METRIC_LOG_LINES_DROPPED] =
	{"relayd_log_lines_dropped_total", COUNTER, {0}, "Log lines lost because the log's target was blocked.", NULL},
    [METRIC_LOOP_TURN_MAX] =
	{"relayd_loop_turn_max_seconds", GAUGE, {0}, "The longest turn of the event loop since the last scrape.", NULL},
    [METRIC_PROCESS_CPU] = {"process_cpu_seconds_total", COUNTER, {0}, "CPU time, helpers that ended included.", NULL},
    [METRIC_PROCESS_RESIDENT] = {"process_resident_memory_bytes", GAUGE, {0}, "Resident memory.", NULL},
    [METRIC_PROCESS_VIRTUAL] = {"process_virtual_memory_bytes", GAUGE, {0}, "Virtual memory.", NULL},
    [METRIC_PROCESS_OPEN_FDS] = {"process_open_fds", GAUGE, {0}, "Open file descriptors.", NULL},
    [METRIC_PROCESS_MAX_FDS] = {"process_max_fds", GAUGE, {0}, "Limit of open file descriptors.", NULL},
    [METRIC_PROCESS_START_TIME] = {"process_start_time_seconds", GAUGE, {0}, "When the process started.", NULL},
};

struct series {
	UT_hash_handle hh; /* by `key` */
	struct series *next;
	char *key;
	const struct family *family;
	char *values[LABELS_MAX];
	double value; /* histograms: the sum */
	uint64_t count;
	uint64_t buckets[BUCKETS_MAX];
};

struct metrics {
	struct series *by_key; /* asked for several times a message: must not cost more with many users */
	struct series *first[METRIC_COUNT], *last[METRIC_COUNT];
	struct {
		void (*collect)(void *ctx);
		void *ctx;
	} collectors[COLLECTORS_MAX];
	size_t collector_count;
};

struct metrics *metrics_new(void)
{
	struct metrics *metrics = xcalloc(1, sizeof(*metrics));

	for (int i = 0; i < METRIC_COUNT; i++)
		if (!families[i].labels[0])
			metrics_series(metrics, i, NULL, NULL, NULL);
	series_set(metrics_series(metrics, METRIC_PROCESS_START_TIME, NULL, NULL, NULL), (double)time(NULL));
	return metrics;
}

void metrics_free(struct metrics **metrics)
{
	if (!*metrics)
		return;
	HASH_CLEAR(hh, (*metrics)->by_key);
	for (int i = 0; i < METRIC_COUNT; i++)
		for (struct series *s = (*metrics)->first[i], *next; s; s = next) {
			next = s->next;
			for (int label = 0; label < LABELS_MAX; label++)
				free(s->values[label]);
			free(s->key);
			free(s);
		}
	free(*metrics);
	*metrics = NULL;
}

/* Family and label values, each with its NUL: no two series share it. Returns the length. */
static size_t make_key(char *out, size_t size, enum metric metric, const char *const values[LABELS_MAX])
{
	size_t len = 0;

	out[len++] = (char)metric;
	for (int i = 0; i < LABELS_MAX && families[metric].labels[i]; i++) {
		BUG_ON(!values[i]);
		len += (size_t)snprintf(out + len, size - len, "%s", values[i]) + 1;
		BUG_ON(len > size);
	}
	return len;
}

static struct series *series_new(struct metrics *metrics, enum metric metric, const char *const values[LABELS_MAX])
{
	struct series *series = xcalloc(1, sizeof(*series));

	series->family = &families[metric];
	for (int i = 0; i < LABELS_MAX; i++)
		if (series->family->labels[i])
			series->values[i] = xstrdup(values[i]);
	if (metrics->last[metric])
		metrics->last[metric]->next = series;
	else
		metrics->first[metric] = series;
	metrics->last[metric] = series;
	return series;
}

struct series *metrics_find(const struct metrics *metrics, enum metric metric, const char *first, const char *second,
			    const char *third)
{
	const char *const values[LABELS_MAX] = {first, second, third};
	char key[KEY_MAX_BYTES];
	size_t len = make_key(key, sizeof(key), metric, values);
	struct series *series;

	HASH_FIND(hh, metrics->by_key, key, len, series);
	return series;
}

struct series *metrics_series(struct metrics *metrics, enum metric metric, const char *first, const char *second,
			      const char *third)
{
	const char *const values[LABELS_MAX] = {first, second, third};
	char key[KEY_MAX_BYTES];
	size_t len = make_key(key, sizeof(key), metric, values);
	struct series *series;

	HASH_FIND(hh, metrics->by_key, key, len, series);
	if (series)
		return series;
	series = series_new(metrics, metric, values);
	series->key = xmemdup(key, len);
	HASH_ADD_KEYPTR(hh, metrics->by_key, series->key, len, series);
	return series;
}

void series_add(struct series *series, double amount)
{
	series->value += amount;
}

void series_set(struct series *series, double value)
{
	series->value = value;
}

void series_observe(struct series *series, double value)
{
	for (int i = 0; series->family->buckets[i] > 0; i++)
		if (value <= series->family->buckets[i]) {
			series->buckets[i]++;
			break;
		}
	series->value += value;
	series->count++;
}

double series_value(const struct series *series)
{
	return series->family->type == HISTOGRAM ? (double)series->count : series->value;
}

double metrics_sum(const struct metrics *metrics, enum metric metric, int label, const char *value)
{
	double sum = 0;

	BUG_ON(label < 0 || label >= LABELS_MAX || !families[metric].labels[label]);
	for (const struct series *series = metrics->first[metric]; series; series = series->next)
		if (strcmp(series->values[label], value) == 0)
			sum += series_value(series);
	return sum;
}

void metrics_each(const struct metrics *metrics, enum metric metric,
		  void (*visit)(void *ctx, const char *const labels[], double value), void *ctx)
{
	for (const struct series *series = metrics->first[metric]; series; series = series->next)
		visit(ctx, (const char *const *)series->values, series_value(series));
}

double metrics_least(const struct metrics *metrics, enum metric metric)
{
	double least = 0;

	for (const struct series *series = metrics->first[metric]; series; series = series->next)
		if (series_value(series) > 0 && (least <= 0 || series_value(series) < least))
			least = series_value(series);
	return least;
}

void metrics_on_scrape(struct metrics *metrics, void (*collect)(void *ctx), void *ctx)
{
	BUG_ON(metrics->collector_count == COLLECTORS_MAX);
	metrics->collectors[metrics->collector_count].collect = collect;
	metrics->collectors[metrics->collector_count++].ctx = ctx;
}

static void append_label_value(struct buf *out, const char *value)
{
	for (; *value; value++) {
		if (*value == '\n')
			buf_append_str(out, "\\n");
		else if (*value == '"' || *value == '\\')
			buf_printf(out, "\\%c", *value);
		else
			buf_append_byte(out, *value);
	}
}

/* `le`: the bucket's upper bound, or NULL. */
static void append_labels(struct buf *out, const struct series *series, const char *le)
{
	bool any = false;

	for (int i = 0; i < LABELS_MAX && series->family->labels[i]; i++) {
		buf_printf(out, "%c%s=\"", any ? ',' : '{', series->family->labels[i]);
		append_label_value(out, series->values[i]);
		buf_append_byte(out, '"');
		any = true;
	}
	if (le)
		buf_printf(out, "%cle=\"%s\"", any ? ',' : '{', le);
	if (any || le)
		buf_append_byte(out, '}');
}

static void append_value(struct buf *out, double value)
{
	if (value == floor(value) && fabs(value) < 1e15)
		buf_printf(out, " %.0f\n", value);
	else
		buf_printf(out, " %.15g\n", value); /* points in time have ten digits before the point */
}

static void append_histogram(struct buf *out, const struct series *series)
{
	const struct family *family = series->family;
	uint64_t below = 0;
	char le[32];

	for (int i = 0; family->buckets[i] > 0; i++) {
		below += series->buckets[i];
		snprintf(le, sizeof(le), "%g", family->buckets[i]);
		if (family->buckets[i] >= 1e5)
			snprintf(le, sizeof(le), "%.0f", family->buckets[i]);
		buf_printf(out, "%s_bucket", family->name);
		append_labels(out, series, le);
		append_value(out, (double)below);
	}
	buf_printf(out, "%s_bucket", family->name);
	append_labels(out, series, "+Inf");
	append_value(out, (double)series->count);
	buf_printf(out, "%s_sum", family->name);
	append_labels(out, series, NULL);
	append_value(out, series->value);
	buf_printf(out, "%s_count", family->name);
	append_labels(out, series, NULL);
	append_value(out, (double)series->count);
}

void metrics_render(struct metrics *metrics, struct buf *out)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};

	for (size_t i = 0; i < metrics->collector_count; i++)
		metrics->collectors[i].collect(metrics->collectors[i].ctx);
	metrics_collect_process(metrics);
	for (int i = 0; i < METRIC_COUNT; i++) {
		if (!metrics->first[i])
			continue;
		buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", families[i].name, families[i].help, families[i].name,
			   types[families[i].type]);
		for (struct series *s = metrics->first[i]; s; s = s->next) {
			if (families[i].type == HISTOGRAM) {
				append_histogram(out, s);
				continue;
			}
			buf_append_str(out, families[i].name);
			append_labels(out, s, NULL);
			append_value(out, s->value);
		}
	}
}

static double cpu_seconds(int who)
{
	struct rusage usage;

	if (getrusage(who, &usage) != 0)
		return 0;
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double open_fd_count(void)
{
	DIR *dir = opendir("/proc/self/fd");
	double count = 0;

	if (!dir)
		return 0;
	while (readdir(dir))
		count++;
	closedir(dir);
	return count - 3; /* ".", ".." and the folder itself */
}

void metrics_collect_process(struct metrics *metrics)
{
	unsigned long pages = 0, resident = 0;
	FILE *statm = fopen("/proc/self/statm", "r");
	struct rlimit limit;
	double page = (double)sysconf(_SC_PAGESIZE);

	if (statm) {
		if (fscanf(statm, "%lu %lu", &pages, &resident) != 2)
			pages = resident = 0;
		fclose(statm);
	}
	series_set(metrics->first[METRIC_PROCESS_VIRTUAL], (double)pages * page);
	series_set(metrics->first[METRIC_PROCESS_RESIDENT], (double)resident * page);
	series_set(metrics->first[METRIC_PROCESS_CPU], cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN));
	series_set(metrics->first[METRIC_PROCESS_OPEN_FDS], open_fd_count());
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		series_set(metrics->first[METRIC_PROCESS_MAX_FDS], (double)limit.rlim_cur);
}
