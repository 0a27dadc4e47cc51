/* relayd.yaml: what is taken, its defaults, and what is judged with the machine at hand. */
#include "base/base.h"
#include "support_config.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void everything_has_a_default(void **state)
{
	struct config *config = load_good("");

	(void)state;
	assert_string_equal(config->hostname, "relay.example.com");
	assert_string_equal(config->spool, "/var/spool/relayd");
	assert_string_equal(config->user, "relayd");
	assert_string_equal(config->users_file, "/etc/relayd/users");
	assert_null(config->account.name);
	assert_null(config->control_group);
	assert_int_equal(config->listener_count, 2);
	assert_string_equal(config->listeners[0].address.host, "127.0.0.1");
	assert_int_equal(config->listeners[0].address.port, 587);
	assert_int_equal(config->listeners[0].tls, CONFIG_LISTEN_STARTTLS);
	assert_int_equal(config->listeners[0].auth, CONFIG_AUTH_REQUIRED);
	assert_false(config->listeners[0].may_fail);
	assert_int_equal(config->listeners[1].address.family, AF_INET6);
	assert_true(config->listeners[1].may_fail);
	assert_int_equal(config->http.count, 1);
	assert_int_equal(config->http.items[0].port, 9587);
	assert_int_equal(config->limits.message_size_bytes, 25 * 1024 * 1024);
	assert_int_equal(config->limits.queue_bytes, INT64_C(10) << 30);
	assert_int_equal(config->limits.queue_messages, 1000000);
	assert_true(config->rewrite.keep_reply_to);
	assert_int_equal(config->dkim.unsigned_policy, CONFIG_UNSIGNED_REFUSE);
	assert_int_equal(config->relayhost_count, 0);
	assert_int_equal(config->delivery.port, 25);
	assert_int_equal(config->delivery.ip, CONFIG_IP_PREFER4);
	assert_int_equal(config->delivery.connect_timeout_ms, 30000);
	assert_false(config->dns.trust_ad);
	assert_int_equal(config->retry.expire_ms, 5 * INT64_C(86400000));
	assert_int_equal(config->retry.warn_after_ms, 4 * 3600000);
	for (size_t class = CLASS_NONE + 1; class < CLASS_COUNT; class ++)
		assert_true(config->retry.steps[class].count > 0);
	assert_int_equal(config->retry.steps[CLASS_GREYLIST].items[0], 310000);
	assert_int_equal(config->bounce.mode, CONFIG_BOUNCE_MAIL);
	assert_int_equal(config->webhook.events.count, 4);
	assert_int_equal(config->log.level, LOG_INFO);
	assert_int_equal(config->stop_timeout_ms, 10000);
	assert_int_equal(config->dedupe_window_ms, 0);
	assert_true(config->hide_client);
	assert_int_equal(config->helpers, 2);
	assert_int_equal(config->ephemeral_spool, CONFIG_EPHEMERAL_REFUSE);
	assert_true(config_uses_mx(config));
	config_free(&config);
	assert_null(config);
}

static void a_file_of_comments_is_empty(void **state)
{
	struct config *config = load_good("# nothing\n---\n# at all\n");

	(void)state;
	assert_int_equal(config->listener_count, 2);
	config_free(&config);
}

static void sections_and_lists_without_content_change_nothing(void **state)
{
	struct config *config = load_good("tls:\nlisten:\nrelayhosts:\nbcc:\nlimits:\n  # message_size: 1M\n");

	(void)state;
	assert_int_equal(config->listener_count, 2);
	config_free(&config);
}

static void listeners(void **state)
{
	struct config *config =
	    load_good("listen:\n"
		      "  - {address: '*:25', tls: off, auth: optional, trusted: [10.0.0.0/8, '::1']}\n"
		      "  - {address: '[::]:465', tls: implicit, bare_newlines: normalize}\n"
		      "  - {address: 127.0.0.1:2525, tls: off, allow_plaintext_auth: yes}\n");

	(void)state;
	assert_int_equal(config->listener_count, 3);
	assert_string_equal(config->listeners[0].address.host, "*");
	assert_int_equal(config->listeners[0].tls, CONFIG_LISTEN_OFF);
	assert_int_equal(config->listeners[0].trusted.count, 2);
	assert_int_equal(config->listeners[0].trusted.items[0].prefix_bits, 8);
	assert_int_equal(config->listeners[0].trusted.items[1].family, AF_INET6);
	assert_int_equal(config->listeners[1].tls, CONFIG_LISTEN_IMPLICIT);
	assert_int_equal(config->listeners[1].bare_newlines, CONFIG_BARE_NORMALIZE);
	assert_true(config->listeners[2].allow_plaintext_auth);
	assert_int_equal(config->listeners[2].origins[0].line, 4);
	config_free(&config);
}

static void one_value_may_stand_for_a_list(void **state)
{
	struct config *config = load_good("http: ['127.0.0.1:1', '127.0.0.1:2']\n"
					  "listen: [{address: '*:25', auth: optional, trusted: 10.0.0.0/8}]\n"
					  "dns: {servers: 127.0.0.1}\n");

	(void)state;
	assert_int_equal(config->http.count, 2);
	assert_int_equal(config->listeners[0].trusted.count, 1);
	assert_int_equal(config->dns.servers.count, 1);
	assert_int_equal(config->dns.servers.items[0].port, 53);
	config_free(&config);
}

static void endpoints_become_texts(void **state)
{
	struct config *config = load_good("http: off\ndns: {servers: [127.0.0.1, '[2001:db8::1]:5353']}\n");
	const char **texts = config_endpoint_texts(&config->dns.servers);

	(void)state;
	assert_string_equal(texts[0], "127.0.0.1:53");
	assert_string_equal(texts[1], "[2001:db8::1]:5353");
	free(texts);
	free(config_endpoint_texts(&config->http));
	config_free(&config);
}

static void http_can_be_off(void **state)
{
	static const char *const texts[] = {"http: off\n", "http: []\n", "http: ''\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct config *config = load_good(texts[i]);
		assert_int_equal(config->http.count, 0);
		config_free(&config);
	}
}

static void relayhosts(void **state)
{
	struct config *config =
	    load_good("relayhosts:\n"
		      "  main: {address: smtp.example.net, username: app, password_file: /s, rate: 100/h}\n"
		      "  ses: {address: 'a.example.net:465', default: no, priority: 5, rewrites: []}\n"
		      "  odd: {address: 'b.example.net:2465', implicit: false, tls: required}\n");
	const struct config_relayhost *main_host = &config->relayhosts[0];

	(void)state;
	assert_int_equal(config->relayhost_count, 3);
	assert_string_equal(main_host->name, "main");
	assert_int_equal(main_host->address.port, 587);
	assert_false(main_host->implicit);
	assert_int_equal(main_host->tls, CONFIG_TLS_VERIFY);
	assert_string_equal(main_host->password.file, "/s");
	assert_int_equal(main_host->rate.count, 100);
	assert_true(main_host->is_default);
	assert_int_equal(main_host->rewrites.count, 2);
	assert_string_equal(main_host->rewrites.items[1], "Message-ID");
	assert_true(config->relayhosts[1].implicit);
	assert_false(config->relayhosts[1].is_default);
	assert_int_equal(config->relayhosts[1].rewrites.count, 0);
	assert_int_equal(config->relayhosts[1].priority, 5);
	assert_false(config->relayhosts[2].implicit);
	assert_ptr_equal(config_find_relayhost(config, SLICE("ses")), &config->relayhosts[1]);
	assert_null(config_find_relayhost(config, SLICE("se")));
	assert_false(config_uses_mx(config));
	config_free(&config);
}

static void routes(void **state)
{
	struct config *config =
	    load_good("relayhosts: {a: {address: a.example.net}, b: {address: b.example.net}}\n"
		      "routes:\n"
		      "  - {name: partners, to: ['*.example.org'], via: [b, a, mx], tls: required}\n"
		      "  - {from: '@x.example', user: [one, two], via: a}\n");

	(void)state;
	assert_int_equal(config->route_count, 2);
	assert_string_equal(config->routes[0].name, "partners");
	assert_int_equal(config->routes[0].to.items[0].kind, CONFIG_PATTERN_SUBDOMAINS);
	assert_int_equal(config->routes[0].via.count, 3);
	assert_int_equal(config->routes[0].via.items[0].kind, CONFIG_VIA_RELAYHOST);
	assert_int_equal(config->routes[0].via.items[0].relayhost, 1);
	assert_int_equal(config->routes[0].via.items[1].relayhost, 0);
	assert_int_equal(config->routes[0].via.items[2].kind, CONFIG_VIA_MX);
	assert_int_equal(config->routes[0].tls, CONFIG_TLS_REQUIRED);
	assert_string_equal(config->routes[1].name, "route 2");
	assert_int_equal(config->routes[1].tls, CONFIG_TLS_UNSET);
	assert_int_equal(config->routes[1].user.count, 2);
	assert_true(config_uses_mx(config));
	config_free(&config);
}

static void when_mail_goes_by_mx(void **state)
{
	static const struct {
		const char *text;
		bool uses_mx;
	} rows[] = {
	    {"relayhosts: {a: {address: a.example.net}}\n", false},
	    {"relayhosts: {a: {address: a.example.net, default: false}}\n", true},
	    {"relayhosts: {a: {address: a.example.net, default: false}}\nroutes: [{via: a}]\n", false},
	    {"relayhosts: {a: {address: a.example.net}}\nroutes: [{via: [a, mx], to: b.example}]\n", true},
	    {"relayhosts: {a: {address: a.example.net}}\nroutes: [{via: a}, {via: mx, to: b.example}]\n", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct config *config = load_good(rows[i].text);
		assert_int_equal(config_uses_mx(config), rows[i].uses_mx);
		config_free(&config);
	}
}

static void dkim_keys(void **state)
{
	struct config *config = load_good("dkim:\n  default: example.net\n  domains:\n"
					  "    example.com: {s1: /k1, s2: k2.pem}\n"
					  "    example.net.: /k3\n");
	char here[1024], wanted[1100];

	(void)state;
	assert_int_equal(config->dkim.domain_count, 2);
	assert_string_equal(config->dkim.domains[0].domain, "example.com");
	assert_int_equal(config->dkim.domains[0].key_count, 2);
	assert_string_equal(config->dkim.domains[0].keys[0].selector, "s1");
	assert_string_equal(config->dkim.domains[0].keys[0].key.file, "/k1");
	assert_non_null(getcwd(here, sizeof(here)));
	snprintf(wanted, sizeof(wanted), "%s/k2.pem", here);
	assert_string_equal(config->dkim.domains[0].keys[1].key.file, wanted);
	assert_string_equal(config->dkim.domains[1].domain, "example.net");
	assert_string_equal(config->dkim.domains[1].keys[0].selector, "default");
	assert_string_equal(config->dkim.default_domain, "example.net");
	config_free(&config);
}

static void a_class_without_a_list_uses_default_once_that_is_set(void **state)
{
	struct config *config = load_good("retry: {default: [7s], greylist: [1s, 2s]}\n");

	(void)state;
	assert_int_equal(config->retry.steps[CLASS_GREYLIST].count, 2);
	assert_int_equal(config->retry.steps[CLASS_OTHER].items[0], 7000);
	for (size_t class = CLASS_THROTTLE; class < CLASS_OTHER; class ++) {
		assert_int_equal(config->retry.steps[class].count, 1);
		assert_int_equal(config->retry.steps[class].items[0], 7000);
	}
	config_free(&config);
	config = load_good("retry: {greylist: [1s]}\n");
	assert_int_equal(config->retry.steps[CLASS_THROTTLE].count, 4);
	config_free(&config);
}

static void relative_paths_begin_at_the_folder_of_the_file(void **state)
{
	struct config_source source = {.file = "/etc/relayd/x.yaml", .default_hostname = "relay.example.com"};
	struct config_errors errors;
	struct config *config;

	(void)state;
	assert_int_equal(
	    config_load_text(&source, SLICE("tls: {certificate: relay.pem, key: /k}\nusers: ../u\n"), &config, &errors),
	    0);
	assert_string_equal(config->tls.certificate, "/etc/relayd/relay.pem");
	assert_string_equal(config->tls.key, "/k");
	assert_string_equal(config->users_file, "/etc/relayd/../u");
	assert_int_equal(config->files.count, 4);
	assert_string_equal(config->files.items[0], "/etc/relayd/x.yaml");
	config_free(&config);
}

static void values_are_text_as_written(void **state)
{
	struct config *config =
	    load_good("relayhosts: {a: {address: a.example.net, username: abcd$troll%\"x'#y, password_file: /p}}\n"
		      "routes: [{via: a, user: [null, ~, 'yes', 0x10]}]\n");

	(void)state;
	assert_string_equal(config->relayhosts[0].username, "abcd$troll%\"x'#y");
	assert_string_equal(config->routes[0].user.items[0], "null");
	assert_string_equal(config->routes[0].user.items[1], "~");
	assert_string_equal(config->routes[0].user.items[3], "0x10");
	config_free(&config);
}

/* ---- With the machine. */

static void delivery_by_mx_needs_a_full_name(void **state)
{
	static const char *const bad[] = {"vm", "localhost", "3f2a1b0c9d8e", "vm.local", "ip-10-0-0-1.ec2.internal"};
	static const char listen[] = "listen: [{address: '*:25', auth: optional, trusted: 10.0.0.0/8}]\n";
	char text[512], mistake[512];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct load_options options = {.check_files = true, .default_hostname = bad[i]};
		snprintf(mistake, sizeof(mistake),
			 "f: hostname is '%s', but mail that goes by MX needs this machine's full name in DNS, such as "
			 "relay.example.com: set hostname (or RELAYD_HOSTNAME), or a relayhost",
			 bad[i]);
		snprintf(text, sizeof(text), "%susers: ''\n", listen);
		assert_mistakes(text, &options, mistake, NULL);
		snprintf(text, sizeof(text), "%susers: ''\nrelayhosts: {a: {address: a.example.net}}\n", listen);
		assert_mistakes(text, &options, NULL);
	}
}

static void a_chosen_name_is_judged_less(void **state)
{
	static const struct load_options options = {.check_files = true, .default_hostname = "vm"};

	(void)state;
	assert_mistakes("hostname: relay.corp.internal\nusers: ''\nlisten: [{address: '*:25', auth: optional, trusted: "
			"10.0.0.0/8}]\n",
			&options, NULL);
	assert_mistakes(
	    "hostname: localhost\nusers: ''\nlisten: [{address: '*:25', auth: optional, trusted: 10.0.0.0/8}]\n",
	    &options,
	    "f:1:11: hostname is 'localhost', but mail that goes by MX needs this machine's full name in DNS, such "
	    "as relay.example.com: set hostname (or RELAYD_HOSTNAME), or a relayhost",
	    NULL);
}

#define NOBODY                                                                                                         \
	"f: nobody could submit mail: there are no users (add one with relayctl user add NAME, or RELAYD_USERNAME "    \
	"and RELAYD_PASSWORD), and no address is trusted (listen: trusted with auth: optional, or RELAYD_TRUSTED)"

static void somebody_must_be_able_to_submit(void **state)
{
	static const struct load_options options = {.check_files = true};

	(void)state;
	assert_mistakes("users: ''\n", &options, NOBODY, NULL);
	assert_mistakes("users: ''\nlisten: [{address: '*:25', tls: off, auth: optional}]\n", &options, NOBODY, NULL);
	assert_mistakes("users: ''\nlisten: [{address: '*:25', auth: optional, trusted: 10.0.0.0/8}]\n", &options,
			NULL);
}

static void a_strange_key_is_told_what_there_is(void **state)
{
	(void)state;
	assert_mistakes("dkim: {example.com: /etc/s1.pem}\n", NULL,
			"f:1:8: unknown key 'example.com'; there are unsigned, default, domains", NULL);
	assert_mistakes(
	    "relayhosts: {a: {address: 'a:587', tls: starttls}}\n", NULL,
	    "f:1:41: relayhosts.tls: 'starttls' is none of none, opportunistic, required, verify, dane; STARTTLS "
	    "or TLS from the first octet is `implicit`, false or true",
	    NULL);
	assert_mistakes("zzzzzzzzzz: 1\n", NULL, "f:1:1: unknown key 'zzzzzzzzzz'", NULL);
}

static void users_whom_no_listener_lets_in_cannot_submit(void **state)
{
	static const struct load_options options = {.check_files = true};
	char *users = make_file("users", "app:$b2$YJkb8RY1WqzaGg9kuIHuXGQq14SGf95Jc3ew1BmWR40=\n"), text[4096];

	(void)state;
	snprintf(text, sizeof(text), "users: %s\nlisten: [{address: '*:25', tls: off, auth: optional}]\n", users);
	assert_mistakes(text, &options,
			"f: nobody could submit mail: no listener lets users log in (tls: starttls, or "
			"allow_plaintext_auth: true), and no address is trusted",
			NULL);
	drop_file(users);
}

static void load_with_users(const char *content, bool check_users, const char *mistake)
{
	char *users = make_file("users", content), *file = make_file("relayd.yaml", "");
	char text[2048], wanted[2048];
	struct config_source source = {
	    .file = "f", .check_files = true, .check_users = check_users, .default_hostname = "relay.example.com"};
	struct config_errors errors;
	struct config *config;

	snprintf(text, sizeof(text), "users: %s\n", users);
	config_load_text(&source, slice_of_str(text), &config, &errors);
	if (mistake) {
		if (mistake[0] == ':')
			snprintf(wanted, sizeof(wanted), "%s%s", users, mistake);
		else
			snprintf(wanted, sizeof(wanted), "%s", mistake);
		assert_null(config);
		assert_string_equal(errors.items[0].text, wanted);
	} else {
		assert_non_null(config);
		config_free(&config);
	}
	drop_file(users);
	drop_file(file);
}

static void the_users_file_is_read_when_that_is_wanted(void **state)
{
	static const char one[] = "app:$b2$YJkb8RY1WqzaGg9kuIHuXGQq14SGf95Jc3ew1BmWR40=\n";

	(void)state;
	load_with_users(one, true, NULL);
	load_with_users("# nobody\n", true, NOBODY);
	load_with_users("# perhaps somebody\n", false, NULL);
	load_with_users("", false, NOBODY);
	load_with_users("app:geheim\n", false, NULL);
	load_with_users("app:geheim\n", true,
			":1:5: the secret begins with neither $argon2id$ nor $b2$: make it with relayctl user add");
}

static void the_default_users_file_may_be_missing(void **state)
{
	static const struct load_options options = {.check_files = true};
	struct config_errors errors;
	struct config *config;
	bool is_there = access("/etc/relayd/users", F_OK) == 0;

	(void)state;
	config = load_with("listen: [{address: '*:25', auth: optional, trusted: 10.0.0.0/8}]\n", &options, &errors);
	assert_non_null(config);
	assert_true((config->users_file != NULL) == is_there);
	assert_string_equal(config->files.items[config->files.count - 1], "/etc/relayd/users");
	config_free(&config);
	config = load_good("");
	assert_string_equal(config->users_file, "/etc/relayd/users");
	config_free(&config);
}

static void files_that_are_named_must_be_readable(void **state)
{
	static const struct load_options options = {.check_files = true};

	(void)state;
	assert_mistakes("tls: {certificate: /nowhere/c.pem}\nusers: /nowhere/users\n"
			"relayhosts: {a: {address: a.example.net, username: u, password_file: /nowhere/p}}\n"
			"dkim: {domains: {example.com: {s1: /nowhere/k.pem}}}\n",
			&options, "f:1:20: cannot read /nowhere/c.pem: No such file or directory",
			"f:2:8: /nowhere/users does not exist: `relayctl user add NAME` makes it",
			"f:3:70: cannot read /nowhere/p: No such file or directory",
			"f:4:36: cannot read /nowhere/k.pem: No such file or directory", NULL);
}

static void a_file_that_was_named_must_exist(void **state)
{
	struct config_source source = {.file = "/nowhere/relayd.yaml", .file_is_named = true};
	struct config_errors errors;
	struct config *config;

	(void)state;
	assert_int_equal(config_load(&source, &config, &errors), ERR_CONFIG);
	assert_string_equal(errors.items[0].text, "/nowhere/relayd.yaml: cannot open: No such file or directory");
	source.file_is_named = false;
	assert_int_equal(config_load(&source, &config, &errors), 0);
	assert_null(config->file);
	config_free(&config);
}

static void a_folder_is_no_file(void **state)
{
	struct config_source source = {.file = "/", .file_is_named = true};
	struct config_errors errors;
	struct config *config;

	(void)state;
	assert_int_equal(config_load(&source, &config, &errors), ERR_CONFIG);
	assert_string_equal(errors.items[0].text, "/: is not a regular file");
}

static void a_file_is_read_whole(void **state)
{
	char *path = make_file("relayd.yaml", "hostname: a.example.com\nrelayhots: {}\n");
	struct config_source source = {.file = path, .file_is_named = true};
	struct config_errors errors;
	struct config *config;
	char wanted[1200];

	(void)state;
	assert_int_equal(config_load(&source, &config, &errors), ERR_CONFIG);
	snprintf(wanted, sizeof(wanted), "%s:2:1: unknown key 'relayhots', did you mean 'relayhosts'?", path);
	assert_string_equal(errors.items[0].text, wanted);
	drop_file(path);
}

static void a_route_for_everything_hides_those_behind_it(void **state)
{
	struct config_errors errors;
	struct config *config = load_with("routes: [{via: mx}, {to: a.example, via: mx}]\n", NULL, &errors);

	(void)state;
	assert_non_null(config);
	assert_int_equal(errors.warning_count, 1);
	assert_true(errors.items[0].is_warning);
	assert_string_equal(errors.items[0].text,
			    "f:1:10: this route takes everything: those behind it are never reached");
	config_free(&config);
}

static void the_last_reference_frees(void **state)
{
	struct config *config = load_good(""), *second = config_ref(config);

	(void)state;
	config_free(&config);
	assert_string_equal(second->spool, "/var/spool/relayd");
	config_free(&second);
	config_free(&second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(everything_has_a_default),
	    cmocka_unit_test(a_file_of_comments_is_empty),
	    cmocka_unit_test(sections_and_lists_without_content_change_nothing),
	    cmocka_unit_test(listeners),
	    cmocka_unit_test(one_value_may_stand_for_a_list),
	    cmocka_unit_test(endpoints_become_texts),
	    cmocka_unit_test(http_can_be_off),
	    cmocka_unit_test(relayhosts),
	    cmocka_unit_test(routes),
	    cmocka_unit_test(when_mail_goes_by_mx),
	    cmocka_unit_test(dkim_keys),
	    cmocka_unit_test(a_class_without_a_list_uses_default_once_that_is_set),
	    cmocka_unit_test(relative_paths_begin_at_the_folder_of_the_file),
	    cmocka_unit_test(values_are_text_as_written),
	    cmocka_unit_test(delivery_by_mx_needs_a_full_name),
	    cmocka_unit_test(a_chosen_name_is_judged_less),
	    cmocka_unit_test(somebody_must_be_able_to_submit),
	    cmocka_unit_test(a_strange_key_is_told_what_there_is),
	    cmocka_unit_test(users_whom_no_listener_lets_in_cannot_submit),
	    cmocka_unit_test(the_users_file_is_read_when_that_is_wanted),
	    cmocka_unit_test(the_default_users_file_may_be_missing),
	    cmocka_unit_test(files_that_are_named_must_be_readable),
	    cmocka_unit_test(a_file_that_was_named_must_exist),
	    cmocka_unit_test(a_folder_is_no_file),
	    cmocka_unit_test(a_file_is_read_whole),
	    cmocka_unit_test(a_route_for_everything_hides_those_behind_it),
	    cmocka_unit_test(the_last_reference_frees),
	};
	return cmocka_run_group_tests_name("relayd.yaml", tests, NULL, NULL);
}
