#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/buf.h"
#include "smtp/address_list.h"

/* The addresses joined by "|"; "!" at the end: what followed could not be read. */
static void expect(const char *body, const char *addresses)
{
	struct address_list list;
	struct address address;
	struct buf out;
	int rc;

	buf_init(&out, 10000);
	address_list_init(&list, slice_of_str(body));
	while ((rc = address_list_next(&list, &address)) == 1) {
		assert_int_equal(strlen(address.text), address.len);
		assert_true(!address.has_domain || address.text[address.local_len] == '@');
		buf_printf(&out, "%s%s", buf_len(&out) ? "|" : "", address.text);
	}
	if (rc < 0)
		buf_append_byte(&out, '!');
	if (!slice_eq(buf_slice(&out), slice_of_str(addresses)))
		fail_msg("%s\ncame:     %.*s\nexpected: %s", body, SLICE_ARG(buf_slice(&out)), addresses);
	buf_fini(&out);
}

static void ordinary_ones(void **state)
{
	(void)state;
	expect(" a@example.com", "a@example.com");
	expect(" Joe Doe <joe@example.com>", "joe@example.com");
	expect(" \"Doe, Joe\" <joe@example.com>, a@example.org\r\n", "joe@example.com|a@example.org");
	expect(" =?utf-8?Q?J=C3=B6rg?= <j@example.com>", "j@example.com");
	expect(" J\xc3\xb6rg <j@m\xc3\xbcller.example>", "j@m\xc3\xbcller.example");
	expect(" root (Cron Daemon)", "root");
	expect(" a@example.com (a (nested \\) one) here)", "a@example.com");
	expect(" <a@[192.0.2.1]>, <b@[IPv6:2001:db8::1]>", "a@[192.0.2.1]|b@[IPv6:2001:db8::1]");
	expect("", "");
	expect(" \r\n\t ", "");
}

static void folded_and_obsolete_ones(void **state)
{
	(void)state;
	expect(" Joe\r\n\t<joe\r\n @ example . com\r\n >", "joe@example.com");
	expect(" a . b (x) @ example (y) . com", "a.b@example.com");
	expect(" <@one.example,@two.example:a@example.com>", "a@example.com");
	expect(" \"a\".\"b\"@example.com", "a.b@example.com");
	expect(" \"a b\"@example.com", "\"a b\"@example.com");
	expect(" \"a\\\"b\"@example.com", "\"a\\\"b\"@example.com");
	expect(" \"a\r\n b\" <c@example.com>", "c@example.com");
}

/* Which of two is the author? Receivers differ, so whoever may write as one could write as the other. */
static void two_addresses_in_angle_brackets_are_none(void **state)
{
	(void)state;
	expect(" <boss@victim.example> <me@example.com>", "!");
	expect(" Boss <boss@victim.example> Me <me@example.com>, a@example.org", "!");
	expect(" <boss@victim.example<me@example.com>>", "!");
	expect(" a@example.org, <boss@victim.example> <me@example.com>", "a@example.org!");
	/* What stands in the first is no address, but part of a name. */
	expect(" Acme <Sales> <sales@example.com>", "sales@example.com");
	expect(" boss@example.org <me@example.com>", "me@example.com");
}

static void groups(void **state)
{
	(void)state;
	expect(" Team: a@example.com, B <b@example.com>;, c@example.org", "a@example.com|b@example.com|c@example.org");
	expect(" undisclosed-recipients:;", "");
	expect(" A:;,B: x@example.com;", "x@example.com");
}

/* Readers may take the group's name for the only address. */
static void an_address_is_no_name_of_a_group(void **state)
{
	(void)state;
	expect(" <a@example.com> Group: b@example.com;", "!");
	expect(" a@example.com: b@example.com;", "!");
	expect(" x: <a@example.com>: b@example.com;", "!");
	expect(" \"a@example.com\": b@example.com;", "b@example.com");
	expect(" @ home: b@example.com;", "b@example.com");
}

static void what_stands_before_an_address_is_told(void **state)
{
	static const struct {
		const char *body, *other;
	} rows[] = {{" Joe <a@example.com>", ""},
		    {" \"b@example.com\" <a@example.com>", ""},
		    {" (b@example.com) <a@example.com>", ""},
		    {" b@example.com <a@example.com>", "b@example.com"},
		    {" Joe b@example.com <a@example.com>", "Joe b@example.com"},
		    {" <a@example.com> (b@example.com) \"b@example.com\" Joe", ""},
		    {" <a@example.com> Joe b@example.com ", "Joe b@example.com"},
		    {" b@example.com <a@example.com> c@example.com", "b@example.com <a@example.com> c@example.com"},
		    {" a@example.com", ""}};
	struct address_list list;
	struct address address;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		address_list_init(&list, slice_of_str(rows[i].body));
		assert_int_equal(address_list_next(&list, &address), 1);
		assert_string_equal(address.text, "a@example.com");
		assert_true(slice_eq(address.other, slice_of_str(rows[i].other)));
	}
}

static void what_mailers_get_wrong(void **state)
{
	(void)state;
	expect(" Acme, Inc. <a@example.com>", "Acme|a@example.com");
	expect(" Acme Goods, Inc. <a@example.com>", "a@example.com");
	expect(" joe@example.com <real@example.org>", "real@example.org");
	expect(" [Team] App <a@example.com>", "a@example.com");
	expect(" <<a@example.com>>", "a@example.com");
	expect(" a@example.com,", "a@example.com");
	expect(" , ,a@example.com;b@example.com", "a@example.com|b@example.com");
	expect(" a..b@example.com", "\"a..b\"@example.com");
	expect(" J.R. Doe <a@example.com>", "a@example.com");
	expect(" App <>", "");
	expect(" Some Body", "");
	expect(" M\xfcller <a@example.com>", "a@example.com");
}

static void what_cannot_be_read(void **state)
{
	(void)state;
	expect(" \"Joe <a@example.com>", "!");
	expect(" Joe (x <a@example.com>", "!");
	expect(" <a@example.com", "!");
	expect(" a@b@example.com", "!");
	expect(" a b@example.com", "!");
	expect(" a@example.com b", "!");
	expect(" a@", "!");
	expect(" a@-x", "!");
	expect(" @example.com", "!");
	expect(" <a@example.com,b@example.com>", "!");
	expect(" Joe <some words>", "!");
	expect(" a@[1.2.3.4", "!");
	expect(" \"a\x01\"@example.com", "!");
	expect(" x@example.com, \"y", "x@example.com!");
}

static void bare_names_say_where_the_domain_is_missing(void **state)
{
	struct slice body = SLICE(" Cron <root> (x), www");
	struct address_list list;
	struct address address;

	(void)state;
	address_list_init(&list, body);
	assert_int_equal(address_list_next(&list, &address), 1);
	assert_false(address.has_domain);
	assert_int_equal(address.spec_begin, 7);
	assert_int_equal(address.spec_end, 11);
	assert_true(slice_eq(address.raw, SLICE("Cron <root> (x)")));
	assert_int_equal(address_list_next(&list, &address), 1);
	assert_int_equal(address.spec_end, body.len);
	assert_int_equal(address_list_next(&list, &address), 0);
}

static void long_and_deep_ones(void **state)
{
	struct buf body;
	struct address_list list;
	struct address address;
	int count = 0;

	(void)state;
	buf_init(&body, 1 << 20);
	for (int i = 0; i < 5000; i++)
		buf_printf(&body, "%sNumber %d <user%d@example.com>", i ? ",\r\n " : "", i, i);
	address_list_init(&list, buf_slice(&body));
	while (address_list_next(&list, &address) == 1)
		count++;
	assert_int_equal(count, 5000);
	buf_clear(&body);
	for (int i = 0; i < 100000; i++)
		buf_append_byte(&body, '(');
	address_list_init(&list, buf_slice(&body));
	assert_int_equal(address_list_next(&list, &address), ERR_SYNTAX);
	buf_clear(&body);
	for (int i = 0; i < 2000; i++)
		buf_append_byte(&body, 'x');
	buf_append_str(&body, "@example.com");
	address_list_init(&list, buf_slice(&body));
	assert_int_equal(address_list_next(&list, &address), ERR_LIMIT);
	buf_fini(&body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ordinary_ones),
	    cmocka_unit_test(folded_and_obsolete_ones),
	    cmocka_unit_test(two_addresses_in_angle_brackets_are_none),
	    cmocka_unit_test(groups),
	    cmocka_unit_test(an_address_is_no_name_of_a_group),
	    cmocka_unit_test(what_stands_before_an_address_is_told),
	    cmocka_unit_test(what_mailers_get_wrong),
	    cmocka_unit_test(what_cannot_be_read),
	    cmocka_unit_test(bare_names_say_where_the_domain_is_missing),
	    cmocka_unit_test(long_and_deep_ones),
	};
	return cmocka_run_group_tests_name("smtp address list", tests, NULL, NULL);
}
