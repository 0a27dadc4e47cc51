/*
 * config/values.h - the plain text of one value, parsed by what it is: durations, sizes, rates, addresses, networks
 *
 * Pure. A parser takes the whole slice or refuses it: 0, or ERR_SYNTAX / ERR_LIMIT with a sentence in `why` (may be
 * NULL) that says what would be right and never contains the value itself. The formatters write what the parsers read.
 */
#ifndef CONFIG_VALUES_H
#define CONFIG_VALUES_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define CONFIG_SECOND_MS INT64_C(1000)
#define CONFIG_MINUTE_MS (60 * CONFIG_SECOND_MS)
#define CONFIG_HOUR_MS (60 * CONFIG_MINUTE_MS)
#define CONFIG_DAY_MS (24 * CONFIG_HOUR_MS)

/* So many of something in so much time; count 0: no limit. */
struct config_rate {
	int64_t count;
	int64_t per_ms;
};

/* Where to bind or to connect. */
struct config_endpoint {
	const char *host; /* without brackets; "*": every address of the machine (listeners only); NULL: not set */
	uint16_t port;
	int family;	   /* AF_INET, AF_INET6: `bytes` hold the address; AF_UNSPEC: `host` is a name or "*" */
	uint8_t bytes[16]; /* network order, 4 or 16 of them */
};

/* A block of addresses, its host bits zero. IPv4 mapped into IPv6 is kept as IPv4. */
struct config_network {
	int family; /* AF_INET or AF_INET6 */
	uint8_t bytes[16];
	unsigned prefix_bits;
};

struct config_networks {
	size_t count;
	struct config_network *items;
};

/* "30s", "10m", "4h", "5d", "500ms", "2w" and sums of them, largest unit first ("1h30m"); "0" needs no unit. */
int config_duration_parse(struct slice text, int64_t *ms, struct err *why);
/* "25M": K, M, G, T count in powers of 1024; without a letter bytes. */
int config_size_parse(struct slice text, int64_t *bytes, struct err *why);
/* "100/h", "5/s", "100/10m". Never a count of 0. */
int config_rate_parse(struct slice text, struct config_rate *rate, struct err *why);
/* "true", "yes", "on"; "false", "no", "off". */
int config_bool_parse(struct slice text, bool *value, struct err *why);
/* Decimal digits, min .. max. */
int config_int_parse(struct slice text, int64_t min, int64_t max, int64_t *value, struct err *why);

struct config_endpoint_rules {
	int default_port; /* -1: a port must stand there */
	bool may_be_any;  /* "*:PORT" is allowed */
	bool may_be_name; /* a host name is allowed; otherwise addresses only */
	bool may_be_zero; /* port 0: the kernel chooses */
};
/* "HOST:PORT", "ADDR:PORT", "[v6]:PORT", "*:PORT". *host_text: where to copy endpoint->host from; the parser leaves
 * endpoint->host alone, since it keeps no memory. */
int config_endpoint_parse(struct slice text, const struct config_endpoint_rules *rules,
			  struct config_endpoint *endpoint, struct slice *host_text, struct err *why);
/* "192.0.2.1", "2001:db8::1", also in brackets. */
int config_address_parse(struct slice text, int *family, uint8_t bytes[16]);
/* "10.0.0.0/8", "::1". Host bits that are set are refused, with the network that was meant. */
int config_network_parse(struct slice text, struct config_network *network, struct err *why);
/* A name of letters, digits and hyphens in labels of at most 63, 253 in all (RFC 1123 section 2.1, RFC 1035 section
 * 2.3.4); no final dot. */
bool config_is_host_name(struct slice text);
/* A host name that can be a full one: at least two labels, the last not of digits alone (that would be an address), and
 * not localhost nor localhost.localdomain. A bare name, and so a container's id, is none. */
bool config_is_fqdn(struct slice text);

/* `bytes`: 4 for AF_INET, 16 for AF_INET6 in network order; a mapped IPv4 address counts as IPv4. */
bool config_network_contains(const struct config_network *network, int family, const uint8_t *bytes);
/* *exactly (may be NULL): an entry names this one address. */
bool config_networks_contain(const struct config_networks *networks, int family, const uint8_t *bytes, bool *exactly);

/* Each appends to `out`. */
void config_duration_format(int64_t ms, struct buf *out);
void config_size_format(int64_t bytes, struct buf *out);
void config_rate_format(const struct config_rate *rate, struct buf *out);
void config_endpoint_format(const struct config_endpoint *endpoint, struct buf *out);
void config_network_format(const struct config_network *network, struct buf *out);

#endif
