#include "smtp/date.h"

#include <stdio.h>
#include <time.h>

enum { DAY_MIN = 24 * 60 };

/* 9999-12-31 23:59:59, less a day for the offset. */
static const int64_t LAST_SEC = INT64_C(253402300799) - 86400;

static int64_t clamp(int64_t value, int64_t least, int64_t most)
{
	return value < least ? least : value > most ? most : value;
}

/* Not strftime(): its words follow the locale. */
void smtp_date_format(int64_t wall_ms, int offset_min, char out[SMTP_DATE_CHARS + 1])
{
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	int offset = (int)clamp(offset_min, 1 - DAY_MIN, DAY_MIN - 1), minutes = offset < 0 ? -offset : offset;
	time_t local = (time_t)(clamp(wall_ms / 1000, 0, LAST_SEC) + (int64_t)offset * 60);
	struct tm tm;

	gmtime_r(&local, &tm);
	snprintf(out, SMTP_DATE_CHARS + 1, "%.3s, %02u %.3s %04u %02u:%02u:%02u %c%02u%02u", days + 3 * tm.tm_wday,
		 (unsigned)tm.tm_mday % 100, months + 3 * tm.tm_mon, (unsigned)(tm.tm_year + 1900) % 10000,
		 (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100,
		 offset < 0 ? '-' : '+', (unsigned)minutes / 60 % 100, (unsigned)minutes % 60);
}

int smtp_date_local_offset_min(int64_t wall_ms)
{
	time_t when = (time_t)(clamp(wall_ms / 1000, 0, LAST_SEC));
	struct tm tm;

	if (!localtime_r(&when, &tm))
		return 0;
	return (int)(tm.tm_gmtoff / 60);
}
