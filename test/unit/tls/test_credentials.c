/* Certificate and key files, good and bad; fingerprints. */
#include "support_tls.h"

#include "tls/fingerprint.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct cert *root, *intermediate, *leaf, *other;

static int setup(void **state)
{
	if (support_setup(state) < 0)
		return -1;
	root = cert_new(&(struct cert_spec){.common_name = "Root", .is_authority = true});
	intermediate = cert_new(&(struct cert_spec){
	    .common_name = "Intermediate", .is_authority = true, .issuer = root, .until = 1893456000});
	leaf = cert_new(&(struct cert_spec){.common_name = "mail.example.org",
					    .dns = {"mail.example.org", "smtp.example.org"},
					    .ip = "192.0.2.7",
					    .issuer = intermediate,
					    .until = 1924992000});
	other = cert_new(&(struct cert_spec){.common_name = "other.example.org"});
	cert_write_chain(leaf, 2, "leaf.pem");
	cert_write_key(leaf, "leaf.key");
	cert_write_key(other, "other.key");
	return 0;
}

static int teardown(void **state)
{
	cert_free(&leaf);
	cert_free(&other);
	cert_free(&intermediate);
	cert_free(&root);
	return support_teardown(state);
}

static struct tls_credentials *load(const char *certificate, const char *key, const char *client_ca, struct err *err)
{
	struct tls_server_credentials_options options = {.certificate_file = in_dir(certificate),
							 .key_file = key ? in_dir(key) : NULL,
							 .client_ca_file = client_ca ? in_dir(client_ca) : NULL};

	*err = (struct err){0};
	return tls_credentials_new_server(&options, err);
}

/* "@" in `words` stands for the directory. */
static void expect_error(const char *certificate, const char *key, const char *client_ca, enum err_code code,
			 const char *words)
{
	struct err err;
	struct buf expected;

	buf_init(&expected, 1000);
	for (const char *p = words; *p; p++)
		if (*p == '@')
			buf_append_str(&expected, in_dir(""));
		else
			buf_append_byte(&expected, *p);
	buf_append_byte(&expected, '\0');
	assert_null(load(certificate, key, client_ca, &err));
	assert_string_equal(err.text, buf_slice(&expected).ptr);
	assert_int_equal(err.code, code);
	buf_fini(&expected);
}

static void a_chain_with_its_key(void **state)
{
	struct err err;
	struct tls_credentials *credentials = load("leaf.pem", "leaf.key", NULL, &err);

	(void)state;
	assert_string_equal(err.text, "");
	assert_string_equal(tls_credentials_names(credentials), "mail.example.org, smtp.example.org, 192.0.2.7");
	/* The intermediate goes first. */
	assert_int_equal(tls_credentials_expires_at_wall(credentials), 1893456000000);
	assert_false(tls_credentials_is_selfsigned(credentials));
	tls_credentials_unref(&credentials);
	assert_null(credentials);
	tls_credentials_unref(&credentials);
}

static void copy_file(const char *from, int to)
{
	char text[20000];
	int fd = open(in_dir(from), O_RDONLY);
	ssize_t len = read(fd, text, sizeof(text));

	assert_true(len > 0);
	assert_int_equal(write(to, text, (size_t)len), len);
	close(fd);
}

static void the_order_does_not_matter_and_one_file_is_enough(void **state)
{
	struct err err;
	struct tls_credentials *credentials;
	int fd = open(in_dir("all.pem"), O_WRONLY | O_CREAT, 0600);

	(void)state;
	cert_write_chain(intermediate, 1, "intermediate.pem");
	cert_write_chain(leaf, 1, "alone.pem");
	copy_file("intermediate.pem", fd);
	copy_file("leaf.key", fd);
	copy_file("alone.pem", fd);
	close(fd);
	credentials = load("all.pem", NULL, NULL, &err);
	assert_string_equal(err.text, "");
	assert_string_equal(tls_credentials_names(credentials), "mail.example.org, smtp.example.org, 192.0.2.7");
	tls_credentials_unref(&credentials);
}

static void every_mistake_names_its_file(void **state)
{
	static const char encrypted[] = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n";
	static const char broken[] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
	gnutls_datum_t sealed;
	char *large = xcalloc(1, (1 << 20) + 1);

	(void)state;
	expect_error("none.pem", "leaf.key", NULL, ERR_NOT_FOUND, "cannot open @none.pem: No such file or directory");
	expect_error("leaf.pem", "none.key", NULL, ERR_NOT_FOUND, "cannot open @none.key: No such file or directory");
	expect_error("leaf.pem", "leaf.key", "none.ca", ERR_NOT_FOUND,
		     "cannot open @none.ca: No such file or directory");
	expect_error("leaf.pem", "other.key", NULL, ERR_CONFIG,
		     "the key in @other.key does not belong to a certificate in @leaf.pem");
	expect_error("leaf.key", "leaf.key", NULL, ERR_CONFIG, "@leaf.key has no certificate in PEM form");
	expect_error("leaf.pem", "leaf.pem", NULL, ERR_CONFIG, "@leaf.pem has no private key in PEM form");
	expect_error("leaf.pem", "leaf.key", "leaf.key", ERR_CONFIG, "@leaf.key has no certificate in PEM form");
	expect_error("", "leaf.key", NULL, ERR_CONFIG, "@ is not a regular file");
	write_file("empty.pem", "", 0);
	expect_error("empty.pem", "leaf.key", NULL, ERR_CONFIG, "@empty.pem has no certificate in PEM form");
	write_file("broken.pem", broken, sizeof(broken) - 1);
	expect_error("broken.pem", "leaf.key", NULL, ERR_CONFIG,
		     "@broken.pem: cannot read the certificates: ASN1 parser: Error in TAG.");
	write_file("large.pem", large, (1 << 20) + 1);
	free(large);
	expect_error("large.pem", "leaf.key", NULL, ERR_CONFIG, "@large.pem is larger than 1 MiB");
	assert_int_equal(gnutls_x509_privkey_export2_pkcs8(leaf->key, GNUTLS_X509_FMT_PEM, "secret", 0, &sealed), 0);
	assert_memory_equal(sealed.data, encrypted, sizeof(encrypted) - 1);
	write_file("encrypted.key", (char *)sealed.data, sealed.size);
	gnutls_free(sealed.data);
	expect_error("leaf.pem", "encrypted.key", NULL, ERR_CONFIG,
		     "@encrypted.key: the private key is encrypted; store it without a password");
}

static void a_pipe_in_place_of_a_file_does_not_hang(void **state)
{
	(void)state;
	assert_int_equal(mkfifo(in_dir("fifo.pem"), 0600), 0);
	expect_error("fifo.pem", "leaf.key", NULL, ERR_CONFIG, "@fifo.pem is not a regular file");
}

static void client_credentials_know_their_own_certificate(void **state)
{
	struct tls_client_credentials_options options = {.certificate_file = in_dir("leaf.pem"),
							 .key_file = in_dir("other.key")};
	struct err err = {0};
	struct tls_credentials *credentials = tls_credentials_new_client(&options, &err);

	(void)state;
	assert_null(credentials);
	assert_non_null(strstr(err.text, "does not belong"));
	credentials = tls_credentials_new_client(NULL, &err);
	assert_string_equal(tls_credentials_names(credentials), "");
	assert_int_equal(tls_credentials_expires_at_wall(credentials), INT64_MAX);
	tls_credentials_unref(&credentials);
}

static void trust_from_a_file_is_checked_at_once(void **state)
{
	struct err err = {0};
	struct tls_trust *second, *trust = tls_trust_new_file(in_dir("leaf.key"), &err);

	(void)state;
	assert_null(trust);
	assert_non_null(strstr(err.text, "has no certificate in PEM form"));
	trust = tls_trust_new_file(in_dir("leaf.pem"), &err);
	assert_non_null(trust);
	second = tls_trust_ref(trust);
	assert_ptr_equal(second, trust);
	tls_trust_unref(&trust);
	assert_null(trust);
	tls_trust_unref(&trust);
	tls_trust_unref(&second);
}

#define PLAIN "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define COLONS "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF"

static void fingerprints_are_read_in_every_spelling(void **state)
{
	static const char *const spellings[] = {PLAIN, COLONS, "sha256:" PLAIN, "SHA256 Fingerprint=" COLONS,
						" " PLAIN "\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(spellings); i++) {
		struct tls_fingerprint fingerprint;
		struct err err = {0};
		char text[TLS_FINGERPRINT_CHARS + 1];

		assert_int_equal(tls_fingerprint_parse(slice_of_str(spellings[i]), &fingerprint, &err), 0);
		assert_string_equal(err.text, "");
		tls_fingerprint_format(&fingerprint, text);
		assert_string_equal(text, PLAIN);
	}
}

static void other_fingerprints_are_told(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
	    {"", "a fingerprint has 64 hexadecimal digits, this one has 0"},
	    {PLAIN "0", "a fingerprint has 64 hexadecimal digits, this one has 65"},
	    {PLAIN PLAIN, "a fingerprint has 64 hexadecimal digits, this one has 128"},
	    {"0:0" PLAIN, "a fingerprint is 64 hexadecimal digits, colons allowed"},
	    {"g0" PLAIN, "a fingerprint is 64 hexadecimal digits, colons allowed"},
	    {"00112233445566778899aabbccddeeff00112233",
	     "this is an SHA-1 fingerprint, but a SHA-256 one (64 digits) is needed"},
	    {"00112233445566778899aabbccddeeff", "this is an MD5 fingerprint, but a SHA-256 one (64 digits) is needed"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct tls_fingerprint fingerprint;
		struct err err = {0};

		assert_int_equal(tls_fingerprint_parse(slice_of_str(bad[i].text), &fingerprint, &err), ERR_SYNTAX);
		assert_string_equal(err.text, bad[i].words);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_chain_with_its_key),
	    cmocka_unit_test(the_order_does_not_matter_and_one_file_is_enough),
	    cmocka_unit_test(every_mistake_names_its_file),
	    cmocka_unit_test(a_pipe_in_place_of_a_file_does_not_hang),
	    cmocka_unit_test(client_credentials_know_their_own_certificate),
	    cmocka_unit_test(trust_from_a_file_is_checked_at_once),
	    cmocka_unit_test(fingerprints_are_read_in_every_spelling),
	    cmocka_unit_test(other_fingerprints_are_told),
	};

	return cmocka_run_group_tests_name("tls credentials", tests, setup, teardown);
}
