/*
 * config/address_map.h - files that say something about mail addresses: rewrite.from_file, rewrite.recipient_file and
 * suppress
 *
 * A line each; blank lines and lines that begin with # are passed over. A line names whom it is about and, in the first
 * two files, behind blanks what becomes of them:
 *
 *   user@example.com   other@example.net
 *   @example.com       @example.net          the local part stays
 *   *.example.com      one@example.net       every subdomain, at any depth, but not example.com itself
 *   *                  one@example.net       everybody else
 *
 * The nearest counts: the address, then its domain, then the longest "*." that fits, then "*". Compared without regard
 * to ASCII case. One look only: what comes out is not looked up again, so nothing goes round in circles.
 */
#ifndef CONFIG_ADDRESS_MAP_H
#define CONFIG_ADDRESS_MAP_H

#include "config/errors.h"
#include "config/memory.h"

#define ADDRESS_MAP_FILE_MAX_BYTES (16 * 1024 * 1024)
#define ADDRESS_MAP_ADDRESS_MAX 254 /* octets of an address, RFC 5321 section 4.5.3.1.3 without the brackets */

struct address_map;

enum address_map_kind {
	ADDRESS_MAP_REPLACES, /* each line has a replacement, and no key stands twice */
	ADDRESS_MAP_LISTS,    /* addresses alone; "*" would mean nobody at all, and is refused */
};

/* All of it lives in `memory`. NULL: mistakes were found, and told as "path:line:column: ...". */
struct address_map *address_map_parse(struct config_memory *memory, enum address_map_kind kind, struct slice text,
				      const char *path, struct config_errors *errors);
/* Reads the file first. */
struct address_map *address_map_load(struct config_memory *memory, enum address_map_kind kind, const char *path,
				     struct config_errors *errors);
size_t address_map_count(const struct address_map *map);
/* What the nearest line says, "" in a list; NULL: no line is about this address ("local@domain"). Lives as the map. */
const char *address_map_find(const struct address_map *map, struct slice address);

#endif
