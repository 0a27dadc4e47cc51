/*
 * Two ways in: the loop's event (on_ready) and the posted end of the turn (on_turn_end). Both end in settle(), the one
 * place that calls the owner back and that sends; calls of the owner only change state and post. So nothing recurses,
 * however owner and stream answer each other.
 *
 * Output passes through two buffers: `raw` goes to the socket as it is, before anything of TLS: what was written in
 * clear when STARTTLS came (the 220, or the command). `out` is plain text: sent as it is, or fed to the TLS session.
 */
#include "relayd/stream.h"

#include "base/base.h"
#include "base/buf.h"
#include "base/list.h"
#include "relayd/net_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	RECORD_MAX = 16 * 1024, /* plain text of one TLS record */
	/* A session whose output is over 64 KiB decrypts nothing. Two sides that both send much would wait for each
	 * other, and a server's early refusal would not be heard; so we stay below. */
	TLS_UNSENT_MAX = 32 * 1024,
	SENT_PER_TURN_MAX = 256 * 1024, /* then the others have their turn, however fast this peer reads */
	WHY_MAX = 200,
};

/*
 *   CONNECTING ──▶ OPEN ◀──▶ HANDSHAKE      OPEN ──stream_close_gently()──▶ LINGERING ──▶ CLOSED
 *   any ──stream_close()──▶ CLOSED
 */
enum phase {
	CONNECTING, /* the kernel has been asked */
	OPEN,	    /* bytes go both ways; also after the end, until the owner closes */
	HANDSHAKE,  /* TLS has begun */
	LINGERING,  /* the owner is gone: flush, then wait for the peer's end */
	CLOSED,	    /* waits for the end of the turn */
};

struct stream {
	struct net *net;
	struct list node; /* in net->streams */
	struct list lingering_node;
	struct stream_events events;
	struct watch *watch; /* NULL: hung up, and there is nothing to wait for */
	struct tls_session *tls;
	struct buf in; /* plain text that the owner has not taken */
	struct buf raw, out;
	char *why; /* it ended badly */
	timer_id timer;
	size_t high_water;
	uint64_t turn; /* of sent_in_turn */
	uint32_t sent_in_turn;
	int fd;
	enum phase phase;
	bool paused;
	bool offer_due;	 /* what is in `in` may be offered again */
	bool posted;	 /* on_turn_end() comes */
	bool drain_owed; /* something was written since the last on_drained */
	bool bye_said, shut;
	bool hung;     /* the kernel says HUP or ERR whether we ask or not */
	bool eof;      /* the socket gives no more */
	bool broken;   /* the socket takes no more */
	bool end_seen; /* no more plain text will come */
	bool end_told;
};

/* ---- the end ---- */

static void stream_free(void *ctx)
{
	struct stream *s = ctx;

	list_remove(&s->node);
	s->net->stream_count--;
	tls_session_free(&s->tls);
	buf_fini(&s->in);
	buf_fini(&s->raw);
	buf_fini(&s->out);
	free(s->why);
	free(s);
}

static void shut_down(struct stream *s)
{
	if (s->phase == CLOSED)
		return;
	if (s->phase == LINGERING) {
		list_remove(&s->lingering_node);
		s->net->lingering_count--;
	}
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

void stream_free_all(struct net *net)
{
	LIST_FOREACH (node, &net->streams) {
		struct stream *s = CONTAINER_OF(node, struct stream, node);
		shut_down(s);
		loop_unpost(net->loop, s);
		stream_free(s);
	}
}

/* The first reason counts: what follows is mostly its consequence. */
static void set_why(struct stream *s, const char *why)
{
	if (!s->why)
		s->why = xmemdup(why, strnlen(why, WHY_MAX));
}

static size_t tls_unsent(const struct stream *s)
{
	return s->tls ? tls_session_output(s->tls).len : 0;
}

/* The socket takes no more. What the peer said before is still to be read: often the reply that explains it. */
static void break_output(struct stream *s, const char *why)
{
	s->broken = true;
	buf_reset(&s->raw);
	buf_reset(&s->out);
	if (s->tls)
		tls_session_output_sent(s->tls, tls_unsent(s)); /* or it would not decrypt */
	if (why)
		set_why(s, why);
}

static void break_all(struct stream *s, const char *why)
{
	break_output(s, why);
	s->eof = s->end_seen = true;
}

/* ---- what to wait for ---- */

size_t stream_unsent(const struct stream *s)
{
	return s->broken ? 0 : buf_len(&s->raw) + buf_len(&s->out) + tls_unsent(s);
}

static bool is_over_high_water(const struct stream *s)
{
	return s->high_water && stream_unsent(s) > s->high_water;
}

/* May the owner be given plain text? */
static bool may_offer(const struct stream *s)
{
	return s->phase == OPEN && !s->paused && !is_over_high_water(s);
}

static bool wants_bytes(const struct stream *s)
{
	if (s->eof || s->phase == CONNECTING || s->phase == CLOSED)
		return false;
	if (s->phase == LINGERING)
		return true;
	/* A full session waits for its output to drain before it decrypts any more. */
	if (s->tls && tls_session_input_room(s->tls) == 0)
		return false;
	return s->phase == HANDSHAKE || (!s->end_seen && buf_len(&s->in) == 0 && may_offer(s));
}

static void on_ready(void *ctx, uint32_t events);

static void update_watch(struct stream *s)
{
	uint32_t events = 0;

	if (s->phase == CLOSED)
		return;
	/* In the handshake `out` waits for its end, not for the socket. */
	if (s->phase == CONNECTING || (!s->broken && (s->phase == HANDSHAKE ? buf_len(&s->raw) + tls_unsent(s) > 0
									    : stream_unsent(s) > 0 || s->drain_owed)))
		events |= EPOLLOUT;
	if (wants_bytes(s))
		events |= EPOLLIN;
	if (s->hung && events == 0)
		loop_unwatch(s->net->loop, &s->watch); /* it would wake us for ever */
	else if (!s->watch)
		s->watch = loop_watch(s->net->loop, s->fd, events, on_ready, s);
	else
		loop_watch_events(s->net->loop, s->watch, events);
}

/* ---- sending ---- */

/* False: nothing more can be written now. */
static bool feed_record(struct stream *s)
{
	struct slice piece = slice_to(buf_slice(&s->out), RECORD_MAX);
	struct err err;
	size_t taken;
	enum tls_status status = tls_session_write(s->tls, piece, &taken, &err);

	buf_consume(&s->out, taken);
	if (status == TLS_CLOSED || status == TLS_FAILED)
		break_output(s, err.text);
	return status == TLS_OK && taken > 0;
}

static void feed_tls(struct stream *s)
{
	if (s->phase == HANDSHAKE || !tls_session_is_established(s->tls))
		return;
	while (buf_len(&s->out) > 0 && tls_unsent(s) < TLS_UNSENT_MAX)
		if (!feed_record(s))
			break;
	if (s->phase == LINGERING && !s->bye_said && buf_len(&s->out) == 0 && !s->broken) {
		s->bye_said = true;
		tls_session_bye(s->tls);
	}
}

static struct slice next_to_send(struct stream *s)
{
	if (buf_len(&s->raw) > 0)
		return buf_slice(&s->raw);
	if (!s->tls)
		return buf_slice(&s->out);
	feed_tls(s);
	return tls_session_output(s->tls);
}

static void consume_sent(struct stream *s, size_t sent)
{
	if (buf_len(&s->raw) > 0) {
		buf_consume(&s->raw, sent);
		if (buf_len(&s->raw) == 0)
			buf_reset(&s->raw);
	} else if (s->tls) {
		tls_session_output_sent(s->tls, sent);
	} else {
		buf_consume(&s->out, sent);
	}
	s->sent_in_turn += (uint32_t)sent;
}

static bool is_temporary(int errnum)
{
	return errnum == EAGAIN || errnum == EINTR || errnum == ENOBUFS || errnum == ENOMEM;
}

static bool is_over_budget(struct stream *s)
{
	if (s->turn != loop_turn_number(s->net->loop)) {
		s->turn = loop_turn_number(s->net->loop);
		s->sent_in_turn = 0;
	}
	return s->sent_in_turn >= SENT_PER_TURN_MAX;
}

static void flush(struct stream *s)
{
	if (s->phase == CONNECTING || s->phase == CLOSED)
		return;
	while (!s->broken && !is_over_budget(s)) {
		struct slice bytes = next_to_send(s);
		ssize_t n;
		if (bytes.len == 0 || s->broken)
			break;
		n = send(s->fd, bytes.ptr, MIN(bytes.len, (size_t)SENT_PER_TURN_MAX), MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0) {
			if (!is_temporary(errno))
				break_output(s, strerror(errno));
			break;
		}
		consume_sent(s, (size_t)n);
		if ((size_t)n < bytes.len)
			break;
	}
	if (buf_len(&s->out) == 0)
		buf_reset(&s->out);
}

static void post_settle(struct stream *s);

void stream_write(struct stream *s, struct slice bytes)
{
	if (s->broken || bytes.len == 0)
		return;
	if (bytes.len > STREAM_UNSENT_MAX || stream_unsent(s) > STREAM_UNSENT_MAX - bytes.len)
		break_all(s, "too much is waiting to be sent");
	else
		buf_append(&s->out, bytes);
	s->drain_owed = true;
	post_settle(s);
}

/* ---- receiving ---- */

/* How much the owner took. All, when it closed or began TLS meanwhile: the rest is dropped then. */
static size_t give(struct stream *s, struct slice bytes)
{
	size_t taken = s->events.on_input(s->events.ctx, bytes);

	return s->phase == OPEN ? MIN(taken, bytes.len) : bytes.len;
}

/* New plain text; `in` is empty. */
static void deliver(struct stream *s, struct slice bytes)
{
	size_t taken = may_offer(s) ? give(s, bytes) : 0;

	if (taken < bytes.len)
		BUG_ON(buf_append(&s->in, slice_from(bytes, taken)) != 0);
}

static void offer_again(struct stream *s)
{
	if (!s->offer_due || !may_offer(s))
		return;
	s->offer_due = false;
	if (buf_len(&s->in) > 0)
		buf_consume(&s->in, give(s, buf_slice(&s->in)));
	if (buf_len(&s->in) == 0)
		buf_reset(&s->in);
}

static void read_tls(struct stream *s)
{
	char plain[RECORD_MAX];
	struct err err;
	size_t len;

	while (s->tls && !s->end_seen && buf_len(&s->in) == 0 && may_offer(s)) {
		enum tls_status status = tls_session_read(s->tls, plain, sizeof(plain), &len, &err);
		if (status == TLS_OK) {
			deliver(s, slice_of(plain, len));
			continue;
		}
		if (status == TLS_FAILED)
			set_why(s, err.text);
		if (status != TLS_AGAIN)
			s->end_seen = true;
		break;
	}
}

/* TLS_AGAIN although everything has been read means more bytes are needed; an end is one of the session's too. */
static void shake_hands(struct stream *s)
{
	struct err err = {0};
	enum tls_status status = tls_session_handshake(s->tls, &err);

	if (status == TLS_AGAIN)
		return;
	s->phase = OPEN;
	if (status != TLS_OK) {
		s->paused = s->end_seen = s->end_told = true; /* dead; but an alert may have to go out */
		buf_reset(&s->out);
		s->drain_owed = false;
	}
	s->events.on_tls(s->events.ctx, status == TLS_OK, status == TLS_OK ? "" : err.text);
}

static void take_bytes(struct stream *s, struct slice bytes)
{
	if (s->phase == LINGERING)
		return;
	if (s->tls)
		BUG_ON(tls_session_input(s->tls, bytes) < bytes.len); /* no more than its room was read */
	else
		deliver(s, bytes);
}

static void receive(struct stream *s)
{
	size_t limit = NET_SCRATCH_BYTES;
	ssize_t n;

	if (!wants_bytes(s))
		return;
	if (s->tls && s->phase != LINGERING)
		limit = MIN(limit, tls_session_input_room(s->tls));
	n = recv(s->fd, s->net->scratch, limit, MSG_DONTWAIT);
	if (n > 0) {
		take_bytes(s, slice_of(s->net->scratch, (size_t)n));
		return;
	}
	if (n < 0 && is_temporary(errno) && !s->broken)
		return;
	if (n < 0)
		break_output(s, strerror(errno));
	s->eof = true;
	if (s->tls)
		tls_session_input_eof(s->tls);
	else
		s->end_seen = true;
}

/* ---- after the owner or the socket has moved something ---- */

static void tell_drained(struct stream *s)
{
	if (!s->drain_owed || s->phase != OPEN || s->broken || stream_unsent(s) > 0 || is_over_budget(s))
		return;
	s->drain_owed = false;
	if (s->events.on_drained)
		s->events.on_drained(s->events.ctx);
}

static void tell_end(struct stream *s)
{
	if (!s->end_seen || s->end_told || s->phase != OPEN || s->paused || buf_len(&s->in) > 0)
		return;
	s->end_told = true;
	s->events.on_end(s->events.ctx, s->why ? s->why : "");
}

static void end_lingering(struct stream *s)
{
	bool all_sent = s->broken || stream_unsent(s) == 0;

	if (s->broken || (all_sent && s->eof)) {
		shut_down(s);
	} else if (all_sent && !s->shut) {
		s->shut = true;
		shutdown(s->fd, SHUT_WR);
	}
}

static void settle(struct stream *s)
{
	if (s->phase == HANDSHAKE)
		shake_hands(s);
	offer_again(s);
	read_tls(s);
	flush(s);
	tell_drained(s);
	tell_end(s);
	if (s->phase == LINGERING)
		end_lingering(s);
	/* The high-water mark held input back, and there is room now. */
	if (may_offer(s) &&
	    (s->offer_due || (s->tls && !s->end_seen && tls_session_may_read(s->tls) && !buf_len(&s->in))))
		post_settle(s);
	update_watch(s);
}

static void on_turn_end(void *ctx)
{
	struct stream *s = ctx;

	s->posted = false;
	if (s->phase != CLOSED)
		settle(s);
}

static void post_settle(struct stream *s)
{
	if (s->posted || s->phase == CLOSED)
		return;
	s->posted = true;
	loop_post(s->net->loop, on_turn_end, s);
}

static void finish_connect(struct stream *s)
{
	int error = 0;
	socklen_t size = sizeof(error);

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
		error = errno;
	s->phase = OPEN;
	if (error == 0)
		s->events.on_connected(s->events.ctx);
	else
		break_all(s, strerror(error));
}

static void on_ready(void *ctx, uint32_t events)
{
	struct stream *s = ctx;

	if (s->phase == CONNECTING) {
		if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
			finish_connect(s);
	} else {
		s->hung = events & (EPOLLHUP | EPOLLERR);
		if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			receive(s);
	}
	if (s->phase != CLOSED)
		settle(s);
}

void stream_resume(struct stream *s)
{
	bool has_kept = buf_len(&s->in) > 0;

	if (!s->paused && !has_kept)
		return;
	s->paused = false;
	s->offer_due = has_kept;
	post_settle(s);
}

void stream_pause(struct stream *s)
{
	s->paused = true;
	post_settle(s);
}

void stream_set_high_water(struct stream *s, size_t bytes)
{
	s->high_water = bytes;
	post_settle(s);
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
	buf_init(&s->in, NET_SCRATCH_BYTES);
	buf_init(&s->raw, STREAM_UNSENT_MAX);
	buf_init(&s->out, STREAM_UNSENT_MAX);
	list_node_init(&s->lingering_node);
	list_append(&net->streams, &s->node);
	net->stream_count++;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* fails on unix sockets, which need none */
	update_watch(s);
	return s;
}

struct stream *stream_new(struct net *net, int fd, const struct stream_events *events)
{
	return make(net, fd, events, OPEN);
}

struct stream *stream_connect(struct net *net, const struct dns_address *address, uint16_t port,
			      const struct dns_address *source, const struct stream_events *events, struct err *err)
{
	int fd = net_connect(net, address, port, source, err);

	return fd < 0 ? NULL : make(net, fd, events, CONNECTING);
}

void stream_set_events(struct stream *s, const struct stream_events *events)
{
	s->events = *events;
}

static void begin_tls(struct stream *s, struct tls_session *session)
{
	BUG_ON(s->tls || s->phase != OPEN);
	s->raw = s->out;
	buf_init(&s->out, STREAM_UNSENT_MAX);
	/* on_input may be reading it just now: emptied, not freed. */
	buf_clear(&s->in);
	s->offer_due = false;
	s->tls = session;
	if (s->eof)
		tls_session_input_eof(session);
	s->phase = HANDSHAKE;
	post_settle(s);
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

/* The longest makes room. */
static void begin_lingering(struct stream *s)
{
	struct net *net = s->net;

	if (net->lingering_count == STREAM_LINGERING_MAX)
		shut_down(CONTAINER_OF(net->lingering.next, struct stream, lingering_node));
	s->phase = LINGERING;
	list_append(&net->lingering, &s->lingering_node);
	net->lingering_count++;
}

void stream_close_gently(struct stream **stream, int64_t patience_ms)
{
	struct stream *s = *stream;

	*stream = NULL;
	if (!s)
		return;
	if (s->phase == HANDSHAKE)
		flush(s);
	if (s->phase != OPEN || s->broken) {
		shut_down(s);
		return;
	}
	begin_lingering(s);
	s->drain_owed = false; /* nobody is left to be told */
	buf_clear(&s->in);
	timers_set(loop_timers(s->net->loop), &s->timer, loop_now_ms(s->net->loop) + patience_ms, on_patience_over, s);
	post_settle(s);
}

/* ---- who ---- */

int stream_fd(const struct stream *s)
{
	return s->fd;
}

struct dns_address stream_peer_address(const struct stream *s, uint16_t *port)
{
	struct net_peer peer = {0};

	net_peer_of(s->fd, &peer);
	*port = peer.port;
	return peer.address;
}

unsigned net_stream_count(const struct net *net)
{
	return net->stream_count;
}
