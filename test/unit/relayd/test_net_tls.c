/* Streams that turn to TLS: both sides are streams in one loop, or one side is a bare socket that misbehaves. */
#include "support_peer.h"

#include "tls/selfsigned.h"

#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

struct fixture {
	struct loop *loop;
	struct net *net;
	struct owner server, client;
	struct tls_credentials *server_credentials, *client_credentials;
};

static char folder[64];

static int group_setup(void **state)
{
	const struct tls_selfsigned_options options = {.hostname = "relay.test",
						       .now_wall_ms = (int64_t)time(NULL) * 1000};
	char path[96];

	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/relayd-tls-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/relay.pem", folder);
	return tls_selfsigned_ensure(AT_FDCWD, path, &options, NULL, NULL);
}

static int group_teardown(void **state)
{
	char path[96];

	(void)state;
	snprintf(path, sizeof(path), "%s/relay.pem", folder);
	unlink(path);
	return rmdir(folder);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct tls_server_credentials_options options = {.min_version = TLS_VERSION_1_2};
	struct stream_events events;
	char path[96];
	int fds[2];

	snprintf(path, sizeof(path), "%s/relay.pem", folder);
	options.certificate_file = path;
	f->loop = loop_new(clock_system());
	f->net = net_new(f->loop);
	f->server_credentials = tls_credentials_new_server(&options, NULL);
	f->client_credentials = tls_credentials_new_client(NULL, NULL);
	assert_non_null(f->server_credentials);
	assert_non_null(f->client_credentials);
	tcp_pair(fds);
	owner_init(&f->server, f->loop);
	owner_init(&f->client, f->loop);
	f->server.credentials = f->server_credentials;
	f->client.credentials = f->client_credentials;
	f->client.is_tls_client = true;
	events = owner_events(&f->server);
	f->server.stream = stream_new(f->net, fds[0], &events);
	events = owner_events(&f->client);
	f->client.stream = stream_new(f->net, fds[1], &events);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	owner_fini(&f->server);
	owner_fini(&f->client);
	net_free(&f->net);
	loop_free(&f->loop);
	tls_credentials_unref(&f->server_credentials);
	tls_credentials_unref(&f->client_credentials);
	free(f);
	return 0;
}

/* The client's end as a bare socket. */
static int bare_client(struct fixture *f)
{
	int fd = fcntl(stream_fd(f->client.stream), F_DUPFD_CLOEXEC, 3);

	assert_true(fd >= 0);
	stream_close(&f->client.stream);
	return fd;
}

static void assert_input(const struct owner *owner, const char *text)
{
	assert_true(slice_eq(buf_slice(&owner->input), slice_of_str(text)));
}

static void start_tls_by_command(struct fixture *f)
{
	f->server.starttls = SLICE("STARTTLS\r\n");
	f->client.starttls = SLICE("220 go\r\n");
	stream_write(f->client.stream, SLICE("STARTTLS\r\n"));
	turn_until(f->loop, &f->server.tls_calls, 1);
	turn_until(f->loop, &f->client.tls_calls, 1);
	assert_true(f->server.tls_ok);
	assert_true(f->client.tls_ok);
	assert_int_equal(buf_len(&f->server.input), 10);
	assert_int_equal(buf_len(&f->client.input), 8);
	buf_clear(&f->server.input);
	buf_clear(&f->client.input);
}

static void both_sides_turn_to_tls_and_talk(void **state)
{
	struct fixture *f = *state;

	start_tls_by_command(f);
	assert_string_equal(tls_session_version(stream_tls(f->server.stream)), "TLSv1.3");
	stream_write(f->client.stream, SLICE("EHLO again\r\n"));
	turn_until_input(f->loop, &f->server, 12);
	stream_write(f->server.stream, SLICE("250 relay\r\n"));
	turn_until_input(f->loop, &f->client, 11);
	assert_input(&f->server, "EHLO again\r\n");
	assert_input(&f->client, "250 relay\r\n");
	assert_int_equal(f->server.tls_calls, 1);
}

static void implicit_tls_needs_no_word_before(void **state)
{
	struct fixture *f = *state;
	const struct tls_client_options options = {.level = TLS_LEVEL_OPPORTUNISTIC};

	stream_start_tls_server(f->server.stream, f->server_credentials);
	stream_start_tls_client(f->client.stream, f->client_credentials, &options);
	/* Written during the handshake: waits for its end, and goes encrypted. */
	stream_write(f->server.stream, SLICE("220 relay\r\n"));
	stream_write(f->client.stream, SLICE("EHLO app\r\n"));
	turn_until_input(f->loop, &f->client, 11);
	turn_until_input(f->loop, &f->server, 10);
	assert_input(&f->client, "220 relay\r\n");
	assert_true(f->server.tls_ok && f->client.tls_ok);
}

/* CVE-2011-0411: commands behind STARTTLS in the same segment must not count as said under TLS. */
static void what_a_client_sends_behind_starttls_is_dropped(void **state)
{
	struct fixture *f = *state;
	const struct tls_client_options options = {.level = TLS_LEVEL_OPPORTUNISTIC};

	f->server.starttls = SLICE("STARTTLS\r\n");
	stream_write(f->client.stream, SLICE("STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n"));
	turn_until_input(f->loop, &f->client, 8); /* the 220, in clear */
	stream_start_tls_client(f->client.stream, f->client_credentials, &options);
	turn_until(f->loop, &f->server.tls_calls, 1);
	assert_true(f->server.tls_ok);
	turn_until(f->loop, &f->client.tls_calls, 1);
	buf_clear(&f->server.input);
	stream_resume(f->server.stream);
	stream_write(f->client.stream, SLICE("QUIT\r\n"));
	turn_until_input(f->loop, &f->server, 6);
	assert_input(&f->server, "QUIT\r\n");
}

/* The same where the owner had left the rest untouched before it began TLS. */
static void what_waits_unread_when_tls_begins_is_dropped(void **state)
{
	struct fixture *f = *state;
	const struct tls_client_options options = {.level = TLS_LEVEL_OPPORTUNISTIC};

	f->server.appetite = 10;
	stream_write(f->client.stream, SLICE("STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n"));
	turn_until_input(f->loop, &f->server, 10);
	f->server.appetite = SIZE_MAX;
	stream_start_tls_server(f->server.stream, f->server_credentials);
	stream_start_tls_client(f->client.stream, f->client_credentials, &options);
	turn_until(f->loop, &f->server.tls_calls, 1);
	turn_until(f->loop, &f->client.tls_calls, 1);
	stream_resume(f->server.stream);
	stream_write(f->client.stream, SLICE("QUIT\r\n"));
	turn_until_input(f->loop, &f->server, 16);
	assert_input(&f->server, "STARTTLS\r\nQUIT\r\n");
}

static void what_a_server_sends_behind_its_220_is_dropped(void **state)
{
	struct fixture *f = *state;

	f->client.starttls = SLICE("220 go\r\n");
	stream_write(f->server.stream, SLICE("220 go\r\n250 forged\r\n"));
	turn_until_input(f->loop, &f->client, 8);
	stream_start_tls_server(f->server.stream, f->server_credentials);
	turn_until(f->loop, &f->client.tls_calls, 1);
	assert_true(f->client.tls_ok);
	stream_write(f->server.stream, SLICE("250 true\r\n"));
	turn_until_input(f->loop, &f->client, 18);
	assert_input(&f->client, "220 go\r\n250 true\r\n");
}

static void garbage_instead_of_a_handshake_fails_with_words_and_an_alert(void **state)
{
	struct fixture *f = *state;
	int peer = bare_client(f);
	char got[64];

	stream_start_tls_server(f->server.stream, f->server_credentials);
	peer_write(peer, "EHLO I speak no TLS\r\n");
	turn_until(f->loop, &f->server.tls_calls, 1);
	assert_false(f->server.tls_ok);
	assert_true(f->server.why[0]);
	turn_until_quiet(f->loop);
	assert_true(peer_read(peer, got, sizeof(got)) > 0);
	assert_int_equal(got[0], 21); /* alert */
	assert_int_equal(f->server.ends, 0);
	stream_close_gently(&f->server.stream, 1000 * 1000);
	close(peer);
	turn_until_quiet(f->loop);
	assert_int_equal(net_stream_count(f->net), 0);
}

static void a_peer_that_leaves_in_the_handshake_is_told_once(void **state)
{
	struct fixture *f = *state;
	int peer = bare_client(f);

	stream_start_tls_server(f->server.stream, f->server_credentials);
	turn_until_quiet(f->loop);
	close(peer);
	turn_until(f->loop, &f->server.tls_calls, 1);
	assert_false(f->server.tls_ok);
	turn_until_quiet(f->loop);
	assert_int_equal(f->server.tls_calls, 1);
	assert_int_equal(f->server.ends, 0);
}

static void a_stalled_handshake_costs_no_turn_and_can_be_given_up(void **state)
{
	struct fixture *f = *state;
	int peer = bare_client(f);

	stream_start_tls_server(f->server.stream, f->server_credentials);
	peer_write(peer, "\x16\x03\x01");
	turn_until_quiet(f->loop);
	assert_int_equal(f->server.tls_calls, 0);
	stream_close_gently(&f->server.stream, 1000 * 1000);
	turn_until_quiet(f->loop);
	assert_int_equal(net_stream_count(f->net), 0);
	close(peer);
}

static void a_gentle_close_says_goodbye_in_tls(void **state)
{
	struct fixture *f = *state;

	start_tls_by_command(f);
	stream_write(f->server.stream, SLICE("221 bye\r\n"));
	stream_close_gently(&f->server.stream, 1000 * 1000);
	turn_until(f->loop, &f->client.ends, 1);
	assert_input(&f->client, "221 bye\r\n");
	assert_string_equal(f->client.why, "");
	assert_false(tls_session_was_truncated(stream_tls(f->client.stream)));
	stream_close_gently(&f->client.stream, 1000 * 1000);
	turn_until_quiet(f->loop);
	assert_int_equal(net_stream_count(f->net), 0);
}

/* D10: after close_notify nothing more counts, least of all in clear. */
static void plain_text_behind_close_notify_is_dropped(void **state)
{
	struct fixture *f = *state;
	int fd;

	start_tls_by_command(f);
	fd = fcntl(stream_fd(f->client.stream), F_DUPFD_CLOEXEC, 3);
	stream_close_gently(&f->client.stream, 10 * 1000);
	turn_until(f->loop, &f->server.ends, 1);
	(void)send(fd, "MAIL FROM:<evil@example.org>\r\n", 30, MSG_NOSIGNAL);
	close(fd);
	turn_until_quiet(f->loop);
	assert_int_equal(buf_len(&f->server.input), 0);
	assert_int_equal(f->server.ends, 1);
}

static void a_cut_without_close_notify_is_an_end_too(void **state)
{
	struct fixture *f = *state;

	start_tls_by_command(f);
	stream_write(f->client.stream, SLICE("DATA"));
	turn_until_input(f->loop, &f->server, 4);
	stream_close(&f->client.stream);
	turn_until(f->loop, &f->server.ends, 1);
	assert_true(tls_session_was_truncated(stream_tls(f->server.stream)));
}

static void decrypted_bytes_wait_for_a_paused_owner(void **state)
{
	enum { SIZE = 40 * 1024 };
	struct fixture *f = *state;
	char *bytes = xcalloc(1, SIZE);

	start_tls_by_command(f);
	f->server.appetite = 1;
	stream_write(f->client.stream, slice_of(bytes, SIZE));
	turn_until_input(f->loop, &f->server, 1);
	turn_until_quiet(f->loop);
	stream_close_gently(&f->client.stream, 1000 * 1000);
	turn_until_quiet(f->loop);
	assert_int_equal(buf_len(&f->server.input), 1);
	assert_int_equal(f->server.ends, 0);
	f->server.appetite = SIZE_MAX;
	stream_resume(f->server.stream);
	turn_until(f->loop, &f->server.ends, 1);
	assert_int_equal(buf_len(&f->server.input), SIZE);
	free(bytes);
}

/* PROMISE D12. */
static void two_megabytes_arrive_equal_in_small_and_in_large_writes(void **state)
{
	enum { SIZE = 2 * 1024 * 1024 };
	static const size_t pieces[] = {17, 60000};
	struct fixture *f = *state;
	char *bytes = xmalloc(SIZE);

	for (size_t i = 0; i < SIZE; i++)
		bytes[i] = (char)(i * 2654435761u >> 13);
	start_tls_by_command(f);
	for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
		buf_clear(&f->server.input);
		for (size_t at = 0; at < SIZE; at += pieces[p]) {
			stream_write(f->client.stream, slice_to(slice_of(bytes + at, SIZE - at), pieces[p]));
			if (stream_unsent(f->client.stream) > 256 * 1024)
				loop_turn(f->loop, 100);
		}
		turn_until_input(f->loop, &f->server, SIZE);
		assert_int_equal(buf_len(&f->server.input), SIZE);
		assert_memory_equal(buf_slice(&f->server.input).ptr, bytes, SIZE);
	}
	free(bytes);
}

/* A server refuses in the middle of DATA and leaves, with our octets unread: its words must get through our full output
 * and the reset that follows. */
static void an_early_refusal_is_heard_while_we_are_still_sending(void **state)
{
	struct fixture *f = *state;
	char *bytes = xcalloc(1, 3 * 1024 * 1024);

	start_tls_by_command(f);
	stream_pause(f->server.stream);
	stream_write(f->client.stream, slice_of(bytes, 3 * 1024 * 1024));
	stream_pause(f->client.stream); /* so that the reset comes before it looks */
	turn_until_quiet(f->loop);
	stream_write(f->server.stream, SLICE("552 too large\r\n"));
	turn_until(f->loop, &f->server.drained, 2);
	stream_close(&f->server.stream);
	turn_until_quiet(f->loop);
	stream_resume(f->client.stream);
	turn_until(f->loop, &f->client.ends, 1);
	assert_input(&f->client, "552 too large\r\n");
	free(bytes);
}

/* F12 */
static void a_tls_client_that_never_reads_is_bounded(void **state)
{
	struct fixture *f = *state;
	static const char block[16 * 1024];
	unsigned written = 0, stuck = 0;

	start_tls_by_command(f);
	stream_pause(f->client.stream); /* it reads no more, but goes on sending */
	f->server.answer = true;
	stream_set_high_water(f->server.stream, 128 * 1024);
	while (stuck < 100) {
		if (stream_unsent(f->client.stream) < 64 * 1024) {
			stream_write(f->client.stream, slice_of(block, sizeof(block)));
			written++;
			stuck = 0;
		}
		if (loop_turn(f->loop, 0) == 0)
			stuck++;
		assert_true(written < 4096);
	}
	assert_true(stream_unsent(f->server.stream) < 512 * 1024);
	assert_int_equal(f->server.ends, 0);
	stream_resume(f->client.stream);
	turn_until_input(f->loop, &f->client, (size_t)written * sizeof(block));
}

static void on_tls_close(void *ctx, bool ok, const char *why)
{
	struct owner *owner = ctx;

	(void)ok;
	(void)why;
	owner->tls_calls++;
	stream_close(&owner->stream);
}

static void closing_inside_on_tls_is_safe(void **state)
{
	struct fixture *f = *state;
	struct stream_events events = owner_events(&f->server);
	const struct tls_client_options options = {.level = TLS_LEVEL_OPPORTUNISTIC};
	int fd = fcntl(stream_fd(f->server.stream), F_DUPFD_CLOEXEC, 3);

	stream_close(&f->server.stream);
	events.on_tls = on_tls_close;
	f->server.stream = stream_new(f->net, fd, &events);
	stream_start_tls_server(f->server.stream, f->server_credentials);
	stream_start_tls_client(f->client.stream, f->client_credentials, &options);
	turn_until(f->loop, &f->server.tls_calls, 1);
	turn_until_quiet(f->loop);
	assert_null(f->server.stream);
	assert_int_equal(f->server.ends, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	    TEST(both_sides_turn_to_tls_and_talk),
	    TEST(implicit_tls_needs_no_word_before),
	    TEST(what_a_client_sends_behind_starttls_is_dropped),
	    TEST(what_waits_unread_when_tls_begins_is_dropped),
	    TEST(what_a_server_sends_behind_its_220_is_dropped),
	    TEST(garbage_instead_of_a_handshake_fails_with_words_and_an_alert),
	    TEST(a_peer_that_leaves_in_the_handshake_is_told_once),
	    TEST(a_stalled_handshake_costs_no_turn_and_can_be_given_up),
	    TEST(a_gentle_close_says_goodbye_in_tls),
	    TEST(plain_text_behind_close_notify_is_dropped),
	    TEST(a_cut_without_close_notify_is_an_end_too),
	    TEST(decrypted_bytes_wait_for_a_paused_owner),
	    TEST(two_megabytes_arrive_equal_in_small_and_in_large_writes),
	    TEST(an_early_refusal_is_heard_while_we_are_still_sending),
	    TEST(a_tls_client_that_never_reads_is_bounded),
	    TEST(closing_inside_on_tls_is_safe),
	};
	return cmocka_run_group_tests_name("stream over TLS", tests, group_setup, group_teardown);
}
