/* The DNS of the world: one resolver that knows everything, and now and then does not answer. */
#include "test/sim/world.h"

#include <stdio.h>
#include <stdlib.h>

enum { QR_RD_RA = 0x8180, RCODE_SERVFAIL = 2, RCODE_NXDOMAIN = 3, NO_ANSWER_MS = 14000 };

struct question {
	struct world *world;
	struct dns *dns;
	uint64_t token;
	char name[256];
	uint16_t type;
	struct list node;
	timer_id timer;
};

struct packet {
	uint8_t bytes[2048];
	size_t len;
};

static void put16(struct packet *p, unsigned value)
{
	p->bytes[p->len++] = (uint8_t)(value >> 8);
	p->bytes[p->len++] = (uint8_t)value;
}

static void put_name(struct packet *p, const char *name)
{
	while (*name) {
		const char *dot = strchrnul(name, '.');
		size_t len = (size_t)(dot - name);
		p->bytes[p->len++] = (uint8_t)len;
		memcpy(p->bytes + p->len, name, len);
		p->len += len;
		name = *dot ? dot + 1 : dot;
	}
	p->bytes[p->len++] = 0;
}

static void begin(struct packet *p, unsigned rcode, const char *name, uint16_t type)
{
	p->len = 0;
	put16(p, 0);
	put16(p, QR_RD_RA | rcode);
	put16(p, 1);
	put16(p, 0);
	put16(p, 0);
	put16(p, 0);
	put_name(p, name);
	put16(p, type);
	put16(p, 1);
}

/* The record's data follows; its length is put by end_record(). */
static size_t begin_record(struct packet *p, const char *owner, uint16_t type, uint32_t ttl)
{
	p->bytes[7]++; /* answers */
	put_name(p, owner);
	put16(p, type);
	put16(p, 1);
	put16(p, ttl >> 16);
	put16(p, ttl & 0xffff);
	put16(p, 0);
	return p->len;
}

static void end_record(struct packet *p, size_t data)
{
	size_t len = p->len - data;

	p->bytes[data - 2] = (uint8_t)(len >> 8);
	p->bytes[data - 1] = (uint8_t)len;
}

bool domain_is_up(const struct domain *domain)
{
	if (domain->period_ms == 0)
		return true;
	return domain->world->clock->mono % domain->period_ms < domain->period_ms / 2;
}

static void answer_mx(const struct domain *domain, struct packet *p)
{
	for (unsigned h = 0; domain->behaviour == NULL_MX ? h < 1 : h < domain->host_count; h++) {
		char host[64];
		size_t data = begin_record(p, domain->name, DNS_MX, domain->ttl_sec);
		/* The first two share a preference. */
		put16(p, domain->behaviour == NULL_MX ? 0 : h < 2 ? 10 : 10 * h);
		snprintf(host, sizeof(host), "mx%u.%s", h, domain->name);
		put_name(p, domain->behaviour == NULL_MX ? "" : host);
		end_record(p, data);
	}
}

static void answer_address(const struct host *host, const char *name, struct packet *p)
{
	size_t data = begin_record(p, name, DNS_A, host->domain->ttl_sec);

	p->bytes[p->len++] = 10;
	p->bytes[p->len++] = (uint8_t)(host->domain->number / 250);
	p->bytes[p->len++] = (uint8_t)(host->domain->number % 250);
	p->bytes[p->len++] = (uint8_t)host->number;
	end_record(p, data);
}

/* "d7.test", or "mx2.d7.test": *host is 2, else -1. */
static struct domain *find_domain(struct world *world, const char *name, int *host)
{
	unsigned number;
	int used = 0;

	if (sscanf(name, "mx%d.d%u.test%n", host, &number, &used) != 2 || used == 0) {
		*host = -1;
		if (sscanf(name, "d%u.test%n", &number, &used) != 1 || used == 0)
			return NULL;
	}
	return !name[used] && number < world->domain_count ? &world->domains[number] : NULL;
}

/* False: no answer comes. */
static bool compose(struct world *world, const struct question *q, struct packet *p)
{
	int number;
	struct domain *domain = find_domain(world, q->name, &number);

	if (!domain || domain->behaviour == NO_DOMAIN) {
		begin(p, RCODE_NXDOMAIN, q->name, q->type);
		return true;
	}
	if (domain->behaviour == DNS_DEAD || (domain->behaviour == DNS_FLAPPING && !domain_is_up(domain))) {
		begin(p, RCODE_SERVFAIL, q->name, q->type);
		return domain->variant % 2 == 0;
	}
	if (number >= 0 && (number >= HOSTS_MAX || domain->hosts[number].fault == HOST_NO_ADDRESS)) {
		begin(p, RCODE_NXDOMAIN, q->name, q->type);
		return true;
	}
	begin(p, 0, q->name, q->type);
	if (number < 0 && q->type == DNS_MX)
		answer_mx(domain, p);
	else if (number >= 0 && q->type == DNS_A)
		answer_address(&domain->hosts[number], q->name, p);
	return true;
}

static void end_question(struct question *q)
{
	timers_cancel(loop_timers(q->world->loop), &q->timer);
	list_remove(&q->node);
	free(q);
}

static void on_answer(void *ctx)
{
	struct question *q = ctx;
	struct packet p;
	bool answers = compose(q->world, q, &p);

	dns_transport_answer(q->dns, q->token, answers ? slice_of(p.bytes, p.len) : (struct slice){0});
	end_question(q);
}

void world_ask(void *ctx, struct dns *dns, uint64_t token, const char *name, uint16_t type)
{
	struct world *world = ctx;
	struct question *q = xcalloc(1, sizeof(*q));
	struct packet p;
	int64_t delay = sim_between(&world->rng.rng, 1, sim_chance(&world->rng.rng, 80) ? 40 : 400);

	*q = (struct question){.world = world, .dns = dns, .token = token, .type = type};
	snprintf(q->name, sizeof(q->name), "%s", name);
	list_append(&world->questions, &q->node);
	if (world->is_even)
		delay = 20;
	if (!compose(world, q, &p))
		delay = NO_ANSWER_MS; /* the resolver has tried them all, several times */
	q->timer = timers_add(loop_timers(world->loop), world->clock->mono + delay, on_answer, q);
}

void world_forget_questions(struct world *world)
{
	while (!list_is_empty(&world->questions))
		end_question(CONTAINER_OF(world->questions.next, struct question, node));
}
