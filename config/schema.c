#include "config/schema.h"

#include "base/base.h"
#include "config/config.h"
#include "config/environ.h"
#include "config/keys.h"
#include "config/words.h"

#include <stdio.h>

/* YAML readers of editors give numbers and truth values for what we take as text. */
static json_t *types_of(const struct config_key *key)
{
	switch (key->type) {
	case CONFIG_BOOL: return json_pack("{s:[s,s]}", "type", "boolean", "string");
	case CONFIG_INT: return json_pack("{s:s}", "type", "integer");
	case CONFIG_DURATION:
		return json_pack("{s:[s,s],s:s}", "type", "string", "integer", "pattern",
				 "^(0|([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$");
	case CONFIG_SIZE:
		return json_pack("{s:[s,s],s:s}", "type", "string", "integer", "pattern", "^[0-9]+[KMGTkmgt]?$");
	case CONFIG_RATE:
		return json_pack("{s:s,s:s}", "type", "string", "pattern", "^([0-9]+/([0-9]+[wdhms]|[wdhms]))?$");
	case CONFIG_WORD: return json_object();
	case CONFIG_URL: return json_pack("{s:s,s:s}", "type", "string", "pattern", "^(https?://.*)?$");
	default: return json_pack("{s:[s,s]}", "type", "string", "number");
	}
}

static json_t *words_of(const struct config_key *key)
{
	json_t *words = json_array();

	for (const struct config_word *word = key->rule; word->word; word++) {
		json_array_append_new(words, json_string(word->word));
		/* Unquoted, an editor takes these for other things. */
		if (strcmp(word->word, "off") == 0)
			json_array_append_new(words, json_false());
		else if (strcmp(word->word, "4") == 0 || strcmp(word->word, "6") == 0)
			json_array_append_new(words, json_integer(word->word[0] - '0'));
		else if (strncmp(word->word, "1.", 2) == 0)
			json_array_append_new(words, json_real(word->word[2] == '2' ? 1.2 : 1.3));
	}
	return words;
}

static json_t *schema_of_value(const struct config_key *key)
{
	const struct config_range *range = key->rule;
	json_t *schema = types_of(key);

	if (key->type == CONFIG_WORD)
		json_object_set_new(schema, "enum", words_of(key));
	if (key->type == CONFIG_INT) {
		json_object_set_new(schema, "minimum", json_integer(range->min));
		json_object_set_new(schema, "maximum", json_integer(range->max));
	}
	return schema;
}

static void describe(json_t *schema, const struct config_table *table, const struct config_key *key)
{
	char variable[CONFIG_VARIABLE_CHARS], text[512];

	snprintf(text, sizeof(text), "%s%s%s%s%s%s", key->help, key->preset ? "; default: " : "",
		 key->preset ? key->preset : "", config_variable_name(table, key, variable) ? " (" : "",
		 config_variable_name(table, key, variable) ? variable : "",
		 config_variable_name(table, key, variable) ? ")" : "");
	json_object_set_new(schema, "description", json_string(text));
}

static json_t *schema_of_table(const struct config_table *table);

static json_t *schema_of_key(const struct config_key *key)
{
	json_t *value, *list;

	switch (key->type) {
	case CONFIG_LISTENERS:
		return json_pack("{s:s,s:o}", "type", "array", "items", schema_of_table(&config_listener_table));
	case CONFIG_ROUTES:
		return json_pack("{s:s,s:o}", "type", "array", "items", schema_of_table(&config_route_table));
	case CONFIG_RELAYHOSTS:
		return json_pack("{s:s,s:o}", "type", "object", "additionalProperties",
				 schema_of_table(&config_relayhost_table));
	case CONFIG_DKIM_DOMAINS:
		return json_pack("{s:s,s:{s:[s,s],s:{s:s}}}", "type", "object", "additionalProperties", "type",
				 "object", "string", "additionalProperties", "type", "string");
	default: break;
	}
	value = schema_of_value(key);
	if (!(key->flags & KEY_LIST))
		return value;
	list = json_pack("{s:s,s:O}", "type", "array", "items", value);
	return json_pack("{s:[o,o]}", "anyOf", list, value);
}

static json_t *object_schema(void)
{
	return json_pack("{s:s,s:b,s:{}}", "type", "object", "additionalProperties", 0, "properties");
}

/* The properties that a path's last part belongs to. */
static json_t *parent_of(json_t *schema, struct slice path, struct slice *name)
{
	ptrdiff_t dot = slice_find(path, '.');
	json_t *properties = json_object_get(schema, "properties"), *section;
	char text[64];

	*name = slice_from(path, (size_t)(dot + 1));
	if (dot < 0)
		return properties;
	slice_to_cstr(slice_to(path, (size_t)dot), text, sizeof(text));
	section = json_object_get(properties, text);
	if (!section) {
		section = object_schema();
		json_object_set_new(properties, text, section);
	}
	return json_object_get(section, "properties");
}

static json_t *schema_of_table(const struct config_table *table)
{
	json_t *schema = object_schema(), *required = json_array();

	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		struct slice name;
		json_t *parent = parent_of(schema, slice_of_str(key->path), &name), *value = schema_of_key(key);
		char text[64];
		describe(value, table, key);
		slice_to_cstr(name, text, sizeof(text));
		json_object_set_new(parent, text, value);
		if (key->flags & KEY_REQUIRED)
			json_array_append_new(required, json_string(key->path));
	}
	if (json_array_size(required) > 0)
		json_object_set(schema, "required", required);
	json_decref(required);
	return schema;
}

json_t *config_schema_json(void)
{
	json_t *schema =
	    json_pack("{s:s,s:s}", "$schema", "http://json-schema.org/draft-07/schema#", "title", "relayd.yaml");

	json_object_update_new(schema, schema_of_table(&config_root_table));
	return schema;
}
