/*
 * relayctl/doctor_session.h - one SMTP session as a delivery begins it, up to where a message would be sent; then QUIT
 *
 * Blocking, with a bound for each step: at most some 40 seconds.
 */
#ifndef RELAYCTL_DOCTOR_SESSION_H
#define RELAYCTL_DOCTOR_SESSION_H

#include "relayctl/doctor.h"
#include "relayctl/link.h"
#include "smtp/client.h"

struct doctor_session {
	/* What to do; borrowed. */
	const struct doctor *doctor;
	const struct dns_address *address;
	uint16_t port;
	enum smtp_client_tls mode;
	struct link_tls tls;
	struct sasl_client_credentials credentials;
	bool allow_plaintext_auth;
	/* What came of it. */
	bool is_ready;	    /* a message could be sent now */
	char trouble[700];  /* otherwise: what happened, and where */
	bool is_connected;  /* otherwise there is no result */
	bool is_tls_broken; /* the handshake failed; there may be no result */
	struct smtp_client_result result;
	char tls_version[16];	 /* "": in clear */
	bool is_verified;	 /* with tls.wants_verdict */
	char unverified[300];	 /* why not */
	int64_t expires_at_wall; /* the server's certificate */
	uint64_t size_max;	 /* 0: it does not say */
};

void doctor_session_run(struct doctor_session *session);

#endif
