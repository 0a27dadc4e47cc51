/*
 * relayd/memo.h - small files in SPOOL that are worth reading again after a restart: pauses, quotas, what was learnt
 *
 * Not for mail: that is the journal's. A memo is one JSON document, replaced whole: written beside the old one, synced
 * by the sync helper, then renamed over it, so there is always an old or a new one. The loop never waits for the disk.
 * What is lost in a crash is what changed since the last write; an unreadable memo counts as none, and is said.
 */
#ifndef RELAYD_MEMO_H
#define RELAYD_MEMO_H

#include "base/log.h"
#include "queue/disk.h"
#include "relayd/loop.h"

#include <jansson.h>

struct memos;
struct memo;

enum { MEMO_MAX_BYTES = 1024 * 1024 };

struct memos_options {
	struct loop *loop;
	struct log *log;
	int spool_fd;			/* borrowed */
	const struct disk_async *async; /* whose sync is asked for; NULL: it is done at once, and blocks */
};

/* Options are copied. */
struct memos *memos_new(const struct memos_options *options);
/* Writes what is not written yet, and waits for the disk. Accepts NULL, sets NULL. */
void memos_free(struct memos **memos);
/* The helper's answer, if it is one of ours: false, it is somebody else's. */
bool memos_on_disk_done(struct memos *memos, const struct disk_done *done);

/* `name`: of the file in SPOOL, static. `save` makes the document to be written (the memo takes the reference). Lives
 * as long as the memos. */
struct memo *memo_new(struct memos *memos, const char *name, json_t *(*save)(void *ctx), void *ctx);
/* What stands in the file; a new reference. NULL: there is none, or it is unreadable. Blocks: at start alone. */
json_t *memo_read(struct memo *memo);
/* It has changed: is written within so many milliseconds. */
void memo_changed(struct memo *memo, int64_t within_ms);

#endif
