/* Alerts, readiness, and whether mail flows. */
#include "support_relay.h"

#include "relayd/metrics.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static const int64_t minute_ms = 60 * 1000;

static const char *alert_text(struct relay *relay, enum alert alert)
{
	static char text[256];
	struct health_alert alerts[ALERT_COUNT];
	size_t count = health_alerts(relay->health, alerts);

	for (size_t i = 0; i < count; i++)
		if (alerts[i].alert == alert) {
			snprintf(text, sizeof(text), "%s", alerts[i].text);
			return text;
		}
	return NULL;
}

static double gauge(struct relay *relay, const char *alert)
{
	return series_value(metrics_series(relay->metrics, METRIC_ALERT_ACTIVE, alert, NULL, NULL));
}

static bool mail_flows(struct relay *relay)
{
	char reason[256];

	return health_mail_flows(relay->health, reason, sizeof(reason));
}

static unsigned times_logged(struct relay *relay, const char *text)
{
	unsigned count = 0;
	struct slice rest;
	const char *at;

	log_flush(relay->log);
	rest = buf_slice(&relay->log_text);
	while (rest.len && (at = memmem(rest.ptr, rest.len, text, strlen(text)))) {
		count++;
		rest = slice_from(rest, (size_t)(at - rest.ptr) + 1);
	}
	return count;
}

static void all_is_well_at_the_start(void **state)
{
	struct relay *relay = *state;
	struct health_alert alerts[ALERT_COUNT];
	char reason[256];

	health_look(relay->health);
	assert_int_equal(health_alerts(relay->health, alerts), 0);
	assert_true(health_is_ready(relay->health, reason, sizeof(reason)));
	assert_true(mail_flows(relay));
	for (int alert = 0; alert < ALERT_COUNT; alert++)
		assert_true(gauge(relay, alert_name(alert)) == 0);
}

static void an_alert_has_a_begin_and_an_end(void **state)
{
	struct relay *relay = *state;
	struct health_alert alerts[ALERT_COUNT];

	health_end(relay->health, ALERT_SIGNING);
	assert_false(relay_log_has(relay, "event=alert"));
	health_raise(relay->health, ALERT_SIGNING, "no key");
	relay_pass(relay, 3000);
	health_raise(relay->health, ALERT_SIGNING, "still no key");
	assert_int_equal(health_alerts(relay->health, alerts), 1);
	assert_string_equal(alerts[0].text, "still no key");
	assert_int_equal(alerts[0].since_wall, RELAY_WALL_MS);
	assert_true(gauge(relay, "signing") == 1);
	assert_int_equal(times_logged(relay, "state=active"), 1);
	assert_true(relay_log_has(relay, "level=error event=alert alert=signing state=active text=\"no key\""));
	health_end(relay->health, ALERT_SIGNING);
	assert_int_equal(health_alerts(relay->health, alerts), 0);
	assert_true(gauge(relay, "signing") == 0);
	assert_true(relay_log_has(relay, "alert=signing state=over seconds=3"));
}

static void a_relayhost_in_trouble_stops_mail_and_not_readiness(void **state)
{
	struct relay *relay = *state;
	char reason[256];

	relay_configure(relay, "relayhosts:\n  main: {address: 'a.example:587'}\n");
	relay_submit(relay, "app@example.org", "one@example.net");
	relay_turn(relay);
	fake_fail(relay_connection(relay, 0), CLASS_TLS, STAGE_TLS, "certificate has expired");
	health_look(relay->health);
	assert_string_equal(alert_text(relay, ALERT_RELAYHOST), "relayhost main: tls: certificate has expired");
	assert_false(health_mail_flows(relay->health, reason, sizeof(reason)));
	assert_string_equal(reason, "relayhost main: tls: certificate has expired");
	assert_true(health_is_ready(relay->health, reason, sizeof(reason)));
	relay_pass(relay, 20 * 1000);
	relay_submit(relay, "app@example.org", "two@example.net");
	relay_turn(relay);
	fake_session(relay_connection(relay, 0));
	health_look(relay->health);
	assert_null(alert_text(relay, ALERT_RELAYHOST));
	assert_true(mail_flows(relay));
}

static void trouble_of_one_domain_is_no_alert(void **state)
{
	struct relay *relay = *state;

	relay_submit(relay, "app@example.org", "one@example.net");
	relay_turn(relay);
	fake_fail(relay_connection(relay, 0), CLASS_CONNECT, STAGE_CONNECT, "refused");
	health_look(relay->health);
	assert_true(mail_flows(relay));
}

static void mail_that_waits_while_nothing_is_delivered(void **state)
{
	struct relay *relay = *state;

	relay_pass(relay, 60 * minute_ms); /* an idle hour is no reason */
	health_look(relay->health);
	assert_true(mail_flows(relay));
	relay_submit(relay, "app@example.org", "one@example.net");
	relay_pass(relay, 15 * minute_ms - 5000);
	health_look(relay->health);
	assert_null(alert_text(relay, ALERT_NO_DELIVERY));
	relay_pass(relay, 10000);
	health_look(relay->health);
	assert_non_null(alert_text(relay, ALERT_NO_DELIVERY));
	assert_false(mail_flows(relay));
	health_note_delivery(relay->health);
	assert_null(alert_text(relay, ALERT_NO_DELIVERY));
	assert_true(mail_flows(relay));
}

static void a_message_that_waits_too_long(void **state)
{
	struct relay *relay = *state;
	uint64_t id = relay_submit(relay, "app@example.org", "one@example.net");

	relay_turn(relay);
	for (int minutes = 0; minutes <= 31; minutes++) {
		health_note_delivery(relay->health); /* of others */
		health_look(relay->health);
		assert_true(minutes > 30 || alert_text(relay, ALERT_OLDEST) == NULL);
		relay_pass(relay, minute_ms);
	}
	health_look(relay->health);
	assert_string_equal(alert_text(relay, ALERT_OLDEST), "the oldest of 1 messages waits for 32 minutes");
	assert_null(alert_text(relay, ALERT_NO_DELIVERY));
	queue_hold(relay->queue, id); /* what is held waits on purpose */
	health_look(relay->health);
	assert_null(alert_text(relay, ALERT_OLDEST));
	assert_true(mail_flows(relay));
}

static void a_certificate_that_runs_out(void **state)
{
	struct relay *relay = *state;
	struct series *other = metrics_series(relay->metrics, METRIC_CERTIFICATE_EXPIRY, "a:465", NULL, NULL);
	struct series *first = metrics_series(relay->metrics, METRIC_CERTIFICATE_EXPIRY, "a:587", NULL, NULL);

	series_set(other, RELAY_WALL_MS / 1000.0 + 90 * 86400);
	series_set(first, RELAY_WALL_MS / 1000.0 + 14 * 86400);
	health_look(relay->health);
	assert_null(alert_text(relay, ALERT_CERTIFICATE));
	relay_pass(relay, 60 * minute_ms);
	health_look(relay->health);
	assert_string_equal(alert_text(relay, ALERT_CERTIFICATE), "a listener's certificate expires in 335 hours");
	relay_pass(relay, 14ll * 24 * 60 * minute_ms);
	health_look(relay->health);
	assert_string_equal(alert_text(relay, ALERT_CERTIFICATE), "a listener's certificate has expired");
	assert_false(mail_flows(relay)); /* a person must act */
	series_set(first, RELAY_WALL_MS / 1000.0 + 90 * 86400);
	health_look(relay->health);
	assert_null(alert_text(relay, ALERT_CERTIFICATE));
}

/* Where the test may mount a small file system of its own. */
static void a_disk_that_fills_up(void **state)
{
	struct relay *relay = *state;
	char path[128], *megabyte;
	int dir, file;

	snprintf(path, sizeof(path), "%s/small", relay->folder);
	assert_int_equal(mkdir(path, 0700), 0);
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("small", path, "tmpfs", 0, "size=4m") != 0)
		skip();
	dir = open(path, O_RDONLY | O_DIRECTORY);
	health_watch_disk(relay->health, dir);
	health_look(relay->health);
	assert_null(alert_text(relay, ALERT_DISK));
	megabyte = xcalloc(1, 1 << 20);
	file = openat(dir, "fill", O_WRONLY | O_CREAT, 0600);
	for (int i = 0; i < 4; i++)
		if (write(file, megabyte, i < 3 ? 1 << 20 : 900 * 1024) < 0)
			fail_msg("cannot fill it");
	free(megabyte);
	health_look(relay->health);
	assert_string_equal(alert_text(relay, ALERT_DISK), "3 % (0 MiB) of the spool's file system are free");
	assert_true(gauge(relay, "disk") == 1);
	assert_int_equal(ftruncate(file, 0), 0);
	health_look(relay->health);
	assert_null(alert_text(relay, ALERT_DISK));
	health_watch_disk(relay->health, -1);
	close(file);
	close(dir);
	assert_int_equal(umount(path), 0);
}

static void a_queue_that_takes_no_mail_is_not_ready(void **state)
{
	struct relay *relay = *state;
	char reason[256];

	queue_stop(relay->queue);
	assert_false(health_is_ready(relay->health, reason, sizeof(reason)));
	assert_string_equal(reason, "the journal takes no mail: stopping");
	assert_false(mail_flows(relay));
}

/* ---- each alert begins and ends ---- */

struct change {
	unsigned begun, ended;
	char text[256];
};
static struct change changes[ALERT_COUNT];

static void on_change(void *ctx, const struct health_alert *alert, bool is_active)
{
	struct change *change = &changes[alert->alert];

	(void)ctx;
	if (is_active)
		change->begun++;
	else
		change->ended++;
	snprintf(change->text, sizeof(change->text), "%s", alert->text);
}

static void put_file(struct relay *relay, const char *name, bool is_there)
{
	int fd;

	mkdirat(relay->fd, "quarantine", 0700);
	if (!is_there) {
		assert_int_equal(unlinkat(relay->fd, name, 0), 0);
		return;
	}
	fd = openat(relay->fd, name, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
}

static void refuse(struct relay *relay, unsigned count, enum outcome_kind kind, enum failure_class class, int code)
{
	struct outcome outcome = outcome_like(kind, class, STAGE_RCPT, code, "", "you again");

	while (count-- > 0)
		health_note_outcome(relay->health, "main", &outcome);
}

static void begin_relayhost(struct relay *relay)
{
	relay_configure(relay, "relayhosts:\n  main: {address: 'a.example:587'}\n");
	relay_submit(relay, "app@example.org", "one@example.net");
	relay_turn(relay);
	fake_fail(relay_connection(relay, 0), CLASS_AUTH, STAGE_AUTH, "535 wrong password");
}

static void end_relayhost(struct relay *relay)
{
	relay_pass(relay, 10 * minute_ms);
	fake_session(relay_connection(relay, 0));
	fake_deliver(relay_connection(relay, 0));
}

static void begin_waiting(struct relay *relay)
{
	relay_submit(relay, "app@example.org", "one@example.net");
	relay_pass(relay, 31 * minute_ms);
}

static void end_waiting(struct relay *relay)
{
	uint64_t due;

	while (relay_connection(relay, 0)) {
		fake_session(relay_connection(relay, 0));
		if (relay_connection(relay, 0)->job)
			fake_deliver(relay_connection(relay, 0));
		fake_close(relay_connection(relay, 0));
	}
	relay_turn(relay);
	assert_false(queue_pop_due(relay->queue, INT64_MAX, &due));
	health_note_delivery(relay->health);
}

static void begin_certificate(struct relay *relay)
{
	series_set(metrics_series(relay->metrics, METRIC_CERTIFICATE_EXPIRY, "a:587", NULL, NULL),
		   (double)clock_wall_ms(&relay->clock.clock) / 1000 + 86400);
}

static void end_certificate(struct relay *relay)
{
	series_set(metrics_series(relay->metrics, METRIC_CERTIFICATE_EXPIRY, "a:587", NULL, NULL),
		   (double)clock_wall_ms(&relay->clock.clock) / 1000 + 90 * 86400);
}

static void begin_corruption(struct relay *relay)
{
	health_watch_disk(relay->health, relay->fd);
	put_file(relay, "quarantine/drop-strange", true); /* no damage */
	relay_pass(relay, minute_ms);
	health_look(relay->health);
	assert_null(alert_text(relay, ALERT_CORRUPTION));
	put_file(relay, "quarantine/journal-1.bin", true);
	relay_pass(relay, minute_ms);
}

static void end_corruption(struct relay *relay)
{
	health_note_corruption(relay->health, "more of it");
	put_file(relay, "quarantine/journal-1.bin", false);
	relay_pass(relay, 59 * minute_ms);
	health_look(relay->health);
	assert_string_equal(alert_text(relay, ALERT_CORRUPTION), "more of it");
	relay_pass(relay, minute_ms);
}

static void begin_refused(struct relay *relay)
{
	refuse(relay, 30, OUTCOME_FAILED, CLASS_MAILBOX, 550); /* says nothing about us */
	refuse(relay, 30, OUTCOME_DEFERRED, CLASS_GREYLIST, 450);
	refuse(relay, 30, OUTCOME_DEFERRED, CLASS_CONNECT, 0);
	refuse(relay, 3, OUTCOME_DELIVERED, CLASS_NONE, 250);
	refuse(relay, 17, OUTCOME_FAILED, CLASS_POLICY, 554);
	assert_null(alert_text(relay, ALERT_REFUSED));
	refuse(relay, 1, OUTCOME_DEFERRED, CLASS_THROTTLE, 452);
	assert_string_equal(alert_text(relay, ALERT_REFUSED),
			    "relayhost main refused 18 of the last 20 recipients: 452 you again");
}

static void end_refused(struct relay *relay)
{
	refuse(relay, 9, OUTCOME_DELIVERED, CLASS_NONE, 250);
	assert_non_null(alert_text(relay, ALERT_REFUSED));
	refuse(relay, 1, OUTCOME_DELIVERED, CLASS_NONE, 250);
}

static void end_refused_by_silence(struct relay *relay)
{
	relay_pass(relay, 60 * minute_ms);
}

/* Those that others raise and end, with the facts that only they know. */
static void begin_told(struct relay *relay)
{
	(void)relay;
}

static void every_alert_begins_and_ends(void **state)
{
	static const struct {
		enum alert alert;
		void (*begin)(struct relay *relay), (*end)(struct relay *relay);
	} rows[] = {
	    {ALERT_JOURNAL, begin_told, begin_told},
	    {ALERT_CORRUPTION, begin_corruption, end_corruption},
	    {ALERT_RELAYHOST, begin_relayhost, end_relayhost},
	    {ALERT_NO_DELIVERY, begin_waiting, end_waiting},
	    {ALERT_OLDEST, begin_waiting, end_waiting},
	    {ALERT_CERTIFICATE, begin_certificate, end_certificate},
	    {ALERT_SIGNING, begin_told, begin_told},
	    {ALERT_TLS, begin_told, begin_told},
	    {ALERT_WEBHOOK, begin_told, begin_told},
	    {ALERT_REFUSED, begin_refused, end_refused},
	    {ALERT_REFUSED, begin_refused, end_refused_by_silence},
	};
	bool is_tried[ALERT_COUNT] = {[ALERT_DISK] = true}; /* a_disk_that_fills_up */

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		enum alert alert = rows[i].alert;
		struct relay *relay;
		char line[128], reason[512];
		relay_setup(state);
		relay = *state;
		memset(changes, 0, sizeof(changes));
		health_on_change(relay->health, on_change, NULL);
		assert_true(mail_flows(relay));
		rows[i].begin(relay);
		if (rows[i].begin == begin_told)
			health_raise(relay->health, alert, "told");
		else
			health_look(relay->health);
		assert_non_null(alert_text(relay, alert));
		assert_true(gauge(relay, alert_name(alert)) == 1);
		assert_false(health_mail_flows(relay->health, reason, sizeof(reason)));
		assert_non_null(strstr(reason, alert_text(relay, alert)));
		assert_int_equal(changes[alert].begun, 1);
		assert_string_equal(changes[alert].text, alert_text(relay, alert));
		rows[i].end(relay);
		if (rows[i].begin == begin_told)
			health_end(relay->health, alert);
		health_look(relay->health);
		assert_null(alert_text(relay, alert));
		assert_true(gauge(relay, alert_name(alert)) == 0);
		assert_int_equal(changes[alert].ended, 1);
		assert_int_equal(changes[alert].begun, 1);
		snprintf(line, sizeof(line), "event=alert alert=%s state=active", alert_name(alert));
		assert_int_equal(times_logged(relay, line), 1);
		snprintf(line, sizeof(line), "event=alert alert=%s state=over", alert_name(alert));
		assert_int_equal(times_logged(relay, line), 1);
		assert_true(mail_flows(relay));
		is_tried[alert] = true;
		relay_teardown(state);
	}
	for (int alert = 0; alert < ALERT_COUNT; alert++)
		assert_true(is_tried[alert]);
}

static void alerts_have_names(void **state)
{
	(void)state;
	for (int a = 0; a < ALERT_COUNT; a++)
		for (int b = 0; b < a; b++)
			assert_string_not_equal(alert_name(a), alert_name(b));
	assert_string_equal(alert_name(ALERT_DISK), "disk");
	assert_string_equal(alert_name(ALERT_SIGNING), "signing");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_setup, relay_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(all_is_well_at_the_start),
	    TEST(an_alert_has_a_begin_and_an_end),
	    TEST(a_relayhost_in_trouble_stops_mail_and_not_readiness),
	    TEST(trouble_of_one_domain_is_no_alert),
	    TEST(mail_that_waits_while_nothing_is_delivered),
	    TEST(a_message_that_waits_too_long),
	    TEST(a_certificate_that_runs_out),
	    TEST(a_disk_that_fills_up),
	    TEST(a_queue_that_takes_no_mail_is_not_ready),
	    cmocka_unit_test(every_alert_begins_and_ends),
	    TEST(alerts_have_names),
	};
	return cmocka_run_group_tests_name("health", tests, NULL, NULL);
}
