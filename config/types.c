#include "config/types.h"

#include "base/base.h"
#include "config/config.h"
#include "config/words.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

size_t config_type_size(const struct config_key *key)
{
	switch (key->type) {
	case CONFIG_BOOL: return sizeof(bool);
	case CONFIG_INT:
	case CONFIG_DURATION:
	case CONFIG_SIZE: return sizeof(int64_t);
	case CONFIG_RATE: return sizeof(struct config_rate);
	case CONFIG_WORD: return sizeof(int);
	case CONFIG_ENDPOINT: return sizeof(struct config_endpoint);
	case CONFIG_SECRET: return sizeof(struct config_secret);
	case CONFIG_ADDRESS: return sizeof(struct config_source_address);
	case CONFIG_NETWORK: return sizeof(struct config_network);
	case CONFIG_PATTERN: return sizeof(struct config_pattern);
	case CONFIG_VIA: return sizeof(struct config_via);
	default: return sizeof(const char *);
	}
}

/* ---- From text. */

static void format_bound(const struct config_key *key, int64_t bound, struct buf *out)
{
	if (key->type == CONFIG_SIZE)
		config_size_format(bound, out);
	else
		config_duration_format(bound, out);
}

static int in_range(const struct config_key *key, int64_t value, struct err *why)
{
	const struct config_range *range = key->rule;
	struct buf words;

	if (value >= range->min && value <= range->max)
		return 0;
	buf_init(&words, 128);
	buf_append_str(&words, "is out of range: from ");
	format_bound(key, range->min, &words);
	buf_append_str(&words, " to ");
	format_bound(key, range->max, &words);
	err_set(why, ERR_LIMIT, "%.*s", SLICE_ARG(buf_slice(&words)));
	buf_fini(&words);
	return ERR_LIMIT;
}

/* A listener and a relayhost have other words for `tls`: the one asks how, the other how much. */
static const char *hint_of(const struct config_word *words, struct slice text)
{
	if (words == config_words_tls_level && (slice_eq(text, SLICE("starttls")) || slice_eq(text, SLICE("implicit"))))
		return "; STARTTLS or TLS from the first octet is `implicit`, false or true";
	return "";
}

static int parse_word(const struct config_key *key, struct slice text, int *out, struct err *why)
{
	const struct config_word *word = config_word_find(key->rule, text);
	struct buf words;

	if (word) {
		*out = word->value;
		return 0;
	}
	buf_init(&words, sizeof(why->text));
	for (word = key->rule; word->word; word++)
		buf_printf(&words, "%s%s", buf_len(&words) ? ", " : "", word->word);
	err_set(why, ERR_SYNTAX, "is none of %.*s%s", SLICE_ARG(buf_slice(&words)), hint_of(key->rule, text));
	buf_fini(&words);
	return ERR_SYNTAX;
}

static int parse_via(const struct config_key *key, struct slice text, const struct config_type_context *context,
		     struct config_via *via)
{
	const struct config_word *word = config_word_find(key->rule, text);

	via->kind = word ? (enum config_via_kind)word->value : CONFIG_VIA_RELAYHOST;
	via->name = config_memory_copy(context->memory, text);
	return 0;
}

static int parse_endpoint(const struct config_key *key, struct slice text, const struct config_type_context *context,
			  struct config_endpoint *endpoint, struct err *why)
{
	struct slice host;
	int rc = config_endpoint_parse(text, key->rule, endpoint, &host, why);

	if (rc == 0)
		endpoint->host = config_memory_copy(context->memory, host);
	return rc;
}

static int parse_pattern(struct slice text, const struct config_type_context *context, struct config_pattern *pattern,
			 struct err *why)
{
	struct slice part;
	int rc = config_pattern_parse(text, &pattern->kind, &part, why);

	if (rc == 0)
		pattern->text = config_memory_copy(context->memory, part);
	return rc;
}

static const char *absolute_path(struct slice text, const struct config_type_context *context)
{
	size_t folder = context->folder ? strlen(context->folder) : 0;
	char *path;

	if (text.ptr[0] == '/' || folder == 0)
		return config_memory_copy(context->memory, text);
	path = config_memory_alloc(context->memory, folder + 1 + text.len + 1);
	memcpy(path, context->folder, folder);
	path[folder] = '/';
	memcpy(path + folder + 1, text.ptr, text.len);
	return path;
}

static int parse_secret(struct slice text, const struct config_type_context *context, struct config_secret *secret)
{
	*secret = (struct config_secret){0};
	if (context->is_secret_text)
		secret->value = config_memory_copy(context->memory, text);
	else
		secret->file = absolute_path(text, context);
	return 0;
}

/* ---- Texts with a form. */

static bool is_domain(struct slice text)
{
	char ascii[254];

	if (text.len >= sizeof(ascii))
		return false;
	/* U-labels stand for letters here: DNS decides later. */
	for (size_t i = 0; i < text.len; i++)
		ascii[i] = (uint8_t)text.ptr[i] >= 0x80 ? 'u' : text.ptr[i];
	return config_is_host_name(slice_of(ascii, text.len));
}

static bool is_field_name(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.ptr[i] <= ' ' || text.ptr[i] >= 0x7f || text.ptr[i] == ':')
			return false;
	return text.len > 0 && text.len <= 76;
}

static bool is_field(struct slice text)
{
	ptrdiff_t colon = slice_find(text, ':');

	return colon > 0 && is_field_name(slice_to(text, (size_t)colon));
}

static bool is_mailbox(struct slice text)
{
	ptrdiff_t at = slice_find_last(text, '@');

	for (size_t i = 0; i < text.len; i++)
		if ((uint8_t)text.ptr[i] <= ' ' || strchr("<>,;", text.ptr[i]))
			return false;
	return at > 0 && at <= 64 && is_domain(slice_from(text, (size_t)at + 1));
}

static bool is_url(struct slice text)
{
	struct slice rest = slice_has_case_prefix(text, SLICE("https://")) ? slice_from(text, 8) : (struct slice){0};

	for (size_t i = 0; i < rest.len; i++)
		if (rest.ptr[i] <= ' ' || rest.ptr[i] >= 0x7f)
			return false;
	return rest.len > 0 && rest.ptr[0] != '/' && rest.ptr[0] != ':';
}

static bool is_fingerprint(struct slice text)
{
	size_t digits = 0;

	if (slice_has_case_prefix(text, SLICE("sha256:")))
		text = slice_from(text, 7);
	for (size_t i = 0; i < text.len; i++) {
		if (isxdigit((unsigned char)text.ptr[i]))
			digits++;
		else if (text.ptr[i] != ':' && text.ptr[i] != ' ')
			return false;
	}
	return digits == 64;
}

static const char *text_fault(const struct config_key *key, struct slice text)
{
	switch (key->type) {
	case CONFIG_HOST_NAME:
		return config_is_host_name(text) ? NULL : "is no host name: letters, digits and hyphens between dots";
	case CONFIG_DOMAIN: return is_domain(text) ? NULL : "is no domain, such as example.com";
	case CONFIG_FIELD_NAME: return is_field_name(text) ? NULL : "is no name of a header field, such as X-Mailer";
	case CONFIG_FIELD: return is_field(text) ? NULL : "is no header field: write \"Name: value\"";
	case CONFIG_MAILBOX: return is_mailbox(text) ? NULL : "is no mail address, such as user@example.com";
	case CONFIG_URL: return is_url(text) ? NULL : "is no HTTPS URL, such as https://example.com/hook";
	case CONFIG_FINGERPRINT:
		return is_fingerprint(text) ? NULL : "is no SHA-256 fingerprint: 64 hexadecimal digits";
	default: return NULL;
	}
}

static int parse_text(const struct config_key *key, struct slice text, const struct config_type_context *context,
		      const char **out, struct err *why)
{
	const char *fault;

	if ((key->type == CONFIG_HOST_NAME || key->type == CONFIG_DOMAIN) && text.len > 1 &&
	    text.ptr[text.len - 1] == '.')
		text.len--;
	fault = text_fault(key, text);
	if (fault)
		return err_set(why, ERR_SYNTAX, "%s", fault);
	*out = key->type == CONFIG_PATH ? absolute_path(text, context) : config_memory_copy(context->memory, text);
	return 0;
}

static bool may_be_empty(const struct config_key *key)
{
	switch (key->type) {
	case CONFIG_BOOL:
	case CONFIG_INT:
	case CONFIG_DURATION:
	case CONFIG_SIZE:
	case CONFIG_WORD:
	case CONFIG_ENDPOINT:
	case CONFIG_ADDRESS:
	case CONFIG_NETWORK:
	case CONFIG_PATTERN:
	case CONFIG_VIA: return false;
	default: return !(key->flags & KEY_LIST);
	}
}

int config_type_parse(const struct config_key *key, struct slice text, const struct config_type_context *context,
		      void *out, struct err *why)
{
	const struct config_range *range = key->rule;
	int rc;

	memset(out, 0, config_type_size(key));
	if (text.len == 0)
		return may_be_empty(key) ? 0 : err_set(why, ERR_SYNTAX, "is empty");
	switch (key->type) {
	case CONFIG_BOOL: return config_bool_parse(text, out, why);
	case CONFIG_INT: return config_int_parse(text, range->min, range->max, out, why);
	case CONFIG_DURATION:
		rc = config_duration_parse(text, out, why);
		return rc < 0 ? rc : in_range(key, *(int64_t *)out, why);
	case CONFIG_SIZE:
		rc = config_size_parse(text, out, why);
		return rc < 0 ? rc : in_range(key, *(int64_t *)out, why);
	case CONFIG_RATE: return config_rate_parse(text, out, why);
	case CONFIG_WORD: return parse_word(key, text, out, why);
	case CONFIG_ENDPOINT: return parse_endpoint(key, text, context, out, why);
	case CONFIG_SECRET: return parse_secret(text, context, out);
	case CONFIG_ADDRESS: {
		struct config_source_address *address = out;
		if (config_address_parse(text, &address->family, address->bytes) < 0)
			return err_set(why, ERR_SYNTAX, "is no IP address");
		return 0;
	}
	case CONFIG_NETWORK: return config_network_parse(text, out, why);
	case CONFIG_PATTERN: return parse_pattern(text, context, out, why);
	case CONFIG_VIA: return parse_via(key, text, context, out);
	default: return parse_text(key, text, context, out, why);
	}
}

/* ---- Back to text. */

static void format_pattern(const struct config_pattern *pattern, struct buf *out)
{
	switch (pattern->kind) {
	case CONFIG_PATTERN_ADDRESS: buf_append_str(out, pattern->text); break;
	case CONFIG_PATTERN_DOMAIN: buf_printf(out, "@%s", pattern->text); break;
	case CONFIG_PATTERN_SUBDOMAINS: buf_printf(out, "*.%s", pattern->text); break;
	case CONFIG_PATTERN_ALL: buf_append_byte(out, '*'); break;
	case CONFIG_PATTERN_NULL: buf_append_str(out, "<>"); break;
	}
}

static void format_address(const struct config_source_address *address, struct buf *out)
{
	char text[INET6_ADDRSTRLEN];

	if (inet_ntop(address->family, address->bytes, text, sizeof(text)))
		buf_append_str(out, text);
}

static void format_text(const char *text, struct buf *out)
{
	if (text)
		buf_append_str(out, text);
}

/* Without the password that may stand before the host (RFC 3986 section 3.2.1), or the token in its place. */
static void format_url(const char *text, struct buf *out)
{
	struct slice scheme = slice_to(slice_of_str(text), strlen("https://")), url, user;
	ptrdiff_t at;

	url = slice_from(slice_of_str(text), scheme.len);
	if (url.len == 0)
		return; /* none is set */
	at = slice_find_last(slice_to(url, strcspn(url.ptr, "/?#")), '@');
	user = slice_to(url, at < 0 ? 0 : (size_t)at);
	buf_append(out, scheme);
	buf_append(out, slice_to(user, (size_t)(slice_find(user, ':') + 1)));
	if (at >= 0)
		buf_append_str(out, "***");
	buf_append(out, slice_from(url, user.len));
}

void config_type_format(const struct config_key *key, const void *value, struct buf *out)
{
	switch (key->type) {
	case CONFIG_BOOL: buf_append_str(out, *(const bool *)value ? "true" : "false"); break;
	case CONFIG_INT: buf_printf(out, "%" PRId64, *(const int64_t *)value); break;
	case CONFIG_DURATION: config_duration_format(*(const int64_t *)value, out); break;
	case CONFIG_SIZE: config_size_format(*(const int64_t *)value, out); break;
	case CONFIG_RATE: config_rate_format(value, out); break;
	case CONFIG_WORD: format_text(config_word_of(key->rule, *(const int *)value), out); break;
	case CONFIG_ENDPOINT: config_endpoint_format(value, out); break;
	case CONFIG_SECRET: {
		const struct config_secret *secret = value;
		format_text(secret->value ? "***" : secret->file, out);
		break;
	}
	case CONFIG_URL: format_url(*(const char *const *)value, out); break;
	case CONFIG_ADDRESS: format_address(value, out); break;
	case CONFIG_NETWORK: config_network_format(value, out); break;
	case CONFIG_PATTERN: format_pattern(value, out); break;
	case CONFIG_VIA: format_text(((const struct config_via *)value)->name, out); break;
	default: format_text(*(const char *const *)value, out);
	}
}
