/*
 * base/base64.h - base64 (RFC 4648 section 4) that somebody else wrote
 *
 * By libsodium, behind a guard: its 1.0.18 takes some octets over 127 for base64 characters, where char is signed.
 */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include "base/slice.h"

enum base64_padding { BASE64_PADDED, BASE64_UNPADDED };

/* Decodes all of `text` into `out`; octets in `ignored` (NULL: none) are passed over. False: it is not base64, or has
 * more than `size` octets; then *len is 0. */
bool base64_decode(struct slice text, enum base64_padding padding, const char *ignored, void *out, size_t size,
		   size_t *len);

#endif
