/* GET /v1/status, /v1/health, POST /v1/reload - the daemon as a whole. */
#include "relayd/control_internal.h"

#include "base/base.h"
#include "relayd/oauth2.h"

#include <math.h>
#include <stdlib.h>

enum { TROUBLES_MAX = 10 };

static json_t *alerts_of(struct control *control)
{
	struct health_alert alerts[ALERT_COUNT];
	size_t count = health_alerts(control->options.health, alerts);
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(list,
				      json_pack("{s:s, s:o, s:o}", "alert", alert_name(alerts[i].alert), "text",
						control_str(alerts[i].text), "since_sec",
						control_seconds(alerts[i].since_wall, control_now_wall(control))));
	return list;
}

/* ---- the queue ---- */

enum { STEP_WORK = 40000, AGES = 5 }; /* one step: about two milliseconds, in places of the index */

/* A walk over the index: how old is what waits, and why. Done in steps, while the client waits for the answer. */
struct status {
	struct control *control;
	uint64_t cursor;
	int64_t now_wall;
	uint64_t ages[STATE_COUNT][AGES];
	uint64_t reasons[CLASS_COUNT];
};

static const struct {
	const char *name;
	int64_t below_ms;
} ages[AGES] = {{"5m", 5 * 60000}, {"1h", 3600000}, {"4h", 4 * 3600000}, {"1d", 86400000}, {"older", INT64_MAX}};

static void count_message(void *ctx, const struct queue_brief *brief)
{
	struct status *status = ctx;
	int64_t age = status->now_wall - brief->arrived_wall;
	int at = 0;

	while (age >= ages[at].below_ms && at + 1 < AGES)
		at++;
	status->ages[brief->state][at]++;
	if (brief->state != STATE_HELD && brief->reason < CLASS_COUNT)
		status->reasons[brief->reason]++;
}

static json_t *ages_of(const struct status *status, enum message_state state)
{
	json_t *object = json_object();

	for (int at = 0; at < AGES; at++)
		json_object_set_new(object, ages[at].name, json_integer((json_int_t)status->ages[state][at]));
	return object;
}

static json_t *reasons_of(const struct status *status)
{
	json_t *object = json_object();

	for (int class = CLASS_GREYLIST; class < CLASS_COUNT; class ++)
		if (status->reasons[class] > 0)
			json_object_set_new(object, failure_class_name((enum failure_class) class),
					    json_integer((json_int_t)status->reasons[class]));
	return object;
}

static json_t *queue_of(const struct status *status, const struct queue_stats *stats)
{
	struct control *control = status->control;
	json_t *queue = json_object();

	for (int state = 0; state < STATE_COUNT; state++) {
		int64_t oldest = stats->oldest_arrived_wall[state];
		json_object_set_new(
		    queue, message_state_name(state),
		    json_pack("{s:I, s:I, s:I, s:o, s:o}", "messages", (json_int_t)stats->messages[state], "recipients",
			      (json_int_t)stats->recipients[state], "bytes", (json_int_t)stats->bytes[state],
			      "oldest_age_sec",
			      oldest ? control_seconds(oldest, control_now_wall(control)) : json_integer(0), "ages",
			      ages_of(status, (enum message_state)state)));
	}
	return queue;
}

static json_t *journal_of(const struct queue_stats *stats)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "state", queue_journal_state_name(stats->state),
			 "bytes", (json_int_t)stats->journal_bytes, "free_bytes", (json_int_t)stats->free_bytes,
			 "live_bytes", (json_int_t)stats->live_bytes, "errors", (json_int_t)stats->errors, "syncs",
			 (json_int_t)stats->syncs, "segments", (json_int_t)stats->segments);
}

static uint64_t all_waiting(const struct queue_stats *stats)
{
	return stats->messages[STATE_READY] + stats->messages[STATE_INFLIGHT] + stats->messages[STATE_DEFERRED];
}

/* The destination does not hear of it when one of those that it was told of is deleted. */
static json_int_t waiting_of(const struct queue_stats *stats, const struct destination *d)
{
	return (json_int_t)MIN(destination_waiting(d), all_waiting(stats));
}

static json_t *next_attempt_of(struct control *control, const struct destination *d)
{
	int64_t wait_ms = d->backoff_until_ms - loop_now_ms(control->options.loop);

	if (d->paused) /* by an operator, who ends it */
		return json_null();
	return json_integer(wait_ms > 0 ? (wait_ms + 999) / 1000 : 0);
}

/* ---- relayhosts ---- */

static json_t *last_success_of(struct control *control, const char *name, int64_t seen_wall)
{
	double counted = metrics_sum(control->options.metrics, METRIC_LAST_SUCCESS, 0, name);
	int64_t last = MAX(seen_wall, (int64_t)llround(counted * 1000));

	return last > 0 ? control_seconds(last, control_now_wall(control)) : json_null();
}

/* Of its access token; null: it needs none. */
static json_t *token_of(struct control *control, const char *relayhost)
{
	struct oauth2_status status;
	int64_t left_ms;

	oauth2_look(control->options.oauth2, relayhost, &status);
	if (status.state == OAUTH2_NONE)
		return json_null();
	left_ms = status.expires_wall - control_now_wall(control);
	return json_pack("{s:s, s:o, s:o}", "state", oauth2_state_name(status.state), "expires_sec",
			 status.expires_wall ? json_integer(MAX(left_ms / 1000, 0)) : json_null(), "trouble",
			 control_str(status.trouble));
}

/* {limit, used, wait_sec}: of the window that the rate speaks of; null: no rate. */
static json_t *quota_of(struct control *control, const struct config_relayhost *relayhost)
{
	struct rate *rate;
	struct buf limit;
	json_t *quota;

	if (!control->options.rates || relayhost->rate.count == 0)
		return json_null();
	rate = rates_get(control->options.rates, RATE_OF_RELAYHOST, relayhost->name);
	buf_init(&limit, 64);
	config_rate_format(&relayhost->rate, &limit);
	quota = json_pack("{s:o, s:I, s:I}", "limit", control_text(buf_slice(&limit)), "used",
			  (json_int_t)rate_used(rate), "wait_sec", (json_int_t)((rate_wait_ms(rate) + 999) / 1000));
	buf_fini(&limit);
	return quota;
}

/* A relayhost is one destination for each TLS level that routes ask of it. */
static json_t *relayhost_of(struct control *control, const struct queue_stats *stats,
			    const struct config_relayhost *relayhost)
{
	const struct destination *trouble = NULL;
	struct destination *d = NULL;
	int64_t last_success = 0, since = pauses_since_wall(control->options.pauses, relayhost->name);
	json_int_t waiting = 0;
	struct buf address;
	json_t *answer;

	while ((d = destinations_next(control->options.destinations, d))) {
		if (d->id.kind != DESTINATION_RELAYHOST || strcmp(d->id.name, relayhost->name) != 0)
			continue;
		waiting += waiting_of(stats, d);
		last_success = MAX(last_success, d->last_success_wall);
		if (d->trouble.kind != OUTCOME_NONE)
			trouble = d;
	}
	buf_init(&address, 1024);
	config_endpoint_format(&relayhost->address, &address);
	answer = json_pack("{s:s, s:o, s:b, s:o, s:I}", "name", relayhost->name, "address",
			   control_text(buf_slice(&address)), "up", trouble == NULL, "last_success_sec",
			   last_success_of(control, relayhost->name, last_success), "waiting", waiting);
	buf_fini(&address);
	json_object_set_new(answer, "quota", quota_of(control, relayhost));
	json_object_set_new(answer, "paused", json_boolean(since != 0));
	json_object_set_new(answer, "paused_sec",
			    since ? control_seconds(since, control_now_wall(control)) : json_null());
	json_object_set_new(answer, "token", token_of(control, relayhost->name));
	json_object_set_new(answer, "class", control_str(trouble ? failure_class_name(trouble->trouble.class) : ""));
	json_object_set_new(answer, "trouble", control_str(trouble ? trouble->trouble.text : ""));
	return answer;
}

static json_t *relayhosts_of(struct control *control, const struct queue_stats *stats)
{
	const struct config *config = control_config(control);
	json_t *list = json_array();

	for (size_t i = 0; i < config->relayhost_count; i++)
		json_array_append_new(list, relayhost_of(control, stats, &config->relayhosts[i]));
	return list;
}

/* ---- troubles ---- */

/* Relayhosts first, for all mail hangs on them; then those with most mail, then the longest in trouble. */
static int is_worse(const struct destination *a, const struct destination *b)
{
	uint64_t waits_a = destination_waiting(a), waits_b = destination_waiting(b);

	if (a->id.kind != b->id.kind)
		return a->id.kind == DESTINATION_RELAYHOST;
	return waits_a != waits_b ? waits_a > waits_b : a->trouble_since_wall < b->trouble_since_wall;
}

static size_t find_worst(struct control *control, const struct queue_stats *stats,
			 const struct destination *worst[TROUBLES_MAX])
{
	struct destination *d = NULL;
	size_t count = 0, at;

	while ((d = destinations_next(control->options.destinations, d))) {
		/* A relayhost is of interest always, a domain only while mail waits for it. */
		if (d->trouble.kind == OUTCOME_NONE || (d->id.kind == DESTINATION_MX && waiting_of(stats, d) == 0))
			continue;
		for (at = count; at > 0 && is_worse(d, worst[at - 1]); at--)
			if (at < TROUBLES_MAX)
				worst[at] = worst[at - 1];
		if (at == TROUBLES_MAX)
			continue;
		worst[at] = d;
		count = MIN(count + 1, (size_t)TROUBLES_MAX);
	}
	return count;
}

static json_t *troubles_of(struct control *control, const struct queue_stats *stats)
{
	const struct destination *worst[TROUBLES_MAX];
	size_t count = find_worst(control, stats, worst);
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++) {
		const struct destination *d = worst[i];
		json_array_append_new(
		    list, json_pack("{s:o, s:s, s:o, s:o, s:o, s:I, s:i}", "destination", control_str(d->key), "class",
				    failure_class_name(d->trouble.class), "reason", control_str(d->trouble.text),
				    "since_sec", control_seconds(d->trouble_since_wall, control_now_wall(control)),
				    "next_attempt_sec", next_attempt_of(control, d), "waiting", waiting_of(stats, d),
				    "code", (int)d->trouble.code));
	}
	return list;
}

/* ---- the endpoints ---- */

static const char *promise_of(const struct config *config)
{
	return config->ephemeral_spool == CONFIG_EPHEMERAL_REFUSE
		   ? "message and envelope are fsynced on this machine's disk"
		   : "message and envelope are fsynced on this machine's disk; the spool itself may vanish "
		     "(ephemeral_spool accepts that)";
}

static json_t *certificate_of(struct control *control)
{
	double expires = metrics_least(control->options.metrics, METRIC_CERTIFICATE_EXPIRY);

	return expires > 0 ? json_pack("{s:o}", "expires_sec",
				       control_seconds(control_now_wall(control), (int64_t)expires * 1000))
			   : json_null();
}

static json_t *restart_keys(const struct control *control)
{
	const char *keys = control->options.needs_restart ? control->options.needs_restart(control->options.ctx) : "";

	return control_str(keys);
}

/* What is not in force, although it stands in the files. */
static json_t *config_of(const struct control *control)
{
	const char *refused =
	    control->options.refused_config ? control->options.refused_config(control->options.ctx) : "";

	return json_pack("{s:o, s:o}", "refused", control_str(refused), "needs_restart", restart_keys(control));
}

static json_t *status_document(const struct status *status)
{
	struct control *control = status->control;
	const struct control_options *o = &control->options;
	const struct config *config = control_config(control);
	char reason[512] = "ok";
	struct queue_stats stats;
	json_t *document;

	queue_stats(o->queue, &stats);
	health_mail_flows(o->health, reason, sizeof(reason));
	document = json_pack(
	    "{s:s, s:o, s:o, s:o}", "version", RELAYD_VERSION, "hostname", control_str(config->hostname), "uptime_sec",
	    control_seconds(o->started_wall, control_now_wall(control)), "health", control_str(reason));
	json_object_set_new(document, "alerts", alerts_of(control));
	json_object_set_new(document, "totals", activity_totals(control->activity));
	json_object_set_new(document, "rates", activity_rates(control->activity));
	json_object_set_new(document, "queue", queue_of(status, &stats));
	json_object_set_new(document, "reasons", reasons_of(status));
	json_object_set_new(document, "journal", journal_of(&stats));
	json_object_set_new(document, "relayhosts", relayhosts_of(control, &stats));
	json_object_set_new(document, "troubles", troubles_of(control, &stats));
	json_object_set_new(document, "users", activity_users(control->activity));
	json_object_set_new(document, "certificate", certificate_of(control));
	json_object_set_new(document, "config", config_of(control));
	json_object_set_new(document, "promise", json_string(promise_of(config)));
	json_object_set_new(document, "jobs", json_integer(scheduler_job_count(o->scheduler)));
	json_object_set_new(document, "connections",
			    json_pack("{s:I, s:I}", "inbound",
				      (json_int_t)metrics_sum(o->metrics, METRIC_CONNECTIONS, 0, "in"), "outbound",
				      (json_int_t)destinations_connection_count(o->destinations)));
	return document;
}

static enum http_more status_next(void *ctx, struct buf *out)
{
	struct status *status = ctx;
	json_t *document;

	queue_iterate(status->control->options.queue, &status->cursor, STEP_WORK, count_message, status);
	if (status->cursor != 0) {
		buf_append_byte(out, '\n');
		return HTTP_MORE;
	}
	document = status_document(status);
	if (control_dump(out, document) != 0) /* with thousands of relayhosts */
		buf_append_str(out, "{\"error\":\"the answer is too long\"}");
	buf_append_byte(out, '\n');
	json_decref(document);
	return HTTP_END;
}

void control_get_status(struct control *control, const struct http_request *request, json_t *body,
			struct http_response *response)
{
	struct status *status = xcalloc(1, sizeof(*status));

	(void)request;
	(void)body;
	status->control = control;
	status->now_wall = control_now_wall(control);
	response->stream_next = status_next;
	response->stream_free = free;
	response->stream_ctx = status;
}

void control_get_health(struct control *control, const struct http_request *request, json_t *body,
			struct http_response *response)
{
	const char *mail = http_request_query(request, "mail");
	char reason[512] = "";
	bool is_good = mail && strcmp(mail, "0") != 0
			   ? health_mail_flows(control->options.health, reason, sizeof(reason))
			   : health_is_ready(control->options.health, reason, sizeof(reason));

	(void)body;
	response->status = is_good ? 200 : 503;
	control_answer(response, json_pack("{s:b, s:o}", "ok", is_good, "reason", control_str(is_good ? "" : reason)));
}

void control_post_reload(struct control *control, const struct http_request *request, json_t *body,
			 struct http_response *response)
{
	struct err err = {0};
	int rc = control->options.reload(control->options.ctx, &err);

	(void)request;
	(void)body;
	if (rc != 0)
		control_refuse(response, 400, "%s", err.text);
	else
		control_answer(response, json_pack("{s:b, s:o}", "ok", 1, "needs_restart", restart_keys(control)));
}
