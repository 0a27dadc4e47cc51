/* The Prometheus text format, as a scraper reads it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/metrics.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct metrics *metrics;
static char *text;

static int setup(void **state)
{
	(void)state;
	metrics = metrics_new();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	metrics_free(&metrics);
	free(text);
	text = NULL;
	return 0;
}

static const char *render(void)
{
	struct buf out;

	buf_init(&out, 1 << 20);
	metrics_render(metrics, &out);
	free(text);
	text = xmemdup(buf_slice(&out).ptr, buf_len(&out));
	buf_fini(&out);
	return text;
}

/* The value behind "NAME{LABELS} ", as text until the end of the line. */
static const char *sample(const char *name)
{
	static char value[64];
	size_t len = strlen(name);

	for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
		if (strncmp(line, name, len) != 0 || line[len] != ' ')
			continue;
		snprintf(value, sizeof(value), "%.*s", (int)strcspn(line + len + 1, "\n"), line + len + 1);
		return value;
	}
	fail_msg("no sample %s", name);
	return NULL;
}

static void series_without_labels_are_there_from_the_start(void **state)
{
	(void)state;
	render();
	assert_string_equal(sample("relayd_journal_errors_total"), "0");
	assert_string_equal(sample("relayd_submission_duration_seconds_count"), "0");
	assert_string_equal(sample("relayd_submission_duration_seconds_bucket{le=\"+Inf\"}"), "0");
}

static void a_series_is_made_once(void **state)
{
	struct series *first = metrics_series(metrics, METRIC_DEFERRALS, "main", "greylist", NULL);
	struct series *other = metrics_series(metrics, METRIC_DEFERRALS, "main", "throttle", NULL);

	(void)state;
	assert_ptr_equal(metrics_series(metrics, METRIC_DEFERRALS, "main", "greylist", NULL), first);
	assert_ptr_not_equal(first, other);
	series_add(first, 2);
	series_add(first, 1);
	assert_true(series_value(first) == 3);
	assert_true(series_value(other) == 0);
	render();
	assert_string_equal(sample("relayd_deferrals_total{relayhost=\"main\",class=\"greylist\"}"), "3");
	assert_string_equal(sample("relayd_deferrals_total{relayhost=\"main\",class=\"throttle\"}"), "0");
}

static void label_values_are_escaped(void **state)
{
	(void)state;
	metrics_series(metrics, METRIC_UPSTREAM_AUTH_FAILURES, "a\"b\\c\nd", NULL, NULL);
	render();
	assert_string_equal(sample("relayd_upstream_auth_failures_total{relayhost=\"a\\\"b\\\\c\\nd\"}"), "0");
}

static void buckets_add_up(void **state)
{
	struct series *size = metrics_series(metrics, METRIC_MESSAGE_SIZE, NULL, NULL, NULL);

	(void)state;
	series_observe(size, 1);
	series_observe(size, 1024); /* the bound belongs to its bucket */
	series_observe(size, 1025);
	series_observe(size, 1e9);
	assert_true(series_value(size) == 4);
	render();
	assert_string_equal(sample("relayd_message_size_bytes_bucket{le=\"1024\"}"), "2");
	assert_string_equal(sample("relayd_message_size_bytes_bucket{le=\"4096\"}"), "3");
	assert_string_equal(sample("relayd_message_size_bytes_bucket{le=\"16777216\"}"), "3");
	assert_string_equal(sample("relayd_message_size_bytes_bucket{le=\"+Inf\"}"), "4");
	assert_string_equal(sample("relayd_message_size_bytes_count"), "4");
	assert_string_equal(sample("relayd_message_size_bytes_sum"), "1000002050");
}

/* A scraper computes the age of the last success from it: seconds matter. */
static void points_in_time_keep_their_seconds(void **state)
{
	(void)state;
	series_set(metrics_series(metrics, METRIC_LAST_SUCCESS, "main", NULL, NULL), 1790000123.456);
	render();
	assert_true(fabs(atof(sample("relayd_last_success_timestamp_seconds{relayhost=\"main\"}")) - 1790000123.456) <
		    .001);
}

static void values_are_written_as_people_expect(void **state)
{
	static const struct {
		double value;
		const char *text;
	} cases[] = {{0, "0"},		 {1, "1"},	   {0.1, "0.1"},      {-1, "-1"}, {1e14, "100000000000000"},
		     {0.0005, "0.0005"}, {12.25, "12.25"}, {0.1 + 0.2, "0.3"}};
	struct series *bytes = metrics_series(metrics, METRIC_JOURNAL_BYTES, NULL, NULL, NULL);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		series_set(bytes, cases[i].value);
		render();
		assert_string_equal(sample("relayd_journal_bytes"), cases[i].text);
	}
}

static void collect(void *ctx)
{
	series_add(metrics_series(metrics, METRIC_JOURNAL_BYTES, NULL, NULL, NULL), *(double *)ctx);
}

static void collectors_run_before_the_values_are_read(void **state)
{
	double amount = 7;

	(void)state;
	metrics_on_scrape(metrics, collect, &amount);
	render();
	assert_string_equal(sample("relayd_journal_bytes"), "7");
	render();
	assert_string_equal(sample("relayd_journal_bytes"), "14");
}

static void sums_by_one_label(void **state)
{
	(void)state;
	series_add(metrics_series(metrics, METRIC_SUBMISSIONS, "a", "app", "accepted"), 3);
	series_add(metrics_series(metrics, METRIC_SUBMISSIONS, "b", "app", "accepted"), 4);
	series_add(metrics_series(metrics, METRIC_SUBMISSIONS, "b", "accepted", "rejected"), 50);
	assert_true(metrics_sum(metrics, METRIC_SUBMISSIONS, 2, "accepted") == 7);
	assert_true(metrics_sum(metrics, METRIC_SUBMISSIONS, 0, "b") == 54);
	assert_true(metrics_sum(metrics, METRIC_SUBMISSIONS, 1, "nobody") == 0);
	assert_true(metrics_sum(metrics, METRIC_DEFERRALS, 0, "main") == 0);
}

static void the_least_above_zero(void **state)
{
	(void)state;
	assert_true(metrics_least(metrics, METRIC_CERTIFICATE_EXPIRY) == 0);
	metrics_series(metrics, METRIC_CERTIFICATE_EXPIRY, "a", NULL, NULL);
	assert_true(metrics_least(metrics, METRIC_CERTIFICATE_EXPIRY) == 0);
	series_set(metrics_series(metrics, METRIC_CERTIFICATE_EXPIRY, "b", NULL, NULL), 9);
	series_set(metrics_series(metrics, METRIC_CERTIFICATE_EXPIRY, "c", NULL, NULL), 7);
	series_set(metrics_series(metrics, METRIC_CERTIFICATE_EXPIRY, "d", NULL, NULL), 8);
	assert_true(metrics_least(metrics, METRIC_CERTIFICATE_EXPIRY) == 7);
}

static void finding_makes_no_series(void **state)
{
	struct series *made;

	(void)state;
	assert_null(metrics_find(metrics, METRIC_RELAYHOST_UP, "main", NULL, NULL));
	assert_null(metrics_find(metrics, METRIC_RELAYHOST_UP, "main", NULL, NULL));
	made = metrics_series(metrics, METRIC_RELAYHOST_UP, "main", NULL, NULL);
	assert_ptr_equal(metrics_find(metrics, METRIC_RELAYHOST_UP, "main", NULL, NULL), made);
}

static void the_process_describes_itself(void **state)
{
	time_t now = time(NULL);

	(void)state;
	render();
	assert_true(fabs(atof(sample("process_start_time_seconds")) - (double)now) < 60);
	assert_true(atof(sample("process_open_fds")) >= 3);
	assert_true(atof(sample("process_max_fds")) >= atof(sample("process_open_fds")));
	assert_true(atof(sample("process_resident_memory_bytes")) > 0);
	assert_true(atof(sample("process_virtual_memory_bytes")) > 0);
}

static bool is_name(const char *at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)at[i]) && at[i] != '_')
			return false;
	return len > 0 && !isdigit((unsigned char)at[0]);
}

/* The rules of the format for every family: help and type once and first, counters end in _total, names as they must
 * be, a number at the end of each line. */
static void every_line_is_well_formed(void **state)
{
	char name[128] = "", *end;
	const char *line, *next;

	(void)state;
	for (int metric = 0; metric < METRIC_COUNT; metric++)
		metrics_series(metrics, metric, "x", "y", "z");
	render();
	for (line = text; *line; line = next + 1) {
		size_t len = strcspn(line, "{ \n");
		next = strchr(line, '\n');
		assert_non_null(next);
		if (strncmp(line, "# HELP ", 7) == 0) {
			assert_int_equal(sscanf(line, "# HELP %127s", name), 1);
			assert_true(strncmp(next + 1, "# TYPE ", 7) == 0);
			continue;
		}
		if (strncmp(line, "# TYPE ", 7) == 0) {
			assert_true(strncmp(line + 7, name, strlen(name)) == 0);
			if (strncmp(next - 7, "counter", 7) == 0)
				assert_string_equal(name + strlen(name) - 6, "_total");
			continue;
		}
		assert_true(is_name(line, len));
		assert_true(strncmp(line, name, strlen(name)) == 0);
		assert_true(strncmp(line, "relayd_", 7) == 0 || strncmp(line, "process_", 8) == 0);
		while (*next != ' ')
			next--;
		strtod(next + 1, &end);
		assert_true(end > next + 1 && *end == '\n');
		next = end;
	}
}

/* What dashboards and rules are built on: name, type and labels stay. */
static void the_set(void **state)
{
	static const struct {
		const char *name, *type, *labels;
	} set[] = {
	    {"relayd_build_info", "gauge", "version,revision,gnutls"},
	    {"relayd_submissions_total", "counter", "listener,user,result"},
	    {"relayd_submission_rejections_total", "counter", "reason"},
	    {"relayd_suppressed_total", "counter", ""},
	    {"relayd_auth_attempts_total", "counter", "result"},
	    {"relayd_submission_duration_seconds", "histogram", ""},
	    {"relayd_message_size_bytes", "histogram", ""},
	    {"relayd_queue_messages", "gauge", "state"},
	    {"relayd_queue_recipients", "gauge", "state"},
	    {"relayd_queue_bytes", "gauge", "state"},
	    {"relayd_queue_oldest_age_seconds", "gauge", "state"},
	    {"relayd_delivery_attempts_total", "counter", "relayhost,operator,outcome"},
	    {"relayd_deferrals_total", "counter", "relayhost,class"},
	    {"relayd_bounces_total", "counter", "relayhost,class"},
	    {"relayd_delivery_latency_seconds", "histogram", "relayhost"},
	    {"relayd_attempt_duration_seconds", "histogram", "phase"},
	    {"relayd_last_success_timestamp_seconds", "gauge", "relayhost"},
	    {"relayd_relayhost_up", "gauge", "relayhost"},
	    {"relayd_alert_active", "gauge", "alert"},
	    {"relayd_upstream_auth_failures_total", "counter", "relayhost"},
	    {"relayd_oauth_token_expiry_timestamp_seconds", "gauge", "relayhost"},
	    {"relayd_greylist_wait_seconds", "histogram", ""},
	    {"relayd_greylist_hints_total", "counter", "used"},
	    {"relayd_rate_limit_waits_total", "counter", "scope"},
	    {"relayd_webhook_events_total", "counter", "result"},
	    {"relayd_connections", "gauge", "direction"},
	    {"relayd_tls_handshakes_total", "counter", "direction,version,result"},
	    {"relayd_dkim_signatures_total", "counter", "algorithm,result"},
	    {"relayd_journal_fsync_duration_seconds", "histogram", ""},
	    {"relayd_journal_bytes", "gauge", ""},
	    {"relayd_journal_free_bytes", "gauge", ""},
	    {"relayd_journal_errors_total", "counter", ""},
	    {"relayd_certificate_expiry_timestamp_seconds", "gauge", "listener"},
	    {"relayd_config_last_reload_successful", "gauge", ""},
	    {"relayd_config_last_reload_success_timestamp_seconds", "gauge", ""},
	    {"relayd_log_lines_dropped_total", "counter", ""},
	    {"process_cpu_seconds_total", "counter", ""},
	    {"process_resident_memory_bytes", "gauge", ""},
	    {"process_virtual_memory_bytes", "gauge", ""},
	    {"process_open_fds", "gauge", ""},
	    {"process_max_fds", "gauge", ""},
	    {"process_start_time_seconds", "gauge", ""},
	};
	char wanted[200];

	(void)state;
	for (int metric = 0; metric < METRIC_COUNT; metric++)
		metrics_series(metrics, metric, "a", "b", "c");
	render();
	for (size_t i = 0; i < ARRAY_LEN(set); i++) {
		const char *labels = set[i].labels, *value = "abc";
		int len = snprintf(wanted, sizeof(wanted), "\n%s%s", set[i].name,
				   strcmp(set[i].type, "histogram") == 0 ? "_count" : "");
		for (char before = '{'; *labels; before = ',') {
			int label = (int)strcspn(labels, ",");
			len += snprintf(wanted + len, sizeof(wanted) - (size_t)len, "%c%.*s=\"%c\"", before, label,
					labels, *value++);
			labels += label + (labels[label] == ',');
		}
		snprintf(wanted + len, sizeof(wanted) - (size_t)len, "%s ", set[i].labels[0] ? "}" : "");
		if (!strstr(text, wanted))
			fail_msg("no sample %s", wanted + 1);
		snprintf(wanted, sizeof(wanted), "\n# TYPE %s %s\n", set[i].name, set[i].type);
		if (!strstr(text, wanted))
			fail_msg("no line %s", wanted + 1);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(series_without_labels_are_there_from_the_start),
	    TEST(a_series_is_made_once),
	    TEST(label_values_are_escaped),
	    TEST(buckets_add_up),
	    TEST(points_in_time_keep_their_seconds),
	    TEST(values_are_written_as_people_expect),
	    TEST(collectors_run_before_the_values_are_read),
	    TEST(sums_by_one_label),
	    TEST(the_least_above_zero),
	    TEST(finding_makes_no_series),
	    TEST(the_process_describes_itself),
	    TEST(every_line_is_well_formed),
	    TEST(the_set),
	};
	return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
