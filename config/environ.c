/*
 * The environment, which wins over the file. Names are made from the paths of the table of keys, so that each setting
 * has its variable without being named here; a few that stand for more than one setting have a function each.
 */
#include "config/read.h"

#include "base/base.h"
#include "base/buf.h"
#include "config/environ.h"
#include "config/nearest.h"
#include "config/types.h"
#include "config/users_file.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

#define PREFIX "RELAYD_"
#define NAME_CHARS CONFIG_VARIABLE_CHARS

struct variable {
	const char *name;
	struct slice value;
	bool
	    is_from_file; /* the value was read from the file that NAME_FILE names, or is the path of a secret's file */
};

typedef void take_special(struct config_reader *reader, const struct variable *variable);

static take_special take_listen, take_relayhost, take_trusted, take_username, take_password;

/* In this order: what stands for whole lists comes before what changes their elements. */
enum phase { PHASE_WHOLE, PHASE_KEYS, PHASE_LAST };

struct special {
	const char *name;
	enum phase phase;
	take_special *take; /* NULL: looked at elsewhere */
	bool is_secret;	    /* what NAME_FILE names is kept as a path */
};

static const struct special specials[] = {
    {PREFIX "CONFIG", PHASE_WHOLE, NULL, false}, /* by config.c */
    {PREFIX "SUBMIT", PHASE_WHOLE, NULL, false}, /* by sendmail, these three */
    {PREFIX "SUBMIT_TLS", PHASE_WHOLE, NULL, false},
    {PREFIX "SUBMIT_CA_FILE", PHASE_WHOLE, NULL, false},
    {PREFIX "LISTEN", PHASE_WHOLE, take_listen, false},
    {PREFIX "RELAYHOST", PHASE_WHOLE, take_relayhost, false},
    {PREFIX "USERNAME", PHASE_KEYS, take_username, false},
    {PREFIX "PASSWORD", PHASE_KEYS, take_password, true},
    {PREFIX "TRUSTED", PHASE_LAST, take_trusted, false},
    {PREFIX "DKIM_DOMAIN", PHASE_LAST, NULL, false}, /* by take_dkim(), which needs all three */
    {PREFIX "DKIM_SELECTOR", PHASE_LAST, NULL, false},
    {PREFIX "DKIM_KEY", PHASE_LAST, NULL, true},
};

/* What a variable's name stands for: a special one, or a key. */
struct meaning {
	const struct special *special;
	const struct config_table *table;
	const struct config_key *key;
	bool is_file;	/* the value stands in a file */
	bool is_secret; /* the value is a secret text */
};

/* All that were recognised. */
struct found {
	struct variable variable;
	struct meaning meaning;
};

struct environment {
	struct found *found;
	size_t count;
};

static struct config_origin origin_of(const char *name)
{
	return (struct config_origin){.kind = CONFIG_FROM_VARIABLE, .variable = name};
}

__attribute__((format(printf, 3, 4))) static void complain(struct config_reader *reader, const char *name,
							   const char *format, ...)
{
	struct config_place place = {name, 0, 0};
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	config_errors_add(reader->errors, &place, "%s", text);
}

/* ---- Names. */

static void name_of_key(const char *prefix, const char *path, char out[NAME_CHARS])
{
	snprintf(out, NAME_CHARS, "%s%s", prefix, path);
	for (char *c = out; *c; c++)
		*c = *c == '.' ? '_' : (char)toupper((unsigned char)*c);
}

/* Settings of the relayhost named main: RELAYD_RELAYHOST_USERNAME, RELAYD_OAUTH2_TENANT. */
static bool relayhost_key_name(const struct config_key *key, char out[NAME_CHARS])
{
	if (strcmp(key->path, "address") == 0)
		return false;
	name_of_key(strncmp(key->path, "oauth2.", 7) == 0 ? PREFIX : PREFIX "RELAYHOST_", key->path, out);
	return true;
}

bool config_variable_name(const struct config_table *table, const struct config_key *key, char out[NAME_CHARS])
{
	if (config_key_is_composite(key) || (key->flags & KEY_NO_ENV))
		return false;
	if (table == &config_relayhost_table)
		return relayhost_key_name(key, out);
	if (table != &config_root_table)
		return false;
	name_of_key(PREFIX, key->path, out);
	return true;
}

/* The name of the variable with a secret's text: without _FILE. */
static bool cut_file(struct slice *name)
{
	if (name->len <= 5 || !slice_eq(slice_from(*name, name->len - 5), SLICE("_FILE")))
		return false;
	name->len -= 5;
	return true;
}

static const struct config_key *find_key(const struct config_table *table, struct slice name, bool *is_secret)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		char full[NAME_CHARS];
		struct slice text;
		if (!config_variable_name(table, key, full))
			continue;
		text = slice_of_str(full);
		*is_secret = false;
		if (slice_eq(text, name))
			return key;
		*is_secret = key->type == CONFIG_SECRET && cut_file(&text) && slice_eq(text, name);
		if (*is_secret)
			return key;
	}
	return NULL;
}

static bool find_exact(struct slice name, struct meaning *meaning)
{
	static const struct config_table *const tables[] = {&config_root_table, &config_relayhost_table};

	*meaning = (struct meaning){0};
	for (size_t i = 0; i < ARRAY_LEN(specials); i++) {
		if (slice_eq(name, slice_of_str(specials[i].name))) {
			meaning->special = &specials[i];
			return true;
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
		meaning->key = find_key(tables[i], name, &meaning->is_secret);
		meaning->table = tables[i];
		if (meaning->key)
			return true;
	}
	return false;
}

static bool find_meaning(struct slice name, struct meaning *meaning)
{
	struct slice without = name;

	if (find_exact(name, meaning))
		return true;
	if (!cut_file(&without) || !find_exact(without, meaning))
		return false;
	meaning->is_file = true;
	return true;
}

/* Kubernetes tells each pod of the services around it: NAME_SERVICE_HOST, NAME_PORT_587_TCP_ADDR. */
static bool is_injected(struct slice name, struct slice value)
{
	if (slice_has_prefix(name, SLICE(PREFIX "SERVICE_")) || slice_has_prefix(name, SLICE(PREFIX "PORT")))
		return true;
	/* A service called relayd-something. */
	if (memmem(name.ptr, name.len, "_SERVICE_HOST", 13) || memmem(name.ptr, name.len, "_SERVICE_PORT", 13))
		return true;
	return memmem(name.ptr, name.len, "_PORT", 5) &&
	       (slice_has_prefix(value, SLICE("tcp://")) || slice_has_prefix(value, SLICE("udp://")) ||
		memmem(name.ptr, name.len, "_TCP", 4) || memmem(name.ptr, name.len, "_UDP", 4));
}

/* RELAYD_MESSAGE_SIZE for RELAYD_LIMITS_MESSAGE_SIZE: the section was forgotten. */
static bool is_end_of(struct slice wanted, struct slice name)
{
	return name.len > wanted.len && name.ptr[name.len - wanted.len - 1] == '_' &&
	       slice_eq(slice_from(name, name.len - wanted.len), wanted);
}

static void refuse_unknown(struct config_reader *reader, const char *name)
{
	static const struct config_table *const tables[] = {&config_root_table, &config_relayhost_table};
	struct config_memory *memory = reader->config->memory;
	/* Behind the common prefix, so that it does not make everything look near. */
	struct slice wanted = slice_of_str(name + strlen(PREFIX));
	struct nearest nearest;
	char full[NAME_CHARS];

	nearest_init(&nearest, wanted);
	for (size_t i = 0; i < ARRAY_LEN(specials); i++)
		nearest_offer(&nearest, specials[i].name + strlen(PREFIX));
	for (size_t t = 0; t < ARRAY_LEN(tables); t++) {
		for (size_t i = 0; i < tables[t]->count; i++) {
			struct slice text;
			const char *known;
			if (!config_variable_name(tables[t], &tables[t]->keys[i], full))
				continue;
			text = slice_of_str(full + strlen(PREFIX));
			if (tables[t]->keys[i].type == CONFIG_SECRET)
				cut_file(&text);
			known = config_memory_copy(memory, text);
			nearest_offer(&nearest, known);
			if (!nearest.best && is_end_of(wanted, slice_of_str(known)))
				nearest.best = known;
		}
	}
	if (nearest.best)
		complain(reader, name, "unknown variable, did you mean " PREFIX "%s?", nearest.best);
	else if (nearest.any)
		complain(reader, name, "unknown variable, the nearest is " PREFIX "%s", nearest.any);
	else
		complain(reader, name, "unknown variable");
}

/* ---- Values. */

/* Behind NAME_FILE: for a secret the path itself, else what the file holds, which lives as the configuration. */
static bool read_file_value(struct config_reader *reader, const struct meaning *meaning, struct variable *variable)
{
	struct config_memory *memory = reader->config->memory;
	struct config_texts *files = &reader->config->files;
	const char *path = config_memory_copy(memory, variable->value);
	struct err err;
	char *text;

	variable->is_from_file = true;
	if ((meaning->special && meaning->special->is_secret) || meaning->is_secret)
		return true;
	if (config_read_secret(path, &text, &err) < 0) {
		complain(reader, variable->name, "%s", err.text);
		return false;
	}
	files->items = config_memory_grow(memory, files->items, files->count, sizeof(*files->items));
	files->items[files->count++] = path;
	variable->value = slice_of_str(config_memory_copy(memory, slice_of_str(text)));
	config_secret_wipe(&text);
	/* A path in a file is what nobody wants; the content in it is what people put there. */
	if (meaning->key && meaning->key->type == CONFIG_PATH && variable->value.ptr[0] != '/') {
		struct slice name = slice_of_str(variable->name);
		cut_file(&name);
		complain(reader, variable->name, "the file holds no path; name the file itself with %.*s",
			 SLICE_ARG(name));
		return false;
	}
	for (size_t i = 0; i < variable->value.len; i++) {
		if ((uint8_t)variable->value.ptr[i] < ' ') {
			complain(reader, variable->name, "%s has more than one line", path);
			return false;
		}
	}
	return true;
}

static struct config_value value_of(const struct variable *variable)
{
	return (struct config_value){
	    .text = variable->value, .origin = origin_of(variable->name), .hide = variable->is_from_file};
}

static struct config_origin *composite_origin(struct config_reader *reader, enum config_type type)
{
	return &reader->config->origins[config_key_index(&config_root_table, config_key_of_type(type))];
}

static struct config_relayhost *main_relayhost(struct config_reader *reader)
{
	for (size_t i = 0; i < reader->config->relayhost_count; i++)
		if (strcmp(reader->config->relayhosts[i].name, "main") == 0)
			return &reader->config->relayhosts[i];
	return NULL;
}

static void take_key(struct config_reader *reader, const struct meaning *meaning, const struct variable *variable)
{
	struct config_target target = config_root_target(reader->config);
	struct config_value value = value_of(variable);

	if (meaning->table == &config_relayhost_table) {
		struct config_relayhost *relayhost = main_relayhost(reader);
		if (!relayhost) {
			complain(reader, variable->name,
				 "there is no relayhost named main: set RELAYD_RELAYHOST to HOST:PORT");
			return;
		}
		target = config_relayhost_target(relayhost);
	}
	value.is_secret_text = meaning->is_secret;
	config_put_text(reader, &target, meaning->key, &value);
}

/* ---- Variables that stand for more than one setting. */

static void refuse_option(struct config_reader *reader, const struct config_table *table, struct slice option,
			  const struct variable *variable)
{
	struct buf names;

	buf_init(&names, 1024);
	for (size_t i = 0; i < table->count; i++)
		if (!(table->keys[i].flags & KEY_REQUIRED))
			buf_printf(&names, "%s%s=", buf_len(&names) ? ", " : "", table->keys[i].path);
	complain(reader, variable->name, "'%.*s' is no option of a listener: %.*s", (int)MIN(option.len, 60),
		 option.ptr, SLICE_ARG(buf_slice(&names)));
	buf_fini(&names);
}

/* An option of a listener: "tls=off". */
static void take_listener_option(struct config_reader *reader, const struct config_target *target, struct slice option,
				 const struct variable *variable)
{
	ptrdiff_t equals = slice_find(option, '=');
	struct slice name = slice_trim(equals < 0 ? option : slice_to(option, (size_t)equals));
	const struct config_key *key = config_key_find(target->table, name);
	struct config_value value = value_of(variable);

	if (equals < 0 || !key || (key->flags & KEY_REQUIRED)) {
		refuse_option(reader, target->table, option, variable);
		return;
	}
	if (target->origins[config_key_index(target->table, key)].kind == CONFIG_FROM_VARIABLE) {
		complain(reader, variable->name, "the option %s= stands twice", key->path);
		return;
	}
	value.text = slice_trim(slice_from(option, (size_t)equals + 1));
	config_put_text(reader, target, key, &value);
}

static void take_listener(struct config_reader *reader, struct slice text, const struct variable *variable)
{
	struct config_target target = config_listener_target(config_add_listener(reader));
	struct config_value value = value_of(variable);
	bool is_first = true;

	while (text.len > 0 || is_first) {
		ptrdiff_t semicolon = slice_find(text, ';');
		struct slice part = slice_trim(semicolon < 0 ? text : slice_to(text, (size_t)semicolon));
		text = semicolon < 0 ? (struct slice){0} : slice_from(text, (size_t)semicolon + 1);
		if (is_first) {
			value.text = part;
			config_put(reader, &target,
				   config_key_at(target.table, offsetof(struct config_listener, address)), &value, 1);
		} else if (part.len > 0) {
			take_listener_option(reader, &target, part, variable);
		}
		is_first = false;
	}
}

static void take_listen(struct config_reader *reader, const struct variable *variable)
{
	struct slice rest = variable->value;

	reader->config->listeners = NULL;
	reader->config->listener_count = 0;
	*composite_origin(reader, CONFIG_LISTENERS) = origin_of(variable->name);
	while (rest.len > 0) {
		ptrdiff_t comma = slice_find(rest, ',');
		struct slice part = slice_trim(comma < 0 ? rest : slice_to(rest, (size_t)comma));
		rest = comma < 0 ? (struct slice){0} : slice_from(rest, (size_t)comma + 1);
		if (part.len > 0)
			take_listener(reader, part, variable);
	}
}

static void take_relayhost(struct config_reader *reader, const struct variable *variable)
{
	struct config_value value = value_of(variable);
	struct config_target target;

	reader->config->relayhosts = NULL;
	reader->config->relayhost_count = 0;
	*composite_origin(reader, CONFIG_RELAYHOSTS) = origin_of(variable->name);
	target = config_relayhost_target(config_add_relayhost(reader, SLICE("main"), &value.origin));
	config_put(reader, &target, config_key_at(target.table, offsetof(struct config_relayhost, address)), &value, 1);
}

static void take_trusted(struct config_reader *reader, const struct variable *variable)
{
	struct config *config = reader->config;
	size_t mistakes = reader->errors->error_count;

	for (size_t i = 0; i < config->listener_count && reader->errors->error_count == mistakes; i++) {
		struct config_target target = config_listener_target(&config->listeners[i]);
		struct config_value value = value_of(variable);
		config_put_text(reader, &target, config_key_at(target.table, offsetof(struct config_listener, trusted)),
				&value);
		value.text = SLICE("optional");
		config_put_text(reader, &target, config_key_at(target.table, offsetof(struct config_listener, auth)),
				&value);
	}
}

static void take_username(struct config_reader *reader, const struct variable *variable)
{
	reader->config->account.name = config_memory_copy(reader->config->memory, variable->value);
}

static struct config_secret secret_of(struct config_reader *reader, const struct variable *variable)
{
	static const struct config_key key = {.path = "", .type = CONFIG_SECRET};
	struct config_type_context context = {.memory = reader->config->memory,
					      .folder = reader->working_folder,
					      .is_secret_text = !variable->is_from_file};
	struct config_secret secret;

	config_type_parse(&key, variable->value, &context, &secret, NULL);
	return secret;
}

static void take_password(struct config_reader *reader, const struct variable *variable)
{
	reader->config->account.password = secret_of(reader, variable);
}

static const struct variable *find_special(const struct environment *environment, const char *name)
{
	for (size_t i = 0; i < environment->count; i++) {
		const struct special *special = environment->found[i].meaning.special;
		if (special && strcmp(special->name, name) == 0)
			return &environment->found[i].variable;
	}
	return NULL;
}

/* Replaces what the file says of that domain. */
static struct config_dkim_domain *dkim_domain(struct config_reader *reader, const struct variable *variable)
{
	struct config *config = reader->config;
	struct config_origin origin = origin_of(variable->name);

	for (size_t i = 0; i < config->dkim.domain_count; i++) {
		struct config_dkim_domain *domain = &config->dkim.domains[i];
		if (!slice_case_eq(slice_of_str(domain->domain), variable->value))
			continue;
		domain->keys = NULL;
		domain->key_count = 0;
		domain->place = origin;
		return domain;
	}
	return config_add_dkim_domain(reader, variable->value, &origin);
}

static void take_dkim(struct config_reader *reader, const struct environment *environment)
{
	const struct variable *domain = find_special(environment, PREFIX "DKIM_DOMAIN");
	const struct variable *selector = find_special(environment, PREFIX "DKIM_SELECTOR");
	const struct variable *key = find_special(environment, PREFIX "DKIM_KEY");
	const struct variable *lonely = key ? key : selector;
	struct config_secret secret;
	struct config_origin origin;

	if (!domain) {
		if (lonely)
			complain(reader, lonely->name, "needs RELAYD_DKIM_DOMAIN beside it");
		return;
	}
	if (!config_is_host_name(domain->value)) {
		complain(reader, domain->name, "'%.*s' is no domain, such as example.com",
			 (int)MIN(domain->value.len, 60), domain->value.ptr);
	} else if (!key) {
		complain(reader, domain->name,
			 "needs RELAYD_DKIM_KEY_FILE (a path) or RELAYD_DKIM_KEY (the key) beside it");
	} else if (selector && !config_is_host_name(selector->value)) {
		complain(reader, selector->name, "'%.*s' is no selector: letters, digits, hyphens and dots",
			 (int)MIN(selector->value.len, 60), selector->value.ptr);
	} else if (!key->is_from_file && !memmem(key->value.ptr, key->value.len, "-----BEGIN", 10)) {
		complain(reader, key->name, "is no PEM text (-----BEGIN ...); for a path set RELAYD_DKIM_KEY_FILE");
	} else {
		secret = secret_of(reader, key);
		origin = origin_of(key->name);
		config_add_dkim_key(reader, dkim_domain(reader, domain), selector ? selector->value : SLICE("default"),
				    &secret, &origin);
	}
}

static void check_account(struct config_reader *reader, const struct environment *environment)
{
	const struct variable *name = find_special(environment, PREFIX "USERNAME");
	const struct variable *password = find_special(environment, PREFIX "PASSWORD");

	if (name && !password)
		complain(reader, name->name, "needs RELAYD_PASSWORD or RELAYD_PASSWORD_FILE beside it");
	else if (password && !name)
		complain(reader, password->name, "needs RELAYD_USERNAME beside it");
	else if (name && !users_name_is_valid(name->value))
		complain(reader, name->name, "a name has no blanks, colons and control characters");
}

/* ---- All of them. */

static bool same_meaning(const struct meaning *a, const struct meaning *b)
{
	return a->special ? a->special == b->special : !b->special && a->key == b->key;
}

/* "NAME=VALUE"; an empty value counts as not set, since that is what compose files make of an unset variable. */
static void recognise(struct config_reader *reader, struct environment *environment, const char *entry)
{
	struct config_memory *memory = reader->config->memory;
	const char *equals = strchr(entry, '=');
	struct found found = {0};
	struct slice name;

	if (!equals || strncmp(entry, PREFIX, strlen(PREFIX)) != 0 || equals[1] == '\0')
		return;
	name = slice_of(entry, (size_t)(equals - entry));
	found.variable.name = config_memory_copy(memory, name);
	found.variable.value = slice_of_str(equals + 1);
	if (!find_meaning(name, &found.meaning)) {
		if (!is_injected(name, found.variable.value))
			refuse_unknown(reader, found.variable.name);
		return;
	}
	for (size_t i = 0; i < environment->count; i++) {
		if (same_meaning(&environment->found[i].meaning, &found.meaning)) {
			complain(reader, found.variable.name, "%s is set too: unset one of them",
				 environment->found[i].variable.name);
			return;
		}
	}
	if (found.meaning.is_file && !read_file_value(reader, &found.meaning, &found.variable))
		return;
	environment->found = config_memory_grow(memory, environment->found, environment->count, sizeof(found));
	environment->found[environment->count++] = found;
}

void config_read_environment(struct config_reader *reader, char *const *entries)
{
	struct environment environment = {0};

	for (; entries && *entries; entries++)
		recognise(reader, &environment, *entries);
	for (enum phase phase = PHASE_WHOLE; phase <= PHASE_LAST; phase++) {
		if (phase == PHASE_LAST)
			config_add_default_listeners(reader);
		for (size_t i = 0; i < environment.count; i++) {
			const struct found *found = &environment.found[i];
			if (!found->meaning.special && phase == PHASE_KEYS)
				take_key(reader, &found->meaning, &found->variable);
			else if (found->meaning.special && found->meaning.special->take &&
				 found->meaning.special->phase == phase)
				found->meaning.special->take(reader, &found->variable);
		}
	}
	take_dkim(reader, &environment);
	check_account(reader, &environment);
}

const char *config_environment_get(char *const *entries, const char *name)
{
	size_t len = strlen(name);

	for (; entries && *entries; entries++)
		if (strncmp(*entries, name, len) == 0 && (*entries)[len] == '=' && (*entries)[len + 1] != '\0')
			return *entries + len + 1;
	return NULL;
}
