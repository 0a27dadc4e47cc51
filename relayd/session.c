#include "relayd/session.h"

#include "base/base.h"
#include "base/msgid.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	TLS_HANDSHAKE = 22, /* the first octet of TLS: RFC 8446 section 5.1 */
	CLOSE_PATIENCE_MS = 5 * 1000,
	/* A client that has so much to read first is not answered, nor read from. With what one read left over, it
	 * occupies some 160 KiB at most, logged in or not. */
	OUTPUT_MARK_BYTES = 16 * 1024,
	HANDSHAKE_MS = 60 * 1000, /* of implicit TLS; the machine has its own clock for STARTTLS */
};

static const struct smtp_server_reply no_memory = {
    452, "4.3.1", "The clients' messages fill the memory they may (limits.memory); try again later"};
static const struct smtp_server_reply too_many_of_user = {
    421, "4.7.0", "Too many connections of this user (limits.connections_per_user); close some, or try again later"};
static const struct smtp_server_reply makes_room = {
    421, "4.7.0", "Too many connections: this one has not logged in and makes room for others; connect again"};

/* ---- the end ---- */

static void session_free(void *ctx)
{
	struct session *s = ctx;

	smtp_server_free(&s->server);
	user_options_free(&s->user_options);
	submission_service_unref(&s->service);
	free(s);
}

static void give_token_back(struct session *s)
{
	if (s->has_token)
		quota_give_back(s->owner->quota, slice_of_str(s->user), &s->user_options->rate);
	s->has_token = false;
}

void session_end(struct session *s)
{
	struct loop *loop = s->owner->options.loop;

	if (s->ended)
		return;
	s->ended = true;
	timers_cancel(loop_timers(loop), &s->timer);
	auth_cancel(s->owner->options.auth, &s->auth_request);
	if (!s->is_storing)
		give_token_back(s);
	intake_free(&s->intake);
	stream_close(&s->stream);
	admission_leave(&s->seat);
	list_remove(&s->node);
	list_remove(&s->blocked_node);
	series_add(metrics_series(s->owner->options.metrics, METRIC_CONNECTIONS, "in", NULL, NULL), -1);
	loop_post(loop, session_free, s);
}

/* What the machine said last goes out first. */
static void end_gently(struct session *s)
{
	stream_write(s->stream, smtp_server_output(s->server));
	stream_close_gently(&s->stream, CLOSE_PATIENCE_MS);
	session_end(s);
}

void session_evict(struct session *s)
{
	if (s->server && !s->in_handshake) {
		smtp_server_close(s->server, &makes_room);
		session_pump(s);
	}
	session_end(s);
}

void session_shutdown(struct session *s)
{
	if (!s->server) {
		session_end(s);
		return;
	}
	smtp_server_shutdown(s->server);
	session_pump(s);
}

/* ---- AUTH ---- */

static enum smtp_server_auth_result auth_result_of(enum auth_verdict verdict)
{
	switch (verdict) {
	case AUTH_GOOD: return SMTP_SERVER_AUTH_OK;
	case AUTH_WRONG: return SMTP_SERVER_AUTH_BAD;
	case AUTH_SHUT_OUT: return SMTP_SERVER_AUTH_SHUT_OUT;
	case AUTH_LATER: break;
	}
	return SMTP_SERVER_AUTH_TEMPORARY;
}

static void forget_user(struct session *s)
{
	user_options_free(&s->user_options);
	s->user[0] = '\0';
	admission_logout(&s->seat);
}

/* False: the user has too many sessions. */
static bool log_in(struct session *s, struct user_options **options)
{
	if (!admission_login(&s->seat, s->candidate))
		return false;
	user_options_free(&s->user_options);
	s->user_options = *options;
	*options = NULL;
	snprintf(s->user, sizeof(s->user), "%s", s->candidate);
	return true;
}

static void on_auth(void *ctx, enum auth_verdict verdict, struct slice text)
{
	struct session *s = ctx;
	struct user_options *options = NULL;

	s->auth_request = 0;
	admission_set_busy(&s->seat, false);
	if (verdict == AUTH_GOOD) {
		options = user_options_parse(text, NULL);
		if (!options)
			verdict = AUTH_LATER; /* options that cannot be read must not count as none */
	}
	session_log_auth(s, verdict);
	if (options && !log_in(s, &options)) {
		session_log_rejected(s, &(struct smtp_server_event){.reason = SMTP_SERVER_AUTH_BLOCKED, .code = 421});
		smtp_server_close(s->server, &too_many_of_user);
	} else {
		smtp_server_auth_done(s->server, auth_result_of(verdict));
	}
	user_options_free(&options);
	session_pump(s);
}

static void begin_auth(struct session *s, const struct smtp_server_auth *auth)
{
	slice_to_cstr(auth->user, s->candidate, sizeof(s->candidate));
	admission_set_busy(&s->seat, true);
	s->auth_request = auth_check(s->owner->options.auth, &s->peer, auth->user, auth->password, on_auth, s);
}

/* ---- MAIL and RCPT ---- */

/* NULL, or 450 with words; then no token was taken. `text` is the reply's memory. */
static const struct smtp_server_reply *check_rate(struct session *s, struct smtp_server_reply *reply, char *text,
						  size_t size)
{
	const struct config_rate *rate = s->user_options ? &s->user_options->rate : NULL;
	struct buf words;
	int64_t wait_ms;

	if (!rate || rate->count == 0)
		return NULL;
	wait_ms = quota_take(s->owner->quota, slice_of_str(s->user), rate, loop_now_ms(s->owner->options.loop));
	s->has_token = wait_ms == 0;
	if (wait_ms == 0)
		return NULL;
	series_add(metrics_series(s->owner->options.metrics, METRIC_RATE_LIMIT_WAITS, "user", NULL, NULL), 1);
	buf_init(&words, 64);
	config_rate_format(rate, &words);
	snprintf(text, size, "This user may send %.*s messages and has; try again in %lld seconds",
		 SLICE_ARG(buf_slice(&words)), (long long)(wait_ms + 999) / 1000);
	buf_fini(&words);
	*reply = (struct smtp_server_reply){450, "4.7.1", text};
	return reply;
}

static void begin_mail(struct session *s, const struct smtp_server_mail *mail)
{
	const struct smtp_server_reply *refusal = intake_reply_of(queue_may_accept(s->owner->options.intake.queue));
	struct smtp_server_reply over_rate;
	char text[160];

	if (!refusal && !admission_has_memory(s->owner->admission))
		refusal = &no_memory;
	if (!refusal)
		s->intake = intake_new(&s->owner->options.intake, mail, s->user_options, &refusal);
	if (!refusal)
		refusal = check_rate(s, &over_rate, text, sizeof(text));
	if (refusal) {
		intake_free(&s->intake);
	} else {
		s->recipients = 0;
		admission_know(&s->seat);
	}
	smtp_server_mail_done(s->server, refusal);
}

static void add_recipient(struct session *s, const struct smtp_server_rcpt *rcpt)
{
	const struct smtp_server_reply *refusal = admission_has_memory(s->owner->admission) ? NULL : &no_memory;
	unsigned suppressed = 0;

	if (!refusal)
		refusal = intake_add_recipient(s->intake, rcpt, &suppressed);
	if (!refusal)
		s->recipients++;
	if (suppressed)
		series_add(metrics_series(s->owner->options.metrics, METRIC_SUPPRESSED, NULL, NULL, NULL), suppressed);
	smtp_server_rcpt_done(s->server, refusal);
}

/* ---- content ---- */

static void begin_data(struct session *s)
{
	const struct smtp_server_reply *refusal;
	struct smtp_server_status status;

	smtp_server_status(s->server, &status);
	struct intake_client client = {
	    .user = slice_of_str(s->user),
	    .listener = slice_of_str(s->service->name),
	    .client = slice_of_str(s->client),
	    .address = slice_of_str(s->address),
	    .helo = slice_of_str(status.helo),
	    .esmtp = status.esmtp,
	    .tls = status.tls,
	    .authenticated = s->user[0] != '\0',
	    .with = s->service->is_local ? "local" : NULL,
	    .options = s->user_options,
	};
	refusal = intake_begin(s->intake, &client);
	s->bytes = 0;
	smtp_server_data_done(s->server, refusal);
}

static void on_content(struct session *s, struct slice content)
{
	const struct smtp_server_reply *refusal = NULL;

	s->bytes += content.len;
	/* A header gathers in memory, a body does not. */
	if (intake_is_in_header(s->intake) && !admission_has_memory(s->owner->admission))
		refusal = &no_memory;
	if (!refusal)
		refusal = intake_content(s->intake, content);
	if (refusal)
		smtp_server_refuse_content(s->server, refusal);
}

static void on_stored(void *ctx, enum intake_result result, uint64_t id, const struct smtp_server_reply *refusal)
{
	struct session *s = ctx;
	char id_text[MSGID_CHARS + 1], text[64];
	struct smtp_server_reply queued = {250, "2.0.0", text};

	msgid_format(id, id_text);
	snprintf(text, sizeof(text), "Ok: queued as %s%s", id_text, result == INTAKE_REPEATED ? " (resubmission)" : "");
	if (result == INTAKE_ACCEPTED) {
		session_log_accepted(s, id);
		s->has_token = false;
	} else if (result == INTAKE_REPEATED) {
		session_log_resubmitted(s, id);
	} else {
		session_count_message(s, refusal->code < 500 ? "deferred" : "rejected");
	}
	s->is_storing = false;
	give_token_back(s);
	smtp_server_stored(s->server, result == INTAKE_REFUSED ? refusal : &queued);
	intake_free(&s->intake);
	session_pump(s);
}

static void on_complete(struct session *s, const struct smtp_server_complete *complete)
{
	clock_gettime(CLOCK_MONOTONIC, &s->complete_at);
	s->is_storing = true;
	intake_complete(s->intake, complete, on_stored, s);
}

/* ---- events of the machine ---- */

static void start_tls(struct session *s)
{
	s->in_handshake = true;
	stream_start_tls_server(s->stream, s->service->credentials);
}

static void abort_message(struct session *s)
{
	give_token_back(s);
	intake_free(&s->intake);
}

/* False: the session has ended. */
static bool handle(struct session *s, const struct smtp_server_event *event)
{
	switch (event->type) {
	case SMTP_SERVER_HELO: break;
	case SMTP_SERVER_AUTH: begin_auth(s, &event->auth); break;
	case SMTP_SERVER_MAIL: begin_mail(s, &event->mail); break;
	case SMTP_SERVER_RCPT: add_recipient(s, &event->rcpt); break;
	case SMTP_SERVER_DATA: begin_data(s); break;
	case SMTP_SERVER_CONTENT: on_content(s, event->content); break;
	case SMTP_SERVER_COMPLETE: on_complete(s, &event->complete); break;
	case SMTP_SERVER_ABORTED: abort_message(s); break;
	case SMTP_SERVER_STARTTLS: start_tls(s); break;
	case SMTP_SERVER_REJECTED: session_log_rejected(s, event); break;
	case SMTP_SERVER_CLOSE: end_gently(s); return false;
	}
	return true;
}

/* ---- driving ---- */

static void on_timer(void *ctx)
{
	session_pump(ctx);
}

static bool must_wait_for_journal(struct session *s)
{
	if (!s->intake || queue_may_accept(s->owner->options.intake.queue) != ERR_LIMIT) {
		list_remove(&s->blocked_node);
		return false;
	}
	if (!list_is_linked(&s->blocked_node))
		list_append(&s->owner->blocked, &s->blocked_node);
	return true;
}

/* While the journal keeps us waiting, the client's time does not run. */
static void arm_timer(struct session *s)
{
	int64_t at = list_is_linked(&s->blocked_node) ? INT64_MAX : smtp_server_deadline_ms(s->server);

	if (at == INT64_MAX)
		timers_cancel(loop_timers(s->owner->options.loop), &s->timer);
	else
		timers_set(loop_timers(s->owner->options.loop), &s->timer, at, on_timer, s);
}

static void send_output(struct session *s)
{
	struct slice output = smtp_server_output(s->server);

	if (output.len == 0 || stream_unsent(s->stream) > OUTPUT_MARK_BYTES)
		return;
	stream_write(s->stream, output);
	smtp_server_output_sent(s->server, output.len);
}

static void count_memory(struct session *s)
{
	size_t bytes = sizeof(*s) + smtp_server_memory_bytes(s->server);

	admission_set_memory(&s->seat, bytes + (s->intake ? intake_memory_bytes(s->intake) : 0));
}

void session_pump(struct session *s)
{
	struct smtp_server_event event;
	bool sent;

	if (s->ended || !s->server || s->in_pump)
		return;
	s->in_pump = true;
	smtp_server_tick(s->server, loop_now_ms(s->owner->options.loop));
	do {
		while (!must_wait_for_journal(s) && smtp_server_next(s->server, &event))
			if (!handle(s, &event))
				return;
		sent = smtp_server_output(s->server).len > 0;
		send_output(s);
		sent = sent && smtp_server_output(s->server).len == 0;
	} while (sent);
	s->in_pump = false;
	count_memory(s);
	arm_timer(s);
	if (!s->in_input && smtp_server_wants_input(s->server))
		stream_resume(s->stream);
}

/* ---- events of the stream ---- */

static size_t on_input(void *ctx, struct slice bytes)
{
	struct session *s = ctx;
	size_t taken = 0, n;

	if (!s->server)
		return bytes.len;
	admission_touch(&s->seat);
	/* First, or the time until this input would count as no wait of the client's. */
	smtp_server_tick(s->server, loop_now_ms(s->owner->options.loop));
	s->in_input = true;
	if (!s->has_spoken && bytes.len > 0 && bytes.ptr[0] == TLS_HANDSHAKE &&
	    s->service->tls != CONFIG_LISTEN_IMPLICIT)
		session_log_early_tls(s);
	s->has_spoken = true;
	do {
		n = smtp_server_wants_input(s->server) ? smtp_server_input(s->server, slice_from(bytes, taken)) : 0;
		taken += n;
		if (n > 0)
			session_pump(s);
	} while (n > 0 && taken < bytes.len && !s->ended);
	s->in_input = false;
	return taken;
}

static void on_drained(void *ctx)
{
	session_pump(ctx);
}

static void on_end(void *ctx, const char *why)
{
	struct session *s = ctx;

	if (!s->server || why[0]) {
		session_end(s);
		return;
	}
	smtp_server_eof(s->server);
	session_pump(s);
}

static void make_server(struct session *s, bool tls_active)
{
	struct smtp_server_options *options = s->trusted ? &s->service->smtp_trusted : &s->service->smtp;

	BUG_ON(options->tls_active != tls_active);
	s->server = smtp_server_new(options, loop_now_ms(s->owner->options.loop));
	if (s->owner->stopping)
		smtp_server_shutdown(s->server);
	session_pump(s);
}

static void on_tls(void *ctx, bool ok, const char *why)
{
	struct session *s = ctx;

	s->in_handshake = false;
	session_log_tls(s, ok, why);
	if (!ok) {
		/* The alert goes out, then nothing more. */
		stream_close_gently(&s->stream, CLOSE_PATIENCE_MS);
		session_end(s);
		return;
	}
	admission_touch(&s->seat);
	forget_user(s); /* RFC 3207 section 4.2 */
	if (s->server) {
		smtp_server_tls_started(s->server);
		session_pump(s);
	} else {
		make_server(s, true);
	}
}

/* ---- beginning ---- */

static void on_handshake_timeout(void *ctx)
{
	session_end(ctx);
}

static bool is_trusted(const struct session *s, unsigned flags)
{
	if (s->service->is_local)
		return true;
	return !(flags & SUBMISSION_NEVER_TRUSTED) &&
	       config_trusts(&s->service->listener, s->peer.family == DNS_IPV4 ? AF_INET : AF_INET6, s->peer.bytes,
			     &s->service->gateways);
}

void session_begin(struct submissions *submissions, struct submission_service *service, int fd,
		   const struct net_peer *peer, unsigned flags)
{
	struct loop *loop = submissions->options.loop;
	struct session *s = xcalloc(1, sizeof(*s));
	const struct stream_events events = {s, NULL, on_input, on_drained, on_tls, on_end};

	s->owner = submissions;
	s->service = submission_service_ref(service);
	s->stream = stream_new(submissions->options.net, fd, &events);
	stream_set_high_water(s->stream, OUTPUT_MARK_BYTES);
	list_node_init(&s->node);
	list_node_init(&s->blocked_node);
	list_append(&submissions->sessions, &s->node);
	admission_enter(submissions->admission, &s->seat, peer);
	series_add(metrics_series(submissions->options.metrics, METRIC_CONNECTIONS, "in", NULL, NULL), 1);
	s->peer = peer->address;
	dns_address_format(&s->peer, s->address);
	net_peer_format(peer, s->client, sizeof(s->client));
	s->trusted = is_trusted(s, flags);
	if (service->tls == CONFIG_LISTEN_IMPLICIT) {
		timers_set(loop_timers(loop), &s->timer, loop_now_ms(loop) + HANDSHAKE_MS, on_handshake_timeout, s);
		start_tls(s);
	} else {
		make_server(s, false);
	}
}
