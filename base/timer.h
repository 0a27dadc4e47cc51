/*
 * base/timer.h - all timers of the process in one heap
 *
 * A timer is an id, not a pointer: cancelling one that has fired, or 0, is harmless, and after timers_cancel() the
 * callback never comes. Times are absolute, in milliseconds of clock_mono_ms().
 */
#ifndef BASE_TIMER_H
#define BASE_TIMER_H

#include <stdint.h>

typedef uint64_t timer_id; /* 0: none */
typedef void timer_cb(void *ctx);

struct timers;

struct timers *timers_new(void);
void timers_free(struct timers **timers);
timer_id timers_add(struct timers *timers, int64_t at_ms, timer_cb *cb, void *ctx);
/* Cancels *id and sets it to 0. */
void timers_cancel(struct timers *timers, timer_id *id);
/* Cancels *id, then adds a new one in its place. */
void timers_set(struct timers *timers, timer_id *id, int64_t at_ms, timer_cb *cb, void *ctx);
/* When the first is due; INT64_MAX: none. */
int64_t timers_next_at_ms(const struct timers *timers);
/* Fires all that are due at `now_ms`, in the order of time; those added meanwhile wait for the next call. A callback
 * may add and cancel, also others that are due; it may not call this. */
void timers_run(struct timers *timers, int64_t now_ms);

#endif
