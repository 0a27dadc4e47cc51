/* Files of addresses: what a line says, which line is the nearest, and what is wrong with a line and where. */
#include "support_config.h"

#include "base/base.h"
#include "config/address_map.h"

#include <stdio.h>

static struct config_memory *memory;
static struct config_errors errors;

static int setup(void **state)
{
	(void)state;
	memory = config_memory_new();
	config_errors_init(&errors);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	config_memory_free(&memory);
	return 0;
}

static struct address_map *parse(enum address_map_kind kind, const char *text)
{
	struct address_map *map = address_map_parse(memory, kind, slice_of_str(text), "m", &errors);

	assert_true((map != NULL) == (errors.error_count == 0));
	return map;
}

static void expect(const struct address_map *map, const char *address, const char *value)
{
	const char *found = address_map_find(map, slice_of_str(address));

	if ((found == NULL) != (value == NULL) || (found && strcmp(found, value) != 0))
		fail_msg("%s: %s", address, found ? found : "nothing");
}

static void the_nearest_line_counts(void **state)
{
	struct address_map *map = parse(ADDRESS_MAP_REPLACES, "# senders\n\n"
							      "Ann@example.com\tann@example.net\r\n"
							      "  @example.com   @example.net\n"
							      "*.example.com one@example.org\n"
							      "@*.deep.example.com two@example.org\n"
							      "* rest@example.org");

	(void)state;
	assert_int_equal(address_map_count(map), 5);
	expect(map, "ann@example.com", "ann@example.net");
	expect(map, "ANN@EXAMPLE.COM", "ann@example.net");
	expect(map, "bob@Example.com", "@example.net");
	expect(map, "bob@a.example.com", "one@example.org");
	expect(map, "bob@a.b.example.com", "one@example.org");
	expect(map, "bob@deep.example.com", "one@example.org");
	expect(map, "bob@x.deep.example.com", "two@example.org");
	expect(map, "bob@notexample.com", "rest@example.org");
	expect(map, "\"x@example.com\"@other.example", "rest@example.org");
}

static void other_ways_to_write_an_address_do_not_lead_past_it(void **state)
{
	struct address_map *map = parse(ADDRESS_MAP_LISTS, "john@example.com\n@b\xc3\xbc"
							   "cher.example\n"
							   "*.xn--mller-kva.example\n\"jane\"@example.com\n");

	(void)state;
	expect(map, "\"john\"@example.com", "");
	expect(map, "\"j\\ohn\"@EXAMPLE.com", "");
	expect(map, "jane@example.com", "");
	expect(map, "\"john \"@example.com", NULL);
	expect(map, "\"john@example.com\"@other.example", NULL);
	expect(map, "x@xn--bcher-kva.example", "");
	expect(map,
	       "x@B\xc3\x9c"
	       "CHER.example",
	       "");
	expect(map, "x@a.m\xc3\xbcller.example", "");
	expect(map, "\"\"@example.com", NULL);
}

static void a_list_has_no_replacements(void **state)
{
	struct address_map *map =
	    parse(ADDRESS_MAP_LISTS, "gone@example.com\n@dead.example\n*.void.example\ngone@example.com\n");

	(void)state;
	expect(map, "Gone@example.com", "");
	expect(map, "x@dead.example", "");
	expect(map, "x@a.void.example", "");
	expect(map, "x@void.example", NULL);
	expect(map, "x@example.com", NULL);
	expect(map, "gone", NULL);
	expect(map, "", NULL);
}

static void an_empty_file_says_nothing(void **state)
{
	struct address_map *map = parse(ADDRESS_MAP_REPLACES, "# nothing\n   \n");

	(void)state;
	assert_int_equal(address_map_count(map), 0);
	expect(map, "a@example.com", NULL);
}

static void addresses_that_are_too_long_are_nobody(void **state)
{
	struct address_map *map = parse(ADDRESS_MAP_REPLACES, "* rest@example.org\n");
	char address[400];

	(void)state;
	memset(address, 'a', sizeof(address));
	memcpy(address + 100, "@example.com", 12);
	assert_null(address_map_find(map, slice_of(address, sizeof(address))));
	assert_string_equal(address_map_find(map, slice_of(address, 112)), "rest@example.org");
}

static const struct {
	enum address_map_kind kind;
	const char *text, *mistake;
} bad[] = {
    {ADDRESS_MAP_REPLACES, "a@example.com\n",
     "m:1:1: 'a@example.com' needs a replacement behind it: an address, a blank, what it becomes"},
    {ADDRESS_MAP_REPLACES, "\n  example.com x@example.net\n",
     "m:2:3: 'example.com' is no address: write @example.com for a domain, or name@example.com"},
    {ADDRESS_MAP_REPLACES, "root x@example.net\n",
     "m:1:1: 'root' is no address: write @root for a domain, or name@root"},
    {ADDRESS_MAP_REPLACES, "<> x@example.net\n", "m:1:1: '<>' is the empty sender, which stays as it is"},
    {ADDRESS_MAP_REPLACES, "a@b..c x@example.net\n",
     "m:1:1: 'a@b..c' is neither user@example.com nor @example.com nor *.example.com nor *"},
    {ADDRESS_MAP_REPLACES, "a@example.com  root\n",
     "m:1:16: 'root' is no replacement: user@example.com, or @example.com to keep the local part"},
    {ADDRESS_MAP_REPLACES, "a@example.com b,c@example.com\n",
     "m:1:15: 'b,c@example.com' is no replacement: user@example.com, or @example.com to keep the local part"},
    {ADDRESS_MAP_REPLACES, "a@example.com *.example.com\n",
     "m:1:15: '*.example.com' is no replacement: user@example.com, or @example.com to keep the local part"},
    {ADDRESS_MAP_REPLACES, "a@example.com b@c@example.com\n",
     "m:1:15: 'b@c@example.com' is no replacement: user@example.com, or @example.com to keep the local part"},
    {ADDRESS_MAP_REPLACES, "a@example.com b@example.com # why\n", "m:1:29: '#' is one word too many in its line"},
    {ADDRESS_MAP_REPLACES, "a@example.com b@example.com\nA@Example.com c@example.com\n",
     "m:2:1: 'A@Example.com' stood in line 1 already"},
    {ADDRESS_MAP_LISTS, "a@example.com b@example.com\n", "m:1:15: 'b@example.com' is one word too many in its line"},
    {ADDRESS_MAP_LISTS, "*\n", "m:1:1: '*' would be everybody"},
};

static void mistakes_have_a_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		config_errors_init(&errors);
		assert_null(parse(bad[i].kind, bad[i].text));
		assert_string_equal(errors.items[0].text, bad[i].mistake);
		assert_int_equal(errors.error_count, 1);
	}
}

static void many_are_found(void **state)
{
	struct address_map *map;
	struct buf text;
	char address[64];

	(void)state;
	buf_init(&text, 8 << 20);
	for (int i = 0; i < 100000; i++)
		buf_printf(&text, "user%d@example.com\n", i);
	map = address_map_parse(memory, ADDRESS_MAP_LISTS, buf_slice(&text), "m", &errors);
	assert_non_null(map);
	assert_int_equal(address_map_count(map), 100000);
	for (int i = 0; i < 100000; i += 99) {
		snprintf(address, sizeof(address), "User%d@example.com", i);
		expect(map, address, "");
		snprintf(address, sizeof(address), "user%d@example.com", i + 100000);
		expect(map, address, NULL);
	}
	buf_fini(&text);
}

static void a_file_that_cannot_be_read_is_a_mistake(void **state)
{
	char *path = make_file("map", "a@example.com b@example.com\n");
	struct address_map *map = address_map_load(memory, ADDRESS_MAP_REPLACES, path, &errors);

	(void)state;
	expect(map, "a@example.com", "b@example.com");
	drop_file(path);
	assert_null(address_map_load(memory, ADDRESS_MAP_REPLACES, "/nowhere/map", &errors));
	assert_string_equal(errors.items[0].text, "/nowhere/map: cannot open: No such file or directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(the_nearest_line_counts, setup, teardown),
	    cmocka_unit_test_setup_teardown(other_ways_to_write_an_address_do_not_lead_past_it, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_list_has_no_replacements, setup, teardown),
	    cmocka_unit_test_setup_teardown(an_empty_file_says_nothing, setup, teardown),
	    cmocka_unit_test_setup_teardown(addresses_that_are_too_long_are_nobody, setup, teardown),
	    cmocka_unit_test_setup_teardown(mistakes_have_a_place, setup, teardown),
	    cmocka_unit_test_setup_teardown(many_are_found, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_file_that_cannot_be_read_is_a_mistake, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
