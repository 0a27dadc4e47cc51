#include "config/user_options.h"

#include "base/base.h"

#include <stdlib.h>

#define OPTIONS_MAX_BYTES 8192

typedef int take_option(struct user_options *options, struct slice value, struct config_memory *memory,
			struct err *why);

static int take_from(struct user_options *options, struct slice value, struct config_memory *memory, struct err *why)
{
	struct config_patterns *from = &options->from;
	struct config_pattern pattern;
	struct slice text;
	int rc = config_pattern_parse(value, &pattern.kind, &text, why);

	if (rc < 0)
		return rc;
	pattern.text = config_memory_copy(memory, text);
	from->items = config_memory_grow(memory, from->items, from->count, sizeof(pattern));
	from->items[from->count++] = pattern;
	return 0;
}

static int take_rate(struct user_options *options, struct slice value, struct config_memory *memory, struct err *why)
{
	(void)memory;
	return config_rate_parse(value, &options->rate, why);
}

static int take_class(struct user_options *options, struct slice value, struct config_memory *memory, struct err *why)
{
	(void)memory;
	if (!message_class_parse(value, &options->class))
		return err_set(why, ERR_SYNTAX, "is none of transactional, default, bulk");
	options->has_class = true;
	return 0;
}

static int take_lifetime(struct user_options *options, struct slice value, struct config_memory *memory,
			 struct err *why)
{
	int rc = config_duration_parse(value, &options->lifetime_ms, why);

	(void)memory;
	if (rc == 0 && options->lifetime_ms < CONFIG_SECOND_MS)
		return err_set(why, ERR_LIMIT, "is less than a second");
	return rc;
}

static int take_relayhost(struct user_options *options, struct slice value, struct config_memory *memory,
			  struct err *why)
{
	if (value.len == 0)
		return err_set(why, ERR_SYNTAX, "is empty");
	options->relayhost = config_memory_copy(memory, value);
	return 0;
}

static const struct option {
	const char *name;
	take_option *take;
	bool may_repeat;
} option_table[] = {
    {"from", take_from, true},		{"rate", take_rate, false},	      {"class", take_class, false},
    {"lifetime", take_lifetime, false}, {"relayhost", take_relayhost, false},
};

static const struct option *find_option(struct slice name)
{
	for (size_t i = 0; i < ARRAY_LEN(option_table); i++)
		if (slice_eq(name, slice_of_str(option_table[i].name)))
			return &option_table[i];
	return NULL;
}

static int read_option(struct slice text, struct config_memory *memory, struct user_options *options, unsigned *seen,
		       struct err *err)
{
	ptrdiff_t equals = slice_find(text, '=');
	struct slice name = equals < 0 ? text : slice_to(text, (size_t)equals);
	const struct option *option = find_option(name);
	struct err why;
	unsigned bit;

	if (equals < 0 || !option)
		return err_set(err, ERR_SYNTAX, "'%.*s' is no option: from=, rate=, class=, lifetime=, relayhost=",
			       (int)MIN(name.len, 40), name.ptr);
	bit = 1U << (option - option_table);
	if ((*seen & bit) && !option->may_repeat)
		return err_set(err, ERR_SYNTAX, "the option %s= stands twice", option->name);
	*seen |= bit;
	text = slice_from(text, (size_t)equals + 1);
	if (option->take(options, text, memory, &why) < 0)
		return err_set(err, ERR_SYNTAX, "%s= '%.*s' %s", option->name, (int)MIN(text.len, 60), text.ptr,
			       why.text);
	return 0;
}

int user_options_read(struct slice text, struct config_memory *memory, struct user_options *options, size_t *at,
		      struct err *err)
{
	struct slice rest = text;
	unsigned seen = 0;

	*options = (struct user_options){.text = config_memory_copy(memory, text)};
	*at = 0;
	if (text.len > OPTIONS_MAX_BYTES)
		return err_set(err, ERR_LIMIT, "options of more than %d octets", OPTIONS_MAX_BYTES);
	while (rest.len > 0) {
		ptrdiff_t colon = slice_find(rest, ':');
		struct slice part = colon < 0 ? rest : slice_to(rest, (size_t)colon);
		int rc = read_option(part, memory, options, &seen, err);
		if (rc < 0)
			return rc;
		rest = slice_from(rest, part.len + 1);
		*at += part.len + 1;
	}
	return 0;
}

struct owned_options {
	struct user_options options;
	struct config_memory *memory;
};

struct user_options *user_options_parse(struct slice text, struct err *err)
{
	struct owned_options *owned = xcalloc(1, sizeof(*owned));
	struct user_options *options = &owned->options;
	size_t at;

	owned->memory = config_memory_new();
	if (user_options_read(text, owned->memory, options, &at, err) < 0)
		user_options_free(&options);
	return options;
}

void user_options_free(struct user_options **options)
{
	struct owned_options *owned;

	if (!*options)
		return;
	owned = CONTAINER_OF(*options, struct owned_options, options);
	config_memory_free(&owned->memory);
	free(owned);
	*options = NULL;
}
