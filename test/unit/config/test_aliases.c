/* aliases(5): lines, continuations, quotes, what is passed over and what is refused. */
#include "support_config.h"

#include "base/base.h"
#include "config/aliases.h"

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

static struct aliases *parse(const char *text)
{
	struct aliases *aliases = aliases_parse(memory, slice_of_str(text), "a", &errors);

	assert_true((aliases != NULL) == (errors.error_count == 0));
	return aliases;
}

/* `targets` joined by blanks; NULL: there is no such alias. */
static void expect(const struct aliases *aliases, const char *name, const char *targets)
{
	const struct alias *alias = aliases_find(aliases, slice_of_str(name));
	struct buf found;

	buf_init(&found, 4096);
	for (size_t i = 0; alias && i < alias->count; i++)
		buf_printf(&found, "%s%s", i ? " " : "", alias->targets[i]);
	if ((alias == NULL) != (targets == NULL) || (targets && !slice_eq(buf_slice(&found), slice_of_str(targets))))
		fail_msg("%s: %.*s", name, SLICE_ARG(buf_slice(&found)));
	buf_fini(&found);
}

static void lines_as_aliases_5_has_them(void **state)
{
	struct aliases *aliases = parse("# /etc/aliases\n"
					"postmaster:    root\r\n"
					"Root: ann@example.net,bob@example.net ,\n"
					"\t  carol\n"
					"   # in between\n"
					"\n"
					"  , dave@example.net\n"
					"\"www-data\" :\"ops\" , \\root\n"
					"empty:\n"
					"late:\n"
					" eve@example.net");

	(void)state;
	assert_int_equal(aliases_count(aliases), 5);
	assert_int_equal(errors.warning_count, 0);
	expect(aliases, "POSTMASTER", "root");
	expect(aliases, "root", "ann@example.net bob@example.net carol dave@example.net");
	expect(aliases, "www-data", "ops \\root");
	expect(aliases, "empty", "");
	expect(aliases, "late", "eve@example.net");
	expect(aliases, "ann", NULL);
	expect(aliases, "", NULL);
	assert_int_equal(aliases_find(aliases, SLICE("www-data"))->line, 8);
}

static void programs_files_and_lists_are_passed_over_with_a_warning(void **state)
{
	static const char *const warnings[] = {
	    "a:1:8: '/dev/null' is a file: relayd writes to addresses only, and passes it over",
	    "a:2:7: '|exec /usr/bin/list, x' is a program: relayd writes to addresses only, and passes it over",
	    "a:3:2: ':include:/etc/list' is a list in a file: relayd writes to addresses only, and passes it over",
	};
	struct aliases *aliases = parse("nobody:/dev/null\n"
					"list: \"|exec /usr/bin/list, x\",\n"
					" :include:/etc/list, ann@example.net\n");

	(void)state;
	expect(aliases, "nobody", "");
	expect(aliases, "list", "ann@example.net");
	assert_int_equal(errors.warning_count, ARRAY_LEN(warnings));
	for (size_t i = 0; i < ARRAY_LEN(warnings); i++) {
		assert_true(errors.items[i].is_warning);
		assert_string_equal(errors.items[i].text, warnings[i]);
	}
}

static const struct {
	const char *text, *mistake;
} bad[] = {
    {"root\n", "a:1:1: 'name: target, ...' is what an alias looks like"},
    {"  root: ann@example.net\n", "a:1:1: 'name: target, ...' is what an alias looks like"},
    {"root@example.com: ann@example.net\n",
     "a:1:1: 'root@example.com' is an address: rewrite.recipient_file is for those"},
    {"a b: ann@example.net\n", "a:1:1: 'a b' is no name"},
    {": ann@example.net\n", "a:1:1: '' is no name"},
    {"x:\n  ann@example.net # ops\n", "a:2:3: 'ann@example.net # ops' is neither a name nor an address"},
    {"x: ann@b..c\n", "a:1:4: 'ann@b..c' is neither a name nor an address"},
    {"x: ann bob\n", "a:1:4: 'ann bob' is neither a name nor an address"},
    {"x: \"ann\" bob\n", "a:1:10: 'b' stands where a comma was expected"},
    {"x: \"ann\n", "a:1:4: '\"' begins a text in quotes that does not end"},
    {"\"x: ann\n", "a:1:1: 'name: target, ...' is what an alias looks like"},
    {"x: <ann@example.net>\n", "a:1:4: '<ann@example.net>' is neither a name nor an address"},
    {"x: ann\ny: bob\nX: carol\n", "a:3:1: 'X' stood in line 1 already"},
};

static void mistakes_have_a_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		config_errors_init(&errors);
		assert_null(parse(bad[i].text));
		assert_string_equal(errors.items[0].text, bad[i].mistake);
		assert_int_equal(errors.error_count, 1);
	}
}

static void one_mistake_hides_no_other(void **state)
{
	(void)state;
	assert_null(parse("x: ann bob\n  carol\nroot\n ann\ny: ,,bob\nz: a b\n"));
	assert_int_equal(errors.error_count, 3);
	assert_string_equal(errors.items[1].text, "a:3:1: 'name: target, ...' is what an alias looks like");
	assert_string_equal(errors.items[2].text, "a:6:4: 'a b' is neither a name nor an address");
}

static void warnings_never_hide_a_mistake(void **state)
{
	struct buf text;

	(void)state;
	buf_init(&text, 1 << 16);
	for (int i = 0; i < 3 * CONFIG_MISTAKES_MAX; i++)
		buf_printf(&text, "n%d: |prog\n", i);
	buf_append_str(&text, "root\n");
	buf_append_byte(&text, '\0');
	assert_null(parse(buf_slice(&text).ptr));
	assert_int_equal(errors.kept_count, CONFIG_MISTAKES_MAX);
	assert_string_equal(config_errors_first(&errors), "a:61:1: 'name: target, ...' is what an alias looks like");
	config_errors_init(&errors);
	assert_string_equal(config_errors_first(&errors), "");
	buf_fini(&text);
}

static void a_nul_is_no_name(void **state)
{
	static const char text[] = "x: a\0b\n\0: c\n";

	(void)state;
	assert_null(aliases_parse(memory, slice_of(text, sizeof(text) - 1), "a", &errors));
	assert_true(errors.error_count > 0);
}

static void a_file_is_read(void **state)
{
	char *path = make_file("aliases", "root: ann@example.net\n");
	struct aliases *aliases = aliases_load(memory, path, &errors);

	(void)state;
	expect(aliases, "root", "ann@example.net");
	drop_file(path);
	assert_null(aliases_load(memory, "/nowhere/aliases", &errors));
}

/* ---- The section of relayd.yaml around it. */

static void what_cannot_be_set_or_removed(void **state)
{
	char text[300];

	(void)state;
	assert_mistake("headers: {remove: [from]}\n",
		       "f:1:19: a message is none without its from: rewrite.from_file replaces it");
	assert_mistake("headers: {remove: [X-A, Content-Type]}\n",
		       "f:1:19: a message is none without its Content-Type");
	assert_mistake("headers: {set: [\"Date: x\"]}\n", "f:1:16: Date cannot be set here");
	assert_mistake("headers: {set: [\"X-Relayd-Tag: x\"]}\n", "f:1:16: X-Relayd-Tag cannot be set here");
	assert_mistake("headers: {set: [\"X-A: \xc3\xa4\"]}\n",
		       "f:1:16: X-A: a value has at most 2000 printable ASCII characters");
	snprintf(text, sizeof(text), "headers: {subject_prefix: \"%0201d\"}\n", 0);
	assert_mistake(text, "f:1:27: headers.subject_prefix has at most 200 octets, and no control characters");
}

static void files_are_read_with_the_configuration(void **state)
{
	static const struct load_options options = {.check_files = true};
	char *path = make_file("map", "a@example.com\n"), text[2048], mistake[1200];
	struct config *config;

	(void)state;
	snprintf(text, sizeof(text),
		 "users: ''\nlisten: [{address: '*:25', auth: optional, trusted: 10.0.0.0/8}]\nsuppress: %s\n", path);
	config = load_with(text, &options, &errors);
	assert_non_null(config);
	assert_int_equal(address_map_count(config->suppressed), 1);
	assert_null(config->aliases);
	config_free(&config);
	snprintf(text, sizeof(text),
		 "users: ''\nlisten: [{address: '*:25', auth: optional, trusted: 10.0.0.0/8}]\n"
		 "rewrite: {from_file: %s}\n",
		 path);
	snprintf(mistake, sizeof(mistake),
		 "%s:1:1: 'a@example.com' needs a replacement behind it: an address, a blank, what it becomes", path);
	assert_mistakes(text, &options, mistake, NULL);
	drop_file(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(lines_as_aliases_5_has_them, setup, teardown),
	    cmocka_unit_test_setup_teardown(programs_files_and_lists_are_passed_over_with_a_warning, setup, teardown),
	    cmocka_unit_test_setup_teardown(mistakes_have_a_place, setup, teardown),
	    cmocka_unit_test_setup_teardown(one_mistake_hides_no_other, setup, teardown),
	    cmocka_unit_test_setup_teardown(warnings_never_hide_a_mistake, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_nul_is_no_name, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_file_is_read, setup, teardown),
	    cmocka_unit_test_setup_teardown(what_cannot_be_set_or_removed, setup, teardown),
	    cmocka_unit_test_setup_teardown(files_are_read_with_the_configuration, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
