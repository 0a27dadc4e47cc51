/*
 * dkim/key.h - private keys: load, sign, generate, write
 *
 * Used inside the signing helper, and by relayctl for `dkim keygen`, `show` and `check`; the daemon that parses bytes
 * from the network never holds one.
 *
 * RSA signs with libcrypto (2048 bits: 0.25 ms with AVX-512 IFMA, 0.7 ms without; GnuTLS 1.4 to 1.6 ms), blinding on,
 * and with GnuTLS where it is built without (make LIBCRYPTO=0); Ed25519 with libsodium (RFC 8463 section 3: PureEdDSA
 * over the SHA-256 digest). Whatever is set up per key is kept, so a signature costs the private-key operation alone.
 * Secrets are wiped when they are no longer needed.
 */
#ifndef DKIM_KEY_H
#define DKIM_KEY_H

#include "base/buf.h"
#include "base/err.h"
#include "dkim/dkim.h"

#include <sys/types.h>

struct dkim_key;

enum { DKIM_KEY_FILE_MAX_BYTES = 64 * 1024 };

/* What a person should hear about a key that works nevertheless. Bits. */
enum dkim_key_warning {
	DKIM_KEY_SMALL = 1,	     /* RSA below DKIM_RSA_WARN_BITS */
	DKIM_KEY_WORLD_READABLE = 2, /* the file may be read, or replaced, by any user of the machine */
};

/*
 * From PEM (PKCS#1 or PKCS#8, not encrypted; text around the block is skipped) or DER.
 * ERR_SYNTAX: no key, or encrypted; ERR_UNSUPPORTED: not RSA or Ed25519; ERR_LIMIT: RSA outside DKIM_RSA_MIN_BITS ..
 * DKIM_RSA_MAX_BITS; ERR_CRYPTO: its numbers do not belong together. The text of `err` never shows key material.
 */
int dkim_key_load(struct slice text, struct dkim_key **key, struct err *err);
/* The same from a regular file (links are followed; at most 64 KiB); the text of `err` begins with the path. */
int dkim_key_load_file(const char *path, struct dkim_key **key, struct err *err);
/* bits: RSA only, 0 means 2048. */
int dkim_key_generate(enum dkim_algorithm algorithm, unsigned bits, struct dkim_key **key, struct err *err);
/* Wipes and frees; accepts NULL in *key; sets it to NULL. */
void dkim_key_free(struct dkim_key **key);

enum dkim_algorithm dkim_key_algorithm(const struct dkim_key *key);
/* Of the modulus; 256 for Ed25519. */
unsigned dkim_key_bits(const struct dkim_key *key);
/* Bits of enum dkim_key_warning. */
unsigned dkim_key_warnings(const struct dkim_key *key);
/* For what the loader cannot know: where the key came from. */
void dkim_key_add_warning(struct dkim_key *key, enum dkim_key_warning warning);
/* One warning in words, for a log line. Static. */
const char *dkim_key_warning_text(enum dkim_key_warning warning);
/* What p= has in base64: the SubjectPublicKeyInfo of RSA, the 32 octets of Ed25519. Lives as long as the key. */
struct slice dkim_key_public(const struct dkim_key *key);

/* Signs one digest of dkim_signature_prepare(). *len: octets written. ERR_CRYPTO. */
int dkim_key_sign(struct dkim_key *key, const unsigned char digest[DKIM_DIGEST_BYTES],
		  unsigned char out[DKIM_SIGNATURE_MAX_BYTES], size_t *len);

/* Appends the private key as PKCS#8 PEM. The caller wipes `out` (sodium_memzero) before freeing it. */
int dkim_key_export(struct dkim_key *key, struct buf *out, struct err *err);
/*
 * Writes the private key as PKCS#8 PEM; mode as given (0600 for most), whatever the umask. The file is there whole and
 * synced, or not at all, and never takes the place of another: ERR_EXISTS. ERR_NO_SPACE, ERR_PERMISSION, ...
 */
int dkim_key_write_file(struct dkim_key *key, const char *path, mode_t mode, struct err *err);

#endif
