#include "tls/dane.h"

#include "base/base.h"
#include "tls/names.h"
#include "tls/verify.h"

#include <gnutls/abstract.h>
#include <gnutls/crypto.h>

enum { USAGE_TA = 2, USAGE_EE = 3 };		     /* RFC 7218 §2.1 */
enum { SELECTOR_CERT = 0, SELECTOR_SPKI = 1 };	     /* RFC 7218 §2.2 */
enum { MATCH_FULL = 0, MATCH_SHA256, MATCH_SHA512 }; /* RFC 7218 §2.3 */

const char *tls_dane_result_name(enum tls_dane_result result)
{
	switch (result) {
	case TLS_DANE_MATCH: return "match";
	case TLS_DANE_MISMATCH: return "mismatch";
	case TLS_DANE_UNUSABLE: return "unusable";
	}
	return "unknown";
}

bool tls_tlsa_parse(struct slice rdata, struct tls_tlsa *out)
{
	if (rdata.len < 4)
		return false;
	*out = (struct tls_tlsa){(uint8_t)rdata.ptr[0], (uint8_t)rdata.ptr[1], (uint8_t)rdata.ptr[2],
				 slice_from(rdata, 3)};
	return true;
}

static gnutls_datum_t datum_of(struct slice bytes)
{
	return (gnutls_datum_t){(unsigned char *)(uintptr_t)bytes.ptr, (unsigned)bytes.len};
}

static bool is_certificate(struct slice der)
{
	gnutls_datum_t datum = datum_of(der);
	struct verify_chain chain;

	if (verify_chain_parse(&chain, &datum, 1, NULL) < 0)
		return false;
	verify_chain_free(&chain);
	return true;
}

static bool is_public_key(struct slice der)
{
	gnutls_datum_t datum = datum_of(der);
	gnutls_pubkey_t key;
	bool good;

	BUG_ON(gnutls_pubkey_init(&key) < 0);
	good = gnutls_pubkey_import(key, &datum, GNUTLS_X509_FMT_DER) == 0;
	gnutls_pubkey_deinit(key);
	return good;
}

bool tls_tlsa_is_usable(const struct tls_tlsa *record)
{
	if (record->usage != USAGE_TA && record->usage != USAGE_EE)
		return false;
	if (record->selector != SELECTOR_CERT && record->selector != SELECTOR_SPKI)
		return false;
	switch (record->matching) {
	case MATCH_SHA256: return record->data.len == 32;
	case MATCH_SHA512: return record->data.len == 64;
	case MATCH_FULL:
		return record->selector == SELECTOR_CERT ? is_certificate(record->data) : is_public_key(record->data);
	default: return false;
	}
}

size_t tls_tlsa_usable_count(const struct tls_tlsa *records, size_t count)
{
	size_t usable = 0;

	for (size_t i = 0; i < count && i < TLS_DANE_RECORDS_MAX; i++)
		usable += tls_tlsa_is_usable(&records[i]);
	return usable;
}

/* One certificate as the records may want to see it. */
struct subject {
	struct slice certificate, spki;
};

static bool is_digest_of(gnutls_digest_algorithm_t algorithm, struct slice data, struct slice digest)
{
	unsigned char computed[64];

	return gnutls_hash_fast(algorithm, data.ptr, data.len, computed) == 0 &&
	       slice_eq(slice_of(computed, gnutls_hash_get_len(algorithm)), digest);
}

static bool record_matches(const struct tls_tlsa *record, const struct subject *subject)
{
	struct slice selected = record->selector == SELECTOR_CERT ? subject->certificate : subject->spki;

	switch (record->matching) {
	case MATCH_FULL: return slice_eq(selected, record->data);
	case MATCH_SHA256: return is_digest_of(GNUTLS_DIG_SHA256, selected, record->data);
	default: return is_digest_of(GNUTLS_DIG_SHA512, selected, record->data);
	}
}

/* What one question works with; nothing outlives it. */
struct match {
	struct verify_chain chain;
	struct subject subjects[TLS_CHAIN_MAX];
	const char *const *names;
	size_t name_count;
	struct err *why;
};

/* What cannot be read ends the chain there: an EE record asks for nothing but the leaf. */
static void match_init(struct match *match, const struct slice *chain, size_t count)
{
	for (size_t i = 0; i < count && i < TLS_CHAIN_MAX; i++) {
		gnutls_datum_t der = datum_of(chain[i]), spki = {0};
		struct verify_chain one;

		if (verify_chain_parse(&one, &der, 1, NULL) < 0)
			break;
		match->chain.list[i] = one.list[0];
		match->chain.count++;
		/* A key that cannot be exported matches no record by key: its slice stays empty. */
		verify_export_spki(one.list[0], &spki);
		match->subjects[i] = (struct subject){chain[i], slice_of(spki.data, spki.size)};
	}
}

static void match_fini(struct match *match)
{
	for (unsigned i = 0; i < match->chain.count; i++)
		gnutls_free((void *)(uintptr_t)match->subjects[i].spki.ptr);
	verify_chain_free(&match->chain);
}

/* Does the chain verify with this certificate as its only authority? */
static bool verifies_by(struct match *match, gnutls_x509_crt_t authority)
{
	gnutls_x509_trust_list_t list;
	bool good = false;

	if (!match->name_count) {
		err_set(match->why, ERR_CRYPTO, "there is no name to look for in the certificate");
		return false;
	}
	BUG_ON(gnutls_x509_trust_list_init(&list, 0) < 0);
	if (gnutls_x509_trust_list_add_cas(list, &authority, 1, 0) == 1)
		good = verify_chain_by_list(&match->chain, list, GNUTLS_KP_TLS_WWW_SERVER, match->names,
					    match->name_count, match->why) == 0;
	gnutls_x509_trust_list_deinit(list, 0);
	return good;
}

/* RFC 7671 §5.2.2: with the whole certificate in the record the server need not send it. */
static bool verifies_by_record(struct match *match, const struct tls_tlsa *record)
{
	gnutls_datum_t datum = datum_of(record->data);
	struct verify_chain authority;
	bool good;

	if (record->selector != SELECTOR_CERT || record->matching != MATCH_FULL ||
	    verify_chain_parse(&authority, &datum, 1, NULL) < 0)
		return false;
	good = verifies_by(match, authority.list[0]);
	verify_chain_free(&authority);
	return good;
}

static bool record_authenticates(struct match *match, const struct tls_tlsa *record)
{
	if (record->usage == USAGE_EE)
		return match->chain.count && record_matches(record, &match->subjects[0]);
	/* An authority stands above the leaf. */
	for (unsigned i = 1; i < match->chain.count; i++)
		if (record_matches(record, &match->subjects[i]))
			return verifies_by(match, match->chain.list[i]);
	return match->chain.count && verifies_by_record(match, record);
}

/* RFC 7671 §9: of digests of one usage and selector only the strongest counts. */
static bool is_outdone(const struct tls_tlsa *record, const struct tls_tlsa *records, size_t count)
{
	if (record->matching != MATCH_SHA256)
		return false;
	for (size_t i = 0; i < count; i++)
		if (records[i].usage == record->usage && records[i].selector == record->selector &&
		    records[i].matching == MATCH_SHA512 && tls_tlsa_is_usable(&records[i]))
			return true;
	return false;
}

static enum tls_dane_result match_records(struct match *match, const struct tls_tlsa *records, size_t count,
					  size_t *matched)
{
	bool usable = false;

	err_set(match->why, ERR_CRYPTO, "no TLSA record matches the certificate");
	for (size_t i = 0; i < count; i++) {
		if (!tls_tlsa_is_usable(&records[i]) || is_outdone(&records[i], records, count))
			continue;
		usable = true;
		if (!record_authenticates(match, &records[i]))
			continue;
		if (matched)
			*matched = i;
		return TLS_DANE_MATCH;
	}
	return usable ? TLS_DANE_MISMATCH : TLS_DANE_UNUSABLE;
}

enum tls_dane_result tls_dane_match(const struct slice *chain, size_t chain_count, const struct tls_tlsa *records,
				    size_t record_count, const char *const *names, size_t name_count, size_t *matched,
				    struct err *why)
{
	struct match match = {.names = names, .name_count = name_count, .why = why};
	enum tls_dane_result result;

	record_count = MIN(record_count, (size_t)TLS_DANE_RECORDS_MAX);
	if (!tls_tlsa_usable_count(records, record_count))
		return TLS_DANE_UNUSABLE;
	if (!chain_count) {
		err_set(why, ERR_CRYPTO, "the server showed no certificate");
		return TLS_DANE_MISMATCH;
	}
	match_init(&match, chain, chain_count);
	result = match_records(&match, records, record_count, matched);
	match_fini(&match);
	return result;
}
