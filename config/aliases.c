#include "config/aliases.h"

#include "base/base.h"
#include "config/name_index.h"
#include "config/pattern.h"
#include "config/users_file.h"

#include <stdio.h>

struct aliases {
	struct alias *entries;
	size_t count;
	struct name_index index;
};

/* Reads on through the text; `at` is where it is. */
struct parser {
	struct config_memory *memory;
	struct aliases *aliases;
	struct slice text;
	size_t at;
	const char *path;
	struct config_errors *errors;
	/* Where a place was last asked for: places come in the order of the file. */
	size_t known_at, known_line_at;
	uint32_t known_line;
};

static const char *name_of(const void *owner, uint32_t entry)
{
	return ((const struct aliases *)owner)->entries[entry].name;
}

/* ---- Mistakes. */

static struct config_place place_of(struct parser *p, size_t at)
{
	if (at < p->known_at)
		p->known_at = p->known_line_at = p->known_line = 0;
	for (; p->known_at < at; p->known_at++)
		if (p->text.ptr[p->known_at] == '\n') {
			p->known_line++;
			p->known_line_at = p->known_at + 1;
		}
	return (struct config_place){p->path, p->known_line + 1, (uint32_t)(at - p->known_line_at) + 1};
}

static void complain(struct parser *p, size_t at, struct slice what, const char *why)
{
	struct config_place place = place_of(p, at);

	config_errors_add(p->errors, &place, "'%.*s' %s", (int)MIN(what.len, 60u), what.ptr ? what.ptr : "", why);
}

/* ---- Lines. */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static char peek(const struct parser *p)
{
	return p->at < p->text.len ? p->text.ptr[p->at] : '\n';
}

static void skip_line(struct parser *p)
{
	ptrdiff_t end = slice_find(slice_from(p->text, p->at), '\n');

	p->at = end < 0 ? p->text.len : p->at + (size_t)end + 1;
}

static void skip_blanks(struct parser *p)
{
	while (is_blank(peek(p)))
		p->at++;
}

/* At the beginning of a line: passes over those that are blank or a comment. */
static void skip_idle_lines(struct parser *p)
{
	while (p->at < p->text.len) {
		size_t begin = p->at;
		skip_blanks(p);
		if (peek(p) != '\n' && peek(p) != '#') {
			p->at = begin;
			return;
		}
		skip_line(p);
	}
}

/* Blanks, and ends of lines that the next line continues. False: the entry is over, `at` stands at the next one. */
static bool skip_to_word(struct parser *p)
{
	for (;;) {
		skip_blanks(p);
		if (peek(p) != '\n')
			return true;
		skip_line(p);
		skip_idle_lines(p);
		if (p->at >= p->text.len || !is_blank(peek(p)))
			return false;
	}
}

/* The rest of a broken entry. */
static void skip_entry(struct parser *p)
{
	while (skip_to_word(p))
		while (peek(p) != '\n')
			p->at++;
}

/* Up to one of `ends` or the end of the line, without blanks at its end; quotes go. False: a quote that does not end.
 */
static bool read_word(struct parser *p, const char *ends, struct slice *word)
{
	size_t begin = p->at;
	ptrdiff_t end;

	if (peek(p) != '"') {
		while (peek(p) != '\n' && !strchr(ends, peek(p)))
			p->at++;
		*word = slice_trim(slice_to(slice_from(p->text, begin), p->at - begin));
		return true;
	}
	*word = slice_from(p->text, begin + 1);
	end = slice_find(*word, '\n');
	*word = slice_to(*word, end < 0 ? word->len : (size_t)end);
	end = slice_find(*word, '"');
	if (end < 0)
		return false;
	*word = slice_to(*word, (size_t)end);
	p->at = begin + word->len + 2;
	skip_blanks(p);
	return true;
}

/* ---- Targets. */

/* It may have to stand in an address without quotes. */
static bool is_name(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if ((uint8_t)text.ptr[i] <= ' ' || text.ptr[i] == 0x7f || strchr("@<>(),;:\\\"[]|/", text.ptr[i]))
			return false;
	return text.len > 0 && text.len <= ALIASES_NAME_MAX_BYTES && text.ptr[0] != '.' &&
	       text.ptr[text.len - 1] != '.';
}

static bool is_address(struct slice text)
{
	ptrdiff_t at = slice_find_last(text, '@');
	enum config_pattern_kind kind;
	struct slice part;

	return at > 0 && text.len <= ALIASES_NAME_MAX_BYTES && is_name(slice_to(text, (size_t)at)) &&
	       config_pattern_parse(text, &kind, &part, NULL) == 0;
}

/* NULL: no such thing. */
static const char *foreign_kind(struct slice target)
{
	if (target.ptr[0] == '|')
		return "a program";
	if (target.ptr[0] == '/')
		return "a file";
	return slice_has_case_prefix(target, SLICE(":include:")) ? "a list in a file" : NULL;
}

static void take_target(struct parser *p, struct alias *alias, size_t at, struct slice target)
{
	const char *kind = target.len ? foreign_kind(target) : NULL;
	bool is_escaped = target.len && target.ptr[0] == '\\';
	struct config_place place;

	if (kind) {
		place = place_of(p, at);
		config_errors_warn(p->errors, &place,
				   "'%.*s' is %s: relayd writes to addresses only, and passes it over",
				   (int)MIN(target.len, 60u), target.ptr, kind);
		return;
	}
	if (!is_name(slice_from(target, is_escaped)) && !is_address(target)) {
		complain(p, at, target, "is neither a name nor an address");
		return;
	}
	alias->targets = config_memory_grow(p->memory, alias->targets, alias->count, sizeof(*alias->targets));
	alias->targets[alias->count++] = config_memory_copy(p->memory, target);
}

/* ---- Entries. */

/* `at` stands behind the colon. */
static void take_targets(struct parser *p, struct alias *alias)
{
	while (skip_to_word(p)) {
		size_t at = p->at;
		struct slice target;
		if (peek(p) == ',') {
			p->at++;
			continue;
		}
		if (!read_word(p, ",", &target)) {
			complain(p, at, SLICE("\""), "begins a text in quotes that does not end");
			skip_entry(p);
			return;
		}
		take_target(p, alias, at, target);
		if (peek(p) != ',' && peek(p) != '\n') {
			complain(p, p->at, slice_to(slice_from(p->text, p->at), 1),
				 "stands where a comma was expected");
			skip_entry(p);
			return;
		}
	}
}

static void take_entry(struct parser *p)
{
	struct alias alias = {0};
	size_t at = p->at;
	struct slice name;
	bool is_whole = !is_blank(peek(p)) && read_word(p, ":", &name) && peek(p) == ':';

	if (!is_whole) {
		complain(p, at, SLICE("name: target, ..."), "is what an alias looks like");
		skip_entry(p);
		return;
	}
	if (!is_name(name))
		complain(p, at, name,
			 slice_find(name, '@') >= 0 ? "is an address: rewrite.recipient_file is for those"
						    : "is no name");
	p->at++;
	alias.name = config_memory_copy(p->memory, name);
	alias.line = place_of(p, at).line;
	take_targets(p, &alias);
	p->aliases->entries = config_memory_grow(p->memory, p->aliases->entries, p->aliases->count, sizeof(alias));
	p->aliases->entries[p->aliases->count++] = alias;
}

static void build_index(struct parser *p)
{
	struct aliases *aliases = p->aliases;

	name_index_init(&aliases->index, p->memory, aliases->count, name_of, aliases);
	for (size_t i = 0; i < aliases->count; i++) {
		const struct alias *alias = &aliases->entries[i];
		struct config_place place = {p->path, alias->line, 1};
		uint32_t first;
		if (strlen(alias->name) > ALIASES_NAME_MAX_BYTES)
			continue; /* told already */
		first = name_index_add(&aliases->index, (uint32_t)i);
		if (first != NAME_INDEX_NONE)
			config_errors_add(p->errors, &place, "'%s' stood in line %u already", alias->name,
					  aliases->entries[first].line);
	}
}

struct aliases *aliases_parse(struct config_memory *memory, struct slice text, const char *path,
			      struct config_errors *errors)
{
	struct parser p = {.memory = memory, .text = text, .path = path, .errors = errors};
	size_t mistakes = errors->error_count;

	p.aliases = config_memory_alloc(memory, sizeof(*p.aliases));
	for (skip_idle_lines(&p); p.at < text.len; skip_idle_lines(&p))
		take_entry(&p);
	build_index(&p);
	return errors->error_count == mistakes ? p.aliases : NULL;
}

struct aliases *aliases_load(struct config_memory *memory, const char *path, struct config_errors *errors)
{
	struct config_place place = {path, 0, 0};
	struct aliases *aliases = NULL;
	struct buf text;
	struct err err;

	buf_init(&text, ALIASES_FILE_MAX_BYTES + 4096);
	if (users_file_read(path, &text, &err) < 0)
		config_errors_add(errors, &place, "%s", err.text);
	else
		aliases = aliases_parse(memory, buf_slice(&text), path, errors);
	buf_fini(&text);
	return aliases;
}

size_t aliases_count(const struct aliases *aliases)
{
	return aliases->count;
}

const struct alias *aliases_find(const struct aliases *aliases, struct slice name)
{
	uint32_t entry = name_index_find(&aliases->index, name);

	return entry == NAME_INDEX_NONE ? NULL : &aliases->entries[entry];
}
