#include "support_https.h"

#include "tls/selfsigned.h"

#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* GnuTLS by itself: relayd's own server sessions refuse whoever wants to speak HTTP. */
struct connection {
	struct list node;
	struct https_peer *peer;
	int fd;
	struct watch *watch;
	gnutls_session_t session;
	bool is_secure;
	struct buf input;
	bool waits; /* its request has not been answered */
};

static void free_connection(struct connection *c)
{
	list_remove(&c->node);
	loop_unwatch(c->peer->loop, &c->watch);
	gnutls_deinit(c->session);
	close(c->fd);
	buf_fini(&c->input);
	free(c);
}

/* What does not fit into the socket's buffer is lost. */
static void answer(struct connection *c, const char *text)
{
	struct slice left = slice_of_str(text);
	ssize_t n = 1;

	while (left.len > 0 && n > 0) {
		n = gnutls_record_send(c->session, left.ptr, left.len);
		left = slice_from(left, n > 0 ? (size_t)n : 0);
	}
	c->waits = false;
	if (!c->peer->close_after)
		return;
	gnutls_bye(c->session, GNUTLS_SHUT_WR);
	free_connection(c);
}

/* The length of a whole request at the front; 0: not yet. */
static size_t whole_request(struct slice input, size_t *header_len)
{
	const char *end = input.len ? memmem(input.ptr, input.len, "\r\n\r\n", 4) : NULL;
	const char *field = end ? strcasestr(input.ptr, "\r\nContent-Length:") : NULL;
	size_t body = field && field < end ? strtoul(field + 17, NULL, 10) : 0;

	*header_len = end ? (size_t)(end - input.ptr) + 4 : 0;
	return end && input.len >= *header_len + body ? *header_len + body : 0;
}

static void look_for_request(struct connection *c)
{
	struct https_peer *peer = c->peer;
	size_t header_len, len;

	assert_int_equal(buf_append_byte(&c->input, '\0'), 0); /* a string, for a moment */
	buf_truncate(&c->input, buf_len(&c->input) - 1);
	len = whole_request(buf_slice(&c->input), &header_len);
	if (len == 0)
		return;
	slice_to_cstr(slice_to(buf_slice(&c->input), header_len), peer->header, sizeof(peer->header));
	slice_to_cstr(slice_from(slice_to(buf_slice(&c->input), len), header_len), peer->body, sizeof(peer->body));
	buf_consume(&c->input, len);
	peer->requests++;
	c->waits = true;
	if (peer->reply)
		answer(c, peer->reply);
}

static void on_ready(void *ctx, uint32_t events)
{
	struct connection *c = ctx;
	char bytes[16 * 1024];
	ssize_t n;

	(void)events;
	n = c->is_secure ? gnutls_record_recv(c->session, bytes, sizeof(bytes)) : gnutls_handshake(c->session);
	if (n == 0 && !c->is_secure) {
		c->is_secure = true;
	} else if (n > 0) {
		assert_int_equal(buf_append(&c->input, slice_of(bytes, (size_t)n)), 0);
		look_for_request(c);
	} else if (n != GNUTLS_E_AGAIN && n != GNUTLS_E_INTERRUPTED) {
		free_connection(c);
	}
}

static void on_accept(void *ctx, int fd, const struct net_peer *who)
{
	struct https_peer *peer = ctx;
	struct connection *c = xcalloc(1, sizeof(*c));

	(void)who;
	c->peer = peer;
	c->fd = fd;
	buf_init(&c->input, 1 << 20);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){256 * 1024}, sizeof(int));
	gnutls_init(&c->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
	gnutls_set_default_priority(c->session);
	gnutls_credentials_set(c->session, GNUTLS_CRD_CERTIFICATE, peer->credentials);
	gnutls_transport_set_int(c->session, fd);
	list_append(&peer->connections, &c->node);
	c->watch = loop_watch(peer->loop, fd, EPOLLIN, on_ready, c);
	peer->accepted++;
}

void https_peer_say(struct https_peer *peer, const char *text)
{
	LIST_FOREACH (node, &peer->connections) {
		struct connection *c = CONTAINER_OF(node, struct connection, node);
		if (c->waits)
			answer(c, text);
	}
}

unsigned https_peer_waiting(const struct https_peer *peer)
{
	unsigned count = 0;

	LIST_FOREACH (node, &peer->connections)
		count += CONTAINER_OF(node, struct connection, node)->waits;
	return count;
}

void https_peer_stop_listening(struct https_peer *peer)
{
	net_acceptor_free(&peer->acceptor);
}

/* No name server: each question ends at once, unanswered. */
static void ask_nobody(void *ctx, struct dns *dns, uint64_t token, const char *name, uint16_t type)
{
	(void)ctx;
	(void)name;
	(void)type;
	dns_transport_answer(dns, token, (struct slice){0});
}

static void make_certificate(struct https_peer *peer)
{
	const struct tls_selfsigned_options options = {.hostname = "secure.test",
						       .now_wall_ms = (int64_t)time(NULL) * 1000};

	snprintf(peer->certificate, sizeof(peer->certificate), "%s/server.pem", peer->folder);
	assert_int_equal(tls_selfsigned_ensure(AT_FDCWD, peer->certificate, &options, NULL, NULL), 0);
	assert_int_equal(gnutls_certificate_allocate_credentials(&peer->credentials), 0);
	assert_true(gnutls_certificate_set_x509_key_file(peer->credentials, peer->certificate, peer->certificate,
							 GNUTLS_X509_FMT_PEM) >= 0);
}

static void make_resolver(struct https_peer *peer)
{
	static const struct dns_transport nobody = {ask_nobody, NULL};
	static const struct dns_host host = {NULL, NULL};
	const char *servers[] = {"127.0.0.1:53"};
	struct dns_options options = {.servers = servers, .server_count = 1, .transport = &nobody};
	FILE *file;

	snprintf(peer->hosts, sizeof(peer->hosts), "%s/hosts", peer->folder);
	file = fopen(peer->hosts, "w");
	assert_non_null(file);
	fprintf(file, "127.0.0.1 secure.test other.test\n169.254.1.1 link.test\n");
	fclose(file);
	peer->dns = dns_new(&options, &host, loop_timers(peer->loop), peer->clock, rng_system(), NULL);
	assert_non_null(peer->dns);
	peer->resolver = resolver_new(peer->dns, loop_timers(peer->loop), peer->clock, rng_system(), peer->hosts);
}

void https_peer_init(struct https_peer *peer, struct loop *loop, const struct clock *clock)
{
	const struct net_acceptor_events events = {.ctx = peer, .on_accept = on_accept};
	struct dns_address address;
	int fd;

	*peer = (struct https_peer){.loop = loop, .clock = clock};
	list_init(&peer->connections);
	snprintf(peer->folder, sizeof(peer->folder), "/tmp/relayd-https-XXXXXX");
	assert_non_null(mkdtemp(peer->folder));
	peer->net = net_new(loop);
	make_certificate(peer);
	make_resolver(peer);
	assert_true(dns_address_parse(SLICE("127.0.0.1"), &address));
	fd = net_listen(&address, 0, NULL);
	assert_true(fd >= 0);
	peer->port = net_local_port(fd);
	peer->acceptor = net_acceptor_new(peer->net, fd, &events);
}

void https_peer_fini(struct https_peer *peer)
{
	while (!list_is_empty(&peer->connections))
		free_connection(CONTAINER_OF(peer->connections.next, struct connection, node));
	net_acceptor_free(&peer->acceptor);
	resolver_free(&peer->resolver);
	dns_free(&peer->dns);
	gnutls_certificate_free_credentials(peer->credentials);
	net_free(&peer->net);
	unlink(peer->certificate);
	unlink(peer->hosts);
	rmdir(peer->folder);
}
