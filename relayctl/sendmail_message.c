/*
 * The message of sendmail(8): LF and CRLF, mixed, become CRLF; a lone dot ends it without -i; an mbox "From " line at
 * the top, which some callers leave there, is dropped.
 */
#include "base/base.h"
#include "base/clock.h"
#include "relayctl/sendmail.h"
#include "smtp/address_list.h"
#include "smtp/date.h"
#include "smtp/header.h"

#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

/* What the message or the command line says, without what a terminal would obey. */
static int refuse_address(struct slice text)
{
	char words[160];
	int len = snprintf(words, sizeof(words), "an address cannot be read in '%.*s'", (int)MIN(text.len, (size_t)100),
			   text.ptr);

	for (int i = 0; i < len; i++)
		if (words[i] < ' ' || words[i] > '~')
			words[i] = '?';
	return sendmail_complain(EX_DATAERR, words);
}

int sendmail_add_recipients(struct sendmail *s, struct slice text)
{
	struct address_list list;
	struct address address;
	int rc;

	address_list_init(&list, text);
	while ((rc = address_list_next(&list, &address)) == 1) {
		if (s->recipient_count == SENDMAIL_RECIPIENTS_MAX)
			return sendmail_complain(EX_USAGE, "too many recipients");
		s->recipients[s->recipient_count++] = xmemdup(address.text, address.len);
	}
	return rc == 0 ? EX_OK : refuse_address(text);
}

/* ---- reading ---- */

static bool is_lone_dot(struct slice line)
{
	return slice_eq(line, SLICE(".\n")) || slice_eq(line, SLICE(".\r\n")) || slice_eq(line, SLICE("."));
}

int sendmail_read_message(struct sendmail *s)
{
	char *text = NULL;
	size_t size = 0;
	ssize_t len;
	int rc = EX_OK;

	for (bool is_first = true; rc == EX_OK && (len = getline(&text, &size, stdin)) >= 0; is_first = false) {
		struct slice line = slice_of(text, (size_t)len);
		if (!s->ignore_dots && is_lone_dot(line))
			break;
		if (is_first && slice_has_prefix(line, SLICE("From ")))
			continue;
		if (line.len > 0 && text[line.len - 1] == '\n')
			line.len -= line.len > 1 && text[line.len - 2] == '\r' ? 2 : 1;
		if (buf_append(&s->message, line) < 0 || buf_append_str(&s->message, "\r\n") < 0)
			rc = sendmail_complain(EX_UNAVAILABLE, "the message is too large");
	}
	free(text);
	if (rc == EX_OK && ferror(stdin))
		return sendmail_complain(EX_IOERR, "cannot read the message");
	if (rc == EX_OK && buf_len(&s->message) == 0)
		buf_append_str(&s->message, "\r\n");
	return rc;
}

/* ---- the header ---- */

static bool is_one_of(struct slice name, const char *const names[3])
{
	for (int i = 0; i < 3; i++)
		if (slice_case_eq(name, slice_of_str(names[i])))
			return true;
	return false;
}

/* How many fields there were, or < 0: an exit code, negative. */
static int add_fields(struct sendmail *s, struct slice header, const char *const names[3])
{
	struct header_field field;
	int count = 0;

	while (header_next_field(&header, &field)) {
		int rc = is_one_of(field.name, names) ? sendmail_add_recipients(s, field.body) : EX_OK;
		if (rc != EX_OK)
			return -rc;
		count += is_one_of(field.name, names);
	}
	return count;
}

/* A message that is sent again goes to those of its Resent- fields (RFC 5322 section 3.6.6). */
static int recipients_from_header(struct sendmail *s, struct slice header)
{
	static const char *const again[] = {"Resent-To", "Resent-Cc", "Resent-Bcc"}, *const first[] = {"To", "Cc",
												       "Bcc"};
	int count = add_fields(s, header, again);

	if (count == 0)
		count = add_fields(s, header, first);
	return count < 0 ? -count : EX_OK;
}

static void scan(struct sendmail *s, struct header_scanner *scanner)
{
	size_t taken;

	header_scanner_init(scanner, HEADER_BLOCK_MAX_BYTES);
	if (header_scanner_input(scanner, buf_slice(&s->message), &taken) == HEADER_MORE)
		header_scanner_end(scanner);
}

static void put_first(struct sendmail *s, struct buf *field)
{
	buf_append(field, buf_slice(&s->message));
	buf_fini(&s->message);
	s->message = *field;
}

static void add_from(struct sendmail *s, const char *sender)
{
	struct buf field;

	buf_init(&field, SENDMAIL_MESSAGE_MAX_BYTES);
	buf_append_str(&field, "From: \"");
	for (const char *c = s->full_name; *c; c++)
		if ((unsigned char)*c >= ' ' && *c != 0x7f && *c != '"' && *c != '\\')
			buf_append_byte(&field, *c);
	buf_printf(&field, "\" <%s>\r\n", sender);
	put_first(s, &field);
}

int sendmail_prepare(struct sendmail *s, const char *sender)
{
	struct header_scanner scanner;
	struct header_field field;
	int rc = EX_OK;
	bool lacks_from;

	scan(s, &scanner);
	if (s->from_header)
		rc = recipients_from_header(s, header_scanner_block(&scanner));
	lacks_from = sender[0] && !header_find_field(header_scanner_block(&scanner), SLICE("From"), &field);
	header_scanner_fini(&scanner);
	if (rc == EX_OK && lacks_from && s->full_name && s->full_name[0])
		add_from(s, sender);
	if (rc == EX_OK && s->recipient_count == 0)
		rc = sendmail_complain(EX_USAGE, "no recipients: name them, or use -t");
	return rc;
}

void sendmail_add_date(struct sendmail *s)
{
	int64_t now = clock_wall_ms(clock_system());
	char date[SMTP_DATE_CHARS + 1];
	struct header_scanner scanner;
	struct header_field found;
	struct buf field;
	bool has_date;

	scan(s, &scanner);
	has_date = header_find_field(header_scanner_block(&scanner), SLICE("Date"), &found);
	header_scanner_fini(&scanner);
	if (has_date)
		return;
	smtp_date_format(now, smtp_date_local_offset_min(now), date);
	buf_init(&field, SENDMAIL_MESSAGE_MAX_BYTES);
	buf_printf(&field, "Date: %s\r\n", date);
	put_first(s, &field);
}
