/* One value or list into its field, whatever the source. */
#include "config/read.h"

#include "base/base.h"
#include "config/types.h"

#define LIST_MAX 50000

struct config_target config_root_target(struct config *config)
{
	return (struct config_target){&config_root_table, config, config->origins};
}

struct config_target config_listener_target(struct config_listener *listener)
{
	return (struct config_target){&config_listener_table, listener, listener->origins};
}

struct config_target config_relayhost_target(struct config_relayhost *relayhost)
{
	return (struct config_target){&config_relayhost_table, relayhost, relayhost->origins};
}

struct config_target config_route_target(struct config_route *route)
{
	return (struct config_target){&config_route_table, route, route->origins};
}

struct config_place config_place_of(const struct config *config, const struct config_origin *origin)
{
	switch (origin->kind) {
	case CONFIG_FROM_FILE: return (struct config_place){config->file, origin->line, origin->column};
	case CONFIG_FROM_VARIABLE: return (struct config_place){origin->variable, 0, 0};
	case CONFIG_FROM_DEFAULT: break;
	}
	return (struct config_place){config->file ? config->file : "configuration", 0, 0};
}

const struct config_origin *config_origin_at(const struct config_target *target, size_t offset)
{
	return &target->origins[config_key_index(target->table, config_key_at(target->table, offset))];
}

/* "KEY: 'VALUE' WHY", as much of the value as helps. */
static void refuse(struct config_reader *reader, const struct config_target *target, const struct config_key *key,
		   const struct config_value *value, const char *why)
{
	struct config_place place = config_place_of(reader->config, &value->origin);
	const char *table = target->table->name;
	/* A variable's name says which key it is. */
	bool name_key = place.line > 0;

	if (value->is_secret_text || value->hide || value->text.len == 0)
		config_errors_add(reader->errors, &place, "%s%s%s%sthe value %s", name_key ? table : "",
				  name_key && *table ? "." : "", name_key ? key->path : "", name_key ? ": " : "", why);
	else
		config_errors_add(reader->errors, &place, "%s%s%s%s'%.*s%s' %s", name_key ? table : "",
				  name_key && *table ? "." : "", name_key ? key->path : "", name_key ? ": " : "",
				  (int)MIN(value->text.len, 60), value->text.ptr, value->text.len > 60 ? "..." : "",
				  why);
}

static struct config_type_context context_of(const struct config_reader *reader, const struct config_value *value)
{
	return (struct config_type_context){
	    .memory = reader->config->memory,
	    .folder = value->origin.kind == CONFIG_FROM_FILE ? reader->file_folder : reader->working_folder,
	    .is_secret_text = value->is_secret_text,
	};
}

static bool parse_into(struct config_reader *reader, const struct config_target *target, const struct config_key *key,
		       const struct config_value *value, void *out)
{
	struct config_type_context context = context_of(reader, value);
	struct err why = {0};

	if (config_type_parse(key, value->text, &context, out, &why) == 0)
		return true;
	refuse(reader, target, key, value, why.text);
	return false;
}

static bool put_list(struct config_reader *reader, const struct config_target *target, const struct config_key *key,
		     const struct config_value *values, size_t count)
{
	size_t size = config_type_size(key);
	struct config_list list = {0};
	bool is_good = true;

	if (count > LIST_MAX) {
		refuse(reader, target, key, &values[LIST_MAX], "is one too many");
		return false;
	}
	if (count == 1 && (key->flags & KEY_OFF_WORD) && slice_eq(values[0].text, SLICE("off")))
		count = 0;
	list.items = count ? config_memory_alloc(reader->config->memory, count * size) : NULL;
	for (size_t i = 0; i < count; i++) {
		if (parse_into(reader, target, key, &values[i], (char *)list.items + list.count * size))
			list.count++;
		else
			is_good = false;
	}
	memcpy((char *)target->object + key->offset, &list, sizeof(list));
	return is_good;
}

bool config_put(struct config_reader *reader, const struct config_target *target, const struct config_key *key,
		const struct config_value *values, size_t count)
{
	struct config_origin *origin = &target->origins[config_key_index(target->table, key)];
	bool is_good;

	if (key->flags & KEY_LIST)
		is_good = put_list(reader, target, key, values, count);
	else
		is_good = parse_into(reader, target, key, values, (char *)target->object + key->offset);
	if (count > 0)
		*origin = values[0].origin;
	origin->is_refused = !is_good;
	return is_good;
}

bool config_put_text(struct config_reader *reader, const struct config_target *target, const struct config_key *key,
		     const struct config_value *value)
{
	struct slice rest = slice_trim(value->text);
	struct config_value *values = NULL;
	size_t count = 0;

	if (!(key->flags & KEY_LIST))
		return config_put(reader, target, key, value, 1);
	while (rest.len > 0) {
		size_t len = 0;
		while (len < rest.len && rest.ptr[len] != ',' && rest.ptr[len] != ' ')
			len++;
		if (len > 0) {
			values = config_memory_grow(reader->config->memory, values, count, sizeof(*values));
			values[count] = *value;
			values[count++].text = slice_to(rest, len);
		}
		rest = slice_from(rest, len + 1);
	}
	return config_put(reader, target, key, values, count);
}

void config_put_defaults(struct config_reader *reader, const struct config_target *target)
{
	for (size_t i = 0; i < target->table->count; i++) {
		const struct config_key *key = &target->table->keys[i];
		struct config_value value = {.text = slice_of_str(key->preset)};
		if (!config_key_is_composite(key) && key->preset)
			BUG_ON(!config_put_text(reader, target, key, &value));
	}
}

/* ---- The parts that come in numbers. */

static struct config_origin *origins_new(struct config_reader *reader, const struct config_table *table)
{
	return config_memory_alloc(reader->config->memory, table->count * sizeof(struct config_origin));
}

struct config_listener *config_add_listener(struct config_reader *reader)
{
	struct config *config = reader->config;
	struct config_listener *added;
	struct config_target target;

	config->listeners =
	    config_memory_grow(config->memory, config->listeners, config->listener_count, sizeof(*added));
	added = &config->listeners[config->listener_count++];
	*added = (struct config_listener){.origins = origins_new(reader, &config_listener_table)};
	target = config_listener_target(added);
	config_put_defaults(reader, &target);
	return added;
}

void config_add_default_listeners(struct config_reader *reader)
{
	static const char *const addresses[] = {"127.0.0.1:587", "[::1]:587"};
	const struct config_key *listen = config_key_of_type(CONFIG_LISTENERS);

	if (reader->config->origins[config_key_index(&config_root_table, listen)].kind != CONFIG_FROM_DEFAULT)
		return;
	for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
		struct config_listener *listener = config_add_listener(reader);
		struct config_target target = config_listener_target(listener);
		const struct config_key *key = config_key_at(target.table, offsetof(struct config_listener, address));
		struct config_value value = {.text = slice_of_str(addresses[i])};
		config_put(reader, &target, key, &value, 1);
		listener->may_fail = listener->address.family == AF_INET6;
	}
}

struct config_relayhost *config_add_relayhost(struct config_reader *reader, struct slice name,
					      const struct config_origin *origin)
{
	struct config *config = reader->config;
	struct config_relayhost *added;
	struct config_target target;

	config->relayhosts =
	    config_memory_grow(config->memory, config->relayhosts, config->relayhost_count, sizeof(*added));
	added = &config->relayhosts[config->relayhost_count++];
	*added = (struct config_relayhost){.name = config_memory_copy(config->memory, name),
					   .place = *origin,
					   .origins = origins_new(reader, &config_relayhost_table)};
	target = config_relayhost_target(added);
	config_put_defaults(reader, &target);
	return added;
}

struct config_route *config_add_route(struct config_reader *reader, const struct config_origin *origin)
{
	struct config *config = reader->config;
	struct config_route *added;
	struct config_target target;

	config->routes = config_memory_grow(config->memory, config->routes, config->route_count, sizeof(*added));
	added = &config->routes[config->route_count++];
	*added = (struct config_route){.place = *origin, .origins = origins_new(reader, &config_route_table)};
	target = config_route_target(added);
	config_put_defaults(reader, &target);
	return added;
}

struct config_dkim_domain *config_add_dkim_domain(struct config_reader *reader, struct slice domain,
						  const struct config_origin *origin)
{
	struct config *config = reader->config;
	struct config_dkim_domain *added;

	config->dkim.domains =
	    config_memory_grow(config->memory, config->dkim.domains, config->dkim.domain_count, sizeof(*added));
	added = &config->dkim.domains[config->dkim.domain_count++];
	*added = (struct config_dkim_domain){.domain = config_memory_copy(config->memory, domain), .place = *origin};
	return added;
}

void config_add_dkim_key(struct config_reader *reader, struct config_dkim_domain *domain, struct slice selector,
			 const struct config_secret *key, const struct config_origin *origin)
{
	struct config_memory *memory = reader->config->memory;

	domain->keys = config_memory_grow(memory, domain->keys, domain->key_count, sizeof(*domain->keys));
	domain->keys[domain->key_count++] =
	    (struct config_dkim_key){.selector = config_memory_copy(memory, selector), .key = *key, .place = *origin};
}
