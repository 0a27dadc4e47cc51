#include "dns/dns.h"

#include "base/base.h"
#include "base/list.h"
#include "dns/cache.h"
#include "dns/channel.h"

#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

enum {
	INFLIGHT_MAX = 256, /* but for the slow ones */
	SLOW_MAX = 2048,
	SLOW_MS = 2000, /* so long a server that works needs at the most */
	WAITING_MAX = 65536,
	FOLLOW_MAX = 8, /* aliases that the resolver left to us to follow */
	RCODE_FORMERR = 1,
};

/*
 * A question as it goes to the servers; equal ones share it.
 *
 * WAITING   in dns->waiting, until fewer than INFLIGHT_MAX are on the way
 * INFLIGHT  the transport has it; in dns->inflight, and after SLOW_MS in dns->slow: domains whose servers are silent
 *           take no place from others
 * ANSWERED  in dns->answered, until the next timers_run()
 *
 * It leaves the map of names with its answer, so that whoever asks after a callback asks anew.
 */
struct question {
	uint64_t token;
	struct list node;
	struct list requests;
	char *asking;		       /* the name on the way; another than the question's when following an alias */
	const struct dns_answer *head; /* the answer so far, which ended in an alias */
	struct dns_answer *answer;
	int follows;
	bool is_inflight, is_slow;
	int64_t sent_ms;
	bool was_retried; /* after FORMERR */
	UT_hash_handle by_token, by_key;
	uint16_t type;
	size_t key_len;
	char key[]; /* type, name, NUL */
};

struct request {
	uint64_t id;
	dns_cb *cb;
	void *ctx;
	struct list node; /* in question->requests, then in dns->done */
	const struct dns_answer *answer;
	struct question *question; /* NULL: answered */
	UT_hash_handle hh;
};

struct dns {
	struct timers *timers;
	const struct clock *clock;
	struct channels *channels; /* NULL with a transport */
	const struct dns_transport *transport;
	struct dns_cache *cache;

	struct question *by_token, *by_key;
	struct request *requests;
	struct list waiting, inflight, slow, answered, done;
	size_t slow_count;
	timer_id post_timer, tick_timer, slow_timer;
	uint64_t last_id, last_token;
	struct dns_counts counts;
	bool is_calling_back;
};

static const char *question_name(const struct question *question)
{
	return question->key + sizeof(question->type);
}

static void on_post(void *ctx);

/* The rest happens in the next timers_run(). */
static void post(struct dns *dns)
{
	if (!dns->post_timer)
		dns->post_timer = timers_add(dns->timers, clock_mono_ms(dns->clock), on_post, dns);
}

static void on_packet(void *ctx, uint64_t token, struct slice packet, bool is_trusted, const char *why)
{
	struct dns *dns = ctx;
	struct question *question;

	HASH_FIND(by_token, dns->by_token, &token, sizeof(token), question);
	if (!question || !question->is_inflight)
		return;
	question->answer = packet.len ? dns_message_parse(packet, question->asking, question->type)
				      : dns_answer_new(question->asking, question->type, DNS_TEMPORARY, why);
	question->answer->ad = question->answer->ad && is_trusted;
	dns->slow_count -= question->is_slow;
	question->is_inflight = question->is_slow = false;
	dns->counts.inflight--;
	list_remove(&question->node);
	list_append(&dns->answered, &question->node);
	post(dns);
}

void dns_transport_answer(struct dns *dns, uint64_t token, struct slice packet)
{
	on_packet(dns, token, packet, dns_is_trusted(dns), "no answer in time");
}

static void on_tick(void *ctx)
{
	struct dns *dns = ctx;

	channels_tick(dns->channels);
	if (dns->counts.inflight)
		dns->tick_timer =
		    timers_add(dns->timers, clock_mono_ms(dns->clock) + channels_tick_ms(dns->channels), on_tick, dns);
	else
		dns->tick_timer = 0;
}

static void send_question(struct dns *dns, struct question *question)
{
	dns->counts.asked++;
	dns->counts.inflight++;
	question->is_inflight = true;
	question->sent_ms = clock_mono_ms(dns->clock);
	list_append(&dns->inflight, &question->node);
	if (dns->transport) {
		dns->transport->ask(dns->transport->ctx, dns, question->token, question->asking, question->type);
		return;
	}
	if (!dns->tick_timer)
		dns->tick_timer =
		    timers_add(dns->timers, clock_mono_ms(dns->clock) + channels_tick_ms(dns->channels), on_tick, dns);
	channels_ask(dns->channels, question->token, question->asking, question->type);
}

static struct question *first_inflight(const struct dns *dns)
{
	return list_is_empty(&dns->inflight) ? NULL : CONTAINER_OF(dns->inflight.next, struct question, node);
}

static void set_slow_ones_aside(struct dns *dns)
{
	int64_t now_ms = clock_mono_ms(dns->clock);
	struct question *question;

	while (dns->slow_count < SLOW_MAX && (question = first_inflight(dns)) &&
	       now_ms - question->sent_ms >= SLOW_MS) {
		list_remove(&question->node);
		list_append(&dns->slow, &question->node);
		question->is_slow = true;
		dns->slow_count++;
	}
}

static bool may_send(const struct dns *dns)
{
	return dns->counts.inflight - dns->slow_count < INFLIGHT_MAX;
}

static void on_slow(void *ctx);

/* Without an answer nothing else would look at those that wait. At SLOW_MAX only an answer helps. */
static void arm_slow_timer(struct dns *dns)
{
	if (list_is_empty(&dns->waiting) || dns->slow_count == SLOW_MAX)
		timers_cancel(dns->timers, &dns->slow_timer);
	else if (!dns->slow_timer && first_inflight(dns))
		dns->slow_timer = timers_add(dns->timers, first_inflight(dns)->sent_ms + SLOW_MS, on_slow, dns);
}

static void start_question(struct dns *dns, struct question *question)
{
	set_slow_ones_aside(dns);
	if (may_send(dns)) {
		send_question(dns, question);
		return;
	}
	list_append(&dns->waiting, &question->node);
	dns->counts.waiting++;
	arm_slow_timer(dns);
}

static void pump_waiting(struct dns *dns)
{
	set_slow_ones_aside(dns);
	while (may_send(dns) && !list_is_empty(&dns->waiting)) {
		struct question *question = CONTAINER_OF(list_pop(&dns->waiting), struct question, node);

		dns->counts.waiting--;
		send_question(dns, question);
	}
	arm_slow_timer(dns);
}

static void on_slow(void *ctx)
{
	struct dns *dns = ctx;

	dns->slow_timer = 0;
	pump_waiting(dns);
}

static struct question *new_question(struct dns *dns, const char *key, size_t key_len, uint16_t type)
{
	struct question *question = xcalloc(1, sizeof(*question) + key_len + 1);

	memcpy(question->key, key, key_len);
	question->key_len = key_len;
	question->type = type;
	question->token = ++dns->last_token;
	question->asking = xstrdup(question_name(question));
	list_node_init(&question->node);
	list_init(&question->requests);
	HASH_ADD(by_token, dns->by_token, token, sizeof(question->token), question);
	HASH_ADD_KEYPTR(by_key, dns->by_key, question->key, question->key_len, question);
	return question;
}

static void free_question(struct dns *dns, struct question *question)
{
	HASH_DELETE(by_token, dns->by_token, question);
	HASH_DELETE(by_key, dns->by_key, question);
	list_remove(&question->node);
	free(question->asking);
	dns_answer_unref(&question->head);
	dns_answer_unref((const struct dns_answer **)&question->answer);
	free(question);
}

static void finish_request(struct dns *dns, struct request *request, const struct dns_answer *answer)
{
	request->answer = dns_answer_ref(answer);
	request->question = NULL;
	list_remove(&request->node);
	list_append(&dns->done, &request->node);
}

/* Asks once more for the same question: after an alias, or without EDNS. */
static void ask_again(struct dns *dns, struct question *question)
{
	dns_answer_unref((const struct dns_answer **)&question->answer);
	start_question(dns, question);
}

/* The answer, joined with what aliases led to it. NULL: it must be followed further. */
static struct dns_answer *follow(struct dns *dns, struct question *question)
{
	struct dns_answer *answer = question->answer;

	if (question->head) {
		answer = dns_answer_join(question->head, answer);
		dns_answer_unref(&question->head);
	} else {
		question->answer = NULL;
	}
	if (answer->status != DNS_OK || answer->record_count > 0)
		return answer;
	if (++question->follows > FOLLOW_MAX) {
		dns_answer_unref((const struct dns_answer **)&answer);
		return dns_answer_new(question_name(question), question->type, DNS_TEMPORARY,
				      "too many aliases, or they go in circles");
	}
	question->head = answer;
	free(question->asking);
	question->asking = xstrdup(answer->canonical);
	ask_again(dns, question);
	return NULL;
}

static void complete(struct dns *dns, struct question *question)
{
	int64_t now_ms = clock_mono_ms(dns->clock);
	const struct dns_answer *stale = NULL;
	struct dns_answer *answer;

	if (question->answer->rcode == RCODE_FORMERR && !question->was_retried) {
		question->was_retried = true;
		ask_again(dns, question);
		return;
	}
	answer = follow(dns, question);
	if (!answer)
		return;
	if (answer->status == DNS_TEMPORARY) {
		dns->counts.failed++;
		stale = dns_cache_find_stale(dns->cache, question_name(question), question->type, now_ms);
		dns->counts.stale_hits += stale != NULL;
		answer->expires_at_ms = now_ms;
	} else {
		dns->counts.answered++;
		dns_cache_put(dns->cache, answer, now_ms);
	}
	LIST_FOREACH (node, &question->requests)
		finish_request(dns, CONTAINER_OF(node, struct request, node), stale ? stale : answer);
	dns_answer_unref((const struct dns_answer **)&answer);
	free_question(dns, question);
}

static void free_request(struct dns *dns, struct request *request)
{
	HASH_DEL(dns->requests, request);
	list_remove(&request->node);
	dns_answer_unref(&request->answer);
	free(request);
}

/* Those that were done when it began; what callbacks add waits for the next turn. */
static void call_back(struct dns *dns)
{
	struct list turn;

	list_init(&turn);
	for (struct list *node; (node = list_pop(&dns->done));)
		list_append(&turn, node);
	dns->is_calling_back = true;
	while (!list_is_empty(&turn)) {
		struct request *request = CONTAINER_OF(turn.next, struct request, node);
		const struct dns_answer *answer = request->answer;
		dns_cb *cb = request->cb;
		void *ctx = request->ctx;

		request->answer = NULL;
		free_request(dns, request);
		cb(ctx, answer);
		dns_answer_unref(&answer);
	}
	dns->is_calling_back = false;
}

static void on_post(void *ctx)
{
	struct dns *dns = ctx;
	struct list turn;

	dns->post_timer = 0;
	list_init(&turn);
	for (struct list *node; (node = list_pop(&dns->answered));)
		list_append(&turn, node);
	for (struct list *node; (node = list_pop(&turn));)
		complete(dns, CONTAINER_OF(node, struct question, node));
	pump_waiting(dns);
	if (dns->channels)
		channels_sweep(dns->channels);
	call_back(dns);
}

static size_t or_default(size_t value, size_t if_zero)
{
	return value ? value : if_zero;
}

static int64_t or_default_ms(int64_t value, int64_t if_zero)
{
	return value ? value : if_zero;
}

struct dns *dns_new(const struct dns_options *options, const struct dns_host *host, struct timers *timers,
		    const struct clock *clock, struct rng *rng, struct err *err)
{
	struct dns_cache_limits limits = {
	    .entries = or_default(options->cache_entries, 65536),
	    .bytes = or_default(options->cache_bytes, (size_t)32 << 20),
	    .ttl_min_ms = or_default_ms(options->ttl_min_ms, 30 * 1000),
	    .ttl_max_ms = or_default_ms(options->ttl_max_ms, 3600 * 1000),
	    .negative_ttl_max_ms = or_default_ms(options->negative_ttl_max_ms, 300 * 1000),
	    .stale_max_ms = or_default_ms(options->stale_max_ms, 3600 * 1000),
	};
	struct dns *dns = xcalloc(1, sizeof(*dns));

	dns->timers = timers;
	dns->clock = clock;
	dns->transport = options->transport;
	list_init(&dns->waiting);
	list_init(&dns->inflight);
	list_init(&dns->slow);
	list_init(&dns->answered);
	list_init(&dns->done);
	dns->cache = dns_cache_new(&limits);
	if (!dns->transport) {
		dns->channels = channels_new(options, host, rng, on_packet, dns, err);
		if (!dns->channels)
			dns_free(&dns);
	}
	return dns;
}

void dns_free(struct dns **dns_ptr)
{
	struct dns *dns = *dns_ptr;
	struct request *request, *next_request;
	struct question *question, *next_question;

	if (!dns)
		return;
	BUG_ON(dns->is_calling_back);
	channels_free(&dns->channels);
	timers_cancel(dns->timers, &dns->post_timer);
	timers_cancel(dns->timers, &dns->tick_timer);
	timers_cancel(dns->timers, &dns->slow_timer);
	HASH_ITER(hh, dns->requests, request, next_request)
	free_request(dns, request);
	HASH_ITER(by_token, dns->by_token, question, next_question)
	free_question(dns, question);
	dns_cache_free(&dns->cache);
	free(dns);
	*dns_ptr = NULL;
}

static void answer_at_once(struct dns *dns, struct request *request, const struct dns_answer *answer)
{
	finish_request(dns, request, answer);
	post(dns);
}

static void refuse(struct dns *dns, struct request *request, const char *name, uint16_t type, enum dns_status status,
		   const char *reason)
{
	struct dns_answer *answer = dns_answer_new(name, type, status, reason);

	answer->expires_at_ms = clock_mono_ms(dns->clock);
	answer_at_once(dns, request, answer);
	dns_answer_unref((const struct dns_answer **)&answer);
}

static void join_or_ask(struct dns *dns, struct request *request, const char *name, uint16_t type)
{
	char key[sizeof(type) + DNS_NAME_MAX];
	size_t len = strlen(name);
	struct question *question;

	memcpy(key, &type, sizeof(type));
	memcpy(key + sizeof(type), name, len);
	len += sizeof(type);
	HASH_FIND(by_key, dns->by_key, key, len, question);
	if (question) {
		dns->counts.joined++;
	} else if (dns->counts.waiting >= WAITING_MAX) {
		refuse(dns, request, name, type, DNS_TEMPORARY, "too many DNS questions wait");
		return;
	} else {
		question = new_question(dns, key, len, type);
		start_question(dns, question);
	}
	request->question = question;
	list_append(&question->requests, &request->node);
}

uint64_t dns_query(struct dns *dns, const char *name, uint16_t type, dns_cb *cb, void *ctx)
{
	char normalized[DNS_NAME_MAX + 1];
	struct request *request = xcalloc(1, sizeof(*request));
	const struct dns_answer *cached;
	uint64_t id = ++dns->last_id;

	request->id = id;
	request->cb = cb;
	request->ctx = ctx;
	list_node_init(&request->node);
	HASH_ADD(hh, dns->requests, id, sizeof(request->id), request);
	if (!dns_name_normalize(slice_of_str(name), normalized)) {
		refuse(dns, request, "", type, DNS_NXDOMAIN, "not a possible domain name");
		return id;
	}
	cached = dns_cache_find(dns->cache, normalized, type, clock_mono_ms(dns->clock));
	if (cached) {
		dns->counts.cache_hits++;
		answer_at_once(dns, request, cached);
	} else {
		join_or_ask(dns, request, normalized, type);
	}
	return id;
}

void dns_cancel(struct dns *dns, uint64_t *id)
{
	struct request *request;
	struct question *question;

	HASH_FIND(hh, dns->requests, id, sizeof(*id), request);
	*id = 0;
	if (!request)
		return;
	question = request->question;
	free_request(dns, request);
	/* What is on the way goes on, for the cache; what waits in line need not be asked any more. */
	if (question && !question->is_inflight && !question->answer && list_is_empty(&question->requests)) {
		dns->counts.waiting--;
		free_question(dns, question);
	}
}

void dns_on_fd(struct dns *dns, int fd, bool readable, bool writable)
{
	if (dns->channels)
		channels_on_fd(dns->channels, fd, readable, writable);
}

int dns_reload(struct dns *dns, struct err *err)
{
	int result = dns->channels ? channels_reload(dns->channels, err) : 0;

	if (result == 0)
		dns_cache_clear(dns->cache);
	return result;
}

void dns_flush(struct dns *dns)
{
	dns_cache_clear(dns->cache);
}

const char *const *dns_search_list(const struct dns *dns, size_t *count, int *ndots)
{
	if (dns->channels)
		return channels_search_list(dns->channels, count, ndots);
	*count = 0;
	*ndots = 1;
	return NULL;
}

bool dns_is_trusted(const struct dns *dns)
{
	return dns->channels ? channels_is_trusted(dns->channels) : true;
}

void dns_format_servers(const struct dns *dns, char *out, size_t size)
{
	if (dns->channels)
		channels_format_servers(dns->channels, out, size);
	else
		snprintf(out, size, "simulated");
}

void dns_count(const struct dns *dns, struct dns_counts *out)
{
	*out = dns->counts;
	out->cached = dns_cache_count(dns->cache);
	out->cached_bytes = dns_cache_bytes(dns->cache);
}
