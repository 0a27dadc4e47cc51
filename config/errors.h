/*
 * config/errors.h - the mistakes of a configuration, all of them, each with its place
 *
 * A plain struct that lives where the caller puts it. The first CONFIG_MISTAKES_MAX are kept, the rest is counted; a
 * warning gives way to a mistake.
 */
#ifndef CONFIG_ERRORS_H
#define CONFIG_ERRORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_MISTAKES_MAX 20

struct config_mistake {
	bool is_warning;
	uint32_t line, column; /* 0: not in a file */
	char text[600];	       /* "FILE:LINE:COLUMN: what is wrong", "VARIABLE: ...", one line, printable */
};

struct config_errors {
	size_t error_count; /* all that were found, kept or not */
	size_t warning_count;
	size_t kept_count; /* in items, in the order of the file, those of the environment behind */
	struct config_mistake items[CONFIG_MISTAKES_MAX];
};

void config_errors_init(struct config_errors *errors);

/* Where a mistake is: a file with a line (0: the file as a whole), or a variable (line 0, its name as `source`). */
struct config_place {
	const char *source;
	uint32_t line, column;
};
void config_errors_add(struct config_errors *errors, const struct config_place *place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void config_errors_warn(struct config_errors *errors, const struct config_place *place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The first that is no warning; "" when there is none. */
const char *config_errors_first(const struct config_errors *errors);
/* Puts them into the order of the file. */
void config_errors_sort(struct config_errors *errors);

#endif
