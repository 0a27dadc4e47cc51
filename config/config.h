/*
 * config/config.h - what the operator wants: relayd.yaml, environment and defaults as one checked structure
 *
 * config_load() reads everything, collects all mistakes with their places, and gives an immutable structure: durations
 * in milliseconds, sizes in bytes, addresses parsed, names resolved. Nobody writes to it. It is reference counted, so
 * that a delivery may keep the one it began with over a reload. It blocks on files only, never on the network. No
 * globals.
 *
 * The keys, their types and defaults stand in config/keys.c; relayd.yaml(5) explains them. Texts and paths that are not
 * set are NULL. Relative paths in relayd.yaml are taken from the folder of that file and are absolute here; those in
 * the environment from the working folder. All memory belongs to the struct config, and is wiped when it is freed.
 */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include "base/err.h"
#include "base/log.h"
#include "base/vocabulary.h"
#include "config/address_map.h"
#include "config/aliases.h"
#include "config/errors.h"
#include "config/pattern.h"
#include "config/secret.h"
#include "config/values.h"

#define CONFIG_DEFAULT_FILE "/etc/relayd/relayd.yaml"
#define CONFIG_DEFAULT_SPOOL "/var/spool/relayd"
#define CONFIG_RETRY_STEPS_MAX 32
#define CONFIG_RELAYHOSTS_MAX 256
#define CONFIG_ITEMS_MAX 1000 /* listeners, routes, domains with DKIM keys */

/* ---- Words. Each enum has a _name() that gives the word of relayd.yaml, a static string. */

enum config_listen_tls {
	CONFIG_LISTEN_OFF = 0,	/* no TLS at all */
	CONFIG_LISTEN_OPTIONAL, /* STARTTLS is offered */
	CONFIG_LISTEN_STARTTLS, /* STARTTLS must come before AUTH and MAIL */
	CONFIG_LISTEN_IMPLICIT, /* TLS from the first octet */
};
enum config_listen_auth {
	CONFIG_AUTH_REQUIRED = 0,
	CONFIG_AUTH_OPTIONAL, /* those in `trusted` need neither AUTH nor TLS; others get 530 */
};
enum config_bare_newlines { CONFIG_BARE_REJECT = 0, CONFIG_BARE_NORMALIZE };
enum config_tls_version { CONFIG_TLS_1_2 = 0, CONFIG_TLS_1_3 };

/* What TLS a destination needs. */
enum config_tls_level {
	CONFIG_TLS_UNSET = 0, /* routes only: as usual for that kind of destination */
	CONFIG_TLS_NONE,
	CONFIG_TLS_OPPORTUNISTIC,
	CONFIG_TLS_REQUIRED,
	CONFIG_TLS_VERIFY,
	CONFIG_TLS_DANE,
};

enum config_relay_auth {
	CONFIG_RELAY_AUTH_AUTO = 0, /* oauth2 when it is set, else PLAIN or LOGIN when there is a username, else none */
	CONFIG_RELAY_AUTH_PLAIN,
	CONFIG_RELAY_AUTH_LOGIN,
	CONFIG_RELAY_AUTH_XOAUTH2,
	CONFIG_RELAY_AUTH_OAUTHBEARER,
	CONFIG_RELAY_AUTH_NONE,
};
enum config_oauth2_provider {
	CONFIG_OAUTH2_NONE = 0, /* no oauth2 section */
	CONFIG_OAUTH2_MICROSOFT,
	CONFIG_OAUTH2_GOOGLE,
	CONFIG_OAUTH2_OTHER,
};
enum config_ip { CONFIG_IP_4 = 0, CONFIG_IP_6, CONFIG_IP_PREFER4, CONFIG_IP_ANY };
enum config_bounce_mode { CONFIG_BOUNCE_MAIL = 0, CONFIG_BOUNCE_WEBHOOK, CONFIG_BOUNCE_BOTH, CONFIG_BOUNCE_NONE };
enum config_long_lines { CONFIG_LONG_LINES_PASS = 0, CONFIG_LONG_LINES_REJECT };
enum config_ephemeral { CONFIG_EPHEMERAL_REFUSE = 0, CONFIG_EPHEMERAL_WARN, CONFIG_EPHEMERAL_ALLOW };
enum config_unsigned { CONFIG_UNSIGNED_REFUSE = 0, CONFIG_UNSIGNED_ALLOW };
enum config_event {
	CONFIG_EVENT_DELIVERED = 0,
	CONFIG_EVENT_DEFERRED,
	CONFIG_EVENT_FAILED,
	CONFIG_EVENT_EXPIRED,
	CONFIG_EVENT_DELETED,
	CONFIG_EVENT_ALERT,
};

const char *config_listen_tls_name(enum config_listen_tls tls);
const char *config_listen_auth_name(enum config_listen_auth auth);
const char *config_bare_newlines_name(enum config_bare_newlines bare);
const char *config_tls_version_name(enum config_tls_version version);
const char *config_tls_level_name(enum config_tls_level level); /* "unset" for CONFIG_TLS_UNSET */
const char *config_relay_auth_name(enum config_relay_auth auth);
const char *config_oauth2_provider_name(enum config_oauth2_provider provider); /* "none" for CONFIG_OAUTH2_NONE */
const char *config_ip_name(enum config_ip ip);
const char *config_bounce_mode_name(enum config_bounce_mode mode);
const char *config_long_lines_name(enum config_long_lines lines);
const char *config_ephemeral_name(enum config_ephemeral ephemeral);
const char *config_unsigned_name(enum config_unsigned policy);
const char *config_event_name(enum config_event event);

/* ---- Where a value comes from. */

enum config_origin_kind { CONFIG_FROM_DEFAULT = 0, CONFIG_FROM_FILE, CONFIG_FROM_VARIABLE };
struct config_origin {
	enum config_origin_kind kind;
	uint32_t line, column; /* from 1; CONFIG_FROM_FILE only, in config->file */
	const char *variable;  /* CONFIG_FROM_VARIABLE only */
	bool is_refused;       /* while loading: its value is not in force, so do not judge by it */
};

/* ---- Lists. All have this shape: count and items. */

struct config_texts {
	size_t count;
	const char **items;
};
struct config_endpoints {
	size_t count;
	struct config_endpoint *items;
};
struct config_steps {
	size_t count;
	int64_t *items; /* milliseconds */
};
struct config_events {
	size_t count;
	enum config_event *items;
};
/* An address of our own to send from. */
struct config_source_address {
	int family;
	uint8_t bytes[16];
};
struct config_source_addresses {
	size_t count;
	struct config_source_address *items;
};

/* ---- The parts. */

struct config_listener {
	struct config_endpoint address; /* host "*": all addresses of both families */
	enum config_listen_tls tls;
	enum config_listen_auth auth;
	struct config_networks trusted; /* ask config_trusts() of config/gateways.h, which knows about gateways */
	bool allow_plaintext_auth;
	struct config_networks proxy_protocol;
	enum config_bare_newlines bare_newlines;
	bool may_fail;		       /* [::1]:587 of the default: no IPv6 here is no error */
	struct config_origin *origins; /* by row of config/keys.c */
};

struct config_oauth2 {
	enum config_oauth2_provider provider;
	const char *tenant, *client_id, *token_url, *scope;
	struct config_secret client_secret, refresh_token;
};

struct config_relayhost {
	const char *name;		/* letters, digits, '-' and '_', at most 32 */
	struct config_endpoint address; /* a name, or an address */
	enum config_tls_level tls;
	bool implicit; /* TLS from the first octet */
	enum config_relay_auth auth;
	const char *username;
	struct config_secret password;
	struct config_oauth2 oauth2;
	int64_t priority; /* lower is tried first */
	int64_t weight;	  /* share among equal priorities */
	struct config_rate rate;
	bool is_default;
	struct config_texts rewrites; /* names of header fields */
	const char *ca_file, *fingerprint;
	const char *certificate, *key; /* ours, shown to it; key NULL: in the certificate's file */
	struct config_origin place;    /* of its name */
	struct config_origin *origins;
};

enum config_via_kind { CONFIG_VIA_MX = 0, CONFIG_VIA_RELAYHOST, CONFIG_VIA_DISCARD, CONFIG_VIA_CAPTURE };
struct config_via {
	enum config_via_kind kind;
	const char *name; /* "mx", the relayhost's name, ... */
	size_t relayhost; /* index in config->relayhosts; CONFIG_VIA_RELAYHOST only */
};
struct config_vias {
	size_t count;
	struct config_via *items;
};

/* A condition with an empty list always holds. */
struct config_route {
	const char *name; /* unique; "route N" counted from 1 when the operator gave none */
	struct config_patterns from, to;
	struct config_texts user;
	struct config_vias via; /* at least one, in order of preference */
	enum config_tls_level tls;
	struct config_rate rate;
	struct config_origin place;
	struct config_origin *origins;
};

/* A key file, or the PEM text itself (from RELAYD_DKIM_KEY). */
struct config_dkim_key {
	const char *selector;
	struct config_secret key;
	struct config_origin place;
};
struct config_dkim_domain {
	const char *domain; /* as written, without a final dot */
	size_t key_count;
	struct config_dkim_key *keys;
	struct config_origin place;
};

struct config {
	const char *file;     /* what was read; NULL: there is no file */
	const char *hostname; /* never NULL */
	const char *spool, *user;
	const char *users_file; /* NULL: none; with check_files also when the default one does not exist (yet) */
	struct {
		const char *name; /* RELAYD_USERNAME; NULL: none */
		struct config_secret password;
	} account;

	size_t listener_count;
	struct config_listener *listeners;
	struct config_endpoints http;
	const char *control_group; /* NULL: the service user's */
	struct {
		const char *certificate, *key, *client_ca_file; /* no certificate: a self-signed one in the spool */
		enum config_tls_version min_version;
	} tls;
	struct {
		int64_t message_size_bytes, recipients, messages_per_connection;
		int64_t connections, connections_per_address, connections_per_user;
		int64_t idle_timeout_ms, session_timeout_ms, memory_bytes;
		int64_t queue_bytes, queue_messages;
	} limits;

	/* Files of this section are read with check_files only; what was read is NULL when there is no file. */
	const char *origin, *aliases_file;
	const struct aliases *aliases;
	struct {
		const char *from_file, *recipient_file;
		const struct address_map *from, *recipient;
		bool keep_reply_to;
	} rewrite;
	struct {
		struct config_texts remove; /* field names */
		struct config_texts set;    /* "Name: value" */
		const char *subject_prefix;
	} headers;
	struct config_texts bcc;
	const char *redirect;
	struct config_patterns allowed_recipients; /* empty: any */
	const char *suppress_file;
	const struct address_map *suppressed;

	struct {
		enum config_unsigned unsigned_policy;
		size_t domain_count;
		struct config_dkim_domain *domains;
		const char *default_domain; /* signs for From domains without a key; NULL: nobody does */
	} dkim;

	size_t relayhost_count;
	struct config_relayhost *relayhosts; /* in the order of the file */
	size_t route_count;
	struct config_route *routes;

	struct {
		struct config_endpoints servers; /* none: resolv.conf */
		bool trust_ad;
	} dns;
	struct {
		int64_t port;
		int64_t mta_sts_port; /* 443, but in a test */
		enum config_ip ip;
		struct config_source_addresses bind;
		int64_t connect_timeout_ms, connections, per_destination;
		bool allow_loopback;
		const char *ca_file; /* NULL: the system's */
	} delivery;
	struct {
		const char *ca_file; /* NULL: the system's */
	} https;
	struct {
		struct config_steps steps[CLASS_COUNT]; /* CLASS_OTHER is `default`; all but CLASS_NONE have steps */
		int64_t expire_ms;
		int64_t warn_after_ms; /* 0: no delay warnings */
	} retry;
	struct {
		enum config_bounce_mode mode;
		const char *to; /* NULL: the sender */
	} bounce;
	struct {
		const char *url;
		struct config_secret secret;
		struct config_events events;
	} webhook;
	struct {
		enum log_format format;
		enum log_level level;
		enum log_addresses addresses;
	} log;
	int64_t stop_timeout_ms;
	int64_t dedupe_window_ms; /* 0: off */
	bool hide_client;
	enum config_long_lines long_lines;
	int64_t helpers;
	enum config_ephemeral ephemeral_spool;

	/* Every file that the configuration names or was read from, for the watch that notices changes. */
	struct config_texts files;

	struct config_origin *origins; /* by row of config/keys.c */
	struct config_memory *memory;  /* private */
};

/* ---- Loading. */

struct config_source {
	const char *file;     /* NULL: RELAYD_CONFIG, else CONFIG_DEFAULT_FILE */
	bool file_is_named;   /* by -c: it must exist (RELAYD_CONFIG's must too) */
	char *const *environ; /* NULL: none */
	/* For the daemon and -t: the files that are named can be read, somebody can submit, the host name suits MX
	 * delivery. relayctl leaves it false to look at the text alone. */
	bool check_files;
	/* Beside check_files: reads the users file to the last line. Not in a process that takes bytes from the
	 * network: a reload leaves it to the helper that will use the file. */
	bool check_users;
	/* NULL: gethostname() and /etc/hosts (config/hostname.h). For tests. */
	const char *default_hostname;
};

/*
 * 0, or ERR_CONFIG with at least one mistake in `errors`, then *out is NULL. `errors` is initialised here and may hold
 * warnings although the result is 0.
 */
int config_load(const struct config_source *source, struct config **out, struct config_errors *errors);
/* The same from text instead of source->file, which then only names the text in messages. */
int config_load_text(const struct config_source *source, struct slice text, struct config **out,
		     struct config_errors *errors);
struct config *config_ref(struct config *config);
/* Drops one reference and sets *config to NULL; accepts NULL. The last one wipes all memory. */
void config_free(struct config **config);

/* The relayhost of that name, NULL: none. */
const struct config_relayhost *config_find_relayhost(const struct config *config, struct slice name);
/* Each as text, "ADDRESS:PORT" or "[ADDRESS]:PORT", one pointer an endpoint; the caller frees it all with one free(). */
const char **config_endpoint_texts(const struct config_endpoints *endpoints);
/* Mail can leave by MX: no default relayhost, or a route says so. */
bool config_uses_mx(const struct config *config);

#endif
