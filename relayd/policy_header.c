#include "relayd/policy_header.h"

#include "base/base.h"
#include "relayd/policy.h"
#include "relayd/policy_aliases.h"
#include "relayd/policy_subject.h"
#include "smtp/address_list.h"
#include "smtp/header.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	/* So many bare names and authors are looked at; those behind them stay. It bounds what a To of nothing but
	 * "root, root, ..." costs. */
	ADDRESSES_MAX = 1000,
	/* What an edit may add: 1,000 addresses of 254 octets, a From of 256 KiB as Reply-To, the operator's fields
	 * (100 of 2,000), and X-Relayd-Original-To. */
	GROWTH_MAX_BYTES = 1024 * 1024,
};

/* One pass over the fields. */
struct edit {
	const struct policy_header_options *options;
	struct buf *out;
	struct slice former_from;		/* its body, when it was rewritten */
	size_t from_domain_at, from_domain_len; /* in `out`; 0: it was not rewritten */
	bool has_reply_to, has_subject;
	unsigned looked_at; /* addresses */
	bool is_changed;
};

struct slice *policy_removed_fields(const struct config *config, size_t *count)
{
	const struct config_texts *remove = &config->headers.remove, *set = &config->headers.set;
	struct slice *names;

	*count = remove->count + set->count;
	if (*count == 0)
		return NULL;
	names = xcalloc(*count, sizeof(*names));
	for (size_t i = 0; i < remove->count; i++)
		names[i] = slice_of_str(remove->items[i]);
	for (size_t i = 0; i < set->count; i++) {
		struct slice field = slice_of_str(set->items[i]);
		names[remove->count + i] = slice_to(field, (size_t)slice_find(field, ':'));
	}
	return names;
}

/* ---- Addresses in a field. */

/* What takes the place of an address; false: it stays. */
typedef bool replace_fn(struct edit *edit, const struct address *address, struct policy_address *out);

static bool complete_recipient(struct edit *edit, const struct address *address, struct policy_address *out)
{
	struct slice name = slice_of(address->text, address->len);

	if (address->has_domain || ++edit->looked_at > ADDRESSES_MAX)
		return false;
	for (size_t i = 0; i < edit->options->local_name_count; i++)
		if (slice_case_eq(edit->options->local_names[i], name))
			return policy_complete(edit->options->config, name, out) == 0;
	return false;
}

static bool replace_author(struct edit *edit, const struct address *address, struct policy_address *out)
{
	struct policy_address complete;
	struct slice text = slice_of(address->text, address->len);

	if (++edit->looked_at > ADDRESSES_MAX || policy_complete(edit->options->config, text, &complete) < 0)
		return false;
	if (policy_rewrite_author(edit->options->config, policy_address_slice(&complete), out))
		return true;
	*out = complete;
	return !address->has_domain;
}

/* Copies the field with its addresses replaced. The number of those. */
static unsigned edit_addresses(struct edit *edit, const struct header_field *field, replace_fn *replace)
{
	size_t before = buf_len(edit->out), done = 0;
	struct policy_address replacement;
	struct address_list list;
	struct address address;
	unsigned count = 0;

	buf_append(edit->out, slice_to(field->raw, (size_t)(field->body.ptr - field->raw.ptr)));
	address_list_init(&list, field->body);
	while (address_list_next(&list, &address) == 1) {
		if (!replace(edit, &address, &replacement))
			continue;
		buf_append(edit->out, slice_to(slice_from(field->body, done), address.spec_begin - done));
		buf_append(edit->out, policy_address_slice(&replacement));
		done = address.spec_end;
		count++;
	}
	buf_append(edit->out, slice_from(field->raw, (size_t)(field->body.ptr - field->raw.ptr) + done));
	if (count == 0) {
		buf_truncate(edit->out, before);
		buf_append(edit->out, field->raw);
	}
	edit->is_changed |= count > 0;
	return count;
}

/* The domain of the first author, where it stands now. */
static void find_from_domain(struct edit *edit, size_t at)
{
	struct slice text = slice_from(buf_slice(edit->out), at);
	struct header_field field;
	struct address_list list;
	struct address address;
	ptrdiff_t in_spec;
	struct slice spec;

	if (!header_next_field(&text, &field))
		return;
	address_list_init(&list, field.body);
	while (address_list_next(&list, &address) == 1) {
		if (!address.has_domain)
			continue;
		spec = slice_to(slice_from(field.body, address.spec_begin), address.spec_end - address.spec_begin);
		in_spec = slice_find_last(spec, '@');
		edit->from_domain_at = (size_t)(spec.ptr - buf_slice(edit->out).ptr) + (size_t)in_spec + 1;
		edit->from_domain_len = spec.len - (size_t)in_spec - 1;
		return;
	}
}

static void edit_from(struct edit *edit, const struct header_field *field)
{
	size_t at = buf_len(edit->out);

	if (edit_addresses(edit, field, replace_author) == 0)
		return;
	edit->former_from = field->body;
	find_from_domain(edit, at);
}

/* ---- Fields. */

static void edit_subject(struct edit *edit, const struct header_field *field)
{
	const char *prefix = edit->options->config->headers.subject_prefix;
	bool is_first = !edit->has_subject;

	edit->has_subject = true;
	if (prefix && is_first && policy_subject_put(edit->out, slice_of_str(prefix), field->body))
		edit->is_changed = true;
	else
		buf_append(edit->out, field->raw);
}

static void edit_field(struct edit *edit, const struct header_field *field)
{
	if (slice_case_eq(field->name, SLICE("From")) && edit->options->config->rewrite.from) {
		edit_from(edit, field);
	} else if (slice_case_eq(field->name, SLICE("Sender"))) {
		edit_addresses(edit, field, replace_author);
	} else if (slice_case_eq(field->name, SLICE("Subject"))) {
		edit_subject(edit, field);
	} else if (edit->options->local_name_count > 0 &&
		   (slice_case_eq(field->name, SLICE("To")) || slice_case_eq(field->name, SLICE("Cc")))) {
		edit_addresses(edit, field, complete_recipient);
	} else {
		edit->has_reply_to |= slice_case_eq(field->name, SLICE("Reply-To"));
		buf_append(edit->out, field->raw);
	}
}

/* One a line, so that no line gets too long. */
static void add_original_to(struct edit *edit)
{
	size_t begin = buf_len(edit->out);
	const struct policy_header_options *o = edit->options;

	buf_append_str(edit->out, "X-Relayd-Original-To:");
	for (size_t i = 0; i < o->redirected_count; i++) {
		if (buf_len(edit->out) - begin > POLICY_ORIGINAL_TO_MAX_BYTES) {
			buf_printf(edit->out, ",\r\n and %zu more", o->redirected_count - i);
			break;
		}
		buf_printf(edit->out, "%s%.*s", i ? ",\r\n " : " ", SLICE_ARG(o->redirected[i]));
	}
	buf_append(edit->out, SLICE("\r\n"));
}

static void add_fields(struct edit *edit)
{
	const struct config *config = edit->options->config;
	bool wants_subject = config->headers.subject_prefix && !edit->has_subject;
	bool wants_reply_to = edit->former_from.len && config->rewrite.keep_reply_to && !edit->has_reply_to;

	if (wants_subject)
		policy_subject_put(edit->out, slice_of_str(config->headers.subject_prefix), (struct slice){0});
	if (wants_reply_to)
		buf_printf(edit->out, "Reply-To:%.*s\r\n", SLICE_ARG(edit->former_from));
	for (size_t i = 0; i < config->headers.set.count; i++)
		buf_printf(edit->out, "%s\r\n", config->headers.set.items[i]);
	if (edit->options->redirected_count > 0)
		add_original_to(edit);
	edit->is_changed |= wants_subject || config->headers.set.count > 0 || edit->options->redirected_count > 0;
}

/* Most messages of most relays need no look at their fields. */
static bool is_needed(const struct submit_header *header, const struct policy_header_options *options)
{
	const struct config *config = options->config;

	return config->rewrite.from || config->headers.subject_prefix || config->headers.set.count > 0 ||
	       options->local_name_count > 0 || options->redirected_count > 0 ||
	       (header->header_sender.len > 0 && !smtp_split_address(header->header_sender, NULL, NULL));
}

void policy_header_edit(struct policy_header *out, struct submit_header *header,
			const struct policy_header_options *options)
{
	struct edit edit = {.options = options, .out = &out->text};
	struct slice rest = header->kept;
	struct header_field field;

	*out = (struct policy_header){0};
	buf_init(&out->text, header->kept.len + GROWTH_MAX_BYTES);
	if (!is_needed(header, options))
		return;
	buf_reserve(&out->text, header->kept.len + 512);
	while (header_next_field(&rest, &field))
		edit_field(&edit, &field);
	add_fields(&edit);
	out->is_changed = edit.is_changed;
	if (!edit.is_changed) {
		buf_reset(&out->text);
		return;
	}
	header->kept = buf_slice(&out->text);
	header->has_8bit = !slice_is_ascii(header->kept);
	if (edit.from_domain_len > 0)
		header->from_domain = out->from_domain =
		    slice_to(slice_from(header->kept, edit.from_domain_at), edit.from_domain_len);
}

void policy_header_fini(struct policy_header *out)
{
	buf_fini(&out->text);
}
