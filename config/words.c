#include "config/words.h"

#include "config/config.h"

/* clang-format off */

#define WORD(word, value) {(word), (value)}
#define END {NULL, 0}

const struct config_word config_words_listen_tls[] = {
	WORD("off", CONFIG_LISTEN_OFF),
	WORD("optional", CONFIG_LISTEN_OPTIONAL),
	WORD("starttls", CONFIG_LISTEN_STARTTLS),
	WORD("implicit", CONFIG_LISTEN_IMPLICIT),
	END};
const struct config_word config_words_listen_auth[] = {
	WORD("required", CONFIG_AUTH_REQUIRED),
	WORD("optional", CONFIG_AUTH_OPTIONAL),
	END};
const struct config_word config_words_bare_newlines[] = {
	WORD("reject", CONFIG_BARE_REJECT),
	WORD("normalize", CONFIG_BARE_NORMALIZE),
	END};
const struct config_word config_words_tls_version[] = {
	WORD("1.2", CONFIG_TLS_1_2),
	WORD("1.3", CONFIG_TLS_1_3),
	END};
const struct config_word config_words_tls_level[] = {
	WORD("none", CONFIG_TLS_NONE),
	WORD("opportunistic", CONFIG_TLS_OPPORTUNISTIC),
	WORD("required", CONFIG_TLS_REQUIRED),
	WORD("verify", CONFIG_TLS_VERIFY),
	WORD("dane", CONFIG_TLS_DANE),
	END};
const struct config_word config_words_relay_auth[] = {
	WORD("auto", CONFIG_RELAY_AUTH_AUTO),
	WORD("plain", CONFIG_RELAY_AUTH_PLAIN),
	WORD("login", CONFIG_RELAY_AUTH_LOGIN),
	WORD("xoauth2", CONFIG_RELAY_AUTH_XOAUTH2),
	WORD("oauthbearer", CONFIG_RELAY_AUTH_OAUTHBEARER),
	WORD("none", CONFIG_RELAY_AUTH_NONE),
	END};
const struct config_word config_words_oauth2_provider[] = {
	WORD("microsoft", CONFIG_OAUTH2_MICROSOFT),
	WORD("google", CONFIG_OAUTH2_GOOGLE),
	WORD("other", CONFIG_OAUTH2_OTHER),
	END};
const struct config_word config_words_ip[] = {
	WORD("4", CONFIG_IP_4),
	WORD("6", CONFIG_IP_6),
	WORD("prefer4", CONFIG_IP_PREFER4),
	WORD("any", CONFIG_IP_ANY),
	END};
const struct config_word config_words_bounce_mode[] = {
	WORD("mail", CONFIG_BOUNCE_MAIL),
	WORD("webhook", CONFIG_BOUNCE_WEBHOOK),
	WORD("both", CONFIG_BOUNCE_BOTH),
	WORD("none", CONFIG_BOUNCE_NONE),
	END};
const struct config_word config_words_long_lines[] = {
	WORD("pass", CONFIG_LONG_LINES_PASS),
	WORD("reject", CONFIG_LONG_LINES_REJECT),
	END};
const struct config_word config_words_ephemeral[] = {
	WORD("refuse", CONFIG_EPHEMERAL_REFUSE),
	WORD("warn", CONFIG_EPHEMERAL_WARN),
	WORD("allow", CONFIG_EPHEMERAL_ALLOW),
	END};
const struct config_word config_words_unsigned[] = {
	WORD("refuse", CONFIG_UNSIGNED_REFUSE),
	WORD("allow", CONFIG_UNSIGNED_ALLOW),
	END};
const struct config_word config_words_event[] = {
	WORD("delivered", CONFIG_EVENT_DELIVERED),
	WORD("deferred", CONFIG_EVENT_DEFERRED),
	WORD("failed", CONFIG_EVENT_FAILED),
	WORD("expired", CONFIG_EVENT_EXPIRED),
	WORD("deleted", CONFIG_EVENT_DELETED),
	WORD("alert", CONFIG_EVENT_ALERT),
	END};
const struct config_word config_words_log_format[] = {
	WORD("text", LOG_TEXT),
	WORD("json", LOG_JSON),
	END};
const struct config_word config_words_log_level[] = {
	WORD("error", LOG_ERROR),
	WORD("warn", LOG_WARN),
	WORD("info", LOG_INFO),
	WORD("debug", LOG_DEBUG),
	END};
const struct config_word config_words_log_addresses[] = {
	WORD("full", LOG_ADDRESSES_FULL),
	WORD("domain", LOG_ADDRESSES_DOMAIN),
	WORD("hash", LOG_ADDRESSES_HASH),
	END};
/* Anything else is the name of a relayhost. */
const struct config_word config_words_via[] = {
	WORD("mx", CONFIG_VIA_MX),
	WORD("discard", CONFIG_VIA_DISCARD),
	WORD("capture", CONFIG_VIA_CAPTURE),
	END};

/* clang-format on */

const struct config_word *config_word_find(const struct config_word *words, struct slice text)
{
	for (; words->word; words++)
		if (slice_eq(text, slice_of_str(words->word)))
			return words;
	return NULL;
}

const char *config_word_of(const struct config_word *words, int value)
{
	for (; words->word; words++)
		if (words->value == value)
			return words->word;
	return NULL;
}

static const char *name_of(const struct config_word *words, int value, const char *otherwise)
{
	const char *word = config_word_of(words, value);

	return word ? word : otherwise;
}

#define NAME(enum_tag, words, otherwise)                                                                               \
	const char *enum_tag##_name(enum enum_tag value)                                                               \
	{                                                                                                              \
		return name_of(words, (int)value, otherwise);                                                          \
	}

NAME(config_listen_tls, config_words_listen_tls, "unknown")
NAME(config_listen_auth, config_words_listen_auth, "unknown")
NAME(config_bare_newlines, config_words_bare_newlines, "unknown")
NAME(config_tls_version, config_words_tls_version, "unknown")
NAME(config_tls_level, config_words_tls_level, "unset")
NAME(config_relay_auth, config_words_relay_auth, "unknown")
NAME(config_oauth2_provider, config_words_oauth2_provider, "none")
NAME(config_ip, config_words_ip, "unknown")
NAME(config_bounce_mode, config_words_bounce_mode, "unknown")
NAME(config_long_lines, config_words_long_lines, "unknown")
NAME(config_ephemeral, config_words_ephemeral, "unknown")
NAME(config_unsigned, config_words_unsigned, "unknown")
NAME(config_event, config_words_event, "unknown")
