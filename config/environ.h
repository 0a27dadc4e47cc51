/*
 * config/environ.h - names of environment variables
 *
 * Private to config/. config_read_environment() of config/read.h takes them.
 */
#ifndef CONFIG_ENVIRON_H
#define CONFIG_ENVIRON_H

#include "config/keys.h"

#define CONFIG_VARIABLE_CHARS 96

/* The variable of a key: "RELAYD_LIMITS_MESSAGE_SIZE". False: it has none. */
bool config_variable_name(const struct config_table *table, const struct config_key *key,
			  char out[CONFIG_VARIABLE_CHARS]);
/* The value of a variable that is set and not empty, else NULL. Lives as `environ`. */
const char *config_environment_get(char *const *entries, const char *name);

#endif
