/*
 * base/clock.h - time as an interface, so that it can be virtual
 *
 * Monotonic milliseconds for deadlines and timers, wall-clock milliseconds since 1970 for what is written down.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

struct clock {
	int64_t (*mono_ms)(const struct clock *clock);
	int64_t (*wall_ms)(const struct clock *clock);
};

/* CLOCK_BOOTTIME and CLOCK_REALTIME. Static, never freed. */
const struct clock *clock_system(void);

static inline int64_t clock_mono_ms(const struct clock *clock)
{
	return clock->mono_ms(clock);
}

static inline int64_t clock_wall_ms(const struct clock *clock)
{
	return clock->wall_ms(clock);
}

/* A clock that stands until it is moved. */
struct clock_virtual {
	struct clock clock; /* first: pass &v.clock */
	int64_t mono, wall;
};

void clock_virtual_init(struct clock_virtual *v, int64_t wall_ms);
void clock_virtual_advance(struct clock_virtual *v, int64_t ms);

#endif
