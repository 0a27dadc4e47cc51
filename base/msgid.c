#include "base/msgid.h"

#include <ctype.h>

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

void msgid_format(uint64_t id, char out[MSGID_CHARS + 1])
{
	for (int i = MSGID_CHARS - 1; i >= 0; i--) {
		out[i] = digits[id & 31];
		id >>= 5;
	}
	out[MSGID_CHARS] = '\0';
}

static int digit_value(char c)
{
	const char *at;

	c = (char)toupper((unsigned char)c);
	if (c == 'I' || c == 'L')
		c = '1';
	if (c == 'O')
		c = '0';
	at = c ? strchr(digits, c) : NULL;
	return at ? (int)(at - digits) : -1;
}

bool msgid_parse(struct slice text, uint64_t *id)
{
	uint64_t value = 0;

	if (text.len != MSGID_CHARS || digit_value(text.ptr[0]) > 15)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		int digit = digit_value(text.ptr[i]);
		if (digit < 0)
			return false;
		value = value << 5 | (unsigned)digit;
	}
	*id = value;
	return true;
}
