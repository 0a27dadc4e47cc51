#include "relayd/delivery_internal.h"

#include <stdio.h>

/* No session with any host: the destination's trouble, not that of one message. Unless there was one that would not have
 * the message. */
void delivery_fail_destination(struct delivery *d)
{
	struct job *job = d->job;

	/* The same address was to be tried in another way, and the time of the attempt was over. */
	if (d->fault.kind == OUTCOME_NONE)
		delivery_candidate_fault(d, STAGE_GREETING, CLASS_CONNECT, "no session within five minutes");
	/* In this order: a closed connection alone would make room for the next one. */
	if (!job) {
		destination_on_failed(d->destination, &d->fault);
	} else {
		d->job = NULL;
		delivery_end_refused(d, job);
	}
	delivery_end(d);
}

/* ---- connections ---- */

void delivery_retry_current(struct delivery *d)
{
	delivery_drop_connection(d);
	d->next_candidate = (size_t)(d->current - d->candidates);
	delivery_connect_next(d);
}

/* This address was no good; the next one. */
void delivery_give_up_candidate(struct delivery *d)
{
	delivery_drop_connection(d);
	d->without_tls = d->use_helo = false;
	hosts_note_failed(d->owner->hosts, &d->current->address, d->port, delivery_now_ms(d));
	delivery_connect_next(d);
}

static void on_parted(void *ctx)
{
	delivery_connect_next(ctx);
}

/* Not before QUIT has gone out, at the end of this turn: the server that we leave counts connections. */
void delivery_leave_candidate(struct delivery *d)
{
	delivery_part(d);
	delivery_drop_connection(d);
	d->without_tls = d->use_helo = false;
	d->stage = CONNECTING;
	timers_set(loop_timers(d->owner->options.loop), &d->timer, delivery_now_ms(d), on_parted, d);
}

/* What holds of one host alone, for good, does not end mail that another one may take later. */
void delivery_note_fault(struct delivery *d, const struct outcome *fault)
{
	if (d->fault.kind != OUTCOME_DEFERRED || fault->kind == OUTCOME_DEFERRED)
		d->fault = *fault;
}

void delivery_candidate_fault(struct delivery *d, enum delivery_stage stage, enum failure_class class, const char *text)
{
	struct outcome_place place = delivery_place(d, stage, 0);
	outcome_of_fault(&d->fault, &place, OUTCOME_DEFERRED, class, NULL, text);
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

	if (!d->client) {
		delivery_candidate_fault(d, STAGE_TLS, CLASS_TLS, why[0] ? why : "connection closed before TLS");
		delivery_give_up_candidate(d);
	} else {
		smtp_client_eof(d->client, why[0] ? why : NULL);
		delivery_pump(d);
	}
}

void delivery_take_stream(struct delivery *d, struct stream *stream)
{
	const struct stream_events events = {d, NULL, on_input, on_drained, delivery_on_tls, on_end};

	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	d->stream = stream;
	stream_set_events(stream, &events);
	d->stage = SESSION;
	delivery_observe(d, "connect");
	delivery_tls_decide(d);
	if (d->need.mode == SMTP_CLIENT_TLS_IMPLICIT)
		delivery_start_tls(d);
	else
		delivery_begin_session(d);
}

/* ---- one connection for several destinations ---- */

/* Nothing but the configuration asks anything of TLS here, and no more than that it be used where it is offered. */
static bool is_shareable(const struct delivery *d, const struct candidate *candidate)
{
	const struct tls_facts *facts = candidate->facts;
	enum config_tls_level level = d->destination->id.tls;

	return d->destination->id.kind == DESTINATION_MX && !d->destination->id.tls_optional &&
	       (level == CONFIG_TLS_UNSET || level == CONFIG_TLS_OPPORTUNISTIC) && facts && !facts->is_name_secure &&
	       facts->dane == TLS_DANE_NONE && (facts->sts == TLS_STS_NONE || facts->sts == TLS_STS_UNKNOWN);
}

static bool leads_to_same_host(const struct delivery *d, const struct delivery *other, const struct candidate *to)
{
	return other->stage == IDLE && other->destination != d->destination && other->config == d->config &&
	       other->port == d->port && dns_address_eq(&other->current->address, &to->address) &&
	       strcmp(other->current->host, to->host) == 0 && is_shareable(other, other->current);
}

static struct delivery *find_idle(const struct delivery *d)
{
	for (size_t c = 0; c < d->candidate_count && d->candidates[c].rank == d->candidates[0].rank; c++) {
		if (!is_shareable(d, &d->candidates[c]))
			continue;
		LIST_FOREACH (node, &d->owner->all) {
			struct delivery *other = CONTAINER_OF(node, struct delivery, node);
			if (leads_to_same_host(d, other, &d->candidates[c]))
				return other;
		}
	}
	return NULL;
}

bool delivery_share(struct delivery *d)
{
	struct delivery *other = find_idle(d);
	struct destination *to = d->destination;

	if (!other)
		return false;
	timers_cancel(loop_timers(d->owner->options.loop), &other->timer);
	destination_move_slot(other->destination, &other->slot, to);
	d->is_replaced = true;
	delivery_end(d);
	other->destination = to;
	other->is_shared = true;
	other->candidate_count = other->next_candidate; /* the others are those of somebody else */
	other->stage = SESSION;
	destination_on_session(to);
	delivery_take_job(other);
	delivery_pump(other);
	return true;
}

/* ---- resolving ---- */

void delivery_add_candidate(struct delivery *d, const char *host, const struct dns_address *address, unsigned rank,
			    const struct tls_facts *facts)
{
	struct candidate *candidate;

	if (d->candidate_count == CANDIDATES_MAX)
		return;
	candidate = &d->candidates[d->candidate_count++];
	slice_to_cstr(slice_of_str(host), candidate->host, sizeof(candidate->host));
	candidate->address = *address;
	candidate->rank = rank;
	candidate->facts = facts;
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
	char text[512];

	d->lookup = 0;
	delivery_observe(d, "dns");
	if (result->status != DNS_OK || !relayhost) {
		snprintf(text, sizeof(text), "%.255s: %.127s",
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
