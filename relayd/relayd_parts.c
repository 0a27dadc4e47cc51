#include "relayd/relayd_internal.h"

#include "base/base.h"
#include "relayd/bounce.h"
#include "relayd/capture.h"
#include "relayd/changes.h"
#include "relayd/control.h"
#include "relayd/delivery.h"
#include "relayd/dns_loop.h"
#include "relayd/drain.h"
#include "relayd/drop.h"
#include "relayd/helper.h"
#include "relayd/https.h"
#include "relayd/hurry.h"
#include "relayd/listener.h"
#include "relayd/memo.h"
#include "relayd/mta_sts.h"
#include "relayd/oauth2.h"
#include "relayd/pauses.h"
#include "relayd/recent.h"
#include "relayd/report.h"
#include "relayd/router.h"
#include "relayd/scheduler.h"
#include "relayd/webhook.h"

#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

/* ---- what the parts tell each other ---- */

static void on_disk_done(void *ctx, const struct disk_done *done)
{
	struct relayd *r = ctx;

	if (memos_on_disk_done(r->memos, done) || (r->webhook && webhook_on_disk_done(r->webhook, done)) ||
	    (r->captures && captures_on_disk_done(r->captures, done)))
		return;
	queue_on_disk_done(r->queue, done);
}

static void on_synced(void *ctx, uint32_t duration_us)
{
	struct relayd *r = ctx;
	series_observe(metrics_series(r->metrics, METRIC_JOURNAL_FSYNC_DURATION, NULL, NULL, NULL), duration_us / 1e6);
}

static void on_journal_state(void *ctx, enum queue_journal_state state, const char *reason)
{
	struct relayd *r = ctx;

	log_event(r->log, state == QUEUE_OK ? LOG_INFO : LOG_ERROR, "journal",
		  LOG_STR("state", queue_journal_state_name(state)), LOG_STR("text", reason));
	if (!r->health)
		return;
	if (state == QUEUE_OK)
		health_end(r->health, ALERT_JOURNAL);
	else
		health_raise(r->health, ALERT_JOURNAL, reason);
}

static void on_accept_changed(void *ctx, int answer)
{
	struct relayd *r = ctx;

	if (answer != ERR_LIMIT && r->submissions)
		submissions_resume(r->submissions);
}

static void on_corruption(void *ctx, uint64_t id, const char *text)
{
	struct relayd *r = ctx;

	log_event(r->log, LOG_ERROR, "corruption", LOG_ID(id), LOG_STR("text", text));
	if (r->health)
		health_note_corruption(r->health, text);
	else
		snprintf(r->early_damage, sizeof(r->early_damage), "%s", text);
}

static void on_note(void *ctx, const char *text)
{
	log_event(((struct relayd *)ctx)->log, LOG_INFO, "journal_note", LOG_STR("text", text));
}

static void route(void *ctx, const struct queue_envelope *envelope, uint32_t recipient, struct scheduler_targets *out)
{
	struct relayd *r = ctx;
	struct router_question question = router_question_of(envelope, recipient);

	router_decide(r->config, rng_system(), &question, out, NULL);
}

/* Failures are told before they are recorded: relayd/bounce.c. */
static void tell_webhook(struct relayd *r, const struct queue_message *message, uint32_t recipient,
			 const struct destination *destination, const struct outcome *outcome, uint32_t attempts,
			 int64_t next_wall)
{
	bool is_relayhost = destination && destination->id.kind == DESTINATION_RELAYHOST;
	struct event_outcome event = {message,
				      recipient,
				      outcome,
				      is_relayhost ? destination->id.name : "",
				      attempts,
				      next_wall,
				      clock_wall_ms(r->clock)};

	if (outcome->kind != OUTCOME_FAILED && outcome->kind != OUTCOME_EXPIRED)
		webhook_tell_outcome(r->webhook, &event, false, NULL, NULL, NULL);
}

static void report(void *ctx, const struct queue_message *message, uint32_t recipient,
		   const struct destination *destination, const struct outcome *outcome, uint32_t attempts,
		   int64_t next_wall)
{
	struct relayd *r = ctx;

	report_outcome(r->report, message, recipient, destination, outcome, attempts, next_wall);
	if (outcome->kind != OUTCOME_DEFERRED)
		recent_add(r->recent, message, recipient, outcome, attempts, clock_wall_ms(r->clock));
	if (outcome->kind == OUTCOME_DELIVERED)
		health_note_delivery(r->health);
	if (destination && destination->id.kind == DESTINATION_RELAYHOST)
		health_note_outcome(r->health, destination->id.name, outcome);
	tell_webhook(r, message, recipient, destination, outcome, attempts, next_wall);
}

static void bounce(void *ctx, const struct queue_message *message, const struct job_failure *failures, uint32_t count,
		   void (*done)(void *done_ctx, enum err_code result), void *done_ctx)
{
	bounce_send(((struct relayd *)ctx)->bounce, message, failures, count, done, done_ctx);
}

static void on_destination_health(void *ctx, struct destination *destination)
{
	struct relayd *r = ctx;

	report_health(r->report, destination);
	health_look(r->health);
	if (destination->id.kind == DESTINATION_RELAYHOST && destination->trouble.kind == OUTCOME_NONE)
		hurry_begin(r->hurry);
}

static void on_token_trouble(void *ctx, const char *relayhost, const struct outcome *outcome, int64_t next_try_ms)
{
	destinations_hold_relayhost(((struct relayd *)ctx)->destinations, relayhost, outcome, next_try_ms);
}

static void on_token_mended(void *ctx, const char *relayhost)
{
	destinations_mend_relayhost(((struct relayd *)ctx)->destinations, relayhost);
}

static void on_alert(void *ctx, const struct health_alert *alert, bool is_active)
{
	struct relayd *r = ctx;
	struct event_alert event = {.alert = alert_name(alert->alert),
				    .text = alert->text,
				    .is_active = is_active,
				    .since_wall = alert->since_wall,
				    .now_wall = clock_wall_ms(r->clock)};

	webhook_tell_alert(r->webhook, &event);
}

static void on_webhook_trouble(void *ctx, const char *text)
{
	struct relayd *r = ctx;

	if (text)
		health_raise(r->health, ALERT_WEBHOOK, text);
	else
		health_end(r->health, ALERT_WEBHOOK);
}

static void on_events_corruption(void *ctx, const char *text)
{
	on_corruption(ctx, 0, text);
}

static void on_rate_wait(void *ctx, enum rate_scope scope)
{
	struct relayd *r = ctx;

	series_add(metrics_series(r->metrics, METRIC_RATE_LIMIT_WAITS, rate_scope_name(scope), NULL, NULL), 1);
}

/* ---- storage ---- */

static int open_queue(struct relayd *r, struct err *err)
{
	struct queue_report found;
	struct queue_options options = {
	    .disk = r->disk,
	    .clock = r->clock,
	    .rng = rng_system(),
	    .limit_bytes = (uint64_t)r->config->limits.queue_bytes,
	    .limit_messages = (uint64_t)r->config->limits.queue_messages,
	    .notify = {.ctx = r,
		       .on_synced = on_synced,
		       .on_state = on_journal_state,
		       .on_accept = on_accept_changed,
		       .on_corruption = on_corruption,
		       .on_note = on_note},
	};

	r->queue = queue_open(&options, &found, err);
	if (!r->queue)
		return err->code == ERR_PERMISSION ? EX_NOPERM : err->code == ERR_VERSION ? EX_CONFIG : EX_IOERR;
	log_event(r->log, LOG_INFO, "journal_open", LOG_INT("messages", found.messages),
		  LOG_INT("recipients", found.recipients), LOG_INT("segments", found.segments),
		  LOG_INT("torn_bytes", found.torn_bytes), LOG_INT("corrupt_ranges", found.corrupt_ranges),
		  LOG_INT("suspect_ranges", found.suspect_ranges), LOG_INT("ms", found.duration_ms));
	return EX_OK;
}

int relayd_make_storage(struct relayd *r, struct err *err)
{
	struct helpers_options options = {
	    .loop = r->loop, .log = r->log, .on_disk_done = on_disk_done, .disk_ctx = r, .argv = r->options.argv};
	struct memos_options remembering = {r->loop, r->log, r->spool_fd, NULL};
	bool inline_work = r->config->helpers == 0;

	options.journal_fd = inline_work ? -1 : disk_open_journal_dir(r->spool_fd, err);
	if (!inline_work && options.journal_fd < 0)
		return EX_IOERR;
	r->helpers = helpers_new(&options, r->config, err);
	if (options.journal_fd >= 0)
		close(options.journal_fd);
	if (!r->helpers)
		return err->code == ERR_PERMISSION ? EX_NOPERM : err->code == ERR_SYSTEM ? EX_OSERR : EX_CONFIG;
	r->disk = disk_real_new(r->spool_fd, inline_work ? NULL : helpers_disk_async(r->helpers), err);
	if (!r->disk)
		return EX_IOERR;
	remembering.async = inline_work ? NULL : helpers_disk_async(r->helpers);
	r->memos = memos_new(&remembering);
	return open_queue(r, err);
}

/* ---- delivering and submitting ---- */

static void make_oauth2(struct relayd *r)
{
	struct oauth2_options options = {.loop = r->loop,
					 .https = r->https,
					 .clock = r->clock,
					 .rng = rng_system(),
					 .log = r->log,
					 .metrics = r->metrics,
					 .memos = r->memos,
					 .ctx = r,
					 .on_trouble = on_token_trouble,
					 .on_mended = on_token_mended};

	r->oauth2 = oauth2_new(&options);
}

static void make_deliveries(struct relayd *r)
{
	struct scheduler_options scheduling = {.loop = r->loop,
					       .queue = r->queue,
					       .clock = r->clock,
					       .log = r->log,
					       .rng = rng_system(),
					       .ctx = r,
					       .route = route,
					       .report = report,
					       .bounce = bounce};
	struct deliveries_options delivering = {
	    .loop = r->loop,
	    .net = r->net,
	    .queue = r->queue,
	    .metrics = r->metrics,
	    .resolver = r->resolver,
	    .mx = r->mx,
	    .log = r->log,
	    .oauth2 = r->oauth2,
	    .tls = {dns_loop_dns(r->dns), loop_timers(r->loop), r->clock, r->mta_sts, r->tls_memory},
	};
	struct greylist_options learning = {
	    .memos = r->memos, .metrics = r->metrics, .rng = rng_system(), .release = scheduler_release};
	struct captures_options capturing = {r->loop, r->queue, r->spool_fd,
					     r->config->helpers == 0 ? NULL : helpers_disk_async(r->helpers)};
	struct destinations_options options = {.loop = r->loop,
					       .queue = r->queue,
					       .clock = r->clock,
					       .connections_max = relayd_connections_max(r),
					       .per_destination_max = (unsigned)r->config->delivery.per_destination};

	r->pauses = pauses_new(r->memos, r->clock);
	options.pauses = r->pauses;
	r->rates = rates_new(r->loop, r->clock, r->memos);
	options.rates = r->rates;
	r->deliveries = deliveries_new(&delivering);
	r->captures = captures_new(&capturing);
	r->scheduler = scheduler_new(&scheduling);
	learning.ctx = r->scheduler;
	r->greylist = greylist_new(&learning, clock_wall_ms(r->clock));
	scheduler_set_greylist(r->scheduler, r->greylist);
	scheduler_destination_events(r->scheduler, &options.events);
	options.events.on_health = on_destination_health;
	options.events.on_rate_wait = on_rate_wait;
	options.events.health_ctx = r;
	options.driver = deliveries_driver(r->deliveries);
	options.capture = captures_driver(r->captures);
	r->destinations = destinations_new(&options);
	scheduler_set_destinations(r->scheduler, r->destinations);
}

static void make_submissions(struct relayd *r)
{
	struct auth_backend backend = helpers_auth_backend(r->helpers);
	struct submissions_options options;

	r->auth = auth_new(r->loop, rng_system(), &backend);
	r->dedupe = dedupe_new(r->clock);
	options = (struct submissions_options){
	    .loop = r->loop,
	    .net = r->net,
	    .auth = r->auth,
	    .log = r->log,
	    .metrics = r->metrics,
	    .intake = {r->queue, r->signer, r->dedupe, r->health, r->log, r->clock, rng_system(), r->config},
	};
	r->submissions = submissions_new(&options);
}

/* ---- drain ---- */

static void stop_intake(void *ctx)
{
	struct relayd *r = ctx;

	listeners_stop(r->listeners);
	if (r->drop)
		drop_stop(r->drop);
	submissions_stop(r->submissions);
	health_stop_accepting(r->health);
}

static bool is_intake_quiet(void *ctx)
{
	return submissions_count(((struct relayd *)ctx)->submissions) == 0;
}

static void stop_drained(void *ctx)
{
	struct relayd *r = ctx;

	if (!r->stopping)
		relayd_begin_stop(r);
}

static void make_drain(struct relayd *r)
{
	struct drain_options options = {.loop = r->loop,
					.queue = r->queue,
					.log = r->log,
					.ctx = r,
					.stop_intake = stop_intake,
					.is_intake_quiet = is_intake_quiet,
					.stop = stop_drained};

	r->drain = drain_new(&options);
}

/* ---- control ---- */

static const char *needs_restart(void *ctx)
{
	return ((struct relayd *)ctx)->restart;
}

static const char *refused_config(void *ctx)
{
	return ((struct relayd *)ctx)->refused;
}

static const struct config *current_config(void *ctx)
{
	return ((struct relayd *)ctx)->config;
}

static const struct tls_policy *current_tls_policy(void *ctx)
{
	return ((struct relayd *)ctx)->tls_policy;
}

static void make_control(struct relayd *r)
{
	struct control_options options = {
	    .loop = r->loop,
	    .clock = r->clock,
	    .log = r->log,
	    .metrics = r->metrics,
	    .queue = r->queue,
	    .destinations = r->destinations,
	    .pauses = r->pauses,
	    .oauth2 = r->oauth2,
	    .rates = r->rates,
	    .drain = r->drain,
	    .mx = r->mx,
	    .tls = {dns_loop_dns(r->dns), loop_timers(r->loop), r->clock, r->mta_sts, r->tls_memory},
	    .tls_policy = current_tls_policy,
	    .scheduler = r->scheduler,
	    .greylist = r->greylist,
	    .health = r->health,
	    .recent = r->recent,
	    .webhook = r->webhook,
	    .ctx = r,
	    .config = current_config,
	    .reload = relayd_reload,
	    .needs_restart = needs_restart,
	    .refused_config = refused_config,
	    .started_wall = r->started_wall};

	r->control = control_new(&options);
	r->web = (struct web){r->metrics, r->health};
}

/* ---- what is known of the TLS of others, and all together ---- */

static void on_stripped(void *ctx, const char *text)
{
	struct relayd *r = ctx;

	if (text)
		health_raise(r->health, ALERT_TLS, text);
	else
		health_end(r->health, ALERT_TLS);
}

static void make_tls_knowledge(struct relayd *r)
{
	struct tls_memory_options remembering = {r->memos, r->clock, r->log, on_stripped, r};
	struct mta_sts_options options = {.dns = dns_loop_dns(r->dns),
					  .timers = loop_timers(r->loop),
					  .clock = r->clock,
					  .log = r->log,
					  .fetcher = mta_sts_fetcher_https(r->https),
					  .memos = r->memos};

	r->tls_memory = tls_memory_new(&remembering);
	r->mta_sts = mta_sts_new(&options);
}

static int make_webhook(struct relayd *r, struct err *err)
{
	struct webhook_options options = {.loop = r->loop,
					  .clock = r->clock,
					  .rng = rng_system(),
					  .log = r->log,
					  .metrics = r->metrics,
					  .poster = webhook_poster_https(r->https),
					  .spool_fd = r->spool_fd,
					  .async = r->config->helpers == 0 ? NULL : helpers_disk_async(r->helpers),
					  .ctx = r,
					  .on_trouble = on_webhook_trouble,
					  .on_corruption = on_events_corruption};

	r->webhook = webhook_new(&options);
	if (webhook_stage(r->webhook, r->config, err) == 0)
		return EX_OK;
	return err->code == ERR_PERMISSION ? EX_NOPERM : err->code == ERR_IO ? EX_IOERR : EX_CONFIG;
}

int relayd_make_parts(struct relayd *r, struct err *err)
{
	int rc;

	r->dns = dns_loop_new(r->loop, r->config, r->clock, rng_system(), err);
	if (!r->dns)
		return EX_CONFIG;
	r->resolver = resolver_new(dns_loop_dns(r->dns), loop_timers(r->loop), r->clock, rng_system(), NULL);
	r->https = https_new(r->loop, r->resolver);
	make_tls_knowledge(r);
	relayd_configure_mx(r);
	r->tls_policy = tls_policy_new(r->config, err);
	if (!r->tls_policy)
		return EX_CONFIG;
	r->signer = signer_new(r->loop, r->helpers, r->metrics, r->clock);
	if (signer_configure(r->signer, r->config, err) != 0)
		return EX_CONFIG;
	r->recent = recent_new();
	r->report = report_new(r->log, r->metrics, r->clock);
	rc = make_webhook(r, err);
	if (rc != EX_OK)
		return rc;
	r->bounce = bounce_new(
	    &(struct bounce_options){r->loop, r->queue, r->clock, rng_system(), r->log, r->signer, r->webhook});
	make_oauth2(r);
	make_deliveries(r);
	r->hurry = hurry_new(r->loop, r->queue);
	r->health = health_new(r->log, r->metrics, r->clock, r->queue, r->destinations);
	health_watch_disk(r->health, r->spool_fd);
	health_on_change(r->health, on_alert, r);
	make_submissions(r);
	make_drain(r);
	make_control(r);
	relayd_apply_config(r);
	if (r->early_damage[0])
		health_note_corruption(r->health, r->early_damage);
	return listeners_configure(r->listeners, r->config, helpers_user_count(r->helpers) > 0, err) == 0 ? EX_OK
													  : EX_CONFIG;
}

void relayd_free_parts(struct relayd *r)
{
	listeners_free(&r->listeners);
	control_free(&r->control);
	drain_free(&r->drain);
	drop_free(&r->drop);
	submissions_free(&r->submissions);
	deliveries_free(&r->deliveries);
	captures_free(&r->captures);
	memos_free(&r->memos); /* what they are about is still there */
	oauth2_free(&r->oauth2);
	hurry_free(&r->hurry);
	destinations_free(&r->destinations);
	pauses_free(&r->pauses);
	rates_free(&r->rates);
	scheduler_free(&r->scheduler);
	greylist_free(&r->greylist);
	bounce_free(&r->bounce);
	webhook_free(&r->webhook);
	report_free(&r->report);
	recent_free(&r->recent);
	health_free(&r->health);
	signer_free(&r->signer);
	auth_free(&r->auth);
	mx_free(&r->mx);
	tls_memory_free(&r->tls_memory);
	mta_sts_free(&r->mta_sts);
	https_free(&r->https);
	resolver_free(&r->resolver);
	dns_loop_free(&r->dns);
	tls_policy_free(&r->tls_policy);
	changes_free(&r->changes);
	changes_free(&r->resolv_changes);
	queue_close(&r->queue);
	dedupe_free(&r->dedupe); /* the queue calls back no more */
	disk_real_free(&r->disk);
	helpers_free(&r->helpers);
}
