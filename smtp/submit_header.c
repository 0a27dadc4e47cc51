#include "smtp/submit_header.h"

#include "base/base.h"
#include "smtp/address_list.h"
#include "smtp/date.h"
#include "smtp/header.h"
#include "smtp/syntax.h"

#include <stdio.h>

enum {
	PREFIX_MAX_BYTES = 16 * 1024,
	MEMORY_MAX_BYTES = (SUBMIT_HEADER_FROM_MAX + 1) * (ADDRESS_MAX_BYTES + 1),
	LIFETIME_MAX_DAYS = 30,
};

/* What one pass over the fields has seen. */
struct survey {
	const struct submit_header_options *options;
	struct header_field from, date, message_id, sender;
	uint32_t from_fields;
	bool has_changes;
	struct address_list list;
	/* Bare names of From: out->from[i] takes the place of these octets of its body. */
	struct {
		size_t begin, end;
	} bare[SUBMIT_HEADER_FROM_MAX];
	size_t bare_count;
};

static int refuse(struct submit_header *out, int code, const char *enhanced, const char *text)
{
	if (out->refusal.code)
		return ERR_SYNTAX;
	slice_to_cstr(slice_of_str(text), out->refusal_text, sizeof(out->refusal_text));
	out->refusal = (struct smtp_server_reply){code, enhanced, out->refusal_text};
	return ERR_SYNTAX;
}

static struct slice origin_of(const struct submit_header_options *options)
{
	return options->origin.len ? options->origin : options->hostname;
}

/* ---- X-Relayd-* ------------------------------------------------------------------------------------------------- */

static int take_class(struct submit_header *out, struct slice value)
{
	if (out->has_class || !message_class_parse(value, &out->class))
		return refuse(out, 550, "5.6.0", "X-Relayd-Class stands once and is transactional, default or bulk");
	out->has_class = true;
	return 0;
}

/* "90s", "10m", "1h30m", "5d": 0 when it is none. */
static int64_t parse_lifetime(struct slice text)
{
	static const struct {
		char unit;
		int64_t ms;
	} units[] = {{'s', 1000}, {'m', 60 * 1000}, {'h', 3600 * 1000}, {'d', 86400 * 1000}};
	const int64_t most = (int64_t)LIFETIME_MAX_DAYS * 86400 * 1000;
	int64_t sum = 0;

	while (text.len) {
		int64_t number = 0, ms = 0;
		size_t digits = 0;

		for (; digits < text.len && text.ptr[digits] >= '0' && text.ptr[digits] <= '9'; digits++)
			number = MIN(number * 10 + (text.ptr[digits] - '0'), most);
		for (size_t i = 0; i < ARRAY_LEN(units) && digits && digits < text.len; i++)
			if (text.ptr[digits] == units[i].unit)
				ms = units[i].ms;
		sum += MIN(number, most / 1000) * ms;
		if (ms == 0 || sum > most)
			return 0;
		text = slice_from(text, digits + 1);
	}
	return sum;
}

static int take_lifetime(struct submit_header *out, struct slice value)
{
	int64_t ms = parse_lifetime(value);

	if (out->lifetime_ms || ms == 0)
		return refuse(out, 550, "5.6.0",
			      "X-Relayd-Lifetime stands once and is a time such as 90s, 10m, 4h or 5d, at most 30d");
	out->lifetime_ms = ms;
	return 0;
}

static int take_tag(struct submit_header *out, struct slice value)
{
	bool is_word = value.len > 0 && value.len <= SUBMIT_HEADER_TAG_MAX_BYTES && out->tag.len == 0;

	for (size_t i = 0; i < value.len && is_word; i++) {
		char c = value.ptr[i];
		is_word = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '.' ||
			  c == '_' || c == '-';
	}
	if (!is_word)
		return refuse(out, 550, "5.6.0",
			      "X-Relayd-Tag stands once and is a word of at most 64 letters, digits, '.', '_' and '-'");
	out->tag = value;
	return 0;
}

static int take_own_field(struct submit_header *out, const struct header_field *field)
{
	struct slice value = slice_trim(field->body);

	if (slice_case_eq(field->name, SLICE("X-Relayd-Class")))
		return take_class(out, value);
	if (slice_case_eq(field->name, SLICE("X-Relayd-Lifetime")))
		return take_lifetime(out, value);
	if (slice_case_eq(field->name, SLICE("X-Relayd-Tag")))
		return take_tag(out, value);
	return 0;
}

/* ---- One pass over the fields ----------------------------------------------------------------------------------- */

static bool is_own(struct slice name)
{
	return slice_has_case_prefix(name, SLICE("X-Relayd-"));
}

static bool is_removed(const struct submit_header_options *options, struct slice name)
{
	if (slice_case_eq(name, SLICE("Bcc")) || slice_case_eq(name, SLICE("Resent-Bcc")) ||
	    slice_case_eq(name, SLICE("Return-Path")) || is_own(name))
		return true;
	for (size_t i = 0; i < options->remove_count; i++)
		if (slice_case_eq(name, options->remove[i]))
			return true;
	return false;
}

static bool has_blank_before_colon(const struct header_field *field)
{
	return field->name.len && field->raw.ptr[field->name.len] != ':';
}

static bool lacks_crlf(const struct header_field *field)
{
	return field->raw.ptr[field->raw.len - 1] != '\n';
}

static void keep_first(struct header_field *slot, const struct header_field *field)
{
	if (slot->raw.len == 0)
		*slot = *field;
}

static int survey_field(struct submit_header *out, struct survey *survey, const struct header_field *field)
{
	struct slice name = field->name;

	/* Also when it is removed: a loop must end. */
	out->received_count += slice_case_eq(name, SLICE("Received"));
	if (is_removed(survey->options, name)) {
		survey->has_changes = true;
		return is_own(name) ? take_own_field(out, field) : 0;
	}
	survey->has_changes |= has_blank_before_colon(field) || lacks_crlf(field);
	if (slice_case_eq(name, SLICE("From"))) {
		survey->from_fields++;
		keep_first(&survey->from, field);
	} else if (slice_case_eq(name, SLICE("Sender"))) {
		keep_first(&survey->sender, field);
	} else if (slice_case_eq(name, SLICE("Date"))) {
		keep_first(&survey->date, field);
	} else if (slice_case_eq(name, SLICE("Message-ID"))) {
		keep_first(&survey->message_id, field);
	} else if (slice_case_eq(name, SLICE("TLS-Required"))) {
		out->tls_required_no |= slice_case_eq(slice_trim(field->body), SLICE("No"));
	}
	return 0;
}

/* ---- From and Sender -------------------------------------------------------------------------------------------- */

static int unreadable_from(struct submit_header *out)
{
	return refuse(out, 550, "5.6.0",
		      "From: holds no address that can be read, write it as From: Name <name@example.com>");
}

/* Slices of `memory` are put right by place_addresses(), when it moves no more. */
static int keep_address(struct submit_header *out, struct slice text)
{
	if (out->from_count == SUBMIT_HEADER_FROM_MAX)
		return refuse(out, 550, "5.6.0", "From: holds too many addresses");
	out->from[out->from_count++].len = text.len;
	return buf_append(&out->memory, text) < 0 ? ERR_LIMIT : 0;
}

static int keep_completed(struct submit_header *out, struct slice local, struct slice origin)
{
	char text[ADDRESS_MAX_BYTES + SMTP_DOMAIN_MAX_BYTES + 2];

	snprintf(text, sizeof(text), "%.*s@%.*s", SLICE_ARG(local), (int)MIN(origin.len, (size_t)SMTP_DOMAIN_MAX_BYTES),
		 origin.ptr ? origin.ptr : "");
	return keep_address(out, slice_of_str(text));
}

/* Bare names count only when no address in From has a domain: in "Acme, Inc. <a@example.com>" the first is none. */
static int read_from(struct submit_header *out, struct survey *survey, bool want_bare)
{
	struct slice origin = origin_of(survey->options);
	struct address address;
	int rc;

	address_list_init(&survey->list, survey->from.body);
	while ((rc = address_list_next(&survey->list, &address)) == 1) {
		struct slice text = slice_of(address.text, address.len);

		if (address.has_domain == want_bare)
			continue;
		if (want_bare && survey->bare_count < SUBMIT_HEADER_FROM_MAX) {
			survey->bare[survey->bare_count].begin = address.spec_begin;
			survey->bare[survey->bare_count++].end = address.spec_end;
		}
		rc = want_bare ? keep_completed(out, text, origin) : keep_address(out, text);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? unreadable_from(out) : 0;
}

static int judge_from(struct submit_header *out, struct survey *survey)
{
	int rc;

	if (survey->from_fields > 1)
		return refuse(out, 550, "5.6.0", "The message has more than one From field, RFC 5322 allows one");
	rc = read_from(out, survey, false);
	if (rc == 0 && out->from_count == 0) {
		rc = read_from(out, survey, true);
		out->completed_from = out->from_count > 0;
		survey->has_changes |= out->completed_from;
	}
	if (rc == 0 && out->from_count == 0)
		rc = unreadable_from(out);
	return rc;
}

/* The author of a message that names none is who sends it. */
static int add_from(struct submit_header *out, const struct submit_header_options *options)
{
	struct slice sender = options->author.len   ? options->author
			      : options->sender.len ? options->sender
						    : SLICE("MAILER-DAEMON");
	struct slice origin = options->sender.len ? origin_of(options) : options->hostname;
	int rc;

	out->added_from = true;
	if (smtp_split_address(sender, NULL, NULL))
		rc = keep_address(out, sender);
	else
		rc = keep_completed(out, sender, origin);
	return rc;
}

static void read_sender(struct submit_header *out, const struct survey *survey)
{
	struct address_list list;
	struct address address;

	address_list_init(&list, survey->sender.body);
	if (address_list_next(&list, &address) == 1 &&
	    buf_append(&out->memory, slice_of(address.text, address.len)) == 0)
		out->header_sender.len = address.len;
}

static void place_addresses(struct submit_header *out)
{
	struct slice memory = buf_slice(&out->memory), domain;

	for (size_t i = 0; i < out->from_count; i++) {
		out->from[i] = slice_to(memory, out->from[i].len);
		memory = slice_from(memory, out->from[i].len);
	}
	out->header_sender = slice_to(memory, out->header_sender.len);
	if (out->from_count && smtp_split_address(out->from[0], NULL, &domain))
		out->from_domain = domain;
}

/* ---- What is kept ----------------------------------------------------------------------------------------------- */

static void copy_from(struct submit_header *out, const struct survey *survey, const struct header_field *field)
{
	size_t head = (size_t)(field->body.ptr - field->raw.ptr), done = 0;

	buf_append(&out->changed, field->name);
	buf_append_byte(&out->changed, ':');
	for (size_t i = 0; i < survey->bare_count; i++) {
		buf_append(&out->changed, slice_of(field->body.ptr + done, survey->bare[i].begin - done));
		buf_append(&out->changed, out->from[i]);
		done = survey->bare[i].end;
	}
	buf_append(&out->changed, slice_from(field->raw, head + done));
}

static void copy_field(struct submit_header *out, const struct survey *survey, const struct header_field *field)
{
	if (is_removed(survey->options, field->name))
		return;
	if (survey->bare_count && field->raw.ptr == survey->from.raw.ptr) {
		copy_from(out, survey, field);
	} else if (has_blank_before_colon(field)) {
		buf_append(&out->changed, field->name);
		buf_append_byte(&out->changed, ':');
		buf_append(&out->changed, slice_from(field->raw, (size_t)(field->body.ptr - field->raw.ptr)));
	} else {
		buf_append(&out->changed, field->raw);
	}
	if (lacks_crlf(field))
		buf_append(&out->changed, SLICE("\r\n"));
}

static void copy_kept(struct submit_header *out, const struct survey *survey, struct slice block)
{
	struct header_field field;

	buf_init(&out->changed, block.len + 2 + MEMORY_MAX_BYTES);
	buf_reserve(&out->changed, block.len + 2);
	while (header_next_field(&block, &field))
		copy_field(out, survey, &field);
	out->kept = buf_slice(&out->changed);
}

/* ---- What is added ---------------------------------------------------------------------------------------------- */

/* RFC 3848, RFC 6531 §4.3. */
static void add_with(struct buf *out, const struct submit_header_options *o)
{
	if (o->with.len)
		buf_append(out, o->with);
	else if (!o->esmtp)
		buf_append_str(out, "SMTP");
	else
		buf_printf(out, "%s%s%s", o->smtputf8 ? "UTF8SMTP" : "ESMTP", o->tls ? "S" : "",
			   o->authenticated ? "A" : "");
}

static void add_from_clause(struct buf *out, const struct submit_header_options *o)
{
	bool is_name = smtp_is_domain(o->helo, 0) || smtp_is_address_literal(o->helo);

	buf_printf(out, "from %.*s (", SLICE_ARG(is_name ? o->helo : SLICE("unknown")));
	if (smtp_format_literal(out, o->client_address) < 0)
		buf_append_str(out, "unknown");
	buf_append_str(out, ")\r\n\t");
}

/* RFC 5321 §4.4. "for" only with one recipient, who learns nothing new from it. */
static void add_received(struct buf *out, const struct submit_header_options *o, const char *date)
{
	buf_append_str(out, "Received: ");
	if (!o->hide_client && o->client_address.len)
		add_from_clause(out, o);
	buf_append_str(out, "by ");
	buf_append(out, o->hostname);
	buf_append_str(out, " with ");
	add_with(out, o);
	buf_append_str(out, " id ");
	buf_append(out, o->id);
	if (o->only_recipient.len && (o->smtputf8 || slice_is_ascii(o->only_recipient))) {
		buf_append_str(out, "\r\n\tfor ");
		smtp_format_path(out, o->only_recipient);
	}
	buf_printf(out, ";\r\n\t%s\r\n", date);
}

static void add_fields(struct submit_header *out, const struct survey *survey)
{
	const struct submit_header_options *o = survey->options;
	char date[SMTP_DATE_CHARS + 1];
	size_t id;

	smtp_date_format(o->wall_ms, o->utc_offset_min, date);
	add_received(&out->prefix, o, date);
	out->added_date = survey->date.raw.len == 0;
	if (out->added_date)
		buf_printf(&out->prefix, "Date: %s\r\n", date);
	if (out->added_from)
		buf_printf(&out->prefix, "From: %.*s\r\n", SLICE_ARG(out->from[0]));
	out->added_message_id = survey->message_id.raw.len == 0;
	if (!out->added_message_id) {
		out->message_id = slice_trim(survey->message_id.body);
		return;
	}
	id = buf_len(&out->prefix) + SLICE("Message-ID: ").len;
	buf_printf(&out->prefix, "Message-ID: <%.*s.%016llx@%.*s>\r\n", SLICE_ARG(o->id),
		   (unsigned long long)rng_u64(o->rng), SLICE_ARG(o->hostname));
	out->message_id = slice_trim(slice_from(buf_slice(&out->prefix), id));
}

/* ---- The whole -------------------------------------------------------------------------------------------------- */

int submit_header_make(struct submit_header *out, struct slice block, const struct submit_header_options *options)
{
	struct survey survey = {.options = options};
	struct header_field field;
	struct slice rest = block;

	*out = (struct submit_header){.kept = block};
	buf_init(&out->prefix, PREFIX_MAX_BYTES);
	buf_init(&out->memory, MEMORY_MAX_BYTES);
	while (header_next_field(&rest, &field))
		survey_field(out, &survey, &field);
	if (out->received_count >= SUBMIT_HEADER_RECEIVED_MAX)
		refuse(out, 554, "5.4.6", "The message goes round in circles: it has 100 Received fields");
	if (survey.from_fields)
		judge_from(out, &survey);
	else
		add_from(out, options);
	read_sender(out, &survey);
	place_addresses(out);
	if (survey.has_changes)
		copy_kept(out, &survey, block);
	out->has_8bit = !slice_is_ascii(out->kept);
	add_fields(out, &survey);
	return out->refusal.code ? ERR_SYNTAX : 0;
}

void submit_header_fini(struct submit_header *header)
{
	buf_fini(&header->prefix);
	buf_fini(&header->changed);
	buf_fini(&header->memory);
}
