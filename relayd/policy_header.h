/*
 * relayd/policy_header.h - what the operator changes in a message's header; see relayd/policy.h
 *
 * Works on what submit_header_make() has kept, and knows what was there before: `headers.remove` and the former fields
 * of `headers.set` are gone already (policy_removed_fields()). Everything else stays octet for octet, in its order; new
 * fields go to the end.
 *
 * COMPLETED  bare names in To and Cc that are recipients of this message, and a bare name in Sender. (A "bare name" may
 *            be half a display name: "To: Acme, Inc. <a@example.com>".)
 * REWRITTEN  addresses of From and Sender by rewrite.from_file; their names stay. The former From becomes Reply-To when
 *            there is none, with rewrite.keep_reply_to.
 * SUBJECT    the prefix stands in front, behind "Re:" or not at all when it is there already, encoded when it is not
 *            ASCII.
 * ADDED      headers.set; with redirect X-Relayd-Original-To, the true recipients.
 */
#ifndef RELAYD_POLICY_HEADER_H
#define RELAYD_POLICY_HEADER_H

#include "config/config.h"
#include "smtp/submit_header.h"

enum {
	POLICY_ORIGINAL_TO_MAX_BYTES = 64 * 1024, /* then it ends with how many more there were */
};

/* Borrowed. */
struct policy_header_options {
	const struct config *config;
	const struct slice *local_names; /* local parts of the recipients that are names of origin */
	size_t local_name_count;
	const struct slice *redirected; /* with `redirect`: the true recipients */
	size_t redirected_count;
};

struct policy_header {
	struct buf text;
	struct slice from_domain; /* in `text`, when From was rewritten */
	bool is_changed;	  /* otherwise `text` is nothing */
};

/* The names to remove for `headers`, *count of them; to be freed. NULL: none. */
struct slice *policy_removed_fields(const struct config *config, size_t *count);
/* Edits header->kept into *out, and has `header` speak of the result: kept, from_domain, has_8bit. *out lives as long
 * as `header` is used; give it back with policy_header_fini(). */
void policy_header_edit(struct policy_header *out, struct submit_header *header,
			const struct policy_header_options *options);
void policy_header_fini(struct policy_header *out);

#endif
