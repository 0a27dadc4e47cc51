#include "base/idna.h"

#include "base/utf8.h"

#include <gnutls/gnutls.h>

/* An A-label has 63 octets, a U-label at most four for each of them. */
enum { U_LABEL_MAX_BYTES = 4 * 63 };

static bool has_other_ascii_than_ldh(struct slice label)
{
	static const char ldh[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";

	for (size_t i = 0; i < label.len; i++)
		if ((unsigned char)label.ptr[i] < 0x80 && !memchr(ldh, label.ptr[i], sizeof(ldh) - 1))
			return true;
	return false;
}

static bool map(struct slice label, gnutls_datum_t *mapped)
{
	*mapped = (gnutls_datum_t){NULL, 0};
	return gnutls_idna_map(label.ptr, (unsigned)label.len, mapped, GNUTLS_IDNA_FORCE_2008) == GNUTLS_E_SUCCESS;
}

/* Nothing remains of it between two others. Each character is mapped by itself, whatever stands beside it. */
static bool is_dropped(struct slice character)
{
	gnutls_datum_t mapped;
	char label[6] = "0";
	bool dropped;

	memcpy(label + 1, character.ptr, character.len);
	label[character.len + 1] = '0';
	if (!map(slice_of(label, character.len + 2), &mapped))
		return false;
	dropped = slice_eq(slice_of(mapped.data, mapped.size), SLICE("00"));
	gnutls_free(mapped.data);
	return dropped;
}

static bool loses_something(struct slice label)
{
	while (label.len > 0) {
		uint32_t code;
		size_t len = utf8_character(label, &code);
		if (len == 0 || (len > 1 && is_dropped(slice_to(label, len))))
			return true;
		label = slice_from(label, len);
	}
	return false;
}

static bool append_label(struct buf *out, struct slice label)
{
	gnutls_datum_t mapped;
	bool is_good;

	if (slice_is_ascii(label))
		return buf_append(out, label) == 0;
	if (label.len > U_LABEL_MAX_BYTES || has_other_ascii_than_ldh(label) || !map(label, &mapped))
		return false;
	is_good = !loses_something(label) && buf_append(out, slice_of(mapped.data, mapped.size)) == 0;
	gnutls_free(mapped.data);
	return is_good;
}

bool idna_append_ascii(struct buf *out, struct slice domain)
{
	for (;;) {
		ptrdiff_t dot = slice_find(domain, '.');
		if (dot < 0)
			return append_label(out, domain);
		if (!append_label(out, slice_to(domain, (size_t)dot)) || buf_append_byte(out, '.') != 0)
			return false;
		domain = slice_from(domain, (size_t)dot + 1);
	}
}
