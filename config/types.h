/*
 * config/types.h - one value of any type in the table of keys: from text, and back to text
 *
 * Private to config/.
 */
#ifndef CONFIG_TYPES_H
#define CONFIG_TYPES_H

#include "base/buf.h"
#include "base/err.h"
#include "config/keys.h"
#include "config/memory.h"

#include <stdbool.h>

/* The shape of all lists in config.h. */
struct config_list {
	size_t count;
	void *items;
};

struct config_type_context {
	struct config_memory *memory;
	const char *folder;  /* for relative paths; NULL: leave them */
	bool is_secret_text; /* CONFIG_SECRET: `text` is the secret itself, not a path */
};

/* Of one value, or of one element of a list. */
size_t config_type_size(const struct config_key *key);
/* Fills *out; an empty text means "not set" for texts of all kinds and is refused for the others. `why` ends a sentence
 * that begins with the value. */
int config_type_parse(const struct config_key *key, struct slice text, const struct config_type_context *context,
		      void *out, struct err *why);
/* Appends it as it would be written; nothing when it is not set, "***" for a secret text. */
void config_type_format(const struct config_key *key, const void *value, struct buf *out);

#endif
