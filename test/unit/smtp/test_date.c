#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "smtp/date.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *text_of(int64_t wall_ms, int offset_min)
{
	static char text[SMTP_DATE_CHARS + 1];

	smtp_date_format(wall_ms, offset_min, text);
	assert_int_equal(strlen(text), SMTP_DATE_CHARS);
	return text;
}

static void known_moments(void **state)
{
	(void)state;
	assert_string_equal(text_of(0, 0), "Thu, 01 Jan 1970 00:00:00 +0000");
	assert_string_equal(text_of(INT64_C(1764052440000), 0), "Tue, 25 Nov 2025 06:34:00 +0000");
	assert_string_equal(text_of(INT64_C(1764052440999), 60), "Tue, 25 Nov 2025 07:34:00 +0100");
	assert_string_equal(text_of(INT64_C(1764052440000), -570), "Mon, 24 Nov 2025 21:04:00 -0930");
	assert_string_equal(text_of(INT64_C(951782400000), 0), "Tue, 29 Feb 2000 00:00:00 +0000");
	assert_string_equal(text_of(INT64_C(4107542399000), 0), "Sun, 28 Feb 2100 23:59:59 +0000");
	assert_string_equal(text_of(INT64_C(4107542400000), 0), "Mon, 01 Mar 2100 00:00:00 +0000");
}

static void nonsense_is_clamped(void **state)
{
	(void)state;
	assert_string_equal(text_of(INT64_MIN, 0), "Thu, 01 Jan 1970 00:00:00 +0000");
	assert_string_equal(text_of(INT64_MAX, 0), "Thu, 30 Dec 9999 23:59:59 +0000");
	assert_string_equal(text_of(0, -100000), "Wed, 31 Dec 1969 00:01:00 -2359");
	assert_string_equal(text_of(0, 100000), "Thu, 01 Jan 1970 23:59:00 +2359");
}

/* Against the C library, all over the calendar. */
static void as_strftime_has_it(void **state)
{
	(void)state;
	for (int64_t sec = 0; sec < INT64_C(8000000000); sec += 86399 * 13) {
		char expected[64];
		time_t when = (time_t)sec;
		struct tm tm;

		gmtime_r(&when, &tm);
		strftime(expected, sizeof(expected), "%a, %d %b %Y %H:%M:%S +0000", &tm);
		assert_string_equal(text_of(sec * 1000, 0), expected);
	}
}

static void the_local_zone(void **state)
{
	(void)state;
	setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
	tzset();
	assert_int_equal(smtp_date_local_offset_min(INT64_C(1764052440000)), 60);
	assert_int_equal(smtp_date_local_offset_min(INT64_C(1750000000000)), 120);
	unsetenv("TZ");
	tzset();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(known_moments),
	    cmocka_unit_test(nonsense_is_clamped),
	    cmocka_unit_test(as_strftime_has_it),
	    cmocka_unit_test(the_local_zone),
	};
	return cmocka_run_group_tests_name("smtp date", tests, NULL, NULL);
}
