#include "test/sim/meter.h"

#include "base/base.h"

#include <stdlib.h>

void meter_init(struct meter *meter, unsigned count, int64_t per_ms, int64_t slack_ms)
{
	*meter = (struct meter){.count = count, .per_ms = per_ms, .slack_ms = slack_ms};
}

void meter_fini(struct meter *meter)
{
	free(meter->times);
}

bool meter_note(struct meter *meter, int64_t now_ms)
{
	if (meter->count == 0)
		return true;
	if (meter->seen == meter->cap) {
		meter->cap = meter->cap ? meter->cap * 2 : 64;
		meter->times = xreallocarray(meter->times, meter->cap, sizeof(*meter->times));
	}
	meter->times[meter->seen++] = now_ms;
	return meter->seen <= meter->count ||
	       now_ms - meter->times[meter->seen - 1 - meter->count] >= meter->per_ms - meter->slack_ms;
}

void meter_forgive(struct meter *meter, int64_t since_ms)
{
	while (meter->seen > 0 && meter->times[meter->seen - 1] >= since_ms)
		meter->seen--;
}
