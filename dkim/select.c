#include "dkim/select.h"

#include "base/base.h"
#include "dkim/dkim.h"

#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <uthash.h>

/* U-labels take at most four octets a character. */
enum { U_DOMAIN_MAX_BYTES = 4 * DKIM_DOMAIN_MAX_BYTES };

struct domain {
	char name[DKIM_DOMAIN_MAX_BYTES + 1]; /* A-labels, lower case */
	uint32_t id;
	UT_hash_handle hh;
};

struct dkim_domains {
	struct domain *by_name;
	struct domain *fallback; /* the default entry, or NULL */
};

struct dkim_domains *dkim_domains_new(void)
{
	return xcalloc(1, sizeof(struct dkim_domains));
}

void dkim_domains_free(struct dkim_domains **domains)
{
	struct domain *domain, *next;

	if (!*domains)
		return;
	HASH_ITER(hh, (*domains)->by_name, domain, next)
	{
		HASH_DEL((*domains)->by_name, domain);
		free(domain);
	}
	free(*domains);
	*domains = NULL;
}

static bool is_ascii(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if ((unsigned char)text.ptr[i] >= 0x80)
			return false;
	return true;
}

/* The mapping drops blanks, ";" and "=" silently: a broken address must not end up with somebody's key. */
static bool may_be_u_labels(struct slice domain)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

	if (domain.len > U_DOMAIN_MAX_BYTES)
		return false;
	for (size_t i = 0; i < domain.len; i++)
		if ((unsigned char)domain.ptr[i] < 0x80 && !memchr(letters, domain.ptr[i], sizeof(letters) - 1))
			return false;
	return true;
}

static int copy_lower(struct slice domain, char out[DKIM_DOMAIN_MAX_BYTES + 1])
{
	if (!dkim_is_domain(domain))
		return ERR_SYNTAX;
	for (size_t i = 0; i < domain.len; i++)
		out[i] = domain.ptr[i] >= 'A' && domain.ptr[i] <= 'Z' ? (char)(domain.ptr[i] | 0x20) : domain.ptr[i];
	out[domain.len] = '\0';
	return 0;
}

/* ASCII goes past GnuTLS: names with "_" are no host names, but From addresses and keys have them. */
int dkim_domain_to_ascii(struct slice domain, char out[DKIM_DOMAIN_MAX_BYTES + 1])
{
	gnutls_datum_t mapped = {NULL, 0};
	int rc;

	if (domain.len > 0 && domain.ptr[domain.len - 1] == '.')
		domain.len--;
	if (is_ascii(domain))
		return copy_lower(domain, out);
	if (!may_be_u_labels(domain))
		return ERR_SYNTAX;
	if (gnutls_idna_map(domain.ptr, (unsigned)domain.len, &mapped, 0) < 0)
		return ERR_SYNTAX;
	rc = copy_lower(slice_of(mapped.data, mapped.size), out);
	gnutls_free(mapped.data);
	return rc;
}

static struct domain *find_exact(const struct dkim_domains *domains, const char *name)
{
	struct domain *found;

	HASH_FIND_STR(domains->by_name, name, found);
	return found;
}

int dkim_domains_add(struct dkim_domains *domains, struct slice domain, uint32_t id, struct err *err)
{
	struct domain *added = xcalloc(1, sizeof(*added));

	added->id = id;
	if (dkim_domain_to_ascii(domain, added->name) < 0) {
		free(added);
		return err_set(err, ERR_SYNTAX, "'%.*s' is not a domain", SLICE_ARG(slice_to(domain, 255)));
	}
	if (find_exact(domains, added->name)) {
		int rc = err_set(err, ERR_EXISTS, "domain '%s' stands twice", added->name);
		free(added);
		return rc;
	}
	HASH_ADD_STR(domains->by_name, name, added);
	return 0;
}

int dkim_domains_set_default(struct dkim_domains *domains, struct slice domain)
{
	char name[DKIM_DOMAIN_MAX_BYTES + 1];
	struct domain *found = NULL;

	if (dkim_domain_to_ascii(domain, name) == 0)
		found = find_exact(domains, name);
	if (!found)
		return ERR_NOT_FOUND;
	domains->fallback = found;
	return 0;
}

size_t dkim_domains_count(const struct dkim_domains *domains)
{
	return HASH_COUNT(domains->by_name);
}

static struct domain *find_nearest(const struct dkim_domains *domains, struct slice from_domain)
{
	char name[DKIM_DOMAIN_MAX_BYTES + 1];

	if (dkim_domain_to_ascii(from_domain, name) < 0)
		return NULL;
	for (const char *at = name; at; at = strchr(at, '.')) {
		struct domain *found;
		at += *at == '.';
		found = find_exact(domains, at);
		if (found)
			return found;
	}
	return NULL;
}

bool dkim_domains_find(const struct dkim_domains *domains, struct slice from_domain, struct slice *domain, uint32_t *id)
{
	const struct domain *found = find_nearest(domains, from_domain);

	if (!found)
		found = domains->fallback;
	if (!found)
		return false;
	*domain = slice_of_str(found->name);
	*id = found->id;
	return true;
}
