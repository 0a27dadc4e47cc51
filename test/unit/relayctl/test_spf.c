/* SPF (RFC 7208): records, macros, limits. The zone is made up; names as in the RFC's appendix where they are its own. */
#include "base/base.h"
#include "relayctl/spf.h"
#include "relayctl/spf_term.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct zone {
	const char *name;
	uint16_t type;
	const char *value; /* of a TXT record the text; NULL: the server fails */
} zone[] = {
    {"example.com", DNS_MX, "mail-a.example.com"},
    {"example.com", DNS_MX, "mail-b.example.com"},
    {"example.com", DNS_A, "192.0.2.10"},
    {"example.com", DNS_A, "192.0.2.11"},
    {"mail-a.example.com", DNS_A, "192.0.2.129"},
    {"mail-b.example.com", DNS_A, "192.0.2.130"},
    {"mail-b.example.com", DNS_AAAA, "2001:db8:1::25"},
    {"amy.example.com", DNS_A, "192.0.2.65"},
    {"10.2.0.192.in-addr.arpa", DNS_PTR, "example.com"},
    {"65.2.0.192.in-addr.arpa", DNS_PTR, "amy.example.com"},
    {"140.2.0.192.in-addr.arpa", DNS_PTR, "mail-a.example.com"}, /* a lie */

    {"all.test", DNS_TXT, "v=spf1 +all"},
    {"none.test", DNS_TXT, "hello"},
    {"other.test", DNS_TXT, "v=spf10 +all"},
    {"two.test", DNS_TXT, "v=spf1 -all"},
    {"two.test", DNS_TXT, "v=spf1 a -all"},
    {"beside.test", DNS_TXT, "google-site-verification=x"},
    {"beside.test", DNS_TXT, "V=SPF1 IP4:192.0.2.10 -ALL"},
    {"broken.test", DNS_TXT, NULL},
    {"net.test", DNS_TXT, "v=spf1 ip4:192.0.2.128/25 ip6:2001:db8:1::/48 ~all"},
    {"empty.test", DNS_TXT, "v=spf1"},
    {"question.test", DNS_TXT, "v=spf1 ?ip4:192.0.2.10 -all"},
    {"a.test", DNS_TXT, "v=spf1 a:example.com -all"},
    {"acidr.test", DNS_TXT, "v=spf1 a:example.com/24//64 -all"},
    {"mx.test", DNS_TXT, "v=spf1 mx:example.com -all"},
    {"mxnet.test", DNS_TXT, "v=spf1 mx:example.com/25//48 -all"},
    {"ptr.test", DNS_TXT, "v=spf1 ptr:example.com -all"},
    {"include.test", DNS_TXT, "v=spf1 include:net.test include:a.test ?all"},
    {"nothing.test", DNS_TXT, "v=spf1 include:none.test -all"},
    {"down.test", DNS_TXT, "v=spf1 include:broken.test -all"},
    {"redirect.test", DNS_TXT, "v=spf1 ip4:192.0.2.66 redirect=a.test"},
    {"redirectall.test", DNS_TXT, "v=spf1 redirect=all.test -all"},
    {"nowhere.test", DNS_TXT, "v=spf1 redirect=none.test"},
    {"loop.test", DNS_TXT, "v=spf1 include:loop.test -all"},
    {"voids.test", DNS_TXT, "v=spf1 a:v1.test a:v2.test a:v3.test +all"},
    {"fewvoids.test", DNS_TXT, "v=spf1 a:v1.test a:v2.test +all"},
    {"exists.test", DNS_TXT, "v=spf1 exists:%{ir}.%{v}._spf.%{d2} -all"},
    {"10.2.0.192.in-addr._spf.exists.test", DNS_A, "127.0.0.2"},
    {"10.2.0.192.in-addr.arpa._x.test", DNS_A, "127.0.0.2"},
    {"many.test", DNS_TXT,
     "v=spf1 exists:a.all.test mx:example.com a:example.com mx:example.com a:example.com a:example.com a:example.com "
     "a:example.com a:example.com a:example.com a:example.com +all"},
    {"a.all.test", DNS_A, NULL},
    {"unknownmodifier.test", DNS_TXT, "v=spf1 exp=explain.%{d} moo=%{i} ip4:192.0.2.10 -all"},
};

/* What answers of one check point to. */
static struct dns_record pool[1024];
static size_t used;

static const struct dns_answer *ask(void *ctx, const char *name, uint16_t type)
{
	struct dns_record *records = pool + used;
	struct dns_answer *answer;
	size_t count = 0;
	bool fails = false, exists = false;

	(void)ctx;
	for (size_t i = 0; i < ARRAY_LEN(zone); i++) {
		struct dns_record record = {0};
		if (strcmp(zone[i].name, name) != 0)
			continue;
		exists = true;
		if (zone[i].type != type)
			continue;
		fails = fails || !zone[i].value;
		if (type == DNS_TXT)
			record.text = slice_of_str(zone[i].value);
		else if (type == DNS_MX)
			record.mx.host = zone[i].value;
		else if (type == DNS_PTR)
			record.name = zone[i].value;
		else if (zone[i].value)
			assert_true(dns_address_parse(slice_of_str(zone[i].value), &record.address));
		assert_true(used + count < ARRAY_LEN(pool));
		records[count++] = record;
	}
	answer = dns_answer_new(name, type,
				fails	 ? DNS_TEMPORARY
				: count	 ? DNS_OK
				: exists ? DNS_NODATA
					 : DNS_NXDOMAIN,
				"as the zone says");
	used += count;
	answer->records = records;
	answer->record_count = fails ? 0 : count;
	return answer;
}

static struct spf_verdict check(const char *address, const char *domain)
{
	struct spf_question question = {.domain = domain, .helo = "relay.example.com", .ask = ask};
	struct spf_verdict verdict;

	used = 0;
	assert_true(dns_address_parse(slice_of_str(address), &question.address));
	spf_check(&question, &verdict);
	return verdict;
}

static void results(void **state)
{
	static const struct {
		const char *address, *domain, *result;
	} rows[] = {
	    {"192.0.2.1", "all.test", "pass"},		{"2001:db8::1", "all.test", "pass"},
	    {"192.0.2.1", "none.test", "none"},		{"192.0.2.1", "other.test", "none"},
	    {"192.0.2.1", "gone.test", "none"},		{"192.0.2.1", "two.test", "permerror"},
	    {"192.0.2.10", "beside.test", "pass"},	{"192.0.2.11", "beside.test", "fail"},
	    {"192.0.2.1", "broken.test", "temperror"},	{"192.0.2.128", "net.test", "pass"},
	    {"192.0.2.127", "net.test", "softfail"},	{"2001:db8:1:ffff::1", "net.test", "pass"},
	    {"2001:db8:2::1", "net.test", "softfail"},	{"192.0.2.1", "empty.test", "neutral"},
	    {"192.0.2.10", "question.test", "neutral"}, {"192.0.2.11", "a.test", "pass"},
	    {"192.0.2.12", "a.test", "fail"},		{"192.0.2.12", "acidr.test", "pass"},
	    {"192.0.3.12", "acidr.test", "fail"},	{"192.0.2.129", "mx.test", "pass"},
	    {"192.0.2.131", "mx.test", "fail"},		{"2001:db8:1::25", "mx.test", "pass"},
	    {"2001:db8:1::26", "mx.test", "fail"},	{"192.0.2.131", "mxnet.test", "pass"},
	    {"2001:db8:1::26", "mxnet.test", "pass"},	{"192.0.2.10", "ptr.test", "pass"},
	    {"192.0.2.65", "ptr.test", "pass"},		{"192.0.2.140", "ptr.test", "fail"},
	    {"192.0.2.200", "include.test", "pass"},	{"192.0.2.10", "include.test", "pass"},
	    {"192.0.2.1", "include.test", "neutral"},	{"192.0.2.1", "nothing.test", "permerror"},
	    {"192.0.2.1", "down.test", "temperror"},	{"192.0.2.66", "redirect.test", "pass"},
	    {"192.0.2.10", "redirect.test", "pass"},	{"192.0.2.1", "redirect.test", "fail"},
	    {"192.0.2.1", "redirectall.test", "fail"},	{"192.0.2.1", "nowhere.test", "permerror"},
	    {"192.0.2.1", "loop.test", "permerror"},	{"192.0.2.1", "voids.test", "permerror"},
	    {"192.0.2.1", "fewvoids.test", "pass"},	{"192.0.2.10", "exists.test", "pass"},
	    {"192.0.2.11", "exists.test", "fail"},	{"192.0.2.10", "unknownmodifier.test", "pass"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct spf_verdict verdict = check(rows[i].address, rows[i].domain);
		if (strcmp(spf_result_name(verdict.result), rows[i].result) != 0)
			fail_msg("%s from %s: %s (%s), not %s", rows[i].domain, rows[i].address,
				 spf_result_name(verdict.result), verdict.why, rows[i].result);
	}
}

static void lookups_are_counted(void **state)
{
	(void)state;
	assert_int_equal(check("192.0.2.10", "include.test").lookups, 3); /* include, include, a */
	assert_int_equal(check("192.0.2.1", "all.test").lookups, 0);
	assert_non_null(strstr(check("192.0.2.1", "loop.test").why, "more than 10"));
}

static void remember(void *ctx, const char *domain)
{
	char *seen = ctx;

	strncat(seen, domain, 100);
	strncat(seen, " ", 2);
}

static void visits_are_told(void **state)
{
	char seen[300] = "";
	struct spf_question question = {.address = {.family = DNS_IPV4},
					.domain = "include.test",
					.helo = "relay.example.com",
					.ask = ask,
					.on_visit = remember,
					.ctx = seen};
	struct spf_verdict verdict;

	(void)state;
	used = 0;
	spf_check(&question, &verdict);
	assert_string_equal(seen, "net.test a.test ");
}

static void broken_records(void **state)
{
	static const char *const good[] = {" a -all",	       " a:x.test/24",
					   " mx//64",	       " ip4:1.2.3.4",
					   " ip6:::/0",	       " -ALL",
					   " redirect=x.test", " x=%{i}",
					   " a:%{d}",	       " exists:%{l1r+-}._%{o}.x.test",
					   " a:x.test/0//0",   ""};
	static const char *const bad[] = {" hello",
					  " a/33",
					  " mx//129",
					  " ip4:1.2.3",
					  " ip4",
					  " ip4:::1",
					  " ip6:1.2.3.4",
					  " include",
					  " include:",
					  " a:localhost",
					  " all:x",
					  " a:%{x}.test",
					  " a:%{d",
					  " exists:%{d0}.x.test",
					  " a:1.2.3.4",
					  " -redirect=x.test",
					  " redirect=a.test redirect=b.test",
					  " x=%a",
					  " a/024",
					  " exists:%{c}.x.test",
					  " a:x.test:26",
					  " =x",
					  "\ta"};
	struct spf_record record;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		if (!spf_record_parse(slice_of_str(good[i]), &record))
			fail_msg("'%s' was refused", good[i]);
		spf_record_fini(&record);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (spf_record_parse(slice_of_str(bad[i]), &record))
			fail_msg("'%s' was taken", bad[i]);
		spf_record_fini(&record);
	}
}

/* The examples of section 7.4. */
static void macros(void **state)
{
	static const struct {
		const char *macro, *v4, *v6;
	} rows[] = {
	    {"%{s}.x.test", "postmaster@email.example.com.x.test", NULL},
	    {"%{o}", "email.example.com", NULL},
	    {"%{d}", "email.example.com", NULL},
	    {"%{d4}", "email.example.com", NULL},
	    {"%{d2}", "example.com", NULL},
	    {"%{d1}.x.test", "com.x.test", NULL},
	    {"%{dr}", "com.example.email", NULL},
	    {"%{d2r}", "example.email", NULL},
	    {"%{l}.x.test", "postmaster.x.test", NULL},
	    {"%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com",
	     "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"},
	    {"%{h}", "relay.example.com", NULL},
	};
	struct dns_address v4, v6;
	char out[DNS_NAME_MAX + 1];

	(void)state;
	assert_true(dns_address_parse(SLICE("192.0.2.3"), &v4) && dns_address_parse(SLICE("2001:db8::cb01"), &v6));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct spf_names names = {"email.example.com", "email.example.com", "relay.example.com", &v4};
		const struct spf_names names6 = {"email.example.com", "email.example.com", "relay.example.com", &v6};
		const struct spf_term term = {.domain = (char *)(uintptr_t)rows[i].macro};
		char expected[DNS_NAME_MAX + 1];
		assert_true(spf_term_target(&term, &names, out));
		assert_true(dns_name_normalize(slice_of_str(rows[i].v4), expected));
		assert_string_equal(out, expected);
		if (!rows[i].v6)
			continue;
		assert_true(spf_term_target(&term, &names6, out));
		assert_string_equal(out, rows[i].v6);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(results),	       cmocka_unit_test(lookups_are_counted),
	    cmocka_unit_test(visits_are_told), cmocka_unit_test(broken_records),
	    cmocka_unit_test(macros),
	};

	return cmocka_run_group_tests_name("spf", tests, NULL, NULL);
}
