/* The examples that RFC 6376 (appendix A, with errata 3192 and 4926) and RFC 8463 (appendix A.3) publish, octet for
 * octet. PKCS#1 v1.5 and Ed25519 are deterministic, so their own keys must give their own signatures. */
#include "support_dkim.h"

#include "base/base.h"
#include "dkim/body_hash.h"
#include "dkim/canon.h"
#include "dkim/key.h"
#include "dkim/record.h"

#include <gnutls/crypto.h>
#include <stdlib.h>

/* The message of RFC 6376 appendix A has one blank where that of RFC 8463 has two. */
static const char rfc6376_body[] = "Hi.\r\n\r\nWe lost the game. Are you hungry yet?\r\n\r\nJoe.\r\n";
static const char rfc6376_received[] = "Received: from client1.football.example.com  [192.0.2.1]\r\n"
				       "      by submitserver.example.com with SUBMISSION;\r\n"
				       "      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)\r\n";
static const char rfc6376_unsigned[] = "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;\r\n"
				       "      c=simple/simple; q=dns/txt; i=joe@football.example.com;\r\n"
				       "      h=Received : From : To : Subject : Date : Message-ID;\r\n"
				       "      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
				       "      b=;\r\n";
static const char rfc6376_signature[] = "AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB"
					"4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut"
					"KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV"
					"4bmp/YzhwvcubU4=";

static const char rfc8463_ed25519_unsigned[] = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
					       " d=football.example.com; i=@football.example.com;\r\n"
					       " q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
					       " subject : date : message-id : from : subject : date;\r\n"
					       " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
					       " b=";
static const char rfc8463_ed25519_signature[] = "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus"
						"Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==";
static const char rfc8463_rsa_unsigned[] = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n"
					   " d=football.example.com; i=@football.example.com;\r\n"
					   " q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n"
					   " date : message-id : from : subject : date;\r\n"
					   " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
					   " b=";
static const char rfc8463_rsa_signature[] = "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3"
					    "DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz"
					    "dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=";
static const char body_hash[] = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=";

static void assert_body_hash(enum dkim_canon canon, const char *body, const char *wanted)
{
	struct dkim_body_hash *hash = dkim_body_hash_new(canon);
	unsigned char digest[DKIM_DIGEST_BYTES];
	char *text;

	dkim_body_hash_update(hash, slice_of_str(body));
	dkim_body_hash_final(hash, digest);
	text = to_base64(digest, sizeof(digest));
	assert_string_equal(text, wanted);
	free(text);
	dkim_body_hash_free(&hash);
}

static void body_hashes(void **state)
{
	(void)state;
	assert_body_hash(DKIM_CANON_SIMPLE, rfc6376_body, body_hash);
	assert_body_hash(DKIM_CANON_RELAXED, rfc_body, body_hash);
	/* RFC 6376 sections 3.4.3 and 3.4.4: SHA-256 of CRLF and of nothing. */
	assert_body_hash(DKIM_CANON_SIMPLE, "", "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=");
	assert_body_hash(DKIM_CANON_RELAXED, "", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
}

/* The fields of rfc_header in h= order; `received` in front. */
static void canonical_header(struct buf *data, enum dkim_canon canon, const char *received, const char *unsigned_field)
{
	struct slice left = slice_of_str(rfc_header);

	if (received)
		assert_int_equal(dkim_canon_field(data, canon, slice_of_str(received)), 0);
	while (left.len > 0) {
		size_t len = (size_t)slice_find(left, '\n') + 1;
		assert_int_equal(dkim_canon_field(data, canon, slice_to(left, len)), 0);
		left = slice_from(left, len);
	}
	assert_int_equal(dkim_canon_field(data, canon, slice_of_str(unsigned_field)), 0);
	buf_truncate(data, buf_len(data) - 2);
}

static void assert_signature(enum dkim_canon canon, const char *received, const char *unsigned_field, const char *pem,
			     const char *public_key, const char *wanted)
{
	unsigned char digest[DKIM_DIGEST_BYTES], signature[DKIM_SIGNATURE_MAX_BYTES];
	struct dkim_key *key = NULL;
	struct buf data;
	size_t len = 0;
	char *text;

	buf_init(&data, 10000);
	canonical_header(&data, canon, received, unsigned_field);
	assert_int_equal(gnutls_hash_fast(GNUTLS_DIG_SHA256, data.data, buf_len(&data), digest), 0);
	assert_int_equal(dkim_key_load(slice_of_str(pem), &key, NULL), 0);
	assert_int_equal(dkim_key_sign(key, digest, signature, &len), 0);
	text = to_base64(signature, len);
	assert_string_equal(text, wanted);
	assert_true(gnutls_accepts(dkim_key_algorithm(key), public_key, digest, slice_of(signature, len)));
	free(text);
	text = to_base64(dkim_key_public(key).ptr, dkim_key_public(key).len);
	assert_string_equal(text, public_key);
	free(text);
	dkim_key_free(&key);
	buf_fini(&data);
}

static void rfc6376_appendix_a(void **state)
{
	(void)state;
	assert_signature(DKIM_CANON_SIMPLE, rfc6376_received, rfc6376_unsigned, rfc6376_rsa_pem, rfc6376_rsa_public,
			 rfc6376_signature);
}

static void rfc8463_appendix_a_rsa(void **state)
{
	(void)state;
	assert_signature(DKIM_CANON_RELAXED, NULL, rfc8463_rsa_unsigned, rfc8463_rsa_pem, rfc8463_rsa_public,
			 rfc8463_rsa_signature);
}

static void rfc8463_appendix_a_ed25519(void **state)
{
	(void)state;
	assert_signature(DKIM_CANON_RELAXED, NULL, rfc8463_ed25519_unsigned, rfc8463_ed25519_pem,
			 rfc8463_ed25519_public, rfc8463_ed25519_signature);
}

/* The tests' own verifier must accept what the RFC publishes, or its word on our signatures is worth nothing. */
static void the_verifier_of_these_tests_accepts_rfc8463(void **state)
{
	struct buf message;
	(void)state;

	buf_init(&message, 10000);
	buf_printf(&message, "%s%s\r\n%s%s\r\n%s\r\n%s", rfc8463_ed25519_unsigned, rfc8463_ed25519_signature,
		   rfc8463_rsa_unsigned, rfc8463_rsa_signature, rfc_header, rfc_body);
	assert_int_equal(verify_message(buf_slice(&message), 0, rfc8463_ed25519_public), PASS);
	assert_int_equal(verify_message(buf_slice(&message), 1, rfc8463_rsa_public), PASS);
	assert_int_equal(verify_message(buf_slice(&message), 2, rfc8463_rsa_public), NO_SIGNATURE);
	assert_int_equal(verify_message(buf_slice(&message), 1, rfc6376_rsa_public), BAD_SIGNATURE);
	buf_append_str(&message, "More.\r\n");
	assert_int_equal(verify_message(buf_slice(&message), 0, rfc8463_ed25519_public), BAD_BODY);
	buf_fini(&message);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(body_hashes),
	    cmocka_unit_test(rfc6376_appendix_a),
	    cmocka_unit_test(rfc8463_appendix_a_rsa),
	    cmocka_unit_test(rfc8463_appendix_a_ed25519),
	    cmocka_unit_test(the_verifier_of_these_tests_accepts_rfc8463),
	};
	return cmocka_run_group_tests_name("published examples", tests, NULL, NULL);
}
