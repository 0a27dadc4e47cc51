#include "config/address_map.h"

#include "base/base.h"
#include "base/buf.h"
#include "base/idna.h"
#include "config/name_index.h"
#include "config/pattern.h"
#include "config/users_file.h"

#include <stdio.h>

enum { KEY_MAX_BYTES = 2 * ADDRESS_MAP_ADDRESS_MAX }; /* A-labels are longer than U-labels */

/* Keys are written in one way: user@example.com, @example.com, *.example.com, *. */
struct entry {
	const char *key, *value;
	uint32_t line;
};

struct address_map {
	enum address_map_kind kind;
	struct entry *entries;
	size_t count;
	struct name_index index;
};

static const char *key_of(const void *owner, uint32_t entry)
{
	return ((const struct address_map *)owner)->entries[entry].key;
}

/* ---- One way to write an address. */

/* RFC 5322 section 3.2.3; what has only these means the same in quotes. */
static bool needs_quotes(char c)
{
	return (unsigned char)c <= ' ' || strchr("()<>[]:;@\\,\"", c);
}

/* What stands in needless quotes, into `out`. False: nothing does. */
static bool append_unquoted(struct buf *out, struct slice local)
{
	size_t before = buf_len(out);

	if (local.len < 3 || local.ptr[0] != '"' || local.ptr[local.len - 1] != '"')
		return false;
	for (size_t i = 1; i + 1 < local.len; i++) {
		i += local.ptr[i] == '\\' && i + 2 < local.len;
		if (needs_quotes(local.ptr[i]) || buf_append_byte(out, local.ptr[i]) < 0) {
			buf_truncate(out, before);
			return false;
		}
	}
	return true;
}

/* Two ways to write one address must not lead past a list: no needless quotes, and the domain in A-labels. */
static void append_canonical(struct buf *out, struct slice address)
{
	size_t local = (size_t)(slice_find_last(address, '@') + 1), before;

	if (local > 1 && append_unquoted(out, slice_to(address, local - 1)))
		buf_append_byte(out, '@');
	else
		buf_append(out, slice_to(address, local));
	before = buf_len(out);
	if (idna_append_ascii(out, slice_from(address, local)))
		return;
	buf_truncate(out, before);
	buf_append(out, slice_from(address, local));
}

/* ---- A line. */

static const char *parse_key(struct config_memory *memory, enum address_map_kind kind, struct slice text,
			     struct err *why)
{
	enum config_pattern_kind pattern;
	bool has_at = slice_find(text, '@') >= 0;
	struct buf key;
	struct slice part;
	const char *copy;
	int rc = config_pattern_parse(text, &pattern, &part, why);

	if (rc == 0 && pattern == CONFIG_PATTERN_DOMAIN && !has_at)
		rc = err_set(why, ERR_SYNTAX, "is no address: write @%.*s for a domain, or name@%.*s",
			     (int)MIN(part.len, 60u), part.ptr, (int)MIN(part.len, 60u), part.ptr);
	if (rc == 0 && pattern == CONFIG_PATTERN_NULL)
		rc = err_set(why, ERR_SYNTAX, "is the empty sender, which stays as it is");
	if (rc == 0 && pattern == CONFIG_PATTERN_ALL && kind == ADDRESS_MAP_LISTS)
		rc = err_set(why, ERR_SYNTAX, "would be everybody");
	if (rc == 0 && part.len > ADDRESS_MAP_ADDRESS_MAX)
		rc = err_set(why, ERR_LIMIT, "is longer than an address can be");
	if (rc < 0)
		return NULL;
	buf_init(&key, KEY_MAX_BYTES);
	buf_append_str(&key, pattern == CONFIG_PATTERN_DOMAIN	    ? "@"
			     : pattern == CONFIG_PATTERN_SUBDOMAINS ? "*."
			     : pattern == CONFIG_PATTERN_ALL	    ? "*"
								    : "");
	append_canonical(&key, part);
	copy = config_memory_copy(memory, buf_slice(&key));
	buf_fini(&key);
	return copy;
}

/* It will stand in a header: nothing that needs quotes there. */
static bool is_clean(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if ((uint8_t)text.ptr[i] <= ' ' || text.ptr[i] == 0x7f || strchr("<>(),;:\\\"[]*", text.ptr[i]))
			return false;
	return text.len <= ADDRESS_MAP_ADDRESS_MAX;
}

static const char *parse_value(struct config_memory *memory, struct slice text, struct err *why)
{
	enum config_pattern_kind pattern;
	struct slice part;
	bool is_good = slice_find(text, '@') >= 0 && slice_find(text, '@') == slice_find_last(text, '@') &&
		       is_clean(text) && config_pattern_parse(text, &pattern, &part, NULL) == 0;

	if (is_good && (pattern == CONFIG_PATTERN_ADDRESS || pattern == CONFIG_PATTERN_DOMAIN))
		return config_memory_copy(memory, text);
	err_set(why, ERR_SYNTAX, "is no replacement: user@example.com, or @example.com to keep the local part");
	return NULL;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* The next word; *at moves behind it. Empty: there is none. */
static struct slice next_word(struct slice line, size_t *at)
{
	size_t begin;

	while (*at < line.len && is_blank(line.ptr[*at]))
		++*at;
	begin = *at;
	while (*at < line.len && !is_blank(line.ptr[*at]))
		++*at;
	return slice_to(slice_from(line, begin), *at - begin);
}

/* *wrong: the word that is wrong. */
static int parse_line(struct config_memory *memory, enum address_map_kind kind, struct slice line, struct entry *entry,
		      struct slice *wrong, struct err *why)
{
	size_t at = 0;

	*wrong = next_word(line, &at);
	entry->key = parse_key(memory, kind, *wrong, why);
	entry->value = "";
	if (!entry->key)
		return ERR_SYNTAX;
	*wrong = next_word(line, &at);
	if (kind == ADDRESS_MAP_REPLACES) {
		if (wrong->len == 0)
			return err_set(why, ERR_SYNTAX,
				       "needs a replacement behind it: an address, a blank, what it becomes");
		entry->value = parse_value(memory, *wrong, why);
		if (!entry->value)
			return ERR_SYNTAX;
		*wrong = next_word(line, &at);
	}
	return wrong->len == 0 ? 0 : err_set(why, ERR_SYNTAX, "is one word too many in its line");
}

/* ---- The whole. */

__attribute__((format(printf, 5, 6))) static void complain(struct config_errors *errors, const char *path,
							   uint32_t line, size_t column, const char *format, ...)
{
	struct config_place place = {path, line, (uint32_t)column + 1};
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	config_errors_add(errors, &place, "%s", text);
}

static void take_line(struct config_memory *memory, struct address_map *map, struct slice line, uint32_t number,
		      const char *path, struct config_errors *errors)
{
	struct entry entry = {.line = number};
	struct slice wrong;
	struct err why;
	size_t column;

	if (parse_line(memory, map->kind, line, &entry, &wrong, &why) < 0) {
		column = wrong.len ? (size_t)(wrong.ptr - line.ptr) : 0;
		if (wrong.len)
			complain(errors, path, number, column, "'%.*s' %s", (int)MIN(wrong.len, 60u), wrong.ptr,
				 why.text);
		else
			complain(errors, path, number, column, "'%s' %s", entry.key, why.text);
		return;
	}
	map->entries = config_memory_grow(memory, map->entries, map->count, sizeof(entry));
	map->entries[map->count++] = entry;
}

/* In a list twice the same is no contradiction. */
static void build_index(struct config_memory *memory, struct address_map *map, const char *path,
			struct config_errors *errors)
{
	name_index_init(&map->index, memory, map->count, key_of, map);
	for (size_t i = 0; i < map->count; i++) {
		uint32_t first = name_index_add(&map->index, (uint32_t)i);
		if (first != NAME_INDEX_NONE && map->kind == ADDRESS_MAP_REPLACES)
			complain(errors, path, map->entries[i].line, 0, "'%.100s' stood in line %u already",
				 map->entries[i].key, map->entries[first].line);
	}
}

struct address_map *address_map_parse(struct config_memory *memory, enum address_map_kind kind, struct slice text,
				      const char *path, struct config_errors *errors)
{
	struct address_map *map = config_memory_alloc(memory, sizeof(*map));
	size_t mistakes = errors->error_count;
	uint32_t number = 0;

	map->kind = kind;
	while (text.len > 0) {
		ptrdiff_t end = slice_find(text, '\n');
		struct slice line = end < 0 ? text : slice_to(text, (size_t)end), words = slice_trim(line);

		text = slice_from(text, line.len + 1);
		number++;
		if (words.len > 0 && words.ptr[0] != '#')
			take_line(memory, map, line, number, path, errors);
	}
	build_index(memory, map, path, errors);
	return errors->error_count == mistakes ? map : NULL;
}

struct address_map *address_map_load(struct config_memory *memory, enum address_map_kind kind, const char *path,
				     struct config_errors *errors)
{
	struct config_place place = {path, 0, 0};
	struct address_map *map = NULL;
	struct buf text;
	struct err err;

	buf_init(&text, ADDRESS_MAP_FILE_MAX_BYTES + 4096);
	if (users_file_read(path, &text, &err) < 0)
		config_errors_add(errors, &place, "%s", err.text);
	else
		map = address_map_parse(memory, kind, buf_slice(&text), path, errors);
	buf_fini(&text);
	return map;
}

size_t address_map_count(const struct address_map *map)
{
	return map->count;
}

/* ---- Asking. */

static const char *find_key(const struct address_map *map, const char *prefix, struct slice rest)
{
	char key[KEY_MAX_BYTES + 3];
	uint32_t entry;
	int len = snprintf(key, sizeof(key), "%s%.*s", prefix, SLICE_ARG(rest));

	if (len < 0 || (size_t)len >= sizeof(key))
		return NULL;
	entry = name_index_find(&map->index, slice_of(key, (size_t)len));
	return entry == NAME_INDEX_NONE ? NULL : map->entries[entry].value;
}

/* `address` is canonical. */
static const char *find(const struct address_map *map, struct slice address)
{
	struct slice domain = slice_from(address, (size_t)slice_find_last(address, '@') + 1);
	const char *found = find_key(map, "", address);
	ptrdiff_t dot;

	if (!found)
		found = find_key(map, "@", domain);
	while (!found && (dot = slice_find(domain, '.')) >= 0) {
		domain = slice_from(domain, (size_t)dot + 1);
		found = find_key(map, "*.", domain);
	}
	return found ? found : find_key(map, "*", (struct slice){0});
}

const char *address_map_find(const struct address_map *map, struct slice address)
{
	struct buf canonical;
	const char *found;

	if (slice_find(address, '@') < 0 || address.len > ADDRESS_MAP_ADDRESS_MAX)
		return NULL;
	buf_init(&canonical, KEY_MAX_BYTES);
	append_canonical(&canonical, address);
	found = find(map, buf_slice(&canonical));
	buf_fini(&canonical);
	return found;
}
