#include "test/sim/world.h"

#include "test/sim/socket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* How old what stands in SPOOL/rates.json may be, and a second. */
enum { KEPT_AGE_MS = 6000 };

/* A connection to a host that does not answer: never writable, until the relay gives up. */
struct pending_socket {
	struct world *world;
	struct host *host;
	struct list node;
	int fd;
	struct watch *watch;
};

struct world *world_new(const struct sim_clock *clock, struct ledger *ledger, uint64_t seed, unsigned domain_count)
{
	struct world *world = xcalloc(1, sizeof(*world));

	world->clock = clock;
	world->ledger = ledger;
	world->port = 25;
	rng_seeded_init(&world->rng, seed);
	world->loop = loop_new(&clock->clock);
	world->net = net_new(world->loop);
	world->domains = xcalloc(domain_count, sizeof(*world->domains));
	world->domain_count = domain_count;
	world->transport = (struct dns_transport){world_ask, world};
	list_init(&world->peers);
	list_init(&world->pending_sockets);
	list_init(&world->questions);
	return world;
}

void world_make_domain(struct world *world, unsigned number, enum behaviour behaviour)
{
	struct domain *domain = &world->domains[number];
	struct rng_seeded rng;

	domain->world = world;
	domain->number = number;
	domain->behaviour = behaviour;
	snprintf(domain->name, sizeof(domain->name), "d%u.test", number);
	rng_seeded_init(&rng, sim_hash(world->rng.state, number));
	domain->host_count = 1 + (unsigned)rng_below(&rng.rng, 3);
	for (unsigned h = 0; h < HOSTS_MAX; h++)
		domain->hosts[h] =
		    (struct host){domain, h, HOST_GOOD, world->is_even ? 40 : sim_between(&rng.rng, 5, 80)};
	behaviour_fill_domain(domain, &rng.rng);
}

static void end_pending(struct pending_socket *pending)
{
	list_remove(&pending->node);
	loop_unwatch(pending->world->loop, &pending->watch);
	close(pending->fd);
	pending->host->domain->connections--;
	pending->world->connections--;
	free(pending);
}

void world_free(struct world **world)
{
	struct world *w = *world;

	peer_free_all(w);
	while (!list_is_empty(&w->pending_sockets))
		end_pending(CONTAINER_OF(w->pending_sockets.next, struct pending_socket, node));
	world_forget_questions(w);
	loop_turn(w->loop, 0);
	net_free(&w->net);
	loop_free(&w->loop);
	for (unsigned d = 0; d < w->domain_count; d++) {
		struct triplet *triplet, *next;
		meter_fini(&w->domains[d].meter);
		meter_fini(&w->domains[d].route_meter);
		HASH_ITER(hh, w->domains[d].triplets, triplet, next)
		{
			HASH_DEL(w->domains[d].triplets, triplet);
			free(triplet);
		}
	}
	free(w->domains);
	free(w);
	*world = NULL;
}

void world_forgive_meters(struct world *world)
{
	int64_t since_ms = world->clock->mono - KEPT_AGE_MS;

	for (unsigned d = 0; d < world->domain_count; d++) {
		meter_forgive(&world->domains[d].meter, since_ms);
		meter_forgive(&world->domains[d].route_meter, since_ms);
	}
}

/* ---- connecting ---- */

static struct host *find_host(struct world *world, const struct dns_address *to)
{
	unsigned number = to->bytes[1] * 250u + to->bytes[2];

	if (to->family != DNS_IPV4 || to->bytes[0] != 10 || number >= world->domain_count || to->bytes[3] >= HOSTS_MAX)
		return NULL;
	return &world->domains[number].hosts[to->bytes[3]];
}

static bool has_quit(const struct peer *peer)
{
	char unread[4096];
	ssize_t n = recv(stream_fd(peer->stream), unread, sizeof(unread), MSG_PEEK | MSG_DONTWAIT);

	return sim_socket_is_left(stream_fd(peer->stream)) || (n >= 6 && memcmp(unread + n - 6, "QUIT\r\n", 6) == 0);
}

/* The relay may have left some already: the world has just not had its turn. */
static void look_for_the_gone(struct world *world)
{
	LIST_FOREACH (node, &world->peers) {
		struct peer *peer = CONTAINER_OF(node, struct peer, node);
		if (peer->is_counted && !peer->is_dead && peer->stream && has_quit(peer)) {
			peer->is_counted = false;
			peer->host->domain->connections--;
			world->connections--;
		}
	}
	LIST_FOREACH (node, &world->pending_sockets) {
		struct pending_socket *pending = CONTAINER_OF(node, struct pending_socket, node);
		if (sim_socket_is_left(pending->fd))
			end_pending(pending);
	}
}

static void count_connection(struct world *world, struct domain *domain)
{
	domain->connections++;
	world->connections++;
	if (domain->connections > world->per_destination_max)
		look_for_the_gone(world);
	domain->connections_most = MAX(domain->connections_most, domain->connections);
	world->connections_most = MAX(world->connections_most, world->connections);
	if (domain->connections > world->per_destination_max)
		ledger_violate(world->ledger, 0, "%s has %u connections, %u are allowed", domain->name,
			       domain->connections, world->per_destination_max);
}

void world_check_connections(struct world *world)
{
	if (world->connections > world->connections_max)
		look_for_the_gone(world);
	if (world->connections > world->connections_max)
		ledger_violate(world->ledger, 0, "%u connections, %u are allowed", world->connections,
			       world->connections_max);
}

static void on_pending(void *ctx, uint32_t events)
{
	(void)events;
	end_pending(ctx);
}

static void add_pending(struct world *world, struct host *host, int fd)
{
	struct pending_socket *pending = xcalloc(1, sizeof(*pending));

	*pending = (struct pending_socket){.world = world, .host = host, .fd = fd};
	list_append(&world->pending_sockets, &pending->node);
	pending->watch = loop_watch(world->loop, fd, EPOLLRDHUP, on_pending, pending);
}

static int world_connect(void *ctx, const struct dns_address *to, uint16_t port, const struct dns_address *source,
			 struct err *err)
{
	struct world *world = ctx;
	struct host *host = find_host(world, to);
	int fds[2];
	bool silent = false;

	(void)source;
	if (!host || port != world->port) {
		ledger_violate(world->ledger, 0, "a connection to nowhere");
		return err_set(err, ERR_SYSTEM, "connect: Network is unreachable"), -1;
	}
	host->domain->asked++;
	if (behave_at_connect(host, &silent) && !silent)
		return err_set(err, ERR_SYSTEM, "connect: Connection refused"), -1;
	sim_socket_pair(fds, silent);
	count_connection(world, host->domain);
	if (silent)
		add_pending(world, host, fds[1]);
	else
		peer_new(world, host, fds[1]);
	return fds[0];
}

struct net_connector world_connector(struct world *world)
{
	return (struct net_connector){world, world_connect};
}

void world_orphan_peers(struct world *world)
{
	LIST_FOREACH (node, &world->peers)
		CONTAINER_OF(node, struct peer, node)->is_orphan = true;
}
