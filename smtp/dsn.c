#include "smtp/dsn.h"

#include "base/err.h"
#include "smtp/date.h"
#include "smtp/dsn_internal.h"
#include "smtp/header.h"
#include "smtp/reply.h"
#include "smtp/syntax.h"

#include <stdio.h>

enum { BOUNDARY_CHARS = 40, COLUMNS = 76, LINE_MAX_OCTETS = 998, BOUNDARY_TRIES = 64 };

const char *dsn_kind_name(enum dsn_kind kind)
{
	static const char *const names[] = {
	    [DSN_FAILED] = "failed", [DSN_DELAYED] = "delayed", [DSN_RELAYED] = "relayed"};

	return names[kind];
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

void dsn_put(struct dsn_writer *w, struct slice bytes)
{
	if (buf_append(w->out, bytes) < 0)
		w->is_full = true;
}

void dsn_put_str(struct dsn_writer *w, const char *text)
{
	dsn_put(w, slice_of_str(text));
}

void dsn_printf(struct dsn_writer *w, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (buf_vprintf(w->out, format, args) < 0)
		w->is_full = true;
	va_end(args);
}

void dsn_put_date(struct dsn_writer *w, const char *label, int64_t wall_ms)
{
	char date[SMTP_DATE_CHARS + 1];

	if (wall_ms == 0)
		return;
	smtp_date_format(wall_ms, smtp_date_local_offset_min(wall_ms), date);
	dsn_printf(w, "%s%s\r\n", label, date);
}

/* Where the next line may end: behind the last word that fits, or behind the first word. */
static size_t line_length(struct slice text, size_t room)
{
	size_t best = 0;

	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] != ' ')
			continue;
		if (i > room && best)
			return best;
		best = i;
		if (i > room)
			return best;
	}
	return text.len > room && best ? best : text.len;
}

void dsn_put_wrapped(struct dsn_writer *w, const char *words, const char *indent, size_t column)
{
	struct slice text = slice_trim(slice_of_str(words));

	for (;;) {
		size_t len = line_length(text, column < COLUMNS ? COLUMNS - column : 1);

		dsn_put(w, slice_to(text, len));
		text = slice_trim(slice_from(text, len));
		if (text.len == 0)
			return;
		dsn_printf(w, "\r\n%s", indent);
		column = strlen(indent);
	}
}

/* Must this octet be written as =HH? Blanks must at the end of a line. */
static bool is_quoted(struct slice text, size_t at)
{
	unsigned char c = (unsigned char)text.ptr[at];

	if (c == ' ' || c == '\t')
		return at + 1 == text.len ||
		       (text.ptr[at + 1] == '\r' && at + 2 < text.len && text.ptr[at + 2] == '\n');
	return c < ' ' || c > '~' || c == '=';
}

void dsn_put_quoted_printable(struct dsn_writer *w, struct slice text)
{
	size_t column = 0;

	for (size_t i = 0; i < text.len; i++) {
		bool quoted;

		if (text.ptr[i] == '\r' && i + 1 < text.len && text.ptr[i + 1] == '\n') {
			dsn_put_str(w, "\r\n");
			column = 0;
			i++;
			continue;
		}
		quoted = is_quoted(text, i);
		if (column + (quoted ? 3 : 1) > COLUMNS - 1) {
			dsn_put_str(w, "=\r\n");
			column = 0;
		}
		if (quoted)
			dsn_printf(w, "=%02X", (unsigned char)text.ptr[i]);
		else
			dsn_put(w, slice_of(&text.ptr[i], 1));
		column += quoted ? 3 : 1;
	}
}

void dsn_clean(char out[DSN_PEER_TEXT_BYTES + 1], struct slice text, bool ascii)
{
	out[0] = '\0';
	for (size_t i = 0; ascii && i < text.len; i++) {
		char one[8];

		/* Octet by octet, so that no character is whole UTF-8. */
		snprintf(one, sizeof(one), (unsigned char)text.ptr[i] < 0x80 ? "%c" : "\\x%02X",
			 (unsigned char)text.ptr[i]);
		if (!smtp_reply_append_text(out, DSN_PEER_TEXT_BYTES + 1,
					    text.ptr[i] ? slice_of_str(one) : slice_of("", 1)))
			return;
	}
	if (!ascii)
		smtp_reply_append_text(out, DSN_PEER_TEXT_BYTES + 1, text);
}

const char *dsn_enhanced(const struct outcome *outcome)
{
	const char *code = outcome->enhanced;

	return code[0] && code[strspn(code, "0123456789.")] == '\0' ? code : "";
}

const char *dsn_reply_enhanced(const struct outcome *outcome)
{
	const char *code = dsn_enhanced(outcome);

	return outcome->code / 100 == code[0] - '0' ? code : "";
}

/* ---- The returned message --------------------------------------------------------------------------------------- */

struct returned {
	struct slice content;
	const char *type, *encoding;
	bool is_whole, is_quoted; /* is_quoted: quoted-printable */
};

/* The header with its last CRLF, cut between fields when it is too long. */
static struct slice header_of(struct slice message)
{
	const char *end = message.len ? memmem(message.ptr, message.len, "\r\n\r\n", 4) : NULL;
	size_t len;

	if (slice_has_prefix(message, SLICE("\r\n")))
		return slice_to(message, 0);
	if (end)
		message.len = (size_t)(end - message.ptr) + 2;
	if (message.len <= DSN_HEADER_MAX)
		return message;
	for (len = DSN_HEADER_MAX; len > 1; len--)
		if (message.ptr[len - 1] == '\n' && message.ptr[len] != ' ' && message.ptr[len] != '\t')
			break;
	return slice_to(message, len > 1 ? len : DSN_HEADER_MAX);
}

/* CR and LF only together, no NUL: it may travel as it is. */
static bool has_clean_line_ends(struct slice text)
{
	if (text.len && memchr(text.ptr, '\0', text.len))
		return false;
	while (text.len) {
		size_t len = 0;

		while (len < text.len && text.ptr[len] != '\r' && text.ptr[len] != '\n')
			len++;
		if (len < text.len && (text.ptr[len] == '\n' || len + 1 == text.len || text.ptr[len + 1] != '\n'))
			return false;
		text = slice_from(text, len + 2);
	}
	return true;
}

static bool has_long_lines(struct slice text)
{
	while (text.len) {
		ptrdiff_t lf = slice_find(text, '\n');
		size_t len = lf < 0 ? text.len : (size_t)lf + 1;

		if (len > LINE_MAX_OCTETS + 2)
			return true;
		text = slice_from(text, len);
	}
	return false;
}

static void choose_returned(struct returned *r, const struct dsn *dsn, bool utf8)
{
	struct slice header = header_of(dsn->original);
	bool ascii_header = slice_is_ascii(header);
	bool global = utf8 && !ascii_header && smtp_is_utf8(header) && has_clean_line_ends(header);

	*r = (struct returned){.content = dsn->original, .encoding = "7bit"};
	r->is_whole = dsn->return_full && dsn->kind == DSN_FAILED && dsn->original.len == dsn->original_bytes &&
		      dsn->original.len <= DSN_ORIGINAL_MAX && has_clean_line_ends(dsn->original);
	if (r->is_whole) {
		r->type = global ? "message/global" : "message/rfc822";
		if (!slice_is_ascii(dsn->original))
			r->encoding = "8bit";
		return;
	}
	r->content = header;
	r->type = global ? "message/global-headers" : "text/rfc822-headers";
	if (global) {
		r->encoding = "8bit";
	} else if (!ascii_header || !has_clean_line_ends(header) || has_long_lines(header)) {
		/* RFC 6522 §4 allows it for just this. */
		r->encoding = "quoted-printable";
		r->is_quoted = true;
	}
}

static void put_returned(struct dsn_writer *w, const struct returned *r)
{
	dsn_printf(w, "Content-Type: %s\r\nContent-Description: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n", r->type,
		   r->is_whole ? "Undelivered message" : "Header of the message", r->encoding);
	if (r->is_quoted)
		dsn_put_quoted_printable(w, r->content);
	else
		dsn_put(w, r->content);
	if (!slice_eq(slice_from(r->content, r->content.len - MIN(r->content.len, (size_t)2)), SLICE("\r\n")))
		dsn_put_str(w, "\r\n");
}

/* ---- The whole -------------------------------------------------------------------------------------------------- */

static bool contains(struct slice text, const char *needle)
{
	return text.len && memmem(text.ptr, text.len, needle, strlen(needle));
}

/* Random, and not in anything that it separates. */
static void choose_boundary(char out[BOUNDARY_CHARS + 1], struct rng *rng, const struct slice *parts, size_t count)
{
	for (int tries = 0; tries < BOUNDARY_TRIES; tries++) {
		unsigned long long one = rng_u64(rng), two = rng_u64(rng);
		bool taken = false;

		snprintf(out, BOUNDARY_CHARS + 1, "=_%016llx.%016llx", one, two);
		for (size_t i = 0; i < count; i++)
			taken = taken || contains(parts[i], out);
		if (!taken)
			return;
	}
	/* Only a generator that repeats itself comes here. */
	BUG_ON(true);
}

/* So that threads and programs find the message it is about. */
static void put_references(struct dsn_writer *w, const struct dsn *dsn)
{
	struct header_field field;
	struct slice id;

	if (!header_find_field(header_of(dsn->original), SLICE("Message-ID"), &field))
		return;
	id = slice_trim(field.body);
	if (id.len < 3 || id.len > 250 || id.ptr[0] != '<' || slice_find(id, '>') != (ptrdiff_t)id.len - 1)
		return;
	for (size_t i = 0; i < id.len; i++)
		if (id.ptr[i] <= ' ' || id.ptr[i] > '~')
			return;
	dsn_printf(w, "In-Reply-To: %.*s\r\nReferences: %.*s\r\n", SLICE_ARG(id), SLICE_ARG(id));
}

static void put_message_id(struct dsn_writer *w, const struct dsn *dsn)
{
	unsigned long long one, two;

	if (dsn->message_id) {
		dsn_printf(w, "Message-ID: <%s@%s>\r\n", dsn->message_id, dsn->hostname);
		return;
	}
	one = rng_u64(dsn->rng);
	two = rng_u64(dsn->rng);
	dsn_printf(w, "Message-ID: <%016llx%016llx@%s>\r\n", one, two, dsn->hostname);
}

static void put_header(struct dsn_writer *w, const struct dsn *dsn, const char *boundary, bool has_8bit)
{
	static const char *const subjects[] = {
	    [DSN_FAILED] = "Undelivered mail returned to sender",
	    [DSN_DELAYED] = "Delayed mail (still being tried)",
	    [DSN_RELAYED] = "Your mail has been handed on",
	};

	dsn_printf(w, "From: Mail Delivery System <MAILER-DAEMON@%s>\r\n", dsn->hostname);
	dsn_printf(w, "To: <%.*s>\r\n", SLICE_ARG(dsn->to));
	dsn_printf(w, "Subject: %s\r\n", subjects[dsn->kind]);
	dsn_put_date(w, "Date: ", dsn->now_wall);
	put_message_id(w, dsn);
	put_references(w, dsn);
	dsn_put_str(w, "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
	dsn_printf(w, "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%s\"\r\n",
		   boundary);
	if (has_8bit)
		dsn_put_str(w, "Content-Transfer-Encoding: 8bit\r\n");
	dsn_put_str(w, "\r\nThis is a MIME message; a mail program shows it better.\r\n");
}

static void put_words_part(struct dsn_writer *w, struct slice words)
{
	bool ascii = slice_is_ascii(words);

	dsn_printf(w,
		   "Content-Type: text/plain; charset=%s\r\nContent-Description: Notification\r\n"
		   "Content-Transfer-Encoding: %s\r\n\r\n",
		   ascii ? "us-ascii" : "utf-8", ascii ? "7bit" : "quoted-printable");
	if (ascii)
		dsn_put(w, words);
	else
		dsn_put_quoted_printable(w, words);
}

static void put_status_part(struct dsn_writer *w, struct slice status, bool utf8)
{
	dsn_printf(w,
		   "Content-Type: message/%s\r\nContent-Description: Delivery report\r\n"
		   "Content-Transfer-Encoding: %s\r\n\r\n",
		   utf8 ? "global-delivery-status" : "delivery-status", slice_is_ascii(status) ? "7bit" : "8bit");
	dsn_put(w, status);
}

static void put_all(struct dsn_writer *w, const struct dsn *dsn, const struct returned *returned, struct slice words,
		    struct slice status, bool utf8, struct dsn_result *result)
{
	char boundary[BOUNDARY_CHARS + 1];
	const struct slice parts[] = {words, status, returned->content};

	choose_boundary(boundary, dsn->rng, parts, ARRAY_LEN(parts));
	result->returned_whole = returned->is_whole;
	result->needs_smtputf8 = utf8;
	result->has_8bit =
	    !slice_is_ascii(dsn->to) || !slice_is_ascii(status) || strcmp(returned->encoding, "8bit") == 0;
	put_header(w, dsn, boundary, result->has_8bit);
	dsn_printf(w, "\r\n--%s\r\n", boundary);
	put_words_part(w, words);
	dsn_printf(w, "\r\n--%s\r\n", boundary);
	put_status_part(w, status, utf8);
	dsn_printf(w, "\r\n--%s\r\n", boundary);
	put_returned(w, returned);
	dsn_printf(w, "\r\n--%s--\r\n", boundary);
}

/* With `told` of the recipients one by one. */
static int compose(struct buf *out, const struct dsn *dsn, size_t told, bool utf8, struct dsn_result *result)
{
	struct buf words, status;
	struct dsn_writer w = {.out = out}, words_w = {.out = &words}, status_w = {.out = &status};
	struct returned returned;
	size_t before = buf_len(out);

	buf_init(&words, DSN_BYTES_MAX);
	buf_init(&status, DSN_BYTES_MAX);
	choose_returned(&returned, dsn, utf8);
	dsn_put_words(&words_w, dsn, told, returned.is_whole);
	dsn_put_status(&status_w, dsn, told, utf8);
	put_all(&w, dsn, &returned, buf_slice(&words), buf_slice(&status), utf8, result);
	buf_fini(&words);
	buf_fini(&status);
	if (w.is_full || words_w.is_full || status_w.is_full) {
		buf_truncate(out, before);
		return ERR_LIMIT;
	}
	return 0;
}

int dsn_compose(struct buf *out, const struct dsn *dsn, struct dsn_result *result)
{
	size_t told = MIN(dsn->recipient_count, (size_t)DSN_RECIPIENTS_MAX);
	struct dsn_result unwanted;
	struct smtp_mailbox to;
	int rc;

	if (smtp_parse_mailbox(dsn->to, SMTP_MAY_BE_UTF8 | SMTP_MAY_BE_BARE, &to, NULL) < 0)
		return ERR_SYNTAX;
	rc = compose(out, dsn, told, to.is_utf8, result ? result : &unwanted);
	while (rc == ERR_LIMIT && told > 1) {
		told /= 2;
		rc = compose(out, dsn, told, to.is_utf8, result ? result : &unwanted);
	}
	return rc;
}
