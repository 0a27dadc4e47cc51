#include "support_dkim.h"

#include "base/base.h"
#include "base/err.h"
#include "dkim/key.h"
#include "dkim/record.h"

#include <stdio.h>
#include <stdlib.h>

static int parse(const char *txt, struct dkim_record *record, struct err *err)
{
	return dkim_record_parse(slice_of_str(txt), record, err);
}

static struct dkim_key *load(const char *pem)
{
	struct dkim_key *key = NULL;

	assert_int_equal(dkim_key_load(slice_of_str(pem), &key, NULL), 0);
	return key;
}

static enum dkim_record_verdict compare(const char *txt, const struct dkim_key *key)
{
	struct dkim_record record;
	struct err err;

	assert_int_equal(parse(txt, &record, &err), 0);
	return dkim_record_compare(&record, dkim_key_algorithm(key), dkim_key_public(key));
}

static void assert_round_trip(const struct dkim_key *key, const char *wanted)
{
	struct dkim_record record;
	struct buf txt;

	buf_init(&txt, 2000);
	assert_int_equal(dkim_record_format(&txt, dkim_key_algorithm(key), dkim_key_public(key)), 0);
	if (wanted)
		assert_true(slice_eq(buf_slice(&txt), slice_of_str(wanted)));
	assert_int_equal(dkim_record_parse(buf_slice(&txt), &record, NULL), 0);
	assert_int_equal(record.bits, dkim_key_bits(key));
	assert_true(record.allows_sha256 && record.allows_email && !record.is_testing && !record.is_strict);
	assert_int_equal(dkim_record_compare(&record, dkim_key_algorithm(key), dkim_key_public(key)),
			 DKIM_RECORD_MATCHES);
	buf_fini(&txt);
}

static void what_we_print_is_what_we_read(void **state)
{
	struct dkim_key *ed25519 = load(rfc8463_ed25519_pem), *rsa = load(rfc8463_rsa_pem), *large = NULL;
	(void)state;

	assert_round_trip(ed25519, "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
	assert_round_trip(rsa, NULL);
	assert_int_equal(dkim_key_generate(DKIM_RSA_SHA256, 2048, &large, NULL), 0);
	assert_round_trip(large, NULL);
	dkim_key_free(&ed25519);
	dkim_key_free(&rsa);
	dkim_key_free(&large);
}

/* As a zone file would be read: the strings between the quotes, joined. */
static size_t join_strings(struct slice zone, struct buf *txt)
{
	size_t count = 0;

	for (;;) {
		ptrdiff_t open = slice_find(zone, '"'), close;
		if (open < 0)
			return count;
		zone = slice_from(zone, (size_t)open + 1);
		close = slice_find(zone, '"');
		assert_in_range(close, 1, 255);
		buf_append(txt, slice_to(zone, (size_t)close));
		zone = slice_from(zone, (size_t)close + 1);
		count++;
	}
}

static void a_zone_file_has_strings_of_255_octets(void **state)
{
	struct dkim_key *key = NULL;
	struct buf zone, txt, line;
	(void)state;

	buf_init(&zone, 2000);
	buf_init(&txt, 2000);
	buf_init(&line, 2000);
	assert_int_equal(dkim_key_generate(DKIM_RSA_SHA256, 2048, &key, NULL), 0);
	assert_int_equal(
	    dkim_record_format_zone(&zone, SLICE("s1"), SLICE("example.com"), DKIM_RSA_SHA256, dkim_key_public(key)),
	    0);
	assert_true(
	    slice_has_prefix(buf_slice(&zone), SLICE("s1._domainkey.example.com. IN TXT ( \"v=DKIM1; k=rsa; p=MII")));
	assert_int_equal(slice_find(buf_slice(&zone), '\n'), buf_len(&zone) - 1);
	assert_int_equal(join_strings(buf_slice(&zone), &txt), 2);
	assert_int_equal(dkim_record_format(&line, DKIM_RSA_SHA256, dkim_key_public(key)), 0);
	assert_true(slice_eq(buf_slice(&txt), buf_slice(&line)));
	dkim_key_free(&key);
	buf_fini(&zone);
	buf_fini(&txt);
	buf_fini(&line);
}

static void names_that_do_not_fit_in_dns(void **state)
{
	char domain[254];
	struct buf out;
	(void)state;

	for (size_t i = 0; i < sizeof(domain); i++)
		domain[i] = i % 2 ? '.' : 'a';
	buf_init(&out, 1000);
	assert_int_equal(dkim_record_format_name(&out, SLICE("s"), SLICE("example.com")), 0);
	assert_true(slice_eq(buf_slice(&out), SLICE("s._domainkey.example.com")));
	assert_int_equal(dkim_record_format_name(&out, SLICE("ss"), slice_of(domain, 239)), 0);
	assert_int_equal(dkim_record_format_name(&out, SLICE("sss"), slice_of(domain, 239)), ERR_SYNTAX);
	assert_int_equal(dkim_record_format_name(&out, SLICE("s\ns"), SLICE("example.com")), ERR_SYNTAX);
	assert_int_equal(dkim_record_format_name(&out, SLICE("s"), SLICE("[192.0.2.1]")), ERR_SYNTAX);
	assert_int_equal(dkim_record_format_zone(&out, SLICE("s"), SLICE("x\"y"), DKIM_RSA_SHA256, SLICE("p")),
			 ERR_SYNTAX);
	buf_fini(&out);
}

/* As people publish them: no v=, other tags, blanks and line breaks, any order. */
static void records_in_the_wild(void **state)
{
	struct dkim_key *key = load(rfc8463_ed25519_pem), *rsa = load(rfc6376_rsa_pem);
	char txt[1000];
	(void)state;

	assert_int_equal(compare("k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", key),
			 DKIM_RECORD_MATCHES);
	assert_int_equal(compare("v=DKIM1;k=ed25519;p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=;", key),
			 DKIM_RECORD_MATCHES);
	assert_int_equal(
	    compare(" v = DKIM1 ; n=a note; p=11qYAYKxCrfVS/7T yWQHOg7hcvPapiMl\r\n\trwIaaPcHURo= ; k=ed25519 ; ", key),
	    DKIM_RECORD_MATCHES);
	assert_int_equal(compare("k=ed25519; h=sha1:sha256; s=* ; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", key),
			 DKIM_RECORD_MATCHES);
	snprintf(txt, sizeof(txt), "v=DKIM1; p=%s", rfc6376_rsa_public); /* k= defaults to rsa */
	assert_int_equal(compare(txt, rsa), DKIM_RECORD_MATCHES);
	dkim_key_free(&key);
	dkim_key_free(&rsa);
}

static void each_verdict(void **state)
{
	static const char p[] = "k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
	struct dkim_key *key = load(rfc8463_ed25519_pem), *rsa = load(rfc8463_rsa_pem);
	struct dkim_record record;
	char txt[1000];
	(void)state;

	snprintf(txt, sizeof(txt), "%s; t=s:y", p);
	assert_int_equal(compare(txt, key), DKIM_RECORD_TESTING);
	assert_int_equal(parse(txt, &record, NULL), 0);
	assert_true(record.is_strict && record.is_testing);
	snprintf(txt, sizeof(txt), "%s; h=sha1", p);
	assert_int_equal(compare(txt, key), DKIM_RECORD_FORBIDS_SHA256);
	snprintf(txt, sizeof(txt), "%s; s=tlsrpt", p);
	assert_int_equal(compare(txt, key), DKIM_RECORD_FORBIDS_EMAIL);
	assert_int_equal(compare("v=DKIM1; k=ed25519; p=", key), DKIM_RECORD_REVOKED);
	assert_int_equal(compare("v=DKIM1; p=", rsa), DKIM_RECORD_REVOKED);
	assert_int_equal(compare(p, rsa), DKIM_RECORD_OTHER_TYPE);
	assert_int_equal(compare("k=ed25519; p=21qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", key),
			 DKIM_RECORD_OTHER_KEY);
	snprintf(txt, sizeof(txt), "p=%s", rfc6376_rsa_public);
	assert_int_equal(compare(txt, rsa), DKIM_RECORD_OTHER_KEY);
	assert_string_equal(dkim_record_verdict_name(DKIM_RECORD_MATCHES), "matches");
	assert_string_equal(dkim_record_verdict_name(DKIM_RECORD_TESTING), "testing");
	assert_string_equal(dkim_record_verdict_name(99), "unknown");
	dkim_key_free(&key);
	dkim_key_free(&rsa);
}

static void assert_broken(struct slice txt, enum err_code code, const char *part)
{
	struct dkim_record record;
	struct err err = {0};

	assert_int_equal(dkim_record_parse(txt, &record, &err), code);
	if (!strstr(err.text, part))
		fail_msg("'%s' does not say '%s'", err.text, part);
}

static void broken_records_say_what_is_wrong(void **state)
{
	(void)state;
	assert_broken(SLICE(""), ERR_SYNTAX, "p= is missing");
	assert_broken(SLICE("v=spf1 -all"), ERR_UNSUPPORTED, "v=spf1 -all is not DKIM1");
	assert_broken(SLICE("v=DKIM1; k=rsa"), ERR_SYNTAX, "p= is missing");
	assert_broken(SLICE("k=rsa; v=DKIM1; p="), ERR_SYNTAX, "v= must be the first tag");
	assert_broken(SLICE("p=; p="), ERR_SYNTAX, "p= stands twice");
	assert_broken(SLICE("hello world"), ERR_SYNTAX, "name=value");
	assert_broken(SLICE("v=DKIM1;; p="), ERR_SYNTAX, "name=value");
	assert_broken(SLICE("=x; p="), ERR_SYNTAX, "name=value");
	assert_broken(SLICE("v=DKIM1; k=ecdsa; p=abcd"), ERR_UNSUPPORTED, "k=ecdsa");
	assert_broken(SLICE("v=DKIM1; p=\"MIGf\""), ERR_SYNTAX, "not base64");
	assert_broken(SLICE("v=DKIM1; p=MIG\xc3"), ERR_SYNTAX, "not base64");
	assert_broken(SLICE("v=DKIM1\\; k=rsa\\; p=MIGf"), ERR_UNSUPPORTED, "v=DKIM1\\");
	assert_broken(SLICE("v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/"), ERR_SYNTAX,
		      "not an RSA public key");
	assert_broken(SLICE("v=DKIM1; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="), ERR_SYNTAX,
		      "not an RSA public key");
	assert_broken(SLICE("k=ed25519; p=MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="), ERR_SYNTAX,
		      "44 octets");
	assert_broken(SLICE("\0=x"), ERR_SYNTAX, "p= is missing");
}

static void a_record_verifies_what_its_key_signed(void **state)
{
	static const char *const pems[] = {rfc8463_ed25519_pem, rfc8463_rsa_pem};
	unsigned char digest[DKIM_DIGEST_BYTES], signature[DKIM_SIGNATURE_MAX_BYTES];
	(void)state;

	for (size_t i = 0; i < 2; i++) {
		struct dkim_key *key = load(pems[i]);
		struct dkim_record record;
		struct buf txt;
		size_t len = 0;
		buf_init(&txt, 2000);
		dkim_record_format(&txt, dkim_key_algorithm(key), dkim_key_public(key));
		assert_int_equal(dkim_record_parse(buf_slice(&txt), &record, NULL), 0);
		memset(digest, 'd', sizeof(digest));
		assert_int_equal(dkim_key_sign(key, digest, signature, &len), 0);
		assert_true(dkim_record_verify(&record, digest, slice_of(signature, len)));
		assert_false(dkim_record_verify(&record, digest, slice_of(signature, len - 1)));
		digest[0] ^= 1;
		assert_false(dkim_record_verify(&record, digest, slice_of(signature, len)));
		record.public_key_len = 0;
		assert_false(dkim_record_verify(&record, digest, slice_of(signature, len)));
		buf_fini(&txt);
		dkim_key_free(&key);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_we_print_is_what_we_read),
	    cmocka_unit_test(a_zone_file_has_strings_of_255_octets),
	    cmocka_unit_test(names_that_do_not_fit_in_dns),
	    cmocka_unit_test(records_in_the_wild),
	    cmocka_unit_test(each_verdict),
	    cmocka_unit_test(broken_records_say_what_is_wrong),
	    cmocka_unit_test(a_record_verifies_what_its_key_signed),
	};
	return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
