/*
 * The world outside the relay: domains with a behaviour each, their DNS, their hosts, and the SMTP sessions of these.
 *
 * It has a loop of its own on the same clock, and lives on when the relay crashes: greylists, what was taken, who is
 * connected. Domain n is "dn.test", its hosts are "mxk.dn.test" with the addresses 10.n/250.n%250.k.
 */
#ifndef TEST_SIM_WORLD_H
#define TEST_SIM_WORLD_H

#include "base/buf.h"
#include "base/list.h"
#include "dns/dns.h"
#include "relayd/net.h"
#include "relayd/stream.h"
#include "test/sim/ledger.h"
#include "test/sim/meter.h"

#include <uthash.h>

enum behaviour {
	HEALTHY,
	OLD,		  /* knows HELO alone; or hangs up on EHLO */
	GREYLIST,	  /* as postgrey, at RCPT: sender, recipient; no hint */
	GREYLIST_HINT,	  /* as milter-greylist: says when to come back */
	GREYLIST_CONTENT, /* as rspamd, at the end of data: sender and all recipients together */
	THROTTLE,	  /* so many messages in ten minutes */
	BUSY,		  /* so many connections at a time, else 421 */
	TARPIT,		  /* each reply after several seconds */
	REFUSED,	  /* no port 25 */
	SILENT,		  /* no answer to SYN */
	FLAPPING,	  /* up and down */
	FULL,		  /* mailboxes are full for some hours */
	DROPPING,	  /* drops connections at any stage */
	TAKES_AND_DROPS,  /* takes the message, then drops the connection before its 250 */
	FLAKY,		  /* 4yz at any stage */
	REFUSING,	  /* 5yz at any stage */
	HOSTILE,	  /* anything but SMTP */
	HALF_MX,	  /* half of its MX hosts are wrong */
	FEW_RCPTS,	  /* 452 after some recipients */
	IDLE_CLOSER,	  /* closes the connection soon after each message */
	SESSION_LIMIT,	  /* 421 at MAIL after some messages in a session */
	NO_DOMAIN,	  /* NXDOMAIN */
	NULL_MX,	  /* RFC 7505 */
	DNS_FLAPPING,	  /* its name servers are up and down */
	DNS_DEAD,	  /* SERVFAIL, or no answer at all */
	BEHAVIOUR_COUNT,
	/* Of relayhosts alone, half of the time. */
	OUT_OF_QUOTA = BEHAVIOUR_COUNT, /* 550 5.4.5 for every message */
	ACCOUNT_LOCKED,			/* 530 for every message */
	ALL_BEHAVIOURS_COUNT,
};
const char *behaviour_name(enum behaviour behaviour);
/* What must become of a message to somebody who exists there. */
enum expectation behaviour_expectation(enum behaviour behaviour);
/* A domain without a fault: the relay must be quick. */
bool behaviour_is_healthy(enum behaviour behaviour);

enum { HOSTS_MAX = 6 };

enum host_fault { HOST_GOOD, HOST_REFUSED, HOST_SILENT, HOST_NO_ADDRESS, HOST_554 };

struct host {
	struct domain *domain;
	unsigned number;
	enum host_fault fault;
	int64_t rtt_ms;
};

struct triplet {
	uint64_t key;
	int64_t first_ms;
	bool has_passed;
	UT_hash_handle hh;
};

struct domain {
	struct world *world;
	unsigned number;
	enum behaviour behaviour;
	unsigned variant; /* of the behaviour */
	char name[24];
	unsigned host_count;
	struct host hosts[HOSTS_MAX];

	bool has_pipelining, has_chunking, has_8bit, has_dsn, refuses_starttls;
	int64_t delay_ms;  /* greylist's, tarpit's */
	int64_t period_ms; /* flapping: half of it up, half down */
	unsigned percent;  /* how often it misbehaves */
	unsigned limit;	   /* throttle, busy, recipients, messages a session */
	uint32_t ttl_sec;

	struct triplet *triplets;
	int64_t window_ms;
	unsigned in_window;

	/* What the relay's operator has promised: messages to its hosts, and by the route to its people. */
	struct meter meter, route_meter;
	bool is_paused;
	int64_t pause_changed_ms;

	unsigned connections, connections_most;
	/* Counts: connections asked for, sessions, MAIL, RCPT, messages taken. */
	unsigned asked, sessions, mails, rcpts, taken;
	unsigned refused;    /* messages, by OUT_OF_QUOTA and ACCOUNT_LOCKED */
	unsigned barren;     /* sessions that ended without a MAIL */
	unsigned greylisted; /* refusals; and whether anybody has passed, so that the relay may have learnt */
	bool has_let_through;
};

struct world {
	const struct sim_clock *clock;
	struct rng_seeded rng;
	struct loop *loop;
	struct net *net;
	struct ledger *ledger;
	struct domain *domains;
	unsigned domain_count;
	struct list peers, pending_sockets, questions;
	unsigned connections, connections_most;
	unsigned connections_max, per_destination_max; /* what the relay has promised */
	uint16_t port;				       /* 25; with relayhosts 587 */
	bool is_even;				       /* no host or name server is quicker than another */
	bool is_roomy;				       /* there are connections enough */
	bool checks_returns;			       /* greylisted recipients must be back in time */
	struct dns_transport transport;
};

struct world *world_new(const struct sim_clock *clock, struct ledger *ledger, uint64_t seed, unsigned domain_count);
void world_free(struct world **world);
/* Gives domain `number` its behaviour; the details come from the seed. */
void world_make_domain(struct world *world, unsigned number, enum behaviour behaviour);
struct net_connector world_connector(struct world *world);
/* All together, when the relay has had its turn: QUIT goes out at a turn's end. */
void world_check_connections(struct world *world);
/* The relay goes down, or breaks off what is under way: what is still taken in these sessions, it cannot know. */
void world_orphan_peers(struct world *world);
/* The relay may have forgotten what went out in the last seconds. */
void world_forgive_meters(struct world *world);
/* Nobody waits for answers any more. */
void world_forget_questions(struct world *world);

/* ---- between the files of the world ---- */

/* dns.c */
void world_ask(void *ctx, struct dns *dns, uint64_t token, const char *name, uint16_t type);
/* Is it in the half of its period in which it works? */
bool domain_is_up(const struct domain *domain);

/* peer.c */
enum stage { AT_GREETING, AT_EHLO, AT_STARTTLS, AT_MAIL, AT_RCPT, AT_DATA, AT_DOT, AT_RSET, AT_QUIT, STAGE_KINDS };

enum { PEER_RCPTS_MAX = 200 };

struct peer {
	struct world *world;
	struct host *host;
	struct list node; /* in world->peers */
	struct stream *stream;
	timer_id timer;
	struct buf in, content;
	enum { READ_COMMAND, READ_DATA, READ_CHUNK } reading;
	size_t chunk_left, scanned;
	bool chunk_is_last;
	bool is_busy;	 /* a reply is under way */
	bool is_counted; /* the relay uses it */
	bool is_orphan;	 /* the relay at the other end is gone, or has been made to break off */
	bool has_ended;	 /* the other end has hung up */
	bool is_dead;
	struct say *saying; /* with is_busy; NULL: silence */

	unsigned mails; /* in this session */
	bool has_mail;
	int64_t mail_ms; /* when it came */
	char sender[64];
	unsigned rcpt_count;
	char rcpts[PEER_RCPTS_MAX][48];
};
void peer_new(struct world *world, struct host *host, int fd);
void peer_free_all(struct world *world);

/* behaviour.c: changes what a well-behaved host would say. */
struct say {
	char text[600];	  /* lines with CRLF */
	unsigned repeat;  /* the text is said so many times; 0: once */
	const char *tail; /* static, said once behind it */
	int64_t delay_ms;
	enum { SAY, SAY_AND_CLOSE, CLOSE, SILENCE } how;
	bool takes; /* AT_DOT: the message is taken, whatever is said */
};
void behave(struct peer *peer, enum stage stage, const char *argument, struct say *say);
/* A recipient is there: whoever is greylisted may have had to wait for the others. */
void behave_at_return(const struct domain *domain, struct truth_rcpt *rcpt);
/* True: the connection is refused (then *silent false) or never answered. */
bool behave_at_connect(struct host *host, bool *silent);
void behaviour_fill_domain(struct domain *domain, struct rng *rng);

#endif
