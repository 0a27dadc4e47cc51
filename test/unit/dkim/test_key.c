#include "support_dkim.h"

#include "base/base.h"
#include "base/err.h"
#include "dkim/key.h"

#include <dirent.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char rsa_512_pem[] = "-----BEGIN PRIVATE KEY-----\n"
				  "MIIBVgIBADANBgkqhkiG9w0BAQEFAASCAUAwggE8AgEAAkEAvVNbezsmr4C4gIR6\n"
				  "XdtpaOX2JPgZ/8NLkFdCzLBJDJIkB1XeAGxDeamATBjgIxlhzpx5Z8XXSJ8Kbyzh\n"
				  "p3BPFQIDAQABAkAuZ0Lx1lKqC3OtVEslvAR/CHYnI4RD0tsveqPNxZtx7+fZgtoj\n"
				  "F4df7GbeI8i+7XJJeHSNrvS/IkLYTaTg20LBAiEA4zXlL61SbyjjF11aUPztvwLh\n"
				  "pmoRcYnS5IVprh0UgIUCIQDVUJOKlAjZR96jSUHuha3nT7XRyyTDnT/aVGgiDKCh\n"
				  "UQIhAKNCj7sRbGFJXNvmDUaSZ3bP6Do+jugpY2sm3gfpB1lNAiEA0N2GucfdKjNO\n"
				  "8f8HCa/m6XiJBRStuMO+A99l3wESPyECIQCsrfHfMY0KumuByR44wdjuVBLIeol+\n"
				  "B8GZ3CQxc8P+gA==\n"
				  "-----END PRIVATE KEY-----\n";
static const char ec_pem[] = "-----BEGIN PRIVATE KEY-----\n"
			     "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgwjk3zMKqPyS/Nvuh\n"
			     "s/8zKZfR1ejROPY3G/K6oFvMbZ2hRANCAARHYqKnjeGtxC+sCkix3LHqJUfE+YTD\n"
			     "DJ1rFuHQrBPPsaN+IFQEPCogCfnXlh/M8ZFnIi6lqc5eGrxQIEotxZ52\n"
			     "-----END PRIVATE KEY-----\n";
static const char ed448_pem[] = "-----BEGIN PRIVATE KEY-----\n"
				"MEcCAQAwBQYDK2VxBDsEOVUT1bcofiietm5fZrc2tH6cvKdvL4VZ4UyRPvkHC36j\n"
				"cLiJnzjmQ3V6zjHsrvnU6t3nEWlUDNzVpA==\n"
				"-----END PRIVATE KEY-----\n";
static const char public_pem[] = "-----BEGIN PUBLIC KEY-----\n"
				 "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
				 "-----END PUBLIC KEY-----\n";
static const char encrypted_pem[] =
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
static const char encrypted_pkcs1_pem[] = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
					  "DEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";

static char folder[] = "/tmp/relayd-test-key-XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;

	(void)state;
	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	return rmdir(folder);
}

static const char *in_folder(char path[256], const char *name)
{
	snprintf(path, 256, "%s/%s", folder, name);
	return path;
}

static void write_file(const char *path, struct slice text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text.ptr, text.len), text.len);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static size_t files_in_folder(void)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	size_t count = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

static void assert_refused(struct slice text, enum err_code code, const char *part)
{
	struct dkim_key *key = NULL;
	struct err err = {0};

	assert_int_equal(dkim_key_load(text, &key, &err), code);
	assert_null(key);
	if (!strstr(err.text, part))
		fail_msg("'%s' does not say '%s'", err.text, part);
}

static void pem_of_either_kind(void **state)
{
	struct dkim_key *rsa = NULL, *ed25519 = NULL;
	(void)state;

	assert_int_equal(dkim_key_load(slice_of_str(rfc6376_rsa_pem), &rsa, NULL), 0);
	assert_int_equal(dkim_key_algorithm(rsa), DKIM_RSA_SHA256);
	assert_int_equal(dkim_key_bits(rsa), 1024);
	assert_int_equal(dkim_key_warnings(rsa), DKIM_KEY_SMALL);
	assert_int_equal(dkim_key_load(slice_of_str(rfc8463_ed25519_pem), &ed25519, NULL), 0);
	assert_int_equal(dkim_key_algorithm(ed25519), DKIM_ED25519_SHA256);
	assert_int_equal(dkim_key_bits(ed25519), 256);
	assert_int_equal(dkim_key_warnings(ed25519), 0);
	dkim_key_free(&rsa);
	dkim_key_free(&ed25519);
	assert_null(rsa);
	dkim_key_free(&rsa);
}

static void pem_with_text_around_it_and_crlf(void **state)
{
	struct dkim_key *key = NULL;
	struct buf text;
	(void)state;

	buf_init(&text, 10000);
	buf_append_str(&text, "selector s1, made in March\r\n");
	for (const char *at = rfc8463_rsa_pem; *at; at++)
		buf_append_str(&text, *at == '\n' ? "\r\n" : (char[]){*at, '\0'});
	buf_append_str(&text, "\r\nthe end\r\n");
	assert_int_equal(dkim_key_load(buf_slice(&text), &key, NULL), 0);
	dkim_key_free(&key);
	buf_fini(&text);
}

static size_t decode_pem(const char *pem, unsigned char *der, size_t size)
{
	const char *begin = strchr(pem, '\n') + 1, *end = strstr(begin, "-----END");
	size_t len = 0;

	assert_int_equal(sodium_base642bin(der, size, begin, (size_t)(end - begin), "\n", &len, NULL,
					   sodium_base64_VARIANT_ORIGINAL),
			 0);
	return len;
}

static void der_of_either_kind(void **state)
{
	unsigned char der[2000];
	struct dkim_key *key = NULL;
	size_t len = decode_pem(rfc8463_ed25519_pem, der, sizeof(der));
	(void)state;

	assert_int_equal(dkim_key_load(slice_of(der, len), &key, NULL), 0);
	assert_int_equal(dkim_key_algorithm(key), DKIM_ED25519_SHA256);
	dkim_key_free(&key);
	len = decode_pem(rfc6376_rsa_pem, der, sizeof(der)); /* PKCS#1 */
	assert_int_equal(dkim_key_load(slice_of(der, len), &key, NULL), 0);
	assert_int_equal(dkim_key_algorithm(key), DKIM_RSA_SHA256);
	dkim_key_free(&key);
}

/* K4 */
static void keys_that_cannot_sign_are_refused_with_the_reason(void **state)
{
	static char large[70000];
	(void)state;

	assert_refused(slice_of_str(rsa_512_pem), ERR_LIMIT, "512 bits");
	assert_refused(slice_of_str(ec_pem), ERR_UNSUPPORTED, "RSA and Ed25519");
	assert_refused(slice_of_str(ed448_pem), ERR_UNSUPPORTED, "RSA and Ed25519");
	assert_refused(slice_of_str(public_pem), ERR_SYNTAX, "the private key's file is wanted");
	assert_refused(slice_of_str(encrypted_pem), ERR_SYNTAX, "encrypted");
	assert_refused(slice_of_str(encrypted_pkcs1_pem), ERR_SYNTAX, "encrypted");
	assert_refused(SLICE(""), ERR_SYNTAX, "empty");
	assert_refused(SLICE("hello"), ERR_SYNTAX, "no private key");
	assert_refused(SLICE("-----BEGIN PRIVATE KEY-----\n"), ERR_SYNTAX, "no private key");
	assert_refused(slice_of_str(rfc6376_rsa_pem + 100), ERR_SYNTAX, "no private key");
	assert_refused(slice_to(slice_of_str(rfc6376_rsa_pem), 400), ERR_SYNTAX, "no private key");
	assert_refused(slice_of(large, sizeof(large)), ERR_LIMIT, "too large");
}

/* Any octet of the private part turned: refused, or still the key that it was (a value that the library computes anew).
 */
static void a_damaged_rsa_key_never_signs(void **state)
{
	unsigned char der[2000], digest[DKIM_DIGEST_BYTES] = {1}, signature[DKIM_SIGNATURE_MAX_BYTES];
	size_t len = decode_pem(rfc6376_rsa_pem, der, sizeof(der)), refused = 0, signature_len;
	(void)state;

	for (size_t at = 0; at < len; at += 3) {
		struct dkim_key *key = NULL;
		der[at] ^= 0x10;
		if (dkim_key_load(slice_of(der, len), &key, NULL) < 0)
			refused++;
		else {
			assert_int_equal(dkim_key_sign(key, digest, signature, &signature_len), 0);
			assert_true(gnutls_accepts(DKIM_RSA_SHA256, rfc6376_rsa_public, digest,
						   slice_of(signature, signature_len)));
		}
		dkim_key_free(&key);
		der[at] ^= 0x10;
	}
	assert_in_range(refused, 80, len / 3);
}

static void sign_and_check(struct dkim_key *key)
{
	unsigned char digest[DKIM_DIGEST_BYTES], signature[DKIM_SIGNATURE_MAX_BYTES];
	char *public = to_base64(dkim_key_public(key).ptr, dkim_key_public(key).len);
	size_t len = 0;

	for (unsigned i = 0; i < 20; i++) {
		memset(digest, (int)i, sizeof(digest));
		assert_int_equal(dkim_key_sign(key, digest, signature, &len), 0);
		assert_int_equal(len, dkim_key_algorithm(key) == DKIM_RSA_SHA256 ? dkim_key_bits(key) / 8 : 64);
		assert_true(gnutls_accepts(dkim_key_algorithm(key), public, digest, slice_of(signature, len)));
		digest[5] ^= 4;
		assert_false(gnutls_accepts(dkim_key_algorithm(key), public, digest, slice_of(signature, len)));
	}
	free(public);
}

static void generated_keys_sign(void **state)
{
	struct dkim_key *key = NULL;
	struct err err;
	(void)state;

	assert_int_equal(dkim_key_generate(DKIM_ED25519_SHA256, 0, &key, NULL), 0);
	sign_and_check(key);
	dkim_key_free(&key);
	assert_int_equal(dkim_key_generate(DKIM_RSA_SHA256, 0, &key, NULL), 0);
	assert_int_equal(dkim_key_bits(key), 2048);
	assert_int_equal(dkim_key_warnings(key), 0);
	sign_and_check(key);
	dkim_key_free(&key);
	assert_int_equal(dkim_key_generate(DKIM_RSA_SHA256, 1024, &key, NULL), 0);
	assert_int_equal(dkim_key_warnings(key), DKIM_KEY_SMALL);
	sign_and_check(key);
	dkim_key_free(&key);
	assert_int_equal(dkim_key_generate(DKIM_RSA_SHA256, 1023, &key, &err), ERR_LIMIT);
	assert_int_equal(dkim_key_generate(DKIM_RSA_SHA256, 4097, &key, &err), ERR_LIMIT);
	assert_null(key);
}

static void assert_written_and_read_back(enum dkim_algorithm algorithm, const char *name)
{
	struct dkim_key *key = NULL, *again = NULL;
	struct err err;
	struct stat st;
	char path[256];

	assert_int_equal(dkim_key_generate(algorithm, 1024, &key, NULL), 0);
	assert_int_equal(dkim_key_write_file(key, in_folder(path, name), 0640, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(dkim_key_load_file(path, &again, &err), 0);
	assert_true(slice_eq(dkim_key_public(key), dkim_key_public(again)));
	assert_int_equal(dkim_key_warnings(again) & DKIM_KEY_WORLD_READABLE, 0);
	sign_and_check(again);
	dkim_key_free(&key);
	dkim_key_free(&again);
}

static void written_keys_read_back(void **state)
{
	mode_t before = umask(0077); /* the mode is as asked for all the same */
	(void)state;

	assert_written_and_read_back(DKIM_RSA_SHA256, "rsa.pem");
	assert_written_and_read_back(DKIM_ED25519_SHA256, "ed25519.pem");
	umask(before);
}

static void writing_never_replaces_a_file_and_leaves_no_traces(void **state)
{
	size_t files = files_in_folder();
	struct dkim_key *key = NULL, *again = NULL;
	struct err err;
	char path[256];
	(void)state;

	write_file(in_folder(path, "there.pem"), slice_of_str(rfc8463_ed25519_pem), 0600);
	assert_int_equal(dkim_key_generate(DKIM_ED25519_SHA256, 0, &key, NULL), 0);
	assert_int_equal(dkim_key_write_file(key, path, 0600, &err), ERR_EXISTS);
	assert_non_null(strstr(err.text, "there.pem: File exists"));
	assert_int_equal(dkim_key_load_file(path, &again, &err), 0);
	assert_false(slice_eq(dkim_key_public(key), dkim_key_public(again)));
	assert_int_equal(dkim_key_write_file(key, in_folder(path, "no/such/folder.pem"), 0600, &err), ERR_NOT_FOUND);
	assert_int_equal(files_in_folder(), files + 1);
	dkim_key_free(&key);
	dkim_key_free(&again);
}

static void files_that_others_can_read_or_change_raise_a_warning(void **state)
{
	static const struct {
		mode_t mode;
		unsigned warnings;
	} cases[] = {{0600, 0},
		     {0640, 0},
		     {0400, 0},
		     {0644, DKIM_KEY_WORLD_READABLE},
		     {0602, DKIM_KEY_WORLD_READABLE},
		     {0666, DKIM_KEY_WORLD_READABLE}};
	char path[256];
	(void)state;

	in_folder(path, "mode.pem");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct dkim_key *key = NULL;
		write_file(path, slice_of_str(rfc8463_ed25519_pem), cases[i].mode);
		assert_int_equal(dkim_key_load_file(path, &key, NULL), 0);
		assert_int_equal(dkim_key_warnings(key), cases[i].warnings);
		dkim_key_free(&key);
		unlink(path);
	}
	assert_non_null(strstr(dkim_key_warning_text(DKIM_KEY_WORLD_READABLE), "chmod"));
	assert_non_null(strstr(dkim_key_warning_text(DKIM_KEY_SMALL), "2048"));
}

static void assert_file_refused(const char *path, enum err_code code, const char *part)
{
	struct dkim_key *key = NULL;
	struct err err = {0};

	assert_int_equal(dkim_key_load_file(path, &key, &err), code);
	assert_null(key);
	assert_int_equal(strncmp(err.text, path, strlen(path)), 0);
	if (!strstr(err.text, part))
		fail_msg("'%s' does not say '%s'", err.text, part);
}

static void files_that_are_no_keys_are_named(void **state)
{
	static char large[70000];
	char path[256], other[256];
	(void)state;

	assert_file_refused(in_folder(path, "missing.pem"), ERR_NOT_FOUND, "No such file");
	assert_file_refused(folder, ERR_UNSUPPORTED, "not a regular file");
	assert_int_equal(mkfifo(in_folder(path, "fifo"), 0600), 0);
	assert_file_refused(path, ERR_UNSUPPORTED, "not a regular file");
	write_file(in_folder(path, "bad.pem"), SLICE("no key"), 0600);
	assert_file_refused(path, ERR_SYNTAX, "no private key");
	write_file(in_folder(path, "empty.pem"), SLICE(""), 0600);
	assert_file_refused(path, ERR_SYNTAX, "empty");
	write_file(in_folder(path, "small.pem"), slice_of_str(rsa_512_pem), 0600);
	assert_file_refused(path, ERR_LIMIT, "512 bits");
	write_file(in_folder(path, "large.pem"), slice_of(large, sizeof(large)), 0600);
	assert_file_refused(path, ERR_LIMIT, "too large");
	assert_int_equal(symlink(in_folder(other, "nowhere"), in_folder(path, "link.pem")), 0);
	assert_file_refused(path, ERR_NOT_FOUND, "No such file");
}

static void an_unreadable_file_is_a_matter_of_permission(void **state)
{
	char path[256];
	(void)state;

	write_file(in_folder(path, "locked.pem"), slice_of_str(rfc8463_ed25519_pem), 0000);
	if (getuid() == 0) { /* root reads everything */
		assert_int_equal(chmod(folder, 0755), 0);
		assert_int_equal(seteuid(65534), 0);
	}
	assert_file_refused(path, ERR_PERMISSION, "Permission denied");
	if (getuid() == 0)
		assert_int_equal(seteuid(0), 0);
}

static void a_link_to_a_key_is_followed(void **state)
{
	char path[256], target[256];
	struct dkim_key *key = NULL;
	(void)state;

	write_file(in_folder(target, "target.pem"), slice_of_str(rfc8463_ed25519_pem), 0600);
	assert_int_equal(symlink(target, in_folder(path, "secret.pem")), 0);
	assert_int_equal(dkim_key_load_file(path, &key, NULL), 0);
	dkim_key_free(&key);
}

static void an_export_needs_room(void **state)
{
	struct dkim_key *key = NULL;
	struct err err;
	struct buf out;
	(void)state;

	buf_init(&out, 50);
	assert_int_equal(dkim_key_load(slice_of_str(rfc8463_ed25519_pem), &key, NULL), 0);
	assert_int_equal(dkim_key_export(key, &out, &err), ERR_LIMIT);
	buf_fini(&out);
	buf_init(&out, 1000);
	assert_int_equal(dkim_key_export(key, &out, &err), 0);
	assert_true(slice_has_prefix(buf_slice(&out), SLICE("-----BEGIN PRIVATE KEY-----\n")));
	buf_fini(&out);
	dkim_key_free(&key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(pem_of_either_kind),
	    cmocka_unit_test(pem_with_text_around_it_and_crlf),
	    cmocka_unit_test(der_of_either_kind),
	    cmocka_unit_test(keys_that_cannot_sign_are_refused_with_the_reason),
	    cmocka_unit_test(a_damaged_rsa_key_never_signs),
	    cmocka_unit_test(generated_keys_sign),
	    cmocka_unit_test(written_keys_read_back),
	    cmocka_unit_test(writing_never_replaces_a_file_and_leaves_no_traces),
	    cmocka_unit_test(files_that_others_can_read_or_change_raise_a_warning),
	    cmocka_unit_test(files_that_are_no_keys_are_named),
	    cmocka_unit_test(an_unreadable_file_is_a_matter_of_permission),
	    cmocka_unit_test(a_link_to_a_key_is_followed),
	    cmocka_unit_test(an_export_needs_room),
	};
	return cmocka_run_group_tests_name("key", tests, make_folder, remove_folder);
}
