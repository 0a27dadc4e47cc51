/* relayd.yaml: what is taken, and each kind of mistake with its place and words. */
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

/* ---- Mistakes. One text, one line. */

static const struct {
	const char *text, *mistake;
} mistakes[] = {
    /* unknown keys */
    {"relayhots: {}\n", "f:1:1: unknown key 'relayhots', did you mean 'relayhosts'?"},
    {"xyzzy: 1\n", "f:1:1: unknown key 'xyzzy'"},
    {"limits:\n  mesage_size: 1M\n", "f:2:3: unknown key 'mesage_size', did you mean 'message_size'?"},
    {"certificate: x\n", "f:1:1: unknown key 'certificate', did you mean 'tls.certificate'?"},
    {"limits.message_size: 1M\n", "f:1:1: unknown key 'limits.message_size'"},
    {"relayhosts: {a: {address: a.example.net, password: hunter2}}\n",
     "f:1:42: unknown key 'password', did you mean 'password_file'?"},
    {"listen: [{adress: '*:25'}, {address: '*:26'}]\n", "f:1:11: unknown key 'adress', did you mean 'address'?"},
    {"<<: {}\n", "f:1:1: unknown key '<<'"},
    /* values */
    {"limits:\n  message_size: 25 apples\n",
     "f:2:17: limits.message_size: '25 apples' is no size: write a number with K, M, G or T, such as 25M"},
    {"limits: {message_size: 1}\n", "f:1:24: limits.message_size: '1' is out of range: from 1K to 1G"},
    {"limits: {recipients: many}\n", "f:1:22: limits.recipients: 'many' is no whole number from 1 to 100000"},
    {"limits: {recipients: 0}\n", "f:1:22: limits.recipients: '0' is out of range: from 1 to 100000"},
    {"stop_timeout: 10\n", "f:1:15: stop_timeout: '10' has no unit: write 10s, 10m, 10h or 10d"},
    {"stop_timeout: 2h\n", "f:1:15: stop_timeout: '2h' is out of range: from 0 to 1h"},
    {"hide_client: maybe\n", "f:1:14: hide_client: 'maybe' is neither true nor false"},
    {"log: {format: xml}\n", "f:1:15: log.format: 'xml' is none of text, json"},
    {"hostname: a_b\n", "f:1:11: hostname: 'a_b' is no host name: letters, digits and hyphens between dots"},
    {"http: localhost:1\n",
     "f:1:7: http: 'localhost:1' is no address: write ADDRESS:PORT, *:PORT or [IPv6]:PORT, not a name"},
    {"retry: {greylist: [1s, soon]}\n",
     "f:1:24: retry.greylist: 'soon' is no duration: write a number with ms, s, m, h, d or w, such as 30s, 10m or 5d"},
    {"retry: {greylist: [500ms]}\n", "f:1:20: retry.greylist: '500ms' is out of range: from 1s to 30d"},
    {"retry: {connect: []}\n", "f:1:18: a list of waits has 1 to 32 of them"},
    {"delivery: {bind: [example.com]}\n", "f:1:19: delivery.bind: 'example.com' is no IP address"},
    {"hostname:\n", "f:1:10: hostname wants a value (\"\" for none)"},
    {"hostname: [a, b]\n", "f:1:11: hostname wants one plain value"},
    {"hostname: {a: b}\n", "f:1:11: hostname wants one plain value"},
    {"http: {a: b}\n", "f:1:7: http wants a list of plain values"},
    {"http: [[a]]\n", "f:1:8: http wants a plain value here"},
    {"limits: 25M\n", "f:1:9: limits wants settings: KEY: VALUE"},
    {"listen: 127.0.0.1:25\n", "f:1:9: listen wants a list: - {address: ADDRESS:PORT, ...}"},
    {"listen: [127.0.0.1:25]\n", "f:1:10: listen wants a list: - {address: ADDRESS:PORT, ...}"},
    {"relayhosts: [a]\n", "f:1:13: relayhosts wants names with settings: NAME: {address: HOST:PORT, ...}"},
    {"relayhosts: {a: b:25}\n", "f:1:17: relayhosts wants names with settings: NAME: {address: HOST:PORT, ...}"},
    {"routes: {a: b}\n", "f:1:9: routes wants a list: - {to: [...], via: [...]}"},
    {"dkim: {domains: [a]}\n", "f:1:17: dkim.domains wants domains with keys: DOMAIN: {SELECTOR: FILE}"},
    {"dkim: {domains: {example.com: {}}}\n", "f:1:31: dkim.domains wants domains with keys: DOMAIN: {SELECTOR: FILE}"},
    {"dkim: {domains: {example.com: {s1: [a]}}}\n", "f:1:36: dkim.domains wants the path of a key file here"},
    {"dkim: {domains: {example.com: {s_1: a}}}\n", "f:1:37: 's_1' is no selector: letters, digits, hyphens and dots"},
    {"dkim: {domains: {exa mple.com: {s1: a}}}\n", "f:1:18: 'exa mple.com' is no domain, such as example.com"},
    {"dkim: {domains: {example.com: '-----BEGIN PRIVATE KEY-----'}}\n",
     "f:1:31: dkim.domains wants the path of a key file, not the key"},
    {"spool: ''\n", "f:1:8: spool wants a folder"},
    /* missing */
    {"listen: [{tls: starttls}]\n", "f:1:10: a listener needs 'address'"},
    {"relayhosts: {a: {tls: verify}}\n", "f:1:14: a relayhost needs 'address'"},
    {"routes: [{to: a.example}]\n", "f:1:10: a route needs 'via'"},
    /* YAML */
    {"hostname: a\nhostname: b\n", "f:2:1: duplicate key 'hostname', first in line 1"},
    {"limits: {recipients: 1, recipients: 2}\n", "f:1:25: duplicate key 'recipients', first in line 1"},
    {"spool: &a /x\n", "f:1:8: a value that begins with '&' wants quotes (anchors are not supported)"},
    {"spool: *a\n", "f:1:8: a value that begins with '*' wants quotes (aliases are not supported)"},
    {"spool: !!str /x\n", "f:1:8: a value that begins with '!' wants quotes (tags are not supported)"},
    {"spool: !x\n", "f:1:8: a value that begins with '!' wants quotes (tags are not supported)"},
    {"http: *:25\n", "f:1:7: a value that begins with '*' wants quotes"},
    {"routes: [{via: mx, to: [*.example.org]}]\n", "f:1:25: a value that begins with '*' wants quotes"},
    {"routes: [{via: mx, to: [@example.org]}]\n", "f:1:25: a value that begins with '@' wants quotes"},
    {"redirect: `x\n", "f:1:11: a value that begins with '`' wants quotes"},
    {"redirect: %x\n", "f:1:11: a value that begins with '%' wants quotes"},
    {"limits:\n\trecipients: 1\n", "f:2:1: here is a tab: indent with blanks"},
    {"spool: a: b\n", "f:1:9: unexpected ':': a value with ': ' in it wants quotes, a key the right indentation"},
    {"limits: {recipients: 1\n", "f:2:1: not YAML: did not find expected ',' or '}' (while parsing a flow mapping that "
				 "begins in line 1)"},
    {"- a\n", "f:1:1: settings are wanted here: KEY: VALUE"},
    {"hello\n", "f:1:1: settings are wanted here: KEY: VALUE"},
    {"spool: /a\n---\nspool: /b\n", "f:2:1: a second document begins here: there is only one"},
    {"[a]: b\n", "f:1:1: a key is a plain word"},
    {"{a: b}: c\n", "f:1:1: a key is a plain word"},
    {"a: {b: {c: {d: {e: {f: {g: {h: i}}}}}}}\n", "f:1:1: unknown key 'a'"},
    {"a: {b: {c: {d: {e: {f: {g: {h: {}}}}}}}}\n", "f:1:32: more than 8 levels"},
    {"spool: \"/a\\nb\"\n", "f:1:8: a line break or control character in a value"},
    {"spool: |\n  /a\n  /b\n", "f:1:8: a line break or control character in a value"},
    {"spool: \"/a\\0b\"\n", "f:1:8: a line break or control character in a value"},
    /* octets */
    {"spool: /a\r\n", "f:1:10: here is a line that ends with CR LF: save the file with Unix line ends"},
    {"spool: /a\rb\n", "f:1:10: here is a CR character"},
    {"\xef\xbb\xbfspool: /a\n", "f:1:1: here is a byte order mark: save the file as UTF-8 without it"},
    {"# \x01\n", "f:1:3: here is a control character"},
    {"# \xc2\x85\n", "f:1:3: here is a control character"},
    {"spool: /a\n# \xff\n", "f:2:3: here is an octet that is no UTF-8"},
    {"# \xc3\xa9\xe9\n", "f:1:4: here is an octet that is no UTF-8"},
    {"# \xed\xa0\x80\n", "f:1:3: here is an octet that is no UTF-8"},
    {"# \xc3", "f:1:3: here is an octet that is no UTF-8"},
    /* what does not go together */
    {"listen: [{address: '*:25', trusted: [10.0.0.0/8]}]\n",
     "f:1:37: trusted does not go with auth: required; set auth: optional"},
    {"listen: [{address: '*:25', auth: optional, trusted: [0.0.0.0/0]}]\n",
     "f:1:53: 0.0.0.0/0 trusts everybody, which makes an open relay: name your own networks"},
    {"listen: [{address: '*:25', auth: optional, trusted: ['::/0']}]\n",
     "f:1:53: ::/0 trusts everybody, which makes an open relay: name your own networks"},
    {"listen: [{address: '*:25', auth: optional, trusted: ['::ffff:0.0.0.0/96']}]\n",
     "f:1:53: 0.0.0.0/0 trusts everybody, which makes an open relay: name your own networks"},
    {"listen: [{address: '*:25', auth: optional, trusted: [128.0.0.0/1]}]\n",
     "f:1:53: 128.0.0.0/1 trusts everybody, which makes an open relay: name your own networks"},
    {"listen: [{address: '*:25', auth: optional, trusted: [10.0.0.1/8]}]\n",
     "f:1:54: listen.trusted: '10.0.0.1/8' has bits set behind the first 8: did you mean 10.0.0.0/8, or /32 for this "
     "one "
     "address?"},
    {"listen: [{address: '*:25', tls: off}]\n",
     "f:1:33: nobody could log in here: AUTH needs TLS (tls: starttls) or allow_plaintext_auth: true"},
    {"listen: [{address: '127.0.0.1:25'}, {address: '127.0.0.1:25'}]\n",
     "f:1:47: another listener has the same address"},
    {"relayhosts: {a: {address: a.example.net, username: x}}\n", "f:1:52: username needs password_file"},
    {"relayhosts: {a: {address: a.example.net, password_file: /x}}\n", "f:1:57: a password needs username"},
    {"relayhosts: {a: {address: a.example.net, auth: plain}}\n",
     "f:1:48: auth: plain needs username and password_file"},
    {"relayhosts: {a: {address: a.example.net, auth: none, username: x, password_file: /x}}\n",
     "f:1:48: auth: none does not go with a username, a password or oauth2"},
    {"relayhosts: {a: {address: a.example.net, tls: none, username: x, password_file: /x}}\n",
     "f:1:47: with tls: none the password would cross the network in clear text: set tls: verify"},
    {"relayhosts: {a: {address: 'a.example.net:465', tls: none}}\n",
     "f:1:53: tls: none does not go with implicit TLS (the default on ports 465 and 2465)"},
    {"relayhosts: {a: {address: a.example.net, fingerprint: abcd}}\n",
     "f:1:55: relayhosts.fingerprint: 'abcd' is no SHA-256 fingerprint: 64 hexadecimal digits"},
    {"relayhosts: {a: {address: a.example.net, key: /k}}\n", "f:1:47: key needs certificate"},
    {"relayhosts: {a: {address: 192.0.2.1, tls: dane}}\n",
     "f:1:43: tls: dane needs the name of the host, not its address"},
    {"relayhosts: {a: {address: a.example.net, tls: none, certificate: /c}}\n",
     "f:1:66: with tls: none no certificate is shown"},
    {"relayhosts: {a b: {address: a.example.net}}\n",
     "f:1:14: 'a b' cannot name a relayhost: letters, digits, '-' and '_', at most 32, and not mx, discard or capture"},
    {"relayhosts: {mx: {address: a.example.net}}\n",
     "f:1:14: 'mx' cannot name a relayhost: letters, digits, '-' and '_', at most 32, and not mx, discard or capture"},
    {"relayhosts: {main: {address: a.example.net}}\nroutes: [{via: [mian]}]\n",
     "f:2:16: there is no relayhost 'mian', did you mean 'main'?"},
    {"routes: [{via: [nowhere]}]\n", "f:1:16: there is no relayhost 'nowhere'"},
    {"routes: [{via: []}]\n", "f:1:16: via is empty: name mx or a relayhost"},
    {"routes: [{name: a, to: b.example, via: mx}, {name: a, via: mx}]\n", "f:1:52: another route is named 'a'"},
    {"routes: [{to: a b, via: mx}]\n",
     "f:1:15: routes.to: 'a b' is neither user@example.com nor @example.com nor *.example.com nor *"},
    {"dkim: {domains: {example.com: /a, Example.COM: /b}}\n", "f:1:35: the domain 'Example.COM' stands twice"},
    {"dkim: {default: example.net, domains: {example.com: /a}}\n",
     "f:1:17: 'example.net' has no key: name it under dkim.domains"},
    {"tls: {key: /k}\n", "f:1:12: tls.key needs tls.certificate"},
    {"delivery: {bind: [192.0.2.1, 192.0.2.2]}\n", "f:1:18: delivery.bind takes one address of each family"},
    {"limits: {queue_bytes: 1M}\n", "f:1:23: limits.queue_bytes is less than limits.message_size"},
    /* not built yet */
    {"log: {level: loud}\n", "f:1:14: log.level: 'loud' is none of error, warn, info, debug"},
};

/* K10 */
static void each_mistake_has_its_place_and_its_words(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(mistakes); i++)
		assert_mistake(mistakes[i].text, mistakes[i].mistake);
}

/* K10 */
static void a_nul_is_told_its_place(void **state)
{
	static const char text[] = "spool: /a\nuser: b\0c\n";
	struct config_source source = {.file = "f", .default_hostname = "relay.example.com"};
	struct config_errors errors;
	struct config *config;

	(void)state;
	assert_int_equal(config_load_text(&source, slice_of(text, sizeof(text) - 1), &config, &errors), ERR_CONFIG);
	assert_string_equal(errors.items[0].text, "f:2:8: here is a NUL character");
}

static void all_mistakes_come_at_once_in_the_order_of_the_file(void **state)
{
	(void)state;
	assert_mistakes(
	    "routes: [{via: [x]}]\nfoo: 1\nlisten: [{address: 1, tls: 2, auth: 3}]\nlog: {level: 4}\nlimits: 5\n", NULL,
	    "f:1:16: there is no relayhost 'x', did you mean 'mx'?", "f:2:1: unknown key 'foo'",
	    "f:3:20: listen.address: '1' has no port: write ADDRESS:PORT",
	    "f:3:28: listen.tls: '2' is none of off, optional, starttls, implicit",
	    "f:3:37: listen.auth: '3' is none of required, optional",
	    "f:4:14: log.level: '4' is none of error, warn, info, debug", "f:5:9: limits wants settings: KEY: VALUE",
	    NULL);
}

static void a_refused_value_makes_no_second_mistake(void **state)
{
	(void)state;
	assert_mistakes("listen: [{address: '*:25', auth: optinal, trusted: [10.0.0.0/8]}]\n", NULL,
			"f:1:34: listen.auth: 'optinal' is none of required, optional", NULL);
	assert_mistakes("relayhosts: {a: {address: 'a:b:c', username: u, password_file: /p, tls: none}}\n", NULL,
			"f:1:27: relayhosts.address: 'a:b:c' is no address: write HOST:PORT or [IPv6]:PORT", NULL);
}

static void the_twenty_first_mistake_is_only_counted(void **state)
{
	char text[1024] = "";
	struct config_errors errors;
	size_t used = 0;

	(void)state;
	for (int i = 0; i < 30; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "zz%d: 1\n", i);
	assert_null(load_with(text, NULL, &errors));
	assert_int_equal(errors.error_count, 30);
	assert_int_equal(errors.kept_count, CONFIG_MISTAKES_MAX);
	assert_string_equal(errors.items[19].text, "f:20:1: unknown key 'zz19'");
}

/* K10 */
static void too_large_is_refused_unread(void **state)
{
	size_t len = 1024 * 1024 + 1;
	char *text = xmalloc(len + 1);

	(void)state;
	memset(text, '#', len);
	text[len] = '\0';
	assert_mistake(text, "f:1:1: the file is larger than 1 MiB");
	text[len - 1] = '\0';
	config_free(&(struct config *){load_good(text)});
	free(text);
}

static void too_many_values_are_refused(void **state)
{
	struct buf text;
	struct config_errors errors;

	(void)state;
	buf_init(&text, 1024 * 1024);
	buf_append_str(&text, "bcc: [");
	for (int i = 0; i < 60000; i++)
		buf_append_str(&text, "a,");
	buf_append_str(&text, "a]\n");
	buf_append_byte(&text, '\0');
	assert_null(load_with(buf_slice(&text).ptr, NULL, &errors));
	assert_non_null(strstr(errors.items[0].text, "more than 50000 values"));
	buf_fini(&text);
}

static void many_relayhosts_are_refused_not_forgotten(void **state)
{
	struct config_errors errors;
	struct buf text;

	(void)state;
	buf_init(&text, 1024 * 1024);
	buf_append_str(&text, "relayhosts:\n");
	for (int i = 0; i <= CONFIG_RELAYHOSTS_MAX; i++)
		buf_printf(&text, "  r%d: {address: a.example.net}\n", i);
	buf_append_byte(&text, '\0');
	assert_null(load_with(buf_slice(&text).ptr, NULL, &errors));
	assert_string_equal(errors.items[0].text, "f:2:3: relayhosts has 257 entries: at most 256");
	buf_fini(&text);
}

static void what_says_the_default_is_no_mistake(void **state)
{
	struct config *config = load_good("bcc: []\nredirect: ''\nsuppress: ''\ndedupe_window: 0s\n"
					  "rewrite: {keep_reply_to: yes}\nbounce: {mode: none, to: ''}\n"
					  "webhook: {url: '', events: [delivered, deferred, failed, alert]}\n");

	(void)state;
	config_free(&config);
}

static void oauth2_that_lacks_something(void **state)
{
	static const struct load_options options = {0};

	(void)state;
	assert_mistakes("relayhosts: {a: {address: a.example.net, auth: xoauth2}}\n", &options,
			"f:1:48: auth: xoauth2 needs oauth2: {provider: ...}", NULL);
	assert_mistakes("relayhosts: {a: {address: a.example.net, oauth2: {provider: other}}}\n", &options,
			"f:1:61: oauth2 needs username", "f:1:61: oauth2 needs client_id",
			"f:1:61: oauth2 needs client_secret_file or refresh_token_file",
			"f:1:61: oauth2 with provider: other needs token_url", NULL);
	assert_mistakes("relayhosts: {a: {address: a.example.net, username: u, oauth2: {provider: google, client_id: "
			"c, client_secret_file: /s}}}\n",
			&options, "f:1:74: oauth2 with provider: google needs refresh_token_file", NULL);
	assert_mistakes("relayhosts: {a: {address: a.example.net, username: u, oauth2: {provider: microsoft, "
			"client_id: c, client_secret_file: /s}}}\n",
			&options, "f:1:74: oauth2 with provider: microsoft and no refresh_token_file needs tenant",
			NULL);
	assert_mistakes("relayhosts: {a: {address: a.example.net, username: u, password_file: /p, oauth2: {provider: "
			"google, client_id: c, refresh_token_file: /r}}}\n",
			&options, "f:1:70: password_file does not go with oauth2", NULL);
	assert_mistakes("relayhosts: {a: {address: a.example.net, username: u, password_file: /p, auth: plain, oauth2: "
			"{provider: google, client_id: c, refresh_token_file: /r}}}\n",
			&options, "f:1:80: auth: plain does not go with oauth2: write auto, xoauth2 or oauthbearer",
			NULL);
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
	assert_mistakes("relayhosts: {a: {address: 'a:587', tls: starttls}}\n", NULL,
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
			"f:2:8: cannot read /nowhere/users: No such file or directory",
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
	    cmocka_unit_test(each_mistake_has_its_place_and_its_words),
	    cmocka_unit_test(a_nul_is_told_its_place),
	    cmocka_unit_test(all_mistakes_come_at_once_in_the_order_of_the_file),
	    cmocka_unit_test(a_refused_value_makes_no_second_mistake),
	    cmocka_unit_test(the_twenty_first_mistake_is_only_counted),
	    cmocka_unit_test(too_large_is_refused_unread),
	    cmocka_unit_test(too_many_values_are_refused),
	    cmocka_unit_test(many_relayhosts_are_refused_not_forgotten),
	    cmocka_unit_test(what_says_the_default_is_no_mistake),
	    cmocka_unit_test(oauth2_that_lacks_something),
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
