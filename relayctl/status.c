/* relayctl status, health - what a running daemon says of itself. */
#include "relayctl/status.h"

#include "base/base.h"
#include "relayctl/commands.h"

enum { MARGIN = 11 };

static void label(struct screen *screen, const char *name)
{
	screen_print(screen, COLOUR_DIM, "%s", name);
	screen_to(screen, MARGIN);
}

/* ---- the head ---- */

static void print_head(struct screen *screen, json_t *status)
{
	bool good = strcmp(text_of(status, "health"), "ok") == 0;
	char age[24];

	screen_print(screen, COLOUR_BOLD, "relayd %s on %s", text_of(status, "version"), text_of(status, "hostname"));
	screen_print(screen, COLOUR_NONE, ", up %s: ", age_of(status, "uptime_sec", age));
	screen_print(screen, good ? COLOUR_GREEN : COLOUR_RED, "%s", text_of(status, "health"));
	screen_newline(screen);
}

static void print_alerts(struct screen *screen, json_t *status)
{
	json_t *alert;
	char age[24];
	size_t i;

	json_array_foreach(json_object_get(status, "alerts"), i, alert)
	{
		screen_print(screen, COLOUR_RED, "ALERT");
		screen_to(screen, MARGIN);
		screen_print(screen, COLOUR_NONE, "%s: %s (for %s)", text_of(alert, "alert"), text_of(alert, "text"),
			     age_of(alert, "since_sec", age));
		screen_newline(screen);
	}
}

static void print_rates(struct screen *screen, json_t *status)
{
	static const char *const facts[] = {"accepted", "delivered", "deferred", "failed"};
	json_t *rates = json_object_get(status, "rates"), *totals = json_object_get(status, "totals");

	screen_to(screen, MARGIN);
	screen_print(screen, COLOUR_DIM, "%12s %12s %12s", "last minute", "last 15 min", "since start");
	screen_newline(screen);
	for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
		label(screen, facts[i]);
		screen_print(screen, COLOUR_NONE, "%12lld %12lld %12lld",
			     (long long)number_of(json_object_get(rates, "last_minute"), facts[i]),
			     (long long)number_of(json_object_get(rates, "last_15_minutes"), facts[i]),
			     (long long)number_of(totals, facts[i]));
		screen_newline(screen);
	}
}

/* ---- the queue ---- */

/* Before each thing of a line but the first. */
static void separate(struct screen *screen)
{
	if (screen->column > MARGIN)
		screen_print(screen, COLOUR_NONE, "   ");
}

static void print_queue(struct screen *screen, json_t *queue)
{
	const char *state;
	json_t *part;
	char age[24];

	label(screen, "queue");
	json_object_foreach(queue, state, part)
	{
		int64_t count = number_of(part, "messages");
		separate(screen);
		screen_print(screen, count > 0 ? COLOUR_BOLD : COLOUR_NONE, "%s %lld", state, (long long)count);
		if (count > 0)
			screen_print(screen, COLOUR_NONE, " (oldest %s)", age_of(part, "oldest_age_sec", age));
	}
	screen_newline(screen);
}

/* Over all states. */
static void print_ages(struct screen *screen, json_t *queue)
{
	static const char *const names[] = {"5m", "1h", "4h", "1d", "older"};
	int64_t sums[ARRAY_LEN(names)] = {0}, all = 0;
	const char *state;
	json_t *part;

	json_object_foreach(queue, state, part)
	{
		for (size_t i = 0; i < ARRAY_LEN(names); i++)
			sums[i] += number_of(json_object_get(part, "ages"), names[i]);
		all += number_of(part, "messages");
	}
	if (all == 0)
		return;
	label(screen, "by age");
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		separate(screen);
		screen_print(screen, sums[i] > 0 ? COLOUR_NONE : COLOUR_DIM, "%s%s %lld",
			     i + 1 < ARRAY_LEN(names) ? "under " : "", names[i], (long long)sums[i]);
	}
	screen_newline(screen);
}

static void print_reasons(struct screen *screen, json_t *reasons)
{
	const char *reason;
	json_t *count;

	if (json_object_size(reasons) == 0)
		return;
	label(screen, "because of");
	json_object_foreach(reasons, reason, count)
	{
		separate(screen);
		screen_print(screen, COLOUR_YELLOW, "%s %lld", reason, (long long)json_integer_value(count));
	}
	screen_newline(screen);
}

/* ---- where it goes ---- */

static void print_quota(struct screen *screen, json_t *quota)
{
	char wait[24];

	if (!json_is_object(quota))
		return;
	screen_print(screen, COLOUR_NONE, ", %lld of %s used", (long long)number_of(quota, "used"),
		     text_of(quota, "limit"));
	if (number_of(quota, "wait_sec") > 0)
		screen_print(screen, COLOUR_YELLOW, ", the next may go in %s", age_of(quota, "wait_sec", wait));
}

/* Of a relayhost with oauth2. */
static void print_token(struct screen *screen, json_t *token)
{
	const char *trouble = text_of(token, "trouble");
	char left[24];

	if (!json_is_object(token))
		return;
	screen_to(screen, MARGIN);
	screen_print(screen, trouble[0] ? COLOUR_RED : COLOUR_NONE, "access token %s", text_of(token, "state"));
	if (json_is_integer(json_object_get(token, "expires_sec")))
		screen_print(screen, COLOUR_NONE, ", expires in %s", age_of(token, "expires_sec", left));
	screen_print(screen, COLOUR_NONE, "%s%s", trouble[0] ? ": " : "", trouble);
	screen_newline(screen);
}

static void print_relayhost(struct screen *screen, json_t *relayhost)
{
	bool up = json_is_true(json_object_get(relayhost, "up"));
	char age[24];

	label(screen, "relayhost");
	screen_print(screen, COLOUR_NONE, "%s %s: ", text_of(relayhost, "name"), text_of(relayhost, "address"));
	screen_print(screen, up ? COLOUR_GREEN : COLOUR_RED, "%s", up ? "up" : "DOWN");
	if (json_is_true(json_object_get(relayhost, "paused")))
		screen_print(screen, COLOUR_YELLOW, ", PAUSED for %s", age_of(relayhost, "paused_sec", age));
	if (json_is_integer(json_object_get(relayhost, "last_success_sec")))
		screen_print(screen, COLOUR_NONE, ", last success %s ago", age_of(relayhost, "last_success_sec", age));
	else
		screen_print(screen, COLOUR_NONE, ", no message delivered yet");
	if (number_of(relayhost, "waiting") > 0)
		screen_print(screen, COLOUR_NONE, ", %lld waiting", (long long)number_of(relayhost, "waiting"));
	print_quota(screen, json_object_get(relayhost, "quota"));
	screen_newline(screen);
	print_token(screen, json_object_get(relayhost, "token"));
}

static void print_trouble(struct screen *screen, json_t *destination)
{
	bool is_paused = json_is_null(json_object_get(destination, "next_attempt_sec"));
	int64_t code = number_of(destination, "code");
	char age[24], wait[24];

	screen_to(screen, MARGIN);
	screen_print(screen, COLOUR_BOLD, "%s", text_of(destination, "destination"));
	screen_print(screen, COLOUR_NONE, ": %lld waiting, for %s; ", (long long)number_of(destination, "waiting"),
		     age_of(destination, "since_sec", age));
	if (is_paused)
		screen_print(screen, COLOUR_NONE, "paused; ");
	else if (number_of(destination, "next_attempt_sec") > 0)
		screen_print(screen, COLOUR_NONE, "next attempt in %s; ",
			     age_of(destination, "next_attempt_sec", wait));
	else
		screen_print(screen, COLOUR_NONE, "next attempt now; ");
	screen_print(screen, COLOUR_YELLOW, "%s: ", text_of(destination, "class"));
	if (code > 0)
		screen_print(screen, COLOUR_YELLOW, "%lld ", (long long)code);
	screen_print(screen, COLOUR_YELLOW, "%s", text_of(destination, "reason"));
	screen_newline(screen);
}

static void print_destinations(struct screen *screen, json_t *status)
{
	json_t *troubles = json_object_get(status, "troubles"), *item;
	size_t i;

	json_array_foreach(json_object_get(status, "relayhosts"), i, item) print_relayhost(screen, item);
	if (json_array_size(troubles) > 0) {
		screen_print(screen, COLOUR_RED, "in trouble");
		screen_newline(screen);
	}
	json_array_foreach(troubles, i, item) print_trouble(screen, item);
}

/* ---- the rest ---- */

static void print_users(struct screen *screen, json_t *users)
{
	json_t *user;
	size_t i;

	if (json_array_size(users) == 0)
		return;
	label(screen, "users");
	json_array_foreach(users, i, user) screen_print(screen, COLOUR_NONE, "%s%s %lld", i > 0 ? ", " : "",
							text_of(user, "user")[0] ? text_of(user, "user") : "(trusted)",
							(long long)number_of(user, "last_15_minutes"));
	screen_print(screen, COLOUR_DIM, " in the last 15 min");
	screen_newline(screen);
}

/* What stands in the files and is not in force. */
static void print_config(struct screen *screen, json_t *config)
{
	if (text_of(config, "refused")[0]) {
		label(screen, "config");
		screen_print(screen, COLOUR_RED, "the last reload was refused: %s", text_of(config, "refused"));
		screen_newline(screen);
	}
	if (text_of(config, "needs_restart")[0]) {
		label(screen, "config");
		screen_print(screen, COLOUR_YELLOW, "needs a restart: %s", text_of(config, "needs_restart"));
		screen_newline(screen);
	}
}

static void print_disk(struct screen *screen, json_t *status)
{
	json_t *journal = json_object_get(status, "journal"), *certificate = json_object_get(status, "certificate");
	bool good = strcmp(text_of(journal, "state"), "ok") == 0;
	char a[24], b[24];

	label(screen, "disk");
	screen_print(screen, COLOUR_NONE, "journal ");
	screen_print(screen, good ? COLOUR_GREEN : COLOUR_RED, "%s", text_of(journal, "state"));
	screen_print(screen, COLOUR_NONE, ", %s used, %s free",
		     ctl_format_bytes(number_of(journal, "bytes"), a, sizeof(a)),
		     ctl_format_bytes(number_of(journal, "free_bytes"), b, sizeof(b)));
	screen_newline(screen);
	if (!json_is_object(certificate))
		return;
	label(screen, "tls");
	if (number_of(certificate, "expires_sec") > 0)
		screen_print(screen, COLOUR_NONE, "the certificate expires in %s",
			     age_of(certificate, "expires_sec", a));
	else
		screen_print(screen, COLOUR_RED, "the certificate has expired");
	screen_newline(screen);
}

void status_print(struct screen *screen, json_t *status)
{
	print_head(screen, status);
	print_alerts(screen, status);
	print_rates(screen, status);
	print_queue(screen, json_object_get(status, "queue"));
	print_ages(screen, json_object_get(status, "queue"));
	print_reasons(screen, json_object_get(status, "reasons"));
	print_destinations(screen, status);
	print_users(screen, json_object_get(status, "users"));
	print_config(screen, json_object_get(status, "config"));
	print_disk(screen, status);
	label(screen, "250 means");
	screen_print(screen, COLOUR_NONE, "%s", text_of(status, "promise"));
	screen_newline(screen);
}

/* ---- the commands ---- */

int cmd_status(struct ctl *ctl, int argc, char **argv)
{
	struct screen screen;
	json_t *status;
	int rc;

	if (ctl_parse(argc, argv, NULL, 0, NULL, 0) < 0)
		return CTL_USAGE;
	rc = ctl_request(ctl, "status", NULL, &status);
	if (rc != CTL_OK)
		return rc;
	screen_init(&screen, ctl);
	screen.wraps = true;
	if (ctl->json)
		ctl_print_json(status);
	else
		status_print(&screen, status);
	json_decref(status);
	return CTL_OK;
}

int cmd_health(struct ctl *ctl, int argc, char **argv)
{
	bool mail = argc == 2 && strcmp(argv[1], "--mail") == 0;
	json_t *health;
	bool good;
	int rc;

	if (argc > 1 && !mail)
		return ctl_wrong_usage("health");
	rc = ctl_request(ctl, mail ? "health?mail=1" : "health", NULL, &health);
	if (rc != CTL_OK)
		return rc;
	good = json_is_true(json_object_get(health, "ok"));
	if (ctl->json)
		ctl_print_json(health);
	else
		printf("%s\n", good ? "ok" : text_of(health, "reason"));
	json_decref(health);
	return good ? CTL_OK : CTL_FAILED;
}
