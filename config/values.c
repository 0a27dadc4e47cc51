#include "config/values.h"

#include "base/base.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <string.h>

struct unit {
	const char *name;
	int64_t factor;
};

/* Largest first: sums must come in this order, and the formatter takes the first that divides. */
static const struct unit duration_units[] = {
    {"w", 7 * CONFIG_DAY_MS}, {"d", CONFIG_DAY_MS},    {"h", CONFIG_HOUR_MS},
    {"m", CONFIG_MINUTE_MS},  {"s", CONFIG_SECOND_MS}, {"ms", 1},
};
static const struct unit size_units[] = {
    {"T", INT64_C(1) << 40}, {"G", INT64_C(1) << 30}, {"M", INT64_C(1) << 20}, {"K", INT64_C(1) << 10}, {"", 1}};

/* Eats leading digits. False: there are none, or too many. */
static bool take_number(struct slice *text, int64_t *number)
{
	size_t i = 0;

	*number = 0;
	for (; i < text->len && text->ptr[i] >= '0' && text->ptr[i] <= '9'; i++) {
		if (__builtin_mul_overflow(*number, 10, number) ||
		    __builtin_add_overflow(*number, text->ptr[i] - '0', number))
			return false;
	}
	*text = slice_from(*text, i);
	return i > 0;
}

/* Eats leading letters. */
static struct slice take_letters(struct slice *text)
{
	struct slice all = *text;
	size_t i = 0;

	while (i < all.len && ((all.ptr[i] >= 'a' && all.ptr[i] <= 'z') || (all.ptr[i] >= 'A' && all.ptr[i] <= 'Z')))
		i++;
	*text = slice_from(all, i);
	return slice_to(all, i);
}

static int duration_wrong(struct err *why)
{
	return err_set(why, ERR_SYNTAX,
		       "is no duration: write a number with ms, s, m, h, d or w, such as 30s, 10m or 5d");
}

int config_duration_parse(struct slice text, int64_t *ms, struct err *why)
{
	size_t next_unit = 0;
	int64_t total = 0;

	if (slice_eq(text, SLICE("0"))) {
		*ms = 0;
		return 0;
	}
	if (text.len == 0)
		return duration_wrong(why);
	while (text.len > 0) {
		int64_t number, part;
		struct slice unit;

		if (!take_number(&text, &number))
			return duration_wrong(why);
		unit = take_letters(&text);
		if (unit.len == 0 && text.len == 0 && next_unit == 0)
			return err_set(why, ERR_SYNTAX,
				       "has no unit: write %" PRId64 "s, %" PRId64 "m, %" PRId64 "h or %" PRId64 "d",
				       number, number, number, number);
		while (next_unit < ARRAY_LEN(duration_units) &&
		       !slice_eq(unit, slice_of_str(duration_units[next_unit].name)))
			next_unit++;
		if (next_unit == ARRAY_LEN(duration_units))
			return duration_wrong(why);
		if (__builtin_mul_overflow(number, duration_units[next_unit].factor, &part) ||
		    __builtin_add_overflow(total, part, &total))
			return err_set(why, ERR_LIMIT, "is too long");
		next_unit++;
	}
	*ms = total;
	return 0;
}

int config_size_parse(struct slice text, int64_t *bytes, struct err *why)
{
	int64_t number;

	if (!take_number(&text, &number))
		return err_set(why, ERR_SYNTAX, "is no size: write a number with K, M, G or T, such as 25M");
	for (size_t i = 0; i < ARRAY_LEN(size_units); i++) {
		if (!slice_case_eq(text, slice_of_str(size_units[i].name)))
			continue;
		if (__builtin_mul_overflow(number, size_units[i].factor, bytes))
			return err_set(why, ERR_LIMIT, "is too large");
		return 0;
	}
	return err_set(why, ERR_SYNTAX, "is no size: write a number with K, M, G or T, such as 25M");
}

int config_rate_parse(struct slice text, struct config_rate *rate, struct err *why)
{
	static const char *const wrong = "is no rate: write a number per time, such as 100/h, 5/s or 100/10m";
	struct slice rest = text;
	int64_t count, per_ms;

	if (!take_number(&rest, &count) || rest.len < 2 || rest.ptr[0] != '/')
		return err_set(why, ERR_SYNTAX, "%s", wrong);
	rest = slice_from(rest, 1);
	if (rest.ptr[0] >= '0' && rest.ptr[0] <= '9') {
		if (config_duration_parse(rest, &per_ms, NULL) < 0)
			return err_set(why, ERR_SYNTAX, "%s", wrong);
	} else {
		per_ms = 0;
		for (size_t i = 0; i < ARRAY_LEN(duration_units); i++)
			if (slice_eq(rest, slice_of_str(duration_units[i].name)))
				per_ms = duration_units[i].factor;
	}
	if (per_ms < CONFIG_SECOND_MS)
		return err_set(why, ERR_SYNTAX, "%s", wrong);
	if (count == 0)
		return err_set(why, ERR_LIMIT, "would let nothing through: to stop a relayhost, pause it");
	*rate = (struct config_rate){count, per_ms};
	return 0;
}

int config_bool_parse(struct slice text, bool *value, struct err *why)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {{"true", true}, {"yes", true}, {"on", true}, {"false", false}, {"no", false}, {"off", false}};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (slice_case_eq(text, slice_of_str(words[i].word))) {
			*value = words[i].value;
			return 0;
		}
	}
	return err_set(why, ERR_SYNTAX, "is neither true nor false");
}

int config_int_parse(struct slice text, int64_t min, int64_t max, int64_t *value, struct err *why)
{
	int64_t number;

	if (text.len == 0 || !take_number(&text, &number) || text.len > 0)
		return err_set(why, ERR_SYNTAX, "is no whole number from %" PRId64 " to %" PRId64, min, max);
	if (number < min || number > max)
		return err_set(why, ERR_LIMIT, "is out of range: from %" PRId64 " to %" PRId64, min, max);
	*value = number;
	return 0;
}

/* ---- Addresses. */

static void unmap(int *family, uint8_t bytes[16])
{
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	if (*family != AF_INET6 || memcmp(bytes, mapped, sizeof(mapped)) != 0)
		return;
	*family = AF_INET;
	memmove(bytes, bytes + 12, 4);
	memset(bytes + 4, 0, 12);
}

int config_address_parse(struct slice text, int *family, uint8_t bytes[16])
{
	char str[INET6_ADDRSTRLEN];

	if (text.len >= 2 && text.ptr[0] == '[' && text.ptr[text.len - 1] == ']')
		text = slice_of(text.ptr + 1, text.len - 2);
	if (!slice_to_cstr(text, str, sizeof(str)) || strlen(str) != text.len)
		return ERR_SYNTAX;
	memset(bytes, 0, 16);
	if (inet_pton(AF_INET, str, bytes) == 1)
		*family = AF_INET;
	else if (inet_pton(AF_INET6, str, bytes) == 1)
		*family = AF_INET6;
	else
		return ERR_SYNTAX;
	return 0;
}

static bool is_label_char(char c, bool with_underscore)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c == '_' && with_underscore);
}

static bool is_name(struct slice text, bool with_underscore)
{
	size_t label = 0;

	if (text.len == 0 || text.len > 253)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];
		if (c == '.') {
			if (label == 0 || text.ptr[i - 1] == '-')
				return false;
			label = 0;
			continue;
		}
		if (!is_label_char(c, with_underscore) && !(c == '-' && label > 0))
			return false;
		if (++label > 63)
			return false;
	}
	return label > 0 && text.ptr[text.len - 1] != '-';
}

bool config_is_host_name(struct slice text)
{
	return is_name(text, false);
}

/* So it cannot be a mistyped IPv4 address. */
static bool last_label_has_letter(struct slice text)
{
	struct slice last = slice_from(text, (size_t)(slice_find_last(text, '.') + 1));

	for (size_t i = 0; i < last.len; i++)
		if (last.ptr[i] < '0' || last.ptr[i] > '9')
			return true;
	return false;
}

bool config_is_fqdn(struct slice text)
{
	struct slice last = slice_from(text, (size_t)(slice_find_last(text, '.') + 1));

	return config_is_host_name(text) && last.len < text.len && last_label_has_letter(text) &&
	       !slice_case_eq(last, SLICE("localhost")) && !slice_case_eq(text, SLICE("localhost.localdomain"));
}

/* Splits "HOST:PORT". Brackets stay with the host. False: more than one colon without brackets. */
static bool split_port(struct slice text, struct slice *host, struct slice *port)
{
	ptrdiff_t colon;

	*port = (struct slice){0};
	if (text.len && text.ptr[0] == '[') {
		ptrdiff_t close = slice_find(text, ']');
		if (close < 0)
			return false;
		*host = slice_to(text, (size_t)close + 1);
		text = slice_from(text, (size_t)close + 1);
		if (text.len == 0)
			return true;
		*port = slice_from(text, 1);
		return text.ptr[0] == ':';
	}
	colon = slice_find(text, ':');
	if (colon < 0) {
		*host = text;
		return true;
	}
	*host = slice_to(text, (size_t)colon);
	*port = slice_from(text, (size_t)colon + 1);
	return slice_find(*port, ':') < 0;
}

static int endpoint_port(struct slice port, const struct config_endpoint_rules *rules, struct config_endpoint *endpoint,
			 struct err *why)
{
	int64_t number = rules->default_port;

	if (port.ptr == NULL) {
		if (rules->default_port < 0)
			return err_set(why, ERR_SYNTAX, "has no port: write ADDRESS:PORT");
	} else if (config_int_parse(port, rules->may_be_zero ? 0 : 1, 65535, &number, NULL) < 0) {
		return err_set(why, ERR_SYNTAX, "has no good port: a number from 1 to 65535 stands after the colon");
	}
	endpoint->port = (uint16_t)number;
	return 0;
}

int config_endpoint_parse(struct slice text, const struct config_endpoint_rules *rules,
			  struct config_endpoint *endpoint, struct slice *host_text, struct err *why)
{
	struct slice host, port;
	int rc;

	endpoint->family = AF_UNSPEC;
	memset(endpoint->bytes, 0, sizeof(endpoint->bytes));
	if (!split_port(text, &host, &port)) {
		if (config_address_parse(text, &endpoint->family, endpoint->bytes) == 0)
			return err_set(why, ERR_SYNTAX,
				       "is ambiguous: write an IPv6 address in brackets, [ADDRESS]:PORT");
		return err_set(why, ERR_SYNTAX, "is no address: write HOST:PORT or [IPv6]:PORT");
	}
	rc = endpoint_port(port, rules, endpoint, why);
	if (rc < 0)
		return rc;
	if (config_address_parse(host, &endpoint->family, endpoint->bytes) == 0) {
		if (host.ptr[0] == '[')
			host = slice_of(host.ptr + 1, host.len - 2);
		*host_text = host;
		return 0;
	}
	if (rules->may_be_any && slice_eq(host, SLICE("*"))) {
		*host_text = host;
		return 0;
	}
	if (rules->may_be_name && host.len >= 2 && host.ptr[0] == '[') /* as Postfix writes a host without MX lookup */
		host = slice_of(host.ptr + 1, host.len - 2);
	if (host.len > 1 && host.ptr[host.len - 1] == '.')
		host.len--;
	/* Underscores: Compose services have them. */
	if (rules->may_be_name && is_name(host, true) && last_label_has_letter(host)) {
		*host_text = host;
		return 0;
	}
	if (rules->may_be_name)
		return err_set(why, ERR_SYNTAX, "names no host: write HOST:PORT, ADDRESS:PORT or [IPv6]:PORT");
	return err_set(why, ERR_SYNTAX, "is no address: write ADDRESS:PORT%s or [IPv6]:PORT, not a name",
		       rules->may_be_any ? ", *:PORT" : "");
}

static unsigned family_bits(int family)
{
	return family == AF_INET ? 32 : 128;
}

/* Clears what is behind the prefix; false when something was there. */
static bool mask_host_bits(uint8_t bytes[16], unsigned prefix, unsigned bits)
{
	bool was_clear = true;

	for (unsigned bit = prefix; bit < bits; bit++) {
		uint8_t mask = (uint8_t)(0x80 >> (bit % 8));
		if (bytes[bit / 8] & mask)
			was_clear = false;
		bytes[bit / 8] &= (uint8_t)~mask;
	}
	return was_clear;
}

int config_network_parse(struct slice text, struct config_network *network, struct err *why)
{
	ptrdiff_t slash = slice_find(text, '/');
	struct slice address = slash < 0 ? text : slice_to(text, (size_t)slash);
	int64_t prefix;
	char meant[INET6_ADDRSTRLEN];

	memset(network, 0, sizeof(*network));
	if (config_address_parse(address, &network->family, network->bytes) < 0)
		return err_set(why, ERR_SYNTAX,
			       "is no network: write ADDRESS or ADDRESS/BITS, such as 10.0.0.0/8 or ::1");
	prefix = family_bits(network->family);
	if (slash >= 0 && config_int_parse(slice_from(text, (size_t)slash + 1), 0, prefix, &prefix, NULL) < 0)
		return err_set(why, ERR_SYNTAX, "has no good number of bits after the slash: from 0 to %u",
			       family_bits(network->family));
	network->prefix_bits = (unsigned)prefix;
	if (!mask_host_bits(network->bytes, network->prefix_bits, family_bits(network->family))) {
		inet_ntop(network->family, network->bytes, meant, sizeof(meant));
		return err_set(why, ERR_SYNTAX,
			       "has bits set behind the first %u: did you mean %s/%u, or /%u for this one address?",
			       network->prefix_bits, meant, network->prefix_bits, family_bits(network->family));
	}
	if (network->family == AF_INET6 && network->prefix_bits >= 96) {
		unmap(&network->family, network->bytes);
		if (network->family == AF_INET)
			network->prefix_bits -= 96;
	}
	return 0;
}

bool config_network_contains(const struct config_network *network, int family, const uint8_t *bytes)
{
	uint8_t address[16] = {0};
	unsigned whole = network->prefix_bits / 8, rest = network->prefix_bits % 8;

	if (family != AF_INET && family != AF_INET6)
		return false;
	memcpy(address, bytes, family_bits(family) / 8);
	unmap(&family, address);
	if (family != network->family || memcmp(address, network->bytes, whole) != 0)
		return false;
	return rest == 0 || ((address[whole] ^ network->bytes[whole]) & (uint8_t)(0xff00 >> rest)) == 0;
}

bool config_networks_contain(const struct config_networks *networks, int family, const uint8_t *bytes, bool *exactly)
{
	bool found = false;

	if (exactly)
		*exactly = false;
	for (size_t i = 0; i < networks->count; i++) {
		const struct config_network *network = &networks->items[i];
		if (!config_network_contains(network, family, bytes))
			continue;
		found = true;
		if (exactly && network->prefix_bits == family_bits(network->family))
			*exactly = true;
	}
	return found;
}

/* ---- Formatting. */

void config_duration_format(int64_t ms, struct buf *out)
{
	if (ms == 0)
		buf_append_byte(out, '0');
	/* Weeks are read but not written: "5d" and "14d" are what people expect to see. */
	for (size_t i = 1; i < ARRAY_LEN(duration_units) && ms > 0; i++) {
		int64_t number = ms / duration_units[i].factor;
		if (number > 0)
			buf_printf(out, "%" PRId64 "%s", number, duration_units[i].name);
		ms %= duration_units[i].factor;
	}
}

void config_size_format(int64_t bytes, struct buf *out)
{
	for (size_t i = 0; i < ARRAY_LEN(size_units); i++) {
		if (bytes % size_units[i].factor == 0 && (bytes > 0 || size_units[i].factor == 1)) {
			buf_printf(out, "%" PRId64 "%s", bytes / size_units[i].factor, size_units[i].name);
			return;
		}
	}
}

void config_rate_format(const struct config_rate *rate, struct buf *out)
{
	if (rate->count == 0)
		return;
	buf_printf(out, "%" PRId64 "/", rate->count);
	for (size_t i = 0; i < ARRAY_LEN(duration_units); i++) {
		if (rate->per_ms == duration_units[i].factor) {
			buf_append_str(out, duration_units[i].name);
			return;
		}
	}
	config_duration_format(rate->per_ms, out);
}

void config_endpoint_format(const struct config_endpoint *endpoint, struct buf *out)
{
	if (!endpoint->host)
		return;
	buf_printf(out, endpoint->family == AF_INET6 ? "[%s]:%u" : "%s:%u", endpoint->host, endpoint->port);
}

void config_network_format(const struct config_network *network, struct buf *out)
{
	char text[INET6_ADDRSTRLEN];

	inet_ntop(network->family, network->bytes, text, sizeof(text));
	buf_append_str(out, text);
	if (network->prefix_bits != family_bits(network->family))
		buf_printf(out, "/%u", network->prefix_bits);
}
