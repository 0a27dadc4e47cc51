#include "dkim/select.h"

#include "base/base.h"
#include "base/idna.h"
#include "dkim/dkim.h"

#include <stdlib.h>
#include <uthash.h>

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

static int copy_lower(struct slice domain, char out[DKIM_DOMAIN_MAX_BYTES + 1])
{
	if (!dkim_is_domain(domain))
		return ERR_SYNTAX;
	for (size_t i = 0; i < domain.len; i++)
		out[i] = domain.ptr[i] >= 'A' && domain.ptr[i] <= 'Z' ? (char)(domain.ptr[i] | 0x20) : domain.ptr[i];
	out[domain.len] = '\0';
	return 0;
}

int dkim_domain_to_ascii(struct slice domain, char out[DKIM_DOMAIN_MAX_BYTES + 1])
{
	struct buf ascii;
	int rc = ERR_SYNTAX;

	if (domain.len > 0 && domain.ptr[domain.len - 1] == '.')
		domain.len--;
	buf_init(&ascii, DKIM_DOMAIN_MAX_BYTES);
	if (idna_append_ascii(&ascii, domain))
		rc = copy_lower(buf_slice(&ascii), out);
	buf_fini(&ascii);
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
