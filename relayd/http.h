/*
 * relayd/http.h - HTTP on one listening socket, by libmicrohttpd, driven by our loop
 *
 * One http_server per listening socket (a TCP port or the control socket). Requests are handed over whole; the handler
 * answers at once, with a body or with a stream that is asked for more as long as the client reads. Bounded: 128
 * connections, 32 KiB of header and 256 KiB of body a request, 15 s for a request, an answer, or the next piece of a
 * stream to be read; one second while more than a quarter of the connections is taken, and a quarter of a second when
 * nearly all are: a crowd of slow clients holds up no probe for long.
 */
#ifndef RELAYD_HTTP_H
#define RELAYD_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "relayd/loop.h"

struct http_server;
struct http_stream;

struct http_request {
	const char *method; /* "GET" */
	const char *path;   /* without the query, decoded */
	struct slice body;
	struct MHD_Connection *connection; /* for http_request_query() only */
};

/* The decoded value of a query parameter, NULL when missing, "" without a value. Lives as the request. */
const char *http_request_query(const struct http_request *request, const char *name);

enum http_more { HTTP_MORE, HTTP_WAIT, HTTP_END };

struct http_response {
	int status;		  /* 200 */
	const char *content_type; /* static */
	struct buf body;	  /* taken over; starts empty with a ceiling of 16 MiB */
	/* A stream instead of a body: appends some more to `out` (at most about 64 KiB a call). HTTP_WAIT: nothing now;
	 * asked again after http_stream_wake(). `stream_free` is called once, when it ended or the client left. */
	enum http_more (*stream_next)(void *ctx, struct buf *out);
	void (*stream_free)(void *ctx);
	void *stream_ctx;
	struct http_stream **stream; /* where to put the handle for http_stream_wake(); valid until stream_free */
};

/* Who may ask at all; looked at when a connection comes, before a byte of it is read. */
struct http_gate {
	bool (*admits)(void *ctx, int fd); /* the connection's descriptor, to ask the kernel who it is */
	void *ctx;
	const char *refusal; /* JSON, static: what the others get, with 403, and the connection ends */
};

typedef void http_handler(void *ctx, const struct http_request *request, struct http_response *response);

/* Takes over the listening descriptor. */
struct http_server *http_server_new(struct loop *loop, int listen_fd, http_handler *handler, void *ctx,
				    struct err *err);
/* Copied. Before the loop's next turn: until then nobody is accepted. Without one everybody is let in. */
void http_server_guard(struct http_server *server, const struct http_gate *gate);
/* Ends streams, closes all connections. */
void http_server_free(struct http_server **server);
/* A waiting stream has more now. Harmless on one that does not wait. */
void http_stream_wake(struct http_stream *stream);

#endif
