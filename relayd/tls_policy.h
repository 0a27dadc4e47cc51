/*
 * relayd/tls_policy.h - the one place that decides what TLS a destination needs, and holds what that takes
 *
 * LEVELS (relayd.yaml)   none; opportunistic, the default for MX: encrypt where it is offered, to whomever answers;
 * required: encrypt or defer; verify, the default for relayhosts: to the right host or defer; dane: to the host that
 * authenticated TLSA records name, or defer. A fingerprint takes the place of verification by name.
 *
 * PUBLISHED   What a destination publishes counts on top of opportunistic, required and (by MX) verify, the first that
 * applies:
 *
 *   1. DANE (RFC 7672), when every answer on the way had a trusted AD bit. TLSA records that cannot be had: the host is
 *      not connected to (dns). Usable ones: the host they name, or not at all (tls). Only unusable ones: encrypted.
 *   2. MTA-STS (RFC 8461): enforce: hosts of the policy alone, verified; testing and none ask for nothing.
 *   3. What was learnt: a host that has shown a verified certificate is not sent to in clear text for a while.
 *
 * No level ever falls back silently: only opportunistic may go on in clear text, where nothing was published or learnt.
 * Pure but for the files that tls_policy_new() reads.
 */
#ifndef RELAYD_TLS_POLICY_H
#define RELAYD_TLS_POLICY_H

#include "base/outcome.h"
#include "config/config.h"
#include "dns/message.h"
#include "smtp/client.h"
#include "tls/session.h"

struct tls_policy;

/* Reads the files that the configuration names. NULL, with words. Takes a reference to the configuration. */
struct tls_policy *tls_policy_new(struct config *config, struct err *err);
/* A connection keeps the policy that it began with. */
struct tls_policy *tls_policy_ref(struct tls_policy *policy);
/* Drops one reference and sets *policy to NULL; accepts NULL. */
void tls_policy_free(struct tls_policy **policy);

/* ---- what is known of a host before it is connected to ---- */

enum tls_dane {
	TLS_DANE_NONE = 0, /* no TLSA records, or none that may be believed */
	TLS_DANE_RECORDS,  /* authenticated ones, usable or not */
	TLS_DANE_BROKEN,   /* they cannot be had: a bogus signature, SERVFAIL, time-out */
};

enum tls_sts {
	TLS_STS_NONE = 0, /* no policy, or mode none */
	TLS_STS_UNKNOWN,  /* whether there is one could not be found out in time: counts as none */
	TLS_STS_TESTING,
	TLS_STS_ENFORCE,
};

/* Strings and the answer are borrowed; they must outlive the connection. */
struct tls_facts {
	const char *host;     /* as MX or the configuration says; an address when it is one; for SNI and verification */
	const char *next_hop; /* by MX: the domain whose mail it is; else NULL */
	bool is_name_secure;  /* the name comes from the configuration or from authenticated DNS */
	enum tls_dane dane;
	const struct dns_answer *tlsa; /* RECORDS */
	const char *base;	       /* RECORDS: the TLSA base domain, "mx.example.net" */
	const char *why;	       /* BROKEN: in words */
	bool is_resolver_trusted;      /* its AD bit is believed; otherwise there is no DANE at all */
	enum tls_sts sts;
	bool sts_lists_host; /* a pattern of the policy fits it */
	bool is_remembered;  /* relayd/tls_memory.h: clear text would be a step back */
};

/* ---- what a connection needs ---- */

/* Why it needs what it needs. */
enum tls_basis {
	TLS_BASIS_LEVEL = 0, /* the configuration alone */
	TLS_BASIS_DANE,
	TLS_BASIS_DANE_UNUSABLE,
	TLS_BASIS_STS,
	TLS_BASIS_MEMORY,
};
/* "configuration", "DANE", "DANE without usable records", "MTA-STS", "what was learnt". */
const char *tls_basis_name(enum tls_basis basis);

/* Borrowed from policy and facts. */
struct tls_need {
	bool is_refused; /* no connection to this host: `class` (dns or tls) and `why` say so */
	enum failure_class class;
	char why[256];
	enum tls_basis basis;
	enum smtp_client_tls mode;
	struct tls_credentials *credentials; /* NULL: mode is NONE */
	struct tls_client_options session;   /* but for the resume key */
};

/* Do TLSA records count at this level? `relayhost` NULL: direct delivery, as everywhere here. */
bool tls_policy_wants_dane(enum config_tls_level level, const struct config_relayhost *relayhost);
/* Does an MTA-STS policy? Never for relayhosts. */
bool tls_policy_wants_sts(enum config_tls_level level, const struct config_relayhost *relayhost);
/* `level` CONFIG_TLS_UNSET: as usual for that kind. */
void tls_policy_decide(const struct tls_policy *policy, enum config_tls_level level,
		       const struct config_relayhost *relayhost, const struct tls_facts *facts, struct tls_need *need);

/* What comes of a handshake that was completed. */
enum tls_verdict {
	TLS_VERDICT_AUTHENTICATED, /* verified, and the name itself can be trusted: what REQUIRETLS asks for (RFC 8689)
				    */
	TLS_VERDICT_VERIFIED,	   /* the certificate is good for the name, but the name came by plain DNS */
	TLS_VERDICT_ENCRYPTED,	   /* with somebody, and that is enough here */
	TLS_VERDICT_REFUSED,	   /* nothing may be sent: `why` */
};
/* `why` also says what keeps an ENCRYPTED or VERIFIED one from being authenticated; "" otherwise. */
enum tls_verdict tls_policy_judge(const struct tls_need *need, const struct tls_facts *facts,
				  struct tls_session *session, struct err *why);
/* A handshake has failed: may the same host be tried once more in clear text (RFC 7435)? */
bool tls_policy_may_go_clear(const struct tls_need *need);

#endif
