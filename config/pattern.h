/*
 * config/pattern.h - mail addresses and domains as routes, users and allowed recipients name them
 *
 *   user@example.com   this address
 *   @example.com       every address of this domain (example.com means the same)
 *   *.example.com      every address of every subdomain, at any depth, but not of example.com itself (also with @)
 *   *                  every address, the null reverse-path too
 *   <>                 the null reverse-path
 *
 * All compare ASCII case-insensitively, local parts too.
 */
#ifndef CONFIG_PATTERN_H
#define CONFIG_PATTERN_H

#include "base/err.h"
#include "base/slice.h"

#include <stdbool.h>

enum config_pattern_kind {
	CONFIG_PATTERN_ADDRESS = 0,
	CONFIG_PATTERN_DOMAIN,
	CONFIG_PATTERN_SUBDOMAINS,
	CONFIG_PATTERN_ALL,
	CONFIG_PATTERN_NULL,
};

struct config_pattern {
	enum config_pattern_kind kind;
	const char *text; /* the whole address, or the domain without "@" and "*." */
};

struct config_patterns {
	size_t count;
	struct config_pattern *items;
};

/* *text: the part to copy into pattern->text, which is left alone. ERR_SYNTAX with words in `why` (may be NULL). */
int config_pattern_parse(struct slice written, enum config_pattern_kind *kind, struct slice *text, struct err *why);
/* `address`: "local@domain" or empty, without angle brackets. */
bool config_pattern_matches(const struct config_pattern *pattern, struct slice address);
/* Any of them; an empty list matches nothing. */
bool config_patterns_match(const struct config_patterns *patterns, struct slice address);

#endif
