#include "config/keys.h"

#include "base/base.h"
#include "config/config.h"
#include "config/words.h"

#include <stdio.h>

#define RANGE(min, max)                                                                                                \
	&(const struct config_range)                                                                                   \
	{                                                                                                              \
		(min), (max)                                                                                           \
	}
#define KIB INT64_C(1024)
#define TIB (KIB * KIB * KIB * KIB)
#define SEC CONFIG_SECOND_MS
#define DAY CONFIG_DAY_MS

static const struct config_endpoint_rules listen_rules = {.default_port = -1, .may_be_any = true, .may_be_zero = true};
static const struct config_endpoint_rules relay_rules = {.default_port = 587, .may_be_name = true};
static const struct config_endpoint_rules dns_rules = {.default_port = 53};

/* clang-format off */

#define AT(field) offsetof(struct config, field)
#define STEPS(class) AT(retry.steps) + (class) * sizeof(struct config_steps)
#define STEP RANGE(SEC, 30 * DAY)

static const struct config_key root_keys[] = {
{"hostname",         CONFIG_HOST_NAME, AT(hostname),         NULL, NULL, 0, "name in EHLO and Received; default: this machine's full name"},
{"spool",            CONFIG_PATH,     AT(spool),             CONFIG_DEFAULT_SPOOL, NULL, 0, "folder of the journal and the sockets"},
{"user",             CONFIG_TEXT,     AT(user),              "relayd", NULL, 0, "user to become after binding, when started as root"},
{"users",            CONFIG_PATH,     AT(users_file),        "/etc/relayd/users", NULL, 0, "file of those who may submit"},
{"listen",           CONFIG_LISTENERS, 0,                    NULL, NULL, 0, "where to take mail; default: 127.0.0.1:587 and [::1]:587"},
{"http",             CONFIG_ENDPOINT, AT(http),              "127.0.0.1:9587", &listen_rules, KEY_LIST | KEY_OFF_WORD, "where to serve metrics and health"},
{"control_group",    CONFIG_TEXT,     AT(control_group),     NULL, NULL, 0, "group that may use control.sock; default: the service user's"},

{"tls.certificate",  CONFIG_PATH,     AT(tls.certificate),   NULL, NULL, 0, "PEM certificate with its chain; default: a self-signed one is made"},
{"tls.key",          CONFIG_PATH,     AT(tls.key),           NULL, NULL, 0, "PEM key; default: in the certificate's file"},
{"tls.client_ca_file", CONFIG_PATH,   AT(tls.client_ca_file), NULL, NULL, 0, "authorities of the certificates that clients may show"},
{"tls.min_version",  CONFIG_WORD,     AT(tls.min_version),   "1.2", config_words_tls_version, 0, "lowest TLS version towards clients"},

{"limits.message_size", CONFIG_SIZE,  AT(limits.message_size_bytes), "25M", RANGE(KIB, KIB * KIB * KIB), 0, "largest message"},
{"limits.recipients", CONFIG_INT,     AT(limits.recipients), "1000", RANGE(1, 100000), 0, "recipients of a message"},
{"limits.connections", CONFIG_INT,    AT(limits.connections), "1000", RANGE(1, 100000), 0, "connections of clients at a time"},
{"limits.connections_per_address", CONFIG_INT, AT(limits.connections_per_address), "100", RANGE(1, 100000), 0, "connections of one client address at a time"},
{"limits.connections_per_user", CONFIG_INT, AT(limits.connections_per_user), "500", RANGE(1, 100000), 0, "connections of one user at a time"},
{"limits.messages_per_connection", CONFIG_INT, AT(limits.messages_per_connection), "1000", RANGE(1, 1000000000), 0, "messages on one connection"},
{"limits.idle_timeout", CONFIG_DURATION, AT(limits.idle_timeout_ms), "5m", RANGE(SEC, DAY), 0, "how long a client may be silent"},
{"limits.session_timeout", CONFIG_DURATION, AT(limits.session_timeout_ms), "4h", RANGE(SEC, 30 * DAY), 0, "how long a connection may last; a message under way is finished"},
{"limits.memory",    CONFIG_SIZE,     AT(limits.memory_bytes), "128M", RANGE(KIB * KIB, TIB), 0, "memory for what clients are sending; above it new mail gets 452"},
{"limits.queue_bytes", CONFIG_SIZE,   AT(limits.queue_bytes), "10G", RANGE(KIB * KIB, 1024 * TIB), 0, "bytes of waiting mail; above it new mail gets 452"},
{"limits.queue_messages", CONFIG_INT, AT(limits.queue_messages), "1000000", RANGE(1, 1000000000), 0, "waiting messages; above it new mail gets 452"},

{"origin",           CONFIG_DOMAIN,   AT(origin),            NULL, NULL, 0, "domain that completes bare names such as root"},
{"aliases",          CONFIG_PATH,     AT(aliases_file),      NULL, NULL, 0, "aliases(5) for bare names"},
{"rewrite.from_file", CONFIG_PATH,    AT(rewrite.from_file), NULL, NULL, 0, "replacements of senders: address or @domain, blank, replacement"},
{"rewrite.recipient_file", CONFIG_PATH, AT(rewrite.recipient_file), NULL, NULL, 0, "replacements of recipients: address or @domain, blank, replacement"},
{"rewrite.keep_reply_to", CONFIG_BOOL, AT(rewrite.keep_reply_to), "true", NULL, 0, "keep the former From as Reply-To"},
{"headers.remove",   CONFIG_FIELD_NAME, AT(headers.remove),  NULL, NULL, KEY_LIST, "header fields to remove"},
{"headers.set",      CONFIG_FIELD,    AT(headers.set),       NULL, NULL, KEY_LIST | KEY_NO_ENV, "header fields to set, each as \"Name: value\""},
{"headers.subject_prefix", CONFIG_TEXT, AT(headers.subject_prefix), NULL, NULL, 0, "text in front of each subject"},
{"bcc",              CONFIG_MAILBOX,  AT(bcc),               NULL, NULL, KEY_LIST, "mailboxes that get a copy of everything"},
{"redirect",         CONFIG_MAILBOX,  AT(redirect),          NULL, NULL, 0, "for staging: the one mailbox that gets everything"},
{"allowed_recipients", CONFIG_PATTERN, AT(allowed_recipients), NULL, NULL, KEY_LIST, "addresses and @domains that may be written to; empty: any"},
{"suppress",         CONFIG_PATH,     AT(suppress_file),     NULL, NULL, 0, "file of addresses that are never written to"},

{"dkim.unsigned",    CONFIG_WORD,     AT(dkim.unsigned_policy), "refuse", config_words_unsigned, 0, "what happens to mail that should be signed and cannot be"},
{"dkim.default",     CONFIG_DOMAIN,   AT(dkim.default_domain), NULL, NULL, 0, "domain that signs for senders without a key of their own"},
{"dkim.domains",     CONFIG_DKIM_DOMAINS, 0,                 NULL, NULL, 0, "keys by domain and selector"},

{"relayhosts",       CONFIG_RELAYHOSTS, 0,                   NULL, NULL, 0, "upstreams by name; none: mail goes by MX"},
{"routes",           CONFIG_ROUTES,   0,                     NULL, NULL, 0, "exceptions; the first that matches counts"},

{"dns.servers",      CONFIG_ENDPOINT, AT(dns.servers),       NULL, &dns_rules, KEY_LIST, "resolvers; default: those of resolv.conf"},
{"dns.trust_ad",     CONFIG_BOOL,     AT(dns.trust_ad),      "false", NULL, 0, "believe the resolver's DNSSEC verdict (AD bit): it and the way to it are ours"},

{"delivery.port",    CONFIG_INT,      AT(delivery.port),     "25", RANGE(1, 65535), 0, "port of deliveries by MX"},
{"delivery.mta_sts_port", CONFIG_INT, AT(delivery.mta_sts_port), "443", RANGE(1, 65535), 0, "port of the servers of MTA-STS policies; only a test has another"},
{"delivery.ip",      CONFIG_WORD,     AT(delivery.ip),       "prefer4", config_words_ip, 0, "address families of deliveries"},
{"delivery.bind",    CONFIG_ADDRESS,  AT(delivery.bind),     NULL, NULL, KEY_LIST, "own addresses to send from, at most one of each family"},
{"delivery.connect_timeout", CONFIG_DURATION, AT(delivery.connect_timeout_ms), "30s", RANGE(SEC / 10, 600 * SEC), 0, "how long a connection may take to be made, and a TLS handshake on it"},
{"delivery.connections", CONFIG_INT,  AT(delivery.connections), "200", RANGE(1, 100000), 0, "outgoing connections at a time"},
{"delivery.per_destination", CONFIG_INT, AT(delivery.per_destination), "20", RANGE(1, 100000), 0, "connections to one destination at a time"},
{"delivery.allow_loopback", CONFIG_BOOL, AT(delivery.allow_loopback), "false", NULL, 0, "deliver by MX to loopback and own addresses too"},
{"delivery.ca_file", CONFIG_PATH,     AT(delivery.ca_file),  NULL, NULL, 0, "trusted authorities; default: the system's"},
{"https.ca_file",    CONFIG_PATH,     AT(https.ca_file),     NULL, NULL, 0, "trusted authorities of token endpoints, webhooks and MTA-STS policies; default: the system's"},

{"retry.greylist",   CONFIG_DURATION, STEPS(CLASS_GREYLIST), "5m10s, 5m10s, 7m40s, 12m20s, 13m40s, 16m20s, 1h, 2h, 2h, 4h", STEP, KEY_LIST, "waits after a greylister's \"come back later\""},
{"retry.throttle",   CONFIG_DURATION, STEPS(CLASS_THROTTLE), "5m, 15m, 30m, 1h", STEP, KEY_LIST, "waits after \"too much, too fast\""},
{"retry.auth",       CONFIG_DURATION, STEPS(CLASS_AUTH),     "1m, 2m, 5m, 10m", STEP, KEY_LIST, "waits while our account is in trouble"},
{"retry.mailbox",    CONFIG_DURATION, STEPS(CLASS_MAILBOX),  "30m, 1h, 2h, 4h", STEP, KEY_LIST, "waits while a mailbox is full"},
{"retry.policy",     CONFIG_DURATION, STEPS(CLASS_POLICY),   "5m, 10m, 20m, 40m, 67m", STEP, KEY_LIST, "waits after a refusal by policy, for now"},
{"retry.connect",    CONFIG_DURATION, STEPS(CLASS_CONNECT),  "1m, 3m, 8m, 15m, 30m, 1h", STEP, KEY_LIST, "waits while there is no connection"},
{"retry.dns",        CONFIG_DURATION, STEPS(CLASS_DNS),      "1m, 3m, 8m, 15m, 30m, 1h", STEP, KEY_LIST, "waits while a name cannot be resolved"},
{"retry.tls",        CONFIG_DURATION, STEPS(CLASS_TLS),      "1m, 3m, 8m, 15m, 30m, 1h", STEP, KEY_LIST, "waits while TLS is not as required"},
{"retry.default",    CONFIG_DURATION, STEPS(CLASS_OTHER),    "5m, 10m, 20m, 40m, 67m", STEP, KEY_LIST, "waits in all other cases; once set, for every class without a list here"},
{"retry.expire",     CONFIG_DURATION, AT(retry.expire_ms),   "5d", RANGE(SEC, 90 * DAY), 0, "when to give up and tell the sender"},
{"retry.warn_after", CONFIG_DURATION, AT(retry.warn_after_ms), "4h", RANGE(0, 90 * DAY), 0, "when to tell the sender of a delay; 0: never"},

{"bounce.mode",      CONFIG_WORD,     AT(bounce.mode),       "mail", config_words_bounce_mode, 0, "how a sender hears that mail failed"},
{"bounce.to",        CONFIG_MAILBOX,  AT(bounce.to),         NULL, NULL, 0, "mailbox that gets bounces instead of the sender"},
{"webhook.url",      CONFIG_URL,      AT(webhook.url),       NULL, NULL, 0, "where to post events"},
{"webhook.secret_file", CONFIG_SECRET, AT(webhook.secret),   NULL, NULL, 0, "file of the secret that signs events"},
{"webhook.events",   CONFIG_WORD,     AT(webhook.events),    "delivered, deferred, failed, alert", config_words_event, KEY_LIST, "events to post"},
{"log.format",       CONFIG_WORD,     AT(log.format),        "text", config_words_log_format, 0, "form of log lines"},
{"log.level",        CONFIG_WORD,     AT(log.level),         "info", config_words_log_level, 0, "least urgent lines to write"},
{"log.addresses",    CONFIG_WORD,     AT(log.addresses),     "full", config_words_log_addresses, 0, "how much of mail addresses is logged"},
{"stop_timeout",     CONFIG_DURATION, AT(stop_timeout_ms),   "10s", RANGE(0, 3600 * SEC), 0, "how long transactions under way may take to finish at a stop"},
{"dedupe_window",    CONFIG_DURATION, AT(dedupe_window_ms),  "0", RANGE(0, 7 * DAY), 0, "how long a repeated submission is answered with the first id; 0: off"},
{"hide_client",      CONFIG_BOOL,     AT(hide_client),       "true", NULL, 0, "keep the client's name and address out of Received"},
{"long_lines",       CONFIG_WORD,     AT(long_lines),        "pass", config_words_long_lines, 0, "lines of more than 998 octets"},
{"helpers",          CONFIG_INT,      AT(helpers),           "2", RANGE(0, 64), 0, "processes for signatures and passwords; 0: none, in the daemon itself"},
{"ephemeral_spool",  CONFIG_WORD,     AT(ephemeral_spool),   "refuse", config_words_ephemeral, 0, "a spool that goes when the container goes"},
};

#undef AT
#define AT(field) offsetof(struct config_listener, field)

static const struct config_key listener_keys[] = {
{"address",          CONFIG_ENDPOINT, AT(address),           NULL, &listen_rules, KEY_REQUIRED, "ADDRESS:PORT, [IPv6]:PORT or *:PORT"},
{"tls",              CONFIG_WORD,     AT(tls),               "starttls", config_words_listen_tls, 0, "TLS towards clients; starttls: mandatory"},
{"auth",             CONFIG_WORD,     AT(auth),              "required", config_words_listen_auth, 0, "optional: those in trusted need neither AUTH nor TLS, others get 530"},
{"trusted",          CONFIG_NETWORK,  AT(trusted),           NULL, NULL, KEY_LIST, "networks that may send without AUTH"},
{"allow_plaintext_auth", CONFIG_BOOL, AT(allow_plaintext_auth), "false", NULL, 0, "offer AUTH without TLS"},
{"proxy_protocol",   CONFIG_NETWORK,  AT(proxy_protocol),    NULL, NULL, KEY_LIST, "load balancers whose PROXY header is believed"},
{"bare_newlines",    CONFIG_WORD,     AT(bare_newlines),     "reject", config_words_bare_newlines, 0, "a bare CR or LF in a message: 550, or made CR LF"},
};

#undef AT
#define AT(field) offsetof(struct config_relayhost, field)

static const struct config_key relayhost_keys[] = {
{"address",          CONFIG_ENDPOINT, AT(address),           NULL, &relay_rules, KEY_REQUIRED, "HOST:PORT; default port: 587"},
{"tls",              CONFIG_WORD,     AT(tls),               "verify", config_words_tls_level, 0, "what TLS is needed"},
{"implicit",         CONFIG_BOOL,     AT(implicit),          NULL, NULL, 0, "TLS from the first octet; default: true on ports 465 and 2465 only"},
{"auth",             CONFIG_WORD,     AT(auth),              "auto", config_words_relay_auth, 0, "how to log in"},
{"username",         CONFIG_TEXT,     AT(username),          NULL, NULL, 0, "name to log in with"},
{"password_file",    CONFIG_SECRET,   AT(password),          NULL, NULL, 0, "file of the password"},
{"oauth2.provider",  CONFIG_WORD,     AT(oauth2.provider),   NULL, config_words_oauth2_provider, 0, "who gives the tokens"},
{"oauth2.tenant",    CONFIG_TEXT,     AT(oauth2.tenant),     NULL, NULL, 0, "tenant, for microsoft"},
{"oauth2.client_id", CONFIG_TEXT,     AT(oauth2.client_id),  NULL, NULL, 0, "id of the registered application"},
{"oauth2.client_secret_file", CONFIG_SECRET, AT(oauth2.client_secret), NULL, NULL, 0, "file of the application's secret"},
{"oauth2.refresh_token_file", CONFIG_SECRET, AT(oauth2.refresh_token), NULL, NULL, 0, "file of the first refresh token"},
{"oauth2.token_url", CONFIG_URL,      AT(oauth2.token_url),  NULL, NULL, 0, "token endpoint, for other"},
{"oauth2.scope",     CONFIG_TEXT,     AT(oauth2.scope),      NULL, NULL, 0, "scope to ask for"},
{"priority",         CONFIG_INT,      AT(priority),          "10", RANGE(0, 65535), 0, "lower is tried first"},
{"weight",           CONFIG_INT,      AT(weight),            "1", RANGE(1, 65535), 0, "share among equal priorities"},
{"rate",             CONFIG_RATE,     AT(rate),              NULL, NULL, 0, "at most so many messages; the rest waits"},
{"default",          CONFIG_BOOL,     AT(is_default),        "true", NULL, 0, "takes what no route takes"},
{"rewrites",         CONFIG_FIELD_NAME, AT(rewrites),        "Date, Message-ID", NULL, KEY_LIST, "header fields it may replace: not signed"},
{"ca_file",          CONFIG_PATH,     AT(ca_file),           NULL, NULL, 0, "trusted authorities; default: delivery.ca_file"},
{"fingerprint",      CONFIG_FINGERPRINT, AT(fingerprint),    NULL, NULL, 0, "SHA-256 of its certificate or public key, instead of authorities"},
{"certificate",      CONFIG_PATH,     AT(certificate),       NULL, NULL, 0, "PEM certificate to show to it"},
{"key",              CONFIG_PATH,     AT(key),               NULL, NULL, 0, "PEM key of that; default: in the certificate's file"},
};

#undef AT
#define AT(field) offsetof(struct config_route, field)

static const struct config_key route_keys[] = {
{"name",             CONFIG_TEXT,     AT(name),              NULL, NULL, 0, "what logs and relayctl call it"},
{"from",             CONFIG_PATTERN,  AT(from),              NULL, NULL, KEY_LIST, "senders"},
{"to",               CONFIG_PATTERN,  AT(to),                NULL, NULL, KEY_LIST, "recipients; \"*.x\" does not include x"},
{"user",             CONFIG_TEXT,     AT(user),              NULL, NULL, KEY_LIST, "users who submitted"},
{"via",              CONFIG_VIA,      AT(via),               NULL, config_words_via, KEY_LIST | KEY_REQUIRED, "mx, relayhosts in order of preference, discard or capture"},
{"tls",              CONFIG_WORD,     AT(tls),               NULL, config_words_tls_level, 0, "what TLS is needed"},
{"rate",             CONFIG_RATE,     AT(rate),              NULL, NULL, 0, "at most so many messages; the rest waits"},
};

/* clang-format on */

const struct config_table config_root_table = {"", "", root_keys, ARRAY_LEN(root_keys)};
const struct config_table config_listener_table = {"listen", "a listener", listener_keys, ARRAY_LEN(listener_keys)};
const struct config_table config_relayhost_table = {"relayhosts", "a relayhost", relayhost_keys,
						    ARRAY_LEN(relayhost_keys)};
const struct config_table config_route_table = {"routes", "a route", route_keys, ARRAY_LEN(route_keys)};

const struct config_key *config_key_find(const struct config_table *table, struct slice path)
{
	for (size_t i = 0; i < table->count; i++)
		if (slice_eq(path, slice_of_str(table->keys[i].path)))
			return &table->keys[i];
	return NULL;
}

const struct config_key *config_key_at(const struct config_table *table, size_t offset)
{
	for (size_t i = 0; i < table->count; i++)
		if (table->keys[i].offset == offset && !config_key_is_composite(&table->keys[i]))
			return &table->keys[i];
	BUG_ON(true);
}

const struct config_key *config_key_of_type(enum config_type type)
{
	for (size_t i = 0; i < ARRAY_LEN(root_keys); i++)
		if (root_keys[i].type == type)
			return &root_keys[i];
	BUG_ON(true);
}

bool config_key_is_section(const struct config_table *table, struct slice section)
{
	for (size_t i = 0; i < table->count; i++) {
		struct slice path = slice_of_str(table->keys[i].path);
		if (slice_has_prefix(path, section) && path.len > section.len && path.ptr[section.len] == '.')
			return true;
	}
	return false;
}
