#include "relayd/delivery_internal.h"

#include <stdio.h>

/* ---- before the connection ---- */

void delivery_tls_begin(struct delivery *d)
{
	const struct config_relayhost *relayhost = delivery_relayhost(d);
	enum config_tls_level level = d->destination->id.tls;
	struct tls_sources sources = d->owner->options.tls;
	struct tls_lookup_question question = {.next_hop = delivery_is_to_relayhost(d) ? NULL : d->destination->id.name,
					       .port = d->port,
					       .wants_dane = tls_policy_wants_dane(level, relayhost),
					       .wants_sts = tls_policy_wants_sts(level, relayhost)};

	if (d->destination->id.tls_optional) {
		question.wants_dane = question.wants_sts = false;
		sources.memory = NULL;
	}
	d->tls_lookup = tls_lookup_new(&sources, &question);
}

static void decide(const struct delivery *d, const struct tls_facts *facts, struct tls_need *need)
{
	tls_policy_decide(d->policy, d->destination->id.tls, delivery_relayhost(d), facts, need);
}

static void note_refused_host(struct delivery *d, const struct tls_facts *facts, const struct tls_need *need)
{
	struct outcome_place place = {STAGE_TLS, facts->host, false, 0};

	outcome_of_fault(&d->fault, &place, OUTCOME_DEFERRED, need->class, NULL, need->why);
}

/* The hosts that may be connected to become candidates, the best first. */
static void on_facts(void *ctx)
{
	struct delivery *d = ctx;
	struct tls_need need;

	for (size_t h = 0; h < d->hosts->host_count; h++) {
		const struct mx_host *host = &d->hosts->hosts[h];
		const struct tls_facts *facts = tls_lookup_facts(d->tls_lookup, h);

		decide(d, facts, &need);
		if (need.is_refused)
			note_refused_host(d, facts, &need);
		for (size_t a = 0; a < host->address_count && !need.is_refused; a++)
			delivery_add_candidate(d, host->name, &host->addresses[a], host->preference, facts);
	}
	mx_result_free(&d->hosts);
	delivery_connect(d);
}

void delivery_tls_ask_hosts(struct delivery *d, struct mx_result *hosts)
{
	char literal[DNS_ADDRESS_TEXT];

	d->hosts = hosts;
	for (size_t h = 0; h < hosts->host_count; h++) {
		struct tls_lookup_host host = {.name = hosts->hosts[h].name,
					       .canonical = hosts->hosts[h].canonical,
					       .is_name_secure = hosts->mx_secure,
					       .is_secure = hosts->hosts[h].secure};
		if (hosts->is_literal) {
			dns_address_format(&hosts->hosts[h].addresses[0], literal);
			host = (struct tls_lookup_host){.name = literal, .is_name_secure = true};
		}
		tls_lookup_add_host(d->tls_lookup, &host);
	}
	tls_lookup_start(d->tls_lookup, on_facts, d);
}

/* As on_facts(), for the one host of a relayhost; its addresses stand by as candidates already. */
static void on_relayhost_facts(void *ctx)
{
	struct delivery *d = ctx;
	const struct tls_facts *facts = tls_lookup_facts(d->tls_lookup, 0);
	struct tls_need need;

	decide(d, facts, &need);
	if (need.is_refused) {
		note_refused_host(d, facts, &need);
		d->candidate_count = 0;
	}
	delivery_connect(d);
}

void delivery_tls_ask_relayhost(struct delivery *d, const struct resolver_result *found)
{
	const char *name = delivery_relayhost(d)->address.host;
	struct tls_lookup_host host = {
	    .name = name, .canonical = found->canonical, .is_name_secure = true, .is_secure = found->secure};
	size_t number = tls_lookup_add_host(d->tls_lookup, &host);

	for (size_t a = 0; a < found->address_count; a++)
		delivery_add_candidate(d, name, &found->addresses[a], 0, tls_lookup_facts(d->tls_lookup, number));
	tls_lookup_start(d->tls_lookup, on_relayhost_facts, d);
}

void delivery_tls_decide(struct delivery *d)
{
	decide(d, d->current->facts, &d->need);
	d->verdict = TLS_VERDICT_ENCRYPTED;
	err_set(&d->tls_why, ERR_CRYPTO, "the connection is not encrypted");
}

/* ---- the handshake ---- */

/* As long as a connection may take to be made; then it counts as a handshake that failed. */
static void on_handshake_timeout(void *ctx)
{
	delivery_on_tls(ctx, false, "the TLS handshake timed out");
}

void delivery_start_tls(struct delivery *d)
{
	timers_set(loop_timers(d->owner->options.loop), &d->tls_timer,
		   delivery_now_ms(d) + d->config->delivery.connect_timeout_ms, on_handshake_timeout, d);
	d->need.session.resume_key = d->where;
	d->step_began_ms = delivery_now_ms(d);
	stream_start_tls_client(d->stream, d->need.credentials, &d->need.session);
}

static void count_handshake(const struct delivery *d, const char *version, const char *result)
{
	series_add(metrics_series(d->owner->options.metrics, METRIC_TLS_HANDSHAKES, "out", version, result), 1);
}

static void on_established(struct delivery *d)
{
	struct tls_session *session = stream_tls(d->stream);

	d->verdict = tls_policy_judge(&d->need, d->current->facts, session, &d->tls_why);
	count_handshake(d, tls_session_version(session),
			d->verdict == TLS_VERDICT_REFUSED     ? "failed"
			: d->verdict == TLS_VERDICT_ENCRYPTED ? "unverified"
							      : "ok");
	delivery_observe(d, "tls");
}

static void fail(struct delivery *d, const char *why)
{
	if (d->client) {
		smtp_client_tls_failed(d->client, why);
		delivery_pump(d);
	} else {
		delivery_candidate_fault(d, STAGE_TLS, CLASS_TLS, why);
		delivery_tls_note_failure(d, &d->fault);
		delivery_give_up_candidate(d);
	}
}

void delivery_on_tls(void *ctx, bool ok, const char *why)
{
	struct delivery *d = ctx;

	timers_cancel(loop_timers(d->owner->options.loop), &d->tls_timer);
	if (!ok) {
		count_handshake(d, "", "failed");
		if (!tls_policy_may_go_clear(&d->need)) {
			fail(d, why);
			return;
		}
		d->without_tls = true;
		delivery_retry_current(d);
		return;
	}
	on_established(d);
	if (d->verdict == TLS_VERDICT_REFUSED) {
		fail(d, d->tls_why.text);
	} else if (d->client) {
		smtp_client_tls_started(d->client);
		delivery_pump(d);
	} else {
		delivery_begin_session(d);
	}
}

/* What would not have gone on if the policy was in force (RFC 8461 section 5). */
static void tell_of_testing(const struct delivery *d)
{
	const struct tls_facts *facts = d->current->facts;

	if (facts->sts != TLS_STS_TESTING || d->need.basis == TLS_BASIS_DANE ||
	    (facts->sts_lists_host && d->verdict == TLS_VERDICT_AUTHENTICATED))
		return;
	log_event(d->owner->options.log, LOG_WARN, "mta_sts_testing", LOG_STR("domain", facts->next_hop),
		  LOG_STR("host", d->where),
		  LOG_STR("text", facts->sts_lists_host ? d->tls_why.text : "the policy does not list this host"));
}

void delivery_tls_note_session(struct delivery *d)
{
	struct tls_memory *memory = d->owner->options.tls.memory;

	if (!smtp_client_is_tls(d->client))
		count_handshake(d, "", "plain");
	else if (memory && d->verdict <= TLS_VERDICT_VERIFIED)
		tls_memory_note_verified(memory, d->current->facts->host, d->port);
	if (d->owner->options.log)
		tell_of_testing(d);
}

void delivery_tls_note_failure(struct delivery *d, struct outcome *fault)
{
	char text[sizeof(fault->text)];

	if (fault->stage != STAGE_TLS)
		return;
	if (d->need.basis == TLS_BASIS_MEMORY)
		tls_memory_note_missing(d->owner->options.tls.memory, d->current->facts->host, d->port);
	if (d->need.basis == TLS_BASIS_LEVEL)
		return;
	snprintf(text, sizeof(text), "%s: %.400s", tls_basis_name(d->need.basis), fault->text);
	memcpy(fault->text, text, sizeof(text));
}

/* ---- REQUIRETLS ---- */

static void say_not_offered(const struct delivery *d, struct outcome *out)
{
	struct outcome_place place = delivery_place(d, STAGE_TLS, 0);

	outcome_of_fault(out, &place, OUTCOME_FAILED, CLASS_TLS, "5.7.30",
			 "the sender asks for REQUIRETLS, which this host does not offer");
}

/* A policy that could not be had may yet say that this is the host. */
static void say_not_authenticated(const struct delivery *d, struct outcome *out)
{
	struct outcome_place place = delivery_place(d, STAGE_TLS, 0);
	bool is_known = d->current->facts->sts != TLS_STS_UNKNOWN;
	char text[sizeof(d->tls_why.text) + 128];

	snprintf(text, sizeof(text), "the sender asks for REQUIRETLS, but this host is not authenticated: %s",
		 d->tls_why.text);
	outcome_of_fault(out, &place, is_known ? OUTCOME_FAILED : OUTCOME_DEFERRED, CLASS_TLS,
			 is_known ? "5.7.10" : "4.7.10", text);
}

bool delivery_tls_may_carry(const struct delivery *d, struct outcome *out)
{
	bool is_authenticated = d->verdict == TLS_VERDICT_AUTHENTICATED;

	if (is_authenticated && smtp_client_capabilities(d->client)->requiretls)
		return true;
	if (out)
		(is_authenticated ? say_not_offered : say_not_authenticated)(d, out);
	return false;
}
