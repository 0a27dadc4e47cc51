/* The event loop: turns, registrations that go away, timers, posts, hooks, signals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/loop.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fixture {
	struct clock_virtual clock;
	struct loop *loop;
	char trace[256]; /* one letter for each callback */
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	clock_virtual_init(&f->clock, 1000);
	f->loop = loop_new(&f->clock.clock);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	loop_free(&f->loop);
	assert_null(f->loop);
	free(f);
	return 0;
}

static void note(struct fixture *f, char letter)
{
	size_t len = strlen(f->trace);

	assert_true(len + 1 < sizeof(f->trace));
	f->trace[len] = letter;
}

/* A pipe that has something to read, and who watches it. */
struct source {
	struct fixture *f;
	int fds[2];
	struct watch *watch;
	char letter;
	struct source *victim, *successor;
};

static void source_open(struct source *s, struct fixture *f, char letter)
{
	*s = (struct source){.f = f, .letter = letter};
	assert_int_equal(pipe2(s->fds, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(write(s->fds[1], "x", 1), 1);
}

static void source_close(struct source *s)
{
	loop_unwatch(s->f->loop, &s->watch);
	close(s->fds[0]);
	close(s->fds[1]);
}

static void on_source(void *ctx, uint32_t events)
{
	struct source *s = ctx;
	char byte;

	assert_true(events & EPOLLIN);
	assert_int_equal(read(s->fds[0], &byte, 1), 1);
	note(s->f, s->letter);
}

static void a_ready_descriptor_calls_back_and_a_silent_one_does_not(void **state)
{
	struct fixture *f = *state;
	struct source a, b;

	source_open(&a, f, 'a');
	source_open(&b, f, 'b');
	a.watch = loop_watch(f->loop, a.fds[0], EPOLLIN, on_source, &a);
	b.watch = loop_watch(f->loop, b.fds[0], 0, on_source, &b);
	assert_int_equal(loop_turn(f->loop, 0), 1);
	assert_string_equal(f->trace, "a");
	assert_int_equal(loop_turn(f->loop, 0), 0);
	loop_watch_events(f->loop, b.watch, EPOLLIN);
	assert_int_equal(loop_turn(f->loop, 0), 1);
	assert_string_equal(f->trace, "ab");
	assert_int_equal(loop_turn_number(f->loop), 3);
	source_close(&a);
	source_close(&b);
}

static void on_killer(void *ctx, uint32_t events)
{
	struct source *s = ctx;
	int number = s->victim->fds[0];

	on_source(s, events);
	if (!s->victim->watch)
		return;
	loop_unwatch(s->f->loop, &s->victim->watch);
	loop_unwatch(s->f->loop, &s->watch);
	/* The same number, another pipe, another owner. */
	assert_int_equal(dup2(s->successor->fds[0], number), number);
	close(s->successor->fds[0]);
	s->successor->fds[0] = number;
	s->successor->watch = loop_watch(s->f->loop, number, EPOLLIN, on_source, s->successor);
}

/* Both of a and b are ready in the same turn; whoever comes first takes the other away and gives its number to c, which
 * is ready too. The event that was polled for the dead one must reach nobody in this turn. */
static void an_event_for_a_dead_registration_never_reaches_the_heir_of_its_number(void **state)
{
	struct fixture *f = *state;
	struct source a, b, c;

	source_open(&a, f, 'a');
	source_open(&b, f, 'b');
	source_open(&c, f, 'c');
	a.victim = &b;
	b.victim = &a;
	a.successor = b.successor = &c;
	a.watch = loop_watch(f->loop, a.fds[0], EPOLLIN, on_killer, &a);
	b.watch = loop_watch(f->loop, b.fds[0], EPOLLIN, on_killer, &b);
	assert_int_equal(loop_turn(f->loop, 0), 1);
	assert_int_equal(strlen(f->trace), 1);
	assert_int_not_equal(f->trace[0], 'c');
	assert_int_equal(loop_turn(f->loop, 0), 1);
	assert_int_equal(f->trace[1], 'c');
	/* The killed one's number belongs to c now. */
	if (f->trace[0] == 'a')
		b.fds[0] = -1;
	else
		a.fds[0] = -1;
	source_close(&a);
	source_close(&b);
	source_close(&c);
}

static void on_suicide(void *ctx, uint32_t events)
{
	struct source *s = ctx;

	note(s->f, s->letter);
	(void)events;
	loop_unwatch(s->f->loop, &s->watch);
	loop_unwatch(s->f->loop, &s->watch);
}

static void a_callback_may_take_its_own_registration_away(void **state)
{
	struct fixture *f = *state;
	struct source a;

	source_open(&a, f, 'a');
	a.watch = loop_watch(f->loop, a.fds[0], EPOLLIN, on_suicide, &a);
	loop_turn(f->loop, 0);
	assert_int_equal(loop_turn(f->loop, 0), 0);
	assert_string_equal(f->trace, "a");
	source_close(&a);
}

static void a_nested_epoll_descriptor_is_watched_like_any_other(void **state)
{
	struct fixture *f = *state;
	struct source inner;
	struct source outer = {.f = f, .letter = 'n'};
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN};

	source_open(&inner, f, 'i');
	assert_int_equal(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, inner.fds[0], &event), 0);
	outer.watch = loop_watch(f->loop, epoll_fd, EPOLLIN, on_suicide, &outer);
	assert_int_equal(loop_turn(f->loop, 0), 1);
	assert_string_equal(f->trace, "n");
	close(epoll_fd);
	source_close(&inner);
}

static void on_always_ready(void *ctx, uint32_t events)
{
	unsigned *served = ctx;

	(void)events;
	++*served;
}

/* More are ready, all the time, than fit in one turn: none is served twice before all have been served once. */
static void many_ready_descriptors_are_served_in_rotation(void **state)
{
	enum { COUNT = 600 };
	struct fixture *f = *state;
	unsigned served[COUNT] = {0}, total = 0;
	struct watch *watches[COUNT];
	int fds[COUNT], pipes[2];

	assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(write(pipes[1], "x", 1), 1);
	for (int i = 0; i < COUNT; i++) {
		fds[i] = fcntl(pipes[0], F_DUPFD_CLOEXEC, 3);
		assert_true(fds[i] >= 0);
		watches[i] = loop_watch(f->loop, fds[i], EPOLLIN, on_always_ready, &served[i]);
	}
	while (total < 3 * COUNT) {
		unsigned least = UINT32_MAX, most = 0;
		total += loop_turn(f->loop, 0);
		for (int i = 0; i < COUNT; i++) {
			least = MIN(least, served[i]);
			most = MAX(most, served[i]);
		}
		assert_true(most - least <= 1);
	}
	for (int i = 0; i < COUNT; i++) {
		loop_unwatch(f->loop, &watches[i]);
		close(fds[i]);
	}
	close(pipes[0]);
	close(pipes[1]);
}

struct step {
	struct fixture *f;
	char letter;
	struct step *then;
};

static void on_step(void *ctx)
{
	struct step *step = ctx;

	note(step->f, step->letter);
	if (step->then)
		loop_post(step->f->loop, on_step, step->then);
}

static void a_turn_runs_events_timers_hooks_and_posts_in_this_order(void **state)
{
	struct fixture *f = *state;
	struct source a;
	struct step hook1 = {f, 'h', NULL}, hook2 = {f, 'H', NULL}, timer = {f, 't', NULL}, second = {f, 'q', NULL},
		    first = {f, 'p', &second};

	source_open(&a, f, 'a');
	a.watch = loop_watch(f->loop, a.fds[0], EPOLLIN, on_source, &a);
	loop_add_turn_hook(f->loop, on_step, &hook1);
	loop_add_turn_hook(f->loop, on_step, &hook2);
	timers_add(loop_timers(f->loop), loop_now_ms(f->loop), on_step, &timer);
	loop_post(f->loop, on_step, &first);
	loop_turn(f->loop, -1);
	assert_string_equal(f->trace, "athHpq");
	source_close(&a);
}

static void what_was_posted_outside_a_turn_does_not_wait_for_an_event(void **state)
{
	struct fixture *f = *state;
	struct step a = {f, 'a', NULL}, b = {f, 'b', NULL};

	loop_post(f->loop, on_step, &a);
	loop_post(f->loop, on_step, &b);
	loop_unpost(f->loop, &a);
	assert_int_equal(loop_next_at_ms(f->loop), loop_now_ms(f->loop));
	loop_turn(f->loop, -1); /* would hang */
	assert_string_equal(f->trace, "b");
	assert_true(loop_next_at_ms(f->loop) == INT64_MAX);
}

static void on_endless(void *ctx)
{
	struct step *step = ctx;

	step->letter++;
	loop_post(step->f->loop, on_endless, step);
}

static void posts_that_post_each_other_do_not_keep_the_turn(void **state)
{
	struct fixture *f = *state;
	struct step endless = {f, 0, NULL}, last = {f, 'l', NULL};

	loop_post(f->loop, on_endless, &endless);
	loop_turn(f->loop, 0); /* would not end */
	loop_post(f->loop, on_step, &last);
	loop_turn(f->loop, -1); /* and does not wait */
	assert_string_equal(f->trace, "l");
	loop_unpost(f->loop, &endless);
	loop_turn(f->loop, 0);
	assert_true(loop_next_at_ms(f->loop) == INT64_MAX);
}

static void a_hook_may_ask_to_be_woken(void **state)
{
	struct fixture *f = *state;
	int64_t now = loop_now_ms(f->loop);

	loop_wake_at(f->loop, now + 50);
	loop_wake_at(f->loop, now + 90);
	assert_int_equal(loop_next_at_ms(f->loop), now + 50);
	clock_virtual_advance(&f->clock, 50);
	loop_turn(f->loop, -1);
	assert_int_equal(loop_now_ms(f->loop), now + 50);
	assert_true(loop_next_at_ms(f->loop) == INT64_MAX); /* once */
}

static void a_due_timer_counts_as_something_to_do(void **state)
{
	struct fixture *f = *state;
	struct step timer = {f, 't', NULL};

	timers_add(loop_timers(f->loop), loop_now_ms(f->loop) + 10, on_step, &timer);
	assert_int_equal(loop_turn(f->loop, 0), 0);
	assert_string_equal(f->trace, "");
	clock_virtual_advance(&f->clock, 10);
	assert_int_equal(loop_turn(f->loop, 0), 1);
	assert_string_equal(f->trace, "t");
}

static void on_signal(void *ctx, int signo)
{
	struct fixture *f = ctx;

	note(f, signo == SIGUSR1 ? '1' : '2');
	if (signo == SIGUSR2)
		loop_stop(f->loop);
}

static void signals_come_through_the_loop_and_stop_it(void **state)
{
	struct fixture *f = *state;
	sigset_t blocked;

	loop_on_signal(f->loop, SIGUSR1, on_signal, f);
	loop_on_signal(f->loop, SIGUSR2, on_signal, f);
	raise(SIGUSR1);
	raise(SIGUSR2);
	loop_run(f->loop);
	assert_string_equal(f->trace, "12");
	loop_free(&f->loop);
	sigprocmask(SIG_SETMASK, NULL, &blocked);
	assert_false(sigismember(&blocked, SIGUSR1));
	f->loop = loop_new(&f->clock.clock);
}

static void a_stop_before_the_run_counts(void **state)
{
	struct fixture *f = *state;

	loop_stop(f->loop);
	loop_run(f->loop); /* would hang */
	assert_int_equal(loop_turn_number(f->loop), 0);
}

static void on_slow(void *ctx)
{
	(void)ctx;
	usleep(3000);
}

static void the_longest_turn_is_remembered_until_it_is_asked_for(void **state)
{
	struct fixture *f = *state;

	loop_post(f->loop, on_slow, NULL);
	loop_turn(f->loop, 0);
	loop_turn(f->loop, 0);
	assert_true(loop_take_longest_turn_us(f->loop) >= 3000);
	assert_int_equal(loop_take_longest_turn_us(f->loop), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	    TEST(a_ready_descriptor_calls_back_and_a_silent_one_does_not),
	    TEST(an_event_for_a_dead_registration_never_reaches_the_heir_of_its_number),
	    TEST(a_callback_may_take_its_own_registration_away),
	    TEST(a_nested_epoll_descriptor_is_watched_like_any_other),
	    TEST(many_ready_descriptors_are_served_in_rotation),
	    TEST(a_turn_runs_events_timers_hooks_and_posts_in_this_order),
	    TEST(what_was_posted_outside_a_turn_does_not_wait_for_an_event),
	    TEST(posts_that_post_each_other_do_not_keep_the_turn),
	    TEST(a_hook_may_ask_to_be_woken),
	    TEST(a_due_timer_counts_as_something_to_do),
	    TEST(signals_come_through_the_loop_and_stop_it),
	    TEST(a_stop_before_the_run_counts),
	    TEST(the_longest_turn_is_remembered_until_it_is_asked_for),
	};
	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
