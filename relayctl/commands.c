#include "relayctl/commands.h"

#include "base/base.h"
#include "config/nearest.h"

#include <stdio.h>

const char *const ctl_filter_names[] = {"state", "domain", "recipient", "sender",    "user",
					"class", "reason", "age",	"relayhost", NULL};

static const struct command commands[] = {
    {"status", cmd_status, "", "health, queue, relayhosts, worst destinations on one screen"},
    {"health", cmd_health, "[--mail]", "exit 0: relayd takes mail; with --mail: and mail flows"},
    {"top", cmd_top, "", "the status again and again, in place of the screen; q ends it"},
    {"queue", cmd_queue, "[FILTER] [--sort age|next|attempts|size] [--limit N] [--after CURSOR] [--all]",
     "what waits, and why"},
    {"show", cmd_show, "ID", "one message: recipients, last replies, next attempts"},
    {"flush", cmd_flush, "[ID | FILTER | --all] [--yes | --dry-run]", "attempt now; without ID and FILTER all"},
    {"hold", cmd_hold, "ID | FILTER | --all [--yes | --dry-run]", "keep messages from being attempted"},
    {"release", cmd_release, "ID | FILTER | --all [--yes | --dry-run]", "end a hold, attempt now"},
    {"delete", cmd_delete, "ID | FILTER | --all [--yes | --dry-run]", "remove messages; nobody is told"},
    {"bounce", cmd_bounce, "ID | FILTER | --all [--yes | --dry-run]", "give messages up; their senders are told"},
    {"tail", cmd_tail,
     "[--event E,...] [--level L] [--id ID] [--user U] [--sender A] [--recipient A] [--domain D] [--relayhost R] "
     "[--outcome O] [--count N]",
     "what happens, as it happens"},
    {"route", cmd_route, "ADDRESS [--from A] [--user U]", "where would it go, and why"},
    {"pause", cmd_pause, "RELAYHOST", "give it no new message until it is resumed, over restarts"},
    {"resume", cmd_resume, "RELAYHOST", "use it again"},
    {"send", cmd_send, "--from A --to B [FILE]", "submit a message and follow it"},
    {"sendmail", cmd_sendmail, "[-t] [-i] [-f FROM] [TO ...] | -bs | -bp",
     "as sendmail(8), for cron and scripts; also by that name"},
    {"config", cmd_config, "", "what is in force and where it comes from, secrets masked"},
    {"doctor", cmd_doctor, "[DOMAIN] [--to ADDR] [--blocklist ZONE,...] [--strict]",
     "is all that mail from here needs as it should be? What is not, and what to change"},
    {"user", cmd_user,
     "add NAME [--password-file FILE] [--options TEXT] | remove NAME | list | check NAME [--password-file FILE]",
     "who may submit"},
    {"dkim", cmd_dkim, "keygen DOMAIN SELECTOR [--type rsa|ed25519] [--out FILE] | show [DOMAIN] | check [DOMAIN]",
     "signing keys, their DNS records, and whether those are published"},
    {"reload", cmd_reload, "", "read configuration, users, keys and certificates again"},
    {"drain", cmd_drain, "[--timeout T]", "stop accepting, deliver, stop"},
    {"verify", cmd_verify, "[SPOOL]", "check the spool, running or not"},
    {"journal", cmd_journal, "dump [SPOOL]", "print every record of the journal"},
    {"version", cmd_version, "", "the version"},
};

const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

const char *command_nearest(const char *name)
{
	struct nearest nearest;

	nearest_init(&nearest, slice_of_str(name));
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		nearest_offer(&nearest, commands[i].name);
	nearest_offer(&nearest, "help");
	return nearest.best;
}

/* ---- help ---- */

static void print_filter(FILE *out)
{
	/* Beside ctl_filter_names. */
	static const char *const values[] = {"ready|inflight|deferred|held",
					     "NAME",
					     "ADDRESS",
					     "ADDRESS",
					     "NAME",
					     "default|transactional|bulk",
					     "greylist|throttle|auth|mailbox|policy|connect|dns|tls|other",
					     "30s|10m|4h|5d",
					     "NAME|mx",
					     NULL};

	fputs("\nFILTER: one or more of these; all that are given must hold\n", out);
	for (size_t i = 0; ctl_filter_names[i]; i++)
		fprintf(out, "  --%s %s\n", ctl_filter_names[i], values[i]);
}

void commands_print(FILE *out)
{
	fputs("usage: relayctl [-c FILE | -s SOCKET] [--json] COMMAND [ARGUMENTS]\n\n", out);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(out, "  %s%s%s\n        %s\n", commands[i].name, commands[i].arguments[0] ? " " : "",
			commands[i].arguments, commands[i].what);
	print_filter(out);
	fputs("\nOne of them: relayctl help COMMAND. All that they do: man relayctl.\n", out);
}

void command_print(FILE *out, const struct command *command)
{
	fprintf(out, "usage: relayctl %s%s%s\n\n  %s\n", command->name, command->arguments[0] ? " " : "",
		command->arguments, command->what);
	if (strstr(command->arguments, "FILTER"))
		print_filter(out);
}

static void add_filter(json_t *list)
{
	for (size_t i = 0; ctl_filter_names[i]; i++)
		json_array_append_new(list, json_sprintf("--%s", ctl_filter_names[i]));
}

/* "--name" and "-n" as they stand in the text, FILTER written out. */
static json_t *options_of(const char *arguments)
{
	json_t *list = json_array();

	for (const char *at = arguments; *at;) {
		size_t len = strcspn(at, " []|");
		if (at[0] == '-' && len > 1)
			json_array_append_new(list, json_stringn(at, len));
		else if (len == 6 && strncmp(at, "FILTER", len) == 0)
			add_filter(list);
		at += len;
		at += strspn(at, " []|");
	}
	return list;
}

void commands_print_json(void)
{
	json_t *list = json_array();

	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:s}", "name", commands[i].name, "arguments",
						      commands[i].arguments, "options",
						      options_of(commands[i].arguments), "what", commands[i].what));
	ctl_print_json(list);
	json_decref(list);
}

int ctl_wrong_usage(const char *name)
{
	const struct command *command = command_find(name);

	BUG_ON(!command);
	return ctl_usage("usage: relayctl %s%s%s", name, command->arguments[0] ? " " : "", command->arguments);
}

/* ---- options ---- */

static const struct ctl_option *find_option(const char *argument, const struct ctl_option *options, size_t count,
					    const char **inside)
{
	const char *equals = strchr(argument, '=');
	size_t len = equals ? (size_t)(equals - argument) : strlen(argument);

	*inside = equals ? equals + 1 : NULL;
	for (size_t i = 0; i < count; i++)
		if (strlen(options[i].name) == len && strncmp(options[i].name, argument, len) == 0)
			return &options[i];
	return NULL;
}

/* How many arguments it took, or -1. */
static int take_option(char **argv, int left, const struct ctl_option *options, size_t count)
{
	const char *inside;
	const struct ctl_option *option = find_option(argv[0], options, count, &inside);

	if (!option) {
		ctl_usage("unknown option '%s'", argv[0]);
		return -1;
	}
	if (option->flag) {
		*option->flag = true;
		return inside ? (ctl_usage("%s takes no value", option->name), -1) : 1;
	}
	*option->value = inside ? inside : left > 1 ? argv[1] : NULL;
	if (!*option->value) {
		ctl_usage("%s wants a value", option->name);
		return -1;
	}
	return inside ? 1 : 2;
}

int ctl_parse(int argc, char **argv, const struct ctl_option *options, size_t count, const char **words, int max)
{
	bool has_ended = false;
	int found = 0;

	for (int i = 1; i < argc;) {
		int taken = 1;
		if (!has_ended && strcmp(argv[i], "--") == 0) {
			has_ended = true;
		} else if (!has_ended && argv[i][0] == '-' && argv[i][1] != '\0') {
			taken = take_option(argv + i, argc - i, options, count);
		} else if (found < max) {
			words[found++] = argv[i];
		} else {
			ctl_usage("unexpected argument '%s'", argv[i]);
			taken = -1;
		}
		if (taken < 0) {
			ctl_wrong_usage(argv[0]);
			return -1;
		}
		i += taken;
	}
	return found;
}

size_t ctl_filter_options(struct ctl_filter *filter, struct ctl_option *out)
{
	static char names[CTL_FILTER_MAX][32];
	size_t count = 0;

	*filter = (struct ctl_filter){0};
	for (; ctl_filter_names[count]; count++) {
		snprintf(names[count], sizeof(names[count]), "--%s", ctl_filter_names[count]);
		out[count] = (struct ctl_option){names[count], &filter->values[count], NULL};
	}
	return count;
}

bool ctl_filter_is_empty(const struct ctl_filter *filter)
{
	for (size_t i = 0; ctl_filter_names[i]; i++)
		if (filter->values[i])
			return false;
	return true;
}
