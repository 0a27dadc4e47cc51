/*
 * base/base.h - the few things every file may need
 *
 * Out of memory aborts: ceilings keep peers from causing it, and the journal makes a restart safe. So the x-functions
 * never return NULL.
 */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* A fault of ours, never of a peer: says where, and aborts. Kept in release builds. */
#define BUG_ON(condition)                                                                                              \
	do {                                                                                                           \
		if (__builtin_expect(!!(condition), 0))                                                                \
			base_bug(#condition, __FILE__, __LINE__);                                                      \
	} while (0)

_Noreturn void base_bug(const char *condition, const char *file, int line);

/* Zeroed memory. */
void *xcalloc(size_t count, size_t size);
void *xmalloc(size_t size);
void *xrealloc(void *ptr, size_t size);
/* Grows an array to hold `count` elements of `size` bytes; overflow aborts. */
void *xreallocarray(void *ptr, size_t count, size_t size);
char *xstrdup(const char *str);
/* A NUL-terminated copy of `len` bytes. */
char *xmemdup(const void *ptr, size_t len);

#endif
