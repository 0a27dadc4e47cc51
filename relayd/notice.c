#include "relayd/notice.h"

#include "base/base.h"
#include "base/list.h"
#include "base/msgid.h"
#include "dkim/body_hash.h"
#include "smtp/header.h"

#include <stdlib.h>

enum { FIELDS_MAX = 32, OMIT_MAX = 32, READ_BYTES = 16 * 1024 };

struct notices {
	struct notices_options options;
	struct config *config;
	struct list all;
};

/* One of them: first it is being signed, then committed. */
struct sending {
	struct list node;
	struct notices *notices;
	struct queue_upload *upload; /* until it is committed */
	struct signing *signing;     /* while it is being signed */
	uint64_t id;
	char *to;
	struct dsn_result needs; /* of the next hop */
	bool is_protected;	 /* goes by TLS where that can be had (REQUIRETLS) */
	int64_t expires_wall;
	void (*done)(void *ctx, enum err_code result);
	void *ctx;
};

struct notices *notices_new(const struct notices_options *options)
{
	struct notices *notices = xcalloc(1, sizeof(*notices));

	notices->options = *options;
	list_init(&notices->all);
	return notices;
}

static void sending_free(struct sending *sending)
{
	signer_cancel(&sending->signing);
	if (sending->upload)
		queue_upload_abort(&sending->upload);
	list_remove(&sending->node);
	free(sending->to);
	free(sending);
}

void notices_free(struct notices **notices)
{
	struct notices *n = *notices;

	if (!n)
		return;
	while (!list_is_empty(&n->all)) {
		struct sending *sending = CONTAINER_OF(n->all.next, struct sending, node);
		queue_commit_forget(n->options.queue, sending->id);
		sending_free(sending);
	}
	config_free(&n->config);
	free(n);
	*notices = NULL;
}

void notices_configure(struct notices *notices, struct config *config)
{
	struct config *old = notices->config;

	notices->config = config_ref(config);
	config_free(&old);
}

static void finish(struct sending *sending, enum err_code result)
{
	void (*done)(void *ctx, enum err_code result) = sending->done;
	void *ctx = sending->ctx;

	sending_free(sending);
	done(ctx, result);
}

/* ---- the text ---- */

/* RFC 8689 section 5: what had to be protected comes back without its content, and as well protected as can be had. */
static bool is_protected(const struct notice *notice)
{
	return notice->message->envelope.flags & QUEUE_REQUIRETLS;
}

static bool returns_full(const struct notice *notice)
{
	return notice->message->envelope.ret == QUEUE_RET_FULL && !is_protected(notice);
}

/* The message as it was sent, as far as the DSN may return it. */
static void read_original(struct notices *notices, const struct notice *notice, struct buf *out)
{
	const struct queue_message *message = notice->message;
	bool whole = notice->kind == DSN_FAILED && returns_full(notice);
	size_t wanted = whole ? DSN_ORIGINAL_MAX : DSN_HEADER_MAX;
	struct queue_content *content;

	buf_append(out, message->envelope.prefix);
	if (message->is_inline) {
		buf_append(out, message->content);
		return;
	}
	content = queue_content_open(notices->options.queue, message->id, NULL);
	while (content && buf_len(out) < wanted) {
		char *at = buf_reserve(out, READ_BYTES);
		ssize_t n = at ? queue_content_read(content, at, READ_BYTES) : 0;
		if (n <= 0)
			break;
		buf_commit(out, (size_t)n);
	}
	if (content)
		queue_content_close(&content);
}

static int compose(struct notices *notices, const struct notice *notice, uint64_t id, struct buf *out,
		   struct dsn_result *needs)
{
	const struct queue_envelope *envelope = &notice->message->envelope;
	char id_text[MSGID_CHARS + 1], original_id[MSGID_CHARS + 1];
	struct buf original;
	int rc;

	msgid_format(id, id_text);
	msgid_format(notice->message->id, original_id);
	buf_init(&original, 2u << 20);
	read_original(notices, notice, &original);
	struct dsn dsn = {
	    .kind = notice->kind,
	    .hostname = notices->config->hostname,
	    .to = notice->to,
	    .message_id = id_text,
	    .original_id = original_id,
	    .envid = envelope->envid,
	    .arrived_wall = envelope->arrived_wall,
	    .now_wall = clock_wall_ms(notices->options.clock),
	    .recipients = notice->recipients,
	    .recipient_count = notice->recipient_count,
	    .original = buf_slice(&original),
	    .original_bytes = envelope->prefix.len + notice->message->content_bytes,
	    .return_full = returns_full(notice),
	    .rng = notices->options.rng,
	};
	rc = dsn_compose(out, &dsn, needs);
	buf_fini(&original);
	return rc;
}

/* ---- the queue ---- */

static void on_committed(void *ctx, uint64_t id, enum err_code result)
{
	(void)id;
	finish(ctx, result);
}

static int commit(struct sending *sending, struct slice signatures)
{
	struct notices *notices = sending->notices;
	struct queue_recipient recipient = {.address = slice_of_str(sending->to), .notify = QUEUE_NOTIFY_NEVER};
	struct queue_envelope envelope = {
	    .listener = SLICE("bounce"),
	    .from_domain = slice_of_str(notices->config->hostname),
	    .prefix = signatures,
	    .body = sending->needs.has_8bit ? QUEUE_BODY_8BITMIME : QUEUE_BODY_7BIT,
	    .flags = QUEUE_BOUNCE | (sending->needs.needs_smtputf8 ? QUEUE_SMTPUTF8 : 0u) |
		     (sending->is_protected ? QUEUE_REQUIRETLS : 0u) | (signatures.len ? QUEUE_SIGNED : 0u),
	    .class = MESSAGE_BULK,
	    .arrived_wall = clock_wall_ms(notices->options.clock),
	    .expires_wall = sending->expires_wall,
	    .recipients = &recipient,
	    .recipient_count = 1,
	};

	return queue_upload_commit(&sending->upload, &envelope, on_committed, sending);
}

/* ---- the signature ---- */

static void tell_unsigned(struct sending *sending, int why)
{
	log_event(sending->notices->options.log, LOG_WARN, "bounce_unsigned", LOG_ID(sending->id),
		  LOG_STR("text", err_code_name((enum err_code)why)));
}

static void on_signed(void *ctx, enum err_code result, struct slice fields)
{
	struct sending *sending = ctx;
	int rc;

	sending->signing = NULL;
	if (result != 0)
		tell_unsigned(sending, result);
	rc = commit(sending, result == 0 ? fields : SLICE(""));
	if (rc != 0)
		finish(sending, (enum err_code)rc);
}

/* What a relayhost may rewrite is not signed, whichever of them it will be. */
static size_t rewritten_fields(const struct config *config, struct slice out[OMIT_MAX])
{
	size_t count = 0;

	for (size_t r = 0; r < config->relayhost_count; r++)
		for (size_t f = 0; f < config->relayhosts[r].rewrites.count && count < OMIT_MAX; f++)
			out[count++] = slice_of_str(config->relayhosts[r].rewrites.items[f]);
	return count;
}

/* False: it goes as it is. */
static bool sign(struct sending *sending, struct slice text)
{
	struct notices *notices = sending->notices;
	const char *end = memmem(text.ptr, text.len, "\r\n\r\n", 4);
	struct slice header = slice_to(text, (size_t)(end - text.ptr) + 2);
	struct dkim_body_hash *body_hash;
	unsigned char hash[DKIM_DIGEST_BYTES];
	struct dkim_field fields[FIELDS_MAX];
	struct header_field field;
	struct slice omit[OMIT_MAX];
	struct signer_message message = {.fields = fields,
					 .body_hash = hash,
					 .from_domain = slice_of_str(notices->config->hostname),
					 .expires_wall = sending->expires_wall,
					 .omit = omit,
					 .omit_count = rewritten_fields(notices->config, omit)};
	int result;

	if (!notices->options.signer || notices->config->dkim.domain_count == 0)
		return false;
	body_hash = dkim_body_hash_new(DKIM_CANON_RELAXED);
	dkim_body_hash_update(body_hash, slice_from(text, header.len + 2));
	dkim_body_hash_final(body_hash, hash);
	dkim_body_hash_free(&body_hash);
	while (message.field_count < FIELDS_MAX && header_next_field(&header, &field))
		fields[message.field_count++].raw = field.raw;
	sending->signing = signer_sign(notices->options.signer, &message, on_signed, sending, &result);
	if (!sending->signing && result != 0)
		tell_unsigned(sending, result);
	return sending->signing;
}

int notices_send(struct notices *notices, const struct notice *notice, void (*done)(void *ctx, enum err_code result),
		 void *ctx)
{
	struct queue_upload *upload = queue_upload_begin_dsn(notices->options.queue, NULL);
	char original[MSGID_CHARS + 1];
	struct sending *sending;
	struct buf text;
	int rc;

	if (!upload)
		return ERR_NO_SPACE;
	sending = xmalloc(sizeof(*sending));
	*sending = (struct sending){
	    .notices = notices, .upload = upload, .id = queue_upload_id(upload), .done = done, .ctx = ctx};
	sending->is_protected = is_protected(notice);
	sending->to = xmemdup(notice->to.ptr, notice->to.len);
	sending->expires_wall = clock_wall_ms(notices->options.clock) + notices->config->retry.expire_ms;
	list_append(&notices->all, &sending->node);
	buf_init(&text, DSN_BYTES_MAX);
	rc = compose(notices, notice, sending->id, &text, &sending->needs);
	if (rc == 0)
		rc = queue_upload_append(upload, buf_slice(&text));
	if (rc == 0 && !sign(sending, buf_slice(&text)))
		rc = commit(sending, SLICE(""));
	buf_fini(&text);
	if (rc != 0) {
		sending_free(sending);
		return rc;
	}
	msgid_format(notice->message->id, original);
	log_event(notices->options.log, LOG_INFO, "bounce", LOG_ID(sending->id), LOG_ADDR("rcpt", notice->to),
		  LOG_STR("kind", dsn_kind_name(notice->kind)), LOG_INT("recipients", notice->recipient_count),
		  LOG_STR("original", original));
	return 0;
}
