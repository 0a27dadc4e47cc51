/* relayctl - shows and steers relayd. This file: the command line's general part. */
#include "base/base.h"
#include "relayctl/commands.h"
#include "relayctl/ctl.h"

#include <curl/curl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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

static int unknown(const char *name)
{
	const char *meant = command_nearest(name);

	return meant ? ctl_usage("unknown command '%s', did you mean '%s'?", name, meant)
		     : ctl_usage("unknown command '%s'; relayctl help lists them", name);
}

static int help(struct ctl *ctl, int argc, char **argv)
{
	const struct command *command;

	argc = drop_json(ctl, argc, argv);
	if (argc > 2) {
		command = command_find(argv[2]);
		if (!command)
			return unknown(argv[2]);
		command_print(stdout, command);
	} else if (ctl->json) {
		commands_print_json();
	} else {
		commands_print(stdout);
	}
	return CTL_OK;
}

static int run(struct ctl *ctl, int argc, char **argv)
{
	const struct command *command = command_find(argv[0]);

	if (!command)
		return unknown(argv[0]);
	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		command_print(stdout, command);
		return CTL_OK;
	}
	return command->run(ctl, drop_json(ctl, argc, argv), argv);
}

static bool is_sendmail(const char *program)
{
	const char *slash = strrchr(program, '/'), *name = slash ? slash + 1 : program;
	return strcmp(name, "sendmail") == 0 || strcmp(name, "mailq") == 0 || strcmp(name, "newaliases") == 0;
}

static bool wants_help(const char *word)
{
	return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

static int serve(struct ctl *ctl, int argc, char **argv)
{
	int at;

	if (is_sendmail(argv[0]))
		return cmd_sendmail(ctl, argc, argv);
	if (argc > 1 && wants_help(argv[1]))
		return help(ctl, argc, argv);
	at = parse_general(ctl, argc, argv);
	if (at < 0) {
		commands_print(stderr);
		return CTL_USAGE;
	}
	return run(ctl, argc - at, argv + at);
}

int main(int argc, char **argv)
{
	struct ctl ctl = {.is_terminal = isatty(STDOUT_FILENO)};
	int rc;

	if (sodium_init() < 0 || curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
		return ctl_failed("a library cannot be initialised");
	rc = serve(&ctl, argc, argv);
	config_free(&ctl.config);
	free(ctl.socket_path);
	curl_global_cleanup();
	return fflush(stdout) == 0 ? rc : CTL_FAILED;
}
