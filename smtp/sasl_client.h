/*
 * smtp/sasl_client.h - our side of AUTH at a relayhost: PLAIN, LOGIN, XOAUTH2, OAUTHBEARER
 *
 * Used by smtp/client.c. PLAIN: RFC 4616. LOGIN: draft-murchison-sasl-login. XOAUTH2: Google's and Microsoft's
 * documents. OAUTHBEARER: RFC 7628. The exchange on the line: RFC 4954 §4.
 *
 * An initial response is given with AUTH when the line stays within 512 octets, otherwise after an empty challenge
 * (tokens have 1 to 2.5 KB). LOGIN never has one. The secret is copied, and wiped by sasl_client_free(). Whoever sends
 * the lines made here wipes them too.
 */
#ifndef SMTP_SASL_CLIENT_H
#define SMTP_SASL_CLIENT_H

#include "base/buf.h"
#include "base/err.h"

enum sasl_client_mechanism {
	SASL_CLIENT_NONE = 0, /* do not authenticate */
	SASL_CLIENT_AUTO,     /* what the server offers: PLAIN, LOGIN; for a token OAUTHBEARER, XOAUTH2 */
	SASL_CLIENT_PLAIN,
	SASL_CLIENT_LOGIN,
	SASL_CLIENT_XOAUTH2,
	SASL_CLIENT_OAUTHBEARER,
	SASL_CLIENT_MECHANISM_COUNT,
};

/* A set of mechanisms: bit 1 << mechanism. */
#define SASL_CLIENT_BIT(mechanism) (1u << (mechanism))

/* "PLAIN"; "" for SASL_CLIENT_NONE and SASL_CLIENT_AUTO. */
const char *sasl_client_mechanism_name(enum sasl_client_mechanism mechanism);
/* Of one word of an AUTH line, in any case; SASL_CLIENT_NONE: not one of ours. */
enum sasl_client_mechanism sasl_client_mechanism_parse(struct slice word);

/* Borrowed for the call. */
struct sasl_client_credentials {
	enum sasl_client_mechanism mechanism;
	const char *username;
	const char *secret;   /* the password, or the access token */
	bool secret_is_token; /* only SASL_CLIENT_AUTO asks */
	const char *host;     /* OAUTHBEARER: the server's name; NULL: left out */
	uint16_t port;	      /* OAUTHBEARER; 0: left out */
};

struct sasl_client;

/* `offered`: the mechanisms of the server's AUTH line. NULL: `err` says that the server offers none of those that may
 * be used (ERR_UNSUPPORTED), or that user name or secret cannot be sent (ERR_SYNTAX). */
struct sasl_client *sasl_client_new(const struct sasl_client_credentials *credentials, unsigned offered,
				    struct err *err);
/* Wipes the secret. Accepts NULL, sets *sasl to NULL. */
void sasl_client_free(struct sasl_client **sasl);
enum sasl_client_mechanism sasl_client_chosen(const struct sasl_client *sasl);

/* Appends "AUTH PLAIN ...\r\n". `out` must have room for 16 KiB. */
void sasl_client_start(struct sasl_client *sasl, struct buf *out);
/* The answer to a 334; `challenge` is its text, still in base64. Appends one line: the response, or "*\r\n" (cancel)
 * when the server asks for more than the mechanism has; a 5yz follows then. */
void sasl_client_respond(struct sasl_client *sasl, struct slice challenge, struct buf *out);
/* What the server said in a challenge about a refused token, as a printable line; "" when it said nothing. Lives as the
 * object. */
const char *sasl_client_detail(const struct sasl_client *sasl);

#endif
