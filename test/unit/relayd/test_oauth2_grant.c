/* What is said to a token endpoint, and every kind of answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/oauth2_grant.h"

#include <stdio.h>
#include <string.h>

static void endpoints(void **state)
{
	static const struct {
		struct config_oauth2 oauth2;
		const char *url;
	} cases[] = {
	    {{.provider = CONFIG_OAUTH2_GOOGLE}, "https://oauth2.googleapis.com/token"},
	    {{.provider = CONFIG_OAUTH2_MICROSOFT, .tenant = "contoso.example"},
	     "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token"},
	    {{.provider = CONFIG_OAUTH2_MICROSOFT}, "https://login.microsoftonline.com/common/oauth2/v2.0/token"},
	    {{.provider = CONFIG_OAUTH2_MICROSOFT, .tenant = "t", .token_url = "https://login.example/t"},
	     "https://login.example/t"},
	    {{.provider = CONFIG_OAUTH2_OTHER, .token_url = "https://id.example/token"}, "https://id.example/token"},
	};
	char url[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_true(oauth2_endpoint(&cases[i].oauth2, url, sizeof(url)));
		assert_string_equal(url, cases[i].url);
	}
	assert_false(oauth2_endpoint(&cases[0].oauth2, url, 10));
	assert_false(oauth2_endpoint(&(struct config_oauth2){.provider = CONFIG_OAUTH2_OTHER}, url, sizeof(url)));
}

static void forms(void **state)
{
	static const struct {
		struct config_oauth2 oauth2;
		const char *secret, *refresh, *form;
	} cases[] = {
	    {{.provider = CONFIG_OAUTH2_MICROSOFT, .client_id = "id"},
	     "s+e &c=r%t~",
	     NULL,
	     "grant_type=client_credentials&client_id=id&client_secret=s%2Be%20%26c%3Dr%25t~&scope=https%3A%2F%"
	     "2Foutlook."
	     "office365.com%2F.default"},
	    {{.provider = CONFIG_OAUTH2_MICROSOFT, .client_id = "id"},
	     NULL,
	     "r",
	     "grant_type=refresh_token&client_id=id&refresh_token=r"},
	    {{.provider = CONFIG_OAUTH2_GOOGLE, .client_id = "i\xc3\xa4"},
	     "s",
	     "1//r",
	     "grant_type=refresh_token&client_id=i%C3%A4&client_secret=s&refresh_token=1%2F%2Fr"},
	    {{.provider = CONFIG_OAUTH2_OTHER, .client_id = "id", .scope = "smtp send"},
	     "s",
	     NULL,
	     "grant_type=client_credentials&client_id=id&client_secret=s&scope=smtp%20send"},
	};
	struct buf out;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		buf_init(&out, 4096);
		assert_int_equal(oauth2_form(&cases[i].oauth2, cases[i].secret, cases[i].refresh, &out), 0);
		assert_int_equal(buf_len(&out), strlen(cases[i].form));
		assert_memory_equal(buf_slice(&out).ptr, cases[i].form, buf_len(&out));
		buf_fini(&out);
	}
	for (size_t room = 0; room < strlen(cases[0].form); room++) {
		buf_init(&out, room);
		assert_int_equal(oauth2_form(&cases[0].oauth2, cases[0].secret, NULL, &out), ERR_LIMIT);
		buf_fini(&out);
	}
}

static void read_answer(int status, const char *body, struct oauth2_answer *out)
{
	static const char *const secrets[] = {"hunter2", NULL, "1//refresh"};

	oauth2_read_answer(status, slice_of_str(body), secrets, ARRAY_LEN(secrets), out);
}

static void grants(void **state)
{
	static const struct {
		const char *body, *access, *refresh;
		int64_t expires;
	} cases[] = {
	    {"{\"access_token\":\"at\",\"token_type\":\"Bearer\",\"expires_in\":3599}", "at", NULL, 3599},
	    {"{\"access_token\":\"at\",\"token_type\":\"bearer\",\"expires_in\":\"3599\",\"refresh_token\":\"rt\"}",
	     "at", "rt", 3599},
	    {"{\"access_token\":\"at\"}", "at", NULL, 1800},
	    {"{\"access_token\":\"at\",\"expires_in\":-5,\"refresh_token\":\"\"}", "at", NULL, 1800},
	    {"{\"access_token\":\"at\",\"expires_in\":99999999999999}", "at", NULL, 30 * 86400},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct oauth2_answer answer;

		read_answer(200, cases[i].body, &answer);
		assert_int_equal(answer.verdict, OAUTH2_GRANTED);
		assert_string_equal(answer.access_token, cases[i].access);
		if (cases[i].refresh)
			assert_string_equal(answer.refresh_token, cases[i].refresh);
		else
			assert_null(answer.refresh_token);
		assert_int_equal(answer.expires_in_sec, cases[i].expires);
		config_secret_wipe(&answer.access_token);
		config_secret_wipe(&answer.refresh_token);
	}
}

static void refusals(void **state)
{
	static const struct {
		int status;
		const char *body;
		enum oauth2_verdict verdict;
		const char *words;
	} cases[] = {
	    {400, "{\"error\":\"invalid_grant\",\"error_description\":\"Token has been expired or revoked.\"}",
	     OAUTH2_REFUSED, "invalid_grant: Token has been expired or revoked."},
	    {401,
	     "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: Invalid client secret "
	     "provided.\\r\\nTrace ID: 1\\r\\n\"}",
	     OAUTH2_REFUSED, "invalid_client: AADSTS7000215: Invalid client secret provided."},
	    {400, "{\"error\":\"unauthorized_client\"}", OAUTH2_REFUSED, "unauthorized_client"},
	    /* A server that repeats what it was sent. */
	    {400, "{\"error\":\"invalid_grant\",\"error_description\":\"no token 1//refresh\"}", OAUTH2_REFUSED,
	     "invalid_grant"},
	    {400, "{\"error\":\"hunter2\"}", OAUTH2_UNABLE, "the token endpoint answered with HTTP status 400"},
	    {400, "{\"error\":\"invalid_grant\",\"error_description\":\"\\u001b[2m\"}", OAUTH2_REFUSED,
	     "invalid_grant: \\x1B[2m"},
	    {429, "{\"error\":\"too_many_requests\"}", OAUTH2_UNABLE, "too_many_requests"},
	    {503, "{\"error\":\"temporarily_unavailable\"}", OAUTH2_UNABLE, "temporarily_unavailable"},
	    {400, "{\"error\":\"temporarily_unavailable\"}", OAUTH2_UNABLE, "temporarily_unavailable"},
	    {502, "<html>Bad gateway", OAUTH2_UNABLE, "the token endpoint answered with HTTP status 502"},
	    {400, "{\"error\":\"\"}", OAUTH2_UNABLE, "the token endpoint answered with HTTP status 400"},
	    {404, "", OAUTH2_UNABLE, "the token endpoint answered with HTTP status 404"},
	    {302, "", OAUTH2_UNABLE, "the token endpoint answered with HTTP status 302"},
	    {200, "<html>Sign in", OAUTH2_UNABLE, "the token endpoint's answer is no JSON"},
	    {200, "", OAUTH2_UNABLE, "the token endpoint's answer is no JSON"},
	    {200, "[]", OAUTH2_UNABLE, "the token endpoint answered without a bearer token"},
	    {200, "{\"access_token\":\"\"}", OAUTH2_UNABLE, "the token endpoint answered without a bearer token"},
	    {200, "{\"access_token\":5}", OAUTH2_UNABLE, "the token endpoint answered without a bearer token"},
	    {200, "{\"access_token\":\"a\\u0001b\"}", OAUTH2_UNABLE,
	     "the token endpoint answered without a bearer token"},
	    {200, "{\"access_token\":\"a\",\"token_type\":\"mac\"}", OAUTH2_UNABLE,
	     "the token endpoint answered without a bearer token"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct oauth2_answer answer;

		read_answer(cases[i].status, cases[i].body, &answer);
		assert_int_equal(answer.verdict, cases[i].verdict);
		assert_string_equal(answer.words, cases[i].words);
		assert_null(answer.access_token);
		assert_null(answer.refresh_token);
	}
}

static void long_words_are_cut(void **state)
{
	char body[4096];
	struct oauth2_answer answer;

	(void)state;
	snprintf(body, sizeof(body), "{\"error\":\"%0500d\",\"error_description\":\"%02000d\"}", 0, 0);
	read_answer(400, body, &answer);
	assert_int_equal(answer.verdict, OAUTH2_REFUSED);
	assert_int_equal(strlen(answer.words), 64 + 2 + 220);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(endpoints),
	    cmocka_unit_test(forms),
	    cmocka_unit_test(grants),
	    cmocka_unit_test(refusals),
	    cmocka_unit_test(long_words_are_cut),
	};
	return cmocka_run_group_tests_name("OAuth2 grants", tests, NULL, NULL);
}
