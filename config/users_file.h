/*
 * config/users_file.h - the users file as bytes
 *
 * Private to config/. The changing functions are in config/users.h.
 */
#ifndef CONFIG_USERS_FILE_H
#define CONFIG_USERS_FILE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

/* Appends the whole of a regular file. ERR_NOT_FOUND, ERR_PERMISSION, ERR_IO, ERR_CONFIG, ERR_LIMIT, with words to which
 * the caller adds the path. */
int users_file_read(const char *path, struct buf *text, struct err *err);
bool users_name_is_valid(struct slice name);

#endif
