/*
 * Each event carries the address of its watch. A watch that is taken away is marked dead and freed only when no event
 * of this turn can name it any more; that is the generation check, and it costs no map.
 */
#include "relayd/loop.h"

#include "base/base.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

enum { POST_ROUNDS = 64, EVENTS_PER_TURN = 256, HOOKS_MAX = 16, SIGNALS_MAX = 16 };

struct watch {
	int fd;
	uint32_t events;
	watch_cb *cb; /* NULL: taken away in this turn */
	void *ctx;
	struct watch *next_dead;
};

struct post {
	void (*cb)(void *ctx);
	void *ctx;
};

struct loop {
	const struct clock *clock;
	struct timers *timers;
	int epoll_fd;
	int64_t now_ms, wake_at_ms;
	uint64_t turn_number;
	bool stopping, in_turn;
	struct watch *dead; /* freed when no event of this turn can name them any more */
	struct post hooks[HOOKS_MAX];
	size_t hook_count;
	struct post *posts;
	size_t post_count, post_cap;
	struct {
		int signo;
		void (*cb)(void *ctx, int signo);
		void *ctx;
	} signals[SIGNALS_MAX];
	size_t signal_count;
	sigset_t signal_set;
	int signal_fd;
	struct watch *signal_watch;
	uint64_t longest_turn_us;
};

struct loop *loop_new(const struct clock *clock)
{
	struct loop *loop = xcalloc(1, sizeof(*loop));

	loop->clock = clock;
	loop->timers = timers_new();
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	BUG_ON(loop->epoll_fd < 0);
	loop->signal_fd = -1;
	sigemptyset(&loop->signal_set);
	loop->now_ms = clock_mono_ms(clock);
	loop->wake_at_ms = INT64_MAX;
	return loop;
}

static void bury_dead(struct loop *loop)
{
	while (loop->dead) {
		struct watch *watch = loop->dead;
		loop->dead = watch->next_dead;
		free(watch);
	}
}

void loop_free(struct loop **loop)
{
	struct loop *l = *loop;

	if (!l)
		return;
	BUG_ON(l->in_turn);
	loop_unwatch(l, &l->signal_watch);
	if (l->signal_fd >= 0) {
		close(l->signal_fd);
		sigprocmask(SIG_UNBLOCK, &l->signal_set, NULL);
	}
	bury_dead(l);
	timers_free(&l->timers);
	free(l->posts);
	close(l->epoll_fd);
	free(l);
	*loop = NULL;
}

struct timers *loop_timers(struct loop *loop)
{
	return loop->timers;
}

int64_t loop_now_ms(const struct loop *loop)
{
	return loop->now_ms;
}

uint64_t loop_turn_number(const struct loop *loop)
{
	return loop->turn_number;
}

struct watch *loop_watch(struct loop *loop, int fd, uint32_t events, watch_cb *cb, void *ctx)
{
	struct watch *watch = xcalloc(1, sizeof(*watch));
	struct epoll_event event = {.events = events, .data.ptr = watch};

	*watch = (struct watch){fd, events, cb, ctx, NULL};
	BUG_ON(epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0);
	return watch;
}

void loop_watch_events(struct loop *loop, struct watch *watch, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	if (watch->events == events)
		return;
	watch->events = events;
	BUG_ON(epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) != 0);
}

void loop_unwatch(struct loop *loop, struct watch **watch)
{
	struct watch *w = *watch;

	if (!w)
		return;
	*watch = NULL;
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	w->cb = NULL;
	w->next_dead = loop->dead;
	loop->dead = w;
}

static void on_signal_fd(void *ctx, uint32_t events)
{
	struct loop *loop = ctx;
	struct signalfd_siginfo info;

	(void)events;
	while (read(loop->signal_fd, &info, sizeof(info)) == sizeof(info))
		for (size_t i = 0; i < loop->signal_count; i++)
			if (loop->signals[i].signo == (int)info.ssi_signo)
				loop->signals[i].cb(loop->signals[i].ctx, loop->signals[i].signo);
}

void loop_on_signal(struct loop *loop, int signo, void (*cb)(void *ctx, int signo), void *ctx)
{
	BUG_ON(loop->signal_count == SIGNALS_MAX);
	loop->signals[loop->signal_count].signo = signo;
	loop->signals[loop->signal_count].cb = cb;
	loop->signals[loop->signal_count++].ctx = ctx;
	sigaddset(&loop->signal_set, signo);
	sigprocmask(SIG_BLOCK, &loop->signal_set, NULL);
	loop->signal_fd = signalfd(loop->signal_fd, &loop->signal_set, SFD_NONBLOCK | SFD_CLOEXEC);
	BUG_ON(loop->signal_fd < 0);
	if (!loop->signal_watch)
		loop->signal_watch = loop_watch(loop, loop->signal_fd, EPOLLIN, on_signal_fd, loop);
}

void loop_add_turn_hook(struct loop *loop, void (*cb)(void *ctx), void *ctx)
{
	BUG_ON(loop->hook_count == HOOKS_MAX);
	loop->hooks[loop->hook_count++] = (struct post){cb, ctx};
}

void loop_post(struct loop *loop, void (*cb)(void *ctx), void *ctx)
{
	if (loop->post_count == loop->post_cap) {
		loop->post_cap = loop->post_cap ? loop->post_cap * 2 : 32;
		loop->posts = xreallocarray(loop->posts, loop->post_cap, sizeof(*loop->posts));
	}
	loop->posts[loop->post_count++] = (struct post){cb, ctx};
}

void loop_unpost(struct loop *loop, void *ctx)
{
	for (size_t i = 0; i < loop->post_count; i++)
		if (loop->posts[i].ctx == ctx)
			loop->posts[i].cb = NULL;
}

void loop_wake_at(struct loop *loop, int64_t at_ms)
{
	if (at_ms < loop->wake_at_ms)
		loop->wake_at_ms = at_ms;
}

int64_t loop_next_at_ms(const struct loop *loop)
{
	if (loop->post_count > 0)
		return loop->now_ms;
	return MIN(timers_next_at_ms(loop->timers), loop->wake_at_ms);
}

static int wait_ms(const struct loop *loop, int max_wait_ms)
{
	int64_t until = loop_next_at_ms(loop), wait;

	if (until == INT64_MAX)
		return max_wait_ms;
	wait = MIN(MAX(until - clock_mono_ms(loop->clock), 0), (int64_t)INT32_MAX);
	return (int)(max_wait_ms >= 0 ? MIN(wait, (int64_t)max_wait_ms) : wait);
}

/* Those posted meanwhile run too, since they free what the first ones let go; but not for ever: two that post each
 * other must not keep the turn. What is left then comes at the end of the next one, which does not wait. */
static unsigned run_posts(struct loop *loop)
{
	size_t done = 0;
	unsigned called = 0;

	for (int round = 0; round < POST_ROUNDS && done < loop->post_count; round++)
		for (size_t end = loop->post_count; done < end; done++) {
			struct post post = loop->posts[done]; /* the array may move under our feet */
			if (!post.cb)
				continue;
			post.cb(post.ctx);
			called++;
		}
	loop->post_count -= done;
	if (loop->post_count > 0)
		memmove(loop->posts, loop->posts + done, loop->post_count * sizeof(*loop->posts));
	return called;
}

static uint64_t now_us(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static unsigned dispatch(const struct epoll_event *events, int count)
{
	unsigned called = 0;

	for (int i = 0; i < count; i++) {
		struct watch *watch = events[i].data.ptr;
		if (!watch->cb)
			continue;
		watch->cb(watch->ctx, events[i].events);
		called++;
	}
	return called;
}

unsigned loop_turn(struct loop *loop, int max_wait_ms)
{
	struct epoll_event events[EVENTS_PER_TURN];
	int count = epoll_wait(loop->epoll_fd, events, EVENTS_PER_TURN, wait_ms(loop, max_wait_ms));
	uint64_t began = now_us(), took;
	unsigned called;

	BUG_ON(count < 0 && errno != EINTR);
	BUG_ON(loop->in_turn);
	loop->in_turn = true;
	loop->turn_number++;
	loop->now_ms = clock_mono_ms(loop->clock);
	loop->wake_at_ms = INT64_MAX;
	called = dispatch(events, count);
	bury_dead(loop);
	called += timers_next_at_ms(loop->timers) <= loop->now_ms;
	timers_run(loop->timers, loop->now_ms);
	for (size_t i = 0; i < loop->hook_count; i++)
		loop->hooks[i].cb(loop->hooks[i].ctx);
	called += run_posts(loop);
	bury_dead(loop);
	loop->in_turn = false;
	took = now_us() - began;
	loop->longest_turn_us = MAX(loop->longest_turn_us, took);
	return called;
}

void loop_run(struct loop *loop)
{
	while (!loop->stopping)
		loop_turn(loop, -1);
	loop->stopping = false;
}

void loop_stop(struct loop *loop)
{
	loop->stopping = true;
}

uint64_t loop_take_longest_turn_us(struct loop *loop)
{
	uint64_t longest = loop->longest_turn_us;
	loop->longest_turn_us = 0;
	return longest;
}
