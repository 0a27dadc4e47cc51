/* U-labels of domains: what is mapped, what stays, and what is refused rather than become somebody else's domain. */
#include "support_base.h"

#include "base/idna.h"

static bool to_ascii(struct slice domain, char *out)
{
	struct buf ascii;
	bool is_good;

	buf_init(&ascii, 255);
	is_good = idna_append_ascii(&ascii, domain);
	slice_to_cstr(buf_slice(&ascii), out, 256);
	buf_fini(&ascii);
	return is_good;
}

static void u_labels_become_a_labels(void **state)
{
	static const struct {
		const char *domain, *ascii;
	} rows[] = {
	    {"bücher.example", "xn--bcher-kva.example"},
	    {"BÜCHER.example", "xn--bcher-kva.example"},
	    {"bu\u0308cher.example", "xn--bcher-kva.example"}, /* not NFC yet */
	    {"ｂｕ\u0308cher.example", "xn--bcher-kva.example"},
	    {"straße.example", "xn--strae-oqa.example"},
	    {"例え.テスト", "xn--r8jz45g.xn--zckzah"},
	    {"例え。テスト", "xn--r8jz45g.xn--zckzah"},
	    {"क्\u200dष.example", "xn--11b2ezcw70k.example"}, /* a joiner behind a virama means something */
	    {"ü.under_score.Example", "xn--tda.under_score.Example"},
	    {"", ""},
	    {"a b..c_d", "a b..c_d"}, /* ASCII is not looked at */
	};
	char out[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (!to_ascii(slice_of_str(rows[i].domain), out))
			fail_msg("'%s' was refused", rows[i].domain);
		assert_string_equal(out, rows[i].ascii);
	}
}

static void what_would_change_its_meaning_is_refused(void **state)
{
	static const char *const bad[] = {
	    "bü!cher.example",
	    "bü cher.example",
	    "bü_cher.example",
	    "bü@cher.example",
	    "bü;d=x.example",
	    "büc\u00adher.example",
	    "b\u200bücher.example",
	    "büche\ufe0fr.example",
	    ("büch\ufeff"
	     "er.example"),
	    "bü\uff01cher.example",
	    "\u2100bü.example",
	    "bü\u3000cher.example",
	    "a\u2260b.example",
	    "straße\u2603.example",
	    "\u2603.example",
	    "bü\xff.example",
	    "\xc3.example",
	    "xn--ü.example",
	    "ü-.example",
	    "\u0308u.example",
	};
	char out[256], label[300];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (to_ascii(slice_of_str(bad[i]), out))
			fail_msg("'%s' was taken as '%s'", bad[i], out);
	assert_false(to_ascii(slice_of("\xc3\xbc\0", 3), out));
	memset(label, 'a', sizeof(label));
	memcpy(label, "ü", 2);
	assert_true(to_ascii(slice_of(label, 57), out)); /* xn--, the letters, a hyphen and the place of the u */
	assert_false(to_ascii(slice_of(label, 70), out));
	assert_false(to_ascii(slice_of(label, sizeof(label)), out));
}

static void the_buffers_ceiling_is_kept(void **state)
{
	struct buf ascii;

	(void)state;
	buf_init(&ascii, 10);
	assert_false(idna_append_ascii(&ascii, SLICE("ü.example.org")));
	buf_reset(&ascii);
	assert_true(idna_append_ascii(&ascii, SLICE("ü.a")));
	buf_fini(&ascii);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(u_labels_become_a_labels),
	    cmocka_unit_test(what_would_change_its_meaning_is_refused),
	    cmocka_unit_test(the_buffers_ceiling_is_kept),
	};
	return cmocka_run_group_tests_name("idna", tests, NULL, NULL);
}
