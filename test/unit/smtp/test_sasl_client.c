/* What AUTH lines we send. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "smtp/sasl_client.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

static const unsigned all = SASL_CLIENT_BIT(SASL_CLIENT_PLAIN) | SASL_CLIENT_BIT(SASL_CLIENT_LOGIN) |
			    SASL_CLIENT_BIT(SASL_CLIENT_XOAUTH2) | SASL_CLIENT_BIT(SASL_CLIENT_OAUTHBEARER);

/* The exchange: what is sent first, then after each challenge; lines joined. */
static void expect(const struct sasl_client_credentials *credentials, unsigned offered, const char *const *challenges,
		   const char *expected)
{
	struct err err;
	struct sasl_client *sasl = sasl_client_new(credentials, offered, &err);
	struct buf out;

	assert_non_null(sasl);
	buf_init(&out, 64 * 1024);
	sasl_client_start(sasl, &out);
	for (; challenges && *challenges; challenges++)
		sasl_client_respond(sasl, slice_of_str(*challenges), &out);
	assert_int_equal(buf_append(&out, slice_of("", 1)), 0);
	assert_string_equal(buf_slice(&out).ptr, expected);
	buf_fini(&out);
	sasl_client_free(&sasl);
	assert_null(sasl);
}

static const struct sasl_client_credentials tim = {
    .mechanism = SASL_CLIENT_PLAIN, .username = "tim", .secret = "tanstaaftanstaaf"};

static void test_plain_with_initial_response(void **state)
{
	static const char *const again[] = {"", NULL};

	(void)state;
	expect(&tim, all, NULL, "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n");
	expect(&tim, all, again, "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n*\r\n");
}

static void test_login_is_asked_step_by_step(void **state)
{
	static const char *const challenges[] = {"VXNlcm5hbWU6", "UGFzc3dvcmQ6", "bW9yZQ==", NULL};
	struct sasl_client_credentials login = tim;

	(void)state;
	login.mechanism = SASL_CLIENT_LOGIN;
	expect(&login, all, challenges, "AUTH LOGIN\r\ndGlt\r\ndGFuc3RhYWZ0YW5zdGFhZg==\r\n*\r\n");
}

static void test_xoauth2_ends_a_refusal_with_an_empty_line(void **state)
{
	static const char *const refusal[] = {"eyJzdGF0dXMiOiI0MDAifQ==", "eA==", NULL};
	struct sasl_client_credentials google = {SASL_CLIENT_XOAUTH2,
						 "someuser@example.com",
						 "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg",
						 true,
						 NULL,
						 0};

	(void)state;
	/* The example of Google's "XOAUTH2 protocol". */
	expect(&google, all, refusal,
	       "AUTH XOAUTH2 "
	       "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1sem"
	       "RHRXVZMjl0Q2cBAQ==\r\n\r\n*\r\n");
}

static void test_oauthbearer(void **state)
{
	static const char *const refusal[] = {"eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=", NULL};
	struct sasl_client_credentials rfc = {SASL_CLIENT_OAUTHBEARER,
					      "user@example.com",
					      "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==",
					      true,
					      "server.example.com",
					      587};
	struct sasl_client_credentials odd = {SASL_CLIENT_OAUTHBEARER, "a=b,c", "t", true, NULL, 0};

	(void)state;
	/* RFC 7628 §4.3, the example for SMTP. */
	expect(&rfc, all, refusal,
	       "AUTH OAUTHBEARER "
	       "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9NTg3AWF1dGg9QmVhcmVyIHZGOWRmd"
	       "DRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB\r\nAQ==\r\n");
	/* n,a=a=3Db=2Cc,^Aauth=Bearer t^A^A */
	expect(&odd, all, NULL, "AUTH OAUTHBEARER bixhPWE9M0RiPTJDYywBYXV0aD1CZWFyZXIgdAEB\r\n");
}

/* RFC 5321 §4.5.3.1.4: 512 octets with CRLF; a longer response waits for its challenge. */
static void test_a_long_token_waits_for_the_challenge(void **state)
{
	static const char *const empty[] = {"", NULL};
	char token[4001], expected[8192], base64[8000];
	struct sasl_client_credentials microsoft = {SASL_CLIENT_XOAUTH2, "u", token, true, NULL, 0};
	unsigned char plain[4100];

	(void)state;
	for (size_t len = 300; len < 400; len++) {
		size_t plain_len = len + strlen("user=u\001auth=Bearer \001\001"), base64_len;

		memset(token, 't', len);
		token[len] = '\0';
		snprintf((char *)plain, sizeof(plain), "user=u\001auth=Bearer %s\001\001", token);
		sodium_bin2base64(base64, sizeof(base64), plain, plain_len, sodium_base64_VARIANT_ORIGINAL);
		base64_len = strlen(base64);
		if (strlen("AUTH XOAUTH2 \r\n") + base64_len <= 512) {
			snprintf(expected, sizeof(expected), "AUTH XOAUTH2 %s\r\n", base64);
			expect(&microsoft, all, NULL, expected);
		} else {
			snprintf(expected, sizeof(expected), "AUTH XOAUTH2\r\n%s\r\n", base64);
			expect(&microsoft, all, empty, expected);
		}
	}
	memset(token, 't', 4000);
	token[4000] = '\0';
	expect(&microsoft, all, NULL, "AUTH XOAUTH2\r\n");
}

static void test_auto_takes_what_is_offered(void **state)
{
	static const struct {
		bool is_token;
		unsigned offered;
		enum sasl_client_mechanism chosen;
	} cases[] = {
	    {false, all, SASL_CLIENT_PLAIN},
	    {false, SASL_CLIENT_BIT(SASL_CLIENT_LOGIN), SASL_CLIENT_LOGIN},
	    {false, SASL_CLIENT_BIT(SASL_CLIENT_XOAUTH2) | SASL_CLIENT_BIT(SASL_CLIENT_OAUTHBEARER), SASL_CLIENT_NONE},
	    {true, all, SASL_CLIENT_OAUTHBEARER},
	    {true, SASL_CLIENT_BIT(SASL_CLIENT_XOAUTH2) | SASL_CLIENT_BIT(SASL_CLIENT_PLAIN), SASL_CLIENT_XOAUTH2},
	    {true, SASL_CLIENT_BIT(SASL_CLIENT_PLAIN), SASL_CLIENT_NONE},
	    {true, 0, SASL_CLIENT_NONE},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct sasl_client_credentials credentials = {.mechanism = SASL_CLIENT_AUTO,
							      .username = "u",
							      .secret = "s",
							      .secret_is_token = cases[i].is_token};
		struct err err = {0};
		struct sasl_client *sasl = sasl_client_new(&credentials, cases[i].offered, &err);

		if (cases[i].chosen == SASL_CLIENT_NONE) {
			assert_null(sasl);
			assert_int_equal(err.code, ERR_UNSUPPORTED);
			assert_true(err.text[0]);
		} else {
			assert_int_equal(sasl_client_chosen(sasl), cases[i].chosen);
		}
		sasl_client_free(&sasl);
	}
}

static void test_a_named_mechanism_must_be_offered(void **state)
{
	struct err err = {0};

	(void)state;
	assert_null(sasl_client_new(&tim, SASL_CLIENT_BIT(SASL_CLIENT_LOGIN), &err));
	assert_string_equal(err.text, "the server does not offer AUTH PLAIN");
	assert_null(sasl_client_new(&tim, 0, NULL));
}

static void test_what_would_break_out_of_its_field_is_refused(void **state)
{
	static char long_secret[9000], long_name[600];
	struct sasl_client_credentials bad[] = {
	    {SASL_CLIENT_XOAUTH2, "u\001auth=Bearer x", "t", true, NULL, 0},
	    {SASL_CLIENT_OAUTHBEARER, "u", "t\001", true, NULL, 0},
	    {SASL_CLIENT_XOAUTH2, "u", "t\r\nQUIT", true, NULL, 0},
	    {SASL_CLIENT_PLAIN, "u", long_secret, false, NULL, 0},
	    {SASL_CLIENT_PLAIN, long_name, "s", false, NULL, 0},
	};

	(void)state;
	memset(long_secret, 'x', sizeof(long_secret) - 1);
	memset(long_name, 'x', sizeof(long_name) - 1);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err err = {0};
		assert_null(sasl_client_new(&bad[i], all, &err));
		assert_int_equal(err.code, ERR_SYNTAX);
	}
}

static void test_the_servers_words_about_a_token_are_kept_and_made_harmless(void **state)
{
	static const struct {
		const char *challenge, *detail;
	} cases[] = {
	    {"eyJzdGF0dXMiOiI0MDEifQ==", "{\"status\":\"401\"}"},
	    {"", ""},
	    {"!!!", ""},
	    {"eyJzd\xc3==", ""},
	    {"G1sybQA=", "\\x1B[2m\\x00"},
	};
	struct sasl_client_credentials google = {SASL_CLIENT_XOAUTH2, "u", "t", true, NULL, 0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct sasl_client *sasl = sasl_client_new(&google, all, NULL);
		struct buf out;

		buf_init(&out, 64 * 1024);
		sasl_client_start(sasl, &out);
		assert_string_equal(sasl_client_detail(sasl), "");
		sasl_client_respond(sasl, slice_of_str(cases[i].challenge), &out);
		assert_string_equal(sasl_client_detail(sasl), cases[i].detail);
		buf_fini(&out);
		sasl_client_free(&sasl);
	}
}

static void test_names(void **state)
{
	(void)state;
	for (int i = SASL_CLIENT_PLAIN; i < SASL_CLIENT_MECHANISM_COUNT; i++)
		assert_int_equal(sasl_client_mechanism_parse(
				     slice_of_str(sasl_client_mechanism_name((enum sasl_client_mechanism)i))),
				 i);
	assert_int_equal(sasl_client_mechanism_parse(SLICE("xoauth2")), SASL_CLIENT_XOAUTH2);
	assert_int_equal(sasl_client_mechanism_parse(SLICE("")), SASL_CLIENT_NONE);
	assert_int_equal(sasl_client_mechanism_parse(SLICE("CRAM-MD5")), SASL_CLIENT_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_plain_with_initial_response),
	    cmocka_unit_test(test_login_is_asked_step_by_step),
	    cmocka_unit_test(test_xoauth2_ends_a_refusal_with_an_empty_line),
	    cmocka_unit_test(test_oauthbearer),
	    cmocka_unit_test(test_a_long_token_waits_for_the_challenge),
	    cmocka_unit_test(test_auto_takes_what_is_offered),
	    cmocka_unit_test(test_a_named_mechanism_must_be_offered),
	    cmocka_unit_test(test_what_would_break_out_of_its_field_is_refused),
	    cmocka_unit_test(test_the_servers_words_about_a_token_are_kept_and_made_harmless),
	    cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests_name("sasl_client", tests, NULL, NULL);
}
