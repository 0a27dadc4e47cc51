/*
 * dns/name.h - domain names between the wire and their text
 *
 * Names are in presentation form (RFC 1035 section 5.1), lower case, without the trailing dot; the root is "". Octets
 * other than letters, digits, "-" and "_" are escaped: "\." "\\" and "\ddd". So a name is always printable, two equal
 * names are equal strings, and one with a backslash is no host. Own code, since c-ares 1.18 neither writes "\ddd" nor
 * says how long a hostile name gets.
 */
#ifndef DNS_NAME_H
#define DNS_NAME_H

#include "base/slice.h"

enum {
	DNS_NAME_WIRE_MAX = 255, /* RFC 1035 section 2.3.4 */
	DNS_NAME_MAX = 1003,	 /* characters of the longest name with every octet escaped */
	DNS_LABEL_MAX = 63,
	DNS_HOST_MAX = 253, /* characters of the longest host name */
};

/*
 * Brings a name given by people or by other layers to the form above: lower case, no trailing dot, escapes checked.
 * `out` has room for DNS_NAME_MAX + 1. False: not a possible name (empty label, label over 63, name over 255 octets,
 * control or 8-bit octets not escaped). "" and "." are the root.
 */
bool dns_name_normalize(struct slice text, char *out);
/*
 * A name that may be connected to: letters, digits, "-", "_" (some providers' MX hosts begin with it), no label that
 * begins or ends with "-", at most 253 characters, and the last label not all digits, so that it is no IPv4 address.
 */
bool dns_name_is_host(const char *name);
/*
 * Reads the name at *offset of a packet and moves *offset behind it. Compression pointers must point backwards, each to
 * before the last, so that it ends. 0, or ERR_SYNTAX. `out` has room for DNS_NAME_MAX + 1.
 */
int dns_name_read(struct slice packet, size_t *offset, char *out);
/* Writes a normalized name uncompressed; `out` has room for DNS_NAME_WIRE_MAX. Returns the octets written. */
size_t dns_name_write(const char *name, uint8_t *out);

#endif
