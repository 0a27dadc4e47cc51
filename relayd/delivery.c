#include "relayd/delivery.h"

#include "base/base.h"
#include "relayd/outcome.h"
#include "smtp/client.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	IDLE_MX_MS = 5 * 1000,
	IDLE_RELAYHOST_MS = 30 * 1000,
	QUIT_PATIENCE_MS = 2 * 1000,
	QUICK_MS = 2 * 1000,
	CANDIDATES_MAX = 32,
	SESSION_MAX_TRANSACTIONS = 1000,
};

struct deliveries {
	struct deliveries_options options;
	struct config *config;
	const struct tls_policy *policy;
	struct list all;
	unsigned count;
};

/* One address to try. */
struct candidate {
	char host[256];
	struct dns_address address;
};

enum stage { RESOLVING, CONNECTING, SESSION, IDLE, TRANSACTION, ENDING };

struct delivery {
	struct destination_slot slot; /* first: the destination knows it by this */
	struct list node;	      /* in deliveries.all */
	struct deliveries *owner;
	struct destination *destination;
	struct config *config;
	enum stage stage;

	uint64_t lookup; /* of mx or resolver */
	struct candidate candidates[CANDIDATES_MAX];
	size_t candidate_count, next_candidate;
	struct candidate *current;
	uint16_t port;
	struct tls_need need;
	bool without_tls, use_helo; /* of the second try with the same address */
	struct outcome fault;	    /* why the last address failed */

	struct stream *stream;
	struct smtp_client *client;
	timer_id timer;
	int64_t step_began_ms;
	char where[256 + DNS_ADDRESS_TEXT + 3]; /* "name[address]" */

	struct job *job;
	struct smtp_transaction transaction; /* with `recipients`: what the client borrows */
	struct smtp_client_recipient *recipients;
	bool untried;
	size_t prefix_sent, inline_sent;
	struct queue_content *content;
	bool feeding;
};

/* ---- small things ---- */

static int64_t now_ms(const struct delivery *d)
{
	return loop_now_ms(d->owner->options.loop);
}

static bool is_relayhost(const struct delivery *d)
{
	return d->destination->id.kind == DESTINATION_RELAYHOST;
}

static const struct config_relayhost *relayhost_of(const struct delivery *d)
{
	return is_relayhost(d) ? config_find_relayhost(d->config, slice_of_str(d->destination->id.name)) : NULL;
}

static void observe(const struct delivery *d, const char *phase)
{
	series_observe(metrics_series(d->owner->options.metrics, METRIC_ATTEMPT_DURATION, phase, NULL, NULL),
		       (double)(now_ms(d) - d->step_began_ms) / 1000);
}

static struct outcome_place place_of(const struct delivery *d, enum delivery_stage stage, unsigned attempts)
{
	return (struct outcome_place){stage, d->where[0] ? d->where : d->destination->id.name, is_relayhost(d),
				      attempts};
}

/* ---- the end ---- */

static void delivery_free(void *ctx)
{
	struct delivery *d = ctx;

	free(d->recipients);
	config_free(&d->config);
	free(d);
}

static void drop_connection(struct delivery *d)
{
	struct loop *loop = d->owner->options.loop;

	timers_cancel(loop_timers(loop), &d->timer);
	stream_close(&d->stream);
	smtp_client_free(&d->client);
}

static void close_content(struct delivery *d)
{
	if (d->content)
		queue_content_close(&d->content);
	d->feeding = false;
}

/* The recipients without an outcome wait again. */
static void give_job_back(struct delivery *d)
{
	struct job *job = d->job;

	d->job = NULL;
	close_content(d);
	if (job)
		destination_on_job_done(d->destination, job, false);
}

static void end(struct delivery *d)
{
	if (d->stage == ENDING)
		return;
	d->stage = ENDING;
	mx_cancel(d->owner->options.mx, &d->lookup);
	give_job_back(d);
	drop_connection(d);
	list_remove(&d->node);
	d->owner->count--;
	destination_on_closed(d->destination, &d->slot);
	loop_post(d->owner->options.loop, delivery_free, d);
}

/* Like end(), but what the client has to say (QUIT) goes out first. */
static void end_gently(struct delivery *d)
{
	if (d->stream && d->client) {
		struct slice last = smtp_client_output(d->client);
		stream_write(d->stream, last);
		smtp_client_output_sent(d->client, last.len);
		stream_close_gently(&d->stream, QUIT_PATIENCE_MS);
	}
	end(d);
}

/* No session with any host: the destination's trouble, not that of one message. */
static void fail_destination(struct delivery *d)
{
	/* In this order: a closed connection alone would make room for the next one. */
	destination_on_failed(d->destination, &d->fault);
	end(d);
}

/* ---- connecting ---- */

static void connect_next(struct delivery *d);
static void pump(struct delivery *d);

static void retry_current(struct delivery *d)
{
	drop_connection(d);
	d->next_candidate = (size_t)(d->current - d->candidates);
	connect_next(d);
}

/* This address was no good; the next one. */
static void give_up_candidate(struct delivery *d)
{
	drop_connection(d);
	d->without_tls = d->use_helo = false;
	connect_next(d);
}

static void candidate_fault(struct delivery *d, enum delivery_stage stage, enum failure_class class, const char *text)
{
	struct outcome_place place = place_of(d, stage, 0);
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

static enum sasl_client_mechanism mechanism_of(const struct config_relayhost *relayhost)
{
	switch (relayhost->auth) {
	case CONFIG_RELAY_AUTH_PLAIN: return SASL_CLIENT_PLAIN;
	case CONFIG_RELAY_AUTH_LOGIN: return SASL_CLIENT_LOGIN;
	case CONFIG_RELAY_AUTH_XOAUTH2: return SASL_CLIENT_XOAUTH2;
	case CONFIG_RELAY_AUTH_OAUTHBEARER: return SASL_CLIENT_OAUTHBEARER;
	case CONFIG_RELAY_AUTH_NONE: return SASL_CLIENT_NONE;
	case CONFIG_RELAY_AUTH_AUTO: break;
	}
	return relayhost->username ? SASL_CLIENT_AUTO : SASL_CLIENT_NONE;
}

/* Makes the SMTP machine. False: the secret cannot be read, which is the account's trouble. */
static bool make_client(struct delivery *d)
{
	const struct config_relayhost *relayhost = relayhost_of(d);
	struct smtp_client_options options = {
	    .helo_name = d->config->hostname,
	    .tls = d->without_tls ? SMTP_CLIENT_TLS_NONE : d->need.mode,
	    .use_helo = d->use_helo,
	};
	char *secret = NULL;
	struct err err;

	if (relayhost && mechanism_of(relayhost) != SASL_CLIENT_NONE) {
		if (config_secret_read(&relayhost->password, &secret, &err) != 0) {
			candidate_fault(d, STAGE_AUTH, CLASS_AUTH, err.text);
			return false;
		}
		options.credentials = (struct sasl_client_credentials){.mechanism = mechanism_of(relayhost),
								       .username = relayhost->username,
								       .secret = secret,
								       .host = relayhost->address.host,
								       .port = relayhost->address.port};
	}
	d->client = smtp_client_new(&options, now_ms(d));
	config_secret_wipe(&secret);
	return true;
}

static void begin_session(struct delivery *d)
{
	d->stage = SESSION;
	if (!make_client(d)) {
		give_up_candidate(d);
		return;
	}
	pump(d);
}

static void start_tls(struct delivery *d)
{
	struct tls_client_options options = d->need.session;

	options.server_name = d->current->host;
	options.resume_key = d->where;
	d->step_began_ms = now_ms(d);
	stream_start_tls_client(d->stream, d->need.credentials, &options);
}

static void on_connected(void *ctx)
{
	struct delivery *d = ctx;

	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	observe(d, "connect");
	if (d->need.mode == SMTP_CLIENT_TLS_IMPLICIT) {
		d->stage = SESSION;
		start_tls(d);
	} else {
		begin_session(d);
	}
}

static void on_tls(void *ctx, bool ok, const char *why)
{
	struct delivery *d = ctx;

	count_handshake(d, ok);
	if (ok) {
		observe(d, "tls");
		if (d->client)
			smtp_client_tls_started(d->client);
		else
			begin_session(d);
	} else if (tls_is_opportunistic(d)) {
		d->without_tls = true;
		retry_current(d);
		return;
	} else if (d->client) {
		smtp_client_tls_failed(d->client, why);
	} else {
		candidate_fault(d, STAGE_TLS, CLASS_TLS, why);
		give_up_candidate(d);
		return;
	}
	if (d->stage != ENDING)
		pump(d);
}

static size_t on_input(void *ctx, struct slice bytes)
{
	struct delivery *d = ctx;

	if (d->client) {
		smtp_client_input(d->client, bytes);
		pump(d);
	}
	return bytes.len;
}

static void on_drained(void *ctx)
{
	pump(ctx);
}

static void on_end(void *ctx, const char *why)
{
	struct delivery *d = ctx;

	if (d->stage == CONNECTING) {
		candidate_fault(d, STAGE_CONNECT, CLASS_CONNECT, why[0] ? why : "connection closed");
		give_up_candidate(d);
	} else if (!d->client) {
		candidate_fault(d, STAGE_TLS, CLASS_TLS, why[0] ? why : "connection closed before TLS");
		give_up_candidate(d);
	} else {
		smtp_client_eof(d->client, why[0] ? why : NULL);
		pump(d);
	}
}

static void on_connect_timeout(void *ctx)
{
	struct delivery *d = ctx;

	candidate_fault(d, STAGE_CONNECT, CLASS_CONNECT, "connection timed out");
	give_up_candidate(d);
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
		d->step_began_ms = now_ms(d);
		d->stream = stream_connect(d->owner->options.net, &d->current->address, d->port, source_of(d, &source),
					   &events, &err);
		if (d->stream) {
			timers_set(loop_timers(loop), &d->timer, now_ms(d) + d->config->delivery.connect_timeout_ms,
				   on_connect_timeout, d);
			return;
		}
		candidate_fault(d, STAGE_CONNECT, CLASS_CONNECT, err.text);
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
	struct outcome_place place = place_of(d, STAGE_DNS, 0);
	bool temporary = result->status == MX_TEMPORARY;

	d->lookup = 0;
	observe(d, "dns");
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
	const struct config_relayhost *relayhost = relayhost_of(d);
	char text[320];

	d->lookup = 0;
	observe(d, "dns");
	if (result->status != DNS_OK || !relayhost) {
		snprintf(text, sizeof(text), "%.255s: %.60s",
			 relayhost ? relayhost->address.host : d->destination->id.name,
			 relayhost ? result->reason : "this relayhost is not configured any more");
		candidate_fault(d, STAGE_DNS, CLASS_DNS, text);
		fail_destination(d);
		return;
	}
	for (size_t a = 0; a < result->address_count; a++)
		add_candidate(d, relayhost->address.host, &result->addresses[a]);
	connect_next(d);
}

static void on_begin(void *ctx)
{
	struct delivery *d = ctx;
	const struct config_relayhost *relayhost = relayhost_of(d);
	struct resolver_options options = {.ip = (enum dns_ip)d->config->delivery.ip, .is_configured_name = true};

	tls_policy_decide(d->owner->policy, d->destination->id.tls, relayhost, &d->need);
	d->step_began_ms = now_ms(d);
	if (relayhost) {
		d->port = relayhost->address.port;
		d->lookup =
		    resolver_lookup(d->owner->options.resolver, relayhost->address.host, &options, on_resolved, d);
	} else if (is_relayhost(d)) {
		candidate_fault(d, STAGE_ROUTE, CLASS_OTHER, "this relayhost is not configured any more");
		fail_destination(d);
	} else {
		d->port = (uint16_t)d->config->delivery.port;
		d->lookup = mx_lookup(d->owner->options.mx, d->destination->id.name, on_mx, d);
	}
}

/* ---- the session ---- */

static void on_idle_over(void *ctx)
{
	struct delivery *d = ctx;

	smtp_client_quit(d->client);
	pump(d);
}

static bool has_8bit(const struct queue_envelope *envelope)
{
	return envelope->body == QUEUE_BODY_8BITMIME;
}

static void begin_transaction(struct delivery *d, struct job *job)
{
	const struct queue_message *message = &job->ticket->message;
	const struct queue_envelope *envelope = &message->envelope;

	d->transaction = (struct smtp_transaction){
	    .sender = envelope->sender,
	    .recipient_count = job->count,
	    .content_bytes = envelope->prefix.len + message->content_bytes,
	    .has_8bit = has_8bit(envelope),
	    .needs_smtputf8 = envelope->flags & QUEUE_SMTPUTF8,
	    .requiretls = envelope->flags & QUEUE_REQUIRETLS,
	    .ret = (enum smtp_dsn_ret)envelope->ret,
	    .envid = envelope->envid,
	    .auth = envelope->auth,
	};

	d->job = job;
	d->stage = TRANSACTION;
	d->untried = false;
	d->prefix_sent = d->inline_sent = 0;
	d->step_began_ms = now_ms(d);
	d->recipients = xreallocarray(d->recipients, job->count, sizeof(*d->recipients));
	for (uint32_t i = 0; i < job->count; i++) {
		const struct queue_recipient *recipient = job_recipient(job, i);
		d->recipients[i] =
		    (struct smtp_client_recipient){recipient->address, recipient->orcpt, recipient->notify};
	}
	d->transaction.recipients = d->recipients;
	smtp_client_send(d->client, &d->transaction);
}

static void take_job(struct delivery *d)
{
	struct loop *loop = d->owner->options.loop;
	struct job *job;

	if (smtp_client_transaction_count(d->client) >= SESSION_MAX_TRANSACTIONS) {
		smtp_client_quit(d->client);
		return;
	}
	job = destination_next_job(d->destination, &d->slot);
	if (job) {
		begin_transaction(d, job);
		return;
	}
	if (d->stage == ENDING)
		return;
	d->stage = IDLE;
	timers_set(loop_timers(loop), &d->timer, now_ms(d) + (is_relayhost(d) ? IDLE_RELAYHOST_MS : IDLE_MX_MS),
		   on_idle_over, d);
}

/* What a result of the client means for a recipient; false: it has not been tried. */
static bool outcome_of_result(const struct delivery *d, const struct smtp_client_result *result, unsigned attempts,
			      struct outcome *out)
{
	struct outcome_place place = place_of(d, result->stage, attempts);
	const struct smtp_reply *reply = &result->reply;

	switch (result->cause) {
	case SMTP_CLIENT_REPLIED:
		outcome_of_reply(out, &place, reply->code, reply->enhanced, reply->text);
		/* Only a reply to the end of data delivers (RFC 5321 section 4.1.1.4). */
		if (out->kind == OUTCOME_DELIVERED && result->stage != STAGE_DOT)
			outcome_of_fault(out, &place, OUTCOME_DEFERRED, CLASS_OTHER, "4.5.0", reply->text);
		return true;
	case SMTP_CLIENT_UNDELIVERABLE:
		outcome_of_fault(out, &place, OUTCOME_FAILED, CLASS_OTHER, reply->enhanced, reply->text);
		return true;
	case SMTP_CLIENT_LOST:
	case SMTP_CLIENT_TIMEOUT:
	case SMTP_CLIENT_PROTOCOL:
		outcome_of_fault(out, &place, OUTCOME_DEFERRED, CLASS_CONNECT,
				 result->cause == SMTP_CLIENT_PROTOCOL ? "4.5.0" : "4.4.2", reply->text);
		return true;
	case SMTP_CLIENT_NO_TLS:
		outcome_of_fault(out, &place, OUTCOME_DEFERRED, CLASS_TLS, NULL, reply->text);
		return true;
	case SMTP_CLIENT_NO_AUTH:
		outcome_of_fault(out, &place, OUTCOME_DEFERRED, CLASS_AUTH, NULL, reply->text);
		return true;
	case SMTP_CLIENT_ABORTED: break;
	}
	return false;
}

static void on_result(struct delivery *d, uint32_t i, const struct smtp_client_result *result)
{
	const struct queue_message *message = &d->job->ticket->message;
	struct outcome outcome;

	if (result->untried)
		d->untried = true;
	if (result->untried || result->too_many_recipients)
		return;
	if (outcome_of_result(d, result, message->status[d->job->indexes[i]].attempts, &outcome))
		destination_on_outcome(d->destination, d->job, i, &outcome);
}

static void on_transaction_done(struct delivery *d, bool reusable)
{
	struct job *job = d->job;
	bool quick = now_ms(d) - d->step_began_ms < QUICK_MS;

	d->job = NULL;
	close_content(d);
	if (d->untried && job->reported == 0)
		destination_return_job(d->destination, job);
	else
		destination_on_job_done(d->destination, job, quick && job->reported > 0);
	if (reusable)
		take_job(d);
}

static void on_session_failed(struct delivery *d, const struct smtp_client_event *event)
{
	bool had_session = d->stage == TRANSACTION || d->stage == IDLE;

	if (had_session) {
		end_gently(d);
		return;
	}
	if (event->try_helo && !d->use_helo) {
		d->use_helo = true;
		retry_current(d);
		return;
	}
	if (!outcome_of_result(d, &event->result, 0, &d->fault))
		candidate_fault(d, STAGE_GREETING, CLASS_CONNECT, event->result.reply.text);
	give_up_candidate(d);
}

/* False: the delivery has ended or begun anew; its client is not the same any more. */
static bool handle(struct delivery *d, const struct smtp_client_event *event)
{
	switch (event->type) {
	case SMTP_CLIENT_NEED_TLS: {
		/* The STARTTLS reply is the last in clear text; all output before it has gone. */
		start_tls(d);
		return true;
	}
	case SMTP_CLIENT_READY:
		destination_on_session(d->destination);
		take_job(d);
		return d->stage != ENDING;
	case SMTP_CLIENT_RESULT: on_result(d, event->recipient, &event->result); return true;
	case SMTP_CLIENT_NEED_BODY: d->feeding = true; return true;
	case SMTP_CLIENT_TRANSACTION_DONE: on_transaction_done(d, event->reusable); return d->stage != ENDING;
	case SMTP_CLIENT_FAILED: on_session_failed(d, event); return false;
	case SMTP_CLIENT_CLOSED: end_gently(d); return false;
	}
	return true;
}

/* ---- content ---- */

static bool feed_slice(struct delivery *d, struct slice bytes, size_t *sent)
{
	*sent += smtp_client_body(d->client, slice_from(bytes, *sent));
	return *sent == bytes.len;
}

/* Content in pieces; false: it ended, one way or the other. */
static bool feed_pieces(struct delivery *d)
{
	char piece[16 * 1024];
	size_t room = MIN(smtp_client_body_room(d->client), sizeof(piece));
	struct err err;
	ssize_t n;

	if (!d->content)
		d->content = queue_content_open(d->owner->options.queue, d->job->ticket->message.id, &err);
	n = d->content ? queue_content_read(d->content, piece, room) : ERR_IO;
	if (n < 0)
		smtp_client_abort(d->client, "the message cannot be read from the queue");
	else if (n == 0)
		smtp_client_body_end(d->client);
	else
		smtp_client_body(d->client, slice_of(piece, (size_t)n));
	return n > 0;
}

static void feed(struct delivery *d)
{
	const struct queue_message *message = &d->job->ticket->message;

	while (d->feeding && smtp_client_body_room(d->client) > 0) {
		if (d->prefix_sent < message->envelope.prefix.len) {
			feed_slice(d, message->envelope.prefix, &d->prefix_sent);
		} else if (message->is_inline) {
			if (!feed_slice(d, message->content, &d->inline_sent))
				continue;
			smtp_client_body_end(d->client);
			d->feeding = false;
		} else if (!feed_pieces(d)) {
			d->feeding = false;
		}
	}
}

/* ---- driving ---- */

static void on_deadline(void *ctx)
{
	pump(ctx);
}

static void arm_deadline(struct delivery *d)
{
	int64_t at = smtp_client_deadline_ms(d->client);

	if (d->stage == IDLE)
		return; /* the idle timer runs */
	if (at == INT64_MAX)
		timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	else
		timers_set(loop_timers(d->owner->options.loop), &d->timer, at, on_deadline, d);
}

static void pump(struct delivery *d)
{
	struct smtp_client_event event;
	struct slice output;

	if (d->stage == ENDING || !d->client)
		return;
	smtp_client_tick(d->client, now_ms(d));
	do {
		while (smtp_client_next(d->client, &event))
			if (!handle(d, &event))
				return;
		if (d->feeding && d->job)
			feed(d);
		output = smtp_client_output(d->client);
		if (output.len == 0 || stream_unsent(d->stream) > SMTP_CLIENT_OUTPUT_MAX)
			break;
		stream_write(d->stream, output);
		smtp_client_output_sent(d->client, output.len);
	} while (true);
	arm_deadline(d);
}

/* ---- the driver ---- */

static struct destination_slot *open_delivery(void *ctx, struct destination *destination)
{
	struct deliveries *owner = ctx;
	struct delivery *d = xcalloc(1, sizeof(*d));

	d->owner = owner;
	d->destination = destination;
	d->config = config_ref(owner->config);
	d->stage = RESOLVING;
	list_node_init(&d->node);
	list_append(&owner->all, &d->node);
	owner->count++;
	/* Not from inside: the destination is in the middle of its own work. */
	timers_set(loop_timers(owner->options.loop), &d->timer, now_ms(d), on_begin, d);
	return &d->slot;
}

static void wake_delivery(struct destination_slot *slot)
{
	struct delivery *d = CONTAINER_OF(slot, struct delivery, slot);

	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	take_job(d);
	pump(d);
}

static void quit_delivery(struct destination_slot *slot)
{
	struct delivery *d = CONTAINER_OF(slot, struct delivery, slot);

	smtp_client_quit(d->client);
	end_gently(d);
}

struct destination_driver deliveries_driver(struct deliveries *deliveries)
{
	return (struct destination_driver){deliveries, open_delivery, wake_delivery, quit_delivery};
}

struct deliveries *deliveries_new(const struct deliveries_options *options)
{
	struct deliveries *deliveries = xcalloc(1, sizeof(*deliveries));

	deliveries->options = *options;
	list_init(&deliveries->all);
	return deliveries;
}

void deliveries_configure(struct deliveries *deliveries, struct config *config, const struct tls_policy *policy)
{
	struct config *old = deliveries->config;

	deliveries->config = config_ref(config);
	config_free(&old);
	deliveries->policy = policy;
}

unsigned deliveries_count(const struct deliveries *deliveries)
{
	return deliveries->count;
}

void deliveries_abort(struct deliveries *deliveries)
{
	while (!list_is_empty(&deliveries->all))
		end(CONTAINER_OF(deliveries->all.next, struct delivery, node));
}

void deliveries_free(struct deliveries **deliveries)
{
	if (!*deliveries)
		return;
	deliveries_abort(*deliveries);
	config_free(&(*deliveries)->config);
	free(*deliveries);
	*deliveries = NULL;
}
