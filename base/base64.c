#include "base/base64.h"

#include <sodium.h>

bool base64_decode(struct slice text, enum base64_padding padding, const char *ignored, void *out, size_t size,
		   size_t *len)
{
	int variant =
	    padding == BASE64_PADDED ? sodium_base64_VARIANT_ORIGINAL : sodium_base64_VARIANT_ORIGINAL_NO_PADDING;

	*len = 0;
	if (slice_is_ascii(text) && sodium_base642bin(out, size, text.ptr, text.len, ignored, len, NULL, variant) == 0)
		return true;
	*len = 0;
	return false;
}
