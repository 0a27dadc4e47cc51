#include "tls/trust.h"

#include "base/base.h"
#include "tls/internal.h"
#include "tls/pem.h"

#include <fcntl.h>
#include <stdlib.h>

struct tls_trust {
	unsigned refs;
	gnutls_x509_trust_list_t list; /* NULL: the system's, not read yet */
};

struct tls_trust *tls_trust_new_system(void)
{
	struct tls_trust *trust = xcalloc(1, sizeof(*trust));

	trust->refs = 1;
	return trust;
}

struct tls_trust *tls_trust_new_file(const char *path, struct err *err)
{
	struct pem_certificates authorities = {0};
	gnutls_datum_t text = {0};
	struct tls_trust *trust = NULL;

	if (pem_read_file(AT_FDCWD, path, &text, err) < 0)
		return NULL;
	if (pem_certificates_parse(&text, path, &authorities, err) == 0) {
		trust = tls_trust_new_system();
		BUG_ON(gnutls_x509_trust_list_init(&trust->list, 0) < 0);
		/* The list takes the certificates over, the array stays ours. */
		gnutls_x509_trust_list_add_cas(trust->list, authorities.list, authorities.count,
					       GNUTLS_TL_NO_DUPLICATES);
		gnutls_free(authorities.list);
	}
	pem_text_free(&text);
	return trust;
}

struct tls_trust *tls_trust_ref(struct tls_trust *trust)
{
	trust->refs++;
	return trust;
}

void tls_trust_unref(struct tls_trust **trust)
{
	struct tls_trust *gone = *trust;

	*trust = NULL;
	if (!gone || --gone->refs)
		return;
	if (gone->list)
		gnutls_x509_trust_list_deinit(gone->list, 1);
	free(gone);
}

int tls_trust_list(struct tls_trust *trust, gnutls_x509_trust_list_t *out, struct err *err)
{
	gnutls_x509_trust_list_t list;
	int count;

	if (!trust->list) {
		BUG_ON(gnutls_x509_trust_list_init(&list, 0) < 0);
		count = gnutls_x509_trust_list_add_system_trust(list, GNUTLS_TL_NO_DUPLICATES, 0);
		if (count <= 0) {
			gnutls_x509_trust_list_deinit(list, 1);
			return err_set(
			    err, ERR_CRYPTO,
			    "this system has no trusted certification authorities (install ca-certificates)");
		}
		trust->list = list;
	}
	*out = trust->list;
	return 0;
}
