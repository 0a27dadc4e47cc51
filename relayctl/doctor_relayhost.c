/* Doctor: does a relayhost let us in? Connects to each of its addresses as a delivery does, logs in, and says QUIT: no
 * mail is sent. Access tokens are left to the daemon, since a provider may replace the refresh token with each. */
#include "base/base.h"
#include "base/clock.h"
#include "relayctl/doctor_egress.h"
#include "relayctl/link.h"
#include "smtp/client.h"

#include <stdio.h>

enum {
	ADDRESSES_MAX = 3,
	CONNECT_MAX_MS = 8000,
	STEP_MS = 8000, /* of the handshake, and of each reply */
	SESSION_MS = 20 * 1000,
	EXPIRY_WARN_DAYS = 14,
};

/* One address, and what came of it. */
struct visit {
	struct doctor *doctor;
	const struct config_relayhost *relayhost;
	const struct dns_address *address;
	const char *password; /* NULL: none */
	struct link *link;
	struct smtp_client *client;
	bool is_over, is_good;
	char subject[400];
	char found[700]; /* what was wrong, until it is good */
	const char *advice;
};

static int64_t now_ms(void)
{
	return clock_mono_ms(clock_system());
}

/* ---- what the configuration asks for ---- */

static enum smtp_client_tls tls_of(const struct config_relayhost *relayhost)
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

/* 0, or words in visit->found. */
static int start_tls(struct visit *visit)
{
	const struct config_relayhost *relayhost = visit->relayhost;
	const char *fallback = visit->doctor->config->delivery.ca_file;
	struct tls_fingerprint fingerprint;
	struct link_tls tls = {.host = relayhost->address.host,
			       .level =
				   relayhost->tls == CONFIG_TLS_VERIFY ? TLS_LEVEL_VERIFY : TLS_LEVEL_OPPORTUNISTIC,
			       .ca_file = relayhost->ca_file ? relayhost->ca_file : fallback,
			       .certificate = relayhost->certificate,
			       .key = relayhost->key,
			       .step_ms = STEP_MS};
	struct err err;
	int rc = 0;

	if (relayhost->fingerprint) {
		rc = tls_fingerprint_parse(slice_of_str(relayhost->fingerprint), &fingerprint, &err);
		tls.level = TLS_LEVEL_FINGERPRINT;
		tls.fingerprint = &fingerprint;
	}
	rc = rc ? rc : link_start_tls(visit->link, &tls, &err);
	if (rc != 0) {
		snprintf(visit->found, sizeof(visit->found), "TLS: %s", err.text);
		visit->advice = "is it the right host and port? ca_file names another authority, fingerprint pins the "
				"certificate";
	}
	return rc;
}

/* ---- the session ---- */

static const char *advice_of(const struct smtp_client_result *result)
{
	if (result->cause == SMTP_CLIENT_NO_TLS)
		return "port 465 wants implicit: true; tls: none or opportunistic goes without TLS";
	if (result->cause == SMTP_CLIENT_NO_AUTH)
		return "set auth to what it offers, or take username and password away if it wants none";
	if (result->stage == STAGE_AUTH)
		return "check username and password_file: the provider may want an application password, or refuse "
		       "logins "
		       "by password altogether";
	return "is it the right host and port?";
}

static void on_failed(struct visit *visit, const struct smtp_client_result *result)
{
	char code[20] = "";

	if (result->reply.code)
		snprintf(code, sizeof(code), "%d %s%s", result->reply.code, result->reply.enhanced,
			 result->reply.enhanced[0] ? " " : "");
	if (visit->found[0] == '\0') {
		snprintf(visit->found, sizeof(visit->found), "%s: %s%.500s", delivery_stage_name(result->stage), code,
			 result->reply.text);
		visit->advice = advice_of(result);
	}
	visit->is_over = true;
}

static void handle(struct visit *visit, const struct smtp_client_event *event)
{
	switch (event->type) {
	case SMTP_CLIENT_NEED_TLS:
		if (start_tls(visit) == 0)
			smtp_client_tls_started(visit->client);
		else
			smtp_client_tls_failed(visit->client, visit->found);
		break;
	case SMTP_CLIENT_READY:
		visit->is_good = visit->is_over = true;
		smtp_client_quit(visit->client);
		break;
	case SMTP_CLIENT_FAILED: on_failed(visit, &event->result); break;
	default: break;
	}
}

static void read_some(struct visit *visit)
{
	int64_t deadline = smtp_client_deadline_ms(visit->client);
	char bytes[4096];
	ssize_t n = link_read(visit->link, bytes, sizeof(bytes), MAX(MIN(deadline - now_ms(), STEP_MS), (int64_t)0));

	if (n > 0)
		smtp_client_input(visit->client, slice_of(bytes, (size_t)n));
	else if (n != ERR_TEMPORARY)
		smtp_client_eof(visit->client, n == 0 ? NULL : "the connection broke");
}

static void converse(struct visit *visit)
{
	struct smtp_client_event event;
	bool is_broken = false;

	while (true) {
		struct slice output;
		smtp_client_tick(visit->client, now_ms());
		while (smtp_client_next(visit->client, &event))
			handle(visit, &event);
		output = smtp_client_output(visit->client);
		if (output.len > 0 && !is_broken) {
			is_broken = link_write(visit->link, output) != 0;
			smtp_client_output_sent(visit->client, output.len);
		} else if (visit->is_over) {
			return;
		} else {
			read_some(visit);
		}
	}
}

/* ---- what was learnt ---- */

static void tell_session(struct visit *visit)
{
	const struct smtp_client_capabilities *can = smtp_client_capabilities(visit->client);
	const struct tls_session *tls = link_tls_session(visit->link);
	bool is_oauth2 = visit->relayhost->oauth2.provider != CONFIG_OAUTH2_NONE;
	char size[24] = "";
	int64_t days = 0;
	bool is_short;

	if (tls)
		days = (tls_session_peer_expires_at_wall(tls) - clock_wall_ms(clock_system())) / CONFIG_DAY_MS;
	if (can->size && can->size_max > 0)
		ctl_format_bytes((int64_t)can->size_max, size, sizeof(size));
	is_short = size[0] && can->size_max < (uint64_t)visit->doctor->config->limits.message_size_bytes;
	doctor_tell(visit->doctor, (tls && days < EXPIRY_WARN_DAYS) || is_short ? DOCTOR_WARN : DOCTOR_OK,
		    visit->subject, "%s, %s%s; messages of up to %s", tls ? tls_session_version(tls) : "no TLS",
		    visit->password ? "logged in as "
		    : is_oauth2	    ? "logging in is left to the daemon (oauth2)"
				    : "no login",
		    visit->password ? visit->relayhost->username : "", size[0] ? size : "any size");
	if (tls && days < EXPIRY_WARN_DAYS)
		doctor_advise(visit->doctor, "its certificate expires in %lld days: tell its people", (long long)days);
	else if (is_short)
		doctor_advise(visit->doctor, "set limits.message_size so that nothing larger is taken");
}

static void set_subject(struct visit *visit)
{
	const struct config_endpoint *endpoint = &visit->relayhost->address;
	char address[DNS_ADDRESS_TEXT];

	dns_address_format(visit->address, address);
	snprintf(visit->subject, sizeof(visit->subject), "%s at %.255s[%s]:%u", visit->relayhost->name, endpoint->host,
		 address, endpoint->port);
}

/* False: it did not let us in, visit->found. */
static bool try_address(struct visit *visit)
{
	const struct config *config = visit->doctor->config;
	const struct smtp_client_options options = {
	    .helo_name = config->hostname,
	    .tls = tls_of(visit->relayhost),
	    .credentials = {.mechanism = visit->password ? mechanism_of(visit->relayhost) : SASL_CLIENT_NONE,
			    .username = visit->relayhost->username,
			    .secret = visit->password},
	    .allow_plaintext_auth = visit->relayhost->tls == CONFIG_TLS_NONE,
	    .limits = {.greeting_ms = STEP_MS, .command_ms = STEP_MS, .quit_ms = 1, .start_ms = SESSION_MS}};
	struct dns_address memory;
	struct err err;

	visit->link = link_open_address(visit->address, visit->relayhost->address.port,
					doctor_source(visit->doctor, visit->address->family, &memory),
					MIN(config->delivery.connect_timeout_ms, (int64_t)CONNECT_MAX_MS), &err);
	if (!visit->link) {
		snprintf(visit->found, sizeof(visit->found), "no connection: %s", err.text);
		visit->advice = "is it the right host and port, and may this machine connect to it?";
		return false;
	}
	if (options.tls != SMTP_CLIENT_TLS_IMPLICIT || start_tls(visit) == 0) {
		visit->client = smtp_client_new(&options, now_ms());
		converse(visit);
		if (visit->is_good)
			tell_session(visit);
	}
	smtp_client_free(&visit->client);
	link_close(&visit->link);
	return visit->is_good;
}

static void visit_all(struct doctor *doctor, const struct config_relayhost *relayhost,
		      const struct resolver_result *found, const char *password)
{
	struct visit visits[ADDRESSES_MAX] = {0};
	size_t count = MIN(found->address_count, (size_t)ADDRESSES_MAX);
	bool is_any_good = false;

	for (size_t i = 0; i < count; i++) {
		visits[i] = (struct visit){
		    .doctor = doctor, .relayhost = relayhost, .address = &found->addresses[i], .password = password};
		set_subject(&visits[i]);
		is_any_good |= try_address(&visits[i]);
	}
	for (size_t i = 0; i < count; i++) {
		if (visits[i].is_good)
			continue;
		doctor_tell(doctor, is_any_good ? DOCTOR_WARN : DOCTOR_FAIL, visits[i].subject, "%s", visits[i].found);
		if (visits[i].advice)
			doctor_advise(doctor, "%s", visits[i].advice);
	}
}

void doctor_relayhost(struct doctor *doctor, const char *name)
{
	const struct config_relayhost *relayhost = config_find_relayhost(doctor->config, slice_of_str(name));
	struct resolver_result found;
	char *password = NULL;
	struct err err;

	if (config_secret_is_set(&relayhost->password) &&
	    config_secret_read(&relayhost->password, &password, &err) != 0) {
		doctor_tell(doctor, DOCTOR_FAIL, name, "%s", err.text);
		return;
	}
	lookup_host(doctor->lookup, relayhost->address.host, &found);
	if (found.status == DNS_OK) {
		visit_all(doctor, relayhost, &found, password);
	} else {
		doctor_tell(doctor, DOCTOR_FAIL, name, "%s has no address: %s", relayhost->address.host, found.reason);
		doctor_advise(doctor, "is the name right, and do the DNS servers know it?");
	}
	config_secret_wipe(&password);
}
