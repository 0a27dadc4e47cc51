/* Characters: what is one, and what may be shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

/* In memory of just that size, for the sanitizers. */
static size_t character(const char *octets, size_t len, uint32_t *code)
{
	char *copy = xmalloc(MAX(len, (size_t)1));
	size_t found;

	memcpy(copy, octets, len);
	found = utf8_character(slice_of(copy, len), code);
	free(copy);
	return found;
}

static size_t encode(uint32_t code, char out[4])
{
	size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;

	for (size_t i = len; i-- > 1; code >>= 6)
		out[i] = (char)(0x80 | (code & 0x3f));
	out[0] = (char)(len == 1 ? code : (0xff00u >> len & 0xff) | code);
	return len;
}

static void every_character_is_read_as_what_it_is(void **state)
{
	(void)state;
	for (uint32_t code = 0; code < 0x120000; code++) {
		char octets[4];
		size_t len = encode(code, octets);
		uint32_t found = 0;
		bool is_one = code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
		assert_int_equal(character(octets, len, &found), is_one ? len : 0);
		if (is_one)
			assert_int_equal(found, code);
		for (size_t cut = 0; cut < len; cut++) /* its end is missing */
			assert_int_equal(character(octets, cut, &found), 0);
	}
}

static void what_is_not_well_formed_is_none(void **state)
{
	static const struct slice rows[] = {SLICE("\x80"),
					    SLICE("\xbf"),
					    SLICE("\xc0\x80"),
					    SLICE("\xc1\xbf"),
					    SLICE("\xe0\x9f\xbf"),
					    SLICE("\xf0\x8f\xbf\xbf"),
					    SLICE("\xf5\x80\x80\x80"),
					    SLICE("\xff"),
					    SLICE("\xc3("),
					    SLICE("\xe2\x82("),
					    SLICE("\xf0\x9f\x98(")};
	uint32_t code;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(character(rows[i].ptr, rows[i].len, &code), 0);
}

static void what_steers_or_hides_is_not_visible(void **state)
{
	static const uint32_t hidden[] = {0,	  '\t',	  '\n',	  '\r',	  0x1b,	  0x7f,	  0x80,	   0x85,
					  0x9b,	  0x9f,	  0xad,	  0x61c,  0x200b, 0x200f, 0x2028,  0x2029,
					  0x202a, 0x202e, 0x2060, 0x2066, 0x2069, 0xfeff, 0xe0001, 0x10ffff};
	static const uint32_t shown[] = {' ', '"', 'A', '~', 0xa0, 0xfc, 0x5d0, 0x4e2d, 0x1f600};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(hidden); i++)
		assert_false(utf8_is_visible(hidden[i]));
	for (size_t i = 0; i < ARRAY_LEN(shown); i++)
		assert_true(utf8_is_visible(shown[i]));
	assert_int_equal(utf8_visible(SLICE("\xc3\xbcx")), 2);
	assert_int_equal(utf8_visible(SLICE("\xe2\x80\xae")), 0);
	assert_int_equal(utf8_visible(SLICE("\xc3")), 0);
	assert_int_equal(utf8_visible(SLICE("")), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_character_is_read_as_what_it_is),
	    cmocka_unit_test(what_is_not_well_formed_is_none),
	    cmocka_unit_test(what_steers_or_hides_is_not_visible),
	};

	return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
