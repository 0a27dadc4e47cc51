#include "tls/words.h"

#define CONTENT_ALERT 21
#define CONTENT_HANDSHAKE 22
#define SSL2_HELLO 0x80

static void tell_alert(gnutls_session_t session, const char *during, struct err *err)
{
	gnutls_alert_description_t alert = gnutls_alert_get(session);
	const char *name = gnutls_alert_get_name(alert);

	err_set(err, ERR_CRYPTO, "the peer ended %s with the alert \"%s\" (%d)", during, name ? name : "unknown",
		(int)alert);
}

static bool is_tls(int first_byte)
{
	return first_byte < 0 || first_byte == CONTENT_HANDSHAKE || first_byte == CONTENT_ALERT ||
	       first_byte == SSL2_HELLO;
}

void words_of_handshake(gnutls_session_t session, const struct tls_credentials *credentials, int code, int first_byte,
			struct err *err)
{
	if (first_byte >= ' ' && first_byte < 0x7F) {
		err_set(err, ERR_CRYPTO, "the peer speaks plain text, not TLS: does it expect STARTTLS?");
		return;
	}
	if (!is_tls(first_byte)) {
		err_set(err, ERR_CRYPTO, "the peer does not speak TLS (its first octet is 0x%02x)", first_byte);
		return;
	}
	switch (code) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED: tell_alert(session, "the TLS handshake", err); break;
	case GNUTLS_E_PREMATURE_TERMINATION:
	case GNUTLS_E_PULL_ERROR:
		err_set(err, ERR_CLOSED, "the peer closed the connection in the TLS handshake");
		break;
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
		err_set(err, ERR_CRYPTO, "the peer offers no TLS version that is allowed here (at least %s)",
			tls_version_name(credentials->min_version));
		break;
	case GNUTLS_E_NO_CIPHER_SUITES:
	case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
	case GNUTLS_E_NO_COMMON_KEY_SHARE:
		err_set(err, ERR_CRYPTO, "no cipher suite or key exchange is common to both sides (TLS %s and up)",
			tls_version_name(credentials->min_version));
		break;
	case GNUTLS_E_DECRYPTION_FAILED: /* an alert in clear text, where TLS 1.3 has keys already */
		err_set(err, ERR_CRYPTO,
			"the peer broke off the TLS handshake; perhaps it does not trust this certificate");
		break;
	case GNUTLS_E_NO_APPLICATION_PROTOCOL:
		err_set(err, ERR_CRYPTO, "the peer wants to speak another protocol than SMTP (ALPN)");
		break;
	case GNUTLS_E_HANDSHAKE_TOO_LARGE: err_set(err, ERR_LIMIT, "the peer's handshake message is too large"); break;
	default: err_set(err, ERR_CRYPTO, "TLS handshake failed: %s", gnutls_strerror(code));
	}
}

void words_of_record(gnutls_session_t session, int code, struct err *err)
{
	switch (code) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED: tell_alert(session, "the TLS session", err); break;
	case GNUTLS_E_REHANDSHAKE:
		err_set(err, ERR_CRYPTO, "the peer asked for a renegotiation, which is refused");
		break;
	case GNUTLS_E_TOO_MANY_EMPTY_PACKETS:
	case GNUTLS_E_TOO_MANY_HANDSHAKE_PACKETS:
		err_set(err, ERR_LIMIT, "the peer floods the TLS session with empty records or key updates");
		break;
	case GNUTLS_E_DECRYPTION_FAILED: err_set(err, ERR_CRYPTO, "a TLS record was damaged or forged"); break;
	default: err_set(err, ERR_CRYPTO, "TLS session failed: %s", gnutls_strerror(code));
	}
}
