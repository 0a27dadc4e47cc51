#include "relayd/intake.h"

#include "base/base.h"
#include "relayd/intake_internal.h"
#include "relayd/policy.h"
#include "relayd/policy_aliases.h"
#include "smtp/date.h"

#include <stdio.h>
#include <stdlib.h>

const struct smtp_server_reply intake_no_space = {452, "4.3.1", "The queue is full; try again later"};
const struct smtp_server_reply intake_disk_trouble = {451, "4.3.0", "The queue cannot be written now; try again later"};
static const struct smtp_server_reply stopping = {421, "4.3.2", "relayd is stopping; try again"};
static const struct smtp_server_reply too_many = {
    452, "4.5.3", "Too many recipients with those that aliases stand for; send to the rest in another message"};
const struct smtp_server_reply intake_header_too_long = {552, "5.3.4", "The message's header is too long"};

const struct smtp_server_reply *intake_reply_of(int queue_error)
{
	switch (queue_error) {
	case 0:
	case ERR_LIMIT: return NULL;
	case ERR_NO_SPACE: return &intake_no_space;
	case ERR_CLOSED: return &stopping;
	default: return &intake_disk_trouble;
	}
}

/* ---- envelope ---- */

static struct span keep(struct intake *intake, struct slice text)
{
	struct span span = {buf_len(&intake->memory), text.len};

	buf_append(&intake->memory, text);
	return span;
}

struct intake *intake_new(struct intake_context *context, const struct smtp_server_mail *mail,
			  const struct user_options *options, const struct smtp_server_reply **refusal)
{
	struct policy_address sender;
	struct intake *intake;

	*refusal = policy_sender(context->config, options, mail->sender.address, &sender);
	if (*refusal)
		return NULL;
	intake = xcalloc(1, sizeof(*intake));
	intake->context = context;
	intake->config = config_ref(context->config);
	buf_init(&intake->memory, SIZE_MAX / 4);
	buf_init(&intake->prefix, QUEUE_PREFIX_MAX);
	intake->sender = keep(intake, policy_address_slice(&sender));
	intake->submitted_sender = keep(intake, mail->sender.address);
	intake->envid = keep(intake, mail->envid);
	intake->auth = keep(intake, mail->auth);
	intake->ret = (enum queue_ret)mail->ret;
	intake->smtputf8 = mail->smtputf8;
	intake->requiretls = mail->requiretls;
	list_node_init(&intake->waiter.node);
	return intake;
}

/* A claim goes on with the commit that it stands for; one without a commit has failed. */
static void leave_claim(struct intake *intake, struct dedupe_claim **failed)
{
	dedupe_cancel(&intake->waiter);
	*failed = NULL;
	if (!intake->claim)
		return;
	if (intake->is_committing)
		dedupe_claim_set_owner(intake->claim, NULL);
	else
		*failed = intake->claim;
	intake->claim = NULL;
}

void intake_free(struct intake **intake)
{
	struct intake *i = *intake;
	struct dedupe_claim *failed;

	if (!i)
		return;
	*intake = NULL;
	signer_cancel(&i->signing);
	if (i->is_committing && !i->claim)
		queue_commit_forget(i->context->queue, i->id);
	leave_claim(i, &failed);
	if (i->upload)
		queue_upload_abort(&i->upload);
	if (i->id_text[0])
		header_scanner_fini(&i->scanner);
	if (i->header_done)
		submit_header_fini(&i->header);
	policy_header_fini(&i->edited);
	dkim_body_hash_free(&i->body_hash);
	buf_fini(&i->memory);
	buf_fini(&i->prefix);
	free(i->recipients);
	config_free(&i->config);
	free(i);
	dedupe_settle(&failed, 0);
}

static struct rcpt *find_recipient(const struct intake *intake, struct slice address)
{
	for (size_t i = 0; i < intake->recipient_count; i++)
		if (slice_eq(intake_text(intake, intake->recipients[i].address), address))
			return &intake->recipients[i];
	return NULL;
}

bool intake_has_recipient(const struct intake *intake, struct slice address)
{
	return find_recipient(intake, address) != NULL;
}

/* RFC 3461 section 4.1: not given means failures, and delays as we like; NEVER stands alone. */
unsigned intake_merge_notify(unsigned one, unsigned other)
{
	const unsigned not_given = SMTP_DSN_FAILURE | SMTP_DSN_DELAY;
	unsigned both = (one ? one : not_given) | (other ? other : not_given);

	return one == other ? one : both & ~(unsigned)SMTP_DSN_NEVER;
}

void intake_put_recipient(struct intake *intake, struct slice address, const struct rcpt *like)
{
	size_t n = intake->recipient_count;

	if ((n & (n - 1)) == 0)
		intake->recipients = xreallocarray(intake->recipients, n ? n * 2 : 1, sizeof(*intake->recipients));
	intake->recipients[n] = *like;
	intake->recipients[n].address = keep(intake, address);
	intake->recipient_count++;
}

/* What the policy made of one RCPT. Two names of one mailbox get the message once. */
static void put_recipients(struct intake *intake, struct slice submitted, const struct policy_recipients *made,
			   struct rcpt *like)
{
	struct slice texts = buf_slice(&made->texts);

	for (size_t i = 0; i < made->count; i++) {
		struct slice address = slice_of_str(texts.ptr);
		struct rcpt *known;
		texts = slice_from(texts, address.len + 1);
		intake->has_changed_recipients |= !slice_eq(address, submitted);
		known = intake->has_changed_recipients ? find_recipient(intake, address) : NULL;
		if (known)
			known->notify = intake_merge_notify(known->notify, like->notify);
		else
			intake_put_recipient(intake, address, like);
	}
}

const struct smtp_server_reply *intake_add_recipient(struct intake *intake, const struct smtp_server_rcpt *rcpt,
						     unsigned *suppressed)
{
	struct slice submitted = rcpt->recipient.address;
	struct policy_recipients made;
	const struct smtp_server_reply *refusal;
	struct rcpt like;

	if (MAX(intake->recipient_count, intake->looked_at) >= (size_t)intake->config->limits.recipients)
		return &too_many;
	policy_recipients_init(&made);
	refusal = policy_recipient(intake->config, submitted, &made);
	*suppressed += made.suppressed;
	intake->looked_at += made.looked_at;
	if (!refusal) {
		like = (struct rcpt){
		    .submitted = keep(intake, submitted), .orcpt = keep(intake, rcpt->orcpt), .notify = rcpt->notify};
		put_recipients(intake, submitted, &made, &like);
	}
	policy_recipients_fini(&made);
	return refusal;
}

/* ---- header ---- */

const struct smtp_server_reply *intake_begin(struct intake *intake, const struct intake_client *client)
{
	struct err err;

	intake->client = *client;
	intake->client.user = intake_text(intake, keep(intake, client->user));
	intake->upload = queue_upload_begin(intake->context->queue, &err);
	if (!intake->upload)
		return intake_reply_of(err.code);
	intake->id = queue_upload_id(intake->upload);
	msgid_format(intake->id, intake->id_text);
	intake->now_wall = clock_wall_ms(intake->context->clock);
	header_scanner_init(&intake->scanner, HEADER_BLOCK_MAX_BYTES);
	intake->body_hash = dkim_body_hash_new(DKIM_CANON_RELAXED);
	intake->has_content_hash = dedupe_is_on(intake->context->dedupe);
	if (intake->has_content_hash)
		crypto_generichash_init(&intake->content_hash, NULL, 0, DEDUPE_KEY_BYTES);
	return NULL;
}

/* Of the envelope, as it will be sent: then only a next hop that offers SMTPUTF8 can take it. */
bool intake_has_utf8_address(const struct intake *intake)
{
	if (!slice_is_ascii(intake_text(intake, intake->sender)))
		return true;
	for (size_t i = 0; i < intake->recipient_count; i++)
		if (!slice_is_ascii(intake_text(intake, intake->recipients[i].address)))
			return true;
	return false;
}

static const struct smtp_server_reply *append(struct intake *intake, struct slice content)
{
	int rc = content.len ? queue_upload_append(intake->upload, content) : 0;

	return rc == 0 ? NULL : rc == ERR_NO_SPACE ? &intake_no_space : &intake_disk_trouble;
}

static const struct smtp_server_reply *add_body(struct intake *intake, struct slice body)
{
	dkim_body_hash_update(intake->body_hash, body);
	return append(intake, body);
}

/* The operator's changes. Names of recipients and, with `redirect`, where they were to go. */
static void edit_header(struct intake *intake)
{
	struct slice *texts = xcalloc(2 * intake->recipient_count + 1, sizeof(*texts));
	struct policy_header_options options = {
	    .config = intake->config, .local_names = texts, .redirected = texts + intake->recipient_count};

	for (size_t i = 0; i < intake->recipient_count; i++) {
		struct slice submitted = intake_text(intake, intake->recipients[i].submitted);
		struct slice name = policy_local_name(intake->config, submitted);
		if (name.len > 0)
			texts[options.local_name_count++] = name;
		if (intake->config->redirect)
			texts[intake->recipient_count + options.redirected_count++] =
			    intake_text(intake, intake->recipients[i].address);
	}
	policy_header_edit(&intake->edited, &intake->header, &options);
	free(texts);
}

static int make_header(struct intake *intake, struct submit_header_options *options)
{
	struct policy_address author;
	char postmaster[300];
	struct slice *removed = policy_removed_fields(intake->config, &options->remove_count);
	int rc;

	snprintf(postmaster, sizeof(postmaster), "MAILER-DAEMON@%s", intake->config->hostname);
	options->remove = removed;
	options->author = options->sender.len ? options->sender : slice_of_str(postmaster);
	if (options->sender.len == 0 && policy_rewrite_author(intake->config, options->author, &author))
		options->author = policy_address_slice(&author);
	rc = submit_header_make(&intake->header, header_scanner_block(&intake->scanner), options);
	free(removed);
	return rc;
}

const struct smtp_server_reply *intake_finish_header(struct intake *intake)
{
	const struct intake_client *client = &intake->client;
	struct submit_header_options options = {
	    .hostname = slice_of_str(intake->config->hostname),
	    .origin = policy_origin(intake->config),
	    .id = slice_of_str(intake->id_text),
	    .sender = intake_text(intake, intake->sender),
	    .only_recipient =
		intake->recipient_count == 1 ? intake_text(intake, intake->recipients[0].address) : (struct slice){0},
	    .hide_client = intake->config->hide_client,
	    .helo = client->helo,
	    .client_address = client->address,
	    .esmtp = client->esmtp,
	    .tls = client->tls,
	    .authenticated = client->authenticated,
	    .smtputf8 = intake_has_utf8_address(intake),
	    .with = slice_of_str(client->with),
	    .wall_ms = intake->now_wall,
	    .utc_offset_min = smtp_date_local_offset_min(intake->now_wall),
	    .rng = intake->context->rng,
	};
	const struct smtp_server_reply *refusal;

	intake->header_done = true;
	if (make_header(intake, &options) != 0)
		return &intake->header.refusal;
	refusal = policy_names(intake->config, client->options, &intake->header);
	if (!refusal)
		edit_header(intake);
	refusal = refusal ? refusal : append(intake, intake->header.kept);
	refusal = refusal ? refusal : append(intake, SLICE("\r\n"));
	return refusal ? refusal : add_body(intake, header_scanner_leftover(&intake->scanner));
}

const struct smtp_server_reply *intake_content(struct intake *intake, struct slice content)
{
	const struct smtp_server_reply *refusal;
	size_t taken = 0;

	if (intake->has_content_hash)
		crypto_generichash_update(&intake->content_hash, (const unsigned char *)content.ptr, content.len);
	if (intake->header_done)
		return add_body(intake, content);
	switch (header_scanner_input(&intake->scanner, content, &taken)) {
	case HEADER_MORE: return NULL;
	case HEADER_TOO_LONG: return &intake_header_too_long;
	case HEADER_COMPLETE: break;
	}
	refusal = intake_finish_header(intake);
	return refusal ? refusal : add_body(intake, slice_from(content, taken));
}

bool intake_is_in_header(const struct intake *intake)
{
	return !intake->header_done;
}

struct slice intake_sender(const struct intake *intake)
{
	return intake_text(intake, intake->sender);
}

const char *intake_dkim_word(const struct intake *intake)
{
	if (intake->is_signed)
		return "signed";
	return intake->config->dkim.domain_count > 0 ? "none" : "";
}

size_t intake_memory_bytes(const struct intake *intake)
{
	enum { UPLOAD_MAX_BYTES = 128 * 1024 };
	size_t sum = sizeof(*intake) + intake->memory.cap + intake->prefix.cap;

	sum += intake->recipient_count * 2 * sizeof(*intake->recipients);
	if (intake->id_text[0])
		sum += intake->scanner.block.cap;
	if (intake->header_done)
		sum += intake->header.prefix.cap + intake->header.changed.cap + intake->header.memory.cap +
		       intake->edited.text.cap;
	if (intake->upload)
		sum += (size_t)MIN(queue_upload_bytes(intake->upload), (uint64_t)UPLOAD_MAX_BYTES);
	return sum;
}
