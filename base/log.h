/*
 * base/log.h - one line per fact, as text (logfmt) or JSON
 *
 * Keys come in the Contract's order: time, level, event, then the fields as given (id, user, from, rcpt, outcome,
 * class, code, host, ...). Values are quoted and escaped so that no peer can forge a line or a terminal sequence; they
 * are cut at 1,000 octets. Never hand in a secret or a body.
 *
 * Lines that say the same (but for numbers and a client's port) and are not about a message are written `repeat_burst`
 * times a minute; the others are counted, and told as the same line once more with "repeated" (base/log_repeat.h).
 *
 * Lines gather in memory and go out with log_flush() (once per turn of the loop); a target that does not take them
 * never blocks anything: past 1 MiB lines are dropped and counted, and the count is told when the target takes lines
 * again.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/clock.h"
#include "base/slice.h"

enum log_level { LOG_ERROR = 0, LOG_WARN, LOG_INFO, LOG_DEBUG }; /* error: a person must act */
enum log_format { LOG_TEXT, LOG_JSON };
enum log_addresses { LOG_ADDRESSES_FULL, LOG_ADDRESSES_DOMAIN, LOG_ADDRESSES_HASH };

struct log_options {
	enum log_format format;
	enum log_level level;	      /* less urgent lines are not written */
	enum log_addresses addresses; /* how much of a mail address is shown, also inside of texts */
	bool journald;		      /* put the "<N>" priority prefix that journald reads before each line */
	unsigned repeat_burst;	      /* so many lines a minute that say the same; 0: all */
};

enum log_field_type { LOG_FIELD_END = 0, LOG_FIELD_TEXT, LOG_FIELD_INT, LOG_FIELD_ID, LOG_FIELD_ADDRESS };

struct log_field {
	enum log_field_type type;
	const char *key;
	struct slice text;
	int64_t number;
};

#define LOG_STR(key, str) ((struct log_field){LOG_FIELD_TEXT, (key), slice_of_str(str), 0})
#define LOG_TEXT_OF(key, slice) ((struct log_field){LOG_FIELD_TEXT, (key), (slice), 0})
#define LOG_INT(key, number) ((struct log_field){LOG_FIELD_INT, (key), {0}, (int64_t)(number)})
#define LOG_ID(id) ((struct log_field){LOG_FIELD_ID, "id", {0}, (int64_t)(id)})
#define LOG_ADDR(key, slice) ((struct log_field){LOG_FIELD_ADDRESS, (key), (slice), 0})

struct log;

/* Takes bytes, never blocks; returns how many it took (0: not now). */
typedef size_t log_sink(void *ctx, struct slice bytes);

struct log *log_new(const struct clock *clock, log_sink *sink, void *ctx);
/* A sink for a descriptor: pipe, terminal, file, socket. ctx is the descriptor as (void *)(intptr_t)fd. */
size_t log_sink_fd(void *ctx, struct slice bytes);
void log_free(struct log **log);
void log_configure(struct log *log, const struct log_options *options);
bool log_is_enabled(const struct log *log, enum log_level level);
/* An empty text field is left out, an id of 0 too. */
void log_write(struct log *log, enum log_level level, const char *event, const struct log_field *fields);
#define log_event(log, level, event, ...)                                                                              \
	log_write((log), (level), (event), (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}})
void log_flush(struct log *log);

/* Somebody who looks on: is handed the facts of each line, whatever is written of it. It must not log. NULL ends it. */
typedef void log_tap(void *ctx, enum log_level level, const char *event, const struct log_field *fields);
void log_set_tap(struct log *log, log_tap *tap, void *ctx);
const char *log_level_name(enum log_level level);
/* The target has not taken everything yet: flush again soon. */
bool log_is_behind(const struct log *log);
uint64_t log_dropped_count(const struct log *log);

#endif
