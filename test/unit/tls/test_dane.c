/* TLSA records against certificate chains, as a table. */
#include "support_tls.h"

#include "tls/dane.h"

#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>

enum who { LEAF, MIDDLE, ROOT, STRANGER };

static struct cert *certs[4], *expired_leaf, *expired_middle, *under_expired;

static int setup(void **state)
{
	if (support_setup(state) < 0)
		return -1;
	certs[ROOT] = cert_new(&(struct cert_spec){.common_name = "Root", .is_authority = true});
	certs[MIDDLE] =
	    cert_new(&(struct cert_spec){.common_name = "Middle", .is_authority = true, .issuer = certs[ROOT]});
	certs[LEAF] = cert_new(&(struct cert_spec){
	    .common_name = "mx", .dns = {"mx.example.org", "*.example.net"}, .issuer = certs[MIDDLE]});
	certs[STRANGER] = cert_new(&(struct cert_spec){.common_name = "Stranger", .is_authority = true});
	expired_leaf = cert_new(&(struct cert_spec){
	    .dns = {"mx.example.org"}, .issuer = certs[MIDDLE], .from = 1600000000, .until = 1704067200});
	expired_middle = cert_new(&(struct cert_spec){.common_name = "Old",
						      .is_authority = true,
						      .issuer = certs[ROOT],
						      .from = 1600000000,
						      .until = 1704067200});
	under_expired = cert_new(&(struct cert_spec){.dns = {"mx.example.org"}, .issuer = expired_middle});
	return 0;
}

static int teardown(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(certs); i++)
		cert_free(&certs[i]);
	cert_free(&under_expired);
	cert_free(&expired_middle);
	cert_free(&expired_leaf);
	return support_teardown(state);
}

/* A record that describes this certificate; the data lives in `storage`. */
static struct tls_tlsa tlsa_of(const struct cert *cert, uint8_t usage, uint8_t selector, uint8_t matching,
			       unsigned char storage[64])
{
	const gnutls_datum_t *data = selector == 0 ? &cert->der : &cert->spki;
	struct tls_tlsa record = {usage, selector, matching, slice_of(data->data, data->size)};

	if (matching == 1 || matching == 2) {
		gnutls_hash_fast(matching == 1 ? GNUTLS_DIG_SHA256 : GNUTLS_DIG_SHA512, data->data, data->size,
				 storage);
		record.data = slice_of(storage, matching == 1 ? 32 : 64);
	}
	return record;
}

static enum tls_dane_result match(const struct cert *leaf, unsigned depth, const struct tls_tlsa *records, size_t count,
				  const char *name, size_t *matched, struct err *why)
{
	struct slice chain[TLS_CHAIN_MAX];
	size_t n = 0;

	*why = (struct err){0};
	for (const struct cert *c = leaf; c && n < depth; c = c->issuer)
		chain[n++] = cert_der(c);
	return tls_dane_match(chain, n, records, count, &name, 1, matched, why);
}

struct row {
	enum who who;
	uint8_t usage, selector, matching;
	unsigned depth; /* how many certificates the server sends */
	const char *name;
	enum tls_dane_result result;
	const char *why;
};

static const struct row rows[] = {
    /* DANE-EE: the leaf is enough, names don't matter. */
    {LEAF, 3, 1, 1, 1, "mx.example.org", TLS_DANE_MATCH, ""},
    {LEAF, 3, 1, 2, 1, "mx.example.org", TLS_DANE_MATCH, ""},
    {LEAF, 3, 1, 0, 1, "mx.example.org", TLS_DANE_MATCH, ""},
    {LEAF, 3, 0, 1, 1, "mx.example.org", TLS_DANE_MATCH, ""},
    {LEAF, 3, 0, 2, 1, "mx.example.org", TLS_DANE_MATCH, ""},
    {LEAF, 3, 0, 0, 1, "mx.example.org", TLS_DANE_MATCH, ""},
    {LEAF, 3, 1, 1, 3, "other.example.com", TLS_DANE_MATCH, ""},
    {MIDDLE, 3, 1, 1, 3, "mx.example.org", TLS_DANE_MISMATCH, "no TLSA record matches the certificate"},
    {STRANGER, 3, 1, 1, 3, "mx.example.org", TLS_DANE_MISMATCH, "no TLSA record matches the certificate"},
    {STRANGER, 3, 0, 0, 3, "mx.example.org", TLS_DANE_MISMATCH, "no TLSA record matches the certificate"},
    {LEAF, 3, 1, 1, 0, "mx.example.org", TLS_DANE_MISMATCH, "the server showed no certificate"},
    /* DANE-TA: from the authority down, with name and date. */
    {MIDDLE, 2, 0, 1, 2, "mx.example.org", TLS_DANE_MATCH, ""},
    {MIDDLE, 2, 1, 1, 2, "mx.example.org", TLS_DANE_MATCH, ""},
    {MIDDLE, 2, 1, 2, 3, "mx.example.org", TLS_DANE_MATCH, ""},
    {MIDDLE, 2, 1, 0, 3, "mx.example.org", TLS_DANE_MATCH, ""},
    {ROOT, 2, 0, 1, 3, "mx.example.org", TLS_DANE_MATCH, ""},
    {ROOT, 2, 1, 1, 3, "a.example.net", TLS_DANE_MATCH, ""},
    {ROOT, 2, 0, 0, 3, "mx.example.org", TLS_DANE_MATCH, ""},
    {ROOT, 2, 0, 1, 3, "mx.example.com", TLS_DANE_MISMATCH,
     "certificate is for mx.example.org, *.example.net, not mx.example.com"},
    {ROOT, 2, 0, 1, 3, "a.b.example.net", TLS_DANE_MISMATCH,
     "certificate is for mx.example.org, *.example.net, not a.b.example.net"},
    /* The authority is not in the chain: only the whole certificate in the record helps. */
    {ROOT, 2, 0, 1, 2, "mx.example.org", TLS_DANE_MISMATCH, "no TLSA record matches the certificate"},
    {ROOT, 2, 0, 0, 2, "mx.example.org", TLS_DANE_MATCH, ""},
    {MIDDLE, 2, 0, 0, 1, "mx.example.org", TLS_DANE_MATCH, ""},
    {MIDDLE, 2, 1, 0, 1, "mx.example.org", TLS_DANE_MISMATCH, "no TLSA record matches the certificate"},
    {STRANGER, 2, 0, 1, 3, "mx.example.org", TLS_DANE_MISMATCH, "no TLSA record matches the certificate"},
    {STRANGER, 2, 0, 0, 3, "mx.example.org", TLS_DANE_MISMATCH,
     "certificate leads to the issuer \"Root\", who is not trusted here"},
    {LEAF, 2, 1, 1, 1, "mx.example.org", TLS_DANE_MISMATCH, "no TLSA record matches the certificate"},
    /* Usages 0 and 1, unknown selectors and matching types. */
    {ROOT, 0, 0, 1, 3, "mx.example.org", TLS_DANE_UNUSABLE, ""},
    {LEAF, 1, 1, 1, 3, "mx.example.org", TLS_DANE_UNUSABLE, ""},
    {LEAF, 4, 1, 1, 3, "mx.example.org", TLS_DANE_UNUSABLE, ""},
    {LEAF, 255, 1, 1, 3, "mx.example.org", TLS_DANE_UNUSABLE, ""},
    {LEAF, 3, 2, 1, 3, "mx.example.org", TLS_DANE_UNUSABLE, ""},
    {LEAF, 3, 1, 3, 3, "mx.example.org", TLS_DANE_UNUSABLE, ""},
};

static void the_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct row *row = &rows[i];
		unsigned char storage[64];
		struct tls_tlsa record = tlsa_of(certs[row->who], row->usage, row->selector, row->matching, storage);
		struct err why;
		size_t matched = 99;
		enum tls_dane_result result = match(certs[LEAF], row->depth, &record, 1, row->name, &matched, &why);

		if (result != row->result || (result == TLS_DANE_MISMATCH && strcmp(why.text, row->why) != 0))
			fail_msg("row %zu (%u %u %u): %s \"%s\"", i, row->usage, row->selector, row->matching,
				 tls_dane_result_name(result), why.text);
		assert_int_equal(matched, result == TLS_DANE_MATCH ? 0 : 99);
		assert_int_equal(tls_tlsa_is_usable(&record), result != TLS_DANE_UNUSABLE);
	}
}

static void dates_matter_for_authorities_alone(void **state)
{
	unsigned char storage[64];
	struct tls_tlsa record = tlsa_of(expired_leaf, 3, 1, 1, storage);
	struct err why;

	(void)state;
	assert_int_equal(match(expired_leaf, 3, &record, 1, "mx.example.org", NULL, &why), TLS_DANE_MATCH);
	record = tlsa_of(certs[ROOT], 2, 1, 1, storage);
	assert_int_equal(match(expired_leaf, 3, &record, 1, "mx.example.org", NULL, &why), TLS_DANE_MISMATCH);
	assert_string_equal(why.text, "certificate has expired (2024-01-01)");
	assert_int_equal(match(under_expired, 3, &record, 1, "mx.example.org", NULL, &why), TLS_DANE_MISMATCH);
	assert_string_equal(why.text, "an issuer's certificate has expired (2024-01-01)");
}

static void a_forged_chain_does_not_help(void **state)
{
	/* The leaf is the attacker's own; he sends the record's authority along. */
	struct cert *forged = cert_new(&(struct cert_spec){.dns = {"mx.example.org"}});
	struct slice chain[2] = {cert_der(forged), cert_der(certs[ROOT])};
	const char *name = "mx.example.org";
	unsigned char storage[64];
	struct tls_tlsa record = tlsa_of(certs[ROOT], 2, 0, 1, storage);
	struct err why = {0};

	(void)state;
	assert_int_equal(tls_dane_match(chain, 2, &record, 1, &name, 1, NULL, &why), TLS_DANE_MISMATCH);
	assert_string_equal(why.text, "certificate is self-signed, no trusted authority stands behind it");
	cert_free(&forged);
}

static void any_record_and_any_name_will_do(void **state)
{
	unsigned char a[64], b[64];
	struct tls_tlsa records[] = {
	    {1, 1, 1, SLICE("0123456789abcdef0123456789abcdef")},
	    tlsa_of(certs[STRANGER], 3, 1, 1, a),
	    tlsa_of(certs[ROOT], 2, 1, 1, b),
	};
	struct slice chain[] = {cert_der(certs[LEAF]), cert_der(certs[MIDDLE]), cert_der(certs[ROOT])};
	const char *const names[] = {"next-hop.example.com", "mx.example.org"};
	size_t matched = 99;
	struct err why;

	(void)state;
	assert_int_equal(tls_dane_match(chain, 3, records, 3, names, 2, &matched, &why), TLS_DANE_MATCH);
	assert_int_equal(matched, 2);
	assert_int_equal(tls_dane_match(chain, 3, records, 3, names, 1, &matched, NULL), TLS_DANE_MISMATCH);
	assert_int_equal(tls_dane_match(chain, 3, records, 3, NULL, 0, &matched, &why), TLS_DANE_MISMATCH);
	assert_string_equal(why.text, "there is no name to look for in the certificate");
	assert_int_equal(tls_tlsa_usable_count(records, 3), 2);
	assert_int_equal(tls_dane_match(chain, 3, records, 0, names, 2, &matched, &why), TLS_DANE_UNUSABLE);
}

static void only_the_strongest_digest_counts(void **state)
{
	unsigned char a[64], b[64];
	struct tls_tlsa records[] = {tlsa_of(certs[LEAF], 3, 1, 1, a), tlsa_of(certs[STRANGER], 3, 1, 2, b)};
	struct err why;

	(void)state;
	/* RFC 7671 §9: the SHA-512 record stands for its usage and selector. */
	assert_int_equal(match(certs[LEAF], 3, records, 2, "x", NULL, &why), TLS_DANE_MISMATCH);
	records[1].selector = 0;
	assert_int_equal(match(certs[LEAF], 3, records, 2, "x", NULL, &why), TLS_DANE_MATCH);
	/* One of the wrong length outdoes nothing. */
	records[1].selector = 1;
	records[1].data.len = 63;
	assert_int_equal(match(certs[LEAF], 3, records, 2, "x", NULL, &why), TLS_DANE_MATCH);
}

static void malformed_data_is_unusable(void **state)
{
	struct tls_tlsa record;
	char rdata[70] = "\x03\x01\x01";

	(void)state;
	for (size_t len = 0; len < 4; len++)
		assert_false(tls_tlsa_parse(slice_of(rdata, len), &record));
	for (size_t len = 4; len < sizeof(rdata); len++) {
		assert_true(tls_tlsa_parse(slice_of(rdata, len), &record));
		assert_int_equal(tls_tlsa_is_usable(&record), len == 3 + 32);
	}
	rdata[2] = 2;
	assert_true(tls_tlsa_parse(slice_of(rdata, 67), &record));
	assert_true(tls_tlsa_is_usable(&record));
	rdata[2] = 0;
	assert_false(tls_tlsa_is_usable(&(struct tls_tlsa){3, 0, 0, SLICE("no certificate")}));
	assert_false(tls_tlsa_is_usable(&(struct tls_tlsa){3, 1, 0, SLICE("no key")}));
	assert_false(tls_tlsa_is_usable(&(struct tls_tlsa){3, 1, 0, SLICE("")}));
}

static void garbage_behind_the_leaf_does_not_hurt_an_ee_record(void **state)
{
	struct slice chain[40];
	unsigned char storage[64];
	struct tls_tlsa record = tlsa_of(certs[LEAF], 3, 1, 1, storage);

	(void)state;
	for (size_t i = 1; i < ARRAY_LEN(chain); i++)
		chain[i] = SLICE("not a certificate");
	chain[0] = cert_der(certs[LEAF]);
	assert_int_equal(tls_dane_match(chain, ARRAY_LEN(chain), &record, 1, NULL, 0, NULL, NULL), TLS_DANE_MATCH);
	chain[0] = chain[1];
	assert_int_equal(tls_dane_match(chain, ARRAY_LEN(chain), &record, 1, NULL, 0, NULL, NULL), TLS_DANE_MISMATCH);
}

static void too_many_records_are_cut(void **state)
{
	static struct tls_tlsa records[TLS_DANE_RECORDS_MAX + 1];
	unsigned char a[64], b[64];
	struct err why;

	(void)state;
	for (size_t i = 0; i < TLS_DANE_RECORDS_MAX; i++)
		records[i] = tlsa_of(certs[STRANGER], 3, 1, 1, a);
	records[TLS_DANE_RECORDS_MAX] = tlsa_of(certs[LEAF], 3, 1, 1, b);
	assert_int_equal(match(certs[LEAF], 1, records, ARRAY_LEN(records), "x", NULL, &why), TLS_DANE_MISMATCH);
	assert_int_equal(match(certs[LEAF], 1, records + 1, TLS_DANE_RECORDS_MAX, "x", NULL, &why), TLS_DANE_MATCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_table),
	    cmocka_unit_test(dates_matter_for_authorities_alone),
	    cmocka_unit_test(a_forged_chain_does_not_help),
	    cmocka_unit_test(any_record_and_any_name_will_do),
	    cmocka_unit_test(only_the_strongest_digest_counts),
	    cmocka_unit_test(malformed_data_is_unusable),
	    cmocka_unit_test(garbage_behind_the_leaf_does_not_hurt_an_ee_record),
	    cmocka_unit_test(too_many_records_are_cut),
	};

	return cmocka_run_group_tests_name("tls dane", tests, setup, teardown);
}
