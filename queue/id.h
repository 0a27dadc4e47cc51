/*
 * queue/id.h - message ids: 64 bits that grow in time and are never used again
 *
 * 42 bits of milliseconds since 2025-01-01T00:00:00Z, 10 bits drawn once per spool, 12 bits of sequence: unique across
 * a fleet as far as 10 bits go, and sorted by age within a spool. When more than 4,096 are drawn in a millisecond, or
 * the clock goes back, the ids run ahead of the clock. base/msgid.h writes them down.
 */
#ifndef QUEUE_ID_H
#define QUEUE_ID_H

#include <stdint.h>

#define ID_EPOCH_WALL_MS 1735689600000 /* 2025-01-01T00:00:00Z */
#define ID_SPOOL_BITS 10
#define ID_SEQUENCE_BITS 12
/* After a restart ids go on this far past the highest that is known: those that were given out and never written down
 * (2^20 of them) are not given out again, whatever the clock says. */
#define ID_RESTART_GAP_MS 256

struct id_source {
	uint64_t time;	   /* ms since the epoch of the last id */
	uint32_t spool;	   /* the 10 bits */
	uint32_t sequence; /* of the last id */
};

/* `floor`: no id below it may be given out (0: a fresh spool); `spool`: its low 10 bits count. */
void id_source_init(struct id_source *source, uint64_t spool, uint64_t floor);
uint64_t id_next(struct id_source *source, int64_t wall_ms);
/* The lowest id that has not been given out, for a segment's header. */
uint64_t id_floor(const struct id_source *source);
/* When an id was given out, by the clock of that time. */
int64_t id_wall_ms(uint64_t id);

#endif
