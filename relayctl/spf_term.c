#include "relayctl/spf_term.h"

#include "base/base.h"
#include "base/buf.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

enum { TERMS_MAX = 256, EXPANSION_MAX_BYTES = 4096 };

/* ---- parsing ---- */

static const struct mechanism {
	const char *name;
	enum spf_term_kind kind;
	bool may_have_domain, needs_domain, may_have_bits;
} mechanisms[] = {
    {"all", SPF_ALL, false, false, false}, {"include", SPF_INCLUDE, true, true, false},
    {"a", SPF_A, true, false, true},	   {"mx", SPF_MX, true, false, true},
    {"ptr", SPF_PTR, true, false, false},  {"exists", SPF_EXISTS, true, true, false},
};

/* Digits without a leading zero, at most `max`. */
static bool parse_bits(struct slice text, unsigned max, unsigned *bits)
{
	unsigned value = 0;

	if (text.len == 0 || text.len > 3 || (text.len > 1 && text.ptr[0] == '0'))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (!isdigit((unsigned char)text.ptr[i]))
			return false;
		value = value * 10 + (unsigned)(text.ptr[i] - '0');
	}
	*bits = value;
	return value <= max;
}

/* "/24", "//64", "/24//64" at the end of *text, which loses it. */
static bool take_bits(struct slice *text, struct spf_term *term)
{
	const char *six = text->len ? memmem(text->ptr, text->len, "//", 2) : NULL;
	ptrdiff_t four;

	if (six) {
		size_t at = (size_t)(six - text->ptr);
		if (!parse_bits(slice_from(*text, at + 2), 128, &term->bits6))
			return false;
		text->len = at;
	}
	four = slice_find_last(*text, '/');
	if (four < 0 || slice_find(slice_from(*text, (size_t)four), '}') >= 0) /* a delimiter in a macro */
		return true;
	if (!parse_bits(slice_from(*text, (size_t)four + 1), 32, &term->bits4))
		return false;
	text->len = (size_t)four;
	return true;
}

/* It ends in a macro, or in a label that is no number with a dot before it (section 7.1, domain-end). */
static bool has_domain_end(struct slice text)
{
	ptrdiff_t dot;
	bool is_number = true;

	if (text.len && text.ptr[text.len - 1] == '.')
		text.len--;
	if (text.len >= 2 && (text.ptr[text.len - 1] == '}' || text.ptr[text.len - 2] == '%'))
		return true;
	dot = slice_find_last(text, '.');
	text = slice_from(text, (size_t)(dot + 1));
	for (size_t i = 0; i < text.len; i++) {
		if (!isalnum((unsigned char)text.ptr[i]) && text.ptr[i] != '-')
			return false;
		is_number = is_number && isdigit((unsigned char)text.ptr[i]);
	}
	return dot >= 0 && text.len > 0 && !is_number && text.ptr[0] != '-' && text.ptr[text.len - 1] != '-';
}

static bool expand(struct slice text, const struct spf_names *names, struct buf *out);

/* Are its macros well formed? Any values show it. */
static bool is_macro_string(struct slice text)
{
	static const struct dns_address any = {.family = DNS_IPV4};
	const struct spf_names names = {"a.example", "a.example", "a.example", &any};
	struct buf out;
	bool is_good;

	buf_init(&out, EXPANSION_MAX_BYTES);
	is_good = expand(text, &names, &out);
	buf_fini(&out);
	return is_good;
}

static bool take_domain(struct slice text, struct spf_term *term)
{
	if (!has_domain_end(text) || !is_macro_string(text))
		return false;
	term->domain = xmemdup(text.ptr, text.len);
	return true;
}

static bool parse_ip(struct slice value, bool is_6, struct spf_term *term)
{
	ptrdiff_t slash = slice_find(value, '/');
	unsigned *bits = is_6 ? &term->bits6 : &term->bits4;

	term->kind = SPF_IP;
	if (slash >= 0 && !parse_bits(slice_from(value, (size_t)slash + 1), *bits, bits))
		return false;
	return dns_address_parse(slash < 0 ? value : slice_to(value, (size_t)slash), &term->address) &&
	       term->address.family == (is_6 ? DNS_IPV6 : DNS_IPV4);
}

/* `name` is what stands before ':' or '/', `rest` begins with that. */
static bool parse_mechanism(struct slice name, struct slice rest, struct spf_term *term)
{
	const struct mechanism *m = NULL;

	if (slice_case_eq(name, SLICE("ip4")) || slice_case_eq(name, SLICE("ip6")))
		return rest.len > 0 && rest.ptr[0] == ':' && parse_ip(slice_from(rest, 1), name.ptr[2] == '6', term);
	for (size_t i = 0; i < ARRAY_LEN(mechanisms); i++)
		if (slice_case_eq(name, slice_of_str(mechanisms[i].name)))
			m = &mechanisms[i];
	if (!m)
		return false;
	term->kind = m->kind;
	if (m->may_have_bits && !take_bits(&rest, term))
		return false;
	if (rest.len == 0)
		return !m->needs_domain;
	return m->may_have_domain && rest.ptr[0] == ':' && take_domain(slice_from(rest, 1), term);
}

/* "name=value": redirect is kept, once; others say nothing to us. */
static bool parse_modifier(struct spf_record *record, struct slice name, struct slice value, struct spf_term *term,
			   bool *is_kept)
{
	*is_kept = slice_case_eq(name, SLICE("redirect"));
	if (!*is_kept)
		return isalpha((unsigned char)name.ptr[0]) && is_macro_string(value);
	for (size_t i = 0; i < record->count; i++)
		if (record->terms[i].kind == SPF_REDIRECT)
			return false;
	term->kind = SPF_REDIRECT;
	return take_domain(value, term);
}

static bool parse_term(struct spf_record *record, struct slice text)
{
	struct spf_term term = {.qualifier = '+', .bits4 = 32, .bits6 = 128};
	struct slice left = text;
	size_t name_len = 0;
	bool is_good, is_kept = true;

	if (strchr("+-~?", text.ptr[0])) {
		term.qualifier = text.ptr[0];
		left = slice_from(left, 1);
	}
	while (name_len < left.len && !strchr(":/=", left.ptr[name_len]))
		name_len++;
	if (name_len > 0 && name_len < left.len && left.ptr[name_len] == '=')
		is_good = left.ptr == text.ptr && parse_modifier(record, slice_to(left, name_len),
								 slice_from(left, name_len + 1), &term, &is_kept);
	else
		is_good = parse_mechanism(slice_to(left, name_len), slice_from(left, name_len), &term);
	if (!is_good || !is_kept) {
		free(term.domain);
		return is_good;
	}
	term.text = xmemdup(text.ptr, text.len);
	record->terms = xreallocarray(record->terms, record->count + 1, sizeof(term));
	record->terms[record->count++] = term;
	return true;
}

bool spf_record_parse(struct slice text, struct spf_record *record)
{
	*record = (struct spf_record){0};
	while (text.len > 0) {
		ptrdiff_t blank = slice_find(text, ' ');
		struct slice term = blank < 0 ? text : slice_to(text, (size_t)blank);
		text = slice_from(text, blank < 0 ? text.len : (size_t)blank + 1);
		if (term.len == 0)
			continue;
		if (memchr(term.ptr, '\0', term.len) || record->count == TERMS_MAX || !parse_term(record, term)) {
			slice_to_cstr(term, record->wrong, sizeof(record->wrong));
			return false;
		}
	}
	return true;
}

void spf_record_fini(struct spf_record *record)
{
	for (size_t i = 0; i < record->count; i++) {
		free(record->terms[i].text);
		free(record->terms[i].domain);
	}
	free(record->terms);
	*record = (struct spf_record){0};
}

/* ---- macros (section 7) ---- */

/* "192.0.2.1"; of IPv6 each nibble is a part. */
static void format_address(const struct dns_address *address, char out[64])
{
	if (address->family == DNS_IPV4) {
		dns_address_format(address, out);
		return;
	}
	for (size_t i = 0; i < 32; i++) {
		out[2 * i] = "0123456789abcdef"[address->bytes[i / 2] >> (i % 2 ? 0 : 4) & 15];
		out[2 * i + 1] = i < 31 ? '.' : '\0';
	}
}

/* What a letter stands for; false: nothing. */
static bool value_of(char letter, const struct spf_names *names, char *out, size_t size)
{
	char address[64];

	switch (letter) {
	case 's': return (size_t)snprintf(out, size, "postmaster@%s", names->sender_domain) < size;
	case 'l': return slice_to_cstr(SLICE("postmaster"), out, size);
	case 'o': return slice_to_cstr(slice_of_str(names->sender_domain), out, size);
	case 'd': return slice_to_cstr(slice_of_str(names->domain), out, size);
	case 'h': return slice_to_cstr(slice_of_str(names->helo), out, size);
	case 'p': return slice_to_cstr(SLICE("unknown"), out, size);
	case 'v': return slice_to_cstr(slice_of_str(names->address->family == DNS_IPV4 ? "in-addr" : "ip6"), out, size);
	case 'i': format_address(names->address, address); return slice_to_cstr(slice_of_str(address), out, size);
	default: return false;
	}
}

struct transformer {
	unsigned keep; /* so many parts from the right; 0: all */
	bool reverses;
	struct slice delimiters;
};

static bool parse_transformer(struct slice text, struct transformer *out)
{
	size_t digits = 0;

	*out = (struct transformer){0};
	for (; digits < text.len && isdigit((unsigned char)text.ptr[digits]); digits++)
		if (out->keep < 1000)
			out->keep = out->keep * 10 + (unsigned)(text.ptr[digits] - '0');
	if (digits > 0 && out->keep == 0)
		return false;
	text = slice_from(text, digits);
	out->reverses = text.len > 0 && (text.ptr[0] | ' ') == 'r';
	out->delimiters = out->reverses ? slice_from(text, 1) : text;
	for (size_t i = 0; i < out->delimiters.len; i++)
		if (!memchr(".-+,/_=", out->delimiters.ptr[i], 7))
			return false;
	if (out->delimiters.len == 0)
		out->delimiters = SLICE(".");
	return true;
}

static bool append(struct buf *out, struct slice part, bool escapes)
{
	bool is_good = true;

	for (size_t i = 0; i < part.len; i++) {
		unsigned char c = (unsigned char)part.ptr[i];
		if (escapes && !isalnum(c) && !strchr("-._~", c))
			is_good = is_good && buf_printf(out, "%%%02X", c) == 0;
		else
			is_good = is_good && buf_append_byte(out, (char)c) == 0;
	}
	return is_good;
}

static bool append_parts(struct buf *out, struct slice value, const struct transformer *how, bool escapes)
{
	struct slice parts[256];
	size_t count = 1, skip;
	bool is_good = true;

	parts[0] = slice_to(value, 0);
	for (size_t i = 0; i < value.len; i++) {
		if (slice_find(how->delimiters, value.ptr[i]) < 0)
			parts[count - 1].len++;
		else if (count < ARRAY_LEN(parts))
			parts[count++] = slice_of(value.ptr + i + 1, 0);
		else
			return false;
	}
	skip = how->keep > 0 && how->keep < count ? count - how->keep : 0;
	for (size_t i = skip; i < count; i++) {
		is_good = is_good && (i == skip || buf_append_byte(out, '.') == 0);
		is_good = is_good && append(out, parts[how->reverses ? count - 1 - i : i], escapes);
	}
	return is_good;
}

/* "{...}" without the braces. */
static bool expand_macro(struct slice macro, const struct spf_names *names, struct buf *out)
{
	struct transformer how;
	char value[512];

	return macro.len > 0 && parse_transformer(slice_from(macro, 1), &how) &&
	       value_of((char)tolower((unsigned char)macro.ptr[0]), names, value, sizeof(value)) &&
	       append_parts(out, slice_of_str(value), &how, isupper((unsigned char)macro.ptr[0]));
}

static bool expand(struct slice text, const struct spf_names *names, struct buf *out)
{
	while (text.len > 0) {
		struct slice next = slice_from(text, 1);
		size_t used = 1;
		bool is_good;
		if (text.ptr[0] != '%') {
			is_good = text.ptr[0] > ' ' && text.ptr[0] <= '~' && buf_append_byte(out, text.ptr[0]) == 0;
		} else if (next.len == 0) {
			return false;
		} else if (next.ptr[0] == '{') {
			ptrdiff_t end = slice_find(next, '}');
			used = (size_t)end + 2;
			is_good = end > 0 && expand_macro(slice_of(next.ptr + 1, (size_t)end - 1), names, out);
		} else {
			used = 2;
			is_good = (next.ptr[0] == '%' && buf_append_byte(out, '%') == 0) ||
				  (next.ptr[0] == '_' && buf_append_byte(out, ' ') == 0) ||
				  (next.ptr[0] == '-' && buf_append_str(out, "%20") == 0);
		}
		if (!is_good)
			return false;
		text = slice_from(text, used);
	}
	return true;
}

/* Too long a name loses labels at the left (section 7.3). */
static struct slice shorten(struct slice name)
{
	while (name.len > DNS_HOST_MAX && slice_find(name, '.') >= 0)
		name = slice_from(name, (size_t)slice_find(name, '.') + 1);
	return name;
}

bool spf_term_target(const struct spf_term *term, const struct spf_names *names, char *out)
{
	struct buf text;
	bool is_good;

	if (!term->domain)
		return dns_name_normalize(slice_of_str(names->domain), out);
	buf_init(&text, EXPANSION_MAX_BYTES);
	is_good = expand(slice_of_str(term->domain), names, &text) &&
		  dns_name_normalize(shorten(buf_slice(&text)), out) && out[0] != '\0';
	buf_fini(&text);
	return is_good;
}
