/*
 * The rooms of support_fault_disk: the operations (support_fault_disk.c), and below them what they change, files and
 * directories that stand in the cache and on the platter (support_fault_platter.c).
 */
#ifndef TEST_QUEUE_SUPPORT_FAULT_INTERNAL_H
#define TEST_QUEUE_SUPPORT_FAULT_INTERNAL_H

#include "support_fault_disk.h"

#define NAME_MAX_BYTES 96

struct pending {
	bool is_size; /* a new length, else a write */
	uint64_t offset, len;
	char *bytes;
};

struct fault_file {
	char *cached, *durable;
	uint64_t cached_size, durable_size;
	struct pending *pending;
	uint32_t pending_count;
	uint32_t entries; /* in the directories, of whichever kind */
	int fd;		  /* -1: not open; each file is opened at most once */
};

struct fault_entry {
	char name[NAME_MAX_BYTES];
	struct fault_file *file;
};

struct fault_pending_entry {
	enum disk_area area;
	bool is_unlink;
	struct fault_entry entry;
};

struct fault_async {
	bool is_prepare;
	uint64_t token;
	int fd;
	uint32_t covered; /* so many pending changes were made before it began */
	char name[NAME_MAX_BYTES];
	uint64_t size;
};

/* How badly a cut treats what is pending. */
enum mood { MOOD_KEEP, MOOD_DROP, MOOD_MIX };

/* The dice: below `bound`. */
uint64_t fault_roll(struct fault_disk *disk, uint64_t bound);

struct fault_file *fault_file_new(struct fault_disk *disk);
/* NULL: no file is open under that number. */
struct fault_file *fault_file_by_fd(struct fault_disk *disk, int fd);
/* In the cache; what reaches the platter is decided later. */
void fault_file_set_size(struct fault_file *file, uint64_t size);
void fault_file_put(struct fault_file *file, const void *bytes, uint64_t len, uint64_t offset);
/* The first `count` pending changes reach the platter, or only those that `mood` lets through. */
void fault_file_flush(struct fault_file *file, uint32_t count);
void fault_file_decide(struct fault_disk *disk, struct fault_file *file, uint32_t count, enum mood mood);
/* Keeps what an unlinked file held: a garbled block, or a new file, may show it again. */
void fault_bury(struct fault_disk *disk, const struct fault_file *file);

/* In the cache; NULL: no such name. */
struct fault_entry *fault_find(struct fault_disk *disk, enum disk_area area, const char *name);
void fault_change_directory(struct fault_disk *disk, enum disk_area area, bool is_unlink, struct fault_entry entry);
/* Applies the pending changes of one area (or, with DISK_AREA_COUNT, all) by `mood`. */
void fault_decide_directory(struct fault_disk *disk, enum disk_area area, enum mood mood);
/* Frees inodes that no directory names and nobody has open. */
void fault_collect(struct fault_disk *disk);

#endif
