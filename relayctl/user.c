/* relayctl user - the users file; works without a daemon, which notices the change by itself. */
#include "base/base.h"
#include "config/users.h"
#include "relayctl/commands.h"

#include <fcntl.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* "-" is standard input. */
static int read_password(const char *path, char **password, struct err *err)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t len;

	if (strcmp(path, "-") != 0)
		return config_read_secret(path, password, err);
	len = getline(&line, &size, stdin);
	if (len > 0 && line[len - 1] == '\n')
		line[--len] = '\0';
	if (len <= 0) {
		config_secret_wipe(&line);
		return err_set(err, ERR_CONFIG, "no password on standard input");
	}
	*password = line;
	return 0;
}

/* A new file belongs to root and the service user's group, which alone may read it. */
static struct users_new_file new_file(const struct config *config)
{
	struct users_new_file create = {0640, (uid_t)-1, (gid_t)-1};
	struct passwd *user = getpwnam(config->user ? config->user : "relayd");

	if (user && geteuid() == 0)
		create.group = user->pw_gid;
	return create;
}

/* Warns when the daemon could not read the file: a user added in vain is found out late. */
static void warn_unreadable(const struct config *config)
{
	struct passwd *user = getpwnam(config->user ? config->user : "relayd");
	struct stat st;

	if (!user || stat(config->users_file, &st) != 0 || user->pw_uid == 0)
		return;
	if ((st.st_mode & S_IROTH) || (st.st_uid == user->pw_uid && (st.st_mode & S_IRUSR)) ||
	    (st.st_gid == user->pw_gid && (st.st_mode & S_IRGRP)))
		return;
	fprintf(stderr, "relayctl: warning: user %s cannot read %s\n", user->pw_name, config->users_file);
}

/* What would make the daemon refuse the whole file. */
static int check_options(const struct config *config, const char *text, struct err *err)
{
	struct user_options *options = user_options_parse(slice_of_str(text), err);
	const char *relayhost = options ? options->relayhost : NULL;
	int rc = options ? 0 : ERR_SYNTAX;

	if (relayhost && !config_find_relayhost(config, slice_of_str(relayhost)))
		rc = err_set(err, ERR_NOT_FOUND, "there is no relayhost '%.64s'", relayhost);
	user_options_free(&options);
	return rc;
}

static int add(struct ctl *ctl, const struct config *config, const char *name, const char *password_file,
	       const char *options)
{
	struct users_new_file create = new_file(config);
	char token[USERS_TOKEN_CHARS + 1];
	char *password = NULL;
	struct buf secret;
	struct err err;
	int rc = check_options(config, options, &err);

	if (rc != 0)
		return ctl_failed("%s", err.text);
	buf_init(&secret, 4096);
	if (password_file) {
		rc = read_password(password_file, &password, &err);
		if (rc == 0)
			rc = users_hash_password(slice_of_str(password), &secret, &err);
		config_secret_wipe(&password);
	} else {
		users_token_new(token);
		users_hash_token(slice_of_str(token), &secret);
	}
	if (rc == 0)
		rc = users_file_add(config->users_file, slice_of_str(name), buf_slice(&secret), slice_of_str(options),
				    &create, &err);
	buf_fini(&secret);
	if (rc != 0)
		return ctl_failed("%s", err.text);
	warn_unreadable(config);
	if (ctl->json)
		ctl_print_json(password_file ? json_pack("{s:s, s:s}", "user", name, "file", config->users_file)
					     : json_pack("{s:s, s:s, s:s}", "user", name, "password", token, "file",
							 config->users_file));
	else if (!password_file)
		printf("password of %s (shown this once): %s\n", name, token);
	else
		printf("added %s to %s\n", name, config->users_file);
	sodium_memzero(token, sizeof(token));
	return CTL_OK;
}

static int remove_user(const struct config *config, const char *name)
{
	size_t removed;
	struct err err;
	int rc = users_file_remove(config->users_file, slice_of_str(name), &removed, &err);

	if (rc == ERR_NOT_FOUND) {
		ctl_failed("%s", err.text);
		return CTL_NO_MATCH;
	}
	if (rc != 0)
		return ctl_failed("%s", err.text);
	printf("removed %s (%zu line%s)\n", name, removed, removed == 1 ? "" : "s");
	return CTL_OK;
}

static struct users *load(const struct config *config)
{
	struct users *users = users_new();
	struct config_errors errors;

	config_errors_init(&errors);
	if (users_load(users, config->users_file, &errors) == 0 && users_check(users, config, &errors) == 0)
		return users;
	for (size_t i = 0; i < errors.kept_count; i++)
		ctl_failed("%s", errors.items[i].text);
	users_free(&users);
	return NULL;
}

static int list(struct ctl *ctl, const struct config *config)
{
	struct users *users = load(config);
	json_t *all = json_array();

	if (!users) {
		json_decref(all);
		return CTL_FAILED;
	}
	for (size_t i = 0; i < users_count(users); i++) {
		struct user_entry entry = users_entry(users, i);
		if (ctl->json)
			json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:i}", "user", entry.name, "secret",
							     user_secret_kind_name(entry.kind), "options",
							     entry.options->text, "line", (int)entry.line));
		else if (entry.options->text[0])
			printf("%-24s %-9s %s\n", entry.name, user_secret_kind_name(entry.kind), entry.options->text);
		else
			printf("%-24s %s\n", entry.name, user_secret_kind_name(entry.kind));
	}
	if (ctl->json)
		ctl_print_json(all);
	json_decref(all);
	users_free(&users);
	return CTL_OK;
}

static int check(const struct config *config, const char *name, const char *password_file)
{
	struct users *users;
	char *password;
	struct err err;
	bool good;

	if (read_password(password_file ? password_file : "-", &password, &err) != 0)
		return ctl_failed("%s", err.text);
	users = load(config);
	good = users && users_verify(users, slice_of_str(name), slice_of_str(password), NULL);
	config_secret_wipe(&password);
	users_free(&users);
	puts(good ? "right" : "wrong");
	return good ? CTL_OK : CTL_FAILED;
}

int cmd_user(struct ctl *ctl, int argc, char **argv)
{
	const struct config *config;
	const char *name = NULL, *password_file = NULL, *options = "";

	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], "--password-file") == 0 && i + 1 < argc)
			password_file = argv[++i];
		else if (strcmp(argv[i], "--options") == 0 && i + 1 < argc)
			options = argv[++i];
		else if (argv[i][0] != '-' && !name)
			name = argv[i];
		else {
			ctl_usage("user: unexpected argument '%s'", argv[i]);
			return ctl_wrong_usage(argv[0]);
		}
	}
	if (argc < 2 || (!name && strcmp(argv[1], "list") != 0))
		return ctl_wrong_usage(argv[0]);
	config = ctl_config(ctl);
	if (!config)
		return CTL_FAILED;
	if (!config->users_file)
		return ctl_failed("the configuration names no users file (users: /etc/relayd/users)");
	if (strcmp(argv[1], "add") == 0)
		return add(ctl, config, name, password_file, options);
	if (strcmp(argv[1], "remove") == 0)
		return remove_user(config, name);
	if (strcmp(argv[1], "list") == 0)
		return list(ctl, config);
	if (strcmp(argv[1], "check") == 0)
		return check(config, name, password_file);
	ctl_usage("user: unknown action '%s'", argv[1]);
	return ctl_wrong_usage(argv[0]);
}
