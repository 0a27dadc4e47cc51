/*
 * relayd/tls_policy.h - the one place that decides what TLS a destination needs, and holds what that takes
 *
 * Levels (relayd.yaml): none; opportunistic, the default for MX: encrypt where it is offered, to whomever answers;
 * required: encrypt or defer; verify, the default for relayhosts: to the right host or defer. A fingerprint takes the
 * place of verification by name. No level ever falls back silently: only opportunistic may go on in clear text.
 */
#ifndef RELAYD_TLS_POLICY_H
#define RELAYD_TLS_POLICY_H

#include "config/config.h"
#include "relayd/destination.h"
#include "smtp/client.h"
#include "tls/session.h"

struct tls_policy;

/* What one connection needs; borrowed from the policy, which must outlive the TLS handshake's begin. */
struct tls_need {
	enum smtp_client_tls mode;
	struct tls_credentials *credentials; /* NULL: mode is NONE */
	struct tls_client_options session;   /* server_name is left to the caller: the host that it connects to */
};

/* Reads the files that the configuration names. NULL, with words. Takes a reference to the configuration. */
struct tls_policy *tls_policy_new(struct config *config, struct err *err);
void tls_policy_free(struct tls_policy **policy);
/* `level` CONFIG_TLS_UNSET: as usual for that kind. `relayhost` NULL: direct delivery. */
void tls_policy_decide(const struct tls_policy *policy, enum config_tls_level level,
		       const struct config_relayhost *relayhost, struct tls_need *need);

#endif
