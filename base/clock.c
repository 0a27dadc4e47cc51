#include "base/clock.h"

#include "base/base.h"

#include <time.h>

static int64_t read_ms(clockid_t id)
{
	struct timespec ts;
	BUG_ON(clock_gettime(id, &ts) != 0);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int64_t system_mono_ms(const struct clock *clock)
{
	(void)clock;
	return read_ms(CLOCK_BOOTTIME);
}

static int64_t system_wall_ms(const struct clock *clock)
{
	(void)clock;
	return read_ms(CLOCK_REALTIME);
}

const struct clock *clock_system(void)
{
	static const struct clock system_clock = {system_mono_ms, system_wall_ms};
	return &system_clock;
}

static int64_t virtual_mono_ms(const struct clock *clock)
{
	return CONTAINER_OF(clock, struct clock_virtual, clock)->mono;
}

static int64_t virtual_wall_ms(const struct clock *clock)
{
	return CONTAINER_OF(clock, struct clock_virtual, clock)->wall;
}

void clock_virtual_init(struct clock_virtual *v, int64_t wall_ms)
{
	*v = (struct clock_virtual){{virtual_mono_ms, virtual_wall_ms}, 1000, wall_ms};
}

void clock_virtual_advance(struct clock_virtual *v, int64_t ms)
{
	v->mono += ms;
	v->wall += ms;
}
