/*
 * dkim/select.h - which domain signs for a From address
 *
 * The exact domain, else the nearest parent that has a key (DMARC's relaxed alignment holds: RFC 7489 section 3.1.1),
 * else the default entry, else none. Names are compared as A-labels in lower case, so a From with U-labels finds its
 * key. The keys themselves are elsewhere: an entry carries a number of the caller's.
 */
#ifndef DKIM_SELECT_H
#define DKIM_SELECT_H

#include "base/err.h"
#include "base/slice.h"

struct dkim_domains;

struct dkim_domains *dkim_domains_new(void);
/* Accepts NULL in *domains; sets it to NULL. */
void dkim_domains_free(struct dkim_domains **domains);
/* Copies `domain` (A- or U-labels, any case). `id`: what _find() will give. ERR_SYNTAX: no domain; ERR_EXISTS: twice.
 */
int dkim_domains_add(struct dkim_domains *domains, struct slice domain, uint32_t id, struct err *err);
/* Names one of those added as the default. ERR_NOT_FOUND. */
int dkim_domains_set_default(struct dkim_domains *domains, struct slice domain);
size_t dkim_domains_count(const struct dkim_domains *domains);

/*
 * `from_domain`: what stands after the last @ of the From address. Anything that is no domain (empty, an address
 * literal, broken labels) gets the default entry. False: nobody signs for it. *domain: the d= to use, valid until the
 * set is freed or added to.
 */
bool dkim_domains_find(const struct dkim_domains *domains, struct slice from_domain, struct slice *domain,
		       uint32_t *id);

enum { DKIM_DOMAIN_MAX_BYTES = 253 };
/* Domain in A-labels (base/idna.h) and lower case, without a final dot, NUL-terminated. ERR_SYNTAX. */
int dkim_domain_to_ascii(struct slice domain, char out[DKIM_DOMAIN_MAX_BYTES + 1]);

#endif
