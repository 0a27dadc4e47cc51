/* RFC 2047, as far as subjects need it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "smtp/encoded_word.h"

static void expect_read(const char *body, const char *text)
{
	struct buf out;

	buf_init(&out, 4096);
	encoded_word_read(&out, slice_of_str(body));
	if (!slice_eq(buf_slice(&out), slice_of_str(text)))
		fail_msg("%s: %.*s", body, SLICE_ARG(buf_slice(&out)));
	buf_fini(&out);
}

static void words_are_read(void **state)
{
	(void)state;
	expect_read(" plain text ", "plain text");
	expect_read(" =?utf-8?Q?T=C3=A4st_x?= y", "T\xc3\xa4st x y");
	expect_read("=?UTF-8?b?VMOkc3Q=?=", "T\xc3\xa4st");
	expect_read("=?iso-8859-1?q?T=e4st?=", "T\xc3\xa4st");
	expect_read("=?us-ascii?q?a?=\r\n =?us-ascii?q?b?=", "ab");
	expect_read("=?us-ascii?q?a?= b =?us-ascii?q?c?=", "a b c");
	expect_read("a\r\n b", "a b");
	/* What is no encoded word, or one of an unknown kind, stays. */
	expect_read("=?koi8-r?q?a?=", "=?koi8-r?q?a?=");
	expect_read("=?utf-8?x?a?=", "=?utf-8?x?a?=");
	expect_read("=?utf-8?q?a", "=?utf-8?q?a");
	expect_read("=?utf-8?q?a=zz=4?=", "a=zz=4");
	expect_read("=?=?", "=?=?");
	expect_read("=", "=");
	expect_read("", "");
}

static void what_is_written_is_read_again(void **state)
{
	static const char warnings[] = "\xe2\x9a\xa0\xe2\x9a\xa0\xe2\x9a\xa0\xe2\x9a\xa0\xe2\x9a\xa0\xe2\x9a\xa0"
				       "\xe2\x9a\xa0\xe2\x9a\xa0\xe2\x9a\xa0\xe2\x9a\xa0\xe2\x9a\xa0\xe2\x9a\xa0";
	const char *const texts[] = {"[T\xc3\xa4st]", "a b_c=d?e", "\xf0\x9f\x98\x80 \xf0\x9f\x98\x80", warnings};
	struct buf out;

	(void)state;
	buf_init(&out, 4096);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		char whole[4096];
		buf_clear(&out);
		encoded_word_write(&out, slice_of_str(texts[i]));
		slice_to_cstr(buf_slice(&out), whole, sizeof(whole));
		expect_read(whole, texts[i]);
		/* No word over 75 characters, and nothing but ASCII. */
		for (struct slice rest = buf_slice(&out); rest.len;) {
			ptrdiff_t end = slice_find(rest, '\n');
			size_t len = end < 0 ? rest.len : (size_t)end + 1;
			assert_true(len <= ENCODED_WORD_MAX_CHARS + 3);
			rest = slice_from(rest, len);
		}
		for (size_t at = 0; whole[at]; at++)
			assert_true((unsigned char)whole[at] < 0x80);
	}
	buf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(words_are_read),
	    cmocka_unit_test(what_is_written_is_read_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
