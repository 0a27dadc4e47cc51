#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "smtp/syntax.h"

#define REPEAT64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static struct slice str(const char *text)
{
	return slice_of_str(text);
}

static void octets_and_utf8(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		bool good;
	} cases[] = {
	    {"", 0, true},
	    {"plain", 5, true},
	    {"\xc3\xbc", 2, true},
	    {"\xe2\x82\xac", 3, true},
	    {"\xf0\x9f\x98\x80", 4, true},
	    {"\xf4\x8f\xbf\xbf", 4, true},
	    {"\x80", 1, false},
	    {"\xc3", 1, false},
	    {"\xc0\x80", 2, false},
	    {"\xc1\xbf", 2, false},
	    {"\xe0\x9f\xbf", 3, false},
	    {"\xed\xa0\x80", 3, false},
	    {"\xed\xbf\xbf", 3, false},
	    {"\xf0\x8f\xbf\xbf", 4, false},
	    {"\xf4\x90\x80\x80", 4, false},
	    {"\xf5\x80\x80\x80", 4, false},
	    {"\xff", 1, false},
	    {"12345678\xc3", 9, false},
	    {"\xe2\x82", 2, false},
	    {"\xc3\x28", 2, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(smtp_is_utf8(slice_of(cases[i].text, cases[i].len)), cases[i].good);
	assert_true(smtp_is_atom(str("rfc822")));
	assert_false(smtp_is_atom(str("")));
	assert_false(smtp_is_atom(str("a.b")));
	assert_false(smtp_is_atom(slice_of("a\0b", 3)));
}

static void mailboxes_are_cut_at_the_right_at_sign(void **state)
{
	struct smtp_mailbox box;
	const char *why;

	(void)state;
	assert_int_equal(smtp_parse_mailbox(str("\"a@b\\\"c\"@example.com"), 0, &box, NULL), 0);
	assert_true(slice_eq(box.local, str("\"a@b\\\"c\"")));
	assert_true(slice_eq(box.domain, str("example.com")));
	assert_true(box.is_quoted && !box.is_literal && !box.is_utf8);
	assert_int_equal(smtp_parse_mailbox(str("a@[IPv6:::1]"), 0, &box, NULL), 0);
	assert_true(box.is_literal);
	assert_int_equal(smtp_parse_mailbox(str("a@b@c"), 0, &box, &why), ERR_SYNTAX);
	assert_int_equal(smtp_parse_mailbox(str("\xc3\xbc@b"), 0, &box, &why), ERR_UNSUPPORTED);
	assert_int_equal(smtp_parse_mailbox(str("\xc3\xbc@b"), SMTP_MAY_BE_UTF8, &box, &why), 0);
	assert_true(box.is_utf8);
	assert_int_equal(smtp_parse_mailbox(str("root"), 0, &box, &why), ERR_SYNTAX);
	assert_string_equal(why, "there is no @ and no domain");
	assert_int_equal(smtp_parse_mailbox(str("root"), SMTP_MAY_BE_BARE, &box, &why), 0);
	assert_int_equal(box.domain.len, 0);
	assert_int_equal(smtp_parse_mailbox(str("POSTMASTER"), 0, &box, &why), 0);
	/* 254 octets, and one more. */
	assert_int_equal(smtp_parse_mailbox(str("a@" REPEAT64), 0, &box, &why), ERR_SYNTAX);
	assert_int_equal(smtp_parse_mailbox(str(REPEAT64 REPEAT64 REPEAT64 REPEAT64 "@b"), 0, &box, &why), ERR_LIMIT);
}

static void every_octet_in_a_local_part(void **state)
{
	(void)state;
	for (int c = 0; c < 128; c++) {
		char plain[] = {'a', (char)c, 'b', '@', 'd'}, quoted[] = {'"', (char)c, '"', '@', 'd'};
		char escaped[] = {'"', '\\', (char)c, '"', '@', 'd'};
		struct smtp_mailbox box;
		bool is_atext = c && strchr("!#$%&'*+-/=?^_`{|}~.", c);
		bool is_text = c >= ' ' && c < 127;

		is_atext |= (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
		assert_int_equal(smtp_parse_mailbox(slice_of(plain, 5), 0, &box, NULL) == 0, is_atext);
		assert_int_equal(smtp_parse_mailbox(slice_of(quoted, 5), 0, &box, NULL) == 0,
				 is_text && c != '"' && c != '\\');
		assert_int_equal(smtp_parse_mailbox(slice_of(escaped, 6), 0, &box, NULL) == 0, is_text);
	}
}

static void paths(void **state)
{
	struct slice text = str("<@a,@b:\"x>y\"@d> SIZE=1");
	struct smtp_mailbox box;

	(void)state;
	assert_int_equal(smtp_parse_path(&text, 0, &box, NULL), 0);
	assert_true(slice_eq(box.address, str("\"x>y\"@d")));
	assert_true(slice_eq(text, str(" SIZE=1")));
	text = str("<>x");
	assert_int_equal(smtp_parse_path(&text, 0, &box, NULL), ERR_SYNTAX);
	text = str("<>x");
	assert_int_equal(smtp_parse_path(&text, SMTP_MAY_BE_EMPTY, &box, NULL), 0);
	assert_int_equal(box.address.len, 0);
	assert_true(slice_eq(text, str("x")));
	text = str("");
	assert_int_equal(smtp_parse_path(&text, SMTP_MAY_BE_EMPTY, &box, NULL), ERR_SYNTAX);
}

static void domains(void **state)
{
	static const struct {
		const char *text;
		unsigned flags;
		bool good;
	} cases[] = {
	    {"a", 0, true},
	    {"example.com", 0, true},
	    {"my_app", 0, true},
	    {"1.2.3.4", 0, true},
	    {"xn--mller-kva.example", 0, true},
	    {"", 0, false},
	    {".", 0, false},
	    {"a..b", 0, false},
	    {"a.", 0, false},
	    {".a", 0, false},
	    {"-a", 0, false},
	    {"a-", 0, false},
	    {"a-b", 0, true},
	    {"a b", 0, false},
	    {"a@b", 0, false},
	    {"m\xc3\xbcller.de", 0, false},
	    {"m\xc3\xbcller.de", SMTP_MAY_BE_UTF8, true},
	    {"m\xc3.de", SMTP_MAY_BE_UTF8, false},
	    {"[1.2.3.4]", 0, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		if (smtp_is_domain(str(cases[i].text), cases[i].flags) != cases[i].good)
			fail_msg("%s", cases[i].text);
}

static void address_literals(void **state)
{
	static const char *const good[] = {"[192.0.2.1]", "[IPv6:::]", "[ipv6:2001:DB8::1]", "[IPv6:::ffff:192.0.2.1]"};
	static const char *const bad[] = {
	    "[]",	   "[1.2.3]",	  "[1.2.3.4",  "1.2.3.4]",     "[1.2.3.4.5]",
	    "[256.1.1.1]", "[::1]",	  "[IPv6:]",   "[IPv6:::1::]", "[IPv6:1:2:3:4:5:6:7:8:9]",
	    "[x]",	   "[[1.2.3.4]]", "[1.2.3.4 ]"};
	struct buf out;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_true(smtp_is_address_literal(str(good[i])));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(smtp_is_address_literal(str(bad[i])));
	assert_false(smtp_is_address_literal(slice_of("[1.2.3.4\0]", 10)));
	buf_init(&out, 200);
	assert_int_equal(smtp_format_literal(&out, str("192.0.2.1")), 0);
	assert_int_equal(smtp_format_literal(&out, str("2001:db8::1")), 0);
	assert_int_equal(smtp_format_literal(&out, str("localhost")), ERR_SYNTAX);
	assert_int_equal(smtp_format_literal(&out, str("")), ERR_SYNTAX);
	assert_true(slice_eq(buf_slice(&out), str("[192.0.2.1][IPv6:2001:db8::1]")));
	buf_fini(&out);
}

static void formats_what_it_parses(void **state)
{
	static const struct {
		const char *local, *domain, *text;
	} cases[] = {
	    {"a.b", "d", "a.b@d"},
	    {"a b", "d", "\"a b\"@d"},
	    {"", "d", "\"\"@d"},
	    {"a..b", "d", "\"a..b\"@d"},
	    {".a", "d", "\".a\"@d"},
	    {"a\"\\", "d", "\"a\\\"\\\\\"@d"},
	    {"root", "", "root"},
	    {"a@b", "d", "\"a@b\"@d"},
	    {"\xc3\xbc", "d", "\xc3\xbc@d"},
	    {"\xc3\xbc x", "d", "\"\xc3\xbc x\"@d"},
	};
	struct buf out;

	(void)state;
	buf_init(&out, 300);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct smtp_mailbox box;
		struct slice local, domain;

		buf_clear(&out);
		assert_int_equal(smtp_format_mailbox(&out, str(cases[i].local), str(cases[i].domain)), 0);
		assert_true(slice_eq(buf_slice(&out), str(cases[i].text)));
		assert_int_equal(smtp_parse_mailbox(buf_slice(&out), SMTP_MAY_BE_UTF8 | SMTP_MAY_BE_BARE, &box, NULL),
				 0);
		assert_int_equal(smtp_split_address(buf_slice(&out), &local, &domain), cases[i].domain[0] != '\0');
		assert_true(slice_eq(local, box.local) && slice_eq(domain, box.domain));
	}
	buf_clear(&out);
	assert_int_equal(smtp_format_mailbox(&out, str("a\nb"), str("d")), ERR_SYNTAX);
	assert_int_equal(smtp_format_mailbox(&out, str("a\xff"), str("d")), ERR_SYNTAX);
	assert_int_equal(smtp_format_mailbox(&out, slice_of("a\0", 2), str("d")), ERR_SYNTAX);
	assert_int_equal(buf_len(&out), 0);
	assert_int_equal(smtp_format_path(&out, str("")), 0);
	assert_int_equal(smtp_format_path(&out, str("a@b")), 0);
	assert_true(slice_eq(buf_slice(&out), str("<><a@b>")));
	assert_false(smtp_split_address(str("\"a@b\""), NULL, NULL));
	buf_fini(&out);
	buf_init(&out, 4);
	assert_int_equal(smtp_format_path(&out, str("abc")), ERR_LIMIT);
	assert_int_equal(smtp_format_mailbox(&out, str("abc"), str("d")), ERR_LIMIT);
	assert_int_equal(buf_len(&out), 0);
	buf_fini(&out);
}

static void parameters(void **state)
{
	struct slice text = str("  SIZE=1 x-y  Z=a+b;c ");
	struct smtp_param param;

	(void)state;
	assert_int_equal(smtp_next_param(&text, &param), 1);
	assert_true(slice_eq(param.keyword, str("SIZE")) && slice_eq(param.value, str("1")) && param.has_value);
	assert_int_equal(smtp_next_param(&text, &param), 1);
	assert_true(slice_eq(param.keyword, str("x-y")) && !param.has_value);
	assert_int_equal(smtp_next_param(&text, &param), 1);
	assert_true(slice_eq(param.value, str("a+b;c")));
	assert_int_equal(smtp_next_param(&text, &param), 0);
	assert_int_equal(text.len, 0);
	text = str("SIZE=1");
	assert_int_equal(smtp_next_param(&text, &param), ERR_SYNTAX);
	for (const char *const *bad = (const char *const[]){" =", " =1", " a=", " a==", " -a", " a_b", " a=b\tc",
							    " a=\x7f", " a=\xff", NULL};
	     *bad; bad++) {
		text = str(*bad);
		assert_int_equal(smtp_next_param(&text, &param), ERR_SYNTAX);
	}
}

static void sizes(void **state)
{
	uint64_t size = 7;

	(void)state;
	assert_int_equal(smtp_parse_size(str("18446744073709551615"), &size), 0);
	assert_true(size == UINT64_MAX);
	assert_int_equal(smtp_parse_size(str("18446744073709551616"), &size), ERR_LIMIT);
	assert_int_equal(smtp_parse_size(str("00000000000000000001"), &size), 0);
	assert_true(size == 1);
	assert_int_equal(smtp_parse_size(str("000000000000000000001"), &size), ERR_LIMIT);
	assert_int_equal(smtp_parse_size(str(""), &size), ERR_SYNTAX);
	assert_int_equal(smtp_parse_size(str("1x"), &size), ERR_SYNTAX);
	assert_int_equal(smtp_parse_size(str("+1"), &size), ERR_SYNTAX);
	assert_true(size == 1);
}

static void xtext_both_ways(void **state)
{
	struct buf out;
	unsigned char all[256];

	(void)state;
	for (int i = 0; i < 256; i++)
		all[i] = (unsigned char)i;
	buf_init(&out, 1000);
	assert_int_equal(smtp_xtext_encode(&out, slice_of(all, 256)), 0);
	assert_true(smtp_is_xtext(buf_slice(&out)));
	{
		struct buf back;
		buf_init(&back, 256);
		assert_int_equal(smtp_xtext_decode(&back, buf_slice(&out)), 0);
		assert_memory_equal(buf_slice(&back).ptr, all, 256);
		assert_int_equal(smtp_xtext_decode(&back, str("a")), ERR_LIMIT);
		buf_clear(&back);
		assert_int_equal(smtp_xtext_decode(&back, str("ab+4")), ERR_SYNTAX);
		assert_int_equal(smtp_xtext_decode(&back, str("ab=")), ERR_SYNTAX);
		assert_int_equal(buf_len(&back), 0);
		buf_fini(&back);
	}
	buf_fini(&out);
	buf_init(&out, 5);
	assert_int_equal(smtp_xtext_encode(&out, str("ab+")), 0);
	assert_int_equal(smtp_xtext_encode(&out, str("+")), ERR_LIMIT);
	assert_int_equal(buf_len(&out), 5);
	buf_fini(&out);
	assert_true(smtp_is_xtext(str("")));
	assert_false(smtp_is_xtext(str("+G0")));
	assert_false(smtp_is_xtext(str("a b")));
}

static void dsn_values(void **state)
{
	unsigned bits;
	enum smtp_dsn_ret ret;

	(void)state;
	assert_int_equal(smtp_parse_notify(str("never"), &bits), 0);
	assert_int_equal(bits, SMTP_DSN_NEVER);
	assert_int_equal(smtp_parse_notify(str("DELAY,failure,SUCCESS"), &bits), 0);
	assert_int_equal(bits, SMTP_DSN_DELAY | SMTP_DSN_FAILURE | SMTP_DSN_SUCCESS);
	assert_int_equal(smtp_parse_notify(str("DELAY,NEVER"), &bits), ERR_SYNTAX);
	assert_int_equal(smtp_parse_notify(str(""), &bits), ERR_SYNTAX);
	assert_int_equal(smtp_parse_ret(str("hdrs"), &ret), 0);
	assert_int_equal(ret, SMTP_DSN_RET_HDRS);
	assert_int_equal(smtp_parse_ret(str("x"), &ret), ERR_SYNTAX);
	assert_true(smtp_is_envid(str("a+20b")));
	assert_false(smtp_is_envid(str("a+0Ab")));
	assert_false(smtp_is_envid(str("")));
	assert_true(smtp_is_orcpt(str("rfc822;a+2Bb@c"), 0));
	assert_false(smtp_is_orcpt(str("rfc822;a+0Db@c"), 0));
	assert_false(smtp_is_orcpt(str("rfc822;"), 0));
	assert_false(smtp_is_orcpt(str("rfc 822;a"), 0));
	assert_true(smtp_is_orcpt(str("utf-8;a\\x{10FFFF}"), 0));
	assert_false(smtp_is_orcpt(str("utf-8;a\\x{1234567}"), 0));
	assert_false(smtp_is_orcpt(str("utf-8;\xc3\xbc"), 0));
	assert_true(smtp_is_orcpt(str("utf-8;\xc3\xbc"), SMTP_MAY_BE_UTF8));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(octets_and_utf8),
	    cmocka_unit_test(mailboxes_are_cut_at_the_right_at_sign),
	    cmocka_unit_test(every_octet_in_a_local_part),
	    cmocka_unit_test(paths),
	    cmocka_unit_test(domains),
	    cmocka_unit_test(address_literals),
	    cmocka_unit_test(formats_what_it_parses),
	    cmocka_unit_test(parameters),
	    cmocka_unit_test(sizes),
	    cmocka_unit_test(xtext_both_ways),
	    cmocka_unit_test(dsn_values),
	};
	return cmocka_run_group_tests_name("smtp syntax", tests, NULL, NULL);
}
