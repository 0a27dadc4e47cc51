#include "relayd/net.h"

#include "base/base.h"
#include "relayd/net_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Many clients at once must all get their banner; the kernel cuts it to net.core.somaxconn. */
enum { BACKLOG = 4096 };

struct net *net_new(struct loop *loop)
{
	struct net *net = xcalloc(1, sizeof(*net));

	net->loop = loop;
	list_init(&net->streams);
	list_init(&net->lingering);
	return net;
}

void net_free(struct net **net)
{
	if (!*net)
		return;
	stream_free_all(*net);
	free(*net);
	*net = NULL;
}

void net_set_connector(struct net *net, const struct net_connector *connector)
{
	net->connector = connector ? *connector : (struct net_connector){0};
}

/* ---- addresses ---- */

socklen_t net_to_sockaddr(const struct dns_address *address, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (address->family == DNS_IPV4) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		memcpy(&v4->sin_addr, address->bytes, 4);
		return sizeof(*v4);
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	memcpy(&v6->sin6_addr, address->bytes, 16);
	return sizeof(*v6);
}

struct dns_address net_of_sockaddr(const struct sockaddr_storage *in, uint16_t *port)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)in;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)in;
	struct dns_address out = {0};

	*port = 0;
	if (in->ss_family == AF_INET) {
		out.family = DNS_IPV4;
		memcpy(out.bytes, &v4->sin_addr, 4);
		*port = ntohs(v4->sin_port);
	} else if (in->ss_family == AF_INET6) {
		out.family = DNS_IPV6;
		memcpy(out.bytes, &v6->sin6_addr, 16);
		*port = ntohs(v6->sin6_port);
	}
	return out;
}

struct dns_address net_local_address(int fd, uint16_t *port)
{
	struct sockaddr_storage address = {0};
	socklen_t size = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &size) != 0)
		address.ss_family = AF_UNSPEC;
	return net_of_sockaddr(&address, port);
}

uint16_t net_local_port(int fd)
{
	uint16_t port;

	net_local_address(fd, &port);
	return port;
}

static bool fill_credentials(int fd, struct net_peer *peer)
{
	struct ucred credentials;
	socklen_t size = sizeof(credentials);

	peer->is_unix = true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
		return false;
	peer->uid = credentials.uid;
	peer->gid = credentials.gid;
	peer->pid = credentials.pid;
	return true;
}

bool net_peer_of(int fd, struct net_peer *peer)
{
	struct sockaddr_storage address = {0};
	socklen_t size = sizeof(address);

	*peer = (struct net_peer){0};
	if (getpeername(fd, (struct sockaddr *)&address, &size) != 0)
		return false;
	if (address.ss_family == AF_UNIX)
		return fill_credentials(fd, peer);
	peer->address = net_of_sockaddr(&address, &peer->port);
	return true;
}

bool net_peer_is_in_group(int fd, gid_t group)
{
	struct net_peer peer;
	gid_t *groups = NULL;
	socklen_t size = 0;
	bool found;

	if (!net_peer_of(fd, &peer) || !peer.is_unix)
		return false;
	found = peer.gid == group;
	/* With too little room the kernel says how much there must be. */
	if (found || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0 || errno != ERANGE)
		return found;
	groups = xcalloc(1, size);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0)
		for (size_t i = 0; i < size / sizeof(*groups) && !found; i++)
			found = groups[i] == group;
	free(groups);
	return found;
}

void net_peer_format(const struct net_peer *peer, char *out, size_t size)
{
	char text[DNS_ADDRESS_TEXT];

	if (peer->is_unix) {
		snprintf(out, size, "local user %u", (unsigned)peer->uid);
		return;
	}
	dns_address_format(&peer->address, text);
	snprintf(out, size, peer->address.family == DNS_IPV6 ? "[IPv6:%s]:%u" : "[%s]:%u", text, peer->port);
}

/* ---- connecting ---- */

static int new_socket(int family, struct err *err)
{
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		err_set_errno(err, "socket");
	return fd;
}

static int bind_source(int fd, const struct dns_address *source, struct err *err)
{
	struct sockaddr_storage from;
	socklen_t size = net_to_sockaddr(source, 0, &from);
	int on = 1;

	/* The port is chosen at connect(), so that one address serves many destinations from the same ports. */
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&from, size) == 0)
		return 0;
	return err_set_errno(err, "cannot send from the configured address");
}

static int connect_real(const struct dns_address *to, uint16_t port, const struct dns_address *source, struct err *err)
{
	struct sockaddr_storage address;
	socklen_t size = net_to_sockaddr(to, port, &address);
	int fd = new_socket(address.ss_family, err);

	if (fd < 0)
		return -1;
	if (source && source->family && bind_source(fd, source, err) != 0) {
		close(fd);
		return -1;
	}
	if (connect(fd, (struct sockaddr *)&address, size) != 0 && errno != EINPROGRESS) {
		err_set_errno(err, "connect");
		close(fd);
		return -1;
	}
	return fd;
}

int net_connect(struct net *net, const struct dns_address *to, uint16_t port, const struct dns_address *source,
		struct err *err)
{
	if (net->connector.connect)
		return net->connector.connect(net->connector.ctx, to, port, source, err);
	return connect_real(to, port, source, err);
}

/* sun_path has room for 107 octets; the directory's descriptor stands for a path of any length. */
static int unix_address(int dir_fd, const char *name, struct sockaddr_un *out, struct err *err)
{
	int len;

	*out = (struct sockaddr_un){.sun_family = AF_UNIX};
	len = snprintf(out->sun_path, sizeof(out->sun_path), "/proc/self/fd/%d/%s", dir_fd, name);
	if (len < 0 || (size_t)len >= sizeof(out->sun_path))
		return err_set(err, ERR_LIMIT, "the name of the socket %s is too long", name);
	return 0;
}

/* ---- listening ---- */

/* Consumes fd on failure. */
static int listen_on(int fd, const struct sockaddr_storage *address, socklen_t size, struct err *err)
{
	if (bind(fd, (const struct sockaddr *)address, size) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	err_set(err, err_code_of_errno(errno), "%s", strerror(errno));
	close(fd);
	return -1;
}

int net_listen(const struct dns_address *address, uint16_t port, struct err *err)
{
	struct sockaddr_storage bound;
	socklen_t size = net_to_sockaddr(address, port, &bound);
	int on = 1, fd = new_socket(bound.ss_family, err);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bound.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	return listen_on(fd, &bound, size, err);
}

static int remove_leftover(int dir_fd, const char *name, struct err *err)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : err_set_errno(err, "%s", name);
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, ERR_EXISTS, "%s is there already, and is not a socket", name);
	if (unlinkat(dir_fd, name, 0) != 0)
		return err_set_errno(err, "cannot remove the old socket %s", name);
	return 0;
}

static int set_owner(int dir_fd, const char *name, const struct net_unix_options *options, struct err *err)
{
	if ((options->uid != (uid_t)-1 || options->gid != (gid_t)-1) &&
	    fchownat(dir_fd, name, options->uid, options->gid, AT_SYMLINK_NOFOLLOW) != 0)
		return err_set_errno(err, "cannot give the socket %s to its owner", name);
	/* Nor by a link that has just taken its place: we may be root, and the folder is the service user's. */
	if (fchmodat(dir_fd, name, options->mode, AT_SYMLINK_NOFOLLOW) != 0)
		return err_set_errno(err, "cannot set the mode of the socket %s", name);
	return 0;
}

int net_listen_unix(int dir_fd, const char *name, const struct net_unix_options *options, struct err *err)
{
	struct sockaddr_un address;
	mode_t mask;
	int fd, rc;

	if (unix_address(dir_fd, name, &address, err) != 0 || remove_leftover(dir_fd, name, err) != 0)
		return -1;
	fd = new_socket(AF_UNIX, err);
	if (fd < 0)
		return -1;
	mask = umask(0777); /* until mode and owner are right, nobody gets in */
	rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (rc != 0)
		err_set_errno(err, "cannot make the socket %s", name);
	else
		rc = set_owner(dir_fd, name, options, err);
	if (rc == 0 && listen(fd, BACKLOG) != 0)
		rc = err_set_errno(err, "cannot listen on %s", name);
	if (rc == 0)
		return fd;
	close(fd);
	return -1;
}
