#include "smtp/sasl_client.h"

#include "base/base.h"
#include "base/base64.h"
#include "smtp/reply.h"

#include <sodium.h>
#include <stdlib.h>

enum {
	LINE_MAX_BYTES = 512,	  /* RFC 5321 §4.5.3.1.4: what any server takes */
	SECRET_MAX_BYTES = 8192,  /* its base64 stays within RFC 4954's 12,288 octets */
	USERNAME_MAX_BYTES = 512, /* with OAUTHBEARER's escapes three times as much */
	RESPONSE_MAX_BYTES = SECRET_MAX_BYTES + 4 * USERNAME_MAX_BYTES,
	DETAIL_MAX_BYTES = 300,
};

struct sasl_client {
	enum sasl_client_mechanism mechanism;
	unsigned step; /* responses given so far */
	char *username, *secret;
	char *host;
	uint16_t port;
	char detail[DETAIL_MAX_BYTES + 1];
};

static const char *const names[SASL_CLIENT_MECHANISM_COUNT] = {
    [SASL_CLIENT_NONE] = "",	   [SASL_CLIENT_AUTO] = "",	      [SASL_CLIENT_PLAIN] = "PLAIN",
    [SASL_CLIENT_LOGIN] = "LOGIN", [SASL_CLIENT_XOAUTH2] = "XOAUTH2", [SASL_CLIENT_OAUTHBEARER] = "OAUTHBEARER",
};

const char *sasl_client_mechanism_name(enum sasl_client_mechanism mechanism)
{
	return names[mechanism];
}

enum sasl_client_mechanism sasl_client_mechanism_parse(struct slice word)
{
	for (int i = SASL_CLIENT_PLAIN; i < SASL_CLIENT_MECHANISM_COUNT; i++)
		if (slice_case_eq(word, slice_of_str(names[i])))
			return (enum sasl_client_mechanism)i;
	return SASL_CLIENT_NONE;
}

static bool is_token_mechanism(enum sasl_client_mechanism mechanism)
{
	return mechanism == SASL_CLIENT_XOAUTH2 || mechanism == SASL_CLIENT_OAUTHBEARER;
}

/* The first of those that may be used and are offered. */
static enum sasl_client_mechanism choose(const struct sasl_client_credentials *credentials, unsigned offered)
{
	static const enum sasl_client_mechanism for_password[] = {SASL_CLIENT_PLAIN, SASL_CLIENT_LOGIN};
	static const enum sasl_client_mechanism for_token[] = {SASL_CLIENT_OAUTHBEARER, SASL_CLIENT_XOAUTH2};
	const enum sasl_client_mechanism *order = credentials->secret_is_token ? for_token : for_password;

	if (credentials->mechanism != SASL_CLIENT_AUTO)
		return offered & SASL_CLIENT_BIT(credentials->mechanism) ? credentials->mechanism : SASL_CLIENT_NONE;
	for (int i = 0; i < 2; i++)
		if (offered & SASL_CLIENT_BIT(order[i]))
			return order[i];
	return SASL_CLIENT_NONE;
}

static int refuse(const struct sasl_client_credentials *credentials, unsigned offered, struct err *err)
{
	const char *wanted = credentials->mechanism != SASL_CLIENT_AUTO ? names[credentials->mechanism]
			     : credentials->secret_is_token		? "OAUTHBEARER or XOAUTH2"
									: "PLAIN or LOGIN";

	if (offered == 0)
		return err_set(err, ERR_UNSUPPORTED, "the server offers no AUTH that is known here, %s is wanted",
			       wanted);
	return err_set(err, ERR_UNSUPPORTED, "the server does not offer AUTH %s", wanted);
}

/* ^A separates the fields of the token mechanisms. */
static int check(const struct sasl_client_credentials *credentials, enum sasl_client_mechanism mechanism,
		 struct err *err)
{
	size_t user_len = strlen(credentials->username), secret_len = strlen(credentials->secret);

	if (user_len > USERNAME_MAX_BYTES || secret_len > SECRET_MAX_BYTES)
		return err_set(err, ERR_SYNTAX, "user name or secret is too long for AUTH");
	if (is_token_mechanism(mechanism) &&
	    (strpbrk(credentials->username, "\001\r\n") || strpbrk(credentials->secret, "\001\r\n")))
		return err_set(err, ERR_SYNTAX, "user name or token holds a control character");
	return 0;
}

struct sasl_client *sasl_client_new(const struct sasl_client_credentials *credentials, unsigned offered,
				    struct err *err)
{
	enum sasl_client_mechanism mechanism = choose(credentials, offered);
	struct sasl_client *sasl;

	if (mechanism == SASL_CLIENT_NONE) {
		refuse(credentials, offered, err);
		return NULL;
	}
	if (check(credentials, mechanism, err) < 0)
		return NULL;
	sasl = xcalloc(1, sizeof(*sasl));
	sasl->mechanism = mechanism;
	sasl->username = xstrdup(credentials->username);
	sasl->secret = xstrdup(credentials->secret);
	sasl->host = xstrdup(credentials->host ? credentials->host : "");
	sasl->port = credentials->port;
	return sasl;
}

void sasl_client_free(struct sasl_client **sasl)
{
	if (!*sasl)
		return;
	sodium_memzero((*sasl)->secret, strlen((*sasl)->secret));
	free((*sasl)->secret);
	free((*sasl)->username);
	free((*sasl)->host);
	free(*sasl);
	*sasl = NULL;
}

enum sasl_client_mechanism sasl_client_chosen(const struct sasl_client *sasl)
{
	return sasl->mechanism;
}

/* RFC 5801 §4: the saslname of the GS2 header. */
static void append_saslname(struct buf *out, const char *name)
{
	for (; *name; name++) {
		if (*name == ',')
			buf_append_str(out, "=2C");
		else if (*name == '=')
			buf_append_str(out, "=3D");
		else
			buf_append_byte(out, *name);
	}
}

static void message_oauthbearer(const struct sasl_client *sasl, struct buf *out)
{
	buf_append_str(out, "n,a=");
	append_saslname(out, sasl->username);
	buf_append_str(out, ",\001");
	if (sasl->host[0])
		buf_printf(out, "host=%s\001", sasl->host);
	if (sasl->port)
		buf_printf(out, "port=%u\001", sasl->port);
	buf_printf(out, "auth=Bearer %s\001\001", sasl->secret);
}

/* The response of this step before base64. False: the mechanism has no more. */
static bool message(const struct sasl_client *sasl, struct buf *out)
{
	if (sasl->mechanism == SASL_CLIENT_LOGIN) {
		buf_append_str(out, sasl->step == 0 ? sasl->username : sasl->secret);
		return sasl->step < 2;
	}
	if (sasl->step > 0) {
		/* The end of the exchange after the server's words about a refused token: an empty line for XOAUTH2, ^A
		 * for OAUTHBEARER (RFC 7628 §3.2.3). */
		if (sasl->mechanism == SASL_CLIENT_OAUTHBEARER)
			buf_append_byte(out, 1);
		return sasl->step == 1 && is_token_mechanism(sasl->mechanism);
	}
	if (sasl->mechanism == SASL_CLIENT_PLAIN) {
		buf_append(out, slice_of("", 1));
		buf_append_str(out, sasl->username);
		buf_append(out, slice_of("", 1));
		buf_append_str(out, sasl->secret);
	} else if (sasl->mechanism == SASL_CLIENT_XOAUTH2) {
		buf_printf(out, "user=%s\001auth=Bearer %s\001\001", sasl->username, sasl->secret);
	} else {
		message_oauthbearer(sasl, out);
	}
	return true;
}

/* Appends base64 without another copy of the secret in memory. */
static void append_base64(struct buf *out, struct slice bytes)
{
	size_t size = sodium_base64_encoded_len(bytes.len, sodium_base64_VARIANT_ORIGINAL);
	char *at = buf_reserve(out, size);

	BUG_ON(!at);
	sodium_bin2base64(at, size, (const unsigned char *)bytes.ptr, bytes.len, sodium_base64_VARIANT_ORIGINAL);
	buf_commit(out, size - 1);
}

static void wipe(struct buf *buf)
{
	if (buf->data)
		sodium_memzero(buf->data, buf->cap);
	buf_fini(buf);
}

void sasl_client_start(struct sasl_client *sasl, struct buf *out)
{
	struct buf plain;
	size_t line;

	buf_printf(out, "AUTH %s", names[sasl->mechanism]);
	buf_init(&plain, RESPONSE_MAX_BYTES);
	/* All at once: a block that grows leaves its old bytes behind. */
	BUG_ON(!buf_reserve(&plain, RESPONSE_MAX_BYTES));
	if (sasl->mechanism != SASL_CLIENT_LOGIN && message(sasl, &plain)) {
		line = sizeof("AUTH  \r\n") - 1 + strlen(names[sasl->mechanism]) + (buf_len(&plain) + 2) / 3 * 4;
		if (line <= LINE_MAX_BYTES) {
			buf_append_byte(out, ' ');
			append_base64(out, buf_slice(&plain));
			sasl->step = 1;
		}
	}
	buf_append_str(out, "\r\n");
	wipe(&plain);
}

/* The JSON that a refused token is answered with (RFC 7628 §3.2.2). */
static void keep_detail(struct sasl_client *sasl, struct slice challenge)
{
	char text[DETAIL_MAX_BYTES * 2];
	size_t len;

	challenge = slice_to(slice_trim(challenge), sizeof(text) / 3 * 4);
	if (challenge.len == 0 || !base64_decode(challenge, BASE64_PADDED, NULL, text, sizeof(text), &len))
		return;
	sasl->detail[0] = '\0';
	smtp_reply_append_text(sasl->detail, sizeof(sasl->detail), slice_trim(slice_of(text, len)));
}

void sasl_client_respond(struct sasl_client *sasl, struct slice challenge, struct buf *out)
{
	struct buf plain;

	if (sasl->step > 0 && is_token_mechanism(sasl->mechanism))
		keep_detail(sasl, challenge);
	buf_init(&plain, RESPONSE_MAX_BYTES);
	BUG_ON(!buf_reserve(&plain, RESPONSE_MAX_BYTES));
	if (message(sasl, &plain)) {
		append_base64(out, buf_slice(&plain));
		buf_append_str(out, "\r\n");
		sasl->step++;
	} else {
		buf_append_str(out, "*\r\n");
	}
	wipe(&plain);
}

const char *sasl_client_detail(const struct sasl_client *sasl)
{
	return sasl->detail;
}
