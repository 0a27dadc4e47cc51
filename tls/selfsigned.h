/*
 * tls/selfsigned.h - a certificate for those who have none: self-signed, ECDSA P-256
 *
 * One PEM file holds key and certificate, so that replacing it is one rename: hand its path to both
 * certificate_file and key_file (or leave key_file NULL).
 */
#ifndef TLS_SELFSIGNED_H
#define TLS_SELFSIGNED_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tls_selfsigned_options {
	const char *hostname;	  /* first subjectAltName, and the subject's CN if it fits (64 octets) */
	const char *const *names; /* more of them: DNS names or IP addresses, e.g. "localhost", "127.0.0.1", "::1" */
	size_t name_count;
	int64_t now_wall_ms;
};

/*
 * Makes sure that `name` in directory `dirfd` (AT_FDCWD: a path) holds such a certificate for all of these names, good
 * for at least 30 days more; otherwise writes a new one, valid for ten years: 0600, by rename, synced. *created (may be
 * NULL) tells. A file that is there but is not a certificate with its key is never overwritten: ERR_CONFIG, so that a
 * person's own file is safe. Blocks for a few ms.
 */
int tls_selfsigned_ensure(int dirfd, const char *name, const struct tls_selfsigned_options *options, bool *created,
			  struct err *err);

#endif
