/*
 * relayd/oauth2_grant.h - what is said to a token endpoint, and what it answers (RFC 6749); pure functions
 *
 * Grants: refresh_token (section 6) where there is one, else client_credentials (section 4.4). The client authenticates
 * in the body (section 2.3.1), which Microsoft and Google want.
 */
#ifndef RELAYD_OAUTH2_GRANT_H
#define RELAYD_OAUTH2_GRANT_H

#include "base/buf.h"
#include "config/config.h"

/* Microsoft's and Google's, unless token_url is set. False: it does not fit. */
bool oauth2_endpoint(const struct config_oauth2 *oauth2, char *out, size_t size);
/* Appends the form. `client_secret` and `refresh_token` may be NULL. ERR_LIMIT: too long for `out`. */
int oauth2_form(const struct config_oauth2 *oauth2, const char *client_secret, const char *refresh_token,
		struct buf *out);

enum oauth2_verdict {
	OAUTH2_GRANTED,
	OAUTH2_REFUSED, /* our account is in trouble: invalid_grant, invalid_client ... (section 5.2) */
	OAUTH2_UNABLE,	/* the endpoint is: an error of its own, a limit, or no answer that makes sense */
};

enum { OAUTH2_TOKEN_MAX = 8000, OAUTH2_WORDS_MAX = 300 };

/* Strings are the caller's: config_secret_wipe(). */
struct oauth2_answer {
	enum oauth2_verdict verdict;
	char *access_token;	      /* granted */
	char *refresh_token;	      /* granted, when there is another one; else NULL */
	int64_t expires_in_sec;	      /* granted; half an hour when it does not say */
	char words[OAUTH2_WORDS_MAX]; /* unless granted: "invalid_grant: ..."; one printable line */
};

/* `status` of HTTP. The words never hold one of the `secrets` (each may be NULL). */
void oauth2_read_answer(int status, struct slice body, const char *const secrets[], size_t secret_count,
			struct oauth2_answer *out);

#endif
