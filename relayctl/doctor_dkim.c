/* Doctor: do receivers find our DKIM keys, and does what we sign verify with them? */
#include "base/base.h"
#include "dkim/record.h"
#include "dkim/select.h"
#include "relayctl/doctor.h"
#include "relayctl/published.h"

#include <stdio.h>

/* Signs as the daemon would, and verifies as a receiver would. */
static bool verifies(struct dkim_key *key, const struct dns_answer *answer)
{
	static const unsigned char digest[DKIM_DIGEST_BYTES] = "relayctl doctor signs this";
	unsigned char signature[DKIM_SIGNATURE_MAX_BYTES];
	struct dkim_record record;
	struct err err;
	size_t len;

	return dkim_record_parse(answer->records[0].text, &record, &err) == 0 &&
	       dkim_key_sign(key, digest, signature, &len) == 0 &&
	       dkim_record_verify(&record, digest, slice_of(signature, len));
}

static void publish(struct doctor *doctor, const char *name, struct dkim_key *key)
{
	struct buf line;

	buf_init(&line, 8192);
	if (dkim_record_format(&line, dkim_key_algorithm(key), dkim_key_public(key)) == 0)
		doctor_publish(doctor, name, buf_slice(&line));
	buf_fini(&line);
}

static void compare(struct doctor *doctor, const char *name, struct dkim_key *key, const struct dns_answer *answer)
{
	const char *algorithm = dkim_algorithm_name(dkim_key_algorithm(key));
	unsigned bits = dkim_key_bits(key);
	char text[700];
	const char *wrong = published_judge(answer, key, text, sizeof(text));

	if (wrong) {
		doctor_tell(doctor, DOCTOR_FAIL, name, "%s", wrong);
		if (answer->status != DNS_TEMPORARY)
			publish(doctor, name, key);
	} else if (!verifies(key, answer)) {
		doctor_tell(doctor, DOCTOR_FAIL, name, "a signature of ours does not verify with the published key");
		publish(doctor, name, key);
	} else if (dkim_key_warnings(key) & DKIM_KEY_SMALL) {
		doctor_tell(doctor, DOCTOR_WARN, name, "is our key, but has %u bits only: some receivers pass it over",
			    bits);
		doctor_advise(doctor, "make one of %d bits with another selector: relayctl dkim keygen",
			      DKIM_RSA_WARN_BITS);
	} else {
		doctor_tell(doctor, DOCTOR_OK, name, "%s, %u bits: the key is published, and verifies what ours signs",
			    algorithm, bits);
	}
}

/* What it signs with: a bit for the algorithm; 0: the key cannot be used, which was told. */
static unsigned check_key(struct doctor *doctor, const char *domain, const struct config_dkim_key *entry)
{
	const struct dns_answer *answer;
	struct dkim_key *key;
	unsigned algorithm;
	struct err err;
	char *text, name[600];
	int rc = config_secret_read(&entry->key, &text, &err);

	snprintf(name, sizeof(name), "%s._domainkey.%s", entry->selector, domain);
	if (rc == 0) {
		rc = dkim_key_load(slice_of_str(text), &key, &err);
		config_secret_wipe(&text);
	}
	if (rc != 0) {
		doctor_tell(doctor, DOCTOR_FAIL, name, "the key cannot be used: %s", err.text);
		return 0;
	}
	answer = lookup_ask(doctor->lookup, name, DNS_TXT);
	compare(doctor, name, key, answer);
	dns_answer_unref(&answer);
	algorithm = 1u << dkim_key_algorithm(key);
	dkim_key_free(&key);
	return algorithm;
}

const struct config_dkim_domain *doctor_signer(const struct doctor *doctor, const char *domain)
{
	const struct config *config = doctor->config;
	struct dkim_domains *set = dkim_domains_new();
	struct slice found;
	uint32_t id = 0;
	bool is_there;

	for (size_t i = 0; i < config->dkim.domain_count; i++)
		dkim_domains_add(set, slice_of_str(config->dkim.domains[i].domain), (uint32_t)i, NULL);
	if (config->dkim.default_domain)
		dkim_domains_set_default(set, slice_of_str(config->dkim.default_domain));
	is_there = dkim_domains_find(set, slice_of_str(domain), &found, &id);
	dkim_domains_free(&set);
	return is_there ? &config->dkim.domains[id] : NULL;
}

void doctor_dkim(struct doctor *doctor, const char *domain)
{
	const struct config_dkim_domain *signer = doctor_signer(doctor, domain);
	char d[DKIM_DOMAIN_MAX_BYTES + 1];
	unsigned algorithms = 0;

	if (!signer && !config_uses_mx(doctor->config)) {
		doctor_tell(doctor, DOCTOR_INFO, domain, "no key of ours signs its mail: the relayhost must");
		return;
	}
	if (!signer) {
		doctor_tell(doctor, DOCTOR_WARN, domain, "its mail is not signed: there is no key for it");
		doctor_advise(
		    doctor, "relayctl dkim keygen %s s1, publish what it prints, name the key in dkim.domains", domain);
		return;
	}
	if (dkim_domain_to_ascii(slice_of_str(signer->domain), d) != 0) {
		doctor_tell(doctor, DOCTOR_FAIL, domain, "'%s' under dkim.domains is no domain", signer->domain);
		return;
	}
	for (size_t i = 0; i < signer->key_count; i++)
		algorithms |= check_key(doctor, d, &signer->keys[i]);
	if (algorithms == 1u << DKIM_ED25519_SHA256) {
		doctor_tell(doctor, DOCTOR_WARN, domain,
			    "signed with ed25519 alone, which many receivers cannot verify");
		doctor_advise(doctor, "add an RSA key beside it: relayctl dkim keygen %s s1", d);
	}
}
