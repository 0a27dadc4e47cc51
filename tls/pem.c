#include "tls/pem.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_all(int fd, const char *name, size_t size, gnutls_datum_t *out, struct err *err)
{
	unsigned char *text = xmalloc(size + 1);
	size_t have = 0;
	ssize_t n;

	while ((n = read(fd, text + have, size - have)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int rc = err_set_errno(err, "cannot read %s", name);
			free(text);
			return rc;
		}
		have += (size_t)n;
		if (have == size)
			break;
	}
	text[have] = '\0';
	*out = (gnutls_datum_t){text, (unsigned)have};
	return 0;
}

int pem_read_file(int dirfd, const char *name, gnutls_datum_t *out, struct err *err)
{
	struct stat st;
	int rc, fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return err_set_errno(err, "cannot open %s", name);
	if (fstat(fd, &st) < 0)
		rc = err_set_errno(err, "cannot read %s", name);
	else if (!S_ISREG(st.st_mode))
		rc = err_set(err, ERR_CONFIG, "%s is not a regular file", name);
	else if (st.st_size > PEM_FILE_MAX)
		rc = err_set(err, ERR_CONFIG, "%s is larger than 1 MiB", name);
	else
		rc = read_all(fd, name, (size_t)st.st_size, out, err);
	close(fd);
	return rc;
}

void pem_text_free(gnutls_datum_t *text)
{
	if (text->data)
		explicit_bzero(text->data, text->size);
	free(text->data);
	*text = (gnutls_datum_t){0};
}

int pem_certificates_parse(const gnutls_datum_t *text, const char *path, struct pem_certificates *out, struct err *err)
{
	int rc;

	if (!text->size || !strstr((const char *)text->data, "-----BEGIN ") ||
	    !strstr((const char *)text->data, "CERTIFICATE-----"))
		return err_set(err, ERR_CONFIG, "%s has no certificate in PEM form", path);
	rc = gnutls_x509_crt_list_import2(&out->list, &out->count, text, GNUTLS_X509_FMT_PEM, 0);
	if (rc < 0)
		return err_set(err, ERR_CONFIG, "%s: cannot read the certificates: %s", path, gnutls_strerror(rc));
	return 0;
}

void pem_certificates_free(struct pem_certificates *certificates)
{
	for (unsigned i = 0; i < certificates->count; i++)
		gnutls_x509_crt_deinit(certificates->list[i]);
	gnutls_free(certificates->list);
	*certificates = (struct pem_certificates){0};
}

static void swap(struct pem_certificates *certificates, unsigned a, unsigned b)
{
	gnutls_x509_crt_t was = certificates->list[a];

	certificates->list[a] = certificates->list[b];
	certificates->list[b] = was;
}

bool pem_certificates_order(struct pem_certificates *certificates, gnutls_x509_privkey_t key)
{
	unsigned leaf = 0, done = 1, next;

	while (leaf < certificates->count && !pem_key_belongs_to(key, certificates->list[leaf]))
		leaf++;
	if (leaf == certificates->count)
		return false;
	swap(certificates, 0, leaf);
	for (; done < certificates->count; done++) {
		for (next = done; next < certificates->count; next++)
			if (gnutls_x509_crt_check_issuer(certificates->list[done - 1], certificates->list[next]))
				break;
		if (next == certificates->count)
			break;
		swap(certificates, done, next);
	}
	while (certificates->count > done)
		gnutls_x509_crt_deinit(certificates->list[--certificates->count]);
	return true;
}

int pem_key_parse(const gnutls_datum_t *text, const char *path, gnutls_x509_privkey_t *out, struct err *err)
{
	gnutls_x509_privkey_t key;
	int rc;

	if (!text->size || !strstr((const char *)text->data, "PRIVATE KEY-----"))
		return err_set(err, ERR_CONFIG, "%s has no private key in PEM form", path);
	if (gnutls_x509_privkey_init(&key) < 0)
		return err_set(err, ERR_CRYPTO, "%s: out of memory", path);
	rc = gnutls_x509_privkey_import2(key, text, GNUTLS_X509_FMT_PEM, NULL, 0);
	if (rc < 0) {
		gnutls_x509_privkey_deinit(key);
		if (rc == GNUTLS_E_DECRYPTION_FAILED || strstr((const char *)text->data, "ENCRYPTED"))
			return err_set(err, ERR_CONFIG, "%s: the private key is encrypted; store it without a password",
				       path);
		return err_set(err, ERR_CONFIG, "%s: cannot read the private key: %s", path, gnutls_strerror(rc));
	}
	*out = key;
	return 0;
}

bool pem_key_belongs_to(gnutls_x509_privkey_t key, gnutls_x509_crt_t certificate)
{
	unsigned char a[32], b[32];
	size_t a_len = sizeof(a), b_len = sizeof(b);

	return gnutls_x509_privkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, a, &a_len) == 0 &&
	       gnutls_x509_crt_get_key_id(certificate, GNUTLS_KEYID_USE_SHA256, b, &b_len) == 0 && a_len == b_len &&
	       memcmp(a, b, a_len) == 0;
}
