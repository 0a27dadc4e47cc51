#include "queue/segment.h"
#include "queue/xxh3.h"

#include "base/base.h"

#include <stdlib.h>

/* ---- The header ---- */

enum {
	AT_MAGIC = 0,
	AT_VERSION = 8,
	AT_LENGTH = 10,
	AT_COPY = 12,
	AT_NUMBER = 16,
	AT_NONCE = 24,
	AT_PREVIOUS = 32,
	AT_CUT = 40,
	AT_FIRST = 48,
	AT_ID_FLOOR = 56,
	AT_SPOOL = 64,
	AT_CREATED = 72,
	AT_SIZE = 80,
	AT_PREVIOUS_NONCE = 88,
	AT_PREVIOUS_PREVIOUS = 96,
	AT_PREVIOUS_CUT = 104,
	AT_SUM = SEGMENT_HEADER_BYTES - 8,
};

#define MAGIC "RELAYDJ\n"
#define HEADER_SEED 0x52454c415944u
#define WINDOW_BYTES (256 * 1024)
#define READ_TRIES 4
#define PEEK_BYTES 4096 /* after a jump over a body only so much is read */

static uint64_t header_sum(const char *at)
{
	return XXH3_64bits_withSeed(at, AT_SUM, HEADER_SEED);
}

void segment_header_link(struct segment_header *header, const struct segment_header *previous, uint64_t cut)
{
	header->previous = previous->number;
	header->cut = cut;
	header->previous_nonce = previous->nonce;
	header->previous_previous = previous->previous;
	header->previous_cut = previous->cut;
}

void segment_header_put(char *blocks, const struct segment_header *header)
{
	memset(blocks, 0, SEGMENT_DATA_START);
	for (uint32_t copy = 0; copy < 2; copy++) {
		char *at = blocks + copy * RECORD_BLOCK;
		memcpy(at + AT_MAGIC, MAGIC, 8);
		put_u16(at + AT_VERSION, SEGMENT_VERSION);
		put_u16(at + AT_LENGTH, SEGMENT_HEADER_BYTES);
		put_u32(at + AT_COPY, copy);
		put_u64(at + AT_NUMBER, header->number);
		put_u64(at + AT_NONCE, header->nonce);
		put_u64(at + AT_PREVIOUS, header->previous);
		put_u64(at + AT_CUT, header->cut);
		put_u64(at + AT_FIRST, header->first);
		put_u64(at + AT_ID_FLOOR, header->id_floor);
		put_u64(at + AT_SPOOL, header->spool);
		put_u64(at + AT_CREATED, (uint64_t)header->created_wall);
		put_u64(at + AT_SIZE, header->size);
		put_u64(at + AT_PREVIOUS_NONCE, header->previous_nonce);
		put_u64(at + AT_PREVIOUS_PREVIOUS, header->previous_previous);
		put_u64(at + AT_PREVIOUS_CUT, header->previous_cut);
		put_u64(at + AT_SUM, header_sum(at));
	}
}

static int get_copy(const char *at, uint32_t copy, struct segment_header *header)
{
	if (memcmp(at + AT_MAGIC, MAGIC, 8) != 0 || get_u64(at + AT_SUM) != header_sum(at) ||
	    get_u32(at + AT_COPY) != copy)
		return 0;
	if (get_u16(at + AT_VERSION) > SEGMENT_VERSION || get_u64(at + AT_NUMBER) > UINT32_MAX)
		return ERR_VERSION;
	*header = (struct segment_header){
	    .number = (uint32_t)get_u64(at + AT_NUMBER),
	    .nonce = get_u64(at + AT_NONCE),
	    .previous = (uint32_t)get_u64(at + AT_PREVIOUS),
	    .cut = get_u64(at + AT_CUT),
	    .first = (uint32_t)get_u64(at + AT_FIRST),
	    .id_floor = get_u64(at + AT_ID_FLOOR),
	    .spool = get_u64(at + AT_SPOOL),
	    .created_wall = (int64_t)get_u64(at + AT_CREATED),
	    .size = get_u64(at + AT_SIZE),
	    .previous_nonce = get_u64(at + AT_PREVIOUS_NONCE),
	    .previous_previous = (uint32_t)get_u64(at + AT_PREVIOUS_PREVIOUS),
	    .previous_cut = get_u64(at + AT_PREVIOUS_CUT),
	};
	return header->number > 0 && header->previous < header->number;
}

int segment_header_get(const char *blocks, size_t len, struct segment_header *header)
{
	int found = 0;

	for (uint32_t copy = 0; copy < 2; copy++) {
		struct segment_header read;
		int rc = 0;
		if (len >= copy * RECORD_BLOCK + SEGMENT_HEADER_BYTES)
			rc = get_copy(blocks + copy * RECORD_BLOCK, copy, &read);
		if (rc < 0)
			return rc;
		/* Should one copy be a stale block of a file that is gone, the other has the higher number. */
		if (rc == 1 && (!found || read.number > header->number))
			*header = read;
		found |= rc;
	}
	return found;
}

/* ---- The table ---- */

void segments_init(struct segments *segments, struct disk *disk)
{
	*segments = (struct segments){.disk = disk};
}

void segments_fini(struct segments *segments)
{
	for (uint32_t i = 0; i < segments->count; i++)
		segment_free(&segments->items[i], segments->disk);
	free(segments->items);
	*segments = (struct segments){.disk = segments->disk};
}

void segment_free(struct segment **segment, struct disk *disk)
{
	if (!*segment)
		return;
	if ((*segment)->fd >= 0)
		disk->close(disk, (*segment)->fd);
	free(*segment);
	*segment = NULL;
}

void segments_add(struct segments *segments, struct segment *segment)
{
	BUG_ON(segments->count > 0 && segments->items[segments->count - 1]->header.number >= segment->header.number);
	if (segments->count == segments->cap) {
		segments->cap = segments->cap ? segments->cap * 2 : 16;
		segments->items = xreallocarray(segments->items, segments->cap, sizeof(segments->items[0]));
	}
	segments->items[segments->count++] = segment;
}

void segments_drop_first(struct segments *segments, uint32_t count)
{
	BUG_ON(count > segments->count);
	segments->count -= count;
	memmove(segments->items, segments->items + count, segments->count * sizeof(segments->items[0]));
}

void segments_take(struct segments *segments, struct segment *segment)
{
	uint32_t i = 0;

	while (i < segments->count && segments->items[i] != segment)
		i++;
	BUG_ON(i == segments->count);
	segments->count--;
	memmove(segments->items + i, segments->items + i + 1, (segments->count - i) * sizeof(segments->items[0]));
}

struct segment *segments_find(const struct segments *segments, uint32_t number)
{
	uint32_t low = 0, high = segments->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (segments->items[middle]->header.number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low < segments->count && segments->items[low]->header.number == number ? segments->items[low] : NULL;
}

void segments_keep(struct segments *segments, struct record_place place, uint32_t payload_length)
{
	struct segment *segment = place.segment ? segments_find(segments, place.segment) : NULL;

	if (!segment)
		return;
	segment->live++;
	segment->live_bytes += record_bytes(payload_length);
	segments->live_bytes += record_bytes(payload_length);
}

void segments_release(struct segments *segments, struct record_place place, uint32_t payload_length)
{
	struct segment *segment = place.segment ? segments_find(segments, place.segment) : NULL;

	if (!segment)
		return;
	BUG_ON(segment->live == 0);
	segment->live--;
	segment->live_bytes -= record_bytes(payload_length);
	segments->live_bytes -= record_bytes(payload_length);
	segments->released_bytes += record_bytes(payload_length);
}

uint64_t segments_bytes(const struct segments *segments)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < segments->count; i++)
		bytes += segments->items[i]->bytes;
	return bytes;
}

int segments_read(const struct segments *segments, struct record_place place, uint32_t length, char *out,
		  struct record_header *header)
{
	const struct segment *segment = segments_find(segments, place.segment);
	uint64_t offset = (uint64_t)place.at8 * RECORD_ALIGN;
	size_t want = RECORD_HEADER_BYTES + (size_t)length;
	ssize_t n;

	if (!segment)
		return ERR_CORRUPT;
	n = segments->disk->read(segments->disk, segment->fd, out, want, offset);
	if (n < 0)
		return ERR_IO;
	if ((size_t)n < want || !record_open(out, segment->header.nonce, offset, header) || header->length != length ||
	    !record_payload_ok(header, out + RECORD_HEADER_BYTES, segment->header.nonce, offset))
		return ERR_CORRUPT;
	return 0;
}

/* ---- The reader ---- */

void scan_init(struct scan *scan, struct disk *disk, int fd, uint64_t nonce, uint64_t limit)
{
	*scan = (struct scan){.disk = disk, .fd = fd, .nonce = nonce, .limit = limit};
}

void scan_fini(struct scan *scan)
{
	free(scan->window);
	scan->window = NULL;
}

/* An error that passes must not cost what it hid. */
static ssize_t read_stubbornly(struct scan *scan, char *out, size_t len, uint64_t offset)
{
	ssize_t n = -1;

	for (int tries = 0; tries < READ_TRIES && n < 0; tries++)
		n = scan->disk->read(scan->disk, scan->fd, out, len, offset);
	return n;
}

/* Block by block, so that a bad sector costs only itself. */
static void fill_around_errors(struct scan *scan, size_t want)
{
	for (size_t at = 0; at < want; at += RECORD_BLOCK) {
		size_t len = MIN((size_t)RECORD_BLOCK, want - at);
		ssize_t n = read_stubbornly(scan, scan->window + at, len, scan->start + at);
		if (n < 0)
			scan->read_errors++;
		if (n < (ssize_t)len)
			memset(scan->window + at + MAX(n, 0), 0, len - (size_t)MAX(n, 0));
	}
}

/* Brings offset .. offset + len into the window; bytes behind the end of the file read as zero. */
static void fill(struct scan *scan, uint64_t offset, size_t len)
{
	bool goes_on = offset >= scan->start && offset <= scan->start + scan->len;
	size_t least = goes_on ? WINDOW_BYTES : PEEK_BYTES;
	size_t want = (size_t)MIN(MAX(len, least), scan->limit - offset);
	ssize_t n;

	if (scan->cap < want) {
		scan->cap = MAX(want, MIN((size_t)WINDOW_BYTES, (size_t)scan->limit));
		free(scan->window);
		scan->window = xmalloc(scan->cap);
	}
	scan->start = offset;
	scan->len = want;
	n = scan->disk->read(scan->disk, scan->fd, scan->window, want, offset);
	if (n < 0)
		fill_around_errors(scan, want);
	else
		memset(scan->window + n, 0, want - (size_t)n);
	scan->bytes_read += want;
}

const char *scan_bytes(struct scan *scan, uint64_t offset, size_t len)
{
	BUG_ON(offset + len > scan->limit);
	if (offset < scan->start || offset + len > scan->start + scan->len)
		fill(scan, offset, len);
	return scan->window + (offset - scan->start);
}

bool scan_header(struct scan *scan, uint64_t offset, struct record_header *header)
{
	if (offset + RECORD_HEADER_BYTES > scan->limit)
		return false;
	return record_open(scan_bytes(scan, offset, RECORD_HEADER_BYTES), scan->nonce, offset, header) &&
	       offset + record_bytes(header->length) <= scan->limit;
}

bool scan_payload(struct scan *scan, uint64_t offset, const struct record_header *header, struct slice *payload)
{
	const char *at = scan_bytes(scan, offset, RECORD_HEADER_BYTES + (size_t)header->length) + RECORD_HEADER_BYTES;

	*payload = slice_of(at, header->length);
	return record_payload_ok(header, at, scan->nonce, offset);
}

uint64_t scan_next_valid(struct scan *scan, uint64_t from)
{
	struct record_header header;
	struct slice payload;

	for (uint64_t offset = from; offset + RECORD_HEADER_BYTES <= scan->limit; offset += RECORD_ALIGN)
		if (scan_header(scan, offset, &header) && scan_payload(scan, offset, &header, &payload))
			return offset;
	return scan->limit;
}

uint64_t scan_last_nonzero(struct scan *scan, uint64_t from)
{
	uint64_t last = from;

	while (from < scan->limit) {
		size_t len = (size_t)MIN((uint64_t)RECORD_BLOCK, scan->limit - from);
		const char *at = scan_bytes(scan, from, len);
		for (size_t i = len; i > 0; i--) {
			if (at[i - 1] != 0) {
				last = from + i;
				break;
			}
		}
		from += len;
	}
	return last;
}
