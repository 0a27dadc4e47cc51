/*
 * relayd/loop.h - the one event loop: descriptors, timers, signals, hooks
 *
 * epoll, level-triggered, one thread. A turn: wait; callbacks of ready descriptors; due timers; the end-of-turn hooks
 * in their order; what was posted. A callback may watch, unwatch, post and stop whatever it likes, but not take a turn:
 * a registration that was taken away in this turn never fires, also when its descriptor number is in use again.
 *
 * FAIR     At most 256 descriptors a turn, and the kernel hands out the ready ones in rotation, so none starves. How
 *          much one callback does is its owner's matter: read once, accept a few, come again next turn.
 * NESTED   An epoll descriptor (libmicrohttpd) and those of c-ares and libcurl are watched like any other.
 * VIRTUAL  With a virtual clock: loop_turn(loop, 0) until it returns 0, then move the clock to loop_next_at_ms().
 */
#ifndef RELAYD_LOOP_H
#define RELAYD_LOOP_H

#include "base/clock.h"
#include "base/timer.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct loop;
struct watch;

/* `events`: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP. */
typedef void watch_cb(void *ctx, uint32_t events);

/* The clock is borrowed. */
struct loop *loop_new(const struct clock *clock);
void loop_free(struct loop **loop);
struct timers *loop_timers(struct loop *loop);
/* Monotonic milliseconds, taken once a turn. */
int64_t loop_now_ms(const struct loop *loop);
/* Counts the turns, from 1; 0: before the first. For budgets per turn. */
uint64_t loop_turn_number(const struct loop *loop);

/* `events` 0: only errors and hang-ups are told. The descriptor stays the caller's: unwatch before closing it. A
 * regular file cannot be watched. */
struct watch *loop_watch(struct loop *loop, int fd, uint32_t events, watch_cb *cb, void *ctx);
void loop_watch_events(struct loop *loop, struct watch *watch, uint32_t events);
/* Sets *watch to NULL, accepts NULL. Afterwards the callback never comes. */
void loop_unwatch(struct loop *loop, struct watch **watch);

/* By signalfd; the signal is blocked from then on, until the loop is freed. Several deliveries may be one call. */
void loop_on_signal(struct loop *loop, int signo, void (*cb)(void *ctx, int signo), void *ctx);
/* Called at the end of each turn, in the order of addition. */
void loop_add_turn_hook(struct loop *loop, void (*cb)(void *ctx), void *ctx);
/* Once, at the end of this turn, after the hooks and in the order of posting; what is posted meanwhile comes too (64
 * times over, then the rest waits for the next turn). For freeing what a caller up the stack may still use, and for
 * work that gathers over the turn. */
void loop_post(struct loop *loop, void (*cb)(void *ctx), void *ctx);
/* Forgets what was posted with this `ctx`; for owners that are freed outside a turn. */
void loop_unpost(struct loop *loop, void *ctx);
/* The next turn does not wait longer than until then; for hooks. */
void loop_wake_at(struct loop *loop, int64_t at_ms);

/* One turn; waits at most `max_wait_ms` (-1: as long as nothing is due). How much there was to do; 0: nothing, hooks
 * not counted. */
unsigned loop_turn(struct loop *loop, int max_wait_ms);
/* When there is something to do although nothing comes from outside: the next timer, loop_wake_at(), or now when
 * something is posted; INT64_MAX: never. */
int64_t loop_next_at_ms(const struct loop *loop);
/* Turns until loop_stop(); one that came before counts. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* The longest turn, without its wait, since the last call, in microseconds. */
uint64_t loop_take_longest_turn_us(struct loop *loop);

#endif
