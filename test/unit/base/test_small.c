/* The small ones: clock, err, list, slice, allocation. */
#include "support_base.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/list.h"
#include "base/slice.h"

#include <errno.h>
#include <stdlib.h>

static void a_virtual_clock_stands_until_it_is_moved(void **state)
{
	struct clock_virtual v;
	const struct clock *clock = &v.clock;
	int64_t mono, wall;
	(void)state;

	clock_virtual_init(&v, 1700000000000);
	mono = clock_mono_ms(clock);
	wall = clock_wall_ms(clock);
	assert_int_equal(wall, 1700000000000);
	assert_true(mono > 0); /* 0 often means "no deadline" */
	assert_int_equal(clock_mono_ms(clock), mono);
	clock_virtual_advance(&v, 1500);
	assert_int_equal(clock_mono_ms(clock), mono + 1500);
	assert_int_equal(clock_wall_ms(clock), wall + 1500);
	v.wall -= 3600000; /* somebody sets the wall clock back: deadlines do not care */
	assert_int_equal(clock_mono_ms(clock), mono + 1500);
}

static void the_system_s_clock_never_goes_back(void **state)
{
	int64_t last = clock_mono_ms(clock_system());
	(void)state;

	assert_true(clock_wall_ms(clock_system()) > 1600000000000);
	for (int i = 0; i < 1000; i++) {
		int64_t now = clock_mono_ms(clock_system());
		assert_true(now >= last);
		last = now;
	}
}

static void an_error_has_code_and_words(void **state)
{
	struct err err = {0};
	(void)state;

	assert_int_equal(err_set(&err, ERR_CONFIG, "line %d: %s", 3, "bad"), ERR_CONFIG);
	assert_int_equal(err.code, ERR_CONFIG);
	assert_string_equal(err.text, "line 3: bad");
	assert_int_equal(err_set(NULL, ERR_LIMIT, "nobody listens"), ERR_LIMIT);
	errno = ENOSPC;
	assert_int_equal(err_set_errno(&err, "cannot write %s", "x"), ERR_NO_SPACE);
	assert_string_equal(err.text, "cannot write x: No space left on device");
	errno = ENOENT;
	assert_int_equal(err_set_errno(NULL, "x"), ERR_NOT_FOUND);
}

static void long_words_are_cut(void **state)
{
	char text[1000];
	struct err err;
	(void)state;

	memset(text, 'w', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	err_set(&err, ERR_IO, "%s", text);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	errno = EIO;
	assert_int_equal(err_set_errno(&err, "%s", text), ERR_IO);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

static void errno_becomes_a_code(void **state)
{
	(void)state;
	assert_int_equal(err_code_of_errno(0), ERR_NONE);
	assert_int_equal(err_code_of_errno(EDQUOT), ERR_NO_SPACE);
	assert_int_equal(err_code_of_errno(EACCES), ERR_PERMISSION);
	assert_int_equal(err_code_of_errno(EROFS), ERR_PERMISSION);
	assert_int_equal(err_code_of_errno(EEXIST), ERR_EXISTS);
	assert_int_equal(err_code_of_errno(EADDRINUSE), ERR_EXISTS);
	assert_int_equal(err_code_of_errno(EIO), ERR_IO);
	assert_int_equal(err_code_of_errno(EMFILE), ERR_SYSTEM);
}

struct item {
	int number;
	struct list node;
};

static void assert_list(struct list *head, const char *wanted)
{
	char text[20] = "";
	size_t used = 0;

	LIST_FOREACH (node, head)
		text[used++] = (char)('0' + CONTAINER_OF(node, struct item, node)->number);
	assert_string_equal(text, wanted);
	used = strlen(wanted);
	for (struct list *node = head->prev; node != head; node = node->prev)
		assert_int_equal(CONTAINER_OF(node, struct item, node)->number, wanted[--used] - '0');
	assert_int_equal(used, 0);
}

static void lists_keep_their_order(void **state)
{
	struct item items[4];
	struct list head;
	(void)state;

	list_init(&head);
	assert_true(list_is_empty(&head));
	assert_null(list_pop(&head));
	for (int i = 0; i < 4; i++) {
		items[i].number = i;
		list_node_init(&items[i].node);
		assert_false(list_is_linked(&items[i].node));
		list_append(&head, &items[i].node);
	}
	assert_list(&head, "0123");
	list_remove(&items[1].node);
	list_remove(&items[1].node);
	assert_false(list_is_linked(&items[1].node));
	assert_list(&head, "023");
	list_prepend(&head, &items[1].node);
	assert_list(&head, "1023");
	assert_ptr_equal(list_pop(&head), &items[1].node);
	LIST_FOREACH (node, &head)
		if (CONTAINER_OF(node, struct item, node)->number != 2)
			list_remove(node);
	assert_list(&head, "2");
}

static void slices_know_ascii(void **state)
{
	(void)state;
	assert_true(slice_is_ascii(slice_of(NULL, 0)));
	for (size_t at = 0; at < 20; at++) {
		char text[20];
		memset(text, 'a', sizeof(text));
		assert_true(slice_is_ascii(slice_of(text, sizeof(text))));
		text[at] = (char)0x80;
		assert_false(slice_is_ascii(slice_of(text, sizeof(text))));
	}
}

static void slices_compare(void **state)
{
	(void)state;
	assert_true(slice_eq(slice_of_str(NULL), SLICE("")));
	assert_true(slice_eq(slice_of("a\0b", 3), slice_of("a\0b", 3)));
	assert_false(slice_eq(slice_of("a\0b", 3), slice_of("a\0c", 3)));
	assert_true(slice_case_eq(SLICE("MAIL from"), SLICE("mail FROM")));
	assert_false(slice_case_eq(SLICE("mail"), SLICE("mai")));
	assert_true(slice_has_prefix(SLICE("abc"), SLICE("ab")));
	assert_true(slice_has_prefix(SLICE("abc"), SLICE("")));
	assert_false(slice_has_prefix(SLICE("a"), SLICE("ab")));
	assert_true(slice_has_case_prefix(SLICE("RCPT TO"), SLICE("rcpt")));
	assert_true(slice_has_case_suffix(SLICE("smtp.Example.COM"), SLICE(".example.com")));
	assert_false(slice_has_case_suffix(SLICE("example.com"), SLICE(".example.com")));
}

static void slices_are_cut_within_their_bounds(void **state)
{
	struct slice s = SLICE("abc"), none = {NULL, 0};
	(void)state;

	assert_true(slice_eq(slice_from(s, 1), SLICE("bc")));
	assert_int_equal(slice_from(s, 4).len, 0);
	assert_int_equal(slice_from(none, 1).len, 0);
	assert_true(slice_eq(slice_to(s, 2), SLICE("ab")));
	assert_true(slice_eq(slice_to(s, 10), s));
	assert_int_equal(slice_find(s, 'c'), 2);
	assert_int_equal(slice_find(s, 'x'), -1);
	assert_int_equal(slice_find(none, 'x'), -1);
	assert_int_equal(slice_find_last(SLICE("a@b@c"), '@'), 3);
	assert_int_equal(slice_find_last(none, '@'), -1);
	assert_true(slice_eq(slice_trim(SLICE(" \t\r\na b\r\n ")), SLICE("a b")));
	assert_int_equal(slice_trim(SLICE(" \r\n")).len, 0);
	assert_true(slice_eq(slice_trim(slice_of("\0", 1)), slice_of("\0", 1)));
	assert_int_equal(slice_trim(none).len, 0);
}

static void copies_into_arrays_are_cut_and_ended(void **state)
{
	char out[4];
	(void)state;

	assert_true(slice_to_cstr(SLICE("abc"), out, sizeof(out)));
	assert_string_equal(out, "abc");
	assert_false(slice_to_cstr(SLICE("abcd"), out, sizeof(out)));
	assert_string_equal(out, "abc");
	assert_true(slice_to_cstr(slice_of_str(NULL), out, sizeof(out)));
	assert_string_equal(out, "");
}

static void allocations_of_nothing_can_be_freed(void **state)
{
	char *copy;
	(void)state;

	free(xcalloc(0, 0));
	free(xmalloc(0));
	free(xrealloc(NULL, 0));
	free(xreallocarray(NULL, 0, 16));
	copy = xmemdup(NULL, 0);
	assert_string_equal(copy, "");
	free(copy);
	copy = xmemdup("a\0b", 3);
	assert_memory_equal(copy, "a\0b\0", 4);
	free(copy);
	copy = xstrdup("text");
	assert_string_equal(copy, "text");
	free(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_virtual_clock_stands_until_it_is_moved),
	    cmocka_unit_test(the_system_s_clock_never_goes_back),
	    cmocka_unit_test(an_error_has_code_and_words),
	    cmocka_unit_test(long_words_are_cut),
	    cmocka_unit_test(errno_becomes_a_code),
	    cmocka_unit_test(lists_keep_their_order),
	    cmocka_unit_test(slices_know_ascii),
	    cmocka_unit_test(slices_compare),
	    cmocka_unit_test(slices_are_cut_within_their_bounds),
	    cmocka_unit_test(copies_into_arrays_are_cut_and_ended),
	    cmocka_unit_test(allocations_of_nothing_can_be_freed),
	};
	return cmocka_run_group_tests_name("clock, err, list, slice", tests, NULL, NULL);
}
