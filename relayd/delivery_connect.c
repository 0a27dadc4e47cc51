#include "relayd/delivery_internal.h"

#include <stdio.h>

/* No session with any host: the destination's trouble, not that of one message. */
static void fail_destination(struct delivery *d)
{
	/* In this order: a closed connection alone would make room for the next one. */
	destination_on_failed(d->destination, &d->fault);
	delivery_end(d);
}

/* ---- connecting ---- */

static void connect_next(struct delivery *d);

void delivery_retry_current(struct delivery *d)
{
	delivery_drop_connection(d);
	d->next_candidate = (size_t)(d->current - d->candidates);
	connect_next(d);
}

/* This address was no good; the next one. */
void delivery_give_up_candidate(struct delivery *d)
{
	delivery_drop_connection(d);
	d->without_tls = d->use_helo = false;
	connect_next(d);
}

void delivery_candidate_fault(struct delivery *d, enum delivery_stage stage, enum failure_class class, const char *text)
{
	struct outcome_place place = delivery_place(d, stage, 0);
	outcome_of_fault(&d->fault, &place, OUTCOME_DEFERRED, class, NULL, text);
}

static bool tls_is_opportunistic(const struct delivery *d)
{
	return d->need.mode == SMTP_CLIENT_TLS_OPPORTUNISTIC;
}

static void count_handshake(const struct delivery *d, bool ok)
{
	struct tls_session *session = stream_tls(d->stream);
	const char *result = !ok ? "failed" : tls_session_verify(session, NULL) ? "ok" : "unverified";

	series_add(metrics_series(d->owner->options.metrics, METRIC_TLS_HANDSHAKES, "out",
				  ok ? tls_session_version(session) : "", result),
		   1);
}

void delivery_start_tls(struct delivery *d)
{
	struct tls_client_options options = d->need.session;

	options.server_name = d->current->host;
	options.resume_key = d->where;
	d->step_began_ms = delivery_now_ms(d);
	stream_start_tls_client(d->stream, d->need.credentials, &options);
}

static void on_connected(void *ctx)
{
	struct delivery *d = ctx;

	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	delivery_observe(d, "connect");
	if (d->need.mode == SMTP_CLIENT_TLS_IMPLICIT) {
		d->stage = SESSION;
		delivery_start_tls(d);
	} else {
		delivery_begin_session(d);
	}
}

static void on_tls(void *ctx, bool ok, const char *why)
{
	struct delivery *d = ctx;

	count_handshake(d, ok);
	if (ok) {
		delivery_observe(d, "tls");
		if (d->client)
			smtp_client_tls_started(d->client);
		else
			delivery_begin_session(d);
	} else if (tls_is_opportunistic(d)) {
		d->without_tls = true;
		delivery_retry_current(d);
		return;
	} else if (d->client) {
		smtp_client_tls_failed(d->client, why);
	} else {
		delivery_candidate_fault(d, STAGE_TLS, CLASS_TLS, why);
		delivery_give_up_candidate(d);
		return;
	}
	if (d->stage != ENDING)
		delivery_pump(d);
}

static size_t on_input(void *ctx, struct slice bytes)
{
	struct delivery *d = ctx;

	if (d->client) {
		smtp_client_input(d->client, bytes);
		delivery_pump(d);
	}
	return bytes.len;
}

static void on_drained(void *ctx)
{
	delivery_pump(ctx);
}

static void on_end(void *ctx, const char *why)
{
	struct delivery *d = ctx;

	if (d->stage == CONNECTING) {
		delivery_candidate_fault(d, STAGE_CONNECT, CLASS_CONNECT, why[0] ? why : "connection closed");
		delivery_give_up_candidate(d);
	} else if (!d->client) {
		delivery_candidate_fault(d, STAGE_TLS, CLASS_TLS, why[0] ? why : "connection closed before TLS");
		delivery_give_up_candidate(d);
	} else {
		smtp_client_eof(d->client, why[0] ? why : NULL);
		delivery_pump(d);
	}
}

static void on_connect_timeout(void *ctx)
{
	struct delivery *d = ctx;

	delivery_candidate_fault(d, STAGE_CONNECT, CLASS_CONNECT, "connection timed out");
	delivery_give_up_candidate(d);
}

static const struct dns_address *source_of(const struct delivery *d, struct dns_address *out)
{
	const struct config_source_addresses *sources = &d->config->delivery.bind;

	for (size_t i = 0; i < sources->count; i++) {
		bool v4 = d->current->address.family == DNS_IPV4;
		if ((sources->items[i].family == AF_INET) != v4)
			continue;
		out->family = v4 ? DNS_IPV4 : DNS_IPV6;
		memcpy(out->bytes, sources->items[i].bytes, 16);
		return out;
	}
	return NULL;
}

static void set_where(struct delivery *d)
{
	char address[DNS_ADDRESS_TEXT];

	dns_address_format(&d->current->address, address);
	if (strcmp(address, d->current->host) == 0)
		snprintf(d->where, sizeof(d->where), "[%s]", address);
	else
		snprintf(d->where, sizeof(d->where), "%s[%s]", d->current->host, address);
}

static void connect_next(struct delivery *d)
{
	const struct stream_events events = {d, on_connected, on_input, on_drained, on_tls, on_end};
	struct loop *loop = d->owner->options.loop;
	struct dns_address source;
	struct err err;

	d->stage = CONNECTING;
	while (d->next_candidate < d->candidate_count) {
		d->current = &d->candidates[d->next_candidate++];
		set_where(d);
		d->step_began_ms = delivery_now_ms(d);
		d->stream = stream_connect(d->owner->options.net, &d->current->address, d->port, source_of(d, &source),
					   &events, &err);
		if (d->stream) {
			timers_set(loop_timers(loop), &d->timer,
				   delivery_now_ms(d) + d->config->delivery.connect_timeout_ms, on_connect_timeout, d);
			return;
		}
		delivery_candidate_fault(d, STAGE_CONNECT, CLASS_CONNECT, err.text);
	}
	fail_destination(d);
}

/* ---- resolving ---- */

static void add_candidate(struct delivery *d, const char *host, const struct dns_address *address)
{
	struct candidate *candidate;

	if (d->candidate_count == CANDIDATES_MAX)
		return;
	candidate = &d->candidates[d->candidate_count++];
	slice_to_cstr(slice_of_str(host), candidate->host, sizeof(candidate->host));
	candidate->address = *address;
}

static void on_mx(void *ctx, struct mx_result *result)
{
	struct delivery *d = ctx;
	struct outcome_place place = delivery_place(d, STAGE_DNS, 0);
	bool temporary = result->status == MX_TEMPORARY;

	d->lookup = 0;
	delivery_observe(d, "dns");
	if (result->status != MX_OK) {
		outcome_of_fault(&d->fault, &place, temporary ? OUTCOME_DEFERRED : OUTCOME_FAILED, CLASS_DNS,
				 mx_status_enhanced(result->status), result->text);
		mx_result_free(&result);
		fail_destination(d);
		return;
	}
	for (size_t h = 0; h < result->host_count; h++)
		for (size_t a = 0; a < result->hosts[h].address_count; a++)
			add_candidate(d, result->hosts[h].name, &result->hosts[h].addresses[a]);
	mx_result_free(&result);
	connect_next(d);
}

static void on_resolved(void *ctx, const struct resolver_result *result)
{
	struct delivery *d = ctx;
	const struct config_relayhost *relayhost = delivery_relayhost(d);
	char text[320];

	d->lookup = 0;
	delivery_observe(d, "dns");
	if (result->status != DNS_OK || !relayhost) {
		snprintf(text, sizeof(text), "%.255s: %.60s",
			 relayhost ? relayhost->address.host : d->destination->id.name,
			 relayhost ? result->reason : "this relayhost is not configured any more");
		delivery_candidate_fault(d, STAGE_DNS, CLASS_DNS, text);
		fail_destination(d);
		return;
	}
	for (size_t a = 0; a < result->address_count; a++)
		add_candidate(d, relayhost->address.host, &result->addresses[a]);
	connect_next(d);
}

void delivery_begin(void *ctx)
{
	struct delivery *d = ctx;
	const struct config_relayhost *relayhost = delivery_relayhost(d);
	struct resolver_options options = {.ip = (enum dns_ip)d->config->delivery.ip, .is_configured_name = true};

	tls_policy_decide(d->owner->policy, d->destination->id.tls, relayhost, &d->need);
	d->step_began_ms = delivery_now_ms(d);
	if (relayhost) {
		d->port = relayhost->address.port;
		d->lookup =
		    resolver_lookup(d->owner->options.resolver, relayhost->address.host, &options, on_resolved, d);
	} else if (delivery_is_to_relayhost(d)) {
		delivery_candidate_fault(d, STAGE_ROUTE, CLASS_OTHER, "this relayhost is not configured any more");
		fail_destination(d);
	} else {
		d->port = (uint16_t)d->config->delivery.port;
		d->lookup = mx_lookup(d->owner->options.mx, d->destination->id.name, on_mx, d);
	}
}
