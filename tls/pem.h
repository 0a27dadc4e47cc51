/*
 * tls/pem.h - certificates and keys out of PEM files, with words for every mistake; for tls/ alone
 */
#ifndef TLS_PEM_H
#define TLS_PEM_H

#include "base/err.h"
#include "base/slice.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#define PEM_FILE_MAX (1024 * 1024)

struct pem_certificates {
	gnutls_x509_crt_t *list; /* freed by pem_certificates_free() */
	unsigned count;
};

/* The whole file, NUL-terminated, to be freed by pem_text_free(), which wipes it. `name` is relative to `dirfd`. */
int pem_read_file(int dirfd, const char *name, gnutls_datum_t *out, struct err *err);
void pem_text_free(gnutls_datum_t *text);

/* At least one. `path` is for the words only. */
int pem_certificates_parse(const gnutls_datum_t *text, const char *path, struct pem_certificates *out, struct err *err);
/* Puts the certificate of `key` first, then its issuer, and so on; what does not belong to the chain is dropped. False:
 * the key belongs to none of them. */
bool pem_certificates_order(struct pem_certificates *certificates, gnutls_x509_privkey_t key);
void pem_certificates_free(struct pem_certificates *certificates);
/* Any kind of unencrypted key. */
int pem_key_parse(const gnutls_datum_t *text, const char *path, gnutls_x509_privkey_t *out, struct err *err);
/* Is it the key of this certificate? */
bool pem_key_belongs_to(gnutls_x509_privkey_t key, gnutls_x509_crt_t certificate);

#endif
