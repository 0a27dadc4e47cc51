/*
 * relayctl/ctl.h - what all commands share: the command line's general part, the way to the daemon, exit codes
 */
#ifndef RELAYCTL_CTL_H
#define RELAYCTL_CTL_H

#include "base/buf.h"
#include "config/config.h"

#include <jansson.h>
#include <stdio.h>

/* Exit codes (Contract). */
enum {
	CTL_OK = 0,
	CTL_FAILED = 1,
	CTL_USAGE = 2,
	CTL_UNREACHABLE = 3,
	CTL_NO_MATCH = 4,
	CTL_PENDING = 5,
};

struct ctl {
	const char *config_file; /* -c; NULL: the default */
	const char *socket;	 /* -s */
	bool json;		 /* --json: exactly one document on standard output */
	bool is_terminal;	 /* standard output is one: colours and widths */
	struct config *config;	 /* ctl_config() */
	bool config_is_bad;	 /* that was said */
	char *socket_path;
};

/* A command gets its own arguments, argv[0] is its name. Returns an exit code. */
typedef int ctl_command(struct ctl *ctl, int argc, char **argv);

/* Prints "relayctl: ..." to standard error and returns CTL_USAGE, so that it can stand in a return statement. */
int ctl_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with CTL_FAILED. */
int ctl_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The configuration, loaded at the first call without looking at the files that it names; NULL: mistakes were printed.
 */
const struct config *ctl_config(struct ctl *ctl);
/* The spool folder: of -s, the configuration, RELAYD_SPOOL, or the default. */
const char *ctl_spool(struct ctl *ctl);
/* The control socket's path. */
const char *ctl_socket(struct ctl *ctl);

/*
 * One request to the daemon's control API. CTL_OK: *answer is the document (the caller's reference). CTL_UNREACHABLE
 * was told on standard error; CTL_NO_MATCH is 404 and CTL_USAGE 400; CTL_FAILED: the daemon's words were printed. `body` may be NULL
 * (GET).
 */
int ctl_request(struct ctl *ctl, const char *path, json_t *body, json_t **answer);
/*
 * The same with an answer of many lines, each a JSON object, handed over as they come; blank ones are not. False from
 * `on_line` ends it with CTL_OK. What has come before an end in trouble was handed over. `body` may be NULL.
 */
typedef bool ctl_line(void *ctx, json_t *line);
int ctl_stream(struct ctl *ctl, const char *path, json_t *body, ctl_line *on_line, void *ctx);
/* Appends the value, percent-encoded. */
void ctl_append_encoded(struct buf *path, const char *value);
/* Appends `name=value` to a path that has or has no query yet, percent-encoded. */
void ctl_add_query(struct buf *path, const char *name, const char *value);

/* Prints the document and a newline. */
void ctl_print_json(json_t *document);
/* "45s", "12m", "3h", "4d". `out` has at least 24 bytes. */
const char *ctl_format_age(int64_t seconds, char *out, size_t size);
/* "812 B", "1.4 MiB". */
const char *ctl_format_bytes(int64_t bytes, char *out, size_t size);

/* The commands. */
ctl_command cmd_status, cmd_health, cmd_queue, cmd_show, cmd_flush, cmd_config, cmd_version, cmd_user, cmd_dkim,
    cmd_send, cmd_reload, cmd_verify, cmd_journal, cmd_hold, cmd_release, cmd_delete, cmd_bounce, cmd_tail, cmd_top,
    cmd_pause, cmd_resume, cmd_drain, cmd_route, cmd_sendmail, cmd_doctor;

#endif
