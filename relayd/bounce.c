#include "relayd/bounce.h"

#include "base/base.h"
#include "base/list.h"
#include "base/msgid.h"
#include "smtp/dsn.h"

#include <stdlib.h>

struct bounce {
	struct queue *queue;
	const struct clock *clock;
	struct rng *rng;
	struct log *log;
	struct config *config;
	struct list committing; /* DSNs that are not synced yet */
};

struct committing {
	struct list node;
	uint64_t id;
	void (*done)(void *ctx, enum err_code result);
	void *ctx;
};

struct bounce *bounce_new(struct queue *queue, const struct clock *clock, struct rng *rng, struct log *log)
{
	struct bounce *bounce = xcalloc(1, sizeof(*bounce));

	*bounce = (struct bounce){.queue = queue, .clock = clock, .rng = rng, .log = log};
	list_init(&bounce->committing);
	return bounce;
}

void bounce_free(struct bounce **bounce)
{
	if (!*bounce)
		return;
	for (struct list *node; (node = list_pop(&(*bounce)->committing));) {
		struct committing *committing = CONTAINER_OF(node, struct committing, node);
		queue_commit_forget((*bounce)->queue, committing->id);
		free(committing);
	}
	config_free(&(*bounce)->config);
	free(*bounce);
	*bounce = NULL;
}

void bounce_configure(struct bounce *bounce, struct config *config)
{
	config_free(&bounce->config);
	bounce->config = config_ref(config);
}

/* RFC 3461 section 4.1: without NOTIFY failures are told; delays may be. */
static bool is_wanted(const struct queue_recipient *recipient, enum outcome_kind kind)
{
	uint32_t flag = kind == OUTCOME_DEFERRED ? QUEUE_NOTIFY_DELAY : QUEUE_NOTIFY_FAILURE;
	return recipient->notify == 0 || (recipient->notify & flag);
}

static size_t select_recipients(const struct queue_message *message, const struct job_failure *failures, uint32_t count,
				int64_t now, struct dsn_recipient *out)
{
	size_t selected = 0;

	for (uint32_t i = 0; i < count; i++) {
		const struct queue_recipient *recipient = &message->envelope.recipients[failures[i].index];
		if (!is_wanted(recipient, failures[i].outcome.kind))
			continue;
		out[selected++] = (struct dsn_recipient){.address = recipient->address,
							 .orcpt = recipient->orcpt,
							 .outcome = &failures[i].outcome,
							 .last_attempt_wall = now,
							 .will_retry_until_wall = message->envelope.expires_wall};
	}
	return selected;
}

/* The message as it was sent, as far as the DSN may return it. */
static void read_original(struct bounce *bounce, const struct queue_message *message, struct buf *out)
{
	size_t wanted = message->envelope.ret == QUEUE_RET_FULL ? DSN_ORIGINAL_MAX : DSN_HEADER_MAX;
	struct queue_content *content;

	buf_append(out, message->envelope.prefix);
	if (message->is_inline) {
		buf_append(out, message->content);
		return;
	}
	content = queue_content_open(bounce->queue, message->id, NULL);
	while (content && buf_len(out) < wanted) {
		char *at = buf_reserve(out, 16 * 1024);
		ssize_t n = at ? queue_content_read(content, at, 16 * 1024) : 0;
		if (n <= 0)
			break;
		buf_commit(out, (size_t)n);
	}
	if (content)
		queue_content_close(&content);
}

static int compose(struct bounce *bounce, const struct queue_message *message, const struct dsn_recipient *recipients,
		   size_t count, uint64_t id, struct buf *out, struct dsn_result *result)
{
	const struct queue_envelope *envelope = &message->envelope;
	char id_text[MSGID_CHARS + 1], original_id[MSGID_CHARS + 1];
	struct buf original;
	int rc;

	msgid_format(id, id_text);
	msgid_format(message->id, original_id);
	buf_init(&original, 2u << 20);
	read_original(bounce, message, &original);
	struct dsn dsn = {
	    .kind = recipients[0].outcome->kind == OUTCOME_DEFERRED ? DSN_DELAYED : DSN_FAILED,
	    .hostname = bounce->config->hostname,
	    .to = envelope->sender,
	    .message_id = id_text,
	    .original_id = original_id,
	    .envid = envelope->envid,
	    .arrived_wall = envelope->arrived_wall,
	    .now_wall = clock_wall_ms(bounce->clock),
	    .recipients = recipients,
	    .recipient_count = count,
	    .original = buf_slice(&original),
	    .original_bytes = envelope->prefix.len + message->content_bytes,
	    .return_full = envelope->ret == QUEUE_RET_FULL,
	    .rng = bounce->rng,
	};
	rc = dsn_compose(out, &dsn, result);
	buf_fini(&original);
	return rc;
}

static void on_committed(void *ctx, uint64_t id, enum err_code result)
{
	struct committing committing = *(struct committing *)ctx;

	(void)id;
	list_remove(&((struct committing *)ctx)->node);
	free(ctx);
	committing.done(committing.ctx, result);
}

static int commit(struct bounce *bounce, struct queue_upload **upload, const struct queue_message *message,
		  const struct dsn_result *result, struct committing *committing)
{
	struct queue_recipient recipient = {.address = message->envelope.sender, .notify = QUEUE_NOTIFY_NEVER};
	int64_t now = clock_wall_ms(bounce->clock);
	struct queue_envelope envelope = {
	    .listener = SLICE("bounce"),
	    .from_domain = slice_of_str(bounce->config->hostname),
	    .body = result->has_8bit ? QUEUE_BODY_8BITMIME : QUEUE_BODY_7BIT,
	    .flags = QUEUE_BOUNCE | (result->needs_smtputf8 ? QUEUE_SMTPUTF8 : 0u),
	    .arrived_wall = now,
	    .expires_wall = now + bounce->config->retry.expire_ms,
	    .recipients = &recipient,
	    .recipient_count = 1,
	};
	return queue_upload_commit(upload, &envelope, on_committed, committing);
}

static int put_into_queue(struct bounce *bounce, const struct queue_message *message,
			  const struct dsn_recipient *recipients, size_t count, struct committing *committing)
{
	struct queue_upload *upload = queue_upload_begin(bounce->queue, NULL);
	struct dsn_result result = {0};
	struct buf text;
	int rc;

	if (!upload)
		return ERR_NO_SPACE;
	committing->id = queue_upload_id(upload);
	buf_init(&text, DSN_BYTES_MAX);
	rc = compose(bounce, message, recipients, count, queue_upload_id(upload), &text, &result);
	if (rc == 0)
		rc = queue_upload_append(upload, buf_slice(&text));
	buf_fini(&text);
	if (rc != 0) {
		queue_upload_abort(&upload);
		return rc;
	}
	log_event(
	    bounce->log, LOG_INFO, "bounce", LOG_ID(queue_upload_id(upload)),
	    LOG_ADDR("rcpt", message->envelope.sender),
	    LOG_STR("kind", dsn_kind_name(recipients[0].outcome->kind == OUTCOME_DEFERRED ? DSN_DELAYED : DSN_FAILED)),
	    LOG_INT("recipients", count));
	return commit(bounce, &upload, message, &result, committing);
}

void bounce_send(struct bounce *bounce, const struct queue_message *message, const struct job_failure *failures,
		 uint32_t count, void (*done)(void *done_ctx, enum err_code result), void *done_ctx)
{
	struct dsn_recipient *recipients = xcalloc(count, sizeof(*recipients));
	size_t selected = select_recipients(message, failures, count, clock_wall_ms(bounce->clock), recipients);
	bool mail =
	    bounce->config->bounce.mode == CONFIG_BOUNCE_MAIL || bounce->config->bounce.mode == CONFIG_BOUNCE_BOTH;
	struct committing *committing;
	int rc;

	if (message->envelope.sender.len == 0 || selected == 0 || !mail) {
		free(recipients);
		done(done_ctx, 0);
		return;
	}
	committing = xmalloc(sizeof(*committing));
	*committing = (struct committing){.done = done, .ctx = done_ctx};
	rc = put_into_queue(bounce, message, recipients, selected, committing);
	free(recipients);
	if (rc == 0) {
		list_append(&bounce->committing, &committing->node);
		return;
	}
	free(committing);
	/* A sender that cannot be written to will never be; anything else passes. */
	done(done_ctx, rc == ERR_SYNTAX || rc == ERR_LIMIT ? 0 : (enum err_code)rc);
}
