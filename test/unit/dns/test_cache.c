/* Answers kept by name and type, in virtual time. */
#include "support_dns.h"

#include "dns/cache.h"

#include <stdio.h>

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE };

static const struct dns_cache_limits usual = {.entries = 100,
					      .bytes = 1 << 20,
					      .ttl_min_ms = 30 * SECOND,
					      .ttl_max_ms = HOUR,
					      .negative_ttl_max_ms = 5 * MINUTE,
					      .stale_max_ms = HOUR};

static struct dns_cache *cache;

static int teardown(void **state)
{
	(void)state;
	dns_cache_free(&cache);
	return 0;
}

static void put(const char *name, uint16_t type, enum dns_status status, uint32_t ttl_sec, int64_t now_ms)
{
	struct dns_answer *answer = dns_answer_new(name, type, status, "");

	answer->ttl_sec = ttl_sec;
	dns_cache_put(cache, answer, now_ms);
	dns_answer_unref((const struct dns_answer **)&answer);
}

static bool has(const char *name, uint16_t type, int64_t now_ms)
{
	const struct dns_answer *answer = dns_cache_find(cache, name, type, now_ms);

	if (answer) {
		assert_string_equal(answer->name, name);
		assert_int_equal(answer->type, type);
	}
	return answer != NULL;
}

static void name_and_type_are_the_key(void **state)
{
	(void)state;
	cache = dns_cache_new(&usual);
	put("a.example", DNS_MX, DNS_OK, 60, 0);
	put("", DNS_MX, DNS_OK, 60, 0);
	assert_true(has("a.example", DNS_MX, 0));
	assert_true(has("", DNS_MX, 0));
	assert_false(has("a.example", DNS_A, 0));
	assert_false(has("b.example", DNS_MX, 0));
	assert_false(has("a.exampl", DNS_MX, 0));
}

/* From when on is it gone? */
static void expect_life(uint16_t type, enum dns_status status, uint32_t ttl_sec, int64_t life_ms)
{
	put("x.example", type, status, ttl_sec, 5000);
	assert_true(has("x.example", type, 5000 + life_ms - 1));
	assert_int_equal(dns_cache_find(cache, "x.example", type, 5000)->expires_at_ms, 5000 + life_ms);
	assert_false(has("x.example", type, 5000 + life_ms));
}

/* H18 */
static void the_ttl_is_clamped(void **state)
{
	(void)state;
	cache = dns_cache_new(&usual);
	expect_life(DNS_A, DNS_OK, 0, 30 * SECOND);
	expect_life(DNS_A, DNS_OK, 29, 30 * SECOND);
	expect_life(DNS_A, DNS_OK, 31, 31 * SECOND);
	expect_life(DNS_A, DNS_OK, 3600, HOUR);
	expect_life(DNS_A, DNS_OK, INT32_MAX, HOUR);
	expect_life(DNS_A, DNS_NXDOMAIN, 0, 30 * SECOND);
	expect_life(DNS_A, DNS_NXDOMAIN, 86400, 5 * MINUTE);
	expect_life(DNS_A, DNS_NODATA, 120, 2 * MINUTE);
}

static void failures_are_not_kept(void **state)
{
	(void)state;
	cache = dns_cache_new(&usual);
	put("x.example", DNS_MX, DNS_OK, 60, 0);
	put("x.example", DNS_MX, DNS_TEMPORARY, 60, 1);
	assert_int_equal(dns_cache_find(cache, "x.example", DNS_MX, 2)->status, DNS_OK);
	put("y.example", DNS_MX, DNS_TEMPORARY, 60, 1);
	assert_false(has("y.example", DNS_MX, 2));
}

static void a_newer_answer_replaces_the_older(void **state)
{
	(void)state;
	cache = dns_cache_new(&usual);
	put("x.example", DNS_MX, DNS_OK, 60, 0);
	put("x.example", DNS_MX, DNS_NODATA, 60, 0);
	assert_int_equal(dns_cache_find(cache, "x.example", DNS_MX, 1)->status, DNS_NODATA);
	assert_int_equal(dns_cache_count(cache), 1);
}

static bool has_stale(const char *name, uint16_t type, int64_t now_ms)
{
	return dns_cache_find_stale(cache, name, type, now_ms) != NULL;
}

static void stale_answers_stand_in_for_an_hour(void **state)
{
	static const struct {
		uint16_t type;
		enum dns_status status;
		bool expected;
	} cases[] = {{DNS_MX, DNS_OK, true},	  {DNS_A, DNS_OK, true},	{DNS_AAAA, DNS_OK, true},
		     {DNS_TLSA, DNS_OK, false},	  {DNS_TXT, DNS_OK, false},	{DNS_CNAME, DNS_OK, false},
		     {DNS_MX, DNS_NODATA, false}, {DNS_MX, DNS_NXDOMAIN, false}};

	(void)state;
	cache = dns_cache_new(&usual);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		put("x.example", cases[i].type, cases[i].status, 60, 0);
		assert_int_equal(has_stale("x.example", cases[i].type, 61 * SECOND), cases[i].expected);
	}
	put("y.example", DNS_MX, DNS_OK, 60, 0);
	assert_true(has_stale("y.example", DNS_MX, MINUTE + HOUR - 1));
	assert_false(has_stale("y.example", DNS_MX, MINUTE + HOUR));
	assert_false(has_stale("z.example", DNS_MX, 0));
}

static void a_stale_answer_counts_as_fresh_for_a_while(void **state)
{
	(void)state;
	cache = dns_cache_new(&usual);
	put("x.example", DNS_MX, DNS_OK, 60, 0);
	assert_true(has_stale("x.example", DNS_MX, 10 * MINUTE));
	assert_true(has("x.example", DNS_MX, 10 * MINUTE + 30 * SECOND - 1));
	assert_false(has("x.example", DNS_MX, 10 * MINUTE + 30 * SECOND));
	/* Never past the hour, however often it is used. */
	assert_true(has_stale("x.example", DNS_MX, HOUR + 50 * SECOND));
	assert_true(has("x.example", DNS_MX, HOUR + 59 * SECOND));
	assert_false(has("x.example", DNS_MX, HOUR + 60 * SECOND));
	/* Then it is gone altogether. */
	assert_int_equal(dns_cache_count(cache), 0);
}

static void the_least_recently_used_leaves(void **state)
{
	char name[32];

	(void)state;
	cache = dns_cache_new(&usual);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		put(name, DNS_A, DNS_OK, 60, 0);
	}
	assert_true(has("n0", DNS_A, 1));
	put("n100", DNS_A, DNS_OK, 60, 1);
	assert_int_equal(dns_cache_count(cache), 100);
	assert_true(has("n0", DNS_A, 1));
	assert_false(has("n1", DNS_A, 1));
	assert_true(has("n2", DNS_A, 1));
}

static void bytes_have_a_ceiling_too(void **state)
{
	struct dns_cache_limits limits = usual;
	char name[32];

	(void)state;
	limits.bytes = 20000;
	cache = dns_cache_new(&limits);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		put(name, DNS_A, DNS_OK, 60, 0);
		assert_true(dns_cache_bytes(cache) <= limits.bytes);
	}
	assert_true(dns_cache_count(cache) > 10);
	assert_true(dns_cache_count(cache) < 100);
	assert_true(has("n99", DNS_A, 1));
	dns_cache_clear(cache);
	assert_int_equal(dns_cache_bytes(cache), 0);
	assert_int_equal(dns_cache_count(cache), 0);
}

static void an_answer_larger_than_the_cache_is_not_kept(void **state)
{
	struct dns_cache_limits limits = usual;

	(void)state;
	limits.bytes = 100;
	cache = dns_cache_new(&limits);
	put("x.example", DNS_A, DNS_OK, 60, 0);
	assert_int_equal(dns_cache_count(cache), 0);
}

/* The receiver's reference outlives the cache's. */
static void an_answer_lives_as_long_as_it_is_held(void **state)
{
	const struct dns_answer *held;

	(void)state;
	cache = dns_cache_new(&usual);
	put("x.example", DNS_A, DNS_OK, 60, 0);
	held = dns_answer_ref(dns_cache_find(cache, "x.example", DNS_A, 1));
	dns_cache_clear(cache);
	assert_string_equal(held->name, "x.example");
	dns_answer_unref(&held);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_teardown(function, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(name_and_type_are_the_key),
	    TEST(the_ttl_is_clamped),
	    TEST(failures_are_not_kept),
	    TEST(a_newer_answer_replaces_the_older),
	    TEST(stale_answers_stand_in_for_an_hour),
	    TEST(a_stale_answer_counts_as_fresh_for_a_while),
	    TEST(the_least_recently_used_leaves),
	    TEST(bytes_have_a_ceiling_too),
	    TEST(an_answer_larger_than_the_cache_is_not_kept),
	    TEST(an_answer_lives_as_long_as_it_is_held),
	};

	return cmocka_run_group_tests_name("dns cache", tests, NULL, NULL);
}
