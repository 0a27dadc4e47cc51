#include "support_base.h"

#include "base/msgid.h"
#include "base/random.h"

#include <ctype.h>

static void assert_text(uint64_t id, const char *wanted)
{
	char text[MSGID_CHARS + 1];

	msgid_format(id, text);
	assert_string_equal(text, wanted);
}

static void known_ids(void **state)
{
	(void)state;
	assert_text(0, "0000000000000");
	assert_text(1, "0000000000001");
	assert_text(31, "000000000000Z");
	assert_text(32, "0000000000010");
	assert_text(UINT64_MAX, "FZZZZZZZZZZZZ");
	assert_text(0x0123456789abcdef, "028T5CY4TQKFF");
}

static void every_id_reads_back(void **state)
{
	struct rng_seeded random;
	char text[MSGID_CHARS + 1];
	(void)state;

	rng_seeded_init(&random, 9);
	for (int i = 0; i < 100000; i++) {
		uint64_t id = rng_u64(&random.rng) >> (i % 64), back = ~id;
		msgid_format(id, text);
		assert_int_equal(strspn(text, "0123456789ABCDEFGHJKMNPQRSTVWXYZ"), MSGID_CHARS);
		assert_true(msgid_parse(slice_of_str(text), &back));
		assert_int_equal(back, id);
		for (char *at = text; *at; at++)
			*at = (char)tolower((unsigned char)*at);
		assert_true(msgid_parse(slice_of_str(text), &back));
		assert_int_equal(back, id);
	}
}

static void later_ids_sort_later(void **state)
{
	char a[MSGID_CHARS + 1], b[MSGID_CHARS + 1];
	struct rng_seeded random;
	(void)state;

	rng_seeded_init(&random, 10);
	for (int i = 0; i < 10000; i++) {
		uint64_t x = rng_u64(&random.rng), y = rng_u64(&random.rng);
		msgid_format(x, a);
		msgid_format(y, b);
		assert_int_equal(strcmp(a, b) < 0, x < y);
	}
}

static void mistyped_letters_are_understood(void **state)
{
	uint64_t id = 0;
	(void)state;

	assert_true(msgid_parse(SLICE("oOiIlL0000001"), &id));
	assert_text(id, "0011110000001");
}

static void what_is_no_id(void **state)
{
	static const struct slice bad[] = {
	    {NULL, 0},
	    {"", 0},
	    {"000000000000", 12},
	    {"00000000000000", 14},
	    {"G000000000000", 13}, /* past 64 bits */
	    {"ZZZZZZZZZZZZZ", 13},
	    {"U000000000000", 13},
	    {"000000000000U", 13},
	    {"00000000000 0", 13},
	    {"000000-000000", 13},
	    {"000000000000\0", 13},
	    {"\0"
	     "000000000000",
	     13},
	    {"00000000000\xc3\xa4", 13},
	    {" 000000000001", 13},
	};
	(void)state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		uint64_t id = 77;
		assert_false(msgid_parse(bad[i], &id));
		assert_int_equal(id, 77);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(known_ids),
	    cmocka_unit_test(every_id_reads_back),
	    cmocka_unit_test(later_ids_sort_later),
	    cmocka_unit_test(mistyped_letters_are_understood),
	    cmocka_unit_test(what_is_no_id),
	};
	return cmocka_run_group_tests_name("msgid", tests, NULL, NULL);
}
