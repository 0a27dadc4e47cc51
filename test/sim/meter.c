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

static size_t insert(struct meter *meter, int64_t at_ms)
{
	size_t at = meter->seen;

	if (meter->seen == meter->cap) {
		meter->cap = meter->cap ? meter->cap * 2 : 64;
		meter->times = xreallocarray(meter->times, meter->cap, sizeof(*meter->times));
	}
	for (; at > 0 && meter->times[at - 1] > at_ms; at--)
		meter->times[at] = meter->times[at - 1];
	meter->times[at] = at_ms;
	meter->seen++;
	return at;
}

bool meter_note(struct meter *meter, int64_t at_ms)
{
	bool is_kept = true;
	size_t at;

	if (meter->count == 0)
		return true;
	at = insert(meter, at_ms);
	for (size_t i = at > meter->count ? at - meter->count : 0; i <= at && i + meter->count < meter->seen; i++)
		is_kept &= meter->times[i + meter->count] - meter->times[i] >= meter->per_ms - meter->slack_ms;
	return is_kept;
}

void meter_forgive(struct meter *meter, int64_t since_ms)
{
	while (meter->seen > 0 && meter->times[meter->seen - 1] >= since_ms)
		meter->seen--;
}
