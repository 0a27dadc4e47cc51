#include "relayd/tls_policy.h"

#include "base/base.h"
#include "relayd/router.h"
#include "tls/dane.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* A relayhost's own trust and fingerprint, and what we show to it. */
struct relayhost_tls {
	struct tls_credentials *credentials;
	struct tls_fingerprint fingerprint;
	bool has_fingerprint;
};

struct tls_policy {
	unsigned references;
	struct config *config;
	struct tls_trust *trust; /* for everything without a ca_file of its own */
	struct tls_credentials *strict, *opportunistic;
	struct tls_resume_cache *resume;
	struct relayhost_tls *relayhosts; /* as config->relayhosts */
};

static struct tls_trust *default_trust(const struct config *config, struct err *err)
{
	return config->delivery.ca_file ? tls_trust_new_file(config->delivery.ca_file, err) : tls_trust_new_system();
}

static bool load_relayhost(struct tls_policy *policy, const struct config_relayhost *relayhost,
			   struct relayhost_tls *out, struct err *err)
{
	struct tls_client_credentials_options options = {.min_version = TLS_VERSION_1_2};
	struct tls_trust *own = NULL;

	if (relayhost->fingerprint) {
		out->has_fingerprint =
		    tls_fingerprint_parse(slice_of_str(relayhost->fingerprint), &out->fingerprint, err) == 0;
		if (!out->has_fingerprint)
			return false;
	}
	if (relayhost->ca_file) {
		own = tls_trust_new_file(relayhost->ca_file, err);
		if (!own)
			return false;
	}
	options.trust = own ? own : policy->trust;
	options.certificate_file = relayhost->certificate;
	options.key_file = relayhost->key;
	out->credentials = tls_credentials_new_client(&options, err);
	tls_trust_unref(&own);
	return out->credentials != NULL;
}

struct tls_policy *tls_policy_new(struct config *config, struct err *err)
{
	struct tls_policy *policy = xcalloc(1, sizeof(*policy));
	struct tls_client_credentials_options strict = {.min_version = TLS_VERSION_1_2};

	policy->references = 1;
	policy->config = config_ref(config);
	policy->relayhosts = xcalloc(config->relayhost_count, sizeof(*policy->relayhosts));
	policy->resume = tls_resume_cache_new(clock_system());
	policy->trust = default_trust(config, err);
	if (!policy->trust)
		goto out;
	strict.trust = policy->trust;
	policy->strict = tls_credentials_new_client(&strict, err);
	policy->opportunistic = tls_credentials_new_client(&strict, err);
	if (!policy->strict || !policy->opportunistic)
		goto out;
	for (size_t i = 0; i < config->relayhost_count; i++)
		if (!load_relayhost(policy, &config->relayhosts[i], &policy->relayhosts[i], err))
			goto out;
	return policy;
out:
	tls_policy_free(&policy);
	return NULL;
}

struct tls_policy *tls_policy_ref(struct tls_policy *policy)
{
	policy->references++;
	return policy;
}

void tls_policy_free(struct tls_policy **policy)
{
	struct tls_policy *p = *policy;

	*policy = NULL;
	if (!p || --p->references > 0)
		return;
	for (size_t i = 0; i < p->config->relayhost_count; i++)
		tls_credentials_unref(&p->relayhosts[i].credentials);
	free(p->relayhosts);
	tls_credentials_unref(&p->strict);
	tls_credentials_unref(&p->opportunistic);
	tls_trust_unref(&p->trust);
	tls_resume_cache_free(&p->resume);
	config_free(&p->config);
	free(p);
}

/* ---- names ---- */

const char *tls_basis_name(enum tls_basis basis)
{
	switch (basis) {
	case TLS_BASIS_LEVEL: return "configuration";
	case TLS_BASIS_DANE: return "DANE";
	case TLS_BASIS_DANE_UNUSABLE: return "DANE without usable records";
	case TLS_BASIS_STS: return "MTA-STS";
	case TLS_BASIS_MEMORY: return "what was learnt";
	}
	return "unknown";
}

/* ---- before the connection ---- */

static enum config_tls_level level_of(enum config_tls_level level, const struct config_relayhost *relayhost)
{
	if (level != CONFIG_TLS_UNSET)
		return level;
	return relayhost ? relayhost->tls : router_default_tls(DESTINATION_MX);
}

bool tls_policy_wants_dane(enum config_tls_level level, const struct config_relayhost *relayhost)
{
	switch (level_of(level, relayhost)) {
	case CONFIG_TLS_UNSET:
	case CONFIG_TLS_NONE: return false;
	case CONFIG_TLS_VERIFY: return !relayhost; /* a relayhost's ca_file and fingerprint are the operator's word */
	case CONFIG_TLS_OPPORTUNISTIC:
	case CONFIG_TLS_REQUIRED:
	case CONFIG_TLS_DANE: break;
	}
	return true;
}

bool tls_policy_wants_sts(enum config_tls_level level, const struct config_relayhost *relayhost)
{
	level = level_of(level, relayhost);
	return !relayhost && level != CONFIG_TLS_NONE && level != CONFIG_TLS_DANE;
}

/* The records of an answer as the matcher wants them; returns how many. */
static size_t take_records(const struct dns_answer *answer, struct tls_tlsa out[TLS_DANE_RECORDS_MAX])
{
	size_t count = 0;

	for (size_t i = 0; i < answer->record_count && count < TLS_DANE_RECORDS_MAX; i++)
		count += tls_tlsa_parse(answer->records[i].tlsa.rdata, &out[count]);
	return count;
}

static bool has_usable_records(const struct tls_facts *facts)
{
	struct tls_tlsa records[TLS_DANE_RECORDS_MAX];

	return facts->dane == TLS_DANE_RECORDS &&
	       tls_tlsa_usable_count(records, take_records(facts->tlsa, records)) > 0;
}

static void __attribute__((format(printf, 3, 4)))
refuse(struct tls_need *need, enum failure_class class, const char *format, ...)
{
	va_list args;

	need->is_refused = true;
	need->class = class;
	va_start(args, format);
	vsnprintf(need->why, sizeof(need->why), format, args);
	va_end(args);
}

static void need_encrypted(const struct tls_policy *policy, enum smtp_client_tls mode, enum tls_basis basis,
			   struct tls_need *need)
{
	need->mode = mode;
	need->basis = basis;
	need->credentials = policy->opportunistic;
	need->session.level = TLS_LEVEL_OPPORTUNISTIC;
	need->session.resume = policy->resume;
}

static void need_verified(const struct tls_policy *policy, const struct relayhost_tls *own, enum tls_basis basis,
			  struct tls_need *need)
{
	need->mode = SMTP_CLIENT_TLS_REQUIRED;
	need->basis = basis;
	need->credentials = policy->strict;
	need->session.level = TLS_LEVEL_VERIFY;
	if (own && own->has_fingerprint) {
		need->session.level = TLS_LEVEL_FINGERPRINT;
		need->session.fingerprints = &own->fingerprint;
		need->session.fingerprint_count = 1;
	}
}

/* Authorities don't matter, the records are looked at after the handshake. */
static void need_dane(const struct tls_policy *policy, const struct tls_facts *facts, struct tls_need *need)
{
	need->mode = SMTP_CLIENT_TLS_REQUIRED;
	need->basis = TLS_BASIS_DANE;
	need->credentials = policy->strict;
	need->session.level = TLS_LEVEL_DANE;
	need->session.server_name = facts->base;
}

/* True: what DNS says of the host's certificate settles it. */
static bool decide_by_dane(const struct tls_policy *policy, enum config_tls_level level, const struct tls_facts *facts,
			   struct tls_need *need)
{
	if (facts->dane == TLS_DANE_BROKEN)
		refuse(need, CLASS_DNS, "the TLSA records of %.120s cannot be had: %.80s", facts->host, facts->why);
	else if (has_usable_records(facts))
		need_dane(policy, facts, need);
	else if (level != CONFIG_TLS_DANE)
		return false;
	else if (facts->dane == TLS_DANE_RECORDS)
		refuse(need, CLASS_TLS, "none of the TLSA records of %.120s can be used, and tls: dane is configured",
		       facts->host);
	else if (facts->is_resolver_trusted)
		refuse(need, CLASS_TLS, "%.120s has no TLSA records with DNSSEC, and tls: dane is configured",
		       facts->host);
	else
		refuse(need, CLASS_TLS, "tls: dane needs a resolver that is trusted to check DNSSEC: see dns.trust_ad");
	return true;
}

static void decide_by_level(const struct tls_policy *policy, enum config_tls_level level,
			    const struct relayhost_tls *own, const struct tls_facts *facts, struct tls_need *need)
{
	switch (level) {
	case CONFIG_TLS_UNSET:
	case CONFIG_TLS_NONE: break;
	case CONFIG_TLS_OPPORTUNISTIC:
		if (facts->dane == TLS_DANE_RECORDS)
			need_encrypted(policy, SMTP_CLIENT_TLS_REQUIRED, TLS_BASIS_DANE_UNUSABLE, need);
		else if (facts->is_remembered)
			need_encrypted(policy, SMTP_CLIENT_TLS_REQUIRED, TLS_BASIS_MEMORY, need);
		else
			need_encrypted(policy, SMTP_CLIENT_TLS_OPPORTUNISTIC, TLS_BASIS_LEVEL, need);
		break;
	case CONFIG_TLS_REQUIRED: need_encrypted(policy, SMTP_CLIENT_TLS_REQUIRED, TLS_BASIS_LEVEL, need); break;
	case CONFIG_TLS_VERIFY:
	case CONFIG_TLS_DANE: need_verified(policy, own, TLS_BASIS_LEVEL, need); break;
	}
}

void tls_policy_decide(const struct tls_policy *policy, enum config_tls_level level,
		       const struct config_relayhost *relayhost, const struct tls_facts *facts, struct tls_need *need)
{
	const struct relayhost_tls *own =
	    relayhost ? &policy->relayhosts[relayhost - policy->config->relayhosts] : NULL;

	*need = (struct tls_need){.mode = SMTP_CLIENT_TLS_NONE, .session = {.server_name = facts->host}};
	level = level_of(level, relayhost);
	if (tls_policy_wants_dane(level, relayhost) && decide_by_dane(policy, level, facts, need))
		;
	else if (!tls_policy_wants_sts(level, relayhost) || facts->sts != TLS_STS_ENFORCE)
		decide_by_level(policy, level, own, facts, need);
	else if (facts->sts_lists_host)
		need_verified(policy, NULL, TLS_BASIS_STS, need);
	else
		refuse(need, CLASS_TLS, "%.120s is not among the hosts of the MTA-STS policy of %.80s", facts->host,
		       facts->next_hop);
	if (need->mode == SMTP_CLIENT_TLS_NONE || !own)
		return;
	need->credentials = own->credentials;
	if (relayhost->implicit)
		need->mode = SMTP_CLIENT_TLS_IMPLICIT;
}

bool tls_policy_may_go_clear(const struct tls_need *need)
{
	return need->mode == SMTP_CLIENT_TLS_OPPORTUNISTIC;
}

/* ---- after the handshake ---- */

static enum tls_verdict judge_by_dane(const struct tls_facts *facts, struct tls_session *session, struct err *why)
{
	struct tls_tlsa records[TLS_DANE_RECORDS_MAX];
	struct slice chain[TLS_CHAIN_MAX];
	const char *names[] = {facts->base, facts->next_hop}; /* RFC 7672 section 3.2.2 */
	size_t count = MIN(tls_session_peer_chain_count(session), (size_t)TLS_CHAIN_MAX);

	for (size_t i = 0; i < count; i++)
		chain[i] = tls_session_peer_certificate(session, i);
	if (tls_dane_match(chain, count, records, take_records(facts->tlsa, records), names, facts->next_hop ? 2 : 1,
			   NULL, why) == TLS_DANE_MATCH)
		return TLS_VERDICT_AUTHENTICATED;
	return TLS_VERDICT_REFUSED;
}

enum tls_verdict tls_policy_judge(const struct tls_need *need, const struct tls_facts *facts,
				  struct tls_session *session, struct err *why)
{
	bool name_is_good = facts->is_name_secure ||
			    ((facts->sts == TLS_STS_ENFORCE || facts->sts == TLS_STS_TESTING) && facts->sts_lists_host);

	*why = (struct err){0};
	if (need->session.level == TLS_LEVEL_DANE)
		return judge_by_dane(facts, session, why);
	if (!tls_session_verify(session, why))
		return need->session.level == TLS_LEVEL_OPPORTUNISTIC ? TLS_VERDICT_ENCRYPTED : TLS_VERDICT_REFUSED;
	if (name_is_good)
		return TLS_VERDICT_AUTHENTICATED;
	err_set(why, ERR_CRYPTO, "neither DNSSEC nor an MTA-STS policy says that %.200s is the right host",
		facts->host);
	return TLS_VERDICT_VERIFIED;
}
