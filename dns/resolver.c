#include "dns/resolver.h"

#include "base/base.h"
#include "dns/hosts_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

enum {
	NAMES_MAX = 10,		   /* as it stands, and with each domain of the search list */
	GRACE_MS = 1000,	   /* how long addresses of one family wait for the other's answer */
	STATIC_TTL_MS = 30 * 1000, /* of what did not come from DNS */
	FAMILIES = 2,
};

struct lookup {
	uint64_t id;
	struct resolver *resolver;
	resolver_cb *cb;
	void *ctx;
	struct resolver_options options;
	char *names[NAMES_MAX];
	size_t name_count, name_index;
	/* [0] A, [1] AAAA; a query that is not wanted, or has been answered, is 0. */
	uint64_t queries[FAMILIES];
	const struct dns_answer *answers[FAMILIES];
	char plain[DNS_NAME_MAX + 1]; /* the name normalized; "" when it is none */
	/* Of the names tried so far. */
	bool saw_temporary, saw_nodata;
	char words[128]; /* the first temporary failure */
	struct resolver_result result;
	bool is_finishing;
	timer_id timer; /* the grace, or the turn in which an answer without DNS is told */
	UT_hash_handle hh;
};

struct resolver {
	struct dns *dns;
	struct timers *timers;
	const struct clock *clock;
	struct rng *rng;
	const char *hosts_file;
	struct lookup *lookups;
	uint64_t last_id;
};

struct resolver *resolver_new(struct dns *dns, struct timers *timers, const struct clock *clock, struct rng *rng,
			      const char *hosts_file)
{
	struct resolver *resolver = xcalloc(1, sizeof(*resolver));

	*resolver = (struct resolver){.dns = dns,
				      .timers = timers,
				      .clock = clock,
				      .rng = rng,
				      .hosts_file = hosts_file ? hosts_file : "/etc/hosts"};
	return resolver;
}

static void free_lookup(struct lookup *lookup)
{
	struct resolver *resolver = lookup->resolver;

	if (!lookup->is_finishing)
		HASH_DEL(resolver->lookups, lookup);
	timers_cancel(resolver->timers, &lookup->timer);
	for (int i = 0; i < FAMILIES; i++) {
		dns_cancel(resolver->dns, &lookup->queries[i]);
		dns_answer_unref(&lookup->answers[i]);
	}
	for (size_t i = 0; i < lookup->name_count; i++)
		free(lookup->names[i]);
	free(lookup);
}

void resolver_free(struct resolver **resolver)
{
	struct lookup *lookup, *next;

	if (!*resolver)
		return;
	HASH_ITER(hh, (*resolver)->lookups, lookup, next)
	free_lookup(lookup);
	free(*resolver);
	*resolver = NULL;
}

void resolver_cancel(struct resolver *resolver, uint64_t *id)
{
	struct lookup *lookup;

	HASH_FIND(hh, resolver->lookups, id, sizeof(*id), lookup);
	*id = 0;
	if (lookup)
		free_lookup(lookup);
}

/* Calls back with the result, and is the lookup's end. It is out of the map by then, so that a cancel from the callback
 * finds nothing. */
static void finish(struct lookup *lookup)
{
	HASH_DEL(lookup->resolver->lookups, lookup);
	lookup->is_finishing = true;
	lookup->cb(lookup->ctx, &lookup->result);
	free_lookup(lookup);
}

static void shuffle(struct rng *rng, struct dns_address *addresses, size_t count)
{
	for (size_t i = count; i > 1; i--) {
		size_t j = rng_below(rng, i);
		struct dns_address swap = addresses[i - 1];

		addresses[i - 1] = addresses[j];
		addresses[j] = swap;
	}
}

/* A random choice of an answer's addresses, at most RESOLVER_ADDRESSES_MAX. */
static size_t draw(struct rng *rng, const struct dns_answer *answer, struct dns_address *out)
{
	size_t count = 0;

	for (size_t i = 0; answer && answer->status == DNS_OK && i < answer->record_count; i++) {
		if (count < RESOLVER_ADDRESSES_MAX) {
			out[count++] = answer->records[i].address;
			continue;
		}
		size_t at = rng_below(rng, i + 1);
		if (at < RESOLVER_ADDRESSES_MAX)
			out[at] = answer->records[i].address;
	}
	shuffle(rng, out, count);
	return count;
}

static void add_address(struct resolver_result *result, const struct dns_address *address)
{
	for (size_t i = 0; i < result->address_count; i++)
		if (dns_address_eq(&result->addresses[i], address))
			return;
	if (result->address_count < RESOLVER_ADDRESSES_MAX)
		result->addresses[result->address_count++] = *address;
}

/* PREFER4 takes no more than all but two places from IPv4, so that a host is reachable although all of it is dead. */
static void merge(struct resolver_result *result, enum dns_ip ip, const struct dns_address *v4, size_t v4_count,
		  const struct dns_address *v6, size_t v6_count)
{
	if (ip == DNS_IP_ANY) {
		for (size_t i = 0; i < MAX(v4_count, v6_count); i++) {
			if (i < v6_count)
				add_address(result, &v6[i]);
			if (i < v4_count)
				add_address(result, &v4[i]);
		}
		return;
	}
	v4_count = MIN(v4_count, RESOLVER_ADDRESSES_MAX - MIN(v6_count, 2));
	for (size_t i = 0; i < v4_count; i++)
		add_address(result, &v4[i]);
	for (size_t i = 0; i < v6_count; i++)
		add_address(result, &v6[i]);
}

static void take_answers(struct lookup *lookup)
{
	struct resolver_result *result = &lookup->result;
	struct dns_address drawn[FAMILIES][RESOLVER_ADDRESSES_MAX];
	size_t counts[FAMILIES];

	result->secure = true;
	result->expires_at_ms = INT64_MAX;
	for (int i = 0; i < FAMILIES; i++) {
		const struct dns_answer *answer = lookup->answers[i];

		counts[i] = draw(lookup->resolver->rng, answer, drawn[i]);
		if (!answer || counts[i] == 0)
			continue;
		result->secure = result->secure && answer->ad;
		result->expires_at_ms = MIN(result->expires_at_ms, answer->expires_at_ms);
		result->canonical = answer->canonical;
	}
	merge(result, lookup->options.ip, drawn[0], counts[0], drawn[1], counts[1]);
	result->status = DNS_OK;
	result->reason = "";
}

static bool has_addresses(const struct dns_answer *answer)
{
	return answer && answer->status == DNS_OK;
}

/* No name had an address: the answer that leaves most hope counts. */
static void take_failure(struct lookup *lookup)
{
	struct resolver_result *result = &lookup->result;

	result->canonical = lookup->plain;
	result->secure = false;
	result->expires_at_ms = clock_mono_ms(lookup->resolver->clock);
	if (lookup->saw_temporary) {
		result->status = DNS_TEMPORARY;
		result->reason = lookup->words;
	} else if (lookup->saw_nodata) {
		result->status = DNS_NODATA;
		result->reason = lookup->options.ip == DNS_IP_4	  ? "it has no IPv4 address"
				 : lookup->options.ip == DNS_IP_6 ? "it has no IPv6 address"
								  : "it has no address";
	} else {
		result->status = DNS_NXDOMAIN;
		result->reason = "no such name";
	}
}

static void ask(struct lookup *lookup);

/* All that can be known about the name in turn is known: the end, or the next name. */
static void settle(struct lookup *lookup)
{
	timers_cancel(lookup->resolver->timers, &lookup->timer);
	if (has_addresses(lookup->answers[0]) || has_addresses(lookup->answers[1])) {
		take_answers(lookup);
		finish(lookup);
		return;
	}
	for (int i = 0; i < FAMILIES; i++) {
		const struct dns_answer *answer = lookup->answers[i];

		lookup->saw_nodata = lookup->saw_nodata || (answer && answer->status == DNS_NODATA);
		/* The reason must outlive the answer, which may go with the next name. */
		if (answer && answer->status == DNS_TEMPORARY && !lookup->saw_temporary) {
			lookup->saw_temporary = true;
			snprintf(lookup->words, sizeof(lookup->words), "%s", answer->reason);
		}
		dns_answer_unref(&lookup->answers[i]);
	}
	if (++lookup->name_index < lookup->name_count) {
		ask(lookup);
		return;
	}
	take_failure(lookup);
	finish(lookup);
}

static void on_grace_over(void *ctx)
{
	struct lookup *lookup = ctx;

	lookup->timer = 0;
	for (int i = 0; i < FAMILIES; i++)
		dns_cancel(lookup->resolver->dns, &lookup->queries[i]);
	settle(lookup);
}

static void on_answer(struct lookup *lookup, int family, const struct dns_answer *answer)
{
	struct resolver *resolver = lookup->resolver;

	lookup->queries[family] = 0;
	lookup->answers[family] = dns_answer_ref(answer);
	if (lookup->queries[0] == 0 && lookup->queries[1] == 0)
		settle(lookup);
	else if (answer->status == DNS_OK)
		timers_set(resolver->timers, &lookup->timer, clock_mono_ms(resolver->clock) + GRACE_MS, on_grace_over,
			   lookup);
}

static void on_a(void *ctx, const struct dns_answer *answer)
{
	on_answer(ctx, 0, answer);
}

static void on_aaaa(void *ctx, const struct dns_answer *answer)
{
	on_answer(ctx, 1, answer);
}

static void ask(struct lookup *lookup)
{
	const char *name = lookup->names[lookup->name_index];
	struct dns *dns = lookup->resolver->dns;

	if (lookup->options.ip != DNS_IP_6)
		lookup->queries[0] = dns_query(dns, name, DNS_A, on_a, lookup);
	if (lookup->options.ip != DNS_IP_4)
		lookup->queries[1] = dns_query(dns, name, DNS_AAAA, on_aaaa, lookup);
}

static void add_name(struct lookup *lookup, const char *name, const char *domain)
{
	char text[DNS_NAME_MAX + 1], normalized[DNS_NAME_MAX + 1];
	int len = snprintf(text, sizeof(text), "%s%s%s", name, domain ? "." : "", domain ? domain : "");

	if (len <= 0 || (size_t)len >= sizeof(text) || lookup->name_count == NAMES_MAX ||
	    !dns_name_normalize(slice_of_str(text), normalized))
		return;
	lookup->names[lookup->name_count++] = xstrdup(normalized);
}

/* As resolv.conf(5) says: a name with at least ndots dots is tried as it stands first, others last. */
static void list_names(struct lookup *lookup, const char *name)
{
	size_t count = 0, dots = 0, len = strlen(name);
	const char *const *domains = NULL;
	bool is_absolute = len > 0 && name[len - 1] == '.';
	int ndots = 1;

	if (lookup->options.is_configured_name && !is_absolute)
		domains = dns_search_list(lookup->resolver->dns, &count, &ndots);
	for (const char *c = name; *c; c++)
		dots += *c == '.';
	if (is_absolute || dots >= (size_t)ndots || count == 0)
		add_name(lookup, name, NULL);
	for (size_t i = 0; i < count; i++)
		add_name(lookup, name, domains[i]);
	if (!is_absolute && dots < (size_t)ndots && count > 0)
		add_name(lookup, name, NULL);
}

static void on_ready(void *ctx)
{
	struct lookup *lookup = ctx;

	lookup->timer = 0;
	finish(lookup);
}

/* The result is known; it is told in the next turn. */
static void post(struct lookup *lookup)
{
	struct resolver *resolver = lookup->resolver;

	lookup->timer = timers_add(resolver->timers, clock_mono_ms(resolver->clock), on_ready, lookup);
}

static bool is_below_localhost(const char *name)
{
	size_t len = strlen(name);

	return strcmp(name, "localhost") == 0 || (len > 10 && strcmp(name + len - 10, ".localhost") == 0);
}

static bool parse_plain_address(struct slice text, struct dns_address *out)
{
	if (text.len > 2 && text.ptr[0] == '[' && text.ptr[text.len - 1] == ']')
		text = slice_of(text.ptr + 1, text.len - 2);
	return dns_address_parse(text, out);
}

/* Addresses that did not come from DNS; of a family that the policy excludes only when there is no other. */
static void take_static(struct lookup *lookup, const struct dns_address *addresses, size_t count)
{
	struct resolver_result *result = &lookup->result;
	struct dns_address by_family[FAMILIES][RESOLVER_ADDRESSES_MAX];
	size_t counts[FAMILIES] = {0};
	enum dns_ip ip = lookup->options.ip;

	for (size_t i = 0; i < count; i++) {
		int family = addresses[i].family == DNS_IPV6;
		by_family[family][counts[family]++] = addresses[i];
	}
	if (ip == DNS_IP_4 && counts[0])
		counts[1] = 0;
	else if (ip == DNS_IP_6 && counts[1])
		counts[0] = 0;
	merge(result, ip, by_family[0], counts[0], by_family[1], counts[1]);
	result->canonical = lookup->plain;
	result->expires_at_ms = clock_mono_ms(lookup->resolver->clock) + STATIC_TTL_MS;
}

/* "192.0.2.1", "2001:db8::1", "[2001:db8::1]", names of /etc/hosts, and localhost in any case (RFC 6761 section 6.3).
 */
static bool find_without_dns(struct lookup *lookup, const char *name)
{
	struct dns_address found[RESOLVER_ADDRESSES_MAX];
	size_t count = 0;

	if (parse_plain_address(slice_of_str(name), &found[0]))
		count = 1;
	else if (lookup->plain[0])
		count = hosts_file_find(lookup->resolver->hosts_file, lookup->plain, found, ARRAY_LEN(found));
	if (count == 0 && is_below_localhost(lookup->plain)) {
		dns_address_parse(SLICE("127.0.0.1"), &found[count++]);
		dns_address_parse(SLICE("::1"), &found[count++]);
	}
	if (count)
		take_static(lookup, found, count);
	return count > 0;
}

uint64_t resolver_lookup(struct resolver *resolver, const char *name, const struct resolver_options *options,
			 resolver_cb *cb, void *ctx)
{
	struct lookup *lookup = xcalloc(1, sizeof(*lookup));
	uint64_t id = ++resolver->last_id;

	lookup->id = id;
	lookup->resolver = resolver;
	lookup->cb = cb;
	lookup->ctx = ctx;
	lookup->options = *options;
	lookup->result.reason = "";
	HASH_ADD(hh, resolver->lookups, id, sizeof(lookup->id), lookup);
	dns_name_normalize(slice_of_str(name), lookup->plain);
	if (options->is_configured_name && find_without_dns(lookup, name)) {
		post(lookup);
		return id;
	}
	if (lookup->plain[0])
		list_names(lookup, name);
	if (lookup->name_count) {
		ask(lookup);
		return id;
	}
	take_failure(lookup);
	post(lookup);
	return id;
}

bool resolver_format_curl(const struct resolver_result *result, const char *host, unsigned port, char *out, size_t size)
{
	int len = snprintf(out, size, "%s:%u:", host, port);

	for (size_t i = 0; i < result->address_count && len > 0 && (size_t)len < size; i++) {
		const struct dns_address *address = &result->addresses[i];
		char text[DNS_ADDRESS_TEXT];
		const char *separator = i ? "," : "";
		int n;

		dns_address_format(address, text);
		n = snprintf(out + len, size - (size_t)len, address->family == DNS_IPV6 ? "%s[%s]" : "%s%s", separator,
			     text);
		len = n < 0 ? -1 : len + n;
	}
	return result->address_count > 0 && len > 0 && (size_t)len < size;
}
