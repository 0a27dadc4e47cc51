#include "queue/fifo_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char position_name[] = "position";

static void item_free(struct fifo_entry *item)
{
	free(item->bytes);
	free(item);
}

void fifo_file_name(uint64_t number, char out[NAME_BYTES])
{
	snprintf(out, NAME_BYTES, "%016" PRIx64 ".fifo", number);
}

/* ---- blocks that stand alone: a file's header, the position ---- */

void fifo_seal_block(char block[BLOCK], const char *payload, uint32_t len, uint64_t nonce, uint64_t offset)
{
	struct record_header header = {.length = len, .type = RECORD_DATA};

	memset(block, 0, BLOCK);
	memcpy(block + RECORD_HEADER_BYTES, payload, len);
	record_seal(block, &header, nonce, offset);
}

bool fifo_open_block(const char block[BLOCK], uint32_t len, uint64_t nonce, uint64_t offset)
{
	struct record_header header;

	return record_open(block, nonce, offset, &header) && header.length == len &&
	       record_payload_ok(&header, block + RECORD_HEADER_BYTES, nonce, offset);
}

/* ---- files ---- */

void fifo_close_file(struct fifo *fifo, struct fifo_file *file)
{
	if (file->fd >= 0)
		fifo->options.disk->close(fifo->options.disk, file->fd);
	*file = (struct fifo_file){.fd = -1};
}

static void forget_number(struct fifo *fifo, uint64_t number)
{
	size_t kept = 0;

	for (size_t i = 0; i < fifo->count; i++)
		if (fifo->numbers[i] != number)
			fifo->numbers[kept++] = fifo->numbers[i];
	fifo->count = kept;
}

void fifo_remove_file(struct fifo *fifo, uint64_t number)
{
	char name[NAME_BYTES];

	fifo_file_name(number, name);
	fifo->options.disk->unlink(fifo->options.disk, DISK_JOURNAL, name);
	forget_number(fifo, number);
}

static int begin_file(struct fifo *fifo)
{
	struct disk *disk = fifo->options.disk;
	struct fifo_file file = {.number = fifo->next_number, .nonce = rng_u64(fifo->options.rng)};
	char block[BLOCK], payload[HEADER_PAYLOAD], name[NAME_BYTES];
	int rc;

	if ((fifo->count + 1) * fifo->options.file_bytes > fifo->options.max_bytes)
		return -ENOSPC;
	fifo_file_name(file.number, name);
	fifo->next_number++;
	rc = disk->create(disk, DISK_JOURNAL, name, fifo->options.file_bytes, &file.fd);
	if (rc < 0)
		return rc;
	fifo->numbers = xreallocarray(fifo->numbers, fifo->count + 1, sizeof(fifo->numbers[0]));
	fifo->numbers[fifo->count++] = file.number;
	fifo->active = file;
	fifo->needs_dir_sync = true;
	fifo->written = fifo->synced = BLOCK;
	put_u32(payload, VERSION);
	put_u64(payload + 4, file.number);
	put_u64(payload + 12, file.nonce);
	fifo_seal_block(block, payload, sizeof(payload), HEADER_NONCE, 0);
	return disk->write(disk, file.fd, block, BLOCK, 0);
}

/* No more is written to it; it counts up to where it is synced. */
static void leave_active(struct fifo *fifo)
{
	if (fifo->reading.number == fifo->active.number)
		fifo->reading.fd = fifo->active.fd;
	else if (fifo->active.fd >= 0)
		fifo->options.disk->close(fifo->options.disk, fifo->active.fd);
	fifo->active = (struct fifo_file){.fd = -1};
	fifo->written = fifo->synced = 0;
}

/* ---- appending ---- */

static uint64_t used_bytes(const struct fifo *fifo)
{
	uint64_t whole = fifo->count * fifo->options.file_bytes;

	return fifo->active.number ? whole - fifo->options.file_bytes + fifo->written : whole;
}

int fifo_append(struct fifo *fifo, struct slice record, uint64_t stamp, bool is_important, fifo_cb *cb, void *ctx)
{
	/* Two files to spare: for the padding of batches, and for what is left free at the end of files. */
	uint64_t room = fifo->options.max_bytes - 2 * fifo->options.file_bytes,
		 bytes = record_bytes((uint32_t)record.len), limit = is_important ? room : room - room / 8;
	struct fifo_entry *item;

	if (record.len == 0 || record.len > FIFO_RECORD_MAX || fifo->memory + bytes > fifo->memory_max ||
	    used_bytes(fifo) + fifo->memory + bytes > limit)
		return ERR_LIMIT;
	item = xmalloc(sizeof(*item));
	*item = (struct fifo_entry){.bytes = xmemdup(record.ptr, record.len),
				    .len = (uint32_t)record.len,
				    .stamp = stamp,
				    .cb = cb,
				    .ctx = ctx};
	list_append(&fifo->gathered, &item->node);
	fifo->memory += bytes;
	return 0;
}

void fifo_forget(struct fifo *fifo, const void *ctx)
{
	struct list *lists[] = {&fifo->gathered, &fifo->unsynced};

	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		LIST_FOREACH (node, lists[i])
			if (CONTAINER_OF(node, struct fifo_entry, node)->ctx == ctx)
				CONTAINER_OF(node, struct fifo_entry, node)->cb = NULL;
}

/* The item is on no list any more. */
static void finish(struct fifo *fifo, struct fifo_entry *item, enum err_code result)
{
	fifo_cb *cb = item->cb;
	void *ctx = item->ctx;

	fifo->memory -= record_bytes(item->len);
	item_free(item);
	if (cb)
		cb(ctx, result);
}

/* What the disk did not take goes into the next file, unless that happens over and over. */
static void fail(struct fifo *fifo)
{
	struct list lost;

	while (!list_is_empty(&fifo->unsynced)) {
		struct list *last = fifo->unsynced.prev;
		list_remove(last);
		list_prepend(&fifo->gathered, last);
	}
	leave_active(fifo);
	fifo->token = 0;
	if (++fifo->failures < FAILURES_MAX)
		return;
	fifo->failures = 0;
	list_init(&lost);
	for (struct list *node; (node = list_pop(&fifo->gathered));)
		list_append(&lost, node);
	for (struct list *node; (node = list_pop(&lost)); fifo->lost++)
		finish(fifo, CONTAINER_OF(node, struct fifo_entry, node), ERR_IO);
}

static void append_record(struct fifo *fifo, struct buf *batch, struct fifo_entry *item)
{
	struct record_header header = {.length = item->len, .type = RECORD_DATA, .id = item->stamp};
	uint64_t bytes = record_bytes(item->len), offset = fifo->written + buf_len(batch);
	char *at = buf_reserve(batch, bytes);

	memset(at, 0, bytes);
	memcpy(at + RECORD_HEADER_BYTES, item->bytes, item->len);
	record_seal(at, &header, fifo->active.nonce, offset);
	buf_commit(batch, bytes);
	list_remove(&item->node);
	list_append(&fifo->unsynced, &item->node);
}

/* As much of what is gathered as fits in the active file, as one batch. */
static int write_batch(struct fifo *fifo)
{
	struct disk *disk = fifo->options.disk;
	uint64_t room = fifo->options.file_bytes - fifo->written;
	struct buf batch;
	size_t padding;
	int rc = 0;

	buf_init(&batch, fifo->options.file_bytes);
	while (!list_is_empty(&fifo->gathered)) {
		struct fifo_entry *item = CONTAINER_OF(fifo->gathered.next, struct fifo_entry, node);
		if (buf_len(&batch) + record_bytes(item->len) > room)
			break;
		append_record(fifo, &batch, item);
	}
	if (buf_len(&batch) > 0) {
		padding = record_block_up(buf_len(&batch)) - buf_len(&batch);
		if (padding > 0) {
			memset(buf_reserve(&batch, padding), 0, padding);
			buf_commit(&batch, padding);
		}
		rc = disk->write(disk, fifo->active.fd, buf_slice(&batch).ptr, buf_len(&batch), fifo->written);
		fifo->written += buf_len(&batch);
	}
	buf_fini(&batch);
	return rc;
}

static void write_gathered(struct fifo *fifo)
{
	while (!list_is_empty(&fifo->gathered)) {
		struct fifo_entry *first = CONTAINER_OF(fifo->gathered.next, struct fifo_entry, node);
		bool fits = fifo->active.number && fifo->written + record_bytes(first->len) <= fifo->options.file_bytes;
		if (!fits && fifo->active.number) {
			if (!list_is_empty(&fifo->unsynced) || fifo->token)
				return; /* a file is left when all of it is synced */
			leave_active(fifo);
		}
		if ((!fits && begin_file(fifo) < 0) || write_batch(fifo) < 0)
			fail(fifo);
	}
}

static void begin_sync(struct fifo *fifo)
{
	struct disk *disk = fifo->options.disk;
	int fd = fifo->needs_dir_sync ? disk->area_fd(disk, DISK_JOURNAL) : fifo->active.fd;

	fifo->sync_target = fifo->needs_dir_sync ? 0 : fifo->written;
	fifo->sync_items = 0;
	if (!fifo->needs_dir_sync)
		LIST_FOREACH (node, &fifo->unsynced)
			fifo->sync_items++;
	fifo->token = FIFO_TOKEN | ++fifo->last_token;
	disk->sync(disk, fd, fifo->token);
}

void fifo_on_disk_done(struct fifo *fifo, const struct disk_done *done)
{
	if (fifo->token == 0 || done->token != fifo->token)
		return;
	fifo->token = 0;
	if (done->result < 0) {
		fail(fifo);
		return;
	}
	if (fifo->sync_target == 0) {
		fifo->needs_dir_sync = false;
		begin_sync(fifo);
		return;
	}
	fifo->synced = fifo->sync_target;
	fifo->failures = 0;
	for (; fifo->sync_items > 0; fifo->sync_items--)
		finish(fifo, CONTAINER_OF(list_pop(&fifo->unsynced), struct fifo_entry, node), 0);
}

void fifo_turn(struct fifo *fifo)
{
	struct disk_done done;
	bool has_ended;

	do {
		write_gathered(fifo);
		if (!fifo->token && fifo->active.number && fifo->synced < fifo->written)
			begin_sync(fifo);
		for (has_ended = false; fifo->options.disk->next_done(fifo->options.disk, &done); has_ended = true)
			fifo_on_disk_done(fifo, &done);
	} while (has_ended);
}

bool fifo_is_synced(const struct fifo *fifo)
{
	return list_is_empty(&fifo->gathered) && list_is_empty(&fifo->unsynced);
}

uint64_t fifo_bytes(const struct fifo *fifo)
{
	return used_bytes(fifo);
}

uint64_t fifo_lost_count(const struct fifo *fifo)
{
	return fifo->lost;
}

/* ---- opening ---- */

static int compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int add_name(void *ctx, const char *name)
{
	struct fifo *fifo = ctx;
	char again[NAME_BYTES];
	uint64_t number = strtoull(name, NULL, 16);

	fifo_file_name(number, again);
	if (number == 0 || strcmp(name, again) != 0)
		return 0;
	fifo->numbers = xreallocarray(fifo->numbers, fifo->count + 1, sizeof(fifo->numbers[0]));
	fifo->numbers[fifo->count++] = number;
	return 0;
}

static int open_position(struct fifo *fifo)
{
	struct disk *disk = fifo->options.disk;
	uint64_t size;
	int rc = disk->open(disk, DISK_JOURNAL, position_name, &fifo->position_fd, &size);

	if (rc == -ENOENT)
		rc = disk->create(disk, DISK_JOURNAL, position_name, 2 * BLOCK, &fifo->position_fd);
	return rc;
}

struct fifo *fifo_open(const struct fifo_options *options, struct err *err)
{
	struct fifo *fifo = xcalloc(1, sizeof(*fifo));
	int rc;

	fifo->options = *options;
	if (fifo->options.file_bytes == 0)
		fifo->options.file_bytes = FILE_BYTES;
	BUG_ON(fifo->options.file_bytes % BLOCK != 0 || fifo->options.file_bytes < FILE_MIN_BYTES ||
	       fifo->options.max_bytes < 4 * fifo->options.file_bytes);
	fifo->memory_max = MIN((uint64_t)MEMORY_MAX, 4 * fifo->options.file_bytes);
	fifo->active.fd = fifo->reading.fd = fifo->position_fd = -1;
	list_init(&fifo->gathered);
	list_init(&fifo->unsynced);
	rc = options->disk->list(options->disk, DISK_JOURNAL, add_name, fifo);
	rc = rc < 0 ? rc : open_position(fifo);
	if (rc < 0) {
		errno = -rc;
		err_set_errno(err, "cannot open the queue of events");
		fifo_free(&fifo);
		return NULL;
	}
	if (fifo->count > 0)
		qsort(fifo->numbers, fifo->count, sizeof(fifo->numbers[0]), compare_numbers);
	fifo_load_position(fifo);
	fifo->next_number = MAX(fifo->count > 0 ? fifo->numbers[fifo->count - 1] : 0, fifo->head.number) + 1;
	while (fifo->count > 0 && fifo->numbers[0] < fifo->head.number)
		fifo_remove_file(fifo, fifo->numbers[0]);
	return fifo;
}

void fifo_free(struct fifo **fifo)
{
	struct fifo *f = *fifo;
	struct list *node;

	if (!f)
		return;
	while ((node = list_pop(&f->gathered)) || (node = list_pop(&f->unsynced)))
		item_free(CONTAINER_OF(node, struct fifo_entry, node));
	if (f->reading.number != f->active.number)
		fifo_close_file(f, &f->reading);
	fifo_close_file(f, &f->active);
	if (f->position_fd >= 0)
		f->options.disk->close(f->options.disk, f->position_fd);
	free(f->numbers);
	free(f);
	*fifo = NULL;
}
