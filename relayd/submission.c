#include "relayd/submission.h"

#include "base/base.h"
#include "relayd/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CROWD_TOLD_EACH_MS = 10 * 1000 };

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

/* ---- all sessions ---- */

static struct admission_limits limits_of(const struct config *config)
{
	return (struct admission_limits){.sessions = (unsigned)config->limits.connections,
					 .per_address = (unsigned)config->limits.connections_per_address,
					 .per_user = (unsigned)config->limits.connections_per_user,
					 .memory_bytes = (size_t)config->limits.memory_bytes};
}

struct submissions *submissions_new(const struct submissions_options *options)
{
	struct submissions *submissions = xcalloc(1, sizeof(*submissions));
	struct admission_limits limits = limits_of(options->intake.config);

	submissions->options = *options;
	list_init(&submissions->sessions);
	list_init(&submissions->blocked);
	submissions->admission = admission_new(&limits);
	submissions->quota = quota_new();
	submissions->crowd_told_ms = INT64_MIN / 2;
	submissions->duration = metrics_series(options->metrics, METRIC_SUBMISSION_DURATION, NULL, NULL, NULL);
	submissions->size = metrics_series(options->metrics, METRIC_MESSAGE_SIZE, NULL, NULL, NULL);
	session_log_series(options->metrics);
	return submissions;
}

void submissions_free(struct submissions **submissions)
{
	if (!*submissions)
		return;
	while (!list_is_empty(&(*submissions)->sessions))
		session_end(CONTAINER_OF((*submissions)->sessions.next, struct session, node));
	admission_free(&(*submissions)->admission);
	quota_free(&(*submissions)->quota);
	free(*submissions);
	*submissions = NULL;
}

void submissions_configure(struct submissions *submissions, struct config *config)
{
	struct admission_limits limits = limits_of(config);

	submissions->options.intake.config = config;
	admission_configure(submissions->admission, &limits);
	dedupe_configure(submissions->options.intake.dedupe, config->dedupe_window_ms);
}

unsigned submissions_count(const struct submissions *submissions)
{
	return admission_count(submissions->admission);
}

void submissions_resume(struct submissions *submissions)
{
	struct list waiting;

	list_init(&waiting);
	for (struct list *node; (node = list_pop(&submissions->blocked));)
		list_append(&waiting, node);
	for (struct list *node; (node = list_pop(&waiting));)
		session_pump(CONTAINER_OF(node, struct session, blocked_node));
}

void submissions_stop(struct submissions *submissions)
{
	submissions->stopping = true;
	LIST_FOREACH (node, &submissions->sessions)
		session_shutdown(CONTAINER_OF(node, struct session, node));
}

/* ---- room for one more ---- */

/* Once in a while: a crowd must not fill the log too. */
static void tell_crowd(struct submissions *submissions, const struct net_peer *peer, const char *limit)
{
	int64_t now = loop_now_ms(submissions->options.loop);
	char client[128];

	series_add(metrics_series(submissions->options.metrics, METRIC_SUBMISSION_REJECTIONS, "rate", NULL, NULL), 1);
	if (now < submissions->crowd_told_ms + CROWD_TOLD_EACH_MS)
		return;
	submissions->crowd_told_ms = now;
	net_peer_format(peer, client, sizeof(client));
	log_event(submissions->options.log, LOG_WARN, "connections_full", LOG_STR("reason", limit),
		  LOG_STR("client", client), LOG_INT("connections", submissions_count(submissions)));
}

/* Implicit TLS: a reply in clear text would be no answer to anything. */
static void turn_away(const struct submission_service *service, int fd, const char *limit)
{
	char reply[128];
	int len = snprintf(reply, sizeof(reply), "421 4.7.0 Too many connections (%s); try again later\r\n", limit);
	ssize_t n =
	    service->tls == CONFIG_LISTEN_IMPLICIT ? 0 : send(fd, reply, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);

	(void)n; /* whoever does not hear it sees the connection close */
	close(fd);
}

void submissions_begin(struct submissions *submissions, struct submission_service *service, int fd,
		       const struct net_peer *peer, unsigned flags)
{
	struct admission_seat *victim;
	enum admission_answer answer;

	while ((answer = admission_ask(submissions->admission, peer, &victim)) != ADMISSION_OK) {
		const char *limit = answer == ADMISSION_FULL ? "limits.connections" : "limits.connections_per_address";
		if (answer == ADMISSION_ADDRESS_FULL && (flags & SUBMISSION_OF_DROP))
			break;
		tell_crowd(submissions, peer, limit);
		if (!victim) {
			turn_away(service, fd, limit);
			return;
		}
		session_evict(CONTAINER_OF(victim, struct session, seat));
	}
	session_begin(submissions, service, fd, peer, flags);
}
