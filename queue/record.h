/*
 * queue/record.h - one record of the journal: its header, checksums, and the tag-length-value form of payloads
 *
 * The layout is told in queue/journal.h. Pure: bytes in memory, no files.
 */
#ifndef QUEUE_RECORD_H
#define QUEUE_RECORD_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

#define RECORD_HEADER_BYTES 32
#define RECORD_ALIGN 8
#define RECORD_BLOCK 4096

/* The numbers stand in the journal. */
enum record_type {
	RECORD_DATA = 1,
	RECORD_MESSAGE,
	RECORD_RESULT,
	RECORD_HOLD,
	RECORD_RELEASE,
	RECORD_DONE,
	RECORD_MOVE,
	RECORD_MARK,
	RECORD_SEAL,
	RECORD_WARNED,
	RECORD_DELETE,
	RECORD_TYPE_COUNT,
};

enum record_flag {
	RECORD_MUST_KNOW = 0x80, /* a reader that does not know this type refuses the spool */
};

/* Where in the journal; the unit of offsets in memory and on disk is 8 bytes. segment 0: nowhere. */
struct record_place {
	uint32_t segment;
	uint32_t at8;
};

struct record_header {
	uint32_t length; /* of the payload, without padding */
	uint8_t type;
	uint8_t flags;
	uint16_t index; /* DATA: piece; RESULT: recipient; else 0 */
	uint64_t id;
	struct record_place watermark; /* all before it was on stable storage when this was written */
	uint32_t payload_sum;
};

/* The whole record, padded to 8 bytes. */
static inline uint64_t record_bytes(uint32_t payload_length)
{
	return ((uint64_t)RECORD_HEADER_BYTES + payload_length + RECORD_ALIGN - 1) & ~(uint64_t)(RECORD_ALIGN - 1);
}

static inline uint64_t record_block_up(uint64_t offset)
{
	return (offset + RECORD_BLOCK - 1) & ~(uint64_t)(RECORD_BLOCK - 1);
}

const char *record_type_name(enum record_type type);

/* Writes the header of the record whose payload follows at `at` + 32, for the place `offset` in a file with `nonce`. */
void record_seal(char *at, const struct record_header *header, uint64_t nonce, uint64_t offset);
/* The same without checksums, for a record that waits in memory for its place: record_peek() finds the fields. */
void record_stamp(char *at, const struct record_header *header);
/* Reads back what either of them wrote, checksums unchecked; for records in memory. */
void record_peek(const char *at, struct record_header *header);
/* True: the 32 bytes at `at` are a header that was written for just this place. */
bool record_open(const char *at, uint64_t nonce, uint64_t offset, struct record_header *header);
/* True: so is the payload. */
bool record_payload_ok(const struct record_header *header, const char *payload, uint64_t nonce, uint64_t offset);

/* ---- Tag, length, value: a tag octet, a length in LEB128 (7 bits an octet, low first), the value ---- */

#define TLV_MUST_KNOW 0x80 /* bit of the tag: a reader that does not know it refuses the spool */

int tlv_put(struct buf *out, uint8_t tag, struct slice value);
/* Nothing for an empty value. */
int tlv_put_text(struct buf *out, uint8_t tag, struct slice value);

/* Takes the next one off the front of *in: 1, 0 at the end, ERR_CORRUPT: not well formed. */
int tlv_next(struct slice *in, uint8_t *tag, struct slice *value);

/* Little-endian numbers, at any alignment. */
void put_u16(char *at, uint16_t value);
void put_u32(char *at, uint32_t value);
void put_u64(char *at, uint64_t value);
uint16_t get_u16(const char *at);
uint32_t get_u32(const char *at);
uint64_t get_u64(const char *at);

#endif
