/*
 * queue/disk.h - all disk access of the queue, as an interface
 *
 * A spool has two flat directories: the journal's segments and the quarantine. A file is named by area and name, and
 * once open by a descriptor (or whatever number an implementation uses for one). All functions return 0 (or what they
 * say) or a negative errno. Plain reads and writes are called directly: they meet the page cache. What may block for
 * long is asynchronous: it is only begun here, and its end is reported as a `struct disk_done`, never from inside the
 * call that began it.
 *
 * Three implementations: the real disk with the daemon's sync helper (struct disk_async), the real disk that does all
 * of it inline (async NULL: helpers 0, tools, benchmarks), and the tests' disk, which tears, loses and garbles what is
 * not synced, fills up, and fails once or for ever.
 */
#ifndef QUEUE_DISK_H
#define QUEUE_DISK_H

#include "base/err.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum disk_area { DISK_JOURNAL, DISK_QUARANTINE, DISK_AREA_COUNT };

/* The result of a sync or a preparation whose helper died: nobody knows what reached the disk. */
#define DISK_HELPER_DIED (-EOWNERDEAD)

/* The end of an asynchronous operation. */
struct disk_done {
	uint64_t token;	      /* as given when it was begun */
	int result;	      /* 0 or a negative errno */
	int fd;		      /* prepare: the new file, open for reading and writing; else -1 */
	uint32_t duration_us; /* how long the disk took */
};

/* `name` is borrowed. A value other than 0 ends the listing and is returned. */
typedef int disk_list_cb(void *ctx, const char *name);

struct disk {
	/* A block that is written a second time stays where it is, so that a sync of it changes no metadata: ext4, XFS.
	 * False where a copy is written elsewhere (btrfs, ZFS), and where it is not known. */
	bool overwrites_in_place;

	/* Names of all entries except "." and "..", whatever they are, in any order. */
	int (*list)(struct disk *disk, enum disk_area area, disk_list_cb *cb, void *ctx);
	/* For reading and writing. -EINVAL: not a regular file; links are not followed. -EMLINK: it has a second name,
	 * under which it would change too (not of the one for looking only). */
	int (*open)(struct disk *disk, enum disk_area area, const char *name, int *fd, uint64_t *size);
	/* A new file of `size` allocated bytes that read as zero; -EEXIST when there is one. Not synced. Recovery and
	 * quarantine only. */
	int (*create)(struct disk *disk, enum disk_area area, const char *name, uint64_t size, int *fd);
	int (*unlink)(struct disk *disk, enum disk_area area, const char *name);
	/* How many bytes were read; fewer than asked for only at the end of the file. */
	ssize_t (*read)(struct disk *disk, int fd, void *out, size_t len, uint64_t offset);
	/* All of it, or an error with any part of it written. */
	int (*write)(struct disk *disk, int fd, const void *bytes, size_t len, uint64_t offset);
	int (*truncate)(struct disk *disk, int fd, uint64_t size);
	void (*close)(struct disk *disk, int fd);
	/* Bytes that this user can still allocate. */
	int (*free_bytes)(struct disk *disk, uint64_t *bytes);

	/* These two block; only recovery calls them, before there is anybody to serve. */
	int (*sync_now)(struct disk *disk, int fd);
	int (*sync_dir)(struct disk *disk, enum disk_area area);

	/* fdatasync, of a directory fsync; asynchronous. The file stays open until it has ended. */
	void (*sync)(struct disk *disk, int fd, uint64_t token);
	/* The directory itself, to be handed to `sync`. */
	int (*area_fd)(struct disk *disk, enum disk_area area);
	/* Creates and allocates a file of the journal, syncs it and its directory; asynchronous. */
	void (*prepare)(struct disk *disk, const char *name, uint64_t size, uint64_t token);
	/* Unlinks a file of the journal and takes over and closes its descriptor (-1: none), in the background.
	 * Freeing 64 MiB of page cache can take milliseconds. Its end is not reported. */
	void (*discard)(struct disk *disk, const char *name, int fd);
	/* The next end that this implementation holds itself; false: none. The queue asks at each turn. With a helper,
	 * the daemon hands ends to queue_on_disk_done() instead. */
	bool (*next_done)(struct disk *disk, struct disk_done *done);
};

/* How the daemon's helper does the asynchronous part. Each call posts a request and returns at once; `sync` passes a
 * duplicate of the descriptor; `discard` passes it and closes ours; names are copied. All borrowed, outlive the disk.
 */
struct disk_async {
	void *ctx;
	void (*sync)(void *ctx, int fd, uint64_t token);
	void (*prepare)(void *ctx, const char *name, uint64_t size, uint64_t token);
	void (*discard)(void *ctx, const char *name, int fd);
};

/* The real one. Opens (and creates, 0700) journal/ and quarantine/ below `spool_fd`, which is borrowed for the call
 * alone. `async` NULL: inline. */
struct disk *disk_real_new(int spool_fd, const struct disk_async *async, struct err *err);
/* For looking only: creates and changes nothing; writes fail with -EBADF. The quarantine may be missing. */
struct disk *disk_real_new_readonly(int spool_fd, struct err *err);
void disk_real_free(struct disk **disk);
/* For a helper: the directory of the journal; owned by the disk. */
int disk_real_journal_fd(const struct disk *disk);
/* Opens the journal's directory below the spool, for a helper that has no disk. A descriptor, or an error. */
int disk_open_journal_dir(int spool_fd, struct err *err);

/* What a helper runs; blocking; 0 or a negative errno. */
int disk_do_sync(int fd);
int disk_do_prepare(int journal_fd, const char *name, uint64_t size, int *fd);
void disk_do_discard(int journal_fd, const char *name, int fd);

#endif
