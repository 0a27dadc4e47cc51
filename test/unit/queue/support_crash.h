/* The end of the daemon in a history, its start on what is left on the disk, and the checks behind it. */
#ifndef TEST_QUEUE_SUPPORT_CRASH_H
#define TEST_QUEUE_SUPPORT_CRASH_H

#include "support_model.h"

/* The daemon is gone, whatever it was doing. */
void crash_forget_queue(struct run *run);
/* Opens until it succeeds; the first `faults` tries may be cut short or meet errors. */
void crash_recover(struct run *run, uint64_t seed, uint32_t faults);
/* Killed, or the power is cut; recovered, sometimes twice, and checked. `b`: seed, and faults during recovery. */
void crash_now(struct run *run, bool power, uint32_t b);
/* Bits rot in one record, or in one of the two headers, of a segment that is needed; then the daemon starts again. */
void crash_with_rot(struct run *run, uint32_t a, uint32_t b);

#endif
