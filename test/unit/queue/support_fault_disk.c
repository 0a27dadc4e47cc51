#include "support_fault_disk.h"

#include "base/base.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 4096
#define NAME_MAX_BYTES 96
#define AREA_FD 1000000

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

static struct fault_disk *of(struct disk *disk)
{
	return CONTAINER_OF(disk, struct fault_disk, disk);
}

const char *fault_kind_name(enum fault_kind kind)
{
	static const char *const names[] = {"none", "EIO", "ENOSPC", "short write", "helper died", "kill", "power cut"};
	return names[kind];
}

static uint64_t roll(struct fault_disk *disk, uint64_t bound)
{
	return rng_below(&disk->rng.rng, bound);
}

/* ---- Files ---- */

static void resize(char **bytes, uint64_t *size, uint64_t to)
{
	*bytes = xrealloc(*bytes, to ? to : 1);
	if (to > *size)
		memset(*bytes + *size, 0, to - *size);
	*size = to;
}

static struct fault_file *file_new(struct fault_disk *disk)
{
	struct fault_file *file = xcalloc(1, sizeof(*file));

	file->fd = -1;
	disk->files = xreallocarray(disk->files, disk->file_count + 1, sizeof(disk->files[0]));
	disk->files[disk->file_count++] = file;
	return file;
}

static void file_free(struct fault_file *file)
{
	for (uint32_t i = 0; i < file->pending_count; i++)
		free(file->pending[i].bytes);
	free(file->pending);
	free(file->cached);
	free(file->durable);
	free(file);
}

/* Inodes that no directory names and nobody has open. */
static void collect(struct fault_disk *disk)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < disk->file_count; i++) {
		struct fault_file *file = disk->files[i];
		if (file->entries > 0 || file->fd >= 0)
			disk->files[kept++] = file;
		else
			file_free(file);
	}
	disk->file_count = kept;
}

static struct fault_file *by_fd(struct fault_disk *disk, int fd)
{
	for (uint32_t i = 0; i < disk->file_count; i++)
		if (disk->files[i]->fd == fd)
			return disk->files[i];
	return NULL;
}

static void add_pending(struct fault_file *file, struct pending pending)
{
	file->pending = xreallocarray(file->pending, file->pending_count + 1, sizeof(file->pending[0]));
	file->pending[file->pending_count++] = pending;
}

static void set_size(struct fault_file *file, uint64_t size)
{
	resize(&file->cached, &file->cached_size, size);
	add_pending(file, (struct pending){.is_size = true, .len = size});
}

static void put(struct fault_file *file, const void *bytes, uint64_t len, uint64_t offset)
{
	if (len == 0)
		return;
	if (offset + len > file->cached_size)
		resize(&file->cached, &file->cached_size, offset + len);
	memcpy(file->cached + offset, bytes, len);
	add_pending(file, (struct pending){.offset = offset, .len = len, .bytes = xmemdup(bytes, len)});
}

static void drop_pending(struct fault_file *file, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		free(file->pending[i].bytes);
	file->pending_count -= count;
	if (count > 0)
		memmove(file->pending, file->pending + count, file->pending_count * sizeof(file->pending[0]));
}

static void make_durable(struct fault_file *file, uint64_t offset, const char *bytes, uint64_t len)
{
	if (offset + len > file->durable_size)
		resize(&file->durable, &file->durable_size, offset + len);
	if (len > 0)
		memcpy(file->durable + offset, bytes, len);
}

/* The first `count` pending changes reach the platter. */
static void flush_file(struct fault_file *file, uint32_t count)
{
	count = MIN(count, file->pending_count);
	for (uint32_t i = 0; i < count; i++) {
		struct pending *pending = &file->pending[i];
		if (pending->is_size)
			resize(&file->durable, &file->durable_size, pending->len);
		else
			make_durable(file, pending->offset, pending->bytes, pending->len);
	}
	drop_pending(file, count);
}

/* How badly a cut treats what is pending. */
enum mood { MOOD_KEEP, MOOD_DROP, MOOD_MIX };

static void garble_block(struct fault_disk *disk, struct fault_file *file, uint64_t block)
{
	uint64_t end = MIN(block + BLOCK, file->durable_size);
	bool stale = disk->grave && block + BLOCK <= disk->grave_bytes && roll(disk, 2) == 0;

	if (block >= end)
		return;
	if (stale)
		memcpy(file->durable + block, disk->grave + block, end - block);
	else
		disk->rng.rng.fill(&disk->rng.rng, file->durable + block, end - block);
}

static void decide_block(struct fault_disk *disk, struct fault_file *file, const struct pending *pending, uint64_t from,
			 uint64_t to, enum mood mood)
{
	const char *bytes = pending->bytes + (from - pending->offset);
	uint64_t fate = mood == MOOD_KEEP ? 0 : mood == MOOD_DROP ? 50 : roll(disk, 100);

	if (fate < 40)
		make_durable(file, from, bytes, to - from);
	else if (fate >= 70 && fate < 85)
		make_durable(file, from, bytes, roll(disk, to - from));
	else if (fate >= 85)
		garble_block(disk, file, from / BLOCK * BLOCK);
}

static void decide_pending(struct fault_disk *disk, struct fault_file *file, uint32_t count, enum mood mood)
{
	for (uint32_t i = 0; i < count; i++) {
		struct pending *pending = &file->pending[i];
		uint64_t end = pending->offset + pending->len;
		if (pending->is_size) {
			if (mood == MOOD_KEEP || (mood == MOOD_MIX && roll(disk, 2)))
				resize(&file->durable, &file->durable_size, pending->len);
			continue;
		}
		for (uint64_t at = pending->offset; at < end; at = (at / BLOCK + 1) * BLOCK)
			decide_block(disk, file, pending, at, MIN(end, (at / BLOCK + 1) * BLOCK), mood);
	}
	drop_pending(file, count);
}

/* ---- Directories ---- */

static struct fault_entry *find(struct fault_disk *disk, enum disk_area area, const char *name)
{
	for (uint32_t i = 0; i < disk->cached_count[area]; i++)
		if (strcmp(disk->cached[area][i].name, name) == 0)
			return &disk->cached[area][i];
	return NULL;
}

static void list_add(struct fault_entry **list, uint32_t *count, const struct fault_entry *entry)
{
	for (uint32_t i = 0; i < *count; i++)
		if (strcmp((*list)[i].name, entry->name) == 0)
			return;
	*list = xreallocarray(*list, *count + 1, sizeof(**list));
	(*list)[(*count)++] = *entry;
	entry->file->entries++;
}

static void list_remove_name(struct fault_entry *list, uint32_t *count, const char *name)
{
	for (uint32_t i = 0; i < *count; i++) {
		if (strcmp(list[i].name, name) != 0)
			continue;
		list[i].file->entries--;
		list[i] = list[--*count];
		return;
	}
}

static void list_clear(struct fault_entry *list, uint32_t *count)
{
	for (uint32_t i = 0; i < *count; i++)
		list[i].file->entries--;
	*count = 0;
}

static void change_directory(struct fault_disk *disk, enum disk_area area, bool is_unlink, struct fault_entry entry)
{
	struct fault_pending_entry pending = {area, is_unlink, entry};

	if (is_unlink)
		list_remove_name(disk->cached[area], &disk->cached_count[area], entry.name);
	else
		list_add(&disk->cached[area], &disk->cached_count[area], &entry);
	entry.file->entries++; /* the pending change names it too */
	disk->pending = xreallocarray(disk->pending, disk->pending_count + 1, sizeof(disk->pending[0]));
	disk->pending[disk->pending_count++] = pending;
}

static void apply_entry(struct fault_disk *disk, const struct fault_pending_entry *pending)
{
	enum disk_area area = pending->area;

	if (pending->is_unlink)
		list_remove_name(disk->durable[area], &disk->durable_count[area], pending->entry.name);
	else
		list_add(&disk->durable[area], &disk->durable_count[area], &pending->entry);
}

/* Applies the pending changes of one area (or, with DISK_AREA_COUNT, all) by `mood`. */
static void decide_directory(struct fault_disk *disk, enum disk_area area, enum mood mood)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < disk->pending_count; i++) {
		struct fault_pending_entry *pending = &disk->pending[i];
		if (area != DISK_AREA_COUNT && pending->area != area) {
			disk->pending[kept++] = *pending;
			continue;
		}
		if (mood == MOOD_KEEP || (mood == MOOD_MIX && roll(disk, 2)))
			apply_entry(disk, pending);
		pending->entry.file->entries--;
	}
	disk->pending_count = kept;
}

static void bury(struct fault_disk *disk, const struct fault_file *file)
{
	free(disk->grave);
	disk->grave = xmemdup(file->cached, file->cached_size);
	disk->grave_bytes = file->cached_size;
}

/* ---- Operations ---- */

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
	struct fault_entry *entry = find(disk, area, name);

	if (!entry)
		return -ENOENT;
	BUG_ON(entry->file->fd >= 0);
	*fd = entry->file->fd = disk->next_fd++;
	*size = entry->file->cached_size;
	return 0;
}

static bool has_name(const struct fault_disk *disk, const struct fault_file *file)
{
	for (int area = 0; area < DISK_AREA_COUNT; area++)
		for (uint32_t i = 0; i < disk->cached_count[area]; i++)
			if (disk->cached[area][i].file == file)
				return true;
	return false;
}

/* An unlinked file gives its room back at once, though a power cut may bring it back. */
uint64_t fault_disk_used(const struct fault_disk *disk)
{
	uint64_t used = 0;

	for (uint32_t i = 0; i < disk->file_count; i++)
		if (disk->files[i]->fd >= 0 || has_name(disk, disk->files[i]))
			used += disk->files[i]->cached_size;
	return used;
}

static int make_file(struct fault_disk *disk, enum disk_area area, const char *name, uint64_t size, int *fd)
{
	struct fault_entry entry = {.file = NULL};

	if (find(disk, area, name))
		return -EEXIST;
	if (fault_disk_used(disk) + size > disk->capacity)
		return -ENOSPC;
	entry.file = file_new(disk);
	snprintf(entry.name, sizeof(entry.name), "%s", name);
	change_directory(disk, area, false, entry);
	if (size > 0)
		set_size(entry.file, size);
	if (disk->recycles && disk->grave && size > 0)
		put(entry.file, disk->grave, MIN(size, disk->grave_bytes), 0);
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
	if (roll(disk, 2) == 0 && make_file(disk, area, name, size, &made) == 0)
		by_fd(disk, made)->fd = -1;
	return error_of(kind);
}

static int unlink_name(struct fault_disk *disk, enum disk_area area, const char *name)
{
	struct fault_entry *entry = find(disk, area, name);
	struct fault_entry copy;

	if (!entry)
		return -ENOENT;
	copy = *entry;
	if (area == DISK_JOURNAL && copy.file->cached_size > 0)
		bury(disk, copy.file);
	change_directory(disk, area, true, copy);
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
	collect(disk);
	return rc;
}

static ssize_t do_read(struct disk *d, int fd, void *out, size_t len, uint64_t offset)
{
	struct fault_file *file = by_fd(of(d), fd);
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
	struct fault_file *file = by_fd(disk, fd);
	uint64_t grows;

	BUG_ON(!file);
	if (was_dead)
		return -EIO;
	grows = offset + len > file->cached_size ? offset + len - file->cached_size : 0;
	if (kind == FAULT_NONE && fault_disk_used(disk) + grows > disk->capacity)
		kind = FAULT_SHORT;
	if (kind == FAULT_NONE) {
		put(file, bytes, len, offset);
		return 0;
	}
	put(file, bytes, kind == FAULT_ENOSPC ? 0 : roll(disk, len + 1), offset);
	return error_of(kind);
}

static int do_truncate(struct disk *d, int fd, uint64_t size)
{
	struct fault_disk *disk = of(d);
	enum fault_kind kind = begin_op(disk);

	if (kind != FAULT_NONE)
		return error_of(kind);
	set_size(by_fd(disk, fd), size);
	return 0;
}

static void do_close(struct disk *d, int fd)
{
	struct fault_file *file = by_fd(of(d), fd);

	BUG_ON(!file);
	file->fd = -1;
	collect(of(d));
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
	decide_pending(disk, file, MIN(covered, file->pending_count), (enum mood)(1 + roll(disk, 2)));
}

static int sync_file(struct fault_disk *disk, struct fault_file *file, uint32_t covered)
{
	bool was_dead = disk->is_dead;
	enum fault_kind kind = begin_op(disk);

	if (was_dead)
		return -EIO;
	switch (kind) {
	case FAULT_NONE: flush_file(file, covered); return 0;
	case FAULT_DIED:
		if (roll(disk, 3) == 0)
			flush_file(file, covered);
		else if (roll(disk, 2) == 0)
			sync_fails(disk, file, covered);
		return DISK_HELPER_DIED;
	case FAULT_KILL:
	case FAULT_POWER: return -EIO; /* what was not flushed yet is pending, and decided by the cut */
	default: sync_fails(disk, file, covered); return error_of(kind);
	}
}

static int do_sync_now(struct disk *d, int fd)
{
	struct fault_file *file = by_fd(of(d), fd);

	BUG_ON(!file);
	return sync_file(of(d), file, file->pending_count);
}

static int sync_directory(struct fault_disk *disk, enum disk_area area)
{
	enum fault_kind kind = begin_op(disk);

	if (kind == FAULT_NONE) {
		decide_directory(disk, area, MOOD_KEEP);
		collect(disk);
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
	struct fault_file *file = fd >= AREA_FD ? NULL : by_fd(disk, fd);

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
	collect(disk);
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
	file = by_fd(disk, *fd);
	if (kind == FAULT_NONE) {
		flush_file(file, file->pending_count);
		decide_directory(disk, DISK_JOURNAL, MOOD_KEEP);
		return 0;
	}
	file->fd = -1;
	*fd = -1;
	if (roll(disk, 2) == 0)
		unlink_name(disk, DISK_JOURNAL, async->name);
	return kind == FAULT_DIED ? DISK_HELPER_DIED : error_of(kind);
}

static int finish_sync(struct fault_disk *disk, const struct fault_async *async)
{
	int rc;

	if (async->fd >= AREA_FD)
		return sync_directory(disk, (enum disk_area)(async->fd - AREA_FD));
	if (!by_fd(disk, async->fd))
		return -EIO; /* closed meanwhile: only a broken rule does that */
	rc = sync_file(disk, by_fd(disk, async->fd), async->covered);
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
	collect(disk);
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

void fault_disk_fini(struct fault_disk *disk)
{
	for (uint32_t i = 0; i < disk->file_count; i++)
		file_free(disk->files[i]);
	for (int area = 0; area < DISK_AREA_COUNT; area++) {
		free(disk->cached[area]);
		free(disk->durable[area]);
	}
	free(disk->files);
	free(disk->pending);
	free(disk->async);
	free(disk->done);
	free(disk->grave);
	*disk = (struct fault_disk){0};
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

static void mirror_cache(struct fault_file *file)
{
	resize(&file->cached, &file->cached_size, 0);
	resize(&file->cached, &file->cached_size, file->durable_size);
	if (file->durable_size > 0)
		memcpy(file->cached, file->durable, file->durable_size);
}

static void mirror_directory(struct fault_disk *disk, enum disk_area area)
{
	list_clear(disk->cached[area], &disk->cached_count[area]);
	for (uint32_t i = 0; i < disk->durable_count[area]; i++)
		list_add(&disk->cached[area], &disk->cached_count[area], &disk->durable[area][i]);
}

void fault_disk_crash(struct fault_disk *disk, bool power, uint64_t seed)
{
	enum mood mood;

	for (uint32_t i = 0; i < disk->file_count; i++)
		disk->files[i]->fd = -1;
	disk->async_count = disk->done_count = 0;
	disk->is_dead = false;
	disk->fault_at = 0;
	if (power) {
		rng_seeded_init(&disk->rng, seed);
		mood = (enum mood)MIN(roll(disk, 8), (uint64_t)MOOD_MIX);
		decide_directory(disk, DISK_AREA_COUNT, mood);
		for (uint32_t i = 0; i < disk->file_count; i++) {
			decide_pending(disk, disk->files[i], disk->files[i]->pending_count, mood);
			mirror_cache(disk->files[i]);
		}
		for (int area = 0; area < DISK_AREA_COUNT; area++)
			mirror_directory(disk, (enum disk_area)area);
	}
	collect(disk);
}

void fault_disk_settle(struct fault_disk *disk)
{
	decide_directory(disk, DISK_AREA_COUNT, MOOD_KEEP);
	for (uint32_t i = 0; i < disk->file_count; i++)
		flush_file(disk->files[i], disk->files[i]->pending_count);
	collect(disk);
}

void fault_disk_rot(struct fault_disk *disk, enum disk_area area, const char *name, uint64_t from, uint64_t to,
		    uint32_t count)
{
	struct fault_entry *entry = find(disk, area, name);

	BUG_ON(!entry || from >= to || to > entry->file->cached_size);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t at = from + roll(disk, to - from);
		char bit = (char)(1 << roll(disk, 8));
		entry->file->cached[at] = (char)(entry->file->cached[at] ^ bit);
		if (at < entry->file->durable_size)
			entry->file->durable[at] = (char)(entry->file->durable[at] ^ bit);
	}
}

char *fault_disk_bytes(struct fault_disk *disk, enum disk_area area, const char *name, uint64_t *size)
{
	struct fault_entry *entry = find(disk, area, name);

	if (!entry)
		return NULL;
	*size = entry->file->cached_size;
	return entry->file->cached;
}

void fault_disk_copy(struct fault_disk *to, const struct fault_disk *from)
{
	fault_disk_init(to, from->capacity, from->rng.state);
	for (int area = 0; area < DISK_AREA_COUNT; area++) {
		for (uint32_t i = 0; i < from->cached_count[area]; i++) {
			const struct fault_entry *old = &from->cached[area][i];
			struct fault_entry entry = *old;
			entry.file = file_new(to);
			resize(&entry.file->cached, &entry.file->cached_size, old->file->cached_size);
			memcpy(entry.file->cached, old->file->cached, old->file->cached_size);
			resize(&entry.file->durable, &entry.file->durable_size, old->file->cached_size);
			memcpy(entry.file->durable, old->file->cached, old->file->cached_size);
			list_add(&to->cached[area], &to->cached_count[area], &entry);
			list_add(&to->durable[area], &to->durable_count[area], &entry);
		}
	}
}

const char *fault_disk_name(const struct fault_disk *disk, enum disk_area area, uint32_t number)
{
	return disk->cached[area][number].name;
}
