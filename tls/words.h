/*
 * tls/words.h - GnuTLS's error codes as a person would say them; for tls/ alone
 */
#ifndef TLS_WORDS_H
#define TLS_WORDS_H

#include "tls/internal.h"

/* Fills `err` for a failed handshake. `first_byte`: the first octet that the peer sent, -1: none. */
void words_of_handshake(gnutls_session_t session, const struct tls_credentials *credentials, int code, int first_byte,
			struct err *err);
/* The same for reading or writing later on. */
void words_of_record(gnutls_session_t session, int code, struct err *err);

#endif
