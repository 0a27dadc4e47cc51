#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "smtp/sasl.h"

static void base64_of_rfc4648(void **state)
{
	static const char *const pairs[][2] = {{"", ""},
					       {"f", "Zg=="},
					       {"fo", "Zm8="},
					       {"foo", "Zm9v"},
					       {"foob", "Zm9vYg=="},
					       {"fooba", "Zm9vYmE="},
					       {"foobar", "Zm9vYmFy"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		struct buf out;
		/* Not an octet more room than needed. */
		buf_init(&out, strlen(pairs[i][1]));
		assert_int_equal(sasl_base64_encode(&out, slice_of_str(pairs[i][0])), 0);
		assert_true(slice_eq(buf_slice(&out), slice_of_str(pairs[i][1])));
		buf_fini(&out);
		buf_init(&out, strlen(pairs[i][0]));
		assert_int_equal(sasl_base64_decode(&out, slice_of_str(pairs[i][1])), 0);
		assert_true(slice_eq(buf_slice(&out), slice_of_str(pairs[i][0])));
		buf_fini(&out);
	}
}

static void base64_that_is_none(void **state)
{
	static const char *const bad[] = {
	    "=",     "==",     "====",	"Z",	"Zg",		"Zg=",	"Zg===", "Zh==",    "Zm9=",
	    "Zm 9v", "Zm9v\n", "Zm9v=", "Z=9v", "Zm9vZg==Zm9v", "Zm9-", "Zm9_",	 "Zm9\xc3", "*"};
	struct buf out;

	(void)state;
	buf_init(&out, 100);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(sasl_base64_decode(&out, slice_of_str(bad[i])), ERR_SYNTAX);
		assert_int_equal(buf_len(&out), 0);
	}
	assert_int_equal(sasl_base64_decode(&out, slice_of("Zm\0v", 4)), ERR_SYNTAX);
	buf_fini(&out);
	buf_init(&out, 2);
	assert_int_equal(sasl_base64_decode(&out, SLICE("Zm9v")), ERR_LIMIT);
	assert_int_equal(sasl_base64_encode(&out, SLICE("foo")), ERR_LIMIT);
	buf_fini(&out);
}

static enum sasl_step plain(struct sasl_server *sasl, struct slice message)
{
	struct buf text;
	enum sasl_step step;

	buf_init(&text, 20000);
	sasl_base64_encode(&text, message);
	sasl_server_init(sasl, SASL_PLAIN);
	step = sasl_server_begin(sasl, true, buf_len(&text) ? buf_slice(&text) : SLICE("="));
	buf_fini(&text);
	return step;
}

static void plain_messages(void **state)
{
	static const struct {
		struct slice message;
		enum sasl_step step;
	} cases[] = {
	    {{"\0u\0p", 4}, SASL_COMPLETE},
	    {{"u\0u\0p", 5}, SASL_COMPLETE},
	    {{"v\0u\0p", 5}, SASL_OTHER_IDENTITY},
	    {{"", 0}, SASL_MALFORMED},
	    {{"u", 1}, SASL_MALFORMED},
	    {{"\0u", 2}, SASL_MALFORMED},
	    {{"\0\0p", 3}, SASL_MALFORMED},
	    {{"\0u\0", 3}, SASL_MALFORMED},
	    {{"\0u\0p\0", 5}, SASL_MALFORMED},
	    {{"\0u\0p\0q", 6}, SASL_MALFORMED},
	    {{"\0u\r\0p", 5}, SASL_MALFORMED},
	    {{"\0\x7f\0p", 4}, SASL_MALFORMED},
	    {{"\0m\xc3\xbc\0\xc3\xbc p", 8}, SASL_COMPLETE},
	    {{"\0a b\0p", 6}, SASL_COMPLETE},
	};
	struct sasl_server sasl;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(plain(&sasl, cases[i].message), cases[i].step);
		sasl_server_fini(&sasl);
	}
	assert_int_equal(plain(&sasl, SLICE("\0user\0pass word")), SASL_COMPLETE);
	assert_true(slice_eq(sasl.user, SLICE("user")) && slice_eq(sasl.password, SLICE("pass word")));
	sasl_server_fini(&sasl);
	assert_null(sasl.user.ptr);
}

static void plain_limits(void **state)
{
	char message[9000] = {0};
	struct sasl_server sasl;

	(void)state;
	memset(message + 1, 'u', 255);
	memset(message + 257, 'p', 1024);
	assert_int_equal(plain(&sasl, slice_of(message, 257 + 1024)), SASL_COMPLETE);
	sasl_server_fini(&sasl);
	message[257 + 1024] = 'p';
	assert_int_equal(plain(&sasl, slice_of(message, 257 + 1025)), SASL_MALFORMED);
	sasl_server_fini(&sasl);
	memset(message + 1, 'u', 256);
	memcpy(message + 257, "\0p", 2);
	assert_int_equal(plain(&sasl, slice_of(message, 259)), SASL_MALFORMED);
	sasl_server_fini(&sasl);
	memset(message, 'x', sizeof(message));
	assert_int_equal(plain(&sasl, slice_of(message, sizeof(message))), SASL_MALFORMED);
	sasl_server_fini(&sasl);
}

static void login_in_three_ways(void **state)
{
	struct sasl_server sasl;

	(void)state;
	sasl_server_init(&sasl, SASL_LOGIN);
	assert_int_equal(sasl_server_begin(&sasl, false, (struct slice){0}), SASL_CHALLENGE);
	assert_string_equal(sasl_server_challenge(&sasl), "VXNlcm5hbWU6");
	assert_int_equal(sasl_server_respond(&sasl, SLICE("dXNlcg==")), SASL_CHALLENGE);
	assert_string_equal(sasl_server_challenge(&sasl), "UGFzc3dvcmQ6");
	assert_int_equal(sasl_server_respond(&sasl, SLICE("cGFzcw==")), SASL_COMPLETE);
	assert_true(slice_eq(sasl.user, SLICE("user")) && slice_eq(sasl.password, SLICE("pass")));
	sasl_server_fini(&sasl);

	sasl_server_init(&sasl, SASL_LOGIN);
	assert_int_equal(sasl_server_begin(&sasl, true, SLICE("dXNlcg==")), SASL_CHALLENGE);
	assert_int_equal(sasl_server_respond(&sasl, SLICE("*")), SASL_CANCELLED);
	sasl_server_fini(&sasl);

	sasl_server_init(&sasl, SASL_LOGIN);
	assert_int_equal(sasl_server_begin(&sasl, false, (struct slice){0}), SASL_CHALLENGE);
	assert_int_equal(sasl_server_respond(&sasl, SLICE("dXNlcg")), SASL_UNDECODABLE);
	sasl_server_fini(&sasl);
}

/* Whatever the sizes, the memory is not moved while it holds secrets. */
static void secrets_are_not_left_behind(void **state)
{
	struct sasl_server sasl;
	const char *at;

	(void)state;
	sasl_server_init(&sasl, SASL_LOGIN);
	at = sasl.memory.data;
	assert_non_null(at);
	sasl_server_begin(&sasl, true, SLICE("dXNlcg=="));
	sasl_server_respond(&sasl, SLICE("cGFzc3Bhc3NwYXNzcGFzc3Bhc3NwYXNzcGFzc3Bhc3NwYXNzcGFzc3Bhc3NwYXNz"));
	assert_ptr_equal(sasl.memory.data, at);
	sasl_server_fini(&sasl);
}

static void mechanisms(void **state)
{
	enum sasl_mechanism mechanism;

	(void)state;
	assert_true(sasl_mechanism_parse(SLICE("pLaIn"), &mechanism) && mechanism == SASL_PLAIN);
	assert_true(sasl_mechanism_parse(SLICE("LOGIN"), &mechanism) && mechanism == SASL_LOGIN);
	assert_false(sasl_mechanism_parse(SLICE("PLAINX"), &mechanism));
	assert_false(sasl_mechanism_parse(SLICE(""), &mechanism));
	assert_string_equal(sasl_mechanism_name(SASL_LOGIN), "LOGIN");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(base64_of_rfc4648),   cmocka_unit_test(base64_that_is_none),
	    cmocka_unit_test(plain_messages),	   cmocka_unit_test(plain_limits),
	    cmocka_unit_test(login_in_three_ways), cmocka_unit_test(secrets_are_not_left_behind),
	    cmocka_unit_test(mechanisms),
	};
	return cmocka_run_group_tests_name("smtp sasl", tests, NULL, NULL);
}
