/*
 * config/user_options.h - the options of a line of the users file
 *
 * Private to config/.
 */
#ifndef CONFIG_USER_OPTIONS_H
#define CONFIG_USER_OPTIONS_H

#include "config/memory.h"
#include "config/users.h"

/* "from=@example.com:rate=100/m". Everything in *options lives in `memory`. *at: the index in `text` of the option that
 * is wrong. */
int user_options_read(struct slice text, struct config_memory *memory, struct user_options *options, size_t *at,
		      struct err *err);

#endif
