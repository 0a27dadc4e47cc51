#include "relayd/proxy_protocol.h"

#include "base/base.h"

enum { V2_FIXED_BYTES = 16, V2_TCP4_BYTES = 12, V2_TCP6_BYTES = 36 };

static const struct slice v1_start = {"PROXY ", 6};
static const struct slice v2_start = {"\r\n\r\n\0\r\nQUIT\n", 12};

void proxy_reader_init(struct proxy_reader *reader)
{
	reader->len = 0;
}

/* ---- version 1: a line of text ---- */

/* The next word; exactly one blank stands between two. */
static struct slice next_word(struct slice *line)
{
	ptrdiff_t blank = slice_find(*line, ' ');
	struct slice word = blank < 0 ? *line : slice_to(*line, (size_t)blank);

	*line = slice_from(*line, blank < 0 ? line->len : (size_t)blank + 1);
	return word;
}

static bool parse_port(struct slice text, uint16_t *port)
{
	unsigned value = 0;

	if (text.len == 0 || text.len > 5 || (text.len > 1 && text.ptr[0] == '0'))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] < '0' || text.ptr[i] > '9')
			return false;
		value = value * 10 + (unsigned)(text.ptr[i] - '0');
	}
	*port = (uint16_t)value;
	return value <= UINT16_MAX;
}

static int parse_v1(struct slice line, struct proxy_header *out, struct err *err)
{
	struct slice protocol, client, server, client_port, server_port;
	struct dns_address server_address;
	uint16_t port;
	int family;

	line = slice_from(line, v1_start.len);
	protocol = next_word(&line);
	if (slice_eq(protocol, SLICE("UNKNOWN")))
		return 1;
	family = slice_eq(protocol, SLICE("TCP4")) ? DNS_IPV4 : slice_eq(protocol, SLICE("TCP6")) ? DNS_IPV6 : 0;
	client = next_word(&line);
	server = next_word(&line);
	client_port = next_word(&line);
	server_port = line;
	if (family == 0 || !dns_address_parse(client, &out->client) || out->client.family != family ||
	    !dns_address_parse(server, &server_address) || server_address.family != family ||
	    !parse_port(client_port, &out->port) || !parse_port(server_port, &port))
		return err_set(err, ERR_SYNTAX, "the PROXY line is none of version 1");
	out->names_client = true;
	return 1;
}

/* ---- version 2: binary ---- */

static size_t v2_body_bytes(const unsigned char *fixed)
{
	return (size_t)fixed[14] << 8 | fixed[15];
}

static int parse_v2(const unsigned char *bytes, struct proxy_header *out, struct err *err)
{
	enum { VERSION_LOCAL = 0x20, VERSION_PROXY = 0x21, TCP4 = 0x11, TCP6 = 0x21 };
	const unsigned char *body = bytes + V2_FIXED_BYTES;
	unsigned family = bytes[13];
	size_t len = v2_body_bytes(bytes);

	if (bytes[12] == VERSION_LOCAL)
		return 1;
	if (bytes[12] != VERSION_PROXY)
		return err_set(err, ERR_SYNTAX, "the PROXY header has an unknown version or command");
	if (family != TCP4 && family != TCP6)
		return 1;
	if (len < (family == TCP4 ? V2_TCP4_BYTES : V2_TCP6_BYTES))
		return err_set(err, ERR_SYNTAX, "the PROXY header is shorter than its addresses");
	out->client.family = family == TCP4 ? DNS_IPV4 : DNS_IPV6;
	memcpy(out->client.bytes, body, family == TCP4 ? 4 : 16);
	body += family == TCP4 ? 8 : 32;
	out->port = (uint16_t)(body[0] << 8 | body[1]);
	out->names_client = true;
	return 1;
}

/* ---- both ---- */

/* How far the header goes for certain, counted from its beginning. 0: that is all of it. */
static int next_goal(const struct proxy_reader *reader, struct slice version, size_t *goal, struct err *err)
{
	if (reader->len < version.len) {
		*goal = version.len;
	} else if (version.ptr == v1_start.ptr) {
		if (reader->len >= PROXY_V1_MAX_BYTES)
			return err_set(err, ERR_LIMIT, "the PROXY line has no end");
		*goal = PROXY_V1_MAX_BYTES;
	} else if (reader->len < V2_FIXED_BYTES) {
		*goal = V2_FIXED_BYTES;
	} else {
		*goal = V2_FIXED_BYTES + v2_body_bytes(reader->bytes);
		if (*goal > PROXY_HEADER_MAX_BYTES)
			return err_set(err, ERR_LIMIT, "the PROXY header is too long");
	}
	return 0;
}

static size_t take(struct proxy_reader *reader, struct slice bytes, size_t goal)
{
	struct slice part = slice_to(bytes, goal - reader->len);

	if (part.len)
		memcpy(reader->bytes + reader->len, part.ptr, part.len);
	reader->len += part.len;
	return part.len;
}

/* The line ends at its LF, so bytes go in one by one as far as that. */
static size_t take_line(struct proxy_reader *reader, struct slice bytes, bool *ended)
{
	struct slice part = slice_to(bytes, PROXY_V1_MAX_BYTES - reader->len);
	ptrdiff_t lf = slice_find(part, '\n');

	*ended = lf >= 0;
	return take(reader, bytes, reader->len + (lf >= 0 ? (size_t)lf + 1 : part.len));
}

static int finish_line(const struct proxy_reader *reader, struct proxy_header *out, struct err *err)
{
	struct slice line = slice_of(reader->bytes, reader->len);

	if (line.len < v1_start.len + 2 || line.ptr[line.len - 2] != '\r')
		return err_set(err, ERR_SYNTAX, "the PROXY line does not end with CR LF");
	return parse_v1(slice_to(line, line.len - 2), out, err);
}

int proxy_reader_input(struct proxy_reader *reader, struct slice bytes, size_t *taken, struct proxy_header *out,
		       struct err *err)
{
	*taken = 0;
	*out = (struct proxy_header){0};
	for (;;) {
		struct slice rest = slice_from(bytes, *taken), version;
		bool ended = false;
		size_t goal = 0;
		int rc;

		if (reader->len + rest.len == 0)
			return 0;
		version = (reader->len ? (char)reader->bytes[0] : rest.ptr[0]) == 'P' ? v1_start : v2_start;
		rc = next_goal(reader, version, &goal, err);
		if (rc < 0)
			return rc;
		if (version.ptr == v1_start.ptr && reader->len >= version.len) {
			*taken += take_line(reader, rest, &ended);
			if (ended)
				return finish_line(reader, out, err);
		} else {
			*taken += take(reader, rest, goal);
		}
		if (memcmp(reader->bytes, version.ptr, MIN(reader->len, version.len)) != 0)
			return err_set(err, ERR_SYNTAX, "there is no PROXY header");
		if (version.ptr == v2_start.ptr && reader->len >= V2_FIXED_BYTES &&
		    reader->len == V2_FIXED_BYTES + v2_body_bytes(reader->bytes))
			return parse_v2(reader->bytes, out, err);
		if (*taken == bytes.len && reader->len < goal)
			return 0;
	}
}
