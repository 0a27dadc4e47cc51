/*
 * relayd/sandbox.h - what the daemon and its helpers give up: root, new privileges, other files, odd system calls
 *
 * In this order, before the first octet of a client is parsed: bind sockets, open the spool, sandbox_drop_user(),
 * sandbox_enter(). All but the change of user is best effort: what the kernel or the container does not have is left
 * out, and said in the report. Nothing here can be undone.
 *
 * CORE     Limit 0 and not dumpable: no secrets in core files, no ptrace by others of the same user.
 * FILES    Landlock: what is not named can neither be read nor written. Rights go with the directory, not the file, so
 *          that a file which is replaced by rename stays reachable; sandbox_paths_add_file() sees to that. Processes
 *          that are forked later inherit all of it. A file in a folder that the configuration did not name at the
 *          start (outside /etc, /usr and /run) cannot be read at a reload: ERR_PERMISSION, until a restart.
 * CALLS    seccomp: a forbidden system call fails with EPERM, it does not kill; a library that tries one falls back or
 *          reports. ROLE_DAEMON forbids what no relay needs (exec, ptrace, mount, kernel modules, ...); the helper
 * roles allow what they need and nothing else.
 */
#ifndef RELAYD_SANDBOX_H
#define RELAYD_SANDBOX_H

#include "base/buf.h"
#include "base/err.h"
#include "config/config.h"

#include <sys/types.h>

/*
 * Becomes this user for good: supplementary groups as the system says for `name` (NULL: none), then gid, then uid;
 * checks that there is no way back. When we are that user already, does nothing and succeeds. `groups` are kept besides
 * (for control_group), may be NULL. ERR_PERMISSION, ERR_SYSTEM with words.
 */
int sandbox_drop_user(const char *name, uid_t uid, gid_t gid, const gid_t *groups, size_t group_count, struct err *err);

/* Paths that stay open to us. */
struct sandbox_paths;

struct sandbox_paths *sandbox_paths_new(void);
void sandbox_paths_free(struct sandbox_paths **paths);
/* A directory (or file) and all below it. Copied; one that is not there is passed over. */
void sandbox_paths_add(struct sandbox_paths *paths, const char *path, bool writable);
/* A file that may be replaced: its directory for reading, and where a link leads to. */
void sandbox_paths_add_file(struct sandbox_paths *paths, const char *file);
/* What a daemon with this configuration needs: spool (writable), the files that it names, /etc, /proc, /dev, /run and
 * /usr/share for reading: the resolver, the system's trust and time zones, secrets of containers. */
void sandbox_paths_add_config(struct sandbox_paths *paths, const struct config *config);

enum sandbox_role {
	SANDBOX_DAEMON = 0,
	SANDBOX_CRYPTO, /* after keys and users are loaded: no files, no sockets but those that are open */
	SANDBOX_SYNC,	/* creates, syncs and unlinks files */
};

struct sandbox_options {
	enum sandbox_role role;
	const struct sandbox_paths *paths; /* NULL: no Landlock */
	bool no_landlock, no_seccomp;	   /* switches for valgrind and sanitizers, which need what is forbidden */
	bool dumpable;			   /* leave it so, for a debugger */
};

/* What is active, in words for the log and for status: "no new privileges, no core files, files by Landlock (ABI 6),
 * system calls by seccomp (71 forbidden)"; and why something is not. */
struct sandbox_report {
	bool no_new_privs, no_core, landlock, seccomp;
	int landlock_abi;
	char text[512];
};

/* Never fails; `report` may be NULL. */
void sandbox_enter(const struct sandbox_options *options, struct sandbox_report *report);

/* True in a build with AddressSanitizer, whose run-time needs system calls that the helper roles forbid. */
bool sandbox_is_sanitized(void);

#endif
