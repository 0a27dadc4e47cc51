#include "queue/record.h"
#include "queue/xxh3.h"

#include "base/base.h"
#include "base/err.h"

#include <endian.h>

enum {
	AT_HEADER_SUM = 0,
	AT_PAYLOAD_SUM = 4,
	AT_LENGTH = 8,
	AT_TYPE = 12,
	AT_FLAGS = 13,
	AT_INDEX = 14,
	AT_ID = 16,
	AT_MARK_SEGMENT = 24,
	AT_MARK_AT8 = 28,
};

/* Keeps a payload from passing as a header and the reverse. */
#define PAYLOAD_SEED 0x9e3779b97f4a7c15u

void put_u16(char *at, uint16_t value)
{
	value = htole16(value);
	memcpy(at, &value, sizeof(value));
}

void put_u32(char *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

void put_u64(char *at, uint64_t value)
{
	value = htole64(value);
	memcpy(at, &value, sizeof(value));
}

uint16_t get_u16(const char *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return le16toh(value);
}

uint32_t get_u32(const char *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

uint64_t get_u64(const char *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

const char *record_type_name(enum record_type type)
{
	switch (type) {
	case RECORD_DATA: return "DATA";
	case RECORD_MESSAGE: return "MESSAGE";
	case RECORD_RESULT: return "RESULT";
	case RECORD_HOLD: return "HOLD";
	case RECORD_RELEASE: return "RELEASE";
	case RECORD_DONE: return "DONE";
	case RECORD_MOVE: return "MOVE";
	case RECORD_MARK: return "MARK";
	case RECORD_SEAL: return "SEAL";
	case RECORD_WARNED: return "WARNED";
	case RECORD_DELETE: return "DELETE";
	case RECORD_TYPE_COUNT: break;
	}
	return "?";
}

static uint32_t payload_sum(const char *payload, size_t len, uint64_t nonce, uint64_t offset)
{
	return (uint32_t)XXH3_64bits_withSeed(payload, len, nonce + offset + PAYLOAD_SEED);
}

static uint32_t header_sum(const char *at, uint64_t nonce, uint64_t offset)
{
	return (uint32_t)XXH3_64bits_withSeed(at + AT_PAYLOAD_SUM, RECORD_HEADER_BYTES - AT_PAYLOAD_SUM,
					      nonce + offset);
}

void record_stamp(char *at, const struct record_header *header)
{
	put_u32(at + AT_LENGTH, header->length);
	at[AT_TYPE] = (char)header->type;
	at[AT_FLAGS] = (char)header->flags;
	put_u16(at + AT_INDEX, header->index);
	put_u64(at + AT_ID, header->id);
	put_u32(at + AT_MARK_SEGMENT, header->watermark.segment);
	put_u32(at + AT_MARK_AT8, header->watermark.at8);
}

void record_seal(char *at, const struct record_header *header, uint64_t nonce, uint64_t offset)
{
	record_stamp(at, header);
	put_u32(at + AT_PAYLOAD_SUM, payload_sum(at + RECORD_HEADER_BYTES, header->length, nonce, offset));
	put_u32(at + AT_HEADER_SUM, header_sum(at, nonce, offset));
}

void record_peek(const char *at, struct record_header *header)
{
	*header = (struct record_header){
	    .length = get_u32(at + AT_LENGTH),
	    .type = (uint8_t)at[AT_TYPE],
	    .flags = (uint8_t)at[AT_FLAGS],
	    .index = get_u16(at + AT_INDEX),
	    .id = get_u64(at + AT_ID),
	    .watermark = {get_u32(at + AT_MARK_SEGMENT), get_u32(at + AT_MARK_AT8)},
	    .payload_sum = get_u32(at + AT_PAYLOAD_SUM),
	};
}

bool record_open(const char *at, uint64_t nonce, uint64_t offset, struct record_header *header)
{
	/* The common case of a search is unwritten space; a type of 0 is never valid. */
	if (at[AT_TYPE] == 0 || get_u32(at) != header_sum(at, nonce, offset))
		return false;
	record_peek(at, header);
	return true;
}

bool record_payload_ok(const struct record_header *header, const char *payload, uint64_t nonce, uint64_t offset)
{
	return header->payload_sum == payload_sum(payload, header->length, nonce, offset);
}

int tlv_put(struct buf *out, uint8_t tag, struct slice value)
{
	char head[1 + 5];
	size_t n = 0, rest = value.len;
	char *at;

	if (value.len > UINT32_MAX)
		return ERR_LIMIT;
	head[n++] = (char)tag;
	while (rest >= 0x80) {
		head[n++] = (char)(rest | 0x80);
		rest >>= 7;
	}
	head[n++] = (char)rest;
	at = buf_reserve(out, n + value.len);
	if (!at)
		return ERR_LIMIT;
	memcpy(at, head, n);
	if (value.len > 0)
		memcpy(at + n, value.ptr, value.len);
	buf_commit(out, n + value.len);
	return 0;
}

int tlv_put_text(struct buf *out, uint8_t tag, struct slice value)
{
	return value.len > 0 ? tlv_put(out, tag, value) : 0;
}

int tlv_next(struct slice *in, uint8_t *tag, struct slice *value)
{
	struct slice rest = *in;
	uint64_t len = 0;
	unsigned shift = 0;
	uint8_t octet;

	if (rest.len == 0)
		return 0;
	*tag = (uint8_t)rest.ptr[0];
	rest = slice_from(rest, 1);
	do {
		if (rest.len == 0 || shift > 28)
			return ERR_CORRUPT;
		octet = (uint8_t)rest.ptr[0];
		len |= (uint64_t)(octet & 0x7f) << shift;
		shift += 7;
		rest = slice_from(rest, 1);
	} while (octet & 0x80);
	if (len > rest.len)
		return ERR_CORRUPT;
	*value = slice_to(rest, (size_t)len);
	*in = slice_from(rest, (size_t)len);
	return 1;
}
