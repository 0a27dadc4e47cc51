#include "relayd/webhook.h"

#include "base/base.h"
#include "queue/fifo.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	BODY_BYTES_MAX = 256 * 1024,
	ANSWER_BYTES_MAX = 64 * 1024, /* not looked at */
	POST_TIMEOUT_MS = 30 * 1000,
	WAIT_FIRST_MS = 1000,
	WAIT_MAX_MS = 15 * 60 * 1000,
	TROUBLE_AFTER_MS = 60 * 1000,
	PATIENCE_MS = 10 * 60 * 1000, /* so long it is tried in vain before anything is given up */
	REFUSALS_MAX = 5,
	LIFETIME_MS = 24 * 3600 * 1000,
};

enum result { SENT, EXPIRED, REFUSED, FULL, LOST, RESULT_COUNT };
static const char *const result_names[RESULT_COUNT] = {"sent", "expired", "refused", "full", "lost"};

struct webhook {
	struct webhook_options options;
	struct config *config;
	char *secret, *staged_secret;
	struct disk *disk;
	struct fifo *fifo;

	uint64_t request; /* of https, while a POST is under way */
	timer_id timer;	  /* until the next try */
	struct fifo_item items[WEBHOOK_BATCH_MAX];
	size_t count; /* in the POST that is under way */
	struct buf bytes;

	unsigned failures;	/* running */
	int64_t failing_ms;	/* since then */
	size_t alone;		/* so many events still go one by one */
	unsigned refusals;	/* of the oldest event, alone */
	int64_t refused_ms;	/* since then */
	bool is_full, was_told; /* was_told: of trouble */
	uint64_t lost;		/* as the FIFO counted at the last look */
	struct series *results[RESULT_COUNT];
};

static uint64_t send_by_https(void *ctx, const struct https_request *request, https_cb *cb, void *cb_ctx)
{
	return https_send(ctx, request, cb, cb_ctx);
}

static void cancel_by_https(void *ctx, uint64_t *id)
{
	https_cancel(ctx, id);
}

struct webhook_poster webhook_poster_https(struct https *https)
{
	return (struct webhook_poster){https, send_by_https, cancel_by_https};
}

struct webhook *webhook_new(const struct webhook_options *options)
{
	struct webhook *webhook = xcalloc(1, sizeof(*webhook));

	webhook->options = *options;
	if (webhook->options.max_bytes == 0)
		webhook->options.max_bytes = WEBHOOK_BYTES_MAX;
	buf_init(&webhook->bytes, BODY_BYTES_MAX + FIFO_RECORD_MAX);
	for (int r = 0; r < RESULT_COUNT; r++)
		webhook->results[r] =
		    metrics_series(options->metrics, METRIC_WEBHOOK_EVENTS, result_names[r], NULL, NULL);
	return webhook;
}

void webhook_free(struct webhook **webhook)
{
	struct webhook *w = *webhook;

	if (!w)
		return;
	w->options.poster.cancel(w->options.poster.ctx, &w->request);
	timers_cancel(loop_timers(w->options.loop), &w->timer);
	fifo_free(&w->fifo);
	if (w->disk)
		disk_real_free(&w->disk);
	config_secret_wipe(&w->secret);
	config_secret_wipe(&w->staged_secret);
	config_free(&w->config);
	buf_fini(&w->bytes);
	free(w);
	*webhook = NULL;
}

/* ---- configuration ---- */

static void on_corruption(void *ctx, const char *text)
{
	struct webhook *webhook = ctx;

	webhook->options.on_corruption(webhook->options.ctx, text);
}

static int open_folder(int spool_fd, struct err *err)
{
	int fd;

	if ((mkdirat(spool_fd, "webhook", 0700) != 0 && errno != EEXIST) || fsync(spool_fd) != 0)
		return err_set_errno(err, "cannot create webhook in the spool");
	fd = openat(spool_fd, "webhook", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_set_errno(err, "cannot open webhook in the spool");
	return fd;
}

static int open_fifo(struct webhook *webhook, struct err *err)
{
	struct fifo_options options = {.rng = webhook->options.rng,
				       .max_bytes = webhook->options.max_bytes,
				       .ctx = webhook,
				       .on_corruption = on_corruption};
	int fd;

	if (webhook->fifo)
		return 0;
	fd = open_folder(webhook->options.spool_fd, err);
	if (fd < 0)
		return fd;
	options.disk = webhook->disk = disk_real_new(fd, webhook->options.async, err);
	close(fd);
	if (!webhook->disk)
		return ERR_IO;
	webhook->fifo = fifo_open(&options, err);
	if (webhook->fifo)
		return 0;
	disk_real_free(&webhook->disk);
	return ERR_IO;
}

int webhook_stage(struct webhook *webhook, const struct config *config, struct err *err)
{
	int rc = config->webhook.url ? open_fifo(webhook, err) : 0;

	config_secret_wipe(&webhook->staged_secret);
	if (rc == 0 && config->webhook.url)
		rc = config_secret_read(&config->webhook.secret, &webhook->staged_secret, err);
	return rc;
}

static bool is_on(const struct webhook *webhook)
{
	return webhook->config && webhook->config->webhook.url && webhook->fifo;
}

/* The POST under way goes to the old server; what it does not take goes to the new one. */
void webhook_commit(struct webhook *webhook, struct config *config)
{
	struct config *old = webhook->config;

	webhook->config = config_ref(config);
	config_free(&old);
	config_secret_wipe(&webhook->secret);
	webhook->secret = webhook->staged_secret;
	webhook->staged_secret = NULL;
	webhook->failures = 0; /* a change is worth a try */
	timers_cancel(loop_timers(webhook->options.loop), &webhook->timer);
	if (!is_on(webhook) && webhook->was_told) {
		webhook->was_told = webhook->is_full = false;
		webhook->options.on_trouble(webhook->options.ctx, NULL);
	}
}

bool webhook_wants(const struct webhook *webhook, enum config_event event)
{
	const struct config_events *events = webhook->config ? &webhook->config->webhook.events : NULL;

	if (!is_on(webhook))
		return false;
	for (size_t i = 0; i < events->count; i++)
		if (events->items[i] == event)
			return true;
	return false;
}

const char *webhook_relay_name(const struct webhook *webhook)
{
	return webhook->config ? webhook->config->hostname : "";
}

/* ---- trouble ---- */

static int64_t now_ms(const struct webhook *webhook)
{
	return loop_now_ms(webhook->options.loop);
}

static void tell_trouble(struct webhook *webhook, const char *text)
{
	webhook->was_told = true;
	webhook->options.on_trouble(webhook->options.ctx, text);
}

static void tell_full(struct webhook *webhook)
{
	char text[160];

	webhook->is_full = true;
	snprintf(text, sizeof(text), "%llu MiB of events wait: new ones are dropped until the server takes them",
		 (unsigned long long)fifo_bytes(webhook->fifo) >> 20);
	tell_trouble(webhook, text);
}

/* After a POST was taken. */
static void look_whether_all_is_well(struct webhook *webhook)
{
	if (webhook->is_full && fifo_bytes(webhook->fifo) > webhook->options.max_bytes / 2)
		return;
	webhook->is_full = false;
	if (!webhook->was_told)
		return;
	webhook->was_told = false;
	webhook->options.on_trouble(webhook->options.ctx, NULL);
}

/* ---- telling ---- */

int webhook_tell(struct webhook *webhook, struct slice event, bool is_important,
		 void (*cb)(void *ctx, enum err_code result), void *ctx)
{
	uint64_t now = (uint64_t)clock_wall_ms(webhook->options.clock);
	int rc;

	if (!is_on(webhook))
		return ERR_CLOSED;
	rc = fifo_append(webhook->fifo, event, now, is_important, cb, ctx);
	if (rc == 0)
		return 0;
	series_add(webhook->results[FULL], 1);
	tell_full(webhook);
	return rc;
}

void webhook_forget(struct webhook *webhook, const void *ctx)
{
	if (webhook->fifo)
		fifo_forget(webhook->fifo, ctx);
}

bool webhook_on_disk_done(struct webhook *webhook, const struct disk_done *done)
{
	if (!(done->token & FIFO_TOKEN))
		return false;
	if (webhook->fifo)
		fifo_on_disk_done(webhook->fifo, done);
	return true;
}

bool webhook_is_synced(const struct webhook *webhook)
{
	return !webhook->fifo || fifo_is_synced(webhook->fifo);
}

/* ---- the POST ---- */

void webhook_sign(const char *secret, int64_t seconds, struct slice body, char out[WEBHOOK_SIGNATURE_MAX])
{
	crypto_auth_hmacsha256_state state;
	unsigned char mac[crypto_auth_hmacsha256_BYTES];
	char hex[2 * sizeof(mac) + 1], prefix[32];
	int len = snprintf(prefix, sizeof(prefix), "%lld.", (long long)seconds);

	crypto_auth_hmacsha256_init(&state, (const unsigned char *)secret, strlen(secret));
	crypto_auth_hmacsha256_update(&state, (const unsigned char *)prefix, (size_t)len);
	crypto_auth_hmacsha256_update(&state, (const unsigned char *)body.ptr, body.len);
	crypto_auth_hmacsha256_final(&state, mac);
	sodium_memzero(&state, sizeof(state));
	sodium_bin2hex(hex, sizeof(hex), mac, sizeof(mac));
	snprintf(out, WEBHOOK_SIGNATURE_MAX, "t=%lld,v1=%s", (long long)seconds, hex);
}

static void make_body(const struct webhook *webhook, struct buf *body)
{
	buf_printf(body, "{\"relay\":\"%s\",\"events\":[", webhook->config->hostname);
	for (size_t i = 0; i < webhook->count; i++) {
		if (i > 0)
			buf_append_byte(body, ',');
		buf_append(body, webhook->items[i].record);
	}
	buf_append_str(body, "]}\n");
}

static void on_answer(void *ctx, const struct https_answer *answer);

static void post(struct webhook *webhook)
{
	char signature[WEBHOOK_SIGNATURE_MAX + 32] = "X-Relayd-Signature: ";
	const char *headers[] = {"Content-Type: application/json", signature};
	struct https_request request = {.url = webhook->config->webhook.url,
					.headers = headers,
					.header_count = ARRAY_LEN(headers),
					.answer_max_bytes = ANSWER_BYTES_MAX,
					.timeout_ms = POST_TIMEOUT_MS,
					.is_configured_name = true};
	struct buf body;

	buf_init(&body, 2 * (BODY_BYTES_MAX + FIFO_RECORD_MAX));
	make_body(webhook, &body);
	webhook_sign(webhook->secret, clock_wall_ms(webhook->options.clock) / 1000, buf_slice(&body),
		     signature + strlen(signature));
	request.body = buf_slice(&body);
	webhook->request = webhook->options.poster.send(webhook->options.poster.ctx, &request, on_answer, webhook);
	buf_fini(&body);
}

/* The next batch, if it is time for one. */
static void go_on(struct webhook *webhook)
{
	if (webhook->request || webhook->timer || !is_on(webhook))
		return;
	webhook->count =
	    fifo_read(webhook->fifo, webhook->items, webhook->alone > 0 ? 1 : WEBHOOK_BATCH_MAX, &webhook->bytes);
	if (webhook->count > 0)
		post(webhook);
}

/* The first `count` events of the batch are done, in this way. */
static void finish(struct webhook *webhook, size_t count, enum result result)
{
	series_add(webhook->results[result], (double)count);
	fifo_drop(webhook->fifo, &webhook->items[count - 1]);
	webhook->alone -= MIN(webhook->alone, count);
	webhook->refusals = 0;
}

/* Nobody will hear of these; the log has them in full, and this is where to look. */
static void give_up(struct webhook *webhook, size_t count, enum result result)
{
	struct slice first = slice_to(webhook->items[0].record, 900);
	char text[200];

	log_event(webhook->options.log, LOG_ERROR, "webhook_given_up", LOG_STR("result", result_names[result]),
		  LOG_INT("events", count), LOG_TEXT_OF("first", first));
	snprintf(text, sizeof(text), "%zu events have been given up (%s)", count, result_names[result]);
	tell_trouble(webhook, text);
	finish(webhook, count, result);
}

/* About what was posted, not about the server: the next batch may do better. */
static bool is_about_content(int status)
{
	static const int others[] = {401, 403, 404, 405, 407, 408, 410, 421, 425, 429};

	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		if (status == others[i])
			return false;
	return status >= 400 && status < 500;
}

/* True: the event that is refused was given up, and the next can go at once. */
static bool note_refusal(struct webhook *webhook)
{
	if (webhook->count > 1) {
		webhook->alone = webhook->count;
		return false;
	}
	if (webhook->refusals++ == 0)
		webhook->refused_ms = now_ms(webhook);
	if (webhook->refusals < REFUSALS_MAX || now_ms(webhook) - webhook->refused_ms < PATIENCE_MS)
		return false;
	give_up(webhook, 1, REFUSED);
	return true;
}

static void give_up_old_ones(struct webhook *webhook)
{
	int64_t now = clock_wall_ms(webhook->options.clock);
	size_t old = 0;

	if (now_ms(webhook) - webhook->failing_ms < PATIENCE_MS)
		return;
	while (old < webhook->count && now - (int64_t)webhook->items[old].stamp > LIFETIME_MS)
		old++;
	if (old > 0)
		give_up(webhook, old, EXPIRED);
}

static void on_time(void *ctx)
{
	struct webhook *webhook = ctx;

	webhook->timer = 0;
	go_on(webhook);
}

static void wait(struct webhook *webhook, int64_t asked_ms)
{
	int64_t ms = webhook->failures > 20 ? WAIT_MAX_MS : (int64_t)WAIT_FIRST_MS << (webhook->failures - 1);

	ms = MIN(MAX(ms, asked_ms), (int64_t)WAIT_MAX_MS);
	ms += (int64_t)rng_below(webhook->options.rng, (uint64_t)ms / 8 + 1);
	timers_set(loop_timers(webhook->options.loop), &webhook->timer, now_ms(webhook) + ms, on_time, webhook);
}

static void on_failure(struct webhook *webhook, const struct https_answer *answer)
{
	char text[400];

	if (webhook->failures++ == 0)
		webhook->failing_ms = now_ms(webhook);
	if (answer->result == HTTPS_ANSWERED)
		snprintf(text, sizeof(text), "the server answers %d", answer->status);
	else
		snprintf(text, sizeof(text), "%s: %s", https_result_name(answer->result), answer->reason);
	log_event(webhook->options.log, LOG_WARN, "webhook_deferred", LOG_INT("events", webhook->count),
		  LOG_INT("failures", webhook->failures), LOG_STR("text", text));
	if (!webhook->is_full && now_ms(webhook) - webhook->failing_ms >= TROUBLE_AFTER_MS)
		tell_trouble(webhook, text);
	if (answer->result == HTTPS_ANSWERED && is_about_content(answer->status) && note_refusal(webhook))
		webhook->failures = 1; /* the next one is not to blame */
	else
		give_up_old_ones(webhook);
	wait(webhook, answer->retry_after_ms);
}

static void on_answer(void *ctx, const struct https_answer *answer)
{
	struct webhook *webhook = ctx;

	webhook->request = 0;
	if (answer->result != HTTPS_ANSWERED || answer->status < 200 || answer->status > 299) {
		on_failure(webhook, answer);
		return;
	}
	webhook->failures = 0;
	finish(webhook, webhook->count, SENT);
	look_whether_all_is_well(webhook);
	go_on(webhook);
}

static void look_for_losses(struct webhook *webhook)
{
	uint64_t lost = fifo_lost_count(webhook->fifo) - webhook->lost;

	if (lost == 0)
		return;
	webhook->lost += lost;
	series_add(webhook->results[LOST], (double)lost);
	tell_trouble(webhook, "the disk does not take events");
}

void webhook_turn(struct webhook *webhook)
{
	if (!webhook->fifo)
		return;
	fifo_turn(webhook->fifo);
	look_for_losses(webhook);
	go_on(webhook);
}
