/*
 * A disk in memory that does to unsynced data whatever a real one may: the enemy of the journal.
 *
 * What was written stands in the cache at once, and on the platter only after a sync that succeeded. A kill keeps the
 * cache; a power cut decides for each block of each unsynced write whether it was kept, dropped, torn at any octet, or
 * garbled as a whole (with noise, or with what a deleted file once had there), and for each unsynced change of a file's
 * length or of a directory whether it happened. A failed sync decides the same, then and there, while the cache goes on
 * showing the new bytes and the next sync of that file succeeds: that is what Linux does.
 *
 * Syncs and preparations end only when fault_disk_finish() is called, so everything overlaps as it may in life.
 */
#ifndef TEST_QUEUE_SUPPORT_FAULT_DISK_H
#define TEST_QUEUE_SUPPORT_FAULT_DISK_H

#include "base/random.h"
#include "queue/disk.h"

enum fault_kind {
	FAULT_NONE,
	FAULT_EIO,
	FAULT_ENOSPC,
	FAULT_SHORT, /* half a write, then ENOSPC; other operations: EIO */
	FAULT_DIED,  /* the helper dies during a sync or a preparation; other operations: EIO */
	FAULT_KILL,  /* the process dies in the middle of the operation */
	FAULT_POWER, /* so does the machine */
	FAULT_KIND_COUNT,
};
const char *fault_kind_name(enum fault_kind kind);

struct fault_file;
struct fault_entry;
struct fault_pending_entry;
struct fault_async;

struct fault_disk {
	struct disk disk; /* first */
	struct rng_seeded rng;
	uint64_t capacity; /* bytes */

	uint64_t ops;	   /* operations that change something, so far */
	uint64_t fault_at; /* the operation that fails, 0: none */
	uint64_t fault_until;
	enum fault_kind fault;
	uint64_t planned_at, planned_until; /* the same once more, by number of operation; crashes do not disarm it */
	enum fault_kind planned;
	bool is_dead; /* between the fault and fault_disk_crash(): nothing that is asked for happens */
	bool died_by_power;
	uint32_t good_reads, bad_reads; /* so many reads to come succeed, then so many fail */
	uint64_t syncs_ok;		/* of segments */
	bool recycles;			/* freed files come back as prepared ones, with their old bytes */

	struct fault_file **files; /* all inodes */
	uint32_t file_count;
	struct fault_entry *cached[DISK_AREA_COUNT], *durable[DISK_AREA_COUNT];
	uint32_t cached_count[DISK_AREA_COUNT], durable_count[DISK_AREA_COUNT];
	struct fault_pending_entry *pending;
	uint32_t pending_count;
	struct fault_async *async;
	uint32_t async_count;
	struct disk_done *done;
	uint32_t done_count;
	int next_fd;
	char *grave; /* the last bytes of a deleted file */
	uint64_t grave_bytes;
};

void fault_disk_init(struct fault_disk *disk, uint64_t capacity, uint64_t seed);
void fault_disk_fini(struct fault_disk *disk);
/* The `after`-th operation from now fails (1: the next), and all up to `count` operations later. */
void fault_disk_arm(struct fault_disk *disk, uint64_t after, uint64_t count, enum fault_kind kind);
/* Operation number `at`, counted from the beginning of the disk. */
void fault_disk_plan(struct fault_disk *disk, uint64_t at, uint64_t count, enum fault_kind kind);
/* Ends the oldest asynchronous operation; false: none runs. Its end is reported by next_done. */
bool fault_disk_finish(struct fault_disk *disk);
/* All descriptors and asynchronous operations are gone; with `power` what is not synced is decided. Alive again. */
void fault_disk_crash(struct fault_disk *disk, bool power, uint64_t seed);
/* Flips `count` bits in octets from .. to of a file, on the platter and in the cache. */
void fault_disk_rot(struct fault_disk *disk, enum disk_area area, const char *name, uint64_t from, uint64_t to,
		    uint32_t count);
/* The file's bytes as the cache has them; NULL: there is no such file. */
char *fault_disk_bytes(struct fault_disk *disk, enum disk_area area, const char *name, uint64_t *size);
/* Of the entry `number` below cached_count. */
const char *fault_disk_name(const struct fault_disk *disk, enum disk_area area, uint32_t number);
uint64_t fault_disk_used(const struct fault_disk *disk);
/* A copy of all that is on it, durable and cached alike; nothing open, no fault armed. */
void fault_disk_copy(struct fault_disk *to, const struct fault_disk *from);
/* What was not synced counts as synced: the calm after a test's preparations. */
void fault_disk_settle(struct fault_disk *disk);

#endif
