#include "test/sim/rig_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { JOURNAL_PATIENCE_MS = 5000 };
enum { DISK_BYTES = 256 << 20, SEGMENT_BYTES = 256 << 10, PIECE_BYTES = 16 << 10 };

/* ---- what lasts ---- */

static size_t log_to_stderr(void *ctx, struct slice bytes)
{
	(void)ctx;
	fwrite(bytes.ptr, 1, bytes.len, stderr);
	return bytes.len;
}

struct rig *rig_new(const struct rig_options *options, struct sim_clock *clock, struct world *world,
		    struct ledger *ledger, uint64_t seed)
{
	struct rig *rig = xcalloc(1, sizeof(*rig));
	struct err err;

	rig->options = *options;
	rig->clock = clock;
	rig->world = world;
	rig->ledger = ledger;
	rng_seeded_init(&rig->rng, seed);
	fault_disk_init(&rig->disk, DISK_BYTES, seed);
	rig->config = rig_make_config(options);
	rig->tls_policy = tls_policy_new(rig->config, &err);
	BUG_ON(!rig->tls_policy);
	list_init(&rig->bouncing);
	rig_make_spool(rig);
	return rig;
}

/* ---- the disk takes its time ---- */

static void watch_disk(struct rig *rig);

static void on_disk_time(void *ctx)
{
	struct rig *rig = ctx;

	if (rig->sync_fails && rig->disk.async_count > 0 && !rig->disk.is_dead) {
		rig->sync_fails = false;
		fault_disk_arm(&rig->disk, 1, 1, FAULT_EIO);
	}
	rig->disk_ended |= fault_disk_finish(&rig->disk);
	watch_disk(rig);
}

static void watch_disk(struct rig *rig)
{
	struct timers *timers = loop_timers(rig->world->loop);
	int64_t worst = rig->options.sync_worst_ms;

	timers_cancel(timers, &rig->disk_timer);
	if (rig->disk.async_count > 0 && rig->is_up)
		rig->disk_timer = timers_add(
		    timers,
		    rig->clock->mono + (sim_chance(&rig->rng.rng, 5) ? sim_between(&rig->rng.rng, 1, worst) : 1),
		    on_disk_time, rig);
}

void rig_fail_sync(struct rig *rig)
{
	rig->sync_fails = true;
}

/* ---- what the parts ask and tell ---- */

static void on_corruption(void *ctx, uint64_t id, const char *text)
{
	struct rig *rig = ctx;

	(void)id;
	/* After a power cut it cannot know whether what is torn had been synced; the comparison does. */
	if (rig->queue || !rig->had_power_cut)
		ledger_violate(rig->ledger, 0, "the queue says: %s", text);
	else
		ledger_trace(rig->ledger, 0, "relay: the queue says: %s", text);
}

static void route(void *ctx, const struct queue_envelope *envelope, uint32_t recipient, struct scheduler_targets *out)
{
	struct rig *rig = ctx;
	struct router_question question = router_question_of(envelope, recipient);

	router_decide(rig->config, &rig->rng.rng, &question, out, NULL);
}

static void report(void *ctx, const struct queue_message *message, uint32_t recipient,
		   const struct destination *destination, const struct outcome *outcome, uint32_t attempts,
		   int64_t next_wall)
{
	struct rig *rig = ctx;

	(void)destination;
	ledger_on_report(rig->ledger, message, recipient, outcome, attempts, next_wall);
}

/* Whom a DSN tells of, until it is safe. */
struct bouncing {
	struct rig *rig;
	struct list node;
	void (*done)(void *ctx, enum err_code result);
	void *ctx;
	uint32_t serial, count;
	uint32_t indexes[];
};

static void on_bounced(void *ctx, enum err_code result)
{
	struct bouncing *bouncing = ctx;

	for (uint32_t i = 0; result == 0 && i < bouncing->count; i++)
		ledger_on_bounced(bouncing->rig->ledger, bouncing->serial, bouncing->indexes[i]);
	bouncing->done(bouncing->ctx, result);
	list_remove(&bouncing->node);
	free(bouncing);
}

static void bounce(void *ctx, const struct queue_message *message, const struct job_failure *failures, uint32_t count,
		   void (*done)(void *done_ctx, enum err_code result), void *done_ctx)
{
	struct rig *rig = ctx;
	struct bouncing *bouncing = xcalloc(1, sizeof(*bouncing) + count * sizeof(uint32_t));
	struct truth_rcpt *first = ledger_find_rcpt(rig->ledger, message->envelope.recipients[0].address);

	*bouncing = (struct bouncing){.rig = rig, .done = done, .ctx = done_ctx};
	list_append(&rig->bouncing, &bouncing->node);
	bouncing->serial = first ? first->message->serial : 0;
	for (uint32_t i = 0; i < count; i++)
		if (ledger_on_bounce(rig->ledger, message, &failures[i]))
			bouncing->indexes[bouncing->count++] = failures[i].index;
	bounce_send(rig->bounce, message, failures, count, on_bounced, bouncing);
}

/* The account of a relayhost is well again: what waited for it comes now. */
static void note_hurried(void *ctx, const struct queue_brief *brief)
{
	struct rig *rig = ctx;
	struct queue_message message;

	if (brief->popped || (brief->reason != CLASS_AUTH && brief->attempts > 0) ||
	    queue_read_envelope(rig->queue, brief->id, 0, &message) != 0)
		return;
	for (size_t i = 0; i < message.envelope.recipient_count; i++) {
		struct truth_rcpt *rcpt = ledger_find_rcpt(rig->ledger, message.envelope.recipients[i].address);
		if (rcpt && message.status[i].state == QUEUE_WAITING)
			ledger_on_hastened(rig->ledger, rcpt);
	}
	queue_message_free(&message);
}

static void on_health(void *ctx, struct destination *destination)
{
	struct rig *rig = ctx;
	uint64_t cursor = 0;

	ledger_trace(rig->ledger, 0, "relay: %s is %s %s", destination->id.name,
		     destination->trouble.kind == OUTCOME_NONE ? "well" : "in trouble:", destination->trouble.text);
	if (destination->id.kind != DESTINATION_RELAYHOST || destination->trouble.kind != OUTCOME_NONE)
		return;
	do
		queue_iterate(rig->queue, &cursor, 4096, note_hurried, rig);
	while (cursor != 0);
	hurry_begin(rig->hurry);
}

/* One of the same operator has passed. */
static void release_greylisted(void *ctx, uint64_t id, uint32_t recipient)
{
	struct rig *rig = ctx;
	struct queue_message message;

	if (queue_read_envelope(rig->queue, id, 0, &message) != 0)
		return;
	if (message.status[recipient].state == QUEUE_WAITING) {
		struct truth_rcpt *rcpt = ledger_find_rcpt(rig->ledger, message.envelope.recipients[recipient].address);
		if (rcpt)
			ledger_on_hastened(rig->ledger, rcpt);
	}
	queue_message_free(&message);
	scheduler_release(rig->scheduler, id, recipient);
}

/* ---- start ---- */

static void open_queue(struct rig *rig)
{
	struct queue_options options = {.disk = &rig->disk.disk,
					.clock = &rig->clock->clock,
					.rng = &rig->rng.rng,
					.segment_bytes = SEGMENT_BYTES,
					.piece_bytes = PIECE_BYTES,
					.notify = {.ctx = rig, .on_corruption = on_corruption}};
	struct err err;

	rig->queue = queue_open(&options, NULL, &err);
	if (!rig->queue) {
		ledger_violate(rig->ledger, 0, "the queue does not open: %s", err.text);
		printf("the queue does not open: %s\n", err.text);
		abort();
	}
}

static void open_dns(struct rig *rig)
{
	static const char *const own_names[] = {"relay.test"};
	struct dns_options options = {.transport = &rig->world->transport, .trust = DNS_TRUST_NEVER};
	struct mx_options mx_options = {.ip = DNS_IP_4, .own_names = own_names, .own_name_count = 1};
	struct timers *timers = loop_timers(rig->loop);
	const struct clock *clock = &rig->clock->clock;
	struct err err;

	rig->dns = dns_new(&options, NULL, timers, clock, &rig->rng.rng, &err);
	BUG_ON(!rig->dns);
	rig->resolver = resolver_new(rig->dns, timers, clock, &rig->rng.rng, "/dev/null");
	rig->mx = mx_new(rig->dns, rig->resolver, timers, clock, &rig->rng.rng, &mx_options);
}

static void make_deliveries(struct rig *rig)
{
	struct scheduler_options scheduling = {.loop = rig->loop,
					       .queue = rig->queue,
					       .clock = &rig->clock->clock,
					       .log = rig->log,
					       .rng = &rig->rng.rng,
					       .ctx = rig,
					       .route = route,
					       .report = report,
					       .bounce = bounce};
	struct deliveries_options delivering = {
	    .loop = rig->loop,
	    .net = rig->net,
	    .queue = rig->queue,
	    .metrics = rig->metrics,
	    .resolver = rig->resolver,
	    .mx = rig->mx,
	    .tls = {.dns = rig->dns, .timers = loop_timers(rig->loop), .clock = &rig->clock->clock},
	};
	struct destinations_options options = {.loop = rig->loop,
					       .queue = rig->queue,
					       .clock = &rig->clock->clock,
					       .connections_max = rig->options.connections,
					       .per_destination_max = rig->options.per_destination};
	struct greylist_options learning = {
	    .memos = rig->memos, .rng = &rig->rng.rng, .ctx = rig, .release = release_greylisted};
	struct retry_policy policy;

	rig->pauses = pauses_new(rig->memos, &rig->clock->clock);
	rig->rates = rates_new(rig->loop, &rig->clock->clock, rig->memos);
	rates_configure(rig->rates, rig->config);
	options.pauses = rig->pauses;
	options.rates = rig->rates;
	rig->deliveries = deliveries_new(&delivering);
	deliveries_configure(rig->deliveries, rig->config, rig->tls_policy);
	rig->hurry = hurry_new(rig->loop, rig->queue);
	rig->scheduler = scheduler_new(&scheduling);
	rig->greylist = greylist_new(&learning, rig->clock->wall);
	scheduler_set_greylist(rig->scheduler, rig->greylist);
	scheduler_destination_events(rig->scheduler, &options.events);
	options.events.on_health = on_health;
	options.events.health_ctx = rig;
	options.driver = deliveries_driver(rig->deliveries);
	rig->destinations = destinations_new(&options);
	scheduler_set_destinations(rig->scheduler, rig->destinations);
	retry_policy_default(&policy);
	scheduler_configure(rig->scheduler, &policy, rig->options.warn_after_ms);
}

static void on_turn_end(void *ctx)
{
	struct rig *rig = ctx;
	int64_t next;

	if (!rig->is_up)
		return;
	queue_turn(rig->queue);
	scheduler_turn(rig->scheduler);
	next = queue_next_deadline_ms(rig->queue);
	if (next != INT64_MAX)
		loop_wake_at(rig->loop, next);
	log_flush(rig->log);
}

void rig_start(struct rig *rig)
{
	struct net_connector connector = world_connector(rig->world);
	struct log_options logging = {.level = rig->config->log.level};

	BUG_ON(rig->is_up);
	rig->starts++;
	ledger_trace(rig->ledger, 0, "relay: starts");
	rig->loop = loop_new(&rig->clock->clock);
	rig->log = log_new(&rig->clock->clock, log_to_stderr, NULL);
	log_configure(rig->log, &logging);
	rig->metrics = metrics_new();
	rig->net = net_new(rig->loop);
	net_set_connector(rig->net, &connector);
	open_queue(rig);
	open_dns(rig);
	rig->bounce = bounce_new(
	    &(struct bounce_options){rig->loop, rig->queue, &rig->clock->clock, &rig->rng.rng, rig->log, NULL, NULL});
	bounce_configure(rig->bounce, rig->config);
	rig->spool_fd = open(rig->spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rig->memos = memos_new(&(struct memos_options){rig->loop, rig->log, rig->spool_fd, NULL});
	make_deliveries(rig);
	rig->quota = quota_new();
	rig->tokens = rig->options.user_rate.count;
	rig->tokens_at_ms = rig->clock->mono;
	loop_add_turn_hook(rig->loop, on_turn_end, rig);
	rig->is_up = true;
	rig->is_stopping = rig->is_closing = false;
	ledger_compare(rig->ledger, rig->queue, true);
}

bool rig_is_up(const struct rig *rig)
{
	return rig->is_up;
}

/* ---- the end ---- */

static void drop_bouncing(struct rig *rig)
{
	for (struct list *node; (node = list_pop(&rig->bouncing));)
		free(CONTAINER_OF(node, struct bouncing, node));
}

/* Everything but queue and disk, in the order of relayd_free(). */
static void drop_parts(struct rig *rig)
{
	destinations_stop(rig->destinations);
	deliveries_free(&rig->deliveries);
	memos_free(&rig->memos);
	quota_free(&rig->quota);
	hurry_free(&rig->hurry);
	destinations_free(&rig->destinations);
	pauses_free(&rig->pauses);
	rates_free(&rig->rates);
	scheduler_free(&rig->scheduler);
	greylist_free(&rig->greylist);
	bounce_free(&rig->bounce);
	drop_bouncing(rig);
	mx_free(&rig->mx);
	resolver_free(&rig->resolver);
	world_forget_questions(rig->world);
	dns_free(&rig->dns);
}

static void drop_rest(struct rig *rig)
{
	loop_turn(rig->loop, 0); /* what was posted */
	net_free(&rig->net);
	metrics_free(&rig->metrics);
	if (timers_next_at_ms(loop_timers(rig->loop)) != INT64_MAX)
		ledger_violate(rig->ledger, 0, "a timer is left when everything is gone");
	loop_free(&rig->loop);
	log_free(&rig->log);
	close(rig->spool_fd);
	timers_cancel(loop_timers(rig->world->loop), &rig->disk_timer);
}

/* Nothing more can be written there. */
static void lose_spool(struct rig *rig)
{
	int nowhere = open("/dev/null", O_RDONLY | O_CLOEXEC);

	BUG_ON(dup2(nowhere, rig->spool_fd) < 0);
	close(nowhere);
}

void rig_crash(struct rig *rig, bool power)
{
	ledger_trace(rig->ledger, 0, "relay: CRASH, %s", power ? "power" : "kill");
	rig->is_up = false;
	rig->had_power_cut = power;
	rig->disk.is_dead = true;
	world_orphan_peers(rig->world);
	world_forgive_meters(rig->world);
	lose_spool(rig);
	drop_parts(rig);
	/* Past the door: neither written nor marked. */
	journal_free(&rig->queue->journal);
	queue_close(&rig->queue);
	drop_rest(rig);
	fault_disk_crash(&rig->disk, power, rng_u64(&rig->rng.rng));
	rig->disk_ended = false;
	ledger_on_crash(rig->ledger);
}

void rig_stop(struct rig *rig)
{
	ledger_trace(rig->ledger, 0, "relay: stops");
	ledger_on_going_down(rig->ledger);
	rig->is_stopping = true;
	rig->stop_until_ms = rig->clock->mono + rig->config->stop_timeout_ms;
	scheduler_stop(rig->scheduler);
	destinations_stop(rig->destinations);
	bounce_hurry(rig->bounce);
}

bool rig_is_stopping(const struct rig *rig)
{
	return rig->is_stopping;
}

/* As finish() in relayd.c: first what is under way may end, then the journal is brought down. */
static void go_on_stopping(struct rig *rig)
{
	bool is_quiet = deliveries_count(rig->deliveries) == 0 && scheduler_job_count(rig->scheduler) == 0;

	if (!rig->is_closing) {
		if (!is_quiet && rig->clock->mono < rig->stop_until_ms)
			return;
		if (deliveries_count(rig->deliveries) > 0) {
			world_orphan_peers(rig->world);
			ledger_on_break(rig->ledger);
			deliveries_abort(rig->deliveries);
		}
		queue_stop(rig->queue);
		rig->is_closing = true;
		rig->stop_until_ms = rig->clock->mono + JOURNAL_PATIENCE_MS;
	}
	if (!queue_is_synced(rig->queue) || scheduler_job_count(rig->scheduler) > 0) {
		if (rig->clock->mono >= rig->stop_until_ms)
			ledger_violate(rig->ledger, 0, "the relay does not stop: %u jobs",
				       scheduler_job_count(rig->scheduler));
		return;
	}
	ledger_on_synced(rig->ledger);
	ledger_trace(rig->ledger, 0, "relay: stopped");
	rig->is_up = rig->is_stopping = false;
	drop_parts(rig);
	queue_close(&rig->queue);
	drop_rest(rig);
	fault_disk_crash(&rig->disk, false, 0);
}

void rig_free(struct rig **rig)
{
	struct rig *r = *rig;

	if (r->is_up)
		rig_crash(r, false);
	rig_remove_spool(r);
	fault_disk_fini(&r->disk);
	tls_policy_free(&r->tls_policy);
	config_free(&r->config);
	free(r);
	*rig = NULL;
}

/* ---- turns ---- */

struct loop *rig_loop(struct rig *rig)
{
	return rig->loop;
}

unsigned rig_turn(struct rig *rig)
{
	unsigned happened;

	if (!rig->is_up)
		return 0;
	happened = loop_turn(rig->loop, 0) + rig->disk_ended;
	rig->disk_ended = false;
	if (journal_unsynced_bytes(rig->queue->journal) == 0)
		ledger_on_synced(rig->ledger);
	if (rig->disk.async_count > 0 && rig->disk_timer == 0)
		watch_disk(rig);
	if (rig->is_stopping)
		go_on_stopping(rig);
	return happened;
}

int64_t rig_next_at_ms(const struct rig *rig)
{
	int64_t next;

	if (!rig->is_up)
		return INT64_MAX;
	next = rig->disk_ended ? rig->clock->mono : loop_next_at_ms(rig->loop);
	return rig->is_stopping ? MIN(next, MAX(rig->stop_until_ms, rig->clock->mono)) : next;
}

/* ---- looking ---- */

uint64_t rig_message_count(const struct rig *rig)
{
	struct queue_stats stats;
	uint64_t count = 0;

	queue_stats(rig->queue, &stats);
	for (int state = 0; state < STATE_COUNT; state++)
		count += stats.messages[state];
	return count;
}

unsigned rig_connection_count(const struct rig *rig)
{
	return destinations_connection_count(rig->destinations);
}

bool rig_is_empty(const struct rig *rig)
{
	return rig->is_up && rig_message_count(rig) == 0 && scheduler_job_count(rig->scheduler) == 0 &&
	       journal_unsynced_bytes(rig->queue->journal) == 0;
}

void rig_compare(struct rig *rig)
{
	ledger_compare(rig->ledger, rig->queue, false);
}

unsigned rig_start_count(const struct rig *rig)
{
	return rig->starts;
}

unsigned rig_destination_count(const struct rig *rig)
{
	unsigned count = 0;

	for (struct destination *d = NULL; (d = destinations_next(rig->destinations, d));)
		count++;
	return count;
}
