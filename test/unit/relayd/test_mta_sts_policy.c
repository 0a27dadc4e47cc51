/* The TXT record and the policy of MTA-STS, good and bad (RFC 8461 section 3). */
#include "base/base.h"
#include "relayd/mta_sts_policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

static void records(void **state)
{
	static const struct {
		const char *text;
		int result;
		const char *id;
	} rows[] = {
	    {"v=STSv1; id=20160831085700Z;", 1, "20160831085700Z"},
	    {"v=STSv1;id=1", 1, "1"},
	    {"v=STSv1 \t;\t id=a ; other=b;", 1, "a"},
	    {"v=STSv1; other=x; id=7;id=8", 1, "7"},
	    {"v=STSv1; id=12345678901234567890123456789012", 1, "12345678901234567890123456789012"},
	    {"v=STSv1; id=123456789012345678901234567890123", ERR_SYNTAX, ""},
	    {"v=STSv1; id=", ERR_SYNTAX, ""},
	    {"v=STSv1; id=a-b", ERR_SYNTAX, ""},
	    {"v=STSv1; id=\303\244", ERR_SYNTAX, ""},
	    {"v=STSv1", ERR_SYNTAX, ""},
	    {"v=STSv1; ID=1", ERR_SYNTAX, ""},
	    {"v=STSv2; id=1", 0, ""},
	    {"v=STSv10; id=1", 0, ""},
	    {"v=spf1 -all", 0, ""},
	    {"", 0, ""},
	    {" v=STSv1; id=1", 0, ""},
	};
	char id[MTA_STS_ID_MAX + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int result = mta_sts_record_parse(slice_of_str(rows[i].text), id);

		if (result != rows[i].result || (result == 1 && strcmp(id, rows[i].id) != 0))
			fail_msg("%s: %d, %s", rows[i].text, result, id);
	}
}

static struct mta_sts_policy *parse(const char *text)
{
	struct err err;
	struct mta_sts_policy *policy = mta_sts_policy_parse(slice_of_str(text), &err);

	if (!policy)
		fail_msg("%s", err.text);
	return policy;
}

static void the_example_of_the_rfc(void **state)
{
	struct mta_sts_policy *policy = parse("version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: "
					      "*.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n");

	(void)state;
	assert_int_equal(policy->mode, MTA_STS_ENFORCE);
	assert_int_equal(policy->max_age_sec, 604800);
	assert_int_equal(policy->pattern_count, 3);
	assert_string_equal(policy->patterns[1], "*.example.net");
	mta_sts_policy_unref(&policy);
	assert_null(policy);
}

static void odd_but_good(void **state)
{
	struct mta_sts_policy *policy = parse(
	    "max_age:9999999999\nx-later: a:b\n\nmx:MX.Example.COM.  \t\nmode: testing \nmode: none\nversion:STSv1");

	(void)state;
	assert_int_equal(policy->mode, MTA_STS_TESTING);
	assert_int_equal(policy->max_age_sec, MTA_STS_MAX_AGE_MAX_SEC);
	assert_string_equal(policy->patterns[0], "mx.example.com");
	mta_sts_policy_unref(&policy);
	policy = parse("version: STSv1\nmode: none\nmax_age: 0\n");
	assert_int_equal(policy->mode, MTA_STS_NONE);
	assert_int_equal(policy->pattern_count, 0);
	mta_sts_policy_unref(&policy);
}

static void broken_ones(void **state)
{
	static const char *const texts[] = {
	    "",
	    "<html>",
	    "mode: enforce\nmx: a.example\nmax_age: 1\n",
	    "version: STSv2\nmode: enforce\nmx: a.example\nmax_age: 1\n",
	    "version: STSv1\nmx: a.example\nmax_age: 1\n",
	    "version: STSv1\nmode: Enforce\nmx: a.example\nmax_age: 1\n",
	    "version: STSv1\nmode: enforce\nmax_age: 1\n",
	    "version: STSv1\nmode: testing\nmax_age: 1\n",
	    "version: STSv1\nmode: enforce\nmx: a.example\n",
	    "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: -1\n",
	    "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 12345678901\n",
	    "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 1 d\n",
	    "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1\n",
	    "version: STSv1\nmode: enforce\nmx: *.*.example\nmax_age: 1\n",
	    "version: STSv1\nmode: enforce\nmx: a.*.example\nmax_age: 1\n",
	    "version: STSv1\nmode: enforce\nmx: 192.0.2.1\nmax_age: 1\n",
	    "version: STSv1\nmode: enforce\nmx: a b\nmax_age: 1\n",
	    "version: STSv1\nmode: enforce\nmx:\nmax_age: 1\n",
	    "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 1\nnonsense\n",
	};
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		err = (struct err){0};
		if (mta_sts_policy_parse(slice_of_str(texts[i]), &err))
			fail_msg("taken: %s", texts[i]);
		assert_true(err.text[0] != '\0');
		assert_null(mta_sts_policy_parse(slice_of_str(texts[i]), NULL));
	}
}

/* H22 */
static void long_ones(void **state)
{
	struct mta_sts_policy *policy;
	struct buf text;
	struct err err;

	(void)state;
	buf_init(&text, 2 * MTA_STS_TEXT_MAX);
	buf_append_str(&text, "version: STSv1\nmode: enforce\nmax_age: 1\n");
	for (int i = 0; i < MTA_STS_PATTERNS_MAX; i++)
		buf_printf(&text, "mx: m%d.example\n", i);
	policy = mta_sts_policy_parse(buf_slice(&text), &err);
	assert_non_null(policy);
	assert_true(mta_sts_policy_lists(policy, "m255.example"));
	mta_sts_policy_unref(&policy);
	buf_append_str(&text, "mx: one.more.example\n");
	assert_null(mta_sts_policy_parse(buf_slice(&text), &err));
	buf_clear(&text);
	buf_append_str(&text, "version: STSv1\nmode: none\nmax_age: 1\n");
	while (buf_len(&text) < MTA_STS_TEXT_MAX)
		buf_append_byte(&text, '\n');
	policy = mta_sts_policy_parse(buf_slice(&text), &err);
	assert_non_null(policy);
	mta_sts_policy_unref(&policy);
	buf_append_byte(&text, '\n');
	assert_null(mta_sts_policy_parse(buf_slice(&text), &err));
	buf_fini(&text);
}

static void a_wildcard_stands_for_one_label(void **state)
{
	struct mta_sts_policy *policy =
	    parse("version: STSv1\nmode: enforce\nmax_age: 1\nmx: *.example.com\nmx: mail.example.net\n");

	(void)state;
	assert_true(mta_sts_policy_lists(policy, "mx.example.com"));
	assert_true(mta_sts_policy_lists(policy, "MX.Example.Com."));
	assert_false(mta_sts_policy_lists(policy, "a.mx.example.com"));
	assert_false(mta_sts_policy_lists(policy, "example.com"));
	assert_false(mta_sts_policy_lists(policy, ".example.com"));
	assert_false(mta_sts_policy_lists(policy, "mxexample.com"));
	assert_true(mta_sts_policy_lists(policy, "mail.example.net"));
	assert_false(mta_sts_policy_lists(policy, "mail.example.net.example"));
	assert_false(mta_sts_policy_lists(policy, "a.mail.example.net"));
	assert_false(mta_sts_policy_lists(policy, ""));
	mta_sts_policy_unref(&policy);
}

static void as_text_and_back(void **state)
{
	struct mta_sts_policy *policy =
				  parse("version: STSv1\nmode: testing\nmax_age: 77\nmx: *.A.example\nmx: b.example"),
			      *again;
	struct buf text;

	(void)state;
	buf_init(&text, 1000);
	mta_sts_policy_format(policy, &text);
	again = mta_sts_policy_parse(buf_slice(&text), NULL);
	assert_non_null(again);
	assert_int_equal(again->mode, MTA_STS_TESTING);
	assert_int_equal(again->max_age_sec, 77);
	assert_string_equal(again->patterns[0], "*.a.example");
	assert_string_equal(again->patterns[1], "b.example");
	buf_fini(&text);
	mta_sts_policy_unref(&policy);
	mta_sts_policy_unref(&again);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(records),		cmocka_unit_test(the_example_of_the_rfc),
	    cmocka_unit_test(odd_but_good),	cmocka_unit_test(broken_ones),
	    cmocka_unit_test(long_ones),	cmocka_unit_test(a_wildcard_stands_for_one_label),
	    cmocka_unit_test(as_text_and_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
