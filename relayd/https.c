/*
 * A request is WAITING for its turn, RESOLVING its host's name, RUNNING inside libcurl, or DONE: its callback is
 * posted. libcurl calls back into on_socket_wish(), on_timer_wish() and the three that take bytes: they only write down
 * and watch, and never call libcurl. Users' callbacks come from deliver() alone, where libcurl is not up the stack.
 */
#include "relayd/https.h"

#include "base/base.h"
#include "base/buf.h"
#include "base/list.h"

#include <curl/curl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

enum {
	HEADER_MAX_BYTES = 64 * 1024,
	IDLE_CONNECTIONS_MAX = 8,
	CONNECT_TIMEOUT_MS = 20 * 1000,
	RESOLVE_TEXT_BYTES = 1024 + RESOLVER_ADDRESSES_MAX * (DNS_ADDRESS_TEXT + 3),
	CONTENT_TYPE_BYTES = 128,
	RETRY_AFTER_MAX_SEC = 7 * 86400,
};

/* Names that an operator wrote, and others: each has its own places. */
enum kind { KIND_FOREIGN, KIND_CONFIGURED, KIND_COUNT };
enum state { STATE_WAITING, STATE_RESOLVING, STATE_RUNNING, STATE_DONE };

struct request {
	struct list node; /* while it waits */
	UT_hash_handle hh;
	uint64_t id;
	struct https *https;
	https_cb *cb;
	void *ctx;
	enum kind kind;
	enum state state;

	char *url, *host;
	unsigned port;
	bool is_literal; /* the host is a plain address */
	char *method;
	struct curl_slist *headers, *resolve;
	struct buf body, answer;
	size_t header_bytes;
	bool too_large;
	int64_t timeout_ms;
	timer_id timer;
	uint64_t lookup;
	CURL *easy;
	char error[CURL_ERROR_SIZE];

	struct https_answer told;
	char reason[HTTPS_REASON_MAX];
	char content_type[CONTENT_TYPE_BYTES];
};

/* One of libcurl's sockets. */
struct watched {
	int fd;
	struct watch *watch;
	struct https *https;
	struct watched *next;
};

struct https {
	struct loop *loop;
	struct resolver *resolver;
	CURLM *multi;
	timer_id timer;
	struct watched *watched;
	struct request *requests;
	struct list waiting[KIND_COUNT];
	unsigned waiting_count[KIND_COUNT], running_count[KIND_COUNT];
	uint64_t last_id;
	char *ca_file;
	bool allow_loopback;
	enum dns_ip ip;
};

const char *https_result_name(enum https_result result)
{
	static const char *const names[] = {"answered", "bad-request", "busy",	  "no-address", "dns-failed",
					    "connect",	"tls",	       "timeout", "too-large",	"bad-answer"};

	return names[result];
}

/* ---- the end of a request ---- */

static void wipe(struct buf *buf)
{
	if (buf->data)
		sodium_memzero(buf->data, buf->cap);
	buf_fini(buf);
}

static void free_easy(struct request *request)
{
	if (!request->easy)
		return;
	curl_multi_remove_handle(request->https->multi, request->easy);
	curl_easy_cleanup(request->easy);
	request->easy = NULL;
}

static void start_next(struct https *https, enum kind kind);

/* It waits, resolves and runs no more. */
static void leave(struct request *request)
{
	struct https *https = request->https;
	enum state left = request->state;

	request->state = STATE_DONE;
	timers_cancel(loop_timers(https->loop), &request->timer);
	resolver_cancel(https->resolver, &request->lookup);
	free_easy(request);
	if (left == STATE_WAITING) {
		list_remove(&request->node);
		https->waiting_count[request->kind]--;
	} else if (left != STATE_DONE) {
		https->running_count[request->kind]--;
		start_next(https, request->kind);
	}
}

static void free_request(struct request *request)
{
	leave(request);
	loop_unpost(request->https->loop, request);
	curl_slist_free_all(request->headers);
	curl_slist_free_all(request->resolve);
	wipe(&request->body);
	wipe(&request->answer);
	free(request->url);
	free(request->host);
	free(request->method);
	free(request);
}

static void deliver(void *ctx)
{
	struct request *request = ctx;

	HASH_DEL(request->https->requests, request);
	request->told.reason = request->reason;
	request->told.content_type = request->content_type;
	request->told.body = request->told.result == HTTPS_ANSWERED ? buf_slice(&request->answer) : (struct slice){0};
	request->cb(request->ctx, &request->told);
	free_request(request);
}

static void finish(struct request *request, enum https_result result, const char *reason)
{
	request->told.result = result;
	snprintf(request->reason, sizeof(request->reason), "%s", reason);
	leave(request);
	loop_post(request->https->loop, deliver, request);
}

static void on_timeout(void *ctx)
{
	static const char *const reasons[] = {
	    [STATE_WAITING] = "other requests took all the time",
	    [STATE_RESOLVING] = "the name was not resolved in time",
	    [STATE_RUNNING] = "no complete answer in time",
	};
	struct request *request = ctx;

	request->timer = 0;
	finish(request, HTTPS_TIMEOUT, reasons[request->state]);
}

/* ---- libcurl's side ---- */

static enum https_result result_of(CURLcode code, const struct request *request)
{
	switch (code) {
	case CURLE_OK: return HTTPS_ANSWERED;
	case CURLE_COULDNT_CONNECT:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE: return HTTPS_CONNECT;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_ISSUER_ERROR: return HTTPS_TLS;
	case CURLE_OPERATION_TIMEDOUT: return HTTPS_TIMEOUT;
	default: return request->too_large ? HTTPS_TOO_LARGE : HTTPS_BAD_ANSWER;
	}
}

static void read_answer(struct request *request)
{
	curl_off_t retry_after = 0;
	char *content_type = NULL;
	long status = 0;

	curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(request->easy, CURLINFO_CONTENT_TYPE, &content_type);
	curl_easy_getinfo(request->easy, CURLINFO_RETRY_AFTER, &retry_after);
	request->told.status = (int)status;
	request->told.retry_after_ms = (int64_t)MIN(retry_after, RETRY_AFTER_MAX_SEC) * 1000;
	snprintf(request->content_type, sizeof(request->content_type), "%s", content_type ? content_type : "");
}

static void on_transfer_done(struct request *request, CURLcode code)
{
	const char *reason = request->error[0] ? request->error : curl_easy_strerror(code);

	if (code == CURLE_OK) {
		read_answer(request);
		finish(request, HTTPS_ANSWERED, "");
	} else {
		finish(request, result_of(code, request), request->too_large ? "the answer is too large" : reason);
	}
}

static void act(struct https *https, curl_socket_t fd, int events)
{
	CURLMsg *message;
	int count;

	curl_multi_socket_action(https->multi, fd, events, &count);
	while ((message = curl_multi_info_read(https->multi, &count))) {
		struct request *request = NULL;
		CURLcode code = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &request);
		on_transfer_done(request, code); /* frees the handle, and the message with it */
	}
}

static void on_ready(void *ctx, uint32_t events)
{
	struct watched *watched = ctx;

	act(watched->https, watched->fd,
	    (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
		(events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0));
}

static void on_time(void *ctx)
{
	struct https *https = ctx;

	https->timer = 0;
	act(https, CURL_SOCKET_TIMEOUT, 0);
}

static void forget(struct https *https, struct watched **at)
{
	struct watched *gone = *at;

	*at = gone->next;
	loop_unwatch(https->loop, &gone->watch);
	free(gone);
}

static int on_socket_wish(CURL *easy, curl_socket_t fd, int what, void *ctx, void *unused)
{
	struct https *https = ctx;
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
	struct watched **at = &https->watched;

	(void)easy;
	(void)unused;
	while (*at && (*at)->fd != fd)
		at = &(*at)->next;
	if (what == CURL_POLL_REMOVE) {
		if (*at)
			forget(https, at);
	} else if (*at) {
		loop_watch_events(https->loop, (*at)->watch, events);
	} else {
		*at = xcalloc(1, sizeof(**at));
		(*at)->fd = fd;
		(*at)->https = https;
		(*at)->watch = loop_watch(https->loop, fd, events, on_ready, *at);
	}
	return 0;
}

static int on_timer_wish(CURLM *multi, long timeout_ms, void *ctx)
{
	struct https *https = ctx;

	(void)multi;
	timers_cancel(loop_timers(https->loop), &https->timer);
	if (timeout_ms >= 0)
		https->timer =
		    timers_add(loop_timers(https->loop), loop_now_ms(https->loop) + timeout_ms, on_time, https);
	return 0;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *ctx)
{
	struct request *request = ctx;

	request->too_large = buf_append(&request->answer, slice_of(bytes, size * count)) != 0;
	return request->too_large ? 0 : size * count;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *ctx)
{
	struct request *request = ctx;

	(void)bytes;
	request->header_bytes += size * count;
	request->too_large = request->header_bytes > HEADER_MAX_BYTES;
	return request->too_large ? 0 : size * count;
}

/* Names are resolved before: a lookup of libcurl's own would start a thread. */
static int on_own_lookup(void *state, void *reserved, void *ctx)
{
	(void)state;
	(void)reserved;
	(void)ctx;
	return 1;
}

/* ---- the way of a request ---- */

static void set_trust(CURL *easy, const char *ca_file)
{
	const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

	if (ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
	/* Debian's libcurl would read the bundle, and then each of its certificates again. */
	if (ca_file || info->cainfo)
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
}

static void set_callbacks(CURL *easy, struct request *request)
{
	curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->error);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
	if (!request->is_literal)
		curl_easy_setopt(easy, CURLOPT_RESOLVER_START_FUNCTION, on_own_lookup);
}

static void set_request(CURL *easy, struct request *request)
{
	struct slice body = buf_slice(&request->body);

	curl_easy_setopt(easy, CURLOPT_URL, request->url);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
	curl_easy_setopt(easy, CURLOPT_RESOLVE, request->resolve);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "relayd/" RELAYD_VERSION);
	if (body.len > 0 || (request->method && strcmp(request->method, "POST") == 0)) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body.ptr ? body.ptr : "");
	}
	if (request->method)
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
}

static void run(struct request *request)
{
	struct https *https = request->https;
	CURL *easy = curl_easy_init();

	BUG_ON(!easy);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)MIN(CONNECT_TIMEOUT_MS, request->timeout_ms));
	set_trust(easy, https->ca_file);
	set_callbacks(easy, request);
	set_request(easy, request);
	request->easy = easy;
	request->state = STATE_RUNNING;
	BUG_ON(curl_multi_add_handle(https->multi, easy) != CURLM_OK);
}

/* Leaves out what we may not connect to. */
static void keep_allowed(const struct https *https, struct resolver_result *result)
{
	size_t kept = 0;

	for (size_t i = 0; i < result->address_count; i++) {
		enum dns_address_kind kind = dns_address_kind(&result->addresses[i]);

		if (kind == DNS_ADDRESS_GLOBAL || (kind == DNS_ADDRESS_LOOPBACK && https->allow_loopback))
			result->addresses[kept++] = result->addresses[i];
	}
	result->address_count = kept;
}

static void on_resolved(void *ctx, const struct resolver_result *result)
{
	struct request *request = ctx;
	struct resolver_result allowed = *result;
	char text[RESOLVE_TEXT_BYTES] = "+"; /* the entry may grow old */

	request->lookup = 0;
	keep_allowed(request->https, &allowed);
	if (result->status == DNS_TEMPORARY) {
		finish(request, HTTPS_DNS_FAILED, result->reason);
	} else if (result->status != DNS_OK) {
		finish(request, HTTPS_NO_ADDRESS, result->reason);
	} else if (allowed.address_count == 0) {
		finish(request, HTTPS_NO_ADDRESS, "it has only addresses that are not connected to, such as loopback");
	} else if (!resolver_format_curl(&allowed, request->host, request->port, text + 1, sizeof(text) - 1)) {
		finish(request, HTTPS_BAD_REQUEST, "its host name is too long");
	} else {
		if (!request->is_literal)
			request->resolve = curl_slist_append(NULL, text);
		run(request);
	}
}

static void start_next(struct https *https, enum kind kind)
{
	while (https->running_count[kind] < HTTPS_RUNNING_MAX && !list_is_empty(&https->waiting[kind])) {
		struct request *request = CONTAINER_OF(list_pop(&https->waiting[kind]), struct request, node);
		struct resolver_options options = {https->ip, kind == KIND_CONFIGURED};

		https->waiting_count[kind]--;
		https->running_count[kind]++;
		request->state = STATE_RESOLVING;
		request->lookup = resolver_lookup(https->resolver, request->host, &options, on_resolved, request);
	}
}

static bool is_header(const char *header)
{
	if (!strchr(header, ':'))
		return false;
	for (; *header; header++)
		if ((unsigned char)*header < ' ' && *header != '\t')
			return false;
	return true;
}

static bool take_part(CURLU *url, CURLUPart part, unsigned flags, char **out)
{
	char *text = NULL;

	if (curl_url_get(url, part, &text, flags) != CURLUE_OK)
		return false;
	*out = xstrdup(text);
	curl_free(text);
	return true;
}

/* Only "https://HOST[:PORT]/..." passes; a plain address for HOST only from an operator. */
static bool take_url(struct request *request, const char *text)
{
	char *scheme = NULL, *port = NULL;
	CURLU *url = curl_url();
	struct dns_address address;
	bool ok;

	ok = url && curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK &&
	     take_part(url, CURLUPART_SCHEME, 0, &scheme) && strcmp(scheme, "https") == 0 &&
	     take_part(url, CURLUPART_HOST, 0, &request->host) &&
	     take_part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT, &port) &&
	     take_part(url, CURLUPART_URL, 0, &request->url);
	request->port = ok ? (unsigned)strtoul(port, NULL, 10) : 0;
	request->is_literal =
	    ok && (request->host[0] == '[' || dns_address_parse(slice_of_str(request->host), &address));
	curl_url_cleanup(url);
	free(scheme);
	free(port);
	return ok && (!request->is_literal || request->kind == KIND_CONFIGURED);
}

static bool take_headers(struct request *request, const struct https_request *wanted)
{
	/* Without this libcurl would wait for a "100 Continue" before it sends a long body. */
	request->headers = curl_slist_append(NULL, "Expect:");
	for (size_t i = 0; i < wanted->header_count; i++) {
		if (!is_header(wanted->headers[i]))
			return false;
		request->headers = curl_slist_append(request->headers, wanted->headers[i]);
		BUG_ON(!request->headers);
	}
	return true;
}

uint64_t https_send(struct https *https, const struct https_request *wanted, https_cb *cb, void *ctx)
{
	struct request *request = xcalloc(1, sizeof(*request));
	enum kind kind = wanted->is_configured_name ? KIND_CONFIGURED : KIND_FOREIGN;
	int64_t limit = wanted->timeout_ms > 0 ? wanted->timeout_ms : HTTPS_TIMEOUT_MAX_MS;

	*request = (struct request){
	    .id = ++https->last_id, .https = https, .cb = cb, .ctx = ctx, .kind = kind, .state = STATE_DONE};
	list_node_init(&request->node);
	buf_init(&request->body, wanted->body.len);
	buf_init(&request->answer, wanted->answer_max_bytes);
	request->timeout_ms = MIN(limit, HTTPS_TIMEOUT_MAX_MS);
	request->method = wanted->method ? xstrdup(wanted->method) : NULL;
	buf_append(&request->body, wanted->body);
	HASH_ADD(hh, https->requests, id, sizeof(request->id), request);
	if (!take_url(request, wanted->url)) {
		finish(request, HTTPS_BAD_REQUEST, "it is no URL of the form https://HOST/...");
	} else if (!take_headers(request, wanted)) {
		finish(request, HTTPS_BAD_REQUEST, "a header is not of the form \"Name: value\"");
	} else if (https->waiting_count[kind] == HTTPS_WAITING_MAX) {
		finish(request, HTTPS_BUSY, "too many requests wait");
	} else {
		request->state = STATE_WAITING;
		list_append(&https->waiting[kind], &request->node);
		https->waiting_count[kind]++;
		timers_set(loop_timers(https->loop), &request->timer, loop_now_ms(https->loop) + request->timeout_ms,
			   on_timeout, request);
		start_next(https, kind);
	}
	return https->last_id;
}

void https_cancel(struct https *https, uint64_t *id)
{
	struct request *request;

	HASH_FIND(hh, https->requests, id, sizeof(*id), request);
	*id = 0;
	if (!request)
		return;
	HASH_DEL(https->requests, request);
	free_request(request);
}

struct https *https_new(struct loop *loop, struct resolver *resolver)
{
	struct https *https = xcalloc(1, sizeof(*https));

	BUG_ON(curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK);
	https->loop = loop;
	https->resolver = resolver;
	for (int kind = 0; kind < KIND_COUNT; kind++)
		list_init(&https->waiting[kind]);
	https->multi = curl_multi_init();
	BUG_ON(!https->multi);
	curl_multi_setopt(https->multi, CURLMOPT_SOCKETFUNCTION, on_socket_wish);
	curl_multi_setopt(https->multi, CURLMOPT_SOCKETDATA, https);
	curl_multi_setopt(https->multi, CURLMOPT_TIMERFUNCTION, on_timer_wish);
	curl_multi_setopt(https->multi, CURLMOPT_TIMERDATA, https);
	curl_multi_setopt(https->multi, CURLMOPT_MAXCONNECTS, (long)IDLE_CONNECTIONS_MAX);
	return https;
}

void https_free(struct https **https)
{
	struct https *h = *https;
	struct request *request, *next;

	if (!h)
		return;
	for (int kind = 0; kind < KIND_COUNT; kind++)
		while (!list_is_empty(&h->waiting[kind]))
			leave(CONTAINER_OF(h->waiting[kind].next, struct request, node));
	HASH_ITER(hh, h->requests, request, next)
	{
		HASH_DEL(h->requests, request);
		free_request(request);
	}
	curl_multi_cleanup(h->multi);
	timers_cancel(loop_timers(h->loop), &h->timer);
	while (h->watched)
		forget(h, &h->watched);
	curl_global_cleanup();
	free(h->ca_file);
	free(h);
	*https = NULL;
}

void https_configure(struct https *https, const struct https_settings *settings)
{
	char *ca_file = settings->ca_file ? xstrdup(settings->ca_file) : NULL;

	free(https->ca_file);
	https->ca_file = ca_file;
	https->allow_loopback = settings->allow_loopback;
	https->ip = settings->ip;
}
