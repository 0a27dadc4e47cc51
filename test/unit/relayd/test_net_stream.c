/* Streams in clear text: a peer that trickles, stalls, resets, half-closes, never reads; owners that close anywhere. */
#include "support_peer.h"

#include <unistd.h>

struct fixture {
	struct loop *loop;
	struct net *net;
	struct owner owner;
	int peer;
};

static int setup_with(void **state, void (*make_pair)(int fds[2]))
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct stream_events events;
	int fds[2];

	f->loop = loop_new(clock_system());
	f->net = net_new(f->loop);
	owner_init(&f->owner, f->loop);
	events = owner_events(&f->owner);
	make_pair(fds);
	f->owner.stream = stream_new(f->net, fds[0], &events);
	f->peer = fds[1];
	*state = f;
	return 0;
}

static void unix_pair(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
}

static int setup(void **state)
{
	return setup_with(state, unix_pair);
}

static int setup_tcp(void **state)
{
	return setup_with(state, tcp_pair);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	owner_fini(&f->owner);
	if (f->peer >= 0)
		close(f->peer);
	net_free(&f->net);
	loop_free(&f->loop);
	free(f);
	return 0;
}

static void assert_input(const struct owner *owner, const char *text)
{
	assert_true(slice_eq(buf_slice(&owner->input), slice_of_str(text)));
}

/* ---- input ---- */

static void a_peer_that_trickles_is_heard_octet_by_octet(void **state)
{
	struct fixture *f = *state;
	const char *text = "EHLO app\r\n";

	for (size_t i = 0; text[i]; i++) {
		assert_int_equal(send(f->peer, &text[i], 1, 0), 1);
		turn_until_input(f->loop, &f->owner, i + 1);
	}
	assert_input(&f->owner, text);
	assert_int_equal(f->owner.inputs, strlen(text));
}

static void a_stalled_peer_costs_no_turn(void **state)
{
	struct fixture *f = *state;

	peer_write(f->peer, "EH");
	turn_until_input(f->loop, &f->owner, 2);
	assert_int_equal(loop_turn(f->loop, 0), 0);
	assert_int_equal(f->owner.ends, 0);
}

static void what_the_owner_does_not_take_waits_and_comes_again_in_order(void **state)
{
	struct fixture *f = *state;

	f->owner.appetite = 3;
	peer_write(f->peer, "abcdef");
	turn_until_input(f->loop, &f->owner, 3);
	peer_write(f->peer, "ghi");
	turn_until_quiet(f->loop);
	assert_input(&f->owner, "abc");
	assert_int_equal(f->owner.inputs, 1); /* the rest is not pressed on it */
	f->owner.appetite = 2;
	stream_resume(f->owner.stream);
	assert_input(&f->owner, "abc"); /* never from inside */
	turn_until_quiet(f->loop);
	assert_input(&f->owner, "abcde");
	f->owner.appetite = SIZE_MAX;
	stream_resume(f->owner.stream);
	turn_until_quiet(f->loop);
	assert_input(&f->owner, "abcdefghi");
}

static void a_paused_stream_reads_nothing_from_the_socket(void **state)
{
	struct fixture *f = *state;
	static const char block[64 * 1024];
	size_t written = 0;
	ssize_t n;

	stream_pause(f->owner.stream);
	turn_until_quiet(f->loop);
	while ((n = send(f->peer, block, sizeof(block), MSG_DONTWAIT)) > 0) {
		written += (size_t)n;
		turn_until_quiet(f->loop);
		assert_true(written < 16 * 1024 * 1024); /* the kernel's buffers, and no more */
	}
	assert_int_equal(buf_len(&f->owner.input), 0);
	stream_resume(f->owner.stream);
	turn_until_input(f->loop, &f->owner, written);
}

static void one_read_a_turn_leaves_room_for_others(void **state)
{
	struct fixture *f = *state;
	static const char block[128 * 1024];
	ssize_t n = send(f->peer, block, sizeof(block), MSG_DONTWAIT);

	assert_true(n > 64 * 1024);
	loop_turn(f->loop, 0);
	assert_true(buf_len(&f->owner.input) > 0);
	assert_true(buf_len(&f->owner.input) <= 64 * 1024);
	turn_until_input(f->loop, &f->owner, (size_t)n);
}

/* ---- output ---- */

static void what_is_written_in_a_turn_goes_out_as_one(void **state)
{
	struct fixture *f = *state;
	char got[64];

	stream_write(f->owner.stream, SLICE("250-relay\r\n"));
	stream_write(f->owner.stream, SLICE(""));
	stream_write(f->owner.stream, SLICE("250 SIZE\r\n"));
	assert_int_equal(stream_unsent(f->owner.stream), 21);
	assert_int_equal(peer_read(f->peer, got, sizeof(got)), 0);
	loop_turn(f->loop, 0);
	assert_int_equal(peer_read(f->peer, got, sizeof(got)), 21);
	assert_memory_equal(got, "250-relay\r\n250 SIZE\r\n", 21);
	assert_int_equal(stream_unsent(f->owner.stream), 0);
	assert_int_equal(f->owner.drained, 1);
	turn_until_quiet(f->loop);
	assert_int_equal(f->owner.drained, 1);
}

static void a_request_is_answered_in_the_turn_it_comes(void **state)
{
	struct fixture *f = *state;
	char got[8];

	f->owner.answer = true;
	peer_write(f->peer, "NOOP\r\n");
	loop_turn(f->loop, 1000);
	assert_int_equal(peer_read(f->peer, got, sizeof(got)), 6);
}

static void a_large_body_arrives_whole_although_the_peer_is_slow(void **state)
{
	enum { BODY = 8 * 1024 * 1024 };
	struct fixture *f = *state;
	char *got = xmalloc(BODY + 1);

	f->owner.feed = BODY - 1;
	stream_write(f->owner.stream, SLICE("x"));
	assert_int_equal(peer_read_all(f->loop, f->peer, got, BODY), BODY);
	turn_until(f->loop, &f->owner.drained, BODY / (64 * 1024) + 1);
	assert_int_equal(peer_read(f->peer, got, 1), 0);
	free(got);
}

/* The kernel has room again at once, each time: the stream must not keep the turn for itself. */
static void a_fast_reader_gets_a_bounded_share_of_a_turn(void **state)
{
	struct fixture *f = *state;

	f->owner.fast_peer = f->peer;
	f->owner.feed = 8 * 1024 * 1024;
	stream_write(f->owner.stream, SLICE("x"));
	while (f->owner.feed > 0) {
		assert_true(loop_turn(f->loop, 1000) > 0);
		assert_true(f->owner.drained_in_turn <= 8);
	}
}

/* F12 */
static void a_client_that_never_reads_is_not_read_from_above_the_mark(void **state)
{
	struct fixture *f = *state;
	static char block[16 * 1024];
	size_t written = 0, got = 0;
	ssize_t n;

	f->owner.answer = true;
	stream_set_high_water(f->owner.stream, 64 * 1024);
	while ((n = send(f->peer, block, sizeof(block), MSG_DONTWAIT)) > 0) {
		written += (size_t)n;
		turn_until_quiet(f->loop);
		assert_true(written < 16 * 1024 * 1024);
	}
	assert_true(stream_unsent(f->owner.stream) <= 2 * 64 * 1024);
	assert_int_equal(f->owner.ends, 0);
	/* Once it reads, everything comes, in order and whole. */
	while (got < written) {
		n = peer_read(f->peer, block, sizeof(block));
		assert_true(n >= 0);
		got += (size_t)n;
		loop_turn(f->loop, n > 0 ? 0 : 10);
	}
	assert_int_equal(buf_len(&f->owner.input), written);
}

static void an_owner_that_writes_without_looking_breaks_the_stream_at_the_ceiling(void **state)
{
	struct fixture *f = *state;
	static const char block[1024 * 1024];

	for (int i = 0; i < 5; i++)
		stream_write(f->owner.stream, slice_of(block, sizeof(block)));
	assert_int_equal(stream_unsent(f->owner.stream), 0);
	turn_until(f->loop, &f->owner.ends, 1);
	assert_string_equal(f->owner.why, "too much is waiting to be sent");
}

/* ---- ends ---- */

static void a_fin_is_told_once_after_all_input(void **state)
{
	struct fixture *f = *state;

	peer_write(f->peer, "QUIT\r\n");
	close(f->peer);
	f->peer = -1;
	turn_until(f->loop, &f->owner.ends, 1);
	assert_input(&f->owner, "QUIT\r\n");
	assert_string_equal(f->owner.why, "");
	turn_until_quiet(f->loop);
	assert_int_equal(f->owner.ends, 1);
	assert_int_equal(loop_turn(f->loop, 0), 0); /* a hang-up does not spin */
}

static void an_end_waits_for_input_that_the_owner_has_not_taken(void **state)
{
	struct fixture *f = *state;

	f->owner.appetite = 1;
	peer_write(f->peer, "ab");
	shutdown(f->peer, SHUT_WR);
	turn_until_quiet(f->loop);
	assert_input(&f->owner, "a");
	assert_int_equal(f->owner.ends, 0);
	f->owner.appetite = SIZE_MAX;
	stream_resume(f->owner.stream);
	turn_until(f->loop, &f->owner.ends, 1);
	assert_input(&f->owner, "ab");
}

static void a_hung_up_peer_of_a_paused_stream_does_not_spin_and_is_read_on_resume(void **state)
{
	struct fixture *f = *state;

	stream_pause(f->owner.stream);
	turn_until_quiet(f->loop);
	peer_write(f->peer, "last words");
	close(f->peer);
	f->peer = -1;
	turn_until_quiet(f->loop); /* would not end */
	assert_int_equal(buf_len(&f->owner.input), 0);
	assert_int_equal(f->owner.ends, 0);
	stream_resume(f->owner.stream);
	turn_until(f->loop, &f->owner.ends, 1);
	assert_input(&f->owner, "last words");
}

static void a_half_closed_peer_still_gets_the_answer(void **state)
{
	struct fixture *f = *state;
	char got[16];

	peer_write(f->peer, ".\r\n");
	shutdown(f->peer, SHUT_WR);
	turn_until(f->loop, &f->owner.ends, 1);
	stream_write(f->owner.stream, SLICE("250 ok\r\n"));
	turn_until_quiet(f->loop);
	assert_int_equal(f->owner.drained, 1);
	assert_int_equal(peer_read(f->peer, got, sizeof(got)), 8);
	stream_write(f->owner.stream, SLICE("221 bye\r\n"));
	stream_close_gently(&f->owner.stream, 5000);
	assert_null(f->owner.stream);
	assert_int_equal(peer_read_all(f->loop, f->peer, got, sizeof(got)), 9);
	turn_until_quiet(f->loop);
	assert_int_equal(net_stream_count(f->net), 0);
}

static void a_half_closed_peer_that_reads_slowly_gets_all_of_it(void **state)
{
	enum { SIZE = 3 * 1024 * 1024 };
	struct fixture *f = *state;
	char *bytes = xcalloc(1, SIZE);

	shutdown(f->peer, SHUT_WR);
	turn_until(f->loop, &f->owner.ends, 1);
	stream_write(f->owner.stream, slice_of(bytes, SIZE));
	stream_close_gently(&f->owner.stream, 9000);
	assert_int_equal(peer_read_all(f->loop, f->peer, bytes, SIZE + 1), SIZE);
	free(bytes);
}

static void a_reset_is_told_in_words(void **state)
{
	struct fixture *f = *state;

	stream_write(f->owner.stream, SLICE("220 relay\r\n"));
	turn_until_quiet(f->loop);
	peer_reset(f->peer);
	f->peer = -1;
	turn_until(f->loop, &f->owner.ends, 1);
	assert_string_equal(f->owner.why, "Connection reset by peer");
	stream_write(f->owner.stream, SLICE("into the void"));
	assert_int_equal(stream_unsent(f->owner.stream), 0);
	turn_until_quiet(f->loop);
	assert_int_equal(f->owner.ends, 1);
}

/* A server that has had enough says why and closes while we are still sending: its words count more than our EPIPE. */
static void the_reply_before_a_broken_write_is_still_read(void **state)
{
	struct fixture *f = *state;
	static const char block[1024 * 1024];

	peer_write(f->peer, "552 too large\r\n");
	close(f->peer); /* with nothing unread: a FIN; our octets will be answered by a reset */
	f->peer = -1;
	for (int i = 0; i < 3; i++)
		stream_write(f->owner.stream, slice_of(block, sizeof(block)));
	turn_until(f->loop, &f->owner.ends, 1);
	assert_input(&f->owner, "552 too large\r\n");
}

static void closing_inside_on_input_is_safe_and_final(void **state)
{
	struct fixture *f = *state;

	f->owner.close_at_input = f->owner.answer = true;
	peer_write(f->peer, "abc");
	turn_until(f->loop, &f->owner.inputs, 1);
	turn_until_quiet(f->loop);
	assert_null(f->owner.stream);
	assert_int_equal(net_stream_count(f->net), 0);
	assert_int_equal(f->owner.ends, 0);
	assert_int_equal(f->owner.drained, 0);
}

static void closing_inside_on_drained_is_safe_and_final(void **state)
{
	struct fixture *f = *state;

	f->owner.close_at_drained = true;
	stream_write(f->owner.stream, SLICE("x"));
	turn_until(f->loop, &f->owner.drained, 1);
	turn_until_quiet(f->loop);
	assert_int_equal(net_stream_count(f->net), 0);
}

static void a_gentle_close_waits_for_the_peer_and_no_longer_than_told(void **state)
{
	struct fixture *f = *state;
	char got[16];

	stream_write(f->owner.stream, SLICE("221 bye\r\n"));
	stream_close_gently(&f->owner.stream, 20);
	turn_until_quiet(f->loop);
	assert_int_equal(peer_read(f->peer, got, sizeof(got)), 9);
	assert_int_equal(peer_read(f->peer, got, sizeof(got)), -1); /* our end has come */
	peer_write(f->peer, "but I am not done");
	turn_until_quiet(f->loop);
	assert_int_equal(net_stream_count(f->net), 1);
	while (net_stream_count(f->net) > 0)
		loop_turn(f->loop, 1000); /* its own timer ends it */
	assert_int_equal(f->owner.inputs, 0);
}

static void a_gentle_close_ends_with_the_peers_end(void **state)
{
	struct fixture *f = *state;

	stream_close_gently(&f->owner.stream, 1000 * 1000);
	turn_until_quiet(f->loop);
	assert_int_equal(net_stream_count(f->net), 1);
	close(f->peer);
	f->peer = -1;
	turn_until_quiet(f->loop);
	assert_int_equal(net_stream_count(f->net), 0);
}

/* F3: who comes and goes in crowds holds no descriptors by not going quite. */
static void only_so_many_linger(void **state)
{
	enum { CROWD = STREAM_LINGERING_MAX + 20 };
	struct fixture *f = *state;
	struct stream_events events = owner_events(&f->owner);
	int peers[CROWD];
	char got[16];

	for (int i = 0; i < CROWD; i++) {
		int fds[2];
		struct stream *stream;
		unix_pair(fds);
		peers[i] = fds[1];
		stream = stream_new(f->net, fds[0], &events);
		stream_write(stream, SLICE("221 bye\r\n"));
		stream_close_gently(&stream, 1000 * 1000);
		turn_until_quiet(f->loop);
	}
	assert_int_equal(net_stream_count(f->net), STREAM_LINGERING_MAX + 1); /* and the owner's */
	for (int i = 0; i < CROWD; i++) {
		assert_int_equal(peer_read(peers[i], got, sizeof(got)), 9);
		close(peers[i]);
	}
	turn_until_quiet(f->loop);
	assert_int_equal(net_stream_count(f->net), 1);
}

static void the_net_takes_those_that_linger_along(void **state)
{
	struct fixture *f = *state;

	stream_close_gently(&f->owner.stream, 1000 * 1000);
	net_free(&f->net);
	assert_int_equal(loop_turn(f->loop, 0), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_TCP(name) cmocka_unit_test_setup_teardown(name, setup_tcp, teardown)
	    TEST(a_peer_that_trickles_is_heard_octet_by_octet),
	    TEST(a_stalled_peer_costs_no_turn),
	    TEST(what_the_owner_does_not_take_waits_and_comes_again_in_order),
	    TEST_TCP(a_paused_stream_reads_nothing_from_the_socket),
	    TEST(one_read_a_turn_leaves_room_for_others),
	    TEST(what_is_written_in_a_turn_goes_out_as_one),
	    TEST(a_request_is_answered_in_the_turn_it_comes),
	    TEST_TCP(a_large_body_arrives_whole_although_the_peer_is_slow),
	    TEST_TCP(a_fast_reader_gets_a_bounded_share_of_a_turn),
	    TEST(a_client_that_never_reads_is_not_read_from_above_the_mark),
	    TEST(an_owner_that_writes_without_looking_breaks_the_stream_at_the_ceiling),
	    TEST(a_fin_is_told_once_after_all_input),
	    TEST_TCP(an_end_waits_for_input_that_the_owner_has_not_taken),
	    TEST(a_hung_up_peer_of_a_paused_stream_does_not_spin_and_is_read_on_resume),
	    TEST_TCP(a_half_closed_peer_still_gets_the_answer),
	    TEST_TCP(a_half_closed_peer_that_reads_slowly_gets_all_of_it),
	    TEST_TCP(a_reset_is_told_in_words),
	    TEST_TCP(the_reply_before_a_broken_write_is_still_read),
	    TEST(closing_inside_on_input_is_safe_and_final),
	    TEST(closing_inside_on_drained_is_safe_and_final),
	    TEST(a_gentle_close_waits_for_the_peer_and_no_longer_than_told),
	    TEST(a_gentle_close_ends_with_the_peers_end),
	    TEST(only_so_many_linger),
	    TEST(the_net_takes_those_that_linger_along),
	};
	return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
