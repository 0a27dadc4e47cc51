/*
 * tls/tls.h - the words that all of tls/ share
 */
#ifndef TLS_TLS_H
#define TLS_TLS_H

#include <stdint.h>

/* What a call on a session came to. */
enum tls_status {
	TLS_OK,	    /* done; for a read: bytes are there */
	TLS_AGAIN,  /* needs more ciphertext from the peer, or (write) room in the output */
	TLS_CLOSED, /* the peer has ended TLS or the connection; nothing more can be read */
	TLS_FAILED, /* broken for good, `struct err` says why; send what tls_session_output() still has, then close */
};

/* The lowest protocol version that is spoken. TLS 1.3 is always allowed. */
enum tls_version {
	TLS_VERSION_1_2 = 0, /* the default */
	TLS_VERSION_1_3,
	TLS_VERSION_LEGACY, /* 1.0 and up, for opportunistic deliveries only: better than plain text */
};

/* Longest certificate chain that is looked at (the leaf included). */
#define TLS_CHAIN_MAX 16

/* "1.2", "1.3", "1.0". */
const char *tls_version_name(enum tls_version version);

#endif
