#include "queue/id.h"

#define SEQUENCE_MAX ((1u << ID_SEQUENCE_BITS) - 1)
#define SPOOL_MASK ((1u << ID_SPOOL_BITS) - 1)
#define TIME_SHIFT (ID_SPOOL_BITS + ID_SEQUENCE_BITS)

void id_source_init(struct id_source *source, uint64_t spool, uint64_t floor)
{
	*source = (struct id_source){.spool = (uint32_t)spool & SPOOL_MASK};
	if (floor > 0)
		source->time = (floor >> TIME_SHIFT) + ID_RESTART_GAP_MS;
	source->sequence = SEQUENCE_MAX;
}

static uint64_t compose(uint64_t time, uint32_t spool, uint32_t sequence)
{
	return time << TIME_SHIFT | (uint64_t)spool << ID_SEQUENCE_BITS | sequence;
}

uint64_t id_next(struct id_source *source, int64_t wall_ms)
{
	uint64_t now = wall_ms > ID_EPOCH_WALL_MS ? (uint64_t)(wall_ms - ID_EPOCH_WALL_MS) : 0;

	if (now > source->time) {
		source->time = now;
		source->sequence = 0;
	} else if (source->sequence < SEQUENCE_MAX) {
		source->sequence++;
	} else {
		source->time++;
		source->sequence = 0;
	}
	return compose(source->time, source->spool, source->sequence);
}

uint64_t id_floor(const struct id_source *source)
{
	return compose(source->time, source->spool, source->sequence) + 1;
}

int64_t id_wall_ms(uint64_t id)
{
	return (int64_t)(id >> TIME_SHIFT) + ID_EPOCH_WALL_MS;
}
