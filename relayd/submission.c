#include "relayd/submission.h"

#include "base/base.h"
#include "base/list.h"
#include "base/msgid.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { CLOSE_PATIENCE_MS = 5 * 1000, OUTPUT_MARK_BYTES = 64 * 1024 };

struct submissions {
	struct submissions_options options;
	struct list sessions;
	struct list blocked; /* sessions whose content waits for the journal */
	unsigned count;
	bool stopping;
	struct series *duration, *size;
};

struct session {
	struct list node, blocked_node;
	struct submissions *owner;
	struct submission_service *service;
	struct stream *stream;
	struct smtp_server *server; /* NULL until implicit TLS stands */
	struct dns_address peer;
	char address[DNS_ADDRESS_TEXT], client[128];
	bool trusted, ended, in_input, in_pump;
	timer_id timer;
	uint64_t auth_request;
	char user[USERS_NAME_MAX_BYTES + 1], candidate[USERS_NAME_MAX_BYTES + 1];
	struct user_options *user_options;
	struct intake *intake;
	struct timespec complete_at;
	unsigned recipients;
	uint64_t bytes;
};

static void pump(struct session *s);

/* ---- services ---- */

struct submission_service *submission_service_ref(struct submission_service *service)
{
	service->refs++;
	return service;
}

void submission_service_unref(struct submission_service **service)
{
	struct submission_service *s = *service;

	*service = NULL;
	if (!s || --s->refs > 0)
		return;
	tls_credentials_unref(&s->credentials);
	config_free(&s->config);
	free(s);
}

/* ---- counting and logging ---- */

static const char *rejection_word(enum smtp_server_reason reason, int code)
{
	switch (reason) {
	case SMTP_SERVER_AUTH_REQUIRED:
	case SMTP_SERVER_AUTH_FAILED:
	case SMTP_SERVER_AUTH_UNAVAILABLE:
	case SMTP_SERVER_AUTH_BLOCKED: return "auth";
	case SMTP_SERVER_TLS_REQUIRED: return "tls";
	case SMTP_SERVER_TOO_BIG: return "size";
	case SMTP_SERVER_TOO_MANY_ERRORS:
	case SMTP_SERVER_TOO_MANY_COMMANDS:
	case SMTP_SERVER_TOO_MANY_MESSAGES:
	case SMTP_SERVER_TOO_MANY_RECIPIENTS:
	case SMTP_SERVER_TOO_SLOW: return "rate";
	case SMTP_SERVER_SENDER_REFUSED:
	case SMTP_SERVER_RECIPIENT_REFUSED:
	case SMTP_SERVER_MESSAGE_REFUSED: return code == 451 || code == 452 ? "disk" : "sender";
	default: return "syntax";
	}
}

static void count_message(struct session *s, const char *result)
{
	series_add(metrics_series(s->owner->options.metrics, METRIC_SUBMISSIONS, s->service->name, s->user, result), 1);
}

static double seconds_since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

static void log_rejected(struct session *s, const struct smtp_server_event *event)
{
	series_add(metrics_series(s->owner->options.metrics, METRIC_SUBMISSION_REJECTIONS,
				  rejection_word(event->reason, event->code), NULL, NULL),
		   1);
	log_event(s->owner->options.log, LOG_INFO, "rejected", LOG_STR("user", s->user), LOG_INT("code", event->code),
		  LOG_STR("reason", smtp_server_reason_name(event->reason)), LOG_STR("client", s->client),
		  LOG_STR("listener", s->service->name));
}

/* ---- the end ---- */

static void session_free(void *ctx)
{
	struct session *s = ctx;

	smtp_server_free(&s->server);
	user_options_free(&s->user_options);
	submission_service_unref(&s->service);
	free(s);
}

static void end(struct session *s)
{
	struct loop *loop = s->owner->options.loop;

	if (s->ended)
		return;
	s->ended = true;
	timers_cancel(loop_timers(loop), &s->timer);
	auth_cancel(s->owner->options.auth, &s->auth_request);
	intake_free(&s->intake);
	stream_close(&s->stream);
	list_remove(&s->node);
	list_remove(&s->blocked_node);
	s->owner->count--;
	series_add(metrics_series(s->owner->options.metrics, METRIC_CONNECTIONS, "in", NULL, NULL), -1);
	loop_post(loop, session_free, s);
}

/* What the machine said last goes out first. */
static void end_gently(struct session *s)
{
	struct slice last = smtp_server_output(s->server);

	stream_write(s->stream, last);
	stream_close_gently(&s->stream, CLOSE_PATIENCE_MS);
	end(s);
}

/* ---- events of the machine ---- */

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

static void on_auth(void *ctx, enum auth_verdict verdict, struct slice options)
{
	struct session *s = ctx;

	s->auth_request = 0;
	series_add(
	    metrics_series(s->owner->options.metrics, METRIC_AUTH_ATTEMPTS, auth_verdict_name(verdict), NULL, NULL), 1);
	if (verdict == AUTH_GOOD) {
		user_options_free(&s->user_options);
		s->user_options = user_options_parse(options, NULL);
		snprintf(s->user, sizeof(s->user), "%s", s->candidate);
		if (!s->user_options)
			verdict = AUTH_LATER; /* options that cannot be read must not count as none */
	} else {
		log_event(s->owner->options.log, LOG_WARN, "auth_failed", LOG_STR("user", s->candidate),
			  LOG_STR("reason", auth_verdict_name(verdict)), LOG_STR("client", s->client));
	}
	smtp_server_auth_done(s->server, auth_result_of(verdict));
	pump(s);
}

static void begin_auth(struct session *s, const struct smtp_server_auth *auth)
{
	slice_to_cstr(auth->user, s->candidate, sizeof(s->candidate));
	s->auth_request =
	    auth_check(s->owner->options.auth, slice_of(s->peer.bytes, s->peer.family == DNS_IPV4 ? 4 : 16), auth->user,
		       auth->password, on_auth, s);
}

static void begin_mail(struct session *s, const struct smtp_server_mail *mail)
{
	const struct smtp_server_reply *refusal = intake_reply_of(queue_may_accept(s->owner->options.intake.queue));

	if (!refusal)
		refusal = intake_check_sender(mail->sender.address, s->user_options);
	if (!refusal) {
		s->intake = intake_new(&s->owner->options.intake, mail);
		s->recipients = 0;
	}
	smtp_server_mail_done(s->server, refusal);
}

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
	const struct smtp_server_reply *refusal;

	s->bytes += content.len;
	refusal = intake_content(s->intake, content);
	if (refusal)
		smtp_server_refuse_content(s->server, refusal);
}

static void log_accepted(struct session *s, uint64_t id)
{
	log_event(s->owner->options.log, LOG_INFO, "accepted", LOG_ID(id), LOG_STR("user", s->user),
		  LOG_INT("recipients", s->recipients), LOG_INT("bytes", s->bytes), LOG_STR("client", s->client),
		  LOG_STR("listener", s->service->name), LOG_INT("us", seconds_since(&s->complete_at) * 1e6));
}

static void on_stored(void *ctx, uint64_t id, const struct smtp_server_reply *refusal)
{
	struct session *s = ctx;
	char id_text[MSGID_CHARS + 1], text[64];
	struct smtp_server_reply queued = {250, "2.0.0", text};

	msgid_format(id, id_text);
	snprintf(text, sizeof(text), "Ok: queued as %s", id_text);
	if (!refusal) {
		log_accepted(s, id);
		count_message(s, "accepted");
		series_observe(s->owner->duration, seconds_since(&s->complete_at));
		series_observe(s->owner->size, (double)s->bytes);
	} else {
		count_message(s, refusal->code < 500 ? "deferred" : "rejected");
	}
	smtp_server_stored(s->server, refusal ? refusal : &queued);
	intake_free(&s->intake);
	if (!s->in_pump)
		pump(s);
}

static void on_complete(struct session *s, const struct smtp_server_complete *complete)
{
	clock_gettime(CLOCK_MONOTONIC, &s->complete_at);
	intake_complete(s->intake, complete, on_stored, s);
}

static void start_tls(struct session *s)
{
	stream_start_tls_server(s->stream, s->service->credentials);
}

/* False: the session has ended. */
static bool handle(struct session *s, const struct smtp_server_event *event)
{
	switch (event->type) {
	case SMTP_SERVER_HELO: break;
	case SMTP_SERVER_AUTH: begin_auth(s, &event->auth); break;
	case SMTP_SERVER_MAIL: begin_mail(s, &event->mail); break;
	case SMTP_SERVER_RCPT:
		intake_add_recipient(s->intake, &event->rcpt);
		s->recipients++;
		smtp_server_rcpt_done(s->server, NULL);
		break;
	case SMTP_SERVER_DATA: begin_data(s); break;
	case SMTP_SERVER_CONTENT: on_content(s, event->content); break;
	case SMTP_SERVER_COMPLETE: on_complete(s, &event->complete); break;
	case SMTP_SERVER_ABORTED: intake_free(&s->intake); break;
	case SMTP_SERVER_STARTTLS: start_tls(s); break;
	case SMTP_SERVER_REJECTED: log_rejected(s, event); break;
	case SMTP_SERVER_CLOSE: end_gently(s); return false;
	}
	return true;
}

/* ---- driving ---- */

static void on_timer(void *ctx)
{
	pump(ctx);
}

static void arm_timer(struct session *s)
{
	int64_t at = smtp_server_deadline_ms(s->server);

	if (at == INT64_MAX)
		timers_cancel(loop_timers(s->owner->options.loop), &s->timer);
	else
		timers_set(loop_timers(s->owner->options.loop), &s->timer, at, on_timer, s);
}

static bool must_wait_for_journal(struct session *s)
{
	if (!s->intake || queue_may_accept(s->owner->options.intake.queue) != ERR_LIMIT)
		return false;
	if (!list_is_linked(&s->blocked_node))
		list_append(&s->owner->blocked, &s->blocked_node);
	return true;
}

static void send_output(struct session *s)
{
	struct slice output = smtp_server_output(s->server);

	if (output.len == 0 || stream_unsent(s->stream) > OUTPUT_MARK_BYTES)
		return;
	stream_write(s->stream, output);
	smtp_server_output_sent(s->server, output.len);
}

static void pump(struct session *s)
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
	arm_timer(s);
	if (!s->in_input && smtp_server_wants_input(s->server))
		stream_resume(s->stream);
}

static size_t on_input(void *ctx, struct slice bytes)
{
	struct session *s = ctx;
	size_t taken = 0, n;

	if (!s->server)
		return bytes.len;
	s->in_input = true;
	do {
		n = smtp_server_wants_input(s->server) ? smtp_server_input(s->server, slice_from(bytes, taken)) : 0;
		taken += n;
		if (n > 0)
			pump(s);
	} while (n > 0 && taken < bytes.len && !s->ended);
	s->in_input = false;
	return taken;
}

static void on_drained(void *ctx)
{
	pump(ctx);
}

static void on_end(void *ctx, const char *why)
{
	struct session *s = ctx;

	if (!s->server || why[0]) {
		end(s);
		return;
	}
	smtp_server_eof(s->server);
	pump(s);
}

static void make_server(struct session *s, bool tls_active)
{
	struct smtp_server_options *options = s->trusted ? &s->service->smtp_trusted : &s->service->smtp;

	BUG_ON(options->tls_active != tls_active);
	s->server = smtp_server_new(options, loop_now_ms(s->owner->options.loop));
	if (s->owner->stopping)
		smtp_server_shutdown(s->server);
	pump(s);
}

static void on_tls(void *ctx, bool ok, const char *why)
{
	struct session *s = ctx;
	struct metrics *metrics = s->owner->options.metrics;

	if (!ok) {
		series_add(metrics_series(metrics, METRIC_TLS_HANDSHAKES, "in", "", "failed"), 1);
		log_event(s->owner->options.log, LOG_INFO, "tls_failed", LOG_STR("client", s->client),
			  LOG_STR("text", why), LOG_STR("listener", s->service->name));
		/* The alert goes out, then nothing more. */
		stream_close_gently(&s->stream, CLOSE_PATIENCE_MS);
		end(s);
		return;
	}
	series_add(
	    metrics_series(metrics, METRIC_TLS_HANDSHAKES, "in", tls_session_version(stream_tls(s->stream)), "ok"), 1);
	if (s->server) {
		smtp_server_tls_started(s->server);
		pump(s);
	} else {
		make_server(s, true);
	}
}

static void on_handshake_timeout(void *ctx)
{
	end(ctx);
}

static void describe_peer(struct session *s, const struct net_peer *peer)
{
	s->peer = peer->address;
	dns_address_format(&s->peer, s->address);
	net_peer_format(peer, s->client, sizeof(s->client));
}

static bool is_trusted(const struct session *s)
{
	if (s->service->is_local)
		return true;
	return config_trusts(&s->service->listener, s->peer.family == DNS_IPV4 ? AF_INET : AF_INET6, s->peer.bytes,
			     &s->service->gateways);
}

void submissions_begin(struct submissions *submissions, struct submission_service *service, int fd,
		       const struct net_peer *peer)
{
	enum { HANDSHAKE_MS = 60 * 1000 };
	struct loop *loop = submissions->options.loop;
	struct session *s = xcalloc(1, sizeof(*s));
	const struct stream_events events = {s, NULL, on_input, on_drained, on_tls, on_end};

	s->owner = submissions;
	s->service = submission_service_ref(service);
	s->stream = stream_new(submissions->options.net, fd, &events);
	list_node_init(&s->node);
	list_node_init(&s->blocked_node);
	list_append(&submissions->sessions, &s->node);
	submissions->count++;
	series_add(metrics_series(submissions->options.metrics, METRIC_CONNECTIONS, "in", NULL, NULL), 1);
	describe_peer(s, peer);
	s->trusted = is_trusted(s);
	if (service->tls == CONFIG_LISTEN_IMPLICIT) {
		timers_set(loop_timers(loop), &s->timer, loop_now_ms(loop) + HANDSHAKE_MS, on_handshake_timeout, s);
		start_tls(s);
	} else {
		make_server(s, false);
	}
}

/* ---- all of them ---- */

struct submissions *submissions_new(const struct submissions_options *options)
{
	static const char *const reasons[] = {"auth", "sender", "size", "rate", "disk", "syntax", "tls"};
	static const enum auth_verdict verdicts[] = {AUTH_GOOD, AUTH_WRONG, AUTH_LATER, AUTH_SHUT_OUT};
	struct submissions *submissions = xcalloc(1, sizeof(*submissions));
	struct metrics *metrics = options->metrics;

	submissions->options = *options;
	list_init(&submissions->sessions);
	list_init(&submissions->blocked);
	submissions->duration = metrics_series(metrics, METRIC_SUBMISSION_DURATION, NULL, NULL, NULL);
	submissions->size = metrics_series(metrics, METRIC_MESSAGE_SIZE, NULL, NULL, NULL);
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		metrics_series(metrics, METRIC_SUBMISSION_REJECTIONS, reasons[i], NULL, NULL);
	for (size_t i = 0; i < ARRAY_LEN(verdicts); i++)
		metrics_series(metrics, METRIC_AUTH_ATTEMPTS, auth_verdict_name(verdicts[i]), NULL, NULL);
	metrics_series(metrics, METRIC_CONNECTIONS, "in", NULL, NULL);
	return submissions;
}

void submissions_free(struct submissions **submissions)
{
	if (!*submissions)
		return;
	while (!list_is_empty(&(*submissions)->sessions))
		end(CONTAINER_OF((*submissions)->sessions.next, struct session, node));
	free(*submissions);
	*submissions = NULL;
}

struct intake_context *submissions_intake(struct submissions *submissions)
{
	return &submissions->options.intake;
}

unsigned submissions_count(const struct submissions *submissions)
{
	return submissions->count;
}

unsigned submissions_count_address(const struct submissions *submissions, const struct dns_address *address)
{
	unsigned count = 0;

	for (const struct list *node = submissions->sessions.next; node != &submissions->sessions; node = node->next)
		count += dns_address_eq(&CONTAINER_OF(node, struct session, node)->peer, address);
	return count;
}

void submissions_resume(struct submissions *submissions)
{
	struct list waiting;

	list_init(&waiting);
	for (struct list *node; (node = list_pop(&submissions->blocked));)
		list_append(&waiting, node);
	for (struct list *node; (node = list_pop(&waiting));)
		pump(CONTAINER_OF(node, struct session, blocked_node));
}

void submissions_stop(struct submissions *submissions)
{
	submissions->stopping = true;
	LIST_FOREACH (node, &submissions->sessions) {
		struct session *s = CONTAINER_OF(node, struct session, node);
		if (!s->server) {
			end(s);
			continue;
		}
		smtp_server_shutdown(s->server);
		pump(s);
	}
}
