/* message/delivery-status: RFC 3464, and RFC 6533 for addresses in UTF-8. */
#include "smtp/dsn_internal.h"

#include "base/base.h"
#include "base/utf8.h"
#include "smtp/reply.h"
#include "smtp/syntax.h"

#include <stdio.h>

static bool is_printable_ascii(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.ptr[i] < ' ' || text.ptr[i] > '~')
			return false;
	return true;
}

/* utf-8-addr-xtext of RFC 6533 §3: code points as \x{HEX}. The text is well-formed UTF-8 or has been made so. */
static void put_unicode_escaped(struct dsn_writer *w, struct slice text)
{
	for (size_t len, i = 0; i < text.len; i += len) {
		uint32_t point = (unsigned char)text.ptr[i];

		len = MAX(utf8_character(slice_from(text, i), &point), (size_t)1);
		if (point > ' ' && point < 0x7f && point != '\\' && point != '+' && point != '=')
			dsn_put(w, slice_of(&text.ptr[i], 1));
		else
			dsn_printf(w, "\\x{%02X}", point);
	}
}

/* As it is where UTF-8 may stand, without controls. */
static void put_utf8(struct dsn_writer *w, struct slice text, bool utf8)
{
	char clean[DSN_PEER_TEXT_BYTES + 1];

	dsn_clean(clean, text, false);
	if (utf8)
		dsn_put_str(w, clean);
	else
		put_unicode_escaped(w, slice_to(text, DSN_PEER_TEXT_BYTES));
}

/* "rfc822; joe@example.com". */
static void put_address(struct dsn_writer *w, const char *field, struct slice address, bool utf8)
{
	char clean[DSN_PEER_TEXT_BYTES + 1];

	if (slice_is_ascii(address) || !smtp_is_utf8(address)) {
		dsn_clean(clean, address, true);
		dsn_printf(w, "%s: rfc822; %s\r\n", field, clean);
		return;
	}
	dsn_printf(w, "%s: utf-8; ", field);
	put_utf8(w, address, utf8);
	dsn_put_str(w, "\r\n");
}

/* xtext back to what it stands for; as it is when that could not stand in a field. */
static void put_xtext(struct dsn_writer *w, struct slice xtext)
{
	struct buf decoded;

	buf_init(&decoded, 4096);
	if (smtp_xtext_decode(&decoded, xtext) == 0 && is_printable_ascii(buf_slice(&decoded)))
		xtext = buf_slice(&decoded);
	if (is_printable_ascii(xtext))
		dsn_put(w, slice_to(xtext, DSN_PEER_TEXT_BYTES));
	buf_fini(&decoded);
}

/* ORCPT: "rfc822;" xtext, or "utf-8;" in a form of RFC 6533 that is kept as far as it is 7-bit. */
static void put_original_recipient(struct dsn_writer *w, struct slice orcpt, bool utf8)
{
	ptrdiff_t semicolon = slice_find(orcpt, ';');
	struct slice type, value;

	if (semicolon < 1 || !smtp_is_utf8(orcpt))
		return;
	type = slice_to(orcpt, (size_t)semicolon);
	value = slice_from(orcpt, (size_t)semicolon + 1);
	if (!smtp_is_atom(type) || !slice_is_ascii(type) || value.len == 0)
		return;
	dsn_printf(w, "Original-Recipient: %.*s; ", SLICE_ARG(slice_to(type, 64)));
	if (slice_is_ascii(value) && slice_case_eq(type, SLICE("utf-8")))
		dsn_put(w, is_printable_ascii(value) ? slice_to(value, DSN_PEER_TEXT_BYTES) : (struct slice){0});
	else if (slice_is_ascii(value))
		put_xtext(w, value);
	else
		put_utf8(w, value, utf8);
	dsn_put_str(w, "\r\n");
}

static const char *action(const struct dsn *dsn, const struct dsn_recipient *recipient)
{
	if (dsn->kind == DSN_FAILED)
		return "failed";
	if (dsn->kind == DSN_DELAYED)
		return "delayed";
	return recipient->is_expanded ? "expanded" : recipient->is_final_delivery ? "delivered" : "relayed";
}

/* RFC 3464 §2.3.4: the class must say what the action says. Expired mail keeps no transient status (RFC 3463 §3.5). */
static void put_status_code(struct dsn_writer *w, const struct dsn *dsn, const struct outcome *outcome)
{
	char class = dsn->kind == DSN_FAILED ? '5' : dsn->kind == DSN_DELAYED ? '4' : '2';
	const char *code = dsn_enhanced(outcome);

	if (dsn->kind == DSN_FAILED && outcome->kind == OUTCOME_EXPIRED)
		dsn_put_str(w, "Status: 5.4.7\r\n");
	else if (code[0] == class && code[1] == '.')
		dsn_printf(w, "Status: %s\r\n", code);
	else
		dsn_printf(w, "Status: %c.0.0\r\n", class);
}

/* "name[address]" -> the name, or the address in its brackets. */
static void put_remote_mta(struct dsn_writer *w, const char *host)
{
	struct slice name = slice_of_str(host);
	ptrdiff_t bracket = slice_find(name, '[');

	if (bracket > 0)
		name.len = (size_t)bracket;
	for (size_t i = 0; i < name.len; i++)
		if (name.ptr[i] <= ' ' || name.ptr[i] > '~' || strchr(";()<>\"\\", name.ptr[i]))
			return;
	if (name.len)
		dsn_printf(w, "Remote-MTA: dns; %.*s\r\n", SLICE_ARG(name));
}

static void put_diagnostic(struct dsn_writer *w, const struct outcome *outcome)
{
	char text[DSN_PEER_TEXT_BYTES + 1], line[DSN_PEER_TEXT_BYTES + 64];
	const char *enhanced = dsn_reply_enhanced(outcome);
	int head;

	dsn_clean(text, slice_of_str(outcome->text), true);
	if (outcome->code)
		head = snprintf(line, sizeof(line), "Diagnostic-Code: smtp; %d %s%s%s", outcome->code, enhanced,
				enhanced[0] ? " " : "", text);
	else
		head = snprintf(line, sizeof(line), "Diagnostic-Code: x-relayd; %s", text);
	if (head > 0 && (outcome->code || text[0])) {
		dsn_put_wrapped(w, line, "    ", 0);
		dsn_put_str(w, "\r\n");
	}
}

static void put_recipient(struct dsn_writer *w, const struct dsn *dsn, const struct dsn_recipient *recipient, bool utf8)
{
	dsn_put_str(w, "\r\n");
	if (recipient->orcpt.len == 0 && recipient->submitted.len > 0)
		put_address(w, "Original-Recipient", recipient->submitted, utf8);
	else
		put_original_recipient(w, recipient->orcpt, utf8);
	put_address(w, "Final-Recipient", recipient->address, utf8);
	dsn_printf(w, "Action: %s\r\n", action(dsn, recipient));
	put_status_code(w, dsn, recipient->outcome);
	put_remote_mta(w, recipient->outcome->host);
	put_diagnostic(w, recipient->outcome);
	dsn_put_date(w, "Last-Attempt-Date: ", recipient->last_attempt_wall);
	if (dsn->kind == DSN_DELAYED)
		dsn_put_date(w, "Will-Retry-Until: ", recipient->will_retry_until_wall);
}

void dsn_put_status(struct dsn_writer *w, const struct dsn *dsn, size_t told, bool utf8)
{
	dsn_printf(w, "Reporting-MTA: dns; %s\r\n", dsn->hostname);
	if (dsn->envid.len && slice_is_ascii(dsn->envid)) {
		dsn_put_str(w, "Original-Envelope-Id: ");
		put_xtext(w, dsn->envid);
		dsn_put_str(w, "\r\n");
	}
	dsn_put_date(w, "Arrival-Date: ", dsn->arrived_wall);
	if (dsn->original_id)
		dsn_printf(w, "X-Relayd-Id: %s\r\n", dsn->original_id);
	for (size_t i = 0; i < told; i++)
		put_recipient(w, dsn, &dsn->recipients[i], utf8);
}
