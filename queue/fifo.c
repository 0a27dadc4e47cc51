#include "queue/fifo.h"

#include "base/base.h"
#include "base/list.h"
#include "queue/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	BLOCK = RECORD_BLOCK,
	FILE_BYTES = 1024 * 1024,
	MEMORY_MAX = 8 * 1024 * 1024,
	NAME_BYTES = 32,
	FILE_MIN_BYTES = 2 * FIFO_RECORD_MAX,
	HEADER_PAYLOAD = 20, /* version, number, nonce */
	VERSION = 1,
	POSITION_PAYLOAD = 24, /* generation, number, offset */
	FAILURES_MAX = 2,      /* running, until records are given up */
};

/* Seeds of what has no file's nonce yet. */
#define HEADER_NONCE UINT64_C(0x6f66696648454144)
#define POSITION_NONCE UINT64_C(0x6f666966504f5349)

static const char position_name[] = "position";

struct item {
	struct list node;
	char *bytes;
	uint32_t len;
	uint64_t stamp;
	fifo_cb *cb;
	void *ctx;
};

/* One that is open. number 0: none. */
struct file {
	uint64_t number, nonce;
	int fd;
	bool is_aside; /* a copy is in the quarantine */
};

struct place {
	uint64_t number, offset;
};

struct fifo {
	struct fifo_options options;
	uint64_t *numbers; /* files that exist, ascending */
	size_t count;
	uint64_t next_number;

	struct file active; /* the last one, being written */
	uint64_t written, synced;
	bool needs_dir_sync;
	struct list gathered, unsynced; /* not yet written; written to the active file */
	size_t memory, memory_max;	/* of both */
	unsigned failures;
	uint64_t lost;
	uint64_t token, last_token; /* token 0: no sync runs */
	uint64_t sync_target;	    /* of the sync that runs; 0: it is the directory's */
	uint32_t sync_items;	    /* so many of `unsynced` are done with it */

	struct file reading; /* fd -1 while it is the active one */
	struct place head;
	uint64_t generation;
	int position_fd;
};

static void item_free(struct item *item)
{
	free(item->bytes);
	free(item);
}

static void name_of(uint64_t number, char out[NAME_BYTES])
{
	snprintf(out, NAME_BYTES, "%016" PRIx64 ".fifo", number);
}

static void tell_corruption(struct fifo *fifo, uint64_t number, const char *what)
{
	char text[160], name[NAME_BYTES];

	name_of(number, name);
	snprintf(text, sizeof(text), "events: %s %s", name, what);
	if (fifo->options.on_corruption)
		fifo->options.on_corruption(fifo->options.ctx, text);
}

/* ---- blocks that stand alone: a file's header, the position ---- */

static void seal_block(char block[BLOCK], const char *payload, uint32_t len, uint64_t nonce, uint64_t offset)
{
	struct record_header header = {.length = len, .type = RECORD_DATA};

	memset(block, 0, BLOCK);
	memcpy(block + RECORD_HEADER_BYTES, payload, len);
	record_seal(block, &header, nonce, offset);
}

static bool open_block(const char block[BLOCK], uint32_t len, uint64_t nonce, uint64_t offset)
{
	struct record_header header;

	return record_open(block, nonce, offset, &header) && header.length == len &&
	       record_payload_ok(&header, block + RECORD_HEADER_BYTES, nonce, offset);
}

/* ---- files ---- */

static void close_file(struct fifo *fifo, struct file *file)
{
	if (file->fd >= 0)
		fifo->options.disk->close(fifo->options.disk, file->fd);
	*file = (struct file){.fd = -1};
}

static void forget_number(struct fifo *fifo, uint64_t number)
{
	size_t kept = 0;

	for (size_t i = 0; i < fifo->count; i++)
		if (fifo->numbers[i] != number)
			fifo->numbers[kept++] = fifo->numbers[i];
	fifo->count = kept;
}

static void remove_file(struct fifo *fifo, uint64_t number)
{
	char name[NAME_BYTES];

	name_of(number, name);
	fifo->options.disk->unlink(fifo->options.disk, DISK_JOURNAL, name);
	forget_number(fifo, number);
}

static int begin_file(struct fifo *fifo)
{
	struct disk *disk = fifo->options.disk;
	struct file file = {.number = fifo->next_number, .nonce = rng_u64(fifo->options.rng)};
	char block[BLOCK], payload[HEADER_PAYLOAD], name[NAME_BYTES];
	int rc;

	if ((fifo->count + 1) * fifo->options.file_bytes > fifo->options.max_bytes)
		return -ENOSPC;
	name_of(file.number, name);
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
	seal_block(block, payload, sizeof(payload), HEADER_NONCE, 0);
	return disk->write(disk, file.fd, block, BLOCK, 0);
}

/* No more is written to it; it counts up to where it is synced. */
static void leave_active(struct fifo *fifo)
{
	if (fifo->reading.number == fifo->active.number)
		fifo->reading.fd = fifo->active.fd;
	else if (fifo->active.fd >= 0)
		fifo->options.disk->close(fifo->options.disk, fifo->active.fd);
	fifo->active = (struct file){.fd = -1};
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
	struct item *item;

	if (record.len == 0 || record.len > FIFO_RECORD_MAX || fifo->memory + bytes > fifo->memory_max ||
	    used_bytes(fifo) + fifo->memory + bytes > limit)
		return ERR_LIMIT;
	item = xmalloc(sizeof(*item));
	*item = (struct item){.bytes = xmemdup(record.ptr, record.len),
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
			if (CONTAINER_OF(node, struct item, node)->ctx == ctx)
				CONTAINER_OF(node, struct item, node)->cb = NULL;
}

/* The item is on no list any more. */
static void finish(struct fifo *fifo, struct item *item, enum err_code result)
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
		finish(fifo, CONTAINER_OF(node, struct item, node), ERR_IO);
}

static void append_record(struct fifo *fifo, struct buf *batch, struct item *item)
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
		struct item *item = CONTAINER_OF(fifo->gathered.next, struct item, node);
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
		struct item *first = CONTAINER_OF(fifo->gathered.next, struct item, node);
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
		finish(fifo, CONTAINER_OF(list_pop(&fifo->unsynced), struct item, node), 0);
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

/* ---- the position ---- */

static void save_position(struct fifo *fifo)
{
	struct disk *disk = fifo->options.disk;
	char block[BLOCK], payload[POSITION_PAYLOAD];
	uint64_t offset = ++fifo->generation % 2 * BLOCK;

	put_u64(payload, fifo->generation);
	put_u64(payload + 8, fifo->head.number);
	put_u64(payload + 16, fifo->head.offset);
	seal_block(block, payload, sizeof(payload), POSITION_NONCE, offset);
	disk->write(disk, fifo->position_fd, block, BLOCK, offset); /* lost: some records come again */
}

static void load_position(struct fifo *fifo)
{
	struct disk *disk = fifo->options.disk;

	for (uint64_t offset = 0; offset <= BLOCK; offset += BLOCK) {
		char block[BLOCK];
		const char *payload = block + RECORD_HEADER_BYTES;
		if (disk->read(disk, fifo->position_fd, block, BLOCK, offset) != BLOCK ||
		    !open_block(block, POSITION_PAYLOAD, POSITION_NONCE, offset) || get_u64(payload) < fifo->generation)
			continue;
		fifo->generation = get_u64(payload);
		fifo->head = (struct place){get_u64(payload + 8), get_u64(payload + 16)};
	}
}

/* ---- reading ---- */

/* Keeps damaged bytes for a person; the best effort is enough, the log has the events too. */
static void put_aside(struct fifo *fifo, struct file *file, int fd)
{
	struct disk *disk = fifo->options.disk;
	char *bytes, name[NAME_BYTES];
	int copy;
	ssize_t n;

	if (file->is_aside)
		return;
	file->is_aside = true;
	name_of(file->number, name);
	if (disk->create(disk, DISK_QUARANTINE, name, 0, &copy) < 0)
		return;
	bytes = xmalloc(fifo->options.file_bytes);
	n = disk->read(disk, fd, bytes, fifo->options.file_bytes, 0);
	if (n > 0)
		disk->write(disk, copy, bytes, (size_t)n, 0);
	disk->close(disk, copy);
	free(bytes);
}

static bool is_zero(const char *bytes, size_t len)
{
	return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

static int reading_fd(const struct fifo *fifo)
{
	return fifo->reading.number == fifo->active.number ? fifo->active.fd : fifo->reading.fd;
}

static bool read_file_header(struct fifo *fifo, struct file *file)
{
	struct disk *disk = fifo->options.disk;
	char block[BLOCK];
	const char *payload = block + RECORD_HEADER_BYTES;
	ssize_t n = disk->read(disk, file->fd, block, BLOCK, 0);

	if (n == BLOCK && open_block(block, HEADER_PAYLOAD, HEADER_NONCE, 0) && get_u32(payload) == VERSION &&
	    get_u64(payload + 4) == file->number) {
		file->nonce = get_u64(payload + 12);
		return true;
	}
	/* Made, and then the power was cut: nothing in it was ever promised. */
	if (n >= 0 && is_zero(block, (size_t)n))
		return false;
	tell_corruption(fifo, file->number, "has a damaged header and cannot be read");
	put_aside(fifo, file, file->fd);
	return false;
}

/* The file of the head is open. False: it cannot be read at all. */
static bool open_reading(struct fifo *fifo)
{
	struct disk *disk = fifo->options.disk;
	char name[NAME_BYTES];
	uint64_t size;
	struct file file = {.number = fifo->head.number, .fd = -1};

	if (fifo->reading.number == fifo->head.number)
		return true;
	if (fifo->reading.number != fifo->active.number)
		close_file(fifo, &fifo->reading);
	fifo->reading = (struct file){.fd = -1};
	if (file.number == fifo->active.number) {
		fifo->reading = (struct file){.number = file.number, .nonce = fifo->active.nonce, .fd = -1};
		return true;
	}
	name_of(file.number, name);
	if (disk->open(disk, DISK_JOURNAL, name, &file.fd, &size) < 0) {
		tell_corruption(fifo, file.number, "cannot be opened");
		return false;
	}
	if (!read_file_header(fifo, &file)) {
		disk->close(disk, file.fd);
		return false;
	}
	fifo->reading = file;
	return true;
}

/* On to the file after this one, which is not needed any more. False: there is none. */
static bool next_file(struct fifo *fifo)
{
	uint64_t number = fifo->head.number, next = UINT64_MAX;

	for (size_t i = 0; i < fifo->count; i++)
		if (fifo->numbers[i] > number)
			next = MIN(next, fifo->numbers[i]);
	if (fifo->reading.number == number && number != fifo->active.number)
		close_file(fifo, &fifo->reading);
	remove_file(fifo, number);
	fifo->head = (struct place){next == UINT64_MAX ? fifo->next_number : next, BLOCK};
	return next != UINT64_MAX;
}

/* A whole record at `offset`; its payload goes to the end of `bytes`. */
static bool read_record(struct fifo *fifo, uint64_t offset, uint64_t end, struct record_header *header,
			struct buf *bytes)
{
	struct disk *disk = fifo->options.disk;
	char head[RECORD_HEADER_BYTES], *at;
	int fd = reading_fd(fifo);

	if (offset + RECORD_HEADER_BYTES > end ||
	    disk->read(disk, fd, head, sizeof(head), offset) != (ssize_t)sizeof(head) ||
	    !record_open(head, fifo->reading.nonce, offset, header) || header->length > FIFO_RECORD_MAX ||
	    offset + record_bytes(header->length) > end)
		return false;
	at = buf_reserve(bytes, header->length + 1u);
	if (!at || disk->read(disk, fd, at, header->length, offset + RECORD_HEADER_BYTES) != (ssize_t)header->length ||
	    !record_payload_ok(header, at, fifo->reading.nonce, offset))
		return false;
	buf_commit(bytes, header->length);
	return true;
}

/* The rest of a block behind the last record of a batch. */
static bool is_padding(struct fifo *fifo, uint64_t offset)
{
	char rest[BLOCK];
	size_t len = record_block_up(offset) - offset;

	return len > 0 &&
	       fifo->options.disk->read(fifo->options.disk, reading_fd(fifo), rest, len, offset) == (ssize_t)len &&
	       is_zero(rest, len);
}

/* Where the next whole record is, behind `offset`; `end` when there is none. Tells what is lost between. */
static uint64_t find_record(struct fifo *fifo, uint64_t offset, uint64_t end)
{
	struct disk *disk = fifo->options.disk;
	uint64_t at = offset, len = end - offset;
	char *bytes = xmalloc(len + 1);
	ssize_t n = disk->read(disk, reading_fd(fifo), bytes, len, offset);
	bool found = false, is_active = fifo->reading.number == fifo->active.number;

	for (; !found && n >= RECORD_HEADER_BYTES && at + RECORD_HEADER_BYTES <= offset + (uint64_t)n;
	     at += found ? 0 : RECORD_ALIGN) {
		struct record_header header;
		const char *record = bytes + (at - offset);
		found = get_u32(record) != 0 && record_open(record, fifo->reading.nonce, at, &header) &&
			header.length <= FIFO_RECORD_MAX && at + record_bytes(header.length) <= offset + (uint64_t)n &&
			record_payload_ok(&header, record + RECORD_HEADER_BYTES, fifo->reading.nonce, at);
	}
	at = found ? at : end;
	/* At the end of a file of an earlier run a torn record is what a crash leaves: nobody was told of it. */
	if (n < 0 || ((found || is_active) && !is_zero(bytes, (size_t)MIN((uint64_t)n, at - offset)))) {
		tell_corruption(fifo, fifo->reading.number, "has damaged records, which are passed over");
		put_aside(fifo, &fifo->reading, reading_fd(fifo));
	}
	free(bytes);
	return at;
}

/* A file that is not written any more is read to its end; the active one as far as it is synced. A file that was left
 * after a fault is read to the end too: what was not synced then comes twice at worst. */
static uint64_t readable_end(const struct fifo *fifo)
{
	return fifo->head.number == fifo->active.number ? fifo->synced : fifo->options.file_bytes;
}

static bool is_there(const struct fifo *fifo, uint64_t number)
{
	for (size_t i = 0; i < fifo->count; i++)
		if (fifo->numbers[i] == number)
			return true;
	return false;
}

/* The place of the next record at or behind the head, in this file or in the next; false: there is none now. */
static bool settle_head(struct fifo *fifo)
{
	if (!is_there(fifo, fifo->head.number) && fifo->count > 0)
		fifo->head = (struct place){fifo->numbers[0], BLOCK};
	while (is_there(fifo, fifo->head.number)) {
		if (open_reading(fifo)) {
			if (fifo->head.offset < BLOCK)
				fifo->head.offset = BLOCK;
			if (fifo->head.offset < readable_end(fifo))
				return true;
			if (fifo->head.number == fifo->active.number)
				return false;
		}
		if (!next_file(fifo))
			return false;
		save_position(fifo);
	}
	return false;
}

/* From `offset` on, as much as there is and as fits; returns how many, and where it ended. */
static size_t read_file(struct fifo *fifo, struct fifo_item *items, size_t max, struct buf *bytes, uint64_t *offset)
{
	uint64_t end = readable_end(fifo);
	size_t count = 0;

	while (count < max && *offset < end && (count == 0 || buf_room(bytes) > FIFO_RECORD_MAX)) {
		struct record_header header;
		if (read_record(fifo, *offset, end, &header, bytes)) {
			*offset += record_bytes(header.length);
			items[count++] =
			    (struct fifo_item){{NULL, header.length}, header.id, fifo->head.number, *offset};
		} else if (is_padding(fifo, *offset)) {
			*offset = record_block_up(*offset);
		} else {
			*offset = find_record(fifo, *offset, end);
		}
	}
	return count;
}

/* Those of one read come from one file. */
size_t fifo_read(struct fifo *fifo, struct fifo_item *items, size_t max, struct buf *bytes)
{
	size_t count = 0, start = 0;

	BUG_ON(bytes->max <= FIFO_RECORD_MAX);
	buf_clear(bytes);
	while (count == 0 && settle_head(fifo)) {
		uint64_t offset = fifo->head.offset;
		count = read_file(fifo, items, max, bytes, &offset);
		if (count == 0)
			fifo->head.offset = offset; /* nothing up to here */
	}
	for (size_t i = 0; i < count; i++) {
		items[i].record.ptr = buf_slice(bytes).ptr + start;
		start += items[i].record.len;
	}
	return count;
}

void fifo_drop(struct fifo *fifo, const struct fifo_item *item)
{
	if (item->number != fifo->head.number || item->end <= fifo->head.offset)
		return;
	fifo->head.offset = item->end;
	save_position(fifo);
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

	name_of(number, again);
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
	load_position(fifo);
	fifo->next_number = MAX(fifo->count > 0 ? fifo->numbers[fifo->count - 1] : 0, fifo->head.number) + 1;
	while (fifo->count > 0 && fifo->numbers[0] < fifo->head.number)
		remove_file(fifo, fifo->numbers[0]);
	return fifo;
}

void fifo_free(struct fifo **fifo)
{
	struct fifo *f = *fifo;
	struct list *node;

	if (!f)
		return;
	while ((node = list_pop(&f->gathered)) || (node = list_pop(&f->unsynced)))
		item_free(CONTAINER_OF(node, struct item, node));
	if (f->reading.number != f->active.number)
		close_file(f, &f->reading);
	close_file(f, &f->active);
	if (f->position_fd >= 0)
		f->options.disk->close(f->options.disk, f->position_fd);
	free(f->numbers);
	free(f);
	*fifo = NULL;
}
