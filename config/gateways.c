#include "config/gateways.h"

#include "base/base.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define ROUTES_MAX_BYTES (4 * 1024 * 1024)

static struct slice next_line(struct slice *text)
{
	ptrdiff_t end = slice_find(*text, '\n');
	struct slice line = end < 0 ? *text : slice_to(*text, (size_t)end);

	*text = slice_from(*text, line.len + 1);
	return line;
}

static struct slice next_word(struct slice *line)
{
	size_t len = 0;

	*line = slice_trim(*line);
	while (len < line->len && line->ptr[len] != ' ' && line->ptr[len] != '\t')
		len++;
	struct slice word = slice_to(*line, len);
	*line = slice_from(*line, len);
	return word;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool hex_bytes(struct slice word, uint8_t *bytes, size_t count)
{
	if (word.len != count * 2)
		return false;
	for (size_t i = 0; i < count; i++) {
		int high = hex_digit(word.ptr[i * 2]), low = hex_digit(word.ptr[i * 2 + 1]);
		if (high < 0 || low < 0)
			return false;
		bytes[i] = (uint8_t)(high * 16 + low);
	}
	return true;
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (bytes[i])
			return false;
	return true;
}

static void add(struct config_gateways *gateways, int family, const uint8_t *bytes, size_t count)
{
	struct config_network *gateway = &gateways->items[gateways->count];

	if (gateways->count == CONFIG_GATEWAYS_MAX || is_zero(bytes, count))
		return;
	*gateway = (struct config_network){.family = family, .prefix_bits = (unsigned)count * 8};
	memcpy(gateway->bytes, bytes, count);
	gateways->count++;
}

/* "Iface Destination Gateway Flags ...": words of 32 bits as numbers of this machine, so in its order of octets. */
static void parse_route(struct slice line, struct config_gateways *gateways)
{
	uint8_t destination[4], gateway[4];

	next_word(&line);
	if (!hex_bytes(next_word(&line), destination, 4) || !is_zero(destination, 4) ||
	    !hex_bytes(next_word(&line), gateway, 4))
		return;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	uint8_t turned[4] = {gateway[3], gateway[2], gateway[1], gateway[0]};
	memcpy(gateway, turned, 4);
#endif
	add(gateways, AF_INET, gateway, 4);
}

/* "destination prefix source prefix next-hop ...": octets in network order. */
static void parse_ipv6_route(struct slice line, struct config_gateways *gateways)
{
	uint8_t destination[16], gateway[16];

	if (!hex_bytes(next_word(&line), destination, 16) || !is_zero(destination, 16) ||
	    !slice_eq(next_word(&line), SLICE("00")))
		return;
	next_word(&line);
	next_word(&line);
	if (hex_bytes(next_word(&line), gateway, 16))
		add(gateways, AF_INET6, gateway, 16);
}

void config_gateways_parse(struct slice route, struct slice ipv6_route, struct config_gateways *gateways)
{
	gateways->count = 0;
	while (route.len > 0)
		parse_route(next_line(&route), gateways);
	while (ipv6_route.len > 0)
		parse_ipv6_route(next_line(&ipv6_route), gateways);
}

static void read_file(const char *path, struct buf *text)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 1;

	while (fd >= 0 && n > 0) {
		char *at = buf_reserve(text, 16384);
		n = at ? read(fd, at, 16384) : 0;
		if (n > 0)
			buf_commit(text, (size_t)n);
	}
	if (fd >= 0)
		close(fd);
}

void config_gateways_load(struct config_gateways *gateways)
{
	struct buf route, ipv6_route;

	buf_init(&route, ROUTES_MAX_BYTES);
	buf_init(&ipv6_route, ROUTES_MAX_BYTES);
	read_file("/proc/net/route", &route);
	read_file("/proc/net/ipv6_route", &ipv6_route);
	config_gateways_parse(buf_slice(&route), buf_slice(&ipv6_route), gateways);
	buf_fini(&route);
	buf_fini(&ipv6_route);
}

bool config_trusts(const struct config_listener *listener, int family, const uint8_t *bytes,
		   const struct config_gateways *gateways)
{
	bool exactly;

	if (listener->auth != CONFIG_AUTH_OPTIONAL ||
	    !config_networks_contain(&listener->trusted, family, bytes, &exactly))
		return false;
	if (exactly || !gateways)
		return true;
	for (size_t i = 0; i < gateways->count; i++)
		if (config_network_contains(&gateways->items[i], family, bytes))
			return false;
	return true;
}
