/* The files that a configuration names: which they are, and whether they can be read. */
#include "config/read.h"

#include "base/base.h"
#include "config/users.h"

#include <errno.h>
#include <unistd.h>

/* Folders, and files that others make. */
static bool is_input(const struct config_key *key)
{
	return key->offset != offsetof(struct config, spool) && key->offset != offsetof(struct config, users_file);
}

static void watch(struct config *config, const char *path)
{
	struct config_texts *files = &config->files;

	files->items = config_memory_grow(config->memory, files->items, files->count, sizeof(*files->items));
	files->items[files->count++] = path;
}

static void take_file(struct config_reader *reader, const char *path, const struct config_origin *origin)
{
	struct config_place place = config_place_of(reader->config, origin);

	watch(reader->config, path);
	if (!reader->source->check_files || access(path, R_OK) == 0)
		return;
	if (errno == EACCES) /* in a container the file's owner is known by number only */
		config_errors_add(reader->errors, &place, "cannot read %.300s: %s (for uid %u)", path, strerror(errno),
				  (unsigned)geteuid());
	else
		config_errors_add(reader->errors, &place, "cannot read %.300s: %s", path, strerror(errno));
}

static void take_secret(struct config_reader *reader, const struct config_secret *secret,
			const struct config_origin *origin)
{
	struct config_place place = config_place_of(reader->config, origin);
	struct err err;
	char *text;

	if (!secret->file)
		return;
	take_file(reader, secret->file, origin);
	if (!reader->source->check_files || access(secret->file, R_OK) < 0)
		return;
	if (config_read_secret(secret->file, &text, &err) == 0)
		config_secret_wipe(&text);
	else
		config_errors_add(reader->errors, &place, "%s", err.text);
}

static void take_target(struct config_reader *reader, const struct config_target *target)
{
	for (size_t i = 0; i < target->table->count; i++) {
		const struct config_key *key = &target->table->keys[i];
		const void *field = (const char *)target->object + key->offset;
		bool is_root = target->table == &config_root_table;
		if (target->origins[i].is_refused)
			continue;
		if (key->type == CONFIG_PATH && (!is_root || is_input(key)) && *(const char *const *)field)
			take_file(reader, *(const char *const *)field, &target->origins[i]);
		else if (key->type == CONFIG_SECRET)
			take_secret(reader, field, &target->origins[i]);
	}
}

/* The default one may be missing. It is watched all the same, for the day when it comes. */
static void take_missing_users(struct config_reader *reader, const struct config_origin *origin)
{
	struct config *config = reader->config;
	struct config_place place = config_place_of(config, origin);

	watch(config, config->users_file);
	if (!reader->source->check_files)
		return;
	if (origin->kind == CONFIG_FROM_DEFAULT)
		config->users_file = NULL;
	else
		config_errors_add(reader->errors, &place, "%.300s does not exist: `relayctl user add NAME` makes it",
				  config->users_file);
}

static void take_users(struct config_reader *reader)
{
	struct config *config = reader->config;
	struct config_target root = config_root_target(config);
	const struct config_origin *origin = config_origin_at(&root, offsetof(struct config, users_file));
	struct users *users;

	if (!config->users_file || origin->is_refused)
		return;
	if (access(config->users_file, F_OK) < 0 && errno == ENOENT) {
		take_missing_users(reader, origin);
		return;
	}
	take_file(reader, config->users_file, origin);
	if (!reader->source->check_files || !reader->source->check_users || access(config->users_file, R_OK) < 0)
		return;
	users = users_new();
	if (users_load(users, config->users_file, reader->errors) == 0 &&
	    users_check(users, config, reader->errors) == 0)
		reader->user_count = (ptrdiff_t)users_count(users);
	users_free(&users);
}

void config_check_files(struct config_reader *reader)
{
	struct config *config = reader->config;
	struct config_target target = config_root_target(config);

	take_target(reader, &target);
	for (size_t i = 0; i < config->relayhost_count; i++) {
		target = config_relayhost_target(&config->relayhosts[i]);
		take_target(reader, &target);
	}
	for (size_t i = 0; i < config->dkim.domain_count; i++)
		for (size_t j = 0; j < config->dkim.domains[i].key_count; j++)
			take_secret(reader, &config->dkim.domains[i].keys[j].key,
				    &config->dkim.domains[i].keys[j].place);
	take_secret(reader, &config->account.password,
		    &(struct config_origin){.kind = CONFIG_FROM_VARIABLE, .variable = "RELAYD_PASSWORD_FILE"});
	take_users(reader);
}
