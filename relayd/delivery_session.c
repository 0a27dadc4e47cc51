#include "relayd/delivery_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	IDLE_MX_MS = 5 * 1000,
	IDLE_RELAYHOST_MS = 30 * 1000,
	QUICK_MS = 2 * 1000,
	PROMPT_MS = 60 * 1000,
	SESSION_MAX_TRANSACTIONS = 1000,
};

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

/* `tls: none` with a login is for a relayhost on this machine alone. */
static bool needs_no_tls_for_auth(const struct delivery *d)
{
	return d->need.mode == SMTP_CLIENT_TLS_NONE && dns_address_kind(&d->current->address) == DNS_ADDRESS_LOOPBACK;
}

/* Makes the SMTP machine. False: the secret cannot be read, which is the account's trouble. */
static bool make_client(struct delivery *d)
{
	const struct config_relayhost *relayhost = delivery_relayhost(d);
	struct smtp_client_options options = {
	    .helo_name = d->config->hostname,
	    .tls = d->without_tls ? SMTP_CLIENT_TLS_NONE : d->need.mode,
	    .use_helo = d->use_helo,
	};
	char *secret = NULL;
	struct err err;

	if (relayhost && mechanism_of(relayhost) != SASL_CLIENT_NONE) {
		if (!d->token && config_secret_read(&relayhost->password, &secret, &err) != 0) {
			delivery_candidate_fault(d, STAGE_AUTH, CLASS_AUTH, err.text);
			return false;
		}
		options.allow_plaintext_auth = needs_no_tls_for_auth(d);
		options.credentials = (struct sasl_client_credentials){.mechanism = mechanism_of(relayhost),
								       .username = relayhost->username,
								       .secret = d->token ? d->token : secret,
								       .secret_is_token = d->token != NULL,
								       .host = relayhost->address.host,
								       .port = relayhost->address.port};
	}
	d->client = smtp_client_new(&options, delivery_now_ms(d));
	config_secret_wipe(&secret);
	return true;
}

void delivery_begin_session(struct delivery *d)
{
	d->stage = SESSION;
	if (!make_client(d)) {
		delivery_give_up_candidate(d);
		return;
	}
	delivery_pump(d);
}

/* ---- the session ---- */

static void on_idle_over(void *ctx)
{
	delivery_say_goodbye(ctx);
}

void delivery_end_idling(struct delivery *d)
{
	struct loop *loop = d->owner->options.loop;

	if (d->stage == IDLE)
		timers_set(loop_timers(loop), &d->timer, loop_now_ms(loop), on_idle_over, d);
}

static bool has_8bit(const struct queue_envelope *envelope)
{
	return envelope->body == QUEUE_BODY_8BITMIME;
}

/* All that are open: a job that moves on leaves those behind that other hosts have answered for. */
static void choose_recipients(struct delivery *d, const struct job *job)
{
	size_t count = 0;

	d->recipients = xreallocarray(d->recipients, job->count, sizeof(*d->recipients));
	d->indexes = xreallocarray(d->indexes, job->count, sizeof(*d->indexes));
	for (uint32_t i = 0; i < job->count; i++) {
		const struct queue_recipient *recipient = job_recipient(job, i);
		if (job->has_outcome[i])
			continue;
		d->recipients[count] =
		    (struct smtp_client_recipient){recipient->address, recipient->orcpt, recipient->notify};
		d->indexes[count++] = i;
	}
	d->transaction.recipients = d->recipients;
	d->transaction.recipient_count = count;
}

static void begin_transaction(struct delivery *d, struct job *job)
{
	const struct queue_message *message = &job->ticket->message;
	const struct queue_envelope *envelope = &message->envelope;

	d->transaction = (struct smtp_transaction){
	    .sender = envelope->sender,
	    .content_bytes = envelope->prefix.len + message->content_bytes,
	    .has_8bit = has_8bit(envelope),
	    .needs_smtputf8 = envelope->flags & QUEUE_SMTPUTF8,
	    .requiretls = (envelope->flags & QUEUE_REQUIRETLS) && delivery_tls_may_carry(d, NULL),
	    .ret = (enum smtp_dsn_ret)envelope->ret,
	    .envid = envelope->envid,
	    .auth = envelope->auth,
	};

	job->next_hop_reports = smtp_client_capabilities(d->client)->dsn;
	d->job = job;
	d->stage = TRANSACTION;
	d->untried = d->has_body = false;
	d->break_off = (struct outcome){0};
	d->prefix_sent = d->inline_sent = 0;
	d->step_began_ms = d->transaction_began_ms = delivery_now_ms(d);
	choose_recipients(d, job);
	smtp_client_send(d->client, &d->transaction);
}

/* REQUIRETLS, and this host may not have it: nothing of it is sent here. False: it has ended. */
static bool begin_elsewhere(struct delivery *d, struct job *job, const struct outcome *refusal)
{
	if (!delivery_knows_all_hosts(d)) {
		destination_return_job(d->destination, job);
		smtp_client_quit(d->client);
		return true;
	}
	for (uint32_t i = 0; i < job->count; i++)
		delivery_put_aside(d, job, i, refusal);
	if (delivery_may_move(d)) {
		d->job = job;
		delivery_move_on(d);
		return true;
	}
	delivery_end_refused(d, job);
	return false;
}

/* True: it is under way. */
static bool begin_job(struct delivery *d, struct job *job)
{
	const struct queue_envelope *envelope = &job->ticket->message.envelope;
	struct outcome refusal;

	/* A DSN is rather sent without than lost (RFC 8689 section 5). */
	if ((envelope->flags & QUEUE_REQUIRETLS) && envelope->sender.len > 0 && !delivery_tls_may_carry(d, &refusal))
		return begin_elsewhere(d, job, &refusal);
	begin_transaction(d, job);
	return true;
}

void delivery_take_job(struct delivery *d)
{
	unsigned refused = 0;
	struct job *job;

	if (smtp_client_transaction_count(d->client) >= SESSION_MAX_TRANSACTIONS || delivery_is_outdated(d)) {
		smtp_client_quit(d->client);
		return;
	}
	while ((job = destination_next_job(d->destination, &d->slot))) {
		delivery_forget_refusals(d);
		if (begin_job(d, job))
			return;
		if (++refused < DESTINATION_READY_MAX)
			continue;
		smtp_client_quit(d->client);
		return;
	}
	if (d->stage == ENDING)
		return;
	d->stage = IDLE;
	timers_set(loop_timers(d->owner->options.loop), &d->timer,
		   delivery_now_ms(d) + (delivery_is_to_relayhost(d) ? IDLE_RELAYHOST_MS : IDLE_MX_MS), on_idle_over,
		   d);
}

/* What a result of the client means for a recipient. */
static void outcome_of_result(const struct delivery *d, const struct smtp_client_result *result, unsigned attempts,
			      struct outcome *out)
{
	struct outcome_place place = delivery_place(d, result->stage, attempts);
	const struct smtp_reply *reply = &result->reply;

	switch (result->cause) {
	case SMTP_CLIENT_REPLIED:
		outcome_of_reply(out, &place, reply->code, reply->enhanced, reply->text);
		/* Only a reply to the end of data delivers (RFC 5321 section 4.1.1.4). */
		if (out->kind == OUTCOME_DELIVERED && result->stage != STAGE_DOT)
			outcome_of_fault(out, &place, OUTCOME_DEFERRED, CLASS_OTHER, "4.5.0", reply->text);
		break;
	case SMTP_CLIENT_UNDELIVERABLE:
		outcome_of_fault(out, &place, OUTCOME_FAILED, CLASS_OTHER, reply->enhanced, reply->text);
		break;
	case SMTP_CLIENT_LOST:
	case SMTP_CLIENT_TIMEOUT:
	case SMTP_CLIENT_PROTOCOL:
		outcome_of_fault(out, &place, OUTCOME_DEFERRED, CLASS_CONNECT,
				 result->cause == SMTP_CLIENT_PROTOCOL ? "4.5.0" : "4.4.2", reply->text);
		break;
	case SMTP_CLIENT_NO_TLS: outcome_of_fault(out, &place, OUTCOME_DEFERRED, CLASS_TLS, NULL, reply->text); break;
	case SMTP_CLIENT_NO_AUTH: outcome_of_fault(out, &place, OUTCOME_DEFERRED, CLASS_AUTH, NULL, reply->text); break;
	case SMTP_CLIENT_ABORTED: /* the queue cannot read the message now */
		outcome_of_fault(out, &place, OUTCOME_DEFERRED, CLASS_OTHER, NULL, reply->text);
		break;
	}
}

/* Attempts that a greylister counts as visits of somebody it knows: none while all that it did was to greylist, and
 * none that never came to the recipient. */
static unsigned known_attempts(const struct queue_recipient_status *status)
{
	switch (status->reason) {
	case CLASS_GREYLIST:
	case CLASS_CONNECT:
	case CLASS_DNS:
	case CLASS_TLS:
	case CLASS_AUTH: return 0;
	default: return status->attempts;
	}
}

static void on_result(struct delivery *d, uint32_t number, const struct smtp_client_result *result)
{
	const struct queue_message *message = &d->job->ticket->message;
	bool by_us = result->cause == SMTP_CLIENT_ABORTED; /* no host is to blame */
	bool may_have_been_taken = result->may_have_been_taken && result->cause != SMTP_CLIENT_REPLIED;
	uint32_t i = d->indexes[number];
	struct outcome outcome;

	if (result->untried)
		d->untried = true;
	if (result->untried || result->too_many_recipients)
		return;
	outcome_of_result(d, result, known_attempts(&message->status[d->job->indexes[i]]), &outcome);
	if (!by_us && outcome_is_host_trouble(&outcome))
		d->break_off = outcome;
	if (!by_us && delivery_is_worth_another_host(&outcome) && !may_have_been_taken && delivery_may_move(d)) {
		delivery_put_aside(d, d->job, i, &outcome);
		d->moves_on = true;
	} else {
		destination_on_outcome(d->destination, d->job, i, &outcome);
	}
}

/* A 421 that comes at once, and only because the session is old nobody else was asked: a new one would move on. */
static bool would_move_on(const struct delivery *d)
{
	return d->break_off.code == 421 && delivery_is_worth_another_host(&d->break_off) &&
	       delivery_now_ms(d) - d->transaction_began_ms < PROMPT_MS;
}

/* It broke off within a message, and the next host was not asked: that one begins the next time. */
static void note_broken(struct delivery *d)
{
	if (d->stage != TRANSACTION || d->break_off.kind == OUTCOME_NONE)
		return;
	if (d->break_off.class != CLASS_THROTTLE) {
		hosts_note_failed(d->owner->hosts, &d->current->address, d->port, delivery_now_ms(d));
		if (!would_move_on(d))
			hosts_note_hid_others(d->owner->hosts, &d->current->address, d->port, delivery_now_ms(d));
	}
	destination_on_broken(d->destination, &d->break_off);
}

static void on_transaction_done(struct delivery *d, bool reusable)
{
	struct job *job = d->job;
	bool quick = delivery_now_ms(d) - d->transaction_began_ms < QUICK_MS;
	bool is_broken = d->break_off.kind != OUTCOME_NONE;

	d->job = NULL;
	delivery_close_content(d);
	if (d->has_body)
		delivery_observe(d, "data");
	if (d->untried && job->reported == 0)
		destination_return_job(d->destination, job);
	else
		destination_on_job_done(d->destination, job, quick && !is_broken && job->reported > 0);
	if (!is_broken && !d->untried)
		hosts_note_good(d->owner->hosts, &d->current->address, d->port);
	if (reusable && is_broken) { /* in clear text it takes nothing: the next session tries TLS again */
		note_broken(d);
		d->break_off = (struct outcome){0};
		smtp_client_quit(d->client);
	} else if (reusable) {
		delivery_take_job(d);
	}
}

/* No greeting comes where the server waits for ours, of TLS; on the well-known ports it would have come first. */
static void hint_at_implicit_tls(const struct delivery *d, struct outcome *fault)
{
	const struct config_relayhost *relayhost = delivery_relayhost(d);
	size_t len = strlen(fault->text);

	if (fault->stage == STAGE_GREETING && fault->code == 0 && relayhost && !relayhost->implicit && d->port != 25 &&
	    d->port != 587)
		snprintf(fault->text + len, sizeof(fault->text) - len,
			 ": does this port want TLS from the first octet (implicit: true)?");
}

static void on_session_failed(struct delivery *d, const struct smtp_client_event *event)
{
	bool had_session = d->stage == TRANSACTION || d->stage == IDLE;
	struct outcome fault;

	if (had_session) {
		note_broken(d);
		delivery_end_gently(d);
		return;
	}
	if (event->try_helo && !d->use_helo) {
		d->use_helo = true;
		delivery_retry_current(d);
		return;
	}
	if (delivery_renew_token(d, &event->result))
		return;
	outcome_of_result(d, &event->result, 0, &fault);
	hint_at_implicit_tls(d, &fault);
	delivery_note_fault(d, &fault);
	delivery_tls_note_failure(d, &d->fault);
	if (outcome_holds_everywhere(&fault))
		delivery_fail_destination(d);
	else
		delivery_give_up_candidate(d);
}

/* By MX we never want to meet ourselves: that is a loop (RFC 5321 section 6.3), or somebody who takes our name. */
static bool is_ourselves(const struct delivery *d)
{
	return !delivery_is_to_relayhost(d) && strcasecmp(smtp_client_peer_name(d->client), d->config->hostname) == 0;
}

static void give_up_ourselves(struct delivery *d)
{
	struct outcome_place place = delivery_place(d, STAGE_GREETING, 0);
	struct outcome fault;

	outcome_of_fault(&fault, &place, OUTCOME_FAILED, CLASS_DNS, "5.4.6",
			 "this host calls itself by our own name: mail for this domain loops back to us");
	delivery_note_fault(d, &fault);
	hosts_note_failed(d->owner->hosts, &d->current->address, d->port, delivery_now_ms(d));
	delivery_leave_candidate(d);
}

/* False: the delivery has ended or begun anew. */
static bool on_ready(struct delivery *d)
{
	struct job *job = d->job;

	if (is_ourselves(d)) {
		give_up_ourselves(d);
		return false;
	}
	delivery_tls_note_session(d);
	delivery_observe(d, "auth");
	destination_on_session(d->destination);
	d->job = NULL;
	if (job && !destination_may_begin(d->destination, job)) { /* while it was on its way from another host */
		delivery_end_refused(d, job);
		job = NULL;
	}
	if (!job || !begin_job(d, job))
		delivery_take_job(d);
	return d->client != NULL;
}

/* False: the delivery has ended or begun anew; its client is not the same any more. */
static bool handle(struct delivery *d, const struct smtp_client_event *event)
{
	switch (event->type) {
	case SMTP_CLIENT_NEED_TLS: {
		/* The STARTTLS reply is the last in clear text; all output before it has gone. */
		delivery_start_tls(d);
		return true;
	}
	case SMTP_CLIENT_READY: return on_ready(d);
	case SMTP_CLIENT_RESULT: on_result(d, event->recipient, &event->result); return true;
	case SMTP_CLIENT_NEED_BODY:
		d->feeding = d->has_body = true;
		delivery_observe(d, "envelope");
		return true;
	case SMTP_CLIENT_TRANSACTION_DONE:
		if (d->moves_on) {
			delivery_move_on(d);
			return false;
		}
		on_transaction_done(d, event->reusable);
		return d->client != NULL;
	case SMTP_CLIENT_FAILED: on_session_failed(d, event); return false;
	case SMTP_CLIENT_CLOSED: delivery_end_gently(d); return false;
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
	delivery_pump(ctx);
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

void delivery_pump(struct delivery *d)
{
	struct smtp_client_event event;
	struct slice output;

	if (d->stage == ENDING || !d->client)
		return;
	smtp_client_tick(d->client, delivery_now_ms(d));
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
