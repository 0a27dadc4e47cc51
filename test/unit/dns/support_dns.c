#include "support_dns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void put16(struct packet *p, size_t at, unsigned value)
{
	p->bytes[at] = (uint8_t)(value >> 8);
	p->bytes[at + 1] = (uint8_t)value;
}

static unsigned get16(const void *bytes)
{
	const uint8_t *b = bytes;
	return (unsigned)b[0] << 8 | b[1];
}

static size_t write_name(const char *name, uint8_t *out)
{
	char normalized[DNS_NAME_MAX + 1];

	assert_true(dns_name_normalize(slice_of_str(name), normalized));
	return dns_name_write(normalized, out);
}

void packet_add_raw(struct packet *p, const void *bytes, size_t len)
{
	assert_true(p->len + len <= sizeof(p->bytes));
	if (len)
		memcpy(p->bytes + p->len, bytes, len);
	p->len += len;
}

static void add16(struct packet *p, unsigned value)
{
	put16(p, p->len, value);
	p->len += 2;
}

void packet_begin(struct packet *p, uint16_t id, unsigned flags, const char *name, uint16_t type)
{
	memset(p->bytes, 0, 12);
	put16(p, 0, id);
	put16(p, 2, flags);
	put16(p, 4, 1);
	p->len = 12;
	p->len += write_name(name, p->bytes + p->len);
	add16(p, type);
	add16(p, 1);
}

void packet_count(struct packet *p, enum section section)
{
	put16(p, 4 + 2 * section, get16(p->bytes + 4 + 2 * section) + 1);
}

void packet_add(struct packet *p, enum section section, const char *owner, uint16_t type, uint32_t ttl,
		struct rdata rdata)
{
	packet_count(p, section);
	p->len += write_name(owner, p->bytes + p->len);
	add16(p, type);
	add16(p, 1);
	add16(p, ttl >> 16);
	add16(p, ttl & 0xffff);
	add16(p, (unsigned)rdata.len);
	packet_add_raw(p, rdata.bytes, rdata.len);
}

struct slice packet_slice(const struct packet *p)
{
	return slice_of(p->bytes, p->len);
}

struct rdata rdata_raw(const void *bytes, size_t len)
{
	struct rdata r = {.len = len};

	assert_true(len <= sizeof(r.bytes));
	memcpy(r.bytes, bytes, len);
	return r;
}

struct rdata rdata_address(const char *text)
{
	struct dns_address address;

	assert_true(dns_address_parse(slice_of_str(text), &address));
	return rdata_raw(address.bytes, address.family == DNS_IPV4 ? 4 : 16);
}

struct rdata rdata_name(const char *name)
{
	struct rdata r = {0};

	r.len = write_name(name, r.bytes);
	return r;
}

struct rdata rdata_mx(unsigned preference, const char *host)
{
	struct rdata r = {{(uint8_t)(preference >> 8), (uint8_t)preference}, 2};

	r.len += write_name(host, r.bytes + 2);
	return r;
}

struct rdata rdata_soa(uint32_t minimum)
{
	struct rdata r = rdata_name("ns.test");

	r.len += write_name("postmaster.test", r.bytes + r.len);
	memset(r.bytes + r.len, 1, 16);
	r.len += 16;
	for (int i = 3; i >= 0; i--)
		r.bytes[r.len++] = (uint8_t)(minimum >> (8 * i));
	return r;
}

uint16_t query_id(struct slice query)
{
	return (uint16_t)get16(query.ptr);
}

const char *query_name(struct slice query, char *out)
{
	size_t at = 12;

	assert_int_equal(dns_name_read(query, &at, out), 0);
	return out;
}

uint16_t query_type(struct slice query)
{
	char name[DNS_NAME_MAX + 1];
	size_t at = 12;

	assert_int_equal(dns_name_read(query, &at, name), 0);
	return (uint16_t)get16(query.ptr + at);
}

bool query_has_edns(struct slice query)
{
	return get16(query.ptr + 10) == 1;
}

/* ---- the zone ---- */

struct line {
	char name[300], type[16], data[300];
};

static bool next_line(const char **zone, struct line *line)
{
	while (**zone) {
		int used = 0, got;

		*line = (struct line){0};
		got = sscanf(*zone, " %299s %15s%n", line->name, line->type, &used);
		*zone += used;
		*zone += strspn(*zone, " ");
		size_t len = strcspn(*zone, "\n");
		assert_true(slice_to_cstr(slice_of(*zone, len), line->data, sizeof(line->data)));
		*zone += len;
		if (**zone)
			++*zone;
		if (got == 2)
			return true;
	}
	return false;
}

static bool zone_has(const char *zone, const char *name, const char *type, struct line *line)
{
	while (next_line(&zone, line))
		if (strcmp(line->name, name) == 0 && (!type || strcmp(line->type, type) == 0))
			return true;
	return false;
}

static struct rdata parse_data(const struct line *line, uint16_t type)
{
	char host[300];
	unsigned preference;

	if (type == DNS_A || type == DNS_AAAA)
		return rdata_address(line->data);
	if (type == DNS_CNAME)
		return rdata_name(line->data);
	assert_int_equal(sscanf(line->data, "%u %299s", &preference, host), 2);
	return rdata_mx(preference, host);
}

/* The records of the name, aliases included; the number of those of the wanted type. */
static size_t add_records(const char *zone, const char *name, uint16_t type, uint32_t ttl, struct packet *p)
{
	char type_text[16], current[300];
	struct line line;
	size_t count = 0;
	int hops = 0;

	snprintf(current, sizeof(current), "%s", name);
	while (hops++ < 12 && type != DNS_CNAME && zone_has(zone, current, "CNAME", &line)) {
		packet_add(p, ANSWER, current, DNS_CNAME, ttl, rdata_name(line.data));
		snprintf(current, sizeof(current), "%s", line.data);
	}
	for (const char *at = zone; next_line(&at, &line);) {
		if (strcmp(line.name, current) == 0 && strcmp(line.type, dns_type_name(type, type_text)) == 0) {
			packet_add(p, ANSWER, current, type, ttl, parse_data(&line, type));
			count++;
		}
	}
	if (count == 0) {
		packet_add(p, AUTHORITY, "test", DNS_SOA, 600, rdata_soa(120));
		if (!zone_has(zone, current, NULL, &line))
			put16(p, 2, get16(p->bytes + 2) | NXDOMAIN);
	}
	return count;
}

static void answer(struct env *env, struct asked *asked)
{
	struct packet *p = calloc(1, sizeof(*p));
	struct line line;
	uint32_t ttl = 300;
	unsigned flags = QR | RD | RA;

	asked->is_answered = true;
	if (zone_has(env->zone, asked->name, "SILENT", &line)) {
		dns_transport_answer(env->dns, asked->token, (struct slice){0});
	} else {
		if (env->is_secure && !zone_has(env->zone, asked->name, "INSECURE", &line))
			flags |= AD;
		if (zone_has(env->zone, asked->name, "TTL", &line))
			ttl = (uint32_t)strtoul(line.data, NULL, 10);
		if (zone_has(env->zone, asked->name, "SERVFAIL", &line))
			packet_begin(p, 0, flags | SERVFAIL, asked->name, asked->type);
		else {
			packet_begin(p, 0, flags, asked->name, asked->type);
			add_records(env->zone, asked->name, asked->type, ttl, p);
		}
		dns_transport_answer(env->dns, asked->token, packet_slice(p));
	}
	free(p);
}

static void on_ask(void *ctx, struct dns *dns, uint64_t token, const char *name, uint16_t type)
{
	struct env *env = ctx;
	struct asked *asked;

	assert_true(env->asked_count < ARRAY_LEN(env->asked));
	assert_ptr_equal(dns, env->dns);
	asked = &env->asked[env->asked_count++];
	asked->token = token;
	asked->type = type;
	assert_true(slice_to_cstr(slice_of_str(name), asked->name, sizeof(asked->name)));
	if (!env->is_held)
		answer(env, asked);
}

void env_answer_held(struct env *env)
{
	for (size_t i = 0; i < env->asked_count; i++)
		if (!env->asked[i].is_answered)
			answer(env, &env->asked[i]);
}

struct env *env_new(const char *zone)
{
	struct env *env = calloc(1, sizeof(*env));
	struct dns_options options = {.transport = &env->transport};
	struct err err = {0};

	env->zone = zone;
	env->transport = (struct dns_transport){on_ask, env};
	clock_virtual_init(&env->clock, 1700000000000);
	rng_seeded_init(&env->rng, 1);
	env->timers = timers_new();
	env->dns = dns_new(&options, NULL, env->timers, &env->clock.clock, &env->rng.rng, &err);
	assert_non_null(env->dns);
	env->resolver = resolver_new(env->dns, env->timers, &env->clock.clock, &env->rng.rng, "/dev/null");
	return env;
}

void env_write_hosts(struct env *env, const char *text)
{
	int fd;

	snprintf(env->hosts_path, sizeof(env->hosts_path), "/tmp/relayd-test-hosts-XXXXXX");
	fd = mkstemp(env->hosts_path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	resolver_free(&env->resolver);
	env->resolver = resolver_new(env->dns, env->timers, &env->clock.clock, &env->rng.rng, env->hosts_path);
}

void env_free(struct env **env)
{
	resolver_free(&(*env)->resolver);
	dns_free(&(*env)->dns);
	assert_true(timers_next_at_ms((*env)->timers) == INT64_MAX);
	timers_free(&(*env)->timers);
	if ((*env)->hosts_path[0])
		unlink((*env)->hosts_path);
	free(*env);
	*env = NULL;
}

void env_run(struct env *env)
{
	int turns = 0;

	while (timers_next_at_ms(env->timers) <= env->clock.mono) {
		assert_true(turns++ < 10000);
		timers_run(env->timers, env->clock.mono);
	}
}

void env_advance(struct env *env, int64_t ms)
{
	env_run(env);
	clock_virtual_advance(&env->clock, ms);
	env_run(env);
}

size_t env_count_asked(const struct env *env, const char *name, uint16_t type)
{
	size_t count = 0;

	for (size_t i = 0; i < env->asked_count; i++)
		count += strcmp(env->asked[i].name, name) == 0 && env->asked[i].type == type;
	return count;
}

/* ---- the server ---- */

enum { CONNECTIONS_MAX = 16 };

struct connection {
	int fd; /* -1: none */
	uint8_t in[1024];
	size_t len;
};

struct server {
	server_handler *handler;
	void *ctx;
	int udp, tcp;
	char address[32];
	struct connection connections[CONNECTIONS_MAX];
	unsigned udp_count, tcp_count;
	struct sockaddr_in last, remembered;
};

static int bound_socket(int type, uint16_t port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* The same free port for both. */
struct server *server_new(server_handler *handler, void *ctx)
{
	struct server *server = calloc(1, sizeof(*server));
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);

	server->handler = handler;
	server->ctx = ctx;
	for (int i = 0; i < CONNECTIONS_MAX; i++)
		server->connections[i].fd = -1;
	do {
		server->udp = bound_socket(SOCK_DGRAM, 0);
		assert_int_equal(getsockname(server->udp, (struct sockaddr *)&sa, &len), 0);
		server->tcp = bound_socket(SOCK_STREAM, ntohs(sa.sin_port));
		if (server->tcp < 0)
			close(server->udp);
	} while (server->tcp < 0);
	assert_int_equal(listen(server->tcp, 16), 0);
	snprintf(server->address, sizeof(server->address), "127.0.0.1:%u", ntohs(sa.sin_port));
	return server;
}

static void close_connection(struct connection *connection)
{
	close(connection->fd);
	*connection = (struct connection){.fd = -1};
}

void server_stop_tcp(struct server *server)
{
	if (server->tcp >= 0)
		close(server->tcp);
	server->tcp = -1;
}

void server_free(struct server **server)
{
	if (!*server)
		return;
	server_stop_tcp(*server);
	close((*server)->udp);
	for (int i = 0; i < CONNECTIONS_MAX; i++)
		if ((*server)->connections[i].fd >= 0)
			close_connection(&(*server)->connections[i]);
	free(*server);
	*server = NULL;
}

const char *server_address(const struct server *server)
{
	return server->address;
}

unsigned server_udp_count(const struct server *server)
{
	return server->udp_count;
}

unsigned server_tcp_count(const struct server *server)
{
	return server->tcp_count;
}

unsigned server_last_port(const struct server *server)
{
	return ntohs(server->last.sin_port);
}

void server_send(struct server *server, const struct packet *p)
{
	sendto(server->udp, p->bytes, p->len, 0, (struct sockaddr *)&server->last, sizeof(server->last));
}

void server_remember(struct server *server)
{
	server->remembered = server->last;
}

void server_send_remembered(struct server *server, const struct packet *p)
{
	sendto(server->udp, p->bytes, p->len, 0, (struct sockaddr *)&server->remembered, sizeof(server->remembered));
}

void server_spoof(struct server *server, const struct packet *p)
{
	int fd = bound_socket(SOCK_DGRAM, 0);

	sendto(fd, p->bytes, p->len, 0, (struct sockaddr *)&server->last, sizeof(server->last));
	close(fd);
}

static void read_udp(struct server *server)
{
	struct packet *reply = calloc(1, sizeof(*reply));
	uint8_t in[1024];
	socklen_t len = sizeof(server->last);
	ssize_t n;

	while ((n = recvfrom(server->udp, in, sizeof(in), 0, (struct sockaddr *)&server->last, &len)) > 0) {
		size_t close_after = SIZE_MAX;

		server->udp_count++;
		reply->len = 0;
		if (server->handler(server->ctx, slice_of(in, (size_t)n), false, reply, &close_after))
			server_send(server, reply);
	}
	free(reply);
}

static void answer_tcp(struct server *server, struct connection *connection)
{
	struct packet *reply = calloc(1, sizeof(*reply));
	size_t close_after = SIZE_MAX;

	server->tcp_count++;
	if (server->handler(server->ctx, slice_of(connection->in + 2, connection->len - 2), true, reply,
			    &close_after)) {
		uint8_t length[2] = {(uint8_t)(reply->len >> 8), (uint8_t)reply->len};
		size_t len = MIN(reply->len, close_after), sent = 0;

		assert_int_equal(send(connection->fd, length, 2, MSG_NOSIGNAL), 2);
		/* At most 64 KiB on loopback: the kernel takes it, at the latest when the other side has read. */
		while (sent < len) {
			struct pollfd pollfd = {connection->fd, POLLOUT, 0};
			ssize_t n = send(connection->fd, reply->bytes + sent, len - sent, MSG_NOSIGNAL);
			if (n < 0)
				assert_int_equal(poll(&pollfd, 1, 5000), 1);
			else
				sent += (size_t)n;
		}
	}
	connection->len = 0;
	if (close_after != SIZE_MAX)
		close_connection(connection);
	free(reply);
}

static void read_tcp(struct server *server, struct connection *connection)
{
	ssize_t n = recv(connection->fd, connection->in + connection->len, sizeof(connection->in) - connection->len, 0);

	if (n <= 0) {
		close_connection(connection);
		return;
	}
	connection->len += (size_t)n;
	if (connection->len > 2 && connection->len == 2 + get16(connection->in))
		answer_tcp(server, connection);
}

static void accept_tcp(struct server *server)
{
	int fd = accept4(server->tcp, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	for (int i = 0; fd >= 0 && i < CONNECTIONS_MAX; i++) {
		if (server->connections[i].fd < 0) {
			server->connections[i].fd = fd;
			return;
		}
	}
	if (fd >= 0)
		close(fd);
}

/* ---- the loop ---- */

static void on_watch(void *ctx, int fd, bool want_read, bool want_write)
{
	struct loop *loop = ctx;
	short events = (short)((want_read ? POLLIN : 0) | (want_write ? POLLOUT : 0));
	size_t i = 0;

	/* Called before the close: the descriptor is still open, also when it is given up. */
	assert_true(fcntl(fd, F_GETFD) >= 0);
	while (i < loop->watched_count && loop->watched[i].fd != fd)
		i++;
	if (!events) {
		assert_true(i < loop->watched_count);
		loop->watched[i] = loop->watched[--loop->watched_count];
		return;
	}
	assert_true(i < LOOP_FDS_MAX);
	loop->watched[i].fd = fd;
	loop->watched[i].events = events;
	if (i == loop->watched_count)
		loop->watched_count++;
}

void loop_init(struct loop *loop)
{
	*loop = (struct loop){.timers = timers_new()};
	loop->host = (struct dns_host){on_watch, loop};
}

void loop_fini(struct loop *loop)
{
	dns_free(&loop->dns);
	/* All sockets were given up, all timers cancelled. */
	assert_int_equal(loop->watched_count, 0);
	assert_true(timers_next_at_ms(loop->timers) == INT64_MAX);
	timers_free(&loop->timers);
	for (size_t i = 0; i < loop->server_count; i++)
		server_free(&loop->servers[i]);
}

static size_t collect(const struct loop *loop, struct pollfd *fds)
{
	size_t n = 0;

	for (size_t i = 0; i < loop->watched_count; i++)
		fds[n++] = (struct pollfd){loop->watched[i].fd, loop->watched[i].events, 0};
	for (size_t i = 0; i < loop->server_count; i++) {
		struct server *server = loop->servers[i];

		fds[n++] = (struct pollfd){server->udp, POLLIN, 0};
		fds[n++] = (struct pollfd){server->tcp, POLLIN, 0};
		for (int c = 0; c < CONNECTIONS_MAX; c++)
			fds[n++] = (struct pollfd){server->connections[c].fd, POLLIN, 0};
	}
	return n;
}

static void serve(struct server *server, const struct pollfd *fds)
{
	if (fds[0].revents)
		read_udp(server);
	if (fds[1].revents)
		accept_tcp(server);
	for (int c = 0; c < CONNECTIONS_MAX; c++)
		if (fds[2 + c].revents && server->connections[c].fd == fds[2 + c].fd)
			read_tcp(server, &server->connections[c]);
}

void loop_run_until(struct loop *loop, const int *flag)
{
	const struct clock *clock = clock_system();
	int64_t give_up_at_ms = clock_mono_ms(clock) + 20000;

	while (!*flag) {
		struct pollfd fds[LOOP_FDS_MAX + 2 * (CONNECTIONS_MAX + 2)];
		size_t watched = loop->watched_count, n = collect(loop, fds);
		int64_t now = clock_mono_ms(clock), next = timers_next_at_ms(loop->timers);

		assert_true(now < give_up_at_ms);
		next = next - now > 1000 ? 1000 : next - now;
		poll(fds, n, next < 0 ? 0 : (int)next);
		for (size_t i = 0; i < watched; i++) {
			bool is_broken = fds[i].revents & (POLLERR | POLLHUP);

			if (fds[i].revents)
				dns_on_fd(loop->dns, fds[i].fd, is_broken || (fds[i].revents & POLLIN),
					  is_broken || (fds[i].revents & POLLOUT));
		}
		for (size_t i = 0; i < loop->server_count; i++)
			serve(loop->servers[i], fds + watched + i * (CONNECTIONS_MAX + 2));
		timers_run(loop->timers, clock_mono_ms(clock));
	}
}
