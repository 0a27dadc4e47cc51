#include "relayd/listener.h"

#include "base/base.h"
#include "relayd/proxy_gate.h"
#include "tls/selfsigned.h"

#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

enum { SOCKETS_MAX = 64 + 3 }; /* and control.sock, submit.sock, drop/ */
#define SELFSIGNED_NAME "selfsigned.pem"
#define CONTROL_REFUSAL "{\"error\":\"control.sock is for root, relayd's user and the members of control_group\"}\n"

enum kind { KIND_SMTP, KIND_SUBMIT, KIND_DROP, KIND_HTTP, KIND_CONTROL }; /* DROP: no socket, the folder's way in */

struct socket {
	enum kind kind;
	int fd;
	char address[128];
	size_t index; /* of started->listeners; KIND_SMTP */
	struct listeners *owner;
	struct net_acceptor *acceptor; /* SMTP; takes the descriptor over */
	struct http_server *http;      /* HTTP and control; likewise */
	struct submission_service *service;
};

struct listeners {
	struct listeners_options options;
	struct config *started; /* what the sockets were opened for */
	struct submissions *submissions;
	struct socket sockets[SOCKETS_MAX];
	size_t count;
	struct proxy_gates *gates; /* connections of balancers whose header has not come yet */
	unsigned gates_max;
	gid_t control_group;
};

/* ---- opening ---- */

static struct socket *add_socket(struct listeners *l, enum kind kind, int fd, const char *address)
{
	struct socket *s = &l->sockets[l->count++];

	*s = (struct socket){.kind = kind, .fd = fd, .owner = l};
	slice_to_cstr(slice_of_str(address), s->address, sizeof(s->address));
	return s;
}

/* The address as bound: port 0 has become a real one. */
static void format_bound(int fd, char *out, size_t size)
{
	char text[DNS_ADDRESS_TEXT];
	uint16_t port;
	struct dns_address address = net_local_address(fd, &port);

	dns_address_format(&address, text);
	snprintf(out, size, address.family == DNS_IPV6 ? "[%s]:%u" : "%s:%u", text, port);
}

static int open_one(struct listeners *l, enum kind kind, size_t index, const struct dns_address *at, uint16_t port,
		    struct err *err)
{
	char address[128];
	int fd;

	if (l->count == SOCKETS_MAX - 3)
		return err_set(err, ERR_LIMIT, "more than %d addresses to listen on", SOCKETS_MAX - 3);
	fd = net_listen(at, port, err);
	if (fd < 0)
		return err ? (int)err->code : ERR_SYSTEM;
	format_bound(fd, address, sizeof(address));
	add_socket(l, kind, fd, address)->index = index;
	return 0;
}

static const char *hint_of(enum err_code code)
{
	if (code == ERR_EXISTS)
		return "; `ss -ltnp` shows which program has it";
	if (code == ERR_PERMISSION)
		return "; ports below 1024 want root, CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start=0";
	return "";
}

static int open_endpoint(struct listeners *l, enum kind kind, size_t index, const struct config_endpoint *endpoint,
			 bool may_fail, int *exit_code, struct err *err)
{
	struct dns_address at = {.family = endpoint->family == AF_INET6 ? DNS_IPV6 : DNS_IPV4};
	struct dns_address any6 = {.family = DNS_IPV6};
	struct err why;
	int rc;

	if (endpoint->family != AF_UNSPEC)
		memcpy(at.bytes, endpoint->bytes, endpoint->family == AF_INET6 ? 16 : 4);
	rc = open_one(l, kind, index, &at, endpoint->port, &why);
	if (rc == 0 && endpoint->family == AF_UNSPEC) {
		rc = open_one(l, kind, index, &any6, endpoint->port, &why);
		may_fail = true; /* a machine without IPv6 is fine */
	}
	if (rc == 0 || (may_fail && rc != ERR_EXISTS))
		return 0;
	*exit_code = rc == ERR_PERMISSION ? EX_NOPERM : EX_OSERR;
	return err_set(err, (enum err_code)rc, "cannot listen on %s:%u: %.300s%s", endpoint->host, endpoint->port,
		       why.text, hint_of((enum err_code)rc));
}

static int open_unix(struct listeners *l, enum kind kind, const char *name, mode_t mode, gid_t group, struct err *err)
{
	const struct net_unix_options options = {mode, l->options.user->uid, group};
	int fd = net_listen_unix(l->options.spool_fd, name, &options, err);

	if (fd < 0)
		return ERR_SYSTEM;
	add_socket(l, kind, fd, name);
	return 0;
}

static int find_control_group(struct listeners *l, const struct config *config, struct err *err)
{
	struct group *entry;

	l->control_group = l->options.user->gid;
	if (!config->control_group)
		return 0;
	entry = getgrnam(config->control_group);
	if (!entry)
		return err_set(err, ERR_CONFIG, "control_group: there is no group '%s' on this machine",
			       config->control_group);
	l->control_group = entry->gr_gid;
	return 0;
}

static int open_all(struct listeners *l, const struct config *config, int *exit_code, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < config->listener_count; i++)
		rc = open_endpoint(l, KIND_SMTP, i, &config->listeners[i].address, config->listeners[i].may_fail,
				   exit_code, err);
	for (size_t i = 0; rc == 0 && i < config->http.count; i++)
		rc = open_endpoint(l, KIND_HTTP, i, &config->http.items[i], false, exit_code, err);
	if (rc != 0)
		return rc;
	*exit_code = EX_CONFIG;
	rc = find_control_group(l, config, err);
	if (rc != 0)
		return rc;
	*exit_code = EX_OSERR;
	rc = open_unix(l, KIND_CONTROL, "control.sock", 0660, l->control_group, err);
	rc = rc ? rc : open_unix(l, KIND_SUBMIT, "submit.sock", 0666, l->options.user->gid, err);
	if (rc == 0)
		add_socket(l, KIND_DROP, -1, "drop");
	return rc;
}

struct listeners *listeners_open(const struct listeners_options *options, struct config *config, int *exit_code,
				 struct err *err)
{
	struct listeners *l = xcalloc(1, sizeof(*l));

	l->options = *options;
	l->started = config_ref(config);
	if (open_all(l, config, exit_code, err) != 0)
		listeners_free(&l);
	return l;
}

void listeners_free(struct listeners **listeners)
{
	struct listeners *l = *listeners;

	if (!l)
		return;
	proxy_gates_free(&l->gates);
	for (size_t i = 0; i < l->count; i++) {
		struct socket *s = &l->sockets[i];
		net_acceptor_free(&s->acceptor);
		submission_service_unref(&s->service);
		http_server_free(&s->http);
		if (s->fd >= 0)
			close(s->fd);
		if (s->kind == KIND_CONTROL || s->kind == KIND_SUBMIT)
			unlinkat(l->options.spool_fd, s->address, 0);
	}
	config_free(&l->started);
	free(l);
	*listeners = NULL;
}

/* ---- services ---- */

static enum tls_version least_version(const struct config *config)
{
	return config->tls.min_version == CONFIG_TLS_1_3 ? TLS_VERSION_1_3 : TLS_VERSION_1_2;
}

struct tls_credentials *listeners_load_credentials(const struct config *config, struct err *err)
{
	const struct tls_server_credentials_options options = {config->tls.certificate, config->tls.key,
							       config->tls.client_ca_file, least_version(config)};
	struct tls_credentials *credentials = tls_credentials_new_server(&options, err);
	struct err why;

	if (credentials)
		return credentials;
	why = *err;
	err_set(err, why.code, "tls: %.400s%s", why.text,
		config->tls.key ? "" : " (the key is looked for there too, unless tls.key names its file)");
	return NULL;
}

static struct tls_credentials *make_credentials(struct listeners *l, const struct config *config, struct err *err)
{
	static const char *const names[] = {"localhost", "127.0.0.1", "::1"};
	struct tls_selfsigned_options selfsigned = {config->hostname, names, ARRAY_LEN(names),
						    clock_wall_ms(clock_system())};
	char path[64];
	const struct tls_server_credentials_options options = {path, NULL, config->tls.client_ca_file,
							       least_version(config)};

	if (config->tls.certificate)
		return listeners_load_credentials(config, err);
	if (tls_selfsigned_ensure(l->options.spool_fd, SELFSIGNED_NAME, &selfsigned, NULL, err) != 0)
		return NULL;
	snprintf(path, sizeof(path), "/proc/self/fd/%d/" SELFSIGNED_NAME, l->options.spool_fd);
	return tls_credentials_new_server(&options, err);
}

static void fill_smtp_options(struct submission_service *service, const struct config *config, bool has_users)
{
	const struct config_listener *listener = &service->listener;
	bool implicit = service->tls == CONFIG_LISTEN_IMPLICIT;
	struct smtp_server_options *smtp = &service->smtp;

	*smtp = (struct smtp_server_options){
	    .hostname = config->hostname,
	    .starttls = service->tls == CONFIG_LISTEN_STARTTLS || service->tls == CONFIG_LISTEN_OPTIONAL,
	    .tls_required = service->tls == CONFIG_LISTEN_STARTTLS,
	    .tls_active = implicit,
	    .auth = has_users && !service->is_local,
	    .allow_plaintext_auth = listener->allow_plaintext_auth,
	    .bare_names = true, /* relayd/policy.h completes them */
	    .bare_newlines =
		listener->bare_newlines == CONFIG_BARE_NORMALIZE ? CONTENT_BARE_NORMALIZE : CONTENT_BARE_REJECT,
	    .reject_long_lines = config->long_lines == CONFIG_LONG_LINES_REJECT,
	    .limits = {.message_bytes = (uint64_t)config->limits.message_size_bytes,
		       .recipients = (uint32_t)config->limits.recipients,
		       .messages = (uint32_t)config->limits.messages_per_connection,
		       .idle_ms = config->limits.idle_timeout_ms,
		       .session_ms = config->limits.session_timeout_ms},
	};
	if (listener->auth == CONFIG_AUTH_OPTIONAL)
		smtp->untrusted_text =
		    has_users && service->tls != CONFIG_LISTEN_OFF
			? "Authentication required: set user name and password, or add this client's address "
			  "to 'trusted' of the listener"
			: "This client may not send: add its address to 'trusted' of the listener";
	service->smtp_trusted = *smtp;
	service->smtp_trusted.trusted = true;
}

static bool same_endpoint(const struct config_endpoint *a, const struct config_endpoint *b)
{
	return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* What a configuration says of a socket: the listener with its address, and of several (port 0) the one in the same
 * place among them. NULL: nothing any more; it goes on as it was until a restart. */
static const struct config_listener *find_listener(const struct socket *s, const struct config *config)
{
	const struct config *started = s->owner->started;
	const struct config_endpoint *address = &started->listeners[s->index].address;
	size_t before = 0;

	for (size_t i = 0; i < s->index; i++)
		before += same_endpoint(&started->listeners[i].address, address);
	for (size_t i = 0; i < config->listener_count; i++)
		if (same_endpoint(&config->listeners[i].address, address) && before-- == 0)
			return &config->listeners[i];
	return NULL;
}

static struct submission_service *make_service(const struct socket *s, struct config *config, bool has_users,
					       struct tls_credentials *credentials)
{
	struct submission_service *service = xcalloc(1, sizeof(*service));

	service->refs = 1;
	service->config = config_ref(config);
	slice_to_cstr(slice_of_str(s->address), service->name, sizeof(service->name));
	service->is_local = s->kind == KIND_SUBMIT || s->kind == KIND_DROP;
	service->tls = CONFIG_LISTEN_OFF;
	if (!service->is_local) {
		service->listener = *find_listener(s, config);
		service->tls = service->listener.tls;
		config_gateways_load(&service->gateways);
	}
	if (service->tls != CONFIG_LISTEN_OFF)
		service->credentials = tls_credentials_ref(credentials);
	fill_smtp_options(service, config, has_users);
	/* Its client is the daemon itself: a file whose recipients are refused must not end the session, and come again. */
	if (s->kind == KIND_DROP)
		service->smtp_trusted.limits.errors = service->smtp_trusted.limits.commands = UINT32_MAX;
	return service;
}

static bool needs_tls(const struct config *config)
{
	for (size_t i = 0; i < config->listener_count; i++)
		if (config->listeners[i].tls != CONFIG_LISTEN_OFF)
			return true;
	return false;
}

int listeners_configure(struct listeners *l, struct config *config, bool has_users, struct err *err)
{
	struct tls_credentials *credentials = NULL;

	if (needs_tls(config)) {
		credentials = make_credentials(l, config, err);
		if (!credentials)
			return ERR_CONFIG;
	}
	l->gates_max = (unsigned)config->limits.connections;
	for (size_t i = 0; i < l->count; i++) {
		struct socket *s = &l->sockets[i];
		if (s->kind == KIND_HTTP || s->kind == KIND_CONTROL ||
		    (s->kind == KIND_SMTP && !find_listener(s, config)))
			continue;
		submission_service_unref(&s->service);
		s->service = make_service(s, config, has_users, credentials);
		if (s->service->credentials)
			series_set(
			    metrics_series(l->options.metrics, METRIC_CERTIFICATE_EXPIRY, s->address, NULL, NULL),
			    (double)tls_credentials_expires_at_wall(credentials) / 1000);
		submission_series(l->options.metrics, s->address, "");
	}
	tls_credentials_unref(&credentials);
	return 0;
}

/* ---- accepting ---- */

/* The mode of control.sock says the same; but a mode is soon changed (chmod, an ACL, a volume that keeps none), and
 * CAP_DAC_OVERRIDE passes it. What counts is who called connect(): to hand the connection on helps nobody more than to
 * pass on the bytes would. */
static bool may_control(void *ctx, int fd)
{
	struct listeners *l = ctx;
	struct net_peer peer;
	char client[128] = "";

	if (net_peer_of(fd, &peer)) {
		if (peer.is_unix &&
		    (peer.uid == 0 || peer.uid == l->options.user->uid || net_peer_is_in_group(fd, l->control_group)))
			return true;
		net_peer_format(&peer, client, sizeof(client));
	}
	log_event(l->options.log, LOG_WARN, "control_refused", LOG_STR("client", client));
	return false;
}

static void on_shortage(void *ctx, bool begins, const char *why)
{
	struct socket *s = ctx;

	log_event(s->owner->options.log, begins ? LOG_ERROR : LOG_INFO, begins ? "accept_paused" : "accept_resumed",
		  LOG_STR("listener", s->address), LOG_STR("text", why));
}

static bool is_balancer(const struct socket *s, const struct net_peer *peer)
{
	const struct config_networks *balancers = &s->service->listener.proxy_protocol;
	int family = peer->address.family == DNS_IPV4 ? AF_INET : AF_INET6;

	return !peer->is_unix && config_networks_contain(balancers, family, peer->address.bytes, NULL);
}

static void on_accept(void *ctx, int fd, const struct net_peer *peer)
{
	struct socket *s = ctx;
	struct listeners *l = s->owner;

	if (!is_balancer(s, peer))
		submissions_begin(l->submissions, s->service, fd, peer, 0);
	else if (proxy_gates_count(l->gates) < l->gates_max)
		proxy_gates_add(l->gates, fd, peer, s);
	else
		close(fd);
}

static void on_proxy_header(void *ctx, void *tag, int fd, const struct net_peer *balancer,
			    const struct proxy_header *header)
{
	const struct net_peer client = {.address = header->client, .port = header->port};
	struct listeners *l = ctx;
	struct socket *s = tag;

	submissions_begin(l->submissions, s->service, fd, header->names_client ? &client : balancer,
			  header->names_client ? 0 : SUBMISSION_NEVER_TRUSTED);
}

static void on_proxy_refused(void *ctx, void *tag, const struct net_peer *balancer, const char *why)
{
	struct listeners *l = ctx;
	struct socket *s = tag;
	char client[128];

	net_peer_format(balancer, client, sizeof(client));
	series_add(metrics_series(l->options.metrics, METRIC_SUBMISSION_REJECTIONS, "syntax", NULL, NULL), 1);
	log_event(l->options.log, LOG_WARN, "proxy_header_refused", LOG_STR("client", client), LOG_STR("text", why),
		  LOG_STR("listener", s->address));
}

static void tell(struct listeners *l, const struct socket *s)
{
	static const char *const services[] = {"smtp", "submit", "drop", "http", "control"};

	log_event(l->options.log, LOG_INFO, "listening", LOG_STR("service", services[s->kind]),
		  LOG_STR("address", s->address),
		  LOG_STR("tls", s->kind == KIND_SMTP ? config_listen_tls_name(s->service->tls) : ""));
}

void listeners_start(struct listeners *l, struct submissions *submissions, http_handler *web, void *web_ctx,
		     http_handler *control, void *control_ctx, struct err *err)
{
	const struct http_gate gate = {may_control, l, CONTROL_REFUSAL};

	l->submissions = submissions;
	l->gates = proxy_gates_new(l->options.loop, &(struct proxy_gate_events){l, on_proxy_header, on_proxy_refused});
	for (size_t i = 0; i < l->count; i++) {
		struct socket *s = &l->sockets[i];
		bool is_http = s->kind == KIND_HTTP || s->kind == KIND_CONTROL;
		if (s->kind == KIND_DROP)
			continue;
		if (is_http)
			s->http = http_server_new(l->options.loop, s->fd, s->kind == KIND_HTTP ? web : control,
						  s->kind == KIND_HTTP ? web_ctx : control_ctx, err);
		else
			s->acceptor = net_acceptor_new(l->options.net, s->fd,
						       &(struct net_acceptor_events){s, on_accept, on_shortage});
		if (s->kind == KIND_CONTROL && s->http)
			http_server_guard(s->http, &gate);
		s->fd = -1;
		tell(l, s);
	}
}

void listeners_stop(struct listeners *l)
{
	proxy_gates_free(&l->gates);
	for (size_t i = 0; i < l->count; i++) {
		struct socket *s = &l->sockets[i];
		if (s->kind != KIND_SMTP && s->kind != KIND_SUBMIT)
			continue;
		net_acceptor_free(&s->acceptor);
	}
}

struct submission_service *listeners_drop_service(struct listeners *l)
{
	for (size_t i = 0; i < l->count; i++)
		if (l->sockets[i].kind == KIND_DROP)
			return l->sockets[i].service;
	return NULL;
}
