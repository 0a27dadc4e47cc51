/* Connections that wait for a PROXY header: what is read, what is left in the socket, and how long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/proxy_gate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct fixture {
	struct clock_virtual clock;
	struct loop *loop;
	struct proxy_gates *gates;
	int peer;
	unsigned passed, refused;
	int fd; /* that was passed */
	struct proxy_header header;
	char why[256];
	int tag;
};

static void on_header(void *ctx, void *tag, int fd, const struct net_peer *balancer, const struct proxy_header *header)
{
	struct fixture *f = ctx;

	assert_ptr_equal(tag, &f->tag);
	assert_int_equal(balancer->port, 4711);
	f->passed++;
	f->fd = fd;
	f->header = *header;
}

static void on_refused(void *ctx, void *tag, const struct net_peer *balancer, const char *why)
{
	struct fixture *f = ctx;

	assert_ptr_equal(tag, &f->tag);
	assert_int_equal(balancer->port, 4711);
	f->refused++;
	snprintf(f->why, sizeof(f->why), "%s", why);
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	const struct net_peer balancer = {.address = {DNS_IPV4, {10, 0, 0, 1}}, .port = 4711};
	int fds[2];

	clock_virtual_init(&f->clock, 0);
	f->loop = loop_new(&f->clock.clock);
	f->gates = proxy_gates_new(f->loop, &(struct proxy_gate_events){f, on_header, on_refused});
	f->fd = -1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	f->peer = fds[0];
	proxy_gates_add(f->gates, fds[1], &balancer, &f->tag);
	assert_int_equal(proxy_gates_count(f->gates), 1);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	proxy_gates_free(&f->gates);
	loop_free(&f->loop);
	if (f->fd >= 0)
		close(f->fd);
	if (f->peer >= 0)
		close(f->peer);
	free(f);
	return 0;
}

static void say(struct fixture *f, const char *text)
{
	assert_int_equal(send(f->peer, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* How many callbacks there were: one that finds nothing new must not be called again and again. */
static unsigned turns(struct fixture *f)
{
	unsigned sum = 0, n;

	while ((n = loop_turn(f->loop, 0)) > 0)
		sum += n;
	return sum;
}

static void what_is_behind_the_header_stays_in_the_socket(void **state)
{
	struct fixture *f = *state;
	char rest[64];

	say(f, "PROXY TCP4 192.0.2.1 192.0.2.2 25 587\r\nEHLO x\r\n");
	turns(f);
	assert_int_equal(f->passed, 1);
	assert_int_equal(f->header.port, 25);
	assert_int_equal(proxy_gates_count(f->gates), 0);
	assert_int_equal(recv(f->fd, rest, sizeof(rest), MSG_DONTWAIT), 8);
	assert_memory_equal(rest, "EHLO x\r\n", 8);
}

static void a_header_in_pieces_does_not_spin(void **state)
{
	struct fixture *f = *state;
	const char *pieces[] = {"P", "ROXY ", "TCP4 192.0.2.1", " 192.0.2.2 25 587\r", "\n"};

	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		assert_int_equal(f->passed, 0);
		say(f, pieces[i]);
		assert_int_equal(turns(f), 1);
	}
	assert_int_equal(f->passed, 1);
}

static void time_runs_out_however_it_trickles(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 9; i++) {
		say(f, i ? "x" : "PROXY UNKNOWN ");
		turns(f);
		clock_virtual_advance(&f->clock, PROXY_GATE_MS / 10);
		turns(f);
	}
	assert_int_equal(f->refused, 0);
	clock_virtual_advance(&f->clock, PROXY_GATE_MS / 10);
	turns(f);
	assert_int_equal(f->refused, 1);
	assert_non_null(strstr(f->why, "in time"));
	assert_int_equal(proxy_gates_count(f->gates), 0);
}

static void broken_headers_and_early_ends_are_refused_once(void **state)
{
	struct fixture *f = *state;

	say(f, "EHLO x\r\n");
	turns(f);
	assert_int_equal(f->refused, 1);
	clock_virtual_advance(&f->clock, 2 * PROXY_GATE_MS);
	turns(f);
	assert_int_equal(f->refused, 1);
	assert_int_equal(f->passed, 0);
}

static void an_end_instead_of_a_header_is_refused(void **state)
{
	struct fixture *f = *state;

	say(f, "PROXY TC");
	close(f->peer);
	f->peer = -1;
	turns(f);
	assert_int_equal(f->refused, 1);
}

static void those_that_wait_are_closed_with_the_rest(void **state)
{
	struct fixture *f = *state;
	char byte;

	proxy_gates_free(&f->gates);
	assert_int_equal(recv(f->peer, &byte, 1, MSG_DONTWAIT), 0);
	turns(f);
	assert_int_equal(f->refused + f->passed, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	static const struct CMUnitTest tests[] = {
	    TEST(what_is_behind_the_header_stays_in_the_socket),
	    TEST(a_header_in_pieces_does_not_spin),
	    TEST(time_runs_out_however_it_trickles),
	    TEST(broken_headers_and_early_ends_are_refused_once),
	    TEST(an_end_instead_of_a_header_is_refused),
	    TEST(those_that_wait_are_closed_with_the_rest),
	};

	return cmocka_run_group_tests_name("proxy_gate", tests, NULL, NULL);
}
