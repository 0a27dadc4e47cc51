/* Names between the wire and their text, hostile ones too. */
#include "support_dns.h"

#include <stdio.h>

static char out[DNS_NAME_MAX + 1];

static bool normalize(const char *text)
{
	return dns_name_normalize(slice_of_str(text), out);
}

static void expect_normal(const char *text, const char *expected)
{
	assert_true(normalize(text));
	assert_string_equal(out, expected);
}

static void names_become_lower_case_without_the_last_dot(void **state)
{
	(void)state;
	expect_normal("Example.ORG", "example.org");
	expect_normal("example.org.", "example.org");
	expect_normal("_25._tcp.MX-1.example.org", "_25._tcp.mx-1.example.org");
	expect_normal("", "");
	expect_normal(".", "");
}

/* H19 */
static void odd_octets_are_escaped_one_way_only(void **state)
{
	(void)state;
	expect_normal("a\\.b.c", "a\\.b.c");
	expect_normal("a\\046b.c", "a\\.b.c");
	expect_normal("a\\\\b", "a\\\\b");
	expect_normal("\\065bc", "abc");
	expect_normal("\\000\\255\\032", "\\000\\255\\032");
	expect_normal("a@b!c", "a\\064b\\033c");
}

static void impossible_names_are_refused(void **state)
{
	static const char *const bad[] = {"a..b", ".a",	   "..",    "a b",   "a\tb",  "a\nb",	      "\\",  "a\\",
					  "a\\2", "a\\25", "\\256", "\\999", "\\1x2", "h\xc3\xa9.fr", "\x7f"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (normalize(bad[i]))
			fail_msg("'%s' was taken", bad[i]);
		assert_string_equal(out, "");
	}
}

static void fill(char *text, size_t labels, size_t label_len)
{
	size_t at = 0;

	for (size_t i = 0; i < labels; i++) {
		memset(text + at, 'a', label_len);
		at += label_len;
		text[at++] = '.';
	}
	text[at - 1] = '\0';
}

static void labels_end_at_63_octets_and_names_at_255(void **state)
{
	char text[1024];

	(void)state;
	fill(text, 1, 63);
	assert_true(normalize(text));
	fill(text, 1, 64);
	assert_false(normalize(text));
	/* 127 labels of one octet are 254 octets, and the root. */
	fill(text, 127, 1);
	assert_true(normalize(text));
	fill(text, 128, 1);
	assert_false(normalize(text));
	/* 3 x 64 + 62 + the root */
	fill(text, 4, 63);
	text[3 * 64 + 61] = '\0';
	assert_true(normalize(text));
	assert_int_equal(strlen(out), DNS_HOST_MAX);
	fill(text, 4, 63);
	text[3 * 64 + 62] = '\0';
	assert_false(normalize(text));
}

static void the_longest_text_fits(void **state)
{
	char text[2048] = "";
	uint8_t wire[DNS_NAME_WIRE_MAX];
	size_t len = 0;

	(void)state;
	for (int i = 0; i < 250; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s\\200",
					i == 63 || i == 126 || i == 189 ? "." : "");
	assert_true(normalize(text));
	assert_int_equal(strlen(out), DNS_NAME_MAX);
	assert_int_equal(dns_name_write(out, wire), DNS_NAME_WIRE_MAX);
}

static void what_is_written_is_read_again(void **state)
{
	static const char *const names[] = {"", "org", "mx.example.org", "a\\.b.\\000\\255.c", "_25._tcp.a-b"};
	uint8_t wire[DNS_NAME_WIRE_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		size_t len = dns_name_write(names[i], wire), at = 0;

		assert_int_equal(dns_name_read(slice_of(wire, len), &at, out), 0);
		assert_string_equal(out, names[i]);
		assert_int_equal(at, len);
		/* Cut anywhere, it is no name. */
		for (size_t cut = 0; cut < len; cut++) {
			at = 0;
			assert_int_equal(dns_name_read(slice_of(wire, cut), &at, out), ERR_SYNTAX);
		}
	}
}

/* H15 */
static void pointers_lead_backwards_only(void **state)
{
	static const char packet[] = "\3org\0"	   /* 0 */
				     "\2mx\xc0\0"  /* 5: mx.org */
				     "\xc0\x05"	   /* 10: mx.org */
				     "\xc0\x0c"	   /* 12: itself */
				     "\xc0\x10"	   /* 14: forwards */
				     "\xc0\x0e"	   /* 16: back to the one that leads here */
				     "\1a\xc0\x12" /* 18: a.a.a... */
				     "\x40x"	   /* 22: reserved */
				     "\x80x"	   /* 24: reserved */
				     "\xc0";	   /* 26: half */
	struct slice p = slice_of(packet, sizeof(packet) - 1);
	static const struct {
		size_t at, end;
		const char *name;
	} cases[] = {{0, 5, "org"}, {5, 10, "mx.org"}, {10, 12, "mx.org"}, {12, 0, NULL}, {14, 0, NULL},
		     {16, 0, NULL}, {18, 0, NULL},     {22, 0, NULL},	   {24, 0, NULL}, {26, 0, NULL}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		size_t at = cases[i].at;
		int result = dns_name_read(p, &at, out);

		assert_int_equal(result, cases[i].name ? 0 : ERR_SYNTAX);
		if (cases[i].name) {
			assert_string_equal(out, cases[i].name);
			assert_int_equal(at, cases[i].end);
		}
	}
}

/* H15: Each two octets point to the two before them. */
static void long_chains_of_pointers_are_refused(void **state)
{
	static uint8_t packet[1002];
	struct slice p = slice_of(packet, sizeof(packet));
	size_t at;

	(void)state;
	packet[0] = 0;
	for (size_t i = 2; i + 1 < sizeof(packet); i += 2) {
		packet[i] = (uint8_t)(0xc0 | (i - 2) >> 8);
		packet[i + 1] = (uint8_t)(i - 2);
	}
	at = 100;
	assert_int_equal(dns_name_read(p, &at, out), 0);
	at = 1000;
	assert_int_equal(dns_name_read(p, &at, out), ERR_SYNTAX);
}

/* Many labels, put together by pointers so that their sum is over 255 octets. */
static void a_name_too_long_by_pointers_is_refused(void **state)
{
	uint8_t packet[400];
	size_t len = 0, starts[5], at;

	(void)state;
	for (int i = 0; i < 5; i++) {
		starts[i] = len;
		packet[len++] = 62;
		memset(packet + len, 'a', 62);
		len += 62;
		if (i == 0) {
			packet[len++] = 0;
		} else {
			packet[len++] = 0xc0;
			packet[len++] = (uint8_t)starts[i - 1];
		}
	}
	at = starts[3];
	assert_int_equal(dns_name_read(slice_of(packet, len), &at, out), 0);
	at = starts[4];
	assert_int_equal(dns_name_read(slice_of(packet, len), &at, out), ERR_SYNTAX);
}

static void hosts_are_what_may_be_connected_to(void **state)
{
	static const char *const good[] = {"localhost", "mx.example.org", "_dc-mx.1234.example.org",
					   "1.example", "a--b.c",	  "xn--bcher-kva.example",
					   "0x7f.1a"};
	static const char *const bad[] = {"",  "a\\.b.org",	 "-a.org", "a-.org", "a.-b",   "a.b-", "192.0.2.1",
					  "1", "example.org.25", "a..b",   "a b",    "MX.org", "."};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		if (!dns_name_is_host(good[i]))
			fail_msg("'%s' was refused", good[i]);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (dns_name_is_host(bad[i]))
			fail_msg("'%s' was taken", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names_become_lower_case_without_the_last_dot),
	    cmocka_unit_test(odd_octets_are_escaped_one_way_only),
	    cmocka_unit_test(impossible_names_are_refused),
	    cmocka_unit_test(labels_end_at_63_octets_and_names_at_255),
	    cmocka_unit_test(the_longest_text_fits),
	    cmocka_unit_test(what_is_written_is_read_again),
	    cmocka_unit_test(pointers_lead_backwards_only),
	    cmocka_unit_test(long_chains_of_pointers_are_refused),
	    cmocka_unit_test(a_name_too_long_by_pointers_is_refused),
	    cmocka_unit_test(hosts_are_what_may_be_connected_to),
	};

	return cmocka_run_group_tests_name("dns name", tests, NULL, NULL);
}
