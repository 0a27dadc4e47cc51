/*
 * What holds for each TLS session of the process, those of libcurl too.
 *
 * libcurl's TLS sessions look at their peer's key as ours do (tls/session.c): a policy server of MTA-STS is as strange
 * as a mail host. libcurl gives no access to a session before its handshake is over, so each session gets the hook
 * where it is made: this definition of gnutls_init() comes before the library's, for the whole process.
 */
#include "base/base.h"
#include "tls/verify.h"

#include <dlfcn.h>

/* Of one handshake message, which the certificates are: a hundred fit in here. GnuTLS would take twice as much, and 0.2 s
 * each time it reads a certificate that is all names. */
#define MESSAGE_MAX (64 * 1024)

static int on_message(gnutls_session_t gnutls, unsigned type, unsigned when, unsigned is_incoming,
		      const gnutls_datum_t *message)
{
	/* The next that comes, by which GnuTLS computes with the key. */
	bool needs_key = type == GNUTLS_HANDSHAKE_SERVER_KEY_EXCHANGE || type == GNUTLS_HANDSHAKE_SERVER_HELLO_DONE ||
			 type == GNUTLS_HANDSHAKE_CERTIFICATE_VERIFY;
	unsigned count = 0;
	const gnutls_datum_t *chain = is_incoming && needs_key ? gnutls_certificate_get_peers(gnutls, &count) : NULL;

	(void)when;
	(void)message;
	return chain && count && verify_leaf(chain, NULL) < 0 ? GNUTLS_E_CERTIFICATE_ERROR : 0;
}

__attribute__((visibility("default"))) int gnutls_init(gnutls_session_t *session, unsigned flags)
{
	static int (*of_library)(gnutls_session_t *, unsigned);
	int rc;

	if (!of_library)
		*(void **)&of_library = dlsym(RTLD_NEXT, "gnutls_init");
	BUG_ON(!of_library);
	rc = of_library(session, flags);
	if (rc != 0)
		return rc;
	gnutls_handshake_set_max_packet_length(*session, MESSAGE_MAX);
	gnutls_handshake_set_hook_function(*session, GNUTLS_HANDSHAKE_ANY, GNUTLS_HOOK_PRE, on_message);
	return 0;
}
