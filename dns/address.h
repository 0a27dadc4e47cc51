/*
 * dns/address.h - an IP address as plain data, its text, and what kind of address it is
 *
 * Pure, but for dns_own_addresses(). A value, copied freely; unused bytes are zero, so that memcmp() would compare too.
 */
#ifndef DNS_ADDRESS_H
#define DNS_ADDRESS_H

#include "base/slice.h"

enum { DNS_IPV4 = 4, DNS_IPV6 = 6 };

struct dns_address {
	uint8_t family;	   /* DNS_IPV4, DNS_IPV6; 0: none */
	uint8_t bytes[16]; /* network order; IPv4 uses the first four */
};

/* Room for the longest text and its NUL: an IPv6 address with an embedded IPv4 address. */
#define DNS_ADDRESS_TEXT 46

enum dns_address_kind {
	DNS_ADDRESS_GLOBAL = 0,	 /* whatever is none of the others, private ranges too */
	DNS_ADDRESS_UNSPECIFIED, /* 0.0.0.0/8, :: */
	DNS_ADDRESS_LOOPBACK,	 /* 127.0.0.0/8, ::1 */
	DNS_ADDRESS_LINK_LOCAL,	 /* 169.254.0.0/16, fe80::/10 */
	DNS_ADDRESS_MULTICAST,	 /* 224.0.0.0/4, ff00::/8, and 255.255.255.255 */
	DNS_ADDRESS_RESERVED,	 /* 240.0.0.0/4 */
};

/* "192.0.2.1", "2001:db8::1"; no brackets, port or zone. False: not an address. */
bool dns_address_parse(struct slice text, struct dns_address *out);
/* An address literal as in a mailbox (RFC 5321 section 4.1.3): "[192.0.2.1]", "[IPv6:2001:db8::1]". */
bool dns_address_parse_literal(struct slice text, struct dns_address *out);
/* Family 0 gives "". */
void dns_address_format(const struct dns_address *address, char out[DNS_ADDRESS_TEXT]);
/* Its name for PTR questions (RFC 1035 section 3.5, RFC 3596 section 2.5): "1.2.0.192.in-addr.arpa". What stands before the
 * last two labels is also how blocklists are asked (RFC 5782). */
#define DNS_ADDRESS_REVERSE_TEXT 73
void dns_address_format_reverse(const struct dns_address *address, char out[DNS_ADDRESS_REVERSE_TEXT]);
/* An IPv4 address inside ::ffff:0:0/96 equals, and is of the kind of, the IPv4 address: the kernel connects to that. */
bool dns_address_eq(const struct dns_address *a, const struct dns_address *b);
/*
 * Under which address a client is counted: an IPv6 address as its /64, for who has one address has them all; IPv4 in
 * IPv6 (a load balancer may say so in its PROXY header) as that IPv4 address: else all of it were one client.
 */
struct dns_address dns_address_client(const struct dns_address *address);
enum dns_address_kind dns_address_kind(const struct dns_address *address);
/* "global", "unspecified", "loopback", "link-local", "multicast", "reserved". */
const char *dns_address_kind_name(enum dns_address_kind kind);

/*
 * The addresses of this machine's interfaces, at most `max`, without loopback and link-local ones. Asks the kernel
 * (does not block; needs an AF_NETLINK socket). The count, or a negative enum err_code.
 */
int dns_own_addresses(struct dns_address *out, size_t max);

#endif
