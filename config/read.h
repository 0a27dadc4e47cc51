/*
 * config/read.h - putting values, with where they come from, into struct config
 *
 * Private to config/. Later values replace earlier ones: defaults, then the file, then the environment.
 */
#ifndef CONFIG_READ_H
#define CONFIG_READ_H

#include "config/config.h"
#include "config/keys.h"
#include "config/memory.h"
#include "config/yaml.h"

struct config_reader {
	struct config *config;
	struct config_errors *errors;
	const struct config_source *source;
	const char *file_folder;    /* for relative paths in the file */
	const char *working_folder; /* for those in the environment */
	ptrdiff_t user_count;	    /* lines of the users file; -1: it was not read */
};

/* The object that a table describes: struct config, config_listener, ... */
struct config_target {
	const struct config_table *table;
	void *object;
	struct config_origin *origins;
};

struct config_value {
	struct slice text;
	struct config_origin origin;
	bool is_secret_text; /* the secret itself: never repeated in a message */
	bool hide;	     /* read from a file named by a variable: not repeated either */
};

struct config_target config_root_target(struct config *config);
struct config_target config_listener_target(struct config_listener *listener);
struct config_target config_relayhost_target(struct config_relayhost *relayhost);
struct config_target config_route_target(struct config_route *route);
struct config_place config_place_of(const struct config *config, const struct config_origin *origin);
/* Where the value at `offset` comes from. */
const struct config_origin *config_origin_at(const struct config_target *target, size_t offset);

/* An error at the value that lies at `offset` of `target` (NULL: of the configuration itself); none if that value was
 * refused already. */
__attribute__((format(printf, 4, 5))) void config_complain(struct config_reader *reader,
							   const struct config_target *target, size_t offset,
							   const char *format, ...);

/* Replaces a value, or all elements of a list. False: refused, told. */
bool config_put(struct config_reader *reader, const struct config_target *target, const struct config_key *key,
		const struct config_value *values, size_t count);
/* The same from one text in which commas or blanks separate the elements of a list. */
bool config_put_text(struct config_reader *reader, const struct config_target *target, const struct config_key *key,
		     const struct config_value *value);
void config_put_defaults(struct config_reader *reader, const struct config_target *target);

/* Appends one with its defaults; valid until the next is added. */
struct config_listener *config_add_listener(struct config_reader *reader);
/* 127.0.0.1:587 and [::1]:587, when nothing was said of listeners. */
void config_add_default_listeners(struct config_reader *reader);
struct config_relayhost *config_add_relayhost(struct config_reader *reader, struct slice name,
					      const struct config_origin *origin);
struct config_route *config_add_route(struct config_reader *reader, const struct config_origin *origin);
struct config_dkim_domain *config_add_dkim_domain(struct config_reader *reader, struct slice domain,
						  const struct config_origin *origin);
void config_add_dkim_key(struct config_reader *reader, struct config_dkim_domain *domain, struct slice selector,
			 const struct config_secret *key, const struct config_origin *origin);

/* Takes all of relayd.yaml. */
void config_read_tree(struct config_reader *reader, const struct yaml_node *root);
/* Takes all RELAYD_ variables; adds the default listeners before the last of them. */
void config_read_environment(struct config_reader *reader, char *const *entries);

/* What only shows when everything is there: defaults that depend on other values, values that do not go together. */
void config_complete(struct config_reader *reader);
void config_check(struct config_reader *reader);
/* What is wrong with origin, rewrite, headers and bcc; with source->check_files their files are read. After
 * config_check_files(). */
void config_check_mail_changes(struct config_reader *reader);
/* Gathers config->files; with source->check_files each must be readable. */
void config_check_files(struct config_reader *reader);

#endif
