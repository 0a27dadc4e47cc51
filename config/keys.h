/*
 * config/keys.h - the table of all settings
 *
 * Private to config/. From this one table come what relayd.yaml may hold, the names of the environment variables, the
 * defaults, what `relayctl config` shows, and the JSON schema; tests hold relayd.yaml(5) and etc/relayd.yaml against
 * it.
 */
#ifndef CONFIG_KEYS_H
#define CONFIG_KEYS_H

#include "base/slice.h"

enum config_type {
	CONFIG_TEXT = 0,    /* one line of anything */
	CONFIG_PATH,	    /* of a file or folder */
	CONFIG_HOST_NAME,   /* letters, digits, hyphens and dots */
	CONFIG_DOMAIN,	    /* the same, or with U-labels */
	CONFIG_BOOL,	    /* true | false */
	CONFIG_INT,	    /* rule: struct config_range */
	CONFIG_DURATION,    /* rule: struct config_range in milliseconds */
	CONFIG_SIZE,	    /* rule: struct config_range in bytes */
	CONFIG_RATE,	    /* 100/h */
	CONFIG_WORD,	    /* rule: struct config_word[] */
	CONFIG_ENDPOINT,    /* rule: struct config_endpoint_rules */
	CONFIG_SECRET,	    /* path of a file, or a text from the environment */
	CONFIG_ADDRESS,	    /* an IP address */
	CONFIG_NETWORK,	    /* 10.0.0.0/8 */
	CONFIG_PATTERN,	    /* config/pattern.h */
	CONFIG_FIELD_NAME,  /* of a header */
	CONFIG_FIELD,	    /* Name: value */
	CONFIG_MAILBOX,	    /* user@example.com */
	CONFIG_URL,	    /* https://... */
	CONFIG_FINGERPRINT, /* SHA-256 in hexadecimal digits */
	CONFIG_VIA,	    /* where a route leads */
	/* With tables or readers of their own. */
	CONFIG_LISTENERS,
	CONFIG_RELAYHOSTS,
	CONFIG_ROUTES,
	CONFIG_DKIM_DOMAINS,
};

enum config_key_flags {
	KEY_LIST = 1,	   /* several values: a YAML list, or one value alone; commas in the environment */
	KEY_NO_ENV = 4,	   /* has no variable: values hold commas */
	KEY_REQUIRED = 8,  /* of listeners, relayhosts, routes */
	KEY_OFF_WORD = 16, /* a list that the word "off" empties */
};

struct config_range {
	int64_t min, max;
};

struct config_key {
	const char *path; /* "limits.message_size" */
	enum config_type type;
	size_t offset;	    /* in struct config, config_listener, config_relayhost or config_route */
	const char *preset; /* the default, written as in the environment; NULL: not set */
	const void *rule;   /* by type; NULL: none */
	unsigned flags;
	const char *help; /* one sentence without a full stop */
};

struct config_table {
	const char *name; /* "" for the root, "listen", "relayhosts", "routes": stands before the path in messages */
	const char *one;  /* "a listener" */
	const struct config_key *keys;
	size_t count;
};

extern const struct config_table config_root_table, config_listener_table, config_relayhost_table, config_route_table;

/* NULL: no such key. */
const struct config_key *config_key_find(const struct config_table *table, struct slice path);
/* The row whose value lies at `offset`; there must be one. */
const struct config_key *config_key_at(const struct config_table *table, size_t offset);
/* The root's row of a composite type. */
const struct config_key *config_key_of_type(enum config_type type);
static inline size_t config_key_index(const struct config_table *table, const struct config_key *key)
{
	return (size_t)(key - table->keys);
}
static inline bool config_key_is_composite(const struct config_key *key)
{
	return key->type >= CONFIG_LISTENERS;
}
/* Some key lies below "SECTION.". */
bool config_key_is_section(const struct config_table *table, struct slice section);

#endif
