#include "config/yaml.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <uthash.h>
#include <yaml.h>

struct reader {
	yaml_parser_t parser;
	struct slice text;
	const char *name;
	struct config_memory *memory;
	struct config_errors *errors;
	unsigned node_count;
};

/* The keys of one mapping, to find those that stand twice. */
struct seen_key {
	struct slice key;
	uint32_t line;
	UT_hash_handle hh;
};

#define COMPLAIN(reader, mark_line, mark_column, ...)                                                                  \
	config_errors_add((reader)->errors,                                                                            \
			  &(struct config_place){(reader)->name, (uint32_t)(mark_line), (uint32_t)(mark_column)},      \
			  __VA_ARGS__)

/* ---- Before libyaml sees it: only characters that mean the same to everybody. */

static const char *character_fault(struct slice rest, size_t len, uint32_t code)
{
	uint8_t first = (uint8_t)rest.ptr[0];

	if (first == 0)
		return "a NUL character";
	if (first == '\r')
		return len == 1 && rest.len > 1 && rest.ptr[1] == '\n'
			   ? "a line that ends with CR LF: save the file with Unix line ends"
			   : "a CR character";
	if ((first < ' ' && first != '\n' && first != '\t') || first == 0x7f)
		return "a control character";
	if (len == 0)
		return "an octet that is no UTF-8";
	if (code == 0xfeff)
		return "a byte order mark: save the file as UTF-8 without it";
	/* C1 controls, and the noncharacters that libyaml refuses without a line. */
	if ((code >= 0x80 && code < 0xa0) || code == 0xfffe || code == 0xffff)
		return "a control character";
	return NULL;
}

static bool characters_are_good(const struct reader *reader)
{
	struct slice rest = reader->text;
	uint32_t line = 1, column = 1;

	while (rest.len > 0) {
		uint32_t code = 0;
		size_t len = utf8_character(rest, &code);
		const char *fault = character_fault(rest, len, code);
		if (fault) {
			COMPLAIN(reader, line, column, "here is %s", fault);
			return false;
		}
		column++;
		if (rest.ptr[0] == '\n') {
			line++;
			column = 1;
		}
		rest = slice_from(rest, len);
	}
	return true;
}

/* ---- libyaml's complaints in the words of somebody who wants to repair a file. */

/* marks count characters, not octets: find the octet. */
static char char_at(const struct reader *reader, const yaml_mark_t *mark)
{
	struct slice rest = reader->text;
	uint32_t code;
	ptrdiff_t end;

	for (size_t line = 0; line < mark->line; line++) {
		end = slice_find(rest, '\n');
		if (end < 0)
			return '\0';
		rest = slice_from(rest, (size_t)end + 1);
	}
	for (size_t column = 0; column < mark->column && rest.len > 0; column++)
		rest = slice_from(rest, utf8_character(rest, &code));
	return rest.len ? rest.ptr[0] : '\0';
}

static void complain_of_parser(struct reader *reader)
{
	const yaml_parser_t *parser = &reader->parser;
	const char *context = parser->context ? parser->context : "", *problem = parser->problem ? parser->problem : "";
	yaml_mark_t mark = parser->problem_mark;
	char c;

	if (strstr(context, "anchor") || strstr(context, "alias") || strstr(context, "tag") ||
	    strstr(context, "directive"))
		mark = parser->context_mark;
	c = char_at(reader, &mark);
	mark.line++;
	mark.column++;
	if (c == '\t')
		COMPLAIN(reader, mark.line, mark.column, "here is a tab: indent with blanks");
	else if (c && strchr("*&@`%!", c))
		COMPLAIN(reader, mark.line, mark.column, "a value that begins with '%c' wants quotes", c);
	else if (strstr(problem, "mapping values are not allowed"))
		COMPLAIN(reader, mark.line, mark.column,
			 "unexpected ':': a value with ': ' in it wants quotes, a key the right indentation");
	else if (*context && parser->context_mark.line + 1 < mark.line)
		COMPLAIN(reader, mark.line, mark.column, "not YAML: %s (%s that begins in line %zu)", problem, context,
			 parser->context_mark.line + 1);
	else
		COMPLAIN(reader, mark.line, mark.column, "not YAML: %s%s%s", problem, *context ? " " : "", context);
}

static bool next_event(struct reader *reader, yaml_event_t *event)
{
	if (yaml_parser_parse(&reader->parser, event))
		return true;
	complain_of_parser(reader);
	return false;
}

/* ---- The tree. */

static struct yaml_node *node_new(struct reader *reader, enum yaml_kind kind, const yaml_mark_t *mark)
{
	struct yaml_node *node = config_memory_alloc(reader->memory, sizeof(*node));

	reader->node_count++;
	node->kind = kind;
	node->line = (uint32_t)mark->line + 1;
	node->column = (uint32_t)mark->column + 1;
	return node;
}

static void append_child(struct yaml_node *parent, struct yaml_node *child)
{
	if (parent->last)
		parent->last->next = child;
	else
		parent->first = child;
	parent->last = child;
}

/* An alias, anchor or tag is most often an unquoted value. */
static bool is_plain_yaml(struct reader *reader, struct yaml_node *node, const void *anchor, const void *tag)
{
	if (!anchor && !tag)
		return true;
	COMPLAIN(reader, node->line, node->column, "a value that begins with '%c' wants quotes (%s are not supported)",
		 anchor ? '&' : '!', anchor ? "anchors" : "tags");
	node->kind = YAML_BROKEN;
	return false;
}

/* Escapes and block scalars can bring in what no value may have: a line break in a header field, say. */
static void refuse_control_characters(struct reader *reader, struct yaml_node *node)
{
	for (size_t i = 0; i < node->text.len; i++) {
		if ((uint8_t)node->text.ptr[i] >= ' ' && node->text.ptr[i] != 0x7f)
			continue;
		COMPLAIN(reader, node->line, node->column, "a line break or control character in a value");
		node->kind = YAML_BROKEN;
		return;
	}
}

static struct yaml_node *read_node(struct reader *reader, const yaml_event_t *event, unsigned depth);

static bool read_list(struct reader *reader, struct yaml_node *list, unsigned depth)
{
	yaml_event_t event;
	struct yaml_node *child;

	while (next_event(reader, &event)) {
		if (event.type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(&event);
			return true;
		}
		child = read_node(reader, &event, depth);
		yaml_event_delete(&event);
		if (!child)
			return false;
		append_child(list, child);
	}
	return false;
}

/* False: it stood there before. */
static bool remember_key(struct reader *reader, struct seen_key **seen, const struct yaml_node *key)
{
	struct seen_key *found;

	HASH_FIND(hh, *seen, key->text.ptr, key->text.len, found);
	if (found) {
		COMPLAIN(reader, key->line, key->column, "duplicate key '%.*s', first in line %u",
			 (int)(key->text.len < 64 ? key->text.len : 64), key->text.ptr, found->line);
		return false;
	}
	found = config_memory_alloc(reader->memory, sizeof(*found));
	found->key = key->text;
	found->line = key->line;
	HASH_ADD_KEYPTR(hh, *seen, found->key.ptr, found->key.len, found);
	return true;
}

/* One key and its value. 1: one was read, 0: the end of the mapping, -1: cannot go on. */
static int read_pair(struct reader *reader, struct yaml_node *map, struct seen_key **seen, unsigned depth)
{
	yaml_event_t event;
	struct yaml_node *key, *value;
	bool is_end;

	if (!next_event(reader, &event))
		return -1;
	is_end = event.type == YAML_MAPPING_END_EVENT;
	key = is_end ? NULL : read_node(reader, &event, depth);
	yaml_event_delete(&event);
	if (is_end)
		return 0;
	if (!key || !next_event(reader, &event))
		return -1;
	value = read_node(reader, &event, depth);
	yaml_event_delete(&event);
	if (!value)
		return -1;
	if (key->kind == YAML_LIST || key->kind == YAML_MAP)
		COMPLAIN(reader, key->line, key->column, "a key is a plain word");
	if (key->kind != YAML_TEXT || !remember_key(reader, seen, key))
		return 1;
	value->key = key->text;
	value->key_line = key->line;
	value->key_column = key->column;
	append_child(map, value);
	return 1;
}

static bool read_map(struct reader *reader, struct yaml_node *map, unsigned depth)
{
	struct seen_key *seen = NULL;
	int rc;

	do {
		rc = read_pair(reader, map, &seen, depth);
	} while (rc > 0);
	HASH_CLEAR(hh, seen);
	return rc == 0;
}

static bool read_children(struct reader *reader, struct yaml_node *node, unsigned depth)
{
	if (depth == YAML_MAX_DEPTH) {
		COMPLAIN(reader, node->line, node->column, "more than %d levels", YAML_MAX_DEPTH);
		return false;
	}
	return node->kind == YAML_LIST ? read_list(reader, node, depth + 1) : read_map(reader, node, depth + 1);
}

/* NULL: cannot go on; told. */
static struct yaml_node *read_node(struct reader *reader, const yaml_event_t *event, unsigned depth)
{
	struct yaml_node *node = node_new(reader, YAML_TEXT, &event->start_mark);
	bool is_good = true;

	if (reader->node_count > YAML_MAX_NODES) {
		COMPLAIN(reader, node->line, node->column, "more than %d values", YAML_MAX_NODES);
		return NULL;
	}
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		node->text = slice_of(
		    config_memory_copy(reader->memory, slice_of(event->data.scalar.value, event->data.scalar.length)),
		    event->data.scalar.length);
		node->is_quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
		if (is_plain_yaml(reader, node, event->data.scalar.anchor, event->data.scalar.tag))
			refuse_control_characters(reader, node);
		return node;
	case YAML_SEQUENCE_START_EVENT:
		node->kind = YAML_LIST;
		is_good = read_children(reader, node, depth);
		is_plain_yaml(reader, node, event->data.sequence_start.anchor, event->data.sequence_start.tag);
		break;
	case YAML_MAPPING_START_EVENT:
		node->kind = YAML_MAP;
		is_good = read_children(reader, node, depth);
		is_plain_yaml(reader, node, event->data.mapping_start.anchor, event->data.mapping_start.tag);
		break;
	default:
		node->kind = YAML_BROKEN;
		COMPLAIN(reader, node->line, node->column,
			 "a value that begins with '*' wants quotes (aliases are not supported)");
	}
	return is_good ? node : NULL;
}

static struct yaml_node *empty_map(struct reader *reader)
{
	yaml_mark_t start = {0};

	return node_new(reader, YAML_MAP, &start);
}

/* Behind the stream's start: the one document, or none. */
static struct yaml_node *read_document(struct reader *reader)
{
	struct yaml_node *root = NULL;
	yaml_event_t event;
	bool is_end;

	for (;;) {
		if (!next_event(reader, &event))
			return NULL;
		is_end = event.type == YAML_STREAM_END_EVENT;
		if (event.type == YAML_DOCUMENT_START_EVENT && root) {
			COMPLAIN(reader, event.start_mark.line + 1, event.start_mark.column + 1,
				 "a second document begins here: there is only one");
			yaml_event_delete(&event);
			return NULL;
		}
		if (event.type != YAML_STREAM_START_EVENT && event.type != YAML_DOCUMENT_START_EVENT &&
		    event.type != YAML_DOCUMENT_END_EVENT && !is_end) {
			root = read_node(reader, &event, 0);
			if (!root) {
				yaml_event_delete(&event);
				return NULL;
			}
		}
		yaml_event_delete(&event);
		if (is_end)
			return root ? root : empty_map(reader);
	}
}

struct yaml_node *yaml_read(struct slice text, const char *name, struct config_memory *memory,
			    struct config_errors *errors)
{
	struct reader reader = {.text = text, .name = name, .memory = memory, .errors = errors};
	struct yaml_node *root;

	if (text.len > YAML_MAX_BYTES) {
		COMPLAIN(&reader, 1, 1, "the file is larger than 1 MiB");
		return NULL;
	}
	if (!characters_are_good(&reader))
		return NULL;
	if (!yaml_parser_initialize(&reader.parser))
		abort(); /* out of memory */
	yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text.ptr, text.len);
	root = read_document(&reader);
	yaml_parser_delete(&reader.parser);
	if (root && root->kind == YAML_TEXT && root->text.len == 0 && !root->is_quoted)
		return empty_map(&reader); /* only comments, or "---" */
	if (root && root->kind != YAML_MAP) {
		if (root->kind != YAML_BROKEN)
			COMPLAIN(&reader, root->line, root->column, "settings are wanted here: KEY: VALUE");
		return NULL;
	}
	return root;
}
