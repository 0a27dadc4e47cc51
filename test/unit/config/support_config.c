#include "support_config.h"

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct config *load_with(const char *text, const struct load_options *options, struct config_errors *errors)
{
	static const struct load_options none;
	struct config_source source = {.file = "f"};
	struct config *config = NULL;
	int rc;

	if (!options)
		options = &none;
	source.environ = options->environ;
	source.check_files = options->check_files;
	source.default_hostname = options->default_hostname ? options->default_hostname : "relay.example.com";
	rc = config_load_text(&source, slice_of_str(text), &config, errors);
	assert_true((rc == 0) == (config != NULL));
	assert_true((rc == 0) == (errors->error_count == 0));
	return config;
}

struct config *load_good(const char *text)
{
	struct config_errors errors;
	struct config *config = load_with(text, NULL, &errors);

	if (!config)
		fail_msg("refused: %s", errors.items[0].text);
	return config;
}

void assert_mistakes(const char *text, const struct load_options *options, ...)
{
	struct config_errors errors;
	struct config *config = load_with(text, options, &errors);
	const char *wanted;
	size_t i = 0;
	va_list args;

	va_start(args, options);
	while ((wanted = va_arg(args, const char *)) != NULL) {
		if (i >= errors.kept_count)
			fail_msg("missing: %s", wanted);
		assert_string_equal(errors.items[i++].text, wanted);
	}
	va_end(args);
	if (i < errors.kept_count)
		fail_msg("not expected: %s", errors.items[i].text);
	config_free(&config);
}

void assert_mistake(const char *text, const char *mistake)
{
	assert_mistakes(text, NULL, mistake, NULL);
}

char *make_file(const char *name, const char *content)
{
	const char *tmp = getenv("TMPDIR");
	char folder[512], path[1024];
	FILE *file;

	snprintf(folder, sizeof(folder), "%s/relayd-test-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fputs(content, file) < 0, 0);
	assert_int_equal(fclose(file), 0);
	return xstrdup(path);
}

void drop_file(char *path)
{
	unlink(path);
	*strrchr(path, '/') = '\0';
	assert_int_equal(rmdir(path), 0);
	free(path);
}

char *read_whole(const char *path, size_t *len)
{
	FILE *file = fopen(path, "r");
	char *text = NULL;
	size_t size = 0, n;

	if (!file)
		fail_msg("cannot open %s: run this in the root of the source", path);
	do {
		text = xrealloc(text, size + 65537);
		n = fread(text + size, 1, 65536, file);
		size += n;
	} while (n > 0);
	fclose(file);
	text[size] = '\0';
	*len = size;
	return text;
}
