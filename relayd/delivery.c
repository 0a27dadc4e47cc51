#include "relayd/delivery_internal.h"

#include <stdlib.h>

enum { QUIT_PATIENCE_MS = 2 * 1000, SLOW_BEGINNER_MS = 10 * 1000 };

/* ---- small things ---- */

int64_t delivery_now_ms(const struct delivery *d)
{
	return loop_now_ms(d->owner->options.loop);
}

bool delivery_is_to_relayhost(const struct delivery *d)
{
	return d->destination->id.kind == DESTINATION_RELAYHOST;
}

const struct config_relayhost *delivery_relayhost(const struct delivery *d)
{
	return delivery_is_to_relayhost(d) ? config_find_relayhost(d->config, slice_of_str(d->destination->id.name))
					   : NULL;
}

bool delivery_is_outdated(const struct delivery *d)
{
	return d->config != d->owner->config;
}

void delivery_observe(struct delivery *d, const char *phase)
{
	series_observe(metrics_series(d->owner->options.metrics, METRIC_ATTEMPT_DURATION, phase, NULL, NULL),
		       (double)(delivery_now_ms(d) - d->step_began_ms) / 1000);
	d->step_began_ms = delivery_now_ms(d);
}

struct outcome_place delivery_place(const struct delivery *d, enum delivery_stage stage, unsigned attempts)
{
	return (struct outcome_place){stage, d->where[0] ? d->where : d->destination->id.name,
				      delivery_is_to_relayhost(d), attempts};
}

/* ---- the end ---- */

static void delivery_free(void *ctx)
{
	struct delivery *d = ctx;

	free(d->recipients);
	free(d->indexes);
	free(d->refusals);
	mx_result_free(&d->hosts);
	tls_policy_free(&d->policy);
	config_free(&d->config);
	free(d);
}

void delivery_drop_connection(struct delivery *d)
{
	struct loop *loop = d->owner->options.loop;

	timers_cancel(loop_timers(loop), &d->timer);
	timers_cancel(loop_timers(loop), &d->tls_timer);
	delivery_end_attempts(d);
	stream_close(&d->stream);
	smtp_client_free(&d->client);
}

void delivery_close_content(struct delivery *d)
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
	delivery_close_content(d);
	if (job)
		destination_on_job_done(d->destination, job, false);
}

void delivery_end(struct delivery *d)
{
	if (d->stage == ENDING)
		return;
	d->stage = ENDING;
	/* Both number their lookups from 1: the wrong one would end somebody else's. */
	if (d->destination->id.kind == DESTINATION_RELAYHOST)
		resolver_cancel(d->owner->options.resolver, &d->lookup);
	else
		mx_cancel(d->owner->options.mx, &d->lookup);
	give_job_back(d);
	delivery_drop_connection(d);
	tls_lookup_free(&d->tls_lookup);
	delivery_drop_token(d);
	list_remove(&d->node);
	d->owner->count--;
	if (!d->is_replaced)
		destination_on_closed(d->destination, &d->slot);
	loop_post(d->owner->options.loop, delivery_free, d);
}

/* Like delivery_end(), but what the client has to say (QUIT) goes out first. */
void delivery_end_gently(struct delivery *d)
{
	if (d->stream && d->client) {
		struct slice last = smtp_client_output(d->client);
		stream_write(d->stream, last);
		smtp_client_output_sent(d->client, last.len);
		stream_close_gently(&d->stream, QUIT_PATIENCE_MS);
	}
	delivery_end(d);
}

/* QUIT, and the connection closes by itself; the delivery goes on without it. */
void delivery_part(struct delivery *d)
{
	struct smtp_client_event event;
	struct slice last;

	smtp_client_quit(d->client);
	while (smtp_client_next(d->client, &event))
		;
	last = smtp_client_output(d->client);
	if (!slice_has_suffix(last, SLICE("QUIT\r\n"))) { /* it spoke out of turn: then nobody waits */
		stream_close(&d->stream);
		return;
	}
	stream_write(d->stream, last);
	smtp_client_output_sent(d->client, last.len);
	stream_close_gently(&d->stream, QUIT_PATIENCE_MS);
}

/* QUIT, and nobody is waited for: an idle session that said it must not be given another job. */
void delivery_say_goodbye(struct delivery *d)
{
	struct smtp_client_event event;

	smtp_client_quit(d->client);
	while (smtp_client_next(d->client, &event))
		;
	delivery_end_gently(d);
}

/* ---- the driver ---- */

static struct destination_slot *open_delivery(void *ctx, struct destination *destination)
{
	struct deliveries *owner = ctx;
	struct delivery *d = xcalloc(1, sizeof(*d));

	d->owner = owner;
	d->destination = destination;
	d->config = config_ref(owner->config);
	d->policy = tls_policy_ref(owner->policy);
	d->stage = RESOLVING;
	d->opened_ms = delivery_now_ms(d);
	list_node_init(&d->node);
	list_append(&owner->all, &d->node);
	owner->count++;
	/* Not from inside: the destination is in the middle of its own work. */
	timers_set(loop_timers(owner->options.loop), &d->timer, delivery_now_ms(d), delivery_begin, d);
	return &d->slot;
}

static void wake_delivery(struct destination_slot *slot)
{
	struct delivery *d = CONTAINER_OF(slot, struct delivery, slot);

	timers_cancel(loop_timers(d->owner->options.loop), &d->timer);
	delivery_take_job(d);
	delivery_pump(d);
}

static void quit_delivery(struct destination_slot *slot)
{
	delivery_say_goodbye(CONTAINER_OF(slot, struct delivery, slot));
}

/* A relayhost is the operator's, and few. */
static struct delivery *find_slow_beginner(const struct deliveries *deliveries)
{
	LIST_FOREACH (node, &deliveries->all) {
		struct delivery *d = CONTAINER_OF(node, struct delivery, node);
		if (d->stage <= SESSION && !d->slot.has_session && !delivery_is_to_relayhost(d) &&
		    delivery_now_ms(d) - d->opened_ms >= SLOW_BEGINNER_MS)
			return d;
	}
	return NULL;
}

static void give_up_slow(struct delivery *d)
{
	enum delivery_stage stage = d->stage == RESOLVING ? STAGE_DNS : d->client ? STAGE_GREETING : STAGE_CONNECT;

	if (d->stage == SESSION)
		hosts_note_failed(d->owner->hosts, &d->current->address, d->port, delivery_now_ms(d));
	delivery_candidate_fault(d, stage, CLASS_CONNECT,
				 "no session within ten seconds, and other domains wait for a connection "
				 "(delivery.connections)");
	delivery_fail_destination(d);
}

static void hurry_deliveries(void *ctx, unsigned count)
{
	struct delivery *d;

	for (; count > 0 && (d = find_slow_beginner(ctx)); count--)
		give_up_slow(d);
}

struct destination_driver deliveries_driver(struct deliveries *deliveries)
{
	return (struct destination_driver){deliveries, open_delivery, wake_delivery, quit_delivery, hurry_deliveries};
}

/* All that are known, at 0. */
static void make_series(struct metrics *m)
{
	static const char *const phases[] = {"dns", "connect", "tls", "auth", "envelope", "data"};
	static const char *const versions[] = {"TLSv1.2", "TLSv1.3"}, *const results[] = {"ok", "unverified", "failed"};

	for (size_t i = 0; i < ARRAY_LEN(phases); i++)
		metrics_series(m, METRIC_ATTEMPT_DURATION, phases[i], NULL, NULL);
	for (size_t v = 0; v < ARRAY_LEN(versions); v++)
		for (size_t r = 0; r < ARRAY_LEN(results); r++)
			metrics_series(m, METRIC_TLS_HANDSHAKES, "out", versions[v], results[r]);
	metrics_series(m, METRIC_TLS_HANDSHAKES, "out", "", "failed");
	metrics_series(m, METRIC_TLS_HANDSHAKES, "out", "", "plain");
}

struct deliveries *deliveries_new(const struct deliveries_options *options)
{
	struct deliveries *deliveries = xcalloc(1, sizeof(*deliveries));

	deliveries->options = *options;
	list_init(&deliveries->all);
	deliveries->hosts = hosts_new();
	make_series(options->metrics);
	return deliveries;
}

/* One without a session: it may wait for what the old configuration has wrong, and nobody else is tried meanwhile. */
static struct delivery *find_outdated_beginner(const struct deliveries *deliveries)
{
	LIST_FOREACH (node, &deliveries->all) {
		struct delivery *d = CONTAINER_OF(node, struct delivery, node);
		if (delivery_is_outdated(d) && d->stage <= SESSION && !d->job)
			return d;
	}
	return NULL;
}

void deliveries_configure(struct deliveries *deliveries, struct config *config, struct tls_policy *policy)
{
	struct config *old = deliveries->config;
	struct delivery *d;
	struct tls_policy *old_policy = deliveries->policy;

	deliveries->config = config_ref(config);
	config_free(&old);
	deliveries->policy = tls_policy_ref(policy);
	tls_policy_free(&old_policy);
	LIST_FOREACH (node, &deliveries->all)
		delivery_end_idling(CONTAINER_OF(node, struct delivery, node));
	while ((d = find_outdated_beginner(deliveries)))
		delivery_end(d);
}

unsigned deliveries_count(const struct deliveries *deliveries)
{
	return deliveries->count;
}

void deliveries_abort(struct deliveries *deliveries)
{
	while (!list_is_empty(&deliveries->all))
		delivery_end(CONTAINER_OF(deliveries->all.next, struct delivery, node));
}

void deliveries_free(struct deliveries **deliveries)
{
	if (!*deliveries)
		return;
	deliveries_abort(*deliveries);
	hosts_free(&(*deliveries)->hosts);
	config_free(&(*deliveries)->config);
	tls_policy_free(&(*deliveries)->policy);
	free(*deliveries);
	*deliveries = NULL;
}
