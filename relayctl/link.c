#include "relayctl/link.h"

#include "base/base.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HANDSHAKE_STEP_MS = 60 * 1000 };

struct link {
	int fd;
	CURL *curl; /* owns `fd` */
	struct tls_session *tls;
};

/* ---- opening ---- */

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *slash = strrchr(path, '/');
	char folder[4096];
	int dir = -1, fd;

	if (slash && slice_to_cstr(slice_of(path, (size_t)(slash - path + 1)), folder, sizeof(folder)))
		dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* A path that is longer than sun_path is reached through its folder's descriptor. */
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dir, slash ? slash + 1 : path);
	if (dir < 0)
		snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
		int why = errno;
		close(fd);
		errno = why;
		fd = -1;
	}
	if (dir >= 0)
		close(dir);
	return fd;
}

static struct link *link_new(int fd, CURL *curl)
{
	struct link *link = xcalloc(1, sizeof(*link));

	*link = (struct link){fd, curl, NULL};
	return link;
}

struct link *link_open_unix(const char *path, struct err *err)
{
	int fd = connect_to(path);

	if (fd >= 0)
		return link_new(fd, NULL);
	err_set_errno(err, "cannot reach relayd at %s", path);
	return NULL;
}

struct link *link_open_tcp(const char *host, uint16_t port, int64_t timeout_ms, struct err *err)
{
	CURL *curl = curl_easy_init();
	curl_socket_t fd = CURL_SOCKET_BAD;
	char url[300];
	CURLcode rc;

	BUG_ON(!curl);
	snprintf(url, sizeof(url), strchr(host, ':') ? "http://[%s]:%u/" : "http://%s:%u/", host, port);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)timeout_ms);
	rc = curl_easy_perform(curl);
	if (rc == CURLE_OK)
		rc = curl_easy_getinfo(curl, CURLINFO_ACTIVESOCKET, &fd);
	if (rc == CURLE_OK && fd != CURL_SOCKET_BAD)
		return link_new(fd, curl);
	err_set(err, ERR_CLOSED, "cannot reach %s port %u: %s", host, port, curl_easy_strerror(rc));
	curl_easy_cleanup(curl);
	return NULL;
}

/* ---- to one address ---- */

static socklen_t to_sockaddr(const struct dns_address *address, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *in = (struct sockaddr_in *)out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

	*out = (struct sockaddr_storage){.ss_family = address->family == DNS_IPV4 ? AF_INET : AF_INET6};
	if (address->family == DNS_IPV4) {
		in->sin_port = htons(port);
		memcpy(&in->sin_addr, address->bytes, 4);
		return sizeof(*in);
	}
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, address->bytes, 16);
	return sizeof(*in6);
}

int link_begin(const struct dns_address *to, uint16_t port, const struct dns_address *from, struct err *err)
{
	struct sockaddr_storage address;
	socklen_t len = to_sockaddr(to, port, &address);
	int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && from && from->family == to->family) {
		struct sockaddr_storage own;
		socklen_t own_len = to_sockaddr(from, 0, &own);
		if (bind(fd, (struct sockaddr *)&own, own_len) != 0)
			goto out;
	}
	if (fd >= 0 && (connect(fd, (struct sockaddr *)&address, len) == 0 || errno == EINPROGRESS))
		return fd;
out:
	*err = (struct err){err_code_of_errno(errno), ""};
	snprintf(err->text, sizeof(err->text), "%s", strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

struct link *link_finish(int fd, struct err *err)
{
	int why = 0;
	socklen_t len = sizeof(why);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &len) == 0 && why == 0)
		return link_new(fd, NULL);
	err_set(err, ERR_CLOSED, "%s", strerror(why));
	close(fd);
	return NULL;
}

struct link *link_open_address(const struct dns_address *to, uint16_t port, const struct dns_address *from,
			       int64_t timeout_ms, struct err *err)
{
	struct pollfd ready = {.fd = link_begin(to, port, from, err), .events = POLLOUT};

	if (ready.fd < 0)
		return NULL;
	if (poll(&ready, 1, (int)timeout_ms) == 1)
		return link_finish(ready.fd, err);
	close(ready.fd);
	err_set(err, ERR_CLOSED, "timed out");
	return NULL;
}

void link_close(struct link **link)
{
	struct link *l = *link;

	if (!l)
		return;
	tls_session_free(&l->tls);
	if (l->curl)
		curl_easy_cleanup(l->curl);
	else
		close(l->fd);
	free(l);
	*link = NULL;
}

int link_fd(const struct link *link)
{
	return link->fd;
}

/* ---- bytes ---- */

static int send_all(int fd, struct slice bytes)
{
	while (bytes.len > 0) {
		struct pollfd ready = {.fd = fd, .events = POLLOUT};
		ssize_t n = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
		if (n > 0)
			bytes = slice_from(bytes, (size_t)n);
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			return ERR_CLOSED;
		else
			poll(&ready, 1, -1); /* libcurl's sockets do not block */
	}
	return 0;
}

static ssize_t receive(int fd, void *out, size_t size, int64_t timeout_ms)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	int rc;
	ssize_t n;

	do
		rc = poll(&ready, 1, (int)MIN(timeout_ms, (int64_t)INT32_MAX));
	while (rc < 0 && errno == EINTR);
	if (rc == 0)
		return ERR_TEMPORARY;
	n = recv(fd, out, size, 0);
	return n >= 0 ? n : errno == EAGAIN ? ERR_TEMPORARY : ERR_CLOSED;
}

static int flush_tls(struct link *link)
{
	struct slice out = tls_session_output(link->tls);
	int rc = send_all(link->fd, out);

	tls_session_output_sent(link->tls, out.len);
	return rc;
}

/* One read of ciphertext into the session; as link_read(). */
static ssize_t fill_tls(struct link *link, int64_t timeout_ms)
{
	char bytes[16 * 1024];
	size_t room = MIN(tls_session_input_room(link->tls), sizeof(bytes));
	ssize_t n = receive(link->fd, bytes, room, timeout_ms);

	if (n > 0)
		tls_session_input(link->tls, slice_of(bytes, (size_t)n));
	else if (n == 0)
		tls_session_input_eof(link->tls);
	return n;
}

int link_write(struct link *link, struct slice bytes)
{
	size_t taken;

	if (!link->tls)
		return send_all(link->fd, bytes);
	while (bytes.len > 0) {
		enum tls_status status = tls_session_write(link->tls, bytes, &taken, NULL);
		if (flush_tls(link) != 0 || (status != TLS_OK && status != TLS_AGAIN))
			return ERR_CLOSED;
		bytes = slice_from(bytes, status == TLS_OK ? taken : 0);
	}
	return 0;
}

ssize_t link_read(struct link *link, void *out, size_t size, int64_t timeout_ms)
{
	size_t len;

	if (!link->tls)
		return receive(link->fd, out, size, timeout_ms);
	while (true) {
		enum tls_status status = tls_session_read(link->tls, out, size, &len, NULL);
		ssize_t n;
		if (flush_tls(link) != 0 || status == TLS_FAILED)
			return ERR_CLOSED;
		if (status != TLS_AGAIN)
			return status == TLS_OK ? (ssize_t)len : 0;
		n = fill_tls(link, timeout_ms);
		if (n < 0)
			return n;
	}
}

/* ---- TLS ---- */

static struct tls_credentials *make_credentials(const struct link_tls *tls, struct err *err)
{
	struct tls_client_credentials_options options = {
	    .certificate_file = tls->certificate, .key_file = tls->key, .min_version = TLS_VERSION_1_2};
	bool wants_trust = tls->level == TLS_LEVEL_VERIFY || tls->wants_verdict;
	struct tls_credentials *credentials = NULL;

	if (wants_trust)
		options.trust = tls->ca_file ? tls_trust_new_file(tls->ca_file, err) : tls_trust_new_system();
	if (!wants_trust || options.trust)
		credentials = tls_credentials_new_client(&options, err);
	tls_trust_unref(&options.trust);
	return credentials;
}

int link_start_tls(struct link *link, const struct link_tls *tls, struct err *err)
{
	const struct tls_client_options options = {.server_name = tls->host,
						   .level = tls->level,
						   .fingerprints = tls->fingerprint,
						   .fingerprint_count = tls->fingerprint != NULL};
	struct tls_credentials *credentials = make_credentials(tls, err);
	int64_t step_ms = tls->step_ms ? tls->step_ms : HANDSHAKE_STEP_MS;
	enum tls_status status;

	if (!credentials)
		return (int)err->code;
	link->tls = tls_session_new_client(credentials, &options);
	tls_credentials_unref(&credentials);
	while ((status = tls_session_handshake(link->tls, err)) == TLS_AGAIN) {
		if (flush_tls(link) != 0 || fill_tls(link, step_ms) < 0)
			return err_set(err, ERR_CLOSED, "the connection ended in the TLS handshake");
	}
	flush_tls(link);
	return status == TLS_OK ? 0 : ERR_CRYPTO;
}

struct tls_session *link_tls_session(const struct link *link)
{
	return link->tls;
}
