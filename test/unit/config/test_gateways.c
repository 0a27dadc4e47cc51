/* Whom a listener trusts. */
#include "base/base.h"
#include "config/gateways.h"
#include "support_config.h"

#include <stdlib.h>

static const char route[] = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
			    "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
			    "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
static const char ipv6_route[] =
    "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 "
    "00000001 00000000 00000001     eth0\n"
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 "
    "00000001 00000000 00000003     eth0\n"
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff "
    "00000001 00000000 00200200       lo\n";

static void default_routes_lead_to_gateways(void **state)
{
	struct config_gateways gateways;
	static const uint8_t v4[4] = {172, 17, 0, 1};

	(void)state;
	config_gateways_parse(SLICE(route), SLICE(ipv6_route), &gateways);
	assert_int_equal(gateways.count, 2);
	assert_int_equal(gateways.items[0].family, AF_INET);
	assert_memory_equal(gateways.items[0].bytes, v4, 4);
	assert_int_equal(gateways.items[0].prefix_bits, 32);
	assert_int_equal(gateways.items[1].family, AF_INET6);
	assert_int_equal(gateways.items[1].bytes[0], 0xfe);
	assert_int_equal(gateways.items[1].bytes[15], 1);
	config_gateways_parse(SLICE("garbage\n\n0 0 0\n"), SLICE("x"), &gateways);
	assert_int_equal(gateways.count, 0);
}

static void more_gateways_than_there_is_room_for_are_no_harm(void **state)
{
	struct config_gateways gateways;
	struct buf text;

	(void)state;
	buf_init(&text, 65536);
	for (int i = 0; i < 100; i++)
		buf_append_str(&text, "eth0\t00000000\t010011AC\t0003\n");
	config_gateways_parse(buf_slice(&text), SLICE(""), &gateways);
	assert_int_equal(gateways.count, CONFIG_GATEWAYS_MAX);
	buf_fini(&text);
}

static bool trusts(const char *yaml, const char *client)
{
	struct config_gateways gateways;
	struct config *config = load_good(yaml);
	uint8_t bytes[16];
	int family;
	bool trusted;

	config_gateways_parse(SLICE(route), SLICE(ipv6_route), &gateways);
	assert_int_equal(config_address_parse(slice_of_str(client), &family, bytes), 0);
	trusted = config_trusts(&config->listeners[0], family, bytes, &gateways);
	config_free(&config);
	return trusted;
}

#define OPTIONAL(trusted) "listen: [{address: '*:25', auth: optional, trusted: [" trusted "]}]\n"

static void a_default_gateway_is_trusted_only_when_named_exactly(void **state)
{
	(void)state;
	assert_true(trusts(OPTIONAL("172.16.0.0/12"), "172.17.0.2"));
	assert_false(trusts(OPTIONAL("172.16.0.0/12"), "172.17.0.1"));
	assert_false(trusts(OPTIONAL("172.16.0.0/12"), "::ffff:172.17.0.1"));
	assert_true(trusts(OPTIONAL("172.16.0.0/12, 172.17.0.1"), "172.17.0.1"));
	assert_true(trusts(OPTIONAL("172.17.0.1/32"), "::ffff:172.17.0.1"));
	assert_false(trusts(OPTIONAL("'fe80::/10'"), "fe80::1"));
	assert_true(trusts(OPTIONAL("'fe80::/10'"), "fe80::2"));
	assert_true(trusts(OPTIONAL("'fe80::1'"), "fe80::1"));
}

static void nobody_else_is_trusted(void **state)
{
	(void)state;
	assert_false(trusts(OPTIONAL("172.16.0.0/12"), "192.0.2.1"));
	assert_false(trusts(OPTIONAL(""), "172.17.0.2"));
	assert_false(trusts("", "127.0.0.1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(default_routes_lead_to_gateways),
	    cmocka_unit_test(more_gateways_than_there_is_room_for_are_no_harm),
	    cmocka_unit_test(a_default_gateway_is_trusted_only_when_named_exactly),
	    cmocka_unit_test(nobody_else_is_trusted),
	};
	return cmocka_run_group_tests_name("trusted clients", tests, NULL, NULL);
}
