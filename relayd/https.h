/*
 * relayd/https.h - requests to HTTPS servers: token endpoints, webhooks, MTA-STS policies
 *
 * By libcurl's multi interface, driven by our loop; names are resolved by dns/resolver.h, so no thread is ever started
 * and nothing blocks. TLS 1.2 or later with a verified certificate, HTTP/1.1; no redirects are followed, no proxy and
 * nothing else is taken from the environment. Connections are kept for a while and used again.
 *
 * LIMITS    HTTPS_RUNNING_MAX requests run at a time for names that an operator wrote, and as many for other names, so
 *           that hostile domains do not stand in the way of tokens and webhooks; HTTPS_WAITING_MAX more of each kind
 *           wait in order, what comes beyond is answered with HTTPS_BUSY. The time limit counts from https_send(). An
 *           answer's header is at most 64 KiB.
 * CALLBACKS come once, from the end of a turn or from a timer, never from inside https_send(); after https_cancel()
 *           never. A callback may send and cancel; it must not free the https.
 * SECRETS   What was sent and received is wiped from our memory when the request is over (libcurl's own copies are
 *           not), and nothing of it is logged.
 * COST      GnuTLS builds of libcurl read the trust store for each new connection: some 10 ms. Not for every message.
 */
#ifndef RELAYD_HTTPS_H
#define RELAYD_HTTPS_H

#include "base/slice.h"
#include "dns/resolver.h"
#include "relayd/loop.h"

enum {
	HTTPS_RUNNING_MAX = 16,
	HTTPS_WAITING_MAX = 1024,
	HTTPS_TIMEOUT_MAX_MS = 120 * 1000,
	HTTPS_REASON_MAX = 256,
};

struct https;

struct https_settings {
	const char *ca_file; /* PEM; NULL: the system's trust */
	bool allow_loopback; /* delivery.allow_loopback; otherwise loopback addresses are not connected to */
	enum dns_ip ip;
};

struct https_request {
	const char *method;	    /* NULL: GET, or POST with a body */
	const char *url;	    /* "https://HOST[:PORT]/..." */
	const char *const *headers; /* "Name: value" each, without line ends; User-Agent and Host are set */
	size_t header_count;
	struct slice body;
	size_t answer_max_bytes; /* of the body; a longer one is HTTPS_TOO_LARGE */
	int64_t timeout_ms;	 /* in all, at most HTTPS_TIMEOUT_MAX_MS; 0: that */
	/* The URL was written by an operator: /etc/hosts, plain addresses and the search list hold for its host. */
	bool is_configured_name;
};

enum https_result {
	HTTPS_ANSWERED = 0, /* whatever the status is */
	HTTPS_BAD_REQUEST,  /* not a URL of ours, or a header with a line end */
	HTTPS_BUSY,	    /* too many requests wait */
	HTTPS_NO_ADDRESS,   /* the name has none, or none that we may connect to */
	HTTPS_DNS_FAILED,   /* it could not be found out, for now */
	HTTPS_CONNECT,	    /* refused, unreachable, or cut before the answer was complete */
	HTTPS_TLS,	    /* the handshake failed, or the certificate is not the host's */
	HTTPS_TIMEOUT,
	HTTPS_TOO_LARGE,
	HTTPS_BAD_ANSWER, /* not HTTP */
};

/* "answered", "bad-request", "busy", "no-address", "dns-failed", "connect", "tls", "timeout", "too-large",
 * "bad-answer". */
const char *https_result_name(enum https_result result);

/* Borrowed: lives during the callback. */
struct https_answer {
	enum https_result result;
	const char *reason;	  /* words for people; "" when it was answered */
	int status;		  /* of HTTP, such as 200; 0 unless answered */
	const char *content_type; /* as the server wrote it; "" when it did not */
	struct slice body;
	int64_t retry_after_ms; /* what Retry-After asks for, as a number or a date; 0: nothing */
};

typedef void https_cb(void *ctx, const struct https_answer *answer);

/* Borrows loop and resolver, which must outlive it. */
struct https *https_new(struct loop *loop, struct resolver *resolver);
/* Cancels all requests. Sets NULL, accepts NULL. Not from a callback. */
void https_free(struct https **https);
/* Copied; for requests that begin from now on. */
void https_configure(struct https *https, const struct https_settings *settings);
/* The request is copied. The id is never 0. */
uint64_t https_send(struct https *https, const struct https_request *request, https_cb *cb, void *ctx);
/* Afterwards the callback never comes. Sets *id to 0; one that is 0 or answered is harmless. */
void https_cancel(struct https *https, uint64_t *id);

#endif
