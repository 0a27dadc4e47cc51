/* relayd.yaml's tree against the table of keys. */
#include "config/read.h"

#include "base/base.h"
#include "config/nearest.h"
#include "config/types.h"

#include <ctype.h>
#include <stdio.h>

#define PATH_MAX_CHARS 128
#define KNOWN_KEYS_MAX 512
#define NAME_MAX_CHARS 32

static struct config_place place_of_key(const struct config_reader *reader, const struct yaml_node *node)
{
	return (struct config_place){reader->config->file, node->key_line, node->key_column};
}

static struct config_place place_of_value(const struct config_reader *reader, const struct yaml_node *node)
{
	return (struct config_place){reader->config->file, node->line, node->column};
}

static struct config_origin origin_of(const struct yaml_node *node)
{
	return (struct config_origin){.kind = CONFIG_FROM_FILE, .line = node->line, .column = node->column};
}

static struct config_origin origin_of_key(const struct yaml_node *node)
{
	return (struct config_origin){.kind = CONFIG_FROM_FILE, .line = node->key_line, .column = node->key_column};
}

/* "settings", not "a map": the words of relayd.yaml(5). */
static void refuse_kind(const struct config_reader *reader, const struct yaml_node *node, const char *key,
			const char *wanted)
{
	struct config_place place = place_of_value(reader, node);

	if (node->kind == YAML_BROKEN)
		return;
	config_errors_add(reader->errors, &place, "%.100s wants %s", key, wanted);
}

/* `key:` and nothing behind it. */
static bool is_blank(const struct yaml_node *node)
{
	return node->kind == YAML_TEXT && node->text.len == 0 && !node->is_quoted;
}

/* ---- Unknown keys. */

/* What stands at this level: the part of the key's path behind the prefix, up to the next dot; empty: it is elsewhere. */
static struct slice name_at_level(const struct config_key *key, struct slice prefix)
{
	struct slice path = slice_of_str(key->path);
	ptrdiff_t dot;

	if (!slice_has_prefix(path, prefix))
		return SLICE("");
	path = slice_from(path, prefix.len);
	dot = slice_find(path, '.');
	return dot < 0 ? path : slice_to(path, (size_t)dot);
}

static const char *nearest_key(struct config_memory *memory, const struct config_table *table, struct slice prefix,
			       struct slice wanted)
{
	struct nearest nearest;

	nearest_init(&nearest, wanted);
	for (size_t i = 0; i < table->count; i++) {
		struct slice name = name_at_level(&table->keys[i], prefix);
		if (name.len > 0)
			nearest_offer(&nearest, config_memory_copy(memory, name));
	}
	return nearest.best;
}

/* Those that could stand at this level, each once: the keys of a section follow each other in the table. */
static void list_keys(const struct config_table *table, struct slice prefix, struct buf *out)
{
	struct slice last = {0};

	for (size_t i = 0; i < table->count; i++) {
		struct slice name = name_at_level(&table->keys[i], prefix);
		if (name.len == 0 || slice_eq(name, last))
			continue;
		buf_printf(out, "%s%.*s", buf_len(out) > 0 ? ", " : "", SLICE_ARG(name));
		last = name;
	}
}

/* A key that is right in another place: "certificate" for "tls.certificate". */
static const char *same_key_elsewhere(const struct config_table *table, struct slice wanted)
{
	for (size_t i = 0; i < table->count; i++) {
		struct slice path = slice_of_str(table->keys[i].path);
		ptrdiff_t dot = slice_find_last(path, '.');
		if (dot >= 0 && slice_eq(slice_from(path, (size_t)dot + 1), wanted))
			return table->keys[i].path;
	}
	return NULL;
}

/* Nothing is like it: what there is, below the root, where that is few. */
static void refuse_stranger(const struct config_reader *reader, const struct config_table *table, struct slice prefix,
			    const struct yaml_node *node, const struct config_place *place)
{
	struct buf known;

	buf_init(&known, KNOWN_KEYS_MAX);
	if (prefix.len > 0 || table != &config_root_table)
		list_keys(table, prefix, &known);
	config_errors_add(reader->errors, place, "unknown key '%.*s'%s%.*s", (int)MIN(node->key.len, 64), node->key.ptr,
			  buf_len(&known) > 0 ? "; there are " : "", SLICE_ARG(buf_slice(&known)));
	buf_fini(&known);
}

static void refuse_unknown(const struct config_reader *reader, const struct config_table *table, struct slice prefix,
			   const struct yaml_node *node)
{
	struct config_place place = place_of_key(reader, node);
	const char *meant = nearest_key(reader->config->memory, table, prefix, node->key);
	char as_file[PATH_MAX_CHARS];

	snprintf(as_file, sizeof(as_file), "%.*s%.*s_file", SLICE_ARG(prefix), (int)MIN(node->key.len, 64),
		 node->key.ptr);
	if (config_key_find(table, slice_of_str(as_file)))
		meant = as_file + prefix.len;
	else if (!meant)
		meant = same_key_elsewhere(table, node->key);
	if (meant)
		config_errors_add(reader->errors, &place, "unknown key '%.*s', did you mean '%s'?",
				  (int)MIN(node->key.len, 64), node->key.ptr, meant);
	else
		refuse_stranger(reader, table, prefix, node, &place);
}

/* ---- Values. */

/* Of an empty list too: it is a choice. */
static void remember_place(const struct config_target *target, const struct config_key *key,
			   const struct yaml_node *node)
{
	struct config_origin *origin = &target->origins[config_key_index(target->table, key)];
	bool is_refused = origin->is_refused;

	*origin = origin_of(node);
	origin->is_refused = is_refused;
}

static void read_list(struct config_reader *reader, const struct config_target *target, const struct config_key *key,
		      const struct yaml_node *node)
{
	struct config_value *values = NULL;
	size_t count = 0;

	for (const struct yaml_node *item = node->first; item; item = item->next) {
		if (item->kind != YAML_TEXT) {
			refuse_kind(reader, item, key->path, "a plain value here");
			continue;
		}
		values = config_memory_grow(reader->config->memory, values, count, sizeof(*values));
		values[count++] = (struct config_value){.text = item->text, .origin = origin_of(item)};
	}
	config_put(reader, target, key, values, count);
	remember_place(target, key, node);
}

static void read_value(struct config_reader *reader, const struct config_target *target, const struct config_key *key,
		       const struct yaml_node *node)
{
	bool is_list = key->flags & KEY_LIST;
	struct config_value value = {.text = node->text, .origin = origin_of(node)};

	if (node->kind == YAML_LIST && is_list) {
		read_list(reader, target, key, node);
	} else if (node->kind != YAML_TEXT) {
		refuse_kind(reader, node, key->path, is_list ? "a list of plain values" : "one plain value");
	} else if (is_blank(node)) {
		if (!is_list)
			refuse_kind(reader, node, key->path, "a value (\"\" for none)");
	} else {
		/* A text for a list is its one element, "" none. */
		config_put(reader, target, key, &value, is_list && node->text.len == 0 ? 0 : 1);
		remember_place(target, key, node);
	}
}

static void read_composite(struct config_reader *reader, const struct config_key *key, const struct yaml_node *node);

static void read_settings(struct config_reader *reader, const struct config_target *target, struct slice prefix,
			  const struct yaml_node *node)
{
	for (const struct yaml_node *child = node->first; child; child = child->next) {
		char path[PATH_MAX_CHARS];
		const struct config_key *key;
		int len = snprintf(path, sizeof(path), "%.*s%.*s", SLICE_ARG(prefix), (int)MIN(child->key.len, 64),
				   child->key.ptr);
		struct slice full = slice_of(path, (size_t)MIN(len, PATH_MAX_CHARS - 2));

		/* A dot in a key is no way around the sections. */
		key = slice_find(child->key, '.') < 0 ? config_key_find(target->table, full) : NULL;
		if (key && config_key_is_composite(key)) {
			if (!is_blank(child))
				remember_place(target, key, child);
			read_composite(reader, key, child);
		} else if (key) {
			read_value(reader, target, key, child);
		} else if (slice_find(child->key, '.') < 0 && config_key_is_section(target->table, full)) {
			if (child->kind == YAML_MAP) {
				path[full.len] = '.';
				read_settings(reader, target, slice_of(path, full.len + 1), child);
			} else if (!is_blank(child)) {
				path[full.len] = '\0';
				refuse_kind(reader, child, path, "settings: KEY: VALUE");
			}
		} else {
			refuse_unknown(reader, target->table, prefix, child);
		}
	}
}

/* `mistakes`: how many there were before this item. One of its own may well be the key that seems missing. */
static void require_keys(struct config_reader *reader, const struct config_target *target,
			 const struct config_place *place, size_t mistakes)
{
	if (reader->errors->error_count > mistakes)
		return;
	for (size_t i = 0; i < target->table->count; i++)
		if ((target->table->keys[i].flags & KEY_REQUIRED) && target->origins[i].kind == CONFIG_FROM_DEFAULT)
			config_errors_add(reader->errors, place, "%s needs '%s'", target->table->one,
					  target->table->keys[i].path);
}

/* ---- Lists and maps of settings. */

static bool has_kind(struct config_reader *reader, const struct yaml_node *node, enum yaml_kind kind, size_t max,
		     const char *key, const char *wanted)
{
	struct config_place place = place_of_value(reader, node);
	size_t count = 0;

	if (node->kind != kind) {
		if (!is_blank(node))
			refuse_kind(reader, node, key, wanted);
		return false;
	}
	for (const struct yaml_node *child = node->first; child; child = child->next)
		count++;
	if (count > max)
		config_errors_add(reader->errors, &place, "%s has %zu entries: at most %zu", key, count, max);
	return count <= max;
}

static void read_listeners(struct config_reader *reader, const struct yaml_node *node)
{
	static const char *const wanted = "a list of settings: - {address: ADDRESS:PORT, ...}";

	if (!has_kind(reader, node, YAML_LIST, CONFIG_ITEMS_MAX, "listen", wanted))
		return;
	for (const struct yaml_node *item = node->first; item; item = item->next) {
		struct config_place place = place_of_value(reader, item);
		size_t mistakes = reader->errors->error_count;
		struct config_target target;
		if (item->kind != YAML_MAP) {
			refuse_kind(reader, item, "listen", wanted);
			continue;
		}
		target = config_listener_target(config_add_listener(reader));
		read_settings(reader, &target, SLICE(""), item);
		require_keys(reader, &target, &place, mistakes);
	}
}

static bool is_plain_name(struct slice name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!isalnum((unsigned char)name.ptr[i]) && name.ptr[i] != '-' && name.ptr[i] != '_')
			return false;
	return name.len > 0 && name.len <= NAME_MAX_CHARS;
}

static void read_relayhosts(struct config_reader *reader, const struct yaml_node *node)
{
	static const char *const wanted = "names with settings: NAME: {address: HOST:PORT, ...}";

	if (!has_kind(reader, node, YAML_MAP, CONFIG_RELAYHOSTS_MAX, "relayhosts", wanted))
		return;
	for (const struct yaml_node *item = node->first; item; item = item->next) {
		struct config_place place = place_of_key(reader, item);
		struct config_origin origin = origin_of_key(item);
		size_t mistakes = reader->errors->error_count;
		struct config_target target;
		if (!is_plain_name(item->key) || slice_eq(item->key, SLICE("mx")) ||
		    slice_eq(item->key, SLICE("discard")) || slice_eq(item->key, SLICE("capture")))
			config_errors_add(reader->errors, &place,
					  "'%.*s' cannot name a relayhost: letters, digits, '-' and '_', at most %d, "
					  "and not mx, discard or capture",
					  (int)MIN(item->key.len, 64), item->key.ptr, NAME_MAX_CHARS);
		if (item->kind != YAML_MAP) {
			refuse_kind(reader, item, "relayhosts", wanted);
			continue;
		}
		target = config_relayhost_target(config_add_relayhost(reader, item->key, &origin));
		read_settings(reader, &target, SLICE(""), item);
		require_keys(reader, &target, &place, mistakes);
	}
}

static void read_routes(struct config_reader *reader, const struct yaml_node *node)
{
	static const char *const wanted = "a list: - {to: [...], via: [...]}";

	if (!has_kind(reader, node, YAML_LIST, CONFIG_ITEMS_MAX, "routes", wanted))
		return;
	for (const struct yaml_node *item = node->first; item; item = item->next) {
		struct config_place place = place_of_value(reader, item);
		struct config_origin origin = origin_of(item);
		size_t mistakes = reader->errors->error_count;
		struct config_target target;
		if (item->kind != YAML_MAP) {
			refuse_kind(reader, item, "routes", wanted);
			continue;
		}
		target = config_route_target(config_add_route(reader, &origin));
		read_settings(reader, &target, SLICE(""), item);
		require_keys(reader, &target, &place, mistakes);
	}
}

static void read_dkim_key(struct config_reader *reader, struct config_dkim_domain *domain, struct slice selector,
			  const struct yaml_node *node)
{
	static const struct config_key path_key = {.path = "dkim.domains", .type = CONFIG_PATH};
	struct config_type_context context = {.memory = reader->config->memory, .folder = reader->file_folder};
	struct config_place place = place_of_value(reader, node);
	struct config_origin origin = origin_of(node);
	struct config_secret key = {0};

	if (node->kind != YAML_TEXT || node->text.len == 0) {
		refuse_kind(reader, node, "dkim.domains", "the path of a key file here");
		return;
	}
	if (slice_has_prefix(node->text, SLICE("-----BEGIN"))) {
		config_errors_add(reader->errors, &place, "dkim.domains wants the path of a key file, not the key");
		return;
	}
	if (!config_is_host_name(selector)) {
		config_errors_add(reader->errors, &place, "'%.*s' is no selector: letters, digits, hyphens and dots",
				  (int)MIN(selector.len, 64), selector.ptr);
		return;
	}
	if (config_type_parse(&path_key, node->text, &context, &key.file, NULL) == 0)
		config_add_dkim_key(reader, domain, selector, &key, &origin);
}

static void read_dkim_domains(struct config_reader *reader, const struct yaml_node *node)
{
	static const char *const wanted = "domains with keys: DOMAIN: {SELECTOR: FILE}";
	static const struct config_key domain_key = {.path = "dkim.domains", .type = CONFIG_DOMAIN};
	struct config_type_context context = {.memory = reader->config->memory};

	if (!has_kind(reader, node, YAML_MAP, CONFIG_ITEMS_MAX, "dkim.domains", wanted))
		return;
	for (const struct yaml_node *item = node->first; item; item = item->next) {
		struct config_place place = place_of_key(reader, item);
		struct config_origin origin = origin_of_key(item);
		struct config_dkim_domain *domain;
		const char *name;
		struct err why;

		if (item->key.len == 0 || config_type_parse(&domain_key, item->key, &context, &name, &why) < 0) {
			config_errors_add(reader->errors, &place, "'%.*s' is no domain, such as example.com",
					  (int)MIN(item->key.len, 64), item->key.ptr);
			continue;
		}
		domain = config_add_dkim_domain(reader, slice_of_str(name), &origin);
		if (item->kind == YAML_MAP) {
			for (const struct yaml_node *key = item->first; key; key = key->next)
				read_dkim_key(reader, domain, key->key, key);
			if (!item->first)
				refuse_kind(reader, item, "dkim.domains", wanted);
		} else {
			read_dkim_key(reader, domain, SLICE("default"), item);
		}
	}
}

static void read_composite(struct config_reader *reader, const struct config_key *key, const struct yaml_node *node)
{
	switch (key->type) {
	case CONFIG_LISTENERS: read_listeners(reader, node); break;
	case CONFIG_RELAYHOSTS: read_relayhosts(reader, node); break;
	case CONFIG_ROUTES: read_routes(reader, node); break;
	case CONFIG_DKIM_DOMAINS: read_dkim_domains(reader, node); break;
	default: BUG_ON(true);
	}
}

void config_read_tree(struct config_reader *reader, const struct yaml_node *root)
{
	struct config_target target = config_root_target(reader->config);

	read_settings(reader, &target, SLICE(""), root);
}
