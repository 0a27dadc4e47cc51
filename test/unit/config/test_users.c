/* The users file: reading, verifying with equal cost, changing. */
#include "base/base.h"
#include "config/user_options.h"
#include "config/users.h"
#include "support_config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* BLAKE2b-256 of "secret", of "other", and Argon2id of "geheim" and "anders" with the least cost. */
#define TOKEN_SECRET "$b2$rkqvs8fYYWtznwWjDQa04iNv3qcSFoFZ80boo+/VfZ4="
static char token_secret[64], token_other[64], argon2_geheim[128], argon2_anders[128];

static void make_token(const char *password, char out[64])
{
	struct buf buf;

	buf_init(&buf, 128);
	users_hash_token(slice_of_str(password), &buf);
	slice_to_cstr(buf_slice(&buf), out, 64);
	buf_fini(&buf);
}

static void make_argon2(const char *password, char out[128])
{
	struct buf buf;

	buf_init(&buf, 256);
	assert_int_equal(users_hash_password(slice_of_str(password), &buf, NULL), 0);
	slice_to_cstr(buf_slice(&buf), out, 128);
	buf_fini(&buf);
}

static int make_secrets(void **state)
{
	(void)state;
	make_token("secret", token_secret);
	make_token("other", token_other);
	make_argon2("geheim", argon2_geheim);
	make_argon2("anders", argon2_anders);
	return 0;
}

/* Counts computations and compares as the real one would: "geheim" and "anders" match their hash. */
struct counter {
	unsigned computed;
	long work; /* KiB times passes */
};

static int count_and_compare(void *ctx, const char *hash, const char *password, size_t len)
{
	struct counter *counter = ctx;
	struct slice given = slice_of(password, len);
	long memory, passes;

	counter->computed++;
	assert_int_equal(sscanf(hash, "$argon2id$v=19$m=%ld,t=%ld,p=1$", &memory, &passes), 2);
	counter->work += memory * passes;
	if (strcmp(hash, argon2_geheim) == 0)
		return slice_eq(given, SLICE("geheim")) ? 0 : -1;
	return strcmp(hash, argon2_anders) == 0 && slice_eq(given, SLICE("anders")) ? 0 : -1;
}

static struct users *load(const char *text)
{
	struct users *users = users_new();
	struct config_errors errors;

	config_errors_init(&errors);
	if (users_parse(users, slice_of_str(text), "u", &errors) < 0)
		fail_msg("refused: %s", errors.items[0].text);
	return users;
}

static void a_token_has_the_form_that_others_can_make(void **state)
{
	char expected[64];

	(void)state;
	/* As Python's base64.b64encode(hashlib.blake2b(b"secret", digest_size=32).digest()). */
	snprintf(expected, sizeof(expected), "%s", TOKEN_SECRET);
	assert_string_equal(token_secret, expected);
}

static void a_token_is_verified(void **state)
{
	char text[256];
	struct users *users;
	const struct user_options *options = NULL;

	(void)state;
	snprintf(text, sizeof(text), "# users\n\napp:%s:from=@example.com:from=x@example.org\n", token_secret);
	users = load(text);
	assert_true(users_verify(users, SLICE("app"), SLICE("secret"), &options));
	assert_int_equal(options->from.count, 2);
	assert_int_equal(options->from.items[0].kind, CONFIG_PATTERN_DOMAIN);
	assert_string_equal(options->text, "from=@example.com:from=x@example.org");
	assert_false(users_verify(users, SLICE("app"), SLICE("secreT"), NULL));
	assert_false(users_verify(users, SLICE("app"), SLICE(""), NULL));
	assert_false(users_verify(users, SLICE("app"), (struct slice){0}, NULL));
	assert_false(users_verify(users, SLICE("App"), SLICE("secret"), NULL));
	assert_false(users_verify(users, SLICE("ap"), SLICE("secret"), NULL));
	assert_false(users_verify(users, SLICE(""), SLICE("secret"), NULL));
	assert_false(users_verify(users, (struct slice){0}, SLICE("secret"), NULL));
	users_free(&users);
	assert_null(users);
}

static void base64_without_padding_will_do(void **state)
{
	char text[256];
	struct users *users;

	(void)state;
	snprintf(text, sizeof(text), "app:%s", token_secret);
	*strrchr(text, '=') = '\0';
	users = load(text);
	assert_true(users_verify(users, SLICE("app"), SLICE("secret"), NULL));
	users_free(&users);
}

static void a_chosen_password_is_verified_by_argon2id(void **state)
{
	char text[256];
	struct users *users;

	(void)state;
	assert_memory_equal(argon2_geheim, "$argon2id$v=19$m=19456,t=2,p=1$", 31);
	snprintf(text, sizeof(text), "app:%s\n", argon2_geheim);
	users = load(text);
	assert_true(users_verify(users, SLICE("app"), SLICE("geheim"), NULL));
	assert_false(users_verify(users, SLICE("app"), SLICE("geheim2"), NULL));
	assert_int_equal(users_entry(users, 0).kind, USER_SECRET_ARGON2ID);
	users_free(&users);
}

static void old_and_new_secret_overlap(void **state)
{
	char text[512];
	struct users *users;
	const struct user_options *options;

	(void)state;
	snprintf(text, sizeof(text), "app:%s:from=@old.example\nb:%s\napp:%s:from=@new.example\n", token_secret,
		 token_other, token_other);
	users = load(text);
	assert_int_equal(users_count(users), 3);
	assert_true(users_verify(users, SLICE("app"), SLICE("secret"), &options));
	assert_string_equal(options->text, "from=@old.example");
	assert_true(users_verify(users, SLICE("app"), SLICE("other"), &options));
	assert_string_equal(options->text, "from=@new.example");
	assert_false(users_verify(users, SLICE("b"), SLICE("secret"), NULL));
	assert_string_equal(users_entry(users, 2).name, "app");
	assert_int_equal(users_entry(users, 2).line, 3);
	users_free(&users);
}

/* Two names have one Argon2id secret, one has two and a token, one has a token alone. */
static struct users *load_mixed(struct counter *counter)
{
	char text[1024];
	struct users *users;

	snprintf(text, sizeof(text), "one:%s\ntwo:%s\ntwo:%s\ntwo:%s\ntoken:%s\n", argon2_geheim, argon2_geheim,
		 argon2_anders, token_other, token_secret);
	users = load(text);
	counter->computed = 0;
	users_set_argon2(users, count_and_compare, counter);
	return users;
}

/* E8 */
static void every_failure_costs_the_same(void **state)
{
	static const char *const names[] = {"one", "two", "token", "unknown", ""};
	struct counter counter;
	struct users *users = load_mixed(&counter);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		counter.computed = 0;
		assert_false(users_verify(users, slice_of_str(names[i]), SLICE("wrong"), NULL));
		assert_int_equal(counter.computed, 2);
	}
	users_free(&users);
}

/* Hashes of other parameters, as they come from other programs: who has the cheap one must not be told from nobody. */
static void every_failure_costs_the_same_whatever_the_hashes_cost(void **state)
{
	static const char *const names[] = {"cheap", "dear", "mixed", "token", "unknown"};
	const char *hash = strstr(argon2_geheim, ",p=1$");
	struct counter counter;
	struct users *users;
	char text[1024];

	(void)state;
	snprintf(text, sizeof(text),
		 "cheap:$argon2id$v=19$m=8192,t=1%s\ndear:$argon2id$v=19$m=65536,t=3%s\n"
		 "mixed:$argon2id$v=19$m=65536,t=3%s\nmixed:$argon2id$v=19$m=19456,t=2%s\ntoken:%s\n",
		 hash, hash, hash, hash, token_secret);
	users = load(text);
	users_set_argon2(users, count_and_compare, &counter);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		counter = (struct counter){0};
		assert_false(users_verify(users, slice_of_str(names[i]), SLICE("wrong"), NULL));
		assert_in_range(counter.work, 65536 * 3 + 19456 * 2 - 8, 65536 * 3 + 19456 * 2);
	}
	users_free(&users);
}

static void success_costs_what_it_needs(void **state)
{
	static const struct {
		const char *name, *password;
		unsigned computed;
	} rows[] = {{"one", "geheim", 1},
		    {"two", "geheim", 1},
		    {"two", "anders", 2},
		    {"two", "other", 0},
		    {"token", "secret", 0}};
	struct counter counter;
	struct users *users = load_mixed(&counter);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		counter.computed = 0;
		assert_true(users_verify(users, slice_of_str(rows[i].name), slice_of_str(rows[i].password), NULL));
		assert_int_equal(counter.computed, rows[i].computed);
	}
	users_free(&users);
}

static void tokens_alone_never_cost_argon2id(void **state)
{
	struct counter counter = {0};
	char text[256];
	struct users *users;

	(void)state;
	snprintf(text, sizeof(text), "app:%s\n", token_secret);
	users = load(text);
	users_set_argon2(users, count_and_compare, &counter);
	assert_false(users_verify(users, SLICE("app"), SLICE("wrong"), NULL));
	assert_false(users_verify(users, SLICE("nobody"), SLICE("wrong"), NULL));
	assert_int_equal(counter.computed, 0);
	users_free(&users);
}

static void one_user_from_the_environment(void **state)
{
	struct users *users = users_new();
	struct err err;

	(void)state;
	assert_int_equal(users_add_account(users, SLICE("app"), SLICE("p:w d"), &err), 0);
	assert_true(users_verify(users, SLICE("app"), SLICE("p:w d"), NULL));
	assert_false(users_verify(users, SLICE("app"), SLICE("p:w"), NULL));
	assert_int_equal(users_add_account(users, SLICE("a b"), SLICE("x"), &err), ERR_SYNTAX);
	assert_int_equal(users_add_account(users, SLICE("b"), SLICE(""), &err), ERR_SYNTAX);
	users_free(&users);
}

/* %s: a good token. */
static const struct {
	const char *before, *after, *mistake;
} bad_lines[] = {
    {"app", "", "u:1:1: a line is name:secret[:option=value]..."},
    {":$b2$x", "", "u:1:1: a name has 1 to 255 octets, no blanks and no control characters"},
    {"a b:$b2$x", "", "u:1:1: a name has 1 to 255 octets, no blanks and no control characters"},
    {"# ok\n\napp:geheim", "",
     "u:3:5: the secret begins with neither $argon2id$ nor $b2$: make it with relayctl user add"},
    {"app:", "", "u:1:5: the secret begins with neither $argon2id$ nor $b2$: make it with relayctl user add"},
    {"app:$argon2i$v=19$m=4096,t=3,p=1$a$b", "",
     "u:1:5: the secret begins with neither $argon2id$ nor $b2$: make it with relayctl user add"},
    {"app:$b2$abcd", "", "u:1:5: behind $b2$ stands the base64 of 32 octets, BLAKE2b-256 of the password"},
    {"app:$b2$rkqvs8fYYWtznwWjDQa04iNv3qcSFoFZ80boo+/VfZ\xc3=", "",
     "u:1:5: behind $b2$ stands the base64 of 32 octets, BLAKE2b-256 of the password"},
    {"app:$b2$", "", "u:1:5: behind $b2$ stands the base64 of 32 octets, BLAKE2b-256 of the password"},
    {"app:$argon2id$v=19$m=19456,t=2,p=1$abc", "",
     "u:1:5: the Argon2id secret is broken: make it anew with relayctl user add"},
    {"app:", ":color=blue", "u:1:54: 'color' is no option: from=, rate=, class=, lifetime=, relayhost="},
    {"app:", ":from=@a.example:from=a b",
     "u:1:70: from= 'a b' is neither user@example.com nor @example.com nor *.example.com nor *"},
    {"app:", ":from", "u:1:54: 'from' is no option: from=, rate=, class=, lifetime=, relayhost="},
};

static void each_mistake_has_its_line(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad_lines); i++) {
		struct users *users = users_new();
		struct config_errors errors;
		char text[512];
		snprintf(text, sizeof(text), "%s%s%s\n", bad_lines[i].before, bad_lines[i].after[0] ? token_secret : "",
			 bad_lines[i].after);
		config_errors_init(&errors);
		assert_int_equal(users_parse(users, slice_of_str(text), "u", &errors), ERR_CONFIG);
		assert_string_equal(errors.items[0].text, bad_lines[i].mistake);
		users_free(&users);
	}
}

static void an_argon2id_secret_that_would_cost_too_much_is_refused(void **state)
{
	struct users *users = users_new();
	struct config_errors errors;
	char text[512], *memory;

	(void)state;
	snprintf(text, sizeof(text), "app:%s\n", argon2_geheim);
	memory = strstr(text, "m=19456");
	memcpy(memory, "m=99456", 7);
	config_errors_init(&errors);
	assert_int_equal(users_parse(users, slice_of_str(text), "u", &errors), 0);
	snprintf(text, sizeof(text), "app:$argon2id$v=19$m=999456%s\n", strstr(argon2_geheim, ",t="));
	assert_int_equal(users_parse(users, slice_of_str(text), "u", &errors), ERR_CONFIG);
	assert_string_equal(errors.items[0].text,
			    "u:1:5: the Argon2id secret costs too much: at most 256 MiB and 20 passes");
	users_free(&users);
}

static void too_many_lines_of_a_name_are_refused(void **state)
{
	struct users *users = users_new();
	struct config_errors errors;

	(void)state;
	config_errors_init(&errors);
	for (int i = 0; i <= USERS_SAME_NAME_MAX; i++) {
		char text[256];
		snprintf(text, sizeof(text), "app:%s\n", token_secret);
		assert_int_equal(users_parse(users, slice_of_str(text), "u", &errors),
				 i < USERS_SAME_NAME_MAX ? 0 : ERR_CONFIG);
	}
	users_free(&users);
}

static void a_missing_file_is_told(void **state)
{
	struct users *users = users_new();
	struct config_errors errors;

	(void)state;
	config_errors_init(&errors);
	assert_int_equal(users_load(users, "/nowhere/users", &errors), ERR_NOT_FOUND);
	assert_string_equal(errors.items[0].text, "/nowhere/users: cannot open: No such file or directory");
	users_free(&users);
}

/* ---- Options. */

static void all_options(void **state)
{
	static const char text[] =
	    "from=@example.com:rate=100/m:class=bulk:lifetime=10m:relayhost=ses:from=*.example.org";
	struct config_memory *memory = config_memory_new();
	struct user_options options;
	size_t at;

	(void)state;
	assert_int_equal(user_options_read(SLICE(text), memory, &options, &at, NULL), 0);
	assert_int_equal(options.from.count, 2);
	assert_int_equal(options.rate.count, 100);
	assert_true(options.has_class);
	assert_int_equal(options.class, MESSAGE_BULK);
	assert_int_equal(options.lifetime_ms, 600000);
	assert_string_equal(options.relayhost, "ses");
	assert_string_equal(options.text, text);
	config_memory_free(&memory);
}

static void a_relayhost_must_be_one_of_the_configuration(void **state)
{
	struct config *config =
	    load_good("users: u\nrelayhosts: {main: {address: a.example.net}, ses: {address: b.example.net}}\n");
	struct users *users = users_new();
	struct config_errors errors;
	char text[1024], mistake[1024];

	(void)state;
	config->users_file = "u";
	config_errors_init(&errors);
	snprintf(text, sizeof(text),
		 "app:" TOKEN_SECRET ":from=@a.example:relayhost=mian\nweb:" TOKEN_SECRET
		 ":relayhost=ses\nold:" TOKEN_SECRET ":relayhost=nowhere-near\n");
	assert_int_equal(users_parse(users, slice_of_str(text), "u", &errors), 0);
	assert_int_equal(users_check(users, config, &errors), ERR_CONFIG);
	assert_int_equal(errors.error_count, 2);
	snprintf(mistake, sizeof(mistake), "u:1:%zu: relayhost= 'mian' is no relayhost, did you mean 'main'?",
		 strlen("app:" TOKEN_SECRET ":from=@a.example:") + 1);
	assert_string_equal(errors.items[0].text, mistake);
	assert_non_null(strstr(errors.items[1].text, "'nowhere-near' is no relayhost of this configuration"));
	users_free(&users);
	config_free(&config);
}

static void options_that_are_wrong(void **state)
{
	static const struct {
		const char *text, *why;
		size_t at;
	} rows[] = {
	    {"rate=fast", "rate= 'fast' is no rate: write a number per time, such as 100/h, 5/s or 100/10m", 0},
	    {"class=vip", "class= 'vip' is none of transactional, default, bulk", 0},
	    {"lifetime=500ms", "lifetime= '500ms' is less than a second", 0},
	    {"class=bulk:class=bulk", "the option class= stands twice", 11},
	    {"relayhost=", "relayhost= '' is empty", 0},
	    {"from=a@b.c:", NULL, 0},
	    {"from=a@b.c::", "'' is no option: from=, rate=, class=, lifetime=, relayhost=", 11},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct config_memory *memory = config_memory_new();
		struct user_options options;
		struct err err;
		size_t at;
		int rc = user_options_read(slice_of_str(rows[i].text), memory, &options, &at, &err);
		assert_true((rc == 0) == (rows[i].why == NULL));
		if (rc < 0) {
			assert_string_equal(err.text, rows[i].why);
			assert_int_equal(at, rows[i].at);
		}
		config_memory_free(&memory);
	}
}

static void options_travel_as_text(void **state)
{
	struct user_options *options = user_options_parse(SLICE("from=@example.com"), NULL);
	struct err err;

	(void)state;
	assert_non_null(options);
	assert_true(config_patterns_match(&options->from, SLICE("x@example.com")));
	user_options_free(&options);
	assert_null(options);
	assert_null(user_options_parse(SLICE("frm=x"), &err));
	options = user_options_parse(SLICE(""), NULL);
	assert_int_equal(options->from.count, 0);
	user_options_free(&options);
}

/* ---- Changing the file. */

static const struct users_new_file fresh = {0640, (uid_t)-1, (gid_t)-1};

static void assert_content(const char *path, const char *wanted)
{
	size_t len;
	char *text = read_whole(path, &len);

	assert_string_equal(text, wanted);
	free(text);
}

static void adding_makes_the_file(void **state)
{
	char *path = make_file("users", ""), wanted[256];
	struct stat st;

	(void)state;
	unlink(path);
	assert_int_equal(
	    users_file_add(path, SLICE("app"), slice_of_str(token_secret), SLICE("from=@a.example"), &fresh, NULL), 0);
	snprintf(wanted, sizeof(wanted), "app:%s:from=@a.example\n", token_secret);
	assert_content(path, wanted);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	drop_file(path);
}

static void adding_keeps_what_is_there_and_the_mode(void **state)
{
	char *path = make_file("users", "# mine\nold:x"), wanted[256];
	struct stat before, after;
	struct err err;

	(void)state;
	/* A file with a mistake is not touched. */
	assert_int_equal(users_file_add(path, SLICE("app"), slice_of_str(token_secret), SLICE(""), &fresh, &err),
			 ERR_SYNTAX);
	assert_content(path, "# mine\nold:x");
	drop_file(path);
	path = make_file("users", "# mine\n");
	assert_int_equal(chmod(path, 0604), 0);
	assert_int_equal(stat(path, &before), 0);
	assert_int_equal(users_file_add(path, SLICE("app"), slice_of_str(token_secret), SLICE(""), &fresh, &err), 0);
	snprintf(wanted, sizeof(wanted), "# mine\napp:%s\n", token_secret);
	assert_content(path, wanted);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(after.st_mode, before.st_mode);
	assert_int_equal(after.st_uid, before.st_uid);
	assert_int_equal(after.st_gid, before.st_gid);
	assert_int_not_equal(after.st_ino, before.st_ino);
	drop_file(path);
}

static void the_owner_stays(void **state)
{
	char *path = make_file("users", "# mine\n");
	struct stat st;

	(void)state;
	if (geteuid() != 0) {
		drop_file(path);
		skip();
	}
	assert_int_equal(chown(path, 1234, 5678), 0);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(users_file_add(path, SLICE("app"), slice_of_str(token_secret), SLICE(""), &fresh, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_uid, 1234);
	assert_int_equal(st.st_gid, 5678);
	assert_int_equal(st.st_mode & 07777, 0640);
	drop_file(path);
}

static void a_last_line_without_newline_gets_one(void **state)
{
	char text[256], wanted[512];
	char *path;

	(void)state;
	snprintf(text, sizeof(text), "a:%s", token_secret);
	path = make_file("users", text);
	assert_int_equal(users_file_add(path, SLICE("b"), slice_of_str(token_other), SLICE(""), &fresh, NULL), 0);
	snprintf(wanted, sizeof(wanted), "a:%s\nb:%s\n", token_secret, token_other);
	assert_content(path, wanted);
	drop_file(path);
}

static void names_and_options_that_would_break_the_file_are_refused(void **state)
{
	char *path = make_file("users", "");
	struct err err;

	(void)state;
	assert_int_equal(users_file_add(path, SLICE("a:b"), slice_of_str(token_secret), SLICE(""), &fresh, &err),
			 ERR_SYNTAX);
	assert_int_equal(users_file_add(path, SLICE("a\nb"), slice_of_str(token_secret), SLICE(""), &fresh, &err),
			 ERR_SYNTAX);
	assert_int_equal(users_file_add(path, SLICE("#a"), slice_of_str(token_secret), SLICE(""), &fresh, &err),
			 ERR_SYNTAX);
	assert_int_equal(users_file_add(path, SLICE("a"), SLICE("plain"), SLICE(""), &fresh, &err), ERR_SYNTAX);
	assert_int_equal(users_file_add(path, SLICE("a"), slice_of_str(token_secret), SLICE("foo=bar"), &fresh, &err),
			 ERR_SYNTAX);
	assert_content(path, "");
	drop_file(path);
}

static void removing_takes_every_line_of_the_name_and_no_other(void **state)
{
	char text[1024], wanted[512];
	char *path;
	size_t removed;
	struct err err;

	(void)state;
	snprintf(text, sizeof(text), "# app:\napp:%s\nappx:%s\napp:%s\nb:%s\n", token_secret, token_secret, token_other,
		 token_other);
	path = make_file("users", text);
	assert_int_equal(users_file_remove(path, SLICE("app"), &removed, &err), 0);
	assert_int_equal(removed, 2);
	snprintf(wanted, sizeof(wanted), "# app:\nappx:%s\nb:%s\n", token_secret, token_other);
	assert_content(path, wanted);
	assert_int_equal(users_file_remove(path, SLICE("app"), &removed, &err), ERR_NOT_FOUND);
	assert_int_equal(removed, 0);
	assert_int_equal(users_file_remove(path, SLICE(""), &removed, &err), ERR_NOT_FOUND);
	assert_content(path, wanted);
	drop_file(path);
}

static void a_symbolic_link_stays_one(void **state)
{
	char *path = make_file("users", ""), link[1024], name[1024];
	struct stat st;

	(void)state;
	snprintf(link, sizeof(link), "%s.link", path);
	snprintf(name, sizeof(name), "users");
	assert_int_equal(symlink(name, link), 0);
	assert_int_equal(users_file_add(link, SLICE("app"), slice_of_str(token_secret), SLICE(""), &fresh, NULL), 0);
	assert_int_equal(lstat(link, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size > 0);
	assert_int_equal(unlink(link), 0);
	drop_file(path);
}

/* Four processes add ten lines each at the same time: nobody's line is lost. */
static void two_changes_at_once_do_not_lose_each_other(void **state)
{
	enum { PROCESSES = 4, LINES = 10 };
	char *path = make_file("users", "");
	struct users *users = users_new();
	struct config_errors errors;

	(void)state;
	for (int p = 0; p < PROCESSES; p++) {
		if (fork() == 0) {
			int rc = 0;
			for (int i = 0; i < LINES; i++) {
				char name[32];
				snprintf(name, sizeof(name), "u%d-%d", p, i);
				rc |= users_file_add(path, slice_of_str(name), slice_of_str(token_secret), SLICE(""),
						     &fresh, NULL);
			}
			_exit(rc != 0);
		}
	}
	for (int p = 0; p < PROCESSES; p++) {
		int status;
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	config_errors_init(&errors);
	assert_int_equal(users_load(users, path, &errors), 0);
	assert_int_equal(users_count(users), PROCESSES * LINES);
	users_free(&users);
	drop_file(path);
}

static void tokens_are_new_each_time(void **state)
{
	char one[USERS_TOKEN_CHARS + 1], two[USERS_TOKEN_CHARS + 1];

	(void)state;
	users_token_new(one);
	users_token_new(two);
	assert_int_equal(strlen(one), USERS_TOKEN_CHARS);
	assert_string_not_equal(one, two);
	assert_int_equal(strspn(one, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
			 USERS_TOKEN_CHARS);
}

static void an_empty_password_is_refused(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 128);
	assert_int_equal(users_hash_password(SLICE(""), &buf, NULL), ERR_SYNTAX);
	buf_fini(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_token_has_the_form_that_others_can_make),
	    cmocka_unit_test(a_token_is_verified),
	    cmocka_unit_test(base64_without_padding_will_do),
	    cmocka_unit_test(a_chosen_password_is_verified_by_argon2id),
	    cmocka_unit_test(old_and_new_secret_overlap),
	    cmocka_unit_test(every_failure_costs_the_same),
	    cmocka_unit_test(success_costs_what_it_needs),
	    cmocka_unit_test(every_failure_costs_the_same_whatever_the_hashes_cost),
	    cmocka_unit_test(tokens_alone_never_cost_argon2id),
	    cmocka_unit_test(one_user_from_the_environment),
	    cmocka_unit_test(each_mistake_has_its_line),
	    cmocka_unit_test(an_argon2id_secret_that_would_cost_too_much_is_refused),
	    cmocka_unit_test(too_many_lines_of_a_name_are_refused),
	    cmocka_unit_test(a_missing_file_is_told),
	    cmocka_unit_test(all_options),
	    cmocka_unit_test(a_relayhost_must_be_one_of_the_configuration),
	    cmocka_unit_test(options_that_are_wrong),
	    cmocka_unit_test(options_travel_as_text),
	    cmocka_unit_test(adding_makes_the_file),
	    cmocka_unit_test(adding_keeps_what_is_there_and_the_mode),
	    cmocka_unit_test(the_owner_stays),
	    cmocka_unit_test(a_last_line_without_newline_gets_one),
	    cmocka_unit_test(names_and_options_that_would_break_the_file_are_refused),
	    cmocka_unit_test(removing_takes_every_line_of_the_name_and_no_other),
	    cmocka_unit_test(a_symbolic_link_stays_one),
	    cmocka_unit_test(two_changes_at_once_do_not_lose_each_other),
	    cmocka_unit_test(tokens_are_new_each_time),
	    cmocka_unit_test(an_empty_password_is_refused),
	};
	return cmocka_run_group_tests_name("users file", tests, make_secrets, NULL);
}
