#include "config/pattern.h"

#include "config/values.h"

/* A domain as somebody may write it: U-labels pass. */
static bool is_domain(struct slice text)
{
	if (text.len == 0 || text.len > 253 || text.ptr[0] == '.' || text.ptr[text.len - 1] == '.')
		return false;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];
		if ((uint8_t)c <= ' ' || c == 0x7f || strchr("@*<>,;:\"()\\", c) ||
		    (c == '.' && text.ptr[i - 1] == '.'))
			return false;
	}
	return true;
}

static bool is_address(struct slice text, size_t at)
{
	return slice_find(slice_to(text, at), '*') < 0 && slice_find(text, ' ') < 0 && text.ptr[0] != '<' &&
	       is_domain(slice_from(text, at + 1));
}

int config_pattern_parse(struct slice written, enum config_pattern_kind *kind, struct slice *text, struct err *why)
{
	ptrdiff_t at = slice_find_last(written, '@');
	bool is_good = true;

	*text = (struct slice){0};
	if (slice_eq(written, SLICE("*"))) {
		*kind = CONFIG_PATTERN_ALL;
	} else if (slice_eq(written, SLICE("<>"))) {
		*kind = CONFIG_PATTERN_NULL;
	} else if (at > 0) {
		*kind = CONFIG_PATTERN_ADDRESS;
		*text = written;
		is_good = is_address(written, (size_t)at);
	} else {
		*text = slice_from(written, (size_t)(at + 1));
		*kind = slice_has_prefix(*text, SLICE("*.")) ? CONFIG_PATTERN_SUBDOMAINS : CONFIG_PATTERN_DOMAIN;
		*text = slice_from(*text, *kind == CONFIG_PATTERN_SUBDOMAINS ? 2 : 0);
		is_good = is_domain(*text);
	}
	if (is_good)
		return 0;
	return err_set(why, ERR_SYNTAX, "is neither user@example.com nor @example.com nor *.example.com nor *");
}

bool config_pattern_matches(const struct config_pattern *pattern, struct slice address)
{
	struct slice domain = slice_from(address, (size_t)(slice_find_last(address, '@') + 1));
	struct slice text = slice_of_str(pattern->text);

	switch (pattern->kind) {
	case CONFIG_PATTERN_ALL: return true;
	case CONFIG_PATTERN_NULL: return address.len == 0;
	case CONFIG_PATTERN_ADDRESS: return slice_case_eq(address, text);
	case CONFIG_PATTERN_DOMAIN: return domain.len < address.len && slice_case_eq(domain, text);
	case CONFIG_PATTERN_SUBDOMAINS:
		return domain.len < address.len && domain.len > text.len + 1 &&
		       domain.ptr[domain.len - text.len - 1] == '.' &&
		       slice_case_eq(slice_from(domain, domain.len - text.len), text);
	}
	return false;
}

bool config_patterns_match(const struct config_patterns *patterns, struct slice address)
{
	for (size_t i = 0; i < patterns->count; i++)
		if (config_pattern_matches(&patterns->items[i], address))
			return true;
	return false;
}
