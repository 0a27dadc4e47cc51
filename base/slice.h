/*
 * base/slice.h - borrowed bytes: a pointer and a length, never owned, never NUL-terminated
 *
 * Whoever returns a slice says how long it lives. An empty slice may have a NULL pointer.
 */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct slice {
	const char *ptr;
	size_t len;
};

/* A slice of a string literal, usable in initialisers. */
#define SLICE(literal) ((struct slice){(literal), sizeof(literal) - 1})
/* The two arguments of printf's "%.*s". */
#define SLICE_ARG(s) (int)(s).len, (s).ptr ? (s).ptr : ""

static inline struct slice slice_of(const void *ptr, size_t len)
{
	return (struct slice){ptr, len};
}

/* NULL gives an empty slice. */
static inline struct slice slice_of_str(const char *str)
{
	return (struct slice){str, str ? strlen(str) : 0};
}

static inline bool slice_eq(struct slice a, struct slice b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* ASCII case-insensitive, as SMTP verbs, field names and domains compare. */
static inline bool slice_case_eq(struct slice a, struct slice b)
{
	return a.len == b.len && (a.len == 0 || strncasecmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool slice_has_prefix(struct slice s, struct slice prefix)
{
	return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

static inline bool slice_has_suffix(struct slice s, struct slice suffix)
{
	return s.len >= suffix.len &&
	       (suffix.len == 0 || memcmp(s.ptr + s.len - suffix.len, suffix.ptr, suffix.len) == 0);
}

static inline bool slice_has_case_prefix(struct slice s, struct slice prefix)
{
	return s.len >= prefix.len && (prefix.len == 0 || strncasecmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

static inline bool slice_has_case_suffix(struct slice s, struct slice suffix)
{
	return s.len >= suffix.len &&
	       (suffix.len == 0 || strncasecmp(s.ptr + s.len - suffix.len, suffix.ptr, suffix.len) == 0);
}

/* From `from` to the end; beyond the end: empty. */
static inline struct slice slice_from(struct slice s, size_t from)
{
	if (from > s.len)
		from = s.len;
	return (struct slice){s.ptr ? s.ptr + from : NULL, s.len - from};
}

/* The first `len` bytes, or all when there are fewer. */
static inline struct slice slice_to(struct slice s, size_t len)
{
	return (struct slice){s.ptr, len < s.len ? len : s.len};
}

/* Index of the first `byte`, or -1. */
static inline ptrdiff_t slice_find(struct slice s, char byte)
{
	const char *at = s.len ? memchr(s.ptr, byte, s.len) : NULL;
	return at ? at - s.ptr : -1;
}

/* Index of the last `byte`, or -1. */
static inline ptrdiff_t slice_find_last(struct slice s, char byte)
{
	const char *at = s.len ? memrchr(s.ptr, byte, s.len) : NULL;
	return at ? at - s.ptr : -1;
}

/* No octet over 127. */
static inline bool slice_is_ascii(struct slice s)
{
	uint64_t word;

	for (; s.len >= sizeof(word); s = slice_from(s, sizeof(word))) {
		memcpy(&word, s.ptr, sizeof(word));
		if (word & UINT64_C(0x8080808080808080))
			return false;
	}
	for (; s.len > 0; s = slice_from(s, 1))
		if ((unsigned char)s.ptr[0] >= 0x80)
			return false;
	return true;
}

/* Without leading and trailing SP, HTAB, CR and LF. */
static inline struct slice slice_trim(struct slice s)
{
	while (s.len && strchr(" \t\r\n", s.ptr[0]) && s.ptr[0])
		s = slice_from(s, 1);
	while (s.len && strchr(" \t\r\n", s.ptr[s.len - 1]) && s.ptr[s.len - 1])
		s.len--;
	return s;
}

/* Copies into a NUL-terminated array of `size` bytes, cut to fit. Returns false when it was cut. */
static inline bool slice_to_cstr(struct slice s, char *out, size_t size)
{
	size_t n = s.len < size ? s.len : size - 1;
	if (n)
		memcpy(out, s.ptr, n);
	out[n] = '\0';
	return n == s.len;
}

#endif
