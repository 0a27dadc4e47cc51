/*
 * relayd/changes.h - have the files behind the configuration, or others, changed?
 *
 * Looks at size, inode and times, never at the content, so it costs one stat() a file. A change counts once two looks
 * in a row have seen the same: a file that is being written is left alone.
 */
#ifndef RELAYD_CHANGES_H
#define RELAYD_CHANGES_H

#include "config/config.h"

#include <stdbool.h>

struct changes;

/* Remembers how these files are now. Borrows their names. */
struct changes *changes_new(const struct config_texts *files);
void changes_free(struct changes **changes);
/* True: something is different from the beginning, and has settled. */
bool changes_look(struct changes *changes);

#endif
