/*
 * relayctl/commands.h - the table of commands, and their options
 *
 * One table is the help, the usage messages and what the shell completions are held against.
 */
#ifndef RELAYCTL_COMMANDS_H
#define RELAYCTL_COMMANDS_H

#include "relayctl/ctl.h"

struct command {
	const char *name;
	ctl_command *run;
	const char *arguments; /* as the help shows them; FILTER stands for the options of ctl_filter_names */
	const char *what;
};

/* NULL: there is none. */
const struct command *command_find(const char *name);
/* The name that was probably meant; NULL: none is near. */
const char *command_nearest(const char *name);
/* How it is called, and what it does. */
void command_print(FILE *out, const struct command *command);
/* All of them, for people; with `json` as one document: name, arguments, options, what. */
void commands_print(FILE *out);
void commands_print_json(void);

/* The conditions by which messages are named, without the dashes; NULL at the end. */
extern const char *const ctl_filter_names[];

/* An option: "--domain D" sets *value, "--yes" sets *flag. The name has its dashes. */
struct ctl_option {
	const char *name;
	const char **value;
	bool *flag;
};

/*
 * Reads a command's arguments: options in any place, then at most `max` words, put into words[]. Returns how many words
 * there are, or -1 when it was told what is wrong. "--" ends the options. Also "--name=value".
 */
int ctl_parse(int argc, char **argv, const struct ctl_option *options, size_t count, const char **words, int max);
/* Tells how the command is called; CTL_USAGE. */
int ctl_wrong_usage(const char *command);

/* FILTER on the command line. */
enum { CTL_FILTER_MAX = 16 };
struct ctl_filter {
	const char *values[CTL_FILTER_MAX]; /* beside ctl_filter_names; NULL: not given */
};
bool ctl_filter_is_empty(const struct ctl_filter *filter);
/* Options for all of them, into `out` (CTL_FILTER_MAX of room); returns how many. */
size_t ctl_filter_options(struct ctl_filter *filter, struct ctl_option *out);

#endif
