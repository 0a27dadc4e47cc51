#include "support_dkim.h"

#include "base/err.h"
#include "dkim/select.h"

#include <stdio.h>

static void assert_ascii(struct slice domain, const char *wanted)
{
	char out[DKIM_DOMAIN_MAX_BYTES + 1];

	assert_int_equal(dkim_domain_to_ascii(domain, out), 0);
	assert_string_equal(out, wanted);
}

static void domains_become_a_labels_in_lower_case(void **state)
{
	(void)state;
	assert_ascii(SLICE("Example.COM"), "example.com");
	assert_ascii(SLICE("example.com."), "example.com");
	assert_ascii(SLICE("my_host.example"), "my_host.example");
	assert_ascii(SLICE("localhost"), "localhost");
	assert_ascii(SLICE("b\xc3\xbc"
			   "cher.example"),
		     "xn--bcher-kva.example");
	assert_ascii(SLICE("B\xc3\x9c"
			   "CHER.example"),
		     "xn--bcher-kva.example");
	assert_ascii(SLICE("xn--bcher-kva.example"), "xn--bcher-kva.example");
	assert_ascii(SLICE("\xe4\xbe\x8b\xe3\x81\x88.\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88"), "xn--r8jz45g.xn--zckzah");
}

static void what_is_no_domain_is_refused(void **state)
{
	static const struct slice bad[] = {
	    {NULL, 0},
	    {".", 1},
	    {"..", 2},
	    {"a..b", 4},
	    {".a", 2},
	    {"a b", 3},
	    {"a\0b", 3},
	    {"[192.0.2.1]", 11},
	    {"a;b", 3},
	    {"a\r\nb", 4},
	    {"\xff.example", 9},	 /* not UTF-8 */
	    {"b\xc3\xbc\0.example", 12}, /* NUL behind a U-label */
	    {"b\xc3\xbc;x=1", 7},
	    {"b\xc3\xbc x", 5},
	    {"b\xc3\xbc..x", 6},
	    {"0123456789012345678901234567890123456789012345678901234567890123.example", 72}, /* a label of 64 */
	};
	char out[DKIM_DOMAIN_MAX_BYTES + 1], longest[300];
	(void)state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(dkim_domain_to_ascii(bad[i], out), ERR_SYNTAX);
	for (size_t i = 0; i < sizeof(longest); i++)
		longest[i] = i % 2 ? '.' : 'a';
	assert_int_equal(dkim_domain_to_ascii(slice_of(longest, 253), out), 0);
	assert_int_equal(dkim_domain_to_ascii(slice_of(longest, 255), out), ERR_SYNTAX);
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "\xc3\xbc", 2);
	assert_int_equal(dkim_domain_to_ascii(slice_of(longest, sizeof(longest)), out), ERR_SYNTAX);
}

static struct dkim_domains *some_domains(void)
{
	struct dkim_domains *domains = dkim_domains_new();

	assert_int_equal(dkim_domains_add(domains, SLICE("Example.com"), 1, NULL), 0);
	assert_int_equal(dkim_domains_add(domains, SLICE("deep.sub.example.com"), 2, NULL), 0);
	assert_int_equal(dkim_domains_add(domains,
					  SLICE("b\xc3\xbc"
						"cher.example"),
					  3, NULL),
			 0);
	return domains;
}

static void assert_finds(const struct dkim_domains *domains, const char *from, const char *wanted, uint32_t wanted_id)
{
	struct slice domain = {NULL, 0};
	uint32_t id = 0;

	assert_int_equal(dkim_domains_find(domains, slice_of_str(from), &domain, &id), wanted != NULL);
	if (!wanted)
		return;
	assert_true(slice_eq(domain, slice_of_str(wanted)));
	assert_int_equal(id, wanted_id);
}

static void exact_then_nearest_parent(void **state)
{
	struct dkim_domains *domains = some_domains();
	(void)state;

	assert_int_equal(dkim_domains_count(domains), 3);
	assert_finds(domains, "example.com", "example.com", 1);
	assert_finds(domains, "EXAMPLE.COM.", "example.com", 1);
	assert_finds(domains, "sub.example.com", "example.com", 1);
	assert_finds(domains, "deep.sub.example.com", "deep.sub.example.com", 2);
	assert_finds(domains, "a.b.deep.sub.example.com", "deep.sub.example.com", 2);
	assert_finds(domains,
		     "www.B\xc3\x9c"
		     "CHER.example",
		     "xn--bcher-kva.example", 3);
	assert_finds(domains, "badexample.com", NULL, 0);
	assert_finds(domains, "com", NULL, 0);
	assert_finds(domains, "example.org", NULL, 0);
	dkim_domains_free(&domains);
	assert_null(domains);
	dkim_domains_free(&domains);
}

static void the_default_takes_all_others(void **state)
{
	struct dkim_domains *domains = some_domains();
	(void)state;

	assert_int_equal(dkim_domains_set_default(domains, SLICE("example.net")), ERR_NOT_FOUND);
	assert_finds(domains, "example.net", NULL, 0);
	assert_int_equal(dkim_domains_set_default(domains, SLICE("EXAMPLE.com")), 0);
	assert_finds(domains, "example.net", "example.com", 1);
	assert_finds(domains, "", "example.com", 1);
	assert_finds(domains, "[192.0.2.1]", "example.com", 1);
	assert_finds(domains, "\xff\xff", "example.com", 1);
	assert_finds(domains, "deep.sub.example.com", "deep.sub.example.com", 2);
	dkim_domains_free(&domains);
}

static void a_domain_stands_once_and_is_one(void **state)
{
	struct dkim_domains *domains = some_domains();
	struct err err;
	(void)state;

	assert_int_equal(dkim_domains_add(domains, SLICE("EXAMPLE.com."), 9, &err), ERR_EXISTS);
	assert_string_equal(err.text, "domain 'example.com' stands twice");
	assert_int_equal(dkim_domains_add(domains, SLICE("xn--bcher-kva.example"), 9, &err), ERR_EXISTS);
	assert_int_equal(dkim_domains_add(domains, SLICE("not a domain"), 9, &err), ERR_SYNTAX);
	assert_string_equal(err.text, "'not a domain' is not a domain");
	assert_int_equal(dkim_domains_count(domains), 3);
	dkim_domains_free(&domains);
}

static void many_domains(void **state)
{
	struct dkim_domains *domains = dkim_domains_new();
	char name[64], from[80];
	(void)state;

	for (uint32_t i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "d%u.example", i);
		assert_int_equal(dkim_domains_add(domains, slice_of_str(name), i, NULL), 0);
	}
	for (uint32_t i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "d%u.example", i);
		snprintf(from, sizeof(from), "x.%s", name);
		assert_finds(domains, from, name, i);
	}
	dkim_domains_free(&domains);
}

static void selectors_and_domains_cannot_carry_tags(void **state)
{
	char longest[256];
	(void)state;

	memset(longest, 'a', sizeof(longest));
	assert_true(dkim_is_selector(SLICE("default")));
	assert_true(dkim_is_selector(SLICE("2024.march_A-1")));
	assert_true(dkim_is_selector(slice_of(longest, 63)));
	assert_false(dkim_is_selector(slice_of(longest, 64)));
	assert_false(dkim_is_selector(SLICE("")));
	assert_false(dkim_is_selector(SLICE("a.")));
	assert_false(dkim_is_selector(SLICE("s; d=evil.example")));
	assert_false(dkim_is_selector(SLICE("s\r\nX: y")));
	assert_false(dkim_is_selector(SLICE("\xc3\xa4")));
	assert_true(dkim_is_domain(SLICE("example.com")));
	assert_false(dkim_is_domain(SLICE("example.com.")));
	assert_false(dkim_is_domain(SLICE("example.com;")));
}

static void algorithms_have_the_names_of_the_registry(void **state)
{
	(void)state;
	assert_string_equal(dkim_algorithm_name(DKIM_RSA_SHA256), "rsa-sha256");
	assert_string_equal(dkim_algorithm_name(DKIM_ED25519_SHA256), "ed25519-sha256");
	assert_string_equal(dkim_algorithm_key_type(DKIM_RSA_SHA256), "rsa");
	assert_string_equal(dkim_algorithm_key_type(DKIM_ED25519_SHA256), "ed25519");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(domains_become_a_labels_in_lower_case),
	    cmocka_unit_test(what_is_no_domain_is_refused),
	    cmocka_unit_test(exact_then_nearest_parent),
	    cmocka_unit_test(the_default_takes_all_others),
	    cmocka_unit_test(a_domain_stands_once_and_is_one),
	    cmocka_unit_test(many_domains),
	    cmocka_unit_test(selectors_and_domains_cannot_carry_tags),
	    cmocka_unit_test(algorithms_have_the_names_of_the_registry),
	};
	return cmocka_run_group_tests_name("select", tests, NULL, NULL);
}
