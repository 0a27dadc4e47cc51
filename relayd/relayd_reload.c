#include "relayd/relayd_internal.h"

#include "base/base.h"
#include "relayd/bounce.h"
#include "relayd/changes.h"
#include "relayd/delivery.h"
#include "relayd/dns_loop.h"
#include "relayd/helper.h"
#include "relayd/https.h"
#include "relayd/hurry.h"
#include "relayd/listener.h"
#include "relayd/mta_sts.h"
#include "relayd/oauth2.h"
#include "relayd/report.h"
#include "relayd/restart.h"
#include "relayd/scheduler.h"
#include "relayd/webhook.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

enum { LOOK_EACH_MS = 10 * 1000 };

static const struct config_texts resolv_conf = {1, (const char *[]){"/etc/resolv.conf"}};

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

void relayd_configure_log(struct relayd *r)
{
	enum { REPEAT_BURST = 10 };
	struct log_options options = {r->config->log.format, r->config->log.level, r->config->log.addresses,
				      stderr_is_journal(), REPEAT_BURST};

	log_configure(r->log, &options);
}

/* Our own names and addresses, for loops in MX. */
void relayd_configure_mx(struct relayd *r)
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

unsigned relayd_connections_max(const struct relayd *r)
{
	return MIN((unsigned)r->config->delivery.connections, net_connections_max());
}

void relayd_apply_config(struct relayd *r)
{
	relayd_configure_log(r);
	relayd_configure_mx(r);
	configure_https(r);
	mta_sts_set_port(r->mta_sts, (uint16_t)r->config->delivery.mta_sts_port);
	configure_retry(r);
	for (size_t i = 0; i < r->config->relayhost_count; i++)
		report_add_relayhost(r->report, r->config->relayhosts[i].name);
	rates_configure(r->rates, r->config);
	webhook_commit(r->webhook, r->config);
	bounce_configure(r->bounce, r->config);
	destinations_set_limits(r->destinations, relayd_connections_max(r),
				(unsigned)r->config->delivery.per_destination);
	destinations_retire_relayhosts(r->destinations, r->config);
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

static void begin_anew(struct changes **changes, const struct config_texts *files)
{
	changes_free(changes);
	*changes = changes_new(files);
}

/* Another network has other resolvers (DHCP, a VPN, a container that was moved): the old ones may be out of reach. */
static void reload_dns(struct relayd *r)
{
	struct dns *dns = dns_loop_dns(r->dns);
	char servers[256];
	struct err err;

	if (dns_reload(dns, &err) != 0) {
		log_event(r->log, LOG_WARN, "dns_reload_failed", LOG_STR("text", err.text));
		return;
	}
	dns_format_servers(dns, servers, sizeof(servers));
	log_event(r->log, LOG_INFO, "dns_reloaded", LOG_STR("servers", servers));
}

static int reload(struct relayd *r, struct err *err)
{
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
	relayd_apply_config(r);
	health_end(r->health, ALERT_SIGNING); /* the next message tells */
	begin_anew(&r->changes, &r->config->files);
	config_free(&old);
	tls_policy_free(&old_policy);
	series_set(good, 1);
	series_set(metrics_series(r->metrics, METRIC_RELOAD_SUCCESS_TIME, NULL, NULL, NULL),
		   (double)clock_wall_ms(r->clock) / 1000);
	reload_dns(r);
	destinations_retry_relayhosts(r->destinations);
	destinations_route_anew(r->destinations);
	if (config_uses_mx(r->config))
		hurry_begin(r->hurry);
	else
		hurry_begin_with_sessions(r->hurry);
	find_restart(r);
	log_event(r->log, r->restart[0] ? LOG_WARN : LOG_INFO, "reloaded", LOG_STR("file", r->config->file),
		  LOG_STR("needs_restart", r->restart));
	return 0;
}

int relayd_reload(void *ctx, struct err *err)
{
	struct relayd *r = ctx;
	int rc = reload(r, err);

	snprintf(r->refused, sizeof(r->refused), "%s", rc == 0 ? "" : err->text);
	if (rc != 0)
		log_event(r->log, LOG_ERROR, "reload_failed", LOG_STR("text", err->text));
	return rc;
}

/* A secret that was rotated, a certificate that was renewed: nobody need tell us. */
static void on_changes_time(void *ctx)
{
	struct relayd *r = ctx;
	struct err err;

	if (changes_look(r->changes)) {
		relayd_reload(r, &err);
		/* A bad state is told once, not at each look. */
		begin_anew(&r->changes, &r->config->files);
	}
	if (changes_look(r->resolv_changes)) {
		if (r->started->dns.servers.count == 0)
			reload_dns(r);
		begin_anew(&r->resolv_changes, &resolv_conf);
	}
	timers_set(loop_timers(r->loop), &r->changes_timer, loop_now_ms(r->loop) + LOOK_EACH_MS, on_changes_time, r);
}

void relayd_watch_changes(struct relayd *r)
{
	begin_anew(&r->changes, &r->config->files);
	begin_anew(&r->resolv_changes, &resolv_conf);
	timers_set(loop_timers(r->loop), &r->changes_timer, loop_now_ms(r->loop) + LOOK_EACH_MS, on_changes_time, r);
}
