#include "support_base.h"

#include "base/buf.h"
#include "base/log.h"
#include "base/msgid.h"
#include "base/random.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A log whose target takes `room` more bytes and keeps them. */
struct fixture {
	struct clock_virtual clock;
	struct log *log;
	struct buf taken;
	size_t room;
};

static size_t take(void *ctx, struct slice bytes)
{
	struct fixture *f = ctx;
	size_t len = bytes.len < f->room ? bytes.len : f->room;

	assert_int_equal(buf_append(&f->taken, slice_to(bytes, len)), 0);
	f->room -= len;
	return len;
}

static void start(struct fixture *f, enum log_format format)
{
	struct log_options options = {.format = format, .level = LOG_INFO};

	clock_virtual_init(&f->clock, 1700000000123);
	f->log = log_new(&f->clock.clock, take, f);
	log_configure(f->log, &options);
	buf_init(&f->taken, 64u << 20);
	f->room = SIZE_MAX;
}

static void stop(struct fixture *f)
{
	log_free(&f->log);
	assert_null(f->log);
	log_free(&f->log);
	buf_fini(&f->taken);
}

/* All that was taken since the last call. */
static struct slice lines(struct fixture *f)
{
	static char text[256 * 1024];
	struct slice all;

	log_flush(f->log);
	all = buf_slice(&f->taken);
	assert_true(all.len < sizeof(text));
	if (all.len)
		memcpy(text, all.ptr, all.len);
	buf_clear(&f->taken);
	return slice_of(text, all.len);
}

static void assert_line(struct fixture *f, const char *wanted)
{
	struct slice got = lines(f);

	if (!slice_eq(got, slice_of_str(wanted)))
		fail_msg("got    %.*swanted %s", SLICE_ARG(got), wanted);
}

#define TIME "2023-11-14T22:13:20.123Z"

static void a_line_as_text(void **state)
{
	struct fixture f;
	(void)state;

	start(&f, LOG_TEXT);
	log_event(f.log, LOG_INFO, "delivery", LOG_ID(1), LOG_ADDR("rcpt", SLICE("a@example.com")),
		  LOG_STR("outcome", "delivered"), LOG_INT("code", 250), LOG_STR("reply", "2.0.0 Ok"),
		  LOG_STR("empty", ""), LOG_STR("none", NULL), LOG_INT("size", -1), LOG_ID(0));
	assert_line(&f, "time=" TIME " level=info event=delivery id=0000000000001 rcpt=a@example.com outcome=delivered "
			"code=250 reply=\"2.0.0 Ok\" size=-1\n");
	log_event(f.log, LOG_ERROR, "bare");
	assert_line(&f, "time=" TIME " level=error event=bare\n");
	stop(&f);
}

static void a_line_as_json(void **state)
{
	struct fixture f;
	(void)state;

	start(&f, LOG_JSON);
	log_event(f.log, LOG_WARN, "delivery", LOG_ID(1), LOG_ADDR("from", SLICE("")), LOG_INT("code", 250),
		  LOG_STR("reply", "a \"b\" \\"));
	assert_line(&f, "{\"time\":\"" TIME "\",\"level\":\"warn\",\"event\":\"delivery\",\"id\":\"0000000000001\","
			"\"from\":\"<>\",\"code\":250,\"reply\":\"a \\\"b\\\" \\\\\"}\n");
	stop(&f);
}

static void the_time_moves_on(void **state)
{
	struct fixture f;
	(void)state;

	start(&f, LOG_TEXT);
	log_event(f.log, LOG_INFO, "a");
	clock_virtual_advance(&f.clock, 876);
	log_event(f.log, LOG_INFO, "b");
	clock_virtual_advance(&f.clock, 1);
	log_event(f.log, LOG_INFO, "c");
	assert_line(&f, "time=2023-11-14T22:13:20.123Z level=info event=a\n"
			"time=2023-11-14T22:13:20.999Z level=info event=b\n"
			"time=2023-11-14T22:13:21.000Z level=info event=c\n");
	stop(&f);
}

static void levels_and_the_prefix_of_journald(void **state)
{
	struct log_options options = {.level = LOG_WARN, .journald = true};
	struct fixture f;
	(void)state;

	start(&f, LOG_TEXT);
	log_configure(f.log, &options);
	assert_true(log_is_enabled(f.log, LOG_ERROR));
	assert_false(log_is_enabled(f.log, LOG_INFO));
	log_event(f.log, LOG_ERROR, "a");
	log_event(f.log, LOG_WARN, "b");
	log_event(f.log, LOG_INFO, "c");
	log_event(f.log, LOG_DEBUG, "d");
	assert_line(&f, "<3>time=" TIME " level=error event=a\n<4>time=" TIME " level=warn event=b\n");
	stop(&f);
}

static void values_are_quoted_where_needed(void **state)
{
	static const struct {
		const char *value, *wanted;
	} cases[] = {
	    {"plain-value.1/2@x", "plain-value.1/2@x"},
	    {"two words", "\"two words\""},
	    {"a=b", "\"a=b\""},
	    {"say \"hi\"", "\"say \\\"hi\\\"\""},
	    {"back\\slash", "\"back\\\\slash\""},
	    {"line\r\nlevel=error event=forged", "\"line\\r\\nlevel=error event=forged\""},
	    {"tab\there", "\"tab\\there\""},
	    {"\x1b[31mred\x1b[0m\x07", "\"\\u001b[31mred\\u001b[0m\\u0007\""},
	    {"del\x7f", "\"del\\u007f\""},
	    {"gr\xc3\xbc\xc3\x9f"
	     "e",
	     "\"gr\xc3\xbc\xc3\x9f"
	     "e\""},
	    {"\xf0\x9f\x93\xa7", "\"\xf0\x9f\x93\xa7\""},
	    {"\xff\xfe", "\"\\u00ff\\u00fe\""},			      /* never UTF-8 */
	    {"\xc3", "\"\\u00c3\""},				      /* cut short */
	    {"\xc3(", "\"\\u00c3(\""},				      /* no continuation */
	    {"\xc0\x8a", "\"\\u00c0\\u008a\""},			      /* LF in two octets: overlong */
	    {"\xe0\x80\x8a", "\"\\u00e0\\u0080\\u008a\""},	      /* in three */
	    {"\xf0\x80\x80\x8a", "\"\\u00f0\\u0080\\u0080\\u008a\""}, /* in four */
	    {"\xed\xa0\x80", "\"\\u00ed\\u00a0\\u0080\""},	      /* a surrogate */
	    {"\xf4\x90\x80\x80", "\"\\u00f4\\u0090\\u0080\\u0080\""}, /* past U+10FFFF */
	    {"\xc2\x9b"
	     "31m",
	     "\"\\u00c2\\u009b31m\""},			   /* CSI of C1 */
	    {"\xc2\x85", "\"\\u00c2\\u0085\""},		   /* NEL */
	    {"\xe2\x80\xa8", "\"\\u00e2\\u0080\\u00a8\""}, /* line separator */
	    {"\xe2\x80\xae"
	     "cod.exe",
	     "\"\\u00e2\\u0080\\u00aecod.exe\""},	   /* right-to-left override */
	    {"\xe2\x81\xa6", "\"\\u00e2\\u0081\\u00a6\""}, /* isolate */
	    {"\xe2\x80\x8b", "\"\\u00e2\\u0080\\u008b\""}, /* zero width */
	};
	struct fixture f;
	char wanted[300];
	(void)state;

	start(&f, LOG_TEXT);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		log_event(f.log, LOG_INFO, "e", LOG_STR("v", cases[i].value));
		snprintf(wanted, sizeof(wanted), "time=" TIME " level=info event=e v=%s\n", cases[i].wanted);
		assert_line(&f, wanted);
	}
	log_event(f.log, LOG_INFO, "e", LOG_TEXT_OF("v", slice_of("a\0b", 3)));
	assert_line(&f, "time=" TIME " level=info event=e v=\"a\\u0000b\"\n");
	stop(&f);
}

/* RFC 8259, as strictly as a log reader may take it: one object of strings and integers. NULL: not that. */
static const char *json_string(const char *at, const char *end)
{
	if (at == end || *at++ != '"')
		return NULL;
	while (at < end && *at != '"') {
		if ((unsigned char)*at < ' ')
			return NULL;
		if (*at++ != '\\')
			continue;
		if (at < end && *at == 'u') {
			for (int i = 1; i <= 4; i++)
				if (end - at <= i || !memchr("0123456789abcdefABCDEF", at[i], 22))
					return NULL;
			at += 5;
		} else if (at == end || !memchr("\"\\/bfnrt", *at++, 8)) {
			return NULL;
		}
	}
	return at < end ? at + 1 : NULL;
}

static const char *json_integer(const char *at, const char *end)
{
	const char *begin = at += at < end && *at == '-';

	while (at < end && *at >= '0' && *at <= '9')
		at++;
	return at > begin && (*begin != '0' || at == begin + 1) ? at : NULL;
}

static const char *json_member(const char *at, const char *end)
{
	at = json_string(at, end);
	if (!at || at == end || *at++ != ':' || at == end)
		return NULL;
	return *at == '"' ? json_string(at, end) : json_integer(at, end);
}

static bool is_json_line(struct slice line)
{
	const char *at = line.ptr, *end = line.ptr + line.len;
	char before = '{';

	while (at < end && *at == before) {
		at = json_member(at + 1, end);
		if (!at)
			return false;
		before = ',';
	}
	return before == ',' && end - at == 2 && at[0] == '}' && at[1] == '\n';
}

static void the_judge_of_json_knows_what_is_none(void **state)
{
	(void)state;
	assert_true(is_json_line(SLICE("{\"a\":\"\\u00e4\\n\",\"b\":-10}\n")));
	assert_false(is_json_line(SLICE("{}\n")));
	assert_false(is_json_line(SLICE("{\"a\":1,}\n")));
	assert_false(is_json_line(SLICE("{\"a\":01}\n")));
	assert_false(is_json_line(SLICE("{\"a\":\"\\x\"}\n")));
	assert_false(is_json_line(SLICE("{\"a\":\"\\u12\"}\n")));
	assert_false(is_json_line(SLICE("{\"a\":\"\n\"}\n")));
	assert_false(is_json_line(SLICE("{\"a\":\"b}\n")));
	assert_false(is_json_line(SLICE("{\"a\":1}{\"a\":1}\n")));
	assert_false(is_json_line(SLICE("{\"a\":1}")));
}

static bool is_utf8(struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.ptr[i];
		size_t more = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
		if (c >= 0x80 && (c < 0xc2 || c > 0xf4))
			return false;
		for (; more > 0; more--)
			if (++i >= text.len || (text.ptr[i] & 0xc0) != 0x80)
				return false;
	}
	return true;
}

static size_t count_of(struct slice text, char octet)
{
	size_t count = 0;

	for (size_t i = 0; i < text.len; i++)
		count += text.ptr[i] == octet;
	return count;
}

/* A reader of the log in a terminal sees what stands there, in the order in which it stands. */
static void what_hides_or_turns_text_round_is_escaped(void **state)
{
	static const char *const tricks[] = {"\u202e", "\u2066", "\u061c", "\u200b",	"\u2060",
					     "\u206f", "\ufeff", "\u180e", "\U000e0041"};
	struct fixture f;
	struct slice good;
	(void)state;

	start(&f, LOG_TEXT);
	for (size_t i = 0; i < ARRAY_LEN(tricks); i++) {
		struct slice line;

		log_event(f.log, LOG_INFO, "e", LOG_STR("text", tricks[i]));
		line = lines(&f);
		assert_null(memmem(line.ptr, line.len, tricks[i], strlen(tricks[i])));
	}
	log_event(f.log, LOG_INFO, "e", LOG_STR("text", "\u00e9\u05d0\U0001f600"));
	good = lines(&f);
	assert_non_null(memmem(good.ptr, good.len, "\u00e9\u05d0\U0001f600", 8));
	stop(&f);
}

/* Random octets, half of them from those that do harm: one line each, valid JSON, valid UTF-8, no control octet. */
static void no_value_breaks_the_line(void **state)
{
	static const char evil[] = "\r\n\x1b\"\\{}=,:\t\xc2\x9b\xe2\x80\xa8\xf0\xff\xc0\x7f";
	struct rng_seeded random;
	struct fixture f;
	(void)state;

	rng_seeded_init(&random, 5);
	start(&f, LOG_JSON);
	for (int round = 0; round < 20000; round++) {
		struct log_options options = {.format = round % 2 ? LOG_JSON : LOG_TEXT, .level = LOG_INFO};
		char value[24];
		size_t len = rng_below(&random.rng, sizeof(value));
		struct slice line;
		for (size_t i = 0; i < len; i++)
			value[i] = rng_below(&random.rng, 2) ? evil[rng_below(&random.rng, sizeof(evil))]
							     : (char)rng_below(&random.rng, 256);
		log_configure(f.log, &options);
		log_event(f.log, LOG_INFO, "e", LOG_TEXT_OF("text", slice_of(value, len)),
			  LOG_ADDR("rcpt", slice_of(value, len)), LOG_INT("n", round - 10000));
		line = lines(&f);
		assert_int_equal(count_of(line, '\n'), 1);
		assert_true(is_utf8(line));
		for (size_t i = 0; i + 1 < line.len; i++)
			assert_true((unsigned char)line.ptr[i] >= ' ' && line.ptr[i] != 0x7f);
		if (options.format == LOG_JSON)
			assert_true(is_json_line(line));
	}
	stop(&f);
}

static void long_values_are_cut_and_lines_bounded(void **state)
{
	static char large[5000];
	struct log_field fields[101];
	struct fixture f;
	struct slice line;
	(void)state;

	start(&f, LOG_JSON);
	memset(large, 'x', sizeof(large));
	log_event(f.log, LOG_INFO, "e", LOG_TEXT_OF("v", slice_of(large, sizeof(large))));
	line = lines(&f);
	assert_int_equal(count_of(line, 'x'), 1000);
	assert_true(is_json_line(line));
	memset(large, 1, sizeof(large));
	for (int i = 0; i < 100; i++)
		fields[i] = LOG_TEXT_OF("v", slice_of(large, sizeof(large)));
	fields[100] = (struct log_field){0};
	log_write(f.log, LOG_INFO, "e", fields);
	line = lines(&f);
	assert_true(line.len < 32 * 1024);
	assert_true(is_json_line(line));
	stop(&f);
}

static void addresses_can_be_hidden(void **state)
{
	struct log_options options = {.level = LOG_INFO, .addresses = LOG_ADDRESSES_DOMAIN};
	struct fixture f;
	struct slice line;
	char first[200];
	(void)state;

	start(&f, LOG_TEXT);
	log_configure(f.log, &options);
	log_event(f.log, LOG_INFO, "e", LOG_ADDR("rcpt", SLICE("\"odd@local\"@example.com")),
		  LOG_ADDR("from", SLICE("")));
	assert_line(&f, "time=" TIME " level=info event=e rcpt=@example.com from=<>\n");
	log_event(f.log, LOG_INFO, "e", LOG_ADDR("rcpt", SLICE("root")));
	assert_int_equal(count_of(lines(&f), 'r'), 1); /* of "rcpt": a name without domain is hidden whole */
	options.addresses = LOG_ADDRESSES_HASH;
	log_configure(f.log, &options);
	log_event(f.log, LOG_INFO, "e", LOG_ADDR("rcpt", SLICE("jane@example.com")));
	line = lines(&f);
	slice_to_cstr(line, first, sizeof(first));
	assert_null(strstr(first, "jane"));
	assert_null(strstr(first, "example"));
	log_event(f.log, LOG_INFO, "e", LOG_ADDR("rcpt", SLICE("jane@example.com")));
	assert_line(&f, first); /* the same address can be followed */
	log_event(f.log, LOG_INFO, "e", LOG_ADDR("rcpt", SLICE("june@example.com")));
	assert_false(slice_eq(lines(&f), slice_of_str(first)));
	stop(&f);
}

/* The target takes nothing: memory stays bounded, what is lost is counted, and told when the target takes lines again.
 */
static void a_blocked_target_costs_lines_and_says_so(void **state)
{
	struct fixture f;
	struct slice all;
	uint64_t written = 0, dropped;
	char wanted[200];
	(void)state;

	start(&f, LOG_TEXT);
	f.room = 0;
	for (; log_dropped_count(f.log) < 50; written++) {
		log_event(f.log, LOG_INFO, "e", LOG_STR("v", "some words that make the line longer than it need be"));
		log_flush(f.log);
		assert_true(written < 100000);
	}
	dropped = log_dropped_count(f.log);
	assert_int_equal(buf_len(&f.taken), 0);
	f.room = 100; /* a little: nothing is told yet, for the line would only be lost */
	log_flush(f.log);
	f.room = SIZE_MAX;
	log_flush(f.log);
	all = buf_slice(&f.taken);
	assert_true(all.len <= 1 << 20);
	assert_int_equal(count_of(all, '\n'), written - dropped);
	buf_clear(&f.taken);
	snprintf(wanted, sizeof(wanted), "time=" TIME " level=warn event=log_lines_dropped count=%d\n", (int)dropped);
	assert_line(&f, wanted);
	log_flush(f.log);
	assert_int_equal(buf_len(&f.taken), 0); /* told once */
	assert_int_equal(log_dropped_count(f.log), dropped);
	log_event(f.log, LOG_INFO, "after");
	assert_line(&f, "time=" TIME " level=info event=after\n");
	stop(&f);
}

static void losses_are_told_at_the_end_and_at_any_level(void **state)
{
	struct log_options options = {.level = LOG_ERROR};
	struct fixture f;
	char *text;
	(void)state;

	start(&f, LOG_TEXT);
	log_configure(f.log, &options);
	f.room = 0;
	while (log_dropped_count(f.log) < 3)
		log_event(f.log, LOG_ERROR, "e");
	f.room = SIZE_MAX;
	log_free(&f.log);
	text = xmemdup(buf_slice(&f.taken).ptr, buf_len(&f.taken));
	assert_non_null(strstr(text, "event=log_lines_dropped count=3\n"));
	free(text);
	stop(&f);
}

static void lines_are_written_whole_in_order_to_a_slow_target(void **state)
{
	struct fixture f;
	struct buf wanted;
	(void)state;

	start(&f, LOG_TEXT);
	buf_init(&wanted, 1 << 20);
	for (int i = 0; i < 500; i++) {
		f.room = 7;
		log_event(f.log, LOG_INFO, "e", LOG_INT("n", i));
		buf_printf(&wanted, "time=" TIME " level=info event=e n=%d\n", i);
		log_flush(f.log);
	}
	f.room = SIZE_MAX;
	log_flush(f.log);
	assert_true(slice_eq(buf_slice(&f.taken), buf_slice(&wanted)));
	buf_fini(&wanted);
	stop(&f);
}

/* A full pipe whose reader sleeps: the sink returns, and goes on where it stopped. */
static void the_sink_of_a_descriptor_never_blocks(void **state)
{
	static char block[200000], back[200000];
	int ends[2];
	size_t first, second;
	(void)state;

	assert_int_equal(pipe(ends), 0);
	memset(block, 'p', sizeof(block));
	first = log_sink_fd((void *)(intptr_t)ends[1], slice_of(block, sizeof(block)));
	assert_in_range(first, 1, sizeof(block) - 1);
	assert_int_equal(log_sink_fd((void *)(intptr_t)ends[1], slice_of(block, sizeof(block))), 0);
	assert_int_equal(read(ends[0], back, 8192), 8192);
	second = log_sink_fd((void *)(intptr_t)ends[1], slice_of(block, sizeof(block)));
	assert_in_range(second, 1, 8192);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(log_sink_fd((void *)(intptr_t)-1, SLICE("x")), 0);
}

/* ---- repeats ---- */

static void start_with_repeats(struct fixture *f, enum log_format format)
{
	struct log_options options = {.format = format, .level = LOG_INFO, .repeat_burst = 2};

	start(f, format);
	log_configure(f->log, &options);
}

static void say_failed(struct fixture *f, const char *client, int us)
{
	log_event(f->log, LOG_WARN, "auth_failed", LOG_STR("user", "app"), LOG_STR("client", client),
		  LOG_INT("us", us));
}

/* Numbers and the port don't make another line of it. */
static void repeats_are_counted_and_told(void **state)
{
	struct fixture f;
	(void)state;

	start_with_repeats(&f, LOG_TEXT);
	say_failed(&f, "[192.0.2.1]:1", 1);
	say_failed(&f, "[192.0.2.1]:2", 2);
	assert_int_equal(count_of(lines(&f), '\n'), 2);
	for (int i = 3; i < 100; i++)
		say_failed(&f, "[192.0.2.1]:3", i);
	log_event(f.log, LOG_INFO, "other");
	assert_line(&f, "time=" TIME " level=info event=other\n");
	say_failed(&f, "[192.0.2.2]:3", 1);
	assert_int_equal(count_of(lines(&f), '\n'), 1);
	clock_virtual_advance(&f.clock, 60 * 1000);
	assert_line(&f, "time=2023-11-14T22:14:20.123Z level=warn event=auth_failed user=app client=[192.0.2.1]:3 us=3 "
			"repeated=97\n");
	assert_line(&f, "");
	say_failed(&f, "[192.0.2.1]:4", 1); /* a new window */
	assert_int_equal(count_of(lines(&f), '\n'), 1);
	stop(&f);
}

static void other_codes_are_other_lines(void **state)
{
	struct fixture f;
	(void)state;

	start_with_repeats(&f, LOG_JSON);
	for (int i = 0; i < 10; i++)
		log_event(f.log, LOG_INFO, "rejected", LOG_INT("code", 550 + i % 2));
	assert_int_equal(count_of(lines(&f), '\n'), 4);
	stop(&f);
}

static void lines_about_a_message_are_all_written(void **state)
{
	struct fixture f;
	(void)state;

	start_with_repeats(&f, LOG_TEXT);
	for (int i = 0; i < 50; i++)
		log_event(f.log, LOG_INFO, "deferred", LOG_ID(7));
	assert_int_equal(count_of(lines(&f), '\n'), 50);
	stop(&f);
}

/* However many clients there are, the log grows by a bounded number of lines, and every one is counted somewhere. */
static void a_crowd_is_bounded(void **state)
{
	struct fixture f;
	char client[32], *text, *at;
	size_t written = 0, told = 0;
	(void)state;

	start_with_repeats(&f, LOG_JSON);
	for (int i = 0; i < 20000; i++) {
		snprintf(client, sizeof(client), "[10.0.%d.%d]:25", i / 250 % 250, i % 250);
		say_failed(&f, client, i);
		written += count_of(lines(&f), '\n');
	}
	assert_in_range(written, 256, 2 * (256 + 1));
	log_free(&f.log);
	text = xmalloc(buf_len(&f.taken) + 1);
	slice_to_cstr(buf_slice(&f.taken), text, buf_len(&f.taken) + 1);
	for (at = text; (at = strstr(at, "\"repeated\":")); at++)
		told += strtoul(at + strlen("\"repeated\":"), NULL, 10);
	assert_int_equal(written + told, 20000);
	for (struct slice rest = slice_of_str(text); rest.len;) {
		size_t len = (size_t)slice_find(rest, '\n') + 1;
		assert_true(is_json_line(slice_to(rest, len)));
		rest = slice_from(rest, len);
	}
	free(text);
	buf_fini(&f.taken);
}

static void what_is_kept_is_told_before_the_format_changes(void **state)
{
	struct log_options json = {.format = LOG_JSON, .level = LOG_INFO, .repeat_burst = 2};
	struct fixture f;
	(void)state;

	start_with_repeats(&f, LOG_TEXT);
	for (int i = 0; i < 5; i++)
		log_event(f.log, LOG_INFO, "e", LOG_STR("v", "a b"));
	lines(&f);
	log_configure(f.log, &json);
	assert_line(&f, "time=" TIME " level=info event=e v=\"a b\" repeated=3\n");
	stop(&f);
}

/* Other servers' words name addresses too. */
static void addresses_are_hidden_inside_of_texts(void **state)
{
	struct log_options options = {.level = LOG_INFO, .addresses = LOG_ADDRESSES_DOMAIN};
	struct fixture f;
	struct slice line;
	char text[300];
	(void)state;

	start(&f, LOG_TEXT);
	log_configure(f.log, &options);
	log_event(f.log, LOG_INFO, "e", LOG_STR("user", "app@example.org"),
		  LOG_STR("text",
			  "550 <jane.doe+x@example.net> and \"a b\"@example.com, j\xc3\xb6rg@m.example: no such user"));
	assert_line(&f, "time=" TIME " level=info event=e user=app@example.org text=\"550 <@example.net> and "
			"@example.com, @m.example: no such user\"\n");
	options.addresses = LOG_ADDRESSES_HASH;
	log_configure(f.log, &options);
	log_event(f.log, LOG_INFO, "e", LOG_STR("text", "<jane@example.net>"),
		  LOG_ADDR("rcpt", SLICE("jane@example.net")));
	line = lines(&f);
	slice_to_cstr(line, text, sizeof(text));
	assert_null(strstr(text, "jane"));
	assert_null(strstr(text, "example"));
	/* The same hash: it can be followed. */
	assert_memory_equal(strstr(text, "text=<") + 6, strstr(text, "rcpt=") + 5, 16);
	stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_line_as_text),
	    cmocka_unit_test(a_line_as_json),
	    cmocka_unit_test(the_time_moves_on),
	    cmocka_unit_test(levels_and_the_prefix_of_journald),
	    cmocka_unit_test(values_are_quoted_where_needed),
	    cmocka_unit_test(the_judge_of_json_knows_what_is_none),
	    cmocka_unit_test(what_hides_or_turns_text_round_is_escaped),
	    cmocka_unit_test(no_value_breaks_the_line),
	    cmocka_unit_test(long_values_are_cut_and_lines_bounded),
	    cmocka_unit_test(addresses_can_be_hidden),
	    cmocka_unit_test(a_blocked_target_costs_lines_and_says_so),
	    cmocka_unit_test(losses_are_told_at_the_end_and_at_any_level),
	    cmocka_unit_test(lines_are_written_whole_in_order_to_a_slow_target),
	    cmocka_unit_test(the_sink_of_a_descriptor_never_blocks),
	    cmocka_unit_test(repeats_are_counted_and_told),
	    cmocka_unit_test(other_codes_are_other_lines),
	    cmocka_unit_test(lines_about_a_message_are_all_written),
	    cmocka_unit_test(a_crowd_is_bounded),
	    cmocka_unit_test(what_is_kept_is_told_before_the_format_changes),
	    cmocka_unit_test(addresses_are_hidden_inside_of_texts),
	};
	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
