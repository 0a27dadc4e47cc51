#include "config/print.h"

#include "base/base.h"
#include "config/keys.h"
#include "config/read.h"
#include "config/types.h"

#include <stdio.h>
#include <stdlib.h>

#define VALUE_MAX_BYTES (4 * 1024 * 1024)
#define OUTPUT_MAX_BYTES (64 * 1024 * 1024)
#define COMMENT_COLUMN 48

/* ---- Origins. */

static void format_origin(const struct config *config, const struct config_origin *origin, struct buf *out)
{
	switch (origin->kind) {
	case CONFIG_FROM_DEFAULT: buf_append_str(out, "default"); break;
	case CONFIG_FROM_FILE: buf_printf(out, "%s:%u", config->file, origin->line); break;
	case CONFIG_FROM_VARIABLE: buf_append_str(out, origin->variable); break;
	}
}

/* The name in the output: a secret text is not what its file's key says. */
static struct slice shown_name(const struct config_key *key, const void *field, struct slice name)
{
	const struct config_secret *secret = field;

	if (key->type == CONFIG_SECRET && secret->value && name.len > 5)
		name.len -= 5; /* _file */
	return name;
}

/* ---- YAML. */

/* Words that YAML, or a reader, could take for something else stand in quotes. */
static bool is_plain(struct slice text)
{
	if (text.len == 0 || text.ptr[0] == ' ' || text.ptr[text.len - 1] == ' ' ||
	    strchr("-?:,[]{}#&*!|>'\"%@`", text.ptr[0]))
		return false;
	for (size_t i = 0; i < text.len; i++)
		if (strchr(",[]{}\"\\", text.ptr[i]) || (uint8_t)text.ptr[i] < ' ' || text.ptr[i] == 0x7f ||
		    (text.ptr[i] == ':' && (i + 1 == text.len || text.ptr[i + 1] == ' ')) ||
		    (text.ptr[i] == '#' && text.ptr[i - 1] == ' '))
			return false;
	return true;
}

static void append_yaml_text(struct slice text, struct buf *out)
{
	if (is_plain(text)) {
		buf_append(out, text);
		return;
	}
	buf_append_byte(out, '"');
	for (size_t i = 0; i < text.len; i++) {
		if (strchr("\"\\", text.ptr[i]) && text.ptr[i])
			buf_append_byte(out, '\\');
		buf_append_byte(out, text.ptr[i]);
	}
	buf_append_byte(out, '"');
}

static void append_yaml_value(const struct config_key *key, const void *field, struct buf *out)
{
	struct buf text;
	struct config_list list;

	buf_init(&text, VALUE_MAX_BYTES);
	if (!(key->flags & KEY_LIST)) {
		config_type_format(key, field, &text);
		append_yaml_text(buf_slice(&text), out);
	} else {
		memcpy(&list, field, sizeof(list));
		buf_append_byte(out, '[');
		for (size_t i = 0; i < list.count; i++) {
			buf_clear(&text);
			config_type_format(key, (const char *)list.items + i * config_type_size(key), &text);
			if (i > 0)
				buf_append_str(out, ", ");
			append_yaml_text(buf_slice(&text), out);
		}
		buf_append_byte(out, ']');
	}
	buf_fini(&text);
}

struct printer {
	const struct config *config;
	struct buf *out;
};

static void end_line(struct printer *printer, struct buf *line, const struct config_origin *origin)
{
	while (buf_len(line) < COMMENT_COLUMN - 1)
		buf_append_byte(line, ' ');
	buf_append_str(line, " # ");
	format_origin(printer->config, origin, line);
	buf_append_byte(line, '\n');
	buf_append(printer->out, buf_slice(line));
	buf_fini(line);
}

static void print_value(struct printer *printer, const char *indent, struct slice name, const struct config_key *key,
			const void *field, const struct config_origin *origin)
{
	struct buf line;

	buf_init(&line, VALUE_MAX_BYTES);
	buf_printf(&line, "%s%.*s: ", indent, SLICE_ARG(shown_name(key, field, name)));
	append_yaml_value(key, field, &line);
	end_line(printer, &line, origin);
}

static void print_composite(struct printer *printer, const struct config_key *key);

/* A word or an endpoint that is not set has no form that could be read again. */
static bool is_absent(const struct config_key *key, const void *field)
{
	struct buf text;
	bool is_empty;

	if ((key->flags & KEY_LIST) || (key->type != CONFIG_WORD && key->type != CONFIG_ENDPOINT))
		return false;
	buf_init(&text, VALUE_MAX_BYTES);
	config_type_format(key, field, &text);
	is_empty = buf_len(&text) == 0;
	buf_fini(&text);
	return is_empty;
}

/* `first`: what stands before the first line instead of the indentation, "  - ". */
static void print_target(struct printer *printer, const struct config_target *target, const char *first,
			 const char *indent)
{
	struct slice section = {0};
	char deeper[16];

	snprintf(deeper, sizeof(deeper), "%s  ", indent);
	for (size_t i = 0; i < target->table->count; i++) {
		const struct config_key *key = &target->table->keys[i];
		struct slice path = slice_of_str(key->path);
		ptrdiff_t dot = slice_find(path, '.');
		struct slice head = slice_to(path, dot < 0 ? 0 : (size_t)dot);
		if (dot >= 0 && !slice_eq(head, section))
			buf_printf(printer->out, "%s%.*s:\n", first, SLICE_ARG(head));
		section = head;
		if (config_key_is_composite(key))
			print_composite(printer, key);
		else if (!is_absent(key, (const char *)target->object + key->offset))
			print_value(printer, dot < 0 ? first : deeper, slice_from(path, (size_t)(dot + 1)), key,
				    (const char *)target->object + key->offset, &target->origins[i]);
		first = indent;
	}
}

static void print_heading(struct printer *printer, const char *text, bool is_empty)
{
	buf_printf(printer->out, "%s:%s\n", text, is_empty ? " {}" : "");
}

static void print_dkim_domains(struct printer *printer)
{
	static const struct config_key key_key = {.path = "", .type = CONFIG_SECRET};
	const struct config *config = printer->config;

	print_heading(printer, "  domains", config->dkim.domain_count == 0);
	for (size_t i = 0; i < config->dkim.domain_count; i++) {
		const struct config_dkim_domain *domain = &config->dkim.domains[i];
		buf_printf(printer->out, "    %s:\n", domain->domain);
		for (size_t j = 0; j < domain->key_count; j++) {
			struct buf line;
			buf_init(&line, VALUE_MAX_BYTES);
			buf_printf(&line, "      %s: ", domain->keys[j].selector);
			append_yaml_value(&key_key, &domain->keys[j].key, &line);
			end_line(printer, &line, &domain->keys[j].place);
		}
	}
}

static void print_composite(struct printer *printer, const struct config_key *key)
{
	/* The tables describe objects that are written while loading; here they are only read. */
	struct config *config = (struct config *)(uintptr_t)printer->config;
	struct config_target target;

	switch (key->type) {
	case CONFIG_LISTENERS:
		buf_printf(printer->out, "listen:%s\n", config->listener_count ? "" : " []");
		for (size_t i = 0; i < config->listener_count; i++) {
			target = config_listener_target(&config->listeners[i]);
			print_target(printer, &target, "  - ", "    ");
		}
		break;
	case CONFIG_RELAYHOSTS:
		print_heading(printer, "relayhosts", config->relayhost_count == 0);
		for (size_t i = 0; i < config->relayhost_count; i++) {
			target = config_relayhost_target(&config->relayhosts[i]);
			buf_printf(printer->out, "  %s:\n", config->relayhosts[i].name);
			print_target(printer, &target, "    ", "    ");
		}
		break;
	case CONFIG_ROUTES:
		buf_printf(printer->out, "routes:%s\n", config->route_count ? "" : " []");
		for (size_t i = 0; i < config->route_count; i++) {
			target = config_route_target(&config->routes[i]);
			print_target(printer, &target, "  - ", "    ");
		}
		break;
	case CONFIG_DKIM_DOMAINS: print_dkim_domains(printer); break;
	default: BUG_ON(true);
	}
}

static void print_account(struct printer *printer)
{
	if (printer->config->account.name)
		buf_printf(printer->out, "# One user from RELAYD_USERNAME: %s\n", printer->config->account.name);
}

int config_print_yaml(const struct config *config, struct buf *out)
{
	struct buf text;
	struct printer printer = {config, &text};
	struct config_target root = config_root_target((struct config *)(uintptr_t)config);
	int rc;

	buf_init(&text, OUTPUT_MAX_BYTES);
	buf_printf(&text, "# In force: %s, the environment, defaults.\n", config->file ? config->file : "no file");
	print_account(&printer);
	print_target(&printer, &root, "", "");
	rc = buf_append(out, buf_slice(&text));
	buf_fini(&text);
	return rc;
}

/* ---- JSON. */

/* What is not UTF-8 cannot stand in JSON. */
static json_t *json_text(struct slice text)
{
	json_t *json = json_stringn(text.ptr ? text.ptr : "", text.len);

	return json ? json : json_string("(not UTF-8)");
}

static json_t *json_scalar(const struct config_key *key, const void *value)
{
	struct buf text;
	json_t *json;

	if (key->type == CONFIG_BOOL)
		return json_boolean(*(const bool *)value);
	if (key->type == CONFIG_INT)
		return json_integer(*(const int64_t *)value);
	buf_init(&text, VALUE_MAX_BYTES);
	config_type_format(key, value, &text);
	json = buf_len(&text) ? json_text(buf_slice(&text)) : json_null();
	buf_fini(&text);
	return json;
}

static json_t *json_value(const struct config_key *key, const void *field)
{
	struct config_list list;
	json_t *array;

	if (!(key->flags & KEY_LIST))
		return json_scalar(key, field);
	memcpy(&list, field, sizeof(list));
	array = json_array();
	for (size_t i = 0; i < list.count; i++)
		json_array_append_new(array, json_scalar(key, (const char *)list.items + i * config_type_size(key)));
	return array;
}

struct json_printer {
	const struct config *config;
	json_t *origins;
};

static void put_origin(struct json_printer *printer, const char *path, const struct config_origin *origin)
{
	struct buf text;

	buf_init(&text, 8192);
	format_origin(printer->config, origin, &text);
	json_object_set_new(printer->origins, path, json_text(buf_slice(&text)));
	buf_fini(&text);
}

static json_t *json_composite(struct json_printer *printer, const struct config_key *key);

/* The object of a section, made when it is first met. */
static json_t *section_of(json_t *object, struct slice name)
{
	char text[64];
	json_t *section;

	slice_to_cstr(name, text, sizeof(text));
	section = json_object_get(object, text);
	if (!section) {
		section = json_object();
		json_object_set_new(object, text, section);
	}
	return section;
}

/* `prefix`: "listen[0]." */
static json_t *json_target(struct json_printer *printer, const struct config_target *target, const char *prefix)
{
	json_t *object = json_object();

	for (size_t i = 0; i < target->table->count; i++) {
		const struct config_key *key = &target->table->keys[i];
		const void *field = (const char *)target->object + key->offset;
		struct slice path = slice_of_str(key->path);
		ptrdiff_t dot = slice_find(path, '.');
		json_t *parent = dot < 0 ? object : section_of(object, slice_to(path, (size_t)dot));
		struct slice name = slice_from(path, (size_t)(dot + 1));
		char text[160], full[160];
		if (!config_key_is_composite(key))
			name = shown_name(key, field, name);
		slice_to_cstr(name, text, sizeof(text));
		json_object_set_new(
		    parent, text, config_key_is_composite(key) ? json_composite(printer, key) : json_value(key, field));
		snprintf(full, sizeof(full), "%s%s", prefix, key->path);
		put_origin(printer, full, &target->origins[i]);
	}
	return object;
}

static json_t *json_dkim_domains(struct json_printer *printer)
{
	static const struct config_key key_key = {.path = "", .type = CONFIG_SECRET};
	const struct config *config = printer->config;
	json_t *domains = json_object();

	for (size_t i = 0; i < config->dkim.domain_count; i++) {
		const struct config_dkim_domain *domain = &config->dkim.domains[i];
		json_t *keys = json_object();
		for (size_t j = 0; j < domain->key_count; j++)
			json_object_set_new(keys, domain->keys[j].selector, json_value(&key_key, &domain->keys[j].key));
		json_object_set_new(domains, domain->domain, keys);
	}
	return domains;
}

static json_t *json_composite(struct json_printer *printer, const struct config_key *key)
{
	struct config *config = (struct config *)(uintptr_t)printer->config;
	struct config_target target;
	char prefix[64];
	json_t *json;

	switch (key->type) {
	case CONFIG_LISTENERS:
		json = json_array();
		for (size_t i = 0; i < config->listener_count; i++) {
			snprintf(prefix, sizeof(prefix), "listen[%zu].", i);
			target = config_listener_target(&config->listeners[i]);
			json_array_append_new(json, json_target(printer, &target, prefix));
		}
		return json;
	case CONFIG_RELAYHOSTS:
		json = json_object();
		for (size_t i = 0; i < config->relayhost_count; i++) {
			snprintf(prefix, sizeof(prefix), "relayhosts.%.40s.", config->relayhosts[i].name);
			target = config_relayhost_target(&config->relayhosts[i]);
			json_object_set_new(json, config->relayhosts[i].name, json_target(printer, &target, prefix));
		}
		return json;
	case CONFIG_ROUTES:
		json = json_array();
		for (size_t i = 0; i < config->route_count; i++) {
			snprintf(prefix, sizeof(prefix), "routes[%zu].", i);
			target = config_route_target(&config->routes[i]);
			json_array_append_new(json, json_target(printer, &target, prefix));
		}
		return json;
	default: return json_dkim_domains(printer);
	}
}

json_t *config_print_json(const struct config *config)
{
	struct json_printer printer = {config, json_object()};
	struct config_target root = config_root_target((struct config *)(uintptr_t)config);
	json_t *json = json_object();

	json_object_set_new(json, "file", config->file ? json_text(slice_of_str(config->file)) : json_null());
	json_object_set_new(json, "account",
			    config->account.name ? json_text(slice_of_str(config->account.name)) : json_null());
	json_object_set_new(json, "config", json_target(&printer, &root, ""));
	json_object_set_new(json, "origins", printer.origins);
	return json;
}
