/*
 * TLSA RDATA from DNS and a certificate chain from a server, both hostile.
 * Input: one octet, the number of RDATA (low four bits); each as one length octet and its data; what is left is the
 * chain, each certificate as a two-octet length and its DER.
 */
#include "tls/dane.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct slice take(struct slice *input, size_t len)
{
	struct slice piece = slice_to(*input, len);

	*input = slice_from(*input, piece.len);
	return piece;
}

static size_t take_number(struct slice *input, size_t octets)
{
	struct slice piece = take(input, octets);
	size_t number = 0;

	for (size_t i = 0; i < piece.len; i++)
		number = number << 8 | (uint8_t)piece.ptr[i];
	return number;
}

static unsigned touch(struct slice s)
{
	unsigned sum = 0;

	for (size_t i = 0; i < s.len; i++)
		sum += (uint8_t)s.ptr[i];
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"mx.example.org", "example.org"};
	struct slice input = slice_of(data, size), chain[20];
	struct tls_tlsa records[16];
	size_t record_count = 0, chain_count = 0, matched = SIZE_MAX;
	struct err why = {0};
	volatile unsigned sum = 0;

	for (size_t n = take_number(&input, 1) & 15; n > 0; n--)
		if (tls_tlsa_parse(take(&input, take_number(&input, 1)), &records[record_count]))
			sum += touch(records[record_count++].data);
	while (input.len && chain_count < 20)
		chain[chain_count++] = take(&input, take_number(&input, 2));
	if (tls_dane_match(chain, chain_count, records, record_count, names, 2, &matched, &why) == TLS_DANE_MATCH &&
	    matched >= record_count)
		__builtin_trap();
	sum += touch(slice_of_str(why.text));
	return (int)(sum & 0);
}
