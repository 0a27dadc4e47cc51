/* What is in force, and the documents that must agree with the table of settings: etc/relayd.yaml, relayd.yaml(5), the
 * JSON schema. */
#include "base/base.h"
#include "config/keys.h"
#include "config/print.h"
#include "config/schema.h"
#include "config/words.h"
#include "support_config.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

static char *print(const struct config *config)
{
	struct buf out;
	char *text;

	buf_init(&out, 1024 * 1024);
	assert_int_equal(config_print_yaml(config, &out), 0);
	text = xmemdup(buf_slice(&out).ptr, buf_len(&out));
	buf_fini(&out);
	return text;
}

static void assert_line(const char *text, const char *line)
{
	char *wanted = xmalloc(strlen(line) + 3);

	snprintf(wanted, strlen(line) + 3, "\n%s\n", line);
	if (!strstr(text, wanted))
		fail_msg("no line '%s' in:\n%s", line, text);
	free(wanted);
}

static void each_value_comes_with_its_origin(void **state)
{
	struct load_options options = {
	    .environ = (char *[]){"RELAYD_LIMITS_RECIPIENTS=7", "RELAYD_RELAYHOST=smtp.example.net",
				  "RELAYD_RELAYHOST_USERNAME=app", "RELAYD_RELAYHOST_PASSWORD=hunter2",
				  "RELAYD_USERNAME=app", "RELAYD_PASSWORD=hunter2", "RELAYD_DKIM_DOMAIN=example.com",
				  "RELAYD_DKIM_KEY=-----BEGIN hunter2", NULL}};
	struct config_errors errors;
	struct config *config = load_with("spool: /s\nlimits: {message_size: 10M}\n", &options, &errors);
	char *text;

	(void)state;
	assert_non_null(config);
	text = print(config);
	assert_line(text, "spool: /s                                       # f:1");
	assert_line(text, "  message_size: 10M                             # f:2");
	assert_line(text, "  recipients: 7                                 # RELAYD_LIMITS_RECIPIENTS");
	assert_line(text, "user: relayd                                    # default");
	assert_line(text, "    address: smtp.example.net:587               # RELAYD_RELAYHOST");
	assert_line(text, "    password: \"***\"                             # RELAYD_RELAYHOST_PASSWORD");
	assert_line(text, "      default: \"***\"                            # RELAYD_DKIM_KEY");
	assert_line(text, "# One user from RELAYD_USERNAME: app");
	assert_null(strstr(text, "hunter2"));
	free(text);
	config_free(&config);
}

static void as_json_too(void **state)
{
	struct load_options options = {.environ = (char *[]){"RELAYD_LIMITS_RECIPIENTS=7", NULL}};
	struct config_errors errors;
	struct config *config = load_with(
	    "limits: {message_size: 10M}\nrelayhosts: {a: {address: a.example.net, username: u, password_file: /p}}\n"
	    "dkim: {domains: {example.com: /k}}\n",
	    &options, &errors);
	json_t *json, *relayhost;
	const char *size, *domain_key, *origin, *env_origin, *password, *relay_origin;
	json_int_t recipients;
	int hide_client;

	(void)state;
	assert_non_null(config);
	json = config_print_json(config);
	assert_int_equal(json_unpack(json, "{s:{s:{s:s, s:I}, s:b, s:{s:{s:{s:s}}}}}", "config", "limits",
				     "message_size", &size, "recipients", &recipients, "hide_client", &hide_client,
				     "dkim", "domains", "example.com", "default", &domain_key),
			 0);
	assert_string_equal(size, "10M");
	assert_int_equal(recipients, 7);
	assert_int_equal(hide_client, 1);
	assert_string_equal(domain_key, "/k");
	assert_int_equal(json_unpack(json, "{s:{s:s, s:s, s:s}}", "origins", "limits.message_size", &origin,
				     "limits.recipients", &env_origin, "relayhosts.a.username", &relay_origin),
			 0);
	assert_string_equal(origin, "f:1");
	assert_string_equal(env_origin, "RELAYD_LIMITS_RECIPIENTS");
	assert_string_equal(relay_origin, "f:2");
	relayhost = json_object_get(json_object_get(json_object_get(json, "config"), "relayhosts"), "a");
	assert_int_equal(json_unpack(relayhost, "{s:s}", "password_file", &password), 0);
	assert_string_equal(password, "/p");
	json_decref(json);
	config_free(&config);
}

static void secrets_are_masked_in_json(void **state)
{
	struct load_options options = {
	    .environ = (char *[]){"RELAYD_RELAYHOST=a.example.net", "RELAYD_RELAYHOST_USERNAME=app",
				  "RELAYD_RELAYHOST_PASSWORD=hunter2", "RELAYD_USERNAME=app", "RELAYD_PASSWORD=hunter2",
				  "RELAYD_DKIM_DOMAIN=example.com", "RELAYD_DKIM_KEY=-----BEGIN hunter2", NULL}};
	struct config_errors errors;
	struct config *config = load_with("", &options, &errors);
	json_t *json;
	char *text;

	(void)state;
	assert_non_null(config);
	json = config_print_json(config);
	text = json_dumps(json, JSON_COMPACT);
	assert_null(strstr(text, "hunter2"));
	assert_non_null(strstr(text, "\"password\":\"***\""));
	free(text);
	json_decref(json);
	config_free(&config);
}

static void so_are_those_in_urls(void **state)
{
	static const char *const shown[] = {
	    "url: https://hooks.example.net/T0/abc?x=a:b@c ", "url: https://hook:***@hooks.example.net/T0?x=@ ",
	    "url: https://***@hooks.example.net ", "url: \"https://***@[2001:db8::1]:8443/\" "};
	static const char *const urls[] = {"https://hooks.example.net/T0/abc?x=a:b@c",
					   "https://hook:hunter2:@hunter2@hooks.example.net/T0?x=@",
					   "https://hunter2@hooks.example.net", "https://hunter2@[2001:db8::1]:8443/"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
		struct load_options options = {.environ = (char *[]){NULL}};
		struct config_errors errors;
		char yaml[200], *text;
		struct config *config;

		snprintf(yaml, sizeof(yaml), "webhook: {url: \"%s\", secret_file: /s}\n", urls[i]);
		config = load_with(yaml, &options, &errors);
		assert_non_null(config);
		assert_string_equal(config->webhook.url, urls[i]);
		text = print(config);
		assert_null(strstr(text, "hunter2"));
		assert_non_null(strstr(text, shown[i]));
		free(text);
		config_free(&config);
	}
}

/* ---- etc/relayd.yaml. */

/* Lines that begin with "#" and no blank, or two, are settings that are commented out. */
static char *uncomment(const char *text)
{
	char *out = xmalloc(strlen(text) + 1), *at = out;

	while (*text) {
		const char *end = strchr(text, '\n');
		size_t len = end ? (size_t)(end - text) + 1 : strlen(text);
		if (text[0] == '#' && (isalpha((unsigned char)text[1]) || (text[1] == ' ' && text[2] == ' '))) {
			memcpy(at, text + 1, len - 1);
			at += len - 1;
		} else {
			memcpy(at, text, len);
			at += len;
		}
		text += len;
	}
	*at = '\0';
	return out;
}

static void the_example_file_loads_as_it_is(void **state)
{
	size_t len;
	char *text = read_whole("etc/relayd.yaml", &len);
	struct config *config = load_good(text);

	(void)state;
	config_free(&config);
	free(text);
}

static struct config *load_example(void)
{
	struct load_options options = {0};
	struct config_errors errors;
	size_t len;
	char *text = read_whole("etc/relayd.yaml", &len), *all = uncomment(text);
	struct config *config = load_with(all, &options, &errors);

	if (!config)
		fail_msg("%s", errors.items[0].text);
	free(all);
	free(text);
	return config;
}

static void assert_all_set(const struct config_table *table, const struct config_origin *const *origins, size_t count)
{
	for (size_t i = 0; i < table->count; i++) {
		bool set = false;
		for (size_t j = 0; j < count; j++)
			set = set || origins[j][i].kind == CONFIG_FROM_FILE;
		if (!set)
			fail_msg("etc/relayd.yaml does not show %s.%s", table->name, table->keys[i].path);
	}
}

static void the_example_file_shows_every_setting(void **state)
{
	struct config *config = load_example();
	const struct config_origin *origins[8];

	(void)state;
	origins[0] = config->origins;
	assert_all_set(&config_root_table, origins, 1);
	for (size_t i = 0; i < config->listener_count; i++)
		origins[i] = config->listeners[i].origins;
	assert_all_set(&config_listener_table, origins, config->listener_count);
	for (size_t i = 0; i < config->relayhost_count; i++)
		origins[i] = config->relayhosts[i].origins;
	assert_all_set(&config_relayhost_table, origins, config->relayhost_count);
	for (size_t i = 0; i < config->route_count; i++)
		origins[i] = config->routes[i].origins;
	assert_all_set(&config_route_table, origins, config->route_count);
	config_free(&config);
}

/* Without the comments, since the origins change. */
static void cut_comments(char *text)
{
	char *out = text;

	while (*text) {
		char *end = strchr(text, '\n'), *comment = strstr(text, " # ");
		size_t len = comment && comment < end ? (size_t)(comment - text) : (size_t)(end - text);
		while (len > 0 && text[len - 1] == ' ')
			len--;
		memmove(out, text, len);
		out += len;
		*out++ = '\n';
		text = end + 1;
	}
	*out = '\0';
}

static void what_is_printed_can_be_read_again(void **state)
{
	struct load_options options = {0};
	struct config_errors errors;
	struct config *config = load_example(), *again;
	char *first = print(config), *second;

	(void)state;
	again = load_with(first, &options, &errors);
	if (!again)
		fail_msg("%s\n%s", errors.items[0].text, first);
	second = print(again);
	cut_comments(first);
	cut_comments(second);
	assert_string_equal(first, second);
	free(first);
	free(second);
	config_free(&config);
	config_free(&again);
}

/* ---- relayd.yaml(5). */

static void assert_in_manual(const char *manual, const struct config_key *key)
{
	char item[128];
	const char *at;

	snprintf(item, sizeof(item), "\n.It Ic %s\n", key->path);
	at = strstr(manual, item);
	if (!at)
		fail_msg("the manual does not explain %s", key->path);
}

static void the_manual_explains_every_setting(void **state)
{
	size_t len;
	char *manual = read_whole("config/relayd.yaml.5", &len);

	(void)state;
	for (size_t i = 0; i < config_root_table.count; i++)
		if (!config_key_is_composite(&config_root_table.keys[i]))
			assert_in_manual(manual, &config_root_table.keys[i]);
	for (size_t i = 0; i < config_listener_table.count; i++)
		assert_in_manual(manual, &config_listener_table.keys[i]);
	for (size_t i = 0; i < config_relayhost_table.count; i++)
		assert_in_manual(manual, &config_relayhost_table.keys[i]);
	for (size_t i = 0; i < config_route_table.count; i++)
		assert_in_manual(manual, &config_route_table.keys[i]);
	free(manual);
}

/* The text of an item up to the next with a text of its own. */
static void assert_default_in_manual(const char *manual, const struct config_key *key)
{
	char item[128], number[128], quoted[160];
	const char *at, *end;
	struct slice text;

	snprintf(item, sizeof(item), "\n.It Ic %s", key->path);
	at = strstr(manual, item);
	assert_non_null(at);
	at = strstr(at + 1, "\nDefault:");
	assert_non_null(at);
	end = strstr(at, "\n.It");
	text = slice_of(at, end ? (size_t)(end - at) : strlen(at));
	snprintf(number, sizeof(number), "Default: %s", key->preset);
	snprintf(quoted, sizeof(quoted), " %s", key->preset);
	if (!memmem(text.ptr, text.len, number, strlen(number)) && !memmem(text.ptr, text.len, quoted, strlen(quoted)))
		fail_msg("the manual does not tell the default of %s, %s", key->path, key->preset);
}

static void the_manual_tells_the_defaults(void **state)
{
	size_t len;
	char *manual = read_whole("config/relayd.yaml.5", &len);

	(void)state;
	for (size_t i = 0; i < config_root_table.count; i++)
		if (config_root_table.keys[i].preset)
			assert_default_in_manual(manual, &config_root_table.keys[i]);
	free(manual);
}

/* ---- The schema. */

/* SCHEMA=write in the environment writes it anew. */
static void the_schema_is_what_the_table_says(void **state)
{
	static const char path[] = "contrib/schema/relayd.schema.json";
	json_t *made = config_schema_json(), *stored;
	json_error_t error;

	(void)state;
	if (getenv("SCHEMA"))
		assert_int_equal(json_dump_file(made, path, JSON_INDENT(2)), 0);
	stored = json_load_file(path, 0, &error);
	if (!stored)
		fail_msg("%s: %s", path, error.text);
	if (!json_equal(made, stored))
		fail_msg("%s is not up to date: run this test with SCHEMA=write", path);
	json_decref(stored);
	json_decref(made);
}

static void every_word_has_a_name(void **state)
{
	(void)state;
	assert_string_equal(config_tls_level_name(CONFIG_TLS_VERIFY), "verify");
	assert_string_equal(config_tls_level_name(CONFIG_TLS_UNSET), "unset");
	assert_string_equal(config_oauth2_provider_name(CONFIG_OAUTH2_NONE), "none");
	assert_string_equal(config_oauth2_provider_name(CONFIG_OAUTH2_OTHER), "other");
	assert_string_equal(config_listen_tls_name(CONFIG_LISTEN_STARTTLS), "starttls");
	assert_string_equal(config_listen_auth_name(CONFIG_AUTH_OPTIONAL), "optional");
	assert_string_equal(config_bare_newlines_name(CONFIG_BARE_NORMALIZE), "normalize");
	assert_string_equal(config_tls_version_name(CONFIG_TLS_1_3), "1.3");
	assert_string_equal(config_relay_auth_name(CONFIG_RELAY_AUTH_XOAUTH2), "xoauth2");
	assert_string_equal(config_ip_name(CONFIG_IP_PREFER4), "prefer4");
	assert_string_equal(config_bounce_mode_name(CONFIG_BOUNCE_BOTH), "both");
	assert_string_equal(config_long_lines_name(CONFIG_LONG_LINES_REJECT), "reject");
	assert_string_equal(config_ephemeral_name(CONFIG_EPHEMERAL_WARN), "warn");
	assert_string_equal(config_unsigned_name(CONFIG_UNSIGNED_ALLOW), "allow");
	assert_string_equal(config_event_name(CONFIG_EVENT_ALERT), "alert");
	assert_string_equal(config_event_name((enum config_event)99), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_value_comes_with_its_origin),
	    cmocka_unit_test(as_json_too),
	    cmocka_unit_test(secrets_are_masked_in_json),
	    cmocka_unit_test(so_are_those_in_urls),
	    cmocka_unit_test(the_example_file_loads_as_it_is),
	    cmocka_unit_test(the_example_file_shows_every_setting),
	    cmocka_unit_test(what_is_printed_can_be_read_again),
	    cmocka_unit_test(the_manual_explains_every_setting),
	    cmocka_unit_test(the_manual_tells_the_defaults),
	    cmocka_unit_test(the_schema_is_what_the_table_says),
	    cmocka_unit_test(every_word_has_a_name),
	};
	return cmocka_run_group_tests_name("documents", tests, NULL, NULL);
}
