/* From octets to command lines: how long they may be, and what is no line at all. */
#include "base/base.h"
#include "smtp/server_internal.h"

#include <sodium.h>

enum { SKIP_MAX_BYTES = 2 << 20 }; /* of one line; then the client is no SMTP client */

/* By the verb; RFC 5321 §4.5.3.1.4 and what the extensions add. */
static size_t line_limit(const struct smtp_server *s)
{
	struct slice in = buf_slice(&s->in);

	if (s->state == AUTH_LINE || slice_has_case_prefix(in, SLICE("AUTH ")))
		return SMTP_AUTH_LINE_MAX_BYTES;
	if (slice_has_case_prefix(in, SLICE("MAIL ")) || slice_has_case_prefix(in, SLICE("RCPT ")))
		return SMTP_PATH_LINE_MAX_BYTES;
	return SMTP_COMMAND_LINE_MAX_BYTES;
}

static void drop_input(struct smtp_server *s, size_t len)
{
	if ((s->state == AUTH_LINE || s->skipping) && len)
		sodium_memzero(s->in.data + s->in.start, len);
	buf_consume(&s->in, len);
	s->searched = 0;
}

static void refuse_long_line(struct smtp_server *s)
{
	bool is_endless = s->skipping;

	s->skipping = false;
	if (s->state == AUTH_LINE)
		server_auth_too_long(s);
	else
		server_refuse(s, SMTP_SERVER_LINE_TOO_LONG, 500, "5.5.2",
			      "Line too long: commands have at most 512 octets");
	if (is_endless || s->data_was_refused)
		server_end(s, SMTP_SERVER_LINE_TOO_LONG);
}

/* Drops input up to CRLF; a CR and a LF may come in different pieces. */
static void skip_line(struct smtp_server *s)
{
	struct slice in = buf_slice(&s->in);
	size_t at = 0;

	while (at < in.len) {
		ptrdiff_t lf = slice_find(slice_from(in, at), '\n');
		size_t end = lf < 0 ? in.len : at + (size_t)lf;
		bool cr = end > 0 ? in.ptr[end - 1] == '\r' : s->skipped_cr;

		if (lf >= 0 && cr) {
			drop_input(s, end + 1);
			s->skipping = false;
			refuse_long_line(s);
			return;
		}
		at = lf < 0 ? in.len : end + 1;
	}
	s->skipped_cr = in.len ? in.ptr[in.len - 1] == '\r' : s->skipped_cr;
	s->skipped += in.len;
	drop_input(s, in.len);
	if (s->skipped > SKIP_MAX_BYTES)
		refuse_long_line(s);
}

static void refuse_octets(struct smtp_server *s, const char *text)
{
	server_refuse(s, SMTP_SERVER_BAD_OCTETS, 500, "5.5.2", text);
	server_end(s, SMTP_SERVER_BAD_OCTETS);
}

/* What comes behind a bare LF or a TLS hello cannot be made sense of: the session ends there. */
int server_take_line(struct smtp_server *s, struct slice *line)
{
	struct slice in = buf_slice(&s->in);
	size_t limit = line_limit(s);
	ptrdiff_t lf;

	if (s->skipping) {
		skip_line(s);
		return 0;
	}
	if (in.len && in.ptr[0] == 0x16) {
		refuse_octets(s, "This looks like TLS: say STARTTLS first, or use the port for implicit TLS");
		return 0;
	}
	lf = slice_find(slice_from(slice_to(in, limit), s->searched), '\n');
	if (lf < 0) {
		s->searched = MIN(in.len, limit);
		if (in.len >= limit) {
			s->skipping = true;
			s->skipped_cr = false;
			s->skipped = 0;
		}
		return 0;
	}
	lf += (ptrdiff_t)s->searched;
	if (lf == 0 || in.ptr[lf - 1] != '\r') {
		refuse_octets(s, "A command ends with CR LF, this one had LF alone");
		return 0;
	}
	*line = slice_to(in, (size_t)lf - 1);
	return 1;
}
