#include "relayd/tls_lookup.h"

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

/* A host and the question that is open about it. */
struct host {
	struct tls_lookup *lookup;
	char *name, *canonical; /* canonical NULL: the same, or it has no records */
	bool is_secure;
	uint64_t query; /* 0: none */
	struct tls_facts facts;
};

struct tls_lookup {
	struct tls_sources sources;
	struct tls_lookup_question question;
	char *next_hop;
	struct host **hosts;
	size_t count;
	uint64_t sts_lookup; /* 0: none, or answered */
	enum mta_sts_answer sts_answer;
	struct mta_sts_policy *sts;
	size_t pending;	   /* questions on the way */
	tls_lookup_cb *cb; /* NULL: not started */
	void *ctx;
	timer_id timer; /* the turn in which the end is told when nothing had to be asked */
};

static void finish_if_done(struct tls_lookup *lookup);

static void on_sts(void *ctx, enum mta_sts_answer answer, struct mta_sts_policy *policy)
{
	struct tls_lookup *lookup = ctx;

	lookup->sts_lookup = 0;
	lookup->sts_answer = answer;
	lookup->sts = policy ? mta_sts_policy_ref(policy) : NULL;
	lookup->pending--;
	finish_if_done(lookup);
}

struct tls_lookup *tls_lookup_new(const struct tls_sources *sources, const struct tls_lookup_question *question)
{
	struct tls_lookup *lookup = xcalloc(1, sizeof(*lookup));

	lookup->sources = *sources;
	lookup->question = *question;
	lookup->next_hop = question->next_hop ? xstrdup(question->next_hop) : NULL;
	lookup->sts_answer = MTA_STS_ABSENT;
	if (question->wants_sts && sources->mta_sts && question->next_hop && question->next_hop[0] != '[') {
		lookup->pending++;
		lookup->sts_lookup = mta_sts_lookup(sources->mta_sts, question->next_hop, on_sts, lookup);
	}
	return lookup;
}

static void free_host(struct host *host)
{
	dns_cancel(host->lookup->sources.dns, &host->query);
	dns_answer_unref(&host->facts.tlsa);
	free(host->name);
	free(host->canonical);
	free(host);
}

void tls_lookup_free(struct tls_lookup **lookup)
{
	struct tls_lookup *l = *lookup;

	*lookup = NULL;
	if (!l)
		return;
	timers_cancel(l->sources.timers, &l->timer);
	if (l->sts_lookup)
		mta_sts_cancel(l->sources.mta_sts, &l->sts_lookup);
	mta_sts_policy_unref(&l->sts);
	for (size_t i = 0; i < l->count; i++)
		free_host(l->hosts[i]);
	free(l->hosts);
	free(l->next_hop);
	free(l);
}

/* A name as certificates have it. */
static char *without_dot(const char *name)
{
	size_t len = strlen(name);

	return xmemdup(name, len > 0 && name[len - 1] == '.' ? len - 1 : len);
}

size_t tls_lookup_add_host(struct tls_lookup *lookup, const struct tls_lookup_host *what)
{
	struct host *host = xcalloc(1, sizeof(*host));

	host->lookup = lookup;
	host->name = without_dot(what->name);
	host->canonical = what->canonical && strcmp(what->canonical, host->name) != 0 ? xstrdup(what->canonical) : NULL;
	host->is_secure = what->is_name_secure && what->is_secure;
	host->facts = (struct tls_facts){.host = host->name,
					 .next_hop = lookup->next_hop,
					 .is_name_secure = what->is_name_secure,
					 .is_resolver_trusted = dns_is_trusted(lookup->sources.dns)};
	lookup->hosts = xreallocarray(lookup->hosts, lookup->count + 1, sizeof(struct host *));
	lookup->hosts[lookup->count] = host;
	return lookup->count++;
}

static void judge_by_sts(const struct tls_lookup *lookup, struct tls_facts *facts)
{
	if (!lookup->sts) {
		facts->sts = lookup->sts_answer == MTA_STS_UNKNOWN ? TLS_STS_UNKNOWN : TLS_STS_NONE;
		return;
	}
	facts->sts_lists_host = mta_sts_policy_lists(lookup->sts, facts->host);
	switch (lookup->sts->mode) {
	case MTA_STS_NONE: facts->sts = TLS_STS_NONE; break;
	case MTA_STS_TESTING: facts->sts = TLS_STS_TESTING; break;
	case MTA_STS_ENFORCE: facts->sts = TLS_STS_ENFORCE; break;
	}
}

/* The last thing that happens: the callback may free the lookup. */
static void finish_if_done(struct tls_lookup *lookup)
{
	if (lookup->pending > 0 || !lookup->cb || lookup->timer)
		return;
	for (size_t i = 0; i < lookup->count; i++) {
		struct tls_facts *facts = &lookup->hosts[i]->facts;

		judge_by_sts(lookup, facts);
		facts->is_remembered = lookup->sources.memory &&
				       tls_memory_expects(lookup->sources.memory, facts->host, lookup->question.port);
	}
	lookup->cb(lookup->ctx);
}

/* ---- TLSA ---- */

static void ask_for_records(struct host *host, const char *base);

static void take_records(struct host *host, const struct dns_answer *answer)
{
	host->facts.tlsa = dns_answer_ref(answer);
	host->facts.dane = answer->status == DNS_TEMPORARY ? TLS_DANE_BROKEN : TLS_DANE_RECORDS;
	host->facts.why = answer->reason;
	host->facts.base = host->canonical ? host->canonical : host->name;
}

static void on_records(void *ctx, const struct dns_answer *answer)
{
	struct host *host = ctx;
	struct tls_lookup *lookup = host->lookup;

	host->query = 0;
	lookup->pending--;
	if (answer->status == DNS_TEMPORARY || (answer->status == DNS_OK && answer->ad)) {
		take_records(host, answer);
	} else if (host->canonical) {
		free(host->canonical);
		host->canonical = NULL;
		ask_for_records(host, host->name);
	}
	finish_if_done(lookup);
}

static void ask_for_records(struct host *host, const char *base)
{
	char name[DNS_NAME_MAX + 32];

	snprintf(name, sizeof(name), "_%u._tcp.%s", host->lookup->question.port, base);
	host->lookup->pending++;
	host->query = dns_query(host->lookup->sources.dns, name, DNS_TLSA, on_records, host);
}

/* ---- all together ---- */

static void on_ready(void *ctx)
{
	struct tls_lookup *lookup = ctx;

	lookup->timer = 0;
	finish_if_done(lookup);
}

void tls_lookup_start(struct tls_lookup *lookup, tls_lookup_cb *cb, void *ctx)
{
	lookup->cb = cb;
	lookup->ctx = ctx;
	for (size_t i = 0; i < lookup->count; i++) {
		struct host *host = lookup->hosts[i];
		if (lookup->question.wants_dane && host->is_secure)
			ask_for_records(host, host->canonical ? host->canonical : host->name);
	}
	if (lookup->pending == 0)
		timers_set(lookup->sources.timers, &lookup->timer, clock_mono_ms(lookup->sources.clock), on_ready,
			   lookup);
}

const struct tls_facts *tls_lookup_facts(const struct tls_lookup *lookup, size_t host)
{
	return &lookup->hosts[host]->facts;
}
