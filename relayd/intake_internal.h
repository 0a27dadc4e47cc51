/*
 * relayd/intake_internal.h - what intake.c (envelope, header, content) and intake_commit.c (from the end of data to the
 * 250) share; nobody else includes it
 */
#ifndef RELAYD_INTAKE_INTERNAL_H
#define RELAYD_INTAKE_INTERNAL_H

#include "base/msgid.h"
#include "dkim/body_hash.h"
#include "relayd/intake.h"
#include "relayd/policy_header.h"
#include "smtp/header.h"
#include "smtp/submit_header.h"

#include <sodium.h>

struct intake {
	struct intake_context *context;
	struct config *config; /* of its begin, whatever is reloaded meanwhile */
	struct buf memory;     /* strings of the envelope */
	/* Offsets into `memory`, since it moves while it grows. */
	struct span {
		size_t at, len;
	} sender, submitted_sender, envid, auth;
	/* As the policy made them of what was submitted: one RCPT may stand here several times, or two as one. */
	struct rcpt {
		struct span address, submitted, orcpt;
		unsigned notify;
	} * recipients;
	size_t recipient_count;
	size_t looked_at; /* addresses that aliases led to, for all RCPTs, also those that were there already */
	bool has_changed_recipients;
	bool smtputf8, requiretls;
	enum queue_ret ret;

	struct intake_client client;
	char id_text[MSGID_CHARS + 1];
	struct queue_upload *upload;
	uint64_t id;
	struct header_scanner scanner;
	bool header_done;
	struct submit_header header;
	struct policy_header edited; /* what the header's `kept` may lie in */
	struct dkim_body_hash *body_hash;
	crypto_generichash_state content_hash; /* of the message as submitted; only with a dedupe window */
	bool has_content_hash;
	unsigned char key[DEDUPE_KEY_BYTES];
	struct dedupe_waiter waiter;
	struct dedupe_claim *claim;
	struct smtp_server_reply refusal;

	struct signing *signing;
	struct buf prefix;
	unsigned flags; /* enum content_flag */
	int64_t now_wall;
	bool is_committing, is_signed;
	intake_done_cb *done;
	void *done_ctx;
};

extern const struct smtp_server_reply intake_no_space, intake_disk_trouble, intake_header_too_long;

static inline struct slice intake_text(const struct intake *intake, struct span span)
{
	return slice_to(slice_from(buf_slice(&intake->memory), span.at), span.len);
}

bool intake_has_recipient(const struct intake *intake, struct slice address);
/* NOTIFY of a recipient that stands for two: nobody hears less than was asked for. */
unsigned intake_merge_notify(unsigned one, unsigned other);
/* One recipient more: the address is copied, the rest is as in `like`. */
void intake_put_recipient(struct intake *intake, struct slice address, const struct rcpt *like);
bool intake_has_utf8_address(const struct intake *intake);
/* The header has ended: decides what is added and removed, and stores what is kept. */
const struct smtp_server_reply *intake_finish_header(struct intake *intake);

#endif
