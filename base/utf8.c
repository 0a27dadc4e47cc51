#include "base/utf8.h"

#include "base/base.h"

size_t utf8_character(struct slice text, uint32_t *code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned char first = text.len ? (unsigned char)text.ptr[0] : 0xff;
	size_t len = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;

	if (len == 0 || len > text.len)
		return 0;
	*code = len == 1 ? first : first & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if (((unsigned char)text.ptr[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | ((unsigned char)text.ptr[i] & 0x3f);
	}
	if (*code < least[len] || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff))
		return 0;
	return len;
}

bool utf8_is_visible(uint32_t code)
{
	static const struct {
		uint32_t from, to;
	} hidden[] = {
	    {0x00, 0x1f},     {0x7f, 0x9f},	{0xad, 0xad},	  {0x61c, 0x61c},   {0x180e, 0x180e},
	    {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0xd800, 0xf8ff}, {0xfdd0, 0xfdef},
	    {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xfff0, 0xfffb}, {0xfffe, 0xffff}, {0xe0000, UINT32_MAX},
	};

	for (size_t i = 0; i < ARRAY_LEN(hidden); i++)
		if (code >= hidden[i].from && code <= hidden[i].to)
			return false;
	return true;
}

size_t utf8_visible(struct slice text)
{
	uint32_t code;
	size_t len = utf8_character(text, &code);

	return len > 0 && utf8_is_visible(code) ? len : 0;
}
