#include "smtp/client_capabilities.h"

#include "base/base.h"

/* The first word, cut off the front of *rest. */
static struct slice take_word(struct slice *rest)
{
	struct slice word;
	size_t len = 0;

	*rest = slice_trim(*rest);
	while (len < rest->len && rest->ptr[len] != ' ' && rest->ptr[len] != '\t')
		len++;
	word = slice_to(*rest, len);
	*rest = slice_from(*rest, len);
	return word;
}

/* False: no number, or one that does not fit. */
static bool parse_number(struct slice word, uint64_t *out)
{
	uint64_t number = 0;

	for (size_t i = 0; i < word.len; i++) {
		if (word.ptr[i] < '0' || word.ptr[i] > '9' || number > (UINT64_MAX - 9) / 10)
			return false;
		number = number * 10 + (uint64_t)(word.ptr[i] - '0');
	}
	*out = number;
	return word.len > 0;
}

static void parse_size(struct smtp_client_capabilities *out, struct slice rest)
{
	uint64_t number;

	out->size = true;
	if (parse_number(take_word(&rest), &number))
		out->size_max = number;
}

static void parse_auth(struct smtp_client_capabilities *out, struct slice rest)
{
	struct slice word;

	while ((word = take_word(&rest)).len)
		out->auth_mechanisms |= SASL_CLIENT_BIT(sasl_client_mechanism_parse(word));
	out->auth_mechanisms &= ~SASL_CLIENT_BIT(SASL_CLIENT_NONE);
}

static void parse_limit(struct slice word, struct slice name, uint32_t *out)
{
	uint64_t number;

	if (slice_has_case_prefix(word, name) && parse_number(slice_from(word, name.len), &number))
		*out = number < UINT32_MAX ? (uint32_t)number : UINT32_MAX;
}

/* RFC 9422 §3. */
static void parse_limits(struct smtp_client_capabilities *out, struct slice rest)
{
	struct slice word;

	while ((word = take_word(&rest)).len) {
		parse_limit(word, SLICE("RCPTMAX="), &out->rcpt_max);
		parse_limit(word, SLICE("MAILMAX="), &out->mail_max);
	}
}

static void parse_line(struct smtp_client_capabilities *out, struct slice line)
{
	const struct {
		struct slice name;
		bool *flag;
	} plain[] = {
	    {SLICE("PIPELINING"), &out->pipelining},
	    {SLICE("CHUNKING"), &out->chunking},
	    {SLICE("8BITMIME"), &out->eightbitmime},
	    {SLICE("SMTPUTF8"), &out->smtputf8},
	    {SLICE("DSN"), &out->dsn},
	    {SLICE("STARTTLS"), &out->starttls},
	    {SLICE("REQUIRETLS"), &out->requiretls},
	    {SLICE("ENHANCEDSTATUSCODES"), &out->enhancedstatuscodes},
	};
	struct slice keyword = take_word(&line);

	for (size_t i = 0; i < ARRAY_LEN(plain); i++)
		if (slice_case_eq(keyword, plain[i].name))
			*plain[i].flag = true;
	if (slice_case_eq(keyword, SLICE("SIZE")))
		parse_size(out, line);
	else if (slice_case_eq(keyword, SLICE("AUTH")))
		parse_auth(out, line);
	else if (slice_case_eq(keyword, SLICE("LIMITS")))
		parse_limits(out, line);
}

void smtp_client_capabilities_parse(struct smtp_client_capabilities *out, const struct smtp_reply_parser *parser)
{
	*out = (struct smtp_client_capabilities){.esmtp = true};
	for (size_t i = 1; i < smtp_reply_line_count(parser); i++)
		parse_line(out, smtp_reply_line(parser, i));
}
