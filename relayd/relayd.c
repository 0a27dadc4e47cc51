#include "relayd/relayd_internal.h"

#include "base/base.h"
#include "relayd/bounce.h"
#include "relayd/capture.h"
#include "relayd/check.h"
#include "relayd/control.h"
#include "relayd/delivery.h"
#include "relayd/drop.h"
#include "relayd/helper.h"
#include "relayd/listener.h"
#include "relayd/sandbox.h"
#include "relayd/scheduler.h"
#include "relayd/webhook.h"

#include <gnutls/gnutls.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

enum { HEALTH_EACH_MS = 5 * 1000, JOURNAL_PATIENCE_MS = 5 * 1000, LOG_EACH_MS = 50 };

/* ---- start ---- */

static int complain(struct relayd *r, int exit_code, const struct err *err)
{
	log_flush(r->log);
	fprintf(stderr, "relayd: %s\n", err->text);
	return exit_code;
}

/* Gives up what serving does not need, before the first octet of a client is read. */
static int enter_sandbox(struct relayd *r, struct err *err)
{
	struct sandbox_paths *paths;
	struct sandbox_options options = {.role = SANDBOX_DAEMON, .no_seccomp = sandbox_is_sanitized()};
	struct sandbox_report report;

	if (r->user.must_drop && sandbox_drop_user(r->user.name, r->user.uid, r->user.gid, NULL, 0, err) != 0)
		return EX_NOPERM;
	paths = sandbox_paths_new();
	sandbox_paths_add_config(paths, r->config);
	options.paths = paths;
	sandbox_enter(&options, &report);
	sandbox_paths_free(&paths);
	log_event(r->log, LOG_INFO, "sandbox", LOG_STR("text", report.text));
	return EX_OK;
}

static void on_turn_end(void *ctx)
{
	struct relayd *r = ctx;
	int64_t next;

	webhook_turn(r->webhook); /* events are written before the outcomes that they tell of */
	queue_turn(r->queue);
	scheduler_turn(r->scheduler);
	next = queue_next_deadline_ms(r->queue);
	if (next != INT64_MAX)
		loop_wake_at(r->loop, next);
	log_flush(r->log);
	if (log_is_behind(r->log))
		loop_wake_at(r->loop, loop_now_ms(r->loop) + LOG_EACH_MS);
}

static void on_health_time(void *ctx)
{
	struct relayd *r = ctx;

	tls_memory_look(r->tls_memory);
	health_look(r->health);
	timers_set(loop_timers(r->loop), &r->health_timer, loop_now_ms(r->loop) + HEALTH_EACH_MS, on_health_time, r);
}

static struct submission_service *drop_service(void *ctx)
{
	return listeners_drop_service(((struct relayd *)ctx)->listeners);
}

/* What sendmail left while we were away. */
static void open_drop(struct relayd *r)
{
	const struct drop_options options = {r->loop,	  r->net,	  r->log,	r->clock,
					     r->spool_fd, r->submissions, drop_service, r};
	struct err err;

	r->drop = drop_new(&options, &err);
	if (!r->drop)
		log_event(r->log, LOG_ERROR, "drop_closed", LOG_STR("text", err.text));
}

static void on_signal(void *ctx, int signo);

static void open_doors(struct relayd *r)
{
	struct err err;

	series_set(metrics_series(r->metrics, METRIC_BUILD_INFO, RELAYD_VERSION, relayd_revision(),
				  gnutls_check_version(NULL)),
		   1);
	series_set(metrics_series(r->metrics, METRIC_RELOAD_SUCCESSFUL, NULL, NULL, NULL), 1);
	series_set(metrics_series(r->metrics, METRIC_RELOAD_SUCCESS_TIME, NULL, NULL, NULL),
		   (double)r->started_wall / 1000);
	metrics_series(r->metrics, METRIC_RATE_LIMIT_WAITS, "user", NULL, NULL);
	metrics_series(r->metrics, METRIC_RATE_LIMIT_WAITS, "relayhost", NULL, NULL);
	metrics_series(r->metrics, METRIC_RATE_LIMIT_WAITS, "route", NULL, NULL);
	r->gauges = (struct gauges){r->metrics, r->clock, r->queue, r->destinations, r->loop, r->log};
	metrics_on_scrape(r->metrics, gauges_collect, &r->gauges);
	loop_on_signal(r->loop, SIGTERM, on_signal, r);
	loop_on_signal(r->loop, SIGINT, on_signal, r);
	loop_on_signal(r->loop, SIGHUP, on_signal, r);
	loop_add_turn_hook(r->loop, on_turn_end, r);
	timers_set(loop_timers(r->loop), &r->health_timer, loop_now_ms(r->loop), on_health_time, r);
	relayd_watch_changes(r);
	listeners_start(r->listeners, r->submissions, web_handle, &r->web, control_handle, r->control, &err);
	open_drop(r);
	log_event(r->log, LOG_INFO, "started", LOG_STR("version", RELAYD_VERSION),
		  LOG_STR("hostname", r->config->hostname), LOG_STR("config", r->config->file),
		  LOG_INT("users", helpers_user_count(r->helpers)));
	log_flush(r->log);
}

static int start(struct relayd *r, struct err *err)
{
	struct listeners_options listening = {r->loop, NULL, r->log, r->metrics, -1, &r->user};
	int rc = service_user_find(r->config, &r->user, err);

	if (rc == EX_OK)
		check_as_user(&r->options, &r->user, "relayd: warning");
	rc = rc ? rc : spool_open(r->config, &r->user, r->log, &r->spool_fd, err);
	rc = rc ? rc : spool_lock(r->spool_fd, &r->user, r->log, &r->lock_fd, err);
	if (rc != EX_OK)
		return rc;
	listening.spool_fd = r->spool_fd;
	listening.net = r->net = net_new(r->loop);
	r->listeners = listeners_open(&listening, r->config, &rc, err);
	if (!r->listeners)
		return rc;
	rc = enter_sandbox(r, err);
	rc = rc ? rc : relayd_make_storage(r, err);
	return rc ? rc : relayd_make_parts(r, err);
}

struct relayd *relayd_start(const struct relayd_options *options, int *exit_code)
{
	struct relayd *r = xcalloc(1, sizeof(*r));
	struct err err = {0};

	r->options = *options;
	r->spool_fd = r->lock_fd = -1;
	r->clock = clock_system();
	r->log = log_new(r->clock, log_sink_fd, (void *)(intptr_t)STDERR_FILENO);
	r->loop = loop_new(r->clock);
	r->metrics = metrics_new();
	r->started_wall = clock_wall_ms(r->clock);
	*exit_code = relayd_load_config(options, &r->config);
	if (*exit_code == EX_OK) {
		r->started = config_ref(r->config);
		relayd_configure_log(r);
		net_raise_fd_limit();
		*exit_code = start(r, &err);
		if (*exit_code != EX_OK)
			complain(r, *exit_code, &err);
	}
	if (*exit_code != EX_OK)
		relayd_free(&r);
	else
		open_doors(r);
	return r;
}

/* ---- stop ---- */

static bool is_quiet(const struct relayd *r)
{
	return submissions_count(r->submissions) == 0 && deliveries_count(r->deliveries) == 0 &&
	       captures_count(r->captures) == 0 && scheduler_job_count(r->scheduler) == 0;
}

static void on_patience_over(void *ctx)
{
	(void)ctx; /* the loop looks at the time */
}

void relayd_begin_stop(struct relayd *r)
{
	log_event(r->log, LOG_INFO, "stopping");
	r->stopping = true;
	timers_set(loop_timers(r->loop), &r->stop_timer, loop_now_ms(r->loop) + r->config->stop_timeout_ms,
		   on_patience_over, r);
	listeners_stop(r->listeners);
	scheduler_stop(r->scheduler);
	bounce_hurry(r->bounce);
	destinations_stop(r->destinations);
	if (r->drop)
		drop_stop(r->drop);
	submissions_stop(r->submissions);
	loop_stop(r->loop);
}

static void on_signal(void *ctx, int signo)
{
	struct relayd *r = ctx;
	struct err err;

	if (signo == SIGHUP) {
		relayd_reload(r, &err);
	} else if (!r->stopping) {
		relayd_begin_stop(r);
	} else {
		loop_stop(r->loop);
	}
}

/* Turns until everything is quiet or patience ends, then until the journal is synced. */
static void finish(struct relayd *r)
{
	int64_t until = loop_now_ms(r->loop) + r->config->stop_timeout_ms;

	while (!is_quiet(r) && loop_now_ms(r->loop) < until)
		loop_turn(r->loop, 100);
	submissions_free(&r->submissions);
	deliveries_abort(r->deliveries);
	captures_abort(r->captures);
	until = loop_now_ms(r->loop) + JOURNAL_PATIENCE_MS;
	queue_stop(r->queue);
	loop_turn(r->loop, 0); /* what has just ended is freed in it */
	while (
	    (!queue_is_synced(r->queue) || !webhook_is_synced(r->webhook) || scheduler_job_count(r->scheduler) > 0) &&
	    loop_now_ms(r->loop) < until)
		loop_turn(r->loop, 100);
	log_event(r->log, LOG_INFO, "stopped");
	log_flush(r->log);
}

int relayd_run(struct relayd *r)
{
	loop_run(r->loop);
	finish(r);
	return r->exit_code;
}

void relayd_free(struct relayd **relayd)
{
	struct relayd *r = *relayd;

	if (!r)
		return;
	relayd_free_parts(r);
	net_free(&r->net);
	metrics_free(&r->metrics);
	loop_free(&r->loop);
	log_free(&r->log);
	config_free(&r->started);
	config_free(&r->config);
	if (r->lock_fd >= 0)
		close(r->lock_fd);
	if (r->spool_fd >= 0)
		close(r->spool_fd);
	free(r);
	*relayd = NULL;
}
