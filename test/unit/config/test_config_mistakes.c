/* Mistakes in a configuration: each is told with its place, in its words, and hides no other. */
#include "support_config.h"

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

/* One text, one line. */
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
    {"listen: 127.0.0.1:25\n", "f:1:9: listen wants a list of settings: - {address: ADDRESS:PORT, ...}"},
    {"listen: [127.0.0.1:25]\n", "f:1:10: listen wants a list of settings: - {address: ADDRESS:PORT, ...}"},
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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
	};
	return cmocka_run_group_tests_name("config, mistakes", tests, NULL, NULL);
}
