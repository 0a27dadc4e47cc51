/* Doctor: what relayd shows to clients, whom it lets in, and who may read its secrets. */
#include "base/base.h"
#include "base/clock.h"
#include "relayctl/doctor_egress.h"
#include "tls/credentials.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the certificate towards clients ---- */

void doctor_certificate(struct doctor *doctor, const char *subject)
{
	const struct config *config = doctor->config;
	const struct tls_server_credentials_options options = {.certificate_file = config->tls.certificate,
							       .key_file = config->tls.key,
							       .client_ca_file = config->tls.client_ca_file,
							       .min_version = TLS_VERSION_1_2};
	struct tls_credentials *credentials;
	struct err err;
	int64_t left_ms, days;

	if (!config->tls.certificate) {
		doctor_tell(doctor, DOCTOR_INFO, subject,
			    "relayd makes a self-signed certificate: apps that verify it must be told to trust it");
		doctor_advise(doctor, "tls.certificate and tls.key name one of an authority");
		return;
	}
	credentials = tls_credentials_new_server(&options, &err);
	if (!credentials) {
		doctor_tell(doctor, DOCTOR_FAIL, config->tls.certificate, "%s", err.text);
		return;
	}
	left_ms = tls_credentials_expires_at_wall(credentials) - clock_wall_ms(clock_system());
	days = left_ms / CONFIG_DAY_MS;
	doctor_tell(doctor,
		    left_ms < 0			     ? DOCTOR_FAIL
		    : days < DOCTOR_EXPIRY_WARN_DAYS ? DOCTOR_WARN
						     : DOCTOR_OK,
		    config->tls.certificate, "is for %s%s, and %s %lld days", tls_credentials_names(credentials),
		    tls_credentials_is_selfsigned(credentials) ? ", self-signed" : "",
		    left_ms < 0 ? "has expired, for" : "good for", llabs(days));
	if (days < DOCTOR_EXPIRY_WARN_DAYS)
		doctor_advise(doctor, "renew it; relayd takes the new one by itself within a minute");
	tls_credentials_unref(&credentials);
}

/* ---- listeners ---- */

static bool is_loopback(const struct config_endpoint *endpoint)
{
	struct dns_address address = doctor_address(endpoint->family, endpoint->bytes);

	return endpoint->family != AF_UNSPEC && dns_address_kind(&address) == DNS_ADDRESS_LOOPBACK;
}

/* A network of whose addresses some are public; a single address is the operator's word. */
static bool is_public(const struct config_network *network)
{
	struct dns_address first = doctor_address(network->family, network->bytes);

	return network->prefix_bits < (network->family == AF_INET ? 32 : 128) &&
	       dns_address_kind(&first) == DNS_ADDRESS_GLOBAL && !doctor_is_private(&first);
}

static void check_listener(struct doctor *doctor, const struct config_listener *listener, const char *name)
{
	bool is_clear = listener->allow_plaintext_auth && !is_loopback(&listener->address);
	bool is_good = !is_clear;
	struct buf text;

	if (is_clear) {
		doctor_tell(doctor, DOCTOR_WARN, name, "takes passwords in clear text from other machines");
		doctor_advise(doctor, "set allow_plaintext_auth: false and tls: starttls, or bind it to 127.0.0.1");
	}
	for (size_t i = 0; i < listener->trusted.count; i++) {
		if (!is_public(&listener->trusted.items[i]))
			continue;
		buf_init(&text, 100);
		config_network_format(&listener->trusted.items[i], &text);
		doctor_tell(doctor, DOCTOR_WARN, name,
			    "everybody in %.*s may send, without a password: these are public addresses",
			    SLICE_ARG(buf_slice(&text)));
		doctor_advise(doctor, "trust your own addresses alone, or give them users");
		buf_fini(&text);
		is_good = false;
	}
	if (is_good)
		doctor_tell(doctor, DOCTOR_OK, name, "%s",
			    listener->trusted.count > 0 ? "lets in users, and who is trusted" : "lets in users alone");
}

void doctor_listen(struct doctor *doctor, const char *subject)
{
	struct buf name;

	(void)subject;
	for (size_t i = 0; i < doctor->config->listener_count; i++) {
		const struct config_listener *listener = &doctor->config->listeners[i];
		buf_init(&name, 400);
		config_endpoint_format(&listener->address, &name);
		buf_append_byte(&name, '\0');
		check_listener(doctor, listener, buf_slice(&name).ptr);
		buf_fini(&name);
	}
}

/* ---- secrets ---- */

struct secrets {
	struct doctor *doctor;
	const char *user; /* whom relayd runs as, when that can be tried; else NULL */
	size_t good;
};

/* Root becomes the service user, for the rest of this process: then its eyes are ours. NULL: it is not tried. */
static const char *become_service_user(const struct config *config)
{
	const struct passwd *entry = geteuid() == 0 ? getpwnam(config->user) : NULL;

	if (!entry || entry->pw_uid == 0 || initgroups(entry->pw_name, entry->pw_gid) != 0 ||
	    setgid(entry->pw_gid) != 0 || setuid(entry->pw_uid) != 0)
		return NULL;
	return config->user;
}

/* A file that cannot be found is told of by the check of the configuration. */
static void check_file(struct secrets *secrets, const char *path)
{
	struct doctor *doctor = secrets->doctor;
	struct stat st;

	if (!path || (access(path, F_OK) != 0 && errno == ENOENT))
		return;
	if (secrets->user && access(path, R_OK) != 0) {
		doctor_tell(doctor, DOCTOR_FAIL, path, "user %s cannot read it", secrets->user);
		doctor_advise(doctor, "chgrp %s %s && chmod 640 %s, and let the user into its folder", secrets->user,
			      path, path);
	} else if (stat(path, &st) == 0 && (st.st_mode & 0006)) {
		doctor_tell(doctor, DOCTOR_WARN, path, "any user of this machine may %s it (mode %03o)",
			    st.st_mode & 0002 ? "change" : "read", st.st_mode & 0777u);
		doctor_advise(doctor, "chmod o= %s", path);
	} else {
		secrets->good++;
	}
}

static void check_secret(struct secrets *secrets, const struct config_secret *secret, const char *what)
{
	if (secret->file) {
		check_file(secrets, secret->file);
	} else if (secret->value) {
		doctor_tell(secrets->doctor, DOCTOR_WARN, what,
			    "stands in the environment, where docker inspect and child processes show it");
		doctor_advise(secrets->doctor, "use the variable that ends in _FILE, and a file or container secret");
	}
}

static void check_relayhost(struct secrets *secrets, const struct config_relayhost *relayhost)
{
	check_secret(secrets, &relayhost->password, "the password of a relayhost");
	check_secret(secrets, &relayhost->oauth2.client_secret, "the client secret of a relayhost");
	check_secret(secrets, &relayhost->oauth2.refresh_token, "the refresh token of a relayhost");
	check_file(secrets, relayhost->key);
}

void doctor_secrets(struct doctor *doctor, const char *subject)
{
	const struct config *config = doctor->config;
	struct secrets secrets = {doctor, become_service_user(config), 0};

	check_file(&secrets, config->tls.key);
	for (size_t i = 0; i < config->dkim.domain_count; i++)
		for (size_t k = 0; k < config->dkim.domains[i].key_count; k++)
			check_secret(&secrets, &config->dkim.domains[i].keys[k].key, "a DKIM key");
	for (size_t i = 0; i < config->relayhost_count; i++)
		check_relayhost(&secrets, &config->relayhosts[i]);
	check_secret(&secrets, &config->webhook.secret, "the secret of the webhook");
	check_secret(&secrets, &config->account.password, "RELAYD_PASSWORD");
	if (secrets.good > 0)
		doctor_tell(doctor, DOCTOR_OK, subject, "%zu key and secret file%s for relayd's eyes alone",
			    secrets.good, secrets.good == 1 ? " is" : "s are");
}
