/*
 * Recovery of arbitrary journals. A journal whose checksums are wrong is soon read, so the input is mostly a terse
 * description from which segments with sound checksums are made; what stands in their headers and payloads is the
 * fuzzer's.
 *
 *   input    a number of files, each:
 *   file     kind (1): 0 raw: length (2), bytes
 *                      1 segment: number (1), previous (1), cut / 8 (2), first (1), count of records (1), records
 *   record   type (1), index (1), id (1), watermark segment (1), watermark / 8 (2), length (2), bits (1), payload
 *            bits: 1 the sum of the payload is wrong, 2 so is that of the header, 4 the next begins at a block, 8 flags
 * 0x80
 */
#include "base/base.h"
#include "base/clock.h"
#include "base/random.h"
#include "queue/journal.h"
#include "queue/queue.h"
#include "queue/segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define FILES_MAX 64
#define SEGMENT_BYTES (32 * 1024)
#define NONCE 0x0123456789abcdefu

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- A disk in memory that never fails ---- */

struct memory_file {
	enum disk_area area;
	char name[64];
	char *bytes;
	uint64_t size;
	bool is_open, is_gone;
};

struct memory_disk {
	struct disk disk;
	struct memory_file files[FILES_MAX];
	int count;
	struct disk_done done[16];
	int done_count;
};

static struct memory_disk *of(struct disk *disk)
{
	return CONTAINER_OF(disk, struct memory_disk, disk);
}

static struct memory_file *find(struct memory_disk *disk, enum disk_area area, const char *name)
{
	for (int i = 0; i < disk->count; i++)
		if (!disk->files[i].is_gone && disk->files[i].area == area && strcmp(disk->files[i].name, name) == 0)
			return &disk->files[i];
	return NULL;
}

static int do_list(struct disk *d, enum disk_area area, disk_list_cb *cb, void *ctx)
{
	struct memory_disk *disk = of(d);

	for (int i = 0; i < disk->count; i++)
		if (!disk->files[i].is_gone && disk->files[i].area == area)
			cb(ctx, disk->files[i].name);
	return 0;
}

static int do_open(struct disk *d, enum disk_area area, const char *name, int *fd, uint64_t *size)
{
	struct memory_file *file = find(of(d), area, name);

	if (!file)
		return -ENOENT;
	*fd = (int)(file - of(d)->files);
	*size = file->size;
	return 0;
}

static int do_create(struct disk *d, enum disk_area area, const char *name, uint64_t size, int *fd)
{
	struct memory_disk *disk = of(d);
	struct memory_file *file = &disk->files[disk->count];

	if (disk->count == FILES_MAX)
		return -ENOSPC;
	if (find(disk, area, name))
		return -EEXIST;
	*file = (struct memory_file){.area = area, .bytes = xcalloc(1, size ? size : 1), .size = size};
	snprintf(file->name, sizeof(file->name), "%s", name);
	*fd = disk->count++;
	return 0;
}

static int do_unlink(struct disk *d, enum disk_area area, const char *name)
{
	struct memory_file *file = find(of(d), area, name);

	if (file)
		file->is_gone = true;
	return file ? 0 : -ENOENT;
}

static ssize_t do_read(struct disk *d, int fd, void *out, size_t len, uint64_t offset)
{
	const struct memory_file *file = &of(d)->files[fd];
	uint64_t n = offset < file->size ? MIN(len, file->size - offset) : 0;

	if (n > 0)
		memcpy(out, file->bytes + offset, n);
	return (ssize_t)n;
}

static int do_truncate(struct disk *d, int fd, uint64_t size)
{
	struct memory_file *file = &of(d)->files[fd];

	file->bytes = xrealloc(file->bytes, size ? size : 1);
	if (size > file->size)
		memset(file->bytes + file->size, 0, size - file->size);
	file->size = size;
	return 0;
}

static int do_write(struct disk *d, int fd, const void *bytes, size_t len, uint64_t offset)
{
	if (offset + len > of(d)->files[fd].size)
		do_truncate(d, fd, offset + len);
	if (len > 0)
		memcpy(of(d)->files[fd].bytes + offset, bytes, len);
	return 0;
}

static void do_close(struct disk *d, int fd)
{
	(void)d;
	BUG_ON(fd < 0);
}

static int do_free_bytes(struct disk *d, uint64_t *bytes)
{
	(void)d;
	*bytes = 100 * SEGMENT_BYTES;
	return 0;
}

static int do_sync_now(struct disk *d, int fd)
{
	(void)d;
	(void)fd;
	return 0;
}

static int do_sync_dir(struct disk *d, enum disk_area area)
{
	(void)d;
	(void)area;
	return 0;
}

static void end(struct memory_disk *disk, struct disk_done done)
{
	BUG_ON(disk->done_count == 16);
	disk->done[disk->done_count++] = done;
}

static void do_sync(struct disk *d, int fd, uint64_t token)
{
	(void)fd;
	end(of(d), (struct disk_done){.token = token, .fd = -1});
}

static int do_area_fd(struct disk *d, enum disk_area area)
{
	(void)d;
	return (int)area;
}

static void do_prepare(struct disk *d, const char *name, uint64_t size, uint64_t token)
{
	struct disk_done done = {.token = token, .fd = -1};

	done.result = do_create(d, DISK_JOURNAL, name, size, &done.fd);
	end(of(d), done);
}

static void do_discard(struct disk *d, const char *name, int fd)
{
	(void)fd;
	do_unlink(d, DISK_JOURNAL, name);
}

static bool do_next_done(struct disk *d, struct disk_done *done)
{
	struct memory_disk *disk = of(d);

	if (disk->done_count == 0)
		return false;
	*done = disk->done[0];
	memmove(disk->done, disk->done + 1, (size_t)--disk->done_count * sizeof(disk->done[0]));
	return true;
}

static const struct disk operations = {
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

/* ---- From the input to files ---- */

struct input {
	const uint8_t *at;
	size_t left;
};

static uint32_t take(struct input *input, int bytes)
{
	uint32_t value = 0;

	for (int i = 0; i < bytes; i++) {
		value |= (uint32_t)(input->left ? *input->at : 0) << (8 * i);
		input->at += input->left > 0;
		input->left -= input->left > 0;
	}
	return value;
}

static void make_record(struct input *input, char *bytes, uint64_t *offset)
{
	struct record_header header = {.type = (uint8_t)take(input, 1), .index = (uint16_t)take(input, 1)};
	uint32_t bits;

	header.id = take(input, 1);
	header.watermark.segment = take(input, 1);
	header.watermark.at8 = take(input, 2);
	header.length = take(input, 2);
	bits = take(input, 1);
	header.flags = bits & 8 ? RECORD_MUST_KNOW : 0;
	header.length = (uint32_t)MIN((size_t)header.length, input->left);
	if (*offset + record_bytes(header.length) > SEGMENT_BYTES)
		return;
	if (header.length > 0)
		memcpy(bytes + *offset + RECORD_HEADER_BYTES, input->at, header.length);
	input->at += header.length;
	input->left -= header.length;
	record_seal(bytes + *offset, &header, NONCE, *offset);
	if (bits & 1 && header.length > 0)
		bytes[*offset + RECORD_HEADER_BYTES] = (char)(bytes[*offset + RECORD_HEADER_BYTES] ^ 1);
	if (bits & 2)
		bytes[*offset] = (char)(bytes[*offset] ^ 1);
	*offset += record_bytes(header.length);
	if (bits & 4)
		*offset = record_block_up(*offset);
}

static void make_segment(struct input *input, char *bytes)
{
	struct segment_header header = {.number = take(input, 1), .nonce = NONCE, .previous = take(input, 1)};
	uint64_t offset = SEGMENT_DATA_START;
	uint32_t count;

	header.cut = take(input, 2) * RECORD_ALIGN;
	header.first = take(input, 1);
	header.spool = 1;
	header.previous_nonce = header.previous ? NONCE : 0;
	header.size = SEGMENT_BYTES;
	segment_header_put(bytes, &header);
	count = take(input, 1);
	while (count-- > 0 && input->left > 0 && offset + RECORD_HEADER_BYTES <= SEGMENT_BYTES)
		make_record(input, bytes, &offset);
}

static void make_files(struct memory_disk *disk, struct input *input)
{
	for (int i = 0; i < 6 && input->left > 0; i++) {
		char name[64];
		int fd;
		snprintf(name, sizeof(name), "seg-%016x", i + 1);
		do_create(&disk->disk, DISK_JOURNAL, name, SEGMENT_BYTES, &fd);
		if (take(input, 1) & 1) {
			make_segment(input, disk->files[fd].bytes);
		} else {
			size_t len = take(input, 2);
			len = MIN(len, MIN(input->left, (size_t)SEGMENT_BYTES));
			if (len > 0)
				memcpy(disk->files[fd].bytes, input->at, len);
			input->at += len;
			input->left -= len;
		}
	}
}

/* ---- What a daemon would do with it ---- */

static void visit(void *ctx, const struct queue_brief *brief)
{
	struct queue *queue = ctx;
	struct queue_message message;
	struct queue_content *content;
	char bytes[1000];

	if (queue_read_envelope(queue, brief->id, QUEUE_READ_OUTCOMES, &message) == 0) {
		BUG_ON(message.envelope.recipient_count != brief->recipients);
		queue_message_free(&message);
	}
	content = queue_content_open(queue, brief->id, NULL);
	while (content && queue_content_read(content, bytes, sizeof(bytes)) > 0)
		;
	queue_content_close(&content);
}

static bool run(struct memory_disk *disk, struct clock_virtual *clock, struct queue_report *report)
{
	struct rng_seeded rng;
	struct queue_options options = {
	    .disk = &disk->disk, .clock = &clock->clock, .rng = &rng.rng, .segment_bytes = SEGMENT_BYTES};
	struct queue *queue;
	uint64_t cursor = 0;

	rng_seeded_init(&rng, 7);
	queue = queue_open(&options, report, NULL);
	if (!queue)
		return false;
	queue_iterate(queue, &cursor, 1000000, visit, queue);
	for (int turn = 0; turn < 3; turn++) {
		queue_turn(queue);
		clock_virtual_advance(clock, 1000);
	}
	queue_close(&queue);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct memory_disk disk = {.disk = operations};
	struct input input = {data, size};
	struct clock_virtual clock;
	struct queue_report first, second;

	clock_virtual_init(&clock, 1790000000000);
	make_files(&disk, &input);
	if (run(&disk, &clock, &first)) {
		/* What was put aside is gone, the rest is still there, and a clean journal stays clean. */
		BUG_ON(!run(&disk, &clock, &second));
		BUG_ON(second.messages > first.messages || second.segments_missing > first.segments_missing);
	}
	for (int i = 0; i < disk.count; i++)
		free(disk.files[i].bytes);
	return 0;
}
