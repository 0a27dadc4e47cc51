/* Durations, sizes, rates, addresses and networks as people write them. */
#include "base/base.h"
#include "config/values.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static const char *text_of(struct buf *buf, char *out, size_t size)
{
	slice_to_cstr(buf_slice(buf), out, size);
	buf_fini(buf);
	return out;
}

static void durations(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
		const char *again;
	} good[] = {
	    {"0", 0, "0"},
	    {"0s", 0, "0"},
	    {"500ms", 500, "500ms"},
	    {"30s", 30000, "30s"},
	    {"10m", 600000, "10m"},
	    {"4h", 4 * 3600000, "4h"},
	    {"5d", 5 * INT64_C(86400000), "5d"},
	    {"2w", 14 * INT64_C(86400000), "14d"},
	    {"1h30m", 5400000, "1h30m"},
	    {"5m10s", 310000, "5m10s"},
	    {"90m", 5400000, "1h30m"},
	    {"1d1ms", 86400001, "1d1ms"},
	};
	static const char *const bad[] = {"",
					  "s",
					  "-1s",
					  "1",
					  "30 s",
					  "1.5h",
					  "10x",
					  "10S",
					  "10sm",
					  "1m1h",
					  "1m1m",
					  "1m10",
					  "ms",
					  " 1s",
					  "1s ",
					  "+1s",
					  "10MS",
					  "1h,",
					  "5y",
					  "99999999999999999999s",
					  "9223372036854775807d",
					  "9000000000000000s9223372036854775807ms"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		char again[64];
		int64_t ms = -1;
		struct buf buf;
		assert_int_equal(config_duration_parse(slice_of_str(good[i].text), &ms, NULL), 0);
		assert_int_equal(ms, good[i].ms);
		buf_init(&buf, 64);
		config_duration_format(ms, &buf);
		assert_string_equal(text_of(&buf, again, sizeof(again)), good[i].again);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err why = {0};
		int64_t ms;
		if (config_duration_parse(slice_of_str(bad[i]), &ms, &why) == 0)
			fail_msg("'%s' was taken", bad[i]);
		assert_true(why.text[0]);
	}
}

static void a_number_without_unit_is_told_the_units(void **state)
{
	struct err why;
	int64_t ms;

	(void)state;
	assert_int_equal(config_duration_parse(SLICE("30"), &ms, &why), ERR_SYNTAX);
	assert_string_equal(why.text, "has no unit: write 30s, 30m, 30h or 30d");
}

static void sizes(void **state)
{
	static const struct {
		const char *text;
		int64_t bytes;
		const char *again;
	} good[] = {{"0", 0, "0"},
		    {"1000", 1000, "1000"},
		    {"1024", 1024, "1K"},
		    {"25M", 25 * 1048576, "25M"},
		    {"25m", 25 * 1048576, "25M"},
		    {"10G", INT64_C(10) << 30, "10G"},
		    {"1T", INT64_C(1) << 40, "1T"},
		    {"1025K", 1049600, "1025K"}};
	static const char *const bad[] = {
	    "", "M", "25 M", "25MB", "25MiB", "-1", "1.5G", "25 apples", "9223372036854775808", "9007199254740993T"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		char again[64];
		int64_t bytes = -1;
		struct buf buf;
		assert_int_equal(config_size_parse(slice_of_str(good[i].text), &bytes, NULL), 0);
		assert_int_equal(bytes, good[i].bytes);
		buf_init(&buf, 64);
		config_size_format(bytes, &buf);
		assert_string_equal(text_of(&buf, again, sizeof(again)), good[i].again);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err why = {0};
		int64_t bytes;
		if (config_size_parse(slice_of_str(bad[i]), &bytes, &why) == 0)
			fail_msg("'%s' was taken", bad[i]);
		assert_true(why.text[0]);
	}
}

static void rates(void **state)
{
	static const struct {
		const char *text;
		int64_t count, per_ms;
		const char *again;
	} good[] = {{"100/h", 100, 3600000, "100/h"},
		    {"5/s", 5, 1000, "5/s"},
		    {"1/d", 1, 86400000, "1/d"},
		    {"100/10m", 100, 600000, "100/10m"},
		    {"60/60s", 60, 60000, "60/m"}};
	static const char *const bad[] = {"",	  "100",  "/h",	     "100/", "100/x", "100/hour", "0/h",
					  "1/ms", "1/0s", "1/500ms", "-1/h", "1/h/h", "100 / h",  "1.5/h"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		char again[64];
		struct config_rate rate;
		struct buf buf;
		assert_int_equal(config_rate_parse(slice_of_str(good[i].text), &rate, NULL), 0);
		assert_int_equal(rate.count, good[i].count);
		assert_int_equal(rate.per_ms, good[i].per_ms);
		buf_init(&buf, 64);
		config_rate_format(&rate, &buf);
		assert_string_equal(text_of(&buf, again, sizeof(again)), good[i].again);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct config_rate rate;
		if (config_rate_parse(slice_of_str(bad[i]), &rate, NULL) == 0)
			fail_msg("'%s' was taken", bad[i]);
	}
}

static void truth_values(void **state)
{
	bool value = false;

	(void)state;
	assert_int_equal(config_bool_parse(SLICE("Yes"), &value, NULL), 0);
	assert_true(value);
	assert_int_equal(config_bool_parse(SLICE("off"), &value, NULL), 0);
	assert_false(value);
	assert_int_equal(config_bool_parse(SLICE("1"), &value, NULL), ERR_SYNTAX);
	assert_int_equal(config_bool_parse(SLICE(""), &value, NULL), ERR_SYNTAX);
}

static void whole_numbers(void **state)
{
	int64_t value = 7;

	(void)state;
	assert_int_equal(config_int_parse(SLICE("65535"), 1, 65535, &value, NULL), 0);
	assert_int_equal(value, 65535);
	assert_int_equal(config_int_parse(SLICE("65536"), 1, 65535, &value, NULL), ERR_LIMIT);
	assert_int_equal(config_int_parse(SLICE("0"), 1, 65535, &value, NULL), ERR_LIMIT);
	assert_int_equal(config_int_parse(SLICE("1e3"), 1, 65535, &value, NULL), ERR_SYNTAX);
	assert_int_equal(config_int_parse(SLICE("99999999999999999999"), 1, 65535, &value, NULL), ERR_SYNTAX);
	assert_int_equal(value, 65535);
}

static const struct config_endpoint_rules listener = {.default_port = -1, .may_be_any = true, .may_be_zero = true};
static const struct config_endpoint_rules relayhost = {.default_port = 587, .may_be_name = true};

static void endpoints(void **state)
{
	static const struct {
		const struct config_endpoint_rules *rules;
		const char *text, *host;
		int family;
		unsigned port;
	} good[] = {
	    {&listener, "127.0.0.1:587", "127.0.0.1", AF_INET, 587},
	    {&listener, "[::1]:587", "::1", AF_INET6, 587},
	    {&listener, "*:25", "*", AF_UNSPEC, 25},
	    {&listener, "127.0.0.1:0", "127.0.0.1", AF_INET, 0},
	    {&relayhost, "smtp.example.net:465", "smtp.example.net", AF_UNSPEC, 465},
	    {&relayhost, "smtp.example.net", "smtp.example.net", AF_UNSPEC, 587},
	    {&relayhost, "smtp.example.net.:25", "smtp.example.net", AF_UNSPEC, 25},
	    {&relayhost, "[smtp.example.net]:25", "smtp.example.net", AF_UNSPEC, 25},
	    {&relayhost, "mail_server:25", "mail_server", AF_UNSPEC, 25},
	    {&relayhost, "localhost:25", "localhost", AF_UNSPEC, 25},
	    {&relayhost, "192.0.2.1", "192.0.2.1", AF_INET, 587},
	    {&relayhost, "[2001:db8::1]", "2001:db8::1", AF_INET6, 587},
	};
	static const struct {
		const struct config_endpoint_rules *rules;
		const char *text, *why;
	} bad[] = {
	    {&listener, "127.0.0.1", "has no port: write ADDRESS:PORT"},
	    {&listener, "::1:587", "is ambiguous: write an IPv6 address in brackets, [ADDRESS]:PORT"},
	    {&listener, "127.0.0.1:", "has no good port: a number from 1 to 65535 stands after the colon"},
	    {&listener, "127.0.0.1:65536", "has no good port: a number from 1 to 65535 stands after the colon"},
	    {&listener, "localhost:25", "is no address: write ADDRESS:PORT, *:PORT or [IPv6]:PORT, not a name"},
	    {&listener, "[::1:25", "is no address: write HOST:PORT or [IPv6]:PORT"},
	    {&listener, "[::1]25", "is no address: write HOST:PORT or [IPv6]:PORT"},
	    {&relayhost, "127.0.0.1:0", "has no good port: a number from 1 to 65535 stands after the colon"},
	    {&relayhost, "300.1.2.3:25", "names no host: write HOST:PORT, ADDRESS:PORT or [IPv6]:PORT"},
	    {&relayhost, "*:25", "names no host: write HOST:PORT, ADDRESS:PORT or [IPv6]:PORT"},
	    {&relayhost, "${HOST}:25", "names no host: write HOST:PORT, ADDRESS:PORT or [IPv6]:PORT"},
	    {&relayhost, "smtp://example.net", "has no good port: a number from 1 to 65535 stands after the colon"},
	    {&relayhost, ":25", "names no host: write HOST:PORT, ADDRESS:PORT or [IPv6]:PORT"},
	    {&relayhost, "-a.example.net:25", "names no host: write HOST:PORT, ADDRESS:PORT or [IPv6]:PORT"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct config_endpoint endpoint = {0};
		struct slice host = {0};
		struct err why;
		if (config_endpoint_parse(slice_of_str(good[i].text), good[i].rules, &endpoint, &host, &why) < 0)
			fail_msg("'%s' %s", good[i].text, why.text);
		assert_true(slice_eq(host, slice_of_str(good[i].host)));
		assert_int_equal(endpoint.family, good[i].family);
		assert_int_equal(endpoint.port, good[i].port);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct config_endpoint endpoint = {0};
		struct slice host;
		struct err why = {0};
		if (config_endpoint_parse(slice_of_str(bad[i].text), bad[i].rules, &endpoint, &host, &why) == 0)
			fail_msg("'%s' was taken", bad[i].text);
		assert_string_equal(why.text, bad[i].why);
	}
}

static void the_bytes_of_an_address(void **state)
{
	static const uint8_t v4[4] = {192, 0, 2, 1};
	struct config_endpoint endpoint = {0};
	struct slice host;

	(void)state;
	assert_int_equal(config_endpoint_parse(SLICE("192.0.2.1:25"), &relayhost, &endpoint, &host, NULL), 0);
	assert_memory_equal(endpoint.bytes, v4, 4);
	assert_int_equal(config_endpoint_parse(SLICE("[::1]:25"), &relayhost, &endpoint, &host, NULL), 0);
	assert_int_equal(endpoint.bytes[15], 1);
	assert_int_equal(endpoint.bytes[0], 0);
}

static bool contains(const char *network_text, const char *address)
{
	struct config_network network;
	uint8_t bytes[16];
	int family;

	assert_int_equal(config_network_parse(slice_of_str(network_text), &network, NULL), 0);
	assert_int_equal(config_address_parse(slice_of_str(address), &family, bytes), 0);
	return config_network_contains(&network, family, bytes);
}

static void networks(void **state)
{
	(void)state;
	assert_true(contains("10.0.0.0/8", "10.255.0.1"));
	assert_false(contains("10.0.0.0/8", "11.0.0.1"));
	assert_true(contains("192.168.4.0/22", "192.168.7.255"));
	assert_false(contains("192.168.4.0/22", "192.168.8.0"));
	assert_true(contains("192.0.2.1", "192.0.2.1"));
	assert_false(contains("192.0.2.1", "192.0.2.2"));
	assert_true(contains("0.0.0.0/0", "203.0.113.9"));
	assert_false(contains("0.0.0.0/0", "::1"));
	assert_true(contains("::1", "::1"));
	assert_true(contains("2001:db8::/33", "2001:db8:7fff::1"));
	assert_false(contains("2001:db8::/33", "2001:db8:8000::1"));
	assert_true(contains("::ffff:10.0.0.0/104", "10.1.2.3"));
	assert_true(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
	assert_false(contains("::/0", "::ffff:10.1.2.3"));
}

static void networks_that_are_none(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
	    {"10.0.0.1/8", "has bits set behind the first 8: did you mean 10.0.0.0/8, or /32 for this one address?"},
	    {"fe80::1/10", "has bits set behind the first 10: did you mean fe80::/10, or /128 for this one address?"},
	    {"10.0.0.0/33", "has no good number of bits after the slash: from 0 to 32"},
	    {"::/129", "has no good number of bits after the slash: from 0 to 128"},
	    {"10.0.0.0/", "has no good number of bits after the slash: from 0 to 32"},
	    {"localhost", "is no network: write ADDRESS or ADDRESS/BITS, such as 10.0.0.0/8 or ::1"},
	    {"10.0.0", "is no network: write ADDRESS or ADDRESS/BITS, such as 10.0.0.0/8 or ::1"},
	    {"", "is no network: write ADDRESS or ADDRESS/BITS, such as 10.0.0.0/8 or ::1"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct config_network network;
		struct err why = {0};
		assert_true(config_network_parse(slice_of_str(bad[i].text), &network, &why) < 0);
		assert_string_equal(why.text, bad[i].why);
	}
}

static void a_list_tells_whether_it_names_the_address_exactly(void **state)
{
	struct config_network items[2];
	struct config_networks networks = {2, items};
	uint8_t bytes[16];
	bool exactly = true;
	int family;

	(void)state;
	assert_int_equal(config_network_parse(SLICE("172.16.0.0/12"), &items[0], NULL), 0);
	assert_int_equal(config_network_parse(SLICE("172.17.0.1"), &items[1], NULL), 0);
	assert_int_equal(config_address_parse(SLICE("172.17.0.2"), &family, bytes), 0);
	assert_true(config_networks_contain(&networks, family, bytes, &exactly));
	assert_false(exactly);
	assert_int_equal(config_address_parse(SLICE("172.17.0.1"), &family, bytes), 0);
	assert_true(config_networks_contain(&networks, family, bytes, &exactly));
	assert_true(exactly);
	assert_int_equal(config_address_parse(SLICE("192.0.2.1"), &family, bytes), 0);
	assert_false(config_networks_contain(&networks, family, bytes, &exactly));
}

static void host_names(void **state)
{
	(void)state;
	assert_true(config_is_host_name(SLICE("a-b.example.com")));
	assert_true(config_is_host_name(SLICE("vm")));
	assert_false(config_is_host_name(SLICE("a_b.example.com")));
	assert_false(config_is_host_name(SLICE("-a.example.com")));
	assert_false(config_is_host_name(SLICE("a-.example.com")));
	assert_false(config_is_host_name(SLICE("a..b")));
	assert_false(config_is_host_name(SLICE(".a")));
	assert_false(config_is_host_name(SLICE("a.")));
	assert_false(config_is_host_name(SLICE("")));
	assert_true(config_is_fqdn(SLICE("relay.example.com")));
	assert_false(config_is_fqdn(SLICE("relay")));
	assert_false(config_is_fqdn(SLICE("localhost")));
	assert_false(config_is_fqdn(SLICE("localhost.localdomain")));
	assert_false(config_is_fqdn(SLICE("a.localhost")));
	assert_false(config_is_fqdn(SLICE("192.0.2.1")));
	assert_false(config_is_fqdn(SLICE("3f2a1b0c9d8e")));
}

static void labels_and_names_have_a_length(void **state)
{
	char name[300];

	(void)state;
	memset(name, 'a', sizeof(name));
	assert_true(config_is_host_name(slice_of(name, 63)));
	assert_false(config_is_host_name(slice_of(name, 64)));
	for (size_t i = 60; i < sizeof(name); i += 60)
		name[i] = '.';
	assert_true(config_is_host_name(slice_of(name, 253)));
	assert_false(config_is_host_name(slice_of(name, 254)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(durations),
	    cmocka_unit_test(a_number_without_unit_is_told_the_units),
	    cmocka_unit_test(sizes),
	    cmocka_unit_test(rates),
	    cmocka_unit_test(truth_values),
	    cmocka_unit_test(whole_numbers),
	    cmocka_unit_test(endpoints),
	    cmocka_unit_test(the_bytes_of_an_address),
	    cmocka_unit_test(networks),
	    cmocka_unit_test(networks_that_are_none),
	    cmocka_unit_test(a_list_tells_whether_it_names_the_address_exactly),
	    cmocka_unit_test(host_names),
	    cmocka_unit_test(labels_and_names_have_a_length),
	};
	return cmocka_run_group_tests_name("values", tests, NULL, NULL);
}
