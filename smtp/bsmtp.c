#include "smtp/bsmtp.h"

#include "base/base.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- writing ---- */

static bool breaks_line(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if ((unsigned char)text.ptr[i] < ' ' || text.ptr[i] == 0x7f)
			return true;
	return false;
}

static const char *notify_text(unsigned bits, char out[32])
{
	static const char *const names[] = {"NEVER", "SUCCESS", "FAILURE", "DELAY"};
	size_t len = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (bits & 1u << i)
			len += (size_t)snprintf(out + len, 32 - len, "%s%s", len ? "," : "", names[i]);
	return out;
}

static int format_mail(struct buf *out, const struct smtp_transaction *t)
{
	int rc;

	if (breaks_line(t->sender) || breaks_line(t->envid))
		return ERR_SYNTAX;
	rc = buf_printf(out, "MAIL FROM:<%.*s> SIZE=%" PRIu64, SLICE_ARG(t->sender), t->content_bytes);
	if (rc == 0 && t->has_8bit)
		rc = buf_append_str(out, " BODY=8BITMIME");
	if (rc == 0 && t->ret != SMTP_DSN_RET_NONE)
		rc = buf_printf(out, " RET=%s", t->ret == SMTP_DSN_RET_FULL ? "FULL" : "HDRS");
	if (rc == 0 && t->envid.len)
		rc = buf_printf(out, " ENVID=%.*s", SLICE_ARG(t->envid));
	return rc ? rc : buf_append_str(out, "\r\n");
}

static int format_rcpt(struct buf *out, const struct smtp_client_recipient *r)
{
	char notify[32];
	int rc;

	if (breaks_line(r->address) || breaks_line(r->orcpt))
		return ERR_SYNTAX;
	rc = buf_printf(out, "RCPT TO:<%.*s>", SLICE_ARG(r->address));
	if (rc == 0 && r->notify)
		rc = buf_printf(out, " NOTIFY=%s", notify_text(r->notify, notify));
	if (rc == 0 && r->orcpt.len)
		rc = buf_printf(out, " ORCPT=%.*s", SLICE_ARG(r->orcpt));
	return rc ? rc : buf_append_str(out, "\r\n");
}

int bsmtp_format(struct buf *out, const struct smtp_transaction *transaction)
{
	int rc = format_mail(out, transaction);

	for (size_t i = 0; rc == 0 && i < transaction->recipient_count; i++)
		rc = format_rcpt(out, &transaction->recipients[i]);
	return rc ? rc : buf_append_str(out, "DATA\r\n");
}

/* ---- reading ---- */

static bool mail_param(struct smtp_transaction *t, const struct smtp_param *param)
{
	if (slice_case_eq(param->keyword, SLICE("SIZE")))
		return smtp_parse_size(param->value, &t->content_bytes) == 0;
	if (slice_case_eq(param->keyword, SLICE("RET")))
		return smtp_parse_ret(param->value, &t->ret) == 0;
	if (slice_case_eq(param->keyword, SLICE("BODY"))) {
		t->has_8bit = slice_case_eq(param->value, SLICE("8BITMIME"));
		return t->has_8bit || slice_case_eq(param->value, SLICE("7BIT"));
	}
	t->envid = param->value;
	return slice_case_eq(param->keyword, SLICE("ENVID")) && smtp_is_envid(param->value);
}

static bool rcpt_param(struct smtp_client_recipient *r, const struct smtp_param *param)
{
	if (slice_case_eq(param->keyword, SLICE("NOTIFY")))
		return smtp_parse_notify(param->value, &r->notify) == 0;
	r->orcpt = param->value;
	return slice_case_eq(param->keyword, SLICE("ORCPT")) && smtp_is_orcpt(param->value, SMTP_MAY_BE_UTF8);
}

static const char *parse_mail(struct smtp_transaction *t, struct slice text)
{
	struct smtp_mailbox mailbox;
	struct smtp_param param;
	const char *why;
	int rc;

	if (t->sender.ptr)
		return "a second MAIL";
	if (smtp_parse_path(&text, SMTP_MAY_BE_UTF8 | SMTP_MAY_BE_EMPTY | SMTP_MAY_BE_BARE, &mailbox, &why) != 0)
		return why;
	t->sender = mailbox.address.len ? mailbox.address : SLICE("");
	while ((rc = smtp_next_param(&text, &param)) == 1)
		if (!mail_param(t, &param))
			return "a parameter of MAIL that is not understood";
	if (rc != 0)
		return "a parameter of MAIL that cannot be read";
	return t->content_bytes > 0 ? NULL : "MAIL without SIZE";
}

static const char *parse_rcpt(struct bsmtp *b, struct slice text)
{
	size_t n = b->transaction.recipient_count;
	struct smtp_client_recipient *r;
	struct smtp_mailbox mailbox;
	struct smtp_param param;
	const char *why;
	int rc;

	if (!b->transaction.sender.ptr)
		return "RCPT before MAIL";
	if (n == BSMTP_RECIPIENTS_MAX)
		return "too many recipients";
	if (smtp_parse_path(&text, SMTP_MAY_BE_UTF8 | SMTP_MAY_BE_BARE, &mailbox, &why) != 0)
		return why;
	if ((n & (n - 1)) == 0)
		b->recipients = xreallocarray(b->recipients, n ? n * 2 : 1, sizeof(*b->recipients));
	r = &b->recipients[n];
	*r = (struct smtp_client_recipient){.address = mailbox.address};
	while ((rc = smtp_next_param(&text, &param)) == 1)
		if (!rcpt_param(r, &param))
			return "a parameter of RCPT that is not understood";
	b->transaction.recipient_count++;
	return rc == 0 ? NULL : "a parameter of RCPT that cannot be read";
}

/* NULL, or what is wrong. *is_last: it was DATA. */
static const char *parse_line(struct bsmtp *b, struct slice line, bool *is_last)
{
	static const struct slice mail = SLICE("MAIL FROM:"), rcpt = SLICE("RCPT TO:");

	if (slice_has_case_prefix(line, mail))
		return parse_mail(&b->transaction, slice_from(line, mail.len));
	if (slice_has_case_prefix(line, rcpt))
		return parse_rcpt(b, slice_from(line, rcpt.len));
	*is_last = slice_case_eq(line, SLICE("DATA"));
	if (!*is_last)
		return "a line that is neither MAIL, RCPT nor DATA";
	return b->transaction.recipient_count > 0 ? NULL : "no recipients";
}

static int give_up(struct bsmtp *b, const char **why, const char *text)
{
	bsmtp_fini(b);
	*why = text;
	return -1;
}

int bsmtp_parse(struct slice text, struct bsmtp *out, const char **why)
{
	bool is_last = false;
	size_t at = 0;

	*out = (struct bsmtp){0};
	while (!is_last) {
		struct slice rest = slice_from(text, at);
		ptrdiff_t end = slice_find(rest, '\n');
		const char *wrong;
		if (end < 0 && rest.len <= SMTP_PATH_LINE_MAX_BYTES) {
			bsmtp_fini(out);
			return 0;
		}
		if (end < 1 || end >= SMTP_PATH_LINE_MAX_BYTES || rest.ptr[end - 1] != '\r')
			return give_up(out, why, "a line that is too long or not ended by CRLF");
		wrong = parse_line(out, slice_to(rest, (size_t)end - 1), &is_last);
		if (wrong)
			return give_up(out, why, wrong);
		at += (size_t)end + 1;
	}
	out->transaction.recipients = out->recipients;
	out->content_at = at;
	return 1;
}

void bsmtp_fini(struct bsmtp *batch)
{
	free(batch->recipients);
	*batch = (struct bsmtp){0};
}
