/* Addresses and domains as routes, users and allowed recipients name them. */
#include "base/base.h"
#include "config/pattern.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct config_pattern parse(const char *written)
{
	static char texts[4][300];
	static unsigned next;
	struct config_pattern pattern;
	struct slice text;
	struct err why;
	char *copy = texts[next++ % 4];

	if (config_pattern_parse(slice_of_str(written), &pattern.kind, &text, &why) < 0)
		fail_msg("'%s' %s", written, why.text);
	slice_to_cstr(text, copy, 300);
	pattern.text = copy;
	return pattern;
}

static bool matches(const char *written, const char *address)
{
	struct config_pattern pattern = parse(written);

	return config_pattern_matches(&pattern, slice_of_str(address));
}

static void an_address(void **state)
{
	(void)state;
	assert_true(matches("user@example.com", "user@example.com"));
	assert_true(matches("user@example.com", "User@EXAMPLE.com"));
	assert_false(matches("user@example.com", "xuser@example.com"));
	assert_false(matches("user@example.com", "user@example.com.evil"));
	assert_false(matches("user@example.com", "@example.com"));
	assert_true(matches("\"a@b\"@example.com", "\"a@b\"@example.com"));
}

static void a_domain(void **state)
{
	(void)state;
	assert_true(matches("@example.com", "user@example.com"));
	assert_true(matches("example.com", "user@Example.Com"));
	assert_false(matches("@example.com", "user@a.example.com"));
	assert_false(matches("@example.com", "user@notexample.com"));
	assert_false(matches("@example.com", "example.com"));
	assert_false(matches("@example.com", ""));
	assert_false(matches("example.com", "user@example.com@other.example"));
	assert_true(matches("other.example", "user@example.com@other.example"));
}

static void subdomains(void **state)
{
	(void)state;
	assert_true(matches("*.example.com", "user@a.example.com"));
	assert_true(matches("*.example.com", "user@a.b.Example.com"));
	assert_true(matches("@*.example.com", "user@a.example.com"));
	assert_false(matches("*.example.com", "user@example.com"));
	assert_false(matches("*.example.com", "user@.example.com"));
	assert_false(matches("*.example.com", "user@notexample.com"));
	assert_false(matches("*.example.com", "a.example.com"));
}

static void everything_and_nothing(void **state)
{
	(void)state;
	assert_true(matches("*", "user@example.com"));
	assert_true(matches("*", ""));
	assert_true(matches("<>", ""));
	assert_false(matches("<>", "user@example.com"));
}

static void u_labels_are_compared_as_written(void **state)
{
	(void)state;
	assert_true(matches("@b\xc3\xbc"
			    "cher.example",
			    "user@b\xc3\xbc"
			    "cher.example"));
}

static void what_is_no_pattern(void **state)
{
	static const char *const bad[] = {"",
					  "@",
					  "*.",
					  "a b",
					  "a*@example.com",
					  "*@example.com",
					  "user@",
					  "<user@example.com>",
					  "user@*.example.com",
					  "example..com",
					  ".example.com",
					  "example.com.",
					  "a,b",
					  "**",
					  "@a@b c",
					  "ex*mple.com"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		enum config_pattern_kind kind;
		struct slice text;
		struct err why = {0};
		if (config_pattern_parse(slice_of_str(bad[i]), &kind, &text, &why) == 0)
			fail_msg("'%s' was taken", bad[i]);
		assert_string_equal(why.text, "is neither user@example.com nor @example.com nor *.example.com nor *");
	}
}

static void a_list_matches_when_one_does(void **state)
{
	struct config_pattern items[] = {parse("a@example.com"), parse("*.example.org")};
	struct config_patterns patterns = {ARRAY_LEN(items), items}, none = {0};

	(void)state;
	assert_true(config_patterns_match(&patterns, SLICE("b@x.example.org")));
	assert_false(config_patterns_match(&patterns, SLICE("b@example.com")));
	assert_false(config_patterns_match(&none, SLICE("b@example.com")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_address),
	    cmocka_unit_test(a_domain),
	    cmocka_unit_test(subdomains),
	    cmocka_unit_test(everything_and_nothing),
	    cmocka_unit_test(u_labels_are_compared_as_written),
	    cmocka_unit_test(what_is_no_pattern),
	    cmocka_unit_test(a_list_matches_when_one_does),
	};
	return cmocka_run_group_tests_name("patterns", tests, NULL, NULL);
}
