/* What the DKIM tests share: keys that RFCs publish, a plain second implementation of the canonical forms, and a
 * verifier made of it and GnuTLS. Nothing here uses the code under test except buffers. */
#ifndef SUPPORT_DKIM_H
#define SUPPORT_DKIM_H

#include "base/buf.h"
#include "dkim/dkim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* RFC 6376 appendix C (selector brisbane of example.com), 1024 bits. */
extern const char rfc6376_rsa_pem[], rfc6376_rsa_public[];
/* RFC 8463 appendix A.2: "test" (RSA, 1024 bits) and "brisbane" (Ed25519) of football.example.com. */
extern const char rfc8463_rsa_pem[], rfc8463_rsa_public[];
extern const char rfc8463_ed25519_pem[], rfc8463_ed25519_public[];
/* The message of both RFCs, without signatures; `body` is its body. */
extern const char rfc_header[], rfc_body[];

/* A canonical sink that appends to a struct buf. */
void collect(void *ctx, struct slice bytes);

/* Canonical forms by copying and rewriting whole texts. */
void plain_body(struct buf *out, struct slice body, bool is_relaxed);
void plain_field(struct buf *out, struct slice raw);

/* base64 of `octets`; the caller frees. */
char *to_base64(const void *octets, size_t len);

/* Whether GnuTLS accepts `signature` over the SHA-256 `digest`; `public_key`: as in p=. */
bool gnutls_accepts(enum dkim_algorithm algorithm, const char *public_key, const unsigned char *digest,
		    struct slice signature);

enum verdict { PASS, NO_SIGNATURE, BAD_BODY, BAD_SIGNATURE };
/* Judges the `index`-th DKIM-Signature (relaxed/relaxed) of a whole message. */
enum verdict verify_message(struct slice message, unsigned index, const char *public_key);

/* The value of a tag of a DKIM-Signature field, without blanks; the caller frees. NULL: absent. */
char *tag_of(struct slice field, const char *tag);

#endif
