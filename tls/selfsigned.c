#include "tls/selfsigned.h"

#include "base/base.h"
#include "base/buf.h"
#include "tls/names.h"
#include "tls/pem.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAY_SEC ((int64_t)24 * 3600)
#define LIFETIME_SEC (3650 * DAY_SEC)
#define RENEW_BEFORE_SEC (30 * DAY_SEC)
/* For clients whose clock is late. */
#define BACKDATE_SEC DAY_SEC
#define COMMON_NAME_MAX 64 /* RFC 5280 appendix A.1, ub-common-name */

static int64_t now_sec(const struct tls_selfsigned_options *options)
{
	return options->now_wall_ms / 1000;
}

static bool is_still_good(gnutls_x509_crt_t certificate, const struct tls_selfsigned_options *options)
{
	if (gnutls_x509_crt_get_expiration_time(certificate) < now_sec(options) + RENEW_BEFORE_SEC ||
	    gnutls_x509_crt_get_activation_time(certificate) > now_sec(options))
		return false;
	if (!names_certificate_is_for(certificate, options->hostname))
		return false;
	for (size_t i = 0; i < options->name_count; i++)
		if (!names_certificate_is_for(certificate, options->names[i]))
			return false;
	return true;
}

/* 1: fine as it is, 0: to be made anew, negative: not ours to replace. */
static int check_existing(int dirfd, const char *name, const struct tls_selfsigned_options *options, struct err *err)
{
	struct pem_certificates chain = {0};
	gnutls_datum_t text = {0};
	gnutls_x509_privkey_t key = NULL;
	struct err why;
	int rc = pem_read_file(dirfd, name, &text, &why);

	if (rc == ERR_NOT_FOUND)
		return 0;
	if (rc < 0)
		return err_set(err, why.code, "%s", why.text);
	rc = pem_certificates_parse(&text, name, &chain, &why);
	if (rc == 0)
		rc = pem_key_parse(&text, name, &key, &why);
	if (rc == 0 && (!names_is_selfsigned(chain.list[0]) || !pem_key_belongs_to(key, chain.list[0])))
		rc = err_set(&why, ERR_CONFIG, "it is not a self-signed certificate with its key");
	if (rc == 0)
		rc = is_still_good(chain.list[0], options);
	else
		rc = err_set(err, ERR_CONFIG, "%s is there, but not what relayd makes, and is left alone (%s)", name,
			     why.text);
	if (key)
		gnutls_x509_privkey_deinit(key);
	pem_certificates_free(&chain);
	pem_text_free(&text);
	return rc;
}

static int add_name(gnutls_x509_crt_t certificate, const char *name)
{
	unsigned char address[16];
	size_t len = names_parse_address(name, address);

	if (len)
		return gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_IPADDRESS, address, (unsigned)len,
							    GNUTLS_FSAN_APPEND);
	return gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, name, (unsigned)strlen(name),
						    GNUTLS_FSAN_APPEND);
}

static int set_names(gnutls_x509_crt_t certificate, const struct tls_selfsigned_options *options)
{
	const char *common_name = strlen(options->hostname) <= COMMON_NAME_MAX ? options->hostname : "relayd";
	int rc = gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, common_name,
					       (unsigned)strlen(common_name));

	if (rc == 0)
		rc = add_name(certificate, options->hostname);
	for (size_t i = 0; rc == 0 && i < options->name_count; i++)
		if (strcasecmp(options->names[i], options->hostname) != 0)
			rc = add_name(certificate, options->names[i]);
	return rc;
}

static int set_extensions(gnutls_x509_crt_t certificate, gnutls_x509_privkey_t key)
{
	unsigned char key_id[20], serial[16];
	size_t len = sizeof(key_id);
	int rc = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial));

	/* A serial number is positive and not empty. */
	serial[0] = (unsigned char)((serial[0] & 0x7f) | 0x40);
	if (rc == 0)
		rc = gnutls_x509_crt_set_serial(certificate, serial, sizeof(serial));
	if (rc == 0)
		rc = gnutls_x509_privkey_get_key_id(key, GNUTLS_KEYID_USE_SHA1, key_id, &len);
	if (rc == 0)
		rc = gnutls_x509_crt_set_subject_key_id(certificate, key_id, len);
	if (rc == 0)
		rc = gnutls_x509_crt_set_authority_key_id(certificate, key_id, len);
	if (rc == 0)
		rc = gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_DIGITAL_SIGNATURE);
	if (rc == 0)
		rc = gnutls_x509_crt_set_key_purpose_oid(certificate, GNUTLS_KP_TLS_WWW_SERVER, 0);
	return rc == 0 ? gnutls_x509_crt_set_basic_constraints(certificate, 0, -1) : rc;
}

static int fill(gnutls_x509_crt_t certificate, gnutls_x509_privkey_t key, const struct tls_selfsigned_options *options)
{
	int rc =
	    gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);

	if (rc == 0)
		rc = gnutls_x509_crt_set_version(certificate, 3);
	if (rc == 0)
		rc = gnutls_x509_crt_set_key(certificate, key);
	if (rc == 0)
		rc = gnutls_x509_crt_set_activation_time(certificate, (time_t)(now_sec(options) - BACKDATE_SEC));
	if (rc == 0)
		rc = gnutls_x509_crt_set_expiration_time(certificate, (time_t)(now_sec(options) + LIFETIME_SEC));
	if (rc == 0)
		rc = set_names(certificate, options);
	if (rc == 0)
		rc = set_extensions(certificate, key);
	return rc == 0 ? gnutls_x509_crt_sign2(certificate, certificate, key, GNUTLS_DIG_SHA256, 0) : rc;
}

/* Key and certificate as PEM. */
static int make(const struct tls_selfsigned_options *options, struct buf *out, struct err *err)
{
	gnutls_x509_crt_t certificate;
	gnutls_x509_privkey_t key;
	gnutls_datum_t key_text = {0}, certificate_text = {0};
	int rc;

	BUG_ON(gnutls_x509_crt_init(&certificate) < 0 || gnutls_x509_privkey_init(&key) < 0);
	rc = fill(certificate, key, options);
	if (rc == 0)
		rc = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &key_text);
	if (rc == 0)
		rc = gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &certificate_text);
	if (rc == 0) {
		buf_append(out, slice_of(key_text.data, key_text.size));
		buf_append(out, slice_of(certificate_text.data, certificate_text.size));
	} else {
		rc = err_set(err, ERR_CRYPTO, "cannot make a certificate for %s: %s", options->hostname,
			     gnutls_strerror(rc));
	}
	if (key_text.data)
		gnutls_memset(key_text.data, 0, key_text.size);
	gnutls_free(key_text.data);
	gnutls_free(certificate_text.data);
	gnutls_x509_privkey_deinit(key);
	gnutls_x509_crt_deinit(certificate);
	return rc;
}

static int write_synced(int fd, struct slice bytes)
{
	while (bytes.len) {
		ssize_t n = write(fd, bytes.ptr, bytes.len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		bytes = slice_from(bytes, (size_t)n);
	}
	return fsync(fd);
}

static int sync_parent(int dirfd, const char *name)
{
	char path[4096];
	ptrdiff_t slash = slice_find_last(slice_of_str(name), '/');
	int fd, rc;

	slice_to_cstr(slash > 0	   ? slice_of(name, (size_t)slash)
		      : slash == 0 ? SLICE("/")
				   : SLICE("."),
		      path, sizeof(path));
	fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = fd < 0 ? -1 : fsync(fd);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int replace_file(int dirfd, const char *name, struct slice text, struct err *err)
{
	char temporary[4096];
	int fd, rc;

	if ((size_t)snprintf(temporary, sizeof(temporary), "%s.new", name) >= sizeof(temporary))
		return err_set(err, ERR_LIMIT, "path is too long: %s", name);
	unlinkat(dirfd, temporary, 0);
	fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set_errno(err, "cannot create %s", temporary);
	rc = write_synced(fd, text);
	if (rc == 0)
		rc = renameat(dirfd, temporary, dirfd, name);
	if (rc == 0)
		rc = sync_parent(dirfd, name);
	if (rc < 0) {
		rc = err_set_errno(err, "cannot write %s", name);
		unlinkat(dirfd, temporary, 0);
	}
	close(fd);
	return rc;
}

int tls_selfsigned_ensure(int dirfd, const char *name, const struct tls_selfsigned_options *options, bool *created,
			  struct err *err)
{
	struct buf text;
	int rc = check_existing(dirfd, name, options, err);

	if (created)
		*created = rc == 0;
	if (rc != 0)
		return rc < 0 ? rc : 0;
	buf_init(&text, PEM_FILE_MAX);
	rc = make(options, &text, err);
	if (rc == 0)
		rc = replace_file(dirfd, name, buf_slice(&text), err);
	if (text.data)
		explicit_bzero(text.data, text.cap);
	buf_fini(&text);
	if (created && rc < 0)
		*created = false;
	return rc;
}
