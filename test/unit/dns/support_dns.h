/*
 * Helpers of the DNS tests: packets put together octet by octet, a zone that answers in virtual time, and a real server
 * on a loopback port with a real loop.
 */
#ifndef TEST_SUPPORT_DNS_H
#define TEST_SUPPORT_DNS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "dns/dns.h"
#include "dns/resolver.h"

/* Flags of a header. */
enum { QR = 0x8000, AA = 0x0400, TC = 0x0200, RD = 0x0100, RA = 0x0080, AD = 0x0020 };
enum { SERVFAIL = 2, NXDOMAIN = 3, REFUSED = 5 };
enum section { ANSWER = 1, AUTHORITY, ADDITIONAL };

struct packet {
	uint8_t bytes[65536];
	size_t len;
};

struct rdata {
	uint8_t bytes[600];
	size_t len;
};

void packet_begin(struct packet *p, uint16_t id, unsigned flags, const char *name, uint16_t type);
void packet_add(struct packet *p, enum section section, const char *owner, uint16_t type, uint32_t ttl,
		struct rdata rdata);
/* Octets as they stand, no section counts them. */
void packet_add_raw(struct packet *p, const void *bytes, size_t len);
void packet_count(struct packet *p, enum section section);
struct slice packet_slice(const struct packet *p);

struct rdata rdata_address(const char *text);
struct rdata rdata_name(const char *name);
struct rdata rdata_mx(unsigned preference, const char *host);
struct rdata rdata_soa(uint32_t minimum);
struct rdata rdata_raw(const void *bytes, size_t len);

/*
 * A zone, a line for each record: "NAME TYPE DATA". Besides A, AAAA, MX, CNAME: "NAME SERVFAIL", "NAME SILENT" (never
 * answers), "NAME INSECURE" (no AD), "NAME NODATA" (exists, has nothing), "NAME TTL seconds". Other names are NXDOMAIN.
 * Fails go before data of the same name.
 */
struct asked {
	uint64_t token;
	char name[300];
	uint16_t type;
	bool is_answered;
};

struct env {
	struct clock_virtual clock;
	struct timers *timers;
	struct rng_seeded rng;
	struct dns_transport transport;
	const char *zone;
	bool is_secure;
	bool is_held; /* answers wait for env_answer_held() */
	struct asked asked[3000];
	size_t asked_count;
	struct dns *dns;
	struct resolver *resolver;
	char hosts_path[64]; /* "": none was written */
};

struct env *env_new(const char *zone);
void env_free(struct env **env);
/* Runs timers until nothing is due any more. */
void env_run(struct env *env);
void env_advance(struct env *env, int64_t ms);
void env_answer_held(struct env *env);
size_t env_count_asked(const struct env *env, const char *name, uint16_t type);
void env_write_hosts(struct env *env, const char *text);

/* A server on a free loopback port, UDP and TCP, and the loop for it and for a struct dns. */
struct server;
/* Fills `reply` to send it; false: says nothing. For TCP `close_after` octets of the stream, then the end; SIZE_MAX:
 * all. */
typedef bool server_handler(void *ctx, struct slice query, bool is_tcp, struct packet *reply, size_t *close_after);

enum { LOOP_FDS_MAX = 64 };

struct loop {
	struct timers *timers;
	struct dns_host host;
	struct dns *dns;
	struct server *servers[2];
	size_t server_count;
	struct {
		int fd;
		short events;
	} watched[LOOP_FDS_MAX];
	size_t watched_count;
};

struct server *server_new(server_handler *handler, void *ctx);
void server_free(struct server **server);
/* "127.0.0.1:PORT" */
const char *server_address(const struct server *server);
unsigned server_udp_count(const struct server *server);
unsigned server_tcp_count(const struct server *server);
/* The source port of the last query by UDP. */
unsigned server_last_port(const struct server *server);
/* No TCP connections are taken any more. */
void server_stop_tcp(struct server *server);
/* A datagram from another socket to where the last query came from. */
void server_spoof(struct server *server, const struct packet *packet);
void server_send(struct server *server, const struct packet *packet);
/* Where the last query came from, to answer it after others. */
void server_remember(struct server *server);
void server_send_remembered(struct server *server, const struct packet *packet);

void loop_init(struct loop *loop);
void loop_fini(struct loop *loop);
/* Until *flag is no longer 0. Fails the test after 20 s: nothing here takes that long. */
void loop_run_until(struct loop *loop, const int *flag);

/* Of a query packet. */
uint16_t query_id(struct slice query);
const char *query_name(struct slice query, char *out);
uint16_t query_type(struct slice query);
bool query_has_edns(struct slice query);

#endif
