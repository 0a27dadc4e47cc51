#include "relayd/check.h"

#include "base/base.h"
#include "base/clock.h"
#include "relayd/helper_protocol.h"
#include "relayd/listener.h"
#include "relayd/sandbox.h"
#include "relayd/tls_policy.h"
#include "tls/credentials.h"

#include <stdio.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

static int tell(const char *text)
{
	fprintf(stderr, "relayd: %s\n", text);
	return EX_CONFIG;
}

static int check_user(struct config *config)
{
	struct service_user user;
	struct err err;

	return service_user_find(config, &user, &err) == EX_OK ? EX_OK : tell(err.text);
}

static int check_certificate(struct config *config)
{
	struct tls_credentials *credentials;
	struct err err;

	if (!config->tls.certificate)
		return EX_OK;
	credentials = listeners_load_credentials(config, &err);
	if (!credentials)
		return tell(err.text);
	if (tls_credentials_expires_at_wall(credentials) <= clock_wall_ms(clock_system()))
		fprintf(stderr, "relayd: warning: tls: %s has expired\n", config->tls.certificate);
	tls_credentials_unref(&credentials);
	return EX_OK;
}

static int check_deliveries(struct config *config)
{
	struct err err;
	struct tls_policy *policy = tls_policy_new(config, &err);

	if (!policy)
		return tell(err.text);
	tls_policy_free(&policy);
	return EX_OK;
}

static int check_secrets(struct config *config)
{
	struct helper_report report;
	struct helper_secrets *secrets = helper_secrets_load(config, &report);
	int rc = secrets ? EX_OK : tell(report.text);

	helper_secrets_free(&secrets);
	helper_report_fini(&report);
	return rc;
}

int check_parts(struct config *config)
{
	static int (*const checks[])(struct config *) = {check_user, check_certificate, check_deliveries,
							 check_secrets};
	int rc = EX_OK;

	for (size_t i = 0; i < ARRAY_LEN(checks); i++)
		if (checks[i](config) != EX_OK)
			rc = EX_CONFIG;
	return rc;
}

void check_warn_of_spool(const struct config *config)
{
	struct err err;

	if (spool_would_be_refused(config, &err))
		fprintf(stderr, "relayd: warning: %s; a start here would be refused\n", err.text);
}

/* ---- what root can read ---- */

/* In a process of its own, which has become the user. */
_Noreturn static void look_as(const struct relayd_options *options, const struct service_user *user, const char *prefix)
{
	struct config_source source = {.file = options->config_file,
				       .file_is_named = options->file_is_named,
				       .environ = options->environ,
				       .check_files = true};
	struct config_errors errors;
	struct config *config = NULL;
	struct err err;
	int rc = EX_OK;

	if (sandbox_drop_user(user->name, user->uid, user->gid, NULL, 0, &err) == 0)
		rc = config_load(&source, &config, &errors) == 0 ? EX_OK : EX_CONFIG;
	for (size_t i = 0; rc != EX_OK && i < errors.kept_count; i++)
		if (!errors.items[i].is_warning)
			fprintf(stderr, "%s: %s; as user %s a reload would fail\n", prefix, errors.items[i].text,
				user->name);
	_exit(rc);
}

int check_as_user(const struct relayd_options *options, const struct service_user *user, const char *prefix)
{
	pid_t pid = user->must_drop ? fork() : -1;
	int status;

	if (pid == 0)
		look_as(options, user, prefix);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return EX_OK;
	return WIFEXITED(status) && WEXITSTATUS(status) == EX_CONFIG ? EX_CONFIG : EX_OK;
}
