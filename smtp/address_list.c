#include "smtp/address_list.h"

#include "base/buf.h"
#include "smtp/syntax.h"

void address_list_init(struct address_list *list, struct slice body)
{
	*list = (struct address_list){.all = body};
}

/* The addr-spec that is being put together, unquoted. */
struct spec {
	char local[ADDRESS_MAX_BYTES], domain[SMTP_DOMAIN_MAX_BYTES];
	size_t local_len, domain_len;
	bool has_word, has_at, has_domain;
	bool may_join;	/* a dot or the "@" came last: the next word belongs to it */
	bool is_phrase; /* words stand side by side: this is a display name */
	bool is_long;
	size_t begin, end; /* of its words and dots */
};

struct element {
	struct spec spec;
	bool in_angle, had_angle;
	size_t other_begin, other_end; /* of words with an "@" before the "<" */
	size_t angle_end;	       /* behind the ">" */
	bool has_at_behind;
};

static void spec_clear(struct spec *spec)
{
	spec->local_len = spec->domain_len = spec->begin = spec->end = 0;
	spec->has_word = spec->has_at = spec->has_domain = spec->may_join = spec->is_phrase = spec->is_long = false;
}

static void put(struct spec *spec, char c)
{
	size_t *len = spec->has_at ? &spec->domain_len : &spec->local_len;

	if (*len == (spec->has_at ? sizeof(spec->domain) : sizeof(spec->local)))
		spec->is_long = true;
	else
		(spec->has_at ? spec->domain : spec->local)[(*len)++] = c;
}

static void begin_word(struct spec *spec, size_t at)
{
	bool has = spec->has_at ? spec->has_domain : spec->has_word;

	if (spec->end == 0)
		spec->begin = at;
	spec->is_phrase |= has && !spec->may_join;
	spec->may_join = false;
	if (spec->has_at)
		spec->has_domain = true;
	else
		spec->has_word = true;
}

static bool is_special(char c)
{
	return c != '\0' && strchr("()<>[]:;@\\,.\"", c);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Behind a comment, nested ones with it; 0: it does not end. */
static size_t skip_comment(struct slice all, size_t at)
{
	size_t depth = 0;

	for (; at < all.len; at++) {
		if (all.ptr[at] == '\\')
			at++;
		else if (all.ptr[at] == '(')
			depth++;
		else if (all.ptr[at] == ')' && --depth == 0)
			return at + 1;
	}
	return 0;
}

/* Behind a quoted string; 0: it does not end. Folding goes, the blanks stay. */
static size_t take_quoted(struct spec *spec, struct slice all, size_t at)
{
	begin_word(spec, at);
	for (at++; at < all.len; at++) {
		char c = all.ptr[at];
		if (c == '"') {
			spec->end = at + 1;
			return at + 1;
		}
		if (c == '\\' && ++at == all.len)
			break;
		if (c != '\r' && c != '\n')
			put(spec, all.ptr[at]);
	}
	return 0;
}

static size_t take_atom(struct spec *spec, struct slice all, size_t at)
{
	begin_word(spec, at);
	while (at < all.len && !is_blank(all.ptr[at]) && !is_special(all.ptr[at]))
		put(spec, all.ptr[at++]);
	spec->end = at;
	return at;
}

static size_t take_literal(struct spec *spec, struct slice all, size_t at)
{
	begin_word(spec, at);
	for (; at < all.len; at++) {
		if (!is_blank(all.ptr[at]))
			put(spec, all.ptr[at]);
		if (all.ptr[at] == ']') {
			spec->end = at + 1;
			return at + 1;
		}
	}
	return 0;
}

static void take_at(struct spec *spec)
{
	spec->is_phrase |= spec->has_at || !spec->has_word;
	spec->has_at = spec->may_join = true;
	spec->domain_len = 0;
	spec->has_domain = false;
}

static size_t take_dot(struct spec *spec, size_t at)
{
	if (spec->end == 0)
		spec->begin = at;
	put(spec, '.');
	spec->may_join = true;
	spec->end = at + 1;
	return at + 1;
}

/* "@one,@two:" of an obsolete route, behind it; 0: it is none. */
static size_t skip_route(struct slice all, size_t at)
{
	for (; at < all.len && all.ptr[at] != '>'; at++)
		if (all.ptr[at] == ':')
			return at + 1;
	return 0;
}

/* One token of an element at `at`, which is no separator; returns where the next begins, 0: the field is broken. */
static size_t take_token(struct element *e, struct slice all, size_t at)
{
	struct spec scratch, *spec = &e->spec;
	char c = all.ptr[at];

	if (is_blank(c))
		return at + 1;
	if (c == '(')
		return skip_comment(all, at);
	if (e->had_angle && !e->in_angle && c != '<') {
		spec_clear(&scratch);
		spec = &scratch;
		e->has_at_behind |= c == '@';
	}
	if (c == '"')
		return take_quoted(spec, all, at);
	if (c == '<') {
		/* A second address: readers take one or the other, and none of them may pass for the only one. */
		if (e->had_angle && spec->has_at)
			return 0;
		if (spec->has_at && !e->had_angle) {
			e->other_begin = spec->begin;
			e->other_end = spec->end;
		}
		e->in_angle = e->had_angle = true;
		spec_clear(spec);
		return at + 1;
	}
	if (c == '>') {
		e->in_angle = false;
		e->angle_end = at + 1;
		return at + 1;
	}
	if (c == '@' && e->in_angle && !spec->has_word)
		return skip_route(all, at);
	if (c == '@') {
		take_at(spec);
		return at + 1;
	}
	if (c == '.')
		return take_dot(spec, at);
	if (c == '[' && spec->has_at && !spec->has_domain)
		return take_literal(spec, all, at);
	if (is_special(c)) {
		spec->is_phrase = true;
		return at + 1;
	}
	return take_atom(spec, all, at);
}

static bool is_domain(struct slice domain)
{
	return smtp_is_domain(domain, SMTP_MAY_BE_UTF8) || smtp_is_address_literal(domain);
}

/* 1: it is an address; 0: there is none in this element; or an error. */
static int finish(const struct element *e, struct address *out)
{
	const struct spec *spec = &e->spec;
	struct slice domain = slice_of(spec->domain, spec->domain_len);
	struct buf text;
	int rc;

	if (spec->is_long)
		return ERR_LIMIT;
	if (!spec->has_at && (!spec->has_word || spec->is_phrase))
		return e->had_angle && spec->has_word ? ERR_SYNTAX : 0;
	if (spec->is_phrase || (spec->has_at && !is_domain(domain)))
		return ERR_SYNTAX;
	buf_init(&text, ADDRESS_MAX_BYTES);
	rc = smtp_format_mailbox(&text, slice_of(spec->local, spec->local_len), (struct slice){0});
	out->local_len = buf_len(&text);
	if (rc == 0 && spec->has_at)
		rc = buf_append_byte(&text, '@');
	if (rc == 0)
		rc = buf_append(&text, domain);
	slice_to_cstr(buf_slice(&text), out->text, sizeof(out->text));
	out->len = buf_len(&text);
	out->has_domain = spec->has_at;
	out->spec_begin = spec->begin;
	out->spec_end = spec->end;
	buf_fini(&text);
	return rc < 0 ? rc : 1;
}

/* Before the colon of a group. */
static bool may_be_group_name(const struct element *e)
{
	return !e->had_angle && !(e->spec.has_word && e->spec.has_at && e->spec.has_domain);
}

static bool is_separator(const struct element *e, char c)
{
	return c == ',' || c == ';' || (c == ':' && !e->in_angle);
}

int address_list_next(struct address_list *list, struct address *out)
{
	struct slice all = list->all;
	struct element e;
	int rc = 0;

	while (rc == 0 && list->at < all.len) {
		size_t start = list->at, at = start;

		spec_clear(&e.spec);
		e.in_angle = e.had_angle = false;
		e.other_begin = e.other_end = e.angle_end = 0;
		e.has_at_behind = false;
		while (at < all.len && !is_separator(&e, all.ptr[at])) {
			at = take_token(&e, all, at);
			if (at == 0)
				return ERR_SYNTAX;
		}
		list->at = at + 1;
		if (at < all.len && all.ptr[at] == ':' && may_be_group_name(&e))
			continue;
		if (e.in_angle || (at < all.len && all.ptr[at] == ':'))
			return ERR_SYNTAX;
		if (e.has_at_behind) {
			e.other_begin = e.other_end ? e.other_begin : e.angle_end;
			e.other_end = at;
		}
		out->other = slice_trim(slice_to(slice_from(all, e.other_begin), e.other_end - e.other_begin));
		out->raw = slice_trim(slice_to(slice_from(all, start), at - start));
		rc = finish(&e, out);
	}
	return rc;
}
