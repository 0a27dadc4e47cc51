#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void base_bug(const char *condition, const char *file, int line)
{
	fprintf(stderr, "relayd: bug: %s at %s:%d\n", condition, file, line);
	abort();
}

static void *checked(void *ptr)
{
	if (!ptr) {
		fputs("relayd: out of memory\n", stderr);
		abort();
	}
	return ptr;
}

void *xcalloc(size_t count, size_t size)
{
	return checked(calloc(count ? count : 1, size ? size : 1));
}

void *xmalloc(size_t size)
{
	return checked(malloc(size ? size : 1));
}

void *xrealloc(void *ptr, size_t size)
{
	return checked(realloc(ptr, size ? size : 1));
}

void *xreallocarray(void *ptr, size_t count, size_t size)
{
	return checked(reallocarray(ptr, count ? count : 1, size ? size : 1));
}

char *xstrdup(const char *str)
{
	return checked(strdup(str));
}

char *xmemdup(const void *ptr, size_t len)
{
	char *copy = xmalloc(len + 1);
	if (len)
		memcpy(copy, ptr, len);
	copy[len] = '\0';
	return copy;
}
