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

/* The label `result` of submissions and `outcome` of attempts are the third. */
static json_t *total(struct control *control, enum metric metric, const char *word)
{
	return json_integer((json_int_t)metrics_sum(control->options.metrics, metric, 2, word));
}

static json_t *totals_of(struct control *control)
{
	json_t *totals = json_object();
	json_int_t failed = (json_int_t)(metrics_sum(control->options.metrics, METRIC_DELIVERY_ATTEMPTS, 2,
						     outcome_kind_name(OUTCOME_FAILED)) +
					 metrics_sum(control->options.metrics, METRIC_DELIVERY_ATTEMPTS, 2,
						     outcome_kind_name(OUTCOME_EXPIRED)));

	json_object_set_new(totals, "accepted", total(control, METRIC_SUBMISSIONS, "accepted"));
	json_object_set_new(totals, "delivered",
			    total(control, METRIC_DELIVERY_ATTEMPTS, outcome_kind_name(OUTCOME_DELIVERED)));
	json_object_set_new(totals, "deferred",
			    total(control, METRIC_DELIVERY_ATTEMPTS, outcome_kind_name(OUTCOME_DEFERRED)));
	json_object_set_new(totals, "failed", json_integer(failed));
	return totals;
}

static json_t *queue_of(struct control *control, const struct queue_stats *stats)
{
	json_t *queue = json_object();

	for (int state = 0; state < STATE_COUNT; state++) {
		int64_t oldest = stats->oldest_arrived_wall[state];
		json_object_set_new(
		    queue, message_state_name(state),
		    json_pack("{s:I, s:I, s:I, s:o}", "messages", (json_int_t)stats->messages[state], "recipients",
			      (json_int_t)stats->recipients[state], "bytes", (json_int_t)stats->bytes[state],
			      "oldest_age_sec",
			      oldest ? control_seconds(oldest, control_now_wall(control)) : json_integer(0)));
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

static json_int_t waiting_of(const struct destination *d)
{
	return (json_int_t)destination_waiting(d);
}

static json_t *next_attempt_of(struct control *control, const struct destination *d)
{
	int64_t wait_ms = d->backoff_until_ms - loop_now_ms(control->options.loop);

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

/* A relayhost is one destination for each TLS level that routes ask of it. */
static json_t *relayhost_of(struct control *control, const struct config_relayhost *relayhost)
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
		waiting += waiting_of(d);
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
	json_object_set_new(answer, "paused", json_boolean(since != 0));
	json_object_set_new(answer, "paused_sec",
			    since ? control_seconds(since, control_now_wall(control)) : json_null());
	json_object_set_new(answer, "token", token_of(control, relayhost->name));
	json_object_set_new(answer, "class", control_str(trouble ? failure_class_name(trouble->trouble.class) : ""));
	json_object_set_new(answer, "trouble", control_str(trouble ? trouble->trouble.text : ""));
	return answer;
}

static json_t *relayhosts_of(struct control *control)
{
	const struct config *config = control_config(control);
	json_t *list = json_array();

	for (size_t i = 0; i < config->relayhost_count; i++)
		json_array_append_new(list, relayhost_of(control, &config->relayhosts[i]));
	return list;
}

/* ---- troubles ---- */

/* Relayhosts first, for all mail hangs on them; then those with most mail, then the longest in trouble. */
static int is_worse(const struct destination *a, const struct destination *b)
{
	json_int_t waits_a = waiting_of(a), waits_b = waiting_of(b);

	if (a->id.kind != b->id.kind)
		return a->id.kind == DESTINATION_RELAYHOST;
	return waits_a != waits_b ? waits_a > waits_b : a->trouble_since_wall < b->trouble_since_wall;
}

static size_t find_worst(struct control *control, const struct destination *worst[TROUBLES_MAX])
{
	struct destination *d = NULL;
	size_t count = 0, at;

	while ((d = destinations_next(control->options.destinations, d))) {
		if (d->trouble.kind == OUTCOME_NONE)
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

static json_t *troubles_of(struct control *control)
{
	const struct destination *worst[TROUBLES_MAX];
	size_t count = find_worst(control, worst);
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++) {
		const struct destination *d = worst[i];
		json_array_append_new(
		    list, json_pack("{s:o, s:s, s:o, s:o, s:o, s:I}", "destination", control_str(d->key), "class",
				    failure_class_name(d->trouble.class), "reason", control_str(d->trouble.text),
				    "since_sec", control_seconds(d->trouble_since_wall, control_now_wall(control)),
				    "next_attempt_sec", next_attempt_of(control, d), "waiting", waiting_of(d)));
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

void control_get_status(struct control *control, const struct http_request *request, json_t *body,
			struct http_response *response)
{
	const struct control_options *o = &control->options;
	const struct config *config = control_config(control);
	char reason[512] = "ok";
	struct queue_stats stats;
	json_t *status;

	(void)request;
	(void)body;
	queue_stats(o->queue, &stats);
	health_mail_flows(o->health, reason, sizeof(reason));
	status = json_pack("{s:s, s:o, s:o, s:o}", "version", RELAYD_VERSION, "hostname", control_str(config->hostname),
			   "uptime_sec", control_seconds(o->started_wall, control_now_wall(control)), "health",
			   control_str(reason));
	json_object_set_new(status, "alerts", alerts_of(control));
	json_object_set_new(status, "totals", totals_of(control));
	json_object_set_new(status, "queue", queue_of(control, &stats));
	json_object_set_new(status, "journal", journal_of(&stats));
	json_object_set_new(status, "relayhosts", relayhosts_of(control));
	json_object_set_new(status, "troubles", troubles_of(control));
	json_object_set_new(status, "promise", json_string(promise_of(config)));
	json_object_set_new(status, "jobs", json_integer(scheduler_job_count(o->scheduler)));
	json_object_set_new(status, "connections",
			    json_pack("{s:I, s:I}", "inbound",
				      (json_int_t)metrics_sum(o->metrics, METRIC_CONNECTIONS, 0, "in"), "outbound",
				      (json_int_t)destinations_connection_count(o->destinations)));
	control_answer(response, status);
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
		control_answer(response, json_pack("{s:b}", "ok", 1));
}
