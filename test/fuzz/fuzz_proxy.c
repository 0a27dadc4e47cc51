/* What a balancer, or somebody who plays one, sends first: whole and in pieces of the first octet's size. Both must
 * read the same header, take the same octets and none behind it, and say the same words. */
#include "base/base.h"
#include "relayd/proxy_protocol.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
	int rc;
	size_t taken;
	struct proxy_header header;
	struct err err;
};

static void run(struct slice bytes, size_t step, struct result *out)
{
	struct proxy_reader reader;

	*out = (struct result){0};
	proxy_reader_init(&reader);
	while (out->rc == 0 && bytes.len) {
		struct slice piece = slice_to(bytes, step);
		size_t taken = 0;
		out->rc = proxy_reader_input(&reader, piece, &taken, &out->header, &out->err);
		BUG_ON(taken > piece.len || (out->rc == 0 && taken < piece.len));
		out->taken += taken;
		bytes = slice_from(bytes, taken);
	}
}

static void look_at(const struct result *result)
{
	char text[DNS_ADDRESS_TEXT];

	if (result->rc < 0)
		BUG_ON(!result->err.text[0]);
	BUG_ON(result->taken > PROXY_HEADER_MAX_BYTES);
	if (result->rc != 1 || !result->header.names_client)
		return;
	BUG_ON(result->header.client.family != DNS_IPV4 && result->header.client.family != DNS_IPV6);
	dns_address_format(&result->header.client, text);
	BUG_ON(!text[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice bytes = slice_from(slice_of(data, size), 1);
	struct result whole, cut;

	if (size < 2)
		return 0;
	run(bytes, bytes.len, &whole);
	run(bytes, 1 + data[0] % 32, &cut);
	look_at(&whole);
	BUG_ON(whole.rc != cut.rc);
	if (whole.rc != 1)
		return 0;
	BUG_ON(whole.taken != cut.taken || whole.header.names_client != cut.header.names_client);
	if (whole.header.names_client)
		BUG_ON(!dns_address_eq(&whole.header.client, &cut.header.client) ||
		       whole.header.port != cut.header.port);
	return 0;
}
