/*
 * tls/fingerprint.h - SHA-256 of a certificate or of its public key, to pin a peer
 */
#ifndef TLS_FINGERPRINT_H
#define TLS_FINGERPRINT_H

#include "base/err.h"
#include "base/slice.h"

#define TLS_FINGERPRINT_BYTES 32
#define TLS_FINGERPRINT_CHARS 64

/* Of the whole certificate (as `openssl x509 -fingerprint -sha256` prints it) or of its SubjectPublicKeyInfo: a match
 * of either counts. */
struct tls_fingerprint {
	uint8_t bytes[TLS_FINGERPRINT_BYTES];
};

/*
 * 64 hexadecimal digits, in either case, with or without colons or blanks between pairs; a leading "sha256:" or "SHA256
 * Fingerprint=" is passed over. ERR_SYNTAX with words, for example for an MD5 or SHA-1 fingerprint.
 */
int tls_fingerprint_parse(struct slice text, struct tls_fingerprint *out, struct err *err);
/* Lower-case hexadecimal digits and a NUL. */
void tls_fingerprint_format(const struct tls_fingerprint *fingerprint, char out[TLS_FINGERPRINT_CHARS + 1]);

#endif
