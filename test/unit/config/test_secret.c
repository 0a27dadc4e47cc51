/* Secrets from files. */
#include "base/base.h"
#include "config/secret.h"
#include "support_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void assert_secret(const char *content, const char *wanted)
{
	char *path = make_file("secret", content), *text;

	assert_int_equal(config_read_secret(path, &text, NULL), 0);
	assert_string_equal(text, wanted);
	config_secret_wipe(&text);
	assert_null(text);
	drop_file(path);
}

static void one_final_newline_is_dropped(void **state)
{
	(void)state;
	assert_secret("geheim", "geheim");
	assert_secret("geheim\n", "geheim");
	assert_secret("geheim\r\n", "geheim");
	assert_secret("geheim\n\n", "geheim\n");
	assert_secret(" ge heim \n", " ge heim ");
	assert_secret("-----BEGIN X-----\nabc\n-----END X-----\n", "-----BEGIN X-----\nabc\n-----END X-----");
}

static void what_cannot_be_read_is_told(void **state)
{
	char *path = make_file("secret", ""), *text = (char *)"x";
	struct err err;
	FILE *file;

	(void)state;
	assert_int_equal(config_read_secret("/nowhere/x", &text, &err), ERR_NOT_FOUND);
	assert_string_equal(err.text, "cannot open /nowhere/x: No such file or directory");
	assert_null(text);
	assert_int_equal(config_read_secret("/", &text, &err), ERR_CONFIG);
	assert_string_equal(err.text, "/ is not a regular file");
	assert_int_equal(config_read_secret(path, &text, &err), ERR_CONFIG);
	assert_non_null(strstr(err.text, " is empty"));
	file = fopen(path, "w");
	assert_non_null(file);
	fwrite("a\0b", 1, 3, file);
	fclose(file);
	assert_int_equal(config_read_secret(path, &text, &err), ERR_CONFIG);
	assert_non_null(strstr(err.text, " has a NUL in it"));
	drop_file(path);
}

static void a_fifo_does_not_hang(void **state)
{
	char *path = make_file("secret", ""), *text;
	struct err err;

	(void)state;
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(config_read_secret(path, &text, &err), ERR_CONFIG);
	assert_non_null(strstr(err.text, " is not a regular file"));
	drop_file(path);
}

static void there_is_a_ceiling(void **state)
{
	size_t len = CONFIG_SECRET_MAX_BYTES;
	char *content = xmalloc(len + 2), *path, *text;
	struct err err;

	(void)state;
	memset(content, 'x', len + 1);
	content[len + 1] = '\0';
	path = make_file("secret", content);
	assert_int_equal(config_read_secret(path, &text, &err), ERR_LIMIT);
	drop_file(path);
	content[len] = '\0';
	path = make_file("secret", content);
	assert_int_equal(config_read_secret(path, &text, &err), 0);
	assert_int_equal(strlen(text), len);
	config_secret_wipe(&text);
	drop_file(path);
	free(content);
}

static void a_secret_is_a_file_or_a_text_or_not_set(void **state)
{
	char *path = make_file("secret", "from file\n"), *text;
	struct config_secret file = {.file = path}, value = {.value = "from text"}, none = {0};
	struct err err;

	(void)state;
	assert_true(config_secret_is_set(&file));
	assert_true(config_secret_is_set(&value));
	assert_false(config_secret_is_set(&none));
	assert_int_equal(config_secret_read(&file, &text, &err), 0);
	assert_string_equal(text, "from file");
	config_secret_wipe(&text);
	assert_int_equal(config_secret_read(&value, &text, &err), 0);
	assert_string_equal(text, "from text");
	config_secret_wipe(&text);
	assert_int_equal(config_secret_read(&none, &text, &err), ERR_NOT_FOUND);
	config_secret_wipe(&text);
	drop_file(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(one_final_newline_is_dropped),
	    cmocka_unit_test(what_cannot_be_read_is_told),
	    cmocka_unit_test(a_fifo_does_not_hang),
	    cmocka_unit_test(there_is_a_ceiling),
	    cmocka_unit_test(a_secret_is_a_file_or_a_text_or_not_set),
	};
	return cmocka_run_group_tests_name("secrets", tests, NULL, NULL);
}
