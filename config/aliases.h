/*
 * config/aliases.h - aliases(5): who reads the mail of root and other bare names
 *
 *   name: target, target, ...
 *
 * A line that begins with a blank continues the one before; blank lines and lines whose first sign is # are passed
 * over. Names compare without regard to ASCII case, and names and targets may stand in double quotes. A target is an
 * address, or a name that may be an alias itself; "\name" is that name and no alias.
 *
 * Names only: what begins with | (a program), / (a file) or :include: is passed over with a warning, since the file is
 * often that of a whole machine. Asking is left to relayd/policy_aliases.c, which follows targets and knows where
 * circles end.
 */
#ifndef CONFIG_ALIASES_H
#define CONFIG_ALIASES_H

#include "config/errors.h"
#include "config/memory.h"

#define ALIASES_FILE_MAX_BYTES (4 * 1024 * 1024)
#define ALIASES_NAME_MAX_BYTES 254

struct alias {
	const char *name;
	size_t count;	      /* 0: nothing that a relay can write to */
	const char **targets; /* "user@example.com", "root", "\root" */
	uint32_t line;
};

struct aliases;

/* All of it lives in `memory`. NULL: mistakes were found, and told as "path:line:column: ...". */
struct aliases *aliases_parse(struct config_memory *memory, struct slice text, const char *path,
			      struct config_errors *errors);
/* Reads the file first. */
struct aliases *aliases_load(struct config_memory *memory, const char *path, struct config_errors *errors);
size_t aliases_count(const struct aliases *aliases);
/* NULL: there is none. Lives as `aliases`. */
const struct alias *aliases_find(const struct aliases *aliases, struct slice name);

#endif
