#include "relayd/oauth2_grant.h"

#include "base/base.h"
#include "config/secret.h"
#include "smtp/reply.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXPIRES_DEFAULT_SEC = 1800, EXPIRES_MAX_SEC = 30 * 86400 };

#define MICROSOFT_SCOPE "https://outlook.office365.com/.default"

bool oauth2_endpoint(const struct config_oauth2 *oauth2, char *out, size_t size)
{
	int len = 0;

	if (oauth2->token_url)
		len = snprintf(out, size, "%s", oauth2->token_url);
	else if (oauth2->provider == CONFIG_OAUTH2_GOOGLE)
		len = snprintf(out, size, "https://oauth2.googleapis.com/token");
	else if (oauth2->provider == CONFIG_OAUTH2_MICROSOFT)
		len = snprintf(out, size, "https://login.microsoftonline.com/%s/oauth2/v2.0/token",
			       oauth2->tenant ? oauth2->tenant : "common");
	return len > 0 && (size_t)len < size;
}

static int append_value(struct buf *out, const char *value)
{
	int rc = 0;

	for (; *value && rc == 0; value++)
		rc = isalnum((unsigned char)*value) || strchr("-._~", *value)
			 ? buf_append_byte(out, *value)
			 : buf_printf(out, "%%%02X", (unsigned char)*value);
	return rc;
}

/* A value of NULL is left out. */
static int append_field(struct buf *out, const char *name, const char *value)
{
	int rc = value ? buf_printf(out, "%s%s=", buf_len(out) > 0 ? "&" : "", name) : 0;

	return rc == 0 && value ? append_value(out, value) : rc;
}

int oauth2_form(const struct config_oauth2 *oauth2, const char *client_secret, const char *refresh_token,
		struct buf *out)
{
	const char *scope = oauth2->scope;

	if (!scope && !refresh_token && oauth2->provider == CONFIG_OAUTH2_MICROSOFT)
		scope = MICROSOFT_SCOPE;
	if (append_field(out, "grant_type", refresh_token ? "refresh_token" : "client_credentials") != 0 ||
	    append_field(out, "client_id", oauth2->client_id) != 0 ||
	    append_field(out, "client_secret", client_secret) != 0 ||
	    append_field(out, "refresh_token", refresh_token) != 0 || append_field(out, "scope", scope) != 0)
		return ERR_LIMIT;
	return 0;
}

/* ---- the answer ---- */

/* What goes into an AUTH line: printable ASCII (RFC 6750 section 2.1 has less). */
static bool is_token(const char *text)
{
	size_t len = text ? strlen(text) : 0;

	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	return len > 0 && len <= OAUTH2_TOKEN_MAX;
}

static int64_t read_seconds(const json_t *value)
{
	int64_t seconds = json_is_integer(value)  ? (int64_t)json_integer_value(value)
			  : json_is_string(value) ? strtoll(json_string_value(value), NULL, 10)
						  : 0; /* Microsoft's first version wrote it as a string */

	return seconds > 0 ? MIN(seconds, (int64_t)EXPIRES_MAX_SEC) : EXPIRES_DEFAULT_SEC;
}

static void fail(struct oauth2_answer *out, enum oauth2_verdict verdict, const char *words)
{
	out->verdict = verdict;
	out->words[0] = '\0';
	smtp_reply_append_text(out->words, sizeof(out->words), slice_of_str(words));
}

static void read_grant(const json_t *json, struct oauth2_answer *out)
{
	const char *access = json_string_value(json_object_get(json, "access_token"));
	const char *refresh = json_string_value(json_object_get(json, "refresh_token"));
	const char *type = json_string_value(json_object_get(json, "token_type"));

	if (!is_token(access) || (type && strcasecmp(type, "Bearer") != 0)) {
		fail(out, OAUTH2_UNABLE, "the token endpoint answered without a bearer token");
		return;
	}
	out->verdict = OAUTH2_GRANTED;
	out->access_token = xstrdup(access);
	out->refresh_token = is_token(refresh) ? xstrdup(refresh) : NULL;
	out->expires_in_sec = read_seconds(json_object_get(json, "expires_in"));
}

static bool holds_secret(const char *text, const char *const secrets[], size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (secrets[i] && secrets[i][0] && strstr(text, secrets[i]))
			return true;
	return false;
}

static void read_refusal(int status, const json_t *json, const char *const secrets[], size_t secret_count,
			 struct oauth2_answer *out)
{
	const char *error = json_string_value(json_object_get(json, "error"));
	const char *description = json_string_value(json_object_get(json, "error_description"));
	bool is_ours = status >= 400 && status < 500 && status != 429 && status != 408;
	char words[OAUTH2_WORDS_MAX];

	if (!error || !error[0] || holds_secret(error, secrets, secret_count)) {
		snprintf(words, sizeof(words), "the token endpoint answered with HTTP status %d", status);
		fail(out, OAUTH2_UNABLE, words);
		return;
	}
	if (description && holds_secret(description, secrets, secret_count))
		description = NULL;
	if (strcmp(error, "temporarily_unavailable") == 0 || strcmp(error, "server_error") == 0)
		is_ours = false;
	/* Microsoft's goes on with lines of its own identifiers. */
	snprintf(words, sizeof(words), "%.64s%s%.*s", error, description ? ": " : "",
		 (int)MIN(strcspn(description ? description : "", "\r\n"), 220u), description ? description : "");
	fail(out, is_ours ? OAUTH2_REFUSED : OAUTH2_UNABLE, words);
}

void oauth2_read_answer(int status, struct slice body, const char *const secrets[], size_t secret_count,
			struct oauth2_answer *out)
{
	json_t *json = json_loadb(body.ptr ? body.ptr : "", body.len, 0, NULL);

	*out = (struct oauth2_answer){0};
	if (status == 200 && json)
		read_grant(json, out);
	else if (status == 200)
		fail(out, OAUTH2_UNABLE, "the token endpoint's answer is no JSON");
	else
		read_refusal(status, json, secrets, secret_count, out);
	json_decref(json);
}
