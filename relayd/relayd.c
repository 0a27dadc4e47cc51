#include "relayd/relayd.h"

#include "base/base.h"
#include "relayd/bounce.h"
#include "relayd/capture.h"
#include "relayd/changes.h"
#include "relayd/control.h"
#include "relayd/delivery.h"
#include "relayd/dns_loop.h"
#include "relayd/drain.h"
#include "relayd/drop.h"
#include "relayd/gauges.h"
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
#include "relayd/restart.h"
#include "relayd/router.h"
#include "relayd/sandbox.h"
#include "relayd/scheduler.h"
#include "relayd/web.h"
#include "relayd/webhook.h"

#include <gnutls/gnutls.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

enum { HEALTH_EACH_MS = 5 * 1000, LOOK_EACH_MS = 10 * 1000, JOURNAL_PATIENCE_MS = 5 * 1000, LOG_EACH_MS = 50 };

struct relayd {
	struct relayd_options options;
	struct config *config, *started; /* in force; of the start */
	char restart[512];		 /* keys that are different now, and want a restart; "": none */
	const struct clock *clock;
	struct log *log;
	struct loop *loop;
	struct metrics *metrics;
	struct service_user user;
	int spool_fd, lock_fd;
	struct listeners *listeners;
	struct helpers *helpers;
	struct disk *disk;
	struct queue *queue;
	struct memos *memos;
	struct pauses *pauses;
	struct rates *rates;
	struct greylist *greylist;
	struct net *net;
	struct dns_loop *dns;
	struct resolver *resolver;
	struct mx *mx;
	struct https *https;
	struct mta_sts *mta_sts;
	struct tls_memory *tls_memory;
	struct oauth2 *oauth2;
	struct hurry *hurry;
	struct auth *auth;
	struct dedupe *dedupe;
	struct signer *signer;
	struct health *health;
	struct recent *recent;
	struct report *report;
	struct bounce *bounce;
	struct webhook *webhook;
	struct scheduler *scheduler;
	struct destinations *destinations;
	struct deliveries *deliveries;
	struct captures *captures;
	struct tls_policy *tls_policy;
	struct submissions *submissions;
	struct drop *drop;
	struct control *control;
	struct drain *drain;
	struct web web;
	struct gauges gauges;
	struct changes *changes;
	timer_id health_timer, changes_timer, stop_timer;
	int64_t started_wall;
	char early_damage[256]; /* what recovery found, before there was anybody to tell */
	bool stopping;
	int exit_code;
};

/* ---- configuration ---- */

int relayd_load_config(const struct relayd_options *options, struct config **config)
{
	struct config_source source = {.file = options->config_file,
				       .file_is_named = options->file_is_named,
				       .environ = options->environ,
				       .check_files = true,
				       .check_users = true};
	struct config_errors errors;
	int rc = config_load(&source, config, &errors);

	for (size_t i = 0; i < errors.kept_count; i++)
		fprintf(stderr, "relayd: %s%s\n", errors.items[i].is_warning ? "warning: " : "", errors.items[i].text);
	if (errors.error_count > errors.kept_count)
		fprintf(stderr, "relayd: and %zu more mistakes\n", errors.error_count - errors.kept_count);
	return rc == 0 ? EX_OK : EX_CONFIG;
}

/* systemd names device and inode of the journal's socket; standard error may have been sent elsewhere since
 * (sd-daemon(3), systemd.exec(5)). */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
	       st.st_dev == device && st.st_ino == inode;
}

static void configure_log(struct relayd *r)
{
	enum { REPEAT_BURST = 10 };
	struct log_options options = {r->config->log.format, r->config->log.level, r->config->log.addresses,
				      stderr_is_journal(), REPEAT_BURST};

	log_configure(r->log, &options);
}

/* Our own names and addresses, for loops in MX. */
static void configure_mx(struct relayd *r)
{
	struct dns_address own[64];
	int count = dns_own_addresses(own, ARRAY_LEN(own));
	const char *names[] = {r->config->hostname};
	struct mx_options options = {.ip = (enum dns_ip)r->config->delivery.ip,
				     .allow_loopback = r->config->delivery.allow_loopback,
				     .own_names = names,
				     .own_name_count = 1,
				     .own_addresses = own,
				     .own_address_count = count > 0 ? (size_t)count : 0};

	if (r->mx)
		mx_configure(r->mx, &options);
	else
		r->mx =
		    mx_new(dns_loop_dns(r->dns), r->resolver, loop_timers(r->loop), r->clock, rng_system(), &options);
}

static void configure_https(struct relayd *r)
{
	const struct https_settings settings = {r->config->https.ca_file, r->config->delivery.allow_loopback,
						(enum dns_ip)r->config->delivery.ip};

	https_configure(r->https, &settings);
}

static void configure_retry(struct relayd *r)
{
	struct retry_policy policy;

	retry_policy_default(&policy);
	for (int class = 1; class < CLASS_COUNT; class ++)
		if (r->config->retry.steps[class].count > 0)
			retry_policy_set(&policy, (enum failure_class) class, r->config->retry.steps[class].items,
					 r->config->retry.steps[class].count);
	scheduler_configure(r->scheduler, &policy, r->config->retry.warn_after_ms);
}

/* Where descriptors are few, deliveries keep to their share: without one a connection would seem to be refused. */
static unsigned connections_max(const struct relayd *r)
{
	return MIN((unsigned)r->config->delivery.connections, net_connections_max());
}

/* Everything that can be exchanged while running; nothing here can fail. */
static void apply_config(struct relayd *r)
{
	configure_log(r);
	configure_mx(r);
	configure_https(r);
	mta_sts_set_port(r->mta_sts, (uint16_t)r->config->delivery.mta_sts_port);
	configure_retry(r);
	for (size_t i = 0; i < r->config->relayhost_count; i++)
		report_add_relayhost(r->report, r->config->relayhosts[i].name);
	rates_configure(r->rates, r->config);
	webhook_commit(r->webhook, r->config);
	bounce_configure(r->bounce, r->config);
	destinations_set_limits(r->destinations, connections_max(r), (unsigned)r->config->delivery.per_destination);
	deliveries_configure(r->deliveries, r->config, r->tls_policy);
	oauth2_configure(r->oauth2, r->config);
	submissions_configure(r->submissions, r->config);
	auth_forget(r->auth);
}

/* What can fail comes first and is undone; nothing of the old is touched until all of the new is there. */
static int reload_parts(struct relayd *r, struct config *fresh, struct tls_policy **policy, struct err *err)
{
	*policy = tls_policy_new(fresh, err);
	if (!*policy || webhook_stage(r->webhook, fresh, err) != 0 || helpers_stage(r->helpers, fresh, err) != 0)
		return ERR_CONFIG;
	if (signer_configure(r->signer, fresh, err) != 0) {
		helpers_unstage(r->helpers);
		return ERR_CONFIG;
	}
	if (listeners_configure(r->listeners, fresh, helpers_user_count(r->helpers) > 0, err) != 0) {
		signer_configure(r->signer, r->config, NULL); /* it has taken that before */
		helpers_unstage(r->helpers);
		return ERR_CONFIG;
	}
	helpers_commit(r->helpers);
	return 0;
}

static void find_restart(struct relayd *r)
{
	struct buf keys;

	buf_init(&keys, sizeof(r->restart) - 1);
	restart_find(r->started, r->config, &keys);
	slice_to_cstr(buf_slice(&keys), r->restart, sizeof(r->restart));
	buf_fini(&keys);
}

static int reload(void *ctx, struct err *err)
{
	struct relayd *r = ctx;
	struct config_source source = {.file = r->options.config_file,
				       .file_is_named = r->options.file_is_named,
				       .environ = r->options.environ,
				       .check_files = true};
	struct series *good = metrics_series(r->metrics, METRIC_RELOAD_SUCCESSFUL, NULL, NULL, NULL);
	struct config_errors errors;
	struct config *fresh, *old = r->config;
	struct tls_policy *policy = NULL, *old_policy = r->tls_policy;

	series_set(good, 0);
	if (config_load(&source, &fresh, &errors) != 0)
		return err_set(err, ERR_CONFIG, "%.500s", config_errors_first(&errors));
	for (size_t i = 0; i < errors.kept_count; i++)
		log_event(r->log, LOG_WARN, "config_warning", LOG_STR("text", errors.items[i].text));
	if (reload_parts(r, fresh, &policy, err) != 0) {
		tls_policy_free(&policy);
		config_free(&fresh);
		return ERR_CONFIG;
	}
	r->config = fresh;
	r->tls_policy = policy;
	apply_config(r);
	health_end(r->health, ALERT_SIGNING); /* the next message tells */
	changes_free(&r->changes);
	r->changes = changes_new(r->config);
	config_free(&old);
	tls_policy_free(&old_policy);
	series_set(good, 1);
	series_set(metrics_series(r->metrics, METRIC_RELOAD_SUCCESS_TIME, NULL, NULL, NULL),
		   (double)clock_wall_ms(r->clock) / 1000);
	destinations_retry_accounts(r->destinations);
	hurry_begin(r->hurry);
	find_restart(r);
	log_event(r->log, r->restart[0] ? LOG_WARN : LOG_INFO, "reloaded", LOG_STR("file", r->config->file),
		  LOG_STR("needs_restart", r->restart));
	return 0;
}

static const char *needs_restart(void *ctx)
{
	return ((struct relayd *)ctx)->restart;
}

static const struct config *current_config(void *ctx)
{
	return ((struct relayd *)ctx)->config;
}

static const struct tls_policy *current_tls_policy(void *ctx)
{
	return ((struct relayd *)ctx)->tls_policy;
}

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
	struct router_question question = {envelope->sender, envelope->from_domain, envelope->user,
					   envelope->recipients[recipient].address, envelope->relayhost};

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

static int start_storage(struct relayd *r, struct err *err)
{
	struct helpers_options options = {.loop = r->loop,
					  .log = r->log,
					  .on_disk_done = on_disk_done,
					  .disk_ctx = r,
					  .argv = r->options.argv};
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
					       .connections_max = connections_max(r),
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

static void begin_stop(struct relayd *r);

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
		begin_stop(r);
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

static void make_control(struct relayd *r)
{
	struct control_options options = {.loop = r->loop,
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
					  .tls = {dns_loop_dns(r->dns), loop_timers(r->loop), r->clock, r->mta_sts,
						  r->tls_memory},
					  .tls_policy = current_tls_policy,
					  .scheduler = r->scheduler,
					  .greylist = r->greylist,
					  .health = r->health,
					  .recent = r->recent,
					  .webhook = r->webhook,
					  .ctx = r,
					  .config = current_config,
					  .reload = reload,
					  .needs_restart = needs_restart,
					  .started_wall = r->started_wall};

	r->control = control_new(&options);
	r->web = (struct web){r->metrics, r->health};
}

static void on_stripped(void *ctx, const char *text)
{
	struct relayd *r = ctx;

	if (text)
		health_raise(r->health, ALERT_TLS, text);
	else
		health_end(r->health, ALERT_TLS);
}

/* What is known of the TLS of others. */
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

static int start_parts(struct relayd *r, struct err *err)
{
	int rc;

	r->dns = dns_loop_new(r->loop, r->config, r->clock, rng_system(), err);
	if (!r->dns)
		return EX_CONFIG;
	r->resolver = resolver_new(dns_loop_dns(r->dns), loop_timers(r->loop), r->clock, rng_system(), NULL);
	r->https = https_new(r->loop, r->resolver);
	make_tls_knowledge(r);
	configure_mx(r);
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
	apply_config(r);
	if (r->early_damage[0])
		health_note_corruption(r->health, r->early_damage);
	return listeners_configure(r->listeners, r->config, helpers_user_count(r->helpers) > 0, err) == 0 ? EX_OK
													  : EX_CONFIG;
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

static void reload_and_tell(struct relayd *r)
{
	struct err err;

	if (reload(r, &err) != 0)
		log_event(r->log, LOG_ERROR, "reload_failed", LOG_STR("text", err.text));
}

/* A secret that was rotated, a certificate that was renewed: nobody need tell us. */
static void on_changes_time(void *ctx)
{
	struct relayd *r = ctx;

	if (changes_look(r->changes)) {
		reload_and_tell(r);
		/* A bad state is told once, not at each look. */
		changes_free(&r->changes);
		r->changes = changes_new(r->config);
	}
	timers_set(loop_timers(r->loop), &r->changes_timer, loop_now_ms(r->loop) + LOOK_EACH_MS, on_changes_time, r);
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
	r->changes = changes_new(r->config);
	timers_set(loop_timers(r->loop), &r->changes_timer, loop_now_ms(r->loop) + LOOK_EACH_MS, on_changes_time, r);
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

	rc = rc ? rc : spool_open(r->config, &r->user, r->log, &r->spool_fd, err);
	rc = rc ? rc : spool_lock(r->spool_fd, r->log, &r->lock_fd, err);
	if (rc != EX_OK)
		return rc;
	listening.spool_fd = r->spool_fd;
	listening.net = r->net = net_new(r->loop);
	r->listeners = listeners_open(&listening, r->config, &rc, err);
	if (!r->listeners)
		return rc;
	rc = enter_sandbox(r, err);
	rc = rc ? rc : start_storage(r, err);
	return rc ? rc : start_parts(r, err);
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
		configure_log(r);
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

static void begin_stop(struct relayd *r)
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

	if (signo == SIGHUP) {
		reload_and_tell(r);
	} else if (!r->stopping) {
		begin_stop(r);
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
	queue_close(&r->queue);
	dedupe_free(&r->dedupe); /* the queue calls back no more */
	disk_real_free(&r->disk);
	helpers_free(&r->helpers);
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
