#include "relayd/sandbox_internal.h"

#include "base/base.h"

#include <errno.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { GROUPS_MAX = 256 };

bool sandbox_is_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__)
	return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
	return true;
#endif
#endif
	return false;
}

/* ---- who we are ---- */

static bool is_user(uid_t uid, gid_t gid)
{
	uid_t real, effective, saved;
	gid_t real_gid, effective_gid, saved_gid;

	return getresuid(&real, &effective, &saved) == 0 && getresgid(&real_gid, &effective_gid, &saved_gid) == 0 &&
	       real == uid && effective == uid && saved == uid && real_gid == gid && effective_gid == gid &&
	       saved_gid == gid;
}

/* The groups of the system's files, and those asked for besides. */
static int set_groups(const char *name, gid_t gid, const gid_t *groups, size_t group_count, struct err *err)
{
	gid_t all[GROUPS_MAX + 1] = {gid};
	int count = name ? GROUPS_MAX : 1;

	if (name && getgrouplist(name, gid, all, &count) < 0)
		return err_set(err, ERR_SYSTEM, "user %s is in more than %d groups", name, GROUPS_MAX);
	for (size_t i = 0; i < group_count && count < GROUPS_MAX; i++)
		all[count++] = groups[i];
	if (setgroups((size_t)count, all) != 0)
		return err_set_errno(err, "cannot take the groups of user %s", name ? name : "");
	return 0;
}

int sandbox_drop_user(const char *name, uid_t uid, gid_t gid, const gid_t *groups, size_t group_count, struct err *err)
{
	const char *shown = name ? name : "the service user";
	int rc;

	if (geteuid() != 0 && is_user(uid, gid))
		return 0;
	if (geteuid() != 0)
		return err_set(err, ERR_PERMISSION, "only root can become %s", shown);
	rc = set_groups(name, gid, groups, group_count, err);
	if (rc != 0)
		return rc;
	/* In this order: without root there is no right to change the group. */
	if (setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
		return err_set_errno(err, "cannot become %s", shown);
	if (!is_user(uid, gid) || (uid != 0 && (setuid(0) == 0 || seteuid(0) == 0)))
		return err_set(err, ERR_SYSTEM, "%s could become root again", shown);
	return 0;
}

/* ---- what we give up ---- */

static void say(struct sandbox_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct sandbox_report *report, const char *format, ...)
{
	size_t len = strlen(report->text);
	va_list args;

	if (len && len + 3 < sizeof(report->text)) {
		memcpy(report->text + len, ", ", 3);
		len += 2;
	}
	va_start(args, format);
	vsnprintf(report->text + len, sizeof(report->text) - len, format, args);
	va_end(args);
}

static void forbid_core(const struct sandbox_options *options, struct sandbox_report *report)
{
	const struct rlimit none = {0, 0};

	report->no_core = setrlimit(RLIMIT_CORE, &none) == 0;
	if (!options->dumpable && prctl(PR_SET_DUMPABLE, 0) != 0)
		report->no_core = false;
	say(report, report->no_core ? "no core files" : "core files could not be forbidden");
}

static const char *why_not(int errnum)
{
	return errnum == ENOSYS || errnum == EOPNOTSUPP ? "the kernel has none" : strerror(errnum);
}

static void restrict_files(const struct sandbox_options *options, struct sandbox_report *report)
{
	int rc;

	if (!options->paths || options->no_landlock) {
		say(report, "Landlock off");
		return;
	}
	rc = sandbox_restrict_files(options->paths, &report->landlock_abi);
	report->landlock = rc == 0;
	if (rc == 0)
		say(report, "files by Landlock (ABI %d)", report->landlock_abi);
	else
		say(report, "no Landlock: %s", why_not(-rc));
}

static void restrict_calls(const struct sandbox_options *options, struct sandbox_report *report)
{
	unsigned count = 0;
	int rc;

	if (options->no_seccomp || sandbox_is_sanitized()) {
		say(report, "seccomp off");
		return;
	}
	rc = sandbox_restrict_calls(options->role, &count);
	report->seccomp = rc == 0;
	if (rc == 0)
		say(report, "system calls by seccomp (%u %s)", count,
		    options->role == SANDBOX_DAEMON ? "forbidden" : "allowed");
	else
		say(report, "no seccomp: %s", why_not(-rc));
}

void sandbox_enter(const struct sandbox_options *options, struct sandbox_report *report)
{
	struct sandbox_report own;

	if (!report)
		report = &own;
	*report = (struct sandbox_report){0};
	report->no_new_privs = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
	say(report, report->no_new_privs ? "no new privileges" : "new privileges could not be forbidden");
	forbid_core(options, report);
	restrict_files(options, report);
	restrict_calls(options, report);
}
