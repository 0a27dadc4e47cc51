/*
 * config/memory.h - memory that lives and dies as one, and is wiped when it dies
 *
 * Private to config/. A configuration is built from many small pieces that all end together, some of them secret.
 */
#ifndef CONFIG_MEMORY_H
#define CONFIG_MEMORY_H

#include "base/slice.h"

struct config_memory;

struct config_memory *config_memory_new(void);
/* Wipes and frees everything; accepts NULL in *memory. */
void config_memory_free(struct config_memory **memory);
/* Zeroed, aligned for any type. Never NULL. */
void *config_memory_alloc(struct config_memory *memory, size_t size);
/* A NUL-terminated copy. */
char *config_memory_copy(struct config_memory *memory, struct slice text);
/* An array of `count` + 1 elements with the first `count` copied from `array`; amortised, since it moves only when
 * `count` is a power of two or 0. */
void *config_memory_grow(struct config_memory *memory, void *array, size_t count, size_t size);

#endif
