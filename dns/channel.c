#include "dns/channel.h"

#include "base/base.h"
#include "base/list.h"

#define CARES_NO_DEPRECATED /* ares_send() and the like, which 1.18 has alone */
#include <ares.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	DEFAULT_TIMEOUT_MS = 2000,
	DEFAULT_TRIES = 3,
	QUESTIONS_PER_CHANNEL = 1000, /* then a new one, with new source ports */
	TICK_MIN_MS = 10,
	TICK_MAX_MS = 200,
	SEARCH_MAX = 8,
	FORMERR = 1,
};

struct channel {
	struct channels *owner;
	ares_channel ares;
	struct list node;
	size_t inflight, asked;
	bool is_trusted;
	bool is_plain; /* its servers don't know EDNS */
};

struct channels {
	const struct dns_host *host;
	struct rng *rng;
	channels_cb *cb;
	void *ctx;
	struct ares_addr_port_node *given_servers; /* NULL: resolv.conf */
	char *resolv_conf;
	enum dns_trust trust;
	int timeout_ms, tries;

	struct channel *current;
	struct list all; /* the current one and the retiring ones */
	bool is_closing;
	/* Learnt when resolv.conf was read: a later channel gets the same servers, whatever the file says by then. */
	struct ares_addr_port_node *servers;
	bool is_trusted;
	char *search[SEARCH_MAX];
	size_t search_count;
	int ndots;
};

struct asked {
	struct channel *channel;
	uint64_t token;
};

static void on_socket_state(void *ctx, ares_socket_t fd, int readable, int writable)
{
	struct channel *channel = ctx;
	const struct dns_host *host = channel->owner->host;

	if (host)
		host->watch(host->ctx, fd, readable != 0, writable != 0);
}

static void destroy_channel(struct channel *channel)
{
	list_remove(&channel->node);
	if (channel->ares)
		ares_destroy(channel->ares);
	free(channel);
}

static struct channel *create_channel(struct channels *channels, struct err *err)
{
	struct channel *channel = xcalloc(1, sizeof(*channel));
	struct ares_options options = {
	    .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS,
	    .timeout = channels->timeout_ms,
	    .tries = channels->tries,
	    .ednspsz = DNS_EDNS_SIZE,
	    .lookups = (char *)(uintptr_t) "b",
	    .resolvconf_path = channels->resolv_conf,
	    .sock_state_cb = on_socket_state,
	    .sock_state_cb_data = channel,
	};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ | ARES_OPT_LOOKUPS |
		   ARES_OPT_SOCK_STATE_CB | (channels->resolv_conf ? ARES_OPT_RESOLVCONF : 0);
	int status;

	channel->owner = channels;
	list_append(&channels->all, &channel->node);
#ifdef ARES_OPT_QUERY_CACHE
	/* Its key ignores the AD bit; ours is dns/cache.h. */
	options.qcache_max_ttl = 0;
	mask |= ARES_OPT_QUERY_CACHE;
#endif
	status = ares_init_options(&channel->ares, &options, mask);
	if (status == ARES_SUCCESS)
		return channel;
	channel->ares = NULL;
	destroy_channel(channel);
	err_set(err, ERR_SYSTEM, "DNS: %s", ares_strerror(status));
	return NULL;
}

static struct dns_address address_of_node(const struct ares_addr_port_node *node)
{
	struct dns_address address = {.family = node->family == AF_INET ? DNS_IPV4 : DNS_IPV6};

	memcpy(address.bytes, &node->addr, node->family == AF_INET ? 4 : 16);
	return address;
}

/* Docker's forwarder sits on a loopback address, but passes on what any server outside says. */
static bool is_trusted_path(const struct ares_addr_port_node *servers)
{
	struct dns_address docker;

	dns_address_parse(SLICE("127.0.0.11"), &docker);
	for (const struct ares_addr_port_node *i = servers; i; i = i->next) {
		struct dns_address address = address_of_node(i);

		if (dns_address_kind(&address) != DNS_ADDRESS_LOOPBACK || dns_address_eq(&address, &docker))
			return false;
	}
	return servers != NULL;
}

static void forget_learnt(struct channels *channels)
{
	if (channels->servers)
		ares_free_data(channels->servers);
	channels->servers = NULL;
	for (size_t i = 0; i < channels->search_count; i++)
		free(channels->search[i]);
	channels->search_count = 0;
}

static void learn_search_list(struct channels *channels, ares_channel ares)
{
	struct ares_options options;
	int mask = 0;

	memset(&options, 0, sizeof(options));
	channels->ndots = 1;
	if (ares_save_options(ares, &options, &mask) == ARES_SUCCESS) {
		if (mask & ARES_OPT_NDOTS)
			channels->ndots = options.ndots;
		for (int i = 0; (mask & ARES_OPT_DOMAINS) && i < options.ndomains && i < SEARCH_MAX; i++)
			channels->search[channels->search_count++] = xstrdup(options.domains[i]);
	}
	ares_destroy_options(&options);
}

static int learn(struct channels *channels, struct channel *channel, struct err *err)
{
	struct ares_addr_port_node *servers = NULL;
	int status = ares_get_servers_ports(channel->ares, &servers);

	if (status != ARES_SUCCESS || !servers)
		return err_set(err, ERR_SYSTEM, "DNS: no servers: %s", ares_strerror(status));
	forget_learnt(channels);
	channels->servers = servers;
	channels->is_trusted =
	    channels->trust == DNS_TRUST_ALWAYS || (channels->trust == DNS_TRUST_LOOPBACK && is_trusted_path(servers));
	channel->is_trusted = channels->is_trusted;
	learn_search_list(channels, channel->ares);
	return 0;
}

/* c-ares takes a file that it cannot read for an empty one, and would ask 127.0.0.1. */
static int check_resolv_conf(const struct channels *channels, bool may_be_missing, struct err *err)
{
	const char *path = channels->resolv_conf ? channels->resolv_conf : "/etc/resolv.conf";

	if (channels->given_servers || access(path, R_OK) == 0 || (errno == ENOENT && may_be_missing))
		return 0;
	return err_set_errno(err, "%s", path);
}

static int start(struct channels *channels, bool is_first, struct err *err)
{
	struct channel *channel;
	int result = check_resolv_conf(channels, is_first, err);

	if (result < 0)
		return result;
	channel = create_channel(channels, err);
	if (!channel)
		return ERR_SYSTEM;
	if (channels->given_servers && ares_set_servers_ports(channel->ares, channels->given_servers) != ARES_SUCCESS)
		result = err_set(err, ERR_SYSTEM, "DNS: c-ares refuses the servers");
	if (result == 0)
		result = learn(channels, channel, err);
	if (result < 0)
		destroy_channel(channel);
	else
		channels->current = channel;
	return result;
}

/* "ADDRESS", "ADDRESS:PORT", "[ADDRESS]:PORT"; an IPv6 address without a port may stand without brackets. */
static bool parse_server(struct slice text, struct dns_address *address, int *port)
{
	ptrdiff_t colon = slice_find_last(text, ':');
	struct slice digits;

	*port = 0;
	if (dns_address_parse(text, address))
		return true;
	if (text.len && text.ptr[text.len - 1] == ']')
		colon = -1;
	if (colon >= 0) {
		digits = slice_from(text, (size_t)colon + 1);
		if (digits.len == 0 || digits.len > 5)
			return false;
		for (size_t i = 0; i < digits.len; i++) {
			if (digits.ptr[i] < '0' || digits.ptr[i] > '9')
				return false;
			*port = *port * 10 + (digits.ptr[i] - '0');
		}
		text = slice_to(text, (size_t)colon);
	}
	if (text.len > 2 && text.ptr[0] == '[' && text.ptr[text.len - 1] == ']')
		return dns_address_parse(slice_of(text.ptr + 1, text.len - 2), address) &&
		       address->family == DNS_IPV6 && *port <= 65535;
	return dns_address_parse(text, address) && address->family == DNS_IPV4 && *port <= 65535;
}

static void free_given_servers(struct channels *channels)
{
	while (channels->given_servers) {
		struct ares_addr_port_node *next = channels->given_servers->next;

		free(channels->given_servers);
		channels->given_servers = next;
	}
}

static int take_given_servers(struct channels *channels, const struct dns_options *options, struct err *err)
{
	struct ares_addr_port_node **end = &channels->given_servers;

	for (size_t i = 0; i < options->server_count; i++) {
		struct dns_address address;
		int port;

		if (!parse_server(slice_of_str(options->servers[i]), &address, &port))
			return err_set(err, ERR_SYNTAX, "DNS: '%s' is no ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT",
				       options->servers[i]);
		*end = xcalloc(1, sizeof(**end));
		(*end)->family = address.family == DNS_IPV4 ? AF_INET : AF_INET6;
		memcpy(&(*end)->addr, address.bytes, address.family == DNS_IPV4 ? 4 : 16);
		(*end)->udp_port = (*end)->tcp_port = port;
		end = &(*end)->next;
	}
	return 0;
}

struct channels *channels_new(const struct dns_options *options, const struct dns_host *host, struct rng *rng,
			      channels_cb *cb, void *ctx, struct err *err)
{
	struct channels *channels = xcalloc(1, sizeof(*channels));

	ares_library_init(ARES_LIB_INIT_ALL);
	channels->host = host;
	channels->rng = rng;
	channels->cb = cb;
	channels->ctx = ctx;
	channels->resolv_conf = options->resolv_conf ? xstrdup(options->resolv_conf) : NULL;
	channels->trust = options->trust;
	channels->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : DEFAULT_TIMEOUT_MS;
	channels->tries = options->tries > 0 ? options->tries : DEFAULT_TRIES;
	list_init(&channels->all);
	if (take_given_servers(channels, options, err) < 0 || start(channels, true, err) < 0)
		channels_free(&channels);
	return channels;
}

void channels_free(struct channels **channels)
{
	if (!*channels)
		return;
	(*channels)->is_closing = true;
	LIST_FOREACH (node, &(*channels)->all)
		destroy_channel(CONTAINER_OF(node, struct channel, node));
	forget_learnt(*channels);
	free_given_servers(*channels);
	free((*channels)->resolv_conf);
	free(*channels);
	*channels = NULL;
	ares_library_cleanup();
}

static const char *words_of(int status)
{
	switch (status) {
	case ARES_ETIMEOUT: return "no DNS server answered in time";
	case ARES_ECONNREFUSED: return "no DNS server gave an answer (SERVFAIL, REFUSED or not reachable)";
	default: return ares_strerror(status);
	}
}

static void on_answer(void *ctx, int status, int timeouts, unsigned char *packet, int len)
{
	struct asked *asked = ctx;
	struct channel *channel = asked->channel;
	struct channels *channels = channel->owner;
	struct slice answer = {0};
	uint64_t token = asked->token;

	(void)timeouts;
	free(asked);
	channel->inflight--;
	if (channels->is_closing)
		return;
	if (status == ARES_SUCCESS && packet && len > 0)
		answer = slice_of(packet, (size_t)len);
	if (answer.len > 3 && (answer.ptr[3] & 15) == FORMERR)
		channel->is_plain = true;
	channels->cb(channels->ctx, token, answer, channel->is_trusted, answer.len ? "" : words_of(status));
}

/* A new source port now and then. When there are no means for it, the old one serves on. */
static void renew(struct channels *channels)
{
	struct channel *channel = create_channel(channels, NULL);

	if (!channel)
		return;
	if (ares_set_servers_ports(channel->ares, channels->servers) != ARES_SUCCESS) {
		destroy_channel(channel);
		return;
	}
	channel->is_trusted = channels->is_trusted;
	channels->current = channel;
}

void channels_ask(struct channels *channels, uint64_t token, const char *name, uint16_t type)
{
	uint8_t query[DNS_QUERY_MAX];
	struct channel *channel;
	struct asked *asked;
	size_t len;

	if (channels->current->asked >= QUESTIONS_PER_CHANNEL)
		renew(channels);
	channel = channels->current;
	asked = xcalloc(1, sizeof(*asked));
	asked->channel = channel;
	asked->token = token;
	channel->inflight++;
	channel->asked++;
	len = dns_message_build_query((uint16_t)rng_u64(channels->rng), name, type, !channel->is_plain, query);
	ares_send(channel->ares, query, (int)len, on_answer, asked);
}

void channels_on_fd(struct channels *channels, int fd, bool readable, bool writable)
{
	LIST_FOREACH (node, &channels->all)
		ares_process_fd(CONTAINER_OF(node, struct channel, node)->ares, readable ? fd : ARES_SOCKET_BAD,
				writable ? fd : ARES_SOCKET_BAD);
}

void channels_tick(struct channels *channels)
{
	channels_on_fd(channels, ARES_SOCKET_BAD, false, false);
}

int channels_tick_ms(const struct channels *channels)
{
	return MAX(TICK_MIN_MS, MIN(channels->timeout_ms / 4, TICK_MAX_MS));
}

void channels_sweep(struct channels *channels)
{
	LIST_FOREACH (node, &channels->all) {
		struct channel *channel = CONTAINER_OF(node, struct channel, node);

		if (channel != channels->current && channel->inflight == 0)
			destroy_channel(channel);
	}
}

int channels_reload(struct channels *channels, struct err *err)
{
	return channels->given_servers ? 0 : start(channels, false, err);
}

bool channels_is_trusted(const struct channels *channels)
{
	return channels->is_trusted;
}

const char *const *channels_search_list(const struct channels *channels, size_t *count, int *ndots)
{
	*count = channels->search_count;
	*ndots = channels->ndots;
	return (const char *const *)channels->search;
}

void channels_format_servers(const struct channels *channels, char *out, size_t size)
{
	size_t len = 0;

	out[0] = '\0';
	for (const struct ares_addr_port_node *i = channels->servers; i && len < size; i = i->next) {
		struct dns_address address = address_of_node(i);
		char text[DNS_ADDRESS_TEXT];
		int n;

		dns_address_format(&address, text);
		n = snprintf(out + len, size - len, address.family == DNS_IPV6 ? "%s[%s]:%d" : "%s%s:%d",
			     len ? ", " : "", text, i->udp_port ? i->udp_port : 53);
		len += n > 0 ? (size_t)n : 0;
	}
}
