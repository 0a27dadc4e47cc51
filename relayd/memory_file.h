/*
 * relayd/memory_file.h - a small table that outlives the daemon: lines of text in a file of the spool
 *
 * For what was learnt and can be learnt again. The file is replaced by rename, never changed, so whoever reads it finds
 * all of one state; a checksum tells one that a power cut left half written, and then the state before it, NAME.old,
 * counts. Nothing is synced: that would stop the loop, and what is lost is learnt again.
 */
#ifndef RELAYD_MEMORY_FILE_H
#define RELAYD_MEMORY_FILE_H

#include "base/err.h"
#include "base/slice.h"

/* A larger one is neither written nor read. */
#define MEMORY_FILE_MAX (8 * 1024 * 1024)

typedef void memory_file_line(void *ctx, struct slice line);

/* Calls back for each line, without its newline. 0, also when there is no file; ERR_CORRUPT: neither state is whole;
 * ERR_LIMIT, ERR_IO, ERR_PERMISSION. */
int memory_file_load(int dir_fd, const char *name, memory_file_line *on_line, void *ctx, struct err *err);
/* `lines`: all of the new state, each line with its newline. Blocks for as long as the page cache takes. On an error
 * the old state stays. */
int memory_file_save(int dir_fd, const char *name, struct slice lines, struct err *err);

#endif
