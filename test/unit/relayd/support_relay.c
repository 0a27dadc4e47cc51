#include "support_relay.h"

#include "relayd/router.h"

#include <fcntl.h>
#include <ftw.h>
#include <unistd.h>

static size_t on_log(void *ctx, struct slice bytes)
{
	buf_append(ctx, bytes);
	return bytes.len;
}

static void on_corruption(void *ctx, uint64_t id, const char *text)
{
	(void)id;
	(void)text;
	((struct relay *)ctx)->corruptions++;
}

/* ---- what the scheduler asks ---- */

static void route(void *ctx, const struct queue_envelope *envelope, uint32_t recipient, struct scheduler_targets *out)
{
	struct relay *relay = ctx;
	struct router_question question = router_question_of(envelope, recipient);

	if (relay->route)
		relay->route(relay, envelope, recipient, out);
	else
		router_decide(relay->config, &relay->rng.rng, &question, out, NULL);
}

static void report(void *ctx, const struct queue_message *message, uint32_t recipient,
		   const struct destination *destination, const struct outcome *outcome, uint32_t attempts,
		   int64_t next_wall)
{
	struct relay *relay = ctx;
	struct reported *reported = &relay->reports[relay->report_count++];

	assert_true(relay->report_count <= REPORTS_MAX);
	*reported = (struct reported){message->id, recipient, attempts, *outcome, next_wall, {0}};
	if (destination)
		snprintf(reported->destination, sizeof(reported->destination), "%s", destination->key);
	if (outcome->kind != OUTCOME_DEFERRED)
		recent_add(relay->recent, message, recipient, outcome, attempts, clock_wall_ms(&relay->clock.clock));
	if (outcome->kind == OUTCOME_DELIVERED)
		health_note_delivery(relay->health);
}

static void bounce(void *ctx, const struct queue_message *message, const struct job_failure *failures, uint32_t count,
		   void (*done)(void *done_ctx, enum err_code result), void *done_ctx)
{
	struct relay *relay = ctx;

	relay->bounces++;
	relay->bounced_id = message->id;
	relay->bounced_count = count;
	for (uint32_t i = 0; i < count && i < ARRAY_LEN(relay->bounced); i++)
		relay->bounced[i] = failures[i];
	if (relay->teller) {
		bounce_send(relay->teller, message, failures, count, done, done_ctx);
	} else if (relay->bounce_waits) {
		relay->bounce_done = done;
		relay->bounce_ctx = done_ctx;
	} else {
		done(done_ctx, relay->bounce_result);
	}
}

static void on_health(void *ctx, struct destination *d)
{
	struct relay *relay = ctx;

	relay->health_changes++;
	snprintf(relay->last_health, sizeof(relay->last_health), "%s %s", d->key, failure_class_name(d->trouble.class));
	health_look(relay->health);
}

static void on_rate_wait(void *ctx, enum rate_scope scope)
{
	(void)scope;
	((struct relay *)ctx)->rate_waits++;
}

/* ---- connections ---- */

static struct destination_slot *driver_open(void *ctx, struct destination *destination)
{
	struct relay *relay = ctx;
	struct fake_connection *connection = xcalloc(1, sizeof(*connection));

	connection->relay = relay;
	connection->destination = destination;
	connection->number = ++relay->opened;
	list_append(&relay->connections, &connection->node);
	return &connection->slot;
}

static void take_job(struct fake_connection *connection)
{
	connection->job = destination_next_job(connection->destination, &connection->slot);
}

static void driver_wake(struct destination_slot *slot)
{
	struct fake_connection *connection = CONTAINER_OF(slot, struct fake_connection, slot);

	connection->woken++;
	take_job(connection);
}

static void free_later(void *ctx)
{
	free(ctx);
}

void fake_close(struct fake_connection *connection)
{
	struct job *job = connection->job;

	connection->job = NULL;
	if (job)
		destination_on_job_done(connection->destination, job, false);
	list_remove(&connection->node);
	destination_on_closed(connection->destination, &connection->slot);
	loop_post(connection->relay->loop, free_later, connection);
}

static void driver_quit(struct destination_slot *slot)
{
	struct fake_connection *connection = CONTAINER_OF(slot, struct fake_connection, slot);

	connection->relay->quits++;
	fake_close(connection);
}

void fake_session(struct fake_connection *connection)
{
	destination_on_session(connection->destination);
	take_job(connection);
}

void fake_fail(struct fake_connection *connection, enum failure_class class, enum delivery_stage stage,
	       const char *text)
{
	struct outcome outcome = outcome_like(OUTCOME_DEFERRED, class, stage, 0, "4.4.1", text);

	destination_on_failed(connection->destination, &outcome);
	fake_close(connection);
}

void fake_finish(struct fake_connection *connection, const struct outcome *outcome)
{
	struct job *job = connection->job;

	assert_non_null(job);
	connection->job = NULL;
	for (uint32_t i = 0; i < job->count; i++)
		destination_on_outcome(connection->destination, job, i, outcome);
	destination_on_job_done(connection->destination, job, true);
	take_job(connection);
}

void fake_deliver(struct fake_connection *connection)
{
	struct outcome outcome =
	    outcome_like(OUTCOME_DELIVERED, CLASS_NONE, STAGE_DOT, 250, "2.0.0", "queued as 12345");

	fake_finish(connection, &outcome);
}

struct outcome outcome_like(enum outcome_kind kind, enum failure_class class, enum delivery_stage stage, int code,
			    const char *enhanced, const char *text)
{
	struct outcome outcome = {.kind = kind, .class = class, .stage = stage, .code = code};

	snprintf(outcome.enhanced, sizeof(outcome.enhanced), "%s", enhanced);
	snprintf(outcome.host, sizeof(outcome.host), "mx.example.net[192.0.2.1]");
	snprintf(outcome.text, sizeof(outcome.text), "%s", text);
	return outcome;
}

struct fake_connection *relay_connection(struct relay *relay, unsigned place)
{
	LIST_FOREACH (node, &relay->connections)
		if (place-- == 0)
			return CONTAINER_OF(node, struct fake_connection, node);
	return NULL;
}

struct fake_connection *relay_connection_to(struct relay *relay, const char *key)
{
	LIST_FOREACH (node, &relay->connections) {
		struct fake_connection *connection = CONTAINER_OF(node, struct fake_connection, node);
		if (strcmp(connection->destination->key, key) == 0)
			return connection;
	}
	fail_msg("no connection to %s", key);
	return NULL;
}

struct destination *relay_destination(struct relay *relay, const char *key)
{
	struct destination *d = NULL;

	while ((d = destinations_next(relay->destinations, d)))
		if (strcmp(d->key, key) == 0)
			return d;
	return NULL;
}

/* ---- the relay ---- */

static void on_turn_end(void *ctx)
{
	struct relay *relay = ctx;
	int64_t next;

	queue_turn(relay->queue);
	scheduler_turn(relay->scheduler);
	next = queue_next_deadline_ms(relay->queue);
	if (next != INT64_MAX)
		loop_wake_at(relay->loop, next);
	log_flush(relay->log);
}

static void open_queue(struct relay *relay)
{
	struct queue_options options = {.disk = relay->disk,
					.clock = &relay->clock.clock,
					.rng = &relay->rng.rng,
					.segment_bytes = 1024 * 1024,
					.notify = {relay, .on_corruption = on_corruption}};
	struct err err = {0};

	relay->queue = queue_open(&options, NULL, &err);
	if (!relay->queue)
		fail_msg("queue_open: %s", err.text);
}

static void on_capture_sync(void *ctx, int fd, uint64_t token)
{
	struct relay *relay = ctx;

	assert_true(fd >= 0);
	relay->capture_syncs++;
	if (relay->capture_waits)
		relay->capture_token = token;
	else
		assert_true(captures_on_disk_done(relay->captures, &(struct disk_done){.token = token, .fd = -1}));
}

static void make_parts(struct relay *relay)
{
	const struct clock *clock = &relay->clock.clock;
	struct scheduler_options scheduling = {.loop = relay->loop,
					       .queue = relay->queue,
					       .clock = clock,
					       .log = relay->log,
					       .rng = &relay->rng.rng,
					       .ctx = relay,
					       .route = route,
					       .report = report,
					       .bounce = bounce};
	struct destinations_options options = {.loop = relay->loop,
					       .queue = relay->queue,
					       .clock = clock,
					       .driver = {relay, driver_open, driver_wake, driver_quit, NULL},
					       .connections_max = 200,
					       .per_destination_max = 20};

	struct memos_options remembering = {relay->loop, relay->log, relay->fd, NULL};
	struct captures_options capturing = {relay->loop, relay->queue, relay->fd, &relay->capture_async};

	relay->capture_async = (struct disk_async){.ctx = relay, .sync = on_capture_sync};
	relay->captures = captures_new(&capturing);
	options.capture = captures_driver(relay->captures);
	relay->memos = memos_new(&remembering);
	relay->pauses = pauses_new(relay->memos, clock);
	options.pauses = relay->pauses;
	relay->rates = rates_new(relay->loop, clock, relay->memos);
	rates_configure(relay->rates, relay->config);
	options.rates = relay->rates;
	relay->scheduler = scheduler_new(&scheduling);
	scheduler_destination_events(relay->scheduler, &options.events);
	options.events.on_health = on_health;
	options.events.on_rate_wait = on_rate_wait;
	options.events.health_ctx = relay;
	relay->destinations = destinations_new(&options);
	scheduler_set_destinations(relay->scheduler, relay->destinations);
	relay->health = health_new(relay->log, relay->metrics, clock, relay->queue, relay->destinations);
}

static void make_loop(struct relay *relay)
{
	relay->loop = loop_new(&relay->clock.clock);
	open_queue(relay);
	make_parts(relay);
	loop_add_turn_hook(relay->loop, on_turn_end, relay);
}

void relay_configure(struct relay *relay, const char *yaml)
{
	struct config_source source = {.default_hostname = "relay.example.org"};
	struct config_errors errors;
	struct config *fresh;

	if (config_load_text(&source, slice_of_str(yaml ? yaml : ""), &fresh, &errors) != 0)
		fail_msg("%s", errors.items[0].text);
	config_free(&relay->config);
	relay->config = fresh;
	if (relay->rates)
		rates_configure(relay->rates, fresh);
}

void relay_init(struct relay *relay, const char *yaml)
{
	/* Memory if there is any: nothing here is about the disk itself. */
	const char *base = getenv("TMPDIR") ? getenv("TMPDIR") : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	struct log_options logging = {.level = LOG_DEBUG};

	*relay = (struct relay){0};
	snprintf(relay->folder, sizeof(relay->folder), "%.40s/relayd-relay-XXXXXX", base);
	assert_non_null(mkdtemp(relay->folder));
	relay->fd = open(relay->folder, O_RDONLY | O_DIRECTORY);
	assert_true(relay->fd >= 0);
	relay->disk = disk_real_new(relay->fd, NULL, NULL);
	assert_non_null(relay->disk);
	clock_virtual_init(&relay->clock, RELAY_WALL_MS);
	rng_seeded_init(&relay->rng, 1);
	buf_init(&relay->log_text, 16 << 20);
	relay->log = log_new(&relay->clock.clock, on_log, &relay->log_text);
	log_configure(relay->log, &logging);
	relay->metrics = metrics_new();
	relay->recent = recent_new();
	list_init(&relay->connections);
	relay_configure(relay, yaml);
	make_loop(relay);
}

int relay_setup_with(void **state, const char *yaml)
{
	struct relay *relay = xmalloc(sizeof(*relay));

	relay_init(relay, yaml);
	*state = relay;
	return 0;
}

int relay_setup(void **state)
{
	return relay_setup_with(state, NULL);
}

int relay_teardown(void **state)
{
	relay_fini(*state);
	free(*state);
	return 0;
}

static void free_parts(struct relay *relay)
{
	relay_close_all(relay);
	captures_free(&relay->captures);
	memos_free(&relay->memos);
	destinations_free(&relay->destinations);
	pauses_free(&relay->pauses);
	rates_free(&relay->rates);
	scheduler_free(&relay->scheduler);
	health_free(&relay->health);
	queue_close(&relay->queue);
	loop_free(&relay->loop);
}

/* What is posted is only done by a turn. */
static void end_connections(struct relay *relay)
{
	scheduler_stop(relay->scheduler);
	destinations_stop(relay->destinations);
	relay_close_all(relay);
	captures_abort(relay->captures);
	relay_turn(relay);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void relay_fini(struct relay *relay)
{
	end_connections(relay);
	free_parts(relay);
	recent_free(&relay->recent);
	metrics_free(&relay->metrics);
	log_free(&relay->log);
	buf_fini(&relay->log_text);
	config_free(&relay->config);
	disk_real_free(&relay->disk);
	close(relay->fd);
	nftw(relay->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void relay_restart(struct relay *relay)
{
	end_connections(relay);
	free_parts(relay);
	make_loop(relay);
}

void relay_pause(struct relay *relay, const char *relayhost, bool paused)
{
	assert_true(pauses_set(relay->pauses, relayhost, paused));
	destinations_apply_pauses(relay->destinations);
}

void relay_turn(struct relay *relay)
{
	for (int turns = 0; turns < 10000; turns++) {
		unsigned callbacks = loop_turn(relay->loop, 0);
		if (callbacks == 0 && loop_next_at_ms(relay->loop) > clock_mono_ms(&relay->clock.clock))
			return;
	}
	fail_msg("the loop does not come to rest");
}

/* Goes on to where there is something to do, at most until then. */
static void step(struct relay *relay, int64_t until)
{
	int64_t now = clock_mono_ms(&relay->clock.clock), next = loop_next_at_ms(relay->loop);

	clock_virtual_advance(&relay->clock, MIN(MAX(next, now + 1), until) - now);
	relay_turn(relay);
}

void relay_pass(struct relay *relay, int64_t ms)
{
	int64_t until = clock_mono_ms(&relay->clock.clock) + ms;

	relay_turn(relay);
	while (clock_mono_ms(&relay->clock.clock) < until)
		step(relay, until);
}

int64_t relay_time_to_next_open(struct relay *relay, int64_t at_most)
{
	int64_t began = clock_mono_ms(&relay->clock.clock);
	unsigned opened = relay->opened;

	while (relay->opened == opened && clock_mono_ms(&relay->clock.clock) - began < at_most)
		step(relay, began + at_most);
	return clock_mono_ms(&relay->clock.clock) - began;
}

struct submitted {
	bool done;
	enum err_code result;
};

static void on_committed(void *ctx, uint64_t id, enum err_code result)
{
	struct submitted *submitted = ctx;

	(void)id;
	submitted->done = true;
	submitted->result = result;
}

static uint64_t upload(struct relay *relay, const struct queue_envelope *envelope, queue_commit_cb *cb, void *ctx)
{
	struct err err = {0};
	struct queue_upload *upload = queue_upload_begin(relay->queue, &err);
	uint64_t id;

	if (!upload)
		fail_msg("%s", err.text);
	id = queue_upload_id(upload);
	assert_int_equal(queue_upload_append(upload, SLICE("Subject: test\r\n\r\nHello\r\n")), 0);
	assert_int_equal(queue_upload_commit(&upload, envelope, cb, ctx), 0);
	return id;
}

uint64_t relay_submit_envelope(struct relay *relay, const struct queue_envelope *envelope)
{
	struct submitted submitted = {0};
	uint64_t id = upload(relay, envelope, on_committed, &submitted);

	for (int turns = 0; turns < 1000 && !submitted.done; turns++)
		loop_turn(relay->loop, 0);
	assert_true(submitted.done);
	assert_int_equal(submitted.result, 0);
	return id;
}

enum { SUBMIT_RECIPIENTS_MAX = 64 };

static struct queue_envelope make_envelope(const struct relay *relay, struct queue_recipient *list, const char *sender,
					   const char *recipients)
{
	struct queue_envelope envelope = {.sender = slice_of_str(sender),
					  .user = SLICE("app"),
					  .client = SLICE("[192.0.2.9]:4711"),
					  .message_id = SLICE("<1@example.org>"),
					  .from_domain = SLICE("example.org"),
					  .arrived_wall = clock_wall_ms(&relay->clock.clock),
					  .expires_wall = clock_wall_ms(&relay->clock.clock) + 5ll * 86400 * 1000,
					  .recipients = list};
	struct slice rest = slice_of_str(recipients);

	while (rest.len > 0 && envelope.recipient_count < SUBMIT_RECIPIENTS_MAX) {
		ptrdiff_t end = slice_find(rest, ' ');
		struct slice address = end < 0 ? rest : slice_to(rest, (size_t)end);
		list[envelope.recipient_count++] = (struct queue_recipient){.address = address};
		rest = slice_from(rest, address.len + 1);
	}
	return envelope;
}

uint64_t relay_submit_class(struct relay *relay, enum message_class class, const char *sender, const char *recipients)
{
	struct queue_recipient list[SUBMIT_RECIPIENTS_MAX];
	struct queue_envelope envelope = make_envelope(relay, list, sender, recipients);

	envelope.class = class;
	return relay_submit_envelope(relay, &envelope);
}

uint64_t relay_submit(struct relay *relay, const char *sender, const char *recipients)
{
	return relay_submit_class(relay, MESSAGE_DEFAULT, sender, recipients);
}

uint64_t relay_submit_lifetime(struct relay *relay, int64_t ms, const char *recipients)
{
	struct queue_recipient list[SUBMIT_RECIPIENTS_MAX];
	struct queue_envelope envelope = make_envelope(relay, list, "app@example.org", recipients);

	envelope.expires_wall = envelope.arrived_wall + ms;
	return relay_submit_envelope(relay, &envelope);
}

void relay_submit_many(struct relay *relay, const char *recipients, unsigned count)
{
	struct queue_recipient list[SUBMIT_RECIPIENTS_MAX];
	struct queue_envelope envelope = make_envelope(relay, list, "app@example.org", recipients);

	for (unsigned i = 0; i < count; i++)
		upload(relay, &envelope, NULL, NULL);
	relay_turn(relay);
}

unsigned relay_connection_count(struct relay *relay)
{
	unsigned count = 0;

	while (relay_connection(relay, count))
		count++;
	return count;
}

unsigned relay_deliver_all(struct relay *relay)
{
	unsigned delivered = 0;
	bool any = true;

	while (any) {
		any = false;
		relay_pass(relay, 10);
		for (unsigned i = 0; relay_connection(relay, i); i++) {
			struct fake_connection *connection = relay_connection(relay, i);
			if (!connection->job && connection->slot.busy) {
				fake_session(connection);
				any = true;
			} else if (connection->job) {
				fake_deliver(connection);
				delivered++;
				any = true;
			}
		}
	}
	return delivered;
}

bool relay_is_queued(struct relay *relay, uint64_t id)
{
	struct queue_brief brief;

	return queue_brief(relay->queue, id, &brief) == 0;
}

enum message_state relay_message_state(struct relay *relay, uint64_t id)
{
	struct queue_brief brief;

	assert_int_equal(queue_brief(relay->queue, id, &brief), 0);
	return brief.state;
}

uint64_t relay_waiting(struct relay *relay)
{
	struct queue_stats stats;

	queue_stats(relay->queue, &stats);
	return stats.messages[STATE_READY] + stats.messages[STATE_INFLIGHT] + stats.messages[STATE_DEFERRED];
}

struct fake_connection *relay_connect_to(struct relay *relay, const char *key)
{
	struct fake_connection *connection = relay_connection_to(relay, key);

	if (!connection->job)
		fake_session(connection);
	assert_non_null(connection->job);
	return connection;
}

void relay_close_all(struct relay *relay)
{
	while (relay_connection(relay, 0))
		fake_close(relay_connection(relay, 0));
}

const struct reported *relay_report(const struct relay *relay, uint64_t id, uint32_t recipient)
{
	for (size_t i = relay->report_count; i > 0; i--)
		if (relay->reports[i - 1].id == id && relay->reports[i - 1].recipient == recipient)
			return &relay->reports[i - 1];
	fail_msg("no report of recipient %u", recipient);
	return NULL;
}

bool relay_log_has(struct relay *relay, const char *text)
{
	struct slice all;

	log_flush(relay->log);
	all = buf_slice(&relay->log_text);
	return all.len && memmem(all.ptr, all.len, text, strlen(text));
}
