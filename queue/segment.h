/*
 * queue/segment.h - a file of the journal: its header, the table of those in use, and a reader that trusts nothing
 */
#ifndef QUEUE_SEGMENT_H
#define QUEUE_SEGMENT_H

#include "queue/disk.h"
#include "queue/record.h"

#define SEGMENT_VERSION 1
#define SEGMENT_HEADER_BYTES 128
#define SEGMENT_DATA_START (2 * RECORD_BLOCK) /* the header stands in each of the first two blocks */
#define SEGMENT_NAME_MAX 40

struct segment_header {
	uint32_t number;   /* grows, never used again */
	uint64_t nonce;	   /* random: seeds all checksums of the segment */
	uint32_t previous; /* 0: none */
	uint64_t cut;	   /* the previous segment counts up to here; beyond it everything is void */
	/* What stood in the header of the previous one, should both its copies be lost: */
	uint64_t previous_nonce, previous_cut;
	uint32_t previous_previous;
	uint32_t first;	   /* the oldest segment that is still needed */
	uint64_t id_floor; /* the lowest message id that has not been given out */
	uint64_t spool;	   /* random, once per spool: its low bits stand in the ids */
	int64_t created_wall;
	uint64_t size; /* of the file when it was made */
};

/* Makes `header` the successor of a segment that counts up to `cut`. */
void segment_header_link(struct segment_header *header, const struct segment_header *previous, uint64_t cut);
/* Both copies, with zeros between, into SEGMENT_DATA_START bytes. */
void segment_header_put(char *blocks, const struct segment_header *header);
/* From the first `len` bytes of a file: 1: read from a copy that is sound; 0: there is none; ERR_VERSION:
 * sound, but of a newer format. */
int segment_header_get(const char *blocks, size_t len, struct segment_header *header);

/* ---- The table ---- */

struct segment {
	struct segment_header header;
	char name[SEGMENT_NAME_MAX];
	int fd;
	uint64_t bytes;	 /* what the file takes on disk */
	uint64_t end;	 /* the next batch goes here; in all but the newest: what counts ends here */
	uint64_t synced; /* on stable storage up to here; 0: nothing is, not even the header */
	bool is_void;	 /* poisoned or replayed: the rest behind `end` is cut off once its successor stands */
	uint32_t live;	 /* records of it that are needed: messages and pieces */
	uint64_t live_bytes;
};

/* Ascending by number. Owns the segments and their descriptors. */
struct segments {
	struct disk *disk;
	struct segment **items;
	uint32_t count, cap;
	uint64_t live_bytes;
	uint64_t released_bytes; /* ever */
};

void segments_init(struct segments *segments, struct disk *disk);
void segments_fini(struct segments *segments);
/* Takes it over; its number is higher than all others. */
void segments_add(struct segments *segments, struct segment *segment);
/* The first `count` leave the table; the caller owns them. */
void segments_drop_first(struct segments *segments, uint32_t count);
/* Takes one out of the table; the caller owns it. */
void segments_take(struct segments *segments, struct segment *segment);
/* NULL: not in the table. */
struct segment *segments_find(const struct segments *segments, uint32_t number);
/* A record at `place` with this payload is needed, or no longer. Nowhere (segment 0) is ignored. */
void segments_keep(struct segments *segments, struct record_place place, uint32_t payload_length);
void segments_release(struct segments *segments, struct record_place place, uint32_t payload_length);
/* Bytes of all files. */
uint64_t segments_bytes(const struct segments *segments);

/* Closes its descriptor and frees it. */
void segment_free(struct segment **segment, struct disk *disk);

/* Reads and checks the record at `place`, whose payload should have `length` octets, into `out` (RECORD_HEADER_BYTES +
 * length of room). 0; ERR_CORRUPT: it is not what was written there; ERR_IO. */
int segments_read(const struct segments *segments, struct record_place place, uint32_t length, char *out,
		  struct record_header *header);

/* ---- The reader: a window that moves over a file ---- */

struct scan {
	struct disk *disk;
	int fd;
	uint64_t nonce;
	uint64_t limit; /* reads nothing at or behind it */
	char *window;
	size_t cap;
	uint64_t start; /* of the window in the file */
	size_t len;
	uint64_t bytes_read;
	uint32_t read_errors; /* blocks that the disk would not give; they read as zero */
};

void scan_init(struct scan *scan, struct disk *disk, int fd, uint64_t nonce, uint64_t limit);
void scan_fini(struct scan *scan);
/* True: a sound header of a record that ends before the limit stands at `offset`. */
bool scan_header(struct scan *scan, uint64_t offset, struct record_header *header);
/* The payload behind it, valid until the next call; false: its checksum is wrong. */
bool scan_payload(struct scan *scan, uint64_t offset, const struct record_header *header, struct slice *payload);
/* The next offset at or behind `from` where a record stands with header and payload sound; the limit: none. */
uint64_t scan_next_valid(struct scan *scan, uint64_t from);
/* `len` raw bytes, valid until the next call. */
const char *scan_bytes(struct scan *scan, uint64_t offset, size_t len);
/* The end of the last byte that is not zero in from .. limit; `from`: all are. */
uint64_t scan_last_nonzero(struct scan *scan, uint64_t from);

#endif
