/* Answers as packets: good ones of each type, negative ones, and hostile ones. */
#include "support_dns.h"

#include <stdio.h>
#include <stdlib.h>

static struct packet p;
static struct dns_answer *answer;

/* An exact copy on the heap, so that a sanitizer sees each read past the end. */
static struct dns_answer *parse_as(const char *name, uint16_t type)
{
	void *copy = malloc(p.len ? p.len : 1);

	dns_answer_unref((const struct dns_answer **)&answer);
	memcpy(copy, p.bytes, p.len);
	answer = dns_message_parse(slice_of(copy, p.len), name, type);
	free(copy);
	return answer;
}

static int teardown(void **state)
{
	(void)state;
	dns_answer_unref((const struct dns_answer **)&answer);
	return 0;
}

static void begin(uint16_t type)
{
	packet_begin(&p, 7, QR | RD | RA, "example.org", type);
}

static void expect_temporary(const char *words)
{
	assert_int_equal(answer->status, DNS_TEMPORARY);
	if (!strstr(answer->reason, words))
		fail_msg("'%s' lacks '%s'", answer->reason, words);
	assert_false(answer->ad);
	assert_int_equal(answer->record_count, 0);
	assert_string_equal(answer->canonical, answer->name);
}

static void mx_records_have_preference_host_and_ttl(void **state)
{
	(void)state;
	begin(DNS_MX);
	packet_add(&p, ANSWER, "Example.ORG", DNS_MX, 300, rdata_mx(10, "MX1.Example.org"));
	packet_add(&p, ANSWER, "example.org", DNS_MX, 200, rdata_mx(65535, "_dc-mx.example.net"));
	parse_as("example.org", DNS_MX);
	assert_int_equal(answer->status, DNS_OK);
	assert_int_equal(answer->record_count, 2);
	assert_int_equal(answer->records[0].mx.preference, 10);
	assert_string_equal(answer->records[0].mx.host, "mx1.example.org");
	assert_int_equal(answer->records[1].mx.preference, 65535);
	assert_string_equal(answer->records[1].mx.host, "_dc-mx.example.net");
	assert_int_equal(answer->ttl_sec, 200);
	assert_int_equal(answer->records[0].ttl_sec, 300);
	assert_string_equal(answer->reason, "");
	assert_false(answer->ad);
}

static void null_mx_has_an_empty_host(void **state)
{
	(void)state;
	begin(DNS_MX);
	packet_add(&p, ANSWER, "example.org", DNS_MX, 300, rdata_mx(0, "."));
	parse_as("example.org", DNS_MX);
	assert_int_equal(answer->status, DNS_OK);
	assert_string_equal(answer->records[0].mx.host, "");
}

static void addresses_and_the_ad_bit(void **state)
{
	struct dns_address expected;

	(void)state;
	packet_begin(&p, 7, QR | RD | RA | AD, "example.org", DNS_AAAA);
	packet_add(&p, ANSWER, "example.org", DNS_AAAA, 300, rdata_address("2001:db8::1"));
	parse_as("example.org", DNS_AAAA);
	dns_address_parse(SLICE("2001:db8::1"), &expected);
	assert_true(dns_address_eq(&answer->records[0].address, &expected));
	assert_true(answer->ad);

	begin(DNS_A);
	packet_add(&p, ANSWER, "example.org", DNS_A, 300, rdata_address("192.0.2.1"));
	parse_as("example.org", DNS_A);
	assert_int_equal(answer->records[0].address.family, DNS_IPV4);
	assert_false(answer->ad);
}

static void strings_of_a_txt_record_are_joined(void **state)
{
	(void)state;
	begin(DNS_TXT);
	packet_add(&p, ANSWER, "example.org", DNS_TXT, 300, rdata_raw("\5v=abc\0\3d\0f", 11));
	packet_add(&p, ANSWER, "example.org", DNS_TXT, 300, rdata_raw("\0", 1));
	parse_as("example.org", DNS_TXT);
	assert_int_equal(answer->record_count, 2);
	assert_true(slice_eq(answer->records[0].text, slice_of("v=abcd\0f", 8)));
	assert_int_equal(answer->records[1].text.len, 0);
}

static void tlsa_cname_and_ptr_records(void **state)
{
	(void)state;
	begin(DNS_TLSA);
	packet_add(&p, ANSWER, "example.org", DNS_TLSA, 300, rdata_raw("\3\1\1\xaa\xbb", 5));
	parse_as("example.org", DNS_TLSA);
	assert_int_equal(answer->records[0].tlsa.usage, 3);
	assert_int_equal(answer->records[0].tlsa.selector, 1);
	assert_int_equal(answer->records[0].tlsa.matching, 1);
	assert_true(slice_eq(answer->records[0].tlsa.data, SLICE("\xaa\xbb")));
	assert_true(slice_eq(answer->records[0].tlsa.rdata, SLICE("\3\1\1\xaa\xbb")));

	begin(DNS_CNAME);
	packet_add(&p, ANSWER, "example.org", DNS_CNAME, 300, rdata_name("other.example"));
	parse_as("example.org", DNS_CNAME);
	assert_int_equal(answer->record_count, 1);
	assert_string_equal(answer->records[0].name, "other.example");
	assert_string_equal(answer->canonical, "example.org");

	begin(DNS_PTR);
	packet_add(&p, ANSWER, "example.org", DNS_PTR, 300, rdata_name("host.example"));
	parse_as("example.org", DNS_PTR);
	assert_string_equal(answer->records[0].name, "host.example");
}

static void aliases_are_followed_in_any_order(void **state)
{
	(void)state;
	begin(DNS_A);
	packet_add(&p, ANSWER, "c.example", DNS_A, 300, rdata_address("192.0.2.1"));
	packet_add(&p, ANSWER, "b.example", DNS_CNAME, 50, rdata_name("c.example"));
	packet_add(&p, ANSWER, "example.org", DNS_CNAME, 100, rdata_name("B.example"));
	packet_add(&p, ANSWER, "stray.example", DNS_A, 1, rdata_address("192.0.2.99"));
	parse_as("example.org", DNS_A);
	assert_int_equal(answer->status, DNS_OK);
	assert_int_equal(answer->record_count, 1);
	assert_int_equal(answer->records[0].address.bytes[3], 1);
	assert_string_equal(answer->name, "example.org");
	assert_string_equal(answer->canonical, "c.example");
	assert_int_equal(answer->ttl_sec, 50);
}

/* H4 */
static void alias_loops_and_long_chains_end(void **state)
{
	char from[32], to[32];

	(void)state;
	begin(DNS_A);
	packet_add(&p, ANSWER, "example.org", DNS_CNAME, 1, rdata_name("example.org"));
	parse_as("example.org", DNS_A);
	expect_temporary("circles");

	begin(DNS_A);
	packet_add(&p, ANSWER, "example.org", DNS_CNAME, 1, rdata_name("b.example"));
	packet_add(&p, ANSWER, "b.example", DNS_CNAME, 1, rdata_name("example.org"));
	parse_as("example.org", DNS_A);
	expect_temporary("circles");

	for (int chain = DNS_CNAME_MAX; chain <= 100; chain += 100 - DNS_CNAME_MAX) {
		begin(DNS_A);
		snprintf(from, sizeof(from), "example.org");
		for (int i = 0; i < chain; i++) {
			snprintf(to, sizeof(to), "n%d.example", i);
			packet_add(&p, ANSWER, from, DNS_CNAME, 60, rdata_name(to));
			memcpy(from, to, sizeof(from));
		}
		packet_add(&p, ANSWER, from, DNS_A, 60, rdata_address("192.0.2.1"));
		parse_as("example.org", DNS_A);
		if (chain == DNS_CNAME_MAX)
			assert_int_equal(answer->status, DNS_OK);
		else
			expect_temporary("too many aliases");
	}
}

static void an_alias_without_its_target_asks_for_more(void **state)
{
	(void)state;
	begin(DNS_A);
	packet_add(&p, ANSWER, "example.org", DNS_CNAME, 60, rdata_name("c.example"));
	parse_as("example.org", DNS_A);
	assert_int_equal(answer->status, DNS_OK);
	assert_int_equal(answer->record_count, 0);
	assert_string_equal(answer->canonical, "c.example");

	/* With an SOA it says that the target has nothing. */
	packet_add(&p, AUTHORITY, "example", DNS_SOA, 60, rdata_soa(60));
	parse_as("example.org", DNS_A);
	assert_int_equal(answer->status, DNS_NODATA);
}

static void negative_answers_take_their_ttl_from_the_soa(void **state)
{
	static const struct {
		uint32_t ttl, minimum, expected;
	} cases[] = {{600, 120, 120}, {60, 120, 60}, {0x80000000u, 60, 0}, {60, 0xffffffffu, 0}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		packet_begin(&p, 7, QR | RD | RA | NXDOMAIN | AD, "example.org", DNS_MX);
		packet_add(&p, AUTHORITY, "org", DNS_SOA, cases[i].ttl, rdata_soa(cases[i].minimum));
		parse_as("example.org", DNS_MX);
		assert_int_equal(answer->status, DNS_NXDOMAIN);
		assert_int_equal(answer->ttl_sec, cases[i].expected);
		assert_true(answer->ad);
		assert_string_equal(answer->reason, "no such name");
	}
	begin(DNS_MX);
	parse_as("example.org", DNS_MX);
	assert_int_equal(answer->status, DNS_NODATA);
	assert_int_equal(answer->ttl_sec, 0);
	/* An alias to a name that does not exist. */
	packet_begin(&p, 7, QR | RD | RA | NXDOMAIN, "example.org", DNS_A);
	packet_add(&p, ANSWER, "example.org", DNS_CNAME, 60, rdata_name("c.example"));
	packet_add(&p, AUTHORITY, "example", DNS_SOA, 60, rdata_soa(60));
	parse_as("example.org", DNS_A);
	assert_int_equal(answer->status, DNS_NXDOMAIN);
	assert_string_equal(answer->canonical, "c.example");
}

/* A server that is no resolver, or an error hidden in the OPT record, must never look like "has no MX". */
static void what_only_looks_negative_is_temporary(void **state)
{
	struct rdata empty = {0};

	(void)state;
	packet_begin(&p, 7, QR | RD, "example.org", DNS_MX);
	packet_add(&p, AUTHORITY, "org", 2, 600, rdata_name("ns.example"));
	parse_as("example.org", DNS_MX);
	expect_temporary("no resolver");
	/* An authoritative server may answer for its own zone. */
	packet_begin(&p, 7, QR | RD | AA, "example.org", DNS_MX);
	parse_as("example.org", DNS_MX);
	assert_int_equal(answer->status, DNS_NODATA);

	begin(DNS_MX);
	packet_add(&p, ADDITIONAL, ".", 41, 1u << 24, empty); /* BADVERS */
	parse_as("example.org", DNS_MX);
	expect_temporary("extended error");
	begin(DNS_MX);
	packet_add(&p, ADDITIONAL, ".", 41, 0, empty);
	parse_as("example.org", DNS_MX);
	assert_int_equal(answer->status, DNS_NODATA);
}

static void error_codes_are_temporary(void **state)
{
	static const char *const words[16] = {[1] = "FORMERR", [2] = "SERVFAIL", [4] = "NOTIMP", [5] = "REFUSED"};

	(void)state;
	for (unsigned rcode = 1; rcode < 16; rcode++) {
		if (rcode == NXDOMAIN)
			continue;
		packet_begin(&p, 7, QR | RD | RA | AD | rcode, "example.org", DNS_MX);
		packet_add(&p, ANSWER, "example.org", DNS_MX, 300, rdata_mx(10, "mx.example.org"));
		parse_as("example.org", DNS_MX);
		expect_temporary(words[rcode] ? words[rcode] : "error");
		assert_int_equal(answer->rcode, rcode);
	}
}

/* H16 */
static void answers_to_another_question_are_temporary(void **state)
{
	(void)state;
	packet_begin(&p, 7, QR | RD | RA, "example.net", DNS_MX);
	packet_add(&p, ANSWER, "example.org", DNS_MX, 300, rdata_mx(10, "evil.example"));
	parse_as("example.org", DNS_MX);
	expect_temporary("another question");
	begin(DNS_A);
	parse_as("example.org", DNS_MX);
	expect_temporary("another question");
	begin(DNS_MX);
	p.bytes[p.len - 1] = 3; /* class CHAOS */
	parse_as("example.org", DNS_MX);
	expect_temporary("another question");
}

static void headers_that_are_no_answer(void **state)
{
	(void)state;
	packet_begin(&p, 7, RD | RA, "example.org", DNS_MX); /* our own question, reflected */
	parse_as("example.org", DNS_MX);
	expect_temporary("malformed");
	packet_begin(&p, 7, QR | RD | RA | 0x2800, "example.org", DNS_MX); /* UPDATE */
	parse_as("example.org", DNS_MX);
	expect_temporary("malformed");
	packet_begin(&p, 7, QR | RD | RA | TC, "example.org", DNS_MX);
	parse_as("example.org", DNS_MX);
	expect_temporary("truncated");
	for (unsigned questions = 0; questions < 3; questions += 2) {
		begin(DNS_MX);
		p.bytes[5] = (uint8_t)questions;
		parse_as("example.org", DNS_MX);
		expect_temporary("malformed");
	}
}

/* Other names, types and classes in the answer section are not ours. */
static void foreign_records_are_left_out(void **state)
{
	(void)state;
	begin(DNS_MX);
	packet_add(&p, ANSWER, "example.net", DNS_MX, 300, rdata_mx(10, "evil.example"));
	packet_add(&p, ANSWER, "example.org", DNS_A, 300, rdata_address("192.0.2.1"));
	packet_add(&p, ADDITIONAL, "example.org", DNS_MX, 300, rdata_mx(10, "evil.example"));
	parse_as("example.org", DNS_MX);
	assert_int_equal(answer->status, DNS_NODATA);
}

/* H15 */
static void data_of_the_wrong_length_is_refused(void **state)
{
	static const struct {
		uint16_t type;
		const char *data;
		size_t len;
	} cases[] = {
	    {DNS_A, "\1\2\3", 3},
	    {DNS_A, "\1\2\3\4\5", 5},
	    {DNS_AAAA, "\1\2\3\4", 4},
	    {DNS_A, "", 0},
	    {DNS_MX, "\0\12", 2},
	    {DNS_MX, "\0\12\2mx", 5},
	    {DNS_MX, "\0\12\0x", 4},
	    {DNS_MX, "\0", 1},
	    {DNS_TXT, "", 0},
	    {DNS_TXT, "\5abc", 4},
	    {DNS_TLSA, "\3\1\1", 3},
	    {DNS_PTR, "", 0},
	    {DNS_PTR, "\3abc\0junk", 9},
	    {DNS_MX, "\0\12\xc0", 3},
	    {DNS_MX, "\0\12\xff\xff", 4},
	    {DNS_MX, "\0\12\x40zz", 5},
	    {DNS_CNAME, "\3abc", 4},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		begin(cases[i].type);
		packet_add(&p, ANSWER, "example.org", cases[i].type, 300, rdata_raw(cases[i].data, cases[i].len));
		parse_as("example.org", cases[i].type);
		expect_temporary("malformed");
	}
}

static void build_rich_packet(void)
{
	packet_begin(&p, 7, QR | RD | RA, "example.org", DNS_MX);
	packet_add(&p, ANSWER, "example.org", DNS_CNAME, 300, rdata_name("mail.example"));
	packet_add(&p, ANSWER, "mail.example", DNS_MX, 300, rdata_mx(10, "mx1.example"));
	packet_add(&p, ANSWER, "mail.example", DNS_MX, 300, rdata_mx(20, "mx2.example"));
}

/* Whatever is missing at the end: never an answer that was not sent. */
static void an_answer_cut_anywhere_is_temporary(void **state)
{
	size_t len;

	(void)state;
	build_rich_packet();
	parse_as("example.org", DNS_MX);
	assert_int_equal(answer->status, DNS_OK);
	for (len = p.len; p.len-- > 0;) {
		parse_as("example.org", DNS_MX);
		assert_int_equal(answer->status, DNS_TEMPORARY);
	}
	assert_true(len > 60);
	/* A negative one too: half of it must not become a bounce. */
	packet_begin(&p, 7, QR | RD | RA | NXDOMAIN, "example.org", DNS_MX);
	packet_add(&p, AUTHORITY, "org", DNS_SOA, 60, rdata_soa(60));
	while (p.len-- > 0) {
		parse_as("example.org", DNS_MX);
		assert_int_equal(answer->status, DNS_TEMPORARY);
	}
}

/* H15: Each octet of a good answer replaced by each value: no fault, and what comes out is in bounds. */
static void any_octet_may_be_anything(void **state)
{
	(void)state;
	build_rich_packet();
	for (size_t at = 0; at < p.len; at++) {
		uint8_t old = p.bytes[at];

		for (unsigned value = 0; value < 256; value++) {
			p.bytes[at] = (uint8_t)value;
			parse_as("example.org", DNS_MX);
			assert_true(answer->status <= DNS_TEMPORARY);
			for (size_t i = 0; i < answer->record_count; i++)
				assert_true(strlen(answer->records[i].mx.host) <= DNS_NAME_MAX);
		}
		p.bytes[at] = old;
	}
}

/* H18 */
static void ttl_extremes(void **state)
{
	static const struct {
		uint32_t sent, taken;
	} cases[] = {{0, 0}, {1, 1}, {0x7fffffff, 0x7fffffff}, {0x80000000u, 0}, {0xffffffffu, 0}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		begin(DNS_A);
		packet_add(&p, ANSWER, "example.org", DNS_A, cases[i].sent, rdata_address("192.0.2.1"));
		parse_as("example.org", DNS_A);
		assert_int_equal(answer->ttl_sec, cases[i].taken);
		assert_int_equal(answer->records[0].ttl_sec, cases[i].taken);
	}
}

/* Owner by pointer, data by pointer: what real servers send. */
static void add_compressed_mx(unsigned preference, const char *label, unsigned host_pointer)
{
	uint8_t rr[64] = {0xc0, 12, 0, 15, 0, 1, 0, 0, 1, 44};
	size_t label_len = strlen(label), len = 10;

	rr[len++] = 0;
	rr[len++] = (uint8_t)(2 + (label_len ? label_len + 1 : 0) + 2);
	rr[len++] = (uint8_t)(preference >> 8);
	rr[len++] = (uint8_t)preference;
	if (label_len) {
		rr[len++] = (uint8_t)label_len;
		memcpy(rr + len, label, label_len);
		len += label_len;
	}
	rr[len++] = (uint8_t)(0xc0 | host_pointer >> 8);
	rr[len++] = (uint8_t)host_pointer;
	packet_count(&p, ANSWER);
	packet_add_raw(&p, rr, len);
}

static void thousands_of_records_in_64_kib(void **state)
{
	char label[16];

	(void)state;
	begin(DNS_MX);
	while (p.len + 32 < 65535) {
		snprintf(label, sizeof(label), "m%zu", p.len);
		add_compressed_mx(10, label, 12);
	}
	parse_as("example.org", DNS_MX);
	assert_int_equal(answer->status, DNS_OK);
	assert_true(answer->record_count > 2500);
	assert_true(answer->memory_bytes <= DNS_ANSWER_BYTES_MAX + 65536);
	assert_true(dns_name_is_host(answer->records[2500].mx.host));
}

/* 4,000 records of 16 octets, each of which expands to a host of 1,003 characters. */
static void names_that_grow_by_compression_have_a_ceiling(void **state)
{
	uint8_t name[DNS_NAME_WIRE_MAX] = {0};
	size_t len = 0, name_at;

	(void)state;
	begin(DNS_MX);
	for (int i = 0; i < 4; i++) {
		size_t n = i < 3 ? 63 : 61;
		name[len++] = (uint8_t)n;
		memset(name + len, 200, n);
		len += n;
	}
	len++;
	assert_int_equal(len, 255);
	name_at = p.len + 12;
	packet_count(&p, ANSWER);
	packet_add_raw(&p, "\xc0\x0c\0\x05\x00\x03\0\0\0\0\0\xff", 12); /* of class CHAOS: nobody reads it */
	packet_add_raw(&p, name, len);
	while (p.len + 32 < 65535)
		add_compressed_mx(10, "", (unsigned)name_at);
	parse_as("example.org", DNS_MX);
	assert_int_equal(answer->status, DNS_TEMPORARY);
	assert_true(answer->memory_bytes <= DNS_ANSWER_BYTES_MAX + 65536);
}

static void a_question_is_built_as_it_should_be(void **state)
{
	static const uint8_t expected[] = {0x12, 0x34, 0x01, 0x20, 0,	 1,   0,   0, 0, 0,  0, 1,
					   2,	 'm',  'x',  3,	   'o',	 'r', 'g', 0, 0, 15, 0, 1,
					   0,	 0,    41,   0x04, 0xd0, 0,   0,   0, 0, 0,  0};
	uint8_t out[DNS_QUERY_MAX];
	char longest[1024] = "";
	size_t len = dns_message_build_query(0x1234, "mx.org", DNS_MX, true, out);

	(void)state;
	assert_int_equal(len, sizeof(expected));
	assert_memory_equal(out, expected, len);
	len = dns_message_build_query(0x1234, "mx.org", DNS_MX, false, out);
	assert_int_equal(len, sizeof(expected) - 11);
	assert_int_equal(out[11], 0);
	memset(longest, '.', 253);
	for (int i = 0; i < 127; i++)
		longest[2 * i] = 'a';
	assert_int_equal(dns_message_build_query(1, longest, DNS_MX, true, out), 12 + 255 + 4 + 11);
}

static void joined_answers_keep_their_parts(void **state)
{
	struct dns_answer *head, *tail;

	(void)state;
	packet_begin(&p, 7, QR | RD | RA | AD, "example.org", DNS_A);
	packet_add(&p, ANSWER, "example.org", DNS_CNAME, 60, rdata_name("c.example"));
	parse_as("example.org", DNS_A);
	head = dns_answer_join(answer, answer);
	packet_begin(&p, 7, QR | RD | RA, "c.example", DNS_A);
	packet_add(&p, ANSWER, "c.example", DNS_A, 30, rdata_address("192.0.2.1"));
	parse_as("c.example", DNS_A);
	tail = dns_answer_join(head, answer);
	dns_answer_unref((const struct dns_answer **)&head);
	dns_answer_unref((const struct dns_answer **)&answer);
	assert_int_equal(tail->status, DNS_OK);
	assert_int_equal(tail->record_count, 1);
	assert_string_equal(tail->name, "example.org");
	assert_string_equal(tail->canonical, "c.example");
	assert_int_equal(tail->ttl_sec, 30);
	assert_false(tail->ad);
	dns_answer_unref((const struct dns_answer **)&tail);
	assert_null(tail);
}

static void words_of_types_and_statuses(void **state)
{
	char out[16];

	(void)state;
	assert_string_equal(dns_type_name(DNS_MX, out), "MX");
	assert_string_equal(dns_type_name(65535, out), "TYPE65535");
	assert_string_equal(dns_status_name(DNS_TEMPORARY), "temporary");
	assert_string_equal(dns_status_name((enum dns_status)99), "unknown");
}

int main(void)
{
#define TEST(function) cmocka_unit_test_teardown(function, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(mx_records_have_preference_host_and_ttl),
	    TEST(null_mx_has_an_empty_host),
	    TEST(addresses_and_the_ad_bit),
	    TEST(strings_of_a_txt_record_are_joined),
	    TEST(tlsa_cname_and_ptr_records),
	    TEST(aliases_are_followed_in_any_order),
	    TEST(alias_loops_and_long_chains_end),
	    TEST(an_alias_without_its_target_asks_for_more),
	    TEST(negative_answers_take_their_ttl_from_the_soa),
	    TEST(what_only_looks_negative_is_temporary),
	    TEST(error_codes_are_temporary),
	    TEST(answers_to_another_question_are_temporary),
	    TEST(headers_that_are_no_answer),
	    TEST(foreign_records_are_left_out),
	    TEST(data_of_the_wrong_length_is_refused),
	    TEST(an_answer_cut_anywhere_is_temporary),
	    TEST(any_octet_may_be_anything),
	    TEST(ttl_extremes),
	    TEST(thousands_of_records_in_64_kib),
	    TEST(names_that_grow_by_compression_have_a_ceiling),
	    TEST(a_question_is_built_as_it_should_be),
	    TEST(joined_answers_keep_their_parts),
	    TEST(words_of_types_and_statuses),
	};

	return cmocka_run_group_tests_name("dns message", tests, NULL, NULL);
}
