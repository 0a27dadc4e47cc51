/* IP addresses: text, literals of mailboxes, kinds. */
#include "support_dns.h"

static struct dns_address parse(const char *text)
{
	struct dns_address address;

	if (!dns_address_parse(slice_of_str(text), &address))
		fail_msg("'%s' was refused", text);
	return address;
}

static void text_and_value_are_one(void **state)
{
	static const char *const texts[] = {"192.0.2.1", "0.0.0.0",	     "2001:db8::1",
					    "::",	 "::ffff:192.0.2.1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"};
	char text[DNS_ADDRESS_TEXT];
	struct dns_address none = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct dns_address address = parse(texts[i]);
		dns_address_format(&address, text);
		assert_string_equal(text, texts[i]);
	}
	dns_address_format(&none, text);
	assert_string_equal(text, "");
}

static void other_texts_are_no_addresses(void **state)
{
	static const char *const texts[] = {
	    "",		 "1.2.3",    "1.2.3.4.5", "1.2.3.256",
	    "01.2.3.4x", " 1.2.3.4", "1.2.3.4 ",  "2001:db8::1%eth0",
	    "[::1]",	 "::1::",    "localhost", "11111111111111111111111111111111111111111111111111111111"};
	struct dns_address address;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		if (dns_address_parse(slice_of_str(texts[i]), &address))
			fail_msg("'%s' was taken", texts[i]);
		assert_int_equal(address.family, 0);
	}
	assert_false(dns_address_parse(slice_of("1.2.3.4\0", 8), &address));
}

static void literals_have_brackets_and_a_tag_for_ipv6(void **state)
{
	static const char *const bad[] = {"",
					  "[",
					  "[]",
					  "192.0.2.1",
					  "[192.0.2.1",
					  "[2001:db8::1]",
					  "[IPv6:192.0.2.1]",
					  "[IPv6:]",
					  "[IPv6:2001:db8::1",
					  "[general:thing]",
					  "[ 192.0.2.1]"};
	struct dns_address address, expected = parse("2001:db8::1");

	(void)state;
	assert_true(dns_address_parse_literal(SLICE("[192.0.2.1]"), &address));
	assert_int_equal(address.family, DNS_IPV4);
	assert_true(dns_address_parse_literal(SLICE("[ipV6:2001:db8::1]"), &address));
	assert_true(dns_address_eq(&address, &expected));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (dns_address_parse_literal(slice_of_str(bad[i]), &address))
			fail_msg("'%s' was taken", bad[i]);
		assert_int_equal(address.family, 0);
	}
}

static void kinds_are_told_apart(void **state)
{
	static const struct {
		const char *text;
		enum dns_address_kind kind;
	} cases[] = {
	    {"192.0.2.1", DNS_ADDRESS_GLOBAL},
	    {"10.0.0.1", DNS_ADDRESS_GLOBAL},
	    {"126.255.255.255", DNS_ADDRESS_GLOBAL},
	    {"127.0.0.1", DNS_ADDRESS_LOOPBACK},
	    {"127.255.255.255", DNS_ADDRESS_LOOPBACK},
	    {"128.0.0.1", DNS_ADDRESS_GLOBAL},
	    {"0.0.0.0", DNS_ADDRESS_UNSPECIFIED},
	    {"0.1.2.3", DNS_ADDRESS_UNSPECIFIED},
	    {"169.254.169.254", DNS_ADDRESS_LINK_LOCAL},
	    {"169.253.0.1", DNS_ADDRESS_GLOBAL},
	    {"224.0.0.1", DNS_ADDRESS_MULTICAST},
	    {"239.255.255.255", DNS_ADDRESS_MULTICAST},
	    {"223.255.255.255", DNS_ADDRESS_GLOBAL},
	    {"240.0.0.1", DNS_ADDRESS_RESERVED},
	    {"255.255.255.255", DNS_ADDRESS_MULTICAST},
	    {"::", DNS_ADDRESS_UNSPECIFIED},
	    {"::1", DNS_ADDRESS_LOOPBACK},
	    {"::2", DNS_ADDRESS_GLOBAL},
	    {"fe80::1", DNS_ADDRESS_LINK_LOCAL},
	    {"febf::1", DNS_ADDRESS_LINK_LOCAL},
	    {"fec0::1", DNS_ADDRESS_GLOBAL},
	    {"fd00::1", DNS_ADDRESS_GLOBAL},
	    {"ff02::1", DNS_ADDRESS_MULTICAST},
	    {"2001:db8::1", DNS_ADDRESS_GLOBAL},
	    /* What the kernel would connect to counts. */
	    {"::ffff:127.0.0.1", DNS_ADDRESS_LOOPBACK},
	    {"::ffff:0.0.0.0", DNS_ADDRESS_UNSPECIFIED},
	    {"::ffff:192.0.2.1", DNS_ADDRESS_GLOBAL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct dns_address address = parse(cases[i].text);

		if (dns_address_kind(&address) != cases[i].kind)
			fail_msg("%s: %s", cases[i].text, dns_address_kind_name(dns_address_kind(&address)));
	}
}

static void mapped_addresses_equal_the_inner_one(void **state)
{
	struct dns_address v4 = parse("192.0.2.1"), mapped = parse("::ffff:192.0.2.1"),
			   other = parse("::ffff:192.0.2.2"), v6 = parse("::192.0.2.1");

	(void)state;
	assert_true(dns_address_eq(&v4, &mapped));
	assert_true(dns_address_eq(&mapped, &v4));
	assert_false(dns_address_eq(&v4, &other));
	assert_false(dns_address_eq(&v4, &v6));
}

static void reverse_names(void **state)
{
	struct dns_address v4 = parse("192.0.2.130"), v6 = parse("2001:db8::567:89ab");
	char text[DNS_ADDRESS_REVERSE_TEXT];

	(void)state;
	dns_address_format_reverse(&v4, text);
	assert_string_equal(text, "130.2.0.192.in-addr.arpa");
	dns_address_format_reverse(&v6, text); /* the example of RFC 3596 */
	assert_string_equal(text, "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
}

static void own_addresses_are_of_interfaces_only(void **state)
{
	struct dns_address own[64];
	int count = dns_own_addresses(own, ARRAY_LEN(own));

	(void)state;
	assert_true(count >= 0);
	for (int i = 0; i < count; i++)
		assert_int_equal(dns_address_kind(&own[i]), DNS_ADDRESS_GLOBAL);
	assert_int_equal(dns_own_addresses(own, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(text_and_value_are_one),
	    cmocka_unit_test(other_texts_are_no_addresses),
	    cmocka_unit_test(literals_have_brackets_and_a_tag_for_ipv6),
	    cmocka_unit_test(kinds_are_told_apart),
	    cmocka_unit_test(mapped_addresses_equal_the_inner_one),
	    cmocka_unit_test(reverse_names),
	    cmocka_unit_test(own_addresses_are_of_interfaces_only),
	};

	return cmocka_run_group_tests_name("dns address", tests, NULL, NULL);
}
