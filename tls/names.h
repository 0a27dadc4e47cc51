/*
 * tls/names.h - whom a certificate is for; for tls/ alone
 */
#ifndef TLS_NAMES_H
#define TLS_NAMES_H

#include "base/buf.h"

#include <gnutls/x509.h>

/* An IP address in text, as bytes. 0: it is none; otherwise 4 or 16. */
size_t names_parse_address(const char *text, unsigned char out[16]);
/* Does the certificate name this host (wildcards count) or this IP address? */
bool names_certificate_is_for(gnutls_x509_crt_t certificate, const char *name);
/* At most `most` subject alternative names (the common name when there are none), separated by ", ", printable. */
void names_format(gnutls_x509_crt_t certificate, unsigned most, struct buf *out);
/* The subject's common name, printable; "" when there is none. */
void names_common_name(gnutls_x509_crt_t certificate, char *out, size_t size);
/* Is it issued by itself? */
bool names_is_selfsigned(gnutls_x509_crt_t certificate);
/* "2024-01-31" */
void names_format_date(time_t at, char out[16]);

#endif
