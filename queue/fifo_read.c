/* Reading: where the oldest record is, what is damaged, and what is done. */
#include "queue/fifo_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { READ_TRIES = 4 };

static void tell_corruption(struct fifo *fifo, uint64_t number, const char *what)
{
	char text[160], name[NAME_BYTES];

	fifo_file_name(number, name);
	snprintf(text, sizeof(text), "events: %s %s", name, what);
	if (fifo->options.on_corruption)
		fifo->options.on_corruption(fifo->options.ctx, text);
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
	fifo_seal_block(block, payload, sizeof(payload), POSITION_NONCE, offset);
	disk->write(disk, fifo->position_fd, block, BLOCK, offset); /* lost: some records come again */
}

void fifo_load_position(struct fifo *fifo)
{
	struct disk *disk = fifo->options.disk;

	for (uint64_t offset = 0; offset <= BLOCK; offset += BLOCK) {
		char block[BLOCK];
		const char *payload = block + RECORD_HEADER_BYTES;
		if (disk->read(disk, fifo->position_fd, block, BLOCK, offset) != BLOCK ||
		    !fifo_open_block(block, POSITION_PAYLOAD, POSITION_NONCE, offset) ||
		    get_u64(payload) < fifo->generation)
			continue;
		fifo->generation = get_u64(payload);
		fifo->head = (struct place){get_u64(payload + 8), get_u64(payload + 16)};
	}
}

/* ---- reading ---- */

/* An error that passes must not cost what it hid. */
static ssize_t read_stubbornly(struct fifo *fifo, int fd, void *out, size_t len, uint64_t offset)
{
	struct disk *disk = fifo->options.disk;
	ssize_t n = -1;

	for (int tries = 0; tries < READ_TRIES && n < 0; tries++)
		n = disk->read(disk, fd, out, len, offset);
	return n;
}

/* Keeps damaged bytes for a person; the best effort is enough, the log has the events too. */
static void put_aside(struct fifo *fifo, struct fifo_file *file, int fd)
{
	struct disk *disk = fifo->options.disk;
	char *bytes, name[NAME_BYTES];
	int copy;
	ssize_t n;

	if (file->is_aside)
		return;
	file->is_aside = true;
	fifo_file_name(file->number, name);
	if (disk->create(disk, DISK_QUARANTINE, name, 0, &copy) < 0)
		return;
	bytes = xmalloc(fifo->options.file_bytes);
	n = read_stubbornly(fifo, fd, bytes, fifo->options.file_bytes, 0);
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

static bool read_file_header(struct fifo *fifo, struct fifo_file *file)
{
	char block[BLOCK];
	const char *payload = block + RECORD_HEADER_BYTES;
	ssize_t n = read_stubbornly(fifo, file->fd, block, BLOCK, 0);

	if (n == BLOCK && fifo_open_block(block, HEADER_PAYLOAD, HEADER_NONCE, 0) && get_u32(payload) == VERSION &&
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

/* 1: the file of the head is open; 0: it cannot be read at all; -1: not now. */
static int open_reading(struct fifo *fifo)
{
	struct disk *disk = fifo->options.disk;
	char name[NAME_BYTES];
	uint64_t size;
	struct fifo_file file = {.number = fifo->head.number, .fd = -1};
	int rc;

	if (fifo->reading.number == fifo->head.number)
		return 1;
	if (fifo->reading.number != fifo->active.number)
		fifo_close_file(fifo, &fifo->reading);
	fifo->reading = (struct fifo_file){.fd = -1};
	if (file.number == fifo->active.number) {
		fifo->reading = (struct fifo_file){.number = file.number, .nonce = fifo->active.nonce, .fd = -1};
		return 1;
	}
	fifo_file_name(file.number, name);
	rc = disk->open(disk, DISK_JOURNAL, name, &file.fd, &size);
	if (rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM)
		return -1;
	if (rc < 0) {
		tell_corruption(fifo, file.number, "cannot be opened");
		return 0;
	}
	if (!read_file_header(fifo, &file)) {
		disk->close(disk, file.fd);
		return 0;
	}
	fifo->reading = file;
	return 1;
}

/* On to the file after this one, which is not needed any more. False: there is none. */
static bool next_file(struct fifo *fifo)
{
	uint64_t number = fifo->head.number, next = UINT64_MAX;

	for (size_t i = 0; i < fifo->count; i++)
		if (fifo->numbers[i] > number)
			next = MIN(next, fifo->numbers[i]);
	if (fifo->reading.number == number && number != fifo->active.number)
		fifo_close_file(fifo, &fifo->reading);
	fifo_remove_file(fifo, number);
	fifo->head = (struct place){next == UINT64_MAX ? fifo->next_number : next, BLOCK};
	return next != UINT64_MAX;
}

/* A whole record at `offset`; its payload goes to the end of `bytes`. */
static bool read_record(struct fifo *fifo, uint64_t offset, uint64_t end, struct record_header *header,
			struct buf *bytes)
{
	char head[RECORD_HEADER_BYTES], *at;
	int fd = reading_fd(fifo);

	if (offset + RECORD_HEADER_BYTES > end ||
	    read_stubbornly(fifo, fd, head, sizeof(head), offset) != (ssize_t)sizeof(head) ||
	    !record_open(head, fifo->reading.nonce, offset, header) || header->length > FIFO_RECORD_MAX ||
	    offset + record_bytes(header->length) > end)
		return false;
	at = buf_reserve(bytes, header->length + 1u);
	if (!at ||
	    read_stubbornly(fifo, fd, at, header->length, offset + RECORD_HEADER_BYTES) != (ssize_t)header->length ||
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

	return len > 0 && read_stubbornly(fifo, reading_fd(fifo), rest, len, offset) == (ssize_t)len &&
	       is_zero(rest, len);
}

/* Where the next whole record is, behind `offset`; `end` when there is none. Tells what is lost between. */
static uint64_t find_record(struct fifo *fifo, uint64_t offset, uint64_t end)
{
	uint64_t at = offset, len = end - offset;
	char *bytes = xmalloc(len + 1);
	ssize_t n = read_stubbornly(fifo, reading_fd(fifo), bytes, len, offset);
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
		int opened = open_reading(fifo);
		if (opened < 0)
			return false;
		if (opened) {
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
