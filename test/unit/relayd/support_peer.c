#include "support_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 30 * 1000 }; /* until an awaited event counts as missing */

void owner_init(struct owner *owner, struct loop *loop)
{
	*owner = (struct owner){.appetite = SIZE_MAX, .loop = loop};
	buf_init(&owner->input, 64 * 1024 * 1024);
}

void owner_fini(struct owner *owner)
{
	stream_close(&owner->stream);
	buf_fini(&owner->input);
}

static void on_connected(void *ctx)
{
	struct owner *owner = ctx;

	owner->connected++;
}

static void begin_tls(struct owner *owner)
{
	const struct tls_client_options options = {.level = TLS_LEVEL_OPPORTUNISTIC};

	if (owner->is_tls_client)
		stream_start_tls_client(owner->stream, owner->credentials, &options);
	else
		stream_start_tls_server(owner->stream, owner->credentials);
}

static size_t on_input(void *ctx, struct slice bytes)
{
	struct owner *owner = ctx;
	size_t take = MIN(bytes.len, owner->appetite);

	assert_true(bytes.len > 0);
	owner->inputs++;
	if (owner->starttls.len && slice_has_prefix(bytes, owner->starttls)) {
		if (!owner->is_tls_client)
			stream_write(owner->stream, SLICE("220 go\r\n"));
		take = owner->starttls.len;
		owner->starttls.len = 0;
		begin_tls(owner);
	}
	assert_int_equal(buf_append(&owner->input, slice_to(bytes, take)), 0);
	if (owner->appetite != SIZE_MAX)
		owner->appetite -= take;
	if (owner->answer)
		stream_write(owner->stream, slice_to(bytes, take));
	if (owner->close_at_input)
		stream_close(&owner->stream);
	return take;
}

static void on_drained(void *ctx)
{
	static const char block[64 * 1024];
	static char sink[64 * 1024];
	struct owner *owner = ctx;
	size_t more = MIN(owner->feed, sizeof(block));

	while (owner->fast_peer && peer_read(owner->fast_peer, sink, sizeof(sink)) > 0)
		;
	owner->drained++;
	if (owner->drained_turn != loop_turn_number(owner->loop))
		owner->drained_in_turn = 0;
	owner->drained_turn = loop_turn_number(owner->loop);
	owner->drained_in_turn++;
	owner->feed -= more;
	if (owner->close_at_drained)
		stream_close(&owner->stream);
	else
		stream_write(owner->stream, slice_of(block, more));
}

static void on_tls(void *ctx, bool ok, const char *why)
{
	struct owner *owner = ctx;

	owner->tls_calls++;
	owner->tls_ok = ok;
	slice_to_cstr(slice_of_str(why), owner->why, sizeof(owner->why));
}

static void on_end(void *ctx, const char *why)
{
	struct owner *owner = ctx;

	owner->ends++;
	slice_to_cstr(slice_of_str(why), owner->why, sizeof(owner->why));
}

struct stream_events owner_events(struct owner *owner)
{
	return (struct stream_events){owner, on_connected, on_input, on_drained, on_tls, on_end};
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void turn_until(struct loop *loop, const unsigned *counter, unsigned wanted)
{
	int64_t until = now_ms() + PATIENCE_MS;

	while (*counter < wanted) {
		assert_true(now_ms() < until);
		loop_turn(loop, 100);
	}
}

void turn_until_input(struct loop *loop, const struct owner *owner, size_t len)
{
	int64_t until = now_ms() + PATIENCE_MS;

	while (buf_len(&owner->input) < len) {
		assert_true(now_ms() < until);
		loop_turn(loop, 100);
	}
}

void turn_until_quiet(struct loop *loop)
{
	int64_t until = now_ms() + PATIENCE_MS;

	while (loop_turn(loop, 0) > 0)
		assert_true(now_ms() < until);
}

ssize_t peer_read(int fd, void *out, size_t size)
{
	ssize_t n = recv(fd, out, size, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return 0;
	return n > 0 ? n : -1;
}

size_t peer_read_all(struct loop *loop, int fd, char *out, size_t len)
{
	int64_t until = now_ms() + PATIENCE_MS;
	size_t got = 0;

	while (got < len) {
		ssize_t n = peer_read(fd, out + got, len - got);
		if (n < 0)
			break;
		got += (size_t)n;
		assert_true(now_ms() < until);
		loop_turn(loop, n > 0 ? 0 : 1);
	}
	return got;
}

void peer_write(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

void tcp_pair(int fds[2])
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fds[0], (struct sockaddr *)&address, sizeof(address)), 0);
	fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fds[1] >= 0);
	close(listener);
	for (int i = 0; i < 2; i++)
		assert_int_equal(fcntl(fds[i], F_SETFL, O_NONBLOCK), 0);
}

void peer_reset(int fd)
{
	const struct linger now = {1, 0};

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	close(fd);
}
