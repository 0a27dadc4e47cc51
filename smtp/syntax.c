#include "smtp/syntax.h"

#include "base/base.h"
#include "base/utf8.h"

#include <arpa/inet.h>
#include <stdio.h>

enum {
	ATEXT = 1,  /* RFC 5322 §3.2.3 */
	LETDIG = 2, /* letters and digits */
};

static unsigned class_of(unsigned char c)
{
	if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
		return ATEXT | LETDIG;
	return c != '\0' && c < 128 && strchr("!#$%&'*+-/=?^_`{|}~", c) ? ATEXT : 0;
}

static bool is_ascii_octet(char c)
{
	return ((unsigned char)c & 0x80) == 0;
}

/* ---- UTF-8 ------------------------------------------------------------------------------------------------------ */

bool smtp_is_utf8(struct slice text)
{
	uint32_t value;

	if (slice_is_ascii(text))
		return true;
	while (text.len) {
		size_t len = utf8_character(text, &value);
		if (len == 0)
			return false;
		text = slice_from(text, len);
	}
	return true;
}

/* The length of a character over 127 that may stand in an address, 0: there is none. Controls and the line ends of
 * Unicode may not: some reader of logs or headers takes them for a new line. */
static size_t utf8_in_address(struct slice text)
{
	uint32_t value;
	size_t len = utf8_character(text, &value);

	return len < 2 || value < 0xa0 || value == 0x2028 || value == 0x2029 ? 0 : len;
}

static size_t atom_length(struct slice text)
{
	size_t at = 0, len;

	while (at < text.len) {
		len = class_of((unsigned char)text.ptr[at]) & ATEXT ? 1 : utf8_in_address(slice_from(text, at));
		if (len == 0)
			break;
		at += len;
	}
	return at;
}

bool smtp_is_atom(struct slice text)
{
	return text.len && atom_length(text) == text.len;
}

/* ---- Domains ---------------------------------------------------------------------------------------------------- */

/* NULL: it is one; otherwise what is wrong. */
static const char *label_fault(struct slice label, unsigned flags)
{
	bool is_ascii = slice_is_ascii(label);
	size_t len;

	if (label.len == 0)
		return "the domain has an empty label";
	if (is_ascii && label.len > SMTP_LABEL_MAX_BYTES)
		return "a label of the domain is longer than 63 octets";
	if (label.ptr[0] == '-' || label.ptr[label.len - 1] == '-')
		return "a label of the domain begins or ends with a hyphen";
	for (size_t at = 0; at < label.len; at += len) {
		char c = label.ptr[at];
		if (is_ascii_octet(c))
			len = (class_of((unsigned char)c) & LETDIG) || c == '-' || c == '_';
		else
			len = flags & SMTP_MAY_BE_UTF8 ? utf8_in_address(slice_from(label, at)) : 0;
		if (len == 0)
			return "the domain holds a character that no domain can have";
	}
	return NULL;
}

static const char *domain_fault(struct slice text, unsigned flags)
{
	if (text.len > SMTP_DOMAIN_MAX_BYTES)
		return "the domain is longer than 255 octets";
	for (;;) {
		ptrdiff_t dot = slice_find(text, '.');
		const char *fault = label_fault(dot < 0 ? text : slice_to(text, (size_t)dot), flags);
		if (fault || dot < 0)
			return fault;
		text = slice_from(text, (size_t)dot + 1);
	}
}

bool smtp_is_domain(struct slice text, unsigned flags)
{
	return domain_fault(text, flags) == NULL;
}

bool smtp_is_address_literal(struct slice text)
{
	char inner[INET6_ADDRSTRLEN];
	unsigned char address[16];
	int family = AF_INET;

	if (text.len < 2 || text.ptr[0] != '[' || text.ptr[text.len - 1] != ']')
		return false;
	text = slice_to(slice_from(text, 1), text.len - 2);
	if (slice_has_case_prefix(text, SLICE("IPv6:"))) {
		text = slice_from(text, 5);
		family = AF_INET6;
	}
	if (slice_find(text, '\0') >= 0 || !slice_to_cstr(text, inner, sizeof(inner)))
		return false;
	return inet_pton(family, inner, address) == 1;
}

int smtp_format_literal(struct buf *out, struct slice address)
{
	char literal[INET6_ADDRSTRLEN + 8];
	const char *tag = slice_find(address, ':') >= 0 ? "IPv6:" : "";

	if (address.len >= INET6_ADDRSTRLEN)
		return ERR_SYNTAX;
	snprintf(literal, sizeof(literal), "[%s%.*s]", tag, SLICE_ARG(address));
	if (!smtp_is_address_literal(slice_of_str(literal)))
		return ERR_SYNTAX;
	return buf_append_str(out, literal);
}

/* ---- Local parts ------------------------------------------------------------------------------------------------ */

/* The length of the quoted string at the front, 0: it has no end, or holds what it must not. */
static size_t quoted_length(struct slice text)
{
	size_t at = 1, len;

	while (at < text.len && text.ptr[at] != '"') {
		len = 1;
		if (text.ptr[at] == '\\' && ++at == text.len)
			return 0;
		if (!is_ascii_octet(text.ptr[at]))
			len = utf8_in_address(slice_from(text, at));
		else if (text.ptr[at] < ' ' || text.ptr[at] == 0x7f)
			return 0;
		if (len == 0)
			return 0;
		at += len;
	}
	return at < text.len ? at + 1 : 0;
}

static size_t dot_string_length(struct slice text)
{
	size_t at = 0, len;

	for (;;) {
		len = atom_length(slice_from(text, at));
		if (len == 0)
			return 0;
		at += len;
		if (at == text.len || text.ptr[at] != '.')
			return at;
		at++;
	}
}

static bool is_dot_string(struct slice text)
{
	return text.len && dot_string_length(text) == text.len;
}

static int fail(const char **why, enum err_code code, const char *text)
{
	if (why)
		*why = text;
	return code;
}

static int parse_domain_of(struct smtp_mailbox *out, unsigned flags, const char **why)
{
	const char *fault;

	if (out->domain.len == 0)
		return fail(why, ERR_SYNTAX, "there is nothing behind the @");
	if (out->domain.ptr[0] == '[') {
		out->is_literal = true;
		if (!smtp_is_address_literal(out->domain))
			return fail(why, ERR_SYNTAX,
				    "the address literal is none, [192.0.2.1] or [IPv6:2001:db8::1] is");
		return 0;
	}
	fault = domain_fault(out->domain, flags);
	return fault ? fail(why, ERR_SYNTAX, fault) : 0;
}

static int may_be_bare(struct slice local, unsigned flags, const char **why)
{
	if ((flags & SMTP_MAY_BE_BARE) || slice_case_eq(local, SLICE("postmaster")))
		return 0;
	return fail(why, ERR_SYNTAX, "there is no @ and no domain");
}

int smtp_parse_mailbox(struct slice text, unsigned flags, struct smtp_mailbox *out, const char **why)
{
	size_t local;

	*out = (struct smtp_mailbox){.address = text};
	if (text.len == 0)
		return fail(why, ERR_SYNTAX, "it is empty");
	if (text.len > SMTP_ADDRESS_MAX_BYTES)
		return fail(why, ERR_LIMIT, "it is longer than 254 octets");
	out->is_utf8 = !slice_is_ascii(text);
	if (out->is_utf8 && !smtp_is_utf8(text))
		return fail(why, ERR_SYNTAX, "it is not UTF-8");
	if (out->is_utf8 && !(flags & SMTP_MAY_BE_UTF8))
		return fail(why, ERR_UNSUPPORTED, "it holds UTF-8 and MAIL had no SMTPUTF8");
	out->is_quoted = text.ptr[0] == '"';
	local = out->is_quoted ? quoted_length(text) : dot_string_length(text);
	if (local == 0)
		return fail(why, ERR_SYNTAX, "what stands before the @ is empty or needs quotes");
	out->local = slice_to(text, local);
	if (local == text.len)
		return may_be_bare(out->local, flags, why);
	if (text.ptr[local] != '@')
		return fail(why, ERR_SYNTAX, "it holds a character that needs quotes");
	out->domain = slice_from(text, local + 1);
	return parse_domain_of(out, flags, why);
}

/* ---- Paths ------------------------------------------------------------------------------------------------------ */

/* Index of the ">" that ends the path, -1: there is none. One in quotes is not it. */
static ptrdiff_t path_end(struct slice text)
{
	bool in_quotes = false;

	for (size_t at = 1; at < text.len; at++) {
		char c = text.ptr[at];
		if (c == '"')
			in_quotes = !in_quotes;
		else if (c == '\\' && in_quotes)
			at++;
		else if (c == '>' && !in_quotes)
			return (ptrdiff_t)at;
	}
	return -1;
}

/* Skips "@one,@two:" (RFC 5321 appendix C). */
static int skip_route(struct slice *text, unsigned flags, const char **why)
{
	ptrdiff_t colon = slice_find(*text, ':');
	struct slice route;

	if (colon < 0)
		return fail(why, ERR_SYNTAX, "what stands before the @ is empty");
	route = slice_to(*text, (size_t)colon);
	*text = slice_from(*text, (size_t)colon + 1);
	for (;;) {
		ptrdiff_t comma = slice_find(route, ',');
		struct slice hop = comma < 0 ? route : slice_to(route, (size_t)comma);
		if (hop.len < 2 || hop.ptr[0] != '@' || !smtp_is_domain(slice_from(hop, 1), flags))
			return fail(why, ERR_SYNTAX, "the source route is broken");
		if (comma < 0)
			return 0;
		route = slice_from(route, (size_t)comma + 1);
	}
}

int smtp_parse_path(struct slice *text, unsigned flags, struct smtp_mailbox *out, const char **why)
{
	struct slice inner;
	ptrdiff_t end;
	int rc;

	if (text->len == 0 || text->ptr[0] != '<')
		return fail(why, ERR_SYNTAX, "it does not stand in <>");
	end = path_end(*text);
	if (end < 0)
		return fail(why, ERR_SYNTAX, "the closing > is missing");
	inner = slice_to(slice_from(*text, 1), (size_t)end - 1);
	*text = slice_from(*text, (size_t)end + 1);
	if (inner.len == 0 && (flags & SMTP_MAY_BE_EMPTY)) {
		*out = (struct smtp_mailbox){.address = inner};
		return 0;
	}
	if (inner.len && inner.ptr[0] == '@') {
		rc = skip_route(&inner, flags, why);
		if (rc < 0)
			return rc;
	}
	return smtp_parse_mailbox(inner, flags, out, why);
}

bool smtp_split_address(struct slice address, struct slice *local, struct slice *domain)
{
	size_t quoted = address.len && address.ptr[0] == '"' ? quoted_length(address) : 0;
	ptrdiff_t at = quoted == address.len ? -1 : slice_find_last(address, '@');

	if (local)
		*local = at < 0 ? address : slice_to(address, (size_t)at);
	if (domain)
		*domain = at < 0 ? (struct slice){0} : slice_from(address, (size_t)at + 1);
	return at >= 0;
}

static int append_quoted(struct buf *out, struct slice local)
{
	int rc = buf_append_byte(out, '"');

	for (size_t i = 0; i < local.len && rc == 0; i++) {
		if (local.ptr[i] == '"' || local.ptr[i] == '\\')
			rc = buf_append_byte(out, '\\');
		if (rc == 0)
			rc = buf_append_byte(out, local.ptr[i]);
	}
	return rc ? rc : buf_append_byte(out, '"');
}

static bool can_be_quoted(struct slice local)
{
	for (size_t at = 0, len; at < local.len; at += len) {
		bool is_ascii = is_ascii_octet(local.ptr[at]);
		len = is_ascii ? 1 : utf8_in_address(slice_from(local, at));
		if (len == 0 || (is_ascii && (local.ptr[at] < ' ' || local.ptr[at] == 0x7f)))
			return false;
	}
	return true;
}

int smtp_format_mailbox(struct buf *out, struct slice local, struct slice domain)
{
	size_t before = buf_len(out);
	int rc;

	if (!can_be_quoted(local))
		return ERR_SYNTAX;
	rc = is_dot_string(local) ? buf_append(out, local) : append_quoted(out, local);
	if (rc == 0 && domain.len)
		rc = buf_append_byte(out, '@');
	if (rc == 0)
		rc = buf_append(out, domain);
	if (rc < 0)
		buf_truncate(out, before);
	return rc;
}

int smtp_format_path(struct buf *out, struct slice address)
{
	char *at = buf_reserve(out, address.len + 2);

	if (!at)
		return ERR_LIMIT;
	at[0] = '<';
	if (address.len)
		memcpy(at + 1, address.ptr, address.len);
	at[address.len + 1] = '>';
	buf_commit(out, address.len + 2);
	return 0;
}
