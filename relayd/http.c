#include "relayd/http.h"

#include "base/base.h"
#include "base/list.h"

#include <microhttpd.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	CONNECTIONS_MAX = 128,
	PATIENCE_MS = 15 * 1000,
	CONNECTION_MEMORY_BYTES = 32 * 1024,
	REQUEST_BODY_MAX_BYTES = 256 * 1024,
	RESPONSE_MAX_BYTES = 16 << 20,
	STREAM_BUFFER_BYTES = 256 * 1024,
	STREAM_BLOCK_BYTES = 32 * 1024,
	IDLE_SEC = 15,
};

struct http_server {
	struct loop *loop;
	struct MHD_Daemon *daemon;
	struct watch *watch;
	timer_id timer;
	http_handler *handler;
	void *ctx;
	struct http_gate gate;
	struct list streams;
	struct list peers; /* who let us wait, the longest first */
	unsigned peer_count;
	timer_id patience;
	bool has_closed; /* a connection, in the last run */
	bool stopping;
};

/* A connection, from accept() to its end. We wait for the client, except while a stream has nothing to say. */
struct peer {
	struct list node; /* in server->peers */
	int fd;
	bool is_refused;  /* by the gate */
	int64_t since_ms; /* when the request, or its answer, began */
};

/* What libmicrohttpd keeps for us while a request comes in. */
struct incoming {
	struct buf body;
	bool too_large;
};

struct http_stream {
	struct list node;
	struct http_server *server;
	struct MHD_Connection *connection;
	struct buf pending;
	enum http_more (*next)(void *ctx, struct buf *out);
	void (*free)(void *ctx);
	void *ctx;
	bool suspended, ended;
};

static void run(void *ctx);

const char *http_request_query(const struct http_request *request, const char *name)
{
	const char *value = NULL;

	if (MHD_lookup_connection_value_n(request->connection, MHD_GET_ARGUMENT_KIND, name, strlen(name), &value,
					  NULL) != MHD_YES)
		return NULL;
	return value ? value : "";
}

/* ---- those who come and say nothing, or a little each second ---- */

static void on_patience_over(void *ctx);

static struct peer *first_peer(const struct http_server *server)
{
	return list_is_empty(&server->peers) ? NULL : CONTAINER_OF(server->peers.next, struct peer, node);
}

/* The more come, the sooner those who take their time make room. */
static int64_t patience_ends_at(const struct http_server *server, const struct peer *peer)
{
	if (server->peer_count <= CONNECTIONS_MAX / 4)
		return peer->since_ms + PATIENCE_MS;
	return peer->since_ms + (server->peer_count <= CONNECTIONS_MAX / 4 * 3 ? 1000 : 250);
}

static void arm_patience(struct http_server *server)
{
	struct peer *first = first_peer(server);

	if (first)
		timers_set(loop_timers(server->loop), &server->patience, patience_ends_at(server, first),
			   on_patience_over, server);
	else
		timers_cancel(loop_timers(server->loop), &server->patience);
}

static void stop_waiting(struct http_server *server, struct peer *peer)
{
	if (!list_is_linked(&peer->node))
		return;
	list_remove(&peer->node);
	server->peer_count--;
}

static void wait_from_now(struct http_server *server, struct peer *peer)
{
	stop_waiting(server, peer);
	peer->since_ms = loop_now_ms(server->loop);
	list_append(&server->peers, &peer->node);
	server->peer_count++;
	arm_patience(server);
}

/* libmicrohttpd's own time-out starts again with each octet. It sees an end now, and closes. */
static void on_patience_over(void *ctx)
{
	struct http_server *server = ctx;
	struct peer *first;

	while ((first = first_peer(server)) && patience_ends_at(server, first) <= loop_now_ms(server->loop)) {
		shutdown(first->fd, SHUT_RDWR);
		stop_waiting(server, first);
	}
	arm_patience(server);
}

static struct peer *peer_of(struct MHD_Connection *connection)
{
	return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
			  enum MHD_ConnectionNotificationCode what)
{
	struct http_server *server = cls;
	struct peer *peer = *context;

	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		*context = peer = xcalloc(1, sizeof(*peer));
		list_node_init(&peer->node);
		peer->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
		peer->is_refused = server->gate.admits && !server->gate.admits(server->gate.ctx, peer->fd);
		wait_from_now(server, peer);
	} else {
		stop_waiting(server, peer);
		free(peer);
		*context = NULL;
		server->has_closed = true;
	}
}

/* ---- streams ---- */

static ssize_t on_stream_read(void *cls, uint64_t position, char *out, size_t max)
{
	struct http_stream *stream = cls;
	struct slice ready;
	size_t len;

	(void)position;
	wait_from_now(stream->server, peer_of(stream->connection));
	if (buf_len(&stream->pending) == 0 && !stream->ended) {
		enum http_more more = stream->server->stopping ? HTTP_END : stream->next(stream->ctx, &stream->pending);
		stream->ended = more == HTTP_END;
		if (more == HTTP_WAIT && buf_len(&stream->pending) == 0) {
			stream->suspended = true;
			stop_waiting(stream->server, peer_of(stream->connection));
			MHD_suspend_connection(stream->connection);
			return 0;
		}
	}
	ready = buf_slice(&stream->pending);
	if (ready.len == 0)
		return stream->ended ? MHD_CONTENT_READER_END_OF_STREAM : 0;
	len = MIN(ready.len, max);
	memcpy(out, ready.ptr, len);
	buf_consume(&stream->pending, len);
	return (ssize_t)len;
}

static void on_stream_free(void *cls)
{
	struct http_stream *stream = cls;

	list_remove(&stream->node);
	if (stream->free)
		stream->free(stream->ctx);
	buf_fini(&stream->pending);
	free(stream);
}

void http_stream_wake(struct http_stream *stream)
{
	if (!stream->suspended)
		return;
	stream->suspended = false;
	wait_from_now(stream->server, peer_of(stream->connection));
	MHD_resume_connection(stream->connection);
	timers_set(loop_timers(stream->server->loop), &stream->server->timer, 0, run, stream->server);
}

/* ---- requests and answers ---- */

static struct MHD_Response *make_stream(struct http_server *server, struct MHD_Connection *connection,
					struct http_response *response)
{
	struct http_stream *stream = xcalloc(1, sizeof(*stream));

	stream->server = server;
	stream->connection = connection;
	stream->next = response->stream_next;
	stream->free = response->stream_free;
	stream->ctx = response->stream_ctx;
	buf_init(&stream->pending, STREAM_BUFFER_BYTES);
	list_append(&server->streams, &stream->node);
	if (response->stream)
		*response->stream = stream;
	return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, on_stream_read, stream,
						 on_stream_free);
}

static struct MHD_Response *make_body(struct http_response *response)
{
	struct slice body = buf_slice(&response->body);
	return MHD_create_response_from_buffer(body.len, (void *)(uintptr_t)(body.len ? body.ptr : ""),
					       MHD_RESPMEM_MUST_COPY);
}

static enum MHD_Result answer(struct http_server *server, struct MHD_Connection *connection, const char *method,
			      const char *path, const struct incoming *incoming)
{
	struct http_request request = {method, path, buf_slice(&incoming->body), connection};
	struct http_response response = {.status = 200, .content_type = "text/plain; charset=utf-8"};
	struct MHD_Response *built;
	enum MHD_Result queued;

	buf_init(&response.body, RESPONSE_MAX_BYTES);
	if (incoming->too_large) {
		response.status = MHD_HTTP_CONTENT_TOO_LARGE;
		buf_append_str(&response.body, "request body too large\n");
	} else {
		server->handler(server->ctx, &request, &response);
	}
	wait_from_now(server, peer_of(connection));
	built = response.stream_next ? make_stream(server, connection, &response) : make_body(&response);
	buf_fini(&response.body);
	if (!built)
		return MHD_NO;
	MHD_add_response_header(built, "Content-Type", response.content_type);
	MHD_add_response_header(built, "Cache-Control", "no-store");
	queued = MHD_queue_response(connection, (unsigned)response.status, built);
	MHD_destroy_response(built);
	return queued;
}

/* Before its body: libmicrohttpd closes the connection then. */
static enum MHD_Result refuse(const struct http_server *server, struct MHD_Connection *connection)
{
	const char *text = server->gate.refusal;
	struct MHD_Response *built =
	    MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result queued;

	if (!built)
		return MHD_NO;
	MHD_add_response_header(built, "Content-Type", "application/json");
	MHD_add_response_header(built, "Connection", "close");
	queued = MHD_queue_response(connection, MHD_HTTP_FORBIDDEN, built);
	MHD_destroy_response(built);
	return queued;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *path, const char *method,
				  const char *version, const char *data, size_t *data_len, void **state)
{
	struct http_server *server = cls;
	struct incoming *incoming = *state;

	(void)version;
	if (peer_of(connection)->is_refused)
		return refuse(server, connection);
	if (!incoming) {
		incoming = xcalloc(1, sizeof(*incoming));
		buf_init(&incoming->body, REQUEST_BODY_MAX_BYTES);
		*state = incoming;
		return MHD_YES;
	}
	if (*data_len > 0) {
		if (buf_append(&incoming->body, slice_of(data, *data_len)) < 0)
			incoming->too_large = true;
		*data_len = 0;
		return MHD_YES;
	}
	return answer(server, connection, method, path, incoming);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **state,
			 enum MHD_RequestTerminationCode code)
{
	struct incoming *incoming = *state;

	(void)code;
	wait_from_now(cls, peer_of(connection));
	if (!incoming)
		return;
	buf_fini(&incoming->body);
	free(incoming);
	*state = NULL;
}

/* Without this timer a stream stops after its first buffer, and idle connections never end. */
static void arm_timer(struct http_server *server)
{
	MHD_UNSIGNED_LONG_LONG wait_ms;

	/* At its limit libmicrohttpd does not listen; that it may again it sees in the next run. */
	if (server->has_closed)
		timers_set(loop_timers(server->loop), &server->timer, 0, run, server);
	else if (MHD_get_timeout(server->daemon, &wait_ms) == MHD_YES)
		timers_set(loop_timers(server->loop), &server->timer, loop_now_ms(server->loop) + (int64_t)wait_ms, run,
			   server);
	else
		timers_cancel(loop_timers(server->loop), &server->timer);
}

static void run(void *ctx)
{
	struct http_server *server = ctx;

	server->has_closed = false;
	MHD_run(server->daemon);
	arm_timer(server);
}

static void on_epoll(void *ctx, uint32_t events)
{
	(void)events;
	run(ctx);
}

static void on_library_log(void *ctx, const char *format, va_list args)
{
	(void)ctx;
	(void)format;
	(void)args;
}

struct http_server *http_server_new(struct loop *loop, int listen_fd, http_handler *handler, void *ctx, struct err *err)
{
	struct http_server *server = xcalloc(1, sizeof(*server));
	const union MHD_DaemonInfo *info;

	server->loop = loop;
	server->handler = handler;
	server->ctx = ctx;
	list_init(&server->streams);
	list_init(&server->peers);
	server->daemon =
	    MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request,
			     server, MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_CONNECTION_LIMIT,
			     (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SEC,
			     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES,
			     MHD_OPTION_EXTERNAL_LOGGER, on_library_log, NULL, MHD_OPTION_NOTIFY_COMPLETED,
			     on_completed, server, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_END);
	info = server->daemon ? MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (!info) {
		err_set(err, ERR_SYSTEM, "cannot start the HTTP server");
		close(listen_fd);
		http_server_free(&server);
		return NULL;
	}
	server->watch = loop_watch(loop, info->epoll_fd, EPOLLIN, on_epoll, server);
	arm_timer(server);
	return server;
}

void http_server_guard(struct http_server *server, const struct http_gate *gate)
{
	server->gate = *gate;
}

/* libmicrohttpd refuses to stop while a connection is suspended. */
static void end_streams(struct http_server *server)
{
	server->stopping = true;
	LIST_FOREACH (node, &server->streams) {
		struct http_stream *stream = CONTAINER_OF(node, struct http_stream, node);
		if (stream->suspended) {
			stream->suspended = false;
			MHD_resume_connection(stream->connection);
		}
	}
	MHD_run(server->daemon);
}

void http_server_free(struct http_server **server)
{
	struct http_server *s = *server;

	if (!s)
		return;
	timers_cancel(loop_timers(s->loop), &s->timer);
	if (s->watch)
		loop_unwatch(s->loop, &s->watch);
	if (s->daemon) {
		end_streams(s);
		MHD_stop_daemon(s->daemon);
	}
	timers_cancel(loop_timers(s->loop), &s->patience);
	free(s);
	*server = NULL;
}
