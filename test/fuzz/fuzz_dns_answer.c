/*
 * A DNS packet from anywhere, as the answer to its own question, so that it gets past that check; and as text of a
 * name. What comes out must be in bounds, printable, and mean the same when it is written and read again.
 */
#include "base/base.h"
#include "dns/message.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool is_good)
{
	if (!is_good)
		__builtin_trap();
}

static unsigned touch(struct slice s)
{
	unsigned sum = 0;

	for (size_t i = 0; i < s.len; i++)
		sum += (uint8_t)s.ptr[i];
	return sum;
}

static void check_name(const char *name)
{
	char again[DNS_NAME_MAX + 1];
	uint8_t wire[DNS_NAME_WIRE_MAX];
	size_t at = 0, len;

	check(strlen(name) <= DNS_NAME_MAX);
	for (const char *c = name; *c; c++)
		check(*c > ' ' && *c < 0x7f);
	check(dns_name_normalize(slice_of_str(name), again) && strcmp(name, again) == 0);
	len = dns_name_write(name, wire);
	check(dns_name_read(slice_of(wire, len), &at, again) == 0 && at == len && strcmp(name, again) == 0);
	check(!dns_name_is_host(name) || (strlen(name) <= DNS_HOST_MAX && !strchr(name, '\\')));
}

static unsigned touch_record(uint16_t type, const struct dns_record *record)
{
	char text[DNS_ADDRESS_TEXT];

	switch (type) {
	case DNS_A:
	case DNS_AAAA:
		dns_address_format(&record->address, text);
		return touch(slice_of_str(text)) + dns_address_kind(&record->address);
	case DNS_CNAME:
	case DNS_PTR: check_name(record->name); return 0;
	case DNS_MX: check_name(record->mx.host); return record->mx.preference;
	case DNS_TXT: return touch(record->text);
	case DNS_TLSA: return touch(record->tlsa.data) + touch(record->tlsa.rdata);
	}
	check(false);
	return 0;
}

static unsigned touch_answer(const struct dns_answer *answer)
{
	unsigned sum = touch(slice_of_str(answer->reason)) + answer->ad;

	check_name(answer->name);
	check_name(answer->canonical);
	check(answer->status <= DNS_TEMPORARY);
	check(answer->status == DNS_OK || answer->record_count == 0);
	check((answer->status == DNS_OK) == (answer->reason[0] == '\0'));
	check(answer->status != DNS_TEMPORARY || !answer->ad);
	check(answer->ttl_sec <= INT32_MAX);
	check(answer->memory_bytes <= DNS_ANSWER_BYTES_MAX + 65536);
	for (size_t i = 0; i < answer->record_count; i++) {
		check(answer->records[i].ttl_sec >= answer->ttl_sec);
		sum += touch_record(answer->type, &answer->records[i]);
	}
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice packet = slice_of(data, size);
	char name[DNS_NAME_MAX + 1];
	volatile unsigned sum = 0;
	struct dns_answer *answer, *joined;
	uint16_t type = DNS_MX;
	size_t at = 12;

	if (dns_name_normalize(packet, name))
		check_name(name);
	if (size < 12 || dns_name_read(packet, &at, name) < 0)
		name[0] = '\0';
	else if (size - at >= 2)
		type = (uint16_t)(data[at] << 8 | data[at + 1]);
	answer = dns_message_parse(packet, name, type);
	sum += touch_answer(answer);
	joined = dns_answer_join(answer, answer);
	dns_answer_unref((const struct dns_answer **)&answer);
	sum += touch_answer(joined);
	dns_answer_unref((const struct dns_answer **)&joined);
	return (int)(sum & 0);
}
