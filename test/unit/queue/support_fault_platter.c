/* What is cached and what is on the platter, of files and of directories; and what a cut makes of the difference. */
#include "support_fault_internal.h"

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK 4096

uint64_t fault_roll(struct fault_disk *disk, uint64_t bound)
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

struct fault_file *fault_file_new(struct fault_disk *disk)
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

void fault_collect(struct fault_disk *disk)
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

struct fault_file *fault_file_by_fd(struct fault_disk *disk, int fd)
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

void fault_file_set_size(struct fault_file *file, uint64_t size)
{
	resize(&file->cached, &file->cached_size, size);
	add_pending(file, (struct pending){.is_size = true, .len = size});
}

void fault_file_put(struct fault_file *file, const void *bytes, uint64_t len, uint64_t offset)
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

void fault_file_flush(struct fault_file *file, uint32_t count)
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

static void garble_block(struct fault_disk *disk, struct fault_file *file, uint64_t block)
{
	uint64_t end = MIN(block + BLOCK, file->durable_size);
	bool stale = disk->grave && block + BLOCK <= disk->grave_bytes && fault_roll(disk, 2) == 0;

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
	uint64_t fate = mood == MOOD_KEEP ? 0 : mood == MOOD_DROP ? 50 : fault_roll(disk, 100);

	if (fate < 40)
		make_durable(file, from, bytes, to - from);
	else if (fate >= 70 && fate < 85)
		make_durable(file, from, bytes, fault_roll(disk, to - from));
	else if (fate >= 85)
		garble_block(disk, file, from / BLOCK * BLOCK);
}

void fault_file_decide(struct fault_disk *disk, struct fault_file *file, uint32_t count, enum mood mood)
{
	for (uint32_t i = 0; i < count; i++) {
		struct pending *pending = &file->pending[i];
		uint64_t end = pending->offset + pending->len;
		if (pending->is_size) {
			if (mood == MOOD_KEEP || (mood == MOOD_MIX && fault_roll(disk, 2)))
				resize(&file->durable, &file->durable_size, pending->len);
			continue;
		}
		for (uint64_t at = pending->offset; at < end; at = (at / BLOCK + 1) * BLOCK)
			decide_block(disk, file, pending, at, MIN(end, (at / BLOCK + 1) * BLOCK), mood);
	}
	drop_pending(file, count);
}

/* ---- Directories ---- */

struct fault_entry *fault_find(struct fault_disk *disk, enum disk_area area, const char *name)
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

void fault_change_directory(struct fault_disk *disk, enum disk_area area, bool is_unlink, struct fault_entry entry)
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

void fault_decide_directory(struct fault_disk *disk, enum disk_area area, enum mood mood)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < disk->pending_count; i++) {
		struct fault_pending_entry *pending = &disk->pending[i];
		if (area != DISK_AREA_COUNT && pending->area != area) {
			disk->pending[kept++] = *pending;
			continue;
		}
		if (mood == MOOD_KEEP || (mood == MOOD_MIX && fault_roll(disk, 2)))
			apply_entry(disk, pending);
		pending->entry.file->entries--;
	}
	disk->pending_count = kept;
}

void fault_bury(struct fault_disk *disk, const struct fault_file *file)
{
	free(disk->grave);
	disk->grave = xmemdup(file->cached, file->cached_size);
	disk->grave_bytes = file->cached_size;
}

/* ---- All together ---- */

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
		mood = (enum mood)MIN(fault_roll(disk, 8), (uint64_t)MOOD_MIX);
		fault_decide_directory(disk, DISK_AREA_COUNT, mood);
		for (uint32_t i = 0; i < disk->file_count; i++) {
			fault_file_decide(disk, disk->files[i], disk->files[i]->pending_count, mood);
			mirror_cache(disk->files[i]);
		}
		for (int area = 0; area < DISK_AREA_COUNT; area++)
			mirror_directory(disk, (enum disk_area)area);
	}
	fault_collect(disk);
}

void fault_disk_settle(struct fault_disk *disk)
{
	fault_decide_directory(disk, DISK_AREA_COUNT, MOOD_KEEP);
	for (uint32_t i = 0; i < disk->file_count; i++)
		fault_file_flush(disk->files[i], disk->files[i]->pending_count);
	fault_collect(disk);
}

void fault_disk_rot(struct fault_disk *disk, enum disk_area area, const char *name, uint64_t from, uint64_t to,
		    uint32_t count)
{
	struct fault_entry *entry = fault_find(disk, area, name);

	BUG_ON(!entry || from >= to || to > entry->file->cached_size);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t at = from + fault_roll(disk, to - from);
		char bit = (char)(1 << fault_roll(disk, 8));
		entry->file->cached[at] = (char)(entry->file->cached[at] ^ bit);
		if (at < entry->file->durable_size)
			entry->file->durable[at] = (char)(entry->file->durable[at] ^ bit);
	}
}

char *fault_disk_bytes(struct fault_disk *disk, enum disk_area area, const char *name, uint64_t *size)
{
	struct fault_entry *entry = fault_find(disk, area, name);

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
			entry.file = fault_file_new(to);
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
