#include "base/base.h"
#include "relayd/intake_internal.h"
#include "relayd/router.h"

#include <stdio.h>
#include <stdlib.h>

static const struct smtp_server_reply not_signed = {
    451, "4.7.0", "The message cannot be signed with DKIM now; try again later (see the relay's log)"};

static void finish(struct intake *intake, const struct smtp_server_reply *refusal)
{
	intake_done_cb *done = intake->done;

	intake->done = NULL;
	if (refusal && intake->upload)
		queue_upload_abort(&intake->upload);
	done(intake->done_ctx, refusal ? INTAKE_REFUSED : INTAKE_ACCEPTED, intake->id, refusal);
}

/* It is here already. */
static void finish_repeated(struct intake *intake, uint64_t first_id)
{
	intake_done_cb *done = intake->done;

	intake->done = NULL;
	queue_upload_abort(&intake->upload);
	done(intake->done_ctx, INTAKE_REPEATED, first_id, NULL);
}

static void on_committed(void *ctx, uint64_t id, enum err_code result)
{
	struct intake *intake = ctx;

	(void)id;
	intake->is_committing = false;
	finish(intake, result == 0 ? NULL : intake_reply_of(result));
}

/* The session may be gone; then a client that asks again hears of the message all the same. */
static void on_claim_committed(void *ctx, uint64_t id, enum err_code result)
{
	struct dedupe_claim *claim = ctx;
	struct intake *intake = dedupe_claim_owner(claim);

	if (intake)
		intake->claim = NULL;
	dedupe_settle(&claim, result == 0 ? id : 0);
	if (intake)
		on_committed(intake, id, result);
}

static int64_t lifetime_ms(const struct intake *intake)
{
	if (intake->header.lifetime_ms > 0)
		return intake->header.lifetime_ms;
	if (intake->client.options && intake->client.options->lifetime_ms > 0)
		return intake->client.options->lifetime_ms;
	return intake->config->retry.expire_ms;
}

static enum message_class class_of(const struct intake *intake)
{
	if (intake->header.has_class)
		return intake->header.class;
	if (intake->client.options && intake->client.options->has_class)
		return intake->client.options->class;
	return MESSAGE_DEFAULT;
}

/* Of the user's line; empty: by the routes. */
static struct slice relayhost_of(const struct intake *intake)
{
	return slice_of_str(intake->client.options ? intake->client.options->relayhost : NULL);
}

/* RFC 8689 section 4.1: REQUIRETLS stands above the header field. */
static uint32_t tls_flag_of(const struct intake *intake)
{
	if (intake->requiretls)
		return QUEUE_REQUIRETLS;
	return intake->header.tls_required_no ? QUEUE_TLS_OPTIONAL : 0u;
}

static uint32_t flags_of(const struct intake *intake, bool is_signed)
{
	bool needs_utf8 = intake_has_utf8_address(intake) || (intake->smtputf8 && intake->header.has_8bit);

	return (needs_utf8 ? QUEUE_SMTPUTF8 : 0u) | tls_flag_of(intake) | (is_signed ? QUEUE_SIGNED : 0u) |
	       (intake->client.with ? QUEUE_SUBMIT_SOCKET : 0u);
}

/* Empty when it is the same. */
static struct slice original_of(const struct intake *intake, struct span submitted, struct span address)
{
	struct slice original = intake_text(intake, submitted);

	/* A bcc was never submitted: its span is empty. */
	return slice_eq(original, intake_text(intake, address)) ? (struct slice){0} : original;
}

static void commit(struct intake *intake, struct slice signatures)
{
	struct queue_recipient *recipients = xcalloc(intake->recipient_count, sizeof(*recipients));
	struct queue_envelope envelope = {
	    .sender = intake_text(intake, intake->sender),
	    .sender_original = original_of(intake, intake->submitted_sender, intake->sender),
	    .envid = intake_text(intake, intake->envid),
	    .user = intake->client.user,
	    .listener = intake->client.listener,
	    .client = intake->client.client,
	    .tag = intake->header.tag,
	    .message_id = slice_to(intake->header.message_id, QUEUE_STRING_MAX),
	    .from_domain = intake->header.from_domain,
	    .relayhost = relayhost_of(intake),
	    .body = intake->flags & CONTENT_8BIT ? QUEUE_BODY_8BITMIME : QUEUE_BODY_7BIT,
	    .ret = intake->ret,
	    .flags = flags_of(intake, signatures.len > 0),
	    .class = class_of(intake),
	    .arrived_wall = intake->now_wall,
	    .expires_wall = intake->now_wall + lifetime_ms(intake),
	    .recipients = recipients,
	    .recipient_count = intake->recipient_count,
	};
	int rc;

	intake->is_signed = signatures.len > 0;
	buf_append(&intake->prefix, signatures);
	rc = buf_append(&intake->prefix, buf_slice(&intake->header.prefix));
	envelope.prefix = buf_slice(&intake->prefix);
	for (size_t i = 0; i < intake->recipient_count; i++) {
		const struct rcpt *rcpt = &intake->recipients[i];
		recipients[i] =
		    (struct queue_recipient){.address = intake_text(intake, rcpt->address),
					     .original = original_of(intake, rcpt->submitted, rcpt->address),
					     .orcpt = intake_text(intake, rcpt->orcpt),
					     .notify = rcpt->notify};
	}
	if (rc == 0)
		rc = queue_upload_commit(&intake->upload, &envelope, intake->claim ? on_claim_committed : on_committed,
					 intake->claim ? (void *)intake->claim : intake);
	free(recipients);
	if (rc == 0)
		intake->is_committing = true;
	else
		finish(intake, rc == ERR_LIMIT	    ? &intake_header_too_long
			       : rc == ERR_NO_SPACE ? &intake_no_space
						    : &intake_disk_trouble);
}

static void cannot_sign(struct intake *intake, int result)
{
	char text[160];

	snprintf(text, sizeof(text), "a message from %.*s cannot be signed: %s",
		 (int)MIN(intake->header.from_domain.len, 100u),
		 intake->header.from_domain.ptr ? intake->header.from_domain.ptr : "", err_code_name(result));
	health_raise(intake->context->health, ALERT_SIGNING, text);
	if (intake->config->dkim.unsigned_policy == CONFIG_UNSIGNED_ALLOW)
		commit(intake, SLICE(""));
	else
		finish(intake, &not_signed);
}

static void on_signed(void *ctx, enum err_code result, struct slice fields)
{
	struct intake *intake = ctx;

	intake->signing = NULL;
	if (result != 0) {
		cannot_sign(intake, result);
		return;
	}
	health_end(intake->context->health, ALERT_SIGNING);
	commit(intake, fields);
}

static size_t count_fields(struct slice block)
{
	struct header_field field;
	size_t count = 0;

	while (header_next_field(&block, &field))
		count++;
	return count;
}

static size_t put_fields(struct slice block, struct dkim_field *out)
{
	struct header_field field;
	size_t count = 0;

	while (header_next_field(&block, &field))
		out[count++].raw = field.raw;
	return count;
}

static size_t add_name(struct slice *names, size_t count, size_t max, struct slice name)
{
	for (size_t i = 0; i < count; i++)
		if (slice_case_eq(names[i], name))
			return count;
	if (count < max)
		names[count++] = name;
	return count;
}

/* Names of fields that a relayhost on the way may rewrite, for any recipient. */
static size_t rewritten_fields(struct intake *intake, struct slice *out, size_t max)
{
	size_t count = 0;

	for (size_t r = 0; r < intake->recipient_count; r++) {
		struct router_question question = {.sender = intake_text(intake, intake->sender),
						   .from_domain = intake->header.from_domain,
						   .user = intake->client.user,
						   .recipient = intake_text(intake, intake->recipients[r].address),
						   .relayhost = relayhost_of(intake)};
		struct scheduler_targets targets;
		router_decide(intake->config, intake->context->rng, &question, &targets, NULL);
		for (size_t t = 0; t < targets.count; t++) {
			const struct config_relayhost *relayhost =
			    targets.targets[t].kind == DESTINATION_RELAYHOST
				? config_find_relayhost(intake->config, slice_of_str(targets.targets[t].name))
				: NULL;
			for (size_t f = 0; relayhost && f < relayhost->rewrites.count; f++)
				count = add_name(out, count, max, slice_of_str(relayhost->rewrites.items[f]));
		}
		if (intake->config->route_count == 0)
			break; /* all recipients go the same way */
	}
	return count;
}

/* Nobody who sent the message knows of these copies, so nobody is told of them. */
static void add_copies(struct intake *intake)
{
	const struct config_texts *bcc = &intake->config->bcc;

	for (size_t i = 0; i < bcc->count; i++)
		if (!intake_has_recipient(intake, slice_of_str(bcc->items[i])))
			intake_put_recipient(intake, slice_of_str(bcc->items[i]),
					     &(struct rcpt){.notify = QUEUE_NOTIFY_NEVER});
}

/* Staging: one mailbox instead of all. It stands for the first; the header has the others. */
static void redirect(struct intake *intake)
{
	struct rcpt first = intake->recipients[0];

	for (size_t i = 1; i < intake->recipient_count; i++)
		first.notify = intake_merge_notify(first.notify, intake->recipients[i].notify);
	intake->recipient_count = 0;
	intake_put_recipient(intake, slice_of_str(intake->config->redirect), &first);
}

static void sign(struct intake *intake)
{
	enum { OMIT_MAX = 64 };
	struct slice omit[OMIT_MAX], prefix = buf_slice(&intake->header.prefix), kept = intake->header.kept;
	unsigned char hash[DKIM_DIGEST_BYTES];
	struct dkim_field *fields;
	struct signer_message message = {.body_hash = hash,
					 .from_domain = intake->header.from_domain,
					 .expires_wall = intake->now_wall + lifetime_ms(intake),
					 .omit = omit};
	int result;

	if (intake->config->redirect)
		redirect(intake);
	else
		add_copies(intake);
	dkim_body_hash_final(intake->body_hash, hash);
	if (intake->config->dkim.domain_count == 0) {
		commit(intake, SLICE(""));
		return;
	}
	fields = xcalloc(count_fields(prefix) + count_fields(kept), sizeof(*fields));
	message.fields = fields;
	message.field_count = put_fields(prefix, fields);
	message.field_count += put_fields(kept, fields + message.field_count);
	message.omit_count = rewritten_fields(intake, omit, OMIT_MAX);
	intake->signing = signer_sign(intake->context->signer, &message, on_signed, intake, &result);
	free(fields);
	if (intake->signing)
		return;
	if (result == 0)
		commit(intake, SLICE(""));
	else
		cannot_sign(intake, result);
}

/* ---- the same message again? ---- */

static void hash_slice(crypto_generichash_state *state, struct slice text)
{
	uint64_t len = text.len;

	crypto_generichash_update(state, (const unsigned char *)&len, sizeof(len));
	if (text.len)
		crypto_generichash_update(state, (const unsigned char *)text.ptr, text.len);
}

static void hash_number(crypto_generichash_state *state, uint64_t number)
{
	hash_slice(state, slice_of(&number, sizeof(number)));
}

/* Who it is from: the user; for others the address, or the local user. */
static struct slice identity(const struct intake_client *client)
{
	if (client->user.len)
		return client->user;
	return client->address.len ? client->address : client->client;
}

/* The content has the Message-ID. */
static void make_key(struct intake *intake, unsigned char key[DEDUPE_KEY_BYTES])
{
	crypto_generichash_state *state = &intake->content_hash;

	crypto_generichash_final(state, key, DEDUPE_KEY_BYTES);
	crypto_generichash_init(state, NULL, 0, DEDUPE_KEY_BYTES);
	hash_slice(state, slice_of(key, DEDUPE_KEY_BYTES));
	hash_slice(state, identity(&intake->client));
	hash_number(state, intake->client.authenticated);
	hash_slice(state, intake_text(intake, intake->submitted_sender));
	hash_slice(state, intake_text(intake, intake->envid));
	hash_number(state, intake->ret);
	hash_number(state, (intake->smtputf8 ? 1u : 0u) | (intake->requiretls ? 2u : 0u));
	for (size_t i = 0; i < intake->recipient_count; i++) {
		hash_slice(state, intake_text(intake, intake->recipients[i].submitted));
		hash_slice(state, intake_text(intake, intake->recipients[i].orcpt));
		hash_number(state, intake->recipients[i].notify);
	}
	crypto_generichash_final(state, key, DEDUPE_KEY_BYTES);
}

static void ask(struct intake *intake);

static void on_first_settled(void *ctx, uint64_t id)
{
	struct intake *intake = ctx;

	if (id)
		finish_repeated(intake, id);
	else
		ask(intake);
}

static void ask(struct intake *intake)
{
	uint64_t first_id = 0;

	intake->waiter.on_settled = on_first_settled;
	intake->waiter.ctx = intake;
	switch (dedupe_ask(intake->context->dedupe, intake->key, &intake->claim, &first_id, &intake->waiter)) {
	case DEDUPE_FIRST:
		dedupe_claim_set_owner(intake->claim, intake);
		sign(intake);
		break;
	case DEDUPE_REPEATED: finish_repeated(intake, first_id); break;
	case DEDUPE_UNDERWAY: break;
	}
}

/* Without a Message-ID of the client's two equal messages may well be two. */
static void dedupe(struct intake *intake)
{
	if (!intake->has_content_hash || intake->header.added_message_id) {
		sign(intake);
		return;
	}
	make_key(intake, intake->key);
	ask(intake);
}

void intake_complete(struct intake *intake, const struct smtp_server_complete *complete, intake_done_cb *done,
		     void *ctx)
{
	const struct smtp_server_reply *refusal = NULL;

	intake->done = done;
	intake->done_ctx = ctx;
	intake->flags = complete->flags;
	if (!intake->header_done) {
		header_scanner_end(&intake->scanner);
		refusal = intake_finish_header(intake);
	}
	if (refusal)
		finish(intake, refusal);
	else
		dedupe(intake);
}
