/* Alerts, readiness, and whether mail flows. */
#include "support_relay.h"

#include "relayd/metrics.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static const int64_t minute_ms = 60 * 1000;

static int setup(void **state)
{
	struct relay *relay = xmalloc(sizeof(*relay));

	relay_init(relay, NULL);
	*state = relay;
	return 0;
}

static int teardown(void **state)
{
	struct relay *relay = *state;

	relay_fini(relay);
	free(relay);
	return 0;
}

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
	assert_true(mail_flows(relay)); /* a person must act; mail goes on */
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

static void alerts_have_names(void **state)
{
	(void)state;
	for (int a = 0; a < ALERT_COUNT; a++)
		for (int b = 0; b < a; b++)
			assert_string_not_equal(alert_name(a), alert_name(b));
	assert_string_equal(alert_name(ALERT_DISK), "disk");
	assert_string_equal(alert_name(ALERT_SIGNING), "signing");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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
	    TEST(alerts_have_names),
	};
	return cmocka_run_group_tests_name("health", tests, NULL, NULL);
}
