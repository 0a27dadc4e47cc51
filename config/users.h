/*
 * config/users.h - who may submit: the users file, and checking a password against it
 *
 * A line each: name:secret[:option=value]..., blank lines and lines that begin with # are passed over. secret is
 * "$argon2id$..." (a password that a person chose) or "$b2$" and the base64 of the BLAKE2b-256 of the password's octets
 * (a generated token of 256 random bits: a fast hash is safe). A name may stand several times, so that old and new
 * secret overlap. Options: from= (address or @domain, may be repeated; none: any), rate=, class=, lifetime=,
 * relayhost=. Names compare octet by octet.
 *
 * users_verify() blocks (Argon2id: tens of milliseconds): it runs in a helper process, where alone the hashes are. Each
 * failure costs the same, for known and unknown names: as much Argon2id (memory times passes) as all hashes of the name
 * that has the costliest; none in a file of tokens alone.
 */
#ifndef CONFIG_USERS_H
#define CONFIG_USERS_H

#include "base/buf.h"
#include "base/vocabulary.h"
#include "config/errors.h"
#include "config/pattern.h"
#include "config/values.h"

#include <sys/types.h>

#define USERS_NAME_MAX_BYTES 255
#define USERS_TOKEN_CHARS 43   /* 256 bits in base64url without padding */
#define USERS_SAME_NAME_MAX 16 /* lines of one name */
#define USERS_FILE_MAX_BYTES (16 * 1024 * 1024)

enum user_secret_kind { USER_SECRET_TOKEN = 0, USER_SECRET_ARGON2ID };
const char *user_secret_kind_name(enum user_secret_kind kind);

/* What a user's line allows, without the secret. */
struct user_options {
	struct config_patterns from; /* empty: any From */
	struct config_rate rate;     /* count 0: none of its own */
	bool has_class;
	enum message_class class;
	int64_t lifetime_ms;   /* 0: none of its own */
	const char *relayhost; /* NULL: by the routes */
	const char *text;      /* as in the file, "from=@example.com:rate=100/m", "" for none: carry this between
				* processes and parse it again there */
};

/* From user_options.text. NULL with words in `err`. One allocation tree, freed by user_options_free(). */
struct user_options *user_options_parse(struct slice text, struct err *err);
void user_options_free(struct user_options **options);

struct users;
struct config;

/* Each relayhost= must be one of the configuration: others are mistakes in `errors`, with the one that was perhaps
 * meant. 0 or ERR_CONFIG. */
int users_check(const struct users *users, const struct config *config, struct config_errors *errors);

struct users *users_new(void);
void users_free(struct users **users);
/*
 * Adds what stands in `text`; mistakes go to `errors` as "path:line:column: ...", and the result is ERR_CONFIG when
 * there was one (nothing half-read is kept: free `users`).
 */
int users_parse(struct users *users, struct slice text, const char *path, struct config_errors *errors);
/* Reads a file into it. A missing file is an error: ERR_NOT_FOUND, in `errors` too. */
int users_load(struct users *users, const char *path, struct config_errors *errors);
/* One user from RELAYD_USERNAME and RELAYD_PASSWORD; the password is hashed at once and not kept. ERR_SYNTAX: a name
 * that cannot be one, or an empty password. */
int users_add_account(struct users *users, struct slice name, struct slice password, struct err *err);

struct user_entry {
	const char *name;
	enum user_secret_kind kind;
	const struct user_options *options;
	uint32_t line;		 /* 0: from the environment */
	uint32_t options_column; /* where they begin in that line */
};
size_t users_count(const struct users *users);
/* The entries in their order; lives as `users`. */
struct user_entry users_entry(const struct users *users, size_t index);

/* True: right, and *options (may be NULL) are those of the line that matched; they live as `users`. */
bool users_verify(const struct users *users, struct slice name, struct slice password,
		  const struct user_options **options);
/* For tests: replaces libsodium's verification of one Argon2id hash. 0: it matches. */
typedef int users_argon2_verify(void *ctx, const char *hash, const char *password, size_t len);
void users_set_argon2(struct users *users, users_argon2_verify *verify, void *ctx);

/* ---- relayctl: each rewrites the file as a whole (temporary file, fsync, rename), under a lock, and keeps mode, owner
 * and everything that is not concerned. ERR_SYNTAX, ERR_NOT_FOUND, ERR_PERMISSION, ERR_IO with words. */

/* 256 random bits as text, NUL-terminated. */
void users_token_new(char token[USERS_TOKEN_CHARS + 1]);
/* Appends the secret to store. */
void users_hash_token(struct slice token, struct buf *out);
/* Argon2id with 19 MiB and two passes. ERR_SYSTEM: no memory for it. */
int users_hash_password(struct slice password, struct buf *out, struct err *err);

struct users_new_file {
	mode_t mode; /* of a file that does not exist yet, e.g. 0640 */
	uid_t owner; /* (uid_t)-1: leave */
	gid_t group; /* (gid_t)-1: leave; the service user's, so that it stays readable for it */
};
/* Appends a line. `options`: as in user_options.text, may be empty. */
int users_file_add(const char *path, struct slice name, struct slice secret, struct slice options,
		   const struct users_new_file *create, struct err *err);
/* Removes each line of that name; *removed (may be NULL) says how many. None: ERR_NOT_FOUND. */
int users_file_remove(const char *path, struct slice name, size_t *removed, struct err *err);

#endif
