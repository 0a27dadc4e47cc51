#include "relayd/delivery_internal.h"

#include <stdio.h>

void delivery_fail_destination(struct delivery *d)
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

static void on_connected(void *ctx)
{
	struct delivery *d = ctx;

	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	delivery_observe(d, "connect");
	delivery_tls_decide(d);
	if (d->need.mode == SMTP_CLIENT_TLS_IMPLICIT) {
		d->stage = SESSION;
		delivery_start_tls(d);
	} else {
		delivery_begin_session(d);
	}
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
	const struct stream_events events = {d, on_connected, on_input, on_drained, delivery_on_tls, on_end};
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
	delivery_fail_destination(d);
}

/* ---- resolving ---- */

void delivery_add_candidate(struct delivery *d, const char *host, const struct dns_address *address,
			    const struct tls_facts *facts)
{
	struct candidate *candidate;

	if (d->candidate_count == CANDIDATES_MAX)
		return;
	candidate = &d->candidates[d->candidate_count++];
	slice_to_cstr(slice_of_str(host), candidate->host, sizeof(candidate->host));
	candidate->address = *address;
	candidate->facts = facts;
}

void delivery_connect(struct delivery *d)
{
	connect_next(d);
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
		delivery_fail_destination(d);
		return;
	}
	delivery_tls_ask_hosts(d, result);
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
		delivery_fail_destination(d);
		return;
	}
	delivery_tls_ask_relayhost(d, result);
}

void delivery_find_hosts(struct delivery *d)
{
	const struct config_relayhost *relayhost = delivery_relayhost(d);
	struct resolver_options options = {.ip = (enum dns_ip)d->config->delivery.ip, .is_configured_name = true};

	d->step_began_ms = delivery_now_ms(d);
	d->port = relayhost ? relayhost->address.port : (uint16_t)d->config->delivery.port;
	delivery_tls_begin(d);
	if (relayhost) {
		d->lookup =
		    resolver_lookup(d->owner->options.resolver, relayhost->address.host, &options, on_resolved, d);
	} else if (delivery_is_to_relayhost(d)) {
		delivery_candidate_fault(d, STAGE_ROUTE, CLASS_OTHER, "this relayhost is not configured any more");
		delivery_fail_destination(d);
	} else {
		d->lookup = mx_lookup(d->owner->options.mx, d->destination->id.name, on_mx, d);
	}
}

void delivery_begin(void *ctx)
{
	struct delivery *d = ctx;

	if (delivery_wants_token(delivery_relayhost(d)))
		delivery_ask_token(d);
	else
		delivery_find_hosts(d);
}
