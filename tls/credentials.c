#include "tls/credentials.h"

#include "base/base.h"
#include "base/buf.h"
#include "tls/internal.h"
#include "tls/names.h"
#include "tls/pem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

/* X25519 first saves a third of a handshake. The rest of NORMAL is sound: no anonymous, RC4 or 3DES suites. */
#define PRIORITY_BASE "NORMAL:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:-VERS-ALL:+VERS-TLS1.3"
/* A server chooses: only key exchanges with forward secrecy, and none that need a slow DH group (RFC 9325 §4.1). */
#define PRIORITY_SERVER ":-RSA:-DHE-RSA"
/* Receiving servers may know nothing but P-521, or, old ones, finite-field DH. */
#define PRIORITY_CLIENT ":+GROUP-SECP521R1:+GROUP-FFDHE2048:+GROUP-FFDHE3072"

static int set_priority(struct tls_credentials *credentials, enum tls_version min_version, struct err *err)
{
	static const char *const versions[] = {
	    [TLS_VERSION_1_2] = ":+VERS-TLS1.2",
	    [TLS_VERSION_1_3] = "",
	    [TLS_VERSION_LEGACY] = ":+VERS-TLS1.2:+VERS-TLS1.1:+VERS-TLS1.0:%COMPAT",
	};
	char text[300];
	int rc;

	BUG_ON(credentials->is_server && min_version == TLS_VERSION_LEGACY);
	snprintf(text, sizeof(text), "%s%s%s", PRIORITY_BASE, versions[min_version],
		 credentials->is_server ? PRIORITY_SERVER : PRIORITY_CLIENT);
	rc = gnutls_priority_init2(&credentials->priority, text, NULL, 0);
	if (rc < 0) /* the system-wide configuration of GnuTLS may forbid too much */
		return err_set(err, ERR_CRYPTO, "GnuTLS on this system allows no TLS %s: %s",
			       tls_version_name(min_version), gnutls_strerror(rc));
	credentials->min_version = min_version;
	return 0;
}

static struct tls_credentials *credentials_new(bool is_server, enum tls_version min_version, struct err *err)
{
	struct tls_credentials *credentials = xcalloc(1, sizeof(*credentials));

	credentials->refs = 1;
	credentials->is_server = is_server;
	credentials->expires_at_wall = INT64_MAX;
	BUG_ON(gnutls_certificate_allocate_credentials(&credentials->x509) < 0);
	if (set_priority(credentials, min_version, err) < 0)
		tls_credentials_unref(&credentials);
	return credentials;
}

static void describe(struct tls_credentials *credentials, const struct pem_certificates *chain)
{
	struct buf names;

	for (unsigned i = 0; i < chain->count; i++) {
		int64_t until = (int64_t)gnutls_x509_crt_get_expiration_time(chain->list[i]) * 1000;

		credentials->expires_at_wall = MIN(credentials->expires_at_wall, until);
	}
	credentials->is_selfsigned = names_is_selfsigned(chain->list[0]);
	buf_init(&names, 4096);
	names_format(chain->list[0], 16, &names);
	credentials->names = xmemdup(buf_slice(&names).ptr ? buf_slice(&names).ptr : "", buf_len(&names));
	buf_fini(&names);
}

static int use_pair(struct tls_credentials *credentials, struct pem_certificates *chain, gnutls_x509_privkey_t key,
		    const char *certificate_file, const char *key_file, struct err *err)
{
	int rc;

	if (chain->count > TLS_CHAIN_MAX)
		return err_set(err, ERR_CONFIG, "%s has more than %d certificates", certificate_file, TLS_CHAIN_MAX);
	if (!pem_certificates_order(chain, key))
		return err_set(err, ERR_CONFIG, "the key in %s does not belong to a certificate in %s", key_file,
			       certificate_file);
	rc = gnutls_certificate_set_x509_key(credentials->x509, chain->list, (int)chain->count, key);
	if (rc < 0)
		return err_set(err, ERR_CRYPTO, "%s: cannot use certificate and key: %s", certificate_file,
			       gnutls_strerror(rc));
	describe(credentials, chain);
	return 0;
}

static int load_pair(struct tls_credentials *credentials, const char *certificate_file, const char *key_file,
		     struct err *err)
{
	struct pem_certificates chain = {0};
	gnutls_datum_t certificate_text = {0}, key_text = {0};
	gnutls_x509_privkey_t key = NULL;
	int rc;

	if (!key_file)
		key_file = certificate_file;
	rc = pem_read_file(AT_FDCWD, certificate_file, &certificate_text, err);
	if (rc == 0)
		rc = pem_certificates_parse(&certificate_text, certificate_file, &chain, err);
	if (rc == 0)
		rc = pem_read_file(AT_FDCWD, key_file, &key_text, err);
	if (rc == 0)
		rc = pem_key_parse(&key_text, key_file, &key, err);
	if (rc == 0)
		rc = use_pair(credentials, &chain, key, certificate_file, key_file, err);
	if (key)
		gnutls_x509_privkey_deinit(key);
	pem_certificates_free(&chain);
	pem_text_free(&key_text);
	pem_text_free(&certificate_text);
	return rc;
}

struct tls_credentials *tls_credentials_new_server(const struct tls_server_credentials_options *options,
						   struct err *err)
{
	struct tls_credentials *credentials = credentials_new(true, options->min_version, err);

	if (!credentials)
		return NULL;
	if (load_pair(credentials, options->certificate_file, options->key_file, err) < 0) {
		tls_credentials_unref(&credentials);
		return NULL;
	}
	if (options->client_ca_file) {
		credentials->asks_client = true;
		credentials->trust = tls_trust_new_file(options->client_ca_file, err);
		if (!credentials->trust) {
			tls_credentials_unref(&credentials);
			return NULL;
		}
	}
	BUG_ON(gnutls_session_ticket_key_generate(&credentials->ticket_key) < 0);
	return credentials;
}

struct tls_credentials *tls_credentials_new_client(const struct tls_client_credentials_options *options,
						   struct err *err)
{
	static const struct tls_client_credentials_options none = {0};
	struct tls_credentials *credentials;

	if (!options)
		options = &none;
	credentials = credentials_new(false, options->min_version, err);
	if (!credentials)
		return NULL;
	if (options->trust)
		credentials->trust = tls_trust_ref(options->trust);
	if (options->certificate_file) {
		credentials->has_certificate = true;
		if (load_pair(credentials, options->certificate_file, options->key_file, err) < 0)
			tls_credentials_unref(&credentials);
	}
	return credentials;
}

struct tls_credentials *tls_credentials_ref(struct tls_credentials *credentials)
{
	credentials->refs++;
	return credentials;
}

void tls_credentials_unref(struct tls_credentials **credentials)
{
	struct tls_credentials *gone = *credentials;

	*credentials = NULL;
	if (!gone || --gone->refs)
		return;
	gnutls_certificate_free_credentials(gone->x509);
	if (gone->priority)
		gnutls_priority_deinit(gone->priority);
	if (gone->ticket_key.data)
		gnutls_memset(gone->ticket_key.data, 0, gone->ticket_key.size);
	gnutls_free(gone->ticket_key.data);
	tls_trust_unref(&gone->trust);
	free(gone->names);
	free(gone);
}

int64_t tls_credentials_expires_at_wall(const struct tls_credentials *credentials)
{
	return credentials->expires_at_wall;
}

const char *tls_credentials_names(const struct tls_credentials *credentials)
{
	return credentials->names ? credentials->names : "";
}

bool tls_credentials_is_selfsigned(const struct tls_credentials *credentials)
{
	return credentials->is_selfsigned;
}
