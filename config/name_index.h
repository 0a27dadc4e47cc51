/*
 * config/name_index.h - which of many names is this one? ASCII case-insensitive
 *
 * Private to config/. Open addressing over the numbers of entries that the owner keeps in an array of its own: four
 * octets a slot, at most half of them taken, so that a list of half a million addresses costs 4 MB (uthash would take
 * ten times that, and could not live in a struct config_memory). The hash is keyed: names come from strangers.
 */
#ifndef CONFIG_NAME_INDEX_H
#define CONFIG_NAME_INDEX_H

#include "config/memory.h"

#include <sodium.h>

#define NAME_INDEX_NONE UINT32_MAX
#define NAME_INDEX_TEXT_MAX 1024 /* octets of a name; a longer one is never found */

struct name_index {
	uint32_t *slots; /* number of the entry + 1; 0: free */
	uint32_t mask;
	unsigned char key[crypto_shorthash_KEYBYTES];
	const char *(*name_of)(const void *owner, uint32_t entry); /* NUL-terminated */
	const void *owner;
};

/* For at most `count` names; the slots live in `memory`. */
void name_index_init(struct name_index *index, struct config_memory *memory, size_t count,
		     const char *(*name_of)(const void *owner, uint32_t entry), const void *owner);
/* The entry of that name, or NAME_INDEX_NONE. */
uint32_t name_index_find(const struct name_index *index, struct slice name);
/* NAME_INDEX_NONE: it is in. Otherwise the entry that has the name already. */
uint32_t name_index_add(struct name_index *index, uint32_t entry);

#endif
