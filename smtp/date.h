/*
 * smtp/date.h - date-time of RFC 5322 §3.3, as Received and Date carry it
 */
#ifndef SMTP_DATE_H
#define SMTP_DATE_H

#include <stdint.h>

#define SMTP_DATE_CHARS 31 /* "Tue, 25 Nov 2025 06:34:00 +0000", always two digits for the day */

/* `wall_ms`: milliseconds since 1970, clamped to the years 1970 to 9999. `offset_min`: minutes east of UTC of the local
 * time to be written, clamped to a day. Fills SMTP_DATE_CHARS characters and a NUL. */
void smtp_date_format(int64_t wall_ms, int offset_min, char out[SMTP_DATE_CHARS + 1]);
/* The local zone's offset at that moment (TZ, /etc/localtime: read by the C library at its first use). */
int smtp_date_local_offset_min(int64_t wall_ms);

#endif
