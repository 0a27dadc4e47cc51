#include "relayd/tls_policy.h"

#include "base/base.h"
#include "relayd/router.h"

#include <stdlib.h>

/* A relayhost's own trust and fingerprint. */
struct relayhost_tls {
	struct tls_credentials *credentials;
	struct tls_fingerprint fingerprint;
	bool has_fingerprint;
};

struct tls_policy {
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
	out->credentials = tls_credentials_new_client(&options, err);
	tls_trust_unref(&own);
	return out->credentials != NULL;
}

struct tls_policy *tls_policy_new(struct config *config, struct err *err)
{
	struct tls_policy *policy = xcalloc(1, sizeof(*policy));
	struct tls_client_credentials_options strict = {.min_version = TLS_VERSION_1_2};

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

void tls_policy_free(struct tls_policy **policy)
{
	struct tls_policy *p = *policy;

	if (!p)
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
	*policy = NULL;
}

static void need_verified(const struct tls_policy *policy, const struct relayhost_tls *own, struct tls_need *need)
{
	need->mode = SMTP_CLIENT_TLS_REQUIRED;
	need->credentials = own ? own->credentials : policy->strict;
	need->session.level = TLS_LEVEL_VERIFY;
	if (own && own->has_fingerprint) {
		need->session.level = TLS_LEVEL_FINGERPRINT;
		need->session.fingerprints = &own->fingerprint;
		need->session.fingerprint_count = 1;
	}
}

void tls_policy_decide(const struct tls_policy *policy, enum config_tls_level level,
		       const struct config_relayhost *relayhost, struct tls_need *need)
{
	const struct relayhost_tls *own =
	    relayhost ? &policy->relayhosts[relayhost - policy->config->relayhosts] : NULL;

	*need = (struct tls_need){.mode = SMTP_CLIENT_TLS_NONE};
	if (level == CONFIG_TLS_UNSET)
		level = relayhost ? relayhost->tls : router_default_tls(DESTINATION_MX);
	switch (level) {
	case CONFIG_TLS_UNSET:
	case CONFIG_TLS_NONE: break;
	case CONFIG_TLS_OPPORTUNISTIC:
	case CONFIG_TLS_REQUIRED:
		need->mode = level == CONFIG_TLS_REQUIRED ? SMTP_CLIENT_TLS_REQUIRED : SMTP_CLIENT_TLS_OPPORTUNISTIC;
		need->credentials = policy->opportunistic;
		need->session.level = TLS_LEVEL_OPPORTUNISTIC;
		need->session.resume = policy->resume;
		break;
	case CONFIG_TLS_VERIFY:
	case CONFIG_TLS_DANE: need_verified(policy, own, need); break;
	}
	if (relayhost && relayhost->implicit && need->mode != SMTP_CLIENT_TLS_NONE)
		need->mode = SMTP_CLIENT_TLS_IMPLICIT;
}
