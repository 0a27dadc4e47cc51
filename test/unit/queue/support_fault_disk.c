/* The operations: which of them go wrong, and when those end that are not done at once. */
#include "support_fault_internal.h"

#include "base/base.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AREA_FD 1000000

static struct fault_disk *of(struct disk *disk)
{
	return CONTAINER_OF(disk, struct fault_disk, disk);
}

const char *fault_kind_name(enum fault_kind kind)
{
	static const char *const names[] = {"none", "EIO", "ENOSPC", "short write", "helper died", "kill", "power cut"};
	return names[kind];
}

/* Counts an operation that changes something; tells how it shall go. */
static enum fault_kind begin_op(struct fault_disk *disk)
{
	enum fault_kind kind = FAULT_NONE;

	if (disk->is_dead)
		return FAULT_KILL;
	disk->ops++;
	if (disk->planned_at > 0 && disk->ops >= disk->planned_at && disk->ops < disk->planned_until)
		kind = disk->planned;
	else if (disk->fault_at > 0 && disk->ops >= disk->fault_at && disk->ops < disk->fault_until)
		kind = disk->fault;
	if (kind == FAULT_KILL || kind == FAULT_POWER) {
		disk->is_dead = true;
		disk->died_by_power = kind == FAULT_POWER;
		disk->fault_at = disk->planned_at = 0;
	}
	return kind;
}

static int error_of(enum fault_kind kind)
{
	return kind == FAULT_ENOSPC || kind == FAULT_SHORT ? -ENOSPC : -EIO;
}

static int do_list(struct disk *d, enum disk_area area, disk_list_cb *cb, void *ctx)
{
	struct fault_disk *disk = of(d);

	for (uint32_t i = 0; i < disk->cached_count[area]; i++) {
		int rc = cb(ctx, disk->cached[area][i].name);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int do_open(struct disk *d, enum disk_area area, const char *name, int *fd, uint64_t *size)
{
	struct fault_disk *disk = of(d);
	struct fault_entry *entry = fault_find(disk, area, name);

	if (!entry)
		return -ENOENT;
	BUG_ON(entry->file->fd >= 0);
	*fd = entry->file->fd = disk->next_fd++;
	*size = entry->file->cached_size;
	return 0;
}

static int make_file(struct fault_disk *disk, enum disk_area area, const char *name, uint64_t size, int *fd)
{
	struct fault_entry entry = {.file = NULL};

	if (fault_find(disk, area, name))
		return -EEXIST;
	if (fault_disk_used(disk) + size > disk->capacity)
		return -ENOSPC;
	entry.file = fault_file_new(disk);
	snprintf(entry.name, sizeof(entry.name), "%s", name);
	fault_change_directory(disk, area, false, entry);
	if (size > 0)
		fault_file_set_size(entry.file, size);
	if (disk->recycles && disk->grave && size > 0)
		fault_file_put(entry.file, disk->grave, MIN(size, disk->grave_bytes), 0);
	*fd = entry.file->fd = disk->next_fd++;
	return 0;
}

static int do_create(struct disk *d, enum disk_area area, const char *name, uint64_t size, int *fd)
{
	struct fault_disk *disk = of(d);
	enum fault_kind kind = begin_op(disk);
	int made;

	if (kind == FAULT_NONE)
		return make_file(disk, area, name, size, fd);
	if (fault_roll(disk, 2) == 0 && make_file(disk, area, name, size, &made) == 0)
		fault_file_by_fd(disk, made)->fd = -1;
	return error_of(kind);
}

static int unlink_name(struct fault_disk *disk, enum disk_area area, const char *name)
{
	struct fault_entry *entry = fault_find(disk, area, name);
	struct fault_entry copy;

	if (!entry)
		return -ENOENT;
	copy = *entry;
	if (area == DISK_JOURNAL && copy.file->cached_size > 0)
		fault_bury(disk, copy.file);
	fault_change_directory(disk, area, true, copy);
	return 0;
}

static int do_unlink(struct disk *d, enum disk_area area, const char *name)
{
	struct fault_disk *disk = of(d);
	enum fault_kind kind = begin_op(disk);
	int rc;

	if (kind != FAULT_NONE)
		return error_of(kind);
	rc = unlink_name(disk, area, name);
	fault_collect(disk);
	return rc;
}

static ssize_t do_read(struct disk *d, int fd, void *out, size_t len, uint64_t offset)
{
	struct fault_file *file = fault_file_by_fd(of(d), fd);
	uint64_t n;

	BUG_ON(!file);
	if (of(d)->is_dead)
		return -EIO;
	if (of(d)->good_reads > 0) {
		of(d)->good_reads--;
	} else if (of(d)->bad_reads > 0) {
		of(d)->bad_reads--;
		return -EIO;
	}
	n = offset < file->cached_size ? MIN(len, file->cached_size - offset) : 0;
	if (n > 0)
		memcpy(out, file->cached + offset, n);
	return (ssize_t)n;
}

static int do_write(struct disk *d, int fd, const void *bytes, size_t len, uint64_t offset)
{
	struct fault_disk *disk = of(d);
	bool was_dead = disk->is_dead;
	enum fault_kind kind = begin_op(disk);
	struct fault_file *file = fault_file_by_fd(disk, fd);
	uint64_t grows;

	BUG_ON(!file);
	if (was_dead)
		return -EIO;
	grows = offset + len > file->cached_size ? offset + len - file->cached_size : 0;
	if (kind == FAULT_NONE && fault_disk_used(disk) + grows > disk->capacity)
		kind = FAULT_SHORT;
	if (kind == FAULT_NONE) {
		fault_file_put(file, bytes, len, offset);
		return 0;
	}
	fault_file_put(file, bytes, kind == FAULT_ENOSPC ? 0 : fault_roll(disk, len + 1), offset);
	return error_of(kind);
}

static int do_truncate(struct disk *d, int fd, uint64_t size)
{
	struct fault_disk *disk = of(d);
	enum fault_kind kind = begin_op(disk);

	if (kind != FAULT_NONE)
		return error_of(kind);
	fault_file_set_size(fault_file_by_fd(disk, fd), size);
	return 0;
}

static void do_close(struct disk *d, int fd)
{
	struct fault_file *file = fault_file_by_fd(of(d), fd);

	BUG_ON(!file);
	file->fd = -1;
	fault_collect(of(d));
}

static int do_free_bytes(struct disk *d, uint64_t *bytes)
{
	uint64_t used = fault_disk_used(of(d));

	*bytes = used < of(d)->capacity ? of(d)->capacity - used : 0;
	return 0;
}

/* A sync that fails: the pages count as clean from now on, whatever became of them. */
static void sync_fails(struct fault_disk *disk, struct fault_file *file, uint32_t covered)
{
	fault_file_decide(disk, file, MIN(covered, file->pending_count), (enum mood)(1 + fault_roll(disk, 2)));
}

static int sync_file(struct fault_disk *disk, struct fault_file *file, uint32_t covered)
{
	bool was_dead = disk->is_dead;
	enum fault_kind kind = begin_op(disk);

	if (was_dead)
		return -EIO;
	switch (kind) {
	case FAULT_NONE: fault_file_flush(file, covered); return 0;
	case FAULT_DIED:
		if (fault_roll(disk, 3) == 0)
			fault_file_flush(file, covered);
		else if (fault_roll(disk, 2) == 0)
			sync_fails(disk, file, covered);
		return DISK_HELPER_DIED;
	case FAULT_KILL:
	case FAULT_POWER: return -EIO; /* what was not flushed yet is pending, and decided by the cut */
	default: sync_fails(disk, file, covered); return error_of(kind);
	}
}

static int do_sync_now(struct disk *d, int fd)
{
	struct fault_file *file = fault_file_by_fd(of(d), fd);

	BUG_ON(!file);
	return sync_file(of(d), file, file->pending_count);
}

static int sync_directory(struct fault_disk *disk, enum disk_area area)
{
	enum fault_kind kind = begin_op(disk);

	if (kind == FAULT_NONE) {
		fault_decide_directory(disk, area, MOOD_KEEP);
		fault_collect(disk);
		return 0;
	}
	return kind == FAULT_DIED ? DISK_HELPER_DIED : error_of(kind);
}

static int do_sync_dir(struct disk *d, enum disk_area area)
{
	return sync_directory(of(d), area);
}

static void add_async(struct fault_disk *disk, struct fault_async async)
{
	disk->async = xreallocarray(disk->async, disk->async_count + 1, sizeof(disk->async[0]));
	disk->async[disk->async_count++] = async;
}

static void do_sync(struct disk *d, int fd, uint64_t token)
{
	struct fault_disk *disk = of(d);
	struct fault_file *file = fd >= AREA_FD ? NULL : fault_file_by_fd(disk, fd);

	BUG_ON(fd < AREA_FD && !file);
	add_async(disk, (struct fault_async){.token = token, .fd = fd, .covered = file ? file->pending_count : 0});
}

static int do_area_fd(struct disk *d, enum disk_area area)
{
	(void)d;
	return AREA_FD + (int)area;
}

static void do_prepare(struct disk *d, const char *name, uint64_t size, uint64_t token)
{
	struct fault_async async = {.is_prepare = true, .token = token, .size = size};

	snprintf(async.name, sizeof(async.name), "%s", name);
	add_async(of(d), async);
}

static void do_discard(struct disk *d, const char *name, int fd)
{
	struct fault_disk *disk = of(d);

	if (begin_op(disk) == FAULT_NONE)
		unlink_name(disk, DISK_JOURNAL, name);
	if (fd >= 0)
		do_close(d, fd);
	fault_collect(disk);
}

static bool do_next_done(struct disk *d, struct disk_done *done)
{
	struct fault_disk *disk = of(d);

	if (disk->done_count == 0 || disk->is_dead)
		return false;
	*done = disk->done[0];
	disk->done_count--;
	memmove(disk->done, disk->done + 1, disk->done_count * sizeof(disk->done[0]));
	return true;
}

/* ---- The end of what is asynchronous ---- */

static int finish_prepare(struct fault_disk *disk, const struct fault_async *async, int *fd)
{
	enum fault_kind kind = begin_op(disk);
	int rc = make_file(disk, DISK_JOURNAL, async->name, async->size, fd);
	struct fault_file *file;

	if (rc < 0)
		return rc;
	file = fault_file_by_fd(disk, *fd);
	if (kind == FAULT_NONE) {
		fault_file_flush(file, file->pending_count);
		fault_decide_directory(disk, DISK_JOURNAL, MOOD_KEEP);
		return 0;
	}
	file->fd = -1;
	*fd = -1;
	if (fault_roll(disk, 2) == 0)
		unlink_name(disk, DISK_JOURNAL, async->name);
	return kind == FAULT_DIED ? DISK_HELPER_DIED : error_of(kind);
}

static int finish_sync(struct fault_disk *disk, const struct fault_async *async)
{
	int rc;

	if (async->fd >= AREA_FD)
		return sync_directory(disk, (enum disk_area)(async->fd - AREA_FD));
	if (!fault_file_by_fd(disk, async->fd))
		return -EIO; /* closed meanwhile: only a broken rule does that */
	rc = sync_file(disk, fault_file_by_fd(disk, async->fd), async->covered);
	disk->syncs_ok += rc == 0;
	return rc;
}

bool fault_disk_finish(struct fault_disk *disk)
{
	struct fault_async async;
	struct disk_done done = {.fd = -1};

	if (disk->async_count == 0 || disk->is_dead)
		return false;
	async = disk->async[0];
	disk->async_count--;
	memmove(disk->async, disk->async + 1, disk->async_count * sizeof(disk->async[0]));
	done.token = async.token;
	done.result = async.is_prepare ? finish_prepare(disk, &async, &done.fd) : finish_sync(disk, &async);
	fault_collect(disk);
	if (disk->is_dead)
		return false;
	disk->done = xreallocarray(disk->done, disk->done_count + 1, sizeof(disk->done[0]));
	disk->done[disk->done_count++] = done;
	return true;
}

/* ---- The outside ---- */

static const struct disk operations = {
    .overwrites_in_place = true,
    .list = do_list,
    .open = do_open,
    .create = do_create,
    .unlink = do_unlink,
    .read = do_read,
    .write = do_write,
    .truncate = do_truncate,
    .close = do_close,
    .free_bytes = do_free_bytes,
    .sync_now = do_sync_now,
    .sync_dir = do_sync_dir,
    .sync = do_sync,
    .area_fd = do_area_fd,
    .prepare = do_prepare,
    .discard = do_discard,
    .next_done = do_next_done,
};

void fault_disk_init(struct fault_disk *disk, uint64_t capacity, uint64_t seed)
{
	/* Disks come and go by the hundred thousand. Memory that was one is kept for the next: to give it back to the
	 * system each time, and to take it again, cost these tests two thirds of their time. */
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	*disk = (struct fault_disk){.disk = operations, .capacity = capacity, .next_fd = 3};
	rng_seeded_init(&disk->rng, seed);
}

void fault_disk_arm(struct fault_disk *disk, uint64_t after, uint64_t count, enum fault_kind kind)
{
	disk->fault = kind;
	disk->fault_at = disk->ops + after;
	disk->fault_until = disk->fault_at + count;
}

void fault_disk_plan(struct fault_disk *disk, uint64_t at, uint64_t count, enum fault_kind kind)
{
	disk->planned = kind;
	disk->planned_at = at;
	disk->planned_until = at + count;
}
