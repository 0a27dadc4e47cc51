/*
 * config/yaml.h - YAML text as a tree of plain texts, each with its line and column
 *
 * Private to config/. Built from libyaml's events. Refused, with words: more than 1 MiB, 8 levels or 50,000 values,
 * anything but UTF-8 with LF, control characters, anchors, aliases, tags, keys that are no plain text, keys that stand
 * twice, a second document.
 */
#ifndef CONFIG_YAML_H
#define CONFIG_YAML_H

#include "base/slice.h"
#include "config/errors.h"
#include "config/memory.h"

#define YAML_MAX_BYTES (1024 * 1024)
#define YAML_MAX_DEPTH 8
#define YAML_MAX_NODES 50000

enum yaml_kind {
	YAML_TEXT = 0,
	YAML_LIST,
	YAML_MAP,
	YAML_BROKEN, /* told already: pass over it */
};

struct yaml_node {
	enum yaml_kind kind;
	bool is_quoted;			/* YAML_TEXT */
	uint32_t line, column;		/* from 1 */
	struct slice text;		/* YAML_TEXT; may contain NULs when quoted */
	struct yaml_node *first, *last; /* children of YAML_LIST and YAML_MAP, in order */
	/* As a child of a YAML_MAP: */
	struct slice key;
	uint32_t key_line, key_column;
	struct yaml_node *next; /* the sibling behind it */
};

/* The root, which is a YAML_MAP (an empty one for an empty text), or NULL when the text cannot be read at all; mistakes
 * go to `errors` in both cases. The tree lives in `memory`. `name`: the file's, for messages. */
struct yaml_node *yaml_read(struct slice text, const char *name, struct config_memory *memory,
			    struct config_errors *errors);

#endif
