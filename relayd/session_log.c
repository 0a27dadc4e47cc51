/* What log and metrics hear of a session: the user's name, never a secret. */
#include "relayd/session.h"

#include "base/base.h"

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
	case SMTP_SERVER_MESSAGE_REFUSED: return code == 451 || code == 452 ? "disk" : code == 450 ? "rate" : "sender";
	default: return "syntax";
	}
}

void session_log_series(struct metrics *metrics)
{
	static const char *const reasons[] = {"auth", "sender", "size", "rate", "disk", "syntax", "tls"};
	static const enum auth_verdict verdicts[] = {AUTH_GOOD, AUTH_WRONG, AUTH_LATER, AUTH_SHUT_OUT};

	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		metrics_series(metrics, METRIC_SUBMISSION_REJECTIONS, reasons[i], NULL, NULL);
	for (size_t i = 0; i < ARRAY_LEN(verdicts); i++)
		metrics_series(metrics, METRIC_AUTH_ATTEMPTS, auth_verdict_name(verdicts[i]), NULL, NULL);
	metrics_series(metrics, METRIC_CONNECTIONS, "in", NULL, NULL);
	metrics_series(metrics, METRIC_TLS_HANDSHAKES, "in", "TLSv1.2", "ok");
	metrics_series(metrics, METRIC_TLS_HANDSHAKES, "in", "TLSv1.3", "ok");
	metrics_series(metrics, METRIC_TLS_HANDSHAKES, "in", "", "failed");
}

void submission_series(struct metrics *metrics, const char *listener, const char *user)
{
	static const char *const results[] = {"accepted", "rejected", "deferred"};

	for (size_t i = 0; i < ARRAY_LEN(results); i++)
		metrics_series(metrics, METRIC_SUBMISSIONS, listener, user, results[i]);
}

void session_count_message(struct session *s, const char *result)
{
	series_add(metrics_series(s->owner->options.metrics, METRIC_SUBMISSIONS, s->service->name, s->user, result), 1);
}

void session_log_rejected(struct session *s, const struct smtp_server_event *event)
{
	series_add(metrics_series(s->owner->options.metrics, METRIC_SUBMISSION_REJECTIONS,
				  rejection_word(event->reason, event->code), NULL, NULL),
		   1);
	log_event(s->owner->options.log, LOG_INFO, "rejected", LOG_STR("user", s->user), LOG_INT("code", event->code),
		  LOG_STR("reason", smtp_server_reason_name(event->reason)), LOG_STR("client", s->client),
		  LOG_STR("listener", s->service->name));
}

double session_seconds_since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

void session_log_accepted(struct session *s, uint64_t id)
{
	double seconds = session_seconds_since(&s->complete_at);

	log_event(s->owner->options.log, LOG_INFO, "accepted", LOG_ID(id), LOG_STR("user", s->user),
		  LOG_ADDR("from", intake_sender(s->intake)), LOG_INT("recipients", s->recipients),
		  LOG_INT("bytes", s->bytes), LOG_STR("dkim", intake_dkim_word(s->intake)),
		  LOG_STR("client", s->client), LOG_STR("listener", s->service->name), LOG_INT("us", seconds * 1e6));
	session_count_message(s, "accepted");
	series_observe(s->owner->duration, seconds);
	series_observe(s->owner->size, (double)s->bytes);
}

void session_log_resubmitted(struct session *s, uint64_t id)
{
	log_event(s->owner->options.log, LOG_INFO, "resubmitted", LOG_ID(id), LOG_STR("user", s->user),
		  LOG_STR("client", s->client), LOG_STR("listener", s->service->name));
}

void session_log_auth(struct session *s, enum auth_verdict verdict)
{
	const char *name = auth_verdict_name(verdict);

	series_add(metrics_series(s->owner->options.metrics, METRIC_AUTH_ATTEMPTS, name, NULL, NULL), 1);
	if (verdict == AUTH_GOOD)
		submission_series(s->owner->options.metrics, s->service->name, s->candidate);
	if (verdict != AUTH_GOOD)
		log_event(s->owner->options.log, LOG_WARN, "auth_failed", LOG_STR("user", s->candidate),
			  LOG_STR("reason", name), LOG_STR("client", s->client));
}

void session_log_early_tls(struct session *s)
{
	log_event(s->owner->options.log, LOG_INFO, "tls_failed", LOG_STR("client", s->client),
		  LOG_STR("text", "the client speaks TLS from the first octet: it must use STARTTLS here, or another "
				  "listener (tls: implicit)"),
		  LOG_STR("listener", s->service->name));
}

void session_log_tls(struct session *s, bool ok, const char *why)
{
	const char *version = ok ? tls_session_version(stream_tls(s->stream)) : "";

	series_add(
	    metrics_series(s->owner->options.metrics, METRIC_TLS_HANDSHAKES, "in", version, ok ? "ok" : "failed"), 1);
	if (!ok)
		log_event(s->owner->options.log, LOG_INFO, "tls_failed", LOG_STR("client", s->client),
			  LOG_STR("text", why), LOG_STR("listener", s->service->name));
}
