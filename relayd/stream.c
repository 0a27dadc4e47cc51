#include "relayd/stream.h"

#include "base/base.h"
#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SCRATCH_BYTES = 64 * 1024, READS_PER_CALL = 4 };

struct net {
	struct loop *loop;
	char scratch[SCRATCH_BYTES]; /* of whoever reads just now */
};

enum phase {
	CONNECTING,
	OPEN,
	HANDSHAKE,
	LINGERING, /* the owner is gone: flush, then wait for the peer's end */
	CLOSED,	   /* waits for the end of the turn */
};

struct stream {
	struct net *net;
	struct stream_events events;
	struct watch *watch;
	int fd;
	enum phase phase;
	struct tls_session *tls;
	struct buf in;	/* plain text that the owner has not taken */
	struct buf out; /* plain text, or with TLS what it has not taken yet */
	bool paused, end_seen, end_told, shut, flush_posted;
	char why[160]; /* of the end */
	timer_id timer;
};

struct net *net_new(struct loop *loop)
{
	struct net *net = xcalloc(1, sizeof(*net));
	net->loop = loop;
	return net;
}

void net_free(struct net **net)
{
	free(*net);
	*net = NULL;
}

/* ---- the end ---- */

static void stream_free(void *ctx)
{
	struct stream *s = ctx;

	tls_session_free(&s->tls);
	buf_fini(&s->in);
	buf_fini(&s->out);
	free(s);
}

static void shut_down(struct stream *s)
{
	if (s->phase == CLOSED)
		return;
	s->phase = CLOSED;
	timers_cancel(loop_timers(s->net->loop), &s->timer);
	loop_unwatch(s->net->loop, &s->watch);
	close(s->fd);
	s->fd = -1;
	loop_post(s->net->loop, stream_free, s);
}

void stream_close(struct stream **stream)
{
	if (!*stream)
		return;
	shut_down(*stream);
	*stream = NULL;
}

static void tell_end(struct stream *s)
{
	if (!s->end_seen || s->end_told || s->phase == CLOSED || s->paused || buf_len(&s->in) > 0)
		return;
	s->end_told = true;
	s->events.on_end(s->events.ctx, s->why);
}

static void note_end(struct stream *s, const char *why)
{
	if (s->end_seen)
		return;
	s->end_seen = true;
	slice_to_cstr(slice_of_str(why), s->why, sizeof(s->why));
}

/* ---- what to wait for ---- */

static bool has_unsent(const struct stream *s)
{
	return buf_len(&s->out) > 0 || (s->tls && tls_session_output(s->tls).len > 0);
}

static void update_watch(struct stream *s)
{
	uint32_t events = 0;

	if (s->phase == CLOSED || !s->watch)
		return;
	if (s->phase == CONNECTING || has_unsent(s))
		events |= EPOLLOUT;
	if (s->phase == LINGERING || s->phase == HANDSHAKE || (!s->paused && buf_len(&s->in) == 0))
		if (!s->end_seen && s->phase != CONNECTING)
			events |= EPOLLIN;
	loop_watch_events(s->net->loop, s->watch, events);
}

/* ---- sending ---- */

static int send_some(struct stream *s, struct slice bytes, size_t *sent)
{
	ssize_t n = send(s->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);

	*sent = n > 0 ? (size_t)n : 0;
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		note_end(s, strerror(errno));
		return -1;
	}
	return 0;
}

/* Plain text into TLS, as much as it takes. */
static void feed_tls(struct stream *s)
{
	size_t taken = 0;

	if (!s->tls || s->phase == HANDSHAKE)
		return;
	while (buf_len(&s->out) > 0 && tls_session_write(s->tls, buf_slice(&s->out), &taken, NULL) == TLS_OK &&
	       taken > 0)
		buf_consume(&s->out, taken);
	if (buf_len(&s->out) == 0)
		buf_reset(&s->out);
}

static void flush(struct stream *s)
{
	size_t sent = 1;

	while (s->phase != CLOSED && s->phase != CONNECTING && sent > 0 && has_unsent(s)) {
		struct slice bytes;
		feed_tls(s);
		bytes = s->tls ? tls_session_output(s->tls) : buf_slice(&s->out);
		if (bytes.len == 0 || send_some(s, bytes, &sent) != 0)
			break;
		if (s->tls)
			tls_session_output_sent(s->tls, sent);
		else
			buf_consume(&s->out, sent);
		if (sent < bytes.len)
			break;
	}
	if (!s->tls && buf_len(&s->out) == 0)
		buf_reset(&s->out);
}

static void end_lingering(struct stream *s)
{
	if (has_unsent(s) && !s->end_seen)
		return;
	if (!s->shut) {
		s->shut = true;
		shutdown(s->fd, SHUT_WR);
	}
	if (s->end_seen)
		shut_down(s);
}

/* After the owner or the socket has moved something. */
static void settle(struct stream *s)
{
	bool had_unsent = has_unsent(s);

	flush(s);
	if (s->phase == LINGERING)
		end_lingering(s);
	else if (had_unsent && !has_unsent(s) && s->phase == OPEN && s->events.on_drained)
		s->events.on_drained(s->events.ctx);
	if (s->phase != CLOSED && s->phase != LINGERING)
		tell_end(s);
	update_watch(s);
}

static void on_flush_time(void *ctx)
{
	struct stream *s = ctx;

	s->flush_posted = false;
	if (s->phase != CLOSED)
		settle(s);
}

static void post_flush(struct stream *s)
{
	if (s->flush_posted)
		return;
	s->flush_posted = true;
	loop_post(s->net->loop, on_flush_time, s);
}

void stream_write(struct stream *s, struct slice bytes)
{
	buf_append(&s->out, bytes);
	post_flush(s);
}

size_t stream_unsent(const struct stream *s)
{
	return buf_len(&s->out) + (s->tls ? tls_session_output(s->tls).len : 0);
}

/* ---- receiving ---- */

/* Hands plain text to the owner; keeps what it does not take. */
static void deliver(struct stream *s, struct slice bytes)
{
	size_t taken = 0;

	if (s->phase == LINGERING)
		return;
	if (!s->paused && buf_len(&s->in) == 0)
		taken = s->events.on_input(s->events.ctx, bytes);
	if (taken < bytes.len && s->phase != CLOSED)
		buf_append(&s->in, slice_from(bytes, taken));
}

static void offer_again(struct stream *s)
{
	while (buf_len(&s->in) > 0 && !s->paused && s->phase == OPEN) {
		size_t taken = s->events.on_input(s->events.ctx, buf_slice(&s->in));
		buf_consume(&s->in, taken);
		if (taken == 0)
			break;
	}
	if (buf_len(&s->in) == 0 && s->phase != CLOSED)
		buf_reset(&s->in);
}

static void read_tls(struct stream *s)
{
	char plain[16 * 1024];
	struct err err;
	size_t len;

	while ((s->phase == OPEN || s->phase == LINGERING) && s->tls && buf_len(&s->in) == 0 && !s->paused) {
		enum tls_status status = tls_session_read(s->tls, plain, sizeof(plain), &len, &err);
		if (status == TLS_OK) {
			deliver(s, slice_of(plain, len));
			continue;
		}
		if (status == TLS_CLOSED)
			note_end(s, "");
		else if (status == TLS_FAILED)
			note_end(s, err.text);
		break;
	}
}

static void shake_hands(struct stream *s)
{
	struct err err = {0};
	enum tls_status status = tls_session_handshake(s->tls, &err);

	if (status == TLS_AGAIN)
		return;
	s->phase = OPEN;
	flush(s);
	if (status == TLS_OK) {
		s->events.on_tls(s->events.ctx, true, "");
		return;
	}
	s->paused = true;
	s->events.on_tls(s->events.ctx, false,
			 err.text[0] ? err.text : "the peer closed the connection during the handshake");
}

static void take_ciphertext(struct stream *s, struct slice bytes)
{
	while (bytes.len > 0 && s->phase != CLOSED) {
		size_t taken = tls_session_input(s->tls, bytes);
		bytes = slice_from(bytes, taken);
		if (s->phase == HANDSHAKE)
			shake_hands(s);
		if (s->phase != CLOSED && s->phase != HANDSHAKE)
			read_tls(s);
		if (taken == 0 && bytes.len > 0)
			break; /* cannot be: at most tls_session_input_room() was read */
	}
}

static size_t read_limit(const struct stream *s)
{
	return s->tls ? MIN(tls_session_input_room(s->tls), (size_t)SCRATCH_BYTES) : (size_t)SCRATCH_BYTES;
}

static bool wants_bytes(const struct stream *s)
{
	return (s->phase == OPEN && !s->paused && buf_len(&s->in) == 0) || s->phase == HANDSHAKE ||
	       s->phase == LINGERING;
}

static void receive(struct stream *s)
{
	for (int i = 0; i < READS_PER_CALL && wants_bytes(s) && !s->end_seen; i++) {
		size_t limit = read_limit(s);
		ssize_t n = limit ? recv(s->fd, s->net->scratch, limit, MSG_DONTWAIT) : -1;
		struct slice bytes = slice_of(s->net->scratch, n > 0 ? (size_t)n : 0);
		if (limit == 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
			break;
		if (n <= 0) {
			note_end(s, n == 0 ? "" : strerror(errno));
			if (s->tls)
				tls_session_input_eof(s->tls);
			if (s->phase == HANDSHAKE)
				shake_hands(s);
			break;
		}
		if (s->tls)
			take_ciphertext(s, bytes);
		else
			deliver(s, bytes);
		if ((size_t)n < limit)
			break;
	}
}

static void finish_connect(struct stream *s)
{
	int error = 0;
	socklen_t size = sizeof(error);

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
		error = errno;
	s->phase = OPEN;
	if (error == 0) {
		s->events.on_connected(s->events.ctx);
		return;
	}
	note_end(s, strerror(error));
}

static void on_ready(void *ctx, uint32_t events)
{
	struct stream *s = ctx;

	if (s->phase == CONNECTING) {
		if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
			finish_connect(s);
	} else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		/* A hang-up while nothing is read would wake us for ever; stream_resume() reads what is left. */
		if (!wants_bytes(s) && (events & (EPOLLHUP | EPOLLERR)))
			loop_unwatch(s->net->loop, &s->watch);
		receive(s);
	}
	if (s->phase != CLOSED)
		settle(s);
}

void stream_resume(struct stream *s)
{
	s->paused = false;
	offer_again(s);
	if (s->phase == OPEN && s->tls)
		read_tls(s);
	if (s->phase == OPEN && !s->watch) /* hung up */
		while (wants_bytes(s) && !s->end_seen)
			receive(s);
	if (s->phase != CLOSED)
		post_flush(s);
}

void stream_pause(struct stream *s)
{
	s->paused = true;
	update_watch(s);
}

/* ---- beginning ---- */

static struct stream *make(struct net *net, int fd, const struct stream_events *events, enum phase phase)
{
	struct stream *s = xcalloc(1, sizeof(*s));
	int on = 1;

	s->net = net;
	s->events = *events;
	s->fd = fd;
	s->phase = phase;
	buf_init(&s->in, SIZE_MAX / 4);
	buf_init(&s->out, SIZE_MAX / 4);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	s->watch = loop_watch(net->loop, fd, phase == CONNECTING ? EPOLLOUT : EPOLLIN, on_ready, s);
	return s;
}

struct stream *stream_new(struct net *net, int fd, const struct stream_events *events)
{
	return make(net, fd, events, OPEN);
}

static socklen_t to_sockaddr(const struct dns_address *address, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (address->family == DNS_IPV4) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		memcpy(&v4->sin_addr, address->bytes, 4);
		return sizeof(*v4);
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	memcpy(&v6->sin6_addr, address->bytes, 16);
	return sizeof(*v6);
}

struct stream *stream_connect(struct net *net, const struct dns_address *address, uint16_t port,
			      const struct dns_address *source, const struct stream_events *events, struct err *err)
{
	struct sockaddr_storage to, from;
	socklen_t size = to_sockaddr(address, port, &to);
	int fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		err_set_errno(err, "socket");
		return NULL;
	}
	if (source && bind(fd, (struct sockaddr *)&from, to_sockaddr(source, 0, &from)) != 0) {
		err_set_errno(err, "cannot send from the configured address");
		close(fd);
		return NULL;
	}
	if (connect(fd, (struct sockaddr *)&to, size) != 0 && errno != EINPROGRESS) {
		err_set_errno(err, "connect");
		close(fd);
		return NULL;
	}
	return make(net, fd, events, CONNECTING);
}

static void begin_tls(struct stream *s, struct tls_session *session)
{
	buf_reset(&s->in);
	s->tls = session;
	s->phase = HANDSHAKE;
	shake_hands(s);
	post_flush(s);
}

void stream_start_tls_server(struct stream *s, struct tls_credentials *credentials)
{
	begin_tls(s, tls_session_new_server(credentials));
}

void stream_start_tls_client(struct stream *s, struct tls_credentials *credentials,
			     const struct tls_client_options *options)
{
	begin_tls(s, tls_session_new_client(credentials, options));
}

struct tls_session *stream_tls(const struct stream *s)
{
	return s->tls;
}

static void on_patience_over(void *ctx)
{
	shut_down(ctx);
}

void stream_close_gently(struct stream **stream, int64_t patience_ms)
{
	struct stream *s = *stream;

	*stream = NULL;
	if (!s)
		return;
	if (s->phase != OPEN || s->end_seen) {
		flush(s);
		shut_down(s);
		return;
	}
	s->phase = LINGERING;
	feed_tls(s);
	if (s->tls && buf_len(&s->out) == 0)
		tls_session_bye(s->tls);
	timers_set(loop_timers(s->net->loop), &s->timer, loop_now_ms(s->net->loop) + patience_ms, on_patience_over, s);
	post_flush(s);
}

int stream_fd(const struct stream *s)
{
	return s->fd;
}

struct dns_address stream_peer_address(const struct stream *s, uint16_t *port)
{
	struct dns_address out = {0};
	struct sockaddr_storage peer;
	socklen_t size = sizeof(peer);

	*port = 0;
	if (getpeername(s->fd, (struct sockaddr *)&peer, &size) != 0)
		return out;
	if (peer.ss_family == AF_INET) {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)&peer;
		out.family = DNS_IPV4;
		memcpy(out.bytes, &v4->sin_addr, 4);
		*port = ntohs(v4->sin_port);
	} else if (peer.ss_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&peer;
		out.family = DNS_IPV6;
		memcpy(out.bytes, &v6->sin6_addr, 16);
		*port = ntohs(v6->sin6_port);
	}
	return out;
}
