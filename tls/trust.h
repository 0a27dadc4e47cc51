/*
 * tls/trust.h - whom we believe: a set of certification authorities
 *
 * Reference counted, shared by any number of credentials. The system's set costs 10 ms and 5 to 10 MB, so make one for
 * the whole process; it is read at the first verification, never before. A set from a file is read at once, so that a
 * mistake shows at the start.
 */
#ifndef TLS_TRUST_H
#define TLS_TRUST_H

#include "base/err.h"

struct tls_trust;

/* The system's authorities, read lazily. If that fails, the verification fails and the next one tries again. */
struct tls_trust *tls_trust_new_system(void);
/* The PEM certificates in `path`, read now. NULL: `err` says which file and what is wrong with it. */
struct tls_trust *tls_trust_new_file(const char *path, struct err *err);
struct tls_trust *tls_trust_ref(struct tls_trust *trust);
/* Drops one reference and sets *trust to NULL; accepts NULL. */
void tls_trust_unref(struct tls_trust **trust);

#endif
