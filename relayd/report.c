#include "relayd/report.h"

#include "base/base.h"
#include "relayd/outcome.h"

#include <stdlib.h>

struct report {
	struct log *log;
	struct metrics *metrics;
	const struct clock *clock;
};

static const char *const operators[] = {"google", "microsoft", "yahoo", "apple", "other"};
static const char *const bounce_classes[] = {"no_user", "policy", "size", "relay", "expired", "other"};

struct report *report_new(struct log *log, struct metrics *metrics, const struct clock *clock)
{
	struct report *report = xcalloc(1, sizeof(*report));

	*report = (struct report){log, metrics, clock};
	report_add_relayhost(report, "mx");
	return report;
}

void report_free(struct report **report)
{
	free(*report);
	*report = NULL;
}

void report_add_relayhost(struct report *report, const char *name)
{
	struct metrics *m = report->metrics;
	bool direct = strcmp(name, "mx") == 0;

	for (size_t o = 0; o < ARRAY_LEN(operators); o++)
		for (int kind = OUTCOME_DELIVERED; kind <= OUTCOME_EXPIRED; kind++)
			if (direct || o == ARRAY_LEN(operators) - 1)
				metrics_series(m, METRIC_DELIVERY_ATTEMPTS, name, operators[o],
					       outcome_kind_name(kind));
	for (int class = CLASS_GREYLIST; class < CLASS_COUNT; class ++)
		metrics_series(m, METRIC_DEFERRALS, name, failure_class_name(class), NULL);
	for (size_t c = 0; c < ARRAY_LEN(bounce_classes); c++)
		metrics_series(m, METRIC_BOUNCES, name, bounce_classes[c], NULL);
	metrics_series(m, METRIC_DELIVERY_LATENCY, name, NULL, NULL);
	metrics_series(m, METRIC_LAST_SUCCESS, name, NULL, NULL);
	metrics_series(m, METRIC_UPSTREAM_AUTH_FAILURES, name, NULL, NULL);
	if (!metrics_find(m, METRIC_RELAYHOST_UP, name, NULL, NULL)) /* a reload does not mend one that is down */
		series_set(metrics_series(m, METRIC_RELAYHOST_UP, name, NULL, NULL), 1);
}

const char *report_operator(const char *host)
{
	static const struct {
		const char *part, *operator;
	} known[] = {{"google.com", "google"},	   {"googlemail.com", "google"},  {"outlook.com", "microsoft"},
		     {"hotmail.com", "microsoft"}, {"mx.microsoft", "microsoft"}, {"yahoodns.net", "yahoo"},
		     {"icloud.com", "apple"},	   {"apple.com", "apple"}};
	const char *end = strchr(host, '[');
	size_t len = end ? (size_t)(end - host) : strlen(host);

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		size_t part = strlen(known[i].part);
		if (len > part && host[len - part - 1] == '.' &&
		    strncasecmp(host + len - part, known[i].part, part) == 0)
			return known[i].operator;
	}
	return "other";
}

static const char *relayhost_label(const struct destination *destination, const struct outcome *outcome)
{
	if (!destination)
		return outcome->kind == OUTCOME_DELIVERED ? "discard" : "mx";
	switch (destination->id.kind) {
	case DESTINATION_RELAYHOST: return destination->id.name;
	case DESTINATION_CAPTURE: return "capture";
	case DESTINATION_MX: break;
	}
	return "mx";
}

static void count(struct report *report, const struct queue_message *message, const struct destination *destination,
		  const struct outcome *outcome)
{
	struct metrics *m = report->metrics;
	const char *name = relayhost_label(destination, outcome);
	bool direct = destination && destination->id.kind == DESTINATION_MX;
	double now = (double)clock_wall_ms(report->clock) / 1000;

	series_add(metrics_series(m, METRIC_DELIVERY_ATTEMPTS, name, direct ? report_operator(outcome->host) : "other",
				  outcome_kind_name(outcome->kind)),
		   1);
	switch (outcome->kind) {
	case OUTCOME_DELIVERED:
		series_observe(metrics_series(m, METRIC_DELIVERY_LATENCY, name, NULL, NULL),
			       now - (double)message->envelope.arrived_wall / 1000);
		series_set(metrics_series(m, METRIC_LAST_SUCCESS, name, NULL, NULL), now);
		break;
	case OUTCOME_DEFERRED:
		series_add(metrics_series(m, METRIC_DEFERRALS, name, failure_class_name(outcome->class), NULL), 1);
		break;
	case OUTCOME_FAILED:
	case OUTCOME_EXPIRED:
		series_add(metrics_series(m, METRIC_BOUNCES, name, outcome_bounce_class(outcome), NULL), 1);
		break;
	default: break;
	}
}

void report_outcome(struct report *report, const struct queue_message *message, uint32_t recipient,
		    const struct destination *destination, const struct outcome *outcome, uint32_t attempts,
		    int64_t next_wall)
{
	static const enum log_level levels[] = {LOG_INFO, LOG_INFO, LOG_INFO, LOG_WARN, LOG_WARN, LOG_INFO};
	const struct queue_envelope *envelope = &message->envelope;
	int64_t now = clock_wall_ms(report->clock);
	bool deferred = outcome->kind == OUTCOME_DEFERRED;

	count(report, message, destination, outcome);
	log_event(report->log, levels[outcome->kind], outcome_kind_name(outcome->kind), LOG_ID(message->id),
		  LOG_TEXT_OF("user", envelope->user), LOG_ADDR("from", envelope->sender),
		  LOG_ADDR("rcpt", envelope->recipients[recipient].address),
		  LOG_STR("outcome", outcome_kind_name(outcome->kind)),
		  LOG_STR("class", outcome->class == CLASS_NONE ? "" : failure_class_name(outcome->class)),
		  LOG_INT("code", outcome->code), LOG_STR("host", outcome->host),
		  LOG_STR("enhanced", outcome->enhanced),
		  LOG_STR("stage", outcome->kind == OUTCOME_DELIVERED ? "" : delivery_stage_name(outcome->stage)),
		  LOG_STR("relayhost",
			  destination && destination->id.kind == DESTINATION_RELAYHOST ? destination->id.name : ""),
		  LOG_INT("attempts", attempts), LOG_INT("age_ms", now - envelope->arrived_wall),
		  LOG_TEXT_OF("tag", envelope->tag), LOG_STR("text", outcome->text),
		  deferred ? LOG_INT("retry_sec", (next_wall - now + 500) / 1000) : (struct log_field){0});
}

void report_health(struct report *report, const struct destination *destination)
{
	const struct outcome *trouble = &destination->trouble;
	bool is_relayhost = destination->id.kind == DESTINATION_RELAYHOST;
	bool healthy = trouble->kind == OUTCOME_NONE;

	if (is_relayhost)
		series_set(metrics_series(report->metrics, METRIC_RELAYHOST_UP, destination->id.name, NULL, NULL),
			   healthy);
	if (is_relayhost && trouble->class == CLASS_AUTH)
		series_add(
		    metrics_series(report->metrics, METRIC_UPSTREAM_AUTH_FAILURES, destination->id.name, NULL, NULL),
		    1);
	if (healthy)
		log_event(report->log, LOG_INFO, "destination_ok", LOG_STR("destination", destination->key));
	else
		log_event(report->log, is_relayhost && trouble->class == CLASS_AUTH ? LOG_ERROR : LOG_WARN,
			  "destination_trouble", LOG_STR("class", failure_class_name(trouble->class)),
			  LOG_INT("code", trouble->code), LOG_STR("host", trouble->host),
			  LOG_STR("destination", destination->key),
			  LOG_STR("stage", delivery_stage_name(trouble->stage)), LOG_STR("text", trouble->text));
}
