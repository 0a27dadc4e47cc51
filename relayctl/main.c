/* relayctl - shows and steers relayd. This file: the command line's general part and the table of commands. */
#include "base/base.h"
#include "relayctl/ctl.h"

#include <curl/curl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct command {
	const char *name;
	ctl_command *run;
	const char *arguments, *what;
};

static const struct command commands[] = {
    {"status", cmd_status, "", "health, queue, relayhosts, worst destinations on one screen"},
    {"health", cmd_health, "[--mail]", "exit 0: relayd takes mail; with --mail: and mail flows"},
    {"queue", cmd_queue, "[--state S] [--domain D] [--sender A] [--user U]", "what waits, and why"},
    {"show", cmd_show, "ID", "one message: recipients, last replies, next attempts"},
    {"flush", cmd_flush, "[ID | --domain D]", "attempt now"},
    {"hold", cmd_hold, "ID", "keep a message from being attempted"},
    {"release", cmd_release, "ID", "end a hold, attempt now"},
    {"delete", cmd_delete, "ID", "remove a message; nobody is told"},
    {"send", cmd_send, "--from A --to B [FILE]", "submit a message and follow it"},
    {"sendmail", cmd_sendmail, "[-t] [-i] [-f FROM] [TO ...]",
     "as sendmail(8), for cron and scripts; also by that name"},
    {"config", cmd_config, "", "what is in force and where it comes from, secrets masked"},
    {"user", cmd_user, "add|remove|list|check NAME", "who may submit"},
    {"dkim", cmd_dkim, "keygen|show ...", "signing keys and their DNS records"},
    {"reload", cmd_reload, "", "read configuration, users, keys and certificates again"},
    {"verify", cmd_verify, "", "check the spool, running or not"},
    {"journal", cmd_journal, "dump", "print every record of the journal"},
    {"version", cmd_version, "", ""},
};

static void print_help(FILE *out)
{
	fputs("usage: relayctl [-c FILE | -s SOCKET] [--json] COMMAND [ARGUMENTS]\n\n", out);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(out, "  %s %s%s%s\n", commands[i].name, commands[i].arguments,
			commands[i].what[0] ? "\n        " : "", commands[i].what);
}

/* Takes the general options out of argv, wherever they stand before the command. Returns the command's index or -1. */
static int parse_general(struct ctl *ctl, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			ctl->json = true;
		else if (strcmp(argv[i], "-c") == 0 && i + 1 < argc)
			ctl->config_file = argv[++i];
		else if (strcmp(argv[i], "-s") == 0 && i + 1 < argc)
			ctl->socket = argv[++i];
		else if (argv[i][0] != '-')
			return i;
		else
			return -1;
	}
	return -1;
}

/* --json may also stand behind the command. */
static int drop_json(struct ctl *ctl, int argc, char **argv)
{
	int kept = 0;

	for (int i = 0; i < argc; i++) {
		if (i > 0 && strcmp(argv[i], "--json") == 0)
			ctl->json = true;
		else
			argv[kept++] = argv[i];
	}
	argv[kept] = NULL;
	return kept;
}

static int run(struct ctl *ctl, int argc, char **argv)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].name, argv[0]) == 0)
			return commands[i].run(ctl, drop_json(ctl, argc, argv), argv);
	return ctl_usage("unknown command '%s'; relayctl --help lists them", argv[0]);
}

static bool is_sendmail(const char *program)
{
	const char *slash = strrchr(program, '/');
	return strcmp(slash ? slash + 1 : program, "sendmail") == 0;
}

int main(int argc, char **argv)
{
	struct ctl ctl = {.is_terminal = isatty(STDOUT_FILENO)};
	int at, rc;

	if (sodium_init() < 0 || curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
		return ctl_failed("a library cannot be initialised");
	if (is_sendmail(argv[0])) {
		rc = cmd_sendmail(&ctl, argc, argv);
		config_free(&ctl.config);
		return rc;
	}
	if (argc > 1 &&
	    (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)) {
		print_help(stdout);
		return CTL_OK;
	}
	at = parse_general(&ctl, argc, argv);
	if (at < 0) {
		print_help(stderr);
		return CTL_USAGE;
	}
	rc = run(&ctl, argc - at, argv + at);
	config_free(&ctl.config);
	free(ctl.socket_path);
	curl_global_cleanup();
	if (fflush(stdout) != 0)
		return CTL_FAILED;
	return rc;
}
