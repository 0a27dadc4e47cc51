/* Doctor: does a relayhost let us in? Connects to each of its addresses as a delivery does, logs in, and says QUIT: no
 * mail is sent. Access tokens are left to the daemon, since a provider may replace the refresh token with each. */
#include "base/base.h"
#include "base/clock.h"
#include "relayctl/doctor_session.h"

#include <stdio.h>

enum { ADDRESSES_MAX = 3 };

/* ---- what the configuration asks for ---- */

static enum smtp_client_tls mode_of(const struct config_relayhost *relayhost)
{
	if (relayhost->implicit)
		return SMTP_CLIENT_TLS_IMPLICIT;
	switch (relayhost->tls) {
	case CONFIG_TLS_NONE: return SMTP_CLIENT_TLS_NONE;
	case CONFIG_TLS_OPPORTUNISTIC: return SMTP_CLIENT_TLS_OPPORTUNISTIC;
	default: return SMTP_CLIENT_TLS_REQUIRED;
	}
}

static enum sasl_client_mechanism mechanism_of(const struct config_relayhost *relayhost)
{
	switch (relayhost->auth) {
	case CONFIG_RELAY_AUTH_PLAIN: return SASL_CLIENT_PLAIN;
	case CONFIG_RELAY_AUTH_LOGIN: return SASL_CLIENT_LOGIN;
	default: return SASL_CLIENT_AUTO;
	}
}

/* `fingerprint`: read from the configuration; NULL: there is none. */
static struct link_tls tls_of(const struct doctor *doctor, const struct config_relayhost *relayhost,
			      const struct tls_fingerprint *fingerprint)
{
	const char *fallback = doctor->config->delivery.ca_file;

	return (struct link_tls){.host = relayhost->address.host,
				 .level = fingerprint				? TLS_LEVEL_FINGERPRINT
					  : relayhost->tls == CONFIG_TLS_VERIFY ? TLS_LEVEL_VERIFY
										: TLS_LEVEL_OPPORTUNISTIC,
				 .ca_file = relayhost->ca_file ? relayhost->ca_file : fallback,
				 .fingerprint = fingerprint,
				 .certificate = relayhost->certificate,
				 .key = relayhost->key};
}

/* ---- what came of it ---- */

static void set_subject(const struct config_relayhost *relayhost, const struct dns_address *address, char *out,
			size_t size)
{
	char text[DNS_ADDRESS_TEXT];

	dns_address_format(address, text);
	snprintf(out, size, "%s at %.255s[%s]:%u", relayhost->name, relayhost->address.host, text,
		 relayhost->address.port);
}

static void tell_ready(struct doctor *doctor, const struct config_relayhost *relayhost, const char *subject,
		       const struct doctor_session *session)
{
	bool is_tls = session->tls_version[0], is_oauth2 = relayhost->oauth2.provider != CONFIG_OAUTH2_NONE;
	uint64_t wanted = (uint64_t)doctor->config->limits.message_size_bytes;
	bool is_short = session->size_max > 0 && session->size_max < wanted;
	int64_t left_ms = session->expires_at_wall - clock_wall_ms(clock_system()), days = left_ms / CONFIG_DAY_MS;
	bool is_old = is_tls && days < DOCTOR_EXPIRY_WARN_DAYS;
	char size[24] = "any size";

	if (session->size_max > 0)
		ctl_format_bytes((int64_t)session->size_max, size, sizeof(size));
	doctor_tell(doctor, is_old || is_short ? DOCTOR_WARN : DOCTOR_OK, subject, "%s, %s%s; messages of up to %s",
		    is_tls ? session->tls_version : "no TLS",
		    session->credentials.secret ? "logged in as "
		    : is_oauth2			? "logging in is left to the daemon (oauth2)"
						: "no login",
		    session->credentials.secret ? relayhost->username : "", size);
	if (is_old && left_ms < 0)
		doctor_advise(doctor, "its certificate has expired: tell its people");
	else if (is_old)
		doctor_advise(doctor, "its certificate expires in %lld days: tell its people", (long long)days);
	else if (is_short)
		doctor_advise(doctor, "set limits.message_size so that nothing larger is taken");
}

static const char *advice_of(const struct doctor_session *session)
{
	if (session->is_tls_broken)
		return "is it the right host and port? ca_file names another authority, fingerprint pins the "
		       "certificate";
	if (!session->is_connected)
		return "is it the right host and port, and may this machine connect to it?";
	if (session->result.cause == SMTP_CLIENT_NO_TLS)
		return "port 465 wants implicit: true; tls: none or opportunistic goes without TLS";
	if (session->result.cause == SMTP_CLIENT_NO_AUTH)
		return "set auth to what it offers, or take username and password away if it wants none";
	if (session->result.stage == STAGE_AUTH)
		return "check username and password_file: the provider may want an application password, or refuse "
		       "logins by password altogether";
	return "is it the right host and port?";
}

/* An address that is dead is a failure only when all are. */
static void visit_all(struct doctor *doctor, const struct config_relayhost *relayhost,
		      const struct resolver_result *found, const char *password,
		      const struct tls_fingerprint *fingerprint)
{
	struct doctor_session sessions[ADDRESSES_MAX];
	size_t count = MIN(found->address_count, (size_t)ADDRESSES_MAX), good = 0;
	char subject[400];

	for (size_t i = 0; i < count; i++) {
		sessions[i] = (struct doctor_session){
		    .doctor = doctor,
		    .address = &found->addresses[i],
		    .port = relayhost->address.port,
		    .mode = mode_of(relayhost),
		    .tls = tls_of(doctor, relayhost, fingerprint),
		    .credentials = {.mechanism = password ? mechanism_of(relayhost) : SASL_CLIENT_NONE,
				    .username = relayhost->username,
				    .secret = password},
		    .allow_plaintext_auth = relayhost->tls == CONFIG_TLS_NONE};
		doctor_session_run(&sessions[i]);
		good += sessions[i].is_ready;
	}
	for (size_t i = 0; i < count; i++) {
		set_subject(relayhost, &found->addresses[i], subject, sizeof(subject));
		if (sessions[i].is_ready) {
			tell_ready(doctor, relayhost, subject, &sessions[i]);
			continue;
		}
		doctor_tell(doctor, good > 0 ? DOCTOR_WARN : DOCTOR_FAIL, subject, "%s", sessions[i].trouble);
		doctor_advise(doctor, "%s", advice_of(&sessions[i]));
	}
}

void doctor_relayhost(struct doctor *doctor, const char *name)
{
	const struct config_relayhost *relayhost = config_find_relayhost(doctor->config, slice_of_str(name));
	struct tls_fingerprint fingerprint;
	struct resolver_result found;
	char *password = NULL;
	struct err err;
	int rc = 0;

	if (config_secret_is_set(&relayhost->password))
		rc = config_secret_read(&relayhost->password, &password, &err);
	if (rc == 0 && relayhost->fingerprint)
		rc = tls_fingerprint_parse(slice_of_str(relayhost->fingerprint), &fingerprint, &err);
	if (rc != 0) {
		doctor_tell(doctor, DOCTOR_FAIL, name, "%s", err.text);
		config_secret_wipe(&password);
		return;
	}
	lookup_host(doctor->lookup, relayhost->address.host, &found);
	if (found.status == DNS_OK) {
		visit_all(doctor, relayhost, &found, password, relayhost->fingerprint ? &fingerprint : NULL);
	} else {
		doctor_tell(doctor, DOCTOR_FAIL, name, "%s has no address: %s", relayhost->address.host, found.reason);
		doctor_advise(doctor, "is the name right, and do the DNS servers know it?");
	}
	config_secret_wipe(&password);
}
