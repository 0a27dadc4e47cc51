/*
 * test/bench/bench.h - what the benchmark programs share: options, time, and a cheap non-blocking connection with or
 * without TLS
 *
 * These programs share the machine with what they measure, so they do as little as they can: one read and one write a
 * batch, no timers, TCP_NODELAY.
 */
#ifndef TEST_BENCH_BENCH_H
#define TEST_BENCH_BENCH_H

#include "base/base.h"
#include "base/buf.h"
#include "tls/session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The fields by which sink and load know each other: a number that counts up, and CLOCK_MONOTONIC in ns. */
#define BENCH_FIELD "X-Bench: "
#define BENCH_VALUE_CHARS 41 /* 20 digits, blank, 20 digits */
#define BENCH_NUMBERS_MAX (1u << 26)

static inline _Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline _Noreturn void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static inline int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* CPU of this process in microseconds. */
static inline int64_t cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec +
	       usage.ru_stime.tv_usec;
}

static inline uint64_t number_option(const char *name, const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (!*text || *end)
		die("%s wants a number, not '%s'", name, text);
	return value;
}

/* ADDRESS:PORT, IPv4. */
static inline struct sockaddr_in parse_address(const char *text)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	const char *colon = strrchr(text, ':');
	char host[64];

	if (!colon || !slice_to_cstr(slice_of(text, (size_t)(colon - text)), host, sizeof(host)) ||
	    inet_pton(AF_INET, host, &address.sin_addr) != 1)
		die("'%s' is not an IPv4 address with a port", text);
	address.sin_port = htons((uint16_t)number_option("port", colon + 1));
	return address;
}

/* ---- figures ---- */

struct samples {
	uint32_t *us;
	size_t count, cap;
};

static inline void samples_add(struct samples *samples, int64_t us)
{
	if (samples->count == samples->cap) {
		samples->cap = samples->cap ? 2 * samples->cap : 4096;
		samples->us = xreallocarray(samples->us, samples->cap, sizeof(*samples->us));
	}
	samples->us[samples->count++] = (uint32_t)MAX(us, 0);
}

static inline int compare_us(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* NAME_p50=…, p90, p99, max; nothing without samples. Sorts them. */
static inline void samples_print(struct samples *samples, const char *name)
{
	static const struct {
		const char *name;
		unsigned per_mille;
	} percentiles[] = {{"p50", 500}, {"p90", 900}, {"p99", 990}, {"max", 1000}};

	if (!samples->count)
		return;
	qsort(samples->us, samples->count, sizeof(*samples->us), compare_us);
	for (size_t i = 0; i < ARRAY_LEN(percentiles); i++) {
		size_t at = (samples->count - 1) * percentiles[i].per_mille / 1000;

		printf("%s_%s=%u\n", name, percentiles[i].name, samples->us[at]);
	}
}

/* A bit per number, for whoever compares what was accepted with what arrived. */
static inline void write_numbers(const char *path, const unsigned char *bits)
{
	FILE *file = fopen(path, "w");

	if (!file || fwrite(bits, 1, BENCH_NUMBERS_MAX / 8, file) != BENCH_NUMBERS_MAX / 8 || fclose(file) != 0)
		die("cannot write %s: %s", path, strerror(errno));
}

/* ---- a connection ---- */

struct conn {
	int fd;
	struct tls_session *tls; /* NULL: plain */
	struct buf rest;	 /* plain: what the socket did not take */
	bool wants_write;	 /* EPOLLOUT is on */
	bool broken;
};

static inline void conn_init(struct conn *conn, int fd)
{
	int one = 1;

	*conn = (struct conn){.fd = fd};
	buf_init(&conn->rest, 256 << 20);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static inline void conn_fini(struct conn *conn)
{
	close(conn->fd);
	tls_session_free(&conn->tls);
	buf_fini(&conn->rest);
	conn->fd = -1;
}

/* Bytes that wait for the socket. */
static inline bool conn_is_blocked(const struct conn *conn)
{
	return buf_len(&conn->rest) || (conn->tls && tls_session_output(conn->tls).len);
}

static inline void conn_flush_tls(struct conn *conn)
{
	struct slice out;

	while ((out = tls_session_output(conn->tls)).len) {
		ssize_t n = send(conn->fd, out.ptr, out.len, MSG_NOSIGNAL);

		if (n < 0) {
			conn->broken |= errno != EAGAIN;
			return;
		}
		tls_session_output_sent(conn->tls, (size_t)n);
	}
}

/* Sends what waits; to be called on EPOLLOUT. */
static inline void conn_flush(struct conn *conn)
{
	struct slice out = buf_slice(&conn->rest);
	size_t taken;
	struct err err;

	if (conn->tls) {
		conn_flush_tls(conn);
		while (buf_len(&conn->rest) && tls_session_is_established(conn->tls) && !conn->broken &&
		       tls_session_write(conn->tls, buf_slice(&conn->rest), &taken, &err) == TLS_OK) {
			buf_consume(&conn->rest, taken);
			conn_flush_tls(conn);
		}
		return;
	}
	while (out.len) {
		ssize_t n = send(conn->fd, out.ptr, out.len, MSG_NOSIGNAL);

		if (n < 0) {
			conn->broken |= errno != EAGAIN;
			return;
		}
		buf_consume(&conn->rest, (size_t)n);
		out = buf_slice(&conn->rest);
	}
}

/* Writes several pieces as one batch. */
static inline void conn_write(struct conn *conn, const struct slice *pieces, int count)
{
	struct iovec iov[4];
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
	ssize_t sent = 0;

	BUG_ON(count > 4);
	for (int i = 0; i < count; i++)
		iov[i] = (struct iovec){(void *)(uintptr_t)pieces[i].ptr, pieces[i].len};
	if (!conn->tls && !buf_len(&conn->rest)) {
		sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
		if (sent < 0 && errno != EAGAIN)
			conn->broken = true;
		if (sent < 0)
			sent = 0;
	}
	for (int i = 0; i < count; i++) {
		size_t skip = MIN((size_t)sent, pieces[i].len);

		sent -= (ssize_t)skip;
		buf_append(&conn->rest, slice_from(pieces[i], skip));
	}
	if (buf_len(&conn->rest))
		conn_flush(conn);
}

static inline void conn_write_str(struct conn *conn, const char *text)
{
	struct slice piece = slice_of_str(text);

	conn_write(conn, &piece, 1);
}

/* The handshake; true: complete. */
static inline bool conn_handshake(struct conn *conn)
{
	struct err err = {0};
	enum tls_status status = tls_session_handshake(conn->tls, &err);

	conn_flush_tls(conn);
	if (status == TLS_FAILED)
		fprintf(stderr, "tls: %s\n", err.text);
	conn->broken |= status == TLS_FAILED || status == TLS_CLOSED;
	return status == TLS_OK;
}

/* Plain text into `out`, one read of the socket at most: > 0 octets, 0 nothing now, -1 the end. */
static inline ssize_t conn_read(struct conn *conn, char *out, size_t size)
{
	char cipher[16384 + 512];
	struct err err;
	size_t len, total = 0;
	ssize_t n;
	enum tls_status status = TLS_AGAIN;

	if (!conn->tls) {
		n = recv(conn->fd, out, size, 0);
		return n > 0 ? n : n < 0 && errno == EAGAIN ? 0 : -1;
	}
	if (!tls_session_is_established(conn->tls) || !tls_session_may_read(conn->tls)) {
		n = recv(conn->fd, cipher, MIN(sizeof(cipher), tls_session_input_room(conn->tls)), 0);
		if (n <= 0)
			return n < 0 && errno == EAGAIN ? 0 : -1;
		tls_session_input(conn->tls, slice_of(cipher, (size_t)n));
	}
	if (!tls_session_is_established(conn->tls) && !conn_handshake(conn))
		return conn->broken ? -1 : 0;
	while (total < size && (status = tls_session_read(conn->tls, out + total, size - total, &len, &err)) == TLS_OK)
		total += len;
	conn_flush_tls(conn);
	return total ? (ssize_t)total : status == TLS_AGAIN ? 0 : -1;
}

/* True: call conn_read() again before waiting. */
static inline bool conn_has_more(const struct conn *conn)
{
	return conn->tls && tls_session_is_established(conn->tls) && tls_session_may_read(conn->tls);
}

/* Keeps the interest in EPOLLOUT in step with what waits. */
static inline void conn_update_epoll(struct conn *conn, int epoll, void *ptr)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = ptr};
	bool blocked = conn_is_blocked(conn);

	if (blocked == conn->wants_write)
		return;
	conn->wants_write = blocked;
	if (blocked)
		event.events |= EPOLLOUT;
	epoll_ctl(epoll, EPOLL_CTL_MOD, conn->fd, &event);
}

#endif
