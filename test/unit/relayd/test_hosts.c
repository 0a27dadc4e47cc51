/* Hosts that were no good a short while ago. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/hosts.h"

#include <string.h>

static struct dns_address address_of(unsigned number)
{
	return (struct dns_address){DNS_IPV4, {10, (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number}};
}

static bool rests(const struct hosts *hosts, unsigned number, int64_t now_ms)
{
	struct dns_address address = address_of(number);

	return hosts_failed_at_ms(hosts, &address, 25, now_ms) > 0;
}

static void note_failed(struct hosts *hosts, unsigned number, int64_t now_ms)
{
	struct dns_address address = address_of(number);

	hosts_note_failed(hosts, &address, 25, now_ms);
}

static void each_failure_makes_it_rest_longer(void **state)
{
	static const int64_t minutes[] = {1, 2, 4, 8, 10, 10};
	struct hosts *hosts = hosts_new();
	int64_t now = 1000;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(minutes); i++) {
		note_failed(hosts, 1, now);
		assert_true(rests(hosts, 1, now + minutes[i] * 60000 - 1));
		assert_false(rests(hosts, 1, now + minutes[i] * 60000));
		now += minutes[i] * 60000;
	}
	/* After a long rest it begins anew. */
	now += 600000;
	note_failed(hosts, 1, now);
	assert_false(rests(hosts, 1, now + 60000));
	hosts_free(&hosts);
	assert_null(hosts);
}

static void what_fails_together_fails_once(void **state)
{
	struct hosts *hosts = hosts_new();

	(void)state;
	for (int i = 0; i < 20; i++)
		note_failed(hosts, 1, 1000 + i);
	assert_false(rests(hosts, 1, 1019 + 60000));
	hosts_free(&hosts);
}

static void a_good_session_ends_it(void **state)
{
	struct hosts *hosts = hosts_new();
	struct dns_address address = address_of(1);

	(void)state;
	note_failed(hosts, 1, 1000);
	hosts_note_good(hosts, &address, 587); /* another port is another host */
	assert_true(rests(hosts, 1, 1001));
	hosts_note_good(hosts, &address, 25);
	assert_false(rests(hosts, 1, 1001));
	assert_int_equal(hosts_count(hosts), 0);
	hosts_free(&hosts);
}

static void who_left_no_time_for_others_rests_for_hours(void **state)
{
	struct hosts *hosts = hosts_new();
	struct dns_address address = address_of(1), other = address_of(2);

	(void)state;
	note_failed(hosts, 1, 1000);
	hosts_note_hid_others(hosts, &address, 25, 2000);
	hosts_note_hid_others(hosts, &other, 25, 2000); /* it has not failed */
	assert_true(rests(hosts, 1, 2000 + 2 * 3600 * 1000 - 1));
	assert_false(rests(hosts, 1, 2000 + 2 * 3600 * 1000));
	assert_false(rests(hosts, 2, 2001));
	hosts_note_good(hosts, &address, 25);
	assert_false(rests(hosts, 1, 2001));
	hosts_free(&hosts);
}

static void the_oldest_are_forgotten_first(void **state)
{
	struct hosts *hosts = hosts_new();

	(void)state;
	for (unsigned i = 0; i < HOSTS_REMEMBERED_MAX + 10; i++)
		note_failed(hosts, i, 1000);
	assert_int_equal(hosts_count(hosts), HOSTS_REMEMBERED_MAX);
	assert_false(rests(hosts, 9, 1001));
	assert_true(rests(hosts, 10, 1001));
	hosts_free(&hosts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_failure_makes_it_rest_longer),
	    cmocka_unit_test(what_fails_together_fails_once),
	    cmocka_unit_test(a_good_session_ends_it),
	    cmocka_unit_test(who_left_no_time_for_others_rests_for_hours),
	    cmocka_unit_test(the_oldest_are_forgotten_first),
	};
	return cmocka_run_group_tests_name("hosts", tests, NULL, NULL);
}
