#include "relayd/intake.h"

#include "base/base.h"
#include "base/msgid.h"
#include "dkim/body_hash.h"
#include "relayd/router.h"
#include "smtp/date.h"
#include "smtp/header.h"
#include "smtp/submit_header.h"

#include <stdio.h>
#include <stdlib.h>

struct intake {
	struct intake_context *context;
	struct config *config; /* of its begin, whatever is reloaded meanwhile */
	struct buf memory;     /* strings of the envelope */
	/* Offsets into `memory`, since it moves while it grows. */
	struct span {
		size_t at, len;
	} sender, envid, auth;
	struct rcpt {
		struct span address, orcpt;
		unsigned notify;
	} * recipients;
	size_t recipient_count;
	bool smtputf8, address_is_utf8, requiretls;
	enum queue_ret ret;

	struct intake_client client;
	char id_text[MSGID_CHARS + 1];
	struct queue_upload *upload;
	uint64_t id;
	struct header_scanner scanner;
	bool header_done;
	struct submit_header header;
	struct dkim_body_hash *body_hash;
	struct smtp_server_reply refusal;

	struct signing *signing;
	struct buf prefix;
	unsigned flags; /* enum content_flag */
	int64_t now_wall;
	bool is_committing;
	intake_done_cb *done;
	void *done_ctx;
};

static const struct smtp_server_reply no_space = {452, "4.3.1", "The queue is full; try again later"};
static const struct smtp_server_reply disk_trouble = {451, "4.3.0", "The queue cannot be written now; try again later"};
static const struct smtp_server_reply stopping = {421, "4.3.2", "relayd is stopping; try again"};
static const struct smtp_server_reply not_signed = {
    451, "4.7.0", "The message cannot be signed with DKIM now; try again later (see the relay's log)"};
static const struct smtp_server_reply header_too_long = {552, "5.3.4", "The message's header is too long"};

const struct smtp_server_reply *intake_reply_of(int queue_error)
{
	switch (queue_error) {
	case 0:
	case ERR_LIMIT: return NULL;
	case ERR_NO_SPACE: return &no_space;
	case ERR_CLOSED: return &stopping;
	default: return &disk_trouble;
	}
}

/* ---- envelope ---- */

static struct span keep(struct intake *intake, struct slice text)
{
	struct span span = {buf_len(&intake->memory), text.len};

	buf_append(&intake->memory, text);
	return span;
}

static struct slice text_of(const struct intake *intake, struct span span)
{
	return slice_to(slice_from(buf_slice(&intake->memory), span.at), span.len);
}

struct intake *intake_new(struct intake_context *context, const struct smtp_server_mail *mail)
{
	struct intake *intake = xcalloc(1, sizeof(*intake));

	intake->context = context;
	intake->config = config_ref(context->config);
	buf_init(&intake->memory, SIZE_MAX / 4);
	buf_init(&intake->prefix, QUEUE_PREFIX_MAX);
	intake->sender = keep(intake, mail->sender.address);
	intake->envid = keep(intake, mail->envid);
	intake->auth = keep(intake, mail->auth);
	intake->ret = (enum queue_ret)mail->ret;
	intake->smtputf8 = mail->smtputf8;
	intake->requiretls = mail->requiretls;
	intake->address_is_utf8 = mail->sender.is_utf8;
	return intake;
}

void intake_free(struct intake **intake)
{
	struct intake *i = *intake;

	if (!i)
		return;
	*intake = NULL;
	signer_cancel(&i->signing);
	if (i->is_committing)
		queue_commit_forget(i->context->queue, i->id);
	if (i->upload)
		queue_upload_abort(&i->upload);
	if (i->id_text[0])
		header_scanner_fini(&i->scanner);
	if (i->header_done)
		submit_header_fini(&i->header);
	dkim_body_hash_free(&i->body_hash);
	buf_fini(&i->memory);
	buf_fini(&i->prefix);
	free(i->recipients);
	config_free(&i->config);
	free(i);
}

void intake_add_recipient(struct intake *intake, const struct smtp_server_rcpt *rcpt)
{
	size_t n = intake->recipient_count;

	if ((n & (n - 1)) == 0)
		intake->recipients = xreallocarray(intake->recipients, n ? n * 2 : 1, sizeof(*intake->recipients));
	intake->recipients[n].address = keep(intake, rcpt->recipient.address);
	intake->recipients[n].orcpt = keep(intake, rcpt->orcpt);
	intake->recipients[n].notify = rcpt->notify;
	intake->recipient_count++;
	intake->address_is_utf8 |= rcpt->recipient.is_utf8;
}

const struct smtp_server_reply *intake_check_sender(struct slice sender, const struct user_options *options)
{
	static const struct smtp_server_reply refused = {
	    553, "5.7.1", "This user may not send from this address; ask for a 'from=' option of the user"};

	if (!options || options->from.count == 0 || sender.len == 0 || config_patterns_match(&options->from, sender))
		return NULL;
	return &refused;
}

/* ---- header ---- */

const struct smtp_server_reply *intake_begin(struct intake *intake, const struct intake_client *client)
{
	struct err err;

	intake->client = *client;
	intake->client.user = text_of(intake, keep(intake, client->user));
	intake->upload = queue_upload_begin(intake->context->queue, &err);
	if (!intake->upload)
		return intake_reply_of(err.code);
	intake->id = queue_upload_id(intake->upload);
	msgid_format(intake->id, intake->id_text);
	intake->now_wall = clock_wall_ms(intake->context->clock);
	header_scanner_init(&intake->scanner, HEADER_BLOCK_MAX_BYTES);
	intake->body_hash = dkim_body_hash_new(DKIM_CANON_RELAXED);
	return NULL;
}

static const struct smtp_server_reply *check_from(struct intake *intake)
{
	for (size_t i = 0; i < intake->header.from_count; i++) {
		const struct smtp_server_reply *refused =
		    intake_check_sender(intake->header.from[i], intake->client.options);
		if (refused) {
			intake->refusal = *refused;
			intake->refusal.code = 550;
			return &intake->refusal;
		}
	}
	return NULL;
}

static const struct smtp_server_reply *append(struct intake *intake, struct slice content)
{
	int rc = content.len ? queue_upload_append(intake->upload, content) : 0;

	return rc == 0 ? NULL : rc == ERR_NO_SPACE ? &no_space : &disk_trouble;
}

static const struct smtp_server_reply *add_body(struct intake *intake, struct slice body)
{
	dkim_body_hash_update(intake->body_hash, body);
	return append(intake, body);
}

/* The header has ended: decides what is added and removed, and stores what is kept. */
static const struct smtp_server_reply *finish_header(struct intake *intake)
{
	const struct intake_client *client = &intake->client;
	struct submit_header_options options = {
	    .hostname = slice_of_str(intake->config->hostname),
	    .origin = slice_of_str(intake->config->origin),
	    .id = slice_of_str(intake->id_text),
	    .sender = text_of(intake, intake->sender),
	    .only_recipient =
		intake->recipient_count == 1 ? text_of(intake, intake->recipients[0].address) : (struct slice){0},
	    .hide_client = intake->config->hide_client,
	    .helo = client->helo,
	    .client_address = client->address,
	    .esmtp = client->esmtp,
	    .tls = client->tls,
	    .authenticated = client->authenticated,
	    .smtputf8 = intake->address_is_utf8,
	    .with = slice_of_str(client->with),
	    .wall_ms = intake->now_wall,
	    .utc_offset_min = smtp_date_local_offset_min(intake->now_wall),
	    .rng = intake->context->rng,
	};
	const struct smtp_server_reply *refusal;

	intake->header_done = true;
	if (submit_header_make(&intake->header, header_scanner_block(&intake->scanner), &options) != 0)
		return &intake->header.refusal;
	refusal = check_from(intake);
	refusal = refusal ? refusal : append(intake, intake->header.kept);
	refusal = refusal ? refusal : append(intake, SLICE("\r\n"));
	return refusal ? refusal : add_body(intake, header_scanner_leftover(&intake->scanner));
}

const struct smtp_server_reply *intake_content(struct intake *intake, struct slice content)
{
	const struct smtp_server_reply *refusal;
	size_t taken = 0;

	if (intake->header_done)
		return add_body(intake, content);
	switch (header_scanner_input(&intake->scanner, content, &taken)) {
	case HEADER_MORE: return NULL;
	case HEADER_TOO_LONG: return &header_too_long;
	case HEADER_COMPLETE: break;
	}
	refusal = finish_header(intake);
	return refusal ? refusal : add_body(intake, slice_from(content, taken));
}

/* ---- end of data ---- */

static void finish(struct intake *intake, const struct smtp_server_reply *refusal)
{
	intake_done_cb *done = intake->done;

	intake->done = NULL;
	if (refusal && intake->upload)
		queue_upload_abort(&intake->upload);
	done(intake->done_ctx, intake->id, refusal);
}

static void on_committed(void *ctx, uint64_t id, enum err_code result)
{
	struct intake *intake = ctx;

	(void)id;
	intake->is_committing = false;
	finish(intake, result == 0 ? NULL : intake_reply_of(result));
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

static uint32_t flags_of(const struct intake *intake, bool is_signed)
{
	bool needs_utf8 = intake->address_is_utf8 || (intake->smtputf8 && intake->header.has_8bit);

	return (needs_utf8 ? QUEUE_SMTPUTF8 : 0u) | (intake->requiretls ? QUEUE_REQUIRETLS : 0u) |
	       (is_signed ? QUEUE_SIGNED : 0u) | (intake->client.with ? QUEUE_SUBMIT_SOCKET : 0u);
}

static void commit(struct intake *intake, struct slice signatures)
{
	struct queue_recipient *recipients = xcalloc(intake->recipient_count, sizeof(*recipients));
	struct queue_envelope envelope = {
	    .sender = text_of(intake, intake->sender),
	    .envid = text_of(intake, intake->envid),
	    .user = intake->client.user,
	    .listener = intake->client.listener,
	    .client = intake->client.client,
	    .tag = intake->header.tag,
	    .message_id = slice_to(intake->header.message_id, QUEUE_STRING_MAX),
	    .from_domain = intake->header.from_domain,
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

	buf_append(&intake->prefix, signatures);
	rc = buf_append(&intake->prefix, buf_slice(&intake->header.prefix));
	envelope.prefix = buf_slice(&intake->prefix);
	for (size_t i = 0; i < intake->recipient_count; i++)
		recipients[i] = (struct queue_recipient){.address = text_of(intake, intake->recipients[i].address),
							 .orcpt = text_of(intake, intake->recipients[i].orcpt),
							 .notify = intake->recipients[i].notify};
	if (rc == 0)
		rc = queue_upload_commit(&intake->upload, &envelope, on_committed, intake);
	free(recipients);
	if (rc == 0)
		intake->is_committing = true;
	else
		finish(intake, rc == ERR_LIMIT ? &header_too_long : rc == ERR_NO_SPACE ? &no_space : &disk_trouble);
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
		struct router_question question = {text_of(intake, intake->sender), intake->header.from_domain,
						   intake->client.user, text_of(intake, intake->recipients[r].address)};
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

void intake_complete(struct intake *intake, const struct smtp_server_complete *complete, intake_done_cb *done,
		     void *ctx)
{
	const struct smtp_server_reply *refusal = NULL;

	intake->done = done;
	intake->done_ctx = ctx;
	intake->flags = complete->flags;
	if (!intake->header_done) {
		header_scanner_end(&intake->scanner);
		refusal = finish_header(intake);
	}
	if (refusal)
		finish(intake, refusal);
	else
		sign(intake);
}
