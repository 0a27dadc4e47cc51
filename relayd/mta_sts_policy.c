#include "relayd/mta_sts_policy.h"

#include "base/base.h"
#include "dns/name.h"

#include <ctype.h>
#include <stdlib.h>

/* ---- the record ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct slice skip_blanks(struct slice s)
{
	while (s.len && is_blank(s.ptr[0]))
		s = slice_from(s, 1);
	return s;
}

static struct slice drop_blanks(struct slice s)
{
	while (s.len && is_blank(s.ptr[s.len - 1]))
		s.len--;
	return s;
}

/* What stands in front of the next `byte`, which is passed over; all, when there is none. */
static struct slice cut(struct slice *s, char byte)
{
	ptrdiff_t at = slice_find(*s, byte);
	struct slice piece = at < 0 ? *s : slice_to(*s, (size_t)at);

	*s = slice_from(*s, at < 0 ? s->len : (size_t)at + 1);
	return piece;
}

static bool take_id(struct slice value, char id[MTA_STS_ID_MAX + 1])
{
	if (value.len == 0 || value.len > MTA_STS_ID_MAX)
		return false;
	for (size_t i = 0; i < value.len; i++)
		if (!isalnum((unsigned char)value.ptr[i]) || (unsigned char)value.ptr[i] >= 0x80)
			return false;
	return slice_to_cstr(value, id, MTA_STS_ID_MAX + 1);
}

int mta_sts_record_parse(struct slice text, char id[MTA_STS_ID_MAX + 1])
{
	struct slice version = drop_blanks(cut(&text, ';'));
	bool has_id = false;

	id[0] = '\0';
	if (!slice_eq(version, SLICE("v=STSv1")))
		return 0;
	while (text.len) {
		struct slice field = drop_blanks(skip_blanks(cut(&text, ';')));
		if (has_id || !slice_has_prefix(field, SLICE("id=")))
			continue;
		if (!take_id(slice_from(field, 3), id))
			return ERR_SYNTAX;
		has_id = true;
	}
	return has_id ? 1 : ERR_SYNTAX;
}

/* ---- the policy ---- */

const char *mta_sts_mode_name(enum mta_sts_mode mode)
{
	switch (mode) {
	case MTA_STS_NONE: return "none";
	case MTA_STS_TESTING: return "testing";
	case MTA_STS_ENFORCE: return "enforce";
	}
	return "unknown";
}

bool mta_sts_mode_parse(struct slice word, enum mta_sts_mode *mode)
{
	for (int m = MTA_STS_NONE; m <= MTA_STS_ENFORCE; m++)
		if (slice_eq(word, slice_of_str(mta_sts_mode_name((enum mta_sts_mode)m)))) {
			*mode = (enum mta_sts_mode)m;
			return true;
		}
	return false;
}

/* One to ten digits. */
static bool take_max_age(struct slice value, int64_t *out)
{
	int64_t number = 0;

	if (value.len == 0 || value.len > 10)
		return false;
	for (size_t i = 0; i < value.len; i++) {
		if (value.ptr[i] < '0' || value.ptr[i] > '9')
			return false;
		number = number * 10 + (value.ptr[i] - '0');
	}
	*out = MIN(number, (int64_t)MTA_STS_MAX_AGE_MAX_SEC);
	return true;
}

static bool take_pattern(struct mta_sts_policy *policy, struct slice value)
{
	char name[DNS_NAME_MAX + 1];
	bool is_wild = slice_has_prefix(value, SLICE("*."));
	size_t len;

	if (!dns_name_normalize(slice_from(value, is_wild ? 2 : 0), name) || !dns_name_is_host(name))
		return false;
	len = strlen(name) + (is_wild ? 2 : 0);
	policy->patterns = xreallocarray(policy->patterns, policy->pattern_count + 1, sizeof(char *));
	policy->patterns[policy->pattern_count] = xcalloc(1, len + 1);
	memcpy(policy->patterns[policy->pattern_count], "*.", is_wild ? 2 : 0);
	memcpy(policy->patterns[policy->pattern_count] + (is_wild ? 2 : 0), name, strlen(name));
	policy->pattern_count++;
	policy->bytes += len + 1 + sizeof(char *);
	return true;
}

/* Which fields have been there. */
struct seen {
	bool version, mode, max_age;
};

/* Of doubled fields the first counts, except mx. */
static int take_field(struct mta_sts_policy *policy, struct seen *seen, struct slice name, struct slice value,
		      struct err *err)
{
	if (slice_eq(name, SLICE("version")) && !seen->version) {
		seen->version = true;
		if (!slice_eq(value, SLICE("STSv1")))
			return err_set(err, ERR_SYNTAX, "the policy's version is not STSv1");
	} else if (slice_eq(name, SLICE("mode")) && !seen->mode) {
		seen->mode = true;
		if (!mta_sts_mode_parse(value, &policy->mode))
			return err_set(err, ERR_SYNTAX, "the policy's mode is not enforce, testing or none");
	} else if (slice_eq(name, SLICE("max_age")) && !seen->max_age) {
		seen->max_age = true;
		if (!take_max_age(value, &policy->max_age_sec))
			return err_set(err, ERR_SYNTAX, "the policy's max_age is not a number of seconds");
	} else if (slice_eq(name, SLICE("mx"))) {
		if (policy->pattern_count == MTA_STS_PATTERNS_MAX)
			return err_set(err, ERR_LIMIT, "the policy has more than %d mx patterns", MTA_STS_PATTERNS_MAX);
		if (!take_pattern(policy, value))
			return err_set(err, ERR_SYNTAX, "an mx pattern of the policy is not a host name");
	}
	return 0;
}

static int take_lines(struct mta_sts_policy *policy, struct slice text, struct err *err)
{
	struct seen seen = {0};

	if (text.len > MTA_STS_TEXT_MAX)
		return err_set(err, ERR_LIMIT, "the policy is longer than 64 KiB");
	while (text.len) {
		struct slice line = cut(&text, '\n'), name;

		if (line.len && line.ptr[line.len - 1] == '\r')
			line.len--;
		line = drop_blanks(line);
		if (line.len == 0)
			continue;
		if (slice_find(line, ':') < 0)
			return err_set(err, ERR_SYNTAX, "a line of the policy has no colon");
		name = cut(&line, ':');
		if (take_field(policy, &seen, name, skip_blanks(line), err) != 0)
			return err ? (int)err->code : ERR_SYNTAX;
	}
	if (!seen.version || !seen.mode || !seen.max_age)
		return err_set(err, ERR_SYNTAX, "the policy lacks its %s",
			       !seen.version ? "version"
			       : !seen.mode  ? "mode"
					     : "max_age");
	if (policy->mode != MTA_STS_NONE && policy->pattern_count == 0)
		return err_set(err, ERR_SYNTAX, "the policy names no mx");
	return 0;
}

struct mta_sts_policy *mta_sts_policy_parse(struct slice text, struct err *err)
{
	struct mta_sts_policy *policy = xcalloc(1, sizeof(*policy));
	struct err words;

	policy->references = 1;
	policy->bytes = sizeof(*policy);
	if (take_lines(policy, text, err ? err : &words) != 0)
		mta_sts_policy_unref(&policy);
	return policy;
}

struct mta_sts_policy *mta_sts_policy_ref(struct mta_sts_policy *policy)
{
	policy->references++;
	return policy;
}

void mta_sts_policy_unref(struct mta_sts_policy **policy)
{
	struct mta_sts_policy *p = *policy;

	*policy = NULL;
	if (!p || --p->references > 0)
		return;
	for (size_t i = 0; i < p->pattern_count; i++)
		free(p->patterns[i]);
	free(p->patterns);
	free(p);
}

void mta_sts_policy_format(const struct mta_sts_policy *policy, struct buf *out)
{
	buf_printf(out, "version: STSv1\nmode: %s\nmax_age: %lld\n", mta_sts_mode_name(policy->mode),
		   (long long)policy->max_age_sec);
	for (size_t i = 0; i < policy->pattern_count; i++)
		buf_printf(out, "mx: %s\n", policy->patterns[i]);
}

static bool fits(const char *pattern, const char *host)
{
	const char *dot;

	if (strncmp(pattern, "*.", 2) != 0)
		return strcmp(pattern, host) == 0;
	dot = strchr(host, '.');
	return dot && dot != host && strcmp(pattern + 2, dot + 1) == 0;
}

bool mta_sts_policy_lists(const struct mta_sts_policy *policy, const char *host)
{
	char name[DNS_NAME_MAX + 1];

	if (!dns_name_normalize(slice_of_str(host), name))
		return false;
	for (size_t i = 0; i < policy->pattern_count; i++)
		if (fits(policy->patterns[i], name))
			return true;
	return false;
}
