/*
 * queue/fifo.h - small records, first in first out, that survive a crash
 *
 * For what must be told and has no message of its own: the events of the webhook. Simpler than the journal because what
 * leaves is always the oldest: nothing is compacted, a file that has been read to its end is unlinked.
 *
 * FILES    In the journal's area of a disk of its own: "NUMBER.fifo" of `file_bytes`, allocated when made, numbers in
 *          hex and never used again. The first block of 4 KiB is the header (version, number, nonce); then come the
 *          records, each with the header and the checksums of queue/record.h, seeded with nonce and offset. What was
 *          appended in a turn begins on a new block, so that no write ever touches one that is synced; after a restart
 *          a new file is begun.
 * SYNC     Records are written at the end of the turn, and synced one sync after the other by the disk's helper; the
 *          first sync of a file is preceded by one of the directory. A callback says when a record is on stable
 *          storage. What is only written survives the death of the process, and a power cut mostly. At the end of a
 *          file the next records wait in memory until all of it is synced.
 * FAULTS   A file that cannot be written or synced is left as it is and never touched again; what was not synced goes
 *          to a new one. If that fails too, the records are lost and their callbacks say ERR_IO; the next are tried
 *          anew.
 * READING  What is synced, in order, from a place that "position" remembers: two blocks written in turn and never
 *          synced, so that after a power cut some records may come again. At least once, then, and in order.
 *          Damaged records are told, the file is copied to the quarantine, and reading goes on behind them. What
 *          cannot be read for want of descriptors or memory waits.
 * BOUNDS   `max_bytes` of files; the last eighth of it only takes records that are important. Four files in memory.
 *
 * Callbacks come out of fifo_turn() and fifo_on_disk_done(); from them everything may be called but these two and
 * fifo_free().
 */
#ifndef QUEUE_FIFO_H
#define QUEUE_FIFO_H

#include "base/buf.h"
#include "base/err.h"
#include "base/random.h"
#include "queue/disk.h"

#define FIFO_RECORD_MAX (64 * 1024)
/* The bit of all its tokens, so that one helper can serve the journal and others. */
#define FIFO_TOKEN (UINT64_C(1) << 62)

struct fifo;

struct fifo_options {
	struct disk *disk;   /* its own; borrowed, outlives the FIFO */
	struct rng *rng;     /* borrowed */
	uint64_t file_bytes; /* a multiple of 4,096, at least 128 KiB; 0: 1 MiB */
	uint64_t max_bytes;  /* at least four files */
	void *ctx;
	/* May be NULL. Stored bytes are damaged; a line for people. From fifo_open() and fifo_read(). */
	void (*on_corruption)(void *ctx, const char *text);
};

/* Blocks for a directory and a few small reads. NULL: `err` says why. Options are copied. */
struct fifo *fifo_open(const struct fifo_options *options, struct err *err);
/* What is not synced may be lost; callbacks never come any more. Accepts NULL, sets NULL. */
void fifo_free(struct fifo **fifo);

typedef void fifo_cb(void *ctx, enum err_code result);

/* Copied, 1 to FIFO_RECORD_MAX octets. `stamp` is given back with it. 0, and `cb` (may be NULL) comes once; ERR_LIMIT:
 * full, or the record is too long, and it never comes. */
int fifo_append(struct fifo *fifo, struct slice record, uint64_t stamp, bool is_important, fifo_cb *cb, void *ctx);
/* Callbacks with this context never come; the records stay. */
void fifo_forget(struct fifo *fifo, const void *ctx);

/* At the end of each turn of the loop: writes, and begins a sync when none runs. */
void fifo_turn(struct fifo *fifo);
void fifo_on_disk_done(struct fifo *fifo, const struct disk_done *done);
/* All that was appended is on stable storage. */
bool fifo_is_synced(const struct fifo *fifo);

struct fifo_item {
	struct slice record; /* in the buffer that was handed in */
	uint64_t stamp;
	uint64_t number, end; /* private: the place behind it */
};

/* The oldest records, at most `max`, until `bytes` has no room for the largest (at least one if there is any; its
 * ceiling is more than FIFO_RECORD_MAX). It is emptied and filled. The same ones come again until they are dropped. */
size_t fifo_read(struct fifo *fifo, struct fifo_item *items, size_t max, struct buf *bytes);
/* This one and all before it are done. */
void fifo_drop(struct fifo *fifo, const struct fifo_item *item);
/* Bytes of files in use; for people. */
uint64_t fifo_bytes(const struct fifo *fifo);
/* Records that the disk did not take, since it was opened. */
uint64_t fifo_lost_count(const struct fifo *fifo);

#endif
