/*
 * config/secret.h - passwords, tokens and keys: where they are, and reading them at the moment of use
 */
#ifndef CONFIG_SECRET_H
#define CONFIG_SECRET_H

#include "base/err.h"
#include "base/slice.h"

#include <stdbool.h>

#define CONFIG_SECRET_MAX_BYTES (64 * 1024)

/* At most one of the two is set. Belongs to the struct that holds it. */
struct config_secret {
	const char *file;  /* read again at each use, so that a changed file counts */
	const char *value; /* from the environment; never shown */
};

static inline bool config_secret_is_set(const struct config_secret *secret)
{
	return secret->file || secret->value;
}

/*
 * The text of a regular file: at most CONFIG_SECRET_MAX_BYTES, one final newline (LF or CRLF) dropped, not empty, no
 * NUL. *text is NUL-terminated, the caller's, and wants config_secret_wipe(). ERR_NOT_FOUND, ERR_PERMISSION, ERR_IO,
 * ERR_LIMIT, ERR_CONFIG, with words that name the file.
 */
int config_read_secret(const char *path, char **text, struct err *err);
/* The same for either kind. Not set: ERR_NOT_FOUND. */
int config_secret_read(const struct config_secret *secret, char **text, struct err *err);
/* Overwrites, frees, sets *text to NULL; accepts NULL. */
void config_secret_wipe(char **text);

#endif
