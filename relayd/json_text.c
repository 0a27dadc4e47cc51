#include "relayd/json_text.h"

#include "base/base.h"
#include "base/buf.h"

/* How many octets of a well-formed character (RFC 3629 section 4) stand at the start; 0: none. */
static size_t utf8_length(struct slice text)
{
	unsigned char first = (unsigned char)text.ptr[0], low = 0x80, high = 0xBF;
	size_t len = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;

	if (len == 0 || text.len < len)
		return 0;
	if (first == 0xE0)
		low = 0xA0;
	else if (first == 0xED)
		high = 0x9F;
	else if (first == 0xF0)
		low = 0x90;
	else if (first == 0xF4)
		high = 0x8F;
	for (size_t i = 1; i < len; i++, low = 0x80, high = 0xBF)
		if ((unsigned char)text.ptr[i] < low || (unsigned char)text.ptr[i] > high)
			return 0;
	return len;
}

/* C0, DEL and C1, which terminals obey. */
static bool is_control(const char *at, size_t len)
{
	unsigned char first = (unsigned char)at[0];

	return len == 1 ? first < 0x20 || first == 0x7F : len == 2 && first == 0xC2 && (unsigned char)at[1] < 0xA0;
}

json_t *json_clean_text(struct slice text)
{
	struct buf clean;
	json_t *string;

	buf_init(&clean, text.len * 3 + 1);
	while (text.len > 0) {
		size_t len = utf8_length(text);
		if (text.ptr[0] == '\t')
			buf_append_byte(&clean, ' ');
		else if (len > 0 && !is_control(text.ptr, len))
			buf_append(&clean, slice_to(text, len));
		else
			buf_append_str(&clean, "\xEF\xBF\xBD");
		text = slice_from(text, MAX(len, (size_t)1));
	}
	string = json_stringn(buf_len(&clean) ? buf_slice(&clean).ptr : "", buf_len(&clean));
	buf_fini(&clean);
	return string;
}
