#include "support_tls.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/abstract.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char directory[] = "/tmp/relayd-test-tls-XXXXXX";

int support_setup(void **state)
{
	(void)state;
	memcpy(directory + sizeof(directory) - 7, "XXXXXX", 6);
	return mkdtemp(directory) ? 0 : -1;
}

int support_teardown(void **state)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;

	(void)state;
	while (dir && (entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	return rmdir(directory);
}

const char *in_dir(const char *name)
{
	static char paths[8][256];
	static unsigned next;
	char *path = paths[next++ % 8];

	snprintf(path, 256, "%s/%s", directory, name);
	return path;
}

void write_file(const char *name, const char *text, size_t len)
{
	int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

static void add_names(struct cert *cert, const struct cert_spec *spec)
{
	unsigned char address[16];

	for (size_t i = 0; i < ARRAY_LEN(spec->dns) && spec->dns[i]; i++)
		assert_int_equal(gnutls_x509_crt_set_subject_alt_name(cert->crt, GNUTLS_SAN_DNSNAME, spec->dns[i],
								      (unsigned)strlen(spec->dns[i]),
								      GNUTLS_FSAN_APPEND),
				 0);
	if (!spec->ip)
		return;
	assert_int_equal(inet_pton(AF_INET, spec->ip, address), 1);
	assert_int_equal(
	    gnutls_x509_crt_set_subject_alt_name(cert->crt, GNUTLS_SAN_IPADDRESS, address, 4, GNUTLS_FSAN_APPEND), 0);
}

static void export_parts(struct cert *cert)
{
	gnutls_pubkey_t key;

	assert_int_equal(gnutls_x509_crt_export2(cert->crt, GNUTLS_X509_FMT_DER, &cert->der), 0);
	assert_int_equal(gnutls_pubkey_init(&key), 0);
	assert_int_equal(gnutls_pubkey_import_x509(key, cert->crt, 0), 0);
	assert_int_equal(gnutls_pubkey_export2(key, GNUTLS_X509_FMT_DER, &cert->spki), 0);
	gnutls_pubkey_deinit(key);
}

struct cert *cert_new(const struct cert_spec *spec)
{
	static unsigned serial = 1;
	struct cert *cert = xcalloc(1, sizeof(*cert));
	const struct cert *issuer = spec->issuer ? spec->issuer : cert;
	const char *purpose = spec->purpose ? spec->purpose : GNUTLS_KP_TLS_WWW_SERVER;
	unsigned char number[5] = {1, 0, 0, (unsigned char)(serial >> 8), (unsigned char)serial};

	serial++;
	cert->issuer = spec->issuer;
	gnutls_x509_crt_init(&cert->crt);
	gnutls_x509_privkey_init(&cert->key);
	assert_int_equal(
	    gnutls_x509_privkey_generate(cert->key, spec->rsa ? GNUTLS_PK_RSA : GNUTLS_PK_ECDSA,
					 spec->rsa ? 2048 : GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
	    0);
	gnutls_x509_crt_set_version(cert->crt, 3);
	gnutls_x509_crt_set_serial(cert->crt, number, sizeof(number));
	gnutls_x509_crt_set_key(cert->crt, cert->key);
	gnutls_x509_crt_set_activation_time(cert->crt, spec->from ? spec->from : time(NULL) - DAY);
	gnutls_x509_crt_set_expiration_time(cert->crt, spec->until ? spec->until : time(NULL) + 365 * DAY);
	if (spec->common_name)
		gnutls_x509_crt_set_dn_by_oid(cert->crt, GNUTLS_OID_X520_COMMON_NAME, 0, spec->common_name,
					      (unsigned)strlen(spec->common_name));
	add_names(cert, spec);
	gnutls_x509_crt_set_basic_constraints(cert->crt, spec->is_authority, -1);
	if (spec->is_authority)
		gnutls_x509_crt_set_key_usage(cert->crt, GNUTLS_KEY_KEY_CERT_SIGN);
	else
		gnutls_x509_crt_set_key_purpose_oid(cert->crt, purpose, 0);
	assert_int_equal(gnutls_x509_crt_sign2(cert->crt, issuer->crt, issuer->key, GNUTLS_DIG_SHA256, 0), 0);
	export_parts(cert);
	return cert;
}

void cert_free(struct cert **cert)
{
	if (!*cert)
		return;
	gnutls_x509_crt_deinit((*cert)->crt);
	gnutls_x509_privkey_deinit((*cert)->key);
	gnutls_free((*cert)->der.data);
	gnutls_free((*cert)->spki.data);
	free(*cert);
	*cert = NULL;
}

void cert_write_chain(const struct cert *cert, unsigned depth, const char *name)
{
	struct buf text;

	buf_init(&text, 100000);
	for (; cert && depth; cert = cert->issuer, depth--) {
		gnutls_datum_t pem;

		assert_int_equal(gnutls_x509_crt_export2(cert->crt, GNUTLS_X509_FMT_PEM, &pem), 0);
		buf_append(&text, slice_of(pem.data, pem.size));
		gnutls_free(pem.data);
	}
	write_file(name, buf_slice(&text).ptr, buf_len(&text));
	buf_fini(&text);
}

void cert_write_key(const struct cert *cert, const char *name)
{
	gnutls_datum_t pem;

	assert_int_equal(gnutls_x509_privkey_export2(cert->key, GNUTLS_X509_FMT_PEM, &pem), 0);
	write_file(name, (const char *)pem.data, pem.size);
	gnutls_free(pem.data);
}

struct tls_credentials *server_credentials(const struct cert *cert, unsigned depth)
{
	struct tls_server_credentials_options options = {.certificate_file = in_dir("server.pem"),
							 .key_file = in_dir("server.key")};
	struct tls_credentials *credentials;
	struct err err = {0};

	cert_write_chain(cert, depth, "server.pem");
	cert_write_key(cert, "server.key");
	credentials = tls_credentials_new_server(&options, &err);
	assert_string_equal(err.text, "");
	assert_non_null(credentials);
	return credentials;
}

struct tls_credentials *client_credentials(const struct cert *authority)
{
	struct tls_client_credentials_options options = {0};
	struct tls_credentials *credentials;
	struct err err = {0};

	if (authority) {
		cert_write_chain(authority, 1, "ca.pem");
		options.trust = tls_trust_new_file(in_dir("ca.pem"), &err);
		assert_non_null(options.trust);
	}
	credentials = tls_credentials_new_client(&options, &err);
	assert_non_null(credentials);
	tls_trust_unref(&options.trust);
	return credentials;
}

bool wire_move(struct tls_session *from, struct tls_session *to, size_t chunk)
{
	struct slice bytes = slice_to(tls_session_output(from), chunk);
	size_t taken = tls_session_input(to, bytes);

	tls_session_output_sent(from, taken);
	return taken > 0;
}

void wire_handshake(struct tls_session *client, struct tls_session *server, size_t chunk,
		    enum tls_status *client_status, struct err *client_err, enum tls_status *server_status,
		    struct err *server_err)
{
	bool moved = true;

	*client_status = *server_status = TLS_AGAIN;
	while (moved || *client_status == TLS_AGAIN || *server_status == TLS_AGAIN) {
		if (*client_status == TLS_AGAIN)
			*client_status = tls_session_handshake(client, client_err);
		moved = wire_move(client, server, chunk);
		if (*server_status == TLS_AGAIN)
			*server_status = tls_session_handshake(server, server_err);
		moved |= wire_move(server, client, chunk);
		if (!moved && *client_status != TLS_OK && *server_status != TLS_OK)
			break;
		if (!moved)
			break;
	}
}

void wire_handshake_ok(struct tls_session *client, struct tls_session *server)
{
	enum tls_status client_status, server_status;
	struct err client_err = {0}, server_err = {0};

	wire_handshake(client, server, SIZE_MAX, &client_status, &client_err, &server_status, &server_err);
	assert_string_equal(client_err.text, "");
	assert_string_equal(server_err.text, "");
	assert_int_equal(client_status, TLS_OK);
	assert_int_equal(server_status, TLS_OK);
}

void wire_say(struct tls_session *from, struct tls_session *to, const char *text)
{
	char got[256];
	size_t taken, len;
	struct err err = {0};

	assert_int_equal(tls_session_write(from, slice_of_str(text), &taken, &err), TLS_OK);
	assert_int_equal(taken, strlen(text));
	while (wire_move(from, to, SIZE_MAX))
		;
	assert_int_equal(tls_session_read(to, got, sizeof(got), &len, &err), TLS_OK);
	assert_int_equal(len, strlen(text));
	assert_memory_equal(got, text, len);
}

static ssize_t raw_pull(gnutls_transport_ptr_t ptr, void *out, size_t size)
{
	struct raw *raw = ptr;
	struct slice have = slice_to(buf_slice(&raw->in), size);

	if (!have.len) {
		gnutls_transport_set_errno(raw->session, EAGAIN);
		return -1;
	}
	memcpy(out, have.ptr, have.len);
	buf_consume(&raw->in, have.len);
	return (ssize_t)have.len;
}

static ssize_t raw_push(gnutls_transport_ptr_t ptr, const void *data, size_t len)
{
	struct raw *raw = ptr;

	assert_int_equal(buf_append(&raw->out, slice_of(data, len)), 0);
	return (ssize_t)len;
}

static int raw_pull_timeout(gnutls_transport_ptr_t ptr, unsigned ms)
{
	(void)ms;
	return buf_len(&((struct raw *)ptr)->in) > 0;
}

void raw_init(struct raw *raw, unsigned flags, const char *priority, const struct cert *cert)
{
	memset(raw, 0, sizeof(*raw));
	buf_init(&raw->in, 16 << 20);
	buf_init(&raw->out, 16 << 20);
	gnutls_certificate_allocate_credentials(&raw->credentials);
	if (cert) {
		gnutls_x509_crt_t crt = cert->crt;

		gnutls_certificate_set_x509_key(raw->credentials, &crt, 1, cert->key);
	}
	gnutls_init(&raw->session, flags | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
	assert_int_equal(gnutls_priority_set_direct(raw->session, priority, NULL), 0);
	gnutls_credentials_set(raw->session, GNUTLS_CRD_CERTIFICATE, raw->credentials);
	gnutls_transport_set_ptr(raw->session, raw);
	gnutls_transport_set_pull_function(raw->session, raw_pull);
	gnutls_transport_set_push_function(raw->session, raw_push);
	gnutls_transport_set_pull_timeout_function(raw->session, raw_pull_timeout);
}

void raw_fini(struct raw *raw)
{
	gnutls_deinit(raw->session);
	gnutls_certificate_free_credentials(raw->credentials);
	buf_fini(&raw->in);
	buf_fini(&raw->out);
}

void raw_move(struct raw *raw, struct tls_session *ours)
{
	size_t taken = tls_session_input(ours, buf_slice(&raw->out));

	buf_consume(&raw->out, taken);
	assert_int_equal(buf_append(&raw->in, tls_session_output(ours)), 0);
	tls_session_output_sent(ours, tls_session_output(ours).len);
}

enum tls_status raw_handshake(struct raw *raw, int *raw_code, struct tls_session *ours, struct err *err)
{
	enum tls_status status = TLS_AGAIN;

	*raw_code = GNUTLS_E_AGAIN;
	for (int round = 0; round < 20; round++) {
		if (*raw_code < 0 && !gnutls_error_is_fatal(*raw_code))
			*raw_code = gnutls_handshake(raw->session);
		raw_move(raw, ours);
		if (status == TLS_AGAIN)
			status = tls_session_handshake(ours, err);
		raw_move(raw, ours);
	}
	return status;
}
