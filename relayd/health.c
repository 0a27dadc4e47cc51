#include "relayd/health.h"

#include "base/base.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
	NO_DELIVERY_MS = 15 * 60 * 1000,
	OLDEST_MS = 30 * 60 * 1000,
	DISK_FLOOR_PERCENT = 10,
	CERTIFICATE_SEC = 14 * 86400,
	CORRUPTION_QUIET_MS = 3600 * 1000,
	QUARANTINE_EACH_MS = 2 * 1000, /* a directory is read */
	OUTCOMES = 20,		       /* of each relayhost are remembered */
	REFUSED_BEGIN = 18,
	REFUSED_END = 10,
	REFUSED_QUIET_MS = 3600 * 1000, /* nothing is known any more */
	RELAYHOSTS_MAX = 256,
};

/* What a relayhost said to the last recipients: a bit each, set when it refused. */
struct habit {
	char name[48];
	uint32_t bits;
	unsigned count;
	int64_t last_ms;
	char words[160]; /* of its last refusal */
};

struct state {
	bool is_active;
	int64_t since_wall;
	char text[256];
};

struct health {
	struct log *log;
	struct metrics *metrics;
	const struct clock *clock;
	struct queue *queue;
	struct destinations *destinations;
	struct state alerts[ALERT_COUNT];
	int64_t last_delivery_wall, started_wall;
	int spool_fd;			      /* -1: nobody looks */
	int64_t corruption_ms, quarantine_ms; /* the last report; the last look */
	struct habit *habits;
	size_t habit_count;
	void (*on_change)(void *ctx, const struct health_alert *alert, bool is_active);
	void *change_ctx;
	bool has_stopped_accepting;
};

const char *alert_name(enum alert alert)
{
	static const char *const names[ALERT_COUNT] = {"journal", "corruption", "relayhost",   "no_delivery",
						       "oldest",  "disk",	"certificate", "signing",
						       "tls",	  "webhook",	"refused"};
	return names[alert];
}

struct health *health_new(struct log *log, struct metrics *metrics, const struct clock *clock, struct queue *queue,
			  struct destinations *destinations)
{
	struct health *health = xcalloc(1, sizeof(*health));

	*health = (struct health){.log = log,
				  .metrics = metrics,
				  .clock = clock,
				  .queue = queue,
				  .destinations = destinations,
				  .started_wall = clock_wall_ms(clock),
				  .spool_fd = -1};
	for (int alert = 0; alert < ALERT_COUNT; alert++)
		metrics_series(metrics, METRIC_ALERT_ACTIVE, alert_name(alert), NULL, NULL);
	return health;
}

void health_free(struct health **health)
{
	if (*health)
		free((*health)->habits);
	free(*health);
	*health = NULL;
}

void health_watch_disk(struct health *health, int spool_fd)
{
	health->spool_fd = spool_fd;
}

void health_on_change(struct health *health, void (*cb)(void *ctx, const struct health_alert *alert, bool is_active),
		      void *ctx)
{
	health->on_change = cb;
	health->change_ctx = ctx;
}

static void tell_change(struct health *health, enum alert alert)
{
	const struct state *state = &health->alerts[alert];

	if (health->on_change)
		health->on_change(health->change_ctx, &(struct health_alert){alert, state->text, state->since_wall},
				  state->is_active);
}

void health_raise(struct health *health, enum alert alert, const char *text)
{
	struct state *state = &health->alerts[alert];
	bool is_new = !state->is_active;

	if (is_new)
		state->since_wall = clock_wall_ms(health->clock);
	state->is_active = true;
	snprintf(state->text, sizeof(state->text), "%s", text);
	if (!is_new)
		return;
	series_set(metrics_series(health->metrics, METRIC_ALERT_ACTIVE, alert_name(alert), NULL, NULL), 1);
	log_event(health->log, LOG_ERROR, "alert", LOG_STR("alert", alert_name(alert)), LOG_STR("state", "active"),
		  LOG_STR("text", text));
	tell_change(health, alert);
}

void health_end(struct health *health, enum alert alert)
{
	struct state *state = &health->alerts[alert];

	if (!state->is_active)
		return;
	state->is_active = false;
	series_set(metrics_series(health->metrics, METRIC_ALERT_ACTIVE, alert_name(alert), NULL, NULL), 0);
	log_event(health->log, LOG_INFO, "alert", LOG_STR("alert", alert_name(alert)), LOG_STR("state", "over"),
		  LOG_INT("seconds", (clock_wall_ms(health->clock) - state->since_wall) / 1000));
	tell_change(health, alert);
}

void health_note_delivery(struct health *health)
{
	health->last_delivery_wall = clock_wall_ms(health->clock);
	health_end(health, ALERT_NO_DELIVERY);
}

/* ---- a relayhost that refuses nearly everything ---- */

static struct habit *find_habit(struct health *health, const char *relayhost)
{
	struct habit *habit;

	for (size_t i = 0; i < health->habit_count; i++)
		if (strcmp(health->habits[i].name, relayhost) == 0)
			return &health->habits[i];
	if (health->habit_count == RELAYHOSTS_MAX)
		return NULL;
	health->habits = xreallocarray(health->habits, health->habit_count + 1, sizeof(*health->habits));
	habit = &health->habits[health->habit_count++];
	*habit = (struct habit){.words = ""};
	snprintf(habit->name, sizeof(habit->name), "%s", relayhost);
	return habit;
}

static unsigned refusals(const struct habit *habit)
{
	return (unsigned)__builtin_popcount(habit->bits);
}

static bool refuses_nearly_everything(const struct health *health, const struct habit *habit)
{
	unsigned limit = health->alerts[ALERT_REFUSED].is_active ? REFUSED_END + 1 : REFUSED_BEGIN;

	return habit->count >= OUTCOMES && refusals(habit) >= limit &&
	       clock_mono_ms(health->clock) - habit->last_ms < REFUSED_QUIET_MS;
}

static void look_at_habits(struct health *health)
{
	char text[sizeof(health->alerts[0].text)];

	for (size_t i = 0; i < health->habit_count; i++) {
		const struct habit *habit = &health->habits[i];
		if (!refuses_nearly_everything(health, habit))
			continue;
		snprintf(text, sizeof(text), "relayhost %s refused %u of the last %d recipients: %s", habit->name,
			 refusals(habit), OUTCOMES, habit->words);
		health_raise(health, ALERT_REFUSED, text);
		return;
	}
	health_end(health, ALERT_REFUSED);
}

void health_note_outcome(struct health *health, const char *relayhost, const struct outcome *outcome)
{
	bool is_refused = outcome->kind != OUTCOME_DELIVERED;
	struct habit *habit;

	if (is_refused && (outcome->code < 400 || outcome->class == CLASS_MAILBOX || outcome->class == CLASS_GREYLIST))
		return;
	habit = find_habit(health, relayhost);
	if (!habit)
		return;
	habit->bits = (habit->bits << 1 | is_refused) & ((1u << OUTCOMES) - 1);
	habit->count = MIN(habit->count + 1, (unsigned)OUTCOMES);
	habit->last_ms = clock_mono_ms(health->clock);
	if (is_refused)
		snprintf(habit->words, sizeof(habit->words), "%d %.150s", outcome->code, outcome->text);
	look_at_habits(health);
}

/* ---- damaged bytes ---- */

void health_note_corruption(struct health *health, const char *text)
{
	health->corruption_ms = clock_mono_ms(health->clock);
	health_raise(health, ALERT_CORRUPTION, text);
}

/* What lies there since it is damaged; what came by the drop folder and is no message lies there too. */
static unsigned count_damaged(int spool_fd, const char *folder)
{
	int fd = openat(spool_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	unsigned count = 0;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (count < 1000 && (entry = readdir(dir)))
		count += entry->d_name[0] != '.' && strncmp(entry->d_name, "drop-", 5) != 0;
	closedir(dir);
	return count;
}

static void look_at_quarantine(struct health *health)
{
	int64_t now = clock_mono_ms(health->clock);
	char text[sizeof(health->alerts[0].text)];
	unsigned count;

	if (health->spool_fd < 0 || (health->quarantine_ms && now - health->quarantine_ms < QUARANTINE_EACH_MS))
		return;
	health->quarantine_ms = now;
	count = count_damaged(health->spool_fd, "quarantine") + count_damaged(health->spool_fd, "webhook/quarantine");
	snprintf(text, sizeof(text), "%u files of damaged bytes lie in the quarantine: look at them, then remove them",
		 count);
	if (count > 0 && !health->alerts[ALERT_CORRUPTION].is_active)
		health_raise(health, ALERT_CORRUPTION, text);
	else if (count == 0 && (health->corruption_ms == 0 || now - health->corruption_ms >= CORRUPTION_QUIET_MS))
		health_end(health, ALERT_CORRUPTION);
}

/* ---- what is looked at every few seconds ---- */

/* The journal tells of its changes, but not of how it was found at the start. */
static void look_at_journal(struct health *health, const struct queue_stats *stats)
{
	if (stats->state == QUEUE_OK)
		health_end(health, ALERT_JOURNAL);
	else if (!health->alerts[ALERT_JOURNAL].is_active)
		health_raise(health, ALERT_JOURNAL, queue_journal_state_name(stats->state));
}

static void look_at_relayhosts(struct health *health)
{
	char text[sizeof(health->alerts[0].text)];

	for (struct destination *d = destinations_next(health->destinations, NULL); d;
	     d = destinations_next(health->destinations, d)) {
		if (d->id.kind != DESTINATION_RELAYHOST || d->trouble.kind == OUTCOME_NONE)
			continue;
		snprintf(text, sizeof(text), "relayhost %.64s: %s: %.150s", d->id.name,
			 failure_class_name(d->trouble.class), d->trouble.text);
		health_raise(health, ALERT_RELAYHOST, text);
		return;
	}
	health_end(health, ALERT_RELAYHOST);
}

static void look_at_queue(struct health *health, const struct queue_stats *stats)
{
	int64_t now = clock_wall_ms(health->clock), oldest = 0;
	uint64_t waiting =
	    stats->messages[STATE_READY] + stats->messages[STATE_INFLIGHT] + stats->messages[STATE_DEFERRED];
	int64_t last = MAX(health->last_delivery_wall, health->started_wall);
	char text[sizeof(health->alerts[0].text)];

	for (int state = STATE_READY; state <= STATE_DEFERRED; state++)
		if (stats->oldest_arrived_wall[state] > 0 &&
		    (oldest == 0 || stats->oldest_arrived_wall[state] < oldest))
			oldest = stats->oldest_arrived_wall[state];
	snprintf(text, sizeof(text), "the oldest of %llu messages waits for %lld minutes", (unsigned long long)waiting,
		 (long long)(now - oldest) / 60000);
	if (oldest > 0 && now - oldest > OLDEST_MS)
		health_raise(health, ALERT_OLDEST, text);
	else
		health_end(health, ALERT_OLDEST);
	snprintf(text, sizeof(text), "%llu messages wait, nothing delivered for %lld minutes",
		 (unsigned long long)waiting, (long long)(now - last) / 60000);
	if (waiting > 0 && now - MAX(last, oldest) > NO_DELIVERY_MS)
		health_raise(health, ALERT_NO_DELIVERY, text);
	else
		health_end(health, ALERT_NO_DELIVERY);
}

/* Of what an unprivileged user can have at all: the rest is reserved for root. */
static void look_at_disk(struct health *health)
{
	char text[sizeof(health->alerts[0].text)];
	struct statvfs st;
	uint64_t all, percent;

	if (health->spool_fd < 0 || fstatvfs(health->spool_fd, &st) != 0)
		return;
	all = (uint64_t)st.f_blocks - st.f_bfree + st.f_bavail;
	percent = all > 0 ? 100 * (uint64_t)st.f_bavail / all : 100;
	snprintf(text, sizeof(text), "%llu %% (%llu MiB) of the spool's file system are free",
		 (unsigned long long)percent, (unsigned long long)st.f_bavail * st.f_frsize >> 20);
	if (percent < DISK_FLOOR_PERCENT)
		health_raise(health, ALERT_DISK, text);
	else
		health_end(health, ALERT_DISK);
}

/* The listeners tell when theirs expire in their metric. */
static void look_at_certificates(struct health *health)
{
	double now = (double)clock_wall_ms(health->clock) / 1000;
	double first = metrics_least(health->metrics, METRIC_CERTIFICATE_EXPIRY);
	char text[sizeof(health->alerts[0].text)];

	if (first <= 0 || first - now >= CERTIFICATE_SEC) {
		health_end(health, ALERT_CERTIFICATE);
		return;
	}
	if (first > now)
		snprintf(text, sizeof(text), "a listener's certificate expires in %.0f hours", (first - now) / 3600);
	else
		snprintf(text, sizeof(text), "a listener's certificate has expired");
	health_raise(health, ALERT_CERTIFICATE, text);
}

void health_look(struct health *health)
{
	struct queue_stats stats;

	queue_stats(health->queue, &stats);
	look_at_journal(health, &stats);
	look_at_relayhosts(health);
	look_at_habits(health);
	look_at_queue(health, &stats);
	look_at_disk(health);
	look_at_quarantine(health);
	look_at_certificates(health);
}

void health_stop_accepting(struct health *health)
{
	health->has_stopped_accepting = true;
}

bool health_is_ready(const struct health *health, char *reason, size_t size)
{
	int rc = queue_may_accept(health->queue);

	if (health->has_stopped_accepting) {
		snprintf(reason, size, "no new mail is taken: relayd is being drained");
		return false;
	}
	if (rc == 0 || rc == ERR_LIMIT)
		return true;
	snprintf(reason, size, "the journal takes no mail: %s",
		 rc == ERR_CLOSED     ? "stopping"
		 : rc == ERR_NO_SPACE ? "the disk is full"
				      : err_code_name(rc));
	return false;
}

bool health_mail_flows(const struct health *health, char *reason, size_t size)
{
	size_t len = 0;

	if (!health_is_ready(health, reason, size))
		return false;
	for (int alert = 0; alert < ALERT_COUNT && len < size; alert++)
		if (health->alerts[alert].is_active)
			len += (size_t)snprintf(reason + len, size - len, "%s%s", len > 0 ? "; " : "",
						health->alerts[alert].text);
	return len == 0;
}

size_t health_alerts(const struct health *health, struct health_alert out[ALERT_COUNT])
{
	size_t count = 0;

	for (int alert = 0; alert < ALERT_COUNT; alert++)
		if (health->alerts[alert].is_active)
			out[count++] =
			    (struct health_alert){alert, health->alerts[alert].text, health->alerts[alert].since_wall};
	return count;
}
