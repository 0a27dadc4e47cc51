#include "dns/address.h"

#include "base/err.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool dns_address_parse(struct slice text, struct dns_address *out)
{
	char copy[DNS_ADDRESS_TEXT];

	*out = (struct dns_address){0};
	if (!slice_to_cstr(text, copy, sizeof(copy)) || strlen(copy) != text.len)
		return false;
	if (inet_pton(AF_INET, copy, out->bytes) == 1)
		out->family = DNS_IPV4;
	else if (inet_pton(AF_INET6, copy, out->bytes) == 1)
		out->family = DNS_IPV6;
	return out->family != 0;
}

bool dns_address_parse_literal(struct slice text, struct dns_address *out)
{
	bool is_tagged;

	*out = (struct dns_address){0};
	if (text.len < 2 || text.ptr[0] != '[' || text.ptr[text.len - 1] != ']')
		return false;
	text = slice_of(text.ptr + 1, text.len - 2);
	is_tagged = slice_has_case_prefix(text, SLICE("IPv6:"));
	if (is_tagged)
		text = slice_from(text, 5);
	if (dns_address_parse(text, out) && is_tagged == (out->family == DNS_IPV6))
		return true;
	*out = (struct dns_address){0};
	return false;
}

void dns_address_format(const struct dns_address *address, char out[DNS_ADDRESS_TEXT])
{
	out[0] = '\0';
	if (address->family == DNS_IPV4)
		inet_ntop(AF_INET, address->bytes, out, DNS_ADDRESS_TEXT);
	else if (address->family == DNS_IPV6)
		inet_ntop(AF_INET6, address->bytes, out, DNS_ADDRESS_TEXT);
}

void dns_address_format_reverse(const struct dns_address *address, char out[DNS_ADDRESS_REVERSE_TEXT])
{
	const uint8_t *b = address->bytes;

	if (address->family == DNS_IPV4) {
		snprintf(out, DNS_ADDRESS_REVERSE_TEXT, "%u.%u.%u.%u.in-addr.arpa", b[3], b[2], b[1], b[0]);
		return;
	}
	for (size_t i = 0; i < 16; i++)
		snprintf(out + 4 * i, 5, "%x.%x.", b[15 - i] & 15, b[15 - i] >> 4);
	snprintf(out + 64, DNS_ADDRESS_REVERSE_TEXT - 64, "ip6.arpa");
}

static struct dns_address unmap(const struct dns_address *address)
{
	struct dns_address out = {.family = DNS_IPV4};

	if (address->family != DNS_IPV6 || memcmp(address->bytes, mapped_prefix, sizeof(mapped_prefix)) != 0)
		return *address;
	memcpy(out.bytes, address->bytes + sizeof(mapped_prefix), 4);
	return out;
}

bool dns_address_eq(const struct dns_address *a, const struct dns_address *b)
{
	struct dns_address x = unmap(a), y = unmap(b);

	return x.family == y.family && memcmp(x.bytes, y.bytes, x.family == DNS_IPV4 ? 4 : 16) == 0;
}

struct dns_address dns_address_client(const struct dns_address *address)
{
	struct dns_address client = unmap(address);

	if (client.family == DNS_IPV6)
		memset(client.bytes + 8, 0, 8);
	return client;
}

static enum dns_address_kind kind_of_ipv4(const uint8_t *b)
{
	if (b[0] == 0)
		return DNS_ADDRESS_UNSPECIFIED;
	if (b[0] == 127)
		return DNS_ADDRESS_LOOPBACK;
	if (b[0] == 169 && b[1] == 254)
		return DNS_ADDRESS_LINK_LOCAL;
	if ((b[0] & 0xf0) == 0xe0 || (b[0] & b[1] & b[2] & b[3]) == 0xff)
		return DNS_ADDRESS_MULTICAST;
	return b[0] >= 240 ? DNS_ADDRESS_RESERVED : DNS_ADDRESS_GLOBAL;
}

static enum dns_address_kind kind_of_ipv6(const uint8_t *b)
{
	static const uint8_t zero[15];

	if (memcmp(b, zero, 15) == 0 && b[15] <= 1)
		return b[15] ? DNS_ADDRESS_LOOPBACK : DNS_ADDRESS_UNSPECIFIED;
	if (b[0] == 0xfe && (b[1] & 0xc0) == 0x80)
		return DNS_ADDRESS_LINK_LOCAL;
	return b[0] == 0xff ? DNS_ADDRESS_MULTICAST : DNS_ADDRESS_GLOBAL;
}

enum dns_address_kind dns_address_kind(const struct dns_address *address)
{
	struct dns_address a = unmap(address);

	if (a.family == 0)
		return DNS_ADDRESS_UNSPECIFIED;
	return a.family == DNS_IPV4 ? kind_of_ipv4(a.bytes) : kind_of_ipv6(a.bytes);
}

const char *dns_address_kind_name(enum dns_address_kind kind)
{
	static const char *const names[] = {"global", "unspecified", "loopback", "link-local", "multicast", "reserved"};

	return kind <= DNS_ADDRESS_RESERVED ? names[kind] : "unknown";
}

static bool of_sockaddr(const struct sockaddr *sa, struct dns_address *out)
{
	*out = (struct dns_address){0};
	if (!sa)
		return false;
	if (sa->sa_family == AF_INET) {
		out->family = DNS_IPV4;
		memcpy(out->bytes, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	} else if (sa->sa_family == AF_INET6) {
		out->family = DNS_IPV6;
		memcpy(out->bytes, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
	}
	return out->family != 0;
}

int dns_own_addresses(struct dns_address *out, size_t max)
{
	struct ifaddrs *list;
	size_t count = 0;

	if (getifaddrs(&list) < 0)
		return err_code_of_errno(errno);
	for (const struct ifaddrs *i = list; i && count < max; i = i->ifa_next) {
		struct dns_address address;

		if (of_sockaddr(i->ifa_addr, &address) && dns_address_kind(&address) == DNS_ADDRESS_GLOBAL)
			out[count++] = address;
	}
	freeifaddrs(list);
	return (int)count;
}
