/* The TXT record and the policy of MTA-STS: what is taken is in bounds, and means the same when it is written again. */
#include "base/base.h"
#include "dns/name.h"
#include "relayd/mta_sts_policy.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool is_good)
{
	if (!is_good)
		__builtin_trap();
}

static void try_record(struct slice text)
{
	char id[MTA_STS_ID_MAX + 1];

	if (mta_sts_record_parse(text, id) != 1)
		return;
	check(id[0] && strlen(id) <= MTA_STS_ID_MAX);
	for (const char *c = id; *c; c++)
		check(isalnum((unsigned char)*c));
}

static void check_pattern(const struct mta_sts_policy *policy, const char *pattern)
{
	bool is_wild = strncmp(pattern, "*.", 2) == 0;
	char host[DNS_NAME_MAX + 3];

	check(dns_name_is_host(is_wild ? pattern + 2 : pattern));
	check(!strpbrk(pattern, " |\n")); /* the file that keeps it parts by these */
	snprintf(host, sizeof(host), "%s%s", is_wild ? "x" : "", is_wild ? pattern + 1 : pattern);
	check(mta_sts_policy_lists(policy, host) || strlen(host) > DNS_HOST_MAX);
}

static void try_policy(struct slice text)
{
	struct err err = {0};
	struct mta_sts_policy *policy = mta_sts_policy_parse(text, &err), *again;
	struct buf out;

	check((policy == NULL) == (err.text[0] != '\0'));
	if (!policy)
		return;
	check(text.len <= MTA_STS_TEXT_MAX && policy->pattern_count <= MTA_STS_PATTERNS_MAX);
	check(policy->max_age_sec >= 0 && policy->max_age_sec <= MTA_STS_MAX_AGE_MAX_SEC);
	check(policy->mode == MTA_STS_NONE || policy->pattern_count > 0);
	for (size_t i = 0; i < policy->pattern_count; i++)
		check_pattern(policy, policy->patterns[i]);
	mta_sts_policy_lists(policy, "mx.example.net");
	buf_init(&out, 2 * MTA_STS_TEXT_MAX);
	mta_sts_policy_format(policy, &out);
	again = mta_sts_policy_parse(buf_slice(&out), NULL);
	check(again || buf_len(&out) > MTA_STS_TEXT_MAX);
	if (again) {
		check(again->mode == policy->mode && again->max_age_sec == policy->max_age_sec);
		check(again->pattern_count == policy->pattern_count);
		for (size_t i = 0; i < policy->pattern_count; i++)
			check(strcmp(again->patterns[i], policy->patterns[i]) == 0);
	}
	mta_sts_policy_unref(&again);
	mta_sts_policy_unref(&policy);
	buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = slice_of(data, size);

	try_record(text);
	try_policy(text);
	return 0;
}
