#include "dns/message.h"

#include "base/base.h"
#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	HEADER_BYTES = 12,
	RR_FIXED_BYTES = 10, /* type, class, TTL, length */
	CLASS_IN = 1,
	TYPE_OPT = 41,
	RCODE_NXDOMAIN = 3,
	FLAG_QR = 0x8000,
	FLAGS_OPCODE = 0x7800,
	FLAG_AA = 0x0400,
	FLAG_TC = 0x0200,
	FLAG_RD = 0x0100,
	FLAG_RA = 0x0080,
	FLAG_AD = 0x0020,
	FLAGS_RCODE = 0x000f,
};

/* Strings live in chunks, so that an answer is freed as a whole and what it costs is known. */
struct chunk {
	struct chunk *next;
	size_t used, size;
	char bytes[];
};

struct block {
	struct dns_answer answer; /* first: what callers hold */
	struct chunk *chunks;
	struct dns_record *records;
	size_t record_cap;
	const struct dns_answer *tail; /* of a joined answer: the owner of the records */
};

struct rr {
	char owner[DNS_NAME_MAX + 1];
	uint16_t type, class;
	uint32_t ttl;
	size_t data_at, data_len, next_at;
};

struct parser {
	struct slice packet;
	struct block *block;
	uint16_t flags, counts[4]; /* question, answer, authority, additional */
	size_t answer_at;
};

const char *dns_status_name(enum dns_status status)
{
	static const char *const names[] = {"ok", "nxdomain", "nodata", "temporary"};

	return status <= DNS_TEMPORARY ? names[status] : "unknown";
}

const char *dns_type_name(uint16_t type, char out[16])
{
	switch (type) {
	case DNS_A: return "A";
	case DNS_CNAME: return "CNAME";
	case DNS_SOA: return "SOA";
	case DNS_PTR: return "PTR";
	case DNS_MX: return "MX";
	case DNS_TXT: return "TXT";
	case DNS_AAAA: return "AAAA";
	case DNS_TLSA: return "TLSA";
	}
	snprintf(out, 16, "TYPE%u", type);
	return out;
}

static const char *rcode_name(unsigned rcode)
{
	static const char *const names[] = {"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"};

	return rcode < ARRAY_LEN(names) ? names[rcode] : "an error";
}

/* Memory of the answer; NULL over the ceiling. */
static char *block_alloc(struct block *block, size_t len)
{
	struct chunk *chunk = block->chunks;
	char *out;

	if (!chunk || chunk->size - chunk->used < len) {
		size_t size = MAX(len, chunk ? chunk->size * 2 : 192);

		if (block->answer.memory_bytes + size > DNS_ANSWER_BYTES_MAX)
			return NULL;
		chunk = xmalloc(sizeof(*chunk) + size);
		*chunk = (struct chunk){.next = block->chunks, .size = size};
		block->chunks = chunk;
		block->answer.memory_bytes += sizeof(*chunk) + size;
	}
	out = chunk->bytes + chunk->used;
	chunk->used += len;
	return out;
}

static const char *block_copy(struct block *block, const void *bytes, size_t len)
{
	char *out = block_alloc(block, len + 1);

	if (!out)
		return NULL;
	if (len)
		memcpy(out, bytes, len);
	out[len] = '\0';
	return out;
}

static struct dns_record *block_add_record(struct block *block, uint32_t ttl)
{
	struct dns_record *record;

	if (block->answer.record_count == block->record_cap) {
		size_t cap = block->record_cap ? block->record_cap * 2 : 4;
		size_t bytes = (cap - block->record_cap) * sizeof(*record);

		if (block->answer.memory_bytes + bytes > DNS_ANSWER_BYTES_MAX)
			return NULL;
		block->records = xreallocarray(block->records, cap, sizeof(*record));
		block->answer.records = block->records;
		block->answer.memory_bytes += bytes;
		block->record_cap = cap;
	}
	record = &block->records[block->answer.record_count++];
	*record = (struct dns_record){.ttl_sec = ttl};
	return record;
}

static struct block *block_new(const char *name, uint16_t type)
{
	struct block *block = xcalloc(1, sizeof(*block));

	block->answer.references = 1;
	block->answer.memory_bytes = sizeof(*block);
	block->answer.type = type;
	block->answer.reason = "";
	block->answer.name = block_copy(block, name, strlen(name));
	block->answer.canonical = block->answer.name;
	return block;
}

static void drop_records(struct block *block)
{
	free(block->records);
	block->records = NULL;
	block->record_cap = 0;
	block->answer.records = NULL;
	block->answer.record_count = 0;
}

const struct dns_answer *dns_answer_ref(const struct dns_answer *answer)
{
	((struct block *)(uintptr_t)answer)->answer.references++;
	return answer;
}

void dns_answer_unref(const struct dns_answer **answer)
{
	struct block *block = (struct block *)(uintptr_t)*answer;

	*answer = NULL;
	if (!block || --block->answer.references > 0)
		return;
	while (block->chunks) {
		struct chunk *next = block->chunks->next;
		free(block->chunks);
		block->chunks = next;
	}
	free(block->records);
	dns_answer_unref(&block->tail);
	free(block);
}

struct dns_answer *dns_answer_new(const char *name, uint16_t type, enum dns_status status, const char *reason)
{
	struct block *block = block_new(name, type);

	block->answer.status = status;
	block->answer.reason = block_copy(block, reason, strlen(reason));
	return &block->answer;
}

struct dns_answer *dns_answer_join(const struct dns_answer *head, const struct dns_answer *tail)
{
	struct block *block = block_new(head->name, head->type);
	struct dns_answer *answer = &block->answer;

	block->tail = dns_answer_ref(tail);
	answer->status = tail->status;
	answer->rcode = tail->rcode;
	answer->ad = head->ad && tail->ad;
	answer->ttl_sec = MIN(head->ttl_sec, tail->ttl_sec);
	answer->canonical = tail->canonical;
	answer->reason = tail->reason;
	answer->records = tail->records;
	answer->record_count = tail->record_count;
	answer->memory_bytes += tail->memory_bytes;
	return answer;
}

static unsigned get16(struct slice packet, size_t at)
{
	return (unsigned)(uint8_t)packet.ptr[at] << 8 | (uint8_t)packet.ptr[at + 1];
}

static uint32_t get32(struct slice packet, size_t at)
{
	return (uint32_t)get16(packet, at) << 16 | get16(packet, at + 2);
}

static uint8_t *put16(uint8_t *at, unsigned value)
{
	*at++ = (uint8_t)(value >> 8);
	*at++ = (uint8_t)value;
	return at;
}

size_t dns_message_build_query(uint16_t id, const char *name, uint16_t type, bool edns, uint8_t *out)
{
	uint8_t *at = out;

	at = put16(at, id);
	at = put16(at, FLAG_RD | FLAG_AD);
	at = put16(at, 1);
	at = put16(at, 0);
	at = put16(at, 0);
	at = put16(at, edns ? 1 : 0);
	at += dns_name_write(name, at);
	at = put16(at, type);
	at = put16(at, CLASS_IN);
	if (edns) {
		*at++ = 0; /* the root */
		at = put16(at, TYPE_OPT);
		at = put16(at, DNS_EDNS_SIZE);
		at = put16(at, 0); /* extended rcode, version */
		at = put16(at, 0); /* flags */
		at = put16(at, 0); /* no options */
	}
	return (size_t)(at - out);
}

/* RFC 2181 section 8: the highest bit set means 0. */
static uint32_t ttl_of(uint32_t ttl)
{
	return ttl > INT32_MAX ? 0 : ttl;
}

static int read_rr(struct slice packet, size_t at, struct rr *rr)
{
	if (dns_name_read(packet, &at, rr->owner) < 0 || packet.len - at < RR_FIXED_BYTES)
		return ERR_SYNTAX;
	rr->type = (uint16_t)get16(packet, at);
	rr->class = (uint16_t)get16(packet, at + 2);
	rr->ttl = get32(packet, at + 4);
	rr->data_len = get16(packet, at + 8);
	rr->data_at = at + RR_FIXED_BYTES;
	rr->next_at = rr->data_at + rr->data_len;
	return rr->next_at <= packet.len ? 0 : ERR_SYNTAX;
}

/* A name that is the rest of the data, neither more nor less. */
static const char *read_data_name(struct parser *p, const struct rr *rr, size_t at)
{
	char name[DNS_NAME_MAX + 1];

	if (dns_name_read(p->packet, &at, name) < 0 || at != rr->next_at)
		return NULL;
	return block_copy(p->block, name, strlen(name));
}

static int read_address(struct parser *p, const struct rr *rr, struct dns_record *record)
{
	size_t len = rr->type == DNS_A ? 4 : 16;

	if (rr->data_len != len)
		return ERR_SYNTAX;
	record->address.family = rr->type == DNS_A ? DNS_IPV4 : DNS_IPV6;
	memcpy(record->address.bytes, p->packet.ptr + rr->data_at, len);
	return 0;
}

static int read_mx(struct parser *p, const struct rr *rr, struct dns_record *record)
{
	if (rr->data_len < 3)
		return ERR_SYNTAX;
	record->mx.preference = (uint16_t)get16(p->packet, rr->data_at);
	record->mx.host = read_data_name(p, rr, rr->data_at + 2);
	return record->mx.host ? 0 : ERR_SYNTAX;
}

/* Character strings, each with a length octet, joined without anything between them (RFC 7208 section 3.3). */
static int read_txt(struct parser *p, const struct rr *rr, struct dns_record *record)
{
	char *out = block_alloc(p->block, rr->data_len + 1);
	size_t len = 0;

	if (!out || rr->data_len == 0)
		return ERR_SYNTAX;
	for (size_t at = rr->data_at; at < rr->next_at;) {
		size_t n = (uint8_t)p->packet.ptr[at++];

		if (n > rr->next_at - at)
			return ERR_SYNTAX;
		memcpy(out + len, p->packet.ptr + at, n);
		len += n;
		at += n;
	}
	out[len] = '\0';
	record->text = slice_of(out, len);
	return 0;
}

/* RFC 6698 section 2.1. */
static int read_tlsa(struct parser *p, const struct rr *rr, struct dns_record *record)
{
	const char *data;

	if (rr->data_len < 4)
		return ERR_SYNTAX;
	data = block_copy(p->block, p->packet.ptr + rr->data_at, rr->data_len);
	if (!data)
		return ERR_SYNTAX;
	record->tlsa.usage = (uint8_t)data[0];
	record->tlsa.selector = (uint8_t)data[1];
	record->tlsa.matching = (uint8_t)data[2];
	record->tlsa.data = slice_of(data + 3, rr->data_len - 3);
	record->tlsa.rdata = slice_of(data, rr->data_len);
	return 0;
}

static int read_record(struct parser *p, const struct rr *rr)
{
	struct dns_record *record = block_add_record(p->block, ttl_of(rr->ttl));

	if (!record)
		return ERR_LIMIT;
	switch (rr->type) {
	case DNS_A:
	case DNS_AAAA: return read_address(p, rr, record);
	case DNS_MX: return read_mx(p, rr, record);
	case DNS_TXT: return read_txt(p, rr, record);
	case DNS_TLSA: return read_tlsa(p, rr, record);
	case DNS_CNAME:
	case DNS_PTR: record->name = read_data_name(p, rr, rr->data_at); return record->name ? 0 : ERR_SYNTAX;
	}
	p->block->answer.record_count--;
	return 0;
}

struct alias {
	const char *owner, *target;
	uint32_t ttl;
};

static const char words_too_large[] = "the DNS answer is too large";
static const char words_malformed[] = "the DNS answer is malformed";
static const char words_aliases[] = "the DNS answer has too many aliases, or they go in circles";

/* All aliases of the answer section, which also proves its framing. NULL, or what is wrong. */
static const char *collect_aliases(struct parser *p, struct alias *aliases, size_t *count, size_t *authority_at)
{
	struct rr rr;
	size_t at = p->answer_at;

	for (unsigned i = 0; i < p->counts[1]; i++, at = rr.next_at) {
		if (read_rr(p->packet, at, &rr) < 0)
			return words_malformed;
		if (rr.type != DNS_CNAME || rr.class != CLASS_IN)
			continue;
		if (*count == DNS_CNAME_MAX)
			return words_aliases;
		aliases[*count].owner = block_copy(p->block, rr.owner, strlen(rr.owner));
		aliases[*count].target = read_data_name(p, &rr, rr.data_at);
		aliases[*count].ttl = ttl_of(rr.ttl);
		if (!aliases[*count].owner || !aliases[*count].target)
			return words_malformed;
		++*count;
	}
	*authority_at = at;
	return NULL;
}

static void lower_ttl(struct dns_answer *answer, uint32_t ttl)
{
	answer->ttl_sec = MIN(answer->ttl_sec, ttl);
}

/* Follows the aliases from the question, in whatever order they stand (RFC 1034 section 3.6.2). */
static const char *follow_aliases(struct parser *p, size_t *authority_at)
{
	struct alias aliases[DNS_CNAME_MAX] = {0};
	struct dns_answer *answer = &p->block->answer;
	size_t count = 0, hops = 0;
	const char *why = collect_aliases(p, aliases, &count, authority_at);

	if (why || answer->type == DNS_CNAME)
		return why;
	for (size_t i = 0; i < count;) {
		if (strcmp(aliases[i].owner, answer->canonical) != 0) {
			i++;
			continue;
		}
		if (++hops > count)
			return words_aliases;
		answer->canonical = aliases[i].target;
		lower_ttl(answer, aliases[i].ttl);
		i = 0;
	}
	return NULL;
}

static const char *collect_records(struct parser *p)
{
	struct dns_answer *answer = &p->block->answer;
	struct rr rr;
	size_t at = p->answer_at;

	for (unsigned i = 0; i < p->counts[1]; i++, at = rr.next_at) {
		int result;

		if (read_rr(p->packet, at, &rr) < 0)
			return words_malformed;
		if (rr.type != answer->type || rr.class != CLASS_IN || strcmp(rr.owner, answer->canonical) != 0)
			continue;
		result = read_record(p, &rr);
		if (result < 0)
			return result == ERR_LIMIT ? words_too_large : words_malformed;
		lower_ttl(answer, ttl_of(rr.ttl));
	}
	return NULL;
}

/* RFC 2308 section 5: the lesser of the SOA's own TTL and its last field. */
static int read_soa(struct parser *p, const struct rr *rr, uint32_t *ttl)
{
	char name[DNS_NAME_MAX + 1];
	size_t at = rr->data_at;

	if (dns_name_read(p->packet, &at, name) < 0 || dns_name_read(p->packet, &at, name) < 0 ||
	    at + 20 != rr->next_at)
		return ERR_SYNTAX;
	*ttl = MIN(ttl_of(rr->ttl), ttl_of(get32(p->packet, at + 16)));
	return 0;
}

/* What the rest of a negative answer says: a failure may hide in the OPT record, and a referral is no answer. */
static const char *check_negative(struct parser *p, size_t at)
{
	struct dns_answer *answer = &p->block->answer;
	struct rr rr;
	bool has_soa = false;
	uint32_t soa_ttl = 0;

	for (unsigned i = 0; i < (unsigned)p->counts[2] + p->counts[3]; i++, at = rr.next_at) {
		if (read_rr(p->packet, at, &rr) < 0)
			return words_malformed;
		if (i < p->counts[2] && rr.type == DNS_SOA && !has_soa) {
			if (read_soa(p, &rr, &soa_ttl) < 0)
				return words_malformed;
			has_soa = true;
		}
		if (i >= p->counts[2] && rr.type == TYPE_OPT && rr.ttl >> 24 != 0)
			return "the DNS server answered with an extended error";
	}
	if (!has_soa && !(p->flags & (FLAG_RA | FLAG_AA)))
		return "the DNS server only refers to others: it is no resolver";
	lower_ttl(answer, soa_ttl);
	return NULL;
}

static const char *read_header(struct parser *p)
{
	const struct dns_answer *answer = &p->block->answer;
	char name[DNS_NAME_MAX + 1];
	size_t at = HEADER_BYTES;

	if (p->packet.len < HEADER_BYTES)
		return words_malformed;
	p->flags = (uint16_t)get16(p->packet, 2);
	for (int i = 0; i < 4; i++)
		p->counts[i] = (uint16_t)get16(p->packet, 4 + 2 * (size_t)i);
	if (!(p->flags & FLAG_QR) || (p->flags & FLAGS_OPCODE) || p->counts[0] != 1)
		return words_malformed;
	if (dns_name_read(p->packet, &at, name) < 0 || p->packet.len - at < 4)
		return words_malformed;
	if (strcmp(name, answer->name) != 0 || get16(p->packet, at) != answer->type ||
	    get16(p->packet, at + 2) != CLASS_IN)
		return "the DNS answer is to another question";
	p->answer_at = at + 4;
	return NULL;
}

static const char *parse(struct parser *p)
{
	struct dns_answer *answer = &p->block->answer;
	size_t authority_at;
	const char *why = read_header(p);

	if (why)
		return why;
	answer->rcode = p->flags & FLAGS_RCODE;
	if (answer->rcode != 0 && answer->rcode != RCODE_NXDOMAIN)
		return rcode_name(answer->rcode);
	if (p->flags & FLAG_TC)
		return "the DNS answer is truncated";
	answer->ad = (p->flags & FLAG_AD) != 0;
	answer->ttl_sec = INT32_MAX;
	why = follow_aliases(p, &authority_at);
	if (!why && answer->rcode == 0)
		why = collect_records(p);
	if (why || answer->record_count > 0)
		return why;
	answer->status = answer->rcode == RCODE_NXDOMAIN ? DNS_NXDOMAIN : DNS_NODATA;
	answer->reason = answer->rcode == RCODE_NXDOMAIN ? "no such name" : "no record of this type";
	/* An alias without a word about its target: the caller must ask for it. */
	if (answer->status == DNS_NODATA && answer->canonical != answer->name && p->counts[2] == 0) {
		answer->status = DNS_OK;
		answer->reason = "";
		return NULL;
	}
	return check_negative(p, authority_at);
}

struct dns_answer *dns_message_parse(struct slice packet, const char *name, uint16_t type)
{
	struct parser p = {.packet = packet, .block = block_new(name, type)};
	struct dns_answer *answer = &p.block->answer;
	const char *why = parse(&p);

	if (!why)
		return answer;
	drop_records(p.block);
	answer->status = DNS_TEMPORARY;
	answer->reason = why;
	answer->ad = false;
	answer->ttl_sec = 0;
	answer->canonical = answer->name;
	return answer;
}
