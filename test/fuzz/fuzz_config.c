/*
 * relayd.yaml and its environment from anybody: no crash, no hang, every mistake told with printable words; what is
 * taken can be printed.
 *
 * The first octet of the input says what it is: 'u' a users file, 'e' variables, one a line, anything else relayd.yaml.
 */
#include "base/base.h"
#include "config/config.h"
#include "config/gateways.h"
#include "config/hostname.h"
#include "config/print.h"
#include "config/spoolcheck.h"
#include "config/users.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at_errors(const struct config_errors *errors)
{
	BUG_ON(errors->kept_count > CONFIG_MISTAKES_MAX);
	for (size_t i = 0; i < errors->kept_count; i++) {
		const char *text = errors->items[i].text;
		BUG_ON(strlen(text) == 0 || strlen(text) >= sizeof(errors->items[i].text));
		for (; *text; text++)
			BUG_ON((uint8_t)*text < ' ');
	}
}

static void look_at_config(struct config **config)
{
	struct buf yaml;
	json_t *json;
	char *text;

	buf_init(&yaml, 64 * 1024 * 1024);
	BUG_ON(config_print_yaml(*config, &yaml) < 0);
	json = config_print_json(*config);
	text = json_dumps(json, 0);
	BUG_ON(!text);
	free(text);
	json_decref(json);
	buf_fini(&yaml);
	config_uses_mx(*config);
	config_free(config);
}

static void load(struct slice text, char *const *environ)
{
	struct config_source source = {.file = "f", .environ = environ, .default_hostname = "relay.example.com"};
	struct config_errors errors;
	struct config *config;
	int rc = config_load_text(&source, text, &config, &errors);

	BUG_ON((rc == 0) != (errors.error_count == 0) || (rc == 0) != (config != NULL));
	look_at_errors(&errors);
	if (config)
		look_at_config(&config);
}

static void load_users(struct slice text)
{
	struct users *users = users_new();
	struct config_errors errors;

	config_errors_init(&errors);
	users_parse(users, text, "u", &errors);
	look_at_errors(&errors);
	for (size_t i = 0; i < users_count(users); i++)
		BUG_ON(users_entry(users, i).options->text == NULL);
	users_free(&users);
}

/* Lines as variables; _FILE ones would read the machine's files, so they get a path that leads nowhere. */
static void load_environment(struct slice text)
{
	enum { MAX = 64 };
	char *environ[MAX + 1] = {0};
	size_t count = 0;

	while (text.len > 0 && count < MAX) {
		ptrdiff_t end = slice_find(text, '\n');
		struct slice line = end < 0 ? text : slice_to(text, (size_t)end);
		ptrdiff_t equals = slice_find(line, '=');
		struct buf entry;
		text = slice_from(text, line.len + 1);
		if (equals < 0)
			continue;
		buf_init(&entry, 1024 * 1024 + 64);
		buf_printf(&entry, "RELAYD_%.*s", (int)equals + 1, line.ptr);
		if (equals >= 5 && slice_eq(slice_of(line.ptr + equals - 5, 5), SLICE("_FILE")))
			buf_append_str(&entry, "/nowhere/at/all");
		else
			buf_append(&entry, slice_from(line, (size_t)equals + 1));
		environ[count++] = xmemdup(buf_slice(&entry).ptr, buf_len(&entry));
		buf_fini(&entry);
	}
	load(SLICE(""), environ);
	for (size_t i = 0; i < count; i++)
		free(environ[i]);
}

static void look_at_machine_texts(struct slice text)
{
	struct config_gateways gateways;
	char name[CONFIG_HOSTNAME_MAX];

	config_gateways_parse(text, text, &gateways);
	config_hostname_choose(SLICE("vm"), text, name);
	spool_kind_of_mountinfo(text, "/var/spool/relayd");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice all = slice_of(data, size), rest = slice_from(all, 1);

	if (size == 0)
		return 0;
	switch (data[0]) {
	case 'u': load_users(rest); break;
	case 'e': load_environment(rest); break;
	case 'm': look_at_machine_texts(rest); break;
	default: load(all, NULL);
	}
	return 0;
}
