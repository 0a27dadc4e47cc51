/*
 * relayd/relayd.h - the daemon: owns all parts, joins them, starts, reloads and stops them in the right order
 *
 * - Start: configuration, spool (made, checked, locked), sockets bound, privileges dropped, helpers, journal recovered;
 *   then the doors open.
 * - A turn: events; timers; webhook_turn(); queue_turn() (batch, sync, 250s); scheduler_turn() (due mail); log_flush().
 * - Stop: doors closed, transactions under way finish within stop_timeout, the journal is synced and marked.
 */
#ifndef RELAYD_RELAYD_H
#define RELAYD_RELAYD_H

#include "config/config.h"

struct relayd;

/* What the command line says. */
struct relayd_options {
	const char *config_file; /* NULL: the default */
	bool file_is_named;
	char **environ;
	char **argv; /* for the names of the helpers; NULL: short names alone */
};

/* Starts. NULL: told on standard error, *exit_code is one of sysexits.h. */
struct relayd *relayd_start(const struct relayd_options *options, int *exit_code);
/* Serves until it has stopped; returns the exit code. */
int relayd_run(struct relayd *relayd);
void relayd_free(struct relayd **relayd);

/* Loads and checks the configuration; prints mistakes and warnings to standard error. EX_OK or EX_CONFIG. */
int relayd_load_config(const struct relayd_options *options, struct config **config);

/* The commit that this was built from; "unknown" without a repository. */
const char *relayd_revision(void);

#endif
