#include "base/log.h"

#include "base/base.h"
#include "base/buf.h"
#include "base/msgid.h"

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
	buf_init(&log->pending, PENDING_MAX_BYTES);
	crypto_shorthash_keygen(log->hash_key);
	return log;
}

void log_free(struct log **log)
{
	if (!*log)
		return;
	log_flush(*log);
	log_flush(*log); /* what the first has told about dropped lines */
	buf_fini(&(*log)->pending);
	free(*log);
	*log = NULL;
}

void log_configure(struct log *log, const struct log_options *options)
{
	log->options = *options;
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

/* Length of the valid UTF-8 sequence at `at`, 0 when there is none. C1 controls and line separators do not count. */
static size_t utf8_length(const unsigned char *at, size_t left)
{
	size_t len = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
	uint32_t code = at[0] & (0x7f >> len);

	if (at[0] < 0xc2 || at[0] > 0xf4 || left < len)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (at[i] & 0x3f);
	}
	if ((len == 3 && code < 0x800) || (len == 4 && (code < 0x10000 || code > 0x10ffff)))
		return 0;
	if (code < 0xa0 || (code >= 0xd800 && code <= 0xdfff) || (code >= 0x200b && code <= 0x200f) ||
	    (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) || code == 0xfeff)
		return 0;
	return len;
}

static void append_escaped(struct buf *out, struct slice value)
{
	size_t plain = 0, i = 0;

	while (i < value.len) {
		const unsigned char *at = (const unsigned char *)value.ptr + i;
		size_t len = *at < 0x80 ? 1 : utf8_length(at, value.len - i);
		if (len > 1 || (len == 1 && *at >= ' ' && *at != 0x7f && *at != '"' && *at != '\\')) {
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

static void append_text(const struct log *log, struct buf *out, const char *key, struct slice value)
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

static void append_address(const struct log *log, struct buf *out, const char *key, struct slice address)
{
	ptrdiff_t at = slice_find_last(address, '@');
	unsigned char hash[crypto_shorthash_BYTES];
	char hex[2 * sizeof(hash) + 1];

	if (address.len == 0)
		address = SLICE("<>");
	else if (log->options.addresses == LOG_ADDRESSES_DOMAIN && at >= 0)
		address = slice_from(address, (size_t)at);
	else if (log->options.addresses != LOG_ADDRESSES_FULL) {
		crypto_shorthash(hash, (const unsigned char *)address.ptr, address.len, log->hash_key);
		address = slice_of_str(sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash)));
	}
	append_text(log, out, key, address);
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
		append_text(log, out, field->key, slice_of_str(id));
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

static void write_line(struct log *log, enum log_level level, const char *event, const struct log_field *fields)
{
	struct buf *out = &log->pending;
	size_t before = buf_len(out);

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
	for (; fields->type != LOG_FIELD_END && buf_len(out) - before < 16 * 1024; fields++)
		append_field(log, out, fields);
	if (log->options.format == LOG_JSON)
		buf_append_byte(out, '}');
	buf_append_byte(out, '\n');
}

void log_write(struct log *log, enum log_level level, const char *event, const struct log_field *fields)
{
	if (log->tap)
		log->tap(log->tap_ctx, level, event, fields);
	if (!log_is_enabled(log, level))
		return;
	if (buf_room(&log->pending) < 32 * 1024)
		log->dropped++;
	else
		write_line(log, level, event, fields);
}
