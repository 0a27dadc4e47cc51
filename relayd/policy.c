#include "relayd/policy.h"

#include "base/base.h"
#include "relayd/policy_aliases.h"
#include "smtp/address_list.h"
#include "smtp/header.h"

#include <stdio.h>

static const struct smtp_server_reply may_not_use = {
    553, "5.7.1", "This user may not send from this address; ask for a 'from=' option of the user"};
static const struct smtp_server_reply may_not_write = {
    550, "5.7.1",
    "This user may not write in the name of this From, Sender or Resent-From; ask for a 'from=' option of the user"};
static const struct smtp_server_reply sender_too_long = {553, "5.1.7", "The sender's address is too long here"};
static const struct smtp_server_reply recipient_too_long = {
    553, "5.1.3", "What becomes of this address here is too long for one (origin, aliases, rewrite.recipient_file)"};
static const struct smtp_server_reply nobody = {
    550, "5.1.1", "The alias of this name leads to nobody that mail can be sent to (aliases)"};
static const struct smtp_server_reply everybody = {
    550, "5.1.4", "The alias of this name stands for more than 1000 recipients (aliases)"};
static const struct smtp_server_reply suppressed = {
    550, "5.7.1", "This address is not written to: it is on the relay's suppression list (suppress)"};
static const struct smtp_server_reply not_allowed = {
    550, "5.7.1", "This relay may not write to this address: add it, or its @domain, to allowed_recipients"};

struct slice policy_origin(const struct config *config)
{
	return slice_of_str(config->origin ? config->origin : config->hostname);
}

/* ---- Replacements. */

/* By one map; NULL: there is none. What is found is never looked up again. ERR_LIMIT: too long. */
static int rewrite(const struct address_map *map, struct slice address, struct policy_address *out)
{
	const char *replacement = map && address.len ? address_map_find(map, address) : NULL;
	struct slice local = {0};
	int len;

	if (replacement && replacement[0] == '@')
		smtp_split_address(address, &local, NULL);
	else if (!replacement)
		local = address;
	len = snprintf(out->text, sizeof(out->text), "%.*s%s", SLICE_ARG(local), replacement ? replacement : "");
	if (len < 0 || (size_t)len >= sizeof(out->text))
		return ERR_LIMIT;
	out->len = (size_t)len;
	return 0;
}

/* ---- Senders. */

bool policy_user_may_use(const struct user_options *options, struct slice address)
{
	return !options || options->from.count == 0 || address.len == 0 ||
	       config_patterns_match(&options->from, address);
}

const struct smtp_server_reply *policy_sender(const struct config *config, const struct user_options *options,
					      struct slice submitted, struct policy_address *out)
{
	struct policy_address complete;

	if (policy_complete(config, submitted, &complete) < 0)
		return &sender_too_long;
	if (!policy_user_may_use(options, policy_address_slice(&complete)))
		return &may_not_use;
	return rewrite(config->rewrite.from, policy_address_slice(&complete), out) < 0 ? &sender_too_long : NULL;
}

bool policy_rewrite_author(const struct config *config, struct slice address, struct policy_address *out)
{
	return config->rewrite.from && rewrite(config->rewrite.from, address, out) == 0 &&
	       !slice_eq(policy_address_slice(out), address);
}

/* Who else says that it was they who sent this. */
static bool names_a_sender(struct slice name)
{
	return slice_case_eq(name, SLICE("Sender")) || slice_case_eq(name, SLICE("Resent-From")) ||
	       slice_case_eq(name, SLICE("Resent-Sender"));
}

/* Without quotes in a display name: readers that take it for the address must be told no stranger's. */
static bool may_use_other(const struct user_options *options, struct slice other)
{
	return other.len == 0 ||
	       (slice_find(other, '@') == slice_find_last(other, '@') && policy_user_may_use(options, other));
}

/* "Acme" of "Acme, Inc. <a@example.com>", in which nobody finds an address. */
static bool is_half_a_name(struct slice raw)
{
	return slice_find(raw, '@') < 0 && (raw.len == 0 || !memmem(raw.ptr, raw.len, "=?", 2));
}

/* False also for what cannot be read: somebody may read it all the same. A bare name in From may be half a display name;
 * submit_header_make() knows. */
static bool may_use_all(const struct config *config, const struct user_options *options,
			const struct header_field *field, bool is_from)
{
	struct policy_address complete;
	struct address_list list;
	struct address address;
	int rc;

	address_list_init(&list, field->body);
	while ((rc = address_list_next(&list, &address)) == 1) {
		bool is_bare_author = is_from && !address.has_domain;
		if (!may_use_other(options, address.other) || (is_bare_author && !is_half_a_name(address.raw)))
			return false;
		if (is_bare_author)
			continue;
		if (policy_complete(config, slice_of(address.text, address.len), &complete) < 0 ||
		    !policy_user_may_use(options, policy_address_slice(&complete)))
			return false;
	}
	return rc == 0;
}

const struct smtp_server_reply *policy_names(const struct config *config, const struct user_options *options,
					     const struct submit_header *header)
{
	struct slice rest = header->kept;
	struct header_field field;

	if (!options || options->from.count == 0)
		return NULL;
	/* An added one is the sender, who was asked about at MAIL. */
	for (size_t i = 0; i < header->from_count && !header->added_from; i++)
		if (!policy_user_may_use(options, header->from[i]))
			return &may_not_write;
	while (header_next_field(&rest, &field)) {
		bool is_from = slice_case_eq(field.name, SLICE("From"));
		if ((is_from || names_a_sender(field.name)) && !may_use_all(config, options, &field, is_from))
			return &may_not_write;
	}
	return NULL;
}

/* ---- Recipients. */

void policy_recipients_init(struct policy_recipients *recipients)
{
	*recipients = (struct policy_recipients){0};
	buf_init(&recipients->texts, POLICY_TEXTS_MAX_BYTES);
}

void policy_recipients_fini(struct policy_recipients *recipients)
{
	buf_fini(&recipients->texts);
}

struct taking {
	const struct config *config;
	struct policy_recipients *out;
	bool is_forbidden;
};

/* An alias may lead to several; one who may not be written to is reason enough to refuse all, for it shows a mistake.
 */
static int take(void *ctx, struct slice address)
{
	struct taking *taking = ctx;
	const struct config *config = taking->config;
	struct policy_address rewritten;
	struct slice final;

	if (rewrite(config->rewrite.recipient, address, &rewritten) < 0)
		return ERR_SYNTAX;
	final = policy_address_slice(&rewritten);
	if (config->suppressed && address_map_find(config->suppressed, final)) {
		taking->out->suppressed++;
		return 0;
	}
	taking->is_forbidden |=
	    config->allowed_recipients.count > 0 && !config_patterns_match(&config->allowed_recipients, final);
	buf_append(&taking->out->texts, slice_of(rewritten.text, rewritten.len + 1));
	taking->out->count++;
	return 0;
}

const struct smtp_server_reply *policy_recipient(const struct config *config, struct slice submitted,
						 struct policy_recipients *out)
{
	struct slice name = policy_local_name(config, submitted);
	struct taking taking = {config, out, false};
	struct policy_address complete;
	int rc;

	if (config->aliases && name.len && aliases_find(config->aliases, name)) {
		rc = policy_follow_alias(config, name, take, &taking);
	} else {
		rc = policy_complete(config, submitted, &complete);
		rc = rc < 0 ? ERR_SYNTAX : take(&taking, policy_address_slice(&complete));
	}
	out->looked_at = rc == ERR_LIMIT ? POLICY_ALIAS_MAX : (unsigned)out->count + out->suppressed;
	if (rc < 0)
		return rc == ERR_LIMIT ? &everybody : &recipient_too_long;
	if (out->count == 0)
		return out->suppressed ? &suppressed : &nobody;
	return taking.is_forbidden ? &not_allowed : NULL;
}

/* ---- DSNs. */

struct slice policy_bounce_recipient(const struct config *config, struct slice sender)
{
	if (config->redirect)
		return slice_of_str(config->redirect);
	if (config->suppressed && address_map_find(config->suppressed, sender))
		return (struct slice){0};
	if (config->allowed_recipients.count > 0 && !config_patterns_match(&config->allowed_recipients, sender))
		return (struct slice){0};
	return sender;
}
