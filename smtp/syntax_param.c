/* ESMTP parameters, DSN parameters and xtext: the other half of smtp/syntax.h. */
#include "base/base.h"
#include "smtp/syntax.h"

static bool is_letter_or_digit(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_keyword(struct slice text)
{
	if (text.len == 0 || text.ptr[0] == '-')
		return false;
	for (size_t i = 0; i < text.len; i++)
		if (!is_letter_or_digit(text.ptr[i]) && text.ptr[i] != '-')
			return false;
	return true;
}

static bool is_value(struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.ptr[i];
		if (c <= ' ' || c == '=' || c == 0x7f)
			return false;
	}
	return text.len > 0 && smtp_is_utf8(text);
}

int smtp_next_param(struct slice *text, struct smtp_param *out)
{
	struct slice rest = *text, word;
	ptrdiff_t end, equals;

	while (rest.len && rest.ptr[0] == ' ')
		rest = slice_from(rest, 1);
	if (rest.len == 0) {
		*text = rest;
		return 0;
	}
	if (rest.len == text->len)
		return ERR_SYNTAX;
	end = slice_find(rest, ' ');
	word = end < 0 ? rest : slice_to(rest, (size_t)end);
	*text = slice_from(rest, word.len);
	equals = slice_find(word, '=');
	*out = (struct smtp_param){.keyword = equals < 0 ? word : slice_to(word, (size_t)equals),
				   .has_value = equals >= 0};
	if (out->has_value)
		out->value = slice_from(word, (size_t)equals + 1);
	if (!is_keyword(out->keyword) || (out->has_value && !is_value(out->value)))
		return ERR_SYNTAX;
	return 1;
}

int smtp_parse_size(struct slice text, uint64_t *size)
{
	uint64_t value = 0;
	bool fits = text.len <= 20;

	if (text.len == 0)
		return ERR_SYNTAX;
	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] < '0' || text.ptr[i] > '9')
			return ERR_SYNTAX;
		fits = fits && !__builtin_mul_overflow(value, UINT64_C(10), &value) &&
		       !__builtin_add_overflow(value, (uint64_t)(text.ptr[i] - '0'), &value);
	}
	if (!fits)
		return ERR_LIMIT;
	*size = value;
	return 0;
}

int smtp_parse_notify(struct slice text, unsigned *bits)
{
	static const struct {
		struct slice word;
		unsigned bit;
	} words[] = {
	    {{"SUCCESS", 7}, SMTP_DSN_SUCCESS}, {{"FAILURE", 7}, SMTP_DSN_FAILURE}, {{"DELAY", 5}, SMTP_DSN_DELAY}};
	unsigned found = 0;

	if (slice_case_eq(text, SLICE("NEVER"))) {
		*bits = SMTP_DSN_NEVER;
		return 0;
	}
	for (;;) {
		ptrdiff_t comma = slice_find(text, ',');
		struct slice word = comma < 0 ? text : slice_to(text, (size_t)comma);
		unsigned bit = 0;
		for (size_t i = 0; i < ARRAY_LEN(words); i++)
			if (slice_case_eq(word, words[i].word))
				bit = words[i].bit;
		if (bit == 0 || (found & bit))
			return ERR_SYNTAX;
		found |= bit;
		if (comma < 0)
			break;
		text = slice_from(text, (size_t)comma + 1);
	}
	*bits = found;
	return 0;
}

int smtp_parse_ret(struct slice text, enum smtp_dsn_ret *ret)
{
	if (slice_case_eq(text, SLICE("FULL")))
		*ret = SMTP_DSN_RET_FULL;
	else if (slice_case_eq(text, SLICE("HDRS")))
		*ret = SMTP_DSN_RET_HDRS;
	else
		return ERR_SYNTAX;
	return 0;
}

/* ---- xtext ------------------------------------------------------------------------------------------------------ */

/* RFC 3461 §4: upper case alone; lower case is read too. */
static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The octet that stands at the front of xtext, and how long it is written there; -1: it is none. */
static int xtext_octet(struct slice text, size_t *len)
{
	unsigned char c = (unsigned char)text.ptr[0];
	int high, low;

	*len = 1;
	if (c != '+')
		return c < '!' || c > '~' || c == '=' ? -1 : c;
	if (text.len < 3)
		return -1;
	high = hex_digit(text.ptr[1]);
	low = hex_digit(text.ptr[2]);
	*len = 3;
	return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* xtext whose octets are all at least `least` and, unless `high` says so, below 127. */
static bool is_xtext_of(struct slice text, int least, bool high)
{
	for (size_t at = 0, len; at < text.len; at += len) {
		int octet = xtext_octet(slice_from(text, at), &len);
		if (octet < least || (!high && octet >= 0x7f))
			return false;
	}
	return true;
}

bool smtp_is_xtext(struct slice text)
{
	return is_xtext_of(text, 0, true);
}

bool smtp_is_envid(struct slice text)
{
	return text.len && text.len <= SMTP_ENVID_MAX_BYTES && is_xtext_of(text, ' ', false);
}

int smtp_xtext_encode(struct buf *out, struct slice bytes)
{
	size_t before = buf_len(out);
	int rc = 0;

	for (size_t i = 0; i < bytes.len && rc == 0; i++) {
		unsigned char c = (unsigned char)bytes.ptr[i];
		rc = c < '!' || c > '~' || c == '+' || c == '=' ? buf_printf(out, "+%02X", c)
								: buf_append_byte(out, (char)c);
	}
	if (rc < 0)
		buf_truncate(out, before);
	return rc;
}

int smtp_xtext_decode(struct buf *out, struct slice xtext)
{
	size_t before = buf_len(out);
	int rc = 0;

	for (size_t at = 0, len; at < xtext.len && rc == 0; at += len) {
		int octet = xtext_octet(slice_from(xtext, at), &len);
		rc = octet < 0 ? ERR_SYNTAX : buf_append_byte(out, (char)octet);
	}
	if (rc < 0)
		buf_truncate(out, before);
	return rc;
}

/* RFC 6533 §3: "\x{10FFFF}" in utf-8-addr-xtext. The length of one at the front, 0: it is none. */
static size_t embedded_length(struct slice text)
{
	size_t at = 3;

	if (!slice_has_case_prefix(text, SLICE("\\x{")))
		return 0;
	while (at < text.len && hex_digit(text.ptr[at]) >= 0)
		at++;
	return at > 4 && at <= 9 && at < text.len && text.ptr[at] == '}' ? at + 1 : 0;
}

static bool is_utf8_address(struct slice text, unsigned flags)
{
	if (!(flags & SMTP_MAY_BE_UTF8) && !slice_is_ascii(text))
		return false;
	for (size_t at = 0, len; at < text.len; at += len) {
		unsigned char c = (unsigned char)text.ptr[at];
		len = 1;
		if (c == '\\') {
			len = embedded_length(slice_from(text, at));
			if (len == 0)
				return false;
		} else if (c <= ' ' || c == '=' || c == 0x7f) {
			return false;
		}
	}
	return smtp_is_utf8(text);
}

bool smtp_is_orcpt(struct slice text, unsigned flags)
{
	ptrdiff_t semicolon = slice_find(text, ';');
	struct slice type, address;

	if (semicolon < 0 || text.len > SMTP_ORCPT_MAX_BYTES)
		return false;
	type = slice_to(text, (size_t)semicolon);
	address = slice_from(text, (size_t)semicolon + 1);
	if (!smtp_is_atom(type) || !slice_is_ascii(type) || address.len == 0)
		return false;
	if (slice_case_eq(type, SLICE("utf-8")))
		return is_utf8_address(address, flags);
	return is_xtext_of(address, ' ', true) && slice_is_ascii(address);
}
