#include "support_base.h"

#include "base/base64.h"

#include <string.h>

static void what_is_base64_is_decoded(void **state)
{
	static const struct {
		const char *text;
		enum base64_padding padding;
		const char *ignored, *octets;
	} cases[] = {
	    {"", BASE64_PADDED, NULL, ""},
	    {"Zg==", BASE64_PADDED, NULL, "f"},
	    {"Zm8=", BASE64_PADDED, NULL, "fo"},
	    {"Zm9v", BASE64_PADDED, NULL, "foo"},
	    {"Zg", BASE64_UNPADDED, NULL, "f"},
	    {"Zm9v", BASE64_UNPADDED, NULL, "foo"},
	    {" Zm\r\n9v ", BASE64_PADDED, " \r\n", "foo"},
	};
	char out[3];
	size_t len;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_true(base64_decode(slice_of_str(cases[i].text), cases[i].padding, cases[i].ignored, out,
					  sizeof(out), &len));
		assert_true(slice_eq(slice_of(out, len), slice_of_str(cases[i].octets)));
	}
}

static void what_is_none_is_refused(void **state)
{
	static const struct {
		const char *text;
		enum base64_padding padding;
	} cases[] = {
	    {"Zg", BASE64_PADDED},   {"Zg==", BASE64_UNPADDED},	  {"Zm9v ", BASE64_PADDED},
	    {"Zm9-", BASE64_PADDED}, {"Zm9vZg==", BASE64_PADDED}, /* four octets, for which there is no room */
	};
	char out[3];
	size_t len = 7;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_false(
		    base64_decode(slice_of_str(cases[i].text), cases[i].padding, NULL, out, sizeof(out), &len));
		assert_int_equal(len, 0);
	}
}

/* libsodium 1.0.18 takes some of them. */
static void no_octet_over_127_is_taken_at_any_place(void **state)
{
	char out[6];
	size_t len;

	(void)state;
	for (int octet = 128; octet < 256; octet++)
		for (size_t at = 0; at < 8; at++) {
			char text[] = "Zm9vYmFy";
			text[at] = (char)octet;
			assert_false(base64_decode(slice_of(text, 8), BASE64_PADDED, NULL, out, sizeof(out), &len));
			assert_int_equal(len, 0);
		}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_is_base64_is_decoded),
	    cmocka_unit_test(what_is_none_is_refused),
	    cmocka_unit_test(no_octet_over_127_is_taken_at_any_place),
	};
	return cmocka_run_group_tests_name("base64", tests, NULL, NULL);
}
