/*
 * config/words.h - the words that stand for the values of our enums
 *
 * Private to config/.
 */
#ifndef CONFIG_WORDS_H
#define CONFIG_WORDS_H

#include "base/slice.h"

struct config_word {
	const char *word; /* NULL ends a list */
	int value;
};

extern const struct config_word config_words_listen_tls[];
extern const struct config_word config_words_listen_auth[];
extern const struct config_word config_words_bare_newlines[];
extern const struct config_word config_words_tls_version[];
extern const struct config_word config_words_tls_level[];
extern const struct config_word config_words_relay_auth[];
extern const struct config_word config_words_oauth2_provider[];
extern const struct config_word config_words_ip[];
extern const struct config_word config_words_bounce_mode[];
extern const struct config_word config_words_long_lines[];
extern const struct config_word config_words_ephemeral[];
extern const struct config_word config_words_unsigned[];
extern const struct config_word config_words_event[];
extern const struct config_word config_words_log_format[];
extern const struct config_word config_words_log_level[];
extern const struct config_word config_words_log_addresses[];
extern const struct config_word config_words_via[];

/* NULL: no such word. */
const struct config_word *config_word_find(const struct config_word *words, struct slice text);
/* NULL: no such value. */
const char *config_word_of(const struct config_word *words, int value);

#endif
