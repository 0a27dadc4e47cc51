#include "dns/mx.h"

#include "base/base.h"
#include "base/idna.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

enum { STATIC_TTL_MS = 3600 * 1000 };

/* A host of the MX set on its way to a mx_host. */
struct candidate {
	struct lookup *lookup;
	char *name;
	uint16_t preference;
	uint64_t order;	 /* at random, among equals */
	uint64_t query;	 /* 0: not asked, or answered */
	bool is_own;	 /* has an address of ours */
	bool is_refused; /* has addresses, all of them where no mail may go */
	bool is_temporary;
	struct mx_host host; /* with its own copies */
	int64_t expires_at_ms;
};

struct own {
	char **names;
	size_t name_count;
	struct dns_address *addresses;
	size_t address_count;
};

struct lookup {
	uint64_t id;
	struct mx *mx;
	mx_cb *cb;
	void *ctx;
	uint64_t mx_query;
	struct candidate *candidates; /* best first */
	size_t candidate_count;
	size_t tried_count; /* from the front: resolved, or on their way */
	size_t pending;	    /* on their way */
	size_t set_count;   /* all hosts of the MX set */
	bool has_own_host;  /* something was left out because of us */
	struct mx_result *result;
	timer_id timer; /* the turn in which a result without a question is told */
	UT_hash_handle hh;
};

struct mx {
	struct dns *dns;
	struct resolver *resolver;
	struct timers *timers;
	const struct clock *clock;
	struct rng *rng;
	struct resolver_options resolver_options;
	bool allow_loopback;
	struct own own;
	struct lookup *lookups;
	uint64_t last_id;
};

const char *mx_status_name(enum mx_status status)
{
	static const char *const names[] = {"ok", "no-domain", "null-mx", "unresolved", "loop", "temporary"};

	return status <= MX_TEMPORARY ? names[status] : "unknown";
}

const char *mx_status_enhanced(enum mx_status status)
{
	static const char *const codes[] = {"", "5.1.2", "5.1.10", "5.4.4", "5.4.6", "4.4.3"};

	return status <= MX_TEMPORARY ? codes[status] : "";
}

bool mx_domain_to_ascii(struct slice domain, char *out)
{
	char normalized[DNS_NAME_MAX + 1];
	struct buf ascii;
	bool is_good;

	out[0] = '\0';
	buf_init(&ascii, DNS_HOST_MAX + 1);
	is_good = domain.len > 0 && idna_append_ascii(&ascii, domain) &&
		  dns_name_normalize(buf_slice(&ascii), normalized) && dns_name_is_host(normalized);
	buf_fini(&ascii);
	if (is_good)
		memcpy(out, normalized, strlen(normalized) + 1);
	return is_good;
}

static void free_own(struct own *own)
{
	for (size_t i = 0; i < own->name_count; i++)
		free(own->names[i]);
	free(own->names);
	free(own->addresses);
	*own = (struct own){0};
}

void mx_configure(struct mx *mx, const struct mx_options *options)
{
	char name[DNS_NAME_MAX + 1];
	struct own *own = &mx->own;

	free_own(own);
	own->names = xcalloc(options->own_name_count + 1, sizeof(*own->names));
	for (size_t i = 0; i < options->own_name_count; i++)
		if (dns_name_normalize(slice_of_str(options->own_names[i]), name) && name[0])
			own->names[own->name_count++] = xstrdup(name);
	own->addresses = xcalloc(options->own_address_count + 1, sizeof(*own->addresses));
	own->address_count = options->own_address_count;
	if (own->address_count)
		memcpy(own->addresses, options->own_addresses, own->address_count * sizeof(*own->addresses));
	mx->resolver_options.ip = options->ip;
	mx->allow_loopback = options->allow_loopback;
}

struct mx *mx_new(struct dns *dns, struct resolver *resolver, struct timers *timers, const struct clock *clock,
		  struct rng *rng, const struct mx_options *options)
{
	struct mx *mx = xcalloc(1, sizeof(*mx));

	mx->dns = dns;
	mx->resolver = resolver;
	mx->timers = timers;
	mx->clock = clock;
	mx->rng = rng;
	mx_configure(mx, options);
	return mx;
}

static void free_host(struct mx_host *host)
{
	free((char *)(uintptr_t)host->name);
	free((char *)(uintptr_t)host->canonical);
	free((struct dns_address *)(uintptr_t)host->addresses);
}

void mx_result_free(struct mx_result **result)
{
	if (!*result)
		return;
	for (size_t i = 0; i < (*result)->host_count; i++)
		free_host((struct mx_host *)(uintptr_t) & (*result)->hosts[i]);
	free((struct mx_host *)(uintptr_t)(*result)->hosts);
	free(*result);
	*result = NULL;
}

static void free_lookup(struct lookup *lookup)
{
	struct mx *mx = lookup->mx;

	HASH_DEL(mx->lookups, lookup);
	timers_cancel(mx->timers, &lookup->timer);
	dns_cancel(mx->dns, &lookup->mx_query);
	for (size_t i = 0; i < lookup->candidate_count; i++) {
		resolver_cancel(mx->resolver, &lookup->candidates[i].query);
		free(lookup->candidates[i].name);
		free_host(&lookup->candidates[i].host);
	}
	free(lookup->candidates);
	mx_result_free(&lookup->result);
	free(lookup);
}

void mx_free(struct mx **mx)
{
	struct lookup *lookup, *next;

	if (!*mx)
		return;
	HASH_ITER(hh, (*mx)->lookups, lookup, next)
	free_lookup(lookup);
	free_own(&(*mx)->own);
	free(*mx);
	*mx = NULL;
}

void mx_cancel(struct mx *mx, uint64_t *id)
{
	struct lookup *lookup;

	HASH_FIND(hh, mx->lookups, id, sizeof(*id), lookup);
	*id = 0;
	if (lookup)
		free_lookup(lookup);
}

/* The lookup's end: the result goes to the caller. */
static void finish(struct lookup *lookup)
{
	struct mx_result *result = lookup->result;
	mx_cb *cb = lookup->cb;
	void *ctx = lookup->ctx;

	lookup->result = NULL;
	free_lookup(lookup);
	cb(ctx, result);
}

static void __attribute__((format(printf, 3, 4)))
set_status(struct lookup *lookup, enum mx_status status, const char *format, ...)
{
	struct mx_result *result = lookup->result;
	va_list args;

	result->status = status;
	va_start(args, format);
	vsnprintf(result->text, sizeof(result->text), format, args);
	va_end(args);
}

static bool is_own_name(const struct mx *mx, const char *name)
{
	for (size_t i = 0; i < mx->own.name_count; i++)
		if (strcmp(mx->own.names[i], name) == 0)
			return true;
	return false;
}

/* Loopback addresses are everybody's: whether mail may go there is another question. */
static bool is_own_address(const struct mx *mx, const struct dns_address *address)
{
	for (size_t i = 0; i < mx->own.address_count; i++)
		if (dns_address_eq(&mx->own.addresses[i], address))
			return dns_address_kind(address) != DNS_ADDRESS_LOOPBACK;
	return false;
}

static bool may_connect(const struct mx *mx, const struct dns_address *address)
{
	switch (dns_address_kind(address)) {
	case DNS_ADDRESS_GLOBAL: return true;
	case DNS_ADDRESS_LOOPBACK: return mx->allow_loopback;
	default: return false;
	}
}

static int by_name(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->preference > y->preference) - (x->preference < y->preference);
}

static int by_preference(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->preference != y->preference)
		return x->preference < y->preference ? -1 : 1;
	return (x->order > y->order) - (x->order < y->order);
}

/* All candidates from this preference on are no better than we are. */
static void cut_from_preference(struct lookup *lookup, uint16_t preference)
{
	size_t keep = 0;

	while (keep < lookup->candidate_count && lookup->candidates[keep].preference < preference)
		keep++;
	for (size_t i = keep; i < lookup->candidate_count; i++) {
		resolver_cancel(lookup->mx->resolver, &lookup->candidates[i].query);
		free(lookup->candidates[i].name);
		free_host(&lookup->candidates[i].host);
	}
	lookup->candidate_count = keep;
	lookup->tried_count = MIN(lookup->tried_count, keep);
	lookup->has_own_host = true;
}

/* Each host once, with its best preference; best first, at random among equals. */
static void sort_candidates(struct lookup *lookup)
{
	struct candidate *c = lookup->candidates;
	size_t count = 0;

	qsort(c, lookup->candidate_count, sizeof(*c), by_name);
	for (size_t i = 0; i < lookup->candidate_count; i++) {
		if (count > 0 && strcmp(c[count - 1].name, c[i].name) == 0)
			free(c[i].name);
		else
			c[count++] = c[i];
	}
	lookup->set_count -= lookup->candidate_count - count; /* the doubles */
	lookup->candidate_count = count;
	qsort(c, count, sizeof(*c), by_preference);
	for (size_t i = 0; i < count; i++) {
		if (is_own_name(lookup->mx, c[i].name)) {
			cut_from_preference(lookup, c[i].preference);
			return;
		}
	}
}

static void add_candidate(struct lookup *lookup, const char *name, uint16_t preference)
{
	struct candidate *candidate = &lookup->candidates[lookup->candidate_count++];

	*candidate = (struct candidate){.lookup = lookup,
					.name = xstrdup(name),
					.preference = preference,
					.order = rng_u64(lookup->mx->rng),
					.expires_at_ms = INT64_MAX};
}

/* Copies what may be connected to; the order stays. */
static void keep_addresses(struct candidate *candidate, const struct resolver_result *found)
{
	const struct mx *mx = candidate->lookup->mx;
	struct dns_address *addresses = xcalloc(found->address_count, sizeof(*addresses));
	size_t count = 0;

	for (size_t i = 0; i < found->address_count; i++) {
		if (is_own_address(mx, &found->addresses[i]))
			candidate->is_own = true;
		else if (may_connect(mx, &found->addresses[i]))
			addresses[count++] = found->addresses[i];
	}
	candidate->is_refused = count == 0;
	candidate->host = (struct mx_host){.name = xstrdup(candidate->name),
					   .canonical = xstrdup(found->canonical),
					   .preference = candidate->preference,
					   .secure = found->secure,
					   .addresses = addresses,
					   .address_count = count};
	candidate->expires_at_ms = found->expires_at_ms;
}

static void resolve_next(struct lookup *lookup);

static void on_addresses(void *ctx, const struct resolver_result *found)
{
	struct candidate *candidate = ctx;
	struct lookup *lookup = candidate->lookup;

	candidate->query = 0;
	candidate->is_temporary = found->status == DNS_TEMPORARY;
	if (found->status == DNS_OK)
		keep_addresses(candidate, found);
	if (--lookup->pending == 0)
		resolve_next(lookup);
}

static void cut_own_addresses(struct lookup *lookup)
{
	for (size_t i = 0; i < lookup->tried_count; i++) {
		if (lookup->candidates[i].is_own) {
			cut_from_preference(lookup, lookup->candidates[i].preference);
			return;
		}
	}
}

static bool has_usable_host(const struct lookup *lookup)
{
	for (size_t i = 0; i < lookup->tried_count; i++)
		if (lookup->candidates[i].host.address_count > 0)
			return true;
	return false;
}

/* Moves the hosts that have addresses into the result. */
static void take_hosts(struct lookup *lookup)
{
	struct mx_result *result = lookup->result;
	struct mx_host *hosts = xcalloc(lookup->tried_count, sizeof(*hosts));
	size_t room = MX_ADDRESSES_MAX;

	result->hosts = hosts;
	for (size_t i = 0; i < lookup->tried_count; i++) {
		struct candidate *candidate = &lookup->candidates[i];
		struct mx_host *host = &candidate->host;

		host->address_count = MIN(host->address_count, room);
		if (host->address_count == 0)
			continue;
		room -= host->address_count;
		result->expires_at_ms = MIN(result->expires_at_ms, candidate->expires_at_ms);
		hosts[result->host_count++] = *host;
		*host = (struct mx_host){0};
	}
	result->hosts_left_out = lookup->set_count - result->host_count;
}

static const char *address_words(const struct mx *mx)
{
	switch (mx->resolver_options.ip) {
	case DNS_IP_4: return "an IPv4 address";
	case DNS_IP_6: return "an IPv6 address";
	default: return "an address";
	}
}

/* No host has an address that may be used. Why not? What leaves hope counts most. */
static void explain(struct lookup *lookup)
{
	struct mx_result *result = lookup->result;
	bool is_temporary = false, is_refused = lookup->has_own_host;

	for (size_t i = 0; i < lookup->tried_count; i++) {
		is_temporary = is_temporary || lookup->candidates[i].is_temporary;
		is_refused = is_refused || lookup->candidates[i].is_refused;
	}
	if (is_temporary)
		set_status(lookup, MX_TEMPORARY, "the addresses of the mail hosts of %s cannot be looked up now",
			   result->domain);
	else if (lookup->has_own_host)
		set_status(lookup, MX_LOOP, "mail for %s loops back to this host: it is its own best mail host",
			   result->domain);
	else if (is_refused)
		set_status(lookup, MX_LOOP, "%s has no mail host but at loopback or other unusable addresses",
			   result->domain);
	else if (result->is_implicit)
		set_status(lookup, MX_NO_DOMAIN, "%s has neither mail hosts (MX) nor %s", result->domain,
			   address_words(lookup->mx));
	else
		set_status(lookup, MX_UNRESOLVED, "none of the mail hosts of %s (%zu) has %s", result->domain,
			   lookup->set_count, address_words(lookup->mx));
}

/* The next hosts, until one has an address or there are no more. */
static void resolve_next(struct lookup *lookup)
{
	struct mx *mx = lookup->mx;
	size_t end;

	cut_own_addresses(lookup);
	if (has_usable_host(lookup)) {
		take_hosts(lookup);
		finish(lookup);
		return;
	}
	end = MIN(lookup->candidate_count, MIN(lookup->tried_count + MX_HOSTS_AT_ONCE, MX_HOSTS_TRIED));
	lookup->pending = end - lookup->tried_count;
	if (lookup->pending == 0) {
		explain(lookup);
		finish(lookup);
		return;
	}
	for (; lookup->tried_count < end; lookup->tried_count++) {
		struct candidate *candidate = &lookup->candidates[lookup->tried_count];
		candidate->query =
		    resolver_lookup(mx->resolver, candidate->name, &mx->resolver_options, on_addresses, candidate);
	}
}

static bool is_null_mx(const struct dns_answer *answer)
{
	for (size_t i = 0; i < answer->record_count; i++)
		if (answer->records[i].mx.host[0])
			return false;
	return true;
}

/* Names that no host can have, IPv4 addresses among them, are left out here: they must not reach a resolver that would
 * make up an answer. A "." beside other records is a mistake (RFC 7505 section 3). */
static void take_mx_records(struct lookup *lookup, const struct dns_answer *answer)
{
	lookup->set_count = answer->record_count;
	lookup->candidates = xcalloc(answer->record_count, sizeof(*lookup->candidates));
	for (size_t i = 0; i < answer->record_count; i++)
		if (dns_name_is_host(answer->records[i].mx.host))
			add_candidate(lookup, answer->records[i].mx.host, answer->records[i].mx.preference);
	sort_candidates(lookup);
	resolve_next(lookup);
}

static void take_implicit_mx(struct lookup *lookup)
{
	lookup->result->is_implicit = true;
	lookup->set_count = 1;
	lookup->candidates = xcalloc(1, sizeof(*lookup->candidates));
	add_candidate(lookup, lookup->result->domain, 0);
	sort_candidates(lookup);
	resolve_next(lookup);
}

static void on_mx(void *ctx, const struct dns_answer *answer)
{
	struct lookup *lookup = ctx;
	struct mx_result *result = lookup->result;

	lookup->mx_query = 0;
	result->mx_secure = answer->ad;
	result->expires_at_ms = answer->expires_at_ms;
	switch (answer->status) {
	case DNS_OK:
		if (!is_null_mx(answer)) {
			take_mx_records(lookup, answer);
			return;
		}
		set_status(lookup, MX_NULL, "%s takes no mail (null MX)", result->domain);
		break;
	case DNS_NODATA: take_implicit_mx(lookup); return;
	case DNS_NXDOMAIN: set_status(lookup, MX_NO_DOMAIN, "the domain %s does not exist", result->domain); break;
	case DNS_TEMPORARY:
		set_status(lookup, MX_TEMPORARY, "the mail hosts of %s cannot be looked up now: %s", result->domain,
			   answer->reason);
		break;
	}
	finish(lookup);
}

static void on_ready(void *ctx)
{
	struct lookup *lookup = ctx;

	lookup->timer = 0;
	finish(lookup);
}

static void take_literal(struct lookup *lookup, struct slice text, const struct dns_address *address)
{
	struct mx_result *result = lookup->result;
	const struct mx *mx = lookup->mx;
	struct mx_host *host;
	struct dns_address *copy;

	result->is_literal = true;
	slice_to_cstr(text, result->domain, sizeof(result->domain));
	if (is_own_address(mx, address) || !may_connect(mx, address)) {
		set_status(lookup, MX_LOOP, "%s is this host, or an address where no mail may go", result->domain);
		return;
	}
	copy = xcalloc(1, sizeof(*copy));
	*copy = *address;
	host = xcalloc(1, sizeof(*host));
	*host = (struct mx_host){.name = xstrdup(result->domain),
				 .canonical = xstrdup(result->domain),
				 .addresses = copy,
				 .address_count = 1};
	result->hosts = host;
	result->host_count = 1;
	result->expires_at_ms = clock_mono_ms(mx->clock) + STATIC_TTL_MS;
}

/* True: there is something to ask. Otherwise the result is there. */
static bool begin(struct lookup *lookup, struct slice domain)
{
	struct dns_address address;

	if (domain.len && domain.ptr[0] == '[') {
		if (dns_address_parse_literal(domain, &address))
			take_literal(lookup, domain, &address);
		else
			set_status(lookup, MX_NO_DOMAIN, "not a valid address literal");
		return false;
	}
	if (mx_domain_to_ascii(domain, lookup->result->domain))
		return true;
	set_status(lookup, MX_NO_DOMAIN,
		   dns_address_parse(domain, &address) ? "an IP address must stand in brackets" : "not a domain name");
	return false;
}

uint64_t mx_lookup(struct mx *mx, const char *domain, mx_cb *cb, void *ctx)
{
	struct lookup *lookup = xcalloc(1, sizeof(*lookup));
	uint64_t id = ++mx->last_id;

	lookup->id = id;
	lookup->mx = mx;
	lookup->cb = cb;
	lookup->ctx = ctx;
	lookup->result = xcalloc(1, sizeof(*lookup->result));
	lookup->result->expires_at_ms = clock_mono_ms(mx->clock);
	HASH_ADD(hh, mx->lookups, id, sizeof(lookup->id), lookup);
	if (begin(lookup, slice_of_str(domain)))
		lookup->mx_query = dns_query(mx->dns, lookup->result->domain, DNS_MX, on_mx, lookup);
	else
		lookup->timer = timers_add(mx->timers, clock_mono_ms(mx->clock), on_ready, lookup);
	return id;
}
