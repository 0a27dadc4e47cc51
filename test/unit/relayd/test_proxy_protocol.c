/* PROXY headers, whole and cut at every octet; and what must not pass for one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/buf.h"
#include "relayd/proxy_protocol.h"

#define V2 "\r\n\r\n\0\r\nQUIT\n"

struct row {
	struct slice header;
	bool names_client;
	const char *client;
	uint16_t port;
};

static const struct row good[] = {
    {SLICE("PROXY TCP4 192.0.2.1 198.51.100.1 56324 587\r\n"), true, "192.0.2.1", 56324},
    {SLICE("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), true, "255.255.255.255", 65535},
    {SLICE("PROXY TCP6 2001:db8::1 2001:db8::2 1 587\r\n"), true, "2001:db8::1", 1},
    {SLICE("PROXY UNKNOWN\r\n"), false, NULL, 0},
    {SLICE("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"), false, NULL, 0},
    {SLICE(V2 "\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x02\x4b"), true, "192.0.2.1", 56324},
    {SLICE(V2 "\x21\x11\0\x13\xc0\0\x02\x07\xc6\x33\x64\x01\x10\x01\x02\x4b\x04\0\x04nope"), true, "192.0.2.7", 4097},
    {SLICE(V2 "\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"
	      "\0\x19\x02\x4b"),
     true, "2001:db8::1", 25},
    {SLICE(V2 "\x20\0\0\0"), false, NULL, 0},
    {SLICE(V2 "\x20\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x02\x4b"), false, NULL, 0},
    {SLICE(V2 "\x21\0\0\x03\x04\0\0"), false, NULL, 0},
    {SLICE(V2 "\x21\x12\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x02\x4b"), false, NULL, 0},
};

static void assert_header(const struct row *row, const struct proxy_header *header)
{
	char text[DNS_ADDRESS_TEXT];

	assert_int_equal(header->names_client, row->names_client);
	if (!row->names_client)
		return;
	dns_address_format(&header->client, text);
	assert_string_equal(text, row->client);
	assert_int_equal(header->port, row->port);
}

static void headers_name_their_client_and_nothing_behind_them_is_taken(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct proxy_reader reader;
		struct proxy_header header;
		struct buf bytes;
		struct err err;
		size_t taken;
		buf_init(&bytes, 8192);
		buf_append(&bytes, good[i].header);
		buf_append(&bytes, SLICE("EHLO app\r\n\n"));
		proxy_reader_init(&reader);
		assert_int_equal(proxy_reader_input(&reader, buf_slice(&bytes), &taken, &header, &err), 1);
		assert_int_equal(taken, good[i].header.len);
		assert_header(&good[i], &header);
		buf_fini(&bytes);
	}
}

static void headers_may_be_cut_anywhere(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct slice whole = good[i].header;
		for (size_t cut = 0; cut <= whole.len; cut++) {
			struct proxy_reader reader;
			struct proxy_header header;
			struct err err;
			size_t taken;
			int rc;
			proxy_reader_init(&reader);
			rc = proxy_reader_input(&reader, slice_to(whole, cut), &taken, &header, &err);
			assert_int_equal(rc, cut == whole.len);
			assert_int_equal(taken, cut);
			if (rc == 0)
				rc = proxy_reader_input(&reader, slice_from(whole, cut), &taken, &header, &err);
			assert_int_equal(rc, 1);
			assert_header(&good[i], &header);
		}
	}
}

static void headers_may_come_octet_by_octet(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct proxy_reader reader;
		struct proxy_header header;
		struct err err;
		size_t taken;
		int rc = 0;
		proxy_reader_init(&reader);
		for (size_t at = 0; at < good[i].header.len; at++) {
			assert_int_equal(rc, 0);
			rc = proxy_reader_input(&reader, slice_to(slice_from(good[i].header, at), 1), &taken, &header,
						&err);
			assert_int_equal(taken, 1);
		}
		assert_int_equal(rc, 1);
		assert_header(&good[i], &header);
	}
}

static void what_is_no_header_is_refused(void **state)
{
	static const struct slice bad[] = {
	    SLICE("EHLO app\r\n"),
	    SLICE("\x16\x03\x01\x02\0"),
	    SLICE("PROXX TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
	    SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n"),
	    SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n"),
	    SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n"),
	    SLICE("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n"),
	    SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n"),
	    SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n"),
	    SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n"),
	    SLICE("PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n"),
	    SLICE("PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n"),
	    SLICE("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n"),
	    SLICE("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n"),
	    SLICE("PROXY TCP6 fe80::1%lo ::1 1 2\r\n"),
	    SLICE("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n"),
	    SLICE("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n"),
	    SLICE("PROXY\r\n"),
	    SLICE("PROXY \r\n"),
	    SLICE("PROXY TCP4 192.0.2.1\0.1 192.0.2.2 1 2\r\n"),
	    SLICE("\r\n\r\n\0\r\nQUIX\n\x21\x11\0\x0c"),
	    SLICE(V2 "\x11\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x02\x4b"),
	    SLICE(V2 "\x22\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x02\x4b"),
	    SLICE(V2 "\x21\x11\0\x0b\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x02"),
	    SLICE(V2 "\x21\x21\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x02\x4b"),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct proxy_reader reader;
		struct proxy_header header;
		struct err err = {0};
		size_t taken;
		proxy_reader_init(&reader);
		assert_int_equal(proxy_reader_input(&reader, bad[i], &taken, &header, &err), ERR_SYNTAX);
		assert_true(err.text[0]);
	}
}

static void a_line_without_end_and_a_length_beyond_the_limit_are_refused(void **state)
{
	struct proxy_reader reader;
	struct proxy_header header;
	struct buf bytes;
	struct err err;
	size_t taken;

	(void)state;
	buf_init(&bytes, 1024 * 1024);
	buf_append_str(&bytes, "PROXY UNKNOWN ");
	while (buf_len(&bytes) < 100000)
		buf_append_byte(&bytes, 'x');
	proxy_reader_init(&reader);
	assert_int_equal(proxy_reader_input(&reader, buf_slice(&bytes), &taken, &header, &err), ERR_LIMIT);
	buf_clear(&bytes);
	buf_append(&bytes, SLICE(V2 "\x21\x11\xff\xff"));
	proxy_reader_init(&reader);
	assert_int_equal(proxy_reader_input(&reader, buf_slice(&bytes), &taken, &header, &err), ERR_LIMIT);
	buf_fini(&bytes);
}

static void the_longest_line_and_the_longest_header_pass(void **state)
{
	static const char line[] = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
				   "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
	struct proxy_reader reader;
	struct proxy_header header;
	struct buf bytes;
	struct err err;
	size_t taken;

	(void)state;
	assert_int_equal(sizeof(line) - 1, PROXY_V1_MAX_BYTES);
	proxy_reader_init(&reader);
	assert_int_equal(proxy_reader_input(&reader, slice_of_str(line), &taken, &header, &err), 1);
	buf_init(&bytes, 8192);
	buf_append(&bytes, SLICE(V2 "\x21\x11\x0f\xf0\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x02\x4b"));
	while (buf_len(&bytes) < PROXY_HEADER_MAX_BYTES)
		buf_append_byte(&bytes, 'T');
	proxy_reader_init(&reader);
	assert_int_equal(proxy_reader_input(&reader, buf_slice(&bytes), &taken, &header, &err), 1);
	assert_int_equal(taken, PROXY_HEADER_MAX_BYTES);
	buf_fini(&bytes);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(headers_name_their_client_and_nothing_behind_them_is_taken),
	    cmocka_unit_test(headers_may_be_cut_anywhere),
	    cmocka_unit_test(headers_may_come_octet_by_octet),
	    cmocka_unit_test(what_is_no_header_is_refused),
	    cmocka_unit_test(a_line_without_end_and_a_length_beyond_the_limit_are_refused),
	    cmocka_unit_test(the_longest_line_and_the_longest_header_pass),
	};

	return cmocka_run_group_tests_name("proxy_protocol", tests, NULL, NULL);
}
