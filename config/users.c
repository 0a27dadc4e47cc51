#include "config/users.h"

#include "base/base.h"
#include "base/base64.h"
#include "config/user_options.h"
#include "config/users_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>

#define TOKEN_PREFIX "$b2$"
#define ARGON2_PREFIX "$argon2id$"
#define ARGON2_MEMORY_MIN_KIB 8
#define ARGON2_MEMORY_MAX_KIB (256 * 1024)
#define ARGON2_PASSES_MAX 20
#define HASH_BYTES 32 /* BLAKE2b-256 */

struct entry {
	const char *name;
	enum user_secret_kind kind;
	uint8_t token_hash[HASH_BYTES];
	char *argon2;	     /* crypto_pwhash_STRBYTES of them */
	int64_t argon2_cost; /* KiB times passes: what takes time */
	struct user_options options;
	uint32_t line, options_column;
	struct entry *same_name; /* the next of this name */
};

struct name {
	const char *text;
	struct entry *first, *last;
	unsigned count;
	int64_t argon2_cost; /* of all its hashes */
	UT_hash_handle hh;
};

struct users {
	struct config_memory *memory;
	struct entry **entries;
	size_t count;
	struct name *names;
	int64_t failure_cost; /* what each failure computes: as much as the costliest name; 0: there is no Argon2id */
	int64_t memory_kib, passes; /* of the costliest hash, for what is computed for nothing */
	users_argon2_verify *verify;
	void *verify_ctx;
};

const char *user_secret_kind_name(enum user_secret_kind kind)
{
	switch (kind) {
	case USER_SECRET_TOKEN: return "token";
	case USER_SECRET_ARGON2ID: return "argon2id";
	}
	return "unknown";
}

static int verify_by_sodium(void *ctx, const char *hash, const char *password, size_t len)
{
	(void)ctx;
	return crypto_pwhash_str_verify(hash, password, len);
}

struct users *users_new(void)
{
	struct users *users = xcalloc(1, sizeof(*users));

	BUG_ON(sodium_init() < 0);
	users->memory = config_memory_new();
	users->verify = verify_by_sodium;
	return users;
}

void users_free(struct users **users)
{
	if (!*users)
		return;
	HASH_CLEAR(hh, (*users)->names);
	config_memory_free(&(*users)->memory);
	free(*users);
	*users = NULL;
}

void users_set_argon2(struct users *users, users_argon2_verify *verify, void *ctx)
{
	users->verify = verify;
	users->verify_ctx = ctx;
}

/* ---- Building. */

bool users_name_is_valid(struct slice name)
{
	for (size_t i = 0; i < name.len; i++)
		if ((uint8_t)name.ptr[i] <= ' ' || name.ptr[i] == 0x7f || name.ptr[i] == ':')
			return false;
	return name.len > 0 && name.len <= USERS_NAME_MAX_BYTES && name.ptr[0] != '#';
}

/* The number behind "KEY=" in the parameters of an Argon2 text. */
static int64_t argon2_parameter(struct slice text, const char *key)
{
	const char *at = memmem(text.ptr, text.len, key, strlen(key));
	struct slice digits;
	int64_t value = -1;

	if (!at)
		return -1;
	digits = slice_from(text, (size_t)(at - text.ptr) + strlen(key));
	for (size_t i = 0; i <= digits.len; i++) {
		if (i < digits.len && digits.ptr[i] >= '0' && digits.ptr[i] <= '9')
			continue;
		config_int_parse(slice_to(digits, i), 0, INT32_MAX, &value, NULL);
		break;
	}
	return value;
}

static int parse_argon2(struct users *users, struct slice secret, struct entry *entry, struct err *why)
{
	int64_t memory_kib = argon2_parameter(secret, "$m="), passes = argon2_parameter(secret, ",t=");

	entry->kind = USER_SECRET_ARGON2ID;
	entry->argon2 = config_memory_alloc(users->memory, crypto_pwhash_STRBYTES);
	if (secret.len >= crypto_pwhash_STRBYTES)
		return err_set(why, ERR_SYNTAX, "the Argon2id secret is too long");
	memcpy(entry->argon2, secret.ptr, secret.len);
	if (crypto_pwhash_str_needs_rehash(entry->argon2, crypto_pwhash_OPSLIMIT_MIN, crypto_pwhash_MEMLIMIT_MIN) < 0)
		return err_set(why, ERR_SYNTAX, "the Argon2id secret is broken: make it anew with relayctl user add");
	if (memory_kib > ARGON2_MEMORY_MAX_KIB || passes > ARGON2_PASSES_MAX)
		return err_set(why, ERR_LIMIT, "the Argon2id secret costs too much: at most %d MiB and %d passes",
			       ARGON2_MEMORY_MAX_KIB / 1024, ARGON2_PASSES_MAX);
	entry->argon2_cost = memory_kib * passes;
	if (entry->argon2_cost > users->memory_kib * users->passes) {
		users->memory_kib = memory_kib;
		users->passes = passes;
	}
	return 0;
}

static int parse_token(struct slice base64, struct entry *entry, struct err *why)
{
	static const enum base64_padding paddings[] = {BASE64_PADDED, BASE64_UNPADDED};
	size_t len;

	entry->kind = USER_SECRET_TOKEN;
	for (size_t i = 0; i < ARRAY_LEN(paddings); i++)
		if (base64_decode(base64, paddings[i], NULL, entry->token_hash, HASH_BYTES, &len) && len == HASH_BYTES)
			return 0;
	return err_set(why, ERR_SYNTAX, "behind $b2$ stands the base64 of 32 octets, BLAKE2b-256 of the password");
}

static int parse_secret(struct users *users, struct slice secret, struct entry *entry, struct err *why)
{
	if (slice_has_prefix(secret, SLICE(ARGON2_PREFIX)))
		return parse_argon2(users, secret, entry, why);
	if (slice_has_prefix(secret, SLICE(TOKEN_PREFIX)))
		return parse_token(slice_from(secret, strlen(TOKEN_PREFIX)), entry, why);
	return err_set(why, ERR_SYNTAX,
		       "the secret begins with neither $argon2id$ nor $b2$: make it with relayctl user add");
}

static int add_entry(struct users *users, struct entry *entry, struct err *why)
{
	size_t len = strlen(entry->name);
	struct name *name;

	HASH_FIND(hh, users->names, entry->name, len, name);
	if (!name) {
		name = config_memory_alloc(users->memory, sizeof(*name));
		name->text = entry->name;
		HASH_ADD_KEYPTR(hh, users->names, name->text, len, name);
	}
	if (name->count == USERS_SAME_NAME_MAX)
		return err_set(why, ERR_LIMIT, "more than %d lines for one name", USERS_SAME_NAME_MAX);
	if (name->last)
		name->last->same_name = entry;
	else
		name->first = entry;
	name->last = entry;
	name->count++;
	name->argon2_cost += entry->argon2_cost;
	users->failure_cost = MAX(users->failure_cost, name->argon2_cost);
	users->entries = config_memory_grow(users->memory, users->entries, users->count, sizeof(struct entry *));
	users->entries[users->count++] = entry;
	return 0;
}

/* *at: the index in the line of what is wrong. */
static int parse_line(struct users *users, struct slice line, uint32_t number, size_t *at, struct err *why)
{
	struct entry *entry = config_memory_alloc(users->memory, sizeof(*entry));
	ptrdiff_t colon = slice_find(line, ':');
	struct slice name = slice_to(line, colon < 0 ? line.len : (size_t)colon), secret;
	size_t in_options;
	int rc;

	*at = 0;
	if (colon < 0)
		return err_set(why, ERR_SYNTAX, "a line is name:secret[:option=value]...");
	if (!users_name_is_valid(name))
		return err_set(why, ERR_SYNTAX, "a name has 1 to %d octets, no blanks and no control characters",
			       USERS_NAME_MAX_BYTES);
	entry->name = config_memory_copy(users->memory, name);
	entry->line = number;
	*at = (size_t)colon + 1;
	line = slice_from(line, *at);
	colon = slice_find(line, ':');
	secret = slice_to(line, colon < 0 ? line.len : (size_t)colon);
	rc = parse_secret(users, secret, entry, why);
	if (rc < 0)
		return rc;
	*at += secret.len + 1;
	entry->options_column = (uint32_t)*at + 1;
	rc = user_options_read(slice_from(line, secret.len + 1), users->memory, &entry->options, &in_options, why);
	*at += in_options;
	return rc < 0 ? rc : add_entry(users, entry, why);
}

int users_parse(struct users *users, struct slice text, const char *path, struct config_errors *errors)
{
	size_t mistakes = errors->error_count;
	uint32_t number = 0;

	while (text.len > 0) {
		ptrdiff_t end = slice_find(text, '\n');
		struct slice line = end < 0 ? text : slice_to(text, (size_t)end);
		struct err why;
		size_t at;

		text = slice_from(text, line.len + 1);
		number++;
		line = slice_trim(line);
		if (line.len == 0 || line.ptr[0] == '#')
			continue;
		if (parse_line(users, line, number, &at, &why) < 0) {
			struct config_place place = {path, number, (uint32_t)at + 1};
			config_errors_add(errors, &place, "%s", why.text);
		}
	}
	return errors->error_count > mistakes ? ERR_CONFIG : 0;
}

int users_load(struct users *users, const char *path, struct config_errors *errors)
{
	struct config_place place = {path, 0, 0};
	struct buf text;
	struct err err;
	int rc;

	buf_init(&text, USERS_FILE_MAX_BYTES);
	rc = users_file_read(path, &text, &err);
	if (rc < 0)
		config_errors_add(errors, &place, "%s", err.text);
	else
		rc = users_parse(users, buf_slice(&text), path, errors);
	if (text.data)
		sodium_memzero(text.data, text.cap);
	buf_fini(&text);
	return rc;
}

int users_add_account(struct users *users, struct slice name, struct slice password, struct err *err)
{
	struct entry *entry = config_memory_alloc(users->memory, sizeof(*entry));

	if (!users_name_is_valid(name))
		return err_set(err, ERR_SYNTAX, "RELAYD_USERNAME: no blanks, colons and control characters");
	if (password.len == 0)
		return err_set(err, ERR_SYNTAX, "RELAYD_PASSWORD is empty");
	entry->name = config_memory_copy(users->memory, name);
	entry->kind = USER_SECRET_TOKEN;
	entry->options.text = "";
	crypto_generichash(entry->token_hash, HASH_BYTES, (const uint8_t *)password.ptr, password.len, NULL, 0);
	return add_entry(users, entry, err);
}

/* ---- Asking. */

size_t users_count(const struct users *users)
{
	return users->count;
}

struct user_entry users_entry(const struct users *users, size_t index)
{
	const struct entry *entry;

	BUG_ON(index >= users->count);
	entry = users->entries[index];
	return (struct user_entry){entry->name, entry->kind, &entry->options, entry->line, entry->options_column};
}

static const struct entry *match_token(const struct name *name, struct slice password)
{
	uint8_t hash[HASH_BYTES];
	const struct entry *match = NULL;

	crypto_generichash(hash, sizeof(hash), (const uint8_t *)password.ptr, password.len, NULL, 0);
	for (const struct entry *entry = name ? name->first : NULL; entry; entry = entry->same_name)
		if (entry->kind == USER_SECRET_TOKEN && sodium_memcmp(hash, entry->token_hash, sizeof(hash)) == 0)
			match = entry;
	sodium_memzero(hash, sizeof(hash));
	return match;
}

/* Computes hashes that nobody has, until as much is spent. */
static void spend(const struct users *users, int64_t cost, struct slice password)
{
	static const char zeros[] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"; /* base64 */
	char hash[crypto_pwhash_STRBYTES];

	while (cost >= users->passes * ARGON2_MEMORY_MIN_KIB && cost > 0) {
		int64_t memory_kib = MIN(cost / users->passes, users->memory_kib);
		snprintf(hash, sizeof(hash), ARGON2_PREFIX "v=19$m=%lld,t=%lld,p=1$%.22s$%.43s", (long long)memory_kib,
			 (long long)users->passes, zeros, zeros);
		users->verify(users->verify_ctx, hash, password.ptr, password.len);
		cost -= memory_kib * users->passes;
	}
}

/* A failure always costs users->failure_cost, so that time does not tell which names exist, nor what kind of secret
 * they have. */
static const struct entry *match_argon2(const struct users *users, const struct name *name, struct slice password)
{
	for (const struct entry *entry = name ? name->first : NULL; entry; entry = entry->same_name)
		if (entry->kind == USER_SECRET_ARGON2ID &&
		    users->verify(users->verify_ctx, entry->argon2, password.ptr, password.len) == 0)
			return entry;
	spend(users, users->failure_cost - (name ? name->argon2_cost : 0), password);
	return NULL;
}

bool users_verify(const struct users *users, struct slice name_text, struct slice password,
		  const struct user_options **options)
{
	const struct entry *match;
	struct name *name;

	if (!password.ptr)
		password = SLICE("");
	HASH_FIND(hh, users->names, name_text.ptr, name_text.len, name);
	match = match_token(name, password);
	if (!match)
		match = match_argon2(users, name, password);
	if (match && options)
		*options = &match->options;
	return match != NULL;
}
