/* The environment: each setting's variable, the special ones, and what wins over what. */
#include "base/base.h"
#include "config/environ.h"
#include "config/keys.h"
#include "support_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ENVIRON(...) ((char *[]){__VA_ARGS__, NULL})

static struct config *load_env(const char *text, char *const *variables)
{
	struct load_options options = {.environ = variables};
	struct config_errors errors;
	struct config *config = load_with(text, &options, &errors);

	if (!config)
		fail_msg("refused: %s", errors.items[0].text);
	return config;
}

static void assert_env_mistake(char *const *variables, const char *mistake)
{
	struct load_options options = {.environ = variables};

	assert_mistakes("", &options, mistake, NULL);
}

static void names_come_from_the_paths_of_settings(void **state)
{
	char name[CONFIG_VARIABLE_CHARS];
	const struct config_key *key;

	(void)state;
	key = config_key_find(&config_root_table, SLICE("limits.message_size"));
	assert_true(config_variable_name(&config_root_table, key, name));
	assert_string_equal(name, "RELAYD_LIMITS_MESSAGE_SIZE");
	key = config_key_find(&config_relayhost_table, SLICE("rate"));
	assert_true(config_variable_name(&config_relayhost_table, key, name));
	assert_string_equal(name, "RELAYD_RELAYHOST_RATE");
	key = config_key_find(&config_relayhost_table, SLICE("oauth2.client_id"));
	assert_true(config_variable_name(&config_relayhost_table, key, name));
	assert_string_equal(name, "RELAYD_OAUTH2_CLIENT_ID");
	key = config_key_find(&config_root_table, SLICE("headers.set"));
	assert_false(config_variable_name(&config_root_table, key, name));
	key = config_key_find(&config_root_table, SLICE("listen"));
	assert_false(config_variable_name(&config_root_table, key, name));
}

/* Each setting with a default, given that default by its variable, is taken and says where it is from. */
static void every_setting_has_its_variable(void **state)
{
	size_t tried = 0;

	(void)state;
	for (size_t i = 0; i < config_root_table.count; i++) {
		const struct config_key *key = &config_root_table.keys[i];
		char name[CONFIG_VARIABLE_CHARS], entry[512];
		struct config *config;
		if (!config_variable_name(&config_root_table, key, name) || !key->preset)
			continue;
		snprintf(entry, sizeof(entry), "%s=%s", name, key->preset);
		config = load_env("", ENVIRON(entry));
		assert_int_equal(config->origins[i].kind, CONFIG_FROM_VARIABLE);
		assert_string_equal(config->origins[i].variable, name);
		config_free(&config);
		tried++;
	}
	assert_true(tried > 40);
}

/* And no two settings share one. */
static void no_two_settings_share_a_variable(void **state)
{
	static const struct config_table *const tables[] = {&config_root_table, &config_relayhost_table};
	char names[256][CONFIG_VARIABLE_CHARS];
	size_t count = 0;

	(void)state;
	for (size_t t = 0; t < ARRAY_LEN(tables); t++)
		for (size_t i = 0; i < tables[t]->count; i++)
			if (config_variable_name(tables[t], &tables[t]->keys[i], names[count]))
				count++;
	assert_true(count < 256);
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(names[i], names[j]);
}

static void the_environment_wins_over_the_file(void **state)
{
	struct config *config = load_env("hostname: file.example.com\nspool: /file\nlimits: {recipients: 5}\n",
					 ENVIRON("RELAYD_HOSTNAME=env.example.com", "RELAYD_LIMITS_RECIPIENTS=7",
						 "RELAYD_LOG_FORMAT=json", "UNRELATED=1", "RELAYDX=1"));

	(void)state;
	assert_string_equal(config->hostname, "env.example.com");
	assert_string_equal(config->spool, "/file");
	assert_int_equal(config->limits.recipients, 7);
	assert_int_equal(config->log.format, LOG_JSON);
	config_free(&config);
}

static void an_empty_variable_is_not_set(void **state)
{
	struct config *config =
	    load_env("spool: /file\n", ENVIRON("RELAYD_SPOOL=", "RELAYD_RELAYHOST=", "RELAYD_XYZ="));

	(void)state;
	assert_string_equal(config->spool, "/file");
	config_free(&config);
}

static void lists_have_commas_or_blanks(void **state)
{
	struct config *config = load_env("", ENVIRON("RELAYD_DNS_SERVERS=127.0.0.1:53, [::1]:5353,",
						     "RELAYD_RETRY_CONNECT=1s 2s,3s", "RELAYD_HTTP=off"));

	(void)state;
	assert_int_equal(config->dns.servers.count, 2);
	assert_int_equal(config->dns.servers.items[1].port, 5353);
	assert_int_equal(config->retry.steps[CLASS_CONNECT].count, 3);
	assert_int_equal(config->http.count, 0);
	config_free(&config);
}

static void listeners(void **state)
{
	struct config *config = load_env(
	    "listen: [{address: '*:1'}]\n",
	    ENVIRON("RELAYD_LISTEN=0.0.0.0:587;tls=starttls;auth=required, "
		    "0.0.0.0:2525;tls=off;auth=optional;trusted=10.0.0.0/8 192.168.0.0/16,[::1]:465;tls=implicit"));

	(void)state;
	assert_int_equal(config->listener_count, 3);
	assert_int_equal(config->listeners[0].address.port, 587);
	assert_int_equal(config->listeners[0].auth, CONFIG_AUTH_REQUIRED);
	assert_int_equal(config->listeners[1].tls, CONFIG_LISTEN_OFF);
	assert_int_equal(config->listeners[1].trusted.count, 2);
	assert_int_equal(config->listeners[2].tls, CONFIG_LISTEN_IMPLICIT);
	config_free(&config);
}

static void trusted_sets_every_listener(void **state)
{
	struct config *config =
	    load_env("listen: [{address: '*:1', trusted: [192.0.2.0/24], auth: optional}, {address: '*:2'}]\n",
		     ENVIRON("RELAYD_TRUSTED=10.0.0.0/8,::1"));

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(config->listeners[i].auth, CONFIG_AUTH_OPTIONAL);
		assert_int_equal(config->listeners[i].trusted.count, 2);
		assert_int_equal(config->listeners[i].trusted.items[0].prefix_bits, 8);
	}
	config_free(&config);
	/* Whatever the order of the variables, and on the default listeners too. */
	config = load_env("", ENVIRON("RELAYD_TRUSTED=127.0.0.1", "RELAYD_LISTEN=127.0.0.1:25;auth=required"));
	assert_int_equal(config->listeners[0].auth, CONFIG_AUTH_OPTIONAL);
	config_free(&config);
	config = load_env("", ENVIRON("RELAYD_TRUSTED=127.0.0.1"));
	assert_int_equal(config->listener_count, 2);
	assert_int_equal(config->listeners[1].trusted.count, 1);
	config_free(&config);
}

static void one_user(void **state)
{
	struct config *config = load_env("", ENVIRON("RELAYD_USERNAME=app", "RELAYD_PASSWORD=geheim"));
	char *text;

	(void)state;
	assert_string_equal(config->account.name, "app");
	assert_int_equal(config_secret_read(&config->account.password, &text, NULL), 0);
	assert_string_equal(text, "geheim");
	config_secret_wipe(&text);
	config_free(&config);
	config = load_env("", ENVIRON("RELAYD_USERNAME=app", "RELAYD_PASSWORD_FILE=/run/secrets/x"));
	assert_string_equal(config->account.password.file, "/run/secrets/x");
	assert_null(config->account.password.value);
	config_free(&config);
}

static void one_relayhost(void **state)
{
	struct config *config = load_env("relayhosts: {a: {address: a.example.net}, b: {address: b.example.net}}\n",
					 ENVIRON("RELAYD_RELAYHOST_PASSWORD=pw", "RELAYD_RELAYHOST_USERNAME=app",
						 "RELAYD_RELAYHOST=smtp.example.net:465",
						 "RELAYD_RELAYHOST_TLS=required", "RELAYD_RELAYHOST_AUTH=login",
						 "RELAYD_RELAYHOST_RATE=100/h", "RELAYD_RELAYHOST_WEIGHT=3"));
	const struct config_relayhost *relayhost = config->relayhosts;

	(void)state;
	assert_int_equal(config->relayhost_count, 1);
	assert_string_equal(relayhost->name, "main");
	assert_string_equal(relayhost->address.host, "smtp.example.net");
	assert_true(relayhost->implicit);
	assert_int_equal(relayhost->tls, CONFIG_TLS_REQUIRED);
	assert_int_equal(relayhost->auth, CONFIG_RELAY_AUTH_LOGIN);
	assert_int_equal(relayhost->rate.count, 100);
	assert_int_equal(relayhost->weight, 3);
	assert_string_equal(relayhost->username, "app");
	assert_string_equal(relayhost->password.value, "pw");
	assert_null(relayhost->password.file);
	config_free(&config);
	config = load_env("", ENVIRON("RELAYD_RELAYHOST=a.example.net", "RELAYD_RELAYHOST_USERNAME=app",
				      "RELAYD_RELAYHOST_PASSWORD_FILE=/run/secrets/p"));
	assert_string_equal(config->relayhosts[0].password.file, "/run/secrets/p");
	config_free(&config);
}

static void the_relayhost_named_main_in_the_file_can_be_changed(void **state)
{
	struct config *config = load_env("relayhosts: {a: {address: a.example.net}, main: {address: b.example.net}}\n",
					 ENVIRON("RELAYD_RELAYHOST_RATE=5/s"));

	(void)state;
	assert_int_equal(config->relayhost_count, 2);
	assert_int_equal(config->relayhosts[1].rate.count, 5);
	assert_int_equal(config->relayhosts[0].rate.count, 0);
	config_free(&config);
}

static void oauth2(void **state)
{
	struct load_options options = {
	    .environ = ENVIRON("RELAYD_RELAYHOST=a.example.net", "RELAYD_RELAYHOST_USERNAME=app",
			       "RELAYD_OAUTH2_PROVIDER=google", "RELAYD_OAUTH2_CLIENT_ID=id",
			       "RELAYD_OAUTH2_CLIENT_SECRET=s", "RELAYD_OAUTH2_REFRESH_TOKEN_FILE=/t")};
	struct config_errors errors;
	struct config *config = load_with("", &options, &errors);

	(void)state;
	assert_non_null(config);
	assert_int_equal(config->relayhosts[0].oauth2.provider, CONFIG_OAUTH2_GOOGLE);
	assert_string_equal(config->relayhosts[0].oauth2.client_secret.value, "s");
	assert_string_equal(config->relayhosts[0].oauth2.refresh_token.file, "/t");
	config_free(&config);
}

#define PEM "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n"

static void one_signing_domain(void **state)
{
	struct config *config = load_env("dkim: {domains: {example.com: /file, example.net: /other}}\n",
					 ENVIRON("RELAYD_DKIM_DOMAIN=Example.com", "RELAYD_DKIM_KEY=" PEM));
	const struct config_dkim_domain *domain = &config->dkim.domains[0];

	(void)state;
	assert_int_equal(config->dkim.domain_count, 2);
	assert_int_equal(domain->key_count, 1);
	assert_string_equal(domain->keys[0].selector, "default");
	assert_string_equal(domain->keys[0].key.value, PEM);
	assert_string_equal(config->dkim.domains[1].keys[0].key.file, "/other");
	config_free(&config);
	config = load_env(
	    "", ENVIRON("RELAYD_DKIM_KEY_FILE=/k", "RELAYD_DKIM_SELECTOR=s1", "RELAYD_DKIM_DOMAIN=example.com"));
	assert_string_equal(config->dkim.domains[0].keys[0].key.file, "/k");
	assert_string_equal(config->dkim.domains[0].keys[0].selector, "s1");
	config_free(&config);
}

static void values_from_files(void **state)
{
	char *path = make_file("value", "relay.example.org\n"), entry[1200];
	struct config *config;

	(void)state;
	snprintf(entry, sizeof(entry), "RELAYD_HOSTNAME_FILE=%s", path);
	config = load_env("", ENVIRON(entry));
	assert_string_equal(config->hostname, "relay.example.org");
	assert_string_equal(config->origins[0].variable, "RELAYD_HOSTNAME_FILE");
	/* It is among the files that are watched. */
	assert_string_equal(config->files.items[1], path);
	config_free(&config);
	drop_file(path);
}

static void special_values_from_files(void **state)
{
	char *path = make_file("value", "127.0.0.1:2525;tls=off;allow_plaintext_auth=yes\r\n"), entry[1200];
	struct config *config;

	(void)state;
	snprintf(entry, sizeof(entry), "RELAYD_LISTEN_FILE=%s", path);
	config = load_env("", ENVIRON(entry));
	assert_int_equal(config->listeners[0].address.port, 2525);
	config_free(&config);
	drop_file(path);
}

static void assert_file_mistake(const char *variable, const char *content, const char *format_before,
				const char *format_after)
{
	char *path = make_file("value", content), entry[1200], wanted[1400];

	snprintf(entry, sizeof(entry), "%s=%s", variable, path);
	snprintf(wanted, sizeof(wanted), "%s: %s%s%s", variable, format_before ? format_before : "",
		 format_before ? path : "", format_after);
	assert_env_mistake(ENVIRON(entry), wanted);
	drop_file(path);
}

static void files_that_do_not_hold_a_value(void **state)
{
	(void)state;
	assert_env_mistake(ENVIRON("RELAYD_HOSTNAME_FILE=/nowhere"),
			   "RELAYD_HOSTNAME_FILE: cannot open /nowhere: No such file or directory");
	assert_file_mistake("RELAYD_HOSTNAME_FILE", "", "", " is empty");
	assert_file_mistake("RELAYD_HOSTNAME_FILE", "\n", "", " is empty");
	assert_file_mistake("RELAYD_HOSTNAME_FILE", "a\nb\n", "", " has more than one line");
	assert_file_mistake("RELAYD_HELPERS_FILE", "many\n", NULL, "the value is no whole number from 0 to 64");
	assert_file_mistake("RELAYD_TLS_KEY_FILE", PEM, NULL,
			    "the file holds no path; name the file itself with RELAYD_TLS_KEY");
	assert_file_mistake("RELAYD_USERS_FILE", "app:$b2$x\n", NULL,
			    "the file holds no path; name the file itself with RELAYD_USERS");
}

static const struct {
	const char *entry, *mistake;
} mistakes[] = {
    {"RELAYD_RELAYHOTS=x", "RELAYD_RELAYHOTS: unknown variable, did you mean RELAYD_RELAYHOST?"},
    {"RELAYD_MESSAGE_SIZE=1M", "RELAYD_MESSAGE_SIZE: unknown variable, did you mean RELAYD_LIMITS_MESSAGE_SIZE?"},
    {"RELAYD_RELAYHOST_PASWORD=x",
     "RELAYD_RELAYHOST_PASWORD: unknown variable, did you mean RELAYD_RELAYHOST_PASSWORD?"},
    {"RELAYD_XYZZY=1", "RELAYD_XYZZY: unknown variable, the nearest is RELAYD_SPOOL"},
    {"RELAYD_LIMIT_MESSAGE_SIZE=1M",
     "RELAYD_LIMIT_MESSAGE_SIZE: unknown variable, did you mean RELAYD_LIMITS_MESSAGE_SIZE?"},
    {"RELAYD_HOSTNAM_FILE=1M", "RELAYD_HOSTNAM_FILE: unknown variable, did you mean RELAYD_HOSTNAME?"},
    {"RELAYD_HEADERS_SET=A: b", "RELAYD_HEADERS_SET: unknown variable, the nearest is RELAYD_HEADERS_REMOVE"},
    {"RELAYD_LIMITS_RECIPIENTS=many", "RELAYD_LIMITS_RECIPIENTS: 'many' is no whole number from 1 to 100000"},
    {"RELAYD_BCC=a@example.com b", "RELAYD_BCC: 'b' is no mail address, such as user@example.com"},
    {"RELAYD_TRUSTED=0.0.0.0/0",
     "RELAYD_TRUSTED: 0.0.0.0/0 trusts everybody, which makes an open relay: name your own networks"},
    {"RELAYD_TRUSTED=all",
     "RELAYD_TRUSTED: 'all' is no network: write ADDRESS or ADDRESS/BITS, such as 10.0.0.0/8 or ::1"},
    {"RELAYD_LISTEN=:25", "RELAYD_LISTEN: ':25' is no address: write ADDRESS:PORT, *:PORT or [IPv6]:PORT, not a name"},
    {"RELAYD_LISTEN=127.0.0.1:25;tls=maybe", "RELAYD_LISTEN: 'maybe' is none of off, optional, starttls, implicit"},
    {"RELAYD_LISTEN=127.0.0.1:25;address=x",
     "RELAYD_LISTEN: 'address=x' is no option of a listener: tls=, auth=, trusted=, allow_plaintext_auth=, "
     "proxy_protocol=, bare_newlines="},
    {"RELAYD_LISTEN=127.0.0.1:25;off",
     "RELAYD_LISTEN: 'off' is no option of a listener: tls=, auth=, trusted=, allow_plaintext_auth=, proxy_protocol=, "
     "bare_newlines="},
    {"RELAYD_LISTEN=127.0.0.1:25;tls=off;tls=optional", "RELAYD_LISTEN: the option tls= stands twice"},
    {"RELAYD_USERNAME=app", "RELAYD_USERNAME: needs RELAYD_PASSWORD or RELAYD_PASSWORD_FILE beside it"},
    {"RELAYD_PASSWORD=x", "RELAYD_PASSWORD: needs RELAYD_USERNAME beside it"},
    {"RELAYD_RELAYHOST_TLS=none",
     "RELAYD_RELAYHOST_TLS: there is no relayhost named main: set RELAYD_RELAYHOST to HOST:PORT"},
    {"RELAYD_DKIM_DOMAIN=example.com",
     "RELAYD_DKIM_DOMAIN: needs RELAYD_DKIM_KEY_FILE (a path) or RELAYD_DKIM_KEY (the key) beside it"},
    {"RELAYD_DKIM_KEY=" PEM, "RELAYD_DKIM_KEY: needs RELAYD_DKIM_DOMAIN beside it"},
    {"RELAYD_DKIM_SELECTOR=s", "RELAYD_DKIM_SELECTOR: needs RELAYD_DKIM_DOMAIN beside it"},
};

static void each_mistake_names_its_variable(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(mistakes); i++) {
		char *entry = xstrdup(mistakes[i].entry);
		struct load_options options = {.environ = ENVIRON(entry)};
		struct config_errors errors;
		assert_null(load_with("", &options, &errors));
		assert_string_equal(errors.items[0].text, mistakes[i].mistake);
		free(entry);
	}
}

static void both_forms_at_once_are_refused(void **state)
{
	(void)state;
	assert_env_mistake(ENVIRON("RELAYD_SPOOL=/a", "RELAYD_SPOOL_FILE=/b"),
			   "RELAYD_SPOOL_FILE: RELAYD_SPOOL is set too: unset one of them");
	assert_env_mistake(ENVIRON("RELAYD_USERNAME=a", "RELAYD_PASSWORD_FILE=/a", "RELAYD_PASSWORD=b"),
			   "RELAYD_PASSWORD: RELAYD_PASSWORD_FILE is set too: unset one of them");
	assert_env_mistake(ENVIRON("RELAYD_RELAYHOST=a.example.net", "RELAYD_RELAYHOST_USERNAME=u",
				   "RELAYD_RELAYHOST_PASSWORD_FILE=/a", "RELAYD_RELAYHOST_PASSWORD=b"),
			   "RELAYD_RELAYHOST_PASSWORD: RELAYD_RELAYHOST_PASSWORD_FILE is set too: unset one of them");
}

static void a_user_name_must_be_one(void **state)
{
	(void)state;
	assert_env_mistake(ENVIRON("RELAYD_USERNAME=a b", "RELAYD_PASSWORD=x"),
			   "RELAYD_USERNAME: a name has no blanks, colons and control characters");
}

static void half_a_login_names_the_other_half(void **state)
{
	(void)state;
	assert_env_mistake(ENVIRON("RELAYD_RELAYHOST=a.example:587", "RELAYD_RELAYHOST_USERNAME=x"),
			   "RELAYD_RELAYHOST_USERNAME: username needs RELAYD_RELAYHOST_PASSWORD_FILE (a path) or "
			   "RELAYD_RELAYHOST_PASSWORD beside it");
	assert_env_mistake(ENVIRON("RELAYD_RELAYHOST=a.example:587", "RELAYD_RELAYHOST_PASSWORD=x"),
			   "RELAYD_RELAYHOST_PASSWORD: a password needs RELAYD_RELAYHOST_USERNAME beside it");
}

static void a_path_in_place_of_a_key_is_told(void **state)
{
	(void)state;
	assert_env_mistake(ENVIRON("RELAYD_DKIM_DOMAIN=example.com", "RELAYD_DKIM_KEY=/run/secrets/dkim"),
			   "RELAYD_DKIM_KEY: is no PEM text (-----BEGIN ...); for a path set RELAYD_DKIM_KEY_FILE");
}

static void secrets_stay_out_of_messages(void **state)
{
	char *const variables[] = {"RELAYD_RELAYHOST=a.example.net",
				   "RELAYD_RELAYHOST_PASSWORD=hunter2",
				   "RELAYD_USERNAME=a b",
				   "RELAYD_PASSWORD=hunter2",
				   "RELAYD_DKIM_DOMAIN=x_y",
				   "RELAYD_DKIM_KEY=hunter2",
				   NULL};
	struct load_options options = {.environ = variables};
	struct config_errors errors;

	(void)state;
	assert_null(load_with("", &options, &errors));
	assert_true(errors.error_count >= 2);
	for (size_t i = 0; i < errors.kept_count; i++)
		assert_null(strstr(errors.items[i].text, "hunter2"));
}

static void what_kubernetes_injects_is_passed_over(void **state)
{
	struct config *config = load_env(
	    "", ENVIRON("RELAYD_SERVICE_HOST=10.0.0.1", "RELAYD_SERVICE_PORT=587", "RELAYD_SERVICE_PORT_SMTP=587",
			"RELAYD_PORT=tcp://10.0.0.1:587", "RELAYD_PORT_587_TCP=tcp://10.0.0.1:587",
			"RELAYD_PORT_587_TCP_ADDR=10.0.0.1", "RELAYD_SMTP_SERVICE_HOST=10.0.0.1",
			"RELAYD_SMTP_PORT=tcp://10.0.0.1:25", "RELAYD_SMTP_PORT_25_TCP_PROTO=tcp"));

	(void)state;
	config_free(&config);
	assert_env_mistake(ENVIRON("RELAYD_SMTP_PORT=25"),
			   "RELAYD_SMTP_PORT: unknown variable, the nearest is RELAYD_SPOOL");
}

static void variables_of_others_are_known(void **state)
{
	struct config *config = load_env("", ENVIRON("RELAYD_SUBMIT=localhost:25", "RELAYD_SUBMIT_TLS=verify",
						     "RELAYD_SUBMIT_CA_FILE=/x", "RELAYD_CONFIG=/x"));

	(void)state;
	config_free(&config);
}

static void relayd_config_names_the_file(void **state)
{
	char *path = make_file("relayd.yaml", "hostname: a.example.com\n"), entry[1200];
	struct config_source source = {.environ = ENVIRON(entry)};
	struct config_errors errors;
	struct config *config;

	(void)state;
	snprintf(entry, sizeof(entry), "RELAYD_CONFIG=%s", path);
	assert_int_equal(config_load(&source, &config, &errors), 0);
	assert_string_equal(config->file, path);
	assert_string_equal(config->hostname, "a.example.com");
	config_free(&config);
	/* -c wins */
	source.file = "/nowhere/x";
	assert_int_equal(config_load(&source, &config, &errors), 0);
	assert_null(config->file);
	config_free(&config);
	/* named, so it must exist */
	source.file = NULL;
	snprintf(entry, sizeof(entry), "RELAYD_CONFIG=/nowhere/x");
	assert_int_equal(config_load(&source, &config, &errors), ERR_CONFIG);
	assert_string_equal(errors.items[0].text, "/nowhere/x: cannot open: No such file or directory");
	drop_file(path);
}

/* As the container image comes, and with what its notes tell people to set. */
static void the_container_image(void **state)
{
	struct config *config = load_env(
	    "", ENVIRON("RELAYD_LISTEN=0.0.0.0:587;tls=starttls;auth=required,0.0.0.0:2525;tls=off;auth=optional",
			"RELAYD_HTTP=0.0.0.0:9587", "RELAYD_HOSTNAME=relay.example.com", "RELAYD_USERNAME=app",
			"RELAYD_PASSWORD_FILE=/run/secrets/app", "RELAYD_RELAYHOST=smtp.example.net:587",
			"RELAYD_RELAYHOST_USERNAME=you@example.com",
			"RELAYD_RELAYHOST_PASSWORD_FILE=/run/secrets/upstream"));

	(void)state;
	assert_int_equal(config->listener_count, 2);
	assert_int_equal(config->http.items[0].port, 9587);
	config_free(&config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names_come_from_the_paths_of_settings),
	    cmocka_unit_test(every_setting_has_its_variable),
	    cmocka_unit_test(no_two_settings_share_a_variable),
	    cmocka_unit_test(the_environment_wins_over_the_file),
	    cmocka_unit_test(an_empty_variable_is_not_set),
	    cmocka_unit_test(lists_have_commas_or_blanks),
	    cmocka_unit_test(listeners),
	    cmocka_unit_test(trusted_sets_every_listener),
	    cmocka_unit_test(one_user),
	    cmocka_unit_test(one_relayhost),
	    cmocka_unit_test(the_relayhost_named_main_in_the_file_can_be_changed),
	    cmocka_unit_test(oauth2),
	    cmocka_unit_test(one_signing_domain),
	    cmocka_unit_test(values_from_files),
	    cmocka_unit_test(special_values_from_files),
	    cmocka_unit_test(files_that_do_not_hold_a_value),
	    cmocka_unit_test(each_mistake_names_its_variable),
	    cmocka_unit_test(both_forms_at_once_are_refused),
	    cmocka_unit_test(a_user_name_must_be_one),
	    cmocka_unit_test(half_a_login_names_the_other_half),
	    cmocka_unit_test(a_path_in_place_of_a_key_is_told),
	    cmocka_unit_test(secrets_stay_out_of_messages),
	    cmocka_unit_test(what_kubernetes_injects_is_passed_over),
	    cmocka_unit_test(variables_of_others_are_known),
	    cmocka_unit_test(relayd_config_names_the_file),
	    cmocka_unit_test(the_container_image),
	};
	return cmocka_run_group_tests_name("environment", tests, NULL, NULL);
}
