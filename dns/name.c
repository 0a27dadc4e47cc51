#include "dns/name.h"

#include "base/base.h"
#include "base/err.h"

static bool is_plain(uint8_t octet)
{
	return (octet >= 'a' && octet <= 'z') || (octet >= '0' && octet <= '9') || octet == '-' || octet == '_';
}

/* The name as it is being put together; the text stays in its bounds because the wire form does. */
struct writer {
	char *out;
	size_t len;
	size_t wire; /* octets so far, without the root */
	size_t label;
};

static bool put_octet(struct writer *w, uint8_t octet)
{
	if (w->label == 0) {
		w->wire++;
		if (w->len)
			w->out[w->len++] = '.';
	}
	if (++w->label > DNS_LABEL_MAX || ++w->wire + 1 > DNS_NAME_WIRE_MAX)
		return false;
	if (octet >= 'A' && octet <= 'Z')
		octet += 'a' - 'A';
	if (is_plain(octet)) {
		w->out[w->len++] = (char)octet;
	} else if (octet == '.' || octet == '\\') {
		w->out[w->len++] = '\\';
		w->out[w->len++] = (char)octet;
	} else {
		w->out[w->len++] = '\\';
		w->out[w->len++] = (char)('0' + octet / 100);
		w->out[w->len++] = (char)('0' + octet / 10 % 10);
		w->out[w->len++] = (char)('0' + octet % 10);
	}
	return true;
}

/* An octet of presentation form. 1: in *octet, 0: a dot that ends the label, ERR_SYNTAX. */
static int next_octet(struct slice *text, uint8_t *octet)
{
	uint8_t c = (uint8_t)text->ptr[0];
	unsigned value = 0;

	*text = slice_from(*text, 1);
	*octet = c;
	if (c == '.')
		return 0;
	if (c != '\\')
		return c > ' ' && c < 0x7f ? 1 : ERR_SYNTAX;
	if (text->len == 0)
		return ERR_SYNTAX;
	c = (uint8_t)text->ptr[0];
	if (c < '0' || c > '9') {
		*octet = c;
		*text = slice_from(*text, 1);
		return c > ' ' && c < 0x7f ? 1 : ERR_SYNTAX;
	}
	if (text->len < 3)
		return ERR_SYNTAX;
	for (int i = 0; i < 3; i++) {
		if (text->ptr[i] < '0' || text->ptr[i] > '9')
			return ERR_SYNTAX;
		value = value * 10 + (unsigned)(text->ptr[i] - '0');
	}
	*text = slice_from(*text, 3);
	*octet = (uint8_t)value;
	return value <= 255 ? 1 : ERR_SYNTAX;
}

bool dns_name_normalize(struct slice text, char *out)
{
	struct writer w = {.out = out};
	uint8_t octet;

	out[0] = '\0';
	if (text.len == 0 || slice_eq(text, SLICE(".")))
		return true;
	while (text.len) {
		int got = next_octet(&text, &octet);

		if (got < 0 || (got == 1 && !put_octet(&w, octet)) || (got == 0 && w.label == 0)) {
			out[0] = '\0';
			return false;
		}
		if (got == 0)
			w.label = 0;
	}
	out[w.len] = '\0';
	return true;
}

bool dns_name_is_host(const char *name)
{
	size_t len = strlen(name), label = 0;
	bool all_digits = true;

	if (len == 0 || len > DNS_HOST_MAX)
		return false;
	for (size_t i = 0; i <= len; i++) {
		char c = name[i];

		if (c == '.' || c == '\0') {
			if (label == 0 || label > DNS_LABEL_MAX || name[i - 1] == '-')
				return false;
			if (c == '\0')
				return !all_digits;
			label = 0;
			all_digits = true;
			continue;
		}
		if (!is_plain((uint8_t)c) || (c == '-' && label == 0))
			return false;
		if (c < '0' || c > '9')
			all_digits = false;
		label++;
	}
	return false;
}

int dns_name_read(struct slice packet, size_t *offset, char *out)
{
	struct writer w = {.out = out};
	size_t at = *offset, limit = *offset, end = 0;
	int jumps = 0;

	out[0] = '\0';
	for (;;) {
		uint8_t len;

		if (at >= packet.len)
			return ERR_SYNTAX;
		len = (uint8_t)packet.ptr[at++];
		if (len == 0)
			break;
		if (len <= DNS_LABEL_MAX) {
			w.label = 0;
			if (packet.len - at < len)
				return ERR_SYNTAX;
			for (; len; len--)
				if (!put_octet(&w, (uint8_t)packet.ptr[at++]))
					return ERR_SYNTAX;
			continue;
		}
		if ((len & 0xc0) != 0xc0 || at >= packet.len)
			return ERR_SYNTAX;
		size_t target = (size_t)(len & 0x3f) << 8 | (uint8_t)packet.ptr[at++];
		if (!end)
			end = at;
		/* Strictly downwards, so there is an end; and no sender needs more pointers than a name has labels. */
		if (target >= limit || ++jumps > DNS_NAME_WIRE_MAX / 2)
			return ERR_SYNTAX;
		at = limit = target;
	}
	out[w.len] = '\0';
	*offset = end ? end : at;
	return 0;
}

size_t dns_name_write(const char *name, uint8_t *out)
{
	struct slice text = slice_of_str(name);
	size_t len = 0, label_at = 0;
	uint8_t octet;

	if (text.len == 0) {
		out[0] = 0;
		return 1;
	}
	out[len++] = 0;
	while (text.len) {
		int got = next_octet(&text, &octet);

		BUG_ON(got < 0 || len >= DNS_NAME_WIRE_MAX);
		if (got == 0) {
			label_at = len;
			out[len++] = 0;
			continue;
		}
		out[label_at]++;
		out[len++] = octet;
	}
	BUG_ON(len >= DNS_NAME_WIRE_MAX);
	out[len++] = 0;
	return len;
}
