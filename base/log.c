#include "base/log.h"

#include "base/base.h"
#include "base/buf.h"
#include "base/log_repeat.h"
#include "base/msgid.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { PENDING_MAX_BYTES = 1 << 20, VALUE_MAX_BYTES = 1000 };

struct log {
	const struct clock *clock;
	log_sink *sink;
	void *ctx;
	struct log_options options;
	log_tap *tap;
	void *tap_ctx;
	struct buf pending;
	uint64_t dropped, dropped_told;
	struct log_repeats repeats;
	unsigned char hash_key[crypto_shorthash_KEYBYTES];
	int64_t second; /* the second that `stamp` shows */
	char stamp[24];
};

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *const journald_prefixes[] = {"<3>", "<4>", "<6>", "<7>"};

struct log *log_new(const struct clock *clock, log_sink *sink, void *ctx)
{
	struct log *log = xcalloc(1, sizeof(*log));

	BUG_ON(sodium_init() < 0);
	log->clock = clock;
	log->sink = sink;
	log->ctx = ctx;
	log->options.level = LOG_INFO;
	log->second = INT64_MIN;
	log->repeats.next_ms = INT64_MAX;
	buf_init(&log->pending, PENDING_MAX_BYTES);
	crypto_shorthash_keygen(log->hash_key);
	return log;
}

static void tell_repeats(struct log *log, int64_t now_ms);

void log_free(struct log **log)
{
	if (!*log)
		return;
	tell_repeats(*log, INT64_MAX);
	log_flush(*log);
	log_flush(*log); /* what the first has told about dropped lines */
	buf_fini(&(*log)->pending);
	free(*log);
	*log = NULL;
}

void log_configure(struct log *log, const struct log_options *options)
{
	tell_repeats(log, INT64_MAX); /* in the format that they were kept in */
	log->options = *options;
	log->repeats.burst = options->repeat_burst;
}

void log_set_tap(struct log *log, log_tap *tap, void *ctx)
{
	log->tap = tap;
	log->tap_ctx = ctx;
}

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

bool log_is_enabled(const struct log *log, enum log_level level)
{
	return level <= log->options.level;
}

bool log_is_behind(const struct log *log)
{
	return buf_len(&log->pending) > 0;
}

uint64_t log_dropped_count(const struct log *log)
{
	return log->dropped;
}

/* A pipe that poll() calls writable takes PIPE_BUF bytes without blocking; so does everything else that logs go to. */
size_t log_sink_fd(void *ctx, struct slice bytes)
{
	struct pollfd target = {.fd = (int)(intptr_t)ctx, .events = POLLOUT};
	size_t sent = 0;

	while (sent < bytes.len) {
		ssize_t n;
		if (poll(&target, 1, 0) != 1 || !(target.revents & POLLOUT))
			break;
		n = write(target.fd, bytes.ptr + sent, MIN(bytes.len - sent, (size_t)PIPE_BUF));
		if (n <= 0)
			break;
		sent += (size_t)n;
	}
	return sent;
}

static void write_line(struct log *log, enum log_level level, const char *event, const struct log_field *fields);

void log_flush(struct log *log)
{
	tell_repeats(log, clock_mono_ms(log->clock));
	if (buf_len(&log->pending) > 0)
		buf_consume(&log->pending, log->sink(log->ctx, buf_slice(&log->pending)));
	if (buf_len(&log->pending) == 0 && log->dropped > log->dropped_told) {
		uint64_t count = log->dropped - log->dropped_told;
		log->dropped_told = log->dropped;
		/* At every level: also those who want errors alone have lost some. */
		write_line(log, LOG_WARN, "log_lines_dropped",
			   (const struct log_field[]){LOG_INT("count", count), {0}});
	}
}

static bool needs_quotes(struct slice value)
{
	for (size_t i = 0; i < value.len; i++) {
		unsigned char c = (unsigned char)value.ptr[i];
		if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=')
			return true;
	}
	return value.len == 0;
}

static void append_escaped(struct buf *out, struct slice value)
{
	size_t plain = 0, i = 0;

	while (i < value.len) {
		const unsigned char *at = (const unsigned char *)value.ptr + i;
		size_t len = utf8_visible(slice_from(value, i));
		if (len > 0 && *at != '"' && *at != '\\') {
			i += len;
			continue;
		}
		buf_append(out, slice_of(value.ptr + plain, i - plain));
		switch (*at) {
		case '"': buf_append_str(out, "\\\""); break;
		case '\\': buf_append_str(out, "\\\\"); break;
		case '\n': buf_append_str(out, "\\n"); break;
		case '\r': buf_append_str(out, "\\r"); break;
		case '\t': buf_append_str(out, "\\t"); break;
		default: buf_printf(out, "\\u%04x", *at);
		}
		plain = ++i;
	}
	buf_append(out, slice_of(value.ptr + plain, value.len - plain));
}

static void append_quoted(struct buf *out, struct slice value)
{
	buf_append_byte(out, '"');
	append_escaped(out, value);
	buf_append_byte(out, '"');
}

static void append_key(const struct log *log, struct buf *out, const char *key)
{
	if (log->options.format == LOG_JSON)
		buf_printf(out, ",\"%s\":", key);
	else
		buf_printf(out, " %s=", key);
}

static void append_value(const struct log *log, struct buf *out, const char *key, struct slice value)
{
	if (value.len == 0)
		return;
	value = slice_to(value, VALUE_MAX_BYTES);
	append_key(log, out, key);
	if (log->options.format == LOG_JSON || needs_quotes(value))
		append_quoted(out, value);
	else
		buf_append(out, value);
}

enum { HASH_CHARS = 2 * crypto_shorthash_BYTES };

/* As much of an address as may be shown; `hex` is memory for it. */
static struct slice shown_address(const struct log *log, struct slice address, char hex[HASH_CHARS + 1])
{
	ptrdiff_t at = slice_find_last(address, '@');
	unsigned char hash[crypto_shorthash_BYTES];

	if (log->options.addresses == LOG_ADDRESSES_FULL)
		return address;
	if (log->options.addresses == LOG_ADDRESSES_DOMAIN && at >= 0)
		return slice_from(address, (size_t)at);
	crypto_shorthash(hash, (const unsigned char *)address.ptr, address.len, log->hash_key);
	return slice_of_str(sodium_bin2hex(hex, HASH_CHARS + 1, hash, sizeof(hash)));
}

static void append_address(const struct log *log, struct buf *out, const char *key, struct slice address)
{
	char hex[HASH_CHARS + 1];

	append_value(log, out, key, address.len == 0 ? SLICE("<>") : shown_address(log, address, hex));
}

/* Part of an address outside quotes: atoms, dots, UTF-8; on the right a domain has nothing else. */
static bool is_address_octet(unsigned char c)
{
	return c >= 0x80 || (c > ' ' && c < 0x7f && !strchr("()<>[]:;,\"\\@", c));
}

/* Other servers' words name addresses too ("550 5.1.1 <jane@example.net>: no such user"). */
static void append_text(const struct log *log, struct buf *out, const char *key, struct slice value)
{
	char hex[HASH_CHARS + 1];
	struct buf shown;
	ptrdiff_t at;

	value = slice_to(value, VALUE_MAX_BYTES);
	if (log->options.addresses == LOG_ADDRESSES_FULL || strcmp(key, "user") == 0 || slice_find(value, '@') < 0) {
		append_value(log, out, key, value);
		return;
	}
	buf_init(&shown, 32 * VALUE_MAX_BYTES);
	while ((at = slice_find(value, '@')) >= 0) {
		size_t begin = (size_t)at, end = (size_t)at + 1;
		ptrdiff_t quote =
		    at > 1 && value.ptr[at - 1] == '"' ? slice_find_last(slice_to(value, begin - 1), '"') : -1;
		if (quote >= 0)
			begin = (size_t)quote;
		while (begin > 0 && is_address_octet((unsigned char)value.ptr[begin - 1]))
			begin--;
		while (end < value.len && is_address_octet((unsigned char)value.ptr[end]))
			end++;
		buf_append(&shown, slice_to(value, begin));
		buf_append(&shown, shown_address(log, slice_to(slice_from(value, begin), end - begin), hex));
		value = slice_from(value, end);
	}
	buf_append(&shown, value);
	append_value(log, out, key, buf_slice(&shown));
	buf_fini(&shown);
}

static void append_field(const struct log *log, struct buf *out, const struct log_field *field)
{
	char id[MSGID_CHARS + 1];

	switch (field->type) {
	case LOG_FIELD_TEXT: append_text(log, out, field->key, field->text); break;
	case LOG_FIELD_ADDRESS: append_address(log, out, field->key, field->text); break;
	case LOG_FIELD_INT:
		append_key(log, out, field->key);
		buf_printf(out, "%" PRId64, field->number);
		break;
	case LOG_FIELD_ID:
		if (field->number == 0)
			break;
		msgid_format((uint64_t)field->number, id);
		append_value(log, out, field->key, slice_of_str(id));
		break;
	case LOG_FIELD_END: break;
	}
}

static void append_time(struct log *log, struct buf *out)
{
	int64_t now = clock_wall_ms(log->clock);
	int64_t second = now / 1000;

	if (second != log->second) {
		time_t t = (time_t)second;
		struct tm tm;
		gmtime_r(&t, &tm);
		strftime(log->stamp, sizeof(log->stamp), "%Y-%m-%dT%H:%M:%S", &tm);
		log->second = second;
	}
	buf_printf(out, "%s.%03dZ", log->stamp, (int)(now % 1000));
}

static void begin_line(struct log *log, enum log_level level, const char *event)
{
	struct buf *out = &log->pending;

	if (log->options.journald)
		buf_append_str(out, journald_prefixes[level]);
	if (log->options.format == LOG_JSON)
		buf_append_str(out, "{\"time\":\"");
	else
		buf_append_str(out, "time=");
	append_time(log, out);
	if (log->options.format == LOG_JSON)
		buf_printf(out, "\",\"level\":\"%s\",\"event\":\"%s\"", level_names[level], event);
	else
		buf_printf(out, " level=%s event=%s", level_names[level], event);
}

static void append_fields(struct log *log, const struct log_field *fields)
{
	size_t before = buf_len(&log->pending);

	for (; fields->type != LOG_FIELD_END && buf_len(&log->pending) - before < 16 * 1024; fields++)
		append_field(log, &log->pending, fields);
}

static void end_line(struct log *log)
{
	buf_append_str(&log->pending, log->options.format == LOG_JSON ? "}\n" : "\n");
}

static void write_line(struct log *log, enum log_level level, const char *event, const struct log_field *fields)
{
	begin_line(log, level, event);
	append_fields(log, fields);
	end_line(log);
}

/* ---- repeats ---- */

static bool has_room(struct log *log)
{
	if (buf_room(&log->pending) >= 32 * 1024)
		return true;
	log->dropped++;
	return false;
}

static void tell_repeats(struct log *log, int64_t now_ms)
{
	struct log_repeat *repeat;

	while ((repeat = log_repeats_due(&log->repeats, now_ms))) {
		struct log_field count = LOG_INT("repeated", repeat->count);
		if (has_room(log)) {
			begin_line(log, (enum log_level)repeat->level, repeat->event);
			buf_append_str(&log->pending, repeat->text);
			append_field(log, &log->pending, &count);
			end_line(log);
		}
		free(repeat->text);
		repeat->text = NULL;
		repeat->count = 0;
	}
}

/* A client's next connection has another port, and is the same client. */
static struct slice without_port(struct slice client)
{
	ptrdiff_t bracket = slice_find_last(client, ']');

	return bracket < 0 ? client : slice_to(client, (size_t)bracket);
}

/* What a line says, but for numbers that are not codes. */
static uint64_t hash_line(const struct log *log, const char *event, const struct log_field *fields)
{
	unsigned char sum[crypto_shorthash_BYTES], chain[2 * crypto_shorthash_BYTES] = {0};
	uint64_t hash;

	crypto_shorthash(sum, (const unsigned char *)event, strlen(event), log->hash_key);
	for (; fields->type != LOG_FIELD_END; fields++) {
		struct slice text = strcmp(fields->key, "client") == 0 ? without_port(fields->text) : fields->text;
		if (fields->type == LOG_FIELD_INT && strcmp(fields->key, "code") == 0)
			text = slice_of(&fields->number, sizeof(fields->number));
		memcpy(chain, sum, sizeof(sum));
		crypto_shorthash(chain + sizeof(sum), (const unsigned char *)(text.len ? text.ptr : ""), text.len,
				 log->hash_key);
		crypto_shorthash(sum, chain, sizeof(chain), log->hash_key);
	}
	memcpy(&hash, sum, sizeof(hash));
	return hash;
}

static bool is_about_message(const struct log_field *fields)
{
	for (; fields->type != LOG_FIELD_END; fields++)
		if (fields->type == LOG_FIELD_ID && fields->number != 0)
			return true;
	return false;
}

/* What is said of those that are not written: the words of the first. */
static void keep_words(struct log *log, struct log_repeat *repeat, const struct log_field *fields)
{
	enum { WORDS_MAX_BYTES = 2000 };
	size_t before = buf_len(&log->pending);
	struct slice words;

	append_fields(log, fields);
	words = slice_from(buf_slice(&log->pending), before);
	repeat->text = words.len <= WORDS_MAX_BYTES ? xmalloc(words.len + 1) : xstrdup("");
	if (words.len <= WORDS_MAX_BYTES)
		slice_to_cstr(words, repeat->text, words.len + 1);
	buf_truncate(&log->pending, before);
}

/* Lines about a message are each a fact of its own. */
static bool is_repeat(struct log *log, enum log_level level, const char *event, const struct log_field *fields)
{
	static const struct log_field nothing[] = {{0}};
	struct log_repeat *repeat;
	uint64_t event_key;

	if (log->repeats.burst == 0 || is_about_message(fields))
		return false;
	event_key = hash_line(log, event, nothing);
	repeat = log_repeats_count(&log->repeats, hash_line(log, event, fields), event_key, clock_mono_ms(log->clock));
	if (!repeat)
		return false;
	if (repeat->count == 1) {
		repeat->level = level;
		repeat->event = event;
		keep_words(log, repeat, repeat->key == event_key ? nothing : fields);
	}
	return true;
}

void log_write(struct log *log, enum log_level level, const char *event, const struct log_field *fields)
{
	if (log->tap)
		log->tap(log->tap_ctx, level, event, fields);
	if (log_is_enabled(log, level) && has_room(log) && !is_repeat(log, level, event, fields))
		write_line(log, level, event, fields);
}
